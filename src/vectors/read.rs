//! Vectors out of files: NumPy's `.npy`, and the `.fvecs` and `.bvecs` of the TEXMEX collections
//! (<http://corpus-texmex.irisa.fr>).
//!
//! A `.fvecs` or `.bvecs` file is a row of records, one for each vector:
//!
//! ```text
//! | d: u32, little-endian | d values: f32, little-endian, or u8 | the next record ...
//! ```
//!
//! Every record repeats the dimension. A file whose records differ in it is refused.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
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
    /// The file's name has none of the known endings.
    #[error("{}: expected a name that ends in .npy, .fvecs or .bvecs", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The contents are not of the format that the name says.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The values cannot be searched: one of them is not finite, or there are too many.
    #[error("{}: {source}", path.display())]
    Vectors {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: VectorsError,
    },
}

impl Vectors {
    /// Reads a file, in the format that the ending of its name says.
    ///
    /// - `.npy`: an n × d array of `uint8`, `float32` or `float64`;
    /// - `.fvecs`, `.bvecs`: each vector is a 32-bit little-endian dimension and its values.
    ///
    /// Bytes stay bytes; all other values become f32.
    ///
    /// # Errors
    /// If the file cannot be read, is not of that format, or holds values that are not finite.
    ///
    /// ```
    /// use fashion_knn::vectors::Vectors;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("two.bvecs");
    /// std::fs::write(&path, [2, 0, 0, 0, 7, 8, 2, 0, 0, 0, 9, 10])?;
    /// let vectors = Vectors::read(&path)?;
    /// assert_eq!((vectors.len(), vectors.dim()), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let parse = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => npy,
            Some("fvecs") => fvecs,
            Some("bvecs") => bvecs,
            _ => {
                return Err(ReadError::Format {
                    path: path.to_owned(),
                });
            }
        };
        // The name is checked before the file is read, which may have gigabytes. The parsers see
        // the bytes only; the name joins their errors here.
        let file = fs::read(path).map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
        parse(&file).map_err(|fault| match fault {
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

/// What is wrong with the contents of a file. The parsers do not know its name.
enum Fault {
    Malformed(String),
    Vectors(VectorsError),
}

impl From<VectorsError> for Fault {
    fn from(error: VectorsError) -> Self {
        Self::Vectors(error)
    }
}

/// A NumPy array of two dimensions.
fn npy(file: &[u8]) -> Result<Vectors, Fault> {
    // The header names the type of the values. Each type is tried until one agrees with it.
    if let Some(bytes) = npy_of::<u8>(file)? {
        let dim = bytes.ncols();
        // `iter` goes row after row, also if the file has the values column after column.
        let values: Vec<u8> = bytes.iter().copied().collect();
        return Ok(Vectors::from_bytes(dim, values)?);
    }
    if let Some(floats) = npy_of::<f32>(file)? {
        return Ok(Vectors::from_array(floats.view())?);
    }
    let doubles = Array2::<f64>::read_npy(Cursor::new(file)).map_err(malformed)?;
    // f32 has 24 bits of f64's 53. A number too large for it becomes infinite, and `from_array`
    // refuses the file.
    let floats = doubles.mapv(|value| value as f32);
    Ok(Vectors::from_array(floats.view())?)
}

/// The array, or none if its values are of another type than `T`.
fn npy_of<T: ReadableElement>(file: &[u8]) -> Result<Option<Array2<T>>, Fault> {
    match Array2::read_npy(Cursor::new(file)) {
        Ok(array) => Ok(Some(array)),
        // The header is sound and names another type. Any other fault is the file's, whatever type
        // is asked for.
        Err(ReadNpyError::WrongDescriptor(_)) => Ok(None),
        Err(error) => Err(malformed(error)),
    }
}

fn malformed(error: ReadNpyError) -> Fault {
    Fault::Malformed(format!(
        "{error}; expected an n × d array of uint8, float32 or float64"
    ))
}

fn bvecs(file: &[u8]) -> Result<Vectors, Fault> {
    let (dim, values) = records(file, 1)?;
    Ok(Vectors::from_bytes(dim, values)?)
}

fn fvecs(file: &[u8]) -> Result<Vectors, Fault> {
    let (dim, values) = records(file, 4)?;
    // Nothing is left over: each record has 4 · dim bytes of values.
    let (words, _) = values.as_chunks::<4>();
    let floats: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
    Ok(Vectors::from_floats(dim, floats)?)
}

/// The dimension and the values, without the dimensions between them, of a `.fvecs` or `.bvecs`
/// file whose values have `size` bytes.
fn records(file: &[u8], size: usize) -> Result<(usize, Vec<u8>), Fault> {
    let length = file.len();
    let Some((head, _)) = file.split_first_chunk::<4>() else {
        return Err(Fault::Malformed(format!(
            "{length} bytes; expected a 32-bit dimension"
        )));
    };
    // The first record says how long all must be.
    let dim = u32::from_le_bytes(*head) as usize;
    // Saturating, for machines whose `usize` has 32 bits: such a record is longer than any file.
    // The 4 is for the dimension itself.
    let record_len = dim.saturating_mul(size).saturating_add(4);
    if dim == 0 || !length.is_multiple_of(record_len) {
        return Err(Fault::Malformed(format!(
            "{length} bytes are not whole vectors of the first one's {dim} dimensions"
        )));
    }
    // At most the length of the file. A dimension that does not fit the length has been refused
    // above, so that a false header cannot ask for too much memory.
    let mut values = Vec::with_capacity(length / record_len * dim * size);
    for (row, record) in file.chunks_exact(record_len).enumerate() {
        // The length can be right by chance while the records are not: 2, 1 and 3 dimensions are as
        // long as 2, 2 and 2.
        let (own_dim, rest) = record.split_at(4);
        if own_dim != head {
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

    fn npy_file<T: ndarray_npy::WritableElement>(array: &Array2<T>) -> Vec<u8> {
        let mut file = Vec::new();
        array.write_npy(&mut file).unwrap();
        file
    }

    #[test]
    fn reads_the_three_formats() {
        let array = ndarray::array![[1.0f32, 2.0], [3.0, 4.5]];
        assert_eq!(read("a.npy", &npy_file(&array)).unwrap().to_array(), array);
        assert_eq!(
            read("a.npy", &npy_file(&array.mapv(f64::from)))
                .unwrap()
                .to_array(),
            array
        );
        let bytes = ndarray::array![[1u8, 2], [3, 255]];
        assert_eq!(
            read("a.npy", &npy_file(&bytes)).unwrap().bytes().unwrap(),
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
            error("a.npy", &npy_file(&ndarray::array![[1i64]])).contains("expected an n × d array")
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
