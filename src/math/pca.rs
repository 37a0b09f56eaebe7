//! Principal component analysis: the rotation that puts the variance of the data into the first coordinates.
//!
//! A rotation keeps Euclidean distances, so that the distance in the first m components alone never exceeds the true
//! one. That makes it a filter for exact search (the VA+-file) and a good coordinate system for trees, whose splits
//! would otherwise fall on coordinates that carry nothing.
//!
//! Source: I. T. Jolliffe, *Principal Component Analysis*, 2nd ed., Springer 2002, chapters 1–3.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

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

/// Rows that a block of a matrix product takes at once.
const BLOCK: usize = 512;

/// How [`Pca::fit`] estimates the covariance.
#[derive(Debug, Clone, PartialEq)]
pub struct PcaOptions {
    /// The covariance is taken over this many rows, drawn without replacement, or over all if there are no more.
    /// Any orthonormal rotation is *valid*; the sample only decides how well it gathers the variance.
    pub max_rows: usize,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for PcaOptions {
    fn default() -> Self {
        Self {
            max_rows: 10_000,
            seed: 0,
        }
    }
}

/// The principal components of a set of vectors: a full orthonormal basis of the d dimensions, in descending variance.
#[derive(Debug, Clone)]
pub struct Pca {
    mean: Array1<f64>,
    rotation: Array2<f64>,
    eigenvalues: Array1<f64>,
    orthonormality_error: f64,
}

impl Pca {
    /// Finds the mean (over all rows) and the principal components (over a sample, see [`PcaOptions`]).
    ///
    /// Takes O(s·d²) for the covariance of s rows and O(d³) for its eigenvectors. The same on any number of threads.
    ///
    /// # Errors
    /// If `base` is empty or `max_rows` is zero.
    pub fn fit(base: &Vectors, options: &PcaOptions) -> Result<Self, PcaError> {
        if base.is_empty() {
            return Err(PcaError::Empty);
        }
        if options.max_rows == 0 {
            return Err(PcaError::NoRows);
        }
        let mean = mean(base);
        let rows = sample(base.len(), options);
        let covariance = covariance(base, &rows, mean.view());
        let (rotation, eigenvalues) = eigenvectors(covariance);
        let orthonormality_error = departure_from_orthonormal(rotation.view());
        Ok(Self {
            mean,
            rotation,
            eigenvalues,
            orthonormality_error,
        })
    }

    /// d, the dimension of the vectors and the number of components.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of all vectors: d values.
    #[must_use]
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// R, d × d: row i is component i, of unit length; the largest value of each is positive.
    #[must_use]
    pub fn rotation(&self) -> ArrayView2<'_, f64> {
        self.rotation.view()
    }

    /// The variance along each component (divided by the number of rows, not one less), descending: d values.
    #[must_use]
    pub fn eigenvalues(&self) -> ArrayView1<'_, f64> {
        self.eigenvalues.view()
    }

    /// ε ≥ ‖R·Rᵀ − I‖₂, measured: for every v, and for any first m rows Rₘ of R, ‖Rₘ·v‖² ≤ (1 + ε)·‖v‖².
    #[must_use]
    pub fn orthonormality_error(&self) -> f64 {
        self.orthonormality_error
    }

    /// The smallest number of components that carry at least `share` (0..=1) of the variance.
    #[must_use]
    pub fn components_for(&self, share: f64) -> usize {
        let wanted = share * self.eigenvalues.sum();
        let mut carried = 0.0;
        let before = self.eigenvalues.iter().take_while(|&&value| {
            let more = carried < wanted;
            carried += value;
            more
        });
        before.count()
    }

    /// The first `components` coordinates of one row or query (d values): Rₘ·(row − mean), in f64 arithmetic.
    ///
    /// # Panics
    /// If the row has another dimension, or more than d components are asked for.
    #[must_use]
    pub fn project(&self, row: Row<'_>, components: usize) -> Vec<f64> {
        let mut centred = Array1::zeros(self.dim());
        centre(
            row,
            self.mean.view(),
            centred.as_slice_mut().expect("contiguous"),
        );
        self.rotation
            .slice(s![..components, ..])
            .dot(&centred)
            .to_vec()
    }

    /// The same for all rows: n × `components`, by blocked matrix products on the current rayon pool.
    ///
    /// # Panics
    /// As [`Pca::project`].
    #[must_use]
    pub fn project_all(&self, rows: &Vectors, components: usize) -> Array2<f64> {
        assert_eq!(rows.dim(), self.dim(), "vectors of one dimension");
        let basis = self.rotation.slice(s![..components, ..]);
        let mut out = Array2::zeros((rows.len(), components));
        out.axis_chunks_iter_mut(Axis(0), BLOCK)
            .collect::<Vec<_>>()
            .into_par_iter()
            .enumerate()
            .for_each(|(block, mut out)| {
                let start = block * BLOCK;
                let ids: Vec<usize> = (start..start + out.nrows()).collect();
                general_mat_mul(
                    1.0,
                    &centred(rows, &ids, self.mean.view()),
                    &basis.t(),
                    0.0,
                    &mut out,
                );
            });
        out
    }
}

