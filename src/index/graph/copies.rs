//! Equal rows: a graph has one node for all copies of a row.
//!
//! The naive graph has a node a row. Where many rows are equal, their nearest rows are each other,
//! and so are all their links: nothing leads out of such a group, and nothing into it.
//!
//! ```text
//! rows     a b a c b a            nodes    a        b      c
//! ids      0 1 2 3 4 5            copies   0 2 5    1 4    3
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use rayon::prelude::*;

use super::links::Links;
use crate::index::parts::{Part, PartError, Parts, Saved};
use crate::neighbor::{Candidate, TopK};
use crate::vectors::{Row, Vectors};

/// A base without its copies.
pub struct Distinct {
    /// The first of each group of equal rows, in the order of their ids.
    pub rows: Arc<Vectors>,
    pub copies: Copies,
}

impl Distinct {
    /// The distinct rows of `base`: `base` itself if no two rows are equal.
    pub fn of(base: &Arc<Vectors>) -> Self {
        let groups = equal_rows(base);
        if groups.len() == base.len() {
            return Self {
                rows: Arc::clone(base),
                copies: Copies(None),
            };
        }
        let firsts: Vec<usize> = groups.iter().map(|group| group[0] as usize).collect();
        Self {
            rows: Arc::new(base.select(&firsts).expect("rows of the base")),
            copies: Copies(Some(Links::new(groups))),
        }
    }
}

/// The ids of the rows that each distinct row stands for. `None` if no two rows are equal: each
/// then stands for itself.
#[derive(Debug)]
pub struct Copies(Option<Links>);

/// As the groups are, if there are copies.
impl Part for Copies {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        self.0.write(name, parts);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        saved.take(name).map(Self)
    }
}

impl Copies {
    /// Refuses what does not part all rows into groups, one for each of `distinct` ones.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self, distinct: usize) -> Result<(), PartError> {
        let Some(groups) = &self.0 else { return Ok(()) };
        groups.check_groups(distinct)
    }

    /// The number of rows that `distinct` rows stand for.
    pub fn rows(&self, distinct: usize) -> usize {
        self.0.as_ref().map_or(distinct, Links::total)
    }

    /// The id of the first row that a distinct one stands for.
    pub fn first(&self, distinct: u32) -> u32 {
        self.0.as_ref().map_or(distinct, |ids| ids.of(distinct)[0])
    }

    /// The `k` nearest rows, given the nearest distinct ones, nearest first: with all copies of
    /// each.
    pub fn expand(&self, mut distinct: Vec<Candidate>, k: usize) -> Vec<Candidate> {
        let Some(copies) = &self.0 else {
            distinct.truncate(k);
            return distinct;
        };
        let mut top = TopK::new(k);
        for Candidate { id, reduced } in distinct {
            for &copy in copies.of(id).iter().take(k) {
                top.push(copy, reduced);
            }
        }
        top.into_candidates()
    }

    /// Bytes that they take.
    pub fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Links::memory_bytes)
    }
}

/// The ids of the rows, those of equal rows together: each list ascends, and the lists ascend by
/// their first id. O(n·log n) comparisons of rows, which mostly end at the first values.
pub fn equal_rows(base: &Vectors) -> Vec<Vec<u32>> {
    let row = |id: u32| base.row(id as usize);
    let mut ids: Vec<u32> = (0..base.len() as u32).collect();
    // Sorted by their values, equal rows stand side by side. Among them the id decides.
    ids.par_sort_unstable_by(|&a, &b| compare(row(a), row(b)).then(a.cmp(&b)));
    let groups = ids.chunk_by(|&a, &b| compare(row(a), row(b)).is_eq());
    let mut groups: Vec<Vec<u32>> = groups.map(<[u32]>::to_vec).collect();
    // The order of values means nothing to a graph. That of ids is the order in which rows came.
    groups.sort_unstable_by_key(|group| group[0]);
    groups
}

/// The order of two rows of one base by their values, the first that differs deciding.
fn compare(a: Row<'_>, b: Row<'_>) -> Ordering {
    match (a, b) {
        (Row::Bytes(a), Row::Bytes(b)) => a.cmp(b),
        // Values are finite, so any two can be compared; 0 and −0 are equal, as their distance
        // says.
        (Row::Floats(a), Row::Floats(b)) => a.partial_cmp(b).expect("finite values"),
        _ => unreachable!("rows of one base"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_found_and_stand_in_order() {
        let bytes = Vectors::from_bytes(2, vec![7, 1, 0, 2, 7, 1, 7, 2, 0, 2, 7, 1]).unwrap();
        let expected = [vec![0, 2, 5], vec![1, 4], vec![3]];
        assert_eq!(equal_rows(&bytes), expected);
        let floats = bytes
            .to_floats()
            .iter()
            .map(|value| -value)
            .collect::<Vec<_>>();
        let floats = Vectors::from_floats(2, floats).unwrap();
        assert_eq!(equal_rows(&floats), expected);
    }

    #[test]
    fn copies_stand_at_the_distance_of_their_row_lower_ids_first() {
        let bytes = vec![7, 1, 0, 2, 7, 1, 7, 2, 0, 2, 7, 1];
        let base = Arc::new(Vectors::from_bytes(2, bytes).unwrap());
        let Distinct { rows, copies } = Distinct::of(&base);
        assert_eq!((rows.len(), copies.rows(rows.len())), (3, 6));
        assert_eq!([0, 1, 2].map(|row| copies.first(row)), [0, 1, 3]);
        let nearest = |pairs: &[(u32, f64)]| -> Vec<Candidate> {
            let candidates = pairs.iter();
            candidates
                .map(|&(id, reduced)| Candidate { id, reduced })
                .collect()
        };
        // The rows 1 and 0 of the distinct ones are equally far, so ids decide among their copies.
        let found = copies.expand(nearest(&[(1, 2.0), (0, 2.0), (2, 3.0)]), 4);
        assert_eq!(found, nearest(&[(0, 2.0), (1, 2.0), (2, 2.0), (4, 2.0)]));
    }

    #[test]
    fn a_base_without_copies_stays_as_it_is() {
        let base = Arc::new(Vectors::from_bytes(1, vec![3, 1, 2]).unwrap());
        let Distinct { rows, copies } = Distinct::of(&base);
        assert!(Arc::ptr_eq(&rows, &base));
        assert_eq!(
            (copies.rows(3), copies.first(2), copies.memory_bytes()),
            (3, 2, 0)
        );
        let found = vec![
            Candidate {
                id: 2,
                reduced: 1.0,
            },
            Candidate {
                id: 0,
                reduced: 4.0,
            },
        ];
        assert_eq!(copies.expand(found.clone(), 1), found[..1]);
    }

    #[test]
    fn zeros_of_either_sign_are_equal_and_near_rows_are_not() {
        let values = vec![
            0.0,
            1.0,
            -0.0,
            1.0,
            f32::MIN_POSITIVE,
            1.0,
            0.0,
            1.0 + f32::EPSILON,
        ];
        let rows = Vectors::from_floats(2, values).unwrap();
        assert_eq!(equal_rows(&rows), [vec![0, 1], vec![2], vec![3]]);
    }
}
