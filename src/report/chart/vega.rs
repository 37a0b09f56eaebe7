//! [`Interactive`]: a chart that answers its reader, over a still figure for paper and for where no
//! script runs.
//!
//! The interactive form is Vega-Lite (Satyanarayan et al., *Vega-Lite: A Grammar of Interactive
//! Graphics*, IEEE TVCG 2017). JupyterLab draws it by itself; the exporter of the report puts the
//! library into the page.
//!
//! Each chart is a template beside this file (`*.vl.json`), a whole specification with holes such
//! as `"{{rows}}"`. The function of the chart computes what goes into them: rows, scales, and the
//! reader's words. To change what a chart looks like, change its template.

use serde_json::{Value, json};

use super::PALETTE;
use crate::lab::frontier::pareto;
use crate::lab::record::Measurement;
use crate::report::figure::{Figure, emit};
use crate::report::numbers::REPORT;

/// The MIME type that JupyterLab draws.
const MIME: &str = "application/vnd.vegalite.v5+json";

const RECALL_AND_SPEED: &str = include_str!("recall_and_speed.vl.json");
const ACCURACY_BY_K: &str = include_str!("accuracy_by_k.vl.json");

/// Settings below this recall are left out, as each row makes the page longer. It is the least of
/// the recalls that the reader can choose in the template (`least_recall`); with a greater value
/// here, the lowest choice would show a curve that is cut off.
const LEAST_RECALL: f64 = 0.5;

/// A figure, and its interactive form.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactive {
    still: Figure,
    spec: Value,
}

impl Interactive {
    /// The Vega-Lite specification, its data within.
    #[must_use]
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// Shows both as one output of the cell: whoever shows it takes the form that it can draw.
    pub fn evcxr_display(&self) {
        // Two pieces of content, of two MIME types, that one call prints: evcxr makes one output of
        // them.
        self.still.evcxr_display();
        emit(MIME, &self.spec.to_string());
    }
}

/// How an index of the record is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStyle<'a> {
    /// What the record calls it.
    pub index: &'a str,
    /// Its name for the reader.
    pub name: &'a str,
    /// Whether its line is dashed.
    pub dashed: bool,
}

/// How data of the record are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataName<'a> {
    /// What the record calls them.
    pub key: &'a str,
    /// Their name for the reader.
    pub name: &'a str,
}

/// What [`recall_and_speed`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeedView<'a> {
    /// The indexes, in the order of the legend. Rows of others are left out.
    pub indexes: &'a [IndexStyle<'a>],
    /// The data that the reader can choose; the first are shown at first.
    pub data: &'a [DataName<'a>],
    /// The measured k nearest to this one is shown at first.
    pub k: usize,
}

/// The words of [`recall_and_speed`], in the reader's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeedLabels<'a> {
    /// In the tooltip: the index.
    pub index: &'a str,
    /// In the tooltip: the settings of the index.
    pub settings: &'a str,
    /// The x axis, and in the tooltip.
    pub recall: &'a str,
    /// The y axis, and in the tooltip.
    pub queries_per_second: &'a str,
    /// In the tooltip: the time to build, in seconds.
    pub build: &'a str,
    /// In the tooltip: the memory, in megabytes.
    pub memory: &'a str,
    /// The control that chooses the data.
    pub data: &'a str,
    /// The control that chooses where recall begins.
    pub least_recall: &'a str,
}

