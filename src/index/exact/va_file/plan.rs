//! How the components are divided between the passes, what a division is expected to cost, and the
//! choice of the cheapest.

use std::ops::Range;

use crate::error::BuildError;
use crate::index::parts::saved;
use crate::progress::Stage;
use crate::simd::tiles::QUERIES;
use crate::simd::va_codes::{BLOCK, Segment, WIDTH};
use crate::vectors::{Storage, Vectors};

/// The most components of a head, and the most segments, that a caller may ask for. Both together
/// are 4,032 components.
const MOST_HEAD: usize = 64;
const MOST_SEGMENTS: usize = 64;

/// How a [`VaFile`](super::VaFile) divides the components between its passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Components of the first pass, over blocks of points: even, at least 2.
    pub head: usize,
    /// Segments of 62 further components each, read for the points that are left.
    pub segments: usize,
}

impl Plan {
    /// Refuses a plan for which there is no layout.
    pub(super) fn check(self) -> Result<(), BuildError> {
        if !self.head.is_multiple_of(2) || !(2..=MOST_HEAD).contains(&self.head) {
            return Err(BuildError::InvalidParameter {
                name: "head",
                received: self.head as f64,
                expected: "even, 2..=64",
            });
        }
        if self.segments > MOST_SEGMENTS {
            return Err(BuildError::InvalidParameter {
                name: "segments",
                received: self.segments as f64,
                expected: "at most 64",
            });
        }
        Ok(())
    }

    /// Pairs of codes in a head: its components, and one pair for the norm of the rest and a zero.
    pub(super) fn pairs(self) -> usize {
        self.head / 2 + 1
    }

    /// All components, those of the segments included; there may be more than the data have
    /// dimensions.
    pub(super) fn components(self) -> usize {
        self.head + self.segments * WIDTH
    }

    /// The components that a stage adds. Stage 0 is the head, stage i the i-th segment.
    pub(super) fn stage(self, stage: usize) -> Range<usize> {
        let end = self.head + stage * WIDTH;
        if stage == 0 { 0..end } else { end - WIDTH..end }
    }

    /// Bytes that a point takes, with its share of its block's box and of the rotation of `dim`
    /// dimensions.
    pub(super) fn bytes(self, points: usize, dim: usize) -> usize {
        // Two 16-bit codes a pair. A box has the size of two heads, which the points of a block
        // share.
        let head = 2 * size_of::<i16>() * self.pairs();
        let two_corners = 2 * head.div_ceil(BLOCK);
        let segments = self.segments * size_of::<Segment>();
        let id = size_of::<u32>();
        let rotation = size_of::<f32>() * self.components().min(dim) * dim;
        head + two_corners + segments + id + rotation.div_ceil(points)
    }
}

/// The plans that are worth trying: ever longer heads, each with as many segments as the memory
/// allows.
///
/// A plan may take half the bytes of the vectors themselves.
pub(super) fn plans(base: &Vectors) -> Vec<Plan> {
    /// From 6, which suits data of few hidden variables, to 62; pixels take 46.
    const HEADS: [usize; 6] = [6, 14, 22, 30, 46, 62];
    /// With so many segments, going through one more costs about what the exact comparison does.
    const USEFUL_SEGMENTS: usize = 6;
    // Half of a vector's bytes, so that vectors and file together take 1.5 times the vectors.
    let dim = base.dim();
    let budget = base.memory_bytes() / base.len() / 2;
    let mut plans = Vec::new();
    for head in HEADS {
        // A longer head would hold zeros only. The heads ascend, so that no later one fits either.
        if head > dim.next_multiple_of(2) {
            break;
        }
        // As many segments as hold all other components, if that is not too many.
        let useful = dim
            .saturating_sub(head)
            .div_ceil(WIDTH)
            .min(USEFUL_SEGMENTS);
        // Of these the most that the memory allows. A head that is too large by itself has no plan.
        let mut most_first = (0..=useful).rev().map(|segments| Plan { head, segments });
        plans.extend(most_first.find(|plan| plan.bytes(base.len(), dim) <= budget));
    }
    plans
}

