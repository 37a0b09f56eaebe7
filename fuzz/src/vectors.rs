//! Files of vectors. The oracle reads the same bytes again, by loops as plain as the formats.

use fashion_knn::vectors::{ReadError, Row, Vectors};

use super::file;

/// NumPy's arrays.
pub fn npy(input: &[u8]) {
    let file = file(".npy", input);
    let answer = Vectors::read_lossy(file.path());
    // The strict reader refuses what loses something, and agrees otherwise.
    let strict = Vectors::read(file.path());
    let is_whole = matches!(&answer, Ok((_, loss)) if loss.is_none());
    assert_eq!(strict.is_ok(), is_whole, "{strict:?}");
    if let Ok((vectors, _)) = &answer {
        is_read_back(vectors);
    }
    // Other headers than NumPy's own spelling are Python literals too; of them the oracle knows
    // nothing.
    if let Some(array) = Array::of(input) {
        same(
            &answer.map(|(vectors, _)| vectors),
            array.vectors().as_ref(),
        );
    }
}

/// Records of floats.
pub fn fvecs(input: &[u8]) {
    let rows = records(input, 4).map(|(dim, values)| (dim, floats(&values)));
    let expected = rows.filter(|(_, values)| !is_tiny(values) && all_finite(values));
    let expected = expected.map(|(dim, values)| (dim, Values::Floats(values)));
    let answer = read(".fvecs", input);
    same(&answer, expected.as_ref());
    if let Ok(vectors) = &answer {
        is_read_back(vectors);
    }
    // The same bytes as whole numbers are nothing that is read.
    assert!(matches!(
        read(".ivecs", input),
        Err(ReadError::Format { .. })
    ));
}

/// Records of bytes.
pub fn bvecs(input: &[u8]) {
    let expected = records(input, 1).map(|(dim, values)| (dim, Values::Bytes(values)));
    let answer = read(".bvecs", input);
    same(&answer, expected.as_ref());
    if let Ok(vectors) = &answer {
        is_read_back(vectors);
    }
}

fn read(ending: &str, input: &[u8]) -> Result<Vectors, ReadError> {
    Vectors::read(file(ending, input).path())
}

/// What the oracle has read, row after row.
#[derive(Debug)]
enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }
}

/// The reader has read what the oracle has: the dimension, and values of the same bits; or both
/// have refused.
fn same(answer: &Result<Vectors, ReadError>, expected: Option<&(usize, Values)>) {
    let (vectors, (dim, values)) = match (answer, expected) {
        (Ok(vectors), Some(expected)) => (vectors, expected),
        (Err(_), None) => return,
        _ => panic!("{answer:?}; expected {expected:?}"),
    };
    assert_eq!((vectors.dim(), vectors.len()), (*dim, values.len() / dim));
    match values {
        Values::Bytes(values) => assert_eq!(vectors.bytes(), Some(&values[..])),
        Values::Floats(values) => {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
            let read: Option<Vec<u32>> = vectors.floats().map(bits);
            assert_eq!(read, Some(bits(values)));
        }
    }
}

/// Vectors are finite, and the same after they were written as NumPy does.
fn is_read_back(vectors: &Vectors) {
    assert!(all_finite(&vectors.to_floats()));
    let (descr, values) = match vectors.bytes() {
        Some(bytes) => ("|u1", bytes.to_vec()),
        None => (
            "<f4",
            vectors
                .to_floats()
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ),
    };
    let header = dictionary(descr, false, vectors.len(), vectors.dim()) + "\n";
    let length = u16::try_from(header.len())
        .expect("a short header")
        .to_le_bytes();
    let written = [
        b"\x93NUMPY\x01\x00",
        &length[..],
        header.as_bytes(),
        &values,
    ]
    .concat();
    let again = read(".npy", &written).expect("what was read can be read again");
    assert_eq!((again.len(), again.dim()), (vectors.len(), vectors.dim()));
    for row in 0..vectors.len() {
        match (vectors.row(row), again.row(row)) {
            (Row::Bytes(one), Row::Bytes(other)) => assert_eq!(one, other),
            (Row::Floats(one), Row::Floats(other)) => assert_eq!(one, other),
            _ => panic!("bytes became floats, or floats bytes"),
        }
    }
}

