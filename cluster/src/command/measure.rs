//! `knn-cluster measure`: recall and speed of indexes over the shards.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fashion_knn::distance::Metric;
use fashion_knn::lab::evaluate::recall;
use fashion_knn::lab::machine::{Machine, commit, round, today};
use fashion_knn::lab::record::{Measurement, ParameterList, append_csv, check_csv};
use fashion_knn::neighbor::{Neighbor, Neighbors};

use super::{Where, run};
use crate::answer::Line;
use crate::error::Error;
use crate::job::{Outcome, Work};
use crate::operator::spec::IndexSpec;

/// Measure recall and queries per second, all queries in one job
#[derive(Debug, Args)]
pub struct Measure {
    #[command(flatten)]
    place: Where,
    /// The indexes, each with its settings [default: brute_force]
    #[arg(long, num_args = 1.., default_value = "brute_force")]
    index: Vec<IndexSpec>,
    /// Jobs that are timed, after a first one in which indexes are built; their median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads of all executors together, for the record [default: those of this machine]
    #[arg(long)]
    cluster_threads: Option<usize>,
    /// A CSV file of the record to which the rows are added. One job answers all queries: the
    /// columns of single queries hold the time of a job
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Measure {
    /// Runs it.
    ///
    /// # Errors
    /// If a job fails, or the record cannot be written.
    pub async fn run(self) -> Result<(), Error> {
        if let Some(out) = &self.out {
            // Before anything is searched.
            check_csv(out).map_err(|error| Error::Arguments(error.to_string()))?;
        }
        self.place.set_up()?;
        let exact: IndexSpec = "brute_force".parse().expect("an index of the registry");
        let truth = run(&self.place.job(exact).ready().await?).await?;
        for index in &self.index {
            let measured = self.index(index, &truth).await?;
            println!("{measured}");
            if let Some(out) = &self.out {
                let row = self.row(&measured);
                append_csv(out, &[row]).map_err(|error| Error::Arguments(error.to_string()))?;
            }
        }
        Ok(())
    }

    async fn index<'i>(
        &self,
        index: &'i IndexSpec,
        truth: &Outcome,
    ) -> Result<Measured<'i>, Error> {
        let ready = self.place.job(index.clone()).ready().await?;
        let first = run(&ready).await?;
        let mut times = Vec::new();
        let mut last = None;
        for _ in 0..self.rounds {
            let outcome = run(&ready).await?;
            times.push(outcome.time);
            last = Some(outcome);
        }
        times.sort_unstable();
        let last = last.expect("at least one round");
        let k = self.place.k;
        let recall = recall(&neighbors(&last), &neighbors(truth), k);
        let (first, time, work) = (first.time, times[times.len() / 2], last.work);
        Ok(Measured {
            index,
            recall,
            first,
            time,
            work,
            outcome: last,
            k,
        })
    }

    fn row(&self, measured: &Measured) -> Measurement {
        let Measured { outcome, index, .. } = measured;
        let machine = Machine::here();
        let per_second = round(measured.per_second(), 1);
        let seconds = measured.time.as_secs_f64();
        let threads = self
            .place
            .threads
            .or(self.cluster_threads)
            .unwrap_or(machine.cores);
        let entry = index.entry();
        let (build, search) = (index.build(), index.search());
        let set = |knob: &fashion_knn::index::registry::Knob| {
            let settings = [&build, &search];
            let of = settings
                .iter()
                .find(|settings| settings.names().any(|n| n == knob.name))?;
            Some((knob.name, of.get(knob)))
        };
        let knobs = entry.build_knobs.iter().chain(entry.query_knobs);
        let params: ParameterList = knobs.filter_map(set).collect();
        let place = if self.place.local {
            "datafusion"
        } else {
            "ballista"
        };
        Measurement {
            index: format!("{place}/{}", entry.key),
            params,
            data: self.place.base.clone(),
            n: usize::try_from(outcome.rows).unwrap_or(usize::MAX),
            d: outcome.dim,
            k: self.place.k,
            threads,
            recall: measured.recall,
            qps: per_second,
            qps_batch: per_second,
            p50_us: round(seconds * 1e6, 0),
            p99_us: round(seconds * 1e6, 0),
            build_s: round(measured.build().as_secs_f64(), 3),
            memory_bytes: 0,
            commit: commit(),
            cpu: machine.cpu.clone(),
            cpu_family: machine.cpu_family,
            cpu_model: machine.cpu_model,
            simd: Some(machine.simd.clone()),
            cores: Some(machine.cores),
            bandwidth_gb_s: Some(machine.bandwidth_gb_s),
            date: today(),
            metric: Metric::Euclidean.name().to_owned(),
            build_threads: None,
            build_peak_bytes: None,
        }
    }
}

/// What was measured of an index.
struct Measured<'i> {
    index: &'i IndexSpec,
    k: usize,
    recall: f64,
    /// The time of the first job, in which indexes were built.
    first: Duration,
    /// The median of the jobs after it.
    time: Duration,
    work: Option<Work>,
    outcome: Outcome,
}

impl Measured<'_> {
    fn per_second(&self) -> f64 {
        self.outcome.queries as f64 / self.time.as_secs_f64()
    }

    /// What the first job took more than the others.
    fn build(&self) -> Duration {
        self.first.saturating_sub(self.time)
    }
}

impl std::fmt::Display for Measured<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let comparisons = self.per_second() * self.outcome.rows as f64;
        write!(
            formatter,
            "{}: recall@{} {:.4}, {:.0} queries/s ({:.2e} rows × queries/s), {:.2} s a job, \
             {:.2} s the first",
            self.index,
            self.k,
            self.recall,
            self.per_second(),
            comparisons,
            self.time.as_secs_f64(),
            self.first.as_secs_f64(),
        )?;
        if let Some(Work {
            read,
            build,
            search,
        }) = self.work
        {
            write!(
                formatter,
                "; of all partitions: read {:.2} s, build {:.2} s, search {:.2} s",
                read.as_secs_f64(),
                build.as_secs_f64(),
                search.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

/// The neighbours as the rest of the library knows them; recall goes by their distances.
fn neighbors(outcome: &Outcome) -> Neighbors {
    let rows = outcome.lines.chunk_by(|a, b| a.query == b.query);
    let neighbor = |line: &Line| Neighbor {
        id: line.rank,
        distance: line.distance,
    };
    rows.map(|row| row.iter().map(neighbor).collect()).collect()
}
