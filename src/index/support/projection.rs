//! [`Projection`]: vectors and queries in the leading principal components, where codes are made.
//!
//! The naive form, for a query q, the mean μ of the data and a map whose rows rⱼ are m
//! directions:
//!
//! ```text
//! for each j in 0..m { coordinate[j] = ⟨rⱼ, q − μ⟩ }        m · d products of floats
//! rest = ‖q − μ‖² − Σ coordinate[j]²        what the m directions leave out
//! ```
//!
//! The rest costs one number a row and makes estimates better: the squared distance of two vectors
//! is about that of their coordinates plus both rests, for what is left out of either is nearly
//! at right angles to what is left out of the other.
//!
//! All rows of the base are projected by blocked matrix products. A query comes alone, and a matrix
//! of d × m floats (400 kB for 784 × 128) does not fit in a first-level cache. So a query is
//! multiplied in whole numbers: the map at 1/16,384, the query in at most 12 bits. A row of `pairs`
//! has what two values of the query need, so that one instruction multiplies both and adds them:
//!
//! ```text
//!           coordinate 0   coordinate 1       coordinate m − 1   filled up to 64
//! pairs[i]  r₀[2i] r₀[2i+1] r₁[2i] r₁[2i+1] … r[2i] r[2i+1]      0 0 0 0 …
//!           × q[2i], q[2i+1], added to sums[0], sums[1], …
//! ```
//!
//! Two black pixels side by side cost nothing: their row is not read. Half of Fashion-MNIST's
//! pixels are black, which is why bytes are not centred first; what the mean maps to is subtracted
//! after.
//!
//! What it is bad at: the query's 12 bits are relative to its largest value. Where one value is far
//! larger than all others, these are rounded coarsely. Codes choose candidates; where these are
//! then compared by their vectors, a bad rounding costs recall, never a wrong distance.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::distance::Metric;
use crate::index::parts::{PartError, expect, saved};
use crate::math::pca::{Pca, PcaOptions};
use crate::simd::graph_codes::{add_weighted_pairs, to_whole};
use crate::simd::lower_bound::dot_f32;
use crate::simd::pairwise::squared_euclidean_f32;
use crate::vectors::Vectors;

/// Coefficients are kept as multiples of 1/16,384.
const COEFFICIENT: f64 = 16_384.0;
/// So many products of a coefficient and a value are added as whole numbers. The rows of the map
/// are of unit length and the values at most 2,047, so that by Cauchy–Schwarz a sum is at most
/// √4,000 · 2¹⁴ · 2,047 = 2.12 · 10⁹, and 4 · 10⁶ more for rounded coefficients: below 2³¹.
const MOST_SUMMED: usize = 4_000;
/// The kernel makes so many sums at once.
const LANES: usize = 64;
/// Rows projected in one matrix product: 256 rows of 784 floats are 800 kB, a second-level cache.
const BLOCK: usize = 256;
/// From farther away than so many times the radius of the data only a query's direction counts:
/// all rows are then as good as equally far, and the coordinates stay far from overflow.
const FARTHEST_QUERY: f64 = 1e3;
/// Values of a query beyond this, in units of the coordinates, count as this: their squares are
/// still finite in f32.
const FARTHEST_VALUE: f64 = 1e15;
/// Below this, f32 arithmetic may have lost squares that are too small for it.
const LEAST_RELIABLE: f32 = 1e-30;

/// The map to principal components, in units in which the data are of about unit size.
#[derive(Debug)]
pub(crate) struct Projection {
    mean: Vec<f32>,
    /// Whether the mean is taken from a query before it is rounded. Not where the base is bytes:
    /// pixels then stay whole numbers, and black ones, which cost nothing, zero.
    centred: bool,
    /// Row i: coefficients of values 2i and 2i + 1 for each coordinate, alternating.
    pairs: Vec<i16>,
    /// What is added to a query's sums: what −mean maps to, or zero if the query is centred.
    offset: Vec<f32>,
    /// Units of the coordinates in a unit of the data.
    scale: f64,
    /// The longest row less the mean, in units of the coordinates.
    radius: f64,
}

