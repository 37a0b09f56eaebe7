//! Words of a lesson that make a cell short: the reader's column names, a question to a frame, and
//! charts that several lessons draw alike.

use polars::prelude::{Column, DataFrame, DataType, Expr, Literal, PolarsResult, col, lit};

use crate::lab::classified::Confidence;
use crate::lab::evaluate::ConfusionMatrix;
use crate::report::chart::{ChartError, DataName, Heatmap, LineChart, Series};
use crate::report::frame::{Tabular, frame_of, machines, texts};
use crate::report::table::{Table, table};

/// What the columns of a notebook's tables are called in the reader's language.
///
/// ```
/// use fashion_knn::report::words::Words;
/// use polars::prelude::df;
///
/// let catalan = Words::new(&[("qps", "consultes/s"), ("k", "veïns")]).decimals("recall", 4);
/// let html = catalan.table(&df!["qps" => [9_000.0], "recall" => [0.5]]?, "La velocitat").html();
/// assert!(html.contains(">0,5000</td>"));
/// assert!(html.contains(">consultes/s</th>") && html.contains("<caption>La velocitat"));
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    words: Vec<Word>,
    decimals: Vec<Decimals>,
}

/// How many decimals the floats of a column have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decimals {
    column: String,
    places: usize,
}

/// A column's name, and its heading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    column: String,
    heading: String,
}

impl Words {
    /// Pairs of a column's name and its heading.
    #[must_use]
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        let word = |&(column, heading): &(&str, &str)| Word {
            column: column.to_owned(),
            heading: heading.to_owned(),
        };
        Self {
            words: pairs.iter().map(word).collect(),
            decimals: Vec::new(),
        }
    }

    /// The floats of `column` have `places` decimals in every table ([`Table::decimals`]).
    #[must_use]
    pub fn decimals(mut self, column: &str, places: usize) -> Self {
        self.decimals.push(Decimals {
            column: column.to_owned(),
            places,
        });
        self
    }

    /// The frame as a table with a caption and these headings ([`Table::named`]).
    #[must_use]
    pub fn table(&self, frame: &DataFrame, caption: &str) -> Table {
        let pair = |word: &'_ Word| (word.column.clone(), word.heading.clone());
        let owned: Vec<(String, String)> = self.words.iter().map(pair).collect();
        let pairs: Vec<(&str, &str)> = owned.iter().map(|(a, b)| (&**a, &**b)).collect();
        let mut shown = table(frame).caption(caption).named(&pairs);
        for said in &self.decimals {
            shown = shown.decimals(&said.column, said.places);
        }
        shown
    }
}

/// The rows in which a column has this value: `frame.filter(is("data", "pixels"))`.
pub fn is<V: Literal>(column: &str, value: V) -> Expr {
    col(column).eq(lit(value))
}

