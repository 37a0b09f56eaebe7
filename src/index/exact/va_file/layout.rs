//! The file itself: the codes of all points, and where they lie.
//!
//! ```text
//! boxes     32 blocks a group:   low  [pair 0] [pair 1] ...   high [pair 0] [pair 1] ...
//! cells     32 points a block:        [components 0 to 3] [components 4 to 7] ...
//! heads     32 points a block:        [pair 0] [pair 1] ... [rest, 0]
//! segments  32 points a block:        [segment 1 of each point] [segment 2 of each point] ...
//!           a cache line each:        62 codes of 8 bits, rest
//! ids       the row at each position
//! ```
//!
//! A pair is two 16-bit codes of each of 32 points, or boxes, side by side: one instruction then
//! takes the same two components of eight points. "Rest" is the norm of what all components so far
//! leave out.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::cells::Cells;
use super::coder::Coder;
use super::plan::Plan;
use crate::error::BuildError;
use crate::index::parts::{
    Element, NumberType, PartError, elements, expect, expect_each_once, saved,
};
use crate::math::pca::{self, Pca, PcaOptions};
use crate::simd;
use crate::simd::va_codes::{BLOCK, Pairs, Segment, WIDTH};
use crate::vectors::Vectors;

/// Length of the longest code of the base. Longer codes would be finer, but squared distances of
/// codes must stay below 2³¹: `FARTHEST` of [`super::query_code`] has the sum that shows it.
pub(super) const RADIUS: f64 = 16_000.0;
/// No code of the base is farther than this from what it stands for, or there is no file. Such an
/// error is 2 % of [`RADIUS`]. It is also a part of the sum that must stay below 2³¹.
pub(super) const COARSEST: f64 = 300.0;
/// The rotation is no farther than this from orthonormal, or there is no file. Eigenvectors in f64
/// are nearer by several powers of ten, so this only refuses a decomposition that has failed. It is
/// small enough that lengths stay what the bounds on codes take them for.
const MOST_SKEWED: f64 = 1e-6;
/// The id at positions where the last block is filled up.
const NO_ROW: u32 = u32::MAX;

/// The base in principal components, and the order of the file: what every plan is tried on.
///
/// The components themselves are not kept, since in f64 they would take many times the memory of
/// the file: who reads them has them computed, a [`Stripe`] at a time.
pub(super) struct Rotated<'a> {
    base: &'a Vectors,
    pca: Pca,
    /// What each of the components takes of all rows: as many as the longest plan or the cells
    /// have.
    pub extents: Vec<Extent>,
    /// ‖x − µ‖² of every row.
    pub squared_lengths: Vec<f64>,
    /// The rows, near ones together.
    pub order: Vec<u32>,
}

impl<'a> Rotated<'a> {
    /// The time of [`Pca::fit`] for the rotation, and O(n·d·m) to rotate n rows to m components.
    pub(super) fn new(base: &'a Vectors, components: usize, seed: u64) -> Result<Self, BuildError> {
        let options = PcaOptions {
            components,
            seed,
            ..PcaOptions::default()
        };
        let pca = Pca::fit(base, &options)?;
        let (extents, leading) = survey(base, &pca, components);
        Ok(Self {
            squared_lengths: squared_lengths(base, &pca),
            order: order(leading.view()),
            extents,
            pca,
            base,
        })
    }

    /// The first components of some rows: R·(x − µ), a row each.
    pub(super) fn of_rows(&self, rows: &[usize], components: usize) -> Array2<f64> {
        self.pca.project_rows(self.base, rows, components)
    }

    /// The stripe with this number, and the first components of its points.
    pub(super) fn stripe(&self, stripe: usize, components: usize) -> Stripe {
        let blocks = self.order.len().div_ceil(BLOCK);
        let first = stripe * STRIPE;
        let positions = first * BLOCK..(first + STRIPE).min(blocks) * BLOCK;
        // What fills the last block up repeats the last point, so as not to widen its box.
        let last = self.order.len() - 1;
        let row = |position: usize| self.order[position.min(last)] as usize;
        let rows: Vec<usize> = positions.map(row).collect();
        Stripe {
            components: self.of_rows(&rows, components),
            rows,
        }
    }

