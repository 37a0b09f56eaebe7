//! What small integers say of the distance between rows: a bound from below that no rounding can break.

use rayon::prelude::*;

use crate::simd::pairwise::gamma;
use crate::simd::tiles;
use crate::vectors::{Row, Storage, Vectors};

/// Values of a row, at most, that integer products are taken of: each of them is less than 2¹⁶, so that sums fit in 31 bits.
const DEEPEST: usize = 1 << 14;

/// Two grids, of steps a for the base and b for queries, both from the least value of the base on.
///
/// A row x stands near x̂ = low + a·x′ with integers 0 ≤ x′ ≤ most, a query near q̂ = low + b·(q′ + middle) with
/// −middle ≤ q′ < middle, and their distances from these, e(x) and e(q), are known. By the triangle inequality
///
/// ‖q − x‖ ≥ ‖q̂ − x̂‖ − e(q) − e(x), with ‖q̂ − x̂‖² = a²‖x′‖² + b²‖q′ + middle‖² − 2ab·(q′·x′ + middle·Σx′).
///
/// So a row is out if (a/b)·‖x′‖² − 2·middle·Σx′ − 2·q′·x′ exceeds ((t + e(q) + e(x))² − b²‖q′ + middle‖²) / ab, where t is
/// the distance of the k-th best.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounding {
    low: f32,
    /// a and b: whole numbers if the base is bytes, as `low` is then.
    steps: [f32; 2],
    /// The greatest codes.
    most: [u8; 2],
    middle: i32,
    /// How far the grids reach, the rows of the base within them: what the arithmetic of rounding is off by goes with it.
    span: f64,
}

/// What is known of a rounded row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rounded {
    /// Sum of the codes, and of their squares.
    sum: i32,
    squares: i32,
    /// The row is no farther than this from what its codes stand for.
    pub error: f64,
}

impl Rounding {
    /// Rounds rows to 0..=`most`, and queries to −`middle`..`middle`. `None` if integers or f32 have no room for these numbers.
    pub(crate) fn new(
        base: &Vectors,
        (low, high): (f32, f32),
        most: u8,
        middle: u8,
    ) -> Option<Self> {
        /// Within these, neither squares of rounding errors underflow nor do sums of squares overflow.
        const SPREADS: std::ops::Range<f32> = 1e-10..1e15;
        let codes = [most, middle - 1 + middle];
        let spread = high - low;
        let steps = match base.storage() {
            Storage::Bytes(_) => {
                // The greatest query may lose one, or 255 would need steps of 3 where the greatest code is 127.
                [(spread, most), (spread - 1.0, codes[1])]
                    .map(|(spread, most)| (spread / f32::from(most)).ceil().max(1.0))
            }
            Storage::Floats(_) if SPREADS.contains(&spread) => {
                codes.map(|most| spread / f32::from(most))
            }
            Storage::Floats(_) => return None,
        };
        let size = f64::from(low.abs().max(high.abs()));
        // Of bytes that differ little, more than their spread.
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
        let rounded = self.round(query, 1, codes);
        codes
            .iter_mut()
            .for_each(|code| *code = code.wrapping_sub(self.middle as u8));
        rounded
    }

    fn round(&self, row: Row<'_>, side: usize, codes: &mut [u8]) -> Rounded {
        let (low, step, most) = (self.low, self.steps[side], self.most[side]);
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
                // A difference x − low is off by u, the product of step and code likewise, and what is left after both as well: of
                // what is lost, of the span, each once or twice.
                let u = f64::from(f32::EPSILON) / 2.0;
                let lost = f64::from(lost).sqrt() * (1.0 + gamma(row.len() / tiles::LANES + 16));
                Rounded {
                    sum,
                    squares,
                    error: lost + (row.len() as f64).sqrt() * 8.0 * u * self.span,
                }
            }
        }
    }

    /// (a/b)·‖x′‖² − 2·middle·Σx′, or a little less.
    pub(crate) fn norm(&self, row: Rounded) -> i32 {
        let ratio = f64::from(self.steps[0]) / f64::from(self.steps[1]);
        (ratio * f64::from(row.squares)).floor() as i32 - 2 * self.middle * row.sum
    }

    /// A row is out if its norm less 2·q′·x′ exceeds this; `error` is e(x) at least, `threshold` the squared distance of the k-th best.
    pub(crate) fn limit(&self, threshold: f64, query: Rounded, error: f64) -> i32 {
        let [a, b] = self.steps.map(f64::from);
        let reach = threshold.sqrt() + query.error + error;
        // One more for the rounding of all this; the cast saturates.
        let limit = ((reach * reach * (1.0 + 1e-12) - b * b * f64::from(query.squares)) / (a * b))
            .floor() as i32;
        limit.saturating_add(1)
    }
}

