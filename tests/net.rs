//! Trainings from outside: what they learn, that an interrupted one ends like any other, that
//! damaged files are errors.
#![cfg(feature = "net")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fashion_knn::net::*;
use fashion_knn::vectors::Vectors;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Images whose class can be seen: a bright bar at a height of its own, in noise, a little shifted.
fn bars(count: usize, seed: u64) -> (Vectors, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<u8> = (0..count).map(|_| rng.random_range(0..10)).collect();
    let mut pixels = Vec::with_capacity(count * PIXELS);
    for &label in &labels {
        let (top, left) = (
            2 * usize::from(label) + rng.random_range(2..4),
            rng.random_range(0..8),
        );
        for y in 0..SIDE {
            for x in 0..SIDE {
                let bar = (top..top + 4).contains(&y) && (left..left + 20).contains(&x);
                pixels.push(if bar {
                    rng.random_range(100..=255)
                } else {
                    rng.random_range(0..120)
                });
            }
        }
    }
    (Vectors::from_bytes(PIXELS, pixels).unwrap(), labels)
}

/// A small training of each model.
fn small(model: ModelConfig) -> Config {
    Config {
        epochs: 4,
        batch_size: 32,
        validation: 100,
        learning_rate: 5e-3,
        ..Config::of(model)
    }
}

fn small_cnn() -> Config {
    let cnn = CnnConfig {
        blocks: vec![vec![8], vec![8, 16]],
        fc1: 32,
        fc2: 16,
        ..CnnConfig::default()
    };
    Config {
        augmentation: Augmentation {
            shift: 1,
            flip: true,
        },
        ..small(ModelConfig::Cnn(cnn))
    }
}

fn small_mlp() -> Config {
    small(ModelConfig::Mlp(MlpConfig {
        hidden: vec![32, 16],
        dropout: 0.1,
    }))
}

fn run(config: &Config, options: &Options) -> Result<Trained, NetError> {
    let ((images, labels), (test, test_labels)) = (bars(1_000, 1), bars(500, 2));
    let (data, test) = (
        Labelled::new(&images, &labels)?,
        Labelled::new(&test, &test_labels)?,
    );
    train(config, data, test, options, |_| ())
}

fn at(path: &Path) -> Options {
    Options {
        checkpoint: Some(path.to_owned()),
        again: false,
    }
}

/// All that a training comes to, but for the seconds: weights, test accuracy, best epoch, and each
/// epoch's figures.
fn figures(trained: &Trained) -> (String, f64, usize, Vec<[f64; 4]>) {
    let epochs = trained.history.iter();
    let epochs = epochs
        .map(|e| {
            [
                e.loss,
                e.train_accuracy,
                e.validation_loss,
                e.validation_accuracy,
            ]
        })
        .collect();
    (
        trained.model.fingerprint().unwrap(),
        trained.test_accuracy,
        trained.best,
        epochs,
    )
}

