//! The nets that k-NN is compared with, and whose features it searches: logistic regression, a linear SVM, a
//! feed-forward net and a convolutional net, in candle, with one training loop for all.
//!
//! - [`ModelConfig`] says which model and how large; [`Config`] adds how it is trained, with defaults for each.
//! - [`train`] learns it: seeded, with a validation split held out, checkpoints after each epoch, resumed if killed.
//! - [`features`] and [`cached_features`] give the activations of the penultimate layer as [`Vectors`].
//! - [`learned`] and [`encoded`] do both for the report: a [`Fashion`] of features, all that was computed kept.
//! - [`conv_relu_pool`] is what makes it fast: candle's own convolution learns at a sixth of PyTorch's speed here.
//!
//! ```
//! use fashion_knn::net::{Config, Labelled, ModelConfig, Options, train};
//! # use fashion_knn::vectors::Vectors;
//! # let pixels: Vec<u8> = (0..40).flat_map(|image| [(image % 10 * 20) as u8; 784]).collect();
//! # let images = Vectors::from_bytes(784, pixels)?;
//! # let labels: Vec<u8> = (0..40).map(|image| image % 10).collect();
//! let data = Labelled::new(&images, &labels)?;
//! let config = Config { epochs: 2, validation: 10, ..Config::of(ModelConfig::Logistic) };
//! let trained = train(&config, data, data, &Options::default(), |epoch| println!("{epoch}"))?;
//! assert_eq!(trained.history.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

#[cfg(doc)]
use crate::fashion::Fashion;
#[cfg(doc)]
use crate::vectors::Vectors;
use crate::vectors::VectorsError;

mod checkpoint;
mod conv;
mod data;
mod features;
mod model;
mod optimizer;
mod train;

pub use conv::conv_relu_pool;
pub use data::{Augmentation, Labelled};
pub use features::{cached_features, encoded, features};
pub use model::{
    CLASSES, CnnConfig, Layer, MlpConfig, Model, ModelConfig, Output, PIXELS, SIDE, Scaling,
};
pub use optimizer::{Optimizer, Schedule};
pub use train::{Config, Epoch, Options, Trained, learned, train};

/// Why a net could not be made, trained, loaded or used.
#[derive(Debug, Error)]
pub enum NetError {
    /// A parameter or the data are not what they can be.
    #[error("{what} is {received}; expected {expected}")]
    Invalid {
        /// Which parameter, or what about the data.
        what: &'static str,
        /// What it can be.
        expected: String,
        /// What it is.
        received: String,
    },
    /// The training has diverged.
    #[error(
        "training diverged: {what} is not finite at batch {batch} of epoch {epoch} (both from 1); try a lower learning rate"
    )]
    NotFinite {
        /// "the loss", with its value, or "a parameter".
        what: String,
        /// Epoch, from 1.
        epoch: usize,
        /// Batch within the epoch, from 1.
        batch: usize,
    },
    /// A checkpoint is damaged, or no checkpoint at all.
    #[error("{}: not a whole checkpoint: {why} (delete it, or ask for the training to begin again)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A checkpoint is of another training.
    #[error("{}: a checkpoint of another training: {what} is {found}; expected {expected} (choose another path, or ask for the training to begin again)", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// What this training has.
        expected: String,
        /// What the checkpoint has.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Features that are no vectors: not finite, which only a broken model gives.
    #[error("features: {0}")]
    Features(#[from] VectorsError),
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// An error that names `what` unless `holds`.
fn check(
    what: &'static str,
    holds: bool,
    expected: &str,
    received: impl Display,
) -> Result<(), NetError> {
    if holds {
        return Ok(());
    }
    Err(NetError::Invalid {
        what,
        expected: expected.to_owned(),
        received: received.to_string(),
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Io {
        path: path.to_owned(),
        source,
    }
}
