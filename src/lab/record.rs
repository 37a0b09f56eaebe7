//! The record: what was measured, a [`Measurement`] a row, and the one schema of its CSV files
//! (`data/results/*.csv`).
//!
//! Measuring and drawing never mix: `measure` and the peers' script write rows, the notebooks read
//! them. All go through this module, so that the schema is stated once:
//!
//! ```text
//! index,data,n,d,k,...,date,target_recall,leaf_size,components,n_trees,search_k,...
//! |---- COLUMNS: filled ---| |-- parameter_columns(): empty where there is none --|
//! ```
//!
//! A reader (polars, a spreadsheet) can therefore filter by a parameter as by any other column.
//! Three kinds of file are read:
//!
//! 1. this schema;
//! 2. this schema with fewer parameter columns: it was written before an index with those
//!    parameters was there, and no row of it can have a value for them; or without the columns
//!    from `metric` on: then all of it is Euclidean, and nothing more is known of the builds;
//! 3. [`OLDER_HEADER`], where one column `params` held "n_trees=50 search_k=4000".
//!
//! Any other file is refused by an error that names the column, and is left as it is. An empty file
//! counts as none. Whatever is written is written in this schema, so that adding rows to an older
//! file converts it. Programs that add rows to one file at once wait for each other.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

use crate::distance::Metric;
use crate::files;
use crate::index::registry::{Knob, REGISTRY};
use crate::lab::machine::{Machine, today};

/// The columns that every row has, in the order of [`Measurement`]'s fields: a row is written field
/// by field under this header, so a field that is moved or added has to be moved or added here too.
pub const COLUMNS: [&str; 24] = [
    "index",
    "data",
    "n",
    "d",
    "k",
    "threads",
    "recall",
    "qps",
    "qps_batch",
    "p50_us",
    "p99_us",
    "build_s",
    "memory_bytes",
    "commit",
    "cpu",
    "cpu_family",
    "cpu_model",
    "simd",
    "cores",
    "bandwidth_gb_s",
    "date",
    "metric",
    "build_threads",
    "build_peak_bytes",
];

/// How many of [`COLUMNS`] a file has at least. Those after them came later; where a file lacks
/// one, all of its rows have its default.
const FIRST_COLUMNS: usize = 21;

/// The columns of records until November 2026, all parameters in one.
pub const OLDER_HEADER: [&str; 17] = [
    "index",
    "params",
    "data",
    "n",
    "d",
    "k",
    "threads",
    "recall",
    "qps",
    "qps_batch",
    "p50_us",
    "p99_us",
    "build_s",
    "memory_bytes",
    "commit",
    "cpu",
    "date",
];

/// Parameters that are no knob of the registry: the recall that a setting was tuned for, what the
/// VA+-file chose for itself, and those that only other libraries have (`benches/peers`).
const OTHER_PARAMETERS: [&str; 5] = ["target_recall", "head", "segments", "degree", "k_factor"];

/// The parameter columns: `target_recall` and other parameters that are no
/// knob, then the knobs of all indexes, each name once.
///
/// Every index's own parameters stand in its own order, the build's before the query's, so that a
/// label reads the same before a row is written and after it was read.
#[must_use]
pub fn parameter_columns() -> Vec<&'static str> {
    // `OTHER_PARAMETERS` come first, so that a knob that is added to an index leaves their places
    // as they are.
    let mut columns = OTHER_PARAMETERS.to_vec();
    for entry in REGISTRY {
        let knobs: Vec<&Knob> = entry.build_knobs.iter().chain(entry.query_knobs).collect();
        // `next` is the column of the knob that follows in this index's order, or the end. A new
        // name goes in at that place and pushes the following one to the right. So each index finds
        // its own order in the list, as long as no two indexes share two names in opposite orders
        // (a test checks that).
        let mut next = columns.len();
        for knob in knobs.into_iter().rev() {
            match columns.iter().position(|&known| known == knob.name) {
                Some(known) => next = known,
                None => columns.insert(next, knob.name),
            }
        }
    }
    columns
}

/// Why a record could not be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file could not be read or written.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system, or the CSV format, says.
        why: String,
    },
    /// The file has other columns: it is no record, or one of another version.
    #[error(
        "{path}: column {number} is {received}; expected {expected} (this is another kind of file: \
         name another one)"
    )]
    Column {
        /// The file.
        path: String,
        /// Which column, from 1.
        number: usize,
        /// Its name in quotes, or "missing".
        received: String,
        /// What should be there.
        expected: String,
    },
    /// A value is not of its column's kind.
    #[error("{path}, line {line}: column {column:?}: {why}")]
    Value {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What is wrong with the value.
        why: String,
    },
    /// A row to be written has a figure that is not finite.
    #[error("{index}: {column} is {why}")]
    Figure {
        /// The row's index.
        index: String,
        /// The figure's column.
        column: String,
        /// What it is, and what was expected.
        why: String,
    },
    /// A row has a parameter that the record has no column for.
    #[error("{index} reports the parameter {name:?}, which is no column of the record: {known}")]
    Parameter {
        /// The row's index.
        index: String,
        /// The parameter.
        name: String,
        /// The parameters that are columns.
        known: String,
    },
    /// A row handed over by another program is not what it should be.
    #[error("a row of another program: {why}")]
    Foreign {
        /// What is wrong with it.
        why: String,
    },
}

