//! Short float vectors ("sketches") whose distance bounds that of the long vectors from below:
//! searches compare sketches first and read few of the long vectors.
//!
//! The naive form, for squared Euclidean distance:
//!
//! ```text
//! for each row { out.push(Σ (queryᵢ − rowᵢ)²) }
//! ```
//!
//! A sum along one row needs its lanes folded at the end, which costs as much as a short row
//! itself. So trees keep their sketches in *groups* of [`LANES`] rows, turned on their side; each
//! register then holds one coordinate of many rows, and nothing has to be folded:
//!
//! ```text
//!                row 0   row 1   ...  row 15
//! coordinate 0     ·       ·             ·       − query[0], squared, added to 16 sums
//! coordinate 1     ·       ·             ·       − query[1], squared, added to the same sums
//! ...
//! ```
//!
//! Every few coordinates a group is looked at: once all its sums are beyond the limit, the rest
//! cannot bring one back, as terms are never negative.
//!
//! All kernels are written once, in the shape that compilers turn into SIMD, and compiled once more
//! for AVX2, those of groups for AVX-512 too. All forms add in the same order and agree to the last
//! bit. The sums are rounded; what that may err by is added to the bounds by their callers.

use super::Line;

/// Rows of a group: two AVX registers of eight `f32`.
pub(crate) const LANES: usize = 16;

dispatch! {
    /// Squared Euclidean distances of a sketch to each of the rows of `groups`, into `out` (a whole
    /// number of groups). Where a whole group is beyond `limit`, any values above it.
    #[inline]
    pub(crate) fn squared_euclidean_groups(
        query: &[f32],
        groups: &[f32],
        limit: f32,
        out: &mut Vec<f32>,
    ) = portable::squared_euclidean_groups;
    /// Manhattan distances, otherwise as [`squared_euclidean_groups`].
    #[inline]
    pub(crate) fn manhattan_groups(
        query: &[f32],
        groups: &[f32],
        limit: f32,
        out: &mut Vec<f32>,
    ) = portable::manhattan_groups;
}

// For AVX-512 the compiler made code of these that was as fast (`bounds`, `dot`) or slower by up to
// 40 % (`dot_f32` of 184 values on Zen 4): short sums have to be folded from wider registers.
dispatch! {
    /// Squared Euclidean distance of a sketch to each of those numbered `rows`, into `out`. Every
    /// sketch is as many lines as `query`.
    #[inline]
    pub(crate) fn bounds(
        query: &[Line<f32>],
        sketches: &[Line<f32>],
        rows: &[u32],
        out: &mut Vec<f32>,
    ) = portable::bounds, at most avx2;
    /// Squared Euclidean distance of two sketches.
    #[inline]
    pub(crate) fn squared_euclidean(a: &[f32], b: &[f32]) -> f32
        = portable::squared_euclidean, at most avx2;
    /// Manhattan distance of two sketches.
    #[inline]
    pub(crate) fn manhattan(a: &[f32], b: &[f32]) -> f32 = portable::manhattan, at most avx2;
    /// Σ aᵢ·bᵢ.
    #[inline]
    pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 = portable::dot, at most avx2;
    /// Σ aᵢ·bᵢ in `f32`.
    #[inline]
    pub(crate) fn dot_f32(a: &[f32], b: &[f32]) -> f32 = portable::dot_f32, at most avx2;
    /// Σ|aᵢ|.
    #[inline]
    pub(crate) fn manhattan_norm(a: &[f64]) -> f64 = portable::manhattan_norm, at most avx2;
    /// A row of bytes less the mean.
    #[inline]
    pub(crate) fn centre_bytes(row: &[u8], mean: &[f64]) -> Vec<f64>
        = portable::centre, at most avx2;
    /// A row of floats less the mean.
    #[inline]
    pub(crate) fn centre_floats(row: &[f32], mean: &[f64]) -> Vec<f64>
        = portable::centre, at most avx2;
}

/// √Σ aᵢ².
#[inline]
pub(crate) fn euclidean_norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

mod portable {
    use super::{LANES, Line};
    use crate::simd::{LINE_WORDS, fold_lanes, sum_in_lanes};

