//! The handout's table, of a million SIFT descriptors: what it says, and what the record says of
//! the same kinds of index.

use polars::prelude::{Column, DataFrame, IntoLazy, PolarsResult, col, lit};

use super::{FrameError, Tabular, column, fastest_at, frame_of, numbers, texts};
use crate::lab::frontier::label;

/// How many queries a search time is of, in the handout's table and in ours.
const QUERIES: f64 = 10_000.0;

/// A row of the handout's table, or one measured that stands beside it. What is not known, or was
/// not measured, is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct MillionRow {
    /// The kind of index: "Flat", "IVF16384,Flat".
    pub kind: &'static str,
    /// Whose it is, for a reader: "FAISS Flat".
    pub name: String,
    /// Its parameters as text; empty where there are none.
    pub settings: String,
    /// The share of the queries whose first answer is the nearest: 1-R@1.
    pub recall_at_1: Option<f64>,
    /// Seconds that 10,000 queries take on one thread, all in one call.
    pub search_s: Option<f64>,
    /// The same on all threads.
    pub search_all_s: Option<f64>,
    /// The index with its vectors, in 10⁶ bytes.
    pub memory_mb: Option<f64>,
    /// Seconds of the build on all threads.
    pub build_s: Option<f64>,
}

impl Tabular for MillionRow {
    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            column("kind", rows, |row| row.kind),
            column("name", rows, |row| row.name.as_str()),
            column("recall_at_1", rows, |row| row.recall_at_1),
            column("search_s", rows, |row| row.search_s),
            column("search_all_s", rows, |row| row.search_all_s),
            column("memory_mb", rows, |row| row.memory_mb),
            column("build_s", rows, |row| row.build_s),
            // Last, as it is the widest.
            column("settings", rows, |row| row.settings.as_str()),
        ]
    }
}

/// A kind of index of the handout's table, or one of ours besides, and who has it: names of the
/// record.
struct Kind {
    name: &'static str,
    /// The number of lists that the kind asks for.
    nlist: Option<f64>,
    indexes: &'static [&'static str],
}

/// The table's kinds in the handout's order; then what it does not have.
const KINDS: [Kind; 6] = [
    Kind {
        name: "Flat",
        nlist: None,
        indexes: &["brute_force", "faiss_flat"],
    },
    Kind {
        name: "hnsw",
        nlist: None,
        indexes: &["hnsw", "nmslib", "faiss_hnsw"],
    },
    Kind {
        name: "IVF16384,Flat",
        nlist: Some(16_384.0),
        indexes: &["ivf_flat", "faiss_ivf_flat"],
    },
    Kind {
        name: "IVF,PQ",
        nlist: None,
        indexes: &["ivf_pq", "faiss_ivf_pq"],
    },
    Kind {
        name: "VA+-file",
        nlist: None,
        indexes: &["va_file"],
    },
    Kind {
        name: "QG",
        nlist: None,
        indexes: &["quantized_graph", "symphony_qg"],
    },
];

/// The handout's own table, as it stands there: FAISS and NMSLIB on a million SIFT descriptors,
/// the last two on a GPU. On how many threads the others ran it does not say, and its times are
/// taken for those of all. `by` says whose table it is.
#[must_use]
pub fn handout_table(by: &str) -> Vec<MillionRow> {
    let quoted = |kind, recall_at_1, search_all_s, memory_mb, build_s| MillionRow {
        kind,
        name: by.to_owned(),
        settings: String::new(),
        recall_at_1: Some(recall_at_1),
        search_s: None,
        search_all_s: Some(search_all_s),
        memory_mb: Some(memory_mb),
        build_s: Some(build_s),
    };
    vec![
        quoted("Flat-CPU", 1.0, 9.100, 512.0, 0.0),
        quoted("nmslib (hnsw)", 0.8195, 0.081, 512.0 + 796.0, 173.0),
        quoted("IVF16384,Flat", 0.8980, 0.538, 512.0 + 8.0, 240.0),
        quoted("IVF16384,Flat (Titan X)", 0.8145, 0.059, 512.0 + 8.0, 5.0),
        quoted("Flat-GPU (Titan X)", 0.9935, 0.753, 512.0, 0.0),
    ]
}

