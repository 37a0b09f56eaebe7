//! A tree of nested balls, over sketches of the rows.
//!
//! # The naive form
//! Put a ball around all rows, part them in two halves, and put a ball around each; and so on. No
//! row of a ball is nearer to a query than the ball's surface is:
//!
//! ```text
//! bound(q, ball) = max(0, distance(q, ball.centre) - ball.radius)
//!
//! pending = {root}                               .-----------.
//! while pending:                                /  .-.   .--. \
//!     ball = the nearest of pending             | (   ) ( +  )|     q
//!     if bound(q, ball) > kth_best: stop        \  '-'   '--' /
//!     if leaf: compare its rows                  '-----------'
//!     else:    pending += both halves
//! ```
//!
//! At 784 dimensions such balls all overlap, and nearly every leaf is visited.
//!
//! # The idea
//! The balls lie in the space of the rows' *sketches*: some 32 principal components and the norm of
//! the rest, or sums over runs of neighbouring coordinates for Manhattan (see the module
//! `lower_bound`). There they are small, and cheap to compare with.
//!
//! No neighbour is lost: distances of sketches never exceed those of the rows, so that a ball, or a
//! row, whose sketches are farther than the k-th best so far is farther in the full space too.
//! Radii, bounds and the k-th best are widened by what rounding can do. The rows that are left are
//! compared in full.
//!
//! # Layout
//! A complete binary tree in heap order: the children of node i are 2i + 1 and 2i + 2, and the
//! second half of the nodes are the leaves. Rows lie in the order of the leaves; their sketches in
//! groups of [`LANES`] rows, coordinate by coordinate, so that one instruction takes the same
//! coordinate of several rows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::distance::{Metric, Norm, Ranker};
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{Element, NumberType, PartError, Parts, Saved, expect, expect_each_once};
use crate::index::support::lower_bound::{Lanes, Radius, Sketch, Sketched, SketchedQuery};
use crate::index::{
    Build, BuildError, Found, Index, NoParameters, Parameters, Visits, check_base, norm_of,
};
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
        /// Principal components for Euclidean, sums over runs of neighbouring coordinates for
        /// Manhattan. More make tighter bounds that cost more each.
        components: usize = 32, sweep [8, 16, 32, 64];
    } and {
        /// The metric in which it searches: Euclidean or Manhattan.
        metric: Metric = Metric::Euclidean;
    }
}

/// Nested balls, searched nearest first. Exact, Euclidean or Manhattan.
///
/// The balls lie in the space of the rows' sketches (principal components and the norm of the
/// rest), where they are small and cheap to compare with. A ball, or a row, farther in that space
/// than the k-th best so far is farther in the full space too. The few rows that are not rejected
/// are compared in full, so that the answer is exact.
///
/// **What it is bad at**: data without a few components that hold most of the variance. There all
/// balls overlap, and it bounds every row before it compares it. Its halves are of equal size, not
/// where the data have gaps.
///
/// S. M. Omohundro, *Five Balltree Construction Algorithms*, ICSI Technical Report 89-063, 1989.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let grid = (0..100).flat_map(|i| [(i % 10) as f32, (i / 10) as f32]);
/// let base = Arc::new(Vectors::from_floats(2, grid.collect::<Vec<_>>())?);
///
/// let params = BallTreeParams { leaf_size: 16, metric: Metric::Manhattan, ..Default::default() };
/// let tree = BallTree::build(base, params)?;
/// let nearest = tree.query(&[3.25, 7.5], 2)?;
/// assert_eq!(nearest[0], Neighbor { id: 73, distance: 0.75 });
/// assert_eq!(nearest[1], Neighbor { id: 83, distance: 0.75 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BallTree {
    tree: Arc<Tree>,
}

#[derive(Debug)]
struct Tree {
    params: BallTreeParams,
    sketch: Sketch,
    /// In heap order.
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
    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &BallTreeParams {
        &self.tree.params
    }

