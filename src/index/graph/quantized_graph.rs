//! A neighbourhood graph walked by short codes: the fastest approximate index here.

mod build;
mod codes;

use std::cell::RefCell;
use std::sync::Arc;

pub(crate) use self::build::near_rows;
use self::build::{DEGREE, Graph};
use self::codes::{EncodedQuery, MOST_LINES};
use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::positive;
use crate::index::{BuildError, Index, QueryError, check_base, check_query};
use crate::neighbor::{Neighbor, TopK};
use crate::simd;
use crate::simd::graph_codes::{self, Query};
use crate::vectors::{Row, Vectors};

/// How a [`QuantizedGraph`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedGraphParams {
    /// Bytes of a vector's code: 64, 128, 192 or 256 (no more are used than the dimension calls for). Longer codes say more
    /// and take longer to fetch and to compare.
    pub code_bytes: usize,
    /// Near neighbours from which a node's edges are chosen, at least one.
    pub candidates: usize,
    /// An edge is left out if a kept one ends nearer to its end by this factor (of squared distances), at least 1: the α of Vamana. More keeps
    /// more edges.
    pub alpha: f64,
    /// Decides the rotation and the clusters.
    pub seed: u64,
}

impl Default for QuantizedGraphParams {
    fn default() -> Self {
        Self {
            code_bytes: 128,
            candidates: 100,
            alpha: 1.2,
            seed: 0,
        }
    }
}

/// A graph of near neighbours that is walked by seven-bit codes of the principal components, and whose answer is ranked by
/// exact distances. Euclidean, approximate.
///
/// A walk begins at the nearest of √n central vectors and goes on from the nearest vector not yet expanded, until that one is farther
/// than the k-th nearest so far by more than `epsilon` (the range search of NGT; Iwasaki & Miyazaki 2018). What the code may have
/// misjudged is ranked besides: a vector costs a quarter of an expansion. The edges
/// are chosen as Vamana does (Jayaram Subramanya et al. 2019). That a coarse code guides the walk and exact distances only order
/// its end is the idea of SymphonyQG (Gou et al. 2025) and of ScaNN (Guo et al. 2020); here the code is one of the vector rather than of an edge, in
/// whole cache lines, and the estimate adds the length of what the code leaves out.
#[derive(Debug, Clone)]
pub struct QuantizedGraph {
    built: Arc<Built>,
    ef: usize,
    epsilon: f64,
}

#[derive(Debug)]
struct Built {
    /// The vectors in the order of the graph's positions.
    rows: Vectors,
    graph: Graph,
    lines: usize,
    params: QuantizedGraphParams,
}

impl QuantizedGraph {
    /// Builds the graph, in O(n·√n) comparisons of codes, and copies the vectors in its order. Queries use `ef` 400 and `epsilon` 0.05
    /// until [`with_search`](Self::with_search) says otherwise.
    ///
    /// # Errors
    /// If `base` is empty or a parameter is outside its range.
    pub fn build(base: Arc<Vectors>, params: &QuantizedGraphParams) -> Result<Self, BuildError> {
        check_base(&base)?;
        positive("candidates", params.candidates)?;
        let QuantizedGraphParams {
            code_bytes, alpha, ..
        } = *params;
        if !code_bytes.is_multiple_of(64) || !(1..=MOST_LINES).contains(&(code_bytes / 64)) {
            let expected = "64, 128, 192 or 256";
            return Err(BuildError::InvalidParameter {
                name: "code_bytes",
                received: code_bytes as f64,
                expected,
            });
        }
        if !(alpha >= 1.0 && alpha.is_finite()) {
            return Err(BuildError::InvalidParameter {
                name: "alpha",
                received: alpha,
                expected: "at least 1",
            });
        }
        let lines = (code_bytes / 64).min((base.dim() + graph_codes::TAIL).div_ceil(64));
        let graph = match lines {
            1 => build::build::<1>(&base, params),
            2 => build::build::<2>(&base, params),
            3 => build::build::<3>(&base, params),
            _ => build::build::<MOST_LINES>(&base, params),
        };
        let order: Vec<usize> = graph.ids.iter().map(|&id| id as usize).collect();
        let rows = base.select(&order).expect("ids are rows of the base");
        // A walk reads here and there: address translation is a good part of its cost.
        simd::in_huge_pages(&graph.codes);
        simd::in_huge_pages(&graph.edges);
        rows.in_huge_pages();
        let built = Built {
            rows,
            graph,
            lines,
            params: params.clone(),
        };
        Ok(Self {
            built: Arc::new(built),
            ef: 400,
            epsilon: 0.05,
        })
    }

