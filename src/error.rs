//! Why an index could not be built, and why a query could not be answered.

use thiserror::Error;

use crate::distance::Metric;
use crate::math::pca::PcaError;

/// Why an index could not be built.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BuildError {
    /// There is nothing to search in.
    #[error("an index needs at least one vector")]
    Empty,
    /// A parameter is outside its range.
    #[error("{name} is {received}; expected {expected}")]
    InvalidParameter {
        /// The parameter's name, as in `Params`.
        name: &'static str,
        /// What was given.
        received: f64,
        /// What is accepted.
        expected: &'static str,
    },
    /// The index has no parameter of that name.
    #[error("there is no parameter {received:?} (known: {expected})")]
    UnknownParameter {
        /// The name that was given.
        received: String,
        /// The names that there are.
        expected: String,
    },
    /// The index does not search by the metric.
    #[error("{index} does not search by {metric}: {instead}")]
    Metric {
        /// The index's name.
        index: &'static str,
        /// The metric's name.
        metric: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// A row of zeros has no direction, so that there is no cosine with it.
    #[error("row {row} is all zeros: it has no direction, and no cosine with anything")]
    ZeroVector {
        /// Which row.
        row: usize,
    },
    /// A row is longer than a float can say.
    #[error(
        "row {row} is {length:e} long; an inner product takes rows of up to {:e}",
        f32::MAX
    )]
    TooLong {
        /// Which row.
        row: usize,
        /// Its Euclidean length.
        length: f64,
    },
    /// The system gave no thread to build on.
    #[error("no thread to build on: {reason}")]
    NoThread {
        /// What the system said.
        reason: String,
    },
}

/// Why a query could not be answered.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum QueryError {
    /// k is zero.
    #[error("k is 0; expected at least 1")]
    ZeroK,
    /// The query does not have the dimension of the index.
    #[error("the query has {received} dimensions; the index has {expected}")]
    WrongDimension {
        /// Dimension of the index.
        expected: usize,
        /// Dimension of the query.
        received: usize,
    },
    /// A value of the query is NaN or infinite.
    #[error("value {position} of the query is {value}: queries must be finite")]
    NotFinite {
        /// Where it stands in the query.
        position: usize,
        /// The value itself.
        value: f32,
    },
    /// A query of zeros has no direction, so that there is no cosine with it.
    #[error("the query is all zeros: it has no direction, and no cosine with anything")]
    ZeroVector,
    /// The radius of a search is NaN, or negative where no distance is.
    #[error("the radius is {radius}; expected a number that is not negative")]
    BadRadius {
        /// What was given.
        radius: f64,
    },
    /// More rows are within the radius than the caller has room for.
    #[error(
        "more than {limit} rows are within the radius; ask for a smaller one or a higher limit"
    )]
    TooMany {
        /// The most that were to be returned.
        limit: usize,
    },
    /// The index cannot search within a radius.
    #[error(
        "{index} finds the k nearest only; within a radius, exact indexes search: brute force, \
         VA+-file, KD-tree, ball tree"
    )]
    NoRadius {
        /// The index's name.
        index: &'static str,
    },
    /// One query of a batch could not be answered.
    #[error("query {row} of the batch: {source}")]
    OfBatch {
        /// Which one, from 0.
        row: usize,
        /// Why not.
        source: Box<QueryError>,
    },
}

impl BuildError {
    /// That an index does not search by the metric, and what does.
    pub(crate) fn metric(index: &'static str, metric: Metric) -> Self {
        Self::Metric {
            index,
            metric: metric.name(),
            instead: match metric {
                Metric::Euclidean => {
                    "an index by cosine or inner product is made of one by euclidean"
                }
                Metric::Manhattan => "brute force and the ball tree do",
                Metric::Cosine => "the wrapper `Cosine` makes it do so",
                Metric::InnerProduct => "the wrapper `InnerProduct` makes it do so",
            },
        }
    }
}

impl From<PcaError> for BuildError {
    fn from(error: PcaError) -> Self {
        match error {
            PcaError::Empty => Self::Empty,
            PcaError::NoRows => Self::InvalidParameter {
                name: "max_rows",
                received: 0.0,
                expected: "at least 1",
            },
        }
    }
}
