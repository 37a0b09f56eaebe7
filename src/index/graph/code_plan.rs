//! Which codes a base calls for: measured on some of its rows before anything is built.
//!
//! The naive way takes one kind of code for all data. But images lie near a few dozen directions,
//! sentence embeddings lie in all of them alike, and numbers on a line are closer than any code can
//! tell. So codes of each shape are tried on the pairs that matter, rows and their nearest ones:
//!
//! ```text
//! for some rows          their nearest, exactly                 (a batch of brute force)
//! for each shape         error = by how much its codes misjudge those distances
//! the shape is taken     whose walk would cost least
//! ```
//!
//! # What a walk costs
//! A walk compares the codes of what lies within some radius, and then the rows within a somewhat
//! larger one. The error widens both. The number of rows within a radius grows with some *power* of
//! it, which the distances of the 10th and the 100th nearest tell: for a row whose 10th nearest is
//! at distance r, (1 + error / r)^power times as many are compared. In units of a cache line:
//!
//! ```text
//!   codes compared for the 10 nearest · (what a comparison costs + lines) · growth by the error
//! + 10 rows · lines of a row · growth by twice the error
//! + products of the query's projection / products in the time of a line
//! ```
//!
//! These figures are estimates, and shapes near the least cost differ little in speed. What matters
//! is that no shape is taken that is far from it.

use std::sync::Arc;

use super::codes::{Encoder, Shape};
use crate::index::exact::{BruteForce, BruteForceParams};
use crate::index::support::projection::Projection;
use crate::index::{Build, Index};
use crate::math::pca::Pca;
use crate::neighbor::Candidate;
use crate::simd::graph_codes::{self, CodeLine, MOST_LINES};
use crate::vectors::Vectors;

/// Rows whose near rows are looked at. Their ten nearest are 1,000 pairs: the standard deviation of
/// an error is then known to about 2 %.
const SAMPLE: usize = 100;
/// The nearest rows whose distances must be told: what most queries ask for.
const NEAR: usize = 10;
/// The growth of the number of rows with the distance is taken from the 10th to the 100th.
const FAR: usize = 100;
/// Rows from which the steps of a code are chosen while shapes are compared.
const TRIAL_ROWS: usize = 2_000;
/// Codes that are compared for ten neighbours, about: 275 on Fashion-MNIST's pixels at recall .987.
const CODES: f64 = 200.0;
/// What a comparison costs besides the cache lines of a code, in lines: an edge, the mark of what
/// was met, a place in the pool.
const FIXED_LINES: f64 = 2.0;
/// Products of a projection, in whole numbers, in the time of a line from memory.
const PRODUCTS_IN_A_LINE: f64 = 250.0;
/// A walk grows by this part of the error: what is too near by chance makes up for what is too far.
const OF_THE_ERROR: f64 = 0.7;
/// Rows are compared within so many errors of the k-th nearest.
const ERRORS_COMPARED: f64 = 2.0;
/// The growth counts up to here: a pool of 400 is full of what codes cannot tell from ten.
const MOST_GROWTH: f64 = 40.0;
/// The part of the errors that is not counted: lone rows far from all others may be told badly.
const LEFT_OUT: f64 = 0.05;
/// Codes that put fewer of the pairs of a near and a far row in their order tell little about this
/// row: half of them is chance.
const TELLING: f64 = 0.75;
/// Codes are blind if they tell little about more of the rows than this.
const MOST_BLIND: f64 = 0.08;

/// The codes chosen for a base, and what was measured.
#[derive(Debug)]
pub struct Plan {
    pub pca: Pca,
    pub shape: Shape,
    /// By how much codes misjudge the distance of a near row, in units of the data: the standard
    /// deviation, against rows a little farther away.
    pub error: f64,
    /// Rows of the base with their nearest.
    pub sample: Vec<Sampled>,
    /// The part of the sample about which the codes tell little.
    blind: f64,
}

/// A row of the base.
#[derive(Debug)]
pub struct Sampled {
    pub row: usize,
    /// Its ten nearest others by Euclidean distance, or all there are.
    pub near: Vec<Candidate>,
    /// The last ten of its hundred nearest, without those above.
    far: Vec<Candidate>,
}

