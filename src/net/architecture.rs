//! Which model, and how large: the four architectures and their layers.
//!
//! ```text
//! Logistic, Svm   784 pixels ----------------------------------------------------> 10 scores
//! Mlp             784 pixels -> 256 -> 128 --------------------------------------> 10 scores
//! Cnn             28x28x1 -> 14x14x32 -> 14x14x64 -> 7x7x64 -> 3x3x128 -> 128 -> 128 -> 10 scores
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

/// Sizes of the convolutional net: blocks of convolutions, then three linear layers.
///
/// After each convolution stand a ReLU and batch normalisation, after the last one of a block also
/// 2 × 2 max-pooling, which halves height and width (an odd last row or column is dropped).
///
/// 28 × 28 × 1 → blocks: 14 × 14, 7 × 7, 3 × 3 → `fc1` → `fc2` → 10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CnnConfig {
    /// The blocks, one to four: output channels of each of its convolutions.
    pub blocks: Vec<Vec<usize>>,
    /// Height and width of the convolution kernels, odd.
    pub kernel: usize,
    /// Units of the first linear layer.
    pub fc1: usize,
    /// Units of the second linear layer. Its activations, after the ReLU, are the features.
    pub fc2: usize,
    /// Share of the activations before and after the first linear layer that training drops, 0 to
    /// below 1.
    pub dropout: f32,
    /// Share of the target that is spread over all classes in training, 0 to below 1 (label
    /// smoothing: Szegedy et al. 2016).
    pub smoothing: f32,
    /// Whether the features of an image are the mean of its own and those of its mirror image.
    pub mirrored: bool,
}

impl Default for CnnConfig {
    fn default() -> Self {
        Self {
            blocks: vec![vec![32], vec![64, 64], vec![128]],
            kernel: 3,
            fc1: 128,
            fc2: 128,
            dropout: 0.05,
            smoothing: 0.1,
            mirrored: true,
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
            Self::Logistic | Self::Svm => vec![Layer::output(PIXELS)],
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
        layers.push(Layer::output(width));
        layers
    }

    fn validate(&self) -> Result<(), NetError> {
        for &width in &self.hidden {
            check_width("hidden", width)?;
        }
        check_share("dropout", self.dropout)
    }
}

impl CnnConfig {
    fn layers(&self) -> Vec<Layer> {
        let mut layers = Vec::new();
        // What a layer takes is what the one before it gives; the first takes one grey channel.
        let (mut side, mut channels) = (SIDE, 1);
        for block in &self.blocks {
            for (i, &c_out) in block.iter().enumerate() {
                let name = format!("conv{}", layers.len() + 1);
                let pool = i + 1 == block.len();
                let layer = Layer::conv(&name, side, channels, c_out, self.kernel, pool);
                (side, channels) = (layer.output[0], c_out);
                layers.push(layer);
            }
        }
        layers.extend([
            Layer::linear("fc1", side * side * channels, self.fc1),
            Layer::linear("fc2", self.fc1, self.fc2),
            Layer::output(self.fc2),
        ]);
        layers
    }

    fn validate(&self) -> Result<(), NetError> {
        // Each block halves the side: 28, 14, 7, 3, 1.
        let blocks = self.blocks.len();
        check(
            "number of blocks",
            (1..=4).contains(&blocks),
            "1 to 4",
            blocks,
        )?;
        for block in &self.blocks {
            let some = !block.is_empty();
            check("convolutions of a block", some, "at least one", block.len())?;
            for &channels in block {
                check_width("channels", channels)?;
            }
        }
        check_width("fc1", self.fc1)?;
        check_width("fc2", self.fc2)?;
        // Only an odd kernel has a middle, around which the zero padding keeps the size.
        let odd = self.kernel % 2 == 1 && self.kernel < SIDE;
        check("kernel", odd, "an odd number below 28", self.kernel)?;
        check_share("smoothing", self.smoothing)?;
        check_share("dropout", self.dropout)
    }
}

fn check_width(what: &'static str, width: usize) -> Result<(), NetError> {
    let fits = (1..=MAX_WIDTH).contains(&width);
    check(what, fits, "1 to 65,536", width)
}

fn check_share(what: &'static str, value: f32) -> Result<(), NetError> {
    let share = (0.0..1.0).contains(&value);
    check(what, share, "0 to below 1", value)
}

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Convolution, ReLU, 2 × 2 max-pooling if `pool`, batch normalisation.
    Convolution {
        /// Height and width of the kernel.
        kernel: usize,
        /// Whether it pools.
        pool: bool,
    },
    /// Linear, ReLU.
    Linear,
    /// Linear, to the scores of the classes.
    Output,
}

/// One layer with parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// "conv1", "fc2", "out"…
    pub name: String,
    /// What it computes.
    pub kind: LayerKind,
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
            kind: LayerKind::Linear,
            input: vec![input],
            output: vec![output],
            weight: vec![input, output],
        }
    }

    fn output(input: usize) -> Self {
        Self {
            kind: LayerKind::Output,
            ..Self::linear("out", input, CLASSES)
        }
    }

    fn conv(name: &str, side: usize, c_in: usize, c_out: usize, kernel: usize, pool: bool) -> Self {
        // The padding keeps the size, the pooling halves it.
        let after = if pool { side / 2 } else { side };
        Self {
            name: name.to_owned(),
            kind: LayerKind::Convolution { kernel, pool },
            input: vec![side, side, c_in],
            output: vec![after, after, c_out],
            weight: vec![c_out, kernel, kernel, c_in],
        }
    }

    /// Number of learned parameters: weights, biases, and scale and shift of the normalisation.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let normalisation = match self.kind {
            LayerKind::Convolution { .. } => 2 * self.biases(),
            LayerKind::Linear | LayerKind::Output => 0,
        };
        self.weight.iter().product::<usize>() + self.biases() + normalisation
    }

    /// Number of biases: one for each output unit or channel.
    pub(super) fn biases(&self) -> usize {
        // A linear layer's output is [units], a convolution's [rows, columns, channels].
        *self.output.last().expect("every constructor gives a shape")
    }

    /// Number of inputs that are summed into one output.
    pub(super) fn fan_in(&self) -> usize {
        // The weights are shared evenly by the outputs: in · out / out for a linear layer, and out
        // · k · k · in / out = k · k · in for a convolution.
        self.weight.iter().product::<usize>() / self.biases()
    }
}
