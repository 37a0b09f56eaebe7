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
//! layer 1    o-----o--------@----@-----o     a sixteenth of the rows below (1 / m)
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
//! # The build
//! The naive build puts in one row after the other: it searches for the row in the graph so far,
//! and links it to some of the rows found, in both directions. Only one thread can do that, or the
//! graph depends on which thread is faster. Here rows go in by *batches*:
//!
//! ```text
//! batch 1  2  4  8 …  then 2 % of the rows each
//! all of a batch at once:   search in the graph of the batches before; choose links
//! then, in order:           add the links, and their reverses
//! ```
//!
//! All threads work, and the graph is the same on any number of them.
//!
//! Links are chosen among the nearest rows found, nearest first. One is left out if a chosen one is
//! nearer to it than the new row is: a walk comes to it by that one. So links lead in different
//! directions. At the end, a row that no walk can come by gets a link from a near one.
//!
//! # Copies
//! Equal rows are one node of the graph, and their ids come out together. Otherwise the links of a
//! row with many copies would all lead to them, and no walk would leave.
//!
//! # Filter
//! A search compares a query with many rows, most of which are too far. Where it saves reading
//! (that is measured on a sample), a shorter code of each row tells so first; what is found does
//! not change by it.
//!
//! # Why it may miss a neighbour
//! Each row has at most 2·`m` links on the lowest layer. A near row to which no link of the rows
//! kept leads is never seen. A larger `ef_search` keeps more rows, so that more links are followed.
//! Where fewer than min(k, n) rows can be reached, the walk begins again from one not met.
//!
//! # Memory
//! For each row: the row itself; its code, if there is one (a byte a value of float rows, 128
//! bytes for long rows of bytes); 2·`m` places for links of four bytes, and a few more for the
//! layers above; its id.
//!
//! # What it is bad at
//! - Data of many dimensions whose distances are all alike, such as independent noise: each walk
//!   has to keep many rows.
//! - Clumps of near rows, many and far apart. Nearly all links lead to the clump's own rows, and a
//!   walk that comes to the wrong clump may not leave it.
//! - Rows of very different sizes, 1 to a million: .53 of the ten nearest at the defaults. hnswlib
//!   finds as many.
//! - Memory and build time, beside inverted lists.
//!
//! # Sources
//! - Malkov and Yashunin, *Efficient and Robust Approximate Nearest Neighbor Search Using
//!   Hierarchical Navigable Small World Graphs*, TPAMI 2020.
//! - The batches: Manohar, Shen, Blelloch, Dhulipala, Gu, Simhadri and Sun, *ParlayANN: Scalable
//!   and Deterministic Parallel Graph-Based Approximate Nearest Neighbor Search Algorithms*, PPoPP
//!   2024.

mod build;
mod filter;
mod instant_distance;
mod layer;
mod layers;
mod nodes;
mod walk;

use std::sync::Arc;

pub use self::instant_distance::{InstantDistance, InstantDistanceParams, InstantDistanceSearch};
use self::layers::Layers;
use self::nodes::Nodes;
use super::copies::equal_rows;
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`Hnsw`] is built. The names are the paper's and hnswlib's.
    pub struct HnswParams {
        /// Links of a new row on each layer; a row may have twice as many on the lowest.
        m: usize = 16;
        /// Candidates among which the links of a new row are chosen.
        /// More make a better graph, more slowly.
        ef_construction: usize = 200;
        /// Seed of the layers and of the order of insertion.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`Hnsw`] is searched.
    pub struct HnswSearch {
        /// The best rows met that a search keeps, at least k.
        ef_search: usize = 40, sweep [10, 15, 20, 30, 40, 60, 80, 120, 200, 400, 800, 1_600];
    }
}

/// HNSW, a hierarchical navigable small world graph. Euclidean, approximate.
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
    graph: Arc<Layers>,
    params: HnswParams,
    search: HnswSearch,
}

impl Hnsw {
    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &HnswParams {
        &self.params
    }

    /// The number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.graph.layers.len()
    }

    /// The links of one layer, zero the lowest, as pairs of ids. Of equal rows the first has all
    /// links.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn links(&self, layer: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.graph.layers[layer].pairs(self.graph.nodes.ids())
    }
}

impl Build for Hnsw {
    const KEY: &'static str = "hnsw";
    const NAME: &'static str = "HNSW";
    const EXACT: bool = false;
    type Params = HnswParams;
    type Search = HnswSearch;

    /// Builds the graph, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// If `base` is empty, `m` is below 2, or `ef_construction` is zero.
    fn build(base: Arc<Vectors>, params: HnswParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("ef_construction", params.ef_construction)?;
        if params.m < 2 {
            return Err(BuildError::InvalidParameter {
                name: "m",
                received: params.m as f64,
                expected: "at least 2",
            });
        }
        let mut groups = equal_rows(&base);
        build::shuffle(&mut groups, params.seed);
        let nodes = Nodes::new(&base, &groups)?;
        let layers = build::build(&nodes, &params);
        Ok(Self {
            graph: Arc::new(Layers::new(nodes, layers)),
            params,
            search: HnswSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `ef_search` is zero.
    fn with_search(&self, search: HnswSearch) -> Result<Self, BuildError> {
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

impl Index for Hnsw {
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

#[cfg(test)]
mod tests;
