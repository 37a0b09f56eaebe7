//! The walk on one layer: algorithm 2 of the paper.

use std::cmp::Ordering;

use super::layer::Layer;
use super::nodes::Comparison;
use crate::index::Visits;

/// Bytes of rows that are asked for from memory while one is compared: about as many cache lines as
/// a core waits for at a time.
const AHEAD: usize = 4_096;

/// A node that a walk has compared, in the order of distances, then of nodes.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The squared distance to the query, by [`Comparison::distance`].
    pub distance: f64,
    pub node: u32,
    /// Whether its neighbours have been compared.
    expanded: bool,
}

impl Entry {
    pub fn new(distance: f64, node: u32) -> Self {
        Self {
            distance,
            node,
            expanded: false,
        }
    }

    /// By distance, then by node.
    pub fn order(&self, other: &Self) -> Ordering {
        let by_distance = self.distance.total_cmp(&other.distance);
        by_distance.then(self.node.cmp(&other.node))
    }

    /// Whether it comes before another one. Distances are never NaN, so this is the same order.
    #[inline]
    fn is_before(&self, other: &Self) -> bool {
        (self.distance, self.node) < (other.distance, other.node)
    }
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The nearest nodes that it keeps.
    pub ef: usize,
    /// The least that it must find, up to `ef` and the number of nodes: where the links lead to no
    /// more, it begins again from a node not met.
    pub at_least: usize,
}

impl Limits {
    /// The `ef` nearest of those that the links lead to.
    pub fn nearest(ef: usize) -> Self {
        Self { ef, at_least: 0 }
    }
}

/// What a walk works with. A thread keeps it, so that a walk allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    visited: Visited,
    /// The nearest nodes met, nearest first.
    pool: Vec<Entry>,
    /// Neighbours to compare.
    fresh: Vec<u32>,
    bounds: Vec<f32>,
    /// What all walks have looked at.
    pub visits: Visits,
}

/// Which nodes this walk has met: for each the number of the last walk that met it.
#[derive(Debug, Default)]
struct Visited {
    last_walk: Vec<u8>,
    this_walk: u8,
}

impl Visited {
    /// Begins another walk over `len` nodes. Every 255 walks the numbers are set back to zero.
    fn begin(&mut self, len: usize) {
        // The walk before may have been on another layer, or in another graph. Its marks do no
        // harm: they are numbers of earlier walks. Zero is the number of no walk.
        if self.this_walk == u8::MAX {
            self.last_walk.fill(0);
            self.this_walk = 0;
        }
        if self.last_walk.len() < len {
            self.last_walk.resize(len, 0);
        }
        self.this_walk += 1;
    }

    /// Meets a node; returns whether that is for the first time in this walk.
    #[inline(always)]
    fn meet(&mut self, node: u32) -> bool {
        let last = std::mem::replace(&mut self.last_walk[node as usize], self.this_walk);
        last != self.this_walk
    }
}

/// The node that a walk of ever nearer steps from `entry` ends at: algorithm 2 with ef = 1.
pub fn descend(
    layer: &Layer,
    comparison: &Comparison<'_>,
    entry: u32,
    scratch: &mut Scratch,
) -> u32 {
    let mut nearest = entry;
    let mut least = comparison.distance(entry);
    scratch.visits.distances += 1;
    loop {
        let from = nearest;
        let links = layer.links(from);
        links.iter().for_each(|&node| comparison.prefetch(node));
        for &node in links {
            let distance = comparison.distance(node);
            if distance < least {
                (nearest, least) = (node, distance);
            }
        }
        scratch.visits.distances += links.len();
        // Strictly nearer each time, so the loop ends.
        if nearest == from {
            return nearest;
        }
    }
}

/// One query on its way through a layer.
pub struct Walk<'a> {
    layer: &'a Layer,
    comparison: &'a Comparison<'a>,
    limits: Limits,
    scratch: &'a mut Scratch,
    /// Rows that are asked for ahead.
    ahead: usize,
    /// All entries of the pool before this one have been expanded.
    next: usize,
    /// All nodes before this one have been met, as far as new beginnings were looked for.
    unmet: u32,
}

