//! Inverted file with product-quantised residuals: FAISS's `IVFn,PQm`.
//!
//! The naive form is [`IvfFlat`](crate::index::IvfFlat)'s scan of a list: a vector of 784 bytes is
//! read and compared for each candidate. The idea is to compare codes of 32 bytes first, and to
//! read only the vectors that these bring up:
//!
//! ```text
//! for each of the nprobe nearest lists {
//!     for code in list { candidates.push(table sum of code) }      32 codes at a time
//! }
//! for x in the refine · k least candidates { top.push(x, ‖q − x‖²) }
//! ```
//!
//! How estimates come from codes, why neighbours may be missed and how all lies in memory is told
//! in `pq_lists`; how codes are made, in `product_quantizer`; how 32 are scored at a time, in
//! `simd::pq_scan`.

use std::sync::Arc;

use super::codes_or_rows::CodesOrRows;
use super::pq_lists::Plan;
use crate::index::ivf::coding::Coding;
use crate::index::ivf::held_out::NEIGHBORS;
use crate::index::parameters::parameters;
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, Parameters, check_base};
use crate::simd::pq_scan::MOST_SUBQUANTIZERS;
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`IvfPq`] is built.
    pub struct IvfPqParams {
        /// Sub-quantisers, at most 257; 0 for a number that suits the data.
        ///
        /// It is chosen by what estimates are worth on rows of the base: see `coding`. No more than
        /// there are dimensions are made.
        m: usize = 0;
        /// Inverted lists: k-means clusters; 0 for the power of two nearest to √n.
        ///
        /// No more than there are vectors are made.
        nlist: usize = 0;
        /// Bits of a sub-quantiser's code: 4 or 8.
        ///
        /// A vector's code takes `m` · `nbits` / 8 bytes.
        nbits: usize = 4;
        /// Whether vectors are kept; if not, distances are estimates and refine must be 0.
        ///
        /// Kept vectors rank what the codes bring up by true distances.
        keep_vectors: bool = true;
        /// Seed of components, lists and codebooks.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`IvfPq`] is searched.
    pub struct IvfPqSearch {
        /// Lists that a query searches.
        ///
        /// More, if they hold fewer than k vectors. 0 for what the data need: 16, or as many more
        /// as it takes to find 0.95 of some rows' neighbours. That is measured at build, and
        /// `refine` is raised to 20 or 30 with it where 10 is not enough.
        nprobe: usize = 0, sweep [4, 8, 16, 32, 64, 128, 256];
        /// Candidates ranked by their vectors, times k or 10, whichever is more.
        ///
        /// With 0 the k that seem nearest by their codes are returned.
        refine: usize = 10, sweep [0, 4, 10, 30];
    }
}

/// Inverted file with product quantisation (*IVFADC*): k-means parts the vectors into `nlist`
/// lists, each vector is kept as a short code of its difference to the list's centroid, and a query
/// is compared with the codes in the `nprobe` nearest lists. The `refine` · k that seem nearest
/// are then ranked by their vectors. Euclidean.
///
/// The vectors are first turned to their leading principal components, dealt to the sub-quantisers
/// so that each carries as much (parametric OPQ). How many components and sub-quantisers there are
/// is chosen when the index is built, by what a query would cost. On 60,000 images of Fashion-MNIST
/// FAISS would write the choice `OPQ64_128,IVF256,PQ64x4fs,RFlat`. The length of what the
/// components leave out is part of the estimate.
///
/// What the estimates are worth is measured, too. Where thirty times as many candidates do not hold
/// 0.95 of some rows' neighbours and no `m` was asked for, there are no codes: the lists hold whole
/// vectors, as those of [`IvfFlat`](crate::index::IvfFlat), and `m` is 0 in [`Index::params`].
///
/// # Without the vectors
///
/// With `keep_vectors` false the index takes `m` · `nbits` / 8 + 6 bytes a vector and what the
/// map, the centroids and the codebooks take. The distances that it returns are then *estimates*,
/// in ascending order: [`Index::returns_estimates`] says so.
///
/// # What it is bad at
///
/// Small data: the map, the codebooks and the tables of a query cost the same for a thousand
/// vectors as for a million. Vectors at nearly equal distances: a code does not tell them apart, so
/// that without refinement recall stays low whatever `nprobe` is. Data without clusters, such as
/// noise of many dimensions: the nearest lists say little about where the neighbours are, and the
/// default search takes nearly all of them. And data of many scales at once, where codes are given
/// up and a query costs what it costs in [`IvfFlat`](crate::index::IvfFlat); without the vectors
/// its estimates are then worth little.
///
/// # Example
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<u8> = (0..4_000u32).map(|i| (i * i % 251) as u8).collect();
/// let base = Arc::new(Vectors::from_bytes(16, values)?);
/// let params = IvfPqParams { nlist: 16, m: 8, ..Default::default() };
/// let index = IvfPq::build(Arc::clone(&base), params)?;
///
/// // The 20 · k that seem nearest in all lists, ranked by their vectors.
/// let careful = index.with_search(IvfPqSearch { nprobe: 16, refine: 20 })?;
/// let nearest = careful.query(base.row(42), 10)?;
/// assert_eq!((nearest[0].id, nearest[0].distance), (42, 0.0));
/// assert!(!careful.returns_estimates());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// H. Jégou, M. Douze and C. Schmid, *Product Quantization for Nearest Neighbor Search*, IEEE
/// TPAMI 2011; T. Ge, K. He, Q. Ke and J. Sun, *Optimized Product Quantization*, CVPR 2013; F.
/// André, A.-M. Kermarrec and N. Le Scouarnec, *Cache Locality Is Not Enough: High-Performance
/// Nearest Neighbor Search with Product Quantization Fast Scan*, VLDB 2015.
#[derive(Debug, Clone)]
pub struct IvfPq {
    built: Arc<CodesOrRows>,
    params: IvfPqParams,
    search: IvfPqSearch,
}

