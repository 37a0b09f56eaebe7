//! Where the project keeps its files, and how it writes them: whole or not at all.
//!
//! ```text
//! data_dir()                 see there how it is found
//! ├── fashion-mnist/         the data set, where it was fetched
//! └── cache/                 cache_dir(): trained nets, features, true neighbours
//! ```

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder of the project's data.
///
/// It is the first of these that there is:
/// 1. the folder that the environment variable `FASHION_KNN_DATA` names;
/// 2. `data` in the checkout that the program was started in. The checkout is the nearest folder,
///    from the current one upwards, that has both a `Cargo.toml` and a `data` folder;
/// 3. `fashion-knn` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`);
/// 4. `data` in the current folder.
///
/// So an installed program finds the same data from any folder. The folder need not exist yet.
#[must_use]
pub fn data_dir() -> PathBuf {
    if let Some(named) = variable("FASHION_KNN_DATA") {
        return named;
    }
    // The current folder cannot be told if it was removed, for instance. Then there is no checkout.
    if let Ok(current) = env::current_dir()
        && let Some(data) = checkout_data(&current)
    {
        return data;
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return cache.join("fashion-knn");
    }
    if let Some(home) = variable("HOME") {
        return home.join(".cache/fashion-knn");
    }
    PathBuf::from("data")
}

/// The folder for what the project computes and can compute again: trained nets, their features,
/// true neighbours.
#[must_use]
pub fn cache_dir() -> PathBuf {
    data_dir().join("cache")
}

/// `data` of the checkout that `folder` is in, if it is in one.
fn checkout_data(folder: &Path) -> Option<PathBuf> {
    // `ancestors` begins with the folder itself. Both signs are asked for: a `Cargo.toml` alone
    // could be any crate's, and a `data` folder anyone's.
    let root = folder
        .ancestors()
        .find(|at| at.join("Cargo.toml").is_file() && at.join("data").is_dir())?;
    Some(root.join("data"))
}

/// The folder that an environment variable names, unless it is unset or empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        // An empty path would be the current folder, which nobody means who clears a variable.
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Writes a file under a temporary name, then renames it. A reader, or whoever comes after a crash,
/// sees the old file or the new one, never a part.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // Temporary files can be read by their owner only. The file that this one becomes should have
    // the permissions of any other: to be read by all, and written by its owner.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    // In the same folder, because a rename is one step only within a file system. If anything below
    // fails, the temporary file is removed when it is dropped.
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    // The bytes must be on the disk before the name is. Otherwise a crash of the machine could
    // leave the new name with an empty file.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_the_folders_inside_it() {
        let root = tempfile::tempdir().unwrap();
        let notebooks = root.path().join("notebooks");
        fs::create_dir_all(&notebooks).unwrap();
        fs::create_dir_all(root.path().join("data")).unwrap();
        assert_eq!(checkout_data(&notebooks), None);
        fs::write(root.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(checkout_data(&notebooks), Some(root.path().join("data")));
    }
}
