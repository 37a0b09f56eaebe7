//! The k-NN classifier: the class of a query is the one that most of its neighbours have.
//!
//! ```text
//! neighbour   distance   class   uniform vote   vote by distance
//!     1          1         B          1              1
//!     2          3         A          1              1/3
//!     3          3         A          1              1/3
//!                                   A: 2, B: 1     A: 2/3, B: 1
//! ```
//!
//! [`Weights`] says what a vote weighs, [`KnnClassifier`] joins an index and labels, and [`Trial`]
//! compares several k on images that were held out.

use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::distance::Metric;
use crate::index::{BuildError, Index, Query, QueryError, registry};
use crate::lab::evaluate::accuracy;
use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

/// What a neighbour's vote weighs, as in scikit-learn's `weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Weights {
    /// Each neighbour one vote.
    #[default]
    Uniform,
    /// 1/distance; neighbours at distance zero, if there are any, decide alone.
    ///
    /// Not for [`Metric::InnerProduct`]: its distances are −x·q, so that the nearest would weigh
    /// least.
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

    /// Whether a vote can weigh this for neighbours in that metric.
    fn takes(self, metric: Metric) -> bool {
        self == Self::Uniform || metric != Metric::InnerProduct
    }

    /// The class that `neighbors` vote for, or none if there is no neighbour.
    ///
    /// `labels` are the classes of the base, one for each id. Ties go to the smallest class, as in
    /// scikit-learn.
    ///
    /// # Panics
    /// If a neighbour's id has no label.
    #[must_use]
    pub fn vote(self, neighbors: &[Neighbor], labels: &[u8]) -> Option<u8> {
        // Only a distance of exactly zero counts as coincident, as in scikit-learn.
        let coincident = neighbors.iter().any(|neighbor| neighbor.distance == 0.0);
        // One sum for each class that a byte can name: no map, and nothing to allocate.
        let mut votes = [0.0f64; 256];
        for neighbor in neighbors {
            let weight = match self {
                Self::Uniform => 1.0,
                // 1/0 is infinite, and infinite votes cannot be compared: one vote each instead.
                Self::Distance if coincident => f64::from(u8::from(neighbor.distance == 0.0)),
                Self::Distance => 1.0 / neighbor.distance,
            };
            votes[usize::from(labels[neighbor.id as usize])] += weight;
        }
        // Only a class that a neighbour has can win. Of equal sums the smallest class does.
        let classes = neighbors.iter().map(|near| labels[near.id as usize]);
        classes.max_by(|&a, &b| {
            let [of_a, of_b] = [a, b].map(|class| votes[usize::from(class)]);
            of_a.total_cmp(&of_b).then(b.cmp(&a))
        })
    }

    /// The vote of each row of `rows`, by its `k` nearest neighbours only: a search with the
    /// largest k serves every smaller one. A row without neighbours has none.
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

/// The accuracy of one k and one kind of weights on images that were held out.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The metric in which the neighbours were searched.
    pub metric: Metric,
    /// What a vote weighed.
    pub weights: Weights,
    /// How many neighbours voted.
    pub k: usize,
    /// Share of the images that were classified rightly.
    pub accuracy: f64,
    /// Which images were: two trials on the same images can be compared image by image.
    pub right: Vec<bool>,
}

impl Trial {
    /// Tries every k of `ks` with uniform votes, then every k with votes by distance.
    ///
    /// `found` are the neighbours of each query, searched in the Euclidean metric: one search with
    /// the largest k is enough. `base_labels` are the classes of the base, `labels` those of the
    /// queries.
    ///
    /// # Panics
    /// As [`Weights::vote`], and if there is not one label for each query.
    #[must_use]
    pub fn all(found: &Neighbors, ks: &[usize], base_labels: &[u8], labels: &[u8]) -> Vec<Self> {
        Self::all_in(Metric::Euclidean, found, ks, base_labels, labels)
    }

    /// [`Trial::all`] of neighbours that were searched in `metric`. By inner product there are no
    /// votes by distance.
    ///
    /// # Panics
    /// As [`Trial::all`].
    #[must_use]
    pub fn all_in(
        metric: Metric,
        found: &Neighbors,
        ks: &[usize],
        base_labels: &[u8],
        labels: &[u8],
    ) -> Vec<Self> {
        let mut trials = Vec::with_capacity(2 * ks.len());
        let kinds = [Weights::Uniform, Weights::Distance];
        for weights in kinds.into_iter().filter(|kind| kind.takes(metric)) {
            for &k in ks {
                let classes = weights.vote_rows(found, k, base_labels);
                trials.push(Self {
                    metric,
                    weights,
                    k,
                    accuracy: accuracy(&classes, labels),
                    right: right(&classes, labels),
                });
            }
        }
        trials
    }

