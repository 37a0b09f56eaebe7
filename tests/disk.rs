//! A full disk and a folder that is read-only: a clear error, and what was there before is whole.
//! Where such a disk comes from stands in `tests/broken_disk`.

#![cfg(unix)]

use std::ffi::OsStr;
use std::process::Command;

mod broken_disk;
mod fetching;
mod inside;
mod room;
mod serving;

use broken_disk::{FULL, READ_ONLY, assert_refused, assert_unchanged, limited, on_disk};
use fetching::{fashion_mnist, fetch};
use room::Room;
use serving::{send_file, server};

/// A small task, of which a row goes to `disk/a.csv`.
const SMALL: [&str; 10] = [
    "--data",
    "shape:uniform,n=60,d=3",
    "--n-queries",
    "5",
    "--k",
    "3",
    "--index",
    "brute_force",
    "--out",
    "disk/a.csv",
];

fn measure<A: AsRef<OsStr>>(room: &Room, arguments: &[A]) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_measure"));
    command.args(arguments);
    command
}

/// A room with a record of one row on its disk.
fn room() -> Room {
    let room = Room::new();
    let output = measure(&room, &SMALL).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    room
}

#[test]
fn a_record_that_cannot_be_written_stays_whole() {
    let room = room();
    let command = measure(&room, &SMALL);
    assert_refused(&limited(&command), "disk/a.csv", "File too large");
    assert_unchanged(&room);
    for (fault, why) in [
        (FULL, "No space left"),
        (READ_ONLY, "Read-only file system"),
    ] {
        let Some(output) = on_disk(fault, &command) else {
            return;
        };
        assert_refused(&output, "disk/a.csv", why);
        assert_unchanged(&room);
        // A read-only disk is found before anything is measured.
        assert!(fault == FULL || output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn an_export_that_cannot_be_written_leaves_nothing() {
    let room = room();
    let arguments = [&SMALL[..8], &["--export", "disk"]].concat();
    let command = measure(&room, &arguments);
    assert_refused(&limited(&command), "disk/base.npy", "File too large");
    assert_unchanged(&room);
    for (fault, what, why) in [
        (FULL, "disk/base.npy", "No space left"),
        (READ_ONLY, "--export disk", "Read-only file system"),
    ] {
        let Some(output) = on_disk(fault, &command) else {
            return;
        };
        assert_refused(&output, what, why);
        assert_unchanged(&room);
    }
}

/// The true neighbours need not be kept: what is measured is recorded all the same.
#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let room = room();
    for (fault, why) in [
        (FULL, "No space left"),
        (READ_ONLY, "Read-only file system"),
    ] {
        let mut command = measure(&room, &[&SMALL[..9], &["a.csv"]].concat());
        command.env("FASHION_KNN_DATA", "disk");
        let Some(output) = on_disk(fault, &command) else {
            return;
        };
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let warning = told.lines().find(|line| line.starts_with("warning: "));
        assert!(
            warning.is_some_and(|warning| warning.contains(why)),
            "{told}"
        );
        assert_unchanged(&room);
    }
}

/// Whether the folder can be written is tried before anything is asked for.
#[test]
fn a_read_only_folder_is_told_before_anything_is_fetched() {
    let room = room();
    let mut command = fetch(&room, &server(|_, _| ()));
    command.env("FASHION_KNN_DATA", "disk");
    if let Some(output) = on_disk(READ_ONLY, &command) {
        assert_refused(&output, "disk/fashion-mnist", "Read-only file system");
        assert_unchanged(&room);
    }
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn what_is_fetched_and_cannot_be_written_leaves_nothing() {
    let published = fashion_mnist();
    let url = server(move |path, stream| send_file(stream, &published[path]));
    let room = room();
    let mut command = fetch(&room, &url);
    command.env("FASHION_KNN_DATA", "disk");
    assert_refused(&limited(&command), "disk/fashion-mnist", "File too large");
    assert_unchanged(&room);
    if let Some(output) = on_disk(FULL, &command) {
        assert_refused(&output, "disk/fashion-mnist", "No space left");
        assert_unchanged(&room);
    }
}