/// Writes row − mean.
#[inline]
pub(crate) fn centre(row: Row<'_>, mean: ArrayView1<'_, f64>, out: &mut [f64]) {
    let mean = mean.as_slice().expect("contiguous");
    match row {
        Row::Bytes(row) => {
            assert_eq!(row.len(), mean.len(), "vectors of one dimension");
            for ((out, &value), mean) in out.iter_mut().zip(row).zip(mean) {
                *out = f64::from(value) - mean;
            }
        }
        Row::Floats(row) => {
            assert_eq!(row.len(), mean.len(), "vectors of one dimension");
            for ((out, &value), mean) in out.iter_mut().zip(row).zip(mean) {
                *out = f64::from(value) - mean;
            }
        }
    }
}

/// The rows with these numbers, less the mean.
fn centred(base: &Vectors, rows: &[usize], mean: ArrayView1<'_, f64>) -> Array2<f64> {
    let mut out = Array2::zeros((rows.len(), base.dim()));
    for (mut out, &row) in out.rows_mut().into_iter().zip(rows) {
        centre(base.row(row), mean, out.as_slice_mut().expect("contiguous"));
    }
    out
}

pub(crate) fn mean(base: &Vectors) -> Array1<f64> {
    let dim = base.dim();
    // Sums of a fixed number of rows, added in order: the same whatever the threads.
    let sums: Vec<Array1<f64>> = (0..base.len())
        .collect::<Vec<_>>()
        .par_chunks(BLOCK)
        .map(|rows| {
            let mut sum = Array1::<f64>::zeros(dim);
            for &row in rows {
                match base.row(row) {
                    Row::Bytes(row) => sum
                        .iter_mut()
                        .zip(row)
                        .for_each(|(sum, &value)| *sum += f64::from(value)),
                    Row::Floats(row) => sum
                        .iter_mut()
                        .zip(row)
                        .for_each(|(sum, &value)| *sum += f64::from(value)),
                }
            }
            sum
        })
        .collect();
    sums.into_iter()
        .fold(Array1::zeros(dim), |all, sum| all + sum)
        / base.len() as f64
}

