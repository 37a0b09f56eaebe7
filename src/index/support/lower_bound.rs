//! [`Sketch`]: a short vector for each row whose distances never exceed the true ones.
//!
//! The naive form compares a query with each row that an index comes by:
//!
//! ```text
//! for x in rows { if d(q, x) < threshold { keep(x) } }        d values a row
//! ```
//!
//! A map φ with ‖φ(x) − φ(y)‖ ≤ ‖x − y‖, a *contraction*, lets an index reject a
//! row without looking at it: where the distance of the sketches is above the k-th best so far,
//! that of the rows is too.
//!
//! ```text
//! for x in rows {
//!     if ‖φ(q) − φ(x)‖ > threshold { continue }               32 values a row
//!     if d(q, x) < threshold { keep(x) }                      d values, for few rows
//! }
//! ```
//!
//! There is one map for each metric:
//!
//! - Euclidean: the first m principal components, and as last coordinate the norm of what they
//!   leave out. With Pₘx the components of x and x⊥ the rest, in an orthonormal basis
//!
//!   ```text
//!   ‖x − y‖² = ‖Pₘx − Pₘy‖² + ‖x⊥ − y⊥‖²
//!            ≥ ‖Pₘx − Pₘy‖² + (‖x⊥‖ − ‖y⊥‖)²
//!   ```
//!
//!   This is the lower bound of the VA⁺-file (H. Ferhatosmanoglu, E. Tuncel, D. Agrawal and A. El
//!   Abbadi, *Vector Approximation based Indexing for Non-uniform High Dimensional Data Sets*, CIKM
//!   2000) without its quantisation.
//! - Manhattan: sums over m runs of neighbouring coordinates, since |Σ(xᵢ − yᵢ)| ≤ Σ|xᵢ
//!   − yᵢ|. It tells much where neighbouring coordinates go together, as pixels do (B.-K. Yi
//!   and C. Faloutsos, *Fast Time Sequence Indexing for Arbitrary Lp Norms*, VLDB 2000).
//!
//! Sketches are f32 and rounded. [`SketchedQuery::radius`] widens the k-th best distance by all
//! that rounding can do, so that a true neighbour is never rejected.
//!
//! What it is bad at: data whose variance is spread evenly over all dimensions. Few components then
//! carry little, the bounds are far below the distances, and each row is compared after all.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::distance::Norm;
use crate::error::BuildError;
use crate::index::parts::{PartError, expect, saved};
use crate::math::pca::{Pca, PcaOptions};
use crate::simd::LINE_WORDS;
use crate::simd::lower_bound::{self as kernels, LANES};
use crate::vectors::{Row, Vectors};

/// Half a unit in the last place, relative: what rounding to the nearest f32 or f64 can do.
const HALF_ULP_32: f64 = f32::EPSILON as f64 / 2.0;
const HALF_ULP_64: f64 = f64::EPSILON / 2.0;

/// Beyond so many times the radius of the data, a query's rounding error leaves nothing to prune
/// with.
const FARTHEST_QUERY: f64 = 1e6;

/// The map from rows to sketches.
#[derive(Debug, Clone)]
pub struct Sketch {
    norm: Norm,
    mean: Vec<f64>,
    /// m × d, the first principal components; empty for Manhattan.
    components: Vec<f64>,
    /// Coordinates of a sketch.
    width: usize,
    /// Sketches are multiplied by this power of two, so that they lie in the unit ball whatever the
    /// data's magnitude.
    scale: f64,
    /// How much the map may expand a distance after all, relatively: the components are orthonormal
    /// but for rounding.
    expansion: f64,
    /// The most that rounding moved a sketch of the base, in the metric.
    slack: f64,
}

/// The sketches of a base, one after the other.
#[derive(Debug, Clone)]
pub struct Sketched {
    /// The map that made them.
    pub sketch: Sketch,
    /// n × width.
    pub rows: Vec<f32>,
}

