//! The library's results as rows of a frame.

use polars::prelude::Column;

use super::{Tabular, column};
use crate::classify::Trial;
use crate::lab::evaluate::ClassScores;
use crate::lab::frontier::{is_exact, is_ours, label};
use crate::lab::record::{Measurement, parameter_columns};
use crate::lab::statistics::wilson;
#[cfg(feature = "net")]
use crate::net::{Epoch, Layer};

impl Tabular for Measurement {
    fn columns(rows: &[Self]) -> Vec<Column> {
        let mut columns = columns_of_the_file(rows);
        columns.extend([
            column("name", rows, |row| label(&row.index)),
            column("settings", rows, |row| row.params.to_string()),
            column("ours", rows, |row| is_ours(&row.index)),
            column("exact", rows, |row| is_exact(&row.index)),
            column("memory_mb", rows, |row| row.memory_bytes as f64 / 1e6),
        ]);
        // A parameter that an index does not have is a null of its rows.
        for name in parameter_columns() {
            columns.push(column(name, rows, |row| row.param(name)));
        }
        columns
    }
}

/// The columns that every row of the record has ([`COLUMNS`](crate::lab::record::COLUMNS)).
fn columns_of_the_file(rows: &[Measurement]) -> Vec<Column> {
    vec![
        column("index", rows, |row| row.index.as_str()),
        column("data", rows, |row| row.data.as_str()),
        column("n", rows, |row| row.n as u32),
        column("d", rows, |row| row.d as u32),
        column("k", rows, |row| row.k as u32),
        column("threads", rows, |row| row.threads as u32),
        column("recall", rows, |row| row.recall),
        column("qps", rows, |row| row.qps),
        column("qps_batch", rows, |row| row.qps_batch),
        column("p50_us", rows, |row| row.p50_us),
        column("p99_us", rows, |row| row.p99_us),
        column("build_s", rows, |row| row.build_s),
        column("memory_bytes", rows, |row| row.memory_bytes as u64),
        column("commit", rows, |row| row.commit.as_str()),
        column("cpu", rows, |row| row.cpu.as_str()),
        column("cpu_family", rows, |row| row.cpu_family),
        column("cpu_model", rows, |row| row.cpu_model),
        column("simd", rows, |row| row.simd.as_deref()),
        column("cores", rows, |row| row.cores.map(|cores| cores as u32)),
        column("bandwidth_gb_s", rows, |row| row.bandwidth_gb_s),
        column("date", rows, |row| row.date.as_str()),
        column("metric", rows, |row| row.metric.as_str()),
        column("build_threads", rows, |row| {
            row.build_threads.map(|threads| threads as u32)
        }),
        column("build_peak_bytes", rows, |row| row.build_peak_bytes),
    ]
}

impl Tabular for Trial {
    fn columns(rows: &[Self]) -> Vec<Column> {
        let interval = |row: &Self| {
            let hits = row.right.iter().filter(|&&right| right).count();
            wilson(hits, row.right.len())
        };
        vec![
            column("metric", rows, |row| row.metric.name()),
            column("weights", rows, |row| row.weights.name()),
            column("k", rows, |row| row.k as u32),
            column("accuracy", rows, |row| row.accuracy),
            column("low", rows, |row| interval(row).low),
            column("high", rows, |row| interval(row).high),
        ]
    }
}

impl Tabular for ClassScores {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("precision", rows, |row| row.precision),
            column("recall", rows, |row| row.recall),
            column("f1", rows, |row| row.f1),
            column("support", rows, |row| row.support),
        ]
    }
}

#[cfg(feature = "net")]
impl Tabular for Epoch {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("epoch", rows, |row| row.epoch as u32),
            column("learning_rate", rows, |row| f64::from(row.learning_rate)),
            column("loss", rows, |row| row.loss),
            column("accuracy", rows, |row| row.train_accuracy),
            column("validation_loss", rows, |row| row.validation_loss),
            column("validation_accuracy", rows, |row| row.validation_accuracy),
            column("seconds", rows, |row| row.seconds),
            column("images_per_s", rows, |row| row.images_per_s),
        ]
    }
}

#[cfg(feature = "net")]
impl Tabular for Layer {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name.as_str()),
            column("input", rows, |row| shape(&row.input)),
            column("output", rows, |row| shape(&row.output)),
            column("weights", rows, |row| shape(&row.weight)),
            column("parameters", rows, |row| row.parameters() as u32),
        ]
    }
}

/// A shape as text: "28 × 28 × 1".
#[cfg(feature = "net")]
fn shape(lengths: &[usize]) -> String {
    let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
    lengths.join(" × ")
}
