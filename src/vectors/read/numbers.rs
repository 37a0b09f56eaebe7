//! Tables of numbers of any type, as a header describes them, and what becomes of the numbers.

use std::io::Read;

use super::{Fault, Loss};
use crate::vectors::values::{PIECE, append, read_values, room_for};
use crate::vectors::{Vectors, rows};

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// An n × d table of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) kind: Kind,
    /// Whether the highest byte of a number comes first.
    pub(super) big_endian: bool,
    /// Whether column comes after column, and not row after row.
    pub(super) by_columns: bool,
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl Table {
    /// Bytes of all values that the header promises.
    pub(super) fn bytes(&self) -> u128 {
        let count = self.rows as u128 * self.dim as u128;
        count.saturating_mul(self.kind.size() as u128)
    }

    /// Compares the bytes that it needs with those that `follow` its header, before memory is taken
    /// for them.
    pub(super) fn check(&self, follow: u64) -> Result<(), Fault> {
        let bytes = self.bytes();
        if bytes != u128::from(follow) {
            return Err(Fault::Malformed(format!(
                "the header promises {bytes} bytes of values; {follow} follow it"
            )));
        }
        Ok(())
    }

    /// Whether the values lie in the file as [`Vectors`] have them in memory.
    pub(super) fn is_plain(&self) -> bool {
        !self.by_columns
            && match self.kind {
                Kind::U8 => true,
                Kind::F32 => !self.big_endian,
                _ => false,
            }
    }

    /// Reads the values, which the file has: see [`Table::check`].
    pub(super) fn read(&self, file: &mut impl Read) -> Result<(Vectors, Loss), Fault> {
        let (rows, dim) = (self.rows, self.dim);
        let count = rows.checked_mul(dim).ok_or_else(too_many)?;
        self::rows(dim, count)?;
        match self.kind {
            Kind::U8 if self.is_plain() => {
                let bytes = read_values::<u8>(file, count)?;
                Ok((Vectors::from_bytes(dim, bytes)?, Loss::default()))
            }
            Kind::F32 if self.is_plain() => {
                let floats = read_values::<f32>(file, count)?;
                Ok((Vectors::from_floats(dim, floats)?, Loss::default()))
            }
            Kind::U8 => self.into_bytes(file, Ok),
            Kind::Bool => self.into_bytes(file, |byte| match byte {
                0 | 1 => Ok(byte),
                other => Err(Fault::Malformed(format!("a truth value is {other}"))),
            }),
            Kind::I8 => self.into_floats::<i8>(file),
            Kind::U16 => self.into_floats::<u16>(file),
            Kind::I16 => self.into_floats::<i16>(file),
            Kind::U32 => self.into_floats::<u32>(file),
            Kind::I32 => self.into_floats::<i32>(file),
            Kind::U64 => self.into_floats::<u64>(file),
            Kind::I64 => self.into_floats::<i64>(file),
            Kind::F16 => self.into_floats::<Half>(file),
            Kind::F32 => self.into_floats::<f32>(file),
            Kind::F64 => self.into_floats::<f64>(file),
        }
    }

    fn into_bytes(
        self,
        file: &mut impl Read,
        checked: impl Fn(u8) -> Result<u8, Fault>,
    ) -> Result<(Vectors, Loss), Fault> {
        let mut bytes = room_for(self.rows * self.dim)?;
        bytes.resize(self.rows * self.dim, 0);
        self.each(file, |row, column, number: u8| {
            bytes[row * self.dim + column] = checked(number)?;
            Ok(())
        })?;
        Ok((Vectors::from_bytes(self.dim, bytes)?, Loss::default()))
    }

    fn into_floats<N: Number>(self, file: &mut impl Read) -> Result<(Vectors, Loss), Fault> {
        let mut floats = room_for(self.rows * self.dim)?;
        floats.resize(self.rows * self.dim, 0.0);
        let mut losses = Losses::new::<N>(self.rows)?;
        self.each(file, |row, column, number: N| {
            let float = number.nearest();
            floats[row * self.dim + column] = float;
            losses.look(row, column, number, float)
        })?;
        let vectors = Vectors::from_floats(self.dim, floats)?;
        let loss = losses.total(&vectors);
        Ok((vectors, loss))
    }

    /// Calls `take` with the row and the column of each number, in the order of the file.
    fn each<N: Number>(
        &self,
        file: &mut impl Read,
        mut take: impl FnMut(usize, usize, N) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut row, mut column) = (0, 0);
        let mut left = self.rows * self.dim;
        let mut piece: Vec<u8> = Vec::new();
        while left > 0 {
            let count = left.min(PIECE / size_of::<N>());
            piece.clear();
            append(&mut piece, file, count * size_of::<N>())?;
            for bytes in piece.chunks_exact(size_of::<N>()) {
                take(row, column, N::of(bytes, self.big_endian))?;
                if self.by_columns {
                    row += 1;
                    if row == self.rows {
                        (row, column) = (0, column + 1);
                    }
                } else {
                    column += 1;
                    if column == self.dim {
                        (row, column) = (row + 1, 0);
                    }
                }
            }
            left -= count;
        }
        Ok(())
    }
}

