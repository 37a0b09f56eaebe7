//! Principal components and clusters, on which several indexes stand.

pub mod kmeans;
pub mod pca;

use crate::vectors::Row;

/// Adds a row's values to `sum`, in f64.
fn add_row(sum: &mut [f64], row: Row<'_>) {
    match row {
        Row::Bytes(row) => add_values(sum, row),
        Row::Floats(row) => add_values(sum, row),
    }
}

fn add_values<T: Copy + Into<f64>>(sum: &mut [f64], values: &[T]) {
    for (sum, &value) in sum.iter_mut().zip(values) {
        *sum += value.into();
    }
}
