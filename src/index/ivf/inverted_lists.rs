//! [`InvertedLists`]: the coarse quantiser and the inverted lists that `IvfFlat`, `IvfPq` and
//! `Scann` stand on (J. Sivic and A. Zisserman, *Video Google*, ICCV 2003, took them from text
//! retrieval).
//!
//! The *coarse quantiser* is k-means: it names for each vector the nearest of `nlist` centroids. A
//! list holds the ids of the vectors of one centroid. All lists lie in one array, one after the
//! other:
//!
//! ```text
//! starts     0              5        8                    n
//! ids      [ 7 12 30 31 90 | 2 5 88 | ...                 ]    ascending within a list
//! position   0  1  2  3  4   5 6  7
//! ```
//!
//! K-means compares in f32 arithmetic, whose squares overflow for values above 10¹⁹ and vanish
//! below 10⁻¹⁹. So vectors of such sizes are clustered in another unit, a power of two.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use crate::error::BuildError;
use crate::index::exact::{BruteForce, BruteForceParams};
use crate::index::parts::{
    Part, PartError, Parts, Saved, expect, expect_each_once, expect_starts, join,
};
use crate::index::{Build, Index};
use crate::math::kmeans::{KMeans, KMeansParams, group};
use crate::neighbor::Candidate;
use crate::progress::Stage;
use crate::simd::pairwise::squared_euclidean_f32_rows;
use crate::vectors::{Row, Rows, Vectors};

/// A k-means partition of the base into lists. A *position* is a place in the order of the lists,
/// an *id* a row of the base.
#[derive(Debug)]
pub(crate) struct InvertedLists {
    /// What values are multiplied by before they are compared with centroids: a power of two, 1 for
    /// values of ordinary size.
    unit: f32,
    /// The coarse quantiser: an index of the centroids, nlist × dim, in that unit.
    coarse: BruteForce,
    /// Where each list starts among the positions, and the end: nlist + 1 numbers.
    starts: Vec<usize>,
    /// The id at each position.
    ids: Vec<u32>,
}

/// The centroids are saved as numbers. Their index is made anew when they are read.
impl Part for InvertedLists {
    fn write<'a>(&'a self, name: &str, parts: &mut Parts<'a>) {
        let centroids = self.centroids();
        parts.add(&join(name, "unit"), &self.unit);
        parts.add_array(&join(name, "centroids"), vec![centroids.len()], centroids);
        parts.add_number(&join(name, "dim"), self.coarse.dim() as u64);
        parts.add(&join(name, "starts"), &self.starts);
        parts.add(&join(name, "ids"), &self.ids);
    }

    fn read(name: &str, saved: &mut Saved<'_>) -> Result<Self, PartError> {
        let unit = saved.take(&join(name, "unit"))?;
        let centroids: Vec<f32> = saved.take(&join(name, "centroids"))?;
        let dim = saved.take(&join(name, "dim"))?;
        let invalid = |why: &dyn Display| PartError::invalid(&join(name, "centroids"), why);
        let centroids = Vectors::from_floats(dim, centroids).map_err(|why| invalid(&why))?;
        Ok(Self {
            unit,
            coarse: index_of(centroids).map_err(|why| invalid(&why))?,
            starts: saved.take(&join(name, "starts"))?,
            ids: saved.take(&join(name, "ids"))?,
        })
    }
}

impl InvertedLists {
    /// Refuses what are not lists of `rows` rows around centroids of dimension `dim`.
    ///
    /// # Errors
    /// If they are not.
    pub(crate) fn check(&self, rows: usize, dim: usize) -> Result<(), PartError> {
        let fits = self.unit.is_finite() && self.unit > 0.0;
        expect(fits, "unit", "a positive number")?;
        let fits = self.coarse.dim() == dim;
        expect(fits, "dim", "the dimension of the vectors")?;
        expect_starts(&self.starts, rows, "starts")?;
        let fits = self.coarse.len() == self.nlist();
        expect(fits, "centroids", "one for each list")?;
        expect(self.ids.len() == rows, "ids", "one for each row")?;
        expect_each_once(&self.ids, "ids")
    }

