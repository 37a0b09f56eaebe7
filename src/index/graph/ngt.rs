//! Neighbourhood graph and tree: NGT's ONNG.

mod onng;
mod vp_tree;

use std::ops::Range;
use std::sync::Arc;

use self::vp_tree::VpTree;
use super::links::Links;
use super::quantized_graph::near_rows;
use crate::distance::Metric;
use crate::index::ivf::inverted_lists::positive;
use crate::index::support::lower_bound::Sketch;
use crate::index::support::pruned_rows::{COMPONENTS, PrunedRows};
use crate::index::{BuildError, Index, QueryError, Visits, check_base, check_query};
use crate::neighbor::{Neighbor, TopK};
use crate::vectors::{Row, Vectors};

/// Leaves of the tree whose rows a walk begins with: where many rows are copies, one holds nothing else.
const SEED_LEAVES: usize = 3;

/// How an [`Ngt`] is built. The names are NGT's (`edge_size_for_creation`, `num_of_outgoings`, `num_of_incomings`).
#[derive(Debug, Clone, PartialEq)]
pub struct NgtParams {
    /// Near neighbours that are looked for of each row, at least one: the edges of the ANNG.
    pub edge_size: usize,
    /// Of these, how many a row keeps as edges of its own; at most `edge_size`.
    pub outgoing: usize,
    /// How many of its nearest get an edge *to* the row; at most `edge_size`, and at least one where `outgoing` is zero.
    pub incoming: usize,
    /// Decides the vantage points, and the clusters in which neighbours are looked for.
    pub seed: u64,
}

impl Default for NgtParams {
    fn default() -> Self {
        Self {
            edge_size: 100,
            outgoing: 10,
            incoming: 100,
            seed: 0,
        }
    }
}

/// NGT, *Neighborhood Graph and Tree*, with the degree-adjusted graph ONNG (Iwasaki & Miyazaki, *Optimization of Indexing Based on
/// k-Nearest Neighbor Graph for Proximity Search in High-dimensional Data*, arXiv 1810.07355). Euclidean, approximate.
///
/// A vantage-point tree gives the rows of a few leaves to begin with; from there the graph is explored, nearest first, within 1 + `epsilon` times the
/// distance of the k-th nearest so far. Where NGT grows its first graph (ANNG) row by row, searching in what there is, the near neighbours
/// are found here in clusters, all at once and in parallel.
///
/// Most neighbours are rejected by a bound in 31 principal components before their rows are touched, which changes nothing in what is found.
#[derive(Debug, Clone)]
pub struct Ngt {
    graph: Arc<Graph>,
    epsilon: f64,
}

#[derive(Debug)]
struct Graph {
    params: NgtParams,
    tree: VpTree,
    /// In the order of the tree's leaves, near ones together.
    rows: PrunedRows,
    links: Links,
}

