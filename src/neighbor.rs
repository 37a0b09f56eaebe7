//! [`Neighbor`], the rows of them that a batch returns, and [`TopK`], the collector that every
//! index uses.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::distance::Metric;

/// A vector found near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// Row number of the vector in what the index was built from.
    pub id: u32,
    /// Its true distance to the query, in the metric of the index.
    pub distance: f64,
}

/// What a batch of m queries found: m rows, each ascending by distance, ties by id.
///
/// Exact indexes fill min(k, n) neighbours a row; approximate ones may find fewer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Neighbors {
    /// All rows, one after the other.
    items: Vec<Neighbor>,
    /// Where each row ends in `items`. It begins where the one before it ends.
    ends: Vec<usize>,
}

impl Neighbors {
    /// The number of rows, one a query.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The neighbours of query `query`.
    ///
    /// # Panics
    /// If there was no such query, as slices do.
    #[must_use]
    pub fn row(&self, query: usize) -> &[Neighbor] {
        let start = if query == 0 { 0 } else { self.ends[query - 1] };
        &self.items[start..self.ends[query]]
    }

    /// The rows in the order of the queries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Neighbor]> {
        (0..self.len()).map(|query| self.row(query))
    }

    /// The same rows, cut to their `k` nearest: one search with the largest k answers every smaller
    /// one.
    #[must_use]
    pub fn truncated(&self, k: usize) -> Self {
        // Rows ascend, so that the first k are the k nearest.
        self.iter()
            .map(|row| row[..k.min(row.len())].to_vec())
            .collect()
    }
}

impl FromIterator<Vec<Neighbor>> for Neighbors {
    fn from_iter<I: IntoIterator<Item = Vec<Neighbor>>>(rows: I) -> Self {
        let mut all = Self::default();
        for row in rows {
            all.items.extend(row);
            all.ends.push(all.items.len());
        }
        all
    }
}

/// A row found near a query, by the *reduced distance* that candidates are ordered by: the squared
/// Euclidean distance, the Manhattan distance itself (scikit-learn's `rdist`; see
/// [`Metric::distance_of_reduced`]).
///
/// Candidates are ordered by reduced distance, then id. The reduced distance is kept in full, so
/// that the candidates of several indexes (of the shards of one base, say) merge into the order
/// that one index over all rows has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Row number of the vector in what the index was built from.
    pub id: u32,
    /// The reduced distance to the query.
    pub reduced: f64,
}

impl Candidate {
    /// The neighbour that it stands for, at its distance in `metric`.
    #[must_use]
    pub fn neighbor(self, metric: Metric) -> Neighbor {
        Neighbor {
            id: self.id,
            distance: metric.distance_of_reduced(self.reduced),
        }
    }
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // A total order: without the id, which of two equally near rows is kept would depend on the
        // order in which an index comes by them.
        self.reduced
            .total_cmp(&other.reduced)
            .then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Keeps the k best candidates of those offered, by reduced distance and then id, whatever the
/// order they come in.
///
/// The reduced distance is what is cheapest to compare: the *squared* Euclidean distance, the
/// Manhattan distance itself.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    /// The best so far, at most k of them, with the worst on top.
    heap: BinaryHeap<Candidate>,
    /// The reduced distance of the top once there are k. A copy of its own: it is read for every
    /// row, and changes only when a candidate enters.
    threshold: f64,
}

impl TopK {
    /// An empty collector of up to `k` candidates.
    #[must_use]
    pub fn new(k: usize) -> Self {
        // With k = 0 nothing may enter, and no distance is below −∞.
        let threshold = if k == 0 {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
        Self {
            k,
            // Room for k from the start, but for a k that only says "all": such a heap grows as it
            // is filled.
            heap: BinaryHeap::with_capacity(k.min(1 << 12)),
            threshold,
        }
    }

    /// An empty collector of up to `k` candidates, none of them above the reduced distance
    /// `reduced`.
    ///
    /// A search within a radius is a search for the k nearest whose threshold begins at the radius.
    /// So the same code does both, and what prunes the one prunes the other.
    #[must_use]
    pub fn within(k: usize, reduced: f64) -> Self {
        let mut top = Self::new(k);
        top.threshold = top.threshold.min(reduced);
        top
    }

    /// Reduced distance of the k-th best so far, infinite until there are k (or the radius of
    /// [`TopK::within`]): a candidate **above** it cannot enter (one that equals it still can, by a
    /// smaller id).
    #[inline]
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Offers a candidate; returns whether it entered.
    #[inline]
    pub fn push(&mut self, id: u32, reduced: f64) -> bool {
        // Nearly all rows of a scan end here, at one comparison. Equal ones go on, as the id
        // decides.
        if reduced > self.threshold {
            return false;
        }
        self.insert(Candidate { id, reduced })
    }

    fn insert(&mut self, candidate: Candidate) -> bool {
        // While there is room every candidate enters. After that it takes the place of the worst,
        // if it is better than that; the heap finds the new worst when `worst` is dropped.
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else {
            let Some(mut worst) = self.heap.peek_mut() else {
                return false;
            };
            if candidate >= *worst {
                return false;
            }
            *worst = candidate;
        }
        if self.heap.len() == self.k {
            self.threshold = self
                .heap
                .peek()
                .map_or(f64::INFINITY, |worst| worst.reduced);
        }
        true
    }

    /// k, the most that it keeps.
    #[must_use]
    pub fn most(&self) -> usize {
        self.k
    }

    /// The candidates found so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none was found yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The best, ascending by reduced distance and then id.
    #[must_use]
    pub fn into_candidates(self) -> Vec<Candidate> {
        self.heap.into_sorted_vec()
    }

    /// The same, their reduced distances turned into distances of `metric`.
    #[must_use]
    pub fn into_neighbors(self, metric: Metric) -> Vec<Neighbor> {
        let candidates = self.into_candidates().into_iter();
        candidates
            .map(|candidate| candidate.neighbor(metric))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_with_ties_by_id_in_any_order() {
        let offered = [(7, 1.0), (3, 2.0), (9, 0.5), (1, 2.0), (2, 2.0), (8, 3.0)];
        for rotation in 0..offered.len() {
            let mut top = TopK::new(4);
            for i in 0..offered.len() {
                let (id, reduced) = offered[(i + rotation) % offered.len()];
                top.push(id, reduced);
            }
            let ids: Vec<_> = top
                .into_neighbors(Metric::Manhattan)
                .iter()
                .map(|neighbor| neighbor.id)
                .collect();
            assert_eq!(ids, [9, 7, 1, 2], "rotation {rotation}");
        }
    }

    #[test]
    fn k_zero_takes_nothing_and_fewer_than_k_takes_all() {
        let mut none = TopK::new(0);
        assert!(!none.push(0, 0.0));
        let mut three = TopK::new(3);
        three.push(5, 4.0);
        assert_eq!(three.threshold(), f64::INFINITY);
        assert_eq!(
            three.into_neighbors(Metric::Euclidean),
            [Neighbor {
                id: 5,
                distance: 2.0
            }]
        );
    }

    #[test]
    fn rows_of_unequal_length_keep_their_places() {
        let one = Neighbor {
            id: 1,
            distance: 0.0,
        };
        let rows: Neighbors = [vec![], vec![one, one], vec![one]].into_iter().collect();
        assert_eq!(rows.iter().map(<[_]>::len).collect::<Vec<_>>(), [0, 2, 1]);
        assert_eq!(
            rows.truncated(1).iter().map(<[_]>::len).collect::<Vec<_>>(),
            [0, 1, 1]
        );
    }
}
