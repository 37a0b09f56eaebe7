//! A tree of nested balls, over sketches of the rows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::parameters::{parameters, positive};
use crate::index::support::lower_bound::{Lanes, Radius, Sketch, Sketched, SketchedQuery};
use crate::index::{Build, BuildError, Found, Index, NoParameters, Parameters, Visits, check_base};
use crate::neighbor::TopK;
use crate::simd::lower_bound::{self as kernels, LANES};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How a [`BallTree`] is built.
    pub struct BallTreeParams {
        /// The most rows that a leaf holds, rounded up to a multiple of 16.
        /// 16 rows are bounded at once.
        leaf_size: usize = 64, sweep [16, 64, 256, 1024];
        /// Coordinates of the space in which the balls lie.
        /// Principal components for Euclidean, sums over runs of neighbouring coordinates for Manhattan. More make tighter
        /// bounds that cost more each.
        components: usize = 32, sweep [8, 16, 32, 64];
    } and {
        /// The metric in which it searches.
        metric: Metric = Metric::Euclidean;
    }
}

/// A ball tree (Omohundro, *Five Balltree Construction Algorithms*, ICSI 1989): nested hyperspheres, searched best-first.
/// Exact, in any metric here.
///
/// At 784 dimensions the balls of the rows themselves all overlap, and a tree over them visits nearly every leaf. Here
/// they lie in the space of the rows' sketches (a contraction: principal components and the norm of the rest), where
/// they are small and cheap to compare. A ball, or a row, farther in that space than the k-th best so far is farther
/// in the full space too; the few rows that are not rejected are compared in full, so that the answer is exact.
#[derive(Debug, Clone)]
pub struct BallTree {
    tree: Arc<Tree>,
}

#[derive(Debug)]
struct Tree {
    params: BallTreeParams,
    sketch: Sketch,
    /// Heap order: the children of node i are 2i + 1 and 2i + 2; the second half are the leaves.
    nodes: Vec<Node>,
    /// nodes × stride, padded with zeros.
    centres: Vec<f32>,
    stride: usize,
    lanes: Lanes,
    /// The rows in the order of the leaves, and their ids.
    rows: Vectors,
    ids: Vec<u32>,
}

/// The rows `start..end`, all within `radius` of the centre.
#[derive(Debug, Clone, Copy)]
struct Node {
    start: u32,
    end: u32,
    radius: f32,
}

/// A node still to be visited, by its lower bound and then its number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pending {
    bound: f32,
    node: usize,
}

impl Eq for Pending {}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound
            .total_cmp(&other.bound)
            .then(self.node.cmp(&other.node))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl BallTree {
    /// The spans of the rows, halved `levels` times, in heap order.
    fn nodes(len: usize, levels: u32) -> Vec<Node> {
        let mut nodes = vec![Node {
            start: 0,
            end: len as u32,
            radius: 0.0,
        }];
        for parent in 0..(1usize << levels) - 1 {
            let Node { start, end, .. } = nodes[parent];
            let middle = start + half((end - start) as usize) as u32;
            nodes.push(Node {
                start,
                end: middle,
                radius: 0.0,
            });
            nodes.push(Node {
                start: middle,
                end,
                radius: 0.0,
            });
        }
        nodes
    }

    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &BallTreeParams {
        &self.tree.params
    }

    /// The balls, the widest first. Their centres are placed in the space of the data; over data of no more dimensions
    /// than there are components they are the true ones, and can be drawn.
    pub fn balls(&self) -> impl Iterator<Item = Ball> + '_ {
        let tree = &self.tree;
        tree.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.start < node.end)
            .map(|(number, node)| Ball {
                depth: (number + 1).ilog2() as usize,
                centre: tree
                    .sketch
                    .locate(&tree.centres[number * tree.stride..][..tree.sketch.width()]),
                radius: tree.sketch.length(node.radius),
                ids: tree.ids[node.start as usize..node.end as usize].to_vec(),
            })
    }
}

/// One ball of a [`BallTree`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ball {
    /// Zero for the ball around all rows.
    pub depth: usize,
    /// Where it lies: d values.
    pub centre: Vec<f64>,
    /// How far its farthest row is.
    pub radius: f64,
    /// The rows in it.
    pub ids: Vec<u32>,
}

