//! The graph: near neighbours, thinned until no edge is a detour, and all within reach.
//!
//! ```text
//! near neighbours    about the 100 nearest of each vector, by code   (near_rows.rs)
//! thin               an edge that a nearer neighbour makes needless goes
//! add the reverse    so that each vector can be reached from those that it leads to
//! thin again         down to 32 edges
//! once more          where near ones were missed: from those that walks find    (refine.rs)
//! within reach       what no walk can come by gets an edge, or is made a seed
//! ```

use rayon::prelude::*;

use super::QuantizedGraphParams;
use super::refine;
use super::seeds::{Groups, Seeds};
use super::walk::Network;
use crate::index::graph::code_plan::Plan;
use crate::index::graph::codes::Encoder;
use crate::index::graph::near_rows::{Near, Neighborhoods, order_from};
use crate::index::parts::{PartError, elements, expect, expect_below, expect_each_once, saved};
use crate::progress::Stage;
use crate::simd::graph_codes::{self, CodeLine, Format, Query};
use crate::vectors::Vectors;

/// Edges of a node: 32 numbers of four bytes are two cache lines.
pub const DEGREE: usize = 32;

/// A node's neighbours. A list that is shorter ends with the node itself, repeated: a walk has met
/// it already, so that costs nothing and needs no test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Edges(pub [u32; DEGREE]);

impl Edges {
    /// From `node` to some others, of which the first [`DEGREE`] count.
    pub fn to(node: u32, others: Vec<Near>) -> Self {
        // Places without another keep the node itself.
        let mut edges = Self([node; DEGREE]);
        for (edge, (_, other)) in edges.0.iter_mut().zip(others) {
            *edge = other;
        }
        edges
    }

    /// The neighbours of `node`, whose list this is.
    pub fn others(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied().filter(move |&edge| edge != node)
    }

    /// The first place that holds no neighbour of `node`, whose list this is.
    fn room(&self, node: u32) -> Option<usize> {
        self.0.iter().position(|&edge| edge == node)
    }
}

/// What a walk needs. Vectors are numbered by *position*: see [`Neighborhoods`].
#[derive(Debug)]
pub struct Graph {
    pub encoder: Encoder,
    /// The base's row numbers by position.
    pub ids: Vec<u32>,
    /// The codes by position, each of as many lines as the graph was built with.
    pub codes: Vec<CodeLine>,
    pub edges: Vec<Edges>,
    /// Positions where a walk may begin: the vector nearest to each cluster's centroid, and those
    /// that could not be reached otherwise. Group after group.
    pub seeds: Vec<u32>,
    pub seed_codes: Vec<CodeLine>,
    /// See [`Seeds`].
    pub seed_groups: Option<Groups>,
    /// By how much a code's distances are off, in units of the code: see [`Plan::error`].
    pub error: f32,
}

elements!(Edges as [u32; DEGREE]);

saved!(Graph {
    encoder,
    ids,
    codes,
    edges,
    seeds,
    seed_codes,
    seed_groups,
    error
});

impl Graph {
    /// Refuses what is not a graph over `rows` vectors of dimension `dim`.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, rows: usize, dim: usize) -> Result<(), PartError> {
        self.encoder.check(dim)?;
        let lines = self.encoder.format().lines;
        expect(self.ids.len() == rows, "ids", "one for each vector")?;
        expect_each_once(&self.ids, "ids")?;
        expect(
            self.codes.len() == rows * lines,
            "codes",
            "one for each vector",
        )?;
        expect(self.edges.len() == rows, "edges", "a list for each vector")?;
        for edges in &self.edges {
            expect_below(&edges.0, rows, "edges")?;
        }
        expect(!self.seeds.is_empty(), "seeds", "at least one")?;
        expect_below(&self.seeds, rows, "seeds")?;
        let seed_codes = self.seeds.len() * lines;
        expect(
            self.seed_codes.len() == seed_codes,
            "seed_codes",
            "one for each seed",
        )?;
        match &self.seed_groups {
            Some(groups) => groups.check(self.seeds.len(), lines),
            None => Ok(()),
        }
    }

    /// What a walk reads. `LINES` is the length of the codes in cache lines.
    pub fn network<const LINES: usize>(&self) -> Network<'_, LINES> {
        Network {
            codes: self.codes.as_chunks().0,
            edges: &self.edges,
            seeds: Seeds {
                positions: &self.seeds,
                codes: self.seed_codes.as_chunks().0,
                groups: self.seed_groups.as_ref(),
            },
            error: self.error,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.encoder.memory_bytes()
            + size_of_val(&*self.ids)
            + size_of_val(&*self.codes)
            + size_of_val(&*self.edges)
            + size_of_val(&*self.seeds)
            + size_of_val(&*self.seed_codes)
            + self.seed_groups.as_ref().map_or(0, Groups::memory_bytes)
    }
}

/// The most edges to nodes whose codes are alike. Half of the list is left for ways out.
const MOST_ALIKE: usize = DEGREE / 2;