/// The sketch of a query.
#[derive(Debug, Clone)]
pub struct SketchedQuery {
    norm: Norm,
    /// `width` values.
    pub values: Vec<f32>,
    scale: f64,
    /// Relative and absolute error between a distance of stored sketches and one of true sketches.
    expansion: f64,
    slack: f64,
}

/// The k-th best distance in the space of the sketches: what is beyond cannot be a neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Radius {
    /// As a distance.
    pub distance: f32,
    /// As a reduced distance: squared for Euclidean.
    pub reduced: f32,
}

impl Radius {
    /// Nothing is beyond.
    pub const INFINITE: Self = Self {
        distance: f32::INFINITY,
        reduced: f32::INFINITY,
    };
}

saved!(Sketch {
    norm,
    mean,
    components,
    width,
    scale,
    expansion,
    slack
});

impl Sketch {
    /// Fits the map to `base` and applies it to all rows. At most d components are kept.
    pub fn fit(base: &Vectors, norm: Norm, components: usize) -> Result<Sketched, BuildError> {
        if components == 0 {
            return Err(BuildError::InvalidParameter {
                name: "components",
                received: 0.0,
                expected: "at least 1",
            });
        }
        let kept = components.min(base.dim());
        let sketch = match norm {
            Norm::L2 => Self::of_components(&components_of(base, kept)?, kept),
            Norm::L1 => Self::of_runs(base, kept),
        };
        Ok(sketch.apply(base))
    }

    /// Fits the Euclidean map with as many components as carry `share` (0 to 1) of the variance, or
    /// the nearest number `within` the range, and applies it to all rows. With the norm of the
    /// rest, a sketch fills whole cache lines.
    pub fn carrying(
        base: &Vectors,
        share: f64,
        within: RangeInclusive<usize>,
    ) -> Result<Sketched, BuildError> {
        let pca = components_of(base, *within.end())?;
        let filled = (pca.components_for(share) + 1).next_multiple_of(LINE_WORDS) - 1;
        let kept = filled.clamp(*within.start(), *within.end());
        Ok(Self::of_components(&pca, kept.min(base.dim())).apply(base))
    }

    /// Applies the map to all rows of `base`, which it was fitted to.
    fn apply(mut self, base: &Vectors) -> Sketched {
        // The scale first: sketches are rounded to f32 after they are scaled. The slack is then the
        // largest error of any row, so one number serves all of them.
        self.scale = self.scale_for(base);
        let mut rows = vec![0.0; base.len() * self.width];
        self.slack = rows
            .par_chunks_mut(self.width)
            .enumerate()
            .map(|(row, out)| self.embed(base.row(row), self.scale, out))
            .reduce(|| 0.0, f64::max);
        Sketched { sketch: self, rows }
    }

    /// The map to the first `kept` of the principal components, in units of the data.
    fn of_components(pca: &Pca, kept: usize) -> Self {
        let dim = pca.dim();
        let rotation = pca.rotation();
        Self {
            norm: Norm::L2,
            mean: pca.mean().to_vec(),
            components: rotation.iter().take(kept * dim).copied().collect(),
            // All of the components leave nothing out.
            width: if kept < dim { kept + 1 } else { kept },
            scale: 1.0,
            expansion: pca.orthonormality_error(),
            slack: 0.0,
        }
    }

    /// The map to sums over `kept` runs of coordinates, in units of the data.
    fn of_runs(base: &Vectors, kept: usize) -> Self {
        Self {
            norm: Norm::L1,
            mean: crate::math::pca::mean(base).to_vec(),
            components: Vec::new(),
            width: kept,
            scale: 1.0,
            expansion: 0.0,
            slack: 0.0,
        }
    }

