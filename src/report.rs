//! What a report is made of: numbers as text, tables, charts, image galleries, notebook parameters.
//!
//! Each module uses only those above it:
//!
//! ```text
//! numbers    decimals, whole numbers, percentages as text
//! figure     an SVG figure, Markdown prose, their way to the notebook
//!   frame    results and the record as polars frames; the frontier of recall and speed
//!   table    a frame as an HTML table
//!   chart    curves, bars, matrices, pictures of the plane; interactive charts (Vega-Lite)
//!   gallery  rows of grey images
//!   pictures what several lessons draw alike: images with their neighbours, points of a plane
//!   maps     vectors as points of a plane, a colour a class
//!   words    what makes a cell short: the reader's column names, charts of several lessons
//! notebook   parameters from the environment
//! ```
//!
//! The library has no words of the reader's language: titles, axis names and labels are arguments.
//! Only the form of numbers is chosen here, in [`numbers::REPORT`].

pub mod chart;
pub mod figure;
pub mod frame;
pub mod gallery;
pub mod maps;
pub mod notebook;
pub mod numbers;
pub mod pictures;
pub mod table;
pub mod words;
