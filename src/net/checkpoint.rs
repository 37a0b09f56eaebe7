//! A training on disk: one safetensors file, written whole after each epoch.
//!
//! Its tensors are the parameters as they are ("now.conv1.weight"), those of the best epoch so far ("best.…") and the
//! optimizer's moments ("first.…", "second.…"); its metadata is a JSON record of everything else. A finished training
//! keeps the best parameters only.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use candle_core::Tensor;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::features::{bytes, floats};
use super::model::Scaling;
use super::train::{Config, Epoch};
use super::{NetError, at};
use crate::files::write_atomically;

/// The metadata's key of the record, and of the hash over all tensors.
const RECORD: &str = "fashion-knn training";
const HASH: &str = "sha256";

/// All of a training but its tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub config: Config,
    /// Hash of the training and test images.
    pub data: String,
    pub scaling: Scaling,
    /// Steps that the optimizer has taken.
    pub steps: usize,
    pub history: Vec<Epoch>,
    /// Index in the history.
    pub best: usize,
    /// Accuracy on the test set, once the training is over.
    pub test_accuracy: Option<f64>,
}

/// Named tensors of f32.
pub(super) type Tensors = Vec<(String, Tensor)>;
/// What a checkpoint holds.
pub(super) type Checkpoint = (Record, HashMap<String, Tensor>);

/// Writes a checkpoint in place of the one before.
pub(super) fn save(path: &Path, record: &Record, tensors: &Tensors) -> Result<(), NetError> {
    let json = serde_json::to_string(record).map_err(|error| at(path)(io::Error::other(error)))?;
    let metadata = HashMap::from([
        (HASH.to_owned(), hash(&json, tensors)?),
        (RECORD.to_owned(), json),
    ]);
    let tensors = tensors.iter().map(|(name, tensor)| (name, tensor));
    let file = safetensors::serialize(tensors, Some(metadata)).map_err(candle_core::Error::from)?;
    write_atomically(path, &file).map_err(at(path))
}

/// The checkpoint at `path`, if there is a file. `shapes` are the parameters of the model that it should be of.
pub(super) fn load(
    path: &Path,
    config: &Config,
    data: &str,
    shapes: &[(String, Vec<usize>)],
) -> Result<Option<Checkpoint>, NetError> {
    let file = match fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let corrupt = |why: String| NetError::Corrupt {
        path: path.to_owned(),
        why,
    };
    let (_, metadata) =
        SafeTensors::read_metadata(&file).map_err(|error| corrupt(error.to_string()))?;
    let archive = SafeTensors::deserialize(&file).map_err(|error| corrupt(error.to_string()))?;
    let entry = |key| {
        metadata
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(key))
    };
    let (Some(json), Some(expected_hash)) = (entry(RECORD), entry(HASH)) else {
        return Err(corrupt("it has no record of a training".to_owned()));
    };
    let mut tensors = Tensors::new();
    for (name, view) in archive.iter() {
        if view.dtype() != safetensors::Dtype::F32 {
            return Err(corrupt(format!(
                "{name} is {:?}, expected F32",
                view.dtype()
            )));
        }
        let tensor =
            Tensor::from_vec(floats(view.data()), view.shape(), &candle_core::Device::Cpu)?;
        tensors.push((name.to_owned(), tensor));
    }
    if &hash(json, &tensors)? != expected_hash {
        return Err(corrupt(
            "its contents do not have the hash that they were written with".to_owned(),
        ));
    }
    let record: Record = serde_json::from_str(json).map_err(|error| corrupt(error.to_string()))?;
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    let mismatch = |what: String, expected: String, found: String| {
        Err(NetError::Mismatch {
            path: path.to_owned(),
            what,
            expected,
            found,
        })
    };
    // The shapes first: they say what is the matter more plainly than the whole configuration.
    for (name, shape) in shapes {
        let found = tensors.get(&format!("best.{name}")).map(Tensor::dims);
        if found != Some(shape) {
            let found = found.map_or("missing".to_owned(), |found| format!("{found:?}"));
            return mismatch(format!("the shape of {name}"), format!("{shape:?}"), found);
        }
    }
    if &record.config != config {
        let [expected, found] = [config, &record.config].map(|config| format!("{config:?}"));
        return mismatch("the configuration".to_owned(), expected, found);
    }
    if record.data != data {
        return mismatch("the data's hash".to_owned(), data.to_owned(), record.data);
    }
    Ok(Some((record, tensors)))
}

/// SHA-256 over record and tensors: a file can keep its form and yet have other values.
fn hash(json: &str, tensors: &Tensors) -> Result<String, NetError> {
    let mut hash = Sha256::new();
    hash.update(json);
    let mut sorted: Vec<&(String, Tensor)> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, tensor) in sorted {
        hash.update(name);
        hash.update(bytes(tensor)?);
    }
    Ok(format!("{:x}", hash.finalize()))
}
