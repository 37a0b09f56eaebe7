//! Principal component analysis: the rotation that puts the variance of the data into the first
//! coordinates.
//!
//! The naive way to compare two vectors takes all d coordinates, 784 for an image. After a rotation
//! into the principal components, most of the distance is in the first few dozen:
//!
//! ```text
//!   before              after: x' = R (x - mean)
//!        . .  /
//!      . ./. .          .  . .  . . .  .
//!     ./ . .         ---.--.--.--.--.---.--->  component 1: the direction of largest variance
//!    /. .                 .  .  . .  .
//! ```
//!
//! A rotation keeps Euclidean distances, and leaving coordinates out only shortens them. So the
//! distance in the first m components never exceeds the true one: a lower bound, which an exact
//! search can filter by (the VA+-file). It is also a good coordinate system for trees, whose splits
//! would otherwise fall on coordinates that carry nothing.
//!
//! The components are the eigenvectors of the covariance matrix. Source: I. T. Jolliffe, *Principal
//! Component Analysis*, 2nd ed., Springer 2002, chapters 1–3.

mod decompose;
mod orthonormal;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

use self::decompose::{Components, Sample};
use super::add_row;
use crate::vectors::{Row, Vectors};

/// Why there are no principal components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PcaError {
    /// There is no row to find them from.
    #[error("principal components need at least one vector")]
    Empty,
    /// [`PcaOptions::max_rows`] is zero.
    #[error("max_rows is 0; expected at least 1")]
    NoRows,
}

/// Rows that a block of a matrix product takes at once. Fewer would leave the product short of
/// work; more would need a larger copy in f64 (512 rows of 784 values are 3.2 MB).
const BLOCK: usize = 512;

/// What [`Pca::fit`] finds, and from what.
#[derive(Debug, Clone, PartialEq)]
pub struct PcaOptions {
    /// Rows from which the covariance is estimated, drawn without replacement; all rows if there
    /// are no more. Every sample gives a *valid* rotation. A larger one gathers the variance
    /// better.
    pub max_rows: usize,
    /// How many components are wanted, at most d: those of the largest variance. Few of them take
    /// far less time and memory where there are thousands of dimensions. By default all d.
    pub components: usize,
    /// Seed of the draw, and of the directions that are drawn at random.
    pub seed: u64,
}

impl Default for PcaOptions {
    fn default() -> Self {
        Self {
            max_rows: 10_000,
            components: usize::MAX,
            seed: 0,
        }
    }
}

/// The principal components of a set of vectors: m orthonormal directions of the d dimensions, in
/// descending order of variance. All d are a basis.
#[derive(Debug, Clone)]
pub struct Pca {
    mean: Array1<f64>,
    rotation: Array2<f64>,
    eigenvalues: Array1<f64>,
    variance: f64,
    orthonormality_error: f64,
}

