//! One query: a scan row by row.

use std::ops::Range;

use rayon::prelude::*;

use super::rounding::{Rounded, Rounding};
use super::{BLOCK, BruteForce};
use crate::distance::{Metric, QueryForm, Ranker};
use crate::neighbor::TopK;
use crate::simd::half_bytes::{Block, Codes, Nibbles, ROWS};
use crate::simd::pairwise;
use crate::vectors::{Row, Storage, Vectors};

const _: () = assert!(BLOCK.is_multiple_of(ROWS));

/// Half a byte of each value of the base: memory delivers these twice as fast as bytes, eight times as fast as floats.
#[derive(Debug)]
pub(crate) struct Halves {
    rounding: Rounding,
    nibbles: Nibbles,
    /// [`Rounding::norm`] of each row.
    norms: Vec<i32>,
    /// The greatest rounding error of each block of rows.
    errors: Vec<f64>,
}

impl Halves {
    /// Rounds the rows, in O(n·d). `None` if integers have no room for them.
    pub(crate) fn new(base: &Vectors, range: (f32, f32)) -> Option<Self> {
        let rounding = Rounding::new(base, range, 15, 128)?;
        let mut nibbles = Nibbles::zeros(base.len(), base.dim());
        let mut norms = vec![0; base.len()];
        let fill =
            |codes: &mut Vec<u8>,
             ((block, mut nibbles), norms): ((usize, Block<'_>), &mut [i32])| {
                codes.resize(base.dim(), 0);
                norms
                    .iter_mut()
                    .enumerate()
                    .fold(0.0f64, |error, (row, norm)| {
                        let rounded = rounding.row(base.row(block * BLOCK + row), codes);
                        nibbles.set(row, codes);
                        *norm = rounding.norm(rounded);
                        error.max(rounded.error)
                    })
            };
        let blocks = nibbles
            .blocks(BLOCK)
            .enumerate()
            .zip(norms.par_chunks_mut(BLOCK));
        let errors = blocks.map_init(Vec::new, fill).collect();
        Some(Self {
            rounding,
            nibbles,
            norms,
            errors,
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.nibbles.memory_bytes() + size_of_val(&*self.norms) + size_of_val(&*self.errors)
    }
}

/// One query, prepared to be compared with rows of the base one by one.
pub(crate) struct Scan<'a> {
    base: &'a Vectors,
    metric: Metric,
    ranker: Ranker<'a>,
    rough: Rough<'a>,
}

/// What decides of most rows that they are out.
enum Rough<'a> {
    /// Products with the halves of bytes.
    Halves {
        halves: &'a Halves,
        codes: Codes,
        query: Rounded,
    },
    /// f32 arithmetic.
    Floats { rows: &'a [f32] },
    /// Nothing but the comparison itself.
    None,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        BruteForce {
            base,
            metric,
            halves,
            ..
        }: &'a BruteForce,
        query: Row<'a>,
    ) -> Self {
        let ranker = Ranker::new(base, *metric, query);
        let rough = match (halves, ranker.query(), base.storage()) {
            (Some(halves), query, _) => {
                let mut codes = vec![0; base.dim()];
                let query = halves.rounding.query(query.row(), &mut codes);
                Rough::Halves {
                    halves,
                    codes: Codes::new(&codes),
                    query,
                }
            }
            (None, QueryForm::Floats(_), Storage::Floats(rows)) => Rough::Floats { rows },
            _ => Rough::None,
        };
        Self {
            base,
            metric: *metric,
            ranker,
            rough,
        }
    }

    /// Collects the nearest of some rows, from a multiple of [`BLOCK`] on, and returns how many it had to compare exactly.
    pub(crate) fn rows(&self, ids: Range<usize>, top: &mut TopK) -> usize {
        let dim = self.base.dim();
        match &self.rough {
            Rough::Halves {
                halves:
                    Halves {
                        rounding,
                        nibbles,
                        norms,
                        errors,
                    },
                codes,
                query,
            } => self.blocks(ids, top, |ids, threshold, values| {
                nibbles.products(ids.clone(), codes, values);
                let limit = rounding.limit(threshold, *query, errors[ids.start / BLOCK]);
                values
                    .iter_mut()
                    .zip(&norms[ids])
                    .for_each(|(value, norm)| *value = norm - 2 * *value);
                limit
            }),
            Rough::Floats { rows } => {
                let QueryForm::Floats(query) = self.ranker.query() else {
                    unreachable!("a query has the form of its base")
                };
                // Twice the error of a sum. Infinite where f32 overflows, as the sum then is.
                let slack = 1.0 + 2.0 * pairwise::relative_error(dim);
                let distances = match self.metric {
                    Metric::Euclidean => pairwise::squared_euclidean_f32_rows,
                    Metric::Manhattan => pairwise::manhattan_f32_rows,
                };
                self.blocks(ids, top, |ids, threshold, values| {
                    distances(query, &rows[ids.start * dim..ids.end * dim], values);
                    super::round_up((threshold + dim as f64 * pairwise::UNDERFLOW) * slack)
                })
            }
            Rough::None => {
                ids.clone()
                    .for_each(|id| _ = top.push(id as u32, self.ranker.reduced(id)));
                ids.len()
            }
        }
    }

    /// Compares the rows of which a rough value is not above the limit. `rough` writes those of a block, and returns the limit that goes
    /// with the k-th best so far.
    #[inline(always)]
    fn blocks<V: Copy + Default + PartialOrd>(
        &self,
        ids: Range<usize>,
        top: &mut TopK,
        rough: impl Fn(Range<usize>, f64, &mut [V]) -> V,
    ) -> usize {
        let mut values = [V::default(); BLOCK];
        let mut near = [0; BLOCK];
        let mut compared = 0;
        for start in ids.clone().step_by(BLOCK) {
            let block = start..(start + BLOCK).min(ids.end);
            let values = &mut values[..block.len()];
            let limit = rough(block.clone(), top.threshold(), values);
            let mut count = 0;
            for (id, &value) in block.zip(&*values) {
                near[count] = id;
                // Without a branch, which would often be mispredicted.
                count += usize::from(value <= limit);
            }
            let near = &near[..count];
            near.iter().for_each(|&id| self.base.row(id).prefetch());
            for &id in near {
                if let Some(rank) = self.ranker.reduced_within(id, top.threshold()) {
                    top.push(id as u32, rank);
                }
            }
            compared += count;
        }
        compared
    }
}
