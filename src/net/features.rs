//! What a trained model says about images: their classes, and their features.
//!
//! The features are the activations of the penultimate layer. k-NN searches them as it does pixels:
//! in this space images of one class lie together, and it has 128 dimensions instead of 784.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::architecture::{CLASSES, PIXELS};
use super::data::pixels;
use super::little_endian::{bytes, floats};
use super::model::{Model, Output};
use super::{NetError, at};
use crate::fashion::Fashion;
use crate::files::write_atomically;
use crate::vectors::Vectors;

/// Images that go through a model at a time: enough for all threads, few enough that a layer's
/// activations stay in the cache.
const BATCH: usize = 256;

impl Model {
    /// Gives the output for each batch of `images` to `each`, in order.
    fn for_each_batch(
        &self,
        images: &[u8],
        mut each: impl FnMut(Output) -> Result<(), NetError>,
    ) -> Result<(), NetError> {
        // The images are whole (`pixels` has checked it), so every batch is a number of whole
        // images. The last one may be smaller.
        for batch in images.chunks(BATCH * PIXELS) {
            let inputs = self.scaling().inputs(batch)?;
            // Without a generator: no dropout, and no activations kept.
            each(self.forward(&inputs, None)?)?;
        }
        Ok(())
    }

    /// The class of each image (n × 784 bytes): the one with the highest score.
    ///
    /// # Errors
    /// If the images are not 784 bytes each.
    pub fn predict(&self, images: &Vectors) -> Result<Vec<u8>, NetError> {
        let mut classes = Vec::with_capacity(images.len());
        self.for_each_batch(pixels(images)?, |output| {
            // There are ten classes, so that the number of the best fits in a byte.
            let best = output.scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
            classes.extend(best.into_iter().map(|class| class as u8));
            Ok(())
        })?;
        Ok(classes)
    }

    /// How probable each image (n × 784 bytes) makes each class, by the model's own account: the
    /// softmax of the scores, ten values that add up to 1.
    ///
    /// The scores of an SVM are no logits, and its values here no probabilities.
    ///
    /// # Errors
    /// If the images are not 784 bytes each.
    pub fn probabilities(&self, images: &Vectors) -> Result<Vec<[f32; CLASSES]>, NetError> {
        let mut all = Vec::with_capacity(images.len());
        self.for_each_batch(pixels(images)?, |output| {
            let shares = softmax_last_dim(&output.scores)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            all.extend_from_slice(shares.as_chunks().0);
            Ok(())
        })?;
        Ok(all)
    }

    /// SHA-256 over the configuration and all parameters, in hexadecimal.
    ///
    /// # Errors
    /// If candle cannot read the parameters.
    pub fn fingerprint(&self) -> Result<String, NetError> {
        let mut hash = Sha256::new();
        // The configuration decides which operations the parameters go through, and the scaling
        // what the pixels become. A change of either changes the features.
        hash.update(format!("{:?} {:?}", self.config(), self.scaling()));
        for (name, var) in self.parameters() {
            hash.update(name);
            hash.update(bytes(var)?);
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}

/// The features of each image: n × [`feature_width`](super::ModelConfig::feature_width).
///
/// # Errors
/// If the images are not 784 bytes each.
pub fn features(model: &Model, images: &Vectors) -> Result<Vectors, NetError> {
    let width = model.config().feature_width();
    let mut values = Vec::with_capacity(images.len() * width);
    model.for_each_batch(pixels(images)?, |output| {
        values.extend(output.features.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    })?;
    Ok(Vectors::from_floats(width, values)?)
}

/// [`features`], kept in `folder`: computed once for a model's parameters and a set of images, then
/// read.
///
/// The file's name is a hash of both, and the file holds a hash of its values: a file that is not,
/// byte for byte, what is written for its values is damaged, and is replaced.
///
/// # Errors
/// As [`features`], and if the file cannot be written.
pub fn cached_features(
    model: &Model,
    images: &Vectors,
    folder: &Path,
) -> Result<Vectors, NetError> {
    let path = cache_file(model, images, folder)?;
    let width = model.config().feature_width();
    // A file that is missing, unreadable or damaged is all one: the features can be computed again,
    // and the file is replaced.
    if let Ok(file) = fs::read(&path)
        && let Some(features) = read(&file, images.len(), width)
        && written(&features)? == file
    {
        return Ok(features);
    }
    let features = features(model, images)?;
    write_atomically(&path, &written(&features)?).map_err(at(&path))?;
    Ok(features)
}

/// The data set with [`cached_features`] in the place of pixels, for training and test images.
///
/// # Errors
/// As [`cached_features`].
pub fn encoded(model: &Model, data: &Fashion, folder: &Path) -> Result<Fashion, NetError> {
    let encode = |images: &Vectors| cached_features(model, images, folder).map(Arc::new);
    Ok(Fashion {
        train: encode(&data.train)?,
        test: encode(&data.test)?,
        ..data.clone()
    })
}

/// The key of the hash over the values, in the metadata of a file of features.
const HASH: &str = "sha256";

/// The file in `folder` for the features of these images by this model.
fn cache_file(model: &Model, images: &Vectors, folder: &Path) -> Result<PathBuf, NetError> {
    let hash = Sha256::new()
        .chain_update(model.fingerprint()?)
        .chain_update(pixels(images)?)
        .finalize();
    // 16 digits are 64 bits: two models and sets of images that meet in one name are not to be
    // expected. A model that was trained again has other parameters, and so another file.
    let name = format!("{hash:x}");
    Ok(folder.join(format!("features-{name:.16}.safetensors")))
}

/// The contents of a file of features.
fn written(features: &Vectors) -> Result<Vec<u8>, NetError> {
    let shape = (features.len(), features.dim());
    let tensor = Tensor::from_vec(features.to_floats(), shape, &Device::Cpu)?;
    // Over the values only: the shape is compared when the file is read.
    let hash = format!("{:x}", Sha256::digest(bytes(&tensor)?));
    let metadata = Some([(HASH.to_owned(), hash)].into());
    let file = safetensors::serialize([("features", &tensor)], metadata);
    Ok(file.map_err(candle_core::Error::from)?)
}

/// The values in a file of features, if they have this shape and are finite.
fn read(file: &[u8], rows: usize, width: usize) -> Option<Vectors> {
    // Every `?` here means "not a file of these features", whatever the reason.
    let tensors = SafeTensors::deserialize(file).ok()?;
    let tensor = tensors.tensor("features").ok()?;
    if tensor.shape() != [rows, width] || tensor.dtype() != Dtype::F32 {
        return None;
    }
    Vectors::from_floats(width, floats(tensor.data())).ok()
}
