//! Every index of the registry over random tables, against the naive scan.
//!
//! A seed makes a case: one of the hard shapes of few rows, at any scale, perhaps with more copies,
//! and queries of several sorts, for any number of neighbours up to more than there are rows. With
//! every other seed an index has its default parameters, else some of its sweeps. What has to hold
//! stands in `fuzz/src/promises.rs`.
//!
//! All cases are run before the test fails, and the failures are listed. More cases than the usual
//! hundred: `FASHION_KNN_FUZZ_SEEDS=10000 cargo test --test fuzz`.

use fashion_knn::index::registry::REGISTRY;
use fashion_knn::lab::shapes::{SHAPES, Sample, Shape};
use fashion_knn::vectors::Vectors;
use promises::{Case, check, settings};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[path = "../fuzz/src/promises.rs"]
mod promises;

/// Seeds of a usual run.
const SEEDS: u64 = 100;
/// Queries of a case that its shape draws; others are added.
const QUERIES: usize = 4;

/// What the seed makes, and its description for whoever mends an index.
fn case(seed: u64) -> (Case, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = SHAPES.choose(&mut rng).unwrap();
    // As many cases of 1 to 20 rows as of 20 to 400.
    let rows = 400f64.powf(rng.random()).round() as usize;
    let dim = if rng.random() {
        shape.dim.min(40)
    } else {
        rng.random_range(1..=40)
    };
    let mut sample = shape.sample(rows, QUERIES, dim, rng.random());
    let scale = 10f32.powi(rng.random_range(-40..=37));
    let scaled = rng.random() && scale_by(&mut sample, scale);
    let copies = rng.random_bool(0.3);
    if copies {
        copy_rows(&mut sample, &mut rng);
    }
    let queries = with_other_queries(&sample, &mut rng);
    let k = rng.random_range(1..=rows + 3);
    let scale = if scaled { scale } else { 1.0 };
    let Shape { name, .. } = shape;
    let told = format!(
        "seed {seed}: {name}, {rows} x {dim}, k = {k}, times {scale:e}, more copies: {copies}"
    );
    (Case::new(seed, sample.base, queries, k), told)
}

/// Multiplies floats; whether it did. Bytes, and what would overflow, stay as they are.
fn scale_by(sample: &mut Sample, scale: f32) -> bool {
    let times = |vectors: &Vectors| {
        let values: Vec<f32> = vectors
            .floats()?
            .iter()
            .map(|value| value * scale)
            .collect();
        Vectors::from_floats(vectors.dim(), values).ok()
    };
    let (Some(base), Some(queries)) = (times(&sample.base), times(&sample.queries)) else {
        return false;
    };
    *sample = Sample { base, queries };
    true
}

/// Half of the rows become copies of a few.
fn copy_rows(sample: &mut Sample, rng: &mut ChaCha8Rng) {
    let rows = sample.base.len();
    let sources: Vec<usize> = (0..3).map(|_| rng.random_range(0..rows)).collect();
    let mut taken: Vec<usize> = (0..rows).collect();
    for row in &mut taken {
        if rng.random() {
            *row = *sources.choose(rng).unwrap();
        }
    }
    sample.base = sample.base.select(&taken).unwrap();
}

/// The shape's queries; two rows of the base; a row of zeros; one far from everything.
fn with_other_queries(sample: &Sample, rng: &mut ChaCha8Rng) -> Vectors {
    let (base, dim) = (&sample.base, sample.base.dim());
    let row = |rng: &mut ChaCha8Rng| base.row_to_floats(rng.random_range(0..base.len()));
    let mut values = sample.queries.to_floats();
    values.extend(row(rng));
    values.extend(row(rng));
    values.extend(vec![0.0; dim]);
    if base.bytes().is_some() {
        values.extend(vec![255.0; dim]);
        let bytes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        return Vectors::from_bytes(dim, bytes).unwrap();
    }
    // A thousand times as far, if that is a number.
    values.extend(
        row(rng)
            .iter()
            .map(|&value| (value * -1e3).clamp(f32::MIN, f32::MAX)),
    );
    Vectors::from_floats(dim, values).unwrap()
}

/// One quarter of the seeds: four tests run side by side.
fn quarter(which: u64) {
    let more = std::env::var("FASHION_KNN_FUZZ_SEEDS").ok();
    let seeds = more.map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    let mut failures = Vec::new();
    for seed in (0..seeds).filter(|seed| seed % 4 == which) {
        let (case, told) = case(seed);
        for entry in REGISTRY {
            if let Err(error) = check(entry, &case) {
                let [build, search] = settings(entry, seed);
                let index = format!("{} ({build}; {search})", entry.key);
                failures.push(format!("{index}, {told}: {error}"));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn first_quarter_of_the_seeds() {
    quarter(0);
}

#[test]
fn second_quarter_of_the_seeds() {
    quarter(1);
}

#[test]
fn third_quarter_of_the_seeds() {
    quarter(2);
}

#[test]
fn fourth_quarter_of_the_seeds() {
    quarter(3);
}