/// A plan that was tried: what was built by it, and the nanoseconds that a query is expected to
/// take.
pub(super) struct Tried<F> {
    plan: Plan,
    pub cost: f64,
    pub file: F,
}

/// The cheapest of the plans. `build_and_cost` tries one; it returns `None` where no file can be
/// built.
///
/// Each plan is tried with half its segments, which often does as well and takes half the time to
/// try: where few components hold nearly all of the variance, the rest costs for nothing. Heads
/// grow from the middle one until one is no better than the one before; if the first was no better,
/// they shrink. The best head is then tried with all its segments.
pub(super) fn cheapest<F>(
    plans: &[Plan],
    mut build_and_cost: impl FnMut(Plan) -> Option<(f64, F)>,
) -> Option<Tried<F>> {
    // Half of each plan and the whole of the best, if none ends the search before.
    let stage = Stage::new("plans", plans.len() + 1);
    let mut attempt = |plan| {
        let tried = build_and_cost(plan);
        stage.advance(1);
        let (cost, file) = tried?;
        Some(Tried { plan, cost, file })
    };
    // Half the segments of each plan. The cost is expected to fall towards the best head from both
    // sides: a shorter one excludes too little, and of a longer one more is read than that takes.
    let (shorter, others) = plans.split_at(plans.len() / 2);
    let mut best: Option<Tried<F>> = None;
    let ascending: Vec<&Plan> = others.iter().collect();
    let descending: Vec<&Plan> = shorter.iter().rev().collect();
    for way in [ascending, descending] {
        let mut better = 0;
        for plan in way {
            let half = Plan {
                segments: plan.segments.div_ceil(2),
                ..*plan
            };
            let Some(tried) = attempt(half) else { continue };
            if best.as_ref().is_some_and(|best| best.cost <= tried.cost) {
                break;
            }
            best = Some(tried);
            better += 1;
        }
        // The best head is above the middle one, so that it is not below it.
        if better > 1 {
            break;
        }
    }
    let best = best?;
    // Then all segments of the best head. With one segment or none, half was all of them.
    let whole = plans.iter().find(|plan| plan.head == best.plan.head);
    let whole = whole.filter(|whole| whole.segments > 1);
    let tried = whole.and_then(|&whole| attempt(whole));
    stage.finish();
    match tried {
        Some(tried) if tried.cost.total_cmp(&best.cost).is_lt() => Some(tried),
        _ => Some(best),
    }
}

/// What the steps of a search cost, in nanoseconds on one thread.
///
/// **Only their proportions matter.** They decide between plans, and between a file and a full
/// scan. Work is counted, not timed, so that the same data give the same index on every machine.
///
/// They are from November 2026 and one core of a 2 × AMD EPYC machine with AVX2. The command was
/// not recorded. Those of the scans agree with `benches/exact.rs --index brute_force` on that
/// machine, as 10⁹ / (queries per second · n · d), with `--one` for a single query. To measure
/// the others again, take the share of a step of `search.rs` in the time of `benches/exact.rs
/// --index va_file --one` (`perf record`), and divide it by its count in [`Work`].
struct Costs {
    /// A full scan for one query, which memory bounds, per value of the base: kept as half a byte,
    /// a byte, a float.
    scan_half_byte: f64,
    scan_byte: f64,
    scan_float: f64,
    /// A full scan for one of many queries, which arithmetic bounds, per value: multiplied as a
    /// byte, as a float.
    tile_byte: f64,
    tile_float: f64,
    /// The bound of a block's box, per pair of codes.
    box_pair: f64,
    /// The heads of a block's 32 points, per pair of codes.
    head_pair: f64,
    /// Four components of a block's 32 points, as cells.
    cell_line: f64,
    /// One segment of one point: a cache line from memory, mostly.
    segment: f64,
    /// One value of the rotation, multiplied with the query.
    rotation_value: f64,
    /// An exact comparison: for each row, and for each byte of it.
    exact_row: f64,
    exact_byte: f64,
}

