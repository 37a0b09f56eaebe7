//! How good and how fast: recall, accuracy, the confusion matrix, queries per second and latency.

use std::time::Instant;

use ndarray::Array2;
use thiserror::Error;

use crate::index::{Index, Query, QueryError, Visits};
use crate::neighbor::{Neighbor, Neighbors};
use crate::progress;
use crate::vectors::{Row, Vectors};

/// How much farther than the true k-th neighbour a hit may be, as a share of that distance.
///
/// It allows for rounding: values of 32 bits are known to 6e-8 of their size, so two rows that
/// should be equally far from a query may differ by a little more than that. It is a share, because
/// a difference in the unit of the data means nothing by itself: between rows of size 1e-5 every
/// distance is below [`ANN_BENCHMARKS_TOLERANCE`]. At distance zero nothing is allowed: only a copy
/// of the query is a hit.
const TOLERANCE: f64 = 1e-6;

/// How much farther than the true k-th neighbour a hit may be by the definition of ann-benchmarks
/// (`metrics.py`, `knn`), in the unit of the distances.
const ANN_BENCHMARKS_TOLERANCE: f64 = 1e-3;

/// recall@k: of the true `k` nearest, the share found, from 0 to 1 over all queries.
///
/// A hit is counted by distance: a returned vector is one if it is as near as the true k-th
/// neighbour, to a millionth of that distance. Where several vectors tie for the last place, any of
/// them is a hit. An id that is returned twice counts once. A row with fewer than `k` found misses
/// the rest.
///
/// The recall does not change when all data are multiplied by a number. That of ann-benchmarks
/// does: see [`recall_of_ann_benchmarks`].
///
/// ```
/// use fashion_knn::lab::evaluate::recall;
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
///
/// let row = |found: [(u32, f64); 2]| -> Vec<Neighbor> {
///     found.map(|(id, distance)| Neighbor { id, distance }).to_vec()
/// };
/// let truth: Neighbors = [row([(7, 1.0), (3, 2.0)])].into_iter().collect();
/// let found: Neighbors = [row([(7, 1.0), (5, 2.5)])].into_iter().collect();
/// assert_eq!(recall(&found, &truth, 2), 0.5);
/// // Vector 8 is as far as vector 3: a tie.
/// let tied: Neighbors = [row([(7, 1.0), (8, 2.0)])].into_iter().collect();
/// assert_eq!(recall(&tied, &truth, 2), 1.0);
/// // One vector twice is one vector.
/// let twice: Neighbors = [row([(7, 1.0), (7, 1.0)])].into_iter().collect();
/// assert_eq!(recall(&twice, &truth, 2), 0.5);
/// ```
///
/// # Panics
/// If there are not as many rows in `found` as in `truth`.
#[must_use]
pub fn recall(found: &Neighbors, truth: &Neighbors, k: usize) -> f64 {
    share_within(found, truth, k, |farthest| {
        // Farther by the share, on either side of 0: distances by inner product are negative.
        farthest + TOLERANCE * farthest.abs()
    })
}

/// [`recall`] by the definition of ann-benchmarks (Aumüller, Bernhardsson, Faithfull 2020), for
/// comparisons with its results: a hit may be .001 farther than the true k-th neighbour, in the
/// unit of the distances.
///
/// It depends on the unit. Where all distances are below .001, it is 1 whatever was found. On large
/// ones it is not exact either: squared distances between images are whole numbers, and from D to
/// D + 1 the distance grows by about 1 / (2√D), which is less than .001 for distances above 500.
///
/// # Panics
/// If there are not as many rows in `found` as in `truth`.
#[must_use]
pub fn recall_of_ann_benchmarks(found: &Neighbors, truth: &Neighbors, k: usize) -> f64 {
    let limit = |farthest| farthest + ANN_BENCHMARKS_TOLERANCE;
    share_within(found, truth, k, limit)
}