/// Queries per second against recall, in the form of ann-benchmarks: a curve per index, of the
/// settings that no other setting of the index beats in both.
///
/// The reader chooses k, the data, and where recall begins. Pointing at a setting tells what it is;
/// a click on the legend singles an index out.
///
/// `still` is the figure for paper.
#[must_use]
pub fn recall_and_speed(
    rows: &[Measurement],
    view: &SpeedView<'_>,
    labels: &SpeedLabels<'_>,
    still: Figure,
) -> Interactive {
    // The counts of neighbours that the reader can choose: every one measured, ascending.
    let mut ks: Vec<usize> = rows.iter().map(|row| row.k).collect();
    ks.sort_unstable();
    ks.dedup();
    // The count shown at first is the nearest by ratio, as counts are measured in steps of a
    // factor: to 30, 10 is as near as 90. Without rows there is none, and the hole becomes a null.
    let away = |measured: usize| (measured as f64 / view.k as f64).ln().abs();
    let nearest_k = ks.iter().min_by(|&&a, &&b| away(a).total_cmp(&away(b)));

    let names: Vec<&str> = view.indexes.iter().map(|style| style.name).collect();
    let dashed: Vec<bool> = view.indexes.iter().map(|style| style.dashed).collect();
    let data_keys: Vec<&str> = view.data.iter().map(|data| data.key).collect();
    let data_names: Vec<&str> = view.data.iter().map(|data| data.name).collect();
    // Scales of colour, shape and dash are lists beside the list of names: place by place, in the
    // order of the legend. So an index keeps its look whichever data and k are chosen.
    let spec = filled(
        RECALL_AND_SPEED,
        &json!({
            "number_format": number_format(),
            "rows": speed_rows(rows, view, &ks),
            "ks": &ks,
            "first_k": nearest_k,
            "data_keys": &data_keys,
            "data_names": &data_names,
            "first_data": data_keys.first(),
            "names": &names,
            "colors": colors(names.len()),
            "shapes": shapes(names.len()),
            "fills": fills(names.len()),
            "dashes": dashes(&dashed),
            "legend": speed_legend(view.indexes),
            "index_label": labels.index,
            "settings_label": labels.settings,
            "recall_label": labels.recall,
            "queries_per_second_label": labels.queries_per_second,
            "build_label": labels.build,
            "memory_label": labels.memory,
            "data_label": labels.data,
            "least_recall_label": labels.least_recall,
        }),
    );
    Interactive { still, spec }
}

/// The rows of the chart: of each data, k and index the settings that are not beaten.
fn speed_rows(rows: &[Measurement], view: &SpeedView<'_>, ks: &[usize]) -> Vec<Value> {
    let mut values = Vec::new();
    // The frontier is taken within each data, k and index, since the reader sees one data and one k
    // at a time. A frontier over all of them would leave out most of what he chooses.
    for data in view.data {
        for &k in ks {
            for style in view.indexes {
                let measured = rows.iter().filter(|row| {
                    row.data == data.key
                        && row.k == k
                        && row.index == style.index
                        && row.recall >= LEAST_RECALL
                });
                for row in pareto(measured, |row| row.recall, |row| -row.qps) {
                    values.push(json!({
                        "index": style.name,
                        "settings": row.params.to_string(),
                        "data": data.key,
                        "k": k,
                        "recall": row.recall,
                        "queries_per_second": row.qps.round(),
                        "build_seconds": row.build_s,
                        "megabytes": row.memory_bytes as f64 / 1e6,
                    }));
                }
            }
        }
    }
    values
}

/// The legend of all channels: Vega-Lite makes one legend of equal ones. A legend's symbol shows no
/// dash, so a full or a broken line stands before the name.
fn speed_legend(indexes: &[IndexStyle<'_>]) -> Value {
    // `labelExpr` is an expression of Vega, run for each label in the reader's browser: it looks
    // the name up in the list of dashed ones, which is written into it.
    let dashed = indexes.iter().filter(|style| style.dashed);
    let names: Vec<&str> = dashed.map(|style| style.name).collect();
    // A list of strings is written the same in JSON and in Vega's expressions, quotes escaped.
    let names = json!(names);
    // No title: the names speak for themselves. `symbolLimit` 0 lets Vega leave no index out, and
    // names may be 220 pixels long before they are cut.
    json!({
        "title": null,
        "symbolLimit": 0,
        "labelLimit": 220,
        "labelExpr":
            format!("(indexof({names}, datum.label) < 0 ? '— ' : '- - ') + datum.label"),
    })
}

/// A curve of [`accuracy_by_k`].
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyCurve {
    /// Its name for the reader.
    pub name: String,
    /// Pairs of k and the accuracy with it.
    pub points: Vec<(usize, f64)>,
}

/// The words of [`accuracy_by_k`], in the reader's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccuracyLabels<'a> {
    /// In the tooltip: the curve.
    pub curve: &'a str,
    /// The y axis, and in the tooltip.
    pub accuracy: &'a str,
    /// The control with which the reader tries a k: the value follows.
    pub tried_k: &'a str,
}

