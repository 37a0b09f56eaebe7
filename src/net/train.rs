//! The training loop.
//!
//! Mini-batch gradient descent, one loop for all models:
//!
//! ```text
//! hold some images out
//! for each epoch:
//!     shuffle the others; for each batch of them:
//!         scores ← model(batch, augmented);  loss ← loss(scores, classes)
//!         parameters ← optimizer step along the gradient of the loss
//!     accuracy on the images held out; the best epoch's parameters are remembered
//!     write a checkpoint
//! score the best epoch on the test images, once
//! ```

use std::path::Path;
use std::time::Instant;

use candle_core::{D, Tensor};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::NetError;
use super::checkpoint::{self, Checkpoint, Expected, Record, Tensors};
use super::config::{Augmentation, Config, Options, Purpose};
use super::data::Labelled;
use super::epoch::Epoch;
use super::model::Model;
use super::optimizer::State;
use crate::fashion::Fashion;

mod lesson;

pub use lesson::Training;

/// Images that are scored at a time, after an epoch and at the end. More than a training batch,
/// because no activations are kept for a backward pass. The size changes only speed, memory and the
/// last bits of the mean loss.
const SCORED_TOGETHER: usize = 256;

/// A trained model, as it was after the epoch that did best on the validation images.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model of the best epoch.
    pub model: Model,
    /// All epochs, in order.
    pub history: Vec<Epoch>,
    /// Index of the best epoch in the history.
    pub best: usize,
    /// Share of the test images that the model classifies rightly. They were looked at this once.
    pub test_accuracy: f64,
    /// Whether the training was finished already, and loaded.
    pub loaded: bool,
}

impl Trained {
    /// Accuracy on the validation images in the best epoch.
    #[must_use]
    pub fn validation_accuracy(&self) -> f64 {
        self.history[self.best].validation_accuracy
    }

    /// Seconds of all epochs.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.history.iter().map(|epoch| epoch.seconds).sum()
    }

    /// Training images a second over all epochs (the harmonic mean: all images by all seconds).
    #[must_use]
    pub fn images_per_s(&self) -> f64 {
        // Every epoch has the same number of images, n. An epoch at rate r takes n / r seconds, so
        // E epochs have E · n images in Σ n / r seconds. n cancels out: E / Σ 1/r.
        let seconds_an_image = self.history.iter().map(|epoch| epoch.images_per_s.recip());
        self.history.len() as f64 / seconds_an_image.sum::<f64>()
    }
}

/// Trains a model on `train` without the validation images, and scores the best epoch on `test`.
///
/// `each` is called with every epoch as it ends (in a resumed training, with those that were left).
/// The same configuration, data and machine give the same figures, interrupted or not.
///
/// # Errors
/// If a value of the configuration is out of range, the checkpoint is damaged or of another
/// training, a file cannot be written, or the training diverges.
///
/// ```no_run
/// use fashion_knn::fashion;
/// use fashion_knn::net::{Config, Labelled, Options, train};
///
/// let data = fashion::load()?;
/// let images = Labelled::new(&data.train, &data.train_labels)?;
/// let test = Labelled::new(&data.test, &data.test_labels)?;
/// let trained = train(&Config::mlp(), images, test, &Options::default(), |epoch| {
///     println!("{epoch}");
/// })?;
/// println!("{:.1} % of the test images", 100.0 * trained.test_accuracy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train(
    config: &Config,
    train: Labelled<'_>,
    test: Labelled<'_>,
    options: &Options,
    mut each: impl FnMut(&Epoch),
) -> Result<Trained, NetError> {
    // From here on every value is in range. The code below relies on that: at least one epoch, a
    // batch that is not empty, an image to learn from and one to validate on.
    config.validate(train.len())?;
    let mut learner = Learner::begin(config, train, test)?;
    let checkpoint = options.checkpoint.as_deref();
    if let Some(path) = checkpoint
        && !options.again
        && let Some(test_accuracy) = learner.resume(path)?
    {
        return Ok(learner.finish(test_accuracy, true));
    }
    // The history counts the epochs, also those that a checkpoint brought. If the training was
    // killed after its last epoch and before the test, none is left and the test follows at once.
    while learner.history.len() < config.epochs {
        for batch in learner.batches() {
            learner.step(train, &batch)?;
        }
        let epoch = learner.end_epoch(train)?;
        // The epoch is on the disk before it is reported: if `each` panics, nothing is lost.
        learner.save(checkpoint)?;
        each(&epoch);
    }
    learner.test(test, checkpoint)
}

