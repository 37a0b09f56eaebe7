//! The training loop.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Tensor, Var};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::checkpoint::{self, Record, Tensors};
use super::data::{Augmentation, Labelled};
use super::model::{CnnConfig, MlpConfig, Model, ModelConfig};
use super::optimizer::{Optimizer, Schedule, State};
use super::{NetError, check};
use crate::fashion::Fashion;

/// A model and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Which model.
    pub model: ModelConfig,
    /// Times that the training images are gone through, at least 1.
    pub epochs: usize,
    /// Images a step, at least 1; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// The full learning rate, which the schedule is a share of.
    pub learning_rate: f32,
    /// How the learning rate goes over the steps.
    pub schedule: Schedule,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// Random changes to the training images.
    pub augmentation: Augmentation,
    /// Training images held out: at least one, fewer than there are. The best epoch is chosen on them.
    pub validation: usize,
    /// Seed of everything that is random: the split, the weights, the order, the changes, what is dropped.
    pub seed: u64,
}

impl Config {
    /// The defaults for a model: what the report trains it with.
    #[must_use]
    pub fn of(model: ModelConfig) -> Self {
        let base = Self {
            model,
            epochs: 12,
            batch_size: 128,
            learning_rate: 1e-3,
            schedule: Schedule::OneCycle { warmup: 0.3 },
            optimizer: Optimizer::default(),
            augmentation: Augmentation::NONE,
            validation: 5_000,
            seed: 0,
        };
        match base.model {
            ModelConfig::Logistic | ModelConfig::Svm => base,
            ModelConfig::Mlp(_) => Self {
                epochs: 15,
                learning_rate: 2e-3,
                ..base
            },
            ModelConfig::Cnn(_) => Self {
                epochs: 15,
                learning_rate: 3e-3,
                augmentation: Augmentation {
                    shift: 1,
                    flip: true,
                },
                ..base
            },
        }
    }

    /// Logistic regression with its defaults.
    #[must_use]
    pub fn logistic() -> Self {
        Self::of(ModelConfig::Logistic)
    }

    /// The linear SVM with its defaults.
    #[must_use]
    pub fn svm() -> Self {
        Self::of(ModelConfig::Svm)
    }

    /// The feed-forward net with its defaults.
    #[must_use]
    pub fn mlp() -> Self {
        Self::of(ModelConfig::Mlp(MlpConfig::default()))
    }

    /// The convolutional net with its defaults.
    #[must_use]
    pub fn cnn() -> Self {
        Self::of(ModelConfig::Cnn(CnnConfig::default()))
    }

    /// The convolutional net with features of the given width, in a third of the epochs: what the report compares widths
    /// with. Six whole trainings would take half an hour.
    #[must_use]
    pub fn short_cnn(fc2: usize) -> Self {
        Self {
            epochs: 5,
            ..Self::of(ModelConfig::Cnn(CnnConfig {
                fc2,
                ..CnnConfig::default()
            }))
        }
    }

    /// The net that features of the given width are taken from: [`Config::cnn`] for its own, [`Config::short_cnn`] else.
    #[must_use]
    pub fn for_features(width: usize) -> Self {
        if width == CnnConfig::default().fc2 {
            Self::cnn()
        } else {
            Self::short_cnn(width)
        }
    }

    /// The same for a quick look: at most so many epochs, and at most a twelfth of so many images held out.
    #[must_use]
    pub fn limited(self, epochs: usize, images: usize) -> Self {
        Self {
            epochs: self.epochs.min(epochs),
            validation: self.validation.min((images / 12).max(1)),
            ..self
        }
    }

    /// The file in `folder` for the checkpoint of this training on these data: trainings that differ in anything have
    /// different files.
    #[must_use]
    pub fn checkpoint_in(&self, folder: &Path, train: Labelled<'_>, test: Labelled<'_>) -> PathBuf {
        let key = format!("{self:?} {} {}", train.fingerprint(), test.fingerprint());
        let hash = format!("{:x}", Sha256::digest(key));
        folder.join(format!(
            "{}-{}-{hash:.8}.safetensors",
            self.model.name(),
            self.model.feature_width()
        ))
    }

    /// Which of so many images are learned from and which held out, both shuffled.
    #[must_use]
    pub fn split(&self, images: usize) -> (Vec<usize>, Vec<usize>) {
        let mut rows: Vec<usize> = (0..images).collect();
        rows.shuffle(&mut self.rng(Purpose::Split, 0));
        let held_out = rows.split_off(images.saturating_sub(self.validation));
        (rows, held_out)
    }

