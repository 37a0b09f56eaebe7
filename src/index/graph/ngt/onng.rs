//! From near neighbours to the ONNG: degrees adjusted, and edges left out that a path replaces.
//!
//! ```text
//! near rows of each row        100, by code
//! measure                      true lengths, shortest first
//! adjust the degrees           to the `outgoing` nearest, and from the `incoming` nearest
//! adjust the paths             an edge goes if two shorter ones lead to the same row
//! ```

use std::mem;

use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::graph::links::Links;
use crate::index::support::pruned_rows::PrunedRows;
use crate::progress::Stage;
use crate::vectors::Vectors;

/// An edge: the bits of its length, and where it leads. Lengths are not negative, so their bits,
/// read as whole numbers, have the same order; ties are ordered by where they lead.
type Edge = (u32, u32);

/// In a table of where a node stands among the edges of another: nowhere.
const NONE: u32 = u32::MAX;

/// Links positions, given about the nearest rows of each row, by id.
///
/// Each node gets edges to its `outgoing` nearest and from its `incoming` nearest (algorithm 2 of
/// the paper); then paths are adjusted. Edges are sorted, shortest first.
pub fn link(rows: &PrunedRows, mut near: Vec<Vec<u32>>, outgoing: usize, incoming: usize) -> Links {
    let ids = rows.ids();
    // `near` comes by id, and the graph is made by position. This table turns ids into positions.
    let mut positions = vec![0u32; ids.len()];
    for (position, &id) in ids.iter().enumerate() {
        positions[id as usize] = position as u32;
    }
    // Each list is given up for its edges: all together are several times as large as the index.
    let by_position = ids.iter().map(|&id| mem::take(&mut near[id as usize]));
    let by_position: Vec<Vec<u32>> = by_position.collect();
    let measure =
        |(position, near): (usize, Vec<u32>)| edges(rows.rows(), position, &near, &positions);
    let near: Vec<Vec<Edge>> = by_position
        .into_par_iter()
        .enumerate()
        .map(measure)
        .collect();
    adjust_paths(&adjusted_degrees(near, outgoing, incoming))
}

/// The edges of each node to its `outgoing` nearest and from its `incoming` nearest, shortest
/// first; `near` has them in that order, too.
fn adjusted_degrees(near: Vec<Vec<Edge>>, outgoing: usize, incoming: usize) -> Vec<Vec<Edge>> {
    // How many enter each node is counted first, so that no list grows beyond its edges.
    let mut entering = vec![0usize; near.len()];
    for &(_, other) in near.iter().flat_map(|edges| edges.iter().take(incoming)) {
        entering[other as usize] += 1;
    }
    // Out of each node: its nearest.
    let out_of = |(edges, entering): (&Vec<Edge>, usize)| {
        let leaving = &edges[..outgoing.min(edges.len())];
        let mut edges = Vec::with_capacity(leaving.len() + entering);
        edges.extend_from_slice(leaving);
        edges
    };
    let mut graph: Vec<Vec<Edge>> = near.iter().zip(entering).map(out_of).collect();
    // Into each node: from its nearest. The edge is entered at its other end, which may get very
    // many in this way; the paths are adjusted after.
    for (position, edges) in near.into_iter().enumerate() {
        for (length, other) in edges.into_iter().take(incoming) {
            graph[other as usize].push((length, position as u32));
        }
    }
    graph.par_iter_mut().for_each(|edges| {
        edges.sort_unstable();
        // Two rows may be among each other's nearest. Both copies have the same length and end, so
        // they stand side by side.
        edges.dedup();
    });
    graph
}

/// The edges from `position` to the rows `near`, shortest first.
fn edges(rows: &Vectors, position: usize, near: &[u32], positions: &[u32]) -> Vec<Edge> {
    // The near rows were chosen by code. Lengths are the true ones, since the order of the edges
    // decides which of them go.
    let ranker = Ranker::new(rows, Metric::Euclidean, rows.row(position));
    let mut edges = Vec::with_capacity(near.len());
    for &id in near {
        let other = positions[id as usize];
        let length = ranker.reduced(other as usize).sqrt() as f32;
        edges.push((length.to_bits(), other));
    }
    edges.sort_unstable();
    edges
}

