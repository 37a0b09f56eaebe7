//! Vectors out of files: NumPy's `.npy` and `.npz`, the `.fvecs`, `.bvecs` and `.ivecs` of the
//! TEXMEX collections, big-ann's `.fbin`, `.u8bin` and `.i8bin`, ann-benchmarks' `.hdf5`. Each
//! format has a module, which tells its layout.
//!
//! What a header promises is compared with the file's length before memory is taken for it. A file
//! is read in pieces, each straight to where its values stay. Memory is taken for the vectors, for
//! [`PIECE`] bytes, and where a [`Loss`] is counted for up to 13 bytes a row.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::numbers::{Kind, Table};
use super::values::PIECE;
use super::{Values, Vectors, VectorsError};
use crate::files::Map;

mod big_ann;
#[cfg(feature = "hdf5")]
mod hdf5;
mod npy;
mod npz;
mod numbers;
mod records;

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
    #[error("{}: expected a name that ends in {ENDINGS}", path.display())]
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
    /// As float32, rows would be others than they are in the file.
    #[error("{}: {loss}", path.display())]
    Lossy {
        /// The file.
        path: PathBuf,
        /// What would be lost.
        loss: Loss,
    },
}

/// What the values of a file lose where they become float32: nothing, but for some files of
/// float64 and of whole numbers of 32 or 64 bits.
///
/// float32 keeps 24 of the 53 binary digits of float64. Rounding to them is no loss that is counted
/// here: distances have the same error. Counted are rows that nothing can tell apart any more, and
/// values too small for all 24 digits. Whole numbers are what they are or they are not: they are
/// counted if they are rounded at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// Rows that become equal to a row from which they differ in the file.
    pub merged: usize,
    /// Rows with a value that changes by more than float32's rounding: it is nearer to zero than
    /// 1.2 · 10⁻³⁸.
    pub changed: usize,
    /// Rows with a whole number that float32 does not have: it is beyond 2²⁴ = 16,777,216.
    pub rounded: usize,
}

impl Loss {
    /// Whether every row is kept.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            merged,
            changed,
            rounded,
        } = self;
        if *rounded > 0 {
            return write!(
                formatter,
                "whole numbers become float32: {rounded} rows have values that it does not have, \
                 beyond 16,777,216; subtract a whole number from each column, or write float64"
            );
        }
        write!(
            formatter,
            "float64 becomes float32: {merged} rows become equal to rows from which they differ, \
             {changed} have values too small for float32; subtract the mean of each column, or \
             scale it"
        )
    }
}