    /// The balls, the widest first. Their centres are placed in the space of the data; over data of
    /// no more dimensions than there are components they are the true ones, and can be drawn.
    pub fn balls(&self) -> impl Iterator<Item = Ball> + '_ {
        let tree = &self.tree;
        let nodes = tree.nodes.iter().enumerate();
        // Halves are rounded up to whole groups, so that the last nodes may hold no row.
        let filled = nodes.filter(|(_, node)| node.start < node.end);
        filled.map(|(number, node)| Ball {
            // In heap order the nodes of depth l have the numbers 2ˡ − 1 to 2ˡ⁺¹ − 2.
            depth: (number + 1).ilog2() as usize,
            centre: tree.sketch.locate(tree.centre(number)),
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

/// The spans of the rows, halved `levels` times, in heap order; the radii come later.
fn spans(len: usize, levels: u32) -> Vec<Node> {
    let node = |start, end| Node {
        start,
        end,
        radius: 0.0,
    };
    // Parents before children, so that each parent's span is known when its turn comes. The nodes
    // of all levels but the last have children: 2^levels − 1 of them.
    let mut nodes = vec![node(0, len as u32)];
    for parent in 0..(1usize << levels) - 1 {
        let Node { start, end, .. } = nodes[parent];
        let middle = start + half((end - start) as usize) as u32;
        nodes.push(node(start, middle));
        nodes.push(node(middle, end));
    }
    nodes
}

/// Where `len` rows are parted: in the middle, rounded up to whole groups of [`LANES`] rows. So
/// every leaf starts with a group.
///
/// No leaf gets more rows than its capacity C. A node l levels above the leaves holds at most
/// 2ˡ·C rows. Its half is at most 2ˡ⁻¹·C, even when it is rounded up, as C is itself a
/// multiple of a group.
fn half(len: usize) -> usize {
    len.div_ceil(2).next_multiple_of(LANES).min(len)
}

/// Sorts `ids` into the leaves below `levels` splits, each at the middle of the coordinate of the
/// largest spread.
fn split(sketched: &Sketched, ids: &mut [u32], levels: u32) {
    if levels == 0 || ids.len() <= 1 {
        return;
    }
    let widest = widest(sketched, ids);
    // The same `half` as in `spans`, so that the sides are the rows of the two children.
    let middle = half(ids.len());
    if middle < ids.len() {
        let value = |id: u32| sketch_of(sketched, id)[widest];
        // Ties by id, so that the tree does not depend on the algorithm of the selection.
        ids.select_nth_unstable_by(middle, |&a, &b| {
            value(a).total_cmp(&value(b)).then(a.cmp(&b))
        });
    }
    let (left, right) = ids.split_at_mut(middle);
    rayon::join(
        || split(sketched, left, levels - 1),
        || split(sketched, right, levels - 1),
    );
}

fn sketch_of(sketched: &Sketched, id: u32) -> &[f32] {
    let width = sketched.sketch.width();
    &sketched.rows[id as usize * width..][..width]
}

/// The coordinate in which the rows `ids` are farthest apart; the first of equal ones.
fn widest(sketched: &Sketched, ids: &[u32]) -> usize {
    let mut low = sketch_of(sketched, ids[0]).to_vec();
    let mut high = low.clone();
    for &id in ids {
        let ends = low.iter_mut().zip(&mut high);
        for ((low, high), &value) in ends.zip(sketch_of(sketched, id)) {
            *low = low.min(value);
            *high = high.max(value);
        }
    }
    // The range, not the variance: a ball's radius is the distance of its farthest row.
    let spread = |i: usize| high[i] - low[i];
    // `max_by` returns the last of equal ones.
    let coordinates = (0..low.len()).rev();
    coordinates
        .max_by(|&a, &b| spread(a).total_cmp(&spread(b)))
        .unwrap_or(0)
}

/// Writes the centre of the rows `ids`, and returns a radius within which they all are.
fn ball(sketched: &Sketched, norm: Norm, ids: &[u32], centre: &mut [f32]) -> f32 {
    let width = sketched.sketch.width();
    // The mean, rounded to f32. Any centre gives a valid ball, as the radius is measured from it.
    let mut sums = vec![0.0f64; width];
    for &id in ids {
        for (sum, &value) in sums.iter_mut().zip(sketch_of(sketched, id)) {
            *sum += f64::from(value);
        }
    }
    // A leaf without rows gets a centre of zeros and the radius zero. It is never compared.
    let count = ids.len().max(1) as f64;
    for (centre, sum) in centre.iter_mut().zip(&sums) {
        *centre = (sum / count) as f32;
    }
    let farthest = ids
        .iter()
        .map(|&id| reduced_distance(norm, &centre[..width], sketch_of(sketched, id)))
        .fold(0.0, f32::max);
    // Rounded up by more than summing can err, so that the ball holds its rows.
    length(norm, farthest) * (1.0 + rounding(width))
}

/// The relative error, with room to spare, of a distance summed in f32 over `width` coordinates.
fn rounding(width: usize) -> f32 {
    // Each of the at most `width` additions rounds by half of EPSILON, and so do the difference,
    // the square and the root. Twice that, and eight more, is enough.
    (width as f32 + 8.0) * f32::EPSILON
}

/// The reduced distance of two sketches.
#[inline]
fn reduced_distance(norm: Norm, a: &[f32], b: &[f32]) -> f32 {
    match norm {
        Norm::L2 => kernels::squared_euclidean(a, b),
        Norm::L1 => kernels::manhattan(a, b),
    }
}

/// The distance that a reduced distance stands for.
fn length(norm: Norm, reduced: f32) -> f32 {
    match norm {
        Norm::L2 => reduced.sqrt(),
        Norm::L1 => reduced,
    }
}

/// Three words: the ends, and the radius as its bits.
impl Element for Node {
    const NUMBER: NumberType = NumberType::U32;
    const SIZE: usize = 12;

    fn put(&self, bytes: &mut [u8]) {
        [self.start, self.end, self.radius.to_bits()].put(bytes);
    }

    fn take(bytes: &[u8]) -> Self {
        let [start, end, radius] = Element::take(bytes);
        Self {
            start,
            end,
            radius: f32::from_bits(radius),
        }
    }
}

impl Tree {
    /// Refuses parts that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    fn check(&self) -> Result<(), PartError> {
        let rows = self.rows.len();
        let norm = norm_of::<BallTree>(self.params.metric)?;
        expect(
            self.sketch.norm() == norm,
            "sketch",
            "the norm of the metric",
        )?;
        self.lanes.check(rows, self.sketch.width())?;
        expect(self.ids.len() == rows, "ids", "one for each row")?;
        expect_each_once(&self.ids, "ids")?;
        let centres = self.nodes.len() * self.stride;
        expect(
            self.centres.len() == centres,
            "centres",
            "one for each node",
        )?;
        // A complete tree: its leaves are the last half of the nodes, and part the rows at whole
        // groups.
        let complete = (self.nodes.len() + 1).is_power_of_two();
        expect(complete, "nodes", "a complete tree")?;
        let mut end = 0;
        for leaf in &self.nodes[self.nodes.len() / 2..] {
            let whole = (leaf.start as usize).is_multiple_of(LANES) || leaf.start == leaf.end;
            let fits = leaf.start == end && leaf.end >= leaf.start && whole;
            expect(fits, "nodes", "leaves that part the rows")?;
            end = leaf.end;
        }
        expect(end as usize == rows, "nodes", "leaves of all rows")?;
        let inside = self
            .nodes
            .iter()
            .all(|node| node.start <= node.end && node.end <= end);
        expect(inside, "nodes", "balls of rows")
    }

    /// The centre of a node, in the space of the sketches.
    #[inline]
    fn centre(&self, node: usize) -> &[f32] {
        &self.centres[node * self.stride..][..self.sketch.width()]
    }

    /// A lower bound of the distance, in the space of the sketches, to any row of the node.
    #[inline]
    fn bound(&self, query: &SketchedQuery, node: usize) -> f32 {
        // The triangle inequality: no row of the ball is nearer than the distance to its centre
        // less its radius. Within the ball that is negative, and the bound is zero.
        let norm = self.sketch.norm();
        let to_centre = reduced_distance(norm, &query.values, self.centre(node));
        // Rounded down by more than summing can err.
        let to_centre = length(norm, to_centre) * (1.0 - rounding(query.values.len()));
        (to_centre - self.nodes[node].radius).max(0.0)
    }

    fn search(&self, query: Row<'_>, top: TopK) -> Found {
        let mut search = Search::begin(self, query, top);
        while let Some(Reverse(nearest)) = search.pending.pop() {
            if nearest.bound > search.radius.distance {
                // The heap hands out the smallest bound, so that all other nodes are beyond the
                // k-th best too.
                break;
            }
            let leaf = search.descend(nearest.node);
            search.compare(leaf);
        }
        Found {
            candidates: search.top.into_candidates(),
            visits: search.visits,
        }
    }
}

/// A query on its way through the tree.
struct Search<'a> {
    tree: &'a Tree,
    ranker: Ranker<'a>,
    query: SketchedQuery,
    top: TopK,
    /// How far the sketch of a neighbour can be.
    radius: Radius,
    /// Nodes still to be visited, the nearest first.
    pending: BinaryHeap<Reverse<Pending>>,
    /// Bounds of the rows of a leaf.
    bounds: Vec<f32>,
    visits: Visits,
}

impl<'a> Search<'a> {
    fn begin(tree: &'a Tree, query: Row<'a>, top: TopK) -> Self {
        let sketched = tree.sketch.query(query);
        // Without a limit the radius is infinite until there are k candidates, so that nothing is
        // excluded before.
        let radius = sketched.radius(top.threshold());
        let mut search = Self {
            tree,
            ranker: Ranker::new(&tree.rows, tree.params.metric, query),
            query: sketched,
            top,
            radius,
            pending: BinaryHeap::new(),
            bounds: Vec::new(),
            visits: Visits::default(),
        };
        let root = search.bounded(0);
        search.pending.push(Reverse(root));
        search
    }

