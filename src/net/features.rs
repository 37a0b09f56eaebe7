//! What a trained model says about images: classes, and the features of its penultimate layer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::data::pixels;
use super::model::{Model, Output, PIXELS};
use super::{NetError, at};
use crate::fashion::Fashion;
use crate::files::write_atomically;
use crate::vectors::Vectors;

/// Images that go through a model at a time: enough for all threads, few enough for the caches.
const BATCH: usize = 256;

impl Model {
    /// Gives the output for each batch of `images` to `each`, in order.
    pub(super) fn for_each_batch(
        &self,
        images: &[u8],
        mut each: impl FnMut(Output) -> Result<(), NetError>,
    ) -> Result<(), NetError> {
        for images in images.chunks(BATCH * PIXELS) {
            each(self.forward(&self.scaling().inputs(images)?, None)?)?;
        }
        Ok(())
    }

    /// The class of each image (n × 784 bytes).
    ///
    /// # Errors
    /// If the images are not 784 bytes each.
    pub fn predict(&self, images: &Vectors) -> Result<Vec<u8>, NetError> {
        let mut classes = Vec::with_capacity(images.len());
        self.for_each_batch(pixels(images)?, |output| {
            classes.extend(
                output
                    .scores
                    .argmax(D::Minus1)?
                    .to_vec1::<u32>()?
                    .into_iter()
                    .map(|class| class as u8),
            );
            Ok(())
        })?;
        Ok(classes)
    }

    /// SHA-256 over the configuration and all parameters, in hexadecimal.
    ///
    /// # Errors
    /// If candle cannot read the parameters.
    pub fn fingerprint(&self) -> Result<String, NetError> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?}", self.config(), self.scaling()));
        for (name, var) in self.parameters() {
            hash.update(name);
            hash.update(bytes(var)?);
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}

/// The values of a tensor as little-endian bytes.
pub(super) fn bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    Ok(tensor
        .flatten_all()?
        .to_vec1::<f32>()?
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect())
}

/// The reverse of [`bytes`].
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

/// The activations of the penultimate layer for each image: n × [`feature_width`](super::ModelConfig::feature_width).
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

/// [`features`], kept in `folder`: computed once for a model's parameters and a set of images, then read.
///
/// The file's name is a hash of both, and it holds a hash of its values: what is damaged is computed again.
///
/// # Errors
/// As [`features`], and if the file cannot be written.
pub fn cached_features(
    model: &Model,
    images: &Vectors,
    folder: &Path,
) -> Result<Vectors, NetError> {
    let data = pixels(images)?;
    let key = Sha256::new()
        .chain_update(model.fingerprint()?)
        .chain_update(data)
        .finalize();
    let path = folder.join(format!("features-{:.16}.safetensors", format!("{key:x}")));
    let width = model.config().feature_width();
    if let Some(values) = fs::read(&path)
        .ok()
        .and_then(|file| read(&file, &[images.len(), width]))
    {
        return Ok(Vectors::from_floats(width, values)?);
    }
    let features = features(model, images)?;
    let tensor = Tensor::from_vec(
        features.to_floats(),
        (features.len(), width),
        &candle_core::Device::Cpu,
    )?;
    let hash = format!("{:x}", Sha256::digest(bytes(&tensor)?));
    let file = safetensors::serialize(
        [("features", &tensor)],
        Some([("sha256".to_owned(), hash)].into()),
    )
    .map_err(candle_core::Error::from)?;
    write_atomically(&path, &file).map_err(at(&path))?;
    Ok(features)
}

/// The data set with [`cached_features`] in the place of pixels.
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

/// The values in a file of features, if it is whole.
fn read(file: &[u8], shape: &[usize]) -> Option<Vec<f32>> {
    let (_, metadata) = SafeTensors::read_metadata(file).ok()?;
    let tensors = SafeTensors::deserialize(file).ok()?;
    let tensor = tensors.tensor("features").ok()?;
    let hash = format!("{:x}", Sha256::digest(tensor.data()));
    let whole = metadata.metadata().as_ref()?.get("sha256")? == &hash
        && tensor.shape() == shape
        && tensor.dtype() == safetensors::Dtype::F32;
    whole.then(|| floats(tensor.data()))
}
