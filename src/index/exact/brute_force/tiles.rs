//! Many queries: tiles of products.
//!
//! ‖q − x‖² = ‖q‖² − 2·q·x + ‖x‖², so that many distances are a matrix
//! product, which processors do much faster than one distance after the other:
//!
//! ```text
//!               panel 0 (16 queries)   panel 1   ...
//! block 0      +---------------------+---------+--
//! (96 points)  | 96 x 16 products:   |         |   The block stays in the second-level cache
//!              | which are near?     |         |   while all panels pass by.
//! block 1      +---------------------+---------+--
//! ```
//!
//! The products are rounded, in one of two ways, and the error of that is known: a row that is out
//! by more than the error is out, and all others are compared exactly at once. So no matrix of
//! products is ever stored.

use std::ops::Range;

use super::rounding::{Rounded, Rounding};
use super::{BLOCK, BruteForce};
use crate::distance::Ranker;
use crate::neighbor::TopK;
use crate::simd::pairwise::gamma;
use crate::simd::tiles::{self, Line, POINTS, Panels, QUERIES, TOGETHER, Tiles, Word};
use crate::vectors::{Row, Vectors};

/// In fewer dimensions than this, vectors of floats are multiplied as floats. As bytes they would
/// be multiplied faster, but their rounding would leave so many rows in doubt that nothing is
/// gained.
const NARROW: usize = 48;

/// Beyond this squared length an f32 product could overflow: the row, or every row for the query,
/// is compared exactly. By Cauchy and Schwarz the products of all others are at most this, and norm
/// − 2·product at most 3·10³⁷ in size. The greatest f32 is 3.4·10³⁸.
const LONGEST: f64 = 1e37;

