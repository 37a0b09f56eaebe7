//! A query on its way through the passes.
//!
//! ```text
//! all boxes -+-> the nearest blocks -> their best points, compared exactly: a first threshold
//!            |
//!            +-> the other blocks within it -> cells -> heads -> segment 1 -> ... -> exact
//! ```
//!
//! A file may have no cells. With cells and without segments, heads are only read for the first
//! blocks, as they have fewer components than the cells.
//!
//! The sooner the threshold is near its last value, the less the later passes have to read. So each
//! pass first takes a few of the best to the end.

use rayon::prelude::*;

use super::layout::File;
use super::plan::{self, Work, rotation_cost, verification_cost};
use super::query_code::QueryCode;
use crate::distance::{Metric, Ranker};
use crate::neighbor::{Candidate, TopK};
use crate::simd::cells::{self, Kept, Tables};
use crate::simd::va_codes::{self, BLOCK, Survivor};
use crate::vectors::{Row, Vectors};

/// The first threshold comes from the blocks that hold 2·k points, and this many more. More of
/// them make the threshold smaller, and each costs 32 heads…
const FIRST_BLOCKS: usize = 8;
/// …and from 2·k of their points, and this many more, each of which costs an exact comparison.
const SEEDS: usize = 12;
/// Where more blocks than this are left after that, the nearest quarter of this number gives a
/// second threshold, before the others are looked at. It takes a tenth off the slowest queries of
/// pixels.
const MANY_BLOCKS: usize = 256;
/// Blocks of which only the nearest counts when the first blocks are sought. More of them make that
/// faster, and the bound that it finds larger.
const TOGETHER: usize = 8;
/// Rows of so many bytes are asked for from memory at once, so that they arrive while others are
/// compared; but at least 4 rows, and at most 32.
const BYTES_TOGETHER: usize = 2_048;

/// What a thread needs for a query, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    query: QueryCode,
    lists: Lists,
}

/// What is left after each pass.
#[derive(Debug, Default)]
struct Lists {
    /// The bound of each block's box; `i32::MAX` once the block is done.
    boxes: Vec<i32>,
    minima: Vec<i32>,
    /// The blocks to be looked at next.
    blocks: Vec<u32>,
    tables: Vec<Tables>,
    /// Those of the blocks in which a point is left after the look at its cells.
    kept: Vec<Kept>,
    /// The points that no bound has excluded so far.
    candidates: Vec<Survivor>,
    /// Those of them that are taken to the end first.
    seeds: Vec<Survivor>,
}

/// What a search found, and how much it did for it.
pub(super) struct Searched {
    pub candidates: Vec<Candidate>,
    pub work: Work,
}

/// The min(`k`, n) nearest rows, or `None` if the query is too far away to be coded.
pub(super) fn search(
    file: &File,
    base: &Vectors,
    row: Row<'_>,
    k: usize,
    scratch: &mut Scratch,
) -> Option<Searched> {
    let Scratch { query, lists } = scratch;
    let k = k.min(base.len());
    let mut search = Search::begin(file, base, row, TopK::new(k), query)?;
    search.most_seeds = 2 * k + SEEDS;
    // Each pass leaves in the lists what the next one begins with, and lowers the threshold in
    // `top`.
    search.first_blocks(k, lists);
    search.other_blocks(lists);
    let stage = search.all_segments(lists);
    search.verify(stage, &mut lists.candidates);
    Some(search.found())
}

/// The rows within the limit of `top`, or `None` if the query is too far away to be coded, or more
/// than `most` rows would have to be compared exactly.
///
/// The threshold is known from the start, so that no pass has to find one: all boxes within it,
/// their heads, the segments, and what is left of that.
pub(super) fn search_within(
    file: &File,
    base: &Vectors,
    row: Row<'_>,
    top: TopK,
    most: usize,
    scratch: &mut Scratch,
) -> Option<Searched> {
    let Scratch { query, lists } = scratch;
    let mut search = Search::begin(file, base, row, top, query)?;
    search.bound_boxes(lists);
    lists.candidates.clear();
    search.other_blocks(lists);
    let stage = search.all_segments(lists);
    if lists.candidates.len() > most {
        return None;
    }
    search.verify(stage, &mut lists.candidates);
    Some(search.found())
}

/// Expected nanoseconds of a query for `k` neighbours, from the work that some rows of the base are
/// as queries.
pub(super) fn expected_cost(file: &File, base: &Vectors, k: usize) -> f64 {
    const QUERIES: usize = 48;
    // Up to 48 rows, at equal distances in the base.
    let step = base.len().div_ceil(QUERIES);
    let queries = base.len().div_ceil(step);
    let work = |scratch: &mut Scratch, query: usize| {
        // One more, since a row finds itself.
        let searched = search(file, base, base.row(query * step), k + 1, scratch);
        searched.map_or(Work::default(), |searched| searched.work)
    };
    let work = (0..queries)
        .into_par_iter()
        .map_init(Scratch::default, work)
        .reduce(Work::default, Work::plus);
    plan::query_cost(base, file.plan, work, queries)
}

