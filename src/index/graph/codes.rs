//! From vectors to the short codes by which a graph is built and walked.
//!
//! A walk spends its time on distances to vectors that it discards at once, and most of that time
//! on fetching them from memory. So it compares codes of a few cache lines, which say about as
//! much:
//!
//! ```text
//!                 784 values of a row
//!   PCA               |
//!                 the leading coordinates                               rest: the squared length
//!                 wide: the first 64      narrow: the next 120          of what they leave out
//!   rotation          |                       |                             |
//!                 of about equal size     of about equal size               |
//!   rounding          |                       |                             |
//!                 64 bytes of 7 bits      60 bytes of twice 4 bits      4 bytes, the tail
//! ```
//!
//! (A code of two lines, one of each kind.) How many lines of each kind suit a base is measured in
//! [`code_plan`](super::code_plan): where a few directions have nearly all the variance, seven bits
//! for each say most; where all directions count alike, four bits for twice as many do.
//!
//! The rotation is there for the rounding: one step for components of different size would waste
//! bits on the small ones. Any rotation keeps distances, and a random one evens the sizes out (Gao
//! and Long, ADSampling 2023, RaBitQ 2024). Each kind of lines has its own rotation and step.
//!
//! The squared distance of two vectors is estimated by that of their codes, plus both rests, less
//! what was rounded off of each: what is left out of one is nearly at right angles to what is left
//! out of the other, and what was rounded off has nothing to do with the direction of a query.
//!
//! Two codes of near vectors are a different matter: what was rounded off of both has much to do
//! with each other. So while a graph is built, and codes are compared with codes, no more is taken
//! off of each than its rest.
//!
//! What they are bad at: all rows share the steps. Where clusters are far apart, or rows of all
//! sizes, few steps are left for the differences of near rows.

use nalgebra::DMatrix;
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::index::parts::{PartError, elements, expect, saved};
use crate::index::support::projection::{Projected, ProjectedQuery, Projection, RowMap};
use crate::math::pca::Pca;
use crate::simd::graph_codes::{self, CodeLine, Format, Query};
use crate::simd::lower_bound::dot_f32;
use crate::vectors::Vectors;

/// One wide coordinate in so many may lie outside the range of the codes. A range that held every
/// outlier would leave few steps for all others.
const WIDE_OUTSIDE_ONE_IN: usize = 10_000;
/// The same of a narrow coordinate: 2.7 standard deviations, where what is cut off and what is
/// rounded off, to sixteen steps, are least together (Max, *Quantizing for Minimum Distortion*,
/// 1960).
const NARROW_OUTSIDE_ONE_IN: usize = 150;
/// The weight of a wide line, and of a narrow one where there are no wide ones.
const WEIGHT: i16 = 64;
const NARROW_WEIGHT: i16 = 8;
/// Most that a vector may add to all of its distances, far below the overflow of 31 bits.
const LARGEST_OWN: f32 = 5e8;

/// A query is moved if its squared length is more than so many times that of its code: if what is
/// cut off is as long as what is left.
const CUT_OFF: f32 = 2.0;

/// How many lines of which kind a code has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub lines: usize,
    /// Of these, lines of seven-bit coordinates.
    pub wide: usize,
}

impl Shape {
    /// The format of this shape whose steps are not chosen yet.
    fn format(self) -> Format {
        Format {
            lines: self.lines,
            wide: self.wide,
            wide_weight: WEIGHT,
            narrow_weight: NARROW_WEIGHT,
        }
    }

    /// Coordinates that a code has room for.
    pub fn coordinates(self) -> usize {
        let format = self.format();
        format.wide_coordinates() + format.narrow_coordinates()
    }
}

/// Takes vectors to codes.
#[derive(Debug)]
pub struct Encoder {
    /// To coordinates whose squared distances are those of the codes.
    projection: Projection,
    /// What is subtracted from coordinates before they are rounded.
    middle: Vec<f32>,
    format: Format,
}

