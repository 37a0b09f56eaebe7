//! What classifiers said of the same images: each accuracy with its interval, and each pair of
//! them compared image by image.
//!
//! Two accuracies of .929 and .932 on 10,000 images have intervals that overlap, and may yet be
//! different for sure: what counts is on how many images the two disagree ([`mcnemar`]).

use std::sync::Arc;

use super::calibration::{
    CoveragePoint, ReliabilityBin, Vote, calibration_error, coverage, coverage_at, reliability,
};
use super::difficulty::between_classes;
use super::evaluate::ConfusionMatrix;
use super::statistics::{Interval, correct, mcnemar, wilson};
use crate::classify::{Trial, Weights};
use crate::distance::Metric;
use crate::fashion::{CLASSES, Fashion, Labelled};
use crate::index::{BruteForce, BruteForceParams, Build, BuildError, Query, QueryError};
use crate::math::pca::{Pca, PcaError, PcaOptions};
use crate::neighbor::Neighbors;
use crate::vectors::{Vectors, VectorsError};
use thiserror::Error;

/// The share of the variance by whose components [`Spread`] counts.
const CARRIED: f64 = 0.9;

/// A classifier's answers to some images.
///
/// ```
/// use fashion_knn::lab::classified::{Classified, compared};
///
/// let truth = [3, 3, 5, 7];
/// let knn = Classified::new("k-NN", &[Some(3), None, Some(5), Some(1)], &truth);
/// let net = Classified::new("net", &[3u8, 3, 5, 1], &truth);
/// assert_eq!((knn.accuracy, net.accuracy), (0.5, 0.75));
///
/// // They disagree on the second image alone: no difference can be told from that.
/// let pair = &compared(&[knn, net])[0];
/// assert_eq!((pair.only_first, pair.only_second), (0, 1));
/// assert!(pair.p > 0.05);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// What the classifier is called.
    pub name: String,
    /// The class that it gave to each image; none where it gave none.
    pub predicted: Vec<Option<u8>>,
    /// Which of these are the true ones.
    pub right: Vec<bool>,
    /// The share of them.
    pub accuracy: f64,
    /// Where the accuracy on all images of this kind lies, with 95 % confidence ([`wilson`]).
    pub interval: Interval,
}

impl Classified {
    /// The answers `predicted` (of a net: `&[u8]`; of a vote: `&[Option<u8>]`) of the classifier
    /// `name`, judged by the true classes.
    ///
    /// # Panics
    /// If there is not one answer a label.
    #[must_use]
    pub fn new<P>(name: impl Into<String>, predicted: &[P], truth: &[u8]) -> Self
    where
        P: Copy + Into<Option<u8>>,
    {
        let right = correct(predicted, truth);
        let hits = right.iter().filter(|&&right| right).count();
        Self {
            name: name.into(),
            predicted: predicted.iter().map(|&class| class.into()).collect(),
            accuracy: hits as f64 / right.len().max(1) as f64,
            interval: wilson(hits, right.len()),
            right,
        }
    }

    /// How often each class was taken for which, by the true classes.
    ///
    /// # Panics
    /// If there is not one label an answer.
    #[must_use]
    pub fn confusion(&self, truth: &[u8]) -> ConfusionMatrix {
        ConfusionMatrix::new(&self.predicted, truth, CLASSES.len())
    }

    /// What the `k` nearest of `found` in `base` say of the images of `asked`: uniform votes.
    ///
    /// # Panics
    /// If there is not one row of neighbours for each image, or an id is none of `base`.
    #[must_use]
    pub fn by_vote(
        name: &str,
        found: &Neighbors,
        k: usize,
        base: &Labelled,
        asked: &Labelled,
    ) -> Self {
        let classes = Weights::Uniform.vote_rows(found, k, &base.labels);
        Self::new(name, &classes, &asked.labels)
    }

    /// The images that it classifies rightly and `other` does not.
    pub fn right_where_wrong<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let pairs = self.right.iter().zip(&other.right).enumerate();
        pairs
            .filter(|(_, (mine, other))| **mine && !**other)
            .map(|(image, _)| image)
    }
}

