//! The [`Index`] trait, how an index is built ([`Build`]) and asked ([`Query`]), and the indexes
//! themselves.
//!
//! An index has three sides:
//! - [`Build`] makes it: `Annoy::build(base, AnnoyParams::default())`, and `with_search` gives
//!   another index over the same structure with other search parameters;
//! - [`Index`] is what it can do, without its type: `Box<dyn Index>`. Its one search method is
//!   [`Index::search`];
//! - [`Query`] is what callers use. It checks the query first, the same for all indexes.
//!
//! | family | indexes |
//! |---|---|
//! | exact | [`BruteForce`], [`VaFile`] |
//! | trees | [`KdTree`] and [`BallTree`] (exact), [`Annoy`] |
//! | graphs | [`Hnsw`], [`InstantDistance`], [`Ngt`], [`QuantizedGraph`] |
//! | inverted lists | [`IvfFlat`], [`IvfPq`], [`Scann`] |
//!
//! Each of them searches by Euclidean distance. [`Cosine`] and [`InnerProduct`] make any of them
//! search by these. By Manhattan distance [`BruteForce`] and [`BallTree`] search. Within a radius
//! ([`Query::within`]) the exact ones do.
//!
//! A new index is one file, one line in the file of its family, and one line in the [registry]:
//! `ARCHITECTURE.md`, "Add an index", goes through it step by step.

use std::fmt::Debug;
use std::sync::Arc;

use rayon::prelude::*;

use self::parts::{PartError, Parts, Saved};
use crate::distance::{Metric, Norm};
use crate::neighbor::{Candidate, Neighbor, Neighbors};
use crate::vectors::{Row, Vectors};

mod exact;
mod graph;
mod ivf;
mod metric;
pub(crate) mod parameters;
pub mod parts;
pub mod registry;
#[cfg(feature = "files")]
pub mod saved;
mod support;
mod tree;

pub use self::exact::*;
pub use self::graph::*;
pub use self::ivf::*;
pub use self::metric::*;
pub use self::parameters::{Knob, NoParameters, Parameters, Settings, SettingsError};
#[cfg(feature = "files")]
pub use self::saved::{Load, Save, SavedError};
pub use self::tree::*;
pub use crate::error::{BuildError, QueryError};

/// What was built over a set of vectors and finds the nearest of them to a query.
///
/// This is the side of those who write an index; those who use one call the methods of [`Query`].
///
/// An index is what was built, shared behind an `Arc`, and its search parameters:
/// [`Build::with_search`] gives another index over the same structure, free to make. So a sweep is
/// a list of indexes.
pub trait Index: Debug + Send + Sync + 'static {
    /// What it is called in tables and charts: "Annoy".
    fn name(&self) -> &'static str;

    /// Build and search parameters under their names in the original library: chart labels, columns
    /// of the record.
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

    /// The metric of its distances.
    fn metric(&self) -> Metric {
        Metric::Euclidean
    }

    /// Whether the distances that it returns are estimates: those of an index that keeps codes and
    /// no vectors.
    ///
    /// All others return the true distances of the rows that they found, however many they missed.
    fn returns_estimates(&self) -> bool {
        false
    }

    /// Lists what it is saved as: what [`Build::from_parts`] needs to make it again.
    fn parts<'a>(&'a self, parts: &mut Parts<'a>);

    /// What it asks of a query of d finite values besides. Most take any.
    ///
    /// # Errors
    /// If it has no answer to the query.
    fn check_query(&self, query: Row<'_>) -> Result<(), QueryError> {
        let _ = query;
        Ok(())
    }

    /// The min(`k`, n) nearest that it finds, ascending by reduced distance, ties by id, and what
    /// it looked at.
    ///
    /// It may rely on what [`Query`] has checked: `k` is at least 1, and `query` has d values, all
    /// finite, and has passed [`Index::check_query`].
    fn search(&self, query: Row<'_>, k: usize) -> Found;

    /// The rows of a reduced distance of at most `reduced`, or the `most` nearest of them if they
    /// are more, ascending, ties by id. `None` if the index cannot tell that it found all of them:
    /// only exact indexes can.
    ///
    /// It may rely on what [`Index::search`] may rely on; `most` is at least 1, and `reduced` not
    /// NaN.
    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let _ = (query, reduced, most);
        None
    }

    /// [`Index::search`] for each row of `queries` (m × d), on the threads of the current rayon
    /// pool.
    ///
    /// An index that gains by seeing all queries at once overrides it.
    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        // One task a query. Rayon keeps the order of the rows.
        let search = |row| self.search(queries.row(row), k).candidates;
        (0..queries.len()).into_par_iter().map(search).collect()
    }
}

/// What a search found, and what it looked at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The nearest rows, ascending by reduced distance, ties by id.
    pub candidates: Vec<Candidate>,
    /// How much work it was.
    pub visits: Visits,
}