/// [`train`] on Fashion-MNIST, with its checkpoint in `folder`: a finished training is loaded, an
/// interrupted one continues.
///
/// # Errors
/// As [`train`].
pub fn learned(
    config: &Config,
    data: &Fashion,
    folder: &Path,
    each: impl FnMut(&Epoch),
) -> Result<Trained, NetError> {
    let images = Labelled::new(&data.train, &data.train_labels)?;
    let test = Labelled::new(&data.test, &data.test_labels)?;
    let options = Options {
        checkpoint: Some(config.checkpoint_in(folder, images, test)),
        again: false,
    };
    train(config, images, test, &options, each)
}

/// A training in progress.
#[derive(Debug)]
struct Learner {
    config: Config,
    /// Hashes of the data, as in [`Record::data`].
    data: String,
    model: Model,
    optimizer: State,
    /// Rows of the training images to learn from.
    rows: Vec<usize>,
    /// Rows held out for validation.
    held_out: Vec<usize>,
    history: Vec<Epoch>,
    /// Index of the best epoch in the history.
    best: usize,
    /// The model's parameters after the best epoch.
    best_parameters: Tensors,
    now: Now,
}

/// The epoch in progress.
#[derive(Debug)]
struct Now {
    started: Instant,
    /// What the epoch draws from: the order of its images, their augmentation, the dropout.
    rng: ChaCha8Rng,
    /// On the training images, each by the model as it was when the image came by.
    score: Score,
    /// That of the last step.
    learning_rate: f32,
}

impl Now {
    /// The beginning of epoch `number`, from 1.
    fn of(config: &Config, number: usize) -> Self {
        Self {
            started: Instant::now(),
            rng: config.rng(Purpose::Epoch, number),
            score: Score::default(),
            learning_rate: 0.0,
        }
    }
}

/// The images of one step, and its learning rate.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Epoch, from 1.
    epoch: usize,
    /// Number of the batch in the epoch, from 1.
    number: usize,
    /// Rows of its images.
    rows: Vec<usize>,
    learning_rate: f32,
}

impl Batch {
    fn diverged(&self, what: String) -> NetError {
        NetError::NotFinite {
            what,
            epoch: self.epoch,
            batch: self.number,
        }
    }
}

/// Loss and hits, summed over images.
#[derive(Debug, Default)]
struct Score {
    loss: f64,
    right: usize,
    images: usize,
}

impl Score {
    /// Adds a batch of `images` images, given its mean loss.
    fn add(&mut self, mean_loss: f64, right: usize, images: usize) {
        // Batches are weighted by their size: the last of an epoch may be smaller than the others.
        self.loss += mean_loss * images as f64;
        self.right += right;
        self.images += images;
    }

    fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    fn accuracy(&self) -> f64 {
        self.right as f64 / self.images as f64
    }
}

/// Lets the allocator keep the buffers of one step for the next.
///
/// glibc takes a large buffer from the system and gives it back when it is freed, so that each step
/// waits for pages that the system clears: a third of the first epoch's time. It keeps buffers up
/// to the size of the largest that was freed, of at most 32 MiB (mallopt(3), M_MMAP_THRESHOLD). So
/// one of nearly that size is freed here. Other allocators lose nothing by it.
fn keep_freed_buffers() {
    const NEARLY_32_MIB: usize = 31 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        NEARLY_32_MIB,
    )));
}

impl Learner {
    fn begin(config: &Config, train: Labelled<'_>, test: Labelled<'_>) -> Result<Self, NetError> {
        keep_freed_buffers();
        let (rows, held_out) = config.split(train.len());
        // Mean and deviation come from the images to learn from. Those held out stand for images
        // that the model has never seen, so they must not influence its inputs.
        let scaling = train.scaling(&rows);
        // The generator of the weights is not that of the split or the epochs. A resumed training
        // draws weights here too, and overwrites them, without changing any later random number.
        let mut rng = config.rng(Purpose::Weights, 0);
        let model = Model::random(&config.model, scaling, &mut rng)?;
        let optimizer = State::new(config.optimizer, model.parameters().map(|(_, var)| var));
        Ok(Self {
            config: config.clone(),
            now: Now::of(config, 1),
            data: checkpoint::hash_of_data(train, test),
            model,
            optimizer,
            rows,
            held_out,
            history: Vec::new(),
            best: 0,
            best_parameters: Vec::new(),
        })
    }

    /// ⌈images to learn from / batch size⌉: the last batch takes what is left of the images.
    fn batches_an_epoch(&self) -> usize {
        self.rows.len().div_ceil(self.config.batch_size)
    }