/// Two classifiers on the same images.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The name of the first.
    pub first: String,
    /// The name of the second.
    pub second: String,
    /// Images that only the first classifies rightly.
    pub only_first: usize,
    /// Images that only the second classifies rightly.
    pub only_second: usize,
    /// The accuracy of the second less that of the first.
    pub difference: f64,
    /// How often chance alone would give a difference like this ([`mcnemar`]).
    pub p: f64,
}

impl Comparison {
    /// The two, compared image by image.
    ///
    /// # Panics
    /// If they did not classify the same number of images.
    #[must_use]
    pub fn of(first: &Classified, second: &Classified) -> Self {
        let test = mcnemar(&first.right, &second.right);
        Self {
            first: first.name.clone(),
            second: second.name.clone(),
            only_first: test.only_first,
            only_second: test.only_second,
            difference: test.difference,
            p: test.p,
        }
    }
}

/// Every pair of the classifiers, each with all that come after it.
///
/// # Panics
/// If they did not classify the same number of images.
#[must_use]
pub fn compared(all: &[Classified]) -> Vec<Comparison> {
    let mut pairs = Vec::new();
    for (at, first) in all.iter().enumerate() {
        for second in &all[at + 1..] {
            pairs.push(Comparison::of(first, second));
        }
    }
    pairs
}

/// Why no k could be chosen.
#[derive(Debug, Error)]
pub enum ChoiceError {
    /// The index refused the data.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The index refused the queries, or a k is zero.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A row that is held out does not exist.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
    /// There is no k to choose from.
    #[error("no k to choose from")]
    NoK,
}

/// k-NN by brute force over a data set, with the k and the vote that do best on images held out.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Every k with both votes, on the images held out.
    pub trials: Vec<Trial>,
    /// The best of them ([`Trial::best`]).
    pub best: Trial,
    /// The index over all training images: those held out vote now, too.
    pub index: BruteForce,
    /// The largest k: a search with it serves every smaller one.
    pub largest_k: usize,
    /// The classes of the training images.
    pub labels: Arc<[u8]>,
}

impl Chosen {
    /// Tries each of `ks` with both votes on the training images `held_out`, whose neighbours are
    /// searched among the others.
    ///
    /// # Errors
    /// If `ks` is empty or has a zero, or a row of `held_out` does not exist.
    pub fn on(
        data: &Fashion,
        held_out: &[usize],
        metric: Metric,
        ks: &[usize],
    ) -> Result<Self, ChoiceError> {
        let largest_k = ks.iter().copied().max().ok_or(ChoiceError::NoK)?;
        let mut is_out = vec![false; data.train.len()];
        for &row in held_out {
            // A row that does not exist is refused below, by `split`.
            if let Some(out) = is_out.get_mut(row) {
                *out = true;
            }
        }
        let others: Vec<usize> = (0..is_out.len()).filter(|&row| !is_out[row]).collect();
        let split = data.split(&others, held_out)?;
        let params = BruteForceParams { metric };
        let found = BruteForce::build(split.base.clone(), params.clone())?
            .query_batch(&split.held_out, largest_k)?;
        let (base, asked) = (&split.base_labels, &split.held_out_labels);
        let trials = Trial::all_in(metric, &found, ks, base, asked);
        Ok(Self {
            best: Trial::best(&trials).ok_or(ChoiceError::NoK)?,
            trials,
            index: BruteForce::build(data.train.clone(), params)?,
            largest_k,
            labels: data.train_labels.clone(),
        })
    }

    /// The answers to images whose neighbours among the training images are `found`, at least
    /// the chosen k a row. `truth` are the images' classes.
    ///
    /// # Panics
    /// If there is not a row of neighbours for each label of `truth`.
    #[must_use]
    pub fn classified(&self, name: &str, found: &Neighbors, truth: &[u8]) -> Classified {
        let predicted = self
            .best
            .weights
            .vote_rows(found, self.best.k, &self.labels);
        Classified::new(name, &predicted, truth)
    }

    /// The answers to `images` (m × d), whose neighbours are searched first.
    ///
    /// # Errors
    /// If the images have another dimension.
    ///
    /// # Panics
    /// If there is not one image for each label of `truth`.
    pub fn classify(
        &self,
        name: &str,
        images: &Vectors,
        truth: &[u8],
    ) -> Result<Classified, QueryError> {
        let found = self.index.query_batch(images, self.best.k)?;
        Ok(self.classified(name, &found, truth))
    }
}

