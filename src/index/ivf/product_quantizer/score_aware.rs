//! The score-aware loss of ScaNN, and codebooks trained for it (R. Guo, P. Sun, E. Lindgren, Q.
//! Geng, D. Simcha, F. Chern and S. Kumar, *Accelerating Large-Scale Inference with Anisotropic
//! Vector Quantization*, ICML 2020).
//!
//! A code makes an error e = v − v̂. What a search notices of it is ⟨q, e⟩. For the queries
//! that have v among their nearest, q points about the way of v: the part of e along v moves the
//! score, the part across it hardly.
//!
//! ```text
//!               • v̂
//!               |    the error across v: counts once
//! 0 ------------+-----• v ------> q
//!                    the error along v: counts η times
//! ```
//!
//! With u = v / ‖v‖, the loss of a vector is
//!
//! ```text
//! L(v, v̂) = ‖e‖² + (η − 1)·⟨e, u⟩²        η = (d − 1)·T² / (1 − T²)
//! ```
//!
//! d is the dimension and T the least cosine of v with the queries that matter. η = 1 is the plain
//! squared error.
//!
//! ## Training
//!
//! A round is one of Lloyd's: code all rows, then move each centroid to where the loss of its rows
//! is least. For the plain loss that is their mean. Here the subspaces hang together: ⟨e, u⟩ is
//! a sum over all of them. Let subscript j be the part of a vector in subspace j, and P what the
//! *other* subspaces add to ⟨e, u⟩. As a function of the centroid c, the loss of a row is, but
//! for a constant,
//!
//! ```text
//! ‖vⱼ − c‖² + (η − 1)·(P + ⟨vⱼ − c, uⱼ⟩)²
//! ```
//!
//! The gradient of the sum over the centroid's rows is zero where
//!
//! ```text
//! Σ (I + (η − 1)·uⱼuⱼᵀ) · c  =  Σ (vⱼ + (η − 1)·(P + ⟨vⱼ, uⱼ⟩)·uⱼ)
//!   -- matrix --              ---------- right side ----------
//! ```
//!
//! This is a linear equation of the subspace's dimension, which is small: [`NormalEquation`].
//!
//! What it is bad at: a round moves one centroid after the other, each for what the others are at
//! the moment. It ends in a minimum near the codebooks of k-means, not in the least of all.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::ProductQuantizer;
use crate::math::kmeans::group;

/// What an error counts along the vector, times what it counts across it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Loss {
    /// η of the paper; 1 is the plain squared error.
    pub parallel: f32,
}

impl Loss {
    /// The squared error.
    pub const PLAIN: Self = Self { parallel: 1.0 };

    /// The loss for queries whose cosine with the vector is at least `threshold`: theorem 3.3 and
    /// equation 5 of the paper. What asks for less than the plain loss is given that.
    pub fn score_aware(threshold: f64, dim: usize) -> Self {
        let square = threshold * threshold;
        // For a dimension of 1 or a threshold near 0 the formula gives less than 1: an error along
        // the vector would count less than one across it.
        let parallel = dim.saturating_sub(1) as f64 * square / (1.0 - square);
        Self {
            parallel: parallel.max(1.0) as f32,
        }
    }
}

/// The rows of a round, as the normal equations read them.
struct Round<'a> {
    rows: &'a [&'a [f32]],
    /// u = v / ‖v‖ for each row; zero where v is.
    directions: Vec<Vec<f64>>,
    /// n × m.
    codes: Vec<u8>,
    /// ⟨e, u⟩ of each row, over all subspaces.
    parallel_errors: Vec<f64>,
    /// η − 1.
    weight: f64,
}

/// One round of training: codes `rows`, then moves each centroid to where the loss of its rows is
/// least, the errors in the other subspaces being what they are at the moment.
pub(super) fn improve(quantizer: &mut ProductQuantizer, rows: &[&[f32]], loss: Loss) {
    let mut round = Round::begin(quantizer, rows, loss);
    let m = quantizer.m();
    for j in 0..m {
        // The codes stay as they were at the start of the round, while centroids move. Codes are n
        // × m, so those of one subspace stand m apart.
        let codes_of_subspace = round.codes.iter().skip(j).step_by(m);
        let labels: Vec<u32> = codes_of_subspace.map(|&c| c.into()).collect();
        let (starts, members) = group(&labels, quantizer.ksub());
        for c in 0..quantizer.ksub() {
            round.move_centroid(quantizer, j, c, &members[starts[c]..starts[c + 1]]);
        }
    }
    quantizer.update_norms();
}

