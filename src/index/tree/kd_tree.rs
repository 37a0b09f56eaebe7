//! A kd-tree over principal components.
//!
//! # The naive form
//! Sort the points by one coordinate, part them in the middle, and do the same on both sides with
//! the next coordinate. A query goes down to its own cell, and on the way back enters every cell
//! that is nearer than the k-th best so far:
//!
//! ```text
//! def search(node, q):
//!     if node is leaf: compare its rows; return
//!     near, far = node.sides(q)
//!     search(near, q)
//!     if |q[node.axis] - node.split| <= kth_best: search(far, q)
//! ```
//!
//! On 784 pixels this visits nearly everything: after a dozen splits the query is still near every
//! cell, and splits in the order of the pixels fall on some that are always black.
//!
//! # The idea
//! Build the tree over *sketches*: the leading principal components of a row, and the norm of the
//! rest. Distances of sketches never exceed those of the rows (see the module `lower_bound`). Then
//! search in several steps:
//!
//! ```text
//!  tree: nearest sketches --> true distances: a radius --> tree: all sketches within the radius
//!                                                              |
//!  compared until the bound is above the k-th best  <--  ascending by a bound in more components
//! ```
//!
//! No neighbour is lost. The k-th of *some* true distances is at least the k-th of all, so that
//! every neighbour's sketch is within the radius, which is widened by what rounding can do. This is
//! the optimal multi-step search of Seidl and Kriegel (SIGMOD 1998). Where a sample says that most
//! rows are within the radius, all are compared in the order of the memory.
//!
//! # Layout
//! Rows and sketches lie in the order of the tree's leaves, so that what is near in the tree is
//! near in memory. The tree names them by their position in that order.
//!
//! The tree itself is kiddo's. Its dimension and leaf size are constants of the type, so there is
//! an instance for each of the 4 × 3 that can be asked for. It cannot hand out the nearest one
//! after the other, and the radius of a query is fixed: hence a radius first, and then all within
//! it.
//!
//! # What it is bad at
//! Noise in many dimensions, where bounds exclude nothing: a query then costs 1.3 times one of
//! brute force. And a k of an eighth of the rows or more, for which it compares all rows.

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use kiddo::leaf_strategies::VecOfArenas;
use kiddo::traits::kd_tree::KdTreeAccessor;
use kiddo::{Eytzinger, LeafStrategy, SquaredEuclidean};

use crate::distance::{Metric, Norm, Ranker};
use crate::index::parameters::parameters;
use crate::index::parts::{PartError, Parts, Saved, expect, expect_each_once, expect_finite};
use crate::index::support::lower_bound::{Radius, Sketch, SketchedQuery};
use crate::index::{Build, BuildError, Found, Index, NoParameters, Parameters, Visits, check_base};
use crate::neighbor::TopK;
use crate::simd::{lower_bound as kernels, prefetch};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How a [`KdTree`] is built.
    pub struct KdTreeParams {
        /// The most rows that a leaf holds: 16, 32 or 128.
        /// More only where rows cannot be told apart.
        leaf_size: usize = 32, sweep [16, 32, 128];
        /// Principal components in which the tree splits: 4, 8, 16 or 32.
        /// More reject more rows and cost more each.
        components: usize = 16, sweep [4, 8, 16, 32];
    }
}

/// Principal components by which the tree's candidates are bounded once more before their distance
/// is computed. With the norm of the rest a sketch is 33 floats, 132 bytes, where a row of pixels
/// has 784.
const REFINING: usize = 32;

/// The first guess takes so many times k rows. To compare a few more is cheap, and gives a smaller
/// radius. Where that is half of all rows, all are compared at once.
const GUESSES: usize = 4;

/// Rows, spread over the base, whose bounds tell whether it is worth looking for those that are
/// within the radius.
const SAMPLE: usize = 256;

/// How many candidates ahead sketches are asked for from memory, so that they arrive while others
/// are bounded.
const AHEAD: usize = 8;

