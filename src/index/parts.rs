//! An index in parts: the named arrays that it is saved as, and is made from again.
//!
//! [`Index::parts`](super::Index::parts) lists them, and [`Build::from_parts`] puts them together.
//! A part is an array of one type of number, with a shape. Parts of a part are named with a dot:
//! `tree.starts`.
//!
//! Structs whose fields are parts are declared with the macro `saved!`, so that what is written and
//! what is read are one list. What was read is not trusted yet: each index checks that its arrays
//! fit together before it answers from them.
//!
//! The file around the parts is in `index/saved.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::parameters::LARGEST_WHOLE;
use super::{Build, Parameters, Settings};
use crate::distance::{Metric, Norm};
use crate::error::BuildError;
use crate::simd::{self, LINE_WORDS, Line};
use crate::vectors::{Storage, Vectors};

/// Bytes that are converted at a time: enough to make calls rare, few enough to stay in the
/// second-level cache. A multiple of the size of every element.
const PIECE: usize = 1 << 16;

/// The type of the numbers of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum NumberType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    U64,
    F64,
}

impl NumberType {
    /// Bytes of a number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }
}

/// Why the parts of an index could not be put together.
#[derive(Debug, Error)]
pub enum PartError {
    /// A part is not there.
    #[error("there is no part {name:?}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A part is there, but not what the index needs.
    #[error("part {name:?}: {why}")]
    Invalid {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes of a part are not those that were saved.
    #[error("part {name:?} is damaged: its checksum is another")]
    Damaged {
        /// Its name.
        name: String,
    },
    /// The bytes could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A parameter is outside its range.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl PartError {
    /// A part that does not fit.
    pub(crate) fn invalid(name: &str, why: impl fmt::Display) -> Self {
        Self::Invalid {
            name: name.to_owned(),
            why: why.to_string(),
        }
    }
}

/// Refuses a part unless `fits`. `why` says what was expected.
pub(crate) fn expect(fits: bool, name: &str, why: &str) -> Result<(), PartError> {
    if fits {
        return Ok(());
    }
    Err(PartError::invalid(name, format_args!("expected {why}")))
}

/// Refuses a list of positions or row numbers that has one outside of `0..limit`.
pub(crate) fn expect_below(values: &[u32], limit: usize, name: &str) -> Result<(), PartError> {
    // The greatest is found without a branch for each value.
    let greatest = values.iter().copied().max();
    let fits = greatest.is_none_or(|greatest| (greatest as usize) < limit);
    expect(fits, name, &format!("numbers below {limit}"))
}

/// Refuses a list in which the numbers `0..values.len()` do not stand once each.
pub(crate) fn expect_each_once(values: &[u32], name: &str) -> Result<(), PartError> {
    expect_below(values, values.len(), name)?;
    let mut met = vec![false; values.len()];
    for &value in values {
        met[value as usize] = true;
    }
    let all = met.into_iter().all(|met| met);
    expect(all, name, "each number once")
}

/// Refuses values that are not all finite: comparisons and bounds rely on that.
pub(crate) fn expect_finite(values: &[f32], name: &str) -> Result<(), PartError> {
    let finite = values
        .iter()
        .fold(true, |finite, value| finite & value.is_finite());
    expect(finite, name, "finite numbers")
}

/// Where the lists of one after the other begin, and at last where they end: ascending from 0 to
/// `total`.
pub(crate) fn expect_starts<T: Copy + Ord + TryInto<u64>>(
    starts: &[T],
    total: usize,
    name: &str,
) -> Result<(), PartError> {
    let number = |value: &T| (*value).try_into().ok();
    let fits = starts.is_sorted()
        && starts.first().and_then(number) == Some(0)
        && starts.last().and_then(number) == Some(total as u64);
    expect(
        fits,
        name,
        &format!("numbers that ascend from 0 to {total}"),
    )
}

/// An array of one part, to be written: its values, little-endian, piece by piece.
type Pieces<'a> = Box<dyn Fn(&mut dyn FnMut(&[u8])) + 'a>;

/// One part of an index that is to be saved.
pub struct PartOut<'a> {
    /// The type of its numbers.
    pub number: NumberType,
    /// Its shape; empty for a single number.
    pub shape: Vec<usize>,
    pieces: Pieces<'a>,
}

