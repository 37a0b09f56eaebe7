//! The laboratory: how good and how fast an index is, on which data, with which settings.
//!
//! ```text
//! vectors --> Task (base, queries, true neighbours)
//!               | run, measure              (evaluate: recall, latency, queries a second)
//!               v
//!             Measurement --> record (data/results/*.csv) --> frontier --> the notebooks
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`classified`] | what classifiers said of the same images, and how they compare |
//! | [`evaluate`] | recall, accuracy, the confusion matrix, timed queries |
//! | [`task`] | a base with queries and their true neighbours; measures an index on it |
//! | [`sweep`] | an index built once and asked with one setting after another, in a lesson |
//! | [`record`] | the measured rows and the one schema of their CSV files |
//! | [`machine`] | processor, memory bandwidth, commit and day of a measurement |
//! | [`names`] | what the record calls data, so that no two share a name |
//! | [`frontier`] | which rows no other beats; queries a second at a given recall |
//! | [`tune`] | the cheapest setting of an index that reaches a wanted recall |
//! | [`difficulty`] | how hard data are to search |
//! | [`statistics`] | the interval around a share; the test between two classifiers |
//! | [`calibration`] | whether a classifier knows how sure it can be |
//! | [`neighbourhood`] | copies, doubtful labels and hubs, read from the k-NN graph |
//! | [`learning`] | learning curves and their record |
//! | [`layout`] | a map: images in the plane, neighbours together |
//! | [`shapes`] | tables of hard shapes, from a seed |

#[cfg(feature = "files")]
mod build_cache;
pub mod calibration;
#[cfg(feature = "files")]
pub mod classified;
pub mod difficulty;
pub mod evaluate;
#[cfg(feature = "files")]
pub mod frontier;
pub mod layout;
#[cfg(feature = "files")]
pub mod learning;
#[cfg(feature = "files")]
pub mod machine;
#[cfg(feature = "files")]
pub mod names;
pub mod neighbourhood;
#[cfg(feature = "files")]
mod npy_export;
#[cfg(feature = "files")]
pub mod record;
pub mod shapes;
pub mod statistics;
#[cfg(feature = "files")]
pub mod sweep;
#[cfg(feature = "files")]
pub mod task;
#[cfg(feature = "files")]
mod truth_cache;
pub mod tune;
