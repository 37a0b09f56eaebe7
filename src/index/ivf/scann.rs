//! ScaNN: a partition, score-aware codes, exact reordering.

use std::sync::Arc;

use super::pq_lists::{Plan, PqLists};
use crate::index::ivf::inverted_lists::positive;
use crate::index::ivf::product_quantizer::{Loss, Subspaces};
use crate::index::{BuildError, Index, QueryError, check_base, check_query};
use crate::neighbor::Neighbor;
use crate::vectors::Vectors;

/// How a [`Scann`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannParams {
    /// Leaves of the partitioning tree, which has one level; no more than there are vectors are made.
    pub num_leaves: usize,
    /// T: codes are made for queries whose cosine with a vector, both seen from the leaf's centre, is at least this; 0 up to, but not, 1. More weighs the
    /// error along the vector more; 0 gives the plain squared error.
    pub anisotropic_quantization_threshold: f64,
    /// Decides the sample of the principal components and the k-means of leaves and codebooks.
    pub seed: u64,
}

impl Default for ScannParams {
    fn default() -> Self {
        Self {
            num_leaves: 256,
            anisotropic_quantization_threshold: 0.2,
            seed: 0,
        }
    }
}

/// The components that are coded, at most, and those of a block, which has a code of four bits: ScaNN's `score_ah(2)`.
const COMPONENTS: usize = 128;
const DIMENSIONS_PER_BLOCK: usize = 2;

/// ScaNN (Guo et al. 2020): vectors are parted among the leaves of a tree and kept as codes whose error is small *in the direction that decides
/// near the top*; a query scores the codes in its `num_leaves_to_search` nearest leaves, 32 at a time by shuffles, and reorders the best
/// `reorder` by exact distances. Euclidean.
///
/// A score is ‖q − c‖² − 2⟨q − c, r̂⟩ + ‖r‖²: the product of what the query and the vector x = c + r are from the leaf's centre c, and a length that is
/// known. Where x is near q, q − c points the way of r: an error of r̂ along r counts, one across it hardly. The score-aware
/// (*anisotropic*) loss weighs them so.
///
/// What is coded is the first 128 principal components (ScaNN's *PCA projection*), in blocks of two.
#[derive(Debug, Clone)]
pub struct Scann {
    built: Arc<PqLists>,
    params: ScannParams,
    num_leaves_to_search: usize,
    reorder: usize,
}

impl Scann {
    /// Projects, parts and encodes the vectors. 16 leaves are searched and 100 vectors reordered until
    /// [`with_search`](Self::with_search) says otherwise.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    pub fn build(base: Arc<Vectors>, params: &ScannParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let ScannParams {
            num_leaves,
            anisotropic_quantization_threshold: threshold,
            seed,
        } = *params;
        positive("num_leaves", num_leaves)?;
        if !(0.0..1.0).contains(&threshold) {
            let (name, expected) = ("anisotropic_quantization_threshold", "0 up to, but not, 1");
            return Err(BuildError::InvalidParameter {
                name,
                received: threshold,
                expected,
            });
        }
        let components = COMPONENTS.min(base.dim());
        let subspaces = Subspaces::deal(components, components.div_ceil(DIMENSIONS_PER_BLOCK));
        let loss = Loss::score_aware(threshold, components);
        let plan = Plan {
            nlist: num_leaves,
            subspaces,
            nbits: 4,
            loss,
            keep_vectors: true,
            seed,
        };
        let built = Arc::new(PqLists::build(&base, &plan));
        Ok(Self {
            built,
            params: params.clone(),
            num_leaves_to_search: 16,
            reorder: 100,
        })
    }

    /// The same leaves, `num_leaves_to_search` of them searched by a query (more, if they hold fewer than k), and the best `reorder` (k, if that is more)
    /// reordered by exact distances.
    ///
    /// # Errors
    /// If one of them is zero.
    pub fn with_search(
        &self,
        num_leaves_to_search: usize,
        reorder: usize,
    ) -> Result<Self, BuildError> {
        let num_leaves_to_search = positive("num_leaves_to_search", num_leaves_to_search)?;
        Ok(Self {
            num_leaves_to_search,
            reorder: positive("reorder", reorder)?,
            ..self.clone()
        })
    }
}

