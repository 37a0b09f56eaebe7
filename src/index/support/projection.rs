//! [`Projection`]: the leading principal components of vectors and queries, and the length of what they leave out.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayViewMut2};
use rayon::prelude::*;

use crate::distance::Metric;
use crate::math::pca::{Pca, PcaOptions};
use crate::simd::graph_codes::{add_weighted_pairs, to_whole};
use crate::vectors::{Row, Vectors};

/// Coefficients are kept as multiples of 1/16,384. The rows of the map are of unit length, so that for a query of values up
/// to 2,047 a sum stays below 2¹⁴ · 2¹¹ · √d (Cauchy–Schwarz): no overflow up to d = 4,000, and in practice far beyond.
const COEFFICIENT: f64 = 16_384.0;
/// The kernel makes so many sums at once.
const LANES: usize = 64;
/// Rows projected in one matrix product.
const BLOCK: usize = 256;
/// From farther away than so many times the radius of the data only a query's direction counts.
const FARTHEST_QUERY: f64 = 1e3;

/// The map to principal components, in units in which the data are of about unit size.
#[derive(Debug)]
pub(crate) struct Projection {
    mean: Vec<f32>,
    /// Whether the mean is taken from a query before it is rounded. Not where the base is bytes: pixels then stay whole numbers, and
    /// black ones, which cost nothing, zero.
    centred: bool,
    /// Row i: coefficients of values 2i and 2i + 1 for each coordinate, alternating.
    pairs: Vec<i16>,
    /// What (what is subtracted − mean) maps to.
    offset: Vec<f64>,
    /// Units of the coordinates in a unit of the data.
    scale: f64,
    /// The longest row, in units of the coordinates.
    radius: f64,
}

/// A base, projected.
#[derive(Debug)]
pub(crate) struct Projected {
    /// n × components.
    pub coordinates: Vectors,
    /// The squared length of what the components leave out of each row.
    pub rests: Vec<f32>,
}

/// A query, projected, and what was needed for it.
#[derive(Debug, Default)]
pub(crate) struct ProjectedQuery {
    pub coordinates: Vec<f32>,
    /// The squared length of what the components leave out.
    pub rest: f32,
    centred: Vec<f32>,
    whole: Vec<i16>,
    sums: Vec<i32>,
}

impl Projection {
    /// Fits the map to the principal components numbered `order`, and applies it to the base, which is not empty.
    pub fn fit(base: &Vectors, order: &[usize], seed: u64) -> (Self, Projected) {
        let dim = base.dim();
        let pca = Pca::fit(
            base,
            &PcaOptions {
                seed,
                ..Default::default()
            },
        )
        .expect("the base is not empty");
        let map = pca.rotation().select(ndarray::Axis(0), order);
        // Rounded alike for rows and queries: far from the origin, a difference to another mean would be all there is.
        let mean: Vec<f32> = pca.mean().iter().map(|&value| value as f32).collect();
        let size = largest_difference(base, &mean);
        let scale = if size > 0.0 { size.recip() } else { 1.0 };
        let projected = project(base, &map.mapv(|value| value as f32), &mean, scale);
        let squared = |(row, &rest): (&[f32], &f32)| {
            row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() + f64::from(rest)
        };
        let rows = projected
            .coordinates
            .floats()
            .expect("coordinates are floats")
            .chunks_exact(order.len());
        let radius = rows
            .zip(&projected.rests)
            .map(squared)
            .fold(0.0, f64::max)
            .sqrt();

        let width = order.len().next_multiple_of(LANES);
        let mut pairs = vec![0i16; dim.div_ceil(2) * 2 * width];
        for (coordinate, row) in map.rows().into_iter().enumerate() {
            for (i, &value) in row.iter().enumerate() {
                pairs[(i / 2 * width + coordinate) * 2 + i % 2] =
                    (value * COEFFICIENT).round() as i16;
            }
        }
        let centred = base.bytes().is_none();
        let offset = if centred {
            vec![0.0; order.len()]
        } else {
            map.dot(&ArrayView1::from(&mean).mapv(f64::from))
                .mapv(|value| -value * scale)
                .to_vec()
        };
        (
            Self {
                mean,
                centred,
                pairs,
                offset,
                scale,
                radius,
            },
            projected,
        )
    }

