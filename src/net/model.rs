//! [`Model`]: the parameters of a net, its forward pass and its loss.
//!
//! Each layer is a product and a bias, `x · weight + bias`, and all but the last are followed by a
//! ReLU. The convolutional net's first layers are blocks: convolution, ReLU, perhaps pooling, and
//! batch normalisation ([`conv_norm`]). What comes out before the last layer are the features,
//! after it the scores of the ten classes.

use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::NetError;
use super::architecture::{CnnConfig, Layer, LayerKind, ModelConfig, SIDE};
use super::block::{Learned, conv_norm};
use super::conv::{conv_relu, conv_relu_pool};
use super::norm::{Statistics, affine};

/// The result of a forward pass over n images.
#[derive(Debug, Clone)]
pub struct Output {
    /// Activations of the penultimate layer, n × [`ModelConfig::feature_width`].
    pub features: Tensor,
    /// Scores of the classes, n × 10: logits, or an SVM's decision values.
    pub scores: Tensor,
}

/// How pixels become inputs: (pixel / 255 − mean) / deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean of the training pixels, as a share of 255.
    pub mean: f32,
    /// Their standard deviation, likewise.
    pub deviation: f32,
}

/// A model: its configuration and its parameters.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    scaling: Scaling,
    /// The layers, in order.
    layers: Vec<Parameters>,
}

/// The parameters of one layer.
#[derive(Debug, Clone)]
struct Parameters {
    layer: Layer,
    weight: Var,
    bias: Var,
    /// Those of the batch normalisation, where the layer has one.
    norm: Option<Norm>,
}

/// Batch normalisation of a layer's output.
#[derive(Debug, Clone)]
struct Norm {
    /// Learned.
    scale: Var,
    /// Learned.
    shift: Var,
    /// Running mean of the batches' means: not learned, and without a gradient.
    mean: Var,
    /// Running mean of the batches' variances, likewise.
    variance: Var,
}

/// Weight of a batch's statistics in the running means, as in PyTorch.
const MOMENTUM: f32 = 0.1;

