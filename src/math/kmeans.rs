//! [`KMeans`]: Lloyd's algorithm, the partition under the inverted-file indexes and the codebooks of product quantisation.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

use crate::vectors::{Row, Vectors};

/// How [`KMeans::fit`] works. The names and defaults are those of FAISS's `Clustering`.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansParams {
    /// The number of clusters; fewer are made if there are fewer vectors.
    pub k: usize,
    /// Rounds of assignment and update (*niter*). It stops earlier where nothing moves.
    pub iterations: usize,
    /// A larger training set than this times `k` is sampled down to it.
    pub max_points_per_centroid: usize,
    /// Decides the sample and the first centroids.
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

/// Clusters of least squared distance to their means (Lloyd 1982), the same for a seed on any number of threads.
///
/// ```
/// use fashion_knn::{dataset::Vectors, kmeans::{KMeans, KMeansParams}};
/// let data = Vectors::from_floats(1, vec![0.0, 1.0, 10.0, 11.0])?;
/// let clusters = KMeans::fit(&data, &KMeansParams { k: 2, ..Default::default() })?;
/// let labels = clusters.assign(&data);
/// assert!(labels[0] == labels[1] && labels[2] == labels[3] && labels[0] != labels[2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct KMeans {
    centroids: Array2<f32>,
    /// The middle of the centroids. Distances are taken from products, ‖x‖² + ‖c‖² − 2x·c, which cancel the worse the farther
    /// all lies from the origin: so everything is moved by this first.
    origin: Vec<f32>,
    /// The centroids less the origin.
    moved: Array2<f32>,
    /// ‖c‖² of each of these.
    norms: Vec<f32>,
}

/// Rows that are compared with all centroids in one matrix product.
const BLOCK: usize = 256;

impl KMeans {
    /// Clusters the rows of `data`.
    ///
    /// The first centroids are distinct rows drawn at random. A cluster that loses all its rows is given the row that is
    /// farthest from its own centroid, as in scikit-learn.
    ///
    /// # Errors
    /// If there are no rows or no clusters are asked for.
    pub fn fit(data: &Vectors, params: &KMeansParams) -> Result<Self, KMeansError> {
        if data.is_empty() {
            return Err(KMeansError::Empty);
        }
        if params.k == 0 {
            return Err(KMeansError::ZeroClusters);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
        let most = params
            .k
            .saturating_mul(params.max_points_per_centroid.max(1));
        let sample;
        let data = if data.len() > most {
            let mut rows = rand::seq::index::sample(&mut rng, data.len(), most).into_vec();
            rows.sort_unstable(); // memory order
            sample = data.select(&rows).expect("rows of the sample exist");
            &sample
        } else {
            data
        };
        let k = params.k.min(data.len());
        let first = rand::seq::index::sample(&mut rng, data.len(), k).into_vec();
        let mut clusters =
            Self::from_centroids(data.select(&first).expect("sampled rows exist").to_array());
        let mut labels = Vec::new();
        for _ in 0..params.iterations {
            let (next, distances): (Vec<u32>, Vec<f32>) =
                clusters.nearest(data).into_iter().unzip();
            if next == labels {
                break;
            }
            labels = next;
            clusters = Self::from_centroids(means(data, &labels, &distances, k));
        }
        Ok(clusters)
    }

    fn from_centroids(centroids: Array2<f32>) -> Self {
        let count = centroids.nrows() as f64;
        let middle = |column: ndarray::ArrayView1<'_, f32>| {
            (column.iter().map(|&value| f64::from(value)).sum::<f64>() / count) as f32
        };
        let origin: Vec<f32> = centroids.columns().into_iter().map(middle).collect();
        let moved = &centroids - &ndarray::ArrayView1::from(&origin);
        let norms = moved.rows().into_iter().map(|row| row.dot(&row)).collect();
        Self {
            centroids,
            origin,
            moved,
            norms,
        }
    }

