//! A neighbourhood graph walked by short codes: the fastest approximate index here.
//!
//! # The idea
//! The naive search compares the query with every row. A graph that joins each row to rows near it
//! needs far fewer comparisons, for it can be walked towards the query:
//!
//! ```text
//! pool = the seeds nearest to the query      (one seed for each of √n clusters, in groups)
//! while the nearest row in pool that is not expanded yet is near enough:
//!     expand it: compare those of its 32 neighbours that were not met before,
//!                and put the near ones into pool
//! answer = the k first of pool
//! ```
//!
//! Nearly all rows that a walk compares are discarded at once, and most of its time goes into
//! fetching them from memory. So the walk compares *codes*, of two cache lines instead of the 13
//! that an image takes, and only what is near enough at the end is compared by its true distance:
//!
//! ```text
//!   expand            score           keep            at the end
//!   +------+ edges   +------+        +------+        +-------------+
//!   | node | ------> | code | -----> | pool | -----> | rows, exact | --> the k best
//!   +------+         +------+        +------+        +-------------+
//!   about 20         about 275       at most ef      about 20
//! ```
//!
//! (The figures are those of Fashion-MNIST's pixels at recall .98.) The walk is in [`walk`], the
//! graph in [`build`], the codes in [`codes`](super::codes).
//!
//! # What follows from the data
//! - The codes: how many lines they have, and how many bits a coordinate has in each, is chosen by
//!   measured error ([`code_plan`](super::code_plan)).
//! - The radius: rows are taken as queries, as if the graph did not have them, and the least radius
//!   is found with which they meet .95 of their nearest. `epsilon` is counted from there.
//! - Whether near rows are looked for a second time: where the first finds less than .95 of those
//!   of sampled rows.
//! - Copies: a node stands for all copies of a row.
//! - Whether there is a graph: where no code tells near rows from others, or no radius finds .9 of
//!   what the sample looks for, the index is a [`KdTree`], and exact.
//!
//! # Why it may miss a neighbour
//! - The walk ends where nothing in the pool is within the radius. A neighbour to which only rows
//!   farther away lead is not met. A larger `epsilon` goes on for longer.
//! - A code may put a neighbour too far away, so that it is not kept. The build measures the error
//!   of the codes, and the pool keeps what is beyond the k-th nearest by that much.
//! - The graph is made of about the nearest rows of each row, by code, not of the nearest. These
//!   are looked for in a few clusters, and where that misses many, once more by walks ([`refine`]).
//!
//! # Memory
//! Everything is in the order of clusters, so that near rows are near in memory:
//!
//! ```text
//! codes     [ 64 bytes ][ 64 bytes ]   two cache lines a row (code_bytes = 128)
//! edges     [ 64 bytes ][ 64 bytes ]   32 numbers of four bytes, two cache lines
//! rows      the vectors themselves, read only at the end
//! ids       four bytes a row: its number in the base
//! ```
//!
//! With the vectors that is 62 MB for 60,000 images, 47 of them the images. Reads here and there
//! also miss the address translation cache, so the arrays are advised into huge pages.
//!
//! # What it is bad at
//! - Data on several scales: clusters very far apart, clumps of near copies, one dimension. All
//!   codes share their steps, which are too long for the small differences then. The search is
//!   exact there, and as fast as a [`KdTree`] or a scan.
//! - Isotropic noise in many dimensions: all rows are about equally far, and the walk compares many
//!   of them.
//! - Many distinct rows of which a few are very near: the error of the codes is one number for all
//!   rows, so that in dense parts more is compared than need be.
//!
//! # Sources
//! Edges: Jayaram Subramanya et al., *DiskANN* (Vamana), 2019. End of the walk: Iwasaki and
//! Miyazaki, arXiv 1810.07355 (NGT), 2018. Coarse codes for the walk and exact distances for its
//! end: Guo et al. (ScaNN), 2020; Gou et al. (SymphonyQG), 2025. There the codes belong to edges;
//! here each vector has one, and the estimate adds the length of what the code leaves out.

mod build;
mod refine;
mod seeds;
mod walk;