#[test]
fn every_model_learns_and_what_it_predicts_is_what_it_was_scored_on() {
    // By chance it would be 0.1; a linear model follows the shifting bars less well.
    let linear = |model| {
        (
            Config {
                epochs: 15,
                ..small(model)
            },
            0.6,
        )
    };
    let nets = [(small_mlp(), 0.8), (small_cnn(), 0.8)];
    for (config, floor) in [linear(ModelConfig::Logistic), linear(ModelConfig::Svm)]
        .into_iter()
        .chain(nets)
    {
        let name = config.model.name();
        let trained = run(&config, &Options::default()).unwrap();
        assert!(
            trained.test_accuracy > floor,
            "{name}: {}",
            trained.test_accuracy
        );
        assert_eq!(
            (trained.history.len(), trained.loaded),
            (config.epochs, false)
        );
        assert!(
            trained.history[config.epochs - 1].loss < trained.history[0].loss,
            "{name}"
        );
        let best = trained
            .history
            .iter()
            .map(|epoch| epoch.validation_accuracy)
            .fold(0.0, f64::max);
        assert_eq!(trained.validation_accuracy(), best, "{name}");
        let (test, labels) = bars(500, 2);
        let classes = trained.model.predict(&test).unwrap();
        let right = classes
            .iter()
            .zip(&labels)
            .filter(|(class, label)| class == label)
            .count();
        assert_eq!(trained.test_accuracy, right as f64 / 500.0, "{name}");
    }
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn real_images_are_learned_from_a_few_of_them() {
    let data = fashion_knn::fashion::load().unwrap();
    let few = Labelled::new(&data.train, &data.train_labels)
        .unwrap()
        .head(3_000);
    let test = Labelled::new(&data.test, &data.test_labels)
        .unwrap()
        .head(2_000);
    for (config, floor) in [(small(ModelConfig::Logistic), 0.75), (small_cnn(), 0.75)] {
        let trained = train(&config, few, test, &Options::default(), |_| ()).unwrap();
        assert!(
            trained.test_accuracy > floor,
            "{}: {}",
            config.model.name(),
            trained.test_accuracy
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_seed_others() {
    for config in [small_mlp(), small_cnn()] {
        let config = Config {
            epochs: 2,
            ..config
        };
        let once = figures(&run(&config, &Options::default()).unwrap());
        let one_thread = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        assert_eq!(
            once,
            one_thread.install(|| figures(&run(&config, &Options::default()).unwrap()))
        );
        let other = Config { seed: 1, ..config };
        assert_ne!(
            once.0,
            figures(&run(&other, &Options::default()).unwrap()).0
        );
    }
}

#[test]
fn a_batch_larger_than_the_data_and_a_last_partial_one_are_taken() {
    for batch_size in [7, 10_000] {
        let config = Config {
            batch_size,
            epochs: 1,
            ..small(ModelConfig::Logistic)
        };
        let trained = run(&config, &Options::default()).unwrap();
        // 900 images are learned from, whatever the batches: an accuracy is a whole number of them.
        let right = trained.history[0].train_accuracy * 900.0;
        assert!((right - right.round()).abs() < 1e-6, "{right}");
    }
}

#[test]
fn a_finished_training_is_loaded_unless_it_is_to_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/mlp.safetensors");
    let config = Config {
        epochs: 2,
        ..small_mlp()
    };
    let first = run(&config, &at(&path)).unwrap();
    let loaded = run(&config, &at(&path)).unwrap();
    assert!(!first.loaded && loaded.loaded);
    assert_eq!(figures(&first), figures(&loaded));
    assert_eq!(loaded.history, first.history);
    let again = run(
        &config,
        &Options {
            again: true,
            ..at(&path)
        },
    )
    .unwrap();
    assert!(!again.loaded);
    assert_eq!(figures(&first), figures(&again));
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "a temporary file is left"
    );
}

/// An environment variable. It is set for the process that is to be killed, and names the file of
/// its checkpoint.
const VICTIM: &str = "FASHION_KNN_TEST_VICTIM";

fn victims_config() -> Config {
    Config {
        epochs: 6,
        ..small_cnn()
    }
}

/// This test starts itself in another process, which trains until it is killed.
#[test]
fn a_training_that_is_killed_ends_like_one_that_is_not() {
    if let Some(path) = std::env::var_os(VICTIM) {
        run(&victims_config(), &at(Path::new(&path))).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnn.safetensors");
    let written = || {
        std::fs::metadata(&path)
            .and_then(|file| file.modified())
            .ok()
    };
    // Killed twice, each time in the epoch after a checkpoint.
    for _ in 0..2 {
        let before = written();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_training_that_is_killed_ends_like_one_that_is_not",
            ])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while written() == before {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "no checkpoint after a minute"
            );
            assert!(
                victim.try_wait().unwrap().is_none(),
                "the training ended before it was killed"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(10));
        victim.kill().unwrap();
        assert!(
            !victim.wait().unwrap().success(),
            "the training ended before it was killed"
        );
    }
    let mut epochs = 0;
    let ((images, labels), (test, test_labels)) = (bars(1_000, 1), bars(500, 2));
    let (data, test) = (
        Labelled::new(&images, &labels).unwrap(),
        Labelled::new(&test, &test_labels).unwrap(),
    );
    let resumed = train(&victims_config(), data, test, &at(&path), |_| epochs += 1).unwrap();
    assert!((1..6).contains(&epochs), "{epochs} epochs were left");
    let whole = run(&victims_config(), &Options::default()).unwrap();
    assert_eq!(figures(&resumed), figures(&whole));
}

#[test]
fn a_checkpoint_that_is_damaged_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logistic.safetensors");
    let config = Config {
        epochs: 1,
        ..small(ModelConfig::Logistic)
    };
    run(&config, &at(&path)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut renamed = whole.clone();
    let record = whole
        .windows(20)
        .position(|bytes| bytes.starts_with(b"fashion-knn"))
        .unwrap();
    renamed[record] = b'F';
    for damaged in [
        &whole[..whole.len() - 1],
        &whole[..100],
        &whole[..0],
        b"no checkpoint at all",
        &flipped,
        &renamed,
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = run(&config, &at(&path)).unwrap_err();
        assert!(matches!(error, NetError::Corrupt { .. }), "{error}");
        assert!(
            error.to_string().contains("logistic.safetensors"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    assert!(
        !run(
            &config,
            &Options {
                again: true,
                ..at(&path)
            }
        )
        .unwrap()
        .loaded
    );
    assert!(run(&config, &at(&path)).unwrap().loaded);
}

#[test]
fn a_checkpoint_of_another_training_is_an_error_that_says_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlp.safetensors");
    let config = Config {
        epochs: 1,
        ..small_mlp()
    };
    run(&config, &at(&path)).unwrap();
    let wider = Config {
        model: ModelConfig::Mlp(MlpConfig {
            hidden: vec![32, 17],
            dropout: 0.1,
        }),
        ..config.clone()
    };
    let error = run(&wider, &at(&path)).unwrap_err().to_string();
    assert!(
        error.contains("fc2.weight is [32, 16]; expected [32, 17]"),
        "{error}"
    );
    let error = run(
        &Config {
            seed: 5,
            ..config.clone()
        },
        &at(&path),
    )
    .unwrap_err();
    assert!(
        matches!(&error, NetError::Mismatch { what, .. } if what == "the configuration"),
        "{error}"
    );
    let (images, labels) = bars(1_000, 9);
    let other = Labelled::new(&images, &labels).unwrap();
    let error = train(&config, other, other, &at(&path), |_| ()).unwrap_err();
    assert!(
        matches!(&error, NetError::Mismatch { what, .. } if what == "the data's hash"),
        "{error}"
    );
    let ((images, labels), (test, test_labels)) = (bars(1_000, 1), bars(500, 2));
    let (data, test) = (
        Labelled::new(&images, &labels).unwrap(),
        Labelled::new(&test, &test_labels).unwrap(),
    );
    let file = config.checkpoint_in(folder.path(), data, test);
    assert_ne!(file, wider.checkpoint_in(folder.path(), data, test));
    assert_ne!(file, config.checkpoint_in(folder.path(), other, test));
}

#[test]
fn a_training_that_diverges_says_at_which_batch() {
    for optimizer in [
        Optimizer::Sgd {
            momentum: 0.9,
            weight_decay: 0.0,
        },
        Optimizer::default(),
    ] {
        let config = Config {
            learning_rate: 1e30,
            optimizer,
            schedule: Schedule::Constant,
            ..small_cnn()
        };
        match run(&config, &Options::default()).unwrap_err() {
            NetError::NotFinite {
                epoch: 1, batch, ..
            } => assert!((1..=29).contains(&batch), "{batch}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_is_an_error_that_names_what() {
    let base = small_cnn();
    let cnn = |change: fn(&mut CnnConfig)| {
        let mut cnn = CnnConfig::default();
        change(&mut cnn);
        Config {
            model: ModelConfig::Cnn(cnn),
            ..small_cnn()
        }
    };
    for (config, what) in [
        (
            Config {
                epochs: 0,
                ..base.clone()
            },
            "epochs",
        ),
        (
            Config {
                batch_size: 0,
                ..base.clone()
            },
            "batch_size",
        ),
        (
            Config {
                validation: 0,
                ..base.clone()
            },
            "validation",
        ),
        (
            Config {
                validation: 1_000,
                ..base.clone()
            },
            "validation",
        ),
        (
            Config {
                learning_rate: f32::NAN,
                ..base.clone()
            },
            "learning_rate",
        ),
        (
            Config {
                schedule: Schedule::OneCycle { warmup: 1.0 },
                ..base.clone()
            },
            "warmup",
        ),
        (
            Config {
                optimizer: Optimizer::Sgd {
                    momentum: 1.0,
                    weight_decay: 0.0,
                },
                ..base.clone()
            },
            "momentum",
        ),
        (
            Config {
                augmentation: Augmentation {
                    shift: 28,
                    ..Augmentation::NONE
                },
                ..base.clone()
            },
            "shift",
        ),
        (cnn(|cnn| cnn.blocks.clear()), "number of blocks"),
        (cnn(|cnn| cnn.blocks = vec![vec![1]; 5]), "number of blocks"),
        (cnn(|cnn| cnn.blocks[1].clear()), "convolutions of a block"),
        (cnn(|cnn| cnn.blocks[0][0] = 0), "channels"),
        (cnn(|cnn| cnn.smoothing = 1.0), "smoothing"),
        (cnn(|cnn| cnn.fc2 = 0), "fc2"),
        (cnn(|cnn| cnn.kernel = 4), "kernel"),
        (cnn(|cnn| cnn.dropout = 1.0), "dropout"),
    ] {
        let error = run(&config, &Options::default()).unwrap_err();
        assert!(
            matches!(error, NetError::Invalid { .. }) && error.to_string().contains(what),
            "{what}: {error}"
        );
    }
}

#[test]
fn features_are_the_penultimate_layer_and_are_computed_once() {
    let trained = run(
        &Config {
            epochs: 2,
            ..small_cnn()
        },
        &Options::default(),
    )
    .unwrap();
    // More than a batch, and a partial one.
    let (images, _) = bars(300, 3);
    let of_all = features(&trained.model, &images).unwrap();
    assert_eq!((of_all.len(), of_all.dim()), (300, 16));
    assert!(
        of_all.floats().unwrap().iter().all(|&value| value >= 0.0),
        "activations after a ReLU"
    );
    // The output layer over the features gives the classes that the model predicts.
    let parameters: std::collections::HashMap<_, _> = trained.model.parameters().collect();
    let weight = parameters["out.weight"].to_vec2::<f32>().unwrap();
    let bias = parameters["out.bias"].to_vec1::<f32>().unwrap();
    let classes = trained.model.predict(&images).unwrap();
    for (row, &predicted) in classes.iter().enumerate() {
        let values = of_all.row_to_floats(row);
        let score =
            |class: usize| bias[class] + (0..16).map(|i| values[i] * weight[i][class]).sum::<f32>();
        let best = (0..10)
            .max_by(|&a, &b| score(a).total_cmp(&score(b)))
            .unwrap();
        assert_eq!(best, usize::from(predicted));
    }
    let folder = tempfile::tempdir().unwrap();
    let cached = || cached_features(&trained.model, &images, folder.path()).unwrap();
    assert_eq!(cached().floats(), of_all.floats());
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let first = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(cached().floats(), of_all.floats());
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), first);
    // Damage is noticed and mended.
    let whole = std::fs::read(&file).unwrap();
    for damaged in [
        &whole[..whole.len() / 2],
        &[whole.as_slice(), &[0]].concat(),
    ] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(cached().floats(), of_all.floats());
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    // Other images, another file.
    cached_features(&trained.model, &images.head(10), folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// The images (n × 784 bytes), mirrored left to right.
fn mirrored(images: &Vectors) -> Vectors {
    let rows = images.bytes().unwrap().chunks_exact(SIDE);
    let pixels: Vec<u8> = rows.flat_map(|row| row.iter().rev()).copied().collect();
    Vectors::from_bytes(PIXELS, pixels).unwrap()
}

#[test]
fn an_image_and_its_mirror_image_are_the_same_to_a_net_that_looks_at_both() {
    let config = Config {
        epochs: 1,
        ..small_cnn()
    };
    let trained = run(&config, &Options::default()).unwrap();
    let (images, _) = bars(40, 4);
    let of = |images: &Vectors| features(&trained.model, images).unwrap().to_floats();
    assert_eq!(of(&images), of(&mirrored(&images)));
    assert_ne!(images.bytes(), mirrored(&images).bytes());
}

#[test]
fn probabilities_are_the_softmax_of_the_scores() {
    let config = Config {
        epochs: 2,
        ..small(ModelConfig::Logistic)
    };
    let model = run(&config, &Options::default()).unwrap().model;
    // More than a batch.
    let (images, _) = bars(300, 5);
    let probabilities = model.probabilities(&images).unwrap();
    assert_eq!(probabilities.len(), 300);
    let parameters: std::collections::HashMap<_, _> = model.parameters().collect();
    let weight = parameters["out.weight"].to_vec2::<f32>().unwrap();
    let bias = parameters["out.bias"].to_vec1::<f32>().unwrap();
    let scaling = model.scaling();
    for (row, found) in probabilities.iter().enumerate() {
        let pixels = images.row_bytes(row).unwrap();
        let input =
            |pixel: u8| f64::from((f32::from(pixel) / 255.0 - scaling.mean) / scaling.deviation);
        let exponentials: Vec<f64> = (0..10)
            .map(|class| {
                let terms = pixels.iter().zip(&weight);
                let sum: f64 = terms.map(|(&p, w)| input(p) * f64::from(w[class])).sum();
                (sum + f64::from(bias[class])).exp()
            })
            .collect();
        let all: f64 = exponentials.iter().sum();
        for (found, exponential) in found.iter().zip(exponentials) {
            assert!((f64::from(*found) - exponential / all).abs() < 1e-4);
        }
    }
}

#[test]
fn a_layer_says_what_it_does_and_counts_what_it_learns() {
    let config = ModelConfig::Cnn(CnnConfig {
        blocks: vec![vec![4], vec![5, 6]],
        fc1: 7,
        fc2: 8,
        ..CnnConfig::default()
    });
    let conv = |pool| LayerKind::Convolution { kernel: 3, pool };
    let layers = config.layers();
    let found: Vec<_> = layers
        .iter()
        .map(|layer| {
            (
                layer.name.as_str(),
                layer.kind,
                layer.output.clone(),
                layer.parameters(),
            )
        })
        .collect();
    // Weights and biases, and for a convolution a scale and a shift for each channel.
    let expected = [
        ("conv1", conv(true), vec![14, 14, 4], 9 * 4 + 3 * 4),
        ("conv2", conv(false), vec![14, 14, 5], 9 * 4 * 5 + 3 * 5),
        ("conv3", conv(true), vec![7, 7, 6], 9 * 5 * 6 + 3 * 6),
        ("fc1", LayerKind::Linear, vec![7], 49 * 6 * 7 + 7),
        ("fc2", LayerKind::Linear, vec![8], 7 * 8 + 8),
        ("out", LayerKind::Output, vec![10], 8 * 10 + 10),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        config.parameters(),
        expected.iter().map(|layer| layer.3).sum::<usize>()
    );
}

#[test]
fn what_the_report_learns_is_learned_once_and_its_features_stand_in_for_the_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let ((images, labels), (test, test_labels)) = (bars(1_000, 1), bars(500, 2));
    let data = fashion_knn::fashion::Fashion {
        train: images.into(),
        train_labels: labels.into(),
        test: test.into(),
        test_labels: test_labels.into(),
    };
    let few = data.with_training_images(600);
    assert_eq!(
        (few.train.len(), few.train_labels.len(), few.test.len()),
        (600, 600, 500)
    );
    let mut config = Config::for_features(16).limited(1, few.train.len());
    assert_eq!(
        (
            config.epochs,
            config.validation,
            Config::short_cnn(16).epochs > 1
        ),
        (1, 50, true)
    );
    config.model = small_cnn().model;
    let (learned_from, held_out) = config.split(600);
    let mut all = [learned_from, held_out.clone()].concat();
    all.sort_unstable();
    assert_eq!((all, held_out.len()), ((0..600).collect(), 50));

    let mut epochs = 0;
    let first = learned(&config, &few, folder.path(), |_| epochs += 1).unwrap();
    let again = learned(&config, &few, folder.path(), |_| epochs += 1).unwrap();
    assert_eq!((epochs, first.loaded, again.loaded), (1, false, true));
    // Other data are another training, not a checkpoint of the wrong one.
    assert!(
        !learned(
            &config,
            &data.with_training_images(601),
            folder.path(),
            |_| ()
        )
        .unwrap()
        .loaded
    );
    let features = encoded(&again.model, &few, folder.path()).unwrap();
    assert_eq!(
        (
            features.train.len(),
            features.test.len(),
            features.test.dim()
        ),
        (600, 500, 16)
    );
    assert_eq!(features.test_labels, few.test_labels);
    assert_eq!(
        features.test.row_to_floats(7),
        fashion_knn::net::features(&first.model, &few.test)
            .unwrap()
            .row_to_floats(7)
    );
}
