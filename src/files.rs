//! Where the project keeps its files, and how it writes them: whole or not at all.
//!
//! ```text
//! data_dir()                 see there how it is found
//! ├── fashion-mnist/         the data set, where it was fetched
//! └── cache/                 cache_dir(): trained nets, features, true neighbours
//! ```

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use same_file::Handle;
use tempfile::NamedTempFile;

mod map;

pub use map::Map;

/// The folder of the project's data.
///
/// It is the first of these that there is:
/// 1. the folder that the environment variable `FASHION_KNN_DATA` names;
/// 2. `data` in the checkout that the program was started in. The checkout is the nearest folder,
///    from the current one upwards, that has a `data` folder and the `Cargo.toml` of this project;
/// 3. `fashion-knn` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`);
/// 4. `data` in the current folder.
///
/// So an installed program finds the same data from any folder. The folder need not exist yet.
#[must_use]
pub fn data_dir() -> PathBuf {
    if let Some(named) = variable("FASHION_KNN_DATA") {
        return named;
    }
    if let Some(root) = checkout() {
        return root.join("data");
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

/// The root of the checkout of this project that the program was started in, if it was in one.
pub(crate) fn checkout() -> Option<PathBuf> {
    // The current folder cannot be told if it was removed, for instance. Then there is no checkout.
    checkout_around(&env::current_dir().ok()?)
}

/// The root of the checkout of this project that `folder` is in, if it is in one.
fn checkout_around(folder: &Path) -> Option<PathBuf> {
    let manifest_line = concat!("name = \"", env!("CARGO_PKG_NAME"), "\"");
    // The manifest has to name this package: another project must neither get our files into its
    // folders nor lend its commit to what we measure.
    let is_root = |at: &&Path| {
        at.join("data").is_dir()
            && fs::read_to_string(at.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.lines().any(|line| line == manifest_line))
    };
    // `ancestors` begins with the folder itself.
    folder.ancestors().find(is_root).map(PathBuf::from)
}

/// The folder that an environment variable names, unless it is unset or empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        // An empty path would be the current folder, which nobody means who clears a variable.
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The folder that a file is in: the current one if the path has no other.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        // `parent` of "a.csv" is the empty path, which names no folder.
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the folder if it is not there, and tries whether files can be put into it.
///
/// # Errors
/// If they cannot.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // A temporary file is the test; it is gone as soon as it is dropped, here at once.
    tempfile::tempfile_in(folder).map(drop)
}

/// Tries whether the file can be made, or replaced if it is there, and leaves it as it is. Its
/// folder is made.
///
/// # Errors
/// If it cannot, or is something else than a file.
pub fn check_file(path: &Path) -> io::Result<()> {
    let path = &behind_links(path)?;
    if path.exists() {
        check_replaceable(&File::options().append(true).open(path)?)?;
    }
    check_folder(folder_of(path))
}

/// A file that is replaced has to be one that may be written.
fn check_replaceable(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // A rename does not ask for this, and root may write to any file. Whoever took the permission
    // away wants the file kept.
    if metadata.permissions().readonly() {
        let why = "the file is read-only";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Locks the file until what is returned is dropped. Another program that asks for the lock waits
/// until then, so that reading the file, and replacing it, is one step. The file is made, empty, if
/// it is not there.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    fs::create_dir_all(folder_of(path))?;
    loop {
        let file = File::options().append(true).create(true).open(path)?;
        check_replaceable(&file)?;
        file.lock()?;
        // Whoever had the lock before has put a new file in the place of this one. Then the lock is
        // of a file that nobody finds any more, and the new one has to be locked.
        if is_named(path, &file)? {
            return Ok(file);
        }
    }
}

/// Whether the path leads to this open file, and not to another that has taken its place, or none.
fn is_named(path: &Path, file: &File) -> io::Result<bool> {
    let open = Handle::from_file(file.try_clone()?)?;
    Ok(Handle::from_path(path).is_ok_and(|named| named == open))
}

/// What the names of files that are being written begin and end with.
const UNFINISHED: [&str; 2] = [".fashion-knn-", ".unfinished"];
/// So many links are followed, one after the other. Linux gives up after as many.
const MOST_LINKS: usize = 40;

/// Writes a file under a temporary name, then renames it. A reader, or whoever comes after a crash,
/// sees the old file or the new one, never a part. What a killed program has left unfinished in the
/// folder is removed.
///
/// # Errors
/// If the file, or its folder, cannot be made. What was there under its name stays.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of what `write` writes, for what need not be in memory all at once.
///
/// # Errors
/// As [`write_atomically`], and if `write` fails.
pub fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let path = &behind_links(path)?;
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    remove_abandoned(folder);
    // In the same folder, because a rename is one step only within a file system. If anything below
    // fails, the temporary file is removed when it is dropped.
    let mut file = unfinished_in(folder)?;
    write(file.as_file_mut())?;
    // Who may read or write the old file may do so with the new one, and nobody else.
    if let Ok(old) = fs::metadata(path)
        && old.permissions() != file.as_file().metadata()?.permissions()
    {
        file.as_file().set_permissions(old.permissions())?;
    }
    // The bytes must be on the disk before the name is. Otherwise a crash of the machine could
    // leave the new name with an empty file.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The file that a symbolic link leads to, whether it is there yet or not: it is replaced, and not
/// the link. A path that is no link is the file itself.
///
/// # Errors
/// If links lead to each other in a circle.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..=MOST_LINKS {
        if let Ok(file) = fs::canonicalize(&path) {
            return Ok(file);
        }
        // A target is relative to the folder of its link.
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    let why = format!("{}: too many symbolic links", path.display());
    Err(io::Error::other(why))
}

/// A new temporary file in the folder, locked as long as it is open: a program that is killed loses
/// its locks, so that others see what it has abandoned.
fn unfinished_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED[0]).suffix(UNFINISHED[1]);
    // Temporary files can be read by their owner only. The file that this one becomes should have
    // the permissions of any other: to be read by all, and written by its owner.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    loop {
        let file = builder.tempfile_in(folder)?;
        // Before it was locked, another program may have taken it for abandoned. Where there are no
        // locks, as on some network drives, nobody can have.
        if file.as_file().lock().is_err() || is_named(file.path(), file.as_file())? {
            return Ok(file);
        }
    }
}

