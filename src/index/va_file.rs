//! VA+-file.

use std::cell::RefCell;
use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::{BruteForce, BuildError, Index, QueryError, check_base, check_query, check_shape};
use crate::dataset::{Row, Vectors};
use crate::distance::{Metric, Ranker};
use crate::kernel::pair::gamma;
use crate::kernel::va::{self, BLOCK, Candidate, Pairs, STEP};
use crate::kernel::{prefetch, rotate};
use crate::neighbor::{Neighbor, Neighbors, TopK};
use crate::pca::{Pca, PcaOptions};

/// Length of the longest code of the base.
const RADIUS: f64 = 16_000.0;
/// Length of the longest code of a query: RADIUS and this, added and squared, stay below 2³¹.
const FARTHEST: f64 = 30_000.0;

/// Which components are stored where.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    /// Pairs of codes in a head: 2·(pairs − 1) components and the norm of the rest.
    head: usize,
    /// Segments after the head.
    segments: usize,
    /// Codes of a segment: width − 1 components and the norm of the rest.
    width: usize,
}

impl Plan {
    /// The number of components known after each stage.
    fn stages(&self) -> impl Iterator<Item = usize> {
        let (head, width) = (2 * (self.head - 1), self.width - 1);
        (0..=self.segments).map(move |segment| head + segment * width)
    }

    fn components(&self) -> usize {
        self.stages().last().expect("the head")
    }
}

/// Exact search by bounds from a few quantised principal components.
#[derive(Debug, Clone)]
pub struct VaFile {
    full: BruteForce,
    file: Option<Arc<File>>,
}

#[derive(Debug)]
struct File {
    plan: Plan,
    mean: Vec<f64>,
    rotation: Vec<f32>,
    /// Codes per unit of distance.
    scale: f64,
    /// √(1 + ε).
    stretch: f64,
    epsilon: f64,
    /// Greatest distance, in codes, of a point's codes from its true coordinates.
    error: f64,
    ids: Vec<u32>,
    low: Vec<Pairs>,
    high: Vec<Pairs>,
    heads: Vec<Pairs>,
    segments: Vec<Vec<i16>>,
}

