//! A neighbourhood graph walked by short codes: the fastest approximate index here.
//!
//! # The idea
//! The naive search compares the query with every row. A graph that joins each row to rows near it
//! needs far fewer comparisons, for it can be walked towards the query:
//!
//! ```text
//! pool = the seeds nearest to the query      (one seed for each of √n clusters)
//! while the nearest row in pool that is not expanded yet is near enough:
//!     expand it: compare those of its 32 neighbours that were not met before,
//!                and put the near ones into pool
//! answer = the k first of pool
//! ```
//!
//! Nearly all rows that a walk compares are discarded at once, and most of its time goes into
//! fetching them from memory. So the walk compares *codes*, of two cache lines instead of the 13
//! that an image takes, and only what is in the pool at the end is compared by its true distance:
//!
//! ```text
//!   expand            score           keep            at the end
//!   +------+ edges   +------+        +------+        +-------------+
//!   | node | ------> | code | -----> | pool | -----> | rows, exact | --> the k best
//!   +------+         +------+        +------+        +-------------+
//!   about 20         about 275       at most ef      about 35
//! ```
//!
//! (The figures are those of Fashion-MNIST's pixels at recall .987.) The walk is in [`walk`], the
//! graph in [`build`], the codes in [`codes`](super::codes).
//!
//! # Why it may miss a neighbour
//! - The walk ends where nothing in the pool is within 1 + `epsilon` times the k-th distance. A
//!   neighbour to which only rows farther away lead is not met. A larger `epsilon` goes on for
//!   longer.
//! - A code may put a neighbour too far away, so that it is not kept. The build measures the error
//!   of the codes, and the pool keeps what is beyond the k-th nearest by that much.
//! - The graph is made of about the nearest rows of each row, by code, not of the nearest.
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
//! - Clumps. Where nearly all rows lie in one cluster the build compares all pairs: with 98 % of
//!   60,000 rows within 10⁻³ it takes 16 s, with uniform rows 2.
//! - Data on several scales. All codes share one range, which rows far out or clusters far apart
//!   set; the others then look alike.
//! - Flat spectra. Where the variance is spread over many more components than a code holds, as in
//!   sentence embeddings, the default codes do not reach recall .999. `code_bytes` = 256 and
//!   `candidates` = 200 do.
//! - Tiny values (10⁻³⁸ to 10⁻³⁵), whose squares vanish: it may return noise, or nothing.
//! - One dimension. 100,000 numbers on a line fall on 128 steps of a code: recall is .49.
//!
//! # Sources
//! Edges: Jayaram Subramanya et al., *DiskANN* (Vamana), 2019. End of the walk: Iwasaki and
//! Miyazaki, arXiv 1810.07355 (NGT), 2018. Coarse codes for the walk and exact distances for its
//! end: Guo et al. (ScaNN), 2020; Gou et al. (SymphonyQG), 2025. There the codes belong to edges;
//! here each vector has one, and the estimate adds the length of what the code leaves out.

mod build;
mod walk;

use std::cell::RefCell;
use std::sync::Arc;

use self::build::Graph;
use self::walk::{Entry, Limits, Scratch};
use super::code_plan::Plan;
use crate::distance::{Metric, Ranker};
use crate::index::parameters::{parameters, positive};
use crate::index::{Build, BuildError, Found, Index, Parameters, Visits, check_base};
use crate::neighbor::{Candidate, TopK};
use crate::simd;
use crate::simd::graph_codes::MOST_LINES;
use crate::vectors::{Row, Vectors};

/// Rows of the pool that are asked for from memory while one is compared. Fewer would not be there
/// in time; more would push out of the cache what is not read yet.
const AHEAD: usize = 4;

parameters! {
    /// How a [`QuantizedGraph`] is built.
    pub struct QuantizedGraphParams {
        /// Bytes of the code that guides the walk: 64, 128, 192 or 256.
        /// No more are used than the dimension calls for. Longer codes say more and take longer to
        /// fetch and to compare.
        code_bytes: usize = 128, sweep [128, 192];
        /// Near rows among which a node's edges are chosen, at least one.
        candidates: usize = 100;
        /// Vamana's α, at least 1: more keeps more of the longer edges.
        /// An edge is left out if a kept one ends nearer to its end by this factor (of squared
        /// distances).
        alpha: f64 = 1.2;
        /// Seed of the rotation and the clusters.
        seed: u64 = 0;
    }
}

parameters! {
    /// How a [`QuantizedGraph`] is searched.
    pub struct QuantizedGraphSearch {
        /// Candidates kept while searching, at most; at least k.
        ef: usize = 400;
        /// How far beyond the k-th nearest is searched; below 0 the search stops short of it.
        /// Out to 1 + `epsilon` times the estimated distance of the k-th, and what a code rounds
        /// off. A negative `epsilon` leaves the farthest of the k unexpanded.
        epsilon: f64 = 0.05,
            sweep [-0.08, -0.05, -0.03, -0.01, 0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2];
    }
}

