//! What only a notebook needs: parameters from the environment, and tables, figures and prose as rich output.
//!
//! evcxr shows a cell's last value by calling its `evcxr_display`; each kind here prints one output (a live chart two forms of it).
//! A report is read in Catalan, so numbers are written with a decimal comma ([`decimal`], [`integer`]).

use std::fmt::Display;
use std::str::FromStr;

use polars::prelude::{AnyValue, DataFrame};
use thiserror::Error;

pub use super::gallery::{Gallery, Tile};

/// A parameter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the environment's {name} is {received:?}: {why}")]
pub struct ParameterError {
    /// The variable's name.
    pub name: String,
    /// What it holds.
    pub received: String,
    /// Why that is none of the values it can take.
    pub why: String,
}

/// The value of the environment variable `name`, or `default` if it is not set (or empty): so `K=7 make report` runs a
/// notebook again with another k.
///
/// # Errors
/// If it is set to something that is not a `T`.
pub fn parameter<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, ParameterError> {
    parse(name, std::env::var(name).ok().as_deref(), default)
}

fn parse<T: FromStr<Err: Display>>(
    name: &str,
    value: Option<&str>,
    default: T,
) -> Result<T, ParameterError> {
    match value.map(str::trim) {
        None | Some("") => Ok(default),
        Some(text) => text.parse().map_err(|error: T::Err| ParameterError {
            name: name.to_owned(),
            received: text.to_owned(),
            why: error.to_string(),
        }),
    }
}

/// `value` with `places` decimals and a decimal comma: "0,8497".
#[must_use]
pub fn decimal(value: f64, places: usize) -> String {
    format!("{value:.places$}")
        .replace('.', ",")
        .replace('-', "−")
}

/// A whole number with its thousands apart: "60.000". Four digits stay together, as Catalan has it: "1000".
#[must_use]
pub fn integer(value: impl Into<i128>) -> String {
    let value: i128 = value.into();
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "−" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if digits.len() > 4 && place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('.');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with `places` decimals: "85,4 %".
#[must_use]
pub fn percent(share: f64, places: usize) -> String {
    format!("{}\u{a0}%", decimal(share * 100.0, places))
}

/// `text` with what HTML and SVG reserve escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Prints `body` as evcxr's output of that MIME type.
pub(crate) fn emit(mime: &str, body: &str) {
    println!("EVCXR_BEGIN_CONTENT {mime}\n{body}\nEVCXR_END_CONTENT");
}

/// Prose whose figures come from the run: Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prose(String);

/// Prose out of Markdown text, usually a `format!` of what was just measured.
#[must_use]
pub fn prose(markdown: impl Into<String>) -> Prose {
    Prose(markdown.into())
}

impl Prose {
    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("text/markdown", &self.0);
    }
}

/// A drawing: SVG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure(String);

impl Figure {
    /// A figure out of a whole `<svg>` element.
    #[must_use]
    pub fn from_svg(svg: String) -> Self {
        Self(svg)
    }

    /// The `<svg>` element.
    #[must_use]
    pub fn svg(&self) -> &str {
        &self.0
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("image/svg+xml", &self.0);
    }
}

/// A table of results: a [`DataFrame`] and how its numbers are written.
#[derive(Debug, Clone)]
pub struct Table {
    frame: DataFrame,
    decimals: Vec<(String, usize)>,
}

/// A table out of a frame. Floats get three decimals unless [`Table::decimals`] says otherwise.
#[must_use]
pub fn table(frame: &DataFrame) -> Table {
    Table {
        frame: frame.clone(),
        decimals: Vec::new(),
    }
}

impl Table {
    /// Writes the floats of `column` with `places` decimals.
    #[must_use]
    pub fn decimals(mut self, column: &str, places: usize) -> Self {
        self.decimals.push((column.to_owned(), places));
        self
    }

    /// The table as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let columns = self.frame.columns();
        let mut html = String::from("<table>\n<thead><tr>");
        for column in columns {
            html += &format!("<th>{}</th>", escape(column.name()));
        }
        html += "</tr></thead>\n<tbody>\n";
        for row in 0..self.frame.height() {
            html += "<tr>";
            for column in columns {
                let places = self
                    .decimals
                    .iter()
                    .rev()
                    .find(|(name, _)| name == column.name().as_str());
                let (text, number) = cell(
                    &column.get(row).unwrap_or(AnyValue::Null),
                    places.map_or(3, |&(_, places)| places),
                );
                let align = if number {
                    " style=\"text-align:right\""
                } else {
                    " style=\"text-align:left\""
                };
                html += &format!("<td{align}>{}</td>", escape(&text));
            }
            html += "</tr>\n";
        }
        html + "</tbody>\n</table>"
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("text/html", &self.html());
    }
}

/// How a value is written, and whether it is a number.
fn cell(value: &AnyValue<'_>, places: usize) -> (String, bool) {
    match value {
        AnyValue::Null => ("–".to_owned(), false),
        AnyValue::Float32(value) => (decimal(f64::from(*value), places), true),
        AnyValue::Float64(value) => (decimal(*value, places), true),
        AnyValue::UInt8(value) => (integer(*value), true),
        AnyValue::UInt32(value) => (integer(*value), true),
        AnyValue::UInt64(value) => (integer(*value), true),
        AnyValue::Int32(value) => (integer(*value), true),
        AnyValue::Int64(value) => (integer(*value), true),
        AnyValue::String(text) => ((*text).to_owned(), false),
        AnyValue::StringOwned(text) => (text.to_string(), false),
        other => (other.to_string(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::df;

    #[test]
    fn numbers_are_written_as_in_catalan() {
        assert_eq!(decimal(0.849_7, 4), "0,8497");
        assert_eq!(decimal(-1.5, 1), "−1,5");
        assert_eq!(integer(60_000), "60.000");
        assert_eq!(integer(1_000), "1000");
        assert_eq!(integer(1_234_567), "1.234.567");
        assert_eq!(integer(-12_345), "−12.345");
        assert_eq!(percent(0.8554, 1), "85,5\u{a0}%");
    }

    #[test]
    fn a_parameter_is_read_or_refused_by_name() {
        assert_eq!(parse("K", None, 5usize), Ok(5));
        assert_eq!(parse("K", Some(""), 5usize), Ok(5));
        assert_eq!(parse("K", Some(" 7 "), 5usize), Ok(7));
        let error = parse("K", Some("seven"), 5usize).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment's K is \"seven\": invalid digit found in string"
        );
    }

    #[test]
    fn a_table_escapes_text_and_aligns_numbers() {
        let frame =
            df!["<k>" => [1u32, 20_000], "exactitud" => [0.5, 0.25], "nom" => [Some("a&b"), None]]
                .unwrap();
        let html = table(&frame).decimals("exactitud", 2).html();
        assert!(html.contains("<th>&lt;k&gt;</th>"), "{html}");
        assert!(
            html.contains("<td style=\"text-align:right\">20.000</td>"),
            "{html}"
        );
        assert!(
            html.contains("<td style=\"text-align:right\">0,25</td>"),
            "{html}"
        );
        assert!(
            html.contains("<td style=\"text-align:left\">a&amp;b</td>"),
            "{html}"
        );
        assert!(
            html.contains("<td style=\"text-align:left\">–</td>"),
            "{html}"
        );
    }
}
