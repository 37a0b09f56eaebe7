//! Which codes a base calls for: measured on some of its rows before anything is built.
//!
//! The naive way takes one kind of code for all data. But images lie near a few dozen directions,
//! sentence embeddings lie in all of them alike, and numbers on a line are closer than any code can
//! tell. So codes of each shape are tried on the pairs that matter, rows and their nearest ones:
//!
//! ```text
//! for some rows          the 10 nearest of each, exactly      (a batch of brute force)
//! for each shape         error = by how much its codes misjudge those distances,
//!                                in units of the distance of the 10th nearest
//! the shape is taken     whose walk would cost least
//! ```
//!
//! # What a walk costs
//! A walk expands what lies within some radius, and the codes' error widens it. The number of rows
//! within a radius grows with some power of it, which the distances of the 10th and the 100th
//! nearest tell. So the number of codes that are compared is about in proportion to
//! (1 + error)^power, and each costs a fixed part besides its cache lines.

use std::sync::Arc;

use super::codes::{Encoded, Encoder, Shape};
use crate::index::exact::{BruteForce, BruteForceParams};
use crate::index::support::projection::Projection;
use crate::index::{Build, Index};
use crate::math::pca::Pca;
use crate::neighbor::Candidate;
use crate::simd::graph_codes::{self, MOST_LINES};
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
/// What a comparison costs besides the cache lines of a code, in lines: an edge, the mark of what
/// was met, a place in the pool. By measurement on Fashion-MNIST's pixels.
const FIXED_LINES: f64 = 2.0;
/// The part of the sample whose errors are not counted: lone rows far from all others may be told
/// badly.
const LEFT_OUT: f64 = 0.05;
/// From this error on codes do not tell near rows from others: it is as large as half the distance
/// of the 10th nearest.
const BLIND: f64 = 0.5;

/// The codes chosen for a base.
#[derive(Debug)]
pub struct Plan {
    pub pca: Pca,
    pub shape: Shape,
    /// The root mean square of the error of a near row's distance, in units of the distance of the
    /// 10th nearest. Of one row or of equal rows: zero.
    pub error: f64,
}

impl Plan {
    /// Chooses codes for a base that is not empty; of `lines` cache lines, if that is given.
    pub fn choose(base: &Arc<Vectors>, lines: Option<usize>, seed: u64) -> Self {
        let pca = Projection::components(base, most_coordinates(base.dim()), seed);
        let trial = Trial::new(base);
        let power = trial.growth();
        let mut best: Option<(f64, Shape, f64)> = None;
        for shape in shapes(base.dim(), lines) {
            let fixed = FIXED_LINES + shape.lines as f64;
            // Shapes ascend by their lines: without any error this one would cost more than the
            // best.
            if best.is_some_and(|(cost, ..)| 200.0 * fixed >= cost) {
                break;
            }
            let errors = trial.error(&pca, shape, seed);
            let row_lines = (base.dim() * if base.bytes().is_some() { 1 } else { 4 }) as f64 / 64.0;
            let coords = shape.coordinates().min(base.dim()).next_multiple_of(64);
            let cost = 200.0 * fixed * errors.work(power, 0.7)
                + 10.0 * row_lines * errors.work(power, 1.4)
                + (base.dim() * coords) as f64 / 250.0;
            let error = errors.blind(power);
            if std::env::var("QG_CAL").is_ok() {
                println!("PLAN {shape:?} error {error:.4} power {power:.1} cost {cost:.3}");
            }
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, shape, error));
            }
        }
        let (_, shape, error) = best.expect("there is at least one shape");
        Self { pca, shape, error }
    }

    /// Whether the codes do not tell near rows from others.
    pub fn is_blind(&self) -> bool {
        self.error > BLIND
    }
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
            if std::env::var("QG_WIDE")
                .ok()
                .and_then(|v| v.parse::<usize>().ok())
                .is_some_and(|w| w != wide)
            {
                continue;
            }
            let shape = Shape {
                lines: of_lines,
                wide,
            };
            // Lines that no coordinate is left for say nothing.
            let shorter = Shape {
                lines: of_lines - 1,
                wide: wide.min(of_lines - 1),
            };
            if lines.is_some() || of_lines == 1 || shorter.coordinates() < dim {
                shapes.push(shape);
            }
        }
    }
    shapes
}

/// Rows of a base with their nearest rows.
struct Trial {
    /// Those rows, their nearest, and others.
    rows: Vectors,
    /// For each sampled row: its place in `rows`.
    sample: Vec<usize>,
    /// The places and reduced distances of its nearest rows.
    near: Vec<Vec<(usize, f64)>>,
    /// The distances of its 10th and its 100th nearest.
    radii: Vec<(f64, f64)>,
}

