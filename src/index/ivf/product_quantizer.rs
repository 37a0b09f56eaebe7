//! Product quantisation: a vector as a short list of numbers, each naming a centroid in a subspace
//! of its own (H. Jégou, M. Douze and C. Schmid, *Product Quantization for Nearest Neighbor
//! Search*, IEEE TPAMI 2011).
//!
//! The naive form is one codebook for whole vectors:
//!
//! ```text
//! code = the number of the centroid nearest to v           64 bits: 2⁶⁴ centroids to learn
//! ```
//!
//! Cut the vector into m parts instead and give each part a small codebook of its own, a
//! *sub-quantiser*. The m codes of a vector then name one of ksubᵐ points, though only m · ksub
//! centroids were learned:
//!
//! ```text
//! v       = ( 0.3 1.2 | −0.7 0.1 | 0.5 0.0 | 2.0 −1.1 )     m = 4 parts of two coordinates
//!               ↓           ↓         ↓          ↓          the nearest of 16 each
//! code    = (   9     |     3    |    14   |     0     )    4 bits each: 2 bytes
//! v̂       = ( 0.4 1.0 | −0.6 0.0 | 0.5 0.1 | 1.9 −1.3 )     what the code stands for
//! ```
//!
//! A product with any coded vector is a sum of m entries of a table that is computed once for a
//! query: ⟨q, v̂⟩ = Σⱼ ⟨qⱼ, centroid codeⱼ of codebook j⟩. That is
//! [`ProductQuantizer::products`].
//!
//! ## Memory
//!
//! Codebooks lie by coordinate: for each coordinate its value in all ksub centroids of its
//! subspace, so that a query's value is multiplied by a run of memory.
//!
//! ```text
//!                centroid  0  1  2 … ksub − 1
//! values  coordinate 0     .  .  .                ┐ subspace 0: starts[0]..starts[1]
//!         coordinate 1     .  .  .                ┘
//!         coordinate 2     .  .  .                ┐ subspace 1
//! ```
//!
//! ## What it is bad at
//!
//! The parts are coded one by one. What is correlated across parts is paid for twice, and a part
//! that varies little has as many bits as one that varies much. [`Subspaces::deal`] answers both:
//! parts are principal components, which are uncorrelated, dealt so that each part varies about as
//! much.

use std::ops::Range;

use ndarray::ArrayView1;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::index::parts::{PartError, expect, expect_starts, saved};
use crate::math::kmeans::{KMeans, KMeansParams};
use crate::progress::{self, Stage};
use crate::vectors::Vectors;

mod score_aware;

pub(crate) use self::score_aware::Loss;

/// Rows from which a codebook is learned, for each of its centroids, at most: FAISS's number.
const ROWS_PER_CENTROID: usize = 256;
/// Rounds of training by the score-aware loss, after k-means. More lower the loss further and make
/// the build longer.
const ROUNDS: usize = 4;
/// Passes over the subspaces in which a code is improved, at most. It stops where nothing changes.
const PASSES: usize = 4;

/// Which coordinates make which subspace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subspaces {
    /// The principal components in the order in which the quantiser wants them.
    pub order: Vec<usize>,
    /// Where each subspace starts in this order, and the end.
    pub starts: Vec<usize>,
}

impl Subspaces {
    /// Deals the first `components` principal components to `m` subspaces to and fro, so that the
    /// one with the largest also gets the smallest:
    ///
    /// ```text
    /// subspace     0  1  2
    /// components   0  1  2
    ///              5  4  3
    ///              6
    /// ```
    ///
    /// As all subspaces have as many bits, the error is least where the products of their variances
    /// are equal. This is the parametric solution of OPQ (T. Ge, K. He, Q. Ke and J. Sun,
    /// *Optimized Product Quantization*, CVPR 2013), whose greedy allocation deals in this way
    /// where variances fall off steadily.
    ///
    /// No more subspaces are made than there are components.
    pub fn deal(components: usize, m: usize) -> Self {
        let m = m.min(components);
        let mut order = Vec::with_capacity(components);
        let mut starts = vec![0];
        for subspace in 0..m {
            for round in 0..components.div_ceil(m) {
                // Even rounds deal from left to right, odd ones back.
                let place = if round % 2 == 0 {
                    subspace
                } else {
                    m - 1 - subspace
                };
                let component = round * m + place;
                // The last round may not be full.
                if component < components {
                    order.push(component);
                }
            }
            starts.push(order.len());
        }
        Self { order, starts }
    }