/// Of the `k` nearest rows of each query, the share (0 to 1) that are of the query's class.
/// `base_labels` are the classes of the base, `labels` those of the queries.
///
/// # Panics
/// If there is not one label a query, or an id has none.
#[must_use]
pub fn purity(found: &Neighbors, k: usize, base_labels: &[u8], labels: &[u8]) -> f64 {
    assert_eq!(found.len(), labels.len(), "one label a query");
    let mut same = 0;
    let mut all = 0;
    for (row, &label) in found.iter().zip(labels) {
        for neighbor in row.iter().take(k) {
            same += usize::from(base_labels[neighbor.id as usize] == label);
            all += 1;
        }
    }
    same as f64 / all.max(1) as f64
}

/// How the classes lie in a space: what a lesson compares pixels and features by.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// What the space is called.
    pub name: String,
    /// d.
    pub dimensions: usize,
    /// Of the variance, the share (0 to 1) between the classes ([`between_classes`]).
    pub between_classes: f64,
    /// Principal components that carry 90 % of the variance.
    pub components: usize,
    /// The share of neighbours that are of the class of their query ([`purity`]).
    pub same_class: f64,
}

impl Spread {
    /// Of the space `name` with the rows `rows`, among which searches have found neighbours of
    /// purity `same_class`.
    ///
    /// # Errors
    /// If there are too few rows for principal components.
    pub fn of(name: &str, rows: &Labelled, same_class: f64) -> Result<Self, PcaError> {
        let pca = Pca::fit(&rows.images, &PcaOptions::default())?;
        Ok(Self {
            name: name.to_owned(),
            dimensions: rows.images.dim(),
            between_classes: between_classes(&rows.images, &rows.labels),
            components: pca.components_for(CARRIED),
            same_class,
        })
    }
}

/// How sure a classifier is of its answers, and with what right.
#[derive(Debug, Clone, PartialEq)]
pub struct Confidence {
    /// What the classifier is called.
    pub name: String,
    /// The share of the images that it classifies rightly.
    pub accuracy: f64,
    /// How sure it is of its answers, on average, 0 to 1. More than the accuracy is overconfident.
    pub share: f64,
    /// The expected calibration error, in 15 bins ([`calibration_error`]).
    pub error: f64,
    /// The greatest share of the images that it can answer with an accuracy of .99, the surest
    /// first; `None` if it cannot answer any so well.
    pub coverage: Option<f64>,
    /// Ten bins of how sure it is, each with the accuracy in it ([`reliability`]).
    pub bins: Vec<ReliabilityBin>,
    /// The accuracy of its surest answers, for each share of them ([`coverage`]).
    pub curve: Vec<CoveragePoint>,
}

/// Bins of the expected calibration error: as many as Guo et al. (2017) take.
const BINS: usize = 15;
/// Bins of a reliability diagram, enough to see a curve.
const SHOWN_BINS: usize = 10;
/// What is asked of the images that a classifier answers.
const WANTED: f64 = 0.99;

