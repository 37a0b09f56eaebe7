//! The first look at a point: in which of 16 cells each of its leading components lies.
//!
//! ```text
//!              cell 0    1     2     3   ...            14    cell 15
//!           ---------+-----+-----+-----+--   ...   --+-----+----------
//!                  edge  edge  edge                      edge
//! ```
//!
//! A point is no nearer to the query than its cells are. Half a byte a component says less than the
//! 16 bits of a head, but four times as many components are read in the same time:
//!
//! ```text
//! ‖q − x‖² ≥ Σ (distance of qᵢ to the cell of xᵢ)²
//! ```
//!
//! For a query each term is a table of 16 numbers. They are counted in parts of the limit, 255 to
//! the whole and rounded down, so that [`cells`](crate::simd::cells) adds them in bytes. A sum of
//! 255 is beyond the limit.
//!
//! # Why no neighbour is lost
//! Edges are integers in the unit of the codes, and a component is compared with them as it was
//! computed, so that its cell holds it. What the computed components of a point can be off by,
//! together, is in [`Cells::error`], a length. That of the query comes on top, and both are added
//! to the limit, by the triangle inequality. Tables round down, so that the sum is not above that
//! of the terms.
//!
//! The cells are those of Weber, Schek and Blott (VLDB 1998); tables in registers are André,
//! Kermarrec and Le Scouarnec's (*Quick ADC*, ICMR 2017).

use ndarray::ArrayView1;
use rayon::prelude::*;

use super::layout::{RADIUS, Rotated, STRIPE, Stripe};
use super::query_code::FARTHEST;
use crate::index::parts::{PartError, elements, expect, saved};
use crate::simd;
use crate::simd::cells::{CELLS, CellLine, LINE_COMPONENTS, Tables};
use crate::simd::va_codes::BLOCK;

/// The most components that have cells.
const MOST: usize = 128;
/// Cells hold so many components that these leave out a tenth of the variance. More of them exclude
/// few further points.
const VARIANCE: f64 = 0.9;
/// With fewer components than this, heads do as well.
const FEWEST: usize = 8;
/// The share of a vector's bytes that its cells may take.
const ROOM: f64 = 3.0 / 16.0;
/// Rows by which the edges are chosen.
const SAMPLE: usize = 4_096;
/// The outer edges leave out one of so many rows on either side: of normal numbers they are then
/// 2.7 standard deviations from the mean, and the error of sixteen equal steps is least (Max,
/// *Quantizing for Minimum Distortion*, 1960).
const OUTSIDE_ONE_IN: usize = 300;

/// The cells of all points.
#[derive(Debug)]
pub(super) struct Cells {
    /// The lower edge of cell 0, were it not open, for each component, in units of the codes.
    first: Vec<i32>,
    /// The width of the cells of each component: at least 1.
    width: Vec<i32>,
    /// How far the components of a point can be off, together: a length in units of the codes.
    pub error: f64,
    /// Block by block; a block has a line for each four components.
    pub lines: Vec<CellLine>,
}

elements!(CellLine as [u8; 2 * BLOCK]);

saved!(Cells {
    first,
    width,
    error,
    lines
});

impl Cells {
    /// Refuses what are not the cells of so many blocks of vectors of dimension `dim`.
    ///
    /// # Errors
    /// If they are not.
    pub(super) fn check(&self, blocks: usize, dim: usize) -> Result<(), PartError> {
        let components = self.components();
        let known = (1..=dim.min(MOST)).contains(&components) && self.width.len() == components;
        expect(known, "cells", "edges for components that there are")?;
        // What the tables compute with these is far from overflow.
        let far = 4 * RADIUS as i32;
        let short = |values: &[i32], least| values.iter().all(|v| (least..=far).contains(v));
        expect(
            short(&self.first, -far) && short(&self.width, 1),
            "cells",
            "edges within the radius",
        )?;
        expect(
            self.lines.len() == blocks * self.lines_of_a_block(),
            "cells.lines",
            "some for each block",
        )?;
        let small = (0.0..=FARTHEST).contains(&self.error);
        expect(small, "cells.error", "a small one")
    }

