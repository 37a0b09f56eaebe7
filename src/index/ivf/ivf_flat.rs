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
//! for nlist = √(n · nprobe): 4 · √n where 16 lists are searched. So many are the default for
//! floats. Of bytes half as many are made, for a centroid, in floats, is read four times as long.
//!
//! A neighbour is missed if its list is not among the `nprobe` nearest. What is returned has its
//! true distance.
//!
//! The vectors are kept in the order of the lists (see [`InvertedLists`]), so that a list is one
//! run of memory that the machine reads ahead.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::distance::{Metric, QueryForm, Ranker};
use crate::index::ivf::held_out::HeldOut;
use crate::index::ivf::inverted_lists::InvertedLists;
use crate::index::parameters::parameters;
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, BuildError, Found, Index, Parameters, Visits, check_base};
use crate::neighbor::{Candidate, TopK};
use crate::simd::pairwise::{UNDERFLOW, relative_error, squared_euclidean_f32_rows};
use crate::vectors::{Row, Vectors};

parameters! {
    /// How an [`IvfFlat`] is built.
    pub struct IvfFlatParams {
        /// Inverted lists: k-means clusters; 0 for a number that suits the number of vectors.
        ///
        /// That is 4 · √n of floats and 2 · √n of bytes, but 39 vectors a list at least. No
        /// more than there are vectors are made.
        nlist: usize = 0;
        /// Seed of the k-means.
        seed: u64 = 0;
    }
}

parameters! {
    /// How an [`IvfFlat`] is searched.
    pub struct IvfFlatSearch {
        /// Lists that a query searches.
        ///
        /// All, if there are not so many; more, if they hold fewer than k vectors. 0 for 16, or as
        /// many more as it takes to find 0.95 of some rows' neighbours: that is measured at build.
        nprobe: usize = 0, sweep [1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 256];
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
/// clusters, the nearest lists say little about where the neighbours are: the default search then
/// takes a third of all lists, or more.
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
    /// The `nprobe` that 0 stands for.
    usual_probes: usize,
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
    /// If `base` is empty.
    fn build(base: Arc<Vectors>, mut params: IvfFlatParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let lists = InvertedLists::train(&base, params.nlist, params.seed);
        // What was chosen is what the index and the record show.
        params.nlist = lists.nlist();
        let rows = lists.in_list_order(&base);
        rows.in_huge_pages();
        let order = |id: usize| lists.nearest(&base.row(id).to_floats(), lists.nlist());
        let usual_probes = HeldOut::draw(&base, params.seed).probes(&lists, order);
        let built = Built {
            params,
            usual_probes,
            lists,
            rows,
        };
        Ok(Self {
            built: Arc::new(built),
            search: IvfFlatSearch {
                nprobe: usual_probes,
            },
        })
    }

    /// Free of cost.
    ///
    /// # Errors
    /// None.
    fn with_search(&self, mut search: IvfFlatSearch) -> Result<Self, BuildError> {
        if search.nprobe == 0 {
            search.nprobe = self.usual_probes();
        }
        let built = Arc::clone(&self.built);
        Ok(Self { built, search })
    }

    fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let built = Built {
            params: saved.build_parameters()?,
            usual_probes: saved.take("usual_probes")?,
            lists: saved.take("lists")?,
            rows: saved.take("rows")?,
        };
        built.lists.check(built.rows.len(), built.rows.dim())?;
        Ok(Self {
            built: Arc::new(built),
            search: saved.search_parameters()?,
        })
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
        self.search_lists(query, k, self.search.nprobe)
    }

    fn search_batch(&self, queries: &Vectors, k: usize) -> Vec<Vec<Candidate>> {
        let nprobe = self.search.nprobe;
        let lists = &self.built.lists;
        if !lists.few_of_many(nprobe) {
            let search = |row| self.search(queries.row(row), k).candidates;
            return (0..queries.len()).into_par_iter().map(search).collect();
        }
        let mut found = Vec::with_capacity(queries.len());
        for start in (0..queries.len()).step_by(QUERIES_AT_ONCE) {
            let rows = start..queries.len().min(start + QUERIES_AT_ONCE);
            let queries = queries.select(&rows.collect::<Vec<_>>());
            let queries = queries.expect("rows of the queries");
            let nearest = lists.nearest_of_each(&queries, nprobe);
            let search = |(row, nearest): (usize, &Vec<u32>)| {
                self.search_these(queries.row(row), k, nearest).candidates
            };
            found.par_extend(nearest.par_iter().enumerate().map(search));
        }
        found
    }

    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        parts.describe::<Self>(&self.built.params, &self.search);
        parts.add("lists", &self.built.lists);
        parts.add("rows", &self.built.rows);
        parts.add("usual_probes", &self.built.usual_probes);
    }
}

impl IvfFlat {
    /// The number of lists.
    pub(super) fn nlist(&self) -> usize {
        self.built.lists.nlist()
    }

    /// The lists that a search by default searches.
    pub(super) fn usual_probes(&self) -> usize {
        self.built.usual_probes
    }

    /// The `k` nearest in the `nprobe` nearest lists.
    pub(super) fn search_lists(&self, query: Row<'_>, k: usize, nprobe: usize) -> Found {
        let nearest = self.built.lists.nearest(&query.to_floats(), nprobe);
        self.search_these(query, k, &nearest)
    }