use std::cell::RefCell;
use std::sync::Arc;

use self::build::Graph;
use self::walk::{Entry, Limits, Scratch};
use super::code_plan::{self, Plan, Sampled};
use super::copies::{Copies, Distinct};
use crate::distance::{Metric, Ranker};
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{PartError, Parts, Saved, expect, saved};
use crate::index::tree::{KdTree, KdTreeParams};
use crate::index::{Build, BuildError, Found, Index, Parameters, Visits, check_base};
use crate::neighbor::{Candidate, TopK};
use crate::simd;
use crate::simd::graph_codes::MOST_LINES;
use crate::vectors::{Row, Vectors};

/// The recall of sampled rows that the build finds an `epsilon` for. A search with the default
/// `epsilon`, on top of that, then has some more.
const AIM: f64 = 0.95;
/// Rows with which `epsilon` is found, at most: their 10,000 neighbours tell a recall to ± .003.
const MOST_SAMPLED: usize = 1_000;
/// Where the greatest of [`EPSILONS`] finds less than this, there is no walk.
const LEAST: f64 = 0.9;
/// The steps in which `epsilon` is looked for. Distances in isotropic noise differ by little; those
/// of numbers in one dimension by much, and there they cost little.
const EPSILONS: [f64; 14] = [
    -0.1, -0.08, -0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5,
];
/// The radius of a walk is at least that of the tenth nearest, even if fewer are asked for: that of
/// the nearest would end at the first row none of whose neighbours is nearer.
const LEAST_NEAR: usize = 10;
/// Bytes of the pool's rows that are asked for from memory while one is compared. With fewer, short
/// rows would not be there in time (of 128 bytes: 5 % of a search). With more, long ones would push
/// out of the cache what is not read yet (of 3,136 bytes: 5 %, too).
const AHEAD: usize = 8 << 10;
/// So many rows at least.
const LEAST_AHEAD: usize = 4;
/// And at most: a pool is seldom longer where rows are that short.
const MOST_AHEAD: usize = 16;

parameters! {
    /// How a [`QuantizedGraph`] is built.
    pub struct QuantizedGraphParams {
        /// Bytes of the code that guides the walk: 64, 128, 192 or 256; 0 for what suits the data.
        /// Longer codes say more and take longer to fetch and to compare.
        code_bytes: usize = 0;
        /// Near rows among which a node's edges are chosen, at least one.
        candidates: usize = 100;
        /// Vamana's α, at least 1: more keeps more of the longer edges.
        /// An edge is left out if a kept one ends nearer to its end by this factor (of squared
        /// distances).
        alpha: f64 = 1.1;
        /// Seed of the rotation and the clusters.
        seed: u64 = 0;
    }
}

parameters! {
    /// How a [`QuantizedGraph`] is searched.
    pub struct QuantizedGraphSearch {
        /// Candidates kept while searching, at most; at least k.
        ef: usize = 1_000;
        /// How much farther is searched than sampled rows needed for recall .95.
        /// In parts of the distance of the k-th nearest, beyond which the search stops. Below 0 it
        /// stops earlier.
        epsilon: f64 = 0.02,
            sweep [-0.08, -0.05, -0.03, -0.01, 0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2];
    }
}

/// A graph of near neighbours that is walked by short codes of the principal components, and whose
/// answer is ordered by exact distances. Euclidean, approximate.
///
/// A walk begins at near ones of √n central vectors. It goes on from the nearest vector not yet
/// expanded, until that one is farther than the k-th nearest so far by more than the build found
/// to be needed, and `epsilon`. What the codes may have misjudged is kept as well. All that was
/// kept is then compared exactly, which costs about a quarter of an expansion for each vector.
///
/// Where no code tells near vectors from others (clusters very far apart, sizes of all orders), the
/// search is exact: see [`QuantizedGraph::is_exact`].
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<f32> = (0..8_000).map(|i| (i * i % 1_009) as f32).collect();
/// let base = Arc::new(Vectors::from_floats(8, values)?); // 1,000 rows of 8 values
///
/// let index = QuantizedGraph::build(Arc::clone(&base), QuantizedGraphParams::default())?;
/// let farther = QuantizedGraphSearch { epsilon: 0.2, ..Default::default() };
/// let wider = index.with_search(farther)?; // the same graph, not a copy
/// let found = wider.query(base.row(5), 3)?;
/// assert_eq!((found.len(), found[0].id, found[0].distance), (3, 5, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct QuantizedGraph {
    built: Arc<Built>,
    search: QuantizedGraphSearch,
}

