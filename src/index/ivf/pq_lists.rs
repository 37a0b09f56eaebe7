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
//! Residuals are coded in a unit of their list, the root of their mean squared length, and biases
//! are rounded within the range that they have in their list: wide lists and narrow ones have codes
//! as fine as they need. It costs a query nothing, for the unit is a factor of the sum.
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
//!
//! How many lists and candidates find enough is measured when the lists are built:
//! [`PqLists::usual`].

use std::cell::RefCell;
use std::ops::Range;

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::distance::{Metric, Ranker};
use crate::index::ivf::coding::{Coding, MOST_COMPONENTS};
use crate::index::ivf::held_out::{Asked, HeldOut, NEIGHBORS, RECALL};
use crate::index::ivf::inverted_lists::{InvertedLists, least};
use crate::index::ivf::product_quantizer::{Loss, ProductQuantizer, Subspaces};
use crate::index::parts::{
    Element, NumberType, Part, PartError, Parts, Saved, elements, expect, join, saved,
};
use crate::index::support::projection::{ProjectedQuery, Projection, RowMap};
use crate::index::{Found, Visits};
use crate::neighbor::{Candidate, TopK};
use crate::simd::matvec;
use crate::simd::pq_scan::{self, Linear, Pair, Scored};
use crate::vectors::{Row, Rows, Vectors};

/// Rows of candidates that are asked for ahead of time, while others are compared: a trade of
/// waiting for memory against pushing out of the cache what is not read yet.
const AHEAD: usize = 6;

/// Residuals from which the codebooks are learned, at most. A codebook of 256 centroids reads so
/// many, one of 16 a sixteenth of them.
const TRAINING_ROWS: usize = 1 << 16;

/// Rows that are encoded at once, or a few more: as floats, 8 MB of 128 values each.
const ROWS_AT_ONCE: usize = 1 << 14;

/// Candidates for each neighbour that a default search may compare: tried in this order.
const REFINES: [usize; 3] = [10, 20, 30];

/// How the lists are made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Lists; 0 for [`lists_of_codes`].
    pub nlist: usize,
    /// What is coded; by default what [`Coding::choose`] chooses.
    pub coding: Option<Coding>,
    pub nbits: usize,
    /// T of [`Loss::score_aware`]; 0 for the squared error.
    pub threshold: f64,
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
    /// What each vector adds to all its estimates, by position, in the steps of its list.
    biases: Vec<u16>,
    /// By list.
    scales: Vec<Scale>,
    usual: Usual,
    /// The vectors in the order of the lists, if they are kept.
    rows: Option<Vectors>,
}

/// What a default search takes to find [`RECALL`] of some rows' neighbours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usual {
    /// Lists that are searched.
    pub nprobe: usize,
    /// Candidates for each neighbour; none where the most that are tried are not enough.
    pub refine: Option<usize>,
}

#[derive(Debug)]
enum Codes {
    /// Of four bits, as [`pq_scan::scan`] wants them.
    Packed(Vec<Pair>),
    /// Of eight bits, n × m.
    Bytes(Vec<u8>),
}

/// What the numbers of a list stand for. Lists of small residuals and of large ones have codes and
/// biases as fine as they need.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// The root of the mean squared length of the residuals: what codes are multiplied by.
    size: f32,
    /// A bias is `least` + its 16 bits · `step`.
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

impl Plan {
    /// How many principal components are asked for: those that may be coded, and no more than there
    /// are rows, for these lie in a space of fewer dimensions.
    fn most_components(&self, base: &Vectors) -> usize {
        let most = MOST_COMPONENTS.min(base.dim()).min(base.len());
        self.coding.map_or(most, |coding| coding.components)
    }

