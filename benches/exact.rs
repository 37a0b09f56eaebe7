//! Times one exact index on one table of vectors and prints a JSON line; `exact_peers.py` beside it prepares the
//! tables, runs this and FAISS in turns, and compares. One thread unless `--threads` says otherwise.
//!
//! Beside the queries per second it tells what a full scan makes of the machine: clock and memory bandwidth of one core,
//! measured in the same run, against the multiply-adds per cycle and the bytes per second that the queries amount to.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use fashion_knn::distance::{Metric, Ranker};
use fashion_knn::index::{BruteForce, Index, VaFile, VaFileParams};
use fashion_knn::neighbor::{Neighbors, TopK};
use fashion_knn::vectors::Vectors;

#[derive(Parser)]
struct Args {
    /// Raw little-endian values of the base, row-major: bytes if the name ends in .u8, else 32-bit floats.
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
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn read(path: &PathBuf, dim: usize, rows: Option<usize>) -> Vectors {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all = if path.extension().is_some_and(|extension| extension == "u8") {
        Vectors::from_bytes(dim, bytes)
    } else {
        let values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes(c.try_into().expect("4")))
            .collect();
        Vectors::from_floats(dim, values)
    };
    let all = all.expect("a table of vectors");
    rows.map_or(all.clone(), |rows| all.head(rows))
}

/// Clock of this core in GHz: a chain of multiplications, each of which has to wait for the one before.
fn clock() -> f64 {
    /// Of an `or` and a 64-bit multiplication, on every x86-64 processor of the last decade.
    const LATENCY: f64 = 4.0;
    const STEPS: u32 = 50_000_000;
    let start = Instant::now();
    let product = (0..black_box(STEPS)).fold(black_box(3u64), |product, _| {
        product.wrapping_mul(product | 3)
    });
    black_box(product);
    f64::from(STEPS) * LATENCY / start.elapsed().as_secs_f64() / 1e9
}

/// Bytes per second at which one core reads more than its caches hold, in GB/s, the best of some passes.
fn bandwidth() -> f64 {
    const SIZE: usize = 1 << 28;
    let table = Arc::new(Vectors::from_bytes(1 << 10, vec![1u8; SIZE]).expect("whole rows"));
    // Which puts them in huge pages, like the base.
    let index = BruteForce::over(Arc::clone(&table), Metric::Euclidean).expect("built");
    let words = index.base().bytes().expect("bytes").as_chunks::<8>().0;
    let pass = |_| {
        let start = Instant::now();
        // Some streams at once keep more requests on their way than one.
        let quarters: [&[[u8; 8]]; 4] =
            std::array::from_fn(|i| &words[i * words.len() / 4..][..words.len() / 4]);
        let mut sum = 0u64;
        for at in (0..words.len() / 4).step_by(8) {
            for quarter in quarters {
                let words = quarter[at..at + 8]
                    .iter()
                    .map(|&word| u64::from_le_bytes(word));
                sum = words.fold(sum, u64::wrapping_add);
            }
        }
        black_box(sum);
        SIZE as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..4).map(pass).fold(0.0, f64::max)
}

fn main() {
    let args = Args::parse();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()
        .expect("a pool");
    pool.install(|| run(&args));
}

fn run(args: &Args) {
    let base = Arc::new(read(&args.base, args.dim, args.n));
    let queries = read(&args.query, args.dim, args.queries);
    let start = Instant::now();
    let index: Box<dyn Index> = match args.index.as_str() {
        "brute_force" => {
            Box::new(BruteForce::build(Arc::clone(&base), args.metric).expect("built"))
        }
        "va_file" => {
            Box::new(VaFile::build(Arc::clone(&base), VaFileParams::default()).expect("built"))
        }
        other => panic!("no index {other:?}"),
    };
    let build = start.elapsed().as_secs_f64();

    let rows: Vec<Vec<f32>> = (0..queries.len())
        .map(|row| queries.row_to_floats(row))
        .collect();
    let mut best = f64::INFINITY;
    let mut latencies = Vec::new();
    let mut found = Neighbors::default();
    for _ in 0..args.rounds {
        let start = Instant::now();
        if args.one {
            let mut each = Vec::with_capacity(rows.len());
            found = rows
                .iter()
                .map(|row| {
                    let start = Instant::now();
                    let found = index.query(row, args.k).expect("answered");
                    each.push(start.elapsed().as_secs_f64());
                    found
                })
                .collect();
            if start.elapsed().as_secs_f64() < best {
                each.sort_by(f64::total_cmp);
                latencies = each;
            }
        } else {
            found = index.query_batch(&queries, args.k).expect("answered");
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let percentile = |p: f64| {
        latencies
            .get((p * latencies.len() as f64) as usize)
            .map_or(f64::NAN, |s| s * 1e6)
    };
    let exact = args.check.then(|| {
        (0..queries.len()).all(|query| {
            let ranker = Ranker::new(&base, args.metric, queries.row(query));
            let mut top = TopK::new(args.k.min(base.len()));
            (0..base.len()).for_each(|id| _ = top.push(id as u32, ranker.reduced(id)));
            found.row(query) == top.into_neighbors(args.metric)
        })
    });
    // What a full scan has to do, whether or not this index does it.
    let products =
        (base.len() * base.dim()) as f64 * queries.len() as f64 / best / args.threads as f64;
    // One query reads the half bytes that stand beside the rows, where there are any.
    let beside = index.memory_bytes() - base.memory_bytes();
    let whole = !args.one || args.index != "brute_force" || beside < base.memory_bytes() / 10;
    let bytes = if whole { base.memory_bytes() } else { beside };
    let read = bytes as f64 * queries.len() as f64 / best / args.threads as f64;
    println!(
        "{}",
        serde_json::json!({
            "index": args.index, "n": base.len(), "dim": base.dim(), "k": args.k, "one": args.one,
            "qps": queries.len() as f64 / best, "p50_us": percentile(0.5), "p99_us": percentile(0.99),
            "build_s": build, "memory_ratio": index.memory_bytes() as f64 / base.memory_bytes() as f64,
            "macs_per_cycle": args.machine.then(|| products / 1e9 / clock()), "scan_gb_s": read / 1e9,
            "machine_gb_s": args.machine.then(bandwidth),
            "params": index.params().into_iter().collect::<std::collections::BTreeMap<_, _>>(), "exact": exact,
        })
    );
}