    /// Units of the coordinates in a unit of the data.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Projects `query` into `out`. A query very far from the data is moved towards them.
    pub fn apply(&self, query: &[f32], out: &mut ProjectedQuery) {
        let ProjectedQuery {
            coordinates,
            rest,
            centred,
            whole,
            sums,
        } = out;
        let difference = |(&value, &mean): (&f32, &f32)| f64::from(value) - f64::from(mean);
        let values = if self.centred {
            centred.clear();
            centred.extend(
                query
                    .iter()
                    .zip(&self.mean)
                    .map(|pair| difference(pair).clamp(f32::MIN.into(), f32::MAX.into()) as f32),
            );
            &**centred
        } else {
            query
        };
        let unit = to_whole(values, whole);
        whole.resize(query.len().div_ceil(2) * 2, 0);
        sums.clear();
        sums.resize(self.offset.len().next_multiple_of(LANES), 0);
        add_weighted_pairs(sums, &self.pairs, whole);
        let per_sum = f64::from(unit) / COEFFICIENT * self.scale;
        let exact = || {
            sums.iter()
                .zip(&self.offset)
                .map(|(&sum, offset)| f64::from(sum) * per_sum + offset)
        };
        let kept: f64 = exact().map(|value| value * value).sum();
        let total = Metric::Euclidean.reduced(query, &self.mean) * self.scale.powi(2);
        let far = total.max(kept).sqrt() / (FARTHEST_QUERY * self.radius.max(f64::MIN_POSITIVE));
        let nearer = if far > 1.0 { far.recip() } else { 1.0 };
        coordinates.clear();
        coordinates.extend(exact().map(|value| (value * nearer) as f32));
        *rest = ((total - kept) * nearer * nearer).max(0.0) as f32;
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.mean) + size_of_val(&*self.pairs) + size_of_val(&*self.offset)
    }
}

/// The largest absolute difference of a value to its mean.
fn largest_difference(base: &Vectors, mean: &[f32]) -> f64 {
    let largest = |row: usize| {
        let pairs = |value: f64, &mean: &f32| (value - f64::from(mean)).abs();
        match base.row(row) {
            Row::Bytes(row) => row
                .iter()
                .zip(mean)
                .map(|(&value, mean)| pairs(value.into(), mean))
                .fold(0.0, f64::max),
            Row::Floats(row) => row
                .iter()
                .zip(mean)
                .map(|(&value, mean)| pairs(value.into(), mean))
                .fold(0.0, f64::max),
        }
    };
    (0..base.len())
        .into_par_iter()
        .map(largest)
        .reduce(|| 0.0, f64::max)
}