/// A kd-tree over principal components, by the crate [`kiddo`]. Exact, Euclidean.
///
/// The tree holds the leading principal components of each row and the norm of the rest, in which
/// distances never exceed the true ones. Its nearest rows give a radius outside of which no
/// neighbour can be; the rows within are compared in ascending order of a bound in more components.
///
/// **What it is bad at**: data whose variance is spread over many components. There most rows are
/// within the radius, and a query costs as much as a scan of all. So it does for a k of an eighth
/// of the rows or more. It needs 4 to 32 components, and knows no metric but the Euclidean.
///
/// J. L. Bentley, *Multidimensional Binary Search Trees Used for Associative Searching*, CACM
/// 18(9), 1975; T. Seidl and H.-P. Kriegel, *Optimal Multi-Step k-Nearest Neighbor Search*, SIGMOD
/// 1998.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let grid = (0..100).flat_map(|i| [(i % 10) as f32, (i / 10) as f32]);
/// let base = Arc::new(Vectors::from_floats(2, grid.collect::<Vec<_>>())?);
///
/// let tree = KdTree::build(base, KdTreeParams { leaf_size: 16, ..KdTreeParams::default() })?;
/// let nearest = tree.query(&[3.2, 7.0], 2)?;
/// assert_eq!([nearest[0].id, nearest[1].id], [73, 74]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct KdTree {
    tree: Arc<Tree>,
}

#[derive(Debug)]
struct Tree {
    params: KdTreeParams,
    sketch: Sketch,
    points: Box<dyn Points>,
    /// n × width sketches, in the order of the leaves.
    sketches: Vec<f32>,
    /// The rows in the order of the leaves, and their ids.
    rows: Vectors,
    ids: Vec<u32>,
}

/// kiddo's tree, without its dimension and leaf size, which are parts of its type. Points are named
/// by their position.
trait Points: Debug + Send + Sync {
    /// The positions of the `count` nearest.
    fn nearest(&self, point: &[f32], count: NonZeroUsize) -> Vec<u32>;
    /// The positions of all within a distance of √`reduced`.
    fn within(&self, point: &[f32], reduced: f32, out: &mut Vec<u32>);
    /// The number of points in each leaf, in order.
    fn leaf_lens(&self) -> Vec<usize>;
    /// The positions in the order of the leaves.
    fn order(&self) -> Vec<u32>;
    fn memory_bytes(&self) -> usize;
}

type Leaves<const D: usize, const B: usize> = VecOfArenas<f32, u32, D, B>;
type Kiddo<const D: usize, const B: usize> = kiddo::KdTree<f32, u32, Eytzinger, Leaves<D, B>, D, B>;

/// The point as an array; what it lacks is zero.
fn array<const D: usize>(point: &[f32]) -> [f32; D] {
    let mut array = [0.0; D];
    array[..point.len()].copy_from_slice(point);
    array
}

impl<const D: usize, const B: usize> Points for Kiddo<D, B> {
    fn nearest(&self, point: &[f32], count: NonZeroUsize) -> Vec<u32> {
        let found = self
            .query(&array(point))
            .nearest_n::<SquaredEuclidean<f32>>(count)
            .execute();
        found.into_iter().map(|found| found.item).collect()
    }

    fn within(&self, point: &[f32], reduced: f32, out: &mut Vec<u32>) {
        let point = array(point);
        self.query(&point)
            .within::<SquaredEuclidean<f32>>(reduced)
            .unsorted()
            .visit(|found| out.push(found.item));
    }

    fn leaf_lens(&self) -> Vec<usize> {
        let leaves: &Leaves<D, B> = self.leaves();
        // The parameters of the trait are named, as the type of the leaves does not fix the stems'
        // (Eytzinger).
        let len = |leaf| {
            <Leaves<D, B> as LeafStrategy<f32, u32, Eytzinger, D, B>>::leaf_len(leaves, leaf)
        };
        (0..self.leaf_count()).map(len).collect()
    }

    fn order(&self) -> Vec<u32> {
        self.iter().map(|(position, _)| position).collect()
    }

    fn memory_bytes(&self) -> usize {
        // A point and a position for each row. The stems are the splits.
        self.size() * (D * size_of::<f32>() + size_of::<u32>()) + size_of_val(self.stems())
    }
}

fn kiddo<const D: usize, const B: usize>(points: &[f32], width: usize) -> Box<dyn Points> {
    let points: Vec<[f32; D]> = points.chunks_exact(width).map(array).collect();
    Box::new(
        Kiddo::<D, B>::new_from_slice(&points).expect("32-bit positions and leaves of any size"),
    )
}

