//! Why an index could not be built, and why a query could not be answered.

use thiserror::Error;

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
    /// The radius of a search is NaN, or negative where no distance is.
    #[error("the radius is {radius}; expected a number that is not negative")]
    BadRadius {
        /// What was given.
        radius: f64,
    },
    /// More rows are within the radius than the caller has room for.
    #[error("more than {limit} rows are within the radius; ask for a smaller one or a higher limit")]
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
