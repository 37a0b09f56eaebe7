//! Measuring an index: one [`Measurement`] a run, the rows of `data/results/*.csv`.
//!
//! Measuring and drawing never mix: the `measure` binary writes the rows, the notebooks read them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs, io, process};

use ndarray::ArrayView2;
use ndarray_npy::{WritableElement, WriteNpyExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::distance::{Metric, Ranker};
use crate::files::write_atomically;
use crate::index::registry::{Entry, Settings};
use crate::index::{BruteForce, BuildError, Index, Query, QueryError};
use crate::lab::evaluate::{Timed, on_threads, recall, time_batch, time_queries};
use crate::neighbor::{Neighbor, Neighbors};
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
    /// The system gave no threads.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A file of results or of ground truth could not be read or written.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A parameter that the index does not have.
    #[error("{index} has no parameter {received:?}; it has {expected}")]
    UnknownKnob {
        /// Which index.
        index: &'static str,
        /// What was asked for.
        received: String,
        /// What it has.
        expected: String,
    },
}

/// What a run measured: a row of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The index's name on the command line.
    pub index: String,
    /// Its parameters: "n_trees=50 search_k=4000".
    pub params: String,
    /// What was searched in: "pixels", or a file's name.
    pub data: String,
    /// Vectors in the base.
    pub n: usize,
    /// Their dimension.
    pub d: usize,
    /// Neighbours asked for.
    pub k: usize,
    /// Threads of the build and of the batch; single queries are answered on one.
    pub threads: usize,
    /// recall@k by distance, ties being hits.
    pub recall: f64,
    /// Queries per second, one query a call.
    pub qps: f64,
    /// Queries per second, all in one call.
    pub qps_batch: f64,
    /// Median latency of a single query, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
    /// Seconds that the build took.
    pub build_s: f64,
    /// Bytes of the index, the vectors that it keeps included.
    pub memory_bytes: usize,
    /// The commit that was measured; a "+" after it says that the work tree was not clean.
    pub commit: String,
    /// The processor.
    pub cpu: String,
    /// The day, in UTC.
    pub date: String,
}

impl Measurement {
    /// A row for tests.
    #[cfg(test)]
    pub(crate) fn toy(index: &str, recall: f64, qps: f64) -> Self {
        Self {
            index: index.to_owned(),
            params: String::new(),
            data: "toy".to_owned(),
            n: 1,
            d: 1,
            k: 1,
            threads: 1,
            recall,
            qps,
            qps_batch: qps,
            p50_us: 0.0,
            p99_us: 0.0,
            build_s: 0.0,
            memory_bytes: 0,
            commit: String::new(),
            cpu: String::new(),
            date: String::new(),
        }
    }

    /// The value of one of the index's parameters.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<f64> {
        let values = self
            .params
            .split(' ')
            .filter_map(|pair| pair.split_once('='));
        values
            .filter(|(known, _)| *known == name)
            .find_map(|(_, value)| value.parse().ok())
    }
}

/// What is measured on: a base, queries that no index has seen, and their true neighbours.
#[derive(Debug, Clone)]
pub struct Task {
    /// What the record calls the data.
    pub name: String,
    /// The vectors to search in.
    pub base: Arc<Vectors>,
    /// The queries.
    pub queries: Vectors,
    /// How many neighbours are asked for: each count is measured over the same build.
    pub ks: Vec<usize>,
    /// Threads of the build and of the batch (0: one a core).
    pub threads: usize,
    /// The true neighbours, as many as the largest count asks for.
    truth: Neighbors,
}

impl Task {
    /// A task, its ground truth computed by [`BruteForce`] or, if `cache` is a folder, taken from there when it has been
    /// computed before (the file's name is a hash of the data, the queries and k).
    ///
    /// # Errors
    /// If the base is empty, the queries do not fit it, one of `ks` is zero or there is none, or the cache cannot be
    /// written.
    pub fn new(
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
        let k = ks.iter().copied().max().ok_or(QueryError::ZeroK)?;
        let compute = || -> Result<Neighbors, MeasureError> {
            let exact = BruteForce::over(base.clone(), Metric::Euclidean).map_err(|source| {
                MeasureError::Build {
                    index: "brute_force",
                    source,
                }
            })?;
            Ok(exact.query_batch(&queries, k)?)
        };
        let truth = match cache {
            None => compute()?,
            Some(folder) => {
                let path = folder.join(format!("truth-{}.bin", key(&base, &queries, k)));
                match fs::read(&path)
                    .ok()
                    .and_then(|bytes| decode(&bytes, queries.len(), k.min(base.len())))
                {
                    Some(truth) => truth,
                    None => {
                        let truth = compute()?;
                        write_atomically(&path, &encode(&truth))
                            .map_err(|error| file_error(&path, &error))?;
                        truth
                    }
                }
            }
        };
        Ok(Self {
            name: name.to_owned(),
            base,
            queries,
            ks: ks.to_vec(),
            threads,
            truth,
        })
    }

