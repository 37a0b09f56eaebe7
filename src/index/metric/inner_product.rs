//! Search by the largest product: [`InnerProduct`].
//!
//! # The naive form
//! ```text
//! for x in base:
//!     top.push(x, −x·q)
//! ```
//!
//! The product is no distance: a long row can be "near" everything, and nothing bounds a product by
//! other products, as the triangle inequality bounds distances.
//!
//! # The idea
//! All rows are made equally long. With M the length of the longest row,
//!
//! ```text
//! X = (x, √(M² − |x|²))        Q = (q, 0)        |X − Q|² = M² + |q|² − 2 x·q
//! ```
//!
//! so that the nearest X is the largest product, and any index of Euclidean distances finds it (Y.
//! Bachrach et al., *Speeding Up the Xbox Recommender System Using a Euclidean Transformation for
//! Inner-Product Spaces*, RecSys 2014). A query may be multiplied by any number without another
//! answer. Here it is the power of two that makes it about as long as M: if the two were of very
//! different lengths, the distances would be all but equal.
//!
//! # What rounding does, and why no neighbour is lost
//! The root is rounded to a float, so that the rows X are not quite equally long. Where one row is
//! far longer than the others that error can be larger than their products. So there are two more
//! coordinates, not one: the second holds what rounding the first one down has left,
//!
//! ```text
//! a = √(M² − |x|²), rounded down        b = √(M² − |x|² − a²)        X = (x, a, b)
//! ```
//!
//! and |X|² is M² but for a share of about 2⁻⁴⁸. Its largest value C is measured.
//!
//! Let Q = s·q + e be the scaled query, e what rounding it lost: nearly always nothing, since s is
//! a power of two. With p the product of a row as it is computed in f64, and D the reduced distance
//! that the index inside computes,
//!
//! ```text
//! |X − Q|² = |X|² + |Q|² − 2s x·q − 2 x·e
//!        D ≤ (C + |Q|² − 2s·p) + 2M|e| + share · (C + |Q|² + 2s·|p|)          (the reach)
//! ```
//!
//! The share covers all roundings in f64, each of which is u = 2⁻⁵³ at most. A sum of m terms
//! of one sign is off by (m + 3)·u of its value, and p by (m + 3)·u·M|q|, where 2s·M|q| is no
//! more than M² + s²|q|². There are fewer than ten such errors, and 32·(m + 16)·u is more than
//! all of them together.
//!
//! An exact index is asked for a few rows more than k. Their products are computed, and the k-th
//! best of these gives the reach: what belongs to the first k is no farther than that. If the last
//! row that came is, none is missing, and that is nearly always so. Else all rows within the reach
//! are asked for. So the answer is that of the naive form, products and ties by id included.

use std::sync::Arc;

use rayon::prelude::*;

use super::check_euclidean;
use crate::distance::{Metric, Ranker};
use crate::index::parts::{PartError, Parts, Saved, expect};
use crate::index::{Build, BuildError, Found, Index, Visits, check_base};
use crate::neighbor::{Candidate, TopK};
use crate::vectors::{Row, Vectors};

/// Coordinates that a row gets besides its own.
const ADDED: usize = 2;
/// Rows that are asked for besides the k: what rounding may have put in the wrong order.
const SPARE: usize = 8;

/// An index by inner product: the rows of the largest product with the query.
///
/// Distances are −x·q, ascending: the largest product first. Products are those of the rows as
/// they were given, in f64, or exact integers between bytes; ties by id. Where `I` is exact, the
/// first k are those of comparing all rows. The distances are true even where `I` keeps codes only.
///
/// **What it is bad at**: rows of very different lengths. They are turned into rows of one length,
/// that of the longest, and where most are far shorter than that, all of them are nearly equally
/// far from any query: exact indexes then compare most rows, and approximate ones miss some. It
/// takes a copy of the rows as floats of d + 2 dimensions, besides the rows themselves.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let base = Arc::new(Vectors::from_floats(2, vec![1.0, 0.0, 0.0, 9.0, 3.0, 3.0])?);
/// let index = InnerProduct::<BallTree>::build(base, BallTreeParams::default())?;
/// let best = index.query(&[2.0, 1.0], 2)?;
/// assert_eq!(best[0], Neighbor { id: 1, distance: -9.0 });
/// assert_eq!(best[1], Neighbor { id: 2, distance: -9.0 });
/// // Products of 9 and more are distances of −9 and less.
/// assert_eq!(index.within(&[2.0, 1.0], -9.0)?, best);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct InnerProduct<I> {
    /// Over the rows that were made equally long.
    inner: I,
    /// The rows as they were given: their products are the answer.
    base: Arc<Vectors>,
    /// M, the length of the longest row.
    longest: f64,
    /// C, the largest |X|².
    largest_square: f64,
}

/// The rows X.
struct Lifted {
    rows: Vectors,
    longest: f64,
    largest_square: f64,
}

