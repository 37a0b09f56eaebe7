//! A kd-tree over principal components.

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use kiddo::leaf_strategies::VecOfArenas;
use kiddo::traits::kd_tree::KdTreeAccessor;
use kiddo::{Eytzinger, LeafStrategy, SquaredEuclidean};
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::support::lower_bound::{Radius, Sketch};
use crate::index::{BuildError, Index, QueryError, Visits, check_base, check_query, check_shape};
use crate::neighbor::{Neighbor, Neighbors, TopK};
use crate::simd::{lower_bound as kernels, prefetch};
use crate::vectors::{Row, Vectors};

/// What a [`KdTree`] is built with.
#[derive(Debug, Clone, PartialEq)]
pub struct KdTreeParams {
    /// The most rows that a leaf holds: 16, 32 or 128. More only where rows cannot be told apart.
    pub leaf_size: usize,
    /// Principal components in which the tree splits: 4, 8, 16 or 32. More reject more rows and cost more each.
    pub components: usize,
}

impl Default for KdTreeParams {
    fn default() -> Self {
        Self {
            leaf_size: 32,
            components: 16,
        }
    }
}

/// Principal components with which the tree's candidates are bounded once more before their distance is computed.
const REFINING: usize = 32;

/// The first guess takes so many times k rows: comparing a few more is cheap, and the radius that they give smaller.
const GUESSES: usize = 4;

/// Rows, spread over the base, whose bounds tell whether it is worth to look for those that are within the radius.
const SAMPLE: usize = 256;

/// Candidates whose sketches are fetched from memory while one is compared.
const AHEAD: usize = 8;

/// A kd-tree (Bentley, *Multidimensional Binary Search Trees Used for Associative Searching*, CACM 1975), by the crate
/// [`kiddo`]. Exact, Euclidean.
///
/// On 784 pixels a kd-tree visits nearly everything: after a dozen splits the query is still near every cell, and the
/// splits in index order fall on pixels that are always black. Here the tree holds the leading principal components
/// and the norm of the rest, in which distances never exceed the true ones. A query takes the tree's nearest rows as
/// a first guess, whose true k-th distance is a radius outside of which no neighbour can be; asks the tree for all rows
/// within it; and compares those in ascending order of a bound in more components, until the bound is above the k-th
/// best (the optimal multi-step search of Seidl and Kriegel, SIGMOD 1998). Where a sample says that most rows are within
/// the radius, all are compared.
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

/// kiddo's tree, whose dimension and leaf size are types. Points are named by their position.
trait Points: Debug + Send + Sync {
    /// The positions of the `count` nearest.
    fn nearest(&self, point: &[f32], count: NonZeroUsize) -> Vec<u32>;
    /// The positions of all within a distance of √`rank`.
    fn within(&self, point: &[f32], rank: f32, out: &mut Vec<u32>);
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

    fn within(&self, point: &[f32], rank: f32, out: &mut Vec<u32>) {
        let point = array(point);
        self.query(&point)
            .within::<SquaredEuclidean<f32>>(rank)
            .unsorted()
            .visit(|found| out.push(found.item));
    }

    fn leaf_lens(&self) -> Vec<usize> {
        let leaves: &Leaves<D, B> = self.leaves();
        let len = |leaf| {
            <Leaves<D, B> as LeafStrategy<f32, u32, Eytzinger, D, B>>::leaf_len(leaves, leaf)
        };
        (0..self.leaf_count()).map(len).collect()
    }

    fn order(&self) -> Vec<u32> {
        self.iter().map(|(position, _)| position).collect()
    }

