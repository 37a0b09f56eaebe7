//! [`KMeans`]: Lloyd's algorithm, on which the inverted-file indexes and the codebooks of product
//! quantization stand.
//!
//! The algorithm repeats two steps until nothing moves (S. P. Lloyd 1982, "Least squares
//! quantization in PCM"):
//!
//! ```text
//! 1. give each row to its nearest centroid         n·k distances of d values: most of the work
//! 2. move each centroid to the mean of its rows    n sums of d values
//! ```
//!
//! The naive form of step 1 is a loop over rows, centroids and values. `nearest` has a faster one,
//! with the same result.

mod nearest;

use std::borrow::Cow;

use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

use self::nearest::Centroids;
use super::add_row;
use crate::distance::Metric;
use crate::vectors::{Row, Rows, Vectors};

/// How [`KMeans::fit`] works. The names are those of FAISS's `Clustering` (*niter* for the
/// iterations); 10 iterations are what FAISS gives an inverted file.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansParams {
    /// Number of clusters. There are fewer if there are fewer vectors.
    pub k: usize,
    /// Rounds of the two steps. It stops earlier if nothing moves.
    pub iterations: usize,
    /// Training vectors for each centroid: if there are more than this times `k`, a sample of so
    /// many is used.
    pub max_points_per_centroid: usize,
    /// Seed of the sample and of the first centroids.
    pub seed: u64,
}

impl Default for KMeansParams {
    fn default() -> Self {
        Self {
            k: 256,
            iterations: 10,
            max_points_per_centroid: 256,
            seed: 0,
        }
    }
}

/// What is wrong with the input of [`KMeans::fit`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KMeansError {
    /// There are no vectors.
    #[error("k-means needs at least one vector")]
    Empty,
    /// `k` is zero.
    #[error("k-means was asked for 0 clusters; expected at least 1")]
    ZeroClusters,
}

/// Clusters that make the squared distances of the rows to their centroids small.
///
/// The result depends on the seed, not on the number of threads.
#[derive(Debug, Clone)]
pub struct KMeans {
    centroids: Centroids,
}

impl KMeans {
    /// Clusters the rows of `data` (n × d).
    ///
    /// The first centroids are distinct rows drawn at random. A cluster that loses all its rows is
    /// given the row that is farthest from its own centroid, as in scikit-learn.
    ///
    /// # Errors
    /// If there are no rows or no clusters are asked for.
    ///
    /// ```
    /// use fashion_knn::math::kmeans::{KMeans, KMeansParams};
    /// use fashion_knn::vectors::Vectors;
    ///
    /// let data = Vectors::from_floats(1, vec![0.0, 1.0, 10.0, 11.0])?;
    /// let clusters = KMeans::fit(&data, &KMeansParams { k: 2, ..Default::default() })?;
    /// let labels = clusters.assign(&data);
    /// assert!(labels[0] == labels[1] && labels[2] == labels[3] && labels[0] != labels[2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit(data: &Vectors, params: &KMeansParams) -> Result<Self, KMeansError> {
        Self::fit_by(data, params, Self::assign)
    }

    /// The same, where `assign` has another way to the answer of [`KMeans::assign`].
    pub(crate) fn fit_by(
        data: &impl Rows,
        params: &KMeansParams,
        assign: impl Fn(&Self, &Vectors) -> Vec<u32>,
    ) -> Result<Self, KMeansError> {
        if data.count() == 0 {
            return Err(KMeansError::Empty);
        }
        if params.k == 0 {
            return Err(KMeansError::ZeroClusters);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
        // The sample and the first centroids come from one generator, so the order of these two
        // draws is part of what a seed stands for.
        let data = &*training_rows(data, params, &mut rng);
        let k = params.k.min(data.len());
        let first = rand::seq::index::sample(&mut rng, data.len(), k).into_vec();
        let first = data.select(&first).expect("sampled rows exist");
        let mut clusters = Self::from_centroids(first.to_array());
        let mut labels: Vec<u32> = Vec::new();
        for _ in 0..params.iterations {
            // Step 1: each row to its nearest centroid. If none has changed, the means would be the
            // same again.
            let nearest = assign(&clusters, data);
            if nearest == labels {
                break;
            }
            labels = nearest;
            // Step 2: each centroid to the mean of its rows.
            clusters = Self::from_centroids(means(data, clusters.centroids(), &labels));
        }
        Ok(clusters)
    }

    /// The clusters that have these centroids, k × d.
    pub(crate) fn from_centroids(centroids: Array2<f32>) -> Self {
        let centroids = Centroids::new(centroids);
        Self { centroids }
    }

    /// The centroids, k × d.
    #[must_use]
    pub fn centroids(&self) -> ArrayView2<'_, f32> {
        self.centroids.points()
    }

    /// The number of the nearest centroid of each row of `data` (n × d), ties to the lower number.
    ///
    /// The nearest is that of squared distances by differences in f64, whatever the magnitudes:
    /// they are right to a relative error of (d + 4) · 2⁻⁵³. Any machine gives the same
    /// answer.
    ///
    /// # Panics
    /// If `data` has another dimension.
    #[must_use]
    pub fn assign(&self, data: &Vectors) -> Vec<u32> {
        self.centroids.nearest(data)
    }

    /// Whether products in f32 tell the nearest centroid of nearly all of these rows: of nine in
    /// ten. The others have to be compared with many centroids by differences.
    pub(crate) fn products_tell(&self, rows: &Vectors) -> bool {
        self.centroids.settled(rows) > 0.9
    }

    /// The `count` nearest centroids of each row, nearest first, ties to the lower number; by the
    /// same distances as [`KMeans::assign`].
    ///
    /// # Panics
    /// If `data` has another dimension.
    #[must_use]
    pub fn assign_many(&self, data: &Vectors, count: usize) -> Vec<Vec<u32>> {
        let lists = self.assign_flat(data, count);
        let count = lists.len() / data.len().max(1);
        lists.chunks(count.max(1)).map(<[u32]>::to_vec).collect()
    }

    /// The same, row after row in one list: `count` numbers each, or as many as there are clusters.
    pub(crate) fn assign_flat(&self, data: &Vectors, count: usize) -> Vec<u32> {
        self.centroids.nearest_many(data, count)
    }
}