impl PartOut<'_> {
    /// Hands its bytes on, piece by piece.
    pub fn for_each_piece(&self, visit: &mut dyn FnMut(&[u8])) {
        (self.pieces)(visit);
    }
}

impl fmt::Debug for PartOut<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {:?}", self.number, self.shape)
    }
}

/// What an index is saved as: its parts by name, and its parameters.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    kind: &'static str,
    build: Settings,
    search: Settings,
    parts: BTreeMap<String, PartOut<'a>>,
    /// The part that is the vectors.
    vectors: Option<String>,
}

impl<'a> Parts<'a> {
    /// Notes which index it is, and the parameters with which it was built and is searched.
    pub fn describe<I: Build>(&mut self, build: &I::Params, search: &I::Search) {
        self.kind = I::KEY;
        (self.build, self.search) = (settings(build), settings(search));
    }

    /// Adds a part, or the parts that it consists of.
    pub fn add(&mut self, name: &str, part: &'a impl Part) {
        part.write(name, self);
    }

    /// The key of the index in the registry.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The name of the part that is the vectors, where the index keeps them.
    #[must_use]
    pub fn vectors(&self) -> Option<&str> {
        self.vectors.as_deref()
    }

    /// The parameters of the build and of the search.
    #[must_use]
    pub fn settings(&self) -> (&Settings, &Settings) {
        (&self.build, &self.search)
    }

    /// The parts by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PartOut<'a>)> {
        self.parts.iter().map(|(name, part)| (name.as_str(), part))
    }

    /// Adds a number.
    pub fn add_number(&mut self, name: &str, value: u64) {
        let pieces = move |visit: &mut dyn FnMut(&[u8])| visit(&value.to_le_bytes());
        self.insert(name, Vec::new(), NumberType::U64, Box::new(pieces));
    }

    fn insert(&mut self, name: &str, shape: Vec<usize>, number: NumberType, pieces: Pieces<'a>) {
        let part = PartOut {
            number,
            shape,
            pieces,
        };
        let before = self.parts.insert(name.to_owned(), part);
        assert!(before.is_none(), "two parts {name:?}");
    }

    pub(crate) fn add_array<T: Element>(&mut self, name: &str, shape: Vec<usize>, values: &'a [T]) {
        let pieces = move |visit: &mut dyn FnMut(&[u8])| write_pieces(values, visit);
        self.insert(name, shape, T::NUMBER, Box::new(pieces));
    }
}

/// The parameters as names and numbers.
fn settings(parameters: &impl Parameters) -> Settings {
    let values = parameters.values().into_iter();
    values.fold(Settings::default(), |settings, (name, value)| {
        // Whole numbers beyond this are not read again, and mean "all" in any parameter.
        settings.with(name, value.min(LARGEST_WHOLE))
    })
}

/// Hands on the bytes of `values`.
fn write_pieces<T: Element>(values: &[T], visit: &mut dyn FnMut(&[u8])) {
    let mut piece = Vec::new();
    for values in values.chunks(PIECE / T::SIZE) {
        piece.resize(values.len() * T::SIZE, 0);
        for (bytes, value) in piece.chunks_exact_mut(T::SIZE).zip(values) {
            value.put(bytes);
        }
        visit(&piece);
    }
}

/// Where the parts of a saved index come from: the header of a file, and its bytes.
pub trait Source {
    /// The type and the shape of a part; `None` if there is none of that name.
    fn find(&self, name: &str) -> Option<(NumberType, &[usize])>;

    /// Whether there is a part of that name, or one whose name begins with it and a dot.
    fn has(&self, name: &str) -> bool;

