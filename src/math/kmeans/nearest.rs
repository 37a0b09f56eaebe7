//! [`Centroids`]: the nearest centroids of many rows, by matrix products, and yet the nearest.
//!
//! The naive form compares each row x with each centroid c by differences, in f64:
//!
//! ```text
//! for x in rows { for c in centroids { distance(x, c) = Σ (xᵢ − cᵢ)² } }
//! ```
//!
//! Leaving ‖x‖² out, which is the same for all centroids, one compares ‖c‖² − 2·x·c,
//! and the products x·c are one matrix product, at many times the speed. But they *cancel*: far
//! from the origin the terms are large, their difference is small, and the rounding of the terms is
//! all that is left of it. So the products only exclude, and never decide:
//!
//! ```text
//! 1. f32 products    each distance lies within ± what rounding can do, from ‖x‖ and ‖c‖
//!                    one centroid below all others by more than that: it is the nearest
//! 2. f64 products    the same again, for a row for which step 1 leaves many centroids
//! 3. differences     in f64, of the few that are left
//! ```
//!
//! On ordinary data step 1 settles nearly every row. Rows and centroids are moved first, so that
//! the median of the centroids is the origin: their mean would follow a single one far away. They
//! are also multiplied by a power of two, so that squares of very large or very small values
//! neither overflow nor vanish in f32.
//!
//! The bound of step 1 is that of N. J. Higham, *Accuracy and Stability of Numerical Algorithms*,
//! 2nd ed., SIAM 2002, section 3.1: a sum of d products, added in any order, is off by at most
//! γ·‖x‖·‖c‖, where γ = d·u / (1 − d·u), and the unit roundoff u is 2⁻²⁴
//! in f32 and 2⁻⁵³ in f64.

use std::cmp::Ordering;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, LinalgScalar};
use rayon::prelude::*;

use super::group;
use crate::distance::Metric;
use crate::progress::Stage;
use crate::vectors::{Row, Vectors};

/// Rows that are compared with all centroids in one matrix product. Their distances take 256 · k
/// floats, 256 kB for 256 centroids: they stay in the second-level cache until the nearest is
/// picked.
const BLOCK: usize = 256;

/// Centroids that are compared by differences whatever their number: fewer are not worth a product
/// in f64.
const FEW: usize = 8;

/// One centroid in so many: if more are left, a product in f64 with all of them costs less than
/// differences with each one that is left.
const MANY: usize = 8;

/// Binary exponent to which the largest coordinate of a moved centroid is brought. The squares of
/// all that is above 2⁻⁸⁰ times as much are then above 2⁻¹⁰⁰, and ‖x‖·‖c‖
/// does not overflow for any row whose square is finite.
const EXPONENT: i32 = 30;

/// The type in which products are taken.
trait Real: LinalgScalar + From<f32> + Into<f64> + PartialOrd + Send + Sync {
    /// u, the largest relative error of a rounding.
    const ROUNDOFF: f64;
    /// More than what a product of two moved values can lose below the smallest number.
    const VANISHING: f64;
    /// No number is above it.
    const INFINITY: Self;

    fn rounded(value: f64) -> Self;
}

impl Real for f32 {
    const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;
    // What vanishes is off by 2⁻¹⁵⁰: a value of a row, to be multiplied by 2³⁰ at most;
    // one of a centroid, to be multiplied by the row's length; or a product.
    const VANISHING: f64 = 1.0 / (1u128 << 100) as f64;
    const INFINITY: Self = Self::INFINITY;

