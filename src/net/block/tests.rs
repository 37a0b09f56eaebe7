use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::super::conv::{conv_relu, conv_relu_pool};
use super::super::norm::{ROWS, Statistics, affine};
use super::{Learned, conv_norm};

/// All that a block is computed from, and weights of its values in a sum that is differentiated.
struct Problem {
    pool: usize,
    images: Var,
    weight: Var,
    bias: Var,
    scale: Var,
    shift: Var,
    outer: Tensor,
}

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.random_range(-1.0..1.5))
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

impl Problem {
    /// Images, rows, columns, channels in, channels out, kernel.
    fn random(seed: u64, pool: usize, [n, h, w, c_in, c_out, k]: [usize; 6]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut var = |shape: &[usize]| Var::from_tensor(&random(&mut rng, shape)).unwrap();
        Self {
            pool,
            images: var(&[n, h, w, c_in]),
            weight: var(&[c_out, k, k, c_in]),
            bias: var(&[c_out]),
            scale: var(&[c_out]),
            shift: var(&[c_out]),
            outer: random(&mut rng, &[n, h / pool, w / pool, c_out]),
        }
    }

    /// A convolution that changes nothing, so that the normalisation is alone: its kernel is one
    /// pixel, and no value is near zero, where the ReLU has its corner.
    fn normalisation(seed: u64, [n, h, w, c]: [usize; 4]) -> Self {
        let mut problem = Self::random(seed, 1, [n, h, w, c, c, 1]);
        let var = |tensor: &Tensor| Var::from_tensor(tensor).unwrap();
        problem.images = var(&(problem.images.as_tensor() + 1.5).unwrap());
        let same = Tensor::eye(c, DType::F32, &Device::Cpu).unwrap();
        problem.weight = var(&same.reshape((c, 1, 1, c)).unwrap());
        problem.bias = var(&problem.bias.zeros_like().unwrap());
        problem
    }

    fn block(&self) -> (Tensor, Statistics) {
        let learned = Learned {
            weight: &self.weight,
            bias: &self.bias,
            scale: &self.scale,
            shift: &self.shift,
        };
        conv_norm(self.pool, &self.images, &learned).unwrap()
    }

    /// The same by the convolution alone, and the paper's formula in candle's own operations.
    fn by_definition(&self) -> Tensor {
        let conv = [conv_relu, conv_relu_pool][self.pool - 1];
        let values = conv(&self.images, &self.weight, &self.bias).unwrap();
        let x = values.reshape(((), self.scale.dim(0).unwrap())).unwrap();
        let centred = x.broadcast_sub(&x.mean_keepdim(0).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(0).unwrap();
        let deviation = (variance + 1e-5).unwrap().sqrt().unwrap();
        let standard = centred.broadcast_div(&deviation).unwrap();
        let scaled = standard.broadcast_mul(&self.scale).unwrap();
        let shifted = scaled.broadcast_add(&self.shift).unwrap();
        shifted.reshape(values.shape()).unwrap()
    }

    fn loss(&self, values: &Tensor) -> Tensor {
        (values * &self.outer).unwrap().sum_all().unwrap()
    }

    fn vars(&self) -> [(&'static str, &Var); 5] {
        [
            ("images", &self.images),
            ("weight", &self.weight),
            ("bias", &self.bias),
            ("scale", &self.scale),
            ("shift", &self.shift),
        ]
    }

    /// The gradients of all five, given the values.
    fn gradients(&self, values: &Tensor) -> [Vec<f32>; 5] {
        let gradients = self.loss(values).backward().unwrap();
        self.vars()
            .map(|(_, var)| numbers(gradients.get(var).unwrap()))
    }
}

/// Equal to within a share of the largest value expected.
fn assert_close(found: &[f32], expected: &[f32], within: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(1.0f32, |largest, value| largest.max(value.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference < within * largest,
            "{what}, {i}: {found}, expected {expected}"
        );
    }
}

/// The net's first blocks with few images; odd sides and channels; one channel; more rows than are
/// summed together, and a last piece that is not whole.
const SHAPES: [[usize; 6]; 4] = [
    [3, 28, 28, 1, 32, 3],
    [9, 7, 5, 3, 17, 5],
    [7, 2, 2, 1, 1, 1],
    [2, 34, 38, 4, 3, 3],
];

#[test]
fn values_and_gradients_are_those_of_the_definition() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        for pool in [1, 2] {
            let problem = Problem::random(seed as u64, pool, shape);
            let (ours, theirs) = (problem.block().0, problem.by_definition());
            assert_eq!(ours.dims(), theirs.dims());
            let what = format!("{shape:?}, pooled by {pool}");
            assert_close(&numbers(&ours), &numbers(&theirs), 1e-4, &what);
            let names = problem.vars().map(|(name, _)| format!("{what}, {name}"));
            let gradients = [ours, theirs].map(|values| problem.gradients(&values));
            for (place, name) in names.iter().enumerate() {
                assert_close(&gradients[0][place], &gradients[1][place], 2e-3, name);
            }
        }
    }
}

