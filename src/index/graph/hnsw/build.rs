//! The build: nodes go into the graph in batches, each searched for in the graph of those before.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::HnswParams;
use super::layer::Layer;
use super::nodes::Nodes;
use super::walk::{Entry, Limits, Scratch, Walk, descend};

/// A batch is at most one node in so many. The nodes of a batch do not see each other; with 2 % at
/// a time the graph is as good as with one by one (Manohar et al., §4.1).
const BATCHES: usize = 50;

/// How much nearer a kept neighbour must be to a candidate than the node is, to leave it out: a
/// factor of squared distances.
const ALPHA: f64 = 1.0;

/// The order of insertion: `groups` shuffled by the seed.
pub fn shuffle(groups: &mut [Vec<u32>], seed: u64) {
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
}

/// The layers of the graph over `nodes`, the lowest first.
pub fn build(nodes: &Nodes, params: &HnswParams) -> Vec<Layer> {
    let mut layers = empty_layers(nodes.len(), params.m);
    let largest = nodes.len().div_ceil(BATCHES);
    let mut done = 1;
    while done < nodes.len() {
        let batch = done as u32..(done + done.min(largest)).min(nodes.len()) as u32;
        done = batch.end as usize;
        insert(nodes, params, &mut layers, batch);
    }
    for layer in &mut layers {
        bring_within_reach(nodes, params, layer);
    }
    layers
}

/// Each layer has the first so many nodes: an m-th of the one below, down to m.
fn empty_layers(nodes: usize, m: usize) -> Vec<Layer> {
    let mut layers = vec![Layer::new(nodes, 2 * m)];
    let mut size = nodes / m;
    while size > 1 {
        layers.push(Layer::new(size, m));
        size /= m;
    }
    layers
}

/// A node and the nodes that it is to be linked to, on one layer.
type Linked = (u32, Vec<u32>);

fn insert(nodes: &Nodes, params: &HnswParams, layers: &mut [Layer], batch: std::ops::Range<u32>) {
    let links: Vec<Vec<Vec<u32>>> = batch
        .clone()
        .into_par_iter()
        .map_init(Scratch::default, |scratch, node| {
            links_of_new(nodes, params, layers, node, scratch)
        })
        .collect();
    for (level, layer) in layers.iter_mut().enumerate() {
        let mut reverse: Vec<(u32, u32)> = Vec::new();
        for (node, lists) in batch.clone().zip(&links) {
            if let Some(list) = lists.get(level) {
                layer.set(node, list);
                reverse.extend(list.iter().map(|&target| (target, node)));
            }
        }
        reverse.par_sort_unstable();
        let groups: Vec<&[(u32, u32)]> = reverse.chunk_by(|a, b| a.0 == b.0).collect();
        let lists: Vec<Linked> = groups
            .into_par_iter()
            .map(|group| with_reverse(nodes, layer, group))
            .collect();
        for (node, list) in lists {
            layer.set(node, &list);
        }
    }
}

/// What a new node is to be linked to on each of its layers, the lowest first.
fn links_of_new(
    nodes: &Nodes,
    params: &HnswParams,
    layers: &[Layer],
    node: u32,
    scratch: &mut Scratch,
) -> Vec<Vec<u32>> {
    let comparison = nodes.comparison(nodes.row(node));
    let mut entry = 0;
    let mut lists = Vec::new();
    for layer in layers.iter().rev() {
        if node as usize >= layer.len() {
            entry = descend(layer, &comparison, entry, &mut scratch.visits);
            continue;
        }
        let limits = Limits {
            ef: params.ef_construction,
            at_least: 0,
        };
        let found = Walk::run(layer, &comparison, entry, limits, scratch);
        entry = found[0].node;
        lists.push(select(nodes, found, params.m));
    }
    lists.reverse();
    lists
}

/// Up to `most` of the candidates, which ascend by distance: algorithm 4.
fn select(nodes: &Nodes, candidates: &[Entry], most: usize) -> Vec<u32> {
    let mut kept: Vec<u32> = Vec::with_capacity(most);
    for candidate in candidates {
        let comparison = nodes.comparison(nodes.row(candidate.node));
        let is_detour = |&other: &u32| ALPHA * comparison.distance(other) < candidate.distance;
        if !kept.iter().any(is_detour) {
            kept.push(candidate.node);
            if kept.len() == most {
                break;
            }
        }
    }
    kept
}

/// The links of a node with those to the nodes that are newly linked to it.
fn with_reverse(nodes: &Nodes, layer: &Layer, group: &[(u32, u32)]) -> Linked {
    let node = group[0].0;
    let mut list = layer.links(node).to_vec();
    list.extend(group.iter().map(|&(_, new)| new));
    if list.len() > layer.places() {
        let comparison = nodes.comparison(nodes.row(node));
        let measure = |&other: &u32| Entry::new(comparison.distance(other), other);
        let mut candidates: Vec<Entry> = list.iter().map(measure).collect();
        candidates
            .sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.node.cmp(&b.node)));
        list = select(nodes, &candidates, layer.places());
    }
    (node, list)
}

/// Links every node that no walk from node 0 can come by from a near one that it can.
fn bring_within_reach(nodes: &Nodes, params: &HnswParams, layer: &mut Layer) {
    let mut reached = vec![false; layer.len()];
    explore(layer, 0, &mut reached);
    let mut scratch = Scratch::default();
    for node in 0..layer.len() as u32 {
        if reached[node as usize] {
            continue;
        }
        let comparison = nodes.comparison(nodes.row(node));
        let limits = Limits {
            ef: params.ef_construction,
            at_least: 0,
        };
        let found = Walk::run(layer, &comparison, 0, limits, &mut scratch);
        let has_room = |entry: &&Entry| layer.links(entry.node).len() < layer.places();
        let from = found.iter().find(has_room).unwrap_or(&found[0]).node;
        link_over(layer, from, node);
        explore(layer, node, &mut reached);
    }
}

/// Links `from` to `node`. Where `from` has no place left, `node` takes that of its last link and
/// leads on to where that led, so that all stays within reach. No walk came by `node` before, so
/// whatever its own last link led to did not depend on it.
fn link_over(layer: &mut Layer, from: u32, node: u32) {
    let mut list = layer.links(from).to_vec();
    if list.len() == layer.places() {
        let last = list.pop().expect("at least one place");
        let mut on = layer.links(node).to_vec();
        if !on.contains(&last) {
            on.truncate(layer.places() - 1);
            on.push(last);
            layer.set(node, &on);
        }
    }
    list.push(node);
    layer.set(from, &list);
}

/// Marks all that can be reached from `start`.
fn explore(layer: &Layer, start: u32, reached: &mut [bool]) {
    let mut pending = vec![start];
    while let Some(node) = pending.pop() {
        if !std::mem::replace(&mut reached[node as usize], true) {
            pending.extend_from_slice(layer.of(node));
        }
    }
}
