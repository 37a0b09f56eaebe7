//! A folder in which the tests of faults run the built programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A folder outside of any checkout.
pub struct Room(TempDir);

impl Room {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that runs in the folder, with the project's data in `data` there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("FASHION_KNN_DATA", self.path("data"))
            .env_remove("FASHION_MNIST_DIR");
        command
    }

    /// All files in the folder and the folders in it, hidden ones too, in order.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(self.name_of(&path));
                }
            }
        }
        found.sort();
        found
    }

    fn name_of(&self, path: &Path) -> String {
        let name = path.strip_prefix(self.0.path()).unwrap();
        name.to_str().unwrap().to_owned()
    }
}
