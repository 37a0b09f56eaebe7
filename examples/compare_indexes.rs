//! Every index of the registry on the same generated vectors: recall, queries per second, memory.
//!
//! ```sh
//! cargo run --release --no-default-features --example compare_indexes
//! ```
//!
//! The vectors are clusters in 64 dimensions. Other data give other figures: for yours, see the
//! example `own_vectors`.

use std::error::Error;
use std::time::Instant;

use fashion_knn::index::registry::{Entry, REGISTRY};
use fashion_knn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 64;
const BASE: usize = 10_000;
const QUERIES: usize = 500;
const CLUSTERS: usize = 100;
/// How far the rows of a cluster lie from its centre, where centres are within 1: the clusters
/// overlap.
const SPREAD: f32 = 1.5;
const K: usize = 10;

/// A base, queries that are not in it, and the true neighbours of each query.
struct Problem {
    base: Arc<Vectors>,
    queries: Vectors,
    truth: Neighbors,
}

fn main() -> Result<(), Box<dyn Error>> {
    let problem = problem()?;
    println!("{BASE} vectors of {DIM} floats, {QUERIES} queries, k = {K}, default parameters\n");
    println!("index             recall   queries/s   build s      MB");
    for entry in REGISTRY {
        compare(entry, &problem)?;
    }
    Ok(())
}

/// Builds one index with its defaults, asks it all queries one by one, and prints a line.
fn compare(entry: &Entry, problem: &Problem) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    // Two steps: what is built, then how it is searched. Empty settings are the defaults.
    let built = (entry.build)(Arc::clone(&problem.base), &Settings::default())?;
    let build_seconds = start.elapsed().as_secs_f64();
    let index: Box<dyn Index> = built(&Settings::default())?;

    let timed = time_queries(&*index, &problem.queries, K)?;
    println!(
        "{:16}  {:6.4}  {:10.0}  {build_seconds:8.2}  {:6.1}",
        entry.name,
        recall(&timed.neighbors, &problem.truth, K),
        timed.queries_per_second(),
        index.memory_bytes() as f64 / 1e6,
    );
    Ok(())
}

/// Rows around random centres, and what brute force finds among them.
fn problem() -> Result<Problem, Box<dyn Error>> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let centres: Vec<f32> = (0..CLUSTERS * DIM).map(|_| random.random()).collect();
    let mut rows = |count: usize| {
        let mut values = Vec::with_capacity(count * DIM);
        for _ in 0..count {
            let cluster = random.random_range(0..CLUSTERS);
            for centre in &centres[cluster * DIM..][..DIM] {
                values.push(centre + SPREAD * random.random::<f32>());
            }
        }
        Vectors::from_floats(DIM, values)
    };
    let base = Arc::new(rows(BASE)?);
    let queries = rows(QUERIES)?;
    let exact = BruteForce::build(Arc::clone(&base), BruteForceParams::default())?;
    let truth = exact.query_batch(&queries, K)?;
    Ok(Problem {
        base,
        queries,
        truth,
    })
}
