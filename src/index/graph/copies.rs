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

use rayon::prelude::*;

use crate::vectors::{Row, Vectors};

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