const COSTS: Costs = Costs {
    scan_half_byte: 0.021,
    scan_byte: 0.041,
    scan_float: 0.2,
    tile_byte: 0.0106,
    tile_float: 0.023,
    box_pair: 0.2,
    head_pair: 3.0,
    cell_line: 2.5,
    segment: 14.0,
    rotation_value: 0.07,
    exact_row: 30.0,
    exact_byte: 0.14,
};

/// How much searches did.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Work {
    /// Components of queries that were computed.
    pub rotated: usize,
    /// Blocks of which the points' heads were looked at.
    pub blocks: usize,
    /// Lines of cells that were looked at, if no block was given up before its last.
    pub cells: usize,
    /// Segments of points that were looked at.
    pub refined: usize,
    /// Rows that were compared exactly.
    pub verified: usize,
}

impl Work {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            rotated: self.rotated + other.rotated,
            blocks: self.blocks + other.blocks,
            cells: self.cells + other.cells,
            refined: self.refined + other.refined,
            verified: self.verified + other.verified,
        }
    }
}

/// Expected nanoseconds of a full scan.
#[derive(Debug, Clone)]
pub(super) struct ScanCost {
    /// Of one query.
    pub single: f64,
    /// Of one query of many.
    pub batch: f64,
}

/// What a full scan of `base` costs, by half bytes if `halves`.
pub(super) fn scan_cost(base: &Vectors, halves: bool) -> ScanCost {
    // Tiles multiply bytes in either form of storage, but only where their rounding leaves little
    // in doubt. That half bytes were kept is the sign of it for floats.
    let (single, batch) = match (base.storage(), halves) {
        (_, true) => (COSTS.scan_half_byte, COSTS.tile_byte),
        (Storage::Bytes(_), false) => (COSTS.scan_byte, COSTS.tile_byte),
        (Storage::Floats(_), false) => (COSTS.scan_float, COSTS.tile_float),
    };
    let values = (base.len() * base.dim()) as f64;
    ScanCost {
        single: values * single,
        batch: values * batch,
    }
}

/// What searches of a base with a file are expected to cost, for the choice between the file and a
/// full scan.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Of one query by the file, for each of [`KS`].
    file: [f64; KS.len()],
    scan: ScanCost,
}

/// Numbers of neighbours for which the file's cost is found out. For more than the last the scan
/// takes over: the first threshold alone then costs the file thousands of comparisons.
const KS: [usize; 3] = [10, 100, 1_000];
/// A file answers many queries at once if it is expected to take less than this share of a scan's
/// time. On one core of an EPYC with AVX2, the scan took 0.5 to 1.6 times what was expected of it,
/// and the file 0.9 (40,000 sentence embeddings) to 2.5 times (700,000 SIFT descriptors, whose rows
/// all come from memory).
const SURE: f64 = 0.4;

saved!(Plan { head, segments });

saved!(ScanCost { single, batch });

saved!(Expected { file, scan });

impl Expected {
    /// `cost` is that of a query by the file for k neighbours, `scan` that of the scan.
    pub(super) fn new(base: &Vectors, cost: impl Fn(usize) -> f64, scan: &ScanCost) -> Self {
        Self {
            file: KS.map(cost),
            scan: ScanCost {
                // Beside a file there are no half bytes.
                single: scan_cost(base, false).single,
                batch: scan.batch,
            },
        }
    }

    /// How many exact comparisons take as long as a scan of all rows.
    pub(super) fn worth_comparing(&self, base: &Vectors) -> usize {
        (self.scan.single / verification_cost(base)) as usize
    }

    /// Whether the file is the faster one for `queries` queries at once, on one thread.
    pub(super) fn file_wins(&self, queries: usize, k: usize) -> bool {
        let Some(at) = KS.iter().position(|&known| k <= known) else {
            return false;
        };
        if queries < QUERIES {
            return self.file[at] < self.scan.single;
        }
        // The base is read and packed once, which costs about as much as a scan for one query. The
        // last panel of queries is filled up.
        let panels = queries.next_multiple_of(QUERIES) as f64;
        let scan = self.scan.single + panels * self.scan.batch;
        queries as f64 * self.file[at] < SURE * scan
    }
}