    /// The number of subspaces.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }
}

/// m codebooks of 16 or 256 centroids, one a subspace.
#[derive(Debug)]
pub(crate) struct ProductQuantizer {
    /// Where each subspace starts among the coordinates, and the end: m + 1 numbers.
    starts: Vec<usize>,
    /// Centroids of a codebook.
    ksub: usize,
    /// One row a coordinate of the vectors, with its value in each centroid of its subspace.
    values: Vec<f32>,
    /// ‖c‖², m × ksub.
    norms: Vec<f32>,
}

saved!(ProductQuantizer {
    starts,
    ksub,
    values,
    norms
});

impl ProductQuantizer {
    /// The coordinates that it codes. Refuses codebooks that do not fit together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<usize, PartError> {
        let coordinates = self.starts.last().copied().unwrap_or_default();
        expect_starts(&self.starts, coordinates, "starts")?;
        let fit = [16, 256].contains(&self.ksub)
            && self.m() > 0
            && self.norms.len() == self.m() * self.ksub
            && coordinates.checked_mul(self.ksub) == Some(self.values.len());
        expect(fit, "quantizer", "codebooks of 16 or 256 centroids")?;
        Ok(coordinates)
    }

    /// Learns codebooks of 2^`nbits` centroids, `nbits` being 4 or 8, from vectors whose
    /// coordinates are in the order of `subspaces`: by k-means for each subspace, then, if the loss
    /// is another than the squared error, by rounds of training for that.
    pub fn train(
        vectors: &Vectors,
        subspaces: &Subspaces,
        nbits: usize,
        loss: Loss,
        seed: u64,
    ) -> Self {
        let ksub = 1 << nbits;
        // The subspaces have nothing to do with each other here, so they are trained in parallel.
        // Each has its own seed: otherwise all would begin with the same sampled rows.
        let stage = Stage::new("codebooks", subspaces.len());
        let codebooks: Vec<Vec<f32>> = (0..subspaces.len())
            .into_par_iter()
            .map(|j| {
                let span = subspaces.starts[j]..subspaces.starts[j + 1];
                let seed = seed.wrapping_add(j as u64);
                // Each is a k-means of its own, of which nobody wants to hear.
                let codebook = progress::observed_by(None, || codebook(vectors, span, ksub, seed));
                stage.advance(1);
                codebook
            })
            .collect();
        let mut quantizer = Self {
            starts: subspaces.starts.clone(),
            ksub,
            values: codebooks.concat(),
            norms: Vec::new(),
        };
        quantizer.update_norms();
        if loss != Loss::PLAIN {
            // The rounds read a sample, as k-means does. It is drawn once, so that each round goes
            // on from where the one before ended.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let count = vectors.len().min(ksub * ROWS_PER_CENTROID);
            let sample = rand::seq::index::sample(&mut rng, vectors.len(), count);
            let (dim, values) = (vectors.dim(), floats(vectors));
            let rows: Vec<&[f32]> = sample
                .iter()
                .map(|row| &values[row * dim..][..dim])
                .collect();
            for _ in 0..ROUNDS {
                score_aware::improve(&mut quantizer, &rows, loss);
            }
        }
        quantizer
    }

    /// Computes ‖c‖² of all centroids anew.
    fn update_norms(&mut self) {
        let mut norms = vec![0.0; self.m() * self.ksub];
        for (j, norms) in norms.chunks_exact_mut(self.ksub).enumerate() {
            // By coordinate, as the values lie in memory: one pass adds a square to each norm.
            for row in self.codebook(j).chunks_exact(self.ksub) {
                for (norm, value) in norms.iter_mut().zip(row) {
                    *norm += value * value;
                }
            }
        }
        self.norms = norms;
    }

    /// The number of sub-quantisers.
    pub fn m(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of centroids of each.
    pub fn ksub(&self) -> usize {
        self.ksub
    }

    /// The coordinates of a subspace.
    fn span(&self, j: usize) -> Range<usize> {
        self.starts[j]..self.starts[j + 1]
    }

    /// The values of codebook `j`: coordinates × ksub.
    fn codebook(&self, j: usize) -> &[f32] {
        let span = self.span(j);
        &self.values[span.start * self.ksub..span.end * self.ksub]
    }

    /// Coordinate `i` of centroid `c` of the subspace that it belongs to.
    fn value(&self, i: usize, c: usize) -> f32 {
        self.values[i * self.ksub + c]
    }

    /// Puts another centroid in place `c` of codebook `j`. The norms are not brought up to date.
    fn set_centroid(&mut self, j: usize, c: usize, centroid: &[f64]) {
        for (i, &value) in self.span(j).zip(centroid) {
            self.values[i * self.ksub + c] = value as f32;
        }
    }

    /// The product of `vector` with each centroid, in the centroid's subspace: m × ksub, in place
    /// of what `out` held.
    pub fn products(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.m() * self.ksub, 0.0);
        for (j, out) in out.chunks_exact_mut(self.ksub).enumerate() {
            // The inner loop multiplies one value by a run of ksub numbers and needs no horizontal
            // sum: the compiler makes SIMD of it.
            let rows = self.codebook(j).chunks_exact(self.ksub);
            for (&value, row) in vector[self.span(j)].iter().zip(rows) {
                for (out, centroid) in out.iter_mut().zip(row) {
                    *out += value * centroid;
                }
            }
        }
    }

    /// Writes the code of `vector`, m numbers below ksub: the one of least squared error, improved
    /// by coordinate descent if the loss is another.
    pub fn encode(&self, vector: &[f32], loss: Loss, code: &mut [u8], scratch: &mut Vec<f32>) {
        self.products(vector, scratch);
        // ‖v − c‖² is ‖c‖² − 2⟨v, c⟩ and a number that all centroids share.
        for (code, (products, norms)) in code.iter_mut().zip(self.by_subspace(scratch)) {
            let losses = products
                .iter()
                .zip(norms)
                .map(|(product, norm)| norm - 2.0 * product);
            *code = argmin(losses);
        }
        // The zero vector has no direction, so its error has no part along it.
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if loss != Loss::PLAIN && length > 0.0 {
            self.descend(vector, length, loss, code, scratch);
        }
    }

    /// Improves a code by the score-aware loss: in turn each subspace takes the centroid of least
    /// loss, the others staying as they are, until nothing changes.
    fn descend(&self, vector: &[f32], length: f32, loss: Loss, code: &mut [u8], products: &[f32]) {
        // The error along the vector is a sum over the subspaces, ⟨v − v̂, v⟩ / ‖v‖.
        let square = |j: usize| vector[self.span(j)].iter().map(|v| v * v).sum::<f32>();
        let squares: Vec<f32> = (0..self.m()).map(square).collect();
        let along = |j: usize, product: f32| (squares[j] - product) / length;
        let mut total: f32 = (0..self.m())
            .map(|j| along(j, products[j * self.ksub + usize::from(code[j])]))
            .sum();
        // Each step takes the best centroid of one subspace, so the loss never rises, and a pass
        // without a change would be followed by others without.
        for _ in 0..PASSES {
            let mut changed = false;
            for (j, (products, norms)) in self.by_subspace(products).enumerate() {
                // The error along the vector is a sum over subspaces, so a change in one needs only
                // that part.
                let others = total - along(j, products[usize::from(code[j])]);
                let best = argmin(products.iter().zip(norms).map(|(&product, norm)| {
                    // ‖vⱼ‖² is left out: it is the same for all centroids of the subspace.
                    let squared_error = norm - 2.0 * product;
                    let parallel_error = others + along(j, product);
                    squared_error + (loss.parallel - 1.0) * parallel_error.powi(2)
                }));
                // `products` holds ⟨v, c⟩ of this subspace, so the new part is read and not
                // computed.
                total = others + along(j, products[usize::from(best)]);
                changed |= best != code[j];
                code[j] = best;
            }
            if !changed {
                break;
            }
        }
    }

    /// For each subspace, a vector's products with its centroids, and their ‖c‖².
    fn by_subspace<'a>(
        &'a self,
        products: &'a [f32],
    ) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
        let norms = self.norms.chunks_exact(self.ksub);
        products.chunks_exact(self.ksub).zip(norms)
    }

    /// The vector that a code stands for.
    pub fn decode(&self, code: &[u8]) -> Vec<f32> {
        // values is d × ksub, so this is d.
        let mut vector = Vec::with_capacity(self.values.len() / self.ksub);
        for (j, &c) in code.iter().enumerate() {
            vector.extend(self.span(j).map(|i| self.value(i, c.into())));
        }
        vector
    }

    /// The codes of all `vectors`: n × m.
    pub fn encode_all(&self, vectors: &Vectors, loss: Loss) -> Vec<u8> {
        let mut codes = vec![0; vectors.len() * self.m()];
        codes
            .par_chunks_exact_mut(self.m())
            .zip(floats(vectors).par_chunks_exact(vectors.dim()))
            .for_each_init(Vec::new, |scratch, (code, vector)| {
                self.encode(vector, loss, code, scratch);
            });
        codes
    }

    /// Bytes of memory that the codebooks take.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.values) + size_of_val(&*self.norms) + size_of_val(&*self.starts)
    }
}

