//! `knn-cluster query`: the nearest of each query, into a Parquet file.

use std::path::PathBuf;

use clap::Args;
use fashion_knn::files::check_file;

use super::{Where, run};
use crate::error::Error;
use crate::operator::spec::IndexSpec;
use crate::write::write_answer;

/// Find the k nearest of each query, and write them to a Parquet file
#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    place: Where,
    /// The index that searches each shard, and its settings: "ivf_flat nlist=64 nprobe=4"
    #[arg(long, default_value = "brute_force")]
    index: IndexSpec,
    /// Where the answer goes: query_id, rank, id, distance
    #[arg(long)]
    out: PathBuf,
}

impl Query {
    /// Runs it.
    ///
    /// # Errors
    /// If there is no answer that is whole, or it cannot be written. Then there is no file.
    pub async fn run(self) -> Result<String, Error> {
        // Before anything is searched.
        check_file(&self.out).map_err(|error| Error::file(self.out.display(), error))?;
        self.place.set_up()?;
        let ready = self.place.job(self.index.clone()).ready().await?;
        let outcome = run(&ready).await?;
        write_answer(&self.out, &outcome.lines)?;
        Ok(format!(
            "{} queries, {} rows of {}, k = {}, {}: {:.2} s, attempt {}, {} neighbours in {}",
            outcome.queries,
            outcome.rows,
            outcome.dim,
            self.place.k,
            self.index,
            outcome.time.as_secs_f64(),
            outcome.attempts,
            outcome.lines.len(),
            self.out.display(),
        ))
    }
}
