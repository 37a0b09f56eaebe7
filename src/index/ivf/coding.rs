//! [`Coding::choose`]: how many principal components are coded, and with how many bits each, by
//! what is measured on rows of the base.
//!
//! The naive form is a constant, 128 components at two bits: enough where the variance is in few
//! components (pixels), and too few where it is spread over all (embeddings of text). Estimates are
//! then so far off that hundreds of candidates have to be compared by their vectors.
//!
//! What a query costs is known but for two numbers:
//!
//! ```text
//! cost = components · (projection and tables + codes scanned · time of a code's component)
//!      + candidates · time of a row
//! ```
//!
//! More components make the first part larger and the candidates fewer. How many candidates are
//! needed is measured: some rows of the base are asked for as queries in a sample of the others.
//! For each number of components their estimates are computed, and the candidates counted that seem
//! as near as the true neighbours do. What costs least is taken.
//!
//! An estimate of ‖q − x‖² is off by two things:
//!
//! - What the components leave out of q and x is taken to be at right angles. So twice the product
//!   of the two is missing: it is computed for each pair.
//! - A code makes an error e, and the estimate is off by 2⟨q − x, e⟩. Codes are not there
//!   yet, so that is drawn at random, as large as optimal codes for a normal distribution make it.
//!
//! What it is bad at: the sample has fewer rows than the base, and neighbours in it are farther
//! away. Many more rows need some more candidates than are counted here.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::simd::pairwise::squared_euclidean_f32_rows;
use crate::simd::pq_scan::MOST_SUBQUANTIZERS;
use crate::vectors::Vectors;

/// How many principal components are coded, by how many sub-quantisers of four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    pub components: usize,
    pub subquantizers: usize,
}

/// Components that are coded, at most: two by each sub-quantiser.
pub(crate) const MOST_COMPONENTS: usize = 2 * MOST_SUBQUANTIZERS;

/// Numbers of components that are tried, at two bits each. With fewer than the first, a search
/// spends its time on other things than codes.
const COMPONENTS: [usize; 5] = [128, 192, 256, 384, MOST_COMPONENTS];
/// Rows of the sample, at most: enough to have near neighbours, and few enough that the products
/// with all of them are a small part of a build.
const ROWS: usize = 8_192;
/// Values of the sample, at most, where rows are long: 32 MB.
const VALUES: usize = 1 << 23;
/// Rows of the sample that are asked for as queries.
const QUERIES: usize = 48;
/// Neighbours that are to be among the candidates.
const NEIGHBORS: usize = 10;
/// The part of the neighbours that is to be among the candidates.
const WANTED: f64 = 0.99;
/// The share of the variance that is left as error by the best code of a normal distribution: 16
/// points of the plane (two bits a value) and 16 points of the line (four bits). J. Max,
/// *Quantizing for Minimum Distortion*, 1960, has the second, 0.009497.
const ERROR_OF_TWO_BITS: f64 = 0.117;
const ERROR_OF_FOUR_BITS: f64 = 0.0095;
/// The part of the variance that residuals still have, in lists of a few hundred rows. It is an
/// assumption: clear clusters leave less, flat data more.
const RESIDUAL: f64 = 0.6;

/// The part of the rows whose codes a query of recall 0.99 scans.
const SCANNED: f64 = 1.0 / 16.0;
/// Nanoseconds of two bits of a code in a scan, of a dimension of the projection for each
/// component, and of a candidate's row: of any, and for each of its bytes. Fitted to
/// `measure --index ivf_pq --sweep "m=64,128,192;nprobe=16,64,128;refine=2,4,10,20"` on 40,000 rows
/// of 384 floats and on pixels, AVX2. Only their ratios matter.
const CODE_NS: f64 = 0.014;
const PROJECTION_NS: f64 = 0.12;
const ROW_NS: f64 = 60.0;
const BYTE_NS: f64 = 0.08;

/// Rows of the base less their mean, in a unit in which they are at most 1, and which of them are
/// queries: the first ones.
struct Sample {
    rows: Array2<f32>,
    queries: usize,
}

/// A query's pairs with all rows of the sample, by number of the row.
struct Pairs {
    /// ‖q − x‖².
    squared: Vec<f32>,
    /// The rows that are the nearest, without the query itself.
    nearest: Vec<usize>,
}