impl<'a> Round<'a> {
    fn begin(quantizer: &ProductQuantizer, rows: &'a [&'a [f32]], loss: Loss) -> Self {
        let m = quantizer.m();
        let mut codes = vec![0u8; rows.len() * m];
        codes
            .par_chunks_exact_mut(m)
            .zip(rows)
            .for_each_init(Vec::new, |scratch, (code, row)| {
                quantizer.encode(row, loss, code, scratch);
            });
        let mut round = Self {
            rows,
            directions: rows.iter().map(|row| direction(row)).collect(),
            codes,
            parallel_errors: Vec::new(),
            weight: f64::from(loss.parallel) - 1.0,
        };
        // From all subspaces once. Later only the part of the subspace at hand is exchanged.
        round.parallel_errors = (0..rows.len())
            .map(|row| round.parallel_error(quantizer, row))
            .collect();
        round
    }

    /// Moves centroid `c` of subspace `j` for its `members`, and brings their errors up to date.
    fn move_centroid(
        &mut self,
        quantizer: &mut ProductQuantizer,
        j: usize,
        c: usize,
        members: &[u32],
    ) {
        let span = quantizer.span(j);
        let mut equation = NormalEquation::new(span.len(), members.len());
        for &row in members {
            let row = row as usize;
            // Less the part of this centroid, what remains is P, the error of the other subspaces.
            // The part of the moved centroid is added below.
            self.parallel_errors[row] -= self.parallel_error_in(quantizer, row, j, c);
            let part = self.rows[row][span.clone()].iter().map(|&v| f64::from(v));
            equation.accumulate(
                &DVector::from_iterator(span.len(), part),
                &DVector::from_column_slice(&self.directions[row][span.clone()]),
                self.parallel_errors[row],
                self.weight,
            );
        }
        // A centroid without rows stays where it is.
        if let Some(centroid) = equation.solve() {
            quantizer.set_centroid(j, c, centroid.as_slice());
        }
        for &row in members {
            let row = row as usize;
            self.parallel_errors[row] += self.parallel_error_in(quantizer, row, j, c);
        }
    }

    /// ⟨e, u⟩ of a row: the sum of its parts in all subspaces.
    fn parallel_error(&self, quantizer: &ProductQuantizer, row: usize) -> f64 {
        let code = &self.codes[row * quantizer.m()..][..quantizer.m()];
        let mut sum = 0.0;
        for (j, &c) in code.iter().enumerate() {
            for i in quantizer.span(j) {
                sum += self.parallel_error_at(quantizer, row, i, c.into());
            }
        }
        sum
    }

    /// The part of ⟨e, u⟩ that subspace `j` adds, where centroid `c` stands for the row.
    fn parallel_error_in(
        &self,
        quantizer: &ProductQuantizer,
        row: usize,
        j: usize,
        c: usize,
    ) -> f64 {
        let coordinates = quantizer.span(j);
        coordinates
            .map(|i| self.parallel_error_at(quantizer, row, i, c))
            .sum()
    }

    /// The part of coordinate `i`.
    fn parallel_error_at(
        &self,
        quantizer: &ProductQuantizer,
        row: usize,
        i: usize,
        c: usize,
    ) -> f64 {
        // In f64: errors are updated by differences again and again, and f32 would drift.
        let error = f64::from(self.rows[row][i]) - f64::from(quantizer.value(i, c));
        error * self.directions[row][i]
    }
}

/// row / ‖row‖, or zero.
fn direction(row: &[f32]) -> Vec<f64> {
    let squared: f64 = row.iter().map(|&v| f64::from(v).powi(2)).sum();
    let length = squared.sqrt();
    if length == 0.0 {
        return vec![0.0; row.len()];
    }
    row.iter().map(|&v| f64::from(v) / length).collect()
}

/// The linear equation whose solution is the best centroid of its rows: see the module.
struct NormalEquation {
    /// Σ (I + (η − 1)·uⱼuⱼᵀ).
    matrix: DMatrix<f64>,
    /// Σ (vⱼ + (η − 1)·(P + ⟨vⱼ, uⱼ⟩)·uⱼ).
    right_side: DVector<f64>,
}

impl NormalEquation {
    /// Of `rows` rows, which are then to be accumulated.
    fn new(dim: usize, rows: usize) -> Self {
        Self {
            // The sum of I over all rows, at once.
            matrix: DMatrix::identity(dim, dim) * rows as f64,
            right_side: DVector::zeros(dim),
        }
    }

    /// Adds a row: its part vⱼ, the part uⱼ of its direction, the error P that the other
    /// subspaces make along it, and η − 1.
    fn accumulate(
        &mut self,
        part: &DVector<f64>,
        direction: &DVector<f64>,
        other_errors: f64,
        weight: f64,
    ) {
        // ger adds weight · u·uᵀ.
        self.matrix.ger(weight, direction, direction, 1.0);
        let along = weight * (other_errors + part.dot(direction));
        self.right_side += part + direction * along;
    }

    /// The centroid, or nothing where there were no rows.
    fn solve(self) -> Option<DVector<f64>> {
        // The matrix is positive definite where there are rows, since η − 1 is not negative: the
        // identity alone is there once a row. Without rows it is zero, and has no Cholesky factors.
        let factors = self.matrix.cholesky()?;
        Some(factors.solve(&self.right_side))
    }
}
