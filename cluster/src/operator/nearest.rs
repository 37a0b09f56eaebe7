//! The candidates of a partition, and how they become rows of the plan.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Builder, RecordBatch, UInt64Builder};
use datafusion::common::Result;
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Index};
use fashion_knn::vectors::Vectors;

use super::{KnnExec, lasting};
use crate::schema::{Block, Rows};

/// A row near a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    pub(super) reduced: f64,
    pub(super) id: u64,
}

/// The nearest rows of a partition.
#[derive(Debug)]
pub(super) struct Nearest {
    pub(super) k: usize,
    /// For each query, ascending by reduced distance and then id.
    pub(super) rows: Vec<Vec<Near>>,
    /// What names the partition ([`token`](super::partition::token)).
    pub(super) token: u64,
}

impl Nearest {
    /// Nothing yet, for so many queries.
    pub(super) fn none(queries: usize, k: usize) -> Self {
        let rows = vec![Vec::new(); queries];
        Self { k, rows, token: 0 }
    }

    /// The nearest of these and of the rows of a block.
    pub(super) fn with_block(mut self, mut block: Block, queries: &Vectors) -> Result<Self> {
        let Rows { ids, vectors } = block.take().map_err(lasting)?;
        let index = BruteForce::build(Arc::new(vectors), BruteForceParams::default());
        let index = index.map_err(lasting)?;
        let found = index.search_batch(queries, self.k);
        for (row, found) in self.rows.iter_mut().zip(found) {
            row.extend(found.into_iter().map(|candidate| Near {
                reduced: candidate.reduced,
                id: ids[candidate.id as usize],
            }));
            row.sort_unstable_by(|a, b| a.reduced.total_cmp(&b.reduced).then(a.id.cmp(&b.id)));
            row.truncate(self.k);
        }
        Ok(self)
    }

    /// The candidates as batches of [`KnnExec::output`].
    pub(super) fn batches(&self, query_ids: &[u64]) -> Result<Vec<RecordBatch>> {
        /// As many rows as the engine's own batches have.
        const BATCH_ROWS: usize = 8192;
        let mut batches = Vec::new();
        let mut columns = Columns::default();
        for (&query, row) in query_ids.iter().zip(&self.rows) {
            columns.push(query, row, self.token);
            if columns.rows >= BATCH_ROWS {
                batches.push(std::mem::take(&mut columns).batch()?);
            }
        }
        if columns.rows > 0 {
            batches.push(columns.batch()?);
        }
        Ok(batches)
    }
}

/// The columns of a batch while it is made.
#[derive(Default)]
struct Columns {
    rows: usize,
    query_id: UInt64Builder,
    id: UInt64Builder,
    reduced: Float64Builder,
    token: UInt64Builder,
    found: UInt64Builder,
}

impl Columns {
    /// The candidates of a query, or the row that says that there are none.
    fn push(&mut self, query: u64, row: &[Near], token: u64) {
        let none = [None];
        let some: Vec<Option<Near>> = row.iter().copied().map(Some).collect();
        let candidates = if some.is_empty() { &none[..] } else { &some };
        for (at, near) in candidates.iter().enumerate() {
            self.query_id.append_value(query);
            self.id.append_option(near.map(|near| near.id));
            self.reduced
                .append_value(near.map_or(f64::INFINITY, |near| near.reduced));
            let is_first = at == 0;
            self.token.append_value(if is_first { token } else { 0 });
            self.found
                .append_value(if is_first { row.len() as u64 } else { 0 });
        }
        self.rows += candidates.len();
    }

    fn batch(mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.query_id.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.reduced.finish()),
            Arc::new(self.token.finish()),
            Arc::new(self.found.finish()),
        ];
        Ok(RecordBatch::try_new(KnnExec::output(), columns)?)
    }
}