/// The k-means centroids of one subspace, a row of `ksub` values for each of its coordinates.
fn codebook(vectors: &Vectors, span: Range<usize>, ksub: usize, seed: u64) -> Vec<f32> {
    // k-means wants rows that lie side by side, so the columns of the subspace are copied.
    let part: Vec<f32> = floats(vectors)
        .chunks_exact(vectors.dim())
        .flat_map(|row| &row[span.clone()])
        .copied()
        .collect();
    let part = Vectors::from_floats(span.len(), part).expect("coordinates are finite");
    let params = KMeansParams {
        k: ksub,
        max_points_per_centroid: ROWS_PER_CENTROID,
        seed,
        ..Default::default()
    };
    let clusters = KMeans::fit(&part, &params).expect("there are vectors");
    // With few vectors there are few centroids: the last one fills up the book.
    let filled_up = |coordinate: ArrayView1<'_, f32>| -> Vec<f32> {
        let last = coordinate.len() - 1;
        (0..ksub).map(|c| coordinate[c.min(last)]).collect()
    };
    let centroids = clusters.centroids();
    let coordinates = centroids.columns().into_iter();
    coordinates.flat_map(filled_up).collect()
}

/// The number of the least loss; the first of equals.
fn argmin(losses: impl Iterator<Item = f32>) -> u8 {
    let (mut least, mut best) = (f32::INFINITY, 0);
    for (c, loss) in losses.enumerate() {
        if loss < least {
            (least, best) = (loss, c);
        }
    }
    best as u8
}