    /// Hands on all bytes of a part, in pieces of whole elements of `size` bytes, and compares
    /// their checksum.
    ///
    /// # Errors
    /// If they cannot be read, or are others than were saved.
    fn read(
        &mut self,
        name: &str,
        size: usize,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), PartError>;

    /// The vectors of a part, where they lie in a mapped file; `None` where they have to be read.
    ///
    /// # Errors
    /// If they do not make vectors.
    fn mapped(&self, name: &str) -> Result<Option<Vectors>, PartError>;
}

/// The parts of an index that was saved, to be put together again.
pub struct Saved<'a> {
    source: &'a mut dyn Source,
    metric: Metric,
    build: Settings,
    search: Settings,
}

impl fmt::Debug for Saved<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {:?}", self.build, self.search)
    }
}

impl<'a> Saved<'a> {
    /// What `source` has, of an index of that metric and parameters.
    pub fn new(
        source: &'a mut dyn Source,
        metric: Metric,
        (build, search): (Settings, Settings),
    ) -> Self {
        Self {
            source,
            metric,
            build,
            search,
        }
    }

    /// The metric of its distances.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The same parts, as those of an index of another metric: what a wrapper has inside.
    pub fn set_metric(&mut self, metric: Metric) {
        self.metric = metric;
    }

    /// The parameters with which it was built.
    ///
    /// # Errors
    /// If one is not of its type.
    pub fn build_parameters<P: Parameters>(&self) -> Result<P, PartError> {
        Ok(P::from_settings(&self.build)?)
    }

    /// The parameters with which it was searched when it was saved.
    ///
    /// # Errors
    /// If one is not of its type.
    pub fn search_parameters<P: Parameters>(&self) -> Result<P, PartError> {
        Ok(P::from_settings(&self.search)?)
    }

    /// A part.
    ///
    /// # Errors
    /// If it is missing, damaged, or of another type or shape.
    pub fn take<P: Part>(&mut self, name: &str) -> Result<P, PartError> {
        P::read(name, self)
    }

    /// The shape of a part whose numbers have type `number`.
    fn shape(&self, name: &str, number: NumberType) -> Result<&[usize], PartError> {
        let found = self.source.find(name);
        let (received, shape) = found.ok_or_else(|| PartError::Missing {
            name: name.to_owned(),
        })?;
        let why = || format!("its numbers are {received:?}; expected {number:?}");
        if received != number {
            return Err(PartError::invalid(name, why()));
        }
        Ok(shape)
    }

    /// The values of a part, in a shape that ends with the numbers of an element.
    fn values<T: Element>(&mut self, name: &str) -> Result<Vec<T>, PartError> {
        let shape = self.shape(name, T::NUMBER)?;
        // The header was compared with the length of the file, so that this is no more than there
        // is.
        let numbers: usize = shape.iter().product();
        let width = T::SIZE / T::NUMBER.size();
        expect(numbers.is_multiple_of(width), name, "whole elements")?;
        let mut values = Vec::with_capacity(numbers / width);
        // Before its pages are touched, as builds do: it costs less than to change them later.
        simd::in_huge_pages(values.spare_capacity_mut());
        self.source.read(name, T::SIZE, &mut |piece| {
            values.extend(piece.chunks_exact(T::SIZE).map(T::take));
        })?;
        Ok(values)
    }
}

/// What can be saved under a name: an array, a number, or a struct of such.
pub trait Part: Sized {
    /// Adds what it consists of.
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>);

    /// Makes it again.
    ///
    /// # Errors
    /// If a part is missing, damaged, or of another type or shape.
    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError>;
}

/// The name of a part of a part.
pub(crate) fn join(name: &str, part: impl fmt::Display) -> String {
    format!("{name}.{part}")
}

/// What an array of a part has many of: a number, or a group of numbers that kernels read together.
pub trait Element: Copy {
    /// The type of its numbers.
    const NUMBER: NumberType;
    /// Its bytes in a file.
    const SIZE: usize;