impl Coding {
    /// The coding of least cost for `base`; `components` are its principal components (m × d).
    pub fn choose(base: &Vectors, components: ArrayView2<'_, f64>, seed: u64) -> Self {
        let most = components.nrows();
        let options = Self::options(most);
        let [first, rest @ ..] = &*options else {
            unreachable!("there is a component")
        };
        if rest.is_empty() {
            return *first;
        }
        let sample = Sample::draw(base, seed);
        let pairs = sample.pairs();
        let (mut best, mut least) = (*first, f64::INFINITY);
        for &option in &options {
            let candidates = sample.candidates(&pairs, components, option, seed);
            let cost = option.cost(base, candidates);
            if cost < least {
                (best, least) = (option, cost);
            }
        }
        best
    }

    /// What is tried where there are `most` components, the cheapest scan first.
    fn options(most: usize) -> Vec<Self> {
        let two_bits = |components: usize| Self {
            components,
            subquantizers: components.div_ceil(2),
        };
        let fewer = COMPONENTS.into_iter().filter(|&count| count < most);
        let mut options: Vec<Self> = fewer.map(two_bits).collect();
        let all = most.min(MOST_COMPONENTS);
        if options.last().is_none_or(|last| last.components < all) {
            options.push(two_bits(all));
        }
        // Four bits each, where codes of all components at two bits are not enough.
        if all <= MOST_SUBQUANTIZERS {
            let (components, subquantizers) = (all, all);
            options.push(Self {
                components,
                subquantizers,
            });
        }
        options
    }

    /// The share of the variance that codes leave as error.
    fn error(self) -> f64 {
        if self.subquantizers < self.components {
            ERROR_OF_TWO_BITS
        } else {
            ERROR_OF_FOUR_BITS
        }
    }

    /// Nanoseconds of a query with so many candidates.
    fn cost(self, base: &Vectors, candidates: f64) -> f64 {
        let scanned = SCANNED * base.len() as f64;
        let halves = (2 * self.subquantizers) as f64;
        let bytes = base.memory_bytes() as f64 / base.len() as f64;
        self.components as f64 * base.dim() as f64 * PROJECTION_NS
            + halves * scanned * CODE_NS
            + candidates * (ROW_NS + BYTE_NS * bytes)
    }
}

