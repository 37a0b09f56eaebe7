//! Many queries: tiles of products.

use super::rounding::{Rounded, Rounding};
use super::{BLOCK, BruteForce};
use crate::distance::Ranker;
use crate::neighbor::TopK;
use crate::simd::pairwise::gamma;
use crate::simd::tiles::{Line, POINTS, Panels, QUERIES, Tiles, Word};
use crate::vectors::Row;

/// In fewer dimensions, products of floats cost no more than the rounding to bytes leaves in doubt.
const NARROW: usize = 48;

impl BruteForce {
    /// Collects the Euclidean neighbours of some queries.
    pub(crate) fn tiles(&self, queries: &[Row<'_>], tops: &mut [TopK]) {
        let rankers: Vec<_> = queries
            .iter()
            .map(|&query| Ranker::new(&self.base, self.metric, query))
            .collect();
        let rounding = Rounding::new(&self.base, self.range, 64, 64);
        let decided =
            match rounding.filter(|_| self.base.bytes().is_some() || self.base.dim() >= NARROW) {
                Some(rounding) => self.byte_tiles(rounding, &rankers, tops),
                None => 0,
            };
        if decided < self.base.len() {
            self.float_tiles(decided, queries, &rankers, tops);
        }
    }

    /// The neighbours by products of values rounded to 6 and 7 bits: see [`Rounding`]. Where that leaves too much in doubt it
    /// stops, and returns how many rows have been decided.
    fn byte_tiles(&self, rounding: Rounding, rankers: &[Ranker<'_>], tops: &mut [TopK]) -> usize {
        let dim = self.base.dim();
        let words = dim.div_ceil(4);
        let mut rows = vec![[0; 4]; rankers.len() * words];
        let rounded: Vec<Rounded> = rows
            .chunks_exact_mut(words)
            .zip(rankers)
            .map(|(out, ranker)| {
                rounding.query(ranker.query().row(), &mut out.as_flattened_mut()[..dim])
            })
            .collect();
        let panels = Panels::pack(&rows, words);

        let mut limits = Line([i32::MIN; QUERIES]);
        let mut points = Tiles::zeros(BLOCK / POINTS, words);
        let mut point = vec![[0; 4]; words];
        let mut sums = vec![Line::default(); BLOCK];
        // Rows compared exactly for nothing.
        let mut wasted = 0;
        for start in (0..self.base.len()).step_by(BLOCK) {
            let mut norms = Vec::with_capacity(BLOCK);
            let mut error = 0.0f64;
            for (row, id) in (start..(start + BLOCK).min(self.base.len())).enumerate() {
                let rounded = rounding.row(self.base.row(id), &mut point.as_flattened_mut()[..dim]);
                points.set(row, &point);
                norms.push(rounding.norm(rounded));
                error = error.max(rounded.error);
            }
            for panel in 0..panels.len() {
                panels.products(panel, &points, &mut sums);
                let some = panel * QUERIES..((panel + 1) * QUERIES).min(rankers.len());
                for query in some.clone() {
                    limits.0[query % QUERIES] =
                        rounding.limit(tops[query].threshold(), rounded[query], error);
                }
                let mut from = 0;
                while let Some((row, mask)) =
                    <[u8; 4]>::next_near(&sums[..norms.len()], &norms, &limits, from)
                {
                    from = row + 1;
                    // The last panel is filled up with queries that are none.
                    for query in ones(mask)
                        .map(|lane| panel * QUERIES + lane)
                        .filter(|query| some.contains(query))
                    {
                        let id = start + row;
                        let rank = rankers[query].reduced_within(id, tops[query].threshold());
                        if rank.is_some_and(|rank| tops[query].push(id as u32, rank)) {
                            limits.0[query % QUERIES] =
                                rounding.limit(tops[query].threshold(), rounded[query], error);
                        } else {
                            wasted += 1;
                        }
                    }
                }
            }
            // What is saved for a row is an eighth of an exact comparison, about.
            if wasted > rankers.len() * (2 * BLOCK + start / 8) {
                return (start + BLOCK).min(self.base.len());
            }
        }
        self.base.len()
    }

    /// The neighbours among the rows from `from` on, by f32 products.
    ///
    /// With x̃ and q̃ the vectors less the centre, rounded to f32 (which changes each value by the share u = 2⁻²⁴ at
    /// most), and p the computed product q̃·x̃ (off by γ_d·‖q̃‖·‖x̃‖ at most, γ_d ≈ d·u):
    ///
    /// ‖q − x‖² ≥ (1 − η)·‖x̃‖² − 2p + (1 − η)·‖q̃‖² with η = γ_d + 10u,
    ///
    /// where 4u stand for the rounded values, 3u for the rounding of this expression and the rest for that of the norms,
    /// taken in f64. So a row is out if the right side exceeds the rank of the k-th best, and else it is ranked exactly.
    fn float_tiles(
        &self,
        from: usize,
        queries: &[Row<'_>],
        rankers: &[Ranker<'_>],
        tops: &mut [TopK],
    ) {
        /// Beyond this squared length a product could overflow: the row, or every row for the query, is ranked exactly.
        const LONGEST: f64 = 1e37;
        let (dim, len) = (self.base.dim(), self.base.len());
        let shrink = 1.0 - gamma(dim + 2) - 5.0 * f64::from(f32::EPSILON);
        let underflow = dim as f64 * 8.0 * f64::from(f32::MIN_POSITIVE);

        let mut rows = vec![0.0; queries.len() * dim];
        let lengths: Vec<f64> = rows
            .chunks_exact_mut(dim)
            .zip(queries)
            .map(|(out, &query)| centred(query, &self.centre, out))
            .collect();
        let panels = Panels::pack(&rows, dim);
        let limit = |top: &TopK, length: f64| {
            if length <= LONGEST {
                super::round_up(top.threshold() + underflow - shrink * length)
            } else {
                f32::INFINITY
            }
        };
        let mut limits = vec![Line([f32::NEG_INFINITY; QUERIES]); panels.len()];
        for (query, (top, &length)) in tops.iter().zip(&lengths).enumerate() {
            limits[query / QUERIES].0[query % QUERIES] = limit(top, length);
        }

        let mut points = Tiles::zeros(BLOCK / POINTS, dim);
        let mut point = vec![0.0; dim];
        let mut sums = vec![Line::default(); BLOCK];
        for start in (from..len).step_by(BLOCK) {
            let count = BLOCK.min(len - start);
            let norms: Vec<f32> = (0..count)
                .map(|row| {
                    let length = centred(self.base.row(start + row), &self.centre, &mut point);
                    points.set(row, &point);
                    if length <= LONGEST {
                        round_down(shrink * length)
                    } else {
                        f32::NEG_INFINITY
                    }
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
                            if let Some(rank) =
                                rankers[query].reduced_within(id, tops[query].threshold())
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
}

/// Writes row − centre, and returns its squared length.
fn centred(row: Row<'_>, centre: &[f32], out: &mut [f32]) -> f64 {
    match row {
        Row::Bytes(row) => out
            .iter_mut()
            .zip(row)
            .zip(centre)
            .for_each(|((o, &v), c)| *o = f32::from(v) - c),
        Row::Floats(row) => out
            .iter_mut()
            .zip(row)
            .zip(centre)
            .for_each(|((o, v), c)| *o = v - c),
    }
    let mut sums = [0.0; 8];
    let (chunks, rest) = out.as_chunks::<8>();
    let mut add = |values: &[f32]| {
        sums.iter_mut()
            .zip(values)
            .for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
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

/// The greatest f32 that is not above `value`.
fn round_down(value: f64) -> f32 {
    -super::round_up(-value)
}
