//! Both engines against the naive scan, on data that graphs find hard.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::index::support::test_data::{clustered, recall, rounded};
use crate::index::{BruteForce, BruteForceParams, Query};

fn hnsw(base: &Arc<Vectors>) -> Hnsw {
    Hnsw::build(base.clone(), HnswParams::default()).unwrap()
}

fn both(base: &Arc<Vectors>) -> [Box<dyn Index>; 2] {
    let params = InstantDistanceParams::default();
    let instant = InstantDistance::build(base.clone(), params).unwrap();
    [Box::new(hnsw(base)), Box::new(instant)]
}

fn floats(dim: usize, values: Vec<f32>) -> Arc<Vectors> {
    Arc::new(Vectors::from_floats(dim, values).unwrap())
}

/// `n` rows of values between −1 and 1.
fn uniform(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n * dim).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Each of `rows` so many times, in turns.
fn copies(rows: &[f32], times: usize) -> Vec<f32> {
    rows.repeat(times)
}

/// The share of queries whose nearest neighbour is found, and of the ten nearest.
fn recalls(index: &dyn Index, base: &Arc<Vectors>, queries: &Vectors) -> [f64; 2] {
    [1, 10].map(|k| recall(index, base, queries, k))
}

#[test]
fn more_ef_search_finds_more() {
    let base = clustered(4_000, 60, 1);
    let queries = clustered(200, 60, 2);
    for base in [Arc::new(rounded(&base)), Arc::new(base)] {
        let hnsw = hnsw(&base);
        let [few, many] = [10, 200].map(|ef_search| {
            let index = hnsw.with_search(HnswSearch { ef_search }).unwrap();
            recall(&index, &base, &queries, 10)
        });
        assert!(few > 0.7 && few < many && many > 0.995, "{few} {many}");
    }
}

#[test]
fn copies_are_found_in_the_order_of_ids() {
    // 40 rows, 50 copies of each: rows 0, 40, 80, … are equal.
    let rows = uniform(40, 5, 1);
    let base = floats(5, copies(&rows, 50));
    let scan = BruteForce::build(base.clone(), BruteForceParams::default()).unwrap();
    for index in both(&base) {
        for k in [1, 7, 50, 51, 100, 1_999, 2_000, 2_001] {
            let query = &rows[15..20];
            assert_eq!(
                index.query(query, k),
                scan.query(query, k),
                "{} {k}",
                index.name()
            );
        }
    }
}

#[test]
fn as_many_are_found_as_there_are() {
    // Enough nodes that no search scans, in two clusters far apart.
    let mut values = uniform(1_500, 6, 1);
    values
        .iter_mut()
        .skip(750 * 6)
        .for_each(|value| *value += 1e4);
    values.extend([0.25; 6].repeat(300));
    let base = floats(6, values);
    for index in both(&base) {
        for k in [1, 10, 100, 400, 749, 1_799, 1_800, 5_000] {
            let found = index.query(&[0.5; 6], k).unwrap();
            let ids: BTreeSet<u32> = found.iter().map(|found| found.id).collect();
            assert_eq!(ids.len(), k.min(1_800), "{} {k}", index.name());
            assert!(found.is_sorted_by(|a, b| (a.distance, a.id) < (b.distance, b.id)));
        }
    }
}

#[test]
fn hard_shapes_keep_their_recall() {
    let n = 3_000;
    let dim = 24;
    let plain = uniform(n, dim, 1);
    let shape = |change: &dyn Fn(usize, f32) -> f32| {
        let values = plain.iter().enumerate();
        values
            .map(|(i, &value)| change(i / dim, value))
            .collect::<Vec<_>>()
    };
    let shapes = [
        (
            "one row far out",
            shape(&|row, value| if row == 7 { 1e6 * value } else { value }),
        ),
        (
            "two far clusters",
            shape(&|row, value| value + [1e4, -1e4][row % 2]),
        ),
        (
            "many clumps",
            shape(&|row, value| value * 1e-3 + (row % 60) as f32),
        ),
        (
            "half the rows zero",
            shape(&|row, value| if row % 2 == 0 { 0.0 } else { value }),
        ),
        ("tiny", shape(&|_, value| value * 1e-36)),
        ("huge", shape(&|_, value| value * 1e30)),
    ];
    for (name, values) in shapes {
        let base = floats(dim, values);
        // Queries near rows: a little off each thirtieth.
        let near = (0..100).flat_map(|i| base.row_to_floats(i * 30 + 11));
        let noise = uniform(100, dim, 2);
        let near = near
            .zip(noise)
            .map(|(value, noise)| value + value * noise * 0.1);
        let queries = Vectors::from_floats(dim, near.collect::<Vec<_>>()).unwrap();
        let [one, ten] = recalls(&hnsw(&base), &base, &queries);
        assert!(one >= 0.9 && ten >= 0.9, "{name}: {one} {ten}");
    }
}