/// What codes round: the m coordinates of each row of a base, in units of the code.
///
/// They are made when they are asked for. Those of all rows would take four times the memory of the
/// codes, or more, and would be the largest thing in a build.
#[derive(Debug)]
pub struct Coordinates<'a> {
    base: &'a Vectors,
    map: RowMap,
    /// In the unit of the map.
    medians: Vec<f32>,
    /// Units of the code in a unit of the map.
    factor: f32,
    /// Of one row in `every`, from the first on.
    sample: Located,
    every: usize,
}

/// Rows by their coordinates.
#[derive(Debug)]
pub struct Located {
    /// n × m.
    pub coordinates: Vectors,
    /// The squared length of what the coordinates leave out of each row.
    rests: Vec<f32>,
}

elements!(CodeLine as [u8; 64]);

saved!(Format {
    lines,
    wide,
    wide_weight,
    narrow_weight
});

saved!(Encoder {
    projection,
    middle,
    format
});

impl Encoder {
    /// Refuses an encoder that is not of vectors of dimension `dim`.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, dim: usize) -> Result<(), PartError> {
        let Format {
            lines,
            wide,
            wide_weight,
            narrow_weight,
        } = self.format;
        let weights = 1..=graph_codes::MOST_WEIGHT;
        let known = (1..=graph_codes::MOST_LINES).contains(&lines)
            && wide <= lines
            && weights.contains(&wide_weight)
            && weights.contains(&narrow_weight);
        expect(known, "format", "a kind of code that there is")?;
        let room = self.format.wide_coordinates() + self.format.narrow_coordinates();
        let kept = self.middle.len();
        expect(
            (1..=room).contains(&kept),
            "middle",
            "coordinates of a code",
        )?;
        self.projection.check(dim, kept)
    }

    /// Fits codes of this shape to the base, which is not empty.
    pub fn fit<'a>(
        base: &'a Vectors,
        pca: &Pca,
        shape: Shape,
        seed: u64,
    ) -> (Self, Coordinates<'a>) {
        let mut format = shape.format();
        let wide = format.wide_coordinates().min(base.dim());
        let kept = (wide + format.narrow_coordinates()).min(base.dim());
        let (mut projection, map) = Projection::of(pca, base, |components| {
            // Each kind of lines has one step, so each kind's components are mixed until they are
            // of about one size. Rotation · components is again one matrix: it costs a query
            // nothing.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut map = components.slice(s![..kept, ..]).to_owned();
            for part in [0..wide, wide..kept] {
                if part.is_empty() {
                    continue;
                }
                let rotation = random_rotation(part.len(), &mut rng);
                let mixed = rotation.dot(&map.slice(s![part.clone(), ..]));
                map.slice_mut(s![part, ..]).assign(&mixed);
            }
            map
        });
        // What all rows share is found by enough of them.
        let every = base.len().div_ceil(ENOUGH_ROWS);
        let rows: Vec<usize> = (0..base.len()).step_by(every).collect();
        let mut projected = map.project(base, &rows);
        let medians = medians(&projected.coordinates, kept);
        subtract(&mut projected.coordinates, &medians);
        let factor = choose_steps(&mut format, &projected.coordinates, wide, kept);
        projection.change_unit(factor);
        projected.change_unit(factor);
        let encoder = Self {
            projection,
            middle: medians.iter().map(|value| value * factor).collect(),
            format,
        };
        let coordinates = Coordinates {
            base,
            map,
            medians,
            factor,
            sample: Located::new(projected, kept),
            every,
        };
        (encoder, coordinates)
    }

    /// The codes of some rows, one after the other, for distances to queries.
    pub fn encode(&self, coordinates: &Coordinates<'_>, rows: &[usize]) -> Vec<CodeLine> {
        let (mut codes, tails) = self.encode_for_pairs(coordinates, rows);
        self.set_tails(&mut codes, &tails);
        codes
    }

    /// The same for distances among each other; and the tails that they have for queries.
    pub fn encode_for_pairs(
        &self,
        coordinates: &Coordinates<'_>,
        rows: &[usize],
    ) -> (Vec<CodeLine>, Vec<i32>) {
        let lines = self.format.lines;
        let mut codes = vec![CodeLine::default(); rows.len() * lines];
        let mut tails = vec![0; rows.len()];
        let blocks = codes
            .chunks_mut(AT_ONCE * lines)
            .zip(tails.chunks_mut(AT_ONCE));
        for ((codes, tails), rows) in blocks.zip(rows.chunks(AT_ONCE)) {
            let Located { coordinates, rests } = coordinates.of(rows);
            let values = coordinates.floats().expect("coordinates are floats");
            codes
                .par_chunks_exact_mut(lines)
                .zip(tails)
                .zip(values.par_chunks_exact(coordinates.dim()))
                .zip(&rests)
                .for_each(|(((code, tail), values), &rest)| {
                    *tail = self.write(values, rest, code);
                });
        }
        (codes, tails)
    }

    /// Gives each code its tail.
    pub fn set_tails(&self, codes: &mut [CodeLine], tails: &[i32]) {
        for (code, &tail) in codes.chunks_exact_mut(self.format.lines).zip(tails) {
            graph_codes::set_tail(code, tail);
        }
    }

    /// Rounds coordinates to a code; what lies outside its range goes to the edge. `rest` is the
    /// squared length of what the coordinates leave out. The code has the tail for distances to
    /// other codes; that for queries is returned.
    fn write(&self, coordinates: &[f32], rest: f32, code: &mut [CodeLine]) -> i32 {
        let written = self.format.write(coordinates, code);
        let tail = |own: f32| {
            let tail = written.squares + own;
            tail.clamp(-LARGEST_OWN, LARGEST_OWN).round() as i32
        };
        // A vector x is its code c and what was rounded off, e. The squared distance to q is that
        // to c, less ‖e‖², and less 2·⟨q − x, e⟩, which is zero on average.
        let own = rest - written.rounded_off;
        // Of two codes, both are rounded; and those of near vectors alike. Less ‖e‖² of both,
        // the distances of all that are nearer than that would be zero, and tell nothing. So a
        // code never takes off more than its rest adds.
        graph_codes::set_tail(code, tail(own.max(0.0)));
        tail(own)
    }

    /// The form of `query` in which codes are compared with it.
    pub fn query<const LINES: usize>(
        &self,
        query: &[f32],
        projected: &mut ProjectedQuery,
    ) -> Query<LINES> {
        self.projection.apply(query, projected);
        for (value, middle) in projected.coordinates.iter_mut().zip(&self.middle) {
            *value -= middle;
        }
        self.query_at(&mut projected.coordinates, projected.rest)
    }

    /// The same of coordinates, in units of the code, and of the squared length of what they leave
    /// out. Far coordinates are moved.
    pub fn query_at<const LINES: usize>(&self, coordinates: &mut [f32], rest: f32) -> Query<LINES> {
        let own = rest.min(LARGEST_OWN);
        let code = Query::new(self.format, coordinates, own);
        // A query far outside of the codes' range, cut off at its edge, would lie in another
        // direction. Nearer to the middle it keeps the direction, and the order of the rows hardly
        // changes from so far away.
        let length = dot_f32(coordinates, coordinates);
        if length <= CUT_OFF * code.length() || length <= self.format.range().powi(2) {
            return code;
        }
        let nearer = self.share_of_the_way(coordinates);
        for value in &mut *coordinates {
            *value *= nearer;
        }
        Query::new(self.format, coordinates, own)
    }

    /// By what to multiply the coordinates of a query so that all can be written.
    fn share_of_the_way(&self, coordinates: &[f32]) -> f32 {
        let wide = self.format.wide_coordinates().min(coordinates.len());
        let largest = |part: &[f32]| {
            part.iter()
                .fold(0.0, |most: f32, value| most.max(value.abs()))
        };
        let (wide, narrow) = coordinates.split_at(wide);
        let farthest = (largest(wide) / self.format.widest_query())
            .max(largest(narrow) / self.format.widest_narrow_query());
        farthest.max(1.0).recip()
    }

    /// What the lines of the codes hold.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The squared length of what rounding takes off of a code, on average: a twelfth of the square
    /// of a step for each coordinate, in units of the code.
    pub fn rounding(&self) -> f32 {
        let kept = self.middle.len();
        let wide = self.format.wide_coordinates().min(kept);
        let squares = [
            wide as f32 * self.format.wide_step().powi(2),
            (kept - wide) as f32 * self.format.narrow_step().powi(2),
        ];
        squares.iter().sum::<f32>() / 12.0
    }

    /// Units of the code in a unit of the data.
    pub fn scale(&self) -> f64 {
        self.projection.scale()
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.projection.memory_bytes() + size_of_val(&*self.middle)
    }
}