/// Of `k` neighbours a query, the share found within `limit` of the true k-th distance.
fn share_within(found: &Neighbors, truth: &Neighbors, k: usize, limit: impl Fn(f64) -> f64) -> f64 {
    assert_eq!(found.len(), truth.len(), "one row a query in both");
    let (mut hits, mut wanted) = (0, 0);
    for (found, truth) in found.iter().zip(truth.iter()) {
        // `truth` may have been computed for a greater k: its first k count. A base of fewer than k
        // rows has less, and then no more are wanted. Without any, nothing can be found or missed.
        let truth = &truth[..k.min(truth.len())];
        let Some(last) = truth.last() else { continue };
        // Only the k-th distance matters. Whatever is as near as that belongs to some set of k
        // nearest, whether or not it is in this row of `truth`. `take(k)` keeps the hits of a row
        // at k.
        let limit = limit(last.distance);
        let near = found.iter().take(k).filter(|found| found.distance <= limit);
        let mut ids: Vec<u32> = near.map(|found| found.id).collect();
        // Another library may return an id twice.
        ids.sort_unstable();
        ids.dedup();
        hits += ids.len();
        wanted += truth.len();
    }
    if wanted == 0 {
        1.0
    } else {
        hits as f64 / wanted as f64
    }
}

/// The share of predictions that are the true label; an absent prediction is a wrong one.
///
/// # Panics
/// If there are not as many predictions as labels.
#[must_use]
pub fn accuracy(predicted: &[Option<u8>], labels: &[u8]) -> f64 {
    assert_eq!(predicted.len(), labels.len(), "one prediction a label");
    let pairs = predicted.iter().zip(labels);
    let right = pairs.filter(|&(&predicted, &label)| predicted == Some(label));
    // Of no labels the accuracy is 0, not NaN.
    right.count() as f64 / labels.len().max(1) as f64
}

/// How often class i (row) was predicted as class j (column).
///
/// ```
/// use fashion_knn::lab::evaluate::ConfusionMatrix;
///
/// // Three images of class 0, one of class 1; the second is predicted wrongly.
/// let matrix = ConfusionMatrix::new(&[0, 1, 0, 1].map(Some), &[0, 0, 0, 1], 2);
/// assert_eq!(matrix.counts(), ndarray::array![[2, 1], [0, 1]]);
/// assert_eq!(matrix.class_scores()[0].recall, 2.0 / 3.0);
/// assert_eq!(matrix.most_confused(1)[0].predicted, 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix(Array2<u32>);

/// One class's scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Of what was predicted as the class, the share that is of it.
    pub precision: f64,
    /// Of what is of the class, the share that was predicted as it.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// How many are of the class.
    pub support: u32,
}

/// Two classes of which one was predicted as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confusion {
    /// The true class.
    pub label: usize,
    /// The class that was predicted.
    pub predicted: usize,
    /// How often.
    pub count: u32,
}

impl ConfusionMatrix {
    /// Counts each pair of label and prediction, both below `classes`. An absent prediction is not
    /// counted.
    ///
    /// # Panics
    /// If there are not as many predictions as labels, or a class is not below `classes`.
    #[must_use]
    pub fn new(predicted: &[Option<u8>], labels: &[u8], classes: usize) -> Self {
        assert_eq!(predicted.len(), labels.len(), "one prediction a label");
        let mut counts = Array2::zeros((classes, classes));
        for (&predicted, &label) in predicted.iter().zip(labels) {
            if let Some(predicted) = predicted {
                counts[(usize::from(label), usize::from(predicted))] += 1;
            }
        }
        Self(counts)
    }

    /// The counts: classes × classes, a row a true class.
    #[must_use]
    pub fn counts(&self) -> &Array2<u32> {
        &self.0
    }

    /// The scores of each class. Where a share has no denominator it is 0, as in scikit-learn.
    #[must_use]
    pub fn class_scores(&self) -> Vec<ClassScores> {
        (0..self.0.nrows())
            .map(|class| self.scores_of(class))
            .collect()
    }

    fn scores_of(&self, class: usize) -> ClassScores {
        // A row sums what is of the class, a column what was predicted as it; the diagonal is in
        // both.
        let right = self.0[(class, class)];
        let support = self.0.row(class).sum();
        let precision = share(right, self.0.column(class).sum());
        let recall = share(right, support);
        // Nothing of the class was predicted rightly: the harmonic mean would be 0 / 0.
        let f1 = if precision + recall == 0.0 {
            0.0
        } else {
            2.0 * precision * recall / (precision + recall)
        };
        ClassScores {
            precision,
            recall,
            f1,
            support,
        }
    }

