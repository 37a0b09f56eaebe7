//! [`Model`]: the parameters of a net, its forward pass and its loss.
//!
//! Each layer is a product and a bias, `x · weight + bias`, and all but the last are followed by a
//! ReLU. The convolutional net's first two layers are [`conv_relu_pool`]. What comes out before the
//! last layer are the features, after it the scores of the ten classes.

use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::NetError;
use super::architecture::{Layer, ModelConfig, SIDE};
use super::conv::conv_relu_pool;

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
    /// Weight and bias of each layer, in order.
    parameters: Vec<(Var, Var)>,
    /// Name of each layer, in order.
    names: Vec<String>,
}

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
        let mut parameters = Vec::new();
        let mut names = Vec::new();
        for layer in config.layers() {
            parameters.push(random_parameters(&layer, rng)?);
            names.push(layer.name);
        }
        Ok(Self {
            config: config.clone(),
            scaling,
            parameters,
            names,
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

    /// The parameters and their names, in order: "conv1.weight", "conv1.bias", …
    pub fn parameters(&self) -> impl Iterator<Item = (String, &Var)> {
        let layers = self.names.iter().zip(&self.parameters);
        layers.flat_map(|(name, (weight, bias))| {
            [
                (format!("{name}.weight"), weight),
                (format!("{name}.bias"), bias),
            ]
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
        // architecture below says only how the hidden layers get there.
        let layers = self.weights(rng.is_some());
        let (output, hidden) = layers
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
                    x = layer.linear(&x)?.relu()?;
                }
                x
            }
            ModelConfig::Cnn(cnn) => {
                // The four hidden layers, in the order of `CnnConfig::layers`: two convolutions,
                // two linear layers. Images are n × height × width × channels, with one grey
                // channel.
                let x = inputs.reshape((inputs.dim(0)?, SIDE, SIDE, 1))?;
                let x = conv_relu_pool(&x, &hidden[0].weight, &hidden[0].bias)?;
                let x = conv_relu_pool(&x, &hidden[1].weight, &hidden[1].bias)?;
                // n × 7 × 7 × c becomes n × 49 · c, channels last. The rows of the weights of
                // fc1 are in the same order.
                let x = hidden[2].linear(&x.flatten_from(1)?)?.relu()?;
                // Between the linear layers only: the features themselves are never dropped.
                let x = dropout(x, cnn.dropout, &mut rng)?;
                hidden[3].linear(&x)?.relu()?
            }
        };
        let scores = output.linear(&features)?;
        Ok(Output { features, scores })
    }

    /// The layers' parameters for one forward pass. Detached from the variables, candle records
    /// nothing for a backward pass.
    fn weights(&self, with_gradients: bool) -> Vec<Weights> {
        // Both kinds share the variable's memory. What differs is whether candle knows it as a
        // variable. If so, it records each operation on it, and the activations stay in memory
        // until the backward pass.
        let tensor = |var: &Var| {
            if with_gradients {
                var.as_tensor().clone()
            } else {
                var.as_detached_tensor()
            }
        };
        let layers = self.parameters.iter().map(|(weight, bias)| Weights {
            weight: tensor(weight),
            bias: tensor(bias),
        });
        layers.collect()
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
            _ => cross_entropy(scores, labels)?,
        })
    }
}

/// The parameters of one layer in a forward pass.
struct Weights {
    weight: Tensor,
    bias: Tensor,
}

impl Weights {
    /// x · weight + bias, for x of n × inputs.
    fn linear(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Random weights and zero biases for one layer.
fn random_parameters(layer: &Layer, rng: &mut ChaCha8Rng) -> Result<(Var, Var), NetError> {
    // A ReLU sets about half of its inputs to zero, which halves the mean square of what goes on.
    // The factor 2 makes up for it. No ReLU follows the output layer.
    let gain = if layer.name == "out" { 1.0 } else { 2.0 };
    // Uniform numbers in −bound..bound have the variance bound² / 3, here gain / inputs.
    let bound = (3.0 * gain / layer.fan_in() as f32).sqrt();
    let count: usize = layer.weight.iter().product();
    // One after the other on one thread: the weights depend on the seed alone.
    let values: Vec<f32> = (0..count)
        .map(|_| rng.random_range(-bound..bound))
        .collect();
    let weight = Var::from_vec(values, layer.weight.clone(), &Device::Cpu)?;
    let zeros = vec![0.0f32; layer.biases()];
    let bias = Var::from_vec(zeros, layer.biases(), &Device::Cpu)?;
    Ok((weight, bias))
}

/// −log softmax(scores) at the right class, averaged.
fn cross_entropy(scores: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let right = labels.unsqueeze(1)?;
    // `gather` takes one value from each row, at the column that `right` (n × 1) names. The
    // logarithm of the softmax is computed as a whole, score − log Σ exp: a softmax that rounds
    // to zero would have the logarithm −∞.
    let log_shares = ops::log_softmax(scores, D::Minus1)?;
    log_shares.gather(&right, D::Minus1)?.mean_all()?.neg()
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
