//! Neighbourhood graph and tree: NGT's ONNG.
//!
//! # The idea
//! The naive graph joins each row to its k nearest. Walking on it has three faults:
//!
//! ```text
//! no way in    o--o--o--o   x    x has near rows but is near to none: nothing leads to it
//! crowds                         a row in the middle of the data is near to thousands
//! detours      a-------c         a-c is not needed if a-b and b-c are shorter: a walk from
//!               \     /          a to c comes by b
//!                 -b-
//! ```
//!
//! ONNG mends them. Each row gets edges to its `outgoing` nearest, and from its `incoming` nearest,
//! so that every row has ways in. Then each edge goes that two shorter ones replace.
//!
//! A tree tells where to begin: a *vantage-point tree* parts the rows into small leaves, and the
//! rows of the [`SEED_LEAVES`] nearest leaves are the first in the walk. From there the graph is
//! explored, nearest first:
//!
//! ```text
//! pending = the rows of the nearest leaves
//! while the nearest of pending is within 1 + epsilon times the k-th nearest distance so far:
//!     take it out; for each of its neighbours not met before: compare, put it into pending
//! ```
//!
//! # Why it may miss a neighbour
//! A neighbour is not met if each path to it leads over a row farther away than 1 + `epsilon` times
//! the k-th distance. A larger `epsilon` explores farther.
//!
//! # Copies
//! Equal rows are one node of the graph, and their ids come out together. Otherwise the edges of a
//! row with many copies would all lead to them, and no walk would leave.
//!
//! # Memory
//! Rows lie in the order of the tree's leaves, so that near ones are near in memory. For each row:
//! the row itself; its *sketch*, 31 principal components and the length of what they leave out (two
//! cache lines), by which most neighbours are rejected before their rows are touched; and its
//! edges, four bytes each, in one array ([`Links`]). 58 MB for 60,000 images, 47 of them the
//! images.
//!
//! # What it is bad at
//! - Data whose directions are all alike, such as independent noise. A row's near rows lie on all
//!   sides of it, and few of them are among its edges. The build measures on 100 rows how much
//!   farther than usual has to be explored ([`margin`]), and a query then takes many times as long.
//! - Data with clusters within clusters. Near rows are looked for in a few clusters only, so that
//!   the build stays fast, and some edges lead to rows less near.
//!
//! # Sources
//! Iwasaki and Miyazaki, *Optimization of Indexing Based on k-Nearest Neighbor Graph for Proximity
//! Search in High-dimensional Data*, arXiv 1810.07355, 2018. Where NGT grows its first graph (ANNG)
//! row by row, searching in what there is, near rows are found here in clusters, all at once and in
//! parallel.

mod margin;
mod onng;
mod vp_tree;

use std::sync::Arc;

use self::vp_tree::VpTree;
use super::copies::{Copies, Distinct};
use super::links::Links;
use super::near_rows::near_rows;
use crate::distance::Norm;
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{PartError, Parts, Saved, expect};
use crate::index::support::lower_bound::Sketch;
use crate::index::support::pruned_rows::{COMPONENTS, Comparison, PrunedRows};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::neighbor::{Candidate, TopK};
use crate::vectors::{Row, Vectors};

/// Leaves of the tree whose rows a walk begins with. One would be too few: where many rows are
/// copies, it holds nothing else.
const SEED_LEAVES: usize = 3;

/// A walk keeps the radius of at least so many nearest, whatever the k asked for. The radius of one
/// is too small: of uniform numbers in 32 dimensions the nearest was found for 44 % of the queries,
/// and 88 % of the 10 nearest.
const LEAST_KEPT: usize = 10;

parameters! {
    /// How an [`Ngt`] is built. The names are NGT's (`edge_size_for_creation`, `num_of_outgoings`,
    /// `num_of_incomings`).
    pub struct NgtParams {
        /// Near rows among which edges are chosen, at least one.
        /// They are the edges of NGT's first graph, the ANNG.
        edge_size: usize = 100;
        /// Nearest rows that a row's edges lead to; at most `edge_size`.
        outgoing: usize = 10;
        /// Nearest rows whose edges lead to a row; at most `edge_size`.
        /// At least one where `outgoing` is zero.
        incoming: usize = 100;
        /// Seed of the vantage points and of the clusters in which near rows are looked for.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`Ngt`] is searched.
    pub struct NgtSearch {
        /// How far beyond the k-th nearest is explored: out to 1 + `epsilon` times its distance,
        /// and farther by what the data call for ([`Ngt::margin`], mostly 0).
        /// At least 0. (NGT allows −1 < ε < 0, which stops before the k nearest are settled.)
        epsilon: f64 = 0.1, sweep [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2];
    }
}

/// NGT, *Neighborhood Graph and Tree*, with the degree-adjusted graph ONNG. Euclidean, approximate.
///
/// A vantage-point tree gives the rows of a few leaves to begin with. From there the graph is
/// explored, nearest first, within 1 + `epsilon` times the distance of the k-th nearest so far.
/// Most neighbours are rejected by a bound in 31 principal components before their rows are
/// touched; that changes nothing in what is found.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<f32> = (0..8_000).map(|i| (i * i % 1_009) as f32).collect();
/// let base = Arc::new(Vectors::from_floats(8, values)?); // 1,000 rows of 8 values
///
/// let index = Ngt::build(Arc::clone(&base), NgtParams::default())?;
/// let wider = index.with_search(NgtSearch { epsilon: 0.2 })?; // the same graph, not a copy
/// let found = wider.query(base.row(5), 3)?;
/// assert_eq!((found.len(), found[0].id, found[0].distance), (3, 5, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ngt {
    graph: Arc<Graph>,
    search: NgtSearch,
}