/// The rows of `data`, or a sample of them where there are more than k-means is to learn from.
fn training_rows<'a>(
    data: &'a impl Rows,
    params: &KMeansParams,
    rng: &mut ChaCha8Rng,
) -> Cow<'a, Vectors> {
    let points = params.max_points_per_centroid.max(1);
    let most = params.k.saturating_mul(points);
    if data.count() <= most {
        return data.all();
    }
    let mut rows = rand::seq::index::sample(rng, data.count(), most).into_vec();
    // In the order of memory, for speed.
    rows.sort_unstable();
    Cow::Owned(data.rows(&rows))
}

/// The mean of each cluster's rows: k × d. `labels` says in which of the `centroids`' clusters
/// each row is.
///
/// The sums are in f64 and in the order of the rows, so that threads make no difference.
fn means(data: &Vectors, centroids: ArrayView2<'_, f32>, labels: &[u32]) -> Array2<f32> {
    let k = centroids.nrows();
    // Grouped by cluster first: each mean is then the work of one thread, in the order of the rows.
    let (starts, members) = group(labels, k);
    let means: Vec<Vec<f32>> = (0..k)
        .into_par_iter()
        .map(|cluster| mean_of(data, &members[starts[cluster]..starts[cluster + 1]]))
        .collect();
    let shape = (k, data.dim());
    let mut means = Array2::from_shape_vec(shape, means.concat()).expect("k centroids");
    // An empty cluster has zeros for now. A centroid that nobody is near would stay without rows.
    let is_empty = |&cluster: &usize| starts[cluster] == starts[cluster + 1];
    let empty: Vec<usize> = (0..k).filter(is_empty).collect();
    // The first empty cluster gets the farthest row, the next one the next.
    let far = farthest_rows(data, centroids, labels, empty.len());
    for (cluster, row) in empty.into_iter().zip(far) {
        let values = data.row_to_floats(row);
        means
            .row_mut(cluster)
            .assign(&ArrayView1::from(&values[..]));
    }
    means
}

/// The mean of the given rows, or zeros if there are none.
pub(crate) fn mean_of(data: &Vectors, rows: &[u32]) -> Vec<f32> {
    // In f64, as `add_row` wants it: bytes add up exactly, and floats nearly so.
    let mut sum = vec![0.0; data.dim()];
    for &row in rows {
        add_row(&mut sum, data.row(row as usize));
    }
    let count = rows.len().max(1) as f64;
    sum.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// The `count` rows that are farthest from the centroids of their clusters, farthest first.
fn farthest_rows(
    data: &Vectors,
    centroids: ArrayView2<'_, f32>,
    labels: &[u32],
    count: usize,
) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    // This is rare, so that computing and sorting all distances does not matter.
    let distance = |row: usize| {
        let centroid = centroids.row(labels[row] as usize);
        let centroid = centroid.to_slice().expect("made in row order");
        match data.row(row) {
            Row::Bytes(row) => Metric::Euclidean.reduced_mixed(centroid, row),
            Row::Floats(row) => Metric::Euclidean.reduced(centroid, row),
        }
    };
    let distances: Vec<f64> = (0..data.len()).into_par_iter().map(distance).collect();
    // Ties go to the lower row, for the same result each time.
    let mut rows: Vec<usize> = (0..data.len()).collect();
    rows.sort_unstable_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
    rows.truncate(count);
    rows
}