/// The least and the greatest value.
pub(crate) fn range(base: &Vectors) -> (f32, f32) {
    /// Values that are looked at as they come; what they give is put together once.
    const TOGETHER: usize = 1 << 12;
    fn ends<T: Copy + PartialOrd + Send + Sync>(values: &[T], lowest: T, highest: T) -> (T, T) {
        let less = |a: T, b: T| if b < a { b } else { a };
        let greater = |a: T, b: T| if b > a { b } else { a };
        let both = |(low, high): (T, T), (l, h): (T, T)| (less(low, l), greater(high, h));
        let piece = |values: &[T]| {
            values
                .iter()
                .fold((highest, lowest), |ends, &value| both(ends, (value, value)))
        };
        values
            .par_chunks(TOGETHER)
            .map(piece)
            .reduce(|| (highest, lowest), both)
    }
    match base.storage() {
        Storage::Bytes(values) => {
            let (low, high) = ends(values, 0, u8::MAX);
            (low.into(), high.into())
        }
        Storage::Floats(values) => ends(values, f32::NEG_INFINITY, f32::INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Also of a query whose fractions are small beside its codes, over bytes that hardly differ.
        #[test]
        fn queries_are_as_near_as_they_say(
            (low, high) in (0u8..=255).prop_flat_map(|low| (Just(low), low..=255)),
            query in prop::collection::vec((0u8..=255, prop_oneof![Just(0.0f32), -1e-4f32..1e-4, -0.5f32..0.5]), 1..60),
            (most, middle) in prop_oneof![Just((15u8, 128u8)), Just((64, 64))],
        ) {
            let base = Vectors::from_bytes(1, vec![low, high]).unwrap();
            let rounding = Rounding::new(&base, range(&base), most, middle).unwrap();
            let query: Vec<f32> = query.into_iter().map(|(whole, part)| f32::from(whole) + part).collect();
            let mut codes = vec![0; query.len()];
            let error = rounding.query(Row::Floats(&query), &mut codes).error;
            let lost = |(&value, &code): (&f32, &u8)| {
                let code = f64::from(code.wrapping_add(rounding.middle as u8));
                (f64::from(value) - f64::from(low) - f64::from(rounding.steps[1]) * code).powi(2)
            };
            let exact = query.iter().zip(&codes).map(lost).sum::<f64>().sqrt();
            prop_assert!(exact <= error, "{exact} {error}");
        }

        /// A row may be out only if it is farther than the limit says, however the values lie on the grids.
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
            let scaled = |values: &[f32]| values.iter().map(|value| value * 10f32.powi(power) + offset).collect::<Vec<_>>();
            let (row, query) = (scaled(&base), scaled(&query));
            let base = Vectors::from_floats(dim, row.clone()).unwrap();
            // `None` where the offset has swallowed the values.
            if let Some(rounding) = Rounding::new(&base, range(&base), most, middle) {
                let (mut row_codes, mut query_codes) = (vec![0; dim], vec![0; dim]);
                let rounded_row = rounding.row(Row::Floats(&row), &mut row_codes);
                let rounded_query = rounding.query(Row::Floats(&query), &mut query_codes);
                let product: i32 =
                    row_codes.iter().zip(&query_codes).map(|(&x, &q)| i32::from(x) * i32::from(q.cast_signed())).sum();
                let value = rounding.norm(rounded_row) - 2 * product;
                let exact = crate::distance::Metric::Euclidean.reduced(&query, &row);
                prop_assert!(value <= rounding.limit(exact, rounded_query, rounded_row.error));
                let (a, error) = (f64::from(rounding.steps[0]), rounded_row.error);
                prop_assert!(error <= (dim as f64).sqrt() * (0.5001 * a + 1e-5 * rounding.span), "{error}, steps of {a}");
            }
        }
    }
}