/// One parameter of an index and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in the original library: "n_trees".
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// The parameters that an index was measured with, in its own order. As text they are the label of
/// a table or chart: "n_trees=50 search_k=4000".
///
/// ```
/// use fashion_knn::lab::record::ParameterList;
///
/// let parameters: ParameterList = [("n_trees", 50.0), ("search_k", 4000.0)].into_iter().collect();
/// assert_eq!(parameters.to_string(), "n_trees=50 search_k=4000");
/// assert_eq!(parameters.get("n_trees"), Some(50.0));
/// assert_eq!(parameters.get("nprobe"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParameterList(Vec<Parameter>);

impl ParameterList {
    /// The value of a parameter, if it is among them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|parameter| parameter.name == name)?;
        Some(found.value)
    }

    /// The same, with one more before the others.
    #[must_use]
    pub fn with_first(mut self, name: &str, value: f64) -> Self {
        let name = name.to_owned();
        self.0.insert(0, Parameter { name, value });
        self
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter()
    }

    /// What [`OLDER_HEADER`]'s column `params` held.
    fn from_label(text: &str) -> Result<Self, String> {
        let mut parameters = Vec::new();
        for part in text.split_whitespace() {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("{part:?}; expected name=number"));
            };
            // Of two values one would be lost when the rows are written.
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name} stands twice"));
            }
            parameters.push((name, number(value)?));
        }
        Ok(parameters.into_iter().collect())
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for ParameterList {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(pairs: I) -> Self {
        let parameter = |(name, value): (N, f64)| Parameter {
            name: name.into(),
            value,
        };
        Self(pairs.into_iter().map(parameter).collect())
    }
}

impl fmt::Display for ParameterList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Parameter { name, value }) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(formatter, "{blank}{name}={value}")?;
        }
        Ok(())
    }
}

/// What a run measured: a row of the record.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::index::registry::{Settings, find};
/// use fashion_knn::lab::task::Task;
/// use fashion_knn::vectors::Vectors;
///
/// // 64 points on a line, two queries, their three nearest, one thread.
/// let base = Arc::new(Vectors::from_bytes(1, (0..64).collect::<Vec<u8>>())?);
/// let queries = Vectors::from_bytes(1, vec![10, 50])?;
/// let task = Task::new("line", base, queries, &[3], 1, None)?;
///
/// let annoy = find("annoy").expect("it is in the registry");
/// let sweep = [Settings::default().with("search_k", 1000.0)];
/// let mut rows = Vec::new();
/// task.run(annoy, &Settings::default(), &sweep, |row| rows.push(row))?;
///
/// let row = &rows[0];
/// assert_eq!((row.index.as_str(), row.n, row.k), ("annoy", 64, 3));
/// assert_eq!(row.param("search_k"), Some(1000.0));
/// assert_eq!(row.recall, 1.0); // 1,000 candidates are all 64 points
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The index's name on the command line: "annoy".
    pub index: String,
    /// Its parameters: one column each in the file.
    #[serde(skip)]
    pub params: ParameterList,
    /// What was searched in: "pixels", or a file's name.
    pub data: String,
    /// Vectors in the base.
    pub n: usize,
    /// Their dimension.
    pub d: usize,
    /// Neighbours asked for.
    pub k: usize,
    /// Threads of the batch, and of the build unless `build_threads` says otherwise. Single queries
    /// are answered on one.
    pub threads: usize,
    /// recall@k by distance, ties being hits ([`recall`](crate::lab::evaluate::recall)).
    #[serde(deserialize_with = "finite")]
    pub recall: f64,
    /// Queries per second, one query a call.
    #[serde(deserialize_with = "finite")]
    pub qps: f64,
    /// Queries per second, all in one call.
    #[serde(deserialize_with = "finite")]
    pub qps_batch: f64,
    /// Median latency of a single query, in microseconds.
    #[serde(deserialize_with = "finite")]
    pub p50_us: f64,
    /// 99th percentile of it, in microseconds.
    #[serde(deserialize_with = "finite")]
    pub p99_us: f64,
    /// Seconds that the build took.
    #[serde(deserialize_with = "finite")]
    pub build_s: f64,
    /// Bytes of the index, the vectors that it keeps included.
    pub memory_bytes: usize,
    /// The commit that was measured ("+": with changes on top), or a library's version.
    pub commit: String,
    /// The processor's name.
    pub cpu: String,
    /// The processor's family; unknown (`None`) in rows older than this column, as are the next
    /// four.
    pub cpu_family: Option<u32>,
    /// The processor's model within the family.
    pub cpu_model: Option<u32>,
    /// The SIMD level of our kernels. Other libraries choose for themselves: theirs is what they
    /// say, or the highest that the processor offers them; `None` in older rows of theirs.
    pub simd: Option<String>,
    /// How many threads can run at once on the machine.
    pub cores: Option<usize>,
    /// How fast one core reads memory, in 10⁹ bytes a second.
    #[serde(default, deserialize_with = "finite_if_known")]
    pub bandwidth_gb_s: Option<f64>,
    /// The day, in UTC: "2026-11-25".
    pub date: String,
    /// The metric by which neighbours were sought: "euclidean" in rows older than this column.
    #[serde(default = "euclidean")]
    pub metric: String,
    /// Threads of the build, where they are others than `threads`.
    #[serde(default)]
    pub build_threads: Option<usize>,
    /// The most memory that the process held during the build, in bytes: the base, and whatever
    /// else the program holds, is in it. `None` where it was not measured.
    #[serde(default)]
    pub build_peak_bytes: Option<u64>,
}

