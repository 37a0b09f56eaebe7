//! What the record calls data: different data never share a name.
//!
//! A file's own name does not tell data apart. There is a `base.npy` in many a folder, and anyone's
//! file can be called `pixels.npy`. Its path does not either: it says where a file lay on one
//! machine on one day. So a hash of the values goes behind the name.

use sha2::{Digest, Sha256};

use crate::vectors::{Storage, Vectors};

/// Hexadecimal digits of the hash in a name: 32 bits. Among the few data sets of a record two that
/// share a file's name will not share these.
const DIGITS: usize = 8;

/// The name of data that a file takes part in: `name`, and behind it the beginning of a hash of
/// base and queries. The same values have the same name, in whatever folder.
///
/// ```
/// use fashion_knn::lab::names::with_hash;
/// use fashion_knn::vectors::Vectors;
///
/// let queries = Vectors::from_bytes(2, vec![5, 5])?;
/// let one = with_hash("base", &Vectors::from_bytes(2, vec![0, 1, 2, 3])?, &queries);
/// let other = with_hash("base", &Vectors::from_bytes(2, vec![0, 1, 2, 4])?, &queries);
/// assert_eq!(one.len(), "base@01234567".len());
/// assert_ne!(one, other);
/// # Ok::<(), fashion_knn::vectors::VectorsError>(())
/// ```
#[must_use]
pub fn with_hash(name: &str, base: &Vectors, queries: &Vectors) -> String {
    let hash = format!("{:x}", hash_of(&[base, queries]).finalize());
    format!("{name}@{}", &hash[..DIGITS])
}

/// A hash of tables: of the type, the shape and the values of each, in this order. More can be
/// added to it.
pub(super) fn hash_of(tables: &[&Vectors]) -> Sha256 {
    let mut hash = Sha256::new();
    for table in tables {
        // The type and the shape go in before the values: the same bytes as floats, or in rows of
        // another length, are other data. All numbers are hashed as little-endian bytes, so that
        // the hash is the same on every machine.
        let kind = match table.storage() {
            Storage::Bytes(_) => b"u1",
            Storage::Floats(_) => b"f4",
        };
        hash.update(kind);
        for size in [table.len(), table.dim()] {
            hash.update((size as u64).to_le_bytes());
        }
        match table.storage() {
            Storage::Bytes(values) => hash.update(&values[..]),
            Storage::Floats(values) => {
                for value in values.iter() {
                    hash.update(value.to_le_bytes());
                }
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_shape_and_order_tell_data_apart() {
        let floats = Vectors::from_floats(1, vec![1.0, 2.0]).unwrap();
        let values = floats.floats().unwrap();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let tables = [
            floats.clone(),
            Vectors::from_bytes(4, bytes.clone()).unwrap(),
            Vectors::from_bytes(8, bytes.clone()).unwrap(),
            Vectors::from_bytes(1, bytes).unwrap(),
            Vectors::from_floats(2, vec![1.0, 2.0]).unwrap(),
        ];
        let mut names: Vec<String> = tables
            .iter()
            .map(|base| with_hash("a", base, base))
            .collect();
        // Where the one table ends and the other begins counts too.
        let (one, three) = (
            floats.head(1),
            Vectors::from_floats(1, vec![2.0; 3]).unwrap(),
        );
        names.push(with_hash("a", &one, &three));
        names.push(with_hash("a", &three, &one));
        assert_eq!(with_hash("a", &floats, &floats), names[0]);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
