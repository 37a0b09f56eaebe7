//! A vantage-point tree over sketches: where a walk begins.
//!
//! ```text
//!      +---------------+        A ball around one of the rows, v, parts them into the nearer
//!      | o   .---.   o |        half and the farther half. Each half is parted again by a ball
//!      |   /  @ @  \   |        of its own, until no part has more than 32 rows.
//!      | o|  @ v @  | o|
//!      |   \  @    /   |        A query that is d from v, with a ball of radius r, is at least
//!      |  o  '---'   o |        d - r from all rows inside, and r - d from all rows outside.
//!      +---------------+
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::index::parts::{PartError, expect, expect_starts, saved};
use crate::index::support::lower_bound::Sketched;
use crate::simd::lower_bound as kernels;

/// The most rows of a leaf. A walk begins with all rows of three leaves: fewer make a worse start,
/// more a longer one.
const LEAF_SIZE: usize = 32;

/// A *vantage-point tree* (Yianilos, *Data Structures and Algorithms for Nearest Neighbor Search in
/// General Metric Spaces*, 1993) over the sketches of the rows.
///
/// Nodes are in heap order: the children of node i are 2i + 1, inside of its ball, and 2i + 2,
/// outside.
#[derive(Debug)]
pub struct VpTree {
    /// The sketches of the vantage points, one for each node that is no leaf.
    vantages: Vec<f32>,
    /// Values of a sketch.
    width: usize,
    /// The radii of the balls.
    radii: Vec<f32>,
    /// Where the leaves' rows start, in their order; one more than there are leaves.
    starts: Vec<u32>,
}

saved!(VpTree {
    vantages,
    width,
    radii,
    starts
});

impl VpTree {
    /// Refuses what is not a tree over `rows` sketches of `width` coordinates.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, rows: usize, width: usize) -> Result<(), PartError> {
        let nodes = self.radii.len();
        let fits = self.width == width && self.vantages.len() == nodes * width;
        expect(fits, "vantages", "a sketch for each ball")?;
        // A complete tree has one leaf more than it has balls.
        expect(
            self.starts.len() == nodes + 2,
            "starts",
            "a leaf more than balls",
        )?;
        expect_starts(&self.starts, rows, "starts")
    }

    /// Builds the tree over all rows, O(n·log n). Also returns the rows in the order of the
    /// leaves.
    pub fn build(sketched: &Sketched, seed: u64) -> (Self, Vec<u32>) {
        let width = sketched.sketch.width();
        let mut ids: Vec<u32> = (0..(sketched.rows.len() / width) as u32).collect();
        let mut tree = Self {
            vantages: Vec::new(),
            width,
            radii: Vec::new(),
            starts: Vec::new(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut spans: Vec<Range<usize>> = std::iter::once(0..ids.len()).collect();
        // Level by level: all spans of a level hold as many rows, but for one, so all become leaves
        // on the same level.
        while spans.iter().any(|span| span.len() > LEAF_SIZE) {
            let mut halves = Vec::with_capacity(2 * spans.len());
            for span in spans {
                let inside = tree.part(&mut ids[span.clone()], &sketched.rows, &mut rng);
                let middle = span.start + inside;
                halves.extend([span.start..middle, middle..span.end]);
            }
            spans = halves;
        }
        let starts = spans.iter().map(|span| span.start);
        tree.starts = starts.chain([ids.len()]).map(|at| at as u32).collect();
        (tree, ids)
    }

    /// Adds a node that parts `ids`: those in its ball come first. Returns how many they are.
    fn part(&mut self, ids: &mut [u32], sketches: &[f32], rng: &mut ChaCha8Rng) -> usize {
        let sketch_of = |id: u32| &sketches[id as usize * self.width..][..self.width];
        // Spans are halved, the inner half the larger. All spans of a level then differ by one row
        // at most, and the tree is complete, as heap order needs it.
        let inside = ids.len().div_ceil(2);
        // Any row may be the centre of the ball. The radius is the distance of the farthest row
        // inside: no row outside is nearer to the centre.
        let vantage = sketch_of(ids[rng.random_range(0..ids.len())]);
        let mut by_distance: Vec<(f32, u32)> = ids
            .iter()
            .map(|&id| (distance(vantage, sketch_of(id)), id))
            .collect();
        by_distance
            .select_nth_unstable_by(inside - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.radii.push(by_distance[inside - 1].0);
        self.vantages.extend_from_slice(vantage);
        for (place, (_, id)) in ids.iter_mut().zip(by_distance) {
            *place = id;
        }
        inside
    }

    /// The leaves as spans of the rows in their order, by the least distance that a row in them can
    /// have from the sketch `query`.
    pub fn leaves<'a>(&'a self, query: &'a [f32]) -> impl Iterator<Item = Range<u32>> + 'a {
        // Nodes by their bounds. These are not negative, so their bits, read as whole numbers, have
        // the same order.
        let mut pending = BinaryHeap::from([Reverse((0f32.to_bits(), 0usize))]);
        std::iter::from_fn(move || {
            loop {
                let Reverse((bound, node)) = pending.pop()?;
                // Inner nodes are numbered before all leaves. A number with no radius is a leaf.
                let Some(&radius) = self.radii.get(node) else {
                    let leaf = node - self.radii.len();
                    return Some(self.starts[leaf]..self.starts[leaf + 1]);
                };
                let vantage = &self.vantages[node * self.width..][..self.width];
                // Positive if the query is outside of the ball: no row inside is nearer than that.
                // Negative if it is inside: then −beyond is the least distance of a row outside.
                let beyond = distance(query, vantage) - radius;
                // What holds for a node holds for its children.
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

/// The Euclidean distance of two sketches.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    kernels::squared_euclidean(a, b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Norm;
    use crate::index::support::lower_bound::Sketch;
    use crate::index::support::test_data::clustered;

    #[test]
    fn leaves_come_by_their_distance_and_hold_every_row_once() {
        let base = clustered(3_000, 6, 1);
        let sketched = Sketch::fit(&base, Norm::L2, 6).unwrap();
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
