//! The graph: near neighbours, thinned until no edge is a detour, and all within reach.

use rayon::prelude::*;

use super::QuantizedGraphParams;
use super::codes::Encoder;
use crate::distance::{Metric, Ranker};
use crate::math::kmeans::{KMeans, KMeansParams, group};
use crate::simd::graph_codes::{self, CodeLine, Query};
use crate::simd::pairwise::squared_euclidean_f32;
use crate::vectors::Vectors;

/// Edges of a node: two cache lines.
pub const DEGREE: usize = 32;
/// Clusters in which a vector's neighbours are looked for.
const PROBES: usize = 12;

/// A node's neighbours; a list that is shorter repeats the node itself, which a walk has visited already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Edges(pub [u32; DEGREE]);

/// A vector at an estimated squared distance: ordered by that, ties by number.
type Near = (u32, u32);

/// What a walk needs. Vectors are numbered by *position*: cluster after cluster, so that near ones are near in memory.
#[derive(Debug)]
pub struct Graph {
    pub encoder: Encoder,
    /// The base's rows by position.
    pub ids: Vec<u32>,
    /// The codes, of as many lines as the graph was built with, by position.
    pub codes: Vec<CodeLine>,
    pub edges: Vec<Edges>,
    /// Positions where a walk may begin: the vector nearest to each cluster's centroid, and what could not be reached otherwise.
    pub seeds: Vec<u32>,
    pub seed_codes: Vec<CodeLine>,
    /// By how much a code's distances are off: see [`error`].
    pub error: f32,
}

impl Graph {
    pub fn memory_bytes(&self) -> usize {
        self.encoder.memory_bytes()
            + size_of_val(&*self.ids)
            + size_of_val(&*self.codes)
            + size_of_val(&*self.edges)
            + size_of_val(&*self.seeds)
            + size_of_val(&*self.seed_codes)
    }
}

/// Builds the graph over codes of `LINES` lines, the same on any number of threads.
pub fn build<const LINES: usize>(base: &Vectors, params: &QuantizedGraphParams) -> Graph {
    let Neighborhoods {
        encoder,
        ids,
        codes,
        near,
        clusters,
        starts,
        coordinates,
    } = Neighborhoods::find::<LINES>(base, params.candidates, params.seed);
    let rows = codes.as_chunks::<LINES>().0;
    let edges = link(rows, &near, params.alpha as f32);

    let coordinates = coordinates
        .select(&ids.iter().map(|&id| id as usize).collect::<Vec<_>>())
        .expect("ids are rows");
    let seeds = central(&coordinates, &starts, &clusters);
    let (edges, seeds) = within_reach(edges, seeds, &near);
    let seed_codes = seeds.iter().flat_map(|&seed| rows[seed as usize]).collect();
    let error = error(base, &ids, &near, encoder.scale());
    Graph {
        encoder,
        ids,
        codes,
        edges,
        seeds,
        seed_codes,
        error,
    }
}

/// About the `count` nearest of each row of the base, without the row itself: row numbers, nearest first by a code of
/// 128 bytes. O(n·√n), the same on any number of threads.
pub fn near_rows(base: &Vectors, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let Neighborhoods { ids, near, .. } = Neighborhoods::find::<2>(base, count, seed);
    let mut rows = vec![Vec::new(); ids.len()];
    for (&id, near) in ids.iter().zip(near) {
        rows[id as usize] = near
            .into_iter()
            .map(|(_, position)| ids[position as usize])
            .collect();
    }
    rows
}

/// The vectors by position, in √n clusters, and the near ones of each.
struct Neighborhoods {
    encoder: Encoder,
    ids: Vec<u32>,
    codes: Vec<CodeLine>,
    near: Vec<Vec<Near>>,
    clusters: KMeans,
    /// Where each cluster's positions start.
    starts: Vec<usize>,
    /// What the codes round, by row of the base.
    coordinates: Vectors,
}

