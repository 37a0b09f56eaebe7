//! [`LineChart`]: one or more curves over two axes, with what is known of their doubt.

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use polars::prelude::DataFrame;

use super::axis::{Axis, Scale, can_hold};
use super::marks::{draw_line, draw_marker};
use super::{Area, CHARACTER, ChartError, GRID, INK, PALE_INK, PALETTE};
use super::{drawn, extent, longest, text_style, titled, write_text};
use crate::report::figure::Figure;
use crate::report::frame::{numbers, texts, truths};
use crate::report::numbers::by_size;

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

/// Curves with markers, and a legend on the right.
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

/// A curve of more points than this has no markers: they would cover it.
const MARKED: usize = 60;

impl LineChart {
    /// A chart without curves, of 820 × 460 pixels.
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
            size: (820, 460),
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

    /// Makes the x axis one of recall: .9, .99, .999 and .9999 stand evenly, by −log₁₀(1 − recall).
    /// A recall of 1 stands at the end, behind a dashed line.
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

    /// Sets the width and the height in pixels.
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
        let figure = drawn(self.size, |area| self.draw(area))?;
        Ok(figure.described(&self.title, self.description()))
    }

    /// The axes' names, and from where to where each curve goes on both.
    fn description(&self) -> String {
        let mut lines = vec![format!("x: {}; y: {}", self.x.label, self.y.label)];
        for series in &self.series {
            let written = |values: (f64, f64)| match values {
                (low, high) if low == high => by_size(low),
                (low, high) => format!("{} – {}", by_size(low), by_size(high)),
            };
            let x = written(extent(series.points.iter().map(|point| point.0)));
            let y = written(extent(series.points.iter().map(|point| point.1)));
            lines.push(format!("{}: x {x}, y {y}", series.name));
        }
        lines.join("\n")
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        // Both axes are made before anything is drawn, so that a chart with a bad value draws
        // nothing.
        let axes = Axes {
            x: self.axis(self.x.scale, &self.all_x())?,
            y: self.axis(self.y.scale, &self.all_y())?,
        };
        let body = titled(area, &self.title)?;
        let names = self.series.iter().map(|series| series.name.as_str());
        // A line of the legend has its name from pixel 34 on (`draw_legend`): 40 leave 6 behind it.
        // A single curve without a name needs no legend.
        let longest = longest(names);
        let legend_width = if longest == 0 {
            0
        } else {
            40 + CHARACTER * longest
        };
        let (plot, legend) = body.split_horizontally(body.dim_in_pixel().0 as i32 - legend_width);
        self.draw_plot(&plot, axes)?;
        self.draw_legend(&legend)
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

    /// The axes with their grid, and all that stands between them.
    fn draw_plot<DB: DrawingBackend>(&self, area: &Area<DB>, axes: Axes) -> Result<(), ChartError> {
        // Pixels: 42 below hold the ticks' labels and the axis' name, 66 on the left hold the
        // longer labels of the y axis and its name. 14 on the right leave room for the last label
        // of the x axis, which is centred on its tick.
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(14)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
        // Grid lines stand at the labelled ticks (bold) alone; the light ones between are not
        // drawn.
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(PALE_INK)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|value| axes.x.label(*value))
            .y_label_formatter(&|value| axes.y.label(*value))
            .label_style(text_style(13, INK, HPos::Left, VPos::Top))
            .axis_desc_style(text_style(13, INK, HPos::Left, VPos::Top))
            .x_labels(9)
            .y_labels(8)
            .draw()?;
        // The curves are drawn in pixels, not by plotters' series: the markers have one size at any
        // scale, and the legend draws them by the same functions. The plot knows its pixels in the
        // whole figure, but the area draws in pixels of its own, which begin at its corner.
        let (x, y) = chart.plotting_area().get_pixel_range();
        let origin = area.get_base_pixel();
        let plot = Plot {
            axes,
            left: f64::from(x.start - origin.0),
            width: f64::from(x.end - x.start),
            top: f64::from(y.start - origin.1),
            height: f64::from(y.end - y.start),
        };
        self.draw_marks(area, &plot)
    }

    /// What stands between the axes, from back to front.
    fn draw_marks<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        plot: &Plot,
    ) -> Result<(), ChartError> {
        if let Some(gap) = plot.axes.x.gap() {
            let x = (plot.left + gap * plot.width).round() as i32;
            let (top, bottom) = (plot.top as i32, (plot.top + plot.height) as i32);
            let style = PALE_INK.stroke_width(1);
            area.draw(&DashedPathElement::new(
                [(x, top), (x, bottom)].into_iter(),
                2,
                4,
                style,
            ))?;
        }
        if self.diagonal {
            let ends = [plot.pixel((0.0, 0.0)), plot.pixel((1.0, 1.0))];
            let style = PALE_INK.stroke_width(1);
            area.draw(&DashedPathElement::new(ends.into_iter(), 6, 4, style))?;
        }
        for range in &self.bands {
            draw_band(area, plot, range, self.place_of(&range.name))?;
        }
        for range in &self.errors {
            draw_errors(area, plot, range, self.place_of(&range.name))?;
        }
        for (at, series) in self.series.iter().enumerate() {
            let points = series.points.iter();
            let pixels: Vec<(i32, i32)> = points.map(|&point| plot.pixel(point)).collect();
            draw_line(area, &pixels, at, series.dashed)?;
            if pixels.len() <= MARKED {
                for &pixel in &pixels {
                    draw_marker(area, at, pixel)?;
                }
            }
        }
        Ok(())
    }

    /// The number of the curve with this name, on which its colour depends; that of the next curve
    /// if there is none.
    fn place_of(&self, name: &str) -> usize {
        let place = self.series.iter().position(|series| series.name == name);
        place.unwrap_or(self.series.len())
    }

    /// A line with its marker and its name for each series.
    fn draw_legend<DB: DrawingBackend>(&self, legend: &Area<DB>) -> Result<(), ChartError> {
        let style = text_style(13, INK, HPos::Left, VPos::Center);
        // 22 pixels a line, closer where the chart is too low for all of them: n lines and the
        // space below the last divide the height into n + 1.
        let height = legend.dim_in_pixel().1 as i32;
        let step = (height / (self.series.len() as i32 + 1)).min(22);
        for (at, series) in self.series.iter().enumerate() {
            if series.name.is_empty() {
                continue;
            }
            // The line goes from 4 to 28 with the marker in its middle; the name follows.
            let y = step * (at as i32 + 1);
            draw_line(legend, &[(4, y), (28, y)], at, series.dashed)?;
            draw_marker(legend, at, (16, y))?;
            write_text(legend, &series.name, (34, y), &style)?;
        }
        Ok(())
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

/// Both axes of a chart.
struct Axes {
    x: Axis,
    y: Axis,
}

/// Where the axes lie in an area, in pixels.
struct Plot {
    axes: Axes,
    left: f64,
    width: f64,
    top: f64,
    height: f64,
}

impl Plot {
    /// The pixel of a point. Pixels count downwards, the y axis upwards.
    fn pixel(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let right = self.left + self.axes.x.share(x) * self.width;
        let down = self.top + (1.0 - self.axes.y.share(y)) * self.height;
        (right.round() as i32, down.round() as i32)
    }
}

/// A band in the colour of curve `at`: along the low ends to the right, back along the high ones.
fn draw_band<DB: DrawingBackend>(
    area: &Area<DB>,
    plot: &Plot,
    range: &Range,
    at: usize,
) -> Result<(), ChartError> {
    let low = range
        .spans
        .iter()
        .map(|span| plot.pixel((span.x, span.low)));
    let high = range
        .spans
        .iter()
        .map(|span| plot.pixel((span.x, span.high)));
    let outline: Vec<(i32, i32)> = low.chain(high.rev()).collect();
    area.draw(&Polygon::new(outline, PALETTE[at % PALETTE.len()].mix(0.2)))?;
    Ok(())
}

/// Upright bars with an end of 8 pixels above and below, in the colour of curve `at`.
fn draw_errors<DB: DrawingBackend>(
    area: &Area<DB>,
    plot: &Plot,
    range: &Range,
    at: usize,
) -> Result<(), ChartError> {
    let style = PALETTE[at % PALETTE.len()].stroke_width(1);
    for span in &range.spans {
        let (x, low) = plot.pixel((span.x, span.low));
        let (_, high) = plot.pixel((span.x, span.high));
        area.draw(&PathElement::new([(x, low), (x, high)], style))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(x - 4, end), (x + 4, end)], style))?;
        }
    }
    Ok(())
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