impl Measurement {
    /// The value of one of the index's parameters.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<f64> {
        self.params.get(name)
    }

    /// A row for tests.
    #[cfg(test)]
    pub(crate) fn toy(index: &str, recall: f64, qps: f64) -> Self {
        Self {
            index: index.to_owned(),
            params: ParameterList::default(),
            data: "toy".to_owned(),
            n: 1,
            d: 1,
            k: 1,
            threads: 1,
            recall,
            qps,
            qps_batch: qps,
            p50_us: 0.0,
            p99_us: 0.0,
            build_s: 0.0,
            memory_bytes: 0,
            commit: String::new(),
            cpu: String::new(),
            cpu_family: None,
            cpu_model: None,
            simd: None,
            cores: None,
            bandwidth_gb_s: None,
            date: String::new(),
            metric: euclidean(),
            build_threads: None,
            build_peak_bytes: None,
        }
    }

    /// A row that another program measured on this machine today: a JSON object with the columns up
    /// to `commit`, and the parameters as an object `params`: `{"index": "hnswlib", "params":
    /// {"m": 16, "ef": 40}, "data": "pixels", ...}`.
    ///
    /// # Errors
    /// If the text is no such object.
    pub fn from_json(text: &str, machine: &Machine) -> Result<Self, RecordError> {
        let foreign = |error: serde_json::Error| RecordError::Foreign {
            why: error.to_string(),
        };
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(foreign)?;
        // The parameters are no field that serde reads (each is a column of the file), so they are
        // taken out and read apart. Missing ones become a null, which is no map, and are refused.
        let params = object.remove("params").unwrap_or_default();
        let params: std::collections::BTreeMap<String, f64> =
            serde_json::from_value(params).map_err(foreign)?;
        // The other program knows nothing of the machine. What it may have said under these names
        // is replaced. `simd` is theirs to say: the machine's is the level of our kernels.
        object.insert("cpu".to_owned(), machine.cpu.clone().into());
        object.insert("cpu_family".to_owned(), machine.cpu_family.into());
        object.insert("cpu_model".to_owned(), machine.cpu_model.into());
        object.insert("cores".to_owned(), machine.cores.into());
        object.insert("bandwidth_gb_s".to_owned(), machine.bandwidth_gb_s.into());
        object.insert("date".to_owned(), today().into());
        let mut row: Self = serde_json::from_value(object.into()).map_err(foreign)?;
        // The map has sorted the parameters by name. The file puts them into the order of its
        // columns.
        row.params = params.into_iter().collect();
        Ok(row)
    }
}

/// The metric of rows that do not say theirs.
fn euclidean() -> String {
    Metric::Euclidean.name().to_owned()
}

/// A finite number out of text.
fn number(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    check_finite(value)
}

/// What is not finite was never measured: no figure of a record is.
fn check_finite(value: f64) -> Result<f64, String> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(format!("{value}; expected a finite number"))
}

/// Reads a field that has to be finite.
pub(crate) fn finite<'de, D: Deserializer<'de>>(field: D) -> Result<f64, D::Error> {
    check_finite(f64::deserialize(field)?).map_err(de::Error::custom)
}

/// Reads a field that is empty or finite.
fn finite_if_known<'de, D: Deserializer<'de>>(field: D) -> Result<Option<f64>, D::Error> {
    let value = Option::<f64>::deserialize(field)?;
    value
        .map(check_finite)
        .transpose()
        .map_err(de::Error::custom)
}

/// Tries whether rows can be added to the file, and leaves it as it is: a program that measures for
/// hours asks before.
///
/// # Errors
/// If the file holds something else, or cannot be written.
pub fn check_csv(path: &Path) -> Result<(), RecordError> {
    files::check_file(path).map_err(|error| file_error(path, &error))?;
    rows_so_far(path, read_csv).map(drop)
}

/// Adds rows to a CSV file, after those that it has. The file is replaced whole: a reader sees the
/// old rows or all of them. A file that is not there, or empty, begins with these rows.
///
/// # Errors
/// If the file holds something else or cannot be written, or a parameter has no column.
pub fn append_csv(path: &Path, rows: &[Measurement]) -> Result<(), RecordError> {
    change_csv(path, rows, |_| ())
}

