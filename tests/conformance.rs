//! Every index of the registry over every kind of data, every hard shape and parts of real data,
//! against a naive scan written from the definition.
//!
//! Exact indexes must equal the scan, ids and distances, ties by id. Approximate ones must return
//! min(k, n) rows, none twice, at their true distances in ascending order, and keep a floor of
//! recall (by distance: ties are hits). An index that is in the registry is in this suite, and so
//! is a shape that is in `lab::shapes`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fashion_knn::index::registry::{self, Entry, Settings};
use fashion_knn::index::{BuildError, Index, Query, QueryError};
use fashion_knn::lab::evaluate::recall;
use fashion_knn::lab::shapes::{self, SHAPES, Sample};
use fashion_knn::neighbor::{Neighbor, Neighbors};
use fashion_knn::vectors::{Row, Vectors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const K: usize = 10;

/// A base and the queries put to it.
struct Case {
    base: Vectors,
    queries: Vectors,
}

/// The definition: all distances, sorted by distance and then id. Integers between bytes, f64
/// otherwise.
fn scan(base: &Vectors, query: Row<'_>, k: usize) -> Vec<Neighbor> {
    let squared = |id: usize| match (base.row(id), query) {
        (Row::Bytes(row), Row::Bytes(query)) => row
            .iter()
            .zip(query)
            .map(|(&a, &b)| (i64::from(a) - i64::from(b)).pow(2))
            .sum::<i64>() as f64,
        (Row::Bytes(row), Row::Floats(query)) => row
            .iter()
            .zip(query)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum(),
        (Row::Floats(row), Row::Floats(query)) => row
            .iter()
            .zip(query)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum(),
        (Row::Floats(row), Row::Bytes(query)) => row
            .iter()
            .zip(query)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum(),
    };
    let mut all: Vec<(f64, u32)> = (0..base.len()).map(|id| (squared(id), id as u32)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.truncate(k);
    all.into_iter()
        .map(|(squared, id)| Neighbor {
            id,
            distance: squared.sqrt(),
        })
        .collect()
}

fn same_distance(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Images of 28 × 28 bytes: a few smooth blobs, most pixels zero, a little noise.
fn images(count: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * 784);
    for _ in 0..count {
        let blobs: Vec<[f32; 4]> = (0..rng.random_range(2..6))
            .map(|_| {
                let (x, y) = (rng.random_range(6.0..22.0), rng.random_range(6.0..22.0));
                [
                    x,
                    y,
                    rng.random_range(2.0..6.0),
                    rng.random_range(60.0..255.0),
                ]
            })
            .collect();
        for pixel in 0..784 {
            let (x, y) = ((pixel % 28) as f32, (pixel / 28) as f32);
            let light: f32 = blobs
                .iter()
                .map(|[cx, cy, radius, height]| {
                    height
                        * (1.0 - ((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * radius * radius))
                            .max(0.0)
                })
                .sum();
            let noise = if light > 0.0 {
                rng.random_range(-8.0..8.0)
            } else {
                0.0
            };
            bytes.push((light + noise).clamp(0.0, 255.0) as u8);
        }
    }
    bytes
}

fn uniform(count: usize, dim: usize, scale: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..count * dim)
        .map(|_| rng.random_range(-scale..scale))
        .collect()
}

fn floats(dim: usize, values: Vec<f32>) -> Vectors {
    Vectors::from_floats(dim, values).unwrap()
}

fn bytes(dim: usize, values: Vec<u8>) -> Vectors {
    Vectors::from_bytes(dim, values).unwrap()
}

/// Points around `centers` centres, the same ones for the same seed.
fn clusters(
    count: usize,
    dim: usize,
    centers: usize,
    spread: f32,
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let centers = uniform(centers, dim, 10.0, &mut self::rng(99));
    (0..count)
        .flat_map(|_| {
            let center = rng.random_range(0..centers.len() / dim);
            (0..dim)
                .map(|i| centers[center * dim + i] + rng.random_range(-spread..spread))
                .collect::<Vec<_>>()
        })
        .collect()
}

mod kinds {
    use super::*;

    pub fn pixels() -> Case {
        Case {
            base: bytes(784, images(2_000, &mut rng(1))),
            queries: bytes(784, images(40, &mut rng(2))),
        }
    }

    /// As a net's last layer gives them: not negative, half of them zero, on few directions.
    pub fn features() -> Case {
        let (latent, dim) = (12, 128);
        let mixing = uniform(latent, dim, 1.0, &mut rng(3));
        let make = |count, seed| {
            let mut rng = rng(seed);
            let values = (0..count)
                .flat_map(|_| {
                    let state: Vec<f32> =
                        (0..latent).map(|_| rng.random_range(-2.0..2.0)).collect();
                    (0..dim)
                        .map(|i| {
                            (0..latent)
                                .map(|j| state[j] * mixing[j * dim + i])
                                .sum::<f32>()
                                .max(0.0)
                        })
                        .collect::<Vec<_>>()
                })
                .collect();
            floats(dim, values)
        };
        Case {
            base: make(3_000, 4),
            queries: make(40, 5),
        }
    }

    pub fn random_clusters() -> Case {
        Case {
            base: floats(32, clusters(3_000, 32, 40, 1.0, &mut rng(6))),
            queries: floats(32, clusters(40, 32, 40, 1.0, &mut rng(7))),
        }
    }

    /// Sixty per cent of the rows are copies of twenty rows: more copies of one row than any leaf
    /// takes.
    pub fn duplicates() -> Case {
        let mut rng = rng(8);
        let distinct = images(820, &mut rng);
        let base = (0..2_000)
            .flat_map(|row| {
                let source = if row % 5 < 3 {
                    rng.random_range(0..20)
                } else {
                    20 + row % 800
                };
                distinct[source * 784..][..784].to_vec()
            })
            .collect();
        let mut queries = distinct[..10 * 784].to_vec();
        queries.extend(images(20, &mut rng));
        Case {
            base: bytes(784, base),
            queries: bytes(784, queries),
        }
    }

    pub fn all_rows_equal() -> Case {
        let row = images(1, &mut rng(9));
        let mut queries = row.clone();
        queries.extend(images(3, &mut rng(10)));
        Case {
            base: bytes(784, row.repeat(700)),
            queries: bytes(784, queries),
        }
    }

    pub fn all_float_rows_equal() -> Case {
        let row = uniform(1, 20, 1.0, &mut rng(11));
        Case {
            base: floats(20, row.repeat(700)),
            queries: floats(20, uniform(3, 20, 1.0, &mut rng(12))),
        }
    }

    pub fn one_row() -> Case {
        Case {
            base: floats(5, uniform(1, 5, 1.0, &mut rng(13))),
            queries: floats(5, uniform(3, 5, 1.0, &mut rng(14))),
        }
    }

    pub fn fewer_rows_than_k() -> Case {
        Case {
            base: bytes(784, images(7, &mut rng(15))),
            queries: bytes(784, images(5, &mut rng(16))),
        }
    }

    pub fn one_dimension() -> Case {
        let mut queries = uniform(30, 1, 120.0, &mut rng(18));
        queries.push(0.0);
        Case {
            base: floats(1, uniform(1_500, 1, 100.0, &mut rng(17))),
            queries: floats(1, queries),
        }
    }

    /// Bytes of one dimension: at most 256 different rows, so ties everywhere.
    pub fn one_byte() -> Case {
        let mut rng = rng(19);
        let values = (0..1_500).map(|_| rng.random()).collect();
        Case {
            base: bytes(1, values),
            queries: bytes(1, vec![0, 1, 127, 200, 255]),
        }
    }

    /// 37 is a multiple of no register.
    pub fn odd_dimension() -> Case {
        Case {
            base: floats(37, uniform(2_000, 37, 1.0, &mut rng(20))),
            queries: floats(37, uniform(30, 37, 1.0, &mut rng(21))),
        }
    }

    /// Squares overflow an f32.
    pub fn huge_values() -> Case {
        Case {
            base: floats(
                24,
                clusters(1_500, 24, 10, 1.0, &mut rng(22))
                    .iter()
                    .map(|v| v * 1e30)
                    .collect(),
            ),
            queries: floats(
                24,
                clusters(20, 24, 10, 1.0, &mut rng(23))
                    .iter()
                    .map(|v| v * 1e30)
                    .collect(),
            ),
        }
    }

    /// Squares underflow an f32.
    pub fn tiny_values() -> Case {
        Case {
            base: floats(
                24,
                clusters(1_500, 24, 10, 1.0, &mut rng(24))
                    .iter()
                    .map(|v| v * 1e-33)
                    .collect(),
            ),
            queries: floats(
                24,
                clusters(20, 24, 10, 1.0, &mut rng(25))
                    .iter()
                    .map(|v| v * 1e-33)
                    .collect(),
            ),
        }
    }

    /// Differences are a millionth of the values: where ‖x‖² − 2x·y + ‖y‖² loses
    /// everything.
    pub fn far_from_the_origin() -> Case {
        let shift = |values: Vec<f32>| floats(16, values.iter().map(|v| 8e6 + v.round()).collect());
        Case {
            base: shift(uniform(1_500, 16, 40.0, &mut rng(26))),
            queries: shift(uniform(20, 16, 40.0, &mut rng(27))),
        }
    }

    /// The queries lie where no data are: no bound helps, all must still be right.
    pub fn distant_queries() -> Case {
        let queries = uniform(6, 24, 1.0, &mut rng(29));
        let scaled = queries
            .chunks(24)
            .zip([1e2, 1e5, 1e10, 1e20, 1e30, 1e38])
            .flat_map(|(q, s)| q.iter().map(move |v| v * s));
        Case {
            base: floats(24, uniform(800, 24, 1.0, &mut rng(28))),
            queries: floats(24, scaled.collect()),
        }
    }

    /// A base of bytes and queries that are none.
    pub fn floats_to_bytes() -> Case {
        let queries = images(20, &mut rng(31))
            .into_iter()
            .map(|v| f32::from(v) + 0.25)
            .collect();
        Case {
            base: bytes(784, images(1_000, &mut rng(30))),
            queries: floats(784, queries),
        }
    }
}

fn build(entry: &Entry, base: &Arc<Vectors>) -> Box<dyn Index> {
    (entry.build)(Arc::clone(base), &Settings::default())
        .and_then(|built| built(&Settings::default()))
        .unwrap()
}

/// Every row of the base for each query, by the scan.
fn truth_of(case: &Case) -> Vec<Vec<Neighbor>> {
    let truth = |row| scan(&case.base, case.queries.row(row), case.base.len());
    (0..case.queries.len()).map(truth).collect()
}

/// Row by row against the scan; the batch against the rows. The recall@k for the `k` asked for.
fn recall_of(
    index: &dyn Index,
    exact: bool,
    case: &Case,
    truth: &[Vec<Neighbor>],
    k: usize,
) -> f64 {
    let base = &case.base;
    assert_eq!((index.len(), index.dim()), (base.len(), base.dim()));
    let batch = index.query_batch(&case.queries, k).unwrap();
    assert_eq!(batch.len(), case.queries.len());
    for (row, truth) in truth.iter().enumerate() {
        let found = index.query(&case.queries.row_to_floats(row), k).unwrap();
        assert_eq!(batch.row(row), found, "the batch differs from query {row}");
        let nearest = &truth[..k.min(base.len())];
        if exact {
            let ids = |neighbors: &[Neighbor]| neighbors.iter().map(|n| n.id).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(nearest), "query {row}");
        }
        assert_eq!(found.len(), nearest.len(), "neighbours of query {row}");
        ascend_at_true_distances(&found, truth);
    }
    let nearest = truth.iter().cloned().collect();
    recall(&batch, &nearest, k)
}

/// Ascending, ties by id, each row once and at its distance.
fn ascend_at_true_distances(found: &[Neighbor], truth: &[Neighbor]) {
    for pair in found.windows(2) {
        let ascending = pair[0].distance < pair[1].distance
            || (pair[0].distance == pair[1].distance && pair[0].id < pair[1].id);
        assert!(ascending, "{pair:?}");
    }
    let mut distance_of = vec![f64::NAN; truth.len()];
    for neighbor in truth {
        distance_of[neighbor.id as usize] = neighbor.distance;
    }
    for neighbor in found {
        // A row that is returned a second time finds no distance.
        let distance = std::mem::replace(&mut distance_of[neighbor.id as usize], f64::NAN);
        assert!(
            same_distance(neighbor.distance, distance),
            "{neighbor:?} is at {distance}"
        );
    }
}

/// Every index over a kind of data. All are asked before the test fails.
fn check_kind(kind: &str, case: &Case) {
    let (base, truth) = (Arc::new(case.base.clone()), truth_of(case));
    every_index(|entry| {
        let index = build(entry, &base);
        let recall = recall_of(index.as_ref(), entry.exact, case, &truth, K);
        let floor = floor(entry, kind);
        assert!(recall >= floor, "recall {recall:.4} is below {floor}");
    });
}

/// Every index over a hard shape, or over a part of real data.
fn check_shape(name: &str, case: &Case) {
    let (base, truth) = (Arc::new(case.base.clone()), truth_of(case));
    every_index(|entry| {
        let index = build(entry, &base);
        for k in [1, K] {
            let recall = recall_of(index.as_ref(), entry.exact, case, &truth, k);
            let floor = shape_floor(entry, name, k);
            assert!(
                recall >= floor,
                "recall@{k} {recall:.4} is below {floor:.4}"
            );
        }
    });
}

/// A hard shape of `lab::shapes`.
fn shape(name: &str, rows: usize) -> Case {
    let shape = shapes::find(name).unwrap();
    let Sample { base, queries } = shape.sample(rows, SHAPE_QUERIES, shape.dim, SHAPE_SEED);
    Case { base, queries }
}

/// Parts of real data: `tests/data/README.md` says where they are from.
mod corpora {
    use super::*;

    /// Sentence embeddings: 2,000 × 384 floats, normalised.
    pub fn embeddings() -> Case {
        let floats = |file| {
            let values = values_of(file).chunks_exact(4);
            let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
            floats(384, values.map(value).collect())
        };
        Case {
            base: floats(include_bytes!("data/embeddings.npy")),
            queries: floats(include_bytes!("data/embeddings-queries.npy")),
        }
    }

    /// SIFT descriptors: 5,000 × 128 bytes.
    pub fn sift() -> Case {
        let bytes = |file| bytes(128, values_of(file).to_vec());
        Case {
            base: bytes(include_bytes!("data/sift.npy")),
            queries: bytes(include_bytes!("data/sift-queries.npy")),
        }
    }

    /// What follows the header of a .npy file. The crate's own reader needs the feature `files`,
    /// and this suite is run without it too.
    fn values_of(file: &'static [u8]) -> &'static [u8] {
        // Magic and version are 8 bytes; then comes the length of the rest of the header.
        let header = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        &file[header..]
    }
}

/// Puts a check to every index of the registry; the failures are told together.
fn every_index(check: impl Fn(&Entry)) {
    let mut failed = Vec::new();
    for entry in registry::REGISTRY {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(entry))) {
            let why = panic.downcast::<String>().unwrap_or_default();
            failed.push(format!("{}: {why}", entry.key));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn refuses_bad_queries(entry: &Entry) {
    let base = Arc::new(floats(3, uniform(50, 3, 1.0, &mut rng(40))));
    let index = build(entry, &base);
    let wrong = QueryError::WrongDimension {
        expected: 3,
        received: 2,
    };
    assert_eq!(index.query(&[0.0; 3], 0).unwrap_err(), QueryError::ZeroK);
    assert_eq!(index.query(&[0.0; 2], 1).unwrap_err(), wrong);
    assert_eq!(
        index.query_batch(&floats(2, vec![0.0; 4]), 1).unwrap_err(),
        wrong
    );
    assert_eq!(
        index.query_batch(&floats(3, vec![0.0; 6]), 0).unwrap_err(),
        QueryError::ZeroK
    );
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(
            index.query(&[0.0, value, 0.0], 1).unwrap_err(),
            QueryError::NotFinite { position: 1, value }
        );
    }
    assert!(matches!(
        index.query(&[0.0, 0.0, f32::NAN], 1),
        Err(QueryError::NotFinite { position: 2, .. })
    ));
}

fn refuses_an_empty_base(entry: &Entry) {
    let empty = Arc::new(bytes(4, Vec::new()));
    assert!(matches!(
        (entry.build)(empty, &Settings::default()),
        Err(BuildError::Empty)
    ));
}

fn returns_all_where_k_exceeds_n(entry: &Entry) {
    let (base, queries) = (
        Arc::new(bytes(784, images(60, &mut rng(41)))),
        images(3, &mut rng(42)),
    );
    let index = build(entry, &base);
    for query in bytes(784, queries).to_floats().chunks(784) {
        for k in [60, 61, 1_000, usize::MAX] {
            let mut ids: Vec<_> = index
                .query(query, k)
                .unwrap()
                .iter()
                .map(|neighbor| neighbor.id)
                .collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..60).collect::<Vec<_>>(), "k = {k}");
        }
    }
}

