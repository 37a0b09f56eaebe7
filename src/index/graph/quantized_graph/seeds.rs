//! The seeds: where a walk may begin.
//!
//! There are √n of them, which are a thousand of a million vectors. To compare a query with all of
//! them takes as long as a third of a short walk. So they are in groups of about √√n, each with a
//! head; a walk compares the heads, and then the seeds of the nearest groups alone.
//!
//! ```text
//! heads      | h₀            | h₁       | h₂                |
//! positions  | group 0       | group 1  | group 2           |   of the seeds in the graph
//! codes      | group 0       | group 1  | group 2           |   of the seeds
//! starts     0               8          13                  24
//! ```

use std::ops::Range;

use rayon::prelude::*;

use super::build::{Codes, copy_of};
use crate::index::parts::{PartError, expect, expect_starts, saved};
use crate::math::kmeans::group;
use crate::simd::graph_codes::{self, CodeLine, Query};

/// Fewer seeds are not grouped: comparing all of them costs about as little.
const FEW: usize = 128;

/// The seeds as a walk reads them.
#[derive(Debug, Clone, Copy)]
pub struct Seeds<'a, const LINES: usize> {
    /// In the graph.
    pub positions: &'a [u32],
    pub codes: &'a [[CodeLine; LINES]],
    /// None of [`FEW`] seeds, and of graphs that were saved before there were groups.
    pub groups: Option<&'a Groups>,
}

/// Which seeds lie together.
#[derive(Debug)]
pub struct Groups {
    /// The codes of the heads, each of as many lines as those of the seeds.
    heads: Vec<CodeLine>,
    /// Where each group starts among the seeds, and the end.
    starts: Vec<usize>,
}

saved!(Groups { heads, starts });

impl Groups {
    /// Groups the seeds around some of them. Returns the seeds, group after group, with the groups
    /// unless they are few.
    pub fn of<const LINES: usize>(
        codes: &Codes<'_, LINES>,
        seeds: Vec<u32>,
    ) -> (Vec<u32>, Option<Self>) {
        if seeds.len() < FEW {
            return (seeds, None);
        }
        // Every √m-th of m is a head. They come cluster after cluster of the data, so that no two
        // heads are of one cluster.
        let step = seeds.len().isqrt();
        let heads: Vec<u32> = seeds.iter().step_by(step).copied().collect();
        let heads = copy_of(codes.codes, &heads);
        let nearest_head = |&seed: &u32| {
            let mut distances = Vec::with_capacity(heads.len());
            graph_codes::scan(&codes.query(seed), &heads, &mut distances);
            let nearest = distances.into_iter().zip(0..).min();
            nearest.expect("there is a head").1
        };
        let labels: Vec<u32> = seeds.par_iter().map(nearest_head).collect();
        let (starts, members) = group(&labels, heads.len());
        let seeds = members.into_iter().map(|place| seeds[place as usize]);
        let groups = Self {
            heads: heads.into_flattened(),
            starts,
        };
        (seeds.collect(), Some(groups))
    }

    /// Refuses what are not groups of `seeds` with codes of `lines` cache lines.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, seeds: usize, lines: usize) -> Result<(), PartError> {
        expect_starts(&self.starts, seeds, "starts")?;
        let heads = (self.starts.len() - 1) * lines;
        expect(self.heads.len() == heads, "heads", "one for each group")
    }

    /// The distances of the heads, group after group, in place of what `distances` held.
    #[inline(always)]
    pub fn score_heads<const LINES: usize>(&self, query: &Query<LINES>, distances: &mut Vec<u32>) {
        distances.clear();
        graph_codes::scan(query, self.heads.as_chunks().0, distances);
    }

    /// The seeds of a group.
    #[inline(always)]
    pub fn members(&self, group: usize) -> Range<usize> {
        self.starts[group]..self.starts[group + 1]
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heads) + size_of_val(&*self.starts)
    }
}