    /// Codes in a unit of distance. The longest row gets a code of length [`RADIUS`].
    pub(super) fn scale(&self) -> f64 {
        let longest = self.squared_lengths.iter().copied();
        let longest = longest.fold(0.0, f64::max).sqrt();
        // Rows that all equal the mean have length zero, and any scale will do.
        if longest > 0.0 { RADIUS / longest } else { 1.0 }
    }

    /// The share of its length by which so many components of a row can be off: each is a sum of d
    /// products in f64, in any order.
    pub(super) fn relative_error(&self, components: usize) -> f64 {
        // A component is off by γ_d·‖v‖ at most, and m of them by √m times as much. EPSILON
        // is twice the unit roundoff, and the 4 is for the subtraction of the mean and the scale.
        f64::EPSILON * (self.pca.dim() + 4) as f64 * (components as f64).sqrt()
    }
}

/// Blocks of a [`Stripe`]. With its 512 points a product of matrices is fast, and the components
/// stay in the cache until they are coded.
pub(super) const STRIPE: usize = 16;

/// Some blocks that lie side by side in the file, rotated.
pub(super) struct Stripe {
    /// The row of each point, block by block.
    pub rows: Vec<usize>,
    /// Of each point its first components.
    pub components: Array2<f64>,
}

/// What a component takes of all rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// Σx², n times its variance.
    pub squares: f64,
    /// The greatest magnitude.
    pub greatest: f64,
}

impl Extent {
    fn join(&mut self, other: Self) {
        self.squares += other.squares;
        self.greatest = self.greatest.max(other.greatest);
    }
}

/// Leading components by which rows are put in order.
const LEADING: usize = 24;

/// The extent of each component, and the leading components of all rows. The same on any number of
/// threads: each sum is over a fixed number of rows, and the sums are added in order.
fn survey(base: &Vectors, pca: &Pca, components: usize) -> (Vec<Extent>, Array2<f32>) {
    /// Rows of a sum: few enough that every thread has work.
    const ROWS: usize = 512;
    let mut leading = Array2::zeros((base.len(), components.min(LEADING)));
    let of_rows = |(block, mut leading): (usize, ArrayViewMut2<'_, f32>)| {
        let first = block * ROWS;
        let rows: Vec<usize> = (first..first + leading.nrows()).collect();
        let rotated = pca.project_rows(base, &rows, components);
        let rotated_leading = rotated.slice(s![.., ..leading.ncols()]);
        leading.zip_mut_with(&rotated_leading, |to, &value| *to = value as f32);
        // All components of a row at once: a column alone would read a cache line for each value.
        let mut extents = vec![Extent::default(); components];
        for row in rotated.rows() {
            for (extent, &value) in extents.iter_mut().zip(row) {
                extent.join(Extent {
                    squares: value * value,
                    greatest: value.abs(),
                });
            }
        }
        extents
    };
    let blocks: Vec<_> = leading.axis_chunks_iter_mut(Axis(0), ROWS).collect();
    let blocks = blocks.into_par_iter().enumerate();
    let blocks: Vec<Vec<Extent>> = blocks.map(of_rows).collect();
    let mut all = vec![Extent::default(); components];
    for block in blocks {
        all.iter_mut().zip(block).for_each(|(all, of)| all.join(of));
    }
    (all, leading)
}

/// ‖x − µ‖² of every row.
fn squared_lengths(base: &Vectors, pca: &Pca) -> Vec<f64> {
    let squared_length = |centred: &mut Vec<f64>, row| {
        pca::centre(base.row(row), pca.mean(), centred);
        centred.iter().map(|value| value * value).sum()
    };
    (0..base.len())
        .into_par_iter()
        .map_init(|| vec![0.0; base.dim()], squared_length)
        .collect()
}

/// The rows in the order of the leaves of a kd-tree that halves the widest component at whole
/// blocks. So rows that are near in the leading components are in the same block.
fn order(components: ArrayView2<'_, f32>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..components.nrows() as u32).collect();
    split(components, &mut order);
    order
}