    /// Which components are coded by which sub-quantiser.
    fn subspaces(&self, base: &Vectors, components: ArrayView2<'_, f64>) -> Subspaces {
        if let Some(Coding {
            components,
            subquantizers,
        }) = self.coding
        {
            return Subspaces::deal(components, subquantizers);
        }
        let chosen = Coding::choose(base, components, self.seed);
        // It is chosen for four bits; of eight half as many are needed.
        let subquantizers = (chosen.subquantizers * 4).div_ceil(self.nbits);
        Subspaces::deal(chosen.components, subquantizers)
    }
}

elements!(Pair as [u8; 32]);

saved!(Usual { nprobe, refine });

saved!(PqLists {
    dim,
    projection,
    lists,
    norms,
    quantizer,
    codes,
    biases,
    scales,
    usual,
    rows
});

/// Under the name of the one or the other.
impl Part for Codes {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        match self {
            Self::Packed(codes) => parts.add(&join(name, "packed"), codes),
            Self::Bytes(codes) => parts.add(&join(name, "bytes"), codes),
        }
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        Ok(match saved.take(&join(name, "packed"))? {
            Some(codes) => Self::Packed(codes),
            None => Self::Bytes(saved.take(&join(name, "bytes"))?),
        })
    }
}

impl Element for Scale {
    const NUMBER: NumberType = NumberType::F32;
    const SIZE: usize = 12;

    fn put(&self, bytes: &mut [u8]) {
        [self.size, self.least, self.step].put(bytes);
    }

    fn take(bytes: &[u8]) -> Self {
        let [size, least, step] = Element::take(bytes);
        Self { size, least, step }
    }
}

