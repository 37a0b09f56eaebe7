//! From vectors to the codes by which the graph is walked: the first principal components, turned so that each coordinate
//! carries as much, at seven bits; and the length of what they leave out.

use nalgebra::DMatrix;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayViewMut2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::math::pca::{Pca, PcaOptions};
use crate::simd::graph_codes::{self, CodeLine, TAIL};
use crate::simd::pairwise::squared_euclidean_f32;
use crate::vectors::{Row, Vectors};

/// The longest code, in lines.
pub const MOST_LINES: usize = 4;

/// Largest value of a coordinate in a code.
const LARGEST: f32 = graph_codes::LARGEST as f32;
/// Longest squared length of what a code leaves out: of two codes' and their distance, room is left below 2³¹.
const LONGEST_REST: f32 = 5e8;
/// Where a code has the mean of the data.
const MIDDLE: f32 = LARGEST / 2.0;
/// Coefficients are kept as multiples of 1/16,384. The rows of the map are of unit length, so that for a query of values up
/// to 2,047 a sum stays below 2¹⁴ · 2¹¹ · √d (Cauchy–Schwarz): no overflow up to d = 4,000, and in practice far beyond.
const COEFFICIENT: f32 = 16_384.0;
/// Rows projected in one matrix product.
const BLOCK: usize = 256;

/// Takes vectors to codes.
#[derive(Debug)]
pub struct Encoder {
    mean: Vec<f32>,
    /// What is taken from a query before it is rounded: the mean, or nothing where the base is bytes, so that pixels stay
    /// whole numbers and black ones stay zero.
    origin: Option<Vec<f32>>,
    /// Row i: coefficients of values 2i and 2i + 1 for each coordinate, alternating.
    map: Vec<i16>,
    /// What (origin − mean) maps to, in units of the code.
    offset: Vec<f32>,
    /// Units of the code in a unit of the data.
    scale: f32,
    lines: usize,
}

/// A query as the walk sees it.
#[derive(Debug, Default)]
pub struct EncodedQuery {
    /// Its code, as that of a vector.
    pub code: Vec<CodeLine>,
    centred: Vec<f32>,
    whole: Vec<i16>,
    sums: Vec<i32>,
}

impl Encoder {
    /// Fits codes of up to `lines` · 64 bytes. Returns the encoder, each vector's code, and the coordinates that the codes
    /// round (n × m, in units of the code).
    pub fn fit(base: &Vectors, lines: usize, seed: u64) -> (Self, Vec<CodeLine>, Vectors) {
        let (n, dim) = (base.len(), base.dim());
        let kept = (lines * 64 - TAIL).min(dim);
        let pca = Pca::fit(
            base,
            &PcaOptions {
                seed,
                ..Default::default()
            },
        )
        .expect("the base is not empty");
        // The principal components differ in size, and one step for all would waste bits on the small ones: any rotation
        // among them keeps the distances, and a random one evens them out.
        let rotation = random_rotation(kept, &mut ChaCha8Rng::seed_from_u64(seed));
        let map = rotation
            .dot(&pca.rotation().slice(s![..kept, ..]))
            .mapv(|value| value as f32);
        let mean: Vec<f32> = pca.mean().iter().map(|&value| value as f32).collect();

        let size = largest(base);
        let inverse = if size >= f32::MIN_POSITIVE {
            size.recip()
        } else {
            1.0
        };
        let (mut values, mut rests) = project(base, &map, &mean, inverse);
        let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        // One in ten thousand is cut off: a range for every outlier would leave few steps to the others.
        let at = sizes.len() - 1 - sizes.len() / 10_000;
        let range = *sizes.select_nth_unstable_by(at, f32::total_cmp).1;
        let steps = if range >= f32::MIN_POSITIVE {
            MIDDLE / range
        } else {
            1.0
        };
        values.iter_mut().for_each(|value| *value *= steps);
        rests.iter_mut().for_each(|rest| *rest *= steps * steps);

        let mut codes = vec![CodeLine::default(); n * lines];
        for ((code, values), &rest) in codes
            .chunks_exact_mut(lines)
            .zip(values.chunks_exact(kept))
            .zip(&rests)
        {
            write(code, values, rest);
        }

        let width = lines * 64;
        let mut pairs = vec![0i16; dim.div_ceil(2) * 2 * width];
        for (coordinate, row) in map.rows().into_iter().enumerate() {
            for (i, &value) in row.iter().enumerate() {
                pairs[(i / 2 * width + coordinate) * 2 + i % 2] =
                    (value * COEFFICIENT).round() as i16;
            }
        }
        let scale = inverse * steps;
        let (origin, offset) = match base.bytes() {
            Some(_) => (
                None,
                map.dot(&ArrayView1::from(&mean))
                    .mapv(|value| -value * scale)
                    .to_vec(),
            ),
            None => (Some(mean.clone()), vec![0.0; kept]),
        };
        let values = Vectors::from_floats(kept, values).expect("scaled values are finite");
        (
            Self {
                mean,
                origin,
                map: pairs,
                offset,
                scale,
                lines,
            },
            codes,
            values,
        )
    }

