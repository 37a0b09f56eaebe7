//! The VA+-file: exact search that reads a small part of the data.
//!
//! Sources: R. Weber, H.-J. Schek, S. Blott, *A Quantitative Analysis and Performance Study for Similarity-Search Methods
//! in High-Dimensional Spaces*, VLDB 1998 (a sequential file of quantised vectors as a filter for exact search);
//! H. Ferhatosmanoglu, E. Tuncel, D. Agrawal, A. El Abbadi, *Vector Approximation based Indexing for Non-uniform High
//! Dimensional Data Sets*, CIKM 2000 (after rotation to principal components). Ours are the norms of the rest, the
//! order of the file, and codes fine enough that their error hardly weakens the bound.
//!
//! # The bound
//! Let v = x − µ, R the first m rows of the rotation, ‖R·Rᵀ − I‖₂ ≤ ε, and φ(x) = (R·v, r(x)), where r(x) is the
//! distance of v from the space that the rows of R span. Both parts of a difference v − w, inside and outside of that
//! space, are shortened by φ, but for a factor: ‖φ(x) − φ(y)‖² ≤ (1 + ε)·‖x − y‖². What is stored are integers c(x) near
//! s·φ(x), s being a scale, with ‖c(x) − s·φ(x)‖ ≤ E for all points, and E′ for the query, where both contain the rounding
//! to integers, of the arithmetic, and of r, which is computed as √(‖v‖² − ‖R·v‖²). So
//!
//! ‖c(q) − c(x)‖ ≤ s·√(1 + ε)·‖q − x‖ + E + E′,
//!
//! and a point for which the left side, an integer's root, exceeds the right side taken at the k-th best distance so far
//! cannot be among the k nearest. The same holds for a box around the codes of a block of points.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::{
    BruteForce, BuildError, Index, QueryError, check_base, check_query, check_shape,
};
use crate::math::pca::{self, Pca, PcaOptions};
use crate::neighbor::{Neighbor, Neighbors, TopK};
use crate::simd::pairwise::gamma;
use crate::simd::va_codes::{self, BLOCK, Pairs, Segment, Sought, Survivor as Candidate, WIDTH};
use crate::simd::{self, matvec};
use crate::vectors::{Row, Storage, Vectors};

/// Length of the longest code of the base.
const RADIUS: f64 = 16_000.0;
/// Length of the longest code of a query: RADIUS, COARSEST and this, added and squared, stay below 2³¹.
const FARTHEST: f64 = 30_000.0;
/// No code of the base is farther than this from what it stands for, or there is no file.
const COARSEST: f64 = 300.0;
/// Beyond this dimension the eigenvectors, O(d³), take longer than they are worth.
const WIDEST: usize = 2_048;
/// Below this number of vectors a scan has no time to be slow.
const FEWEST: usize = 1_000;

/// How a [`VaFile`] divides the components between its passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Components of the first pass, over blocks of points: even, at least 2.
    pub head: usize,
    /// Segments of 62 further components each, read for the points that are left.
    pub segments: usize,
}

impl Plan {
    /// Pairs of codes in a head: its components, the norm of the rest and a zero.
    fn pairs(self) -> usize {
        self.head / 2 + 1
    }

    fn components(self) -> usize {
        self.head + self.segments * WIDTH
    }

    /// The components that a stage adds: the head's, or a segment's.
    fn stage(self, stage: usize) -> Range<usize> {
        let end = self.head + stage * WIDTH;
        if stage == 0 { 0..end } else { end - WIDTH..end }
    }

    /// Bytes that a point takes, its share of its block's box and of the rotation of `dim` dimensions included.
    fn bytes(self, points: usize, dim: usize) -> usize {
        let head = 2 * size_of::<i16>() * self.pairs();
        let shared = size_of::<f32>() * self.components().min(dim) * dim;
        head + 2 * head.div_ceil(BLOCK)
            + self.segments * size_of::<Segment>()
            + size_of::<u32>()
            + shared.div_ceil(points)
    }
}

/// Build parameters of [`VaFile`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VaFileParams {
    /// The division of the components, or `None` to choose it from the data: among those that take no more than half the
    /// bytes of the vectors themselves, one of least expected work; none, that is a full scan, if that is less.
    pub plan: Option<Plan>,
    /// Seed of the sample that the rotation is taken from.
    pub seed: u64,
}

/// Exact Euclidean search by lower bounds from a few quantised principal components.
///
/// Most points are excluded block by block, or by their first components; the others by more; what is left is compared
/// exactly, nearest bound first. Where the data have no structure that a rotation could find, it is a [`BruteForce`], or, for floats, a scan of codes of
/// 8 bits in place of their 32, whichever is expected to cost less.
#[derive(Debug, Clone)]
pub struct VaFile {
    full: BruteForce,
    file: Option<Arc<File>>,
    /// Whether many queries at once are answered faster by the full scan.
    batch_by_scan: bool,
}

