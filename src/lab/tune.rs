//! Choosing query parameters: the cheapest setting of an index that reaches a wanted recall.
//!
//! The recall is measured on rows held out of the base, never on the queries that the index is for: the index is built on
//! the other rows, so that a held-out row is as unknown to it as a query will be.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::distance::Metric;
use crate::index::registry::{Built, Entry, Knob, Settings};
use crate::index::{BruteForce, BuildError, Query, QueryError};
use crate::lab::evaluate::{recall, time_queries};
use crate::neighbor::Neighbors;
use crate::vectors::{Vectors, VectorsError};

/// How often the interval between a setting that fails and one that suffices is halved.
const HALVINGS: usize = 3;
/// How often the main knob is doubled beyond its sweep before giving up.
const DOUBLINGS: usize = 6;

/// What a tuning aims at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// How many neighbours will be asked for.
    pub k: usize,
    /// The least recall@k wanted, from 0 to 1.
    pub recall: f64,
    /// How many base rows are held out to measure it on; at most a tenth of the base is.
    pub held_out: usize,
    /// Which rows: the same seed holds out the same rows.
    pub seed: u64,
}

impl Default for Target {
    /// 10 neighbours at recall .95, on 1,000 rows.
    fn default() -> Self {
        Self {
            k: 10,
            recall: 0.95,
            held_out: 1_000,
            seed: 0,
        }
    }
}

/// The setting found, and what it gave on the held-out rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The query parameters, for what `Entry::build` returns.
    pub settings: Settings,
    /// recall@k on the held-out rows.
    pub recall: f64,
    /// Queries per second on them, one a call.
    pub queries_per_second: f64,
}

/// Why nothing was found.
#[derive(Debug, Error)]
pub enum TuneError {
    /// The target is no recall, or there is nothing to hold out.
    #[error("{what} is {received}; expected {expected}")]
    Target {
        /// Which part of it.
        what: &'static str,
        /// Its value.
        received: String,
        /// What it can be.
        expected: &'static str,
    },
    /// No setting reaches the recall.
    #[error("{index} reaches recall {best:.4} at most, not {wanted}")]
    Unreachable {
        /// Which index.
        index: &'static str,
        /// The best recall of all settings tried.
        best: f64,
        /// What was wanted.
        wanted: f64,
    },
    /// The index refused its parameters or its data.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The index refused a query.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// No row is left to search in.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
}

/// The cheapest query parameters with which `entry`, built on `base` with the parameters `build`, reaches the recall of
/// `target`: [`Tuner`] for a single recall.
///
/// # Errors
/// If the target is malformed, no setting reaches it, or the index refuses the data or `build`.
pub fn tune(
    entry: &Entry,
    base: &Vectors,
    build: &Settings,
    target: &Target,
) -> Result<Tuned, TuneError> {
    Tuner::new(entry, base, build, target)?.reach(target.recall)
}

/// An index over the rows that were not held out, and what the sweep of its query knobs gave on those that were: from one
/// build, the settings for any recall.
pub struct Tuner<'a> {
    entry: &'a Entry,
    built: Built,
    queries: Vectors,
    truth: Neighbors,
    k: usize,
    swept: Vec<Tuned>,
}

