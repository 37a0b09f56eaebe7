//! What `within` and the metrics cost: queries a second beside those of the 10 nearest by Euclidean
//! distance. One thread.
//!
//! ```sh
//! cargo run --release --no-default-features --features files --example metrics_speed -- \
//!     base.npy queries.npy
//! ```
//!
//! Without arguments it takes Fashion-MNIST's pixels.

use std::error::Error;
use std::time::Instant;

use fashion_knn::index::registry::{REGISTRY, Settings};
use fashion_knn::prelude::*;

/// Queries that are asked, at most.
const QUERIES: usize = 2_000;
const K: usize = 10;
/// The best of so many rounds counts.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let (base, queries) = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [base, queries] => (Vectors::read(base)?, Vectors::read(queries)?),
        [] => {
            let pixels = fashion::load()?;
            (Vectors::clone(&pixels.train), pixels.test.head(QUERIES))
        }
        _ => return Err("expected a file of the base and one of the queries, or nothing".into()),
    };
    let (base, queries) = (Arc::new(base), queries.head(QUERIES));
    println!("within the distance of the 10th neighbour, to the 10 nearest (L4: .8 and more)");
    for entry in REGISTRY.iter().filter(|entry| entry.exact) {
        let none = Settings::default();
        let index = (entry.build)(base.clone(), &none)?(&none)?;
        within(entry.name, index.as_ref(), &queries)?;
    }
    println!("by cosine, to Euclidean on the same normalised rows (L3: .9 and more)");
    let (unit_base, unit_queries) = (Arc::new(base.normalized()), queries.normalized());
    for entry in REGISTRY {
        let none = Settings::default();
        let plain = (entry.build)(unit_base.clone(), &none)?(&none)?;
        let cosine = (entry.build_under)(Metric::Cosine, unit_base.clone(), &none)?(&none)?;
        compared(entry.name, plain.as_ref(), cosine.as_ref(), &unit_queries)?;
    }
    Ok(())
}

/// Queries a second of the best round of `ask`, which is put each query's number.
fn per_second(
    queries: usize,
    mut ask: impl FnMut(usize) -> Result<(), QueryError>,
) -> Result<f64, QueryError> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..queries).try_for_each(&mut ask)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(queries as f64 / best)
}

fn within(name: &str, index: &dyn Index, queries: &Vectors) -> Result<(), QueryError> {
    let nearest = index.query_batch(queries, K)?;
    let radius = |row: usize| nearest.row(row).last().map_or(0.0, |last| last.distance);
    let search = |row| index.query(queries.row(row), K).map(drop);
    let search = per_second(queries.len(), search)?;
    let range = |row| index.within(queries.row(row), radius(row)).map(drop);
    let range = per_second(queries.len(), range)?;
    let share = range / search;
    println!("  {name:<12} {search:>8.0} {range:>8.0} queries/s: {share:.2}");
    Ok(())
}

fn compared(
    name: &str,
    plain: &dyn Index,
    cosine: &dyn Index,
    queries: &Vectors,
) -> Result<(), QueryError> {
    let speed = |index: &dyn Index| {
        per_second(queries.len(), |row| {
            index.query(queries.row(row), K).map(drop)
        })
    };
    let (plain, cosine) = (speed(plain)?, speed(cosine)?);
    let share = cosine / plain;
    println!("  {name:<12} {plain:>8.0} {cosine:>8.0} queries/s: {share:.2}");
    Ok(())
}
