//! The leading eigenvectors of a covariance matrix, by the way that costs least.
//!
//! Of s rows less their mean, X (s × d), the covariance is C = XᵀX / s. There are three ways to
//! its eigenvectors:
//!
//! ```text
//! by covariance   C, d × d                        O(s·d² + d³)   few dimensions
//! by Gram matrix  G = X·Xᵀ, s × s: if G·u = λ·u,  O(s²·d + s³)   fewer rows than values
//!                 then C·Xᵀu = (λ/s)·Xᵀu
//! by subspace     random directions times C, a    O(s·d·m)       many of both, and m
//!                 few times: what has the most                   components are wanted
//!                 variance prevails
//! ```
//!
//! The first two give the eigenvectors to rounding. The third gives about the directions of the
//! largest variance: N. Halko, P. G. Martinsson and J. A. Tropp, *Finding Structure with
//! Randomness*, SIAM Review 53, 2011, algorithms 4.4 and 5.3. Whatever it misses, the directions
//! are orthonormal, so that what is computed from them stays valid.

use std::ops::Range;

use nalgebra::{DMatrix, Dyn, SymmetricEigen};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::orthonormal::orthonormalize;
use super::{BLOCK, centre, centred, for_each_stripe};
use crate::vectors::{Row, Vectors};

/// A matrix of at most this height and width is decomposed in full: 1,024 take two seconds, and the
/// time grows with the cube.
const SMALL: usize = 1_024;
/// The subspace has so many directions more than are wanted: Halko, Martinsson and Tropp, section
/// 4.2, recommend 5 or 10.
const MORE: usize = 10;
/// Below this share of the dimensions, one in so many, the subspace takes less time than the whole.
const FEW: usize = 4;
/// How often the directions are multiplied by the covariance. With 2 the largest error is mostly
/// within a few per cent of the least possible: ibid., section 10.4 and figure 7.5.
const PASSES: usize = 3;
/// Rows of a stripe: few enough to leave little above the diagonal, enough for a fast product.
const STRIPE: usize = 128;

/// The rows of which the components are wanted.
#[derive(Clone, Copy)]
pub(super) struct Sample<'a> {
    pub base: &'a Vectors,
    pub rows: &'a [usize],
    pub mean: ArrayView1<'a, f64>,
}

/// Orthonormal directions and the variance along each.
pub(super) struct Components {
    /// m × d.
    pub rotation: Array2<f64>,
    /// m values, descending.
    pub eigenvalues: Array1<f64>,
}

