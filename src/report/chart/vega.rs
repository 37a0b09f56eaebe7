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

use polars::prelude::{DataFrame, IntoLazy, col, lit};
use serde_json::{Value, json};

use super::axis::{EXACT, GAP, nines};
use super::{ChartError, LineChart, PALETTE};
use crate::report::figure::{Figure, emit};
use crate::report::frame::{frontier, leading, machines, numbers, texts, truths};
use crate::report::numbers::chosen;

/// The MIME type that JupyterLab draws.
const MIME: &str = "application/vnd.vegalite.v5+json";

const RECALL_AND_SPEED: &str = include_str!("recall_and_speed.vl.json");
const RECALL_AND_SPEED_GROUP: &str = include_str!("recall_and_speed_group.vl.json");
const ACCURACY_BY_K: &str = include_str!("accuracy_by_k.vl.json");

/// Settings below this recall are left out: nobody would use them, and each row makes the page
/// longer.
const LEAST_RECALL: f64 = 0.5;

/// A figure, and its interactive form.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactive {
    still: Figure,
    spec: Value,
}

impl Interactive {
    /// A chart in both forms.
    pub(super) fn new(still: Figure, spec: Value) -> Self {
        Self { still, spec }
    }

    /// The still figure, for paper and for where no script runs.
    #[must_use]
    pub fn still(&self) -> &Figure {
        &self.still
    }

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

/// How data of the record are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataName<'a> {
    /// What the record calls them.
    pub key: &'a str,
    /// Their name for the reader.
    pub name: &'a str,
}

/// The words of [`recall_and_speed`], in the reader's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeedLabels<'a> {
    /// The title.
    pub title: &'a str,
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
    /// The heading of the legend for our indexes.
    pub ours: &'a str,
    /// The heading of the legend for those of other libraries.
    pub libraries: &'a str,
}

/// Queries per second against recall, in the form of ann-benchmarks: a curve an index, of the
/// settings that no other setting of the index beats in both. On the axis of recall .9, .99, .999
/// and .9999 stand evenly; exact answers stand at its end.
///
/// `frame` holds measurements ([`frame_of`](crate::report::frame::frame_of)). Of ours and of the
/// libraries those that lead ([`leading`]) are drawn first, with their names at their lines. A
/// click on the legend adds another, or takes one away. The reader chooses the data (those of
/// `data`; the first are shown at first) and k (the measured one nearest to `k` is shown at
/// first). The machine and the days of the measurements stand below.
///
/// The still form shows what is shown at first.
///
/// # Errors
/// If a column is missing or of another type, or there is no row to show.
pub fn recall_and_speed(
    frame: &DataFrame,
    data: &[DataName<'_>],
    k: usize,
    labels: &SpeedLabels<'_>,
) -> Result<Interactive, ChartError> {
    let view = SpeedView::of(frame, data, k)?;
    let still = view.still(labels)?;
    let names = |ours: bool| {
        let curves = view.curves.iter().enumerate();
        curves.filter(move |(_, curve)| curve.ours == ours)
    };
    let exact = view.exact;
    let ticks = [1.0, 2.0, 3.0, 4.0, exact];
    let is_exact_tick = format!("datum.value > {}", exact - GAP / 2.0);
    let tick_labels = format!(
        "{is_exact_tick} ? '1' : format(1 - pow(10, -datum.value), '.' + round(datum.value) + 'f')"
    );
    let spec = filled(
        RECALL_AND_SPEED,
        &json!({
            "title": labels.title,
            "note": view.note,
            "number_format": number_format(),
            "rows": view.rows(data)?,
            "ks": view.ks,
            "first_k": view.first_k,
            "data_keys": data.iter().map(|data| data.key).collect::<Vec<_>>(),
            "data_names": data.iter().map(|data| data.name).collect::<Vec<_>>(),
            "first_data": view.first_data,
            "ticks": ticks,
            "tick_labels": tick_labels,
            "is_exact_tick": is_exact_tick,
            "recall_label": labels.recall,
            "queries_per_second_label": labels.queries_per_second,
            "data_label": labels.data,
            "ours": speed_group(names(true), "ours", labels.ours, exact, labels),
            "libraries": speed_group(names(false), "libraries", labels.libraries, exact, labels),
        }),
    );
    Ok(Interactive { still, spec })
}

/// An index of the chart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SpeedCurve {
    name: String,
    ours: bool,
    /// Whether it is shown at first.
    leads: bool,
}

