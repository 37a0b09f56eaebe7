//! Results as data frames: the record, what a notebook has just measured, and what both say of
//! recall and speed.
//!
//! A lesson filters, sorts, groups and joins with polars itself. What polars does not have stands
//! here under a name: [`frontier`] and [`fastest_at`].
//!
//! ```no_run
//! use fashion_knn::prelude::*;
//!
//! let pixels = record("pixels.csv")?.lazy().filter(col("k").eq(lit(10))).collect()?;
//! let best = frontier(&pixels, "qps")?;
//! LineChart::new("Pixels", "recall", "queries/s")
//!     .log_y()
//!     .recall_axis()
//!     .curves(&best, "name", "recall", "qps")?
//!     .figure()?;
//! table(fastest_at(&pixels, 0.99)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::path::Path;

use polars::prelude::{
    AnyValue, Column, CsvReadOptions, DataFrame, DataType, IdxCa, IdxSize, NamedFrom, PolarsError,
    PolarsResult, SerReader, Series,
};
use thiserror::Error;

use crate::files::data_dir;
use crate::lab::frontier::{RecallAndSpeed, pareto, qps_at};
use crate::lab::record::{COLUMNS, RecordError, read_csv};

mod answers;
mod growth;
mod lessons;
mod million;
mod results;
mod searched;

pub use self::searched::{number_at, pivoted, text_at};

pub use growth::{doublings, exponents, fastest_at_each};
pub use million::{MillionRow, beside_the_handout, growth_at, handout_table, million_table};

/// Why a frame could not be made.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A file of the record could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Polars refused: a column that is missing, say, or of another type.
    #[error(transparent)]
    Polars(#[from] PolarsError),
}

/// Results of which a notebook makes a frame: one row a value, one column a field.
///
/// # Examples
/// ```
/// use fashion_knn::report::frame::{Tabular, column, frame_of};
/// use polars::prelude::Column;
///
/// struct Image {
///     class: &'static str,
///     brightness: f64,
/// }
///
/// impl Tabular for Image {
///     fn columns(rows: &[Self]) -> Vec<Column> {
///         vec![
///             column("class", rows, |row| row.class),
///             column("brightness", rows, |row| row.brightness),
///         ]
///     }
/// }
///
/// let images = [Image { class: "bag", brightness: 0.25 }];
/// let frame = frame_of(&images)?;
/// assert_eq!(frame.get_column_names(), ["class", "brightness"]);
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
pub trait Tabular: Sized {
    /// The columns of these rows, as many values each as there are rows. [`column()`] makes them.
    fn columns(rows: &[Self]) -> Vec<Column>;
}

