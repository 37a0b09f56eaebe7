//! The exact trees, at any of their parameters, against integer arithmetic.

use std::sync::Arc;

use fashion_knn::distance::Metric;
use fashion_knn::index::{
    Annoy, AnnoyParams, AnnoySearch, BallTree, BallTreeParams, Build, Index, KdTree, KdTreeParams,
    Query,
};
use fashion_knn::vectors::Vectors;
use proptest::prelude::*;

/// Rows of small integers, so that ties abound, times a power of two: exact in f32 at any
/// magnitude.
#[derive(Debug, Clone)]
struct Table {
    dim: usize,
    base: Vec<i32>,
    query: Vec<i32>,
    exponent: i32,
}

impl Table {
    fn scaled(&self, values: &[i32]) -> Vec<f32> {
        values
            .iter()
            .map(|&value| value as f32 * 2f32.powi(self.exponent))
            .collect()
    }

    fn base(&self) -> Arc<Vectors> {
        Arc::new(Vectors::from_floats(self.dim, self.scaled(&self.base)).unwrap())
    }

    /// Ids and distances of the k nearest, from the definition in integers.
    fn nearest(&self, metric: Metric, k: usize) -> Vec<(u32, f64)> {
        let mut all: Vec<(i64, u32)> = (0..)
            .zip(self.base.chunks(self.dim))
            .map(|(id, row)| {
                let differences = row.iter().zip(&self.query).map(|(a, b)| i64::from(a - b));
                let reduced = if metric == Metric::Manhattan {
                    differences.map(i64::abs).sum()
                } else {
                    differences.map(|d| d * d).sum()
                };
                (reduced, id)
            })
            .collect();
        all.sort_unstable();
        all.truncate(k);
        let unit = 2f64.powi(self.exponent);
        all.into_iter()
            .map(|(reduced, id)| {
                let distance = if metric == Metric::Manhattan {
                    reduced as f64
                } else {
                    (reduced as f64).sqrt()
                };
                (id, distance * unit)
            })
            .collect()
    }
}

fn tables() -> impl Strategy<Value = Table> {
    (1usize..40, 1usize..300, 1i32..200, -60i32..60).prop_flat_map(
        |(dim, rows, range, exponent)| {
            let values = move |count| prop::collection::vec(-range..=range, count);
            // A query may lie far outside of the data.
            (
                values(dim * rows),
                values(dim),
                prop_oneof![Just(1), Just(1), Just(50)],
            )
                .prop_map(move |(base, query, far)| Table {
                    dim,
                    base,
                    query: query.into_iter().map(|value| value * far).collect(),
                    exponent,
                })
        },
    )
}

fn metrics() -> impl Strategy<Value = Metric> {
    prop_oneof![Just(Metric::Euclidean), Just(Metric::Manhattan)]
}

fn found(index: &impl Index, table: &Table, k: usize) -> Vec<(u32, f64)> {
    let neighbors = index.query(&table.scaled(&table.query), k).unwrap();
    neighbors
        .into_iter()
        .map(|neighbor| (neighbor.id, neighbor.distance))
        .collect()
}

proptest! {
    #[test]
    fn ball_tree_is_exact(
        table in tables(), metric in metrics(), leaf_size in 1usize..80,
        components in 1usize..50, k in 1usize..20,
    ) {
        let params = BallTreeParams { leaf_size, components, metric };
        let tree = BallTree::build(table.base(), params).unwrap();
        prop_assert_eq!(found(&tree, &table, k), table.nearest(metric, k));
    }

    #[test]
    fn kd_tree_is_exact(
        table in tables(), leaf_size in prop::sample::select(&[16usize, 32, 128]),
        components in prop::sample::select(&[4usize, 8, 16, 32]), k in 1usize..20,
    ) {
        let tree = KdTree::build(table.base(), KdTreeParams { leaf_size, components }).unwrap();
        prop_assert_eq!(found(&tree, &table, k), table.nearest(Metric::Euclidean, k));
    }

    /// A forest that collects every row has compared every row.
    #[test]
    fn annoy_is_exact_where_it_collects_all(
        table in tables(), n_trees in 1usize..6, seed in 0u64..9, k in 1usize..20,
    ) {
        let rows = table.base().len();
        let forest = Annoy::build(table.base(), AnnoyParams { n_trees, seed }).unwrap();
        let all = AnnoySearch { search_k: rows * n_trees };
        let forest = forest.with_search(all).unwrap();
        prop_assert_eq!(found(&forest, &table, k), table.nearest(Metric::Euclidean, k));
    }

    #[test]
    fn balls_hold_their_rows(table in tables(), metric in metrics(), leaf_size in 1usize..40) {
        // All components, so that the balls are those of the rows themselves.
        let params = BallTreeParams { leaf_size, components: table.dim, metric };
        let tree = BallTree::build(table.base(), params).unwrap();
        let base = table.base().to_array();
        let unit = 2f64.powi(table.exponent);
        for ball in tree.balls() {
            for &id in &ball.ids {
                let values = base.row(id as usize).into_iter().zip(&ball.centre);
                let differences = values.map(|(&a, b)| f64::from(a) - b);
                let distance = if metric == Metric::Manhattan {
                    differences.map(f64::abs).sum()
                } else {
                    differences.map(|d| d * d).sum::<f64>().sqrt()
                };
                let farthest = ball.radius * (1.0 + 1e-4) + 0.1 * unit;
                prop_assert!(distance <= farthest, "{} {}", distance, ball.radius);
            }
        }
    }
}