    fn validate(&self, images: usize) -> Result<(), NetError> {
        self.model.validate()?;
        self.schedule.validate()?;
        self.optimizer.validate()?;
        check("epochs", self.epochs >= 1, "at least 1", self.epochs)?;
        check(
            "batch_size",
            self.batch_size >= 1,
            "at least 1",
            self.batch_size,
        )?;
        let rate = self.learning_rate;
        check(
            "learning_rate",
            rate > 0.0 && rate.is_finite(),
            "above 0",
            rate,
        )?;
        check(
            "augmentation.shift",
            self.augmentation.shift < 28,
            "below 28",
            self.augmentation.shift,
        )?;
        let expected = format!("1 to below {images}, the training images");
        check(
            "validation",
            (1..images).contains(&self.validation),
            &expected,
            self.validation,
        )
    }

    /// A generator of its own for each purpose and epoch: a resumed training needs no state of it.
    fn rng(&self, purpose: Purpose, epoch: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream((purpose as u64) << 32 | epoch as u64);
        rng
    }
}

/// What random numbers are for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Split = 1,
    Weights = 2,
    Epoch = 3,
}

/// What is apart from the result: where to keep the training, and whether to heed what is kept.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// File for the checkpoint. A training that was killed goes on from it, a finished one is loaded.
    pub checkpoint: Option<PathBuf>,
    /// Begin again, whatever the file holds.
    pub again: bool,
}

/// What an epoch was like. Displayed, it is a line of progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Which, from 1.
    pub epoch: usize,
    /// Of how many.
    pub epochs: usize,
    /// Learning rate at its end.
    pub learning_rate: f32,
    /// Mean loss over the training images, each as the model was when it came by.
    #[serde(with = "exact")]
    pub loss: f64,
    /// Share of them that were classified rightly, likewise.
    #[serde(with = "exact")]
    pub train_accuracy: f64,
    /// Mean loss over the validation images after the epoch.
    #[serde(with = "exact")]
    pub validation_loss: f64,
    /// Share of them that are classified rightly.
    #[serde(with = "exact")]
    pub validation_accuracy: f64,
    /// Seconds of the epoch, validation included.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// Training images a second, validation not counted.
    #[serde(with = "exact")]
    pub images_per_s: f64,
}

/// f64 as text: JSON numbers come back from serde_json within one unit in the last place, which is enough to choose
/// another best epoch among equals.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "epoch {:>2}/{}: loss {:.4}, accuracy {:.4}, validation {:.4}, {:.1} s, {:.0} images/s",
            self.epoch,
            self.epochs,
            self.loss,
            self.train_accuracy,
            self.validation_accuracy,
            self.seconds,
            self.images_per_s
        )
    }
}

/// A trained model: as it was after the epoch that did best on the validation images.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model of the best epoch.
    pub model: Model,
    /// All epochs, in order.
    pub history: Vec<Epoch>,
    /// Index in the history of the best.
    pub best: usize,
    /// Share of the test images that the model classifies rightly. They were looked at this once.
    pub test_accuracy: f64,
    /// Whether it was finished already, and loaded.
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

    /// Training images a second, mean over the epochs (harmonic: all images by all seconds).
    #[must_use]
    pub fn images_per_s(&self) -> f64 {
        self.history.len() as f64
            / self
                .history
                .iter()
                .map(|epoch| epoch.images_per_s.recip())
                .sum::<f64>()
    }
}

/// Trains a model on `train` without the validation images, and scores the best epoch on `test`. `each` sees every
/// epoch as it ends (of a resumed training: every epoch from there).
///
/// The same configuration, data and machine give the same figures, killed in between or not.
///
/// # Errors
/// If the configuration cannot be, the checkpoint is damaged or of another training, a file cannot be written, or the
/// training diverges.
pub fn train(
    config: &Config,
    train: Labelled<'_>,
    test: Labelled<'_>,
    options: &Options,
    mut each: impl FnMut(&Epoch),
) -> Result<Trained, NetError> {
    config.validate(train.len())?;
    let mut training = Training::begin(config, train)?;
    let data = format!("{} {}", train.fingerprint(), test.fingerprint());
    if let (Some(path), false) = (&options.checkpoint, options.again)
        && let Some((record, tensors)) = checkpoint::load(path, config, &data, &training.shapes())?
    {
        training
            .restore(&record, &tensors)
            .map_err(|why| NetError::Corrupt {
                path: path.clone(),
                why,
            })?;
        if let Some(test_accuracy) = record.test_accuracy {
            return Ok(training.finish(test_accuracy, true));
        }
    }
    while training.history.len() < config.epochs {
        training.epoch(train)?;
        if let Some(path) = &options.checkpoint {
            checkpoint::save(
                path,
                &training.record(&data, None),
                &training.tensors(true)?,
            )?;
        }
        each(training.history.last().expect("an epoch has just ended"));
    }
    training.restore_best()?;
    let rows: Vec<usize> = (0..test.len()).collect();
    let (_, test_accuracy) = score(&training.model, test, &rows)?;
    if let Some(path) = &options.checkpoint {
        checkpoint::save(
            path,
            &training.record(&data, Some(test_accuracy)),
            &training.tensors(false)?,
        )?;
    }
    Ok(training.finish(test_accuracy, false))
}

