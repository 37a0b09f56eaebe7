//! Disks on which nothing can be written.
//!
//! Linux gives a process a disk of its own, one megabyte in memory, which can be filled up or made
//! read-only. Where that is not allowed, the tests say that they are skipped. The same way through
//! the programs is taken by a limit on the size of files, which every system has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::inside::inside;
use crate::room::Room;

/// A disk of its own over the folder `disk`, with what was in the folder, and the fault in it. Then
/// the program. Then what is on the disk is copied to `after`, since it ends with the process, and
/// in `disk` is what was there before.
const WITH_DISK: &str = r#"
    cp -R disk before && mount -t tmpfs -o size=1m tmpfs disk && cp -R before/. disk || exit 99
    case $1 in
        full) cat /dev/zero >disk/filler 2>/dev/null ;;
        read-only) mount -o remount,ro disk || exit 99 ;;
    esac
    shift
    "$@"
    code=$?
    rm -rf after before
    cp -R disk after && rm -f after/filler && exit $code
"#;

/// Files may be made, but not grow: to write to one is an error, as on a full disk. Here too `disk`
/// is as it was before, and what the program made of it is in `after`.
const LIMITED: &str = r#"
    trap '' XFSZ
    rm -rf after before
    cp -R disk before || exit 99
    (ulimit -f 0 && exec "$@")
    code=$?
    mv disk after && mv before disk && exit $code
    exit 99
"#;

pub const FULL: &str = "full";
pub const READ_ONLY: &str = "read-only";

/// Runs it on a disk with the fault, if there can be one.
pub fn on_disk(fault: &str, command: &Command) -> Option<Output> {
    let own_disks = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount"]);
        unshare
    };
    let mut trial = own_disks();
    trial.args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a process gets no disk of its own here");
        return None;
    }
    let mut shell = own_disks();
    shell.args(["sh", "-c", WITH_DISK, "sh", fault]);
    let output = inside(shell, command).output().unwrap();
    assert_ne!(output.status.code(), Some(99), "{output:?}");
    Some(output)
}

pub fn limited(command: &Command) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", LIMITED, "sh"]);
    let output = inside(shell, command).output().unwrap();
    assert_ne!(output.status.code(), Some(99), "{output:?}");
    output
}

/// An error that names what could not be written, and why.
#[track_caller]
pub fn assert_refused(output: &Output, what: &str, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let error = told.lines().find(|line| line.starts_with("error: "));
    assert!(
        error.is_some_and(|error| error.contains(what) && error.contains(why)),
        "{told}"
    );
}

/// What is in a folder and the folders in it.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = content(&path).into_iter();
            found.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// On the disk is what was there before the run.
#[track_caller]
pub fn assert_unchanged(room: &Room) {
    assert!(
        content(&room.path("after")) == content(&room.path("disk")),
        "{:?}",
        room.files()
    );
}
