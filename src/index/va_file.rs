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
use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::{BruteForce, BuildError, Index, QueryError, check_base, check_query, check_shape};
use crate::dataset::{Row, Storage, Vectors};
use crate::distance::{Metric, Ranker};
use crate::kernel::pair::gamma;
use crate::kernel::va::{self, BLOCK, Candidate, Pairs, STEP};
use crate::kernel::{self, rotate};
use crate::neighbor::{Neighbor, Neighbors, TopK};
use crate::pca::{self, Pca, PcaOptions};

/// Length of the longest code of the base.
const RADIUS: f64 = 16_000.0;
/// Length of the longest code of a query: RADIUS and this, added and squared, stay below 2³¹.
const FARTHEST: f64 = 30_000.0;
/// Codes of a segment: 31 components and the norm of the rest, a cache line.
const WIDTH: usize = 2 * STEP;
/// Beyond this dimension the eigenvectors, O(d³), take longer than they are worth.
const WIDEST: usize = 2_048;
/// Below this number of vectors a scan has no time to be slow.
const FEWEST: usize = 1_000;

/// How a [`VaFile`] divides the components between its passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Components of the first pass, over blocks of points: even, at least 2.
    pub head: usize,
    /// Segments of 31 further components each, read for the points that are left.
    pub segments: usize,
}

impl Plan {
    /// Pairs of codes in a head: its components, the norm of the rest and a zero.
    fn pairs(self) -> usize {
        self.head / 2 + 1
    }

    /// The number of components known after each stage.
    fn stages(self) -> impl Iterator<Item = usize> {
        (0..=self.segments).map(move |segment| self.head + segment * (WIDTH - 1))
    }

    fn components(self) -> usize {
        self.head + self.segments * (WIDTH - 1)
    }

    fn codes(self) -> usize {
        2 * self.pairs() + self.segments * WIDTH
    }

    /// Bytes that a point takes, its share of its block's box included.
    fn bytes(self) -> usize {
        size_of::<i16>() * (self.codes() + (4 * self.pairs()).div_ceil(BLOCK)) + size_of::<u32>()
    }
}

/// Build parameters of [`VaFile`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VaFileParams {
    /// The division of the components, or `None` to choose it from the data: among those that take no more than half the
    /// bytes of the vectors themselves, the one of least expected work; none, that is a full scan, if that is less.
    pub plan: Option<Plan>,
    /// Seed of the sample that the rotation is taken from.
    pub seed: u64,
}

