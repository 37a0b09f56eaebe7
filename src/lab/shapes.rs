//! Tables of hard shapes, from a seed: what real tables have and a benchmark's data have not.
//!
//! Benchmark data are well behaved: one scale, no copies, many directions. A user's table may have
//! a typing error a million times too large, a half of empty rows, or a single column. Each
//! [`Shape`] is one such difficulty and nothing else; its [`Shape::breaks`] says what it does to an
//! index that was made for well-behaved data.
//!
//! A shape draws the base and the queries from one distribution, so that a query is no row of the
//! base but looks like one. Noise is Gaussian, of variance 1 in each dimension unless said
//! otherwise: that is "the spread" below.
//!
//! ```
//! use fashion_knn::lab::shapes;
//!
//! // 1,000 rows of which one is far out, and 20 queries; d is what the shape has by default.
//! let shape = shapes::find("outlier_1e6").expect("a shape of that name");
//! let sample = shape.sample(1_000, 20, shape.dim, 42);
//! assert_eq!((sample.base.len(), sample.queries.len()), (1_000, 20));
//! assert_eq!(sample.base.dim(), shape.dim);
//! // The seed decides.
//! let same = shape.sample(1_000, 20, shape.dim, 42);
//! assert_eq!(sample.base.to_floats(), same.base.to_floats());
//! ```

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::vectors::Vectors;

/// A kind of data that is hard for some index.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name on the command line: `measure --data shape:outlier_1e4`.
    pub name: &'static str,
    /// What it does to an index that was made for well-behaved data, in a line.
    pub breaks: &'static str,
    /// The dimension that it has where none is asked for.
    pub dim: usize,
    /// Writes rows of so many values.
    draw: fn(&mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32>,
    /// Whether the values are bytes: whole numbers from 0 to 255.
    bytes: bool,
}

/// A base and queries of the same distribution.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The rows to search in, n × d.
    pub base: Vectors,
    /// The queries, m × d.
    pub queries: Vectors,
}

/// Every shape there is.
pub static SHAPES: &[Shape] = &[
    floats(
        "uniform",
        32,
        "nothing: what the other shapes are compared with",
        uniform,
    ),
    floats(
        "d1",
        1,
        "codes of a component: a hundred thousand rows share 128 values",
        uniform,
    ),
    floats(
        "d2",
        2,
        "graphs whose starts are few: the way to the neighbours is long",
        uniform,
    ),
    floats(
        "d3",
        3,
        "as d2, and trees whose leaves are split along one axis",
        uniform,
    ),
    floats(
        "noise_64",
        64,
        "lists and trees: the neighbours are in many of them",
        noise,
    ),
    floats(
        "noise_384",
        384,
        "codes of the first components: no component counts more",
        noise,
    ),
    floats(
        "low_rank",
        128,
        "codes that spend bits on directions with noise alone",
        low_rank,
    ),
    floats(
        "wide_column",
        32,
        "codes with one step for all: one column is wide",
        wide_column,
    ),
    floats(
        "outlier_1e2",
        32,
        "codes whose range is that of the data",
        outlier::<100>,
    ),
    floats(
        "outlier_1e4",
        32,
        "as outlier_1e2, and distances by products in f32",
        outlier::<10_000>,
    ),
    floats(
        "outlier_1e6",
        32,
        "as outlier_1e4: nothing is left",
        outlier::<1_000_000>,
    ),
    floats(
        "two_clusters_1e2",
        32,
        "codes whose range is that of the data",
        two_clusters::<100>,
    ),
    floats(
        "two_clusters_1e4",
        32,
        "distances by products in f32",
        two_clusters::<10_000>,
    ),
    floats(
        "clump",
        32,
        "builds that compare all rows of a cluster: 98 % are in one",
        clump,
    ),
    floats(
        "clumps",
        32,
        "graphs: edges within a clump lead nowhere else",
        clumps,
    ),
    floats(
        "equal_10",
        32,
        "graphs: the copies' edges lead to copies",
        equal::<10>,
    ),
    floats(
        "equal_50",
        32,
        "as equal_10, and lists: one holds half of the rows",
        equal::<50>,
    ),
    floats(
        "equal_90",
        32,
        "as equal_50: what is not a copy is rarely sampled",
        equal::<90>,
    ),
    floats(
        "three_kinds",
        32,
        "graphs and trees: nothing tells the rows of a kind apart",
        three_kinds,
    ),
    floats(
        "sizes",
        32,
        "codes with one step for all: norms from 10⁻³ to 10³",
        sizes,
    ),
    floats("tiny", 32, "squares in f32: they vanish", tiny),
    floats("huge", 32, "squares in f32: they overflow", huge),
    bytes("bytes_noise", 64, "as noise_64", byte_noise),
    bytes(
        "bytes_outlier",
        32,
        "codes whose range is that of the data",
        byte_outlier,
    ),
    bytes("bytes_equal_50", 32, "as equal_50", byte_equal),
    bytes("bits", 64, "ties: many rows are equally far", bits),
];

