//! A training on disk: one safetensors file, written whole after each epoch.
//!
//! The naive checkpoint holds the parameters. To continue as if nothing had happened, a training
//! also needs the optimizer's moments, the best epoch's parameters and its own history:
//!
//! ```text
//! metadata   "fashion-knn training": the Record, as JSON
//!            "sha256": hash over the record and all tensors
//! tensors    now.conv1.weight …      the parameters as they are
//!            best.conv1.weight …     those of the best epoch so far
//!            first.conv1.weight …    the optimizer's moments
//!            second.conv1.weight …
//! ```
//!
//! The random generator needs no place in it: each epoch has a stream of its own (`Config::rng`). A
//! finished training keeps only the best parameters.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::data::Labelled;
use super::epoch::Epoch;
use super::little_endian::{bytes, floats};
use super::model::Scaling;
use super::{NetError, at};
use crate::files::write_atomically;

/// Keys of the metadata: the record, and the hash over record and tensors.
const RECORD: &str = "fashion-knn training";
const HASH: &str = "sha256";

/// Everything about a training but its tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub config: Config,
    /// Hashes of the training and the test images.
    pub data: String,
    pub scaling: Scaling,
    /// Steps that the optimizer has taken.
    pub steps: usize,
    pub history: Vec<Epoch>,
    /// Index of the best epoch in the history.
    pub best: usize,
    /// Accuracy on the test set, once the training is finished.
    pub test_accuracy: Option<f64>,
}

/// Tensors of f32 and their names, in order.
pub(super) type Tensors = Vec<(String, Tensor)>;

/// A checkpoint that was read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub record: Record,
    tensors: HashMap<String, Tensor>,
}

/// The training that a checkpoint should be of.
pub(super) struct Expected<'a> {
    pub config: &'a Config,
    /// As [`Record::data`].
    pub data: &'a str,
    /// Name and shape of each of the model's parameters.
    pub shapes: &'a [(String, Vec<usize>)],
}

impl Config {
    /// The file in `folder` for the checkpoint of this training on these data.
    ///
    /// Its name has a hash of the configuration and the data: trainings that differ in anything
    /// have different files.
    #[must_use]
    pub fn checkpoint_in(&self, folder: &Path, train: Labelled<'_>, test: Labelled<'_>) -> PathBuf {
        // The whole configuration is in the key, also fields that are added later: files from
        // before the change are then not found, rather than refused. Eight digits of the hash are
        // 32 bits. If two trainings get the same name all the same, `load` reports the difference.
        let key = format!("{self:?} {}", hash_of_data(train, test));
        let hash = format!("{:x}", Sha256::digest(key));
        let (name, width) = (self.model.name(), self.model.feature_width());
        folder.join(format!("{name}-{width}-{hash:.8}.safetensors"))
    }
}

/// The hashes by which a checkpoint knows its data.
pub(super) fn hash_of_data(train: Labelled<'_>, test: Labelled<'_>) -> String {
    format!("{} {}", train.fingerprint(), test.fingerprint())
}

/// Writes a checkpoint in place of the one before.
pub(super) fn save(path: &Path, record: &Record, tensors: &Tensors) -> Result<(), NetError> {
    // The record is hashed as the text that is written. `parse` hashes the same text, so that the
    // hash does not depend on how JSON is read and written again.
    let json = serde_json::to_string(record).map_err(|error| at(path)(io::Error::other(error)))?;
    let metadata = HashMap::from([
        (HASH.to_owned(), hash(&json, tensors)?),
        (RECORD.to_owned(), json),
    ]);
    let tensors = tensors.iter().map(|(name, tensor)| (name, tensor));
    let file = safetensors::serialize(tensors, Some(metadata)).map_err(candle_core::Error::from)?;
    // A training can be killed at any time. The file of the epoch before stays until this one is
    // whole.
    write_atomically(path, &file).map_err(at(path))
}

/// The checkpoint at `path`, or none if there is no file.
pub(super) fn load(path: &Path, expected: &Expected<'_>) -> Result<Option<Checkpoint>, NetError> {
    let file = match fs::read(path) {
        Ok(file) => file,
        // No file is the usual beginning of a training. A file that cannot be read is an error: to
        // begin again would overwrite it at the end of the first epoch.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let checkpoint = Checkpoint::parse(&file).map_err(|why| NetError::Corrupt {
        path: path.to_owned(),
        why,
    })?;
    // The file is whole. What remains to ask is whether it is of this training: to continue
    // another's parameters would give figures that no one could repeat.
    if let Some(difference) = checkpoint.difference_from(expected) {
        return Err(NetError::Mismatch {
            path: path.to_owned(),
            what: difference.what,
            expected: difference.expected,
            found: difference.found,
        });
    }
    Ok(Some(checkpoint))
}

