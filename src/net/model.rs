//! The four models: what they are made of, and their passes forward.

use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::conv_relu_pool;
use super::{NetError, check};

/// Classes that the models tell apart.
pub const CLASSES: usize = 10;
/// Pixels a side of an image.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// Which model, and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelConfig {
    /// Multinomial logistic regression: 784 → 10, softmax cross-entropy.
    Logistic,
    /// Linear support vector machine: 784 → 10, multi-class hinge loss.
    Svm,
    /// Feed-forward net (multi-layer perceptron).
    Mlp(MlpConfig),
    /// Convolutional net.
    Cnn(CnnConfig),
}

/// Sizes of the feed-forward net: 784 → hidden… → 10, a ReLU after each hidden layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Units of the hidden layers; the last one's activations are the features.
    pub hidden: Vec<usize>,
    /// Share of the activations of each hidden layer but the last that is dropped while training, 0 to below 1.
    pub dropout: f32,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 128],
            dropout: 0.2,
        }
    }
}

/// Sizes of the convolutional net: two blocks of convolution, ReLU and 2 × 2 max-pooling, then three linear layers.
///
/// 28 × 28 × 1 → 14 × 14 × `channels[0]` → 7 × 7 × `channels[1]` → `fc1` → `fc2` → 10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CnnConfig {
    /// Channels that come out of the two convolutions.
    pub channels: [usize; 2],
    /// Side of their kernels, odd.
    pub kernel: usize,
    /// Units of the first linear layer.
    pub fc1: usize,
    /// Units of the second, whose activations (after the ReLU) are the features.
    pub fc2: usize,
    /// Share of the first linear layer's activations that is dropped while training, 0 to below 1.
    pub dropout: f32,
}

impl Default for CnnConfig {
    fn default() -> Self {
        Self {
            channels: [32, 64],
            kernel: 3,
            fc1: 128,
            fc2: 128,
            dropout: 0.15,
        }
    }
}

impl ModelConfig {
    /// Short name, as in the results' `model` column: "logistic", "svm", "mlp", "cnn".
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logistic => "logistic",
            Self::Svm => "svm",
            Self::Mlp(_) => "mlp",
            Self::Cnn(_) => "cnn",
        }
    }

    /// Width of the features: the units of the penultimate layer (of a linear model, the pixels).
    #[must_use]
    pub fn feature_width(&self) -> usize {
        match self {
            Self::Logistic | Self::Svm => PIXELS,
            Self::Mlp(mlp) => mlp.hidden.last().copied().unwrap_or(PIXELS),
            Self::Cnn(cnn) => cnn.fc2,
        }
    }

    /// Layers from input to output: what the report tables, and what the parameters are made from.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        match self {
            Self::Logistic | Self::Svm => vec![Layer::linear("out", PIXELS, CLASSES)],
            Self::Mlp(mlp) => {
                let mut layers = Vec::new();
                let mut width = PIXELS;
                for (i, &hidden) in mlp.hidden.iter().enumerate() {
                    layers.push(Layer::linear(&format!("fc{}", i + 1), width, hidden));
                    width = hidden;
                }
                layers.push(Layer::linear("out", width, CLASSES));
                layers
            }
            Self::Cnn(cnn) => {
                let [first, second] = cnn.channels;
                let pooled = SIDE / 4;
                vec![
                    Layer::conv("conv1", SIDE, 1, first, cnn.kernel),
                    Layer::conv("conv2", SIDE / 2, first, second, cnn.kernel),
                    Layer::linear("fc1", pooled * pooled * second, cnn.fc1),
                    Layer::linear("fc2", cnn.fc1, cnn.fc2),
                    Layer::linear("out", cnn.fc2, CLASSES),
                ]
            }
        }
    }

    /// Learned parameters, all layers together.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers().iter().map(Layer::parameters).sum()
    }

    /// An error if a size cannot be.
    pub(super) fn validate(&self) -> Result<(), NetError> {
        let dropout = |dropout: f32| {
            check(
                "dropout",
                (0.0..1.0).contains(&dropout),
                "0 to below 1",
                dropout,
            )
        };
        let positive =
            |name, size: usize| check(name, (1..=1 << 16).contains(&size), "1 to 65,536", size);
        match self {
            Self::Logistic | Self::Svm => Ok(()),
            Self::Mlp(mlp) => {
                mlp.hidden
                    .iter()
                    .try_for_each(|&hidden| positive("hidden", hidden))?;
                dropout(mlp.dropout)
            }
            Self::Cnn(cnn) => {
                cnn.channels
                    .iter()
                    .try_for_each(|&channels| positive("channels", channels))?;
                positive("fc1", cnn.fc1)?;
                positive("fc2", cnn.fc2)?;
                check(
                    "kernel",
                    cnn.kernel % 2 == 1 && cnn.kernel < SIDE,
                    "an odd number below 28",
                    cnn.kernel,
                )?;
                dropout(cnn.dropout)
            }
        }
    }
}

