//! Directions at right angles: Gram–Schmidt.
//!
//! The naive form takes from each row what it shares with those before it, and makes the rest of
//! unit length:
//!
//! ```text
//! for i in 0..m { for j in 0..i { r[i] -= ⟨r[i], r[j]⟩·r[j] };  r[i] /= ‖r[i]‖ }
//! ```
//!
//! Here the products of a block of rows with all rows before the block are one matrix product. And
//! a row that keeps little of its length is what rounding has left: it is done again, as J. W.
//! Daniel, W. B. Gragg, L. Kaufman and G. W. Stewart showed it to be enough (*Reorthogonalization
//! and Stable Algorithms for Updating the Gram–Schmidt QR Factorization*, Mathematics of
//! Computation 30, 1976).

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut1, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows that are multiplied with all rows before them at once.
const BLOCK: usize = 32;
/// A row that keeps a tenth of its length has lost one digit of sixteen to rounding.
const ENOUGH: f64 = 0.1;
/// A row that keeps less than this is a sum of those before it, and another one takes its place.
const NOTHING: f64 = 1e-7;

/// Makes the rows, no more of them than columns, orthonormal, one after the other. In the place of
/// a row that is a sum of those before it, or zero, comes a random direction.
pub(super) fn orthonormalize(rows: &mut Array2<f64>, seed: u64) {
    debug_assert!(rows.nrows() <= rows.ncols());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for start in (0..rows.nrows()).step_by(BLOCK) {
        let (before, mut rest) = rows.view_mut().split_at(Axis(0), start);
        let (before, len) = (before.view(), rest.nrows().min(BLOCK));
        let mut block = rest.slice_mut(s![..len, ..]);
        block.rows_mut().into_iter().for_each(normalize);
        let shared = block.dot(&before.t());
        general_mat_mul(-1.0, &shared, &before, 1.0, &mut block);
        for i in 0..len {
            let (earlier, mut later) = block.view_mut().split_at(Axis(0), i);
            settle(before, earlier.view(), later.row_mut(0), &mut rng);
        }
    }
}

/// Makes one row orthonormal to those `before` its block, of which its share has been taken off
/// once, and to the `earlier` ones of its block.
fn settle(
    before: ArrayView2<'_, f64>,
    earlier: ArrayView2<'_, f64>,
    mut row: ArrayViewMut1<'_, f64>,
    rng: &mut ChaCha8Rng,
) {
    let mut again = false;
    loop {
        if again {
            subtract(before, &mut row);
        }
        subtract(earlier, &mut row);
        let kept = row.dot(&row).sqrt();
        if kept < NOTHING {
            row.mapv_inplace(|_| rng.random_range(-1.0..1.0));
        }
        normalize(row.view_mut());
        if kept >= ENOUGH {
            return;
        }
        again = true;
    }
}

/// Takes from `row` its share of the others, which are orthonormal.
fn subtract(others: ArrayView2<'_, f64>, row: &mut ArrayViewMut1<'_, f64>) {
    let shares = others.dot(&*row);
    for (other, share) in others.rows().into_iter().zip(shares) {
        row.scaled_add(-share, &other);
    }
}

/// Divides the row by its length, unless that is zero.
fn normalize(mut row: ArrayViewMut1<'_, f64>) {
    // The largest value first: the squares of very large and very small ones would be none.
    let largest = row.iter().fold(0.0f64, |all, value| all.max(value.abs()));
    if largest > 0.0 {
        row /= largest;
        let length = row.dot(&row).sqrt();
        row /= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut rows: Array2<f64>) -> Array2<f64> {
        let given = rows.clone();
        orthonormalize(&mut rows, 1);
        for (i, a) in rows.rows().into_iter().enumerate() {
            for (j, b) in rows.rows().into_iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((a.dot(&b) - expected).abs() < 1e-13, "rows {i} and {j}");
            }
        }
        // Each given row is a sum of the rows up to its own.
        for (i, row) in given.rows().into_iter().enumerate() {
            let mut rest = row.to_owned();
            subtract(rows.slice(s![..=i, ..]), &mut rest.view_mut());
            assert!(rest.dot(&rest) <= 1e-20 * row.dot(&row), "row {i}");
        }
        rows
    }

    fn random(rows: usize, columns: usize) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
    }

    #[test]
    fn random_rows() {
        check(random(1, 1));
        check(random(70, 100));
        check(random(100, 100));
    }

    #[test]
    fn dependent_rows_and_zeros_make_room_for_others() {
        check(Array2::zeros((5, 5)));
        check(Array2::ones((40, 50)));
        let mut rows = random(90, 120);
        for i in [3, 20, 50, 80] {
            let sum = &rows.row(0) * 1e-150 + &rows.row(2) * 3e-150;
            rows.row_mut(i).assign(&sum);
        }
        check(rows);
        // Nearly parallel rows.
        check(Array2::ones((64, 80)) + random(64, 80) * 1e-6);
    }

    #[test]
    fn orthonormal_rows_stay_as_they_are() {
        let rows = check(random(50, 60));
        let again = check(rows.clone());
        assert!((rows - again).iter().all(|error| error.abs() < 1e-13));
    }
}
