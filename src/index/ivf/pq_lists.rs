//! [`PqLists`]: inverted lists of product-quantised residuals, on which `IvfPq` and `Scann` stand.

use std::cell::RefCell;

use ndarray::Axis;
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::inverted_lists::{InvertedLists, least};
use crate::index::ivf::product_quantizer::{Loss, ProductQuantizer, Subspaces};
use crate::index::support::projection::{Projected, ProjectedQuery, Projection};
use crate::index::{Found, Visits};
use crate::neighbor::TopK;
use crate::simd::lower_bound::prefetch_row;
use crate::simd::matvec;
use crate::simd::pq_scan::{self, Candidate, Linear, Pair};
use crate::vectors::{Row, Vectors};

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
///
/// With c the centroid of the list of x, r = x − c and r̂ what its code stands for, the squared distance to a query falls into
/// ‖q − c − r̂‖² = ‖q − c‖² + (‖r̂‖² + 2⟨c, r̂⟩) − 2⟨q, r̂⟩: a number a list, a number a vector (its *bias*), and a sum of table
/// entries that do not depend on the list. So a query computes its tables once, where FAISS does so for each list.
#[derive(Debug)]
pub(crate) struct PqLists {
    dim: usize,
    projection: Projection,
    partition: InvertedLists,
    /// ‖c‖² of the lists' centroids.
    norms: Vec<f32>,
    quantizer: ProductQuantizer,
    codes: Codes,
    /// In steps of `per_bias` above `least_bias`.
    biases: Vec<u16>,
    least_bias: f32,
    per_bias: f32,
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

/// What a query works with, kept by its thread.
#[derive(Debug, Default)]
struct Scratch {
    query: ProjectedQuery,
    /// With the centroids of the lists.
    products: Vec<f32>,
    tables: Tables,
    found: Vec<Candidate>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a query adds up for each code: −2⟨q, r̂⟩ but for an offset.
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
        let order = &plan.subspaces.order;
        let (projection, projected) = Projection::fit(base, plan.seed, |components| {
            components.select(Axis(0), order)
        });
        let Projected { coordinates, rests } = projected;
        let coordinates =
            Vectors::from_floats(order.len(), coordinates).expect("scaled values are finite");
        let partition = InvertedLists::train(&coordinates, plan.nlist, plan.seed);
        let width = coordinates.dim();

        let mut residuals = partition.in_list_order(&coordinates).to_floats();
        let mut centroids = vec![0u32; base.len()];
        (0..partition.nlist()).for_each(|list| centroids[partition.list(list)].fill(list as u32));
        residuals
            .par_chunks_exact_mut(width)
            .zip(&centroids)
            .for_each(|(row, &list)| {
                row.iter_mut()
                    .zip(partition.centroid(list as usize))
                    .for_each(|(value, centroid)| *value -= centroid);
            });
        let residuals =
            Vectors::from_floats(width, residuals).expect("differences of coordinates are finite");
        let quantizer = ProductQuantizer::train(
            &residuals,
            &plan.subspaces,
            plan.nbits,
            plan.loss,
            plan.seed,
        );
        let codes = quantizer.encode_all(&residuals, plan.loss);

        let values = residuals.floats().expect("residuals are floats");
        let rows = values
            .par_chunks_exact(width)
            .zip(codes.par_chunks_exact(quantizer.m()));
        let biases: Vec<f32> = rows
            .zip(&centroids)
            .zip(partition.ids())
            .map(|(((residual, code), &list), &id)| {
                bias(
                    residual,
                    &quantizer.decode(code),
                    partition.centroid(list as usize),
                    plan.loss,
                ) + rests[id as usize]
            })
            .collect();
        let (least_bias, most) = biases.iter().fold(
            (f32::INFINITY, f32::NEG_INFINITY),
            |(least, most), &bias| (bias.min(least), bias.max(most)),
        );
        let per_bias = if most > least_bias {
            (most - least_bias) / f32::from(u16::MAX)
        } else {
            1.0
        };
        let biases = biases
            .iter()
            .map(|bias| ((bias - least_bias) / per_bias).round() as u16)
            .collect();