/// The tree for leaves of `leaf_size`, if it is one of those that kiddo is compiled for.
/// `components` is one of those that [`KdTreeParams`] lists.
fn kiddo_of(
    leaf_size: usize,
    components: usize,
    points: &[f32],
    width: usize,
) -> Result<Box<dyn Points>, BuildError> {
    // One dimension more than components: the norm of the rest.
    match components {
        4 => kiddo_of_leaves::<5>(leaf_size, points, width),
        8 => kiddo_of_leaves::<9>(leaf_size, points, width),
        16 => kiddo_of_leaves::<17>(leaf_size, points, width),
        32 => kiddo_of_leaves::<33>(leaf_size, points, width),
        _ => unreachable!("checked before"),
    }
}

fn kiddo_of_leaves<const D: usize>(
    leaf_size: usize,
    points: &[f32],
    width: usize,
) -> Result<Box<dyn Points>, BuildError> {
    match leaf_size {
        16 => Ok(kiddo::<D, 16>(points, width)),
        32 => Ok(kiddo::<D, 32>(points, width)),
        128 => Ok(kiddo::<D, 128>(points, width)),
        _ => Err(BuildError::InvalidParameter {
            name: "leaf_size",
            received: leaf_size as f64,
            expected: "16, 32 or 128",
        }),
    }
}

/// The first `kept` coordinates of each sketch, and the norm of the others: again distances do not
/// exceed the true ones.
fn shortened(sketches: &[f32], width: usize, kept: usize) -> Vec<f32> {
    let mut short = Vec::with_capacity(sketches.len() / width * (kept + 1));
    for sketch in sketches.chunks_exact(width) {
        // The norm of the dropped coordinates takes their place. No distance grows by it, as the
        // norms of two vectors differ by no more than the vectors do. It is summed in f64, so that
        // it is rounded to f32 only once; the sketch's slack has room for that.
        let (first, others) = sketch.split_at(kept);
        let squares = others
            .iter()
            .map(|&value| f64::from(value) * f64::from(value));
        let rest = squares.sum::<f64>().sqrt();
        short.extend_from_slice(first);
        short.push(rest as f32);
    }
    short
}

/// The rows `ids` of a table of `width` columns, in that order.
fn in_order(table: &[f32], width: usize, ids: &[u32]) -> Vec<f32> {
    let rows = ids.iter().map(|&id| &table[id as usize * width..][..width]);
    rows.flatten().copied().collect()
}

impl KdTree {
    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &KdTreeParams {
        &self.tree.params
    }

    /// The ids of the rows in each leaf.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<u32>> {
        // kiddo hands the points out leaf after leaf, so that the lengths of the leaves part them.
        let order = self.tree.points.order();
        let mut rest = order
            .iter()
            .map(|&position| self.tree.ids[position as usize]);
        self.tree
            .points
            .leaf_lens()
            .into_iter()
            .map(|len| rest.by_ref().take(len).collect())
            .collect()
    }
}

impl Tree {
    fn search(&self, query: Row<'_>, k: usize) -> Found {
        // First a radius, from a few true distances. It decides how the other rows are compared.
        let k = k.min(self.ids.len());
        let (mut search, short) = Search::begin(self, query, TopK::new(k));
        let count = k.saturating_mul(GUESSES);
        if count >= self.ids.len().div_ceil(2) {
            search.compare_all();
            return search.found();
        }
        search.guess(&short, count);
        search.compare_within(&short);
        search.found()
    }

    /// The rows within the collector's limit: what [`Tree::search`] does once it has a radius.
    fn search_within(&self, query: Row<'_>, top: TopK) -> Found {
        let (mut search, short) = Search::begin(self, query, top);
        search.compare_within(&short);
        search.found()
    }

    fn sketch(&self, position: u32) -> &[f32] {
        let width = self.sketch.width();
        &self.sketches[position as usize * width..][..width]
    }
}

/// A query on its way through the steps.
struct Search<'a> {
    tree: &'a Tree,
    ranker: Ranker<'a>,
    query: SketchedQuery,
    /// The positions of the first guess, ascending: they are compared once only.
    seeds: Vec<u32>,
    top: TopK,
    /// How far the sketch of a neighbour can be.
    radius: Radius,
    visits: Visits,
}

/// A row whose bound does not exclude it.
struct Bounded {
    bound: f32,
    position: u32,
}

