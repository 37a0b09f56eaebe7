//! Measuring an index on a [`Task`]: a base, queries that no index has seen, and their true
//! neighbours.
//!
//! One [`Measurement`] comes of each setting of an index and each number of neighbours. A build is
//! paid once and measured with every setting of the query parameters:
//!
//! ```text
//! for each setting of the build:            Task::run
//!     build it, and take the time
//!     for each setting of the query:
//!         for each k:                       Task::measure
//!             ask all queries, one a call: latencies, queries a second, recall
//!             ask all queries in one call: queries a second of the batch
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;

use super::build_cache::Builds;
use super::truth_cache;
use crate::distance::{Metric, Ranker};
use crate::index::registry::{self, Entry, Settings};
use crate::index::{BruteForce, Build, BuildError, Index, Query, QueryError};
use crate::lab::evaluate::{
    ThreadsError, TimedQueries, on_threads, recall, time_batch, time_queries,
};
use crate::lab::machine::{Machine, commit, today, with_peak};
use crate::lab::record::Measurement;
use crate::neighbor::{Candidate, Neighbor, Neighbors};
use crate::vectors::Vectors;

/// Why something could not be measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The index refused its parameters or its data.
    #[error("{index}: {source}")]
    Build {
        /// Which index.
        index: &'static str,
        /// What it said.
        source: BuildError,
    },
    /// The index refused a query.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is nothing to ask: a recall of no queries would mean nothing.
    #[error("there are no queries; expected at least one")]
    NoQueries,
    /// The system gave no threads.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A file could not be written: an export.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

pub(super) fn refused(entry: &Entry, source: BuildError) -> MeasureError {
    MeasureError::Build {
        index: entry.key,
        source,
    }
}

pub(super) fn file_error(path: &Path, error: &dyn std::error::Error) -> MeasureError {
    MeasureError::File {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

/// How many queries are asked before the clock starts. The first ones are slower than those that
/// follow: caches are cold, pages are touched for the first time, and the processor's clock has not
/// yet risen. If the task has fewer queries, all of them are asked.
pub(super) const WARM_UP: usize = 50;

/// A round that took more than so many seconds is not repeated. Another program may take the
/// processor away for a few milliseconds: that spoils a round of 20 ms, but is a small part of a
/// long one. It also keeps a slow exact index from being measured twice as long.
const LONG_ROUND_S: f64 = 0.5;

/// What is measured on: a base, queries that no index has seen, and their true neighbours.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::index::registry::{Settings, find};
/// use fashion_knn::lab::task::Task;
/// use fashion_knn::vectors::Vectors;
///
/// // A square's corners, and a query near the second one.
/// let base = Arc::new(Vectors::from_floats(2, vec![0.0, 0.0, 9.0, 0.0, 0.0, 9.0, 9.0, 9.0])?);
/// let queries = Vectors::from_floats(2, vec![8.0, 1.0])?;
/// let task = Task::new("square", base, queries, &[1, 2], 1, None)?;
/// assert_eq!(task.truth().row(0)[0].id, 1);
///
/// // One build, one setting, two counts of neighbours: two rows.
/// let entry = find("brute_force").expect("it is in the registry");
/// let mut rows = Vec::new();
/// task.run(entry, &Settings::default(), &[Settings::default()], |row| rows.push(row))?;
/// assert_eq!(rows.len(), 2);
/// assert!(rows.iter().all(|row| row.recall == 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Task {
    /// What the record calls the data.
    pub name: String,
    /// The vectors to search in, n × d.
    pub base: Arc<Vectors>,
    /// The queries, m × d.
    pub queries: Vectors,
    /// How many neighbours are asked for: each count is measured over the same build.
    pub ks: Vec<usize>,
    /// Threads of the build and of the batch (0: one a core).
    pub threads: usize,
    /// Other numbers of threads on which [`Task::run`] asks the batch of each build, too: each
    /// gives rows of its own. None by default.
    pub also_threads: Vec<usize>,
    /// The metric by which the neighbours are sought.
    pub metric: Metric,
    /// The base and the queries as they are compared: by cosine, normalised.
    compared: (Arc<Vectors>, Vectors),
    /// The true neighbours, as many as the largest count asks for.
    truth: Neighbors,
    /// Why they could not be kept.
    unkept: Option<String>,
    /// The classes, if the data have any.
    pub(super) labels: Option<Labels>,
    /// Where builds are kept, if they are.
    pub(super) builds: Option<Builds>,
}

/// The classes of a task's rows: one a row of the base, and one a query.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub base: Arc<[u8]>,
    pub queries: Arc<[u8]>,
}

