//! The walk: from the nearest seeds to the nearest vectors, by codes alone.
//!
//! ```text
//! pool = the 4 nearest seeds of the 4 nearest groups   (seeds.rs)
//! while the nearest of pool that is not expanded is within reach, or codes are on their way:
//!     expand it and, after the first steps, the two after it; that is, in this order:
//!         compare the neighbours of those expanded one round before, if they were not met
//!         ask the memory for the codes of the neighbours of these
//!         keep in pool what was compared and is nearer than pool's last
//! ```
//!
//! The cost is what has to come from memory. So several vectors are expanded at once, and their
//! neighbours are compared a round later: the edges arrive while the neighbours of the round before
//! are compared, the codes while these are kept. And whether a vector was met is no branch, for it
//! is a coin toss that the processor cannot foresee.

use std::ops::Range;
use std::slice::from_ref;

use super::build::{DEGREE, Edges, Graph};
use super::seeds::Seeds;
use crate::index::graph::near_rows::Near;
use crate::index::support::projection::ProjectedQuery;
use crate::simd;
use crate::simd::graph_codes::{self, CodeLine, Query};

/// Seeds that a walk begins with, and groups of seeds that they are looked for in. A single one may
/// lie in a part of the graph from which the way is long.
const STARTS: usize = 4;
/// Vectors that are expanded at once, so that the memory has more to bring meanwhile. More would
/// expand vectors that the first's neighbours make needless.
const TOGETHER: usize = 3;
/// Vectors that are expanded one by one at the beginning. There, nearly each expansion finds
/// something nearer, and the second best of the pool is a bad choice a moment later.
const ALONE: usize = 12;
/// The vectors that will probably be expanded next are looked for among so many entries of the
/// pool.
const LOOK_AHEAD: usize = 8;

/// The length of a step of a code, in its units: see `WEIGHT` in [`codes`](super::super::codes).
const STEP: f32 = 8.0;

/// Entries are compared exactly within so many standard deviations of the codes' error beyond the
/// k-th: of a thousand normal errors, one is greater.
const ERRORS_COMPARED: f32 = 3.0;

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries that the pool holds at most; at least k.
    pub ef: usize,
    /// The radius of the walk is that of so many nearest, at least 1.
    pub k: usize,
    /// What is estimated to be farther than `reach` times the k-th nearest is not expanded.
    pub reach: f32,
    /// A position that counts as met from the beginning, so that it is never found.
    pub left_out: Option<u32>,
}

/// What is walked: a [`Graph`], or one that is still being built. `LINES` is the length of its
/// codes in cache lines.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a, const LINES: usize> {
    /// By position, as the edges.
    pub codes: &'a [[CodeLine; LINES]],
    pub edges: &'a [Edges],
    pub seeds: Seeds<'a, LINES>,
    /// By how much a code's distances are off, in units of the code.
    pub error: f32,
}

/// What a walk works with. A thread keeps it, so that a query allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    projected: ProjectedQuery,
    visited: Visited,
    pool: Vec<Entry>,
    /// The groups of seeds nearest to the query, nearest first.
    groups: Vec<Entry>,
    /// Of the codes compared last.
    distances: Vec<u32>,
}

/// A vector in the pool: ordered by its estimated squared distance, then by position. Its lowest
/// bit says whether it has been expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u64);

impl Entry {
    /// After all others.
    const LAST: Self = Self(u64::MAX);

    fn new(distance: u32, position: u32) -> Self {
        // Positions fit in 31 bits: a graph of more nodes would not fit in memory by far.
        Self(u64::from(distance) << 32 | u64::from(position) << 1)
    }

    fn distance(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where the vector stands in the graph.
    pub fn position(self) -> usize {
        (self.0 as u32 >> 1) as usize
    }

    /// The vector at its estimated squared distance.
    pub fn near(self) -> Near {
        (self.distance(), self.position() as u32)
    }

    /// The last entry at `reach` times this one's distance and `margin` units of the code more.
    fn beyond(self, reach: f32, margin: f32) -> Self {
        // `reach` and `margin` belong to lengths, and an entry has a square. The root is taken, and
        // the result squared again. A square beyond 32 bits becomes the largest number: nothing is
        // out of reach then.
        let radius = reach * (self.distance() as f32).sqrt() + margin;
        // The largest position: all vectors at just this distance come before the limit.
        Self::new((radius * radius) as u32, u32::MAX >> 1)
    }

    fn is_expanded(self) -> bool {
        self.0 & 1 == 1
    }

    fn mark_expanded(&mut self) {
        self.0 |= 1;
    }
}

/// Which positions this walk has met.
///
/// Each position has a byte with the number of the last walk that met it. A bit would be smaller,
/// but bits must be cleared for each walk, and two updates of one word wait for each other.
#[derive(Debug, Default)]
struct Visited {
    last_walk: Vec<u8>,
    this_walk: u8,
}

impl Visited {
    /// Begins another walk over `len` positions. Every 255 walks the bytes are set back to zero.
    fn begin(&mut self, len: usize) {
        // The thread may have searched another graph before. If that had as many vectors, its marks
        // do no harm: they are numbers of earlier walks. Zero is the number of no walk.
        if self.last_walk.len() != len || self.this_walk == u8::MAX {
            self.last_walk.clear();
            self.last_walk.resize(len, 0);
            self.this_walk = 0;
        }
        self.this_walk += 1;
    }

