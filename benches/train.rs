//! Images a second of the CNN: one epoch of training (data loading counted), and the features of the test images.
//!
//! `cargo bench --profile dev --bench train [-- IMAGES THREADS BATCH FC1 FC2]` prints one CSV line for each stage, as
//! `benches/train_peers.py` does for PyTorch; that script runs both, one after the other.

use std::error::Error;
use std::time::Instant;

use fashion_knn::fashion;
use fashion_knn::net::{
    Augmentation, CnnConfig, Config, Labelled, ModelConfig, Options, Schedule, features, train,
};

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds a flag of its own.
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let (images, threads, batch_size) = (number(0, 20_000), number(1, 2), number(2, 128));
    let cnn = CnnConfig {
        fc1: number(3, 128),
        fc2: number(4, 128),
        dropout: 0.0,
        ..CnnConfig::default()
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;

    let data = fashion::load()?;
    let test = Labelled::new(&data.test, &data.test_labels)?;
    // One image to validate on: the epoch has as many to learn from as the peer's.
    let all = Labelled::new(&data.train, &data.train_labels)?.head(images + 1);
    let config = Config {
        epochs: 1,
        batch_size,
        schedule: Schedule::Constant,
        learning_rate: 1e-3,
        augmentation: Augmentation::NONE,
        validation: 1,
        ..Config::of(ModelConfig::Cnn(cnn))
    };
    // A few steps to warm up, as the peer has them.
    train(
        &config,
        all.head(5 * batch_size + 1),
        test.head(1),
        &Options::default(),
        |_| (),
    )?;
    let trained = train(&config, all, test.head(1), &Options::default(), |_| ())?;
    println!("fashion-knn,train,{:.0}", trained.history[0].images_per_s);

    let mut rates: Vec<f64> = (0..4)
        .map(|_| {
            let start = Instant::now();
            let features = features(&trained.model, &data.test)?;
            Ok(features.len() as f64 / start.elapsed().as_secs_f64())
        })
        .collect::<Result<_, fashion_knn::net::NetError>>()?;
    rates.remove(0);
    rates.sort_by(f64::total_cmp);
    println!("fashion-knn,features,{:.0}", rates[rates.len() / 2]);
    Ok(())
}