/// Leaves out each edge that a path replaces: over a shorter kept edge of its node and another
/// shorter edge (algorithm 3 of the paper).
///
/// The second edge may itself be left out, but only for a path of edges that are shorter still. So
/// whatever could be reached can be reached, and each node can be done without waiting for another.
fn adjust_paths(graph: &[Vec<Edge>]) -> Links {
    let stage = Stage::new("edges", graph.len());
    let adjust = |place: &mut Vec<u32>, edges: &Vec<Edge>| {
        stage.advance(1);
        place.resize(graph.len(), NONE);
        without_detours(graph, edges, place)
    };
    let lists: Vec<Vec<u32>> = graph.par_iter().map_init(Vec::new, adjust).collect();
    Links::new(lists)
}

/// Where those of a node's `edges` lead that no path replaces.
///
/// `place` has a number for each node, all [`NONE`] before and after.
fn without_detours(graph: &[Vec<Edge>], edges: &[Edge], place: &mut [u32]) -> Vec<u32> {
    // No path can replace an edge unless both its edges are shorter than the longest.
    let Some(&(longest, _)) = edges.last() else {
        return Vec::new();
    };
    // `place` answers in one step whether this node has an edge to `to`. It is as long as the
    // graph, so it belongs to the thread and is only cleared where it was written.
    for (at, &(_, to)) in edges.iter().enumerate() {
        place[to as usize] = at as u32;
    }
    // Shortest first: whether the first edge of a path is kept is settled when its turn comes, for
    // only paths of shorter edges could have removed it.
    let mut is_kept = vec![true; edges.len()];
    for (at, &(first_length, middle)) in edges.iter().enumerate() {
        if !is_kept[at] {
            continue;
        }
        for &(second_length, to) in &graph[middle as usize] {
            // Edges ascend by length: no later one belongs to a path that replaces anything.
            if second_length >= longest {
                break;
            }
            // Is there an edge of this node to the same end, longer than both?
            let direct = place[to as usize];
            if direct != NONE && edges[direct as usize].0 > first_length.max(second_length) {
                is_kept[direct as usize] = false;
            }
        }
    }
    let mut kept = Vec::new();
    for (&(_, to), is_kept) in edges.iter().zip(is_kept) {
        place[to as usize] = NONE;
        if is_kept {
            kept.push(to);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(u32, u32, f32)], nodes: usize) -> Vec<Vec<Edge>> {
        let mut graph = vec![Vec::new(); nodes];
        edges
            .iter()
            .for_each(|&(from, to, length)| graph[from as usize].push((length.to_bits(), to)));
        graph.iter_mut().for_each(|edges| edges.sort_unstable());
        graph
    }

    #[test]
    fn a_detour_over_shorter_edges_replaces_an_edge() {
        let of = |edges: &[(u32, u32, f32)]| adjust_paths(&graph(edges, 3)).of(0).to_vec();
        assert_eq!(of(&[(0, 1, 1.0), (0, 2, 3.0), (1, 2, 2.0)]), [1]);
        assert_eq!(
            of(&[(0, 1, 1.0), (0, 2, 3.0), (1, 2, 3.0)]),
            [1, 2],
            "an edge as long"
        );
        assert_eq!(
            of(&[(0, 1, 3.0), (0, 2, 3.0), (1, 2, 1.0)]),
            [1, 2],
            "an edge as long"
        );
        assert_eq!(
            of(&[(0, 1, 1.0), (0, 2, 3.0), (2, 1, 2.0)]),
            [1, 2],
            "the wrong way"
        );
    }

    #[test]
    fn what_could_be_reached_can_be_reached() {
        let mut state = 1u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let reached = |edges: &dyn Fn(u32) -> Vec<u32>| {
            let (mut reached, mut queue) = (vec![false; 60], vec![0]);
            while let Some(node) = queue.pop() {
                if !std::mem::replace(&mut reached[node as usize], true) {
                    queue.extend(edges(node));
                }
            }
            reached
        };
        let mut fewer = 0;
        for _ in 0..50 {
            let edges: Vec<(u32, u32, f32)> = (0..240)
                .map(|_| (random(60), random(60), random(9) as f32))
                .collect();
            let graph = graph(&edges, 60);
            let links = adjust_paths(&graph);
            let before = reached(&|node| graph[node as usize].iter().map(|edge| edge.1).collect());
            assert_eq!(reached(&|node| links.of(node).to_vec()), before);
            fewer += (0..60)
                .filter(|&node| links.of(node).len() < graph[node as usize].len())
                .count();
        }
        assert!(fewer > 100, "{fewer}");
    }
}