impl VaFile {
    /// Builds the file: O(s·d² + d³) for the rotation, from a sample of s rows, and O(n·d·m) to rotate n vectors to m
    /// components. The same on any number of threads.
    ///
    /// # Errors
    /// If `base` is empty, or the plan's head is odd, less than 2 or more than 64 or has no components, or there are more
    /// than 64 segments.
    pub fn build(base: Arc<Vectors>, params: &VaFileParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        if let Some(plan) = params.plan {
            if plan.head % 2 != 0 || !(2..=64).contains(&plan.head) {
                let received = plan.head as f64;
                return Err(BuildError::InvalidParameter {
                    name: "head",
                    received,
                    expected: "even, 2..=64",
                });
            }
            if plan.segments > 64 {
                let received = plan.segments as f64;
                return Err(BuildError::InvalidParameter {
                    name: "segments",
                    received,
                    expected: "at most 64",
                });
            }
        }
        let full = BruteForce::build(Arc::clone(&base), Metric::Euclidean)?;
        let plans = match params.plan {
            Some(plan) => vec![plan],
            None if base.dim() > WIDEST || base.len() < FEWEST => Vec::new(),
            None => plans(&base),
        };
        let Some(components) = plans
            .iter()
            .map(|plan| plan.components().min(base.dim()))
            .max()
        else {
            return Ok(Self {
                full,
                file: None,
                batch_by_scan: true,
            });
        };

        let pca = Pca::fit(
            &base,
            &PcaOptions {
                seed: params.seed,
                ..PcaOptions::default()
            },
        )?;
        let projected = pca.project_all(&base, components);
        let lengths = squared_lengths(&base, &pca);
        let order = order(projected.view());
        let file = |plan| File::new(&base, &pca, projected.view(), &lengths, &order, plan);
        if let Some(plan) = params.plan {
            let file = file(plan).map(Arc::new);
            return Ok(Self {
                full: full.without_halves(),
                batch_by_scan: file.is_none(),
                file,
            });
        }
        let costed = |plan| file(plan).map(|file| (file.expected_cost(&base), file));
        let mut best: Option<(f64, File)> = None;
        // With half the segments, which often does as well and takes half the time to try: where few components hold nearly all of the
        // variance, the rest costs for nothing.
        let halves = plans.iter().map(|&plan| Plan {
            segments: plan.segments.div_ceil(2),
            ..plan
        });
        for other in halves.filter_map(costed) {
            if best.as_ref().is_some_and(|best| best.0 <= other.0) {
                break;
            }
            best = Some(other);
        }
        let whole = best
            .as_ref()
            .and_then(|(_, file)| plans.iter().find(|plan| plan.head == file.plan.head));
        let whole = whole
            .filter(|plan| plan.segments > 1)
            .and_then(|&plan| costed(plan));
        let best = best
            .into_iter()
            .chain(whole)
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (scan, batch) = scan_cost(&full);
        Ok(match best {
            Some((cost, file)) if cost < WORTHWHILE * scan => Self {
                full: full.without_halves(),
                file: Some(Arc::new(file)),
                batch_by_scan: batch < cost,
            },
            _ => Self {
                full,
                file: None,
                batch_by_scan: true,
            },
        })
    }

    /// How the components are divided, or `None` if every query is a full scan.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        self.file.as_ref().map(|file| file.plan)
    }

    fn search(&self, query: Row<'_>, k: usize) -> Option<Vec<Neighbor>> {
        let file = self.file.as_ref()?;
        SCRATCH.with_borrow_mut(|scratch| file.search(self.full.base(), query, k, scratch))
    }
}

/// Ever longer heads, each with the segments that the memory allows.
fn plans(base: &Vectors) -> Vec<Plan> {
    /// With so many segments, going through the next costs about what the exact comparison does.
    const MOST: usize = 6;
    let dim = base.dim();
    let budget = base.memory_bytes() / base.len() / 2;
    let fitting = |head: usize| {
        let plans = (0..=dim.saturating_sub(head).div_ceil(WIDTH).min(MOST))
            .rev()
            .map(|segments| Plan { head, segments });
        plans
            .into_iter()
            .find(|plan| plan.bytes(base.len(), dim) <= budget)
    };
    let heads = [6, 14, 22, 30, 46, 62]
        .into_iter()
        .filter(|&head| head <= dim.next_multiple_of(2));
    heads.filter_map(fitting).collect()
}

/// The share of a full scan's cost that a file may be expected to take: its codes take memory, and a few rows may mislead.
const WORTHWHILE: f64 = 0.75;

/// Expected nanoseconds of a full scan: of one query, bounded by memory, and of one of many, bounded by arithmetic.
/// These, and those of [`File::expected_cost`], were measured once; only their proportions matter.
fn scan_cost(full: &BruteForce) -> (f64, f64) {
    let base = full.base();
    let values = (base.len() * base.dim()) as f64;
    match (base.storage(), full.has_halves()) {
        (_, true) => (values * 0.021, values * 0.0106),
        (Storage::Bytes(_), false) => (values * 0.041, values * 0.0106),
        (Storage::Floats(_), false) => (values * 0.2, values * 0.023),
    }
}

/// ‖x − µ‖² of every row.
fn squared_lengths(base: &Vectors, pca: &Pca) -> Vec<f64> {
    (0..base.len())
        .into_par_iter()
        .map_init(
            || vec![0.0; base.dim()],
            |shifted, row| {
                pca::centre(base.row(row), pca.mean(), shifted);
                shifted.iter().map(|value| value * value).sum()
            },
        )
        .collect()
}

/// The rows in an order in which what is near in the leading components is in the same block: that of the leaves of a
/// kd-tree that halves the widest component, at whole blocks.
fn order(projected: ArrayView2<'_, f64>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..projected.nrows() as u32).collect();
    split(projected, &mut order);
    order
}