/// Builds and asks on a pool of that many threads.
fn on_threads(threads: usize, entry: &Entry, case: &Case) -> (Neighbors, usize) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        let index = build(entry, &Arc::new(case.base.clone()));
        (
            index.query_batch(&case.queries, K).unwrap(),
            index.memory_bytes(),
        )
    })
}

fn is_the_same_on_any_number_of_threads(entry: &Entry) {
    for case in [kinds::pixels(), kinds::random_clusters()] {
        let one = on_threads(1, entry, &case);
        assert_eq!(on_threads(2, entry, &case), one);
        assert_eq!(on_threads(3, entry, &case), one);
    }
}

/// The data times a power of two, which is exact, have the same neighbours, so many times as far.
fn does_not_depend_on_the_unit(entry: &Entry) {
    let times = |vectors: &Vectors, unit: f32| {
        let values = vectors.to_floats();
        let values: Vec<f32> = values.iter().map(|value| value * unit).collect();
        floats(vectors.dim(), values)
    };
    for name in ["noise_64", "low_rank", "wide_column"] {
        let sample = shapes::find(name).unwrap().sample(1_000, 20, 24, 1);
        let found = |unit: f32| {
            let index = build(entry, &Arc::new(times(&sample.base, unit)));
            index.query_batch(&times(&sample.queries, unit), K).unwrap()
        };
        let usual = found(1.0);
        for exponent in [-30, 30] {
            let unit = 2f32.powi(exponent);
            let scaled = |neighbor: &Neighbor| Neighbor {
                id: neighbor.id,
                distance: neighbor.distance * f64::from(unit),
            };
            let expected = usual.iter().map(|row| row.iter().map(scaled).collect());
            let expected: Neighbors = expected.collect();
            assert_eq!(
                found(unit),
                expected,
                "{}, {name} times 2^{exponent}",
                entry.key
            );
        }
    }
}

