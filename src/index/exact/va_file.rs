//! The VA+-file: exact search that reads a small part of the data.
//!
//! # The naive form
//! ```text
//! for x in base:                    # 60,000 rows of 784 bytes: 47 MB from memory a query
//!     top.push(x, distance(q, x))
//! ```
//!
//! Nearly all of these distances are far above the k-th best. A bound from below, computed from a
//! few bytes, is enough to see that.
//!
//! # The idea
//! Turn the data to their principal components. The first few of them hold most of each distance.
//! Keep these as small integers, and for all the others together one number: the length of what is
//! left out.
//!
//! ```text
//!        784 values                    head                segment 1        segment 2
//!  x = [ . . . . . . . ]  ──►  [46 codes|rest]      [62 codes|rest]  [62 codes|rest]  …
//!                                read for most        for those that are left, one after the other
//! ```
//!
//! Where the variance is spread over many components, heads exclude too little. Then a first look
//! at the points is by [`cells`], half a byte for each of up to 128 components.
//!
//! A query goes through the codes in passes ([`search`]). Each pass adds components to the bound
//! and drops the points whose bound is above the k-th best distance so far. What is left is
//! compared exactly.
//!
//! # The bound, and why no neighbour is lost
//! Let v = x − µ, R the first m rows of the rotation, ‖R·Rᵀ − I‖₂ ≤ ε, and φ(x) =
//! (R·v, r(x)), where r(x) is the distance of v from the space that the rows of R span. A
//! difference v − w has a part inside of that space and a part outside. φ lengthens neither of
//! them, but for the error of the rotation in the first: ‖φ(x) − φ(y)‖² ≤ (1 + ε)·‖x
//! − y‖².
//!
//! What is stored are integers c(x) near s·φ(x), s being a scale. Their distance from it, ‖c(x)
//! − s·φ(x)‖, is measured: it is at most E for all points, and E′ for the query. Both
//! contain the rounding to integers, that of the arithmetic, and that of r, which is computed as
//! √(‖v‖² − ‖R·v‖²). So
//!
//! ‖c(q) − c(x)‖ ≤ s·√(1 + ε)·‖q − x‖ + E + E′.
//!
//! A point for which the left side, the root of an integer, exceeds the right side at the k-th best
//! distance so far cannot be among the k nearest. The same holds for a box around the codes of a
//! block of points.
//!
//! # The parts
//! Each stands on those before it:
//! - [`plan`]: the division of the components, what it is expected to cost, the choice;
//! - [`coder`]: coordinates as integers, and the error of that;
//! - [`cells`]: half bytes for a first look;
//! - [`layout`]: the codes of all points, and where they lie;
//! - [`query_code`]: the codes of a query;
//! - [`search`]: the passes.
//!
//! # Sources
//! R. Weber, H.-J. Schek, S. Blott, *A Quantitative Analysis and Performance Study for
//! Similarity-Search Methods in High-Dimensional Spaces*, VLDB 1998: a sequential file of quantised
//! vectors as a filter for exact search. H. Ferhatosmanoglu, E. Tuncel, D. Agrawal, A. El Abbadi,
//! *Vector Approximation based Indexing for Non-uniform High Dimensional Data Sets*, CIKM 2000: the
//! same after rotation to principal components. Ours are the norms of the rest, the order of the
//! file, and codes fine enough that their error hardly weakens the bound.

mod cells;
mod coder;
mod layout;
mod plan;
mod query_code;
mod search;

use std::cell::RefCell;
use std::sync::Arc;

use rayon::prelude::*;

use self::cells::Cells;
use self::layout::{File, Rotated};
use self::plan::Expected;
pub use self::plan::Plan;
use self::search::{Scratch, Searched};
use crate::distance::Norm;
use crate::index::parameters::parameters;
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{
    BruteForce, BruteForceParams, Build, BuildError, Found, Index, NoParameters, Visits, check_base,
};
use crate::neighbor::{Candidate, TopK};
use crate::simd::va_codes::BLOCK;
use crate::vectors::{Row, Vectors};

/// The base in the components of a plan, or of the cells if those are more.
fn rotated(base: &Vectors, components: usize, seed: u64) -> Result<Rotated<'_>, BuildError> {
    let components = components.max(cells::most(row_bytes(base)));
    let components = components.min(base.dim());
    Rotated::new(base, components, seed)
}

/// Bytes of a vector.
fn row_bytes(base: &Vectors) -> usize {
    base.memory_bytes() / base.len()
}

