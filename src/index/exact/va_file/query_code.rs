//! A query, shifted, rotated and coded as the points of the file are.

use std::ops::Range;

use super::coder::Coder;
use super::layout::File;
use crate::simd::matvec;
use crate::simd::pairwise::gamma;
use crate::simd::va_codes::{Sought, WIDTH};
use crate::vectors::Row;

/// Length of the longest code of a query. A distance of codes is at most this, the layout's RADIUS
/// and its COARSEST together. Its square is kept in an i32, so that the sum has to stay below
/// √2³¹ ≈ 46,340. A query farther away is answered by a full scan.
pub(super) const FARTHEST: f64 = 30_000.0;
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
    /// The first components, as far as they were needed: those of the head, or of the cells.
    pub leading: Vec<f32>,
    /// What the computed components can be off by, together: a length.
    pub arithmetic: f64,
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
        // Lengths are in units of the codes, 1/scale.
        let squared_length = self.shift(file, row);
        let length = squared_length.sqrt();
        // NaN where f64 overflowed.
        if length.is_nan() || length > FARTHEST {
            return None;
        }
        self.arithmetic = arithmetic_error(file, length);
        self.coder = Coder::new(squared_length, file.epsilon, self.arithmetic);
        self.encode_head(file)
    }

    /// Writes s·(q − µ) and returns its squared length.
    fn shift(&mut self, file: &File, row: Row<'_>) -> f64 {
        self.shifted.resize(file.mean.len(), 0.0);
        // Bytes are widened value by value, without a copy of the row in floats.
        match row {
            Row::Bytes(row) => shift(row, &file.mean, file.scale, &mut self.shifted),
            Row::Floats(row) => shift(row, &file.mean, file.scale, &mut self.shifted),
        }
    }

    fn encode_head(&mut self, file: &File) -> Option<()> {
        // Zeros stay where the plan has more components than the data, as in the points' heads.
        self.rotate(file, file.components(0));
        self.leading.clone_from(&self.rotated);
        let pairs = file.plan.pairs();
        self.head.clear();
        self.head.resize(pairs, [0; 2]);
        // The query's codes are in steps of one, in the segments too. Only points are coded
        // coarser.
        for (code, &value) in self.head.as_flattened_mut().iter_mut().zip(&self.rotated) {
            *code = self.coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = self.coder.rest();
        self.head[pairs - 1][0] = rest;
        self.errors.push(error);
        // An error that is not finite would give no limit. The caller then scans.
        error.is_finite().then_some(())
    }

    /// Codes the next segment.
    pub(super) fn encode_segment(&mut self, file: &File) {
        // There is one error for the head and one for each segment so far. So their number is the
        // next stage.
        let stage = self.errors.len();
        self.rotate(file, file.components(stage));
        let mut sought = Sought::default();
        // The points' codes are multiplied by these when they are compared with the query's values.
        sought.steps[..WIDTH].copy_from_slice(&file.steps[stage - 1]);
        for (out, &value) in sought.values.iter_mut().zip(&self.rotated) {
            *out = self.coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = self.coder.rest();
        sought.rest = rest;
        self.segments.push(sought);
        self.errors.push(error);
    }

    /// Makes [`QueryCode::leading`] at least `count` components.
    pub(super) fn compute(&mut self, file: &File, count: usize) {
        if self.leading.len() < count {
            self.rotate(file, self.leading.len()..count);
            self.leading.extend_from_slice(&self.rotated);
        }
    }

    /// Computes some components.
    fn rotate(&mut self, file: &File, rows: Range<usize>) {
        let dim = file.mean.len();
        // Only the rows of the rotation that are needed. A query whose segments are never looked at
        // does not pay for their rows.
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
    let components = file.rotation.len() / dim;
    // Let R be the m rows of the rotation, v the shifted query, and u = 2⁻²⁴ the unit roundoff
    // of f32. Three roundings add up:
    // - R to f32: by the share u of each value. As R has the Frobenius norm √m, R·v is off by
    //   u·√m·‖v‖.
    // - v to f32: by the share u, so that R·v is off by u·‖v‖. Both shares are taken twice.
    // - The product: each of the m values is off by γ·‖v‖, all together by γ·√m·‖v‖.
    // The factor 1.001 is for the products of these errors, and the last term for underflow in f32.
    let u = f64::from(f32::EPSILON) / 2.0;
    let root = (components as f64).sqrt();
    ((gamma(matvec::roundings(dim)) + 2.0 * u) * root + 2.0 * u) * 1.001 * length + 1e-30
}

/// Writes s·(query − µ) and returns its squared length, from eight partial sums.
fn shift<T: Copy + Into<f64>>(query: &[T], mean: &[f64], scale: f64, out: &mut [f32]) -> f64 {
    // Eight sums, as one alone would make each addition wait for the one before.
    let mut squares = [0.0; 8];
    for ((out, query), mean) in out.chunks_mut(8).zip(query.chunks(8)).zip(mean.chunks(8)) {
        for (((out, &value), mean), square) in out.iter_mut().zip(query).zip(mean).zip(&mut squares)
        {
            // In f64: the squared length is exact but for f64's rounding, and only the value that
            // is multiplied later is rounded to f32.
            let shifted = (value.into() - mean) * scale;
            *square += shifted * shifted;
            *out = shifted as f32;
        }
    }
    squares.iter().sum()
}