fn split(projected: ArrayView2<'_, f64>, ids: &mut [u32]) {
    /// Leading components among which the widest is sought.
    const LEADING: usize = 24;
    if ids.len() <= BLOCK {
        return;
    }
    let axes = projected.ncols().min(LEADING);
    let mut sums = [(0.0f64, 0.0f64); LEADING];
    for &id in &*ids {
        for (sum, &value) in sums[..axes].iter_mut().zip(projected.row(id as usize)) {
            sum.0 += value;
            sum.1 += value * value;
        }
    }
    let spread = |axis: usize| sums[axis].1 - sums[axis].0 * sums[axis].0 / ids.len() as f64;
    let axis = (0..axes)
        .max_by(|&a, &b| spread(a).total_cmp(&spread(b)))
        .expect("an axis");
    let half = (ids.len() / 2).next_multiple_of(BLOCK);
    if half < ids.len() {
        ids.select_nth_unstable_by(half, |&a, &b| {
            projected[[a as usize, axis]]
                .total_cmp(&projected[[b as usize, axis]])
                .then(a.cmp(&b))
        });
    }
    let (left, right) = ids.split_at_mut(half);
    rayon::join(|| split(projected, left), || split(projected, right));
}

/// The codes of all points, by block.
#[derive(Debug)]
struct File {
    plan: Plan,
    mean: Vec<f64>,
    /// The first components, rounded to f32.
    rotation: Vec<f32>,
    /// s, codes per unit of distance.
    scale: f64,
    /// ε of the rotation.
    epsilon: f64,
    /// E of each stage, the greatest distance of a point's codes from what they stand for.
    errors: Vec<f64>,
    /// The row that stands at each position; `u32::MAX` where the last block is filled up.
    ids: Vec<u32>,
    /// Boxes of the blocks' heads.
    low: Vec<Pairs>,
    high: Vec<Pairs>,
    heads: Vec<Pairs>,
    /// What the codes of each segment are to be multiplied by.
    steps: Vec<[i16; WIDTH]>,
    /// Block by block, in a block segment by segment, in these point by point.
    segments: Vec<Segment>,
}

/// What a thread needs for a query, kept for the next one.
#[derive(Debug, Default)]
struct Scratch {
    query: Query,
    boxes: Vec<i32>,
    minima: Vec<i32>,
    blocks: Vec<u32>,
    candidates: Vec<Candidate>,
    seeds: Vec<Candidate>,
    work: Work,
}

/// A query, coded as far as it is needed.
#[derive(Debug, Default)]
struct Query {
    shifted: Vec<f32>,
    rotated: Vec<f32>,
    coder: Coder,
    head: Vec<[i16; 2]>,
    segments: Vec<Sought>,
    /// E′ of each stage.
    errors: Vec<f64>,
}

