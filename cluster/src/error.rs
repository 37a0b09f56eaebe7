//! Why a command could not be carried out.

use std::fmt::Display;
use std::time::Duration;

use datafusion::common::DataFusionError;
use thiserror::Error;

use crate::answer::Fault;

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or folder is not what it should be.
    #[error("{path}: {why}")]
    File {
        /// The file or folder, or the address of one.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Arguments that do not go together, or are outside their range.
    #[error("{0}")]
    Arguments(String),
    /// What the engine says.
    #[error("{0}")]
    Engine(String),
    /// The engine's answer was refused.
    #[error("the engine's answer is not complete: {0}")]
    Answer(#[from] Fault),
    /// There was no answer in time.
    #[error("no answer within {} seconds", .0.as_secs())]
    Deadline(Duration),
    /// Every attempt has failed.
    #[error("{attempts} attempts have failed; the last one: {last}")]
    GivenUp {
        /// How many.
        attempts: u32,
        /// Why the last one failed.
        last: Box<Error>,
    },
}

impl Error {
    /// An error about a file.
    pub fn file(path: impl Display, why: impl Display) -> Self {
        Self::File {
            path: path.to_string(),
            why: why.to_string(),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        // The engine wraps an error once for each layer that it went through. What helps is at the
        // bottom.
        Self::Engine(error.find_root().to_string())
    }
}