impl Vectors {
    /// Reads a file, in the format that the ending of its name says.
    ///
    /// - `.npy`: an n × d array, in either order of bytes and of axes;
    /// - `.npz`: one such array, `file.npz:name` if there are several;
    /// - `.fvecs`, `.bvecs`, `.ivecs`: each vector is a 32-bit little-endian dimension and its
    ///   values, float32, bytes or 32-bit whole numbers;
    /// - `.fbin`, `.u8bin`, `.i8bin`: n and d, of 32 bits, and n · d values;
    /// - `.hdf5`, `.h5`: the data set `file.hdf5:name`, n × d (with the feature `hdf5`).
    ///
    /// Bytes (`uint8`, and truth values as 0 and 1) stay bytes. All other numbers become f32:
    /// `float16`, `float32`, `float64`, and whole numbers of 8 to 64 bits.
    ///
    /// # Errors
    /// If the file cannot be read, is not of that format, or holds values that are not finite as
    /// f32; if its rows [lose](Loss) something ([`Vectors::read_lossy`] takes them).
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
        let (vectors, loss) = Self::read_lossy(path)?;
        if loss.is_none() {
            return Ok(vectors);
        }
        let path = path.to_owned();
        Err(ReadError::Lossy { path, loss })
    }

    /// [`Vectors::read`], also of rows that are no longer the same as float32. What they lose is
    /// told.
    ///
    /// # Errors
    /// As [`Vectors::read`], but for the loss.
    ///
    /// ```
    /// use fashion_knn::vectors::Vectors;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// // One vector of one whole number, 2²⁴ + 1.
    /// let path = folder.path().join("one.ivecs");
    /// std::fs::write(&path, [1, 0, 0, 0, 1, 0, 0, 1])?;
    /// assert!(Vectors::read(&path).is_err());
    /// let (vectors, loss) = Vectors::read_lossy(&path)?;
    /// assert_eq!((vectors.floats(), loss.rounded), (Some(&[16_777_216.0][..]), 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_lossy(path: impl AsRef<Path>) -> Result<(Self, Loss), ReadError> {
        let path = path.as_ref();
        let named = Named::of(path)?;
        let read = || {
            let (mut file, length) = named.open()?;
            match named.format {
                Format::Npy => {
                    let (table, _) = npy::header(&mut file, length)?;
                    table.read(&mut file)
                }
                Format::BigAnn(kind) => {
                    let table = big_ann::header(&mut file, length, kind)?;
                    table.read(&mut file)
                }
                Format::Records(kind) => records::read(&mut file, length, kind),
                Format::Npz => npz::read(file, length, named.member.as_deref()),
                #[cfg(feature = "hdf5")]
                Format::Hdf5 => hdf5::read(&named.file, length, named.member.as_deref()),
            }
        };
        // The readers see the contents only; the name joins their errors here.
        read().map_err(|fault| fault.of(path))
    }

    /// The vectors of a file that lie in it as they would in memory, without reading them into it:
    /// a `.npy` file of little-endian `float32` or of `uint8` that is not in Fortran's order, a
    /// `.fbin` or a `.u8bin` file.
    ///
    /// The system reads a part of the file when it is looked at, and drops it when memory is short.
    /// So a file can be searched that is greater than the memory. Floats are looked at once here,
    /// because they have to be finite.
    ///
    /// **The file must not be changed as long as the vectors, or what was built of them, are
    /// there**: see [`Map`].
    ///
    /// # Errors
    /// As [`Vectors::read`], and if the file has to be read because it is of another format or
    /// type.
    ///
    /// ```
    /// use fashion_knn::vectors::Vectors;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// // Two vectors of three bytes.
    /// let path = folder.path().join("two.u8bin");
    /// std::fs::write(&path, [2, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6])?;
    /// let vectors = Vectors::map(&path)?;
    /// assert_eq!(vectors.row_bytes(1), Some(&[4, 5, 6][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let named = Named::of(path)?;
        let mapped = || {
            let (mut file, length) = named.open()?;
            let (table, begin) = match named.format {
                Format::Npy => npy::header(&mut file, length)?,
                Format::BigAnn(kind) => {
                    let table = big_ann::header(&mut file, length, kind)?;
                    (table, big_ann::HEADER)
                }
                _ => return Err(not_mapped("a file of this format")),
            };
            // The file may have been replaced since its header was read.
            let map = Map::open(&named.file)?;
            table.mapped(&map, begin)
        };
        mapped().map_err(|fault| fault.of(path))
    }
}

impl Table {
    /// The values, from `begin` to the end of the file.
    fn mapped(&self, map: &Map, begin: u64) -> Result<Vectors, Fault> {
        self.check((map.len() as u64).saturating_sub(begin))?;
        if !self.is_plain() {
            return Err(not_mapped("an array of this type and order"));
        }
        // Within the file, as was just checked.
        let bytes = begin as usize..map.len();
        let whole = "whole numbers within the file";
        Ok(match self.kind {
            Kind::U8 => Vectors::from_bytes(self.dim, Values::mapped(map, bytes).expect(whole))?,
            _ => Vectors::from_floats(self.dim, Values::mapped(map, bytes).expect(whole))?,
        })
    }
}

fn not_mapped(what: &str) -> Fault {
    Fault::Malformed(format!(
        "{what} has to be read, and cannot be mapped: expected .fbin, .u8bin, or .npy of \
         little-endian float32 or of uint8, in C order"
    ))
}

