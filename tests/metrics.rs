//! Every index by every metric that it takes, and everything within a radius, against a naive scan
//! written from the definitions.
//!
//! Exact indexes must equal the scan to the last bit: ids, distances, ties by id. Approximate ones
//! must return min(k, n) rows at their true distances, ascending, and keep a floor of recall.

use std::collections::HashSet;
use std::sync::Arc;

use fashion_knn::distance::Metric;
use fashion_knn::index::registry::{Entry, REGISTRY, Settings};
use fashion_knn::index::{
    BallTree, BallTreeParams, BruteForce, BruteForceParams, Build, BuildError, Cosine, Hnsw,
    HnswParams, Index, InnerProduct, KdTree, KdTreeParams, Plan, Query, QueryError, VaFile,
    VaFileParams,
};
use fashion_knn::lab::evaluate::recall;
use fashion_knn::lab::shapes;
use fashion_knn::neighbor::{Neighbor, Neighbors};
use fashion_knn::vectors::Vectors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const K: usize = 10;
const ROWS: usize = 1_200;
const QUERIES: usize = 30;

/// A base and the queries put to it.
struct Case {
    name: String,
    base: Arc<Vectors>,
    queries: Vectors,
}

impl Case {
    /// The last `QUERIES` rows are the queries. Two rows of the base are asked as well.
    fn new(name: impl Into<String>, all: &Vectors) -> Self {
        let rows = all.len() - QUERIES;
        let base = Arc::new(all.head(rows));
        let asked: Vec<usize> = (rows..all.len()).chain([0, rows / 2]).collect();
        let queries = all.select(&asked).unwrap();
        let name = name.into();
        Self {
            name,
            base,
            queries,
        }
    }

    /// Every row of the base for each query, nearest first.
    fn truth(&self, metric: Metric) -> Vec<Vec<Neighbor>> {
        let (base, queries) = if metric == Metric::Cosine {
            (normalised(&self.base), normalised(&self.queries))
        } else {
            (self.base.to_floats(), self.queries.to_floats())
        };
        let dim = self.base.dim();
        let rows = |query| scan(metric, base.chunks(dim), query);
        queries.chunks(dim).map(rows).collect()
    }
}