/// Puts rows into a CSV file in place of all that it has of the same indexes; the rows of other
/// indexes stay, before them.
///
/// # Errors
/// As [`append_csv`].
pub fn replace_csv(path: &Path, rows: &[Measurement]) -> Result<(), RecordError> {
    // An old row stays if none of the new rows is of its index. Its data, k and settings do not
    // count: a run replaces all that was known of an index.
    change_csv(path, rows, |all| {
        all.retain(|old| rows.iter().all(|new| new.index != old.index));
    })
}

/// Does `change` to the rows of the file and puts `new` after them, while no other program can.
fn change_csv(
    path: &Path,
    new: &[Measurement],
    change: impl FnOnce(&mut Vec<Measurement>),
) -> Result<(), RecordError> {
    // What could not be read back is found before the file is made.
    let columns = parameter_columns();
    for row in new {
        parameter_fields(row, &columns)?;
        check_figures(row)?;
    }
    let _lock = files::lock(path).map_err(|error| file_error(path, &error))?;
    let mut all = rows_so_far(path, read_csv)?;
    change(&mut all);
    all.extend_from_slice(new);
    write_csv(path, &all)
}

/// What `read` finds in the file; no rows if it is not there or empty.
fn rows_so_far<T>(
    path: &Path,
    read: impl FnOnce(&Path) -> Result<Vec<T>, RecordError>,
) -> Result<Vec<T>, RecordError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        // A file that cannot be looked at is left to `read`, which says why.
        _ => read(path),
    }
}

/// The rows of a record; one of an older schema is converted (see the [module](self)).
///
/// # Errors
/// If the file cannot be read, its columns are others, or a value is not of its column's kind.
///
/// ```no_run
/// use std::path::Path;
/// use fashion_knn::lab::record::read_csv;
///
/// let rows = read_csv(Path::new("data/results/pixels.csv"))?;
/// let fast = rows.iter().filter(|row| row.index == "annoy" && row.param("n_trees") == Some(50.0));
/// println!("{} settings with 50 trees", fast.count());
/// # Ok::<(), fashion_knn::lab::record::RecordError>(())
/// ```
pub fn read_csv(path: &Path) -> Result<Vec<Measurement>, RecordError> {
    let mut table = Table::open(path)?;
    if table.header == OLDER_HEADER[..] {
        // The older header begins as today's does (`index`), but its second column is `params`. It
        // is told apart by the whole header, before the checks below refuse it.
        return table.older_rows();
    }
    let columns = table.columns_of_every_row();
    table.expect_first_columns(columns)?;
    table.expect_parameters(columns.len())?;
    let mut rows = Vec::new();
    for (line, fields) in table.lines()? {
        // The columns that every row has go to the fields of their names. The parameters behind
        // them are unknown to serde, which leaves them out, and are read below.
        let mut row: Measurement = table.parse(line, &fields)?;
        let mut parameters = Vec::new();
        for (name, field) in table.header.iter().zip(&fields).skip(columns.len()) {
            // An empty field is a parameter that this index does not have; 0 would be a value.
            if !field.is_empty() {
                let value = number(field).map_err(|why| table.value_error(line, name, why))?;
                parameters.push((name, value));
            }
        }
        row.params = parameters.into_iter().collect();
        rows.push(row);
    }
    Ok(rows)
}

/// Writes the rows as a record, the file replaced whole.
fn write_csv(path: &Path, rows: &[Measurement]) -> Result<(), RecordError> {
    let parameters = parameter_columns();
    let mut lines = Vec::new();
    for row in rows {
        // The row and its fields make one line: the CSV writer writes the parts of a pair one after
        // the other. A parameter without a column ends the loop before the file is touched.
        lines.push((row, parameter_fields(row, &parameters)?));
    }
    write_table(path, &[&COLUMNS[..], &parameters].concat(), &lines)
}

/// Refuses a row with a figure that [`read_csv`] would refuse.
fn check_figures(row: &Measurement) -> Result<(), RecordError> {
    let figures = [
        ("recall", row.recall),
        ("qps", row.qps),
        ("qps_batch", row.qps_batch),
        ("p50_us", row.p50_us),
        ("p99_us", row.p99_us),
        ("build_s", row.build_s),
        ("bandwidth_gb_s", row.bandwidth_gb_s.unwrap_or(0.0)),
    ];
    let params = row.params.iter();
    let params = params.map(|param| (param.name.as_str(), param.value));
    for (column, value) in figures.into_iter().chain(params) {
        check_finite(value).map_err(|why| RecordError::Figure {
            index: row.index.clone(),
            column: column.to_owned(),
            why,
        })?;
    }
    Ok(())
}

