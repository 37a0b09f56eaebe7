//! [`Vectors`]: the n × d table that every index is built from and queried with.

use std::borrow::Cow;

use ndarray::{Array2, ArrayView2};
use thiserror::Error;

use crate::simd;

#[cfg(feature = "files")]
mod read;
pub(crate) mod values;

#[cfg(feature = "files")]
pub use read::{Loss, ReadError};
pub use values::{Value, Values};

/// What is wrong with the data that a [`Vectors`] was to be made from.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum VectorsError {
    /// The dimension is zero.
    #[error("vectors need at least one dimension")]
    ZeroDimension,
    /// The number of values is not a multiple of the dimension.
    #[error("{received} values do not make whole rows of {dim}")]
    Ragged {
        /// Values given.
        received: usize,
        /// Dimension asked for.
        dim: usize,
    },
    /// More rows than a 32-bit id can name.
    #[error("{received} rows are more than the {} that an id can name", u32::MAX)]
    TooManyRows {
        /// Rows given.
        received: usize,
    },
    /// A value is NaN or infinite.
    #[error("row {row}, column {column} is {value}: vectors must be finite")]
    NotFinite {
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
        /// The value itself.
        value: f32,
    },
    /// A row that does not exist was asked for.
    #[error("row {row} of {rows} was asked for")]
    NoSuchRow {
        /// The row asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
}

/// The values, in the type that they came in.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Bytes 0..=255, as pixels are.
    Bytes(Values<u8>),
    /// Finite 32-bit floats.
    Floats(Values<f32>),
}

/// One row, borrowed in the type in which it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Row<'a> {
    /// A row of bytes.
    Bytes(&'a [u8]),
    /// A row of floats.
    Floats(&'a [f32]),
}

impl<'a> Row<'a> {
    /// d, the number of values.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether it has no values.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether all values are zero.
    #[must_use]
    pub fn is_zero(self) -> bool {
        match self {
            Self::Bytes(values) => values.iter().all(|&value| value == 0),
            Self::Floats(values) => values.iter().all(|&value| value == 0.0),
        }
    }

    /// The values as floats: borrowed if they are floats already.
    #[must_use]
    pub fn to_floats(self) -> Cow<'a, [f32]> {
        match self {
            Self::Bytes(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Self::Floats(values) => Cow::Borrowed(values),
        }
    }

    /// Calls `visit` with each value, as a float, and what `others` has in its place.
    ///
    /// Bytes are floats without loss, so that callers need one form for both.
    #[inline(always)]
    pub(crate) fn zip_with<T>(
        self,
        others: impl IntoIterator<Item = T>,
        mut visit: impl FnMut(f32, T),
    ) {
        // A loop for each type, so that the type is looked at once and not for each value.
        match self {
            Self::Bytes(values) => {
                for (&value, other) in values.iter().zip(others) {
                    visit(f32::from(value), other);
                }
            }
            Self::Floats(values) => {
                for (&value, other) in values.iter().zip(others) {
                    visit(value, other);
                }
            }
        }
    }

    /// Adds each value to the sum in its place, exactly but for the addition's own rounding.
    #[inline]
    pub(crate) fn add_to(self, sums: &mut [f64]) {
        self.zip_with(sums, |value, sum| *sum += f64::from(value));
    }

    /// Writes row − `mean`.
    #[inline]
    pub(crate) fn sub_into(self, mean: &[f64], out: &mut [f64]) {
        self.zip_with(out.iter_mut().zip(mean), |value, (out, mean)| {
            *out = f64::from(value) - mean;
        });
    }

    /// Asks the memory for the row, to have it in the caches when it is read.
    #[inline]
    pub(crate) fn prefetch(self) {
        match self {
            Self::Bytes(row) => simd::prefetch(row),
            Self::Floats(row) => simd::prefetch(row),
        }
    }

    /// The first value that is NaN or infinite, and where it stands.
    #[must_use]
    pub fn first_not_finite(self) -> Option<(usize, f32)> {
        let Self::Floats(values) = self else {
            return None;
        };
        // First only whether there is one. Without a branch for each value that is one pass of
        // SIMD, and nearly always the whole work.
        if values
            .iter()
            .fold(true, |finite, value| finite & value.is_finite())
        {
            return None;
        }
        let position = values.iter().position(|value| !value.is_finite())?;
        Some((position, values[position]))
    }
}

impl<'a> From<&'a [f32]> for Row<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Floats(values)
    }
}

