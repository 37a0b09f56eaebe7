//! A finished graph and the search in it, which both engines share.

use std::cell::RefCell;

use super::layer::Layer;
use super::nodes::{Comparison, Nodes};
use super::walk::{Entry, Limits, Scratch, Walk, descend};
use crate::index::parts::{PartError, Saved, expect, saved};
use crate::index::{Found, Visits};
use crate::neighbor::TopK;
use crate::simd::pairwise;
use crate::vectors::Row;

/// Nodes and their links on each layer.
#[derive(Debug)]
pub struct Layers {
    pub nodes: Nodes,
    /// The lowest first. Each holds the first so many nodes, so node 0 is in all of them.
    pub layers: Vec<Layer>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

saved!(Layers { nodes, layers });

impl Layers {
    /// The graph that was saved.
    ///
    /// # Errors
    /// If its parts do not fit together.
    pub fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let graph: Self = saved.take("graph")?;
        graph.nodes.check()?;
        // Each layer has no more nodes than the one below, and the lowest has all.
        let mut nodes = graph.nodes.len();
        for layer in &graph.layers {
            layer.check(nodes)?;
            nodes = layer.len();
        }
        let lowest = graph.layers.first().map(Layer::len);
        let all = lowest == Some(graph.nodes.len());
        expect(all, "layers", "all nodes on the lowest layer")?;
        Ok(graph)
    }

    pub fn new(nodes: Nodes, layers: Vec<Layer>) -> Self {
        layers.iter().for_each(Layer::in_huge_pages);
        Self { nodes, layers }
    }

    pub fn memory_bytes(&self) -> usize {
        let layers = self.layers.iter().map(Layer::memory_bytes);
        self.nodes.memory_bytes() + layers.sum::<usize>()
    }

    /// The min(`k`, n) nearest rows that a walk finds which keeps the `ef` nearest nodes.
    pub fn search(&self, query: Row<'_>, k: usize, ef: usize) -> Found {
        let comparison = self.nodes.comparison(query);
        // A node is a row or more. So k nodes are enough, or all if there are fewer.
        let wanted = k.min(self.nodes.len());
        let ef = ef.max(wanted);
        // A walk that keeps half of the nodes compares nearly all. A scan does that faster, and
        // misses none.
        if ef >= self.nodes.len() / 2 {
            return self.scan(&comparison, k);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.visits = Visits::default();
            let mut entry = 0;
            for layer in self.layers[1..].iter().rev() {
                entry = descend(layer, &comparison, entry, scratch);
            }
            let limits = Limits {
                ef,
                at_least: wanted,
            };
            let pool = Walk::run(&self.layers[0], &comparison, entry, limits, scratch);
            let mut top = TopK::new(k.min(self.nodes.rows()));
            self.rank(&comparison, pool, k, &mut top);
            Found {
                candidates: top.into_candidates(),
                visits: scratch.visits,
            }
        })
    }

    /// Compares all nodes.
    fn scan(&self, comparison: &Comparison<'_>, k: usize) -> Found {
        let mut top = TopK::new(k.min(self.nodes.rows()));
        for node in 0..self.nodes.len() as u32 {
            if let Some(reduced) = comparison.exact_within(node, top.threshold()) {
                self.nodes.push_copies(node, reduced, k, &mut top);
            }
        }
        Found {
            candidates: top.into_candidates(),
            visits: Visits {
                distances: self.nodes.len(),
                ..Visits::default()
            },
        }
    }

    /// Adds to `top` the rows of the nodes in a pool that can be among the `k` nearest.
    fn rank(&self, comparison: &Comparison<'_>, pool: &[Entry], k: usize, top: &mut TopK) {
        // The pool is ordered by rounded distances. Each is off by this share at most, so what is
        // more than twice the share beyond the k-th is farther than that.
        let share = pairwise::relative_error(self.nodes.dim());
        let limit = pool[k.min(pool.len()) - 1].distance * (1.0 + 4.0 * share);
        for entry in pool.iter().take_while(|entry| entry.distance <= limit) {
            if let Some(reduced) = comparison.exact_within(entry.node, top.threshold()) {
                self.nodes.push_copies(entry.node, reduced, k, top);
            }
        }
    }
}