    fn rounded(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    const ROUNDOFF: f64 = f64::EPSILON / 2.0;
    // Products of f32, times a power of two that fits in f32, are far above its smallest number.
    const VANISHING: f64 = 0.0;
    const INFINITY: Self = Self::INFINITY;

    fn rounded(value: f64) -> Self {
        value
    }
}

/// Centroids, ready to be compared with rows.
#[derive(Debug, Clone)]
pub(super) struct Centroids {
    /// k × d, as they were given.
    points: Array2<f32>,
    /// The power of two by which everything is multiplied.
    scale: f32,
    /// The median of the centroids, times the scale.
    origin: Vec<f32>,
    /// The numbers of equal centroids are together: for each distinct one, where they start in
    /// `members`. So rows are compared with one of them, and copies are not in each other's way.
    starts: Vec<usize>,
    members: Vec<u32>,
    /// The distinct centroids, moved.
    moved: Moved<f32>,
}

/// Centroids less the origin, with what their products need.
#[derive(Debug, Clone)]
struct Moved<T> {
    points: Array2<T>,
    /// ‖c‖², less what rounding can do that does not depend on the row, and more by that.
    low: Vec<T>,
    high: Vec<T>,
    /// What rounding can do besides, for a row of length one.
    per_length: Vec<T>,
}

/// How far one row is from the origin.
struct Length<T> {
    /// At least ‖x‖.
    norm: T,
    /// At least what differences in f64 may be off by, for ‖x‖²: these have the last word, and
    /// no centroid that they would choose may be excluded.
    slack: T,
}

impl Centroids {
    pub(super) fn new(points: Array2<f32>) -> Self {
        let (starts, members) = equal_rows(points.view());
        let mut centroids = Self {
            scale: 1.0,
            origin: median(points.view()),
            moved: Moved {
                points: Array2::zeros((0, 0)),
                low: Vec::new(),
                high: Vec::new(),
                per_length: Vec::new(),
            },
            points,
            starts,
            members,
        };
        centroids.scale = centroids.scale();
        for value in &mut centroids.origin {
            *value *= centroids.scale;
        }
        centroids.moved = centroids.moved();
        centroids
    }

    pub(super) fn points(&self) -> ArrayView2<'_, f32> {
        self.points.view()
    }

    /// The number of distinct centroids.
    fn distinct(&self) -> usize {
        self.starts.len() - 1
    }

    /// The numbers of all centroids that are equal to distinct one `i`, ascending.
    fn copies(&self, i: usize) -> &[u32] {
        &self.members[self.starts[i]..self.starts[i + 1]]
    }

    /// Distinct centroid `i` as it was given.
    fn point(&self, i: usize) -> &[f32] {
        let row = self.points.row(self.copies(i)[0] as usize);
        row.to_slice().expect("made in row order")
    }

    /// The power of two that brings the largest coordinate, seen from the origin, to 2³⁰.
    fn scale(&self) -> f32 {
        let mut largest = 0.0f64;
        for row in self.points.rows() {
            for (&value, &origin) in row.iter().zip(&self.origin) {
                largest = largest.max((f64::from(value) - f64::from(origin)).abs());
            }
        }
        if largest == 0.0 {
            return 1.0;
        }
        // The scale itself has to be a number of f32, and not one of the smallest ones, for those
        // are slow. At the limit, the values still lie well within what f32 can square.
        let exponent = EXPONENT - largest.log2().ceil() as i32;
        2f32.powi(exponent.clamp(-126, 126))
    }

    /// The distinct centroids less the origin.
    fn moved<T: Real>(&self) -> Moved<T> {
        let dim = self.points.ncols();
        let mut values = Vec::with_capacity(self.distinct() * dim);
        for i in 0..self.distinct() {
            self.push_moved(&mut values, self.point(i));
        }
        let points = Array2::from_shape_vec((self.distinct(), dim), values).expect("whole rows");
        let mut moved = Moved {
            points,
            low: Vec::new(),
            high: Vec::new(),
            per_length: Vec::new(),
        };
        for i in 0..self.distinct() {
            moved.push_bounds(self.squared_length(i), dim);
        }
        moved
    }

    /// ‖c‖² of a distinct centroid, from the origin and in units of the scale.
    fn squared_length(&self, i: usize) -> f64 {
        let scale = f64::from(self.scale);
        let mut sum = 0.0;
        for (&value, &origin) in self.point(i).iter().zip(&self.origin) {
            let moved = f64::from(value) * scale - f64::from(origin);
            sum += moved * moved;
        }
        sum
    }

