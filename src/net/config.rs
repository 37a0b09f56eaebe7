//! What a training is asked for: the model, the data's preparation, the steps, the seed.
//!
//! These are plain values, checked by `Config::validate`. The code that acts on them imports this
//! file and not the reverse: `data` augments, `optimizer` steps, `train` runs the loop.

use std::path::PathBuf;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::architecture::{CnnConfig, MlpConfig, ModelConfig, SIDE};
use super::{NetError, check};

/// A model and how it is trained.
///
/// [`Config::of`] has the defaults of each model; change single fields with struct update syntax:
///
/// ```
/// use fashion_knn::net::{Config, Schedule};
///
/// let config = Config { epochs: 3, schedule: Schedule::Cosine, ..Config::mlp() };
/// assert_eq!(config.model.feature_width(), 128);
/// assert_eq!(config.batch_size, 128);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Which model.
    pub model: ModelConfig,
    /// Passes over the training images, at least 1.
    pub epochs: usize,
    /// Images in a step, at least 1. The last step of an epoch takes what is left.
    pub batch_size: usize,
    /// The full learning rate. The schedule multiplies it by a factor of 0 to 1.
    pub learning_rate: f32,
    /// How the learning rate changes over the steps.
    pub schedule: Schedule,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// Random changes to the training images.
    pub augmentation: Augmentation,
    /// Number of training images held out, at least one and fewer than there are. The best epoch is
    /// chosen on them.
    pub validation: usize,
    /// Seed of everything random: the split, the weights, the order, the augmentation, the dropout.
    pub seed: u64,
}

impl Config {
    /// The defaults for a model: what the report trains it with.
    #[must_use]
    pub fn of(model: ModelConfig) -> Self {
        // The linear models' settings, from which the nets differ below. 5,000 of 60,000 images are
        // the twelfth that `limited` keeps to as well.
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
            // On the images held out .947 after twelve epochs of these, .943 of batches of 128
            // at 3e-3 with three times the dropout. They take some six minutes on two cores.
            ModelConfig::Cnn(_) => Self {
                epochs: 12,
                batch_size: 64,
                learning_rate: 2e-3,
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

    /// The convolutional net with `fc2` features, trained for two epochs.
    ///
    /// The report compares widths of features with it. Six full trainings would take half an hour.
    #[must_use]
    pub fn short_cnn(fc2: usize) -> Self {
        let cnn = CnnConfig {
            fc2,
            ..CnnConfig::default()
        };
        Self {
            epochs: 2,
            ..Self::of(ModelConfig::Cnn(cnn))
        }
    }

    /// The net from which features of this width are taken: [`Config::cnn`] for its own width,
    /// [`Config::short_cnn`] for any other.
    #[must_use]
    pub fn for_features(width: usize) -> Self {
        if width == CnnConfig::default().fc2 {
            Self::cnn()
        } else {
            Self::short_cnn(width)
        }
    }

    /// The same training, limited for a quick look: at most `epochs` epochs, and at most a twelfth
    /// of the `images` training images held out.
    #[must_use]
    pub fn limited(self, epochs: usize, images: usize) -> Self {
        Self {
            epochs: self.epochs.min(epochs),
            // At least one image, because the best epoch is chosen on them. `min` never raises what
            // was asked for.
            validation: self.validation.min((images / 12).max(1)),
            ..self
        }
    }

    /// Splits the rows `0..images` into those to learn from and those held out, both shuffled.
    #[must_use]
    pub fn split(&self, images: usize) -> (Vec<usize>, Vec<usize>) {
        let mut rows: Vec<usize> = (0..images).collect();
        rows.shuffle(&mut self.rng(Purpose::Split, 0));
        // The last rows of the shuffled ones. The subtraction saturates because this function is
        // public and may be called before `validate`: more images held out than there are means
        // all.
        let held_out = rows.split_off(images.saturating_sub(self.validation));
        (rows, held_out)
    }

    /// Refuses values that no training on `images` images can have.
    pub(super) fn validate(&self, images: usize) -> Result<(), NetError> {
        // Comparisons are written so that NaN fails them: it is not above 0 and in no range.
        self.model.validate()?;
        self.schedule.validate()?;
        self.optimizer.validate()?;
        check("epochs", self.epochs >= 1, "at least 1", self.epochs)?;
        let batch_size = self.batch_size;
        check("batch_size", batch_size >= 1, "at least 1", batch_size)?;
        let rate = self.learning_rate;
        let positive = rate > 0.0 && rate.is_finite();
        check("learning_rate", positive, "above 0", rate)?;
        let shift = self.augmentation.shift;
        // A shift by the whole width would leave a black image, but still with the label of its
        // garment.
        check("augmentation.shift", shift < SIDE, "below 28", shift)?;
        let expected = format!("1 to below {images}, the training images");
        let some_left = (1..images).contains(&self.validation);
        check("validation", some_left, &expected, self.validation)
    }

    /// The random numbers for one purpose in one epoch.
    ///
    /// Each pair has a stream of its own, so that a resumed training need not store the generator.
    pub(super) fn rng(&self, purpose: Purpose, epoch: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // ChaCha has 2⁶⁴ streams for a seed, with independent numbers. The purpose is in the
        // upper 32 bits and the epoch in the lower, so that no two pairs share one (no training
        // reaches 2³² epochs).
        rng.set_stream((purpose as u64) << 32 | epoch as u64);
        rng
    }
}

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Which images are held out.
    Split = 1,
    /// The initial weights.
    Weights = 2,
    /// The order of the images, their augmentation and the dropout of one epoch.
    Epoch = 3,
}

/// Settings that do not change the result: where the training is kept, and whether it is read back.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// File of the checkpoint. An interrupted training continues from it; a finished one is loaded.
    pub checkpoint: Option<PathBuf>,
    /// Begin again, whatever the file holds.
    pub again: bool,
}

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's form.
    AdamW {
        /// Decay of the mean of the gradients.
        beta1: f32,
        /// Decay of the mean of their squares.
        beta2: f32,
        /// Added to the denominator.
        epsilon: f32,
        /// Each step multiplies the parameters by 1 − learning rate · `weight_decay`.
        weight_decay: f32,
    },
    /// Stochastic gradient descent with momentum.
    Sgd {
        /// Decay of the velocity; 0 for none.
        momentum: f32,
        /// L2 penalty: this much of the parameters is added to the gradient.
        weight_decay: f32,
    },
}

