//! Learning curves: accuracy against the number of images that were learned from.
//!
//! `make learning` measures them (`src/bin/learning.rs`), which takes hours; the notebooks read the
//! record, `data/results/learning.csv`. A row is a method, taught with `n` images:
//!
//! ```text
//! n images of the training set, drawn with the seed (at 60,000: all, in their order)
//!     a twelfth is held out: on it k, the vote and the best epoch are chosen
//!     the others are learned from
//! 10,000 images of the test set: scored once, by what was chosen
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lab::record::{RecordError, change_table, check_table, finite, read_table};

/// What learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// k-NN on pixels: all n images are remembered.
    Pixels,
    /// k-NN on the features of the convolutional net that learned from the same images.
    Features,
    /// Logistic regression.
    Logistic,
    /// The convolutional net.
    Cnn,
}

/// What a method came to: a row of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// What learned.
    pub method: Method,
    /// Images, those held out among them.
    pub n: usize,
    /// Width of the features: 784 pixels, or the net's last layer but one.
    pub width: usize,
    /// Seed of the draw of the images and of the net's training.
    pub seed: u64,
    /// Neighbours that vote, as chosen on the images held out; none for a net.
    pub k: Option<usize>,
    /// Passes over the images; none for pixels, of which nothing is learned.
    pub epochs: Option<usize>,
    /// Share of the test images that are classified rightly.
    #[serde(deserialize_with = "finite")]
    pub accuracy: f64,
    /// Share of the images held out that are classified rightly by what was chosen on them.
    #[serde(deserialize_with = "finite")]
    pub validation: f64,
    /// Seconds of learning; of k-NN, of choosing k and answering for the test images.
    #[serde(deserialize_with = "finite")]
    pub seconds: f64,
    /// Threads.
    pub threads: usize,
    /// The processor.
    pub cpu: String,
    /// Day, as 2026-11-26.
    pub date: String,
    /// Short hash of the commit, "+" after it if files differed from it.
    pub commit: String,
}

/// The columns of the record, in the order of [`Learned`]'s fields.
pub const COLUMNS: [&str; 13] = [
    "method",
    "n",
    "width",
    "seed",
    "k",
    "epochs",
    "accuracy",
    "validation",
    "seconds",
    "threads",
    "cpu",
    "date",
    "commit",
];

impl Learned {
    /// What the row is a measurement of: two rows with the same answer repeat each other.
    #[must_use]
    pub fn subject(&self) -> (Method, usize, usize, u64) {
        (self.method, self.n, self.width, self.seed)
    }
}

/// The rows of a record of learning curves.
///
/// # Errors
/// If the file cannot be read, its columns are others, or a value is not of its column's kind.
pub fn learning(path: &Path) -> Result<Vec<Learned>, RecordError> {
    read_table(path, &COLUMNS)
}

/// The rows that a record has so far, after a try whether it can be written. A file that is not
/// there, or empty, has none.
///
/// # Errors
/// As [`learning`], and if the file cannot be written.
pub fn so_far(path: &Path) -> Result<Vec<Learned>, RecordError> {
    check_table(path, &COLUMNS)
}

/// Adds rows to a record, in the place of those that they repeat. A file that is not there is made.
///
/// # Errors
/// If the file cannot be read or written.
pub fn add(path: &Path, rows: Vec<Learned>) -> Result<(), RecordError> {
    change_table(path, &COLUMNS, |all: &mut Vec<Learned>| {
        all.retain(|old| rows.iter().all(|row| row.subject() != old.subject()));
        all.extend(rows);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: Method, n: usize, accuracy: f64) -> Learned {
        Learned {
            method,
            n,
            width: 128,
            seed: 0,
            k: matches!(method, Method::Features).then_some(5),
            epochs: Some(3),
            accuracy,
            validation: 0.5,
            seconds: 1.5,
            threads: 2,
            cpu: "a, b".to_owned(),
            date: "2026-11-26".to_owned(),
            commit: "abc1234".to_owned(),
        }
    }

    #[test]
    fn what_is_added_is_read_back_and_takes_the_place_of_what_it_repeats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/learning.csv");
        let (first, other) = (row(Method::Features, 100, 0.25), row(Method::Cnn, 100, 0.5));
        add(&path, vec![first, other.clone()]).unwrap();
        let (better, larger) = (row(Method::Features, 100, 0.75), row(Method::Cnn, 200, 0.5));
        add(&path, vec![better.clone(), larger.clone()]).unwrap();
        assert_eq!(learning(&path).unwrap(), [other, better, larger]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(COLUMNS.join(",").as_str()));
    }

    /// The committed record is one of these.
    #[test]
    fn the_record_is_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let rows = learning(&root.join("data/results/learning.csv")).unwrap();
        assert!(rows.iter().all(|row| (0.0..=1.0).contains(&row.accuracy)));
    }

    #[test]
    fn another_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("learning.csv");
        std::fs::write(&path, "method,n,colour\ncnn,1,red\n").unwrap();
        let error = learning(&path).unwrap_err().to_string();
        assert!(so_far(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert_eq!(so_far(&path).unwrap(), []);
        assert!(
            error.contains("column 3 is \"colour\"; expected \"width\""),
            "{error}"
        );
    }
}
