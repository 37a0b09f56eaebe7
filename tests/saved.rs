//! Saved indexes, from outside: files of the first version, other processes at every SIMD level,
//! and thousands of damaged files (`FASHION_KNN_FUZZ_TIMES=5` makes 20,000).

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use fashion_knn::index::registry::{self, REGISTRY, Settings};
use fashion_knn::index::{Index, Query, Save};
use fashion_knn::vectors::Vectors;
use peak_alloc::PeakAlloc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Counts the bytes that are taken.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Rows near a few centres, by a formula that stays as it is: the committed files are of them.
fn rows(count: usize, dim: usize, shift: usize) -> Vectors {
    let value = |row: usize, column: usize| {
        let centre = (row % 5) * (column % 3 + 1) * 12;
        (centre + (row * row * (column + 3) + shift * 7 + column * 11) % 61) as u8
    };
    let values = (0..count).flat_map(|row| (0..dim).map(move |column| value(row, column)));
    Vectors::from_bytes(dim, values.collect::<Vec<_>>()).unwrap()
}

fn floats(rows: &Vectors) -> Vectors {
    let values = rows.to_floats().into_iter().map(|value| value / 3.0);
    Vectors::from_floats(rows.dim(), values.collect::<Vec<_>>()).unwrap()
}

fn built(key: &str, base: Vectors) -> Box<dyn Index> {
    let entry = registry::find(key).unwrap();
    let built = (entry.build)(Arc::new(base), &Settings::default()).unwrap();
    built(&Settings::default()).unwrap()
}

/// A line for each neighbour: its id, and the bits of its distance.
fn answers(index: &dyn Index, queries: &Vectors, k: usize) -> String {
    let found = index.query_batch(queries, k).unwrap();
    let line = |near: &fashion_knn::neighbor::Neighbor| {
        format!("{} {:016x}\n", near.id, near.distance.to_bits())
    };
    found.iter().flatten().map(line).collect()
}

/// The committed files of version 1, and what the indexes answered when they were saved.
fn version_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saved-1")
}

fn asked_of_version_1() -> Vectors {
    rows(5, 8, 3)
}

/// Every later version has to read these files, and to answer as the first one did.
#[test]
fn files_of_the_first_version_are_read() {
    // For an index that is new.
    if env::var_os("FASHION_KNN_WRITE_VERSION_1").is_some() {
        write_version_1();
    }
    for entry in REGISTRY {
        for kind in ["bytes", "floats"] {
            let stem = version_1().join(format!("{}-{kind}", entry.key));
            let index = registry::load(stem.with_extension("knn")).unwrap();
            let expected = fs::read_to_string(stem.with_extension("txt")).unwrap();
            let found = answers(&*index, &asked_of_version_1(), 4);
            assert_eq!(found, expected, "{}, {kind}", entry.key);
        }
    }
}

/// How the files were made; those that are there are not made again.
fn write_version_1() {
    let base = rows(300, 8, 0);
    for entry in REGISTRY {
        for (kind, base) in [("bytes", base.clone()), ("floats", floats(&base))] {
            let stem = version_1().join(format!("{}-{kind}", entry.key));
            if stem.with_extension("knn").exists() {
                continue;
            }
            let index = built(entry.key, base);
            index.save(stem.with_extension("knn")).unwrap();
            let answers = answers(&*index, &asked_of_version_1(), 4);
            fs::write(stem.with_extension("txt"), answers).unwrap();
        }
    }
}

const INDEX: &str = "FASHION_KNN_TEST_INDEX";

/// The other side of the next test, which calls it in a process of its own: answers from a saved
/// index. Where no index is named it does nothing.
#[test]
fn answer_from_a_file() {
    let Some(path) = env::var_os(INDEX).map(PathBuf::from) else {
        return;
    };
    let index = registry::load(&path).unwrap();
    let answers = answers(&*index, &rows(50, 24, 5), 10);
    fs::write(path.with_extension("txt"), answers).unwrap();
}

