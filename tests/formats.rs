//! Every format and type that vectors are read in, against what NumPy and h5py wrote.
//!
//! `tests/make_formats.py` wrote the files and said what is in them (`expected.txt`). Then each
//! file is cut, and headers are made to promise more than there is: that is an error that names the
//! file. `tests/hostile.rs` changes the bytes at random, and measures the memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fashion_knn::vectors::Vectors;

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

/// One table of each file.
fn one_of_each_file() -> Vec<Expected> {
    let mut all = expected();
    all.dedup_by_key(|expected| file_of(&expected.name).to_owned());
    all
}

fn file_of(name: &str) -> &str {
    name.split(':').next().unwrap()
}

#[test]
fn a_file_cut_anywhere_is_refused_with_its_name() {
    let at = tempfile::tempdir().unwrap();
    for Expected { name, rows, .. } in one_of_each_file() {
        let path = at.path().join(file_of(&name));
        fs::copy(folder().join(file_of(&name)), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        for cut in (0..length).rev() {
            file.set_len(cut).unwrap();
            match Vectors::read(at.path().join(&name)) {
                Err(error) => assert!(error.to_string().contains(&name), "{name}: {error}"),
                // A file of records may be cut between two of them.
                Ok(_) if name.starts_with("records.") => {
                    assert!(
                        cut.is_multiple_of(length / rows as u64),
                        "{name}: {cut} bytes"
                    );
                }
                // The end of an HDF5 file may be of other data sets than the one that is read.
                Ok(vectors) if is_hdf5(&name) => assert_eq!(vectors.len(), rows),
                Ok(_) => panic!("{name} is read though it is cut to {cut} bytes"),
            }
        }
    }
}

fn refused(bytes: &[u8], name: &str, why: &str) {
    let at = tempfile::tempdir().unwrap();
    fs::write(at.path().join(file_of(name)), bytes).unwrap();
    let error = Vectors::read(at.path().join(name)).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains(why), "{error}");
}

#[test]
fn a_count_that_grew_is_refused_before_memory_is_taken_for_it() {
    let grown = |n: u32, d: u32| {
        let header = [n.to_le_bytes(), d.to_le_bytes()].concat();
        [&header[..], &[0; 64]].concat()
    };
    let most = u32::MAX;
    refused(
        &grown(most, most),
        "a.fbin",
        "promises 73786976260478468100 bytes",
    );
    refused(
        &grown(most, 1),
        "a.u8bin",
        "promises 4294967295 bytes of values; 64 follow",
    );
    refused(&grown(16, 5), "a.i8bin", "promises 80 bytes");
    refused(
        &grown(0, 0),
        "a.fbin",
        "promises 0 bytes of values; 64 follow",
    );
    refused(&grown(0, 0)[..8], "a.fbin", "at least one dimension");
    refused(
        &[0; 7],
        "a.u8bin",
        "7 bytes; expected the number of vectors",
    );
    refused(&grown(most, 1), "a.ivecs", "not whole vectors");
    // 2⁶⁰ rows, in an archive that says so too.
    let stored = fs::read(folder().join("stored.npz")).unwrap();
    let text = b"'shape': (7, 5), }                    ";
    let more = b"'shape': (1152921504606846976, 5), }  ";
    let at = stored.windows(text.len()).position(|part| part == text);
    let mut grown = stored.clone();
    grown[at.unwrap()..][..more.len()].copy_from_slice(more);
    refused(
        &grown,
        "a.npz:floats",
        "promises 23058430092136939520 bytes",
    );
}

#[test]
fn what_is_no_archive_and_an_array_that_is_not_there_are_refused() {
    refused(b"PK", "a.npz", "no archive of arrays");
    let stored = fs::read(folder().join("stored.npz")).unwrap();
    refused(
        &stored,
        "a.npz",
        "3 arrays; expected one, or its name, as FILE.npz:NAME: floats",
    );
    refused(
        &stored,
        "a.npz:other",
        "no array \"other\" among its 3: floats, bytes, columns",
    );
    refused(&stored, "a.npz:", "no array \"\"");
    // A byte of the values: the archive has a sum of them.
    let mut flipped = stored.clone();
    flipped[200] ^= 1;
    refused(&flipped, "a.npz:floats", "checksum");
}

#[cfg(feature = "hdf5")]
#[test]
fn of_an_hdf5_file_only_a_whole_table_of_numbers_is_read() {
    let file = |name: &str| fs::read(folder().join(name)).unwrap();
    refused(b"HDF", "a.hdf5", "no HDF5 file that can be read");
    let several = file("ann_benchmarks.hdf5");
    refused(
        &several,
        "a.hdf5",
        "3 data sets; expected one, or its name, as FILE.hdf5:NAME",
    );
    refused(
        &several,
        "a.hdf5:tain",
        "no data set \"tain\" among its 3: ",
    );
    refused(&several, "a.hdf5:", "a.hdf5:");
    let unwritten = file("unwritten.h5");
    refused(
        &unwritten,
        "a.h5:chunks",
        "64 of the 256 values were written",
    );
    refused(
        &unwritten,
        "a.h5:huge",
        "promises 4611686018427387904 bytes",
    );
    refused(&unwritten, "a.h5:line", "the shape is [4]");
    refused(&unwritten, "a.h5:names", "no plain numbers");
}

#[cfg(not(feature = "hdf5"))]
#[test]
fn without_the_feature_an_hdf5_file_is_refused_with_its_name() {
    let error = Vectors::read(folder().join("ann_benchmarks.hdf5:train")).unwrap_err();
    assert!(error.to_string().contains("feature `hdf5`"), "{error}");
}
