//! The build: nodes go into the graph in batches, each searched for in the graph of those before.
//!
//! ```text
//! search        each node of the batch, on each of its layers: near nodes, nearest first
//! select        of those, the ones that lead in different directions
//! reverse       each node linked to gets a link back; a list that is too long is selected again
//! at the end    a node that no walk can come by gets a link from a near one
//! ```

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::HnswParams;
use super::layer::Layer;
use super::nodes::Nodes;
use super::walk::{Entry, Limits, Scratch, Walk, descend};
use crate::progress::Stage;

/// A batch is at most one node in so many. The nodes of a batch do not see each other; with 2 % at
/// a time the graph is as good as with one by one (Manohar et al.).
const BATCHES: usize = 50;

/// By what factor of squared distances a candidate must be nearer to a chosen one than to the node,
/// to be left out. The paper has 1. A little more, as in Vamana, keeps a few links from a clump of
/// near rows to others. On features of 128 values 1.1 makes searches 15 % faster at recall .95; on
/// embeddings it makes them 10 % slower at .999 (`measure --sweep query`).
const ALPHA: f64 = 1.05;

/// A link that a new node makes: to which node, and from which.
type Link = (u32, u32);

/// The layers of the graph over `nodes`, the lowest first: the same on any number of threads.
pub fn build(nodes: &Nodes, params: &HnswParams) -> Vec<Layer> {
    let mut layers = empty_layers(nodes.len(), params.m);
    let largest = nodes.len().div_ceil(BATCHES);
    // Node 0 is in the graph from the start, as the entry of all layers.
    let mut done = 1;
    let stage = Stage::new("nodes", nodes.len() - 1);
    while done < nodes.len() {
        // No more than there are already: the first batches double.
        let end = (done + done.min(largest)).min(nodes.len());
        insert(nodes, params, &mut layers, done as u32..end as u32);
        stage.advance(end - done);
        done = end;
    }
    for layer in &mut layers {
        bring_within_reach(nodes, params, layer);
    }
    layers
}

/// The order of insertion: the groups of equal rows, shuffled.
pub fn shuffle(groups: &mut [Vec<u32>], seed: u64) {
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
}

/// Each layer has the first so many nodes: an m-th of the one below. The paper draws at random how
/// far up a node goes; the order of the nodes is random here, so the first are a random sample.
fn empty_layers(nodes: usize, m: usize) -> Vec<Layer> {
    // A node cannot have more links than there are others.
    let places = |most: usize| most.min(nodes - 1).max(1);
    let mut layers = vec![Layer::new(nodes, places(m.saturating_mul(2)))];
    let mut size = nodes / m;
    while size > 1 {
        layers.push(Layer::new(size, places(m)));
        size /= m;
    }
    layers
}

/// Links the nodes of a batch to those before, and back.
fn insert(nodes: &Nodes, params: &HnswParams, layers: &mut [Layer], batch: Range<u32>) {
    // All search in the graph as it is. Nothing changes until all have their links.
    let search = |scratch: &mut Scratch, node| links_of_new(nodes, params, layers, node, scratch);
    let searches = batch.clone().into_par_iter();
    let found: Vec<Vec<Vec<u32>>> = searches.map_init(Scratch::default, search).collect();
    for (level, layer) in layers.iter_mut().enumerate() {
        let mut links: Vec<Link> = Vec::new();
        for (node, lists) in batch.clone().zip(&found) {
            // A node that does not reach up to this layer has no list for it.
            if let Some(list) = lists.get(level) {
                layer.set(node, list);
                links.extend(list.iter().map(|&target| (target, node)));
            }
        }
        add_reverse(nodes, layer, links);
    }
}

/// What a new node is to be linked to on each of its layers, the lowest first: algorithm 1.
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
            entry = descend(layer, &comparison, entry, scratch);
            continue;
        }
        let limits = Limits::nearest(params.ef_construction);
        let found = Walk::run(layer, &comparison, entry, limits, scratch);
        entry = found[0].node;
        // As many as there are places. The paper takes half of them on the lowest layer; with all
        // of them a search of equal recall expands fewer nodes.
        lists.push(select(nodes, found, layer.places()));
    }
    lists.reverse();
    lists
}

/// Up to `most` of the candidates, which ascend by distance: algorithm 4.
///
/// A candidate is left out if a chosen one is nearer to it than the node is: a walk that goes to
/// the chosen one finds it from there.
fn select(nodes: &Nodes, candidates: &[Entry], most: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::with_capacity(most);
    for candidate in candidates {
        let leads_to = |&other: &u32| {
            let between = nodes.between(candidate.node, other);
            ALPHA * between < candidate.distance
        };
        if !chosen.iter().any(leads_to) {
            chosen.push(candidate.node);
            if chosen.len() == most {
                break;
            }
        }
    }
    chosen
}

/// Adds the reverses of new links, given as pairs (target, new node).
fn add_reverse(nodes: &Nodes, layer: &mut Layer, mut links: Vec<Link>) {
    // Those to one target together, in the order of the nodes that they come from.
    links.par_sort_unstable();
    let by_target: Vec<&[Link]> = links.chunk_by(|a, b| a.0 == b.0).collect();
    let lists: Vec<Vec<u32>> = by_target
        .par_iter()
        .map(|links| with_reverse(nodes, layer, links))
        .collect();
    for (links, list) in by_target.iter().zip(lists) {
        layer.set(links[0].0, &list);
    }
}

/// The links of a target with those to the nodes that are newly linked to it.
fn with_reverse(nodes: &Nodes, layer: &Layer, links: &[Link]) -> Vec<u32> {
    let target = links[0].0;
    let mut list = layer.links(target).to_vec();
    list.extend(links.iter().map(|&(_, new)| new));
    if list.len() <= layer.places() {
        return list;
    }
    let measure = |&other: &u32| Entry::new(nodes.between(target, other), other);
    let mut candidates: Vec<Entry> = list.iter().map(measure).collect();
    candidates.sort_unstable_by(Entry::order);
    select(nodes, &candidates, layer.places())
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
        let limits = Limits::nearest(params.ef_construction);
        // All that the walk finds is within reach. The nearest with a free place is the first.
        let found = Walk::run(layer, &comparison, 0, limits, &mut scratch);
        let has_room = |entry: &&Entry| layer.links(entry.node).len() < layer.places();
        let from = found.iter().find(has_room).unwrap_or(&found[0]).node;
        link_over(layer, from, node);
        // Now it can be reached, and so can all that it leads to. Each node is expanded once over
        // all calls.
        explore(layer, node, &mut reached);
    }
}

/// Links `from` to `node`. Where `from` has no place left, `node` takes that of its last link and
/// leads on to where that led, so that this stays within reach. What `node` itself led to may lose
/// its link: nothing that was within reach depended on it.
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
    // A list of our own instead of recursion: a path may be as long as there are nodes. A free
    // place leads to the node itself, which is marked by then.
    let mut pending = vec![start];
    while let Some(node) = pending.pop() {
        if !std::mem::replace(&mut reached[node as usize], true) {
            pending.extend_from_slice(layer.of(node));
        }
    }
}
