//! How fast is a batch of brute-force queries? `tools/cell_speed.py` runs this same text in a
//! notebook's cell and compares.

fn main() {
    use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
    use fashion_knn::vectors::Vectors;
    use std::sync::Arc;

    // 60,000 images of noise, from a linear congruential generator: the time does not depend on
    // what is in them.
    let mut state = 1u64;
    let mut noise = |count: usize| -> Vec<u8> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..count * 784).map(|_| next()).collect()
    };
    let base = Arc::new(Vectors::from_bytes(784, noise(60_000)).expect("60,000 rows of 784"));
    let queries = Vectors::from_bytes(784, noise(1_000)).expect("1,000 rows of 784");
    let index = BruteForce::build(base, BruteForceParams::default()).expect("it is not empty");
    for _ in 0..7 {
        let start = std::time::Instant::now();
        let found = index
            .query_batch(&queries, 10)
            .expect("queries of 784 dimensions");
        println!(
            "{} queries in {:.4} s",
            found.len(),
            start.elapsed().as_secs_f64()
        );
    }
}