fn tells_what_it_is(entry: &Entry) {
    let base = Arc::new(bytes(784, images(100, &mut rng(43))));
    let index = build(entry, &base);
    assert_eq!(index.name(), entry.name);
    assert!(
        index.memory_bytes() >= 100 * 784 / 8,
        "{} bytes",
        index.memory_bytes()
    );
    let params = index.params();
    for knob in entry.build_knobs.iter().chain(entry.query_knobs) {
        // Where 0 asks the index to choose, it tells what it has chosen.
        let told = |&(name, value): &(&str, f64)| {
            name == knob.name && (value == knob.default || knob.default == 0.0)
        };
        assert!(
            params.iter().any(told),
            "{} = {} is not in {params:?}",
            knob.name,
            knob.default
        );
    }
}

/// The least recall that an approximate index may have at its default settings: what it reaches,
/// less .02.
///
/// What is not listed here has to reach [`DEFAULT_FLOOR`]: it was 1 when the floors were set.
const FLOORS: &[(&str, &[(&str, f64)])] = &[
    ("annoy", &[("odd_dimension", 0.976)]),
    (
        "hnsw",
        &[
            ("distant_queries", 0.963),
            ("duplicates", 0.966),
            ("far_from_the_origin", 0.970),
            ("features", 0.975),
            ("floats_to_bytes", 0.975),
            ("huge_values", 0.975),
            ("odd_dimension", 0.953),
            ("pixels", 0.970),
            ("tiny_values", 0.970),
        ],
    ),
    (
        "instant_distance",
        &[
            ("distant_queries", 0.963),
            ("duplicates", 0.966),
            ("far_from_the_origin", 0.970),
            ("features", 0.975),
            ("floats_to_bytes", 0.975),
            ("huge_values", 0.975),
            ("odd_dimension", 0.953),
            ("pixels", 0.970),
            ("tiny_values", 0.970),
        ],
    ),
    (
        "ivf_flat",
        &[
            ("distant_queries", 0.796),
            ("duplicates", 0.970),
            ("far_from_the_origin", 0.900),
            ("features", 0.752),
            ("floats_to_bytes", 0.840),
            ("odd_dimension", 0.900),
            ("pixels", 0.862),
            ("random_clusters", 0.967),
        ],
    ),
    (
        "ivf_pq",
        &[
            ("distant_queries", 0.880),
            ("far_from_the_origin", 0.900),
            ("features", 0.885),
            ("floats_to_bytes", 0.960),
            ("huge_values", 0.965),
            ("odd_dimension", 0.900),
            ("pixels", 0.932),
            ("tiny_values", 0.950),
        ],
    ),
    (
        "scann",
        &[
            ("distant_queries", 0.880),
            ("far_from_the_origin", 0.900),
            ("features", 0.885),
            ("floats_to_bytes", 0.960),
            ("huge_values", 0.965),
            ("odd_dimension", 0.900),
            ("pixels", 0.932),
            ("tiny_values", 0.950),
        ],
    ),
    (
        "ngt",
        &[
            ("duplicates", 0.943),
            ("far_from_the_origin", 0.965),
            ("features", 0.972),
            ("pixels", 0.975),
        ],
    ),
    (
        "quantized_graph",
        &[
            ("distant_queries", 0.929),
            ("duplicates", 0.976),
            ("odd_dimension", 0.956),
            ("pixels", 0.975),
        ],
    ),
];