/// Why a checkpoint is of another training.
struct Difference {
    what: String,
    expected: String,
    found: String,
}

impl Checkpoint {
    /// Reads a file and verifies its hash; or says what is wrong with it.
    fn parse(file: &[u8]) -> Result<Self, String> {
        let text = |error: safetensors::SafeTensorError| error.to_string();
        // safetensors checks the form: that the header is JSON, and that the tensors' places lie
        // within the file and do not overlap. It does not check the values; the hash does.
        let (_, header) = SafeTensors::read_metadata(file).map_err(text)?;
        let archive = SafeTensors::deserialize(file).map_err(text)?;
        let metadata = header.metadata().as_ref();
        let entry = |key| metadata.and_then(|entries| entries.get(key));
        let (Some(json), Some(expected_hash)) = (entry(RECORD), entry(HASH)) else {
            return Err("it has no record of a training".to_owned());
        };
        let mut tensors = Tensors::new();
        for (name, view) in archive.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("{name} is {:?}, expected F32", view.dtype()));
            }
            // A copy: the bytes in the file need not be aligned for f32.
            let values = floats(view.data());
            let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)
                .map_err(|error| format!("{name}: {error}"))?;
            tensors.push((name.to_owned(), tensor));
        }
        let found_hash = hash(json, &tensors).map_err(|error| error.to_string())?;
        if &found_hash != expected_hash {
            return Err("its contents do not have the hash that they were written with".to_owned());
        }
        // The record is read after its text has been verified. If it cannot be read, it was written
        // by another version of this crate.
        let record = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let tensors = tensors.into_iter().collect();
        Ok(Self { record, tensors })
    }

    /// The first difference from the training that this should be of, if there is any.
    fn difference_from(&self, expected: &Expected<'_>) -> Option<Difference> {
        // The shapes first: they say what differs more plainly than the whole configuration. "best"
        // stands for all: every checkpoint has these tensors, and `tensor` checks the shapes of the
        // others when they are asked for.
        for (name, shape) in expected.shapes {
            let found = self.tensors.get(&format!("best.{name}")).map(Tensor::dims);
            if found != Some(shape) {
                return Some(Difference {
                    what: format!("the shape of {name}"),
                    expected: format!("{shape:?}"),
                    found: found.map_or("missing".to_owned(), |found| format!("{found:?}")),
                });
            }
        }
        if &self.record.config != expected.config {
            return Some(Difference {
                what: "the configuration".to_owned(),
                expected: format!("{:?}", expected.config),
                found: format!("{:?}", self.record.config),
            });
        }
        if self.record.data != expected.data {
            return Some(Difference {
                what: "the data's hash".to_owned(),
                expected: expected.data.to_owned(),
                found: self.record.data.clone(),
            });
        }
        None
    }

    /// The tensor "`part`.`name`", if it has this shape; or what is wrong with it.
    pub(super) fn tensor(
        &self,
        part: &str,
        name: &str,
        shape: &[usize],
    ) -> Result<&Tensor, String> {
        match self.tensors.get(&format!("{part}.{name}")) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor),
            Some(tensor) => Err(format!(
                "{part}.{name} has shape {:?}, expected {shape:?}",
                tensor.dims()
            )),
            None => Err(format!("{part}.{name} is missing")),
        }
    }
}

/// SHA-256 over the record and all tensors, in the order of their names. A damaged file can keep
/// its form and yet have other values. The shapes are not hashed: they are compared with those of
/// the model.
fn hash(json: &str, tensors: &Tensors) -> candle_core::Result<String> {
    let mut hash = Sha256::new();
    hash.update(json);
    // safetensors sorts the tensors when it writes. So they come back in another order than they
    // were written in, and the hash must not depend on it.
    let mut sorted: Vec<&(String, Tensor)> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, tensor) in sorted {
        hash.update(name);
        hash.update(bytes(tensor)?);
    }
    Ok(format!("{:x}", hash.finalize()))
}
