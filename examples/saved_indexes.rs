//! Builds every index, saves it, and loads it again in another process at every SIMD level: are the
//! answers the same to the last bit, and how long does each step take?
//!
//! ```text
//! cargo run --release --example saved_indexes [BASE QUERIES]
//! ```
//!
//! `BASE` and `QUERIES` are files of vectors, by default Fashion-MNIST.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fashion_knn::index::registry::{self, REGISTRY, Settings};
use fashion_knn::prelude::*;

/// The queries that are compared, and their numbers of neighbours.
const QUERIES: usize = 1_000;
const KS: [usize; 3] = [1, 10, 100];
/// A load is repeated so many times, and the median counts.
const LOADS: usize = 5;
const LEVELS: [&str; 3] = ["portable", "avx2", "avx512"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        // This program calls itself so.
        ["--answer", index, ..] => {
            let queries = queries(words.get(2).copied())?;
            println!("{}", hash(&answers(&*registry::load(index)?, &queries)?));
            Ok(())
        }
        [] => table(fashion::load()?.train, None),
        [base, queries] => table(Arc::new(Vectors::read(base)?), Some(queries)),
        _ => Err("expected no arguments, or BASE QUERIES".into()),
    }
}

/// The queries of that file, or test images.
fn queries(path: Option<&str>) -> Result<Vectors, Box<dyn Error>> {
    let all = match path {
        Some(path) => Vectors::read(path)?,
        None => fashion::load()?.test.as_ref().clone(),
    };
    Ok(all.head(QUERIES))
}

fn table(base: Arc<Vectors>, asked: Option<&str>) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let queries = queries(asked)?;
    println!(
        "{} x {}, {} queries, k = {KS:?}",
        base.len(),
        base.dim(),
        queries.len()
    );
    println!(
        "{:17} {:>8} {:>7} {:>8} {:>7} {:>8} {:>8}  same",
        "index", "build s", "save s", "load ms", "% build", "mapped", "MB"
    );
    for entry in REGISTRY {
        let path = folder.path().join(entry.key).with_extension("knn");
        let start = Instant::now();
        let built = (entry.build)(Arc::clone(&base), &Settings::default())?;
        let build = start.elapsed();
        let index = built(&Settings::default())?;
        let start = Instant::now();
        index.save(&path)?;
        let save = start.elapsed();
        let load = median(|| registry::load(&path))?;
        let mapped = median(|| registry::load_mapped(&path))?;
        let expected = hash(&answers(&*index, &queries)?);
        let same = LEVELS.map(|level| at_level(level, &path, asked).is_ok_and(|h| h == expected));
        let seconds = Duration::as_secs_f64;
        println!(
            "{:17} {:8.2} {:7.2} {:8.1} {:7.1} {:8.1} {:8.1}  {}",
            entry.key,
            seconds(&build),
            seconds(&save),
            1e3 * seconds(&load),
            100.0 * seconds(&load) / seconds(&build),
            1e3 * seconds(&mapped),
            std::fs::metadata(&path)?.len() as f64 / 1e6,
            if same == [true; LEVELS.len()] {
                "yes"
            } else {
                "NO"
            },
        );
    }
    Ok(())
}

/// The median time of a load.
fn median<I, E>(load: impl Fn() -> Result<I, E>) -> Result<Duration, E> {
    let mut times = Vec::new();
    for _ in 0..LOADS {
        let start = Instant::now();
        let index = load()?;
        times.push(start.elapsed());
        drop(index);
    }
    times.sort_unstable();
    Ok(times[LOADS / 2])
}

/// Ids and bits of distances, for every k, one query a call and all in one.
fn answers(index: &dyn Index, queries: &Vectors) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut words = Vec::new();
    let mut add = |found: &[Neighbor]| {
        words.push(found.len() as u64);
        for neighbor in found {
            words.extend([neighbor.id.into(), neighbor.distance.to_bits()]);
        }
    };
    for k in KS {
        for row in 0..queries.len() {
            add(&index.query(queries.row(row), k)?);
        }
        index.query_batch(queries, k)?.iter().for_each(&mut add);
    }
    Ok(words)
}

/// FNV-1a, which is enough to tell answers apart.
fn hash(words: &[u64]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The hash of what the saved index answers in a process of its own.
fn at_level(level: &str, index: &Path, queries: Option<&str>) -> Result<u64, Box<dyn Error>> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--answer")
        .arg(index)
        .args(queries)
        .env("FASHION_KNN_SIMD", level)
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