        let square = |list| {
            partition
                .centroid(list)
                .iter()
                .map(|value| value * value)
                .sum()
        };
        let norms = (0..partition.nlist()).map(square).collect();
        let codes = match quantizer.ksub() {
            16 => Codes::Packed(pq_scan::pack(&codes, quantizer.m())),
            _ => Codes::Bytes(codes),
        };
        let rows = plan.keep_vectors.then(|| partition.in_list_order(base));
        rows.iter().for_each(Vectors::in_huge_pages);
        Self {
            dim: base.dim(),
            projection,
            partition,
            norms,
            quantizer,
            codes,
            biases,
            least_bias,
            per_bias,
            rows,
        }
    }

    pub fn len(&self) -> usize {
        self.biases.len()
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes that grow with the number of vectors: codes, biases, ids, and the vectors if they are kept.
    pub fn vector_bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Packed(codes) => size_of_val(&**codes),
            Codes::Bytes(codes) => size_of_val(&**codes),
        };
        let rows = self.rows.as_ref().map_or(0, Vectors::memory_bytes);
        codes + size_of_val(&*self.biases) + size_of_val(self.partition.ids()) + rows
    }

    pub fn memory_bytes(&self) -> usize {
        let shared = self.partition.memory_bytes() - size_of_val(self.partition.ids())
            + size_of_val(&*self.norms);
        self.vector_bytes()
            + shared
            + self.quantizer.memory_bytes()
            + self.projection.memory_bytes()
    }

    /// The `k` best of the `candidates` (k, if that is more) that the codes in the `nprobe` nearest lists bring up, or in more lists if
    /// those hold fewer than k: by true distance if the vectors are kept, by the estimate if not.
    pub fn search(&self, query: Row<'_>, k: usize, nprobe: usize, candidates: usize) -> Found {
        let k = k.min(self.len());
        let candidates = candidates.clamp(k, self.len());
        SCRATCH.with_borrow_mut(|scratch| {
            let mut visits = self.scan(&query.to_floats(), k, nprobe, candidates, scratch);
            let top = match &self.rows {
                Some(rows) => {
                    visits.distances = scratch.found.len();
                    self.rank(rows, query, k, &scratch.found)
                }
                None => self.estimated(k, &scratch.found),
            };
            Found {
                candidates: top.into_candidates(),
                visits,
            }
        })
    }

    /// Leaves in `found` the `candidates` of least estimate.
    fn scan(
        &self,
        query: &[f32],
        k: usize,
        nprobe: usize,
        candidates: usize,
        scratch: &mut Scratch,
    ) -> Visits {
        let Scratch {
            query: projected,
            products,
            tables,
            found,
        } = scratch;
        self.projection.apply(query, projected);
        tables.fill(
            &self.quantizer,
            &projected.coordinates,
            matches!(self.codes, Codes::Packed(_)),
        );
        products.resize(self.norms.len(), 0.0);
        matvec::product(self.partition.centroids(), &projected.coordinates, products);
        let square: f32 = projected
            .coordinates
            .iter()
            .map(|value| value * value)
            .sum();
        let distances = || {
            products
                .iter()
                .zip(&self.norms)
                .map(|(product, norm)| square + norm - 2.0 * product)
        };
        found.clear();
        let mut limit = f32::INFINITY;
        let (mut scanned, mut lists_scanned) = (0, 0);
        // Scans lists until so many vectors have been seen.
        let mut scan = |lists: &[(f32, u32)], enough: usize| {
            for &(distance, list) in lists {
                if scanned >= enough {
                    break;
                }
                let positions = self.partition.list(list as usize);
                scanned += positions.len();
                lists_scanned += 1;
                let offset = distance + projected.rest + self.least_bias + tables.offset;
                let linear = Linear {
                    per_entry: tables.per_entry,
                    per_bias: self.per_bias,
                    offset,
                };
                match &self.codes {
                    Codes::Packed(codes) => {
                        pq_scan::scan(
                            codes,
                            &tables.packed,
                            &self.biases,
                            positions,
                            linear,
                            limit,
                            found,
                        );
                    }
                    Codes::Bytes(codes) => {
                        let tables = tables.entries.as_chunks().0;
                        pq_scan::scan_bytes(
                            codes,
                            tables,
                            &self.biases,
                            positions,
                            linear,
                            limit,
                            found,
                        );
                    }
                }
                if found.len() >= 2 * candidates {
                    limit = keep_least(found, candidates);
                }
            }
            scanned
        };
        if scan(&least(distances(), nprobe), usize::MAX) < k {
            let all = least(distances(), self.partition.nlist());
            scan(&all[nprobe.min(all.len())..], k);
        }
        if found.len() > candidates {
            keep_least(found, candidates);
        }
        Visits {
            leaves: lists_scanned,
            bounds: scanned,
            distances: 0,
        }
    }

    /// The `k` best candidates by exact distance.
    fn rank(&self, rows: &Vectors, query: Row<'_>, k: usize, found: &[Candidate]) -> TopK {
        /// Rows asked for ahead of time.
        const AHEAD: usize = 6;
        let fetch = |candidate: &Candidate| prefetch_row(rows.row(candidate.position as usize));
        let ranker = Ranker::new(rows, Metric::Euclidean, query);
        let mut top = TopK::new(k);
        found.iter().take(AHEAD).for_each(fetch);
        for (i, candidate) in found.iter().enumerate() {
            found.get(i + AHEAD).into_iter().for_each(fetch);
            let position = candidate.position as usize;
            if let Some(rank) = ranker.reduced_within(position, top.threshold()) {
                top.push(self.partition.ids()[position], rank);
            }
        }
        top
    }

    /// The `k` best candidates by their estimates.
    fn estimated(&self, k: usize, found: &[Candidate]) -> TopK {
        let mut top = TopK::new(k);
        for candidate in found {
            let squared = f64::from(candidate.estimate).max(0.0) / self.projection.scale().powi(2);
            top.push(self.partition.ids()[candidate.position as usize], squared);
        }
        top
    }
}