fn split(components: ArrayView2<'_, f32>, ids: &mut [u32]) {
    if ids.len() <= BLOCK {
        return;
    }
    let axis = widest(components, ids);
    // A whole number of blocks on the left, so that every block is a leaf or a part of one.
    let half = (ids.len() / 2).next_multiple_of(BLOCK);
    if half < ids.len() {
        let value = |id: u32| components[[id as usize, axis]];
        // Ties by id, so that the order does not depend on the algorithm of the selection.
        ids.select_nth_unstable_by(half, |&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
    }
    // The sides share no row, so that they can be sorted at once.
    let (left, right) = ids.split_at_mut(half);
    rayon::join(|| split(components, left), || split(components, right));
}

/// The component along which the rows `ids` have the largest variance.
fn widest(components: ArrayView2<'_, f32>, ids: &[u32]) -> usize {
    // The leading ones are enough: the others are narrower as a rule.
    let axes = components.ncols();
    let mut sums = [0.0f64; LEADING];
    let mut squares = [0.0f64; LEADING];
    for &id in ids {
        let row = components.row(id as usize);
        for ((sum, square), &value) in sums[..axes].iter_mut().zip(&mut squares).zip(row) {
            let value = f64::from(value);
            *sum += value;
            *square += value * value;
        }
    }
    // The variance times the number of rows, Σx² − (Σx)²/n: that number is the same for every
    // axis.
    let spread = |axis: usize| squares[axis] - sums[axis] * sums[axis] / ids.len() as f64;
    (0..axes)
        .max_by(|&a, &b| spread(a).total_cmp(&spread(b)))
        .expect("a component")
}

/// The codes of all points, by block.
#[derive(Debug)]
pub(super) struct File {
    pub plan: Plan,
    /// µ.
    pub mean: Vec<f64>,
    /// The first components, row by row, rounded to f32: as many as the plan or the cells have.
    pub rotation: Vec<f32>,
    /// s, codes per unit of distance.
    pub scale: f64,
    /// ε of the rotation.
    pub epsilon: f64,
    /// E of each stage, the greatest distance of a point's codes from what they stand for.
    pub errors: Vec<f64>,
    pub boxes: Boxes,
    /// For a first look at the points of a block, where that is worth it.
    pub cells: Option<Cells>,
    /// Block by block, in a block pair by pair, the last of which is the rest.
    pub heads: Vec<Pairs>,
    /// Block by block, in a block segment by segment, in these point by point.
    pub segments: Vec<Segment>,
    /// What the codes of each segment are to be multiplied by.
    pub steps: Vec<[i16; WIDTH]>,
    /// The row that stands at each position; [`NO_ROW`] where the last block is filled up.
    pub ids: Vec<u32>,
}

elements!(Pairs as [[i16; 2]; BLOCK]);

/// 64 bytes: the codes, and the two of the rest.
impl Element for Segment {
    const NUMBER: NumberType = NumberType::I8;
    const SIZE: usize = WIDTH + 2;

    fn put(&self, bytes: &mut [u8]) {
        let (codes, rest) = bytes.split_at_mut(WIDTH);
        self.codes.put(codes);
        self.rest.put(rest);
    }

    fn take(bytes: &[u8]) -> Self {
        let (codes, rest) = bytes.split_at(WIDTH);
        Self {
            codes: Element::take(codes),
            rest: Element::take(rest),
        }
    }
}

saved!(Boxes { low, high });

saved!(File {
    plan,
    mean,
    rotation,
    scale,
    epsilon,
    errors,
    boxes,
    cells,
    heads,
    segments,
    steps,
    ids
});

impl File {
    /// Refuses what is not a file of `rows` rows of dimension `dim`.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn check(&self, rows: usize, dim: usize) -> Result<(), PartError> {
        self.plan.check()?;
        let (pairs, segments) = (self.plan.pairs(), self.plan.segments);
        let blocks = rows.div_ceil(BLOCK);
        let boxes = blocks.div_ceil(BLOCK) * pairs;
        let of_cells = self.cells.as_ref().map_or(0, |cells| cells.components());
        let components = self.plan.components().max(of_cells).min(dim);
        for (part, len, expected) in [
            ("mean", self.mean.len(), dim),
            ("rotation", self.rotation.len(), components * dim),
            ("errors", self.errors.len(), segments + 1),
            ("boxes.low", self.boxes.low.len(), boxes),
            ("boxes.high", self.boxes.high.len(), boxes),
            ("heads", self.heads.len(), blocks * pairs),
            ("segments", self.segments.len(), blocks * BLOCK * segments),
            ("steps", self.steps.len(), segments),
            ("ids", self.ids.len(), blocks * BLOCK),
        ] {
            expect(len == expected, part, &format!("{expected} elements"))?;
        }
        if let Some(cells) = &self.cells {
            cells.check(blocks, dim)?;
        }
        // The last block is filled up with no rows.
        let (ids, none) = self.ids.split_at(rows);
        expect(
            none.iter().all(|&id| id == NO_ROW),
            "ids",
            "no row after the last",
        )?;
        expect_each_once(ids, "ids")?;
        // Squared distances of longer codes could overflow.
        let codes = [&self.heads, &self.boxes.low, &self.boxes.high];
        let mut codes = codes
            .into_iter()
            .flatten()
            .flat_map(|pairs| pairs.0.as_flattened());
        let short = codes.all(|code| f64::from(code.unsigned_abs()) <= RADIUS + COARSEST);
        expect(short, "heads", "codes within the radius")?;
        let errors = self.errors.iter().all(|&error| error <= COARSEST);
        expect(errors, "errors", "small ones")
    }

    /// The file of a plan with these cells, or `None` if the numbers do not allow a bound.
    pub(super) fn new(rotated: &Rotated<'_>, plan: Plan, cells: Option<Cells>) -> Option<Self> {
        let encoder = Encoder::new(rotated, plan);
        let blocks = rotated.order.len().div_ceil(BLOCK);
        let mut heads = vec![Pairs([[0; 2]; BLOCK]); blocks * plan.pairs()];
        let mut segments = vec![Segment::default(); blocks * BLOCK * plan.segments];
        // Blocks and segments are read here and there. Larger pages need fewer address
        // translations.
        simd::in_huge_pages(&heads);
        simd::in_huge_pages(&segments);
        let mut errors = encoder.encode(&mut heads, &mut segments);
        // A bound by cells is held against the limits of the stages, too. So their errors are at
        // least that of the cells.
        if let Some(cells) = &cells {
            errors
                .iter_mut()
                .for_each(|error| *error = worse(*error, cells.error));
        }
        // Not "any error is above": an error that is NaN must be refused too.
        let fine = errors.iter().all(|&error| error <= COARSEST);
        if !fine || encoder.epsilon > MOST_SKEWED {
            return None;
        }

        // Codes stand in this order. The positions that fill the last block up have codes, but no
        // row.
        let boxes = Boxes::around(&heads, plan.pairs());
        let mut ids = rotated.order.clone();
        ids.resize(blocks * BLOCK, NO_ROW);
        simd::in_huge_pages(&ids);
        let of_cells = cells.as_ref().map_or(0, |cells| cells.components());
        Some(Self {
            plan,
            mean: rotated.pca.mean().to_vec(),
            rotation: rounded_rotation(&rotated.pca, plan.components().max(of_cells)),
            scale: encoder.scale,
            epsilon: encoder.epsilon,
            errors,
            boxes,
            cells,
            heads,
            segments,
            steps: encoder.steps,
            ids,
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.mean)
            + size_of_val(&*self.rotation)
            + size_of_val(&*self.ids)
            + size_of_val(&*self.heads)
            + size_of_val(&*self.boxes.low)
            + size_of_val(&*self.boxes.high)
            + size_of_val(&*self.steps)
            + size_of_val(&*self.segments)
            + self.cells.as_ref().map_or(0, |cells| cells.memory_bytes())
    }

    pub(super) fn blocks(&self) -> usize {
        self.ids.len() / BLOCK
    }

    /// The row at a position; `None` where the last block is filled up.
    #[inline(always)]
    pub(super) fn row(&self, position: u32) -> Option<u32> {
        let id = self.ids[position as usize];
        (id != NO_ROW).then_some(id)
    }

    /// The components that a stage adds, of those that the data have.
    pub(super) fn components(&self, stage: usize) -> Range<usize> {
        let dim = self.mean.len();
        let stage = self.plan.stage(stage);
        stage.start.min(dim)..stage.end.min(dim)
    }

    /// Where the segment of a stage (from 1 on) of a position is.
    #[inline(always)]
    pub(super) fn segment(&self, stage: usize, position: u32) -> usize {
        let (block, lane) = (position as usize / BLOCK, position as usize % BLOCK);
        (block * self.plan.segments + stage - 1) * BLOCK + lane
    }

    /// Asks the memory for what a stage reads of a point: its segment, or after the last one
    /// nothing.
    #[inline(always)]
    pub(super) fn prefetch(&self, stage: usize, position: u32) {
        if stage <= self.plan.segments {
            let segment = &self.segments[self.segment(stage, position)];
            simd::prefetch(std::slice::from_ref(segment));
        }
    }
}

/// The first components, rounded to f32: a query is rotated in that.
fn rounded_rotation(pca: &Pca, components: usize) -> Vec<f32> {
    let rows = pca.rotation();
    let kept = rows.rows().into_iter().take(components);
    kept.flatten().map(|&value| value as f32).collect()
}

/// Boxes around the heads of each block, in groups of [`BLOCK`] boxes.
#[derive(Debug)]
pub(super) struct Boxes {
    pub low: Vec<Pairs>,
    pub high: Vec<Pairs>,
}

impl Boxes {
    fn around(heads: &[Pairs], pairs: usize) -> Self {
        let blocks = heads.len() / pairs;
        // Boxes stand in groups of 32, as points in blocks do. Where the last group is not full,
        // its last boxes are zeros, and the search leaves them out.
        let mut low = vec![Pairs([[0; 2]; BLOCK]); blocks.div_ceil(BLOCK) * pairs];
        let mut high = low.clone();
        let groups = low.par_chunks_mut(pairs).zip(high.par_chunks_mut(pairs));
        groups
            .zip(heads.par_chunks(BLOCK * pairs))
            .for_each(|((low, high), heads)| {
                for (lane, head) in heads.chunks_exact(pairs).enumerate() {
                    for (pair, codes) in head.iter().enumerate() {
                        (low[pair].0[lane], high[pair].0[lane]) = extremes(codes);
                    }
                }
            });
        Self { low, high }
    }
}

/// The least and the greatest code of the 32 points of a pair, for each of its components. The norm
/// of the rest is one more component here.
fn extremes(Pairs(codes): &Pairs) -> ([i16; 2], [i16; 2]) {
    let (mut low, mut high) = (codes[0], codes[0]);
    for codes in &codes[1..] {
        for side in 0..2 {
            low[side] = low[side].min(codes[side]);
            high[side] = high[side].max(codes[side]);
        }
    }
    (low, high)
}

/// Writes the codes of the points.
struct Encoder<'a> {
    rotated: &'a Rotated<'a>,
    plan: Plan,
    scale: f64,
    epsilon: f64,
    /// See [`Rotated::relative_error`].
    relative: f64,
    steps: Vec<[i16; WIDTH]>,
}

