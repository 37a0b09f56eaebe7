//! Exhaustive search: every vector is compared with every query.
//!
//! # The naive form
//! ```text
//! for x in base:
//!     top.push(x, distance(q, x))
//! ```
//!
//! That is all there is to it. It is O(n·d) a query, and there is nothing to skip. What can be
//! saved is the time that each of the n comparisons takes.
//!
//! # The ideas
//! There are three ways to the same answer. Which one is taken depends on how many queries there
//! are:
//!
//! - One query (or two, or three): the scan is as fast as memory delivers the rows. So it reads
//!   half a byte of each value instead, and from these bounds the distance ([`scan`]). Where half
//!   bytes leave too much in doubt, and for Manhattan, it reads the rows themselves.
//! - Many queries: products of tiles of rows and queries, in values rounded to 6 and 7 bits, to 8
//!   where the processor multiplies those ([`tiles`]). Each row is then read once for all queries,
//!   and arithmetic is the limit.
//! - Where that leaves too much in doubt: tiles of products in f32.
//!
//! # The bound, and why no neighbour is lost
//! The error of all rounding is known ([`rounding`]). A row is left out only if its rounded
//! distance is above the k-th best so far by more than that error; every other row is compared
//! exactly.
//!
//! # Layout
//! The vectors as they are, shared. Where single queries gain by it, half a byte of each value
//! besides: 16 rows side by side in a cache line, so that products need no sum across a register.

mod rounding;
mod scan;
mod tiles;

use std::sync::Arc;

use rayon::prelude::*;

use self::scan::{Halves, Scan};
use crate::distance::{Metric, Norm};
use crate::index::parameters::parameters;
use crate::index::parts::{PartError, Parts, Saved, expect};
use crate::index::{Build, BuildError, Found, Index, NoParameters, Visits, check_base, norm_of};
use crate::neighbor::{Candidate, TopK};
use crate::simd::tiles::{POINTS, QUERIES};
use crate::vectors::{Row, Vectors};

/// Queries that go over the base together, at most: the base is then read from memory once for all
/// of them. More would share that reading further, and need as many more packed queries and
/// candidate lists at a time.
const TILE: usize = 2048;
/// With fewer queries than this, a tile, made for [`QUERIES`] at least, costs more than a scan for
/// each.
const FEW: usize = 4;
/// Points that all queries of a tile go over before the next come, so that they stay in the
/// second-level cache: 96, that is 294 KiB of f32 at 784 dimensions, 74 KiB of rounded bytes. A
/// scan bounds as many before it compares what is left of them.
const BLOCK: usize = 16 * POINTS;

parameters! {
    /// How a [`BruteForce`] is built.
    pub struct BruteForceParams {
    } and {
        /// The metric in which it searches: Euclidean or Manhattan.
        metric: Metric = Metric::Euclidean;
    }
}

/// Exhaustive search (*brute force*, FAISS `Flat`): exact, next to nothing to build, O(n·d) a
/// query.
///
/// Single queries scan half a byte of each value, and batches are multiplied tile by tile in small
/// integers. What their rounding leaves in doubt is compared exactly, so that the answer is that of
/// comparing every row.
///
/// **What it is bad at**: large bases. A query takes time in proportion to n, however the data lie.
/// The half bytes take half as much memory again as vectors of bytes, an eighth as much as floats.
///
/// The tiles are those of K. Goto and R. van de Geijn, *Anatomy of High-Performance Matrix
/// Multiplication*, ACM TOMS 34(3), 2008.
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let base = Arc::new(Vectors::from_bytes(2, vec![0, 0, 4, 0, 0, 3])?);
/// let index = BruteForce::build(base, BruteForceParams::default())?;
/// let nearest = index.query(&[4u8, 3], 2)?;
/// assert_eq!(nearest[0], Neighbor { id: 1, distance: 3.0 });
/// assert_eq!(nearest[1], Neighbor { id: 2, distance: 4.0 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BruteForce {
    base: Arc<Vectors>,
    norm: Norm,
    /// About the middle of the base: f32 products are taken from here, since their error grows with
    /// the length of the factors.
    centre: Arc<Vec<f32>>,
    /// The least and the greatest value.
    range: (f32, f32),
    /// What single queries scan, if that leaves little in doubt.
    halves: Option<Arc<Halves>>,
}

impl BruteForce {
    /// With half a byte of each value wherever they can be had.
    fn new(base: Arc<Vectors>, metric: Metric) -> Result<Self, BuildError> {
        check_base(&base)?;
        let norm = norm_of::<Self>(metric)?;
        let (centre, range) = (Arc::new(centre(&base)), rounding::range(&base));
        base.in_huge_pages();
        // Half bytes are multiplied, and products give the Euclidean distance only.
        let halves = (norm == Norm::L2)
            .then(|| Halves::new(&base, range))
            .flatten()
            .map(Arc::new);
        Ok(Self {
            base,
            norm,
            centre,
            range,
            halves,
        })
    }