    /// The centroids, k × d.
    #[must_use]
    pub fn centroids(&self) -> ArrayView2<'_, f32> {
        self.centroids.view()
    }

    /// The nearest centroid of each row of `data` (n × d), ties to the lower number.
    ///
    /// # Panics
    /// If `data` has another dimension.
    #[must_use]
    pub fn assign(&self, data: &Vectors) -> Vec<u32> {
        self.nearest(data)
            .into_iter()
            .map(|(label, _)| label)
            .collect()
    }

    /// The nearest centroid of each row and how far it is, squared (rounded as f32 matrix products are).
    fn nearest(&self, data: &Vectors) -> Vec<(u32, f32)> {
        self.by_row(data, |distances| {
            let (mut label, mut least) = (0, f32::INFINITY);
            for (number, &distance) in distances.iter().enumerate() {
                if distance < least {
                    (label, least) = (number as u32, distance);
                }
            }
            (label, least)
        })
    }

    /// The `count` nearest centroids of each row, nearest first.
    ///
    /// # Panics
    /// If `data` has another dimension.
    #[must_use]
    pub fn assign_many(&self, data: &Vectors, count: usize) -> Vec<Vec<u32>> {
        let count = count.min(self.norms.len());
        self.by_row(data, |distances| {
            let mut order: Vec<u32> = (0..distances.len() as u32).collect();
            let key = |a: &u32, b: &u32| {
                distances[*a as usize]
                    .total_cmp(&distances[*b as usize])
                    .then(a.cmp(b))
            };
            if count < order.len() {
                order.select_nth_unstable_by(count, key);
                order.truncate(count);
            }
            order.sort_unstable_by(key);
            order
        })
    }

    /// `pick` of each row's squared distances to all centroids.
    fn by_row<T: Send>(&self, data: &Vectors, pick: impl Fn(&[f32]) -> T + Sync) -> Vec<T> {
        let dim = data.dim();
        assert_eq!(
            dim,
            self.centroids.ncols(),
            "vectors of the dimension of the centroids"
        );
        let blocks: Vec<Vec<T>> = (0..data.len().div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let rows = block * BLOCK..((block + 1) * BLOCK).min(data.len());
                let mut values = Vec::with_capacity(rows.len() * dim);
                let mut norms = Vec::with_capacity(rows.len());
                for row in rows.clone() {
                    let start = values.len();
                    match data.row(row) {
                        Row::Bytes(row) => {
                            values.extend(
                                row.iter()
                                    .zip(&self.origin)
                                    .map(|(&value, origin)| f32::from(value) - origin),
                            );
                        }
                        Row::Floats(row) => {
                            values.extend(
                                row.iter()
                                    .zip(&self.origin)
                                    .map(|(value, origin)| value - origin),
                            );
                        }
                    }
                    norms.push(
                        values[start..]
                            .iter()
                            .map(|value| value * value)
                            .sum::<f32>(),
                    );
                }
                let rows = Array2::from_shape_vec((rows.len(), dim), values).expect("whole rows");
                let mut distances = Array2::zeros((rows.nrows(), self.norms.len()));
                general_mat_mul(1.0, &rows, &self.moved.t(), 0.0, &mut distances);
                let mut picked = Vec::with_capacity(norms.len());
                for (mut row, norm) in distances.rows_mut().into_iter().zip(norms) {
                    let row = row.as_slice_mut().expect("it was made in row order");
                    for (value, centroid) in row.iter_mut().zip(&self.norms) {
                        *value = (norm + centroid - 2.0 * *value).max(0.0);
                    }
                    picked.push(pick(row));
                }
                picked
            })
            .collect();
        blocks.into_iter().flatten().collect()
    }
}

/// The mean of each cluster's rows, summed in f64 in the order of the rows, so that threads make no difference.
fn means(data: &Vectors, labels: &[u32], distances: &[f32], k: usize) -> Array2<f32> {
    let dim = data.dim();
    let (starts, members) = group(labels, k);
    let empty = (0..k)
        .filter(|&cluster| starts[cluster] == starts[cluster + 1])
        .count();
    let mut far: Vec<u32> = (0..labels.len() as u32).collect();
    if empty > 0 {
        far.sort_unstable_by(|&a, &b| {
            distances[b as usize]
                .total_cmp(&distances[a as usize])
                .then(a.cmp(&b))
        });
    }
    far.truncate(empty);
    let centroids: Vec<Vec<f32>> = (0..k)
        .into_par_iter()
        .map(|cluster| {
            let members = &members[starts[cluster]..starts[cluster + 1]];
            let mut sum = vec![0.0f64; dim];
            for &row in members {
                match data.row(row as usize) {
                    Row::Bytes(row) => sum
                        .iter_mut()
                        .zip(row)
                        .for_each(|(sum, &value)| *sum += f64::from(value)),
                    Row::Floats(row) => sum
                        .iter_mut()
                        .zip(row)
                        .for_each(|(sum, &value)| *sum += f64::from(value)),
                }
            }
            sum.iter()
                .map(|sum| (sum / members.len().max(1) as f64) as f32)
                .collect()
        })
        .collect();
    let mut centroids = Array2::from_shape_vec((k, dim), centroids.concat()).expect("k centroids");
    let emptied = (0..k).filter(|&cluster| starts[cluster] == starts[cluster + 1]);
    for (cluster, row) in emptied.zip(far) {
        let values = data.row_to_floats(row as usize);
        centroids
            .row_mut(cluster)
            .iter_mut()
            .zip(values)
            .for_each(|(to, value)| *to = value);
    }
    centroids
}

/// Rows by label: where each of the `k` groups starts (k + 1 numbers), and the row numbers, ascending in a group.
#[must_use]
pub(crate) fn group(labels: &[u32], k: usize) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; k + 1];
    for &label in labels {
        starts[label as usize + 1] += 1;
    }
    for cluster in 0..k {
        starts[cluster + 1] += starts[cluster];
    }
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
            let to = |c: usize| {
                centroids
                    .row(c)
                    .iter()
                    .zip(&values)
                    .map(|(c, v)| (c - v).powi(2))
                    .sum::<f32>()
            };
            let least = (0..7).map(to).fold(f32::INFINITY, f32::min);
            // Squares of coordinates up to 400 are rounded to about 0.05.
            assert!(to(label as usize) <= least + 0.2, "row {row}");
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
            pool.install(|| KMeans::fit(&data, &params).unwrap().centroids)
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