    /// Appends values · scale − origin.
    fn push_moved<T: Real, V: Copy + Into<f32>>(&self, moved: &mut Vec<T>, values: &[V]) {
        let scale = T::from(self.scale);
        let pairs = values.iter().zip(&self.origin);
        moved.extend(pairs.map(|(&value, &origin)| {
            let value: f32 = value.into();
            T::from(value) * scale - T::from(origin)
        }));
    }

    /// The nearest centroid of each row, ties to the lower number.
    pub(super) fn nearest(&self, data: &Vectors) -> Vec<u32> {
        let pick = |row: Row<'_>, left: &[u32]| {
            let mut nearest = left[0];
            // Mostly one is left, and no distance need be known.
            if left.len() > 1 {
                let mut least = f64::INFINITY;
                for &i in left {
                    let distance = self.distance(row, i as usize);
                    // Strictly nearer, so that ties go to the lower number.
                    if distance < least {
                        (least, nearest) = (distance, i);
                    }
                }
            }
            self.copies(nearest as usize)[0]
        };
        self.by_row(data, 1, pick, |numbers| numbers)
    }

    /// The `count` nearest centroids of each row, or all there are, nearest first, ties to the
    /// lower number. Row after row: a list for each would take several times the memory.
    pub(super) fn nearest_many(&self, data: &Vectors, count: usize) -> Vec<u32> {
        let count = count.min(self.points.nrows());
        let pick = |row: Row<'_>, left: &[u32]| {
            let mut near = Vec::with_capacity(left.len());
            for &i in left {
                let distance = self.distance(row, i as usize);
                near.extend(self.copies(i as usize).iter().map(|&copy| (distance, copy)));
            }
            near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            near.truncate(count);
            near.into_iter().map(|(_, centroid)| centroid).collect()
        };
        self.by_row(data, count, pick, |lists: Vec<Vec<u32>>| lists.concat())
    }

    /// The squared distance of a row and a distinct centroid, by differences in f64.
    fn distance(&self, row: Row<'_>, i: usize) -> f64 {
        match row {
            Row::Bytes(row) => Metric::Euclidean.reduced_mixed(self.point(i), row),
            Row::Floats(row) => Metric::Euclidean.reduced(self.point(i), row),
        }
    }

    /// `pick` of each row and the numbers, ascending, of the distinct centroids that may be among
    /// its `count` nearest. There are at least `count` of them, if there are so many. Blocks of
    /// rows are done in parallel, and `pack` makes one list of what a block has.
    fn by_row<R>(
        &self,
        data: &Vectors,
        count: usize,
        pick: impl Fn(Row<'_>, &[u32]) -> R + Sync,
        pack: impl Fn(Vec<R>) -> Vec<u32> + Sync,
    ) -> Vec<u32> {
        let dim = self.points.ncols();
        assert_eq!(data.dim(), dim, "vectors of the dimension of the centroids");
        // Blocks of a fixed size, in order: the result does not depend on the threads. Only one
        // block of distances a thread is in memory, not all n · k.
        let stage = Stage::new("k-means", data.len().div_ceil(BLOCK));
        let blocks: Vec<Vec<u32>> = (0..data.len().div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let end = ((block + 1) * BLOCK).min(data.len());
                let found = self.block(data, block * BLOCK..end, count, &pick);
                stage.advance(1);
                pack(found)
            })
            .collect();
        blocks.concat()
    }

    /// The share of some rows for which products in f32 leave few centroids.
    pub(super) fn settled(&self, data: &Vectors) -> f64 {
        let all: Vec<usize> = (0..data.len()).collect();
        let mut settled = 0;
        self.products(data, &all, &self.moved, 1, |_, left| {
            settled += usize::from(left.len() <= FEW);
        });
        settled as f64 / data.len() as f64
    }

    /// [`Centroids::by_row`] for a few rows.
    fn block<R>(
        &self,
        data: &Vectors,
        rows: Range<usize>,
        count: usize,
        pick: &impl Fn(Row<'_>, &[u32]) -> R,
    ) -> Vec<R> {
        let few = FEW.max(count + self.distinct() / MANY);
        let mut picked: Vec<Option<R>> = Vec::new();
        // Rows for which products in f32 leave too many.
        let mut unsettled = Vec::new();
        let all: Vec<usize> = rows.collect();
        self.products(data, &all, &self.moved, count, |row, left| {
            let settled = left.len() <= few;
            picked.push(settled.then(|| pick(data.row(row), left)));
            if !settled {
                unsettled.push(row);
            }
        });
        if !unsettled.is_empty() {
            // This takes k·d steps, the rows 2·k·d each: it need not be kept.
            let moved = self.moved::<f64>();
            self.products(data, &unsettled, &moved, count, |row, left| {
                picked[row - all[0]] = Some(pick(data.row(row), left));
            });
        }
        let picked = picked.into_iter();
        picked.map(|picked| picked.expect("one of two")).collect()
    }

    /// Calls `visit` with each of the rows and the distinct centroids that may be among its `count`
    /// nearest, as far as products in `T` tell.
    fn products<T: Real>(
        &self,
        data: &Vectors,
        rows: &[usize],
        moved: &Moved<T>,
        count: usize,
        mut visit: impl FnMut(usize, &[u32]),
    ) {
        let dim = data.dim();
        let mut values = Vec::with_capacity(rows.len() * dim);
        let mut lengths = Vec::with_capacity(rows.len());
        for &row in rows {
            let start = values.len();
            match data.row(row) {
                Row::Bytes(row) => self.push_moved(&mut values, row),
                Row::Floats(row) => self.push_moved(&mut values, row),
            }
            lengths.push(Length::of(&values[start..]));
        }
        let values = Array2::from_shape_vec((rows.len(), dim), values).expect("whole rows");
        // −2·x·c for all pairs. Doubling rounds nothing.
        let mut products = Array2::zeros((rows.len(), self.distinct()));
        let minus_two = T::rounded(-2.0);
        let centroids = moved.points.t();
        general_mat_mul(minus_two, &values, &centroids, T::zero(), &mut products);
        let mut bounds = Bounds {
            upper: Vec::new(),
            left: Vec::new(),
        };
        for ((&row, length), products) in rows.iter().zip(&lengths).zip(products.rows()) {
            let products = products.to_slice().expect("made in row order");
            moved.select(products, length, count, &mut bounds);
            visit(row, &bounds.left);
        }
    }
}

