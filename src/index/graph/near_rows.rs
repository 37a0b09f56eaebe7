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
//! instead of n. A near row in a cluster farther away is missed; a graph can do with a few less,
//! and [`Neighborhoods::share_compared`] says how many are not.
//!
//! ```text
//!      +-----+-----+-----+
//!      | . . | o o | o   |      @: the row
//!      +-----+-----+-----+      o: in the clusters nearest to it: compared
//!      | .   | o @ | o o |      .: in others: not compared
//!      +-----+-----+-----+
//! ```
//!
//! Where most rows lie in one clump, or are equal, one cluster holds most of them, and the
//! comparisons would be n² again. So a cluster of more than [`FULLEST`]·√n rows is split: into
//! clusters of its own rows or, where those are no smaller, into runs. A row is then compared with
//! at most 48·√n others.
//!
//! What it is bad at: data of many dimensions whose distances are all alike, such as independent
//! noise. A row's nearest are then spread over more clusters than are looked into.

use std::ops::Range;
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

use super::code_plan::{Plan, Sampled};
use super::codes::{Coordinates, Encoder};
use crate::math::kmeans::{KMeans, KMeansParams, group, mean_of};
use crate::neighbor::Candidate;
use crate::progress::Stage;
use crate::simd::graph_codes::{self, CodeLine, Query};
use crate::simd::pairwise::squared_euclidean_f32_rows;
use crate::vectors::Vectors;

/// Clusters in which a row's neighbours are looked for. More find more of the near rows, and the
/// time grows with them.
const PROBES: usize = 12;

/// A cluster of more than this times √n rows, the mean, is split.
const FULLEST: usize = 4;

/// How often what is too full is clustered again before it is cut into runs. A round takes a clump
/// of any number of rows apart, so more are needed only for clumps within clumps.
const ROUNDS: usize = 4;

/// A vector by its *position*, at an estimated squared distance.
pub type Near = (u32, u32);

/// The order of what is near to `position`: by distance. Of equal distances those come first that
/// have the next greater positions, and after the last the first. So near copies, whose codes may
/// all be equal, each have others of them as their first.
pub fn order_from(position: u32) -> impl Fn(&Near) -> (u32, u32) {
    move |&(distance, other)| (distance, other.wrapping_sub(position))
}

/// About the `count` nearest of each row of the base, without the row itself: row numbers, nearest
/// first by their codes or, where codes do not tell near rows from others, by the coordinates that
/// the codes round. O(n·√n) comparisons, the same on any number of threads.
pub fn near_rows(base: &Arc<Vectors>, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let plan = Plan::choose(base, None, seed);
    let (ids, near) = if plan.is_blind() {
        let (_, coordinates) = Encoder::fit(base, &plan.pca, plan.shape, seed);
        let clusters = Clusters::find(&coordinates, seed);
        let near = near_by_coordinates(&coordinates, &clusters, count);
        (clusters.ids, near)
    } else {
        with_lines!(plan.shape.lines, LINES => {
            let found = Neighborhoods::find::<LINES>(base, &plan, seed);
            let near = found.each::<LINES, _>(count, positions);
            (found.clusters.ids, near)
        })
    };
    // Positions are the order of the clusters. Both ends of each pair go back to row numbers.
    let mut rows = vec![Vec::new(); ids.len()];
    for (&id, mut near) in ids.iter().zip(near) {
        for place in &mut near {
            *place = ids[*place as usize];
        }
        rows[id as usize] = near;
    }
    rows
}

/// Without the distances.
fn positions(_: u32, near: &[Near]) -> Vec<u32> {
    near.iter().map(|&(_, position)| position).collect()
}

/// The vectors in clusters, in which the near ones of each are found.
///
/// Vectors are numbered by *position*: cluster after cluster, so that near ones are near in memory.
pub struct Neighborhoods {
    pub encoder: Encoder,
    /// The codes by position, for distances among each other.
    pub codes: Vec<CodeLine>,
    /// The tails that they have for queries.
    pub tails: Vec<i32>,
    /// The position nearest to the centroid of each cluster that has any.
    pub central: Vec<u32>,
    clusters: Clusters,
}

