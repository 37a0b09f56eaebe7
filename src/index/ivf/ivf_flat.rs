//! Inverted file with whole vectors: FAISS's `IVFn,Flat`.

use std::sync::Arc;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::{InvertedLists, positive};
use crate::index::{BuildError, Index, QueryError, check_base, check_query};
use crate::neighbor::{Neighbor, TopK};
use crate::vectors::{Row, Vectors};

/// How an [`IvfFlat`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct IvfFlatParams {
    /// The number of lists; no more than there are vectors are made.
    pub nlist: usize,
    /// Decides the k-means that makes the lists.
    pub seed: u64,
}

impl Default for IvfFlatParams {
    fn default() -> Self {
        Self {
            nlist: 256,
            seed: 0,
        }
    }
}

/// Inverted file (*IVF*; Sivic & Zisserman 2003, Jégou et al. 2011): k-means parts the vectors into `nlist` lists, and a
/// query is compared with all vectors of the `nprobe` lists whose centroids are nearest. Euclidean.
///
/// The vectors are kept in the order of the lists, so that a list is one run of memory.
#[derive(Debug, Clone)]
pub struct IvfFlat {
    lists: Arc<(InvertedLists, Vectors)>,
    params: IvfFlatParams,
    nprobe: usize,
}

impl IvfFlat {
    /// Clusters the vectors and copies them in the order of the lists. One list is probed until
    /// [`with_nprobe`](Self::with_nprobe) says more, as in FAISS.
    ///
    /// # Errors
    /// If `base` is empty or `nlist` is zero.
    pub fn build(base: Arc<Vectors>, params: &IvfFlatParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let partition = InvertedLists::train(&base, positive("nlist", params.nlist)?, params.seed);
        let rows = partition.in_list_order(&base);
        Ok(Self {
            lists: Arc::new((partition, rows)),
            params: params.clone(),
            nprobe: 1,
        })
    }

    /// The same lists, `nprobe` of them searched by a query: all, if there are not so many, and more, if they hold fewer than k.
    ///
    /// # Errors
    /// If `nprobe` is zero.
    pub fn with_nprobe(&self, nprobe: usize) -> Result<Self, BuildError> {
        Ok(Self {
            nprobe: positive("nprobe", nprobe)?,
            ..self.clone()
        })
    }
}

impl Index for IvfFlat {
    fn name(&self) -> &'static str {
        "IVF Flat"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let params = &self.params;
        vec![
            ("nlist", params.nlist as f64),
            ("seed", params.seed as f64),
            ("nprobe", self.nprobe as f64),
        ]
    }

    fn len(&self) -> usize {
        self.lists.1.len()
    }

    fn dim(&self) -> usize {
        self.lists.1.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.lists.0.memory_bytes() + self.lists.1.memory_bytes()
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        let (partition, rows) = &*self.lists;
        let ranker = Ranker::new(rows, Metric::Euclidean, Row::Floats(query));
        let mut top = TopK::new(k.min(rows.len()));
        let mut scan = |list: u32| {
            for position in partition.list(list as usize) {
                top.push(partition.ids()[position], ranker.rank(position));
            }
            top.len()
        };
        let mut found = 0;
        for (_, list) in partition.nearest(query, self.nprobe) {
            found = scan(list);
        }
        if found < k.min(rows.len()) {
            for (_, list) in partition
                .nearest(query, partition.nlist())
                .into_iter()
                .skip(self.nprobe)
            {
                if found >= k {
                    break;
                }
                found = scan(list);
            }
        }
        Ok(top.into_neighbors(Metric::Euclidean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::BruteForce;
    use crate::index::support::test_data::{clustered, recall, rounded};

    #[test]
    fn all_lists_probed_is_exhaustive_search() {
        let floats = clustered(500, 20, 1);
        for base in [rounded(&floats), floats] {
            let (base, queries) = (Arc::new(base), clustered(30, 20, 2));
            let ivf = IvfFlat::build(base.clone(), &IvfFlatParams { nlist: 9, seed: 3 }).unwrap();
            let exact = BruteForce::build(base, Metric::Euclidean).unwrap();
            let all = ivf
                .with_nprobe(1_000)
                .unwrap()
                .query_batch(&queries, 7)
                .unwrap();
            assert_eq!(all, exact.query_batch(&queries, 7).unwrap());
        }
    }

    #[test]
    fn few_lists_find_most() {
        let (base, queries) = (Arc::new(clustered(5_000, 20, 1)), clustered(100, 20, 2));
        let ivf = IvfFlat::build(base.clone(), &IvfFlatParams { nlist: 50, seed: 3 }).unwrap();
        let recalls =
            [1, 4, 12].map(|nprobe| recall(&ivf.with_nprobe(nprobe).unwrap(), &base, &queries, 10));
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
        let none = IvfFlat::build(base.clone(), &IvfFlatParams { nlist: 0, seed: 0 });
        assert_eq!(none.unwrap_err(), error("nlist"));
        let ivf = IvfFlat::build(base, &IvfFlatParams { nlist: 99, seed: 0 }).unwrap();
        assert_eq!(ivf.query(&[0.0; 3], 10).unwrap().len(), 10);
        assert_eq!(ivf.with_nprobe(0).unwrap_err(), error("nprobe"));
    }
}
