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
            *out = dots(four, vector);
        }
        for (out, row) in rest.iter_mut().zip(last.chunks_exact(dim)) {
            [*out] = dots([row], vector);
        }
    }

    /// The products of `N` rows and the vector.
    fn dots<const N: usize>(rows: [&[f32]; N], vector: &[f32]) -> [f32; N] {
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
                    sums[row][lane] += values[lane] * vector[lane];
                }
            }
        }
        for row in 0..N {
            // Fewer than 16 values are left; they go to the first sums.
            for (lane, (&a, &b)) in split[row].1.iter().zip(rest).enumerate() {
                sums[row][lane] += a * b;
            }
        }
        sums.map(|sums| fold_lanes(sums, |a, b| a + b))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, ROWS};

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(values: &[f32; LANES]) -> [__m256; 2] {
        let start = values.as_ptr();
        // SAFETY: sixteen floats are two registers, unaligned.
        unsafe { [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))] }
    }

    /// Fewer than sixteen values, zeros after them.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_rest(values: &[f32]) -> [__m256; 2] {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let count = _mm256_set1_epi32(values.len() as i32);
        // The lanes below `count` in the first register, and those eight lanes farther in the
        // second.
        let first = _mm256_cmpgt_epi32(count, lanes);
        let second = _mm256_cmpgt_epi32(_mm256_sub_epi32(count, _mm256_set1_epi32(8)), lanes);
        let start = values.as_ptr();
        // SAFETY: a masked load touches the lanes of its mask alone, which the slice has. The
        // address of the second may lie outside, so it is made without `add`.
        unsafe {
            [
                _mm256_maskload_ps(start, first),
                _mm256_maskload_ps(start.wrapping_add(8), second),
            ]
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn unchecked_product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
        let dim = vector.len();
        let (fours, rest) = out.as_chunks_mut::<ROWS>();
        let (rows, last) = rows.split_at(fours.len() * ROWS * dim);
        for (out, rows) in fours.iter_mut().zip(rows.chunks_exact(ROWS * dim)) {
            *out = dots(rows, vector);
        }
        for (out, row) in rest.iter_mut().zip(last.chunks_exact(dim)) {
            [*out] = dots(row, vector);
        }
    }

    /// The products of `N` rows and the vector. The sums are 2 · `N` registers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn dots<const N: usize>(rows: &[f32], vector: &[f32]) -> [f32; N] {
        let dim = vector.len();
        let (vector, rest) = vector.as_chunks::<LANES>();
        let mut chunks = [&vector[..0]; N];
        for (chunks, row) in chunks.iter_mut().zip(rows.chunks_exact(dim)) {
            // As many chunks as the vector has, so that none is tested again in the loop.
            *chunks = &row.as_chunks().0[..vector.len()];
        }
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        for (at, vector) in vector.iter().enumerate() {
            let vector = load(vector);
            for (sums, chunks) in sums.iter_mut().zip(&chunks) {
                add(sums, load(&chunks[at]), vector);
            }
        }
        if !rest.is_empty() {
            let vector = load_rest(rest);
            for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(dim)) {
                add(sums, load_rest(&row[dim - rest.len()..]), vector);
            }
        }
        let mut out = [0.0; N];
        for (out, sums) in out.iter_mut().zip(sums) {
            *out = fold(_mm256_add_ps(sums[0], sums[1]));
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(sums: &mut [__m256; 2], row: [__m256; 2], vector: [__m256; 2]) {
        sums[0] = _mm256_fmadd_ps(row[0], vector[0], sums[0]);
        sums[1] = _mm256_fmadd_ps(row[1], vector[1], sums[1]);
    }

    /// As [`fold_lanes`](crate::simd::fold_lanes) does: half onto half.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn fold(sums: __m256) -> f32 {
        let sums = _mm_add_ps(
            _mm256_castps256_ps128(sums),
            _mm256_extractf128_ps::<1>(sums),
        );
        let sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
        _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LANES, avx2};

    /// Rows that are multiplied at once: each has its sums in one of the 32 registers. A sum waits
    /// four cycles for the one before, and two can begin in each.
    const ROWS: usize = 8;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(values: &[f32; LANES]) -> __m512 {
        // SAFETY: sixteen floats are a register, unaligned.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    /// Fewer than sixteen values, zeros after them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_rest(values: &[f32]) -> __m512 {
        let mask = (1 << values.len().min(LANES - 1)) - 1;
        // SAFETY: reads so many values alone, which the slice has.
        unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
    }

    /// To the bit as the AVX2 form.
    #[target_feature(enable = "avx2,fma,avx512f,avx512dq")]
    pub fn unchecked_product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
        let dim = vector.len();
        let (eights, rest) = out.as_chunks_mut::<ROWS>();
        let (rows, last) = rows.split_at(eights.len() * ROWS * dim);
        for (out, rows) in eights.iter_mut().zip(rows.chunks_exact(ROWS * dim)) {
            *out = dots(rows, vector);
        }
        for (out, row) in rest.iter_mut().zip(last.chunks_exact(dim)) {
            [*out] = dots(row, vector);
        }
    }

    /// The products of `N` rows and the vector.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512dq")]
    fn dots<const N: usize>(rows: &[f32], vector: &[f32]) -> [f32; N] {
        let dim = vector.len();
        let (vector, rest) = vector.as_chunks::<LANES>();
        let mut chunks = [&vector[..0]; N];
        for (chunks, row) in chunks.iter_mut().zip(rows.chunks_exact(dim)) {
            // As many chunks as the vector has, so that none is tested again in the loop.
            *chunks = &row.as_chunks().0[..vector.len()];
        }
        let mut sums = [_mm512_setzero_ps(); N];
        for (at, vector) in vector.iter().enumerate() {
            let vector = load(vector);
            for (sum, chunks) in sums.iter_mut().zip(&chunks) {
                *sum = _mm512_fmadd_ps(load(&chunks[at]), vector, *sum);
            }
        }
        if !rest.is_empty() {
            let vector = load_rest(rest);
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(dim)) {
                *sum = _mm512_fmadd_ps(load_rest(&row[dim - rest.len()..]), vector, *sum);
            }
        }
        let mut out = [0.0; N];
        for (out, sum) in out.iter_mut().zip(sums) {
            let high = _mm512_extractf32x8_ps::<1>(sum);
            *out = avx2::fold(_mm256_add_ps(_mm512_castps512_ps256(sum), high));
        }
        out
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