impl Neighborhoods {
    /// The vectors by codes of `LINES` cache lines, in clusters.
    pub fn find<const LINES: usize>(base: &Vectors, plan: &Plan, seed: u64) -> Self {
        let (encoder, coordinates) = Encoder::fit(base, &plan.pca, plan.shape, seed);
        let clusters = Clusters::find(&coordinates, seed);
        // Codes in the order of positions: a cluster is one run of memory, and comparing a row with
        // it is one scan.
        let (codes, tails) = encoder.encode_for_pairs(&coordinates, &indices(&clusters.ids));
        let central = clusters.central::<LINES>(&encoder, &codes);
        Self {
            encoder,
            codes,
            tails,
            central,
            clusters,
        }
    }

    /// The base's row numbers by position.
    pub fn ids(&self) -> &[u32] {
        &self.clusters.ids
    }

    /// What `keep` makes of each position and its `count` nearest: these are not kept otherwise, as
    /// they would take several times the memory of the codes.
    pub fn each<const LINES: usize, R: Send>(
        &self,
        count: usize,
        keep: impl Fn(u32, &[Near]) -> R + Sync,
    ) -> Vec<R> {
        near_neighbors(&self.clusters, count, self.scan::<LINES>(), keep)
    }

    /// The `count` nearest of one position.
    pub fn near<const LINES: usize>(&self, position: u32, count: usize) -> Vec<Near> {
        let mut search = Search::default();
        let scan = self.scan::<LINES>();
        search
            .run(&self.clusters, position as usize, count, &scan)
            .to_vec()
    }

    /// The share of the sampled rows' nearest that lie in the clusters that are looked into; one if
    /// there are none.
    pub fn share_compared(&self, sample: &[Sampled]) -> f64 {
        let (mut compared, mut all) = (0, 0);
        for Sampled { row, near, .. } in sample {
            let probed = self.clusters.probed(*row);
            let ids: Vec<&[u32]> = probed.map(|members| &self.ids()[members]).collect();
            let is_compared = |near: &&Candidate| ids.iter().any(|ids| ids.contains(&near.id));
            compared += near.iter().filter(is_compared).count();
            all += near.len();
        }
        if all == 0 {
            1.0
        } else {
            compared as f64 / all as f64
        }
    }

    /// Appends the distances of the codes of clusters to that of a position.
    fn scan<const LINES: usize>(
        &self,
    ) -> impl Fn(usize, &[Range<usize>], &mut Vec<u32>) + Sync + '_ {
        let (codes, format) = (self.codes.as_chunks::<LINES>().0, self.encoder.format());
        move |position, clusters, distances| {
            let query = Query::of_code(format, &codes[position]);
            for members in clusters {
                graph_codes::scan(&query, &codes[members.clone()], distances);
            }
        }
    }
}

/// Rows in clusters, none of them too full.
struct Clusters {
    of: KMeans,
    /// The row numbers by position: cluster after cluster.
    ids: Vec<u32>,
    /// Where each cluster's positions start; one more than there are clusters.
    starts: Vec<usize>,
    /// The [`PROBES`] clusters nearest to each row, or all there are, in the order of row numbers.
    probes: Vec<u32>,
}

impl Clusters {
    fn find(coordinates: &Coordinates<'_>, seed: u64) -> Self {
        let usual = (coordinates.len() as f64).sqrt().ceil() as usize;
        let of = clusters(coordinates.sample(), usual, seed);
        // A row's first probe is its own cluster, so one pass over all centroids gives both.
        let probes = probes(&of, coordinates);
        let of_a_row = probes.len() / coordinates.len();
        let labels: Vec<u32> = probes.iter().step_by(of_a_row).copied().collect();
        let (starts, ids) = group(&labels, of.centroids().nrows());
        let found = Self {
            of,
            ids,
            starts,
            probes,
        };
        let is_usual = |bounds: &[usize]| bounds[1] - bounds[0] <= FULLEST * usual;
        if found.starts.windows(2).all(is_usual) {
            found
        } else {
            found.split(coordinates, usual, seed)
        }
    }