impl<'a> From<&'a [u8]> for Row<'a> {
    fn from(values: &'a [u8]) -> Self {
        Self::Bytes(values)
    }
}

impl<'a, const D: usize> From<&'a [f32; D]> for Row<'a> {
    fn from(values: &'a [f32; D]) -> Self {
        Self::Floats(values)
    }
}

impl<'a, const D: usize> From<&'a [u8; D]> for Row<'a> {
    fn from(values: &'a [u8; D]) -> Self {
        Self::Bytes(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Row<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::Floats(values)
    }
}

impl<'a> From<&'a Vec<u8>> for Row<'a> {
    fn from(values: &'a Vec<u8>) -> Self {
        Self::Bytes(values)
    }
}

/// n vectors of d dimensions, row-major, immutable, finite, cheap to clone (the values are shared).
///
/// Bytes stay bytes: a pixel row is 784 bytes rather than 3,136, and its distances are exact
/// integers.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// // Three points of the plane: (0, 0), (1, 0), (0, 1).
/// let corners = Vectors::from_floats(2, vec![0.0, 0.0, 1.0, 0.0, 0.0, 1.0])?;
/// assert_eq!((corners.len(), corners.dim()), (3, 2));
/// assert_eq!(corners.row(2), Row::Floats(&[0.0, 1.0]));
///
/// // The same as bytes; copies are cheap, for they share the values.
/// let bytes = Vectors::from_bytes(2, vec![0, 0, 1, 0, 0, 1])?;
/// assert_eq!(bytes.clone().to_floats(), corners.to_floats());
/// assert_eq!(bytes.memory_bytes(), 6);
///
/// // What is no table of finite numbers is refused.
/// assert!(Vectors::from_floats(2, vec![0.0, f32::NAN]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Vectors {
    len: usize,
    dim: usize,
    storage: Storage,
}

impl Vectors {
    /// Rows of `dim` bytes each.
    ///
    /// # Errors
    /// If `dim` is zero, the values do not make whole rows, or there are more than `u32::MAX` rows.
    pub fn from_bytes(dim: usize, values: impl Into<Values<u8>>) -> Result<Self, VectorsError> {
        let values = values.into();
        let len = rows(dim, values.len())?;
        Ok(Self {
            len,
            dim,
            storage: Storage::Bytes(values),
        })
    }

    /// Rows of `dim` floats each.
    ///
    /// All are looked at, so that those of a mapped file are read.
    ///
    /// # Errors
    /// As [`Vectors::from_bytes`], and if a value is NaN or infinite.
    pub fn from_floats(dim: usize, values: impl Into<Values<f32>>) -> Result<Self, VectorsError> {
        let values = values.into();
        let vectors = Self::from_trusted_floats(dim, values.clone())?;
        // Checked once here. Every index relies on it: distances are never NaN, and their order is
        // total.
        if let Some((at, value)) = Row::Floats(&values).first_not_finite() {
            let (row, column) = (at / dim, at % dim);
            return Err(VectorsError::NotFinite { row, column, value });
        }
        Ok(vectors)
    }

    /// [`Vectors::from_floats`] of values that are known to be finite, because they were checked
    /// before they were written to the file that they are mapped from.
    ///
    /// # Errors
    /// As [`Vectors::from_bytes`].
    pub(crate) fn from_trusted_floats(
        dim: usize,
        values: Values<f32>,
    ) -> Result<Self, VectorsError> {
        let len = rows(dim, values.len())?;
        Ok(Self {
            len,
            dim,
            storage: Storage::Floats(values),
        })
    }