/// A query in codes.
#[derive(Debug, Default)]
struct Scratch {
    shifted: Vec<f32>,
    rotated: Vec<f32>,
    head: Vec<[i16; 2]>,
    tail: Vec<i16>,
    error: f64,
    boxes: Vec<i32>,
    blocks: Vec<u32>,
    order: Vec<u64>,
    candidates: Vec<Candidate>,
    seeds: Vec<Candidate>,
    work: Work,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Work {
    blocks: usize,
    refined: usize,
    verified: usize,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl VaFile {
    /// Builds.
    ///
    /// # Errors
    /// If `base` is empty.
    pub fn build(base: Arc<Vectors>) -> Result<Self, BuildError> {
        check_base(&base)?;
        let full = BruteForce::build(Arc::clone(&base), Metric::Euclidean)?;
        let pca = Pca::fit(&base, &PcaOptions::default())?;
        let get = |name: &str, default: usize| std::env::var(name).map_or(default, |v| v.parse().unwrap());
        let plan = Plan { head: get("HEAD", 8), segments: get("SEGS", 4), width: get("WIDTH", 32) };
        let t = std::time::Instant::now();
        let components = plan.components();
        let projected = pca.project_all(&base, components);
        eprintln!("project {:?}", t.elapsed());
        let order = order(projected.view());
        eprintln!("order {:?}", t.elapsed());
        let file = File::new(&base, &pca, projected.view(), &order, plan);
        eprintln!("file {:?}", t.elapsed());
        Ok(Self { full, file: Some(Arc::new(file)) })
    }

    fn search(&self, query: Row<'_>, k: usize) -> Option<Vec<Neighbor>> {
        let file = self.file.as_ref()?;
        SCRATCH.with_borrow_mut(|scratch| file.search(self.full.base(), query, k, scratch))
    }
}

/// Positions in an order in which neighbours in the leading components are near each other.
fn order(projected: ArrayView2<'_, f64>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..projected.nrows() as u32).collect();
    split(projected, &mut order);
    order
}

fn split(projected: ArrayView2<'_, f64>, ids: &mut [u32]) {
    if ids.len() <= BLOCK {
        return;
    }
    let axes = projected.ncols().min(24);
    let mut sums = vec![(0.0f64, 0.0f64); axes];
    for &id in &*ids {
        for (sum, &value) in sums.iter_mut().zip(projected.row(id as usize)) {
            sum.0 += value;
            sum.1 += value * value;
        }
    }
    let n = ids.len() as f64;
    let spread = |&(sum, squares): &(f64, f64)| squares - sum * sum / n;
    let axis = (0..axes).max_by(|&a, &b| spread(&sums[a]).total_cmp(&spread(&sums[b]))).expect("an axis");
    let half = (ids.len() / 2).next_multiple_of(BLOCK);
    ids.select_nth_unstable_by(half, |&a, &b| {
        projected[[a as usize, axis]].total_cmp(&projected[[b as usize, axis]]).then(a.cmp(&b))
    });
    let (left, right) = ids.split_at_mut(half);
    rayon::join(|| split(projected, left), || split(projected, right));
}

impl File {
    fn new(base: &Vectors, pca: &Pca, projected: ArrayView2<'_, f64>, order: &[u32], plan: Plan) -> Self {
        let (n, dim, components) = (base.len(), base.dim(), plan.components());
        let mean = pca.mean().to_vec();
        // Squared lengths from the mean.
        let lengths: Vec<f64> = (0..n)
            .into_par_iter()
            .map(|row| {
                let mut shifted = vec![0.0; dim];
                crate::pca::centre(base.row(row), pca.mean(), &mut shifted);
                shifted.iter().map(|v| v * v).sum()
            })
            .collect();
        let longest = lengths.iter().copied().fold(0.0, f64::max).sqrt();
        let scale = if longest > 0.0 { RADIUS / longest } else { 1.0 };
        let epsilon = pca.orthonormality_error();
        // Of f64 arithmetic, in the shift and the projection.
        let unit = f64::EPSILON;
        let offset = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
        let arithmetic =
            (unit * (dim + 4) as f64 * (components as f64).sqrt() * longest + 4.0 * unit * (offset + longest)) * scale;

        let blocks = n.div_ceil(BLOCK);
        let padded = blocks * BLOCK;
        let mut ids = order.to_vec();
        ids.resize(padded, u32::MAX);
        let width = plan.width;
        let mut heads = vec![Pairs([[0; 2]; BLOCK]); blocks * plan.head];
        let mut segments = vec![vec![0i16; padded * width]; plan.segments];
        let mut error = 0.0f64;
        for position in 0..padded {
            // What fills the last block up repeats the last point, so that it does not widen its box.
            let id = order[position.min(n - 1)] as usize;
            let row = projected.row(id);
            let mut codes = Codes { stages: plan.stages().peekable(), squares: 0.0, rounding: 0.0, worst_rest: 0.0 };
            let length = lengths[id] * scale * scale;
            let slack = 2.0 * epsilon * length + 2.0 * arithmetic * length.sqrt() + arithmetic * arithmetic;
            codes.encode(row.iter().map(|v| v * scale), length, slack, |at, code| {
                if at < 2 * plan.head {
                    heads[position / BLOCK * plan.head + at / 2].0[position % BLOCK][at % 2] = code;
                } else {
                    let at = at - 2 * plan.head;
                    segments[at / width][position * width + at % width] = code;
                }
            });
            error = error.max((codes.rounding + codes.worst_rest).sqrt() + arithmetic);
        }
        let groups = blocks.div_ceil(BLOCK);
        let mut low = vec![Pairs([[i16::MAX; 2]; BLOCK]); groups * plan.head];
        let mut high = vec![Pairs([[i16::MAX; 2]; BLOCK]); groups * plan.head];
        for block in 0..blocks {
            for pair in 0..plan.head {
                let at = block / BLOCK * plan.head + pair;
                for side in 0..2 {
                    let codes = heads[block * plan.head + pair].0.iter().map(|codes| codes[side]);
                    low[at].0[block % BLOCK][side] = codes.clone().min().expect("points");
                    high[at].0[block % BLOCK][side] = codes.max().expect("points");
                }
            }
        }
        let rotation = pca.rotation().rows().into_iter().take(components).flatten().map(|&v| v as f32).collect();
        Self {
            plan,
            mean,
            rotation,
            scale,
            stretch: (1.0 + epsilon).sqrt(),
            epsilon,
            error,
            ids,
            low,
            high,
            heads,
            segments,
        }
    }

    /// Codes the query; false if it is too far away for that.
    fn encode(&self, query: Row<'_>, scratch: &mut Scratch) -> bool {
        let (dim, components) = (self.mean.len(), self.plan.components());
        scratch.shifted.resize(dim, 0.0);
        scratch.rotated.resize(components, 0.0);
        let mut squares = [0.0; 8];
        let mut offset = 0.0f64;
        let mut set = |at: usize, value: f64| {
            let shifted = (value - self.mean[at]) * self.scale;
            squares[at % 8] += shifted * shifted;
            offset = offset.max(value.abs());
            scratch.shifted[at] = shifted as f32;
        };
        match query {
            Row::Bytes(query) => query.iter().enumerate().for_each(|(at, &value)| set(at, value.into())),
            Row::Floats(query) => query.iter().enumerate().for_each(|(at, &value)| set(at, value.into())),
        }
        let length = squares.iter().sum::<f64>();
        if !(length.sqrt() <= FARTHEST) {
            return false;
        }
        rotate::product(&self.rotation, &scratch.shifted, &mut scratch.rotated);
        let u = f64::from(f32::EPSILON) / 2.0;
        let radius = length.sqrt() + 1e-30;
        let root = (components as f64).sqrt();
        let shift = 4.0 * f64::EPSILON * (offset * (dim as f64).sqrt() * self.scale + radius);
        let arithmetic =
            ((gamma(rotate::roundings(dim)) + 2.0 * u) * root * 1.0001 + u) * radius + shift * (1.0 + root) + 1e-20;
        let slack = 2.0 * self.epsilon * length + 2.0 * arithmetic * radius + arithmetic * arithmetic;
        let mut codes = Codes { stages: self.plan.stages().peekable(), squares: 0.0, rounding: 0.0, worst_rest: 0.0 };
        scratch.head.resize(self.plan.head, [0; 2]);
        scratch.tail.resize(self.plan.segments * self.plan.width, 0);
        let (head, tail) = (&mut scratch.head, &mut scratch.tail);
        codes.encode(scratch.rotated.iter().map(|&v| f64::from(v)), length, slack, |at, code| {
            if at < 2 * head.len() {
                head[at / 2][at % 2] = code;
            } else {
                tail[at - 2 * head.len()] = code;
            }
        });
        scratch.error = (codes.rounding + codes.worst_rest).sqrt() + arithmetic;
        true
    }

    /// The greatest bound that a point at the rank of the k-th best can have.
    fn limit(&self, threshold: f64, error: f64) -> i32 {
        let reach = threshold.sqrt() * self.scale * self.stretch * (1.0 + 1e-9) + self.error + error;
        // The cast saturates: an infinite threshold lets all pass.
        (reach * reach * (1.0 + 1e-12)) as i32
    }

    fn search(&self, base: &Vectors, query: Row<'_>, k: usize, scratch: &mut Scratch) -> Option<Vec<Neighbor>> {
        if !self.encode(query, scratch) {
            return None;
        }
        let Scratch { head, tail, error, boxes, blocks, order, candidates, seeds, work, .. } = scratch;
        let ranker = Ranker::new(base, Metric::Euclidean, query);
        let k = k.min(base.len());
        let mut top = TopK::new(k);
        let count = self.ids.len() / BLOCK;
        va::boxes(&self.low, &self.high, head, boxes);
        boxes.truncate(count);

        // The nearest blocks give a first threshold.
        let first = ((2 * k).div_ceil(BLOCK) + 3).min(count);
        order.clear();
        order.extend(boxes.iter().enumerate().map(|(block, &bound)| (bound as u64) << 32 | block as u64));
        order.select_nth_unstable(first - 1);
        blocks.clear();
        blocks.extend(order[..first].iter().map(|&key| key as u32));
        for &block in &*blocks {
            boxes[block as usize] = i32::MAX;
        }
        candidates.clear();
        va::heads(&self.heads, head, blocks, i32::MAX, candidates);
        work.blocks += blocks.len();
        let verify = |candidates: &[Candidate], top: &mut TopK, limit: &mut i32, work: &mut Work| {
            for (at, candidate) in candidates.iter().enumerate() {
                if candidate.bound > *limit {
                    break;
                }
                if let Some(ahead) = candidates.get(at + 3) {
                    if let Some(&id) = self.ids.get(ahead.position as usize).filter(|&&id| id != u32::MAX) {
                        prefetch(base, id as usize);
                    }
                }
                let id = self.ids[candidate.position as usize];
                if id != u32::MAX {
                    work.verified += 1;
                    if top.push(id, ranker.rank(id as usize)) {
                        *limit = self.limit(top.threshold(), *error);
                    }
                }
            }
        };
        let seed = |candidates: &mut Vec<Candidate>,
                    seeds: &mut Vec<Candidate>,
                    top: &mut TopK,
                    limit: &mut i32,
                    work: &mut Work| {
            let best = (2 * k + 12).min(candidates.len());
            if best < candidates.len() {
                candidates.select_nth_unstable_by_key(best, |candidate| candidate.bound);
            }
            seeds.clear();
            seeds.extend(candidates.drain(..best));
            for (segments, query) in self.segments.iter().zip(tail.chunks_exact(self.plan.width)) {
                work.refined += seeds.len();
                va::segments(segments, query, *limit, seeds);
            }
            seeds.sort_unstable_by_key(|candidate| candidate.bound);
            verify(seeds, top, limit, work);
        };
        let mut limit = i32::MAX;
        seed(candidates, seeds, &mut top, &mut limit, work);

        candidates.retain(|candidate| candidate.bound <= limit);
        blocks.clear();
        for (block, &bound) in boxes.iter().enumerate() {
            if bound <= limit {
                blocks.push(block as u32);
            }
        }
        work.blocks += blocks.len();
        va::heads(&self.heads, head, blocks, limit, candidates);
        seed(candidates, seeds, &mut top, &mut limit, work);
        candidates.retain(|candidate| candidate.bound <= limit);
        for (segments, query) in self.segments.iter().zip(tail.chunks_exact(self.plan.width)) {
            work.refined += candidates.len();
            va::segments(segments, query, limit, candidates);
        }
        candidates.sort_unstable_by_key(|candidate| candidate.bound);
        verify(candidates, &mut top, &mut limit, work);
        Some(top.into_neighbors(Metric::Euclidean))
    }
}

/// Coordinates on their way to becoming codes, and what is lost.
struct Codes<I: Iterator<Item = usize>> {
    stages: std::iter::Peekable<I>,
    squares: f64,
    rounding: f64,
    worst_rest: f64,
}

impl<I: Iterator<Item = usize>> Codes<I> {
    /// Writes each component's code, and the norm of the rest after each stage.
    fn encode(&mut self, values: impl Iterator<Item = f64>, length: f64, slack: f64, mut set: impl FnMut(usize, i16)) {
        let mut at = 0;
        let mut first = true;
        let mut code = |at: usize, value: f64| {
            let code = value.round();
            set(at, code as i16);
            value - code
        };
        for (index, value) in values.enumerate() {
            let lost = code(at, value);
            at += 1;
            self.squares += value * value;
            self.rounding += lost * lost;
            if self.stages.next_if_eq(&(index + 1)).is_some() {
                let rest = (length - self.squares).max(0.0).sqrt();
                let unknown = if rest > 0.0 { slack.sqrt().min(slack / rest) } else { slack.sqrt() };
                let lost = code(at, rest).abs() + unknown;
                self.worst_rest = self.worst_rest.max(lost * lost);
                at += 1;
                // A head's last pair is the norm and a zero.
                if std::mem::take(&mut first) {
                    at += 1;
                }
            }
        }
    }
}

impl Index for VaFile {
    fn name(&self) -> &'static str {
        "VA+-file"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    fn len(&self) -> usize {
        self.full.len()
    }

    fn dim(&self) -> usize {
        self.full.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.full.memory_bytes()
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
        super::query_rows(self, queries, k)
    }
}