/// Builds the graph over codes of `LINES` cache lines, the same on any number of threads.
pub fn build<const LINES: usize>(
    base: &Vectors,
    plan: &Plan,
    params: &QuantizedGraphParams,
) -> Graph {
    let neighborhoods = Neighborhoods::find::<LINES>(base, plan, params.seed);
    let mut edges = link::<LINES>(&neighborhoods, params);
    if refine::is_worth_it(&neighborhoods, &plan.sample) {
        edges = refine::refine::<LINES>(&neighborhoods, edges, params);
    }
    let mut seeds = neighborhoods.central.clone();
    bring_within_reach(&mut edges, &mut seeds, |position| {
        neighborhoods.near::<LINES>(position, params.candidates)
    });
    let (seeds, seed_groups) = Groups::of(&Codes::<LINES>::of(&neighborhoods), seeds);
    let ids = neighborhoods.ids().to_vec();
    // `codes` is flat, so that the type of the graph does not depend on LINES. This is the same
    // memory, one array a vector.
    let Neighborhoods {
        encoder,
        mut codes,
        tails,
        ..
    } = neighborhoods;
    // So far the codes were compared with each other; from here on, queries are.
    encoder.set_tails(&mut codes, &tails);
    let seed_codes = copy_of(codes.as_chunks::<LINES>().0, &seeds);
    let error = (plan.error * encoder.scale()) as f32;
    Graph {
        encoder,
        ids,
        codes,
        edges,
        seeds,
        seed_codes: seed_codes.into_flattened(),
        seed_groups,
        error,
    }
}

/// The codes of some positions, in one run of memory: comparing them is a scan, and no read here
/// and there.
pub fn copy_of<const LINES: usize>(
    codes: &[[CodeLine; LINES]],
    positions: &[u32],
) -> Vec<[CodeLine; LINES]> {
    let of = |&position: &u32| codes[position as usize];
    positions.iter().map(of).collect()
}

/// The codes of all positions, and what they hold.
pub struct Codes<'a, const LINES: usize> {
    pub codes: &'a [[CodeLine; LINES]],
    format: Format,
    /// Codes at most so far from each other may be those of equal vectors: see
    /// [`Encoder::rounding`].
    alike: u32,
}

impl<'a, const LINES: usize> Codes<'a, LINES> {
    pub fn of(neighborhoods: &'a Neighborhoods) -> Self {
        Self {
            codes: neighborhoods.codes.as_chunks().0,
            format: neighborhoods.encoder.format(),
            alike: neighborhoods.encoder.rounding() as u32,
        }
    }

    /// The code of a position, in the form in which others are compared with it.
    pub fn query(&self, position: u32) -> Query<LINES> {
        Query::of_code(self.format, &self.codes[position as usize])
    }

    /// Others at their distance to a position, nearest first.
    pub fn near(&self, position: u32, others: &[u32]) -> Vec<Near> {
        let mut distances = Vec::with_capacity(others.len());
        graph_codes::score(&self.query(position), self.codes, others, &mut distances);
        let mut near: Vec<Near> = distances.into_iter().zip(others.iter().copied()).collect();
        near.sort_unstable_by_key(order_from(position));
        near
    }
}

/// The first pass: thins the near vectors of the clusters, adds each edge's reverse, and thins
/// again.
pub fn link<const LINES: usize>(
    neighborhoods: &Neighborhoods,
    params: &QuantizedGraphParams,
) -> Vec<Edges> {
    let codes = &Codes::<LINES>::of(neighborhoods);
    let alpha = params.alpha as f32;
    let out = neighborhoods.each::<LINES, _>(params.candidates, |position, near| {
        Edges::to(position, thin(codes, position, near, alpha))
    });
    settle(codes, &out, alpha)
}

/// Adds the reverse of each edge, and chooses among all.
pub fn settle<const LINES: usize>(
    codes: &Codes<'_, LINES>,
    out: &[Edges],
    alpha: f32,
) -> Vec<Edges> {
    // Both without distances: these would double their memory, and are soon computed again.
    let (starts, reverse) = reversed(out);
    let stage = Stage::new("edges", out.len());
    let settle = |position: usize| {
        stage.advance(1);
        // These may be very many: a vector in the middle of the data is near to many.
        // `choose_edges` brings them down to DEGREE.
        let back = &reverse[starts[position]..starts[position + 1]];
        let mut others: Vec<u32> = out[position].others(position as u32).collect();
        others.extend(back);
        // An edge may be there twice, once of the node itself and once as a reverse.
        others.sort_unstable();
        others.dedup();
        choose_edges(codes, position as u32, &others, alpha)
    };
    (0..out.len()).into_par_iter().map(settle).collect()
}

/// The edges in the other direction: those that come out of node i are at
/// `starts[i]..starts[i + 1]` of the list.
fn reversed(out: &[Edges]) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; out.len() + 1];
    for (position, edges) in out.iter().enumerate() {
        for other in edges.others(position as u32) {
            starts[other as usize + 1] += 1;
        }
    }
    for node in 0..out.len() {
        starts[node + 1] += starts[node];
    }
    let mut reverse = vec![0; starts[out.len()]];
    // Where the next edge of each node goes.
    let mut next = starts.clone();
    for (position, edges) in out.iter().enumerate() {
        for other in edges.others(position as u32) {
            reverse[next[other as usize]] = position as u32;
            next[other as usize] += 1;
        }
    }
    (starts, reverse)
}

