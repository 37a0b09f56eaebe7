//! [`LineChart`]: one or more curves over two axes, each linear or logarithmic.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, CHARACTER, ChartError, GRID, INK, PALE_INK, PALETTE};
use super::{extent, longest, text_style, titled, write_text};
use crate::report::numbers::{integer, short_decimal};

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
/// use fashion_knn::report::chart::{LineChart, Series, svg};
///
/// let chart = LineChart::new("Recall and speed", "recall", "queries/s")
///     .log_y()
///     .with(Series::new("HNSW", [(0.9, 20_000.0), (0.99, 6_000.0)]))
///     .with(Series::new("brute force", [(1.0, 2_500.0)]).dashed());
/// let figure = svg((820, 480), |area| chart.draw(area))?;
/// assert!(figure.svg().contains("HNSW"));
/// # Ok::<(), fashion_knn::report::chart::ChartError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    title: String,
    x_label: String,
    y_label: String,
    log_x: bool,
    log_y: bool,
    series: Vec<Series>,
}

impl LineChart {
    /// A chart without curves.
    #[must_use]
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            log_x: false,
            log_y: false,
            series: Vec::new(),
        }
    }

    /// Adds a curve.
    #[must_use]
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Makes the x axis logarithmic.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.log_x = true;
        self
    }

    /// Makes the y axis logarithmic.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Draws the chart over the whole area.
    ///
    /// # Errors
    /// If there is no point, a value that its axis cannot hold, or the backend fails.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        // Both axes are made before anything is drawn, so that a chart with a bad value draws
        // nothing.
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = self.axis(points().map(|point| point.0), self.log_x)?;
        let y = self.axis(points().map(|point| point.1), self.log_y)?;
        let body = titled(area, &self.title)?;
        let names = self.series.iter().map(|series| series.name.as_str());
        // A line of the legend has its name from pixel 34 on (`draw_legend`): 40 leave 6 behind it.
        let legend_width = 40 + CHARACTER * longest(names);
        let (plot, legend) = body.split_horizontally(body.dim_in_pixel().0 as i32 - legend_width);
        self.draw_plot(&plot, x, y)?;
        self.draw_legend(&legend)
    }

    /// An axis over these values and a little more.
    fn axis(
        &self,
        values: impl Iterator<Item = f64> + Clone,
        log: bool,
    ) -> Result<Axis, ChartError> {
        for value in values.clone() {
            // The mapping would make infinity or NaN of these, and the cast to a pixel would place
            // them somewhere, in silence.
            if !value.is_finite() || (log && value <= 0.0) {
                return Err(ChartError::Value {
                    title: self.title.clone(),
                    value: value.to_string(),
                });
            }
        }
        let (low, high) = extent(values);
        // `extent` gives (∞, −∞) of no values.
        if low > high {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        if log {
            // On a logarithmic axis equal lengths are equal ratios: the margin is a factor of 1.15
            // at each end, and keeps `low` above 0. It also gives a single value a length.
            let range = low / 1.15..high * 1.15;
            return Ok(Axis { range, log });
        }
        // 5 % of the range at each end, so that no marker lies on the frame. A single value has no
        // range: without a margin of its own the mapping would divide by 0.
        let margin = if high > low {
            0.05 * (high - low)
        } else {
            0.5 * high.abs().max(1.0)
        };
        let range = low - margin..high + margin;
        Ok(Axis { range, log })
    }

    /// The axes with their grid, and the curves.
    fn draw_plot<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        x: Axis,
        y: Axis,
    ) -> Result<(), ChartError> {
        // Pixels: 42 below hold the ticks' labels and the axis' name, 66 on the left hold the
        // longer labels of the y axis and its name. 14 on the right leave room for the last label
        // of the x axis, which is centred on its tick.
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(14)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(x, y)?;
        // Grid lines stand at the labelled ticks (bold) alone; the light ones between are not
        // drawn.
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(PALE_INK)
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .label_style(text_style(13, INK, HPos::Left, VPos::Top))
            .axis_desc_style(text_style(13, INK, HPos::Left, VPos::Top))
            .x_labels(9)
            .y_labels(8)
            .draw()?;
        let plane = chart.plotting_area();
        // The curves are drawn in pixels, not by plotters' series: the markers have one size at any
        // scale, and the legend draws them by the same functions. The plane maps to pixels of the
        // whole figure, but the area draws in pixels of its own, which begin at its corner.
        let origin = area.get_base_pixel();
        for (at, series) in self.series.iter().enumerate() {
            let mut pixels = Vec::with_capacity(series.points.len());
            for point in &series.points {
                let (x, y) = plane.map_coordinate(point);
                pixels.push((x - origin.0, y - origin.1));
            }
            draw_line(area, &pixels, at, series.dashed)?;
            for &pixel in &pixels {
                draw_marker(area, at, pixel)?;
            }
        }
        Ok(())
    }

    /// A line with its marker and its name for each series.
    fn draw_legend<DB: DrawingBackend>(&self, legend: &Area<DB>) -> Result<(), ChartError> {
        let style = text_style(13, INK, HPos::Left, VPos::Center);
        // 22 pixels a line, closer where the chart is too low for all of them: n lines and the
        // space below the last divide the height into n + 1.
        let height = legend.dim_in_pixel().1 as i32;
        let step = (height / (self.series.len() as i32 + 1)).min(22);
        for (at, series) in self.series.iter().enumerate() {
            // The line goes from 4 to 28 with the marker in its middle; the name follows.
            let y = step * (at as i32 + 1);
            draw_line(legend, &[(4, y), (28, y)], at, series.dashed)?;
            draw_marker(legend, at, (16, y))?;
            write_text(legend, &series.name, (34, y), &style)?;
        }
        Ok(())
    }
}

