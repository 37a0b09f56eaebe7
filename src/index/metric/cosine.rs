//! Search by the angle: [`Cosine`].

use std::sync::Arc;

use super::check_euclidean;
use crate::distance::Metric;
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, QueryError, check_base};
use crate::neighbor::Candidate;
use crate::vectors::{Row, Vectors, normalize};

/// An index by cosine: the rows of the smallest angle with the query, whatever their length.
///
/// Rows and queries are divided by their length, in f64 and rounded once to f32, and `I` searches
/// these by Euclidean distance. Distances are 1 − cos, from 0 (the same direction) to 2 (the
/// opposite one): half the squared Euclidean distance of the normalised vectors. Where `I` is exact
/// the answer is that of comparing all normalised rows, in f64, ties by id.
///
/// A vector of zeros has no direction. In the base it is an error that names the row, and so it is
/// as a query.
///
/// **What it is bad at**: bytes. The normalised rows are floats, four times as large, and searched
/// without the exact and fast arithmetic of bytes.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// // A long row at 45°, one along the first axis, one along the second.
/// let base = Arc::new(Vectors::from_bytes(2, vec![100, 100, 2, 0, 0, 1])?);
/// let index = Cosine::<VaFile>::build(base, VaFileParams::default())?;
/// let nearest = index.query(&[7u8, 0], 3)?;
/// assert_eq!(nearest[0], Neighbor { id: 1, distance: 0.0 });
/// assert!((nearest[1].distance - (1.0 - 0.5f64.sqrt())).abs() < 1e-7); // 1 − cos 45°
/// assert!((nearest[2].distance - 1.0).abs() < 1e-7); // a right angle
/// assert_eq!(index.query(&[0u8, 0], 3), Err(QueryError::ZeroVector));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cosine<I> {
    /// Over the normalised rows.
    inner: I,
}

impl<I> Cosine<I> {
    /// The index that searches the normalised rows.
    #[must_use]
    pub fn inner(&self) -> &I {
        &self.inner
    }
}

impl<I: Build> Build for Cosine<I> {
    const KEY: &'static str = I::KEY;
    const NAME: &'static str = I::NAME;
    const EXACT: bool = I::EXACT;
    type Params = I::Params;
    type Search = I::Search;

    /// Normalises the rows, a copy of n × d floats, and builds `I` over them.
    ///
    /// # Errors
    /// If a row is all zeros, `I` refuses the rows or its parameters, or these say another metric
    /// than Euclidean.
    fn build(base: Arc<Vectors>, params: I::Params) -> Result<Self, BuildError> {
        check_base(&base)?;
        if let Some(row) = (0..base.len()).find(|&row| base.row(row).is_zero()) {
            return Err(BuildError::ZeroVector { row });
        }
        let inner = I::build(Arc::new(base.normalized()), params)?;
        Ok(Self {
            inner: check_euclidean(inner, Metric::Cosine)?,
        })
    }

    fn with_search(&self, search: I::Search) -> Result<Self, BuildError> {
        Ok(Self {
            inner: self.inner.with_search(search)?,
        })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        saved.set_metric(Metric::Euclidean);
        Ok(Self {
            inner: check_euclidean(I::from_parts(saved)?, Metric::Cosine)?,
        })
    }
}

impl<I: Build> Index for Cosine<I> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        self.inner.params()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }

    fn metric(&self) -> Metric {
        Metric::Cosine
    }

    fn returns_estimates(&self) -> bool {
        self.inner.returns_estimates()
    }

    fn check_query(&self, query: Row<'_>) -> Result<(), QueryError> {
        if query.is_zero() {
            return Err(QueryError::ZeroVector);
        }
        Ok(())
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        // The reduced distance of cosine is the squared Euclidean one, so that what `inner` finds
        // is the answer.
        self.inner.search(Row::Floats(&normalized(query)), k)
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let query = normalized(query);
        self.inner.search_within(Row::Floats(&query), reduced, most)
    }

    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        self.inner.search_batch(&queries.normalized(), k)
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        // The header has the metric.
        self.inner.parts(parts);
    }
}

/// The query divided by its length.
fn normalized(query: Row<'_>) -> Vec<f32> {
    let mut values = query.to_floats().into_owned();
    normalize(&mut values);
    values
}
