//! A query, shifted, rotated and coded as the points of the file are.

use super::coder::Coder;
use super::layout::File;
use crate::simd::matvec;
use crate::simd::pairwise::gamma;
use crate::simd::va_codes::{Sought, WIDTH};
use crate::vectors::Row;

/// Length of the longest code of a query. It, the layout's RADIUS and COARSEST, added and squared,
/// stay below 2³¹.
const FARTHEST: f64 = 30_000.0;
const _: () = {
    let sum = FARTHEST + super::layout::RADIUS + super::layout::COARSEST;
    assert!(sum * sum < i32::MAX as f64 + 1.0);
};

/// A query, coded as far as it is needed: its head always, its segments one by one.
#[derive(Debug, Default)]
pub(super) struct QueryCode {
    /// s·(q − µ).
    shifted: Vec<f32>,
    /// The components of the stage at hand.
    rotated: Vec<f32>,
    coder: Coder,
    pub head: Vec<[i16; 2]>,
    pub segments: Vec<Sought>,
    /// E′ of each stage that is coded.
    pub errors: Vec<f64>,
    /// Components that were computed.
    pub components: usize,
}

impl QueryCode {
    /// Codes the head of a query, or returns `None` if it is too far away from the base for 16
    /// bits.
    pub(super) fn begin(&mut self, file: &File, row: Row<'_>) -> Option<()> {
        self.errors.clear();
        self.segments.clear();
        self.components = 0;
        let squared_length = self.shift(file, row);
        let length = squared_length.sqrt();
        // NaN where f64 overflowed.
        if length.is_nan() || length > FARTHEST {
            return None;
        }
        self.coder = Coder::new(squared_length, file.epsilon, arithmetic_error(file, length));
        self.encode_head(file)
    }

    /// Writes s·(q − µ) and returns its squared length.
    fn shift(&mut self, file: &File, row: Row<'_>) -> f64 {
        self.shifted.resize(file.mean.len(), 0.0);
        match row {
            Row::Bytes(row) => shift(row, &file.mean, file.scale, &mut self.shifted),
            Row::Floats(row) => shift(row, &file.mean, file.scale, &mut self.shifted),
        }
    }

    fn encode_head(&mut self, file: &File) -> Option<()> {
        self.rotate(file, 0);
        let pairs = file.plan.pairs();
        self.head.clear();
        self.head.resize(pairs, [0; 2]);
        for (code, &value) in self.head.as_flattened_mut().iter_mut().zip(&self.rotated) {
            *code = self.coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = self.coder.rest();
        self.head[pairs - 1][0] = rest;
        self.errors.push(error);
        error.is_finite().then_some(())
    }

    /// Codes the next segment.
    pub(super) fn encode_segment(&mut self, file: &File) {
        let stage = self.errors.len();
        self.rotate(file, stage);
        let mut sought = Sought::default();
        sought.steps[..WIDTH].copy_from_slice(&file.steps[stage - 1]);
        for (out, &value) in sought.values.iter_mut().zip(&self.rotated) {
            *out = self.coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = self.coder.rest();
        sought.rest = rest;
        self.segments.push(sought);
        self.errors.push(error);
    }

    /// Computes the components that a stage adds.
    fn rotate(&mut self, file: &File, stage: usize) {
        let dim = file.mean.len();
        let rows = file.components(stage);
        self.components += rows.len();
        self.rotated.resize(rows.len(), 0.0);
        let rotation = &file.rotation[rows.start * dim..rows.end * dim];
        matvec::product(rotation, &self.shifted, &mut self.rotated);
    }
}

/// How far the computed components of a query of this length can be from the true ones, together: a
/// distance.
fn arithmetic_error(file: &File, length: f64) -> f64 {
    let dim = file.mean.len();
    let components = file.plan.components().min(dim);
    // The shifted query is rounded to f32 by the share u, and so is the rotation, whose Frobenius
    // norm is the root of its number of rows. Then there is the product's own rounding; the last
    // term is for what underflows.
    let u = f64::from(f32::EPSILON) / 2.0;
    let root = (components as f64).sqrt();
    ((gamma(matvec::roundings(dim)) + 2.0 * u) * root + 2.0 * u) * 1.001 * length + 1e-30
}

/// Writes s·(query − µ) and returns its squared length, from eight partial sums.
fn shift<T: Copy + Into<f64>>(query: &[T], mean: &[f64], scale: f64, out: &mut [f32]) -> f64 {
    let mut squares = [0.0; 8];
    for ((out, query), mean) in out.chunks_mut(8).zip(query.chunks(8)).zip(mean.chunks(8)) {
        for (((out, &value), mean), square) in out.iter_mut().zip(query).zip(mean).zip(&mut squares)
        {
            let shifted = (value.into() - mean) * scale;
            *square += shifted * shifted;
            *out = shifted as f32;
        }
    }
    squares.iter().sum()
}
