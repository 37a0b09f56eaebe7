//! Micro-benchmarks of the kernels in `src/simd`, at the sizes that Fashion-MNIST gives them.
//!
//! ```text
//! cargo bench --bench kernels                                  every kernel
//! cargo bench --bench kernels -- pairwise                      some of them
//! FASHION_KNN_SIMD=portable cargo bench --bench kernels        the portable forms
//! ```
//!
//! With `--no-default-features` far less has to be compiled. The kernels are no part of the crate's
//! interface. They know nothing of the rest of the crate either, so the benchmark compiles their
//! source as a module of its own.

#[path = "../src"]
mod source {
    #[allow(
        dead_code,
        unused_imports,
        reason = "only some kernels are measured, none is tested"
    )]
    pub mod simd;
}

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use rayon::prelude::*;

use source::simd;

use simd::{Line, float_distances, graph_codes, half_bytes, lower_bound, matvec, pairwise};
use simd::{pq_scan, tiles, va_codes};

/// Pixels of an image.
const DIM: usize = 784;
/// Rows of a scan: enough to outlast the first-level cache, few enough for the second.
const ROWS: usize = 960;

fn main() {
    println!("SIMD level: {}", simd::level());
    divan::main();
}

/// Reproducible bytes that look like nothing in particular.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn floats(len: usize) -> Vec<f32> {
    bytes(len).into_iter().map(f32::from).collect()
}

/// One image with many, exactly: what a linear scan does.
#[divan::bench]
fn pairwise_squared_euclidean_bytes(bencher: Bencher<'_, '_>) {
    let (query, rows) = (bytes(DIM), bytes(ROWS * DIM));
    bencher.counter(ItemsCount::new(ROWS)).bench(|| {
        let rows = rows.chunks_exact(DIM);
        rows.map(|row| pairwise::squared_euclidean_bytes(&query, row))
            .sum::<u64>()
    });
}

/// The same of floats, rounded.
#[divan::bench]
fn pairwise_squared_euclidean_f32_rows(bencher: Bencher<'_, '_>) {
    let (query, rows, mut out) = (floats(DIM), floats(ROWS * DIM), vec![0.0; ROWS]);
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| pairwise::squared_euclidean_f32_rows(&query, &rows, &mut out));
}

/// The definition, in `f64`.
#[divan::bench]
fn float_distances_squared_euclidean(bencher: Bencher<'_, '_>) {
    let (a, b) = (floats(DIM), floats(2 * DIM));
    bencher.bench(|| float_distances::squared_euclidean(&a, &b[DIM..]));
}

/// Two panels of queries with many images, in integers of seven bits.
#[divan::bench]
fn tiles_products(bencher: Bencher<'_, '_>) {
    const WORDS: usize = DIM / 4;
    let words = |rows: usize, mask: u8| -> Vec<[u8; 4]> {
        let values: Vec<u8> = bytes(rows * DIM)
            .into_iter()
            .map(|value| value & mask)
            .collect();
        values.as_chunks().0.to_vec()
    };
    const QUERIES: usize = tiles::TOGETHER * tiles::QUERIES;
    let panels = tiles::Panels::pack(&words(QUERIES, 63), WORDS);
    let mut points = tiles::Tiles::zeros(ROWS / tiles::POINTS, WORDS);
    for (point, values) in words(ROWS, 63).chunks_exact(WORDS).enumerate() {
        points.set(point, values);
    }
    let mut sums = vec![Line::default(); tiles::TOGETHER * ROWS];
    bencher
        .counter(ItemsCount::new(ROWS * QUERIES))
        .bench_local(|| panels.products(0, &points, &mut sums));
}