impl Sample<'_> {
    /// The `count` directions of the largest variance; random ones where there is none left.
    pub(super) fn components(self, count: usize, seed: u64) -> Components {
        let (len, dim) = (self.rows.len(), self.base.dim());
        let is_small = len.min(dim) <= SMALL;
        let mut found = if !is_small && (count + MORE) * FEW <= len.min(dim) {
            self.by_subspace(count, seed)
        } else if len < dim {
            self.by_gram(count, seed)
        } else {
            self.by_covariance(count)
        };
        // The sign of a direction is arbitrary. This convention makes it the same however it was
        // found.
        for mut row in found.rotation.rows_mut() {
            let larger = |a: f64, b: f64| if b.abs() > a.abs() { b } else { a };
            if row.iter().fold(0.0, |a, &b| larger(a, b)) < 0.0 {
                row.mapv_inplace(|value| -value);
            }
        }
        found
    }

    /// Σ‖x − mean‖² / s: the variance along all directions together.
    pub(super) fn variance(self) -> f64 {
        let squares: Vec<f64> = self
            .rows
            .par_chunks(BLOCK)
            .map(|rows| {
                let mut difference = vec![0.0; self.base.dim()];
                let mut sum = 0.0;
                for &row in rows {
                    centre(self.base.row(row), self.mean, &mut difference);
                    sum += difference.iter().map(|value| value * value).sum::<f64>();
                }
                sum
            })
            .collect();
        // In order, so that the threads make no difference.
        squares.into_iter().sum::<f64>() / self.rows.len() as f64
    }

    fn by_covariance(self, count: usize) -> Components {
        let Eigen { vectors, values } = eigenvectors(&self.covariance());
        Components {
            rotation: vectors.slice(s![..count, ..]).to_owned(),
            eigenvalues: values.slice(s![..count]).to_owned(),
        }
    }

    /// XᵀX / s: d × d, of which only the lower triangle and the diagonal are meaningful.
    ///
    /// The matrix is symmetric, so that half the work is enough. Each thread takes stripes of rows,
    /// and of each stripe only the columns up to its last row:
    ///
    /// ```text
    ///   ██ · · ·
    ///   ██ ██ · ·
    ///   ██ ██ ██ ·
    /// ```
    fn covariance(self) -> Array2<f64> {
        let mut covariance = Array2::<f64>::zeros((self.base.dim(), self.base.dim()));
        // A block of rows at a time adds to all stripes. 2,048 rows of 784 values in f64 are 13 MB;
        // all 10,000 would be 63.
        for rows in self.rows.chunks(4 * BLOCK) {
            let block = centred(self.base, rows, self.mean);
            for_each_stripe(&mut covariance, STRIPE, |start, mut out| {
                let end = start + out.nrows();
                // Rows start..end of Xᵀ·X, and of these only the columns up to `end`: what is
                // right of them is above the diagonal.
                let left = block.slice(s![.., start..end]);
                let right = block.slice(s![.., ..end]);
                let mut out = out.slice_mut(s![.., ..end]);
                general_mat_mul(1.0, &left.t(), &right, 1.0, &mut out);
            });
        }
        covariance / self.rows.len() as f64
    }

    fn by_gram(self, count: usize, seed: u64) -> Components {
        let (len, dim) = (self.rows.len(), self.base.dim());
        let mut gram = Array2::<f64>::zeros((len, len));
        self.for_each_column_block(|_, block| {
            for_each_stripe(&mut gram, STRIPE, |start, mut out| {
                let end = start + out.nrows();
                // Half of it is enough, as for the covariance.
                let (left, right) = (block.slice(s![start..end, ..]), block.slice(s![..end, ..]));
                let mut out = out.slice_mut(s![.., ..end]);
                general_mat_mul(1.0, &left, &right.t(), 1.0, &mut out);
            });
        });
        let Eigen { vectors, values } = eigenvectors(&gram);
        let found = count.min(len);
        let mut rotation = Array2::zeros((count, dim));
        self.for_each_column_block(|columns, block| {
            let mut out = rotation.slice_mut(s![..found, columns]);
            let vectors = vectors.slice(s![..found, ..]);
            general_mat_mul(1.0, &vectors, block, 0.0, &mut out);
        });
        // They are at right angles but for rounding, which counts where the variance is next to
        // nothing. Where there are fewer rows than components the others follow at random.
        orthonormalize(&mut rotation, seed);
        let mut eigenvalues = Array1::zeros(count);
        eigenvalues
            .slice_mut(s![..found])
            .assign(&(&values.slice(s![..found]) / len as f64));
        Components {
            rotation,
            eigenvalues,
        }
    }

    /// Calls `f` with some columns of X after the other, and which they are.
    fn for_each_column_block(self, mut f: impl FnMut(Range<usize>, &Array2<f64>)) {
        let dim = self.base.dim();
        let width = (VALUES / self.rows.len()).max(64);
        for start in (0..dim).step_by(width) {
            let columns = start..(start + width).min(dim);
            f(columns.clone(), &self.columns(columns));
        }
    }

    /// Some columns of X.
    fn columns(self, columns: Range<usize>) -> Array2<f64> {
        let mut out = Array2::zeros((self.rows.len(), columns.len()));
        let mean = self.mean.slice(s![columns.clone()]);
        for (mut out, &row) in out.rows_mut().into_iter().zip(self.rows) {
            let out = out.as_slice_mut().expect("made above, in row order");
            let row = match self.base.row(row) {
                Row::Bytes(row) => Row::Bytes(&row[columns.clone()]),
                Row::Floats(row) => Row::Floats(&row[columns.clone()]),
            };
            centre(row, mean, out);
        }
        out
    }

    fn by_subspace(self, count: usize, seed: u64) -> Components {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = (count + MORE, self.base.dim());
        let mut basis = Array2::from_shape_fn(shape, |_| rng.random_range(-1.0..1.0));
        for _ in 0..PASSES {
            // The products of all directions tend to the first component. Right angles keep them
            // apart.
            orthonormalize(&mut basis, seed);
            basis = self.times_covariance(&basis);
        }
        orthonormalize(&mut basis, seed);
        // The covariance within the subspace, and its axes there (Rayleigh–Ritz).
        let Eigen { vectors, values } = eigenvectors(&self.covariance_within(&basis));
        Components {
            rotation: vectors.slice(s![..count, ..]).dot(&basis),
            eigenvalues: values.slice(s![..count]).to_owned(),
        }
    }

    /// The rows of `basis` (m × d), each multiplied by the covariance times s.
    fn times_covariance(self, basis: &Array2<f64>) -> Array2<f64> {
        let mut product = Array2::zeros(basis.raw_dim());
        self.for_each_row_block(basis, |block, coordinates| {
            for_each_stripe(&mut product, BLOCK / 16, |start, mut out| {
                let coordinates = coordinates.slice(s![.., start..start + out.nrows()]);
                general_mat_mul(1.0, &coordinates.t(), block, 1.0, &mut out);
            });
        });
        product
    }

    /// The covariance of the coordinates along the rows of `basis` (m × d): m × m.
    fn covariance_within(self, basis: &Array2<f64>) -> Array2<f64> {
        let mut covariance = Array2::zeros((basis.nrows(), basis.nrows()));
        self.for_each_row_block(basis, |_, coordinates| {
            general_mat_mul(1.0, &coordinates.t(), coordinates, 1.0, &mut covariance);
        });
        covariance / self.rows.len() as f64
    }

    /// Calls `f` with some rows of X after the other, and their coordinates along the rows of
    /// `basis`.
    fn for_each_row_block(
        self,
        basis: &Array2<f64>,
        mut f: impl FnMut(&Array2<f64>, &Array2<f64>),
    ) {
        let height = (VALUES / self.base.dim()).max(64);
        for rows in self.rows.chunks(height) {
            let block = centred(self.base, rows, self.mean);
            let mut coordinates = Array2::zeros((rows.len(), basis.nrows()));
            for_each_stripe(&mut coordinates, 64, |start, mut out| {
                let rows = block.slice(s![start..start + out.nrows(), ..]);
                general_mat_mul(1.0, &rows, &basis.t(), 0.0, &mut out);
            });
            f(&block, &coordinates);
        }
    }
}

