//! Choosing query parameters: the cheapest setting of an index that reaches a wanted recall.
//!
//! The naive way is to try settings on the queries until they suffice. That overstates what is
//! reached: the setting then fits these queries, and others will find less. Here the recall is
//! measured on rows held out of the base, and the index is built on the rest, so that a held-out
//! row is as unknown to it as a query will be.
//!
//! A [`Tuner`] builds once and tries the sweep of the query parameters. For a wanted recall it then
//! moves the *main knob*, the parameter with most values in the sweep, the others kept:
//!
//! ```text
//! recall
//!      |                   x
//!      |- - - - - - - - - - - -  wanted     1. of the settings swept that suffice, the fastest
//!      |           x     ^                  2. bisection between it and the next smaller value
//!      |   x           tried                (if none suffices, the largest value is doubled first)
//!      +---|-------|-------|---- main knob
//! ```

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::distance::Metric;
use crate::index::registry::{self, Built, Entry, Knob, Settings};
use crate::index::{BuildError, Query, QueryError};
use crate::lab::evaluate::{recall, time_queries};
use crate::neighbor::Neighbors;
use crate::vectors::{Vectors, VectorsError};

/// How often the interval between a setting that fails and one that suffices is halved. Each
/// halving costs a run over the held-out rows, and three leave an eighth of the interval. More
/// would follow chance: of the 10,000 neighbours that 1,000 rows ask for, a recall of .95 is known
/// to about √(.95 · .05 / 10,000) = .002 if they are independent, and less well if they are not.
const HALVINGS: usize = 3;
/// How often the main knob is doubled beyond its sweep before giving up. Six doublings reach 2⁶ =
/// 64 times the largest value swept. An index that still finds too little is most likely limited by
/// its build or its codes, and each doubling makes the next run slower.
const DOUBLINGS: usize = 6;
/// Digits after the point of a value that bisection tries, if the knob is no count. The values
/// stand in tables and labels, where more digits would say nothing.
const DIGITS: i32 = 4;

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

/// The cheapest query parameters with which `entry`, built on `base` with the parameters `build`,
/// reaches the recall of `target`. For several recalls, a [`Tuner`] builds once.
///
/// # Errors
/// If the target is malformed, no setting reaches it, or the index refuses the data or `build`.
///
/// ```
/// use fashion_knn::index::registry::{Settings, find};
/// use fashion_knn::lab::tune::{Target, tune};
/// use fashion_knn::vectors::Vectors;
///
/// // 500 points on a spiral; 50 of them are held out.
/// let angles = (0..500).map(|step| step as f32 / 40.0);
/// let points: Vec<f32> = angles.flat_map(|a| [a * a.cos(), a * a.sin()]).collect();
/// let base = Vectors::from_floats(2, points)?;
///
/// let annoy = find("annoy").expect("it is in the registry");
/// let target = Target { k: 5, recall: 0.9, ..Target::default() };
/// let tuned = tune(annoy, &base, &Settings::default(), &target)?;
/// assert!(tuned.recall >= 0.9);
/// assert!(tuned.settings.to_string().starts_with("search_k="));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tune(
    entry: &Entry,
    base: &Vectors,
    build: &Settings,
    target: &Target,
) -> Result<Tuned, TuneError> {
    Tuner::new(entry, base, build, target)?.reach(target.recall)
}

/// An index over the rows that were not held out, and what the sweep of its query knobs gave on
/// those that were: from one build, the settings for any recall.
pub struct Tuner<'a> {
    entry: &'a Entry,
    built: Built,
    /// The rows held out, and their true neighbours among the rest.
    queries: Vectors,
    truth: Neighbors,
    k: usize,
    /// Every setting of the sweep, measured.
    swept: Vec<Tuned>,
}

impl<'a> Tuner<'a> {
    /// Builds `entry` on the rows of `base` that are not held out, with the parameters `build`, and
    /// tries every combination of the query knobs' sweep values that the build takes on those that
    /// are. The recall of
    /// `target` is not read.
    ///
    /// # Errors
    /// If there is nothing to hold out, or the index refuses the data or `build`.
    pub fn new(
        entry: &'a Entry,
        base: &Vectors,
        build: &Settings,
        target: &Target,
    ) -> Result<Self, TuneError> {
        Self::by(Metric::Euclidean, entry, base, build, target)
    }

