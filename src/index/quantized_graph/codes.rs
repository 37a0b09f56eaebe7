//! The codes by which the graph is walked: a few balanced coordinates at seven bits, and the length of what they leave out.

use nalgebra::DMatrix;
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::dataset::{Row, Vectors};
use crate::kernel::code::{self, Line, TAIL};
use crate::kernel::pair::squared_euclidean_f32;
use crate::pca::{Pca, PcaOptions};

/// Largest value of a coordinate: seven bits, so that the squares of two differences, added, fit in 16.
const LARGEST: f32 = 127.0;
/// Where the mean of the data lies.
const MIDDLE: f32 = 63.5;
/// Coefficients are rounded to multiples of 2⁻¹⁴. Rows are of unit length, so a sum stays below 2¹⁴ · ‖query‖ (Cauchy–Schwarz).
const COEFFICIENT: f32 = 16_384.0;
/// Rows projected in one matrix product.
const BLOCK: usize = 256;

/// Takes d values to a code.
#[derive(Debug)]
pub struct Encoder {
    mean: Vec<f32>,
    /// Pairs of rows of the map: for values 2i and 2i + 1, their coefficients of each coordinate, side by side.
    map: Vec<i16>,
    /// What −mean maps to.
    offset: Vec<f32>,
    /// Units of the code in a unit of the data.
    scale: f32,
    coordinates: usize,
    lines: usize,
}

/// A query's code, and the squared length of its rest.
#[derive(Debug, Clone, Default)]
pub struct QueryCode {
    pub lines: Vec<Line>,
    pub rest: u32,
    values: Vec<i16>,
    sums: Vec<i32>,
}

/// A random rotation: the Q of the QR decomposition of a matrix of independent normal numbers.
fn random_rotation(dim: usize, rng: &mut ChaCha8Rng) -> DMatrix<f64> {
    // A sum of twelve uniform numbers is near enough to normal: any rotation is valid.
    let gaussian = DMatrix::from_fn(dim, dim, |_, _| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
    gaussian.qr().q()
}

impl Encoder {
    /// Fits codes of `lines` · 64 bytes: the encoder, each vector's code, and the coordinates that the codes round.
    pub fn fit(base: &Vectors, lines: usize, seed: u64) -> (Self, Vec<Line>, Vectors) {
        let (n, dim, width) = (base.len(), base.dim(), lines * 64);
        let coordinates = (width - TAIL).min(dim);
        let pca = Pca::fit(base, &PcaOptions { seed, ..Default::default() }).expect("the base is not empty");
        let rotation = random_rotation(coordinates, &mut ChaCha8Rng::seed_from_u64(seed));
        let rotation = Array2::from_shape_fn((coordinates, coordinates), |(i, j)| rotation[(i, j)]);
        let map = rotation.dot(&pca.rotation().slice(ndarray::s![..coordinates, ..])).mapv(|value| value as f32);
        let mean: Vec<f32> = pca.mean().iter().map(|&value| value as f32).collect();

        let (mut values, mut rests) = project(base, &map, &mean);
        let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        // Outliers are cut off: a range for all would leave few steps for most.
        let at = (sizes.len() - 1) - sizes.len() / 10_000;
        let largest = *sizes.select_nth_unstable_by(at, f32::total_cmp).1;
        let scale = if largest > 0.0 { MIDDLE / largest } else { 1.0 };
        values.iter_mut().for_each(|value| *value *= scale);
        rests.iter_mut().for_each(|rest| *rest *= scale * scale);

        let mut codes = vec![Line::default(); n * lines];
        for ((code, values), &rest) in codes.chunks_exact_mut(lines).zip(values.chunks_exact(coordinates)).zip(&rests) {
            write(code, values);
            // The cast saturates: where the rests are that long, they say little.
            code[lines - 1].0[64 - TAIL..].copy_from_slice(&(rest.round() as u16).to_le_bytes());
        }

        let mut pairs = vec![0i16; dim.div_ceil(2) * 2 * width];
        for (coordinate, row) in map.rows().into_iter().enumerate() {
            for (i, &value) in row.iter().enumerate() {
                pairs[(i / 2 * width + coordinate) * 2 + i % 2] = (value * COEFFICIENT).round() as i16;
            }
        }
        let offset = map.dot(&ndarray::ArrayView1::from(&mean)).mapv(|value| -value).to_vec();
        let encoder = Self { mean, map: pairs, offset, scale, coordinates, lines };
        let values = Vectors::from_floats(coordinates, values).expect("projections of finite vectors are finite");
        (encoder, codes, values)
    }

    /// Writes the code of `query`.
    pub fn encode(&self, query: &[f32], query_code: &mut QueryCode) {
        let QueryCode { lines, rest, values, sums } = query_code;
        let step = code::to_whole(query, values);
        values.resize(query.len().div_ceil(2) * 2, 0);
        sums.clear();
        sums.resize(self.lines * 64, 0);
        code::add_weighted_pairs(sums, &self.map, values);
        let mut kept = 0.0;
        let mut coordinates = [0.0f32; 64 * MOST_LINES];
        for ((value, &sum), offset) in coordinates.iter_mut().zip(&*sums).zip(&self.offset) {
            *value = (sum as f32 * (step / COEFFICIENT) + offset) * self.scale;
            kept += *value * *value;
        }
        lines.clear();
        lines.resize(self.lines, Line::default());
        write(lines, &coordinates[..self.coordinates]);
        let total = squared_euclidean_f32(query, &self.mean) * self.scale * self.scale;
        *rest = (total - kept).clamp(0.0, 1e9) as u32;
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.map) + size_of_val(&*self.mean) + size_of_val(&*self.offset)
    }
}

/// The longest code.
pub const MOST_LINES: usize = 4;

fn write(code: &mut [Line], values: &[f32]) {
    for (line, values) in code.iter_mut().zip(values.chunks(64)) {
        for (byte, value) in line.0.iter_mut().zip(values) {
            *byte = (value + (MIDDLE + 0.5)).clamp(0.0, LARGEST) as u8;
        }
    }
}

/// Each row's coordinates (n × m), and the squared length of what they leave out.
fn project(base: &Vectors, map: &Array2<f32>, mean: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (dim, m) = (base.dim(), map.nrows());
    let mut values = vec![0.0; base.len() * m];
    let mut rests = vec![0.0; base.len()];
    values.par_chunks_mut(BLOCK * m).zip(rests.par_chunks_mut(BLOCK)).enumerate().for_each(
        |(block, (values, rests))| {
            let mut centred = Vec::with_capacity(rests.len() * dim);
            for row in block * BLOCK..block * BLOCK + rests.len() {
                match base.row(row) {
                    Row::Bytes(row) => {
                        centred.extend(row.iter().zip(mean).map(|(&value, mean)| f32::from(value) - mean))
                    }
                    Row::Floats(row) => centred.extend(row.iter().zip(mean).map(|(value, mean)| value - mean)),
                }
            }
            let centred = Array2::from_shape_vec((rests.len(), dim), centred).expect("whole rows");
            let mut product = ndarray::ArrayViewMut2::from_shape((rests.len(), m), values).expect("whole rows");
            general_mat_mul(1.0, &centred, &map.t(), 0.0, &mut product);
            for ((rest, row), kept) in rests.iter_mut().zip(centred.rows()).zip(product.rows()) {
                *rest = (row.dot(&row) - kept.dot(&kept)).max(0.0);
            }
        },
    );
    (values, rests)
}