impl BruteForce {
    /// Collects the Euclidean neighbours of some queries.
    pub(crate) fn tiles(&self, queries: &[Row<'_>], tops: &mut [TopK]) {
        let rankers: Vec<_> = queries
            .iter()
            .map(|&query| Ranker::new(&self.base, self.norm.metric(), query))
            .collect();
        let by_bytes = self.base.bytes().is_some() || self.base.dim() >= NARROW;
        // With the widest ranges, rows of bytes are multiplied as they are.
        let (most, middle) = tiles::ranges();
        let rounding = Rounding::new(&self.base, self.range, most, middle).filter(|_| by_bytes);
        let decided = match rounding {
            Some(rounding) => self.byte_tiles(rounding, &rankers, tops),
            None => 0,
        };
        // The candidates of the first rows are kept. Only the rest of the rows goes by floats.
        if decided < self.base.len() {
            self.float_tiles(decided, queries, &rankers, tops);
        }
    }

    /// The neighbours by products of values rounded to 6 to 8 bits: see [`Rounding`]. Where that
    /// leaves too much in doubt it stops, and returns how many rows have been decided.
    fn byte_tiles(&self, rounding: Rounding, rankers: &[Ranker<'_>], tops: &mut [TopK]) -> usize {
        // Four codes are a word: they are multiplied and added together.
        let words = self.base.dim().div_ceil(4);
        let (panels, queries) = byte_panels(rounding, rankers, self.base.dim());
        let mut points = BytePoints::new(rounding, words);
        let mut limits = Line([i32::MIN; QUERIES]);
        let mut sums = vec![Line::default(); TOGETHER * BLOCK];
        let mut wasted = 0;
        for start in (0..self.base.len()).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(self.base.len());
            points.pack(&self.base, rows.clone());
            let limit = |query: usize, top: &TopK| {
                rounding.limit(top.threshold(), queries[query], points.error)
            };
            for first in (0..panels.len()).step_by(TOGETHER) {
                let together = first..(first + TOGETHER).min(panels.len());
                let sums = &mut sums[..together.len() * BLOCK];
                panels.products(first, &points.tiles, sums);
                for (panel, sums) in together.zip(sums.chunks(BLOCK)) {
                    // The limit depends on the error of the block, so that it is taken anew for
                    // each. In the last panel the lanes without a query keep what the panel before
                    // left there; `compare_near` passes over them.
                    for query in queries_of(panel, rankers.len()) {
                        limits.0[query % QUERIES] = limit(query, &tops[query]);
                    }
                    let products = Products::<[u8; 4]> {
                        panel,
                        first_row: start,
                        sums: &sums[..rows.len()],
                        norms: &points.norms,
                    };
                    wasted += products.compare_near(&mut limits, rankers, tops, limit);
                }
            }
            // A wasted comparison is of a row that did not enter. Float tiles are more precise. But
            // for each row they cost about an eighth of an exact comparison more than byte tiles.
            // So they are the faster ones once more than one row in eight is wasted for a query.
            // Two whole blocks may be wasted before that, since the thresholds are large at first.
            if wasted > rankers.len() * (2 * BLOCK + start / 8) {
                return rows.end;
            }
        }
        self.base.len()
    }

    /// The neighbours among the rows from `from` on, by f32 products.
    ///
    /// Let x̃ and q̃ be the vectors less the centre, rounded to f32, which changes each value by
    /// the share u = 2⁻²⁴ at most. Let p be the computed product of q̃ and x̃; it is off by
    /// γ·‖q̃‖·‖x̃‖ at most, with γ ≈ d·u. Then
    ///
    /// ```text
    /// ‖q − x‖² ≥ (1 − η)·‖x̃‖² − 2p + (1 − η)·‖q̃‖²,
    /// η = γ + 10u.
    /// ```
    ///
    /// Of the 10u, 4u stand for the rounded values, 3u for the rounding of this expression and the
    /// rest for that of the norms, taken in f64. A row is out if the right side exceeds the reduced
    /// distance of the k-th best; else it is compared exactly.
    fn float_tiles(
        &self,
        from: usize,
        queries: &[Row<'_>],
        rankers: &[Ranker<'_>],
        tops: &mut [TopK],
    ) {
        let (dim, len) = (self.base.dim(), self.base.len());
        // 1 − η. EPSILON is 2u, so that 5 of them are 10u. The product counts two roundings more
        // than its d terms.
        let shrink = 1.0 - gamma(dim + 2) - 5.0 * f64::from(f32::EPSILON);
        // Each value may lose what f32 cannot hold below its least normal number, in each of a few
        // results; 8 times that a value is more than enough.
        let underflow = dim as f64 * 8.0 * f64::from(f32::MIN_POSITIVE);
        let (panels, lengths) = float_panels(queries, &self.centre);
        // A row is out if (1 − η)·‖x̃‖² − 2p exceeds this. Rounded up, so that rounding
        // keeps a row.
        let limit = |query: usize, top: &TopK| {
            let length = lengths[query];
            if length <= LONGEST {
                super::round_up(top.threshold() + underflow - shrink * length)
            } else {
                f32::INFINITY
            }
        };
        // Unlike the limits of byte tiles these do not depend on the block. They change only when a
        // candidate enters. Lanes without a query have −∞, which excludes all but the longest
        // rows.
        let mut limits = vec![Line([f32::NEG_INFINITY; QUERIES]); panels.len()];
        for (query, top) in tops.iter().enumerate() {
            limits[query / QUERIES].0[query % QUERIES] = limit(query, top);
        }

        let mut points = FloatPoints::new(dim, shrink);
        let mut sums = vec![Line::default(); TOGETHER * BLOCK];
        for start in (from..len).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(len);
            points.pack(&self.base, rows.clone(), &self.centre);
            for (at, limits) in limits.chunks_mut(TOGETHER).enumerate() {
                let first = at * TOGETHER;
                let sums = &mut sums[..limits.len() * BLOCK];
                panels.products(first, &points.tiles, sums);
                for ((panel, limits), sums) in (first..).zip(limits).zip(sums.chunks(BLOCK)) {
                    let products = Products::<f32> {
                        panel,
                        first_row: start,
                        sums: &sums[..rows.len()],
                        norms: &points.norms,
                    };
                    products.compare_near(limits, rankers, tops, limit);
                }
            }
        }
    }
}

/// The products of a block of rows with a panel of queries.
struct Products<'a, W: Word> {
    panel: usize,
    /// The row that the first of the sums belongs to.
    first_row: usize,
    sums: &'a [Line<W::Sum>],
    /// One a row: a row is out for a query if its norm less twice the product exceeds the query's
    /// limit.
    norms: &'a [W::Sum],
}

impl<W: Word> Products<'_, W> {
    /// Compares exactly what the products do not exclude, and collects what is near. Returns how
    /// many rows were compared for nothing. `limit` is that of a query and its candidates so far.
    #[inline(always)]
    fn compare_near(
        &self,
        limits: &mut Line<W::Sum>,
        rankers: &[Ranker<'_>],
        tops: &mut [TopK],
        limit: impl Fn(usize, &TopK) -> W::Sum,
    ) -> usize {
        let mut wasted = 0;
        let mut from = 0;
        // The limits fall while the rows pass by, so that each row is held against the newest ones.
        while let Some((row, mask)) = W::next_near(self.sums, self.norms, limits, from) {
            from = row + 1;
            let id = self.first_row + row;
            for lane in ones(mask) {
                let query = self.panel * QUERIES + lane;
                if query >= rankers.len() {
                    // The last panel is filled up with zeros, which are no query.
                    continue;
                }
                // Several queries of the panel can be near the same row, which stays in the cache
                // for them.
                let top = &mut tops[query];
                let reduced = rankers[query].reduced_within(id, top.threshold());
                if reduced.is_some_and(|reduced| top.push(id as u32, reduced)) {
                    limits.0[lane] = limit(query, top);
                } else {
                    wasted += 1;
                }
            }
        }
        wasted
    }
}

/// The queries of a panel; the last panel has fewer than [`QUERIES`].
fn queries_of(panel: usize, queries: usize) -> Range<usize> {
    panel * QUERIES..((panel + 1) * QUERIES).min(queries)
}

/// The queries, rounded and packed, and what is known of each.
fn byte_panels(
    rounding: Rounding,
    rankers: &[Ranker<'_>],
    dim: usize,
) -> (Panels<[u8; 4]>, Vec<Rounded>) {
    // The queries are packed once and meet every block. Their rounding errors are kept for the
    // limits.
    let words = dim.div_ceil(4);
    // Where d is no multiple of 4 the last word is filled up with zeros. So are those of the
    // points, and the products of both are zero.
    let mut codes = vec![[0; 4]; rankers.len() * words];
    let mut rounded = Vec::with_capacity(rankers.len());
    for (codes, ranker) in codes.chunks_exact_mut(words).zip(rankers) {
        let codes = &mut codes.as_flattened_mut()[..dim];
        rounded.push(rounding.query(ranker.query().row(), codes));
    }
    (Panels::pack(&codes, words), rounded)
}

/// The queries less the centre, packed, and their squared lengths.
fn float_panels(queries: &[Row<'_>], centre: &[f32]) -> (Panels<f32>, Vec<f64>) {
    let dim = centre.len();
    let mut values = vec![0.0; queries.len() * dim];
    let mut lengths = Vec::with_capacity(queries.len());
    for (values, &query) in values.chunks_exact_mut(dim).zip(queries) {
        lengths.push(centred(query, centre, values));
    }
    (Panels::pack(&values, dim), lengths)
}

/// A block of rows, rounded and packed.
struct BytePoints {
    rounding: Rounding,
    tiles: Tiles<[u8; 4]>,
    /// The codes of one row, before they are packed.
    codes: Vec<[u8; 4]>,
    norms: Vec<i32>,
    /// The greatest distance of a row of the block from what its codes stand for.
    error: f64,
}

impl BytePoints {
    fn new(rounding: Rounding, words: usize) -> Self {
        Self {
            rounding,
            tiles: Tiles::zeros(BLOCK / POINTS, words),
            codes: vec![[0; 4]; words],
            norms: Vec::with_capacity(BLOCK),
            error: 0.0,
        }
    }

    fn pack(&mut self, base: &Vectors, rows: Range<usize>) {
        // A last block of fewer rows leaves older points in the tiles. There are sums of these,
        // too, but no norms, and nobody looks at them.
        self.norms.clear();
        self.error = 0.0;
        for (point, id) in rows.enumerate() {
            let codes = &mut self.codes.as_flattened_mut()[..base.dim()];
            let rounded = self.rounding.row(base.row(id), codes);
            self.tiles.set(point, &self.codes);
            self.norms.push(self.rounding.norm(rounded));
            self.error = self.error.max(rounded.error);
        }
    }
}

/// A block of rows less the centre, packed.
struct FloatPoints {
    tiles: Tiles<f32>,
    /// One row, before it is packed.
    values: Vec<f32>,
    /// (1 − η)·‖x̃‖², rounded down.
    norms: Vec<f32>,
    /// 1 − η.
    shrink: f64,
}

impl FloatPoints {
    fn new(dim: usize, shrink: f64) -> Self {
        Self {
            tiles: Tiles::zeros(BLOCK / POINTS, dim),
            values: vec![0.0; dim],
            norms: Vec::with_capacity(BLOCK),
            shrink,
        }
    }

    fn pack(&mut self, base: &Vectors, rows: Range<usize>, centre: &[f32]) {
        self.norms.clear();
        for (point, id) in rows.enumerate() {
            let length = centred(base.row(id), centre, &mut self.values);
            self.tiles.set(point, &self.values);
            // A row that is too long gets a norm that no limit is below: it is always near.
            self.norms.push(if length <= LONGEST {
                round_down(self.shrink * length)
            } else {
                f32::NEG_INFINITY
            });
        }
    }
}

/// Writes row − centre, and returns its squared length, from eight partial sums.
fn centred(row: Row<'_>, centre: &[f32], out: &mut [f32]) -> f64 {
    // One f32 subtraction a value, whose rounding is part of η.
    match row {
        Row::Bytes(row) => {
            for ((out, &value), centre) in out.iter_mut().zip(row).zip(centre) {
                *out = f32::from(value) - centre;
            }
        }
        Row::Floats(row) => {
            for ((out, value), centre) in out.iter_mut().zip(row).zip(centre) {
                *out = value - centre;
            }
        }
    }
    // The length is that of the rounded values, which are those that are multiplied.
    let mut sums = [0.0; 8];
    let mut add = |values: &[f32]| {
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum += f64::from(value) * f64::from(value);
        }
    };
    let (chunks, rest) = out.as_chunks::<8>();
    chunks.iter().for_each(|chunk| add(chunk));
    add(rest);
    sums.iter().sum()
}

/// The positions of the ones in a mask, ascending.
fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (mask != 0).then(|| mask.trailing_zeros() as usize);
        // Takes the lowest one away.
        mask &= mask.wrapping_sub(1);
        next
    })
}

/// The greatest f32 that is not above `value`.
fn round_down(value: f64) -> f32 {
    -super::round_up(-value)
}