#[derive(Debug)]
struct Graph {
    params: NgtParams,
    tree: VpTree,
    /// The distinct rows in the order of the tree's leaves, near ones together.
    rows: PrunedRows,
    links: Links,
    /// The rows that each distinct row stands for.
    copies: Copies,
    /// What is added to every `epsilon`.
    margin: f64,
}

impl Graph {
    fn build(base: &Arc<Vectors>, params: NgtParams) -> Result<Self, BuildError> {
        let Distinct {
            rows: distinct,
            copies,
        } = Distinct::of(base);
        let sketched = Sketch::fit(&distinct, Norm::L2, COMPONENTS)?;
        let (tree, ids) = VpTree::build(&sketched, params.seed);
        // The near rows are found in clusters of their own, and given by id. The tree gives the
        // order of the rows.
        let near = near_rows(&distinct, params.edge_size, params.seed);
        let rows = PrunedRows::new(&distinct, sketched, ids);
        let links = onng::link(&rows, near, params.outgoing, params.incoming);
        let mut graph = Self {
            params,
            tree,
            rows,
            links,
            copies,
            margin: 0.0,
        };
        graph.margin = margin::choose(&graph, &distinct);
        Ok(graph)
    }

    /// The number of rows, all copies among them.
    fn len(&self) -> usize {
        self.copies.rows(self.rows.rows().len())
    }

    /// The `room` nearest distinct rows that a walk finds out to 1 + `epsilon` times the distance
    /// of the last of them, by their numbers among the distinct rows.
    fn walk(&self, comparison: &mut Comparison<'_>, epsilon: f64, room: usize) -> Vec<Candidate> {
        // Of reduced, that is squared, distances.
        let reach = (1.0 + epsilon) * (1.0 + epsilon);
        let sketch = comparison.sketch().to_vec();
        let mut top = TopK::new(room);
        // Nearest first, and made as they are asked for.
        let mut leaves = self.tree.leaves(&sketch);
        // As a rule once. Only if fewer rows can be reached from these leaves, the walk
        // begins again from the next ones.
        while top.len() < room {
            let mut seeds: Vec<u32> = Vec::new();
            for leaf in leaves.by_ref().take(SEED_LEAVES) {
                comparison.visits.leaves += 1;
                seeds.extend(leaf);
            }
            // All leaves are used up, so there is no row left to begin from.
            if seeds.is_empty() {
                break;
            }
            let ids = self.rows.ids();
            self.links.walk(comparison, &seeds, ids, reach, &mut top);
        }
        top.into_candidates()
    }
}

impl Ngt {
    /// What is added to every `epsilon`, since the data call for it: it was measured at the build.
    #[must_use]
    pub fn margin(&self) -> f64 {
        self.graph.margin
    }

    /// The edges of the graph, as pairs of ids. Of equal rows the first has all edges.
    pub fn links(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let Graph {
            rows,
            links,
            copies,
            ..
        } = &*self.graph;
        let pairs = links.pairs(rows.ids());
        pairs.map(move |(from, to)| (copies.first(from), copies.first(to)))
    }
}

impl Build for Ngt {
    const KEY: &'static str = "ngt";
    const NAME: &'static str = "NGT";
    const EXACT: bool = false;
    type Params = NgtParams;
    type Search = NgtSearch;

    /// Builds the tree and the graph, in O(n·√n) comparisons of codes, and copies the vectors in
    /// the order of the tree.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, params: NgtParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("edge_size", params.edge_size)?;
        for (name, value) in [("outgoing", params.outgoing), ("incoming", params.incoming)] {
            if value > params.edge_size {
                return Err(BuildError::InvalidParameter {
                    name,
                    received: value as f64,
                    expected: "at most edge_size",
                });
            }
        }
        positive(
            "outgoing + incoming",
            params.outgoing.saturating_add(params.incoming),
        )?;
        Ok(Self {
            graph: Arc::new(Graph::build(&base, params)?),
            search: NgtSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `epsilon` is negative or not finite.
    fn with_search(&self, search: NgtSearch) -> Result<Self, BuildError> {
        let epsilon = search.epsilon;
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(BuildError::InvalidParameter {
                name: "epsilon",
                received: epsilon,
                expected: "at least 0",
            });
        }
        let graph = Arc::clone(&self.graph);
        Ok(Self { graph, search })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let graph = Graph {
            params: saved.build_parameters()?,
            tree: saved.take("tree")?,
            rows: saved.take("rows")?,
            links: saved.take("links")?,
            copies: saved.take("copies")?,
            margin: saved.take("margin")?,
        };
        let nodes = graph.rows.rows().len();
        graph.rows.check()?;
        graph.tree.check(nodes, graph.rows.sketch().width())?;
        graph.links.check(nodes, nodes)?;
        graph.copies.check(nodes)?;
        expect(graph.margin.is_finite(), "margin", "a number")?;
        let search = saved.search_parameters()?;
        let graph = Arc::new(graph);
        Ok(Self { graph, search }.with_search(saved.search_parameters()?)?)
    }
}

impl Index for Ngt {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.graph.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        self.graph.len()
    }

