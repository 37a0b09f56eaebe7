//! Few rows of many values: no index may take what a d × d matrix takes.

use std::sync::Arc;

use fashion_knn::index::registry::{REGISTRY, Settings};
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
use fashion_knn::vectors::Vectors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROWS: usize = 100;
const DIM: usize = 10_000;
const K: usize = 10;

fn table(rows: usize, seed: u64) -> Vectors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..rows * DIM).map(|_| rng.random_range(-1.0..1.0));
    Vectors::from_floats(DIM, values.collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_hundred_rows_of_ten_thousand_values() {
    let (base, queries) = (Arc::new(table(ROWS, 1)), table(5, 2));
    let scan = BruteForce::build(Arc::clone(&base), BruteForceParams::default()).unwrap();
    let expected = scan.query_batch(&queries, K).unwrap();
    for entry in REGISTRY {
        let built = (entry.build)(Arc::clone(&base), &Settings::default()).unwrap();
        let index = built(&Settings::default()).unwrap();
        // A 10,000 × 10,000 matrix of floats is 400 MB.
        let bytes = index.memory_bytes() - base.memory_bytes().min(index.memory_bytes());
        assert!(bytes < 50_000_000, "{}: {bytes} bytes", entry.name);
        let found = index.query_batch(&queries, K).unwrap();
        for row in 0..queries.len() {
            assert_eq!(found.row(row).len(), K, "{}", entry.name);
            if entry.exact {
                assert_eq!(found.row(row), expected.row(row), "{}", entry.name);
            }
        }
    }
}