/// Beyond this dimension the components, O(s·d·m) from s rows, take longer than they are worth.
const WIDEST: usize = 2_048;
/// With fewer vectors than this a full scan takes so little time that a file is not worth building.
const FEWEST: usize = 1_000;
/// Neighbours for which plans are tried.
const K: usize = 10;
/// The share of a full scan's cost that a file may be expected to take: its codes take memory, and
/// the few rows that the expectation comes from may mislead.
const WORTHWHILE: f64 = 0.75;

parameters! {
    /// How a [`VaFile`] is built.
    pub struct VaFileParams {
    } and {
        /// The division of the components, or `None` to choose it from the data.
        /// Of the plans that take no more than half the bytes of the vectors themselves, the one of
        /// least expected work is chosen; or none, that is a full scan, if that is less.
        plan: Option<Plan> = None;
        /// Seed of the sample that the rotation is taken from.
        seed: u64 = 0;
    }
}

/// Exact Euclidean search by lower bounds from a few quantised principal components.
///
/// Most points are excluded block by block, or by their first components; others by more of them;
/// what is left is compared exactly, nearest bound first. No neighbour is lost: the error of every
/// code is measured and added to the bound.
///
/// **What it is bad at**: data whose variance is spread evenly over the dimensions (noise). There
/// it can only scan, for which it is a [`BruteForce`]. Many queries at once gain less by it than
/// single ones: they are scanned in tiles, as by a [`BruteForce`], unless the file is expected to
/// be far faster. It takes up to 1.7 times the memory of the vectors, and is slow to build beside a
/// scan: the data are rotated, and several plans are tried.
///
/// After Weber, Schek and Blott (VLDB 1998) and Ferhatosmanoglu et al., *Vector Approximation based
/// Indexing for Non-uniform High Dimensional Data Sets* (CIKM 2000).
///
/// ```
/// use fashion_knn::prelude::*;
///
/// // 20,000 points near a line in 16 dimensions: one component tells nearly everything.
/// let line = (0..20_000 * 16).map(|i: u64| i / 16 * (1 + i % 16) + i * i % 7);
/// let values: Vec<f32> = line.map(|value| value as f32).collect();
/// let base = Arc::new(Vectors::from_floats(16, values)?);
///
/// let index = VaFile::build(base.clone(), VaFileParams::default())?;
/// let (nearest, visits) = index.query_counted(base.row(700), 3)?;
/// assert_eq!((nearest[0].id, nearest[0].distance), (700, 0.0));
/// assert!(index.plan().is_some(), "the codes are worth it");
/// assert!(visits.distances < 100, "most rows are excluded by their codes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct VaFile {
    full: BruteForce,
    file: Option<Arc<File>>,
    /// What searches are expected to cost, or `None` where the file answers all of them: its plan
    /// was asked for.
    expected: Option<Expected>,
}