impl<'a> Walk<'a> {
    /// The nodes nearest to the query that a walk from `start` finds, nearest first.
    pub fn run(
        layer: &'a Layer,
        comparison: &'a Comparison<'a>,
        start: u32,
        limits: Limits,
        scratch: &'a mut Scratch,
    ) -> &'a [Entry] {
        scratch.visited.begin(layer.len());
        scratch.pool.clear();
        let mut walk = Self {
            layer,
            comparison,
            limits,
            scratch,
            ahead: (AHEAD / comparison.row_bytes()).max(2),
            next: 0,
            unmet: 0,
        };
        walk.start_from(start);
        loop {
            while let Some(node) = walk.nearest_to_expand() {
                walk.expand(node);
            }
            // All that can be reached is known. If it is too little, go on from elsewhere.
            let found = walk.scratch.pool.len();
            if found >= limits.at_least || !walk.start_from_unmet() {
                return &walk.scratch.pool;
            }
        }
    }

    fn start_from(&mut self, node: u32) {
        self.scratch.visited.meet(node);
        self.scratch.visits.distances += 1;
        self.keep(Entry::new(self.comparison.distance(node), node));
    }

    /// Begins again from the first node not met; false if there is none.
    #[cold]
    fn start_from_unmet(&mut self) -> bool {
        while (self.unmet as usize) < self.layer.len() {
            let node = self.unmet;
            self.unmet += 1;
            if self.scratch.visited.meet(node) {
                self.start_from(node);
                return true;
            }
        }
        false
    }

    /// The nearest node of the pool that is not expanded yet, which is marked as expanded.
    #[inline(always)]
    fn nearest_to_expand(&mut self) -> Option<u32> {
        while let Some(entry) = self.scratch.pool.get_mut(self.next) {
            self.next += 1;
            if !entry.expanded {
                entry.expanded = true;
                return Some(entry.node);
            }
        }
        None
    }

    /// Compares the query with the neighbours of a node that were not met before.
    #[inline(always)]
    fn expand(&mut self, node: u32) {
        let Scratch { visited, fresh, .. } = &mut *self.scratch;
        // Without a branch on what was met, which would be guessed wrong half the time: the place
        // is written in any case, and kept if the neighbour is new.
        let places = self.layer.of(node);
        fresh.resize(places.len(), 0);
        let mut count = 0;
        for &neighbor in places {
            fresh[count] = neighbor;
            count += usize::from(visited.meet(neighbor));
        }
        fresh.truncate(count);
        // The list that will be read next, if nothing nearer turns up.
        if let Some(likely) = self.scratch.pool.get(self.next) {
            self.layer.prefetch(likely.node);
        }
        self.compare_fresh();
    }

    #[inline(always)]
    fn compare_fresh(&mut self) {
        let Scratch {
            pool,
            fresh,
            bounds,
            visits,
            ..
        } = &mut *self.scratch;
        // Once the pool is full, what is beyond its last entry need not be compared.
        if pool.len() == self.limits.ef {
            let count = fresh.len();
            let limit = pool[pool.len() - 1].distance;
            if self.comparison.drop_far(limit, fresh, bounds) {
                visits.bounds += count;
            }
        }
        let count = fresh.len();
        visits.distances += count;
        for &node in self.scratch.fresh.iter().take(self.ahead) {
            self.comparison.prefetch(node);
        }
        for i in 0..count {
            if let Some(&later) = self.scratch.fresh.get(i + self.ahead) {
                self.comparison.prefetch(later);
            }
            let node = self.scratch.fresh[i];
            self.keep(Entry::new(self.comparison.distance(node), node));
        }
    }

    /// Puts an entry into the pool if it is among the `ef` nearest.
    #[inline(always)]
    fn keep(&mut self, entry: Entry) {
        let pool = &mut self.scratch.pool;
        if pool.len() == self.limits.ef {
            if !entry.is_before(&pool[pool.len() - 1]) {
                return;
            }
            pool.pop();
        }
        let at = pool.partition_point(|other| other.is_before(&entry));
        pool.insert(at, entry);
        self.next = self.next.min(at);
    }
}