impl Model {
    /// A model with random weights.
    ///
    /// Weights are uniform and biases zero. The variance of the weights is 2 / inputs where a ReLU
    /// follows (He et al. 2015, "Delving deep into rectifiers") and 1 / inputs for the output layer
    /// (LeCun et al. 1998, "Efficient backprop"): activations keep their size from layer to layer.
    ///
    /// # Errors
    /// If a size in `config` is out of range.
    pub fn random(
        config: &ModelConfig,
        scaling: Scaling,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, NetError> {
        config.validate()?;
        let layers = config.layers().into_iter();
        let layers = layers.map(|layer| Parameters::random(layer, rng));
        Ok(Self {
            config: config.clone(),
            scaling,
            layers: layers.collect::<Result<_, NetError>>()?,
        })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How pixels become the model's inputs.
    #[must_use]
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The parameters and their names, in order: "conv1.weight", "conv1.bias", "conv1.scale", …
    ///
    /// Among them are the running mean and variance of the batch normalisation, which are not
    /// learned, but kept with the others.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &Var)> {
        self.layers.iter().flat_map(|layer| {
            let vars = layer.vars().into_iter();
            vars.map(|(part, var)| (format!("{}.{part}", layer.layer.name), var))
        })
    }

    /// Scores and features of `inputs`, n × 784 scaled pixels.
    ///
    /// With an `rng` it is a training pass: some activations are dropped, and gradients can be
    /// asked for. Without, the result is that of the finished model, and nothing is remembered.
    ///
    /// # Errors
    /// If `inputs` has another shape or type.
    pub fn forward(
        &self,
        inputs: &Tensor,
        mut rng: Option<&mut ChaCha8Rng>,
    ) -> Result<Output, NetError> {
        // The scores come from the last layer alone, so `features` is whatever reaches it. Each
        // architecture says only how the hidden layers get there.
        let training = rng.is_some();
        let (output, hidden) = self
            .layers
            .split_last()
            .expect("every architecture has an output layer");
        let features = match &self.config {
            // A linear model has no hidden layer: its features are the scaled pixels.
            ModelConfig::Logistic | ModelConfig::Svm => inputs.clone(),
            ModelConfig::Mlp(mlp) => {
                let mut x = inputs.clone();
                for (i, layer) in hidden.iter().enumerate() {
                    // Dropout stands between hidden layers: not on the pixels, not on the features.
                    if i > 0 {
                        x = dropout(x, mlp.dropout, &mut rng)?;
                    }
                    x = layer.linear(&x, training)?.relu()?;
                }
                x
            }
            ModelConfig::Cnn(cnn) => {
                let features = convolutional(hidden, cnn, inputs, &mut rng)?;
                if cnn.mirrored && !training {
                    // The output layer is linear: the scores of the mean features are the mean of
                    // the scores of the two images.
                    let mirror = convolutional(hidden, cnn, &mirrored(inputs)?, &mut rng)?;
                    ((features + mirror)? * 0.5)?
                } else {
                    features
                }
            }
        };
        let scores = output.linear(&features, training)?;
        Ok(Output { features, scores })
    }

    /// Mean loss of `scores` (n × 10) against the classes `labels` (n values of u32).
    ///
    /// For the SVM it is the multi-class hinge loss of Crammer & Singer 2001,
    /// max(0, 1 + best wrong score − right score); for all others softmax cross-entropy.
    ///
    /// # Errors
    /// If the shapes do not agree.
    pub fn loss(&self, scores: &Tensor, labels: &Tensor) -> Result<Tensor, NetError> {
        Ok(match self.config {
            ModelConfig::Svm => hinge_loss(scores, labels)?,
            ModelConfig::Cnn(ref cnn) => cross_entropy(scores, labels, cnn.smoothing)?,
            _ => cross_entropy(scores, labels, 0.0)?,
        })
    }
}

/// The hidden layers of the convolutional net: n × 784 → n × `fc2`.
fn convolutional(
    hidden: &[Parameters],
    cnn: &CnnConfig,
    inputs: &Tensor,
    rng: &mut Option<&mut ChaCha8Rng>,
) -> candle_core::Result<Tensor> {
    let training = rng.is_some();
    // Images are n × height × width × channels, with one grey channel.
    let mut x = inputs.reshape((inputs.dim(0)?, SIDE, SIDE, 1))?;
    for layer in hidden {
        x = match layer.layer.kind {
            LayerKind::Convolution { pool, .. } => layer.convolution(&x, pool, training)?,
            LayerKind::Linear | LayerKind::Output => {
                // The first linear layer gets n × 3 × 3 × c as n × 9 · c, channels last. Its
                // weights have rows in the same order. The features are never dropped.
                let x = dropout(x.flatten_from(1)?, cnn.dropout, rng)?;
                layer.linear(&x, training)?.relu()?
            }
        };
    }
    Ok(x)
}

/// The images of `inputs` (n × 784), mirrored left to right.
fn mirrored(inputs: &Tensor) -> candle_core::Result<Tensor> {
    let columns: Vec<u32> = (0..SIDE as u32).rev().collect();
    let columns = Tensor::from_vec(columns, SIDE, inputs.device())?;
    let rows = inputs.reshape((inputs.dim(0)?, SIDE, SIDE))?;
    rows.index_select(&columns, 2)?.flatten_from(1)
}

impl Parameters {
    /// Random weights, biases of zero, and a normalisation that changes nothing but mean and
    /// deviation.
    fn random(layer: Layer, rng: &mut ChaCha8Rng) -> Result<Self, NetError> {
        // A ReLU sets about half of its inputs to zero, which halves the mean square of what goes
        // on. The factor 2 makes up for it. No ReLU follows the output layer.
        let gain = match layer.kind {
            LayerKind::Output => 1.0,
            LayerKind::Convolution { .. } | LayerKind::Linear => 2.0,
        };
        // Uniform numbers in −bound..bound have the variance bound² / 3, here gain / inputs.
        let bound = (3.0 * gain / layer.fan_in() as f32).sqrt();
        let count: usize = layer.weight.iter().product();
        // One after the other on one thread: the weights depend on the seed alone.
        let values: Vec<f32> = (0..count)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        let weight = Var::from_vec(values, layer.weight.clone(), &Device::Cpu)?;
        let width = layer.biases();
        let all = |value: f32| Var::from_vec(vec![value; width], width, &Device::Cpu);
        let norm = match layer.kind {
            LayerKind::Convolution { .. } => Some(Norm {
                scale: all(1.0)?,
                shift: all(0.0)?,
                mean: all(0.0)?,
                variance: all(1.0)?,
            }),
            LayerKind::Linear | LayerKind::Output => None,
        };
        Ok(Self {
            weight,
            bias: all(0.0)?,
            norm,
            layer,
        })
    }

    /// All of them and what they are called.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        let mut vars = vec![("weight", &self.weight), ("bias", &self.bias)];
        if let Some(norm) = &self.norm {
            vars.extend([
                ("scale", &norm.scale),
                ("shift", &norm.shift),
                ("mean", &norm.mean),
                ("variance", &norm.variance),
            ]);
        }
        vars
    }

    /// x · weight + bias, for x of n × inputs.
    fn linear(&self, x: &Tensor, training: bool) -> candle_core::Result<Tensor> {
        let (weight, bias) = (tensor(&self.weight, training), tensor(&self.bias, training));
        x.matmul(&weight)?.broadcast_add(&bias)
    }

    /// Convolution, ReLU, perhaps pooling, normalisation, for x of n images, channels last.
    fn convolution(&self, x: &Tensor, pool: bool, training: bool) -> candle_core::Result<Tensor> {
        let norm = self.norm.as_ref();
        let norm = norm.expect("a convolution has a normalisation");
        if training {
            return self.training_block(x, pool, norm);
        }
        let (weight, bias) = (tensor(&self.weight, false), tensor(&self.bias, false));
        let x = if pool {
            conv_relu_pool(x, &weight, &bias)?
        } else {
            conv_relu(x, &weight, &bias)?
        };
        norm.apply(&x)
    }

