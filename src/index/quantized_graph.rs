//! prototype
mod build;
mod codes;

use std::cell::RefCell;
use std::sync::Arc;

use self::build::Graph;
use self::codes::QueryCode;
use super::{BuildError, Index, QueryError, check_base, check_query};
use crate::dataset::{Row, Vectors};
use crate::distance::{Metric, Ranker};
use crate::kernel::code::{self as kernel, Line};
use crate::neighbor::{Neighbor, TopK};

/// p
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedGraphParams {
    /// p
    pub lines: usize,
    /// p
    pub alpha: f32,
    /// p
    pub candidates: usize,
    /// p
    pub probes: usize,
    /// p
    pub clusters: usize,
    /// p
    pub seed: u64,
}

#[derive(Debug)]
struct Built {
    base: Vectors,
    graph: Graph,
    lines: usize,
}

/// p
#[derive(Debug, Clone)]
pub struct QuantizedGraph {
    built: Arc<Built>,
    ef: usize,
    cut: f32,
    rcut: f32,
}

#[derive(Default)]
struct Scratch {
    visited: Vec<u64>,
    pool: Vec<u64>,
    todo: Vec<u32>,
    code: QueryCode,
    distances: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
/// counters
pub static COUNTS: [std::sync::atomic::AtomicUsize; 3] = [const { std::sync::atomic::AtomicUsize::new(0) }; 3];

impl QuantizedGraph {
    /// p
    pub fn build(base: Arc<Vectors>, params: &QuantizedGraphParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        let graph = match params.lines {
            1 => build::build::<1>(&base, params),
            2 => build::build::<2>(&base, params),
            3 => build::build::<3>(&base, params),
            _ => build::build::<4>(&base, params),
        };
        let rows: Vec<usize> = graph.ids.iter().map(|&id| id as usize).collect();
        let base = base.select(&rows).expect("rows");
        Ok(Self { built: Arc::new(Built { base, graph, lines: params.lines }), ef: 40, cut: 9e9, rcut: 9e9 })
    }
    /// p
    pub fn with_ef(&self, ef: usize, cut: f32, rcut: f32) -> Self {
        Self { built: self.built.clone(), ef, rcut, cut }
    }
}

fn walk<const LINES: usize>(graph: &Graph, ef: usize, k: usize, cut: f32, rcut: f32, scratch: &mut Scratch) {
    let Scratch { visited, pool, todo, code, distances } = scratch;
    let query: &[Line; LINES] = code.lines[..].try_into().expect("a code of the index's width");
    visited.clear();
    visited.resize(graph.ids.len().div_ceil(64), 0);
    pool.clear();
    let codes = graph.codes.as_chunks::<LINES>().0;
    distances.clear();
    kernel::scan(query, graph.seed_codes.as_chunks().0, distances);
    let mut best = [(u32::MAX, 0u32); 4];
    for (i, &d) in distances.iter().enumerate() {
        if d < best[3].0 {
            let mut at = 3;
            while at > 0 && d < best[at - 1].0 {
                best[at] = best[at - 1];
                at -= 1;
            }
            best[at] = (d, graph.seeds[i]);
        }
    }
    for (d, id) in best {
        if d < u32::MAX {
            visited[id as usize / 64] |= 1 << (id % 64);
            pool.push(u64::from(d + code.rest) << 32 | u64::from(id) << 1);
        }
    }
    pool.truncate(ef);
    let mut at = 0;
    let (mut expanded, mut scored) = (0, 0);
    let mut limit = u64::MAX;
    while at < pool.len() {
        let entry = pool[at];
        if pool.len() >= k {
            let kth = (pool[k - 1] >> 32) as f32;
            if (entry >> 32) as f32 > cut * kth {
                break;
            }
            limit = u64::from((rcut * kth) as u32) << 32;
        }
        pool[at] |= 1;
        let node = (entry as u32 >> 1) as usize;
        expanded += 1;
        todo.clear();
        for &other in &graph.neighbors[node].0 {
            let (word, bit) = (other as usize / 64, 1u64 << (other % 64));
            if visited[word] & bit == 0 {
                visited[word] |= bit;
                todo.push(other);
                kernel::prefetch(&codes[other as usize]);
            }
        }
        scored += todo.len();
        if let Some(&entry) = pool[at..].iter().take(8).find(|&&entry| entry & 1 == 0) {
            kernel::prefetch(&graph.neighbors[(entry as u32 >> 1) as usize].0);
        }
        let mut next = at + 1;
        kernel::score(query, codes, todo, distances);
        for (&other, &d) in todo.iter().zip(distances.iter()) {
            let d = d + code.rest;
            let key = u64::from(d) << 32 | u64::from(other) << 1;
            if key > limit {
                continue;
            }
            if pool.len() == ef {
                if key >= pool[ef - 1] {
                    continue;
                }
                pool.pop();
            }
            let position = pool.partition_point(|&e| e < key);
            pool.insert(position, key);
            if position < next {
                next = position;
                kernel::prefetch(&graph.neighbors[other as usize].0);
            }
        }
        at = next;
        while at < pool.len() && pool[at] & 1 == 1 {
            at += 1;
        }
    }
    COUNTS[0].fetch_add(expanded, std::sync::atomic::Ordering::Relaxed);
    COUNTS[1].fetch_add(scored, std::sync::atomic::Ordering::Relaxed);
}

impl Index for QuantizedGraph {
    fn name(&self) -> &'static str {
        "Quantized graph"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        vec![("ef", self.ef as f64), ("cut", self.cut.into()), ("rcut", self.rcut.into())]
    }

    fn len(&self) -> usize {
        self.built.graph.ids.len()
    }

    fn dim(&self) -> usize {
        self.built.base.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.built.base.memory_bytes() + self.built.graph.codes.len() * 64 + self.built.graph.neighbors.len() * 128
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        let built = &*self.built;
        SCRATCH.with_borrow_mut(|scratch| {
            built.graph.encoder.encode(query, &mut scratch.code);
            match built.lines {
                1 => walk::<1>(&built.graph, self.ef, k, self.cut, self.rcut, scratch),
                2 => walk::<2>(&built.graph, self.ef, k, self.cut, self.rcut, scratch),
                3 => walk::<3>(&built.graph, self.ef, k, self.cut, self.rcut, scratch),
                _ => walk::<4>(&built.graph, self.ef, k, self.cut, self.rcut, scratch),
            }
            let ranker = Ranker::new(&built.base, Metric::Euclidean, Row::Floats(query));
            let mut top = TopK::new(k);
            let id = |entry: u64| (entry as u32 >> 1) as usize;
            let count = if scratch.pool.len() > k {
                let last = u64::from((self.rcut * (scratch.pool[k - 1] >> 32) as f32) as u32) << 32;
                scratch.pool.partition_point(|&e| e <= last)
            } else {
                scratch.pool.len()
            };
            COUNTS[2].fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            for i in 0..count.min(4) {
                if let Row::Bytes(row) = built.base.row(id(scratch.pool[i])) {
                    kernel::prefetch(row)
                }
            }
            for i in 0..count {
                if i + 4 < count {
                    if let Row::Bytes(row) = built.base.row(id(scratch.pool[i + 4])) {
                        kernel::prefetch(row)
                    }
                }
                let position = id(scratch.pool[i]);
                top.push(built.graph.ids[position], ranker.rank(position));
            }
            Ok(top.into_neighbors(Metric::Euclidean))
        })
    }
}