    /// Clusters the base, which is not empty, into `nlist` lists, or as many as there are rows; 0
    /// asks for [`lists_for`] it.
    pub(crate) fn train(base: &Vectors, nlist: usize, seed: u64) -> Self {
        let unit = unit_for(base);
        let base = &*in_unit(base, unit);
        let nlist = if nlist == 0 { lists_for(base) } else { nlist };
        Self {
            unit,
            ..Self::of_rows(base, nlist, seed)
        }
    }

    /// Clusters rows of ordinary size, at least one, into `nlist` lists, or as many as there are
    /// rows.
    pub(crate) fn of_rows(base: &impl Rows, nlist: usize, seed: u64) -> Self {
        // k-means may learn from a sample. Then every row of the base is given to its nearest
        // centroid.
        let params = KMeansParams {
            k: nlist,
            max_points_per_centroid: ROWS_PER_LIST,
            seed,
            ..Default::default()
        };
        let clusters = KMeans::fit_by(base, &params, assign)
            .expect("the base is not empty and nlist is positive");
        // There may be fewer centroids than were asked for.
        let (starts, ids) = group(&assign(&clusters, base), clusters.centroids().nrows());
        Self {
            unit: 1.0,
            coarse: coarse(&clusters),
            starts,
            ids,
        }
    }

    /// The number of lists.
    pub(crate) fn nlist(&self) -> usize {
        self.starts.len() - 1
    }

    /// All centroids, nlist × dim.
    pub(crate) fn centroids(&self) -> &[f32] {
        let centroids = self.coarse.base().floats();
        centroids.expect("means are floats")
    }

    /// The centroid of a list.
    pub(crate) fn centroid(&self, list: usize) -> &[f32] {
        let dim = self.coarse.dim();
        &self.centroids()[list * dim..][..dim]
    }

    /// The positions of a list.
    pub(crate) fn list(&self, list: usize) -> std::ops::Range<usize> {
        self.starts[list]..self.starts[list + 1]
    }

    /// The number of the list that a position belongs to.
    pub(crate) fn list_of(&self, position: usize) -> usize {
        self.starts.partition_point(|&start| start <= position) - 1
    }

    /// The ids in the order of their positions.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The base's rows in the order of their positions.
    pub(crate) fn in_list_order(&self, base: &Vectors) -> Vectors {
        let rows: Vec<usize> = self.ids.iter().map(|&id| id as usize).collect();
        base.select(&rows).expect("ids are rows of the base")
    }

    /// The `nprobe` lists of nearest centroid, nearest first. Ties go to the lower list number.
    pub(crate) fn nearest(&self, query: &[f32], nprobe: usize) -> Vec<u32> {
        let query = &*scaled(query, self.unit);
        if self.few_of_many(nprobe) {
            return numbers(&self.coarse.search(Row::Floats(query), nprobe).candidates);
        }
        let mut distances = vec![0.0; self.nlist()];
        squared_euclidean_f32_rows(query, self.centroids(), &mut distances);
        let nearest = least(distances.into_iter(), nprobe).into_iter();
        nearest.map(|(_, list)| list).collect()
    }

    /// The same for each of some queries, on the threads of the current rayon pool, where they are
    /// a [few of many](Self::few_of_many) lists: all queries meet the centroids at once.
    pub(crate) fn nearest_of_each(&self, queries: &Vectors, nprobe: usize) -> Vec<Vec<u32>> {
        let queries = scaled(&queries.to_floats(), self.unit).into_owned();
        let queries = Vectors::from_floats(self.coarse.dim(), queries).expect("scaled is finite");
        let found = self.coarse.search_batch(&queries, nprobe);
        found.iter().map(|nearest| numbers(nearest)).collect()
    }