impl Ngt {
    /// Builds the tree and the graph, in O(n·√n) comparisons of codes, and copies the vectors in the order of the tree. Queries use
    /// `epsilon` 0.1, NGT's default, until [`with_epsilon`](Self::with_epsilon) says otherwise.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    pub fn build(base: Arc<Vectors>, params: &NgtParams) -> Result<Self, BuildError> {
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
        positive("outgoing + incoming", params.outgoing + params.incoming)?;
        let sketched = Sketch::fit(&base, Metric::Euclidean, COMPONENTS)?;
        let (tree, ids) = VpTree::build(&sketched, params.seed);
        let near = near_rows(&base, params.edge_size, params.seed);
        let rows = PrunedRows::new(&base, sketched, ids);
        let links = onng::link(&rows, &near, params.outgoing, params.incoming);
        Ok(Self {
            graph: Arc::new(Graph {
                params: params.clone(),
                tree,
                rows,
                links,
            }),
            epsilon: 0.1,
        })
    }

    /// The same graph, explored out to 1 + `epsilon` times the distance of the k-th nearest.
    ///
    /// # Errors
    /// If `epsilon` is negative or not finite. (NGT allows −1 < ε < 0, which stops before the k nearest are settled.)
    pub fn with_epsilon(&self, epsilon: f64) -> Result<Self, BuildError> {
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            let (name, received, expected) = ("epsilon", epsilon, "at least 0");
            return Err(BuildError::InvalidParameter {
                name,
                received,
                expected,
            });
        }
        Ok(Self {
            graph: Arc::clone(&self.graph),
            epsilon,
        })
    }

    /// [`Index::query`], and what the search looked at.
    ///
    /// # Errors
    /// As [`Index::query`].
    pub fn query_counted(
        &self,
        query: &[f32],
        k: usize,
    ) -> Result<(Vec<Neighbor>, Visits), QueryError> {
        check_query(query, k, self.dim())?;
        let Graph {
            tree, rows, links, ..
        } = &*self.graph;
        let k = k.min(self.len());
        let reach = (1.0 + self.epsilon) * (1.0 + self.epsilon);
        let mut comparison = rows.comparison(Row::Floats(query));
        let sketch = comparison.sketch().to_vec();
        let mut top = TopK::new(k);
        let mut leaves = tree.leaves(&sketch);
        // Once, as a rule: from the next leaves only if fewer than k can be reached from these.
        while top.len() < k {
            let seeds: Vec<Range<u32>> = leaves.by_ref().take(SEED_LEAVES).collect();
            if seeds.is_empty() {
                break;
            }
            comparison.visits.leaves += seeds.len();
            let seeds: Vec<u32> = seeds.into_iter().flatten().collect();
            links.walk(&mut comparison, &seeds, rows.ids(), reach, &mut top);
        }
        Ok((top.into_neighbors(Metric::Euclidean), comparison.visits))
    }

    /// The edges of the graph, as pairs of ids.
    pub fn links(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.graph.links.pairs(self.graph.rows.ids())
    }
}

impl Index for Ngt {
    fn name(&self) -> &'static str {
        "NGT"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let NgtParams {
            edge_size,
            outgoing,
            incoming,
            seed,
        } = self.graph.params;
        vec![
            ("edge_size", edge_size as f64),
            ("outgoing", outgoing as f64),
            ("incoming", incoming as f64),
            ("seed", seed as f64),
            ("epsilon", self.epsilon),
        ]
    }

    fn len(&self) -> usize {
        self.graph.rows.rows().len()
    }

    fn dim(&self) -> usize {
        self.graph.rows.rows().dim()
    }

    fn memory_bytes(&self) -> usize {
        let Graph {
            tree, rows, links, ..
        } = &*self.graph;
        tree.memory_bytes() + rows.memory_bytes() + links.memory_bytes()
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        Ok(self.query_counted(query, k)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, recall, rounded};

    fn build(base: &Arc<Vectors>, params: &NgtParams) -> Ngt {
        Ngt::build(base.clone(), params).unwrap()
    }

    #[test]
    fn a_wider_range_finds_more() {
        let floats = clustered(4_000, 60, 1);
        let queries = clustered(200, 60, 2);
        for base in [Arc::new(rounded(&floats)), Arc::new(floats)] {
            let ngt = build(&base, &NgtParams::default());
            let [near, far] =
                [0.0, 0.2].map(|e| recall(&ngt.with_epsilon(e).unwrap(), &base, &queries, 10));
            assert!(near > 0.5 && near < far && far > 0.99, "{near} {far}");
        }
    }

    #[test]
    fn few_rows_are_looked_at() {
        let base = Arc::new(clustered(4_000, 60, 1));
        let ngt = build(&base, &NgtParams::default());
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
                &NgtParams {
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
                    &NgtParams {
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
                name(Ngt::build(base.clone(), &params).unwrap_err()),
                expected
            );
        }
        let ngt = build(&base, &NgtParams::default());
        assert_eq!(
            [-0.1, f64::NAN].map(|epsilon| name(ngt.with_epsilon(epsilon).unwrap_err())),
            ["epsilon"; 2]
        );
    }
}