    /// The pairs of classes confused most, the most frequent first, ties by class; so many at most.
    #[must_use]
    pub fn most_confused(&self, pairs: usize) -> Vec<Confusion> {
        let mut all = Vec::new();
        // Pairs that were never confused are in the list too, with count 0, after all others.
        for ((label, predicted), &count) in self.0.indexed_iter() {
            if label != predicted {
                all.push(Confusion {
                    label,
                    predicted,
                    count,
                });
            }
        }
        // The entries come by true class, then by predicted one, and the sort is stable: pairs of
        // the same count stay in that order.
        all.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        all.truncate(pairs);
        all
    }
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part) / f64::from(whole)
    }
}

/// What a piece of work gave, and how long it took.
///
/// ```
/// use fashion_knn::lab::evaluate::timed;
///
/// let parsed = timed(|| "7".parse::<u32>())?;
/// assert_eq!(parsed.value, 7);
/// assert!(parsed.seconds >= 0.0);
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Timed<T> {
    /// What it gave.
    pub value: T,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Does `work` once and times it: the build of an index, say.
///
/// # Errors
/// What `work` returns.
pub fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Timed<T>, E> {
    let start = Instant::now();
    let value = work()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Timed { value, seconds })
}

/// What a timed run of queries found and how long it took.
#[derive(Debug, Clone)]
pub struct TimedQueries {
    /// The neighbours, a row a query.
    pub neighbors: Neighbors,
    /// Seconds of each call, ascending: one a query, or a single one for a batch.
    pub seconds: Vec<f64>,
}

impl TimedQueries {
    /// Queries answered per second.
    #[must_use]
    pub fn queries_per_second(&self) -> f64 {
        self.neighbors.len() as f64 / self.seconds.iter().sum::<f64>()
    }

    /// The latency in microseconds that a share `quantile` (0 to 1) of the calls does not exceed:
    /// the nearest-rank percentile, which is always one that was measured.
    #[must_use]
    pub fn latency_us(&self, quantile: f64) -> f64 {
        // The nearest rank: of n calls in ascending order, the one at place ⌈quantile · n⌉,
        // counted from 1. For quantile 0 that is place 0, which does not exist, so the first is
        // taken. Nothing is interpolated. Without calls the latency is 0.
        let place = (quantile * self.seconds.len() as f64).ceil() as usize;
        let seconds = self.seconds.get(place.max(1) - 1);
        seconds.map_or(0.0, |seconds| seconds * 1e6)
    }
}

/// Runs `work` with a rayon pool of `threads` threads (0: one a core), so that a batch can be timed
/// on one.
///
/// Whoever [observes](crate::progress::observe) the builds of the calling thread hears those in
/// `work`, too.
///
/// # Errors
/// If `threads` is more than [`MOST_THREADS`], or the system gives no threads.
pub fn on_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, ThreadsError> {
    if threads > MOST_THREADS {
        return Err(ThreadsError::TooMany { received: threads });
    }
    let observer = progress::observer();
    // `install` runs `work` on a thread of the new pool, and all parallel loops within it use that
    // pool instead of the global one. The pool ends with this call.
    Ok(rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?
        .install(|| progress::observed_by(observer, work)))
}

/// The most threads that [`on_threads`] starts. More than any machine has cores today; a greater
/// number is a slip, and would take the memory of the machine for stacks.
pub const MOST_THREADS: usize = 1_024;

/// Why [`on_threads`] did not run anything.
#[derive(Debug, Error)]
pub enum ThreadsError {
    /// More threads than [`MOST_THREADS`].
    #[error(
        "{received} threads were asked for; expected at most {MOST_THREADS}, or 0 for one a core"
    )]
    TooMany {
        /// How many.
        received: usize,
    },
    /// The system gives no threads.
    #[error(transparent)]
    System(#[from] rayon::ThreadPoolBuildError),
}

