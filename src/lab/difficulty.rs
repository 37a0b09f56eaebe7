//! How hard data are to search: the intrinsic dimension and the contrast of distances.

use crate::neighbor::Neighbors;

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
