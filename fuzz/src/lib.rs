//! What must hold of any input: one function a target, for the fuzzers (`fuzz_targets/`) and for
//! the tests on stable Rust (`tests/hostile.rs`).
//!
//! A target takes bytes that may be anything and hands them to a reader. No input may make it
//! panic, abort, or take memory out of proportion. Besides, each target compares what the reader
//! says with an oracle: a plain reading of the same bytes, or what is read back after it was
//! written.

use std::hint::black_box;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use tempfile::NamedTempFile;

mod caches;
#[cfg(feature = "net")]
mod checkpoint;
mod fashion;
mod promises;
mod queries;
mod record;
mod syntax;
mod vectors;

/// Counts the bytes that are taken.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What is done with an input, and how much memory that may take.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Bytes that an input of any length may take.
    most: usize,
}

const MIB: usize = 1 << 20;

/// Bytes that each byte of an input may take, besides. A row of one value costs most: it is read,
/// copied, written for the oracle and read again, and a double has a float beside it.
const TIMES: usize = 64;

const TARGETS: &[Target] = &[
    target("npy", vectors::npy, 4 * MIB),
    target("fvecs", vectors::fvecs, 4 * MIB),
    target("bvecs", vectors::bvecs, 4 * MIB),
    target("ivecs", vectors::ivecs, 4 * MIB),
    target("big_ann", vectors::big_ann, 4 * MIB),
    // Deflate makes up to 1,032 bytes of one.
    target("npz", vectors::npz, 64 * MIB),
    #[cfg(feature = "hdf5")]
    target("hdf5", vectors::hdf5, 64 * MIB),
    // The 10,000 images that a file may hold, unpacked by the reader and by the oracle. A vector
    // that grows has the old and the new memory for a moment.
    target("idx", fashion::idx, 64 * MIB),
    target("record", record::record, 4 * MIB),
    target("learning", record::learning, 4 * MIB),
    target("syntax", syntax::syntax, 32 * MIB),
    target("queries", queries::queries, 64 * MIB),
    target("truth", caches::truth, 4 * MIB),
    #[cfg(feature = "net")]
    target("features", caches::features, 16 * MIB),
    #[cfg(feature = "net")]
    target("checkpoint", checkpoint::checkpoint, 64 * MIB),
];

const fn target(name: &'static str, run: fn(&[u8]), most: usize) -> Target {
    Target { name, run, most }
}

/// Runs the target of that name.
///
/// # Panics
/// If something does not hold that must, or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target of that name").run(input);
}

impl Target {
    fn run(&self, input: &[u8]) {
        // One at a time, because the memory is that of all threads.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Where libstd is linked dynamically, what it takes is not counted, but what is freed of it
        // is. With this in the count it does not fall below zero.
        let _ballast = black_box(Vec::<u8>::with_capacity(64 * MIB));
        MEMORY.reset_peak_usage();
        let before = MEMORY.peak_usage();
        (self.run)(input);
        let taken = MEMORY.peak_usage() - before;
        let most = self.most + TIMES * input.len();
        assert!(
            taken <= most,
            "{taken} bytes were taken; at most {most} are in proportion"
        );
    }
}

/// A file of these contents whose name ends so. It is removed when it is dropped.
fn file(ending: &str, contents: &[u8]) -> NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(ending)
        .tempfile()
        .expect("the folder of temporary files can be written");
    file.write_all(contents).expect("it has room");
    file
}

/// `text` with pieces replaced: each change is a place (two bytes), how many bytes go there and how
/// many come, and these.
fn changed(text: &[u8], mut changes: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    while let Some((&[low, high, out, count], rest)) = changes.split_first_chunk::<4>() {
        let place = usize::from(u16::from_le_bytes([low, high])) % (text.len() + 1);
        let end = (place + usize::from(out)).min(text.len());
        let (piece, rest) = rest.split_at(usize::from(count).min(rest.len()));
        text.splice(place..end, piece.iter().copied());
        changes = rest;
    }
    text
}