fn all_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Floats that are whole numbers, by their bits: all of them 0 or subnormal, and not all 0.
fn is_tiny(values: &[f32]) -> bool {
    let tiny = |value: &f32| value.abs() < f32::MIN_POSITIVE;
    values.iter().all(tiny) && values.iter().any(|&value| value != 0.0)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let word = |word: &[u8]| f32::from_le_bytes(word.try_into().expect("four bytes"));
    bytes.chunks_exact(4).map(word).collect()
}

/// The dimension of all records and their values, of `size` bytes each.
fn records(input: &[u8], size: usize) -> Option<(usize, Vec<u8>)> {
    let (mut values, mut dims, mut rest) = (Vec::new(), Vec::new(), input);
    while !rest.is_empty() {
        let (dim, after) = rest.split_first_chunk::<4>()?;
        let dim = u32::from_le_bytes(*dim) as usize;
        let (record, after) = after.split_at_checked(dim * size)?;
        values.extend_from_slice(record);
        dims.push(dim);
        rest = after;
    }
    let first = *dims.first()?;
    (first > 0 && dims.iter().all(|&dim| dim == first)).then_some((first, values))
}

/// A file as NumPy writes it.
struct Array<'a> {
    descr: &'static str,
    by_columns: bool,
    rows: usize,
    dim: usize,
    values: &'a [u8],
}

/// The header's dictionary, in NumPy's spelling.
fn dictionary(descr: &str, by_columns: bool, rows: usize, dim: usize) -> String {
    let order = if by_columns { "True" } else { "False" };
    format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({rows}, {dim}), }}")
}

impl<'a> Array<'a> {
    /// Reads a file of version 1 in NumPy's own spelling.
    fn of(input: &'a [u8]) -> Option<Self> {
        let rest = input.strip_prefix(b"\x93NUMPY\x01\x00")?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (header, values) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let header = std::str::from_utf8(header).ok()?;
        let header = header.strip_suffix('\n')?.trim_end_matches(' ');
        let (_, shape) = header.split_once("'shape': (")?;
        let (rows, dim) = shape.strip_suffix("), }")?.split_once(", ")?;
        let (rows, dim) = (rows.parse().ok()?, dim.parse().ok()?);
        // What is written from these parts has to be the header, letter by letter.
        for descr in ["|u1", "<f4", ">f4", "<f8", ">f8"] {
            for by_columns in [false, true] {
                if header == dictionary(descr, by_columns, rows, dim) {
                    return Some(Self {
                        descr,
                        by_columns,
                        rows,
                        dim,
                        values,
                    });
                }
            }
        }
        None
    }

    /// Its values as vectors, if they are as many as the header says and can be.
    fn vectors(&self) -> Option<(usize, Values)> {
        let size = match self.descr {
            "|u1" => 1,
            "<f4" | ">f4" => 4,
            _ => 8,
        };
        let bytes = self.rows.checked_mul(self.dim)?.checked_mul(size)?;
        if self.dim == 0 || bytes != self.values.len() {
            return None;
        }
        let places = (0..self.rows).flat_map(|row| {
            (0..self.dim).map(move |column| match self.by_columns {
                true => column * self.rows + row,
                false => row * self.dim + column,
            })
        });
        let numbers = places.map(|at| &self.values[at * size..][..size]);
        if size == 1 {
            return Some((
                self.dim,
                Values::Bytes(numbers.map(|byte| byte[0]).collect()),
            ));
        }
        let values: Vec<f32> = numbers.map(|number| self.float(number)).collect();
        all_finite(&values).then_some((self.dim, Values::Floats(values)))
    }

    fn float(&self, number: &[u8]) -> f32 {
        let four = || number.try_into().expect("four bytes");
        let eight = || number.try_into().expect("eight bytes");
        match self.descr {
            "<f4" => f32::from_le_bytes(four()),
            ">f4" => f32::from_be_bytes(four()),
            "<f8" => f64::from_le_bytes(eight()) as f32,
            _ => f64::from_be_bytes(eight()) as f32,
        }
    }
}