#[test]
fn gradients_are_what_finite_differences_say() {
    let problem = Problem::normalisation(5, [6, 1, 2, 3]);
    let gradients = problem.gradients(&problem.block().0);
    for (place, (name, var)) in problem.vars().into_iter().enumerate() {
        let values = numbers(var);
        for i in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                let values = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                var.set(&values).unwrap();
                let loss = problem.loss(&problem.block().0);
                loss.to_scalar::<f32>().unwrap()
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let difference = (slope - gradients[place][i]).abs();
            let unchanged = Tensor::from_vec(values.clone(), var.shape(), &Device::Cpu).unwrap();
            var.set(&unchanged).unwrap();
            assert!(difference < 0.02, "{name}, {i}: {slope}, {difference}");
        }
    }
}

#[test]
fn folded_into_a_factor_and_an_offset_it_is_the_same() {
    let problem = Problem::normalisation(6, [5, 2, 4, 3]);
    let (unfolded, statistics) = problem.block();
    let (factor, offset) = statistics.fold(&numbers(&problem.scale), &numbers(&problem.shift));
    let folded = affine(&problem.images, factor, offset).unwrap();
    assert_close(&numbers(&folded), &numbers(&unfolded), 1e-6, "folded");
}

#[test]
fn a_channel_that_never_changes_becomes_its_shift() {
    let mut problem = Problem::normalisation(7, [4, 1, 1, 1]);
    let constant = Tensor::full(3.0f32, (4, 1, 1, 1), &Device::Cpu).unwrap();
    problem.images = Var::from_tensor(&constant).unwrap();
    let (values, statistics) = problem.block();
    let shift = numbers(&problem.shift)[0];
    // Scaled by 1 / √ε the values are about a thousand, and rounded as such.
    assert_close(&numbers(&values), &[shift; 4], 2e-4, "constant");
    let expected = Statistics {
        mean: vec![3.0],
        variance: vec![0.0],
    };
    assert_eq!(statistics, expected);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let problem = Problem::random(8, 1, [5, 16, ROWS / 16 + 1, 2, 4, 3]);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let (values, _) = problem.block();
            (numbers(&values), problem.gradients(&values))
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn wrong_shapes_are_errors() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let run = |images: &[usize], weight: &[usize], widths: [usize; 3]| {
        let [bias, scale, shift] = widths.map(|width| zeros(&[width]));
        let learned = Learned {
            weight: &zeros(weight),
            bias: &bias,
            scale: &scale,
            shift: &shift,
        };
        conv_norm(1, &zeros(images), &learned).map(|(values, _)| values.dims().to_vec())
    };
    let (images, weight) = ([2, 4, 4, 1], [3, 3, 3, 1]);
    assert_eq!(run(&images, &weight, [3, 3, 3]).unwrap(), [2, 4, 4, 3]);
    for widths in [[2, 3, 3], [3, 2, 3], [3, 3, 1], [2, 2, 2]] {
        assert!(run(&images, &weight, widths).is_err(), "{widths:?}");
    }
    assert!(run(&[0, 4, 4, 1], &weight, [3, 3, 3]).is_err());
    assert!(run(&[2, 4, 4, 2], &weight, [3, 3, 3]).is_err());
}