impl<T: Real> Length<T> {
    /// Of a row that has been moved.
    fn of(values: &[T]) -> Self {
        /// Partial sums, so that an addition need not wait for the one before.
        const SUMS: usize = 8;
        let (chunks, rest) = values.as_chunks::<SUMS>();
        let mut sums = [T::zero(); SUMS];
        for chunk in chunks {
            for (sum, &value) in sums.iter_mut().zip(chunk) {
                *sum = *sum + value * value;
            }
        }
        for (sum, &value) in sums.iter_mut().zip(rest) {
            *sum = *sum + value * value;
        }
        let sum: f64 = sums.into_iter().map(Into::into).sum();
        let dim = values.len() as f64;
        // A square that overflows makes the length infinite. No centroid is excluded then.
        let square = sum * (1.0 + gamma::<T>(dim + 8.0)) + dim * T::VANISHING;
        Self {
            norm: T::rounded(square.sqrt() * (1.0 + 4.0 * T::ROUNDOFF)),
            // Differences: for two distances, see `Moved::push_bounds`.
            slack: T::rounded(2.0 * differences(dim) * square * (1.0 + 4.0 * T::ROUNDOFF)),
        }
    }
}

/// γ of `count` roundings in `T`, a little more than count · u.
fn gamma<T: Real>(count: f64) -> f64 {
    let sum = count * T::ROUNDOFF;
    // Half a unit for each of 10⁷ values in f32: then products tell nothing.
    if sum < 0.5 {
        sum / (1.0 - sum)
    } else {
        f64::INFINITY
    }
}

