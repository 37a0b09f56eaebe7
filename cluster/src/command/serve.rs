//! `knn-cluster scheduler` and `knn-cluster executor`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{bytes, gibibytes, threads, use_threads};
use crate::error::Error;
use crate::serve::{self, Scheduling};

/// Run the scheduler of a cluster
#[derive(Debug, Args)]
pub struct Scheduler {
    /// The address to listen on. Whoever reaches it can run jobs and read files: no password is
    /// asked
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port
    #[arg(long, default_value_t = 50050)]
    port: u16,
    /// Who begins a task; executors have to be started with the same
    #[arg(long, value_enum, default_value_t)]
    scheduling: Scheduling,
    /// Seconds without a sign of life after which an executor counts as lost
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=3600))]
    executor_timeout: u64,
}

impl Scheduler {
    /// Runs until the process is ended.
    ///
    /// # Errors
    /// If it cannot listen on its address.
    pub async fn run(self) -> Result<(), Error> {
        let scheduler = serve::Scheduler {
            host: self.host,
            port: self.port,
            scheduling: self.scheduling,
            executor_timeout: self.executor_timeout,
        };
        let ended = scheduler.run().await;
        ended.map_err(|error| Error::Engine(error.to_string()))
    }
}

/// Run an executor of a cluster: one on each machine
#[derive(Debug, Args)]
pub struct Executor {
    /// The scheduler's host and port
    #[arg(long, default_value = "127.0.0.1:50050", value_parser = host_and_port)]
    scheduler: (String, u16),
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The name by which scheduler and clients reach it [default: the address]
    #[arg(long)]
    external_host: Option<String>,
    /// The port; the next one is taken too
    #[arg(long, default_value_t = 50051, value_parser = clap::value_parser!(u16).range(1..=65534))]
    port: u16,
    /// Who begins a task; as the scheduler was started
    #[arg(long, value_enum, default_value_t)]
    scheduling: Scheduling,
    /// Tasks at a time, and threads that search [default: one for each processor]
    #[arg(long, value_parser = threads)]
    threads: Option<usize>,
    /// Memory for the indexes that it keeps, in GiB
    #[arg(long, default_value_t = 2.0, value_parser = gibibytes)]
    index_memory: f64,
    /// Seconds between its signs of life: a fourth of the scheduler's timeout or less
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=900))]
    heartbeat: u64,
    /// Where candidates wait to be fetched [default: a temporary folder]
    #[arg(long)]
    work_dir: Option<PathBuf>,
}

impl Executor {
    /// Runs until the process is ended.
    ///
    /// # Errors
    /// If it cannot listen on its address, or reach the scheduler.
    pub async fn run(self) -> Result<(), Error> {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or_else(processors);
        use_threads(threads)?;
        let executor = serve::Executor {
            host: self.host,
            external_host: self.external_host,
            port: self.port,
            scheduler_host: self.scheduler.0,
            scheduler_port: self.scheduler.1,
            scheduling: self.scheduling,
            threads,
            index_bytes: bytes(self.index_memory),
            heartbeat: self.heartbeat,
            work_dir: self.work_dir,
        };
        let ended = executor.run().await;
        ended.map_err(|error| Error::Engine(error.to_string()))
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parts = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err("expected host:port, as 10.0.0.1:50050".to_owned()),
    }
}
