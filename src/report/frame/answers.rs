//! What the neighbours say of the data, and how sure the classifiers are, as rows of a frame.

use polars::prelude::Column;

use super::{Tabular, column};
use crate::lab::calibration::{CoveragePoint, ReliabilityBin, Vote};
use crate::lab::neighbourhood::{Disagreement, Hub, Pair};

impl Tabular for Vote {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("class", rows, |row| row.class.map(u32::from)),
            column("share", rows, |row| row.share),
        ]
    }
}

impl Tabular for ReliabilityBin {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("from", rows, |row| row.from),
            column("to", rows, |row| row.to),
            column("count", rows, |row| row.count as u32),
            column("confidence", rows, |row| row.confidence),
            column("accuracy", rows, |row| row.accuracy),
            column("low", rows, |row| row.interval.low),
            column("high", rows, |row| row.interval.high),
        ]
    }
}

impl Tabular for CoveragePoint {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("threshold", rows, |row| row.threshold),
            column("coverage", rows, |row| row.coverage),
            column("accuracy", rows, |row| row.accuracy),
            column("low", rows, |row| row.interval.low),
            column("high", rows, |row| row.interval.high),
        ]
    }
}

impl Tabular for Pair {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("query", rows, |row| row.query as u32),
            column("id", rows, |row| row.id as u32),
            column("distance", rows, |row| row.distance),
        ]
    }
}

impl Tabular for Disagreement {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("id", rows, |row| row.id as u32),
            column("label", rows, |row| u32::from(row.label)),
            column("class", rows, |row| u32::from(row.class)),
            column("share", rows, |row| row.share),
            column("distance", rows, |row| row.distance),
        ]
    }
}

impl Tabular for Hub {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("id", rows, |row| row.id as u32),
            column("count", rows, |row| row.count),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::frame::frame_of;

    #[test]
    fn a_bin_and_its_interval_stand_in_one_row() {
        let votes = [Vote {
            class: Some(2),
            share: 0.75,
        }; 4];
        let bins = crate::lab::calibration::reliability(&votes, &[2, 2, 2, 6], 10);
        let frame = frame_of(&bins).unwrap();
        assert_eq!(frame.height(), 1);
        let value = |name: &str| frame.column(name).unwrap().f64().unwrap().get(0).unwrap();
        assert_eq!((value("confidence"), value("accuracy")), (0.75, 0.75));
        assert!(value("low") < 0.75 && 0.75 < value("high"));
    }
}
