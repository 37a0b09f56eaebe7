//! [`PqLists`]: inverted lists of product-quantised residuals, on which `IvfPq` and `Scann` stand.
//!
//! The naive form, for a query q, a list with centroid c, and the code of a residual r = x − c,
//! which stands for r̂ (IVFADC; Jégou, Douze and Schmid 2011, section IV):
//!
//! ```text
//! for each list among the nearest {
//!     tables = distances of q − c to all codebooks          m · ksub · dsub products a list
//!     for each code in the list { estimate = Σⱼ tables[j][code[j]] }
//! }
//! ```
//!
//! ## The idea that makes it cheaper
//!
//! The estimate falls into parts, of which only one needs the query and the code together:
//!
//! ```text
//! ‖q − c − r̂‖² = ‖q − c‖²  +  (‖r̂‖² + 2⟨c, r̂⟩)  −  2⟨q, r̂⟩
//!                 a number       a number a           a sum of table entries that
//!                 a list         vector: its bias     do not depend on the list
//! ```
//!
//! So a query computes its tables once, and not for each list. A list costs one product of q with
//! its centroid, and biases are computed when the index is built.
//!
//! All of this happens in principal components ([`Projection`]). What these leave out of the query
//! and of the vector, their *rests*, is added: the vector's to its bias, the query's to all.
//!
//! ## Memory
//!
//! A *position* is a place in the order of the lists. Codes, biases, ids and kept rows all lie by
//! position, so that a list is one run in each of them:
//!
//! ```text
//! lists    |    list 0     |  list 1  |        list 2        | ...
//! codes    m · nbits bits a vector; of 4 bits in blocks of 32 vectors (see `simd::pq_scan`)
//! biases   16 bits a vector
//! ids      32 bits a vector
//! rows     d values a vector, if they are kept
//! ```
//!
//! ## Why neighbours may be missed
//!
//! A neighbour is missed if its list is not among the `nprobe` searched, or if its estimate is not
//! among the `candidates` least. Candidates are then compared by their vectors, if these are kept:
//! so what is returned has its true distance.

use std::cell::RefCell;

use ndarray::Axis;
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::{InvertedLists, least};
use crate::index::ivf::product_quantizer::{Loss, ProductQuantizer, Subspaces};
use crate::index::support::projection::{Projected, ProjectedQuery, Projection};
use crate::index::{Found, Visits};
use crate::neighbor::TopK;
use crate::simd::matvec;
use crate::simd::pq_scan::{self, Linear, Pair, Scored};
use crate::vectors::{Row, Vectors};

/// Rows of candidates that are asked for ahead of time, while others are compared: a trade of
/// waiting for memory against pushing out of the cache what is not read yet.
const AHEAD: usize = 6;

/// How the lists are made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub nlist: usize,
    pub subspaces: Subspaces,
    pub nbits: usize,
    pub loss: Loss,
    pub keep_vectors: bool,
    pub seed: u64,
}

/// Vectors as codes of their residuals, in the order of k-means lists.
#[derive(Debug)]
pub(crate) struct PqLists {
    dim: usize,
    projection: Projection,
    lists: InvertedLists,
    /// ‖c‖² of the lists' centroids.
    norms: Vec<f32>,
    quantizer: ProductQuantizer,
    codes: Codes,
    biases: Biases,
    /// The vectors in the order of the lists, if they are kept.
    rows: Option<Vectors>,
}

#[derive(Debug)]
enum Codes {
    /// Of four bits, as [`pq_scan::scan`] wants them.
    Packed(Vec<Pair>),
    /// Of eight bits, n × m.
    Bytes(Vec<u8>),
}

/// What each vector adds to all its estimates, in 16 bits: value · step + least.
#[derive(Debug)]
struct Biases {
    values: Vec<u16>,
    least: f32,
    step: f32,
}

