//! The commands of `knn-cluster`.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Engine;
use crate::error::Error;
use crate::job::{Job, Outcome, Ready};
use crate::operator::spec::{IndexSpec, Spec};
use crate::operator::{kept, partition};
use crate::plan::{DEFAULT_MERGES, Stages};

pub mod measure;
pub mod query;
pub mod serve;
pub mod shard;

/// What `query` and `measure` have in common: the files, and where the job runs.
#[derive(Debug, Clone, Args)]
pub struct Where {
    /// The shards of the base: a folder, or s3://bucket/folder/ (AWS_* in the environment)
    #[arg(long)]
    base: String,
    /// The queries: one Parquet file, or a folder
    #[arg(long)]
    queries: String,
    /// How many neighbours
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Run in this process
    #[arg(
        long,
        conflicts_with = "scheduler",
        required_unless_present = "scheduler"
    )]
    local: bool,
    /// Run on the cluster of this scheduler: http://host:50050
    #[arg(long)]
    scheduler: Option<String>,
    /// Threads of a local run [default: one for each processor]
    #[arg(long, value_parser = threads)]
    threads: Option<usize>,
    /// Memory of a local run for the indexes that it keeps, in GiB
    #[arg(long, default_value_t = 2.0, value_parser = gibibytes)]
    index_memory: f64,
    /// Give an attempt up after so many seconds, and try again
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    deadline: u64,
    /// How often to try again
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Read all ids of the base before, to see that none is there twice
    #[arg(long)]
    check_ids: bool,
    /// In how many parts the candidates are merged
    #[arg(long, default_value_t = DEFAULT_MERGES, value_parser = threads)]
    merges: usize,
    /// For the tests: read the queries in a stage of their own
    #[arg(long, hide = true)]
    three_stages: bool,
}

impl Where {
    /// The job of searching with `index`.
    fn job(&self, index: IndexSpec) -> Job {
        let engine = match &self.scheduler {
            Some(scheduler) => Engine::Ballista(scheduler.clone()),
            None => Engine::Local,
        };
        Job {
            base: self.base.clone(),
            queries: self.queries.clone(),
            spec: Spec::new(self.k, index),
            engine,
            merges: self.merges,
            deadline: Duration::from_secs(self.deadline),
            retries: self.retries,
            check_ids: self.check_ids,
            stages: if self.three_stages {
                Stages::Three
            } else {
                Stages::Two
            },
        }
    }

    /// Sets the threads and the memory of this process.
    fn set_up(&self) -> Result<(), Error> {
        kept::keep_at_most(bytes(self.index_memory));
        match self.threads {
            Some(threads) => use_threads(threads),
            None => Ok(()),
        }
    }
}

/// Lets this process search on so many threads, and as many partitions at once.
fn use_threads(threads: usize) -> Result<(), Error> {
    partition::search_at_once(threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global()
        .map_err(|error| Error::Arguments(error.to_string()))
}

/// The most threads that make sense on a machine of today.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=MOST_THREADS) => Ok(threads),
        _ => Err(format!("expected a number from 1 to {MOST_THREADS}")),
    }
}

fn gibibytes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(size) if (0.0..=1e6).contains(&size) => Ok(size),
        _ => Err("expected a number of GiB, as 0.5 or 4".to_owned()),
    }
}

fn bytes(gibibytes: f64) -> u64 {
    (gibibytes * f64::from(1 << 30)) as u64
}

/// Runs a job. Says on a terminal how long it has been running.
async fn run(ready: &Ready) -> Result<Outcome, Error> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    bar.set_style(style.expect("a template without a fault"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let what = format!("{} queries in {} rows", ready.queries(), ready.rows());
    let outcome = ready.run(|attempt, failed| {
        if let Some(error) = failed {
            bar.suspend(|| eprintln!("attempt {} has failed: {error}", attempt - 1));
        }
        bar.set_message(format!("{what}, attempt {attempt}:"));
    });
    let outcome = outcome.await;
    bar.finish_and_clear();
    outcome
}