impl Lifted {
    fn new(base: &Vectors) -> Result<Self, BuildError> {
        let squares: Vec<f64> = (0..base.len())
            .into_par_iter()
            .map(|row| square(base.row(row)))
            .collect();
        let most = squares.iter().copied().fold(0.0, f64::max);
        let longest = most.sqrt();
        // The coordinates that are added are as large as this, and floats.
        if longest > f64::from(f32::MAX) {
            let row = squares.iter().position(|&square| square == most);
            return Err(BuildError::TooLong {
                row: row.unwrap_or_default(),
                length: longest,
            });
        }
        let (dim, width) = (base.dim(), base.dim() + ADDED);
        let mut values = vec![0.0; base.len() * width];
        let largest_square = values
            .par_chunks_exact_mut(width)
            .zip(&squares)
            .enumerate()
            .map(|(row, (out, &square))| {
                out[..dim].copy_from_slice(&base.row(row).to_floats());
                let (first, second) = added(most - square);
                out[dim..].copy_from_slice(&[first, second]);
                square + f64::from(first).powi(2) + f64::from(second).powi(2)
            })
            .reduce(|| 0.0, f64::max);
        Ok(Self {
            rows: Vectors::from_floats(width, values).expect("finite rows"),
            longest,
            largest_square,
        })
    }
}

/// |x|².
fn square(row: Row<'_>) -> f64 {
    let reduced = match row {
        Row::Bytes(row) => Metric::InnerProduct.reduced_bytes(row, row) as f64,
        Row::Floats(row) => Metric::InnerProduct.reduced(row, row),
    };
    0.0 - reduced
}

/// Two floats whose squares add up to `rest`, the first as large as can be.
fn added(rest: f64) -> (f32, f32) {
    let root = rest.sqrt();
    let nearest = root as f32;
    let first = if f64::from(nearest) > root {
        nearest.next_down()
    } else {
        nearest
    };
    // A square of a float is exact in f64. The root was rounded, so that the rest can be negative.
    let left = (rest - f64::from(first).powi(2)).max(0.0);
    (first, left.sqrt() as f32)
}

/// The query Q.
struct LiftedQuery {
    /// d + 2 values.
    values: Vec<f32>,
    /// s, what it was multiplied by: a power of two.
    scale: f64,
    /// |e|: what rounding has moved it by.
    error: f64,
    /// |Q|².
    square: f64,
}

impl LiftedQuery {
    /// The query as long as `longest`, or up to half as long.
    fn new(query: Row<'_>, longest: f64) -> Self {
        let length = square(query).sqrt();
        let scale = if length > 0.0 && longest > 0.0 {
            2f64.powi((longest / length).log2().floor() as i32)
        } else {
            1.0
        };
        let mut values = Vec::with_capacity(query.len() + ADDED);
        let mut moved = 0.0;
        for &value in &*query.to_floats() {
            // A power of two rounds nothing, but where a value becomes too small for a float.
            let scaled = f64::from(value) * scale;
            values.push(scaled as f32);
            moved += (scaled - f64::from(scaled as f32)).powi(2);
        }
        let square = square(Row::Floats(&values));
        values.extend([0.0; ADDED]);
        Self {
            values,
            scale,
            error: moved.sqrt(),
            square,
        }
    }

    fn row(&self) -> Row<'_> {
        Row::Floats(&self.values)
    }
}

impl<I: Build> InnerProduct<I> {
    /// The index that searches the rows of one length.
    #[must_use]
    pub fn inner(&self) -> &I {
        &self.inner
    }

    fn lift(&self, query: Row<'_>) -> LiftedQuery {
        LiftedQuery::new(query, self.longest)
    }

    fn ranker<'a>(&'a self, query: Row<'a>) -> Ranker<'a> {
        Ranker::new(&self.base, Metric::InnerProduct, query)
    }

    /// How many rows `inner` is asked for, to find the `k` best.
    fn asked(k: usize) -> usize {
        k.saturating_add(SPARE)
    }

    /// The reduced distance in which every row of at least this product lies; see the module.
    fn reach(&self, query: &LiftedQuery, product: f64) -> f64 {
        let share = 32.0 * (query.values.len() as f64 + 16.0) * f64::EPSILON / 2.0;
        let squares = self.largest_square + query.square;
        let twice = 2.0 * query.scale * product;
        // Twice what the module says of |e|, for its own rounding.
        squares - twice + 4.0 * self.longest * query.error + share * (squares + twice.abs())
    }

    /// The `k` best, where `inner` has found the nearest of the rows X.
    fn rank(&self, query: Row<'_>, lifted: &LiftedQuery, found: Found, k: usize) -> Found {
        let ranker = self.ranker(query);
        let mut top = TopK::new(k.min(self.len()));
        for found in &found.candidates {
            top.push(found.id, ranker.reduced(found.id as usize));
        }
        let mut visits = found.visits;
        visits.distances += found.candidates.len();
        let reach = self.reach(lifted, -top.threshold());
        // Where all rows came, none is missing.
        let is_all = found.candidates.len() == self.len();
        let last = found.candidates.last().map_or(0.0, |last| last.reduced);
        if !I::EXACT || is_all || last > reach {
            return Found {
                candidates: top.into_candidates(),
                visits,
            };
        }
        let top = TopK::new(k.min(self.len()));
        let all = self.rank_within(query, lifted, reach, top);
        Found {
            visits: visits.and(all.visits),
            ..all
        }
    }

