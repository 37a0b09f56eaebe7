//! [`Training`]: the loop of [`train`](super::train) in the hands of the caller.

use std::path::{Path, PathBuf};

use super::{Batch, Learner, Trained};
use crate::fashion::Fashion;
use crate::net::NetError;
use crate::net::config::Config;
use crate::net::data::Labelled;
use crate::net::epoch::Epoch;

/// A training whose loop the caller writes, so that a lesson shows it: what
/// [`learned`](super::learned) does in one call.
///
/// It is kept in a folder. What was interrupted goes on after its last whole epoch, and of what was
/// finished nothing is left to do.
///
/// ```no_run
/// use fashion_knn::fashion;
/// use fashion_knn::net::{Config, Training};
///
/// let data = fashion::load()?;
/// let mut training = Training::begin(&Config::cnn(), &data, "data/cache".as_ref())?;
/// while !training.is_over() {
///     for batch in training.batches() {
///         training.step(&batch)?;
///     }
///     println!("{}", training.end_epoch()?);
/// }
/// let trained = training.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Training {
    learner: Learner,
    data: Fashion,
    checkpoint: PathBuf,
    /// The accuracy on the test images, if the training was finished before.
    finished: Option<f64>,
}

impl Training {
    /// The beginning of a training on `data`, or what `folder` holds of it.
    ///
    /// # Errors
    /// As [`train`](super::train).
    pub fn begin(config: &Config, data: &Fashion, folder: &Path) -> Result<Self, NetError> {
        let images = Labelled::new(&data.train, &data.train_labels)?;
        let test = Labelled::new(&data.test, &data.test_labels)?;
        config.validate(images.len())?;
        let checkpoint = config.checkpoint_in(folder, images, test);
        let mut learner = Learner::begin(config, images, test)?;
        let finished = learner.resume(&checkpoint)?;
        Ok(Self {
            learner,
            data: data.clone(),
            checkpoint,
            finished,
        })
    }

    /// Whether all epochs are done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.learner.history.len() >= self.learner.config.epochs
    }

    /// Begins the next epoch: its batches, which together hold every image to learn from once, in a
    /// random order.
    pub fn batches(&mut self) -> Vec<Batch> {
        self.learner.batches()
    }

    /// One step: the scores of the images (forward), their loss, its gradient (backward), and a
    /// move of all parameters against it. Returns the mean loss of the batch.
    ///
    /// # Errors
    /// If the training diverges.
    pub fn step(&mut self, batch: &Batch) -> Result<f64, NetError> {
        let images = Labelled::new(&self.data.train, &self.data.train_labels)?;
        self.learner.step(images, batch)
    }

    /// After the last batch of an epoch: scores the model on the images held out, remembers it if
    /// it is the best so far, and writes a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint cannot be written.
    pub fn end_epoch(&mut self) -> Result<Epoch, NetError> {
        let images = Labelled::new(&self.data.train, &self.data.train_labels)?;
        let epoch = self.learner.end_epoch(images)?;
        self.learner.save(Some(&self.checkpoint))?;
        Ok(epoch)
    }

    /// The model of the best epoch, scored on the test images: the one time that they are looked
    /// at.
    ///
    /// # Errors
    /// If no epoch is done, or the checkpoint cannot be written.
    pub fn finish(self) -> Result<Trained, NetError> {
        if let Some(test_accuracy) = self.finished {
            return Ok(self.learner.finish(test_accuracy, true));
        }
        let epochs = self.learner.history.len();
        crate::net::check("epochs done", epochs > 0, "at least 1", epochs)?;
        let test = Labelled::new(&self.data.test, &self.data.test_labels)?;
        self.learner.test(test, Some(&self.checkpoint))
    }
}
