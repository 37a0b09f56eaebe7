//! Principal components and clusters, on which several indexes stand.

pub mod kmeans;
pub mod pca;
