//! From near neighbours to the ONNG: degrees adjusted, and edges left out that a path replaces.

use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::graph::links::Links;
use crate::index::support::pruned_rows::PrunedRows;
use crate::vectors::Vectors;

/// An edge: the bits of its length (not negative: they order as it does), and where it leads; ties by that.
type Edge = (u32, u32);

/// Links positions, given about the nearest rows of each row, by id.
///
/// Each node gets edges to its `outgoing` nearest and from its `incoming` nearest (algorithm 2 of the paper); then paths are adjusted.
/// Edges are sorted, shortest first.
pub fn link(rows: &PrunedRows, near: &[Vec<u32>], outgoing: usize, incoming: usize) -> Links {
    let ids = rows.ids();
    let mut positions = vec![0u32; ids.len()];
    ids.iter()
        .zip(0..)
        .for_each(|(&id, position)| positions[id as usize] = position);
    let measure = |(position, id): (usize, &u32)| {
        edges(rows.rows(), position, &near[*id as usize], &positions)
    };
    let near: Vec<Vec<Edge>> = ids.par_iter().enumerate().map(measure).collect();

    let mut graph: Vec<Vec<Edge>> = near
        .iter()
        .map(|edges| edges[..outgoing.min(edges.len())].to_vec())
        .collect();
    for (position, edges) in near.iter().enumerate() {
        for &(length, other) in edges.iter().take(incoming) {
            graph[other as usize].push((length, position as u32));
        }
    }
    graph.par_iter_mut().for_each(|edges| {
        edges.sort_unstable();
        edges.dedup();
    });
    adjust_paths(&graph)
}

/// The edges from `position` to the rows `near`, shortest first.
fn edges(rows: &Vectors, position: usize, near: &[u32], positions: &[u32]) -> Vec<Edge> {
    let ranker = Ranker::new(rows, Metric::Euclidean, rows.row(position));
    let edge = |&id: &u32| {
        let other = positions[id as usize];
        (
            (ranker.reduced(other as usize).sqrt() as f32).to_bits(),
            other,
        )
    };
    let mut edges: Vec<Edge> = near.iter().map(edge).collect();
    edges.sort_unstable();
    edges
}

/// Leaves out each edge that a path over a shorter kept edge of its node and another shorter edge replaces (algorithm 3 of the paper).
///
/// The second edge may itself be left out, but only for a path of edges that are shorter still: whatever could be reached can be reached,
/// and no node needs to wait for another.
fn adjust_paths(graph: &[Vec<Edge>]) -> Links {
    const NONE: u32 = u32::MAX;
    let adjust = |place: &mut Vec<u32>, edges: &Vec<Edge>| {
        // Where in `edges` a node is.
        place.resize(graph.len(), NONE);
        edges
            .iter()
            .zip(0..)
            .for_each(|(&(_, to), at)| place[to as usize] = at);
        let mut kept = vec![true; edges.len()];
        let Some(&longest) = edges.last() else {
            return Vec::new();
        };
        for (at, &first) in edges.iter().enumerate() {
            if !kept[at] {
                continue;
            }
            for &second in graph[first.1 as usize]
                .iter()
                .take_while(|second| second.0 < longest.0)
            {
                let direct = place[second.1 as usize];
                if direct != NONE && edges[direct as usize].0 > first.0.max(second.0) {
                    kept[direct as usize] = false;
                }
            }
        }
        edges.iter().for_each(|&(_, to)| place[to as usize] = NONE);
        let kept = edges.iter().zip(kept).filter(|&(_, kept)| kept);
        kept.map(|(&(_, to), _)| to).collect::<Vec<u32>>()
    };
    let lists: Vec<Vec<u32>> = graph.par_iter().map_init(Vec::new, adjust).collect();
    Links::new(lists)
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
