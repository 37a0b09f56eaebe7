//! Files in the address space: read by the system, page by page, when somebody looks at them.
//!
//! This is the one place of `unsafe` code outside of `simd`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// The bytes of a file, which the system reads when they are looked at and drops when memory is
/// short. A copy is cheap: it shares them.
///
/// **Whoever maps a file trusts everybody not to change it as long as it is mapped.** Values that
/// change under a reader are wrong answers, or a program that ends. Where the file becomes shorter,
/// the system ends the program that looks at what is gone (SIGBUS). A file that is replaced by a
/// rename, as [`write_atomically`](super::write_atomically) does, is no such change: the old one
/// stays until nobody has it open.
#[derive(Debug, Clone)]
pub struct Map(Arc<Mmap>);

impl Map {
    /// Maps a file. Nothing of it is read yet.
    ///
    /// ```
    /// use fashion_knn::files::Map;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("four.bytes");
    /// std::fs::write(&path, [1, 2, 3, 4])?;
    /// assert_eq!(Map::open(&path)?[1..3], [2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be opened, is no regular file, or the system has no addresses for it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// Maps a file that is open already.
    ///
    /// # Errors
    /// As [`Map::open`].
    pub fn of(file: &File) -> io::Result<Self> {
        // What else can be opened, a device or a pipe, has no length, and may change at any time.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        // SAFETY: the map is only ever read, as bytes, of which every pattern is a value. It stays
        // as long as there is a reference into it, for `Mmap` owns it. What no program can assure
        // is that the file stays as it is: that is what the documentation of this type asks for.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Arc::new(map)))
    }
}

impl Deref for Map {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_map_shows_the_file_and_only_a_file_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let map = Map::open(&path).unwrap();
        assert_eq!(*map, *bytes);
        // A new file in its place does not change what is mapped.
        crate::files::write_atomically(&path, b"new").unwrap();
        assert_eq!(*map.clone(), *bytes);
        fs::write(&path, []).unwrap();
        assert!(Map::open(&path).unwrap().is_empty());
        assert!(Map::open(folder.path()).is_err(), "a folder");
        assert!(Map::open(folder.path().join("none")).is_err());
        #[cfg(unix)]
        assert!(Map::open("/dev/zero").is_err());
    }
}
