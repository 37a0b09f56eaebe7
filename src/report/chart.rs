//! Charts: what is drawn, apart from what was measured.
//!
//! The still charts ([`LineChart`], [`BarChart`], [`Heatmap`], [`Plane`]) are drawn by plotters,
//! and become a figure by their method `figure`. The interactive charts ([`recall_and_speed`],
//! [`accuracy_by_k`]) are Vega-Lite over a still one.
//!
//! Series can be told apart without colour, by marker and dash. The colours are those of Okabe and
//! Ito (2008), which colour-blind readers tell apart. Ink and paper follow the reader's light or
//! dark theme.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use polars::prelude::PolarsError;
use thiserror::Error;

use crate::report::figure::Figure;
use crate::report::frame::FrameError;

mod axis;
mod bars;
mod heatmap;
mod lines;
mod map;
mod marks;
mod plane;
mod vega;

pub use bars::BarChart;
pub use heatmap::Heatmap;
pub use lines::{LineChart, Series};
pub use map::{ClassMap, hover_maps};
pub use plane::{Plane, Point};
pub use vega::{
    AccuracyLabels, DataName, Interactive, SpeedLabels, accuracy_by_k, recall_and_speed,
};

/// Where the charts draw.
type Area<DB> = DrawingArea<DB, Shift>;

/// Why a chart could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChartError {
    /// There is nothing to draw.
    #[error("the chart {title:?} has nothing to draw")]
    Empty {
        /// Its title.
        title: String,
    },
    /// A value is not finite, or not positive on a logarithmic axis.
    #[error("the chart {title:?} cannot place the value {value}")]
    Value {
        /// Its title.
        title: String,
        /// The value.
        value: String,
    },
    /// A frame does not have what was to be drawn.
    #[error("the frame cannot be drawn: {message}")]
    Frame {
        /// What polars said.
        message: String,
    },
    /// The backend failed.
    #[error("the chart could not be drawn: {message}")]
    Backend {
        /// What it said.
        message: String,
    },
}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for ChartError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Backend {
            message: error.to_string(),
        }
    }
}

impl From<FrameError> for ChartError {
    fn from(error: FrameError) -> Self {
        Self::Frame {
            message: error.to_string(),
        }
    }
}

impl From<PolarsError> for ChartError {
    fn from(error: PolarsError) -> Self {
        Self::Frame {
            message: error.to_string(),
        }
    }
}

/// Text, axes and frames. `figure::STYLE` knows this and the next three colours by their
/// hexadecimal digits: a colour that is changed here has to be changed there, or it stays as it is
/// in a dark theme.
const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
/// Secondary text.
const PALE_INK: RGBColor = RGBColor(0x55, 0x55, 0x55);
/// Grid lines.
const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
/// The background.
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

/// About the width in pixels of a character of the legends' text, for the room that it needs. The
/// text's size is 16 for plotters, which makes 13 pixels of it. The SVG is drawn with the reader's
/// own font, so the true width is not known here.
const CHARACTER: i32 = 7;

/// The colours of the series, in their order: six of Okabe and Ito's eight, and a grey. Left out
/// are black, which would be taken for ink, and yellow, which is pale on white.
pub const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x80, 0x80, 0x80),
];

/// Draws a figure of the given size (width, height) in pixels.
fn drawn<F>(size: (u32, u32), draw: F) -> Result<Figure, ChartError>
where
    F: for<'a> FnOnce(&Area<SVGBackend<'a>>) -> Result<(), ChartError>,
{
    let mut text = String::new();
    {
        // The backend borrows `text`, and writes the end of the SVG when it is presented: the block
        // gives the borrow back before the text is read.
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&PAPER)?;
        draw(&area)?;
        area.present()?;
    }
    // The figure has an `<svg>` element of its own: only what stands in this one is taken. The
    // first ">" ends the opening tag, whose attributes are numbers and names.
    let content = text.split_once('>').map_or("", |(_, content)| content);
    let content = content.trim().trim_end_matches("</svg>");
    Ok(Figure::new(size, content.trim_start()))
}

/// Sans-serif text of a size and colour, anchored.
fn text_style(size: i32, color: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&color)
        .pos(Pos::new(horizontal, vertical))
}

/// Writes `text` with its anchor at `at`.
fn write_text<DB: DrawingBackend>(
    area: &Area<DB>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'_>,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    area.draw(&Text::new(text.to_owned(), at, style.clone()))
}