/// The same map for rows of the base, many at a time: in floats, and not in whole numbers.
#[derive(Debug)]
pub(crate) struct RowMap {
    /// m × d.
    map: Array2<f32>,
    mean: Vec<f32>,
    /// Units of the coordinates in a unit of the data.
    scale: f64,
}

/// Rows of a base, projected.
#[derive(Debug)]
pub(crate) struct Projected {
    /// n × m, row-major.
    pub coordinates: Vec<f32>,
    /// The squared length of what the components leave out of each row.
    pub rests: Vec<f32>,
}

impl Projected {
    /// Multiplies the coordinates by `factor`.
    pub fn change_unit(&mut self, factor: f32) {
        for value in &mut self.coordinates {
            *value *= factor;
        }
        for rest in &mut self.rests {
            // A rest is a square, so it has the factor twice.
            *rest *= factor * factor;
        }
    }
}

/// A query, projected, and the buffers that it took.
#[derive(Debug, Default)]
pub(crate) struct ProjectedQuery {
    /// m values.
    pub coordinates: Vec<f32>,
    /// The squared length of what the components leave out.
    pub rest: f32,
    centred: Vec<f32>,
    whole: Vec<i16>,
    sums: Vec<i32>,
}

saved!(Projection {
    mean,
    centred,
    pairs,
    offset,
    scale,
    radius
});