/// The row's parameters as fields: the value of each column, an empty one where it has none.
fn parameter_fields(row: &Measurement, columns: &[&str]) -> Result<Vec<String>, RecordError> {
    let mut fields = vec![String::new(); columns.len()];
    for Parameter { name, value } in row.params.iter() {
        let Some(at) = columns.iter().position(|column| column == name) else {
            return Err(RecordError::Parameter {
                index: row.index.clone(),
                name: name.clone(),
                known: columns.join(", "),
            });
        };
        // Rust writes a whole `f64` as "50", as in a label, and any other with the fewest digits
        // that read back as the same number.
        fields[at] = value.to_string();
    }
    Ok(fields)
}

/// The rows of any CSV table whose columns are exactly `columns`.
///
/// # Errors
/// If the file cannot be read, its columns are others, or a value is not of its column's kind.
pub fn read_table<T: DeserializeOwned>(
    path: &Path,
    columns: &[&str],
) -> Result<Vec<T>, RecordError> {
    let mut table = Table::open(path)?;
    table.expect_first_columns(columns)?;
    // The first columns are right; one more would be left out in silence.
    if let Some(extra) = table.header.get(columns.len()) {
        return Err(table.column_error(columns.len(), Some(extra), "no more columns"));
    }
    // All lines are read before the first is parsed: reading changes the table, and parsing looks
    // into its header.
    let lines = table.lines()?;
    let row = |(line, fields): &(u64, StringRecord)| table.parse(*line, fields);
    lines.iter().map(row).collect()
}

/// The rows that a table has so far, after a try whether it can be written: [`check_csv`] for any
/// table. A file that is not there, or empty, has no rows.
///
/// # Errors
/// As [`read_table`], and if the file cannot be written.
pub fn check_table<T: DeserializeOwned>(
    path: &Path,
    columns: &[&str],
) -> Result<Vec<T>, RecordError> {
    files::check_file(path).map_err(|error| file_error(path, &error))?;
    rows_so_far(path, |path| read_table(path, columns))
}

/// Does `change` to the rows of a table, as [`read_table`] reads them, while no other program can,
/// and writes them. A file that is not there, or empty, has no rows.
///
/// # Errors
/// As [`read_table`], and if a row has not as many fields as there are columns, or the file cannot
/// be written.
pub fn change_table<T: Serialize + DeserializeOwned>(
    path: &Path,
    columns: &[&str],
    change: impl FnOnce(&mut Vec<T>),
) -> Result<(), RecordError> {
    let _lock = files::lock(path).map_err(|error| file_error(path, &error))?;
    let mut rows = rows_so_far(path, |path| read_table(path, columns))?;
    change(&mut rows);
    write_table(path, columns, &rows)
}

/// Writes rows as a CSV table with these columns, the file replaced whole. A row with more or fewer
/// fields is an error.
fn write_table<T: Serialize>(path: &Path, columns: &[&str], rows: &[T]) -> Result<(), RecordError> {
    let write = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        // The header is written from `columns`. The writer could take it from the names of the
        // fields, but would not know the parameters, which are no fields. Afterwards it refuses a
        // row that is longer or shorter than the header.
        let mut writer = csv::WriterBuilder::new()
            .has_headers(false)
            .from_writer(Vec::new());
        writer.write_record(columns)?;
        for row in rows {
            writer.serialize(row)?;
        }
        Ok(writer.into_inner()?)
    };
    // The whole text is in memory before the file is touched: an error leaves the old file as it
    // is.
    let bytes = write().map_err(|error| file_error(path, error.as_ref()))?;
    files::write_atomically(path, &bytes).map_err(|error| file_error(path, &error))
}

/// A CSV file that is being read: its columns, and the lines after them.
struct Table {
    path: PathBuf,
    header: StringRecord,
    reader: csv::Reader<File>,
}

impl Table {
    fn open(path: &Path) -> Result<Self, RecordError> {
        let broken = |error| file_error(path, &error);
        let mut reader = csv::Reader::from_path(path).map_err(broken)?;
        Ok(Self {
            path: path.to_owned(),
            header: reader.headers().map_err(broken)?.clone(),
            reader,
        })
    }