    /// A copy of an n × d array.
    ///
    /// # Errors
    /// As [`Vectors::from_floats`].
    pub fn from_array(array: ArrayView2<'_, f32>) -> Result<Self, VectorsError> {
        // `iter` goes by the rows of the view, whatever its order in memory.
        Self::from_floats(array.ncols(), array.iter().copied().collect::<Vec<_>>())
    }

    /// The values as an n × d array of floats (a copy).
    #[must_use]
    pub fn to_array(&self) -> Array2<f32> {
        Array2::from_shape_vec((self.len, self.dim), self.to_floats()).expect("n × d values")
    }

    /// All values as floats, row-major (a copy).
    #[must_use]
    pub fn to_floats(&self) -> Vec<f32> {
        match &self.storage {
            Storage::Bytes(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Storage::Floats(values) => values.to_vec(),
        }
    }

    /// n, the number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no vectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// d, the number of values in a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The values in the type in which they are stored.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The values if they are bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.storage {
            Storage::Bytes(values) => Some(values),
            Storage::Floats(_) => None,
        }
    }

    /// The values if they are floats.
    #[must_use]
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::Bytes(_) => None,
            Storage::Floats(values) => Some(values),
        }
    }

    /// Row `row`, as stored.
    ///
    /// # Panics
    /// If `row` is not below [`Vectors::len`], as slices do.
    #[must_use]
    pub fn row(&self, row: usize) -> Row<'_> {
        let span = row * self.dim..(row + 1) * self.dim;
        match &self.storage {
            Storage::Bytes(values) => Row::Bytes(&values[span]),
            Storage::Floats(values) => Row::Floats(&values[span]),
        }
    }

    /// Row `row` if it exists and the values are bytes.
    #[must_use]
    pub fn row_bytes(&self, row: usize) -> Option<&[u8]> {
        self.bytes()?.chunks_exact(self.dim).nth(row)
    }

    /// Row `row` as floats (a copy).
    ///
    /// # Panics
    /// If `row` is not below [`Vectors::len`], as slices do.
    #[must_use]
    pub fn row_to_floats(&self, row: usize) -> Vec<f32> {
        self.row(row).to_floats().into_owned()
    }

    /// The rows with the given numbers, in that order (a copy).
    ///
    /// # Errors
    /// If there is no such row, or more rows are asked for than ids can number.
    pub fn select(&self, rows: &[usize]) -> Result<Self, VectorsError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.len) {
            return Err(VectorsError::NoSuchRow {
                row,
                rows: self.len,
            });
        }
        check_rows(rows.len())?;
        // All numbers are checked before a value is copied, so that no row is missing below.
        Ok(Self {
            len: rows.len(),
            dim: self.dim,
            storage: match &self.storage {
                Storage::Bytes(values) => Storage::Bytes(selected(values, self.dim, rows).into()),
                Storage::Floats(values) => Storage::Floats(selected(values, self.dim, rows).into()),
            },
        })
    }

    /// The first `count` rows, or all if there are fewer (a copy).
    #[must_use]
    pub fn head(&self, count: usize) -> Self {
        let len = count.min(self.len);
        Self {
            len,
            dim: self.dim,
            storage: match &self.storage {
                Storage::Bytes(values) => Storage::Bytes(values[..len * self.dim].into()),
                Storage::Floats(values) => Storage::Floats(values[..len * self.dim].into()),
            },
        }
    }

    /// Takes the rows with the given numbers out: all others, in their order, and those, in that
    /// order. It is done in place if nobody else has the values and they are in memory.
    ///
    /// ```
    /// use fashion_knn::vectors::Vectors;
    ///
    /// let rows = Vectors::from_bytes(1, vec![10, 11, 12, 13])?;
    /// let (rest, out) = rows.hold_out(&[2, 0])?;
    /// assert_eq!((rest.bytes(), out.bytes()), (Some(&[11, 13][..]), Some(&[12, 10][..])));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such row.
    pub fn hold_out(self, rows: &[usize]) -> Result<(Self, Self), VectorsError> {
        let out = self.select(rows)?;
        let mut is_out = vec![false; self.len];
        for &row in rows {
            is_out[row] = true;
        }
        let (dim, len) = (self.dim, is_out.iter().filter(|&&is_out| !is_out).count());
        let storage = match self.storage {
            Storage::Bytes(values) => Storage::Bytes(without(values.into_vec(), dim, &is_out)),
            Storage::Floats(values) => Storage::Floats(without(values.into_vec(), dim, &is_out)),
        };
        Ok((Self { len, dim, storage }, out))
    }

    /// The rows divided by their length, as floats; a row of zeros stays as it is.
    ///
    /// Between such rows the Euclidean distance is √(2 − 2 cos), by the angle between them: the
    /// nearest by it are the nearest by cosine, in the same order.
    ///
    /// ```
    /// use fashion_knn::vectors::Vectors;
    ///
    /// let rows = Vectors::from_bytes(2, vec![3, 4, 0, 0])?;
    /// assert_eq!(rows.normalized().floats(), Some(&[0.6, 0.8, 0.0, 0.0][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut values = self.to_floats();
        values.chunks_exact_mut(self.dim).for_each(normalize);
        Self {
            storage: Storage::Floats(values.into()),
            ..*self
        }
    }

    /// Asks for the values to be kept in huge pages, for rows that are read here and there.
    pub(crate) fn in_huge_pages(&self) {
        match &self.storage {
            // The pages of a mapped file are the system's, and stay as they are.
            Storage::Bytes(values) if !values.is_mapped() => simd::in_huge_pages(values),
            Storage::Floats(values) if !values.is_mapped() => simd::in_huge_pages(values),
            _ => {}
        }
    }

    /// Bytes of memory that the values take. Those of a mapped file are counted too, though the
    /// system can drop them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.storage {
            Storage::Bytes(values) => values.len(),
            Storage::Floats(values) => values.len() * size_of::<f32>(),
        }
    }
}