    /// Builds `entry` with `build` and measures it with each of `sweep`, which are settings of its query knobs, for each
    /// count of neighbours; `each` is given every row as soon as it is measured.
    ///
    /// # Errors
    /// If a setting is unknown or refused.
    pub fn run(
        &self,
        entry: &'static Entry,
        build: &Settings,
        sweep: &[Settings],
        mut each: impl FnMut(Measurement),
    ) -> Result<(), MeasureError> {
        check_knobs(entry, build, sweep)?;
        let refused = |source| MeasureError::Build {
            index: entry.key,
            source,
        };
        let start = Instant::now();
        let built = on_threads(self.threads, || (entry.build)(self.base.clone(), build))?
            .map_err(refused)?;
        let build_s = start.elapsed().as_secs_f64();
        for settings in sweep {
            let index = built(settings).map_err(refused)?;
            for &k in &self.ks {
                each(self.measure(entry, index.as_ref(), k, build_s)?);
            }
        }
        Ok(())
    }

    /// Asks `index`, an `entry` over the base, for the `k` nearest of every query: one query a call, then all in one.
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
        // Caches, page tables and the processor's clock need a few queries to settle.
        time_queries(index, &self.queries.head(self.queries.len().min(50)), k)?;
        let single = better_of_two(|| time_queries(index, &self.queries, k))?;
        let batch = on_threads(self.threads, || {
            better_of_two(|| time_batch(index, &self.queries, k))
        })??;
        let params: Vec<_> = index
            .params()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Ok(Measurement {
            index: entry.key.to_owned(),
            params: params.join(" "),
            data: self.name.clone(),
            n: self.base.len(),
            d: self.base.dim(),
            k,
            threads: if self.threads == 0 {
                rayon::current_num_threads()
            } else {
                self.threads
            },
            recall: self.recall(&single.neighbors, k),
            qps: single.queries_per_second(),
            qps_batch: batch.queries_per_second(),
            p50_us: single.latency_us(0.5),
            p99_us: single.latency_us(0.99),
            build_s,
            memory_bytes: index.memory_bytes(),
            commit: commit(),
            cpu: cpu(),
            date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
        })
    }

    /// recall@k of what was found for the queries, by the true distances of the rows returned: those of an index that keeps codes alone
    /// are estimates.
    ///
    /// # Panics
    /// If there is not a row for each query, or an id is none of the base.
    #[must_use]
    pub fn recall(&self, found: &Neighbors, k: usize) -> f64 {
        let judged = |(query, row): (usize, &[Neighbor])| -> Vec<Neighbor> {
            let ranker = Ranker::new(&self.base, Metric::Euclidean, self.queries.row(query));
            let distance =
                |id: u32| Metric::Euclidean.distance_of_reduced(ranker.reduced(id as usize));
            row.iter()
                .take(k)
                .map(|found| Neighbor {
                    id: found.id,
                    distance: distance(found.id),
                })
                .collect()
        };
        recall(
            &found.iter().enumerate().map(judged).collect(),
            &self.truth,
            k,
        )
    }

    /// Writes `base.npy`, `queries.npy` and, queries × the largest k, the true distances as `distances.npy` (f64) to
    /// `folder`: what a program in another language needs to be measured on the same task.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<(), MeasureError> {
        let distances: Vec<f64> = self
            .truth
            .iter()
            .flatten()
            .map(|neighbor| neighbor.distance)
            .collect();
        let width = distances.len() / self.truth.len().max(1);
        let write = |name: &str, bytes: Result<Vec<u8>, Box<dyn std::error::Error>>| {
            let path = folder.join(name);
            let bytes = bytes.map_err(|error| file_error(&path, error.as_ref()))?;
            write_atomically(&path, &bytes).map_err(|error| file_error(&path, &error))
        };
        write("base.npy", npy_of(&self.base))?;
        write("queries.npy", npy_of(&self.queries))?;
        write("distances.npy", npy(&distances, width))
    }

    /// The true neighbours of the queries.
    #[must_use]
    pub fn truth(&self) -> &Neighbors {
        &self.truth
    }
}

/// Rows of `width` values in numpy's format.
fn npy<T: WritableElement>(
    values: &[T],
    width: usize,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    ArrayView2::from_shape((values.len() / width.max(1), width), values)?.write_npy(&mut bytes)?;
    Ok(bytes)
}

fn npy_of(vectors: &Vectors) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    match vectors.bytes() {
        Some(values) => npy(values, vectors.dim()),
        None => npy(&vectors.to_floats(), vectors.dim()),
    }
}

