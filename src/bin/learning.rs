//! Measures learning curves into `data/results/learning.csv`: accuracy against the number of images
//! that were learned from, and three seeds of each width of features.
//!
//! What is in the record already is left as it is, so that an interrupted run goes on where it was.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use fashion_knn::classify::Trial;
use fashion_knn::fashion::{self, Fashion};
use fashion_knn::files;
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
use fashion_knn::lab::evaluate::accuracy;
use fashion_knn::lab::learning::{Learned, Method, add, so_far};
use fashion_knn::lab::machine::{Machine, commit, round, today};
use fashion_knn::net::{self, Config, Trained};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

#[path = "shared/say.rs"]
mod say;

/// Measure learning curves.
#[derive(Debug, Parser)]
struct Arguments {
    /// Numbers of training images.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100,200,500,1000,2000,5000,10000,20000,60000"
    )]
    images: Vec<usize>,
    /// Seeds: of the draw of the images, and of the trainings.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Widths of features that are learned from all images, in the short training.
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64,256")]
    widths: Vec<usize>,
    /// Learn and measure again what is in the record.
    #[arg(long)]
    again: bool,
    /// Folder of checkpoints and features.
    #[arg(long, default_value_os_t = files::cache_dir())]
    cache: PathBuf,
    /// The record. [default: results/learning.csv in the data folder]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Values of k that are tried on the images held out.
const KS: [usize; 10] = [1, 3, 5, 7, 9, 11, 15, 21, 31, 51];

/// A net sees as many images as this in its training, each many times where there are few.
const SEEN: usize = 60_000;
/// But no image more often.
const MOST_EPOCHS: usize = 100;