impl Sample {
    fn draw(base: &Vectors, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let most = ROWS.min((VALUES / base.dim()).max(QUERIES));
        let count = base.len().min(most);
        let ids = rand::seq::index::sample(&mut rng, base.len(), count).into_vec();
        let mut mean = vec![0.0f64; base.dim()];
        for &id in &ids {
            base.row(id).add_to(&mut mean);
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let mut centred = vec![0.0f64; base.dim()];
        let mut largest = 0.0f64;
        for &id in &ids {
            base.row(id).sub_into(&mean, &mut centred);
            largest = centred
                .iter()
                .fold(largest, |most, value| most.max(value.abs()));
        }
        let scale = if largest > 0.0 { largest.recip() } else { 1.0 };
        let mut values = Vec::with_capacity(count * base.dim());
        for &id in &ids {
            base.row(id).sub_into(&mean, &mut centred);
            values.extend(centred.iter().map(|value| (value * scale) as f32));
        }
        let rows = Array2::from_shape_vec((count, base.dim()), values).expect("whole rows");
        Self {
            rows,
            queries: QUERIES.min(count),
        }
    }

    fn pairs(&self) -> Vec<Pairs> {
        let queries = (0..self.queries).into_par_iter();
        queries.map(|query| self.pairs_of(query)).collect()
    }

    fn pairs_of(&self, query: usize) -> Pairs {
        let dim = self.rows.ncols();
        let values = self.rows.as_slice().expect("made in row order");
        let mut squared = vec![0.0; self.rows.nrows()];
        let query_values = &values[query * dim..][..dim];
        squared_euclidean_f32_rows(query_values, values, &mut squared);
        let mut order: Vec<usize> = (0..squared.len()).filter(|&row| row != query).collect();
        order.sort_unstable_by(|&a, &b| squared[a].total_cmp(&squared[b]).then(a.cmp(&b)));
        order.truncate(NEIGHBORS);
        Pairs {
            squared,
            nearest: order,
        }
    }

    /// How many candidates it takes to have the wanted part of all queries' neighbours.
    fn candidates(
        &self,
        pairs: &[Pairs],
        components: ArrayView2<'_, f64>,
        coding: Coding,
        seed: u64,
    ) -> f64 {
        let queries = self.rows.slice(s![..self.queries, ..]);
        let map = components.slice(s![..coding.components, ..]);
        let map = map.mapv(|value| value as f32);
        let mut kept = Array2::zeros((self.queries, coding.components));
        general_mat_mul(1.0, &queries, &map.t(), 0.0, &mut kept);
        // What the components leave out of the queries, and its products with all rows: those with
        // what is left out of the rows.
        let mut left_out = queries.to_owned();
        general_mat_mul(-1.0, &kept, &map, 1.0, &mut left_out);
        let mut products = Array2::zeros((self.queries, self.rows.nrows()));
        general_mat_mul(1.0, &left_out, &self.rows.t(), 0.0, &mut products);

        let noise = noise(&kept, coding);
        let mut ranks: Vec<usize> = Vec::new();
        for (query, (pairs, products)) in pairs.iter().zip(products.rows()).enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(query as u64));
            let error_of = |(&squared, &product): (&f32, &f32)| {
                let code = noise * f64::from(squared).sqrt() * normal(&mut rng);
                f64::from(squared) + 2.0 * f64::from(product) + code
            };
            let mut estimates: Vec<f64> =
                pairs.squared.iter().zip(products).map(error_of).collect();
            estimates[query] = f64::INFINITY;
            let mut sorted = estimates.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let rank = |&row: &usize| sorted.partition_point(|&other| other < estimates[row]) + 1;
            ranks.extend(pairs.nearest.iter().map(rank));
        }
        ranks.sort_unstable();
        let last = (ranks.len() as f64 * WANTED) as usize;
        ranks.get(last).map_or(1.0, |&rank| rank as f64)
    }
}

/// The standard deviation of 2⟨q − x, e⟩ for ‖q − x‖ = 1: differences and errors are
/// both spread over the components as the queries' variance is.
fn noise(kept: &Array2<f32>, coding: Coding) -> f64 {
    let (mut sum, mut squares) = (0.0f64, 0.0);
    for column in kept.axis_iter(Axis(1)) {
        let square: f64 = column.iter().map(|&value| f64::from(value).powi(2)).sum();
        let variance = square / column.len() as f64;
        sum += variance;
        squares += variance * variance;
    }
    if sum == 0.0 {
        return 0.0;
    }
    2.0 * (coding.error() * RESIDUAL * squares / sum).sqrt()
}

/// A number of the standard normal distribution, nearly: the sum of twelve uniform ones.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` rows of `dim` values, of a normal distribution whose variance is the same in the first
    /// `flat` of them and a hundredth in the others.
    fn normal_rows(n: usize, dim: usize, flat: usize) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let size = |column: usize| if column < flat { 1.0 } else { 0.1 };
        let values = (0..n * dim).map(|i| (normal(&mut rng) * size(i % dim)) as f32);
        Vectors::from_floats(dim, values.collect::<Vec<f32>>()).unwrap()
    }

    fn chosen(base: &Vectors) -> Coding {
        let identity = Array2::eye(base.dim());
        Coding::choose(base, identity.view(), 1)
    }

    #[test]
    fn a_flat_spectrum_needs_more_components_than_a_steep_one() {
        let few = Coding {
            components: 128,
            subquantizers: 64,
        };
        assert_eq!(chosen(&normal_rows(3_000, 300, 60)), few);
        assert!(chosen(&normal_rows(3_000, 300, 300)).components > 128);
    }

    #[test]
    fn no_more_is_coded_than_there_is() {
        for dim in [1, 2, 3, 127, 128, 129, 600] {
            let options = Coding::options(dim);
            assert!(options.iter().all(|option| {
                option.components <= dim && option.subquantizers <= MOST_SUBQUANTIZERS
            }));
            assert!(options[0].components == dim.min(128));
        }
        let coding = chosen(&Vectors::from_floats(3, vec![0.5; 3]).unwrap());
        assert_eq!(coding.components, 3);
    }
}
