//! A hierarchical navigable small world graph.

use std::sync::Arc;

use instant_distance::{Builder, Heuristic, Point};
use serde::{Deserialize, Serialize, Serializer};

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
    /// How an [`Hnsw`] is built. The paper's M is 32 in instant-distance, and 64 on the lowest layer.
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

/// HNSW (Malkov and Yashunin, *Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable
/// Small World Graphs*, TPAMI 2020), the graph built by the crate [`instant_distance`]. Approximate, Euclidean.
///
/// instant-distance freezes `ef_search` when it builds. So the graph is read out of it once, through its serde form, and
/// searched here by the paper's algorithms 2 and 5, with any `ef_search`: [`Hnsw::with_ef_search`] is free. The search
/// also rejects most neighbours by a bound in 31 principal components before it touches their rows, which changes
/// nothing in what it finds.
///
/// instant-distance inserts rows in parallel, and what it builds then depends on which comes first. The same seed shall
/// give the same graph on any number of threads, and so it builds on one.
#[derive(Debug, Clone)]
pub struct Hnsw {
    graph: Arc<Graph>,
    search: HnswSearch,
}

#[derive(Debug)]
struct Graph {
    params: HnswParams,
    /// The lowest first; a layer holds the first so many rows.
    layers: Vec<Links>,
    /// In instant-distance's order, those of the upper layers first.
    rows: PrunedRows,
}

/// A row, to instant-distance. It serialises as its id alone.
#[derive(Debug, Clone)]
struct Member<'a> {
    base: &'a Vectors,
    id: u32,
}

impl Point for Member<'_> {
    fn distance(&self, other: &Self) -> f32 {
        let exact = match (
            self.base.row(self.id as usize),
            other.base.row(other.id as usize),
        ) {
            (Row::Bytes(a), Row::Bytes(b)) => {
                return (Metric::Euclidean.reduced_bytes(a, b) as f32).sqrt();
            }
            (Row::Floats(a), Row::Floats(b)) => {
                let squared = pairwise::squared_euclidean_f32(a, b);
                // Where squares neither overflow nor vanish in f32.
                if (1e-20..1e30).contains(&squared) {
                    return squared.sqrt();
                }
                Metric::Euclidean.reduced(a, b)
            }
            _ => unreachable!("rows of one base"),
        };
        exact.sqrt() as f32
    }
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.id)
    }
}

/// What instant-distance's graph serialises to.
#[derive(Deserialize)]
struct Exported {
    points: Vec<u32>,
    zero: Vec<Vec<u32>>,
    layers: Vec<Vec<Vec<u32>>>,
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

/// The local minimum of a layer below `entry`: algorithm 2 with ef = 1.
fn descend(layer: &Links, comparison: &mut Comparison<'_>, entry: u32) -> u32 {
    comparison.start_again();
    let mut least = f64::INFINITY;
    let mut compare = |rows: &[u32], nearest: u32| {
        let mut nearer = nearest;
        comparison.compare(rows, |row, rank| {
            if rank < least {
                (nearer, least) = (row, rank);
            }
            least
        });
        nearer
    };
    let mut nearest = compare(&[entry], entry);
    loop {
        let nearer = compare(layer.of(nearest), nearest);
        if nearer == nearest {
            return nearest;
        }
        nearest = nearer;
    }
}

impl Build for Hnsw {
    const KEY: &'static str = "hnsw";
    const NAME: &'static str = "HNSW";
    const EXACT: bool = false;
    type Params = HnswParams;
    type Search = HnswSearch;

    /// Builds the graph, on one thread (see [`Hnsw`]).
    ///
    /// # Errors
    /// If `base` is empty or `ef_construction` is zero.
    fn build(base: Arc<Vectors>, params: HnswParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("ef_construction", params.ef_construction)?;
        let sketched = Sketch::fit(&base, Metric::Euclidean, COMPONENTS)?;
        let members = (0..base.len() as u32)
            .map(|id| Member { base: &base, id })
            .collect();
        // As in hnswlib, a list holds only the links that the heuristic chose: filled up with those that it left out, as
        // is instant-distance's default, each step of a search would look at thrice as many rows.
        let chosen_alone = Heuristic {
            extend_candidates: false,
            keep_pruned: false,
        };
        let builder = Builder::default()
            .ef_construction(params.ef_construction)
            .select_heuristic(Some(chosen_alone))
            .seed(params.seed);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a thread");
        let exported = pool.install(|| {
            let (graph, _) = builder.build_hnsw(members);
            serde_json::to_vec(&graph).expect("numbers serialise")
        });
        let Exported {
            points: ids,
            zero,
            layers,
        } = serde_json::from_slice(&exported).expect("its own form");
        drop(exported);
        // Unused places of its fixed-size lists hold `u32::MAX`.
        let used = |list: &Vec<u32>| {
            list.iter()
                .copied()
                .take_while(|&target| target != u32::MAX)
                .collect::<Vec<_>>()
        };
        let links = |lists: &Vec<Vec<u32>>| Links::new(lists.iter().map(used));
        let layers = std::iter::once(&zero).chain(&layers).map(links).collect();
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
        let mut entry = 0;
        for layer in layers[1..].iter().rev() {
            entry = descend(layer, &mut comparison, entry);
        }
        comparison.start_again();
        let mut top = TopK::new(self.search.ef_search.max(k));
        layers[0].walk(&mut comparison, &[entry], rows.ids(), 1.0, &mut top);
        let mut candidates = top.into_candidates();
        candidates.truncate(k);
        Found {
            candidates,
            visits: comparison.visits,
        }
    }
}
