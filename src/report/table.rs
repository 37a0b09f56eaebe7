//! A polars frame as the HTML table of a notebook.

use std::borrow::Borrow;

use polars::prelude::{AnyValue, Column, DataFrame, PolarsResult};

use super::figure::{emit, escape};
use super::numbers::{by_size, decimal, integer};
use crate::lab::evaluate::ConfusionMatrix;

/// A table of results: a [`DataFrame`] and how its numbers are written.
///
/// # Examples
/// ```
/// use fashion_knn::report::table::table;
/// use polars::prelude::df;
///
/// let frame = df!["index" => ["Annoy", "HNSW"], "recall" => [0.95, 0.991]]?;
/// let html = table(frame).decimals("recall", 2).caption("Two graphs").html();
/// assert!(html.contains("<th scope=\"col\" style=\"text-align:right\">recall</th>"));
/// assert!(html.contains(">0,95</td>"));
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    frame: DataFrame,
    caption: Option<String>,
    decimals: Vec<Decimals>,
    names: Vec<(String, String)>,
}

/// How many decimals the floats of a column have.
#[derive(Debug, Clone)]
struct Decimals {
    column: String,
    places: usize,
}

/// A table out of a frame (or a reference to one). Floats have decimals by their size
/// ([`by_size`]) unless [`Table::decimals`] says otherwise; truth is a tick, its contrary a cross,
/// and what is missing a dash.
#[must_use]
pub fn table(frame: impl Borrow<DataFrame>) -> Table {
    Table {
        frame: frame.borrow().clone(),
        caption: None,
        decimals: Vec::new(),
        names: Vec::new(),
    }
}

impl Table {
    /// Writes the floats of `column` with `places` decimals.
    #[must_use]
    pub fn decimals(mut self, column: &str, places: usize) -> Self {
        self.decimals.push(Decimals {
            column: column.to_owned(),
            places,
        });
        self
    }

    /// Heads columns with other names, for the reader: pairs of a column's name and its heading.
    /// Columns that are not there are passed over, so that one list serves the tables of a whole
    /// notebook; of two headings for a column the later one counts.
    ///
    /// ```
    /// use fashion_knn::report::table::table;
    /// use polars::prelude::df;
    ///
    /// let frame = df!["name" => ["HNSW"], "qps" => [9_000.0]]?;
    /// let html = table(frame).named(&[("qps", "queries/s"), ("k", "neighbours")]).html();
    /// assert!(html.contains(">queries/s</th>") && html.contains(">name</th>"));
    /// # Ok::<(), polars::prelude::PolarsError>(())
    /// ```
    #[must_use]
    pub fn named(mut self, names: &[(&str, &str)]) -> Self {
        let owned = names
            .iter()
            .map(|(name, heading)| (name.to_string(), heading.to_string()));
        self.names.extend(owned);
        self
    }

    /// Says above the table what it shows.
    #[must_use]
    pub fn caption(mut self, text: impl Into<String>) -> Self {
        self.caption = Some(text.into());
        self
    }

    /// The table as HTML: numbers to the right, all else to the left. A first column of texts heads
    /// the rows.
    #[must_use]
    pub fn html(&self) -> String {
        let columns = self.frame.columns();
        let mut html = String::from("<table>\n");
        if let Some(caption) = &self.caption {
            html += &format!("<caption>{}</caption>\n", escape(caption));
        }
        html += "<thead><tr>";
        for column in columns {
            html += &self.heading(column);
        }
        html += "</tr></thead>\n<tbody>\n";
        for row in 0..self.frame.height() {
            html += "<tr>";
            for (place, column) in columns.iter().enumerate() {
                // `row` is below the height, so `get` does not fail and the fallback is not used. A
                // missing value is a `Null` of the frame.
                let value = column.get(row).unwrap_or(AnyValue::Null);
                let text = written(&value, self.places(column.name()));
                let side = side(column);
                // Who hears a table hears the heading of the row before a value. An empty heading
                // would be none.
                let heads = place == 0 && columns.len() > 1 && side == "left" && !text.is_empty();
                html += &if heads {
                    let style = "text-align:left;font-weight:normal";
                    format!("<th scope=\"row\" style=\"{style}\">{}</th>", escape(&text))
                } else {
                    format!("<td style=\"text-align:{side}\">{}</td>", escape(&text))
                };
            }
            html += "</tr>\n";
        }
        html + "</tbody>\n</table>"
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("text/html", &self.html());
    }

    /// The heading of a column, on the side of its values. A column without a name has an empty
    /// cell and no heading: a reader who hears the table would hear an empty one before each value.
    fn heading(&self, column: &Column) -> String {
        let name = column.name().as_str();
        // From the last to the first, so that a later call overrules an earlier one.
        let said = self.names.iter().rev().find(|(known, _)| known == name);
        let heading = said.map_or_else(|| of_number(name), |(_, heading)| heading.clone());
        let heading = heading.trim();
        if heading.is_empty() {
            return "<td></td>".to_owned();
        }
        let side = side(column);
        format!(
            "<th scope=\"col\" style=\"text-align:{side}\">{}</th>",
            escape(heading)
        )
    }