impl PqLists {
    /// Refuses parts that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<(), PartError> {
        let (len, m) = (self.biases.len(), self.quantizer.m());
        let coordinates = self.quantizer.check()?;
        self.projection.check(self.dim, coordinates)?;
        self.lists.check(len, coordinates)?;
        let lists = self.lists.nlist();
        expect(self.norms.len() == lists, "norms", "one for each list")?;
        expect(self.scales.len() == lists, "scales", "one for each list")?;
        let codes = match &self.codes {
            Codes::Packed(codes) => {
                let blocks = len.div_ceil(pq_scan::BLOCK);
                let fits = self.quantizer.ksub() == 16 && m <= pq_scan::MOST_SUBQUANTIZERS;
                fits && codes.len() == blocks * m.div_ceil(2)
            }
            Codes::Bytes(codes) => self.quantizer.ksub() == 256 && codes.len() == len * m,
        };
        expect(codes, "codes", "one for each row")?;
        let rows = self.rows.as_ref();
        let fit = rows.is_none_or(|rows| (rows.len(), rows.dim()) == (len, self.dim));
        expect(fit, "rows", "one for each code")
    }

    /// Projects, clusters and encodes `base`, which is not empty.
    ///
    /// The projected rows are floats, which may take many times the memory of the base. They are
    /// computed where they are needed, some at a time.
    pub fn build(base: &Vectors, plan: &Plan) -> Self {
        let pca = Projection::components(base, plan.most_components(base), plan.seed);
        let subspaces = plan.subspaces(base, pca.rotation());
        // Rows of the map in the order of the subspaces: the coordinates of a subspace then lie
        // side by side, and nothing is rearranged for a query.
        let (projection, map) = Projection::of(&pca, base, |components| {
            components.select(Axis(0), &subspaces.order)
        });
        let rows = ProjectedRows { base, map };

        let nlist = match plan.nlist {
            0 => lists_of_codes(base.len()),
            nlist => nlist,
        };
        let lists = InvertedLists::of_rows(&rows, nlist, plan.seed);
        // Codes are made of residuals, which are smaller than the vectors and, in the unit of their
        // list, alike in all lists. So one quantiser serves all lists.
        let loss = Loss::score_aware(plan.threshold, subspaces.order.len());
        let step = base.len().div_ceil(TRAINING_ROWS);
        let sample: Vec<usize> = (0..base.len()).step_by(step).collect();
        let sample = Residuals::new(&lists, &rows, &sample).values;
        let quantizer = ProductQuantizer::train(&sample, &subspaces, plan.nbits, loss, plan.seed);
        drop(sample);
        let Encoded {
            codes,
            biases,
            scales,
        } = Encoded::new(&lists, &rows, &quantizer, loss);

        // With ‖c‖² at hand, a query's distances to all centroids follow from its products
        // with them.
        let square = |list| lists.centroid(list).iter().map(|value| value * value).sum();
        let norms = (0..lists.nlist()).map(square).collect();
        let rows = plan.keep_vectors.then(|| lists.in_list_order(base));
        if let Some(rows) = &rows {
            rows.in_huge_pages();
        }
        let mut built = Self {
            dim: base.dim(),
            projection,
            lists,
            norms,
            quantizer,
            codes,
            biases,
            scales,
            usual: Usual::default(),
            rows,
        };
        built.usual = built.measured(base, plan.seed);
        built
    }

    /// What a default search takes.
    pub fn usual(&self) -> Usual {
        self.usual
    }

    /// The number of lists.
    pub fn nlist(&self) -> usize {
        self.lists.nlist()
    }

    /// The number of sub-quantisers.
    pub fn subquantizers(&self) -> usize {
        self.quantizer.m()
    }

    pub fn len(&self) -> usize {
        self.biases.len()
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
        codes + size_of_val(&*self.biases) + size_of_val(self.lists.ids()) + rows
    }

    pub fn memory_bytes(&self) -> usize {
        // The ids belong to the bytes of the vectors, so they are taken off here.
        let of_lists =
            self.lists.memory_bytes() - size_of_val(self.lists.ids()) + size_of_val(&*self.norms);
        self.vector_bytes()
            + of_lists
            + size_of_val(&*self.scales)
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

    /// What it takes to find enough, measured on rows of the base.
    fn measured(&self, base: &Vectors, seed: u64) -> Usual {
        let held_out = HeldOut::draw(base, seed);
        let order = |id: usize| {
            SCRATCH.with_borrow_mut(|scratch| {
                self.prepare(&base.row(id).to_floats(), scratch);
                let all = least(scratch.to_centroids.iter().copied(), self.nlist());
                all.into_iter().map(|(_, list)| list).collect()
            })
        };
        let nprobe = held_out.probes(&self.lists, order);
        let is_enough = |&refine: &usize| {
            let found = |row: &Asked| self.candidates_of(base, row.id, nprobe, refine * NEIGHBORS);
            held_out.recall(found) >= RECALL
        };
        // Without the vectors nothing is refined.
        let refine = match &self.rows {
            Some(_) => REFINES.into_iter().find(is_enough),
            None => Some(REFINES[0]),
        };
        Usual { nprobe, refine }
    }

    /// The true distances of the candidates, so many beside the row itself, for a row of the base.
    fn candidates_of(
        &self,
        base: &Vectors,
        row: usize,
        nprobe: usize,
        count: usize,
    ) -> Vec<Candidate> {
        let ranker = Ranker::new(base, Metric::Euclidean, base.row(row));
        let count = (count + 1).min(self.len());
        SCRATCH.with_borrow_mut(|scratch| {
            self.prepare(&base.row(row).to_floats(), scratch);
            self.scan(NEIGHBORS.min(count), nprobe, count, scratch);
            let found = scratch.found.iter().map(|scored| {
                let id = self.lists.ids()[scored.position as usize];
                let reduced = ranker.reduced(id as usize);
                Candidate { id, reduced }
            });
            found.collect()
        })
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

/// How many lists suit the codes of n vectors: the power of two nearest to √n, 256 for 60,000.
/// That is a quarter of what suits whole vectors, for a code takes a small part of a centroid's
/// time.
fn lists_of_codes(n: usize) -> usize {
    (n as f64).sqrt().log2().round().exp2() as usize
}

/// The rows of a base as they are coded.
struct ProjectedRows<'a> {
    base: &'a Vectors,
    map: RowMap,
}

impl Rows for ProjectedRows<'_> {
    fn count(&self) -> usize {
        self.base.len()
    }

    fn rows(&self, numbers: &[usize]) -> Vectors {
        let coordinates = self.map.project(self.base, numbers).coordinates;
        let dim = self.map.coordinates();
        Vectors::from_floats(dim, coordinates).expect("scaled values are finite")
    }
}

