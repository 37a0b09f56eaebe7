//! A map: the images as points of a plane, so that neighbours lie together.
//!
//! The naive map takes the first two principal components. It keeps what is far apart, but folds
//! the rest: of 128 features two components leave classes on top of each other. What a reader looks
//! for is the opposite, who is near whom. The k-NN graph knows that already, and it is all that
//! this map is made of, besides the place where each point starts:
//!
//! ```text
//! rows ----> principal components: where the points start
//! graph ---> a weight for each edge ----> each edge pulls its ends together,
//!            (how near, for its ends)     random other points push each end away
//! ```
//!
//! This is UMAP: L. McInnes, J. Healy, J. Melville, arXiv:1802.03426 (2018), with the attraction
//! and repulsion of t-SNE's kernel 1 / (1 + d²), which needs no powers; J. N. Böhm, P. Berens, D.
//! Kobak, *Attraction-repulsion spectrum in neighbor embeddings*, JMLR 23 (2022), show how little
//! that changes. One thread draws and moves, one edge after the other, so that the seed decides the
//! map.
//!
//! What to read from such a map: groups, and who is in which. Not: distances between groups, their
//! sizes, or how dense they are.

use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::math::pca::{Pca, PcaError, PcaOptions};
use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

/// Why there is no map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MapError {
    /// There are no principal components to start from.
    #[error(transparent)]
    Pca(#[from] PcaError),
    /// The graph is not that of the rows.
    #[error("the graph has {received} rows; expected {expected}, one an image")]
    OtherRows {
        /// Rows of the table.
        expected: usize,
        /// Rows of the graph.
        received: usize,
    },
    /// A neighbour is none of the rows.
    #[error("row {row} of the graph has neighbour {id}; there are {rows} rows")]
    NoSuchRow {
        /// The row of the graph.
        row: usize,
        /// The neighbour's id.
        id: u32,
        /// How many rows there are.
        rows: usize,
    },
}

/// How often the whole graph is gone through; umap-learn's choice for more than 10,000 rows.
const EPOCHS: usize = 200;

/// How many random points push an end away for each pull of an edge (umap-learn's
/// `negative_sample_rate`).
const PUSHES: usize = 5;

/// The points start within −10 and 10, as in umap-learn.
const EXTENT: f64 = 10.0;

/// The start is moved by so much at random. Copies would otherwise stay on one spot, and rows of
/// one dimension on one line.
const JITTER: f32 = 1e-3;

/// No step is longer in either coordinate (umap-learn's `clip`).
const LONGEST_STEP: f32 = 4.0;

/// Rows from which the principal components are estimated. They only tell where to start.
const PCA_ROWS: usize = 2_000;

/// The map of `rows` by their `graph`: n × 2, the place of each row.
///
/// `graph` is the [`knn_graph`](super::neighbourhood::knn_graph) of the rows; 15 neighbours are
/// usual. The same seed gives the same map, on any number of threads. It takes O(n·k) time: some
/// seconds for 10,000 rows and k = 15.
///
/// # Errors
/// If there are no rows, the graph has not one row for each, or a neighbour is none of them.
///
/// ```
/// use std::sync::Arc;
/// use fashion_knn::lab::layout::map_of_neighbours;
/// use fashion_knn::lab::neighbourhood::knn_graph;
/// use fashion_knn::prelude::*;
///
/// // Two groups of ten on a line, far from each other.
/// let values: Vec<u8> = (0..10).chain(200..210).collect();
/// let rows = Arc::new(Vectors::from_bytes(1, values)?);
/// let index = BruteForce::build(Arc::clone(&rows), BruteForceParams::default())?;
/// let map = map_of_neighbours(&rows, &knn_graph(&index, &rows, 4)?, 0)?;
/// assert_eq!((map.len(), map.dim()), (20, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn map_of_neighbours(
    rows: &Vectors,
    graph: &Neighbors,
    seed: u64,
) -> Result<Vectors, MapError> {
    check(rows, graph)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut places = start(rows, &mut random)?;
    settle(&mut places, &edges(graph), &mut random);
    let values: Vec<f32> = places.iter().flat_map(|place| [place.x, place.y]).collect();
    Ok(Vectors::from_floats(2, values).expect("each of a bounded number of steps is bounded"))
}