impl Task {
    /// A task. Its true neighbours are computed by brute force or, if `cache` is a folder, taken
    /// from there when they have been computed before. A cache that cannot be written is no error
    /// ([`Task::unkept`]): they are computed again the next time.
    ///
    /// # Errors
    /// If the base is empty, there are no queries or they do not fit it, or one of `ks` is zero or
    /// there is none.
    pub fn new(
        name: &str,
        base: Arc<Vectors>,
        queries: Vectors,
        ks: &[usize],
        threads: usize,
        cache: Option<&Path>,
    ) -> Result<Self, MeasureError> {
        Self::by(Metric::Euclidean, name, base, queries, ks, threads, cache)
    }

    /// [`Task::new`] with neighbours by `metric`.
    ///
    /// # Errors
    /// As [`Task::new`], and if the metric is cosine and a row or a query is all zeros.
    pub fn by(
        metric: Metric,
        name: &str,
        base: Arc<Vectors>,
        queries: Vectors,
        ks: &[usize],
        threads: usize,
        cache: Option<&Path>,
    ) -> Result<Self, MeasureError> {
        if ks.contains(&0) {
            return Err(QueryError::ZeroK.into());
        }
        if queries.is_empty() {
            return Err(MeasureError::NoQueries);
        }
        // One table of true neighbours serves all counts: the k nearest are the first k of the
        // largest count's.
        let largest = ks.iter().copied().max().ok_or(QueryError::ZeroK)?;
        let (truth, unkept) = true_neighbors(metric, &base, &queries, largest, cache)?;
        let compared = if metric == Metric::Cosine {
            (Arc::new(base.normalized()), queries.normalized())
        } else {
            (base.clone(), queries.clone())
        };
        Ok(Self {
            name: name.to_owned(),
            metric,
            compared,
            truth,
            unkept,
            base,
            queries,
            ks: ks.to_vec(),
            threads,
            also_threads: Vec::new(),
            labels: None,
            builds: None,
        })
    }

    /// The task with the classes of its base (n) and of its queries (m), by which a lesson also
    /// tells how many queries the neighbours' vote classifies rightly.
    ///
    /// # Panics
    /// If there is not one label a row.
    #[must_use]
    pub fn with_labels(self, base: Arc<[u8]>, queries: Arc<[u8]>) -> Self {
        assert_eq!(base.len(), self.base.len(), "one label a row of the base");
        assert_eq!(queries.len(), self.queries.len(), "one label a query");
        let labels = Some(Labels { base, queries });
        Self { labels, ..self }
    }

    /// Builds `entry` with `build` and measures it with each of `sweep`, which are settings of its
    /// query knobs, for each count of neighbours; `each` is given every row as soon as it is
    /// measured.
    ///
    /// # Errors
    /// If a setting is unknown (before anything is built) or refused.
    pub fn run(
        &self,
        entry: &'static Entry,
        build: &Settings,
        sweep: &[Settings],
        mut each: impl FnMut(Measurement),
    ) -> Result<(), MeasureError> {
        // A misspelt parameter is told at once, not after a build of minutes.
        let refused = |source| refused(entry, source);
        entry.check(build, sweep).map_err(refused)?;
        // The build runs in a pool of the task's threads. Starting the pool is within the time, as
        // it is for a program that builds.
        let start = Instant::now();
        let (built, peak) = with_peak(|| {
            on_threads(self.threads, || {
                (entry.build_under)(self.metric, self.base.clone(), build)
            })
        });
        let build_s = start.elapsed().as_secs_f64();
        let built = built?.map_err(refused)?;
        for settings in sweep {
            // Another index over the same structure: nothing is built again, so `build_s` holds for
            // each row.
            let index = built(settings).map_err(refused)?;
            for &k in &self.ks {
                let row = Measurement {
                    build_peak_bytes: peak,
                    ..self.measure(entry, index.as_ref(), k, build_s)?
                };
                for &threads in &self.also_threads {
                    // The single queries are on one thread: only the batch is another.
                    each(Measurement {
                        threads: counted(threads),
                        build_threads: Some(counted(self.threads)),
                        qps_batch: self.batch_speed(index.as_ref(), k, threads)?,
                        ..row.clone()
                    });
                }
                each(row);
            }
        }
        Ok(())
    }