    /// The decimals of a column, if they were said: the last time counts.
    fn places(&self, column: &str) -> Option<usize> {
        // From the last to the first, so that a later call overrules an earlier one.
        let said = self
            .decimals
            .iter()
            .rev()
            .find(|said| said.column == column);
        said.map(|said| said.places)
    }
}

/// A column's name as it is shown: polars' pivot names columns by values, such as "0.95".
fn of_number(name: &str) -> String {
    match (name.split_once('.'), name.parse::<f64>()) {
        (Some((_, decimals)), Ok(number)) => decimal(number, decimals.len()),
        _ => name.to_owned(),
    }
}

/// Where the values of a column stand.
fn side(column: &Column) -> &'static str {
    if column.dtype().is_primitive_numeric() {
        "right"
    } else {
        "left"
    }
}

/// A value as text, a float with `places` decimals or by its size.
fn written(value: &AnyValue<'_>, places: Option<usize>) -> String {
    if let AnyValue::Float32(_) | AnyValue::Float64(_) = value {
        let float: f64 = value.extract().unwrap_or(f64::NAN);
        return match places {
            None => by_size(float),
            // Without decimals it is a whole number, and its digits are grouped.
            Some(0) if float.is_finite() => integer(float.round() as i64),
            Some(places) => decimal(float, places),
        };
    }
    if value.is_primitive_numeric() {
        // Whole numbers of every width; 128 bits hold them all.
        return integer(value.extract::<i128>().unwrap_or_default());
    }
    match value {
        AnyValue::Null => "–".to_owned(),
        AnyValue::Boolean(true) => "✓".to_owned(),
        AnyValue::Boolean(false) => "✗".to_owned(),
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::StringOwned(text) => text.to_string(),
        // Any other kind (dates, lists) as polars writes it.
        other => other.to_string(),
    }
}

/// A confusion matrix as a frame: one row per true class, one column per predicted class.
///
/// # Errors
/// If there is not one name per class, or two names are alike.
pub fn confusion(matrix: &ConfusionMatrix, names: &[&str]) -> PolarsResult<DataFrame> {
    // The matrix has a row a true class and a column a predicted one. A frame is made of columns,
    // so each predicted class gives one, named after it.
    let mut columns = vec![Column::new("class".into(), names)];
    for (&name, counts) in names.iter().zip(matrix.counts().columns()) {
        columns.push(Column::new(name.into(), counts.to_vec()));
    }
    DataFrame::new(names.len(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::df;

    #[test]
    fn rows_are_true_classes() {
        let matrix = ConfusionMatrix::new(&[0, 0, 0, 1, 1, 1].map(Some), &[0, 0, 0, 0, 1, 1], 2);
        let frame = confusion(&matrix, &["a", "b"]).unwrap();
        assert_eq!(
            frame,
            df!["class" => ["a", "b"], "a" => [3u32, 0], "b" => [1u32, 2]].unwrap()
        );
    }

    #[test]
    fn a_table_escapes_text_and_aligns_columns() {
        let frame = df![
            "<k>" => [1u32, 20_000],
            "accuracy" => [Some(0.5), None],
            "name" => [Some("a&b"), None],
            "ours" => [true, false],
        ]
        .unwrap();
        let html = table(&frame)
            .decimals("accuracy", 2)
            .caption("a < b")
            .html();
        assert!(
            html.starts_with("<table>\n<caption>a &lt; b</caption>"),
            "{html}"
        );
        for (side, text) in [("right", "&lt;k&gt;"), ("left", "name")] {
            let heading = format!("<th scope=\"col\" style=\"text-align:{side}\">{text}</th>");
            assert!(html.contains(&heading), "{html}");
        }
        for (side, text) in [
            ("right", "20.000"),
            ("right", "0,50"),
            ("right", "–"),
            ("left", "a&amp;b"),
            ("left", "–"),
            ("left", "✓"),
            ("left", "✗"),
        ] {
            let cell = format!("<td style=\"text-align:{side}\">{text}</td>");
            assert!(html.contains(&cell), "{html}");
        }
    }

    #[test]
    fn a_heading_that_is_a_number_is_written_as_numbers_are() {
        let html = table(df!["0.95" => [1i32], "0.95 b" => [2i32]].unwrap()).html();
        assert!(html.contains(">0,95</th>"), "{html}");
        assert!(html.contains(">0.95 b</th>"), "{html}");
    }

    #[test]
    fn a_column_without_a_name_has_no_heading() {
        let html = table(df!["" => ["a"], "b" => [0.25f32]].unwrap()).html();
        assert_eq!(html.matches("<th scope=\"col\"").count(), 1, "{html}");
        assert!(html.contains("<td></td><th "), "{html}");
        let row = "<th scope=\"row\" style=\"text-align:left;font-weight:normal\">a</th>";
        assert!(html.contains(row), "{html}");
        assert!(html.contains(">0,250</td>"), "{html}");
        assert!(!html.contains("<caption>"), "{html}");
    }
}
