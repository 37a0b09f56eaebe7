//! Tuning keeps its word on queries that it has not seen, for every approximate index of the
//! registry. Most of the data are Fashion-MNIST's: see `tests/fashion_mnist.rs`.

use std::sync::Arc;

use fashion_knn::fashion;
use fashion_knn::index::registry::{self, REGISTRY, Settings};
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
use fashion_knn::lab::evaluate::recall;
use fashion_knn::lab::shapes;
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

/// All distances are below a thousandth.
#[test]
fn on_small_values() {
    let sample = shapes::find("low_rank")
        .unwrap()
        .sample(4_000, 1_000, 32, 1);
    let small = |vectors: &Vectors| {
        let values = vectors.to_floats();
        let values: Vec<f32> = values.iter().map(|value| value * 1e-5).collect();
        Vectors::from_floats(vectors.dim(), values).unwrap()
    };
    reaches_what_was_asked(&Arc::new(small(&sample.base)), &small(&sample.queries));
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

/// Such an index takes no `refine` but 0: the lists searched are what can be moved.
#[test]
fn an_index_that_did_not_keep_the_vectors() {
    let ivf_pq = registry::find("ivf_pq").unwrap();
    let sample = shapes::find("low_rank").unwrap().sample(4_000, 10, 32, 1);
    let build = "keep_vectors=0".parse().unwrap();
    let target = Target {
        held_out: 200,
        ..Target::default()
    };
    let tuner = Tuner::new(ivf_pq, &sample.base, &build, &target).unwrap();
    // What codes alone find is not enough for more.
    let tuned = tuner.reach(0.5).unwrap();
    assert!(tuned.recall >= 0.5);
    let settings = tuned.settings.to_string();
    assert!(settings.ends_with("refine=0"), "{settings}");
}
