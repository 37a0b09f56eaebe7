//! [`PrunedRows`]: rows that a query is compared with by a bound first, and by their true distance
//! only if that leaves it open. What forests and graphs of near neighbours search in.
//!
//! The naive form reads all of a row for each position that the search comes by:
//!
//! ```text
//! for position in positions { offer(position, ‖q − row‖²) }             784 bytes a row
//! ```
//!
//! Here it is four passes over a batch of positions, each over what the one before has left:
//!
//! ```text
//! positions -- met before? --> fresh -- sketch too far? --> kept -- distance --> offer
//!              a bit each              128 bytes each              784 bytes each
//! ```
//!
//! The passes are separate so that memory can be asked for ahead of time: all sketches of a batch
//! before the first is read, and the values of a row while the rows before it are compared.
//!
//! The bound is [`Sketch`]'s, which never exceeds the distance: no row that is near enough is lost.
//! Where all distances are nearly equal it rejects little, and a sketch is read for nothing.

use crate::distance::{Metric, Ranker};
use crate::index::Visits;
use crate::index::parts::{PartError, expect, expect_each_once, saved};
use crate::index::support::lower_bound::{Radius, Sketch, Sketched, SketchedQuery};
use crate::simd;
use crate::simd::lower_bound as kernels;
use crate::simd::tiles::Line;
use crate::vectors::{Row, Vectors};

/// Principal components of a sketch, where no more are needed: with the norm of the rest, two cache
/// lines of `f32`.
pub const COMPONENTS: usize = 31;

/// Rows whose values are asked for from memory while one is compared: a trade of waiting for
/// memory against pushing out of the cache what is not read yet.
const AHEAD: usize = 4;

/// Rows and their sketches in an order of the index's own, their *positions*; near ones should be
/// near in it.
#[derive(Debug)]
pub struct PrunedRows {
    sketch: Sketch,
    /// A whole number of cache lines a row, filled up with zeros.
    sketches: Vec<Line<f32>>,
    rows: Vectors,
    ids: Vec<u32>,
}

saved!(PrunedRows {
    sketch,
    sketches,
    rows,
    ids
});

impl PrunedRows {
    /// Copies the rows `ids` of the base, and their sketches, in that order.
    pub fn new(base: &Vectors, sketched: Sketched, ids: Vec<u32>) -> Self {
        let width = sketched.sketch.width();
        // A sketch begins at a cache line, so that reading it touches no line more than it fills.
        let sketches: Vec<_> = ids
            .iter()
            .flat_map(|&id| lines(&sketched.rows[id as usize * width..][..width]))
            .collect();
        let numbers: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&numbers).expect("rows of the base");
        simd::in_huge_pages(&sketches);
        rows.in_huge_pages();
        Self {
            sketch: sketched.sketch,
            sketches,
            rows,
            ids,
        }
    }

    /// Refuses parts that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<(), PartError> {
        self.sketch.check(self.rows.dim())?;
        let rows = self.rows.len();
        let lines = rows * self.sketch.width().div_ceil(simd::LINE_WORDS);
        expect(self.sketches.len() == lines, "sketches", "one for each row")?;
        expect(self.ids.len() == rows, "ids", "one for each row")?;
        expect_each_once(&self.ids, "ids")
    }

    /// The map to sketches.
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// The rows by position.
    pub fn rows(&self) -> &Vectors {
        &self.rows
    }

    /// The base's row numbers by position.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.sketch.memory_bytes()
            + size_of_val(&*self.sketches)
            + size_of_val(&*self.ids)
    }

    /// Begins to compare a query of dimension d with the rows.
    pub fn comparison<'a>(&'a self, query: Row<'a>) -> Comparison<'a> {
        let sketched = self.sketch.query(query);
        Comparison {
            rows: self,
            ranker: Ranker::new(&self.rows, Metric::Euclidean, query),
            lines: lines(&sketched.values).collect(),
            query: sketched,
            // One bit a position: for 60,000 rows 7.5 kB, which stay in the first-level cache.
            met: vec![0; self.ids.len().div_ceil(64)],
            fresh: Vec::new(),
            bounds: Vec::new(),
            limit: f64::INFINITY,
            radius: Radius::INFINITE,
            visits: Visits::default(),
        }
    }
}

