//! How fast is one exact index on one table of vectors? Prints a JSON line.
//!
//! ```sh
//! cargo run --release --example exact_speed -- --base base.u8 --query query.u8 --dim 784 \
//!     --index brute_force --machine
//! ```
//!
//! `benches/exact_peers.py` prepares the tables, runs this and FAISS in turns, and compares. One
//! thread unless `--threads` says otherwise.
//!
//! Beside the queries per second it tells how close a full scan comes to what the machine can do:
//! multiply-adds per cycle of the clock, and bytes per second beside the memory bandwidth of one
//! core (`--machine` measures both in the same run).

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use fashion_knn::distance::{Metric, Ranker};
use fashion_knn::index::{BruteForce, BruteForceParams, Build, Index, VaFile, VaFileParams};
use fashion_knn::lab::evaluate::{on_threads, time_batch, time_queries};
use fashion_knn::lab::machine::memory_bandwidth;
use fashion_knn::neighbor::{Neighbors, TopK};
use fashion_knn::vectors::Vectors;

#[derive(Parser)]
struct Args {
    /// Raw little-endian values of the base, row-major: bytes if the name ends in .u8, else 32-bit
    /// floats.
    #[arg(long)]
    base: PathBuf,
    /// The queries, likewise.
    #[arg(long)]
    query: PathBuf,
    /// d.
    #[arg(long)]
    dim: usize,
    /// "brute_force" or "va_file".
    #[arg(long)]
    index: String,
    #[arg(long, default_value = "euclidean")]
    metric: Metric,
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// One query a call; else all in one batch.
    #[arg(long)]
    one: bool,
    /// Only the first so many vectors of the base.
    #[arg(long)]
    n: Option<usize>,
    /// Only the first so many queries.
    #[arg(long)]
    queries: Option<usize>,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Also measure the clock and the memory bandwidth of one core.
    #[arg(long)]
    machine: bool,
    /// Compare ids and distances with a plain scan by the definition.
    #[arg(long)]
    check: bool,
}

/// The vectors of a raw file, the first `rows` of them.
fn read(path: &Path, dim: usize, rows: Option<usize>) -> Result<Vectors, Box<dyn Error>> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let all = if path.extension().is_some_and(|extension| extension == "u8") {
        Vectors::from_bytes(dim, bytes)?
    } else {
        let words = bytes.as_chunks::<4>().0.iter();
        let values: Vec<f32> = words.map(|&word| f32::from_le_bytes(word)).collect();
        Vectors::from_floats(dim, values)?
    };
    Ok(rows.map_or(all.clone(), |rows| all.head(rows)))
}

/// Clock of this core in GHz: a chain of multiplications, each of which waits for the one before.
fn clock() -> f64 {
    /// Cycles of an `or` and a 64-bit multiplication, on every x86-64 processor of the last decade.
    const LATENCY: f64 = 4.0;
    const STEPS: u32 = 50_000_000;
    let start = Instant::now();
    let mut product = black_box(3u64);
    for _ in 0..black_box(STEPS) {
        product = product.wrapping_mul(product | 3);
    }
    black_box(product);
    f64::from(STEPS) * LATENCY / start.elapsed().as_secs_f64() / 1e9
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // The error of the closure as text: errors cannot pass from one thread to another.
    on_threads(args.threads, || {
        run(&args).map_err(|error| error.to_string())
    })??;
    Ok(())
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let base = Arc::new(read(&args.base, args.dim, args.n)?);
    let queries = read(&args.query, args.dim, args.queries)?;
    let start = Instant::now();
    let index: Box<dyn Index> = match args.index.as_str() {
        "brute_force" => Box::new(BruteForce::build(
            base.clone(),
            BruteForceParams {
                metric: args.metric,
            },
        )?),
        "va_file" => Box::new(VaFile::build(base.clone(), VaFileParams::default())?),
        other => return Err(format!("no index {other:?}").into()),
    };
    let build_s = start.elapsed().as_secs_f64();
    // The fastest of the rounds.
    let round = || {
        if args.one {
            time_queries(index.as_ref(), &queries, args.k)
        } else {
            time_batch(index.as_ref(), &queries, args.k)
        }
    };
    let mut best = round()?;
    for _ in 1..args.rounds {
        let next = round()?;
        if next.queries_per_second() > best.queries_per_second() {
            best = next;
        }
    }
    let exact = args
        .check
        .then(|| is_exact(args, &base, &queries, &best.neighbors));
    let per_second = best.queries_per_second() / args.threads as f64;
    // What a full scan has to do, whether or not this index does it.
    let products = (base.len() * base.dim()) as f64 * per_second;
    let scanned = scanned_bytes(args, &base, index.as_ref()) as f64 * per_second;
    let latency = |share: f64| args.one.then(|| best.latency_us(share));
    let memory_ratio = index.memory_bytes() as f64 / base.memory_bytes() as f64;
    let params: std::collections::BTreeMap<_, _> = index.params().into_iter().collect();
    let line = serde_json::json!({
        "index": args.index,
        "n": base.len(),
        "dim": base.dim(),
        "k": args.k,
        "one": args.one,
        "qps": best.queries_per_second(),
        "p50_us": latency(0.5),
        "p99_us": latency(0.99),
        "build_s": build_s,
        "memory_ratio": memory_ratio,
        "macs_per_cycle": args.machine.then(|| products / 1e9 / clock()),
        "scan_gb_s": scanned / 1e9,
        "machine_gb_s": args.machine.then(memory_bandwidth),
        "params": params,
        "exact": exact,
    });
    println!("{line}");
    Ok(())
}

/// Whether what was found is what a plain scan by the definition finds.
fn is_exact(args: &Args, base: &Vectors, queries: &Vectors, found: &Neighbors) -> bool {
    for query in 0..queries.len() {
        let ranker = Ranker::new(base, args.metric, queries.row(query));
        let mut top = TopK::new(args.k.min(base.len()));
        for id in 0..base.len() {
            top.push(id as u32, ranker.reduced(id));
        }
        if found.row(query) != top.into_neighbors(args.metric) {
            return false;
        }
    }
    true
}

/// The bytes that a full scan reads for one query: the rows or, of brute force with one query a
/// call, the half bytes that stand beside them where there are any.
fn scanned_bytes(args: &Args, base: &Vectors, index: &dyn Index) -> usize {
    let rows = base.memory_bytes();
    let half_bytes = index.memory_bytes() - rows;
    if args.one && args.index == "brute_force" && half_bytes >= rows / 10 {
        half_bytes
    } else {
        rows
    }
}