    /// The same in a training pass: normalised by the batch's own statistics, which then go into
    /// the running means.
    fn training_block(&self, x: &Tensor, pool: bool, norm: &Norm) -> candle_core::Result<Tensor> {
        let learned = Learned {
            weight: &self.weight,
            bias: &self.bias,
            scale: &norm.scale,
            shift: &norm.shift,
        };
        let (y, batch) = conv_norm(if pool { 2 } else { 1 }, x, &learned)?;
        run(&norm.mean, &batch.mean)?;
        run(&norm.variance, &batch.variance)?;
        Ok(y)
    }
}

impl Norm {
    /// `x` normalised by the running means.
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let statistics = Statistics {
            mean: self.mean.to_vec1()?,
            variance: self.variance.to_vec1()?,
        };
        let (factor, offset) = statistics.fold(&self.scale.to_vec1()?, &self.shift.to_vec1()?);
        affine(x, factor, offset)
    }
}

/// Moves a running mean towards what a batch had.
fn run(running: &Var, batch: &[f32]) -> candle_core::Result<()> {
    let old: Vec<f32> = running.to_vec1()?;
    let new: Vec<f32> = old
        .iter()
        .zip(batch)
        .map(|(old, batch)| old + MOMENTUM * (batch - old))
        .collect();
    running.set(&Tensor::from_vec(new, batch.len(), &Device::Cpu)?)
}

/// A parameter in a forward pass.
fn tensor(var: &Var, training: bool) -> Tensor {
    // Both kinds share the variable's memory. What differs is whether candle knows it as a
    // variable. If so, it records each operation on it, and the activations stay in memory until
    // the backward pass.
    if training {
        var.as_tensor().clone()
    } else {
        var.as_detached_tensor()
    }
}

/// −log softmax(scores) at the right class, averaged; with `smoothing`, this share of it is the
/// mean over all classes instead.
fn cross_entropy(scores: &Tensor, labels: &Tensor, smoothing: f32) -> candle_core::Result<Tensor> {
    let right = labels.unsqueeze(1)?;
    // `gather` takes one value from each row, at the column that `right` (n × 1) names. The
    // logarithm of the softmax is computed as a whole, score − log Σ exp: a softmax that rounds
    // to zero would have the logarithm −∞.
    let log_shares = ops::log_softmax(scores, D::Minus1)?;
    let at_right = log_shares.gather(&right, D::Minus1)?.mean_all()?.neg()?;
    if smoothing == 0.0 {
        return Ok(at_right);
    }
    let at_all = log_shares.mean_all()?.neg()?;
    let smoothing = f64::from(smoothing);
    (at_right * (1.0 - smoothing))? + (at_all * smoothing)?
}

/// max(0, 1 + best wrong score − right score), averaged.
fn hinge_loss(scores: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let right = labels.unsqueeze(1)?;
    // Add 1 to every wrong score and 0 to the right one. The largest of these sums, less the right
    // score, is the loss: where the right class wins by more than 1, it is 0. The right score is
    // among the sums, so the loss is never negative: this is the max(0, …) of the formula.
    let ones = Tensor::ones_like(scores)?.detach();
    let zero = Tensor::zeros((scores.dim(0)?, 1), scores.dtype(), scores.device())?;
    let margins = ones.scatter(&right, &zero, D::Minus1)?;
    let best = scores.add(&margins)?.max(D::Minus1)?;
    let right_scores = scores.gather(&right, D::Minus1)?.squeeze(1)?;
    best.sub(&right_scores)?.mean_all()
}

/// In a training pass, `x` with a random `share` of its values dropped; else `x`.
fn dropout(
    x: Tensor,
    share: f32,
    rng: &mut Option<&mut ChaCha8Rng>,
) -> candle_core::Result<Tensor> {
    match rng {
        // Nothing is drawn for a share of zero, and nothing outside a training pass.
        Some(rng) if share > 0.0 => x.mul(&dropout_mask(x.dims(), share, rng)?),
        _ => Ok(x),
    }
}

/// 0 with probability `share`, else 1 / (1 − share): sums keep their expectation (Srivastava et
/// al. 2014, in the "inverted" form of PyTorch).
fn dropout_mask(shape: &[usize], share: f32, rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    // The values that stay are scaled up here, in training. So the finished model has nothing to
    // scale and no need to know the share. The configuration keeps the share below 1.
    let kept = 1.0 / (1.0 - share);
    let count: usize = shape.iter().product();
    let mut values = Vec::with_capacity(count);
    // The numbers are drawn in the order of the values, on one thread, so that a training can be
    // repeated.
    for _ in 0..count {
        let dropped = rng.random::<f32>() < share;
        values.push(if dropped { 0.0 } else { kept });
    }
    Tensor::from_vec(values, shape, &Device::Cpu)
}
