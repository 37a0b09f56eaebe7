//! The data looked at by their neighbours: copies, doubtful labels, hubs.
//!
//! Most of it is read from the *k-NN graph* ([`knn_graph`]): each image with its k nearest others.
//! The naive way to look for oddities in 60,000 images is to look at 60,000 images. The graph says
//! which to look at:
//!
//! | question | answer |
//! |---|---|
//! | Is a test image also in the training set? | [`near_duplicates`] |
//! | Whose label is in doubt? | [`disagreeing`]: all neighbours have another one |
//! | Is a neighbour of everybody a neighbour? | [`k_occurrence`] and its [`skewness`], [`hubs`] |
//! | Do two spaces see the same neighbours? | [`in_common`] |
//!
//! [`beyond`] and [`without`] take what was found away, so that the vote can be held again without
//! it, on the same queries and without another search.

use std::collections::HashSet;

use crate::index::{Index, Query, QueryError};
use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

/// The k-NN graph: the `k` nearest *others* of each of `rows`, which are what `index` was built
/// from. Row i is about image i, and does not hold i itself.
///
/// # Errors
/// If `k` is zero, or `rows` do not have the dimension of the index.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::lab::neighbourhood::knn_graph;
/// use fashion_knn::prelude::*;
///
/// let rows = Arc::new(Vectors::from_bytes(1, vec![0, 1, 5])?);
/// let index = BruteForce::build(Arc::clone(&rows), BruteForceParams::default())?;
/// let graph = knn_graph(&index, &rows, 1)?;
/// assert_eq!(graph.row(2), [Neighbor { id: 1, distance: 4.0 }]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn knn_graph(index: &dyn Index, rows: &Vectors, k: usize) -> Result<Neighbors, QueryError> {
    if k == 0 {
        return Err(QueryError::ZeroK);
    }
    // One more than k: the image itself is at distance zero. It need not be the first, for its
    // copies are too; and if there are more than k of them it may not be found at all.
    let found = index.query_batch(rows, k.saturating_add(1))?;
    let mut graph = Vec::with_capacity(found.len());
    for (image, row) in found.iter().enumerate() {
        graph.push(others(image, row).take(k).copied().collect());
    }
    Ok(graph.into_iter().collect())
}

/// The neighbours of an image that are not the image itself.
fn others(image: usize, row: &[Neighbor]) -> impl Iterator<Item = &Neighbor> {
    row.iter().filter(move |found| found.id as usize != image)
}

/// A query and an image of the base that is nearly the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Which query, from 0.
    pub query: usize,
    /// Which image of the base, from 0.
    pub id: usize,
    /// The distance between the two.
    pub distance: f64,
}

/// The pairs of a query and a neighbour that are not farther apart than `distance`, the nearest
/// first, then by query.
///
/// Asked with test images in a base of training images it finds what a classifier can answer by
/// heart. Known of Fashion-MNIST: C. Geier, *Training on test data: removing near duplicates in
/// Fashion-MNIST*, arXiv:1906.08255 (2019).
///
/// ```
/// use fashion_knn::lab::neighbourhood::near_duplicates;
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
///
/// let row = |id, distance| vec![Neighbor { id, distance }];
/// let found: Neighbors = [row(4, 900.0), row(9, 0.0)].into_iter().collect();
/// let pairs = near_duplicates(&found, 300.0);
/// assert_eq!((pairs.len(), pairs[0].query, pairs[0].id), (1, 1, 9));
/// ```
#[must_use]
pub fn near_duplicates(neighbors: &Neighbors, distance: f64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (query, row) in neighbors.iter().enumerate() {
        for found in row.iter().take_while(|found| found.distance <= distance) {
            pairs.push(Pair {
                query,
                id: found.id as usize,
                distance: found.distance,
            });
        }
    }
    // The sort is stable: of equal distances the queries stay in order.
    pairs.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    pairs
}

/// The same rows without the neighbours that are not farther than `distance`.
///
/// For a vote of k, search more than k neighbours: those that are taken away leave gaps at the
/// front of a row, which the next ones fill.
#[must_use]
pub fn beyond(neighbors: &Neighbors, distance: f64) -> Neighbors {
    kept(neighbors, |found| found.distance > distance)
}