    /// The best of the rows within the reach that `top` takes.
    fn rank_within(
        &self,
        query: Row<'_>,
        lifted: &LiftedQuery,
        reach: f64,
        mut top: TopK,
    ) -> Found {
        // Where far more are within than are wanted, to sort them by distance gains nothing over a
        // scan.
        let most = top.most().saturating_mul(4).saturating_add(1_000);
        let found = self.inner.search_within(lifted.row(), reach, most);
        let found = found.filter(|found| found.candidates.len() < most);
        let ranker = self.ranker(query);
        let mut rank = |id: u32| _ = top.push(id, ranker.reduced(id as usize));
        let visits = match &found {
            Some(Found { candidates, visits }) => {
                candidates.iter().for_each(|found| rank(found.id));
                visits.and(Visits {
                    distances: candidates.len(),
                    ..Visits::default()
                })
            }
            None => {
                (0..self.base.len() as u32).for_each(rank);
                Visits {
                    leaves: 1,
                    bounds: self.len(),
                    distances: self.len(),
                }
            }
        };
        Found {
            candidates: top.into_candidates(),
            visits,
        }
    }
}

impl<I: Build> Build for InnerProduct<I> {
    const KEY: &'static str = I::KEY;
    const NAME: &'static str = I::NAME;
    const EXACT: bool = I::EXACT;
    type Params = I::Params;
    type Search = I::Search;

    /// Makes the rows equally long, a copy of n × (d + 2) floats, and builds `I` over them. The
    /// base is kept too, shared with the caller.
    ///
    /// # Errors
    /// If a row is longer than the largest float, `I` refuses the rows or its parameters, or these
    /// say another metric than Euclidean.
    fn build(base: Arc<Vectors>, params: I::Params) -> Result<Self, BuildError> {
        check_base(&base)?;
        let Lifted {
            rows,
            longest,
            largest_square,
        } = Lifted::new(&base)?;
        let inner = I::build(Arc::new(rows), params)?;
        Ok(Self {
            inner: check_euclidean(inner, Metric::InnerProduct)?,
            base,
            longest,
            largest_square,
        })
    }

    fn with_search(&self, search: I::Search) -> Result<Self, BuildError> {
        Ok(Self {
            inner: self.inner.with_search(search)?,
            ..self.clone()
        })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        saved.set_metric(Metric::Euclidean);
        let inner = check_euclidean(I::from_parts(saved)?, Metric::InnerProduct)?;
        let base: Vectors = saved.take("originals")?;
        let shape = (base.len(), base.dim() + ADDED);
        let fits = shape == (inner.len(), inner.dim());
        expect(fits, "originals", "a row for each that was lifted")?;
        Ok(Self {
            inner,
            base: Arc::new(base),
            longest: saved.take("longest")?,
            largest_square: saved.take("largest_square")?,
        })
    }
}

impl<I: Build> Index for InnerProduct<I> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        self.inner.params()
    }

    fn len(&self) -> usize {
        self.base.len()
    }

    fn dim(&self) -> usize {
        self.base.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes() + self.base.memory_bytes()
    }

    fn metric(&self) -> Metric {
        Metric::InnerProduct
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let lifted = self.lift(query);
        let found = self.inner.search(lifted.row(), Self::asked(k));
        self.rank(query, &lifted, found, k)
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        if !I::EXACT {
            return None;
        }
        let lifted = self.lift(query);
        let reach = self.reach(&lifted, -reduced);
        // No distance is negative. (An infinite product, which no row has, gives NaN.)
        if reach.is_nan() || reach < 0.0 {
            return Some(Found::default());
        }
        let top = TopK::within(most.min(self.len()), reduced);
        Some(self.rank_within(query, &lifted, reach, top))
    }

    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        let lifted: Vec<_> = (0..queries.len())
            .into_par_iter()
            .map(|row| self.lift(queries.row(row)))
            .collect();
        let values = lifted.iter().flat_map(|query| &query.values);
        let values: Vec<f32> = values.copied().collect();
        let rows = Vectors::from_floats(self.dim() + ADDED, values).expect("finite queries");
        let found = self.inner.search_batch(&rows, Self::asked(k));
        let ranked = found.into_par_iter().zip(&lifted).enumerate();
        let rank = |(row, (candidates, lifted))| {
            let found = Found {
                candidates,
                ..Found::default()
            };
            self.rank(queries.row(row), lifted, found, k).candidates
        };
        ranked.map(rank).collect()
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        self.inner.parts(parts);
        parts.add("originals", &*self.base);
        parts.add("longest", &self.longest);
        parts.add("largest_square", &self.largest_square);
    }
}
