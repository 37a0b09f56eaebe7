//! [`Interactive`]: a chart that answers its reader, in the grammar of Vega-Lite (Satyanarayan et al., *Vega-Lite: A
//! Grammar of Interactive Graphics*, IEEE TVCG 2017), over a still figure for paper and for where no script runs.
//!
//! JupyterLab draws the Vega-Lite form by itself; the exporter of the report puts the library into the page.

use serde_json::{Value, json};

use super::PALETTE;
use crate::lab::frontier::{indexes, is_ours, label, pareto};
use crate::lab::record::Measurement;
use crate::report::notebook::{Figure, emit};

/// The MIME type that JupyterLab draws.
const MIME: &str = "application/vnd.vegalite.v5+json";

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
        self.still.evcxr_display();
        emit(MIME, &self.spec.to_string());
    }
}

/// The shapes of the markers, in the order of the still charts' (names and paths of Vega).
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

/// What all charts share: the page's width, its paper, and the first part of the specification.
fn spec(data: Vec<Value>, params: Value, encoding: Value, layer: Value) -> Value {
    json!({
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": "container",
        "height": 440,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": null,
        "config": {"locale": {"number": {"decimal": ",", "thousands": ".", "grouping": [3], "currency": ["", " €"]}}},
        "data": {"values": data},
        "params": params,
        "encoding": encoding,
        "layer": layer,
    })
}

/// Colours, markers and dashes for names in their order: as the still charts have them, so that colour is not needed.
fn scales(names: &[&str], dashed: impl Fn(&str) -> bool) -> (Value, Value, Value) {
    let scale = |range: Vec<Value>| json!({"domain": names, "range": range});
    let color = |at: usize| {
        let plotters::style::RGBColor(r, g, b) = PALETTE[at % PALETTE.len()];
        json!(format!("#{r:02x}{g:02x}{b:02x}"))
    };
    (
        scale((0..names.len()).map(color).collect()),
        scale(
            (0..names.len())
                .map(|at| json!(SHAPES[at % SHAPES.len()]))
                .collect(),
        ),
        scale(
            names
                .iter()
                .map(|name| {
                    if dashed(name) {
                        json!([6, 4])
                    } else {
                        json!([1, 0])
                    }
                })
                .collect(),
        ),
    )
}