    /// The `k` nearest in the lists `nearest`, which are in the order of their distance.
    fn search_these(&self, query: Row<'_>, k: usize, nearest: &[u32]) -> Found {
        let Built { lists, rows, .. } = &*self.built;
        let k = k.min(rows.len());
        let ranker = Ranker::new(rows, Metric::Euclidean, query);
        let mut scan = Scan {
            lists,
            rows,
            ranker: &ranker,
            top: TopK::new(k),
            visits: Visits::default(),
        };
        for &list in nearest {
            scan.list(list as usize);
        }
        // Lists of few vectors: the next ones, until there are k.
        if scan.top.len() < k {
            // This is rare, so the lists are sorted again, all of them this time.
            let all = lists.nearest(&query.to_floats(), lists.nlist());
            // Not `skip`: where two centroids are as far but for rounding, the first of all need
            // not be `nearest`. A list would be searched twice, and another one never.
            for list in all.into_iter().filter(|list| !nearest.contains(list)) {
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

/// Queries that look for their nearest lists at once: two tiles of brute force. More would need
/// more memory for the lists that are found, and save no time.
const QUERIES_AT_ONCE: usize = 4096;
/// Rows whose distances are computed in one call: a list or a good part of it, so that the call
/// costs nothing to speak of, and few enough for the limit to fall in between.
const BATCH: usize = 32;

/// One query on its way through the lists.
struct Scan<'a> {
    lists: &'a InvertedLists,
    rows: &'a Vectors,
    ranker: &'a Ranker<'a>,
    top: TopK,
    visits: Visits,
}

impl Scan<'_> {
    /// Compares the query with all vectors of a list.
    fn list(&mut self, list: usize) {
        let positions = self.lists.list(list);
        self.visits.leaves += 1;
        self.visits.distances += positions.len();
        if let (QueryForm::Floats(query), Some(rows)) = (self.ranker.query(), self.rows.floats()) {
            self.floats(query, rows, positions);
        } else {
            for position in positions {
                self.push(position);
            }
        }
    }

    /// Compares a query of floats with rows of floats: in f32 arithmetic, and then by the true
    /// distance where that does not tell that it is above the limit.
    fn floats(&mut self, query: &[f32], rows: &[f32], positions: Range<usize>) {
        let dim = query.len();
        let mut rough = [0.0f32; BATCH];
        for start in positions.clone().step_by(BATCH) {
            let end = (start + BATCH).min(positions.end);
            let rough = &mut rough[..end - start];
            squared_euclidean_f32_rows(query, &rows[start * dim..end * dim], rough);
            for (position, &rough) in (start..end).zip(&*rough) {
                // Where f32 overflowed to infinity, f64 need not.
                let rough = f64::from(rough);
                if rough <= rough_limit(self.top.threshold(), dim) || rough.is_infinite() {
                    self.push(position);
                }
            }
        }
    }

    /// Offers a row by its true distance.
    fn push(&mut self, position: usize) {
        let id = self.lists.ids()[position];
        self.top.push(id, self.ranker.reduced(position));
    }
}

/// The largest that f32 arithmetic can make of a squared distance within `limit`.
fn rough_limit(limit: f64, dim: usize) -> f64 {
    limit * (1.0 + relative_error(dim)) + UNDERFLOW * dim as f64
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

    /// In a batch all queries meet the centroids at once, and those whose lists hold too little
    /// take the next ones.
    #[test]
    fn a_batch_over_many_lists_is_its_queries_one_by_one() {
        let floats = clustered(8_000, 64, 1);
        let nprobe = 4;
        for base in [rounded(&floats), floats] {
            let params = IvfFlatParams {
                nlist: 4_096,
                seed: 3,
            };
            let ivf = IvfFlat::build(Arc::new(base), params).unwrap();
            let ivf = ivf.with_search(IvfFlatSearch { nprobe }).unwrap();
            assert!(ivf.built.lists.few_of_many(nprobe));
            let queries = clustered(QUERIES_AT_ONCE + 30, 64, 2);
            let batch = ivf.query_batch(&queries, 20).unwrap();
            for row in (0..queries.len()).step_by(97).chain([QUERIES_AT_ONCE]) {
                let one = ivf.query(&queries.row_to_floats(row), 20).unwrap();
                assert_eq!(batch.row(row), one);
                let mut ids: Vec<u32> = one.iter().map(|neighbor| neighbor.id).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), 20, "each neighbour once");
            }
        }
    }

    #[test]
    fn zero_probes_are_those_of_the_default() {
        let base = Arc::new(clustered(10, 3, 1));
        let ivf = IvfFlat::build(base, IvfFlatParams { nlist: 99, seed: 0 }).unwrap();
        assert_eq!(ivf.query(&[0.0; 3], 10).unwrap().len(), 10);
        let zero = ivf.with_search(IvfFlatSearch { nprobe: 0 }).unwrap();
        assert_eq!(zero.params(), ivf.params());
    }

    /// Noise has no clusters: 16 lists of many hold a small part of the neighbours.
    #[test]
    fn the_default_search_finds_most_where_there_are_no_clusters() {
        let noise = crate::lab::shapes::find("noise_64").unwrap();
        let sample = noise.sample(6_000, 100, 16, 1);
        let base = Arc::new(sample.base);
        let ivf = IvfFlat::build(base.clone(), IvfFlatParams::default()).unwrap();
        let sixteen = ivf.with_search(IvfFlatSearch { nprobe: 16 }).unwrap();
        let of = |ivf: &IvfFlat| recall(ivf, &base, &sample.queries, 10);
        assert!(of(&ivf) >= 0.9, "{}", of(&ivf));
        assert!(of(&sixteen) < of(&ivf), "{}", of(&sixteen));
    }
}
