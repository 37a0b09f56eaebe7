//! Whether a classifier knows how sure it can be.
//!
//! A classifier says a class and how sure it is: k-NN by the share of the neighbours that voted for
//! the class, a net by its probability. It is *calibrated* if of all answers given with .8, a share
//! of .8 is right.
//!
//! ```text
//! accuracy
//!   1 |            /    the diagonal: as sure as right
//!     |          / x    x above it: more often right than it says
//!     |        /
//!     |      / o        o below it: too sure of itself
//!     |    /
//!   0 +------------- confidence
//!     0            1
//! ```
//!
//! [`reliability`] gives the points of this diagram, [`calibration_error`] their mean distance from
//! the diagonal. A classifier can be badly calibrated and still know which of its answers are the
//! doubtful ones: [`coverage`] tells how accurate it is when it may leave these to a human.
//!
//! Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, *On calibration of modern neural networks*,
//! ICML 2017; R. El-Yaniv, Y. Wiener, *On the foundations of noise-free selective classification*,
//! JMLR 11 (2010).

use std::cmp::Ordering;

use crate::lab::statistics::{Interval, correct, wilson};
use crate::neighbor::Neighbors;

/// A class and how sure of it the classifier is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// The class; none if nobody voted.
    pub class: Option<u8>,
    /// The share of the votes that it got, or its probability: 0 to 1.
    pub share: f64,
}

impl From<Vote> for Option<u8> {
    fn from(vote: Vote) -> Self {
        vote.class
    }
}

/// The class of each row's `k` nearest neighbours, and the share of them that voted for it. A row
/// with fewer neighbours counts those.
///
/// `labels` are the classes of the base. Each neighbour has one vote, and ties go to the smallest
/// class, as in [`Weights::vote`](crate::classify::Weights::vote).
///
/// # Panics
/// If a neighbour's id has no label.
///
/// ```
/// use fashion_knn::lab::calibration::vote_share;
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
///
/// // Neighbours 0, 1 and 2 of the one query, of classes 7, 5 and 7.
/// let row: Vec<Neighbor> = (0..3).map(|id| Neighbor { id, distance: 1.0 }).collect();
/// let found: Neighbors = [row].into_iter().collect();
/// let votes = vote_share(&found, 3, &[7, 5, 7]);
/// assert_eq!((votes[0].class, votes[0].share), (Some(7), 2.0 / 3.0));
/// ```
#[must_use]
pub fn vote_share(neighbors: &Neighbors, k: usize, labels: &[u8]) -> Vec<Vote> {
    let mut votes = Vec::with_capacity(neighbors.len());
    for row in neighbors.iter() {
        let voters = &row[..k.min(row.len())];
        let mut counts = [0usize; 256];
        for voter in voters {
            counts[usize::from(labels[voter.id as usize])] += 1;
        }
        votes.push(greatest(
            &counts.map(|count| count as f64 / voters.len().max(1) as f64),
        ));
    }
    votes
}

/// The most probable class of each row of `probabilities`, and its probability: what a net's
/// softmax says.
///
/// A row has a probability for each class, from class 0 on. Ties go to the smallest class.
#[must_use]
pub fn surest<R: AsRef<[f32]>>(probabilities: &[R]) -> Vec<Vote> {
    let mut votes = Vec::with_capacity(probabilities.len());
    for row in probabilities {
        let shares: Vec<f64> = row.as_ref().iter().map(|&share| share.into()).collect();
        votes.push(greatest(&shares));
    }
    votes
}

/// The class with the greatest share, the smallest one of equals; none if all shares are zero.
fn greatest(shares: &[f64]) -> Vote {
    let mut best = Vote {
        class: None,
        share: 0.0,
    };
    for (class, &share) in (0..=u8::MAX).zip(shares) {
        if share > best.share {
            best = Vote {
                class: Some(class),
                share,
            };
        }
    }
    best
}

/// The answers whose confidence lies in one range: a point of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityBin {
    /// The confidence of its answers is above this (the first range begins with 0 itself) …
    pub from: f64,
    /// … and not above this.
    pub to: f64,
    /// How many answers are in it.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that is right.
    pub accuracy: f64,
    /// The interval of 95 % around the accuracy ([`wilson`]).
    pub interval: Interval,
}

