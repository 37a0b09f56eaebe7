//! A bound from below of the distance between two rows, from small integers that stand for them.
//!
//! Products of small integers are several times faster than those of floats, and take less memory.
//! But the rows have to be rounded to them. That moves each row by a distance that is measured, and
//! a bound that allows for these distances holds whatever the data are.

use rayon::prelude::*;

use crate::index::parts::saved;
use crate::simd::pairwise::gamma;
use crate::simd::tiles;
use crate::vectors::{Row, Storage, Vectors};

/// The most values of a row that integer products are taken of. Each product or square is less than
/// 2¹⁶, so that a sum of 2¹⁴ of them is less than 2³⁰.
const DEEPEST: usize = 1 << 14;

/// Two grids, of steps a for the base and b for queries, both from the least value of the base on.
///
/// A row x stands near x̂ = low + a·x′ with integers 0 ≤ x′ ≤ most. A query q stands near
/// q̂ = low + b·(q′ + m) with −m ≤ q′ < m, where m is `middle`. Their distances from
/// these, e(x) and e(q), are known. By the triangle inequality
///
/// ```text
/// ‖q − x‖   ≥ ‖q̂ − x̂‖ − e(q) − e(x),
/// ‖q̂ − x̂‖² = a²·‖x′‖² + b²·‖q′ + m‖²
///             − 2ab·(q′·x′ + m·Σx′).
/// ```
///
/// Let t be the distance of the k-th best. A row cannot be among the k nearest if ‖q̂ − x̂‖
/// exceeds t + e(q) + e(x). Squared and divided by ab, with what depends on the query alone on the
/// right: a row is out if norm − 2·q′·x′ > limit, where
///
/// ```text
/// norm  = (a/b)·‖x′‖² − 2·m·Σx′,
/// limit = ((t + e(q) + e(x))² − b²·‖q′ + m‖²) / ab.
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounding {
    low: f32,
    /// a and b: whole numbers if the base is bytes, as `low` is then.
    steps: [f32; 2],
    /// The greatest codes, of the base and of queries.
    most: [u8; 2],
    middle: i32,
    /// How far the longer grid reaches. No row of the base lies outside, so that the error of the
    /// arithmetic of rounding is proportional to it.
    span: f64,
}

/// What is known of a rounded row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounded {
    /// Sum of the codes.
    sum: i32,
    /// Sum of their squares.
    squares: i32,
    /// The row is no farther than this from what its codes stand for.
    pub error: f64,
}

saved!(Rounding {
    low,
    steps,
    most,
    middle,
    span
});

impl Rounding {
    /// The grids for rows rounded to 0..=`most` and queries to −`middle`..`middle`. `None` if
    /// integers or f32 have no room for these numbers.
    pub(crate) fn new(
        base: &Vectors,
        (low, high): (f32, f32),
        most: u8,
        middle: u8,
    ) -> Option<Self> {
        /// Within these, neither squares of rounding errors underflow nor do sums of squares
        /// overflow.
        const SPREADS: std::ops::Range<f32> = 1e-10..1e15;
        // A query's codes are counted from 0 here, and moved by `middle` when they are written. The
        // order of the terms matters: 2 · 128 would not fit in a u8.
        let codes = [most, middle - 1 + middle];
        let spread = high - low;
        // Of bytes, steps are whole numbers, so that codes and errors are exact in integers. Where
        // all bytes are equal, a step is 1 all the same, as it is divided by.
        let steps = match base.storage() {
            Storage::Bytes(_) => {
                // A query's step comes from 254, not 255: 254 / 127 is exactly 2, while 255 would
                // need steps of 3 and waste a third of the codes. The value 255 is then rounded to
                // 254. That error is measured as all others are, so no neighbour is lost.
                [(spread, most), (spread - 1.0, codes[1])]
                    .map(|(spread, most)| (spread / f32::from(most)).ceil().max(1.0))
            }
            Storage::Floats(_) if SPREADS.contains(&spread) => {
                codes.map(|most| spread / f32::from(most))
            }
            Storage::Floats(_) => return None,
        };
        // The size of the values counts besides their spread: differences of larger ones could
        // overflow.
        let size = f64::from(low.abs().max(high.abs()));
        // Where bytes differ little, a step is 1 at least, and the grid reaches farther than the
        // bytes do.
        let reach = |side: usize| f64::from(steps[side]) * f64::from(codes[side]);
        (base.dim() <= DEEPEST && size < f64::from(SPREADS.end)).then_some(Self {
            low,
            steps,
            most: codes,
            middle: i32::from(middle),
            span: reach(0).max(reach(1)),
        })
    }