/// Where `len` rows are parted: in the middle, a whole number of groups on the left. So a leaf starts with a group, and
/// holds no more than 2⁻ˡ of the leaves' capacity after l splits.
fn half(len: usize) -> usize {
    len.div_ceil(2).next_multiple_of(LANES).min(len)
}

/// Sorts `ids` into the leaves below `levels` splits, each at the middle of the coordinate of the largest spread.
fn split(sketched: &Sketched, ids: &mut [u32], levels: u32) {
    if levels == 0 || ids.len() <= 1 {
        return;
    }
    let width = sketched.sketch.width();
    let at = |id: u32| &sketched.rows[id as usize * width..][..width];
    let (mut low, mut high) = (at(ids[0]).to_vec(), at(ids[0]).to_vec());
    for &id in ids.iter() {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(at(id)) {
            *low = low.min(value);
            *high = high.max(value);
        }
    }
    let spread = |&i: &usize| high[i] - low[i];
    let widest = (0..width)
        .rev()
        .max_by(|a, b| spread(a).total_cmp(&spread(b)))
        .unwrap_or(0);
    let middle = half(ids.len());
    if middle < ids.len() {
        ids.select_nth_unstable_by(middle, |&a, &b| {
            at(a)[widest].total_cmp(&at(b)[widest]).then(a.cmp(&b))
        });
    }
    let (left, right) = ids.split_at_mut(middle);
    rayon::join(
        || split(sketched, left, levels - 1),
        || split(sketched, right, levels - 1),
    );
}

/// Writes the centre of the rows `ids` and sets the radius.
fn ball(
    sketched: &Sketched,
    metric: Metric,
    ids: &[u32],
    centre: &mut [f32],
    mut node: Node,
) -> Node {
    let width = sketched.sketch.width();
    let at = |id: u32| &sketched.rows[id as usize * width..][..width];
    let mut sums = vec![0.0f64; width];
    for &id in ids {
        sums.iter_mut()
            .zip(at(id))
            .for_each(|(sum, &value)| *sum += f64::from(value));
    }
    centre
        .iter_mut()
        .zip(&sums)
        .for_each(|(centre, sum)| *centre = (sum / ids.len().max(1) as f64) as f32);
    let farthest = ids
        .iter()
        .map(|&id| reduced_distance(metric, &centre[..width], at(id)))
        .fold(0.0, f32::max);
    // Rounded up by more than summing can err, so that the ball holds its rows.
    node.radius = length(metric, farthest) * (1.0 + rounding(width));
    node
}

/// The relative error, with room to spare, of a distance summed in f32 over `width` coordinates.
fn rounding(width: usize) -> f32 {
    (width as f32 + 8.0) * f32::EPSILON
}

/// The reduced distance of two sketches.
#[inline]
fn reduced_distance(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    match metric {
        Metric::Euclidean => kernels::squared_euclidean(a, b),
        Metric::Manhattan => kernels::manhattan(a, b),
    }
}

fn length(metric: Metric, rank: f32) -> f32 {
    match metric {
        Metric::Euclidean => rank.sqrt(),
        Metric::Manhattan => rank,
    }
}