impl Build for IvfPq {
    const KEY: &'static str = "ivf_pq";
    const NAME: &'static str = "IVF PQ";
    const EXACT: bool = false;
    type Params = IvfPqParams;
    type Search = IvfPqSearch;

    /// Projects, clusters and encodes the vectors. Without the vectors `refine` is 0 from the
    /// beginning.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    fn build(base: Arc<Vectors>, mut params: IvfPqParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let IvfPqParams {
            nlist,
            m,
            nbits,
            keep_vectors,
            seed,
        } = params;
        // `Plan` is not checked again: `PqLists` relies on these ranges. More sums of eight bits
        // could overflow 16 bits in the scan.
        if m > MOST_SUBQUANTIZERS {
            return Err(BuildError::InvalidParameter {
                name: "m",
                received: m as f64,
                expected: "0 to 257",
            });
        }
        if ![4, 8].contains(&nbits) {
            return Err(BuildError::InvalidParameter {
                name: "nbits",
                received: nbits as f64,
                expected: "4 or 8",
            });
        }
        // Two bits a component: at four bits a sub-quantiser codes two of them, at eight bits four.
        let coding = (m > 0).then(|| Coding {
            components: (m * nbits / 2).min(base.dim()),
            subquantizers: m,
        });
        let plan = Plan {
            nlist,
            coding,
            nbits,
            threshold: 0.0,
            keep_vectors,
            seed,
        };
        let built = CodesOrRows::build(&base, &plan);
        // What was chosen is what the index and the record show.
        params.nlist = built.nlist();
        params.m = built.subquantizers();
        // The default refines by vectors, which are not there in this case.
        let mut search = IvfPqSearch::default();
        if !keep_vectors {
            search.refine = 0;
        }
        let search = measured(&built, search);
        Ok(Self {
            built: Arc::new(built),
            params,
            search,
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If candidates are to be ranked by vectors that were not kept.
    fn with_search(&self, search: IvfPqSearch) -> Result<Self, BuildError> {
        if search.refine > 0 && !self.params.keep_vectors {
            return Err(BuildError::InvalidParameter {
                name: "refine",
                received: search.refine as f64,
                expected: "0, as the vectors were not kept",
            });
        }
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
fn measured(built: &CodesOrRows, mut search: IvfPqSearch) -> IvfPqSearch {
    if search.nprobe == 0 {
        search.nprobe = built.usual_probes();
        if search.refine > 0 {
            search.refine = search.refine.max(built.usual_refine());
        }
    }
    search
}

impl Index for IvfPq {
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

    fn returns_estimates(&self) -> bool {
        !self.params.keep_vectors
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let IvfPqSearch { nprobe, refine } = self.search;
        // With `refine` = 0 this asks for no candidates, and `PqLists` takes k.
        // So few candidates as for k = 1 would miss a neighbour that few more bring up.
        let candidates = k.max(NEIGHBORS).saturating_mul(refine);
        self.built.search(query, k, nprobe, candidates)
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
    fn all_candidates_ranked_is_exhaustive_search() {
        let floats = clustered(500, 20, 1);
        for base in [rounded(&floats), floats] {
            let (base, queries) = (Arc::new(base), clustered(30, 20, 2));
            let exact = BruteForce::build(base.clone(), BruteForceParams::default())
                .unwrap()
                .query_batch(&queries, 7)
                .unwrap();
            for nbits in [4, 8] {
                let params = IvfPqParams {
                    nlist: 9,
                    m: 5,
                    nbits,
                    ..Default::default()
                };
                let ivf = IvfPq::build(base.clone(), params).unwrap();
                let all = ivf
                    .with_search(IvfPqSearch {
                        nprobe: 1_000,
                        refine: usize::MAX,
                    })
                    .unwrap();
                assert_eq!(all.query_batch(&queries, 7).unwrap(), exact);
            }
        }
    }

    #[test]
    fn candidates_and_code_length_buy_recall() {
        let (base, queries) = (Arc::new(clustered(5_000, 40, 1)), clustered(100, 40, 2));
        let build = |m, nbits| {
            let params = IvfPqParams {
                nlist: 50,
                m,
                nbits,
                ..Default::default()
            };
            IvfPq::build(base.clone(), params.clone()).unwrap()
        };
        let of = |ivf: &IvfPq, refine| {
            recall(
                &ivf.with_search(IvfPqSearch { nprobe: 20, refine }).unwrap(),
                &base,
                &queries,
                10,
            )
        };
        let (short, long) = (build(4, 4), build(20, 4));
        assert!(
            of(&short, 0) + 0.1 < of(&long, 0),
            "{} {}",
            of(&short, 0),
            of(&long, 0)
        );
        assert!(
            of(&long, 0) + 0.05 < of(&long, 5) && of(&long, 5) > 0.95,
            "{} {}",
            of(&long, 0),
            of(&long, 5)
        );
        assert!(
            of(&build(4, 8), 0) > of(&short, 0) + 0.1,
            "{} {}",
            of(&build(4, 8), 0),
            of(&short, 0)
        );
    }

    #[test]
    fn without_vectors_it_is_small_and_estimates() {
        let (base, queries) = (Arc::new(clustered(5_000, 40, 1)), clustered(50, 40, 2));
        let params = IvfPqParams {
            nlist: 50,
            m: 20,
            keep_vectors: false,
            ..Default::default()
        };
        let small = IvfPq::build(base.clone(), params.clone()).unwrap();
        let whole = IvfPq::build(
            base.clone(),
            IvfPqParams {
                keep_vectors: true,
                ..params.clone()
            },
        )
        .unwrap();
        assert_eq!(
            whole.memory_bytes() - small.memory_bytes(),
            base.memory_bytes()
        );
        // Codes, biases and ids; blocks of 32 leave the last one partly empty.
        let CodesOrRows::Codes(codes) = &*small.built else {
            panic!("codes tell clusters")
        };
        assert!(codes.vector_bytes() <= 5_000 * (10 + 6) + 32 * 10);
        let whole = whole
            .with_search(IvfPqSearch {
                nprobe: 16,
                refine: 0,
            })
            .unwrap();
        let mut errors = Vec::new();
        for query in (0..queries.len()).map(|row| queries.row_to_floats(row)) {
            let (found, truth) = (
                small.query(&query, 10).unwrap(),
                whole.query(&query, 10).unwrap(),
            );
            errors.extend(found.iter().map(|neighbor| {
                let same = truth
                    .iter()
                    .find(|other| other.id == neighbor.id)
                    .expect("the same candidates");
                (neighbor.distance / same.distance - 1.0).abs()
            }));
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(errors.len() == 500 && mean < 0.2, "{mean}");
        let refused = BuildError::InvalidParameter {
            name: "refine",
            received: 2.0,
            expected: "0, as the vectors were not kept",
        };
        assert_eq!(
            small
                .with_search(IvfPqSearch {
                    nprobe: 3,
                    refine: 2
                })
                .unwrap_err(),
            refused
        );
    }

    #[test]
    fn refuses_parameters_outside_their_range() {
        let base = Arc::new(clustered(10, 3, 1));
        let with = |nlist, m, nbits| {
            IvfPq::build(
                base.clone(),
                IvfPqParams {
                    nlist,
                    m,
                    nbits,
                    ..Default::default()
                },
            )
        };
        let error = |name, received, expected| BuildError::InvalidParameter {
            name,
            received,
            expected,
        };
        assert_eq!(with(1, 258, 4).unwrap_err(), error("m", 258.0, "0 to 257"));
        assert_eq!(with(1, 1, 5).unwrap_err(), error("nbits", 5.0, "4 or 8"));
        let ivf = with(99, 257, 8).unwrap();
        assert_eq!(ivf.query(&[0.0; 3], 10).unwrap().len(), 10);
        let zero = ivf.with_search(IvfPqSearch::default()).unwrap();
        assert_eq!(zero.params(), ivf.params());
    }
}