impl<'a> Search<'a> {
    /// Also returns the query's point in the tree.
    fn begin(tree: &'a Tree, query: Row<'a>, top: TopK) -> (Self, Vec<f32>) {
        let sketched = tree.sketch.query(query);
        let width = sketched.values.len();
        // Data of few dimensions have fewer coordinates than the tree. What a point lacks is zero
        // there.
        let short = shortened(&sketched.values, width, tree.params.components.min(width));
        let search = Self {
            tree,
            ranker: Ranker::new(&tree.rows, Metric::Euclidean, query),
            radius: sketched.radius(top.threshold()),
            query: sketched,
            seeds: Vec::new(),
            top,
            visits: Visits::default(),
        };
        (search, short)
    }

    /// The true distances of the tree's `count` nearest rows give the first radius.
    fn guess(&mut self, short: &[f32], count: usize) {
        // Any rows would give a valid radius. Those of the nearest sketches give a small one.
        let count = NonZeroUsize::new(count).expect("k is at least 1, and so is n");
        self.seeds = self.tree.points.nearest(short, count);
        self.seeds.sort_unstable();
        for &position in &self.seeds {
            let id = self.tree.ids[position as usize];
            self.top.push(id, self.ranker.reduced(position as usize));
        }
        self.visits.distances = self.seeds.len();
        // At least k rows are as near as the k-th of these. So no neighbour's sketch is farther
        // than this.
        self.radius = self.query.radius(self.top.threshold());
    }

    fn found(self) -> Found {
        Found {
            candidates: self.top.into_candidates(),
            visits: self.visits,
        }
    }

    /// Compares the rows that can be within the radius.
    fn compare_within(&mut self, short: &[f32]) {
        if self.most_are_within() {
            self.compare_all();
        } else {
            let candidates = self.candidates(short);
            self.compare_ascending(&candidates);
        }
    }

    /// Whether more than half of a sample of all rows are within the radius.
    fn most_are_within(&self) -> bool {
        // The rows lie in the order of the leaves, so that equal steps take some of every part of
        // the tree.
        let len = self.tree.ids.len();
        let sample = (0..len as u32).step_by(len.div_ceil(SAMPLE));
        let size = sample.len();
        let within = sample.filter(|&position| self.bound(position) <= self.radius.reduced);
        // To read most rows in order is faster than to look for them in the tree, bound them, sort
        // them and then read them in any order.
        2 * within.count() > size
    }

    /// Compares all rows, in the order of the memory.
    fn compare_all(&mut self) {
        let len = self.tree.ids.len();
        self.visits.bounds = len;
        for position in 0..len as u32 {
            self.compare(position);
        }
    }

    /// The rows that the tree finds within the radius and the longer bound does not exclude,
    /// nearest bound first.
    fn candidates(&mut self, short: &[f32]) -> Vec<Bounded> {
        // The tree knows the shorter sketches. What it finds is every neighbour and more.
        let mut within = Vec::new();
        let tree = self.tree;
        tree.points.within(short, self.radius.reduced, &mut within);
        self.visits.bounds = within.len();
        let mut candidates = Vec::with_capacity(within.len());
        for (i, &position) in within.iter().enumerate() {
            if let Some(&later) = within.get(i + AHEAD) {
                prefetch(tree.sketch(later));
            }
            // The longer sketch has a larger bound, which is still a lower one.
            let bound = self.bound(position);
            if bound <= self.radius.reduced {
                candidates.push(Bounded { bound, position });
            }
        }
        // Ties by position, so that the number of comparisons is the same on every run.
        candidates.sort_unstable_by(|a, b| {
            let by_bound = a.bound.total_cmp(&b.bound);
            by_bound.then(a.position.cmp(&b.position))
        });
        candidates
    }

    /// Compares the candidates until a bound is above the k-th best; those after it are then too.
    fn compare_ascending(&mut self, candidates: &[Bounded]) {
        for (i, &Bounded { bound, position }) in candidates.iter().enumerate() {
            if bound > self.radius.reduced {
                break;
            }
            if let Some(next) = candidates.get(i + 1) {
                self.tree.rows.row(next.position as usize).prefetch();
            }
            self.compare(position);
        }
    }

    /// The reduced distance of the sketches: a lower bound of that of the rows.
    #[inline]
    fn bound(&self, position: u32) -> f32 {
        let sketch = self.tree.sketch(position);
        kernels::squared_euclidean(&self.query.values, sketch)
    }