    /// Begins an epoch: its batches, which hold all images to learn from, in a random order.
    fn batches(&mut self) -> Vec<Batch> {
        let config = &self.config;
        let epoch = self.history.len() + 1;
        self.now = Now::of(config, epoch);
        // Each shuffle starts from the same order. So the order of an epoch depends on the seed and
        // the epoch's number only, as a resumed training needs: it has not seen the shuffles
        // before.
        let mut order = self.rows.clone();
        order.shuffle(&mut self.now.rng);
        let batches = self.batches_an_epoch();
        // The schedule runs over all steps of the training, not of the epoch. The product saturates
        // because the number of epochs has no upper limit.
        let steps_before = (epoch - 1) * batches;
        let all_steps = config.epochs.saturating_mul(batches);
        let mut all = Vec::with_capacity(batches);
        for (i, rows) in order.chunks(config.batch_size).enumerate() {
            let factor = config.schedule.factor(steps_before + i, all_steps);
            all.push(Batch {
                epoch,
                number: i + 1,
                rows: rows.to_vec(),
                learning_rate: config.learning_rate * factor,
            });
        }
        all
    }

    /// After the last step of an epoch: the validation.
    fn end_epoch(&mut self, train: Labelled<'_>) -> Result<Epoch, NetError> {
        let learned = &self.now.score;
        // The rate is of learning alone. It is taken before the validation, whose seconds would
        // lower it.
        let images_per_s = learned.images as f64 / self.now.started.elapsed().as_secs_f64();
        let validation = score(&self.model, train, &self.held_out)?;
        let epoch = Epoch {
            epoch: self.history.len() + 1,
            epochs: self.config.epochs,
            learning_rate: self.now.learning_rate,
            loss: learned.mean_loss(),
            train_accuracy: learned.accuracy(),
            validation_loss: validation.mean_loss(),
            validation_accuracy: validation.accuracy(),
            seconds: self.now.started.elapsed().as_secs_f64(),
            images_per_s,
        };
        // In the first epoch there is no best one yet. Among equals the earlier one stays. The new
        // epoch is not in the history until below, so its index there will be the present length.
        let best = self.history.get(self.best);
        if best.is_none_or(|best| epoch.is_better_than(best)) {
            self.best = self.history.len();
            self.best_parameters = copies(&self.model)?;
        }
        self.history.push(epoch.clone());
        Ok(epoch)
    }

    /// One step: forward, backward, and the optimizer's move. Returns the mean loss of the batch.
    fn step(&mut self, train: Labelled<'_>, batch: &Batch) -> Result<f64, NetError> {
        let augmentation = self.config.augmentation;
        let rng = &mut self.now.rng;
        // One generator serves both random parts of a step, in this order: the changes of the
        // images, then the dropout. Without augmentation nothing is drawn for the images.
        let augment = (augmentation != Augmentation::NONE).then_some((augmentation, &mut *rng));
        let (inputs, labels) = train.batch(&batch.rows, self.model.scaling(), augment)?;
        let output = self.model.forward(&inputs, Some(rng))?;
        let loss = self.model.loss(&output.scores, &labels)?;
        // The loss is checked before the backward pass. A loss that is not finite has a gradient
        // that is not, and the step would spoil the parameters.
        let mean_loss = f64::from(loss.to_scalar::<f32>()?);
        if !mean_loss.is_finite() {
            return Err(batch.diverged(format!("the loss ({mean_loss})")));
        }
        let gradients = loss.backward()?;
        let parameters = self.model.parameters().map(|(_, var)| var);
        // A finite loss can still have an infinite gradient, or the step can be too long. The
        // optimizer reports it in this step, and not as a wrong loss in the next.
        let finite = self
            .optimizer
            .step(parameters, &gradients, batch.learning_rate)?;
        if !finite {
            return Err(batch.diverged("a parameter".to_owned()));
        }
        // The scores are those from before the step: the accuracy of training costs no pass of its
        // own, but lags behind the model by one step.
        let right = count_right(&output.scores, train, &batch.rows)?;
        self.now.score.add(mean_loss, right, batch.rows.len());
        self.now.learning_rate = batch.learning_rate;
        Ok(mean_loss)
    }

    /// Writes a checkpoint, if there is a file for it.
    fn save(&self, checkpoint: Option<&Path>) -> Result<(), NetError> {
        let Some(path) = checkpoint else {
            return Ok(());
        };
        checkpoint::save(path, &self.record(None), &self.all_tensors()?)
    }