/// The same rows without the images `ids` of the base.
///
/// For a vote of k, search more than k neighbours, as for [`beyond`].
#[must_use]
pub fn without(neighbors: &Neighbors, ids: impl IntoIterator<Item = usize>) -> Neighbors {
    let ids: HashSet<usize> = ids.into_iter().collect();
    kept(neighbors, |found| !ids.contains(&(found.id as usize)))
}

fn kept(neighbors: &Neighbors, keeps: impl Fn(&Neighbor) -> bool) -> Neighbors {
    let rows = neighbors.iter();
    rows.map(|row| row.iter().copied().filter(&keeps).collect())
        .collect()
}

/// An image none of whose neighbours has its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disagreement {
    /// Which image, from 0.
    pub id: usize,
    /// The label that it has.
    pub label: u8,
    /// The label of most of its neighbours, the smallest one of equals.
    pub class: u8,
    /// The share of its neighbours that have this label: 1 if they agree with each other.
    pub share: f64,
    /// The distance to the nearest neighbour.
    pub distance: f64,
}

/// The images all of whose neighbours disagree with their label: first those whose neighbours agree
/// with each other, and of these the one with the nearest neighbour.
///
/// `graph` is a [`knn_graph`] of the images, `labels` are their labels. Such a label may be wrong,
/// or the image may be unlike its class: one has to look. The idea is that of *edited* nearest
/// neighbours (D. L. Wilson, IEEE Transactions SMC 2, 1972), who leaves such images out; wrong
/// labels of Fashion-MNIST: N. M. Müller & K. Markert, arXiv:1912.05283 (2019).
///
/// # Panics
/// If an image has no label.
#[must_use]
pub fn disagreeing(graph: &Neighbors, labels: &[u8]) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for (id, row) in graph.iter().enumerate() {
        found.extend(disagreement(id, row, labels));
    }
    found.sort_by(|a, b| {
        let unanimous = b.share.total_cmp(&a.share);
        unanimous.then(a.distance.total_cmp(&b.distance))
    });
    found
}

/// Image `id`, if it has neighbours and none of them has its label.
fn disagreement(id: usize, row: &[Neighbor], labels: &[u8]) -> Option<Disagreement> {
    let label = labels[id];
    let mut counts = [0u32; 256];
    let mut all = 0;
    for found in others(id, row) {
        counts[usize::from(labels[found.id as usize])] += 1;
        all += 1;
    }
    if counts[usize::from(label)] > 0 {
        return None;
    }
    let nearest = others(id, row).next()?;
    // The smallest class of equals: `max_by_key` keeps the last one, so the classes come backwards.
    let class = (0..=u8::MAX)
        .rev()
        .max_by_key(|&class| counts[usize::from(class)])?;
    Some(Disagreement {
        id,
        label,
        class,
        share: f64::from(counts[usize::from(class)]) / f64::from(all),
        distance: nearest.distance,
    })
}

/// The k-occurrence: how often each of `n` images is a neighbour of another one.
///
/// The mean is k, as many as each image has. In low dimensions all are near it. The more dimensions
/// the data really have, the more images are hubs, neighbours of very many, while others are
/// nobody's neighbour: M. Radovanović, A. Nanopoulos, M. Ivanović, *Hubs in space*, JMLR 11
/// (2010).
///
/// # Panics
/// If a neighbour's id is not below `n`.
///
/// ```
/// use fashion_knn::lab::neighbourhood::{k_occurrence, skewness};
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
///
/// // A star: image 0 is the neighbour of the three others, and has 1 itself.
/// let row = |id| vec![Neighbor { id, distance: 1.0 }];
/// let graph: Neighbors = [row(1), row(0), row(0), row(0)].into_iter().collect();
/// let counts = k_occurrence(&graph, 4);
/// assert_eq!(counts, [3, 1, 0, 0]);
/// assert!(skewness(&counts) > 0.5);
/// ```
#[must_use]
pub fn k_occurrence(graph: &Neighbors, n: usize) -> Vec<u32> {
    let mut counts = vec![0; n];
    for row in graph.iter() {
        for found in row {
            counts[found.id as usize] += 1;
        }
    }
    counts
}