/// The residuals of some vectors.
struct Residuals {
    /// Each vector less the centroid of its list, in the unit of its list.
    values: Vectors,
    /// The list of each.
    lists: Vec<usize>,
    /// The unit of each list: the root of the mean squared length of these residuals of it.
    sizes: Vec<f32>,
    /// The squared length of what the components leave out of each vector.
    rests: Vec<f32>,
}

impl Residuals {
    /// Of the vectors at these positions, which ascend.
    fn new(lists: &InvertedLists, rows: &ProjectedRows<'_>, positions: &[usize]) -> Self {
        let ids: Vec<usize> = positions
            .iter()
            .map(|&position| lists.ids()[position] as usize)
            .collect();
        let projected = rows.map.project(rows.base, &ids);
        let (dim, mut values) = (rows.map.coordinates(), projected.coordinates);
        let list_of: Vec<usize> = positions.iter().map(|&at| lists.list_of(at)).collect();
        values
            .par_chunks_exact_mut(dim)
            .zip(&list_of)
            .for_each(|(row, &list)| {
                for (value, centroid) in row.iter_mut().zip(lists.centroid(list)) {
                    *value -= centroid;
                }
            });
        let sizes = sizes(&values, dim, &list_of, lists.nlist());
        values
            .par_chunks_exact_mut(dim)
            .zip(&list_of)
            .for_each(|(row, &list)| row.iter_mut().for_each(|value| *value /= sizes[list]));
        Self {
            values: Vectors::from_floats(dim, values).expect("residuals are finite"),
            lists: list_of,
            sizes,
            rests: projected.rests,
        }
    }
}

/// The root of the mean squared length of each list's residuals; `list_of` names the list of each.
fn sizes(residuals: &[f32], dim: usize, list_of: &[usize], nlist: usize) -> Vec<f32> {
    let squares: Vec<f64> = residuals
        .par_chunks_exact(dim)
        .map(|row| row.iter().map(|&value| f64::from(value).powi(2)).sum())
        .collect();
    let (mut sums, mut counts) = (vec![0.0; nlist], vec![0usize; nlist]);
    for (&list, square) in list_of.iter().zip(squares) {
        sums[list] += square;
        counts[list] += 1;
    }
    let size = |(sum, count): (f64, usize)| {
        let size = (sum / count.max(1) as f64).sqrt() as f32;
        // Copies of one vector, whose residuals are zero: any unit will do.
        if size.is_normal() { size } else { 1.0 }
    };
    sums.into_iter().zip(counts).map(size).collect()
}

/// What the lists hold of all vectors, by position.
struct Encoded {
    codes: Codes,
    biases: Vec<u16>,
    /// By list.
    scales: Vec<Scale>,
}

impl Encoded {
    /// Encodes all rows, whole lists at a time.
    fn new(
        lists: &InvertedLists,
        rows: &ProjectedRows<'_>,
        quantizer: &ProductQuantizer,
        loss: Loss,
    ) -> Self {
        let len = rows.base.len();
        let mut packer = Packer::new(len, quantizer);
        let mut biases = Vec::with_capacity(len);
        let mut scales = Vec::with_capacity(lists.nlist());
        for group in groups(lists) {
            let first = lists.list(group.start).start;
            let positions: Vec<usize> = (first..lists.list(group.end - 1).end).collect();
            let residuals = Residuals::new(lists, rows, &positions);
            let codes = quantizer.encode_all(&residuals.values, loss);
            let exact = exact_biases(lists, quantizer, &residuals, &codes, loss);
            for list in group {
                let positions = lists.list(list);
                let exact = &exact[positions.start - first..positions.end - first];
                scales.push(push_rounded(exact, residuals.sizes[list], &mut biases));
            }
            packer.push(&codes);
        }
        Self {
            codes: packer.finish(),
            biases,
            scales,
        }
    }
}

