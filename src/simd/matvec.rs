//! A matrix of floats times a vector: the rotation of one query.

/// Partial sums of a product, value `i` in sum `i mod LANES`.
const LANES: usize = 16;
/// Rows that are multiplied at once, to load the vector once for all of them.
const ROWS: usize = 4;

/// out = rows · vector, `rows` being row-major with the vector's length.
///
/// Each value goes through one rounding of its product at most, ⌈d/LANES⌉ of its partial sum and 4 that join these: see
/// [`roundings`].
///
/// # Panics
/// If `rows` does not have a row for each value of `out`.
pub(crate) fn product(rows: &[f32], vector: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * vector.len(), "a row for each value");
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: AVX2 and FMA have just been found.
        return unsafe { fma(rows, vector, out) };
    }
    rows_of(rows, vector, out, |sum, a, b| sum + a * b);
}

/// The number n of roundings in [`product`]: the error of a value is at most γₙ·‖row‖·‖vector‖ (Higham, *Accuracy and
/// Stability of Numerical Algorithms*, 2nd ed., §3.1).
pub(crate) fn roundings(dim: usize) -> usize {
    dim.div_ceil(LANES) + 5
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma(rows: &[f32], vector: &[f32], out: &mut [f32]) {
    rows_of(rows, vector, out, |sum, a, b| a.mul_add(b, sum));
}

#[inline(always)]
fn rows_of(
    rows: &[f32],
    vector: &[f32],
    out: &mut [f32],
    add: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    let dim = vector.len();
    let (fours, rest) = out.as_chunks_mut::<ROWS>();
    let (rows, last) = rows.split_at(fours.len() * ROWS * dim);
    for (out, rows) in fours.iter_mut().zip(rows.chunks_exact(ROWS * dim)) {
        *out = dots(
            [
                &rows[..dim],
                &rows[dim..2 * dim],
                &rows[2 * dim..3 * dim],
                &rows[3 * dim..],
            ],
            vector,
            add,
        );
    }
    for (out, row) in rest.iter_mut().zip(last.chunks_exact(dim)) {
        [*out] = dots([row], vector, add);
    }
}

#[inline(always)]
fn dots<const N: usize>(
    rows: [&[f32]; N],
    vector: &[f32],
    add: impl Fn(f32, f32, f32) -> f32,
) -> [f32; N] {
    let mut sums = [[0.0f32; LANES]; N];
    let (chunks, rest) = vector.as_chunks::<LANES>();
    let split = rows.map(|row| row[..vector.len()].as_chunks::<LANES>());
    for (at, vector) in chunks.iter().enumerate() {
        for row in 0..N {
            let values = &split[row].0[at];
            for lane in 0..LANES {
                sums[row][lane] = add(sums[row][lane], values[lane], vector[lane]);
            }
        }
    }
    for row in 0..N {
        for (lane, (&a, &b)) in split[row].1.iter().zip(rest).enumerate() {
            sums[row][lane] = add(sums[row][lane], a, b);
        }
    }
    sums.map(|mut sums| {
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
            half /= 2;
        }
        sums[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_within_its_bound(
            (rows, dim, values) in (1usize..10, 1usize..70).prop_flat_map(|(rows, dim)| {
                (Just(rows), Just(dim), prop::collection::vec(-1e3f32..1e3, (rows + 1) * dim))
            })
        ) {
            let (vector, matrix) = values.split_at(dim);
            let (mut out, mut portable) = (vec![0.0; rows], vec![0.0; rows]);
            product(matrix, vector, &mut out);
            rows_of(matrix, vector, &mut portable, |sum, a, b| sum + a * b);
            for (row, values) in matrix.chunks(dim).enumerate() {
                let terms = || values.iter().zip(vector).map(|(&a, &b)| f64::from(a) * f64::from(b));
                let bound = crate::simd::pairwise::gamma(roundings(dim)) * terms().map(f64::abs).sum::<f64>();
                prop_assert!((f64::from(out[row]) - terms().sum::<f64>()).abs() <= bound);
                prop_assert!((f64::from(portable[row]) - terms().sum::<f64>()).abs() <= bound);
            }
        }
    }
}