    /// Whether a scan of half bytes excludes nearly all rows. Some rows are tried as queries.
    fn halves_pay(&self) -> bool {
        /// Queries that are tried.
        const SAMPLE: usize = 8;
        const K: usize = 10;
        /// The share of rows, one in so many, that may be left in doubt. A scan of half bytes saves
        /// half the scan of a row of bytes, for each row. An exact comparison in 16 rows may then
        /// cost up to 8 scans of a row before that is lost.
        const IN_DOUBT: usize = 16;
        if self.halves.is_none() {
            return false;
        }
        // The first block of each scan has no threshold yet, so that all of its 96 rows are in
        // doubt. So a base of fewer than 16 · 96 = 1,536 rows never keeps half bytes.
        let len = self.base.len();
        // Rows at equal distances stand for the queries to come. This needs no randomness, so that
        // equal data give equal indexes.
        let mut queries = 0;
        let mut compared = 0;
        for row in (0..len).step_by(len.div_ceil(SAMPLE)) {
            // One more than K, since a row finds itself.
            let mut top = self.collector(K + 1);
            compared += Scan::new(self, self.base.row(row)).rows(0..len, &mut top);
            queries += 1;
        }
        compared * IN_DOUBT <= len * queries
    }

    /// Whether single queries scan half bytes.
    pub(crate) fn has_halves(&self) -> bool {
        self.halves.is_some()
    }

    /// The same index in the least memory.
    pub(crate) fn without_halves(self) -> Self {
        Self {
            halves: None,
            ..self
        }
    }

    /// What it consists of.
    pub(crate) fn add_parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.add("rows", &*self.base);
        parts.add("centre", &self.centre);
        parts.add("least", &self.range.0);
        parts.add("greatest", &self.range.1);
        if let Some(halves) = &self.halves {
            halves.add_parts(parts);
        }
    }

    /// What [`Self::add_parts`] has listed.
    pub(crate) fn part(norm: Norm, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let base: Vectors = saved.take("rows")?;
        expect(!base.is_empty(), "rows", "at least one")?;
        let halves = Halves::of_parts(&base, saved)?.map(Arc::new);
        let fit = halves.is_none() || norm == Norm::L2;
        expect(fit, "halves", "the Euclidean metric")?;
        let centre: Arc<Vec<f32>> = saved.take("centre")?;
        expect(centre.len() == base.dim(), "centre", "a vector")?;
        Ok(Self {
            base: Arc::new(base),
            norm,
            centre,
            range: (saved.take("least")?, saved.take("greatest")?),
            halves,
        })
    }

    /// The vectors that it searches.
    #[must_use]
    pub fn base(&self) -> &Arc<Vectors> {
        &self.base
    }

    fn collector(&self, k: usize) -> TopK {
        TopK::new(k.min(self.base.len()))
    }

    /// One scan over all rows. All are bounded or compared: nothing is skipped by where it lies.
    fn scan_one(&self, query: Row<'_>, mut top: TopK) -> Found {
        let len = self.base.len();
        let distances = Scan::new(self, query).rows(0..len, &mut top);
        Found {
            candidates: top.into_candidates(),
            visits: Visits {
                leaves: 1,
                bounds: len,
                distances,
            },
        }
    }

    /// Scans for some queries at once, block by block, so that a block is read from memory once for
    /// all of them.
    fn scan_all(&self, queries: &[Row<'_>], k: usize) -> Vec<Vec<Candidate>> {
        let scans: Vec<_> = queries
            .iter()
            .map(|&query| Scan::new(self, query))
            .collect();
        let mut tops = vec![self.collector(k); queries.len()];
        // The threshold of each query is kept from block to block.
        for start in (0..self.base.len()).step_by(BLOCK) {
            for (scan, top) in scans.iter().zip(&mut tops) {
                scan.rows(start..(start + BLOCK).min(self.base.len()), top);
            }
        }
        tops.into_iter().map(|top| top.into_candidates()).collect()
    }

    fn search_all(&self, queries: &[Row<'_>], k: usize) -> Vec<Vec<Candidate>> {
        // Tiles are of products, which give the Euclidean distance only.
        if queries.len() < FEW || self.norm != Norm::L2 {
            return self.scan_all(queries, k);
        }
        let mut tops = vec![self.collector(k); queries.len()];
        self.tiles(queries, &mut tops);
        tops.into_iter().map(|top| top.into_candidates()).collect()
    }
}

impl Build for BruteForce {
    const KEY: &'static str = "brute_force";
    const NAME: &'static str = "Brute force";
    const EXACT: bool = true;
    type Params = BruteForceParams;
    type Search = NoParameters;

    /// Keeps the vectors and, for the Euclidean metric and if that will speed single queries up,
    /// half a byte of each value.
    ///
    /// # Errors
    /// If `base` is empty, or the metric is another one than Euclidean and Manhattan.
    fn build(base: Arc<Vectors>, params: BruteForceParams) -> Result<Self, BuildError> {
        let index = Self::new(base, params.metric)?;
        Ok(if index.halves_pay() {
            index
        } else {
            index.without_halves()
        })
    }

    fn manhattan(_: BruteForceParams) -> Option<BruteForceParams> {
        Some(BruteForceParams {
            metric: Metric::Manhattan,
        })
    }

    fn with_search(&self, _: NoParameters) -> Result<Self, BuildError> {
        Ok(self.clone())
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let norm = norm_of::<Self>(saved.metric())?;
        Self::part(norm, saved)
    }
}

impl Index for BruteForce {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    fn len(&self) -> usize {
        self.base.len()
    }

    fn dim(&self) -> usize {
        self.base.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.base.memory_bytes()
            + size_of_val(&**self.centre)
            + self
                .halves
                .as_ref()
                .map_or(0, |halves| halves.memory_bytes())
    }

    fn metric(&self) -> Metric {
        self.norm.metric()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        self.scan_one(query, self.collector(k))
    }

    fn search_within(&self, query: Row<'_>, reduced: f64, most: usize) -> Option<Found> {
        let top = TopK::within(most.min(self.base.len()), reduced);
        Some(self.scan_one(query, top))
    }

    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        let rows: Vec<_> = (0..queries.len()).map(|row| queries.row(row)).collect();
        // Every thread gets one share where that is no more than a tile. Shares are whole panels,
        // so that only the last panel of all is filled up.
        let share = rows
            .len()
            .div_ceil(rayon::current_num_threads())
            .next_multiple_of(QUERIES)
            .clamp(QUERIES, TILE);
        // Collected in the order of the shares, whichever ends first.
        let found: Vec<_> = rows
            .par_chunks(share)
            .map(|queries| self.search_all(queries, k))
            .collect();
        found.into_iter().flatten().collect()
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        // The header has the metric.
        parts.describe::<Self>(&BruteForceParams::default(), &NoParameters);
        self.add_parts(parts);
    }
}