#[derive(Debug)]
struct Built {
    /// With the length of the codes that was chosen.
    params: QuantizedGraphParams,
    searcher: Searcher,
}

#[derive(Debug)]
enum Searcher {
    Walk(Box<Walked>),
    /// Where codes tell too little.
    Exact(KdTree),
}

/// The graph with its vectors. A node stands for all copies of a row.
#[derive(Debug)]
struct Walked {
    /// The distinct vectors in the order of the graph's positions.
    rows: Vectors,
    graph: Graph,
    /// The rows that each node stands for.
    copies: Copies,
    /// How far beyond the k-th nearest a walk must go for recall [`AIM`], in parts of its distance.
    epsilon: f64,
}

/// Refuses parameters outside their range.
fn check(params: &QuantizedGraphParams) -> Result<(), BuildError> {
    positive("candidates", params.candidates)?;
    let QuantizedGraphParams {
        code_bytes, alpha, ..
    } = *params;
    // The kernels compare whole cache lines, and exist for one to four of them.
    if !code_bytes.is_multiple_of(64) || code_bytes > 64 * MOST_LINES {
        return Err(BuildError::InvalidParameter {
            name: "code_bytes",
            received: code_bytes as f64,
            expected: "0, 64, 128, 192 or 256",
        });
    }
    // Below 1 an edge would be dropped although no kept edge ends nearer. Written so that NaN is
    // refused.
    if !(alpha >= 1.0 && alpha.is_finite()) {
        return Err(BuildError::InvalidParameter {
            name: "alpha",
            received: alpha,
            expected: "at least 1",
        });
    }
    Ok(())
}

impl Build for QuantizedGraph {
    const KEY: &'static str = "quantized_graph";
    const NAME: &'static str = "Quantized graph";
    const EXACT: bool = false;
    type Params = QuantizedGraphParams;
    type Search = QuantizedGraphSearch;