    /// Refuses a map that is none of vectors of dimension `dim`.
    ///
    /// # Errors
    /// If it is.
    pub fn check(&self, dim: usize) -> Result<(), PartError> {
        let components = self.components.len();
        let kept = components / dim;
        let whole = match self.norm {
            Norm::L2 => {
                let width = if kept < dim { kept + 1 } else { kept };
                (1..=dim).contains(&kept) && components == kept * dim && self.width == width
            }
            Norm::L1 => components == 0 && (1..=dim).contains(&self.width),
        };
        expect(
            whole && self.mean.len() == dim,
            "sketch",
            "a map of the vectors",
        )
    }

    /// The norm in which distances of sketches are bounds.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// Coordinates of a sketch.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Coordinates of a sketch without the norm of what they leave out.
    pub fn components(&self) -> usize {
        self.width.min(if self.components.is_empty() {
            self.width
        } else {
            self.components.len() / self.mean.len()
        })
    }

    /// The plane `normal`·φ(x) = 0 of the sketches, as a plane n·x + s = 0 of the data: n and s
    /// (Euclidean).
    pub fn plane(&self, normal: &[f32]) -> (Vec<f64>, f64) {
        let mut turned = vec![0.0; self.mean.len()];
        // With φ(x) = scale · P·(x − mean), the normal in the data's space is scale ·
        // Pᵀ·normal. The loop sums it up; the shift is its product with −mean.
        for (component, &value) in self.components.chunks_exact(self.mean.len()).zip(normal) {
            for (t, c) in turned.iter_mut().zip(component) {
                *t += c * f64::from(value) * self.scale;
            }
        }
        let shift = -turned
            .iter()
            .zip(&self.mean)
            .map(|(t, m)| t * m)
            .sum::<f64>();
        (turned, shift)
    }

    /// Bytes that the map takes.
    pub fn memory_bytes(&self) -> usize {
        (self.mean.len() + self.components.len()) * size_of::<f64>()
    }

    /// The point of the data's space whose sketch this is, if nothing was left out; else the
    /// nearest to the mean.
    pub fn locate(&self, values: &[f32]) -> Vec<f64> {
        let dim = self.mean.len();
        let mut place = self.mean.clone();
        match self.norm {
            Norm::L2 => {
                for (component, &value) in self.components.chunks_exact(dim).zip(values) {
                    // The transpose of the map: so much of each component is added to the mean.
                    for (p, c) in place.iter_mut().zip(component) {
                        *p += c * f64::from(value) / self.scale;
                    }
                }
            }
            Norm::L1 => {
                for (run, &value) in values.iter().enumerate() {
                    let (start, end) = self.run(run);
                    // The sum is shared out evenly, for the sketch does not tell which coordinate
                    // has it.
                    let share = f64::from(value) / self.scale / (end - start) as f64;
                    place[start..end].iter_mut().for_each(|p| *p += share);
                }
            }
        }
        place
    }

    /// A distance of sketches, in units of the data.
    pub fn length(&self, distance: f32) -> f64 {
        f64::from(distance) / self.scale
    }

    /// The coordinates that sketch coordinate `run` sums (Manhattan).
    fn run(&self, run: usize) -> (usize, usize) {
        (
            // Multiplied before it is divided: the runs cover all coordinates, and their lengths
            // differ by one at most.
            run * self.mean.len() / self.width,
            (run + 1) * self.mean.len() / self.width,
        )
    }

    /// The power of two that brings the farthest row to between a half and one from the mean.
    fn scale_for(&self, base: &Vectors) -> f64 {
        // A power of two, since multiplying by it rounds nothing.
        let farthest = (0..base.len())
            .into_par_iter()
            .map(|row| length(self.norm, &centred(base.row(row), &self.mean)))
            .reduce(|| 0.0, f64::max);
        if farthest == 0.0 {
            1.0
        } else {
            2f64.powi(-(farthest.log2().ceil() as i32))
        }
    }