    /// [`Tuner::new`] for neighbours by `metric`.
    ///
    /// # Errors
    /// As [`Tuner::new`].
    pub fn by(
        metric: Metric,
        entry: &'a Entry,
        base: &Vectors,
        build: &Settings,
        target: &Target,
    ) -> Result<Self, TuneError> {
        // Both indexes see `rest` alone. Were the held-out rows in them, each would find itself at
        // distance 0, and the recall would come out too high.
        let Parts { queries, rest } = hold_out(base, target)?;
        let exact = registry::brute_force(metric, rest.clone())?;
        let mut tuner = Self {
            entry,
            truth: exact.query_batch(&queries, target.k)?,
            built: (entry.build_under)(metric, rest, build)?,
            queries,
            k: target.k,
            swept: Vec::new(),
        };
        // The sweep is run once, here. `reach` starts from its results, whatever recall is asked
        // for.
        for settings in tuner.sweep() {
            let tuned = tuner.run(settings)?;
            tuner.swept.push(tuned);
        }
        Ok(tuner)
    }

    /// The settings of the sweep that this build takes: an `IvfPq` that did not keep the vectors
    /// takes no `refine` but 0. Without knobs the sweep is one empty setting.
    fn sweep(&self) -> Vec<Settings> {
        let mut sweep = self.entry.query_sweep();
        sweep.retain(|settings| (self.built)(settings).is_ok());
        sweep
    }

    /// The fastest setting that reaches `recall` on the held-out rows, found as the
    /// [module](self) says.
    ///
    /// # Errors
    /// If `recall` is not a share from 0 to 1, or no setting reaches it.
    pub fn reach(&self, recall: f64) -> Result<Tuned, TuneError> {
        // NaN is in no range, so it is refused too.
        if !(0.0..=1.0).contains(&recall) {
            return Err(TuneError::Target {
                what: "the recall",
                received: recall.to_string(),
                expected: "a share from 0 to 1",
            });
        }
        // All that is tried is collected here, and the best is taken at the end. The sweep itself
        // stays as it is, for the next recall.
        let mut tried = self.swept.clone();
        let Some(main) = self.entry.main_knob() else {
            // Nothing to move, as with most exact indexes: the one setting suffices or none does.
            return self.fastest(&tried, recall);
        };
        // First make one setting suffice. If doubling does not get there, `fastest` gives the
        // error, with the best recall that was seen.
        if !tried.iter().any(|tuned| tuned.recall >= recall) {
            self.double(main, recall, &mut tried);
        }
        let best = self.fastest(&tried, recall)?;
        // Then look for a cheaper one just below it. Of all that suffice the fastest is returned,
        // which need not be the last one tried.
        self.bisect(main, recall, &best, &mut tried)?;
        self.fastest(&tried, recall)
    }

    /// Doubles the main knob of the setting with the best recall until it suffices, or the index
    /// refuses the value.
    fn double(&self, main: &Knob, recall: f64, tried: &mut Vec<Tuned>) {
        // The setting with the best recall has the other knobs where they help most. Doubling
        // raises its main knob only if that is above 0, as the greatest value of each sweep is.
        let by_recall = |a: &&Tuned, b: &&Tuned| a.recall.total_cmp(&b.recall);
        let widest = tried.iter().max_by(by_recall);
        let mut settings = widest.map_or_else(Settings::default, |best| best.settings.clone());
        for _ in 0..DOUBLINGS {
            let doubled = settings.get(main) * 2.0;
            settings = settings.with(main.name, doubled);
            // A value that the index refuses is no error of the tuning: it is the end of what can
            // be tried.
            let Ok(tuned) = self.run(settings.clone()) else {
                return;
            };
            let suffices = tuned.recall >= recall;
            tried.push(tuned);
            if suffices {
                return;
            }
        }
    }

    /// Lowers the main knob of `best`, which suffices, towards the next smaller value tried.
    fn bisect(
        &self,
        main: &Knob,
        recall: f64,
        best: &Tuned,
        tried: &mut Vec<Tuned>,
    ) -> Result<(), TuneError> {
        // `high` suffices. `low` is the greatest smaller value of the main knob that was tried with
        // the same other knobs. As a rule it fails, since it would otherwise have been faster than
        // `best`. If it was only measured slower by chance, the values between are tried for
        // nothing, which does no harm.
        let mut high = best.settings.get(main);
        let mut low = f64::NEG_INFINITY;
        for other in tried.iter() {
            let value = other.settings.get(main);
            if value < high && self.same_but(main, &other.settings, &best.settings) {
                low = low.max(value);
            }
        }
        // The least value tried suffices already: there is no interval to halve.
        if low == f64::NEG_INFINITY {
            return Ok(());
        }
        // A knob whose swept values are all whole counts something, and can only be set to whole
        // numbers. `scale` is 10 to the number of decimals kept: 1 for a count.
        let whole = main.sweep.iter().all(|value| value.fract() == 0.0);
        let scale = 10f64.powi(if whole { 0 } else { DIGITS });
        for _ in 0..HALVINGS {
            let middle = (f64::midpoint(low, high) * scale).round() / scale;
            // Rounding has given back an end: no value lies between that could be tried.
            if middle <= low || middle >= high {
                break;
            }
            let tuned = self.run(best.settings.clone().with(main.name, middle))?;
            // Recall is taken to grow with the main knob. Where it does not, the interval is halved
            // on the wrong side, but a setting that fails is still never returned.
            if tuned.recall >= recall {
                high = middle;
            } else {
                low = middle;
            }
            tried.push(tuned);
        }
        Ok(())
    }