/// One layer with parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// "conv1", "fc2", "out"…
    pub name: String,
    /// Shape of what comes in, for one image.
    pub input: Vec<usize>,
    /// Shape of what goes out, for one image, after ReLU and pooling where there are any.
    pub output: Vec<usize>,
    /// Shape of the weights: in × out of a linear layer, out × kernel × kernel × in of a convolution.
    pub weight: Vec<usize>,
}

impl Layer {
    fn linear(name: &str, input: usize, output: usize) -> Self {
        Self {
            name: name.to_owned(),
            input: vec![input],
            output: vec![output],
            weight: vec![input, output],
        }
    }

    fn conv(name: &str, side: usize, c_in: usize, c_out: usize, kernel: usize) -> Self {
        Self {
            name: name.to_owned(),
            input: vec![side, side, c_in],
            output: vec![side / 2, side / 2, c_out],
            weight: vec![c_out, kernel, kernel, c_in],
        }
    }

    /// Weights and biases.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.weight.iter().product::<usize>() + self.biases()
    }

    fn biases(&self) -> usize {
        *self.output.last().expect("a layer has an output")
    }

    /// Inputs to one output.
    fn fan_in(&self) -> usize {
        self.parameters() / self.biases() - 1
    }
}

/// What a pass forward gives.
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
    /// Mean of the training pixels, as shares of 255.
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
    names: Vec<String>,
}

impl Model {
    /// A model with random weights: uniform with the variance of He et al. 2015 ("Delving deep into rectifiers") where a
    /// ReLU follows, of Glorot's kind for the output; biases zero.
    ///
    /// # Errors
    /// If a size in `config` cannot be.
    pub fn random(
        config: &ModelConfig,
        scaling: Scaling,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, NetError> {
        config.validate()?;
        let mut parameters = Vec::new();
        let mut names = Vec::new();
        for layer in config.layers() {
            let gain = if layer.name == "out" { 1.0 } else { 2.0 };
            let bound = (3.0 * gain / layer.fan_in() as f32).sqrt();
            let values: Vec<f32> = (0..layer.weight.iter().product())
                .map(|_| rng.random_range(-bound..bound))
                .collect();
            let weight = Var::from_vec(values, layer.weight.clone(), &Device::Cpu)?;
            let bias = Var::from_vec(vec![0.0f32; layer.biases()], layer.biases(), &Device::Cpu)?;
            parameters.push((weight, bias));
            names.push(layer.name);
        }
        Ok(Self {
            config: config.clone(),
            scaling,
            parameters,
            names,
        })
    }

    /// What the model is made of.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How pixels become its inputs.
    #[must_use]
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The parameters and their names: "conv1.weight", "conv1.bias", …, in order.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &Var)> {
        self.names
            .iter()
            .zip(&self.parameters)
            .flat_map(|(name, (weight, bias))| {
                [
                    (format!("{name}.weight"), weight),
                    (format!("{name}.bias"), bias),
                ]
            })
    }