/// The faster of two rounds, as what slows a short one down on a shared machine is never the index; of half a second or more
/// one is enough.
fn better_of_two(round: impl Fn() -> Result<Timed, QueryError>) -> Result<Timed, QueryError> {
    let first = round()?;
    if first.seconds.iter().sum::<f64>() > 0.5 {
        return Ok(first);
    }
    let second = round()?;
    Ok(
        if second.queries_per_second() > first.queries_per_second() {
            second
        } else {
            first
        },
    )
}

/// Every setting names a knob, of the build or of the query as it should.
fn check_knobs(entry: &Entry, build: &Settings, sweep: &[Settings]) -> Result<(), MeasureError> {
    let known = |knobs: &[crate::index::registry::Knob], name: &str| {
        knobs.iter().any(|knob| knob.name == name)
    };
    let unknown = build.names().find(|name| !known(entry.build_knobs, name));
    let unknown = unknown.or_else(|| {
        sweep
            .iter()
            .flat_map(Settings::names)
            .find(|name| !known(entry.query_knobs, name))
    });
    match unknown {
        None => Ok(()),
        Some(name) => {
            let knobs = entry
                .build_knobs
                .iter()
                .chain(entry.query_knobs)
                .map(|knob| knob.name)
                .collect::<Vec<_>>();
            let expected = if knobs.is_empty() {
                "none".to_owned()
            } else {
                knobs.join(", ")
            };
            Err(MeasureError::UnknownKnob {
                index: entry.key,
                received: name.to_owned(),
                expected,
            })
        }
    }
}

/// Adds rows to a CSV file, which is replaced whole: a reader sees the old rows or all of them.
///
/// # Errors
/// If the file holds something else, or cannot be written.
pub fn append_csv(path: &Path, rows: &[Measurement]) -> Result<(), MeasureError> {
    let mut all = if path.exists() {
        read_csv(path)?
    } else {
        Vec::new()
    };
    all.extend_from_slice(rows);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in &all {
        writer
            .serialize(row)
            .map_err(|error| file_error(path, &error))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| file_error(path, &error))?;
    write_atomically(path, &bytes).map_err(|error| file_error(path, &error))
}

/// The rows of a CSV file that [`append_csv`] wrote.
///
/// # Errors
/// If it cannot be read or its columns are others.
pub fn read_csv(path: &Path) -> Result<Vec<Measurement>, MeasureError> {
    let mut reader = csv::Reader::from_path(path).map_err(|error| file_error(path, &error))?;
    reader
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(path, &error))
}