/// One query with many images of four bits a pixel.
#[divan::bench]
fn half_bytes_products(bencher: Bencher<'_, '_>) {
    let mut nibbles = half_bytes::Nibbles::zeros(ROWS, DIM);
    let values: Vec<u8> = bytes(ROWS * DIM)
        .into_iter()
        .map(|value| value & 15)
        .collect();
    let blocks = nibbles.blocks(half_bytes::ROWS);
    let rows = values.par_chunks(DIM * half_bytes::ROWS);
    blocks.zip(rows).for_each(|(mut block, rows)| {
        for (row, values) in rows.chunks_exact(DIM).enumerate() {
            block.set(row, values);
        }
    });
    let (query, mut out) = (half_bytes::Codes::new(&bytes(DIM)), vec![0; ROWS]);
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| nibbles.products(0..ROWS, &query, &mut out));
}

/// A sketch of 32 coordinates with those of a tree's leaves.
#[divan::bench]
fn lower_bound_groups(bencher: Bencher<'_, '_>) {
    const WIDTH: usize = 32;
    let (query, groups, mut out) = (floats(WIDTH), floats(ROWS * WIDTH), Vec::new());
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        lower_bound::squared_euclidean_groups(&query, &groups, f32::INFINITY, &mut out);
    });
}

/// The rotation of a query by a square matrix.
#[divan::bench]
fn matvec_product(bencher: Bencher<'_, '_>) {
    let (rows, vector, mut out) = (floats(DIM * DIM), floats(DIM), vec![0.0; DIM]);
    bencher
        .counter(BytesCount::of_slice(&*rows))
        .bench_local(|| matvec::product(&rows, &vector, &mut out));
}

/// The VA+-file's first pass over heads of eight pairs, of which none survives.
#[divan::bench]
fn va_codes_heads(bencher: Bencher<'_, '_>) {
    const PAIRS: usize = 8;
    let blocks: Vec<u32> = (0..ROWS / va_codes::BLOCK)
        .map(|block| block as u32)
        .collect();
    let heads = vec![va_codes::Pairs([[100, -100]; va_codes::BLOCK]); blocks.len() * PAIRS];
    let (query, mut out) = ([[7, 9]; PAIRS], Vec::new());
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| va_codes::heads(&heads, &query, &blocks, 0, &mut out, |_| ()));
}

/// A query of the quantised graph with codes of two cache lines.
#[divan::bench]
fn graph_codes_scan(bencher: Bencher<'_, '_>) {
    let code = |bytes: &[u8]| {
        // Seven bits in the first line, two numbers of four in each byte of the second.
        let line = |at: usize, mask: u8| std::array::from_fn(|i| bytes[64 * at + i] & mask);
        let mut code = [(0, 127), (1, 255)].map(|(at, mask)| graph_codes::CodeLine(line(at, mask)));
        graph_codes::set_tail(&mut code, 0);
        code
    };
    let format = graph_codes::Format {
        lines: 2,
        wide: 1,
        wide_weight: 64,
        narrow_weight: 8,
    };
    let codes: Vec<_> = bytes(ROWS * 128).chunks_exact(128).map(code).collect();
    let (query, mut distances) = (graph_codes::Query::of_code(format, &codes[0]), Vec::new());
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        distances.clear();
        graph_codes::scan(&query, &codes, &mut distances);
    });
}

/// FastScan with 98 sub-quantisers (eight pixels each), of which nothing is found.
#[divan::bench]
fn pq_scan_scan(bencher: Bencher<'_, '_>) {
    const M: usize = DIM / 8;
    let codes: Vec<u8> = bytes(ROWS * M).into_iter().map(|code| code & 15).collect();
    let codes = pq_scan::pack(&codes, M);
    let tables = vec![pq_scan::Pair([200; 32]); M / 2];
    let scan = pq_scan::Scan {
        biases: &vec![0; ROWS],
        positions: 0..ROWS,
        linear: pq_scan::Linear {
            per_entry: 1.0,
            per_bias: 1.0,
            offset: 0.0,
        },
        limit: 0.0,
    };
    let mut found = Vec::new();
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| pq_scan::scan(&codes, &tables, &scan, &mut found));
}