impl Located {
    fn new(projected: Projected, dim: usize) -> Self {
        let Projected { coordinates, rests } = projected;
        let coordinates = Vectors::from_floats(dim, coordinates);
        Self {
            coordinates: coordinates.expect("scaled values are finite"),
            rests,
        }
    }
}

impl Coordinates<'_> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.base.len()
    }

    /// Those of at most [`ENOUGH_ROWS`] rows, spread over all: of all, where there are no more.
    pub fn sample(&self) -> &Vectors {
        &self.sample.coordinates
    }

    /// Those of some rows.
    pub fn of(&self, rows: &[usize]) -> Located {
        if self.every == 1 {
            let coordinates = self.sample.coordinates.select(rows);
            return Located {
                coordinates: coordinates.expect("rows of the base"),
                rests: rows.iter().map(|&row| self.sample.rests[row]).collect(),
            };
        }
        let mut projected = self.map.project(self.base, rows);
        subtract(&mut projected.coordinates, &self.medians);
        projected.change_unit(self.factor);
        Located::new(projected, self.medians.len())
    }

    /// Those of all rows, [`AT_ONCE`] after each other.
    pub fn blocks(&self) -> impl Iterator<Item = Vectors> + '_ {
        let starts = (0..self.len()).step_by(AT_ONCE);
        starts.map(|start| {
            let rows: Vec<usize> = (start..self.len().min(start + AT_ONCE)).collect();
            self.of(&rows).coordinates
        })
    }
}

