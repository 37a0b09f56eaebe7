//! Lists of numbers, one a node: the edges of a graph, and the walk along them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::index::parts::{
    PartError, expect, expect_below, expect_each_once, expect_starts, saved,
};
use crate::index::support::pruned_rows::Comparison;
use crate::neighbor::TopK;

/// The edges of a graph, in two arrays: node after node, and where each node's begin.
///
/// ```text
/// starts   0 3 5 5 …
/// targets  4 1 9 0 4 …     node 0 leads to 4, 1 and 9; node 1 to 0 and 4; node 2 to none
/// ```
#[derive(Debug, PartialEq)]
pub struct Links {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

saved!(Links { starts, targets });

impl Links {
    /// Of one list of targets a node.
    pub fn new<L: IntoIterator<Item = u32>>(lists: impl IntoIterator<Item = L>) -> Self {
        let mut links = Self {
            starts: vec![0],
            targets: Vec::new(),
        };
        for list in lists {
            links.targets.extend(list);
            links.starts.push(links.targets.len() as u32);
        }
        links
    }

    /// Refuses what are not lists of numbers below `limit`, one for each of `nodes` nodes.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, nodes: usize, limit: usize) -> Result<(), PartError> {
        expect(
            self.starts.len() == nodes + 1,
            "starts",
            "a list for each node",
        )?;
        expect_starts(&self.starts, self.targets.len(), "starts")?;
        expect_below(&self.targets, limit, "targets")
    }

    /// Refuses what does not part the rows 0, 1, … into groups, one for each of `nodes` nodes.
    ///
    /// # Errors
    /// If it does not, or a group is empty.
    pub fn check_groups(&self, nodes: usize) -> Result<(), PartError> {
        self.check(nodes, self.total())?;
        let filled = self.starts.is_sorted_by(|a, b| a < b);
        expect(filled, "starts", "groups that are not empty")?;
        expect_each_once(&self.targets, "targets")
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of edges.
    pub fn total(&self) -> usize {
        self.targets.len()
    }

    /// Where the edges of a node lead.
    pub fn of(&self, node: u32) -> &[u32] {
        let start = self.starts[node as usize] as usize;
        let end = self.starts[node as usize + 1] as usize;
        &self.targets[start..end]
    }

    /// All edges, as pairs of the ids that the nodes have.
    pub fn pairs<'a>(&'a self, ids: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + 'a {
        // The links number nodes by position; whoever reads them knows rows by id.
        let nodes = 0..self.len() as u32;
        nodes.flat_map(move |from| {
            let targets = self.of(from).iter();
            targets.map(move |&to| (ids[from as usize], ids[to as usize]))
        })
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.targets)
    }

    /// Adds to `top` the rows that a walk from `starts` finds.
    ///
    /// The walk expands, time after time, the nearest node that is not expanded yet: it compares
    /// the query with that node's neighbours. It ends where the nearest has a reduced distance of
    /// more than `reach` times that of the worst in `top`.
    ///
    /// With the k best in `top` and a reach of (1 + ε)², it is the range search of NGT.
    pub fn walk(
        &self,
        comparison: &mut Comparison<'_>,
        starts: &[u32],
        ids: &[u32],
        reach: f64,
        top: &mut TopK,
    ) {
        // The nodes not yet expanded, nearest first. Reduced distances are not negative, so their
        // bits, read as whole numbers, have the same order.
        let mut pending = BinaryHeap::new();
        // Compares the query with `nodes`. What enters `top`, or is within reach, will be expanded.
        // The limit goes back to `comparison`, which rejects by its bound what is beyond.
        let mut compare =
            |nodes: &[u32], pending: &mut BinaryHeap<Reverse<(u64, u32)>>, top: &mut TopK| {
                comparison.compare(nodes, |node, reduced| {
                    // A row that does not enter `top` may still lead to one that does, where
                    // `reach` is above 1.
                    let entered = top.push(ids[node as usize], reduced);
                    let limit = top.threshold() * reach;
                    if entered || reduced < limit {
                        pending.push(Reverse((reduced.to_bits(), node)));
                    }
                    limit
                });
            };
        compare(starts, &mut pending, top);
        while let Some(Reverse((bits, nearest))) = pending.pop() {
            // All others pending are at least as far, so the walk is at its end.
            if f64::from_bits(bits) > top.threshold() * reach {
                break;
            }
            compare(self.of(nearest), &mut pending, top);
        }
    }
}
