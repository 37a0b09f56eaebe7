//! [`LineChart`]: one or more curves over two axes, with what is known of their doubt.

use polars::prelude::DataFrame;

use super::axis::{Axis, Scale, can_hold};
use super::{ChartError, drawn, extent};
use crate::report::figure::Figure;
use crate::report::frame::{numbers, texts, truths};
use crate::report::numbers::by_size;

mod labels;
mod plot;

/// A named curve: points (x, y) in the order in which they are joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    dashed: bool,
}

impl Series {
    /// A curve drawn with a full line.
    #[must_use]
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
            dashed: false,
        }
    }

    /// A curve through the rows of a frame, in their order. Rows without one of the values are left
    /// out.
    ///
    /// # Errors
    /// If a column is missing or holds no numbers.
    pub fn of(
        name: impl Into<String>,
        frame: &DataFrame,
        x: &str,
        y: &str,
    ) -> Result<Self, ChartError> {
        let pairs = numbers(frame, x)?.into_iter().zip(numbers(frame, y)?);
        Ok(Self::new(name, pairs.filter_map(|(x, y)| Some((x?, y?)))))
    }

    /// The same, dashed.
    #[must_use]
    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }
}

/// Curves with markers, and a legend below.
///
/// # Examples
/// ```
/// use fashion_knn::report::chart::{LineChart, Series};
/// use polars::prelude::df;
///
/// let measured = df![
///     "name" => ["HNSW", "HNSW", "hnswlib"],
///     "ours" => [true, true, false],
///     "recall" => [0.9, 0.99, 0.95],
///     "qps" => [20_000.0, 6_000.0, 9_000.0],
/// ]?;
/// let figure = LineChart::new("Recall and speed", "recall", "queries/s")
///     .log_y()
///     .recall_axis()
///     .curves(&measured, "name", "recall", "qps")?
///     .with(Series::new("brute force", [(1.0, 2_500.0)]))
///     .figure()?;
/// assert!(figure.svg().contains("HNSW"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    title: String,
    x: Labelled,
    y: Labelled,
    series: Vec<Series>,
    bands: Vec<Range>,
    errors: Vec<Range>,
    diagonal: bool,
    /// The names of the curves that lead: the others are pale.
    leading: Vec<String>,
    /// The headings of the legend, for full lines and for dashed ones.
    groups: Option<[String; 2]>,
    note: String,
    size: (u32, u32),
}

/// An axis' name and scale.
#[derive(Debug, Clone, PartialEq)]
struct Labelled {
    label: String,
    scale: Scale,
}

/// How far values may lie from a curve: at each x, from `low` to `high`.
#[derive(Debug, Clone, PartialEq)]
struct Range {
    /// The name of the curve.
    name: String,
    /// In the order in which a band joins them.
    spans: Vec<Span>,
}

/// From `low` to `high` at `x`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    x: f64,
    low: f64,
    high: f64,
}