/// How much was done.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Work {
    rotated: usize,
    blocks: usize,
    refined: usize,
    verified: usize,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl File {
    /// `None` if the numbers do not allow a bound.
    fn new(
        base: &Vectors,
        pca: &Pca,
        projected: ArrayView2<'_, f64>,
        lengths: &[f64],
        order: &[u32],
        plan: Plan,
    ) -> Option<Self> {
        let (n, dim) = (base.len(), base.dim());
        let longest = lengths.iter().copied().fold(0.0, f64::max).sqrt();
        let scale = if longest > 0.0 { RADIUS / longest } else { 1.0 };
        let epsilon = pca.orthonormality_error();
        let components = plan.components().min(dim);
        // Of a projection in f64 by a sum of d products, in any order.
        let relative = f64::EPSILON * (dim + 4) as f64 * (components as f64).sqrt();
        let steps = steps(projected, scale, plan);

        let (blocks, pairs) = (n.div_ceil(BLOCK), plan.pairs());
        let mut heads = vec![Pairs([[0; 2]; BLOCK]); blocks * pairs];
        let mut segments = vec![Segment::default(); blocks * BLOCK * plan.segments];
        simd::in_huge_pages(&heads);
        simd::in_huge_pages(&segments);
        let encode = |block: usize, head: &mut [Pairs], segments: &mut [Segment]| {
            let mut errors = vec![0.0f64; plan.segments + 1];
            for lane in 0..BLOCK {
                // What fills the last block up repeats the last point, so as not to widen its box.
                let id = order[(block * BLOCK + lane).min(n - 1)] as usize;
                let length = lengths[id] * scale * scale;
                let mut coder = Coder::new(length, epsilon, relative * length.sqrt());
                let value = |at: usize| projected.get([id, at]).map_or(0.0, |value| value * scale);
                for at in plan.stage(0) {
                    head[at / 2].0[lane][at % 2] = coder.component(value(at), 1.0);
                }
                let (rest, error) = coder.rest();
                head[pairs - 1].0[lane] = [rest, 0];
                errors[0] = worse(errors[0], error);
                for (stage, steps) in (1..).zip(&steps) {
                    let segment = &mut segments[(stage - 1) * BLOCK + lane];
                    for ((code, at), &step) in
                        segment.codes.iter_mut().zip(plan.stage(stage)).zip(steps)
                    {
                        *code = coder.component(value(at), f64::from(step)) as i8;
                    }
                    let (rest, error) = coder.rest();
                    segment.rest = rest;
                    errors[stage] = worse(errors[stage], error);
                }
            }
            errors
        };
        let none = || vec![0.0; plan.segments + 1];
        let join =
            |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(&a, &b)| worse(a, b)).collect();
        let errors = if plan.segments == 0 {
            let blocks = heads.par_chunks_mut(pairs).enumerate();
            blocks
                .map(|(block, head)| encode(block, head, &mut []))
                .reduce(none, join)
        } else {
            let blocks = heads
                .par_chunks_mut(pairs)
                .zip(segments.par_chunks_mut(BLOCK * plan.segments))
                .enumerate();
            blocks
                .map(|(block, (head, segments))| encode(block, head, segments))
                .reduce(none, join)
        };
        // Said so that a NaN returns as well.
        if !errors.iter().all(|&error| error <= COARSEST) || epsilon > 0.1 {
            return None;
        }

        let mut low = vec![Pairs([[0; 2]; BLOCK]); blocks.div_ceil(BLOCK) * pairs];
        let mut high = low.clone();
        for (block, head) in heads.chunks_exact(pairs).enumerate() {
            for (pair, codes) in head.iter().enumerate() {
                let at = block / BLOCK * pairs + pair;
                for side in 0..2 {
                    let codes = codes.0.iter().map(|codes| codes[side]);
                    low[at].0[block % BLOCK][side] = codes.clone().min().expect("points");
                    high[at].0[block % BLOCK][side] = codes.max().expect("points");
                }
            }
        }
        let mut ids = order.to_vec();
        ids.resize(blocks * BLOCK, u32::MAX);
        let mean = pca.mean().to_vec();
        let rotation = pca
            .rotation()
            .rows()
            .into_iter()
            .take(components)
            .flatten()
            .map(|&value| value as f32)
            .collect();
        Some(Self {
            plan,
            mean,
            rotation,
            scale,
            epsilon,
            errors,
            ids,
            low,
            high,
            heads,
            steps,
            segments,
        })
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.mean)
            + size_of_val(&*self.rotation)
            + size_of_val(&*self.ids)
            + size_of_val(&*self.heads)
            + 2 * size_of_val(&*self.low)
            + size_of_val(&*self.steps)
            + size_of_val(&*self.segments)
    }

    /// Codes the head of a query, or returns `None` if it is too far away from the base for 16 bits.
    fn encode(&self, row: Row<'_>, query: &mut Query, work: &mut Work) -> Option<()> {
        let (dim, components) = (self.mean.len(), self.plan.components().min(self.mean.len()));
        query.shifted.resize(dim, 0.0);
        let length = match row {
            Row::Bytes(row) => self.shift(row, &mut query.shifted),
            Row::Floats(row) => self.shift(row, &mut query.shifted),
        };
        let radius = length.sqrt();
        // Said so that a NaN returns as well.
        if radius.is_nan() || radius > FARTHEST {
            return None;
        }
        // In f32: the shifted query is rounded by the share u, and so is the rotation, whose Frobenius norm is the root
        // of its number of rows; then there is the product's own rounding, and what underflows.
        let u = f64::from(f32::EPSILON) / 2.0;
        let root = (components as f64).sqrt();
        let arithmetic =
            ((gamma(matvec::roundings(dim)) + 2.0 * u) * root + 2.0 * u) * 1.001 * radius + 1e-30;
        query.coder = Coder::new(length, self.epsilon, arithmetic);
        query.errors.clear();
        query.segments.clear();
        self.rotate(0, query, work);
        let Query {
            rotated,
            coder,
            head,
            errors,
            ..
        } = query;
        head.clear();
        head.resize(self.plan.pairs(), [0; 2]);
        for (code, &value) in head.as_flattened_mut().iter_mut().zip(&*rotated) {
            *code = coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = coder.rest();
        head[self.plan.pairs() - 1][0] = rest;
        errors.push(error);
        error.is_finite().then_some(())
    }

    /// Codes the next segment of a query.
    fn encode_segment(&self, query: &mut Query, work: &mut Work) {
        let stage = query.errors.len();
        self.rotate(stage, query, work);
        let mut sought = Sought::default();
        sought.steps[..WIDTH].copy_from_slice(&self.steps[stage - 1]);
        for (out, &value) in sought.values.iter_mut().zip(&query.rotated) {
            *out = query.coder.component(f64::from(value), 1.0);
        }
        let (rest, error) = query.coder.rest();
        sought.rest = rest;
        query.segments.push(sought);
        query.errors.push(error);
    }

    /// The components of a query that a stage adds.
    fn rotate(&self, stage: usize, query: &mut Query, work: &mut Work) {
        let dim = self.mean.len();
        let rows = self.plan.stage(stage);
        let rows = rows.start.min(dim)..rows.end.min(dim);
        work.rotated += rows.len();
        query.rotated.resize(rows.len(), 0.0);
        matvec::product(
            &self.rotation[rows.start * dim..rows.end * dim],
            &query.shifted,
            &mut query.rotated,
        );
    }

    /// Writes s·(query − µ) and returns its squared length.
    fn shift<T: Copy + Into<f64>>(&self, query: &[T], out: &mut [f32]) -> f64 {
        let mut squares = [0.0; 8];
        for ((out, query), mean) in out
            .chunks_mut(8)
            .zip(query.chunks(8))
            .zip(self.mean.chunks(8))
        {
            for (((out, &value), mean), square) in
                out.iter_mut().zip(query).zip(mean).zip(&mut squares)
            {
                let shifted = (value.into() - mean) * self.scale;
                *square += shifted * shifted;
                *out = shifted as f32;
            }
        }
        squares.iter().sum()
    }

    /// Where the segment of a stage of a position is.
    #[inline(always)]
    fn segment(&self, stage: usize, position: u32) -> usize {
        let (block, lane) = (position as usize / BLOCK, position as usize % BLOCK);
        (block * self.plan.segments + stage - 1) * BLOCK + lane
    }

    /// Asks the memory for what a stage reads of a point: a segment, or after the last one nothing yet.
    #[inline(always)]
    fn fetch(&self, stage: usize, position: u32) {
        if stage <= self.plan.segments {
            simd::prefetch(std::slice::from_ref(
                &self.segments[self.segment(stage, position)],
            ));
        }
    }

    /// Nanoseconds that it takes to rotate a query to so many components, and to compare a row exactly. These, and those
    /// of [`File::expected_cost`], were measured once; only their proportions matter.
    fn rotation_cost(&self, components: usize) -> f64 {
        (components * self.mean.len()) as f64 * 0.07
    }

    /// `None` if the query is too far away to be coded.
    fn search(
        &self,
        base: &Vectors,
        row: Row<'_>,
        k: usize,
        scratch: &mut Scratch,
    ) -> Option<Vec<Neighbor>> {
        /// Blocks, beyond those that k points need, and candidates, beyond twice k, from which the first threshold comes.
        const FIRST_BLOCKS: usize = 8;
        const SEEDS: usize = 12;
        /// Where so many blocks are left after that, it is worth a second threshold.
        const MANY_BLOCKS: usize = 256;
        /// Blocks of which only the nearest is looked at to find the first ones.
        const TOGETHER: usize = 8;
        let Scratch {
            query,
            boxes,
            minima,
            blocks,
            candidates,
            seeds,
            work,
        } = scratch;
        self.encode(row, query, work)?;
        let count = self.ids.len() / BLOCK;
        let k = k.min(base.len());
        let mut search = Search {
            file: self,
            base,
            ranker: Ranker::new(base, Metric::Euclidean, row),
            top: TopK::new(k),
            query,
            seeds,
            most_seeds: 2 * k + SEEDS,
            work,
        };

        // The nearest blocks, and in them the nearest points, give a first threshold.
        va_codes::boxes(&self.low, &self.high, &search.query.head, boxes);
        boxes.truncate(count);
        let first = ((2 * k).div_ceil(BLOCK) + FIRST_BLOCKS).min(count);
        minima.clear();
        minima.extend(boxes.chunks(TOGETHER).map(|boxes| {
            boxes
                .iter()
                .fold(i32::MAX, |least, &bound| least.min(bound))
        }));
        // That many blocks at least are not beyond this.
        let near = if first < minima.len() {
            *minima.select_nth_unstable(first - 1).1
        } else {
            i32::MAX
        };
        blocks.clear();
        va_codes::within(boxes, near, blocks);
        if first < blocks.len() {
            blocks.select_nth_unstable_by_key(first - 1, |&block| boxes[block as usize]);
            blocks.truncate(first);
        }
        candidates.clear();
        search.heads(blocks, candidates);
        search.seed(0, candidates);

        // All other blocks that it does not exclude, and of their points again the best first.
        blocks
            .iter()
            .for_each(|&block| boxes[block as usize] = i32::MAX);
        blocks.clear();
        va_codes::within(boxes, search.limit(0).min(i32::MAX - 1), blocks);
        if blocks.len() > MANY_BLOCKS {
            // The nearest of them first, for a limit that excludes some of the others.
            blocks.select_nth_unstable_by_key(MANY_BLOCKS / 4, |&block| boxes[block as usize]);
            let others = blocks.split_off(MANY_BLOCKS / 4);
            search.heads(blocks, candidates);
            search.seed(0, candidates);
            let limit = search.limit(0);
            blocks.clear();
            blocks.extend(
                others
                    .into_iter()
                    .filter(|&block| boxes[block as usize] <= limit),
            );
            blocks.sort_unstable();
        }
        search.heads(blocks, candidates);
        let mut stage = 0;
        while search.is_worth_refining(stage, candidates.len()) {
            stage += 1;
            search.refine(stage, candidates);
            if stage == 1 {
                search.seed(stage, candidates);
            }
        }
        search.verify(stage, candidates);
        Some(search.top.into_neighbors(Metric::Euclidean))
    }

    /// Expected nanoseconds of a query, from the work that some rows of the base make as queries.
    fn expected_cost(&self, base: &Vectors) -> f64 {
        const QUERIES: usize = 48;
        const K: usize = 10;
        let mut scratch = Scratch::default();
        let step = base.len().div_ceil(QUERIES);
        let rows: Vec<usize> = (0..base.len()).step_by(step).collect();
        for &row in &rows {
            // One more, since a row finds itself.
            _ = self.search(base, base.row(row), K + 1, &mut scratch);
        }
        let Work {
            rotated,
            blocks,
            refined,
            verified,
        } = scratch.work;
        let per_query = blocks as f64 * self.plan.pairs() as f64 * 3.0
            + refined as f64 * 14.0
            + verified as f64 * verification_cost(base)
            + self.rotation_cost(rotated);
        let boxes = (self.ids.len() / BLOCK * self.plan.pairs()) as f64 * 0.2;
        per_query / rows.len() as f64 + boxes
    }
}

