//! [`conv_relu_pool`] and [`conv_relu`]: convolution, ReLU and max-pooling as one candle operation.
//!
//! The naive form is three operations of candle's, one after the other. Most of a training step is
//! then spent in the backward pass of its convolution, a transposed convolution in plain loops:
//! such a net learned 280 images a second, and the forward pass was 60 to 80 ms of a step of 450 ms
//! (docs/measurements.md, "Nets").
//!
//! One operation for all three can use what the pooling knows. Of the four pixels under a pooling
//! window only the largest has a gradient, and none has if the ReLU cut it off:
//!
//! ```text
//!   sums of a window   ReLU, pooled   gradient of the window   goes back to
//!      -1  2                                                       0  0
//!       5  3         ─▶     5                0.7          ─▶     0.7  0
//! ```
//!
//! The forward pass writes down the place of each window's winner, one byte each, and the backward
//! pass visits winners only. Both passes take the images in parallel. The loops over one image are
//! in `simd::convolution`.
//!
//! Without pooling each pixel is a window of its own, and the backward pass visits the pixels that
//! the ReLU let pass.
//!
//! What can go wrong is that a sum depends on which thread comes first: addition of floats is not
//! associative. So the images are cut into chunks of eight, whatever the number of threads. Each
//! chunk sums the gradients of the parameters image after image, and the sums of the chunks are
//! added in the chunks' order. The bits are the same on any number of threads.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::values::{values, with_values};
use crate::simd::convolution::{self, Backward, Forward, Geometry, Sums};

/// Images whose gradients are summed one after the other. The sums of the chunks are then added in
/// order, so that the result does not depend on the number of threads. A batch of 128 images is 16
/// tasks. Smaller chunks would share the work more evenly, but each has sums as large as the
/// weights, to be zeroed, kept and added. Another size changes the last bits of what a CNN learns.
const CHUNK: usize = 8;

/// max-pool(ReLU(conv(images) + bias)), differentiable in all three arguments.
///
/// The convolution has stride 1 and a zero padding that keeps height and width. The pooling is over
/// 2 × 2 windows; an odd last row or column is dropped.
///
/// Shapes: `images` n × h × w × c_in (channels last), `weight` c_out × k × k × c_in with k
/// odd, `bias` c_out; the result is n × ⌊h/2⌋ × ⌊w/2⌋ × c_out. All are contiguous f32 on
/// the CPU.
///
/// # Errors
/// If shapes, types or layouts are others.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use fashion_knn::net::conv_relu_pool;
///
/// // One image of 2 × 2 pixels, and a kernel of one pixel that doubles.
/// let image = Tensor::from_slice(&[-1.0f32, 2.0, 5.0, 3.0], (1, 2, 2, 1), &Device::Cpu)?;
/// let weight = Tensor::from_slice(&[2.0f32], (1, 1, 1, 1), &Device::Cpu)?;
/// let bias = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
/// let pooled = conv_relu_pool(&image, &weight, &bias)?;
/// assert_eq!(pooled.flatten_all()?.to_vec1::<f32>()?, [10.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn conv_relu_pool(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply(2, images, weight, bias)
}

/// ReLU(conv(images) + bias), differentiable in all three arguments: [`conv_relu_pool`] without the
/// pooling.
///
/// Shapes: as there, but the result is n × h × w × c_out.
///
/// # Errors
/// If shapes, types or layouts are others.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use fashion_knn::net::conv_relu;
///
/// let image = Tensor::from_slice(&[-1.0f32, 2.0, 5.0, 3.0], (1, 2, 2, 1), &Device::Cpu)?;
/// let weight = Tensor::from_slice(&[2.0f32], (1, 1, 1, 1), &Device::Cpu)?;
/// let bias = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
/// let activations = conv_relu(&image, &weight, &bias)?;
/// assert_eq!(activations.flatten_all()?.to_vec1::<f32>()?, [0.0, 4.0, 10.0, 6.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn conv_relu(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply(1, images, weight, bias)
}

/// The operation with pooling windows of side `pool`.
fn apply(pool: usize, images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let operation = ConvReluPool::new(pool, [images, weight, bias]);
    images.apply_op3(weight, bias, operation)
}

/// One application of the operation.
#[derive(Debug)]
pub(super) struct ConvReluPool {
    /// Side of the pooling windows: 2, or 1 for none.
    pool: usize,
    /// Whether the forward pass writes the winners down.
    record: bool,
    /// Which pixel each window took: one byte for each value of the result. candle lends the
    /// operation as shared, so the forward pass sets it through a cell, once.
    winners: OnceLock<Vec<u8>>,
}

