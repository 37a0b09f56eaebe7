//! The graph: near neighbours, thinned until no edge is a detour.

use rayon::prelude::*;

use super::QuantizedGraphParams;
use super::codes::Encoder;
use crate::dataset::Vectors;
use crate::kernel::code::{self, Line};
use crate::kernel::pair::squared_euclidean_f32;
use crate::kmeans::{KMeans, KMeansParams, group};

/// Edges of a node: two cache lines of positions.
pub const DEGREE: usize = 32;

/// A node's neighbours; a list that is shorter repeats the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Adjacency(pub [u32; DEGREE]);

/// A vector at an estimated squared distance, ordered by it and then by number.
type Near = (u32, u32);

/// What a walk needs. Vectors are numbered by *position*: in the order of the clusters, so that near ones are near in memory.
#[derive(Debug)]
pub struct Graph {
    pub encoder: Encoder,
    /// The rows of the base in the order of their positions.
    pub ids: Vec<u32>,
    /// n codes of `LINES` lines.
    pub codes: Vec<Line>,
    pub neighbors: Vec<Adjacency>,
    /// Positions where a walk may start, and their codes.
    pub seeds: Vec<u32>,
    pub seed_codes: Vec<Line>,
}

/// Builds the graph over codes of `LINES` lines.
///
/// 1. k-means over the coordinates, √n clusters. The clusters give the numbering, the lists of step 2, and the seeds.
/// 2. Each vector's nearest by code, out of the nearest clusters: an approximate k-nearest-neighbour graph.
/// 3. Of these, the ones that no better one is nearer to by a factor of α (the rule of Vamana, whose case α = 1 is the relative neighbourhood
///    rule of HNSW and NSG), and the edges back, thinned again to [`DEGREE`].
/// 4. What cannot be reached from the seeds is linked from a near vector that can, or made a seed.
pub fn build<const LINES: usize>(base: &Vectors, params: &QuantizedGraphParams) -> Graph {
    let t = std::time::Instant::now();
    let (encoder, codes, coordinates) = Encoder::fit(base, LINES, params.seed);
    eprintln!("encode {:?}", t.elapsed());
    let n = base.len();
    let k = ((n as f64).sqrt() * params.clusters as f64 / 256.0).ceil() as usize;
    let options = KMeansParams { k, seed: params.seed, iterations: 6, max_points_per_centroid: 64 };
    let clusters = KMeans::fit(&coordinates, &options).expect("the base is not empty");
    let probes = clusters.assign_many(&coordinates, params.probes);
    let labels: Vec<u32> = probes.iter().map(|lists| lists[0]).collect();
    let (starts, ids) = group(&labels, clusters.centroids().nrows());
    let codes: Vec<Line> = ids.iter().flat_map(|&id| &codes[id as usize * LINES..][..LINES]).copied().collect();
    let rows = codes.as_chunks::<LINES>().0;
    eprintln!("cluster {:?}", t.elapsed());

    let near: Vec<Vec<Near>> = (0..n)
        .into_par_iter()
        .map_init(Default::default, |(distances, found): &mut (Vec<u32>, Vec<Near>), position| {
            found.clear();
            for &list in &probes[ids[position] as usize] {
                let list = starts[list as usize]..starts[list as usize + 1];
                distances.clear();
                code::scan(&rows[position], &rows[list.clone()], distances);
                found.extend(
                    distances
                        .iter()
                        .zip(list)
                        .filter(|(_, other)| *other != position)
                        .map(|(&d, other)| (d + code::tail(&rows[position]), other as u32)),
                );
            }
            if found.len() > params.candidates {
                found.select_nth_unstable(params.candidates);
                found.truncate(params.candidates);
            }
            found.sort_unstable();
            found.clone()
        })
        .collect();
    eprintln!("near {:?}", t.elapsed());

    let out: Vec<Vec<Near>> = near.par_iter().map(|near| thin(rows, near, params.alpha)).collect();
    let mut both = out.clone();
    for (position, edges) in out.iter().enumerate() {
        for &(distance, other) in edges {
            both[other as usize].push((distance, position as u32));
        }
    }
    let neighbors: Vec<Adjacency> = both
        .into_par_iter()
        .enumerate()
        .map(|(position, mut edges)| {
            edges.sort_unstable();
            edges.dedup();
            if edges.len() > DEGREE {
                let mut kept = thin(rows, &edges, params.alpha);
                for edge in edges {
                    if kept.len() == DEGREE {
                        break;
                    }
                    if !kept.contains(&edge) {
                        kept.push(edge);
                    }
                }
                edges = kept;
            }
            let mut list = [position as u32; DEGREE];
            list.iter_mut().zip(edges).for_each(|(to, edge)| *to = edge.1);
            Adjacency(list)
        })
        .collect();
    eprintln!(
        "graph {:?} mean degree {}",
        t.elapsed(),
        neighbors.iter().enumerate().map(|(i, l)| l.0.iter().filter(|&&v| v as usize != i).count()).sum::<usize>()
            as f64
            / n as f64
    );

    let seeds: Vec<u32> = starts
        .windows(2)
        .enumerate()
        .filter(|(_, list)| list[0] < list[1])
        .map(|(cluster, list)| {
            let centroid = clusters.centroids().row(cluster).to_vec();
            (list[0]..list[1])
                .map(|p| {
                    (
                        squared_euclidean_f32(
                            &centroid,
                            coordinates
                                .floats()
                                .expect("floats")
                                .chunks_exact(coordinates.dim())
                                .nth(ids[p] as usize)
                                .expect("row"),
                        ),
                        p as u32,
                    )
                })
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .expect("not empty")
                .1
        })
        .collect();
    eprintln!("seeds {:?}", t.elapsed());
    let seed_codes = seeds.iter().flat_map(|&seed| rows[seed as usize]).collect();
    Graph { encoder, ids, codes, neighbors, seeds, seed_codes }
}

/// Up to [`DEGREE`] of the candidates, which ascend: those to which none that is kept is nearer by a factor of `alpha`.
fn thin<const LINES: usize>(rows: &[[Line; LINES]], candidates: &[Near], alpha: f32) -> Vec<Near> {
    let mut kept: Vec<Near> = Vec::with_capacity(DEGREE);
    let mut codes = Vec::with_capacity(DEGREE);
    let mut distances = Vec::with_capacity(DEGREE);
    for &(distance, candidate) in candidates {
        let row = &rows[candidate as usize];
        let rest = code::tail(row);
        distances.clear();
        code::scan(row, &codes, &mut distances);
        // All with the candidate's own rest
        let detour =
            kept.iter().zip(&distances).any(|(_, &other)| alpha * (other + rest) as f32 <= distance as f32 + 0.0);
        if !detour {
            kept.push((distance, candidate));
            codes.push(*row);
            if kept.len() == DEGREE {
                break;
            }
        }
    }
    kept
}
