//! [`BarChart`]: named quantities as horizontal bars, each with its value written out.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use polars::prelude::DataFrame;

use super::{Area, ChartError, GRID, INK, PALETTE};
use super::{drawn, extent, longest, text_style, titled, write_text};
use crate::report::figure::Figure;
use crate::report::frame::{numbers, texts};
use crate::report::numbers::by_size;

/// Horizontal bars, top to bottom.
///
/// # Examples
/// ```
/// use fashion_knn::report::chart::BarChart;
/// use polars::prelude::df;
///
/// let speeds = df!["name" => ["brute force", "HNSW"], "qps" => [2_500.0, 40_000.0]]?;
/// let figure = BarChart::of("Queries per second (logarithmic)", &speeds, "name", "qps")?
///     .log()
///     .figure()?;
/// assert!(figure.svg().contains("HNSW"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BarChart {
    title: String,
    log: bool,
    bars: Vec<Bar>,
    size: Option<(u32, u32)>,
}

/// A bar: its name on the left, its value written as `label` on the right.
#[derive(Debug, Clone, PartialEq)]
struct Bar {
    name: String,
    value: f64,
    label: String,
    spread: Option<Spread>,
}

/// From where to where a value lies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    low: f64,
    high: f64,
}

impl BarChart {
    /// A chart without bars.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            log: false,
            bars: Vec::new(),
            size: None,
        }
    }

    /// A bar for each row of a frame: its name, and its value, which is written by its size. Rows
    /// without a value are left out.
    ///
    /// # Errors
    /// If a column is missing, or `value` holds no numbers.
    pub fn of(
        title: impl Into<String>,
        frame: &DataFrame,
        name: &str,
        value: &str,
    ) -> Result<Self, ChartError> {
        let mut chart = Self::new(title);
        for (name, value) in texts(frame, name)?.into_iter().zip(numbers(frame, value)?) {
            if let Some(value) = value {
                chart = chart.bar(name, value, by_size(value));
            }
        }
        Ok(chart)
    }

    /// Adds a bar of length `value`, which is written as `label`.
    #[must_use]
    pub fn bar(mut self, name: impl Into<String>, value: f64, label: impl Into<String>) -> Self {
        self.bars.push(Bar {
            name: name.into(),
            value,
            label: label.into(),
            spread: None,
        });
        self
    }

    /// Draws a line over each bar from `low` to `high` of the row of its name: the interval or the
    /// spread of its value.
    ///
    /// # Errors
    /// If a column is missing, or `low` or `high` holds no numbers.
    pub fn errors(
        mut self,
        frame: &DataFrame,
        name: &str,
        low: &str,
        high: &str,
    ) -> Result<Self, ChartError> {
        let (low, high) = (numbers(frame, low)?, numbers(frame, high)?);
        for (row, name) in texts(frame, name)?.into_iter().enumerate() {
            let (Some(low), Some(high)) = (low[row], high[row]) else {
                continue;
            };
            for bar in self.bars.iter_mut().filter(|bar| bar.name == name) {
                bar.spread = Some(Spread { low, high });
            }
        }
        Ok(self)
    }

    /// Makes lengths logarithmic, with a grid of decades. The bars begin at the decade below the
    /// smallest value.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    /// Sets the width and the height in pixels. Unless it is told, the chart is 660 wide and as
    /// high as its bars need.
    #[must_use]
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = Some((width, height));
        self
    }

    /// The chart as a figure.
    ///
    /// # Errors
    /// If there is no bar, a value that cannot be drawn (not finite, negative, or 0 where lengths
    /// are logarithmic), or the backend fails.
    pub fn figure(&self) -> Result<Figure, ChartError> {
        // 34 pixels for the title, 16 around the bars, 30 a bar.
        let height = 50 + 30 * self.bars.len() as u32;
        let figure = drawn(self.size.unwrap_or((660, height)), |area| self.draw(area))?;
        let bars = self
            .bars
            .iter()
            .map(|bar| format!("{}: {}", bar.name, bar.label));
        Ok(figure.described(&self.title, bars.collect::<Vec<_>>().join("\n")))
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        self.check()?;
        let body = titled(area, &self.title)?;
        let (width, height) = (body.dim_in_pixel().0 as i32, body.dim_in_pixel().1 as i32);
        // Names take 8 pixels a character on the left, labels the same on the right of the longest
        // bar. Between `left` and `right` are the bars; a figure that is too narrow still has a
        // pixel for them.
        let left = 20 + 8 * longest(self.bars.iter().map(|bar| bar.name.as_str()));
        let right = width - 16 - 8 * longest(self.bars.iter().map(|bar| bar.label.as_str()));
        let scale = self.scale(f64::from((right - left).max(1)));
        // The grid first: bars are painted over it.
        for decade in scale.decades() {
            let x = left + scale.length(decade);
            body.draw(&PathElement::new(vec![(x, 0), (x, height - 8)], GRID))?;
        }
        let name_style = text_style(16, INK, HPos::Right, VPos::Center);
        let label_style = text_style(16, INK, HPos::Left, VPos::Center);
        let step = (height - 12) / self.bars.len() as i32;
        for (at, bar) in self.bars.iter().enumerate() {
            // A bar is as thick as 70 % of its step: 7 / 20 above its middle and as much below,
            // never less than 2 pixels each.
            let middle = 4 + step * at as i32 + step / 2;
            let half = (step * 7 / 20).max(2);
            // Even 0 is seen: its bar is a pixel long.
            let end = left + scale.length(bar.value).max(1);
            let corners = [(left, middle - half), (end, middle + half)];
            body.draw(&Rectangle::new(corners, PALETTE[0].filled()))?;
            write_text(&body, &bar.name, (left - 8, middle), &name_style)?;
            let mut label_at = end + 6;
            if let Some(spread) = bar.spread {
                let (low, high) = (scale.length(spread.low), scale.length(spread.high));
                let whisker = vec![(left + low, middle), (left + high, middle)];
                body.draw(&PathElement::new(whisker, INK.stroke_width(2)))?;
                label_at = label_at.max(left + high + 6);
            }
            write_text(&body, &bar.label, (label_at, middle), &label_style)?;
        }
        Ok(())
    }

    /// Refuses what cannot be drawn.
    fn check(&self) -> Result<(), ChartError> {
        if self.bars.is_empty() {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        for bar in &self.bars {
            let ends = bar.spread.map(|spread| [spread.low, spread.high]);
            for value in ends.into_iter().flatten().chain([bar.value]) {
                let too_small = value < 0.0 || (self.log && value == 0.0);
                if !value.is_finite() || too_small {
                    return Err(ChartError::Value {
                        title: self.title.clone(),
                        value: value.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The scale on which the longest bar is `room` pixels long.
    fn scale(&self, room: f64) -> Scale {
        let ends = self.bars.iter().flat_map(|bar| {
            let spread = bar.spread.map(|spread| [spread.low, spread.high]);
            spread.into_iter().flatten().chain([bar.value])
        });
        let (low, high) = extent(ends);
        // Values may all be 0: the lengths are then 0 / tiny = 0 rather than 0 / 0.
        let high = high.max(f64::MIN_POSITIVE);
        Scale {
            log: self.log,
            // The power of ten at or below `low` / 1.5. A least value of 12 / 1.5 = 8 is measured
            // from 1, not from 10, where it would be a stump. A linear scale does not read it.
            floor: 10f64.powf((low / 1.5).log10().floor()),
            high,
            room,
        }
    }
}

/// From values to lengths in pixels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    log: bool,
    /// The value of length 0 on a logarithmic scale: a power of ten.
    floor: f64,
    /// The value of length `room`.
    high: f64,
    room: f64,
}

impl Scale {
    fn length(&self, value: f64) -> i32 {
        // The floor is at most `low` / 1.5, so `high` / `floor` is above 1 and its logarithm is not
        // 0.
        let share = if self.log {
            (value / self.floor).ln() / (self.high / self.floor).ln()
        } else {
            value / self.high
        };
        (share * self.room).round() as i32
    }

    /// The powers of ten from the floor to the longest bar; none on a linear scale.
    fn decades(&self) -> Vec<f64> {
        if !self.log {
            return Vec::new();
        }
        // The floor is a power of ten up to rounding errors: `round` gives its exponent, where
        // `floor` could give the one below.
        let first = self.floor.log10().round() as i32;
        let last = self.high.log10().floor() as i32;
        (first..=last).map(|decade| 10f64.powi(decade)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::number;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let chart = BarChart::new("t").bar("a", 10.0, "10").bar("b", 5.0, "5");
        let svg = chart.figure().unwrap().svg();
        let bars = svg
            .lines()
            .filter(|line| line.contains("<rect") && line.contains("#0072B2"));
        let widths: Vec<f64> = bars.map(|bar| number(bar, " width")).collect();
        assert_eq!(widths.len(), 2);
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.02, "{widths:?}");
        assert!(
            svg.contains("<title>t</title><desc>a: 10\nb: 5</desc>"),
            "{svg}"
        );
        let zero = BarChart::new("t").log().bar("a", 0.0, "0");
        assert!(matches!(zero.figure(), Err(ChartError::Value { .. })));
    }

    #[test]
    fn a_whisker_goes_from_low_to_high() {
        let frame = polars::prelude::df!["name" => ["a"], "low" => [5.0], "high" => [10.0]];
        let frame = frame.unwrap();
        let chart = BarChart::new("t").bar("a", 8.0, "8");
        let chart = chart.errors(&frame, "name", "low", "high").unwrap();
        let svg = chart.figure().unwrap().svg();
        let line = svg.lines().find(|line| line.contains("<polyline")).unwrap();
        let points = line.split("points=\"").nth(1).unwrap();
        let points: Vec<f64> = points
            .split('"')
            .next()
            .unwrap()
            .split([',', ' '])
            .filter_map(|number| number.parse().ok())
            .collect();
        let is_bar = |line: &&str| line.contains("<rect") && line.contains("#0072B2");
        let bar = svg.lines().find(is_bar).unwrap();
        let (start, width) = (number(bar, " x"), number(bar, " width"));
        let unit = width / 8.0;
        assert!((points[0] - start - 5.0 * unit).abs() <= 1.0, "{points:?}");
        assert!((points[2] - start - 10.0 * unit).abs() <= 1.0, "{points:?}");
    }

    #[test]
    fn a_frame_gives_a_bar_a_row() {
        let frame = polars::prelude::df![
            "name" => ["a", "b", "c"],
            "qps" => [Some(12_345.6), None, Some(0.5)],
        ];
        let chart = BarChart::of("t", &frame.unwrap(), "name", "qps").unwrap();
        let expected = BarChart::new("t")
            .bar("a", 12_345.6, "12.346")
            .bar("c", 0.5, "0,500");
        assert_eq!(chart, expected);
    }
}