/// [`train`] on Fashion-MNIST with its checkpoint in `folder`: a finished training is loaded, one that was killed goes on.
///
/// # Errors
/// As [`train`].
pub fn learned(
    config: &Config,
    data: &Fashion,
    folder: &Path,
    each: impl FnMut(&Epoch),
) -> Result<Trained, NetError> {
    let train_set = Labelled::new(&data.train, &data.train_labels)?;
    let test = Labelled::new(&data.test, &data.test_labels)?;
    let options = Options {
        checkpoint: Some(config.checkpoint_in(folder, train_set, test)),
        again: false,
    };
    train(config, train_set, test, &options, each)
}

/// A training under way.
struct Training<'a> {
    config: &'a Config,
    model: Model,
    optimizer: State,
    /// Rows of the training images to learn from, and those held out.
    rows: Vec<usize>,
    held_out: Vec<usize>,
    history: Vec<Epoch>,
    best: usize,
    best_parameters: Tensors,
}

impl<'a> Training<'a> {
    fn begin(config: &'a Config, train: Labelled<'_>) -> Result<Self, NetError> {
        let (rows, held_out) = config.split(train.len());
        let model = Model::random(
            &config.model,
            train.scaling(&rows),
            &mut config.rng(Purpose::Weights, 0),
        )?;
        let optimizer = State::new(config.optimizer, model.parameters().map(|(_, var)| var));
        Ok(Self {
            config,
            model,
            optimizer,
            rows,
            held_out,
            history: Vec::new(),
            best: 0,
            best_parameters: Vec::new(),
        })
    }

    /// One time through the training images, and the validation after it.
    fn epoch(&mut self, train: Labelled<'_>) -> Result<(), NetError> {
        let start = Instant::now();
        let config = self.config;
        let epoch = self.history.len() + 1;
        let mut rng = config.rng(Purpose::Epoch, epoch);
        let mut order = self.rows.clone();
        order.shuffle(&mut rng);
        let batches = order.len().div_ceil(config.batch_size);
        let augment = config.augmentation != Augmentation::NONE;
        let (mut loss_sum, mut right, mut learning_rate) = (0.0, 0, 0.0);
        for (batch, rows) in order.chunks(config.batch_size).enumerate() {
            learning_rate = config.learning_rate
                * config
                    .schedule
                    .factor((epoch - 1) * batches + batch, config.epochs * batches);
            let augmentation = augment.then_some((config.augmentation, &mut rng));
            let (inputs, labels) = train.batch(rows, self.model.scaling(), augmentation)?;
            let output = self.model.forward(&inputs, Some(&mut rng))?;
            let loss = self.model.loss(&output.scores, &labels)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            let diverged = |what| NetError::NotFinite {
                what,
                epoch,
                batch: batch + 1,
            };
            if !value.is_finite() {
                return Err(diverged(format!("the loss ({value})")));
            }
            let gradients = loss.backward()?;
            let parameters = self.model.parameters().map(|(_, var)| var);
            if !self.optimizer.step(parameters, &gradients, learning_rate)? {
                return Err(diverged("a parameter".to_owned()));
            }
            loss_sum += value * rows.len() as f64;
            right += count_right(&output.scores, rows.iter().map(|&row| train.label(row)))?;
        }
        let images_per_s = order.len() as f64 / start.elapsed().as_secs_f64();
        let (validation_loss, validation_accuracy) = score(&self.model, train, &self.held_out)?;
        self.history.push(Epoch {
            epoch,
            epochs: config.epochs,
            learning_rate,
            loss: loss_sum / order.len() as f64,
            train_accuracy: right as f64 / order.len() as f64,
            validation_loss,
            validation_accuracy,
            seconds: start.elapsed().as_secs_f64(),
            images_per_s,
        });
        // Among equals the lower loss, then the earlier epoch.
        let best = &self.history[self.best];
        let better = (validation_accuracy, -validation_loss)
            > (best.validation_accuracy, -best.validation_loss);
        if epoch == 1 || better {
            self.best = epoch - 1;
            self.best_parameters = copies(&self.model)?;
        }
        Ok(())
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.model
            .parameters()
            .map(|(name, var)| (name, var.dims().to_vec()))
            .collect()
    }