    /// Scores the best epoch on the test images, once, and ends the training.
    fn test(mut self, test: Labelled<'_>, checkpoint: Option<&Path>) -> Result<Trained, NetError> {
        // The last epoch need not be the best. The test images had no part in the choice, so their
        // accuracy is an unbiased estimate.
        self.restore_best()?;
        let rows: Vec<usize> = (0..test.len()).collect();
        let test_accuracy = score(&self.model, test, &rows)?.accuracy();
        if let Some(path) = checkpoint {
            // The last checkpoint: with the test accuracy, by which a finished training is known,
            // and without what only the next step would need.
            let record = self.record(Some(test_accuracy));
            checkpoint::save(path, &record, &self.best_tensors())?;
        }
        Ok(self.finish(test_accuracy, false))
    }

    /// Takes over the checkpoint at `path`, if there is one. If that training was finished, returns
    /// its accuracy on the test images.
    fn resume(&mut self, path: &Path) -> Result<Option<f64>, NetError> {
        // The model was built from the configuration, so its shapes are what the file must hold.
        let shapes: Vec<(String, Vec<usize>)> = self
            .model
            .parameters()
            .map(|(name, var)| (name, var.dims().to_vec()))
            .collect();
        let expected = Expected {
            config: &self.config,
            data: &self.data,
            shapes: &shapes,
        };
        let Some(checkpoint) = checkpoint::load(path, &expected)? else {
            return Ok(None);
        };
        // The file's hash was right, so what `restore` still refuses was written in this form: an
        // incomplete checkpoint, not a damaged one. It is reported in the same way.
        self.restore(&checkpoint).map_err(|why| NetError::Corrupt {
            path: path.to_owned(),
            why,
        })?;
        Ok(checkpoint.record.test_accuracy)
    }

    /// Whether this training can have written the record; or what it cannot have written.
    fn check(&self, record: &Record) -> Result<(), String> {
        // Only a finished training has a test accuracy, and it has run all its epochs. Any other
        // was written after an epoch, so its history is not empty and has the best one in it.
        let finished = record.test_accuracy.is_some();
        let (epochs, all) = (record.history.len(), self.config.epochs);
        let complete = epochs == all || (epochs < all && !finished);
        if record.best >= epochs || !complete {
            let best = record.best.saturating_add(1);
            return Err(format!(
                "epoch {best} of {epochs} is called the best, of {all} in all"
            ));
        }
        // Each epoch has one step a batch. The optimizer computes with the number: a wrong one
        // would give other parameters, and one beyond an i32 a negative exponent.
        let (steps, expected) = (record.steps, epochs * self.batches_an_epoch());
        if steps != expected {
            return Err(format!(
                "{steps} steps in {epochs} epochs; expected {expected}"
            ));
        }
        Ok(())
    }

    /// Takes over what a checkpoint holds; or says what it lacks.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        let record = &checkpoint.record;
        self.check(record)?;
        let finished = record.test_accuracy.is_some();
        self.best_parameters.clear();
        // The moments are in the order of the parameters (`State::new`), so that they can be
        // zipped.
        for ((name, var), moments) in self.model.parameters().zip(&mut self.optimizer.moments) {
            let best = checkpoint.tensor("best", &name, var.dims())?;
            // A finished training kept nothing but the best parameters. They become the model's,
            // and the moments stay zero: no step follows.
            let now = if finished {
                best
            } else {
                for (part, values) in [
                    ("first", &mut moments.first),
                    ("second", &mut moments.second),
                ] {
                    // The shape is that of the zeros that the optimizer began with. For SGD
                    // "second" is empty, in the file as here.
                    let stored = checkpoint.tensor(part, &name, &[values.len()])?;
                    *values = stored.to_vec1().map_err(|error| error.to_string())?;
                }
                checkpoint.tensor("now", &name, var.dims())?
            };
            // `set` copies the values. So `best` keeps its own memory, and later steps do not
            // change it.
            var.set(now).map_err(|error| error.to_string())?;
            self.best_parameters.push((name, best.clone()));
        }
        self.optimizer.steps = record.steps;
        self.history.clone_from(&record.history);
        self.best = record.best;
        Ok(())
    }

    /// What a checkpoint says besides the tensors.
    fn record(&self, test_accuracy: Option<f64>) -> Record {
        Record {
            config: self.config.clone(),
            data: self.data.clone(),
            scaling: self.model.scaling(),
            steps: self.optimizer.steps,
            history: self.history.clone(),
            best: self.best,
            test_accuracy,
        }
    }

    /// What a finished training keeps: the parameters of the best epoch.
    fn best_tensors(&self) -> Tensors {
        let best = self.best_parameters.iter();
        best.map(|(name, tensor)| (format!("best.{name}"), tensor.clone()))
            .collect()
    }

    /// What a training needs to continue: the best parameters, the present ones, and the moments.
    fn all_tensors(&self) -> Result<Tensors, NetError> {
        let mut tensors = self.best_tensors();
        let mut names = Vec::new();
        for (name, var) in self.model.parameters() {
            // Not a copy: the tensor shares the variable's memory. It is written before the next
            // step.
            tensors.push((format!("now.{name}"), var.as_detached_tensor()));
            names.push(name);
        }
        tensors.extend(self.optimizer.tensors(&names)?);
        Ok(tensors)
    }

    fn restore_best(&mut self) -> Result<(), NetError> {
        for ((_, var), (_, best)) in self.model.parameters().zip(&self.best_parameters) {
            var.set(best)?;
        }
        Ok(())
    }

    fn finish(self, test_accuracy: f64, loaded: bool) -> Trained {
        Trained {
            model: self.model,
            history: self.history,
            best: self.best,
            test_accuracy,
            loaded,
        }
    }
}