impl VaFile {
    /// How the components are divided, or `None` if every query is a full scan.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        self.file.as_ref().map(|file| file.plan)
    }

    fn by_scan(full: BruteForce) -> Self {
        Self {
            full,
            file: None,
            expected: None,
        }
    }

    /// The full scan remains for queries that the file cannot bound, and needs no half bytes for
    /// these.
    fn by_file(full: BruteForce, file: File, expected: Option<Expected>) -> Self {
        // What is left after the passes is read here and there.
        full.base().in_huge_pages();
        Self {
            full: full.without_halves(),
            file: Some(Arc::new(file)),
            expected,
        }
    }

    /// With the file of a plan that was asked for, where there can be one.
    fn planned(full: BruteForce, plan: Plan, seed: u64) -> Result<Self, BuildError> {
        let rotated = rotated(full.base(), plan.components(), seed)?;
        let cells = Cells::new(&rotated, row_bytes(full.base()));
        // A plan that was asked for answers batches as well.
        Ok(match File::new(&rotated, plan, cells) {
            Some(file) => Self::by_file(full, file, None),
            None => Self::by_scan(full.without_halves()),
        })
    }

    /// With the file of the cheapest plan, if that is worth it.
    fn chosen(full: BruteForce, seed: u64) -> Result<Self, BuildError> {
        let base = full.base();
        if base.dim() > WIDEST || base.len() < FEWEST {
            return Ok(Self::by_scan(full));
        }
        let plans = plan::plans(base);
        let components = plans.iter().map(|plan| plan.components());
        // No plan fits into the memory that a file may take.
        let Some(components) = components.max() else {
            return Ok(Self::by_scan(full));
        };

        // The rotation has as many components as the longest plan needs. Each plan that is tried
        // codes all rows anew, and is searched with some of them as queries.
        let rotated = rotated(base, components, seed)?;
        let attempt = |plan: Plan, cells: Option<Cells>| {
            let file = File::new(&rotated, plan, cells)?;
            Some((search::expected_cost(&file, base, K), file))
        };
        let best = plan::cheapest(&plans, |plan| attempt(plan, None));
        // Where heads exclude nearly all points, cells only cost time and memory.
        let with_cells = best.as_ref().and_then(|best| {
            let cells = Cells::new(&rotated, row_bytes(base))?;
            attempt(best.file.plan, Some(cells))
        });
        let best = best.map(|best| (best.cost, best.file));
        let tried = best.into_iter().chain(with_cells);
        let best = tried.min_by(|(a, _), (b, _)| a.total_cmp(b));
        let scan = plan::scan_cost(base, full.has_halves());
        Ok(match best {
            Some((cost, file)) if cost < WORTHWHILE * scan.single => {
                let cost = |k| search::expected_cost(&file, base, k);
                let expected = Expected::new(base, cost, &scan);
                Self::by_file(full, file, Some(expected))
            }
            _ => Self::by_scan(full),
        })
    }

    /// Whether each of `queries` searches at once goes by the file.
    fn goes_by_file(&self, queries: usize, k: usize) -> bool {
        let expected = self.expected.as_ref();
        self.file.is_some() && expected.is_none_or(|expected| expected.file_wins(queries, k))
    }

    /// What the file finds; `None` where there is none, or where it cannot bound the query.
    fn search_file(&self, query: Row<'_>, k: usize) -> Option<Searched> {
        let file = self.file.as_ref()?;
        SCRATCH.with_borrow_mut(|scratch| search::search(file, self.full.base(), query, k, scratch))
    }

    /// What the file finds within the limit of `top`; `None` as for [`VaFile::search_file`], or
    /// where so much is within that a scan is the faster way.
    fn search_file_within(&self, query: Row<'_>, top: TopK) -> Option<Searched> {
        let (file, base) = (self.file.as_ref()?, self.full.base());
        let expected = self.expected.as_ref();
        let most = expected.map_or(usize::MAX, |expected| expected.worth_comparing(base));
        SCRATCH
            .with_borrow_mut(|scratch| search::search_within(file, base, query, top, most, scratch))
    }

    /// A search by the file, as callers get it.
    fn found(&self, Searched { candidates, work }: Searched) -> Found {
        // The last block may be filled up with positions that hold no row. They are not counted.
        let bounds = (work.blocks * BLOCK).min(self.len());
        Found {
            candidates,
            visits: Visits {
                leaves: work.blocks,
                bounds,
                distances: work.verified,
            },
        }
    }
}

// Each thread keeps its lists for the next query, so that no query allocates them anew.
thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Build for VaFile {
    const KEY: &'static str = "va_file";
    const NAME: &'static str = "VA+-file";
    const EXACT: bool = true;
    type Params = VaFileParams;
    type Search = NoParameters;

    /// Builds the file. It takes the time of `Pca::fit` for m components, at most 434, and for each
    /// plan that is tried O(n·d·m) to rotate n vectors to them; beside the file, the memory of
    /// another one and of 24 floats a vector. The same on any number of threads.
    ///
    /// # Errors
    /// If `base` is empty, or the plan's head is odd, less than 2 or more than 64, or there are
    /// more than 64 segments.
    fn build(base: Arc<Vectors>, params: VaFileParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        if let Some(plan) = params.plan {
            plan.check()?;
        }
        let full = BruteForce::build(base, BruteForceParams::default())?;
        match params.plan {
            Some(plan) => Self::planned(full, plan, params.seed),
            None => Self::chosen(full, params.seed),
        }
    }

    fn with_search(&self, _: NoParameters) -> Result<Self, BuildError> {
        Ok(self.clone())
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let full = BruteForce::part(Norm::L2, saved)?;
        let file: Option<Arc<File>> = saved.take("file")?;
        if let Some(file) = &file {
            file.check(full.len(), full.dim())?;
        }
        let expected = saved.take("expected")?;
        Ok(Self {
            full,
            file,
            expected,
        })
    }
}

