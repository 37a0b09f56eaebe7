//! About the nearest rows of every row: what a graph of near neighbours is made from.
//!
//! The naive form compares all pairs, n² of them:
//!
//! ```text
//! for row in rows { near[row] = the `count` nearest of all others }
//! ```
//!
//! Here the rows are first put into √n clusters, and a row is compared only with those of the
//! [`PROBES`] clusters nearest to it, by their [codes](super::codes): with about 12·√n others
//! instead of n. A near row in a cluster farther away is missed; a graph can do with a few less.
//!
//! ```text
//!      +-----+-----+-----+
//!      | . . | o o | o   |      @: the row
//!      +-----+-----+-----+      o: in the clusters nearest to it: compared
//!      | .   | o @ | o o |      .: in others: not compared
//!      +-----+-----+-----+
//! ```
//!
//! What it is bad at: clusters of very different size. Where nearly all rows are within one clump,
//! nearly all are in one cluster, and the comparisons are n² again.

use std::sync::Arc;

use rayon::prelude::*;

use super::code_plan::Plan;
use super::codes::{Encoded, Encoder};
use crate::math::kmeans::{KMeans, KMeansParams, group};
use crate::simd::graph_codes::{self, CodeLine, Format, Query};
use crate::vectors::Vectors;

/// Clusters in which a row's neighbours are looked for. More find more of the near rows, and the
/// time grows with them.
const PROBES: usize = 12;

/// A vector by its *position*, at an estimated squared distance. Ordered by that, then by position.
pub type Near = (u32, u32);

/// About the `count` nearest of each row of the base, without the row itself: row numbers, nearest
/// first by a code of 128 bytes. O(n·√n) comparisons, the same on any number of threads.
pub fn near_rows(base: &Arc<Vectors>, count: usize, seed: u64) -> Vec<Vec<u32>> {
    // Positions are the order of the clusters. Both ends of each pair go back to row numbers.
    let plan = Plan::choose(base, None, seed);
    let Neighborhoods { ids, near, .. } = with_lines!(plan.shape.lines, LINES => {
        Neighborhoods::find::<LINES>(base, &plan, count, seed)
    });
    let mut rows = vec![Vec::new(); ids.len()];
    for (&id, near) in ids.iter().zip(near) {
        let near = near.into_iter();
        rows[id as usize] = near.map(|(_, position)| ids[position as usize]).collect();
    }
    rows
}

/// The vectors in √n clusters, and the near ones of each.
///
/// Vectors are numbered by *position*: cluster after cluster, so that near ones are near in memory.
pub struct Neighborhoods {
    pub encoder: Encoder,
    /// The base's row numbers by position.
    pub ids: Vec<u32>,
    /// The codes by position.
    pub codes: Vec<CodeLine>,
    /// The near vectors of each, nearest first, by position.
    pub near: Vec<Vec<Near>>,
    pub clusters: KMeans,
    /// Where each cluster's positions start; one more than there are clusters.
    pub starts: Vec<usize>,
    /// What the codes round, by row of the base.
    pub coordinates: Vectors,
}

impl Neighborhoods {
    /// The `count` nearest of each vector, by codes of `LINES` cache lines.
    pub fn find<const LINES: usize>(base: &Vectors, plan: &Plan, count: usize, seed: u64) -> Self {
        let Encoded {
            encoder,
            codes: codes_by_row,
            coordinates,
        } = Encoder::fit(base, &plan.pca, plan.shape, seed);
        // A few iterations on a sample will do: the clusters are only where neighbours are looked
        // for.
        let options = KMeansParams {
            k: (base.len() as f64).sqrt().ceil() as usize,
            iterations: 6,
            max_points_per_centroid: 64,
            seed,
        };
        let clusters = KMeans::fit(&coordinates, &options)
            .expect("there are vectors, and at least one cluster");
        // A row's first probe is its own cluster, so one pass over all centroids gives both.
        let probes_by_row = clusters.assign_many(&coordinates, PROBES);
        let labels: Vec<u32> = probes_by_row.iter().map(|lists| lists[0]).collect();
        let (starts, ids) = group(&labels, clusters.centroids().nrows());

        // Codes in the order of positions: a cluster is one run of memory, and comparing a row with
        // it is one scan.
        let mut codes = Vec::with_capacity(codes_by_row.len());
        let mut probes: Vec<&[u32]> = Vec::with_capacity(ids.len());
        for &id in &ids {
            codes.extend_from_slice(&codes_by_row[id as usize * LINES..][..LINES]);
            probes.push(&probes_by_row[id as usize]);
        }
        let codes_of = codes.as_chunks::<LINES>().0;
        let near = near_neighbors(codes_of, encoder.format(), &starts, &probes, count);
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

/// Each position's `count` nearest by code, nearest first, among the clusters that `probes` lists
/// for it.
fn near_neighbors<const LINES: usize>(
    codes: &[[CodeLine; LINES]],
    format: Format,
    starts: &[usize],
    probes: &[&[u32]],
    count: usize,
) -> Vec<Vec<Near>> {
    // `distances` and `found` are a thread's buffers, used again for each row.
    let find = |(distances, found): &mut (Vec<u32>, Vec<Near>), position: usize| {
        found.clear();
        let query = Query::of_code(format, &codes[position]);
        for &cluster in probes[position] {
            let members = starts[cluster as usize]..starts[cluster as usize + 1];
            distances.clear();
            graph_codes::scan(&query, &codes[members.clone()], distances);
            for (other, &distance) in members.zip(&*distances) {
                if other != position {
                    found.push((distance, other as u32));
                }
            }
        }
        // Selection first: of some 12·√n others only `count` need be sorted. Pairs of equal
        // distance are ordered by position, so the result is one and the same on any number of
        // threads.
        if found.len() > count {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable();
        // The copy takes only the memory that it needs; the buffer stays for the next row.
        found.clone()
    };
    (0..codes.len())
        .into_par_iter()
        .map_init(Default::default, find)
        .collect()
}
