//! Vectors out of files: NumPy's `.npy`, and the `.fvecs` and `.bvecs` of the TEXMEX collections.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use ndarray_npy::{ReadNpyError, ReadNpyExt};
use thiserror::Error;

use super::{Vectors, VectorsError};

/// Why a file of vectors could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's name does not end in a known way.
    #[error("{}: expected a name that ends in .npy, .fvecs or .bvecs", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what its name says.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The values cannot be searched in.
    #[error("{}: {source}", path.display())]
    Vectors {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: VectorsError,
    },
}

impl Vectors {
    /// Reads a file by the ending of its name: `.npy` (a two-dimensional array of `uint8`, `float32` or `float64`),
    /// `.fvecs` or `.bvecs` (each vector a 32-bit little-endian dimension and its values).
    ///
    /// # Errors
    /// If the file cannot be read, is not of that format, or holds values that are not finite.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let bytes = || {
            fs::read(path).map_err(|source| ReadError::Io {
                path: path.to_owned(),
                source,
            })
        };
        let read = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => npy(&bytes()?),
            Some("fvecs") => vecs(&bytes()?, 4).and_then(|(dim, values)| {
                let (words, _) = values.as_chunks::<4>();
                let floats: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
                Ok(Vectors::from_floats(dim, floats)?)
            }),
            Some("bvecs") => {
                vecs(&bytes()?, 1).and_then(|(dim, values)| Ok(Vectors::from_bytes(dim, values)?))
            }
            _ => {
                return Err(ReadError::Format {
                    path: path.to_owned(),
                });
            }
        };
        read.map_err(|fault| match fault {
            Fault::Malformed(why) => ReadError::Malformed {
                path: path.to_owned(),
                why,
            },
            Fault::Vectors(source) => ReadError::Vectors {
                path: path.to_owned(),
                source,
            },
        })
    }
}

/// What can be wrong with a file, before its name is known.
enum Fault {
    Malformed(String),
    Vectors(VectorsError),
}

impl From<VectorsError> for Fault {
    fn from(error: VectorsError) -> Self {
        Self::Vectors(error)
    }
}

fn npy(file: &[u8]) -> Result<Vectors, Fault> {
    match Array2::<u8>::read_npy(Cursor::new(file)) {
        Ok(array) => Ok(Vectors::from_bytes(
            array.ncols(),
            array.iter().copied().collect::<Vec<_>>(),
        )?),
        Err(ReadNpyError::WrongDescriptor(_)) => match Array2::<f32>::read_npy(Cursor::new(file)) {
            Ok(array) => Ok(Vectors::from_array(array.view())?),
            Err(ReadNpyError::WrongDescriptor(_)) => {
                let array = Array2::<f64>::read_npy(Cursor::new(file)).map_err(malformed)?;
                Ok(Vectors::from_array(
                    array.mapv(|value| value as f32).view(),
                )?)
            }
            Err(error) => Err(malformed(error)),
        },
        Err(error) => Err(malformed(error)),
    }
}

fn malformed(error: ReadNpyError) -> Fault {
    Fault::Malformed(format!(
        "{error}; expected an n × d array of uint8, float32 or float64"
    ))
}

/// The dimension and the values of a `.fvecs` or `.bvecs` file, whose values have `size` bytes.
fn vecs(file: &[u8], size: usize) -> Result<(usize, Vec<u8>), Fault> {
    let Some((head, _)) = file.split_first_chunk::<4>() else {
        return Err(Fault::Malformed(format!(
            "{} bytes; expected a 32-bit dimension",
            file.len()
        )));
    };
    let dim = u32::from_le_bytes(*head) as usize;
    let record = 4 + dim * size;
    if dim == 0 || !file.len().is_multiple_of(record) {
        let length = file.len();
        return Err(Fault::Malformed(format!(
            "{length} bytes are not whole vectors of the first one's {dim} dimensions"
        )));
    }
    let mut values = Vec::with_capacity(file.len() / record * dim * size);
    for (row, record) in file.chunks_exact(record).enumerate() {
        let (own, rest) = record.split_at(4);
        if own != head {
            return Err(Fault::Malformed(format!(
                "vector {row} has another dimension than the first one's {dim}"
            )));
        }
        values.extend_from_slice(rest);
    }
    Ok((dim, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray_npy::WriteNpyExt;

    fn read(name: &str, bytes: &[u8]) -> Result<Vectors, ReadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Vectors::read(path)
    }

    fn npy_of<T: ndarray_npy::WritableElement>(array: &Array2<T>) -> Vec<u8> {
        let mut file = Vec::new();
        array.write_npy(&mut file).unwrap();
        file
    }

    #[test]
    fn reads_the_three_formats() {
        let array = ndarray::array![[1.0f32, 2.0], [3.0, 4.5]];
        assert_eq!(read("a.npy", &npy_of(&array)).unwrap().to_array(), array);
        assert_eq!(
            read("a.npy", &npy_of(&array.mapv(f64::from)))
                .unwrap()
                .to_array(),
            array
        );
        let bytes = ndarray::array![[1u8, 2], [3, 255]];
        assert_eq!(
            read("a.npy", &npy_of(&bytes)).unwrap().bytes().unwrap(),
            [1, 2, 3, 255]
        );
        assert_eq!(
            read("a.bvecs", &[2, 0, 0, 0, 7, 8, 2, 0, 0, 0, 9, 10])
                .unwrap()
                .bytes()
                .unwrap(),
            [7, 8, 9, 10]
        );
        let fvecs: Vec<u8> = [&1u32.to_le_bytes()[..], &1.5f32.to_le_bytes()].concat();
        assert_eq!(read("a.fvecs", &fvecs).unwrap().floats().unwrap(), [1.5]);
    }

    #[test]
    fn refuses_what_is_malformed_and_names_it() {
        let error = |name, bytes: &[u8]| read(name, bytes).unwrap_err().to_string();
        assert!(error("a.bvecs", &[2, 0, 0, 0, 7]).contains("not whole vectors"));
        assert!(
            error("a.bvecs", &[1, 0, 0, 0, 7, 2, 0, 0, 0, 9])
                .contains("vector 1 has another dimension")
        );
        assert!(error("a.bvecs", &[0, 0, 0, 0]).contains("0 dimensions"));
        assert!(error("a.fvecs", &[1]).contains("32-bit dimension"));
        assert!(error("a.npy", b"no").contains("a.npy"));
        assert!(
            error("a.npy", &npy_of(&ndarray::array![[1i64]])).contains("expected an n × d array")
        );
        assert!(error("a.txt", b"").contains(".fvecs"));
        let nan: Vec<u8> = [&1u32.to_le_bytes()[..], &f32::NAN.to_le_bytes()].concat();
        assert!(matches!(
            read("a.fvecs", &nan),
            Err(ReadError::Vectors { .. })
        ));
        assert!(matches!(
            Vectors::read("/nowhere/a.npy"),
            Err(ReadError::Io { .. })
        ));
    }
}