    /// Scores and features of `inputs`, n × 784 scaled pixels. With an `rng` it is a training pass: activations are
    /// dropped, and gradients can be asked for.
    ///
    /// # Errors
    /// If `inputs` has another shape or type.
    pub fn forward(
        &self,
        inputs: &Tensor,
        mut rng: Option<&mut ChaCha8Rng>,
    ) -> Result<Output, NetError> {
        let count = inputs.dim(0)?;
        // Without a training pass nothing needs to be remembered for the way back.
        let parameters: Vec<(Tensor, Tensor)> = match rng {
            Some(_) => self
                .parameters
                .iter()
                .map(|(w, b)| (w.as_tensor().clone(), b.as_tensor().clone()))
                .collect(),
            None => self
                .parameters
                .iter()
                .map(|(w, b)| (w.as_detached_tensor(), b.as_detached_tensor()))
                .collect(),
        };
        let (output, hidden) = parameters
            .split_last()
            .expect("a model has an output layer");
        let linear =
            |x: &Tensor, (weight, bias): &(Tensor, Tensor)| x.matmul(weight)?.broadcast_add(bias);
        let mut dropped = |x: Tensor, share: f32| match &mut rng {
            Some(rng) if share > 0.0 => x.mul(&dropout_mask(x.dims(), share, rng)?),
            _ => Ok(x),
        };
        let features = match &self.config {
            ModelConfig::Logistic | ModelConfig::Svm => inputs.clone(),
            ModelConfig::Mlp(mlp) => {
                let mut x = inputs.clone();
                for (i, layer) in hidden.iter().enumerate() {
                    // Neither pixels nor features are dropped.
                    if i > 0 {
                        x = dropped(x, mlp.dropout)?;
                    }
                    x = linear(&x, layer)?.relu()?;
                }
                x
            }
            ModelConfig::Cnn(cnn) => {
                let x = inputs.reshape((count, SIDE, SIDE, 1))?;
                let x = conv_relu_pool(&x, &hidden[0].0, &hidden[0].1)?;
                let x = conv_relu_pool(&x, &hidden[1].0, &hidden[1].1)?;
                let x = linear(&x.flatten_from(1)?, &hidden[2])?.relu()?;
                linear(&dropped(x, cnn.dropout)?, &hidden[3])?.relu()?
            }
        };
        let scores = linear(&features, output)?;
        Ok(Output { features, scores })
    }

    /// Mean loss of `scores` (n × 10) against the classes `labels` (n): softmax cross-entropy; of an SVM the
    /// multi-class hinge loss of Crammer & Singer 2001, max(0, 1 + the best wrong score − the right score).
    ///
    /// # Errors
    /// If the shapes do not agree.
    pub fn loss(&self, scores: &Tensor, labels: &Tensor) -> Result<Tensor, NetError> {
        let right = labels.unsqueeze(1)?;
        Ok(match self.config {
            ModelConfig::Svm => {
                // The right class keeps its score, every other one is a margin better.
                let ones = Tensor::ones_like(scores)?.detach();
                let zero = Tensor::zeros((scores.dim(0)?, 1), scores.dtype(), scores.device())?;
                let margins = ones.scatter(&right, &zero, D::Minus1)?;
                let best = scores.add(&margins)?.max(D::Minus1)?;
                best.sub(&scores.gather(&right, D::Minus1)?.squeeze(1)?)?
                    .mean_all()?
            }
            _ => ops::log_softmax(scores, D::Minus1)?
                .gather(&right, D::Minus1)?
                .mean_all()?
                .neg()?,
        })
    }
}

/// Zeros with probability `share`, else 1 / (1 − share), so that sums keep their expectation (Srivastava et al. 2014).
fn dropout_mask(shape: &[usize], share: f32, rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let kept = 1.0 / (1.0 - share);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            if rng.random::<f32>() < share {
                0.0
            } else {
                kept
            }
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
