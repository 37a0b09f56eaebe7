//! A vantage-point tree over sketches: where a walk begins.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::index::support::lower_bound::Sketched;
use crate::simd::lower_bound as kernels;

/// The most rows of a leaf.
const LEAF_SIZE: usize = 32;

/// A *vantage-point tree* (Yianilos 1993): each ball around one of its rows parts the rows into the nearer half and the farther half.
///
/// Heap order: the children of node i are 2i + 1, inside of its ball, and 2i + 2, outside.
#[derive(Debug)]
pub struct VpTree {
    /// The sketches of the vantage points, one a node that is no leaf.
    vantages: Vec<f32>,
    width: usize,
    /// The distance of sketches at which the halves part.
    radii: Vec<f32>,
    /// Where the leaves' rows start, in their order; one more than there are leaves.
    starts: Vec<u32>,
}

impl VpTree {
    /// Builds the tree over all rows, O(n·log n); also returns the rows in the order of the leaves.
    pub fn build(sketched: &Sketched, seed: u64) -> (Self, Vec<u32>) {
        let width = sketched.sketch.width();
        let at = |id: u32| &sketched.rows[id as usize * width..][..width];
        let mut ids: Vec<u32> = (0..(sketched.rows.len() / width) as u32).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut vantages, mut radii) = (Vec::new(), Vec::new());
        let mut spans: Vec<Range<usize>> = std::iter::once(0..ids.len()).collect();
        // Level by level: all spans of a level hold as many rows, but for one.
        while spans.iter().any(|span| span.len() > LEAF_SIZE) {
            let halves = spans.into_iter().flat_map(|span| {
                let rows = &mut ids[span.clone()];
                let middle = rows.len().div_ceil(2);
                let vantage = at(rows[rng.random_range(0..rows.len())]);
                let mut far: Vec<(f32, u32)> = rows
                    .iter()
                    .map(|&id| (distance(vantage, at(id)), id))
                    .collect();
                far.select_nth_unstable_by(middle - 1, |a, b| {
                    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
                });
                radii.push(far[middle - 1].0);
                vantages.extend_from_slice(vantage);
                rows.iter_mut()
                    .zip(far)
                    .for_each(|(row, (_, id))| *row = id);
                [
                    span.start..span.start + middle,
                    span.start + middle..span.end,
                ]
            });
            spans = halves.collect();
        }
        let starts = spans
            .iter()
            .map(|span| span.start as u32)
            .chain([ids.len() as u32])
            .collect();
        (
            Self {
                vantages,
                width,
                radii,
                starts,
            },
            ids,
        )
    }

    /// The leaves as spans of the rows in their order, by the least distance that a row in them can have from the sketch `query`.
    pub fn leaves<'a>(&'a self, query: &'a [f32]) -> impl Iterator<Item = Range<u32>> + 'a {
        // Bounds are not negative: their bits order as they do.
        let mut pending = BinaryHeap::from([Reverse((0f32.to_bits(), 0usize))]);
        std::iter::from_fn(move || {
            loop {
                let Reverse((bound, node)) = pending.pop()?;
                let Some(&radius) = self.radii.get(node) else {
                    let leaf = node - self.radii.len();
                    return Some(self.starts[leaf]..self.starts[leaf + 1]);
                };
                let beyond =
                    distance(query, &self.vantages[node * self.width..][..self.width]) - radius;
                let bound = f32::from_bits(bound);
                pending.push(Reverse((bound.max(beyond).to_bits(), 2 * node + 1)));
                pending.push(Reverse((bound.max(-beyond).to_bits(), 2 * node + 2)));
            }
        })
    }

    /// Bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.vantages) + size_of_val(&*self.radii) + size_of_val(&*self.starts)
    }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    kernels::squared_euclidean(a, b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Metric;
    use crate::index::support::lower_bound::Sketch;
    use crate::index::support::test_data::clustered;

    #[test]
    fn leaves_come_by_their_distance_and_hold_every_row_once() {
        let base = clustered(3_000, 6, 1);
        let sketched = Sketch::fit(&base, Metric::Euclidean, 6).unwrap();
        let at = |id: u32| &sketched.rows[id as usize * 6..][..6];
        let (tree, ids) = VpTree::build(&sketched, 5);
        let query = at(17);
        let leaves: Vec<Vec<u32>> = tree
            .leaves(query)
            .map(|leaf| ids[leaf.start as usize..leaf.end as usize].to_vec())
            .collect();
        assert!(
            leaves
                .iter()
                .all(|leaf| (LEAF_SIZE / 2..=LEAF_SIZE).contains(&leaf.len()))
        );
        assert!(leaves[0].contains(&17), "{:?}", leaves[0]);
        let mut all = leaves.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..3_000));
        // The half of the leaves that come first hold nearly all of the nearest rows.
        let mut nearest: Vec<u32> = (0..3_000).collect();
        nearest.sort_by(|&a, &b| distance(query, at(a)).total_cmp(&distance(query, at(b))));
        let first = leaves[..leaves.len() / 2].concat();
        let found = nearest[..50].iter().filter(|id| first.contains(id)).count();
        assert!(found >= 48, "{found} of the 50 nearest");
    }
}
