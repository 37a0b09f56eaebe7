//! S4: a base that is larger than the memory of an executor may be.
//!
//! ```sh
//! KNN_CLUSTER_GIGABYTES=10 cargo test --release --test memory -- --nocapture
//! ```

mod common;

use std::time::Instant;

use common::{Cluster, answer, assert_same, program, succeed, text};
use knn_cluster::command::shard::Data;

const DIM: usize = 784;
const QUERIES: usize = 20;
const K: usize = 10;
/// How much an executor may use: 4 GB, or for a smaller base a small part of it and what the engine
/// takes in any case.
const MOST_BYTES: u64 = 4_000_000_000;

/// The k nearest of each query by a plain loop over all rows: (squared distance, id).
fn plain(base: &Data, rows: u64, queries: &Data) -> Vec<Vec<(u32, u64)>> {
    let queries = queries.load(0..QUERIES as u64).unwrap();
    let mut nearest = vec![Vec::new(); QUERIES];
    let step = 10_000;
    for first in (0..rows).step_by(step) {
        let block = base.load(first..rows.min(first + step as u64)).unwrap();
        let look = |query: usize, nearest: &mut Vec<(u32, u64)>| {
            let query = queries.row_bytes(query).unwrap();
            for (id, row) in (first..).zip(block.bytes().unwrap().chunks_exact(DIM)) {
                let terms = row
                    .iter()
                    .zip(query)
                    .map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2));
                nearest.push((terms.sum::<u32>(), id));
            }
            nearest.sort_unstable();
            nearest.truncate(K);
        };
        // Ten gigabytes take a while: half of the queries on another thread.
        let (left, right) = nearest.split_at_mut(QUERIES / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                left.iter_mut()
                    .enumerate()
                    .for_each(|(at, row)| look(at, row))
            });
            for (at, row) in (QUERIES / 2..).zip(right) {
                look(at, row);
            }
        });
    }
    nearest
}

/// The most memory that a process has had, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[test]
fn a_base_of_many_gigabytes() {
    let gigabytes = std::env::var("KNN_CLUSTER_GIGABYTES");
    let gigabytes: f64 = gigabytes.map_or(0.5, |text| text.parse().expect("a number"));
    let rows = (gigabytes * 1e9 / DIM as f64) as u64;
    // A shard of some 100 MB.
    let shards = (rows / 130_000).max(4);
    let (base, queries) = (
        format!("random:{rows}x{DIM}:1"),
        format!("random:{QUERIES}x{DIM}:2"),
    );
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (base_at, queries_at, out) = (at("base"), at("queries"), at("answer.parquet"));
    succeed(&format!(
        "shard --data {base} --shards {shards} --out {base_at}"
    ));
    succeed(&format!("shard --data {queries} --out {queries_at}"));
    let cluster = Cluster::start(2, "push");
    let started = Instant::now();
    let output = program()
        .args([
            "query",
            "--scheduler",
            &cluster.address(),
            "--base",
            &base_at,
        ])
        .args(["--queries", &queries_at, "--out", &out])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let took = started.elapsed().as_secs_f64();
    let truth = plain(&base.parse().unwrap(), rows, &queries.parse().unwrap());
    let lines = truth.iter().enumerate().flat_map(|(query, row)| {
        row.iter().zip(1..).map(move |(&(squared, id), rank)| {
            (query as u64, rank, id, f64::from(squared).sqrt().to_bits())
        })
    });
    let lines: Vec<common::Line> = lines.collect();
    assert_same(&answer(out.as_ref()), &lines, "a plain loop");
    let most = cluster
        .executors
        .iter()
        .map(|executor| peak(executor.id()))
        .max()
        .unwrap();
    println!(
        "{gigabytes} GB, {rows} rows, {shards} shards, {QUERIES} queries: {took:.0} s, \
         at most {:.2} GB in an executor, all lines those of a plain loop",
        most as f64 / 1e9
    );
    assert!(most < MOST_BYTES.min(1_000_000_000 + (gigabytes * 0.4e9) as u64));
}