impl Projection {
    /// Refuses a map that is not from `dim` dimensions to so many coordinates.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, dim: usize, coordinates: usize) -> Result<(), PartError> {
        let width = self.offset.len().next_multiple_of(LANES);
        let fits = self.mean.len() == dim
            && self.offset.len() == coordinates
            && self.pairs.len() == dim.div_ceil(2) * 2 * width;
        expect(fits, "projection", "a map of the vectors")
    }

    /// The first `count` principal components of the base, which is not empty.
    pub fn components(base: &Vectors, count: usize, seed: u64) -> Pca {
        let options = PcaOptions {
            components: count,
            seed,
            ..Default::default()
        };
        Pca::fit(base, &options).expect("the base is not empty")
    }

    /// The map of queries and that of rows, in units for `base`, which may be a part of the vectors
    /// that the components were found for.
    ///
    /// `map` chooses the m directions: from the principal components (one a row, greatest variance
    /// first) it makes the rows of the map (m × d), of unit length and at right angles.
    pub fn of(
        pca: &Pca,
        base: &Vectors,
        map: impl FnOnce(ArrayView2<'_, f64>) -> Array2<f64>,
    ) -> (Self, RowMap) {
        let map = map(pca.rotation());
        // One rounded mean for rows and queries: far from the origin, a difference between two
        // means would be all there is.
        let mean: Vec<f32> = pca.mean().iter().map(|&value| value as f32).collect();
        // No difference is then above 1, and a row's length is at most √d: f32 squares of it
        // neither overflow nor, but for the smallest, vanish. All rows equal: any scale will do.
        let (size, longest) = sizes(base, &mean);
        let scale = if size > 0.0 { size.recip() } else { 1.0 };

        // ⟨r, q − μ⟩ = ⟨r, q⟩ − ⟨r, μ⟩. For bytes the mean is taken off after the
        // product, so that pixels stay whole numbers. For floats it is taken off before: far from
        // the origin ⟨r, q⟩ would be large, and rounded coarsely.
        let centred = base.bytes().is_none();
        let offset = if centred {
            vec![0.0; map.nrows()]
        } else {
            let mapped_mean = map.dot(&ArrayView1::from(&mean).mapv(f64::from));
            mapped_mean
                .iter()
                .map(|value| (-value * scale) as f32)
                .collect()
        };
        let projection = Self {
            mean: mean.clone(),
            centred,
            pairs: pack_pairs(&map),
            offset,
            scale,
            radius: longest * scale,
        };
        let map = map.mapv(|value| value as f32);
        (projection, RowMap { map, mean, scale })
    }

    /// Multiplies all coordinates of queries by `factor` from here on.
    pub fn change_unit(&mut self, factor: f32) {
        for value in &mut self.offset {
            *value *= factor;
        }
        self.scale *= f64::from(factor);
        self.radius *= f64::from(factor);
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
        let values = if self.centred {
            // In units of the coordinates before they are rounded: data may be so small that f32
            // cannot hold a step of theirs. A query may be very far, but it stays finite.
            centred.clear();
            centred.extend(query.iter().zip(&self.mean).map(|(&value, &mean)| {
                let difference = (f64::from(value) - f64::from(mean)) * self.scale;
                difference.clamp(-FARTHEST_VALUE, FARTHEST_VALUE) as f32
            }));
            &**centred
        } else {
            query
        };
        // One instruction multiplies both whole numbers of a pair and adds the products; 12 bits
        // with the sign are few enough for the sums. `unit` is what one of them stands for. An odd
        // number of values is filled up with a zero, and the sums up to whole runs of 64.
        let unit = to_whole(values, whole);
        whole.resize(query.len().next_multiple_of(2), 0);

        // The sums are in units of 1/COEFFICIENT · unit. What the mean maps to is in `offset`
        // already in units of the coordinates.
        let total = self.squared_distance_to_mean(query);
        let nearer = self.share_of_the_way(total);
        let per_value = if self.centred { 1.0 } else { self.scale };
        let per_sum = (f64::from(unit) / COEFFICIENT * per_value * nearer) as f32;
        let per_offset = nearer as f32;
        coordinates.clear();
        coordinates.extend(self.offset.iter().map(|offset| offset * per_offset));
        let width = coordinates.len().next_multiple_of(LANES);
        let pairs = self.pairs.chunks(MOST_SUMMED * width);
        for (values, pairs) in whole.chunks(MOST_SUMMED).zip(pairs) {
            sums.clear();
            sums.resize(width, 0);
            add_weighted_pairs(sums, pairs, values);
            // The sums after the last coordinate are zeros of the padding; `zip` ends before them.
            for (coordinate, &sum) in coordinates.iter_mut().zip(&*sums) {
                *coordinate += sum as f32 * per_sum;
            }
        }
        // Pythagoras: the coordinates are of unit directions at right angles. Rounding can make
        // kept larger than the total.
        let kept = f64::from(dot_f32(coordinates, coordinates));
        *rest = (total * nearer * nearer - kept).max(0.0) as f32;
    }

    /// ‖query − mean‖² in units of the coordinates: by f32 arithmetic where that is
    /// reliable.
    fn squared_distance_to_mean(&self, query: &[f32]) -> f64 {
        // f32 arithmetic is the faster. f64 is for the queries whose squares overflow or vanish in
        // it.
        let fast = squared_euclidean_f32(query, &self.mean);
        let squared = if (LEAST_RELIABLE..f32::INFINITY).contains(&fast) {
            f64::from(fast)
        } else {
            Metric::Euclidean.reduced(query, &self.mean)
        };
        squared * self.scale * self.scale
    }

    /// By what to multiply a query at this squared distance from the mean: 1, but for very far
    /// ones.
    fn share_of_the_way(&self, total: f64) -> f64 {
        // Moved towards the mean, the query keeps its direction. The order of the rows by distance
        // hardly changes from so far away.
        let farthest = FARTHEST_QUERY * self.radius;
        if total <= farthest * farthest {
            1.0
        } else {
            farthest / total.sqrt()
        }
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.mean) + size_of_val(&*self.pairs) + size_of_val(&*self.offset)
    }
}