/// Brings codes, as they come, into the form in which they are searched.
struct Packer {
    m: usize,
    codes: Codes,
    /// Codes of a block that is not full yet.
    waiting: Vec<u8>,
}

impl Packer {
    /// For so many vectors.
    fn new(len: usize, quantizer: &ProductQuantizer) -> Self {
        let m = quantizer.m();
        // Tables of 16 entries fit in half a register and are looked up by shuffles. Tables of 256
        // do not, and codes of a byte stay as they are.
        let codes = match quantizer.ksub() {
            16 => {
                let pairs = len.div_ceil(pq_scan::BLOCK) * m.div_ceil(2);
                Codes::Packed(Vec::with_capacity(pairs))
            }
            _ => Codes::Bytes(Vec::with_capacity(len * m)),
        };
        Self {
            m,
            codes,
            waiting: Vec::new(),
        }
    }

    fn push(&mut self, codes: &[u8]) {
        match &mut self.codes {
            Codes::Bytes(bytes) => bytes.extend_from_slice(codes),
            Codes::Packed(packed) => {
                self.waiting.extend_from_slice(codes);
                let block = pq_scan::BLOCK * self.m;
                let whole = self.waiting.len() / block * block;
                packed.extend(pq_scan::pack(&self.waiting[..whole], self.m));
                self.waiting.drain(..whole);
            }
        }
    }

    fn finish(mut self) -> Codes {
        if let Codes::Packed(packed) = &mut self.codes {
            packed.extend(pq_scan::pack(&self.waiting, self.m));
        }
        self.codes
    }
}

/// The lists in groups that lie side by side, of [`ROWS_AT_ONCE`] vectors or a little more.
fn groups(lists: &InvertedLists) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for list in 0..lists.nlist() {
        let rows = lists.list(list).end - lists.list(start).start;
        if rows >= ROWS_AT_ONCE || list + 1 == lists.nlist() {
            groups.push(start..list + 1);
            start = list + 1;
        }
    }
    groups
}

/// The biases of these vectors, which have these codes.
fn exact_biases(
    lists: &InvertedLists,
    quantizer: &ProductQuantizer,
    residuals: &Residuals,
    codes: &[u8],
    loss: Loss,
) -> Vec<f32> {
    let dim = residuals.values.dim();
    let values = residuals.values.floats().expect("residuals are floats");
    let rows = values.par_chunks_exact(dim);
    rows.zip(codes.par_chunks_exact(quantizer.m()))
        .zip(&residuals.lists)
        .zip(&residuals.rests)
        .map(|(((residual, code), &list), rest)| {
            let decoded = quantizer.decode(code);
            let size = residuals.sizes[list];
            bias(residual, &decoded, lists.centroid(list), size, loss) + rest
        })
        .collect()
}