/// A graph of near neighbours that is walked by seven-bit codes of the principal components, and
/// whose answer is ordered by exact distances. Euclidean, approximate.
///
/// A walk begins at the nearest of √n central vectors. It goes on from the nearest vector not yet
/// expanded, until that one is farther than the k-th nearest so far by more than `epsilon`. What
/// the codes may have misjudged is kept as well. All that was kept is then compared exactly, which
/// costs about a quarter of an expansion for each vector.
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
    /// The vectors in the order of the graph's positions.
    rows: Vectors,
    graph: Graph,
    params: QuantizedGraphParams,
}

/// Refuses parameters outside their range.
fn check(params: &QuantizedGraphParams) -> Result<(), BuildError> {
    positive("candidates", params.candidates)?;
    let QuantizedGraphParams {
        code_bytes, alpha, ..
    } = *params;
    // The kernels compare whole cache lines, and exist for one to four of them.
    let lines = code_bytes / 64;
    if !code_bytes.is_multiple_of(64) || !(1..=MOST_LINES).contains(&lines) {
        return Err(BuildError::InvalidParameter {
            name: "code_bytes",
            received: code_bytes as f64,
            expected: "64, 128, 192 or 256",
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
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, params: QuantizedGraphParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        check(&params)?;
        let lines = std::env::var("QG_LINES").ok().and_then(|v| v.parse().ok());
        // The kernels are compiled once for each length: a comparison has no loop over lines.
        let plan = Plan::choose(&base, lines, params.seed);
        let graph = with_lines!(plan.shape.lines, LINES => {
            build::build::<LINES>(&base, &plan, &params)
        });
        // A copy of the vectors in the order of positions: neighbours lie side by side, and an
        // entry of the pool needs no look-up of its id before its vector is read.
        let order: Vec<usize> = graph.ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&order).expect("ids are rows of the base");
        // A walk reads here and there: address translation is a good part of its cost.
        simd::in_huge_pages(&graph.codes);
        simd::in_huge_pages(&graph.edges);
        rows.in_huge_pages();
        let built = Built {
            rows,
            graph,
            params,
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
        // At −1 the reach would be zero. Written so that NaN is refused.
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
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Built {
    /// The entries of the pool that a walk by codes ends with.
    fn walk<'a>(&'a self, query: &[f32], limits: Limits, scratch: &'a mut Scratch) -> &'a [Entry] {
        let graph = &self.graph;
        let lines = graph.encoder.format().lines;
        with_lines!(lines, LINES => walk::run::<LINES>(graph, &self.rows, query, limits, scratch))
    }

    /// The `k` best of the pool by exact distance.
    fn best_of(&self, pool: &[Entry], query: Row<'_>, k: usize) -> Vec<Candidate> {
        let fetch = |entry: &Entry| self.rows.row(entry.position()).prefetch();
        let ranker = Ranker::new(&self.rows, Metric::Euclidean, query);
        let mut top = TopK::new(k.min(self.rows.len()));
        // The first rows are asked for here, each later one while the row AHEAD places before it is
        // compared. So the memory works while the processor does.
        pool.iter().take(AHEAD).for_each(fetch);
        for (i, entry) in pool.iter().enumerate() {
            if let Some(ahead) = pool.get(i + AHEAD) {
                fetch(ahead);
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
        self.built.rows.len()
    }

    fn dim(&self) -> usize {
        self.built.rows.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.built.rows.memory_bytes() + self.built.graph.memory_bytes()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let limits = Limits {
            // A pool of fewer than k entries could not hold the answer.
            ef: self.search.ef.max(k),
            k,
            reach: (1.0 + self.search.epsilon) as f32,
        };
        SCRATCH.with_borrow_mut(|scratch| {
            // A byte query becomes floats for the code alone. `best_of` compares it as it is.
            let pool = self.built.walk(&query.to_floats(), limits, scratch);
            Found {
                candidates: self.built.best_of(pool, query, k),
                visits: Visits {
                    // Every entry of the pool is compared exactly. Codes are not counted.
                    distances: pool.len(),
                    ..Visits::default()
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
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
                    0.3 < short && short < near && near > 0.6 && far > 0.98,
                    "{code_bytes} bytes: {short} {near} {far}"
                );
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
            (
                graph.built.graph.edges.clone(),
                graph.built.graph.codes.clone(),
                graph.built.graph.seeds.clone(),
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
            (params(0, 100, 1.2), "code_bytes"),
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