/// What a query works with, kept by its thread.
#[derive(Debug, Default)]
struct Scratch {
    query: ProjectedQuery,
    /// Squared distances to the centroids of the lists, in the components.
    to_centroids: Vec<f32>,
    tables: Tables,
    found: Vec<Scored>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a query adds up for each code: sum · `per_entry` + `offset` is −2⟨q, r̂⟩.
#[derive(Debug, Default)]
struct Tables {
    entries: Vec<f32>,
    /// The entries in 8 bits.
    packed: Vec<Pair>,
    per_entry: f32,
    offset: f32,
}

impl PqLists {
    /// Projects, clusters and encodes `base`, which is not empty.
    pub fn build(base: &Vectors, plan: &Plan) -> Self {
        // Rows of the map in the order of the subspaces: the coordinates of a subspace then lie
        // side by side, and nothing is rearranged for a query.
        let order = &plan.subspaces.order;
        let (projection, projected) = Projection::fit(base, order.len(), plan.seed, |components| {
            components.select(Axis(0), order)
        });
        let Projected { coordinates, rests } = projected;
        let coordinates =
            Vectors::from_floats(order.len(), coordinates).expect("scaled values are finite");

        // Codes are made of residuals, which are smaller than the vectors and alike in all lists.
        // So one quantiser serves all lists. Residuals, codes and biases are by position, `rests`
        // is by id.
        let lists = InvertedLists::train(&coordinates, plan.nlist, plan.seed);
        let residuals = residuals(&lists, &coordinates);
        let Plan {
            subspaces,
            nbits,
            loss,
            seed,
            ..
        } = plan;
        let quantizer = ProductQuantizer::train(&residuals, subspaces, *nbits, *loss, *seed);
        let codes = quantizer.encode_all(&residuals, *loss);
        let biases = Biases::compute(&lists, &quantizer, &residuals, &codes, &rests, *loss);

        // With ‖c‖² at hand, a query's distances to all centroids follow from its products
        // with them.
        let square = |list| lists.centroid(list).iter().map(|value| value * value).sum();
        let norms = (0..lists.nlist()).map(square).collect();
        // Tables of 16 entries fit in half a register and are looked up by shuffles. Tables of 256
        // do not, and codes of a byte stay as they are.
        let codes = match quantizer.ksub() {
            16 => Codes::Packed(pq_scan::pack(&codes, quantizer.m())),
            _ => Codes::Bytes(codes),
        };
        let rows = plan.keep_vectors.then(|| lists.in_list_order(base));
        if let Some(rows) = &rows {
            rows.in_huge_pages();
        }
        Self {
            dim: base.dim(),
            projection,
            lists,
            norms,
            quantizer,
            codes,
            biases,
            rows,
        }
    }

    pub fn len(&self) -> usize {
        self.biases.values.len()
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes that grow with the number of vectors: codes, biases, ids, and the vectors if they are
    /// kept.
    pub fn vector_bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Packed(codes) => size_of_val(&**codes),
            Codes::Bytes(codes) => size_of_val(&**codes),
        };
        let rows = self.rows.as_ref().map_or(0, Vectors::memory_bytes);
        codes + size_of_val(&*self.biases.values) + size_of_val(self.lists.ids()) + rows
    }

    pub fn memory_bytes(&self) -> usize {
        // The ids belong to the bytes of the vectors, so they are taken off here.
        let of_lists =
            self.lists.memory_bytes() - size_of_val(self.lists.ids()) + size_of_val(&*self.norms);
        self.vector_bytes()
            + of_lists
            + self.quantizer.memory_bytes()
            + self.projection.memory_bytes()
    }

