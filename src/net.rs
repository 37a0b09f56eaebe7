//! The nets that k-NN is compared with, and whose features it searches: logistic regression, a
//! linear SVM, a feed-forward net and a convolutional net, in candle, with one training loop.
//!
//! - [`ModelConfig`] says which model and how large. [`Config`] adds how it is trained, with
//!   defaults for each model.
//! - [`train`] trains it: seeded, with a validation split held out, a checkpoint after each epoch,
//!   continued if it was interrupted.
//! - [`features`] and [`cached_features`] give the activations of the penultimate layer as
//!   [`Vectors`].
//! - [`Training`] does the same step by step, for a loop that a reader sees.
//! - [`learned`] and [`encoded`] do both for the report: a [`Fashion`] of features. What they
//!   compute is kept on disk.
//! - [`Model::probabilities`] says how sure a model is of each class.
//! - [`conv_relu_pool`] makes it fast: with candle's own convolution a net of two of them learned
//!   280 images a second, with this one 5,250 (docs/measurements.md, "Nets").
//!
//! The files, each of which imports only files above it:
//!
//! ```text
//! architecture, epoch, little_endian, values  sizes; figures of an epoch; bytes; slices of tensors
//! conv, norm                                  the convolution; batch normalisation
//! config, model                               all settings; parameters, forward pass, loss
//! data, optimizer                             batches; steps
//! features, checkpoint                        what is kept on disk
//! train                                       the loop
//! ```
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

mod architecture;
mod block;
mod checkpoint;
mod config;
mod conv;
mod data;
mod epoch;
mod features;
mod little_endian;
mod model;
mod norm;
mod optimizer;
mod train;
mod values;

pub use architecture::{
    CLASSES, CnnConfig, Layer, LayerKind, MlpConfig, ModelConfig, PIXELS, SIDE,
};
pub use config::{Augmentation, Config, Optimizer, Options, Schedule};
pub use conv::{conv_relu, conv_relu_pool};
pub use data::Labelled;
pub use epoch::Epoch;
pub use features::{cached_features, encoded, features};
pub use model::{Model, Output, Scaling};
pub use train::{Batch, Trained, Training, learned, train};

/// Why a net could not be built, trained, loaded or used.
#[derive(Debug, Error)]
pub enum NetError {
    /// A parameter is out of range, or the data do not have the right form.
    #[error("{what} is {received}; expected {expected}")]
    Invalid {
        /// Which parameter, or what about the data.
        what: &'static str,
        /// What is accepted.
        expected: String,
        /// What was given.
        received: String,
    },
    /// The training has diverged.
    #[error(
        "training diverged: {what} is not finite at batch {batch} of epoch {epoch} (both from 1); \
         try a lower learning rate"
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
    #[error(
        "{}: not a whole checkpoint: {why} (delete it, or ask for the training to begin again)",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A checkpoint is of another training.
    #[error(
        "{}: a checkpoint of another training: {what} is {found}; expected {expected} \
         (choose another path, or ask for the training to begin again)",
        path.display()
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// Its value in this training.
        expected: String,
        /// Its value in the checkpoint.
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
    /// Features are not finite, as only a broken model's can be.
    #[error("features: {0}")]
    Features(#[from] VectorsError),
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Nothing if the condition `holds`; else the error that names `what`, what was expected and what
/// was received.
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

/// Turns an error of the system into one that names the file.
fn at(path: &Path) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Io {
        path: path.to_owned(),
        source,
    }
}