    /// Partial sums of a single distance or product: two AVX registers of `f32`, four of `f64`.
    const SUMS: usize = 16;

    /// Coordinates after which a group is looked at for whether it is beyond the limit as a whole.
    /// Fewer would stop earlier, more would look less often.
    const STEP: usize = 8;

    #[inline(always)]
    pub fn squared_euclidean_groups(query: &[f32], groups: &[f32], limit: f32, out: &mut Vec<f32>) {
        group_sums(query, groups, limit, out, |difference| {
            difference * difference
        });
    }

    #[inline(always)]
    pub fn manhattan_groups(query: &[f32], groups: &[f32], limit: f32, out: &mut Vec<f32>) {
        group_sums(query, groups, limit, out, f32::abs);
    }

    #[inline(always)]
    fn group_sums(
        query: &[f32],
        groups: &[f32],
        limit: f32,
        out: &mut Vec<f32>,
        term: impl Fn(f32) -> f32,
    ) {
        out.clear();
        // A group has `LANES` values for each coordinate of the query.
        for group in groups.chunks_exact(LANES * query.len()) {
            let mut sums = [0.0f32; LANES];
            for (query, values) in query.chunks(STEP).zip(group.chunks(STEP * LANES)) {
                for (&query, values) in query.iter().zip(values.chunks_exact(LANES)) {
                    for lane in 0..LANES {
                        sums[lane] += term(query - values[lane]);
                    }
                }
                // All lanes are compared, and the results are joined by `|`. `any` would stop at
                // the first that is inside. That is a branch a lane, which would keep this out of
                // SIMD.
                let inside = sums
                    .iter()
                    .fold(0u32, |inside, &sum| inside | u32::from(sum <= limit));
                // The sums so far are all above the limit, which is all that callers are promised
                // of such a group.
                if inside == 0 {
                    break;
                }
            }
            out.extend_from_slice(&sums);
        }
    }

    #[inline(always)]
    pub fn bounds(query: &[Line<f32>], sketches: &[Line<f32>], rows: &[u32], out: &mut Vec<f32>) {
        let width = query.len();
        out.clear();
        out.extend(rows.iter().map(|&row| {
            let sketch = &sketches[row as usize * width..][..width];
            // A sum for each place in a line, over all lines of the sketch.
            let mut sums = [0.0f32; LINE_WORDS];
            for (a, b) in query.iter().zip(sketch) {
                for (sum, (a, b)) in sums.iter_mut().zip(a.0.iter().zip(&b.0)) {
                    *sum += (a - b) * (a - b);
                }
            }
            fold_lanes(sums, |a, b| a + b)
        }));
    }