/// The rows divided by their length in f64, and rounded once.
fn normalised(vectors: &Vectors) -> Vec<f32> {
    let mut values = vectors.to_floats();
    for row in values.chunks_mut(vectors.dim()) {
        let length = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let length = length.sqrt();
        row.iter_mut()
            .for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    values
}

/// The definition: value i to sum i mod 8, and the sums added pairwise. (Of bytes all of these are
/// integers, and exact.)
fn summed(terms: impl Iterator<Item = f64>) -> f64 {
    let mut s = [0.0; 8];
    for (i, term) in terms.enumerate() {
        s[i % 8] += term;
    }
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// What rows are ordered by; ties by id.
fn reduced(metric: Metric, row: &[f32], query: &[f32]) -> f64 {
    let pairs = || {
        row.iter()
            .zip(query)
            .map(|(&a, &b)| (f64::from(a), f64::from(b)))
    };
    match metric {
        Metric::Euclidean | Metric::Cosine => summed(pairs().map(|(a, b)| (a - b) * (a - b))),
        Metric::Manhattan => summed(pairs().map(|(a, b)| (a - b).abs())),
        // 0 and not −0, where the product is 0.
        Metric::InnerProduct => 0.0 - summed(pairs().map(|(a, b)| a * b)),
    }
}

fn scan<'a>(metric: Metric, rows: impl Iterator<Item = &'a [f32]>, query: &[f32]) -> Vec<Neighbor> {
    // Of two squares whose roots are equal, the smaller is still the nearer.
    let mut all: Vec<(f64, u32)> = rows
        .zip(0..)
        .map(|(row, id)| (reduced(metric, row, query), id))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let neighbor = |(reduced, id): (f64, u32)| {
        let distance = match metric {
            Metric::Euclidean => reduced.sqrt(),
            Metric::Cosine => reduced / 2.0,
            Metric::Manhattan | Metric::InnerProduct => reduced,
        };
        Neighbor { id, distance }
    };
    all.into_iter().map(neighbor).collect()
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// 128 floats as a net's last layer gives them: not negative, half of them zero.
fn features(seed: u64) -> Case {
    let (latent, dim) = (10, 128);
    let mut rng = rng(seed);
    let mixing: Vec<f32> = (0..latent * dim)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let mut values = Vec::new();
    for _ in 0..ROWS + QUERIES {
        let state: Vec<f32> = (0..latent).map(|_| rng.random_range(-2.0..2.0)).collect();
        for i in 0..dim {
            let sum: f32 = (0..latent).map(|j| state[j] * mixing[j * dim + i]).sum();
            values.push(sum.max(0.0));
        }
    }
    let all = Vectors::from_floats(dim, values).unwrap();
    Case::new(format!("features {seed}"), &all)
}

/// Bytes around a few centres, many of them copies.
fn pixels(seed: u64) -> Case {
    let dim = 60;
    let mut rng = rng(seed);
    let centres: Vec<u8> = (0..8 * dim).map(|_| rng.random_range(20..235)).collect();
    let mut values: Vec<u8> = Vec::new();
    for row in 0..ROWS + QUERIES {
        if row > 100 && row % 3 == 0 {
            let copied = rng.random_range(0..row) * dim;
            values.extend_from_within(copied..copied + dim);
        } else {
            let centre = rng.random_range(0..8) * dim;
            let value =
                |i: usize| centres[centre + i].saturating_add_signed(rng.random_range(-20..20));
            values.extend((0..dim).map(value));
        }
    }
    let all = Vectors::from_bytes(dim, values).unwrap();
    Case::new(format!("pixels {seed}"), &all)
}

/// Directions at random, and lengths over nine orders of magnitude.
fn lengths(seed: u64) -> Case {
    let dim = 19;
    let mut rng = rng(seed);
    let mut values = Vec::new();
    for _ in 0..ROWS + QUERIES {
        let length = 10f32.powf(rng.random_range(-4.5..4.5));
        values.extend((0..dim).map(|_| length * rng.random_range(-1f32..1.0)));
    }
    let all = Vectors::from_floats(dim, values).unwrap();
    Case::new(format!("lengths {seed}"), &all)
}

/// Queries far shorter and far longer than the rows: 10⁻⁴⁰ to 10³⁰.
fn far_queries() -> Case {
    let case = features(77);
    let values = case.queries.to_floats();
    let scaled = values.chunks(128).zip(0..).flat_map(|(query, i)| {
        let scale = [1e-39, 1e-20, 1e-3, 1.0, 1e3, 1e15, 1e30][i % 7];
        query.iter().map(move |value| value * scale)
    });
    Case {
        name: "far queries".to_owned(),
        base: case.base.clone(),
        queries: Vectors::from_floats(128, scaled.collect::<Vec<_>>()).unwrap(),
    }
}

/// A hard shape, without its rows of zeros, which have no cosine.
fn shape(name: &str) -> Case {
    let shape = shapes::find(name).unwrap();
    let sample = shape.sample(ROWS, 6, shape.dim, 3);
    let nonzero = |vectors: &Vectors| {
        let is_zero = |&row: &usize| !vectors.row(row).is_zero();
        let rows: Vec<usize> = (0..vectors.len()).filter(is_zero).collect();
        vectors.select(&rows).unwrap()
    };
    Case {
        name: name.to_owned(),
        base: Arc::new(nonzero(&sample.base)),
        queries: nonzero(&sample.queries),
    }
}

const HARD: &[&str] = &[
    "d1",
    "noise_64",
    "outlier_1e4",
    "outlier_1e6",
    "two_clusters_1e4",
    "clumps",
    "equal_50",
    "equal_90",
    "sizes",
    "wide_column",
    "tiny",
    "huge",
    "bytes_outlier",
    "bytes_equal_50",
    "bits",
];

fn build(entry: &Entry, metric: Metric, case: &Case) -> Box<dyn Index> {
    let none = Settings::default();
    (entry.build_under)(metric, case.base.clone(), &none)
        .and_then(|built| built(&none))
        .unwrap_or_else(|error| panic!("{} by {}: {error}", entry.key, metric.name()))
}

/// Every index that takes the metric, the VA+-file also with codes that were asked for.
fn check_indexes(
    case: &Case,
    metric: Metric,
    wanted: impl Fn(&Entry) -> bool,
    check: impl Fn(&str, bool, &dyn Index),
) {
    let taking = REGISTRY.iter().filter(|entry| (entry.takes)(metric));
    for entry in taking.filter(|entry| wanted(entry)) {
        let index = build(entry, metric, case);
        assert_eq!((index.metric(), index.name()), (metric, entry.name));
        check(entry.key, entry.exact, index.as_ref());
    }
    let plan = Some(Plan {
        head: 4,
        segments: 1,
    });
    let (base, params) = (case.base.clone(), VaFileParams { plan, seed: 0 });
    let planned: Box<dyn Index> = match metric {
        Metric::Euclidean => Box::new(VaFile::build(base, params).unwrap()),
        Metric::Cosine => Box::new(Cosine::<VaFile>::build(base, params).unwrap()),
        Metric::InnerProduct => Box::new(InnerProduct::<VaFile>::build(base, params).unwrap()),
        Metric::Manhattan => return,
    };
    check("va_file with codes", true, planned.as_ref());
}

/// The k nearest of every index by every metric. `floors` are the least recall@10 of an approximate
/// one: by inner product the second, by the others the first.
fn check(case: &Case, floors: [f64; 2]) {
    for metric in Metric::ALL {
        let truth = case.truth(metric);
        check_indexes(
            case,
            metric,
            |_| true,
            |key, exact, index| {
                let what = format!("{}: {key} by {}", case.name, metric.name());
                for k in [1, K, 2 * ROWS] {
                    let batch = index.query_batch(&case.queries, k).unwrap();
                    for (row, truth) in truth.iter().enumerate() {
                        let found = index.query(case.queries.row(row), k).unwrap();
                        let nearest = &truth[..k.min(truth.len())];
                        assert_eq!(
                            batch.row(row),
                            found,
                            "{what}, k {k}: query {row} of a batch"
                        );
                        if exact {
                            assert_eq!(found, nearest, "{what}, k {k}: query {row}");
                        }
                        assert_eq!(found.len(), nearest.len(), "{what}, k {k}");
                        assert_true_distances(&found, truth, &what);
                    }
                    let nearest: Neighbors = truth.iter().cloned().collect();
                    let recall = recall(&batch, &nearest, k.min(case.base.len()));
                    let floor = floors[usize::from(metric == Metric::InnerProduct)];
                    let is_enough = exact || k != K || recall >= floor;
                    assert!(is_enough, "{what}: recall {recall} is below {floor}");
                }
            },
        );
    }
}

/// Ascending, ties by id, each at its distance.
fn assert_true_distances(found: &[Neighbor], truth: &[Neighbor], what: &str) {
    let mut distances = vec![f64::NAN; truth.len()];
    for truth in truth {
        distances[truth.id as usize] = truth.distance;
    }
    for found in found {
        assert_eq!(found.distance, distances[found.id as usize], "{what}");
    }
    assert!(
        found.is_sorted_by(|a, b| a.distance <= b.distance),
        "{what}"
    );
    let ids: HashSet<u32> = found.iter().map(|found| found.id).collect();
    assert_eq!(ids.len(), found.len(), "{what}: a row twice");
}

/// All radii at which something can go wrong, by every index and metric.
fn check_within(case: &Case) {
    for metric in Metric::ALL {
        let truth = case.truth(metric);
        check_indexes(
            case,
            metric,
            |entry| entry.exact,
            |key, _, index| {
                let what = format!("{}: {key} by {}", case.name, metric.name());
                for (row, truth) in truth.iter().enumerate() {
                    let query = case.queries.row(row);
                    let tenth = truth[K.min(truth.len()) - 1].distance;
                    assert_eq!(
                        index.query(query, K).unwrap().last().unwrap().distance,
                        tenth
                    );
                    let middle = truth[truth.len() / 2].distance;
                    let radii = [
                        0.0,
                        truth[0].distance,
                        tenth,
                        tenth.next_up(),
                        tenth.next_down(),
                        middle,
                        f64::INFINITY,
                    ];
                    let radii = radii
                        .into_iter()
                        .filter(|&radius| radius >= 0.0 || metric == Metric::InnerProduct);
                    for radius in radii {
                        let expected = truth.iter().take_while(|row| row.distance <= radius);
                        let expected: Vec<_> = expected.copied().collect();
                        let found = index.within(query, radius).unwrap();
                        assert_eq!(found, expected, "{what}: query {row} within {radius}");
                        // The limit is reached and not passed; one less is passed.
                        let count = expected.len();
                        let found = index.within_at_most(query, radius, count);
                        assert_eq!(found.unwrap(), expected, "{what}: {count} within {radius}");
                        if let Some(limit) = count.checked_sub(1) {
                            let found = index.within_at_most(query, radius, limit);
                            assert_eq!(found, Err(QueryError::TooMany { limit }), "{what}");
                        }
                    }
                }
                let radius = truth[0][20].distance;
                let within = |row: &Vec<Neighbor>| -> Vec<Neighbor> {
                    let within = row.iter().take_while(|row| row.distance <= radius);
                    within.copied().collect()
                };
                if radius >= 0.0 || metric == Metric::InnerProduct {
                    let expected: Neighbors = truth.iter().map(within).collect();
                    let found = index.within_batch(&case.queries, radius, 2 * ROWS).unwrap();
                    assert_eq!(found, expected, "{what}: a batch within {radius}");
                }
            },
        );
    }
}

#[test]
fn features_by_every_metric() {
    for seed in 1..4 {
        check(&features(seed), [0.95, 0.95]);
    }
}

#[test]
fn bytes_by_every_metric() {
    for seed in 1..4 {
        check(&pixels(seed), [0.95, 0.75]);
    }
}

#[test]
fn rows_of_very_different_lengths_by_every_metric() {
    for seed in 1..4 {
        check(&lengths(seed), [0.0, 0.0]);
    }
}

#[test]
fn queries_far_shorter_and_longer_than_the_rows() {
    check(&far_queries(), [0.95, 0.95]);
}

#[test]
fn hard_shapes_by_every_metric() {
    for name in HARD {
        check(&shape(name), [0.0, 0.0]);
    }
}

#[test]
fn within_a_radius_of_features_and_bytes() {
    check_within(&features(5));
    check_within(&pixels(5));
}

#[test]
fn within_a_radius_of_hard_shapes() {
    for name in HARD {
        check_within(&shape(name));
    }
    check_within(&lengths(5));
}

fn square() -> Arc<Vectors> {
    Arc::new(Vectors::from_floats(2, vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0]).unwrap())
}

#[test]
fn an_approximate_index_has_no_radius() {
    for metric in Metric::ALL {
        for entry in REGISTRY.iter().filter(|entry| (entry.takes)(metric)) {
            let case = features(6);
            let index = build(entry, metric, &case);
            let found = index.within(case.queries.row(0), 1e9);
            let batch = index.within_batch(&case.queries, 1e9, ROWS);
            let (index, of_all) = (index.name(), batch.map(|_| ()));
            let refused = Err(QueryError::NoRadius { index });
            let expected = if entry.exact { Ok(()) } else { refused };
            assert_eq!(found.map(|_| ()), expected, "{index}");
            assert_eq!(of_all, expected, "{index}");
        }
    }
}

#[test]
fn a_bad_radius_is_refused() {
    let index = BruteForce::build(square(), BruteForceParams::default()).unwrap();
    let queries = Vectors::from_floats(2, vec![0.0, 0.0, 3.0, 4.0]).unwrap();
    for radius in [-1.0, f64::NEG_INFINITY] {
        let error = QueryError::BadRadius { radius };
        assert_eq!(index.within(&[0.0, 0.0], radius), Err(error.clone()));
        assert_eq!(index.within_batch(&queries, radius, 10), Err(error));
    }
    let error = index.within(&[0.0, 0.0], f64::NAN).unwrap_err();
    assert!(
        error.to_string().starts_with("the radius is NaN"),
        "{error}"
    );
    assert!(matches!(
        index.within(&[0.0], 1.0),
        Err(QueryError::WrongDimension { .. })
    ));
    assert!(matches!(
        index.within(&[0.0, f32::NAN], 1.0),
        Err(QueryError::NotFinite { position: 1, .. })
    ));
    // Two rows are within 1 of the first query; the second has one.
    let error = index.within_batch(&queries, 1.0, 1).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("query 0 of the batch: more than 1 rows"),
        "{error}"
    );
    assert_eq!(
        index.within_batch(&queries, 1.0, 2).unwrap().row(1).len(),
        1
    );
    assert_eq!(index.within_at_most(&[9.0, 9.0], 1.0, 0), Ok(Vec::new()));
}

