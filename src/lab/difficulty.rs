//! How hard data are to search: the intrinsic dimension, the contrast of distances, and what trees
//! look at; and how far apart the classes are.

use std::sync::Arc;

use crate::error::{BuildError, QueryError};
use crate::index::{
    BallTree, BallTreeParams, BruteForce, BruteForceParams, Build, Index, KdTree, KdTreeParams,
    Query,
};
use crate::lab::neighbourhood::{k_occurrence, knn_graph, skewness};
use crate::neighbor::Neighbors;
use crate::vectors::{Vectors, VectorsError};
use thiserror::Error;

/// Neighbours by which the intrinsic dimension is estimated. Levina & Bickel (2004) average over
/// k = 10 to 20.
const NEAR: usize = 20;
/// Rows among which hubs are looked for: all pairs of them are compared.
const HUB_ROWS: usize = 10_000;
/// The k of their k-occurrence. Radovanović et al. (2010) take 10.
const HUB_NEIGHBOURS: usize = 10;
/// Every so many rows of the base, one is taken for the distances to any row.
const STEP: usize = 100;

/// Why the difficulty of some data could not be told.
#[derive(Debug, Error)]
pub enum DifficultyError {
    /// An index refused the data.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An index refused the queries.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There are no rows to choose from.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
    /// All distances that would be compared are zero, or alike.
    #[error("the {what} of the data is not defined: its neighbours are copies or equally far")]
    Undefined {
        /// Which figure.
        what: &'static str,
    },
}

/// How hard some data are to search: what D2 compares pixels and features by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difficulty {
    /// d, the number of values of a row.
    pub dimensions: usize,
    /// [`intrinsic_dimension`], by the 20 nearest rows of each query.
    pub intrinsic_dimension: f64,
    /// [`relative_contrast`].
    pub relative_contrast: f64,
    /// How unevenly rows are neighbours of others: the [`skewness`] of [`k_occurrence`], over the
    /// first 10,000 rows and their 10 nearest. 0 would be evenly; of hubs it is far above 1.
    pub hub_skewness: f64,
    /// Of the rows of the base, the share (0 to 1) that a KD-tree looks at for a query.
    pub kd_tree_looked_at: f64,
    /// The same for a ball tree: by a bound, where not at once by the distance.
    pub ball_tree_looked_at: f64,
    /// The share whose distance a ball tree computes.
    pub ball_tree_distances: f64,
}

/// Measures how hard it is to find the `k` nearest rows of `base` (n × d) to each of `queries`
/// (m × d). Two trees are built for it.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::lab::difficulty::difficulty;
/// use fashion_knn::vectors::Vectors;
///
/// // A line in two dimensions: one direction, and a tree looks at few of the rows.
/// let place = |step: u32| [step as f32, 2.0 * step as f32];
/// let base = Arc::new(Vectors::from_floats(2, (0..4_000).flat_map(place).collect::<Vec<_>>())?);
/// let between = |step: u32| [step as f32 + 0.3, 2.0 * step as f32 + 0.6];
/// let asked = (500..3_500).step_by(100).flat_map(between);
/// let queries = Vectors::from_floats(2, asked.collect::<Vec<_>>())?;
///
/// let line = difficulty(&base, &queries, 5)?;
/// assert!((line.intrinsic_dimension - 1.0).abs() < 0.2);
/// assert!(line.relative_contrast > 100.0);
/// assert!(line.kd_tree_looked_at < 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there are no rows or `k` is 0, the queries do not fit, or all neighbours are copies or
/// equally far.
pub fn difficulty(
    base: &Arc<Vectors>,
    queries: &Vectors,
    k: usize,
) -> Result<Difficulty, DifficultyError> {
    let near =
        BruteForce::build(base.clone(), BruteForceParams::default())?.query_batch(queries, NEAR)?;
    // Distances to a row like any other: the base is in no order.
    let rows: Vec<usize> = (0..base.len()).step_by(STEP).collect();
    let some = Arc::new(base.select(&rows)?);
    let far =
        BruteForce::build(some, BruteForceParams::default())?.query_batch(queries, rows.len())?;
    let distances: Vec<f64> = far.iter().flatten().map(|row| row.distance).collect();
    let defined = |value: Option<f64>, what| value.ok_or(DifficultyError::Undefined { what });
    let kd_tree = KdTree::build(base.clone(), KdTreeParams::default())?;
    let ball_tree = BallTree::build(base.clone(), BallTreeParams::default())?;
    let kd = looked_at(&kd_tree, queries, k)?;
    let ball = looked_at(&ball_tree, queries, k)?;
    Ok(Difficulty {
        dimensions: base.dim(),
        intrinsic_dimension: defined(intrinsic_dimension(&near), "intrinsic dimension")?,
        hub_skewness: hub_skewness(base)?,
        relative_contrast: defined(relative_contrast(&near, &distances), "relative contrast")?,
        kd_tree_looked_at: kd.bounds,
        ball_tree_looked_at: ball.bounds,
        ball_tree_distances: ball.distances,
    })
}

