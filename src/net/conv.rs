//! [`conv_relu_pool`]: convolution, ReLU and max-pooling as one candle operation, with its own backward pass.
//!
//! candle's own convolution spends most of a training step in its backward pass, a transposed convolution written as
//! plain loops. Here both passes work at the speed of a matrix product, image by image in parallel; see `simd::convolution`.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::simd::convolution::{self, Backward, Forward, Geometry, Sums};

/// Images whose gradients are summed one after the other. The sums of the chunks are then added in order, so that the
/// result does not depend on the number of threads.
const CHUNK: usize = 8;

/// max-pool(ReLU(conv(images) + bias)): stride 1, zero padding that keeps height and width, pooling over 2 × 2 windows
/// (an odd last row or column is dropped). Differentiable in all three.
///
/// Shapes: `images` n × h × w × c_in (channels last), `weight` c_out × k × k × c_in with k odd, `bias` c_out; the
/// result is n × ⌊h/2⌋ × ⌊w/2⌋ × c_out. All contiguous f32 on the CPU.
///
/// # Errors
/// If shapes, types or layouts are others.
pub fn conv_relu_pool(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    // Which pixel each window took is only worth writing down if a gradient may be asked for.
    let record = images.track_op() || weight.track_op() || bias.track_op();
    images.apply_op3(
        weight,
        bias,
        ConvReluPool {
            record,
            winners: OnceLock::new(),
        },
    )
}

#[derive(Debug)]
struct ConvReluPool {
    record: bool,
    winners: OnceLock<Vec<u8>>,
}

/// The values of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("conv_relu_pool: expected a contiguous tensor, received {layout:?}"),
    }
}

/// The values of a contiguous f32 tensor, given to `f`.
fn with_values<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("conv_relu_pool: expected a tensor on the CPU"),
    }
}

/// The number of images and the geometry, if the shapes are what they should be.
fn geometry(images: &Shape, weight: &Shape, bias: &Shape) -> Result<(usize, Geometry)> {
    let ((count, height, width, c_in), (c_out, rows, kernel, weight_c_in)) =
        (images.dims4()?, weight.dims4()?);
    if c_in != weight_c_in || rows != kernel || kernel.is_multiple_of(2) || bias.dims1()? != c_out {
        bail!(
            "conv_relu_pool: images {images:?}, weight {weight:?}, bias {bias:?}; expected n × h × w × c_in, c_out × k × k × c_in with k odd, c_out"
        );
    }
    if count == 0 || height < 2 || width < 2 || c_in == 0 || c_out == 0 {
        bail!(
            "conv_relu_pool: images {images:?}, weight {weight:?}; expected at least one image, 2 × 2 pixels and one channel"
        );
    }
    let geometry = Geometry {
        height,
        width,
        c_in,
        c_out,
        kernel,
    };
    // Places in an image and in the weights are kept in 32 bits.
    if u32::try_from(
        geometry
            .image_len()
            .max(geometry.weight_len())
            .saturating_mul(16),
    )
    .is_err()
    {
        bail!("conv_relu_pool: images {images:?}, weight {weight:?} are too large");
    }
    Ok((count, geometry))
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
        let (count, geometry) = geometry(
            images_layout.shape(),
            weight_layout.shape(),
            bias_layout.shape(),
        )?;
        let (images, weight, bias) = (
            values(images, images_layout)?,
            values(weight, weight_layout)?,
            values(bias, bias_layout)?,
        );
        let packed = geometry.pack(weight);
        let mut output = vec![0.0; count * geometry.output_len()];
        let images = images.par_chunks_exact(geometry.image_len());
        let outputs = output.par_chunks_exact_mut(geometry.output_len());
        if self.record {
            let mut winners = vec![0; count * geometry.output_len()];
            images
                .zip(outputs)
                .zip(winners.par_chunks_exact_mut(geometry.output_len()))
                .for_each_init(
                    || Forward::new(&geometry),
                    |scratch, ((image, output), winners)| {
                        convolution::forward(
                            &geometry,
                            scratch,
                            &packed,
                            bias,
                            image,
                            output,
                            Some(winners),
                        );
                    },
                );
            self.winners
                .set(winners)
                .expect("an operation is applied once");
        } else {
            images.zip(outputs).for_each_init(
                || Forward::new(&geometry),
                |scratch, (image, output)| {
                    convolution::forward(&geometry, scratch, &packed, bias, image, output, None);
                },
            );
        }
        let (rows, columns) = geometry.pooled();
        Ok((
            CpuStorage::F32(output),
            (count, rows, columns, geometry.c_out).into(),
        ))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (count, geometry) = geometry(images.shape(), weight.shape(), bias.shape())?;
        let winners = self.winners.get().expect("the forward pass came first");
        let wide = with_values(weight, |weight| Ok(geometry.widen(weight)))?;
        let gradient = gradient.contiguous()?;
        // The images of a data set are no variable: their gradient, the dearest of the three, is not wanted.
        let wanted = images.track_op();
        let mut d_images = vec![
            0.0;
            if wanted {
                count * geometry.image_len()
            } else {
                0
            }
        ];
        let mut d_chunks: Vec<Option<&mut [f32]>> = match wanted {
            true => d_images
                .chunks_mut(CHUNK * geometry.image_len())
                .map(Some)
                .collect(),
            false => (0..count.div_ceil(CHUNK)).map(|_| None).collect(),
        };
        let sums: Vec<Sums> = with_values(images, |images| {
            with_values(&gradient, |gradient| {
                let chunks = images
                    .par_chunks(CHUNK * geometry.image_len())
                    .zip(winners.par_chunks(CHUNK * geometry.output_len()))
                    .zip(gradient.par_chunks(CHUNK * geometry.output_len()))
                    .zip(d_chunks.par_iter_mut());
                let sums = chunks.map(|(((images, winners), gradient), d_images)| {
                    let mut scratch = Backward::new(&geometry);
                    let images = images.chunks_exact(geometry.image_len());
                    let outputs = winners
                        .chunks_exact(geometry.output_len())
                        .zip(gradient.chunks_exact(geometry.output_len()));
                    for (i, (image, (winners, gradient))) in images.zip(outputs).enumerate() {
                        let d_image = d_images.as_deref_mut().map(|all| {
                            &mut all[i * geometry.image_len()..][..geometry.image_len()]
                        });
                        convolution::backward(
                            &geometry,
                            &mut scratch,
                            &wide,
                            image,
                            winners,
                            gradient,
                            d_image,
                        );
                    }
                    scratch.sums
                });
                Ok(sums.collect())
            })
        })?;
        let sum = |of: fn(&Sums) -> &[f32]| {
            let mut parts = sums.iter().map(of);
            let mut total = parts.next().unwrap_or_default().to_vec();
            for part in parts {
                total
                    .iter_mut()
                    .zip(part)
                    .for_each(|(total, value)| *total += value);
            }
            total
        };
        let device = images.device();
        let d_weight = Tensor::from_vec(
            geometry.narrow(&sum(|sums| &sums.d_weight)),
            weight.shape(),
            device,
        )?;
        let d_bias = Tensor::from_vec(sum(|sums| &sums.d_bias), bias.shape(), device)?;
        let d_images = match wanted {
            true => Some(Tensor::from_vec(d_images, images.shape(), device)?),
            false => None,
        };
        Ok((d_images, Some(d_weight), Some(d_bias)))
    }
}

#[cfg(test)]
mod tests;