    /// The positions of the clusters that are looked into for the neighbours of a row.
    fn probed(&self, row: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let count = self.probes.len() / self.ids.len();
        let probes = self.probes[row * count..][..count].iter();
        probes.map(|&cluster| self.starts[cluster as usize]..self.starts[cluster as usize + 1])
    }

    /// The member whose code is nearest to each cluster's centroid, by position, for the clusters
    /// that have members.
    fn central<const LINES: usize>(&self, encoder: &Encoder, codes: &[CodeLine]) -> Vec<u32> {
        let codes = codes.as_chunks::<LINES>().0;
        let (mut central, mut distances) = (Vec::new(), Vec::new());
        for (centroid, bounds) in self
            .of
            .centroids()
            .rows()
            .into_iter()
            .zip(self.starts.windows(2))
        {
            let query = encoder.query_at::<LINES>(&mut centroid.to_vec(), 0.0);
            distances.clear();
            graph_codes::scan(&query, &codes[bounds[0]..bounds[1]], &mut distances);
            // A cluster may have lost all its members. Of equal distances the lower position is
            // kept.
            let nearest = distances.iter().zip(bounds[0] as u32..).min();
            central.extend(nearest.map(|(_, position)| position));
        }
        central
    }

    /// The same with pieces of those that are too full in their place.
    fn split(self, coordinates: &Coordinates<'_>, usual: usize, seed: u64) -> Self {
        let (mut ids, mut starts, mut centroids) = (Vec::new(), vec![0], Vec::new());
        for (cluster, bounds) in self.starts.windows(2).enumerate() {
            let members = self.ids[bounds[0]..bounds[1]].to_vec();
            if members.len() <= FULLEST * usual {
                centroids.extend(self.of.centroids().row(cluster));
                ids.extend(members);
                starts.push(ids.len());
                continue;
            }
            for piece in pieces(coordinates, members, usual, ROUNDS, seed) {
                let rows = coordinates.of(&indices(&piece)).coordinates;
                let all: Vec<u32> = (0..piece.len() as u32).collect();
                centroids.extend(mean_of(&rows, &all));
                ids.extend(piece);
                starts.push(ids.len());
            }
        }
        let shape = (starts.len() - 1, coordinates.sample().dim());
        let of = Array2::from_shape_vec(shape, centroids).expect("a centroid for each cluster");
        let of = KMeans::from_centroids(of);
        Self {
            probes: probes(&of, coordinates),
            of,
            ids,
            starts,
        }
    }
}

/// The [`PROBES`] clusters nearest to each row, or all there are.
fn probes(of: &KMeans, coordinates: &Coordinates<'_>) -> Vec<u32> {
    let count = PROBES.min(of.centroids().nrows());
    let mut probes = Vec::with_capacity(coordinates.len() * count);
    for block in coordinates.blocks() {
        probes.extend(of.assign_flat(&block, count));
    }
    probes
}

/// Row numbers as indices.
fn indices(ids: &[u32]) -> Vec<usize> {
    ids.iter().map(|&id| id as usize).collect()
}

/// Clusters of about `coordinates.len()` / `count` rows.
fn clusters(coordinates: &Vectors, count: usize, seed: u64) -> KMeans {
    // A few iterations on a sample will do: the clusters are only where neighbours are looked for.
    let options = KMeansParams {
        k: count,
        iterations: 6,
        max_points_per_centroid: 64,
        seed,
    };
    KMeans::fit(coordinates, &options).expect("there are vectors, and at least one cluster")
}