    /// Writes its `SIZE` bytes, little-endian.
    fn put(&self, bytes: &mut [u8]);

    /// Makes it from `SIZE` bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($type:ident $number:ident),*) => {$(
        impl Element for $type {
            const NUMBER: NumberType = NumberType::$number;
            const SIZE: usize = size_of::<$type>();

            #[inline(always)]
            fn put(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            #[inline(always)]
            fn take(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("SIZE bytes"))
            }
        }
    )*};
}

numbers!(u8 U8, i8 I8, u16 U16, i16 I16, u32 U32, i32 I32, f32 F32, u64 U64, f64 F64);

/// Numbers side by side.
impl<T: Element + Default, const N: usize> Element for [T; N] {
    const NUMBER: NumberType = T::NUMBER;
    const SIZE: usize = N * T::SIZE;

    #[inline(always)]
    fn put(&self, bytes: &mut [u8]) {
        for (bytes, value) in bytes.chunks_exact_mut(T::SIZE).zip(self) {
            value.put(bytes);
        }
    }

    #[inline(always)]
    fn take(bytes: &[u8]) -> Self {
        let mut values = [T::default(); N];
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(T::SIZE)) {
            *value = T::take(bytes);
        }
        values
    }
}

/// Makes elements of structs that wrap one array.
macro_rules! elements {
    ($($type:ty as $inner:ty),* $(,)?) => {$(
        impl $crate::index::parts::Element for $type {
            const NUMBER: $crate::index::parts::NumberType =
                <$inner as $crate::index::parts::Element>::NUMBER;
            const SIZE: usize = <$inner as $crate::index::parts::Element>::SIZE;

            #[inline(always)]
            fn put(&self, bytes: &mut [u8]) {
                $crate::index::parts::Element::put(&self.0, bytes);
            }

            #[inline(always)]
            fn take(bytes: &[u8]) -> Self {
                Self($crate::index::parts::Element::take(bytes))
            }
        }
    )*};
}

elements!(Line<f32> as [f32; LINE_WORDS], Line<[u8; 4]> as [[u8; 4]; LINE_WORDS]);

impl<T: Element> Part for Vec<T> {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        let width = T::SIZE / T::NUMBER.size();
        let shape = match width {
            1 => vec![self.len()],
            width => vec![self.len(), width],
        };
        parts.add_array(name, shape, self);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        saved.values(name)
    }
}

/// A single number, as an array without a dimension.
macro_rules! single_numbers {
    ($($type:ident),*) => {$(
        impl Part for $type {
            fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
                parts.add_array(name, Vec::new(), std::slice::from_ref(self));
            }

            fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
                match saved.values(name)?[..] {
                    [value] => Ok(value),
                    _ => Err(PartError::invalid(name, "expected one number")),
                }
            }
        }
    )*};
}

single_numbers!(u8, i8, i16, u32, i32, f32, u64, f64);

/// What is saved as a number of 64 bits.
macro_rules! as_u64 {
    ($($type:ident: $back:expr),*) => {$(
        impl Part for $type {
            fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
                parts.add_number(name, *self as u64);
            }

            fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
                let value = saved.take::<u64>(name)?;
                let back: fn(u64) -> Option<$type> = $back;
                back(value).ok_or_else(|| PartError::invalid(name, format_args!("{value}")))
            }
        }
    )*};
}

as_u64!(
    usize: |value| value.try_into().ok(),
    bool: |value| (value <= 1).then_some(value == 1)
);

/// Numbers of which none is missing, one after the other.
impl Part for Vec<usize> {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        let pieces = move |visit: &mut dyn FnMut(&[u8])| {
            for value in self {
                visit(&(*value as u64).to_le_bytes());
            }
        };
        parts.insert(name, vec![self.len()], NumberType::U64, Box::new(pieces));
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let values = saved.values::<u64>(name)?.into_iter();
        let numbers = values.map(usize::try_from).collect::<Result<_, _>>();
        numbers.map_err(|error| PartError::invalid(name, error))
    }
}

