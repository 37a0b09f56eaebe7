//! A task as files of numpy's format, for programs in other languages.

use std::error::Error;
use std::path::Path;

use ndarray::ArrayView2;
use ndarray_npy::{WritableElement, WriteNpyExt};

use super::task::{MeasureError, Task, file_error};
use crate::files::write_atomically;
use crate::vectors::Vectors;

impl Task {
    /// Writes what a program in another language needs to be measured on the same task to `folder`:
    ///
    /// - `base.npy`, n × d, and `queries.npy`, m × d: `u1` or `f4`, as the vectors are;
    /// - `distances.npy`, m × the largest k: the distances of the true neighbours, `f8`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<(), MeasureError> {
        // Only the distances: recall is counted by them, so that ties are hits in every language.
        // The ids are not needed.
        let mut distances = Vec::new();
        for neighbor in self.truth().iter().flatten() {
            distances.push(neighbor.distance);
        }
        // All rows of the truth are equally long: the largest k, or the number of base rows if
        // those are fewer.
        let width = distances.len() / self.truth().len().max(1);
        let write = |name: &str, bytes: Result<Vec<u8>, Box<dyn Error>>| {
            let path = folder.join(name);
            let bytes = bytes.map_err(|error| file_error(&path, error.as_ref()))?;
            write_atomically(&path, &bytes).map_err(|error| file_error(&path, &error))
        };
        write("base.npy", npy_of(&self.base))?;
        write("queries.npy", npy_of(&self.queries))?;
        write("distances.npy", npy(&distances, width))
    }
}

fn npy_of(vectors: &Vectors) -> Result<Vec<u8>, Box<dyn Error>> {
    match vectors.bytes() {
        Some(values) => npy(values, vectors.dim()),
        None => npy(&vectors.to_floats(), vectors.dim()),
    }
}

/// Rows of `width` values in numpy's format.
fn npy<T: WritableElement>(values: &[T], width: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    // Without columns there are no values, and the table is 0 × 0.
    let rows = values.len() / width.max(1);
    let mut bytes = Vec::new();
    ArrayView2::from_shape((rows, width), values)?.write_npy(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    #[test]
    fn what_is_exported_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let base = Arc::new(Vectors::from_bytes(2, (0..100).collect::<Vec<u8>>()).unwrap());
        let queries = Vectors::from_bytes(2, vec![10, 12, 51, 50]).unwrap();
        let task = Task::new("toy", base, queries, &[3, 1], 1, None).unwrap();
        task.export(folder.path()).unwrap();
        let read = |name: &str| Vectors::read(folder.path().join(name)).unwrap();
        assert_eq!(read("base.npy").bytes(), task.base.bytes());
        assert_eq!(read("queries.npy").bytes(), task.queries.bytes());
        let truth = task.truth().iter().flatten();
        let distances: Vec<f32> = truth.map(|neighbor| neighbor.distance as f32).collect();
        assert_eq!(read("distances.npy").to_floats(), distances);
        let no_folder = folder.path().join("base.npy");
        assert!(task.export(&no_folder).is_err(), "a file is no folder");
    }
}