/// A tick's label, as short as it can be.
fn tick(value: f64) -> String {
    if value.abs() >= 1_000.0 {
        integer(value.round() as i64)
    } else {
        short_decimal(value, 4)
    }
}

/// The line of series `at` through pixels.
fn draw_line<DB: DrawingBackend>(
    area: &Area<DB>,
    pixels: &[(i32, i32)],
    at: usize,
    dashed: bool,
) -> Result<(), ChartError> {
    let style = PALETTE[at % PALETTE.len()].stroke_width(2);
    if dashed {
        // 6 pixels of dash and 4 of gap, as in the interactive charts.
        area.draw(&DashedPathElement::new(pixels.iter().copied(), 6, 4, style))?;
    } else {
        area.draw(&PathElement::new(pixels, style))?;
    }
    Ok(())
}

/// The outlines of the markers, corners within about 5 pixels of the centre: circle, square,
/// triangle up, diamond, triangle down, cross, hourglass, bow tie. The circle has no corners, and
/// `draw_marker` draws it. The interactive charts have the same in the same order (`SHAPES`).
const MARKERS: [&[(i32, i32)]; 8] = [
    &[],
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, -5), (5, 4), (-5, 4)],
    &[(0, -6), (5, 0), (0, 6), (-5, 0)],
    &[(0, 5), (5, -4), (-5, -4)],
    &[
        (-2, -5),
        (2, -5),
        (2, -2),
        (5, -2),
        (5, 2),
        (2, 2),
        (2, 5),
        (-2, 5),
        (-2, 2),
        (-5, 2),
        (-5, -2),
        (-2, -2),
    ],
    &[(-5, -5), (5, -5), (-5, 5), (5, 5)],
    &[(-5, -5), (-5, 5), (5, -5), (5, 5)],
];

/// The marker of series `at`, centred on a pixel: a shape of [`MARKERS`], hollow when all have been
/// used once.
fn draw_marker<DB: DrawingBackend>(
    area: &Area<DB>,
    at: usize,
    (x, y): (i32, i32),
) -> Result<(), ChartError> {
    let color = PALETTE[at % PALETTE.len()];
    // 8 markers and 7 colours have no common divisor, so a pair of both comes back only after 56
    // series; hollow markers help those who do not see the colours.
    let hollow = at / MARKERS.len() % 2 == 1;
    let corners = MARKERS[at % MARKERS.len()];
    let Some(first) = corners.first() else {
        let style = if hollow {
            color.stroke_width(2)
        } else {
            color.filled()
        };
        area.draw(&Circle::new((x, y), 4, style))?;
        return Ok(());
    };
    // The outline comes back to its first corner: a path, which draws the hollow ones, is not
    // closed by itself.
    let closed = corners.iter().chain([first]);
    let outline: Vec<_> = closed.map(|corner| (x + corner.0, y + corner.1)).collect();
    if hollow {
        area.draw(&PathElement::new(outline, color.stroke_width(2)))?;
    } else {
        area.draw(&Polygon::new(outline, color.filled()))?;
    }
    Ok(())
}

/// A linear or logarithmic axis. The logarithmic one has its ticks at 1, 2 and 5 of each decade, or
/// at the decades alone where there are many.
#[derive(Debug, Clone)]
struct Axis {
    range: Range<f64>,
    log: bool,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        // `share` is how far along the axis the value lies, from 0 to 1. `limit` holds the pixels
        // of the two ends. Pixels count downwards, so on the y axis the first of them is the
        // greater one, and the same formula turns the axis round.
        let Range { start, end } = self.range;
        let share = if self.log {
            (value / start).ln() / (end / start).ln()
        } else {
            (value - start) / (end - start)
        };
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !self.log {
            return RangedCoordf64::from(self.range.clone()).key_points(hint);
        }
        // The decades that the range touches: from the power of ten at or below its start to the
        // one at or above its end. Of more than 4, each has one tick, or the labels would overlap.
        let low = self.range.start.log10().floor() as i32;
        let high = self.range.end.log10().ceil() as i32;
        let steps: &[f64] = if high - low > 4 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        for decade in low..=high {
            for step in steps {
                ticks.push(step * 10f64.powi(decade));
            }
        }
        // The first and the last decade reach beyond the range.
        ticks.retain(|tick| self.range.contains(tick));
        ticks
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::BoldPoints;

    #[test]
    fn logarithmic_ticks_are_round_and_inside() {
        let axis = |range| Axis { range, log: true };
        assert_eq!(
            axis(8.0..120.0).key_points(BoldPoints(9)),
            [10.0, 20.0, 50.0, 100.0]
        );
        assert_eq!(
            axis(1.0..200_000.0).key_points(BoldPoints(9)),
            [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]
        );
        let axis = axis(1.0..100.0);
        assert_eq!(
            (
                axis.map(&1.0, (0, 200)),
                axis.map(&10.0, (0, 200)),
                axis.map(&100.0, (0, 200))
            ),
            (0, 100, 200)
        );
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            ["0,85", "60.000", "7", "−0,5"],
            [tick(0.85), tick(60_000.0), tick(7.0), tick(-0.5)].map(String::from)
        );
    }
}