impl<'a> Tuner<'a> {
    /// Builds `entry` on the rows of `base` that are not held out, with the parameters `build`, and tries every combination
    /// of the query knobs' sweep values on those that are. The recall of `target` is not read.
    ///
    /// # Errors
    /// If there is nothing to hold out, or the index refuses the data or `build`.
    pub fn new(
        entry: &'a Entry,
        base: &Vectors,
        build: &Settings,
        target: &Target,
    ) -> Result<Self, TuneError> {
        let held_out = target.held_out.min(base.len() / 10);
        if held_out == 0 {
            let (what, expected) = (
                "the number of rows held out",
                "at least 1, of a base of 10 or more",
            );
            return Err(TuneError::Target {
                what,
                received: held_out.to_string(),
                expected,
            });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(target.seed);
        let mut out = vec![false; base.len()];
        sample(&mut rng, base.len(), held_out)
            .into_iter()
            .for_each(|row| out[row] = true);
        let rows = |wanted: bool| {
            (0..base.len())
                .filter(|&row| out[row] == wanted)
                .collect::<Vec<_>>()
        };
        let (queries, rest) = (
            base.select(&rows(true))?,
            Arc::new(base.select(&rows(false))?),
        );
        let truth =
            BruteForce::over(rest.clone(), Metric::Euclidean)?.query_batch(&queries, target.k)?;
        let built = (entry.build)(rest, build)?;
        let mut tuner = Self {
            entry,
            built,
            queries,
            truth,
            k: target.k,
            swept: Vec::new(),
        };
        tuner.swept = entry
            .query_sweep()
            .into_iter()
            .map(|settings| tuner.run(settings))
            .collect::<Result<_, _>>()?;
        Ok(tuner)
    }

    /// The fastest setting that reaches `recall` on the held-out rows.
    ///
    /// Of the settings swept that suffice the fastest is kept, and its main knob (the one with most values) is then lowered
    /// towards the next smaller value by bisection. Where none suffices, the main knob is doubled from its largest value.
    ///
    /// # Errors
    /// If `recall` is none, or no setting reaches it.
    pub fn reach(&self, recall: f64) -> Result<Tuned, TuneError> {
        if !(0.0..=1.0).contains(&recall) {
            let (what, expected) = ("the recall", "a share from 0 to 1");
            return Err(TuneError::Target {
                what,
                received: recall.to_string(),
                expected,
            });
        }
        let mut tried = self.swept.clone();
        let Some(main) = self
            .entry
            .query_knobs
            .iter()
            .max_by_key(|knob| knob.sweep.len())
        else {
            return self.best(tried, recall);
        };
        if !tried.iter().any(|tuned| tuned.recall >= recall) {
            let widest = tried
                .iter()
                .max_by(|a, b| a.recall.total_cmp(&b.recall))
                .map(|tuned| tuned.settings.clone());
            let mut settings = widest.unwrap_or_default();
            for _ in 0..DOUBLINGS {
                settings = settings.clone().with(main.name, settings.get(main) * 2.0);
                // A value that the index refuses ends the search, as one that suffices does.
                let Ok(tuned) = self.run(settings.clone()) else {
                    break;
                };
                tried.push(tuned);
                if tried.last().is_some_and(|tuned| tuned.recall >= recall) {
                    break;
                }
            }
        }
        let best = self.best(tried.clone(), recall)?;
        let at = best.settings.get(main);
        let below = tried
            .iter()
            .filter(|tuned| same_but(main, self.entry, &tuned.settings, &best.settings));
        let below = below
            .map(|tuned| tuned.settings.get(main))
            .filter(|&value| value < at)
            .reduce(f64::max);
        let (Some(mut low), mut high) = (below, at) else {
            return Ok(best);
        };
        let whole = main.sweep.iter().all(|value| value.fract() == 0.0);
        for _ in 0..HALVINGS {
            // No more digits than a reader cares for.
            let digits = if whole { 1.0 } else { 1e4 };
            let middle = (f64::midpoint(low, high) * digits).round() / digits;
            if middle <= low || middle >= high {
                break;
            }
            let tuned = self.run(best.settings.clone().with(main.name, middle))?;
            if tuned.recall >= recall {
                high = middle;
            } else {
                low = middle;
            }
            tried.push(tuned);
        }
        self.best(tried, recall)
    }

    fn run(&self, settings: Settings) -> Result<Tuned, TuneError> {
        let index = (self.built)(&settings)?;
        let timed = time_queries(index.as_ref(), &self.queries, self.k)?;
        let recall = recall(&timed.neighbors, &self.truth, self.k);
        Ok(Tuned {
            settings,
            recall,
            queries_per_second: timed.queries_per_second(),
        })
    }

    fn best(&self, tried: Vec<Tuned>, wanted: f64) -> Result<Tuned, TuneError> {
        let best = tried.iter().map(|tuned| tuned.recall).fold(0.0, f64::max);
        let enough = tried.into_iter().filter(|tuned| tuned.recall >= wanted);
        let fastest = enough.max_by(|a, b| a.queries_per_second.total_cmp(&b.queries_per_second));
        fastest.ok_or(TuneError::Unreachable {
            index: self.entry.key,
            best,
            wanted,
        })
    }
}

/// Whether two settings differ in the main knob at most.
fn same_but(main: &Knob, entry: &Entry, a: &Settings, b: &Settings) -> bool {
    entry
        .query_knobs
        .iter()
        .all(|knob| knob.name == main.name || a.get(knob) == b.get(knob))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::registry::find;
    use rand::Rng;

    fn noise(rows: usize, dim: usize) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        Vectors::from_floats(
            dim,
            (0..rows * dim)
                .map(|_| rng.random::<f32>())
                .collect::<Vec<_>>(),
        )
        .unwrap()
    }

    #[test]
    fn an_exact_index_needs_no_tuning() {
        let base = noise(300, 4);
        let tuned = tune(
            find("brute_force").unwrap(),
            &base,
            &Settings::default(),
            &Target::default(),
        )
        .unwrap();
        assert_eq!((tuned.recall, tuned.settings), (1.0, Settings::default()));
    }

    #[test]
    fn a_recall_beyond_the_sweep_is_reached_by_doubling() {
        // Noise in 40 dimensions over 1,000 lists: 64 of them, the sweep's most, hold far from all neighbours.
        let (base, build) = (noise(4_000, 40), Settings::default().with("nlist", 1_000.0));
        let target = Target {
            recall: 0.98,
            held_out: 50,
            ..Target::default()
        };
        let tuned = tune(find("ivf_flat").unwrap(), &base, &build, &target).unwrap();
        let nprobe = tuned.settings.names().collect::<Vec<_>>();
        assert_eq!(nprobe, ["nprobe"]);
        assert!(
            tuned.recall >= 0.98
                && tuned
                    .settings
                    .get(&find("ivf_flat").unwrap().query_knobs[0])
                    > 64.0,
            "{tuned:?}"
        );
    }

    #[test]
    fn a_malformed_target_is_refused() {
        let entry = find("brute_force").unwrap();
        let ask = |recall, rows| {
            tune(
                entry,
                &noise(rows, 2),
                &Settings::default(),
                &Target {
                    recall,
                    ..Target::default()
                },
            )
            .unwrap_err()
        };
        assert_eq!(
            ask(1.5, 100).to_string(),
            "the recall is 1.5; expected a share from 0 to 1"
        );
        assert!(ask(f64::NAN, 100).to_string().contains("NaN"));
        assert!(ask(0.5, 5).to_string().contains("held out is 0"));
    }
}
