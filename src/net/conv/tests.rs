use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{conv_relu, conv_relu_pool};

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Images, weight, bias, and weights of the outputs in a sum that is differentiated.
fn problem(seed: u64, [n, h, w, c_in, c_out, k]: [usize; 6]) -> (Var, Var, Var, Tensor) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut var = |shape: &[usize]| Var::from_tensor(&random(&mut rng, shape)).unwrap();
    let (images, weight, bias) = (
        var(&[n, h, w, c_in]),
        var(&[c_out, k, k, c_in]),
        var(&[c_out]),
    );
    let outer = random(&mut rng, &[n, h / 2, w / 2, c_out]);
    (images, weight, bias, outer)
}

/// ReLU(conv) out of candle's own operations, which have channels before rows.
fn candles_conv(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let to_nchw = |tensor: &Tensor| tensor.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let (weight, c_out) = (to_nchw(weight), weight.dim(0).unwrap());
    let sums = to_nchw(images)
        .conv2d(&weight, weight.dim(2).unwrap() / 2, 1, 1, 1)
        .unwrap();
    sums.broadcast_add(&bias.reshape((1, c_out, 1, 1)).unwrap())
        .unwrap()
        .relu()
        .unwrap()
}

fn to_nhwc(tensor: &Tensor) -> Tensor {
    tensor.permute((0, 2, 3, 1)).unwrap()
}

/// Max-pooling as maxima over axes. candle 0.11's `max_pool2d` has the right values but a quarter
/// of the gradient: its backward pass multiplies by the share of the window that is maximal (1/4
/// for one of four) where it would have to divide by the number.
fn pool_by_axes(tensor: &Tensor) -> Tensor {
    let (n, c, h, w) = tensor.dims4().unwrap();
    tensor
        .reshape((n, c, h / 2, 2, w / 2, 2))
        .unwrap()
        .max(5)
        .unwrap()
        .max(3)
        .unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b)
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap()
        .to_scalar()
        .unwrap()
}

/// Images, rows, columns, channels in, channels out, kernel. The first two are the net's own
/// layers. Among the others are odd sides, whose last row or column the pooling drops; 17 and 40
/// channels, which are no whole register tiles of 16; the smallest image and kernel; and 9 and 17
/// images, which are no whole chunks of eight.
const SHAPES: [[usize; 6]; 6] = [
    [3, 28, 28, 1, 32, 3],
    [9, 14, 14, 32, 64, 3],
    [2, 7, 5, 3, 17, 5],
    [17, 2, 2, 1, 1, 1],
    [1, 6, 26, 5, 40, 3],
    [2, 8, 9, 11, 3, 5],
];

#[test]
fn values_and_gradients_are_candles_own() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let (images, weight, bias, outer) = problem(seed as u64, shape);
        let ours = conv_relu_pool(&images, &weight, &bias).unwrap();
        let activations = candles_conv(&images, &weight, &bias);
        let theirs = to_nhwc(&activations.max_pool2d(2).unwrap());
        assert!(
            largest_difference(&ours, &theirs) < 1e-4,
            "{shape:?}: {}",
            largest_difference(&ours, &theirs)
        );
        // `pool_by_axes` splits rows and columns into pairs, so that an odd last one must go
        // before. Nothing flows back to it, in ours as in candle's.
        let even = |side: usize| side / 2 * 2;
        let cropped = activations
            .narrow(2, 0, even(shape[1]))
            .unwrap()
            .narrow(3, 0, even(shape[2]))
            .unwrap();
        let theirs = to_nhwc(&pool_by_axes(&cropped.contiguous().unwrap()));
        let gradients = |result: &Tensor| {
            (result * &outer)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap()
        };
        let (ours, theirs) = (gradients(&ours), gradients(&theirs));
        for (name, var) in [("images", &images), ("weight", &weight), ("bias", &bias)] {
            let difference = largest_difference(ours.get(var).unwrap(), theirs.get(var).unwrap());
            assert!(
                difference < 1e-3,
                "{shape:?}, gradient of {name}: {difference}"
            );
        }
    }
}

#[test]
fn without_pooling_values_and_gradients_are_candles_own() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let (images, weight, bias, _) = problem(seed as u64, shape);
        let [n, h, w, _, c_out, _] = shape;
        let outer = random(&mut ChaCha8Rng::seed_from_u64(1), &[n, h, w, c_out]);
        let ours = conv_relu(&images, &weight, &bias).unwrap();
        let theirs = to_nhwc(&candles_conv(&images, &weight, &bias));
        assert!(largest_difference(&ours, &theirs) < 1e-4, "{shape:?}");
        let gradients = |result: &Tensor| {
            let sum = (result * &outer).unwrap().sum_all().unwrap();
            sum.backward().unwrap()
        };
        let (ours, theirs) = (gradients(&ours), gradients(&theirs));
        for (name, var) in [("images", &images), ("weight", &weight), ("bias", &bias)] {
            let difference = largest_difference(ours.get(var).unwrap(), theirs.get(var).unwrap());
            assert!(
                difference < 2e-3,
                "{shape:?}, gradient of {name}: {difference}"
            );
        }
    }
}

