//! [`Heatmap`]: a matrix of counts, such as a confusion matrix, with the counts written in the cells.

use ndarray::Array2;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, ChartError, INK, PALE_INK, PALETTE, text_style, titled, write_text};
use crate::report::notebook::integer;

/// A square matrix of counts. Off the diagonal, where errors are, shades are deeper: there 100 is a lot.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    title: String,
    row_label: String,
    column_label: String,
    names: Vec<String>,
    counts: Array2<u32>,
}

impl Heatmap {
    /// A matrix whose rows and columns have `names`.
    #[must_use]
    pub fn new(title: impl Into<String>, names: &[&str], counts: &Array2<u32>) -> Self {
        Self {
            title: title.into(),
            row_label: String::new(),
            column_label: String::new(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            counts: counts.clone(),
        }
    }

    /// Says what the rows and the columns are.
    #[must_use]
    pub fn labels(mut self, rows: impl Into<String>, columns: impl Into<String>) -> Self {
        (self.row_label, self.column_label) = (rows.into(), columns.into());
        self
    }

    /// Draws the matrix over the whole area.
    ///
    /// # Errors
    /// If there is no cell, or the backend fails.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        let (rows, columns) = self.counts.dim();
        if rows == 0 || columns == 0 {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        let body = titled(area, &self.title)?;
        let (width, height) = body.dim_in_pixel();
        let left = 18
            + 8 * self
                .names
                .iter()
                .map(|name| name.chars().count())
                .max()
                .unwrap_or(0) as i32;
        let top = 44;
        let (step_x, step_y) = (
            (width as i32 - left - 10) / columns as i32,
            (height as i32 - top - 8) / rows as i32,
        );
        write_text(
            &body,
            &self.column_label,
            (left, 2),
            &text_style(12, PALE_INK, HPos::Left, VPos::Top),
        )?;
        write_text(
            &body,
            &self.row_label,
            (8, top - 22),
            &text_style(12, PALE_INK, HPos::Left, VPos::Top),
        )?;
        let largest = |diagonal: bool| {
            let cells = self
                .counts
                .indexed_iter()
                .filter(move |((row, column), _)| (row == column) == diagonal);
            cells.map(|(_, &count)| count).max().unwrap_or(0).max(1)
        };
        let (most_right, most_wrong) = (largest(true), largest(false));
        for ((row, column), &count) in self.counts.indexed_iter() {
            let (x, y) = (left + step_x * column as i32, top + step_y * row as i32);
            let (most, color) = if row == column {
                (most_right, PALETTE[0])
            } else {
                (most_wrong, PALETTE[1])
            };
            let share = f64::from(count) / f64::from(most);
            let corners = [(x + 1, y + 1), (x + step_x - 1, y + step_y - 1)];
            body.draw(&Rectangle::new(
                corners,
                color.mix(0.05 + 0.6 * share).filled(),
            ))?;
            let middle = (x + step_x / 2, y + step_y / 2);
            write_text(
                &body,
                &integer(count),
                middle,
                &text_style(12, INK, HPos::Center, VPos::Center),
            )?;
        }
        for (at, name) in self.names.iter().enumerate() {
            let at = at as i32;
            let row = (left - 8, top + step_y * at + step_y / 2);
            write_text(
                &body,
                name,
                row,
                &text_style(12, INK, HPos::Right, VPos::Center),
            )?;
            let column = (left + step_x * at + step_x / 2, top - 12);
            // Columns are narrow: the first word is enough beside the rows' full names.
            let short: String = name
                .split(['/', ' '])
                .next()
                .unwrap_or(name)
                .chars()
                .take(8)
                .collect();
            write_text(
                &body,
                &short,
                column,
                &text_style(11, INK, HPos::Center, VPos::Center),
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
    fn every_count_is_written() {
        let counts = ndarray::array![[950, 12], [34, 12_345]];
        let chart = Heatmap::new("t", &["u", "dos"], &counts).labels("certa", "predita");
        let figure = svg((400, 300), |area| chart.draw(area)).unwrap();
        for text in ["950", "12", "34", "12.345", "certa", "predita", "dos"] {
            assert!(
                figure.svg().lines().any(|line| line.trim() == text),
                "{text}"
            );
        }
    }
}
