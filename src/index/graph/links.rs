//! What the graphs of near neighbours share: their edges, and the walk along them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::index::support::pruned_rows::Comparison;
use crate::neighbor::TopK;

/// The edges of a graph: those of node i lead to `targets[starts[i]..starts[i + 1]]`.
#[derive(Debug, PartialEq)]
pub struct Links {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Links {
    /// Node after node.
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

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Where the edges of a node lead.
    pub fn of(&self, node: u32) -> &[u32] {
        &self.targets[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// All edges, as pairs of the ids that the nodes have.
    pub fn pairs<'a>(&'a self, ids: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + 'a {
        (0..self.len() as u32).flat_map(move |from| {
            self.of(from)
                .iter()
                .map(move |&to| (ids[from as usize], ids[to as usize]))
        })
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.targets)
    }

    /// Adds to `top` the nodes found from `starts`, expanding the nearest node not yet expanded until that one's reduced distance is above `reach`
    /// times that of the worst in `top`; what lies beyond is not expanded either.
    ///
    /// With the ef best in `top` and a reach of 1 it is algorithm 2 of HNSW; with the k best and (1 + ε)², the range search of NGT.
    pub fn walk(
        &self,
        comparison: &mut Comparison<'_>,
        starts: &[u32],
        ids: &[u32],
        reach: f64,
        top: &mut TopK,
    ) {
        // Reduced distances are not negative: their bits order as they do.
        let mut pending = BinaryHeap::new();
        let mut expand =
            |nodes: &[u32], pending: &mut BinaryHeap<Reverse<(u64, u32)>>, top: &mut TopK| {
                comparison.compare(nodes, |node, rank| {
                    let entered = top.push(ids[node as usize], rank);
                    let limit = top.threshold() * reach;
                    if entered || rank < limit {
                        pending.push(Reverse((rank.to_bits(), node)));
                    }
                    limit
                });
            };
        expand(starts, &mut pending, top);
        while let Some(Reverse((rank, from))) = pending.pop() {
            if f64::from_bits(rank) > top.threshold() * reach {
                break;
            }
            expand(self.of(from), &mut pending, top);
        }
    }
}