/// Answers each query with a call of its own, on the calling thread, and times each.
///
/// # Errors
/// As [`Query::query`].
pub fn time_queries(
    index: &dyn Index,
    queries: &Vectors,
    k: usize,
) -> Result<TimedQueries, QueryError> {
    // Each query is copied to floats before the clock starts: reading it from a table is no part of
    // the search. A single query is asked in floats, whatever the base holds.
    let rows: Vec<Vec<f32>> = (0..queries.len())
        .map(|row| queries.row_to_floats(row))
        .collect();
    let mut seconds = Vec::with_capacity(rows.len());
    let mut neighbors = Vec::with_capacity(rows.len());
    for row in &rows {
        let start = Instant::now();
        let found = index.query(row, k)?;
        // The time includes the check of the query and the result's allocation, as a caller pays
        // for them.
        seconds.push(start.elapsed().as_secs_f64());
        neighbors.push(found);
    }
    // Ascending, as `TimedQueries` promises for the percentiles. The times no longer stand beside
    // their queries; the neighbours keep the queries' order.
    seconds.sort_by(f64::total_cmp);
    Ok(TimedQueries {
        neighbors: neighbors.into_iter().collect(),
        seconds,
    })
}

/// Answers all queries in one call, on the threads of the current rayon pool, and times it.
///
/// # Errors
/// As [`Query::query_batch`].
pub fn time_batch(
    index: &dyn Index,
    queries: &Vectors,
    k: usize,
) -> Result<TimedQueries, QueryError> {
    let start = Instant::now();
    let neighbors = index.query_batch(queries, k)?;
    Ok(TimedQueries {
        neighbors,
        seconds: vec![start.elapsed().as_secs_f64()],
    })
}

/// How many times queries are asked where their speed is shown with its spread.
const PASSES: usize = 3;

/// The same queries asked three times: what was found, and the speed of each pass.
///
/// One pass alone can be slow by chance, when another program takes the processor. The median of
/// three is not moved by one such pass, and the slowest and the fastest say how far to trust it.
#[derive(Debug, Clone)]
pub struct Passes {
    /// The passes, the slowest first.
    passes: Vec<TimedQueries>,
}

/// Asks three times: `pass` is a call of [`time_queries`] or [`time_batch`].
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::lab::evaluate::{three_passes, time_batch};
/// use fashion_knn::prelude::*;
///
/// let points = Arc::new(Vectors::from_floats(1, vec![0.0, 1.0, 2.0])?);
/// let index = BruteForce::build(points.clone(), BruteForceParams::default())?;
/// let passes = three_passes(|| time_batch(&index, &points, 2))?;
/// assert_eq!(passes.neighbors().len(), 3);
/// assert!(passes.slowest() <= passes.queries_per_second());
/// assert!(passes.queries_per_second() <= passes.fastest());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What `pass` returns.
pub fn three_passes<E>(pass: impl Fn() -> Result<TimedQueries, E>) -> Result<Passes, E> {
    let mut passes = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        passes.push(pass()?);
    }
    passes.sort_by(|a, b| a.queries_per_second().total_cmp(&b.queries_per_second()));
    Ok(Passes { passes })
}

impl Passes {
    /// The pass of median speed.
    fn median(&self) -> &TimedQueries {
        &self.passes[PASSES / 2]
    }

    /// The neighbours found, a row a query: those of the median pass, which are those of all, since
    /// an index answers the same query alike.
    #[must_use]
    pub fn neighbors(&self) -> &Neighbors {
        &self.median().neighbors
    }

    /// Queries per second: the median of the passes.
    #[must_use]
    pub fn queries_per_second(&self) -> f64 {
        self.median().queries_per_second()
    }

    /// Queries per second in the slowest pass.
    #[must_use]
    pub fn slowest(&self) -> f64 {
        self.passes[0].queries_per_second()
    }

    /// Queries per second in the fastest pass.
    #[must_use]
    pub fn fastest(&self) -> f64 {
        self.passes[PASSES - 1].queries_per_second()
    }

    /// The latency of the median pass: see [`TimedQueries::latency_us`].
    #[must_use]
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.median().latency_us(quantile)
    }

    /// Its row in a table of several ways to ask, under the name `name`.
    #[must_use]
    pub fn speed(&self, name: &str) -> Speed {
        Speed {
            name: name.to_owned(),
            queries: self.neighbors().len(),
            qps: self.queries_per_second(),
            slowest: self.slowest(),
            fastest: self.fastest(),
        }
    }
}

