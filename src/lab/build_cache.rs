//! Indexes that were built before, kept on disk: a notebook that is run again skips its builds.
//!
//! A file is taken only if it is of the same data, index, parameters, threads, SIMD level and
//! sources of this crate, which its header says; else the index is built anew, and its file
//! replaced. So a file is never stale, and each index of each data set has one at most.

use std::path::PathBuf;

use sha2::Digest;
use xxhash_rust::xxh3::xxh3_64;

use super::names::hash_of;
use crate::distance::Metric;
use crate::index::registry::{Built, Entry, Settings};
use crate::index::saved::{IndexFile, save_with};
use crate::simd;
use crate::vectors::Vectors;

/// A build of fewer seconds is not kept: to build is then nearly as fast as to load.
const WORTHWHILE_S: f64 = 1.0;
/// The keys of the header under which a file says what it was built from, and how long it took.
const ORIGIN: &str = "origin";
const BUILD_S: &str = "build_s";

/// Where the indexes of one base are kept.
#[derive(Debug, Clone)]
pub struct Builds {
    folder: PathBuf,
    /// A hash of the base.
    base: String,
}

/// Where one index is kept, and what it must have been built from.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    origin: String,
}

impl Builds {
    /// Indexes over `base`, in `folder`.
    pub fn new(folder: PathBuf, base: &Vectors) -> Self {
        let base = format!("{:x}", hash_of(&[base]).finalize());
        Self { folder, base }
    }

    /// The place of `entry`, built by that metric and with the parameters `build` on so many
    /// threads.
    pub fn place(&self, entry: &Entry, metric: Metric, build: &Settings, threads: usize) -> Kept {
        let what = format!("{} {} {} {build}", self.base, entry.key, metric.name());
        let name = format!("{}-{:08x}.knn", entry.key, xxh3_64(what.as_bytes()) as u32);
        let (level, sources) = (simd::level(), env!("FASHION_KNN_SOURCES"));
        Kept {
            path: self.folder.join(name),
            origin: format!("{what}, {threads} threads, {level}, sources {sources}"),
        }
    }
}

impl Kept {
    /// The index, and the seconds that its build took, if it is there. A file that cannot be read
    /// is as good as none.
    pub fn load(&self, entry: &Entry) -> Option<(Built, f64)> {
        let mut file = IndexFile::open(&self.path).ok()?;
        let build_s = file.note(BUILD_S)?.parse().ok()?;
        if file.note(ORIGIN)? != self.origin {
            return None;
        }
        Some(((entry.load)(&mut file).ok()?, build_s))
    }

    /// Keeps the index if its build took long. Where that cannot be done, it is built again the
    /// next time: no reason to stop.
    pub fn keep(&self, built: &Built, build_s: f64) {
        if build_s < WORTHWHILE_S {
            return;
        }
        if let Ok(index) = built(&Settings::default()) {
            let notes = [
                (ORIGIN, self.origin.clone()),
                (BUILD_S, build_s.to_string()),
            ];
            let _ = save_with(&*index, &self.path, &notes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::registry::find;
    use std::fs;
    use std::sync::Arc;

    fn base(last: u8) -> Arc<Vectors> {
        let mut values: Vec<u8> = (0..3_000u32).map(|i| (i * i % 251) as u8).collect();
        values.push(last);
        values.extend([7; 2]);
        Arc::new(Vectors::from_bytes(3, values).unwrap())
    }

    #[test]
    fn an_index_is_taken_only_where_all_that_it_was_built_from_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let entry = find("annoy").unwrap();
        let build: Settings = "n_trees=3".parse().unwrap();
        let built = (entry.build)(base(1), &build).unwrap();
        let place = |base: &Vectors, build: &str, threads| {
            let builds = Builds::new(folder.path().to_owned(), base);
            builds.place(entry, Metric::Euclidean, &build.parse().unwrap(), threads)
        };
        let here = place(&base(1), "n_trees=3", 1);
        assert!(here.load(entry).is_none());
        // Too fast a build to be kept.
        here.keep(&built, 0.5);
        assert!(here.load(entry).is_none());
        here.keep(&built, 2.25);
        let (again, build_s) = here.load(entry).unwrap();
        assert_eq!(build_s, 2.25);
        let index = again(&Settings::default()).unwrap();
        assert_eq!((index.len(), index.params()[0]), (1_001, ("n_trees", 3.0)));

        assert!(place(&base(2), "n_trees=3", 1).load(entry).is_none());
        assert!(place(&base(1), "n_trees=4", 1).load(entry).is_none());
        assert!(place(&base(1), "n_trees=3", 2).load(entry).is_none());
        let mut other_sources = place(&base(1), "n_trees=3", 1);
        other_sources.origin.push('0');
        assert!(other_sources.load(entry).is_none());
        // The same name, so that the stale file is replaced and not left behind.
        other_sources.keep(&built, 3.0);
        assert!(here.load(entry).is_none() && other_sources.load(entry).is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&here.path, "damaged").unwrap();
        assert!(other_sources.load(entry).is_none());
    }
}
