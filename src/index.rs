//! The [`Index`] trait, its errors, and the indexes themselves, one file each.
//!
//! A new index is one file, one `mod` line here, one row in the [registry], and one line in the conformance suite
//! (`tests/conformance.rs`).

use std::fmt::Debug;
use std::sync::Arc;

use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

mod exact;
mod graph;
mod ivf;
pub mod registry;
mod support;
mod tree;

pub use self::exact::brute_force::BruteForce;
pub use self::exact::va_file::{Plan, VaFile, VaFileParams};
pub use self::graph::hnsw::{Hnsw, HnswParams};
pub use self::graph::ngt::{Ngt, NgtParams};
pub use self::graph::quantized_graph::{QuantizedGraph, QuantizedGraphParams};
pub use self::ivf::ivf_flat::{IvfFlat, IvfFlatParams};
pub use self::ivf::ivf_pq::{IvfPq, IvfPqParams};
pub use self::ivf::scann::{Scann, ScannParams};
pub use self::tree::annoy::{Annoy, AnnoyParams, Hyperplane};
pub use self::tree::ball_tree::{Ball, BallTree, BallTreeParams};
pub use self::tree::kd_tree::{KdTree, KdTreeParams};
pub use crate::error::{BuildError, QueryError};

/// What was built over a set of vectors and finds the nearest of them to a query.
///
/// An index is what was built, shared behind an `Arc`, and its query knobs: a method such as `with_search_k` gives
/// another `Index` over the same structure, free to make. So a sweep is a list of indexes.
pub trait Index: Debug + Send + Sync + 'static {
    /// What it is called in tables and charts: "Annoy".
    fn name(&self) -> &'static str;

    /// Build and query parameters under their names in the original library: chart labels and CSV columns.
    fn params(&self) -> Vec<(&'static str, f64)>;

    /// n, the number of vectors that it holds.
    fn len(&self) -> usize;

    /// Whether it holds no vector. No index is built empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// d, the dimension of its vectors and queries.
    fn dim(&self) -> usize;

    /// Bytes of memory that it takes, the vectors that it keeps included.
    fn memory_bytes(&self) -> usize;

    /// Up to `k` nearest vectors, ascending by true distance, ties by id; all n if `k` is more than n.
    /// `query` is d values.
    ///
    /// # Errors
    /// If `k` is zero, or the query has another dimension or a value that is not finite.
    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError>;

    /// The same for each row of `queries` (m × d): m rows of neighbours, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`Index::query`], for the first row that is refused.
    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        query_rows(self, queries, k)
    }
}

/// What a search looked at, to show how much of its work an index saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visits {
    /// Leaves whose rows were looked at.
    pub leaves: usize,
    /// Rows that were looked at: by a bound, where not at once by their distance.
    pub bounds: usize,
    /// Rows whose true distance was computed.
    pub distances: usize,
}

/// The plain batch: [`Index::query`] for each row.
fn query_rows<I: Index + ?Sized>(
    index: &I,
    queries: &Vectors,
    k: usize,
) -> Result<Neighbors, QueryError> {
    use rayon::prelude::*;
    check_shape(queries.dim(), k, index.dim())?;
    let rows: Result<Vec<_>, _> = (0..queries.len())
        .into_par_iter()
        .map(|row| match queries.row(row) {
            crate::vectors::Row::Floats(query) => index.query(query, k),
            crate::vectors::Row::Bytes(_) => index.query(&queries.row_to_floats(row), k),
        })
        .collect();
    Ok(rows?.into_iter().collect())
}

/// The check that every `query` makes first.
fn check_query(query: &[f32], k: usize, dim: usize) -> Result<(), QueryError> {
    check_shape(query.len(), k, dim)?;
    // All values first, without a branch: that is one pass of SIMD.
    if query
        .iter()
        .fold(true, |finite, value| finite & value.is_finite())
    {
        return Ok(());
    }
    match query.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(QueryError::NotFinite {
            position,
            value: query[position],
        }),
        None => Ok(()),
    }
}

/// The check that every `query_batch` makes first; the values of [`Vectors`] are finite already.
fn check_shape(received: usize, k: usize, dim: usize) -> Result<(), QueryError> {
    if k == 0 {
        return Err(QueryError::ZeroK);
    }
    if received != dim {
        return Err(QueryError::WrongDimension {
            expected: dim,
            received,
        });
    }
    Ok(())
}

/// The check that every `build` makes first.
fn check_base(base: &Arc<Vectors>) -> Result<(), BuildError> {
    if base.is_empty() {
        Err(BuildError::Empty)
    } else {
        Ok(())
    }
}
