//! k-nearest neighbours over Parquet shards, on [Apache DataFusion] in one process or on
//! [Apache Ballista] over many machines, with the indexes of `fashion-knn`.
//!
//! ```text
//! shards of the base --+ partition by partition          all candidates of a query
//!                      |- KnnExec: k nearest in each -- shuffle -- dense_rank, sums -- the client
//! file of queries -----+ of them                                                       checks
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`schema`] | how vectors stand in Parquet |
//! | [`shards`] | the files of a base or of queries: listed, and checked by their footers |
//! | [`operator`] | `KnnExec`, which searches a partition; what it is on the wire; its indexes |
//! | [`plan`] | the query as SQL over the operator |
//! | [`engine`] | where a plan runs: in this process, or on a Ballista scheduler |
//! | [`answer`] | the answer, and the proof that no candidate is missing in it |
//! | [`job`] | a query from its files to a proved answer: deadline, retries |
//! | [`serve`] | the scheduler and the executor |
//! | [`write`](mod@write) | writing shards and answers |
//! | [`command`] | the commands of `knn-cluster` |
//!
//! [Apache DataFusion]: https://datafusion.apache.org
//! [Apache Ballista]: https://datafusion.apache.org/ballista

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod answer;
pub mod command;
pub mod engine;
pub mod error;
pub mod job;
pub mod operator;
pub mod plan;
pub mod schema;
pub mod serve;
pub mod shards;
pub mod write;