/// Accuracy against k, a curve per name; every other one is dashed. A control says what each curve
/// gives at the k that the reader tries, which is `k` at first.
///
/// `still` is the figure for paper.
#[must_use]
pub fn accuracy_by_k(
    curves: &[AccuracyCurve],
    k: usize,
    labels: &AccuracyLabels<'_>,
    still: Figure,
) -> Interactive {
    let mut rows = Vec::new();
    // The range of the control is that of the k measured, over all curves.
    let (mut least, mut greatest) = (usize::MAX, 1);
    for curve in curves {
        for &(k, accuracy) in &curve.points {
            rows.push(json!({"curve": curve.name, "k": k, "accuracy": accuracy}));
            least = least.min(k);
            greatest = greatest.max(k);
        }
    }
    // Without points `least` is still the greatest of all numbers. The control then has one value,
    // and `clamp` below, which panics on an empty range, has a range.
    let least = least.min(greatest);
    let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
    // Curves with neighbouring colours differ in dash too, for readers who do not tell the colours
    // apart.
    let dashed: Vec<bool> = (0..names.len()).map(|at| at % 2 == 1).collect();
    let spec = filled(
        ACCURACY_BY_K,
        &json!({
            "number_format": number_format(),
            "rows": rows,
            "first_k": k.clamp(least, greatest),
            "least_k": least,
            "greatest_k": greatest,
            "names": &names,
            "colors": colors(names.len()),
            "dashes": dashes(&dashed),
            // The range in pixels, from the top, of the lines of text: one for each curve, 20 high.
            // They stand at the upper right, where curves that fall with k leave room.
            "words_range": [0, 20 * names.len()],
            "curve_label": labels.curve,
            "accuracy_label": labels.accuracy,
            "tried_k_label": labels.tried_k,
        }),
    );
    Interactive { still, spec }
}

/// How Vega writes numbers: as the rest of the report does. Vega wants a currency too.
fn number_format() -> Value {
    json!({
        "decimal": REPORT.decimal_mark,
        "thousands": REPORT.thousands_mark,
        "grouping": [3],
        "currency": ["", " €"],
    })
}

/// The shapes of the markers, in the order of the still charts' `MARKERS`: names that Vega knows,
/// then two paths (an hourglass and a bow tie) in the square from −1 to 1 that Vega scales. There
/// are 8 shapes and 7 colours, and the two have no common divisor: a pair of shape and colour comes
/// back only after 56 series.
const SHAPES: [&str; 8] = [
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "triangle-down",
    "cross",
    "M-1,-1L1,-1L-1,1L1,1Z",
    "M-1,-1L-1,1L1,-1L1,1Z",
];

/// The colours of so many series: those of the still charts.
fn colors(series: usize) -> Vec<String> {
    let color = |at: usize| {
        let plotters::style::RGBColor(r, g, b) = PALETTE[at % PALETTE.len()];
        format!("#{r:02x}{g:02x}{b:02x}")
    };
    (0..series).map(color).collect()
}

/// Their markers.
fn shapes(series: usize) -> Vec<&'static str> {
    (0..series).map(|at| SHAPES[at % SHAPES.len()]).collect()
}

/// What the markers are filled with: where the shapes begin again, they are hollow.
fn fills(series: usize) -> Vec<String> {
    let mut fills = colors(series);
    for (at, fill) in fills.iter_mut().enumerate() {
        // The second time through the shapes they are hollow, the third time filled again.
        if at / SHAPES.len() % 2 == 1 {
            "transparent".clone_into(fill);
        }
    }
    fills
}

/// Their lines, as lengths of dash and gap in pixels. A gap of 0 is a full line.
fn dashes(dashed: &[bool]) -> Vec<[u32; 2]> {
    let dash = |&dashed: &bool| if dashed { [6, 4] } else { [1, 0] };
    dashed.iter().map(dash).collect()
}

/// A template with its holes filled: each string `"{{name}}"` becomes the part of that name.
///
/// # Panics
/// If the template is not JSON, or has a hole without a part. Both stand in this folder, and the
/// tests fill every template.
fn filled(template: &str, parts: &Value) -> Value {
    let mut spec = serde_json::from_str(template).expect("a template is JSON");
    fill(&mut spec, parts);
    spec
}

