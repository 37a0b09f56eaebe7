//! Search vectors of your own, n × d: a file of any format that `Vectors::read` knows.
//!
//! ```sh
//! cargo run --release --example own_vectors -- mine.npy
//! ```
//!
//! Without an argument it makes a small `.npy` file in a temporary folder and searches that.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use fashion_knn::index::registry::{self, Entry};
use fashion_knn::prelude::*;
use ndarray::Array2;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = match env::args_os().nth(1) {
        Some(named) => PathBuf::from(named),
        None => made(folder.path())?,
    };

    // Bytes stay bytes, other numbers become 32-bit floats. A value that is not finite is an error.
    // Of a file with several arrays one is named, as in `mine.npz:words` or `glove.hdf5:train`.
    let all = Vectors::read(&path)?;
    println!("{}: {} × {}", path.display(), all.len(), all.dim());
    // The last hundredth are queries, the rest is the base: a query must not be in the base, or
    // the nearest to it is itself.
    let held_out = (all.len() / 100).max(1);
    let query_rows: Vec<usize> = (all.len() - held_out..all.len()).collect();
    let (base, queries) = all.hold_out(&query_rows)?;
    let base = Arc::new(base);

    // Which setting of a fast index finds 95 in 100 of the true neighbours?
    let entry: &Entry = registry::find("quantized_graph").expect("an index of the registry");
    let target = Target {
        k: 10,
        recall: 0.95,
        ..Target::default()
    };
    let tuned = tune(entry, &base, &Settings::default(), &target)?;
    println!("{} with {} is enough", entry.name, tuned.settings);

    // Build it over all of the base, and see what it does on the queries.
    let built = (entry.build)(Arc::clone(&base), &Settings::default())?;
    let index = built(&tuned.settings)?;
    let exact = BruteForce::build(Arc::clone(&base), BruteForceParams::default())?;
    let truth = exact.query_batch(&queries, target.k)?;
    let timed = time_queries(&*index, &queries, target.k)?;
    println!(
        "recall {:.3} on {} queries, {:.0} queries a second",
        recall(&timed.neighbors, &truth, target.k),
        queries.len(),
        timed.queries_per_second(),
    );
    Ok(())
}

/// Writes 5,000 vectors of 32 floats, as NumPy would, and returns the file.
fn made(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let wave = |(row, column): (usize, usize)| {
        let phase = (row * 7_919 % 5_000) as f32 / 800.0;
        (phase * (1 + column % 5) as f32).sin()
            + 0.1 * ((row * 31 + column * 17) % 97) as f32 / 97.0
    };
    let values = Array2::from_shape_fn((5_000, 32), wave);
    let path = folder.join("made.npy");
    ndarray_npy::write_npy(&path, &values)?;
    Ok(path)
}