/// Nanoseconds to compute `components` components of a query.
pub(super) fn rotation_cost(components: usize, dim: usize) -> f64 {
    (components * dim) as f64 * COSTS.rotation_value
}

/// Nanoseconds of the exact comparison with a row.
pub(super) fn verification_cost(base: &Vectors) -> f64 {
    COSTS.exact_row + base.memory_bytes() as f64 / base.len() as f64 * COSTS.exact_byte
}

/// Expected nanoseconds of a query, from the work that `queries` queries were.
pub(super) fn query_cost(base: &Vectors, plan: Plan, work: Work, queries: usize) -> f64 {
    let all = work.blocks as f64 * plan.pairs() as f64 * COSTS.head_pair
        + work.cells as f64 * COSTS.cell_line
        + work.refined as f64 * COSTS.segment
        + work.verified as f64 * verification_cost(base)
        + rotation_cost(work.rotated, base.dim());
    // `work` is the sum over all queries, so that it is divided; the boxes are counted once.
    // Every query bounds all boxes.
    let boxes = (base.len().div_ceil(BLOCK) * plan.pairs()) as f64 * COSTS.box_pair;
    all / queries as f64 + boxes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(head: usize, segments: usize) -> Plan {
        Plan { head, segments }
    }

    #[test]
    fn the_cheapest_plan_is_found_with_half_and_with_all_of_its_segments() {
        let plans = [plan(6, 4), plan(14, 3), plan(22, 2), plan(30, 1)];
        // Tries in order: half of each until one is no better, then the whole of the best.
        let mut tried = Vec::new();
        let mut choose = |costs: fn(Plan) -> Option<f64>| {
            tried.clear();
            let best = cheapest(&plans, |plan| {
                tried.push(plan);
                Some((costs(plan)?, ()))
            });
            (best.map(|best| best.plan), tried.clone())
        };
        let by_head = |plan: Plan| Some((plan.head as f64 - 14.0).abs() + plan.segments as f64);
        let order = [
            plan(22, 1),
            plan(30, 1),
            plan(14, 2),
            plan(6, 2),
            plan(14, 3),
        ];
        assert_eq!(choose(by_head), (Some(plan(14, 2)), order.to_vec()));
        let long_is_better = |plan: Plan| Some(-(plan.head as f64));
        let order = [plan(22, 1), plan(30, 1)];
        assert_eq!(choose(long_is_better), (Some(plan(30, 1)), order.to_vec()));
        let more_is_better = |plan: Plan| Some(-(plan.segments as f64));
        assert_eq!(choose(more_is_better).0, Some(plan(14, 3)));
        assert_eq!(choose(|_| None).0, None);
    }

    #[test]
    fn many_queries_go_by_the_file_where_it_is_sure_to_be_faster() {
        let base = Vectors::from_bytes(100, vec![0; 100 * 10_000]).unwrap();
        let scan = scan_cost(&base, false);
        let expected = |cost: f64| Expected::new(&base, |k| cost * (k as f64 / 10.0).sqrt(), &scan);
        let wins = |cost, queries, k| expected(cost).file_wins(queries, k);
        // Far faster than a scan of many: always, up to the largest number that was tried.
        assert!(wins(scan.batch / 100.0, 1, 10) && wins(scan.batch / 100.0, 10_000, 1_000));
        assert!(!wins(scan.batch / 100.0, 1, 1_001));
        // About as fast as a scan of many: where the queries are few.
        assert!(wins(scan.batch, 1, 10) && wins(scan.batch, QUERIES - 1, 10));
        assert!(!wins(scan.batch, 1_000, 10));
        // More neighbours cost the file more.
        assert!(wins(scan.batch / 4.0, 1_000, 10) && !wins(scan.batch / 4.0, 1_000, 100));
        // Slower than a scan of one.
        assert!(!wins(scan.single * 1.1, 1, 10));
    }
}