/// A squared distance by differences in f64 is off by no more than this times ‖x‖² +
/// ‖c‖².
fn differences(dim: f64) -> f64 {
    // ‖x − c‖² ≤ 2·(‖x‖² + ‖c‖²), and the sum is of d squares, with 4 roundings
    // in each.
    2.0 * (dim + 4.0) * f64::ROUNDOFF
}

impl<T: Real> Moved<T> {
    /// Appends the bounds of a centroid of this squared length.
    ///
    /// The distance, less ‖x‖², is ‖c‖² − 2·x·c. Of the roundings, d are in the
    /// product, four in moving x and c, and four in the two additions and the comparison: they are
    /// all of terms of at most ‖c‖² + 2·‖x‖·‖c‖.
    fn push_bounds(&mut self, squared_length: f64, dim: usize) {
        let dim = dim as f64;
        let length = squared_length.sqrt();
        let product = gamma::<T>(dim + 10.0) * length + dim * T::VANISHING;
        let own = (gamma::<T>(10.0) + differences(dim)) * squared_length + dim * T::VANISHING;
        self.low.push(T::rounded(squared_length - own));
        self.high.push(T::rounded(squared_length + own));
        self.per_length.push(T::rounded(2.0 * product));
    }

    /// Writes the numbers, ascending, of the centroids that may be among the `count` nearest.
    fn select(&self, products: &[T], length: &Length<T>, count: usize, bounds: &mut Bounds<T>) {
        // The lower bounds of the `count` nearest do not exceed the `count`-th least of the upper
        // bounds.
        let norm = length.norm;
        let limit = if count == 1 {
            least_sum(products, &self.high, &self.per_length, norm)
        } else if count < products.len() {
            bounds.upper.clear();
            let own = self.high.iter().zip(&self.per_length);
            let own = own.map(|(&high, &error)| (high, norm * error));
            let upper = products.iter().zip(own);
            let upper = upper.map(|(&product, (high, error))| high + product + error);
            bounds.upper.extend(upper);
            *bounds.upper.select_nth_unstable_by(count - 1, ascending).1
        } else {
            T::INFINITY
        };
        let limit = limit + length.slack;
        let minus = T::zero() - norm;
        not_above(
            products,
            &self.low,
            &self.per_length,
            minus,
            limit,
            &mut bounds.left,
        );
    }
}

/// One row's upper bounds, and what the bounds leave: a thread's buffers, used again for each row.
struct Bounds<T> {
    upper: Vec<T>,
    left: Vec<u32>,
}

/// Values that are looked at together, in arrays of fixed size: the compiler makes SIMD of these,
/// and no branch for each value.
const TOGETHER: usize = 16;

/// Some values of a, b and c, of one length, together, and the others.
type Together<'a, T> = (&'a [[T; TOGETHER]], &'a [T]);

/// The least aᵢ + bᵢ + factor · cᵢ; one that overflowed to NaN is none.
fn least_sum<T: Real>(a: &[T], b: &[T], c: &[T], factor: T) -> T {
    let lesser = |a: T, b: T| if b < a { b } else { a };
    let [(a, a_rest), (b, b_rest), (c, c_rest)] =
        [a, b, c].map(|v| -> Together<'_, T> { v.as_chunks() });
    let mut least = [T::INFINITY; TOGETHER];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..TOGETHER {
            least[i] = lesser(least[i], b[i] + a[i] + factor * c[i]);
        }
    }
    for (i, ((&a, &b), &c)) in a_rest.iter().zip(b_rest).zip(c_rest).enumerate() {
        least[i] = lesser(least[i], b + a + factor * c);
    }
    least.into_iter().fold(T::INFINITY, lesser)
}