/// The values in cache lines, the last one filled up with zeros.
pub fn lines(values: &[f32]) -> impl Iterator<Item = Line<f32>> {
    values.chunks(16).map(|values| {
        let mut line = Line::default();
        line.0[..values.len()].copy_from_slice(values);
        line
    })
}

/// One query on its way through the rows.
#[derive(Debug)]
pub struct Comparison<'a> {
    rows: &'a PrunedRows,
    ranker: Ranker<'a>,
    query: SketchedQuery,
    /// The query's sketch.
    lines: Vec<Line<f32>>,
    /// A bit a position.
    met: Vec<u64>,
    fresh: Vec<u32>,
    bounds: Vec<f32>,
    /// Rows of a larger reduced distance need not be offered.
    limit: f64,
    /// The same limit for the distances of sketches.
    radius: Radius,
    /// What has been looked at.
    pub visits: Visits,
}

impl Comparison<'_> {
    /// The query's sketch.
    pub fn sketch(&self) -> &[f32] {
        &self.query.values
    }

    /// Marks a position as met: it will not be offered.
    pub fn leave_out(&mut self, position: u32) {
        self.met[position as usize / 64] |= 1 << (position % 64);
    }

    /// Offers each of `positions` that was not met before, with its reduced distance, unless that
    /// is sure to be above the limit. `offer` returns the limit from there on.
    pub fn compare(&mut self, positions: &[u32], mut offer: impl FnMut(u32, f64) -> f64) {
        let rows = &self.rows.rows;
        // After the first two passes the front of `fresh` holds what the bound has left, and
        // `bounds` its bounds.
        self.keep_fresh(positions);
        let kept = self.keep_within_bound();
        let fetch = |&position: &u32| rows.row(position as usize).prefetch();
        self.fresh[..kept].iter().take(AHEAD).for_each(fetch);
        for i in 0..kept {
            if let Some(later) = self.fresh[..kept].get(i + AHEAD) {
                fetch(later);
            }
            // The limit may have fallen since.
            if self.bounds[i] > self.radius.reduced {
                continue;
            }
            // The distance itself. Between floats it is left out where f32 arithmetic shows that it
            // is above the limit.
            self.visits.distances += 1;
            let position = self.fresh[i];
            if let Some(reduced) = self.ranker.reduced_within(position as usize, self.limit) {
                let limit = offer(position, reduced);
                // The radius takes a root and rounds up, so it is computed only when the limit has
                // changed.
                if limit < self.limit {
                    self.limit = limit;
                    self.radius = self.query.radius(limit);
                }
            }
        }
    }

    /// Leaves in `fresh` the positions that were not met before, and marks them as met.
    #[inline]
    fn keep_fresh(&mut self, positions: &[u32]) {
        self.fresh.resize(positions.len(), 0);
        let mut count = 0;
        for &position in positions {
            // No branch on what was met before, which would be guessed wrong as often as not.
            let (word, bit) = (&mut self.met[position as usize / 64], 1 << (position % 64));
            self.fresh[count] = position;
            count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.fresh.truncate(count);
    }

    /// Moves to the front of `fresh` the positions whose bounds are within the radius, with their
    /// bounds; returns how many.
    #[inline]
    fn keep_within_bound(&mut self) -> usize {
        let sketches = &self.rows.sketches;
        let width = self.lines.len();
        // All sketches are asked for before the first is read. The memory brings many at once.
        for &position in &self.fresh {
            simd::prefetch(&sketches[position as usize * width..][..width]);
        }
        kernels::bounds(&self.lines, sketches, &self.fresh, &mut self.bounds);
        let count = self.fresh.len();
        self.visits.bounds += count;
        // In place and without a branch: the entry is written in any case and kept if `kept` goes
        // on. `kept` is never more than i, so nothing is overwritten that is still to be read.
        let mut kept = 0;
        for i in 0..count {
            (self.fresh[kept], self.bounds[kept]) = (self.fresh[i], self.bounds[i]);
            kept += usize::from(self.bounds[i] <= self.radius.reduced);
        }
        kept
    }
}