    fn dim(&self) -> usize {
        self.graph.rows.rows().dim()
    }

    fn memory_bytes(&self) -> usize {
        let Graph {
            tree,
            rows,
            links,
            copies,
            ..
        } = &*self.graph;
        tree.memory_bytes() + rows.memory_bytes() + links.memory_bytes() + copies.memory_bytes()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let graph = &*self.graph;
        // Among the k nearest rows there are copies of the k nearest distinct ones only.
        let room = k.max(LEAST_KEPT).min(graph.rows.rows().len());
        let mut comparison = graph.rows.comparison(query);
        let epsilon = self.search.epsilon + graph.margin;
        let distinct = graph.walk(&mut comparison, epsilon, room);
        Found {
            candidates: graph.copies.expand(distinct, k.min(self.len())),
            visits: comparison.visits,
        }
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        let Graph {
            params,
            tree,
            rows,
            links,
            copies,
            margin,
        } = &*self.graph;
        parts.describe::<Self>(params, &self.search);
        parts.add("tree", tree);
        parts.add("rows", rows);
        parts.add("links", links);
        parts.add("copies", copies);
        parts.add("margin", margin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Query;
    use crate::index::support::test_data::{clustered, recall, rounded};

    fn build(base: &Arc<Vectors>, params: NgtParams) -> Ngt {
        Ngt::build(base.clone(), params).unwrap()
    }

    #[test]
    fn a_wider_range_finds_more() {
        let floats = clustered(4_000, 60, 1);
        let queries = clustered(200, 60, 2);
        for base in [Arc::new(rounded(&floats)), Arc::new(floats)] {
            let ngt = build(&base, NgtParams::default());
            let [near, far] = [0.0, 0.2].map(|e| {
                recall(
                    &ngt.with_search(NgtSearch { epsilon: e }).unwrap(),
                    &base,
                    &queries,
                    10,
                )
            });
            assert!(near > 0.5 && near < far && far > 0.99, "{near} {far}");
        }
    }

    #[test]
    fn few_rows_are_looked_at() {
        let base = Arc::new(clustered(4_000, 60, 1));
        let ngt = build(&base, NgtParams::default());
        let (_, visits) = ngt.query_counted(&base.row_to_floats(7), 10).unwrap();
        assert!(
            visits.leaves == SEED_LEAVES && (10..2_000).contains(&visits.distances),
            "{visits:?}"
        );
    }

    #[test]
    fn every_row_is_within_reach() {
        // Far clusters, lone rows and copies.
        let mut values = clustered(500, 8, 1).to_floats();
        values.extend([0.5f32; 8].repeat(200));
        values.extend((0..40).flat_map(|i| [1e4 * i as f32; 8]));
        let base = Arc::new(Vectors::from_floats(8, values).unwrap());
        for (outgoing, incoming) in [(1, 0), (0, 1), (3, 3)] {
            let ngt = build(
                &base,
                NgtParams {
                    edge_size: 3,
                    outgoing,
                    incoming,
                    seed: 1,
                },
            );
            let found = ngt.query(&[1.0; 8], base.len()).unwrap();
            let mut ids: Vec<u32> = found.iter().map(|found| found.id).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..base.len() as u32));
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
            pool.install(|| {
                build(
                    &base,
                    NgtParams {
                        seed,
                        ..Default::default()
                    },
                )
                .links()
                .collect::<Vec<_>>()
            })
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
        for (edge_size, outgoing, incoming, expected) in [
            (0, 0, 0, "edge_size"),
            (9, 10, 5, "outgoing"),
            (9, 5, 10, "incoming"),
            (9, 0, 0, "outgoing + incoming"),
        ] {
            let params = NgtParams {
                edge_size,
                outgoing,
                incoming,
                seed: 0,
            };
            assert_eq!(
                name(Ngt::build(base.clone(), params).unwrap_err()),
                expected
            );
        }
        let ngt = build(&base, NgtParams::default());
        assert_eq!(
            [-0.1, f64::NAN]
                .map(|epsilon| name(ngt.with_search(NgtSearch { epsilon }).unwrap_err())),
            ["epsilon"; 2]
        );
    }
}
