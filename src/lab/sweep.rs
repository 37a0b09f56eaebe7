//! An index that is built once over a [`Task`] and asked with one setting after another: what a
//! lesson measures in its own run.
//!
//! [`Task::run`] does the same for the record, on disk and with all that a comparison over months
//! needs. Here each setting gives a [`Run`]: the columns of the table in FAISS's documentation
//! (search time, 1-R@1, size of the index, build time), the recall, and the speed with its spread.

use std::path::PathBuf;
use std::time::Instant;

use super::build_cache::Builds;
use super::task::{MeasureError, Task, WARM_UP, refused};
use crate::classify::Weights;
use crate::fashion::Fashion;
use crate::files;
use crate::index::registry::{Built, Entry, Settings};
use crate::lab::difficulty::{Difficulty, DifficultyError, difficulty};
use crate::lab::evaluate::{accuracy, on_threads, three_passes, time_queries};
use crate::neighbor::Neighbors;

/// So many queries tell how hard the data are, at a twentieth of the time of 10,000.
const DIFFICULTY_QUERIES: usize = 500;

/// An index over the base of a task, built and ready for any search setting.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::index::registry::{Settings, find};
/// use fashion_knn::lab::task::Task;
/// use fashion_knn::vectors::Vectors;
///
/// let base = Arc::new(Vectors::from_bytes(1, (0..64).collect::<Vec<u8>>())?);
/// let queries = Vectors::from_bytes(1, vec![10, 50])?;
/// let task = Task::new("line", base, queries, &[3], 1, None)?;
///
/// // One build, as many settings as one likes.
/// let annoy = task.build(find("annoy").expect("it is in the registry"), &Settings::default())?;
/// let all_leaves = annoy.ask(&"search_k=1000".parse()?, 3)?;
/// assert_eq!((all_leaves.index, all_leaves.recall), ("annoy", 1.0));
/// assert!(all_leaves.slowest <= all_leaves.qps && all_leaves.qps <= all_leaves.fastest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BuiltIndex<'a> {
    task: &'a Task,
    entry: &'static Entry,
    built: Built,
    /// Seconds that the build took, on the task's threads.
    pub build_s: f64,
}

/// What one setting of an index gave, asked on one thread with a query a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The task's name: "pixels".
    pub data: String,
    /// The index's name on the command line: "annoy".
    pub index: &'static str,
    /// Its name in tables and charts: "Annoy".
    pub name: &'static str,
    /// Whether it always returns the true neighbours.
    pub exact: bool,
    /// Whether it was asked with its own defaults.
    pub is_default: bool,
    /// What was set, "nprobe=4"; empty for the defaults.
    pub settings: String,
    /// The main knob's name; `None` if there is nothing to set.
    pub main_knob: Option<&'static str>,
    /// The value of the main knob divided by its default ([`effort_of`]); `None` where another
    /// knob is not at its default, or there is no knob.
    pub effort: Option<f64>,
    /// recall@k, from 0 to 1.
    pub recall: f64,
    /// FAISS's 1-R@1: the share of the queries whose first row returned is their true nearest.
    pub recall_at_1: f64,
    /// Queries per second, the median of three passes.
    pub qps: f64,
    /// Queries per second in the slowest pass.
    pub slowest: f64,
    /// Queries per second in the fastest pass.
    pub fastest: f64,
    /// Seconds for all queries of the task, in the median pass.
    pub search_s: f64,
    /// Seconds of the build.
    pub build_s: f64,
    /// Bytes of the index, the vectors that it keeps included.
    pub memory_bytes: usize,
    /// Vectors in the base.
    pub n: usize,
    /// Share of the queries whose class the vote of the k neighbours gives; `None` if the task has
    /// no labels.
    pub accuracy: Option<f64>,
}

impl Task {
    /// A lesson's task, on one thread: for the first `queries` test images of `data`, their `k`
    /// nearest training images. It knows the classes of both, and keeps what it builds in the
    /// cache folder.
    ///
    /// # Errors
    /// As [`Task::new`].
    pub fn of(name: &str, data: &Fashion, queries: usize, k: usize) -> Result<Self, MeasureError> {
        let asked = data.test.head(queries);
        let labels = data.test_labels[..asked.len()].into();
        let task = Self::new(name, data.train.clone(), asked, &[k], 1, None)?;
        let task = task.with_builds_kept_in(files::cache_dir().join("indexes"));
        Ok(task.with_labels(data.train_labels.clone(), labels))
    }