fn fill(value: &mut Value, parts: &Value) {
    match value {
        Value::String(text) => {
            // A hole is a whole string. The part takes its place as a value, so a list stays a list
            // and a number a number, and quotes need no escaping. What was filled in is not
            // searched again: a name in the data that looks like a hole stays a name.
            let inside = text.strip_prefix("{{");
            if let Some(name) = inside.and_then(|text| text.strip_suffix("}}")) {
                let part = parts.get(name).expect("a hole of a template has a part");
                *value = part.clone();
            }
        }
        Value::Array(values) => {
            for value in values {
                fill(value, parts);
            }
        }
        Value::Object(fields) => {
            for value in fields.values_mut() {
                fill(value, parts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED_LABELS: SpeedLabels<'_> = SpeedLabels {
        index: "the index",
        settings: "its settings",
        recall: "the recall",
        queries_per_second: "per second",
        build: "to build",
        memory: "memory",
        data: "the data",
        least_recall: "recall from",
    };

    const HNSW: IndexStyle<'_> = IndexStyle {
        index: "hnsw",
        name: "HNSW",
        dashed: false,
    };
    const HNSWLIB: IndexStyle<'_> = IndexStyle {
        index: "hnswlib",
        name: "hnswlib",
        dashed: true,
    };
    const PIXELS: DataName<'_> = DataName {
        key: "pixels",
        name: "the pixels",
    };
    const FEATURES: DataName<'_> = DataName {
        key: "features",
        name: "the net",
    };

    fn row(index: &str, data: &str, k: usize, recall: f64, qps: f64) -> Measurement {
        Measurement {
            data: data.to_owned(),
            k,
            ..Measurement::toy(index, recall, qps)
        }
    }

    fn still() -> Figure {
        Figure::new((1, 1), "")
    }

    fn speed_spec(rows: &[Measurement], data: &[DataName<'_>], k: usize) -> Value {
        let view = SpeedView {
            indexes: &[HNSW, HNSWLIB],
            data,
            k,
        };
        recall_and_speed(rows, &view, &SPEED_LABELS, still())
            .spec()
            .clone()
    }

    #[test]
    fn the_chart_holds_what_is_not_beaten_for_every_k_and_data() {
        let rows = [
            row("hnsw", "pixels", 10, 0.9, 100.0),
            row("hnsw", "pixels", 10, 0.8, 90.0),
            row("hnswlib", "pixels", 1, 0.95, 50.0),
            row("hnsw", "features", 100, 0.99, 10.0),
        ];
        let spec = speed_spec(&rows, &[PIXELS, FEATURES], 10);
        let values = spec["data"]["values"].as_array().unwrap();
        let held: Vec<_> = values
            .iter()
            .map(|v| {
                (
                    v["data"].as_str().unwrap(),
                    v["k"].as_u64().unwrap(),
                    v["queries_per_second"].as_f64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            held,
            [
                ("pixels", 1, 50.0),
                ("pixels", 10, 100.0),
                ("features", 100, 10.0)
            ]
        );
        let params = &spec["params"];
        assert_eq!(params[0]["bind"]["options"], json!([1, 10, 100]));
        assert_eq!(
            (&params[0]["value"], &params[1]["value"]),
            (&json!(10), &json!("pixels"))
        );
        assert_eq!(
            params[1]["bind"]["labels"],
            json!(["the pixels", "the net"])
        );
        // Ours with a full line, the library's dashed, and so in the legend.
        let dashes = &spec["layer"][0]["encoding"]["strokeDash"]["scale"];
        assert_eq!(
            (&dashes["domain"], &dashes["range"]),
            (&json!(["HNSW", "hnswlib"]), &json!([[1, 0], [6, 4]]))
        );
        let named = spec["encoding"]["stroke"]["legend"]["labelExpr"]
            .as_str()
            .unwrap();
        assert!(
            named.contains(r#"indexof(["hnswlib"], datum.label)"#),
            "{named}"
        );
    }

    #[test]
    fn a_k_that_was_not_measured_is_not_asked_for() {
        let rows = [row("hnsw", "pixels", 10, 0.9, 100.0)];
        let spec = speed_spec(&rows, &[PIXELS], 7);
        assert_eq!(spec["params"][0]["value"], json!(10));
        let curves = [AccuracyCurve {
            name: "uniform".to_owned(),
            points: vec![(1, 0.5), (9, 0.75)],
        }];
        let labels = AccuracyLabels {
            curve: "curve",
            accuracy: "accuracy",
            tried_k: "with k =",
        };
        let chart = accuracy_by_k(&curves, 50, &labels, still());
        let control = &chart.spec()["params"][0];
        assert_eq!(
            (&control["value"], &control["bind"]["max"]),
            (&json!(9), &json!(9))
        );
        assert_eq!(control["bind"]["name"], json!("with k ="));
    }

    #[test]
    fn every_hole_is_filled_and_every_word_is_the_readers() {
        let spec = speed_spec(&[], &[PIXELS], 10).to_string();
        assert!(!spec.contains("{{"), "{spec}");
        for word in [
            "the index",
            "its settings",
            "the recall",
            "per second",
            "to build",
            "memory",
            "the data",
            "recall from",
        ] {
            assert!(spec.contains(&format!("\"{word}\"")), "{word}: {spec}");
        }
    }

    #[test]
    fn markers_that_begin_again_are_hollow() {
        let fills = fills(17);
        assert_eq!([&fills[7], &fills[8]], ["#0072b2", "transparent"]);
        assert_eq!(fills[16], colors(17)[16]);
        assert_eq!(shapes(9)[8], "circle");
    }
}