    /// The `k` nearest that are found. The codes in the `nprobe` nearest lists choose `candidates`
    /// vectors, at least k; of these the best by true distance are returned, or by the estimate if
    /// the vectors are not kept. If these lists hold fewer than k vectors, the next ones are
    /// searched too.
    pub fn search(&self, query: Row<'_>, k: usize, nprobe: usize, candidates: usize) -> Found {
        // All neighbours come from the candidates, so these are at least k.
        let k = k.min(self.len());
        let candidates = candidates.clamp(k, self.len());
        SCRATCH.with_borrow_mut(|scratch| {
            self.prepare(&query.to_floats(), scratch);
            let mut visits = self.scan(k, nprobe, candidates, scratch);
            let top = match &self.rows {
                Some(rows) => {
                    visits.distances = scratch.found.len();
                    self.by_vectors(rows, query, k, &scratch.found)
                }
                None => self.by_estimates(k, &scratch.found),
            };
            Found {
                candidates: top.into_candidates(),
                visits,
            }
        })
    }

    /// Projects the query, computes its tables, and its distances to all centroids.
    fn prepare(&self, query: &[f32], scratch: &mut Scratch) {
        self.projection.apply(query, &mut scratch.query);
        let query = &*scratch.query.coordinates;
        // Four-bit codes want their tables in eight bits.
        let packed = matches!(self.codes, Codes::Packed(_));
        scratch.tables.fill(&self.quantizer, query, packed);

        // ‖q − c‖² = ‖q‖² + ‖c‖² − 2⟨q, c⟩: all products are one product
        // with a matrix.
        let to_centroids = &mut scratch.to_centroids;
        to_centroids.resize(self.norms.len(), 0.0);
        matvec::product(self.lists.centroids(), query, to_centroids);
        let square: f32 = query.iter().map(|value| value * value).sum();
        for (distance, norm) in to_centroids.iter_mut().zip(&self.norms) {
            // The products are replaced in place. Cancellation can leave a distance slightly below
            // zero; it is only added to estimates and compared with others.
            let product = *distance;
            *distance = square + norm - 2.0 * product;
        }
    }

    /// Leaves in `scratch.found` the `candidates` of least estimate.
    fn scan(&self, k: usize, nprobe: usize, candidates: usize, scratch: &mut Scratch) -> Visits {
        scratch.found.clear();
        let to_centroids = || scratch.to_centroids.iter().copied();
        let mut scan = Scan {
            index: self,
            tables: &scratch.tables,
            rest: scratch.query.rest,
            candidates,
            limit: f32::INFINITY,
            found: &mut scratch.found,
            visits: Visits::default(),
        };
        // Nearest first: the limit falls early, and most of the later lists' vectors are above it.
        for (distance, list) in least(to_centroids(), nprobe) {
            scan.list(distance, list as usize);
        }
        // Lists of few vectors: the next ones, until there are k.
        if scan.visits.bounds < k {
            // `bounds` counts the vectors scored so far. This is rare, so the centroids are sorted
            // again, all of them this time.
            let all = least(to_centroids(), self.lists.nlist());
            for (distance, list) in all.into_iter().skip(nprobe) {
                if scan.visits.bounds >= k {
                    break;
                }
                scan.list(distance, list as usize);
            }
        }
        scan.finish()
    }

    /// The `k` best candidates by exact distance.
    fn by_vectors(&self, rows: &Vectors, query: Row<'_>, k: usize, found: &[Scored]) -> TopK {
        // The first rows are asked for from memory now, each later one while the row AHEAD places
        // before it is compared.
        let fetch = |candidate: &Scored| rows.row(candidate.position as usize).prefetch();
        let ranker = Ranker::new(rows, Metric::Euclidean, query);
        let mut top = TopK::new(k);
        found.iter().take(AHEAD).for_each(fetch);
        for (i, candidate) in found.iter().enumerate() {
            found.get(i + AHEAD).into_iter().for_each(fetch);
            let position = candidate.position as usize;
            if let Some(reduced) = ranker.reduced_within(position, top.threshold()) {
                top.push(self.lists.ids()[position], reduced);
            }
        }
        top
    }