    #[inline(always)]
    pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum, a: f32, b: f32| sum + (a - b) * (a - b))
    }

    #[inline(always)]
    pub fn manhattan(a: &[f32], b: &[f32]) -> f32 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum: f32, a: f32, b: f32| sum + (a - b).abs())
    }

    #[inline(always)]
    pub fn dot(a: &[f64], b: &[f64]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum: f64, a: f64, b: f64| sum + a * b)
    }

    #[inline(always)]
    pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum: f32, a: f32, b: f32| sum + a * b)
    }

    #[inline(always)]
    pub fn manhattan_norm(a: &[f64]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, a, |sum: f64, a: f64, _: f64| sum + a.abs())
    }

    #[inline(always)]
    pub fn centre<T: Copy + Into<f64>>(row: &[T], mean: &[f64]) -> Vec<f64> {
        let pairs = row.iter().zip(mean);
        pairs.map(|(&value, mean)| value.into() - mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Groups of rows turned on their side, as the index keeps them.
    fn groups(rows: &[f32], width: usize) -> Vec<f32> {
        let count = (rows.len() / width).div_ceil(LANES);
        let mut groups = vec![0.0; count * LANES * width];
        for (row, values) in rows.chunks_exact(width).enumerate() {
            let group = row / LANES * LANES * width;
            for (coordinate, &value) in values.iter().enumerate() {
                groups[group + coordinate * LANES + row % LANES] = value;
            }
        }
        groups
    }

    /// Rows of small whole numbers, so that sums are exact in whatever order.
    fn rows() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (1usize..40, 1usize..50).prop_flat_map(|(width, count)| {
            let value = || (-50i8..50).prop_map(f32::from);
            (
                Just(width),
                prop::collection::vec(value(), width),
                prop::collection::vec(value(), width * count),
            )
        })
    }

    fn squares(a: &[f32], b: &[f32]) -> f32 {
        // A product is exact here. Rust does not promise that of `powi`: Miri changes its digits.
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    fn sizes(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
    }

    type Definition = fn(&[f32], &[f32]) -> f32;
    type Groups = fn(&[f32], &[f32], f32, &mut Vec<f32>);

    proptest! {
        #[test]
        fn groups_agree_with_the_definition((width, query, rows) in rows(), limit in 0f32..2e5) {
            let turned = groups(&rows, width);
            let forms: [(Groups, Definition); 4] = [
                (squared_euclidean_groups, squares),
                (portable::squared_euclidean_groups, squares),
                (manhattan_groups, sizes),
                (portable::manhattan_groups, sizes),
            ];
            for (distances, definition) in forms {
                for limit in [limit, limit / 50.0, f32::INFINITY] {
                    let mut found = vec![7.0];
                    distances(&query, &turned, limit, &mut found);
                    prop_assert_eq!(found.len(), turned.len() / width);
                    for (row, &found) in rows.chunks_exact(width).zip(&found) {
                        let expected = definition(&query, row);
                        // Beyond the limit any number beyond it will do.
                        prop_assert!(found == expected || found > limit && expected > limit);
                    }
                }
            }
        }

        #[test]
        fn pairs_agree_with_the_definition((width, query, rows) in rows()) {
            let row = &rows[..width];
            for form in [squared_euclidean, portable::squared_euclidean] {
                prop_assert_eq!(form(&query, row), squares(&query, row));
            }
            for form in [manhattan, portable::manhattan] {
                prop_assert_eq!(form(&query, row), sizes(&query, row));
            }
            let product: f32 = query.iter().zip(row).map(|(a, b)| a * b).sum();
            for form in [dot_f32, portable::dot_f32] {
                prop_assert_eq!(form(&query, row), product);
            }
            let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let (a, b) = (wide(&query), wide(row));
            for form in [dot, portable::dot] {
                prop_assert_eq!(form(&a, &b), f64::from(product));
            }
            for form in [manhattan_norm, portable::manhattan_norm] {
                prop_assert_eq!(form(&a), a.iter().map(|value| value.abs()).sum::<f64>());
            }
            let squares: f64 = a.iter().map(|value| value * value).sum();
            prop_assert_eq!(euclidean_norm(&a), squares.sqrt());

            let centred: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            prop_assert_eq!(centre_floats(&query, &b), &centred[..]);
            prop_assert_eq!(portable::centre(&query, &b), &centred[..]);
            let bytes: Vec<u8> = query.iter().map(|value| value.abs() as u8).collect();
            let centred: Vec<f64> = bytes.iter().zip(&b).map(|(&a, b)| f64::from(a) - b).collect();
            prop_assert_eq!(centre_bytes(&bytes, &b), &centred[..]);
            prop_assert_eq!(portable::centre(&bytes, &b), &centred[..]);
        }

        #[test]
        fn chosen_rows_agree_with_the_definition((width, query, rows) in rows()) {
            let lines = |values: &[f32]| -> Vec<Line<f32>> {
                let chunks = values.chunks(16);
                chunks.map(|chunk| {
                    let mut line = Line::default();
                    line.0[..chunk.len()].copy_from_slice(chunk);
                    line
                }).collect()
            };
            let sketches: Vec<Line<f32>> = rows.chunks_exact(width).flat_map(lines).collect();
            let chosen: Vec<u32> = (0..(rows.len() / width) as u32).rev().step_by(2).collect();
            let expected: Vec<f32> = chosen
                .iter()
                .map(|&row| squares(&query, &rows[row as usize * width..][..width]))
                .collect();
            for form in [bounds, portable::bounds] {
                let mut found = vec![7.0];
                form(&lines(&query), &sketches, &chosen, &mut found);
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
