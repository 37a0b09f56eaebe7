//! [`InvertedLists`]: the coarse quantiser and the inverted lists that `IvfFlat`, `IvfPq` and
//! `Scann` stand on (J. Sivic and A. Zisserman, *Video Google*, ICCV 2003, took them from text
//! retrieval).
//!
//! The *coarse quantiser* is k-means: it names for each vector the nearest of `nlist` centroids. A
//! list holds the ids of the vectors of one centroid. All lists lie in one array, one after the
//! other:
//!
//! ```text
//! starts     0              5        8                    n
//! ids      [ 7 12 30 31 90 | 2 5 88 | ...                 ]    ascending within a list
//! position   0  1  2  3  4   5 6  7
//! ```

use crate::math::kmeans::{KMeans, KMeansParams, group};
use crate::simd::pairwise::squared_euclidean_f32_rows;
use crate::vectors::Vectors;

/// A k-means partition of the base into lists. A *position* is a place in the order of the lists,
/// an *id* a row of the base.
#[derive(Debug)]
pub(crate) struct InvertedLists {
    /// nlist × dim.
    centroids: Vec<f32>,
    dim: usize,
    /// Where each list starts among the positions, and the end: nlist + 1 numbers.
    starts: Vec<usize>,
    /// The id at each position.
    ids: Vec<u32>,
}

impl InvertedLists {
    /// Clusters the base, which is not empty, into `nlist` lists, or as many as there are rows.
    pub(crate) fn train(base: &Vectors, nlist: usize, seed: u64) -> Self {
        // k-means may learn from a sample. Then every row of the base is given to its nearest
        // centroid.
        let params = KMeansParams {
            k: nlist,
            seed,
            ..Default::default()
        };
        let clusters =
            KMeans::fit(base, &params).expect("the base is not empty and nlist is positive");
        // There may be fewer centroids than were asked for.
        let (starts, ids) = group(&clusters.assign(base), clusters.centroids().nrows());
        let centroids = clusters.centroids().iter().copied().collect();
        Self {
            centroids,
            dim: base.dim(),
            starts,
            ids,
        }
    }

    /// The number of lists.
    pub(crate) fn nlist(&self) -> usize {
        self.starts.len() - 1
    }

    /// All centroids, nlist × dim.
    pub(crate) fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// The centroid of a list.
    pub(crate) fn centroid(&self, list: usize) -> &[f32] {
        &self.centroids[list * self.dim..][..self.dim]
    }

    /// The positions of a list.
    pub(crate) fn list(&self, list: usize) -> std::ops::Range<usize> {
        self.starts[list]..self.starts[list + 1]
    }

    /// The number of the list that each position belongs to.
    pub(crate) fn list_of_positions(&self) -> Vec<usize> {
        let mut numbers = vec![0; self.ids.len()];
        for list in 0..self.nlist() {
            numbers[self.list(list)].fill(list);
        }
        numbers
    }

    /// The ids in the order of their positions.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The base's rows in the order of their positions.
    pub(crate) fn in_list_order(&self, base: &Vectors) -> Vectors {
        let rows: Vec<usize> = self.ids.iter().map(|&id| id as usize).collect();
        base.select(&rows).expect("ids are rows of the base")
    }

    /// The `nprobe` lists of nearest centroid with their squared distances, nearest first.
    pub(crate) fn nearest(&self, query: &[f32], nprobe: usize) -> Vec<(f32, u32)> {
        let mut distances = vec![0.0; self.centroids.len() / self.dim];
        squared_euclidean_f32_rows(query, &self.centroids, &mut distances);
        least(distances.into_iter(), nprobe)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.centroids) + size_of_val(&*self.starts) + size_of_val(&*self.ids)
    }
}

/// The `nprobe` lists of least distance with their distances, nearest first.
pub(crate) fn least(distances: impl Iterator<Item = f32>, nprobe: usize) -> Vec<(f32, u32)> {
    let mut order: Vec<(f32, u32)> = distances.zip(0..).collect();
    let key = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    // Selection first: only the lists that will be searched need be sorted. Ties go to the lower
    // list number.
    if nprobe < order.len() {
        order.select_nth_unstable_by(nprobe, key);
        order.truncate(nprobe);
    }
    order.sort_unstable_by(key);
    order
}