/// Nanoseconds that the exact comparison with a row takes.
fn verification_cost(base: &Vectors) -> f64 {
    30.0 + base.memory_bytes() as f64 / base.len() as f64 * 0.14
}

/// The greater of two errors, where a NaN is the greatest.
fn worse(a: f64, b: f64) -> f64 {
    if a < b || b.is_nan() { b } else { a }
}

/// The steps with which the greatest value of each component of the segments fits in 8 bits.
fn steps(projected: ArrayView2<'_, f64>, scale: f64, plan: Plan) -> Vec<[i16; WIDTH]> {
    let step = |at: usize| {
        let greatest = projected
            .columns()
            .into_iter()
            .nth(at)
            .map_or(0.0, |column| {
                column
                    .iter()
                    .fold(0.0, |greatest: f64, value| greatest.max(value.abs()))
            });
        (greatest * scale / f64::from(i8::MAX)).ceil().max(1.0) as i16
    };
    (1..=plan.segments)
        .map(|stage| std::array::from_fn(|i| step(plan.stage(stage).start + i)))
        .collect()
}

/// A query on its way through the passes.
struct Search<'a> {
    file: &'a File,
    base: &'a Vectors,
    ranker: Ranker<'a>,
    top: TopK,
    query: &'a mut Query,
    seeds: &'a mut Vec<Candidate>,
    most_seeds: usize,
    work: &'a mut Work,
}