/// The median of each of the `kept` coordinates. The mean would lie outside of all rows where one
/// is very far out.
fn medians(coordinates: &[f32], kept: usize) -> Vec<f32> {
    let median = |column: usize| {
        let values = coordinates.iter().skip(column).step_by(kept);
        let mut values: Vec<f32> = values.copied().collect();
        let half = values.len() / 2;
        *values.select_nth_unstable_by(half, f32::total_cmp).1
    };
    (0..kept).into_par_iter().map(median).collect()
}

/// Subtracts the medians from each row.
fn subtract(coordinates: &mut [f32], medians: &[f32]) {
    for row in coordinates.chunks_exact_mut(medians.len()) {
        for (value, median) in row.iter_mut().zip(medians) {
            *value -= median;
        }
    }
}

/// Medians, steps and clusters are found by the coordinates of at most so many rows. A median is
/// then off by a 200th of a standard deviation.
const ENOUGH_ROWS: usize = 1 << 16;
/// Rows whose coordinates are in memory at once: 32 MB of the 124 of two lines.
const AT_ONCE: usize = 1 << 16;

/// Sets the weights of a format, for coordinates of which the first `wide` of `kept` are wide.
/// Returns by what to multiply them, so that their squared distances are in units of the code.
fn choose_steps(format: &mut Format, coordinates: &[f32], wide: usize, kept: usize) -> f32 {
    let sizes = |part: std::ops::Range<usize>| -> Vec<f32> {
        let rows = coordinates.chunks_exact(kept);
        rows.flat_map(|row| &row[part.clone()])
            .map(|value| value.abs())
            .collect()
    };
    // A step is the range over the places on one side of zero.
    let wide_step = size_at(sizes(0..wide), WIDE_OUTSIDE_ONE_IN) / 63.5;
    let narrow_step = size_at(sizes(wide..kept), NARROW_OUTSIDE_ONE_IN) / 7.5;
    // An eighth of the square of a narrow step, in units of which a wide step's square has WEIGHT.
    let (step, of_format) = if wide == 0 {
        (narrow_step, format.narrow_step())
    } else {
        let ratio = narrow_step / wide_step.max(f32::MIN_POSITIVE);
        let weight = (f32::from(NARROW_WEIGHT) * ratio * ratio).ceil();
        let most = f32::from(graph_codes::MOST_WEIGHT);
        format.narrow_weight = weight.clamp(1.0, most) as i16;
        // Where the narrow coordinates would need more, both steps are longer.
        (wide_step.max(narrow_step / 4.0), format.wide_step())
    };
    // Where nearly all rows are equal the step is zero or too small to divide by, and the unit
    // stays as it is.
    if step >= f32::MIN_POSITIVE {
        of_format / step
    } else {
        1.0
    }
}