    /// Encodes `query` into `out`.
    pub fn encode(&self, query: &[f32], out: &mut EncodedQuery) {
        let EncodedQuery {
            code,
            centred,
            whole,
            sums,
        } = out;
        let values = match &self.origin {
            Some(origin) => {
                centred.clear();
                centred.extend(
                    query
                        .iter()
                        .zip(origin)
                        .map(|(value, origin)| value - origin),
                );
                &**centred
            }
            None => query,
        };
        let unit = graph_codes::to_whole(values, whole);
        whole.resize(query.len().div_ceil(2) * 2, 0);
        sums.clear();
        sums.resize(self.lines * 64, 0);
        graph_codes::add_weighted_pairs(sums, &self.map, whole);

        let mut coordinates = [0.0f32; 64 * MOST_LINES];
        let coordinates = &mut coordinates[..self.offset.len()];
        let per_sum = unit / COEFFICIENT * self.scale;
        for ((value, &sum), offset) in coordinates.iter_mut().zip(&*sums).zip(&self.offset) {
            *value = sum as f32 * per_sum + offset;
        }
        code.clear();
        code.resize(self.lines, CodeLine::default());
        let kept = squared_euclidean_f32(coordinates, &[0.0; 64 * MOST_LINES][..coordinates.len()]);
        let total = squared_euclidean_f32(query, &self.mean) * self.scale * self.scale;
        write(code, coordinates, total - kept);
    }

    /// Units of the code in a unit of the data.
    pub fn scale(&self) -> f64 {
        self.scale.into()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.map) + 2 * size_of_val(&*self.mean) + size_of_val(&*self.offset)
    }
}

/// Rounds coordinates to a code; what lies outside its range goes to the edge. `rest` is the squared length of what the
/// coordinates leave out.
fn write(code: &mut [CodeLine], values: &[f32], rest: f32) {
    for (line, values) in code.iter_mut().zip(values.chunks(64)) {
        for (byte, value) in line.0.iter_mut().zip(values) {
            *byte = (value + (MIDDLE + 0.5)).clamp(0.0, LARGEST) as u8;
        }
    }
    graph_codes::finish(code, rest.clamp(0.0, LONGEST_REST).round() as u32);
}

/// A random rotation: the Q of the QR decomposition of a matrix of independent normal numbers.
fn random_rotation(dim: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    // A sum of twelve uniform numbers is normal enough, since any rotation is valid.
    let normal = DMatrix::from_fn(dim, dim, |_, _| {
        (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
    });
    let q = normal.qr().q();
    Array2::from_shape_fn((dim, dim), |(row, column)| q[(row, column)])
}

/// The largest absolute value.
fn largest(base: &Vectors) -> f32 {
    match (base.bytes(), base.floats()) {
        (_, Some(values)) => values.iter().fold(0.0, |all, value| value.abs().max(all)),
        _ => f32::from(u8::MAX),
    }
}

/// `inverse` times each row's coordinates (n × m), and the squared length of what they leave out, scaled alike.
fn project(base: &Vectors, map: &Array2<f32>, mean: &[f32], inverse: f32) -> (Vec<f32>, Vec<f32>) {
    let (dim, kept) = (base.dim(), map.nrows());
    let mut values = vec![0.0; base.len() * kept];
    let mut rests = vec![0.0; base.len()];
    let blocks = values
        .par_chunks_mut(BLOCK * kept)
        .zip(rests.par_chunks_mut(BLOCK));
    blocks.enumerate().for_each(|(block, (values, rests))| {
        // Scaled before they are subtracted: the largest floats do not overflow.
        let centre = |value: f32, mean: f32| value * inverse - mean * inverse;
        let mut centred = Vec::with_capacity(rests.len() * dim);
        for row in block * BLOCK..block * BLOCK + rests.len() {
            match base.row(row) {
                Row::Bytes(row) => centred.extend(
                    row.iter()
                        .zip(mean)
                        .map(|(&v, &mean)| centre(v.into(), mean)),
                ),
                Row::Floats(row) => {
                    centred.extend(row.iter().zip(mean).map(|(&v, &mean)| centre(v, mean)))
                }
            }
        }
        let centred = Array2::from_shape_vec((rests.len(), dim), centred).expect("whole rows");
        let mut product =
            ArrayViewMut2::from_shape((rests.len(), kept), values).expect("whole rows");
        general_mat_mul(1.0, &centred, &map.t(), 0.0, &mut product);
        for ((rest, row), kept) in rests.iter_mut().zip(centred.rows()).zip(product.rows()) {
            *rest = (row.dot(&row) - kept.dot(&kept)).max(0.0);
        }
    });
    (values, rests)
}
