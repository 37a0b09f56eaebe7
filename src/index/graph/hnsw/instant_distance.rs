//! The graph of the crate instant-distance, searched as ours is.

mod export;

use std::sync::Arc;

use instant_distance::{Builder, Heuristic, Point};
use serde::{Serialize, Serializer};

use self::export::Exported;
use super::layers::Layers;
use super::nodes::{Nodes, distance};
use crate::index::graph::copies::equal_rows;
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`InstantDistance`] is built. The paper's M is 32 in instant-distance, and 64 on the
    /// lowest layer.
    pub struct InstantDistanceParams {
        /// Candidates among which the links of a new row are chosen.
        /// More make a better graph, more slowly.
        ef_construction: usize = 100;
        /// Seed of the layers and of the order of insertion.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`InstantDistance`] is searched.
    pub struct InstantDistanceSearch {
        /// The best rows met that a search keeps, at least k.
        /// Three times as many as in [`Hnsw`](super::Hnsw) by default: on rows of very different
        /// sizes its links lead to fewer of the neighbours.
        ef_search: usize = 120, sweep [10, 15, 20, 30, 40, 60, 80, 120, 200, 400, 800, 1_600];
    }
}

/// HNSW, the graph built by the crate [`instant_distance`]. Euclidean, approximate.
///
/// instant-distance freezes `ef_search` when it builds. So the graph is read out of it once and
/// searched as that of [`Hnsw`](super::Hnsw) is, with any `ef_search`: [`Build::with_search`] is
/// free. Copies of a row are one node of the graph, as there.
///
/// # What it is bad at
/// - Clusters far apart: nothing brings back into reach what the choice of links has cut off. On
///   two clusters of 10,000 rows, 20,000 apart, it finds .91 of the ten nearest with `ef_search` =
///   40 and .99 with 120.
/// - Rows of very different sizes, 1 to a million: .58 of the ten nearest.
/// - Build time. instant-distance inserts rows in parallel, and then what it builds depends on
///   which comes first. The same seed shall give the same graph, so the build uses one thread.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<f32> = (0..8_000).map(|i| (i * i % 1_009) as f32).collect();
/// let base = Arc::new(Vectors::from_floats(8, values)?); // 1,000 rows of 8 values
///
/// let index = InstantDistance::build(Arc::clone(&base), InstantDistanceParams::default())?;
/// let found = index.query(base.row(5), 3)?;
/// assert_eq!((found.len(), found[0].id, found[0].distance), (3, 5, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct InstantDistance {
    graph: Arc<Layers>,
    params: InstantDistanceParams,
    search: InstantDistanceSearch,
}

/// A row, as instant-distance sees it. It serialises as its place among `rows` (see [`export`]).
#[derive(Debug, Clone)]
struct Member<'a> {
    row: Row<'a>,
    place: u32,
}

impl Point for Member<'_> {
    fn distance(&self, other: &Self) -> f32 {
        distance(self.row, other.row).sqrt() as f32
    }
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.place)
    }
}

/// The graph that instant-distance builds over the first of each group, on one thread.
fn build_graph(
    base: &Vectors,
    groups: &[Vec<u32>],
    params: &InstantDistanceParams,
) -> Result<Exported, BuildError> {
    let members = groups.iter().enumerate().map(|(place, group)| Member {
        row: base.row(group[0] as usize),
        place: place as u32,
    });
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

impl Build for InstantDistance {
    const KEY: &'static str = "instant_distance";
    const NAME: &'static str = "instant-distance";
    const EXACT: bool = false;
    type Params = InstantDistanceParams;
    type Search = InstantDistanceSearch;

    /// Builds the graph, on one thread.
    ///
    /// # Errors
    /// If `base` is empty, `ef_construction` is zero, or the system refuses the thread.
    fn build(base: Arc<Vectors>, params: InstantDistanceParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("ef_construction", params.ef_construction)?;
        let groups = equal_rows(&base);
        let Exported { order, layers } = build_graph(&base, &groups, &params)?;
        let in_order: Vec<Vec<u32>> = order
            .iter()
            .map(|&place| groups[place as usize].clone())
            .collect();
        let graph = Layers::new(Nodes::new(&base, &in_order)?, layers);
        Ok(Self {
            graph: Arc::new(graph),
            params,
            search: InstantDistanceSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `ef_search` is zero.
    fn with_search(&self, search: InstantDistanceSearch) -> Result<Self, BuildError> {
        positive("ef_search", search.ef_search)?;
        Ok(Self {
            search,
            ..self.clone()
        })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let index = Self {
            graph: Arc::new(Layers::from_parts(saved)?),
            params: saved.build_parameters()?,
            search: saved.search_parameters()?,
        };
        Ok(index.with_search(index.search.clone())?)
    }
}

impl Index for InstantDistance {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        self.graph.nodes.rows()
    }

    fn dim(&self) -> usize {
        self.graph.nodes.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.graph.memory_bytes()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        self.graph.search(query, k, self.search.ef_search)
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.describe::<Self>(&self.params, &self.search);
        parts.add("graph", &*self.graph);
    }
}
