//! Batch normalisation over the channels of a tensor: values, and gradients.
//!
//! Each channel is brought to mean 0 and deviation 1 over the batch, then given a scale and a shift
//! that are learned (Ioffe & Szegedy 2015):
//!
//! ```text
//! standard = (x − mean) / √(variance + ε)
//! y = scale · standard + shift
//! ```
//!
//! In training mean and variance are those of the batch, so they depend on x too, and the gradient
//! has a part that goes through them:
//!
//! ```text
//! d_scale = Σ g · standard        d_shift = Σ g          (g: gradient of y; n values a channel)
//! d_x = scale / √(variance + ε) · (g − d_shift / n − standard · d_scale / n)
//! ```
//!
//! Out of candle's operations this is some thirty passes over memory and as many new tensors. Here
//! it is two passes forward and two backward, several threads at once. Sums are taken over rows in
//! pieces of a fixed size and added in their order, so that they do not depend on the number of
//! threads.
//!
//! A finished model takes running means of training's statistics for mean and variance. It then is
//! one multiplication and one addition a channel: [`Statistics::fold`] gives the two numbers.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::values::values;

/// Added to the variance, so that a channel that never changes is not divided by zero.
const EPSILON: f64 = 1e-5;

/// Rows (values of all channels at one place) whose sums are taken one after the other.
pub(super) const ROWS: usize = 512;

/// Mean and variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statistics {
    /// Mean over the rows.
    pub(super) mean: Vec<f32>,
    /// Mean square of the differences from it.
    pub(super) variance: Vec<f32>,
}

impl Statistics {
    /// Those of a tensor whose last dimension are the channels.
    pub(super) fn of(x: &[f32], channels: usize) -> Self {
        // Sums of 512 rows lose little in f32. What is added up of them is in f64, so that the mean
        // square less the square of the mean keeps its digits.
        let [sums, squares] = sums_over_rows(x.par_chunks(ROWS * channels), channels, |piece| {
            let mut sums = [vec![0.0f32; channels], vec![0.0f32; channels]];
            let [sum, squares] = &mut sums;
            for row in piece.chunks_exact(channels) {
                for ((sum, square), &x) in sum.iter_mut().zip(squares.iter_mut()).zip(row) {
                    *sum += x;
                    *square += x * x;
                }
            }
            sums
        });
        let rows = (x.len() / channels) as f64;
        let means = sums.iter().map(|sum| sum / rows);
        let pairs = means.clone().zip(&squares);
        Self {
            // The variance is not negative, but its rounded value can be.
            variance: pairs
                .map(|(mean, square)| (square / rows - mean * mean).max(0.0) as f32)
                .collect(),
            mean: means.map(|mean| mean as f32).collect(),
        }
    }

    /// 1 / √(variance + ε) of each channel.
    fn inverse_deviation(&self) -> Vec<f32> {
        let variances = self.variance.iter();
        variances
            .map(|&variance| (f64::from(variance) + EPSILON).sqrt().recip() as f32)
            .collect()
    }

    /// The normalisation as y = factor · x + offset: factor and offset of each channel.
    pub(super) fn fold(&self, scale: &[f32], shift: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let inverse = self.inverse_deviation();
        let factor: Vec<f32> = scale.iter().zip(inverse).map(|(s, i)| s * i).collect();
        let offset = shift.iter().zip(&self.mean).zip(&factor);
        let offset = offset.map(|((shift, mean), factor)| shift - mean * factor);
        (factor.clone(), offset.collect())
    }
}

/// factor · x + offset for each channel, the last dimension of `x`: what a finished model does.
pub(super) fn affine(x: &Tensor, factor: Vec<f32>, offset: Vec<f32>) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Affine { factor, offset })
}

pub(super) struct Affine {
    pub(super) factor: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

impl Affine {
    /// The values for all of `x`, in parallel.
    pub(super) fn apply(&self, x: &[f32]) -> Vec<f32> {
        let channels = self.factor.len();
        let mut y = vec![0.0; x.len()];
        let pieces = y.par_chunks_mut(ROWS * channels);
        pieces
            .zip(x.par_chunks(ROWS * channels))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    let constants = self.factor.iter().zip(&self.offset);
                    for ((y, &x), (factor, offset)) in y.iter_mut().zip(x).zip(constants) {
                        *y = factor * x + offset;
                    }
                }
            });
        y
    }
}