/// Exact Euclidean search by lower bounds from a few quantised principal components.
///
/// Most points are excluded block by block, or by their first components; the others by more; what is left is compared
/// exactly, nearest bound first. Where the data have no structure that a rotation could find, it is a [`BruteForce`].
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
                return Err(BuildError::InvalidParameter { name: "head", received, expected: "even, 2..=64" });
            }
            if plan.segments > 64 {
                let received = plan.segments as f64;
                return Err(BuildError::InvalidParameter { name: "segments", received, expected: "at most 64" });
            }
        }
        let full = BruteForce::build(Arc::clone(&base), Metric::Euclidean)?;
        let plans = match params.plan {
            Some(plan) => vec![plan],
            None if base.dim() > WIDEST || base.len() < FEWEST => Vec::new(),
            None => plans(&base),
        };
        let Some(components) = plans.iter().map(|plan| plan.components().min(base.dim())).max() else {
            return Ok(Self { full, file: None, batch_by_scan: true });
        };

        let pca = Pca::fit(&base, &PcaOptions { seed: params.seed, ..PcaOptions::default() })?;
        let projected = pca.project_all(&base, components);
        let lengths = squared_lengths(&base, &pca);
        let order = order(projected.view());
        let mut files =
            plans.iter().filter_map(|&plan| File::new(&base, &pca, projected.view(), &lengths, &order, plan));
        if params.plan.is_some() {
            let file = files.next().map(Arc::new);
            return Ok(Self { full, batch_by_scan: file.is_none(), file });
        }
        let best = files.map(|file| (file.expected_cost(&base), file)).min_by(|a, b| a.0.total_cmp(&b.0));
        let (scan, batch) = scan_cost(&base);
        Ok(match best {
            Some((cost, file)) if cost < scan => Self { full, file: Some(Arc::new(file)), batch_by_scan: batch < cost },
            _ => Self { full, file: None, batch_by_scan: true },
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

/// The plans that are tried: several heads, and segments as the memory allows.
fn plans(base: &Vectors) -> Vec<Plan> {
    let dim = base.dim();
    let budget = base.memory_bytes() / base.len() / 2;
    let mut plans = Vec::new();
    for head in [6, 14, 22, 30] {
        let most = dim.saturating_sub(head).div_ceil(WIDTH - 1);
        let fitting = (0..=most).rev().find(|&segments| Plan { head, segments }.bytes() <= budget);
        // Half the segments as well: where few components hold nearly all of the variance, the rest costs for nothing.
        for segments in fitting.into_iter().flat_map(|most| [most, most / 2]) {
            let plan = Plan { head, segments };
            if (head <= dim.next_multiple_of(2)) && !plans.contains(&plan) {
                plans.push(plan);
            }
        }
    }
    plans
}

/// Expected nanoseconds of a full scan: of one query, bounded by memory, and of one of many, bounded by arithmetic.
/// These, and those of [`File::expected_cost`], were measured once; only their proportions matter.
fn scan_cost(base: &Vectors) -> (f64, f64) {
    let values = (base.len() * base.dim()) as f64;
    match base.storage() {
        Storage::Bytes(_) => (values * 0.05, values * 0.014),
        Storage::Floats(_) => (values * 0.2, values * 0.023),
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
    let axis = (0..axes).max_by(|&a, &b| spread(a).total_cmp(&spread(b))).expect("an axis");
    let half = (ids.len() / 2).next_multiple_of(BLOCK);
    if half < ids.len() {
        ids.select_nth_unstable_by(half, |&a, &b| {
            projected[[a as usize, axis]].total_cmp(&projected[[b as usize, axis]]).then(a.cmp(&b))
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
    /// E, the greatest distance of a point's codes from what they stand for.
    error: f64,
    /// The row that stands at each position; `u32::MAX` where the last block is filled up.
    ids: Vec<u32>,
    /// Boxes of the blocks' heads.
    low: Vec<Pairs>,
    high: Vec<Pairs>,
    heads: Vec<Pairs>,
    segments: Vec<Vec<i16>>,
}

/// What a thread needs for a query, kept for the next one.
#[derive(Debug, Default)]
struct Scratch {
    shifted: Vec<f32>,
    rotated: Vec<f32>,
    codes: Vec<i16>,
    head: Vec<[i16; 2]>,
    boxes: Vec<i32>,
    blocks: Vec<u32>,
    nearest: Vec<u64>,
    candidates: Vec<Candidate>,
    seeds: Vec<Candidate>,
    work: Work,
}

/// How much was done.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Work {
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

        let blocks = n.div_ceil(BLOCK);
        let mut codes = vec![0i16; blocks * BLOCK * plan.codes()];
        let error = codes
            .par_chunks_mut(plan.codes())
            .enumerate()
            .map(|(position, codes)| {
                // What fills the last block up repeats the last point, so as not to widen its box.
                let id = order[position.min(n - 1)] as usize;
                let length = lengths[id] * scale * scale;
                let values = projected.row(id);
                let values = values.iter().take(components).map(|value| value * scale);
                encode(plan, values, length, epsilon, relative * length.sqrt(), codes)
            })
            .reduce(|| 0.0, |a, b| if a < b || b.is_nan() { b } else { a });
        if !error.is_finite() || epsilon > 0.1 {
            return None;
        }

        let pairs = plan.pairs();
        let mut heads = vec![Pairs([[0; 2]; BLOCK]); blocks * pairs];
        let mut segments = vec![Vec::with_capacity(blocks * BLOCK * WIDTH); plan.segments];
        for (position, codes) in codes.chunks_exact(plan.codes()).enumerate() {
            let (head, tail) = codes.split_at(2 * pairs);
            for (pair, codes) in head.as_chunks::<2>().0.iter().enumerate() {
                heads[position / BLOCK * pairs + pair].0[position % BLOCK] = *codes;
            }
            segments.iter_mut().zip(tail.chunks_exact(WIDTH)).for_each(|(segments, codes)| segments.extend(codes));
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
        let rotation =
            pca.rotation().rows().into_iter().take(components).flatten().map(|&value| value as f32).collect();
        Some(Self { plan, mean, rotation, scale, epsilon, error, ids, low, high, heads, segments })
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.mean)
            + size_of_val(&*self.rotation)
            + size_of_val(&*self.ids)
            + size_of_val(&*self.heads)
            + 2 * size_of_val(&*self.low)
            + self.segments.iter().map(|segments| size_of_val(&**segments)).sum::<usize>()
    }

    /// Codes the query and returns E′, or `None` if it is too far away from the base for 16 bits.
    fn encode_query(&self, query: Row<'_>, scratch: &mut Scratch) -> Option<f64> {
        let Scratch { shifted, rotated, codes, head, .. } = scratch;
        let (dim, components) = (self.mean.len(), self.plan.components().min(self.mean.len()));
        shifted.resize(dim, 0.0);
        rotated.resize(components, 0.0);
        codes.resize(self.plan.codes(), 0);
        let length = match query {
            Row::Bytes(query) => self.shift(query, shifted),
            Row::Floats(query) => self.shift(query, shifted),
        };
        let radius = length.sqrt();
        // Said so that a NaN returns as well.
        if radius.is_nan() || radius > FARTHEST {
            return None;
        }
        rotate::product(&self.rotation, shifted, rotated);
        // In f32: the shifted query is rounded by the share u, and so is the rotation, whose Frobenius norm is the root
        // of its number of rows; then there is the product's own rounding, and what underflows.
        let u = f64::from(f32::EPSILON) / 2.0;
        let root = (components as f64).sqrt();
        let arithmetic = ((gamma(rotate::roundings(dim)) + 2.0 * u) * root + 2.0 * u) * 1.001 * radius + 1e-30;
        let values = rotated.iter().map(|&value| f64::from(value));
        let error = encode(self.plan, values, length, self.epsilon, arithmetic, codes);
        head.clear();
        head.extend(codes[..2 * self.plan.pairs()].as_chunks::<2>().0);
        error.is_finite().then_some(error)
    }

    /// Writes s·(query − µ) and returns its squared length.
    fn shift<T: Copy + Into<f64>>(&self, query: &[T], out: &mut [f32]) -> f64 {
        let mut squares = [0.0; 8];
        for ((out, query), mean) in out.chunks_mut(8).zip(query.chunks(8)).zip(self.mean.chunks(8)) {
            for (((out, &value), mean), square) in out.iter_mut().zip(query).zip(mean).zip(&mut squares) {
                let shifted = (value.into() - mean) * self.scale;
                *square += shifted * shifted;
                *out = shifted as f32;
            }
        }
        squares.iter().sum()
    }

    /// The greatest squared distance in codes at which a point can be as near as a rank value.
    fn limit(&self, rank: f64, error: f64) -> i32 {
        // The last factors are for the rounding of the rank itself and of this line; the cast saturates.
        let reach = rank.sqrt() * self.scale * (1.0 + self.epsilon) * (1.0 + 1e-9) + self.error + error;
        (reach * reach * (1.0 + 1e-12)) as i32
    }

    /// Asks the memory for what stage `stage` reads of a point: a segment, or after the last one nothing yet.
    #[inline]
    fn fetch(&self, stage: usize, position: u32) {
        if let Some(segments) = self.segments.get(stage) {
            kernel::prefetch(&segments[position as usize * WIDTH..][..WIDTH]);
        }
    }

    /// Adds all segments to the bounds of the candidates, and keeps those within the limit.
    fn refine(&self, query: &[i16], limit: i32, candidates: &mut Vec<Candidate>, work: &mut Work) {
        for (stage, (segments, query)) in self.segments.iter().zip(query.chunks_exact(WIDTH)).enumerate() {
            work.refined += candidates.len();
            va::segments(segments, query, limit, candidates, |position| self.fetch(stage + 1, position));
        }
    }

    /// `None` if the query is too far away to be coded.
    fn search(&self, base: &Vectors, query: Row<'_>, k: usize, scratch: &mut Scratch) -> Option<Vec<Neighbor>> {
        /// Blocks, beyond those that k points need, and candidates, beyond twice k, from which the first threshold comes.
        const FIRST_BLOCKS: usize = 8;
        const SEEDS: usize = 12;
        let error = self.encode_query(query, scratch)?;
        let Scratch { codes, head, boxes, blocks, nearest, candidates, seeds, work, .. } = scratch;
        let tail = &codes[2 * self.plan.pairs()..];
        let count = self.ids.len() / BLOCK;
        let k = k.min(base.len());
        let mut search = Verifier {
            file: self,
            base,
            ranker: Ranker::new(base, Metric::Euclidean, query),
            top: TopK::new(k),
            error,
            limit: i32::MAX,
        };

        // The nearest blocks, and in them the nearest points, give a first threshold.
        va::boxes(&self.low, &self.high, head, boxes);
        boxes.truncate(count);
        let first = ((2 * k).div_ceil(BLOCK) + FIRST_BLOCKS).min(count);
        nearest.clear();
        nearest.extend(boxes.iter().zip(0u64..).map(|(&bound, block)| (bound as u64) << 32 | block));
        nearest.select_nth_unstable(first - 1);
        blocks.clear();
        blocks.extend(nearest[..first].iter().map(|&key| key as u32));
        candidates.clear();
        va::heads(&self.heads, head, blocks, i32::MAX, candidates, |position| self.fetch(0, position));
        work.blocks += blocks.len();
        let seed = |search: &mut Verifier<'_>, candidates: &mut Vec<Candidate>, seeds: &mut Vec<_>, work: &mut Work| {
            let best = (2 * k + SEEDS).min(candidates.len());
            if best < candidates.len() {
                candidates.select_nth_unstable_by_key(best, |candidate| candidate.bound);
            }
            seeds.clear();
            seeds.extend(candidates.drain(..best));
            self.refine(tail, search.limit, seeds, work);
            search.verify(seeds, work);
            candidates.retain(|candidate| candidate.bound <= search.limit);
        };
        seed(&mut search, candidates, seeds, work);

        // All other blocks that it does not exclude, and of their points again the best first.
        blocks.iter().for_each(|&block| boxes[block as usize] = i32::MAX);
        blocks.clear();
        let limit = search.limit;
        blocks
            .extend(boxes.iter().zip(0..).filter(|&(&bound, _)| bound <= limit && bound < i32::MAX).map(|(_, at)| at));
        va::heads(&self.heads, head, blocks, limit, candidates, |position| self.fetch(0, position));
        work.blocks += blocks.len();
        seed(&mut search, candidates, seeds, work);
        self.refine(tail, search.limit, candidates, work);
        search.verify(candidates, work);
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
        let Work { blocks, refined, verified } = scratch.work;
        let row = base.memory_bytes() as f64 / base.len() as f64;
        let per_query = blocks as f64 * self.plan.pairs() as f64 * 3.0
            + refined as f64 * 9.0
            + verified as f64 * (30.0 + row * 0.14);
        let boxes = (self.ids.len() / BLOCK * self.plan.pairs()) as f64 * 0.2;
        per_query / rows.len() as f64 + boxes + self.rotation.len() as f64 * 0.07
    }
}

/// The exact comparison at the end of the passes, and the threshold that comes from it.
struct Verifier<'a> {
    file: &'a File,
    base: &'a Vectors,
    ranker: Ranker<'a>,
    top: TopK,
    error: f64,
    limit: i32,
}

impl Verifier<'_> {
    /// Compares the candidates exactly, nearest bound first, until a bound is beyond the limit.
    fn verify(&mut self, candidates: &mut [Candidate], work: &mut Work) {
        /// How many candidates ahead rows are fetched.
        const AHEAD: usize = 4;
        candidates.sort_unstable_by_key(|candidate| candidate.bound);
        candidates.iter().take(AHEAD).for_each(|candidate| self.fetch(candidate));
        for (at, candidate) in candidates.iter().enumerate() {
            if candidate.bound > self.limit {
                return;
            }
            if let Some(ahead) = candidates.get(at + AHEAD) {
                self.fetch(ahead);
            }
            let id = self.file.ids[candidate.position as usize];
            if id != u32::MAX {
                work.verified += 1;
                if self.top.push(id, self.ranker.rank(id as usize)) {
                    self.limit = self.file.limit(self.top.threshold(), self.error);
                }
            }
        }
    }

    fn fetch(&self, candidate: &Candidate) {
        let id = self.file.ids[candidate.position as usize];
        if id != u32::MAX && candidate.bound <= self.limit {
            match self.base.row(id as usize) {
                Row::Bytes(row) => kernel::prefetch(row),
                Row::Floats(row) => kernel::prefetch(row),
            }
        }
    }
}

/// Writes the codes of coordinates that are known to within `arithmetic` (a distance), of a vector of squared length
/// `length`: a stage's components, then the norm of the rest, after the head also a zero. Returns the greatest distance of
/// a stage's codes from what they stand for. Coordinates that are missing are zero.
fn encode(
    plan: Plan,
    values: impl Iterator<Item = f64>,
    length: f64,
    epsilon: f64,
    arithmetic: f64,
    codes: &mut [i16],
) -> f64 {
    // What the square of the norm of the rest, a difference, can be off by: for ε, for the coordinates, for f64.
    let slack = (2.0 * epsilon + 1e-12) * length + 2.01 * arithmetic * length.sqrt() + arithmetic * arithmetic;
    let round = |value: f64| {
        // Away from zero and to zero again is to the nearest, without a call.
        let code = (value + 0.5f64.copysign(value)) as i16;
        (code, value - f64::from(code))
    };
    let mut values = values.chain(std::iter::repeat(0.0));
    let (mut squares, mut rounding, mut worst_rest) = (0.0, 0.0, 0.0f64);
    let (mut at, mut known) = (0, 0);
    for (stage, components) in plan.stages().enumerate() {
        for (code, value) in codes[at..].iter_mut().zip(&mut values).take(components - known) {
            let lost;
            (*code, lost) = round(value);
            squares += value * value;
            rounding += lost * lost;
        }
        at += components - known;
        known = components;
        let rest = (length - squares).max(0.0).sqrt();
        // |√a − √b| is at most √|a − b|, and |a − b| / √b.
        let unknown = if rest > 0.0 { slack.sqrt().min(slack / rest) } else { slack.sqrt() };
        let (code, lost) = round(rest);
        codes[at] = code;
        let lost = lost.abs() + unknown;
        worst_rest = worst_rest.max(lost * lost);
        at += 1;
        if stage == 0 {
            codes[at] = 0;
            at += 1;
        }
    }
    (rounding + worst_rest).sqrt() + arithmetic
}

impl Index for VaFile {
    fn name(&self) -> &'static str {
        "VA+-file"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let (head, segments) = self.plan().map_or((0, 0), |plan| (plan.head, plan.segments));
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
                assert_eq!(index.query(&query, k).unwrap(), expected, "query {row}, k = {k}");
                assert_eq!(batch.row(row), expected, "query {row} of a batch, k = {k}");
            }
        }
        index
    }

    /// Hidden variables of shrinking size, mixed, shifted, with noise: what a rotation can find.
    fn structured(rows: usize, dim: usize, seed: u64) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mixing: Vec<Vec<f32>> = (0..6).map(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let hidden: Vec<f32> = (0..6).map(|i| rng.random_range(-100.0f32..100.0) / (i + 1) as f32).collect();
            values.extend((0..dim).map(|at| {
                20.0 + rng.random_range(-1.0f32..1.0) + (0..6).map(|i| hidden[i] * mixing[i][at]).sum::<f32>()
            }));
        }
        Vectors::from_floats(dim, values).unwrap()
    }

    fn to_bytes(vectors: &Vectors) -> Vectors {
        let bytes: Vec<u8> = vectors.to_floats().iter().map(|&value| value as u8).collect();
        Vectors::from_bytes(vectors.dim(), bytes).unwrap()
    }

    #[test]
    fn finds_the_true_neighbours_and_little_else() {
        for (dim, plan) in [(40, Plan { head: 6, segments: 1 }), (70, Plan { head: 14, segments: 2 })] {
            let (base, queries) = (structured(3_001, dim, 1), structured(40, dim, 2));
            let index = check(&base, &queries, Some(plan), &[1, 10, 100, 5_000]);
            check(&to_bytes(&base), &to_bytes(&queries), Some(plan), &[1, 10, 100]);
            // Queries that are no bytes, over bytes.
            check(&to_bytes(&base), &queries, Some(plan), &[10]);
            let mut scratch = Scratch::default();
            let file = index.file.as_ref().unwrap();
            (0..queries.len()).for_each(|row| _ = file.search(&base, queries.row(row), 10, &mut scratch));
            assert!(scratch.work.verified / queries.len() < 150, "of 3,001: {:?}", scratch.work);
        }
    }

    #[test]
    fn chooses_a_plan_where_there_is_structure_and_a_scan_where_there_is_none() {
        let index = check(&structured(4_000, 64, 1), &structured(10, 64, 2), None, &[10]);
        let plan = index.plan().expect("structure");
        assert!(plan.bytes() <= 64 * 4 / 2);
        assert!(index.memory_bytes() <= 4_000 * 64 * 4 * 3 / 2, "{}", index.memory_bytes());

        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let noise: Vec<f32> = (0..2_000 * 200).map(|_| rng.random_range(-1.0..1.0)).collect();
        let noise = Vectors::from_floats(200, noise).unwrap();
        assert_eq!(check(&noise, &noise.head(5), None, &[10]).plan(), None);
        assert_eq!(check(&structured(50, 8, 1), &structured(3, 8, 2), None, &[3]).plan(), None);
    }

    #[test]
    fn one_thread_and_two_build_and_answer_alike() {
        let (base, queries) = (Arc::new(structured(2_000, 50, 1)), structured(20, 50, 2));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let index = VaFile::build(Arc::clone(&base), &VaFileParams::default()).unwrap();
                let found = index.query_batch(&queries, 10).unwrap();
                (index.file.map(|file| (file.plan, file.error.to_bits(), file.ids.clone(), file.heads.clone())), found)
            })
        };
        assert!(on(1) == on(2));
    }

    #[test]
    fn refuses_plans_that_are_none() {
        let base = Arc::new(structured(10, 4, 1));
        let build = |head, segments| {
            VaFile::build(Arc::clone(&base), &VaFileParams { plan: Some(Plan { head, segments }), seed: 0 })
                .unwrap_err()
        };
        let error = |name, received, expected| BuildError::InvalidParameter { name, received, expected };
        assert_eq!(build(3, 0), error("head", 3.0, "even, 2..=64"));
        assert_eq!(build(0, 0), error("head", 0.0, "even, 2..=64"));
        assert_eq!(build(2, 65), error("segments", 65.0, "at most 64"));
        let empty = Arc::new(Vectors::from_bytes(3, vec![]).unwrap());
        assert_eq!(VaFile::build(empty, &VaFileParams::default()).unwrap_err(), BuildError::Empty);
    }

    /// A coordinate's scale and offset: every magnitude that f32 has.
    fn magnitude() -> impl Strategy<Value = (f32, f32)> {
        let powers = prop::sample::select(vec![1e-45f32, 1e-40, 1e-38, 1e-20, 1e-3, 1.0, 255.0, 1e6, 1e20, 1e38]);
        (powers, prop_oneof![Just(0.0f32), Just(1.0), Just(-1e6), Just(1e8), Just(-1e30), Just(3e38)])
    }

    /// Few distinct steps, so that there are ties and duplicates, sizes that differ between coordinates, and queries both
    /// among the points and far outside.
    fn tables() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (1usize..50, 1usize..120, 1usize..5, magnitude(), any::<bool>()).prop_flat_map(
            |(dim, rows, queries, (scale, offset), shrinking)| {
                let table = |rows: usize, steps: i8| {
                    prop::collection::vec(-steps..=steps, rows * dim).prop_map(move |steps| {
                        let value = |(at, step): (usize, i8)| {
                            let shrink = if shrinking { (1 + at % dim) as f32 } else { 1.0 };
                            (offset + scale * f32::from(step) / 3.0 / shrink).clamp(f32::MIN, f32::MAX)
                        };
                        steps.into_iter().enumerate().map(value).collect::<Vec<f32>>()
                    })
                };
                (Just(dim), table(rows, 3), prop_oneof![table(queries, 3), table(queries, 127)])
            },
        )
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
        fn codes_are_as_near_as_they_say(values in prop::collection::vec(-3e3f64..3e3, 1..60), head in 1usize..9) {
            let plan = Plan { head: 2 * head, segments: 1 };
            let length: f64 = values.iter().map(|value| value * value).sum();
            let mut codes = vec![0; plan.codes()];
            let error = encode(plan, values.iter().copied(), length, 1e-12, 1e-6, &mut codes);
            // The head: its components and the norm of all others.
            let rest = |from: usize| values.iter().skip(from).map(|value| value * value).sum::<f64>().sqrt();
            let value = |at: usize| values.get(at).copied().unwrap_or(0.0);
            let mut squares = (f64::from(codes[plan.head]) - rest(plan.head)).powi(2);
            squares += (0..plan.head).map(|at| (f64::from(codes[at]) - value(at)).powi(2)).sum::<f64>();
            prop_assert!(squares.sqrt() <= error);
            prop_assert!(error < 1.0 + (plan.components() as f64).sqrt(), "and not much farther: {}", error);
        }
    }
}
