//! One query: a scan of all rows, block by block.
//!
//! A scan is as fast as memory delivers what it reads. So it reads something short first: half a
//! byte of each value, or f32 arithmetic in place of f64. That decides of most rows that they are
//! too far, and the others are compared exactly.

use std::ops::Range;

use rayon::prelude::*;

use super::rounding::{Rounded, Rounding};
use super::{BLOCK, BruteForce};
use crate::distance::{Norm, QueryForm, Ranker};
use crate::index::parts::{PartError, Parts, Saved, expect};
use crate::neighbor::TopK;
use crate::simd::half_bytes::{Block, Codes, Nibbles, ROWS};
use crate::simd::pairwise;
use crate::vectors::{Row, Storage, Vectors};

// Half bytes lie in groups of ROWS rows. A block has to begin with a group.
const _: () = assert!(BLOCK.is_multiple_of(ROWS));

/// Half a byte of each value of the base. Memory delivers these twice as fast as bytes, eight times
/// as fast as floats.
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
    /// What they consist of.
    pub(crate) fn add_parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.add("halves.rounding", &self.rounding);
        parts.add("halves.nibbles", self.nibbles.lines());
        parts.add("halves.norms", &self.norms);
        parts.add("halves.errors", &self.errors);
    }

    /// What [`Self::add_parts`] has listed, if it was.
    ///
    /// # Errors
    /// If they are not the half bytes of this base.
    pub(crate) fn of_parts(
        base: &Vectors,
        saved: &mut Saved<'_>,
    ) -> Result<Option<Self>, PartError> {
        let Some(rounding) = saved.take("halves.rounding")? else {
            return Ok(None);
        };
        let lines = saved.take("halves.nibbles")?;
        let nibbles = Nibbles::of_lines(base.len(), base.dim(), lines);
        let nibbles = nibbles.ok_or_else(|| PartError::invalid("halves.nibbles", "too few"))?;
        let norms: Vec<i32> = saved.take("halves.norms")?;
        expect(
            norms.len() == base.len(),
            "halves.norms",
            "one for each row",
        )?;
        let errors: Vec<f64> = saved.take("halves.errors")?;
        let blocks = base.len().div_ceil(BLOCK);
        expect(
            errors.len() == blocks,
            "halves.errors",
            "one for each block",
        )?;
        Ok(Some(Self {
            rounding,
            nibbles,
            norms,
            errors,
        }))
    }

    /// Rounds the rows, in O(n·d). `None` if integers have no room for them.
    pub(crate) fn new(base: &Vectors, range: (f32, f32)) -> Option<Self> {
        // Rows have codes 0..=15, as half a byte holds. A query is rounded once and keeps 8 bits,
        // −128..=127.
        let rounding = Rounding::new(base, range, 15, 128)?;
        let mut nibbles = Nibbles::zeros(base.len(), base.dim());
        let mut norms = vec![0; base.len()];
        // Writes the codes and norms of a block, and returns its greatest error.
        let fill = |codes: &mut Vec<u8>,
                    (block, (mut nibbles, norms)): (usize, HalvesBlock<'_>)| {
            codes.resize(base.dim(), 0);
            let mut error = 0.0f64;
            for (row, norm) in norms.iter_mut().enumerate() {
                let rounded = rounding.row(base.row(block * BLOCK + row), codes);
                nibbles.set(row, codes);
                *norm = rounding.norm(rounded);
                error = error.max(rounded.error);
            }
            error
        };
        // A task a block. `codes` is a buffer for one row, which each task fills anew.
        let blocks = nibbles.blocks(BLOCK).zip(norms.par_chunks_mut(BLOCK));
        let errors = blocks.enumerate().map_init(Vec::new, fill).collect();
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

/// Where the codes and the norms of a block of rows go.
type HalvesBlock<'a> = (Block<'a>, &'a mut [i32]);

/// One query, prepared to be compared with rows of the base one by one.
pub(crate) struct Scan<'a> {
    base: &'a Vectors,
    norm: Norm,
    ranker: Ranker<'a>,
    rough: Rough<'a>,
}