#[test]
fn another_process_gives_the_same_answers_at_every_simd_level() {
    let folder = tempfile::tempdir().unwrap();
    let base = rows(2_000, 24, 0);
    for entry in REGISTRY {
        for base in [base.clone(), floats(&base)] {
            let path = folder.path().join("index.knn");
            let index = built(entry.key, base);
            index.save(&path).unwrap();
            let expected = answers(&*index, &rows(50, 24, 5), 10);
            for level in ["portable", "avx2", "avx512"] {
                let output = Command::new(env::current_exe().unwrap())
                    .args(["--exact", "answer_from_a_file"])
                    .env("FASHION_KNN_SIMD", level)
                    .env(INDEX, &path)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{output:?}");
                let found = fs::read_to_string(path.with_extension("txt")).unwrap();
                assert_eq!(found, expected, "{} at {level}", entry.key);
            }
        }
    }
}

/// Damaged files in all, over all indexes.
const DAMAGED: usize = 4_000;
/// What a load may take besides twice the file: its buffer, and the threads of the first pool.
const BESIDES: usize = 1 << 20;

/// Every damaged file is an error or gives the same answers, and takes no more memory than twice
/// its size.
#[test]
fn damaged_files_are_refused_within_bounds_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.knn");
    let queries = rows(3, 24, 5);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let times = env::var("FASHION_KNN_FUZZ_TIMES").ok();
    let times: usize = times.map_or(1, |text| text.parse().expect("a number of times"));
    let all = DAMAGED * times;
    let mut same = 0;
    // What a dynamic libstd takes is not counted, but what is freed of it is: with this in the
    // count it does not fall below zero.
    let _ballast = black_box(Vec::<u8>::with_capacity(64 << 20));
    for entry in REGISTRY {
        let index = built(entry.key, floats(&rows(600, 24, 0)));
        index.save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let expected = answers(&*index, &queries, 5);
        for _ in 0..all / REGISTRY.len() {
            let file = damaged(&whole, &mut rng);
            fs::write(&path, &file).unwrap();
            MEMORY.reset_peak_usage();
            let before = MEMORY.current_usage();
            let loaded = registry::load(&path);
            let taken = MEMORY.peak_usage().saturating_sub(before);
            let most = 2 * file.len() + BESIDES;
            assert!(
                taken <= most,
                "{}: {taken} bytes for {}",
                entry.key,
                file.len()
            );
            if let Ok(loaded) = loaded {
                same += 1;
                assert_eq!(answers(&*loaded, &queries, 5), expected, "{}", entry.key);
            }
        }
    }
    // Changes that change nothing: a byte overwritten with itself.
    assert!(same < all / 20, "{same} of {all} were not noticed");
}

/// With a bit turned, a piece gone, repeated or overwritten, or a number grown.
fn damaged(whole: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut file = whole.to_vec();
    // Half of the changes are in the header, which is a small part of the file.
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    let within = if rng.random() { header } else { file.len() };
    let at = rng.random_range(0..within);
    let end = (at + rng.random_range(1..200)).min(file.len());
    match rng.random_range(0..7) {
        0 => file.truncate(at),
        1 => drop(file.drain(at..end)),
        2 => file[at..end].fill(rng.random()),
        3 => file.extend_from_within(at..end),
        // The length of the header.
        4 => file[rng.random_range(0..8)] = rng.random(),
        // A digit: of a size, an offset, a parameter, a checksum.
        5 => {
            let digits = file[..header].iter().enumerate();
            let digits: Vec<usize> = digits
                .filter(|(_, byte)| byte.is_ascii_digit())
                .map(|(place, _)| place)
                .collect();
            file[digits[rng.random_range(0..digits.len())]] = rng.random_range(b'0'..=b'9');
        }
        _ => file[at] ^= 1 << rng.random_range(0..8),
    }
    file
}