    /// Whether brute force finds the nearest sooner than a look at all centroids: where half a byte
    /// of each value tells most of them apart, and few are wanted. The more are wanted, the more
    /// are left in doubt and compared exactly.
    pub(crate) fn few_of_many(&self, nprobe: usize) -> bool {
        self.coarse.has_halves() && nprobe <= self.nlist() / CENTROIDS_PER_PROBE
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.coarse.memory_bytes() + size_of_val(&*self.starts) + size_of_val(&*self.ids)
    }
}

/// An index of the centroids.
fn coarse(clusters: &KMeans) -> BruteForce {
    let centroids = clusters.centroids();
    let values: Vec<f32> = centroids.iter().copied().collect();
    let values = Vectors::from_floats(centroids.ncols(), values).expect("means are finite");
    index_of(values).expect("there are centroids")
}

fn index_of(centroids: Vectors) -> Result<BruteForce, BuildError> {
    BruteForce::build(Arc::new(centroids), BruteForceParams::default())
}

fn numbers(nearest: &[Candidate]) -> Vec<u32> {
    nearest.iter().map(|centroid| centroid.id).collect()
}

/// Of so many centroids or more, a row's nearest is found by brute force: its tiles multiply small
/// integers. It compares the first hundred of them exactly for each row, so that fewer are found
/// faster by k-means itself.
const MANY_CENTROIDS: usize = 4096;
/// With fewer centroids for each list that is searched, brute force finds the nearest no sooner: of
/// 16,384 in 128 dimensions it is level at 128 lists, and 11 % slower at 256 (EPYC, AVX-512).
const CENTROIDS_PER_PROBE: usize = 128;
/// Rows that are compared with the centroids at once: as floats, 8 MB of 128 values each.
const ROWS_AT_ONCE: usize = 1 << 14;

/// The nearest centroid of each row: what [`KMeans::assign`] says, sooner where they are many.
fn assign(clusters: &KMeans, data: &impl Rows) -> Vec<u32> {
    /// Rows by which it is judged whether brute force will have to compare little exactly.
    const SAMPLE: usize = 256;
    let count = data.count();
    let sample: Vec<usize> = (0..count).step_by(count.div_ceil(SAMPLE)).collect();
    let many = clusters.centroids().nrows() >= MANY_CENTROIDS;
    let coarse = (many && clusters.products_tell(&data.rows(&sample))).then(|| coarse(clusters));
    let stage = Stage::new("k-means", count.div_ceil(ROWS_AT_ONCE));
    let mut nearest = Vec::with_capacity(count);
    for start in (0..count).step_by(ROWS_AT_ONCE) {
        let numbers: Vec<usize> = (start..count.min(start + ROWS_AT_ONCE)).collect();
        let rows = data.rows(&numbers);
        match &coarse {
            Some(coarse) => {
                let rows = Vectors::from_floats(rows.dim(), rows.to_floats());
                let found = coarse.search_batch(&rows.expect("rows are finite"), 1);
                nearest.extend(found.iter().map(|found| found[0].id));
            }
            None => nearest.extend(clusters.assign(&rows)),
        }
        stage.advance(1);
    }
    nearest
}

/// Rows for each list that k-means learns from, at most. A trade of the build's time, which grows
/// with it, against centroids that move little with more rows. FAISS learns from up to 256.
const ROWS_PER_LIST: usize = 64;

/// How many lists suit a base of n vectors: 4 · √n of floats, 2 · √n of bytes, but 39 vectors
/// a list at least.
///
/// A query costs nlist + n · nprobe / nlist distances if lists are of equal length, least for
/// nlist = √(n · nprobe): that is 4 · √n where 16 lists are searched, the least that FAISS's
/// guidelines for an index name (4 · √n to 16 · √n). Centroids are floats, so where rows are
/// bytes a centroid takes four times the memory of a row: the least is then at half as many. From
/// fewer than 39 vectors a centroid, FAISS warns, k-means learns little.
fn lists_for(base: &Vectors) -> usize {
    let factor = if base.bytes().is_some() { 2.0 } else { 4.0 };
    let by_root = (factor * (base.len() as f64).sqrt()).round() as usize;
    by_root.min(base.len() / 39).max(1)
}