    /// Asks `index`, an `entry` over the base, for the `k` nearest of every query: one query a
    /// call, then all in one. `build_s` is what its build took, in seconds.
    ///
    /// # Errors
    /// If the index refuses the queries, or the system gives no threads.
    pub fn measure(
        &self,
        entry: &Entry,
        index: &dyn Index,
        k: usize,
        build_s: f64,
    ) -> Result<Measurement, MeasureError> {
        // The warm-up: its answers and times are dropped.
        time_queries(
            index,
            &self.queries.head(self.queries.len().min(WARM_UP)),
            k,
        )?;
        // Single queries run on this thread.
        let single = better_of_two(|| time_queries(index, &self.queries, k))?;
        let qps_batch = self.batch_speed(index, k, self.threads)?;
        // Only after the timing: the first call ever measures the memory's speed by reading 256
        // MiB, which leaves the caches without the index.
        let machine = Machine::here();
        Ok(Measurement {
            index: entry.key.to_owned(),
            params: index.params().into_iter().collect(),
            data: self.name.clone(),
            n: self.base.len(),
            d: self.base.dim(),
            k,
            threads: counted(self.threads),
            // The single queries are judged. The batch answers the same queries, and is only timed.
            recall: self.recall(&single.neighbors, k),
            qps: single.queries_per_second(),
            qps_batch,
            p50_us: single.latency_us(0.5),
            p99_us: single.latency_us(0.99),
            build_s,
            memory_bytes: index.memory_bytes(),
            commit: commit(),
            cpu: machine.cpu.clone(),
            cpu_family: machine.cpu_family,
            cpu_model: machine.cpu_model,
            simd: Some(machine.simd.clone()),
            cores: Some(machine.cores),
            bandwidth_gb_s: Some(machine.bandwidth_gb_s),
            date: today(),
            metric: self.metric.name().to_owned(),
            build_threads: None,
            build_peak_bytes: None,
        })
    }

    /// Queries per second of a batch of all queries on so many threads (0: one a core).
    fn batch_speed(
        &self,
        index: &dyn Index,
        k: usize,
        threads: usize,
    ) -> Result<f64, MeasureError> {
        // The pool is started before the clock.
        let batch = on_threads(threads, || {
            better_of_two(|| time_batch(index, &self.queries, k))
        })??;
        Ok(batch.queries_per_second())
    }

    /// recall@k of what was found for the queries, by the true distances of the rows returned: an
    /// index that keeps codes alone returns estimates, which may claim anything.
    ///
    /// # Panics
    /// If there is not a row for each query, or an id is none of the base.
    #[must_use]
    pub fn recall(&self, found: &Neighbors, k: usize) -> f64 {
        // Each row returned is given its true distance, from the base itself. `take(k)` stands
        // before the distances are replaced: which k rows count is the index's own choice, by its
        // own order.
        let mut judged: Vec<Vec<Neighbor>> = Vec::with_capacity(found.len());
        for (query, row) in found.iter().enumerate() {
            let (base, queries) = &self.compared;
            let ranker = Ranker::new(base, self.metric, queries.row(query));
            let truly = |found: &Neighbor| {
                let reduced = ranker.reduced(found.id as usize);
                let id = found.id;
                Candidate { id, reduced }.neighbor(self.metric)
            };
            judged.push(row.iter().take(k).map(truly).collect());
        }
        recall(&judged.into_iter().collect(), &self.truth, k)
    }

    /// The true neighbours of the queries: a row a query, as many as the largest count asks for.
    #[must_use]
    pub fn truth(&self) -> &Neighbors {
        &self.truth
    }

    /// Why the true neighbours could not be kept in the cache, if they could not: the file, and
    /// what the system said.
    #[must_use]
    pub fn unkept(&self) -> Option<&str> {
        self.unkept.as_deref()
    }
}

/// How many threads `threads` are, where 0 means one a core: the current pool has the number that
/// `on_threads` takes for 0, unless the caller is in a pool of another size.
fn counted(threads: usize) -> usize {
    if threads == 0 {
        rayon::current_num_threads()
    } else {
        threads
    }
}