/// The map's coefficients as whole numbers, in the order in which a query is multiplied by them.
fn pack_pairs(map: &Array2<f64>) -> Vec<i16> {
    let width = map.nrows().next_multiple_of(LANES);
    let mut pairs = vec![0i16; map.ncols().div_ceil(2) * 2 * width];
    for ((coordinate, i), &value) in map.indexed_iter() {
        // Value i of a query is half of pair i / 2. Within a row the coordinates follow each other,
        // two coefficients each; those past the last coordinate stay zero. An odd d leaves the last
        // half of the last row zero too.
        let (row, half) = (i / 2, i % 2);
        pairs[(row * width + coordinate) * 2 + half] = (value * COEFFICIENT).round() as i16;
    }
    pairs
}

/// The largest absolute difference of a value to its mean, and the length of the longest row less
/// the mean.
fn sizes(base: &Vectors, mean: &[f32]) -> (f64, f64) {
    let of_row = |row: usize| {
        let (mut largest, mut squares) = (0.0f64, 0.0);
        base.row(row).zip_with(mean, |value, &mean| {
            let difference = f64::from(value) - f64::from(mean);
            largest = largest.max(difference.abs());
            squares += difference * difference;
        });
        (largest, squares)
    };
    // Maxima do not depend on the order, so neither do the results on the threads.
    let greater = |a: (f64, f64), b: (f64, f64)| (a.0.max(b.0), a.1.max(b.1));
    let rows = (0..base.len()).into_par_iter();
    let (largest, squares) = rows.map(of_row).reduce(|| (0.0, 0.0), greater);
    (largest, squares.sqrt())
}

impl RowMap {
    /// m, the number of coordinates.
    pub fn coordinates(&self) -> usize {
        self.map.nrows()
    }

    /// Some rows of the base, projected.
    pub fn project(&self, base: &Vectors, rows: &[usize]) -> Projected {
        let kept = self.map.nrows();
        let mut coordinates = vec![0.0; rows.len() * kept];
        let mut rests = vec![0.0; rows.len()];
        // Each block writes its own part of both arrays.
        coordinates
            .par_chunks_mut(BLOCK * kept)
            .zip(rests.par_chunks_mut(BLOCK))
            .zip(rows.par_chunks(BLOCK))
            .for_each(|((coordinates, rests), rows)| {
                project_block(&self.centred(base, rows), &self.map, coordinates, rests);
            });
        Projected { coordinates, rests }
    }

    /// Rows less the mean, in units of the coordinates.
    fn centred(&self, base: &Vectors, rows: &[usize]) -> Array2<f32> {
        let mut centred = Vec::with_capacity(rows.len() * base.dim());
        for &row in rows {
            base.row(row).zip_with(&self.mean, |value, &mean| {
                let difference = f64::from(value) - f64::from(mean);
                // The difference and the scale in f64: f32 values up to 3·10³⁸ could overflow
                // in f32, and the smallest vanish.
                centred.push((difference * self.scale) as f32);
            });
        }
        Array2::from_shape_vec((rows.len(), base.dim()), centred).expect("whole rows")
    }
}

