//! A matrix of floats times a vector: the rotation of one query.
//!
//! The naive form:
//!
//! ```text
//! for each row { out.push(Σ rowᵢ·vectorᵢ) }
//! ```
//!
//! Two things make it fast. Each sum is kept as [`LANES`] partial sums, which are registers, and
//! folded at the end. And [`ROWS`] rows are multiplied at once, so that the vector is loaded once
//! for all of them:
//!
//! ```text
//!           16 values   16 values   ...
//! vector    ·········   ·········         loaded once
//! row 0     ×········   ×········         added to 16 sums of row 0
//! row 1     ×········   ×········         added to 16 sums of row 1
//! row 2     ×········   ×········         ...
//! row 3     ×········   ×········
//! ```
//!
//! The result is rounded. How often, and so by how much at most, is [`roundings`].

/// Partial sums of a product: value `i` goes to sum `i mod LANES`.
const LANES: usize = 16;
/// Rows that are multiplied at once: their sums are 8 of the 16 AVX registers.
const ROWS: usize = 4;

/// out = rows · vector, `rows` being row-major with the vector's length.
///
/// Each value goes through one rounding of its product at most, ⌈d/LANES⌉ of its partial sum
/// and 4 that join these: see [`roundings`].
///
/// # Panics
/// If `rows` does not have a row for each value of `out`.
pub(crate) fn product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * vector.len(), "a row for each value");
    unchecked_product(rows, vector, out);
}

dispatch! {
    /// [`product`] of what has been checked.
    fn unchecked_product(rows: &[f32], vector: &[f32], out: &mut [f32]);
}

/// The number n of roundings in [`product`]: the error of a value is at most
/// γₙ·‖row‖·‖vector‖ (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd
/// ed., §3.1).
pub(crate) fn roundings(dim: usize) -> usize {
    // One of the product, ⌈d/16⌉ of its partial sum, and 4 that join 16 sums.
    dim.div_ceil(LANES) + 5
}

mod portable {
    use super::{LANES, ROWS};
    use crate::simd::fold_lanes;

    pub fn unchecked_product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
        product_by(rows, vector, out, |sum, a, b| sum + a * b);
    }

    /// The product whose terms are added by `add`.
    #[inline(always)]
    pub fn product_by(
        rows: &[f32],
        vector: &[f32],
        out: &mut [f32],
        add: impl Fn(f32, f32, f32) -> f32 + Copy,
    ) {
        let dim = vector.len();
        // Four rows at a time; up to three are left, which go one by one.
        let (fours, rest) = out.as_chunks_mut::<ROWS>();
        let (rows, last) = rows.split_at(fours.len() * ROWS * dim);
        for (out, rows) in fours.iter_mut().zip(rows.chunks_exact(ROWS * dim)) {
            let four = [
                &rows[..dim],
                &rows[dim..2 * dim],
                &rows[2 * dim..3 * dim],
                &rows[3 * dim..],
            ];
            *out = dots(four, vector, add);
        }
        for (out, row) in rest.iter_mut().zip(last.chunks_exact(dim)) {
            [*out] = dots([row], vector, add);
        }
    }

    /// The products of `N` rows and the vector.
    #[inline(always)]
    fn dots<const N: usize>(
        rows: [&[f32]; N],
        vector: &[f32],
        add: impl Fn(f32, f32, f32) -> f32,
    ) -> [f32; N] {
        let mut sums = [[0.0f32; LANES]; N];
        // The rows are cut to the length of the vector, so that the compiler knows that all have
        // equally many chunks.
        let (chunks, rest) = vector.as_chunks::<LANES>();
        let split = rows.map(|row| row[..vector.len()].as_chunks::<LANES>());
        // The vector is the outer loop: its 16 values are loaded once for all N rows.
        for (at, vector) in chunks.iter().enumerate() {
            for row in 0..N {
                let values = &split[row].0[at];
                for lane in 0..LANES {
                    sums[row][lane] = add(sums[row][lane], values[lane], vector[lane]);
                }
            }
        }
        for row in 0..N {
            // Fewer than 16 values are left; they go to the first sums.
            for (lane, (&a, &b)) in split[row].1.iter().zip(rest).enumerate() {
                sums[row][lane] = add(sums[row][lane], a, b);
            }
        }
        sums.map(|sums| fold_lanes(sums, |a, b| a + b))
    }
}

#[cfg(target_arch = "x86_64")]
use avx2 as avx512;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::portable;

    /// The portable source with fused multiplications and additions.
    #[target_feature(enable = "avx2,fma")]
    pub fn unchecked_product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
        portable::product_by(rows, vector, out, |sum, a, b| a.mul_add(b, sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::pairwise::gamma;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_within_its_bound(
            (rows, dim, values) in (1usize..10, 1usize..70).prop_flat_map(|(rows, dim)| {
                let values = prop::collection::vec(-1e3f32..1e3, (rows + 1) * dim);
                (Just(rows), Just(dim), values)
            })
        ) {
            let (vector, matrix) = values.split_at(dim);
            let (mut out, mut portable) = (vec![0.0; rows], vec![0.0; rows]);
            product(matrix, vector, &mut out);
            portable::unchecked_product(matrix, vector, &mut portable);
            for (row, values) in matrix.chunks(dim).enumerate() {
                let terms = values.iter().zip(vector).map(|(&a, &b)| f64::from(a) * f64::from(b));
                let (exact, size) = terms.fold((0.0, 0.0), |(exact, size), term| {
                    (exact + term, size + term.abs())
                });
                let bound = gamma(roundings(dim)) * size;
                prop_assert!((f64::from(out[row]) - exact).abs() <= bound);
                prop_assert!((f64::from(portable[row]) - exact).abs() <= bound);
            }
        }
    }
}
