//! Which model, and how large: the four architectures and their layers.
//!
//! ```text
//! Logistic, Svm   784 pixels ------------------------------------------------> 10 scores
//! Mlp             784 pixels -> 256 -> 128 ----------------------------------> 10 scores
//! Cnn             28x28x1 -> conv1: 14x14x32 -> conv2: 7x7x64 -> 128 -> 128 -> 10 scores
//! ```
//!
//! The features that k-NN searches are the activations before the last arrow: 128 values (for a
//! linear model, the pixels).
//! Nothing here computes: [`Model`](super::Model) holds the parameters and the forward pass.

use serde::{Deserialize, Serialize};

use super::{NetError, check};

/// Classes that the models tell apart.
pub const CLASSES: usize = 10;
/// Height and width of an image, in pixels.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// The largest width of a layer: far above any useful one, and small enough that the number of
/// weights between two such layers fits in 64 bits.
const MAX_WIDTH: usize = 1 << 16;

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

/// Sizes of the feed-forward net: 784 → hidden… → 10, with a ReLU after each hidden layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Units of the hidden layers. The activations of the last one are the features.
    pub hidden: Vec<usize>,
    /// Share of activations that training drops, 0 to below 1, after each hidden layer but the
    /// last.
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

/// Sizes of the convolutional net: two blocks of convolution, ReLU and 2 × 2 max-pooling, then
/// three linear layers.
///
/// 28 × 28 × 1 → 14 × 14 × `channels[0]` → 7 × 7 × `channels[1]` → `fc1` → `fc2`
/// → 10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CnnConfig {
    /// Output channels of the two convolutions.
    pub channels: [usize; 2],
    /// Height and width of the convolution kernels, odd.
    pub kernel: usize,
    /// Units of the first linear layer.
    pub fc1: usize,
    /// Units of the second linear layer. Its activations, after the ReLU, are the features.
    pub fc2: usize,
    /// Share of the first linear layer's activations that training drops, 0 to below 1.
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

    /// Width of the features: the units of the penultimate layer (for a linear model, 784).
    #[must_use]
    pub fn feature_width(&self) -> usize {
        match self {
            Self::Logistic | Self::Svm => PIXELS,
            // Without a hidden layer it is a linear model, and the features are the pixels.
            Self::Mlp(mlp) => mlp.hidden.last().copied().unwrap_or(PIXELS),
            Self::Cnn(cnn) => cnn.fc2,
        }
    }

    /// Layers with parameters, from input to output.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        match self {
            Self::Logistic | Self::Svm => vec![Layer::linear("out", PIXELS, CLASSES)],
            Self::Mlp(mlp) => mlp.layers(),
            Self::Cnn(cnn) => cnn.layers(),
        }
    }

    /// Number of learned parameters, all layers together.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers().iter().map(Layer::parameters).sum()
    }

    /// Refuses sizes that no model can have.
    pub(super) fn validate(&self) -> Result<(), NetError> {
        match self {
            Self::Logistic | Self::Svm => Ok(()),
            Self::Mlp(mlp) => mlp.validate(),
            Self::Cnn(cnn) => cnn.validate(),
        }
    }
}

impl MlpConfig {
    fn layers(&self) -> Vec<Layer> {
        let mut layers = Vec::new();
        // Each layer's inputs are the outputs of the one before; the first one's are the pixels.
        let mut width = PIXELS;
        for (i, &hidden) in self.hidden.iter().enumerate() {
            layers.push(Layer::linear(&format!("fc{}", i + 1), width, hidden));
            width = hidden;
        }
        layers.push(Layer::linear("out", width, CLASSES));
        layers
    }

    fn validate(&self) -> Result<(), NetError> {
        for &width in &self.hidden {
            check_width("hidden", width)?;
        }
        check_dropout(self.dropout)
    }
}

impl CnnConfig {
    fn layers(&self) -> Vec<Layer> {
        let [first, second] = self.channels;
        // Each of the two blocks halves height and width: 28, 14, 7. The inputs of fc1 are all that
        // is left of an image, 7 · 7 values of each channel.
        let pooled = SIDE / 4;
        vec![
            Layer::conv("conv1", SIDE, 1, first, self.kernel),
            Layer::conv("conv2", SIDE / 2, first, second, self.kernel),
            Layer::linear("fc1", pooled * pooled * second, self.fc1),
            Layer::linear("fc2", self.fc1, self.fc2),
            Layer::linear("out", self.fc2, CLASSES),
        ]
    }

    fn validate(&self) -> Result<(), NetError> {
        for channels in self.channels {
            check_width("channels", channels)?;
        }
        check_width("fc1", self.fc1)?;
        check_width("fc2", self.fc2)?;
        // Only an odd kernel has a middle, around which the zero padding keeps the size.
        let odd = self.kernel % 2 == 1 && self.kernel < SIDE;
        check("kernel", odd, "an odd number below 28", self.kernel)?;
        check_dropout(self.dropout)
    }
}

fn check_width(what: &'static str, width: usize) -> Result<(), NetError> {
    let fits = (1..=MAX_WIDTH).contains(&width);
    check(what, fits, "1 to 65,536", width)
}

fn check_dropout(dropout: f32) -> Result<(), NetError> {
    let share = (0.0..1.0).contains(&dropout);
    check("dropout", share, "0 to below 1", dropout)
}

/// One layer with parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// "conv1", "fc2", "out"…
    pub name: String,
    /// Shape of the input, for one image.
    pub input: Vec<usize>,
    /// Shape of the output, for one image, after ReLU and pooling where there are any.
    pub output: Vec<usize>,
    /// Shape of the weights: in × out for a linear layer, out × kernel × kernel × in for a
    /// convolution.
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
            // The padding keeps the size, the pooling halves it.
            output: vec![side / 2, side / 2, c_out],
            weight: vec![c_out, kernel, kernel, c_in],
        }
    }

    /// Number of weights and biases.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.weight.iter().product::<usize>() + self.biases()
    }

    /// Number of biases: one for each output unit or channel.
    pub(super) fn biases(&self) -> usize {
        // A linear layer's output is [units], a convolution's [rows, columns, channels].
        *self.output.last().expect("both constructors give a shape")
    }

    /// Number of inputs that are summed into one output.
    pub(super) fn fan_in(&self) -> usize {
        // The weights are shared evenly by the outputs: in · out / out for a linear layer, and out
        // · k · k · in / out = k · k · in for a convolution.
        self.weight.iter().product::<usize>() / self.biases()
    }
}
