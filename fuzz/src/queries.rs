//! Queries against every index of the registry.

use fashion_knn::distance::Metric;
use fashion_knn::index::registry::{Entry, REGISTRY, Settings};
use fashion_knn::index::{BuildError, Query, QueryError};
use fashion_knn::neighbor::{Candidate, Neighbor};
use fashion_knn::vectors::Vectors;

use super::promises::{Case, check, settings};

/// Rows of a base, at most: an index is built over them several times.
const ROWS: usize = 200;
/// Rows behind the base that are queries.
const QUERIES: usize = 3;

/// Which index, its parameters, bytes or floats, the dimension, k; the rest are the values.
pub fn queries(input: &[u8]) {
    let Some((&[index, seed, kind, dim, k], values)) = input.split_first_chunk::<5>() else {
        return;
    };
    let entry = &REGISTRY[usize::from(index) % REGISTRY.len()];
    let (dim, k) = (usize::from(dim % 40) + 1, usize::from(k) + 1);
    let Some((base, queries)) = vectors(kind % 2 == 0, dim, values) else {
        return;
    };
    let case = Case::new(u64::from(seed), base, queries, k);
    if let Err(error) = check(entry, &case) {
        let [build, search] = settings(entry, case.seed);
        panic!("{} ({build}; {search}): {error}", entry.key);
    }
    let built = (entry.build)(case.base.clone(), &Settings::default()).expect("it has rows");
    let index = built(&Settings::default()).expect("the defaults are in range");
    // What is no query is refused.
    let right = vec![0.0; dim];
    assert!(index.query(&right, 0).is_err());
    assert!(index.query(&vec![0.0; dim + 1], 1).is_err());
    for value in [f32::NAN, f32::INFINITY] {
        assert!(index.query(&vec![value; dim], 1).is_err());
    }
    assert_eq!(
        index.query(&right, usize::MAX).map(|all| all.len()),
        Ok(case.base.len())
    );
    for metric in [Metric::Cosine, Metric::InnerProduct] {
        by_metric(entry, metric, &case);
    }
}

/// An exact index finds by the metric what a scan finds, and all of it within the last distance.
fn by_metric(entry: &Entry, metric: Metric, case: &Case) {
    let none = Settings::default();
    let index = match (entry.build_under)(metric, case.base.clone(), &none) {
        Ok(built) => built(&none).expect("the defaults are in range"),
        Err(BuildError::ZeroVector { .. } | BuildError::TooLong { .. }) => return,
        Err(error) => panic!("{} by {}: {error}", entry.key, metric.name()),
    };
    let (base, queries) = if metric == Metric::Cosine {
        (case.base.normalized(), case.queries.normalized())
    } else {
        (Vectors::clone(&case.base), case.queries.clone())
    };
    for row in 0..queries.len() {
        let query = case.queries.row(row);
        let found = match index.query(query, case.k) {
            Ok(found) => found,
            Err(QueryError::ZeroVector) => continue,
            Err(error) => panic!("{} by {}: {error}", entry.key, metric.name()),
        };
        assert_eq!(found.len(), case.k.min(base.len()));
        if !entry.exact {
            continue;
        }
        let query = queries.row_to_floats(row);
        let reduced = |id| metric.reduced(&base.row_to_floats(id), &query);
        let all = (0..base.len()).map(|id| Candidate {
            id: id as u32,
            reduced: reduced(id),
        });
        let mut all: Vec<Candidate> = all.collect();
        all.sort();
        let mut all: Vec<Neighbor> = all.into_iter().map(|row| row.neighbor(metric)).collect();
        assert_eq!(
            found,
            all[..found.len()],
            "{}, {}",
            entry.key,
            metric.name()
        );
        let radius = all[found.len() - 1].distance;
        all.retain(|row| row.distance <= radius);
        let within = index.within(case.queries.row(row), radius);
        assert_eq!(within, Ok(all), "{}, {}", entry.key, metric.name());
    }
}

/// A base and queries of these values; none if they are too few.
fn vectors(bytes: bool, dim: usize, values: &[u8]) -> Option<(Vectors, Vectors)> {
    let all = if bytes {
        let whole = values.len() / dim * dim;
        Vectors::from_bytes(dim, &values[..whole])
    } else {
        let words = values
            .chunks_exact(4)
            .map(|word| word.try_into().expect("four bytes"));
        let mut floats: Vec<f32> = words.map(f32::from_le_bytes).collect();
        floats.truncate(floats.len() / dim * dim);
        if floats.iter().any(|value| !value.is_finite()) {
            assert!(Vectors::from_floats(dim, floats.clone()).is_err());
            floats
                .iter_mut()
                .filter(|value| !value.is_finite())
                .for_each(|value| *value = 1.0);
        }
        Vectors::from_floats(dim, floats)
    };
    let all = all.expect("whole rows of finite values");
    let rows = all.len().checked_sub(QUERIES)?.min(ROWS);
    if rows == 0 {
        return None;
    }
    let asked: Vec<usize> = (rows..rows + QUERIES).collect();
    Some((
        all.head(rows),
        all.select(&asked).expect("there are such rows"),
    ))
}