impl Plan {
    /// Chooses codes for a base that is not empty; of `lines` cache lines, if that is given.
    pub fn choose(base: &Arc<Vectors>, lines: Option<usize>, seed: u64) -> Self {
        let pca = Projection::components(base, most_coordinates(base.dim()), seed);
        let sample = sample(base, SAMPLE);
        let trial = Trial::new(base, &sample);
        let mut best: Option<(f64, Shape, Errors)> = None;
        for shape in shapes(base.dim(), lines) {
            // Shapes ascend by their lines. This much a shape costs whose codes have no error.
            let least = cost(base, shape, 1.0, 1.0);
            if best.as_ref().is_some_and(|(cost, ..)| least >= *cost) {
                continue;
            }
            let errors = trial.errors(&pca, shape, seed);
            let walk = trial.growth(OF_THE_ERROR * errors.deviation);
            let rows = trial.growth(ERRORS_COMPARED * errors.deviation);
            let cost = cost(base, shape, walk, rows);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, shape, errors));
            }
        }
        let (_, shape, errors) = best.expect("there is at least one shape");
        Self {
            pca,
            shape,
            error: errors.deviation,
            sample,
            blind: errors.blind,
        }
    }

    /// Whether the codes do not tell near rows from others a little farther away.
    pub fn is_blind(&self) -> bool {
        self.blind > MOST_BLIND
    }
}

/// What a walk for ten neighbours costs, in cache lines, where the error of the codes lets the
/// number of codes and of rows grow by these factors.
fn cost(base: &Vectors, shape: Shape, codes: f64, rows: f64) -> f64 {
    let bytes = if base.bytes().is_some() { 1 } else { 4 };
    let row_lines = (base.dim() * bytes) as f64 / 64.0;
    // Sums are made 64 at a time.
    let sums = shape.coordinates().min(base.dim()).next_multiple_of(64);
    CODES * (FIXED_LINES + shape.lines as f64) * codes
        + NEAR as f64 * row_lines * rows
        + (base.dim() * sums) as f64 / PRODUCTS_IN_A_LINE
}

/// Coordinates of the longest code.
fn most_coordinates(dim: usize) -> usize {
    let longest = Shape {
        lines: MOST_LINES,
        wide: 0,
    };
    longest.coordinates().min(dim)
}

/// The shapes that are tried for vectors of `dim` values, by the number of lines; of `lines` lines
/// if that is given.
fn shapes(dim: usize, lines: Option<usize>) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for of_lines in 1..=MOST_LINES {
        if lines.is_some_and(|lines| lines != of_lines) {
            continue;
        }
        for wide in 0..=of_lines {
            let shorter = Shape {
                lines: of_lines - 1,
                wide: wide.min(of_lines - 1),
            };
            // The last line would hold no coordinate if the shorter code has room for all.
            if of_lines == 1 || shorter.coordinates() < dim || lines.is_some() {
                shapes.push(Shape {
                    lines: of_lines,
                    wide,
                });
            }
        }
    }
    shapes
}

/// About `count` rows of the base, with their nearest by brute force.
pub fn sample(base: &Arc<Vectors>, count: usize) -> Vec<Sampled> {
    let rows: Vec<usize> = at_even_steps(base.len(), count).collect();
    let queries = base.select(&rows).expect("rows of the base");
    let scan = BruteForce::build(Arc::clone(base), BruteForceParams::default());
    let found = scan
        .expect("the base is not empty")
        .search_batch(&queries, FAR + 1);
    let mut sample = Vec::new();
    for (&row, found) in rows.iter().zip(found) {
        // A row is among its own nearest. Of many copies, the copies of lower number may be all.
        let mut near: Vec<Candidate> = found;
        near.retain(|candidate| candidate.id as usize != row);
        near.truncate(FAR);
        let mut far = near.split_off(near.len().min(NEAR));
        far.drain(..far.len().saturating_sub(NEAR));
        sample.push(Sampled { row, near, far });
    }
    sample
}

/// At most `count` numbers below `len`, the first zero.
fn at_even_steps(len: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len.div_ceil(count))
}

/// What codes are tried on.
struct Trial<'a> {
    /// The sampled rows, in their order; after each of them its near and far rows; then others.
    rows: Vectors,
    sample: &'a [Sampled],
    /// The power with which the number of rows grows with the distance.
    power: f64,
}

/// How codes of a shape judge the sample.
struct Errors {
    /// See [`Plan::error`].
    deviation: f64,
    /// The part of the rows about which they tell little.
    blind: f64,
}

impl<'a> Trial<'a> {
    fn new(base: &Vectors, sample: &'a [Sampled]) -> Self {
        let mut ids = Vec::new();
        for sampled in sample {
            ids.push(sampled.row);
            let others = sampled.near.iter().chain(&sampled.far);
            ids.extend(others.map(|candidate| candidate.id as usize));
        }
        ids.extend(at_even_steps(base.len(), TRIAL_ROWS));
        Self {
            rows: base.select(&ids).expect("rows of the base"),
            sample,
            power: power(sample),
        }
    }