impl Search<'_> {
    /// The greatest squared distance in codes of a stage at which a point can still be among the k nearest.
    fn limit(&self, stage: usize) -> i32 {
        let File {
            scale,
            epsilon,
            errors,
            ..
        } = self.file;
        // The last factors are for the rounding of the rank itself and of this line; the cast saturates.
        let reach = self.top.threshold().sqrt() * scale * (1.0 + epsilon) * (1.0 + 1e-9);
        let reach = reach + errors[stage] + self.query.errors[stage];
        (reach * reach * (1.0 + 1e-12)) as i32
    }

    /// Appends the points of some blocks that their heads do not exclude.
    fn heads(&mut self, blocks: &[u32], candidates: &mut Vec<Candidate>) {
        let file = self.file;
        self.work.blocks += blocks.len();
        let limit = self.limit(0);
        va_codes::heads(
            &file.heads,
            &self.query.head,
            blocks,
            limit,
            candidates,
            |position| file.fetch(1, position),
        );
    }

    /// Whether there is a further stage, and it costs less than it is likely to save.
    fn is_worth_refining(&self, stage: usize, candidates: usize) -> bool {
        let plan = self.file.plan;
        if stage >= plan.segments || stage < self.query.segments.len() {
            return stage < plan.segments;
        }
        // About half of the candidates need no exact comparison then.
        candidates as f64 / 2.0 * verification_cost(self.base)
            > self.file.rotation_cost(plan.stage(stage + 1).len())
    }

    /// Adds the segment of a stage to the bounds of the candidates, and keeps those within the limit.
    fn refine(&mut self, stage: usize, candidates: &mut Vec<Candidate>) {
        let file = self.file;
        while self.query.segments.len() < stage {
            file.encode_segment(self.query, self.work);
        }
        self.work.refined += candidates.len();
        let (limit, sought) = (self.limit(stage), &self.query.segments[stage - 1]);
        let at = |position| file.segment(stage, position);
        va_codes::segments(&file.segments, sought, limit, candidates, at, |position| {
            file.fetch(stage + 1, position)
        });
    }

    /// Compares the best candidates exactly, for a better threshold, and keeps those of the others that are within it.
    fn seed(&mut self, stage: usize, candidates: &mut Vec<Candidate>) {
        let best = self.most_seeds.min(candidates.len());
        if best < candidates.len() {
            candidates.select_nth_unstable_by_key(best, |candidate| candidate.bound);
        }
        let mut seeds = std::mem::take(self.seeds);
        seeds.clear();
        seeds.extend(candidates.drain(..best));
        let mut reached = stage;
        if stage == 0 && self.is_worth_refining(stage, best) {
            reached = 1;
            self.refine(reached, &mut seeds);
        }
        self.verify(reached, &mut seeds);
        *self.seeds = seeds;
        let limit = self.limit(stage);
        candidates.retain(|candidate| candidate.bound <= limit);
    }

    /// Compares the candidates exactly, nearest bound first, until a bound is beyond the limit.
    fn verify(&mut self, stage: usize, candidates: &mut [Candidate]) {
        /// How many candidates ahead rows are fetched.
        const AHEAD: usize = 4;
        candidates.sort_unstable_by_key(|candidate| candidate.bound);
        candidates
            .iter()
            .take(AHEAD)
            .for_each(|candidate| self.fetch(candidate));
        let mut limit = self.limit(stage);
        for (at, candidate) in candidates.iter().enumerate() {
            if candidate.bound > limit {
                return;
            }
            if let Some(ahead) = candidates.get(at + AHEAD)
                && ahead.bound <= limit
            {
                self.fetch(ahead);
            }
            let id = self.file.ids[candidate.position as usize];
            if id != u32::MAX {
                self.work.verified += 1;
                if let Some(rank) = self.ranker.rank_within(id as usize, self.top.threshold())
                    && self.top.push(id, rank)
                {
                    limit = self.limit(stage);
                }
            }
        }
    }

    fn fetch(&self, candidate: &Candidate) {
        let id = self.file.ids[candidate.position as usize];
        if id != u32::MAX {
            self.base.row(id as usize).prefetch();
        }
    }
}

/// Codes the coordinates of a vector one by one, and keeps account of what that loses.
#[derive(Debug, Clone, Copy, Default)]
struct Coder {
    /// Squared length of the vector.
    length: f64,
    /// What the coordinates as they come can be off by, together: a distance.
    arithmetic: f64,
    /// What the square of the norm of the rest, a difference, can be off by.
    slack: f64,
    squares: f64,
    lost: f64,
}