    /// How hard the base is to search, by the first 500 queries ([`difficulty`]).
    ///
    /// # Errors
    /// As [`difficulty`].
    pub fn difficulty(&self, k: usize) -> Result<Difficulty, DifficultyError> {
        difficulty(&self.base, &self.queries.head(DIFFICULTY_QUERIES), k)
    }

    /// The same task, whose builds ([`Task::build`]) are kept in that folder if they take long, and
    /// taken from there the next time.
    #[must_use]
    pub fn with_builds_kept_in(mut self, folder: PathBuf) -> Self {
        self.builds = Some(Builds::new(folder, &self.base));
        self
    }

    /// Builds `entry` over the base with the parameters `build`, on the task's threads; or takes it
    /// from where it was kept, with the time that its build took then.
    ///
    /// # Errors
    /// If the index has no parameter of some name, refuses its data or a parameter, or the system
    /// gives no threads.
    pub fn build(
        &self,
        entry: &'static Entry,
        build: &Settings,
    ) -> Result<BuiltIndex<'_>, MeasureError> {
        entry
            .check(build, &[])
            .map_err(|error| refused(entry, error))?;
        let builds = self.builds.as_ref();
        let kept = builds.map(|builds| builds.place(entry, self.metric, build, self.threads));
        let (built, build_s) = match kept.as_ref().and_then(|kept| kept.load(entry)) {
            Some(loaded) => loaded,
            None => {
                let new = self.build_anew(entry, build)?;
                if let Some(kept) = kept {
                    kept.keep(&new.0, new.1);
                }
                new
            }
        };
        Ok(BuiltIndex {
            task: self,
            entry,
            built,
            build_s,
        })
    }

    /// The index, and the seconds that its build took.
    fn build_anew(&self, entry: &Entry, build: &Settings) -> Result<(Built, f64), MeasureError> {
        let start = Instant::now();
        let built = on_threads(self.threads, || {
            (entry.build_under)(self.metric, self.base.clone(), build)
        })?;
        let build_s = start.elapsed().as_secs_f64();
        let built = built.map_err(|error| refused(entry, error))?;
        Ok((built, build_s))
    }
}

impl BuiltIndex<'_> {
    /// The settings of a sweep: the index's own defaults, then every combination of the sweep
    /// values of its search parameters that the build takes.
    #[must_use]
    pub fn sweep(&self) -> Vec<Settings> {
        let mut all = vec![Settings::default()];
        // Without knobs the sweep is one empty setting: the defaults again.
        if !self.entry.query_knobs.is_empty() {
            let mut swept = self.entry.query_sweep();
            swept.retain(|settings| (self.built)(settings).is_ok());
            all.extend(swept);
        }
        all
    }

    /// Asks the index, searched with `settings`, for the `k` nearest of every query: three passes
    /// over all queries, one a call.
    ///
    /// # Errors
    /// If the index has no search parameter of some name, or refuses the settings or the queries.
    pub fn ask(&self, settings: &Settings, k: usize) -> Result<Run, MeasureError> {
        let index = (self.built)(settings).map_err(|error| refused(self.entry, error))?;
        let queries = &self.task.queries;
        // The warm-up: its answers and times are dropped.
        time_queries(index.as_ref(), &queries.head(WARM_UP), k)?;
        let passes = three_passes(|| time_queries(index.as_ref(), queries, k))?;
        let (found, qps) = (passes.neighbors(), passes.queries_per_second());
        Ok(Run {
            data: self.task.name.clone(),
            index: self.entry.key,
            name: self.entry.name,
            exact: self.entry.exact,
            is_default: settings.names().next().is_none(),
            settings: settings.to_string(),
            main_knob: self.entry.main_knob().map(|knob| knob.name),
            effort: effort_of(self.entry, settings),
            recall: self.task.recall(found, k),
            recall_at_1: self.task.recall(found, 1),
            qps,
            slowest: passes.slowest(),
            fastest: passes.fastest(),
            search_s: queries.len() as f64 / qps,
            build_s: self.build_s,
            memory_bytes: index.memory_bytes(),
            n: self.task.base.len(),
            accuracy: self.accuracy(found, k),
        })
    }

    /// The share of the queries that the vote of their `k` neighbours classifies rightly.
    fn accuracy(&self, found: &Neighbors, k: usize) -> Option<f64> {
        let labels = self.task.labels.as_ref()?;
        let predicted = Weights::Uniform.vote_rows(found, k, &labels.base);
        Some(accuracy(&predicted, &labels.queries))
    }
}

