//! Data with the structure of real data (clusters of low rank, plus noise), and recall against
//! exhaustive search.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::distance::Metric;
use crate::index::{BruteForce, BruteForceParams, Build, Index, Query};
use crate::vectors::Vectors;

/// `n` rows of `dim` values in 0..=255 around ten centres, spread along eight directions. Another
/// `seed` gives other rows of the same distribution.
pub fn clustered(n: usize, dim: usize, seed: u64) -> Vectors {
    // Centres and directions come from a seed of their own: bases and queries then have the same
    // distribution, whatever their seed.
    let mut fixed = ChaCha8Rng::seed_from_u64(99);
    let centres: Vec<f32> = (0..10 * dim)
        .map(|_| fixed.random_range(40.0..200.0))
        .collect();
    let directions: Vec<f32> = (0..8 * dim)
        .map(|_| fixed.random_range(-12.0..12.0))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let centre = rng.random_range(0..10);
        let weights: [f32; 8] = std::array::from_fn(|_| rng.random_range(-1.5..1.5));
        for column in 0..dim {
            let along: f32 = (0..8)
                .map(|i| weights[i] * directions[i * dim + column])
                .sum();
            let value = centres[centre * dim + column] + along + rng.random_range(-5.0..5.0);
            values.push(value.clamp(0.0, 255.0));
        }
    }
    Vectors::from_floats(dim, values).unwrap()
}

/// The same rows, rounded to bytes.
pub fn rounded(data: &Vectors) -> Vectors {
    Vectors::from_bytes(
        data.dim(),
        data.to_floats()
            .iter()
            .map(|value| value.round() as u8)
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

/// The part of the true `k` nearest that `index` finds, by distance; its distances must be true
/// ones.
pub fn recall(index: &dyn Index, base: &Arc<Vectors>, queries: &Vectors, k: usize) -> f64 {
    let truth = BruteForce::build(base.clone(), BruteForceParams::default())
        .unwrap()
        .query_batch(queries, k)
        .unwrap();
    let found = index.query_batch(queries, k).unwrap();
    let mut hits = 0;
    for query in 0..queries.len() {
        let (found, truth) = (found.row(query), truth.row(query));
        assert!(
            found.is_sorted_by(|a, b| (a.distance, a.id) < (b.distance, b.id)),
            "in order, each id once"
        );
        let row = queries.row_to_floats(query);
        for neighbor in found {
            let exact = Metric::Euclidean
                .reduced(&row, &base.row_to_floats(neighbor.id as usize))
                .sqrt();
            assert_eq!(neighbor.distance, exact, "true distances");
        }
        // By distance and not by id: of rows at equal distances any may be returned.
        let farthest = truth.last().unwrap().distance;
        hits += found
            .iter()
            .filter(|neighbor| neighbor.distance <= farthest)
            .count();
    }
    hits as f64 / (k * queries.len()) as f64
}