/// Most bytes that deflate makes of one: 258 of the two bits that name them.
const MOST_OF_ONE: u64 = 1_032;

/// What the name of a file can end in.
#[cfg(feature = "hdf5")]
const ENDINGS: &str = ".npy, .npz, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, .hdf5 or .h5";
#[cfg(not(feature = "hdf5"))]
const ENDINGS: &str = ".npy, .npz, .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .i8bin \
                       (.hdf5 with the feature `hdf5`)";

/// Endings of files that hold several arrays, of which one can be named behind a colon.
const SEVERAL: [&str; 3] = [".npz", ".hdf5", ".h5"];

/// What a path names.
struct Named {
    file: PathBuf,
    member: Option<String>,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Npy,
    Npz,
    Records(Kind),
    BigAnn(Kind),
    #[cfg(feature = "hdf5")]
    Hdf5,
}

impl Named {
    fn of(path: &Path) -> Result<Self, ReadError> {
        let (file, member) = with_member(path);
        let format = match file.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Format::Npy,
            Some("npz") => Format::Npz,
            Some("fvecs") => Format::Records(Kind::F32),
            Some("bvecs") => Format::Records(Kind::U8),
            Some("ivecs") => Format::Records(Kind::I32),
            Some("fbin") => Format::BigAnn(Kind::F32),
            Some("u8bin") => Format::BigAnn(Kind::U8),
            Some("i8bin") => Format::BigAnn(Kind::I8),
            #[cfg(feature = "hdf5")]
            Some("hdf5" | "h5") => Format::Hdf5,
            _ => {
                let path = path.to_owned();
                return Err(ReadError::Format { path });
            }
        };
        Ok(Self {
            file,
            member,
            format,
        })
    }

    /// Opens the file; how many bytes it has.
    fn open(&self) -> io::Result<(BufReader<File>, u64)> {
        let file = File::open(&self.file)?;
        let metadata = file.metadata()?;
        // Of a pipe or a device nobody can say how long it is.
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok((BufReader::with_capacity(PIECE, file), metadata.len()))
    }
}

/// The file and the array in it that `file.npz:array` names.
fn with_member(path: &Path) -> (PathBuf, Option<String>) {
    // A path that is no Unicode is that of a file.
    let text = path.to_str().unwrap_or_default();
    for ending in SEVERAL {
        if let Some(at) = text.find(&format!("{ending}:")) {
            let (file, member) = text.split_at(at + ending.len());
            return (file.into(), Some(member[1..].to_owned()));
        }
    }
    (path.to_owned(), None)
}

/// What is wrong with the contents of a file. The readers do not know its name.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Malformed(String),
    Vectors(VectorsError),
}