impl Coder {
    fn new(length: f64, epsilon: f64, arithmetic: f64) -> Self {
        // For ε, for the coordinates, for f64.
        let slack = (2.0 * epsilon + 1e-12) * length
            + 2.01 * arithmetic * length.sqrt()
            + arithmetic * arithmetic;
        Self {
            length,
            arithmetic,
            slack,
            squares: 0.0,
            lost: 0.0,
        }
    }

    /// The next coordinate, in steps.
    #[inline(always)]
    fn component(&mut self, value: f64, step: f64) -> i16 {
        let code = nearest(value / step);
        let lost = value - f64::from(code) * step;
        self.squares += value * value;
        self.lost += lost * lost;
        code
    }

    /// The norm of what the coordinates so far leave out, and the distance of all codes so far from what they stand for.
    fn rest(&self) -> (i16, f64) {
        let rest = (self.length - self.squares).max(0.0).sqrt();
        // |√a − √b| is at most √|a − b|, and |a − b| / √b.
        let unknown = if rest > 0.0 {
            self.slack.sqrt().min(self.slack / rest)
        } else {
            self.slack.sqrt()
        };
        let code = nearest(rest);
        let lost = (rest - f64::from(code)).abs() + unknown;
        (code, (self.lost + lost * lost).sqrt() + self.arithmetic)
    }
}

/// Away from zero by a half and to zero again is to the nearest, without a call.
fn nearest(value: f64) -> i16 {
    (value + 0.5f64.copysign(value)) as i16
}