    /// Writes the codes of a row of the base.
    pub(crate) fn row(&self, row: Row<'_>, codes: &mut [u8]) -> Rounded {
        self.round(row, 0, codes)
    }

    /// Writes the codes of a query: two's complement.
    pub(crate) fn query(&self, query: Row<'_>, codes: &mut [u8]) -> Rounded {
        // The sums of the result are of q′ + m, as `limit` needs them; the codes that are
        // multiplied are q′. As bytes, q′ − m wraps to its two's complement.
        let rounded = self.round(query, 1, codes);
        codes
            .iter_mut()
            .for_each(|code| *code = code.wrapping_sub(self.middle as u8));
        rounded
    }

    fn round(&self, row: Row<'_>, side: usize, codes: &mut [u8]) -> Rounded {
        let (low, step, most) = (self.low, self.steps[side], self.most[side]);
        // A row of bytes occurs over a base of bytes only, where `low` and the steps are whole.
        match row {
            Row::Bytes(row) => {
                let tiles::Rounded { sum, squares, lost } =
                    tiles::round(row, low as u8, step as u8, most, codes);
                Rounded {
                    sum,
                    squares,
                    error: f64::from(lost).sqrt(),
                }
            }
            Row::Floats(row) => {
                let tiles::Rounded { sum, squares, lost } =
                    tiles::round_floats(row, low, step, most, codes);
                // f32 rounds three results, each by the share u: x − low, step · code, and their
                // difference.
                // - For a value on the grid all three are at most as large as the span, so that
                //   8·u of the span a value is more than enough. The root of their number turns
                //   that into a distance.
                // - For a query beyond the grid the error is a share of what is lost. The 16 terms
                //   of γ beyond the additions of a lane have room for that.
                let u = f64::from(f32::EPSILON) / 2.0;
                let roundings = row.len() / tiles::LANES + 16;
                let lost = f64::from(lost).sqrt() * (1.0 + gamma(roundings));
                Rounded {
                    sum,
                    squares,
                    error: lost + (row.len() as f64).sqrt() * 8.0 * u * self.span,
                }
            }
        }
    }

    /// The norm of a row, or a little less.
    pub(crate) fn norm(&self, row: Rounded) -> i32 {
        // Rounded down: a smaller norm makes the row nearer, which cannot lose it.
        let ratio = f64::from(self.steps[0]) / f64::from(self.steps[1]);
        (ratio * f64::from(row.squares)).floor() as i32 - 2 * self.middle * row.sum
    }

    /// A row is out if its norm less 2·q′·x′ exceeds this. `error` is e(x) or more,
    /// `threshold` the squared distance of the k-th best.
    pub(crate) fn limit(&self, threshold: f64, query: Rounded, error: f64) -> i32 {
        // t + e(q) + e(x). It is infinite until there are k candidates, and then no row is out.
        let [a, b] = self.steps.map(f64::from);
        let reach = threshold.sqrt() + query.error + error;
        let rounded_query = b * b * f64::from(query.squares);
        // The share 10⁻¹² covers the rounding of the reduced distance and of its root in f64.
        let limit = (reach * reach * (1.0 + 1e-12) - rounded_query) / (a * b);
        // One more for the rounding of all this; the cast saturates.
        (limit.floor() as i32).saturating_add(1)
    }
}

/// The least and the greatest value.
pub(crate) fn range(base: &Vectors) -> (f32, f32) {
    match base.storage() {
        Storage::Bytes(values) => {
            let (low, high) = ends(values, 0, u8::MAX);
            (low.into(), high.into())
        }
        Storage::Floats(values) => ends(values, f32::NEG_INFINITY, f32::INFINITY),
    }
}

