//! Many queries over all indexes of the registry from 8 threads, while another thread builds
//! indexes and drops them. Every answer has to be the first one again, and the memory must not
//! grow.
//!
//! A usual run is short. The long one, a minute or two:
//! `FASHION_KNN_LONG_RUN=1000000 cargo test --release --test long_run -- --nocapture`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{env, fs, thread};

use fashion_knn::index::registry::{REGISTRY, Settings};
use fashion_knn::index::{Index, Query};
use fashion_knn::lab::shapes::{self, Sample};
use fashion_knn::neighbor::Neighbor;
use fashion_knn::vectors::Vectors;

/// Queries of a usual run, over all indexes together.
const QUERIES: usize = 20_000;
/// The base: long lists and deep trees are not what is tested.
const ROWS: usize = 2_000;
const DIM: usize = 32;
/// Different queries; each is asked again and again.
const DIFFERENT: usize = 200;
const K: usize = 10;
const THREADS: usize = 8;
/// How much the memory may grow after the first tenth of the queries: the threads' own parts of it
/// fill up slowly. A leak of what is built would grow with each of hundreds of builds.
const GROWTH: usize = 16 << 20;

/// An index, and what it answered each query first.
struct Known {
    key: &'static str,
    index: Box<dyn Index>,
    answers: Vec<Vec<Neighbor>>,
}

fn build(key: usize, base: &Arc<Vectors>) -> Box<dyn Index> {
    let entry = &REGISTRY[key];
    let built = (entry.build)(Arc::clone(base), &Settings::default()).unwrap();
    built(&Settings::default()).unwrap()
}

fn known(key: usize, base: &Arc<Vectors>, queries: &Vectors) -> Known {
    let index = build(key, base);
    let answer = |query| index.query(queries.row(query), K).unwrap();
    let answers = (0..queries.len()).map(answer).collect();
    Known {
        key: REGISTRY[key].key,
        index,
        answers,
    }
}

/// Bytes of this process that are in memory, where the system tells (Linux).
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Asks `count` queries in all: every thread takes the next one, each for another index than the
/// one before. Meanwhile a thread builds and drops; how many indexes that were.
fn ask(known: &[Known], base: &Arc<Vectors>, queries: &Vectors, count: usize) -> usize {
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let ask = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let one = &known[number % known.len()];
                let query = number / known.len() % queries.len();
                let answer = one.index.query(queries.row(query), K).unwrap();
                assert_eq!(answer, one.answers[query], "{}, query {query}", one.key);
            }
        };
        let builder = scope.spawn(|| {
            let mut built = 0;
            while !done.load(Ordering::Relaxed) {
                let at = built % known.len();
                let index = build(at, base);
                let answer = index.query(queries.row(0), K).unwrap();
                assert_eq!(
                    answer, known[at].answers[0],
                    "{} built again",
                    known[at].key
                );
                built += 1;
            }
            built
        });
        let askers: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        let ended: Vec<_> = askers.into_iter().map(|asker| asker.join()).collect();
        // The builder has to end also where an answer was wrong.
        done.store(true, Ordering::Relaxed);
        let built = builder.join().unwrap();
        assert!(ended.iter().all(Result::is_ok), "an answer was another one");
        built
    })
}

#[test]
fn answers_stay_the_same_and_memory_stays_flat() {
    let more = env::var("FASHION_KNN_LONG_RUN").ok();
    let count = more.map_or(QUERIES, |text| text.parse().expect("a number of queries"));
    let shape = shapes::find("low_rank").unwrap();
    let Sample { base, queries } = shape.sample(ROWS, DIFFERENT, DIM, 1);
    let base = Arc::new(base);
    let known: Vec<Known> = (0..REGISTRY.len())
        .map(|key| known(key, &base, &queries))
        .collect();
    // A first part, after which every thread and every index has the memory that it needs.
    let mut built = ask(&known, &base, &queries, count / 10);
    let before = resident();
    for tenth in 1..10 {
        built += ask(&known, &base, &queries, count / 10);
        println!(
            "{} queries, {built} builds: {:?} bytes",
            (tenth + 1) * count / 10,
            resident()
        );
    }
    let (Some(before), Some(after)) = (before, resident()) else {
        eprintln!("SKIPPED: this system does not tell how much memory a process has");
        return;
    };
    assert!(after < before + GROWTH, "{before} bytes became {after}");
}