    /// Writes the sketch of `row`, multiplied by `scale`; returns the most that rounding has moved
    /// it, in the metric.
    fn embed(&self, row: Row<'_>, scale: f64, out: &mut [f32]) -> f64 {
        // In f64 from the difference on: f32 comes in only where a coordinate is written.
        // `rounding` below adds up what each step can have moved the sketch.
        let centred = centred(row, &self.mean);
        let norm = length(self.norm, &centred) * scale;
        match self.norm {
            Norm::L2 => self.embed_components(&centred, norm, scale, out),
            Norm::L1 => self.embed_runs(&centred, norm, scale, out),
        }
    }

    /// [`Sketch::embed`] by principal components and the norm of what they leave out.
    fn embed_components(&self, centred: &[f64], norm: f64, scale: f64, out: &mut [f32]) -> f64 {
        let dim = centred.len() as f64;
        let width = self.width as f64;
        let kept = self.components.len() / self.mean.len();
        let mut carried = 0.0;
        let components = self.components.chunks_exact(self.mean.len());
        for (out, component) in out.iter_mut().zip(components) {
            // The squares are of the values before they are rounded to f32, so that the rest does
            // not inherit that error.
            let value = kernels::dot(component, centred) * scale;
            carried += value * value;
            *out = value as f32;
        }
        // The dot products round: at most d + 2 roundings of values that sum to no more than the
        // norm, each component. Then every coordinate rounds to f32, once more where a tree sums
        // some up, and may vanish below its smallest number.
        let products = HALF_ULP_64 * (dim + 4.0) * width.sqrt();
        let rounding = (products + 4.0 * HALF_ULP_32) * norm + 1e-40;
        if self.width == kept {
            return rounding;
        }
        // Pythagoras. Cancellation, or components that are not quite orthonormal, can make it
        // slightly negative.
        let rest = (norm * norm - carried).max(0.0);
        out[kept] = rest.sqrt() as f32;
        // √ is steep at 0: an error e of its argument moves it by √e there, by e/√rest
        // further out.
        let error = norm * norm * (self.expansion + 8.0 * HALF_ULP_64 * (dim + width));
        // The smaller of two upper bounds of one error.
        let rest_rounding = if rest > 0.0 {
            error.sqrt().min(error / rest.sqrt())
        } else {
            error.sqrt()
        };
        rounding + rest_rounding
    }

    /// [`Sketch::embed`] by sums over runs of coordinates.
    fn embed_runs(&self, centred: &[f64], norm: f64, scale: f64, out: &mut [f32]) -> f64 {
        let dim = centred.len() as f64;
        for (run, out) in out.iter_mut().enumerate() {
            let (start, end) = self.run(run);
            *out = (centred[start..end].iter().sum::<f64>() * scale) as f32;
        }
        // Here the norm is the sum of all absolute values, and the error the sum over all
        // coordinates.
        HALF_ULP_64 * (dim + 4.0) * norm + 2.0 * HALF_ULP_32 * norm + 1e-40 * self.width as f64
    }

    /// The sketch of a query of dimension d.
    pub fn query(&self, query: Row<'_>) -> SketchedQuery {
        // The same map as for the rows, and the query's own rounding is added to the slack: the
        // bound must hold for the pair of both.
        let mut values = vec![0.0; self.width];
        let norm = length(self.norm, &centred(query, &self.mean)) * self.scale;
        // From too far away only the direction counts.
        let nearer = if norm > FARTHEST_QUERY {
            FARTHEST_QUERY / norm
        } else {
            1.0
        };
        let slack = self.embed(query, self.scale * nearer, &mut values);
        // A query that was moved has no bound any more. An infinite slack makes the radius
        // infinite: nothing is rejected, and each row is compared.
        let slack = if nearer < 1.0 {
            f64::INFINITY
        } else {
            slack + self.slack
        };
        // Distances of sketches are summed in f32, by our kernels and by kiddo (whose tree adds two
        // roundings a level).
        let summing = (self.width as f64 + 256.0) * 2.0 * HALF_ULP_32;
        SketchedQuery {
            norm: self.norm,
            values,
            scale: self.scale,
            // 1e-9 is far more than the f64 arithmetic of distances and of the radius rounds off,
            // up to a million dimensions.
            expansion: (1.0 + self.expansion + 1e-9) * (1.0 + summing),
            slack,
        }
    }
}