impl CustomOp3 for ConvReluPool {
    fn name(&self) -> &'static str {
        "conv_relu_pool"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shapes = [images_layout, weight_layout, bias_layout].map(Layout::shape);
        let images = values(images, images_layout)?;
        let weight = values(weight, weight_layout)?;
        let bias = values(bias, bias_layout)?;
        let (outputs, shape) = self.forward(shapes, images, weight, bias)?;
        Ok((CpuStorage::F32(outputs), shape))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // The loops read slices, and candle does not promise the strides of a gradient. Where it is
        // contiguous already this copies nothing.
        let gradient = gradient.contiguous()?;
        let gradients = with_values(&gradient, |gradient| {
            self.backward(images, weight, bias.shape(), gradient)
        })?;
        let device = images.device();
        let d_images = gradients.images;
        let d_images = d_images.map(|values| Tensor::from_vec(values, images.shape(), device));
        Ok((
            d_images.transpose()?,
            Some(Tensor::from_vec(gradients.weight, weight.shape(), device)?),
            Some(Tensor::from_vec(gradients.bias, bias.shape(), device)?),
        ))
    }
}

/// The gradients of the three arguments.
pub(super) struct Gradients {
    /// None if nobody can ask for it.
    pub(super) images: Option<Vec<f32>>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl ConvReluPool {
    /// The operation with pooling windows of side `pool`.
    ///
    /// The winners cost a byte for each value of the result. They are only needed if a gradient
    /// may be asked for: if one of the `arguments` is a variable or was computed from one.
    pub(super) fn new(pool: usize, arguments: [&Tensor; 3]) -> Self {
        Self {
            pool,
            record: arguments.iter().any(|argument| argument.track_op()),
            winners: OnceLock::new(),
        }
    }

    /// The result and its shape, given the shapes and values of images, weight and bias.
    pub(super) fn forward(
        &self,
        [images_shape, weight_shape, bias_shape]: [&Shape; 3],
        images: &[f32],
        weight: &[f32],
        bias: &[f32],
    ) -> Result<(Vec<f32>, Shape)> {
        let (count, geometry) = geometry(self.pool, images_shape, weight_shape, bias_shape)?;
        // Every value of `outputs` and of `winners` is written; the zeros are only a start.
        let mut outputs = vec![0.0; count * geometry.output_len()];
        if self.record {
            let mut winners = vec![0; outputs.len()];
            let record = Some(&mut winners[..]);
            forward_all(&geometry, weight, bias, images, &mut outputs, record);
            if self.winners.set(winners).is_err() {
                // A second application would leave winners that are not those of the first result.
                // There is an operation for each call, so this is a guard against a later mistake.
                bail!("conv_relu_pool: one operation was applied twice");
            }
        } else {
            forward_all(&geometry, weight, bias, images, &mut outputs, None);
        }
        // The shape has channels last, as the images have: the next layer takes it as it is.
        let (rows, columns) = geometry.pooled();
        Ok((outputs, (count, rows, columns, geometry.c_out).into()))
    }

    /// The gradients of the arguments, given that of the result.
    pub(super) fn backward(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias_shape: &Shape,
        gradient: &[f32],
    ) -> Result<Gradients> {
        let (count, geometry) = geometry(self.pool, images.shape(), weight.shape(), bias_shape)?;
        let Some(winners) = self.winners.get() else {
            bail!("conv_relu_pool: a backward pass without its forward pass");
        };
        // The weights in whole registers, so that the inner loops have no remainder. The layout is
        // made once, and all chunks share it.
        let wide = with_values(weight, |weight| Ok(geometry.widen(weight)))?;
        // The images of a data set are no variable. Their gradient, the dearest of the three, is
        // then not computed. The first layer saves it; the second needs it, to pass back to the
        // first.
        let mut d_images = images
            .track_op()
            .then(|| vec![0.0; count * geometry.image_len()]);
        let sums = with_values(images, |images| {
            let pass = BackwardPass {
                geometry: &geometry,
                weight: &wide,
                images,
                winners,
                gradient,
            };
            Ok(pass.run(d_images.as_deref_mut()))
        })?;
        Ok(Gradients {
            images: d_images,
            // The sums are in the layout of `widen`; `narrow` drops its padding.
            weight: geometry.narrow(&total(&sums, |sums| &sums.d_weight)),
            bias: total(&sums, |sums| &sums.d_bias),
        })
    }
}

/// The forward pass over all images, in parallel.
///
/// `outputs` and, where they are asked for, `winners` are n × pooled height × pooled width ×
/// c_out.
fn forward_all(
    geometry: &Geometry,
    weight: &[f32],
    bias: &[f32],
    images: &[f32],
    outputs: &mut [f32],
    winners: Option<&mut [u8]>,
) {
    // The weights in the order in which the register tiles read them: once for all images.
    let packed = geometry.pack(weight);
    let images = images.par_chunks_exact(geometry.image_len());
    let outputs = outputs.par_chunks_exact_mut(geometry.output_len());
    // Scratch memory is made for each piece of work that rayon hands to a thread, not for each
    // image. The two arms differ only in the third slice: with and without it the iterators have
    // other types.
    let scratch = || Forward::new(geometry);
    match winners {
        Some(winners) => images
            .zip(outputs)
            .zip(winners.par_chunks_exact_mut(geometry.output_len()))
            .for_each_init(scratch, |scratch, ((image, output), winners)| {
                let winners = Some(winners);
                convolution::forward(geometry, scratch, &packed, bias, image, output, winners);
            }),
        None => images
            .zip(outputs)
            .for_each_init(scratch, |scratch, (image, output)| {
                convolution::forward(geometry, scratch, &packed, bias, image, output, None);
            }),
    }
}

/// What the backward pass reads, for all images or for a chunk of them.
#[derive(Clone, Copy)]
struct BackwardPass<'a> {
    geometry: &'a Geometry,
    /// The weights, in the layout of [`Geometry::widen`].
    weight: &'a [f32],
    images: &'a [f32],
    winners: &'a [u8],
    /// Gradient of the result.
    gradient: &'a [f32],
}