/// The same kinds in the record (a frame of [`record`](super::record)): a row an index, ours and
/// the libraries', over the largest base that was measured. Of several settings it is the fastest
/// on one thread whose 1-R@1 is `wanted` or more; if none is, the one with the greatest. An index
/// that was not measured has a row without figures.
///
/// # Errors
/// If a column is missing or holds something else.
pub fn million_table(record: &DataFrame, wanted: f64) -> Result<Vec<MillionRow>, FrameError> {
    let searches = searches(record)?;
    let mut rows = Vec::new();
    for kind in &KINDS {
        for index in kind.indexes {
            let of_index: Vec<&Search> = searches
                .iter()
                .filter(|search| search.index == *index)
                .filter(|search| kind.nlist.is_none() || search.nlist == kind.nlist)
                .collect();
            rows.push(row_of(kind.name, index, &of_index, wanted));
        }
    }
    Ok(rows)
}

/// The rows of the handout and of the record as one frame, the record's first.
///
/// # Errors
/// As [`million_table`].
pub fn beside_the_handout(
    record: &DataFrame,
    wanted: f64,
    by: &str,
) -> Result<DataFrame, FrameError> {
    let mut rows = million_table(record, wanted)?;
    rows.extend(handout_table(by));
    Ok(frame_of(&rows)?)
}

/// How the time of a query for `k` neighbours and of a build grow with the base. A row an index and
/// size that reaches recall `wanted`, by name and size: `name`, `ours`, `n`, `micros` (of a query,
/// one a call on one thread, by [`fastest_at`]) and `build_s` (of the build that reaches it
/// soonest).
///
/// # Errors
/// If a column is missing or holds something else.
pub fn growth_at(record: &DataFrame, k: u32, wanted: f64) -> Result<DataFrame, FrameError> {
    let alike = record.clone().lazy().filter(col("k").eq(lit(k)));
    let record = &alike.collect()?;
    let fastest = fastest_at(record, wanted)?;
    let (names, sizes) = (texts(&fastest, "name")?, numbers(&fastest, "n")?);
    let builds: Vec<Option<f64>> = names
        .iter()
        .zip(&sizes)
        .map(|(name, n)| soonest_build(record, name, *n, wanted))
        .collect::<PolarsResult<_>>()?;
    let speeds = numbers(&fastest, "qps")?.into_iter();
    let micros: Vec<Option<f64>> = speeds.map(|qps| Some(1e6 / qps?)).collect();
    let mut grown = fastest.select(["name", "ours", "n"])?;
    grown.with_column(Column::new("micros".into(), micros))?;
    grown.with_column(Column::new("build_s".into(), builds))?;
    Ok(grown.sort(["name", "n"], Default::default())?)
}

/// The shortest build of an index over `n` rows that reaches the recall; of several numbers of
/// threads it is on the most, as a build that is measured on one alone is not comparable.
fn soonest_build(
    record: &DataFrame,
    name: &str,
    n: Option<f64>,
    wanted: f64,
) -> PolarsResult<Option<f64>> {
    let (names, sizes) = (texts(record, "name")?, numbers(record, "n")?);
    let (recall, threads) = (numbers(record, "recall")?, numbers(record, "threads")?);
    let build = numbers(record, "build_s")?;
    let reaching = || {
        (0..record.height())
            .filter(|&row| names[row] == name && sizes[row] == n && recall[row] >= Some(wanted))
    };
    let most = reaching()
        .filter_map(|row| threads[row])
        .max_by(f64::total_cmp);
    let on_most = reaching().filter(|&row| threads[row] == most);
    Ok(on_most.filter_map(|row| build[row]).min_by(f64::total_cmp))
}

