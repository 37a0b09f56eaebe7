//! Images a second of the CNN: one epoch of training (data loading counted), and the features of
//! the test images.
//!
//! ```text
//! cargo bench --bench train [-- IMAGES THREADS BATCH FC1 FC2]
//! ```
//!
//! It prints one CSV line for each stage, as `benches/train_peers.py` does for PyTorch. That script
//! runs both, one after the other. Without Fashion-MNIST on this machine it says so and measures
//! nothing.

use std::error::Error;
use std::time::Instant;

use fashion_knn::fashion;
use fashion_knn::net::{
    Augmentation, CnnConfig, Config, Labelled, Model, ModelConfig, NetError, Options, Schedule,
    features, train,
};
use fashion_knn::vectors::Vectors;

/// What is measured: the arguments, in their order.
struct Arguments {
    images: usize,
    threads: usize,
    batch_size: usize,
    fc1: usize,
    fc2: usize,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut numbers = [20_000, 2, 128, 128, 128];
        // `cargo bench` adds a flag of its own.
        let given = std::env::args().skip(1).filter(|arg| arg != "--bench");
        for (number, arg) in numbers.iter_mut().zip(given) {
            *number = arg.parse().map_err(|error| format!("{arg}: {error}"))?;
        }
        let [images, threads, batch_size, fc1, fc2] = numbers;
        Ok(Self {
            images,
            threads,
            batch_size,
            fc1,
            fc2,
        })
    }

    fn config(&self) -> Config {
        let cnn = CnnConfig {
            fc1: self.fc1,
            fc2: self.fc2,
            dropout: 0.0,
            smoothing: 0.0,
            mirrored: false,
            ..CnnConfig::default()
        };
        Config {
            epochs: 1,
            batch_size: self.batch_size,
            schedule: Schedule::Constant,
            learning_rate: 1e-3,
            augmentation: Augmentation::NONE,
            // One image to validate on: the epoch then has as many to learn from as PyTorch's.
            validation: 1,
            ..Config::of(ModelConfig::Cnn(cnn))
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse()?;
    let Some(folder) = fashion::find() else {
        println!(
            "Fashion-MNIST is not here; `cargo run --bin fetch` gets it. Nothing was measured."
        );
        return Ok(());
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()?;
    let data = fashion::load_from(&folder)?;
    let test = Labelled::new(&data.test, &data.test_labels)?.head(1);
    let images = Labelled::new(&data.train, &data.train_labels)?.head(arguments.images + 1);
    let config = arguments.config();
    // Five steps to warm up, as for PyTorch.
    let few = images.head(5 * arguments.batch_size + 1);
    train(&config, few, test, &Options::default(), |_| ())?;
    let trained = train(&config, images, test, &Options::default(), |_| ())?;
    println!("fashion-knn,train,{:.0}", trained.history[0].images_per_s);
    let rate = features_a_second(&trained.model, &data.test)?;
    println!("fashion-knn,features,{rate:.0}");
    Ok(())
}

/// Images a second: the median of three runs, after one to warm up.
fn features_a_second(model: &Model, images: &Vectors) -> Result<f64, NetError> {
    let mut rates = Vec::new();
    for run in 0..4 {
        let start = Instant::now();
        let count = features(model, images)?.len();
        let rate = count as f64 / start.elapsed().as_secs_f64();
        if run > 0 {
            rates.push(rate);
        }
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}