    /// The same graph, searched with up to `ef` candidates (k, if that is more) out to 1 + `epsilon` times the estimated
    /// distance of the k-th, and what a code rounds off. A negative `epsilon` leaves the farthest of the k unexpanded.
    ///
    /// # Errors
    /// If `ef` is zero, or `epsilon` is not finite or no more than −1.
    pub fn with_search(&self, ef: usize, epsilon: f64) -> Result<Self, BuildError> {
        if !(epsilon > -1.0 && epsilon.is_finite()) {
            let (name, received, expected) = ("epsilon", epsilon, "more than -1");
            return Err(BuildError::InvalidParameter {
                name,
                received,
                expected,
            });
        }
        Ok(Self {
            built: self.built.clone(),
            ef: positive("ef", ef)?,
            epsilon,
        })
    }
}

/// What a query works with, kept by its thread.
#[derive(Debug, Default)]
struct Scratch {
    query: EncodedQuery,
    visited: Visited,
    pool: Vec<Entry>,
    /// Of the seeds.
    distances: Vec<u32>,
    /// Of a node's neighbours.
    scores: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A candidate, ordered by estimated squared distance, then position; its lowest bit says whether it has been expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    fn new(distance: u32, position: u32) -> Self {
        // Positions fit in 31 bits: a graph of more would not fit in memory by far.
        Self(u64::from(distance) << 32 | u64::from(position) << 1)
    }