/// Copies of the parameters as they are now, which later steps do not change.
fn copies(model: &Model) -> Result<Tensors, NetError> {
    model
        .parameters()
        // A plain clone would share the variable's memory, which the optimizer changes in place.
        // Detached, the copy does not keep the variable as its origin in candle's graph.
        .map(|(name, var)| Ok((name, var.as_tensor().copy()?.detach())))
        .collect()
}

/// Loss and hits of a model on the given images, as they are.
fn score(model: &Model, data: Labelled<'_>, rows: &[usize]) -> Result<Score, NetError> {
    let mut score = Score::default();
    for rows in rows.chunks(SCORED_TOGETHER) {
        // Neither augmentation nor dropout: no random number is drawn, so that scoring does not
        // change what the next epoch does.
        let (inputs, labels) = data.batch(rows, model.scaling(), None)?;
        let output = model.forward(&inputs, None)?;
        let mean_loss = model.loss(&output.scores, &labels)?.to_scalar::<f32>()?;
        let right = count_right(&output.scores, data, rows)?;
        score.add(f64::from(mean_loss), right, rows.len());
    }
    Ok(score)
}

/// How many of these images have their highest score at the right class.
fn count_right(scores: &Tensor, data: Labelled<'_>, rows: &[usize]) -> Result<usize, NetError> {
    let classes = scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let pairs = classes.into_iter().zip(rows);
    let right = pairs.filter(|&(class, &row)| class == u32::from(data.label(row)));
    Ok(right.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{MlpConfig, ModelConfig, PIXELS};
    use crate::vectors::Vectors;

    /// Files of the right form and with the right hash, of which the training before the change is
    /// taken up and none after.
    #[test]
    fn a_record_that_the_training_cannot_have_written_is_refused() {
        let model = ModelConfig::Mlp(MlpConfig {
            hidden: vec![1],
            dropout: 0.0,
        });
        let config = Config {
            epochs: 2,
            batch_size: 4,
            validation: 3,
            ..Config::of(model)
        };
        let pixels: Vec<u8> = (0..12 * PIXELS).map(|at| (at * at % 251) as u8).collect();
        let images = Vectors::from_bytes(PIXELS, pixels).unwrap();
        let all = Labelled::new(&images, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]).unwrap();
        let begin = || Learner::begin(&config, all, all).unwrap();
        let mut learner = begin();
        for batch in learner.batches() {
            learner.step(all, &batch).unwrap();
        }
        learner.end_epoch(all).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("training.safetensors");
        let resumed_after = |change: fn(&mut Record)| {
            let mut record = learner.record(None);
            change(&mut record);
            checkpoint::save(&path, &record, &learner.all_tensors().unwrap()).unwrap();
            begin().resume(&path)
        };
        assert_eq!(resumed_after(|_| ()).unwrap(), None);
        let changes: [fn(&mut Record); 8] = [
            |record| record.history = vec![record.history[0].clone(); 3],
            |record| record.history.clear(),
            |record| record.best = 1,
            |record| record.best = usize::MAX,
            |record| record.test_accuracy = Some(0.5),
            // 9 images to learn from are 3 batches.
            |record| record.steps = 2,
            |record| record.steps = i32::MAX as usize,
            |record| record.steps = usize::MAX,
        ];
        let is_refused = |change| matches!(resumed_after(change), Err(NetError::Corrupt { .. }));
        let refused = changes.map(is_refused);
        assert_eq!(refused, [true; 8]);
    }
}
