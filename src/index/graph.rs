//! Indexes that walk along a graph of near neighbours.

pub(crate) mod hnsw;
pub(crate) mod links;
pub(crate) mod ngt;
pub(crate) mod quantized_graph;