/// What the table needs of a measurement.
struct Search {
    index: String,
    settings: String,
    nlist: Option<f64>,
    threads: f64,
    recall: f64,
    seconds: f64,
    memory_mb: f64,
    build_s: f64,
}

/// The measurements of the largest base for one neighbour.
fn searches(record: &DataFrame) -> PolarsResult<Vec<Search>> {
    let (index, settings) = (texts(record, "index")?, texts(record, "settings")?);
    let (n, k) = (numbers(record, "n")?, numbers(record, "k")?);
    let (nlist, threads) = (numbers(record, "nlist")?, numbers(record, "threads")?);
    let (recall, qps) = (numbers(record, "recall")?, numbers(record, "qps_batch")?);
    let (memory, build) = (numbers(record, "memory_mb")?, numbers(record, "build_s")?);
    let largest = n.iter().copied().flatten().max_by(f64::total_cmp);
    let searched = |row: usize| {
        Some(Search {
            index: index[row].clone(),
            settings: settings[row].clone(),
            nlist: nlist[row],
            threads: threads[row]?,
            recall: recall[row]?,
            seconds: QUERIES / qps[row]?,
            memory_mb: memory[row]?,
            build_s: build[row]?,
        })
    };
    let wanted = (0..record.height()).filter(|&row| n[row] == largest && k[row] == Some(1.0));
    Ok(wanted.filter_map(searched).collect())
}

/// The row of an index: its setting for the recall, on the fewest threads measured and on the most.
fn row_of(kind: &'static str, index: &str, searches: &[&Search], wanted: f64) -> MillionRow {
    let by_threads = |a: &&&Search, b: &&&Search| a.threads.total_cmp(&b.threads);
    let few = searches.iter().min_by(by_threads).map(|row| row.threads);
    let most = searches.iter().max_by(by_threads).map(|row| row.threads);
    let on_few: Vec<&Search> = searches
        .iter()
        .filter(|row| Some(row.threads) == few)
        .copied()
        .collect();
    let chosen = cheapest(&on_few, wanted);
    let all = chosen.and_then(|chosen| {
        let alike = |row: &&&Search| row.settings == chosen.settings;
        let mut alike = searches.iter().filter(alike);
        alike.find(|row| Some(row.threads) == most)
    });
    let seconds_on = |row: Option<&Search>, is_one: bool| {
        let row = row.filter(|row| (row.threads == 1.0) == is_one)?;
        Some(row.seconds)
    };
    MillionRow {
        kind,
        name: label(index).to_owned(),
        settings: chosen.map_or_else(String::new, |row| row.settings.clone()),
        recall_at_1: chosen.map(|row| row.recall),
        search_s: seconds_on(chosen, true),
        search_all_s: seconds_on(all.copied(), false),
        memory_mb: chosen.map(|row| row.memory_mb),
        build_s: all.copied().or(chosen).map(|row| row.build_s),
    }
}

