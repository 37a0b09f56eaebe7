//! Exhaustive search: every vector is compared with every query.
//!
//! Three ways to the same answer, all of which decide every row:
//! - one query (or a few, or Manhattan): a scan row by row; of a byte query by products with its 7-bit codes, whose error is
//!   known, which makes memory bandwidth the limit;
//! - many byte queries over bytes: tiles of products of bytes rounded to 6 and 7 bits, whose error is known;
//! - many other queries: tiles of products in f32.
//!
//! What rounding leaves in doubt is compared again, exactly.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{BuildError, Index, QueryError, check_base, check_query, check_shape};
use crate::dataset::{Row, Storage, Vectors};
use crate::distance::{Metric, QueryForm, Ranker};
use crate::kernel;
use crate::kernel::pair::{self, gamma};
use crate::kernel::tile::{self, Line, POINTS, Panels, QUERIES, Rounded, Tiles, Word};
use crate::neighbor::{Neighbor, Neighbors, TopK};

/// Queries that go over the base together, at most: the base is then read from memory once for all of them.
const TILE: usize = 2048;
/// With fewer queries than this, a tile, made for [`QUERIES`] at least, costs more than a scan for each.
const FEW: usize = 4;
/// Points that all queries of a tile go over before the next come: they share the second-level cache.
const BLOCK: usize = 16 * POINTS;

/// Values of a row, at most, that integer products are taken of: its squared length and products, all of them less than 2¹⁶ a
/// value, then fit in 31 bits.
const DEEPEST: usize = 1 << 14;
/// Rows that a scan bounds before it compares those that are left.
const GROUP: usize = 64;
/// How many bytes ahead of those that it compares a scan of bytes asks the memory for: the processor's own prefetching stops
/// at every page, which is fast enough for floats only.
const AHEAD: usize = 8_192;

/// Exhaustive search (*brute force*, FAISS `Flat`): exact, next to nothing to build, O(n·d) a query.
#[derive(Debug, Clone)]
pub struct BruteForce {
    base: Arc<Vectors>,
    metric: Metric,
    /// About the middle of the base: f32 products are taken from here, since their error grows with the length of
    /// the factors.
    centre: Arc<[f32]>,
    /// The least and the greatest byte.
    range: (u8, u8),
    /// ‖x‖² − 256·Σx of each row of bytes: see [`Halved`].
    norms: Arc<[i32]>,
}

impl BruteForce {
    /// Keeps the vectors, and of rows of bytes their norms.
    ///
    /// # Errors
    /// If `base` is empty.
    pub fn build(base: Arc<Vectors>, metric: Metric) -> Result<Self, BuildError> {
        check_base(&base)?;
        let centre = centre(&base);
        let bytes = base.bytes().unwrap_or_default();
        let range = bytes.iter().fold((u8::MAX, 0), |(low, high), &value| (low.min(value), high.max(value)));
        base.in_huge_pages();
        let rows = if base.dim() <= DEEPEST { bytes } else { &[] };
        let norm = |row: &[u8]| row.iter().map(|&value| i32::from(value) * (i32::from(value) - 256)).sum();
        let norms = rows.par_chunks(base.dim()).map(norm).collect();
        Ok(Self { base, metric, centre, range, norms })
    }

    /// The metric in which it searches.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The vectors that it searches.
    #[must_use]
    pub fn base(&self) -> &Arc<Vectors> {
        &self.base
    }

    fn collector(&self, k: usize) -> TopK {
        TopK::new(k.min(self.base.len()))
    }

    fn scan(&self, query: Row<'_>, k: usize) -> Vec<Neighbor> {
        let mut top = self.collector(k);
        Scan::new(self, query).rows(0..self.base.len(), &mut top);
        top.into_neighbors(self.metric)
    }