    /// The `k` best candidates by their estimates.
    fn by_estimates(&self, k: usize, found: &[Scored]) -> TopK {
        let mut top = TopK::new(k);
        // Estimates are squares in units of the coordinates; the caller wants units of the data.
        let square_scale = self.projection.scale().powi(2);
        for candidate in found {
            // The estimate of a very near vector may be below zero.
            let reduced = f64::from(candidate.estimate).max(0.0) / square_scale;
            top.push(self.lists.ids()[candidate.position as usize], reduced);
        }
        top
    }
}

/// Each vector less the centroid of its list, in the order of the lists.
fn residuals(lists: &InvertedLists, coordinates: &Vectors) -> Vectors {
    let dim = coordinates.dim();
    let mut residuals = lists.in_list_order(coordinates).to_floats();
    residuals
        .par_chunks_exact_mut(dim)
        .zip(lists.list_of_positions())
        .for_each(|(row, list)| {
            for (value, centroid) in row.iter_mut().zip(lists.centroid(list)) {
                *value -= centroid;
            }
        });
    Vectors::from_floats(dim, residuals).expect("differences of coordinates are finite")
}

impl Biases {
    /// The biases of all vectors by position; `residuals` and `codes` are by position, `rests` by
    /// id.
    fn compute(
        lists: &InvertedLists,
        quantizer: &ProductQuantizer,
        residuals: &Vectors,
        codes: &[u8],
        rests: &[f32],
        loss: Loss,
    ) -> Self {
        // `rests` has one number a row, so this is the number of coordinates.
        let residuals = residuals.floats().expect("residuals are floats");
        let dim = residuals.len() / rests.len();
        let exact: Vec<f32> = lists
            .list_of_positions()
            .into_par_iter()
            .enumerate()
            .map(|(position, list)| {
                let residual = &residuals[position * dim..][..dim];
                let code = &codes[position * quantizer.m()..][..quantizer.m()];
                let decoded = quantizer.decode(code);
                let rest = rests[lists.ids()[position] as usize];
                bias(residual, &decoded, lists.centroid(list), loss) + rest
            })
            .collect();
        Self::rounded(&exact)
    }

    /// The numbers in 65,536 steps from the least to the largest.
    fn rounded(exact: &[f32]) -> Self {
        let least = exact.iter().copied().fold(f32::INFINITY, f32::min);
        let most = exact.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Where all biases are equal the step would be zero, and rounding would divide by it.
        let step = if most > least {
            (most - least) / f32::from(u16::MAX)
        } else {
            1.0
        };
        let round = |bias: &f32| ((bias - least) / step).round() as u16;
        Self {
            values: exact.iter().map(round).collect(),
            least,
            step,
        }
    }
}

/// The number that a vector adds to all its estimates, but for the rest.
///
/// With e = r − r̂, the exact bias of r̂ is ‖r̂‖² + 2⟨c, r̂⟩. The second part is
/// taken as it is; what is best for the first depends on how the codes were made:
///
/// - Plain loss: where the query is the vector itself (q − c = r) the estimate is to be the true
///   distance, 0. There the table gives −2⟨r, r̂⟩ and the list ‖r‖², so 2⟨r, r̂⟩
///   − ‖r‖² is what brings the sum to 0. (‖r̂‖², as FAISS has it, would leave
///   ‖e‖² over.) For other queries e then counts only by ⟨q − x, e⟩, of unknown sign.
/// - Score-aware: ‖r‖² as it is, for the loss has seen to it that ⟨r, e⟩ is small.
fn bias(residual: &[f32], decoded: &[f32], centroid: &[f32], loss: Loss) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // e need not be computed: ⟨r, r̂⟩ and ‖r‖² say all that is needed of it.
    let own = if loss == Loss::PLAIN {
        2.0 * dot(residual, decoded) - dot(residual, residual)
    } else {
        dot(residual, residual)
    };
    own + 2.0 * dot(centroid, decoded)
}

