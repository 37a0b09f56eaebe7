//! How the tests kill a program: by SIGKILL, which it can neither catch nor put off.
//!
//! - At random moments, as many as `FASHION_KNN_KILLS` says (3 if it says nothing).
//! - At as many of the system calls that make, write, rename, remove or lock a file: the moments
//!   between which a killed program can leave another state behind. strace does that, where it is
//!   installed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::inside::inside;

/// Kills of each sort in a usual run.
const KILLS: usize = 3;

/// System calls after which the files are others than before. A "?" stands before those that some
/// processors do not have.
const CALLS: &str = "write,fsync,flock,renameat2,unlinkat,mkdirat,?rename,?renameat,?unlink,?mkdir";

/// Runs the program undisturbed, which must succeed; how long it took.
#[track_caller]
pub fn undisturbed(mut command: Command) -> Duration {
    let start = Instant::now();
    succeeded(&command.output().unwrap());
    start.elapsed()
}

#[track_caller]
pub fn succeeded(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
}

fn kills() -> usize {
    let more = std::env::var("FASHION_KNN_KILLS").ok();
    more.map_or(KILLS, |text| text.parse().expect("a number of kills"))
}

/// Random moments within a run that takes so long.
pub fn moments(seed: u64, whole: Duration) -> Vec<Duration> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let moment = |_| whole.mul_f64(rng.random());
    (0..kills()).map(moment).collect()
}

/// Kills a program that was started a moment ago, if it has not ended by itself.
pub fn kill_after(moment: Duration, mut child: Child) {
    sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Runs the program again and again, killed each time at another of its system calls; `check` after
/// each kill. If there are more calls than kills are wanted, some are drawn. Where strace cannot be
/// used, it says so.
pub fn kill_at_calls(seed: u64, command: impl Fn() -> Command, mut check: impl FnMut(&str)) {
    let Some(log) = traced(&command()) else {
        return;
    };
    let calls = calls(&log);
    // A log that is not understood must not pass for a program without calls.
    assert!(!calls.is_empty(), "no calls in {log:?}");
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<_> = calls.choose_multiple(&mut rng, kills()).collect();
    for Call { name, number } in &drawn {
        let mut killing = strace(name, log.path());
        killing.args(["-e", &format!("inject={name}:signal=SIGKILL:when={number}")]);
        let output = inside(killing, &command()).output().unwrap();
        // strace ends as the program did.
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{name} {number}: {output:?}"
        );
        check(&format!("{name} {number}"));
    }
    println!("{} kills at {} system calls", drawn.len(), calls.len());
}

/// Runs the program undisturbed; its system calls on files, a line each. Where strace cannot be
/// used, it says so.
pub fn traced(command: &Command) -> Option<String> {
    let log = tempfile::NamedTempFile::new().unwrap();
    // `true` makes no such call: it is a trial whether anything can be traced.
    let trial = strace("fsync", log.path()).arg("true").output();
    if !trial.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no strace that works here");
        return None;
    }
    undisturbed(inside(strace(CALLS, log.path()), command));
    Some(fs::read_to_string(log.path()).unwrap())
}

/// Runs what its arguments end with, and notes the calls of all its threads.
fn strace(calls: &str, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-e",
        "signal=none",
        "-e",
        &format!("trace={calls}"),
        "-o",
    ]);
    strace.arg(log);
    strace
}

/// A system call: how many of its kind its thread has made up to it, as strace counts.
struct Call {
    name: String,
    number: usize,
}

/// The calls in a log, whose lines are "1234 fsync(3) = 0": thread, call.
fn calls(log: &str) -> Vec<Call> {
    let mut made = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        // A call that another thread interrupts has a second line, "1234 <... fsync resumed>".
        if let Some((thread, call)) = line.split_once(' ')
            && let Some((name, _)) = call.trim_start().split_once('(')
            && !name.starts_with('<')
        {
            let number = made.entry((thread, name)).or_insert(0);
            *number += 1;
            calls.push(Call {
                name: name.to_owned(),
                number: *number,
            });
        }
    }
    calls
}
