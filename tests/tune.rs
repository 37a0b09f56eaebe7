//! Tuning keeps its word on queries that it has not seen, for every approximate index of the
//! registry. The data are Fashion-MNIST's: see `tests/fashion_mnist.rs`.

use std::sync::Arc;

use fashion_knn::fashion;
use fashion_knn::index::registry::{REGISTRY, Settings};
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
use fashion_knn::lab::evaluate::recall;
use fashion_knn::lab::tune::{Target, Tuner};
use fashion_knn::math::pca::Pca;
use fashion_knn::vectors::Vectors;

/// For recall .90, .95 and .99: what the tuned index finds of the queries' neighbours is at least
/// that, less .01.
fn reaches_what_was_asked(base: &Arc<Vectors>, queries: &Vectors) {
    let k = 10;
    let truth = BruteForce::build(base.clone(), BruteForceParams::default())
        .unwrap()
        .query_batch(queries, k)
        .unwrap();
    for entry in REGISTRY.iter().filter(|entry| !entry.exact) {
        let built = (entry.build)(base.clone(), &Settings::default()).unwrap();
        let target = Target {
            k,
            ..Target::default()
        };
        let tuner = Tuner::new(entry, base, &Settings::default(), &target).unwrap();
        for wanted in [0.90, 0.95, 0.99] {
            let tuned = tuner.reach(wanted).unwrap();
            let found = built(&tuned.settings)
                .unwrap()
                .query_batch(queries, k)
                .unwrap();
            let reached = recall(&found, &truth, k);
            assert!(
                reached >= wanted - 0.01,
                "{} at {wanted}: {reached} with {:?}",
                entry.key,
                tuned.settings
            );
        }
    }
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn on_pixels() {
    let data = fashion::load().unwrap();
    reaches_what_was_asked(&Arc::new(data.train.head(10_000)), &data.test.head(1_000));
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn on_floats() {
    let data = fashion::load().unwrap();
    let (base, queries) = (data.train.head(10_000), data.test.head(1_000));
    let pca = Pca::fit(&base, &Default::default()).unwrap();
    let project = |rows: &Vectors| {
        let floats = pca
            .project_all(rows, 48)
            .iter()
            .map(|&value| value as f32)
            .collect::<Vec<_>>();
        Vectors::from_floats(48, floats).unwrap()
    };
    reaches_what_was_asked(&Arc::new(project(&base)), &project(&queries));
}