    /// Measures a setting on the held-out rows.
    fn run(&self, settings: Settings) -> Result<Tuned, TuneError> {
        let index = (self.built)(&settings)?;
        // One round, without warm-up: the speed only has to order settings of one index.
        // `lab::task` measures the one that is chosen with more care.
        let timed = time_queries(index.as_ref(), &self.queries, self.k)?;
        Ok(Tuned {
            settings,
            recall: recall(&timed.neighbors, &self.truth, self.k),
            queries_per_second: timed.queries_per_second(),
        })
    }

    /// Of the settings that suffice, the fastest.
    fn fastest(&self, tried: &[Tuned], wanted: f64) -> Result<Tuned, TuneError> {
        let enough = tried.iter().filter(|tuned| tuned.recall >= wanted);
        let fastest = enough.max_by(|a, b| a.queries_per_second.total_cmp(&b.queries_per_second));
        fastest.cloned().ok_or_else(|| TuneError::Unreachable {
            index: self.entry.key,
            best: tried.iter().map(|tuned| tuned.recall).fold(0.0, f64::max),
            wanted,
        })
    }

    /// Whether two settings differ in the main knob at most.
    fn same_but(&self, main: &Knob, a: &Settings, b: &Settings) -> bool {
        // All settings of a tuner name the same knobs, so that the default, which `get` gives for a
        // knob that is not set, does not matter here.
        let mut others = self.entry.query_knobs.iter();
        others.all(|knob| knob.name == main.name || a.get(knob) == b.get(knob))
    }
}

/// A base in two parts.
struct Parts {
    /// The rows held out.
    queries: Vectors,
    /// The other rows.
    rest: Arc<Vectors>,
}

/// Holds rows of `base` out, by chance: as many as `target` says, a tenth of them at most.
fn hold_out(base: &Vectors, target: &Target) -> Result<Parts, TuneError> {
    // A tenth at most, so that the index is built on nearly as many rows as the one that will use
    // the setting: with fewer rows the same setting usually finds more.
    let held_out = target.held_out.min(base.len() / 10);
    if held_out == 0 {
        return Err(TuneError::Target {
            what: "the number of rows held out",
            received: held_out.to_string(),
            expected: "at least 1, of a base of 10 or more",
        });
    }
    // Rows are drawn without replacement, marked, and then split in the base's order: the seed
    // alone decides the parts, and no row is in both.
    let mut rng = ChaCha8Rng::seed_from_u64(target.seed);
    let mut is_out = vec![false; base.len()];
    for row in sample(&mut rng, base.len(), held_out) {
        is_out[row] = true;
    }
    let (out, rest): (Vec<usize>, Vec<usize>) = (0..base.len()).partition(|&row| is_out[row]);
    Ok(Parts {
        queries: base.select(&out)?,
        rest: Arc::new(base.select(&rest)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::registry::{REGISTRY, find};
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
        // Noise in 40 dimensions over 1,000 lists: in 64 of them, the most that the sweep probes,
        // are far from all neighbours.
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
    fn the_unit_of_the_data_changes_no_recall() {
        // Powers of two are exact. Which of the settings that suffice is the fastest is measured,
        // and no matter of the data.
        let target = Target {
            held_out: 50,
            ..Target::default()
        };
        let swept = |entry: &Entry, unit: f32| -> Vec<(Settings, f64)> {
            let values = noise(1_000, 12).to_floats();
            let values: Vec<f32> = values.iter().map(|value| value * unit).collect();
            let base = Vectors::from_floats(12, values).unwrap();
            let tuner = Tuner::new(entry, &base, &Settings::default(), &target).unwrap();
            let pair = |tuned: &Tuned| (tuned.settings.clone(), tuned.recall);
            tuner.swept.iter().map(pair).collect()
        };
        for entry in REGISTRY.iter().filter(|entry| !entry.exact) {
            let usual = swept(entry, 1.0);
            for exponent in [-30, 30] {
                assert_eq!(swept(entry, 2f32.powi(exponent)), usual, "{}", entry.key);
            }
        }
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