impl Fault {
    fn of(self, path: &Path) -> ReadError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => ReadError::Io { path, source },
            Self::Malformed(why) => ReadError::Malformed { path, why },
            Self::Vectors(source) => ReadError::Vectors { path, source },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<VectorsError> for Fault {
    fn from(error: VectorsError) -> Self {
        Self::Vectors(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Storage;
    use ndarray::Array2;
    use ndarray_npy::WriteNpyExt;
    use std::fs;

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

    /// A NumPy file of version 1 with this dictionary, and `values` behind it.
    fn npy_with(dictionary: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{dictionary}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), values].concat()
    }

    fn dictionary(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
    }

    /// Each of these has at most 70,000 bytes, and would take gigabytes, or the whole stack.
    #[test]
    fn a_header_that_promises_more_than_the_file_has_is_refused() {
        let refused = |dictionary: &str, expected: &str| {
            let error = read("a.npy", &npy_with(dictionary, &[0; 64])).unwrap_err();
            assert!(
                error.to_string().contains(expected),
                "{dictionary:.200}: {error}"
            );
        };
        for (descr, bytes) in [("|u1", 1u64 << 43), ("<f4", 1 << 45), (">f8", 1 << 46)] {
            let promised = format!("promises {bytes} bytes of values; 64 follow");
            refused(&dictionary(descr, "(1099511627776, 8)"), &promised);
        }
        refused(
            &dictionary("<f4", "(3, 5)"),
            "promises 60 bytes of values; 64 follow",
        );
        refused(
            &dictionary("<f4", "(18446744073709551615, 8)"),
            "promises 590295810358705651680 bytes",
        );
        refused(&dictionary("|u1", "(64,)"), "the shape is [64]");
        refused(&dictionary("<c8", "(8, 1)"), "expected an n × d array");
        refused(&"(".repeat(60_000), "no plain array");
        refused(&" ".repeat(10_000), "no plain array");
        // Minutes of parsing.
        refused(&("{".repeat(16) + "1" + &"}".repeat(16)), "no plain array");
        // The length of the header itself, which a file of version 2 gives in 32 bits.
        let long = b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}";
        for cut in 0..=long.len() {
            assert!(read("a.npy", &long[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn an_array_is_read_in_either_byte_order_and_either_layout() {
        let array = ndarray::array![[1.5f32, -2.0, 3.0], [4.0, 5.0, 6.5]];
        let big: Vec<u8> = array.iter().flat_map(|value| value.to_be_bytes()).collect();
        // Without padding, so that the values begin at an odd place for some shapes.
        for blanks in ["", " ", "  ", "   "] {
            let dictionary = dictionary(">f4", "(2, 3)") + blanks;
            let vectors = read("a.npy", &npy_with(&dictionary, &big)).unwrap();
            assert_eq!(vectors.to_array(), array);
        }
        let by_columns = array.t().as_standard_layout().reversed_axes().to_owned();
        assert_eq!(
            read("a.npy", &npy_file(&by_columns)).unwrap().to_array(),
            array
        );
        let none = npy_with(&dictionary("<f4", "(0, 8)"), &[]);
        assert_eq!(read("a.npy", &none).unwrap().len(), 0);
    }

    fn lossy(doubles: &Array2<f64>) -> (Vectors, Loss) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        fs::write(&path, npy_file(doubles)).unwrap();
        let (vectors, loss) = Vectors::read_lossy(&path).unwrap();
        // The strict reader refuses exactly what loses something.
        let strict = Vectors::read(&path);
        assert_eq!(strict.is_ok(), loss.is_none());
        if let Err(error) = strict {
            assert!(
                error
                    .to_string()
                    .contains(&format!("{} rows become equal", loss.merged))
            );
        }
        (vectors, loss)
    }

    #[test]
    fn what_float64_loses_as_float32_is_counted() {
        // Seconds since 1970, a hundredth apart: float32 has steps of 128 there.
        let times = Array2::from_shape_fn((300, 1), |(row, _)| 1.7e9 + 0.01 * row as f64);
        let (vectors, loss) = lossy(&times);
        assert_eq!((loss.merged, loss.changed), (300, 0));
        assert!(vectors.to_floats().iter().all(|&value| value == 1.7e9));
        // Rounding is no loss, nor is a row that stands twice, nor 0 with either sign.
        let rows = ndarray::array![
            [0.1, 1.0 / 3.0],
            [0.1, 1.0 / 3.0],
            [0.0, 1e30],
            [-0.0, 1e30]
        ];
        assert_eq!(lossy(&rows).1, Loss::default());
        // Two pairs that merge, beside a row that does not.
        let near = 1.0 + 1e-12;
        let rows = ndarray::array![[1.0, 5.0], [7.0, 7.0], [near, 5.0], [1.0, 6.0], [near, 6.0]];
        assert_eq!(
            lossy(&rows).1,
            Loss {
                merged: 4,
                ..Loss::default()
            }
        );
        // 2⁻¹⁴⁰ has few digits and is kept; a third of it, and 1e-300, are not.
        let tiny = 2f64.powi(-140);
        let rows = ndarray::array![[tiny], [tiny / 3.0], [1e-300], [1.0]];
        assert_eq!(
            lossy(&rows).1,
            Loss {
                changed: 2,
                ..Loss::default()
            }
        );
    }

    #[test]
    fn a_double_beyond_float32_is_named_as_it_stands_in_the_file() {
        let error = |value: f64| {
            let file = npy_file(&ndarray::array![[1.0, 2.0], [3.0, value]]);
            read("a.npy", &file).unwrap_err().to_string()
        };
        let beyond = error(-1e300);
        assert!(
            beyond.contains("row 1, column 1 is -1e300, beyond float32"),
            "{beyond}"
        );
        assert!(error(f64::INFINITY).contains("is inf: vectors must be finite"));
        assert!(error(f64::NAN).contains("is NaN: vectors must be finite"));
        // The greatest float32 itself is within.
        let greatest = npy_file(&ndarray::array![[f64::from(f32::MAX)]]);
        assert_eq!(read("a.npy", &greatest).unwrap().to_floats(), [f32::MAX]);
    }

    #[test]
    fn whole_numbers_called_floats_are_refused() {
        let words = |words: [u32; 3]| words.map(u32::to_le_bytes).concat();
        let error = read("a.fvecs", &words([2, 0, 8_388_607])).unwrap_err();
        assert!(error.to_string().contains("whole numbers"), "{error}");
        // Rows of zeros are floats too, and so is a tiny value beside others.
        for values in [[2, 0, 0], [2, 1, 1.0f32.to_bits()]] {
            read("a.fvecs", &words(values)).unwrap();
        }
        let whole = read("a.ivecs", &words([2, 0, 8_388_607])).unwrap();
        assert_eq!(whole.to_floats(), [0.0, 8_388_607.0]);
    }

    #[test]
    fn an_array_of_an_archive_is_named_behind_a_colon() {
        let named = |text: &str| {
            let (file, member) = with_member(Path::new(text));
            (file.to_str().unwrap().to_owned(), member)
        };
        let of = |file: &str, member: Option<&str>| (file.to_owned(), member.map(str::to_owned));
        assert_eq!(named("a/b.npz"), of("a/b.npz", None));
        assert_eq!(named("a/b.npz:x.npy"), of("a/b.npz", Some("x.npy")));
        assert_eq!(named("b.hdf5:one/two"), of("b.hdf5", Some("one/two")));
        assert_eq!(named("a:b.npy"), of("a:b.npy", None));
        assert!(matches!(
            Vectors::read("b.npy:x"),
            Err(ReadError::Format { .. })
        ));
    }

    #[test]
    fn only_what_lies_in_the_file_as_in_memory_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let map = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            Vectors::map(path)
        };
        let floats = ndarray::array![[1.0f32, 2.0], [3.0, 4.5]];
        let file = npy_file(&floats);
        let vectors = map("a.npy", &file).unwrap();
        assert_eq!(vectors.to_array(), floats);
        if cfg!(target_endian = "little") {
            let Storage::Floats(values) = vectors.storage() else {
                panic!("floats")
            };
            assert!(values.is_mapped());
        }
        // Cut anywhere, it is refused, and so are values that are not finite.
        for cut in 0..file.len() {
            assert!(map("a.npy", &file[..cut]).is_err(), "{cut} bytes");
        }
        let nan = npy_file(&ndarray::array![[f32::NAN]]);
        assert!(matches!(map("a.npy", &nan), Err(ReadError::Vectors { .. })));
        let by_columns = floats.t().as_standard_layout().reversed_axes().to_owned();
        let big = dictionary(">f4", "(1, 1)");
        for (name, bytes) in [
            ("a.npy", npy_file(&floats.mapv(f64::from))),
            ("a.npy", npy_file(&by_columns)),
            ("a.npy", npy_with(&big, &[0; 4])),
            ("a.i8bin", vec![1, 0, 0, 0, 1, 0, 0, 0, 5]),
            ("a.bvecs", vec![1, 0, 0, 0, 5]),
        ] {
            let error = map(name, &bytes).unwrap_err().to_string();
            assert!(error.contains("cannot be mapped"), "{error}");
        }
    }
}