/// Writes the coordinates and rests of a block of rows.
fn project_block(
    centred: &Array2<f32>,
    map: &Array2<f32>,
    coordinates: &mut [f32],
    rests: &mut [f32],
) {
    let mut product =
        ArrayViewMut2::from_shape((centred.nrows(), map.nrows()), coordinates).expect("whole rows");
    // Rows × d times d × m. The block fits in the second-level cache, and the map is read once
    // for 256 rows and not once for each.
    general_mat_mul(1.0, centred, &map.t(), 0.0, &mut product);
    for ((rest, row), kept) in rests.iter_mut().zip(centred.rows()).zip(product.rows()) {
        // What the components leave out, by Pythagoras, as for a query.
        *rest = (row.dot(&row) - kept.dot(&kept)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Axis;

    use super::*;
    use crate::index::support::test_data::{clustered, rounded};

    fn fit(base: &Vectors, order: &[usize]) -> (Projection, Projected) {
        let pca = Projection::components(base, order.iter().max().unwrap() + 1, 0);
        let (projection, map) = Projection::of(&pca, base, |all| all.select(Axis(0), order));
        let all: Vec<usize> = (0..base.len()).collect();
        (projection, map.project(base, &all))
    }

    /// Squared distances in all components, rests included, are the true ones.
    fn check(base: &Vectors, queries: &Vectors, tolerance: f64) {
        let order: Vec<usize> = (0..base.dim()).collect();
        let (projection, projected) = fit(base, &order);
        let mut out = ProjectedQuery::default();
        for query in (0..queries.len()).map(|row| queries.row_to_floats(row)) {
            projection.apply(&query, &mut out);
            for row in 0..base.len() {
                let truth = Metric::Euclidean.reduced(&query, &base.row_to_floats(row));
                let coordinates = &projected.coordinates[row * order.len()..][..order.len()];
                let found = Metric::Euclidean.reduced(&out.coordinates, coordinates)
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
        let (few, projected) = fit(&base, &[1, 0, 3]);
        let mean = Pca::fit(&base, &PcaOptions::default())
            .unwrap()
            .mean()
            .mapv(|value| value as f32)
            .to_vec();
        let total = |row: &[f32]| Metric::Euclidean.reduced(row, &mean) * few.scale().powi(2);
        let mut out = ProjectedQuery::default();
        for row in 0..20 {
            let kept = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            let coordinates = &projected.coordinates[row * 3..][..3];
            let base_total = kept(coordinates) + f64::from(projected.rests[row]);
            assert!((base_total - total(&base.row_to_floats(row))).abs() < 1e-4 * base_total);
            let query = queries.row_to_floats(row);
            few.apply(&query, &mut out);
            let query_total = kept(&out.coordinates) + f64::from(out.rest);
            assert!((query_total - total(&query)).abs() < 1e-4 * query_total);
        }
    }

    /// The first component is then (1, …, 1)/√d, and all its 8,192 products have one sign.
    #[test]
    fn wide_rows_that_differ_by_a_common_offset() {
        const DIM: usize = 8_192;
        let value = |i: usize| (i / DIM) as f32 + (i * i % 97) as f32 / 1_000.0;
        let base = Vectors::from_floats(DIM, (0..20 * DIM).map(value).collect::<Vec<_>>()).unwrap();
        let (projection, projected) = fit(&base, &[0]);
        let mut out = ProjectedQuery::default();
        for (row, &expected) in projected.coordinates.iter().enumerate() {
            projection.apply(&base.row_to_floats(row), &mut out);
            let error = (out.coordinates[0] - expected).abs();
            assert!(
                error <= 0.02 * expected.abs(),
                "{:?} {expected}",
                out.coordinates
            );
        }
    }

    #[test]
    fn another_unit_is_a_factor_in_all_that_comes_out() {
        let (floats, queries) = (clustered(300, 20, 1), clustered(5, 20, 2));
        for base in [rounded(&floats), floats] {
            let (before, projected) = fit(&base, &[0, 1, 2]);
            let (mut after, mut changed) = fit(&base, &[0, 1, 2]);
            after.change_unit(4.0);
            changed.change_unit(4.0);
            let fourfold = |values: &[f32]| values.iter().map(|v| 4.0 * v).collect::<Vec<_>>();
            assert_eq!(changed.coordinates, fourfold(&projected.coordinates));
            assert_eq!(changed.rests, fourfold(&fourfold(&projected.rests)));
            let (mut old, mut new) = (ProjectedQuery::default(), ProjectedQuery::default());
            for row in 0..5 {
                let query = queries.row_to_floats(row);
                before.apply(&query, &mut old);
                after.apply(&query, &mut new);
                assert_eq!(new.coordinates, fourfold(&old.coordinates));
                assert_eq!(new.rest, 16.0 * old.rest);
            }
        }
    }

    #[test]
    fn far_queries_keep_their_direction() {
        let base = clustered(300, 10, 1);
        let order: Vec<usize> = (0..10).collect();
        let (projection, _) = fit(&base, &order);
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
