//! The seeds: where a walk may begin.
//!
//! There are √n of them, which are a thousand of a million vectors. To compare a query with all
//! takes a third of a short walk. So they are in groups of about n^¼, each with a head; a walk
//! compares the heads, and then the seeds of the nearest groups alone.
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
    /// None where seeds are fewer than [`FEW`], and in graphs saved before there were groups.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::graph::code_plan::Plan;
    use crate::index::graph::near_rows::Neighborhoods;
    use crate::index::support::test_data::clustered;

    fn neighborhoods() -> Neighborhoods {
        let base = Arc::new(clustered(3_000, 20, 1));
        let plan = Plan::choose(&base, Some(1), 0);
        Neighborhoods::find::<1>(&base, &plan, 0)
    }

    #[test]
    fn every_seed_is_in_the_group_of_its_nearest_head() {
        let neighborhoods = neighborhoods();
        let codes = Codes::<1>::of(&neighborhoods);
        let asked: Vec<u32> = (0..3_000).step_by(7).collect();
        let (seeds, groups) = Groups::of(&codes, asked.clone());
        let groups = groups.unwrap();
        groups.check(seeds.len(), 1).unwrap();
        let mut distances = Vec::new();
        for group in 0..groups.starts.len() - 1 {
            for &seed in &seeds[groups.members(group)] {
                groups.score_heads(&codes.query(seed), &mut distances);
                assert_eq!(distances[group], *distances.iter().min().unwrap());
            }
        }
        let mut sorted = seeds;
        sorted.sort_unstable();
        assert_eq!(sorted, asked);
    }

    #[test]
    fn few_seeds_are_not_grouped() {
        let neighborhoods = neighborhoods();
        let asked: Vec<u32> = (0..FEW as u32 - 1).rev().collect();
        let (seeds, groups) = Groups::of(&Codes::<1>::of(&neighborhoods), asked.clone());
        assert!(groups.is_none());
        assert_eq!(seeds, asked);
    }

    #[test]
    fn groups_of_other_seeds_are_refused() {
        let groups = Groups {
            heads: vec![CodeLine::default(); 2],
            starts: vec![0, 3, 5],
        };
        assert!(groups.check(5, 1).is_ok());
        assert!(groups.check(6, 1).is_err(), "a seed in no group");
        assert!(groups.check(5, 2).is_err(), "half a head");
    }
}
