//! [`HeldOut`]: rows of the base that are asked for as queries when an index is built, to learn how
//! far its default search has to go.
//!
//! The naive form is a constant, 16 lists: enough where the data form clusters, and far from it
//! where they do not. So some rows are compared with the whole base, and it is counted how many
//! lists, nearest first, hold their neighbours. A row is not a neighbour of its own.
//!
//! What it is bad at: queries that lie elsewhere than the base need more than is counted here, and
//! so few rows tell recall within some hundredths.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::InvertedLists;
use crate::neighbor::{Candidate, TopK};
use crate::vectors::Vectors;

/// Rows that are asked for. One comparison with the whole base for each is a few hundredths of a
/// build.
const ROWS: usize = 48;
/// Neighbours of each that are looked for.
pub(crate) const NEIGHBORS: usize = 10;
/// Lists that a default search searches at least.
const LEAST_PROBES: usize = 16;
/// The part of the neighbours, and of the nearest ones, that lie in the lists searched by default:
/// half of what [`RECALL`] allows to miss.
const IN_LISTS: f64 = 0.975;
/// The part of the neighbours, and of the nearest ones, that a default search is to find.
pub(crate) const RECALL: f64 = 0.95;

/// Some rows of a base with their true neighbours.
#[derive(Debug)]
pub(crate) struct HeldOut {
    rows: Vec<Asked>,
}

/// A row that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub id: usize,
    /// The nearest other rows, nearest first.
    pub nearest: Vec<Candidate>,
}

impl HeldOut {
    /// Draws rows of `base` and finds the neighbours of each by a scan.
    pub fn draw(base: &Vectors, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = base.len().min(ROWS);
        let ids = rand::seq::index::sample(&mut rng, base.len(), count).into_vec();
        let rows = ids.into_par_iter().map(|id| Asked::by_scan(base, id));
        Self {
            rows: rows.collect(),
        }
    }

    /// How many lists hold enough of the neighbours; `order` gives the numbers of all lists for a
    /// row, nearest first.
    pub fn probes(&self, lists: &InvertedLists, order: impl Fn(usize) -> Vec<u32> + Sync) -> usize {
        let mut list_of_id = vec![0u32; lists.ids().len()];
        for list in 0..lists.nlist() {
            for &id in &lists.ids()[lists.list(list)] {
                list_of_id[id as usize] = list as u32;
            }
        }
        let ranks = |row: &Asked| -> Vec<usize> {
            let mut rank_of = vec![0; lists.nlist()];
            for (rank, list) in order(row.id).into_iter().enumerate() {
                rank_of[list as usize] = rank;
            }
            let list = |neighbor: &Candidate| list_of_id[neighbor.id as usize] as usize;
            row.nearest.iter().map(|near| rank_of[list(near)]).collect()
        };
        let ranks: Vec<Vec<usize>> = self.rows.par_iter().map(ranks).collect();
        let first = ranks.iter().filter_map(|ranks| ranks.first().copied());
        let probes = enough(first.collect()).max(enough(ranks.concat()));
        probes.max(LEAST_PROBES).min(lists.nlist())
    }

    /// The least recall, of the nearest or of all neighbours, where `found` gives the distances of
    /// the rows that are found for a row, itself among them or not.
    ///
    /// Copies tie: any row that is as near as the last neighbour is one.
    pub fn recall(&self, found: impl Fn(&Asked) -> Vec<Candidate> + Sync) -> f64 {
        let hits = |row: &Asked| {
            let others: Vec<Candidate> = found(row)
                .into_iter()
                .filter(|candidate| candidate.id as usize != row.id)
                .collect();
            let within = |count: usize| {
                let Some(farthest) = row.nearest[..count.min(row.nearest.len())].last() else {
                    return 0;
                };
                let near = others
                    .iter()
                    .filter(|other| other.reduced <= farthest.reduced);
                near.count().min(count)
            };
            (within(1), within(NEIGHBORS))
        };
        let hits: Vec<(usize, usize)> = self.rows.par_iter().map(hits).collect();
        let part = |hits: usize, count: usize| {
            let wanted = self.rows.iter().map(|row| row.nearest.len().min(count));
            hits as f64 / wanted.sum::<usize>().max(1) as f64
        };
        let first = part(hits.iter().map(|hits| hits.0).sum(), 1);
        first.min(part(hits.iter().map(|hits| hits.1).sum(), NEIGHBORS))
    }
}

impl Asked {
    fn by_scan(base: &Vectors, id: usize) -> Self {
        let ranker = Ranker::new(base, Metric::Euclidean, base.row(id));
        let mut top = TopK::new(NEIGHBORS.min(base.len() - 1));
        for other in (0..base.len()).filter(|&other| other != id) {
            if let Some(reduced) = ranker.reduced_within(other, top.threshold()) {
                top.push(other as u32, reduced);
            }
        }
        let nearest = top.into_candidates();
        Self { id, nearest }
    }
}

/// The number of lists, nearest first, that holds the wanted part of neighbours at these ranks.
fn enough(mut ranks: Vec<usize>) -> usize {
    ranks.sort_unstable();
    let wanted = (ranks.len() as f64 * IN_LISTS).ceil() as usize;
    wanted.checked_sub(1).map_or(0, |last| ranks[last] + 1)
}