/// One query on its way through the lists.
struct Scan<'a> {
    index: &'a PqLists,
    tables: &'a Tables,
    /// What the components leave out of the query.
    rest: f32,
    /// How many are wanted.
    candidates: usize,
    /// Vectors of a larger estimate are not among the candidates.
    limit: f32,
    found: &'a mut Vec<Scored>,
    visits: Visits,
}

impl Scan<'_> {
    /// Appends the vectors of a list, at this squared distance, whose estimates are within the
    /// limit.
    fn list(&mut self, distance: f32, list: usize) {
        let PqLists { lists, biases, .. } = self.index;
        let positions = lists.list(list);
        self.visits.leaves += 1;
        self.visits.bounds += positions.len();
        // What is the same for all vectors of a list is one number. `biases.least` and
        // `tables.offset` are there because biases are kept in 16 bits and tables in 8.
        let linear = Linear {
            per_entry: self.tables.per_entry,
            per_bias: biases.step,
            offset: distance + self.rest + biases.least + self.tables.offset,
        };
        // The limit stays for the whole list. It is lowered below, between lists.
        let scan = pq_scan::Scan {
            biases: &biases.values,
            positions,
            linear,
            limit: self.limit,
        };
        match &self.index.codes {
            Codes::Packed(codes) => {
                pq_scan::scan(codes, &self.tables.packed, &scan, self.found);
            }
            Codes::Bytes(codes) => {
                let tables = self.tables.entries.as_chunks().0;
                pq_scan::scan_bytes(codes, tables, &scan, self.found);
            }
        }
        // Sorting out at twice as many as wanted costs a constant time for each that was found.
        if self.found.len() >= 2 * self.candidates {
            self.limit = keep_least(self.found, self.candidates);
        }
    }

    /// Sorts out the candidates that are too many; returns what was looked at.
    fn finish(self) -> Visits {
        if self.found.len() > self.candidates {
            keep_least(self.found, self.candidates);
        }
        self.visits
    }
}

/// Keeps the `count` candidates of least estimate (ties by position), of which there are more;
/// returns the largest estimate kept.
fn keep_least(found: &mut Vec<Scored>, count: usize) -> f32 {
    let key = |a: &Scored, b: &Scored| {
        a.estimate
            .total_cmp(&b.estimate)
            .then(a.position.cmp(&b.position))
    };
    // Selection, O(n), and no sorting: the order of the candidates does not matter, only which they
    // are. Ties are settled by position, so the result does not depend on when this is called.
    let (_, last, _) = found.select_nth_unstable_by(count - 1, key);
    let limit = last.estimate;
    found.truncate(count);
    limit
}

