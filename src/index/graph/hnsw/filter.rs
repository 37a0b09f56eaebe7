//! A filter: a short code of each row that tells, for sure, that a row is too far, before the row
//! itself is read from memory.
//!
//! Rows of floats are coded by one byte a value, a quarter of the row:
//!
//! ```text
//! value     lo ----+----+----+----x----+---- hi        all dimensions have the same step
//! code      0      1    2    3    4    5    255
//! ```
//!
//! A row x and its code c are ‖x − c‖ apart, which is measured. So with a query q and
//! its code r
//!
//! ```text
//! ‖q − x‖ ≥ ‖r − c‖ − ‖q − r‖ − ‖x − c‖
//! ```
//!
//! Long rows of bytes have a [`Sketch`] of 31 principal components instead. Whether a filter
//! rejects enough to be worth its reading is measured on a sample.

use rayon::prelude::*;

use super::nodes::distance;
use crate::distance::Norm;
use crate::error::BuildError;
use crate::index::parts::{Part, PartError, Parts, Saved, expect, join, saved};
use crate::index::support::lower_bound::{Sketch, SketchedQuery};
use crate::index::support::pruned_rows::{COMPONENTS, lines};
use crate::simd;
use crate::simd::tiles::Line;
use crate::simd::{lower_bound, pairwise};
use crate::vectors::{Row, Vectors};

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;
/// A filter has to save more than so many times what it reads: it is read for every row.
const WORTH: f64 = 2.0;
/// Rows whose distances are computed to see what a filter rejects, and rows for which they are.
const SAMPLE: usize = 1_000;
const SAMPLED_QUERIES: usize = 50;
/// What is asked of the sample: of the rows from the 10th to the 100th nearest, which are what a
/// walk compares, how many are known to be farther than the 10th?
const NEAREST: usize = 10;
const COMPARED: usize = 100;

/// A code of each row.
#[derive(Debug)]
pub enum Filter {
    Bytes(Codes),
    Sketches {
        sketch: Sketch,
        /// A whole number of cache lines a row.
        sketches: Vec<Line<f32>>,
    },
}

/// A byte a value.
#[derive(Debug)]
pub struct Codes {
    /// The value of code 0, for each dimension.
    low: Vec<f32>,
    /// How much one more in a code is.
    step: f64,
    /// No row is farther from its code.
    error: f64,
    codes: Vec<u8>,
}

/// The code of a query.
#[derive(Debug)]
pub enum FilterQuery {
    Bytes { code: Vec<u8>, error: f64 },
    Sketch(SketchedQuery, Vec<Line<f32>>),
}

saved!(Codes {
    low,
    step,
    error,
    codes
});

/// The codes, or the sketches and their map.
impl Part for Filter {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        match self {
            Self::Bytes(codes) => parts.add(&join(name, "bytes"), codes),
            Self::Sketches { sketch, sketches } => {
                parts.add(&join(name, "sketch"), sketch);
                parts.add(&join(name, "sketches"), sketches);
            }
        }
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        Ok(match saved.take(&join(name, "bytes"))? {
            Some(codes) => Self::Bytes(codes),
            None => Self::Sketches {
                sketch: saved.take(&join(name, "sketch"))?,
                sketches: saved.take(&join(name, "sketches"))?,
            },
        })
    }
}