/// The shape of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

impl Shape {
    /// `rows` rows and `queries` queries of `dim` dimensions. The same arguments give the same
    /// sample.
    ///
    /// # Panics
    /// If `dim` is 0.
    #[must_use]
    pub fn sample(&self, rows: usize, queries: usize, dim: usize, seed: u64) -> Sample {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // All at once, so that both are around the same centres; the last rows become the queries.
        let mut base = (self.draw)(&mut rng, rows + queries, dim);
        let held_out = base.split_off(rows * dim);
        Sample {
            base: self.vectors(dim, base),
            queries: self.vectors(dim, held_out),
        }
    }

    fn vectors(&self, dim: usize, values: Vec<f32>) -> Vectors {
        let made = if self.bytes {
            let bytes: Vec<u8> = values.into_iter().map(|value| value as u8).collect();
            Vectors::from_bytes(dim, bytes)
        } else {
            Vectors::from_floats(dim, values)
        };
        made.expect("whole rows of finite values")
    }
}

/// How a shape writes its rows, in the order of [`Shape`]'s fields.
type Draw = fn(&mut ChaCha8Rng, usize, usize) -> Vec<f32>;

const fn floats(name: &'static str, dim: usize, breaks: &'static str, draw: Draw) -> Shape {
    let bytes = false;
    Shape {
        name,
        breaks,
        dim,
        draw,
        bytes,
    }
}

const fn bytes(name: &'static str, dim: usize, breaks: &'static str, draw: Draw) -> Shape {
    let bytes = true;
    Shape {
        name,
        breaks,
        dim,
        draw,
        bytes,
    }
}

/// A number of the standard normal distribution (Box & Muller 1958).
fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    // 1 − a number below 1: the logarithm of 0 would be infinite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
}

/// Every value from −1 to 1, all alike.
fn uniform(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect()
}

/// The same in every direction.
fn noise(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim).map(|_| gaussian(rng)).collect()
}

/// Eight directions, and noise of a hundredth in all others.
fn low_rank(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    const RANK: usize = 8;
    let directions = noise(rng, RANK, dim);
    let mut values = noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        row.iter_mut().for_each(|value| *value *= 0.01);
        for direction in directions.chunks_exact(dim) {
            let weight = gaussian(rng);
            add(row, weight, direction);
        }
    }
    values
}

/// row += weight · direction
fn add(row: &mut [f32], weight: f32, direction: &[f32]) {
    for (value, along) in row.iter_mut().zip(direction) {
        *value += weight * along;
    }
}

/// The first column is a thousand times as wide as the others, as columns in other units are. With
/// thousands of rows, rows near in it are about as near as in all the others together.
fn wide_column(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        row[0] *= 1_000.0;
    }
    values
}

/// Noise, and one row `AWAY` times as far out in each dimension.
fn outlier<const AWAY: u32>(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = noise(rng, rows, dim);
    for value in values.iter_mut().take(dim) {
        *value *= AWAY as f32;
    }
    values
}

/// Two clusters of noise, around −`AWAY` and +`AWAY` in every dimension.
fn two_clusters<const AWAY: u32>(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        let center = if rng.random() {
            AWAY as f32
        } else {
            -(AWAY as f32)
        };
        row.iter_mut().for_each(|value| *value += center);
    }
    values
}

/// 98 % of the rows within 10⁻³ of one place, the others anywhere.
fn clump(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    near_copies(rng, rows, dim, 1)
}

/// 98 % of the rows within 10⁻³ of one of 50 places, the others anywhere.
fn clumps(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    near_copies(rng, rows, dim, 50)
}

fn near_copies(rng: &mut ChaCha8Rng, rows: usize, dim: usize, places: usize) -> Vec<f32> {
    let centers = noise(rng, places, dim);
    let mut values = noise(rng, rows, dim);
    // The length of a row of noise is about √d, so this makes it 10⁻³.
    let scale = 1e-3 / (dim as f32).sqrt();
    for row in values.chunks_exact_mut(dim) {
        if rng.random_bool(0.98) {
            let center = rng.random_range(0..places);
            row.iter_mut().for_each(|value| *value *= scale);
            add(row, 1.0, &centers[center * dim..][..dim]);
        }
    }
    values
}