/// Where halves of whole groups leave leaves without a row, and where all rows are asked for.
#[test]
fn as_many_neighbours_as_rows() {
    for rows in [1, 15, 16, 17, 31, 32, 33, 47, 65, 700] {
        let values = |count: usize| (0..count).map(|i| (i * i % 97) as i32 - 40).collect();
        let table = Table {
            dim: 5,
            base: values(5 * rows),
            query: values(5),
            exponent: 0,
        };
        for k in [1, rows / 9 + 1, rows / 8 + 1, rows / 2 + 1, rows, rows + 9] {
            let expected = table.nearest(Metric::Euclidean, k);
            for leaf_size in [1, 15, 16, 17, 33] {
                let params = BallTreeParams {
                    leaf_size,
                    ..Default::default()
                };
                let tree = BallTree::build(table.base(), params).unwrap();
                assert_eq!(
                    found(&tree, &table, k),
                    expected,
                    "{k} of {rows}, leaf {leaf_size}"
                );
            }
            let tree = KdTree::build(table.base(), KdTreeParams::default()).unwrap();
            assert_eq!(found(&tree, &table, k), expected, "{k} of {rows}");
            let (_, visits) = tree.query_counted(&table.scaled(&table.query), k).unwrap();
            // Each row once, and those of the first guess once more.
            assert!(visits.distances <= 2 * rows, "{visits:?}");
        }
    }
}

#[test]
fn hyperplanes_part_their_rows() {
    let table = Table {
        dim: 2,
        base: (0..2_000).map(|i| i * 7_919 % 1_009).collect(),
        query: vec![0, 0],
        exponent: -3,
    };
    let base = table.base();
    let forest = Annoy::build(
        Arc::clone(&base),
        AnnoyParams {
            n_trees: 2,
            seed: 1,
        },
    )
    .unwrap();
    let planes = forest.hyperplanes(0);
    assert_eq!((planes[0].depth, planes[0].ids.len()), (0, 1_000));
    for plane in &planes {
        let sides = plane.ids.iter().filter(|&&id| {
            let row = base.row_to_floats(id as usize);
            row.iter()
                .zip(&plane.normal)
                .map(|(&x, n)| f64::from(x) * n)
                .sum::<f64>()
                + plane.offset
                > 0.0
        });
        let share = sides.count() as f64 / plane.ids.len() as f64;
        assert!(
            (0.04..0.96).contains(&share),
            "{share} of {} rows at depth {}",
            plane.ids.len(),
            plane.depth
        );
    }
    assert!(forest.hyperplanes(2).is_empty());
}

#[test]
fn regions_are_what_the_planes_above_leave() {
    let values: Vec<u8> = (0..2_000u32).map(|i| (i * i % 251) as u8).collect();
    let base = Arc::new(Vectors::from_bytes(2, values).unwrap());
    let params = AnnoyParams {
        n_trees: 1,
        seed: 1,
    };
    let forest = Annoy::build(base, params).unwrap();
    let sorted = |mut regions: Vec<Vec<u32>>| {
        regions.iter_mut().for_each(|ids| ids.sort_unstable());
        regions.sort();
        regions
    };
    // Nothing is a leaf yet after two levels: what a plane of depth 2 parts is a region of two
    // levels, and there are four.
    let planes = forest.hyperplanes(0).into_iter();
    let below: Vec<_> = planes.filter(|plane| plane.depth == 2).collect();
    let parted = below.into_iter().map(|plane| plane.ids).collect();
    let regions = forest.regions(0, 2);
    assert_eq!(regions.len(), 4);
    assert_eq!(sorted(regions), sorted(parted));
    let all = sorted(forest.regions(0, 0));
    assert_eq!(all, [(0..1_000).collect::<Vec<u32>>()]);
    assert!(forest.regions(1, 2).is_empty());
}

