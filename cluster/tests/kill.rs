//! S2: executors, and the scheduler, are killed in the middle of a real job. The answer is right,
//! or there is none and an error says why, within a minute.
//!
//! ```sh
//! KNN_CLUSTER_KILLS=40 cargo test --release --test kill -- --nocapture
//! ```

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, Line, answer, assert_same, program, shards, text, truth};
use fashion_knn::fashion;

/// How long may pass between the kill and an answer or an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job of some seconds: queries in all of Fashion-MNIST, 8 shards.
struct Work {
    folder: tempfile::TempDir,
    base: PathBuf,
    queries: PathBuf,
    truth: Vec<Line>,
}

impl Work {
    fn new() -> Self {
        let images = fashion::load().expect("Fashion-MNIST");
        let base = images.train;
        // More than there are test images, so that the job takes as long as it should: the last
        // training images ask for themselves.
        let rows: Vec<usize> = (60_000 - QUERIES..60_000).collect();
        let queries = base.select(&rows).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self {
            base: shards(folder.path(), "base", &base, 8),
            // Three files: with --three-stages the engine gathers them in a stage of their own.
            queries: shards(folder.path(), "queries", &queries, 3),
            truth: truth(&base, &queries, 10),
            folder,
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("answer.parquet")
    }

    /// Starts the query.
    fn ask(&self, cluster: &Cluster, more: &[&str]) -> Child {
        let _ = fs::remove_file(self.out());
        program()
            .args(["query", "--scheduler", &cluster.address(), "--base"])
            .arg(&self.base)
            .arg("--queries")
            .arg(&self.queries)
            .arg("--out")
            .arg(self.out())
            .args(["--deadline", "29", "--retries", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What came of it: true with the right answer, false with an error. A wrong answer panics.
    fn outcome(&self, query: Child, since: Instant, what: &str) -> bool {
        let output = query.wait_with_output().unwrap();
        let took = since.elapsed();
        assert!(took < PATIENCE, "{what}: {took:?}");
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() {
            assert_same(&answer(&self.out()), &self.truth, what);
            println!(
                "{what}: right, {:.1} s later; {}",
                took.as_secs_f64(),
                said.trim()
            );
        } else {
            assert!(
                !self.out().exists() && error.contains("error: "),
                "{what}: {error}"
            );
            println!(
                "{what}: an error, {:.1} s later; {}",
                took.as_secs_f64(),
                error.trim()
            );
        }
        output.status.success()
    }
}

/// As many queries as take two executors, of a thread each, some seconds.
const QUERIES: usize = 30_000;

fn kills() -> u32 {
    let kills = std::env::var("KNN_CLUSTER_KILLS");
    kills.map_or(20, |kills| kills.parse().expect("a number of kills"))
}

#[test]
fn an_executor_is_killed() {
    let work = Work::new();
    let whole = {
        let cluster = Cluster::start(2, "push");
        let started = Instant::now();
        assert!(work.outcome(work.ask(&cluster, &[]), started, "undisturbed"));
        started.elapsed()
    };
    let (kills, mut right) = (kills(), 0);
    for kill in 0..kills {
        // All combinations of four choices come in turn; the moments go from the first to the last.
        let choice = |bit: u32| kill >> bit & 1 == 1;
        let signal = if choice(0) { "TERM" } else { "KILL" };
        let stages = if choice(1) {
            &["--three-stages"][..]
        } else {
            &[]
        };
        let scheduling = if choice(2) { "pull" } else { "push" };
        let replaced = choice(3);
        let moment = whole.mul_f64(f64::from(kill * 7 % kills + 1) / f64::from(kills + 1));
        let what = format!(
            "{signal} at {:.1} s of {:.1}, {scheduling}{}{}",
            moment.as_secs_f64(),
            whole.as_secs_f64(),
            if choice(1) { ", three stages" } else { "" },
            if replaced { ", replaced" } else { "" },
        );
        let mut cluster = Cluster::start(2, scheduling);
        let query = work.ask(&cluster, stages);
        std::thread::sleep(moment);
        let killed = Instant::now();
        cluster.signal(1, signal);
        if replaced {
            cluster.add_executor();
        }
        right += u32::from(work.outcome(query, killed, &what));
    }
    println!(
        "{kills} kills: {right} right answers, {} errors, 0 wrong answers",
        kills - right
    );
    // Errors are allowed, but a job that always gives up would be of no use.
    assert!(right * 2 >= kills);
}

#[test]
fn all_executors_or_the_scheduler_are_killed() {
    let work = Work::new();
    for both in [true, false] {
        let cluster = Cluster::start(2, "push");
        let query = work.ask(&cluster, &[]);
        std::thread::sleep(Duration::from_secs(2));
        let killed = Instant::now();
        if both {
            cluster.signal(0, "KILL");
            cluster.signal(1, "KILL");
        } else {
            cluster.signal_scheduler("KILL");
        }
        let what = if both {
            "both executors"
        } else {
            "the scheduler"
        };
        assert!(
            !work.outcome(query, killed, what),
            "nobody was left to answer"
        );
    }
}