impl LineChart {
    /// A chart without curves, of 660 × 420 pixels and its legend.
    #[must_use]
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        let axis = |label: String| Labelled {
            label,
            scale: Scale::Linear,
        };
        Self {
            title: title.into(),
            x: axis(x_label.into()),
            y: axis(y_label.into()),
            series: Vec::new(),
            bands: Vec::new(),
            errors: Vec::new(),
            diagonal: false,
            leading: Vec::new(),
            groups: None,
            note: String::new(),
            size: (660, 420),
        }
    }

    /// Adds a curve.
    #[must_use]
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Adds a curve for each value of the column `name`, in the order in which the values appear,
    /// through its rows in their order. A curve is dashed where the frame has a column `ours` and
    /// it says no.
    ///
    /// # Errors
    /// If a column is missing, or `x` or `y` holds no numbers.
    pub fn curves(
        mut self,
        frame: &DataFrame,
        name: &str,
        x: &str,
        y: &str,
    ) -> Result<Self, ChartError> {
        let names = texts(frame, name)?;
        let ours = truths(frame, "ours")?;
        let (x, y) = (numbers(frame, x)?, numbers(frame, y)?);
        let first = self.series.len();
        for (row, name) in names.into_iter().enumerate() {
            let (Some(x), Some(y)) = (x[row], y[row]) else {
                continue;
            };
            let known = self.series[first..]
                .iter_mut()
                .find(|series| series.name == name);
            if let Some(series) = known {
                series.points.push((x, y));
            } else {
                let mut series = Series::new(name, [(x, y)]);
                series.dashed = ours.as_ref().is_some_and(|ours| !ours[row]);
                self.series.push(series);
            }
        }
        Ok(self)
    }

    /// Lays a band over the chart for each value of the column `name`: at each `x` from `low` to
    /// `high`, in the colour of the curve of that name.
    ///
    /// # Errors
    /// As [`Self::curves`].
    pub fn bands(
        mut self,
        frame: &DataFrame,
        name: &str,
        x: &str,
        low: &str,
        high: &str,
    ) -> Result<Self, ChartError> {
        self.bands.extend(ranges(frame, name, [x, low, high])?);
        Ok(self)
    }

    /// Draws a bar with two ends at each `x` from `low` to `high`, in the colour of the curve that
    /// the column `name` tells.
    ///
    /// # Errors
    /// As [`Self::curves`].
    pub fn errors(
        mut self,
        frame: &DataFrame,
        name: &str,
        x: &str,
        low: &str,
        high: &str,
    ) -> Result<Self, ChartError> {
        self.errors.extend(ranges(frame, name, [x, low, high])?);
        Ok(self)
    }

    /// Makes the x axis logarithmic.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.x.scale = Scale::Log;
        self
    }

    /// Makes the y axis logarithmic.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.y.scale = Scale::Log;
        self
    }

    /// Makes the x axis one of recall: .9, .99, .999 and .9999 stand evenly, by the logarithm of
    /// what is missed. A recall of 1 stands at the end, behind a dashed line.
    #[must_use]
    pub fn recall_axis(mut self) -> Self {
        self.x.scale = Scale::Recall;
        self
    }

    /// Lets both axes go from 0 to 1, as of shares, and draws the line on which they are equal.
    #[must_use]
    pub fn diagonal(mut self) -> Self {
        self.diagonal = true;
        self
    }

    /// Lets these curves lead: their names stand at their lines, and all others are pale.
    #[must_use]
    pub fn leading(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.leading = names.into_iter().map(Into::into).collect();
        self
    }

    /// Parts the legend in two, below these headings: the curves of full lines and the dashed ones.
    #[must_use]
    pub fn groups(mut self, full: impl Into<String>, dashed: impl Into<String>) -> Self {
        self.groups = Some([full.into(), dashed.into()]);
        self
    }

    /// Writes a line below the chart: what was measured, where and when.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = text.into();
        self
    }

    /// Sets the width and the height in pixels; the legend and the note come below.
    #[must_use]
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// The chart as a figure.
    ///
    /// # Errors
    /// If there is no point, a value that its axis cannot hold, or the backend fails.
    pub fn figure(&self) -> Result<Figure, ChartError> {
        // Both axes are made before anything is drawn, so that a chart with a bad value draws
        // nothing.
        let axes = plot::Axes {
            x: self.axis(self.x.scale, &self.all_x())?,
            y: self.axis(self.y.scale, &self.all_y())?,
        };
        let size = (self.size.0, self.whole_height());
        let figure = drawn(size, |area| self.draw(area, axes))?;
        Ok(figure.described(&self.title, self.description()))
    }

    /// The axes' names, and from where to where each curve goes on both.
    fn description(&self) -> String {
        // An axis without a label has no words here either.
        let axes = [("x", &self.x.label), ("y", &self.y.label)];
        let axes = axes.iter().filter(|(_, label)| !label.is_empty());
        let axes: Vec<String> = axes
            .map(|(axis, label)| format!("{axis}: {label}"))
            .collect();
        let mut lines = vec![axes.join("; ")];
        for series in &self.series {
            let written = |values: (f64, f64)| match values {
                (low, high) if low == high => by_size(low),
                (low, high) => format!("{} – {}", by_size(low), by_size(high)),
            };
            let x = written(extent(series.points.iter().map(|point| point.0)));
            let y = written(extent(series.points.iter().map(|point| point.1)));
            lines.push(format!("{}: x {x}, y {y}", series.name));
        }
        lines.push(self.note.clone());
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    }

    /// Every x of the chart.
    fn all_x(&self) -> Vec<f64> {
        let ranges = self.bands.iter().chain(&self.errors);
        let of_ranges = ranges.flat_map(|range| &range.spans).map(|span| span.x);
        let of_series = self.series.iter().flat_map(|series| &series.points);
        of_series.map(|point| point.0).chain(of_ranges).collect()
    }

    /// Every y of the chart.
    fn all_y(&self) -> Vec<f64> {
        let ranges = self.bands.iter().chain(&self.errors);
        let of_ranges = ranges
            .flat_map(|range| &range.spans)
            .flat_map(|span| [span.low, span.high]);
        let of_series = self.series.iter().flat_map(|series| &series.points);
        of_series.map(|point| point.1).chain(of_ranges).collect()
    }

    /// An axis over these values.
    fn axis(&self, scale: Scale, values: &[f64]) -> Result<Axis, ChartError> {
        // The mapping would make infinity or NaN of some values, and the cast to a pixel would
        // place them somewhere, in silence.
        if let Some(value) = values.iter().find(|&&value| !can_hold(scale, value)) {
            return Err(ChartError::Value {
                title: self.title.clone(),
                value: value.to_string(),
            });
        }
        if values.is_empty() {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        if self.diagonal {
            return Ok(Axis::of_shares());
        }
        Ok(Axis::over(scale, values.iter().copied()))
    }
}