impl Tables {
    /// Computes the tables of a query; `packed` says whether in 8 bits.
    fn fill(&mut self, quantizer: &ProductQuantizer, query: &[f32], packed: bool) {
        quantizer.products(query, &mut self.entries);
        if !packed {
            // Entries are the products themselves, of which −2 times the sum is wanted.
            (self.per_entry, self.offset) = (-2.0, 0.0);
            return;
        }
        // A packed entry is (largest − product) / step: the sum of products is the sum of the
        // largest less step · the sum of entries.
        let (step, largest) = pq_scan::quantize(self.entries.as_chunks().0, &mut self.packed);
        (self.per_entry, self.offset) = (2.0 * step, -2.0 * largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, rounded};
    use crate::neighbor::Neighbor;

    fn build(base: &Vectors, nbits: usize, loss: Loss) -> PqLists {
        let subspaces = Subspaces::deal(12, 6);
        PqLists::build(
            base,
            &Plan {
                nlist: 7,
                subspaces,
                nbits,
                loss,
                keep_vectors: false,
                seed: 1,
            },
        )
    }

    /// What the codes of a vector and its list say of its distance, without tables:
    /// ‖q − c − r̂‖² and the rests, less ‖e‖².
    fn by_definition(base: &Vectors, lists: &PqLists, query: &[f32]) -> Vec<(u32, f64)> {
        let order = Subspaces::deal(12, 6).order;
        let (_, projected) =
            Projection::fit(base, 12, 1, |components| components.select(Axis(0), &order));
        let mut out = ProjectedQuery::default();
        lists.projection.apply(query, &mut out);
        let mut all = Vec::new();
        for list in 0..lists.lists.nlist() {
            let centroid = lists.lists.centroid(list);
            for position in lists.lists.list(list) {
                let id = lists.lists.ids()[position];
                let row = &projected.coordinates[id as usize * 12..][..12];
                let residual: Vec<f32> = row.iter().zip(centroid).map(|(x, c)| x - c).collect();
                let mut code = vec![0; lists.quantizer.m()];
                lists
                    .quantizer
                    .encode(&residual, Loss::PLAIN, &mut code, &mut Vec::new());
                let decoded = lists.quantizer.decode(&code);
                let to =
                    |i: usize| f64::from(out.coordinates[i] - centroid[i] - decoded[i]).powi(2);
                let error = |i: usize| f64::from(residual[i] - decoded[i]).powi(2);
                let squared: f64 = (0..12).map(|i| to(i) - error(i)).sum();
                let rests = f64::from(out.rest) + f64::from(projected.rests[id as usize]);
                all.push((
                    id,
                    (squared + rests).max(0.0).sqrt() / lists.projection.scale(),
                ));
            }
        }
        all
    }

    fn search(
        lists: &PqLists,
        query: &[f32],
        k: usize,
        nprobe: usize,
        candidates: usize,
    ) -> Vec<Neighbor> {
        let found = lists.search(query.into(), k, nprobe, candidates);
        let candidates = found.candidates.into_iter();
        candidates
            .map(|candidate| candidate.neighbor(Metric::Euclidean))
            .collect()
    }

    #[test]
    fn estimates_are_those_of_the_definition() {
        let (floats, queries) = (clustered(900, 20, 1), clustered(10, 20, 2));
        for base in [rounded(&floats), floats] {
            for (nbits, tolerance) in [(8, 0.002), (4, 0.05)] {
                let lists = build(&base, nbits, Loss::PLAIN);
                for query in (0..queries.len()).map(|row| queries.row_to_floats(row)) {
                    let mut expected = by_definition(&base, &lists, &query);
                    expected.sort_by_key(|&(id, _)| id);
                    let mut found = search(&lists, &query, 900, 7, 900);
                    assert!(found.is_sorted_by_key(|neighbor| neighbor.distance));
                    found.sort_by_key(|neighbor| neighbor.id);
                    assert_eq!(found.len(), 900);
                    let typical =
                        expected.iter().map(|&(_, distance)| distance).sum::<f64>() / 900.0;
                    for (found, (id, distance)) in found.iter().zip(expected) {
                        assert_eq!(found.id, id);
                        assert!(
                            (found.distance - distance).abs() < tolerance * typical,
                            "{found:?} {distance}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_kept_while_scanning_is_what_is_least_in_all() {
        let (base, queries) = (clustered(900, 20, 1), clustered(10, 20, 2));
        let lists = build(&base, 4, Loss::score_aware(0.5, 12));
        for query in (0..queries.len()).map(|row| queries.row_to_floats(row)) {
            let all = search(&lists, &query, 900, 7, 900);
            for k in [1, 5, 40] {
                assert_eq!(search(&lists, &query, k, 7, k), all[..k]);
            }
        }
    }

    #[test]
    fn more_lists_follow_until_there_are_k() {
        let base = clustered(900, 20, 1);
        let lists = build(&base, 4, Loss::PLAIN);
        assert_eq!(
            search(&lists, &base.row_to_floats(3), 500, 1, 500).len(),
            500
        );
    }
}