/// Divides a row by its length, in f64 and rounded once; a row of zeros stays as it is.
pub(crate) fn normalize(row: &mut [f32]) {
    let squares: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        for value in row {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

/// The rows that are not out, moved together.
fn without<T: Value>(mut values: Vec<T>, dim: usize, is_out: &[bool]) -> Values<T> {
    let mut end = 0;
    for (row, _) in is_out.iter().enumerate().filter(|(_, is_out)| !**is_out) {
        values.copy_within(row * dim..(row + 1) * dim, end);
        end += dim;
    }
    values.truncate(end);
    values.into()
}

/// How many rows of `dim` so many values make.
fn rows(dim: usize, values: usize) -> Result<usize, VectorsError> {
    if dim == 0 {
        return Err(VectorsError::ZeroDimension);
    }
    // The division below would drop the values of a last row that is not whole.
    if !values.is_multiple_of(dim) {
        return Err(VectorsError::Ragged {
            received: values,
            dim,
        });
    }
    check_rows(values / dim)?;
    Ok(values / dim)
}

/// Refuses more rows than ids of 32 bits can number.
fn check_rows(rows: usize) -> Result<(), VectorsError> {
    if rows > u32::MAX as usize {
        return Err(VectorsError::TooManyRows { received: rows });
    }
    Ok(())
}

/// These rows of a matrix of `dim` columns, in a list that is no larger than they are.
fn selected<T: Copy>(values: &[T], dim: usize, rows: &[usize]) -> Vec<T> {
    let mut selected = Vec::with_capacity(rows.len() * dim);
    for &row in rows {
        selected.extend_from_slice(&values[row * dim..][..dim]);
    }
    selected
}

/// Rows that can be had some at a time, so that not all of them need be in memory.
pub(crate) trait Rows: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// The rows with these numbers, in that order.
    fn rows(&self, numbers: &[usize]) -> Vectors;

    /// All rows.
    fn all(&self) -> Cow<'_, Vectors> {
        let numbers: Vec<usize> = (0..self.count()).collect();
        Cow::Owned(self.rows(&numbers))
    }
}