    #[inline]
    fn bounded(&self, node: usize) -> Pending {
        let bound = self.tree.bound(&self.query, node);
        Pending { bound, node }
    }

    /// Goes down to the nearest leaf below a node. The other sides wait for their turn.
    #[inline]
    fn descend(&mut self, mut node: usize) -> usize {
        // A complete tree of n nodes has (n + 1) / 2 leaves, and they are the last ones.
        let first_leaf = self.tree.nodes.len() / 2;
        while node < first_leaf {
            let left = self.bounded(2 * node + 1);
            let right = self.bounded(2 * node + 2);
            // Equal bounds go to the left, so that the order is the same on every run.
            let (near, far) = if left <= right {
                (left, right)
            } else {
                (right, left)
            };
            // The near side is entered unchecked. If it is beyond the radius, so are the bounds of
            // its rows, and none of them is compared.
            if far.bound <= self.radius.distance {
                self.pending.push(Reverse(far));
            }
            node = near.node;
        }
        node
    }

    /// Compares the rows of a leaf that their sketches do not exclude.
    #[inline]
    fn compare(&mut self, leaf: usize) {
        let Node { start, end, .. } = self.tree.nodes[leaf];
        let (start, end) = (start as usize, end as usize);
        // Where halves are rounded up to whole groups, the last leaves may get no row.
        if start == end {
            return;
        }
        self.visits.leaves += 1;
        self.visits.bounds += end - start;
        let distances = match self.tree.sketch.norm() {
            Norm::L2 => kernels::squared_euclidean_groups,
            Norm::L1 => kernels::manhattan_groups,
        };
        // One pass bounds all rows of the leaf, sixteen at once. A group that is beyond the radius
        // as a whole is given up early, with values above the radius in place of bounds.
        distances(
            &self.query.values,
            self.tree.lanes.groups(start, end),
            self.radius.reduced,
            &mut self.bounds,
        );
        for (row, &bound) in (start..end).zip(&self.bounds) {
            // The radius falls while the rows are compared, and each is held against the newest.
            if bound > self.radius.reduced {
                continue;
            }
            self.visits.distances += 1;
            // The row is near in the sketches. The true distance decides.
            if let Some(reduced) = self.ranker.reduced_within(row, self.top.threshold())
                && self.top.push(self.tree.ids[row], reduced)
            {
                self.radius = self.query.radius(self.top.threshold());
            }
        }
    }
}

impl Build for BallTree {
    const KEY: &'static str = "ball_tree";
    const NAME: &'static str = "Ball tree";
    const EXACT: bool = true;
    type Params = BallTreeParams;
    type Search = NoParameters;

