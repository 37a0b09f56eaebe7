//! [`conv_norm`]: a block of the convolutional net in a training pass, as one candle operation.
//!
//! A block is a convolution, ReLU, perhaps pooling, and batch normalisation. The parts are in
//! [`conv`](super::conv) and [`norm`](super::norm); this joins them. candle's backward pass adds
//! each gradient to a tensor of zeros, one thread alone: for the activations of 64 images a tenth
//! of a step. Two operations in one have one such sum less, and one tensor less in between.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::conv::ConvReluPool;
use super::norm::{Affine, Statistics};
use super::values::{values, with_values};

/// What the layer of a block has learned so far.
pub(super) struct Learned<'a> {
    /// Weights of the convolution, c_out × k × k × c_in.
    pub(super) weight: &'a Tensor,
    /// Its bias, c_out.
    pub(super) bias: &'a Tensor,
    /// Scale of the normalised values, c_out.
    pub(super) scale: &'a Tensor,
    /// Their shift, c_out.
    pub(super) shift: &'a Tensor,
}

/// max-pool(ReLU(conv(images) + bias)), normalised by its own statistics, differentiable in the
/// images and in all that is learned; and these statistics, for the running means.
///
/// `pool` is the side of the pooling windows: 2, or 1 for none. `images` are n × h × w × c_in,
/// and the result is n × ⌊h/pool⌋ × ⌊w/pool⌋ × c_out. All are contiguous f32.
pub(super) fn conv_norm(
    pool: usize,
    images: &Tensor,
    learned: &Learned<'_>,
) -> Result<(Tensor, Statistics)> {
    let Learned {
        weight,
        bias,
        scale,
        shift,
    } = *learned;
    // An operation of candle's has three arguments at most, and these three have one shape.
    let constants = Tensor::stack(&[bias, scale, shift], 0)?;
    let kept = Arc::new(OnceLock::new());
    let operation = ConvNorm {
        conv: ConvReluPool::new(pool, [images, weight, &constants]),
        kept: Arc::clone(&kept),
    };
    let normalised = images.apply_op3(weight, &constants, operation)?;
    let Some(Kept { statistics, .. }) = kept.get() else {
        bail!("conv_norm: a tensor that is not on the CPU");
    };
    Ok((normalised, statistics.clone()))
}

/// One application of the operation to images, weight, and bias, scale and shift (3 × c_out).
struct ConvNorm {
    conv: ConvReluPool,
    /// Set by the forward pass, once.
    kept: Arc<OnceLock<Kept>>,
}

/// What the backward pass needs of the forward pass.
struct Kept {
    /// The values that were normalised.
    activations: Vec<f32>,
    statistics: Statistics,
}

/// Bias, scale and shift.
fn parts(constants: &[f32]) -> [&[f32]; 3] {
    let (bias, others) = constants.split_at(constants.len() / 3);
    let (scale, shift) = others.split_at(bias.len());
    [bias, scale, shift]
}

impl CustomOp3 for ConvNorm {
    fn name(&self) -> &'static str {
        "conv_norm"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        constants: &CpuStorage,
        constants_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [bias, scale, shift] = parts(values(constants, constants_layout)?);
        let bias_shape = Shape::from(bias.len());
        let shapes = [images_layout.shape(), weight_layout.shape(), &bias_shape];
        let images = values(images, images_layout)?;
        let weight = values(weight, weight_layout)?;
        let (activations, shape) = self.conv.forward(shapes, images, weight, bias)?;
        let statistics = Statistics::of(&activations, bias.len());
        let (factor, offset) = statistics.fold(scale, shift);
        let normalised = Affine { factor, offset }.apply(&activations);
        let kept = Kept {
            activations,
            statistics,
        };
        if self.kept.set(kept).is_err() {
            bail!("conv_norm: one operation was applied twice");
        }
        Ok((CpuStorage::F32(normalised), shape))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        constants: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.get() else {
            bail!("conv_norm: a backward pass without its forward pass");
        };
        // candle does not promise the strides of a gradient. Where it is contiguous already this
        // copies nothing.
        let gradient = gradient.contiguous()?;
        let [d_activations, d_scale, d_shift] = with_values(constants, |constants| {
            let [_, scale, _] = parts(constants);
            with_values(&gradient, |gradient| {
                Ok(kept.statistics.backward(&kept.activations, scale, gradient))
            })
        })?;
        let bias_shape = Shape::from(constants.dim(1)?);
        let gradients = self
            .conv
            .backward(images, weight, &bias_shape, &d_activations)?;
        let device = images.device();
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), device);
        let d_images = gradients.images.map(|values| tensor(values, images));
        let d_constants = [gradients.bias, d_scale, d_shift].concat();
        Ok((
            d_images.transpose()?,
            Some(tensor(gradients.weight, weight)?),
            Some(tensor(d_constants, constants)?),
        ))
    }
}

#[cfg(test)]
mod tests;
