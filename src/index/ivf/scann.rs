//! ScaNN: a partition, score-aware codes, exact reordering.
//!
//! The naive form is product quantisation by the squared error, as in
//! [`IvfPq`](crate::index::IvfPq): it treats an error in each direction alike. But a search does
//! not. A vector x = c + r in the leaf of centre c has, for a query q, the score
//!
//! ```text
//! ‖q − x‖² = ‖q − c‖² − 2⟨q − c, r⟩ + ‖r‖²
//! ```
//!
//! where only the product is estimated, by the code r̂. Where x is near q, q − c points about
//! the way of r: an error of r̂ along r moves the score, one across it hardly.
//!
//! ```text
//!                       • r̂    an error across r: the score stays
//! c ---------•----------• r ------> q − c
//!            r̂                 an error along r: the score moves
//! ```
//!
//! So codes are made by a loss that counts the error along r η times. Its formula, and how
//! codebooks are trained for it, is told in `product_quantizer::score_aware`; how lists of codes
//! are searched, in `pq_lists`.

use std::sync::Arc;

use super::codes_or_rows::CodesOrRows;
use super::pq_lists::Plan;
use crate::index::ivf::held_out::NEIGHBORS;
use crate::index::parameters::{parameters, positive};
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How a [`Scann`] is built.
    pub struct ScannParams {
        /// Leaves of the partitioning tree, which has one level; 0 for about √n.
        ///
        /// No more than there are vectors are made.
        num_leaves: usize = 0;
        /// How much the error along a vector counts: 0 (plain squared error) to below 1.
        ///
        /// T of the paper: codes are made for queries whose cosine with a vector, both seen from
        /// the leaf's centre, is at least this.
        anisotropic_quantization_threshold: f64 = 0.2;
        /// Seed of components, leaves and codebooks.
        seed: u64 = 0;
    }
}

parameters! {
    /// How a [`Scann`] is searched.
    pub struct ScannSearch {
        /// Leaves that a query searches.
        ///
        /// More, if they hold fewer than k vectors. 0 for what the data need: 16, or as many more
        /// as it takes to find 0.95 of some rows' neighbours. That is measured at build, and
        /// `reorder` is raised to 200 or 300 with it where 100 is not enough.
        num_leaves_to_search: usize = 0, sweep [4, 8, 16, 32, 64, 128, 256];
        /// Vectors ranked by exact distances, at least k.
        reorder: usize = 100, sweep [30, 60, 100, 300];
    }
}

/// ScaNN: vectors are parted among the leaves of a tree and kept as codes whose error is small *in
/// the direction that decides near the top*. A query scores the codes in its `num_leaves_to_search`
/// nearest leaves, 32 at a time by shuffles, and reorders the best `reorder` by exact distances.
/// Euclidean.
///
/// What is coded is the first principal components (ScaNN's *PCA projection*), in blocks of two, at
/// four bits a block. How many there are is chosen by what estimates are worth on rows of the base;
/// where they do not tell neighbours, the leaves hold whole vectors, as in
/// [`IvfPq`](crate::index::IvfPq).
///
/// # What it is bad at
///
/// What [`IvfPq`](crate::index::IvfPq) is bad at, for the two differ only in the loss by which
/// codes are made. The score-aware loss takes longer to train, and it makes the plain squared error
/// larger: the order of vectors far from the query is told worse.
///
/// # Example
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<u8> = (0..4_000u32).map(|i| (i * i % 251) as u8).collect();
/// let base = Arc::new(Vectors::from_bytes(16, values)?);
/// let params = ScannParams { num_leaves: 16, ..Default::default() };
/// let index = Scann::build(Arc::clone(&base), params)?;
///
/// // All leaves, and all 250 vectors reordered: slower, and exact.
/// let all = index.with_search(ScannSearch { num_leaves_to_search: 16, reorder: 250 })?;
/// let exact = BruteForce::build(Arc::clone(&base), BruteForceParams::default())?;
/// assert_eq!(all.query(base.row(42), 10)?, exact.query(base.row(42), 10)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// R. Guo, P. Sun, E. Lindgren, Q. Geng, D. Simcha, F. Chern and S. Kumar, *Accelerating
/// Large-Scale Inference with Anisotropic Vector Quantization*, ICML 2020.
#[derive(Debug, Clone)]
pub struct Scann {
    built: Arc<CodesOrRows>,
    params: ScannParams,
    search: ScannSearch,
}

