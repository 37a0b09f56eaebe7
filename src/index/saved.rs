//! Files of indexes: [`Save`] writes one, [`Load`] and [`registry::load`](super::registry::load)
//! read it.
//!
//! A file is in the [safetensors](https://github.com/huggingface/safetensors) format: a JSON
//! header, then the arrays, little-endian. So any program that reads safetensors can look into it.
//! The header's `__metadata__` says what it is:
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

mod read;
mod write;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use thiserror::Error;

pub use self::read::IndexFile;
use super::parts::{NumberType, PartError, Parts};
use super::{Build, Index};
use crate::files;

/// What the header calls the format.
const FORMAT: &str = "fashion-knn index";
/// The version that is written, and the latest that is read.
const VERSION: &str = "1";
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
    /// Parameters are saved as f64. So a seed above 2⁵³ comes back as 2⁵³: the index is the same,
    /// but a build with its parameters is not.
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
    let mut metadata = write::metadata(index, &parts);
    metadata.extend(notes.iter().cloned());
    let header = write::header(&metadata, &parts);
    let write = |file: &mut File| write::write(file, &header, &parts);
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
    /// with their checksum. It trusts that **nobody changes the file** while the index lives: a
    /// file that is cut meanwhile ends the program (SIGBUS), and one that is overwritten changes
    /// the answers. [`Save::save`] renames, which leaves a mapped file as it was.
    ///
    /// # Errors
    /// As [`Load::load`].
    fn load_mapped(path: impl AsRef<Path>) -> Result<Self, SavedError> {
        let mut file = IndexFile::open_mapped(path.as_ref())?;
        file.index()
    }
}

impl<I: Build> Load for I {}

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

fn number_type(dtype: Dtype) -> Option<NumberType> {
    use NumberType::{F32, F64, I8, I16, I32, U8, U16, U32, U64};

    let known = [U8, I8, U16, I16, U32, I32, F32, U64, F64];
    known
        .into_iter()
        .find(|&number| self::dtype(number) == dtype)
}

#[cfg(test)]
mod tests;