const DEFAULT_FLOOR: f64 = 0.98;

/// How large a shape is here.
const SHAPE_ROWS: usize = 2_500;
const MORE_ROWS: usize = 10_000;
const SHAPE_QUERIES: usize = 100;
const SHAPE_SEED: u64 = 1;

/// The least recall@1 and recall@10 on a hard shape, at the default settings.
const SHAPE_FLOOR: f64 = 0.9;

/// The name of a shape, and recall@1 and recall@10 on it.
type Reached = (&'static str, [f64; 2]);

/// Shapes on which an index and the plain library of its kind are below [`SHAPE_FLOOR`], with that
/// library's recall@1 and recall@10 on the same sample: what `benches/plain_libraries.py` printed
/// for faiss-cpu 1.15.1, hnswlib 0.8.0 and annoy 1.17.3; with `--n 10000` for the shape with more
/// rows.
///
/// FAISS ends its process on values that overflow and finds nothing among those that underflow: on
/// `tiny` and `huge` it counts what it finds in noise of size 1.
const PLAIN_LIBRARIES: &[(&[&str], &[Reached])] = &[
    // FAISS's IVF256,Flat.
    (
        &["ivf_flat"],
        &[
            ("uniform", [0.540, 0.463]),
            ("noise_64", [0.440, 0.392]),
            ("noise_384", [0.490, 0.413]),
            ("outlier_1e2", [0.540, 0.471]),
            ("outlier_1e4", [0.540, 0.471]),
            ("outlier_1e6", [0.540, 0.471]),
            ("two_clusters_1e4", [0.750, 0.544]),
            ("clump", [0.600, 0.470]),
            ("equal_10", [0.570, 0.683]),
            ("tiny", [0.540, 0.471]),
            ("huge", [0.540, 0.471]),
            ("bytes_noise", [0.460, 0.375]),
            ("bytes_outlier", [0.660, 0.485]),
            ("bits", [0.580, 0.501]),
        ],
    ),
    // FAISS's IVF256,PQ with refine.
    (
        &["ivf_pq", "scann"],
        &[
            ("uniform", [0.670, 0.634]),
            ("d1", [0.010, 0.719]),
            ("noise_64", [0.620, 0.567]),
            ("noise_384", [0.360, 0.434]),
            ("wide_column", [0.110, 0.748]),
            ("outlier_1e2", [0.030, 0.250]),
            ("outlier_1e4", [0.030, 0.250]),
            ("outlier_1e6", [0.030, 0.250]),
            ("clumps", [0.200, 0.991]),
            ("equal_10", [0.620, 0.837]),
            ("tiny", [0.030, 0.250]),
            ("huge", [0.030, 0.250]),
            ("bytes_noise", [0.670, 0.539]),
            ("bytes_outlier", [0.040, 0.373]),
            ("bits", [0.680, 0.689]),
        ],
    ),
    // hnswlib.
    (
        &["hnsw", "instant_distance"],
        &[
            ("noise_384", [0.850, 0.806]),
            ("noise_384_with_more_rows", [0.690, 0.598]),
            ("sizes", [0.600, 0.537]),
        ],
    ),
    // Annoy.
    (&["annoy"], &[("noise_384_with_more_rows", [0.710, 0.726])]),
];

fn shape_floor(entry: &Entry, shape: &str, k: usize) -> f64 {
    if entry.exact {
        return 1.0;
    }
    let mut theirs = PLAIN_LIBRARIES
        .iter()
        .filter(|(keys, _)| keys.contains(&entry.key));
    let theirs = theirs
        .next()
        .and_then(|(_, shapes)| shapes.iter().find(|(name, _)| *name == shape));
    theirs.map_or(SHAPE_FLOOR, |(_, recalls)| {
        // Less .02, for the chance of the random parts of both.
        SHAPE_FLOOR.min(recalls[usize::from(k > 1)] - 0.02)
    })
}

fn floor(entry: &Entry, kind: &str) -> f64 {
    if entry.exact {
        return 1.0;
    }
    let of_index = FLOORS.iter().find(|(key, _)| *key == entry.key);
    let of_kind = of_index.and_then(|(_, kinds)| kinds.iter().find(|(name, _)| *name == kind));
    of_kind.map_or(DEFAULT_FLOOR, |&(_, floor)| floor)
}

/// One test a kind of data, a shape, a corpus and a rule: every index of the registry has to pass
/// it.
macro_rules! conformance {
    (
        kinds: $($kind:ident)*;
        shapes: $($shape:ident)*;
        corpora: $($corpus:ident)*;
        rules: $($rule:ident)*;
    ) => {
        $(#[test]
        fn $kind() {
            check_kind(stringify!($kind), &kinds::$kind());
        })*

        $(#[test]
        fn $corpus() {
            check_shape(stringify!($corpus), &corpora::$corpus());
        })*

        mod shapes_of_the_lab {
            $(#[test]
            fn $shape() {
                let name = stringify!($shape);
                super::check_shape(name, &super::shape(name, super::SHAPE_ROWS));
            })*

            /// Of the smaller sample an index may look at nearly all rows, and finds the neighbours
            /// wherever its planes, lists or edges lead.
            #[test]
            fn noise_384_with_more_rows() {
                let case = super::shape("noise_384", super::MORE_ROWS);
                super::check_shape("noise_384_with_more_rows", &case);
            }

            #[test]
            fn every_one_is_tested() {
                let tested = [$(stringify!($shape)),*];
                let known: Vec<&str> = super::SHAPES.iter().map(|shape| shape.name).collect();
                assert_eq!(known, tested);
            }
        }

        mod rules {
            $(#[test]
            fn $rule() {
                super::every_index(super::$rule);
            })*
        }
    };
}

conformance! {
    kinds:
        pixels features random_clusters duplicates all_rows_equal all_float_rows_equal one_row
        fewer_rows_than_k one_dimension one_byte odd_dimension huge_values tiny_values
        far_from_the_origin distant_queries floats_to_bytes;
    shapes:
        uniform d1 d2 d3 noise_64 noise_384 low_rank wide_column outlier_1e2 outlier_1e4
        outlier_1e6 two_clusters_1e2 two_clusters_1e4 clump clumps equal_10 equal_50 equal_90
        three_kinds sizes tiny huge bytes_noise bytes_outlier bytes_equal_50 bits;
    corpora:
        embeddings sift;
    rules:
        refuses_bad_queries refuses_an_empty_base returns_all_where_k_exceeds_n
        is_the_same_on_any_number_of_threads does_not_depend_on_the_unit tells_what_it_is;
}