impl Index for VaFile {
    fn name(&self) -> &'static str {
        Self::NAME
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
        let file = self.file.as_ref();
        self.full.memory_bytes() + file.map_or(0, |file| file.memory_bytes())
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let by_file = self.goes_by_file(1, k).then(|| self.search_file(query, k));
        match by_file.flatten() {
            Some(searched) => self.found(searched),
            None => self.full.search(query, k),
        }
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let top = TopK::within(most.min(self.len()), reduced);
        match self.search_file_within(query, top) {
            Some(searched) => Some(self.found(searched)),
            None => self.full.search_within(query, reduced, most),
        }
    }

    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        // The scan's share of a thread. Where it is large, the queries share the reading of the
        // base, and the scan can be the faster one though the file is for a single query.
        let share = queries.len().div_ceil(rayon::current_num_threads());
        if !self.goes_by_file(share, k) {
            return self.full.search_batch(queries, k);
        }
        // A query a task: what a pass reads depends on the query's own threshold, so that queries
        // share nothing.
        let search = |row| match self.search_file(queries.row(row), k) {
            Some(searched) => searched.candidates,
            None => self.full.search(queries.row(row), k).candidates,
        };
        (0..queries.len()).into_par_iter().map(search).collect()
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        // The plan is in the file; a seed is of no use to a file that is there.
        parts.describe::<Self>(&VaFileParams::default(), &NoParameters);
        self.full.add_parts(parts);
        parts.add("file", &self.file);
        parts.add("expected", &self.expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::{Metric, Ranker};
    use crate::index::Query;
    use crate::neighbor::{Neighbor, TopK};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The k nearest by the definition.
    fn oracle(base: &Vectors, query: &[f32], k: usize) -> Vec<Neighbor> {
        let ranker = Ranker::new(base, Metric::Euclidean, Row::Floats(query));
        let mut top = TopK::new(k.min(base.len()));
        (0..base.len()).for_each(|id| _ = top.push(id as u32, ranker.reduced(id)));
        top.into_neighbors(Metric::Euclidean)
    }

    fn check(base: &Vectors, queries: &Vectors, plan: Option<Plan>, ks: &[usize]) -> VaFile {
        let base = Arc::new(base.clone());
        let index = VaFile::build(Arc::clone(&base), VaFileParams { plan, seed: 1 }).unwrap();
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
            let mut compared = 0;
            for row in 0..queries.len() {
                let (_, visits) = index.query_counted(queries.row(row), 10).unwrap();
                assert!((10..=3_001).contains(&visits.bounds), "{visits:?}");
                compared += visits.distances;
            }
            let mean = compared / queries.len();
            assert!(mean < 150, "{mean} of 3,001");
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
                let index = VaFile::build(Arc::clone(&base), VaFileParams::default()).unwrap();
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

    /// Independent components whose standard deviations shrink slowly, by a tenth each: heads tell
    /// little.
    fn flat(rows: usize, dim: usize, seed: u64) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..rows * dim).map(|at| {
            let size = 100.0 * 0.9f32.powi((at % dim) as i32);
            (0..4).map(|_| rng.random_range(-size..size)).sum::<f32>()
        });
        Vectors::from_floats(dim, values.collect::<Vec<f32>>()).unwrap()
    }

    #[test]
    fn cells_exclude_what_a_short_head_does_not() {
        let (base, queries) = (flat(4_000, 32, 1), flat(30, 32, 2));
        let plan = Plan {
            head: 2,
            segments: 0,
        };
        let mut index = check(&base, &queries, Some(plan), &[1, 10, 100]);
        let visits = |index: &VaFile| -> usize {
            let counted = (0..queries.len()).map(|row| index.query_counted(queries.row(row), 10));
            counted.map(|found| found.unwrap().1.distances).sum()
        };
        let few = visits(&index);
        let file = Arc::get_mut(index.file.as_mut().unwrap()).unwrap();
        assert!(file.cells.take().is_some());
        let many = visits(&index);
        assert!(2 * few < many, "{few} and {many}");
    }

    #[cfg(feature = "files")]
    #[test]
    fn cells_are_saved() {
        use crate::index::{Load, Save};

        let (base, queries) = (flat(1_000, 32, 1), flat(10, 32, 2));
        let plan = Plan {
            head: 6,
            segments: 1,
        };
        let index = check(&base, &queries, Some(plan), &[10]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        index.save(&path).unwrap();
        let loaded = VaFile::load(&path).unwrap();
        let cells = |index: &VaFile| index.file.as_ref().unwrap().cells.is_some();
        assert!(cells(&index) && cells(&loaded));
        for row in 0..queries.len() {
            let query = queries.row(row);
            let counted = |index: &VaFile| index.query_counted(query, 10).unwrap();
            assert_eq!(counted(&loaded), counted(&index));
        }
    }

    #[test]
    fn refuses_plans_that_are_none() {
        let base = Arc::new(structured(10, 4, 1));
        let build = |head, segments| {
            VaFile::build(
                Arc::clone(&base),
                VaFileParams {
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
            VaFile::build(empty, VaFileParams::default()).unwrap_err(),
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

    /// Few distinct steps, so that there are ties and duplicates, sizes that differ between
    /// coordinates, and queries both among the points and far outside.
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
            half_head in 1usize..9,
            segments in 0usize..3,
            k in 1usize..20,
        ) {
            let base = Vectors::from_floats(dim, base).unwrap();
            let queries = Vectors::from_floats(dim, queries).unwrap();
            let plan = Plan { head: 2 * half_head, segments };
            check(&base, &queries, Some(plan), &[k]);
        }
    }
}