fn floats(vectors: &Vectors) -> &[f32] {
    vectors.floats().expect("coordinates are floats")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    fn rows(n: usize, dim: usize) -> Vectors {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values = (0..n * dim).map(|i| rng.random_range(-1.0..1.0) * (1.0 + (i % dim) as f32));
        Vectors::from_floats(dim, values.collect::<Vec<_>>()).unwrap()
    }

    /// The loss by its definition.
    fn loss_of(vector: &[f32], decoded: &[f32], parallel: f32) -> f32 {
        let error: Vec<f32> = vector.iter().zip(decoded).map(|(v, d)| v - d).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let along = dot(&error, vector).powi(2) / dot(vector, vector);
        dot(&error, &error) - along + parallel * along
    }

    #[test]
    fn components_are_dealt_to_and_fro() {
        let dealt = Subspaces::deal(7, 3);
        assert_eq!(dealt.order, [0, 5, 6, 1, 4, 2, 3]);
        assert_eq!(dealt.starts, [0, 3, 5, 7]);
        assert_eq!(Subspaces::deal(2, 5).starts, [0, 1, 2]);
    }

    #[test]
    fn a_code_names_the_nearest_centroid_of_each_subspace() {
        let vectors = rows(600, 6);
        for (nbits, most) in [(4, 0.12), (8, 0.01)] {
            let quantizer =
                ProductQuantizer::train(&vectors, &Subspaces::deal(6, 3), nbits, Loss::PLAIN, 1);
            let codes = quantizer.encode_all(&vectors, Loss::PLAIN);
            let (mut error, mut size) = (0.0, 0.0);
            for (row, code) in codes.chunks_exact(3).enumerate() {
                let vector = vectors.row_to_floats(row);
                for j in 0..3 {
                    let to = |c: usize| {
                        let mut other = code.to_vec();
                        other[j] = c as u8;
                        loss_of(&vector, &quantizer.decode(&other), 1.0)
                    };
                    let nearest = (0..quantizer.ksub()).map(to).fold(f32::INFINITY, f32::min);
                    assert!(
                        to(code[j].into()) <= nearest + 1e-4,
                        "row {row}, subspace {j}"
                    );
                }
                error += loss_of(&vector, &quantizer.decode(code), 1.0);
                size += vector.iter().map(|value| value * value).sum::<f32>();
            }
            assert!(error < most * size, "{nbits} bits: {error} of {size}");
        }
    }

    #[test]
    fn products_are_those_with_the_decoded_vector() {
        let vectors = rows(100, 5);
        let quantizer =
            ProductQuantizer::train(&vectors, &Subspaces::deal(5, 2), 4, Loss::PLAIN, 1);
        let (code, vector, mut products) = ([3, 9], vectors.row_to_floats(7), Vec::new());
        quantizer.products(&vector, &mut products);
        let expected: f32 = quantizer
            .decode(&code)
            .iter()
            .zip(&vector)
            .map(|(a, b)| a * b)
            .sum();
        assert!((products[3] + products[16 + 9] - expected).abs() < 1e-4);
    }

    #[test]
    fn the_score_aware_loss_is_less_where_it_is_what_was_learned() {
        let vectors = rows(2_000, 8);
        let subspaces = Subspaces::deal(8, 4);
        let loss = Loss::score_aware(0.6, 8);
        assert!((loss.parallel - 7.0 * 0.36 / 0.64).abs() < 1e-5);
        let mean = |trained: Loss, encoded: Loss, measured: Loss| {
            let quantizer = ProductQuantizer::train(&vectors, &subspaces, 4, trained, 1);
            let codes = quantizer.encode_all(&vectors, encoded);
            let losses = codes.chunks_exact(4).enumerate();
            losses
                .map(|(row, code)| {
                    loss_of(
                        &vectors.row_to_floats(row),
                        &quantizer.decode(code),
                        measured.parallel,
                    )
                })
                .sum::<f32>()
                / 2_000.0
        };
        let (plain, coded, learned) = (
            mean(Loss::PLAIN, Loss::PLAIN, loss),
            mean(Loss::PLAIN, loss, loss),
            mean(loss, loss, loss),
        );
        assert!(
            learned < 0.97 * coded && coded < 0.97 * plain,
            "{plain} {coded} {learned}"
        );
        assert!(mean(loss, loss, Loss::PLAIN) > mean(Loss::PLAIN, Loss::PLAIN, Loss::PLAIN));
    }

    #[test]
    fn a_threshold_that_asks_for_nothing_gives_the_plain_loss() {
        assert_eq!(Loss::score_aware(0.0, 100), Loss::PLAIN);
        assert_eq!(Loss::score_aware(0.05, 100), Loss::PLAIN);
    }

    #[test]
    fn fewer_vectors_than_centroids_are_coded_without_error() {
        let vectors = rows(5, 3);
        let quantizer =
            ProductQuantizer::train(&vectors, &Subspaces::deal(3, 3), 8, Loss::PLAIN, 1);
        for (row, code) in quantizer
            .encode_all(&vectors, Loss::PLAIN)
            .chunks_exact(3)
            .enumerate()
        {
            assert_eq!(quantizer.decode(code), vectors.row_to_floats(row));
        }
    }
}