impl Trial {
    fn new(base: &Arc<Vectors>) -> Self {
        let sample: Vec<usize> = at_even_steps(base.len(), SAMPLE).collect();
        let mut ids = sample.clone();
        let (mut near, mut radii) = (Vec::new(), Vec::new());
        for (&row, found) in sample.iter().zip(nearest(base, &sample)) {
            let others: Vec<Candidate> = found
                .into_iter()
                .filter(|found| found.id as usize != row)
                .collect();
            let mut places = Vec::new();
            let far = others.len().saturating_sub(NEAR).max(NEAR);
            for candidate in others.iter().take(NEAR).chain(others.iter().skip(far)) {
                places.push((ids.len(), candidate.reduced));
                ids.push(candidate.id as usize);
            }
            let radius = |place: usize| others[place.min(others.len()) - 1].reduced.sqrt();
            if !others.is_empty() {
                radii.push((radius(NEAR), radius(FAR)));
            }
            near.push(places);
        }
        ids.extend(at_even_steps(base.len(), TRIAL_ROWS));
        Self {
            rows: base.select(&ids).expect("ids are rows of the base"),
            sample: (0..sample.len()).collect(),
            near,
            radii,
        }
    }

    /// The power with which the number of rows grows with the distance.
    fn growth(&self) -> f64 {
        let mut powers = Vec::new();
        for (near, far) in &self.radii {
            if *near > 0.0 && far > near {
                powers.push((FAR as f64 / NEAR as f64).ln() / (far / near).ln());
            }
        }
        powers.sort_unstable_by(f64::total_cmp);
        powers
            .get(powers.len() / 2)
            .copied()
            .unwrap_or(1.0)
            .min(50.0)
    }

    /// The error of codes of this shape: see [`Plan::error`].
    fn error(&self, pca: &Pca, shape: Shape, seed: u64) -> Errors {
        let encoded = Encoder::fit(&self.rows, pca, shape, seed);
        with_lines!(shape.lines, LINES => self.error_of::<LINES>(encoded))
    }

    fn error_of<const LINES: usize>(&self, encoded: Encoded) -> Errors {
        let (codes, scale) = (
            encoded.codes.as_chunks::<LINES>().0,
            encoded.encoder.scale(),
        );
        let (mut projected, mut distances) = (Default::default(), Vec::new());
        let (mut squares, mut radii) = (Vec::new(), Vec::new());
        for (&row, near) in self.sample.iter().zip(&self.near) {
            let Some(&(_, farthest)) = near.iter().take(NEAR).next_back() else {
                continue;
            };
            let values = self.rows.row_to_floats(row);
            let query = encoded.encoder.query::<LINES>(&values, &mut projected);
            let places: Vec<u32> = near.iter().map(|&(place, _)| place as u32).collect();
            graph_codes::score(&query, codes, &places, &mut distances);
            let mut errors = Vec::new();
            for (&distance, (_, reduced)) in distances.iter().zip(near) {
                errors.push(f64::from(distance).sqrt() - reduced.sqrt() * scale);
            }
            // What is added to all distances alike changes no order.
            let (near_errors, far_errors) = errors.split_at(errors.len().min(NEAR));
            let mean = far_errors.iter().sum::<f64>() / far_errors.len().max(1) as f64;
            squares.extend(near_errors.iter().map(|error| (error - mean).powi(2)));
            radii.push(farthest.sqrt() * scale);
        }
        squares.sort_unstable_by(f64::total_cmp);
        squares.truncate(squares.len() - (squares.len() as f64 * LEFT_OUT) as usize);
        let sum: f64 = squares.iter().sum();
        let deviation = (sum / squares.len().max(1) as f64).sqrt();
        Errors { deviation, radii }
    }
}

struct Errors {
    deviation: f64,
    radii: Vec<f64>,
}
impl Errors {
    fn work(&self, power: f64, factor: f64) -> f64 {
        let sum: f64 = self
            .radii
            .iter()
            .map(|r| {
                (1.0 + self.deviation * factor / r.max(f64::MIN_POSITIVE))
                    .powf(power)
                    .min(40.0)
            })
            .sum();
        sum / self.radii.len().max(1) as f64
    }
    fn blind(&self, power: f64) -> f64 {
        let c = self
            .radii
            .iter()
            .filter(|r| (1.0 + self.deviation / r.max(f64::MIN_POSITIVE)).powf(power) > 40.0)
            .count();
        c as f64 / self.radii.len().max(1) as f64
    }
}

/// The nearest rows of each of `sample`, itself among them.
fn nearest(base: &Arc<Vectors>, sample: &[usize]) -> Vec<Vec<Candidate>> {
    let scan = BruteForce::build(Arc::clone(base), BruteForceParams::default());
    let queries = base.select(sample).expect("rows of the base");
    scan.expect("the base is not empty")
        .search_batch(&queries, FAR + 1)
}

/// At most `count` numbers below `len`, the first zero.
fn at_even_steps(len: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len.div_ceil(count))
}
