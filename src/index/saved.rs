//! Files of indexes: [`Save`] writes one, [`Load`] and [`registry::load`](super::registry::load)
//! read it.
//!
//! A file is in the [safetensors](https://github.com/huggingface/safetensors) format: a JSON header,
//! then the arrays, little-endian. So any program that reads safetensors can look into it. The
//! header's `__metadata__` says what it is:
//!
//! | key | value |
//! |---|---|
//! | `format` | `fashion-knn index` |
//! | `version` | `1`, the version of this format |
//! | `kind` | the index by its key in the registry: `hnsw` |
//! | `metric` | the metric of its distances: `euclidean` |
//! | `build`, `search` | its parameters: `m=16 ef_construction=100` |
//! | `n`, `d` | how many vectors it holds, and of what dimension |
//! | `checksums` | the [XXH3-64](https://xxhash.com) of the bytes of each array, by name |
//! | `vectors` | the same of the vectors alone, where the index keeps them |
//!
//! The first array, `header`, is one number: the XXH3-64 of the header and the eight bytes before
//! it. It is compared before the header is understood. The other arrays are the
//! [parts](super::parts) of the index.
//!
//! Checksums find damage, not malice: whoever can write the file can write its checksums, too.
//! Therefore each index also checks that its parts fit together, so that even then no search goes
//! beyond an array. What no check can know is whether a file made by hand gives the right
//! neighbours.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::json;
use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::parts::{NumberType, PartError, PartOut, Parts, Saved, Source};
use super::{Build, Index, Settings};
use crate::distance::Metric;
use crate::files::{self, Map};
use crate::vectors::{Values, Vectors};

/// What the header calls the format.
const FORMAT: &str = "fashion-knn index";
/// The version that is written, and the latest that is read.
const VERSION: &str = "1";
/// The longest header that is read. That of a forest of 1,000 trees has 1 MB.
const LONGEST_HEADER: u64 = 64 << 20;
/// About so many bytes are read at a time: few enough to stay in the second-level cache until they
/// are converted.
const PIECE: usize = 1 << 18;
/// The name of the array that holds the header's checksum.
const HEADER: &str = "header";
/// Bytes of the number at the start of a file, which is the length of the header.
const LENGTH: usize = 8;

/// Why an index could not be saved or loaded. Each variant names the file.
#[derive(Debug, Error)]
pub enum SavedError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no index.
    #[error("{}: not an index: {why}", path.display())]
    NotAnIndex {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        why: String,
    },
    /// The file was written by a later version.
    #[error("{}: version {received:?} of the format; this program reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        received: String,
    },
    /// The file is of another index than was asked for.
    #[error("{}: an index of kind {received:?}; expected {expected}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        expected: String,
        /// The kind in the file.
        received: String,
    },
    /// The file is cut, damaged, or does not hold what its index needs.
    #[error("{}: {source}", path.display())]
    Parts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PartError,
    },
}

/// Saves any index to a file.
pub trait Save: Index {
    /// Writes the index, whole, to a file from which [`Load::load`] makes it again.
    ///
    /// The file is written beside and renamed: a reader sees the old file or the new one. It takes
    /// about [`Index::memory_bytes`], and no second copy in memory.
    ///
    /// ```
    /// use fashion_knn::prelude::*;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("corners.knn");
    /// let base = Arc::new(Vectors::from_bytes(2, vec![0, 0, 4, 0, 0, 3])?);
    /// let index = BruteForce::build(base, BruteForceParams::default())?;
    /// index.save(&path)?;
    ///
    /// let same = BruteForce::load(&path)?;
    /// assert_eq!(same.query(&[4u8, 3], 2)?, index.query(&[4u8, 3], 2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be written. What was there under its name stays.
    fn save(&self, path: impl AsRef<Path>) -> Result<(), SavedError> {
        save_with(self, path.as_ref(), &[])
    }
}

impl<I: Index + ?Sized> Save for I {}

