//! The rows as a graph has them: one node for all copies of a row, in the graph's order.

use super::filter::{Filter, FilterQuery};
use crate::distance::{Metric, Ranker};
use crate::error::BuildError;
use crate::index::graph::links::Links;
use crate::index::parts::{PartError, expect, saved};
use crate::neighbor::TopK;
use crate::simd::pairwise;
use crate::vectors::{Row, Vectors};

/// Between these, the squared distance of two rows of floats is computed in f32. Squares below
/// 1e-38 vanish there: too little to matter in a sum of 1e-28, up to a million dimensions. A sum
/// below 1e36 has not overflowed.
const IN_F32: std::ops::Range<f32> = 1e-28..1e36;

/// The distinct rows of a base.
#[derive(Debug)]
pub struct Nodes {
    rows: Vectors,
    /// The id of each node: the first of its copies.
    ids: Vec<u32>,
    /// The ids of the rows that each node stands for, itself among them.
    copies: Links,
    filter: Option<Filter>,
}

saved!(Nodes {
    rows,
    ids,
    copies,
    filter
});

impl Nodes {
    /// Refuses parts that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<(), PartError> {
        let nodes = self.rows.len();
        expect(self.ids.len() == nodes, "ids", "one for each node")?;
        self.copies.check_groups(nodes)?;
        let firsts = (0..)
            .zip(&self.ids)
            .all(|(node, &id)| self.copies.of(node)[0] == id);
        expect(firsts, "ids", "the first row of each group")?;
        match &self.filter {
            Some(filter) => filter.check(&self.rows),
            None => Ok(()),
        }
    }

    /// Of groups of equal rows, in that order.
    ///
    /// # Errors
    /// If no filter can be computed.
    pub fn new(base: &Vectors, groups: &[Vec<u32>]) -> Result<Self, BuildError> {
        let ids: Vec<u32> = groups.iter().map(|group| group[0]).collect();
        let numbers: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&numbers).expect("rows of the base");
        rows.in_huge_pages();
        Ok(Self {
            filter: Filter::new(&rows)?,
            rows,
            ids,
            copies: Links::new(groups.iter().map(|group| group.iter().copied())),
        })
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The number of rows that they stand for.
    pub fn rows(&self) -> usize {
        self.copies.total()
    }

    /// The dimension of the rows.
    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// The id of each node.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The row of a node.
    pub fn row(&self, node: u32) -> Row<'_> {
        self.rows.row(node as usize)
    }

    /// Offers the first `k` copies of a node, all at the same distance.
    pub fn push_copies(&self, node: u32, reduced: f64, k: usize, top: &mut TopK) {
        for &id in self.copies.of(node).iter().take(k) {
            top.push(id, reduced);
        }
    }

    /// The squared distance of two nodes, as [`distance`] has it.
    #[inline]
    pub fn between(&self, a: u32, b: u32) -> f64 {
        distance(self.row(a), self.row(b))
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, Filter::memory_bytes);
        self.rows.memory_bytes() + filter + size_of_val(&*self.ids) + self.copies.memory_bytes()
    }

    /// Begins to compare `query` with nodes.
    pub fn comparison<'a>(&'a self, query: Row<'a>) -> Comparison<'a> {
        let filter = self.filter.as_ref();
        Comparison {
            nodes: self,
            ranker: Ranker::new(&self.rows, Metric::Euclidean, query),
            filter: filter.map(|filter| (filter, filter.query(query))),
        }
    }
}

/// The squared distance of two rows of one base. Between floats it is rounded as f32 arithmetic
/// does, unless squares overflow or vanish there.
pub fn distance(a: Row<'_>, b: Row<'_>) -> f64 {
    match (a, b) {
        (Row::Bytes(a), Row::Bytes(b)) => Metric::Euclidean.reduced_bytes(a, b) as f64,
        (Row::Floats(a), Row::Floats(b)) => {
            let squared = pairwise::squared_euclidean_f32(a, b);
            if IN_F32.contains(&squared) {
                f64::from(squared)
            } else {
                Metric::Euclidean.reduced(a, b)
            }
        }
        (Row::Floats(a), Row::Bytes(b)) | (Row::Bytes(b), Row::Floats(a)) => {
            Metric::Euclidean.reduced_mixed(a, b)
        }
    }
}

/// A query that is compared with nodes.
#[derive(Debug)]
pub struct Comparison<'a> {
    nodes: &'a Nodes,
    ranker: Ranker<'a>,
    filter: Option<(&'a Filter, FilterQuery)>,
}

impl Comparison<'_> {
    /// The squared distance to a node, as [`distance`] has it.
    #[inline]
    pub fn distance(&self, node: u32) -> f64 {
        distance(self.ranker.query().row(), self.nodes.row(node))
    }

    /// Takes out of `nodes` those that are sure to be farther than `limit`, a squared distance,
    /// where there is a filter. Returns whether there is one.
    #[inline]
    pub fn drop_far(&self, limit: f64, nodes: &mut Vec<u32>, bounds: &mut Vec<f32>) -> bool {
        let Some((filter, query)) = &self.filter else {
            return false;
        };
        // All codes are asked for before the first is read. The memory brings many at once.
        nodes.iter().for_each(|&node| filter.prefetch(node));
        filter.bounds(query, nodes, bounds);
        let limit = filter.limit(query, limit);
        // In place and without a branch: the entry is written in any case and kept if `kept` goes
        // on.
        let mut kept = 0;
        for i in 0..nodes.len() {
            nodes[kept] = nodes[i];
            kept += usize::from(bounds[i] <= limit);
        }
        nodes.truncate(kept);
        true
    }

    /// The true reduced distance to a node, or `None` if it is above `limit`.
    pub fn exact_within(&self, node: u32, limit: f64) -> Option<f64> {
        self.ranker.reduced_within(node as usize, limit)
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        match self.nodes.row(0) {
            Row::Bytes(row) => size_of_val(row),
            Row::Floats(row) => size_of_val(row),
        }
    }

    /// Asks the memory for the row of a node.
    #[inline]
    pub fn prefetch(&self, node: u32) {
        self.nodes.row(node).prefetch();
    }
}
