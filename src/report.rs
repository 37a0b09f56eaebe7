//! Results as polars tables, plotters charts and the rich output of a notebook.

pub mod chart;
pub mod gallery;
pub mod notebook;
pub mod table;