    fn record(&self, data: &str, test_accuracy: Option<f64>) -> Record {
        Record {
            config: self.config.clone(),
            data: data.to_owned(),
            scaling: self.model.scaling(),
            steps: self.optimizer.steps,
            history: self.history.clone(),
            best: self.best,
            test_accuracy,
        }
    }

    /// What a checkpoint keeps: the best parameters, and what it takes to go on.
    fn tensors(&self, to_go_on: bool) -> Result<Tensors, NetError> {
        let best = self
            .best_parameters
            .iter()
            .map(|(name, tensor)| (format!("best.{name}"), tensor.clone()));
        let mut tensors: Tensors = best.collect();
        if to_go_on {
            let now = self
                .model
                .parameters()
                .map(|(name, var)| (format!("now.{name}"), var.as_detached_tensor()));
            tensors.extend(now);
            let names: Vec<String> = self.model.parameters().map(|(name, _)| name).collect();
            tensors.extend(self.optimizer.tensors(&names)?);
        }
        Ok(tensors)
    }

    /// Takes over what a checkpoint holds; or says what it lacks.
    fn restore(
        &mut self,
        record: &Record,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<(), String> {
        let get = |part: &str, name: &str, shape: &[usize]| match tensors
            .get(&format!("{part}.{name}"))
        {
            Some(tensor) if tensor.dims() == shape => Ok(tensor),
            Some(tensor) => Err(format!(
                "{part}.{name} has shape {:?}, expected {shape:?}",
                tensor.dims()
            )),
            None => Err(format!("{part}.{name} is missing")),
        };
        let finished = record.test_accuracy.is_some();
        if record.best >= record.history.len()
            || (finished && record.history.len() != self.config.epochs)
        {
            return Err(format!(
                "epoch {} of {} is called the best",
                record.best + 1,
                record.history.len()
            ));
        }
        let set = |var: &Var, tensor: &Tensor| var.set(tensor).map_err(|error| error.to_string());
        let values = |tensor: &Tensor| tensor.to_vec1::<f32>().map_err(|error| error.to_string());
        self.best_parameters.clear();
        for ((name, var), (first, second)) in
            self.model.parameters().zip(&mut self.optimizer.moments)
        {
            let best = get("best", &name, var.dims())?;
            set(
                var,
                if finished {
                    best
                } else {
                    get("now", &name, var.dims())?
                },
            )?;
            if !finished {
                *first = values(get("first", &name, &[first.len()])?)?;
                *second = values(get("second", &name, &[second.len()])?)?;
            }
            self.best_parameters.push((name, best.clone()));
        }
        self.optimizer.steps = record.steps;
        self.history.clone_from(&record.history);
        self.best = record.best;
        Ok(())
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

/// The parameters as they are now.
fn copies(model: &Model) -> Result<Tensors, NetError> {
    model
        .parameters()
        .map(|(name, var)| Ok((name, var.as_tensor().copy()?.detach())))
        .collect()
}

/// Mean loss and accuracy on the given images.
fn score(model: &Model, data: Labelled<'_>, rows: &[usize]) -> Result<(f64, f64), NetError> {
    let (mut loss, mut right) = (0.0, 0);
    for rows in rows.chunks(256) {
        let (inputs, labels) = data.batch(rows, model.scaling(), None)?;
        let output = model.forward(&inputs, None)?;
        loss +=
            f64::from(model.loss(&output.scores, &labels)?.to_scalar::<f32>()?) * rows.len() as f64;
        right += count_right(&output.scores, rows.iter().map(|&row| data.label(row)))?;
    }
    Ok((loss / rows.len() as f64, right as f64 / rows.len() as f64))
}

/// How many of the highest scores are at the right class.
fn count_right(scores: &Tensor, labels: impl Iterator<Item = u8>) -> Result<usize, NetError> {
    let classes = scores.argmax(candle_core::D::Minus1)?.to_vec1::<u32>()?;
    Ok(classes
        .into_iter()
        .zip(labels)
        .filter(|&(class, label)| class == u32::from(label))
        .count())
}
