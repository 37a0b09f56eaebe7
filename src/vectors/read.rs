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
//!
//! What a header promises is compared with the file's length before memory is taken for it. A
//! `float64` array becomes float32; [`Loss`] says what that can cost.

use std::fmt;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use ndarray_npy::{ReadNpyExt, ReadableElement, ViewElement, ViewNpyError, ViewNpyExt};
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
/// float64.
///
/// float32 keeps 24 of the 53 binary digits of float64. Rounding to them is no loss that is counted
/// here: distances have the same error. Counted are rows that nothing can tell apart any more, and
/// values too small for all 24 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// Rows that become equal to a row from which they differ in the file.
    pub merged: usize,
    /// Rows with a value that changes by more than float32's rounding: it is nearer to zero than
    /// 1.2 · 10⁻³⁸.
    pub changed: usize,
}

impl Loss {
    /// Whether every row is kept.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// What an n × d array of float64 loses where it becomes `floats`.
    fn of(doubles: &[f64], floats: &[f32], dim: usize) -> Self {
        let wide: Vec<&[f64]> = doubles.chunks_exact(dim).collect();
        let narrow: Vec<&[f32]> = floats.chunks_exact(dim).collect();
        let is_changed = |row: &usize| {
            let mut values = wide[*row].iter().zip(narrow[*row]);
            values.any(|(&wide, &narrow)| {
                (f64::from(narrow) - wide).abs() > wide.abs() * (f64::from(f32::EPSILON) / 2.0)
            })
        };
        // Sorted, rows that are equal as float32 stand together.
        let mut order: Vec<usize> = (0..narrow.len()).collect();
        order.sort_by(|&a, &b| narrow[a].iter().partial_cmp(narrow[b]).expect("finite"));
        let mut merged = 0;
        for equal in order.chunk_by(|&a, &b| narrow[a] == narrow[b]) {
            if equal.iter().any(|&row| wide[row] != wide[equal[0]]) {
                merged += equal.len();
            }
        }
        Self {
            merged,
            changed: (0..wide.len()).filter(is_changed).count(),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { merged, changed } = self;
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
    /// - `.npy`: an n × d array of `uint8`, `float32` or `float64`;
    /// - `.fvecs`, `.bvecs`: each vector is a 32-bit little-endian dimension and its values.
    ///
    /// Bytes stay bytes; all other values become f32.
    ///
    /// # Errors
    /// If the file cannot be read, is not of that format, or holds values that are not finite as
    /// f32; if float64 rows [lose](Loss) more than rounding ([`Vectors::read_lossy`] takes them).
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

    /// [`Vectors::read`], also of float64 rows that are no longer the same as float32. What they
    /// lose is told.
    ///
    /// # Errors
    /// As [`Vectors::read`], but for the loss.
    pub fn read_lossy(path: impl AsRef<Path>) -> Result<(Self, Loss), ReadError> {
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
        let path = path.to_owned();
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        parse(&file).map_err(|fault| match fault {
            Fault::Malformed(why) => ReadError::Malformed { path, why },
            Fault::Vectors(source) => ReadError::Vectors { path, source },
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
fn npy(file: &[u8]) -> Result<(Vectors, Loss), Fault> {
    // The header names the type of the values. Each type is tried until one agrees with it.
    if let Some(bytes) = npy_of::<u8>(file)? {
        let dim = bytes.ncols();
        // `iter` goes row after row, also if the file has the values column after column.
        let values: Vec<u8> = bytes.iter().copied().collect();
        return Ok((Vectors::from_bytes(dim, values)?, Loss::default()));
    }
    if let Some(floats) = npy_of::<f32>(file)? {
        return Ok((Vectors::from_array(floats.view())?, Loss::default()));
    }
    match npy_of::<f64>(file)? {
        Some(doubles) => narrowed(&doubles),
        None => Err(malformed("the values are of another type")),
    }
}

/// An array of float64 as float32, and what that loses.
fn narrowed(doubles: &Array2<f64>) -> Result<(Vectors, Loss), Fault> {
    for ((row, column), &value) in doubles.indexed_iter() {
        if value.is_finite() && !(value as f32).is_finite() {
            let greatest = f32::MAX;
            return Err(Fault::Malformed(format!(
                "row {row}, column {column} is {value:e}, beyond float32, which ends at \
                 {greatest:e}: scale the column"
            )));
        }
    }
    let vectors = Vectors::from_array(doubles.mapv(|value| value as f32).view())?;
    // Row after row, as the vectors are.
    let doubles: Vec<f64> = doubles.iter().copied().collect();
    let loss = Loss::of(&doubles, &vectors.to_floats(), vectors.dim());
    Ok((vectors, loss))
}

/// The array, or none if its values are of another type than `T`.
fn npy_of<T>(file: &[u8]) -> Result<Option<Array2<T>>, Fault>
where
    T: ReadableElement + ViewElement,
{
    let (header, values) = npy_parts(file)?;
    match promised::<T>(header)? {
        None => return Ok(None),
        Some(promised) if promised == values.len() => {}
        Some(promised) => {
            let received = values.len();
            return Err(Fault::Malformed(format!(
                "the header promises {promised} bytes of values; {received} follow it"
            )));
        }
    }
    Array2::read_npy(Cursor::new(file))
        .map(Some)
        .map_err(malformed)
}

/// The header of a NumPy file, and the values behind it.
///
/// ```text
/// | \x93NUMPY | version: 2 bytes | length: u16, from version 2 on u32 | a dictionary of Python |
/// ```
fn npy_parts(file: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    // The reader of the crate `ndarray-npy` takes memory for the length that it reads here. For a
    // bracket it calls itself, several times if what is in the bracket can be several things: 16
    // nested ones take it minutes. The header of a plain array has two, a dictionary with a tuple
    // in it.
    const BRACKETS: usize = 2;
    // The limit of `numpy.load` (`max_header_size`), for the same reason: a header is parsed in
    // more than linear time.
    const HEADER: usize = 10_000;
    let length_bytes = match file.get(6) {
        Some(1) => 2,
        _ => 4,
    };
    let start = 8 + length_bytes;
    let length = file.get(8..start).map(|bytes| {
        let little_endian = bytes.iter().rev();
        little_endian.fold(0, |length, &byte| length << 8 | usize::from(byte))
    });
    let parts = length.and_then(|length| file.split_at_checked(start.saturating_add(length)));
    let Some((header, values)) = parts else {
        return Err(malformed("the file ends within its header"));
    };
    let is_bracket = |byte: &&u8| b"([{".contains(byte);
    if length > Some(HEADER) || header.iter().filter(is_bracket).count() > BRACKETS {
        return Err(malformed("the header describes no plain array"));
    }
    Ok((header, values))
}

/// Bytes of the values that a header promises, or none if their type is another than `T`.
fn promised<T>(header: &[u8]) -> Result<Option<usize>, Fault>
where
    T: ViewElement,
{
    // A view takes no memory. One of the header alone misses all its values, and says how many
    // bytes they are. A view wants them in the byte order of this machine, in which they have the
    // same length.
    let mut other_order = header.to_vec();
    // The dictionary begins in the first 12 bytes, and names no type so early.
    for byte in other_order.iter_mut().skip(12) {
        *byte = match *byte {
            b'<' => b'>',
            b'>' => b'<',
            other => other,
        };
    }
    let view = |header: &[u8]| ArrayView2::<T>::view_npy(header).map(drop);
    let answer = match view(header) {
        Err(ViewNpyError::NonNativeEndian) => view(&other_order),
        answer => answer,
    };
    match answer {
        Ok(()) | Err(ViewNpyError::MisalignedData) => Ok(Some(0)),
        Err(ViewNpyError::MissingBytes(bytes)) => Ok(Some(bytes)),
        Err(ViewNpyError::WrongDescriptor(_)) => Ok(None),
        Err(error) => Err(malformed(error)),
    }
}

fn malformed(why: impl fmt::Display) -> Fault {
    Fault::Malformed(format!(
        "{why}; expected an n × d array of uint8, float32 or float64"
    ))
}

fn bvecs(file: &[u8]) -> Result<(Vectors, Loss), Fault> {
    let (dim, values) = records(file, 1)?;
    Ok((Vectors::from_bytes(dim, values)?, Loss::default()))
}

fn fvecs(file: &[u8]) -> Result<(Vectors, Loss), Fault> {
    let (dim, values) = records(file, 4)?;
    // Nothing is left over: each record has 4 · dim bytes of values.
    let (words, _) = values.as_chunks::<4>();
    let floats: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
    // The bits of a whole number below 2²³ are those of a float nearer to zero than any that is
    // computed with. So a file of whole numbers would be read as vectors that are all but zero.
    let is_tiny = |value: &f32| *value == 0.0 || value.is_subnormal();
    if floats.iter().all(is_tiny) && floats.iter().any(|&value| value != 0.0) {
        return Err(Fault::Malformed(
            "every value is 0 or below float32's normal range, as those of a file of whole \
             numbers are (.ivecs); write the vectors as floats, or as a .npy file"
                .to_owned(),
        ));
    }
    Ok((Vectors::from_floats(dim, floats)?, Loss::default()))
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
        refused(&dictionary("<f4", "(18446744073709551615, 8)"), "overflow");
        refused(&dictionary("<f4", "(64,)"), "promises 256 bytes");
        refused(&dictionary("|u1", "(64,)"), "ndim 1");
        refused(
            &dictionary("<i8", "(1099511627776, 8)"),
            "expected an n × d array",
        );
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
                changed: 0
            }
        );
        // 2⁻¹⁴⁰ has few digits and is kept; a third of it, and 1e-300, are not.
        let tiny = 2f64.powi(-140);
        let rows = ndarray::array![[tiny], [tiny / 3.0], [1e-300], [1.0]];
        assert_eq!(
            lossy(&rows).1,
            Loss {
                merged: 0,
                changed: 2
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
        assert!(matches!(
            read("a.ivecs", &words([2, 0, 1])),
            Err(ReadError::Format { .. })
        ));
    }
}
