//! k-nearest neighbours over Parquet shards: `knn-cluster --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use knn_cluster::command::measure::Measure;
use knn_cluster::command::query::Query;
use knn_cluster::command::serve::{Executor, Scheduler};
use knn_cluster::command::shard::Shard;
use knn_cluster::error::Error;

/// k-nearest neighbours over Parquet shards, in one process or on a cluster
#[derive(Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Shard(Shard),
    Scheduler(Scheduler),
    Executor(Executor),
    Query(Query),
    Measure(Measure),
}

impl Command {
    async fn run(self) -> Result<(), Error> {
        match self {
            Self::Shard(shard) => println!("{}", shard.run()?),
            Self::Query(query) => println!("{}", query.run().await?),
            Self::Measure(measure) => measure.run().await?,
            Self::Scheduler(scheduler) => scheduler.run().await?,
            Self::Executor(executor) => executor.run().await?,
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    // RUST_LOG=info shows what the engine does.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let Program { command } = Program::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command.run()),
        Err(error) => Err(Error::Arguments(format!("no threads: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
