//! A hierarchical navigable small world graph.
//!
//! # The idea
//! The naive walk needs one graph in which each row is joined to rows near it:
//!
//! ```text
//! at = any row
//! while some neighbour of at is nearer to the query: at = the nearest of its neighbours
//! ```
//!
//! It has two faults. From far away it takes very many short steps; and it stops at the first row
//! none of whose neighbours is nearer, which need not be the nearest of all. HNSW mends both:
//!
//! ```text
//! layer 2    @--------------@                few rows, long links: begin here
//!                           |
//! layer 1    o-----o--------@----@-----o     29 % of the rows below (1 / ln 32)
//!                                |
//! layer 0    o-o-o-o-o-o-o-o-o-o-@-@-q-o     all rows, short links: end here
//! ```
//!
//! - Rows stand in layers, as in a skip list: each layer holds a random sample of the one below.
//!   The walk begins in the uppermost, where a step is long, and goes down wherever it can get no
//!   nearer.
//! - On the lowest layer it keeps the `ef_search` best rows met, not one, and ends only when the
//!   nearest row not yet expanded is farther than the worst of them.
//!
//! # Why it may miss a neighbour
//! Each row has at most 64 links, chosen so that they lead in different directions. A near row to
//! which no link of the rows kept leads is never seen. A larger `ef_search` keeps more rows, so
//! that more links are followed.
//!
//! # Memory
//! For each row: the row itself; its *sketch*, 31 principal components and the length of what they
//! leave out (two cache lines), by which most neighbours are rejected before their rows are
//! touched; and its links, four bytes each, in one array a layer ([`Links`]).
//!
//! # What it is bad at
//! - Copies. The rule that chooses a row's links drops none of its copies, and the build slows
//!   down: 1,000 equal rows take 2.7 s, and 10,000 rows of three kinds were not done in 300 s.
//! - Answers among copies. A search may return fewer than min(k, n) neighbours (96 of 300 equal
//!   rows), and recall falls with the share of equal rows.
//! - Build time. instant-distance inserts rows in parallel, and then what it builds depends on
//!   which comes first. The same seed shall give the same graph, so the build uses one thread.
//!
//! # Source
//! Malkov and Yashunin, *Efficient and Robust Approximate Nearest Neighbor Search Using
//! Hierarchical Navigable Small World Graphs*, TPAMI 2020.

mod export;

use std::sync::Arc;

use instant_distance::{Builder, Heuristic, Point};
use serde::{Serialize, Serializer};

use self::export::Exported;
use super::links::Links;
use crate::distance::Metric;
use crate::index::parameters::{parameters, positive};
use crate::index::support::lower_bound::Sketch;
use crate::index::support::pruned_rows::{COMPONENTS, Comparison, PrunedRows};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::neighbor::TopK;
use crate::simd::pairwise;
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`Hnsw`] is built. The paper's M is 32 in instant-distance, and 64 on the lowest
    /// layer.
    pub struct HnswParams {
        /// Candidates among which the links of a new row are chosen.
        /// More make a better graph, more slowly.
        ef_construction: usize = 100;
        /// Seed of the layers and of the order of insertion.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`Hnsw`] is searched.
    pub struct HnswSearch {
        /// The best rows met that a search keeps, at least k.
        ef_search: usize = 40, sweep [10, 15, 20, 30, 40, 60, 80, 120, 200, 400];
    }
}

/// HNSW, the graph built by the crate [`instant_distance`]. Euclidean, approximate.
///
/// instant-distance freezes `ef_search` when it builds. So the graph is read out of it once and
/// searched here, by algorithms 2 and 5 of the paper, with any `ef_search`: [`Build::with_search`]
/// is free. The search also rejects most neighbours by a bound in 31 principal components, before
/// it touches their rows; that changes nothing in what it finds.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<f32> = (0..8_000).map(|i| (i * i % 1_009) as f32).collect();
/// let base = Arc::new(Vectors::from_floats(8, values)?); // 1,000 rows of 8 values
///
/// let index = Hnsw::build(Arc::clone(&base), HnswParams::default())?;
/// let wider = index.with_search(HnswSearch { ef_search: 200 })?; // the same graph, not a copy
/// let found = wider.query(base.row(5), 3)?;
/// assert_eq!((found.len(), found[0].id, found[0].distance), (3, 5, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hnsw {
    graph: Arc<Graph>,
    search: HnswSearch,
}

#[derive(Debug)]
struct Graph {
    params: HnswParams,
    /// The lowest first. Each layer holds the first so many rows.
    layers: Vec<Links>,
    /// In instant-distance's order: those of the upper layers first.
    rows: PrunedRows,
}

/// A row, as instant-distance sees it. It serialises as its id alone (see [`export`]).
#[derive(Debug, Clone)]
struct Member<'a> {
    base: &'a Vectors,
    id: u32,
}

impl<'a> Member<'a> {
    fn row(&self) -> Row<'a> {
        self.base.row(self.id as usize)
    }
}

impl Point for Member<'_> {
    fn distance(&self, other: &Self) -> f32 {
        match (self.row(), other.row()) {
            (Row::Bytes(a), Row::Bytes(b)) => (Metric::Euclidean.reduced_bytes(a, b) as f32).sqrt(),
            (Row::Floats(a), Row::Floats(b)) => float_distance(a, b),
            _ => unreachable!("rows of one base"),
        }
    }
}