    /// The most accurate trial: among equals the one with the smallest k, then the first. None if
    /// there are no trials.
    #[must_use]
    pub fn best(trials: &[Self]) -> Option<Self> {
        // Ties go to the smaller k, which is the cheaper one. Of equal k the earlier trial stays.
        let (mut best, others) = trials.split_first()?;
        for trial in others {
            let as_accurate = trial.accuracy == best.accuracy;
            if trial.accuracy > best.accuracy || (as_accurate && trial.k < best.k) {
                best = trial;
            }
        }
        Some(best.clone())
    }
}

/// Which predictions are the true label.
fn right(classes: &[Option<u8>], labels: &[u8]) -> Vec<bool> {
    let pairs = classes.iter().zip(labels);
    pairs.map(|(&class, &label)| class == Some(label)).collect()
}

impl Trial {
    /// The class of each of `queries`, by brute force over `base` (whose classes are `labels`) with
    /// this trial's metric, votes and k.
    ///
    /// # Errors
    /// If the base is empty or has no such metric (rows of zeros have no cosine), or the queries
    /// have another dimension.
    ///
    /// # Panics
    /// If there are fewer labels than rows of the base.
    pub fn classify(
        &self,
        base: &Arc<Vectors>,
        labels: &[u8],
        queries: &Vectors,
    ) -> Result<Vec<Option<u8>>, TrialError> {
        let index = registry::brute_force(self.metric, Arc::clone(base))?;
        let found = index.query_batch(queries, self.k)?;
        Ok(self.weights.vote_rows(&found, self.k, labels))
    }
}

/// Why images could not be classified with a trial's settings.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TrialError {
    /// There is nothing to search in.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The queries do not fit.
    #[error(transparent)]
    Query(#[from] QueryError),
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

/// A name that no kind of weights has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("weights {received:?}; expected \"uniform\" or \"distance\"")]
pub struct UnknownWeights {
    /// What was given.
    pub received: String,
}

/// Why a classifier could not be built.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ClassifierError {
    /// There is not one label for each vector.
    #[error("{received} labels for {expected} vectors")]
    Labels {
        /// Vectors in the index.
        expected: usize,
        /// Labels given.
        received: usize,
    },
    /// Votes cannot weigh 1/distance by inner product.
    #[error("votes by distance over an index by inner product; expected uniform votes")]
    Weights,
}

