//! A hierarchical navigable small world graph.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use instant_distance::{Builder, Point};
use rayon::prelude::*;
use serde::{Deserialize, Serialize, Serializer};

use super::sketch::{Radius, Sketch, SketchedQuery};
use super::{BuildError, Index, QueryError, Visits, check_base, check_query, check_shape};
use crate::dataset::{Row, Vectors};
use crate::distance::{Metric, Ranker};
use crate::kernel::{pair, sketch as kernels};
use crate::neighbor::{Neighbor, Neighbors, TopK};

/// What an [`Hnsw`] is built with. The paper's M is 32 in instant-distance, and 64 on the lowest layer.
#[derive(Debug, Clone, PartialEq)]
pub struct HnswParams {
    /// Candidates among which the links of a new row are chosen. More make a better graph, more slowly.
    pub ef_construction: usize,
    /// Seed of the layers and of the order of insertion.
    pub seed: u64,
}

impl Default for HnswParams {
    fn default() -> Self {
        Self { ef_construction: 100, seed: 0 }
    }
}

/// The ef_search of an index on which none was set.
const EF_SEARCH: usize = 40;
/// Principal components in which a neighbour is bounded before its distance is computed.
const COMPONENTS: usize = 32;

/// HNSW (Malkov and Yashunin, *Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable
/// Small World Graphs*, TPAMI 2020), the graph built by the crate [`instant_distance`]. Approximate, Euclidean.
///
/// instant-distance freezes `ef_search` when it builds. So the graph is read out of it once, through its serde form, and
/// searched here by the paper's algorithms 2 and 5, with any `ef_search`: [`Hnsw::with_ef_search`] is free. The search
/// also rejects most neighbours by a bound in 32 principal components before it touches their rows, which changes
/// nothing in what it finds.
///
/// instant-distance inserts rows in parallel, and what it builds then depends on which comes first. The same seed shall
/// give the same graph on any number of threads, and so it builds on one.
#[derive(Debug, Clone)]
pub struct Hnsw {
    graph: Arc<Graph>,
    ef_search: usize,
}

#[derive(Debug)]
struct Graph {
    params: HnswParams,
    /// The lowest first; a layer holds the first so many rows.
    layers: Vec<Links>,
    sketch: Sketch,
    /// n × width sketches. Rows and sketches are in instant-distance's order, those of the upper layers first.
    sketches: Vec<f32>,
    rows: Vectors,
    ids: Vec<u32>,
}

/// The links of a layer: those of row i are `targets[starts[i]..starts[i + 1]]`.
#[derive(Debug)]
struct Links {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

/// A row, to instant-distance. It serialises as its id alone.
#[derive(Debug, Clone)]
struct Member<'a> {
    base: &'a Vectors,
    id: u32,
}