impl Filter {
    /// Refuses codes that are not those of `rows`.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, rows: &Vectors) -> Result<(), PartError> {
        let fits = match self {
            Self::Bytes(codes) => {
                let fits = codes.low.len() == rows.dim() && codes.step > 0.0;
                fits && codes.codes.len() == rows.len() * rows.dim()
            }
            Self::Sketches { sketch, sketches } => {
                sketch.check(rows.dim())?;
                sketches.len() == rows.len() * self.lines()
            }
        };
        expect(fits, "filter", "a code for each row")
    }

    /// The filter of these rows, if there is one that is worth it.
    ///
    /// # Errors
    /// If the components of the rows cannot be computed.
    pub fn new(rows: &Vectors) -> Result<Option<Self>, BuildError> {
        // Where there are few rows, they stay in the caches.
        if rows.len() < SAMPLE {
            return Ok(None);
        }
        let filter = match rows.floats() {
            Some(_) => Codes::new(rows).map(Self::Bytes),
            // A row of no more than four lines could not save what two for its sketch cost.
            None if rows.dim() > 4 * CACHE_LINE => {
                let sketched = Sketch::fit(rows, Norm::L2, COMPONENTS)?;
                let width = sketched.sketch.width();
                let sketches = sketched.rows.chunks_exact(width).flat_map(lines);
                Some(Self::Sketches {
                    sketches: sketches.collect(),
                    sketch: sketched.sketch,
                })
            }
            None => None,
        };
        let filter = filter.filter(|filter| filter.is_worth_it(rows));
        match &filter {
            Some(Self::Bytes(codes)) => simd::in_huge_pages(&codes.codes),
            Some(Self::Sketches { sketches, .. }) => simd::in_huge_pages(sketches),
            None => {}
        }
        Ok(filter)
    }

    /// Whether it rejects so many of the rows that a walk compares that it saves reading.
    fn is_worth_it(&self, rows: &Vectors) -> bool {
        let every = |count: usize| (0..rows.len()).step_by(rows.len().div_ceil(count));
        let rejected = |query: usize| {
            let mut near: Vec<(f64, u32)> = every(SAMPLE)
                .map(|row| (distance(rows.row(query), rows.row(row)), row as u32))
                .collect();
            near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            near.truncate(COMPARED);
            let coded = self.query(rows.row(query));
            let limit = self.limit(&coded, near[NEAREST].0);
            let compared: Vec<u32> = near[NEAREST..].iter().map(|&(_, row)| row).collect();
            let mut bounds = Vec::new();
            self.bounds(&coded, &compared, &mut bounds);
            let rejected = bounds.iter().filter(|&&bound| bound > limit).count();
            rejected as f64 / compared.len() as f64
        };
        let queries: Vec<usize> = every(SAMPLED_QUERIES).collect();
        let shares: Vec<f64> = queries.par_iter().map(|&query| rejected(query)).collect();
        let share = shares.iter().sum::<f64>() / shares.len() as f64;
        // In cache lines, for that is what memory brings.
        let row_lines = (rows.memory_bytes() / rows.len()).div_ceil(CACHE_LINE);
        share * row_lines as f64 > WORTH * self.lines() as f64
    }

    /// Cache lines that reading a code takes.
    fn lines(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.low.len().div_ceil(CACHE_LINE),
            Self::Sketches { sketch, .. } => sketch.width().div_ceil(simd::LINE_WORDS),
        }
    }

    /// The code of a query.
    pub fn query(&self, query: Row<'_>) -> FilterQuery {
        match self {
            Self::Bytes(codes) => {
                let mut code = vec![0; codes.low.len()];
                let error = codes.encode(&query.to_floats(), &mut code);
                FilterQuery::Bytes { code, error }
            }
            Self::Sketches { sketch, .. } => {
                let sketched = sketch.query(query);
                let lines = lines(&sketched.values).collect();
                FilterQuery::Sketch(sketched, lines)
            }
        }
    }

    /// Asks the memory for the code of a row.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        match self {
            Self::Bytes(codes) => simd::prefetch(codes.of(row)),
            Self::Sketches { sketches, .. } => {
                let width = self.lines();
                simd::prefetch(&sketches[row as usize * width..][..width]);
            }
        }
    }

    /// The squared distances of the query's code to those of `rows`.
    #[inline]
    pub fn bounds(&self, query: &FilterQuery, rows: &[u32], out: &mut Vec<f32>) {
        match (self, query) {
            (Self::Bytes(codes), FilterQuery::Bytes { code, .. }) => {
                out.clear();
                out.extend(
                    rows.iter()
                        .map(|&row| pairwise::squared_euclidean_bytes(code, codes.of(row)) as f32),
                );
            }
            (Self::Sketches { sketches, .. }, FilterQuery::Sketch(_, lines)) => {
                lower_bound::bounds(lines, sketches, rows, out);
            }
            _ => unreachable!("a query of this filter"),
        }
    }

    /// Rows with a bound above this have a squared distance above `distance`.
    #[inline]
    pub fn limit(&self, query: &FilterQuery, distance: f64) -> f32 {
        match (self, query) {
            (Self::Bytes(codes), FilterQuery::Bytes { error, .. }) => {
                let radius = (distance.sqrt() + codes.error + error) / codes.step;
                // A bound is rounded to f32, by less than this share.
                (radius * radius * (1.0 + 1e-6)) as f32
            }
            (_, FilterQuery::Sketch(sketched, _)) => sketched.radius(distance).reduced,
            _ => unreachable!("a query of this filter"),
        }
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.codes.len() + size_of_val(&*codes.low),
            Self::Sketches { sketch, sketches } => sketch.memory_bytes() + size_of_val(&**sketches),
        }
    }
}

impl Codes {
    /// The codes of rows of floats; `None` where all rows are equal or no step tells them apart.
    fn new(rows: &Vectors) -> Option<Self> {
        let values = rows.floats()?;
        let mut low = rows.row_to_floats(0);
        let mut high = low.clone();
        for row in values.chunks_exact(rows.dim()) {
            for (i, &value) in row.iter().enumerate() {
                low[i] = low[i].min(value);
                high[i] = high[i].max(value);
            }
        }
        let ranges = low.iter().zip(&high);
        let ranges = ranges.map(|(&low, &high)| f64::from(high) - f64::from(low));
        let step = ranges.fold(0.0, f64::max) / f64::from(u8::MAX);
        if step < f64::from(f32::MIN_POSITIVE) {
            return None;
        }
        let mut coded = Self {
            low,
            step,
            error: 0.0,
            codes: Vec::new(),
        };
        let mut codes = vec![0; values.len()];
        let pairs = codes
            .par_chunks_exact_mut(rows.dim())
            .zip(values.par_chunks_exact(rows.dim()));
        let errors = pairs.map(|(code, row)| coded.encode(row, code));
        coded.error = errors.reduce(|| 0.0, f64::max);
        coded.codes = codes;
        Some(coded)
    }

    /// Writes the code of a row; returns how far the row is from it.
    fn encode(&self, row: &[f32], code: &mut [u8]) -> f64 {
        let mut squared = 0.0;
        for ((code, &value), &low) in code.iter_mut().zip(row).zip(&self.low) {
            let above = f64::from(value) - f64::from(low);
            // Values outside the range go to its edge: the cast saturates.
            *code = (above / self.step + 0.5) as u8;
            let left = above - f64::from(*code) * self.step;
            squared += left * left;
        }
        squared.sqrt()
    }

    fn of(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.low.len()..][..self.low.len()]
    }
}