/// Edges of ranges are met by a share like 3/5 with an error of rounding. So much of a range's
/// width belongs to the range before it.
const EDGE: f64 = 1e-9;

/// The points of the reliability diagram: the answers in `bins` ranges of confidence of equal
/// width, ascending. Ranges without answers are left out.
///
/// Range i of M is ((i − 1)/M, i/M], as in Guo et al. An answer without a class is wrong.
///
/// # Panics
/// If there are not as many votes as labels, or `bins` is zero.
///
/// ```
/// use fashion_knn::lab::calibration::{Vote, calibration_error, reliability};
///
/// // Four answers given with .9, of which three are right.
/// let votes = [Vote { class: Some(2), share: 0.9 }; 4];
/// let bins = reliability(&votes, &[2, 2, 2, 6], 10);
/// assert_eq!((bins.len(), bins[0].count, bins[0].accuracy), (1, 4, 0.75));
/// assert!((calibration_error(&votes, &[2, 2, 2, 6], 10) - 0.15).abs() < 1e-12);
/// ```
#[must_use]
pub fn reliability(votes: &[Vote], labels: &[u8], bins: usize) -> Vec<ReliabilityBin> {
    assert!(bins > 0, "no range at all");
    let mut ranges = vec![Sum::default(); bins];
    for (vote, right) in votes.iter().zip(correct(votes, labels)) {
        let range = (vote.share * bins as f64 - EDGE).ceil() as usize;
        ranges[range.clamp(1, bins) - 1].add(vote.share, right);
    }
    let mut points = Vec::new();
    for (at, sum) in ranges.iter().enumerate().filter(|(_, sum)| sum.count > 0) {
        points.push(ReliabilityBin {
            from: at as f64 / bins as f64,
            to: (at + 1) as f64 / bins as f64,
            count: sum.count,
            confidence: sum.confidence / sum.count as f64,
            accuracy: sum.right as f64 / sum.count as f64,
            interval: wilson(sum.right, sum.count),
        });
    }
    points
}

/// Answers, summed up.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: usize,
    right: usize,
    confidence: f64,
}

impl Sum {
    fn add(&mut self, confidence: f64, right: bool) {
        self.count += 1;
        self.right += usize::from(right);
        self.confidence += confidence;
    }
}

/// The expected calibration error (ECE) of Guo et al.: the distance between accuracy and confidence
/// in each of `bins` ranges, averaged over the answers. 0 is perfect; .05 means that the confidence
/// is five points off on average.
///
/// More ranges, or fewer answers, give a larger error by chance alone: compare only what was
/// computed from the same images with the same number of ranges. Guo et al. take 15.
///
/// # Panics
/// As [`reliability`].
#[must_use]
pub fn calibration_error(votes: &[Vote], labels: &[u8], bins: usize) -> f64 {
    let mut error = 0.0;
    for bin in reliability(votes, labels, bins) {
        let weight = bin.count as f64 / votes.len() as f64;
        error += weight * (bin.accuracy - bin.confidence).abs();
    }
    error
}

/// How accurate the classifier is if it answers only when it is sure enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoveragePoint {
    /// How sure it must be to answer: a share from 0 to 1.
    pub threshold: f64,
    /// The share of the images that it then answers.
    pub coverage: f64,
    /// The share of these answers that is right.
    pub accuracy: f64,
    /// The interval of 95 % around the accuracy ([`wilson`]).
    pub interval: Interval,
}

/// No more points than this, since a chart shows no more: a net gives each image a confidence of
/// its own.
const POINTS: usize = 200;