/// Appends the biases of a list in 65,536 steps from its least to its largest. Returns what they
/// stand for, in a list whose unit is `size`.
fn push_rounded(exact: &[f32], size: f32, biases: &mut Vec<u16>) -> Scale {
    let least = exact.iter().copied().fold(f32::INFINITY, f32::min);
    let most = exact.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Where all biases are equal the step would be zero, and rounding would divide by it.
    let step = if most > least {
        (most - least) / f32::from(u16::MAX)
    } else {
        1.0
    };
    let rounded = |bias: &f32| ((bias - least) / step).round() as u16;
    biases.extend(exact.iter().map(rounded));
    Scale { size, least, step }
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
///
/// `residual` and `decoded` are in the unit `size` of their list.
fn bias(residual: &[f32], decoded: &[f32], centroid: &[f32], size: f32, loss: Loss) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // e need not be computed: ⟨r, r̂⟩ and ‖r‖² say all that is needed of it.
    let own = if loss == Loss::PLAIN {
        2.0 * dot(residual, decoded) - dot(residual, residual)
    } else {
        dot(residual, residual)
    };
    own * size * size + 2.0 * size * dot(centroid, decoded)
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
        let Scale { size, least, step } = self.index.scales[list];
        let positions = lists.list(list);
        self.visits.leaves += 1;
        self.visits.bounds += positions.len();
        // What is the same for all vectors of a list is one number. `least` and `tables.offset`
        // are there because biases are kept in 16 bits and tables in 8. The codes are in the unit
        // of the list, so what the tables say of them is multiplied by it.
        let linear = Linear {
            per_entry: self.tables.per_entry * size,
            per_bias: step,
            offset: distance + self.rest + least + self.tables.offset * size,
        };
        // The limit stays for the whole list. It is lowered below, between lists.
        let scan = pq_scan::Scan {
            biases,
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

/// The order of candidates: by estimate, ties by position.
fn nearer(a: &Scored, b: &Scored) -> std::cmp::Ordering {
    let by_estimate = a.estimate.total_cmp(&b.estimate);
    by_estimate.then(a.position.cmp(&b.position))
}

/// Keeps the `count` candidates of least estimate (ties by position), of which there are more;
/// returns the largest estimate kept.
fn keep_least(found: &mut Vec<Scored>, count: usize) -> f32 {
    // Selection, O(n), and no sorting: the order of the candidates does not matter, only which they
    // are. Ties are settled by position, so the result does not depend on when this is called.
    let (_, last, _) = found.select_nth_unstable_by(count - 1, nearer);
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

    const CODING: Coding = Coding {
        components: 12,
        subquantizers: 6,
    };

    fn build(base: &Vectors, nbits: usize, threshold: f64) -> PqLists {
        PqLists::build(
            base,
            &Plan {
                nlist: 7,
                coding: Some(CODING),
                nbits,
                threshold,
                keep_vectors: false,
                seed: 1,
            },
        )
    }

    /// What the codes of a vector and its list say of its distance, without tables:
    /// ‖q − c − r̂‖² and the rests, less ‖e‖².
    fn by_definition(base: &Vectors, lists: &PqLists, query: &[f32]) -> Vec<(u32, f64)> {
        let order = Subspaces::deal(12, 6).order;
        let pca = Projection::components(base, 12, 1);
        let (_, map) = Projection::of(&pca, base, |components| components.select(Axis(0), &order));
        let all: Vec<usize> = (0..base.len()).collect();
        let projected = map.project(base, &all);
        let mut out = ProjectedQuery::default();
        lists.projection.apply(query, &mut out);
        let mut all = Vec::new();
        for list in 0..lists.lists.nlist() {
            let centroid = lists.lists.centroid(list);
            for position in lists.lists.list(list) {
                let id = lists.lists.ids()[position];
                let row = &projected.coordinates[id as usize * 12..][..12];
                let size = lists.scales[list].size;
                let residual: Vec<f32> = row
                    .iter()
                    .zip(centroid)
                    .map(|(x, c)| (x - c) / size)
                    .collect();
                let mut code = vec![0; lists.quantizer.m()];
                lists
                    .quantizer
                    .encode(&residual, Loss::PLAIN, &mut code, &mut Vec::new());
                let decoded = lists.quantizer.decode(&code);
                let to = |i: usize| {
                    f64::from(out.coordinates[i] - centroid[i] - decoded[i] * size).powi(2)
                };
                let error = |i: usize| f64::from((residual[i] - decoded[i]) * size).powi(2);
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
                let lists = build(&base, nbits, 0.0);
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
        let lists = build(&base, 4, 0.5);
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
        let lists = build(&base, 4, 0.0);
        assert_eq!(
            search(&lists, &base.row_to_floats(3), 500, 1, 500).len(),
            500
        );
    }
}
