//! [`Epoch`]: the figures of one pass over the training images.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The figures of one epoch. `Display` prints them as a line of progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Number of epochs of the training.
    pub epochs: usize,
    /// Learning rate at its last step.
    pub learning_rate: f32,
    /// Mean loss over the training images, each by the model as it was when the image came by.
    #[serde(with = "exact")]
    pub loss: f64,
    /// Share of the training images that were classified rightly, likewise.
    #[serde(with = "exact")]
    pub train_accuracy: f64,
    /// Mean loss over the validation images after the epoch.
    #[serde(with = "exact")]
    pub validation_loss: f64,
    /// Share of the validation images that are classified rightly.
    #[serde(with = "exact")]
    pub validation_accuracy: f64,
    /// Seconds of the epoch, validation included.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// Training images a second, validation not counted.
    #[serde(with = "exact")]
    pub images_per_s: f64,
}

impl Epoch {
    /// Whether this epoch's model is better than `other`'s: by accuracy on the validation images,
    /// among equals by the lower loss.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        // Pairs are compared by their first part, and by the second where the first is equal. The
        // loss is negated, because less of it is better.
        let merit = |epoch: &Self| (epoch.validation_accuracy, -epoch.validation_loss);
        merit(self) > merit(other)
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

/// Writes f64 as text, so that exactly the same value is read back.
///
/// serde_json, as it is built here, reads a JSON number with an error of up to one unit in the last
/// place. That is enough for a resumed training to choose another best epoch among nearly equal
/// ones.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        // `Display` writes the shortest decimal number that is read back as the same f64.
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
