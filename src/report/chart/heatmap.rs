//! [`Heatmap`]: a matrix of counts, such as a confusion matrix, with the counts in the cells.

use ndarray::Array2;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, ChartError, INK, PALE_INK, PALETTE};
use super::{drawn, longest, text_style, titled, write_text};
use crate::report::figure::Figure;
use crate::report::numbers::integer;

/// A square matrix of counts.
///
/// The diagonal and the rest have a colour and a scale of their own: in a confusion matrix the
/// errors are few, and 100 of them in one cell are many.
///
/// # Examples
/// ```
/// use fashion_knn::report::chart::Heatmap;
///
/// let counts = ndarray::array![[950, 50], [30, 970]];
/// let chart = Heatmap::new("Confusion", &["shirt", "coat"], &counts)
///     .labels("true class ↓", "predicted class →");
/// assert!(chart.figure()?.svg().contains("950"));
/// # Ok::<(), fashion_knn::report::chart::ChartError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    title: String,
    row_label: String,
    column_label: String,
    names: Vec<String>,
    counts: Array2<u32>,
    size: (u32, u32),
}

/// Where the cells are, in pixels: `left` and `top` of the first, `width` and `height` of each.
#[derive(Debug, Clone, Copy)]
struct Grid {
    left: i32,
    top: i32,
    width: i32,
    height: i32,
}

impl Grid {
    /// The left edge of a column.
    fn x(&self, column: usize) -> i32 {
        self.left + self.width * column as i32
    }

    /// The upper edge of a row.
    fn y(&self, row: usize) -> i32 {
        self.top + self.height * row as i32
    }
}

impl Heatmap {
    /// A matrix whose rows and columns have `names`, of 720 × 560 pixels.
    #[must_use]
    pub fn new(title: impl Into<String>, names: &[&str], counts: &Array2<u32>) -> Self {
        Self {
            title: title.into(),
            row_label: String::new(),
            column_label: String::new(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            counts: counts.clone(),
            size: (720, 560),
        }
    }

    /// Says what the rows and the columns are.
    #[must_use]
    pub fn labels(mut self, rows: impl Into<String>, columns: impl Into<String>) -> Self {
        self.row_label = rows.into();
        self.column_label = columns.into();
        self
    }

    /// Sets the width and the height in pixels.
    #[must_use]
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// The matrix as a figure.
    ///
    /// # Errors
    /// If there is no cell, or the backend fails.
    pub fn figure(&self) -> Result<Figure, ChartError> {
        let figure = drawn(self.size, |area| self.draw(area))?;
        Ok(figure.described(&self.title, self.description()))
    }

    /// What the rows and columns are, and the counts of each row.
    fn description(&self) -> String {
        let mut lines = vec![format!("{} {}", self.row_label, self.column_label)];
        for (name, counts) in self.names.iter().zip(self.counts.rows()) {
            let counts: Vec<String> = counts.iter().map(|&count| integer(count)).collect();
            lines.push(format!("{name}: {}", counts.join(" ")));
        }
        lines.join("\n")
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        let (rows, columns) = self.counts.dim();
        if rows == 0 || columns == 0 {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        let body = titled(area, &self.title)?;
        let (width, height) = body.dim_in_pixel();
        // The names of the rows stand on the left, 8 pixels a character. Above are 44 pixels: a
        // line for what the columns are, and one for their names.
        let left = 18 + 8 * longest(self.names.iter().map(String::as_str));
        let top = 44;
        // Whole pixels a cell, so that all cells are alike. What the division leaves, less than a
        // pixel a cell, stays free at the right and below.
        let grid = Grid {
            left,
            top,
            width: (width as i32 - left - 10) / columns as i32,
            height: (height as i32 - top - 8) / rows as i32,
        };
        self.draw_labels(&body, grid)?;
        self.draw_cells(&body, grid)?;
        self.draw_names(&body, grid)
    }

    /// What the columns and the rows are, in the upper left corner.
    fn draw_labels<DB: DrawingBackend>(
        &self,
        body: &Area<DB>,
        grid: Grid,
    ) -> Result<(), ChartError> {
        let style = text_style(12, PALE_INK, HPos::Left, VPos::Top);
        write_text(body, &self.column_label, (grid.left, 2), &style)?;
        write_text(body, &self.row_label, (8, grid.top - 22), &style)?;
        Ok(())
    }

    /// The cells, each with its count. A cell's shade is its share of the largest count of its
    /// kind: on the diagonal, or off it.
    fn draw_cells<DB: DrawingBackend>(
        &self,
        body: &Area<DB>,
        grid: Grid,
    ) -> Result<(), ChartError> {
        // The largest count of each kind. It begins at 1, so that a matrix without errors divides
        // by 1 and not by 0.
        let (mut most_right, mut most_wrong) = (1, 1);
        for ((row, column), &count) in self.counts.indexed_iter() {
            let most = if row == column {
                &mut most_right
            } else {
                &mut most_wrong
            };
            *most = count.max(*most);
        }
        let style = text_style(12, INK, HPos::Center, VPos::Center);
        for ((row, column), &count) in self.counts.indexed_iter() {
            let (x, y) = (grid.x(column), grid.y(row));
            let (most, color) = if row == column {
                (most_right, PALETTE[0])
            } else {
                (most_wrong, PALETTE[1])
            };
            let share = f64::from(count) / f64::from(most);
            // One pixel of paper around each cell. The colour covers the paper to 5 % for a count
            // of 0, so that every cell is seen, and to 65 % for the largest, so that the dark text
            // can be read.
            let corners = [(x + 1, y + 1), (x + grid.width - 1, y + grid.height - 1)];
            let shade = color.mix(0.05 + 0.6 * share).filled();
            body.draw(&Rectangle::new(corners, shade))?;
            let middle = (x + grid.width / 2, y + grid.height / 2);
            write_text(body, &integer(count), middle, &style)?;
        }
        Ok(())
    }

    /// The names of the rows in full, those of the columns shortened.
    fn draw_names<DB: DrawingBackend>(
        &self,
        body: &Area<DB>,
        grid: Grid,
    ) -> Result<(), ChartError> {
        let row_style = text_style(12, INK, HPos::Right, VPos::Center);
        let column_style = text_style(11, INK, HPos::Center, VPos::Center);
        for (at, name) in self.names.iter().enumerate() {
            let row = (grid.left - 8, grid.y(at) + grid.height / 2);
            write_text(body, name, row, &row_style)?;
            // Columns are narrow: the first word, 8 characters of it at most. The same name stands
            // in full beside its row. ("T-shirt/top" becomes "T-shirt".)
            let first_word = name.split(['/', ' ']).next().unwrap_or(name);
            let short: String = first_word.chars().take(8).collect();
            let column = (grid.x(at) + grid.width / 2, grid.top - 12);
            write_text(body, &short, column, &column_style)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_written() {
        let counts = ndarray::array![[950, 12], [34, 12_345]];
        let chart = Heatmap::new("t", &["one", "two"], &counts).labels("true", "predicted");
        let svg = chart.size(400, 300).figure().unwrap().svg();
        for text in ["950", "12", "34", "12.345", "true", "predicted", "two"] {
            assert!(svg.lines().any(|line| line.trim() == text), "{text}");
        }
        let words = "<desc>true predicted\none: 950 12\ntwo: 34 12.345</desc>";
        assert!(svg.contains(words), "{svg}");
    }
}
