//! The records of measurements and of learning curves.

use std::fs;

use fashion_knn::lab::learning::{self, Learned};
use fashion_knn::lab::machine::Machine;
use fashion_knn::lab::record::{
    Measurement, Parameter, RecordError, append_csv, check_csv, parameter_columns, read_csv,
};
use tempfile::tempdir;

use super::file;

/// A record, or a row of another program if it begins as JSON does.
pub fn record(input: &[u8]) {
    if input.starts_with(b"{") {
        return foreign(&String::from_utf8_lossy(input));
    }
    let given = file(".csv", input);
    let answer = read_csv(given.path());
    // Whether rows can be added is the same question, but for a file without a byte; and the
    // question leaves the file as it is.
    let may_grow = check_csv(given.path()).is_ok();
    assert_eq!(may_grow, answer.is_ok() || input.is_empty(), "{answer:?}");
    assert_eq!(fs::read(given.path()).expect("it is there"), input);
    if let Ok(rows) = answer {
        is_read_back(rows);
    }
}

/// A row of another program is a row of the record, and can be written.
fn foreign(text: &str) {
    let machine = Machine {
        cpu: "Maker, \"model\" 7".to_owned(),
        cpu_family: Some(25),
        cpu_model: None,
        simd: "avx2".to_owned(),
        cores: 2,
        bandwidth_gb_s: 21.5,
    };
    if let Ok(row) = Measurement::from_json(text, &machine) {
        is_read_back(vec![row]);
    }
}

/// Rows are finite, and the same after they were written; or a parameter has no column.
fn is_read_back(rows: Vec<Measurement>) {
    for row in &rows {
        for figure in [
            row.recall,
            row.qps,
            row.qps_batch,
            row.p50_us,
            row.p99_us,
            row.build_s,
        ] {
            assert!(figure.is_finite());
        }
        assert!(row.bandwidth_gb_s.is_none_or(f64::is_finite));
        assert!(
            row.params
                .iter()
                .all(|parameter| parameter.value.is_finite())
        );
    }
    let folder = tempdir().expect("the folder of temporary files can be written");
    let path = folder.path().join("new.csv");
    let columns = parameter_columns();
    match append_csv(&path, &rows) {
        Ok(()) => {}
        // Rows of the older schema can name any parameter.
        Err(RecordError::Parameter { name, .. }) => {
            assert!(!columns.contains(&name.as_str()), "{name}");
            assert!(!path.exists());
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let again = read_csv(&path).expect("what was written is a record");
    assert_eq!(again.len(), rows.len());
    for (one, other) in rows.into_iter().zip(again) {
        assert_eq!(sorted(one), sorted(other));
    }
}

/// A row with its parameters by name: their order is the file's.
fn sorted(mut row: Measurement) -> Measurement {
    let mut parameters: Vec<Parameter> = row.params.iter().cloned().collect();
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let pairs = parameters
        .into_iter()
        .map(|Parameter { name, value }| (name, value));
    row.params = pairs.collect();
    row
}

/// A record of learning curves.
pub fn learning(input: &[u8]) {
    let given = file(".csv", input);
    let answer = learning::learning(given.path());
    let may_grow = learning::so_far(given.path()).is_ok();
    assert_eq!(may_grow, answer.is_ok() || input.is_empty(), "{answer:?}");
    assert_eq!(fs::read(given.path()).expect("it is there"), input);
    let Ok(rows) = answer else {
        return;
    };
    let figures = |row: &Learned| [row.accuracy, row.validation, row.seconds];
    assert!(rows.iter().flat_map(figures).all(f64::is_finite));
    let folder = tempdir().expect("the folder of temporary files can be written");
    let path = folder.path().join("new.csv");
    learning::add(&path, rows.clone()).expect("what was read can be written");
    assert_eq!(
        learning::learning(&path).expect("what was written is a record"),
        rows
    );
}