#[test]
fn zeros_have_no_cosine() {
    let base = Vectors::from_floats(2, vec![1.0, 0.0, 0.0, -0.0, 0.0, 0.0]).unwrap();
    let error = Cosine::<KdTree>::build(Arc::new(base), KdTreeParams::default());
    assert_eq!(error.unwrap_err(), BuildError::ZeroVector { row: 1 });
    let index = Cosine::<KdTree>::build(square(), KdTreeParams::default()).unwrap();
    assert_eq!(index.query(&[0.0, 0.0], 1), Err(QueryError::ZeroVector));
    assert_eq!(index.within(&[0u8, 0], 1.0), Err(QueryError::ZeroVector));
    let queries = Vectors::from_bytes(2, vec![1, 0, 0, 0]).unwrap();
    let named = QueryError::OfBatch {
        row: 1,
        source: Box::new(QueryError::ZeroVector),
    };
    assert_eq!(index.query_batch(&queries, 1), Err(named.clone()));
    assert_eq!(index.within_batch(&queries, 1.0, 9), Err(named));
    // The smallest float has a direction.
    let found = index.query(&[0.0, f32::from_bits(1)], 1).unwrap();
    assert_eq!(
        found,
        [Neighbor {
            id: 1,
            distance: 0.0
        }]
    );
}