/// The mean of some rows spread over the base.
fn centre(base: &Vectors) -> Vec<f32> {
    const ENOUGH: usize = 1_000;
    // No bound depends on how good this mean is. So some rows are enough for it.
    let rows: Vec<usize> = (0..base.len())
        .step_by(base.len().div_ceil(ENOUGH))
        .collect();
    let mut sums = vec![0.0f64; base.dim()];
    for &row in &rows {
        base.row(row).add_to(&mut sums);
    }
    sums.into_iter()
        .map(|sum| (sum / rows.len() as f64) as f32)
        .collect()
}

/// The least f32 that is not below `value`.
fn round_up(value: f64) -> f32 {
    // The cast rounds to the nearest f32, which may be below, and to infinity beyond the greatest.
    let nearest = value as f32;
    if f64::from(nearest) < value {
        nearest.next_up()
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Ranker;
    use crate::index::Query;
    use crate::neighbor::Neighbor;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The k nearest by the definition.
    fn oracle(base: &Vectors, metric: Metric, query: Row<'_>, k: usize) -> Vec<Neighbor> {
        let ranker = Ranker::new(base, metric, query);
        let mut top = TopK::new(k.min(base.len()));
        (0..base.len()).for_each(|id| _ = top.push(id as u32, ranker.reduced(id)));
        top.into_neighbors(metric)
    }

    fn check(base: &Vectors, queries: &Vectors, k: usize) {
        for metric in [Metric::Euclidean, Metric::Manhattan] {
            let index = BruteForce::new(Arc::new(base.clone()), metric).unwrap();
            let batch = index.query_batch(queries, k).unwrap();
            assert_eq!(batch.len(), queries.len());
            let plain = index.clone().without_halves();
            for row in 0..queries.len() {
                let expected = oracle(base, metric, queries.row(row), k);
                assert_eq!(
                    batch.row(row),
                    expected,
                    "query {row} of a batch, {metric:?}"
                );
                let query = queries.row_to_floats(row);
                assert_eq!(
                    index.query(&query, k).unwrap(),
                    expected,
                    "query {row}, {metric:?}"
                );
                assert_eq!(
                    plain.query(&query, k).unwrap(),
                    expected,
                    "query {row} without halves, {metric:?}"
                );
            }
        }
    }

    /// A table of few distinct values, so that there are ties, at one of the magnitudes that f32
    /// has.
    fn floats(dim: usize, rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
        let scales = prop::sample::select(vec![
            1e-45f32, 1e-38, 1e-22, 1e-3, 1.0, 255.0, 1e18, 1e20, 1e38,
        ]);
        let offsets = prop::sample::select(vec![0.0f32, 1.0, -1e6, 1e10, 3e38]);
        let steps = rows.prop_flat_map(move |rows| prop::collection::vec(-3i8..=3, rows * dim));
        (steps, scales, offsets).prop_map(|(steps, scale, offset)| {
            steps
                .into_iter()
                .map(|step| (offset + scale * f32::from(step)).clamp(f32::MIN, f32::MAX))
                .collect()
        })
    }

    /// Narrow ones, whose floats are multiplied as floats, and wide ones.
    fn dimensions() -> impl Strategy<Value = usize> {
        prop_oneof![3 => 1usize..40, 1 => 48usize..70]
    }

    fn bytes(dim: usize, rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        rows.prop_flat_map(move |rows| prop::collection::vec(any::<u8>(), rows * dim))
    }

    proptest! {
        #[test]
        fn floats_of_every_magnitude_are_exact(
            (dim, base, queries) in dimensions()
                .prop_flat_map(|dim| (Just(dim), floats(dim, 1..250), floats(dim, 1..40))),
            k in 1usize..20,
        ) {
            let base = Vectors::from_floats(dim, base).unwrap();
            check(&base, &Vectors::from_floats(dim, queries).unwrap(), k);
        }

        #[test]
        fn bytes_are_exact_and_so_are_floats_over_bytes(
            (dim, base, queries, others) in dimensions().prop_flat_map(|dim| {
                (Just(dim), bytes(dim, 1..250), bytes(dim, 1..40), floats(dim, 1..20))
            }),
            k in 1usize..20,
        ) {
            let base = Vectors::from_bytes(dim, base).unwrap();
            let queries = Vectors::from_bytes(dim, queries).unwrap();
            check(&base, &queries, k);
            check(&base, &Vectors::from_floats(dim, queries.to_floats()).unwrap(), k);
            check(&base, &Vectors::from_floats(dim, others).unwrap(), k);
        }
    }

    fn normal(dim: usize, rows: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Of twelve uniform ones, the variance of which is 1.
        (0..dim * rows)
            .map(|_| (0..12).map(|_| rng.random_range(-0.5f32..0.5)).sum())
            .collect()
    }

    #[test]
    fn floats_are_exact_whatever_their_rounding_leaves_in_doubt() {
        let (base, queries) = (
            normal(60, 3_000, 1),
            Vectors::from_floats(60, normal(60, 20, 2)).unwrap(),
        );
        check(
            &Vectors::from_floats(60, base.clone()).unwrap(),
            &queries,
            10,
        );
        // One value takes the grid so far apart that all other rows are one point of it.
        let mut apart = base;
        apart[1_000] = 1e9;
        let apart = Vectors::from_floats(60, apart).unwrap();
        check(&apart, &queries, 10);
        let index = BruteForce::build(Arc::new(apart), BruteForceParams::default()).unwrap();
        assert!(!index.has_halves(), "which decide nothing");
    }

    #[test]
    fn half_bytes_are_kept_where_they_decide_of_most_rows() {
        // Four hidden variables, mixed: distances differ widely.
        let (hidden, mixing) = (normal(4, 10_000, 3), normal(40, 4, 4));
        let mix = |hidden: &[f32]| -> Vec<f32> {
            (0..40)
                .map(|at| (0..4).map(|i| hidden[i] * mixing[40 * i + at]).sum())
                .collect()
        };
        let base = Arc::new(
            Vectors::from_floats(40, hidden.chunks(4).flat_map(mix).collect::<Vec<_>>()).unwrap(),
        );
        let index = BruteForce::build(Arc::clone(&base), BruteForceParams::default()).unwrap();
        assert!(index.has_halves());
        assert!(index.memory_bytes() < base.memory_bytes() * 6 / 5);
        assert!(
            !BruteForce::build(
                base,
                BruteForceParams {
                    metric: Metric::Manhattan
                }
            )
            .unwrap()
            .has_halves()
        );
    }

    #[test]
    fn rows_too_long_for_31_bits_and_more_queries_than_a_tile_are_exact() {
        let long = Vectors::from_bytes(
            20_000,
            [vec![255u8; 20_000], vec![0; 20_000], vec![7; 20_000]].concat(),
        )
        .unwrap();
        check(&long, &long.select(&[0, 1, 2, 0, 1]).unwrap(), 3);
        let many = Vectors::from_bytes(
            3,
            (0..9_000u32)
                .map(|i| (i * i % 253) as u8)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        check(&many, &many.head(2 * TILE + 5), 4);
    }
}