    /// Meets `position`; returns whether that is for the first time in this walk.
    #[inline(always)]
    fn meet(&mut self, position: u32) -> bool {
        let last = std::mem::replace(&mut self.last_walk[position as usize], self.this_walk);
        last != self.this_walk
    }
}

/// Up to `N` positions.
struct Few<const N: usize> {
    positions: [u32; N],
    len: usize,
}

impl<const N: usize> Few<N> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            positions: [0; N],
            len: 0,
        }
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    fn as_slice(&self) -> &[u32] {
        &self.positions[..self.len]
    }
}

/// Keeps in `nearest`, which ascends, the first [`STARTS`] of what it holds and of `entry`.
#[inline(always)]
fn keep_nearest(nearest: &mut Vec<Entry>, entry: Entry) {
    // Insertion into a sorted list of four: cheaper than sorting all. Where the list is full,
    // `truncate` drops its last; otherwise it changes nothing.
    if nearest.len() < STARTS || entry < nearest[STARTS - 1] {
        nearest.truncate(STARTS - 1);
        let nearer = nearest.iter().take_while(|&&other| other <= entry).count();
        nearest.insert(nearer, entry);
    }
}

/// Walks until nothing within reach is left to expand. Returns what was found near the query,
/// nearest first. `LINES` is the length of the graph's codes in cache lines.
pub fn run<'a, const LINES: usize>(
    graph: &'a Graph,
    query: &[f32],
    limits: Limits,
    scratch: &'a mut Scratch,
) -> &'a [Entry] {
    let query = graph.encoder.query(query, &mut scratch.projected);
    Walk::<LINES>::run(graph.network(), query, limits, scratch)
}

/// One query on its way through the graph; `LINES` is the length of its codes in cache lines.
pub struct Walk<'a, const LINES: usize> {
    graph: Network<'a, LINES>,
    query: Query<LINES>,
    limits: Limits,
    visited: &'a mut Visited,
    /// What was found so far, nearest first. At most `limits.ef` entries, unless seeds have made it
    /// longer: then only `last_kept` limits it.
    pool: &'a mut Vec<Entry>,
    groups: &'a mut Vec<Entry>,
    distances: &'a mut Vec<u32>,
    /// All entries of the pool before this one have been expanded.
    next: usize,
    /// Vectors expanded so far.
    expanded: usize,
    /// Whether the pool has had all seeds.
    all_seeds: bool,
    /// Entries after this one are not worth keeping, as of the last look at the k-th nearest.
    last_kept: Entry,
}