/// What excludes most rows without an exact comparison.
enum Rough<'a> {
    /// Products with half a byte of each value.
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
    pub(crate) fn new(index: &'a BruteForce, query: Row<'a>) -> Self {
        let base = &index.base;
        let ranker = Ranker::new(base, index.norm.metric(), query);
        // Over bytes without half bytes there is nothing cheaper than the exact comparison itself,
        // which is in integers. With a query of floats over bytes the exact one is used too.
        let rough = match (&index.halves, ranker.query(), base.storage()) {
            (Some(halves), query, _) => {
                let mut codes = vec![0; base.dim()];
                let query = halves.rounding.query(query.row(), &mut codes);
                let codes = Codes::new(&codes);
                Rough::Halves {
                    halves,
                    codes,
                    query,
                }
            }
            (None, QueryForm::Floats(_), Storage::Floats(rows)) => Rough::Floats { rows },
            _ => Rough::None,
        };
        Self {
            base,
            norm: index.norm,
            ranker,
            rough,
        }
    }

    /// Collects the nearest of some rows, from a multiple of [`BLOCK`] on, and returns how many it
    /// had to compare exactly.
    pub(crate) fn rows(&self, ids: Range<usize>, top: &mut TopK) -> usize {
        match &self.rough {
            Rough::Halves {
                halves,
                codes,
                query,
            } => self.rows_by_halves(halves, codes, *query, ids, top),
            Rough::Floats { rows } => self.rows_by_floats(rows, ids, top),
            Rough::None => {
                for id in ids.clone() {
                    top.push(id as u32, self.ranker.reduced(id));
                }
                ids.len()
            }
        }
    }

    fn rows_by_halves(
        &self,
        halves: &Halves,
        codes: &Codes,
        query: Rounded,
        ids: Range<usize>,
        top: &mut TopK,
    ) -> usize {
        // The bound of a row is norm − 2·q′·x′, in integers: see [`Rounding`]. The greatest
        // error of a block serves for all of its rows, so that they have one limit.
        self.blocks(ids, top, |block, threshold, values| {
            halves.nibbles.products(block.clone(), codes, values);
            let error = halves.errors[block.start / BLOCK];
            for (value, norm) in values.iter_mut().zip(&halves.norms[block]) {
                *value = norm - 2 * *value;
            }
            halves.rounding.limit(threshold, query, error)
        })
    }

    fn rows_by_floats(&self, rows: &[f32], ids: Range<usize>, top: &mut TopK) -> usize {
        let dim = self.base.dim();
        let QueryForm::Floats(query) = self.ranker.query() else {
            unreachable!("a query has the form of its base")
        };
        let distances = match self.norm {
            Norm::L2 => pairwise::squared_euclidean_f32_rows,
            Norm::L1 => pairwise::manhattan_f32_rows,
        };
        // Let t be the reduced distance of the k-th best. The f32 sum of a row that is as near as t
        // is at most (1 + error)·t, and a little more for underflow. Twice the error leaves room
        // for the rounding of the limit itself. In rows so long that the error has no bound the
        // slack is infinite, and no row is out. Where the f32 sum of a row within t overflows to
        // infinity, so does the limit when it is rounded up, and the row is kept.
        let slack = 1.0 + 2.0 * pairwise::relative_error(dim);
        let underflow = dim as f64 * pairwise::UNDERFLOW;
        self.blocks(ids, top, |block, threshold, values| {
            distances(query, &rows[block.start * dim..block.end * dim], values);
            super::round_up((threshold + underflow) * slack)
        })
    }

    /// Compares the rows of which a rough value is not above the limit. `rough` writes the values
    /// of a block, and returns the limit that goes with the reduced distance of the k-th best so
    /// far.
    #[inline(always)]
    fn blocks<V: Copy + Default + PartialOrd>(
        &self,
        ids: Range<usize>,
        top: &mut TopK,
        rough: impl Fn(Range<usize>, f64, &mut [V]) -> V,
    ) -> usize {
        // Two passes over each block. The first bounds all rows with the threshold of the block's
        // start, and writes down the few that are near. The second compares these, with the
        // threshold as it falls.
        let mut values = [V::default(); BLOCK];
        let mut near = [0; BLOCK];
        let mut compared = 0;
        for start in ids.clone().step_by(BLOCK) {
            let block = start..(start + BLOCK).min(ids.end);
            let values = &mut values[..block.len()];
            let limit = rough(block.clone(), top.threshold(), values);
            let mut count = 0;
            for (id, &value) in block.zip(&*values) {
                // Written always and counted if near: a branch would often be mispredicted.
                near[count] = id;
                count += usize::from(value <= limit);
            }
            let near = &near[..count];
            // All rows are asked for before the first is compared, so that memory delivers several
            // at once.
            for &id in near {
                self.base.row(id).prefetch();
            }
            for &id in near {
                if let Some(reduced) = self.ranker.reduced_within(id, top.threshold()) {
                    top.push(id as u32, reduced);
                }
            }
            compared += count;
        }
        compared
    }
}