fn check(rows: &Vectors, graph: &Neighbors) -> Result<(), MapError> {
    if graph.len() != rows.len() {
        return Err(MapError::OtherRows {
            expected: rows.len(),
            received: graph.len(),
        });
    }
    for (row, found) in graph.iter().enumerate() {
        if let Some(stray) = found.iter().find(|found| found.id as usize >= rows.len()) {
            return Err(MapError::NoSuchRow {
                row,
                id: stray.id,
                rows: rows.len(),
            });
        }
    }
    Ok(())
}

/// A point of the map.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    x: f32,
    y: f32,
}

/// Where the points start: their first two principal components.
fn start(rows: &Vectors, random: &mut ChaCha8Rng) -> Result<Vec<Place>, MapError> {
    let options = PcaOptions {
        max_rows: PCA_ROWS,
        components: 2,
        ..PcaOptions::default()
    };
    let pca = Pca::fit(rows, &options)?;
    let projected = pca.project_all(rows, rows.dim().min(2));
    let widest = projected
        .iter()
        .fold(0.0f64, |widest, value| widest.max(value.abs()));
    // Rows that are all alike lie on one spot, whatever the scale.
    let scale = if widest > 0.0 { EXTENT / widest } else { 1.0 };
    let mut coordinate = |row: usize, component: usize| {
        let value = component_of(&projected, row, component) * scale;
        value as f32 + random.random_range(-JITTER..JITTER)
    };
    let mut places = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        places.push(Place {
            x: coordinate(row, 0),
            y: coordinate(row, 1),
        });
    }
    Ok(places)
}

/// Rows of one dimension have no second component: it is 0.
fn component_of(projected: &Array2<f64>, row: usize, component: usize) -> f64 {
    projected.get((row, component)).copied().unwrap_or(0.0)
}

/// Two rows of which one is a neighbour of the other.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Edge {
    /// The smaller row.
    a: u32,
    /// The greater row.
    b: u32,
    /// How much they belong together, from 0 to 1.
    weight: f64,
}

/// The edges of the graph, each once, by rows.
fn edges(graph: &Neighbors) -> Vec<Edge> {
    let mut directed = Vec::new();
    for (row, found) in graph.iter().enumerate() {
        for (neighbor, weight) in found.iter().zip(weights(found)) {
            let (row, id) = (row as u32, neighbor.id);
            if row != id {
                directed.push(Edge {
                    a: row.min(id),
                    b: row.max(id),
                    weight,
                });
            }
        }
    }
    // An edge that both ends have comes twice. The weights p and q are taken for probabilities that
    // the edge is there; p + q − pq is the one that it is there for either end.
    directed.sort_by_key(|edge| (edge.a, edge.b));
    let mut edges: Vec<Edge> = Vec::with_capacity(directed.len());
    for edge in directed {
        match edges.last_mut() {
            Some(last) if (last.a, last.b) == (edge.a, edge.b) => {
                last.weight += edge.weight - last.weight * edge.weight;
            }
            _ => edges.push(edge),
        }
    }
    edges
}

/// How much each neighbour of a row belongs to it: 1 for the nearest, less for those beyond.
///
/// The weight falls as exp(−(distance − nearest) / scale). The scale is the row's own, such
/// that the weights add up to log₂ k: where images are rare, neighbours may be farther away.
fn weights(row: &[Neighbor]) -> Vec<f64> {
    let Some(nearest) = row.first() else {
        return Vec::new();
    };
    let at = |scale: f64| {
        let gaps = row.iter().map(|found| found.distance - nearest.distance);
        gaps.map(|gap| (-gap / scale).exp()).collect::<Vec<f64>>()
    };
    let wanted = (row.len() as f64).log2();
    // The sum grows with the scale. Double the scale until the sum is enough, then halve what lies
    // between. 64 steps are more than an f64 has digits; where no scale will do (all are as near as
    // the nearest, say), they end with weights of 1 or 0. The first scale is about the largest gap,
    // so that the unit of the distances does not matter.
    let largest = row.iter().map(|found| found.distance - nearest.distance);
    let largest = largest.fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut scale = if largest > 0.0 {
        largest.log2().floor().exp2()
    } else {
        1.0
    };
    for _ in 0..64 {
        if at(scale).iter().sum::<f64>() > wanted {
            high = scale;
        } else {
            low = scale;
        }
        scale = if high.is_finite() {
            (low + high) / 2.0
        } else {
            2.0 * low
        };
    }
    at(scale)
}