impl Neighborhoods {
    fn find<const LINES: usize>(base: &Vectors, count: usize, seed: u64) -> Self {
        let (encoder, codes, coordinates) = Encoder::fit(base, LINES, seed);
        let clusters = (base.len() as f64).sqrt().ceil() as usize;
        let options = KMeansParams {
            k: clusters,
            iterations: 6,
            max_points_per_centroid: 64,
            seed,
        };
        let clusters = KMeans::fit(&coordinates, &options)
            .expect("there are vectors, and at least one cluster");
        let probes = clusters.assign_many(&coordinates, PROBES);
        let labels: Vec<u32> = probes.iter().map(|lists| lists[0]).collect();
        let (starts, ids) = group(&labels, clusters.centroids().nrows());
        let codes: Vec<CodeLine> = ids
            .iter()
            .flat_map(|&id| &codes[id as usize * LINES..][..LINES])
            .copied()
            .collect();
        let probes: Vec<&[u32]> = ids.iter().map(|&id| &*probes[id as usize]).collect();
        let near = near_neighbors(codes.as_chunks::<LINES>().0, &starts, &probes, count);
        Self {
            encoder,
            ids,
            codes,
            near,
            clusters,
            starts,
            coordinates,
        }
    }
}

/// Each position's `count` nearest by code among the clusters that `probes` has for it, nearest first.
fn near_neighbors<const LINES: usize>(
    rows: &[[CodeLine; LINES]],
    starts: &[usize],
    probes: &[&[u32]],
    count: usize,
) -> Vec<Vec<Near>> {
    let find = |(distances, found): &mut (Vec<u32>, Vec<Near>), position: usize| {
        found.clear();
        let query = Query::new(&rows[position]);
        for &list in probes[position] {
            let list = starts[list as usize]..starts[list as usize + 1];
            distances.clear();
            graph_codes::scan(&query, &rows[list.clone()], distances);
            let others = list
                .zip(&*distances)
                .filter(|&(other, _)| other != position);
            found.extend(others.map(|(other, &distance)| (distance, other as u32)));
        }
        if found.len() > count {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable();
        found.clone()
    };
    (0..rows.len())
        .into_par_iter()
        .map_init(Default::default, find)
        .collect()
}

/// Thins the near neighbours, adds each edge's reverse, and thins again.
fn link<const LINES: usize>(
    rows: &[[CodeLine; LINES]],
    near: &[Vec<Near>],
    alpha: f32,
) -> Vec<Edges> {
    let out: Vec<Vec<Near>> = near
        .par_iter()
        .map(|near| thin(rows, near, alpha))
        .collect();
    let mut both = out.clone();
    for (position, edges) in out.iter().enumerate() {
        for &(distance, other) in edges {
            both[other as usize].push((distance, position as u32));
        }
    }
    let settle = |(position, mut candidates): (usize, Vec<Near>)| {
        candidates.sort_unstable();
        candidates.dedup();
        if candidates.len() > DEGREE {
            let mut kept = thin(rows, &candidates, alpha);
            // Room that is left goes to the nearest of those that fell.
            candidates.retain(|candidate| !kept.contains(candidate));
            kept.extend(candidates.into_iter().take(DEGREE - kept.len()));
            candidates = kept;
        }
        let mut edges = Edges([position as u32; DEGREE]);
        edges
            .0
            .iter_mut()
            .zip(candidates)
            .for_each(|(edge, (_, other))| *edge = other);
        edges
    };
    both.into_par_iter().enumerate().map(settle).collect()
}

/// Up to [`DEGREE`] of the candidates (ascending): each to which no kept one is nearer by a factor of `alpha`. From there, the
/// walk would get to it anyway (Vamana's RobustPrune; with alpha 1, the rule of HNSW's heuristic and of NSG).
fn thin<const LINES: usize>(
    rows: &[[CodeLine; LINES]],
    candidates: &[Near],
    alpha: f32,
) -> Vec<Near> {
    let mut kept = Vec::with_capacity(DEGREE);
    let mut codes = Vec::with_capacity(DEGREE);
    let mut distances = Vec::with_capacity(DEGREE);
    for &(distance, candidate) in candidates {
        let row = &rows[candidate as usize];
        distances.clear();
        graph_codes::scan(&Query::new(row), &codes, &mut distances);
        let detour = |&other: &u32| alpha * other as f32 <= distance as f32;
        if !distances.iter().any(detour) {
            kept.push((distance, candidate));
            codes.push(*row);
            if kept.len() == DEGREE {
                break;
            }
        }
    }
    kept
}

/// The member nearest to each cluster's centroid, for the clusters that have members.
fn central(coordinates: &Vectors, starts: &[usize], clusters: &KMeans) -> Vec<u32> {
    let rows = coordinates.floats().expect("coordinates are floats");
    let dim = coordinates.dim();
    let nearest = |(cluster, centroid): (usize, ndarray::ArrayView1<'_, f32>)| {
        let centroid = centroid.to_vec();
        (starts[cluster]..starts[cluster + 1])
            .map(|position| {
                (
                    squared_euclidean_f32(&centroid, &rows[position * dim..][..dim]),
                    position as u32,
                )
            })
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map(|(_, position)| position)
    };
    clusters
        .centroids()
        .rows()
        .into_iter()
        .enumerate()
        .filter_map(nearest)
        .collect()
}

/// The standard deviation of what the codes take from, or add to, the distance of a near neighbour, in their unit; of a sample.
fn error(base: &Vectors, ids: &[u32], near: &[Vec<Near>], scale: f64) -> f32 {
    const SAMPLE: usize = 1_000;
    /// About as far as most queries ask.
    const NEIGHBOR: usize = 10;
    let errors: Vec<f64> = (0..ids.len())
        .step_by(ids.len().div_ceil(SAMPLE))
        .filter_map(|position| {
            let &(estimate, other) = near[position].iter().take(NEIGHBOR).next_back()?;
            let ranker = Ranker::new(base, Metric::Euclidean, base.row(ids[position] as usize));
            Some(
                f64::from(estimate).sqrt()
                    - ranker.reduced(ids[other as usize] as usize).sqrt() * scale,
            )
        })
        .collect();
    let count = errors.len().max(1) as f64;
    let mean = errors.iter().sum::<f64>() / count;
    (errors
        .iter()
        .map(|error| (error - mean).powi(2))
        .sum::<f64>()
        / count)
        .sqrt() as f32
}

/// Links what cannot be reached from the seeds from a near neighbour that can and has room, or makes it a seed.
fn within_reach(
    mut edges: Vec<Edges>,
    mut seeds: Vec<u32>,
    near: &[Vec<Near>],
) -> (Vec<Edges>, Vec<u32>) {
    let mut reached = vec![false; edges.len()];
    let mut queue = Vec::new();
    let mut explore = |from: u32, edges: &[Edges], reached: &mut [bool]| {
        queue.push(from);
        while let Some(position) = queue.pop() {
            if !std::mem::replace(&mut reached[position as usize], true) {
                queue.extend_from_slice(&edges[position as usize].0);
            }
        }
    };
    for &seed in &seeds {
        explore(seed, &edges, &mut reached);
    }
    for position in 0..edges.len() as u32 {
        if reached[position as usize] {
            continue;
        }
        // A list with room ends with its own node.
        let has_room = |other: u32| edges[other as usize].0[DEGREE - 1] == other;
        let near = near[position as usize].iter().map(|&(_, other)| other);
        match near
            .into_iter()
            .find(|&other| reached[other as usize] && has_room(other))
        {
            Some(other) => {
                let list = &mut edges[other as usize].0;
                let room = list
                    .iter()
                    .position(|&edge| edge == other)
                    .expect("the last, if no other");
                list[room] = position;
            }
            None => seeds.push(position),
        }
        explore(position, &edges, &mut reached);
    }
    (edges, seeds)
}