/// The positions, ascending, at which aᵢ + bᵢ + factor · cᵢ is not above the limit: one that
/// overflowed to NaN is not.
fn not_above<T: Real>(a: &[T], b: &[T], c: &[T], factor: T, limit: T, positions: &mut Vec<u32>) {
    positions.clear();
    let is_above = |a: T, b: T, c: T| b + a + factor * c > limit;
    let [(a, a_rest), (b, b_rest), (c, c_rest)] =
        [a, b, c].map(|v| -> Together<'_, T> { v.as_chunks() });
    for (chunk, ((a, b), c)) in a.iter().zip(b).zip(c).enumerate() {
        let mut above = [true; TOGETHER];
        for i in 0..TOGETHER {
            above[i] = is_above(a[i], b[i], c[i]);
        }
        // Nearly all are above.
        if above != [true; TOGETHER] {
            let left = (0..TOGETHER).filter(|&i| !above[i]);
            positions.extend(left.map(|i| (chunk * TOGETHER + i) as u32));
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    for (i, ((&a, &b), &c)) in (a.len() * TOGETHER..).zip(rest) {
        if !is_above(a, b, c) {
            positions.push(i as u32);
        }
    }
}

/// The order of the values, in which NaN is above all.
fn ascending<T: Real>(a: &T, b: &T) -> Ordering {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let order = a.partial_cmp(b);
    order.unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

/// The middle one of the values of each coordinate.
fn median(points: ArrayView2<'_, f32>) -> Vec<f32> {
    let middle = points.nrows() / 2;
    let columns = points.columns().into_iter();
    columns
        .map(|column| {
            let mut values = column.to_vec();
            *values.select_nth_unstable_by(middle, f32::total_cmp).1
        })
        .collect()
}

/// The numbers of equal rows together, ascending, and where each such group starts. Groups are in
/// the order of their first numbers.
fn equal_rows(points: ArrayView2<'_, f32>) -> (Vec<usize>, Vec<u32>) {
    let row = |i: u32| points.row(i as usize).to_slice().expect("row order");
    let compare = |&a: &u32, &b: &u32| {
        let mut pairs = row(a).iter().zip(row(b));
        let different = pairs.find_map(|(a, b)| Some(a.total_cmp(b)).filter(|o| o.is_ne()));
        different.unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<u32> = (0..points.nrows() as u32).collect();
    // Stable, so that equal rows stay in ascending order, and the first one comes first.
    order.sort_by(compare);
    let mut first = vec![0; order.len()];
    for group in order.chunk_by(|a, b| compare(a, b).is_eq()) {
        for &member in group {
            first[member as usize] = group[0];
        }
    }
    // Number the groups by their first rows.
    let mut labels = vec![0; first.len()];
    let mut groups = 0;
    for i in 0..first.len() {
        if first[i] as usize == i {
            labels[i] = groups;
            groups += 1;
        } else {
            labels[i] = labels[first[i] as usize];
        }
    }
    group(&labels, groups as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The numbers of all centroids by their f64 distances from a row, ties to the lower number.
    fn oracle(points: ArrayView2<'_, f32>, row: &[f32]) -> Vec<u32> {
        let to = |c: u32| {
            let centroid = points.row(c as usize).to_vec();
            Metric::Euclidean.reduced(&centroid, row)
        };
        let mut order: Vec<u32> = (0..points.nrows() as u32).collect();
        order.sort_by(|&a, &b| to(a).total_cmp(&to(b)));
        order
    }

    fn check(points: Array2<f32>, rows: &Vectors) {
        let centroids = Centroids::new(points);
        let nearest = centroids.nearest(rows);
        let three = centroids.nearest_many(rows, 3);
        let all = centroids.nearest_many(rows, 1_000);
        for row in 0..rows.len() {
            let expected = oracle(centroids.points(), &rows.row_to_floats(row));
            assert_eq!(nearest[row], expected[0], "row {row}");
            for (found, count) in [(&three, 3), (&all, 1_000)] {
                let count = expected.len().min(count);
                let of_row = &found[row * count..][..count];
                assert_eq!(of_row, &expected[..count], "row {row}");
            }
        }
    }

    /// Some rows as centroids, with a few moved a little, so that distances are not zero.
    fn check_rows(dim: usize, values: Vec<f32>, k: usize) {
        let rows = Vectors::from_floats(dim, values).unwrap();
        let step = rows.len().div_ceil(k);
        let chosen: Vec<usize> = (0..rows.len()).step_by(step).collect();
        let mut points = rows.select(&chosen).unwrap().to_array();
        for (i, mut point) in points.rows_mut().into_iter().enumerate() {
            if i % 2 == 0 {
                point.mapv_inplace(|value| value * 1.001);
            }
        }
        check(points, &rows);
    }

    fn uniform(count: usize) -> impl Iterator<Item = f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        (0..count).map(move |_| rng.random_range(-1.0..1.0))
    }

    #[test]
    fn one_row_far_out() {
        for far in [1e2, 1e4, 1e6, 1e12, 3e38] {
            let mut values: Vec<f32> = uniform(600 * 16).collect();
            values[..16].fill(far);
            check_rows(16, values.clone(), 30);
            // The row alone, without a centroid beside it.
            let rows = Vectors::from_floats(16, values).unwrap();
            check(rows.select(&[5, 9, 70, 71]).unwrap().to_array(), &rows);
        }
    }

    #[test]
    fn two_clusters_far_apart() {
        for far in [1e2, 1e4, 1e6] {
            let values = uniform(500 * 8).enumerate();
            let side = |i: usize| if (i / 8).is_multiple_of(2) { far } else { -far };
            check_rows(8, values.map(|(i, value)| value + side(i)).collect(), 41);
        }
    }

    #[test]
    fn rows_of_every_size() {
        let sizes = (0..).map(|i| 10f32.powi(i / 5 % 7 - 3));
        check_rows(
            5,
            uniform(2_000).zip(sizes).map(|(v, s)| v * s).collect(),
            33,
        );
        let sizes = (0..).map(|i| 10f32.powi(i / 3 % 70 - 34));
        check_rows(
            3,
            uniform(1_500).zip(sizes).map(|(v, s)| v * s).collect(),
            70,
        );
    }

    #[test]
    fn near_copies_and_copies() {
        let clump = uniform(400 * 6).map(|value| 5.0 + value * 1e-5);
        check_rows(6, clump.chain(uniform(100 * 6)).collect(), 50);
        let few_values = uniform(300 * 2).map(|value| (value * 2.0).round());
        check_rows(2, few_values.collect(), 60);
        check_rows(4, vec![7.5; 80], 20);
    }

    #[test]
    fn the_largest_and_the_smallest_floats() {
        for scale in [3e38, 1e30, 1e18, 1e-19, 1e-30, 1e-38, 1e-42] {
            check_rows(7, uniform(300 * 7).map(|value| value * scale).collect(), 25);
        }
    }

    #[test]
    fn bytes_and_more_rows_than_a_block() {
        let bytes: Vec<u8> = uniform(700 * 12).map(|v| (v * 3.0 + 128.0) as u8).collect();
        let rows = Vectors::from_bytes(12, bytes).unwrap();
        let chosen: Vec<usize> = (0..40).map(|i| i * 17).collect();
        check(rows.select(&chosen).unwrap().to_array(), &rows);
    }

    #[test]
    fn ordinary_data_are_settled_by_the_first_products() {
        let rows = Vectors::from_floats(32, uniform(1_000 * 32).collect::<Vec<_>>()).unwrap();
        let chosen: Vec<usize> = (0..100).collect();
        let centroids = Centroids::new(rows.select(&chosen).unwrap().to_array());
        let (all, mut open) = ((0..1_000).collect::<Vec<_>>(), 0);
        centroids.products(&rows, &all, &centroids.moved, 1, |_, left| {
            open += usize::from(left.len() > 1);
        });
        assert!(open < 20, "{open} of 1,000 rows");
    }
}