/// Values of X that are in memory at once: 8 MB.
const VALUES: usize = 1 << 20;

/// Eigenvectors, as rows, and eigenvalues, in descending order of the latter.
struct Eigen {
    vectors: Array2<f64>,
    values: Array1<f64>,
}

/// Of a symmetric matrix without negative eigenvalues, given by its lower triangle.
fn eigenvectors(matrix: &Array2<f64>) -> Eigen {
    let dim = matrix.nrows();
    // Only the lower triangle is filled: an entry above the diagonal is read from its mirror image.
    let matrix = DMatrix::from_fn(dim, dim, |row, column| {
        matrix[[row.max(column), row.min(column)]]
    });
    let (eigen, ridge) = decompose(&matrix);
    // nalgebra gives eigenvalues in no order. The sort is stable, so equal ones keep theirs.
    let mut order: Vec<usize> = (0..dim).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let mut vectors = Array2::zeros((dim, dim));
    let mut values = Array1::zeros(dim);
    for (component, &column) in order.iter().enumerate() {
        let vector = eigen.eigenvectors.column(column);
        for (out, &value) in vectors.row_mut(component).iter_mut().zip(vector.iter()) {
            *out = value;
        }
        // A variance is not negative. Rounding can make it so.
        values[component] = (eigen.eigenvalues[column] - ridge).max(0.0);
    }
    Eigen { vectors, values }
}