/// What the passes have in common: the query, and the best rows so far, which set the limit.
struct Search<'a> {
    file: &'a File,
    base: &'a Vectors,
    ranker: Ranker<'a>,
    top: TopK,
    query: &'a mut QueryCode,
    /// How many of the best candidates are taken to the end before the others, for a smaller
    /// threshold; none where the threshold is known.
    most_seeds: usize,
    /// Candidates whose rows are asked for from memory together.
    together: usize,
    work: Work,
}

impl<'a> Search<'a> {
    /// `None` if the query is too far away to be coded.
    fn begin(
        file: &'a File,
        base: &'a Vectors,
        row: Row<'a>,
        top: TopK,
        query: &'a mut QueryCode,
    ) -> Option<Self> {
        query.begin(file, row)?;
        Some(Self {
            file,
            base,
            ranker: Ranker::new(base, Metric::Euclidean, row),
            top,
            query,
            most_seeds: 0,
            together: (BYTES_TOGETHER * base.len() / base.memory_bytes()).clamp(4, 32),
            work: Work::default(),
        })
    }

    fn found(mut self) -> Searched {
        self.work.rotated = self.query.components;
        Searched {
            candidates: self.top.into_candidates(),
            work: self.work,
        }
    }

    /// One pass over all boxes.
    fn bound_boxes(&self, lists: &mut Lists) {
        let (boxes, file) = (&mut lists.boxes, self.file);
        va_codes::boxes(&file.boxes.low, &file.boxes.high, &self.query.head, boxes);
        // The last group of boxes may be filled up; what is beyond the last block is cut off.
        boxes.truncate(file.blocks());
    }

    /// The nearest blocks, and in them the nearest points, give a first threshold.
    fn first_blocks(&mut self, k: usize, lists: &mut Lists) {
        self.bound_boxes(lists);
        let Lists {
            boxes,
            minima,
            blocks,
            candidates,
            seeds,
            ..
        } = lists;
        let file = self.file;
        // All blocks within `near` are at least `first`; of more than that the nearest are taken.
        let first = ((2 * k).div_ceil(BLOCK) + FIRST_BLOCKS).min(file.blocks());
        let near = bound_of_nearest(boxes, first, minima);
        blocks.clear();
        va_codes::within(boxes, near, blocks);
        if first < blocks.len() {
            blocks.select_nth_unstable_by_key(first - 1, |&block| boxes[block as usize]);
            blocks.truncate(first);
        }

        // There is no threshold yet, so that no head excludes a point: all points of these blocks
        // become candidates. The best of them are compared exactly, which gives the first
        // threshold. The other candidates stay for the later passes.
        candidates.clear();
        self.heads(blocks, candidates);
        self.seed(0, candidates, seeds);
        // So that `other_blocks` does not take them again.
        for &block in &*blocks {
            boxes[block as usize] = i32::MAX;
        }
    }

    /// All other blocks whose boxes the threshold does not exclude.
    fn other_blocks(&mut self, lists: &mut Lists) {
        let Lists {
            boxes,
            tables,
            kept,
            blocks,
            candidates,
            seeds,
            ..
        } = lists;
        blocks.clear();
        // The blocks that are done have the bound i32::MAX, and stay out. No true bound reaches it:
        // see FARTHEST in `query_code`.
        let limit = self.limit(0).min(i32::MAX - 1);
        va_codes::within(boxes, limit, blocks);
        if blocks.len() > MANY_BLOCKS && self.most_seeds > 0 {
            // The nearest of them first, for a threshold that excludes some of the others.
            let nearest = MANY_BLOCKS / 4;
            blocks.select_nth_unstable_by_key(nearest, |&block| boxes[block as usize]);
            let others = blocks.split_off(nearest);
            self.heads(blocks, candidates);
            self.seed(0, candidates, seeds);

            // The threshold is smaller now, so that the boxes of the others are looked at once
            // more.
            let limit = self.limit(0);
            let within = others
                .into_iter()
                .filter(|&block| boxes[block as usize] <= limit);
            blocks.clear();
            blocks.extend(within);
            // In the order of the memory again.
            blocks.sort_unstable();
        }
        self.cells_and_heads(blocks, tables, kept, candidates);
    }