/// The mean of `base` and its first principal components.
fn components_of(base: &Vectors, components: usize) -> Result<Pca, BuildError> {
    let options = PcaOptions {
        components,
        ..PcaOptions::default()
    };
    Ok(Pca::fit(base, &options)?)
}

impl SketchedQuery {
    /// How far sketches of neighbours can be, if the k-th best so far has this reduced distance.
    #[inline]
    pub fn radius(&self, reduced: f64) -> Radius {
        if reduced == f64::INFINITY || self.slack == f64::INFINITY {
            return Radius::INFINITE;
        }
        // The true distance in units of the sketches; more by what rounding may have added on both
        // sides, absolutely and relatively.
        let distance = (self.norm.metric().distance_of_reduced(reduced) * self.scale + self.slack)
            * self.expansion;
        let reduced = match self.norm {
            Norm::L2 => distance * distance,
            Norm::L1 => distance,
        };
        // Rounded up, so that nothing on the border is lost.
        Radius {
            distance: (distance as f32).next_up(),
            reduced: (reduced as f32).next_up(),
        }
    }
}

/// Sketches in groups of [`LANES`], coordinate by coordinate within a group, so that one register
/// holds the same coordinate of eight rows:
///
/// ```text
/// group 0                                         group 1
/// x₀[0] x₁[0] … x₁₅[0] | x₀[1] x₁[1] … x₁₅[1] | … x₁₆[0] x₁₇[0] …
/// ```
#[derive(Debug, Clone)]
pub struct Lanes {
    width: usize,
    values: Vec<f32>,
}

saved!(Lanes { width, values });

impl Lanes {
    /// Rearranges the sketches of the rows `order`, in that order.
    pub fn new(sketched: &Sketched, order: &[u32]) -> Self {
        let width = sketched.sketch.width;
        // The last group is filled up with zeros. Whoever scans it cuts off what is after the last
        // row.
        let mut values = vec![0.0; order.len().div_ceil(LANES) * LANES * width];
        for (group, rows) in values
            .chunks_exact_mut(LANES * width)
            .zip(order.chunks(LANES))
        {
            for (lane, &row) in rows.iter().enumerate() {
                // Transposed: coordinate i of all rows of the group, then coordinate i + 1.
                let sketch = &sketched.rows[row as usize * width..][..width];
                for (i, &value) in sketch.iter().enumerate() {
                    group[i * LANES + lane] = value;
                }
            }
        }
        Self { width, values }
    }

    /// Refuses what are not the sketches of `rows` rows, of `width` coordinates each.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, rows: usize, width: usize) -> Result<(), PartError> {
        let values = rows.div_ceil(LANES) * LANES * width;
        let fit = self.width == width && self.values.len() == values;
        expect(fit, "lanes", "a sketch for each row")
    }

    /// The groups with the rows `start..end` of the order; `start` is a multiple of [`LANES`].
    pub fn groups(&self, start: usize, end: usize) -> &[f32] {
        debug_assert!(start.is_multiple_of(LANES));
        &self.values[start * self.width..end.next_multiple_of(LANES) * self.width]
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}

/// The row less the mean.
#[inline]
fn centred(row: Row<'_>, mean: &[f64]) -> Vec<f64> {
    match row {
        Row::Bytes(row) => kernels::centre_bytes(row, mean),
        Row::Floats(row) => kernels::centre_floats(row, mean),
    }
}

/// The distance of a centred row to the origin.
#[inline]
fn length(norm: Norm, centred: &[f64]) -> f64 {
    match norm {
        Norm::L2 => kernels::euclidean_norm(centred),
        Norm::L1 => kernels::manhattan_norm(centred),
    }
}