/// A query of zeros has the product 0 with every row: a tie of all, by id.
#[test]
fn zeros_have_a_product() {
    for count in [3, 2_000] {
        let values: Vec<f32> = (0..count * 2).map(|i| (i % 97) as f32 - 40.0).collect();
        let base = Arc::new(Vectors::from_floats(2, values).unwrap());
        let index = InnerProduct::<VaFile>::build(base, VaFileParams::default()).unwrap();
        let found = index.query(&[0.0, 0.0], 2).unwrap();
        let zero = |id| Neighbor { id, distance: 0.0 };
        assert_eq!(found, [zero(0), zero(1)]);
        assert!(found.iter().all(|found| found.distance.is_sign_positive()));
        assert_eq!(index.within(&[0.0, 0.0], 0.0).unwrap().len(), count);
        assert_eq!(index.within(&[0.0, 0.0], -1e-30).unwrap(), []);
        assert_eq!(index.within(&[1.0, 0.0], f64::NEG_INFINITY).unwrap(), []);
    }
    let zeros = Arc::new(Vectors::from_bytes(3, vec![0; 30]).unwrap());
    let index = InnerProduct::<BallTree>::build(zeros, BallTreeParams::default()).unwrap();
    assert_eq!(index.query(&[1e30, 0.0, -5.0], 20).unwrap().len(), 10);
}