/// How fast a way of asking is.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// What the way is called.
    pub name: String,
    /// How many queries were asked in a pass.
    pub queries: usize,
    /// Queries per second: the median of the passes.
    pub qps: f64,
    /// Queries per second in the slowest pass.
    pub slowest: f64,
    /// Queries per second in the fastest pass.
    pub fastest: f64,
}

impl Speed {
    /// The speed of calls that all do the same work, by the seconds of each: the median call, the
    /// slowest and the fastest. Without calls, all are 0.
    ///
    /// ```
    /// use fashion_knn::lab::evaluate::Speed;
    ///
    /// let speed = Speed::of_calls("loops", &[0.5, 0.1, 0.2]);
    /// assert_eq!((speed.slowest, speed.qps, speed.fastest), (2.0, 5.0, 10.0));
    /// ```
    #[must_use]
    pub fn of_calls(name: &str, seconds: &[f64]) -> Self {
        let mut speeds: Vec<f64> = seconds.iter().map(|seconds| 1.0 / seconds).collect();
        speeds.sort_by(f64::total_cmp);
        let at = |place: usize| speeds.get(place).copied().unwrap_or(0.0);
        Self {
            name: name.to_owned(),
            queries: speeds.len(),
            qps: at(speeds.len() / 2),
            slowest: at(0),
            fastest: at(speeds.len().saturating_sub(1)),
        }
    }
}

/// How good and how fast an index is, asked one query a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The index's name: "Annoy".
    pub name: &'static str,
    /// Its parameters: "n_trees=50 search_k=4000".
    pub settings: String,
    /// Of the true neighbours, the share found: see [`recall`].
    pub recall: f64,
    /// Queries per second, one thread, one query a call: the median of three passes.
    pub qps: f64,
    /// Queries per second in the slowest pass.
    pub slowest: f64,
    /// Queries per second in the fastest pass.
    pub fastest: f64,
    /// The median latency of a query, in microseconds.
    pub p50_us: f64,
    /// The 99th percentile of it, in microseconds.
    pub p99_us: f64,
    /// The share of the base that a query looks at, from 0 to 1, on average: rows whose bound, code
    /// or distance is computed.
    pub looked_at: f64,
    /// Memory of the index, the vectors that it keeps included, in 10⁶ bytes.
    pub memory_mb: f64,
    /// What it found, a row a query.
    pub neighbors: Neighbors,
}

/// Asks `index` for the `k` nearest of each query, one query a call, on the calling thread: once to
/// count what it looks at, which also warms the caches, and three times to time it. `truth` are the
/// true neighbours of the queries, at least `k` each.
///
/// # Errors
/// As [`Query::query`].
///
/// # Panics
/// If there are not as many rows in `truth` as queries.
pub fn evaluate(
    index: &dyn Index,
    queries: &Vectors,
    truth: &Neighbors,
    k: usize,
) -> Result<Evaluated, QueryError> {
    let looked_at = share_looked_at(index, queries, k)?;
    let passes = three_passes(|| time_queries(index, queries, k))?;
    Ok(Evaluated {
        looked_at,
        name: index.name(),
        settings: settings_of(index),
        recall: recall(passes.neighbors(), truth, k),
        qps: passes.queries_per_second(),
        slowest: passes.slowest(),
        fastest: passes.fastest(),
        p50_us: passes.latency_us(0.5),
        p99_us: passes.latency_us(0.99),
        memory_mb: index.memory_bytes() as f64 / 1e6,
        neighbors: passes.neighbors().clone(),
    })
}

/// The parameters of an index as text.
fn settings_of(index: &dyn Index) -> String {
    let parameters = index.params().into_iter();
    let texts: Vec<String> = parameters
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    texts.join(" ")
}

/// The share of the base that a query looks at, on average.
fn share_looked_at(index: &dyn Index, queries: &Vectors, k: usize) -> Result<f64, QueryError> {
    let mut looked = 0;
    for row in 0..queries.len() {
        looked += first_look(index, queries.row(row), k)?.rows();
    }
    // Of no queries the share is 0, not NaN.
    let all = (queries.len() * index.len()).max(1);
    Ok(looked as f64 / all as f64)
}