impl Pca {
    /// Finds the mean (over all rows) and the principal components (over a sample, see
    /// [`PcaOptions`]).
    ///
    /// From s rows it takes O(s·d² + d³); with fewer rows than dimensions O(s²·d + s³); and
    /// where both are above 1,024, and m components are less than a quarter of them, O(s·d·m):
    /// these are then about the first ones, and still orthonormal. Where the rows have no more
    /// variance, random directions at right angles to the others fill up. The result is the same on
    /// any number of threads.
    ///
    /// # Errors
    /// If `base` is empty or `max_rows` is zero.
    ///
    /// ```
    /// use fashion_knn::math::pca::{Pca, PcaOptions};
    /// use fashion_knn::vectors::Vectors;
    ///
    /// // Four points on the line y = x: all variance is in one direction.
    /// let points = vec![0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0];
    /// let base = Vectors::from_floats(2, points)?;
    /// let pca = Pca::fit(&base, &PcaOptions::default())?;
    /// assert_eq!(pca.components_for(0.999), 1);
    ///
    /// // From the mean (2, 2) to (5, 5) it is 3·√2 along that direction.
    /// let along = pca.project(base.row(3), 1);
    /// assert!((along[0] - 3.0 * 2f64.sqrt()).abs() < 1e-9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit(base: &Vectors, options: &PcaOptions) -> Result<Self, PcaError> {
        if base.is_empty() {
            return Err(PcaError::Empty);
        }
        if options.max_rows == 0 {
            return Err(PcaError::NoRows);
        }
        let mean = mean(base);
        // The mean is over all rows, since it costs little: O(n·d). The covariance costs d times
        // that and is taken over a sample.
        let rows = sample(base.len(), options);
        let sample = Sample {
            base,
            rows: &rows,
            mean: mean.view(),
        };
        let count = options.components.min(base.dim());
        let Components {
            rotation,
            eigenvalues,
        } = sample.components(count, options.seed);
        Ok(Self {
            variance: sample.variance(),
            orthonormality_error: departure_from_orthonormal(rotation.view()),
            mean,
            rotation,
            eigenvalues,
        })
    }

    /// d, the dimension of the vectors.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of all vectors: d values.
    #[must_use]
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// R, m × d. Row i is component i, of unit length. The value of largest magnitude in each row
    /// is positive.
    #[must_use]
    pub fn rotation(&self) -> ArrayView2<'_, f64> {
        self.rotation.view()
    }

    /// The variance along each component, descending: m values. (The sum of squares is divided by
    /// the number of rows, not by one less.)
    #[must_use]
    pub fn eigenvalues(&self) -> ArrayView1<'_, f64> {
        self.eigenvalues.view()
    }

    /// ε ≥ ‖R·Rᵀ − I‖₂, measured: how far rounding leaves R from a rotation.
    ///
    /// For every v, and for any first m rows Rₘ of R, ‖Rₘ·v‖² ≤ (1 + ε)·‖v‖².
    #[must_use]
    pub fn orthonormality_error(&self) -> f64 {
        self.orthonormality_error
    }

    /// The smallest number of components that carry at least `share` (0 to 1) of the variance of
    /// all d dimensions, or m if these carry less.
    #[must_use]
    pub fn components_for(&self, share: f64) -> usize {
        let wanted = share * self.variance;
        let mut carried = 0.0;
        for (count, value) in self.eigenvalues.iter().enumerate() {
            // Before component `count` is added, the first `count` carry `carried`.
            if carried < wanted {
                carried += value;
            } else {
                return count;
            }
        }
        self.eigenvalues.len()
    }

    /// The first `components` coordinates of one row or query (d values): Rₘ·(row − mean), in
    /// f64 arithmetic.
    ///
    /// # Panics
    /// If the row has another dimension, or more than m components are asked for.
    #[must_use]
    pub fn project(&self, row: Row<'_>, components: usize) -> Vec<f64> {
        let mut centred = vec![0.0; self.dim()];
        centre(row, self.mean.view(), &mut centred);
        let basis = self.rotation.slice(s![..components, ..]);
        basis.dot(&ArrayView1::from(&centred)).to_vec()
    }

    /// The share (0 to 1) of the variance of all d dimensions that the first `components` carry; 1
    /// where all rows are equal, as there is nothing that is not carried.
    ///
    /// # Panics
    /// If there are fewer than `components`.
    #[must_use]
    pub fn share_carried(&self, components: usize) -> f64 {
        let carried = self.eigenvalues.slice(s![..components]).sum();
        if self.variance == 0.0 {
            return 1.0;
        }
        carried / self.variance
    }

    /// All rows in the first `components` coordinates, as vectors to search in: n × `components`.
    ///
    /// # Panics
    /// As [`Pca::project`].
    #[must_use]
    pub fn reduce(&self, rows: &Vectors, components: usize) -> Vectors {
        let projected = self.project_all(rows, components);
        Vectors::from_array(projected.mapv(|value| value as f32).view())
            .expect("coordinates of finite values are finite")
    }

    /// The same for all rows: n × `components`, by blocked matrix products on the current rayon
    /// pool.
    ///
    /// # Panics
    /// As [`Pca::project`].
    #[must_use]
    pub fn project_all(&self, rows: &Vectors, components: usize) -> Array2<f64> {
        assert_eq!(rows.dim(), self.dim(), "vectors of one dimension");
        let mut out = Array2::zeros((rows.len(), components));
        for_each_stripe(&mut out, BLOCK, |start, out| {
            // The copy is made block by block: all rows in f64 would take eight times the memory of
            // bytes.
            let ids: Vec<usize> = (start..start + out.nrows()).collect();
            self.project_into(rows, &ids, out);
        });
        out
    }

    /// The first `components` coordinates of the rows with these numbers, on this thread.
    pub(crate) fn project_rows(
        &self,
        base: &Vectors,
        rows: &[usize],
        components: usize,
    ) -> Array2<f64> {
        let mut out = Array2::zeros((rows.len(), components));
        self.project_into(base, rows, out.view_mut());
        out
    }

    /// Writes as many coordinates of the rows with these numbers as `out` has columns.
    fn project_into(&self, base: &Vectors, rows: &[usize], mut out: ArrayViewMut2<'_, f64>) {
        let basis = self.rotation.slice(s![..out.ncols(), ..]);
        let rows = centred(base, rows, self.mean.view());
        general_mat_mul(1.0, &rows, &basis.t(), 0.0, &mut out);
    }
}