impl<'a> Encoder<'a> {
    fn new(rotated: &'a Rotated<'a>, plan: Plan) -> Self {
        let scale = rotated.scale();
        let components = plan.components().min(rotated.pca.dim());
        Self {
            rotated,
            plan,
            scale,
            epsilon: rotated.pca.orthonormality_error(),
            relative: rotated.relative_error(components),
            steps: steps(&rotated.extents, scale, plan),
        }
    }

    /// The components that are coded, of those that the data have.
    fn components(&self) -> usize {
        self.plan.components().min(self.rotated.pca.dim())
    }

    /// Codes all points; returns E of each stage. The same on any number of threads: the greatest
    /// has no order.
    fn encode(&self, heads: &mut [Pairs], segments: &mut [Segment]) -> Vec<f64> {
        let stages = self.plan.segments + 1;
        let none = || vec![0.0; stages];
        let join = |mut a: Vec<f64>, b: Vec<f64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = worse(*a, b));
            a
        };
        let heads = heads.par_chunks_mut(STRIPE * self.plan.pairs()).enumerate();
        if self.plan.segments == 0 {
            // There are no chunks of nothing to go with the heads.
            let encode = |(stripe, heads)| self.encode_stripe(stripe, heads, &mut []);
            return heads.map(encode).reduce(none, join);
        }
        heads
            .zip(segments.par_chunks_mut(STRIPE * BLOCK * self.plan.segments))
            .map(|((stripe, heads), segments)| self.encode_stripe(stripe, heads, segments))
            .reduce(none, join)
    }

    /// Codes the points of a stripe; returns E of each stage.
    fn encode_stripe(
        &self,
        stripe: usize,
        heads: &mut [Pairs],
        segments: &mut [Segment],
    ) -> Vec<f64> {
        // errors[0] is that of the head, errors[i] that of the head and the first i segments.
        let mut errors = vec![0.0f64; self.plan.segments + 1];
        let Stripe { rows, components } = self.rotated.stripe(stripe, self.components());
        for (point, (row, components)) in rows.into_iter().zip(components.rows()).enumerate() {
            let (block, lane) = (point / BLOCK, point % BLOCK);
            let head = &mut heads[block * self.plan.pairs()..][..self.plan.pairs()];
            let segments = &mut segments[block * BLOCK * self.plan.segments..];
            let length = self.rotated.squared_lengths[row];
            self.encode_point(components, length, lane, head, segments, &mut errors);
        }
        errors
    }

    /// Codes a point, given by its components and ‖x − µ‖², as point `lane` of a block, and
    /// raises `errors` to its errors.
    fn encode_point(
        &self,
        components: ArrayView1<'_, f64>,
        squared_length: f64,
        lane: usize,
        head: &mut [Pairs],
        segments: &mut [Segment],
        errors: &mut [f64],
    ) {
        // Beyond the last dimension there are zeros.
        let value = |at: usize| components.get(at).map_or(0.0, |v| v * self.scale);
        // Codes are in units of 1/scale, and so is every length and error from here on.
        let length = squared_length * self.scale * self.scale;
        let mut coder = Coder::new(length, self.epsilon, self.relative * length.sqrt());

        // The head: 16-bit codes in steps of one, two to a pair, then the pair of the rest and a
        // zero.
        for at in self.plan.stage(0) {
            head[at / 2].0[lane][at % 2] = coder.component(value(at), 1.0);
        }
        let (rest, error) = coder.rest();
        head[self.plan.pairs() - 1].0[lane] = [rest, 0];
        errors[0] = worse(errors[0], error);

        // The segments: 8-bit codes in steps of the component's own. `steps` was chosen so that no
        // code is beyond ±127, which makes the cast to i8 exact. The coder goes on from the head,
        // so that each rest leaves out what all stages so far hold.
        for (stage, steps) in (1..).zip(&self.steps) {
            let segment = &mut segments[(stage - 1) * BLOCK + lane];
            let components = segment.codes.iter_mut().zip(self.plan.stage(stage));
            for ((code, at), &step) in components.zip(steps) {
                *code = coder.component(value(at), f64::from(step)) as i8;
            }
            let (rest, error) = coder.rest();
            segment.rest = rest;
            errors[stage] = worse(errors[stage], error);
        }
    }
}

/// The steps with which the greatest value of each component of the segments fits in 8 bits.
fn steps(extents: &[Extent], scale: f64, plan: Plan) -> Vec<[i16; WIDTH]> {
    let step = |at: usize| {
        // A plan may have more components than the data. Those are zero, and their step is one.
        let greatest = extents.get(at).map_or(0.0, |extent| extent.greatest);
        // A whole number, so that code · step is an integer as the query's components are. It is
        // at most ⌈16,000 / 127⌉ = 126, so that the product fits in 16 bits.
        (greatest * scale / f64::from(i8::MAX)).ceil().max(1.0) as i16
    };
    (1..=plan.segments)
        .map(|stage| std::array::from_fn(|i| step(plan.stage(stage).start + i)))
        .collect()
}

/// The greater of two errors, where a NaN is the greatest.
fn worse(a: f64, b: f64) -> f64 {
    if a < b || b.is_nan() { b } else { a }
}