/// Moves the points: each edge pulls its ends together, and random points push them away. The steps
/// grow shorter until nothing moves.
fn settle(places: &mut [Place], edges: &[Edge], random: &mut ChaCha8Rng) {
    let heaviest = edges
        .iter()
        .fold(0.0f64, |most, edge| most.max(edge.weight));
    // An edge pulls as often as it weighs: the heaviest in each epoch, one of half its weight in
    // every second one.
    let period = |edge: &Edge| heaviest / edge.weight;
    let mut due: Vec<f64> = edges.iter().map(period).collect();
    for epoch in 0..EPOCHS {
        let step = 1.0 - epoch as f32 / EPOCHS as f32;
        for (edge, due) in edges.iter().zip(&mut due) {
            if *due > (epoch + 1) as f64 {
                continue;
            }
            *due += period(edge);
            for (end, other) in [(edge.a, edge.b), (edge.b, edge.a)] {
                pull(places, end as usize, other as usize, step);
                for _ in 0..PUSHES {
                    let anyone = random.random_range(0..places.len() as u32);
                    push(places, end as usize, anyone as usize, step);
                }
            }
        }
    }
}

/// Moves both ends of an edge towards each other: down the gradient of ln(1 + d²).
fn pull(places: &mut [Place], end: usize, other: usize, step: f32) {
    let gap = Gap::between(places[end], places[other]);
    let pull = gap.times(-2.0 / (1.0 + gap.squared), step);
    places[end].move_by(pull, 1.0);
    places[other].move_by(pull, -1.0);
}

/// Moves a point away from another: down the gradient of −ln(d² / (1 + d²)).
fn push(places: &mut [Place], end: usize, other: usize, step: f32) {
    // From a point to itself the gap is zero, and so is the push.
    let gap = Gap::between(places[end], places[other]);
    // .001 as in umap-learn: two points on one spot are pushed no harder than the longest step.
    let force = 2.0 / ((0.001 + gap.squared) * (1.0 + gap.squared));
    places[end].move_by(gap.times(force, step), 1.0);
}

/// The way from one point to another.
#[derive(Clone, Copy)]
struct Gap {
    x: f32,
    y: f32,
    /// Its length, squared.
    squared: f32,
}

impl Gap {
    #[inline]
    fn between(to: Place, from: Place) -> Self {
        let (x, y) = (to.x - from.x, to.y - from.y);
        Self {
            x,
            y,
            squared: x * x + y * y,
        }
    }

    /// A step along the way, as long as the force says, but never too long.
    #[inline]
    fn times(self, force: f32, step: f32) -> Place {
        let bounded = |value: f32| (force * value).clamp(-LONGEST_STEP, LONGEST_STEP) * step;
        Place {
            x: bounded(self.x),
            y: bounded(self.y),
        }
    }
}