/// What a search looked at, to show how much of its work an index saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visits {
    /// Leaves, lists or nodes whose rows were looked at.
    pub leaves: usize,
    /// Rows that were looked at: by a bound or a code, where not at once by their distance.
    pub bounds: usize,
    /// Rows whose true distance was computed.
    pub distances: usize,
}

impl Visits {
    /// The work of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            leaves: self.leaves + other.leaves,
            bounds: self.bounds + other.bounds,
            distances: self.distances + other.distances,
        }
    }
}

/// How an index is built: what the registry needs to know of its type.
pub trait Build: Index + Clone + Sized {
    /// Its name on the command line and in the record: "annoy".
    const KEY: &'static str;
    /// Its name in tables and charts: "Annoy".
    const NAME: &'static str;
    /// Whether it always returns the true neighbours.
    const EXACT: bool;
    /// Parameters that cost a new build.
    type Params: Parameters;
    /// Parameters that a search reads.
    type Search: Parameters;

    /// Builds the index over the rows of `base`, with the default search parameters.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, params: Self::Params) -> Result<Self, BuildError>;

    /// Makes it again of what [`Index::parts`] listed, with the same search parameters: it answers
    /// as before, to the last bit.
    ///
    /// What was read is not trusted: parts that do not fit together are an error here, so that no
    /// search can go beyond an array.
    ///
    /// # Errors
    /// If a part is missing, damaged, or does not fit the others.
    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError>;

    /// The same parameters for a search by Manhattan distance, if it has one. (By the other metrics
    /// any index searches: [`Cosine`], [`InnerProduct`].)
    fn manhattan(params: Self::Params) -> Option<Self::Params> {
        let _ = params;
        None
    }

    /// Another index over the same structure, searched with other parameters. The structure is
    /// shared, not copied.
    ///
    /// # Errors
    /// If a parameter is outside its range.
    fn with_search(&self, search: Self::Search) -> Result<Self, BuildError>;
}

/// How an index is asked: the checks that every query passes, then [`Index::search`].
///
/// It holds for every index and cannot be replaced, so that no index answers a query that another
/// would refuse.
pub trait Query: Index {
    /// Up to `k` nearest vectors, ascending by distance, ties by id; all n if `k` is more than n.
    ///
    /// `query` is d values: `&[f32]`, `&[u8]`, a `&Vec` or array of them, or a [`Row`].
    ///
    /// # Errors
    /// If `k` is zero, or the query has another dimension or a value that is not finite.
    fn query<'q>(&self, query: impl Into<Row<'q>>, k: usize) -> Result<Vec<Neighbor>, QueryError> {
        Ok(self.query_counted(query, k)?.0)
    }

    /// [`Query::query`], and what the search looked at.
    ///
    /// # Errors
    /// As [`Query::query`].
    fn query_counted<'q>(
        &self,
        query: impl Into<Row<'q>>,
        k: usize,
    ) -> Result<(Vec<Neighbor>, Visits), QueryError> {
        let query = query.into();
        // Here and not in each index: a search may read d values, and compare distances, without
        // looking at them again.
        check_k(k)?;
        check_query(self, query)?;
        let found = self.search(query, k);
        Ok((neighbors(found.candidates, self.metric()), found.visits))
    }

    /// [`Query::query`] for each row of `queries` (m × d): m rows of neighbours, on the threads of
    /// the current rayon pool.
    ///
    /// # Errors
    /// If `k` is zero, the queries have another dimension, or the index has no answer to one of
    /// them (a [`QueryError::OfBatch`] names its row). The values of [`Vectors`] are finite.
    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_k(k)?;
        check_queries(self, queries)?;
        // Indexes return reduced distances, squares for Euclidean. The roots are taken here, of the
        // neighbours alone.
        let rows = self.search_batch(queries, k).into_iter();
        Ok(rows.map(|row| neighbors(row, self.metric())).collect())
    }

    /// All vectors whose distance is at most `radius`, ascending by distance, ties by id. There may
    /// be none.
    ///
    /// A vector that [`Query::query`] reports at some distance is within that distance, and so are
    /// all that tie with it. `radius` is in the units of the index's metric, and may be infinite.
    /// [`Query::within_at_most`] takes another limit than [`WITHIN_LIMIT`].
    ///
    /// ```
    /// use fashion_knn::prelude::*;
    ///
    /// let base = Arc::new(Vectors::from_bytes(2, vec![0, 0, 4, 0, 0, 3, 9, 9])?);
    /// let index = BruteForce::build(base, BruteForceParams::default())?;
    /// let near = index.within(&[0u8, 0], 4.0)?;
    /// assert_eq!(near.iter().map(|near| near.id).collect::<Vec<_>>(), [0, 2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the index is not exact, `radius` is NaN or negative, the query is one that
    /// [`Query::query`] refuses, or more than [`WITHIN_LIMIT`] vectors are within `radius`.
    fn within<'q>(
        &self,
        query: impl Into<Row<'q>>,
        radius: f64,
    ) -> Result<Vec<Neighbor>, QueryError> {
        self.within_at_most(query, radius, WITHIN_LIMIT)
    }

    /// [`Query::within`], where more than `limit` vectors are an error. No more than `limit` + 1
    /// are ever kept.
    ///
    /// # Errors
    /// As [`Query::within`].
    fn within_at_most<'q>(
        &self,
        query: impl Into<Row<'q>>,
        radius: f64,
        limit: usize,
    ) -> Result<Vec<Neighbor>, QueryError> {
        let query = query.into();
        check_query(self, query)?;
        let reduced = reduced_radius(self.metric(), radius)?;
        let found = found_within(self, query, reduced, limit)?;
        Ok(neighbors(found, self.metric()))
    }

    /// [`Query::within_at_most`] for each row of `queries` (m × d): m rows of neighbours, each of
    /// up to `limit`, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`Query::within`]. What holds for one query only is a [`QueryError::OfBatch`] that names
    /// its row, one of them if there are several.
    fn within_batch(
        &self,
        queries: &Vectors,
        radius: f64,
        limit: usize,
    ) -> Result<Neighbors, QueryError> {
        check_queries(self, queries)?;
        let reduced = reduced_radius(self.metric(), radius)?;
        // The first error ends the batch: nothing more is searched or kept.
        let search = |row| {
            let found = found_within(self, queries.row(row), reduced, limit);
            let found = found.map_err(|error| of_batch(row, error))?;
            Ok(neighbors(found, self.metric()))
        };
        let rows: Result<Vec<_>, _> = (0..queries.len()).into_par_iter().map(search).collect();
        Ok(rows?.into_iter().collect())
    }
}

