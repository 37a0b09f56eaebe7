//! [`Values`]: many numbers, shared, in memory or in a file.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytemuck::Pod;

#[cfg(feature = "files")]
use {
    crate::files::Map,
    std::io::{self, Read},
    std::ops::Range,
};

/// A number as [`Values`] hold it, and files with them: of a fixed size, and every pattern of bits
/// is one.
pub trait Value: Pod + fmt::Debug + sealed::Value {
    /// The number that these bits are if they were written lowest byte first. Nothing changes on a
    /// machine that has them in that order itself.
    #[must_use]
    fn from_le(written: Self) -> Self;
}

mod sealed {
    /// Only the types below.
    pub trait Value {}
}

macro_rules! values {
    ($($type:ty),*) => { $(
        impl sealed::Value for $type {}

        impl Value for $type {
            fn from_le(written: Self) -> Self {
                Self::from_le_bytes(written.to_ne_bytes())
            }
        }
    )* };
}

values!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// A slice of numbers that is shared: a copy costs nothing, and what is behind it never changes.
///
/// It is made of a `Vec` without copying it, or lies in a mapped file.
///
/// ```
/// use fashion_knn::vectors::Values;
///
/// let values = Values::from(vec![1.5f32, 2.5]);
/// assert_eq!(values.clone()[1], 2.5);
/// ```
#[derive(Clone)]
pub struct Values<T>(Place<T>);

/// Where the numbers are.
#[derive(Clone)]
enum Place<T> {
    /// Not `Arc<[T]>`, which a `Vec` would have to be copied into.
    Memory(Arc<Vec<T>>),
    /// These bytes of the file, aligned for `T` and whole numbers of it.
    #[cfg(feature = "files")]
    File { map: Map, bytes: Range<usize> },
}

impl<T: Value> Deref for Values<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Memory(values) => values,
            // Checked when it was made; the checks here are three comparisons.
            #[cfg(feature = "files")]
            Place::File { map, bytes } => bytemuck::cast_slice(&map[bytes.clone()]),
        }
    }
}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Place::Memory(Arc::new(values)))
    }
}

impl<T: Clone> From<&[T]> for Values<T> {
    fn from(values: &[T]) -> Self {
        values.to_vec().into()
    }
}

impl<T, const N: usize> From<[T; N]> for Values<T> {
    fn from(values: [T; N]) -> Self {
        Vec::from(values).into()
    }
}

impl<T> FromIterator<T> for Values<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

impl<T: Value> fmt::Debug for Values<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

impl<T> Values<T> {
    /// Whether they are a part of a mapped file, and not in memory of their own.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        match &self.0 {
            Place::Memory(_) => false,
            #[cfg(feature = "files")]
            Place::File { .. } => true,
        }
    }
}

impl<T: Value> Values<T> {
    /// The numbers for somebody who changes them: without copying them if nobody else has them.
    pub(super) fn into_vec(self) -> Vec<T> {
        match self.0 {
            Place::Memory(values) => Arc::unwrap_or_clone(values),
            #[cfg(feature = "files")]
            Place::File { .. } => self.to_vec(),
        }
    }
}

#[cfg(feature = "files")]
impl<T: Value> Values<T> {
    /// The numbers that these bytes of a file are, lowest byte first. None if the file does not
    /// have these bytes, or they are not whole numbers.
    ///
    /// They stay in the file where that can be: the bytes are aligned for `T` in memory, and the
    /// machine has numbers in that order of bytes. Else they are copied.
    pub fn mapped(map: &Map, bytes: Range<usize>) -> Option<Self> {
        let slice = map.get(bytes.clone())?;
        if !slice.len().is_multiple_of(size_of::<T>()) {
            return None;
        }
        if cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, T>(slice).is_ok() {
            let map = map.clone();
            return Some(Self(Place::File { map, bytes }));
        }
        let numbers = slice.chunks_exact(size_of::<T>());
        let from_le = |number| T::from_le(bytemuck::pod_read_unaligned(number));
        Some(numbers.map(from_le).collect())
    }
}