/// The distance of two rows of floats, in f32 where squares neither overflow nor vanish there.
fn float_distance(a: &[f32], b: &[f32]) -> f32 {
    let squared = pairwise::squared_euclidean_f32(a, b);
    // f32 loses the squares of differences below about 1e-19: too little to matter in a sum of
    // 1e-20. A sum below 1e30 has not overflowed. Everywhere else f64 is taken, which is slower.
    if (1e-20..1e30).contains(&squared) {
        squared.sqrt()
    } else {
        Metric::Euclidean.reduced(a, b).sqrt() as f32
    }
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.id)
    }
}

impl Hnsw {
    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &HnswParams {
        &self.graph.params
    }

    /// The number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.graph.layers.len()
    }

    /// The links of one layer, zero the lowest, as pairs of ids.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn links(&self, layer: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.graph.layers[layer].pairs(self.graph.rows.ids())
    }
}

/// Walks a layer from `entry` to a row none of whose neighbours is nearer: algorithm 2 with ef = 1.
fn descend(layer: &Links, comparison: &mut Comparison<'_>, entry: u32) -> u32 {
    // What was met on the layer above, the entry among it, is to be compared again: each layer has
    // other links.
    comparison.start_again();
    let mut least = f64::INFINITY;
    // The nearest of `rows` if one is nearer than all before, otherwise `nearest`.
    let mut compare = |rows: &[u32], mut nearest: u32| {
        comparison.compare(rows, |row, reduced| {
            if reduced < least {
                (nearest, least) = (row, reduced);
            }
            least
        });
        nearest
    };
    let mut nearest = compare(&[entry], entry);
    loop {
        // Strictly nearer each time, so the loop ends.
        let nearer = compare(layer.of(nearest), nearest);
        if nearer == nearest {
            return nearest;
        }
        nearest = nearer;
    }
}

/// The graph that instant-distance builds over `base`, on one thread.
fn build_graph(base: &Vectors, params: &HnswParams) -> Result<Exported, BuildError> {
    let members = (0..base.len() as u32).map(|id| Member { base, id });
    let members = members.collect();
    // As in hnswlib, a list holds only the links that the heuristic chose. instant-distance's
    // default fills it up with those that it left out; each step of a search would then look at
    // three times as many rows.
    let chosen_alone = Heuristic {
        extend_candidates: false,
        keep_pruned: false,
    };
    let builder = Builder::default()
        .ef_construction(params.ef_construction)
        .select_heuristic(Some(chosen_alone))
        .seed(params.seed);
    // instant-distance inserts on the current rayon pool. With one thread the order of insertion,
    // and so the graph, depends on the seed alone.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| BuildError::NoThread {
        reason: error.to_string(),
    })?;
    Ok(pool.install(|| {
        let (graph, _) = builder.build_hnsw(members);
        Exported::new(&graph)
    }))
}

impl Build for Hnsw {
    const KEY: &'static str = "hnsw";
    const NAME: &'static str = "HNSW";
    const EXACT: bool = false;
    type Params = HnswParams;
    type Search = HnswSearch;

    /// Builds the graph, on one thread.
    ///
    /// # Errors
    /// If `base` is empty, `ef_construction` is zero, or the system refuses the thread.
    fn build(base: Arc<Vectors>, params: HnswParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("ef_construction", params.ef_construction)?;
        let sketched = Sketch::fit(&base, Metric::Euclidean, COMPONENTS)?;
        let Exported { ids, layers } = build_graph(&base, &params)?;
        let graph = Graph {
            params,
            layers,
            rows: PrunedRows::new(&base, sketched, ids),
        };
        Ok(Self {
            graph: Arc::new(graph),
            search: HnswSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `ef_search` is zero.
    fn with_search(&self, search: HnswSearch) -> Result<Self, BuildError> {
        positive("ef_search", search.ef_search)?;
        let graph = Arc::clone(&self.graph);
        Ok(Self { graph, search })
    }
}

impl Index for Hnsw {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.graph.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        self.graph.rows.ids().len()
    }

    fn dim(&self) -> usize {
        self.graph.rows.rows().dim()
    }

    fn memory_bytes(&self) -> usize {
        let Graph { layers, rows, .. } = &*self.graph;
        rows.memory_bytes() + layers.iter().map(Links::memory_bytes).sum::<usize>()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let Graph { layers, rows, .. } = &*self.graph;
        let k = k.min(rows.ids().len());
        let mut comparison = rows.comparison(query);
        // The upper layers hold the first so many rows, so row 0 is in all of them.
        let mut entry = 0;
        for layer in layers[1..].iter().rev() {
            entry = descend(layer, &mut comparison, entry);
        }
        comparison.start_again();
        let mut top = TopK::new(self.search.ef_search.max(k));
        // A reach of 1: expand what is nearer than the worst of the `ef_search` kept.
        layers[0].walk(&mut comparison, &[entry], rows.ids(), 1.0, &mut top);
        let mut candidates = top.into_candidates();
        candidates.truncate(k);
        Found {
            candidates,
            visits: comparison.visits,
        }
    }
}