/// One query's answer, and what the index looked at to give it.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstLook {
    /// The index's name: "Annoy".
    pub name: &'static str,
    /// The neighbours, the nearest first.
    pub nearest: Vec<Neighbor>,
    /// What it looked at.
    pub visits: Visits,
}

impl FirstLook {
    /// Rows that were looked at: most indexes look at a bound or a code first, and compute the
    /// distance of few of them; others compute distances at once.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.visits.bounds.max(self.visits.distances)
    }
}

/// Asks `index` for the `k` nearest of one query.
///
/// # Errors
/// As [`Query::query`].
pub fn first_look(index: &dyn Index, query: Row<'_>, k: usize) -> Result<FirstLook, QueryError> {
    let (nearest, visits) = index.query_counted(query, k)?;
    Ok(FirstLook {
        name: index.name(),
        nearest,
        visits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;

    use crate::index::{BruteForce, BruteForceParams, Build};

    /// A run of one query that took so many seconds.
    fn took(seconds: f64) -> TimedQueries {
        TimedQueries {
            neighbors: rows(&[&[1.0]]),
            seconds: vec![seconds],
        }
    }

    #[test]
    fn the_speed_is_the_median_of_three_passes() {
        // The second pass was disturbed: ten times slower than the others.
        let seconds = Cell::new([0.02, 0.2, 0.01].into_iter().collect::<Vec<_>>());
        let next = || {
            let mut left = seconds.take();
            let first = left.remove(0);
            seconds.set(left);
            Ok::<_, QueryError>(took(first))
        };
        let passes = three_passes(next).unwrap();
        let speed = passes.speed("way");
        assert_eq!(
            speed,
            Speed {
                name: "way".to_owned(),
                queries: 1,
                qps: 50.0,
                slowest: 5.0,
                fastest: 100.0,
            }
        );
        assert!((passes.latency_us(0.5) - 20_000.0).abs() < 1e-6);
        let refused = three_passes(|| Err::<TimedQueries, _>("refused"));
        assert_eq!(refused.unwrap_err(), "refused");
    }

    #[test]
    fn an_exact_index_is_evaluated_at_recall_1() {
        let base = Arc::new(Vectors::from_floats(1, vec![0.0, 1.0, 5.0]).unwrap());
        let index = BruteForce::build(base.clone(), BruteForceParams::default()).unwrap();
        let truth = index.query_batch(&base, 2).unwrap();
        let found = evaluate(&index, &base, &truth, 2).unwrap();
        assert_eq!((found.name, found.recall), (BruteForce::NAME, 1.0));
        assert_eq!(found.neighbors, truth);
        assert!(found.slowest <= found.qps && found.qps <= found.fastest);
        assert!(found.p50_us <= found.p99_us);
        // Brute force has no parameters and looks at every row.
        assert_eq!(found.settings, "");
        assert_eq!(found.looked_at, 1.0);
        // Of other true neighbours, none is found: those of a query far away.
        let nowhere = rows(&[&[-1.0], &[-1.0], &[-1.0]]);
        assert_eq!(evaluate(&index, &base, &nowhere, 1).unwrap().recall, 0.0);
        assert!(evaluate(&index, &base, &truth, 0).is_err());
    }

    fn rows(distances: &[&[f64]]) -> Neighbors {
        let row = |row: &&[f64]| {
            row.iter()
                .zip(0..)
                .map(|(&distance, id)| Neighbor { id, distance })
                .collect()
        };
        distances.iter().map(row).collect()
    }

    #[test]
    fn recall_counts_ties_as_hits_and_missing_rows_as_misses() {
        let truth = rows(&[&[1.0, 2.0], &[1.0, 1.0]]);
        assert_eq!(recall(&rows(&[&[1.0, 2.0], &[1.0, 1.0]]), &truth, 2), 1.0);
        assert_eq!(recall(&rows(&[&[2.0, 2.0], &[1.0, 1.5]]), &truth, 2), 0.75);
        assert_eq!(recall(&rows(&[&[], &[1.0]]), &truth, 2), 0.25);
        assert_eq!(recall(&rows(&[&[1.0, 2.0], &[1.0, 1.0]]), &truth, 1), 1.0);
    }

    #[test]
    fn an_id_found_twice_counts_once() {
        let row = |ids: [u32; 2]| ids.map(|id| Neighbor { id, distance: 1.0 }).to_vec();
        let rows = |ids| [row(ids)].into_iter().collect::<Neighbors>();
        assert_eq!(recall(&rows([0, 0]), &rows([0, 1]), 2), 0.5);
        assert_eq!(recall(&rows([1, 0]), &rows([0, 1]), 2), 1.0);
    }

    #[test]
    fn the_unit_of_the_distances_does_not_count() {
        for unit in [1e-36, 1e-5, 1.0, 1e5, 1e36] {
            let truth = rows(&[&[unit, 2.0 * unit]]);
            assert_eq!(recall(&rows(&[&[unit, 2.001 * unit]]), &truth, 2), 0.5);
            assert_eq!(recall(&rows(&[&[unit, 2.000_001 * unit]]), &truth, 2), 1.0);
        }
        // At distance zero only copies are hits.
        let copies = rows(&[&[0.0, 0.0]]);
        assert_eq!(recall(&rows(&[&[0.0, 1e-30]]), &copies, 2), 0.5);
        // Where ann-benchmarks counts all.
        let small = rows(&[&[1e-5, 2e-5]]);
        let wrong = rows(&[&[5e-5, 9e-5]]);
        assert_eq!(recall(&wrong, &small, 2), 0.0);
        assert_eq!(recall_of_ann_benchmarks(&wrong, &small, 2), 1.0);
        let farther = rows(&[&[1.0, 2.0005], &[1.0, 2.002]]);
        let truth = rows(&[&[1.0, 2.0], &[1.0, 2.0]]);
        assert_eq!(recall_of_ann_benchmarks(&farther, &truth, 2), 0.75);
    }

    // Worked by hand from the definitions.
    #[test]
    fn scores_are_those_of_the_textbook() {
        let labels = [0, 0, 0, 0, 1, 1];
        let predicted = [0, 0, 0, 1, 1, 0].map(Some);
        let matrix = ConfusionMatrix::new(&predicted, &labels, 3);
        assert_eq!(
            matrix.counts(),
            ndarray::array![[3, 1, 0], [1, 1, 0], [0, 0, 0]]
        );
        assert_eq!(accuracy(&predicted, &labels), 4.0 / 6.0);
        let scores = matrix.class_scores();
        assert_eq!(
            scores[0],
            ClassScores {
                precision: 0.75,
                recall: 0.75,
                f1: 0.75,
                support: 4
            }
        );
        assert_eq!(
            scores[1],
            ClassScores {
                precision: 0.5,
                recall: 0.5,
                f1: 0.5,
                support: 2
            }
        );
        assert_eq!(
            scores[2],
            ClassScores {
                precision: 0.0,
                recall: 0.0,
                f1: 0.0,
                support: 0
            }
        );
        let most = Confusion {
            label: 0,
            predicted: 1,
            count: 1,
        };
        assert_eq!(matrix.most_confused(1), [most]);
        assert_eq!(accuracy(&[None, Some(1)], &[0, 1]), 0.5);
    }

    #[test]
    fn work_runs_on_as_many_threads_as_asked_for() {
        assert_eq!(on_threads(1, rayon::current_num_threads).unwrap(), 1);
        let refused = on_threads(200_000, || ()).unwrap_err().to_string();
        assert!(
            refused.contains("200000") && refused.contains("1024"),
            "{refused}"
        );
        assert_eq!(on_threads(3, rayon::current_num_threads).unwrap(), 3);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let timed = TimedQueries {
            neighbors: Neighbors::default(),
            seconds: (1..=100).map(|us| f64::from(us) * 1e-6).collect(),
        };
        assert!((timed.latency_us(0.5) - 50.0).abs() < 1e-9);
        assert!((timed.latency_us(0.99) - 99.0).abs() < 1e-9);
        assert!((timed.latency_us(1.0) - 100.0).abs() < 1e-9);
    }
}
