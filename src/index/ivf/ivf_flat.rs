//! Inverted file with whole vectors: FAISS's `IVFn,Flat`.
//!
//! The naive form compares a query q with all n vectors:
//!
//! ```text
//! for x in base { top.push(x, ‖q − x‖²) }                          n distances
//! ```
//!
//! The idea: part the vectors among `nlist` lists by k-means, and look only where neighbours are
//! likely.
//!
//! ```text
//! for c in centroids { ‖q − c‖² }                                  nlist distances
//! for each of the nprobe nearest lists {
//!     for x in list { top.push(x, ‖q − x‖²) }              about n · nprobe / nlist
//! }
//! ```
//!
//! With lists of equal length a query costs nlist + n · nprobe / nlist distances, which is least
//! for nlist = √(n · nprobe). For n = 60,000 and nprobe = 1 that is about 245.
//!
//! A neighbour is missed if its list is not among the `nprobe` nearest. What is returned has its
//! true distance.
//!
//! The vectors are kept in the order of the lists (see [`InvertedLists`]), so that a list is one
//! run of memory that the machine reads ahead.

use std::sync::Arc;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::InvertedLists;
use crate::index::parameters::{parameters, positive};
use crate::index::{Build, BuildError, Found, Index, Parameters, Visits, check_base};
use crate::neighbor::TopK;
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`IvfFlat`] is built.
    pub struct IvfFlatParams {
        /// Inverted lists: k-means clusters.
        ///
        /// No more than there are vectors are made.
        nlist: usize = 256;
        /// Seed of the k-means.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`IvfFlat`] is searched.
    pub struct IvfFlatSearch {
        /// Lists that a query searches.
        ///
        /// All, if there are not so many; more, if they hold fewer than k vectors.
        nprobe: usize = 8, sweep [1, 2, 3, 4, 6, 8, 12, 16, 32, 64];
    }
}

/// Inverted file (*IVF*): k-means parts the vectors into `nlist` lists, and a query is compared
/// with all vectors of the `nprobe` lists whose centroids are nearest. Euclidean.
///
/// # What it is bad at
///
/// A list that is searched is searched whole: each of its vectors costs a distance of all d
/// dimensions, where [`IvfPq`](crate::index::IvfPq) reads a short code. Recall near 1 needs many
/// lists, for the last neighbours lie scattered among them. And where the data do not form
/// clusters, the nearest lists say little about where the neighbours are.
///
/// # Example
///
/// ```
/// use fashion_knn::prelude::*;
///
/// let values: Vec<u8> = (0..4_000u32).map(|i| (i * i % 251) as u8).collect();
/// let base = Arc::new(Vectors::from_bytes(16, values)?);
/// let params = IvfFlatParams { nlist: 16, ..Default::default() };
/// let index = IvfFlat::build(Arc::clone(&base), params)?;
///
/// let nearest = index.query(base.row(42), 10)?;
/// assert_eq!((nearest[0].id, nearest[0].distance), (42, 0.0));
///
/// // All lists: slower, and exact.
/// let all = index.with_search(IvfFlatSearch { nprobe: 16 })?;
/// let exact = BruteForce::build(Arc::clone(&base), BruteForceParams::default())?;
/// assert_eq!(all.query(base.row(42), 10)?, exact.query(base.row(42), 10)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// J. Sivic and A. Zisserman, *Video Google: A Text Retrieval Approach to Object Matching in
/// Videos*, ICCV 2003; H. Jégou, R. Tavenard, M. Douze and L. Amsaleg, *Searching in One Billion
/// Vectors: Re-rank with Source Coding*, ICASSP 2011.
#[derive(Debug, Clone)]
pub struct IvfFlat {
    built: Arc<Built>,
    search: IvfFlatSearch,
}

#[derive(Debug)]
struct Built {
    params: IvfFlatParams,
    lists: InvertedLists,
    /// The vectors in the order of the lists.
    rows: Vectors,
}

impl Build for IvfFlat {
    const KEY: &'static str = "ivf_flat";
    const NAME: &'static str = "IVF Flat";
    const EXACT: bool = false;
    type Params = IvfFlatParams;
    type Search = IvfFlatSearch;

