//! What every index of the registry promises, whatever the data:
//! - exact indexes return what the scan returns, ids and distances;
//! - the others return min(k, n) neighbours, ascending, ties by id, none twice, at their true
//!   distances;
//! - all return the same on one thread and on three.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fashion_knn::index::registry::{Entry, Settings};
use fashion_knn::index::{Index, Query};
use fashion_knn::lab::evaluate::on_threads;
use fashion_knn::neighbor::{Neighbor, Neighbors};
use fashion_knn::vectors::Vectors;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A base, queries, and how many neighbours they ask for.
pub struct Case {
    /// Decides the parameters of the index: its defaults, or some of its sweeps.
    pub seed: u64,
    pub base: Arc<Vectors>,
    pub queries: Vectors,
    pub k: usize,
    /// All rows of the base for each query: ascending, ties by id.
    truth: Vec<Vec<Neighbor>>,
}

impl Case {
    pub fn new(seed: u64, base: Vectors, queries: Vectors, k: usize) -> Self {
        let truth = (0..queries.len())
            .map(|query| scan(&base, &queries, query))
            .collect();
        Self {
            seed,
            base: Arc::new(base),
            queries,
            k,
            truth,
        }
    }

    /// Whether an exact index may find the one in the place of the other.
    fn ties(&self, found: &Neighbor, truly: &Neighbor) -> bool {
        let is_near = self.is_rounded(found, truly) && same_distance(found, truly);
        same(found, truly) || is_near
    }

    /// Whether the one comes before the other: by distance, then by id.
    fn ascends(&self, a: &Neighbor, b: &Neighbor) -> bool {
        let is_tie = a.distance == b.distance;
        a.distance < b.distance || (is_tie && (a.id < b.id || self.is_rounded(a, b)))
    }

    /// Whether the distances of two rows may be equal or not by the order in which the squares are
    /// added, and by the root: if they are floats, and of other rows.
    fn is_rounded(&self, a: &Neighbor, b: &Neighbor) -> bool {
        let [one, other] = [a, b].map(|neighbor| self.base.row(neighbor.id as usize));
        (self.base.floats().is_some() || self.queries.floats().is_some()) && one != other
    }

    /// What every index promises of a row of neighbours.
    fn promises(&self, row: &[Neighbor], truth: &[Neighbor], count: usize) -> Result<(), String> {
        if row.len() != count {
            return Err(format!("{} neighbours, not {count}", row.len()));
        }
        if !row.windows(2).all(|pair| self.ascends(&pair[0], &pair[1])) {
            return Err("not ascending, ties by id".to_owned());
        }
        let mut seen = vec![false; truth.len()];
        for neighbor in row {
            if std::mem::replace(&mut seen[neighbor.id as usize], true) {
                return Err(format!("row {} twice", neighbor.id));
            }
            let truly = truth.iter().find(|truly| truly.id == neighbor.id).unwrap();
            if !same(neighbor, truly) {
                return Err(format!("{neighbor:?} is at {}", truly.distance));
            }
        }
        Ok(())
    }
}

/// The definition: all distances in f64, sorted by distance and then id.
fn scan(base: &Vectors, queries: &Vectors, query: usize) -> Vec<Neighbor> {
    let query = queries.row_to_floats(query);
    let distance = |id: usize| {
        let row = base.row_to_floats(id);
        let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
        row.iter().zip(&query).map(square).sum::<f64>().sqrt()
    };
    let neighbor = |id: usize| Neighbor {
        id: id as u32,
        distance: distance(id),
    };
    let mut all: Vec<Neighbor> = (0..base.len()).map(neighbor).collect();
    all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    all
}

/// The parameters of the build and of the search.
pub fn settings(entry: &Entry, seed: u64) -> [Settings; 2] {
    if seed.is_multiple_of(2) {
        return [Settings::default(), Settings::default()];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    [entry.build_sweep(), entry.query_sweep()].map(|sweep| sweep.choose(&mut rng).unwrap().clone())
}

/// What an index finds, built and asked on so many threads.
fn found(entry: &Entry, case: &Case, threads: usize) -> Result<Neighbors, String> {
    let [build, search] = settings(entry, case.seed);
    let work = || {
        let built = (entry.build)(Arc::clone(&case.base), &build);
        let index: Box<dyn Index> = built.and_then(|built| built(&search)).unwrap();
        index.query_batch(&case.queries, case.k).unwrap()
    };
    let run = || on_threads(threads, work).unwrap();
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| "panicked".to_owned())
}

/// Whether the index keeps its promises; or the first that it breaks.
pub fn check(entry: &Entry, case: &Case) -> Result<(), String> {
    let one = found(entry, case, 1)?;
    if found(entry, case, 3)? != one {
        return Err("another result on three threads".to_owned());
    }
    if one.len() != case.queries.len() {
        return Err(format!(
            "{} rows for {} queries",
            one.len(),
            case.queries.len()
        ));
    }
    for (query, (row, truth)) in one.iter().zip(&case.truth).enumerate() {
        let nearest = &truth[..case.k.min(truth.len())];
        case.promises(row, truth, nearest.len())
            .map_err(|error| format!("query {query}: {error}"))?;
        if entry.exact && !row.iter().zip(nearest).all(|(a, b)| case.ties(a, b)) {
            return Err(format!("query {query}: not what the scan finds"));
        }
    }
    Ok(())
}

/// The same row at the same distance.
fn same(a: &Neighbor, b: &Neighbor) -> bool {
    a.id == b.id && same_distance(a, b)
}

/// The same distance, but for the order in which the squares were added.
fn same_distance(a: &Neighbor, b: &Neighbor) -> bool {
    (a.distance - b.distance).abs() <= 1e-12 * b.distance
}
