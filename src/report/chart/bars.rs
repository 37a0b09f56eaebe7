//! [`BarChart`]: named quantities as horizontal bars, each with its value written out.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, ChartError, GRID, INK, PALETTE, text_style, titled, write_text};

/// Horizontal bars, top to bottom.
#[derive(Debug, Clone, PartialEq)]
pub struct BarChart {
    title: String,
    log: bool,
    bars: Vec<(String, f64, String)>,
}

impl BarChart {
    /// A chart without bars.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            log: false,
            bars: Vec::new(),
        }
    }

    /// Adds a bar of length `value`, which is written as `label`.
    #[must_use]
    pub fn bar(mut self, name: impl Into<String>, value: f64, label: impl Into<String>) -> Self {
        self.bars.push((name.into(), value, label.into()));
        self
    }

    /// Makes lengths logarithmic; the shortest bar keeps a tenth of the longest one's decade, and the grid shows decades.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    /// The height in pixels that suits the number of bars.
    #[must_use]
    pub fn height(&self) -> u32 {
        50 + 30 * self.bars.len() as u32
    }

    /// Draws the chart over the whole area.
    ///
    /// # Errors
    /// If there is no bar, a value that cannot be drawn, or the backend fails.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        if self.bars.is_empty() {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        if let Some((_, bad, _)) = self
            .bars
            .iter()
            .find(|(_, v, _)| !v.is_finite() || *v < 0.0 || (self.log && *v == 0.0))
        {
            return Err(ChartError::Value {
                title: self.title.clone(),
                value: bad.to_string(),
            });
        }
        let body = titled(area, &self.title)?;
        let (width, height) = body.dim_in_pixel();
        let longest = |text: fn(&(String, f64, String)) -> &str| {
            8 * self
                .bars
                .iter()
                .map(|bar| text(bar).chars().count())
                .max()
                .unwrap_or(0) as i32
        };
        let (left, right) = (
            20 + longest(|bar| &bar.0),
            width as i32 - 16 - longest(|bar| &bar.2),
        );
        let room = f64::from((right - left).max(1));
        let high = self
            .bars
            .iter()
            .map(|bar| bar.1)
            .fold(f64::MIN_POSITIVE, f64::max);
        let low = self.bars.iter().map(|bar| bar.1).fold(high, f64::min);
        // A logarithmic bar begins at the decade below the smallest value.
        let floor = 10f64.powf((low / 1.5).log10().floor());
        let length = |value: f64| {
            let share = if self.log {
                (value / floor).ln() / (high / floor).ln()
            } else {
                value / high
            };
            (share * room).round() as i32
        };
        if self.log {
            let (first, last) = (floor.log10().round() as i32, high.log10().floor() as i32);
            for x in (first..=last).map(|decade| left + length(10f64.powi(decade))) {
                body.draw(&PathElement::new(
                    vec![(x, 0), (x, height as i32 - 8)],
                    GRID,
                ))?;
            }
        }
        let step = (height as i32 - 12) / self.bars.len() as i32;
        for (at, (name, value, label)) in self.bars.iter().enumerate() {
            let middle = 4 + step * at as i32 + step / 2;
            let half = (step * 7 / 20).max(2);
            let end = left + length(*value).max(1);
            body.draw(&Rectangle::new(
                [(left, middle - half), (end, middle + half)],
                PALETTE[0].filled(),
            ))?;
            write_text(
                &body,
                name,
                (left - 8, middle),
                &text_style(13, INK, HPos::Right, VPos::Center),
            )?;
            write_text(
                &body,
                label,
                (end + 6, middle),
                &text_style(13, INK, HPos::Left, VPos::Center),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::svg;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let chart = BarChart::new("t").bar("a", 10.0, "10").bar("b", 5.0, "5");
        let figure = svg((500, chart.height()), |area| chart.draw(area)).unwrap();
        let bars = figure
            .svg()
            .lines()
            .filter(|line| line.contains("<rect") && line.contains("#0072B2"));
        let width = |line: &str| {
            line.split("width=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        let widths: Vec<f64> = bars.map(width).collect();
        assert_eq!(widths.len(), 2);
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.02, "{widths:?}");
        let zero = BarChart::new("t").log().bar("a", 0.0, "0");
        assert!(matches!(
            svg((500, 80), |area| zero.draw(area)),
            Err(ChartError::Value { .. })
        ));
    }
}
