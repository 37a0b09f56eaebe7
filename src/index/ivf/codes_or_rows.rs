//! [`CodesOrRows`]: lists of codes, or of whole vectors where codes cannot tell them apart.
//!
//! Codes are made on one scale a list, and their estimates computed in whole numbers of eight bits.
//! Data of many scales at once (two clusters thousands of times farther apart than their rows are,
//! or rows of sizes from 10⁻³ to 10³) lose what tells neighbours from others. No number of
//! candidates brings it back. So what estimates are worth is measured when the lists are built, on
//! rows of the base, and where it is too little the lists keep whole vectors and are scanned
//! honestly. A caller who names the length of the codes gets codes in any case.

use std::sync::Arc;

use super::pq_lists::{Plan, PqLists};
use crate::index::ivf::ivf_flat::{IvfFlat, IvfFlatParams};
use crate::index::parts::{PartError, Parts, Saved};
use crate::index::{Build, Found, Index};
use crate::vectors::{Row, Vectors};

/// What `IvfPq` and `Scann` search in.
#[derive(Debug)]
pub(crate) enum CodesOrRows {
    /// Codes, and the vectors if they are kept.
    Codes(Box<PqLists>),
    /// Whole vectors.
    Rows(IvfFlat),
}

impl CodesOrRows {
    /// Codes of `base`, which is not empty. Where they do not tell neighbours, vectors are to be
    /// kept and the coding was not asked for, lists of whole vectors instead.
    pub fn build(base: &Arc<Vectors>, plan: &Plan) -> Self {
        let codes = PqLists::build(base, plan);
        if !plan.keep_vectors || plan.coding.is_some() || codes.usual().refine.is_some() {
            return Self::Codes(Box::new(codes));
        }
        let params = IvfFlatParams {
            nlist: codes.nlist(),
            seed: plan.seed,
        };
        let rows = IvfFlat::build(Arc::clone(base), params).expect("the base is not empty");
        Self::Rows(rows)
    }

    /// What it consists of.
    pub fn add_parts<'a>(&'a self, parts: &mut Parts<'a>) {
        match self {
            Self::Codes(codes) => parts.add("codes", codes),
            Self::Rows(rows) => rows.parts(parts),
        }
    }

    /// What [`Self::add_parts`] has listed.
    ///
    /// # Errors
    /// If parts do not fit together.
    pub fn from_parts(saved: &mut Saved<'_>) -> Result<Self, PartError> {
        Ok(match saved.take::<Option<Box<PqLists>>>("codes")? {
            Some(codes) => {
                codes.check()?;
                Self::Codes(codes)
            }
            None => Self::Rows(IvfFlat::from_parts(saved)?),
        })
    }

    /// The number of lists.
    pub fn nlist(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.nlist(),
            Self::Rows(rows) => rows.nlist(),
        }
    }

    /// The lists that a search by default searches.
    pub fn usual_probes(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.usual().nprobe,
            Self::Rows(rows) => rows.usual_probes(),
        }
    }

    /// The candidates for each neighbour that a search by default compares, at least; 0 where there
    /// are no codes, or where no number that was tried is enough.
    pub fn usual_refine(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.usual().refine.unwrap_or_default(),
            Self::Rows(_) => 0,
        }
    }

    /// The number of sub-quantisers, 0 where there are no codes.
    pub fn subquantizers(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.subquantizers(),
            Self::Rows(_) => 0,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.len(),
            Self::Rows(rows) => rows.len(),
        }
    }

    pub fn dim(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.dim(),
            Self::Rows(rows) => rows.dim(),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.memory_bytes(),
            Self::Rows(rows) => rows.memory_bytes(),
        }
    }

    /// The `k` nearest that are found in the `nprobe` nearest lists; `candidates` as for
    /// [`PqLists::search`].
    pub fn search(&self, query: Row<'_>, k: usize, nprobe: usize, candidates: usize) -> Found {
        match self {
            Self::Codes(codes) => codes.search(query, k, nprobe, candidates),
            Self::Rows(rows) => rows.search_lists(query, k, nprobe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, recall};
    use crate::index::{IvfPq, IvfPqParams, Query, Scann, ScannParams};

    /// What becomes of a value of a row.
    type Change = fn(usize, f32) -> f32;

    /// `clustered` rows, value v of row i made `change(i, v)`.
    fn changed(n: usize, seed: u64, change: Change) -> Vectors {
        let rows = clustered(n, 24, seed).to_floats();
        let values = rows
            .iter()
            .enumerate()
            .map(|(i, &value)| change(i / 24, value));
        Vectors::from_floats(24, values.collect::<Vec<f32>>()).unwrap()
    }

    /// IvfPq and Scann at their defaults.
    fn both(base: &Arc<Vectors>) -> [Box<dyn Index>; 2] {
        let pq = IvfPq::build(base.clone(), IvfPqParams::default()).unwrap();
        let scann = Scann::build(base.clone(), ScannParams::default()).unwrap();
        [Box::new(pq), Box::new(scann)]
    }

    #[test]
    fn hard_shapes_are_searched_as_well_as_plain_ones() {
        let shapes: [(&str, Change); 6] = [
            ("plain", |_, value| value),
            (
                "one row far out",
                |i, value| if i == 7 { 1e6 } else { value },
            ),
            ("two far clusters", |i, value| {
                if i % 2 == 0 { 1e6 + value } else { value - 1e6 }
            }),
            ("half of the rows equal", |i, value| {
                if i % 2 == 0 { 100.0 } else { value }
            }),
            ("tiny", |_, value| value * 1e-36),
            ("huge", |_, value| value * 1e34),
        ];
        for (name, change) in shapes {
            let base = Arc::new(changed(3_000, 1, change));
            let queries = changed(100, 2, change);
            for index in both(&base) {
                let found = recall(&*index, &base, &queries, 10);
                assert!(found >= 0.9, "{}, {name}: {found}", index.name());
                assert_eq!(index.query_batch(&queries, 40).unwrap().row(3).len(), 40);
            }
        }
    }

    #[test]
    fn codes_are_given_up_only_where_they_do_not_tell() {
        let m = |base: Vectors| {
            let index = IvfPq::build(Arc::new(base), IvfPqParams::default()).unwrap();
            index
                .params()
                .into_iter()
                .find(|(name, _)| *name == "m")
                .unwrap()
                .1
        };
        assert!(m(clustered(3_000, 24, 1)) >= 12.0);
        assert_eq!(
            m(changed(3_000, 1, |i, v| if i % 2 == 0 {
                v + 1e7
            } else {
                v - 1e7
            })),
            0.0
        );
    }
}