    /// Clusters the vectors and copies them in the order of the lists.
    ///
    /// # Errors
    /// If `base` is empty or `nlist` is zero.
    fn build(base: Arc<Vectors>, params: IvfFlatParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let nlist = positive("nlist", params.nlist)?;
        let lists = InvertedLists::train(&base, nlist, params.seed);
        let rows = lists.in_list_order(&base);
        let built = Built {
            params,
            lists,
            rows,
        };
        Ok(Self {
            built: Arc::new(built),
            search: IvfFlatSearch::default(),
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// If `nprobe` is zero.
    fn with_search(&self, search: IvfFlatSearch) -> Result<Self, BuildError> {
        positive("nprobe", search.nprobe)?;
        let built = Arc::clone(&self.built);
        Ok(Self { built, search })
    }
}

impl Index for IvfFlat {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        [self.built.params.values(), self.search.values()].concat()
    }

    fn len(&self) -> usize {
        self.built.rows.len()
    }

    fn dim(&self) -> usize {
        self.built.rows.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.built.lists.memory_bytes() + self.built.rows.memory_bytes()
    }

    fn search(&self, query: Row<'_>, k: usize) -> Found {
        let Built { lists, rows, .. } = &*self.built;
        let k = k.min(rows.len());
        let nprobe = self.search.nprobe;
        let mut scan = Scan {
            lists,
            ranker: Ranker::new(rows, Metric::Euclidean, query),
            top: TopK::new(k),
            visits: Visits::default(),
        };
        let query = query.to_floats();
        for (_, list) in lists.nearest(&query, nprobe) {
            scan.list(list as usize);
        }
        // Lists of few vectors: the next ones, until there are k.
        if scan.top.len() < k {
            // This is rare, so the lists are sorted again, all of them this time.
            let all = lists.nearest(&query, lists.nlist());
            for (_, list) in all.into_iter().skip(nprobe) {
                if scan.top.len() >= k {
                    break;
                }
                scan.list(list as usize);
            }
        }
        Found {
            candidates: scan.top.into_candidates(),
            visits: scan.visits,
        }
    }
}

/// One query on its way through the lists.
struct Scan<'a> {
    lists: &'a InvertedLists,
    ranker: Ranker<'a>,
    top: TopK,
    visits: Visits,
}

impl Scan<'_> {
    /// Compares the query with all vectors of a list.
    #[inline]
    fn list(&mut self, list: usize) {
        let positions = self.lists.list(list);
        self.visits.leaves += 1;
        self.visits.distances += positions.len();
        // All of each row, without a bound before it: rows lie one after the other, and the machine
        // reads ahead.
        for position in positions {
            let id = self.lists.ids()[position];
            self.top.push(id, self.ranker.reduced(position));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, recall, rounded};
    use crate::index::{BruteForce, BruteForceParams, Query};

    #[test]
    fn all_lists_probed_is_exhaustive_search() {
        let floats = clustered(500, 20, 1);
        for base in [rounded(&floats), floats] {
            let (base, queries) = (Arc::new(base), clustered(30, 20, 2));
            let ivf = IvfFlat::build(base.clone(), IvfFlatParams { nlist: 9, seed: 3 }).unwrap();
            let exact = BruteForce::build(base, BruteForceParams::default()).unwrap();
            let all = ivf
                .with_search(IvfFlatSearch { nprobe: 1_000 })
                .unwrap()
                .query_batch(&queries, 7)
                .unwrap();
            assert_eq!(all, exact.query_batch(&queries, 7).unwrap());
        }
    }

    #[test]
    fn few_lists_find_most() {
        let (base, queries) = (Arc::new(clustered(5_000, 20, 1)), clustered(100, 20, 2));
        let ivf = IvfFlat::build(base.clone(), IvfFlatParams { nlist: 50, seed: 3 }).unwrap();
        let recalls = [1, 4, 12].map(|nprobe| {
            recall(
                &ivf.with_search(IvfFlatSearch { nprobe }).unwrap(),
                &base,
                &queries,
                10,
            )
        });
        assert!(
            recalls[0] > 0.5 && recalls[1] > 0.9 && recalls[2] > 0.99,
            "{recalls:?}"
        );
    }

    #[test]
    fn refuses_zero_lists_and_zero_probes() {
        let base = Arc::new(clustered(10, 3, 1));
        let error = |name| BuildError::InvalidParameter {
            name,
            received: 0.0,
            expected: "at least 1",
        };
        let none = IvfFlat::build(base.clone(), IvfFlatParams { nlist: 0, seed: 0 });
        assert_eq!(none.unwrap_err(), error("nlist"));
        let ivf = IvfFlat::build(base, IvfFlatParams { nlist: 99, seed: 0 }).unwrap();
        assert_eq!(ivf.query(&[0.0; 3], 10).unwrap().len(), 10);
        assert_eq!(
            ivf.with_search(IvfFlatSearch { nprobe: 0 }).unwrap_err(),
            error("nprobe")
        );
    }
}