/// The column `name` with what `value` says of each row: a number, a truth value or a text, or an
/// `Option` of one. Polars has no `usize`: a count is cast to `u32`.
pub fn column<'a, R, V>(name: &str, rows: &'a [R], value: impl Fn(&'a R) -> V) -> Column
where
    Series: NamedFrom<Vec<V>, [V]>,
{
    let values: Vec<V> = rows.iter().map(value).collect();
    Column::new(name.into(), values)
}

/// Results as a frame, a row each.
///
/// # Errors
/// If the type names two of its columns alike.
pub fn frame_of<T: Tabular>(rows: &[T]) -> PolarsResult<DataFrame> {
    DataFrame::new(rows.len(), T::columns(rows))
}

/// A file of the record, `data/results/NAME` (in the folder that [`data_dir`] finds).
///
/// Measurements of indexes are validated ([`read_csv`]), and get the columns of
/// [`frame_of`] a [`Measurement`](crate::lab::record::Measurement): those of the file, then `name`
/// (for a reader), `settings` (as text), `ours`, `exact`, `memory_mb`, and a column a parameter.
/// Any other CSV table (`models.csv`) is as its file is.
///
/// # Errors
/// If the file cannot be read, or is a record with other columns or values.
pub fn record(name: &str) -> Result<DataFrame, FrameError> {
    record_at(&data_dir().join("results").join(name))
}

/// The rows of several files of measurements, one below the other.
///
/// # Errors
/// As [`record`]; and if their columns differ.
pub fn records(names: &[&str]) -> Result<DataFrame, FrameError> {
    let mut all = DataFrame::empty();
    for name in names {
        let rows = record(name)?;
        // An empty frame has no columns, so nothing can be put below it.
        all = if all.width() == 0 {
            rows
        } else {
            all.vstack(&rows)?
        };
    }
    Ok(all)
}

/// [`record`] of a path.
fn record_at(path: &Path) -> Result<DataFrame, FrameError> {
    let file = || RecordError::File {
        path: path.display().to_string(),
        why: "there is no such file".to_owned(),
    };
    if !path.is_file() {
        return Err(file().into());
    }
    // The types of the columns are those of all the rows, not of the first hundred: a column may
    // be empty far down.
    let options = CsvReadOptions::default().with_infer_schema_length(None);
    let reader = options.try_into_reader_with_file_path(Some(path.to_owned()))?;
    let plain = reader.finish()?;
    // Every file of measurements begins with the column `index`, of today's schema and the older
    // one; no other table does.
    if plain
        .get_column_names()
        .first()
        .is_some_and(|first| *first == COLUMNS[0])
    {
        return Ok(frame_of(&read_csv(path)?)?);
    }
    Ok(plain)
}

/// What keeps rows apart when they are compared: a setting is beaten by another of the same index,
/// on the same data and for the same k.
const KEYS: [&str; 5] = ["data", "n", "d", "k", "name"];

/// Of each index the rows that no other row beats in both recall and the column `cost`, by
/// ascending recall. Rows with other data, k or size are other rows: those of the columns `data`,
/// `n`, `d`, `k` and `name` that the frame has tell them apart.
///
/// Of `qps`, `qps_batch` and what ends in `per_second` more is better; of any other column
/// (seconds, megabytes) less is. Rows without a recall or a cost are left out.
///
/// # Errors
/// If a column is missing, or `recall` or `cost` holds no numbers.
pub fn frontier(frame: &DataFrame, cost: &str) -> Result<DataFrame, FrameError> {
    let recall = numbers(frame, "recall")?;
    let cost_of = numbers(frame, cost)?;
    let more_is_better = cost.starts_with("qps") || cost.ends_with("per_second");
    let sign = if more_is_better { -1.0 } else { 1.0 };
    let mut kept: Vec<IdxSize> = Vec::new();
    for rows in groups(frame)? {
        let measured = rows.into_iter().filter_map(|row| {
            Some(Setting {
                row,
                recall: recall[row]?,
                cost: sign * cost_of[row]?,
            })
        });
        let front = pareto(measured, |setting| setting.recall, |setting| setting.cost);
        kept.extend(front.iter().map(|setting| setting.row as IdxSize));
    }
    Ok(frame.take(&IdxCa::from_vec("".into(), kept))?)
}

/// A row of a frame that is compared with others.
#[derive(Debug, Clone, Copy)]
struct Setting {
    row: usize,
    recall: f64,
    cost: f64,
}

/// How fast each index is at a recall: a row an index (and data, n, d and k, where the frame has
/// them) with the columns that tell it apart, `ours` and `exact` where they are there, and `qps`,
/// by [`qps_at`]. The fastest comes first. Indexes that do not reach the recall are left out.
///
/// # Errors
/// If `recall` or `qps` is missing or holds no numbers.
pub fn fastest_at(frame: &DataFrame, wanted: f64) -> Result<DataFrame, FrameError> {
    let recall = numbers(frame, "recall")?;
    let qps = numbers(frame, "qps")?;
    let mut reached: Vec<(usize, f64)> = Vec::new();
    for rows in groups(frame)? {
        let measured = rows.iter().filter_map(|&row| {
            Some(RecallAndSpeed {
                recall: recall[row]?,
                qps: qps[row]?,
            })
        });
        let settings: Vec<RecallAndSpeed> = measured.collect();
        if let (Some(qps), Some(&row)) = (qps_at(&settings, wanted), rows.first()) {
            reached.push((row, qps));
        }
    }
    reached.sort_by(|a, b| b.1.total_cmp(&a.1));
    // What tells the index apart is the same in all of its rows: the first one's is taken.
    let rows = reached.iter().map(|&(row, _)| row as IdxSize).collect();
    let first = frame.take(&IdxCa::from_vec("".into(), rows))?;
    let named = KEYS.into_iter().chain(["ours", "exact"]);
    let there = named.filter(|name| first.column(name).is_ok());
    let mut fastest = first.select(there)?;
    let speeds: Vec<f64> = reached.iter().map(|&(_, qps)| qps).collect();
    fastest.with_column(Column::new("qps".into(), speeds))?;
    Ok(fastest)
}

/// The indexes that lead: of ours and of the others (by the column `ours`), the fastest at recall
/// .9, .99, .999 and 1, and the second at .99, in the order in which that is found.
///
/// # Errors
/// As [`fastest_at`].
pub fn leading(frame: &DataFrame) -> Result<Vec<String>, FrameError> {
    let mut leaders: Vec<String> = Vec::new();
    for wanted in [0.9, 0.99, 0.999, 1.0] {
        let fastest = fastest_at(frame, wanted)?;
        let names = texts(&fastest, "name")?;
        let ours = truths(&fastest, "ours")?.unwrap_or_else(|| vec![true; names.len()]);
        for group in [true, false] {
            let of_group = names.iter().zip(&ours).filter(|&(_, &ours)| ours == group);
            let leaders_here = if wanted == 0.99 { 2 } else { 1 };
            for (name, _) in of_group.take(leaders_here) {
                if !leaders.contains(name) {
                    leaders.push(name.clone());
                }
            }
        }
    }
    Ok(leaders)
}

/// On which machines, with which instructions and on which days the rows were measured, where the
/// frame says so: "AMD EPYC (25/1) · avx2 · 2026-11-25 – 2026-11-26". The numbers are the
/// processor's family and model.
///
/// # Errors
/// If a column of the machine is of a type that has no text.
pub fn machines(frame: &DataFrame) -> PolarsResult<String> {
    let (cpu, kind) = (
        told(frame, "cpu")?,
        [told(frame, "cpu_family")?, told(frame, "cpu_model")?],
    );
    let mut parts: Vec<String> = Vec::new();
    for (row, cpu) in cpu.iter().enumerate() {
        let [family, model] = [&kind[0][row], &kind[1][row]];
        parts.push(match (family.as_str(), model.as_str()) {
            ("", _) | (_, "") => cpu.clone(),
            (family, model) => format!("{cpu} ({family}/{model})"),
        });
    }
    parts.extend(told(frame, "simd")?);
    // Each once, in the order in which it appears. There are few.
    let mut distinct: Vec<String> = Vec::new();
    for part in parts {
        if !part.is_empty() && !distinct.contains(&part) {
            distinct.push(part);
        }
    }
    let mut days = told(frame, "date")?;
    // Years come first in a day, so that the order of the texts is that of the days.
    days.retain(|day| !day.is_empty());
    days.sort_unstable();
    match (days.first(), days.last()) {
        (Some(first), Some(last)) if first == last => distinct.push(first.clone()),
        (Some(first), Some(last)) => distinct.push(format!("{first} – {last}")),
        _ => {}
    }
    Ok(distinct.join(" · "))
}

/// The texts of a column, all empty if the frame does not have it.
fn told(frame: &DataFrame, name: &str) -> PolarsResult<Vec<String>> {
    match frame.column(name) {
        Ok(_) => texts(frame, name),
        Err(_) => Ok(vec![String::new(); frame.height()]),
    }
}

/// The numbers of a column, of whatever type of number it is.
pub(super) fn numbers(frame: &DataFrame, name: &str) -> PolarsResult<Vec<Option<f64>>> {
    let column = frame.column(name)?;
    if !column.dtype().is_primitive_numeric() {
        let message = format!("the column {name:?} holds {}, not numbers", column.dtype());
        return Err(PolarsError::SchemaMismatch(message.into()));
    }
    let floats = column.cast(&DataType::Float64)?;
    Ok(floats.f64()?.iter().collect())
}

/// The texts of a column; numbers and truth values as text. A missing value is an empty text.
pub(super) fn texts(frame: &DataFrame, name: &str) -> PolarsResult<Vec<String>> {
    let column = frame.column(name)?.cast(&DataType::String)?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Ok(column.str()?.iter().map(text).collect())
}

/// The truth values of a column; `None` if the frame has no such column. A missing value counts as
/// true.
pub(super) fn truths(frame: &DataFrame, name: &str) -> PolarsResult<Option<Vec<bool>>> {
    let Ok(column) = frame.column(name) else {
        return Ok(None);
    };
    let values = column.bool()?.iter();
    Ok(Some(values.map(|value| value.unwrap_or(true)).collect()))
}

/// The numbers of the rows of each index, in the order in which the indexes appear.
fn groups(frame: &DataFrame) -> PolarsResult<Vec<Vec<usize>>> {
    // Without a name there is nothing to compare: it is missing by mistake.
    frame.column("name")?;
    let keys: Vec<&Column> = KEYS
        .iter()
        .filter_map(|key| frame.column(key).ok())
        .collect();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in 0..frame.height() {
        let key = key_of(&keys, row);
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    Ok(groups)
}

/// The values of these columns in a row, as one text.
fn key_of(keys: &[&Column], row: usize) -> String {
    let mut key = String::new();
    for column in keys {
        let value = column.get(row).unwrap_or(AnyValue::Null);
        // A character that no name holds keeps "a", "bc" and "ab", "c" apart.
        key += &format!("{value}\u{1f}");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::record::{Measurement, append_csv};
    use polars::prelude::df;

    fn rows(frame: &DataFrame) -> Vec<(String, f64, f64)> {
        let names = texts(frame, "name").unwrap();
        let recall = numbers(frame, "recall").unwrap();
        let cost = numbers(frame, "qps").unwrap();
        let row = |at: usize| (names[at].clone(), recall[at].unwrap(), cost[at].unwrap());
        (0..frame.height()).map(row).collect()
    }

    /// 200 settings on a coarse grid, so that many tie, of two indexes and two k.
    fn many() -> DataFrame {
        let value = |at: u32, multiplier: u32| at.wrapping_mul(multiplier) >> 16;
        let at = || 1..=200u32;
        df![
            "name" => at().map(|at| ["a", "b"][value(at, 40_503) as usize % 2]).collect::<Vec<_>>(),
            "k" => at().map(|at| 1 + 9 * (value(at, 60_493) % 2)).collect::<Vec<_>>(),
            "recall" => at().map(|at| f64::from(value(at, 2_654_435_761) % 20) / 20.0)
                .collect::<Vec<_>>(),
            "qps" => at().map(|at| f64::from(value(at, 2_246_822_519) % 20)).collect::<Vec<_>>(),
        ]
        .unwrap()
    }

    /// By the definition: a row stays if no other of its index and k is as good in both and better
    /// in one; of rows alike in both, the first.
    fn by_all_pairs(frame: &DataFrame, greater_is_better: bool) -> Vec<usize> {
        let names = texts(frame, "name").unwrap();
        let number = |name: &str| -> Vec<f64> {
            let values = numbers(frame, name).unwrap().into_iter();
            values.map(Option::unwrap).collect()
        };
        let (k, recall, qps) = (number("k"), number("recall"), number("qps"));
        let sign = if greater_is_better { 1.0 } else { -1.0 };
        let beats = |other: usize, row: usize| {
            let (more_recall, less_recall) =
                (recall[other] > recall[row], recall[other] < recall[row]);
            let speed = sign * (qps[other] - qps[row]);
            let alike = recall[other] == recall[row] && speed == 0.0;
            let same_index = names[other] == names[row] && k[other] == k[row];
            let better = !less_recall && speed >= 0.0 && (more_recall || speed > 0.0);
            same_index && (better || (alike && other < row))
        };
        let all = || 0..frame.height();
        all()
            .filter(|&row| !all().any(|other| beats(other, row)))
            .collect()
    }

    #[test]
    fn the_frontier_is_what_a_comparison_of_all_pairs_leaves() {
        let frame = many();
        for (column, greater_is_better) in [("qps", true), ("seconds", false)] {
            let mut measured = frame.clone();
            let cost = frame
                .column("qps")
                .unwrap()
                .clone()
                .with_name(column.into());
            measured.with_column(cost).unwrap();
            let front = frontier(&measured, column).unwrap();
            let mut expected: Vec<_> = by_all_pairs(&frame, greater_is_better)
                .into_iter()
                .map(|row| rows(&frame)[row].clone())
                .collect();
            let mut kept = rows(&front);
            let compare = |a: &(String, f64, f64), b: &(String, f64, f64)| {
                a.0.cmp(&b.0)
                    .then(a.1.total_cmp(&b.1))
                    .then(a.2.total_cmp(&b.2))
            };
            expected.sort_by(compare);
            kept.sort_by(compare);
            assert_eq!(kept, expected, "{column}");
            assert!(kept.len() > 4);
        }
    }

    #[test]
    fn a_frontier_ascends_and_keeps_all_columns() {
        let frame = df![
            "name" => ["a", "a", "b", "a", "a"],
            "recall" => [Some(0.99), Some(0.9), Some(0.5), Some(0.8), None],
            "qps" => [10.0, 100.0, 1.0, 90.0, 1_000.0],
            "note" => ["x", "y", "z", "beaten", "no recall"],
        ]
        .unwrap();
        let front = frontier(&frame, "qps").unwrap();
        assert_eq!(texts(&front, "note").unwrap(), ["y", "x", "z"]);
        assert_eq!(frontier(&front, "qps").unwrap(), front);
        let message = frontier(&frame, "note").unwrap_err().to_string();
        assert!(message.contains("\"note\" holds"), "{message}");
        assert!(frontier(&frame, "build_s").is_err());
    }

    #[test]
    fn the_fastest_at_a_recall_comes_first() {
        let mut rows = [
            Measurement::toy("hnsw", 0.9, 1_000.0),
            Measurement::toy("hnsw", 0.99, 10.0),
            Measurement::toy("hnswlib", 0.95, 700.0),
            Measurement::toy("annoy", 0.8, 9_000.0),
            Measurement::toy("brute_force", 1.0, 5.0),
        ];
        // Another k is another task.
        rows[4].k = 10;
        let fastest = fastest_at(&frame_of(&rows).unwrap(), 0.9).unwrap();
        let columns = ["data", "n", "d", "k", "name", "ours", "exact", "qps"];
        assert_eq!(fastest.get_column_names(), columns);
        assert_eq!(
            texts(&fastest, "name").unwrap(),
            ["HNSW", "hnswlib", "Brute force"]
        );
        let speeds = [1_000.0, 700.0, 5.0].map(Some);
        assert_eq!(numbers(&fastest, "qps").unwrap(), speeds);
        assert_eq!(
            truths(&fastest, "ours").unwrap().unwrap(),
            [true, false, true]
        );
        assert_eq!(
            truths(&fastest, "exact").unwrap().unwrap(),
            [false, false, true]
        );
        let none = fastest_at(&frame_of(&rows[..1]).unwrap(), 0.95).unwrap();
        assert_eq!((none.height(), none.width()), (0, 8));
    }

    #[test]
    fn the_fastest_of_both_kinds_lead() {
        let rows = [
            Measurement::toy("hnsw", 0.995, 300.0),
            Measurement::toy("annoy", 0.995, 200.0),
            Measurement::toy("scann", 0.995, 100.0),
            Measurement::toy("brute_force", 1.0, 5.0),
            Measurement::toy("hnswlib", 0.9, 1.0),
        ];
        let leaders = leading(&frame_of(&rows).unwrap()).unwrap();
        assert_eq!(leaders, ["HNSW", "hnswlib", "Annoy", "Brute force"]);
    }

    #[test]
    fn machines_are_told_once_and_days_from_first_to_last() {
        let row = |cpu: &str, family, simd: Option<&str>, date: &str| Measurement {
            cpu: cpu.to_owned(),
            cpu_family: family,
            cpu_model: Some(1),
            simd: simd.map(str::to_owned),
            date: date.to_owned(),
            ..Measurement::toy("hnsw", 0.5, 1.0)
        };
        let rows = [
            row("EPYC", Some(25), Some("avx2"), "2026-11-26"),
            row("EPYC", Some(25), None, "2026-11-25"),
            row("M4", None, None, "2026-11-25"),
        ];
        let told = machines(&frame_of(&rows).unwrap()).unwrap();
        assert_eq!(told, "EPYC (25/1) · M4 · avx2 · 2026-11-25 – 2026-11-26");
        assert_eq!(machines(&df!["a" => [1]].unwrap()).unwrap(), "");
    }

    #[test]
    fn a_frame_of_measurements_has_the_columns_of_the_record_and_more() {
        let row = Measurement {
            params: [("n_trees", 50.0), ("search_k", 4000.0)]
                .into_iter()
                .collect(),
            memory_bytes: 2_500_000,
            ..Measurement::toy("annoy", 0.5, 7.0)
        };
        let frame = frame_of(&[row]).unwrap();
        assert_eq!(frame.get_column_names()[..COLUMNS.len()], COLUMNS);
        assert_eq!(
            texts(&frame, "settings").unwrap(),
            ["n_trees=50 search_k=4000"]
        );
        assert_eq!(numbers(&frame, "memory_mb").unwrap(), [Some(2.5)]);
        assert_eq!(numbers(&frame, "search_k").unwrap(), [Some(4000.0)]);
        assert_eq!(numbers(&frame, "nprobe").unwrap(), [None]);
        assert_eq!(frame_of::<Measurement>(&[]).unwrap().height(), 0);
    }

    #[test]
    fn a_file_of_the_record_is_validated_and_another_table_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let measured = [Measurement::toy("hnsw", 0.5, 7.0)];
        append_csv(&path, &measured).unwrap();
        assert!(
            record_at(&path)
                .unwrap()
                .equals_missing(&frame_of(&measured).unwrap())
        );
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(",7.0,", ",many,")).unwrap();
        let message = record_at(&path).unwrap_err().to_string();
        assert!(
            message.contains("a.csv, line 2: column \"qps\""),
            "{message}"
        );
        std::fs::write(&path, "model,accuracy\ncnn,0.93\nsvm,\n").unwrap();
        let expected = df!["model" => ["cnn", "svm"], "accuracy" => [Some(0.93), None]].unwrap();
        assert!(record_at(&path).unwrap().equals_missing(&expected));
        let message = record_at(&folder.path().join("b.csv"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("b.csv: there is no such file"),
            "{message}"
        );
    }
}