/// Removes the temporary files in the folder that no program holds open any more. What cannot be
/// removed stays: it is in nobody's way.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if name.starts_with(UNFINISHED[0])
            && name.ends_with(UNFINISHED[1])
            && let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            // While it is locked here: whoever has just made it waits, and finds it gone.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_of_this_project_is_found_from_the_folders_inside_it() {
        let root = tempfile::tempdir().unwrap();
        let notebooks = root.path().join("notebooks");
        fs::create_dir_all(&notebooks).unwrap();
        fs::create_dir_all(root.path().join("data")).unwrap();
        assert_eq!(checkout_around(&notebooks), None);
        let manifest = root.path().join("Cargo.toml");
        fs::write(&manifest, "[package]\nname = \"another\"\n").unwrap();
        assert_eq!(checkout_around(&notebooks), None, "another project's");
        fs::write(&manifest, "[package]\nname = \"fashion-knn\"\n").unwrap();
        assert_eq!(checkout_around(&notebooks), Some(root.path().to_path_buf()));
    }

    /// 8 threads count in one file, each 20 times.
    #[test]
    fn a_lock_makes_reading_and_replacing_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/count");
        let count = || {
            for _ in 0..20 {
                let _lock = lock(&path).unwrap();
                let before = fs::read_to_string(&path).unwrap();
                write_atomically(&path, (before + "+").as_bytes()).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(count);
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "+".repeat(160));
        // Nothing else is left in the folder.
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_is_found_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        check_file(&file).unwrap();
        assert!(!file.exists());
        fs::write(&file, "text").unwrap();
        check_file(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        assert!(check_file(folder.path()).is_err(), "a folder");
        check_file(&folder.path().join("new/folder/file")).unwrap();
        assert_eq!(folder_of(Path::new("file")), Path::new("."));
        assert!(check_file(&file.join("below")).is_err(), "below a file");
        let mut permissions = fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&file, permissions).unwrap();
        let error = check_file(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(lock(&file).is_err());
    }

    #[test]
    fn what_a_killed_program_left_unfinished_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // A program that is killed loses its lock and does not remove its file.
        let (killed, abandoned) = unfinished_in(folder.path()).unwrap().keep().unwrap();
        drop(killed);
        let of_the_user = ["novel.unfinished", ".fashion-knn-notes"];
        for name in of_the_user {
            fs::write(path(name), "of the user").unwrap();
        }
        let living = unfinished_in(folder.path()).unwrap();
        write_atomically(&path("new"), b"whole").unwrap();
        assert!(!abandoned.exists());
        assert!(living.path().exists());
        for name in of_the_user {
            assert!(path(name).exists(), "{name}");
        }
    }

    /// Where it has its name at last: a rename from another folder may lead to another disk.
    #[test]
    fn a_file_is_written_in_its_own_folder_which_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = unfinished_in(folder.path()).unwrap();
        assert_eq!(unfinished.path().parent(), Some(folder.path()));
        let path = folder.path().join("new/folder/file");
        write_atomically(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        // A folder is not replaced, and nothing stays beside it.
        let beside = folder.path().join("new");
        assert!(write_atomically(&beside.join("folder"), b"whole").is_err());
        assert_eq!(fs::read_dir(beside).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_can_be_read_by_all_and_written_by_its_owner_and_an_old_one_as_before() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        write_atomically(&path("new"), b"whole").unwrap();
        fs::write(path("plain"), "").unwrap();
        // Less what the user takes away from every file (umask).
        assert_eq!(mode("new"), mode("plain") & 0o644);
        for old in [0o600, 0o664] {
            fs::set_permissions(path("plain"), fs::Permissions::from_mode(old)).unwrap();
            write_atomically(&path("plain"), b"whole").unwrap();
            assert_eq!(mode("plain"), old);
        }
    }

    /// 8 threads write one file without a lock of their own, each 50 times. What they read
    /// meanwhile is whole.
    #[test]
    fn what_a_living_program_writes_is_not_taken_for_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for text in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_atomically(path, text.repeat(5_000).as_bytes()).unwrap();
                        let text = fs::read_to_string(path).unwrap();
                        assert_eq!(text, text[..1].repeat(5_000));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn of_a_link_the_file_is_replaced_that_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // The file need not be there.
        fs::remove_file(&file).unwrap();
        write_atomically(&link, b"made").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "made");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // A target is relative to the folder of its link; what cannot be written there is told.
        let relative = folder.path().join("relative");
        std::os::unix::fs::symlink("there", &relative).unwrap();
        write_atomically(&relative, b"made").unwrap();
        assert!(folder.path().join("there").is_file());
        let lost = folder.path().join("lost");
        std::os::unix::fs::symlink(file.join("below a file"), &lost).unwrap();
        assert!(check_file(&lost).is_err() && write_atomically(&lost, b"made").is_err());
        // Links in a circle lead to no file, and stay.
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert!(check_file(&circle).is_err() && write_atomically(&circle, b"made").is_err());
        assert!(fs::symlink_metadata(&circle).unwrap().is_symlink());
        // A device is neither.
        assert!(check_file(Path::new("/dev/null")).is_err());
    }
}