/// A k-NN classifier over any index.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::classify::{KnnClassifier, Weights};
/// use fashion_knn::index::{BruteForce, BruteForceParams, Build};
/// use fashion_knn::vectors::Vectors;
///
/// // Four points on a line, two of class 5 and two of class 8.
/// let base = Arc::new(Vectors::from_floats(1, vec![0.0, 1.0, 10.0, 11.0])?);
/// let index = Arc::new(BruteForce::build(base, BruteForceParams::default())?);
/// let classifier = KnnClassifier::new(index, [5, 5, 8, 8].into(), Weights::Uniform)?;
///
/// let queries = Vectors::from_floats(1, vec![0.4, 10.6])?;
/// assert_eq!(classifier.predict(&queries, 2)?, [Some(5), Some(8)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// If there is not exactly one label for each vector, or votes by distance are asked for over
    /// an index by inner product.
    pub fn new(
        index: Arc<dyn Index>,
        labels: Arc<[u8]>,
        weights: Weights,
    ) -> Result<Self, ClassifierError> {
        // Labels are looked up by id. A shorter list would panic in the midst of a vote.
        if labels.len() != index.len() {
            return Err(ClassifierError::Labels {
                expected: index.len(),
                received: labels.len(),
            });
        }
        if !weights.takes(index.metric()) {
            return Err(ClassifierError::Weights);
        }
        Ok(Self {
            index,
            labels,
            weights,
        })
    }

    /// The class of each of m queries (m × d) by its `k` neighbours. It is none where an
    /// approximate index found no neighbour.
    ///
    /// # Errors
    /// As [`Query::query_batch`].
    pub fn predict(&self, queries: &Vectors, k: usize) -> Result<Vec<Option<u8>>, QueryError> {
        let found = self.index.query_batch(queries, k)?;
        Ok(self.weights.vote_rows(&found, k, &self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{BruteForce, BruteForceParams, Build};

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
    fn a_class_that_no_neighbour_has_never_wins() {
        // Distances by inner product are negative, so the sums are too.
        assert_eq!(
            Weights::Distance.vote(&row(&[-2.0, -1.0]), &[7, 7]),
            Some(7)
        );
        assert_eq!(Weights::Uniform.vote(&[], &[7]), None);
    }

    #[test]
    fn by_inner_product_votes_are_uniform() {
        let base = Arc::new(Vectors::from_floats(1, vec![1.0, 2.0, 3.0]).unwrap());
        let index: Arc<dyn Index> = registry::brute_force(Metric::InnerProduct, base.clone())
            .unwrap()
            .into();
        let labels: Arc<[u8]> = [4, 5, 5].into();
        let refused = KnnClassifier::new(index.clone(), labels.clone(), Weights::Distance);
        assert_eq!(refused.unwrap_err(), ClassifierError::Weights);
        let classifier = KnnClassifier::new(index.clone(), labels.clone(), Weights::Uniform);
        let query = Vectors::from_floats(1, vec![1.0]).unwrap();
        assert_eq!(classifier.unwrap().predict(&query, 2).unwrap(), [Some(5)]);
        let found = index.query_batch(&query, 3).unwrap();
        let trials = Trial::all_in(Metric::InnerProduct, &found, &[1, 3], &labels, &[5]);
        assert!(trials.iter().all(|trial| trial.weights == Weights::Uniform));
    }

    #[test]
    fn a_trial_classifies_in_its_own_metric() {
        // By the angle the query is nearest to the far row, of class 2.
        let base = Arc::new(Vectors::from_floats(2, vec![1.0, 1.0, 9.0, 0.5]).unwrap());
        let query = Vectors::from_floats(2, vec![1.0, 0.1]).unwrap();
        for (metric, class) in [(Metric::Euclidean, 1), (Metric::Cosine, 2)] {
            let trial = Trial {
                metric,
                weights: Weights::Distance,
                k: 1,
                accuracy: 1.0,
                right: Vec::new(),
            };
            let classes = trial.classify(&base, &[1, 2], &query).unwrap();
            assert_eq!(classes, [Some(class)], "{metric:?}");
        }
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
            metric: Metric::Euclidean,
            weights,
            k,
            accuracy,
            // The first query is always right, the second with three neighbours only.
            right: vec![true, accuracy == 1.0],
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
        assert_eq!(Trial::best(&trials).as_ref(), Some(&trials[1]));
        assert_eq!(
            Trial::best(&[trials[1].clone(), of(distance, 1, 1.0)]).map(|best| best.k),
            Some(1)
        );
        assert_eq!(Trial::best(&[]), None);
    }

    #[test]
    fn a_trial_classifies_with_its_own_settings() {
        // From (0, 0), the point (3, 3) is nearer than (5, 0) in the Euclidean metric: 4.2 to 5. In
        // that of Manhattan it is farther: 6 to 5.
        let base = Arc::new(Vectors::from_floats(2, vec![3.0, 3.0, 5.0, 0.0]).unwrap());
        let query = Vectors::from_floats(2, vec![0.0, 0.0]).unwrap();
        for (metric, class) in [(Metric::Euclidean, 4), (Metric::Manhattan, 7)] {
            let trial = Trial {
                metric,
                weights: Weights::Uniform,
                k: 1,
                accuracy: 1.0,
                right: Vec::new(),
            };
            let classes = trial.classify(&base, &[4, 7], &query).unwrap();
            assert_eq!(classes, [Some(class)]);
        }
    }

    #[test]
    fn no_neighbour_no_class() {
        assert_eq!(Weights::Uniform.vote(&[], &[]), None);
    }

    #[test]
    fn classifies_by_what_the_index_finds() {
        let base = Arc::new(Vectors::from_floats(1, vec![0.0, 1.0, 10.0, 11.0]).unwrap());
        let index = Arc::new(BruteForce::build(base, BruteForceParams::default()).unwrap());
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
