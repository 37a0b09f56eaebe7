//! Build an index, ask it, and trade recall for speed. Needs no data set and no feature:
//!
//! ```sh
//! cargo run --release --no-default-features --example build_and_query
//! ```

use std::error::Error;

use fashion_knn::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    // Six points in the plane, two floats each: n = 6, d = 2.
    #[rustfmt::skip]
    let points = vec![
        0.0, 0.0,
        4.0, 0.0,
        0.0, 3.0,
        4.0, 3.0,
        9.0, 9.0,
        8.0, 9.0,
    ];
    let base = Arc::new(Vectors::from_floats(2, points)?);

    // An exact index. The base is shared behind the `Arc`, not copied.
    let params = BruteForceParams {
        metric: Metric::Euclidean,
    };
    let exact = BruteForce::build(Arc::clone(&base), params)?;
    println!("The 3 nearest to (8, 8):");
    for neighbor in exact.query(&[8.0, 8.0], 3)? {
        let point = base.row_to_floats(neighbor.id as usize);
        println!("  {point:?} at distance {:.3}", neighbor.distance);
    }

    // An approximate index over 2,000 rows of 32 bytes. What costs a new build stands in its
    // params, what a search may change in its search parameters.
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    let values: Vec<u8> = (0..64_000).map(|i| noise(i * i)).collect();
    let base = Arc::new(Vectors::from_bytes(32, values)?);
    let params = AnnoyParams {
        n_trees: 10,
        ..AnnoyParams::default()
    };
    let annoy = Annoy::build(Arc::clone(&base), params)?;
    // Two indexes over one forest: nothing is built again.
    let hasty = annoy.with_search(AnnoySearch { search_k: 50 })?;
    let careful = annoy.with_search(AnnoySearch { search_k: 2_000 })?;
    let query = base.row(42);
    for index in [hasty, careful] {
        let (nearest, visits) = index.query_counted(query, 5)?;
        let ids: Vec<u32> = nearest.iter().map(|neighbor| neighbor.id).collect();
        println!("Annoy looked at {} rows: {ids:?}", visits.bounds);
    }

    // Bad input is an error that says what was expected.
    if let Err(error) = exact.query(&[1.0, 2.0, 3.0], 1) {
        println!("A query of three values: {error}");
    }
    Ok(())
}