/// The fastest search with at least this recall, or the one that finds most.
fn cheapest<'a>(searches: &[&'a Search], wanted: f64) -> Option<&'a Search> {
    let enough = searches.iter().filter(|row| row.recall >= wanted);
    let fastest = enough.min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let most = || {
        let by_recall = |a: &&&Search, b: &&&Search| a.recall.total_cmp(&b.recall);
        searches.iter().max_by(by_recall)
    };
    fastest.or_else(most).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::record::Measurement;

    fn row(index: &str, n: usize, threads: usize, recall: f64, qps: f64) -> Measurement {
        Measurement {
            n,
            threads,
            qps_batch: qps,
            memory_bytes: 3_000_000,
            build_s: 100.0 / threads as f64,
            // The setting is told by what it finds.
            params: [("nprobe", recall * 100.0)].into_iter().collect(),
            ..Measurement::toy(index, recall, qps)
        }
    }

    fn with_nlist(row: Measurement, nlist: f64) -> Measurement {
        let params = row.params.clone().with_first("nlist", nlist);
        Measurement { params, ..row }
    }

    fn of<'a>(rows: &'a [MillionRow], name: &str) -> &'a MillionRow {
        rows.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn the_cheapest_setting_that_reaches_the_recall_stands_with_both_times() {
        let rows = [
            row("hnsw", 1_000, 1, 0.91, 5_000.0),
            row("hnsw", 1_000, 1, 0.95, 4_000.0),
            row("hnsw", 1_000, 1, 0.80, 9_000.0),
            row("hnsw", 1_000, 2, 0.91, 8_000.0),
            row("hnsw", 1_000, 2, 0.95, 9_500.0),
            // A smaller base is another table.
            row("hnsw", 500, 1, 0.99, 90_000.0),
            // So are more neighbours.
            Measurement {
                k: 10,
                ..row("hnsw", 1_000, 1, 0.92, 80_000.0)
            },
        ];
        let table = million_table(&frame_of(&rows).unwrap(), 0.9).unwrap();
        let hnsw = of(&table, "HNSW");
        assert_eq!((hnsw.kind, hnsw.settings.as_str()), ("hnsw", "nprobe=91"));
        assert_eq!((hnsw.search_s, hnsw.search_all_s), (Some(2.0), Some(1.25)));
        assert_eq!((hnsw.memory_mb, hnsw.build_s), (Some(3.0), Some(50.0)));
        assert_eq!(hnsw.recall_at_1, Some(0.91));
    }

    #[test]
    fn what_was_not_measured_is_missing_and_what_falls_short_is_the_best_there_is() {
        let rows = [
            with_nlist(row("ivf_flat", 9, 1, 0.7, 10.0), 16_384.0),
            with_nlist(row("ivf_flat", 9, 1, 0.6, 20.0), 16_384.0),
            // Not the handout's lists.
            with_nlist(row("ivf_flat", 9, 1, 0.99, 30.0), 1_024.0),
            row("faiss_flat", 9, 2, 1.0, 1_000.0),
        ];
        let table = million_table(&frame_of(&rows).unwrap(), 0.9).unwrap();
        let lists = of(&table, "IVF Flat");
        assert_eq!((lists.recall_at_1, lists.search_all_s), (Some(0.7), None));
        assert_eq!(lists.search_s, Some(1_000.0));
        let flat = of(&table, "FAISS Flat");
        assert_eq!((flat.search_s, flat.search_all_s), (None, Some(10.0)));
        let missing = of(&table, "NMSLIB");
        assert_eq!((missing.recall_at_1, missing.build_s), (None, None));
        let frame = beside_the_handout(&frame_of(&rows).unwrap(), 0.9, "handout").unwrap();
        let kinds: usize = KINDS.iter().map(|kind| kind.indexes.len()).sum();
        assert_eq!(frame.height(), kinds + 5);
        // Nothing measured at all.
        let none = million_table(&frame_of::<Measurement>(&[]).unwrap(), 0.9).unwrap();
        assert!(none.iter().all(|row| row.recall_at_1.is_none()));
    }

    #[test]
    fn growth_is_the_time_of_a_query_and_of_the_build_that_reaches_the_recall() {
        let rows = [
            row("hnsw", 1_000, 1, 0.99, 5_000.0),
            row("hnsw", 1_000, 2, 0.99, 4_000.0),
            row("hnsw", 1_000, 2, 0.9, 90_000.0),
            row("hnsw", 100, 2, 1.0, 10_000.0),
            row("annoy", 100, 1, 0.98, 10_000.0),
        ];
        let grown = growth_at(&frame_of(&rows).unwrap(), 1, 0.99).unwrap();
        assert_eq!(texts(&grown, "name").unwrap(), ["HNSW", "HNSW"]);
        assert_eq!(numbers(&grown, "n").unwrap(), [100.0, 1_000.0].map(Some));
        assert_eq!(numbers(&grown, "micros").unwrap(), [100.0, 200.0].map(Some));
        assert_eq!(numbers(&grown, "build_s").unwrap(), [50.0, 50.0].map(Some));
    }
}
