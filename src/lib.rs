//! k-nearest neighbours: exact and approximate indexes behind one trait, made to be measured against each other.

#![warn(missing_docs)]

pub mod classify;
pub mod dataset;
pub mod distance;
pub mod evaluate;
pub mod fashion;
pub mod index;
pub mod neighbor;