    /// Builds the graph, in O(n·√n) comparisons of codes, and copies the vectors in its order.
    /// Where the data need a second pass, each vector is searched for as well: all walks take about
    /// half as long as the rest.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, params: QuantizedGraphParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        check(&params)?;
        let walked = Walked::build(&base, &params)?;
        let lines = walked.as_ref().map_or(0, |walked| walked.lines());
        let searcher = match walked {
            Some(walked) => Searcher::Walk(Box::new(walked)),
            None => Searcher::Exact(KdTree::build(base, KdTreeParams::default())?),
        };
        let built = Built {
            params: QuantizedGraphParams {
                code_bytes: 64 * lines,
                ..params
            },
            searcher,
        };
        Ok(Self {
            built: Arc::new(built),
            search: QuantizedGraphSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `ef` is zero, or `epsilon` is not finite or no more than −1.
    fn with_search(&self, search: QuantizedGraphSearch) -> Result<Self, BuildError> {
        let epsilon = search.epsilon;
        // Written so that NaN is refused.
        if !(epsilon > -1.0 && epsilon.is_finite()) {
            return Err(BuildError::InvalidParameter {
                name: "epsilon",
                received: epsilon,
                expected: "more than -1",
            });
        }
        positive("ef", search.ef)?;
        let built = Arc::clone(&self.built);
        Ok(Self { built, search })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let params: QuantizedGraphParams = saved.build_parameters()?;
        check(&params)?;
        let searcher = match saved.take::<Option<Box<Walked>>>("walked")? {
            Some(walked) => {
                walked.check()?;
                let lines = params.code_bytes == 64 * walked.lines();
                expect(lines, "code_bytes", "the length of the codes")?;
                Searcher::Walk(walked)
            }
            // The tree was built with its defaults.
            None => Searcher::Exact(KdTree::from_parts(saved)?),
        };
        let built = Arc::new(Built { params, searcher });
        let search = saved.search_parameters()?;
        Ok(Self { built, search }.with_search(saved.search_parameters()?)?)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl QuantizedGraph {
    /// Whether no code tells near vectors from others, so that there is no graph: the search is
    /// that of a [`KdTree`], and `code_bytes` is zero.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.built.searcher, Searcher::Exact(_))
    }
}

saved!(Walked {
    rows,
    graph,
    copies,
    epsilon
});

impl Walked {
    /// Refuses parts that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    fn check(&self) -> Result<(), PartError> {
        self.graph.check(self.rows.len(), self.rows.dim())?;
        self.copies.check(self.rows.len())?;
        expect(self.epsilon.is_finite(), "epsilon", "a number")
    }

    /// Of the base, which is not empty. None if its codes tell too little.
    fn build(
        base: &Arc<Vectors>,
        params: &QuantizedGraphParams,
    ) -> Result<Option<Self>, BuildError> {
        // Copies would be each other's nearest, and nothing would lead out of them.
        let Distinct { rows: base, copies } = Distinct::of(base);
        let lines = (params.code_bytes > 0).then_some(params.code_bytes / 64);
        let plan = Plan::choose(&base, lines, params.seed);
        if plan.is_blind() {
            return Ok(None);
        }
        let graph = with_lines!(plan.shape.lines, LINES => {
            build::build::<LINES>(&base, &plan, params)
        });
        // A copy of the vectors in the order of positions: neighbours lie side by side, and an
        // entry of the pool needs no look-up of its id before its vector is read.
        let order: Vec<usize> = graph.ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&order).expect("ids are rows of the base");
        // A walk reads here and there: address translation is a good part of its cost.
        simd::in_huge_pages(&graph.codes);
        simd::in_huge_pages(&graph.edges);
        rows.in_huge_pages();
        let mut walked = Self {
            rows,
            graph,
            copies,
            epsilon: 0.0,
        };
        // By enough rows, or graphs over nearly the same rows would differ in it by chance: a tuned
        // `epsilon` counts from it.
        let sample = code_plan::sample(&base, MOST_SAMPLED.min(base.len().div_ceil(4)));
        Ok(walked.measure_epsilon(&sample).then_some(walked))
    }

    /// The length of the codes, in cache lines.
    fn lines(&self) -> usize {
        self.graph.encoder.format().lines
    }

    /// Sets the least `epsilon` with which sampled rows find [`AIM`] of their nearest, or the
    /// greatest of [`EPSILONS`]. Returns whether it finds [`LEAST`] of them.
    ///
    /// A sampled row counts as met from the beginning: it is a query that the graph does not have.
    fn measure_epsilon(&mut self, sample: &[Sampled]) -> bool {
        let mut position_of = vec![0; self.rows.len()];
        for (position, &id) in self.graph.ids.iter().enumerate() {
            position_of[id as usize] = position as u32;
        }
        let wanted: usize = sample.iter().map(|sampled| sampled.near.len()).sum();
        let aim = AIM * wanted as f64;
        let mut found = 0.0;
        let mut last = None;
        for epsilon in EPSILONS {
            self.epsilon = epsilon;
            let of = |sampled: &Sampled| self.found_of(sampled, position_of[sampled.row]);
            found = sample.iter().map(of).sum::<usize>() as f64;
            if found >= aim {
                // In proportion between the last two steps.
                if let Some((before, fewer)) = last {
                    self.epsilon = before + (epsilon - before) * (aim - fewer) / (found - fewer);
                }
                break;
            }
            last = Some((epsilon, found));
        }
        found >= LEAST * wanted as f64
    }

    /// How many of the nearest rows of a sampled one a walk finds, or others as near.
    fn found_of(&self, sampled: &Sampled, position: u32) -> usize {
        let Some(farthest) = sampled.near.last() else {
            return 0;
        };
        let count = sampled.near.len();
        let limits = Limits {
            ef: QuantizedGraphSearch::default().ef,
            k: count,
            reach: (1.0 + self.epsilon) as f32,
            left_out: Some(position),
        };
        let query = self.rows.row(position as usize);
        let found = self.nodes(query, limits).0;
        let near = found.iter().take(count);
        near.filter(|node| node.reduced <= farthest.reduced).count()
    }

    /// The nodes in the pool that a walk ends with, by exact distance, at most `limits.k`, with
    /// ids of nodes; and how many were compared.
    fn nodes(&self, query: Row<'_>, limits: Limits) -> (Vec<Candidate>, usize) {
        SCRATCH.with_borrow_mut(|scratch| {
            // A byte query becomes floats for the code alone. `best_of` compares it as it is.
            let values = query.to_floats();
            let pool = with_lines!(self.lines(), LINES => {
                walk::run::<LINES>(&self.graph, &values, limits, scratch)
            });
            (self.best_of(pool, query, limits.k), pool.len())
        })
    }

    fn search(&self, query: Row<'_>, k: usize, search: &QuantizedGraphSearch) -> Found {
        let radius_of = k.max(LEAST_NEAR).min(self.rows.len());
        let limits = Limits {
            // A pool of fewer than k entries could not hold the answer.
            ef: search.ef.max(radius_of),
            k: radius_of,
            // Far below the k-th nearest nothing is expanded but the first.
            reach: (1.0 + self.epsilon + search.epsilon).max(0.0) as f32,
            left_out: None,
        };
        let (nodes, compared) = self.nodes(query, limits);
        Found {
            candidates: self.copies.expand(nodes, k),
            visits: Visits {
                // Every entry of the pool is compared exactly. Codes are not counted.
                distances: compared,
                ..Visits::default()
            },
        }
    }

    /// The `k` best of the pool by exact distance.
    fn best_of(&self, pool: &[Entry], query: Row<'_>, k: usize) -> Vec<Candidate> {
        let fetch = |entry: &Entry| self.rows.row(entry.position()).prefetch();
        let ranker = Ranker::new(&self.rows, Metric::Euclidean, query);
        let mut top = TopK::new(k);
        // The first rows are asked for here, each later one while the row `ahead` places before it
        // is compared. So the memory works while the processor does.
        let row_bytes = self.rows.memory_bytes() / self.rows.len();
        let ahead = (AHEAD / row_bytes).clamp(LEAST_AHEAD, MOST_AHEAD);
        pool.iter().take(ahead).for_each(fetch);
        for (i, entry) in pool.iter().enumerate() {
            if let Some(later) = pool.get(i + ahead) {
                fetch(later);
            }
            // Candidates carry positions for now. What is farther than the k-th so far gives
            // `None`.
            if let Some(reduced) = ranker.reduced_within(entry.position(), top.threshold()) {
                top.push(entry.position() as u32, reduced);
            }
        }
        let mut found = top.into_candidates();
        for candidate in &mut found {
            candidate.id = self.graph.ids[candidate.id as usize];
        }
        // Ties were in the order of positions; they are to be in that of ids.
        found.sort_unstable();
        found
    }
}

impl Index for QuantizedGraph {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.built.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        match &self.built.searcher {
            Searcher::Walk(walked) => walked.copies.rows(walked.rows.len()),
            Searcher::Exact(tree) => tree.len(),
        }
    }