/// What a caption says of measured rows: `title`, what their data are called, in the words of
/// `names` (a name that is not there stands as it is), and on which machines they were measured
/// and when ([`machines`]).
///
/// ```
/// use fashion_knn::report::chart::DataName;
/// use fashion_knn::report::words::caption_of;
/// use polars::prelude::df;
///
/// let rows = df!["data" => ["sift-1m", "sift-1m", "else"], "cpu" => ["EPYC", "EPYC", "EPYC"]]?;
/// let names = [DataName { key: "sift-1m", name: "SIFT1M" }];
/// assert_eq!(caption_of("A million", &rows, &names)?, "A million: SIFT1M · else · EPYC");
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
///
/// # Errors
/// If the column `data` is missing, or one of the machine has no text.
pub fn caption_of(title: &str, rows: &DataFrame, names: &[DataName<'_>]) -> PolarsResult<String> {
    let mut parts: Vec<String> = Vec::new();
    for key in texts(rows, "data")? {
        let known = names.iter().find(|data| data.key == key);
        let said = known.map_or(key.as_str(), |data| data.name);
        if !parts.iter().any(|part| part == said) {
            parts.push(said.to_owned());
        }
    }
    let machines = machines(rows)?;
    if !machines.is_empty() {
        parts.push(machines);
    }
    Ok(format!("{title}: {}", parts.join(" · ")))
}

/// The whole numbers of a column as text: for names such as "n_trees = 50".
pub fn whole(column: &str) -> Expr {
    // A parameter is a float in the record, since some are no whole numbers: as text it would be
    // "50.0".
    col(column).cast(DataType::Int64).cast(DataType::String)
}

/// Results of several kinds below each other: a frame of all rows, with the column `name` that says
/// of which kind a row is.
///
/// ```
/// use fashion_knn::lab::evaluate::ClassScores;
/// use fashion_knn::report::words::stacked;
///
/// let score = |f1| ClassScores { precision: f1, recall: f1, f1, support: 1 };
/// let frame = stacked("space", &[("pixels", &[score(0.8)]), ("features", &[score(0.9)])])?;
/// assert_eq!(frame.column("space")?.str()?.get(1), Some("features"));
/// assert_eq!(frame.height(), 2);
/// # Ok::<(), polars::prelude::PolarsError>(())
/// ```
///
/// # Errors
/// If the type has a column of that name, or the kinds have columns of different types.
pub fn stacked<T: Tabular>(name: &str, kinds: &[(&str, &[T])]) -> PolarsResult<DataFrame> {
    let mut all = DataFrame::empty();
    for &(kind, rows) in kinds {
        let mut frame = frame_of(rows)?;
        frame.insert_column(0, Column::new(name.into(), vec![kind; rows.len()]))?;
        // An empty frame has no columns, so nothing can be put below it.
        all = if all.width() == 0 {
            frame
        } else {
            all.vstack(&frame)?
        };
    }
    Ok(all)
}

/// The bins of several classifiers below each other, with their `name`: for a reliability diagram.
///
/// # Errors
/// Never for this data: all have the same columns. The type is polars'.
pub fn bins_of(all: &[Confidence]) -> PolarsResult<DataFrame> {
    let bins = all.iter().map(|sure| (&*sure.name, &*sure.bins));
    stacked("name", &bins.collect::<Vec<_>>())
}

/// The same for the accuracy of their surest answers.
///
/// # Errors
/// As [`bins_of`].
pub fn coverage_of(all: &[Confidence]) -> PolarsResult<DataFrame> {
    let curves = all.iter().map(|sure| (&*sure.name, &*sure.curve));
    stacked("name", &curves.collect::<Vec<_>>())
}

/// The column `y` against recall, a curve an index (`name`): recall on the axis on which .9, .99
/// and .999 stand evenly, `y` logarithmic. Where the frame has the columns `slowest` and
/// `fastest`, their spread is drawn.
///
/// # Errors
/// If a column is missing or holds no numbers.
pub fn recall_chart(
    title: &str,
    frame: &DataFrame,
    y: &str,
    y_label: &str,
) -> Result<LineChart, ChartError> {
    let chart = LineChart::new(title, "recall", y_label)
        .log_y()
        .recall_axis();
    let chart = chart.curves(frame, "name", "recall", y)?;
    if frame.column("slowest").is_ok() && frame.column("fastest").is_ok() {
        return chart.errors(frame, "name", "recall", "slowest", "fastest");
    }
    Ok(chart)
}

/// The column `y` against `x`, both logarithmic, a curve an index (`name`): a straight line is a
/// power law.
///
/// # Errors
/// If a column is missing or holds no numbers.
pub fn growth_chart(
    title: &str,
    frame: &DataFrame,
    x: &str,
    y: &str,
    y_label: &str,
) -> Result<LineChart, ChartError> {
    let chart = LineChart::new(title, x, y_label).log_x().log_y();
    chart.curves(frame, "name", x, y)
}

/// The column `y` of the epochs of a training (`frame_of(&trained.history)`), and dashed the same
/// on the images held out. `names` are those of the x axis and of the two curves.
///
/// # Errors
/// If there is no such column, or none of the name `validation_` and `y`.
pub fn learning_chart(
    title: &str,
    epochs: &DataFrame,
    y: &str,
    names: [&str; 3],
) -> Result<LineChart, ChartError> {
    let [x_label, learned, held_out] = names;
    let validation = Series::of(held_out, epochs, "epoch", &format!("validation_{y}"))?;
    Ok(LineChart::new(title, x_label, "")
        .with(Series::of(learned, epochs, "epoch", y)?)
        .with(validation.dashed())
        .size(500, 340))
}

/// A confusion matrix as a heat map of half a page's width. `labels` name its rows and columns.
#[must_use]
pub fn confusion_map(
    title: &str,
    matrix: &ConfusionMatrix,
    classes: &[&str],
    labels: [&str; 2],
) -> Heatmap {
    let [rows, columns] = labels;
    Heatmap::new(title, classes, matrix.counts())
        .labels(rows, columns)
        .size(580, 440)
}
