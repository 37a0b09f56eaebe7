//! The answer, and the proof that it is whole.
//!
//! Ballista 55 can end a job with rows missing or doubled after it has lost an executor, and say
//! that the job has succeeded. So the client believes no answer: it counts.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use fashion_knn::distance::Metric;
use thiserror::Error;

use crate::operator::partition::token;
use crate::operator::spec::Spec;
use crate::shards::Shards;

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// Queries without an answer.
    #[error("{missing} of {queries} queries have none, query {first} among them")]
    NoAnswer {
        /// How many.
        missing: usize,
        /// How many queries there are.
        queries: usize,
        /// One of them.
        first: u64,
    },
    /// An answer to what nobody asked.
    #[error("there is no query {0}, but an answer to it")]
    NoSuchQuery(u64),
    /// Rows of the base were searched twice, or not at all.
    #[error("query {0}: parts of the base were searched twice, or not at all")]
    Partitions(u64),
    /// Candidates were lost or doubled on their way.
    #[error("query {query}: {received} candidates have arrived of {sent}")]
    Candidates {
        /// The query.
        query: u64,
        /// How many were sent.
        sent: u64,
        /// How many arrived.
        received: u64,
    },
    /// Not as many neighbours as there must be.
    #[error("query {query}: {received} neighbours, expected {expected}")]
    Count {
        /// The query.
        query: u64,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        received: usize,
    },
    /// Ranks with gaps, or an id twice.
    #[error("query {0}: its neighbours are not ranked 1, 2, 3 ..., each once")]
    Ranks(u64),
}

/// A neighbour of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// The query.
    pub query: u64,
    /// 1 for the nearest.
    pub rank: u32,
    /// The neighbour.
    pub id: u64,
    /// The Euclidean distance between the two.
    pub distance: f64,
}

/// What has to be there.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The queries, ascending.
    pub queries: Vec<u64>,
    k: usize,
    /// How many rows the base has.
    rows: u64,
    /// The sum of the tokens of all partitions.
    tokens: u64,
    /// How many candidates a query has, if the index is exact.
    candidates: Option<u64>,
}

impl Expected {
    /// What an answer to these queries has to have.
    #[must_use]
    pub fn new(base: &Shards, queries: Vec<u64>, spec: &Spec) -> Self {
        let k = spec.k as u64;
        let token = |path: &str, rows| token([path].into_iter(), rows);
        let tokens = base
            .files
            .iter()
            .map(|file| token(file.meta.location.as_ref(), file.rows));
        let candidates = base.files.iter().map(|file| file.rows.min(k));
        Self {
            queries,
            k: spec.k,
            rows: base.rows(),
            tokens: tokens.sum(),
            candidates: spec.index.entry().exact.then(|| candidates.sum()),
        }
    }

    /// How many neighbours a query has, or at most has if the index is not exact.
    fn neighbors(&self) -> usize {
        usize::try_from(self.rows).map_or(self.k, |rows| rows.min(self.k))
    }

    /// The lines of the answer, by query and rank.
    ///
    /// # Errors
    /// If something is missing in it, or more than once.
    pub fn prove(&self, batches: &[RecordBatch]) -> Result<Vec<Line>, Fault> {
        let mut groups = groups(batches)?;
        let mut lines = Vec::with_capacity(self.queries.len() * self.neighbors());
        let mut missing = Vec::new();
        for &query in &self.queries {
            match groups.remove(&query) {
                None => missing.push(query),
                Some(group) => lines.extend(self.lines(query, group)?),
            }
        }
        if let Some(&query) = groups.keys().next() {
            return Err(Fault::NoSuchQuery(query));
        }
        let Some(&first) = missing.first() else {
            return Ok(lines);
        };
        let (missing, queries) = (missing.len(), self.queries.len());
        Err(Fault::NoAnswer {
            missing,
            queries,
            first,
        })
    }