fn project(base: &Vectors, map: &Array2<f32>, mean: &[f32], scale: f64) -> Projected {
    let (dim, kept) = (base.dim(), map.nrows());
    let mut values = vec![0.0; base.len() * kept];
    let mut rests = vec![0.0; base.len()];
    let blocks = values
        .par_chunks_mut(BLOCK * kept)
        .zip(rests.par_chunks_mut(BLOCK));
    blocks.enumerate().for_each(|(block, (values, rests))| {
        let centre = |value: f64, mean: f32| ((value - f64::from(mean)) * scale) as f32;
        let mut centred = Vec::with_capacity(rests.len() * dim);
        for row in block * BLOCK..block * BLOCK + rests.len() {
            match base.row(row) {
                Row::Bytes(row) => centred.extend(
                    row.iter()
                        .zip(mean)
                        .map(|(&v, &mean)| centre(v.into(), mean)),
                ),
                Row::Floats(row) => centred.extend(
                    row.iter()
                        .zip(mean)
                        .map(|(&v, &mean)| centre(v.into(), mean)),
                ),
            }
        }
        let centred = Array2::from_shape_vec((rests.len(), dim), centred).expect("whole rows");
        let mut product =
            ArrayViewMut2::from_shape((rests.len(), kept), values).expect("whole rows");
        general_mat_mul(1.0, &centred, &map.t(), 0.0, &mut product);
        for ((rest, row), kept) in rests.iter_mut().zip(centred.rows()).zip(product.rows()) {
            *rest = (row.dot(&row) - kept.dot(&kept)).max(0.0);
        }
    });
    Projected {
        coordinates: Vectors::from_floats(kept, values).expect("scaled values are finite"),
        rests,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, rounded};

    /// Squared distances in all components, rests included, are the true ones.
    fn check(base: &Vectors, queries: &Vectors, tolerance: f64) {
        let order: Vec<usize> = (0..base.dim()).collect();
        let (projection, projected) = Projection::fit(base, &order, 0);
        let mut out = ProjectedQuery::default();
        for query in (0..queries.len()).map(|row| queries.row_to_floats(row)) {
            projection.apply(&query, &mut out);
            for row in 0..base.len() {
                let truth = Metric::Euclidean.reduced(&query, &base.row_to_floats(row));
                let coordinates = projected.coordinates.row_to_floats(row);
                let found = Metric::Euclidean.reduced(&out.coordinates, &coordinates)
                    / projection.scale().powi(2);
                assert!(
                    (found - truth).abs() <= tolerance * truth,
                    "{found} {truth}"
                );
            }
        }
    }

    #[test]
    fn all_components_keep_distances() {
        let (base, queries) = (clustered(200, 15, 1), clustered(20, 15, 2));
        check(&base, &queries, 0.02);
        check(&rounded(&base), &rounded(&queries), 0.01);
        check(&rounded(&base), &queries, 0.02);
        let scaled = |data: &Vectors, factor: f32, shift: f32| {
            let values: Vec<f32> = data
                .to_floats()
                .iter()
                .map(|value| value * factor + shift)
                .collect();
            Vectors::from_floats(data.dim(), values).unwrap()
        };
        for (factor, shift) in [(1e34, 0.0), (1e-36, 0.0), (1.0, 1e5)] {
            check(
                &scaled(&base, factor, shift),
                &scaled(&queries, factor, shift),
                0.02,
            );
        }
    }

    #[test]
    fn the_rest_is_what_the_components_leave_out() {
        let (base, queries) = (clustered(300, 40, 1), clustered(20, 40, 2));
        let (few, projected) = Projection::fit(&base, &[1, 0, 3], 0);
        let mean = Pca::fit(&base, &PcaOptions::default())
            .unwrap()
            .mean()
            .mapv(|value| value as f32)
            .to_vec();
        let total = |row: &[f32]| Metric::Euclidean.reduced(row, &mean) * few.scale().powi(2);
        let mut out = ProjectedQuery::default();
        for row in 0..20 {
            let kept = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            let base_total =
                kept(&projected.coordinates.row_to_floats(row)) + f64::from(projected.rests[row]);
            assert!((base_total - total(&base.row_to_floats(row))).abs() < 1e-4 * base_total);
            let query = queries.row_to_floats(row);
            few.apply(&query, &mut out);
            let query_total = kept(&out.coordinates) + f64::from(out.rest);
            assert!((query_total - total(&query)).abs() < 1e-4 * query_total);
        }
    }

    #[test]
    fn far_queries_keep_their_direction() {
        let base = clustered(300, 10, 1);
        let order: Vec<usize> = (0..10).collect();
        let (projection, _) = Projection::fit(&base, &order, 0);
        let mut out = ProjectedQuery::default();
        let mut directions = [1e7f32, 1e38].map(|far| {
            projection.apply(&[far; 10], &mut out);
            assert!(out.coordinates.iter().all(|value| value.is_finite()) && out.rest.is_finite());
            let length = out
                .coordinates
                .iter()
                .map(|value| value * value)
                .sum::<f32>()
                .sqrt();
            out.coordinates
                .iter()
                .map(|value| value / length)
                .collect::<Vec<_>>()
        });
        let [near, far] = &mut directions;
        assert!(near.iter().zip(far).all(|(a, b)| (*a - *b).abs() < 1e-3));
    }
}
