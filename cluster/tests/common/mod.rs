//! What the tests share: the program, a cluster on this machine, and the truth.

// Each test program compiles this for itself, and uses a part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, UInt32Type, UInt64Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Query};
use fashion_knn::vectors::Vectors;

/// The program under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knn-cluster"));
    command.stdin(Stdio::null());
    command
}

/// Runs the program with these arguments, separated by blanks.
pub fn run(arguments: &str) -> Output {
    program()
        .args(arguments.split(' '))
        .output()
        .expect("the program")
}

/// The same; it has to succeed.
pub fn succeed(arguments: &str) -> String {
    let output = run(arguments);
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments}\n{said}{error}");
    said
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of an answer: query, rank, id, and the bits of the distance.
pub type Line = (u64, u32, u64, u64);

/// The lines of an answer's file.
pub fn answer(path: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    for batch in batches(path) {
        let (query, id) = (
            batch.column(0).as_primitive::<UInt64Type>(),
            batch.column(2).as_primitive::<UInt64Type>(),
        );
        let rank = batch.column(1).as_primitive::<UInt32Type>();
        let distance = batch.column(3).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let bits = distance.value(row).to_bits();
            lines.push((query.value(row), rank.value(row), id.value(row), bits));
        }
    }
    lines
}

pub fn batches(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().collect::<Result<_, _>>().unwrap()
}

/// The lines that brute force in memory gives.
pub fn truth(base: &Vectors, queries: &Vectors, k: usize) -> Vec<Line> {
    let index = BruteForce::build(Arc::new(base.clone()), BruteForceParams::default()).unwrap();
    let found = index.query_batch(queries, k).unwrap();
    let lines = found.iter().enumerate().flat_map(|(query, row)| {
        let ranked = row.iter().zip(1..);
        ranked.map(move |(near, rank)| {
            (
                query as u64,
                rank,
                u64::from(near.id),
                near.distance.to_bits(),
            )
        })
    });
    lines.collect()
}

/// The same lines, or which one differs first.
pub fn assert_same(ours: &[Line], truth: &[Line], what: &str) {
    let differs = ours.iter().zip(truth).position(|(a, b)| a != b);
    if let Some(at) = differs {
        panic!(
            "{what}: line {at} is {:?}; expected {:?}",
            ours[at], truth[at]
        );
    }
    assert_eq!(ours.len(), truth.len(), "{what}");
}

/// Writes vectors as `.npy`, and shards of it into `folder/NAME`.
pub fn shards(folder: &Path, name: &str, vectors: &Vectors, count: usize) -> PathBuf {
    let file = folder.join(format!("{name}.fvecs"));
    let (file, bytes) = match vectors.bytes() {
        Some(bytes) => (
            file.with_extension("bvecs"),
            records(vectors.dim(), bytes.chunks_exact(vectors.dim())),
        ),
        None => {
            let rows = vectors.floats().unwrap().chunks_exact(vectors.dim());
            let rows: Vec<Vec<u8>> = rows
                .map(|row| row.iter().flat_map(|v| v.to_le_bytes()).collect())
                .collect();
            (file, records(vectors.dim(), rows.iter().map(Vec::as_slice)))
        }
    };
    fs::write(&file, bytes).unwrap();
    let out = folder.join(name);
    succeed(&format!(
        "shard --data {} --out {} --shards {count}",
        file.display(),
        out.display()
    ));
    out
}

/// Records of a `.fvecs` or `.bvecs` file.
fn records<'r>(dim: usize, rows: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    for row in rows {
        file.extend((dim as u32).to_le_bytes());
        file.extend(row);
    }
    file
}

/// Small whole numbers: many distances are equal, of floats as of bytes.
pub fn ties(rows: usize, dim: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u8 % 4
    };
    (0..rows * dim).map(|_| next()).collect()
}

/// The same as floats whose squares are no binary fractions.
pub fn float_ties(rows: usize, dim: usize, seed: u64) -> Vectors {
    let values: Vec<f32> = ties(rows, dim, seed)
        .into_iter()
        .map(|v| f32::from(v) * 0.1)
        .collect();
    Vectors::from_floats(dim, values).unwrap()
}

/// A port that nobody listens on, and the next is free too.
pub fn free_port() -> u16 {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        if port < 65_000 && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// A scheduler and executors on this machine, stopped when it is dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    scheduling: &'static str,
    environment: Vec<(&'static str, String)>,
    scheduler: Child,
    pub executors: Vec<Child>,
}

impl Cluster {
    /// A cluster of executors with one thread each, ready for jobs.
    pub fn start(executors: usize, scheduling: &'static str) -> Self {
        Self::start_in(executors, scheduling, &[])
    }

    /// The same, with environment variables.
    pub fn start_in(
        executors: usize,
        scheduling: &'static str,
        environment: &[(&'static str, String)],
    ) -> Self {
        let environment = environment.to_vec();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let log = File::create(folder.path().join("scheduler.log")).unwrap();
        let scheduler = program()
            .args([
                "scheduler",
                "--port",
                &port.to_string(),
                "--scheduling",
                scheduling,
            ])
            .args(["--executor-timeout", "10"])
            .env("RUST_LOG", "info")
            .envs(environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let executors_yet = Vec::new();
        let mut cluster = Self {
            folder,
            port,
            scheduling,
            environment,
            scheduler,
            executors: executors_yet,
        };
        for _ in 0..executors {
            cluster.add_executor();
        }
        for executor in 0..executors {
            cluster.wait_for(executor);
        }
        cluster
    }

    /// Its scheduler's address.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One more executor, which may still be starting.
    pub fn add_executor(&mut self) {
        let number = self.executors.len();
        let log = File::create(self.log(number)).unwrap();
        let executor = program()
            .args([
                "executor",
                "--scheduler",
                &format!("127.0.0.1:{}", self.port),
            ])
            .args([
                "--port",
                &free_port().to_string(),
                "--scheduling",
                self.scheduling,
            ])
            .args(["--threads", "1", "--heartbeat", "2"])
            .env("RUST_LOG", "info")
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.executors.push(executor);
    }

    fn log(&self, executor: usize) -> PathBuf {
        self.folder.path().join(format!("executor-{executor}.log"))
    }

    /// Waits until an executor takes tasks.
    fn wait_for(&self, executor: usize) {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.log(executor)).unwrap_or_default();
            if log.contains("registration succeed") || log.contains("Starting poll work loop") {
                return;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "executor {executor}:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal ("KILL", "TERM") to an executor.
    pub fn signal(&self, executor: usize, signal: &str) {
        send(&self.executors[executor], signal);
    }

    /// Sends a signal to the scheduler.
    pub fn signal_scheduler(&self, signal: &str) {
        send(&self.scheduler, signal);
    }
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.executors.iter_mut().chain([&mut self.scheduler]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