impl Index for Scann {
    fn name(&self) -> &'static str {
        "ScaNN"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let params = &self.params;
        vec![
            ("num_leaves", params.num_leaves as f64),
            (
                "anisotropic_quantization_threshold",
                params.anisotropic_quantization_threshold,
            ),
            ("seed", params.seed as f64),
            ("num_leaves_to_search", self.num_leaves_to_search as f64),
            ("reorder", self.reorder as f64),
        ]
    }

    fn len(&self) -> usize {
        self.built.len()
    }

    fn dim(&self) -> usize {
        self.built.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.built.memory_bytes()
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        Ok(self
            .built
            .search(query, k, self.num_leaves_to_search, self.reorder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Metric;
    use crate::index::BruteForce;
    use crate::index::support::test_data::{clustered, recall, rounded};

    #[test]
    fn all_reordered_is_exhaustive_search() {
        let floats = clustered(500, 20, 1);
        for base in [rounded(&floats), floats] {
            let (base, queries) = (Arc::new(base), clustered(30, 20, 2));
            let scann = Scann::build(
                base.clone(),
                &ScannParams {
                    num_leaves: 9,
                    ..Default::default()
                },
            )
            .unwrap();
            let exact = BruteForce::build(base, Metric::Euclidean).unwrap();
            let all = scann
                .with_search(9, 500)
                .unwrap()
                .query_batch(&queries, 7)
                .unwrap();
            assert_eq!(all, exact.query_batch(&queries, 7).unwrap());
        }
    }

    #[test]
    fn leaves_and_reordering_buy_recall() {
        let (base, queries) = (Arc::new(clustered(5_000, 40, 1)), clustered(100, 40, 2));
        let scann = Scann::build(
            base.clone(),
            &ScannParams {
                num_leaves: 50,
                ..Default::default()
            },
        )
        .unwrap();
        let of = |leaves, reorder| {
            recall(
                &scann.with_search(leaves, reorder).unwrap(),
                &base,
                &queries,
                10,
            )
        };
        let recalls = [of(1, 10), of(20, 10), of(20, 60)];
        assert!(
            recalls[0] + 0.05 < recalls[1] && recalls[1] + 0.05 < recalls[2] && recalls[2] > 0.95,
            "{recalls:?}"
        );
    }

    #[test]
    fn refuses_parameters_outside_their_range() {
        let base = Arc::new(clustered(10, 3, 1));
        let with = |num_leaves, anisotropic_quantization_threshold| {
            let params = ScannParams {
                num_leaves,
                anisotropic_quantization_threshold,
                seed: 0,
            };
            Scann::build(base.clone(), &params)
        };
        let error = |name, received, expected| BuildError::InvalidParameter {
            name,
            received,
            expected,
        };
        assert_eq!(
            with(0, 0.2).unwrap_err(),
            error("num_leaves", 0.0, "at least 1")
        );
        let threshold = |received| {
            error(
                "anisotropic_quantization_threshold",
                received,
                "0 up to, but not, 1",
            )
        };
        assert_eq!(with(1, 1.0).unwrap_err(), threshold(1.0));
        assert_eq!(with(1, -0.1).unwrap_err(), threshold(-0.1));
        assert!(with(1, f64::NAN).is_err());
        let scann = with(99, 0.9).unwrap();
        assert_eq!(scann.query(&[0.0; 3], 10).unwrap().len(), 10);
        assert_eq!(
            scann.with_search(0, 1).unwrap_err(),
            error("num_leaves_to_search", 0.0, "at least 1")
        );
        assert_eq!(
            scann.with_search(1, 0).unwrap_err(),
            error("reorder", 0.0, "at least 1")
        );
    }
}
