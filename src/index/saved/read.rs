//! An index file, opened and read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{FORMAT, HEADER, LENGTH, SavedError, VERSION, hexadecimal, number_type};
use crate::distance::Metric;
use crate::files::Map;
use crate::index::parts::{NumberType, PartError, Saved, Source};
use crate::index::{Build, Settings};
use crate::vectors::{Values, Vectors};

/// The longest header that is read. That of a forest of 1,000 trees has 1 MB.
const LONGEST_HEADER: u64 = 64 << 20;
/// About so many bytes are read at a time: few enough to stay in the second-level cache until they
/// are converted.
const PIECE: usize = 1 << 18;

/// An open file of an index, whose header was read and verified.
#[derive(Debug)]
pub struct IndexFile {
    path: PathBuf,
    file: File,
    /// The whole file, if the vectors are to stay in it.
    map: Option<Map>,
    metadata: HashMap<String, String>,
    pub(super) arrays: BTreeMap<String, Array>,
    search: Settings,
    build: Settings,
    metric: Metric,
}

/// What the header says of an array.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) number: NumberType,
    shape: Vec<usize>,
    /// Where it begins in the file, and its length in bytes.
    pub(super) start: u64,
    pub(super) len: usize,
    pub(super) checksum: String,
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
        let map = Map::of(&file.file).map_err(|source| SavedError::Io {
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
        if index.is_empty() {
            return Err(self.wrong(PartError::invalid("n", "no rows; expected at least one")));
        }
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
    pub(in crate::index) fn unknown_kind(&self) -> SavedError {
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
    pub(in crate::index) fn wrong(&self, source: PartError) -> SavedError {
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