    fn memory_bytes(&self) -> usize {
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
fn kiddo_of(
    leaf_size: usize,
    components: usize,
    points: &[f32],
    width: usize,
) -> Result<Box<dyn Points>, BuildError> {
    fn leaves<const D: usize>(
        leaf_size: usize,
        points: &[f32],
        width: usize,
    ) -> Option<Box<dyn Points>> {
        Some(match leaf_size {
            16 => kiddo::<D, 16>(points, width),
            32 => kiddo::<D, 32>(points, width),
            128 => kiddo::<D, 128>(points, width),
            _ => return None,
        })
    }
    let tree = match components {
        4 => leaves::<5>(leaf_size, points, width),
        8 => leaves::<9>(leaf_size, points, width),
        16 => leaves::<17>(leaf_size, points, width),
        32 => leaves::<33>(leaf_size, points, width),
        _ => unreachable!("checked before"),
    };
    let received = leaf_size as f64;
    tree.ok_or(BuildError::InvalidParameter {
        name: "leaf_size",
        received,
        expected: "16, 32 or 128",
    })
}

/// The sketches' first coordinates, and the norm of the others: again a contraction.
fn shortened(sketches: &[f32], width: usize, kept: usize) -> Vec<f32> {
    let short = |sketch: &[f32]| {
        let rest: f64 = sketch[kept..]
            .iter()
            .map(|&value| f64::from(value) * f64::from(value))
            .sum();
        sketch[..kept]
            .iter()
            .copied()
            .chain([rest.sqrt() as f32])
            .collect::<Vec<_>>()
    };
    sketches.chunks_exact(width).flat_map(short).collect()
}

impl KdTree {
    /// Builds the tree: principal components, then kiddo's halving splits, O(n·log n).
    ///
    /// # Errors
    /// If `base` is empty, or `leaf_size` or `components` is none of those listed at [`KdTreeParams`].
    pub fn build(base: Arc<Vectors>, params: KdTreeParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let KdTreeParams {
            leaf_size,
            components,
        } = params;
        if ![4, 8, 16, 32].contains(&components) {
            let received = components as f64;
            return Err(BuildError::InvalidParameter {
                name: "components",
                received,
                expected: "4, 8, 16 or 32",
            });
        }
        let sketched = Sketch::fit(&base, Metric::Euclidean, REFINING)?;
        let width = sketched.sketch.width();
        let kept = components.min(width);
        let short = shortened(&sketched.rows, width, kept);
        // A first tree gives the order of the leaves; the second names the rows by their place in it, so that rows
        // that are near in the tree are near in memory.
        let ids = kiddo_of(leaf_size, components, &short, kept + 1)?.order();
        let in_order = |rows: &[f32], width: usize| -> Vec<f32> {
            ids.iter()
                .flat_map(|&id| &rows[id as usize * width..][..width])
                .copied()
                .collect()
        };
        let points = kiddo_of(leaf_size, components, &in_order(&short, kept + 1), kept + 1)?;
        let sketches = in_order(&sketched.rows, width);
        let rows = base
            .select(&ids.iter().map(|&id| id as usize).collect::<Vec<_>>())
            .expect("rows of the base");
        rows.in_huge_pages();
        Ok(Self {
            tree: Arc::new(Tree {
                params,
                sketch: sketched.sketch,
                points,
                sketches,
                rows,
                ids,
            }),
        })
    }

    /// What it was built with.
    #[must_use]
    pub fn build_params(&self) -> &KdTreeParams {
        &self.tree.params
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
        Ok(self.tree.search(Row::Floats(query), k))
    }

    /// The ids of the rows in each leaf.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<u32>> {
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
    fn search(&self, query: Row<'_>, k: usize) -> (Vec<Neighbor>, Visits) {
        let ranker = Ranker::new(&self.rows, Metric::Euclidean, query);
        let query = self.sketch.query(query);
        let k = k.min(self.ids.len());
        let short = shortened(
            &query.values,
            query.values.len(),
            self.params.components.min(query.values.len()),
        );
        let mut visits = Visits::default();

        let mut top = TopK::new(k);
        let guesses = k.saturating_mul(GUESSES).min(self.ids.len());
        let seeds = self.points.nearest(
            &short,
            NonZeroUsize::new(guesses).expect("k is at least 1, and so is n"),
        );
        for &position in &seeds {
            top.push(self.ids[position as usize], ranker.rank(position as usize));
        }
        let mut radius = query.radius(top.threshold());

        visits.distances = seeds.len();
        let mut compare = |position: u32, top: &mut TopK, radius: &mut Radius| {
            visits.distances += 1;
            if let Some(rank) = ranker.rank_within(position as usize, top.threshold())
                && !seeds.contains(&position)
                && top.push(self.ids[position as usize], rank)
            {
                *radius = query.radius(top.threshold());
            }
        };
        let bound = |position| kernels::squared_euclidean(&query.values, self.sketch(position));
        let sample = (0..self.ids.len() as u32).step_by(self.ids.len().div_ceil(SAMPLE));
        if 2 * sample
            .clone()
            .filter(|&position| bound(position) <= radius.rank)
            .count()
            > sample.len()
        {
            // Most are: all rows are compared, in the order of the memory.
            (0..self.ids.len() as u32)
                .for_each(|position| compare(position, &mut top, &mut radius));
            visits.bounds = self.ids.len();
            return (top.into_neighbors(Metric::Euclidean), visits);
        }

        let mut within = Vec::new();
        self.points.within(&short, radius.rank, &mut within);
        let mut candidates = Vec::with_capacity(within.len());
        for (i, &position) in within.iter().enumerate() {
            if let Some(&later) = within.get(i + AHEAD) {
                prefetch(self.sketch(later));
            }
            let bound = bound(position);
            if bound <= radius.rank {
                candidates.push((bound, position));
            }
        }
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (i, &(bound, position)) in candidates.iter().enumerate() {
            if bound > radius.rank {
                break;
            }
            if let Some(&(_, next)) = candidates.get(i + 1) {
                self.rows.row(next as usize).prefetch();
            }
            compare(position, &mut top, &mut radius);
        }
        visits.bounds = within.len();
        (top.into_neighbors(Metric::Euclidean), visits)
    }

    fn sketch(&self, position: u32) -> &[f32] {
        let width = self.sketch.width();
        &self.sketches[position as usize * width..][..width]
    }
}

impl Index for KdTree {
    fn name(&self) -> &'static str {
        "KD-tree"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let KdTreeParams {
            leaf_size,
            components,
        } = self.tree.params;
        vec![
            ("leaf_size", leaf_size as f64),
            ("components", components as f64),
        ]
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

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        Ok(self.query_counted(query, k)?.0)
    }

    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_shape(queries.dim(), k, self.dim())?;
        let search = |row| self.tree.search(queries.row(row), k).0;
        let rows: Vec<_> = (0..queries.len()).into_par_iter().map(search).collect();
        Ok(rows.into_iter().collect())
    }
}