fn file_error(path: &Path, error: &dyn std::error::Error) -> MeasureError {
    MeasureError::File {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

/// A name for the ground truth of these data.
fn key(base: &Vectors, queries: &Vectors, k: usize) -> String {
    let mut hash = Sha256::new();
    for vectors in [base, queries] {
        hash.update((vectors.dim() as u64).to_le_bytes());
        match (vectors.bytes(), vectors.floats()) {
            (Some(bytes), _) => hash.update(bytes),
            (_, floats) => floats
                .unwrap_or_default()
                .iter()
                .for_each(|value| hash.update(value.to_le_bytes())),
        }
    }
    hash.update((k as u64).to_le_bytes());
    format!("{:x}", hash.finalize())[..24].to_owned()
}

/// Ids and distances, little-endian, a checksum before them.
fn encode(truth: &Neighbors) -> Vec<u8> {
    let record = |neighbor: &Neighbor| {
        neighbor
            .id
            .to_le_bytes()
            .into_iter()
            .chain(neighbor.distance.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let body: Vec<u8> = truth.iter().flatten().flat_map(record).collect();
    [&Sha256::digest(&body)[..], &body].concat()
}

/// What [`encode`] wrote, if it is whole and of `rows` × `k`; anything else is computed again.
fn decode(bytes: &[u8], rows: usize, k: usize) -> Option<Neighbors> {
    let (sum, body) = bytes.split_at_checked(32)?;
    if body.len() != rows * k * 12 || Sha256::digest(body)[..] != *sum {
        return None;
    }
    let neighbor = |record: &[u8]| {
        let (id, distance) = record.split_first_chunk::<4>()?;
        Some(Neighbor {
            id: u32::from_le_bytes(*id),
            distance: f64::from_le_bytes(distance.try_into().ok()?),
        })
    };
    body.chunks_exact(k * 12)
        .map(|row| {
            row.chunks_exact(12)
                .map(neighbor)
                .collect::<Option<Vec<_>>>()
        })
        .collect()
}

/// The commit of the checkout that this was compiled from.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = process::Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .output();
        output
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let clean = git(&[
        "status",
        "--porcelain",
        "--",
        "src",
        "Cargo.toml",
        "Cargo.lock",
    ])
    .is_some_and(|changes| changes.is_empty());
    if clean { commit } else { commit + "+" }
}

/// The processor's name, as the system gives it.
#[must_use]
pub fn cpu() -> String {
    let linux = || -> io::Result<Option<String>> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(line.map(|(_, name)| name.trim().to_owned()))
    };
    let mac = || {
        let output = process::Command::new("sysctl")
            .args(["-n", "machdep.cpu.brand_string"])
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    linux()
        .ok()
        .flatten()
        .or_else(mac)
        .unwrap_or_else(|| env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::registry::find;

    fn task(cache: Option<&Path>) -> Task {
        let base = Arc::new(Vectors::from_bytes(2, (0..100).collect::<Vec<u8>>()).unwrap());
        let queries = Vectors::from_bytes(2, vec![10, 12, 51, 50]).unwrap();
        Task::new("toy", base, queries, &[3, 1], 1, cache).unwrap()
    }

    /// An index that tells all it returns to be nearer than it is.
    #[test]
    fn estimated_distances_earn_nothing() {
        let task = task(None);
        let found = task.truth().iter().map(|row| {
            row.iter()
                .map(|n| Neighbor {
                    id: n.id,
                    distance: 0.0,
                })
                .collect()
        });
        assert_eq!(task.recall(&found.collect(), 2), 1.0);
        let farthest = |query: usize| {
            let ranker = Ranker::new(&task.base, Metric::Euclidean, task.queries.row(query));
            let mut ids: Vec<u32> = (0..task.base.len() as u32).collect();
            ids.sort_by(|&a, &b| {
                ranker
                    .reduced(b as usize)
                    .total_cmp(&ranker.reduced(a as usize))
            });
            ids.into_iter()
                .take(2)
                .map(|id| Neighbor { id, distance: 0.0 })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            task.recall(&(0..task.queries.len()).map(farthest).collect(), 2),
            0.0
        );
    }

    #[test]
    fn an_exact_index_has_recall_one_and_a_whole_row() {
        let mut rows = Vec::new();
        let entry = find("brute_force").unwrap();
        task(None)
            .run(entry, &Settings::default(), &entry.query_sweep(), |row| {
                rows.push(row)
            })
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
        assert_eq!(
            Measurement {
                params: "m=8 nprobe=3".into(),
                ..row.clone()
            }
            .param("nprobe"),
            Some(3.0)
        );
        assert_eq!(row.param("nprobe"), None);
        assert!(row.memory_bytes >= 100, "it keeps the vectors: {row:?}");
    }

    #[test]
    fn what_is_exported_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let task = task(None);
        task.export(folder.path()).unwrap();
        let read = |name: &str| Vectors::read(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("base.npy").bytes(), read("queries.npy").bytes()),
            (task.base.bytes(), task.queries.bytes())
        );
        let distances: Vec<f32> = task
            .truth
            .iter()
            .flatten()
            .map(|neighbor| neighbor.distance as f32)
            .collect();
        assert_eq!(read("distances.npy").to_floats(), distances);
        assert!(
            task.export(&folder.path().join("base.npy")).is_err(),
            "a file is no folder"
        );
    }

    #[test]
    fn an_unknown_parameter_is_refused_before_anything_is_built() {
        let entry = find("brute_force").unwrap();
        let error = task(None)
            .run(entry, &Settings::default().with("nprobe", 3.0), &[], |_| {})
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "brute_force has no parameter \"nprobe\"; it has none"
        );
    }

    #[test]
    fn ground_truth_is_cached_and_a_damaged_cache_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = task(Some(folder.path()));
        let path = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let written = fs::read(&path).unwrap();
        assert_eq!(decode(&written, 2, 3).unwrap(), first.truth);
        let mut damaged = written.clone();
        damaged[40] ^= 1;
        assert!(decode(&damaged, 2, 3).is_none());
        fs::write(&path, &damaged[..50]).unwrap();
        assert_eq!(task(Some(folder.path())).truth, first.truth);
        assert_eq!(fs::read(&path).unwrap(), written);
    }

    #[test]
    fn rows_are_added_and_a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/a.csv");
        let mut rows = Vec::new();
        let entry = find("brute_force").unwrap();
        task(None)
            .run(entry, &Settings::default(), &[Settings::default()], |row| {
                rows.push(row)
            })
            .unwrap();
        append_csv(&path, &rows).unwrap();
        append_csv(&path, &rows).unwrap();
        assert_eq!(
            read_csv(&path).unwrap(),
            [rows.clone(), rows.clone()].concat()
        );
        fs::write(&path, "name,colour\na,b\n").unwrap();
        assert!(append_csv(&path, &rows).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "name,colour\na,b\n");
    }
}