impl Confidence {
    /// Of the classifier `name` with the answers `votes`, judged by the true classes.
    ///
    /// ```
    /// use fashion_knn::lab::calibration::Vote;
    /// use fashion_knn::lab::classified::Confidence;
    ///
    /// let vote = |class, share| Vote { class: Some(class), share };
    /// let votes = [vote(3, 1.0), vote(3, 0.9), vote(5, 0.5), vote(5, 0.6)];
    /// let sure = Confidence::of("k-NN", &votes, &[3, 3, 5, 7]);
    /// assert_eq!((sure.accuracy, sure.share), (0.75, 0.75));
    /// // Its two surest answers are right; the third is not.
    /// assert_eq!(sure.coverage, Some(0.5));
    /// ```
    ///
    /// # Panics
    /// If there is not one vote a label.
    #[must_use]
    pub fn of(name: &str, votes: &[Vote], truth: &[u8]) -> Self {
        let right = correct(votes, truth).into_iter().filter(|&right| right);
        let count = votes.len().max(1) as f64;
        let curve = coverage(votes, truth);
        Self {
            name: name.to_owned(),
            accuracy: right.count() as f64 / count,
            share: votes.iter().map(|vote| vote.share).sum::<f64>() / count,
            error: calibration_error(votes, truth, BINS),
            coverage: coverage_at(&curve, WANTED).map(|point| point.coverage),
            bins: reliability(votes, truth, SHOWN_BINS),
            curve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Weights;
    use crate::neighbor::Neighbor;

    /// Images of one pixel: the classes 0 and 1 lie around 50 and 200, but 60 is of class 1.
    fn line() -> Fashion {
        let train = Arc::new(Vectors::from_bytes(1, vec![48, 50, 52, 60, 198, 200, 202]).unwrap());
        let test = Arc::new(Vectors::from_bytes(1, vec![59, 201]).unwrap());
        Fashion {
            train,
            train_labels: [0, 0, 0, 1, 1, 1, 1].into(),
            test,
            test_labels: [0, 1].into(),
        }
    }

    #[test]
    fn the_k_that_classifies_the_images_held_out_is_chosen() {
        // Held out: 52, whose nearest is 50, and 60, whose three nearest are of class 0.
        let chosen = Chosen::on(&line(), &[2, 3], Metric::Euclidean, &[1, 3]).unwrap();
        assert_eq!((chosen.trials.len(), chosen.largest_k), (4, 3));
        assert_eq!((chosen.best.k, chosen.best.accuracy), (1, 0.5));
        // All training images vote on the others: the nearest of 59 is 60, of class 1.
        let data = line();
        let found = chosen
            .index
            .query_batch(&data.test, chosen.largest_k)
            .unwrap();
        let answers = chosen.classified("k-NN", &found, &data.test_labels);
        let asked = chosen.classify("k-NN", &data.test, &data.test_labels);
        assert_eq!(asked.unwrap(), answers);
        assert_eq!(answers.predicted, [Some(1), Some(1)]);
        assert_eq!(answers.right, [false, true]);
        let three = Weights::Uniform.vote_rows(&found, 3, &data.train_labels);
        let other = Classified::new("k = 3", &three, &data.test_labels);
        assert_eq!(other.right_where_wrong(&answers).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_cannot_be_chosen_is_an_error() {
        let on = |held_out: &[usize], ks: &[usize]| {
            Chosen::on(&line(), held_out, Metric::Euclidean, ks).map(|chosen| chosen.best.k)
        };
        assert!(matches!(on(&[0], &[]), Err(ChoiceError::NoK)));
        assert!(matches!(on(&[0], &[0]), Err(ChoiceError::Query(_))));
        assert!(matches!(on(&[7], &[1]), Err(ChoiceError::Vectors(_))));
    }

    #[test]
    fn all_pairs_are_compared_once() {
        let truth = [0u8; 4];
        let said = |name: &str, right: [u8; 4]| Classified::new(name, &right, &truth);
        let all = [
            said("a", [0, 0, 0, 1]),
            said("b", [0, 1, 1, 1]),
            said("c", [1, 1, 1, 0]),
        ];
        let pairs = compared(&all);
        let names: Vec<_> = pairs
            .iter()
            .map(|pair| (&*pair.first, &*pair.second))
            .collect();
        assert_eq!(names, [("a", "b"), ("a", "c"), ("b", "c")]);
        assert_eq!((pairs[1].only_first, pairs[1].only_second), (3, 1));
        assert_eq!(pairs[1].difference, -0.5);
    }

    #[test]
    fn a_space_of_one_direction_has_one_component() {
        // Two classes apart along the diagonal, and nothing else.
        let images = Vectors::from_floats(2, vec![0.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0]);
        let rows = Labelled {
            images: images.unwrap().into(),
            labels: [0, 0, 1, 1].into(),
        };
        let spread = Spread::of("line", &rows, 0.5).unwrap();
        assert_eq!((spread.dimensions, spread.components), (2, 1));
        assert!((spread.between_classes - 1.0).abs() < 1e-12);
    }

    #[test]
    fn purity_counts_neighbours_of_the_class() {
        let row = |ids: [u32; 3]| ids.map(|id| Neighbor { id, distance: 1.0 }).to_vec();
        let found: Neighbors = [row([0, 1, 2]), row([2, 1, 0])].into_iter().collect();
        assert_eq!(purity(&found, 3, &[0, 0, 1], &[0, 1]), 0.5);
        assert_eq!(purity(&found, 1, &[0, 0, 1], &[0, 1]), 1.0);
        assert_eq!(purity(&Neighbors::default(), 1, &[], &[]), 0.0);
    }
}