/// The `k` nearest rows of each query, from the folder `cache` if they are there, else by brute
/// force; these are then kept there, or it is told why they could not be.
fn true_neighbors(
    metric: Metric,
    base: &Arc<Vectors>,
    queries: &Vectors,
    k: usize,
    cache: Option<&Path>,
) -> Result<(Neighbors, Option<String>), MeasureError> {
    // The name is a hash of the data and k, so a file that is there is of this task or damaged.
    // `read` refuses a damaged one. A base of fewer than k rows has as many neighbours as rows.
    let path = cache.map(|folder| truth_cache::path(folder, base, queries, k, metric));
    if let Some(path) = &path
        && let Some(truth) = truth_cache::read(path, queries.len(), k.min(base.len()))
    {
        return Ok((truth, None));
    }
    let exact =
        registry::brute_force(metric, base.clone()).map_err(|source| MeasureError::Build {
            index: BruteForce::KEY,
            source,
        })?;
    let truth = exact.query_batch(queries, k)?;
    // Nothing is lost but the time to compute them again.
    let unkept = path.and_then(|path| {
        let error = truth_cache::write(&path, &truth).err()?;
        Some(file_error(&path, &error).to_string())
    });
    Ok((truth, unkept))
}

/// The faster of two rounds: on a shared machine, what slows a short one down is never the index.
/// A long round is not repeated.
fn better_of_two(
    round: impl Fn() -> Result<TimedQueries, QueryError>,
) -> Result<TimedQueries, QueryError> {
    let first = round()?;
    if first.seconds.iter().sum::<f64>() > LONG_ROUND_S {
        return Ok(first);
    }
    // Both rounds give the same neighbours, so the whole result of the faster one is kept, its
    // latencies included.
    let second = round()?;
    if second.queries_per_second() > first.queries_per_second() {
        Ok(second)
    } else {
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    use crate::index::registry::find;

    fn task() -> Task {
        let base = Arc::new(Vectors::from_bytes(2, (0..100).collect::<Vec<u8>>()).unwrap());
        let queries = Vectors::from_bytes(2, vec![10, 12, 51, 50]).unwrap();
        Task::new("toy", base, queries, &[3, 1], 1, None).unwrap()
    }

    /// An index that tells all it returns to be nearer than it is.
    #[test]
    fn estimated_distances_earn_nothing() {
        let task = task();
        let claimed = |id: u32| Neighbor { id, distance: 0.0 };
        let right = task.truth().iter();
        let right = right.map(|row| row.iter().map(|found| claimed(found.id)).collect());
        assert_eq!(task.recall(&right.collect(), 2), 1.0);
        let farthest = |query: usize| -> Vec<Neighbor> {
            let ranker = Ranker::new(&task.base, Metric::Euclidean, task.queries.row(query));
            let mut ids: Vec<u32> = (0..task.base.len() as u32).collect();
            ids.sort_by(|&a, &b| {
                ranker
                    .reduced(b as usize)
                    .total_cmp(&ranker.reduced(a as usize))
            });
            ids.into_iter().take(2).map(claimed).collect()
        };
        let wrong: Neighbors = (0..task.queries.len()).map(farthest).collect();
        assert_eq!(task.recall(&wrong, 2), 0.0);
    }

    #[test]
    fn an_exact_index_has_recall_one_and_a_whole_row() {
        let mut rows = Vec::new();
        let entry = find("brute_force").unwrap();
        let settings = Settings::default();
        task()
            .run(entry, &settings, &entry.query_sweep(), |row| rows.push(row))
            .unwrap();
        let [row, nearest] = &rows[..] else {
            panic!("a row for each k, not {rows:?}")
        };
        assert_eq!(
            (row.index.as_str(), row.n, row.d, row.k, row.recall),
            ("brute_force", 50, 2, 3, 1.0)
        );
        assert_eq!((nearest.k, nearest.recall), (1, 1.0));
        assert!(
            row.qps > 0.0 && row.qps_batch > 0.0 && row.p50_us <= row.p99_us,
            "{row:?}"
        );
        assert_eq!(row.param("nprobe"), None);
        assert!(row.memory_bytes >= 100, "it keeps the vectors: {row:?}");
        assert_eq!(row.cores, Some(Machine::here().cores));
    }

    /// The build and the single queries are the same: only threads and the batch's speed differ.
    #[test]
    fn a_batch_on_other_threads_is_a_row_of_its_own_with_the_same_build() {
        let task = Task {
            also_threads: vec![2],
            ..task()
        };
        let mut rows = Vec::new();
        let (entry, none) = (find("brute_force").unwrap(), Settings::default());
        let run = task.run(entry, &none, std::slice::from_ref(&none), |row| {
            rows.push(row)
        });
        run.unwrap();
        let counts: Vec<(usize, usize)> = rows.iter().map(|row| (row.k, row.threads)).collect();
        assert_eq!(counts, [(3, 2), (3, 1), (1, 2), (1, 1)]);
        for pair in rows.chunks(2) {
            let alike = Measurement {
                threads: 1,
                build_threads: None,
                qps_batch: pair[1].qps_batch,
                ..pair[0].clone()
            };
            assert_eq!(alike, pair[1]);
            assert!(pair[0].qps_batch > 0.0 && pair[0].build_threads == Some(1));
        }
    }

    /// On a line through the origin all rows are in the same direction, so that all are ties by
    /// cosine; by inner product the last is the best.
    #[test]
    fn the_metric_is_that_of_the_truth_of_the_index_and_of_the_record() {
        let line: Vec<u8> = (1..51).flat_map(|i| [i, 2 * i]).collect();
        let line = Arc::new(Vectors::from_bytes(2, line).unwrap());
        let queries = Vectors::from_bytes(2, vec![1, 1]).unwrap();
        for (metric, nearest) in [
            (Metric::Manhattan, 0),
            (Metric::InnerProduct, 49),
            (Metric::Cosine, 0),
        ] {
            let (line, queries) = (line.clone(), queries.clone());
            let task = Task::by(metric, "line", line, queries, &[1], 1, None).unwrap();
            if metric != Metric::Cosine {
                assert_eq!(task.truth().row(0)[0].id, nearest);
            }
            let mut rows = Vec::new();
            let (entry, none) = (find("ball_tree").unwrap(), Settings::default());
            let run = task.run(entry, &none, std::slice::from_ref(&none), |row| {
                rows.push(row)
            });
            run.unwrap();
            assert_eq!(
                (rows[0].metric.as_str(), rows[0].recall),
                (metric.name(), 1.0)
            );
            let any = |id| vec![Neighbor { id, distance: 0.0 }];
            let worst: Neighbors = [any(49 - nearest)].into_iter().collect();
            // By cosine any row is as near as the nearest.
            let expected = if metric == Metric::Cosine { 1.0 } else { 0.0 };
            assert_eq!(task.recall(&worst, 1), expected, "{}", metric.name());
        }
    }

    #[test]
    fn ground_truth_is_cached_and_a_damaged_cache_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let base = Arc::new(Vectors::from_bytes(2, (0..100).collect::<Vec<u8>>()).unwrap());
        let queries = Vectors::from_bytes(2, vec![10, 12, 51, 50]).unwrap();
        let truth = || {
            let (truth, unkept) =
                true_neighbors(Metric::Euclidean, &base, &queries, 3, Some(folder.path())).unwrap();
            assert_eq!(unkept, None);
            truth
        };
        let first = truth();
        assert_eq!(&first, task().truth());
        let path = truth_cache::path(folder.path(), &base, &queries, 3, Metric::Euclidean);
        let written = fs::read(&path).unwrap();
        fs::write(&path, &written[..50]).unwrap();
        assert_eq!(truth(), first);
        assert_eq!(fs::read(&path).unwrap(), written);
        // What is there is not computed again.
        let other: Neighbors = [task().truth().row(1), task().truth().row(0)]
            .map(<[Neighbor]>::to_vec)
            .into_iter()
            .collect();
        truth_cache::write(&path, &other).unwrap();
        assert_eq!(truth(), other);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_told_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let Task { base, queries, .. } = task();
        let below = file.join("cache");
        let told = Task::new("toy", base, queries, &[3, 1], 1, Some(&below)).unwrap();
        assert_eq!(told.truth(), task().truth());
        assert!(told.unkept().unwrap().contains("file/cache/truth-"));
    }

    #[test]
    fn no_queries_are_an_error() {
        let Task { base, queries, .. } = task();
        let error = Task::new("toy", base, queries.head(0), &[1], 1, None).unwrap_err();
        assert!(matches!(error, MeasureError::NoQueries), "{error}");
    }

    #[test]
    fn an_unknown_parameter_is_refused_before_anything_is_built() {
        let refused = |key: &str, build: Settings, sweep: &[Settings]| {
            let run = task().run(find(key).unwrap(), &build, sweep, |_| {});
            run.unwrap_err().to_string()
        };
        let nprobe = Settings::default().with("nprobe", 3.0);
        assert_eq!(
            refused("brute_force", nprobe.clone(), &[]),
            "brute_force: there is no parameter \"nprobe\" (known: none)"
        );
        // A knob of the query is none of the build.
        assert!(refused("ivf_flat", nprobe, &[]).starts_with("ivf_flat: there is no parameter"));
        let nlist = Settings::default().with("nlist", 3.0);
        let known = refused("ivf_flat", Settings::default(), &[nlist]);
        assert!(known.contains("known: nlist, seed, nprobe"), "{known}");
    }
}