impl Index for VaFile {
    fn name(&self) -> &'static str {
        "VA+-file"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let (head, segments) = self
            .plan()
            .map_or((0, 0), |plan| (plan.head, plan.segments));
        vec![("head", head as f64), ("segments", segments as f64)]
    }

    fn len(&self) -> usize {
        self.full.len()
    }

    fn dim(&self) -> usize {
        self.full.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.full.memory_bytes() + self.file.as_ref().map_or(0, |file| file.memory_bytes())
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        match self.search(Row::Floats(query), k) {
            Some(found) => Ok(found),
            None => self.full.query(query, k),
        }
    }

    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_shape(queries.dim(), k, self.dim())?;
        if self.batch_by_scan {
            return self.full.query_batch(queries, k);
        }
        let rows: Result<Vec<_>, _> = (0..queries.len())
            .into_par_iter()
            .map(|row| match self.search(queries.row(row), k) {
                Some(found) => Ok(found),
                None => self.full.query(&queries.row_to_floats(row), k),
            })
            .collect();
        Ok(rows?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The k nearest by the definition.
    fn oracle(base: &Vectors, query: &[f32], k: usize) -> Vec<Neighbor> {
        let ranker = Ranker::new(base, Metric::Euclidean, Row::Floats(query));
        let mut top = TopK::new(k.min(base.len()));
        (0..base.len()).for_each(|id| _ = top.push(id as u32, ranker.rank(id)));
        top.into_neighbors(Metric::Euclidean)
    }

    fn check(base: &Vectors, queries: &Vectors, plan: Option<Plan>, ks: &[usize]) -> VaFile {
        let base = Arc::new(base.clone());
        let index = VaFile::build(Arc::clone(&base), &VaFileParams { plan, seed: 1 }).unwrap();
        for &k in ks {
            let batch = index.query_batch(queries, k).unwrap();
            for row in 0..queries.len() {
                let query = queries.row_to_floats(row);
                let expected = oracle(&base, &query, k);
                assert_eq!(
                    index.query(&query, k).unwrap(),
                    expected,
                    "query {row}, k = {k}"
                );
                assert_eq!(batch.row(row), expected, "query {row} of a batch, k = {k}");
            }
        }
        index
    }

    /// Hidden variables of shrinking size, mixed, shifted, with noise: what a rotation can find.
    fn structured(rows: usize, dim: usize, seed: u64) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mixing: Vec<Vec<f32>> = (0..6)
            .map(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect())
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let hidden: Vec<f32> = (0..6)
                .map(|i| rng.random_range(-100.0f32..100.0) / (i + 1) as f32)
                .collect();
            values.extend((0..dim).map(|at| {
                20.0 + rng.random_range(-1.0f32..1.0)
                    + (0..6).map(|i| hidden[i] * mixing[i][at]).sum::<f32>()
            }));
        }
        Vectors::from_floats(dim, values).unwrap()
    }

    fn to_bytes(vectors: &Vectors) -> Vectors {
        let bytes: Vec<u8> = vectors
            .to_floats()
            .iter()
            .map(|&value| value as u8)
            .collect();
        Vectors::from_bytes(vectors.dim(), bytes).unwrap()
    }

    #[test]
    fn finds_the_true_neighbours_and_little_else() {
        for (dim, plan) in [
            (
                40,
                Plan {
                    head: 6,
                    segments: 1,
                },
            ),
            (
                70,
                Plan {
                    head: 14,
                    segments: 2,
                },
            ),
        ] {
            let (base, queries) = (structured(3_001, dim, 1), structured(40, dim, 2));
            let index = check(&base, &queries, Some(plan), &[1, 10, 100, 5_000]);
            check(
                &to_bytes(&base),
                &to_bytes(&queries),
                Some(plan),
                &[1, 10, 100],
            );
            // Queries that are no bytes, over bytes.
            check(&to_bytes(&base), &queries, Some(plan), &[10]);
            let mut scratch = Scratch::default();
            let file = index.file.as_ref().unwrap();
            (0..queries.len())
                .for_each(|row| _ = file.search(&base, queries.row(row), 10, &mut scratch));
            assert!(
                scratch.work.verified / queries.len() < 150,
                "of 3,001: {:?}",
                scratch.work
            );
        }
    }

    #[test]
    fn chooses_a_plan_where_there_is_structure_and_a_scan_where_there_is_none() {
        let index = check(
            &structured(4_000, 64, 1),
            &structured(10, 64, 2),
            None,
            &[10],
        );
        let plan = index.plan().expect("structure");
        assert!(plan.bytes(4_000, 64) <= 64 * 4 / 2);
        assert!(
            index.memory_bytes() <= 4_000 * 64 * 4 * 3 / 2,
            "{}",
            index.memory_bytes()
        );

        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let noise: Vec<u8> = (0..2_000 * 200).map(|_| rng.random()).collect();
        let noise = Vectors::from_bytes(200, noise).unwrap();
        assert_eq!(check(&noise, &noise.head(5), None, &[10]).plan(), None);
        assert_eq!(
            check(&structured(50, 8, 1), &structured(3, 8, 2), None, &[3]).plan(),
            None
        );
    }

    #[test]
    fn one_thread_and_two_build_and_answer_alike() {
        let (base, queries) = (Arc::new(structured(2_000, 50, 1)), structured(20, 50, 2));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let index = VaFile::build(Arc::clone(&base), &VaFileParams::default()).unwrap();
                let found = index.query_batch(&queries, 10).unwrap();
                (
                    index.file.map(|file| {
                        (
                            file.plan,
                            file.errors.clone(),
                            file.ids.clone(),
                            file.segments.clone(),
                        )
                    }),
                    found,
                )
            })
        };
        assert!(on(1) == on(2));
    }

    #[test]
    fn refuses_plans_that_are_none() {
        let base = Arc::new(structured(10, 4, 1));
        let build = |head, segments| {
            VaFile::build(
                Arc::clone(&base),
                &VaFileParams {
                    plan: Some(Plan { head, segments }),
                    seed: 0,
                },
            )
            .unwrap_err()
        };
        let error = |name, received, expected| BuildError::InvalidParameter {
            name,
            received,
            expected,
        };
        assert_eq!(build(3, 0), error("head", 3.0, "even, 2..=64"));
        assert_eq!(build(0, 0), error("head", 0.0, "even, 2..=64"));
        assert_eq!(build(2, 65), error("segments", 65.0, "at most 64"));
        let empty = Arc::new(Vectors::from_bytes(3, vec![]).unwrap());
        assert_eq!(
            VaFile::build(empty, &VaFileParams::default()).unwrap_err(),
            BuildError::Empty
        );
    }

    /// A coordinate's scale and offset: every magnitude that f32 has.
    fn magnitude() -> impl Strategy<Value = (f32, f32)> {
        let powers = prop::sample::select(vec![
            1e-45f32, 1e-40, 1e-38, 1e-20, 1e-3, 1.0, 255.0, 1e6, 1e20, 1e38,
        ]);
        (
            powers,
            prop_oneof![
                Just(0.0f32),
                Just(1.0),
                Just(-1e6),
                Just(1e8),
                Just(-1e30),
                Just(3e38)
            ],
        )
    }

    /// Few distinct steps, so that there are ties and duplicates, sizes that differ between coordinates, and queries both
    /// among the points and far outside.
    fn tables() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (
            1usize..50,
            1usize..120,
            1usize..5,
            magnitude(),
            any::<bool>(),
        )
            .prop_flat_map(|(dim, rows, queries, (scale, offset), shrinking)| {
                let table = |rows: usize, steps: i8| {
                    prop::collection::vec(-steps..=steps, rows * dim).prop_map(move |steps| {
                        let value = |(at, step): (usize, i8)| {
                            let shrink = if shrinking {
                                (1 + at % dim) as f32
                            } else {
                                1.0
                            };
                            (offset + scale * f32::from(step) / 3.0 / shrink)
                                .clamp(f32::MIN, f32::MAX)
                        };
                        steps
                            .into_iter()
                            .enumerate()
                            .map(value)
                            .collect::<Vec<f32>>()
                    })
                };
                (
                    Just(dim),
                    table(rows, 3),
                    prop_oneof![table(queries, 3), table(queries, 127)],
                )
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn nothing_breaks_the_bound(
            (dim, base, queries) in tables(),
            head in 1usize..9,
            segments in 0usize..3,
            k in 1usize..20,
        ) {
            let (base, queries) = (Vectors::from_floats(dim, base).unwrap(), Vectors::from_floats(dim, queries).unwrap());
            check(&base, &queries, Some(Plan { head: 2 * head, segments }), &[k]);
        }

        #[test]
        fn codes_are_as_near_as_they_say(values in prop::collection::vec(-3e3f64..3e3, 1..60), step in 1i16..40) {
            let length: f64 = values.iter().map(|value| value * value).sum();
            let mut coder = Coder::new(length, 1e-12, 1e-6);
            let mut squares = 0.0;
            for (known, &value) in (1..).zip(&values) {
                squares += (f64::from(coder.component(value, step.into())) * f64::from(step) - value).powi(2);
                let (rest, error) = coder.rest();
                let left_out = values[known..].iter().map(|value| value * value).sum::<f64>().sqrt();
                prop_assert!((squares + (f64::from(rest) - left_out).powi(2)).sqrt() <= error);
                prop_assert!(error < 1.0 + f64::from(step) * (known as f64).sqrt(), "and not much farther: {}", error);
            }
        }
    }
}
