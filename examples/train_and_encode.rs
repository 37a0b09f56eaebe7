//! Train a net on a few images of Fashion-MNIST, and let k-NN vote on its features.
//!
//! ```sh
//! cargo run --release --example train_and_encode
//! ```
//!
//! The data set is looked for, and fetched (30 MB) where it is nowhere. With 6,000 images and two
//! epochs the net learns little; the report trains it on all of them (Apartat C).

use std::error::Error;

use fashion_knn::fashion;
use fashion_knn::net::{Config, Labelled, Options, features, train};
use fashion_knn::prelude::*;

const IMAGES: usize = 6_000;
const EPOCHS: usize = 2;
const TESTED: usize = 1_000;
const K: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    fashion::fetch()?;
    let data = fashion::load()?.with_training_images(IMAGES);
    let images = Labelled::new(&data.train, &data.train_labels)?;
    let test = Labelled::new(&data.test, &data.test_labels)?;

    // The convolutional net: 784 pixels in, 128 features in its penultimate layer, 10 classes.
    let config = Config::cnn().limited(EPOCHS, IMAGES);
    let trained = train(&config, images, test, &Options::default(), |epoch| {
        println!("{epoch}");
    })?;
    println!("the net itself: {:.3}", trained.test_accuracy);

    // The same images as pixels and as features: two bases for the same classifier.
    let rows: Vec<usize> = (0..TESTED).collect();
    let tested = data.test.select(&rows)?;
    vote("pixels", Arc::clone(&data.train), &tested, &data)?;
    let encoded = Arc::new(features(&trained.model, &data.train)?);
    vote(
        "features",
        encoded,
        &features(&trained.model, &tested)?,
        &data,
    )
}

/// Classifies `queries` by their neighbours in `base` and prints the share that is right.
fn vote(
    name: &str,
    base: Arc<Vectors>,
    queries: &Vectors,
    data: &Fashion,
) -> Result<(), Box<dyn Error>> {
    let index = BruteForce::build(base, BruteForceParams::default())?;
    let found = index.query_batch(queries, K)?;
    let classes = Weights::Uniform.vote_rows(&found, K, &data.train_labels);
    let right = accuracy(&classes, &data.test_labels[..queries.len()]);
    println!(
        "{K}-NN on {name} ({} values an image): {right:.3}",
        queries.dim()
    );
    Ok(())
}