impl Build for Scann {
    const KEY: &'static str = "scann";
    const NAME: &'static str = "ScaNN";
    const EXACT: bool = false;
    type Params = ScannParams;
    type Search = ScannSearch;

    /// Projects, parts and encodes the vectors.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, mut params: ScannParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let ScannParams {
            num_leaves,
            anisotropic_quantization_threshold: threshold,
            seed,
        } = params;
        // At 1 the weight η would be infinite. NaN is in no range.
        if !(0.0..1.0).contains(&threshold) {
            let (name, expected) = ("anisotropic_quantization_threshold", "0 up to, but not, 1");
            return Err(BuildError::InvalidParameter {
                name,
                received: threshold,
                expected,
            });
        }
        let plan = Plan {
            nlist: num_leaves,
            coding: None,
            nbits: 4,
            threshold,
            keep_vectors: true,
            seed,
        };
        let built = CodesOrRows::build(&base, &plan);
        // What was chosen is what the index and the record show.
        params.num_leaves = built.nlist();
        let search = measured(&built, ScannSearch::default());
        Ok(Self {
            built: Arc::new(built),
            params,
            search,
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `reorder` is zero.
    fn with_search(&self, search: ScannSearch) -> Result<Self, BuildError> {
        positive("reorder", search.reorder)?;
        Ok(Self {
            search: measured(&self.built, search),
            ..self.clone()
        })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let index = Self {
            built: Arc::new(CodesOrRows::from_parts(saved)?),
            params: saved.build_parameters()?,
            search: saved.search_parameters()?,
        };
        Ok(index.with_search(index.search.clone())?)
    }
}

/// The search with what was measured where it is left to the index.
fn measured(built: &CodesOrRows, mut search: ScannSearch) -> ScannSearch {
    if search.num_leaves_to_search == 0 {
        search.num_leaves_to_search = built.usual_probes();
        search.reorder = search.reorder.max(built.usual_refine() * NEIGHBORS);
    }
    search
}

impl Index for Scann {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.params.values(), self.search.values()].concat()
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

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let ScannSearch {
            num_leaves_to_search,
            reorder,
        } = self.search;
        self.built.search(query, k, num_leaves_to_search, reorder)
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        self.built.add_parts(parts);
        parts.describe::<Self>(&self.params, &self.search);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, recall, rounded};
    use crate::index::{BruteForce, BruteForceParams, Query};

    #[test]
    fn all_reordered_is_exhaustive_search() {
        let floats = clustered(500, 20, 1);
        for base in [rounded(&floats), floats] {
            let (base, queries) = (Arc::new(base), clustered(30, 20, 2));
            let scann = Scann::build(
                base.clone(),
                ScannParams {
                    num_leaves: 9,
                    ..Default::default()
                },
            )
            .unwrap();
            let exact = BruteForce::build(base, BruteForceParams::default()).unwrap();
            let all = scann
                .with_search(ScannSearch {
                    num_leaves_to_search: 9,
                    reorder: 500,
                })
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
            ScannParams {
                num_leaves: 50,
                ..Default::default()
            },
        )
        .unwrap();
        let of = |leaves, reorder| {
            recall(
                &scann
                    .with_search(ScannSearch {
                        num_leaves_to_search: leaves,
                        reorder,
                    })
                    .unwrap(),
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
            Scann::build(base.clone(), params)
        };
        let error = |name, received, expected| BuildError::InvalidParameter {
            name,
            received,
            expected,
        };
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
        let zero = scann.with_search(ScannSearch::default()).unwrap();
        assert_eq!(zero.params(), scann.params());
        assert_eq!(
            scann
                .with_search(ScannSearch {
                    num_leaves_to_search: 1,
                    reorder: 0
                })
                .unwrap_err(),
            error("reorder", 0.0, "at least 1")
        );
    }
}
