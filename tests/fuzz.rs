//! Every index of the registry over random tables, against the naive scan.
//!
//! A seed makes a case: one of the hard shapes of few rows, at any scale, perhaps with more copies,
//! and queries of several sorts, for any number of neighbours up to more than there are rows. What
//! has to hold is what [`Index`] promises, whatever the data:
//! - exact indexes return what the scan returns, ids and distances;
//! - the others return min(k, n) neighbours, ascending, ties by id, none twice, at their true
//!   distances;
//! - all return the same on one thread and on three.
//!
//! All cases are run before the test fails, and the failures are listed. More cases than the usual
//! hundred: `FASHION_KNN_FUZZ_SEEDS=10000 cargo test --test fuzz`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fashion_knn::index::registry::{Entry, REGISTRY, Settings};
use fashion_knn::index::{Index, Query};
use fashion_knn::lab::evaluate::on_threads;
use fashion_knn::lab::shapes::{SHAPES, Sample, Shape};
use fashion_knn::neighbor::{Neighbor, Neighbors};
use fashion_knn::vectors::Vectors;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seeds of a usual run.
const SEEDS: u64 = 100;
/// Queries of a case that its shape draws; others are added.
const QUERIES: usize = 4;

/// A base, queries, and how many neighbours they ask for.
struct Case {
    /// What the seed made, for whoever mends an index.
    told: String,
    base: Arc<Vectors>,
    queries: Vectors,
    k: usize,
    /// All rows of the base for each query: ascending, ties by id.
    truth: Vec<Vec<Neighbor>>,
}

fn case(seed: u64) -> Case {
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
    let scale = 10f32.powi(rng.random_range(-30..=30));
    let scaled = rng.random() && scale_by(&mut sample, scale);
    let copies = rng.random_bool(0.3);
    if copies {
        copy_rows(&mut sample, &mut rng);
    }
    let queries = with_other_queries(&sample, &mut rng);
    let k = rng.random_range(1..=rows + 3);
    let truth = (0..queries.len())
        .map(|query| scan(&sample.base, &queries, query))
        .collect();
    let scale = if scaled { scale } else { 1.0 };
    let Shape { name, .. } = shape;
    Case {
        told: format!(
            "seed {seed}: {name}, {rows} x {dim}, k = {k}, times {scale:e}, more copies: {copies}"
        ),
        base: Arc::new(sample.base),
        queries,
        k,
        truth,
    }
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

/// The definition: all distances in f64, sorted by distance and then id.
fn scan(base: &Vectors, queries: &Vectors, query: usize) -> Vec<Neighbor> {
    let query = queries.row_to_floats(query);
    let distance = |id: usize| {
        let row = base.row_to_floats(id);
        let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
        row.iter().zip(&query).map(square).sum::<f64>().sqrt()
    };
    let neighbor = |id: usize| Neighbor {
        id: id as u32,
        distance: distance(id),
    };
    let mut all: Vec<Neighbor> = (0..base.len()).map(neighbor).collect();
    all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    all
}

/// What an index finds, built and asked on so many threads.
fn found(entry: &Entry, case: &Case, threads: usize) -> Result<Neighbors, String> {
    let defaults = Settings::default();
    let work = || {
        let built = (entry.build)(Arc::clone(&case.base), &defaults);
        let index: Box<dyn Index> = built.and_then(|built| built(&defaults)).unwrap();
        index.query_batch(&case.queries, case.k).unwrap()
    };
    let run = || on_threads(threads, work).unwrap();
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| "panicked".to_owned())
}

fn check(entry: &Entry, case: &Case) -> Result<(), String> {
    let one = found(entry, case, 1)?;
    if found(entry, case, 3)? != one {
        return Err("another result on three threads".to_owned());
    }
    if one.len() != case.queries.len() {
        return Err(format!(
            "{} rows for {} queries",
            one.len(),
            case.queries.len()
        ));
    }
    for (query, (row, truth)) in one.iter().zip(&case.truth).enumerate() {
        let nearest = &truth[..case.k.min(truth.len())];
        promises(row, truth, nearest.len()).map_err(|error| format!("query {query}: {error}"))?;
        if entry.exact && !row.iter().zip(nearest).all(|(a, b)| same(a, b)) {
            return Err(format!("query {query}: not what the scan finds"));
        }
    }
    Ok(())
}

/// What every index promises of a row of neighbours.
fn promises(row: &[Neighbor], truth: &[Neighbor], count: usize) -> Result<(), String> {
    if row.len() != count {
        return Err(format!("{} neighbours, not {count}", row.len()));
    }
    let ascending = |pair: &[Neighbor]| {
        let [a, b] = [&pair[0], &pair[1]];
        a.distance < b.distance || (a.distance == b.distance && a.id < b.id)
    };
    if !row.windows(2).all(ascending) {
        return Err("not ascending, ties by id".to_owned());
    }
    let mut seen = vec![false; truth.len()];
    for neighbor in row {
        if std::mem::replace(&mut seen[neighbor.id as usize], true) {
            return Err(format!("row {} twice", neighbor.id));
        }
        let truly = truth.iter().find(|truly| truly.id == neighbor.id).unwrap();
        if !same(neighbor, truly) {
            return Err(format!("{neighbor:?} is at {}", truly.distance));
        }
    }
    Ok(())
}

/// The same row at the same distance, but for the order in which the squares were added.
fn same(a: &Neighbor, b: &Neighbor) -> bool {
    a.id == b.id && (a.distance - b.distance).abs() <= 1e-12 * b.distance
}

/// One quarter of the seeds: four tests run side by side.
fn quarter(which: u64) {
    let more = std::env::var("FASHION_KNN_FUZZ_SEEDS").ok();
    let seeds = more.map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    let mut failures = Vec::new();
    for seed in (0..seeds).filter(|seed| seed % 4 == which) {
        let case = case(seed);
        for entry in REGISTRY {
            if let Err(error) = check(entry, &case) {
                failures.push(format!("{}, {}: {error}", entry.key, case.told));
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