#[test]
fn few_dimensions_keep_their_recall() {
    for dim in 1..=3 {
        let base = floats(dim, uniform(3_000, dim, 1));
        let queries = Vectors::from_floats(dim, uniform(100, dim, 2)).unwrap();
        for index in both(&base) {
            let [one, ten] = recalls(&*index, &base, &queries);
            assert!(
                one >= 0.9 && ten >= 0.9,
                "{} {dim}: {one} {ten}",
                index.name()
            );
        }
    }
}

#[test]
fn ten_thousand_rows_of_three_kinds_are_three_nodes() {
    let base = floats(4, copies(&uniform(3, 4, 1), 10_000 / 3));
    for index in both(&base) {
        let (found, visits) = index.query_counted(&base.row_to_floats(1), 5).unwrap();
        let ids: Vec<u32> = found.iter().map(|found| found.id).collect();
        assert_eq!(ids, [1, 4, 7, 10, 13]);
        assert!(visits.distances <= 3, "{visits:?}");
    }
}

#[test]
fn few_rows_are_looked_at() {
    let base = Arc::new(clustered(4_000, 60, 1));
    for index in both(&base) {
        let (_, visits) = index.query_counted(&base.row_to_floats(7), 10).unwrap();
        assert!((10..2_000).contains(&visits.distances), "{visits:?}");
    }
}

#[test]
fn links_are_within_m_and_reach_every_row() {
    let mut values = clustered(2_000, 8, 1).to_floats();
    values.extend((0..40).flat_map(|i| [1e4 * i as f32; 8]));
    let base = floats(8, values);
    for m in [2, 5, 16] {
        let params = HnswParams {
            m,
            ..Default::default()
        };
        let hnsw = Hnsw::build(base.clone(), params).unwrap();
        let mut above = base.len();
        for layer in 0..hnsw.layers() {
            let links: Vec<(u32, u32)> = hnsw.links(layer).collect();
            let distinct: BTreeSet<_> = links.iter().copied().collect();
            assert_eq!(distinct.len(), links.len(), "a link is there once");
            assert!(links.iter().all(|(from, to)| from != to));
            let most = if layer == 0 { 2 * m } else { m };
            let rows: BTreeSet<u32> = links.iter().flat_map(|&(from, to)| [from, to]).collect();
            for &row in &rows {
                assert!(links.iter().filter(|link| link.0 == row).count() <= most);
            }
            // The layer's entry is node 0, the first that has links.
            let mut reached = BTreeSet::from([links[0].0]);
            let mut pending = vec![links[0].0];
            while let Some(row) = pending.pop() {
                for &(_, to) in links.iter().filter(|link| link.0 == row) {
                    if reached.insert(to) {
                        pending.push(to);
                    }
                }
            }
            assert_eq!(reached, rows, "m = {m}, layer {layer}");
            assert!(layer > 0 || rows.len() == base.len());
            assert!(rows.len() <= above, "a layer is a part of the one below");
            above = rows.len();
        }
    }
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    let base = Arc::new(clustered(2_000, 40, 1));
    let on = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let params = HnswParams {
                seed,
                ..Default::default()
            };
            Hnsw::build(base.clone(), params)
                .unwrap()
                .links(0)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(on(1, 5), on(3, 5));
    assert_ne!(on(1, 5), on(1, 6));
}

#[test]
fn refuses_what_is_out_of_range() {
    let base = Arc::new(clustered(20, 3, 1));
    let name = |error: BuildError| match error {
        BuildError::InvalidParameter { name, .. } => name,
        other => panic!("{other}"),
    };
    let build = |m, ef_construction| {
        let params = HnswParams {
            m,
            ef_construction,
            seed: 0,
        };
        name(Hnsw::build(base.clone(), params).unwrap_err())
    };
    assert_eq!((build(1, 9), build(4, 0)), ("m", "ef_construction"));
    let refused = hnsw(&base).with_search(HnswSearch { ef_search: 0 });
    assert_eq!(name(refused.unwrap_err()), "ef_search");
}