/// Calls `f` in parallel for each stripe of `height` rows of `matrix`, with the number of its first
/// row.
fn for_each_stripe(
    matrix: &mut Array2<f64>,
    height: usize,
    f: impl Fn(usize, ArrayViewMut2<'_, f64>) + Sync,
) {
    // Views of disjoint rows, so that threads can write to them at the same time. They are
    // collected because rayon needs to know how many there are.
    let stripes: Vec<ArrayViewMut2<'_, f64>> =
        matrix.axis_chunks_iter_mut(Axis(0), height).collect();
    stripes
        .into_par_iter()
        .enumerate()
        .for_each(|(stripe, rows)| f(stripe * height, rows));
}

/// Writes row − mean.
#[inline]
pub(crate) fn centre(row: Row<'_>, mean: ArrayView1<'_, f64>, out: &mut [f64]) {
    let mean = mean
        .as_slice()
        .expect("a mean is a whole array, not a strided view");
    assert_eq!(row.len(), mean.len(), "vectors of one dimension");
    row.sub_into(mean, out);
}

/// The rows with these numbers, less the mean.
fn centred(base: &Vectors, rows: &[usize], mean: ArrayView1<'_, f64>) -> Array2<f64> {
    let mut out = Array2::zeros((rows.len(), base.dim()));
    for (mut out, &row) in out.rows_mut().into_iter().zip(rows) {
        let out = out.as_slice_mut().expect("made above, in row order");
        centre(base.row(row), mean, out);
    }
    out
}

/// The mean of all rows: d values. The same on any number of threads.
pub(crate) fn mean(base: &Vectors) -> Array1<f64> {
    // Each sum is over a fixed number of rows, and the sums are added in order. So the rounding
    // does not depend on the threads.
    let sums: Vec<Array1<f64>> = (0..base.len().div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let mut sum = vec![0.0; base.dim()];
            for row in block * BLOCK..((block + 1) * BLOCK).min(base.len()) {
                add_row(&mut sum, base.row(row));
            }
            Array1::from(sum)
        })
        .collect();
    let mut total = Array1::zeros(base.dim());
    for sum in &sums {
        total += sum;
    }
    total / base.len() as f64
}

