//! Programs that are killed at any moment: a later run succeeds, nothing half-written stays, and
//! nothing that was whole is lost. How they are killed stands in `tests/killing`.

#![cfg(unix)]

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use fashion_knn::lab::record::{Measurement, read_csv};

mod fetching;
mod inside;
mod killing;
mod room;
mod serving;

use fetching::{fashion_mnist, fetch};
use killing::{kill_after, kill_at_calls, moments, succeeded, traced, undisturbed};
use room::Room;
use serving::{OK, send, send_file, server};

/// `measure` of a small task into `a.csv`, called `name` there. Each seed has other data, whose
/// true neighbours are not in the cache yet.
fn measure(room: &Room, name: &str, seed: usize) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_measure"));
    command
        .args(["--data", &format!("shape:uniform,n=60,d=3,seed={seed}")])
        .args(["--n-queries", "5", "--k", "3", "--out", "a.csv"])
        .args(["--index", "brute_force,kd_tree", "--sweep", "query"])
        .args(["--name", name]);
    command
}

/// The record's rows, which must be those of `before` and perhaps more; how many are called `name`.
#[track_caller]
fn rows(room: &Room, before: &[Measurement], name: &str) -> (Vec<Measurement>, usize) {
    let after = read_csv(&room.path("a.csv")).unwrap();
    assert!(after.starts_with(before), "old rows are gone");
    let of_name = after.iter().filter(|row| row.data == name).count();
    (after, of_name)
}

/// Only the record and true neighbours are in the folder: of a killed program nothing is left.
#[track_caller]
fn assert_tidy(room: &Room) {
    let is_whole = |name: &String| name == "a.csv" || name.starts_with("data/cache/truth-");
    let files = room.files();
    assert!(files.iter().all(is_whole), "{files:?}");
}

/// Two of three runs with one record are killed.
#[test]
fn measure_killed_at_any_moment_loses_no_row() {
    let room = Room::new();
    let whole = undisturbed(measure(&room, "first", 0));
    let (mut before, _) = rows(&room, &[], "first");
    for (number, moment) in moments(1, whole).into_iter().enumerate() {
        let start = |name| measure(&room, name, number).spawn().unwrap();
        let killed = [start("killed"), start("killed")];
        let survivor = format!("survivor {number}");
        let survives = start(&survivor);
        for child in killed {
            kill_after(moment, child);
        }
        succeeded(&survives.wait_with_output().unwrap());
        let (after, of_survivor) = rows(&room, &before, &survivor);
        assert_eq!(of_survivor, 2, "killed after {moment:?}");
        // What was killed, again.
        let again = format!("again {number}");
        undisturbed(measure(&room, &again, number));
        let (after, of_again) = rows(&room, &after, &again);
        assert_eq!(of_again, 2, "killed after {moment:?}");
        // Whoever writes to the cache takes away what was left there. The neighbours above may have
        // been there already; these are not.
        undisturbed(measure(&room, "other data", 1_000 + number));
        assert_tidy(&room);
        (before, _) = rows(&room, &after, "other data");
    }
}

#[test]
fn measure_killed_at_a_call_on_its_files_loses_no_row() {
    let room = Room::new();
    undisturbed(measure(&room, "first", 0));
    let (mut before, _) = rows(&room, &[], "first");
    let cache = room.path("data/cache");
    // The truth has to be computed and written in each run.
    let killed = || {
        fs::remove_dir_all(&cache).unwrap();
        measure(&room, "killed", 1)
    };
    kill_at_calls(2, killed, |call| {
        let (after, _) = rows(&room, &before, "killed");
        let again = format!("again {call}");
        undisturbed(measure(&room, &again, 1));
        let (after, of_again) = rows(&room, &after, &again);
        assert_eq!(of_again, 2, "killed at call {call}");
        assert_tidy(&room);
        before = after;
    });
}

/// A machine that dies keeps what was on its disk. So the bytes have to be there before the name
/// is: the last call on a file before it is renamed is `fsync`.
#[test]
fn a_file_is_on_the_disk_before_it_has_its_name() {
    let room = Room::new();
    let Some(log) = traced(&measure(&room, "first", 0)) else {
        return;
    };
    let mut last = HashMap::new();
    let mut renamed = 0;
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        if call.trim_start().starts_with("rename") {
            assert_eq!(last.get(thread), Some(&"fsync"), "{log}");
            renamed += 1;
        }
        if let Some((name, _)) = call.trim_start().split_once('(') {
            last.insert(thread, name);
        }
    }
    // The true neighbours, and the record after each of the two indexes.
    assert_eq!(renamed, 3, "{log}");
}

/// Whatever is under the name of one of the four files is what was published.
fn assert_whole(room: &Room, published: &HashMap<String, Vec<u8>>) {
    let files = room.files();
    for name in files.iter().filter(|name| name.ends_with(".gz")) {
        let published = &published[name.trim_start_matches("data/fashion-mnist")];
        assert!(fs::read(room.path(name)).unwrap() == *published, "{name}");
    }
}

/// All four files are there, and nothing else.
#[track_caller]
fn assert_fetched(room: &Room, published: &HashMap<String, Vec<u8>>) {
    let files = room.files();
    assert_eq!(files.len(), 4, "{files:?}");
    assert_whole(room, published);
}

/// Servers that stall, cut, redirect to themselves, send something else: nothing is ever stored.
#[test]
fn fetch_killed_while_a_server_fails_it_leaves_nothing() {
    let room = Room::new();
    let url = server(|path, stream| match path.as_bytes() {
        // The address that is asked for begins with the fault's name.
        [b'/', b's', ..] => thread::sleep(Duration::from_secs(3_600)),
        [b'/', b'c', ..] => send(stream, format!("{OK} 1000\r\n\r\ncut")),
        [b'/', b'r', ..] => {
            send(
                stream,
                format!("HTTP/1.1 302 There\r\nLocation: {path}\r\n\r\n"),
            );
        }
        _ => send_file(stream, b"another file"),
    });
    for (seed, fault) in ["stalls", "cuts", "redirects", "other"]
        .into_iter()
        .enumerate()
    {
        for moment in moments(seed as u64, Duration::from_millis(100)) {
            let child = fetch(&room, &format!("{url}/{fault}")).spawn().unwrap();
            kill_after(moment, child);
            assert_eq!(room.files(), [""; 0], "{fault}, killed after {moment:?}");
        }
    }
}

#[test]
#[ignore = "needs Fashion-MNIST"]
fn fetch_killed_at_any_moment_is_repeated_with_success() {
    let published = fashion_mnist();
    let bodies = published.clone();
    let url = server(move |path, stream| send_file(stream, &bodies[path]));
    let room = Room::new();
    let whole = undisturbed(fetch(&room, &url));
    assert_fetched(&room, &published);
    let data = room.path("data");
    for moment in moments(5, whole) {
        fs::remove_dir_all(&data).unwrap();
        kill_after(moment, fetch(&room, &url).spawn().unwrap());
        assert_whole(&room, &published);
        undisturbed(fetch(&room, &url));
        assert_fetched(&room, &published);
    }
    let killed = || {
        fs::remove_dir_all(&data).unwrap();
        fetch(&room, &url)
    };
    kill_at_calls(6, killed, |_| {
        assert_whole(&room, &published);
        undisturbed(fetch(&room, &url));
        assert_fetched(&room, &published);
    });
}