/// What [`recall_and_speed`] shows.
struct SpeedView {
    /// Of each data, k and index the settings that are not beaten.
    front: DataFrame,
    /// The indexes: those that lead first, so that their colours differ.
    curves: Vec<SpeedCurve>,
    /// Every k that was measured, ascending, and the one that is shown at first.
    ks: Vec<u32>,
    first_k: u32,
    first_data: String,
    /// Where exact answers stand on the axis, in nines.
    exact: f64,
    note: String,
}

impl SpeedView {
    fn of(frame: &DataFrame, data: &[DataName<'_>], k: usize) -> Result<Self, ChartError> {
        let found = frame
            .clone()
            .lazy()
            .filter(col("recall").gt_eq(lit(LEAST_RECALL)));
        let front = frontier(&found.collect()?, "qps")?;
        let mut ks: Vec<u32> = numbers(&front, "k")?
            .into_iter()
            .flatten()
            .map(|k| k as u32)
            .collect();
        ks.sort_unstable();
        ks.dedup();
        // The k shown at first is the nearest by ratio, as they are measured in steps of a factor:
        // to 30, 10 is as near as 90.
        let away = |measured: u32| (f64::from(measured) / k as f64).ln().abs();
        let nearest = ks.iter().min_by(|&&a, &&b| away(a).total_cmp(&away(b)));
        let (Some(&first_k), Some(first)) = (nearest, data.first()) else {
            return Err(ChartError::Empty {
                title: "recall_and_speed".to_owned(),
            });
        };
        let recalls = numbers(&front, "recall")?.into_iter().flatten();
        let inexact = recalls.filter(|&recall| recall < EXACT);
        let mut view = Self {
            curves: Vec::new(),
            ks,
            first_k,
            first_data: first.key.to_owned(),
            // Four nines at least, for the ticks.
            exact: inexact.map(nines).fold(4.0, f64::max) + GAP,
            note: machines(frame)?,
            front,
        };
        view.curves = view.ordered_curves()?;
        Ok(view)
    }

    /// The rows that are shown at first.
    fn first_rows(&self) -> Result<DataFrame, ChartError> {
        let of_data = col("data").eq(lit(self.first_data.clone()));
        let of_k = col("k").eq(lit(self.first_k));
        Ok(self
            .front
            .clone()
            .lazy()
            .filter(of_data.and(of_k))
            .collect()?)
    }

    /// All indexes: those that lead in what is shown at first, then the others as they appear.
    fn ordered_curves(&self) -> Result<Vec<SpeedCurve>, ChartError> {
        let leaders = leading(&self.first_rows()?)?;
        let names = texts(&self.front, "name")?;
        let ours = truths(&self.front, "ours")?.unwrap_or_else(|| vec![true; names.len()]);
        let mut curves: Vec<SpeedCurve> = Vec::new();
        for (name, &ours) in names.into_iter().zip(&ours) {
            if !curves.iter().any(|curve| curve.name == name) {
                let leads = leaders.contains(&name);
                curves.push(SpeedCurve { name, ours, leads });
            }
        }
        // Those that lead in their order. The sort is stable: the others stay in theirs.
        let place = |name: &String| leaders.iter().position(|leader| leader == name);
        curves.sort_by_key(|curve| place(&curve.name).unwrap_or(leaders.len()));
        Ok(curves)
    }

    /// The chart for paper.
    fn still(&self, labels: &SpeedLabels<'_>) -> Result<Figure, ChartError> {
        // The curves in the order of the legend, so that both forms have the same colours.
        let rows = self.first_rows()?;
        let mut chart = LineChart::new(labels.title, labels.recall, labels.queries_per_second)
            .log_y()
            .recall_axis()
            .groups(labels.ours, labels.libraries)
            .note(&self.note);
        for curve in &self.curves {
            let of_curve = rows
                .clone()
                .lazy()
                .filter(col("name").eq(lit(curve.name.clone())));
            chart = chart.curves(&of_curve.collect()?, "name", "recall", "qps")?;
        }
        let leaders = self.curves.iter().filter(|curve| curve.leads);
        chart.leading(leaders.map(|curve| &curve.name)).figure()
    }

    /// The rows of the interactive form.
    fn rows(&self, data: &[DataName<'_>]) -> Result<Vec<Value>, ChartError> {
        let front = &self.front;
        let (names, keys) = (texts(front, "name")?, texts(front, "data")?);
        let (settings, k) = (texts(front, "settings")?, numbers(front, "k")?);
        let (recall, qps) = (numbers(front, "recall")?, numbers(front, "qps")?);
        let (build, memory) = (numbers(front, "build_s")?, numbers(front, "memory_mb")?);
        let labelled = self.labelled_rows(&names, &keys, &k);
        let mut rows = Vec::new();
        for row in 0..front.height() {
            let (Some(recall), Some(qps)) = (recall[row], qps[row]) else {
                continue;
            };
            if !data.iter().any(|data| data.key == keys[row]) {
                continue;
            }
            let place = if recall < EXACT {
                nines(recall)
            } else {
                self.exact
            };
            rows.push(json!({
                "index": names[row],
                "settings": settings[row],
                "data": keys[row],
                "k": k[row],
                "recall": recall,
                // Four decimals place a point to less than a tenth of a pixel.
                "nines": (place * 1e4).round() / 1e4,
                "queries_per_second": qps.round(),
                "build_seconds": build[row],
                "megabytes": memory[row],
                "labelled": labelled.contains(&row),
            }));
        }
        Ok(rows)
    }

    /// The row of each curve at which its name stands: for each index another share of the way
    /// along its curve, by the golden ratio, so that neighbouring names stand apart.
    fn labelled_rows(&self, names: &[String], data: &[String], k: &[Option<f64>]) -> Vec<usize> {
        let mut labelled = Vec::new();
        let mut start = 0;
        for row in 1..=names.len() {
            // The rows of a curve follow one another in a frontier.
            let same = |row: usize| (&names[row], &data[row], k[row].map(f64::to_bits));
            if row < names.len() && same(row) == same(start) {
                continue;
            }
            let place = self
                .curves
                .iter()
                .position(|curve| curve.name == names[start]);
            let share = (place.unwrap_or_default() as f64 * 0.618).fract();
            labelled.push(start + ((row - 1 - start) as f64 * share).round() as usize);
            start = row;
        }
        labelled
    }
}

/// The layers and the legend of our indexes, or of the libraries'. `key` keeps the names of their
/// parts of the specification apart.
fn speed_group<'a>(
    curves: impl Iterator<Item = (usize, &'a SpeedCurve)>,
    key: &str,
    heading: &str,
    exact: f64,
    labels: &SpeedLabels<'_>,
) -> Value {
    let curves: Vec<(usize, &SpeedCurve)> = curves.collect();
    // Scales of colour, shape and dash are lists beside the list of names: place by place, in the
    // order of the legend. So an index keeps its look whichever data and k are chosen.
    let names: Vec<&str> = curves
        .iter()
        .map(|(_, curve)| curve.name.as_str())
        .collect();
    let places: Vec<usize> = curves.iter().map(|&(place, _)| place).collect();
    let leaders = curves.iter().filter(|(_, curve)| curve.leads);
    let chosen: Vec<Value> = leaders
        .map(|(_, curve)| json!({"index": curve.name}))
        .collect();
    let dashed: Vec<bool> = curves.iter().map(|(_, curve)| !curve.ours).collect();
    // In the right half a name stands on the left of its point, or it would leave the chart.
    let on_the_right = format!("datum.nines > {}", 0.6 * exact);
    filled(
        RECALL_AND_SPEED_GROUP,
        &json!({
            "filter": {"field": "index", "oneOf": &names},
            "group_label": heading,
            "names": &names,
            "colors": places.iter().map(|&place| color(place)).collect::<Vec<_>>(),
            "shapes": places.iter().map(|&place| shape(place)).collect::<Vec<_>>(),
            "fills": places.iter().map(|&place| fill_color(place)).collect::<Vec<_>>(),
            "dashes": dashes(&dashed),
            "chosen": format!("chosen_{key}"),
            "first_chosen": chosen,
            "label_align": format!("{on_the_right} ? 'right' : 'left'"),
            "label_shift": format!("{on_the_right} ? -7 : 7"),
            "index_label": labels.index,
            "settings_label": labels.settings,
            "recall_label": labels.recall,
            "queries_per_second_label": labels.queries_per_second,
            "build_label": labels.build,
            "memory_label": labels.memory,
        }),
    )
}

/// The words of [`accuracy_by_k`], in the reader's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccuracyLabels<'a> {
    /// The title.
    pub title: &'a str,
    /// In the tooltip: the curve.
    pub curve: &'a str,
    /// The y axis, and in the tooltip.
    pub accuracy: &'a str,
    /// The control with which the reader tries a k: the value follows.
    pub tried_k: &'a str,
}

/// Accuracy against k, of a frame with the columns `name`, `k` and `accuracy`: a curve a name,
/// every other one dashed. A control says what each curve gives at the k that the reader tries,
/// which is `k` at first.
///
/// # Errors
/// If a column is missing or of another type, or there is no row.
pub fn accuracy_by_k(
    frame: &DataFrame,
    k: usize,
    labels: &AccuracyLabels<'_>,
) -> Result<Interactive, ChartError> {
    let chart = LineChart::new(labels.title, "k", labels.accuracy);
    let still = chart.curves(frame, "name", "k", "accuracy")?.figure()?;
    let mut rows = Vec::new();
    let mut names: Vec<String> = Vec::new();
    // The range of the control is that of the k measured, over all curves.
    let (mut least, mut greatest) = (u64::MAX, 1);
    let measured = numbers(frame, "k")?
        .into_iter()
        .zip(numbers(frame, "accuracy")?);
    for (name, (k, accuracy)) in texts(frame, "name")?.into_iter().zip(measured) {
        let (Some(k), Some(accuracy)) = (k, accuracy) else {
            continue;
        };
        rows.push(json!({"curve": name, "k": k as u64, "accuracy": accuracy}));
        least = least.min(k as u64);
        greatest = greatest.max(k as u64);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // Curves with neighbouring colours differ in dash too, for readers who do not tell the colours
    // apart.
    let dashed: Vec<bool> = (0..names.len()).map(|at| at % 2 == 1).collect();
    let spec = filled(
        ACCURACY_BY_K,
        &json!({
            "title": labels.title,
            "number_format": number_format(),
            "rows": rows,
            // The still chart refuses a frame without rows, so the range is not empty.
            "first_k": (k as u64).clamp(least, greatest),
            "least_k": least,
            "greatest_k": greatest,
            "names": &names,
            "colors": (0..names.len()).map(color).collect::<Vec<_>>(),
            "dashes": dashes(&dashed),
            // The range in pixels, from the top, of the lines of text: one for each curve, 20 high.
            // They stand at the upper right, where curves that fall with k leave room.
            "words_range": [0, 20 * names.len()],
            "curve_label": labels.curve,
            "accuracy_label": labels.accuracy,
            "tried_k_label": labels.tried_k,
        }),
    );
    Ok(Interactive { still, spec })
}

/// How Vega writes numbers: as the rest of the report does. Vega wants a currency too.
pub(super) fn number_format() -> Value {
    let format = chosen();
    json!({
        "decimal": format.decimal_mark,
        "thousands": format.thousands_mark,
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

/// The colour of series `at`: that of the still charts.
fn color(at: usize) -> String {
    let plotters::style::RGBColor(r, g, b) = PALETTE[at % PALETTE.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Its marker.
fn shape(at: usize) -> &'static str {
    SHAPES[at % SHAPES.len()]
}

/// What the marker is filled with. The second time through the shapes they are hollow, the third
/// time filled again.
fn fill_color(at: usize) -> String {
    if at / SHAPES.len() % 2 == 1 {
        "transparent".to_owned()
    } else {
        color(at)
    }
}

/// The lines of series, as lengths of dash and gap in pixels. A gap of 0 is a full line.
fn dashes(dashed: &[bool]) -> Vec<[u32; 2]> {
    let dash = |&dashed: &bool| if dashed { [6, 4] } else { [1, 0] };
    dashed.iter().map(dash).collect()
}

/// A template with its holes filled: each string `"{{name}}"` becomes the part of that name.
///
/// # Panics
/// If the template is not JSON, or has a hole without a part. Both stand in this folder, and the
/// tests fill every template.
pub(super) fn filled(template: &str, parts: &Value) -> Value {
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
    use crate::lab::record::Measurement;
    use crate::report::frame::frame_of;
    use polars::prelude::df;

    const SPEED_LABELS: SpeedLabels<'_> = SpeedLabels {
        title: "the title",
        index: "the index",
        settings: "its settings",
        recall: "the recall",
        queries_per_second: "per second",
        build: "to build",
        memory: "memory",
        data: "the data",
        ours: "our own",
        libraries: "of others",
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
            cpu: "a processor".to_owned(),
            date: "2026-11-25".to_owned(),
            ..Measurement::toy(index, recall, qps)
        }
    }

    fn speed_chart(k: usize) -> Interactive {
        let rows = [
            row("hnsw", "pixels", 10, 0.9, 100.0),
            row("hnsw", "pixels", 10, 0.8, 90.0),
            row("hnsw", "pixels", 10, 0.4, 900.0),
            row("hnswlib", "pixels", 1, 0.95, 50.0),
            row("hnsw", "features", 100, 0.99, 10.0),
            row("brute_force", "features", 100, 1.0, 5.0),
            row("hnsw", "elsewhere", 10, 0.9, 1.0),
        ];
        let frame = frame_of(&rows).unwrap();
        recall_and_speed(&frame, &[PIXELS, FEATURES], k, &SPEED_LABELS).unwrap()
    }

    /// An output of JupyterLab grows with what is in it: a chart as wide as that never stops.
    #[test]
    fn a_template_has_a_width_of_its_own() {
        let map = include_str!("hover_map.vl.json");
        for template in [RECALL_AND_SPEED, ACCURACY_BY_K, map] {
            let spec: Value = serde_json::from_str(template).unwrap();
            assert!(spec["width"].is_number(), "{}", spec["width"]);
        }
    }

    #[test]
    fn the_chart_holds_what_is_not_beaten_for_every_k_and_data() {
        let chart = speed_chart(10);
        let mut held: Vec<_> = chart.spec["data"]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let text = |field: &str| row[field].as_str().unwrap().to_owned();
                let number = |field: &str| row[field].as_f64().unwrap();
                (text("data"), text("index"), number("k"), number("nines"))
            })
            .collect();
        held.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let row = |data: &str, index: &str, k, nines| (data.to_owned(), index.to_owned(), k, nines);
        // −log₁₀ of what is missed: 1 of .9, 2 of .99, 1.30103 of .95. Exact ones stand .6
        // behind four nines.
        let expected = [
            row("features", "Brute force", 100.0, 4.6),
            row("features", "HNSW", 100.0, 2.0),
            row("pixels", "HNSW", 10.0, 1.0),
            row("pixels", "hnswlib", 1.0, 1.301),
        ];
        assert_eq!(held, expected);
        let params = &chart.spec["params"];
        assert_eq!(params[0]["bind"]["options"], json!([1, 10, 100]));
        assert_eq!(
            (&params[0]["value"], &params[1]["value"]),
            (&json!(10), &json!("pixels"))
        );
        assert_eq!(
            params[1]["bind"]["labels"],
            json!(["the pixels", "the net"])
        );
    }

    #[test]
    fn ours_and_the_libraries_have_a_legend_each() {
        let spec = speed_chart(10).spec;
        let [ours, libraries] = [&spec["layer"][0], &spec["layer"][1]];
        let dash = |group: &Value| group["layer"][0]["encoding"]["strokeDash"].clone();
        assert_eq!(dash(ours)["title"], json!("our own"));
        assert_eq!(
            dash(ours)["scale"]["domain"],
            json!(["HNSW", "Brute force"])
        );
        assert_eq!(dash(ours)["scale"]["range"], json!([[1, 0], [1, 0]]));
        assert_eq!(dash(libraries)["title"], json!("of others"));
        assert_eq!(dash(libraries)["scale"]["range"], json!([[6, 4]]));
        // HNSW leads in what is shown at first; brute force is not there.
        let chosen = |group: &Value| group["layer"][0]["params"][0]["value"].clone();
        assert_eq!(chosen(ours), json!([{"index": "HNSW"}]));
        assert_eq!(chosen(libraries), json!([]));
    }

    #[test]
    fn the_still_form_shows_what_is_shown_at_first() {
        let svg = speed_chart(12).still.svg();
        assert!(svg.contains("HNSW: x 0,900, y 100\na processor"), "{svg}");
        for absent in ["Brute force", "hnswlib"] {
            assert!(!svg.contains(absent), "{svg}");
        }
    }

    #[test]
    fn a_k_that_was_not_measured_is_not_asked_for() {
        assert_eq!(speed_chart(7).spec["params"][0]["value"], json!(10));
        let curves = df!["name" => ["a", "a"], "k" => [1u32, 9], "accuracy" => [0.5, 0.75]];
        let labels = AccuracyLabels {
            title: "title",
            curve: "curve",
            accuracy: "accuracy",
            tried_k: "with k =",
        };
        let chart = accuracy_by_k(&curves.unwrap(), 50, &labels).unwrap();
        let control = &chart.spec["params"][0];
        assert_eq!(
            (&control["value"], &control["bind"]["max"]),
            (&json!(9), &json!(9))
        );
        assert_eq!(control["bind"]["name"], json!("with k ="));
        assert!(chart.still.svg().contains("<title>title</title>"));
    }

    #[test]
    fn every_hole_is_filled_and_every_word_is_the_readers() {
        let spec = speed_chart(10).spec.to_string();
        assert!(!spec.contains("{{"), "{spec}");
        for word in [
            "the title",
            "a processor · 2026-11-25",
            "the index",
            "its settings",
            "the recall",
            "per second",
            "to build",
            "memory",
            "the data",
            "our own",
            "of others",
        ] {
            assert!(spec.contains(&format!("\"{word}\"")), "{word}: {spec}");
        }
        let empty = frame_of::<Measurement>(&[]).unwrap();
        let refused = recall_and_speed(&empty, &[PIXELS], 10, &SPEED_LABELS);
        assert!(matches!(refused, Err(ChartError::Empty { .. })));
    }

    #[test]
    fn markers_that_begin_again_are_hollow() {
        assert_eq!([fill_color(7), fill_color(8)], ["#0072b2", "transparent"]);
        assert_eq!(fill_color(16), color(16));
        assert_eq!(shape(8), "circle");
    }
}