    /// Appends the points of some blocks that neither their cells nor their heads exclude.
    fn cells_and_heads(
        &mut self,
        blocks: &mut Vec<u32>,
        tables: &mut Vec<Tables>,
        kept: &mut Vec<Kept>,
        candidates: &mut Vec<Survivor>,
    ) {
        let file = self.file;
        let threshold = self.top.threshold();
        let Some(cells) = file.cells.as_ref().filter(|_| threshold.is_finite()) else {
            return self.heads(blocks, candidates);
        };
        self.query.compute(file, cells.components());
        // The inequality of the module `va_file` for components that are not rounded: their only
        // errors are those of the arithmetic.
        let reach = self.reach(cells.error + self.query.arithmetic);
        let query = &self.query.leading[..cells.components()];
        let unit = cells.tables(query, reach * reach, tables);
        self.work.cells += blocks.len() * tables.len();
        kept.clear();
        cells::near(&cells.lines, tables, blocks, kept);

        if file.plan.segments == 0 {
            // A head has fewer components, and would exclude few points more.
            for kept in &*kept {
                append_points(kept, unit, candidates);
            }
            return;
        }
        blocks.clear();
        blocks.extend(kept.iter().map(|kept| kept.block));
        let before = candidates.len();
        self.heads(blocks, candidates);
        keep_near(candidates, before, kept);
    }

    /// Takes the candidates through the segments that are worth it; returns the last stage.
    fn all_segments(&mut self, lists: &mut Lists) -> usize {
        let Lists {
            candidates, seeds, ..
        } = lists;
        let mut stage = 0;
        while self.is_worth_refining(stage, candidates.len()) {
            stage += 1;
            self.refine(stage, candidates);
            // The first segment makes the bounds larger, and changes which candidates are the best.
            // They are taken to the end once more.
            if stage == 1 && self.most_seeds > 0 {
                self.seed(stage, candidates, seeds);
            }
        }
        stage
    }

    /// The greatest squared distance in codes of a stage at which a point can still be among the k
    /// nearest.
    fn limit(&self, stage: usize) -> i32 {
        // The inequality of the module `va_file`:
        //
        //     ‖c(q) − c(x)‖ ≤ s·√(1 + ε)·‖q − x‖ + E + E′.
        //
        // Its right side at the distance of the k-th best is the reach.
        let reach = self.reach(self.file.errors[stage] + self.query.errors[stage]);
        // The factor covers the rounding of this expression. Truncation loses nothing, as bounds
        // are integers. The cast saturates: while the threshold is infinite the limit is i32::MAX,
        // which excludes nothing.
        (reach * reach * (1.0 + 1e-12)) as i32
    }

    /// How far apart the components of the query and of a point can be, in units of the codes, if
    /// the point is among the k nearest and the components of both are off by `errors` together.
    fn reach(&self, errors: f64) -> f64 {
        let File { scale, epsilon, .. } = self.file;
        // The root of 1 + ε is left out, which makes it larger. The factor 1 + 10⁻⁹ covers the
        // rounding of the reduced distance.
        self.top.threshold().sqrt() * scale * (1.0 + epsilon) * (1.0 + 1e-9) + errors
    }

    /// Appends the points of some blocks that their heads do not exclude.
    fn heads(&mut self, blocks: &[u32], candidates: &mut Vec<Survivor>) {
        let file = self.file;
        self.work.blocks += blocks.len();
        let limit = self.limit(0);
        va_codes::heads(
            &file.heads,
            &self.query.head,
            blocks,
            limit,
            candidates,
            |position| file.prefetch(1, position),
        );
    }

    /// Whether there is a further stage, and it costs less than it is likely to save.
    fn is_worth_refining(&self, stage: usize, candidates: usize) -> bool {
        if stage >= self.file.plan.segments {
            return false;
        }
        if stage < self.query.segments.len() {
            // The seeds went through this stage: the query's segment is coded already, and its cost
            // is paid. What is left to pay is a cache line a candidate, less than an exact
            // comparison.
            return true;
        }
        // With one segment more, about half of the candidates need no exact comparison.
        let saved = candidates as f64 / 2.0 * verification_cost(self.base);
        let components = self.file.plan.stage(stage + 1).len();
        saved > rotation_cost(components, self.base.dim())
    }

    /// Adds the segment of a stage to the bounds of the candidates, and keeps those within the
    /// limit.
    fn refine(&mut self, stage: usize, candidates: &mut Vec<Survivor>) {
        let file = self.file;
        // Before the limit is taken, which needs the query's error of this stage.
        while self.query.segments.len() < stage {
            self.query.encode_segment(file);
        }
        self.work.refined += candidates.len();
        va_codes::segments(
            &file.segments,
            &self.query.segments[stage - 1],
            self.limit(stage),
            candidates,
            |position| file.segment(stage, position),
            |position| file.prefetch(stage + 1, position),
        );
    }

