//! Every index is saved and loaded, whole and damaged.

use super::*;
use crate::distance::Metric;
use crate::index::Settings;
use crate::index::registry::{self, Entry, REGISTRY};
use crate::index::{BallTree, BallTreeParams, BruteForce, BruteForceParams, Hnsw, Query};
use crate::neighbor::Neighbor;
use crate::vectors::Vectors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Rows around some centres, every tenth a copy of the one before.
fn base(rows: usize, dim: usize, seed: u64) -> Vectors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f32> = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        if row % 10 == 9 {
            values.extend_from_within((row - 1) * dim..);
            continue;
        }
        let centre = 40.0 * (row % 4) as f32;
        values.extend((0..dim).map(|_| centre + rng.random_range(0.0..90.0)));
    }
    Vectors::from_floats(dim, values).unwrap()
}

fn bytes(vectors: &Vectors) -> Vectors {
    let values = vectors.to_floats().into_iter().map(|value| value as u8);
    Vectors::from_bytes(vectors.dim(), values.collect::<Vec<_>>()).unwrap()
}

/// Of both types, in few dimensions and in more, and without copies.
fn bases() -> Vec<Vectors> {
    let more = base(2_000, 24, 1);
    let distinct: Vec<usize> = (0..2_000).filter(|row| row % 10 != 9).collect();
    vec![
        bytes(&more),
        more.select(&distinct).unwrap(),
        more,
        base(300, 3, 2),
        base(1, 2, 3),
    ]
}

fn built(entry: &Entry, base: &Vectors) -> Box<dyn Index> {
    let base = Arc::new(base.clone());
    let built = (entry.build)(base, &Settings::default()).unwrap();
    built(&Settings::default()).unwrap()
}

/// Ids and bits of distances.
fn answers(index: &dyn Index, queries: &Vectors) -> Vec<(u32, u64)> {
    let bits = |found: &Neighbor| (found.id, found.distance.to_bits());
    let mut all = Vec::new();
    for k in [1, 10, 100] {
        for row in 0..queries.len() {
            all.extend(index.query(queries.row(row), k).unwrap().iter().map(bits));
        }
        let batch = index.query_batch(queries, k).unwrap();
        all.extend(batch.iter().flatten().map(bits));
    }
    all
}

#[test]
fn every_index_answers_as_before_loaded_or_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for base in bases() {
        let queries = super::tests::base(20, base.dim(), 9);
        for entry in REGISTRY {
            let index = built(entry, &base);
            index.save(&path).unwrap();
            let expected = answers(&*index, &queries);
            for loaded in [registry::load(&path), registry::load_mapped(&path)] {
                let loaded = loaded.unwrap();
                let name = entry.key;
                assert_eq!(loaded.name(), entry.name);
                assert_eq!(loaded.params(), index.params(), "{name}");
                assert_eq!(loaded.len(), base.len(), "{name}");
                assert_eq!(loaded.memory_bytes(), index.memory_bytes(), "{name}");
                assert_eq!(
                    answers(&*loaded, &queries),
                    expected,
                    "{name} over {base:?}"
                );
            }
        }
    }
}

#[test]
fn every_setting_that_changes_the_parts_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (base, queries) = (base(1_500, 24, 4), super::tests::base(20, 24, 5));
    for (key, settings) in [
        ("ivf_pq", "nbits=8 m=6 nlist=5"),
        ("ivf_pq", "m=5 keep_vectors=0"),
        ("ivf_flat", "nlist=7"),
        ("kd_tree", "leaf_size=16 components=4"),
        ("kd_tree", "components=32"),
        ("ball_tree", "leaf_size=16 components=24"),
        ("quantized_graph", "code_bytes=128"),
        ("annoy", "n_trees=3 seed=7"),
    ] {
        let entry = registry::find(key).unwrap();
        let base = Arc::new(base.clone());
        let built = (entry.build)(base, &settings.parse().unwrap()).unwrap();
        let index = built(&Settings::default()).unwrap();
        index.save(&path).unwrap();
        let loaded = registry::load(&path).unwrap();
        let same = answers(&*loaded, &queries) == answers(&*index, &queries);
        assert!(same, "{key} {settings}");
        assert_eq!(loaded.returns_estimates(), index.returns_estimates());
    }
}

