//! Input that may be anything, against every reader: the fuzz targets (`fuzz/src`) on stable Rust.
//!
//! Each target is given its seeds (`fuzz/seeds`) and mutations of them. What once was a fault is a
//! seed. The random numbers have a seed, so that a failure repeats; the test says the input. More
//! inputs than the usual: `FASHION_KNN_FUZZ_TIMES=100 cargo test --test hostile`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use entry::run;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[path = "../fuzz/src/lib.rs"]
mod entry;

/// Mutated inputs of a usual run, for a target that takes microseconds.
const INPUTS: usize = 4_000;

/// Runs the target over its seeds and over one `share`-th of the inputs, mutated.
fn hold(name: &str, share: usize) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "no seeds of {name}");
    for seed in &seeds {
        check(name, seed);
    }
    let times = std::env::var("FASHION_KNN_FUZZ_TIMES").ok();
    let times = times.map_or(1, |text| text.parse().expect("a number of times"));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for _ in 0..times * INPUTS / share {
        check(name, &mutated(&seeds, &mut rng));
    }
}

/// The seeds of a target, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect()
}

fn check(name: &str, input: &[u8]) {
    assert!(
        catch_unwind(AssertUnwindSafe(|| run(name, input))).is_ok(),
        "{name} does not hold of the {} bytes b\"{}\"",
        input.len(),
        input.escape_ascii()
    );
}

/// A seed with a few changes.
fn mutated(seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = seeds.choose(rng).expect("there are seeds").clone();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut input, seeds, rng);
    }
    input
}

/// One change: of a bit, a byte or a digit; a piece left out, repeated, or taken from another seed.
fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=input.len());
    // Half of the pieces have at most eight bytes.
    let longest = if rng.random() { 8 } else { input.len() };
    let end = (at + rng.random_range(0..=longest)).min(input.len());
    match rng.random_range(0..7) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).unwrap(),
        2 => {
            let digits: Vec<usize> = (0..input.len())
                .filter(|&place| input[place].is_ascii_digit())
                .collect();
            if let Some(&digit) = digits.choose(rng) {
                input[digit] = rng.random_range(b'0'..=b'9');
            }
        }
        3 => drop(input.drain(at..end)),
        4 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let other = seeds.choose(rng).expect("there are seeds");
            let from = rng.random_range(0..=other.len());
            let to = (from + end - at).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        _ => input.insert(at, rng.random()),
    }
}

#[test]
fn npy() {
    hold("npy", 1);
}

#[test]
fn fvecs() {
    hold("fvecs", 1);
}

#[test]
fn bvecs() {
    hold("bvecs", 1);
}

#[test]
fn ivecs() {
    hold("ivecs", 1);
}

#[test]
fn big_ann() {
    hold("big_ann", 1);
}

#[test]
fn npz() {
    hold("npz", 1);
}

#[cfg(feature = "hdf5")]
#[test]
fn hdf5() {
    hold("hdf5", 1);
}

#[test]
fn idx() {
    hold("idx", 4);
}

#[test]
fn record() {
    hold("record", 2);
}

#[test]
fn learning() {
    hold("learning", 2);
}

#[test]
fn syntax() {
    hold("syntax", 1);
}

#[test]
fn queries() {
    hold("queries", 8);
}

#[test]
fn truth() {
    hold("truth", 4);
}

#[cfg(feature = "net")]
#[test]
fn features() {
    hold("features", 4);
}

#[cfg(feature = "net")]
#[test]
fn checkpoint() {
    hold("checkpoint", 8);
}