/// Sizes of values whose squares and sums of squares are good f32 numbers.
const ORDINARY: std::ops::RangeInclusive<f32> = 1e-12..=1e15;

/// The unit in which to cluster the base: see [`InvertedLists::unit`].
fn unit_for(base: &Vectors) -> f32 {
    let values = base.floats().unwrap_or_default();
    let largest = values
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    if largest == 0.0 || ORDINARY.contains(&largest) {
        return 1.0;
    }
    // Between 1 and 2 for the largest. The exponent of the smallest floats is −149, and 2¹⁴⁹
    // is too large for a float; 2¹²⁶ is enough to make them ordinary.
    let exponent = -f64::from(largest).log2().floor();
    exponent.clamp(-126.0, 126.0).exp2() as f32
}

/// The base in that unit, a copy where it is another than its own.
fn in_unit(base: &Vectors, unit: f32) -> Cow<'_, Vectors> {
    match base.floats() {
        Some(values) if unit != 1.0 => {
            let values = scaled(values, unit).into_owned();
            Cow::Owned(Vectors::from_floats(base.dim(), values).expect("finite"))
        }
        _ => Cow::Borrowed(base),
    }
}

/// The values times `unit`. What is too large for a float stays finite.
fn scaled(values: &[f32], unit: f32) -> Cow<'_, [f32]> {
    if unit == 1.0 {
        return Cow::Borrowed(values);
    }
    let scaled = values
        .iter()
        .map(|value| (value * unit).clamp(f32::MIN, f32::MAX));
    Cow::Owned(scaled.collect())
}