/// Accuracy against coverage: a point for each confidence at which the classifier can be told to
/// stop, from the surest answers down to all. Of close ones the first is left out, so that there
/// are some 200 at most.
///
/// Answers of the same confidence are given together or not at all: k-NN with k = 5 has five
/// points at most.
///
/// # Panics
/// If there are not as many votes as labels.
///
/// ```
/// use fashion_knn::lab::calibration::{Vote, coverage};
///
/// // The sure answer is right, the doubtful one is wrong.
/// let votes = [Vote { class: Some(1), share: 0.4 }, Vote { class: Some(3), share: 1.0 }];
/// let points = coverage(&votes, &[2, 3]);
/// assert_eq!((points[0].coverage, points[0].accuracy), (0.5, 1.0));
/// assert_eq!((points[1].coverage, points[1].accuracy), (1.0, 0.5));
/// ```
#[must_use]
pub fn coverage(votes: &[Vote], labels: &[u8]) -> Vec<CoveragePoint> {
    let right = correct(votes, labels);
    let mut order: Vec<usize> = (0..votes.len()).collect();
    order.sort_by(|&a, &b| surer_first(votes[a], votes[b]));
    let mut points: Vec<CoveragePoint> = Vec::new();
    let mut hits = 0;
    for (at, &image) in order.iter().enumerate() {
        hits += usize::from(right[image]);
        let answered = at + 1;
        let share = votes[image].share;
        if order
            .get(answered)
            .is_some_and(|&next| votes[next].share == share)
        {
            continue;
        }
        let point = CoveragePoint {
            threshold: share,
            coverage: answered as f64 / votes.len() as f64,
            accuracy: hits as f64 / answered as f64,
            interval: wilson(hits, answered),
        };
        // The point takes the place of the last one if both lie in the same 200th of the coverage.
        // The last point, all answers, always stays.
        let part = |point: &CoveragePoint| (point.coverage * POINTS as f64).ceil() as usize;
        if points.last().is_some_and(|last| part(last) == part(&point)) {
            points.pop();
        }
        points.push(point);
    }
    points
}

fn surer_first(a: Vote, b: Vote) -> Ordering {
    b.share.total_cmp(&a.share)
}

/// The point that answers most images with at least this accuracy; `None` if even the surest
/// answers are less accurate.
#[must_use]
pub fn coverage_at(points: &[CoveragePoint], accuracy: f64) -> Option<CoveragePoint> {
    let enough = points.iter().filter(|point| point.accuracy >= accuracy);
    enough
        .copied()
        .max_by(|a, b| a.coverage.total_cmp(&b.coverage))
}

#[cfg(test)]
mod tests {
    use super::*;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::classify::Weights;
    use crate::neighbor::Neighbor;

    /// `count` votes whose confidence is random, and labels such that an answer given with p is
    /// right with probability `honest(p)`.
    fn answers(count: usize, honest: impl Fn(f64) -> f64) -> (Vec<Vote>, Vec<u8>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut votes = Vec::new();
        let mut labels = Vec::new();
        for _ in 0..count {
            let share = rng.random_range(0.2..1.0);
            let right = rng.random_bool(honest(share));
            votes.push(Vote {
                class: Some(4),
                share,
            });
            labels.push(if right { 4 } else { 5 });
        }
        (votes, labels)
    }

    #[test]
    fn who_says_what_he_knows_has_no_calibration_error() {
        let (votes, labels) = answers(100_000, |share| share);
        let error = calibration_error(&votes, &labels, 15);
        // Each of 12 ranges has some 8,000 answers: its accuracy is known to about .005.
        assert!(error < 0.01, "{error}");
        // One who is right a fifth less often than he says is off by a tenth of 1.2 on average.
        let (votes, labels) = answers(100_000, |share| 0.8 * share);
        let error = calibration_error(&votes, &labels, 15);
        assert!((error - 0.12).abs() < 0.01, "{error}");
    }

    /// The definition of Guo et al. (2017), equation 3, by a plain loop over the ranges.
    #[test]
    fn the_calibration_error_is_that_of_the_definition() {
        let (votes, labels) = answers(1_000, |share| share * share);
        for bins in [1, 7, 15] {
            let mut expected = 0.0;
            for range in 0..bins {
                let (low, high) = (
                    f64::from(range) / f64::from(bins),
                    f64::from(range + 1) / f64::from(bins),
                );
                let pairs = votes.iter().zip(&labels);
                let within: Vec<_> = pairs
                    .filter(|(vote, _)| vote.share > low && vote.share <= high)
                    .collect();
                let right = within
                    .iter()
                    .filter(|(vote, label)| vote.class == Some(**label))
                    .count();
                let sum: f64 = within.iter().map(|(vote, _)| vote.share).sum();
                expected += (right as f64 - sum).abs() / 1_000.0;
            }
            let error = calibration_error(&votes, &labels, bins as usize);
            assert!(
                (error - expected).abs() < 1e-12,
                "{bins}: {error}, {expected}"
            );
        }
    }

