//! What each index makes of the hard shapes: `cargo run --release --no-default-features --example
//! hard_shapes -- hnsw,ivf_flat 20000`.
//!
//! A line a shape and index at its default parameters: recall@1 and recall@10, the fewest
//! neighbours that a query for 10 got, seconds of the build, and how many times those are of
//! uniform data of the same size. Without names all approximate indexes are asked; names of shapes
//! after the number limit the shapes.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use fashion_knn::index::registry::{Entry, REGISTRY};
use fashion_knn::lab::evaluate::{on_threads, recall};
use fashion_knn::lab::shapes::{SHAPES, Sample, Shape, find};
use fashion_knn::prelude::*;

const K: usize = 10;
const QUERIES: usize = 200;
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys = arguments.next().unwrap_or_default();
    let rows = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let shapes: Vec<String> = arguments.collect();
    let wanted = |entry: &&Entry| match keys.as_str() {
        "" | "approximate" => !entry.exact,
        keys => keys.split(',').any(|key| key == entry.key),
    };
    for entry in REGISTRY.iter().filter(wanted) {
        for shape in SHAPES {
            if shapes.is_empty() || shapes.iter().any(|name| name == shape.name) {
                println!("{}", line(entry, shape, rows)?);
            }
        }
    }
    Ok(())
}

fn line(entry: &Entry, shape: &Shape, rows: usize) -> Result<String, Box<dyn Error>> {
    // Uniform data of the same size, on one thread as well.
    let uniform = find("uniform").ok_or("no shape \"uniform\"")?;
    let (_, usual_s) = built(entry, &uniform.sample(rows, 1, shape.dim, SEED))?;
    let sample = shape.sample(rows, QUERIES, shape.dim, SEED);
    let (index, build_s) = built(entry, &sample)?;
    let exact = BruteForce::build(Arc::new(sample.base), BruteForceParams::default())?;
    let mut recalls = Vec::new();
    let mut fewest = K;
    for k in [1, K] {
        let found = index.query_batch(&sample.queries, k)?;
        recalls.push(recall(&found, &exact.query_batch(&sample.queries, k)?, k));
        if k == K {
            fewest = found.iter().map(<[Neighbor]>::len).min().unwrap_or(K);
        }
    }
    let (name, key, ratio) = (shape.name, entry.key, build_s / usual_s);
    let figures = format!("{:.4} {:.4} {fewest:>3}", recalls[0], recalls[1]);
    Ok(format!(
        "{key:<16} {name:<18} {figures} {build_s:>8.2} s {ratio:>7.1} x"
    ))
}

/// An index at its default parameters, and the seconds of its build on one thread.
fn built(entry: &Entry, sample: &Sample) -> Result<(Box<dyn Index>, f64), Box<dyn Error>> {
    let (base, defaults) = (Arc::new(sample.base.clone()), Settings::default());
    let start = Instant::now();
    let index = on_threads(1, || (entry.build)(base, &defaults)?(&defaults))??;
    Ok((index, start.elapsed().as_secs_f64()))
}