/// The numbers of the rows over which the covariance is taken, ascending.
fn sample(len: usize, options: &PcaOptions) -> Vec<usize> {
    if len <= options.max_rows {
        return (0..len).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut rows = rand::seq::index::sample(&mut rng, len, options.max_rows).into_vec();
    // In the order of memory, for speed. The set of rows is the same.
    rows.sort_unstable();
    rows
}

/// An upper bound of ‖R·Rᵀ − I‖₂: the Frobenius norm, and what its rounding may hide.
fn departure_from_orthonormal(rotation: ArrayView2<'_, f64>) -> f64 {
    let (count, dim) = rotation.dim();
    let squares: Vec<f64> = (0..count.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let start = block * BLOCK;
            let rows = rotation.slice(s![start..(start + BLOCK).min(count), ..]);
            // R·Rᵀ a block of rows at a time. The diagonal is to be 1: what is left after it is
            // taken off is the error.
            let mut gram = rows.dot(&rotation.t());
            for (row, mut values) in gram.rows_mut().into_iter().enumerate() {
                values[start + row] -= 1.0;
            }
            gram.iter().map(|value| value * value).sum()
        })
        .collect();
    // Each of the m² products is rounded by at most d·ε, since the absolute values of its terms
    // sum to at most one (both rows have length one). The Frobenius norm of m² such errors is
    // m·d·ε.
    let rounding = (count * dim) as f64 * f64::EPSILON;
    squares.into_iter().sum::<f64>().sqrt() + rounding
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::Rng;

    fn fit(base: &Vectors) -> Pca {
        Pca::fit(base, &PcaOptions::default()).unwrap()
    }

    #[test]
    fn a_plane_is_carried_by_two_components() {
        // Points of a plane in three dimensions, along its axes 3 and 4 apart: the variance is
        // 3² / 4 and 4² / 4.
        let corners = vec![0.0, 0.0, 5.0, 3.0, 0.0, 5.0, 0.0, 4.0, 5.0, 3.0, 4.0, 5.0];
        let base = Vectors::from_floats(3, corners).unwrap();
        let pca = fit(&base);
        assert!((pca.share_carried(1) - 16.0 / 25.0).abs() < 1e-12);
        assert!((pca.share_carried(2) - 1.0).abs() < 1e-12);
        assert_eq!(pca.share_carried(0), 0.0);
        let reduced = pca.reduce(&base, 1);
        assert_eq!((reduced.len(), reduced.dim()), (4, 1));
        let first = reduced.to_floats();
        assert!(first.iter().all(|value| (value.abs() - 2.0).abs() < 1e-5));
    }

    fn dot(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// Orthonormal to a rounding; variances descending and equal to those of the projected data;
    /// rows come back.
    fn check_definition(base: &Vectors) {
        let (pca, n, d) = (fit(base), base.len(), base.dim());
        for (i, a) in pca.rotation().rows().into_iter().enumerate() {
            for (j, b) in pca.rotation().rows().into_iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!(
                    (dot(a, b) - expected).abs() < 1e-12,
                    "components {i} and {j}"
                );
            }
        }
        assert!(
            pca.orthonormality_error() < 1e-11 * (1.0 + (d * d) as f64 / 1e3),
            "{}",
            pca.orthonormality_error()
        );
        assert!(
            pca.eigenvalues()
                .windows(2)
                .into_iter()
                .all(|pair| pair[0] >= pair[1])
        );

        let projected = pca.project_all(base, d);
        let total: f64 = pca.eigenvalues().sum();
        for (component, &eigenvalue) in pca.eigenvalues().iter().enumerate() {
            let variance = projected
                .column(component)
                .iter()
                .map(|v| v * v)
                .sum::<f64>()
                / n as f64;
            assert!(
                (variance - eigenvalue).abs() <= 1e-9 * total,
                "component {component}: {variance} {eigenvalue}"
            );
        }
        let scale = base
            .to_floats()
            .iter()
            .fold(0.0f64, |all, v| all.max(f64::from(v.abs())));
        for row in 0..n {
            let back = pca.rotation().t().dot(&projected.row(row)) + pca.mean();
            for (back, &value) in back.iter().zip(&base.row_to_floats(row)) {
                assert!(
                    (back - f64::from(value)).abs() <= 1e-11 * scale,
                    "row {row}: {back} {value}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn fits_the_definition((dim, values) in (1usize..12).prop_flat_map(|dim| {
            (Just(dim), prop::collection::vec(-1e3f32..1e3, dim..30 * dim))
        })) {
            let whole = values.len() / dim * dim;
            check_definition(&Vectors::from_floats(dim, values[..whole].to_vec()).unwrap());
        }

        #[test]
        fn fits_bytes((dim, values) in (1usize..40).prop_flat_map(|dim| {
            (Just(dim), prop::collection::vec(any::<u8>(), dim..20 * dim))
        })) {
            let whole = values.len() / dim * dim;
            check_definition(&Vectors::from_bytes(dim, values[..whole].to_vec()).unwrap());
        }
    }

    #[test]
    fn degenerate_data_still_give_a_rotation() {
        let check = |dim, values: Vec<f32>| {
            check_definition(&Vectors::from_floats(dim, values).unwrap());
        };
        // All equal.
        check(3, vec![7.0; 30]);
        check(3, vec![0.0; 30]);
        // One row.
        check(5, vec![1.0, -2.0, 3.0, 0.5, 9.0]);
        // One dimension.
        check(1, vec![1.0, 2.0, 4.0]);
        // Fewer rows than dimensions.
        check(4, vec![1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]);
        // Near the largest and the smallest f32.
        check(2, vec![3e38, -3e38, -3e38, 3e38, 1.0, 0.0]);
        check(2, vec![1e-45, 0.0, 3e-45, 1e-44]);
    }

    #[test]
    fn finds_the_subspace_that_the_data_lie_in() {
        // 3 hidden directions in 20 dimensions, standard deviations 10, 3 and 1, away from the
        // origin.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let hidden: Vec<Vec<f32>> = (0..3)
            .map(|_| (0..20).map(|_| rng.random_range(-1.0..1.0)).collect())
            .collect();
        let mut values = Vec::new();
        for _ in 0..2_000 {
            let weights = [10.0f32, 3.0, 1.0].map(|scale| scale * rng.random_range(-1.0..1.0f32));
            values.extend(
                (0..20).map(|i| 50.0 + (0..3).map(|h| weights[h] * hidden[h][i]).sum::<f32>()),
            );
        }
        let base = Vectors::from_floats(20, values).unwrap();
        let pca = fit(&base);
        let total: f64 = pca.eigenvalues().sum();
        assert!(pca.eigenvalues().iter().skip(3).sum::<f64>() < 1e-10 * total);
        assert_eq!(pca.components_for(1.0 - 1e-9), 3);
        assert_eq!(pca.components_for(0.0), 0);
        // Three components hold the distances of the twenty dimensions.
        let projected = pca.project_all(&base, 3);
        for (a, b) in [(0, 1), (2, 3), (700, 1_999)] {
            let true_square = crate::distance::Metric::Euclidean
                .reduced(&base.row_to_floats(a), &base.row_to_floats(b));
            let difference = &projected.row(a) - &projected.row(b);
            assert!(
                (dot(difference.view(), difference.view()) - true_square).abs()
                    < 1e-4 * true_square
            );
        }
    }

    #[test]
    fn a_few_components_of_many_dimensions() {
        // The time and memory of a 20,000 × 20,000 matrix would be minutes and gigabytes.
        let values = (0..30 * 20_000).map(|i: u64| (i * i % 977) as u8);
        let base = Vectors::from_bytes(20_000, values.collect::<Vec<_>>()).unwrap();
        let options = PcaOptions {
            components: 40,
            ..Default::default()
        };
        let pca = Pca::fit(&base, &options).unwrap();
        assert_eq!(pca.rotation().dim(), (40, 20_000));
        assert!(pca.orthonormality_error() < 1e-9);
        // 30 rows less their mean span 29 dimensions.
        assert!(pca.components_for(1.0 - 1e-9) <= 29);
        let projected = pca.project_all(&base, 29);
        for row in 0..30 {
            let centred = base.row(row).to_floats();
            let centred: Vec<f64> = centred
                .iter()
                .zip(pca.mean())
                .map(|(&v, m)| f64::from(v) - m)
                .collect();
            let length = centred.iter().map(|v| v * v).sum::<f64>();
            let kept = dot(projected.row(row), projected.row(row));
            assert!((kept - length).abs() < 1e-9 * length, "row {row}");
        }
    }

    #[test]
    fn a_row_projects_alike_alone_and_among_others() {
        let base = Vectors::from_bytes(
            4,
            (0..4_000u32)
                .map(|i| (i * i % 251) as u8)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let pca = fit(&base);
        let all = pca.project_all(&base, 2);
        assert_eq!(all.dim(), (1_000, 2));
        for row in [0, 511, 512, 999] {
            for (a, b) in pca.project(base.row(row), 2).iter().zip(all.row(row)) {
                assert!((a - b).abs() < 1e-10, "row {row}");
            }
        }
    }

    #[test]
    fn the_sample_and_the_threads_leave_the_rotation_as_it_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f32> = (0..3_000)
            .flat_map(|_| [9.0, 4.0, 1.0].map(|s| s * rng.random_range(-1.0..1.0f32)))
            .collect();
        let base = Vectors::from_floats(3, values).unwrap();
        let options = PcaOptions {
            max_rows: 1_000,
            seed: 3,
            ..Default::default()
        };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| Pca::fit(&base, &options).unwrap())
        };
        let (one, two, full) = (on(1), on(2), fit(&base));
        assert_eq!(
            (one.mean(), one.rotation(), one.eigenvalues()),
            (two.mean(), two.rotation(), two.eigenvalues())
        );
        for (a, b) in one
            .rotation()
            .rows()
            .into_iter()
            .zip(full.rotation().rows())
        {
            assert!(
                dot(a, b) > 0.99,
                "a third of the rows shows nearly the same axes"
            );
        }
        assert_eq!(
            Pca::fit(
                &base,
                &PcaOptions {
                    max_rows: 0,
                    ..Default::default()
                }
            )
            .unwrap_err(),
            PcaError::NoRows
        );
    }
}