/// The numbers of the rows over which the covariance is taken, ascending.
fn sample(len: usize, options: &PcaOptions) -> Vec<usize> {
    if len <= options.max_rows {
        return (0..len).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut rows = rand::seq::index::sample(&mut rng, len, options.max_rows).into_vec();
    rows.sort_unstable();
    rows
}

/// The lower triangle, by stripes, of Σ(x − mean)(x − mean)ᵀ / s; what lies above it is not meaningful.
fn covariance(base: &Vectors, rows: &[usize], mean: ArrayView1<'_, f64>) -> Array2<f64> {
    const STRIPE: usize = 128;
    let dim = base.dim();
    let mut covariance = Array2::<f64>::zeros((dim, dim));
    for rows in rows.chunks(4 * BLOCK) {
        let block = centred(base, rows, mean);
        covariance
            .axis_chunks_iter_mut(Axis(0), STRIPE)
            .collect::<Vec<_>>()
            .into_par_iter()
            .enumerate()
            .for_each(|(stripe, mut out)| {
                let (start, end) = (stripe * STRIPE, stripe * STRIPE + out.nrows());
                let left = block.slice(s![.., start..end]);
                general_mat_mul(
                    1.0,
                    &left.t(),
                    &block.slice(s![.., ..end]),
                    1.0,
                    &mut out.slice_mut(s![.., ..end]),
                );
            });
    }
    covariance / rows.len() as f64
}

/// Eigenvectors as rows and eigenvalues of a symmetric matrix given by its lower triangle, descending.
fn eigenvectors(covariance: Array2<f64>) -> (Array2<f64>, Array1<f64>) {
    let dim = covariance.nrows();
    let matrix = DMatrix::from_fn(dim, dim, |row, column| {
        covariance[[row.max(column), row.min(column)]]
    });
    // The QR algorithm takes about two sweeps an eigenvalue; should one resist, a coarser tolerance lets it go. The
    // eigenvectors are a product of rotations, and so orthonormal, at any tolerance.
    // On singular matrices its shifts can divide zero by zero: a ridge, the same along every direction, leaves the
    // eigenvectors alone and lifts the zeros.
    let mut tolerance = f64::EPSILON;
    let mut ridge = 0.0;
    let eigen = loop {
        let lifted = &matrix + DMatrix::identity(dim, dim) * ridge;
        match SymmetricEigen::try_new(lifted, tolerance, 100 * dim) {
            Some(eigen) if eigen.eigenvectors.iter().all(|value| value.is_finite()) => break eigen,
            _ => {
                tolerance *= 16.0;
                ridge = matrix.trace() / dim as f64 * tolerance;
            }
        }
    };
    let mut order: Vec<usize> = (0..dim).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let mut rotation = Array2::zeros((dim, dim));
    for (mut row, &column) in rotation.rows_mut().into_iter().zip(&order) {
        let vector = eigen.eigenvectors.column(column);
        // An eigenvector has no sign; the convention makes it the same wherever it is computed.
        let sign = vector[vector.icamax()].signum();
        row.iter_mut()
            .zip(vector.iter())
            .for_each(|(out, value)| *out = sign * value);
    }
    // A variance is not negative, whatever rounding says.
    (
        rotation,
        order
            .iter()
            .map(|&i| (eigen.eigenvalues[i] - ridge).max(0.0))
            .collect(),
    )
}

/// An upper bound of ‖R·Rᵀ − I‖₂: the Frobenius norm.
fn departure_from_orthonormal(rotation: ArrayView2<'_, f64>) -> f64 {
    let dim = rotation.nrows();
    let squares: Vec<f64> = (0..dim.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let start = block * BLOCK;
            let mut gram = rotation
                .slice(s![start..(start + BLOCK).min(dim), ..])
                .dot(&rotation.t());
            for (row, mut values) in gram.rows_mut().into_iter().enumerate() {
                values[start + row] -= 1.0;
            }
            gram.iter().map(|value| value * value).sum()
        })
        .collect();
    // The d² products that measure it round too: by at most d·ε each, since their terms' absolute values sum to one.
    squares.into_iter().sum::<f64>().sqrt() + (dim * dim) as f64 * f64::EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::Rng;

    fn fit(base: &Vectors) -> Pca {
        Pca::fit(base, &PcaOptions::default()).unwrap()
    }

    fn dot(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// Orthonormal to a rounding; variances descending and equal to those of the projected data; rows come back.
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
        check_definition(&Vectors::from_floats(3, vec![7.0; 30]).unwrap()); // all equal
        check_definition(&Vectors::from_floats(3, vec![0.0; 30]).unwrap());
        check_definition(&Vectors::from_floats(5, vec![1.0, -2.0, 3.0, 0.5, 9.0]).unwrap()); // one row
        check_definition(&Vectors::from_floats(1, vec![1.0, 2.0, 4.0]).unwrap()); // one dimension
        check_definition(
            &Vectors::from_floats(4, vec![1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]).unwrap(),
        ); // n < d
        check_definition(
            &Vectors::from_floats(2, vec![3e38, -3e38, -3e38, 3e38, 1.0, 0.0]).unwrap(),
        ); // f32's limits
        check_definition(&Vectors::from_floats(2, vec![1e-45, 0.0, 3e-45, 1e-44]).unwrap()); // denormals
    }

    #[test]
    fn finds_the_subspace_that_the_data_lie_in() {
        // 3 hidden directions in 20 dimensions, standard deviations 10, 3 and 1, away from the origin.
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
                    seed: 0
                }
            )
            .unwrap_err(),
            PcaError::NoRows
        );
    }
}