    /// Takes the best candidates to the end, for a better threshold, and keeps those of the others
    /// that are within it.
    fn seed(&mut self, stage: usize, candidates: &mut Vec<Survivor>, seeds: &mut Vec<Survivor>) {
        // The candidates of the smallest bounds are the likeliest neighbours. They leave the list,
        // so that none is compared twice.
        let best = self.most_seeds.min(candidates.len());
        if best < candidates.len() {
            candidates.select_nth_unstable_by_key(best, |candidate| candidate.bound);
        }
        seeds.clear();
        seeds.extend(candidates.drain(..best));
        // From heads alone the order is rough. One segment more orders the seeds better, so that a
        // bound beyond the limit, which ends the comparisons, is met sooner.
        let mut reached = stage;
        if stage == 0 && self.is_worth_refining(stage, best) {
            reached = 1;
            self.refine(reached, seeds);
        }
        self.verify(reached, seeds);
        // The others have not been refined, so that it is the limit of their own stage that they
        // are held against.
        let limit = self.limit(stage);
        candidates.retain(|candidate| candidate.bound <= limit);
    }

    /// Compares the candidates exactly, nearest bound first, until a bound is beyond the limit.
    fn verify(&mut self, stage: usize, candidates: &mut [Survivor]) {
        // Ascending: once one bound is beyond the limit, so are all after it. And the threshold
        // falls soonest if the nearest come first.
        candidates.sort_unstable_by_key(|candidate| candidate.bound);
        let mut limit = self.limit(stage);
        let mut chunks = candidates.chunks(self.together).peekable();
        self.prefetch_rows(chunks.peek().copied().unwrap_or_default());
        while let Some(chunk) = chunks.next() {
            // The rows of the next chunk come from memory while those of this one are compared. A
            // row that the limit excludes already will not be read, and is not worth a fetch.
            if let Some(next) = chunks.peek().filter(|next| next[0].bound <= limit) {
                self.prefetch_rows(next);
            }
            for candidate in chunk {
                if candidate.bound > limit {
                    return;
                }
                self.compare(candidate, stage, &mut limit);
            }
        }
    }

    /// Compares a candidate exactly. If it enters the k best, the limit of the stage falls.
    fn compare(&mut self, candidate: &Survivor, stage: usize, limit: &mut i32) {
        // What fills the last block up repeats the codes of a point, so that it can get here.
        let Some(id) = self.file.row(candidate.position) else {
            return;
        };
        self.work.verified += 1;
        let threshold = self.top.threshold();
        if let Some(reduced) = self.ranker.reduced_within(id as usize, threshold)
            && self.top.push(id, reduced)
        {
            *limit = self.limit(stage);
        }
    }

    /// Asks the memory for the rows of some candidates. Their ids, which come from memory as well,
    /// do not wait for each other.
    fn prefetch_rows(&self, candidates: &[Survivor]) {
        for candidate in candidates {
            if let Some(id) = self.file.row(candidate.position) {
                self.base.row(id as usize).prefetch();
            }
        }
    }
}

/// Appends the near points of a block, with bounds from their cells: what a unit of the sums is,
/// `unit`, is a squared distance of codes.
fn append_points(kept: &Kept, unit: f64, candidates: &mut Vec<Survivor>) {
    let mut points = kept.points;
    while points != 0 {
        let point = points.trailing_zeros();
        points &= points - 1;
        candidates.push(Survivor {
            bound: (f64::from(kept.sums[point as usize % BLOCK]) * unit) as i32,
            partial: 0,
            position: kept.block * BLOCK as u32 + point,
        });
    }
}

/// Drops those of the candidates from `first` on that are not kept. They are in the order of the
/// kept blocks, and in no others.
fn keep_near(candidates: &mut Vec<Survivor>, first: usize, kept: &[Kept]) {
    let mut near = first;
    let mut blocks = kept.iter();
    let mut block = blocks.next();
    for at in first..candidates.len() {
        let candidate = candidates[at];
        let (its_block, point) = (
            candidate.position / BLOCK as u32,
            candidate.position % BLOCK as u32,
        );
        while block.is_some_and(|block| block.block != its_block) {
            block = blocks.next();
        }
        candidates[near] = candidate;
        near += block.map_or(0, |block| (block.points >> point & 1) as usize);
    }
    candidates.truncate(near);
}

/// A bound that at least `count` of the boxes do not exceed. It is found from the least of each few
/// of them, which is faster than to select among all.
fn bound_of_nearest(boxes: &[i32], count: usize, minima: &mut Vec<i32>) -> i32 {
    let least = |boxes: &[i32]| {
        boxes
            .iter()
            .fold(i32::MAX, |least, &bound| least.min(bound))
    };
    minima.clear();
    minima.extend(boxes.chunks(TOGETHER).map(least));
    // If `count` of the minima are not above a value, so many boxes are not, one in each chunk.
    // With too few chunks for that, all boxes are within.
    if count < minima.len() {
        *minima.select_nth_unstable(count - 1).1
    } else {
        i32::MAX
    }
}
