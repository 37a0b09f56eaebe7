//! Exhaustive search: every vector is compared with every query.

use std::sync::Arc;

use rayon::prelude::*;

use super::{BuildError, Index, QueryError, check_base, check_query, check_shape};
use crate::dataset::{Row, Vectors};
use crate::distance::{Metric, Ranker};
use crate::neighbor::{Neighbor, Neighbors, TopK};

/// Exhaustive search (*brute force*, FAISS `Flat`): exact, nothing to build, O(n·d) a query.
#[derive(Debug, Clone)]
pub struct BruteForce {
    base: Arc<Vectors>,
    metric: Metric,
}

impl BruteForce {
    /// Keeps the vectors; there is nothing else to prepare.
    ///
    /// # Errors
    /// If `base` is empty.
    pub fn build(base: Arc<Vectors>, metric: Metric) -> Result<Self, BuildError> {
        check_base(&base)?;
        Ok(Self { base, metric })
    }

    /// The metric in which it searches.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    fn scan(&self, query: Row<'_>, k: usize) -> Vec<Neighbor> {
        let ranker = Ranker::new(&self.base, self.metric, query);
        let mut top = TopK::new(k.min(self.base.len()));
        for id in 0..self.base.len() {
            top.push(id as u32, ranker.rank(id));
        }
        top.into_neighbors(self.metric)
    }
}

impl Index for BruteForce {
    fn name(&self) -> &'static str {
        "Brute force"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    fn len(&self) -> usize {
        self.base.len()
    }

    fn dim(&self) -> usize {
        self.base.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.base.memory_bytes()
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        Ok(self.scan(Row::Floats(query), k))
    }

    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_shape(queries.dim(), k, self.dim())?;
        let rows: Vec<_> = (0..queries.len()).into_par_iter().map(|row| self.scan(queries.row(row), k)).collect();
        Ok(rows.into_iter().collect())
    }
}
