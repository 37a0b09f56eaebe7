//! The laboratory: how good and how fast an index is, on which data, with which settings.

pub mod difficulty;
pub mod evaluate;
#[cfg(feature = "files")]
pub mod frontier;
#[cfg(feature = "files")]
pub mod task;
pub mod tune;
