//! The file in which a task keeps its true neighbours: they are computed once.
//!
//! The file's name is a hash of the base, the queries (type, shape and values), k and the metric,
//! so that other data never find it. Its content is
//!
//! ```text
//! | SHA-256 of the rest | id (u32) | distance (f64) | id (u32) | ...
//! ```
//!
//! little-endian, the neighbours of a query after those of the one before. A file that is damaged
//! or of another size counts as none: it is computed again and overwritten.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use super::names::hash_of;
use crate::distance::Metric;
use crate::files::write_atomically;
use crate::neighbor::{Neighbor, Neighbors};
use crate::vectors::Vectors;

/// Bytes of the checksum.
const SUM: usize = 32;
/// Bytes of a neighbour: an id and a distance.
const RECORD: usize = size_of::<u32>() + size_of::<f64>();

/// The file in `folder` of the `k` true neighbours of these data by `metric`.
pub fn path(folder: &Path, base: &Vectors, queries: &Vectors, k: usize, metric: Metric) -> PathBuf {
    folder.join(format!("truth-{}.bin", key(base, queries, k, metric)))
}

/// The neighbours in the file, if it is there, whole, and holds `k` for each of `rows` queries.
pub fn read(path: &Path, rows: usize, k: usize) -> Option<Neighbors> {
    // A file of another length is not read at all.
    let length = fs::metadata(path).ok()?.len();
    if length != (SUM + rows * k * RECORD) as u64 {
        return None;
    }
    decode(&fs::read(path).ok()?, rows, k)
}

/// Writes the file; its folder is made if it is not there.
pub fn write(path: &Path, truth: &Neighbors) -> io::Result<()> {
    write_atomically(path, &encode(truth))
}

/// A name for the true neighbours of these data: 24 hexadecimal digits.
fn key(base: &Vectors, queries: &Vectors, k: usize, metric: Metric) -> String {
    let mut hash = hash_of(&[base, queries]);
    // 24 digits are 96 bits of the hash: it is practically impossible that two data sets share a
    // name.
    hash.update((k as u64).to_le_bytes());
    // The Euclidean files had their names before there were others.
    if metric != Metric::Euclidean {
        hash.update(metric.name());
    }
    format!("{:x}", hash.finalize())[..24].to_owned()
}

/// The content of the file.
fn encode(truth: &Neighbors) -> Vec<u8> {
    let mut body = Vec::new();
    for neighbor in truth.iter().flatten() {
        body.extend(neighbor.id.to_le_bytes());
        body.extend(neighbor.distance.to_le_bytes());
    }
    [&Sha256::digest(&body)[..], &body].concat()
}

/// What [`encode`] wrote, if it is whole and of `rows` × `k`.
fn decode(bytes: &[u8], rows: usize, k: usize) -> Option<Neighbors> {
    // Length and checksum are tested before anything is read, so the records below are whole: each
    // `?` in them is for the types only.
    let (sum, body) = bytes.split_at_checked(SUM)?;
    if body.len() != rows * k * RECORD || Sha256::digest(body)[..] != *sum {
        return None;
    }
    let neighbor = |record: &[u8]| {
        let (id, distance) = record.split_first_chunk::<4>()?;
        Some(Neighbor {
            id: u32::from_le_bytes(*id),
            distance: f64::from_le_bytes(distance.try_into().ok()?),
        })
    };
    body.chunks_exact(k * RECORD)
        .map(|row| row.chunks_exact(RECORD).map(neighbor).collect())
        .collect::<Option<Vec<Vec<Neighbor>>>>()
        .map(|rows| rows.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start: u32) -> Vec<Neighbor> {
        let neighbor = |id: u32| Neighbor {
            id,
            distance: f64::from(id) / 3.0,
        };
        (start..start + 3).map(neighbor).collect()
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/truth.bin");
        let truth: Neighbors = [row(4), row(90)].into_iter().collect();
        assert_eq!(read(&path, 2, 3), None);
        write(&path, &truth).unwrap();
        assert_eq!(read(&path, 2, 3), Some(truth));
        assert_eq!(read(&path, 2, 2), None, "of another size");
        let mut damaged = fs::read(&path).unwrap();
        damaged[40] ^= 1;
        assert_eq!(decode(&damaged, 2, 3), None);
    }

    #[test]
    fn other_data_have_another_file() {
        let vectors = |first: u8| Vectors::from_bytes(2, vec![first, 2, 3, 4]).unwrap();
        let (base, queries) = (vectors(1), vectors(9));
        let by = |metric, base: &Vectors, queries: &Vectors, k| {
            path(Path::new("cache"), base, queries, k, metric)
        };
        let file = |base: &Vectors, queries: &Vectors, k| by(Metric::Euclidean, base, queries, k);
        let other_base = vectors(1);
        let mine = file(&base, &queries, 1);
        assert_eq!(mine, file(&other_base, &queries, 1));
        let other = [
            file(&queries, &base, 1),
            file(&base, &queries, 2),
            file(&base, &base, 1),
            by(Metric::Manhattan, &base, &queries, 1),
            by(Metric::Cosine, &base, &queries, 1),
            by(Metric::InnerProduct, &base, &queries, 1),
        ];
        assert!(!other.contains(&mine));
        // The same bytes, once as floats and once as bytes.
        let bits = u32::from_le_bytes([1, 2, 3, 4]);
        let floats = Vectors::from_floats(1, vec![f32::from_bits(bits)]).unwrap();
        let bytes = Vectors::from_bytes(1, vec![1, 2, 3, 4]).unwrap();
        assert_ne!(file(&floats, &floats, 1), file(&bytes, &bytes, 1));
    }
}
