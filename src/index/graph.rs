//! Indexes that walk along a graph of near neighbours.
//!
//! All of them join each row to some rows near it, begin a search somewhere, and go on from the
//! nearest row found so far to its neighbours, until nothing nearer turns up:
//!
//! ```text
//!            o-----o              q: the query
//!           /     / \             @: a row whose neighbours the search has looked at
//!    start @--@--@---o            o: a row that it has only compared
//!           \  \  \  |            .: rows that it never sees
//!            o  o  @-q-o     .  .
//!                  |/  |    . .
//!                  o---o      .  .
//! ```
//!
//! [`Hnsw`] and [`InstantDistance`] are one kind of graph, built by us and by a crate. The others
//! differ in which edges they keep, in where a search begins, and in how they compare the
//! query with a row. What they share is here: the edges and the walk ([`links`]), the search for
//! near rows from which a graph is made ([`near_rows`]), and short codes of rows ([`codes`]).

mod codes;
mod hnsw;
mod links;
mod near_rows;
mod ngt;
mod quantized_graph;

pub use self::hnsw::{Hnsw, HnswParams, HnswSearch, InstantDistance, InstantDistanceParams};
pub use self::ngt::{Ngt, NgtParams, NgtSearch};
pub use self::quantized_graph::{QuantizedGraph, QuantizedGraphParams, QuantizedGraphSearch};