/// The size that all but one in `one_in` stay within; zero of none.
fn size_at(mut sizes: Vec<f32>, one_in: usize) -> f32 {
    if sizes.is_empty() {
        return 0.0;
    }
    // Selection finds it without sorting all sizes.
    let at = sizes.len() - 1 - sizes.len() / one_in;
    *sizes.select_nth_unstable_by(at, f32::total_cmp).1
}

/// A random rotation: the Q of the QR decomposition of a matrix of independent normal numbers.
fn random_rotation(dim: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    // A sum of twelve uniform numbers is normal enough, since any rotation is valid.
    let normal = DMatrix::from_fn(dim, dim, |_, _| {
        (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
    });
    // QR makes the columns orthonormal, one after the other. O(m³), once for a build.
    let q = normal.qr().q();
    Array2::from_shape_fn((dim, dim), |(row, column)| q[(row, column)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Metric;
    use crate::index::support::test_data::clustered;

    #[test]
    fn coordinates_keep_distances_whether_rows_were_sampled_or_not() {
        // The second base has more rows than the sample.
        for len in [500, ENOUGH_ROWS + 100] {
            let base = clustered(len, 4, 1);
            let pca = Projection::components(&base, 4, 0);
            let shape = Shape { lines: 1, wide: 1 };
            let (encoder, coordinates) = Encoder::fit(&base, &pca, shape, 0);
            let rows = [0, 1, 33, len / 2, len - 1];
            let located = coordinates.of(&rows).coordinates;
            for (i, &a) in rows.iter().enumerate() {
                for (j, &b) in rows.iter().enumerate() {
                    let to = |rows: &Vectors, a: usize, b: usize| {
                        let (a, b) = (rows.row_to_floats(a), rows.row_to_floats(b));
                        Metric::Euclidean.reduced(&a, &b).sqrt()
                    };
                    let truth = to(&base, a, b) * encoder.scale();
                    let found = to(&located, i, j);
                    assert!(
                        (found - truth).abs() <= 1e-3 * truth + 1e-3,
                        "{found}, {truth}"
                    );
                }
            }
            // In blocks they are the same, row after row.
            let mut start = 0;
            for block in coordinates.blocks() {
                for (i, &row) in rows.iter().enumerate() {
                    if (start..start + block.len()).contains(&row) {
                        assert_eq!(block.row_to_floats(row - start), located.row_to_floats(i));
                    }
                }
                start += block.len();
            }
            assert_eq!(start, len);
        }
    }
}