    /// Those of [`COLUMNS`] that it should have.
    fn columns_of_every_row(&self) -> &'static [&'static str] {
        let later = COLUMNS[FIRST_COLUMNS..].iter();
        let there = later.zip(self.header.iter().skip(FIRST_COLUMNS));
        let there = there.take_while(|(column, header)| *column == header);
        &COLUMNS[..FIRST_COLUMNS + there.count()]
    }

    /// The table begins with these columns, or an error names the first that differs.
    fn expect_first_columns(&self, columns: &[&str]) -> Result<(), RecordError> {
        for (at, &expected) in columns.iter().enumerate() {
            // A header that ends too early gives `None`, which the error calls "missing".
            let received = self.header.get(at);
            if received != Some(expected) {
                return Err(self.column_error(at, received, &format!("{expected:?}")));
            }
        }
        Ok(())
    }

    /// From column `first` (from 0) on, each column is a parameter and stands once.
    fn expect_parameters(&self, first: usize) -> Result<(), RecordError> {
        let known = parameter_columns();
        for (at, name) in self.header.iter().enumerate().skip(first) {
            // A column that stands twice would give a row two values of one parameter. The few
            // columns are compared pair by pair.
            let earlier = self.header.iter().take(at).any(|other| other == name);
            if earlier || !known.contains(&name) {
                let expected = format!("a parameter, each once, of {}", known.join(", "));
                return Err(self.column_error(at, Some(name), &expected));
            }
        }
        Ok(())
    }

    /// The lines, each with its number in the file.
    fn lines(&mut self) -> Result<Vec<(u64, StringRecord)>, RecordError> {
        let mut lines = Vec::new();
        for fields in self.reader.records() {
            let fields = fields.map_err(|error| file_error(&self.path, &error))?;
            // The line on which the row begins, from 1, the header being the first: a quoted field
            // may hold line breaks, so it is not the number of the row.
            let line = fields.position().map_or(0, csv::Position::line);
            lines.push((line, fields));
        }
        Ok(lines)
    }

    /// The rows of a table with [`OLDER_HEADER`]. What that had no column for is unknown.
    fn older_rows(&mut self) -> Result<Vec<Measurement>, RecordError> {
        let mut rows = Vec::new();
        for (line, fields) in self.lines()? {
            let mut row: Measurement = self.parse(line, &fields)?;
            // `parse` has filled the fields that the older header has and set the newer ones to
            // `None`. It left out `params`, the second column, which is taken apart here.
            let label = &fields[1];
            row.params = ParameterList::from_label(label)
                .map_err(|why| self.value_error(line, OLDER_HEADER[1], why))?;
            rows.push(row);
        }
        Ok(rows)
    }

    /// A line as a row: fields by the columns' names, columns that `T` does not know left out.
    fn parse<T: DeserializeOwned>(
        &self,
        line: u64,
        fields: &StringRecord,
    ) -> Result<T, RecordError> {
        fields.deserialize(Some(&self.header)).map_err(|error| {
            // Only a value of the wrong kind has a column to be named. Any other error is one of
            // the file. (The column stays empty if serde names none, as for a line that lacks a
            // field.)
            let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
                return file_error(&self.path, &error);
            };
            let at = err.field().and_then(|field| usize::try_from(field).ok());
            let column = at.and_then(|at| self.header.get(at)).unwrap_or_default();
            self.value_error(line, column, err.kind().to_string())
        })
    }

    fn value_error(&self, line: u64, column: &str, why: String) -> RecordError {
        RecordError::Value {
            path: self.path.display().to_string(),
            line,
            column: column.to_owned(),
            why,
        }
    }

    fn column_error(&self, at: usize, received: Option<&str>, expected: &str) -> RecordError {
        RecordError::Column {
            path: self.path.display().to_string(),
            number: at + 1,
            received: received.map_or("missing".to_owned(), |name| format!("{name:?}")),
            expected: expected.to_owned(),
        }
    }
}

