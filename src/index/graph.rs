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
//! near rows from which a graph is made ([`near_rows`]), short codes of rows ([`codes`]), and which
//! rows are equal ([`copies`]).

/// An expression for a number of cache lines that is known only at run time. In it, the number is a
/// constant of the given name.
macro_rules! with_lines {
    ($lines:expr, $name:ident => $result:expr) => {
        with_lines!(@ $lines, $name => $result, 1 2 3 4)
    };
    (@ $lines:expr, $name:ident => $result:expr, $($count:literal)*) => {
        match $lines {
            $($count => {
                const $name: usize = $count;
                $result
            })*
            lines => unreachable!("codes of {lines} lines"),
        }
    };
}

mod code_plan;
mod codes;
mod copies;
mod hnsw;
mod links;
mod near_rows;
mod ngt;
mod quantized_graph;

pub use self::hnsw::{
    Hnsw, HnswParams, HnswSearch, InstantDistance, InstantDistanceParams, InstantDistanceSearch,
};
pub use self::ngt::{Ngt, NgtParams, NgtSearch};
pub use self::quantized_graph::{QuantizedGraph, QuantizedGraphParams, QuantizedGraphSearch};