    fn dim(&self) -> usize {
        match &self.built.searcher {
            Searcher::Walk(walked) => walked.rows.dim(),
            Searcher::Exact(tree) => tree.dim(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.built.searcher {
            Searcher::Walk(walked) => {
                let copies = walked.copies.memory_bytes();
                walked.rows.memory_bytes() + walked.graph.memory_bytes() + copies
            }
            Searcher::Exact(tree) => tree.memory_bytes(),
        }
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        match &self.built.searcher {
            Searcher::Walk(walked) => walked.search(query, k, &self.search),
            Searcher::Exact(tree) => tree.search(query, k),
        }
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        match &self.built.searcher {
            Searcher::Walk(walked) => parts.add("walked", walked),
            Searcher::Exact(tree) => tree.parts(parts),
        }
        parts.describe::<Self>(&self.built.params, &self.search);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::index::Query;
    use crate::index::support::test_data::{clustered, recall, rounded};

    fn build(base: &Arc<Vectors>, params: QuantizedGraphParams) -> QuantizedGraph {
        QuantizedGraph::build(base.clone(), params).unwrap()
    }

    /// The same graph, searched with these parameters.
    fn searched(graph: &QuantizedGraph, ef: usize, epsilon: f64) -> QuantizedGraph {
        let search = QuantizedGraphSearch { ef, epsilon };
        graph.with_search(search).unwrap()
    }

    #[test]
    fn finds_nearly_all_on_floats_and_on_bytes_at_every_length_of_code() {
        let floats = clustered(4_000, 300, 1);
        let queries = clustered(200, 300, 2);
        for base in [Arc::new(rounded(&floats)), Arc::new(floats)] {
            for code_bytes in [64, 128, 192, 256] {
                let graph = build(
                    &base,
                    QuantizedGraphParams {
                        code_bytes,
                        ..Default::default()
                    },
                );
                let near = recall(&searched(&graph, 200, 0.0), &base, &queries, 10);
                let far = recall(&searched(&graph, 200, 0.1), &base, &queries, 10);
                let short = searched(&graph, 200, -0.1);
                assert!(
                    short
                        .query_batch(&queries, 10)
                        .unwrap()
                        .iter()
                        .all(|found| found.len() == 10)
                );
                let short = recall(&short, &base, &queries, 10);
                assert!(
                    short <= near && near > 0.8 && far > 0.98,
                    "{code_bytes} bytes: {short} {near} {far}"
                );
            }
        }
    }

    /// `rows` rows of noise in 120 dimensions, of which the first three come with `copies` near
    /// ones each, whose values differ by `spread` at most.
    fn noise_with_near_copies(rows: usize, copies: usize, spread: f32, seed: u64) -> Vectors {
        let mut originals = ChaCha8Rng::seed_from_u64(9);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::new();
        for row in 0..rows {
            let original: [f32; 120] = std::array::from_fn(|_| originals.random_range(0.0..100.0));
            for _ in 0..if row < 3 { copies } else { 1 } {
                values.extend(original.map(|value| value + rng.random_range(-spread..spread)));
            }
        }
        Vectors::from_floats(120, values).unwrap()
    }

    #[test]
    fn near_copies_lead_to_each_other() {
        // Steps of four bits are about 10 here, those of seven about 1. So the codes of the copies
        // differ in a few places, or are equal.
        for (code_bytes, spread) in [(64, 2.0), (64, 0.1), (64, 0.01), (128, 0.1), (128, 0.001)] {
            for copies in [25, 120] {
                let base = Arc::new(noise_with_near_copies(12_000, copies, spread, 1));
                let queries = noise_with_near_copies(3, 20, spread, 2);
                let params = QuantizedGraphParams {
                    code_bytes,
                    ..Default::default()
                };
                let graph = build(&base, params);
                assert!(!graph.is_exact(), "so few copies do not make codes blind");
                let recall = recall(&graph, &base, &queries, 10);
                let case = format!("{code_bytes} bytes, {spread}, {copies} copies");
                assert!(recall > 0.97, "{case}: {recall}");
            }
        }
    }

    #[test]
    fn an_offset_far_from_the_origin_takes_nothing_from_the_codes() {
        let shift = |data: Vectors| {
            let values: Vec<f32> = data
                .to_floats()
                .iter()
                .map(|value| value / 64.0 - 4_000.0)
                .collect();
            Vectors::from_floats(data.dim(), values).unwrap()
        };
        let (base, queries) = (
            Arc::new(shift(clustered(3_000, 30, 1))),
            shift(clustered(100, 30, 2)),
        );
        let graph = build(&base, QuantizedGraphParams::default());
        let recall = recall(&searched(&graph, 200, 0.1), &base, &queries, 10);
        assert!(recall > 0.99, "{recall}");
    }

    #[test]
    fn every_vector_is_within_reach() {
        // Far clusters, lone vectors and duplicates: an unlimited walk must come by all.
        let mut values = clustered(500, 8, 1).to_floats();
        values.extend([0.5f32; 8].repeat(200));
        values.extend((0..40).flat_map(|i| [1e4 * i as f32; 8]));
        let base = Arc::new(Vectors::from_floats(8, values).unwrap());
        let graph = build(
            &base,
            QuantizedGraphParams {
                candidates: 3,
                alpha: 1.0,
                ..Default::default()
            },
        );
        let mut ids: Vec<u32> = graph
            .query(&[1.0; 8], base.len())
            .unwrap()
            .iter()
            .map(|found| found.id)
            .collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..base.len() as u32));
    }

    #[test]
    fn seeds_in_groups_lead_to_the_nearest_and_to_all() {
        // As few rows as have seeds enough for groups.
        let base = Arc::new(clustered(20_000, 8, 1));
        let graph = build(&base, QuantizedGraphParams::default());
        let Searcher::Walk(walked) = &graph.built.searcher else {
            panic!("codes tell these rows apart");
        };
        assert!(walked.graph.seed_groups.is_some());

        let queries = clustered(100, 8, 2);
        let near = recall(&searched(&graph, 200, 0.1), &base, &queries, 10);
        assert!(near > 0.98, "{near}");

        let all = graph.query(&queries.row_to_floats(0), base.len()).unwrap();
        let mut ids: Vec<u32> = all.iter().map(|found| found.id).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..base.len() as u32));
    }

    #[test]
    fn extreme_values_are_no_trouble() {
        for scale in [3e38f32, 1e-42] {
            let rows: Vec<f32> = (0..60)
                .map(|i| scale * ((i * 7 % 11) as f32 / 11.0 - 0.5))
                .collect();
            let base = Arc::new(Vectors::from_floats(2, rows).unwrap());
            let graph = build(&base, QuantizedGraphParams::default());
            for row in 0..base.len() {
                let found = searched(&graph, 50, 1.0)
                    .query(&base.row_to_floats(row), 30)
                    .unwrap();
                assert_eq!(
                    (found.len(), found[0].distance),
                    (30, 0.0),
                    "scale {scale}, row {row}"
                );
            }
        }
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let base = Arc::new(clustered(2_000, 40, 1));
        let on = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let graph = pool.install(|| {
                build(
                    &base,
                    QuantizedGraphParams {
                        seed,
                        ..Default::default()
                    },
                )
            });
            let Searcher::Walk(walked) = &graph.built.searcher else {
                panic!("codes tell these rows apart");
            };
            let graph = &walked.graph;
            (
                graph.edges.clone(),
                graph.codes.clone(),
                graph.seeds.clone(),
                walked.epsilon,
            )
        };
        assert_eq!(on(1, 5), on(3, 5));
        assert_ne!(on(1, 5), on(1, 6));
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let base = Arc::new(clustered(20, 3, 1));
        let name = |error: BuildError| match error {
            BuildError::InvalidParameter { name, .. } => name,
            other => panic!("{other}"),
        };
        let params = |code_bytes, candidates, alpha| QuantizedGraphParams {
            code_bytes,
            candidates,
            alpha,
            seed: 0,
        };
        for (params, expected) in [
            (params(100, 100, 1.2), "code_bytes"),
            (params(320, 100, 1.2), "code_bytes"),
            (params(128, 0, 1.2), "candidates"),
            (params(128, 100, 0.9), "alpha"),
            (params(128, 100, f64::NAN), "alpha"),
        ] {
            let refused = QuantizedGraph::build(base.clone(), params);
            assert_eq!(name(refused.unwrap_err()), expected);
        }
        let graph = build(&base, QuantizedGraphParams::default());
        for (ef, epsilon, expected) in [
            (0, 0.1, "ef"),
            (9, -1.0, "epsilon"),
            (9, f64::NAN, "epsilon"),
        ] {
            let refused = graph.with_search(QuantizedGraphSearch { ef, epsilon });
            assert_eq!(name(refused.unwrap_err()), expected);
        }
    }
}