/// Search parameters and metrics are saved with the index.
#[test]
fn typed_indexes_keep_their_search_and_their_metric() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let base = Arc::new(base(300, 5, 6));
    let hnsw = Hnsw::build(Arc::clone(&base), Default::default()).unwrap();
    let search = crate::index::HnswSearch { ef_search: 17 };
    hnsw.with_search(search).unwrap().save(&path).unwrap();
    let value = |index: &Hnsw| {
        index
            .params()
            .into_iter()
            .find(|(name, _)| *name == "ef_search")
    };
    assert_eq!(
        value(&Hnsw::load(&path).unwrap()),
        Some(("ef_search", 17.0))
    );

    let metric = Metric::Manhattan;
    let tree = BallTreeParams {
        metric,
        ..Default::default()
    };
    let tree = BallTree::build(Arc::clone(&base), tree).unwrap();
    let scan = BruteForce::build(base.clone(), BruteForceParams { metric }).unwrap();
    tree.save(&path).unwrap();
    let loaded = registry::load(&path).unwrap();
    assert_eq!(loaded.metric(), metric);
    assert_eq!(answers(&*loaded, &base), answers(&scan, &base));
    scan.save(&path).unwrap();
    let loaded = BruteForce::load(&path).unwrap();
    assert_eq!(loaded.metric(), metric);
    assert_eq!(answers(&loaded, &base), answers(&scan, &base));
}

#[test]
fn every_metric_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (base, queries) = (base(500, 7, 4), base(10, 7, 5));
    for entry in REGISTRY {
        for metric in [Metric::Manhattan, Metric::Cosine, Metric::InnerProduct] {
            if !(entry.takes)(metric) {
                continue;
            }
            let base = Arc::new(base.clone());
            let built = (entry.build_under)(metric, base, &Settings::default()).unwrap();
            let index = built(&Settings::default()).unwrap();
            index.save(&path).unwrap();
            for loaded in [registry::load(&path), registry::load_mapped(&path)] {
                let loaded = loaded.unwrap();
                assert_eq!(loaded.metric(), metric);
                let same = answers(&*loaded, &queries) == answers(&*index, &queries);
                assert!(same, "{} by {}", entry.key, metric.name());
            }
            let other = Hnsw::load(&path).unwrap_err().to_string();
            assert!(
                other.contains(metric.name()) || other.contains(entry.key),
                "{other}"
            );
        }
    }
}

#[test]
fn an_error_names_the_file_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.knn");
    let text = |path: &Path| {
        let text = registry::load(path).unwrap_err().to_string();
        assert!(text.contains("index.knn"), "{text}");
        text
    };
    assert!(text(&path).contains("No such file"));
    fs::write(&path, "short").unwrap();
    assert!(text(&path).contains("too short"));
    fs::write(&path, [0xff; 1_000]).unwrap();
    assert!(text(&path).contains("was cut"));
    fs::write(&path, [0; 1_000]).unwrap();
    assert!(text(&path).contains("it is none"));
    built(&REGISTRY[0], &base(50, 3, 1)).save(&path).unwrap();
    let error = Hnsw::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("\"brute_force") || error.contains("brute_force, metric"),
        "{error}"
    );
    assert!(error.contains("\"hnsw\""), "{error}");
    // A whole file of another version, and one of an index that nobody knows.
    let whole = fs::read(&path).unwrap();
    fs::write(
        &path,
        resealed(&whole, |header| {
            header.replace(r#""version":"1""#, r#""version":"2""#)
        }),
    )
    .unwrap();
    assert!(text(&path).contains("version \"2\""));
    fs::write(
        &path,
        resealed(&whole, |header| {
            header.replace("brute_force", "brute_farce")
        }),
    )
    .unwrap();
    assert!(text(&path).contains("brute_farce"));
    // A folder is no file, and what is there stays.
    assert!(
        built(&REGISTRY[0], &base(50, 3, 1))
            .save(folder.path())
            .is_err()
    );
    fs::write(&path, "before").unwrap();
    let beyond = path.join("beyond");
    assert!(built(&REGISTRY[0], &base(50, 3, 1)).save(&beyond).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
}

/// The file with another header of the same length, and the checksum that goes with it.
fn resealed(file: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..LENGTH].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&file[LENGTH..LENGTH + length]).unwrap();
    let changed = change(header);
    assert_eq!(changed.len(), length);
    let mut file = [
        &file[..LENGTH],
        changed.as_bytes(),
        &file[LENGTH + length..],
    ]
    .concat();
    let checksum = xxh3_64(&file[..LENGTH + length]).to_le_bytes();
    file[LENGTH + length..][..LENGTH].copy_from_slice(&checksum);
    file
}