    #[test]
    fn a_share_on_an_edge_is_in_the_range_that_ends_there() {
        for tenth in 1..=10u32 {
            let votes = [Vote {
                class: Some(0),
                share: f64::from(tenth) / 10.0,
            }];
            let bins = reliability(&votes, &[0], 10);
            assert_eq!(bins[0].to, f64::from(tenth) / 10.0);
            assert_eq!((bins[0].count, bins[0].accuracy), (1, 1.0));
        }
        // Nobody voted: in the first range, and wrong.
        let nobody = Vote {
            class: None,
            share: 0.0,
        };
        let bins = reliability(&[nobody], &[0], 10);
        assert_eq!((bins[0].from, bins[0].accuracy), (0.0, 0.0));
        assert!(reliability(&[], &[], 10).is_empty());
        assert_eq!(calibration_error(&[], &[], 10), 0.0);
    }

    #[test]
    fn the_class_is_that_of_the_vote() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let labels: Vec<u8> = (0..50).map(|_| rng.random_range(0..4)).collect();
        let row = |length: usize, rng: &mut ChaCha8Rng| -> Vec<Neighbor> {
            let id = |_| rng.random_range(0..50);
            (0..length)
                .map(id)
                .map(|id| Neighbor { id, distance: 1.0 })
                .collect()
        };
        let found: Neighbors = (0..200).map(|at| row(at % 8, &mut rng)).collect();
        for k in [1, 3, 7] {
            let votes = vote_share(&found, k, &labels);
            let classes: Vec<_> = votes.iter().map(|vote| vote.class).collect();
            assert_eq!(classes, Weights::Uniform.vote_rows(&found, k, &labels));
            for (vote, row) in votes.iter().zip(found.iter()) {
                let voters = &row[..k.min(row.len())];
                let of_class = |voter: &&Neighbor| Some(labels[voter.id as usize]) == vote.class;
                let count = voters.iter().filter(of_class).count();
                assert_eq!(vote.share * voters.len() as f64, count as f64);
            }
        }
    }

    #[test]
    fn the_surest_class_is_the_first_of_the_most_probable() {
        let votes = surest(&[[0.125, 0.75, 0.125], [0.375, 0.25, 0.375]]);
        assert_eq!((votes[0].class, votes[0].share), (Some(1), 0.75));
        assert_eq!((votes[1].class, votes[1].share), (Some(0), 0.375));
    }

    #[test]
    fn coverage_by_the_definition() {
        let (mut votes, labels) = answers(500, |share| share);
        // Some confidences occur many times.
        for vote in votes.iter_mut().step_by(3) {
            vote.share = (vote.share * 5.0).round() / 5.0;
        }
        let points = coverage(&votes, &labels);
        for point in &points {
            let pairs = votes.iter().zip(&labels);
            let answered: Vec<_> = pairs
                .filter(|(vote, _)| vote.share >= point.threshold)
                .collect();
            let right = answered
                .iter()
                .filter(|(vote, label)| vote.class == Some(**label))
                .count();
            assert_eq!(point.coverage, answered.len() as f64 / 500.0);
            assert_eq!(point.accuracy, right as f64 / answered.len() as f64);
        }
        assert!(points.is_sorted_by(|a, b| a.coverage < b.coverage));
        assert_eq!(points.last().unwrap().coverage, 1.0);
        assert!(points.len() <= POINTS);
        assert!(coverage(&[], &[]).is_empty());
    }

    #[test]
    fn who_knows_his_doubts_is_more_accurate_when_he_may_pass() {
        let (votes, labels) = answers(20_000, |share| share);
        let points = coverage(&votes, &labels);
        // Confidences are even from .2 to 1, so that answers above t have accuracy (1 + t) / 2 and
        // coverage (1 − t) / .8: at accuracy .9 the threshold is .8 and the coverage .25.
        let point = coverage_at(&points, 0.9).unwrap();
        assert!((point.threshold - 0.8).abs() < 0.02, "{point:?}");
        assert!((point.coverage - 0.25).abs() < 0.03, "{point:?}");
        assert_eq!(coverage_at(&points, 1.1), None);
    }
}