fn main() -> ExitCode {
    say::status(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let default = || files::data_dir().join("results/learning.csv");
    let out = arguments.out.clone().unwrap_or_else(default);
    let mut known = so_far(&out)?;
    if arguments.again {
        known.clear();
    }
    let study = Study {
        all: fashion::load()?,
        known,
        cache: arguments.cache.clone(),
        out,
    };
    // Few images first: a run that is interrupted has the most of the curve.
    for &n in &arguments.images {
        for &seed in &arguments.seeds {
            study.curve_at(n, seed)?;
        }
    }
    for &seed in &arguments.seeds {
        for &width in &arguments.widths {
            let config = Config {
                seed,
                ..Config::short_cnn(width)
            };
            study.net(&study.all, config)?;
        }
    }
    Ok(())
}

struct Study {
    all: Fashion,
    /// Rows that need not be measured.
    known: Vec<Learned>,
    cache: PathBuf,
    out: PathBuf,
}

impl Study {
    /// All methods with `n` images.
    fn curve_at(&self, n: usize, seed: u64) -> Result<(), Box<dyn Error>> {
        let data = drawn(&self.all, n, seed)?;
        let n = data.train.len();
        let linear = trained_on(Config::logistic(), n, seed);
        if !self.knows(Method::Pixels, n, 784, seed) {
            let row = neighbours(&data, &linear)?;
            self.keep(vec![Learned {
                method: Method::Pixels,
                epochs: None,
                ..row
            }])?;
        }
        if !self.knows(Method::Logistic, n, 784, seed) {
            let trained = self.learned(&linear, &data)?;
            self.keep(vec![of_net(Method::Logistic, &linear, n, &trained)])?;
        }
        self.net(&data, trained_on(Config::cnn(), n, seed))
    }

    /// A convolutional net, and k-NN on its features.
    fn net(&self, data: &Fashion, config: Config) -> Result<(), Box<dyn Error>> {
        let (n, width) = (data.train.len(), config.model.feature_width());
        let known = |method| self.knows(method, n, width, config.seed);
        if known(Method::Cnn) && known(Method::Features) {
            return Ok(());
        }
        let trained = self.learned(&config, data)?;
        let features = net::encoded(&trained.model, data, &self.cache)?;
        let of_features = Learned {
            method: Method::Features,
            epochs: Some(config.epochs),
            ..neighbours(&features, &config)?
        };
        let of_net = of_net(Method::Cnn, &config, n, &trained);
        self.keep(vec![of_net, of_features])
    }

    fn learned(&self, config: &Config, data: &Fashion) -> Result<Trained, Box<dyn Error>> {
        Ok(net::learned(config, data, &self.cache, |epoch| {
            // Small sets have hundreds of epochs.
            if epoch.epoch % epoch.epochs.div_ceil(15) == 0 {
                say::line(format_args!("  {epoch}"));
            }
        })?)
    }

    fn knows(&self, method: Method, n: usize, width: usize, seed: u64) -> bool {
        let subject = (method, n, width, seed);
        self.known.iter().any(|row| row.subject() == subject)
    }

    fn keep(&self, rows: Vec<Learned>) -> Result<(), Box<dyn Error>> {
        for row in &rows {
            say::line(format_args!(
                "{:?}, n = {}, {} wide, seed {}: {:.4}, validation {:.4}, {} s",
                row.method, row.n, row.width, row.seed, row.accuracy, row.validation, row.seconds
            ));
        }
        Ok(add(&self.out, rows)?)
    }
}

/// The data with `n` of the training images, drawn with the seed; all of them, in their order, if
/// there are no more.
fn drawn(data: &Fashion, n: usize, seed: u64) -> Result<Fashion, Box<dyn Error>> {
    if n >= data.train.len() {
        return Ok(data.clone());
    }
    let mut rows: Vec<usize> = (0..data.train.len()).collect();
    rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    rows.truncate(n);
    let drawn = data.split(&rows, &[])?;
    Ok(Fashion {
        train: drawn.base,
        train_labels: drawn.base_labels,
        ..data.clone()
    })
}

/// The training for `n` images: as long as a small set needs, with batches that are a small part of
/// it.
fn trained_on(config: Config, n: usize, seed: u64) -> Config {
    Config {
        epochs: config.epochs.max((SEEN / n).min(MOST_EPOCHS)),
        batch_size: config.batch_size.min((n / 8).max(8)),
        seed,
        ..config
    }
    .limited(usize::MAX, n)
}

/// What k-NN comes to: k and the vote chosen on the images that the net's training holds out.
fn neighbours(data: &Fashion, config: &Config) -> Result<Learned, Box<dyn Error>> {
    let start = Instant::now();
    let n = data.train.len();
    let (learned, held_out) = config.split(n);
    let split = data.split(&learned, &held_out)?;
    let ks: Vec<usize> = KS.into_iter().filter(|&k| k <= learned.len()).collect();
    let most = ks.last().copied().unwrap_or(1);
    let base = BruteForce::build(split.base, BruteForceParams::default())?;
    let found = base.query_batch(&split.held_out, most)?;
    let trials = Trial::all(&found, &ks, &split.base_labels, &split.held_out_labels);
    let best = Trial::best(&trials).ok_or("no k to try")?;

    let base = BruteForce::build(data.train.clone(), BruteForceParams::default())?;
    let found = base.query_batch(&data.test, best.k)?;
    let classes = best.weights.vote_rows(&found, best.k, &data.train_labels);
    Ok(Learned {
        method: Method::Pixels,
        n,
        width: data.train.dim(),
        seed: config.seed,
        k: Some(best.k),
        epochs: None,
        accuracy: round(accuracy(&classes, &data.test_labels), 4),
        validation: round(best.accuracy, 4),
        seconds: round(start.elapsed().as_secs_f64(), 1),
        threads: rayon::current_num_threads(),
        cpu: Machine::here().cpu.clone(),
        date: today(),
        commit: commit(),
    })
}

/// What a net came to.
fn of_net(method: Method, config: &Config, n: usize, trained: &Trained) -> Learned {
    Learned {
        method,
        n,
        width: config.model.feature_width(),
        seed: config.seed,
        k: None,
        epochs: Some(config.epochs),
        accuracy: round(trained.test_accuracy, 4),
        validation: round(trained.validation_accuracy(), 4),
        seconds: round(trained.seconds(), 1),
        threads: rayon::current_num_threads(),
        cpu: Machine::here().cpu.clone(),
        date: today(),
        commit: commit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_small_set_is_seen_more_often_and_all_of_it_is_the_default() {
        let few = trained_on(Config::cnn(), 1_000, 3);
        assert_eq!(
            (few.epochs, few.batch_size, few.validation, few.seed),
            (60, 64, 83, 3)
        );
        assert_eq!(trained_on(Config::cnn(), 60_000, 0), Config::cnn());
    }
}