/// The `nprobe` lists of least distance with their distances, nearest first. Ties go to the lower
/// list number.
pub(crate) fn least(
    distances: impl ExactSizeIterator<Item = f32>,
    nprobe: usize,
) -> Vec<(f32, u32)> {
    let key = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    let nprobe = nprobe.min(distances.len());
    let Some(last) = nprobe.checked_sub(1) else {
        return Vec::new();
    };
    // What is kept may grow to twice what is wanted, and is cut to that. Then a list as far as the
    // last one kept, or farther, is passed over: most of them.
    let mut kept: Vec<(f32, u32)> = Vec::with_capacity(2 * nprobe);
    let mut limit: Option<f32> = None;
    for (distance, list) in distances.zip(0..) {
        if limit.is_some_and(|limit| distance.total_cmp(&limit).is_ge()) {
            continue;
        }
        kept.push((distance, list));
        if kept.len() == 2 * nprobe {
            limit = Some(kept.select_nth_unstable_by(last, key).1.0);
            kept.truncate(nprobe);
        }
    }
    kept.sort_unstable_by(key);
    kept.truncate(nprobe);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::support::test_data::{clustered, rounded};

    #[test]
    fn brute_force_over_many_centroids_has_the_answer_of_k_means() {
        let mut floats = clustered(MANY_CENTROIDS + 200, 50, 1).to_floats();
        // Copies among the rows and the centroids: ties go to the lower number.
        floats.extend_from_within(..100 * 50);
        let floats = Vectors::from_floats(50, floats).unwrap();
        for base in [rounded(&floats), floats] {
            let params = KMeansParams {
                k: MANY_CENTROIDS,
                // The centroids stay where they begin, which is at rows.
                iterations: 0,
                ..Default::default()
            };
            let clusters = KMeans::fit(&base, &params).unwrap();
            assert!(clusters.products_tell(&base));
            assert_eq!(assign(&clusters, &base), clusters.assign(&base));
        }
    }

    #[test]
    fn products_do_not_tell_rows_of_far_clusters_apart() {
        let rows = clustered(400, 8, 1).to_floats().into_iter().enumerate();
        let side = |i: usize| if (i / 8).is_multiple_of(2) { 1e6 } else { -1e6 };
        let rows: Vec<f32> = rows.map(|(i, value)| value + side(i)).collect();
        let rows = Vectors::from_floats(8, rows).unwrap();
        let clusters = KMeans::fit(&rows, &KMeansParams::default()).unwrap();
        assert!(!clusters.products_tell(&rows));
    }

    #[test]
    fn lists_grow_with_the_root_and_are_not_too_short() {
        let floats = |n: usize| lists_for(&Vectors::from_floats(1, vec![0.5; n]).unwrap());
        let bytes = |n: usize| lists_for(&Vectors::from_bytes(1, vec![5; n]).unwrap());
        assert_eq!([1, 77, 400, 2_500, 40_000].map(floats), [1, 1, 10, 64, 800]);
        assert_eq!([1, 77, 400, 2_500, 40_000].map(bytes), [1, 1, 10, 64, 400]);
    }

    /// Powers of two change no digit, so nothing else may change.
    #[test]
    fn the_magnitude_of_the_data_changes_nothing() {
        let (base, queries) = (clustered(900, 12, 1), clustered(20, 12, 2));
        let plain = InvertedLists::train(&base, 0, 3);
        for exponent in [-110, -60, 60, 110] {
            let factor = 2f32.powi(exponent);
            let times = |rows: &[f32]| rows.iter().map(|v| v * factor).collect::<Vec<f32>>();
            let scaled = Vectors::from_floats(12, times(&base.to_floats())).unwrap();
            let other = InvertedLists::train(&scaled, 0, 3);
            assert_eq!(other.ids(), plain.ids());
            for row in 0..queries.len() {
                let query = queries.row_to_floats(row);
                let nearest = plain.nearest(&query, 9);
                assert_eq!(other.nearest(&times(&query), 9), nearest);
            }
        }
    }

    #[test]
    fn few_of_many_lists_are_those_of_a_sort() {
        let base = clustered(8_000, 64, 1);
        let lists = InvertedLists::train(&base, 4_096, 3);
        assert!(lists.few_of_many(32) && !lists.few_of_many(33));
        let queries = clustered(40, 64, 2);
        let of_each = lists.nearest_of_each(&queries, 16);
        for (row, nearest) in of_each.iter().enumerate() {
            let query = queries.row_to_floats(row);
            let distance = |list: usize| -> f64 {
                let pairs = query.iter().zip(lists.centroid(list));
                pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
            };
            let mut sorted: Vec<(f64, u32)> = (0..lists.nlist())
                .map(|list| (distance(list), list as u32))
                .collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let expected: Vec<u32> = sorted[..16].iter().map(|&(_, list)| list).collect();
            assert_eq!(*nearest, expected);
            assert_eq!(lists.nearest(&query, 16), expected);
        }
    }

    #[test]
    fn the_least_distances_are_those_of_a_sort() {
        let mut distances = clustered(40, 5, 1).to_floats();
        distances.extend_from_within(..90);
        distances.extend([f32::INFINITY, f32::NAN, f32::INFINITY, 0.0, f32::NAN]);
        let mut sorted: Vec<(f32, u32)> = distances.iter().copied().zip(0..).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let bits = |rows: &[(f32, u32)]| rows.iter().map(|(d, l)| (d.to_bits(), *l)).collect();
        for nprobe in [0, 1, 2, 7, 148, sorted.len(), sorted.len() + 1, usize::MAX] {
            let found: Vec<_> = bits(&least(distances.iter().copied(), nprobe));
            let expected: Vec<_> = bits(&sorted[..nprobe.min(sorted.len())]);
            assert_eq!(found, expected);
        }
    }
}