    /// Scans for some queries at once, block by block, so that a block is read from memory once for all of them.
    fn scan_all(&self, queries: &[Row<'_>], k: usize) -> Vec<Vec<Neighbor>> {
        let scans: Vec<_> = queries.iter().map(|&query| Scan::new(self, query)).collect();
        let mut tops = vec![self.collector(k); queries.len()];
        for start in (0..self.base.len()).step_by(BLOCK) {
            for (scan, top) in scans.iter().zip(&mut tops) {
                scan.rows(start..(start + BLOCK).min(self.base.len()), top);
            }
        }
        tops.into_iter().map(|top| top.into_neighbors(self.metric)).collect()
    }

    fn search(&self, queries: &[Row<'_>], k: usize) -> Vec<Vec<Neighbor>> {
        if queries.len() < FEW || self.metric != Metric::Euclidean {
            return self.scan_all(queries, k);
        }
        let forms: Vec<_> = queries.iter().map(|&query| QueryForm::new(&self.base, query)).collect();
        let bytes: Option<Vec<&[u8]>> = forms
            .iter()
            .map(|form| match form {
                QueryForm::Bytes(query) if query.len() <= DEEPEST => Some(query.as_ref()),
                _ => None,
            })
            .collect();
        let mut tops = vec![self.collector(k); queries.len()];
        match (bytes, self.base.bytes()) {
            (Some(queries), Some(base)) => self.byte_tiles(base, &queries, &mut tops),
            _ => self.float_tiles(queries, &mut tops),
        }
        tops.into_iter().map(|top| top.into_neighbors(self.metric)).collect()
    }

    /// The neighbours by f32 products.
    ///
    /// With x̃ and q̃ the vectors less the centre, rounded to f32 (which changes each value by the share u = 2⁻²⁴ at
    /// most), and p the computed product q̃·x̃ (off by γ_d·‖q̃‖·‖x̃‖ at most, γ_d ≈ d·u):
    ///
    /// ‖q − x‖² ≥ (1 − η)·‖x̃‖² − 2p + (1 − η)·‖q̃‖² with η = γ_d + 10u,
    ///
    /// where 4u stand for the rounded values, 3u for the rounding of this expression and the rest for that of the norms,
    /// taken in f64. So a row is out if the right side exceeds the rank of the k-th best, and else it is ranked exactly.
    fn float_tiles(&self, queries: &[Row<'_>], tops: &mut [TopK]) {
        /// Beyond this squared length a product could overflow: the row, or every row for the query, is ranked exactly.
        const LONGEST: f64 = 1e37;
        let (dim, len) = (self.base.dim(), self.base.len());
        let shrink = 1.0 - gamma(dim + 2) - 5.0 * f64::from(f32::EPSILON);
        let underflow = dim as f64 * 8.0 * f64::from(f32::MIN_POSITIVE);
        let rankers: Vec<_> = queries.iter().map(|&query| Ranker::new(&self.base, self.metric, query)).collect();

        let mut rows = vec![0.0; queries.len() * dim];
        let lengths: Vec<f64> =
            rows.chunks_exact_mut(dim).zip(queries).map(|(out, &query)| centred(query, &self.centre, out)).collect();
        let panels = Panels::pack(&rows, dim);
        let limit = |top: &TopK, length: f64| {
            if length <= LONGEST { round_up(top.threshold() + underflow - shrink * length) } else { f32::INFINITY }
        };
        let mut limits = vec![Line([f32::NEG_INFINITY; QUERIES]); panels.len()];
        for (query, (top, &length)) in tops.iter().zip(&lengths).enumerate() {
            limits[query / QUERIES].0[query % QUERIES] = limit(top, length);
        }

        let mut points = Tiles::zeros(BLOCK / POINTS, dim);
        let mut point = vec![0.0; dim];
        let mut sums = vec![Line::default(); BLOCK];
        for start in (0..len).step_by(BLOCK) {
            let count = BLOCK.min(len - start);
            let norms: Vec<f32> = (0..count)
                .map(|row| {
                    let length = centred(self.base.row(start + row), &self.centre, &mut point);
                    points.set(row, &point);
                    if length <= LONGEST { round_down(shrink * length) } else { f32::NEG_INFINITY }
                })
                .collect();
            for (panel, limits) in limits.iter_mut().enumerate() {
                panels.products(panel, &points, &mut sums);
                let mut from = 0;
                while let Some((row, mask)) = f32::next_near(&sums[..count], &norms, limits, from) {
                    from = row + 1;
                    for (lane, query) in ones(mask).map(|lane| (lane, panel * QUERIES + lane)) {
                        // The last panel is filled up with queries that are none.
                        if query < queries.len() {
                            let id = start + row;
                            if let Some(rank) = rankers[query].rank_within(id, tops[query].threshold())
                                && tops[query].push(id as u32, rank)
                            {
                                limits.0[lane] = limit(&tops[query], lengths[query]);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The neighbours by products of rounded bytes.
    ///
    /// A row x stands near x̂ = low + a·x′ with integers 0 ≤ x′ ≤ 64, a query near q̂ = low + b·(q′ + 64) with
    /// −64 ≤ q′ ≤ 63, and their distances from these, e(x) and e(q), are known. By the triangle inequality
    ///
    /// ‖q − x‖ ≥ ‖q̂ − x̂‖ − e(q) − e(x), with ‖q̂ − x̂‖² = a²‖x′‖² + b²‖q′ + 64‖² − 2ab·(q′·x′ + 64·Σx′).
    ///
    /// So a row is out if (a/b)·‖x′‖² − 128·Σx′ − 2·q′·x′ exceeds ((t + e(q) + e(x))² − b²‖q′ + 64‖²) / ab, where t is the
    /// distance of the k-th best; else it is ranked exactly.
    fn byte_tiles(&self, base: &[u8], queries: &[&[u8]], tops: &mut [TopK]) {
        let dim = self.base.dim();
        let words = dim.div_ceil(4);
        let (low, spread) = (self.range.0, self.range.1 - self.range.0);
        // The greatest query may lose one, or 255 would need steps of 3.
        let (a, b) = (spread.div_ceil(64).max(1), spread.saturating_sub(1).div_ceil(127).max(1));
        let mut rows = vec![[0; 4]; queries.len() * words];
        let rounded: Vec<Rounded> = rows
            .chunks_exact_mut(words)
            .zip(queries)
            .map(|(out, query)| {
                let codes = &mut out.as_flattened_mut()[..dim];
                let rounded = tile::round(query, low, b, 127, codes);
                codes.iter_mut().for_each(|code| *code = code.wrapping_sub(64));
                rounded
            })
            .collect();
        let panels = Panels::pack(&rows, words);
        let (step, product) = (f64::from(b), f64::from(a) * f64::from(b));
        let limit = |top: &TopK, query: Rounded, error: f64| {
            let reach = top.threshold().sqrt() + f64::from(query.lost).sqrt() + error;
            // The cast saturates.
            ((reach * reach * (1.0 + 1e-12) - step * step * f64::from(query.squares)) / product).floor() as i32
        };

        let mut limits = Line([i32::MIN; QUERIES]);
        let mut points = Tiles::zeros(BLOCK / POINTS, words);
        let mut point = vec![[0; 4]; words];
        let mut sums = vec![Line::default(); BLOCK];
        for (block, rows) in base.chunks(BLOCK * dim).enumerate() {
            let mut norms = Vec::with_capacity(BLOCK);
            let mut lost = 0;
            for (row, values) in rows.chunks_exact(dim).enumerate() {
                let rounded = tile::round(values, low, a, 64, &mut point.as_flattened_mut()[..dim]);
                points.set(row, &point);
                norms.push(i32::from(a) * rounded.squares / i32::from(b) - 128 * rounded.sum);
                lost = lost.max(rounded.lost);
            }
            let error = f64::from(lost).sqrt();
            for panel in 0..panels.len() {
                panels.products(panel, &points, &mut sums);
                let some = panel * QUERIES..((panel + 1) * QUERIES).min(queries.len());
                for query in some.clone() {
                    limits.0[query % QUERIES] = limit(&tops[query], rounded[query], error);
                }
                let mut from = 0;
                while let Some((row, mask)) = <[u8; 4]>::next_near(&sums[..norms.len()], &norms, &limits, from) {
                    from = row + 1;
                    // The last panel is filled up with queries that are none.
                    for query in ones(mask).map(|lane| panel * QUERIES + lane).filter(|query| some.contains(query)) {
                        let rank = Metric::Euclidean.rank_bytes(queries[query], &rows[row * dim..][..dim]);
                        if tops[query].push((block * BLOCK + row) as u32, rank as f64) {
                            limits.0[query % QUERIES] = limit(&tops[query], rounded[query], error);
                        }
                    }
                }
            }
        }
    }
}

/// One query, prepared to be compared with rows of the base one by one.
struct Scan<'a> {
    base: &'a Vectors,
    metric: Metric,
    ranker: Ranker<'a>,
    rough: Rough<'a>,
}

/// What decides of most rows that they are out.
enum Rough<'a> {
    /// Products with the codes of a byte query.
    Halved { rows: &'a [u8], norms: &'a [i32], query: Halved },
    /// f32 arithmetic.
    Floats { rows: &'a [f32] },
    /// Nothing but the comparison itself.
    None,
}

/// A byte query q near q̂ = 2·(q′ + 64), with −64 ≤ q′ ≤ 63, in which products with bytes are a third of the work.
///
/// ‖q̂ − x‖² = ‖x‖² − 256·Σx − 4·q′·x + ‖q̂‖² exactly, and ‖q − x‖ ≥ ‖q̂ − x‖ − ‖q − q̂‖. So a row is out if
/// ‖x‖² − 256·Σx − 4·q′·x exceeds (t + ‖q − q̂‖)² − ‖q̂‖², where t is the distance of the k-th best.
struct Halved {
    codes: Vec<i8>,
    /// ‖q̂‖².
    squares: f64,
    /// ‖q − q̂‖.
    lost: f64,
}

impl<'a> Scan<'a> {
    fn new(BruteForce { base, metric, norms, .. }: &'a BruteForce, query: Row<'a>) -> Self {
        let ranker = Ranker::new(base, *metric, query);
        let rough = match (ranker.query(), base.storage()) {
            (QueryForm::Bytes(query), Storage::Bytes(rows)) if *metric == Metric::Euclidean && !norms.is_empty() => {
                let codes = query.iter().map(|&value| (value / 2) as i8 - 64).collect();
                let squares = query.iter().map(|&value| u64::from(value & !1).pow(2)).sum::<u64>() as f64;
                let lost = (query.iter().filter(|&value| value % 2 == 1).count() as f64).sqrt();
                Rough::Halved { rows, norms, query: Halved { codes, squares, lost } }
            }
            (QueryForm::Floats(_), Storage::Floats(rows)) => Rough::Floats { rows },
            _ => Rough::None,
        };
        Self { base, metric: *metric, ranker, rough }
    }

    fn rows(&self, ids: Range<usize>, top: &mut TopK) {
        let dim = self.base.dim();
        match &self.rough {
            Rough::Halved { rows, norms, query: Halved { codes, squares, lost } } => {
                let limit = |threshold: f64| {
                    let reach = threshold.sqrt() + lost;
                    // The cast saturates.
                    (reach * reach * (1.0 + 1e-12) - squares).floor() as i32
                };
                self.groups(ids, top, limit, |ids, out| {
                    let group = rows[ids.start * dim..ids.end * dim].chunks_exact(dim);
                    for (((id, row), norm), out) in ids.clone().zip(group).zip(&norms[ids]).zip(out) {
                        kernel::prefetch(rows.get(id * dim + AHEAD..(id + 1) * dim + AHEAD).unwrap_or_default());
                        *out = norm - 4 * pair::dot_bytes(row, codes);
                    }
                });
            }
            Rough::Floats { rows } => {
                let QueryForm::Floats(query) = self.ranker.query() else {
                    unreachable!("a query has the form of its base")
                };
                // Twice the error of a sum. Infinite where f32 overflows, as the sum then is.
                let slack = 1.0 + 2.0 * pair::relative_error(dim);
                let limit = |threshold: f64| round_up((threshold + dim as f64 * pair::UNDERFLOW) * slack);
                let distances = match self.metric {
                    Metric::Euclidean => pair::squared_euclidean_f32_rows,
                    Metric::Manhattan => pair::manhattan_f32_rows,
                };
                self.groups(ids, top, limit, |ids, out| distances(query, &rows[ids.start * dim..ids.end * dim], out));
            }
            Rough::None => ids.for_each(|id| _ = top.push(id as u32, self.ranker.rank(id))),
        }
    }

    /// Compares the rows of which a rough value is not above the limit that goes with the k-th best so far. `rough` writes
    /// those of some rows.
    #[inline(always)]
    fn groups<V: Copy + Default + PartialOrd>(
        &self,
        ids: Range<usize>,
        top: &mut TopK,
        limit: impl Fn(f64) -> V,
        rough: impl Fn(Range<usize>, &mut [V]),
    ) {
        let mut values = [V::default(); GROUP];
        let mut near = [0; GROUP];
        for start in ids.clone().step_by(GROUP) {
            let group = start..(start + GROUP).min(ids.end);
            let values = &mut values[..group.len()];
            rough(group.clone(), values);
            let limit = limit(top.threshold());
            let mut count = 0;
            for (id, &value) in group.zip(&*values) {
                near[count] = id;
                // Without a branch, which would often be mispredicted.
                count += usize::from(value <= limit);
            }
            for &id in &near[..count] {
                top.push(id as u32, self.ranker.rank(id));
            }
        }
    }
}

impl Index for BruteForce {
    fn name(&self) -> &'static str {
        "Brute force"
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
        self.base.memory_bytes() + size_of_val(&*self.centre) + size_of_val(&*self.norms)
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        Ok(self.scan(Row::Floats(query), k))
    }

    fn query_batch(&self, queries: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
        check_shape(queries.dim(), k, self.dim())?;
        let rows: Vec<_> = (0..queries.len()).map(|row| queries.row(row)).collect();
        let share = rows.len().div_ceil(rayon::current_num_threads()).next_multiple_of(QUERIES).clamp(QUERIES, TILE);
        let found: Vec<_> = rows.par_chunks(share).map(|queries| self.search(queries, k)).collect();
        Ok(found.into_iter().flatten().collect())
    }
}

/// The mean of some rows spread over the base.
fn centre(base: &Vectors) -> Arc<[f32]> {
    const ENOUGH: usize = 1_000;
    let rows: Vec<usize> = (0..base.len()).step_by(base.len().div_ceil(ENOUGH)).collect();
    let mut sums = vec![0.0f64; base.dim()];
    for &row in &rows {
        match base.row(row) {
            Row::Bytes(row) => sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value)),
            Row::Floats(row) => sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value)),
        }
    }
    sums.into_iter().map(|sum| (sum / rows.len() as f64) as f32).collect()
}

/// Writes row − centre, and returns its squared length.
fn centred(row: Row<'_>, centre: &[f32], out: &mut [f32]) -> f64 {
    match row {
        Row::Bytes(row) => out.iter_mut().zip(row).zip(centre).for_each(|((o, &v), c)| *o = f32::from(v) - c),
        Row::Floats(row) => out.iter_mut().zip(row).zip(centre).for_each(|((o, v), c)| *o = v - c),
    }
    let mut sums = [0.0; 8];
    let (chunks, rest) = out.as_chunks::<8>();
    let mut add = |values: &[f32]| {
        sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
    };
    chunks.iter().for_each(|chunk| add(chunk));
    add(rest);
    sums.iter().sum()
}

/// The positions of the ones in a mask, ascending.
fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        next
    })
}

/// The least f32 that is not below `value`.
fn round_up(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) < value { nearest.next_up() } else { nearest }
}