/// How much the main knob is turned up: its value divided by its default. So knobs of different
/// indexes, whose values have nothing to do with each other, stand on one axis.
///
/// A default of zero means that the index chooses for the data. The value is then divided by the
/// middle one of the knob's sweep. `None` if the index has no knob, or another one than the main
/// knob is not at its default.
#[must_use]
pub fn effort_of(entry: &Entry, settings: &Settings) -> Option<f64> {
    let main = entry.main_knob()?;
    let mut others = entry
        .query_knobs
        .iter()
        .filter(|knob| knob.name != main.name);
    if others.any(|knob| settings.get(knob) != knob.default) {
        return None;
    }
    let reference = if main.default == 0.0 {
        main.sweep[main.sweep.len() / 2]
    } else {
        main.default
    };
    let effort = settings.get(main) / reference;
    (effort > 0.0).then_some(effort)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::registry::{REGISTRY, find};
    use crate::vectors::Vectors;

    /// The numbers 0 to 99 on a line; below 50 they are of class 0, from there on of class 1.
    fn line() -> Task {
        let base = Arc::new(Vectors::from_bytes(1, (0..100).collect::<Vec<u8>>()).unwrap());
        let queries = Vectors::from_bytes(1, vec![3, 40, 60, 97]).unwrap();
        let labels: Arc<[u8]> = (0..100).map(|row| u8::from(row >= 50)).collect();
        // The last query is said to be of class 0: the vote of its neighbours is wrong.
        let task = Task::new("line", base, queries, &[5], 1, None).unwrap();
        task.with_labels(labels, [0, 0, 1, 0].into())
    }

    #[test]
    fn a_misspelt_parameter_is_refused() {
        let (task, annoy) = (line(), find("annoy").unwrap());
        let unknown = |error: Option<MeasureError>| {
            error.is_some_and(|error| error.to_string().contains("no parameter"))
        };
        let built = task.build(annoy, &"n_tree=3".parse().unwrap());
        assert!(unknown(built.err()));
        let index = task.build(annoy, &Settings::default()).unwrap();
        let run = index.ask(&"serch_k=9".parse().unwrap(), 5);
        assert!(unknown(run.err()));
    }

    #[test]
    fn an_exact_index_finds_all_and_votes_as_the_line_says() {
        let task = line();
        let brute = task
            .build(find("brute_force").unwrap(), &Settings::default())
            .unwrap();
        let run = brute.ask(&Settings::default(), 5).unwrap();
        assert_eq!((run.recall, run.recall_at_1), (1.0, 1.0));
        assert_eq!(run.accuracy, Some(0.75));
        assert_eq!((run.n, run.is_default, run.effort), (100, true, None));
        assert!(run.slowest <= run.qps && run.qps <= run.fastest);
        assert!((run.search_s * run.qps - 4.0).abs() < 1e-9);
        // An exact index has nothing to set.
        assert_eq!(brute.sweep(), [Settings::default()]);
        let entry = find("hnsw").unwrap();
        let sweep = task.build(entry, &Settings::default()).unwrap().sweep();
        assert_eq!(sweep.len(), 1 + entry.query_sweep().len());
    }

    #[test]
    fn what_an_index_refuses_is_told_with_its_name() {
        let task = line();
        let entry = find("hnsw").unwrap();
        let Err(error) = task.build(entry, &"ef_construction=0".parse().unwrap()) else {
            panic!("links cannot be chosen among no candidates");
        };
        assert!(error.to_string().starts_with("hnsw: "), "{error}");
        let built = task.build(entry, &Settings::default()).unwrap();
        assert!(built.ask(&"ef_search=0".parse().unwrap(), 5).is_err());
        assert!(built.ask(&Settings::default(), 0).is_err());
    }

    #[test]
    fn effort_is_relative_to_the_default_and_only_of_the_main_knob() {
        for entry in REGISTRY {
            let Some(main) = entry.main_knob() else {
                assert_eq!(effort_of(entry, &Settings::default()), None);
                continue;
            };
            if main.default > 0.0 {
                let twice = Settings::default().with(main.name, 2.0 * main.default);
                assert_eq!(effort_of(entry, &twice), Some(2.0), "{}", entry.key);
                assert_eq!(effort_of(entry, &Settings::default()), Some(1.0));
            } else {
                assert_eq!(effort_of(entry, &Settings::default()), None);
            }
            for other in entry
                .query_knobs
                .iter()
                .filter(|knob| knob.name != main.name)
            {
                let moved = Settings::default().with(other.name, other.default + 1.0);
                assert_eq!(effort_of(entry, &moved), None, "{}", entry.key);
            }
        }
    }
}