    /// Compares a row exactly, unless the first guess did.
    #[inline]
    fn compare(&mut self, position: u32) {
        self.visits.distances += 1;
        let threshold = self.top.threshold();
        // The seeds are in `top` already: to push one again would take the place of another row.
        // Only rows within the threshold are looked for among them.
        if let Some(reduced) = self.ranker.reduced_within(position as usize, threshold)
            && self.seeds.binary_search(&position).is_err()
            && self.top.push(self.tree.ids[position as usize], reduced)
        {
            self.radius = self.query.radius(self.top.threshold());
        }
    }
}

impl KdTreeParams {
    /// Refuses a number of components that no tree was compiled for.
    fn check(&self) -> Result<(), BuildError> {
        if [4, 8, 16, 32].contains(&self.components) {
            return Ok(());
        }
        Err(BuildError::InvalidParameter {
            name: "components",
            received: self.components as f64,
            expected: "4, 8, 16 or 32",
        })
    }
}

impl Build for KdTree {
    const KEY: &'static str = "kd_tree";
    const NAME: &'static str = "KD-tree";
    const EXACT: bool = true;
    type Params = KdTreeParams;
    type Search = NoParameters;

    /// Builds the tree: principal components, then kiddo's halving splits, O(n·log n).
    ///
    /// # Errors
    /// If `base` is empty, or `leaf_size` or `components` is none of those listed at
    /// [`KdTreeParams`].
    fn build(base: Arc<Vectors>, params: KdTreeParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        params.check()?;
        let KdTreeParams {
            leaf_size,
            components,
        } = params;
        // One sketch of 32 components serves both uses: its first ones are the tree's points.
        let sketched = Sketch::fit(&base, Norm::L2, REFINING)?;
        let width = sketched.sketch.width();
        let kept = components.min(width);
        let short = shortened(&sketched.rows, width, kept);
        // A first tree gives the order of the leaves; the second names the rows by their place in
        // it, so that rows that are near in the tree are near in memory.
        let ids = kiddo_of(leaf_size, components, &short, kept + 1)?.order();
        let short = in_order(&short, kept + 1, &ids);
        let order: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&order).expect("rows of the base");
        rows.in_huge_pages();
        Ok(Self {
            tree: Arc::new(Tree {
                params,
                points: kiddo_of(leaf_size, components, &short, kept + 1)?,
                sketches: in_order(&sketched.rows, width, &ids),
                sketch: sketched.sketch,
                rows,
                ids,
            }),
        })
    }

    fn with_search(&self, _: NoParameters) -> Result<Self, BuildError> {
        Ok(self.clone())
    }

    /// kiddo's tree is built again: the same points give the same tree, in a small part of the time
    /// that the components took.
    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let params: KdTreeParams = saved.build_parameters()?;
        params.check()?;
        let sketch: Sketch = saved.take("sketch")?;
        let sketches: Vec<f32> = saved.take("sketches")?;
        let rows: Vectors = saved.take("rows")?;
        let ids: Vec<u32> = saved.take("ids")?;
        sketch.check(rows.dim())?;
        let values = rows.len() * sketch.width();
        expect(sketches.len() == values, "sketches", "one for each row")?;
        expect_finite(&sketches, "sketches")?;
        expect(
            !ids.is_empty() && ids.len() == rows.len(),
            "ids",
            "one for each row",
        )?;
        expect_each_once(&ids, "ids")?;
        let kept = params.components.min(sketch.width());
        let short = shortened(&sketches, sketch.width(), kept);
        let points = kiddo_of(params.leaf_size, params.components, &short, kept + 1)?;
        Ok(Self {
            tree: Arc::new(Tree {
                params,
                sketch,
                points,
                sketches,
                rows,
                ids,
            }),
        })
    }
}

impl Index for KdTree {
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
            points,
            sketches,
            rows,
            ids,
            ..
        } = &*self.tree;
        rows.memory_bytes()
            + sketch.memory_bytes()
            + points.memory_bytes()
            + size_of_val(&**sketches)
            + size_of_val(&**ids)
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        self.tree.search(query, k)
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.describe::<Self>(&self.tree.params, &NoParameters);
        parts.add("sketch", &self.tree.sketch);
        parts.add("sketches", &self.tree.sketches);
        parts.add("rows", &self.tree.rows);
        parts.add("ids", &self.tree.ids);
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let top = TopK::within(most.min(self.len()), reduced);
        Some(self.tree.search_within(query, top))
    }
}
