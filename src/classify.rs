//! The k-NN classifier: the neighbours vote.

use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::index::{Index, Query, QueryError};
use crate::lab::evaluate::accuracy;
use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

/// What a neighbour's vote weighs, as scikit-learn's `weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Weights {
    /// Each neighbour one vote.
    #[default]
    Uniform,
    /// 1/distance; neighbours at distance zero, if there are any, decide alone.
    Distance,
}

impl Weights {
    /// The name as scikit-learn has it: "uniform", "distance".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Distance => "distance",
        }
    }

    /// The class that `neighbors` vote for, `labels` being those of the base; ties go to the smallest class, as in
    /// scikit-learn. None if there is no neighbour.
    ///
    /// # Panics
    /// If a neighbour's id has no label, as slices do.
    #[must_use]
    pub fn vote(self, neighbors: &[Neighbor], labels: &[u8]) -> Option<u8> {
        let coincident = neighbors.iter().any(|neighbor| neighbor.distance == 0.0);
        let mut votes = [0.0f64; 256];
        for neighbor in neighbors {
            votes[usize::from(labels[neighbor.id as usize])] += match self {
                Self::Uniform => 1.0,
                Self::Distance if coincident => f64::from(u8::from(neighbor.distance == 0.0)),
                Self::Distance => 1.0 / neighbor.distance,
            };
        }
        let best =
            votes.iter().enumerate().fold(
                (0, 0.0),
                |best, (class, &sum)| if sum > best.1 { (class, sum) } else { best },
            );
        (!neighbors.is_empty()).then_some(best.0 as u8)
    }

    /// The vote of each row, with its `k` nearest only: a search with the largest k serves every smaller one.
    /// A row without neighbours gets none.
    ///
    /// # Panics
    /// As [`Weights::vote`].
    #[must_use]
    pub fn vote_rows(self, rows: &Neighbors, k: usize, labels: &[u8]) -> Vec<Option<u8>> {
        rows.iter()
            .map(|row| self.vote(&row[..k.min(row.len())], labels))
            .collect()
    }
}

/// How a k and its weights did on images that were held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// What a vote weighed.
    pub weights: Weights,
    /// How many neighbours voted.
    pub k: usize,
    /// The share that they classified rightly.
    pub accuracy: f64,
}

impl Trial {
    /// Tries every k of `ks` with uniform votes, then with votes by distance: one search, `found`, with the largest k is
    /// enough. `base_labels` are those of the base, `labels` those of the queries.
    ///
    /// # Panics
    /// As [`Weights::vote`], and if there is not one label a query.
    #[must_use]
    pub fn all(found: &Neighbors, ks: &[usize], base_labels: &[u8], labels: &[u8]) -> Vec<Self> {
        let trial = |weights: Weights, k| Self {
            weights,
            k,
            accuracy: accuracy(&weights.vote_rows(found, k, base_labels), labels),
        };
        let of = |weights| ks.iter().map(move |&k| trial(weights, k));
        of(Weights::Uniform).chain(of(Weights::Distance)).collect()
    }

    /// The most accurate; among equals the smallest k, then the first. None of none.
    #[must_use]
    pub fn best(trials: &[Self]) -> Option<Self> {
        let better = |a: Self, b: Self| {
            if (b.accuracy, a.k) > (a.accuracy, b.k) {
                b
            } else {
                a
            }
        };
        trials.iter().copied().reduce(better)
    }
}

impl FromStr for Weights {
    type Err = UnknownWeights;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Uniform, Self::Distance]
            .into_iter()
            .find(|weights| weights.name() == name)
            .ok_or_else(|| UnknownWeights {
                received: name.to_owned(),
            })
    }
}

/// A name of weights that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("weights {received:?}; expected \"uniform\" or \"distance\"")]
pub struct UnknownWeights {
    /// What was given.
    pub received: String,
}

/// Why a classifier could not be made.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ClassifierError {
    /// There is not one label a vector.
    #[error("{received} labels for {expected} vectors")]
    Labels {
        /// Vectors in the index.
        expected: usize,
        /// Labels given.
        received: usize,
    },
}

/// A k-NN classifier over any index.
#[derive(Debug, Clone)]
pub struct KnnClassifier {
    index: Arc<dyn Index>,
    labels: Arc<[u8]>,
    weights: Weights,
}