/// `PERCENT` % of the rows are zero, the others noise.
fn equal<const PERCENT: u32>(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        if rng.random_ratio(PERCENT, 100) {
            row.fill(0.0);
        }
    }
    values
}

/// Every row is one of three.
fn three_kinds(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let kinds = noise(rng, 3, dim);
    let mut values = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        let kind = rng.random_range(0..3);
        values.extend_from_slice(&kinds[kind * dim..][..dim]);
    }
    values
}

/// Rows of every size from 10⁻³ to 10³, as many from 10⁻³ to 10⁻² as from 10² to 10³.
fn sizes(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        let size = 10f32.powf(rng.random_range(-3.0..3.0));
        let scale = size / (dim as f32).sqrt();
        row.iter_mut().for_each(|value| *value *= scale);
    }
    values
}

/// Noise of 10⁻³⁶, whose square is no number of f32.
fn tiny(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    noise(rng, rows, dim)
        .iter()
        .map(|value| value * 1e-36)
        .collect()
}

/// Noise of 10³⁰, whose square is no number of f32.
fn huge(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    noise(rng, rows, dim)
        .iter()
        .map(|value| value * 1e30)
        .collect()
}

/// Every value from 0 to 255, all alike.
fn byte_noise(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim)
        .map(|_| f32::from(rng.random::<u8>()))
        .collect()
}

/// Values from 0 to 15, and one row of 255.
fn byte_outlier(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let value = |_| f32::from(rng.random_range(0..16u8));
    let mut values: Vec<f32> = (0..rows * dim).map(value).collect();
    values.iter_mut().take(dim).for_each(|value| *value = 255.0);
    values
}

/// Half of the rows are zero, in the others every value is from 0 to 255.
fn byte_equal(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = byte_noise(rng, rows, dim);
    for row in values.chunks_exact_mut(dim) {
        if rng.random() {
            row.fill(0.0);
        }
    }
    values
}

/// Zeros and ones.
fn bits(rng: &mut ChaCha8Rng, rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim)
        .map(|_| f32::from(rng.random_range(0..2u8)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str, rows: usize) -> Vec<Vec<f32>> {
        let shape = find(name).unwrap();
        let base = shape.sample(rows, 5, shape.dim, 1).base;
        (0..base.len()).map(|row| base.row_to_floats(row)).collect()
    }

    fn norm(row: &[f32]) -> f64 {
        row.iter()
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt()
    }

    #[test]
    fn every_shape_has_a_name_of_its_own_and_gives_what_was_asked_for() {
        for shape in SHAPES {
            assert_eq!(find(shape.name).unwrap().breaks, shape.breaks);
            for dim in [1, 5, shape.dim] {
                let sample = shape.sample(40, 7, dim, 3);
                let sizes = [sample.base.len(), sample.queries.len()];
                assert_eq!(
                    (sizes, sample.base.dim(), sample.queries.dim()),
                    ([40, 7], dim, dim)
                );
            }
            let values = |seed| shape.sample(40, 7, 5, seed).base.to_floats();
            assert_eq!(values(1), values(1));
            assert_ne!(values(1), values(2));
        }
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        let rows = base("outlier_1e4", 200);
        assert!(norm(&rows[0]) > 1e4 && rows[1..].iter().all(|row| norm(row) < 20.0));
        let zero = |row: &&Vec<f32>| norm(row) == 0.0;
        let zeros = base("equal_90", 1_000).iter().filter(zero).count();
        assert!((850..950).contains(&zeros), "{zeros}");
        let mut kinds = base("three_kinds", 200);
        kinds.sort_by(|a, b| a[0].total_cmp(&b[0]));
        kinds.dedup();
        assert_eq!(kinds.len(), 3);
        let norms: Vec<f64> = base("sizes", 500).iter().map(|row| norm(row)).collect();
        let least = norms.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = norms.iter().copied().fold(0.0, f64::max);
        assert!(least < 3e-3 && greatest > 300.0, "{least} to {greatest}");
        assert!(
            base("tiny", 100)
                .iter()
                .flatten()
                .all(|value| value * value == 0.0)
        );
        assert!(
            base("huge", 100)
                .iter()
                .flatten()
                .all(|value| value.abs() < f32::MAX)
        );
    }
}