/// More values than can be counted, which are more rows than ids too.
fn too_many() -> Fault {
    let received = usize::MAX;
    Fault::Vectors(crate::vectors::VectorsError::TooManyRows { received })
}

/// Adds the 32-bit whole numbers of a record to the floats that they become.
pub(super) fn whole(bytes: &[u8], row: usize, floats: &mut Vec<f32>, losses: &mut Losses) {
    for (column, bytes) in bytes.chunks_exact(4).enumerate() {
        let number = i32::of(bytes, false);
        let float = number.nearest();
        floats.push(float);
        // Only float64 has values that are beyond float32.
        let _ = losses.look(row, column, number, float);
    }
}

/// A number in a file, and how near float32 comes to it.
pub(super) trait Number: Copy {
    /// Whether float32 has every number of this type.
    const FITS: bool;
    /// Whether rows of it are compared as they are in the file.
    const IS_DOUBLE: bool = false;

    /// From as many bytes as it has.
    fn of(bytes: &[u8], big_endian: bool) -> Self;

    /// The float nearest to it.
    fn nearest(self) -> f32;

    /// Whether float32 has it.
    fn is(self, float: f32) -> bool;

    /// What it is as float64.
    fn wide(self) -> f64;
}

/// A number of two bytes: 1 bit of sign, 5 of exponent, 10 of fraction.
#[derive(Clone, Copy)]
pub(super) struct Half(u16);

impl Number for Half {
    const FITS: bool = true;

    fn of(bytes: &[u8], big_endian: bool) -> Self {
        Self(u16::of(bytes, big_endian))
    }

    fn nearest(self) -> f32 {
        let (exponent, fraction) = (self.0 >> 10 & 31, u32::from(self.0 & 0x3ff));
        // Both the numbers that are whole multiples of 2⁻²⁴ and all others are float32 without
        // rounding.
        let size = match exponent {
            0 => fraction as f32 / 16_777_216.0,
            31 if fraction == 0 => f32::INFINITY,
            31 => f32::NAN,
            _ => f32::from_bits((u32::from(exponent) + 112) << 23 | fraction << 13),
        };
        if self.0 >> 15 == 1 { -size } else { size }
    }

    fn is(self, _: f32) -> bool {
        true
    }

    fn wide(self) -> f64 {
        self.nearest().into()
    }
}

macro_rules! number {
    ($type:ty, fits: $fits:expr, double: $double:expr, is: $is:expr) => {
        impl Number for $type {
            const FITS: bool = $fits;
            const IS_DOUBLE: bool = $double;

            #[inline]
            fn of(bytes: &[u8], big_endian: bool) -> Self {
                let bytes = bytes.try_into().expect("as many bytes as a number has");
                if big_endian {
                    Self::from_be_bytes(bytes)
                } else {
                    Self::from_le_bytes(bytes)
                }
            }

            #[inline]
            fn nearest(self) -> f32 {
                self as f32
            }

            #[inline]
            fn is(self, float: f32) -> bool {
                $is(self, float)
            }

            #[inline]
            fn wide(self) -> f64 {
                self as f64
            }
        }
    };
}

number!(u8, fits: true, double: false, is: |_, _| true);
number!(i8, fits: true, double: false, is: |_, _| true);
number!(u16, fits: true, double: false, is: |_, _| true);
number!(i16, fits: true, double: false, is: |_, _| true);
number!(f32, fits: true, double: false, is: |_, _| true);
// Compared in i128, which has every whole number here. In 64 bits the greatest would be cut off.
number!(u32, fits: false, double: false, is: |number, float| float as i128 == number as i128);
number!(i32, fits: false, double: false, is: |number, float| float as i128 == number as i128);
number!(u64, fits: false, double: false, is: |number, float| float as i128 == number as i128);
number!(i64, fits: false, double: false, is: |number, float| float as i128 == number as i128);
number!(f64, fits: false, double: true, is: |number, float| f64::from(float) == number);

/// Counts what is lost, while the numbers come by.
pub(super) struct Losses {
    /// Rows with a whole number that float32 does not have, or with a float64 that changes by more
    /// than rounding. Empty where neither can be.
    changed: Vec<bool>,
    /// For each row of float64 a sum over its values. Rows with other sums are other rows; and
    /// rows that are others have other sums, but for one pair in 2⁶⁴.
    sums: Vec<u64>,
    /// Whether a float64 was rounded.
    is_rounded: bool,
}