impl Point for Member<'_> {
    fn distance(&self, other: &Self) -> f32 {
        let exact = match (self.base.row(self.id as usize), other.base.row(other.id as usize)) {
            (Row::Bytes(a), Row::Bytes(b)) => return (Metric::Euclidean.rank_bytes(a, b) as f32).sqrt(),
            (Row::Floats(a), Row::Floats(b)) => {
                let squared = pair::squared_euclidean_f32(a, b);
                // Where squares neither overflow nor vanish in f32.
                if (1e-20..1e30).contains(&squared) {
                    return squared.sqrt();
                }
                Metric::Euclidean.rank(a, b)
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

impl Links {
    /// Unused places of instant-distance's fixed-size lists hold `u32::MAX`.
    fn new(lists: &[Vec<u32>]) -> Self {
        let mut links = Self { starts: vec![0], targets: Vec::new() };
        for list in lists {
            links.targets.extend(list.iter().copied().take_while(|&target| target != u32::MAX));
            links.starts.push(links.targets.len() as u32);
        }
        links
    }

    fn of(&self, row: u32) -> &[u32] {
        &self.targets[self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize]
    }
}

impl Hnsw {
    /// Builds the graph, on one thread (see [`Hnsw`]).
    ///
    /// # Errors
    /// If `base` is empty or `ef_construction` is zero.
    pub fn build(base: Arc<Vectors>, params: HnswParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        if params.ef_construction == 0 {
            return Err(BuildError::InvalidParameter {
                name: "ef_construction",
                received: 0.0,
                expected: "at least 1",
            });
        }
        let sketched = Sketch::fit(&base, Metric::Euclidean, COMPONENTS)?;
        let members = (0..base.len() as u32).map(|id| Member { base: &base, id }).collect();
        let builder = Builder::default().ef_construction(params.ef_construction).seed(params.seed);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let exported = pool.install(|| {
            let (graph, _) = builder.build_hnsw(members);
            serde_json::to_vec(&graph).expect("numbers serialise")
        });
        let Exported { points: ids, zero, layers } = serde_json::from_slice(&exported).expect("its own form");
        drop(exported);
        let layers = std::iter::once(&zero).chain(&layers).map(|lists| Links::new(lists)).collect();
        let width = sketched.sketch.width();
        let sketches = ids.iter().flat_map(|&id| &sketched.rows[id as usize * width..][..width]).copied().collect();
        let rows = base.select(&ids.iter().map(|&id| id as usize).collect::<Vec<_>>()).expect("rows of the base");
        let graph = Graph { params, layers, sketch: sketched.sketch, sketches, rows, ids };
        Ok(Self { graph: Arc::new(graph), ef_search: EF_SEARCH })
    }

    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &HnswParams {
        &self.graph.params
    }

    /// Another index over the same graph, which keeps the `ef_search` best rows met while it searches, or k if that is
    /// more.
    ///
    /// # Errors
    /// If `ef_search` is zero.
    pub fn with_ef_search(&self, ef_search: usize) -> Result<Self, BuildError> {
        if ef_search == 0 {
            return Err(BuildError::InvalidParameter { name: "ef_search", received: 0.0, expected: "at least 1" });
        }
        Ok(Self { graph: Arc::clone(&self.graph), ef_search })
    }

    /// [`Index::query`], and what the search looked at.
    ///
    /// # Errors
    /// As [`Index::query`].
    pub fn query_counted(&self, query: &[f32], k: usize) -> Result<(Vec<Neighbor>, Visits), QueryError> {
        check_query(query, k, self.dim())?;
        Ok(self.search(Row::Floats(query), k))
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
        let (links, ids) = (&self.graph.layers[layer], &self.graph.ids);
        (0..links.starts.len() as u32 - 1)
            .flat_map(move |row| links.of(row).iter().map(move |&to| (ids[row as usize], ids[to as usize])))
    }

    fn search(&self, query: Row<'_>, k: usize) -> (Vec<Neighbor>, Visits) {
        let graph = &*self.graph;
        let k = k.min(graph.ids.len());
        let mut walk = Walk {
            graph,
            ranker: Ranker::new(&graph.rows, Metric::Euclidean, query),
            query: graph.sketch.query(query),
            seen: vec![0; graph.ids.len().div_ceil(64)],
            visits: Visits::default(),
        };
        let mut entry = 0;
        for layer in (1..graph.layers.len()).rev() {
            entry = walk.descend(layer, entry);
        }
        let top = walk.collect(entry, self.ef_search.max(k));
        let mut neighbors = top.into_neighbors(Metric::Euclidean);
        neighbors.truncate(k);
        (neighbors, walk.visits)
    }
}

/// One query on its way through the layers.
struct Walk<'a> {
    graph: &'a Graph,
    ranker: Ranker<'a>,
    query: SketchedQuery,
    /// A bit a row.
    seen: Vec<u64>,
    visits: Visits,
}

impl Walk<'_> {
    fn rank(&mut self, row: u32) -> f64 {
        self.visits.distances += 1;
        self.ranker.rank(row as usize)
    }

    /// Whether the bound leaves open that the row is within the radius.
    fn may_be_within(&mut self, row: u32, radius: Radius) -> bool {
        self.visits.bounds += 1;
        let width = self.query.values.len();
        let sketch = &self.graph.sketches[row as usize * width..][..width];
        let beyond = kernels::rank(Metric::Euclidean, &self.query.values, sketch) > radius.rank;
        !beyond
    }

    /// The local minimum of a layer below `entry`: algorithm 2 with ef = 1.
    fn descend(&mut self, layer: usize, entry: u32) -> u32 {
        let (mut nearest, mut rank) = (entry, self.rank(entry));
        let mut radius = self.query.radius(rank);
        loop {
            let from = nearest;
            for &row in self.graph.layers[layer].of(from) {
                if self.may_be_within(row, radius) {
                    let other = self.rank(row);
                    if other < rank {
                        (nearest, rank) = (row, other);
                        radius = self.query.radius(rank);
                    }
                }
            }
            if nearest == from {
                return nearest;
            }
        }
    }

    /// The `ef` best rows met on the lowest layer: algorithm 2.
    fn collect(&mut self, entry: u32, ef: usize) -> TopK {
        let graph = self.graph;
        let rank = self.rank(entry);
        let mut top = TopK::new(ef);
        top.push(graph.ids[entry as usize], rank);
        let mut radius = self.query.radius(top.threshold());
        self.seen[entry as usize / 64] |= 1 << (entry % 64);
        // Ranks are not negative: their bits order as they do.
        let mut pending = BinaryHeap::from([Reverse((rank.to_bits(), entry))]);
        while let Some(Reverse((rank, from))) = pending.pop() {
            if f64::from_bits(rank) > top.threshold() {
                break;
            }
            for &row in graph.layers[0].of(from) {
                let (word, bit) = (row as usize / 64, 1 << (row % 64));
                if self.seen[word] & bit != 0 {
                    continue;
                }
                self.seen[word] |= bit;
                if !self.may_be_within(row, radius) {
                    continue;
                }
                let rank = self.rank(row);
                if top.push(graph.ids[row as usize], rank) {
                    radius = self.query.radius(top.threshold());
                    pending.push(Reverse((rank.to_bits(), row)));
                }
            }
        }
        top
    }
}

impl Index for Hnsw {
    fn name(&self) -> &'static str {
        "HNSW"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let HnswParams { ef_construction, seed } = self.graph.params;
        vec![("ef_construction", ef_construction as f64), ("seed", seed as f64), ("ef_search", self.ef_search as f64)]
    }

    fn len(&self) -> usize {
        self.graph.ids.len()
    }

    fn dim(&self) -> usize {
        self.graph.rows.dim()
    }

    fn memory_bytes(&self) -> usize {
        let Graph { layers, sketch, sketches, rows, ids, .. } = &*self.graph;
        let links: usize = layers.iter().map(|links| size_of_val(&*links.starts) + size_of_val(&*links.targets)).sum();
        rows.memory_bytes() + sketch.memory_bytes() + size_of_val(&**sketches) + size_of_val(&**ids) + links
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        Ok(self.query_counted(query, k)?.0)
    }

    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_shape(queries.dim(), k, self.dim())?;
        let rows: Vec<_> = (0..queries.len()).into_par_iter().map(|row| self.search(queries.row(row), k).0).collect();
        Ok(rows.into_iter().collect())
    }
}