impl Default for Optimizer {
    /// AdamW with PyTorch's defaults.
    fn default() -> Self {
        Self::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl Optimizer {
    fn validate(&self) -> Result<(), NetError> {
        match *self {
            Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                check_decay("beta1", beta1)?;
                check_decay("beta2", beta2)?;
                let positive = epsilon > 0.0 && epsilon.is_finite();
                check("epsilon", positive, "above 0", epsilon)?;
                check_weight_decay(weight_decay)
            }
            Self::Sgd {
                momentum,
                weight_decay,
            } => {
                check_decay("momentum", momentum)?;
                check_weight_decay(weight_decay)
            }
        }
    }
}

fn check_decay(what: &'static str, value: f32) -> Result<(), NetError> {
    let share = (0.0..1.0).contains(&value);
    check(what, share, "0 to below 1", value)
}

fn check_weight_decay(value: f32) -> Result<(), NetError> {
    let small = (0.0..1e3).contains(&value);
    check("weight_decay", small, "0 to below 1,000", value)
}

/// How the learning rate changes over the steps of a training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The full rate at every step.
    Constant,
    /// Half a cosine from the full rate down to zero (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Up from 1/25 of the full rate, then down to zero, both as half a cosine (Smith & Topin 2018,
    /// "Super-convergence").
    OneCycle {
        /// Share of the steps on the way up, 0 to below 1.
        warmup: f32,
    },
}

/// The one-cycle schedule begins at this share of the full rate, as PyTorch's `OneCycleLR` does.
const ONE_CYCLE_START: f64 = 1.0 / 25.0;

impl Schedule {
    fn validate(&self) -> Result<(), NetError> {
        match *self {
            Self::OneCycle { warmup } => check_decay("warmup", warmup),
            Self::Constant | Self::Cosine => Ok(()),
        }
    }

    /// The factor of the learning rate at step `step` (from 0) of `steps`: 0 to 1.
    #[must_use]
    pub fn factor(&self, step: usize, steps: usize) -> f32 {
        // The last step is `steps` − 1, so that progress stays below 1 and the last factor above
        // zero. A training of no steps would divide by zero.
        let progress = step as f64 / steps.max(1) as f64;
        let factor = match *self {
            Self::Constant => 1.0,
            Self::Cosine => half_cosine(progress),
            Self::OneCycle { warmup } => {
                let warmup = f64::from(warmup);
                // A warm-up of 0 never comes here, so that nothing is divided by zero. The warm-up
                // is below 1, so neither is anything in the other branch. Both give 1 where they
                // meet.
                if progress < warmup {
                    1.0 - (1.0 - ONE_CYCLE_START) * half_cosine(progress / warmup)
                } else {
                    half_cosine((progress - warmup) / (1.0 - warmup))
                }
            }
        };
        factor as f32
    }
}

/// Falls smoothly from 1 at 0 to 0 at 1.
fn half_cosine(at: f64) -> f64 {
    (1.0 + (std::f64::consts::PI * at).cos()) / 2.0
}

/// Random changes that keep an image's class, drawn anew each time that the image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Largest shift in pixels, up, down, left and right. The border is filled with black.
    pub shift: usize,
    /// Mirror each image left to right with probability 1/2.
    pub flip: bool,
}

impl Augmentation {
    /// The images as they are.
    pub const NONE: Self = Self {
        shift: 0,
        flip: false,
    };
}