/// Whatever the damage, a load is an error or the same index.
#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let queries = base(5, 6, 8);
    for entry in REGISTRY {
        built(entry, &base(400, 6, 7)).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let expected = answers(&*registry::load(&path).unwrap(), &queries);
        for _ in 0..200 {
            fs::write(&path, damaged(&whole, &mut rng)).unwrap();
            if let Ok(index) = registry::load(&path) {
                assert_eq!(answers(&*index, &queries), expected, "{}", entry.key);
            }
        }
    }
}

/// With a bit turned, a piece gone, repeated or overwritten, or bytes put in.
fn damaged(whole: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut file = whole.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..file.len());
        let end = (at + rng.random_range(1..100)).min(file.len());
        match rng.random_range(0..6) {
            0 => file.truncate(at.max(1)),
            1 => drop(file.drain(at..end)),
            2 => file[at..end].fill(rng.random()),
            3 => file.extend_from_within(at..end),
            // The length of the header, or near it.
            4 => file[rng.random_range(0..9)] = rng.random(),
            _ => file[at] ^= 1 << rng.random_range(0..8),
        }
    }
    file
}

/// With checksums that fit, values may be anything: a load is an error, or no search panics.
#[test]
fn parts_that_do_not_fit_together_are_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let queries = base(3, 6, 8);
    let mut refused = 0;
    let mut panicked = Vec::new();
    for entry in REGISTRY {
        built(entry, &base(300, 6, 7)).save(&path).unwrap();
        let names = IndexFile::open(&path).unwrap().arrays.into_keys();
        // Of a list, such as the trees of a forest, the first stands for all.
        let names: Vec<String> = names.filter(|name| !is_later_in_a_list(name)).collect();
        let whole = fs::read(&path).unwrap();
        for part in &names {
            for _ in 0..6 * times() {
                fs::write(&path, forged(&whole, part, &mut rng)).unwrap();
                let run = catch_unwind(AssertUnwindSafe(|| match registry::load(&path) {
                    Ok(index) => drop(answers(&*index, &queries)),
                    Err(_) => refused += 1,
                }));
                if run.is_err() {
                    panicked.push((entry.key, part.clone()));
                }
            }
        }
    }
    assert_eq!(panicked, []);
    assert!(refused > 300, "{refused}");
}

/// By how many times more is tried than usually.
fn times() -> usize {
    let times = std::env::var("FASHION_KNN_FUZZ_TIMES").ok();
    times.map_or(1, |text| text.parse().expect("a number of times"))
}

fn is_later_in_a_list(name: &str) -> bool {
    let numbers = name.split('.').filter_map(|part| part.parse().ok());
    numbers.max().is_some_and(|number: usize| number > 0)
}

/// The file with some values of a part changed, and both checksums that go with them.
fn forged(whole: &[u8], part: &str, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole");
    fs::write(&path, whole).unwrap();
    let opened = IndexFile::open(&path).unwrap();
    let array = &opened.arrays[part];
    let (start, end) = (array.start as usize, array.start as usize + array.len);
    let mut file = whole.to_vec();
    let size = array.number.size();
    if array.len > 0 {
        for _ in 0..rng.random_range(1..4) {
            let at = start + rng.random_range(0..array.len / size) * size;
            match rng.random_range(0..4) {
                0 => file[at..at + size].fill(0xff),
                1 => file[at..at + size].fill(0),
                2 => file[at + size - 1] ^= 0x40,
                _ => file[at] = file[at].wrapping_add(1),
            }
        }
    }
    let checksum = hexadecimal(xxh3_64(&file[start..end]));
    let before = array.checksum.clone();
    resealed(&file, |header| header.replace(&before, &checksum))
}

/// A file says its sizes in its header. They are compared with its length before anything is read.
#[test]
fn sizes_that_a_file_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    built(&REGISTRY[0], &base(100, 4, 1)).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    // 100 × 4 values, and as many again.
    for claimed in ["[999,4]", "[100,9]"] {
        let file = resealed(&whole, |header| {
            let grown = format!("\"shape\":{claimed}");
            let at = header.find("\"shape\":[100,4]").unwrap();
            format!("{}{grown}{}", &header[..at], &header[at + grown.len()..])
        });
        fs::write(&path, file).unwrap();
        assert!(registry::load(&path).is_err(), "{claimed}");
    }
    // A header of 2⁶⁰ bytes.
    let mut file = whole.clone();
    file[..LENGTH].copy_from_slice(&(1u64 << 60).to_le_bytes());
    fs::write(&path, file).unwrap();
    assert!(registry::load(&path).is_err());
}