/// The rows of each label: the positions where the `k` groups start (k + 1 numbers, the last one
/// being the end), and the row numbers, group after group, ascending within a group.
#[must_use]
pub(crate) fn group(labels: &[u32], k: usize) -> (Vec<usize>, Vec<u32>) {
    // A counting sort: count each label, sum up to the starts, then fill.
    let mut starts = vec![0; k + 1];
    for &label in labels {
        // One place further on, so that the sums below become starts and not ends.
        starts[label as usize + 1] += 1;
    }
    for cluster in 0..k {
        starts[cluster + 1] += starts[cluster];
    }
    // The next free place of each group. Rows are taken in order, so each group ascends.
    let mut next = starts.clone();
    let mut members = vec![0; labels.len()];
    for (row, &label) in labels.iter().enumerate() {
        members[next[label as usize]] = row as u32;
        next[label as usize] += 1;
    }
    (starts, members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// `count` points around each of a grid of `k` far corners.
    fn blobs(k: usize, count: usize) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values = (0..k * count).flat_map(|i| {
            let corner = (i % k) as f32 * 100.0;
            [
                corner + rng.random::<f32>(),
                -corner + rng.random::<f32>(),
                rng.random::<f32>(),
            ]
        });
        Vectors::from_floats(3, values.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn each_row_has_its_nearest_centroid_and_each_centroid_the_mean_of_its_rows() {
        let data = blobs(5, 40);
        let clusters = KMeans::fit(
            &data,
            &KMeansParams {
                k: 7,
                iterations: 100,
                ..Default::default()
            },
        )
        .unwrap();
        let labels = clusters.assign(&data);
        let centroids = clusters.centroids();
        for (row, &label) in labels.iter().enumerate() {
            let values = data.row_to_floats(row);
            let to = |c: usize| Metric::Euclidean.reduced(&centroids.row(c).to_vec(), &values);
            let least = (0..7).map(to).fold(f64::INFINITY, f64::min);
            assert_eq!(to(label as usize), least, "row {row}");
        }
        for (cluster, centroid) in centroids.rows().into_iter().enumerate() {
            let rows: Vec<usize> = (0..data.len())
                .filter(|&row| labels[row] as usize == cluster)
                .collect();
            assert!(!rows.is_empty());
            let members = data.select(&rows).unwrap().to_array();
            let mean = members.mean_axis(ndarray::Axis(0)).unwrap();
            assert!(mean.iter().zip(centroid).all(|(a, b)| (a - b).abs() < 1e-3));
        }
    }

    #[test]
    fn far_from_the_origin_the_nearest_centroid_is_still_found() {
        let data = Vectors::from_floats(
            2,
            (0..200).map(|i| 1e5 + (i % 10) as f32).collect::<Vec<_>>(),
        )
        .unwrap();
        let clusters = KMeans::fit(
            &data,
            &KMeansParams {
                k: 5,
                iterations: 50,
                ..Default::default()
            },
        )
        .unwrap();
        let labels = clusters.assign(&data);
        for row in 0..100 {
            assert_eq!(labels[row], labels[row % 5], "equal rows");
        }
        assert!(
            (0..5).all(|cluster| labels[..5].contains(&cluster)),
            "five different rows, five clusters"
        );
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let data = blobs(20, 30);
        let fit = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let params = KMeansParams {
                k: 33,
                iterations: 5,
                seed,
                max_points_per_centroid: 10,
            };
            pool.install(|| KMeans::fit(&data, &params).unwrap().centroids().to_owned())
        };
        assert_eq!(fit(1, 7), fit(3, 7));
        assert_ne!(fit(1, 7), fit(1, 8));
    }

    #[test]
    fn duplicates_and_more_clusters_than_rows_are_no_trouble() {
        let same = Vectors::from_bytes(2, vec![9; 40]).unwrap();
        let clusters = KMeans::fit(
            &same,
            &KMeansParams {
                k: 50,
                ..Default::default()
            },
        )
        .unwrap();
        assert_eq!(clusters.centroids().dim(), (20, 2));
        assert!(clusters.centroids().iter().all(|&value| value == 9.0));
        assert!(clusters.assign(&same).iter().all(|&label| label == 0));
    }

    #[test]
    fn many_nearest_centroids_come_in_order() {
        let data = Vectors::from_floats(1, vec![0.0, 1.0, 5.0, 9.0]).unwrap();
        let clusters = KMeans::from_centroids(ndarray::array![[0.0], [4.0], [9.0]]);
        assert_eq!(
            clusters.assign_many(&data, 2),
            [[0, 1], [0, 1], [1, 2], [2, 1]]
        );
    }

    #[test]
    fn refuses_nothing_and_zero() {
        let none = Vectors::from_bytes(3, vec![]).unwrap();
        assert_eq!(
            KMeans::fit(&none, &KMeansParams::default()).unwrap_err(),
            KMeansError::Empty
        );
        let one = Vectors::from_bytes(3, vec![1, 2, 3]).unwrap();
        let zero = KMeansParams {
            k: 0,
            ..Default::default()
        };
        assert_eq!(
            KMeans::fit(&one, &zero).unwrap_err(),
            KMeansError::ZeroClusters
        );
    }
}