    /// The cells of all points, or `None` if they would hold too little. `bytes` is the size of a
    /// vector.
    pub(super) fn new(rotated: &Rotated<'_>, bytes: usize) -> Option<Self> {
        let components = components(rotated, bytes);
        if components < FEWEST {
            return None;
        }
        let scale = rotated.scale();
        let (first, width) = edges(rotated, components, scale);
        let mut cells = Self {
            first,
            width,
            // No point is longer than the radius.
            error: rotated.relative_error(components) * RADIUS,
            lines: Vec::new(),
        };
        cells.fill(rotated, scale);
        Some(cells)
    }

    /// Finds the cells of all points.
    fn fill(&mut self, rotated: &Rotated<'_>, scale: f64) {
        let lines = self.lines_of_a_block();
        let blocks = rotated.order.len().div_ceil(BLOCK);
        let mut all = vec![CellLine::default(); blocks * lines];
        simd::in_huge_pages(&all);
        let fill = |(stripe, all): (usize, &mut [CellLine])| {
            let Stripe { components, .. } = rotated.stripe(stripe, self.components());
            for (point, values) in components.rows().into_iter().enumerate() {
                let of_block = &mut all[point / BLOCK * lines..][..lines];
                for (component, value) in values.iter().enumerate() {
                    let cell = self.cell(component, value * scale);
                    let line = &mut of_block[component / LINE_COMPONENTS];
                    line.set(point % BLOCK, component % LINE_COMPONENTS, cell);
                }
            }
        };
        let stripes = all.par_chunks_mut(STRIPE * lines);
        stripes.enumerate().for_each(fill);
        self.lines = all;
    }

    /// The components that have cells.
    pub(super) fn components(&self) -> usize {
        self.first.len()
    }

    pub(super) fn lines_of_a_block(&self) -> usize {
        self.components().div_ceil(LINE_COMPONENTS)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.first) + size_of_val(&*self.width) + size_of_val(&*self.lines)
    }

    /// The lower edge of a cell, the upper one of the cell before.
    fn edge(&self, component: usize, cell: usize) -> f64 {
        // Both are whole numbers of few bits, so that this is exact.
        f64::from(self.first[component]) + cell as f64 * f64::from(self.width[component])
    }

    /// The cell of a component: as many edges as are not above it. A value that is no number lies
    /// in cell 0, whose bound may then be wrong; but such a base has no file.
    fn cell(&self, component: usize, value: f64) -> u8 {
        let below = |cell: &usize| self.edge(component, *cell) <= value;
        (1..CELLS).filter(below).count() as u8
    }

    /// Writes the tables of a query with these leading components. `limit` is the greatest squared
    /// distance of components at which a point can still be a neighbour. Returns what a unit of the
    /// tables is of it.
    pub(super) fn tables(&self, query: &[f32], limit: f64, tables: &mut Vec<Tables>) -> f64 {
        tables.clear();
        tables.resize(self.lines_of_a_block(), Tables::default());
        // 255 units are a little more than the limit: that covers the rounding of the quotients. A
        // limit of zero would divide by zero.
        let unit = (limit * (1.0 + 1e-9) / 255.0).max(f64::MIN_POSITIVE);
        for (component, &value) in query.iter().enumerate() {
            let value = f64::from(value);
            let table = std::array::from_fn(|cell| {
                // The outer cells are open.
                let below = match cell {
                    0 => 0.0,
                    _ => self.edge(component, cell) - value,
                };
                let above = match cell + 1 {
                    CELLS => 0.0,
                    next => value - self.edge(component, next),
                };
                let outside = below.max(above).max(0.0);
                // The cast rounds down, and saturates.
                (outside * outside / unit) as u8
            });
            tables[component / LINE_COMPONENTS].set(component % LINE_COMPONENTS, &table);
        }
        unit
    }
}

