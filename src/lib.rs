//! k-nearest neighbours: exact and approximate indexes behind one trait, made to be measured against each other.

#![warn(missing_docs)]

pub mod dataset;
pub mod distance;
pub mod index;
mod kernel;
pub mod kmeans;
pub mod neighbor;
pub mod pca;
