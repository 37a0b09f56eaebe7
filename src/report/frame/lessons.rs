//! What the lessons on features and on all indexes measure, as rows of a frame.

use polars::prelude::Column;

use super::{Tabular, column};
use crate::lab::classified::{Classified, Comparison, Confidence, Spread};
use crate::lab::difficulty::Difficulty;
use crate::lab::frontier::is_ours;
use crate::lab::sweep::Run;
#[cfg(feature = "net")]
use crate::net::Trained;

impl Tabular for Run {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("data", rows, |row| row.data.as_str()),
            column("index", rows, |row| row.index),
            column("name", rows, |row| row.name),
            column("ours", rows, |row| is_ours(row.index)),
            column("exact", rows, |row| row.exact),
            column("is_default", rows, |row| row.is_default),
            column("settings", rows, |row| row.settings.as_str()),
            column("main_knob", rows, |row| row.main_knob),
            column("effort", rows, |row| row.effort),
            column("recall", rows, |row| row.recall),
            column("recall_at_1", rows, |row| row.recall_at_1),
            column("qps", rows, |row| row.qps),
            column("slowest", rows, |row| row.slowest),
            column("fastest", rows, |row| row.fastest),
            column("search_s", rows, |row| row.search_s),
            column("build_s", rows, |row| row.build_s),
            column("memory_mb", rows, |row| row.memory_bytes as f64 / 1e6),
            column("bytes_per_row", rows, |row| {
                row.memory_bytes as f64 / row.n as f64
            }),
            column("accuracy", rows, |row| row.accuracy),
        ]
    }
}

impl Tabular for Difficulty {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("dimensions", rows, |row| row.dimensions as u32),
            column("intrinsic_dimension", rows, |row| row.intrinsic_dimension),
            column("relative_contrast", rows, |row| row.relative_contrast),
            column("hub_skewness", rows, |row| row.hub_skewness),
            column("kd_tree_looked_at", rows, |row| row.kd_tree_looked_at),
            column("ball_tree_looked_at", rows, |row| row.ball_tree_looked_at),
            column("ball_tree_distances", rows, |row| row.ball_tree_distances),
        ]
    }
}

impl Tabular for Classified {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name.as_str()),
            column("images", rows, |row| row.right.len() as u32),
            column("accuracy", rows, |row| row.accuracy),
            column("low", rows, |row| row.interval.low),
            column("high", rows, |row| row.interval.high),
        ]
    }
}

impl Tabular for Confidence {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name.as_str()),
            column("accuracy", rows, |row| row.accuracy),
            column("share", rows, |row| row.share),
            column("error", rows, |row| row.error),
            column("coverage", rows, |row| row.coverage),
        ]
    }
}

impl Tabular for Spread {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("name", rows, |row| row.name.as_str()),
            column("dimensions", rows, |row| row.dimensions as u32),
            column("between_classes", rows, |row| row.between_classes),
            column("components", rows, |row| row.components as u32),
            column("same_class", rows, |row| row.same_class),
        ]
    }
}

impl Tabular for Comparison {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("first", rows, |row| row.first.as_str()),
            column("second", rows, |row| row.second.as_str()),
            column("only_first", rows, |row| row.only_first as u32),
            column("only_second", rows, |row| row.only_second as u32),
            column("difference", rows, |row| row.difference),
            column("p", rows, |row| row.p),
        ]
    }
}

#[cfg(feature = "net")]
impl Tabular for Trained {
    fn columns(rows: &[Self]) -> Vec<Column> {
        let model = |row: &Self| row.model.config().clone();
        vec![
            column("model", rows, |row| model(row).name()),
            column("features", rows, |row| model(row).feature_width() as u32),
            column("parameters", rows, |row| model(row).parameters() as u32),
            column("epochs", rows, |row| row.history.len() as u32),
            column("train_s", rows, Trained::seconds),
            column("images_per_s", rows, Trained::images_per_s),
            column("validation_accuracy", rows, Trained::validation_accuracy),
            column("test_accuracy", rows, |row| row.test_accuracy),
        ]
    }
}