/// The skewness of counts, E(x − μ)³ / σ³: 0 if they lie evenly around their mean, positive
/// if a few are far above it. Of k-occurrences it is Radovanović's measure of hubness.
///
/// Counts that are all alike have skewness 0.
#[must_use]
pub fn skewness(counts: &[u32]) -> f64 {
    let n = counts.len() as f64;
    let mean = counts.iter().map(|&count| f64::from(count)).sum::<f64>() / n;
    let moment = |power: i32| {
        let terms = counts
            .iter()
            .map(|&count| (f64::from(count) - mean).powi(power));
        terms.sum::<f64>() / n
    };
    let variance = moment(2);
    // Without counts the variance is NaN, which is not above 0 either.
    if variance > 0.0 {
        moment(3) / variance.powf(1.5)
    } else {
        0.0
    }
}

/// An image that is the neighbour of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hub {
    /// Which image, from 0.
    pub id: usize,
    /// How often it is a neighbour.
    pub count: u32,
}

/// The `most` images with the greatest counts, the greatest first, then by id.
#[must_use]
pub fn hubs(counts: &[u32], most: usize) -> Vec<Hub> {
    let all = counts.iter().enumerate();
    let mut hubs: Vec<Hub> = all.map(|(id, &count)| Hub { id, count }).collect();
    // The sort is stable: of equal counts the ids stay in order.
    hubs.sort_by_key(|hub| std::cmp::Reverse(hub.count));
    hubs.truncate(most);
    hubs
}

/// The share of neighbours that two searches have in common, averaged over the queries, from 0 to
/// 1: of each row's first `k`, by their ids.
///
/// Of two spaces it says how alike their neighbourhoods are; of a space and its map, how many
/// neighbours stay neighbours. Two random rows of k among n have k / n in common.
///
/// # Panics
/// If there are not as many rows in both.
#[must_use]
pub fn in_common(a: &Neighbors, b: &Neighbors, k: usize) -> f64 {
    assert_eq!(a.len(), b.len(), "one row a query in both");
    let (mut shared, mut wanted) = (0, 0);
    for (a, b) in a.iter().zip(b.iter()) {
        let ids: HashSet<u32> = a.iter().take(k).map(|found| found.id).collect();
        shared += b
            .iter()
            .take(k)
            .filter(|found| ids.contains(&found.id))
            .count();
        wanted += ids.len();
    }
    // Without neighbours nothing is missed.
    if wanted == 0 {
        1.0
    } else {
        shared as f64 / wanted as f64
    }
}

/// A query and the nearest image of the base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Which image of the base, from 0.
    pub id: usize,
    /// How far away it is.
    pub distance: f64,
    /// Whether both are of the same class.
    pub same: bool,
}