impl BackwardPass<'_> {
    /// The gradients of weight and bias, one sum for each chunk of images. Those of the images are
    /// written into `d_images`, if it is given.
    fn run(self, d_images: Option<&mut [f32]>) -> Vec<Sums> {
        // The four slices are cut at the same images, so that piece i of each belongs to chunk i.
        // The last chunk may be smaller: `par_chunks`, not `par_chunks_exact`.
        let image_chunk = CHUNK * self.geometry.image_len();
        let output_chunk = CHUNK * self.geometry.output_len();
        let images = self.images.par_chunks(image_chunk);
        // A gradient for each chunk, or a `None` for each: so one loop serves both cases. The
        // pieces do not overlap, and each task writes to its own.
        let mut d_chunks: Vec<Option<&mut [f32]>> = match d_images {
            Some(d_images) => d_images.chunks_mut(image_chunk).map(Some).collect(),
            None => (0..images.len()).map(|_| None).collect(),
        };
        images
            .zip(self.winners.par_chunks(output_chunk))
            .zip(self.gradient.par_chunks(output_chunk))
            .zip(d_chunks.par_iter_mut())
            .map(|(((images, winners), gradient), d_images)| {
                let chunk = BackwardPass {
                    images,
                    winners,
                    gradient,
                    ..self
                };
                chunk.one_by_one(d_images.as_deref_mut())
            })
            // The iterator is indexed, so the sums are collected in the order of the chunks,
            // whichever ended first.
            .collect()
    }

    /// The same for one chunk, image after image.
    fn one_by_one(self, mut d_images: Option<&mut [f32]>) -> Sums {
        // The scratch memory holds the sums. It begins at zero for each chunk and gathers all its
        // images.
        let mut scratch = Backward::new(self.geometry);
        let image_len = self.geometry.image_len();
        let output_len = self.geometry.output_len();
        for (i, image) in self.images.chunks_exact(image_len).enumerate() {
            let d_image = d_images
                .as_deref_mut()
                .map(|all| &mut all[i * image_len..][..image_len]);
            convolution::backward(
                self.geometry,
                &mut scratch,
                self.weight,
                image,
                &self.winners[i * output_len..][..output_len],
                &self.gradient[i * output_len..][..output_len],
                d_image,
            );
        }
        scratch.sums
    }
}

/// One part of all sums, added in the order of the chunks.
fn total(sums: &[Sums], part: fn(&Sums) -> &[f32]) -> Vec<f32> {
    // There is at least one chunk, because `geometry` refuses zero images.
    let Some((first, others)) = sums.split_first() else {
        return Vec::new();
    };
    let mut total = part(first).to_vec();
    for sums in others {
        for (total, value) in total.iter_mut().zip(part(sums)) {
            *total += value;
        }
    }
    total
}

/// The number of images and the geometry, if the shapes agree.
fn geometry(
    pool: usize,
    images: &Shape,
    weight: &Shape,
    bias: &Shape,
) -> Result<(usize, Geometry)> {
    let (count, height, width, c_in) = images.dims4()?;
    let (c_out, rows, kernel, weight_c_in) = weight.dims4()?;
    let kernel_fits = rows == kernel && kernel % 2 == 1;
    if c_in != weight_c_in || !kernel_fits || bias.dims1()? != c_out {
        bail!(
            "conv_relu_pool: images {images:?}, weight {weight:?}, bias {bias:?}; expected \
             n × h × w × c_in, c_out × k × k × c_in with k odd, c_out"
        );
    }
    if count == 0 || height < pool || width < pool || c_in == 0 || c_out == 0 {
        bail!(
            "conv_relu_pool: images {images:?}, weight {weight:?}; expected at least one image, \
             {pool} × {pool} pixels and one channel"
        );
    }
    let geometry = Geometry {
        height,
        width,
        c_in,
        c_out,
        kernel,
        pool,
    };
    // The backward pass keeps places in an image and in the weights in 32 bits. They count values
    // of the padded image and of the wide weights, which are larger than those here. The factor 16
    // leaves room for padding and for rows in whole registers.
    let largest = geometry.image_len().max(geometry.weight_len());
    if u32::try_from(largest.saturating_mul(16)).is_err() {
        bail!("conv_relu_pool: images {images:?}, weight {weight:?} are too large");
    }
    Ok((count, geometry))
}

#[cfg(test)]
mod tests;