impl Tree {
    /// A lower bound of the distance, in the space of the sketches, to any row of the node.
    #[inline]
    fn bound(&self, query: &SketchedQuery, node: usize) -> f32 {
        let width = query.values.len();
        let centre = &self.centres[node * self.stride..][..width];
        let distance = length(
            self.params.metric,
            reduced_distance(self.params.metric, &query.values, centre),
        );
        (distance * (1.0 - rounding(width)) - self.nodes[node].radius).max(0.0)
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let ranker = Ranker::new(&self.rows, self.params.metric, query);
        let query = self.sketch.query(query);
        let mut top = TopK::new(k.min(self.ids.len()));
        let mut radius = Radius::INFINITE;
        let mut visits = Visits::default();
        let mut ranks = Vec::new();
        let first_leaf = self.nodes.len() / 2;
        let mut pending = BinaryHeap::from([Reverse(Pending {
            bound: self.bound(&query, 0),
            node: 0,
        })]);
        while let Some(Reverse(Pending { bound, mut node })) = pending.pop() {
            if bound > radius.distance {
                break;
            }
            // Down to the nearest leaf; the other sides wait for their turn.
            while node < first_leaf {
                let sides = [2 * node + 1, 2 * node + 2].map(|node| Pending {
                    bound: self.bound(&query, node),
                    node,
                });
                let (near, far) = if sides[0] <= sides[1] {
                    (sides[0], sides[1])
                } else {
                    (sides[1], sides[0])
                };
                if far.bound <= radius.distance {
                    pending.push(Reverse(far));
                }
                node = near.node;
            }
            let (start, end) = (
                self.nodes[node].start as usize,
                self.nodes[node].end as usize,
            );
            visits.leaves += 1;
            visits.bounds += end - start;
            let distances = match self.params.metric {
                Metric::Euclidean => kernels::squared_euclidean_groups,
                Metric::Manhattan => kernels::manhattan_groups,
            };
            distances(
                &query.values,
                self.lanes.groups(start, end),
                radius.rank,
                &mut ranks,
            );
            for (row, &bound) in (start..end).zip(&ranks) {
                if bound <= radius.rank {
                    visits.distances += 1;
                    if let Some(rank) = ranker.reduced_within(row, top.threshold())
                        && top.push(self.ids[row], rank)
                    {
                        radius = query.radius(top.threshold());
                    }
                }
            }
        }
        Found {
            candidates: top.into_candidates(),
            visits,
        }
    }
}

impl Build for BallTree {
    const KEY: &'static str = "ball_tree";
    const NAME: &'static str = "Ball tree";
    const EXACT: bool = true;
    type Params = BallTreeParams;
    type Search = NoParameters;

    /// Builds the tree: sketches, then halves along the coordinate of the largest spread, O(n·log n).
    ///
    /// # Errors
    /// If `base` is empty, or `leaf_size` or `components` is zero.
    fn build(base: Arc<Vectors>, params: BallTreeParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("leaf_size", params.leaf_size)?;
        let sketched = Sketch::fit(&base, params.metric, params.components)?;
        let leaf_size = params.leaf_size.next_multiple_of(LANES);
        let mut ids: Vec<u32> = (0..base.len() as u32).collect();
        let mut levels = 0;
        while base.len().div_ceil(1 << levels) > leaf_size {
            levels += 1;
        }
        split(&sketched, &mut ids, levels);
        let nodes = Self::nodes(base.len(), levels);
        let stride = sketched.sketch.width().next_multiple_of(LANES);
        let mut centres = vec![0.0; nodes.len() * stride];
        let nodes = centres
            .par_chunks_mut(stride)
            .zip(nodes)
            .map(|(centre, node)| {
                ball(
                    &sketched,
                    params.metric,
                    &ids[node.start as usize..node.end as usize],
                    centre,
                    node,
                )
            })
            .collect();
        let order: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let lanes = Lanes::new(&sketched, &ids);
        let rows = base.select(&order).expect("rows of the base");
        rows.in_huge_pages();
        let sketch = sketched.sketch;
        Ok(Self {
            tree: Arc::new(Tree {
                params,
                sketch,
                nodes,
                centres,
                stride,
                lanes,
                rows,
                ids,
            }),
        })
    }

    fn with_search(&self, _: NoParameters) -> Result<Self, BuildError> {
        Ok(self.clone())
    }
}

impl Index for BallTree {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        self.tree.params.values()
    }

    fn len(&self) -> usize {
        self.tree.ids.len()
    }

    fn dim(&self) -> usize {
        self.tree.rows.dim()
    }

    fn memory_bytes(&self) -> usize {
        let Tree {
            sketch,
            nodes,
            centres,
            lanes,
            rows,
            ids,
            ..
        } = &*self.tree;
        rows.memory_bytes()
            + sketch.memory_bytes()
            + lanes.memory_bytes()
            + size_of_val(&**nodes)
            + size_of_val(&**centres)
            + size_of_val(&**ids)
    }

    fn metric(&self) -> Metric {
        self.tree.params.metric
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        self.tree.search(query, k)
    }
}