/// The rows `members` in pieces of no more than [`FULLEST`] times `usual`: clusters, which are
/// split again at most `rounds` times, or else runs of `usual` rows.
fn pieces(
    coordinates: &Coordinates<'_>,
    members: Vec<u32>,
    usual: usize,
    rounds: usize,
    seed: u64,
) -> Vec<Vec<u32>> {
    if members.len() <= FULLEST * usual {
        return vec![members];
    }
    let rows = coordinates.of(&indices(&members)).coordinates;
    let widest = widest(&rows);
    // Equal rows make one cluster whatever is tried.
    if rounds == 0 || widest.is_none() {
        return runs(&rows, &members, widest.unwrap_or(0), usual);
    }
    let of = clusters(&rows, members.len().div_ceil(usual), seed);
    let (starts, places) = group(&of.assign(&rows), of.centroids().nrows());
    let mut found = Vec::new();
    for bounds in starts.windows(2).filter(|bounds| bounds[0] < bounds[1]) {
        let places = &places[bounds[0]..bounds[1]];
        let members = places.iter().map(|&place| members[place as usize]);
        found.extend(pieces(
            coordinates,
            members.collect(),
            usual,
            rounds - 1,
            seed,
        ));
    }
    found
}

/// The coordinate in which the rows spread most, or none if they are all equal.
fn widest(rows: &Vectors) -> Option<usize> {
    let values = rows.floats().expect("coordinates are floats");
    let mut least = values[..rows.dim()].to_vec();
    let mut most = least.clone();
    for row in values.chunks_exact(rows.dim()) {
        for (i, &value) in row.iter().enumerate() {
            least[i] = least[i].min(value);
            most[i] = most[i].max(value);
        }
    }
    let spread = |&i: &usize| most[i] - least[i];
    let widest = (0..rows.dim()).max_by(|a, b| spread(a).total_cmp(&spread(b)))?;
    (spread(&widest) > 0.0).then_some(widest)
}

/// The rows `members` in the order of one of their coordinates, cut into runs of `length`.
fn runs(rows: &Vectors, members: &[u32], coordinate: usize, length: usize) -> Vec<Vec<u32>> {
    let values = rows.floats().expect("coordinates are floats");
    let at = |place: usize| values[place * rows.dim() + coordinate];
    let mut places: Vec<usize> = (0..members.len()).collect();
    places.sort_unstable_by(|&a, &b| at(a).total_cmp(&at(b)).then(a.cmp(&b)));
    let run = |places: &[usize]| places.iter().map(|&place| members[place]).collect();
    places.chunks(length).map(run).collect()
}

/// Each position's `count` nearest by coordinates, as [`near_neighbors`] has them: the bits of
/// squared distances, which are not negative, have the same order.
fn near_by_coordinates(
    coordinates: &Coordinates<'_>,
    clusters: &Clusters,
    count: usize,
) -> Vec<Vec<u32>> {
    let by_position = coordinates.of(&indices(&clusters.ids)).coordinates;
    let (dim, values) = (by_position.dim(), by_position.floats().expect("floats"));
    let scan = |position: usize, clusters: &[Range<usize>], distances: &mut Vec<u32>| {
        let row = &values[position * dim..][..dim];
        for members in clusters {
            let rows = &values[members.start * dim..members.end * dim];
            let mut squares = vec![0.0; members.len()];
            squared_euclidean_f32_rows(row, rows, &mut squares);
            distances.extend(squares.into_iter().map(f32::to_bits));
        }
    };
    near_neighbors(clusters, count, scan, positions)
}

/// What `keep` makes of each position and its `count` nearest, nearest first, among the clusters
/// that are nearest to it.
///
/// `scan` appends the distances of a position to all that are in the given clusters.
fn near_neighbors<R: Send>(
    clusters: &Clusters,
    count: usize,
    scan: impl Fn(usize, &[Range<usize>], &mut Vec<u32>) + Sync,
    keep: impl Fn(u32, &[Near]) -> R + Sync,
) -> Vec<R> {
    let stage = Stage::new("near rows", clusters.ids.len());
    (0..clusters.ids.len())
        .into_par_iter()
        .map_init(Search::default, |search, position| {
            stage.advance(1);
            let near = search.run(clusters, position, count, &scan);
            keep(position as u32, near)
        })
        .collect()
}