impl Rows for Vectors {
    fn count(&self) -> usize {
        self.len()
    }

    fn rows(&self, numbers: &[usize]) -> Vectors {
        self.select(numbers).expect("numbers of its rows")
    }

    fn all(&self) -> Cow<'_, Vectors> {
        Cow::Borrowed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_table_of_finite_numbers() {
        assert_eq!(
            Vectors::from_bytes(0, vec![1]).unwrap_err(),
            VectorsError::ZeroDimension
        );
        assert_eq!(
            Vectors::from_bytes(2, vec![1, 2, 3]).unwrap_err(),
            VectorsError::Ragged {
                received: 3,
                dim: 2
            }
        );
        assert_eq!(
            Vectors::from_floats(2, vec![0.0, 1.0, 2.0, f32::INFINITY]).unwrap_err(),
            VectorsError::NotFinite {
                row: 1,
                column: 1,
                value: f32::INFINITY
            }
        );
        assert!(matches!(
            Vectors::from_floats(1, vec![f32::NAN]),
            Err(VectorsError::NotFinite { .. })
        ));
    }

    #[test]
    fn selects_rows_in_the_order_asked_for() {
        let table = Vectors::from_bytes(2, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(
            table.select(&[2, 0]).unwrap().bytes().unwrap(),
            [5, 6, 1, 2]
        );
        assert_eq!(
            table.select(&[3]).unwrap_err(),
            VectorsError::NoSuchRow { row: 3, rows: 3 }
        );
        assert_eq!(table.head(1).bytes().unwrap(), [1, 2]);
        assert_eq!(table.head(9).len(), 3);
    }

    #[test]
    fn rows_are_held_out_in_place_unless_somebody_else_has_them() {
        let all: Vec<f32> = (0..30).map(|value| value as f32).collect();
        let table = Vectors::from_floats(3, all.clone()).unwrap();
        let place = table.floats().unwrap().as_ptr();
        let shared = table.clone();
        let (rest, out) = table.hold_out(&[9, 0, 4, 0]).unwrap();
        assert_eq!(shared.floats().unwrap(), all);
        let floats = |rows: &[usize]| shared.select(rows).unwrap().to_floats();
        assert_eq!(rest.to_floats(), floats(&[1, 2, 3, 5, 6, 7, 8]));
        assert_eq!(out.to_floats(), floats(&[9, 0, 4, 0]));
        assert_eq!((rest.len(), out.len()), (7, 4));
        // Now nobody else has them.
        assert_ne!(rest.floats().unwrap().as_ptr(), place);
        let (rest, _) = shared.hold_out(&[0]).unwrap();
        assert_eq!((rest.floats().unwrap().as_ptr(), rest.len()), (place, 9));
        assert_eq!(
            rest.hold_out(&[9]).unwrap_err(),
            VectorsError::NoSuchRow { row: 9, rows: 9 }
        );
    }

    #[test]
    fn arrays_go_in_and_come_out() {
        let array = ndarray::array![[1.0, 2.0], [3.0, 4.0]];
        assert_eq!(Vectors::from_array(array.view()).unwrap().to_array(), array);
        // A transposed view is not contiguous: its logical order is what counts.
        assert_eq!(
            Vectors::from_array(array.t()).unwrap().row(0),
            Row::Floats(&[1.0, 3.0])
        );
    }
}
