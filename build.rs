//! A hash of the sources, by which what they computed is known again: an index that was kept on
//! disk is taken only by the code that built it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    // For the notebooks the crate is compiled from a folder of links to the checkout (kernel.py).
    // They lead to the checkout itself.
    let sources = fs::canonicalize("src").expect("the sources are here");
    let root = sources.parent().expect("they are in a folder");
    let mut files = Vec::new();
    // The lock file has the versions of the crates that build trees and graphs for us.
    for name in ["src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        let path = root.join(name);
        // Of a path that is not there, cargo would think that it changes all the time.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
            collect(&path, &mut files);
        }
    }
    // The order of a folder's entries is the system's.
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        let name = file.strip_prefix(root).expect("it is in the folder");
        (name, fs::read(&file).expect("it is there")).hash(&mut hash);
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
        Err(_) => files.push(path.to_owned()),
    }
}