fn file_error(path: &Path, error: &dyn std::error::Error) -> RecordError {
    RecordError::File {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row with every field filled.
    fn row(index: &str, parameters: &[(&str, f64)]) -> Measurement {
        Measurement {
            params: parameters.iter().copied().collect(),
            p50_us: 398.272_999_999_999_97,
            commit: "70b554dabc".to_owned(),
            cpu: "Maker, model 7".to_owned(),
            cpu_family: Some(25),
            cpu_model: Some(17),
            simd: Some("avx2".to_owned()),
            cores: Some(2),
            bandwidth_gb_s: Some(21.5),
            date: "2026-11-25".to_owned(),
            build_threads: Some(16),
            build_peak_bytes: Some(1 << 30),
            ..Measurement::toy(index, 0.95, 1e4)
        }
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_columns_are_the_fields() {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(row("annoy", &[])).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        assert_eq!(text.lines().next().unwrap(), COLUMNS.join(","));
    }

    #[test]
    fn a_figure_that_could_not_be_read_back_is_not_written() {
        let (_folder, path) = written("");
        append_csv(&path, &[row("annoy", &[])]).unwrap();
        let before = fs::read(&path).unwrap();
        let infinite = Measurement {
            qps: f64::INFINITY,
            ..row("annoy", &[])
        };
        for wrong in [infinite, row("annoy", &[("n_trees", f64::NAN)])] {
            let error = append_csv(&path, &[wrong]).unwrap_err();
            assert!(matches!(error, RecordError::Figure { .. }), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn each_parameter_has_one_column_and_each_index_its_own_order() {
        let columns = parameter_columns();
        for (at, name) in columns.iter().enumerate() {
            assert!(!columns[..at].contains(name), "{name} stands twice");
            assert!(!COLUMNS.contains(name), "{name} is a column of every row");
        }
        for entry in REGISTRY {
            let knobs = entry.build_knobs.iter().chain(entry.query_knobs);
            let places: Vec<_> = knobs
                .map(|knob| columns.iter().position(|column| *column == knob.name))
                .collect();
            assert!(places.iter().all(Option::is_some), "{}", entry.key);
            assert!(places.is_sorted(), "{}: {columns:?}", entry.key);
        }
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/a.csv");
        let rows = [
            row("annoy", &[("n_trees", 50.0), ("search_k", 4000.0)]),
            row("quantized_graph", &[("ef", 400.0), ("epsilon", -0.0325)]),
            Measurement::toy("brute_force", 1.0, 900.0),
        ];
        append_csv(&path, &rows[..1]).unwrap();
        append_csv(&path, &rows[1..]).unwrap();
        assert_eq!(read_csv(&path).unwrap(), rows);
        let header = fs::read_to_string(&path).unwrap();
        let header = header.lines().next().unwrap();
        assert!(header.ends_with(&parameter_columns().join(",")), "{header}");
    }

    /// 8 threads, each with the lock's own file, as 8 programs would have.
    #[test]
    fn of_rows_that_are_added_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for run in 0..10 {
                        let row = Measurement::toy("a", 0.5, f64::from(10 * thread + run));
                        append_csv(path, &[row]).unwrap();
                    }
                });
            }
        });
        let rows = read_csv(&path).unwrap();
        let mut speeds: Vec<f64> = rows.iter().map(|row| row.qps).collect();
        speeds.sort_by(f64::total_cmp);
        assert_eq!(speeds, (0..80).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_file_is_written_to_and_another_ones_text_is_not() {
        let (_folder, path) = written("");
        check_csv(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        append_csv(&path, &[Measurement::toy("a", 0.5, 1.0)]).unwrap();
        check_csv(&path).unwrap();
        assert_eq!(read_csv(&path).unwrap().len(), 1);
        for text in ["milk, bread\n", "milk", "\n", "\u{feff}", "index"] {
            let (_folder, path) = written(text);
            assert!(check_csv(&path).is_err(), "{text:?}");
            assert!(append_csv(&path, &[]).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn rows_of_the_same_index_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let toy = Measurement::toy;
        append_csv(&path, &[toy("a", 0.1, 1.0), toy("b", 0.2, 2.0)]).unwrap();
        replace_csv(&path, &[toy("a", 0.3, 3.0), toy("a", 0.4, 4.0)]).unwrap();
        let recalls: Vec<_> = read_csv(&path).unwrap().iter().map(|r| r.recall).collect();
        assert_eq!(recalls, [0.2, 0.3, 0.4]);
    }

    #[test]
    fn the_older_header_is_accepted_and_converted() {
        // A line of the record at commit ededb06.
        let older = "index,params,data,n,d,k,threads,recall,qps,qps_batch,p50_us,p99_us,build_s,\
            memory_bytes,commit,cpu,date\n\
            va_file,head=30 segments=3,pixels,7500,784,10,1,1.0,38405.90897953197,\
            39179.28794778498,21.971,67.897,0.825423782,8555124,d1237f64bb,AMD EPYC,2026-11-25\n";
        let (_folder, path) = written(older);
        let rows = read_csv(&path).unwrap();
        let [row] = &rows[..] else {
            panic!("one row, not {rows:?}")
        };
        assert_eq!(
            (row.param("head"), row.param("segments")),
            (Some(30.0), Some(3.0))
        );
        assert_eq!(row.params.to_string(), "head=30 segments=3");
        assert_eq!(
            (row.qps, row.commit.as_str()),
            (38405.90897953197, "d1237f64bb")
        );
        assert_eq!(
            (row.cpu.as_str(), row.cpu_family, &row.simd),
            ("AMD EPYC", None, &None)
        );
        // Adding no row rewrites the file in the schema of today.
        append_csv(&path, &[]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&COLUMNS.join(",")), "{text}");
        assert_eq!(read_csv(&path).unwrap(), rows);
        // A label that is none is refused, and the file left alone.
        let (_folder, path) = written(&older.replace("segments=3", "segments"));
        let error = append_csv(&path, &rows).unwrap_err().to_string();
        let expected = "line 2: column \"params\": \"segments\"; expected name=number";
        assert!(
            error.contains("a.csv") && error.contains(expected),
            "{error}"
        );
    }

    #[test]
    fn a_record_from_before_a_parameter_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let rows = [row("hnsw", &[("ef_search", 40.0)])];
        append_csv(&path, &rows).unwrap();
        // Only the columns that the row needs.
        let header = COLUMNS.join(",") + ",ef_search";
        let text = fs::read_to_string(&path).unwrap();
        let fields: Vec<_> = text.lines().nth(1).unwrap().split(',').collect();
        // (The processor's name has a comma and is quoted: one part more than columns.)
        let line = fields[..COLUMNS.len() + 1].join(",") + ",40";
        fs::write(&path, format!("{header}\n{line}\n")).unwrap();
        assert_eq!(read_csv(&path).unwrap(), rows);
    }

    #[test]
    fn other_files_are_refused_with_the_column_named_and_left_alone() {
        let mut missing = COLUMNS.to_vec();
        missing.remove(5);
        let cases = [
            (
                "name,colour".to_owned(),
                "column 1 is \"name\"; expected \"index\"",
            ),
            (
                COLUMNS[..5].join(","),
                "column 6 is missing; expected \"threads\"",
            ),
            (
                missing.join(","),
                "column 6 is \"recall\"; expected \"threads\"",
            ),
            (
                COLUMNS.join(",") + ",head,colour",
                "column 26 is \"colour\"; expected a parameter",
            ),
            (
                COLUMNS.join(",") + ",head,head",
                "column 26 is \"head\"; expected a parameter, each",
            ),
        ];
        for (header, expected) in cases {
            let text = header + "\n";
            let (_folder, path) = written(&text);
            let error = append_csv(&path, &[]).unwrap_err().to_string();
            assert!(
                error.contains("a.csv") && error.contains(expected),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    /// Files from before there were other metrics, and before builds had columns of their own.
    #[test]
    fn rows_without_the_later_columns_have_their_defaults_and_others_keep_theirs() {
        let by_cosine = Measurement {
            metric: "cosine".to_owned(),
            ..row("annoy", &[("n_trees", 50.0)])
        };
        let builds = |build_threads, build_peak_bytes| Measurement {
            build_threads,
            build_peak_bytes,
            ..row("annoy", &[("n_trees", 50.0)])
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        append_csv(&path, std::slice::from_ref(&by_cosine)).unwrap();
        assert_eq!(read_csv(&path).unwrap(), [by_cosine]);
        let text = fs::read_to_string(&path).unwrap();
        let later = [
            ",metric,build_threads,build_peak_bytes,",
            ",cosine,16,1073741824,",
        ];
        for fields in later {
            assert_eq!(text.matches(fields).count(), 1, "{text}");
        }
        let rows_with = |kept: [&str; 2]| {
            let older = text.replace(later[0], kept[0]).replace(later[1], kept[1]);
            fs::write(&path, older).unwrap();
            read_csv(&path).unwrap()
        };
        let without = rows_with([",", ","]);
        assert_eq!(without, [builds(None, None)]);
        assert_eq!(without[0].metric, "euclidean");
        let half = rows_with([",metric,build_threads,", ",euclidean,16,"]);
        assert_eq!(half, [builds(Some(16), None)]);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        append_csv(&path, &[row("annoy", &[("n_trees", 50.0)])]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for (value, broken, column) in [("10000.0", "many", "qps"), (",50,", ",some,", "n_trees")] {
            assert!(text.contains(value), "{text}");
            fs::write(&path, text.replacen(value, broken, 1)).unwrap();
            let error = read_csv(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("line 2: column {column:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_parameter_without_a_column_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let error = append_csv(&path, &[row("annoy", &[("colour", 1.0)])]).unwrap_err();
        let expected = "annoy reports the parameter \"colour\", which is no column";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_row_of_another_program_gets_the_machine() {
        let text = r#"{"index": "hnswlib", "params": {"m": 16, "ef": 40}, "data": "pixels", "n": 9,
            "d": 2, "k": 1, "threads": 1, "recall": 0.5, "qps": 7, "qps_batch": 8.5, "p50_us": 1,
            "p99_us": 2, "build_s": 0.25, "memory_bytes": 100, "commit": "hnswlib 0.8"}"#;
        let row = Measurement::from_json(text, Machine::here()).unwrap();
        assert_eq!(
            (row.param("m"), row.param("ef"), row.qps),
            (Some(16.0), Some(40.0), 7.0)
        );
        assert_eq!(
            (row.cpu.as_str(), row.simd),
            (Machine::here().cpu.as_str(), None)
        );
        assert_eq!(
            (row.cores, row.date),
            (Some(Machine::here().cores), today())
        );
        let error = Measurement::from_json("{\"index\": 3}", Machine::here()).unwrap_err();
        assert!(matches!(error, RecordError::Foreign { .. }), "{error}");
    }

    /// The committed files are records in the schema of today.
    #[test]
    fn the_projects_record_is_read() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results");
        let mut files = 0;
        for file in fs::read_dir(results).unwrap() {
            let path = file.unwrap().path();
            // The tables of the nets (bin/train.rs, bin/learning.rs) have columns of their own.
            let name = path.file_name().unwrap();
            if name == "models.csv" || name == "learning.csv" {
                continue;
            }
            let header = fs::read_to_string(&path).unwrap();
            assert!(
                header.starts_with(&COLUMNS[..FIRST_COLUMNS].join(",")),
                "{}",
                path.display()
            );
            let rows = read_csv(&path).unwrap();
            assert!(rows.len() > 10, "{}: {} rows", path.display(), rows.len());
            // The million descriptors were measured without the trees.
            if name != "sift-1m.csv" {
                let trees = rows.iter().find(|row| row.index == "annoy").unwrap();
                assert!(trees.param("n_trees").is_some(), "{}", path.display());
            }
            files += 1;
        }
        assert_eq!(files, 7);
    }
}