impl KnnClassifier {
    /// A classifier that searches in `index`, whose vectors have `labels`.
    ///
    /// # Errors
    /// If there is not exactly one label a vector.
    pub fn new(
        index: Arc<dyn Index>,
        labels: Arc<[u8]>,
        weights: Weights,
    ) -> Result<Self, ClassifierError> {
        if labels.len() != index.len() {
            return Err(ClassifierError::Labels {
                expected: index.len(),
                received: labels.len(),
            });
        }
        Ok(Self {
            index,
            labels,
            weights,
        })
    }

    /// The class of each of m queries (m × d) by its `k` neighbours; none where an approximate index found no neighbour.
    ///
    /// # Errors
    /// As [`Index::query_batch`].
    pub fn predict(&self, queries: &Vectors, k: usize) -> Result<Vec<Option<u8>>, QueryError> {
        Ok(self
            .weights
            .vote_rows(&self.index.query_batch(queries, k)?, k, &self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Metric;
    use crate::index::BruteForce;

    fn row(distances: &[f64]) -> Vec<Neighbor> {
        distances
            .iter()
            .enumerate()
            .map(|(id, &distance)| Neighbor {
                id: id as u32,
                distance,
            })
            .collect()
    }

    #[test]
    fn ties_go_to_the_smallest_class() {
        assert_eq!(Weights::Uniform.vote(&row(&[1.0, 2.0]), &[7, 3]), Some(3));
        assert_eq!(Weights::Distance.vote(&row(&[2.0, 2.0]), &[7, 3]), Some(3));
    }

    #[test]
    fn near_neighbours_outweigh_many_far_ones() {
        let neighbors = row(&[1.0, 3.0, 3.0]);
        assert_eq!(Weights::Uniform.vote(&neighbors, &[1, 2, 2]), Some(2));
        assert_eq!(Weights::Distance.vote(&neighbors, &[1, 2, 2]), Some(1));
    }

    #[test]
    fn coincident_neighbours_decide_alone() {
        assert_eq!(
            Weights::Distance.vote(&row(&[0.0, 1e-9, 1e-9]), &[4, 2, 2]),
            Some(4)
        );
    }

    #[test]
    fn the_best_trial_is_the_most_accurate_then_the_smallest() {
        // Two queries of class 1; the nearest neighbour of the second is of class 0.
        let reversed: Vec<Neighbor> = (0..3)
            .map(|at| Neighbor {
                id: 2 - at,
                distance: f64::from(at) + 1.0,
            })
            .collect();
        let found: Neighbors = [reversed, row(&[1.0, 1.1, 1.2])].into_iter().collect();
        let trials = Trial::all(&found, &[1, 3], &[0, 1, 1], &[1, 1]);
        let of = |weights, k, accuracy| Trial {
            weights,
            k,
            accuracy,
        };
        let (uniform, distance) = (Weights::Uniform, Weights::Distance);
        assert_eq!(
            trials,
            [
                of(uniform, 1, 0.5),
                of(uniform, 3, 1.0),
                of(distance, 1, 0.5),
                of(distance, 3, 1.0)
            ]
        );
        assert_eq!(Trial::best(&trials), Some(trials[1]));
        assert_eq!(
            Trial::best(&[trials[1], of(distance, 1, 1.0)]).map(|best| best.k),
            Some(1)
        );
        assert_eq!(Trial::best(&[]), None);
    }

    #[test]
    fn no_neighbour_no_class() {
        assert_eq!(Weights::Uniform.vote(&[], &[]), None);
    }

    #[test]
    fn classifies_by_what_the_index_finds() {
        let base = Arc::new(Vectors::from_floats(1, vec![0.0, 1.0, 10.0, 11.0]).unwrap());
        let index = Arc::new(BruteForce::over(base, Metric::Euclidean).unwrap());
        let queries = Vectors::from_floats(1, vec![0.4, 10.6]).unwrap();
        let knn = KnnClassifier::new(index.clone(), [5, 5, 8, 8].into(), Weights::Uniform).unwrap();
        assert_eq!(knn.predict(&queries, 2).unwrap(), [Some(5), Some(8)]);
        let error = KnnClassifier::new(index, [5].into(), Weights::Uniform).unwrap_err();
        assert_eq!(
            error,
            ClassifierError::Labels {
                expected: 4,
                received: 1
            }
        );
    }
}
