//! Where the project keeps its files, and how it writes them: whole or not at all.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder of the project's data.
///
/// It is the first of:
/// 1. the environment variable `FASHION_KNN_DATA`;
/// 2. `data` of the checkout that the program was started in: of the nearest folder, from the current one upwards, that
///    has both a `Cargo.toml` and a `data` folder;
/// 3. `fashion-knn` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`);
/// 4. `data` in the current folder.
#[must_use]
pub fn data_dir() -> PathBuf {
    if let Some(named) = variable("FASHION_KNN_DATA") {
        return named;
    }
    if let Some(data) = env::current_dir()
        .ok()
        .and_then(|folder| checkout_data(&folder))
    {
        return data;
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    cache.map_or_else(|| PathBuf::from("data"), |cache| cache.join("fashion-knn"))
}

/// The folder of what the project computes and can compute again: trained nets, their features, true neighbours.
#[must_use]
pub fn cache_dir() -> PathBuf {
    data_dir().join("cache")
}

/// `data` of the checkout that `folder` is in, if it is in one.
fn checkout_data(folder: &Path) -> Option<PathBuf> {
    let root = folder
        .ancestors()
        .find(|at| at.join("Cargo.toml").is_file() && at.join("data").is_dir())?;
    Some(root.join("data"))
}

/// An environment variable that names a folder, unless it is empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Writes a file under a temporary name and renames it, so that there is a whole file or none.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // Temporary files are private; what they become is not.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
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