    fn lines(&self, query: u64, mut group: Group) -> Result<Vec<Line>, Fault> {
        let Sums {
            tokens,
            found,
            received,
        } = group.sums;
        if tokens != self.tokens {
            return Err(Fault::Partitions(query));
        }
        let sent = self.candidates.unwrap_or(found);
        if found != sent || received != sent {
            return Err(Fault::Candidates {
                query,
                sent,
                received,
            });
        }
        // What the engine has sent twice is the same line twice.
        group.near.sort_unstable_by_key(|near| (near.rank, near.id));
        group.near.dedup();
        let (expected, received) = (self.neighbors(), group.near.len());
        if received > expected || (self.candidates.is_some() && received < expected) {
            return Err(Fault::Count {
                query,
                expected,
                received,
            });
        }
        let ranked = group
            .near
            .iter()
            .zip(1..)
            .all(|(near, rank)| near.rank == rank);
        let mut ids: Vec<u64> = group.near.iter().map(|near| near.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if !ranked || ids.len() != received {
            return Err(Fault::Ranks(query));
        }
        let line = |near: &Near| Line {
            query,
            rank: near.rank as u32,
            id: near.id,
            distance: Metric::Euclidean.distance_of_reduced(f64::from_bits(near.reduced_bits)),
        };
        Ok(group.near.iter().map(line).collect())
    }
}

/// What the engine has found for a query.
#[derive(Debug)]
struct Group {
    sums: Sums,
    near: Vec<Near>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sums {
    tokens: u64,
    found: u64,
    received: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Near {
    rank: u64,
    id: u64,
    reduced_bits: u64,
}

/// The rows of each query.
fn groups(batches: &[RecordBatch]) -> Result<HashMap<u64, Group>, Fault> {
    let mut groups: HashMap<u64, Group> = HashMap::new();
    for batch in batches {
        let column = |name| batch.column_by_name(name).expect("a column of the plan");
        let number = |name| column(name).as_primitive::<UInt64Type>();
        let (query, id, rank) = (number("query_id"), number("id"), number("rank"));
        let reduced = column("reduced").as_primitive::<Float64Type>();
        let (tokens, found, received) = (
            number("tokens"),
            number("found"),
            column("received").as_primitive::<Int64Type>(),
        );
        for row in 0..batch.num_rows() {
            let sums = Sums {
                tokens: tokens.value(row),
                found: found.value(row),
                received: received.value(row) as u64,
            };
            let query = query.value(row);
            let group = groups.entry(query).or_insert_with(|| Group {
                sums,
                near: Vec::new(),
            });
            // Two merges of one query, each with a part of its candidates.
            if group.sums != sums {
                return Err(Fault::Partitions(query));
            }
            // A null says that a partition has nothing for the query.
            if id.is_valid(row) {
                group.near.push(Near {
                    rank: rank.value(row),
                    id: id.value(row),
                    reduced_bits: reduced.value(row).to_bits(),
                });
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Array, Float64Array, Int64Array, UInt64Array};

    use super::*;

    /// Two partitions of 3 rows, whose tokens are 5 and 7; two queries, k = 2.
    fn expected(exact: bool) -> Expected {
        Expected {
            queries: vec![10, 11],
            k: 2,
            rows: 6,
            tokens: 12,
            candidates: exact.then_some(4),
        }
    }

    /// A row as the merge gives it.
    #[derive(Clone, Copy)]
    struct Row {
        query: u64,
        id: Option<u64>,
        reduced: f64,
        rank: u64,
        sums: Sums,
    }

    const WHOLE: Sums = Sums {
        tokens: 12,
        found: 4,
        received: 4,
    };

    fn row(query: u64, rank: u64, id: u64) -> Row {
        let (id, reduced, sums) = (Some(id), (rank * rank) as f64, WHOLE);
        Row {
            query,
            id,
            reduced,
            rank,
            sums,
        }
    }

    /// The right answer.
    fn right() -> Vec<Row> {
        vec![row(10, 1, 3), row(10, 2, 0), row(11, 1, 5), row(11, 2, 1)]
    }

    fn prove(expected: &Expected, rows: &[Row]) -> Result<Vec<Line>, Fault> {
        let numbers = |of: fn(&Row) -> u64| -> Arc<dyn Array> {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
        };
        let received = rows.iter().map(|row| row.sums.received as i64);
        let batch = RecordBatch::try_from_iter([
            ("query_id", numbers(|row| row.query)),
            (
                "id",
                Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.id))) as _,
            ),
            (
                "reduced",
                Arc::new(Float64Array::from_iter_values(
                    rows.iter().map(|r| r.reduced),
                )) as _,
            ),
            ("rank", numbers(|row| row.rank)),
            ("tokens", numbers(|row| row.sums.tokens)),
            ("found", numbers(|row| row.sums.found)),
            (
                "received",
                Arc::new(Int64Array::from_iter_values(received)) as _,
            ),
        ]);
        expected.prove(&[batch.unwrap()])
    }

    #[test]
    fn the_right_answer_in_any_order_and_with_a_row_twice() {
        let mut rows = right();
        rows.push(rows[1]);
        rows.reverse();
        let lines = prove(&expected(true), &rows).unwrap();
        let lines: Vec<_> = lines
            .iter()
            .map(|l| (l.query, l.rank, l.id, l.distance))
            .collect();
        assert_eq!(
            lines,
            [
                (10, 1, 3, 1.0),
                (10, 2, 0, 2.0),
                (11, 1, 5, 1.0),
                (11, 2, 1, 2.0)
            ]
        );
    }

    #[test]
    fn what_is_missing_or_doubled_is_found() {
        let fault = |change: fn(&mut Vec<Row>)| {
            let mut rows = right();
            change(&mut rows);
            prove(&expected(true), &rows).unwrap_err()
        };
        assert_eq!(
            fault(|rows| rows.truncate(2)),
            Fault::NoAnswer {
                missing: 1,
                queries: 2,
                first: 11
            }
        );
        assert_eq!(
            fault(|rows| rows.push(row(12, 1, 0))),
            Fault::NoSuchQuery(12)
        );
        // The first partition twice and the second not at all: as many rows and candidates.
        assert_eq!(
            fault(|rows| rows.iter_mut().for_each(|row| row.sums.tokens = 10)),
            Fault::Partitions(10)
        );
        // Two merges of one query.
        assert_eq!(
            fault(|rows| rows[1].sums.received = 3),
            Fault::Partitions(10)
        );
        assert_eq!(
            fault(|rows| rows.iter_mut().for_each(|row| row.sums.received = 3)),
            Fault::Candidates {
                query: 10,
                sent: 4,
                received: 3
            }
        );
        assert_eq!(
            fault(|rows| rows.truncate(3)),
            Fault::Count {
                query: 11,
                expected: 2,
                received: 1
            }
        );
        assert_eq!(fault(|rows| rows[1].rank = 3), Fault::Ranks(10));
        assert_eq!(fault(|rows| rows[1].id = Some(3)), Fault::Ranks(10));
        assert_eq!(
            fault(|rows| rows.push(row(10, 3, 4))),
            Fault::Count {
                query: 10,
                expected: 2,
                received: 3
            }
        );
    }

    #[test]
    fn an_approximate_index_may_find_fewer_but_loses_none_on_the_way() {
        let fewer = |received| {
            let mut rows = right();
            rows.remove(1);
            for row in &mut rows[..1] {
                row.sums = Sums {
                    tokens: 12,
                    found: 1,
                    received,
                };
            }
            rows
        };
        assert_eq!(prove(&expected(false), &fewer(1)).unwrap().len(), 3);
        assert_eq!(
            prove(&expected(false), &fewer(0)),
            Err(Fault::Candidates {
                query: 10,
                sent: 1,
                received: 0
            })
        );
        // None at all: a row says so.
        let mut none = right().split_off(2);
        none.push(Row {
            id: None,
            reduced: f64::INFINITY,
            sums: Sums {
                tokens: 12,
                found: 0,
                received: 0,
            },
            ..row(10, 1, 0)
        });
        assert_eq!(prove(&expected(false), &none).unwrap().len(), 2);
    }
}