#[test]
fn gradients_are_what_finite_differences_say() {
    for (seed, shape) in [[2, 7, 5, 3, 17, 5], [1, 4, 6, 2, 9, 3], [10, 5, 4, 1, 3, 3]]
        .into_iter()
        .enumerate()
    {
        let (images, weight, bias, outer) = problem(10 + seed as u64, shape);
        let loss = |images: &Tensor, weight: &Tensor, bias: &Tensor| {
            (conv_relu_pool(images, weight, bias).unwrap() * &outer)
                .unwrap()
                .sum_all()
                .unwrap()
        };
        let gradients = loss(&images, &weight, &bias).backward().unwrap();
        let vars = [&images, &weight, &bias];
        for (place, var) in vars.into_iter().enumerate() {
            let gradient: Vec<f32> = gradients
                .get(var)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap();
            let values: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
            let moved = |i: usize, by: f32| {
                let mut values = values.clone();
                values[i] += by;
                let moved = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                let mut args = vars.map(|var| var.as_tensor().clone());
                args[place] = moved;
                f64::from(
                    loss(&args[0], &args[1], &args[2])
                        .to_scalar::<f32>()
                        .unwrap(),
                )
            };
            // The function is piecewise linear in each value; ReLU and maximum give it kinks. Where
            // a kink lies within the step, the slopes to the left and to the right differ, and
            // neither need be the gradient. Such places are skipped; at least half must remain. At
            // most 60 places of each tensor are tried.
            let step = 1e-3;
            let mut smooth = 0;
            for i in (0..values.len()).step_by(values.len().div_ceil(60)) {
                let (down, here, up) = (moved(i, -step), moved(i, 0.0), moved(i, step));
                let (left, right) = (
                    (here - down) / f64::from(step),
                    (up - here) / f64::from(step),
                );
                if (left - right).abs() > 0.05 {
                    continue;
                }
                smooth += 1;
                let slope = (left + right) / 2.0;
                assert!(
                    (slope - f64::from(gradient[i])).abs() < 0.03,
                    "{shape:?}, {place}, {i}: {slope} {}",
                    gradient[i]
                );
            }
            assert!(
                smooth >= values.len().min(60) / 2,
                "{smooth} of {} places are smooth",
                values.len()
            );
        }
    }
}

#[test]
fn the_gradient_of_images_is_left_out_only_where_none_is_wanted() {
    let (images, weight, bias, outer) = problem(3, [4, 8, 8, 2, 5, 3]);
    let of = |images: &Tensor| {
        let result = (conv_relu_pool(images, &weight, &bias).unwrap() * &outer).unwrap();
        result.sum_all().unwrap().backward().unwrap()
    };
    let (all, data) = (of(&images), of(&images.as_detached_tensor()));
    assert!(all.get(&images).is_some() && data.get(&images).is_none());
    assert_eq!(
        largest_difference(all.get(&weight).unwrap(), data.get(&weight).unwrap()),
        0.0
    );
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    // 37 images are four chunks of eight and one of five.
    let (images, weight, bias, outer) = problem(4, [37, 14, 14, 8, 20, 3]);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let result = conv_relu_pool(&images, &weight, &bias).unwrap();
            let gradients = (&result * &outer)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            [&images, &weight, &bias]
                .map(|var| gradients.get(var).unwrap().clone())
                .into_iter()
                .chain([result])
                .collect::<Vec<_>>()
        })
    };
    for (one, three) in run(1).iter().zip(&run(3)) {
        assert_eq!(largest_difference(one, three), 0.0);
    }
}

#[test]
fn a_value_that_is_not_a_number_comes_out_again() {
    for place in 0..4 {
        let mut values = [0.5f32; 4];
        values[place] = f32::NAN;
        let images = Tensor::from_slice(&values, (1, 2, 2, 1), &Device::Cpu).unwrap();
        let weight = Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let bias = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let out: Vec<f32> = conv_relu_pool(&images, &weight, &bias)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert!(out[0].is_nan(), "NaN at {place} became {}", out[0]);
    }
}

#[test]
fn wrong_shapes_types_and_layouts_are_errors() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let of = |images: &[usize], weight: &[usize], bias: &[usize]| {
        conv_relu_pool(
            &zeros(images, DType::F32),
            &zeros(weight, DType::F32),
            &zeros(bias, DType::F32),
        )
    };
    assert!(of(&[1, 4, 4, 2], &[3, 3, 3, 2], &[3]).is_ok());
    for (images, weight, bias) in [
        // In turn: other channels in, a kernel that is not square, an even kernel, too many biases,
        // one row of pixels, no image, an image without its number.
        (vec![1, 4, 4, 2], [3, 3, 3, 1], 3),
        (vec![1, 4, 4, 2], [3, 3, 5, 2], 3),
        (vec![1, 4, 4, 2], [3, 2, 2, 2], 3),
        (vec![1, 4, 4, 2], [3, 3, 3, 2], 4),
        (vec![1, 1, 4, 2], [3, 3, 3, 2], 3),
        (vec![0, 4, 4, 2], [3, 3, 3, 2], 3),
        (vec![4, 4, 2], [3, 3, 3, 2], 3),
    ] {
        assert!(
            of(&images, &weight, &[bias]).is_err(),
            "{images:?} {weight:?} {bias}"
        );
    }
    let (images, weight, bias) = (
        zeros(&[1, 4, 4, 2], DType::F64),
        zeros(&[3, 3, 3, 2], DType::F64),
        zeros(&[3], DType::F64),
    );
    assert!(conv_relu_pool(&images, &weight, &bias).is_err());
    let transposed = zeros(&[1, 4, 2, 4], DType::F32).transpose(2, 3).unwrap();
    assert!(
        conv_relu_pool(
            &transposed,
            &zeros(&[3, 3, 3, 2], DType::F32),
            &zeros(&[3], DType::F32)
        )
        .is_err()
    );
}