/// The edges of `node`: to all others if there is room, otherwise to those that [`thin`] keeps and,
/// where room is left, to the nearest of the rest.
fn choose_edges<const LINES: usize>(
    codes: &Codes<'_, LINES>,
    node: u32,
    others: &[u32],
    alpha: f32,
) -> Edges {
    let mut candidates = codes.near(node, others);
    // `thin` may keep fewer than DEGREE. A list takes two cache lines whatever it holds, so the
    // places left are given to the nearest of the others.
    if candidates.len() > DEGREE {
        let mut kept = thin(codes, node, &candidates, alpha);
        candidates.retain(|candidate| !kept.contains(candidate));
        kept.extend(candidates.into_iter().take(DEGREE - kept.len()));
        candidates = kept;
    }
    Edges::to(node, candidates)
}

/// Keeps up to [`DEGREE`] of the candidates for `node`, which ascend by distance. A candidate is
/// left out if a kept one is nearer to it than the node is, by a factor of `alpha` of squared
/// distances.
///
/// ```text
///   node @-----------o kept      x is nearer to the kept vector than to the node. A walk that
///                    |           goes to the kept one finds x among its neighbours, and an edge
///                    x left out  from the node to x would save it little.
/// ```
///
/// This is Vamana's RobustPrune. With alpha = 1 it is the rule of HNSW's heuristic and of NSG. But
/// of nodes whose codes are like the node's, none counts as a detour: all of a clump would be left
/// out but one.
pub fn thin<const LINES: usize>(
    codes: &Codes<'_, LINES>,
    node: u32,
    candidates: &[Near],
    alpha: f32,
) -> Vec<Near> {
    let alike = candidates.partition_point(|&(distance, _)| distance <= codes.alike);
    let (alike, others) = candidates.split_at(alike);
    let mut kept = next_of(node, alike);
    // The codes of what is kept lie together, so that a candidate is compared with all of them in
    // one scan.
    let mut kept_codes = Vec::with_capacity(DEGREE);
    kept_codes.extend(kept.iter().map(|&(_, kept)| codes.codes[kept as usize]));
    let mut to_kept = Vec::with_capacity(DEGREE);
    for &(distance, candidate) in others {
        to_kept.clear();
        graph_codes::scan(&codes.query(candidate), &kept_codes, &mut to_kept);
        // Candidates ascend by distance, so all in `kept` are nearer to the node than this one.
        // Both numbers are squared distances: an alpha of 1.1 is a factor of 1.05 in length.
        let is_detour = |&to_kept: &u32| alpha * to_kept as f32 <= distance as f32;
        if to_kept.iter().any(is_detour) {
            continue;
        }
        kept.push((distance, candidate));
        kept_codes.push(codes.codes[candidate as usize]);
        if kept.len() == DEGREE {
            break;
        }
    }
    kept
}

/// Of nodes whose codes are alike those with the next positions, at most [`MOST_ALIKE`]. Their
/// distances say too little: by these, most of a clump would have an edge to the same few.
fn next_of(node: u32, alike: &[Near]) -> Vec<Near> {
    let mut next = alike.to_vec();
    next.sort_unstable_by_key(|&(_, other)| other.wrapping_sub(node));
    next.truncate(MOST_ALIKE);
    next
}

/// Makes every vector reachable from the seeds. One that is not gets an edge from the nearest of
/// its near vectors that is reachable and has room for an edge. Where there is none, it becomes a
/// seed.
///
/// `near` finds the near vectors of one, nearest first. It is asked for few.
fn bring_within_reach(edges: &mut [Edges], seeds: &mut Vec<u32>, near: impl Fn(u32) -> Vec<Near>) {
    let mut reached = vec![false; edges.len()];
    for &seed in &*seeds {
        explore(seed, edges, &mut reached);
    }
    for position in 0..edges.len() as u32 {
        if reached[position as usize] {
            continue;
        }
        // A place that holds an edge is not taken: whatever is reached by that edge alone would be
        // lost. The nearest with room is the first.
        let with_room = near(position).into_iter().find_map(|(_, other)| {
            let room = edges[other as usize].room(other)?;
            reached[other as usize].then_some((other, room))
        });
        match with_room {
            Some((other, room)) => edges[other as usize].0[room] = position,
            None => seeds.push(position),
        }
        // Either way it can now be reached, and so can all that it leads to. Each vector is
        // expanded once over all calls, so this is O(n · DEGREE) in total.
        explore(position, edges, &mut reached);
    }
}

/// Marks all that can be reached from `start`.
fn explore(start: u32, edges: &[Edges], reached: &mut [bool]) {
    // A list of our own instead of recursion: a path may be as long as there are vectors. Padding
    // leads to the node itself, which is marked by then.
    let mut pending = vec![start];
    while let Some(position) = pending.pop() {
        if !std::mem::replace(&mut reached[position as usize], true) {
            pending.extend_from_slice(&edges[position as usize].0);
        }
    }
}
