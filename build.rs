//! A hash of the sources, by which what they computed is known again: an index that was kept on
//! disk is taken only by the code that built it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    let mut files = Vec::new();
    // The lock file has the versions of the crates that build trees and graphs for us.
    for path in ["src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
        collect(Path::new(path), &mut files);
    }
    // The order of a folder's entries is the system's.
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        (&file, fs::read(&file).unwrap_or_default()).hash(&mut hash);
    }
    println!(
        "cargo::rustc-env=FASHION_KNN_SOURCES={:016x}",
        hash.finish()
    );
}

/// The files at a path and below it.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries.flatten() {
                collect(&entry.path(), files);
            }
        }
        // What is not there, as a lock file need not be, is hashed as an empty file.
        Err(_) => files.push(path.to_owned()),
    }
}