#[test]
fn leaves_hold_every_row_once() {
    let table = Table {
        dim: 3,
        base: (0..3_000).map(|i| i * 7_919 % 1_009).collect(),
        query: vec![0; 3],
        exponent: 0,
    };
    let tree = KdTree::build(
        table.base(),
        KdTreeParams {
            leaf_size: 16,
            components: 4,
        },
    )
    .unwrap();
    let mut ids: Vec<u32> = tree.leaves().into_iter().flatten().collect();
    assert!(
        tree.leaves().len() >= 1_000 / 16,
        "{} leaves",
        tree.leaves().len()
    );
    ids.sort_unstable();
    assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_leaf_of_any_size_holds_all_rows() {
    let base = Arc::new(Vectors::from_bytes(1, (0..100).collect::<Vec<u8>>()).unwrap());
    let params = BallTreeParams {
        leaf_size: usize::MAX,
        ..BallTreeParams::default()
    };
    let tree = BallTree::build(base, params).unwrap();
    assert_eq!(tree.query(&[7.2], 1).unwrap()[0].id, 7);
}

#[test]
fn trees_refuse_parameters_out_of_range() {
    let table = Table {
        dim: 1,
        base: vec![1, 2],
        query: vec![0],
        exponent: 0,
    };
    for (leaf_size, components) in [(0, 8), (33, 8), (32, 0), (32, 5)] {
        assert!(
            KdTree::build(
                table.base(),
                KdTreeParams {
                    leaf_size,
                    components
                }
            )
            .is_err(),
            "{leaf_size} {components}"
        );
    }
    for (leaf_size, components) in [(0, 8), (8, 0)] {
        let params = BallTreeParams {
            leaf_size,
            components,
            metric: Metric::Euclidean,
        };
        assert!(
            BallTree::build(table.base(), params).is_err(),
            "{leaf_size} {components}"
        );
    }
    assert!(
        Annoy::build(
            table.base(),
            AnnoyParams {
                n_trees: 0,
                seed: 0
            }
        )
        .is_err()
    );
}

/// Where there is nothing to prune by, every row is compared.
#[test]
fn a_kd_tree_over_noise_compares_every_row() {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 22) as i32 - 512
    };
    let base: Vec<i32> = (0..3_000 * 200).map(|_| noise()).collect();
    let table = Table {
        dim: 200,
        base,
        query: (0..200).map(|_| noise()).collect(),
        exponent: 0,
    };
    let tree = KdTree::build(table.base(), KdTreeParams::default()).unwrap();
    assert_eq!(
        found(&tree, &table, 10),
        table.nearest(Metric::Euclidean, 10)
    );
    let visits = tree
        .query_counted(&table.scaled(&table.query), 10)
        .unwrap()
        .1;
    assert_eq!(visits.bounds, 3_000);
    assert!((3_000..=3_040).contains(&visits.distances), "{visits:?}");
}

/// The structure saves work: most rows are rejected without their distance.
#[test]
fn trees_look_at_few_rows_where_the_data_are_clustered() {
    let base: Vec<i32> = (0..2_000)
        .flat_map(|row| (0..24).map(move |i| (row % 40) * 100 * (i % 3) + (row * 31 + i * 17) % 7))
        .collect();
    let table = Table {
        dim: 24,
        query: base[..24].to_vec(),
        base,
        exponent: 0,
    };
    let query = table.scaled(&table.query);
    let ball_tree = BallTree::build(
        table.base(),
        BallTreeParams {
            leaf_size: 16,
            ..Default::default()
        },
    )
    .unwrap();
    let kd_tree = KdTree::build(
        table.base(),
        KdTreeParams {
            leaf_size: 16,
            components: 8,
        },
    )
    .unwrap();
    for visits in [
        ball_tree.query_counted(&query, 5).unwrap().1,
        kd_tree.query_counted(&query, 5).unwrap().1,
    ] {
        assert!((5..200).contains(&visits.distances), "{visits:?}");
    }
}