/// The most components that cells of vectors of so many bytes may have.
pub(super) fn most(bytes: usize) -> usize {
    // Half a byte each.
    MOST.min((bytes as f64 * ROOM) as usize * 2)
}

/// How many leading components get cells.
fn components(rotated: &Rotated<'_>, bytes: usize) -> usize {
    let most = rotated.extents.len().min(most(bytes));
    let all: f64 = rotated.squared_lengths.iter().sum();
    let mut left = all;
    let mut components = 0;
    while components < most && left > (1.0 - VARIANCE) * all {
        left -= rotated.extents[components].squares;
        components += 1;
    }
    // A line has room for four.
    components.next_multiple_of(LINE_COMPONENTS).min(most)
}

/// The lower edge of cell 0 and the width of the cells of each component, whole numbers.
fn edges(rotated: &Rotated<'_>, components: usize, scale: f64) -> (Vec<i32>, Vec<i32>) {
    let rows = rotated.order.len();
    let sample: Vec<usize> = (0..rows).step_by(rows.div_ceil(SAMPLE)).collect();
    let sample = rotated.of_rows(&sample, components);
    let edges = |column: ArrayView1<'_, f64>| {
        let mut values: Vec<f64> = column.iter().map(|value| value * scale).collect();
        values.sort_unstable_by(f64::total_cmp);
        let outside = values.len() / OUTSIDE_ONE_IN;
        let (low, high) = (values[outside], values[values.len() - 1 - outside]);
        let width = ((high - low) / CELLS as f64).ceil().max(1.0);
        (low.floor() as i32, width as i32)
    };
    sample.columns().into_iter().map(edges).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shapes;
    use crate::vectors::Vectors;

    fn rotated(base: &Vectors) -> Rotated<'_> {
        Rotated::new(base, base.dim().min(MOST), 1).unwrap()
    }

    #[test]
    fn sums_are_below_the_distance() {
        for name in ["uniform", "noise_64", "sizes"] {
            let shape = shapes::find(name).unwrap();
            let base = shape.sample(600, 1, 24, 1).base;
            let rotated = rotated(&base);
            let cells = Cells::new(&rotated, 4 * base.dim()).expect("enough components");
            let scaled = |row: usize| {
                let values = rotated.of_rows(&[row], cells.components());
                (values * rotated.scale()).into_iter().collect::<Vec<f64>>()
            };
            for query in [0, 7, 599] {
                let values: Vec<f32> = scaled(query).iter().map(|&v| v as f32).collect();
                let (mut tables, limit) = (Vec::new(), 1e7);
                let unit = cells.tables(&values, limit, &mut tables);
                for row in 0..base.len() {
                    let point = scaled(row);
                    let terms = point.iter().enumerate().map(|(component, &value)| {
                        let cell = cells.cell(component, value);
                        let tables = &tables[component / LINE_COMPONENTS];
                        f64::from(tables.number(component % LINE_COMPONENTS, cell)) * unit
                    });
                    let pairs = point.iter().zip(&values);
                    let squares = pairs.map(|(a, &b)| (a - f64::from(b)).powi(2));
                    let (bound, distance) = (terms.sum::<f64>(), squares.sum::<f64>());
                    assert!(
                        bound <= distance * (1.0 + 1e-8),
                        "{name}: {bound}, {distance}"
                    );
                    // And not far below: what is far beyond the limit is told.
                    if distance > 6.0 * limit {
                        assert!(bound >= limit, "{name}: {bound}, {distance}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_lies_within_the_edges_of_its_cell() {
        let cells = Cells {
            first: vec![-40],
            width: vec![5],
            error: 0.0,
            lines: Vec::new(),
        };
        for value in [-1e30, -36.0, -35.0, -34.9, 0.0, 34.99, 35.0, 1e30] {
            let cell = usize::from(cells.cell(0, value));
            assert!(cell == 0 || cells.edge(0, cell) <= value, "{value}");
            assert!(
                cell == CELLS - 1 || value < cells.edge(0, cell + 1),
                "{value}"
            );
        }
    }
}
