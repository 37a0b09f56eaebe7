//! The real data: the neighbours of all 10,000 test images, and the accuracies that follow.
//!
//! Nothing else shows that the report's figures are right. The tests are ignored where nobody asks
//! for them, since they need Fashion-MNIST: `cargo run --bin fetch` finds or fetches it, and
//! `cargo test -- --ignored` or `make test` then runs them.

use std::sync::{Arc, OnceLock};

use fashion_knn::prelude::*;
use ndarray::{ArrayView1, Axis};
use rayon::prelude::*;

fn data() -> &'static Fashion {
    static DATA: OnceLock<Fashion> = OnceLock::new();
    DATA.get_or_init(|| fashion::load().unwrap())
}

/// The k nearest as (squared distance, id), from |q − x|² = |q|² − 2 q·x + |x|².
///
/// The products are those of ndarray, in f64: sums of integers below 2²⁶, so exact in any order.
/// It shares nothing with the crate's kernels.
fn oracle(base: &Vectors, queries: &Vectors, k: usize) -> Vec<Vec<(f64, u32)>> {
    let rows = base.to_array().mapv(f64::from);
    let square = |row: ArrayView1<'_, f64>| row.dot(&row);
    let row_squares: Vec<f64> = rows.outer_iter().map(square).collect();
    let queries = queries.to_array().mapv(f64::from);
    let blocks: Vec<_> = queries.axis_chunks_iter(Axis(0), 100).collect();
    let answers = blocks.into_par_iter().flat_map_iter(|block| {
        let products = block.dot(&rows.t());
        let answer = |(query, products): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| {
            let query_square = square(query);
            let pairs = products.iter().zip(&row_squares).zip(0..);
            let distance = |((product, row_square), id): ((&f64, &f64), u32)| {
                (query_square - 2.0 * product + row_square, id)
            };
            let mut all: Vec<(f64, u32)> = pairs.map(distance).collect();
            let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            all.select_nth_unstable_by(k, order);
            all.truncate(k);
            all.sort_unstable_by(order);
            all
        };
        let rows = block.outer_iter().zip(products.outer_iter());
        rows.map(answer).collect::<Vec<_>>()
    });
    answers.collect()
}

/// Every exact index, ids and distances, for 1, 10 and 100 neighbours.
#[test]
#[ignore = "needs Fashion-MNIST"]
fn exact_indexes_find_the_oracles_neighbours_for_every_test_image() {
    let data = data();
    let expected: Neighbors = oracle(&data.train, &data.test, 100)
        .into_iter()
        .map(|row| {
            row.into_iter()
                .map(|(square, id)| Neighbor {
                    id,
                    distance: square.sqrt(),
                })
                .collect()
        })
        .collect();
    for entry in registry::REGISTRY.iter().filter(|entry| entry.exact) {
        let index =
            (entry.build)(data.train.clone(), &Settings::default()).unwrap()(&Settings::default())
                .unwrap();
        for k in [1, 10, 100] {
            let (found, expected) = (
                index.query_batch(&data.test, k).unwrap(),
                expected.truncated(k),
            );
            assert_eq!(found.len(), 10_000);
            for (query, (found, expected)) in found.iter().zip(expected.iter()).enumerate() {
                assert_eq!(found, expected, "{}, k = {k}, query {query}", entry.key);
            }
            // One query a call is another path.
            for query in (0..10_000).step_by(100) {
                let found = index.query(&data.test.row_to_floats(query), k).unwrap();
                assert_eq!(
                    found,
                    expected.row(query),
                    "{}, k = {k}, query {query}, alone",
                    entry.key
                );
            }
        }
    }
    accuracies_are_those_of_scikit_learn(&expected);
}

/// The accuracies over all 60,000 training and 10,000 test images are those that scikit-learn's
/// `KNeighborsClassifier` gives on exact neighbours (its accuracies have four decimals: 10,000
/// images).
fn accuracies_are_those_of_scikit_learn(found: &Neighbors) {
    let uniform = [
        (1, 0.8497),
        (3, 0.8541),
        (5, 0.8554),
        (7, 0.8540),
        (9, 0.8519),
        (11, 0.8495),
        (15, 0.8462),
        (21, 0.8407),
    ];
    let distance = [(3, 0.8561), (5, 0.8577), (7, 0.8541), (9, 0.8530)];
    for (weights, table) in [
        (Weights::Uniform, &uniform[..]),
        (Weights::Distance, &distance[..]),
    ] {
        for &(k, expected) in table {
            let got = accuracy(
                &weights.vote_rows(found, k, &data().train_labels),
                &data().test_labels,
            );
            assert!(
                (got - expected).abs() < 1e-9,
                "{} k = {k}: {got}, expected {expected}",
                weights.name()
            );
        }
    }
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn the_classifier_is_the_vote_over_the_index() {
    let data = data();
    let index = Arc::new(
        BruteForce::build(
            Arc::new(data.train.head(5_000)),
            BruteForceParams {
                metric: Metric::Manhattan,
            },
        )
        .unwrap(),
    );
    let labels: Arc<[u8]> = data.train_labels[..5_000].into();
    let queries = data.test.head(200);
    let voted = Weights::Distance.vote_rows(&index.query_batch(&queries, 5).unwrap(), 5, &labels);
    let knn = KnnClassifier::new(index, labels, Weights::Distance).unwrap();
    assert_eq!(knn.predict(&queries, 5).unwrap(), voted);
    assert!(accuracy(&voted, &data.test_labels[..200]) > 0.7);
}
