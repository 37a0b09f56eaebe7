//! Indexes that walk along a graph of near neighbours.

mod hnsw;
mod links;
mod ngt;
mod quantized_graph;

pub use self::hnsw::{Hnsw, HnswParams, HnswSearch};
pub use self::ngt::{Ngt, NgtParams, NgtSearch};
pub use self::quantized_graph::{QuantizedGraph, QuantizedGraphParams, QuantizedGraphSearch};
