//! Every format and type that vectors are read in, against what NumPy and h5py wrote.
//!
//! `tests/make_formats.py` wrote the files and said what is in them (`expected.txt`). Then each file
//! is cut and changed: that gives an error that names the file, or other vectors, and takes no
//! memory out of proportion.

use std::fs;
use std::path::{Path, PathBuf};

use fashion_knn::vectors::{ReadError, Vectors};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats")
}

/// A table, and what NumPy says of it.
struct Expected {
    name: String,
    rows: usize,
    dim: usize,
    values: Values,
}

enum Values {
    Bytes(Vec<u8>),
    /// The bits of each float.
    Floats(Vec<u32>),
}

/// All of them that this build can read.
fn expected() -> Vec<Expected> {
    let text = fs::read_to_string(folder().join("expected.txt")).unwrap();
    let mut lines = text.lines();
    let mut tables = Vec::new();
    while let Some(head) = lines.next() {
        let [name, rows, dim, kept] = head.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{head}");
        };
        let (rows, dim) = (rows.parse().unwrap(), dim.parse().unwrap());
        let words = lines.by_ref().take(rows).flat_map(|line| line.split(' '));
        let values = if kept == "u1" {
            Values::Bytes(words.map(|word| word.parse().unwrap()).collect())
        } else {
            let bits = words.map(|word| u32::from_str_radix(word, 16).unwrap());
            Values::Floats(bits.collect())
        };
        let name = name.to_owned();
        if cfg!(feature = "hdf5") || !is_hdf5(&name) {
            tables.push(Expected {
                name,
                rows,
                dim,
                values,
            });
        }
    }
    tables
}

fn is_hdf5(name: &str) -> bool {
    name.contains(".h5") || name.contains(".hdf5")
}

fn check(vectors: &Vectors, expected: &Expected) {
    let name = &expected.name;
    assert_eq!(
        (vectors.len(), vectors.dim()),
        (expected.rows, expected.dim),
        "{name}"
    );
    match &expected.values {
        Values::Bytes(bytes) => assert_eq!(vectors.bytes(), Some(&bytes[..]), "{name}"),
        Values::Floats(bits) => {
            let floats = vectors.floats().unwrap_or_else(|| panic!("{name}: bytes"));
            let read: Vec<u32> = floats.iter().map(|float| float.to_bits()).collect();
            assert_eq!(read, *bits, "{name}");
        }
    }
}

#[test]
fn every_value_is_the_one_that_numpy_and_h5py_wrote() {
    let all = expected();
    assert!(all.len() > 40, "{}", all.len());
    for expected in &all {
        let (vectors, loss) = Vectors::read_lossy(folder().join(&expected.name))
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(loss.is_none(), "{}: {loss}", expected.name);
        check(&vectors, expected);
    }
}

#[test]
fn mapped_values_are_the_same() {
    let mut mapped = 0;
    for expected in &expected() {
        match Vectors::map(folder().join(&expected.name)) {
            Ok(vectors) => {
                check(&vectors, expected);
                mapped += 1;
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("cannot be mapped"), "{error}");
                assert!(error.contains(expected.name.as_str()), "{error}");
            }
        }
    }
    // bool is no byte, and one row or column would be in both orders: uint8_le_C, float32_le_C,
    // the two versions, .fbin and .u8bin.
    assert_eq!(mapped, 6);
}

/// The files themselves, and the name of an array in them.
fn files() -> Vec<(Vec<u8>, String)> {
    let all = expected().into_iter();
    all.map(|expected| {
        let file = expected.name.split(':').next().unwrap();
        (fs::read(folder().join(file)).unwrap(), expected.name)
    })
    .collect()
}

/// Reads these bytes under the name.
fn read(bytes: &[u8], name: &str) -> Result<Vectors, ReadError> {
    let folder = tempfile::tempdir().unwrap();
    let file = name.split(':').next().unwrap();
    fs::write(folder.path().join(file), bytes).unwrap();
    let answer = Vectors::read(folder.path().join(name));
    if let Err(error) = &answer {
        let error = error.to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
    answer
}

#[test]
fn a_file_cut_anywhere_is_refused_with_its_name() {
    for (bytes, name) in files() {
        for cut in 0..bytes.len() {
            let answer = read(&bytes[..cut], &name);
            // A file of records may be cut between two of them. The middle of an HDF5 file may be
            // what nobody reads, and its end is not needed for each array in it.
            let is_whole =
                name.starts_with("records.") && cut > 0 && cut.is_multiple_of(bytes.len() / 7);
            if !is_whole && !is_hdf5(&name) {
                assert!(answer.is_err(), "{name} cut to {cut} bytes");
            }
        }
    }
}