/// The most vectors that [`Query::within`] returns: a million, in 16 MB.
pub const WITHIN_LIMIT: usize = 1_000_000;

impl<I: Index + ?Sized> Query for I {}

/// What a search found, as those who asked get it.
fn neighbors(candidates: Vec<Candidate>, metric: Metric) -> Vec<Neighbor> {
    let neighbor = |candidate: Candidate| candidate.neighbor(metric);
    candidates.into_iter().map(neighbor).collect()
}

/// What `index` finds within a reduced distance, if that is no more than `limit` rows.
fn found_within<I: Index + ?Sized>(
    index: &I,
    query: Row<'_>,
    reduced: f64,
    limit: usize,
) -> Result<Vec<Candidate>, QueryError> {
    // One row more than the limit tells that there are too many.
    let found = index.search_within(query, reduced, limit.saturating_add(1));
    let Some(Found { candidates, .. }) = found else {
        return Err(QueryError::NoRadius {
            index: index.name(),
        });
    };
    if candidates.len() > limit {
        return Err(QueryError::TooMany { limit });
    }
    Ok(candidates)
}

/// The reduced distance up to which rows are within `radius`.
fn reduced_radius(metric: Metric, radius: f64) -> Result<f64, QueryError> {
    // An inner product may have either sign.
    if radius.is_nan() || (radius < 0.0 && metric != Metric::InnerProduct) {
        return Err(QueryError::BadRadius { radius });
    }
    Ok(metric.reduced_of_distance(radius))
}

/// An error of one query of a batch.
fn of_batch(row: usize, error: QueryError) -> QueryError {
    match error {
        // That is so for every query.
        QueryError::NoRadius { .. } => error,
        error => QueryError::OfBatch {
            row,
            source: Box::new(error),
        },
    }
}

fn check_k(k: usize) -> Result<(), QueryError> {
    if k == 0 {
        return Err(QueryError::ZeroK);
    }
    Ok(())
}

/// Whether a query of `received` values can be put to an index of `dim` dimensions.
fn check_dim(received: usize, dim: usize) -> Result<(), QueryError> {
    if received != dim {
        return Err(QueryError::WrongDimension {
            expected: dim,
            received,
        });
    }
    Ok(())
}

/// Whether a query can be put to the index.
fn check_query<I: Index + ?Sized>(index: &I, query: Row<'_>) -> Result<(), QueryError> {
    check_dim(query.len(), index.dim())?;
    if let Some((position, value)) = query.first_not_finite() {
        return Err(QueryError::NotFinite { position, value });
    }
    index.check_query(query)
}

/// Whether all of the queries can be put to the index.
fn check_queries<I: Index + ?Sized>(index: &I, queries: &Vectors) -> Result<(), QueryError> {
    check_dim(queries.dim(), index.dim())?;
    let check = |row| {
        index
            .check_query(queries.row(row))
            .map_err(|error| of_batch(row, error))
    };
    (0..queries.len()).try_for_each(check)
}

/// The check that every `build` makes first.
fn check_base(base: &Vectors) -> Result<(), BuildError> {
    if base.is_empty() {
        return Err(BuildError::Empty);
    }
    Ok(())
}

/// The norm of the metric, or that the index does not search by it.
fn norm_of<I: Build>(metric: Metric) -> Result<Norm, BuildError> {
    Norm::of(metric).ok_or(BuildError::metric(I::NAME, metric))
}