/// Bytes that are read in one step, where something is done with them before the next.
#[cfg(feature = "files")]
pub(crate) const PIECE: usize = 1 << 20;

/// An empty vector with room for `count` numbers.
///
/// # Errors
/// If there is not so much memory. The caller has compared `count` with what a file has.
#[cfg(feature = "files")]
pub(crate) fn room_for<T>(count: usize) -> io::Result<Vec<T>> {
    let mut values = Vec::new();
    let full = |_| {
        io::Error::new(
            io::ErrorKind::OutOfMemory,
            "not enough memory for its values",
        )
    };
    values.try_reserve_exact(count).map_err(full)?;
    Ok(values)
}

/// Adds the next `count` numbers of a file, lowest byte first.
#[cfg(feature = "files")]
pub(crate) fn append<T: Value>(
    values: &mut Vec<T>,
    file: &mut impl Read,
    count: usize,
) -> io::Result<()> {
    let old = values.len();
    values.resize(old + count, T::zeroed());
    let new = &mut values[old..];
    file.read_exact(bytemuck::cast_slice_mut(new))?;
    if cfg!(target_endian = "big") {
        for value in new {
            *value = T::from_le(*value);
        }
    }
    Ok(())
}

/// The next `count` numbers of a file, lowest byte first, read to where they stay: no more memory
/// is taken than they need.
///
/// # Errors
/// If the file ends before, or there is not so much memory. The caller has compared `count` with
/// what the file has: memory for all numbers is taken at once.
#[cfg(feature = "files")]
pub(crate) fn read_values<T: Value>(file: &mut impl Read, count: usize) -> io::Result<Vec<T>> {
    let mut values = room_for(count)?;
    while values.len() < count {
        let step = (PIECE / size_of::<T>()).min(count - values.len());
        append(&mut values, file, step)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vec_is_shared_and_not_copied() {
        let vec = vec![1.0f32, 2.0, 3.0];
        let place = vec.as_ptr();
        let values = Values::from(vec);
        assert_eq!(values.as_ptr(), place);
        assert_eq!(values.clone().as_ptr(), place);
        assert!(!values.is_mapped());
        assert_eq!(format!("{values:?}"), "[1.0, 2.0, 3.0]");
    }

    #[cfg(feature = "files")]
    #[test]
    fn a_part_of_a_file_is_the_numbers_that_were_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers = [1.5f32, -2.0, 3e30];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        // At 8 they are aligned in memory, because a map begins with a page; at 21 they are not.
        let all = [&[7; 8][..], &bytes, &[7], &bytes].concat();
        std::fs::write(&file, &all).unwrap();
        let map = Map::open(&file).unwrap();
        for start in [8, 21] {
            let values = Values::<f32>::mapped(&map, start..start + 12).unwrap();
            assert_eq!(*values, numbers);
            let here = cfg!(target_endian = "little") && start == 8;
            assert_eq!(values.is_mapped(), here);
            assert_eq!(*values.clone(), numbers);
            let read = read_values::<f32>(&mut &all[start..], 3).unwrap();
            assert_eq!(read, numbers);
        }
        assert!(read_values::<f32>(&mut &all[21..], 4).is_err());
        let more = usize::MAX / 8;
        assert!(read_values::<f32>(&mut &all[..], more).is_err());
        // Beyond the file; no whole number; from its end to its beginning.
        assert!(Values::<f32>::mapped(&map, 24..36).is_none());
        assert!(Values::<f32>::mapped(&map, 8..11).is_none());
        assert!(Values::<u8>::mapped(&map, usize::MAX - 1..usize::MAX).is_none());
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = 9..8;
        assert!(Values::<u8>::mapped(&map, reversed).is_none());
        assert!(Values::<f64>::mapped(&map, 8..8).unwrap().is_empty());
    }
}