/// The buffers of a search for near positions, used again for the next.
#[derive(Default)]
struct Search {
    distances: Vec<u32>,
    found: Vec<Near>,
}

impl Search {
    /// The `count` nearest of a position, as [`near_neighbors`] finds them.
    fn run(
        &mut self,
        clusters: &Clusters,
        position: usize,
        count: usize,
        scan: &impl Fn(usize, &[Range<usize>], &mut Vec<u32>),
    ) -> &[Near] {
        let Self { distances, found } = self;
        let probed: Vec<Range<usize>> = clusters.probed(clusters.ids[position] as usize).collect();
        distances.clear();
        scan(position, &probed, distances);
        found.clear();
        let mut distances = distances.iter();
        for members in probed {
            for (other, &distance) in members.zip(&mut distances) {
                if other != position {
                    found.push((distance, other as u32));
                }
            }
        }
        // Selection first: of some 12·√n others only `count` need be sorted. No two are equal in
        // this order, so the result is one and the same on any number of threads.
        let order = order_from(position as u32);
        if found.len() > count {
            found.select_nth_unstable_by_key(count, &order);
            found.truncate(count);
        }
        found.sort_unstable_by_key(&order);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shapes;

    fn coordinates(base: &Arc<Vectors>) -> Coordinates<'_> {
        let plan = Plan::choose(base, None, 1);
        Encoder::fit(base, &plan.pca, plan.shape, 1).1
    }

    /// The fullest cluster, over √n, and how many positions a row is compared with at most.
    fn fullest(base: &Arc<Vectors>) -> (usize, usize) {
        let clusters = Clusters::find(&coordinates(base), 1);
        let sizes: Vec<usize> = clusters.starts.windows(2).map(|b| b[1] - b[0]).collect();
        let mut ids = clusters.ids.clone();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..base.len() as u32), "each row once");
        let compared = |row: usize| clusters.probed(row).map(|members| members.len()).sum();
        let most = (0..base.len()).map(compared).max();
        (sizes.into_iter().max().unwrap(), most.unwrap())
    }

    #[test]
    fn no_cluster_is_too_full_and_no_row_is_compared_with_too_many() {
        for name in [
            "uniform",
            "clump",
            "equal_90",
            "three_kinds",
            "outlier_1e6",
            "d1",
        ] {
            let shape = shapes::find(name).unwrap();
            let base = Arc::new(shape.sample(4_000, 1, shape.dim, 1).base);
            let (fullest, compared) = fullest(&base);
            let usual = 64; // √4,000, rounded up
            assert!(fullest <= FULLEST * usual, "{name}: {fullest}");
            assert!(compared <= PROBES * FULLEST * usual, "{name}: {compared}");
        }
    }

    #[test]
    fn coordinates_tell_the_nearest() {
        let shape = shapes::find("d1").unwrap();
        let base = Arc::new(shape.sample(2_000, 1, 1, 1).base);
        let coordinates = coordinates(&base);
        let values = coordinates.sample().floats().unwrap();
        let clusters = Clusters::find(&coordinates, 1);
        let near = near_by_coordinates(&coordinates, &clusters, 4);
        for (&row, near) in clusters.ids.iter().zip(near) {
            let distance = |other: u32| (values[other as usize] - values[row as usize]).abs();
            let mut all: Vec<f32> = (0..base.len() as u32).map(distance).collect();
            all.sort_unstable_by(f32::total_cmp);
            // The first of all is the row itself.
            for (position, &right) in near.into_iter().zip(&all[1..]) {
                let found = distance(clusters.ids[position as usize]);
                assert!(found <= right * 1.000_1, "row {row}: {found}, not {right}");
            }
        }
    }
}