/// The ranges of a frame, one for each value of the column `name`.
fn ranges(
    frame: &DataFrame,
    name: &str,
    [x, low, high]: [&str; 3],
) -> Result<Vec<Range>, ChartError> {
    let names = texts(frame, name)?;
    let (x, low, high) = (
        numbers(frame, x)?,
        numbers(frame, low)?,
        numbers(frame, high)?,
    );
    let mut ranges: Vec<Range> = Vec::new();
    for (row, name) in names.into_iter().enumerate() {
        let (Some(x), Some(low), Some(high)) = (x[row], low[row], high[row]) else {
            continue;
        };
        let span = Span { x, low, high };
        match ranges.iter_mut().find(|range| range.name == name) {
            Some(range) => range.spans.push(span),
            None => ranges.push(Range {
                name,
                spans: vec![span],
            }),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::number;
    use polars::prelude::df;

    fn measured() -> DataFrame {
        df![
            "name" => ["a", "b", "a", "b"],
            "ours" => [true, false, true, false],
            "x" => [Some(1.0), Some(1.0), Some(2.0), None],
            "y" => [1u32, 2, 3, 4],
            "low" => [0.5, 1.5, 2.5, 3.5],
            "high" => [1.5, 2.5, 3.5, 4.5],
        ]
        .unwrap()
    }

    #[test]
    fn a_frame_gives_a_curve_a_name() {
        let curves = LineChart::new("t", "x", "y").curves(&measured(), "name", "x", "y");
        let expected = LineChart::new("t", "x", "y")
            .with(Series::new("a", [(1.0, 1.0), (2.0, 3.0)]))
            .with(Series::new("b", [(1.0, 2.0)]).dashed());
        assert_eq!(curves.unwrap(), expected);
        let missing = LineChart::new("t", "x", "y").curves(&measured(), "name", "x", "z");
        assert!(matches!(missing, Err(ChartError::Frame { .. })));
        let all = Series::of("s", &measured(), "x", "y").unwrap();
        assert_eq!(all, Series::new("s", [(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)]));
    }

    /// A recall is drawn where −log₁₀(1 − recall) lies between the places of two others.
    #[test]
    fn recall_is_drawn_at_its_number_of_nines() {
        let recalls = [0.9, 0.99, 0.999, 1.0 - 10f64.powf(-1.5)];
        let points = recalls.map(|recall| (recall, 1.0));
        let chart = LineChart::new("t", "x", "y")
            .recall_axis()
            .with(Series::new("s", points));
        let svg = chart.figure().unwrap().svg();
        let circles = svg.lines().filter(|line| line.contains("<circle"));
        let x: Vec<f64> = circles.take(4).map(|circle| number(circle, "cx")).collect();
        let nine = x[1] - x[0];
        assert!((x[2] - x[1] - nine).abs() <= 1.0, "{x:?}");
        assert!((x[3] - x[0] - nine / 2.0).abs() <= 1.0, "{x:?}");
    }

    #[test]
    fn bands_and_bars_have_the_colour_of_their_curve() {
        let chart = LineChart::new("t", "x", "y")
            .curves(&measured(), "name", "x", "y")
            .and_then(|chart| chart.bands(&measured(), "name", "x", "low", "high"))
            .and_then(|chart| chart.errors(&measured(), "name", "x", "low", "high"));
        let svg = chart.unwrap().figure().unwrap().svg();
        let bands: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("opacity=\"0.2\""))
            .collect();
        assert_eq!(bands.len(), 2, "{bands:?}");
        assert!(
            bands[0].contains("#0072B2") && bands[1].contains("#D55E00"),
            "{bands:?}"
        );
        // Three bars of three strokes each, one pixel wide.
        let bars = svg.lines().filter(|line| {
            line.contains("<polyline")
                && line.contains("stroke-width=\"1\"")
                && !line.contains("#DDDDDD")
                && !line.contains("#555555")
        });
        assert_eq!(bars.count(), 9);
    }

    #[test]
    fn a_diagonal_goes_through_equal_shares() {
        let chart = LineChart::new("t", "x", "y")
            .diagonal()
            .with(Series::new("", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)]))
            .size(500, 500);
        let svg = chart.figure().unwrap().svg();
        let circles: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("<circle"))
            .collect();
        let at = |circle: &str| (number(circle, "cx"), number(circle, "cy"));
        let [from, to, middle] = [at(circles[0]), at(circles[1]), at(circles[2])];
        assert!((middle.0 - (from.0 + to.0) / 2.0).abs() <= 1.0);
        assert!((middle.1 - (from.1 + to.1) / 2.0).abs() <= 1.0);
        // A curve without a name has no legend: its three markers are all.
        assert_eq!(circles.len(), 3);
    }

    #[test]
    fn a_figure_says_what_it_shows() {
        let chart = LineChart::new("Speed", "recall", "queries/s")
            .with(Series::new("a", [(0.5, 100.0), (0.9, 20_000.0)]))
            .with(Series::new("b", [(0.25, 7.0)]));
        let svg = chart.figure().unwrap().svg();
        let words = "<title>Speed</title><desc>x: recall; y: queries/s\n\
                     a: x 0,500 – 0,900, y 100 – 20.000\nb: x 0,250, y 7,000</desc>";
        assert!(svg.contains(words), "{svg}");
    }
}