    /// Builds the tree: sketches, then halves along the coordinate of the largest spread, O(n·log
    /// n).
    ///
    /// # Errors
    /// If `base` is empty, `leaf_size` or `components` is zero, or the metric is another one than
    /// Euclidean and Manhattan.
    fn build(base: Arc<Vectors>, params: BallTreeParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("leaf_size", params.leaf_size)?;
        let norm = norm_of::<Self>(params.metric)?;
        let sketched = Sketch::fit(&base, norm, params.components)?;
        // The fewest levels with which no leaf holds more than `leaf_size`: see `half`.
        let leaf_size = params.leaf_size.min(base.len());
        let leaf_size = leaf_size.next_multiple_of(LANES);
        let mut levels = 0;
        while base.len().div_ceil(1 << levels) > leaf_size {
            levels += 1;
        }
        let mut ids: Vec<u32> = (0..base.len() as u32).collect();
        split(&sketched, &mut ids, levels);

        // From one centre to the next it is a whole number of cache lines, of 16 values each.
        let stride = sketched.sketch.width().next_multiple_of(LANES);
        let mut nodes = spans(base.len(), levels);
        let mut centres = vec![0.0; nodes.len() * stride];
        centres
            .par_chunks_mut(stride)
            .zip(&mut nodes)
            .for_each(|(centre, node)| {
                let ids = &ids[node.start as usize..node.end as usize];
                node.radius = ball(&sketched, norm, ids, centre);
            });

        // A copy of the rows in the order of the leaves, so that a leaf is one piece of memory.
        let order: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&order).expect("rows of the base");
        rows.in_huge_pages();
        Ok(Self {
            tree: Arc::new(Tree {
                params,
                lanes: Lanes::new(&sketched, &ids),
                sketch: sketched.sketch,
                nodes,
                centres,
                stride,
                rows,
                ids,
            }),
        })
    }