impl CustomOp1 for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.apply(values(x, layout)?);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

impl Statistics {
    /// The gradients of x, scale and shift, given that of the normalised values. `self` are the
    /// statistics of `x`.
    pub(super) fn backward(&self, x: &[f32], scale: &[f32], gradient: &[f32]) -> [Vec<f32>; 3] {
        let channels = scale.len();
        let inverse = self.inverse_deviation();
        let mean = &self.mean;
        let pieces = x
            .par_chunks(ROWS * channels)
            .zip(gradient.par_chunks(ROWS * channels));
        // Σ g and Σ g · (x − mean): the deviation is the same for all rows, and follows.
        let [d_shift, products] = sums_over_rows(pieces, channels, |(x, gradient)| {
            let mut sums = [vec![0.0f32; channels], vec![0.0f32; channels]];
            let [sum, product] = &mut sums;
            let rows = x
                .chunks_exact(channels)
                .zip(gradient.chunks_exact(channels));
            for (x, gradient) in rows {
                let sums = sum.iter_mut().zip(product.iter_mut()).zip(mean);
                for (((sum, product), mean), (x, g)) in sums.zip(x.iter().zip(gradient)) {
                    *sum += g;
                    *product += g * (x - mean);
                }
            }
            sums
        });
        let inverses = inverse.iter().map(|&inverse| f64::from(inverse));
        let d_scale: Vec<f64> = products.iter().zip(inverses).map(|(p, i)| p * i).collect();

        let d_x = self.backward_to_x(x, scale, gradient, &d_scale, &d_shift);
        let narrow = |sums: Vec<f64>| sums.into_iter().map(|sum| sum as f32).collect();
        [d_x, narrow(d_scale), narrow(d_shift)]
    }

    /// The gradient of x, given those of scale and shift.
    fn backward_to_x(
        &self,
        x: &[f32],
        scale: &[f32],
        gradient: &[f32],
        d_scale: &[f64],
        d_shift: &[f64],
    ) -> Vec<f32> {
        let channels = scale.len();
        let inverse = self.inverse_deviation();
        let mean = &self.mean;
        // d_x = a · g + b · x + c, three numbers a channel.
        let rows = (x.len() / channels) as f64;
        let numbers: Vec<[f32; 3]> = (0..channels)
            .map(|channel| {
                let inverse = f64::from(inverse[channel]);
                let a = f64::from(scale[channel]) * inverse;
                let b = -a * inverse * d_scale[channel] / rows;
                let c = -a * d_shift[channel] / rows - b * f64::from(mean[channel]);
                [a, b, c].map(|number| number as f32)
            })
            .collect();
        let [a, b, c]: [Vec<f32>; 3] =
            std::array::from_fn(|i| numbers.iter().map(|numbers| numbers[i]).collect());
        let mut d_x = vec![0.0; x.len()];
        let to = d_x.par_chunks_mut(ROWS * channels);
        let pieces = x
            .par_chunks(ROWS * channels)
            .zip(gradient.par_chunks(ROWS * channels));
        to.zip(pieces).for_each(|(d_x, (x, gradient))| {
            let rows = x
                .chunks_exact(channels)
                .zip(gradient.chunks_exact(channels));
            for (d_x, (x, gradient)) in d_x.chunks_exact_mut(channels).zip(rows) {
                let numbers = a.iter().zip(&b).zip(&c);
                let values = d_x.iter_mut().zip(x.iter().zip(gradient));
                for ((d_x, (x, g)), ((a, b), c)) in values.zip(numbers) {
                    *d_x = a * g + b * x + c;
                }
            }
        });
        d_x
    }
}

/// Two sums for each channel over all pieces: taken for each in parallel, then added in order.
fn sums_over_rows<T: Send>(
    pieces: impl IndexedParallelIterator<Item = T>,
    channels: usize,
    of_piece: impl Fn(T) -> [Vec<f32>; 2] + Sync + Send,
) -> [Vec<f64>; 2] {
    let sums: Vec<[Vec<f32>; 2]> = pieces.map(of_piece).collect();
    let mut totals = [vec![0.0; channels], vec![0.0; channels]];
    for sums in sums {
        for (total, sum) in totals.iter_mut().zip(sums) {
            for (total, sum) in total.iter_mut().zip(sum) {
                *total += f64::from(sum);
            }
        }
    }
    totals
}