/// The skewness of how often a row is among the nearest of another.
fn hub_skewness(base: &Vectors) -> Result<f64, DifficultyError> {
    let some = Arc::new(base.head(HUB_ROWS));
    let index = BruteForce::build(some.clone(), BruteForceParams::default())?;
    let graph = knn_graph(&index, &some, HUB_NEIGHBOURS)?;
    Ok(skewness(&k_occurrence(&graph, some.len())))
}

/// Shares of the base, 0 to 1, on average over the queries.
struct LookedAt {
    /// Rows that were looked at, by a bound or by their distance.
    bounds: f64,
    /// Rows whose distance was computed.
    distances: f64,
}

/// What `index` looks at to find the `k` nearest of each query.
fn looked_at(index: &impl Index, queries: &Vectors, k: usize) -> Result<LookedAt, QueryError> {
    let mut bounds = 0;
    let mut distances = 0;
    for row in 0..queries.len() {
        let visits = index.query_counted(queries.row(row), k)?.1;
        bounds += visits.bounds;
        distances += visits.distances;
    }
    let share = |count: usize| count as f64 / (queries.len() * index.len()) as f64;
    Ok(LookedAt {
        bounds: share(bounds),
        distances: share(distances),
    })
}

/// Of the variance of `rows` (n × d), the share between the classes, 0 to 1: that of the means of
/// the classes. The rest is within them. It is 0 where all rows are equal.
///
/// ```
/// use fashion_knn::lab::difficulty::between_classes;
/// use fashion_knn::vectors::Vectors;
///
/// // Two classes at 0 and 10, each half a unit around its mean: 25 of 25.25.
/// let rows = Vectors::from_floats(1, vec![-0.5, 0.5, 9.5, 10.5])?;
/// assert!((between_classes(&rows, &[0, 0, 1, 1]) - 25.0 / 25.25).abs() < 1e-12);
///
/// let equal = Vectors::from_floats(1, vec![0.1; 3])?;
/// assert_eq!(between_classes(&equal, &[0, 1, 1]), 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If there is not one label a row.
#[must_use]
pub fn between_classes(rows: &Vectors, labels: &[u8]) -> f64 {
    assert_eq!(rows.len(), labels.len(), "one label a row");
    // Then there is nothing to explain, and the quotient below would be of what rounding leaves.
    if (1..rows.len()).all(|row| rows.row_to_floats(row) == rows.row_to_floats(0)) {
        return 0.0;
    }
    // By the sums and the squares: the means explain Σ |sum|² / count over the classes. Both this
    // and the squares lose what the mean of all rows explains.
    let d = rows.dim();
    let mut classes = vec![ClassSum::of(d); usize::from(u8::MAX) + 1];
    let mut all = ClassSum::of(d);
    let mut squares = 0.0;
    for (row, &label) in labels.iter().enumerate() {
        let values = rows.row_to_floats(row);
        classes[usize::from(label)].add(&values);
        all.add(&values);
        squares += values
            .iter()
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>();
    }
    let explained: f64 = classes.iter().map(ClassSum::explained).sum();
    (explained - all.explained()) / (squares - all.explained())
}

/// The sum of some rows, and how many there are.
#[derive(Clone)]
struct ClassSum {
    sum: Vec<f64>,
    count: usize,
}

impl ClassSum {
    fn of(d: usize) -> Self {
        let (sum, count) = (vec![0.0; d], 0);
        Self { sum, count }
    }

    fn add(&mut self, values: &[f32]) {
        self.count += 1;
        for (sum, &value) in self.sum.iter_mut().zip(values) {
            *sum += f64::from(value);
        }
    }

    /// The squares of the rows, were each the mean: count · |mean|².
    fn explained(&self) -> f64 {
        let squares: f64 = self.sum.iter().map(|sum| sum * sum).sum();
        squares / self.count.max(1) as f64
    }
}