    fn manhattan(params: BallTreeParams) -> Option<BallTreeParams> {
        Some(BallTreeParams {
            metric: Metric::Manhattan,
            ..params
        })
    }

    fn with_search(&self, _: NoParameters) -> Result<Self, BuildError> {
        Ok(self.clone())
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let sketch: Sketch = saved.take("sketch")?;
        let rows: Vectors = saved.take("rows")?;
        sketch.check(rows.dim())?;
        let tree = Tree {
            params: BallTreeParams {
                metric: saved.metric(),
                ..saved.build_parameters()?
            },
            stride: sketch.width().next_multiple_of(LANES),
            sketch,
            nodes: saved.take("nodes")?,
            centres: saved.take("centres")?,
            lanes: saved.take("lanes")?,
            rows,
            ids: saved.take("ids")?,
        };
        tree.check()?;
        Ok(Self {
            tree: Arc::new(tree),
        })
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
        self.tree.search(query, TopK::new(k.min(self.len())))
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let top = TopK::within(most.min(self.len()), reduced);
        Some(self.tree.search(query, top))
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.describe::<Self>(&self.tree.params, &NoParameters);
        parts.add("sketch", &self.tree.sketch);
        parts.add("nodes", &self.tree.nodes);
        parts.add("centres", &self.tree.centres);
        parts.add("lanes", &self.tree.lanes);
        parts.add("rows", &self.tree.rows);
        parts.add("ids", &self.tree.ids);
    }
}
