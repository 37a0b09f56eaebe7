//! Results as polars frames, and a frame as the HTML table of a notebook.

use polars::prelude::{AnyValue, Column, DataFrame, PolarsResult, df};

use super::figure::{emit, escape};
use super::numbers::{decimal, integer};
use crate::lab::evaluate::{ClassScores, ConfusionMatrix};
#[cfg(feature = "net")]
use crate::net::Epoch;

/// How many decimals a float has unless [`Table::decimals`] says otherwise.
const DECIMALS: usize = 3;

/// A table of results: a [`DataFrame`] and how its numbers are written.
///
/// # Examples
/// ```
/// use fashion_knn::report::table::table;
/// use polars::prelude::df;
///
/// let frame = df!["index" => ["Annoy", "HNSW"], "recall" => [0.95, 0.991]]?;
/// let html = table(&frame).decimals("recall", 2).html();
/// assert!(html.contains("<th>recall</th>"));
/// assert!(html.contains(">0,95</td>"));
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    frame: DataFrame,
    decimals: Vec<Decimals>,
}

/// How many decimals the floats of a column have.
#[derive(Debug, Clone)]
struct Decimals {
    column: String,
    places: usize,
}

/// A table out of a frame. Floats have three decimals unless [`Table::decimals`] says otherwise.
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
        self.decimals.push(Decimals {
            column: column.to_owned(),
            places,
        });
        self
    }

    /// The table as HTML: numbers to the right, all else to the left.
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
                // `row` is below the height, so `get` does not fail and the fallback is not used. A
                // missing value is a `Null` of the frame.
                let value = column.get(row).unwrap_or(AnyValue::Null);
                let text = written(&value, self.places(column.name()));
                // Each cell by its own value: a missing number in a column of numbers is a dash on
                // the left.
                let side = if is_number(&value) { "right" } else { "left" };
                html += &format!("<td style=\"text-align:{side}\">{}</td>", escape(&text));
            }
            html += "</tr>\n";
        }
        html + "</tbody>\n</table>"
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("text/html", &self.html());
    }

    /// The decimals of a column: the last that was said of it counts.
    fn places(&self, column: &str) -> usize {
        // From the last to the first, so that a later call overrules an earlier one.
        let said = self
            .decimals
            .iter()
            .rev()
            .find(|said| said.column == column);
        said.map_or(DECIMALS, |said| said.places)
    }
}

/// A value as text, a float with `places` decimals.
fn written(value: &AnyValue<'_>, places: usize) -> String {
    match value {
        AnyValue::Null => "–".to_owned(),
        AnyValue::Float32(value) => decimal(f64::from(*value), places),
        AnyValue::Float64(value) => decimal(*value, places),
        AnyValue::UInt8(value) => integer(*value),
        AnyValue::UInt32(value) => integer(*value),
        AnyValue::UInt64(value) => integer(*value),
        AnyValue::Int32(value) => integer(*value),
        AnyValue::Int64(value) => integer(*value),
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::StringOwned(text) => text.to_string(),
        // Any other kind (dates, lists, integers of other sizes) as polars writes it, and on the
        // left.
        other => other.to_string(),
    }
}

/// Whether a value is of the kinds of number that [`written`] knows.
fn is_number(value: &AnyValue<'_>) -> bool {
    matches!(
        value,
        AnyValue::Float32(_)
            | AnyValue::Float64(_)
            | AnyValue::UInt8(_)
            | AnyValue::UInt32(_)
            | AnyValue::UInt64(_)
            | AnyValue::Int32(_)
            | AnyValue::Int64(_)
    )
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

/// The scores of each class as a frame: one row per class.
///
/// # Errors
/// If there is not one name per class.
pub fn per_class(scores: &[ClassScores], names: &[&str]) -> PolarsResult<DataFrame> {
    let column = |score: fn(&ClassScores) -> f64| scores.iter().map(score).collect::<Vec<_>>();
    df![
        "class" => names,
        "precision" => column(|scores| scores.precision),
        "recall" => column(|scores| scores.recall),
        "f1" => column(|scores| scores.f1),
        "support" => scores.iter().map(|scores| scores.support).collect::<Vec<_>>(),
    ]
}

/// The epochs of a training as a frame: one row per epoch.
///
/// # Errors
/// Never for this data: the columns have the same length and different names. The type is polars'.
#[cfg(feature = "net")]
pub fn epochs(history: &[Epoch]) -> PolarsResult<DataFrame> {
    let column = |figure: fn(&Epoch) -> f64| history.iter().map(figure).collect::<Vec<_>>();
    df![
        "epoch" => history.iter().map(|epoch| epoch.epoch as u32).collect::<Vec<_>>(),
        "learning rate" => column(|epoch| f64::from(epoch.learning_rate)),
        "loss" => column(|epoch| epoch.loss),
        "accuracy" => column(|epoch| epoch.train_accuracy),
        "validation loss" => column(|epoch| epoch.validation_loss),
        "validation accuracy" => column(|epoch| epoch.validation_accuracy),
        "seconds" => column(|epoch| epoch.seconds),
        "images/s" => column(|epoch| epoch.images_per_s),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_true_classes() {
        let matrix = ConfusionMatrix::new(&[0, 0, 0, 1, 1, 1].map(Some), &[0, 0, 0, 0, 1, 1], 2);
        let frame = confusion(&matrix, &["a", "b"]).unwrap();
        assert_eq!(
            frame,
            df!["class" => ["a", "b"], "a" => [3u32, 0], "b" => [1u32, 2]].unwrap()
        );
        let frame = per_class(&matrix.class_scores(), &["a", "b"]).unwrap();
        assert_eq!(
            frame.column("precision").unwrap().f64().unwrap().get(0),
            Some(1.0)
        );
        assert_eq!(
            frame.column("recall").unwrap().f64().unwrap().get(0),
            Some(0.75)
        );
        assert!(per_class(&matrix.class_scores(), &["a"]).is_err());
    }

    #[test]
    fn a_table_escapes_text_and_aligns_numbers() {
        let frame =
            df!["<k>" => [1u32, 20_000], "accuracy" => [0.5, 0.25], "name" => [Some("a&b"), None]]
                .unwrap();
        let html = table(&frame).decimals("accuracy", 2).html();
        assert!(html.contains("<th>&lt;k&gt;</th>"), "{html}");
        for (side, text) in [
            ("right", "20.000"),
            ("right", "0,25"),
            ("left", "a&amp;b"),
            ("left", "–"),
        ] {
            let cell = format!("<td style=\"text-align:{side}\">{text}</td>");
            assert!(html.contains(&cell), "{html}");
        }
    }
}
