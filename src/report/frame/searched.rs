//! What lessons measure as rows of a frame, and single values of a frame for a sentence.

use std::sync::Arc;

use polars::prelude::{
    Column, DataFrame, IntoLazy, PlSmallStr, PolarsError, PolarsResult, Selector,
    UniqueKeepStrategy, by_name, element,
};

use polars::frame::PivotColumnNaming;

use super::{Tabular, column, numbers, texts};
use crate::lab::evaluate::{Evaluated, FirstLook, Speed};
use crate::lab::neighbourhood::Nearest;
use crate::lab::statistics::McNemar;
use crate::neighbor::Neighbor;

impl Tabular for Speed {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name.as_str()),
            column("queries", rows, |row| row.queries as u32),
            column("qps", rows, |row| row.qps),
            column("slowest", rows, |row| row.slowest),
            column("fastest", rows, |row| row.fastest),
        ]
    }
}

impl Tabular for Neighbor {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("id", rows, |row| row.id),
            column("distance", rows, |row| row.distance),
        ]
    }
}

impl Tabular for McNemar {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("only_first", rows, |row| row.only_first as u32),
            column("only_second", rows, |row| row.only_second as u32),
            column("difference", rows, |row| row.difference),
            column("p", rows, |row| row.p),
        ]
    }
}

impl Tabular for Nearest {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("id", rows, |row| row.id as u32),
            column("distance", rows, |row| row.distance),
            column("same", rows, |row| row.same),
        ]
    }
}

impl Tabular for Evaluated {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name),
            column("settings", rows, |row| row.settings.as_str()),
            column("recall", rows, |row| row.recall),
            column("qps", rows, |row| row.qps),
            column("slowest", rows, |row| row.slowest),
            column("fastest", rows, |row| row.fastest),
            column("p50_us", rows, |row| row.p50_us),
            column("p99_us", rows, |row| row.p99_us),
            column("looked_at", rows, |row| row.looked_at),
            column("memory_mb", rows, |row| row.memory_mb),
        ]
    }
}

/// How many of the neighbours stand in the column `nearest`.
const SHOWN: usize = 5;

impl Tabular for FirstLook {
    fn columns(rows: &[Self]) -> Vec<Column> {
        let ids = |look: &Self| {
            let ids = look.nearest.iter().take(SHOWN);
            let ids: Vec<String> = ids.map(|near| near.id.to_string()).collect();
            ids.join(", ")
        };
        vec![
            column("name", rows, |row| row.name),
            column("nearest", rows, ids),
            column("leaves", rows, |row| row.visits.leaves as u32),
            column("bounds", rows, |row| row.visits.bounds as u32),
            column("distances", rows, |row| row.visits.distances as u32),
        ]
    }
}

/// The number in row `row` of a column, for a sentence.
///
/// # Errors
/// If there is no such column or row, or it holds no number there.
///
/// ```
/// use fashion_knn::report::frame::{number_at, text_at};
/// use polars::prelude::df;
///
/// let frame = df!["name" => ["Annoy", "HNSW"], "recall" => [0.95, 0.991]]?;
/// assert_eq!(text_at(&frame, "name", 1)?, "HNSW");
/// assert_eq!(number_at(&frame, "recall", 1)?, 0.991);
/// assert!(number_at(&frame, "recall", 2).is_err());
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
pub fn number_at(frame: &DataFrame, name: &str, row: usize) -> PolarsResult<f64> {
    let value = numbers(frame, name)?.get(row).copied().flatten();
    value.ok_or_else(|| nothing_there(name, row))
}

/// The text in row `row` of a column, for a sentence.
///
/// # Errors
/// If there is no such column or row.
pub fn text_at(frame: &DataFrame, name: &str, row: usize) -> PolarsResult<String> {
    let value = texts(frame, name)?.into_iter().nth(row);
    value.ok_or_else(|| nothing_there(name, row))
}

fn nothing_there(name: &str, row: usize) -> PolarsError {
    PolarsError::OutOfBounds(format!("the column {name:?} holds nothing in row {row}").into())
}

/// A long frame made wide for a reader: a row for each value of `rows`, a column for each value of
/// `columns`, both in the order in which they appear, and in each place the number of `values`.
///
/// A pair that is not there is missing in the result. Of a pair that is there twice, the last
/// stays.
///
/// # Errors
/// If a column is missing, or `values` holds no numbers.
///
/// ```
/// use fashion_knn::report::frame::pivoted;
/// use polars::prelude::df;
///
/// let long = df![
///     "k" => [1, 1, 3],
///     "vote" => ["uniform", "distance", "uniform"],
///     "accuracy" => [0.84, 0.85, 0.86],
/// ]?;
/// let wide = pivoted(&long, "k", "vote", "accuracy")?;
/// let accuracies = [Some(0.85), None];
/// assert_eq!(
///     wide,
///     df!["k" => [1, 3], "uniform" => [0.84, 0.86], "distance" => accuracies]?
/// );
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
pub fn pivoted(
    frame: &DataFrame,
    rows: &str,
    columns: &str,
    values: &str,
) -> PolarsResult<DataFrame> {
    // Polars wants to know beforehand which columns there will be.
    let names = frame.select([columns])?;
    let names = names.unique_stable(None, UniqueKeepStrategy::First, None)?;
    let one = |name: &str| -> Selector { by_name([PlSmallStr::from(name)], true, false) };
    let wide = frame.clone().lazy().pivot(
        one(columns),
        Arc::new(names),
        one(rows),
        one(values),
        element().last(),
        true,
        PlSmallStr::from_static("_"),
        PivotColumnNaming::Auto,
    );
    wide.collect()
}