    /// By how much the number of rows within reach grows on average if the radius of the 10th
    /// nearest grows by `error`.
    fn growth(&self, error: f64) -> f64 {
        let mut sum = 0.0;
        for sampled in self.sample {
            let radius = sampled.near.last().map_or(0.0, |last| last.reduced.sqrt());
            // Equal rows have a radius of zero, and the growth is the largest; without any error
            // there is none.
            let widened = if error > 0.0 {
                1.0 + error / radius
            } else {
                1.0
            };
            sum += widened.powf(self.power).min(MOST_GROWTH);
        }
        sum / self.sample.len() as f64
    }

    fn errors(&self, pca: &Pca, shape: Shape, seed: u64) -> Errors {
        let (encoder, coordinates) = Encoder::fit(&self.rows, pca, shape, seed);
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let codes = encoder.encode(&coordinates, &all);
        with_lines!(shape.lines, LINES => self.errors_of::<LINES>(&encoder, &codes))
    }

    fn errors_of<const LINES: usize>(&self, encoder: &Encoder, codes: &[CodeLine]) -> Errors {
        let codes = codes.as_chunks::<LINES>().0;
        let mut squares = Vec::new();
        let (mut projected, mut estimates) = (Default::default(), Vec::new());
        let (mut start, mut blind) = (0, 0);
        for sampled in self.sample {
            let query = self.rows.row_to_floats(start);
            let query = encoder.query::<LINES>(&query, &mut projected);
            let others = start + 1..start + 1 + sampled.near.len() + sampled.far.len();
            estimates.clear();
            graph_codes::scan(&query, &codes[others.clone()], &mut estimates);
            start = others.end;
            squares.extend(squared_errors(sampled, &estimates, encoder.scale()));
            blind += usize::from(in_order(sampled, &estimates) < TELLING);
        }
        squares.sort_unstable_by(f64::total_cmp);
        squares.truncate(squares.len() - (squares.len() as f64 * LEFT_OUT) as usize);
        let sum: f64 = squares.iter().sum();
        Errors {
            deviation: (sum / squares.len().max(1) as f64).sqrt(),
            blind: blind as f64 / self.sample.len() as f64,
        }
    }
}

/// The median over the sample: the number of rows grows tenfold from the 10th to the 100th.
fn power(sample: &[Sampled]) -> f64 {
    let mut powers = Vec::new();
    for Sampled { near, far, .. } in sample {
        if let (Some(near), Some(far)) = (near.last(), far.last())
            && near.reduced > 0.0
            && far.reduced > near.reduced
        {
            // Reduced distances are squares.
            let ratio = (far.reduced / near.reduced).sqrt();
            powers.push((FAR as f64 / NEAR as f64).ln() / ratio.ln());
        }
    }
    powers.sort_unstable_by(f64::total_cmp);
    let median = powers.get(powers.len() / 2).copied();
    // Above, all rows are as good as equally far.
    median.unwrap_or(1.0).min(50.0)
}

/// The squared error of the distance of each near row, in units of the data.
fn squared_errors<'a>(
    sampled: &'a Sampled,
    estimates: &'a [u32],
    scale: f64,
) -> impl Iterator<Item = f64> + 'a {
    let all = sampled.near.iter().chain(&sampled.far);
    let errors: Vec<f64> = all
        .zip(estimates)
        .map(|(candidate, &estimate)| f64::from(estimate).sqrt() / scale - candidate.reduced.sqrt())
        .collect();
    // What is added to the distances of far rows too changes no order.
    let (near, far) = errors.split_at(sampled.near.len());
    let shift = far.iter().sum::<f64>() / far.len().max(1) as f64;
    let near = near.to_vec();
    near.into_iter().map(move |error| (error - shift).powi(2))
}

/// The part of the pairs of a near and a far row that the estimates put in their order, ties half;
/// one if there is no such pair.
fn in_order(sampled: &Sampled, estimates: &[u32]) -> f64 {
    let (near, far) = estimates.split_at(sampled.near.len());
    let mut points = 0;
    for near in near {
        for far in far {
            points += usize::from(near < far) + usize::from(near <= far);
        }
    }
    let pairs = near.len() * far.len();
    if pairs == 0 {
        1.0
    } else {
        points as f64 / (2 * pairs) as f64
    }
}