/// The least and the greatest of values between `lowest` and `highest`.
fn ends<T: Copy + PartialOrd + Send + Sync>(values: &[T], lowest: T, highest: T) -> (T, T) {
    /// Values that a task looks at.
    const TOGETHER: usize = 1 << 12;
    // What each value lowers or raises; no value would leave them as they are.
    let none = (highest, lowest);
    // No value is NaN, so that a plain comparison will do.
    let both = |(low, high): (T, T), (other_low, other_high): (T, T)| {
        (
            if other_low < low { other_low } else { low },
            if other_high > high { other_high } else { high },
        )
    };
    let of_piece = |values: &[T]| {
        let ends = values.iter().map(|&value| (value, value));
        ends.fold(none, both)
    };
    values
        .par_chunks(TOGETHER)
        .map(of_piece)
        .reduce(|| none, both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fractions() -> impl Strategy<Value = f32> {
        prop_oneof![Just(0.0f32), -1e-4f32..1e-4, -0.5f32..0.5]
    }

    proptest! {
        /// Also of a query whose fractions are small beside its codes, over bytes that hardly
        /// differ.
        #[test]
        fn queries_are_as_near_as_they_say(
            (low, high) in (0u8..=255).prop_flat_map(|low| (Just(low), low..=255)),
            query in prop::collection::vec((0u8..=255, fractions()), 1..60),
            (most, middle) in prop_oneof![Just((15u8, 128u8)), Just((64, 64))],
        ) {
            let base = Vectors::from_bytes(1, vec![low, high]).unwrap();
            let rounding = Rounding::new(&base, range(&base), most, middle).unwrap();
            let query: Vec<f32> =
                query.into_iter().map(|(whole, part)| f32::from(whole) + part).collect();
            let mut codes = vec![0; query.len()];
            let error = rounding.query(Row::Floats(&query), &mut codes).error;
            let lost = |(&value, &code): (&f32, &u8)| {
                let code = f64::from(code.wrapping_add(rounding.middle as u8));
                (f64::from(value) - f64::from(low) - f64::from(rounding.steps[1]) * code).powi(2)
            };
            let exact = query.iter().zip(&codes).map(lost).sum::<f64>().sqrt();
            prop_assert!(exact <= error, "{exact} {error}");
        }

        /// A row may be out only if it is farther than the limit says, however the values lie on
        /// the grids.
        #[test]
        fn the_limit_never_excludes_a_row_at_the_threshold(
            (base, query) in (1usize..60).prop_flat_map(|dim| {
                let value = || prop_oneof![-1.0f32..1.0, -100.0f32..100.0, Just(0.0f32)];
                (prop::collection::vec(value(), dim), prop::collection::vec(value(), dim))
            }),
            power in -9i32..12,
            offset in prop_oneof![Just(0.0f32), -1e6f32..1e6],
            (most, middle) in prop_oneof![Just((15u8, 128u8)), Just((64, 64))],
        ) {
            let dim = base.len();
            let scaled = |values: &[f32]| -> Vec<f32> {
                values.iter().map(|value| value * 10f32.powi(power) + offset).collect()
            };
            let (row, query) = (scaled(&base), scaled(&query));
            let base = Vectors::from_floats(dim, row.clone()).unwrap();
            // `None` where the offset has swallowed the values.
            if let Some(rounding) = Rounding::new(&base, range(&base), most, middle) {
                let (mut row_codes, mut query_codes) = (vec![0; dim], vec![0; dim]);
                let rounded_row = rounding.row(Row::Floats(&row), &mut row_codes);
                let rounded_query = rounding.query(Row::Floats(&query), &mut query_codes);
                let products = row_codes
                    .iter()
                    .zip(&query_codes)
                    .map(|(&x, &q)| i32::from(x) * i32::from(q.cast_signed()));
                let product: i32 = products.sum();
                let value = rounding.norm(rounded_row) - 2 * product;
                let exact = crate::distance::Metric::Euclidean.reduced(&query, &row);
                prop_assert!(value <= rounding.limit(exact, rounded_query, rounded_row.error));
                let (a, error) = (f64::from(rounding.steps[0]), rounded_row.error);
                let farthest = (dim as f64).sqrt() * (0.5001 * a + 1e-5 * rounding.span);
                prop_assert!(error <= farthest, "{error}, steps of {a}");
            }
        }
    }
}