/// The intrinsic dimension: how many directions the data really vary in, seen from the queries.
///
/// Around a point of data with m directions, the number of rows within distance r grows as rᵐ.
/// The distances T₁ ≤ … ≤ Tₖ of a query's neighbours therefore tell m. The estimate of
/// maximum likelihood (Levina & Bickel 2004), averaged over the queries as MacKay & Ghahramani
/// (2005) correct it, is
///
/// ```text
/// m = 1 / mean of ln(Tₖ / Tⱼ) over all neighbours j < k of all queries
/// ```
///
/// Neighbours at distance zero say nothing and are left out. `None` if no query has two neighbours
/// at different distances.
#[must_use]
pub fn intrinsic_dimension(neighbors: &Neighbors) -> Option<f64> {
    let mut sum = 0.0;
    let mut count = 0usize;
    for row in neighbors.iter() {
        // `last` is Tₖ, `nearer` are the Tⱼ. A row without neighbours has neither.
        let Some((last, nearer)) = row.split_last() else {
            continue;
        };
        for neighbor in nearer.iter().filter(|neighbor| neighbor.distance > 0.0) {
            // At least 0, since rows ascend. One sum over all queries, divided once at the end: the
            // mean of the inverse dimensions, which is the correction, rather than the mean of the
            // dimensions.
            sum += (last.distance / neighbor.distance).ln();
            count += 1;
        }
    }
    // 1 / (sum / count). A sum of 0 means that all neighbours of each row are equally far.
    (sum > 0.0).then(|| count as f64 / sum)
}

/// The relative contrast (He, Kumar & Chang 2012): the mean distance of a query to a row of the
/// base, divided by the mean distance to its nearest one. 1 means that the nearest is no nearer
/// than any other.
///
/// `neighbors` are those of the queries, of which the first of each row counts. `distances` are
/// distances of queries of the same kind to rows of the base: to all, or to a random sample. `None`
/// if there are none, or all nearest neighbours are at distance zero.
#[must_use]
pub fn relative_contrast(neighbors: &Neighbors, distances: &[f64]) -> Option<f64> {
    // The mean of no values is 0 / 0, NaN, and a mean of 0 below makes an infinite contrast: the
    // check at the end turns both into `None`.
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mut nearest = Vec::new();
    for row in neighbors.iter() {
        nearest.extend(row.first().map(|neighbor| neighbor.distance));
    }
    let contrast = mean(distances) / mean(&nearest);
    contrast.is_finite().then_some(contrast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::index::{BruteForce, BruteForceParams, Build, Query};
    use crate::neighbor::Neighbor;
    use crate::vectors::Vectors;

    /// Points of a cube of `inner` dimensions, turned into `outer` ones by random directions.
    fn plane(rows: usize, inner: usize, outer: usize, seed: u64) -> Vectors {
        let mut directions = ChaCha8Rng::seed_from_u64(1);
        let axes: Vec<f32> = (0..inner * outer)
            .map(|_| directions.random_range(-1.0..1.0))
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(rows * outer);
        for _ in 0..rows {
            let place: Vec<f32> = (0..inner).map(|_| rng.random()).collect();
            values.extend((0..outer).map(|at| {
                (0..inner)
                    .map(|axis| place[axis] * axes[axis * outer + at])
                    .sum::<f32>()
            }));
        }
        Vectors::from_floats(outer, values).unwrap()
    }

    #[test]
    fn a_plane_in_many_dimensions_has_the_dimension_of_the_plane() {
        let measure = |inner| {
            let base = Arc::new(plane(4_000, inner, 50, 2));
            let exact = BruteForce::build(base, BruteForceParams::default()).unwrap();
            intrinsic_dimension(&exact.query_batch(&plane(200, inner, 50, 3), 20).unwrap()).unwrap()
        };
        // Near the border of a cube there are fewer neighbours than the estimate supposes, and the
        // more dimensions, the more of the cube is near its border.
        assert!((measure(2) - 2.0).abs() < 0.2, "{}", measure(2));
        assert!((measure(6) - 6.0).abs() < 0.9, "{}", measure(6));
    }

    #[test]
    fn without_different_distances_there_is_no_dimension() {
        let row = |distances: &[f64]| -> Vec<Neighbor> {
            distances
                .iter()
                .zip(0..)
                .map(|(&distance, id)| Neighbor { id, distance })
                .collect()
        };
        let neighbors = |rows: &[&[f64]]| {
            rows.iter()
                .map(|distances| row(distances))
                .collect::<Neighbors>()
        };
        assert_eq!(intrinsic_dimension(&neighbors(&[])), None);
        assert_eq!(
            intrinsic_dimension(&neighbors(&[&[0.0, 0.0], &[1.0, 1.0]])),
            None
        );
        assert_eq!(
            relative_contrast(&neighbors(&[&[2.0, 5.0], &[4.0]]), &[9.0, 3.0]),
            Some(2.0)
        );
        assert_eq!(relative_contrast(&neighbors(&[&[0.0]]), &[1.0]), None);
        assert_eq!(relative_contrast(&neighbors(&[&[1.0]]), &[]), None);
    }
}
