use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{ROWS, Statistics, affine, batch_norm};

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.random_range(-1.0..1.5))
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// x, scale, shift, and weights of the outputs in a sum that is differentiated.
fn problem(seed: u64, shape: &[usize]) -> (Var, Var, Var, Tensor) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let channels = shape[shape.len() - 1];
    let [x, scale, shift, outer] =
        [shape, &[channels], &[channels], shape].map(|shape| random(&mut rng, shape));
    let var = |tensor: &Tensor| Var::from_tensor(tensor).unwrap();
    (var(&x), var(&scale), var(&shift), outer)
}

/// The formula of the paper, in candle's own operations.
fn by_definition(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Tensor {
    let channels = scale.dim(0).unwrap();
    let x = x.reshape(((), channels)).unwrap();
    let centred = x.broadcast_sub(&x.mean_keepdim(0).unwrap()).unwrap();
    let variance = centred.sqr().unwrap().mean_keepdim(0).unwrap();
    let deviation = (variance + 1e-5).unwrap().sqrt().unwrap();
    let standard = centred.broadcast_div(&deviation).unwrap();
    let scaled = standard.broadcast_mul(scale).unwrap();
    scaled.broadcast_add(shift).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor, within: f32, what: &str) {
    for (i, (found, expected)) in numbers(found).iter().zip(numbers(expected)).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference < within,
            "{what}, {i}: {found}, expected {expected}"
        );
    }
}

/// One channel; several places an image; more rows than are summed together, and a last piece that
/// is not whole.
const SHAPES: [&[usize]; 3] = [&[7, 1], &[3, 4, 5, 6], &[2 * ROWS + 3, 3]];

#[test]
fn values_and_gradients_are_those_of_the_definition() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let (x, scale, shift, outer) = problem(seed as u64, shape);
        let (ours, _) = batch_norm(&x, &scale, &shift).unwrap();
        let theirs = by_definition(&x, &scale, &shift).reshape(shape).unwrap();
        assert_eq!(ours.dims(), shape);
        assert_close(&ours, &theirs, 1e-4, "values");
        let gradients = |y: &Tensor| {
            let sum = (y * &outer).unwrap().sum_all().unwrap();
            sum.backward().unwrap()
        };
        let (ours, theirs) = (gradients(&ours), gradients(&theirs));
        for (name, var) in [("x", &x), ("scale", &scale), ("shift", &shift)] {
            let [ours, theirs] = [&ours, &theirs].map(|all| all.get(var).unwrap());
            assert_close(ours, theirs, 2e-3, name);
        }
    }
}

#[test]
fn gradients_are_what_finite_differences_say() {
    let (x, scale, shift, outer) = problem(5, &[6, 2, 3]);
    let vars = [&x, &scale, &shift];
    let loss = |args: &[Tensor; 3]| {
        let (y, _) = batch_norm(&args[0], &args[1], &args[2]).unwrap();
        (y * &outer).unwrap().sum_all().unwrap()
    };
    let args = vars.map(|var| var.as_tensor().clone());
    let gradients = loss(&args).backward().unwrap();
    for (place, var) in vars.into_iter().enumerate() {
        let gradient = numbers(gradients.get(var).unwrap());
        let values = numbers(var);
        for i in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                let mut args = args.clone();
                args[place] = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                loss(&args).to_scalar::<f32>().unwrap()
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let difference = (slope - gradient[i]).abs();
            assert!(difference < 0.01, "{place}, {i}: {slope}, {}", gradient[i]);
        }
    }
}

#[test]
fn folded_into_a_factor_and_an_offset_it_is_the_same() {
    let (x, scale, shift, _) = problem(6, &[5, 4, 3]);
    let (unfolded, statistics) = batch_norm(&x, &scale, &shift).unwrap();
    let (factor, offset) = statistics.fold(&numbers(&scale), &numbers(&shift));
    let folded = affine(&x, factor, offset).unwrap();
    assert_close(&folded, &unfolded, 1e-6, "folded");
}

#[test]
fn a_channel_that_never_changes_becomes_its_shift() {
    let x = Tensor::full(3.0f32, (4, 1), &Device::Cpu).unwrap();
    let one = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
    let half = (&one * 0.5).unwrap();
    let (y, statistics) = batch_norm(&x, &one, &half).unwrap();
    assert_close(
        &y,
        &Tensor::full(0.5f32, (4, 1), &Device::Cpu).unwrap(),
        1e-6,
        "constant",
    );
    let expected = Statistics {
        mean: vec![3.0],
        variance: vec![0.0],
    };
    assert_eq!(statistics, expected);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (x, scale, shift, outer) = problem(7, &[5 * ROWS + 1, 4]);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let (y, _) = batch_norm(&x, &scale, &shift).unwrap();
            let gradients = (&y * &outer)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            let gradients = [&x, &scale, &shift].map(|var| numbers(gradients.get(var).unwrap()));
            (numbers(&y), gradients)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn wrong_shapes_are_errors() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(batch_norm(&zeros(&[2, 3]), &zeros(&[3]), &zeros(&[3])).is_ok());
    for (x, scale, shift) in [(vec![2, 3], 2, 3), (vec![2, 3], 3, 1), (vec![0, 3], 3, 3)] {
        assert!(batch_norm(&zeros(&x), &zeros(&[scale]), &zeros(&[shift])).is_err());
    }
}