#[test]
fn an_index_that_does_not_take_a_metric_says_what_does() {
    let metric = Metric::Cosine;
    let error = BruteForce::build(square(), BruteForceParams { metric }).unwrap_err();
    let text = "Brute force does not search by cosine: the wrapper `Cosine` makes it do so";
    assert_eq!(error.to_string(), text);
    let metric = Metric::InnerProduct;
    let params = BallTreeParams {
        metric,
        ..BallTreeParams::default()
    };
    let error = BallTree::build(square(), params).unwrap_err();
    assert!(error.to_string().contains("`InnerProduct`"), "{error}");
    let metric = Metric::Manhattan;
    let error = Cosine::<BruteForce>::build(square(), BruteForceParams { metric }).unwrap_err();
    assert!(
        error.to_string().contains("its own metric is manhattan"),
        "{error}"
    );
    let params = BruteForceParams::default();
    let twice = InnerProduct::<Cosine<BruteForce>>::build(square(), params).unwrap_err();
    assert!(
        twice
            .to_string()
            .contains("cosine or inner product already"),
        "{twice}"
    );
    for entry in REGISTRY {
        let takes = ["brute_force", "ball_tree"].contains(&entry.key);
        assert_eq!((entry.takes)(metric), takes, "{}", entry.key);
        let built = (entry.build_under)(metric, square(), &Settings::default());
        let text = built.err().map(|error| error.to_string());
        let refused = "does not search by manhattan: brute force and the ball tree do";
        assert_eq!(text.is_some_and(|text| text.contains(refused)), !takes);
    }
}

#[test]
fn rows_longer_than_a_float_have_no_inner_product() {
    let values = vec![1.0, 0.0, f32::MAX, f32::MAX];
    let base = Arc::new(Vectors::from_floats(2, values).unwrap());
    let error = InnerProduct::<Hnsw>::build(base, HnswParams::default()).unwrap_err();
    assert!(error.to_string().starts_with("row 1 is 4.8"), "{error}");
}
