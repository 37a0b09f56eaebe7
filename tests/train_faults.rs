//! Trainings that are killed at any moment: the same command again goes on, and ends with the same
//! nets as one that nobody killed. And trainings on a disk that is full or read-only. How they are
//! killed, and where such a disk comes from, stands in `tests/killing` and `tests/broken_disk`.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

mod broken_disk;
mod inside;
mod killing;
mod room;

use broken_disk::{FULL, READ_ONLY, assert_refused, assert_unchanged, limited, on_disk};
use killing::{kill_after, kill_at_calls, moments, undisturbed};
use room::Room;

/// Nets, trained briefly. Of an MLP, the features of all images are kept too.
fn train(room: &Room, models: &str) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_train"));
    command
        .args(["--models", models, "--epochs", "2", "--images", "600"])
        .args(["--threads", "1"]);
    // The data set is where it is without the room.
    if let Some(folder) = fashion_knn::fashion::find() {
        command.env("FASHION_MNIST_DIR", folder);
    }
    command
}

/// A line of the table without what differs from run to run: the times and the machine.
fn figures(room: &Room) -> Vec<String> {
    let text = fs::read_to_string(room.path("models.csv")).unwrap();
    let line = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        // model, params, epochs; test_accuracy, val_accuracy, seed.
        [&fields[..3], &fields[5..8]].concat().join(",")
    };
    text.lines().map(line).collect()
}

/// The features, by file. Its name is a hash of the net's parameters.
fn features(room: &Room) -> BTreeMap<String, Vec<u8>> {
    let names = room.files().into_iter();
    names
        .filter(|name| name.contains("features"))
        .map(|name| (name.clone(), fs::read(room.path(&name)).unwrap()))
        .collect()
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn a_training_killed_at_any_moment_goes_on_to_the_same_nets() {
    let room = Room::new();
    let training = |models| {
        let mut command = train(&room, models);
        command.args(["--out", "models.csv"]);
        command
    };
    undisturbed(training("svm"));
    let table = fs::read(room.path("models.csv")).unwrap();
    let cache = room.path("data/cache");
    // The row of another net is there before, and has to stay.
    let fresh = || {
        fs::remove_dir_all(&cache).unwrap();
        fs::write(room.path("models.csv"), &table).unwrap();
        training("logistic,mlp")
    };
    let before = figures(&room);
    let whole = undisturbed(fresh());
    let (wanted, wanted_files, wanted_features) = (figures(&room), room.files(), features(&room));
    assert_eq!(wanted.len(), before.len() + 2);
    assert_eq!(wanted_features.len(), 2, "{wanted_files:?}");
    let check = |at: &str| {
        let killed = figures(&room);
        assert!(killed == before || killed == wanted, "{at}: {killed:?}");
        undisturbed(training("logistic,mlp"));
        assert_eq!(figures(&room), wanted, "{at}");
        assert_eq!(room.files(), wanted_files, "{at}");
        assert!(features(&room) == wanted_features, "{at}");
    };
    for moment in moments(7, whole) {
        kill_after(moment, fresh().spawn().unwrap());
        check(&format!("{moment:?}"));
    }
    kill_at_calls(7, fresh, check);
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn a_training_that_cannot_be_written_leaves_what_was_there() {
    let room = Room::new();
    fs::create_dir(room.path("disk")).unwrap();
    let training = |model, out, cache| {
        let mut command = train(&room, model);
        command.args(["--out", out, "--cache", cache]);
        command
    };
    undisturbed(training("svm", "disk/models.csv", "cache"));
    // First the table is on the disk, of a net that has been learned; then a checkpoint.
    let to_table = training("svm", "disk/models.csv", "cache");
    let to_cache = training("logistic", "models.csv", "disk/cache");
    for (command, what) in [
        (to_table, "disk/models.csv"),
        (to_cache, "disk/cache/logistic"),
    ] {
        assert_refused(&limited(&command), what, "File too large");
        assert_unchanged(&room);
        for (fault, why) in [
            (FULL, "No space left"),
            (READ_ONLY, "Read-only file system"),
        ] {
            if let Some(output) = on_disk(fault, &command) {
                assert_refused(&output, what, why);
                assert_unchanged(&room);
            }
        }
    }
}