    fn distance(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn position(self) -> usize {
        (self.0 as u32 >> 1) as usize
    }

    /// The last entry at `reach` times this one's distance and `margin` units of the code more.
    fn beyond(self, reach: f32, margin: f32) -> Self {
        let radius = reach * (self.distance() as f32).sqrt() + margin;
        Self::new((radius * radius) as u32, u32::MAX >> 1)
    }

    fn expanded(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Which positions this walk has met: a byte each, that holds the number of the last walk that did. Unlike bits they need no
/// clearing, and two in a row do not wait for each other.
#[derive(Debug, Default)]
struct Visited {
    walks: Vec<u8>,
    walk: u8,
}

impl Visited {
    /// Begins another walk over `len` positions.
    fn begin(&mut self, len: usize) {
        if self.walks.len() != len || self.walk == u8::MAX {
            self.walks.clear();
            self.walks.resize(len, 0);
            self.walk = 0;
        }
        self.walk += 1;
    }

    /// Meets `position`; returns whether that is for the first time.
    #[inline(always)]
    fn meet(&mut self, position: u32) -> bool {
        std::mem::replace(&mut self.walks[position as usize], self.walk) != self.walk
    }
}

/// Leaves in the pool what was found near the query, nearest first.
///
/// `reach` is 1 + ε: what is estimated beyond `reach` times the k-th nearest so far is not expanded. What is beyond it and the
/// k-th by more than the codes' error is not kept either.
fn walk<const LINES: usize>(graph: &Graph, ef: usize, k: usize, reach: f32, scratch: &mut Scratch) {
    const STARTS: usize = 4;
    /// Vectors that are expanded at once, so that the memory is asked for the one's neighbours while it brings the other's.
    const TOGETHER: usize = 3;
    /// Vectors that are expanded one by one before: while every one brings nearer ones, the second would be a worse choice.
    const ALONE: usize = 4;
    let Scratch {
        query,
        visited,
        pool,
        distances,
        scores,
    } = scratch;
    let query = &Query::new(
        query
            .code
            .first_chunk::<LINES>()
            .expect("a code as long as the graph's"),
    );
    let codes = graph.codes.as_chunks::<LINES>().0;
    visited.begin(codes.len());
    pool.clear();

    distances.clear();
    graph_codes::scan(query, graph.seed_codes.as_chunks().0, distances);
    for (&seed, &distance) in graph.seeds.iter().zip(&*distances) {
        let entry = Entry::new(distance, seed);
        if pool.len() < STARTS || entry < pool[STARTS - 1] {
            pool.truncate(STARTS - 1);
            let at = pool
                .iter()
                .position(|&other| entry < other)
                .unwrap_or(pool.len());
            pool.insert(at, entry);
        }
    }
    for entry in &*pool {
        visited.meet(entry.position() as u32);
    }

    // A unit of the code is what rounding can hide.
    let limits = |pool: &[Entry]| match pool.get(k - 1) {
        Some(kth) => (
            kth.beyond(reach, 1.0),
            kth.beyond(reach.max(1.0), 1.0 + graph.error),
        ),
        None => (Entry(u64::MAX), Entry(u64::MAX)),
    };
    let (mut next, mut walked) = (0, 0);
    let mut all_seeds = false;
    loop {
        if next == pool.len() {
            // Everything within reach of these starts is known. If that is less than k, the others come in.
            if pool.len() >= k || std::mem::replace(&mut all_seeds, true) {
                break;
            }
            let others = graph
                .seeds
                .iter()
                .zip(&*distances)
                .filter(|&(&seed, _)| visited.meet(seed));
            pool.extend(others.map(|(&seed, &distance)| Entry::new(distance, seed)));
            pool.sort_unstable();
            next = pool
                .iter()
                .position(|entry| !entry.expanded())
                .unwrap_or(pool.len());
            continue;
        }
        let (limit, kept) = limits(pool);
        while pool.last().is_some_and(|&last| last > kept) {
            pool.pop();
        }
        if pool.get(next).is_none_or(|&nearest| nearest > limit) {
            break;
        }
        // No branch that depends on what was visited: it would be guessed wrong half the time.
        let mut fresh = [0; TOGETHER * DEGREE];
        let (mut count, mut expanded) = (0, 0);
        let together = if walked < ALONE { 1 } else { TOGETHER };
        let mut nearest = next;
        while expanded < together && nearest < pool.len() && pool[nearest] <= limit {
            let entry = &mut pool[nearest];
            nearest += 1;
            if entry.expanded() {
                continue;
            }
            entry.0 |= 1;
            expanded += 1;
            let start = count;
            for &other in &graph.edges[entry.position()].0 {
                fresh[count] = other;
                count += usize::from(visited.meet(other));
            }
            for &other in &fresh[start..count] {
                simd::prefetch(&codes[other as usize]);
            }
        }
        walked += expanded;
        let fresh = &fresh[..count];
        // What will most likely be expanded after this.
        for entry in pool[nearest..]
            .iter()
            .take(8)
            .filter(|entry| !entry.expanded())
            .take(TOGETHER)
        {
            simd::prefetch(&graph.edges[entry.position()].0);
        }
        graph_codes::score(query, codes, fresh, scores);
        for (&other, &distance) in fresh.iter().zip(&*scores) {
            let entry = Entry::new(distance, other);
            if entry > kept {
                continue;
            }
            if pool.len() == ef {
                if entry > pool[ef - 1] {
                    continue;
                }
                pool.pop();
            }
            let at = pool.partition_point(|&other| other < entry);
            pool.insert(at, entry);
            if at < nearest {
                nearest = at;
                simd::prefetch(&graph.edges[other as usize].0);
            }
        }
        next = nearest;
        while pool.get(next).is_some_and(|entry| entry.expanded()) {
            next += 1;
        }
    }
    let kept = limits(pool).1;
    pool.truncate(pool.partition_point(|&entry| entry <= kept));
}

impl Built {
    /// The `k` best of the pool by exact distance.
    fn rank(&self, query: &[f32], k: usize, pool: &[Entry]) -> Vec<Neighbor> {
        /// Rows asked for ahead of time.
        const AHEAD: usize = 4;
        let fetch = |entry: &Entry| self.rows.row(entry.position()).prefetch();
        let ranker = Ranker::new(&self.rows, Metric::Euclidean, Row::Floats(query));
        let mut top = TopK::new(k.min(self.rows.len()));
        pool.iter().take(AHEAD).for_each(fetch);
        for (i, entry) in pool.iter().enumerate() {
            pool.get(i + AHEAD).into_iter().for_each(fetch);
            if let Some(rank) = ranker.rank_within(entry.position(), top.threshold()) {
                top.push(entry.position() as u32, rank);
            }
        }
        let mut found = top.into_neighbors(Metric::Euclidean);
        found
            .iter_mut()
            .for_each(|neighbor| neighbor.id = self.graph.ids[neighbor.id as usize]);
        found.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        found
    }
}

impl Index for QuantizedGraph {
    fn name(&self) -> &'static str {
        "Quantized graph"
    }

    fn params(&self) -> Vec<(&'static str, f64)> {
        let params = &self.built.params;
        vec![
            ("code_bytes", params.code_bytes as f64),
            ("candidates", params.candidates as f64),
            ("alpha", params.alpha),
            ("seed", params.seed as f64),
            ("ef", self.ef as f64),
            ("epsilon", self.epsilon),
        ]
    }

    fn len(&self) -> usize {
        self.built.rows.len()
    }

    fn dim(&self) -> usize {
        self.built.rows.dim()
    }

    fn memory_bytes(&self) -> usize {
        self.built.rows.memory_bytes() + self.built.graph.memory_bytes()
    }

    fn query(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        check_query(query, k, self.dim())?;
        let Built { graph, lines, .. } = &*self.built;
        let reach = (1.0 + self.epsilon) as f32;
        let ef = self.ef.max(k);
        SCRATCH.with_borrow_mut(|scratch| {
            graph.encoder.encode(query, &mut scratch.query);
            match lines {
                1 => walk::<1>(graph, ef, k, reach, scratch),
                2 => walk::<2>(graph, ef, k, reach, scratch),
                3 => walk::<3>(graph, ef, k, reach, scratch),
                _ => walk::<MOST_LINES>(graph, ef, k, reach, scratch),
            }
            Ok(self.built.rank(query, k, &scratch.pool))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, recall, rounded};

    fn build(base: &Arc<Vectors>, params: &QuantizedGraphParams) -> QuantizedGraph {
        QuantizedGraph::build(base.clone(), params).unwrap()
    }

    #[test]
    fn finds_nearly_all_on_floats_and_on_bytes_at_every_length_of_code() {
        let floats = clustered(4_000, 300, 1);
        let queries = clustered(200, 300, 2);
        for base in [Arc::new(rounded(&floats)), Arc::new(floats)] {
            for code_bytes in [64, 128, 192, 256] {
                let graph = build(
                    &base,
                    &QuantizedGraphParams {
                        code_bytes,
                        ..Default::default()
                    },
                );
                let near = recall(&graph.with_search(200, 0.0).unwrap(), &base, &queries, 10);
                let far = recall(&graph.with_search(200, 0.1).unwrap(), &base, &queries, 10);
                let short = graph.with_search(200, -0.1).unwrap();
                assert!(
                    short
                        .query_batch(&queries, 10)
                        .unwrap()
                        .iter()
                        .all(|found| found.len() == 10)
                );
                let short = recall(&short, &base, &queries, 10);
                assert!(
                    0.3 < short && short < near && near > 0.6 && far > 0.98,
                    "{code_bytes} bytes: {short} {near} {far}"
                );
            }
        }
    }

    #[test]
    fn an_offset_far_from_the_origin_takes_nothing_from_the_codes() {
        let shift = |data: Vectors| {
            let values: Vec<f32> = data
                .to_floats()
                .iter()
                .map(|value| value / 64.0 - 4_000.0)
                .collect();
            Vectors::from_floats(data.dim(), values).unwrap()
        };
        let (base, queries) = (
            Arc::new(shift(clustered(3_000, 30, 1))),
            shift(clustered(100, 30, 2)),
        );
        let graph = build(&base, &QuantizedGraphParams::default());
        let recall = recall(&graph.with_search(200, 0.1).unwrap(), &base, &queries, 10);
        assert!(recall > 0.99, "{recall}");
    }

    #[test]
    fn every_vector_is_within_reach() {
        // Far clusters, lone vectors and duplicates: an unlimited walk must come by all.
        let mut values = clustered(500, 8, 1).to_floats();
        values.extend([0.5f32; 8].repeat(200));
        values.extend((0..40).flat_map(|i| [1e4 * i as f32; 8]));
        let base = Arc::new(Vectors::from_floats(8, values).unwrap());
        let graph = build(
            &base,
            &QuantizedGraphParams {
                candidates: 3,
                alpha: 1.0,
                ..Default::default()
            },
        );
        let mut ids: Vec<u32> = graph
            .query(&[1.0; 8], base.len())
            .unwrap()
            .iter()
            .map(|found| found.id)
            .collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..base.len() as u32));
    }

    #[test]
    fn extreme_values_are_no_trouble() {
        for scale in [3e38f32, 1e-42] {
            let rows: Vec<f32> = (0..60)
                .map(|i| scale * ((i * 7 % 11) as f32 / 11.0 - 0.5))
                .collect();
            let base = Arc::new(Vectors::from_floats(2, rows).unwrap());
            let graph = build(&base, &QuantizedGraphParams::default());
            for row in 0..base.len() {
                let found = graph
                    .with_search(50, 1.0)
                    .unwrap()
                    .query(&base.row_to_floats(row), 30)
                    .unwrap();
                assert_eq!(
                    (found.len(), found[0].distance),
                    (30, 0.0),
                    "scale {scale}, row {row}"
                );
            }
        }
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let base = Arc::new(clustered(2_000, 40, 1));
        let on = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let graph = pool.install(|| {
                build(
                    &base,
                    &QuantizedGraphParams {
                        seed,
                        ..Default::default()
                    },
                )
            });
            (
                graph.built.graph.edges.clone(),
                graph.built.graph.codes.clone(),
                graph.built.graph.seeds.clone(),
            )
        };
        assert_eq!(on(1, 5), on(3, 5));
        assert_ne!(on(1, 5), on(1, 6));
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let base = Arc::new(clustered(20, 3, 1));
        let name = |error: BuildError| match error {
            BuildError::InvalidParameter { name, .. } => name,
            other => panic!("{other}"),
        };
        for (params, expected) in [
            (
                QuantizedGraphParams {
                    code_bytes: 100,
                    ..Default::default()
                },
                "code_bytes",
            ),
            (
                QuantizedGraphParams {
                    code_bytes: 0,
                    ..Default::default()
                },
                "code_bytes",
            ),
            (
                QuantizedGraphParams {
                    code_bytes: 320,
                    ..Default::default()
                },
                "code_bytes",
            ),
            (
                QuantizedGraphParams {
                    candidates: 0,
                    ..Default::default()
                },
                "candidates",
            ),
            (
                QuantizedGraphParams {
                    alpha: 0.9,
                    ..Default::default()
                },
                "alpha",
            ),
            (
                QuantizedGraphParams {
                    alpha: f64::NAN,
                    ..Default::default()
                },
                "alpha",
            ),
        ] {
            assert_eq!(
                name(QuantizedGraph::build(base.clone(), &params).unwrap_err()),
                expected
            );
        }
        let graph = build(&base, &QuantizedGraphParams::default());
        assert_eq!(name(graph.with_search(0, 0.1).unwrap_err()), "ef");
        assert_eq!(name(graph.with_search(9, -1.0).unwrap_err()), "epsilon");
        assert_eq!(name(graph.with_search(9, f64::NAN).unwrap_err()), "epsilon");
    }
}