/// The greatest f32 that is not above `value`.
fn round_down(value: f64) -> f32 {
    -round_up(-value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The k nearest by the definition.
    fn oracle(base: &Vectors, metric: Metric, query: Row<'_>, k: usize) -> Vec<Neighbor> {
        let ranker = Ranker::new(base, metric, query);
        let mut top = TopK::new(k.min(base.len()));
        (0..base.len()).for_each(|id| _ = top.push(id as u32, ranker.rank(id)));
        top.into_neighbors(metric)
    }

    fn check(base: &Vectors, queries: &Vectors, k: usize) {
        for metric in [Metric::Euclidean, Metric::Manhattan] {
            let index = BruteForce::build(Arc::new(base.clone()), metric).unwrap();
            let batch = index.query_batch(queries, k).unwrap();
            assert_eq!(batch.len(), queries.len());
            for row in 0..queries.len() {
                let expected = oracle(base, metric, queries.row(row), k);
                assert_eq!(batch.row(row), expected, "query {row} of a batch, {metric:?}");
                assert_eq!(index.query(&queries.row_to_floats(row), k).unwrap(), expected, "query {row}, {metric:?}");
            }
        }
    }

    /// A table of few distinct values, so that there are ties, at one of the magnitudes that f32 has.
    fn floats(dim: usize, rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
        let scales = prop::sample::select(vec![1e-45f32, 1e-38, 1e-22, 1e-3, 1.0, 255.0, 1e18, 1e20, 1e38]);
        let offsets = prop::sample::select(vec![0.0f32, 1.0, -1e6, 1e10, 3e38]);
        let steps = rows.prop_flat_map(move |rows| prop::collection::vec(-3i8..=3, rows * dim));
        (steps, scales, offsets).prop_map(|(steps, scale, offset)| {
            steps.into_iter().map(|step| (offset + scale * f32::from(step)).clamp(f32::MIN, f32::MAX)).collect()
        })
    }

    fn bytes(dim: usize, rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        rows.prop_flat_map(move |rows| prop::collection::vec(any::<u8>(), rows * dim))
    }

    proptest! {
        #[test]
        fn floats_of_every_magnitude_are_exact((dim, base, queries) in (1usize..40).prop_flat_map(|dim| {
            (Just(dim), floats(dim, 1..250), floats(dim, 1..40))
        }), k in 1usize..20) {
            check(&Vectors::from_floats(dim, base).unwrap(), &Vectors::from_floats(dim, queries).unwrap(), k);
        }

        #[test]
        fn bytes_are_exact_and_so_are_floats_over_bytes((dim, base, queries, others) in (1usize..40).prop_flat_map(|dim| {
            (Just(dim), bytes(dim, 1..250), bytes(dim, 1..40), floats(dim, 1..20))
        }), k in 1usize..20) {
            let base = Vectors::from_bytes(dim, base).unwrap();
            let queries = Vectors::from_bytes(dim, queries).unwrap();
            check(&base, &queries, k);
            check(&base, &Vectors::from_floats(dim, queries.to_floats()).unwrap(), k);
            check(&base, &Vectors::from_floats(dim, others).unwrap(), k);
        }
    }

    #[test]
    fn rows_too_long_for_31_bits_and_more_queries_than_a_tile_are_exact() {
        let long =
            Vectors::from_bytes(20_000, [vec![255u8; 20_000], vec![0; 20_000], vec![7; 20_000]].concat()).unwrap();
        check(&long, &long.select(&[0, 1, 2, 0, 1]).unwrap(), 3);
        let many = Vectors::from_bytes(3, (0..9_000u32).map(|i| (i * i % 253) as u8).collect::<Vec<_>>()).unwrap();
        check(&many, &many.head(2 * TILE + 5), 4);
    }
}