/// The nearest image of each query, and whether its class is the query's; queries without
/// neighbours are left out. `base_labels` are the classes of the base, `labels` those of the
/// queries.
///
/// ```
/// use fashion_knn::lab::neighbourhood::nearest_of;
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
///
/// let found: Neighbors = [vec![Neighbor { id: 1, distance: 4.0 }]].into_iter().collect();
/// let nearest = &nearest_of(&found, &[3, 8], &[8])[0];
/// assert_eq!((nearest.id, nearest.distance, nearest.same), (1, 4.0, true));
/// ```
///
/// # Panics
/// If there is not a label for each query, or for each id.
#[must_use]
pub fn nearest_of(neighbors: &Neighbors, base_labels: &[u8], labels: &[u8]) -> Vec<Nearest> {
    assert_eq!(neighbors.len(), labels.len(), "one label a query");
    let mut all = Vec::new();
    for (row, &label) in neighbors.iter().zip(labels) {
        if let Some(nearest) = row.first() {
            let id = nearest.id as usize;
            all.push(Nearest {
                id,
                distance: nearest.distance,
                same: base_labels[id] == label,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::index::{BruteForce, BruteForceParams, Build};

    fn random_rows(n: usize, dim: usize, seed: u64) -> Arc<Vectors> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..n * dim).map(|_| rng.random()).collect();
        Arc::new(Vectors::from_floats(dim, values).unwrap())
    }

    fn graph_of(rows: &Arc<Vectors>, k: usize) -> Neighbors {
        let index = BruteForce::build(Arc::clone(rows), BruteForceParams::default()).unwrap();
        knn_graph(&index, rows, k).unwrap()
    }

    #[test]
    fn the_graph_has_the_nearest_others() {
        let rows = random_rows(120, 3, 1);
        let graph = graph_of(&rows, 4);
        for image in 0..rows.len() {
            // The definition: all others by distance, then by id.
            let distance = |other: usize| -> f32 {
                let pairs = rows
                    .row_to_floats(image)
                    .into_iter()
                    .zip(rows.row_to_floats(other));
                pairs.map(|(a, b)| (a - b) * (a - b)).sum()
            };
            let mut order: Vec<usize> = (0..rows.len()).filter(|&other| other != image).collect();
            order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
            let ids: Vec<usize> = graph
                .row(image)
                .iter()
                .map(|found| found.id as usize)
                .collect();
            assert_eq!(ids, order[..4]);
        }
    }

    #[test]
    fn copies_stay_and_the_image_itself_does_not() {
        // Five times the same row: each has three of the others, whichever.
        let rows = Arc::new(Vectors::from_bytes(2, vec![7; 10]).unwrap());
        let graph = graph_of(&rows, 3);
        for (image, row) in graph.iter().enumerate() {
            assert_eq!(row.len(), 3);
            assert!(row.iter().all(|found| found.id as usize != image));
        }
        // More than there are: all others.
        assert!(graph_of(&rows, 9).iter().all(|row| row.len() == 4));
        let index = BruteForce::build(rows.clone(), BruteForceParams::default()).unwrap();
        assert!(matches!(
            knn_graph(&index, &rows, 0),
            Err(QueryError::ZeroK)
        ));
        let narrow = random_rows(2, 1, 0);
        assert!(knn_graph(&index, &narrow, 1).is_err());
    }

    fn neighbors(rows: &[&[(u32, f64)]]) -> Neighbors {
        let row = |row: &&[(u32, f64)]| -> Vec<Neighbor> {
            let found = row.iter();
            found
                .map(|&(id, distance)| Neighbor { id, distance })
                .collect()
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn planted_copies_are_found() {
        let base = random_rows(500, 20, 2);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // Every tenth query is a row of the base, moved by at most .01 in each of 20 coordinates.
        let fresh = random_rows(100, 20, 4);
        let mut values = fresh.to_floats();
        for query in (0..100).step_by(10) {
            let row = base.row_to_floats(3 * query);
            for (value, &of_base) in values[query * 20..].iter_mut().zip(&row) {
                *value = of_base + rng.random_range(-0.01..0.01);
            }
        }
        let queries = Vectors::from_floats(20, values).unwrap();
        let index = BruteForce::build(base, BruteForceParams::default()).unwrap();
        let found = index.query_batch(&queries, 5).unwrap();
        let limit = 0.01 * 20f64.sqrt();
        let mut pairs = near_duplicates(&found, limit);
        assert!(pairs.is_sorted_by_key(|pair| pair.distance));
        pairs.sort_by_key(|pair| pair.query);
        let planted: Vec<(usize, usize)> = (0..10).map(|at| (10 * at, 30 * at)).collect();
        let ids: Vec<_> = pairs.iter().map(|pair| (pair.query, pair.id)).collect();
        assert_eq!(ids, planted);
        // Taken away by distance, the ten are gone and nothing else is.
        let length = |rows: &Neighbors| rows.iter().map(<[_]>::len).sum::<usize>();
        let farther = beyond(&found, limit);
        assert!(near_duplicates(&farther, limit).is_empty());
        assert_eq!(length(&farther), length(&found) - 10);
        // Taken away by id, they are gone from the rows of all other queries too.
        let rest = without(&found, pairs.iter().map(|pair| pair.id));
        let is_left = |id: u32| planted.iter().all(|&(_, of_base)| of_base != id as usize);
        for (before, after) in found.iter().zip(rest.iter()) {
            let left: Vec<_> = before.iter().filter(|found| is_left(found.id)).collect();
            assert_eq!(after.iter().collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn a_planted_label_is_found_and_a_border_is_not() {
        // Two clusters on a line, of classes 3 and 8; image 4 stands in the first and says 8.
        let rows = Arc::new(Vectors::from_bytes(1, vec![0, 1, 2, 3, 4, 200, 201, 202]).unwrap());
        let labels = [3, 3, 3, 3, 8, 8, 8, 8];
        let found = disagreeing(&graph_of(&rows, 3), &labels);
        let planted = Disagreement {
            id: 4,
            label: 8,
            class: 3,
            share: 1.0,
            distance: 1.0,
        };
        // The three on the right have image 4 as their third neighbour, but agree with each other.
        assert_eq!(found, [planted]);
    }

    #[test]
    fn unanimous_neighbours_come_first_then_the_nearest() {
        let graph = neighbors(&[
            &[(1, 5.0), (2, 6.0)],
            &[(2, 3.0), (3, 4.0)],
            &[(3, 1.0), (0, 2.0)],
            &[],
        ]);
        // Image 0 has class 1 and neighbours of classes 2 and 0; the smaller is named.
        let found = disagreeing(&graph, &[1, 2, 0, 0]);
        let ids: Vec<_> = found
            .iter()
            .map(|image| (image.id, image.class, image.share))
            .collect();
        assert_eq!(ids, [(1, 0, 1.0), (0, 0, 0.5)]);
    }

    /// The examples of the documentation of scipy.stats.skew.
    #[test]
    fn skewness_as_scipy_has_it() {
        assert_eq!(skewness(&[1, 2, 3, 4, 5]), 0.0);
        assert!((skewness(&[2, 8, 0, 4, 1, 9, 9, 0]) - 0.265_055_412_269_857_3).abs() < 1e-12);
        assert_eq!(skewness(&[6, 6, 6]), 0.0);
        assert_eq!(skewness(&[]), 0.0);
    }

    /// Radovanović et al. (2010), figure 1: of points drawn evenly from a cube the skewness of the
    /// 5-occurrence is near 0 in 3 dimensions and far above it in 100.
    #[test]
    fn hubs_come_with_the_dimensions() {
        let counts = |dim| k_occurrence(&graph_of(&random_rows(2_000, dim, 6), 5), 2_000);
        let (few, many) = (counts(3), counts(100));
        assert_eq!(few.iter().sum::<u32>(), 10_000, "the mean is k");
        assert!(skewness(&few).abs() < 0.5, "{}", skewness(&few));
        assert!(skewness(&many) > 2.0, "{}", skewness(&many));
        let greatest = hubs(&many, 3);
        assert_eq!(greatest[0].count, *many.iter().max().unwrap());
        assert_eq!(many[greatest[2].id], greatest[2].count);
        assert!(greatest.is_sorted_by_key(|hub| std::cmp::Reverse(hub.count)));
        assert_eq!(
            hubs(&[1, 3, 3], 9)
                .iter()
                .map(|hub| hub.id)
                .collect::<Vec<_>>(),
            [1, 2, 0]
        );
    }

    #[test]
    fn what_two_searches_share() {
        let a = neighbors(&[&[(1, 0.0), (2, 0.0)], &[(3, 0.0), (4, 0.0)]]);
        let b = neighbors(&[&[(2, 1.0), (1, 1.0)], &[(3, 1.0), (9, 1.0)]]);
        assert_eq!(in_common(&a, &b, 2), 0.75);
        assert_eq!(in_common(&a, &b, 1), 0.5);
        assert_eq!(in_common(&a, &a, 2), 1.0);
        assert_eq!(in_common(&neighbors(&[]), &neighbors(&[]), 3), 1.0);
    }
}