/// Queries per second against recall, in the form of ann-benchmarks: of each index the settings that none other beats. The
/// reader chooses k, the data (`data`: their names in the rows and for the reader) and where recall begins; pointing at a setting
/// tells what it is. The measured k nearest to `k` and the first data are shown at first.
#[must_use]
pub fn recall_and_speed(
    rows: &[Measurement],
    data: &[(&str, &str)],
    k: usize,
    still: Figure,
) -> Interactive {
    let names = indexes(rows);
    let mut ks: Vec<usize> = rows.iter().map(|row| row.k).collect();
    ks.sort_unstable();
    ks.dedup();
    let mut values = Vec::new();
    for &(name, _) in data {
        for &k in &ks {
            for &index in &names {
                let of = rows
                    .iter()
                    .filter(|row| row.data == name && row.k == k && row.index == index);
                values.extend(pareto(of.filter(|row| row.recall >= 0.5), |row| -row.qps).into_iter().map(|row| {
                    json!({
                        "índex": label(index), "paràmetres": row.params.to_string(), "dades": name, "k": k, "recall": row.recall,
                        "qps": row.qps.round(), "construcció": row.build_s, "MB": row.memory_bytes as f64 / 1e6,
                    })
                }));
            }
        }
    }
    let labels: Vec<&str> = names.iter().map(|name| label(name)).collect();
    let libraries: Vec<&str> = names
        .iter()
        .filter(|index| !is_ours(index))
        .map(|index| label(index))
        .collect();
    let (color, shape, dash) = scales(&labels, |name| libraries.contains(&name));
    // Where the shapes begin again, they are hollow.
    let fill = |(at, color): (usize, &Value)| {
        if (at / SHAPES.len()).is_multiple_of(2) {
            color.clone()
        } else {
            json!("transparent")
        }
    };
    let fill: Vec<Value> = color["range"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(fill)
        .collect();
    // One legend for all channels; a symbol shows no dash, so the name does.
    let legend = json!({
        "title": null, "symbolLimit": 0, "labelLimit": 220,
        "labelExpr": format!("(indexof({}, datum.label) < 0 ? '— ' : '- - ') + datum.label", json!(libraries)),
    });
    let encoding = json!({
        "x": {"field": "recall", "type": "quantitative", "title": "recall", "scale": {"zero": false, "nice": false}},
        "y": {"field": "qps", "type": "quantitative", "title": "consultes/s", "scale": {"type": "log"},
              "axis": {"format": ",.0f"}},
        "stroke": {"field": "índex", "type": "nominal", "scale": color, "legend": legend},
        "opacity": {"condition": {"param": "triats", "value": 1}, "value": 0.08},
    });
    let away = |measured: usize| (measured as f64 / k as f64).ln().abs();
    let nearest = ks
        .iter()
        .copied()
        .min_by(|&a, &b| away(a).total_cmp(&away(b)));
    let params = json!([
        {"name": "tria_k", "value": nearest,
         "bind": {"input": "select", "options": ks, "name": "k"}},
        {"name": "tria_dades", "value": data.first().map(|data| data.0),
         "bind": {"input": "select", "options": data.iter().map(|data| data.0).collect::<Vec<_>>(),
                  "labels": data.iter().map(|data| data.1).collect::<Vec<_>>(), "name": "dades"}},
        {"name": "tria_recall", "value": 0.8,
         "bind": {"input": "select", "options": [0.5, 0.8, 0.9, 0.95, 0.99], "name": "recall des de"}},
    ]);
    let chosen = "datum.k == tria_k && datum.dades == tria_dades && datum.recall >= tria_recall";
    let tooltip = json!([
        {"field": "índex", "type": "nominal"},
        {"field": "paràmetres", "type": "nominal"},
        {"field": "recall", "type": "quantitative", "format": ".4f"},
        {"field": "qps", "type": "quantitative", "format": ",.0f", "title": "consultes/s"},
        {"field": "construcció", "type": "quantitative", "format": ",.1f", "title": "construcció (s)"},
        {"field": "MB", "type": "quantitative", "format": ",.0f", "title": "memòria (MB)"},
    ]);
    let points = json!({
        "mark": {"type": "point", "size": 70, "strokeWidth": 2},
        "encoding": {
            "shape": {"field": "índex", "type": "nominal", "scale": shape, "legend": legend},
            "fill": {"field": "índex", "type": "nominal", "scale": {"domain": labels, "range": fill}, "legend": legend},
            "tooltip": tooltip,
        },
    });
    let lines = json!({
        "params": [{"name": "triats", "select": {"type": "point", "fields": ["índex"]}, "bind": "legend"}],
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {
            "strokeDash": {"field": "índex", "type": "nominal", "scale": dash, "legend": legend},
            "order": {"field": "recall", "type": "quantitative"},
        },
    });
    let mut spec = spec(values, params, encoding, json!([lines, points]));
    spec["transform"] = json!([{"filter": chosen}]);
    Interactive { still, spec }
}

/// Accuracy against k, a curve a name, and a control that says what each gives at the k that the reader tries.
#[must_use]
pub fn accuracy_by_k(
    curves: &[(String, Vec<(usize, f64)>)],
    k: usize,
    still: Figure,
) -> Interactive {
    let points = || {
        curves
            .iter()
            .flat_map(|(name, points)| points.iter().map(move |&(k, accuracy)| (name, k, accuracy)))
    };
    let values = points()
        .map(|(name, k, accuracy)| json!({"corba": name, "k": k, "exactitud": accuracy}))
        .collect();
    let names: Vec<&str> = curves.iter().map(|(name, _)| name.as_str()).collect();
    let every_other: Vec<&str> = names.iter().copied().skip(1).step_by(2).collect();
    let (color, _, dash) = scales(&names, |name| every_other.contains(&name));
    let legend =
        json!({"title": null, "labelLimit": 220, "symbolType": "stroke", "symbolSize": 400});
    let (least, most) = points().fold((usize::MAX, 1), |(least, most), (_, k, _)| {
        (least.min(k), most.max(k))
    });
    let encoding = json!({
        "x": {"field": "k", "type": "quantitative", "title": "k", "axis": {"tickMinStep": 1},
              "scale": {"zero": false, "nice": false}},
        "y": {"field": "exactitud", "type": "quantitative", "title": "exactitud", "scale": {"zero": false}},
        "color": {"field": "corba", "type": "nominal", "scale": color, "legend": legend},
    });
    let params = json!([{
        "name": "prova_k", "value": k.clamp(least.min(most), most),
        "bind": {"input": "range", "min": least.min(most), "max": most, "step": 1, "name": "prova amb k ="},
    }]);
    let here = json!({"filter": "datum.k == prova_k"});
    let curves = json!([
        {"mark": {"type": "line", "strokeWidth": 2},
         "encoding": {"strokeDash": {"field": "corba", "type": "nominal", "scale": dash, "legend": legend}}},
        {"transform": [here], "mark": {"type": "rule", "strokeDash": [2, 3], "color": "#808080"},
         "encoding": {"y": {"value": 0}, "y2": {"value": "height"}, "color": null}},
        {"transform": [here], "mark": {"type": "point", "filled": true, "size": 80},
         "encoding": {"tooltip": [{"field": "corba"}, {"field": "k"}, {"field": "exactitud", "format": ".4f"}]}},
    ]);
    // What they give there, in words, where curves that fall with k leave room.
    let words = json!({
        "transform": [
            here,
            {"window": [{"op": "row_number", "as": "fila"}], "sort": [{"field": "exactitud", "order": "descending"}]},
            {"calculate": "'k = ' + datum.k + ', ' + datum.corba + ': ' + format(datum.exactitud, '.4f')", "as": "text"},
        ],
        "mark": {"type": "text", "align": "right", "fontSize": 13},
        "encoding": {
            "x": {"value": "width"},
            "y": {"field": "fila", "type": "ordinal", "axis": null, "scale": {"range": [0, 20 * names.len()]}},
            "text": {"field": "text"},
        },
    });
    let mut spec = spec(values, params, encoding, json!([{"layer": curves}, words]));
    spec["resolve"] = json!({"scale": {"y": "independent"}});
    Interactive { still, spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: &str, data: &str, k: usize, recall: f64, qps: f64) -> Measurement {
        Measurement {
            data: data.to_owned(),
            k,
            ..Measurement::toy(index, recall, qps)
        }
    }

    fn still() -> Figure {
        Figure::from_svg("<svg/>".to_owned())
    }

    #[test]
    fn the_chart_holds_what_is_not_beaten_for_every_k_and_data() {
        let rows = [
            row("hnsw", "pixels", 10, 0.9, 100.0),
            row("hnsw", "pixels", 10, 0.8, 90.0),
            row("hnswlib", "pixels", 1, 0.95, 50.0),
            row("hnsw", "features", 100, 0.99, 10.0),
        ];
        let chart = recall_and_speed(
            &rows,
            &[("pixels", "píxels"), ("features", "xarxa")],
            10,
            still(),
        );
        let values = chart.spec()["data"]["values"].as_array().unwrap();
        let held: Vec<_> = values
            .iter()
            .map(|v| {
                (
                    v["dades"].as_str().unwrap(),
                    v["k"].as_u64().unwrap(),
                    v["qps"].as_f64().unwrap(),
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
        let params = &chart.spec()["params"];
        assert_eq!(params[0]["bind"]["options"], json!([1, 10, 100]));
        assert_eq!(
            (&params[0]["value"], &params[1]["value"]),
            (&json!(10), &json!("pixels"))
        );
        assert_eq!(params[1]["bind"]["labels"], json!(["píxels", "xarxa"]));
        // Ours with a full line, the library's dashed, and so in the legend.
        let dashes = &chart.spec()["layer"][0]["encoding"]["strokeDash"]["scale"];
        assert_eq!(
            (&dashes["domain"], &dashes["range"]),
            (&json!(["HNSW", "hnswlib"]), &json!([[1, 0], [6, 4]]))
        );
        let named = chart.spec()["encoding"]["stroke"]["legend"]["labelExpr"]
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
        assert_eq!(
            recall_and_speed(&rows, &[("pixels", "")], 7, still()).spec()["params"][0]["value"],
            json!(10)
        );
        let curves = [("uniform".to_owned(), vec![(1, 0.5), (9, 0.75)])];
        let chart = accuracy_by_k(&curves, 50, still());
        let control = &chart.spec()["params"][0];
        assert_eq!(
            (&control["value"], &control["bind"]["max"]),
            (&json!(9), &json!(9))
        );
    }
}