impl Losses {
    /// For rows of numbers of this type.
    pub(super) fn new<N: Number>(rows: usize) -> Result<Self, Fault> {
        let (mut changed, mut sums) = (Vec::new(), Vec::new());
        if !N::FITS {
            changed = room_for(rows)?;
            changed.resize(rows, false);
        }
        if N::IS_DOUBLE {
            sums = room_for(rows)?;
            sums.resize(rows, 0);
        }
        let is_rounded = false;
        Ok(Self {
            changed,
            sums,
            is_rounded,
        })
    }

    /// Looks at a number and the float that it becomes.
    #[inline]
    pub(super) fn look<N: Number>(
        &mut self,
        row: usize,
        column: usize,
        number: N,
        float: f32,
    ) -> Result<(), Fault> {
        if N::IS_DOUBLE {
            return self.look_double(row, column, number.wide(), float);
        }
        if !N::FITS && !number.is(float) {
            self.changed[row] = true;
        }
        Ok(())
    }

    fn look_double(
        &mut self,
        row: usize,
        column: usize,
        double: f64,
        float: f32,
    ) -> Result<(), Fault> {
        let difference = (f64::from(float) - double).abs();
        if difference != 0.0 {
            if double.is_finite() && !float.is_finite() {
                let greatest = f32::MAX;
                return Err(Fault::Malformed(format!(
                    "row {row}, column {column} is {double:e}, beyond float32, which ends at \
                     {greatest:e}: scale the column"
                )));
            }
            self.is_rounded = true;
            self.changed[row] |= difference > double.abs() * (f64::from(f32::EPSILON) / 2.0);
        }
        // The sum is the same in whatever order the columns come. 0 and −0 are equal.
        let bits = if double == 0.0 { 0 } else { double.to_bits() };
        let place = (column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sums[row] = self.sums[row].wrapping_add(mixed(bits ^ mixed(place)));
        Ok(())
    }

    /// What was lost where the numbers became these vectors.
    pub(super) fn total(self, vectors: &Vectors) -> Loss {
        let changed = self.changed.iter().filter(|&&changed| changed).count();
        if self.sums.is_empty() {
            let (merged, rounded) = (0, changed);
            return Loss {
                merged,
                changed: 0,
                rounded,
            };
        }
        let rounded = 0;
        let merged = if self.is_rounded {
            merged(vectors, &self.sums)
        } else {
            0
        };
        Loss {
            merged,
            changed,
            rounded,
        }
    }
}

/// Rows that are equal to a row from which they differed before.
fn merged(vectors: &Vectors, sums: &[u64]) -> usize {
    let floats = vectors.floats().expect("what was float64 is float32");
    let dim = vectors.dim();
    let row = |row: u32| &floats[row as usize * dim..][..dim];
    // Sorted, rows that are equal as float32 stand together.
    let mut order: Vec<u32> = (0..vectors.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| row(a).partial_cmp(row(b)).expect("finite"));
    let mut merged = 0;
    for equal in order.chunk_by(|&a, &b| row(a) == row(b)) {
        let sum = |row: u32| sums[row as usize];
        if equal.iter().any(|&row| sum(row) != sum(equal[0])) {
            merged += equal.len();
        }
    }
    merged
}

/// The bits, so that each depends on all (the end of splitmix64).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the format, in float64.
    #[test]
    fn all_65_536_halves_are_what_the_format_says() {
        for bits in 0..=u16::MAX {
            let half = Half(bits).nearest();
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
            match exponent {
                31 if fraction == 0.0 => assert_eq!(half, sign as f32 * f32::INFINITY),
                31 => assert!(half.is_nan()),
                0 => assert_eq!(f64::from(half), sign * fraction / 1024.0 * 2f64.powi(-14)),
                _ => {
                    let size = (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15);
                    assert_eq!(f64::from(half), sign * size);
                }
            }
        }
    }

    /// 2²⁴ + 1 is the first whole number that float32 does not have.
    #[test]
    fn a_whole_number_that_float32_does_not_have_is_found() {
        let first = (1 << 24) + 1;
        assert!(!(first as u32).is(first as f32));
        assert!((first as u32 + 1).is((first + 1) as f32));
        // As floats they are 2⁶³ and 2⁶⁴.
        assert!(!i64::MAX.is(i64::MAX as f32));
        assert!(!u64::MAX.is(u64::MAX as f32));
        assert!(!u32::MAX.is(u32::MAX as f32));
        assert!(i64::MIN.is(i64::MIN as f32));
        assert!(i32::MIN.is(i32::MIN as f32));
    }
}
