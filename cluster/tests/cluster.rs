//! On a cluster of one machine: the answer is that of one process, line by line.

mod common;

use std::path::Path;
use std::process::Output;

use common::{Cluster, answer, assert_same, program, shards, text, ties, truth};
use fashion_knn::fashion;
use fashion_knn::vectors::Vectors;

/// A query to a scheduler.
fn ask(address: &str, base: &Path, queries: &Path, out: &Path, more: &[&str]) -> Output {
    program()
        .args(["query", "--scheduler", address, "--base"])
        .arg(base)
        .arg("--queries")
        .arg(queries)
        .arg("--out")
        .arg(out)
        .args(more)
        .output()
        .unwrap()
}

/// S1: Fashion-MNIST, 8 shards, 2 executors, 10,000 queries.
#[test]
fn fashion_mnist() {
    let images = fashion::load().expect("Fashion-MNIST: run `make fetch`");
    let (base, queries) = (images.train, images.test);
    let folder = tempfile::tempdir().unwrap();
    let base_at = shards(folder.path(), "base", &base, 8);
    let queries_at = shards(folder.path(), "queries", &queries, 1);
    let out = folder.path().join("answer.parquet");
    for scheduling in ["push", "pull"] {
        let cluster = Cluster::start(2, scheduling);
        for k in [10, 100] {
            let k_text = k.to_string();
            let output = ask(
                &cluster.address(),
                &base_at,
                &queries_at,
                &out,
                &["--k", &k_text],
            );
            assert!(output.status.success(), "{}", text(&output.stderr));
            let what = format!("{scheduling}, k = {k}");
            assert_same(&answer(&out), &truth(&base, &queries, k), &what);
            println!(
                "{what}: {} lines are the same; {}",
                10_000 * k,
                text(&output.stdout).trim()
            );
        }
    }
}

#[test]
fn floats_with_ties_and_other_indexes() {
    let scaled = |bytes: Vec<u8>| {
        bytes
            .into_iter()
            .map(|byte| f32::from(byte) * 0.1)
            .collect::<Vec<_>>()
    };
    let base = Vectors::from_floats(6, scaled(ties(8_000, 6, 1))).unwrap();
    let queries = Vectors::from_floats(6, scaled(ties(200, 6, 2))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let base_at = shards(folder.path(), "base", &base, 8);
    let queries_at = shards(folder.path(), "queries", &queries, 3);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(2, "push");
    let truth = truth(&base, &queries, 10);
    // The queries in one stage with the search, and in a stage of their own; the second time the
    // indexes are there.
    for more in [
        &[][..],
        &["--three-stages"],
        &["--index", "va_file"],
        &["--index", "va_file"],
    ] {
        let output = ask(&cluster.address(), &base_at, &queries_at, &out, more);
        assert!(
            output.status.success(),
            "{more:?}: {}",
            text(&output.stderr)
        );
        assert_same(&answer(&out), &truth, &format!("{more:?}"));
    }
}

#[test]
fn bad_rows_are_named_by_the_executor_that_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(4, ties(100, 4, 1)).unwrap();
    let base_at = shards(folder.path(), "base", &base, 2);
    let queries_at = shards(folder.path(), "queries", &base, 1);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(1, "push");
    let output = ask(
        &cluster.address(),
        &base_at,
        &queries_at,
        &out,
        &["--index", "ivf_flat nlist=1.5"],
    );
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(
        error.contains("nlist is 1.5") && error.contains("part-0000"),
        "{error}"
    );

    // A page that was damaged on the way: its footer is whole, and its rows are not.
    let shard = base_at.join("part-00001.parquet");
    let mut bytes = std::fs::read(&shard).unwrap();
    for byte in &mut bytes[4..60] {
        *byte ^= 0xff;
    }
    std::fs::write(&shard, bytes).unwrap();
    let output = ask(
        &cluster.address(),
        &base_at,
        &queries_at,
        &out,
        &["--retries", "0"],
    );
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(error.contains("part-00001.parquet"), "{error}");
}

#[test]
fn nobody_listens_or_the_scheduler_dies() {
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(4, ties(100, 4, 1)).unwrap();
    let base_at = shards(folder.path(), "base", &base, 2);
    let queries_at = shards(folder.path(), "queries", &base, 1);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(1, "push");
    let address = cluster.address();
    drop(cluster);
    let output = ask(&address, &base_at, &queries_at, &out, &["--retries", "1"]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(
        error.contains("2 attempts have failed") && error.contains("onnect"),
        "{error}"
    );
}