/// Nothing is written for what there is not.
impl<P: Part> Part for Option<P> {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        if let Some(part) = self {
            part.write(name, parts);
        }
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let there = saved.source.has(name);
        there.then(|| P::read(name, saved)).transpose()
    }
}

impl<P: Part> Part for Box<P> {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        P::write(self, name, parts);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        P::read(name, saved).map(Self::new)
    }
}

impl<P: Part> Part for Arc<P> {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        P::write(self, name, parts);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        P::read(name, saved).map(Self::new)
    }
}

/// 1 or 2, as in L1 and L2.
impl Part for Norm {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        let number = match self {
            Self::L1 => 1,
            Self::L2 => 2,
        };
        parts.add_number(name, number);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        match saved.take::<u64>(name)? {
            1 => Ok(Self::L1),
            2 => Ok(Self::L2),
            other => Err(PartError::invalid(
                name,
                format_args!("expected 1 or 2, not {other}"),
            )),
        }
    }
}

/// So many numbers.
impl<T: Element, const N: usize> Part for [T; N] {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        parts.add_array(name, vec![N], self);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let values = saved.values::<T>(name)?.try_into();
        values.map_err(|_| PartError::invalid(name, format_args!("expected {N} numbers")))
    }
}

/// n × d numbers, bytes or floats as they are.
impl Part for Vectors {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        let shape = vec![self.len(), self.dim()];
        parts.vectors = Some(name.to_owned());
        match self.storage() {
            Storage::Bytes(values) => parts.add_array(name, shape, values),
            Storage::Floats(values) => parts.add_array(name, shape, values),
        }
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        if let Some(vectors) = saved.source.mapped(name)? {
            return Ok(vectors);
        }
        let found = saved.source.find(name);
        let (number, shape) = found.ok_or_else(|| PartError::Missing {
            name: name.to_owned(),
        })?;
        let &[_, dim] = shape else {
            return Err(PartError::invalid(name, "expected rows of vectors"));
        };
        let vectors = match number {
            NumberType::U8 => Self::from_bytes(dim, saved.values::<u8>(name)?),
            _ => Self::from_floats(dim, saved.values::<f32>(name)?),
        };
        vectors.map_err(|error| PartError::invalid(name, error))
    }
}

/// Declares the fields of a struct that are its parts, all of them.
macro_rules! saved {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::index::parts::Part for $type {
            fn write<'a>(&'a self, name: &str, parts: &mut $crate::index::parts::Parts<'a>) {
                $(parts.add(&$crate::index::parts::join(name, stringify!($field)), &self.$field);)*
            }

            fn read(
                name: &str,
                saved: &mut $crate::index::parts::Saved<'_>,
            ) -> Result<Self, $crate::index::parts::PartError> {
                Ok(Self {
                    $($field: saved.take(&$crate::index::parts::join(name, stringify!($field)))?,)*
                })
            }
        }
    };
}

/// Declares a struct as [`saved!`] does, and that a list of it can be a part: its length, and each
/// under its number.
macro_rules! saved_list {
    ($type:ty { $($field:ident),* $(,)? }) => {
        $crate::index::parts::saved!($type { $($field),* });

        impl $crate::index::parts::Part for Vec<$type> {
            fn write<'a>(&'a self, name: &str, parts: &mut $crate::index::parts::Parts<'a>) {
                for (number, part) in self.iter().enumerate() {
                    parts.add(&$crate::index::parts::join(name, number), part);
                }
            }

            fn read(
                name: &str,
                saved: &mut $crate::index::parts::Saved<'_>,
            ) -> Result<Self, $crate::index::parts::PartError> {
                let numbered = (0..).map(|number: usize| {
                    saved.take::<Option<$type>>(&$crate::index::parts::join(name, number))
                });
                numbered.map_while(Result::transpose).collect()
            }
        }
    };
}

pub(crate) use {elements, saved, saved_list};
