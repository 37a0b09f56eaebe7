//! The links of one layer: a list of the same length for each node.
//!
//! ```text
//! node 0   4 1 9 0 0      to 4, 1 and 9; two places are free, and hold the node itself
//! node 1   0 4 1 1 1      to 0 and 4
//! ```
//!
//! A walk has met a node before it reads its list, so a free place costs it nothing and needs no
//! test. Lists of one length are found without a table of where they begin.

use crate::index::parts::{PartError, expect, expect_below, saved_list};
use crate::simd;

/// The links of the nodes 0, 1, … of a layer.
#[derive(Debug, PartialEq)]
pub struct Layer {
    /// Links that a node may have.
    places: usize,
    targets: Vec<u32>,
}

saved_list!(Layer { places, targets });

impl Layer {
    /// Refuses a layer that is not of the first so many of `nodes` nodes.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, nodes: usize) -> Result<(), PartError> {
        let whole = self.places > 0 && self.targets.len().is_multiple_of(self.places);
        expect(whole, "targets", "as many places for each node")?;
        let fits = (1..=nodes).contains(&self.len());
        expect(fits, "targets", "no more nodes than the layer below has")?;
        expect_below(&self.targets, self.len(), "targets")
    }

    /// A layer of so many nodes with no links yet.
    pub fn new(nodes: usize, places: usize) -> Self {
        let own = |node| std::iter::repeat_n(node as u32, places);
        Self {
            places,
            targets: (0..nodes).flat_map(own).collect(),
        }
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.targets.len() / self.places
    }

    /// Links that a node may have.
    pub fn places(&self) -> usize {
        self.places
    }

    /// All places of a node: where its links lead, and then the node itself in those that are free.
    #[inline]
    pub fn of(&self, node: u32) -> &[u32] {
        &self.targets[node as usize * self.places..][..self.places]
    }

    /// Where the links of a node lead.
    pub fn links(&self, node: u32) -> &[u32] {
        let places = self.of(node);
        let free = places.iter().position(|&target| target == node);
        &places[..free.unwrap_or(self.places)]
    }

    /// Replaces the links of a node by those to `targets`, which are other nodes and no more than
    /// there are places.
    pub fn set(&mut self, node: u32, targets: &[u32]) {
        let places = &mut self.targets[node as usize * self.places..][..self.places];
        places[..targets.len()].copy_from_slice(targets);
        places[targets.len()..].fill(node);
    }

    /// All links, as pairs of the ids that the nodes have.
    pub fn pairs<'a>(&'a self, ids: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + 'a {
        let nodes = 0..self.len() as u32;
        nodes.flat_map(move |from| {
            let targets = self.links(from).iter();
            targets.map(move |&to| (ids[from as usize], ids[to as usize]))
        })
    }

    /// Asks the memory for the list of a node.
    #[inline]
    pub fn prefetch(&self, node: u32) {
        simd::prefetch(self.of(node));
    }

    /// Asks for the lists to be kept in huge pages.
    pub fn in_huge_pages(&self) {
        simd::in_huge_pages(&self.targets);
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.targets)
    }
}