/// Writes the title, in lines as long as the area is wide, and returns the area below it.
fn titled<DB: DrawingBackend>(
    area: &Area<DB>,
    title: &str,
) -> Result<Area<DB>, DrawingAreaErrorKind<DB::ErrorType>> {
    // The title is 16 pixels high (plotters' 20) and its characters about 9 wide. From 10 on, a
    // line every 21 pixels: they leave 8 below the last one.
    let characters = (area.dim_in_pixel().0 as usize).saturating_sub(24) / 9;
    let style = text_style(20, INK, HPos::Left, VPos::Top);
    let mut y = 10;
    for line in wrapped(title, characters) {
        write_text(area, &line, (12, y), &style)?;
        y += 21;
    }
    Ok(area.margin((y + 3) as u32, 0, 0, 0))
}

/// The text in lines of at most so many characters, broken at blanks; a longer word has a line of
/// its own. At least one line, if an empty one.
fn wrapped(text: &str, characters: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .expect("there is a line from the beginning");
        if line.is_empty() {
            word.clone_into(line);
        } else if line.chars().count() + 1 + word.chars().count() <= characters {
            *line += " ";
            *line += word;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The number of characters of the longest text; 0 of none.
fn longest<'a>(texts: impl IntoIterator<Item = &'a str>) -> i32 {
    // Characters, not bytes: an accented letter is two bytes and as wide as another.
    let lengths = texts.into_iter().map(|text| text.chars().count());
    lengths.max().unwrap_or(0) as i32
}

/// The least and the greatest of some values; (∞, −∞) of none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    // `min` and `max` pass over NaN, so the callers check for it themselves.
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    (low, high)
}

/// The number in an attribute of an element of SVG.
#[cfg(test)]
fn number(element: &str, attribute: &str) -> f64 {
    let (_, value) = element.split_once(&format!("{attribute}=\"")).unwrap();
    value.split('"').next().unwrap().parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_themed_and_empty_charts_are_errors() {
        let chart = LineChart::new("empty", "x", "y").size(300, 200);
        let empty = ChartError::Empty {
            title: "empty".into(),
        };
        assert_eq!(chart.figure().unwrap_err(), empty);
        let chart = chart.with(Series::new("s", [(1.0, 2.0), (2.0, 3.0)]));
        let svg = chart.figure().unwrap().svg();
        assert!(
            svg.starts_with("<svg class=\"fk\" role=\"img\" width=\"300\""),
            "{svg}"
        );
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert_eq!(svg.matches("<svg").count(), 1);
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn a_long_title_has_several_lines() {
        assert_eq!(wrapped("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrapped("abcdefgh ij", 5), ["abcdefgh", "ij"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn a_long_legend_fits() {
        let names: Vec<String> = (0..30).map(|at| format!("curve {at}")).collect();
        let all = |chart: LineChart, name: &String| {
            chart.with(Series::new(name, [(1.0, 2.0), (2.0, 3.0)]))
        };
        let chart = names.iter().fold(LineChart::new("many", "x", "y"), all);
        let svg = chart.size(600, 420).figure().unwrap().svg();
        let place = |name: &String| {
            let mut texts = svg.split("<text");
            let text = texts
                .find(|text| text.contains(&format!("\n{name}\n")))
                .unwrap();
            (number(text, "x"), number(text, "y"))
        };
        let places: Vec<(f64, f64)> = names.iter().map(place).collect();
        let height = number(&svg, "height");
        for (at, (x, y)) in places.iter().enumerate() {
            // 7 pixels a character: what is written ends inside the figure.
            assert!(x + 56.0 < 600.0 && *y < height, "{places:?}");
            let apart =
                |other: &(f64, f64)| (other.0 - x).abs() > 56.0 || (other.1 - y).abs() > 15.0;
            assert!(places[..at].iter().all(apart), "{places:?}");
        }
    }

    #[test]
    fn what_no_axis_can_hold_is_an_error() {
        for (value, log) in [
            (f64::NAN, false),
            (f64::INFINITY, false),
            (0.0, true),
            (-1.0, true),
        ] {
            let chart = LineChart::new("t", "x", "y").with(Series::new("s", [(1.0, value)]));
            let chart = if log { chart.log_y() } else { chart };
            let error = chart.figure().unwrap_err();
            assert!(
                matches!(error, ChartError::Value { .. }),
                "{value} {log} {error}"
            );
        }
    }
}
