//! Exhaustive search: every vector is compared with every query.
//!
//! Three ways to the same answer, all of which decide every row:
//! - one query (or a few, or Manhattan): a scan row by row, bounded by memory bandwidth;
//! - many byte queries over bytes: tiles of integer products, ‖q − x‖² = ‖q‖² − 2·q·x + ‖x‖², exact;
//! - many other queries: the same tiles in f32. What rounding leaves in doubt is compared again in f64.

use std::sync::Arc;

use rayon::prelude::*;

use super::{BuildError, Index, QueryError, check_base, check_query, check_shape};
use crate::dataset::{Row, Storage, Vectors};
use crate::distance::{Metric, QueryForm, Ranker};
use crate::kernel;
use crate::kernel::pair::{self, gamma};
use crate::kernel::tile::{Line, POINTS, Panels, QUERIES, Tiles, Word};
use crate::neighbor::{Neighbor, Neighbors, TopK};

/// Queries that go over the base together, at most: the base is then read from memory once for all of them.
const TILE: usize = 1024;
/// With fewer queries than this, a tile, made for [`QUERIES`] at least, costs more than a scan for each.
const FEW: usize = 4;
/// Points that all queries of a tile go over before the next come: they share the second-level cache.
const BLOCK: usize = 16 * POINTS;

/// Values that a scan asks the memory for ahead of those that it compares.
const AHEAD: usize = 4_096;

/// Exhaustive search (*brute force*, FAISS `Flat`): exact, nothing to build, O(n·d) a query.
#[derive(Debug, Clone)]
pub struct BruteForce {
    base: Arc<Vectors>,
    metric: Metric,
    /// About the middle of the base: f32 products are taken from here, since their error grows with the length of
    /// the factors.
    centre: Arc<[f32]>,
}

impl BruteForce {
    /// Keeps the vectors; there is nothing else to prepare.
    ///
    /// # Errors
    /// If `base` is empty.
    pub fn build(base: Arc<Vectors>, metric: Metric) -> Result<Self, BuildError> {
        check_base(&base)?;
        let centre = centre(&base);
        Ok(Self { base, metric, centre })
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
        Scan::new(&self.base, self.metric, query).rows(0..self.base.len(), &mut top);
        top.into_neighbors(self.metric)
    }

    /// Scans for some queries at once, block by block, so that a block is read from memory once for all of them.
    fn scan_all(&self, queries: &[Row<'_>], k: usize) -> Vec<Vec<Neighbor>> {
        let scans: Vec<_> = queries.iter().map(|&query| Scan::new(&self.base, self.metric, query)).collect();
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
        // Σ255² and twice a product have to fit in 31 bits.
        const DEEPEST: usize = 1 << 14;
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
            (Some(queries), Some(base)) => byte_tiles(base, self.base.dim(), &queries, &mut tops),
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
                            tops[query].push(id as u32, rankers[query].rank(id));
                            limits.0[lane] = limit(&tops[query], lengths[query]);
                        }
                    }
                }
            }
        }
    }
}

/// The neighbours by integer products. Rank values are exact, so that nothing is compared twice.
fn byte_tiles(base: &[u8], dim: usize, queries: &[&[u8]], tops: &mut [TopK]) {
    let words = dim.div_ceil(2);
    let square = |row: &[u8]| row.iter().map(|&value| i32::from(value).pow(2)).sum::<i32>();
    let mut rows = vec![[0; 2]; queries.len() * words];
    rows.chunks_exact_mut(words).zip(queries).for_each(|(out, query)| widen(query, out));
    let panels = Panels::pack(&rows, words);
    let lengths: Vec<i32> = queries.iter().map(|query| square(query)).collect();
    // As integers: the rank is below 2³¹, and the threshold is one of the ranks or infinite, where the cast saturates.
    let limit = |top: &TopK, length: i32| (top.threshold() as i64 - i64::from(length)).min(i64::from(i32::MAX)) as i32;
    let mut limits = vec![Line([i32::MIN; QUERIES]); panels.len()];
    for (query, (top, &length)) in tops.iter().zip(&lengths).enumerate() {
        limits[query / QUERIES].0[query % QUERIES] = limit(top, length);
    }

    let mut points = Tiles::zeros(BLOCK / POINTS, words);
    let mut point = vec![[0; 2]; words];
    let mut sums = vec![Line::default(); BLOCK];
    for (block, rows) in base.chunks(BLOCK * dim).enumerate() {
        let mut norms = Vec::with_capacity(BLOCK);
        for (row, values) in rows.chunks_exact(dim).enumerate() {
            widen(values, &mut point);
            points.set(row, &point);
            norms.push(square(values));
        }
        for (panel, limits) in limits.iter_mut().enumerate() {
            panels.products(panel, &points, &mut sums);
            let mut from = 0;
            while let Some((row, mask)) = <[i16; 2]>::next_near(&sums[..norms.len()], &norms, limits, from) {
                from = row + 1;
                for (lane, query) in ones(mask).map(|lane| (lane, panel * QUERIES + lane)) {
                    let rank = norms[row] - 2 * sums[row].0[lane] + lengths[query];
                    tops[query].push((block * BLOCK + row) as u32, f64::from(rank));
                    limits.0[lane] = limit(&tops[query], lengths[query]);
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
    query: QueryForm<'a>,
}

impl<'a> Scan<'a> {
    fn new(base: &'a Vectors, metric: Metric, query: Row<'a>) -> Self {
        Self { base, metric, ranker: Ranker::new(base, metric, query), query: QueryForm::new(base, query) }
    }

    /// Asks the memory for what will be compared soon: the processor's own prefetching stops at every page.
    #[inline]
    fn fetch(&self, id: usize) {
        let (dim, ahead) = (self.base.dim(), self.base.dim() * id + AHEAD);
        match self.base.storage() {
            Storage::Bytes(values) => kernel::prefetch(values.get(ahead..ahead + dim).unwrap_or_default()),
            Storage::Floats(values) => kernel::prefetch(values.get(ahead..ahead + dim).unwrap_or_default()),
        }
    }

    fn rows(&self, ids: std::ops::Range<usize>, top: &mut TopK) {
        let (QueryForm::Floats(query), Some(base)) = (&self.query, self.base.floats()) else {
            for id in ids {
                self.fetch(id);
                top.push(id as u32, self.ranker.rank(id));
            }
            return;
        };
        // In f32 first, exactly where that leaves a doubt.
        let dim = self.base.dim();
        let approximate = match self.metric {
            Metric::Euclidean => pair::squared_euclidean_f32,
            Metric::Manhattan => pair::manhattan_f32,
        };
        let (error, underflow) = (pair::relative_error(dim), dim as f64 * pair::UNDERFLOW);
        let limit = |top: &TopK| round_up((top.threshold() + underflow) * (1.0 + 2.0 * error));
        let mut far = limit(top);
        for (id, row) in ids.clone().zip(base[ids.start * dim..ids.end * dim].chunks_exact(dim)) {
            self.fetch(id);
            if approximate(query, row) <= far && top.push(id as u32, self.ranker.rank(id)) {
                far = limit(top);
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
        self.base.memory_bytes() + size_of_val(&*self.centre)
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

/// Bytes as pairs of 16 bits, an odd last one with a zero.
fn widen(row: &[u8], out: &mut [[i16; 2]]) {
    let (pairs, rest) = row.as_chunks::<2>();
    out.iter_mut().zip(pairs).for_each(|(out, pair)| *out = pair.map(i16::from));
    if let ([last], Some(out)) = (rest, out.last_mut()) {
        *out = [i16::from(*last), 0];
    }
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