impl Place {
    #[inline]
    fn move_by(&mut self, way: Place, times: f32) {
        self.x += times * way.x;
        self.y += times * way.y;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use crate::index::{BruteForce, BruteForceParams, Build};
    use crate::lab::evaluate::on_threads;
    use crate::lab::neighbourhood::{in_common, knn_graph};

    fn graph_of(rows: &Vectors, k: usize) -> Neighbors {
        let base = Arc::new(rows.clone());
        let index = BruteForce::build(base, BruteForceParams::default()).unwrap();
        knn_graph(&index, rows, k).unwrap()
    }

    fn vectors(dim: usize, values: Vec<f32>) -> Vectors {
        Vectors::from_floats(dim, values).unwrap()
    }

    /// `of_each` points in each of `groups` clouds of 20 dimensions, whose centres are random.
    fn clouds(groups: usize, of_each: usize) -> Vectors {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut values = Vec::new();
        for _ in 0..groups {
            let centre: Vec<f32> = (0..20).map(|_| random.random_range(-4.0..4.0)).collect();
            for _ in 0..of_each {
                let near = |&value: &f32| value + random.random_range(-1.0..1.0);
                values.extend(centre.iter().map(near));
            }
        }
        vectors(20, values)
    }

    /// A closed curve that winds through 12 dimensions, so that its shadow on any plane crosses
    /// itself.
    fn winding(points: usize) -> Vectors {
        let mut values = Vec::new();
        for point in 0..points {
            let turn = std::f32::consts::TAU * point as f32 / points as f32;
            for frequency in 1..=6 {
                let angle = turn * frequency as f32;
                values.extend([angle.sin(), angle.cos()]);
            }
        }
        vectors(12, values)
    }

    /// The first two principal components: the map that needs no neighbours.
    fn principal(rows: &Vectors) -> Vectors {
        let pca = Pca::fit(rows, &PcaOptions::default()).unwrap();
        let projected = pca.project_all(rows, 2);
        vectors(2, projected.iter().map(|&value| value as f32).collect())
    }

    /// Venna & Kaski (2001): 1 if all `k` neighbours on the map are among the `k` nearest in space;
    /// less, the farther from it those are that are not.
    fn trustworthiness(rows: &Vectors, map: &Vectors, k: usize) -> f64 {
        let n = rows.len();
        let order = graph_of(rows, n - 1);
        let mut penalty = 0.0;
        for (ranks, shown) in order.iter().zip(graph_of(map, k).iter()) {
            for near in shown {
                let rank = ranks.iter().position(|found| found.id == near.id).unwrap() + 1;
                penalty += rank.saturating_sub(k) as f64;
            }
        }
        1.0 - 2.0 * penalty / (n as f64 * k as f64 * (2.0 * n as f64 - 3.0 * k as f64 - 1.0))
    }

    #[test]
    fn the_unit_of_the_distances_does_not_matter() {
        let of_unit = |unit: f64| {
            let found = (0..10).map(|id| Neighbor {
                id,
                distance: unit * f64::from(1 + id * id),
            });
            weights(&found.collect::<Vec<_>>())
        };
        let expected = of_unit(1.0);
        // The weights are what they are meant to be: their sum is log₂ k.
        assert!((expected.iter().sum::<f64>() - 10f64.log2()).abs() < 1e-9);
        for unit in [1e-30, 1e30] {
            for (weight, expected) in of_unit(unit).iter().zip(&expected) {
                assert!(
                    (weight - expected).abs() < 1e-9,
                    "{unit}: {weight} {expected}"
                );
            }
        }
    }

    #[test]
    fn groups_that_are_apart_stay_apart() {
        let (groups, of_each) = (12, 50);
        let rows = clouds(groups, of_each);
        let map = map_of_neighbours(&rows, &graph_of(&rows, 10), 0).unwrap();
        for (point, shown) in graph_of(&map, 5).iter().enumerate() {
            for near in shown {
                assert_eq!(near.id as usize / of_each, point / of_each, "point {point}");
            }
        }
    }

    #[test]
    fn neighbours_stay_neighbours_where_a_plane_folds_them() {
        let rows = winding(600);
        let graph = graph_of(&rows, 15);
        let map = map_of_neighbours(&rows, &graph, 0).unwrap();
        let plane = principal(&rows);
        let kept = |map: &Vectors| in_common(&graph, &graph_of(map, 15), 15);
        let trust = |map: &Vectors| trustworthiness(&rows, map, 15);
        assert!(
            kept(&map) > kept(&plane) + 0.2,
            "{} {}",
            kept(&map),
            kept(&plane)
        );
        assert!(
            trust(&map) > trust(&plane) + 0.05,
            "{} {}",
            trust(&map),
            trust(&plane)
        );
        assert!(trust(&map) > 0.97, "{}", trust(&map));
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let rows = clouds(3, 40);
        let graph = graph_of(&rows, 8);
        let map = |seed: u64| map_of_neighbours(&rows, &graph, seed).unwrap().to_floats();
        let alone = on_threads(1, || map(7)).unwrap();
        assert_eq!(alone, on_threads(3, || map(7)).unwrap());
        assert_ne!(alone, map(8));
    }

    #[test]
    fn copies_and_lines_spread_into_the_plane() {
        // Rows all alike, and rows of one dimension: no second component in either.
        let values = [vec![3.0; 40], (0..40).map(|value| value as f32).collect()];
        for values in values {
            let rows = vectors(1, values);
            let map = map_of_neighbours(&rows, &graph_of(&rows, 5), 0).unwrap();
            let heights: Vec<f32> = (0..40).map(|row| map.row_to_floats(row)[1]).collect();
            let highest = heights.iter().copied().fold(f32::MIN, f32::max);
            let lowest = heights.iter().copied().fold(f32::MAX, f32::min);
            assert!(highest - lowest > 0.1, "{lowest} to {highest}");
        }
    }

    #[test]
    fn weights_add_up_to_the_logarithm_of_k() {
        let row = |distances: &[f64]| -> Vec<Neighbor> {
            let ids = distances.iter().zip(0..);
            ids.map(|(&distance, id)| Neighbor { id, distance })
                .collect()
        };
        for distances in [
            vec![1.0, 2.0, 3.0, 4.0],
            vec![0.0, 1e-3, 5.0, 700.0, 1e6],
            (0..15).map(|place| 400.0 + f64::from(place)).collect(),
        ] {
            let weights = weights(&row(&distances));
            assert_eq!(weights[0], 1.0, "the nearest belongs wholly");
            assert!(weights.is_sorted_by(|a, b| a >= b));
            let sum: f64 = weights.iter().sum();
            let wanted = (distances.len() as f64).log2();
            assert!((sum - wanted).abs() < 1e-6, "{distances:?}: {sum}");
        }
        // No scale makes less of neighbours that are all as near.
        assert_eq!(weights(&row(&[2.0, 2.0, 2.0])), [1.0; 3]);
        assert!(weights(&[]).is_empty());
    }

    #[test]
    fn an_edge_of_both_ends_comes_once() {
        // On a line at 0, 1 and 3 with one neighbour each: 0 and 1 have each other, 2 has 1.
        let edges = edges(&graph_of(&vectors(1, vec![0.0, 1.0, 3.0]), 1));
        let edge = |a, b| Edge { a, b, weight: 1.0 };
        assert_eq!(edges, [edge(0, 1), edge(1, 2)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let rows = vectors(1, vec![0.0, 1.0, 3.0]);
        let graph = graph_of(&rows, 1);
        let two = rows.head(2);
        let other_rows = MapError::OtherRows {
            expected: 2,
            received: 3,
        };
        assert_eq!(map_of_neighbours(&two, &graph, 0).unwrap_err(), other_rows);
        let stray: Neighbors = [3, 0, 0]
            .map(|id| vec![Neighbor { id, distance: 1.0 }])
            .into_iter()
            .collect();
        let refused = map_of_neighbours(&rows, &stray, 0).unwrap_err();
        assert!(matches!(
            refused,
            MapError::NoSuchRow {
                row: 0,
                id: 3,
                rows: 3
            }
        ));
        let none = rows.head(0);
        let refused = map_of_neighbours(&none, &Neighbors::default(), 0).unwrap_err();
        assert_eq!(refused, MapError::Pca(PcaError::Empty));
        // Rows without neighbours are pushed by nobody and stay where they start.
        let alone: Neighbors = [vec![], vec![], vec![]].into_iter().collect();
        assert_eq!(map_of_neighbours(&rows, &alone, 0).unwrap().len(), 3);
    }
}
