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
    // What is mapped is what is read.
    if let Ok(mapped) = Vectors::map(file.path()) {
        let (vectors, _) = answer.as_ref().expect("what is mapped can be read");
        assert_eq!(mapped.bytes(), vectors.bytes());
        assert_eq!(mapped.floats(), vectors.floats());
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
}

/// Records of whole numbers, which become floats.
pub fn ivecs(input: &[u8]) {
    let whole = records(input, 4).map(|(dim, values)| (dim, whole_numbers(&values)));
    let expected = whole
        .filter(|(_, values)| values.iter().all(|&value| value as f32 as i64 == value))
        .map(|(dim, values)| {
            let floats = values.iter().map(|&value| value as f32).collect();
            (dim, Values::Floats(floats))
        });
    let answer = read(".ivecs", input);
    same(&answer, expected.as_ref());
    if let Ok(vectors) = &answer {
        is_read_back(vectors);
    }
}

/// The tables of the big-ann benchmarks: the same bytes as each of them.
pub fn big_ann(input: &[u8]) {
    let parts = || {
        let (header, values) = input.split_first_chunk::<8>()?;
        let word = |at: usize| header[at..at + 4].try_into().expect("four bytes");
        let [rows, dim] = [0, 4].map(|at| u32::from_le_bytes(word(at)) as u64);
        (dim > 0).then_some((rows * dim, dim as usize, values))
    };
    let of_size = |size: u64| {
        parts().filter(|(count, _, values)| count.checked_mul(size) == Some(values.len() as u64))
    };
    let bytes = of_size(1).map(|(_, dim, values)| (dim, Values::Bytes(values.to_vec())));
    let signed = of_size(1).map(|(_, dim, values)| {
        let float = |&byte: &u8| f32::from(byte.cast_signed());
        (dim, Values::Floats(values.iter().map(float).collect()))
    });
    let floats = of_size(4)
        .map(|(_, dim, values)| (dim, floats(values)))
        .filter(|(_, values)| all_finite(values))
        .map(|(dim, values)| (dim, Values::Floats(values)));
    for (ending, expected) in [(".u8bin", bytes), (".i8bin", signed), (".fbin", floats)] {
        let answer = read(ending, input);
        same(&answer, expected.as_ref());
        if let Ok(vectors) = &answer {
            is_read_back(vectors);
        }
        if ending != ".i8bin" {
            same(&Vectors::map(file(ending, input).path()), expected.as_ref());
        }
    }
}

/// Archives of arrays. What is in them is told by `tests/formats.rs`.
pub fn npz(input: &[u8]) {
    let file = file(".npz", input);
    for member in ["", ":floats", ":bytes"] {
        let name = format!("{}{member}", file.path().display());
        if let Ok((vectors, _)) = Vectors::read_lossy(name) {
            is_read_back(&vectors);
        }
    }
}

/// HDF5 files. What is in them is told by `tests/formats.rs`.
#[cfg(feature = "hdf5")]
pub fn hdf5(input: &[u8]) {
    let file = file(".h5", input);
    for member in ["", ":train", ":chunks"] {
        let name = format!("{}{member}", file.path().display());
        if let Ok((vectors, _)) = Vectors::read_lossy(name) {
            is_read_back(&vectors);
        }
    }
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

fn whole_numbers(bytes: &[u8]) -> Vec<i64> {
    let word = |word: &[u8]| i32::from_le_bytes(word.try_into().expect("four bytes"));
    bytes.chunks_exact(4).map(word).map(i64::from).collect()
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

/// NumPy's names of the types.
const DESCRIPTIONS: [&str; 21] = [
    "|b1", "|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i4", ">i4", "<u8", ">u8",
    "<i8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8",
];

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
        for descr in DESCRIPTIONS {
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
        let size = usize::from(self.descr.as_bytes()[2] - b'0');
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
        if ["|b1", "|u1"].contains(&self.descr) {
            let bytes: Vec<u8> = numbers.map(|byte| byte[0]).collect();
            let is_whole = self.descr == "|u1" || bytes.iter().all(|&byte| byte < 2);
            return is_whole.then_some((self.dim, Values::Bytes(bytes)));
        }
        let values: Vec<f32> = numbers.map(|number| self.float(number)).collect();
        all_finite(&values).then_some((self.dim, Values::Floats(values)))
    }

    fn float(&self, number: &[u8]) -> f32 {
        let mut bytes = number.to_vec();
        if self.descr.starts_with('>') {
            bytes.reverse();
        }
        // The lowest byte first, and zeros above it: the bits of a number without a sign.
        let bits = bytes
            .iter()
            .rev()
            .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        let with_sign = |size: u32| (bits << (64 - size)).cast_signed() >> (64 - size);
        match &self.descr[1..] {
            "u2" | "u4" | "u8" => bits as f32,
            "i1" => with_sign(8) as f32,
            "i2" => with_sign(16) as f32,
            "i4" => with_sign(32) as f32,
            "i8" => with_sign(64) as f32,
            "f2" => half(bits),
            "f4" => f32::from_bits(bits as u32),
            _ => f64::from_bits(bits) as f32,
        }
    }
}

/// A float16, by its definition.
fn half(bits: u64) -> f32 {
    let (exponent, fraction) = ((bits >> 10 & 31) as i32, (bits & 0x3ff) as f32 / 1024.0);
    let size = match exponent {
        31 => f32::INFINITY,
        0 => fraction * 2f32.powi(-14),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}