impl<'a, const LINES: usize> Walk<'a, LINES> {
    /// Walks until nothing within reach is left to expand. Returns what was found near the query,
    /// nearest first.
    ///
    /// The parts below are inlined into this one: they pass the state of the walk in registers.
    pub fn run(
        graph: Network<'a, LINES>,
        query: Query<LINES>,
        limits: Limits,
        scratch: &'a mut Scratch,
    ) -> &'a [Entry] {
        let mut walk = Self::begin(graph, query, limits, scratch);
        // A buffer for all rounds: a new one each time would be filled with zeros each time.
        let new = &mut Few::new();
        let mut asked_for = Few::new();
        loop {
            let batch = walk.nearest_to_expand();
            if batch.is_empty() && asked_for.is_empty() && !walk.start_from_other_seeds() {
                return walk.into_pool();
            }
            walk.neighbors_not_met(&asked_for, new);
            // First the edges for the next batch, then the distances of this one: the edges arrive
            // meanwhile.
            walk.prefetch_likely_next();
            walk.score(new);
            walk.ask_for_neighbors(&batch);
            walk.keep(new);
            asked_for = batch;
        }
    }

    /// A walk with the nearest seeds in its pool.
    #[inline(always)]
    fn begin(
        graph: Network<'a, LINES>,
        query: Query<LINES>,
        limits: Limits,
        scratch: &'a mut Scratch,
    ) -> Self {
        let mut walk = Self {
            graph,
            query,
            limits,
            visited: &mut scratch.visited,
            pool: &mut scratch.pool,
            groups: &mut scratch.groups,
            distances: &mut scratch.distances,
            next: 0,
            expanded: 0,
            all_seeds: false,
            last_kept: Entry::LAST,
        };
        walk.visited.begin(graph.codes.len());
        if let Some(position) = limits.left_out {
            walk.visited.meet(position);
        }
        walk.start_from_nearest_seeds();
        walk
    }

    /// Puts the nearest [`STARTS`] seeds of the nearest groups into the empty pool.
    #[inline(always)]
    fn start_from_nearest_seeds(&mut self) {
        self.pool.clear();
        match self.graph.seeds.groups {
            None => self.start_from(0..self.graph.seeds.positions.len()),
            Some(groups) => {
                groups.score_heads(&self.query, self.distances);
                self.groups.clear();
                for (group, &distance) in self.distances.iter().enumerate() {
                    keep_nearest(self.groups, Entry::new(distance, group as u32));
                }
                for nearest in 0..self.groups.len() {
                    self.start_from(groups.members(self.groups[nearest].position()));
                }
            }
        }
        // Only what is in the pool counts as met. A seed that is left out may still turn up as a
        // neighbour.
        for entry in &*self.pool {
            self.visited.meet(entry.position() as u32);
        }
    }

    /// Keeps in the pool the nearest [`STARTS`] of what it holds and of some seeds.
    #[inline(always)]
    fn start_from(&mut self, seeds: Range<usize>) {
        self.distances.clear();
        let codes = &self.graph.seeds.codes[seeds.clone()];
        graph_codes::scan(&self.query, codes, self.distances);
        let positions = &self.graph.seeds.positions[seeds];
        for (&seed, &distance) in positions.iter().zip(&*self.distances) {
            if self.limits.left_out != Some(seed) {
                keep_nearest(self.pool, Entry::new(distance, seed));
            }
        }
    }

    /// At the end of a walk that found fewer than k: puts the seeds into the pool that no expansion
    /// has come by. Returns whether there may be any.
    #[inline(always)]
    fn start_from_other_seeds(&mut self) -> bool {
        let is_due = self.pool.len() < self.limits.k && !self.all_seeds;
        if is_due {
            self.start_from_all_seeds();
        }
        is_due
    }

    #[cold]
    fn start_from_all_seeds(&mut self) {
        self.all_seeds = true;
        let Seeds {
            positions, codes, ..
        } = self.graph.seeds;
        self.distances.clear();
        graph_codes::scan(&self.query, codes, self.distances);
        for (&seed, &distance) in positions.iter().zip(&*self.distances) {
            if self.visited.meet(seed) {
                self.pool.push(Entry::new(distance, seed));
            }
        }
        self.pool.sort_unstable();
        // The new entries stand anywhere among the old, which are all expanded.
        self.next = 0;
        self.skip_expanded();
    }

    /// Takes the nearest vectors that are not expanded yet, or none if all within reach are. They
    /// are marked as expanded.
    #[inline(always)]
    fn nearest_to_expand(&mut self) -> Few<TOGETHER> {
        // Both limits depend on the k-th nearest, which may have changed with the last batch. They
        // are computed once for a batch and not for each vector.
        let last_expanded = self.last_to_expand();
        self.drop_the_farthest();

        let most = if self.expanded < ALONE { 1 } else { TOGETHER };
        let mut batch = Few::new();
        // `next` passes over what was expanded before something nearer turned up. The pool ascends,
        // so the first entry out of reach ends the batch; an empty batch ends the walk.
        while batch.len < most {
            match self.pool.get_mut(self.next) {
                Some(entry) if *entry <= last_expanded => {
                    self.next += 1;
                    if !entry.is_expanded() {
                        entry.mark_expanded();
                        batch.positions[batch.len] = entry.position() as u32;
                        batch.len += 1;
                    }
                }
                _ => break,
            }
        }
        self.expanded += batch.len;
        batch
    }

    /// The last entry that would be expanded: those after it are out of reach.
    #[inline(always)]
    fn last_to_expand(&self) -> Entry {
        match self.pool.get(self.limits.k - 1) {
            // A step of the code more: so much can rounding hide.
            Some(kth) => kth.beyond(self.limits.reach, STEP),
            None => Entry::LAST,
        }
    }

    /// Drops entries that are too far to be expanded and, allowing for the error of the codes, too
    /// far to be among the k nearest. Sets the same limit for those to come.
    #[inline(always)]
    fn drop_the_farthest(&mut self) {
        // A negative epsilon stops the walk before the k-th nearest. It must not drop any of the k
        // nearest from the answer, so the factor is at least 1 here. The margin is one standard
        // deviation of a code's error, and a step for rounding.
        self.last_kept = match self.pool.get(self.limits.k - 1) {
            Some(kth) => kth.beyond(self.limits.reach.max(1.0), STEP + self.graph.error),
            None => Entry::LAST,
        };
        // The pool ascends, so what is too far is at its end. The k-th itself is always within the
        // limit.
        while self.pool.last().is_some_and(|&last| last > self.last_kept) {
            self.pool.pop();
        }
        self.next = self.next.min(self.pool.len());
    }

    /// Asks the memory for the codes of all neighbours of `batch`, and for whether they were met.
    #[inline(always)]
    fn ask_for_neighbors(&self, batch: &Few<TOGETHER>) {
        let (codes, marks) = (self.graph.codes, &*self.visited.last_walk);
        for &position in batch.as_slice() {
            for &neighbor in &self.graph.edges[position as usize].0 {
                // Nothing waits here for whether it was met. If it was, its code is in a cache, and
                // to ask for it costs little.
                simd::prefetch(&codes[neighbor as usize]);
                simd::prefetch(from_ref(&marks[neighbor as usize]));
            }
        }
    }

    /// Writes to `new` the neighbours of `batch` that this walk has not met before.
    #[inline(always)]
    fn neighbors_not_met(&mut self, batch: &Few<TOGETHER>, new: &mut Few<{ TOGETHER * DEGREE }>) {
        // There is room for all neighbours of a full batch, so a write below never leaves the
        // array. A short list is filled up with the node itself, which was met when it came into
        // the pool.
        let mut len = 0;
        for &position in batch.as_slice() {
            for &neighbor in &self.graph.edges[position as usize].0 {
                // Without a branch on what was met, which the processor would guess wrong half the
                // time: the place is written in any case, and kept if the neighbour is new.
                new.positions[len] = neighbor;
                len += usize::from(self.visited.meet(neighbor));
            }
        }
        new.len = len;
    }

    /// Compares the query with the codes of `new`.
    #[inline(always)]
    fn score(&mut self, new: &Few<{ TOGETHER * DEGREE }>) {
        graph_codes::score(
            &self.query,
            self.graph.codes,
            new.as_slice(),
            self.distances,
        );
    }

    /// Puts into the pool what is near enough of `new`, which were scored.
    #[inline(always)]
    fn keep(&mut self, new: &Few<{ TOGETHER * DEGREE }>) {
        for (i, &position) in new.as_slice().iter().enumerate() {
            let entry = Entry::new(self.distances[i], position);
            if entry > self.last_kept {
                continue;
            }
            // A full pool: the new entry takes the place of the last, or is farther than that.
            if self.pool.len() == self.limits.ef {
                if entry > self.pool[self.limits.ef - 1] {
                    continue;
                }
                self.pool.pop();
            }
            // Binary search and a shift of what follows. A heap would not keep the order by which
            // the k-th is read at each batch.
            let at = self.pool.partition_point(|&other| other < entry);
            self.pool.insert(at, entry);
            // Something nearer than all that is left to expand: the walk goes back to it. Its edges
            // were not foreseen, so they are asked for now.
            if at < self.next {
                self.next = at;
                simd::prefetch(from_ref(&self.graph.edges[position as usize]));
            }
        }
        self.skip_expanded();
    }

    /// Asks the memory for the edges of the vectors that will be expanded next, if nothing nearer
    /// turns up.
    #[inline(always)]
    fn prefetch_likely_next(&self) {
        // After a step back, expanded entries stand among the first. So a few more entries are
        // looked at than will be expanded.
        let ahead = self.pool[self.next..].iter().take(LOOK_AHEAD);
        for entry in ahead.filter(|entry| !entry.is_expanded()).take(TOGETHER) {
            simd::prefetch(from_ref(&self.graph.edges[entry.position()]));
        }
    }

    #[inline(always)]
    fn skip_expanded(&mut self) {
        while self
            .pool
            .get(self.next)
            .is_some_and(|entry| entry.is_expanded())
        {
            self.next += 1;
        }
    }

    #[inline(always)]
    fn into_pool(mut self) -> &'a [Entry] {
        // The last batch may have brought the k-th nearer. What is dropped here need not be
        // compared exactly.
        self.drop_the_farthest();
        // A wide walk expands much that cannot be among the k nearest, whatever the codes' error.
        if let Some(kth) = self.pool.get(self.limits.k - 1) {
            let last = kth.beyond(1.0, STEP + ERRORS_COMPARED * self.graph.error);
            let within = self.pool.partition_point(|&entry| entry <= last);
            self.pool.truncate(within);
        }
        self.pool
    }
}