/// The eigenvectors of a symmetric matrix, as columns, and by how much the eigenvalues are too
/// large.
///
/// The QR algorithm takes about two sweeps for each eigenvalue. It can fail in two ways:
/// - It does not converge. Then it is run again with a coarser tolerance. The eigenvectors are a
///   product of rotations, and so are orthonormal at any tolerance.
/// - On a singular matrix its shifts divide zero by zero. Then a *ridge* is added: a multiple of
///   the identity, which leaves the eigenvectors as they are and makes all eigenvalues positive.
fn decompose(matrix: &DMatrix<f64>) -> (SymmetricEigen<f64, Dyn>, f64) {
    let dim = matrix.nrows();
    let mut tolerance = f64::EPSILON;
    let mut ridge = 0.0;
    loop {
        // First without a ridge, at the rounding of f64. After each failure the tolerance is 16
        // times as large, and the ridge is that part of the mean variance.
        let lifted = matrix + DMatrix::identity(dim, dim) * ridge;
        let eigen = SymmetricEigen::try_new(lifted, tolerance, 100 * dim);
        if let Some(eigen) = eigen
            // A shift of zero by zero gives NaN, which the algorithm does not report.
            && eigen.eigenvectors.iter().all(|value| value.is_finite())
        {
            return (eigen, ridge);
        }
        tolerance *= 16.0;
        ridge = matrix.trace() / dim as f64 * tolerance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::ArrayView2;

    /// Rows whose variance falls by a factor from each hidden direction to the next.
    fn rows(len: usize, dim: usize, factor: f64) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let shape = (len.min(dim), dim);
        let mut directions = Array2::from_shape_fn(shape, |_| rng.random_range(-1.0..1.0));
        orthonormalize(&mut directions, 1);
        let size = |i: usize| 100.0 * factor.powi(i as i32 / 2);
        let weights = Array2::from_shape_fn((len, shape.0), |(_, i)| {
            size(i) * rng.random_range(-1.0..1.0)
        });
        let values = weights.dot(&directions).mapv(|value| value as f32);
        Vectors::from_array(values.view()).unwrap()
    }

    fn with_sample<R>(base: &Vectors, f: impl FnOnce(Sample<'_>) -> R) -> R {
        let mean = super::super::mean(base);
        let rows: Vec<usize> = (0..base.len()).collect();
        f(Sample {
            base,
            rows: &rows,
            mean: mean.view(),
        })
    }

    fn check_orthonormal(rotation: ArrayView2<'_, f64>) {
        for ((i, j), value) in rotation.dot(&rotation.t()).indexed_iter() {
            let expected = f64::from(u8::from(i == j));
            assert!((value - expected).abs() < 1e-12, "components {i} and {j}");
        }
    }

    #[test]
    fn the_gram_matrix_gives_the_components_of_the_covariance() {
        for (len, dim) in [(20, 50), (49, 50), (1, 30), (2, 3)] {
            let base = rows(len, dim, 0.8);
            let (a, b) = with_sample(&base, |all| (all.by_covariance(dim), all.by_gram(dim, 1)));
            check_orthonormal(b.rotation.view());
            let total = a.eigenvalues.sum();
            for i in 0..dim {
                let difference = (a.eigenvalues[i] - b.eigenvalues[i]).abs();
                assert!(difference <= 1e-12 * total, "variance {i} of {len} × {dim}");
                // Where there is variance to tell a direction by.
                if a.eigenvalues[i] > 1e-6 * total {
                    let same = a.rotation.row(i).dot(&b.rotation.row(i)).abs();
                    assert!(same > 1.0 - 1e-6, "component {i} of {len} × {dim}: {same}");
                }
            }
        }
    }

    #[test]
    fn the_subspace_holds_nearly_as_much_variance_as_the_best() {
        // From a spectrum that falls fast to one that does not fall at all.
        for (factor, share) in [(0.5, 0.9999), (0.9, 0.999), (1.0, 0.9)] {
            let base = rows(400, 120, factor);
            let (best, found) =
                with_sample(&base, |all| (all.by_covariance(10), all.by_subspace(10, 1)));
            check_orthonormal(found.rotation.view());
            let (best, found) = (best.eigenvalues.sum(), found.eigenvalues.sum());
            assert!(
                found <= best * (1.0 + 1e-12) && found >= best * share,
                "{found} {best}"
            );
        }
    }

    #[test]
    fn all_rows_equal() {
        let base = Vectors::from_bytes(40, vec![7; 400]).unwrap();
        with_sample(&base, |all| {
            assert_eq!(all.variance(), 0.0);
            for found in [all.by_gram(12, 1), all.by_subspace(12, 1)] {
                check_orthonormal(found.rotation.view());
                assert!(found.eigenvalues.iter().all(|&value| value == 0.0));
            }
        });
    }
}