/// [`Save::save`], with more in the header: other keys than its own, and what they say.
pub(crate) fn save_with<I: Index + ?Sized>(
    index: &I,
    path: &Path,
    notes: &[(&'static str, String)],
) -> Result<(), SavedError> {
    let mut parts = Parts::default();
    index.parts(&mut parts);
    let mut metadata = metadata(index, &parts);
    metadata.extend(notes.iter().cloned());
    let header = header(&metadata, &parts);
    let write = |file: &mut File| write(file, &header, &parts);
    files::write_atomically_with(path, write).map_err(|source| SavedError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Loads an index whose type is known. [`registry::load`](super::registry::load) finds the type.
pub trait Load: Build {
    /// Reads an index that [`Save::save`] wrote, and verifies all of it. It answers as the one
    /// that was saved did, to the last bit.
    ///
    /// # Errors
    /// If the file cannot be read, is no index of this type, or is damaged.
    fn load(path: impl AsRef<Path>) -> Result<Self, SavedError> {
        let mut file = IndexFile::open(path.as_ref())?;
        file.index()
    }

    /// As [`Load::load`], but the vectors stay in the file: they are mapped into memory, and read
    /// when a search needs them. So it begins in milliseconds, and programs that map one file share
    /// its memory.
    ///
    /// The header and the other arrays are verified; the vectors are not read, and so not compared
    /// with their checksum. It trusts that **nobody changes the file** while the index lives: a file
    /// that is cut meanwhile ends the program (SIGBUS), and one that is overwritten changes the
    /// answers. [`Save::save`] renames, which leaves a mapped file as it was.
    ///
    /// # Errors
    /// As [`Load::load`].
    fn load_mapped(path: impl AsRef<Path>) -> Result<Self, SavedError> {
        let mut file = IndexFile::open_mapped(path.as_ref())?;
        file.index()
    }
}

impl<I: Build> Load for I {}

/// An array as it lies in a file: its name, and the part; `None` for the header's checksum.
type Placed<'p, 'a> = (&'p str, Option<&'p PartOut<'a>>);

/// The arrays in the order in which they lie in the file.
fn placed<'p, 'a>(parts: &'p Parts<'a>) -> Vec<Placed<'p, 'a>> {
    let mut placed: Vec<Placed<'_, '_>> = parts.iter().map(|(n, part)| (n, Some(part))).collect();
    // Wide numbers first. So each array begins at a multiple of its numbers' size, and can be
    // mapped. The sort is stable: of one size they lie by name.
    placed.sort_by_key(|(_, part)| std::cmp::Reverse(part.map(|part| part.number.size())));
    placed.insert(0, (HEADER, None));
    placed
}

/// The length of the header, and the header, filled up to a multiple of 8 bytes.
fn header(metadata: &BTreeMap<&str, String>, parts: &Parts<'_>) -> Vec<u8> {
    let mut arrays = serde_json::Map::new();
    arrays.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for (name, part) in placed(parts) {
        let (number, shape) = part.map_or((NumberType::U64, &[][..]), |part| {
            (part.number, &part.shape[..])
        });
        let end = start + shape.iter().product::<usize>() * number.size();
        let info = json!({
            "dtype": dtype(number).to_string(),
            "shape": shape,
            "data_offsets": [start, end],
        });
        arrays.insert(name.to_owned(), info);
        start = end;
    }
    let mut header = vec![0; LENGTH];
    header.extend(json!(arrays).to_string().into_bytes());
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let length = (header.len() - LENGTH) as u64;
    header[..LENGTH].copy_from_slice(&length.to_le_bytes());
    header
}

/// What the header says of the index.
fn metadata<I: Index + ?Sized>(index: &I, parts: &Parts<'_>) -> BTreeMap<&'static str, String> {
    let checksums: BTreeMap<&str, String> = parts
        .iter()
        .map(|(name, part)| (name, hexadecimal(checksum_of(part))))
        .collect();
    let (build, search) = parts.settings();
    let mut metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("version", VERSION.to_owned()),
        ("kind", parts.kind().to_owned()),
        ("metric", index.metric().name().to_owned()),
        ("build", build.to_string()),
        ("search", search.to_string()),
        ("n", index.len().to_string()),
        ("d", index.dim().to_string()),
        ("checksums", json!(checksums).to_string()),
    ]);
    if let Some(vectors) = parts.vectors() {
        metadata.insert("vectors", checksums[vectors].clone());
    }
    metadata
}

fn checksum_of(part: &PartOut<'_>) -> u64 {
    let mut hash = Xxh3::new();
    part.for_each_piece(&mut |piece| hash.update(piece));
    hash.digest()
}

fn hexadecimal(checksum: u64) -> String {
    format!("{checksum:016x}")
}

fn dtype(number: NumberType) -> Dtype {
    match number {
        NumberType::U8 => Dtype::U8,
        NumberType::I8 => Dtype::I8,
        NumberType::U16 => Dtype::U16,
        NumberType::I16 => Dtype::I16,
        NumberType::U32 => Dtype::U32,
        NumberType::I32 => Dtype::I32,
        NumberType::F32 => Dtype::F32,
        NumberType::U64 => Dtype::U64,
        NumberType::F64 => Dtype::F64,
    }
}

/// Writes the header, its checksum, and all parts.
fn write(file: &mut File, header: &[u8], parts: &Parts<'_>) -> io::Result<()> {
    file.write_all(header)?;
    for (_, part) in placed(parts) {
        let Some(part) = part else {
            file.write_all(&xxh3_64(header).to_le_bytes())?;
            continue;
        };
        // The first fault is kept, and nothing is written after it.
        let mut written = Ok(());
        part.for_each_piece(&mut |piece| {
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        written?;
    }
    Ok(())
}

/// An open file of an index, whose header was read and verified.
#[derive(Debug)]
pub struct IndexFile {
    path: PathBuf,
    file: File,
    /// The whole file, if the vectors are to stay in it.
    map: Option<Map>,
    metadata: HashMap<String, String>,
    arrays: BTreeMap<String, Array>,
    search: Settings,
    build: Settings,
    metric: Metric,
}

/// What the header says of an array.
#[derive(Debug)]
struct Array {
    number: NumberType,
    shape: Vec<usize>,
    /// Where it begins in the file, and its length in bytes.
    start: u64,
    len: usize,
    checksum: String,
}

impl IndexFile {
    /// Opens a file, and verifies its header and that it has the length which that says.
    ///
    /// # Errors
    /// If it cannot be read, or is no index that this version knows.
    pub fn open(path: &Path) -> Result<Self, SavedError> {
        let io = |source| SavedError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let no_index = |why: String| SavedError::NotAnIndex {
            path: path.to_owned(),
            why,
        };
        let header = read_header(&mut file, length).map_err(io)?;
        let header = header.map_err(|why| no_index(why.to_owned()))?;
        let found: Metadata = serde_json::from_slice(&header[LENGTH..])
            .map_err(|error| no_index(format!("its header: {error}")))?;
        let data = (header.len() + found.data_len()) as u64;
        if data != length {
            let why = format!("it has {length} bytes, and its header is of {data}");
            return Err(no_index(why));
        }
        let metadata = found.metadata().clone().unwrap_or_default();
        let value = |key: &str| match metadata.get(key) {
            Some(value) => Ok(value.as_str()),
            None => Err(no_index(format!("its header has no {key:?}"))),
        };
        if value("format")? != FORMAT {
            return Err(no_index("its header says so".to_owned()));
        }
        if value("version")? != VERSION {
            return Err(SavedError::Version {
                path: path.to_owned(),
                received: value("version")?.to_owned(),
            });
        }
        let wrong = |error: &dyn std::fmt::Display| no_index(error.to_string());
        Ok(Self {
            arrays: arrays(&found, value("checksums")?, header.len() as u64).map_err(no_index)?,
            search: value("search")?.parse().map_err(|error| wrong(&error))?,
            build: value("build")?.parse().map_err(|error| wrong(&error))?,
            metric: value("metric")?.parse().map_err(|error| wrong(&error))?,
            path: path.to_owned(),
            file,
            map: None,
            metadata,
        })
    }

    /// As [`Self::open`], with the vectors mapped.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_mapped(path: &Path) -> Result<Self, SavedError> {
        let mut file = Self::open(path)?;
        let map = Map::open(path).map_err(|source| SavedError::Io {
            path: path.to_owned(),
            source,
        })?;
        file.map = Some(map);
        Ok(file)
    }

    /// The kind of the index: its key in the registry.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.value("kind")
    }

    /// What [`save_with`] has noted in the header.
    pub(crate) fn note(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// What the header says, or nothing.
    fn value(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }

    /// The metric of its distances.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The index, if it is of this type.
    ///
    /// # Errors
    /// If it is of another type, damaged, or does not fit together.
    pub fn index<I: Build>(&mut self) -> Result<I, SavedError> {
        self.expect_kind(I::KEY, self.metric)?;
        let settings = (self.build.clone(), self.search.clone());
        let metric = self.metric;
        let index = I::from_parts(&mut Saved::new(self, metric, settings));
        let index = index.map_err(|source| self.wrong(source))?;
        self.expect_kind(I::KEY, index.metric())?;
        for (key, value) in [("n", index.len()), ("d", index.dim())] {
            if self.value(key) != value.to_string() {
                let why = format!(
                    "the header says {}, the parts are of {value}",
                    self.value(key)
                );
                return Err(self.wrong(PartError::invalid(key, why)));
            }
        }
        Ok(index)
    }

    /// The error that its kind is none of the registry.
    pub(super) fn unknown_kind(&self) -> SavedError {
        SavedError::Kind {
            path: self.path.clone(),
            expected: "one of the registry".to_owned(),
            received: self.kind().to_owned(),
        }
    }

    fn expect_kind(&self, kind: &str, metric: Metric) -> Result<(), SavedError> {
        if (self.kind(), self.metric) == (kind, metric) {
            return Ok(());
        }
        Err(SavedError::Kind {
            path: self.path.clone(),
            expected: format!("{kind:?}, metric {}", metric.name()),
            received: format!("{}, metric {}", self.kind(), self.metric.name()),
        })
    }

    /// The error that names this file.
    pub(super) fn wrong(&self, source: PartError) -> SavedError {
        SavedError::Parts {
            path: self.path.clone(),
            source,
        }
    }
}

/// The length of the header and the header, once its checksum was compared; what is wrong if it is
/// another. The file ends up behind the checksum.
fn read_header(file: &mut File, length: u64) -> io::Result<Result<Vec<u8>, &'static str>> {
    const TOO_SHORT: &str = "it is too short";
    let mut header = vec![0; LENGTH];
    let mut checksum = [0; LENGTH];
    let Some(room) = length.checked_sub(2 * LENGTH as u64) else {
        return Ok(Err(TOO_SHORT));
    };
    file.read_exact(&mut header)?;
    let claimed = u64::from_le_bytes(header[..].try_into().expect("8 bytes"));
    // Before memory is taken for it.
    if claimed > room.min(LONGEST_HEADER) {
        return Ok(Err("it begins with no length of a header, or was cut"));
    }
    header.resize(LENGTH + claimed as usize, 0);
    file.read_exact(&mut header[LENGTH..])?;
    file.read_exact(&mut checksum)?;
    if xxh3_64(&header) != u64::from_le_bytes(checksum) {
        return Ok(Err("it is none, or its header is damaged"));
    }
    Ok(Ok(header))
}

/// What the header says of the arrays, or what is wrong with it.
fn arrays(found: &Metadata, checksums: &str, data: u64) -> Result<BTreeMap<String, Array>, String> {
    let checksums: BTreeMap<String, String> =
        serde_json::from_str(checksums).map_err(|error| error.to_string())?;
    let mut arrays = BTreeMap::new();
    for (name, info) in found.tensors() {
        // It was compared already.
        if name == HEADER {
            continue;
        }
        let number = number_type(info.dtype)
            .ok_or_else(|| format!("part {name:?} has numbers of type {}", info.dtype))?;
        let checksum = checksums.get(&name);
        let checksum = checksum.ok_or_else(|| format!("part {name:?} has no checksum"))?;
        let array = Array {
            number,
            shape: info.shape.clone(),
            start: data + info.data_offsets.0 as u64,
            len: info.data_offsets.1 - info.data_offsets.0,
            checksum: checksum.clone(),
        };
        arrays.insert(name, array);
    }
    Ok(arrays)
}

fn number_type(dtype: Dtype) -> Option<NumberType> {
    use NumberType::{F32, F64, I8, I16, I32, U8, U16, U32, U64};

    let known = [U8, I8, U16, I16, U32, I32, F32, U64, F64];
    known
        .into_iter()
        .find(|&number| self::dtype(number) == dtype)
}

impl Source for IndexFile {
    fn find(&self, name: &str) -> Option<(NumberType, &[usize])> {
        let array = self.arrays.get(name)?;
        Some((array.number, &array.shape))
    }

    fn has(&self, name: &str) -> bool {
        // Names are sorted, so that those which begin with this one follow it.
        let mut from_here = self.arrays.range(name.to_owned()..).map(|(name, _)| name);
        let mut inside = self
            .arrays
            .range(format!("{name}.")..)
            .map(|(name, _)| name);
        from_here.next().is_some_and(|first| first == name)
            || inside
                .next()
                .and_then(|first| first.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with('.'))
    }

    fn read(
        &mut self,
        name: &str,
        size: usize,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), PartError> {
        let array = self.arrays.get(name).ok_or_else(|| PartError::Missing {
            name: name.to_owned(),
        })?;
        self.file.seek(SeekFrom::Start(array.start))?;
        let mut hash = Xxh3::new();
        let mut piece = vec![0; array.len.min(PIECE.next_multiple_of(size))];
        let mut left = array.len;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE.next_multiple_of(size))];
            self.file.read_exact(piece)?;
            hash.update(piece);
            visit(piece);
            left -= piece.len();
        }
        if hexadecimal(hash.digest()) != array.checksum {
            return Err(PartError::Damaged {
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    fn mapped(&self, name: &str) -> Result<Option<Vectors>, PartError> {
        let (Some(map), Some(array)) = (&self.map, self.arrays.get(name)) else {
            return Ok(None);
        };
        let &[_, dim] = &array.shape[..] else {
            return Ok(None);
        };
        let start = array.start as usize;
        let bytes = start..start + array.len;
        // Another file may have come in the place of the one whose header was read. Then its bytes
        // are not known to be vectors, but they are inside of it.
        let vectors = match array.number {
            NumberType::U8 => {
                Values::mapped(map, bytes).map(|values| Vectors::from_bytes(dim, values))
            }
            NumberType::F32 => {
                Values::mapped(map, bytes).map(|values| Vectors::from_trusted_floats(dim, values))
            }
            _ => None,
        };
        let vectors =
            vectors.ok_or_else(|| PartError::invalid(name, "expected bytes or floats"))?;
        vectors
            .map(Some)
            .map_err(|error| PartError::invalid(name, error))
    }
}

#[cfg(test)]
mod tests;
