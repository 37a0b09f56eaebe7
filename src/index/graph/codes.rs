//! From vectors to the short codes by which a graph is built and walked.
//!
//! A walk spends its time on distances to vectors that it discards at once, and most of that time
//! on fetching them from memory. So it compares codes of a few cache lines, which say about as
//! much:
//!
//! ```text
//!                 784 values of a row
//!   PCA               │
//!                 124 leading coordinates, of very different size      rest: the squared length
//!   rotation          │                                                of what they leave out
//!                 124 coordinates of about equal size                     │
//!   rounding          │                                                   │
//!                 124 bytes from 0 to 127                              4 bytes, the tail
//! ```
//!
//! The rotation is there for the rounding: one step for components of different size would waste
//! bits on the small ones. Any rotation keeps distances, and a random one evens the sizes out (Gao
//! and Long, ADSampling 2023, RaBitQ 2024).
//!
//! The squared distance of two vectors is estimated by that of their codes plus both rests: what is
//! left out of one is nearly at right angles to what is left out of the other. Coordinates have
//! seven bits, not eight, so that four products of bytes fit in 16 bits (see [`graph_codes`]).
//!
//! What they are bad at: all rows share one range. Clusters far apart, or more than one row in
//! 10,000 far out, set it, and few steps are left for the differences between the others. And 124
//! components say little where the variance is spread over many more, as in sentence embeddings:
//! longer codes help there.

use nalgebra::DMatrix;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::index::support::projection::{Projected, ProjectedQuery, Projection};
use crate::simd::graph_codes::{self, CodeLine, TAIL};
use crate::vectors::Vectors;

/// The longest code, in cache lines.
pub const MOST_LINES: usize = 4;

/// Largest value of a coordinate in a code.
const LARGEST: f32 = graph_codes::LARGEST as f32;
/// The coordinate that the mean of the data has in a code.
const MIDDLE: f32 = LARGEST / 2.0;
/// One coordinate in so many may lie outside the range of the codes. A range that held every
/// outlier would leave few steps for all others.
const ONE_OUTSIDE_IN: usize = 10_000;
/// Longest squared length of what a code leaves out. Two of these and the distance of two codes,
/// at most 252 · 127², stay below 2³¹.
const LONGEST_REST: f32 = 5e8;

/// Takes vectors to codes.
#[derive(Debug)]
pub struct Encoder {
    /// To coordinates in units of the code.
    projection: Projection,
    lines: usize,
}

/// What [`Encoder::fit`] makes of a base of n vectors.
#[derive(Debug)]
pub struct Encoded {
    pub encoder: Encoder,
    /// n codes, of as many lines as were asked for.
    pub codes: Vec<CodeLine>,
    /// What the codes round: n × m coordinates, in units of the code.
    pub coordinates: Vectors,
}

/// A query as the walk sees it.
#[derive(Debug, Default)]
pub struct EncodedQuery {
    /// Its code, as that of a vector.
    pub code: Vec<CodeLine>,
    projected: ProjectedQuery,
}

impl Encoder {
    /// Fits codes of `lines` cache lines to the base, which is not empty, and encodes it.
    pub fn fit(base: &Vectors, lines: usize, seed: u64) -> Encoded {
        // All bytes of the lines but the tail are coordinates, one a byte.
        let kept = (lines * 64 - TAIL).min(base.dim());
        let (mut projection, mut projected) = Projection::fit(base, kept, seed, |components| {
            // Rotation · components is again one matrix, so the rotation costs a query nothing.
            let rotation = random_rotation(kept, &mut ChaCha8Rng::seed_from_u64(seed));
            rotation.dot(&components)
        });
        // The unit is chosen so that `range` becomes half the span of a code: coordinates then lie
        // from −63.5 to 63.5. Where nearly all rows are equal the range is zero or too small to
        // divide by, and the unit stays as it is.
        let range = range(&projected.coordinates);
        if range >= f32::MIN_POSITIVE {
            projection.change_unit(MIDDLE / range, &mut projected);
        }

        // The coordinates are kept beside the codes: clusters are found by them, for they are not
        // rounded.
        let Projected { coordinates, rests } = projected;
        let mut codes = vec![CodeLine::default(); base.len() * lines];
        for (row, code) in codes.chunks_exact_mut(lines).enumerate() {
            write(code, &coordinates[row * kept..][..kept], rests[row]);
        }
        let coordinates = Vectors::from_floats(kept, coordinates);
        Encoded {
            encoder: Self { projection, lines },
            codes,
            coordinates: coordinates.expect("scaled values are finite"),
        }
    }

    /// Encodes `query` into `out`.
    pub fn encode(&self, query: &[f32], out: &mut EncodedQuery) {
        let EncodedQuery { code, projected } = out;
        self.projection.apply(query, projected);
        // The lines are zeroed first: coordinates may be fewer than bytes, and the bytes left must
        // count for nothing.
        code.clear();
        code.resize(self.lines, CodeLine::default());
        write(code, &projected.coordinates, projected.rest);
    }

    /// Units of the code in a unit of the data.
    pub fn scale(&self) -> f64 {
        self.projection.scale()
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.projection.memory_bytes()
    }
}

/// The size that all coordinates but one in [`ONE_OUTSIDE_IN`] stay within.
fn range(coordinates: &[f32]) -> f32 {
    let mut sizes: Vec<f32> = coordinates.iter().map(|value| value.abs()).collect();
    // The place of the largest size that is to stay inside. Selection finds it without sorting all
    // n · m sizes.
    let at = sizes.len() - 1 - sizes.len() / ONE_OUTSIDE_IN;
    *sizes.select_nth_unstable_by(at, f32::total_cmp).1
}

/// Rounds coordinates to a code; what lies outside its range goes to the edge. `rest` is the
/// squared length of what the coordinates leave out.
fn write(code: &mut [CodeLine], coordinates: &[f32], rest: f32) {
    for (line, values) in code.iter_mut().zip(coordinates.chunks(64)) {
        for (byte, value) in line.0.iter_mut().zip(values) {
            // The mean goes to 63.5. A further half makes the truncation of `as u8` a rounding to
            // the nearest.
            *byte = (value + (MIDDLE + 0.5)).clamp(0.0, LARGEST) as u8;
        }
    }
    // The tail has the rest and what the coordinates themselves add to every distance.
    graph_codes::finish(code, rest.clamp(0.0, LONGEST_REST).round() as u32);
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