/// The number that a vector adds to all its estimates, but for the rest.
///
/// Plain loss: at q − c = r the estimate is to be the true distance, 0: so −2⟨r, r̂⟩ is met by 2⟨r, r̂⟩ − ‖r‖², for which e = r − r̂ makes
/// no difference but by ⟨q − x, e⟩, of unknown sign. (‖r̂‖² as FAISS has it would add ‖e‖².) Score-aware: ‖r‖² as it is, for the loss has
/// seen to it that ⟨r, e⟩ is small.
fn bias(residual: &[f32], decoded: &[f32], centroid: &[f32], loss: Loss) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let own = if loss == Loss::PLAIN {
        2.0 * dot(residual, decoded) - dot(residual, residual)
    } else {
        dot(residual, residual)
    };
    own + 2.0 * dot(centroid, decoded)
}

/// Keeps the `count` candidates of least estimate (ties by position), of which there are more; returns the largest estimate kept.
fn keep_least(found: &mut Vec<Candidate>, count: usize) -> f32 {
    let key = |a: &Candidate, b: &Candidate| {
        a.estimate
            .total_cmp(&b.estimate)
            .then(a.position.cmp(&b.position))
    };
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
            (self.per_entry, self.offset) = (-2.0, 0.0);
            return;
        }
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

    /// What the codes of a vector and its list say of its distance, without tables: ‖q − c − r̂‖² and the rests, less ‖e‖².
    fn by_definition(base: &Vectors, lists: &PqLists, query: &[f32]) -> Vec<(u32, f64)> {
        let order = Subspaces::deal(12, 6).order;
        let (_, projected) =
            Projection::fit(base, 1, |components| components.select(Axis(0), &order));
        let mut out = ProjectedQuery::default();
        lists.projection.apply(query, &mut out);
        let mut all = Vec::new();
        for list in 0..lists.partition.nlist() {
            let centroid = lists.partition.centroid(list);
            for position in lists.partition.list(list) {
                let id = lists.partition.ids()[position];
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
        Metric::Euclidean.neighbors(found.candidates)
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
