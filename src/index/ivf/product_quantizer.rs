//! Product quantisation: a vector as a short list of numbers, each naming the nearest centroid in a subspace of its own (Jégou,
//! Douze & Schmid, *Product Quantization for Nearest Neighbor Search*, 2011).

use nalgebra::{DMatrix, DVector};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::math::kmeans::{KMeans, KMeansParams};
use crate::vectors::Vectors;

/// Which coordinates make which subspace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subspaces {
    /// The principal components in the order in which the quantiser wants them.
    pub order: Vec<usize>,
    /// Where each subspace starts in this order, and the end.
    pub starts: Vec<usize>,
}

impl Subspaces {
    /// Deals the first `components` principal components to `m` subspaces to and fro, so that the one with the largest also gets the
    /// smallest. As all subspaces have as many bits, the error is least where the products of their variances are equal; this is the
    /// parametric solution of OPQ (Ge et al., *Optimized Product Quantization*, 2013), whose greedy allocation deals
    /// in this way where variances fall off steadily.
    ///
    /// No more subspaces are made than there are components.
    pub fn deal(components: usize, m: usize) -> Self {
        let m = m.min(components);
        let mut order = Vec::with_capacity(components);
        let mut starts = vec![0];
        for subspace in 0..m {
            let rounds = (0..components.div_ceil(m)).map(|round| {
                let place = if round % 2 == 0 {
                    subspace
                } else {
                    m - 1 - subspace
                };
                round * m + place
            });
            order.extend(rounds.filter(|&component| component < components));
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
    /// m + 1 numbers.
    starts: Vec<usize>,
    /// Centroids of a codebook.
    ksub: usize,
    /// One row a coordinate of the vectors, with its value in each centroid of its subspace.
    values: Vec<f32>,
    /// ‖c‖², m × ksub.
    norms: Vec<f32>,
}

/// Rows from which a codebook is learned, for each of its centroids, at most: FAISS's number.
const ROWS_PER_CENTROID: usize = 256;
/// Rounds of encoding and update by the score-aware loss, after k-means.
const ROUNDS: usize = 4;
/// Passes over the subspaces in which a code is improved, at most.
const PASSES: usize = 4;

/// What the score-aware loss counts: the error along the vector, `parallel` times the error across it (η in Guo et al. 2020; 1 is the
/// plain squared error).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Loss {
    pub parallel: f32,
}

impl Loss {
    /// The squared error.
    pub const PLAIN: Self = Self { parallel: 1.0 };

    /// The loss of Guo et al. (*Accelerating Large-Scale Inference with Anisotropic Vector Quantization*, 2020, theorem 3.3 and
    /// equation 5) for queries whose cosine with the vector is at least `threshold`: η = (d − 1)·T² / (1 − T²). What asks for less than the
    /// plain loss is given that.
    pub fn score_aware(threshold: f64, dim: usize) -> Self {
        let square = threshold * threshold;
        let parallel = dim.saturating_sub(1) as f64 * square / (1.0 - square);
        Self {
            parallel: parallel.max(1.0) as f32,
        }
    }
}

impl ProductQuantizer {
    /// Learns codebooks of 2^`nbits` centroids, `nbits` being 4 or 8, from vectors whose coordinates are in the order of `subspaces`.
    pub fn train(
        vectors: &Vectors,
        subspaces: &Subspaces,
        nbits: usize,
        loss: Loss,
        seed: u64,
    ) -> Self {
        let (dim, ksub) = (vectors.dim(), 1 << nbits);
        let values = vectors.floats().expect("coordinates are floats");
        let books: Vec<Vec<f32>> = (0..subspaces.len())
            .into_par_iter()
            .map(|j| {
                let span = subspaces.starts[j]..subspaces.starts[j + 1];
                let part: Vec<f32> = values
                    .chunks_exact(dim)
                    .flat_map(|row| &row[span.clone()])
                    .copied()
                    .collect();
                let part = Vectors::from_floats(span.len(), part).expect("coordinates are finite");
                let params = KMeansParams {
                    k: ksub,
                    max_points_per_centroid: ROWS_PER_CENTROID,
                    seed: seed.wrapping_add(j as u64),
                    ..Default::default()
                };
                let clusters = KMeans::fit(&part, &params).expect("there are vectors");
                // With few vectors there are few centroids: the last one fills up the book.
                let row = |column: ndarray::ArrayView1<'_, f32>| {
                    (0..ksub)
                        .map(|c| column[c.min(column.len() - 1)])
                        .collect::<Vec<_>>()
                };
                clusters
                    .centroids()
                    .columns()
                    .into_iter()
                    .flat_map(row)
                    .collect()
            })
            .collect();
        let starts = subspaces.starts.clone();
        let mut quantizer = Self {
            starts,
            ksub,
            values: books.concat(),
            norms: Vec::new(),
        };
        quantizer.update_norms();
        if loss != Loss::PLAIN {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let count = vectors.len().min(ksub * ROWS_PER_CENTROID);
            let sample = rand::seq::index::sample(&mut rng, vectors.len(), count);
            let rows: Vec<&[f32]> = sample
                .iter()
                .map(|row| &values[row * dim..][..dim])
                .collect();
            for _ in 0..ROUNDS {
                quantizer.improve(&rows, loss);
            }
        }
        quantizer
    }

    fn update_norms(&mut self) {
        let mut norms = vec![0.0; self.m() * self.ksub];
        for (j, norms) in norms.chunks_exact_mut(self.ksub).enumerate() {
            for row in self.values[self.starts[j] * self.ksub..self.starts[j + 1] * self.ksub]
                .chunks_exact(self.ksub)
            {
                norms
                    .iter_mut()
                    .zip(row)
                    .for_each(|(norm, value)| *norm += value * value);
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

    /// The product of `vector` with each centroid, in the centroid's subspace: m × ksub, in place of what `out` held.
    pub fn products(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.m() * self.ksub, 0.0);
        for (span, out) in self.starts.windows(2).zip(out.chunks_exact_mut(self.ksub)) {
            let rows =
                self.values[span[0] * self.ksub..span[1] * self.ksub].chunks_exact(self.ksub);
            for (&value, row) in vector[span[0]..span[1]].iter().zip(rows) {
                out.iter_mut()
                    .zip(row)
                    .for_each(|(out, centroid)| *out += value * centroid);
            }
        }
    }

    /// The code of least loss that coordinate descent finds, from the one of least squared error on: m numbers below ksub.
    pub fn encode(&self, vector: &[f32], loss: Loss, code: &mut [u8], scratch: &mut Vec<f32>) {
        self.products(vector, scratch);
        let least = |losses: &mut dyn Iterator<Item = f32>| {
            let mut best = (f32::INFINITY, 0);
            for (c, loss) in losses.enumerate() {
                if loss < best.0 {
                    best = (loss, c);
                }
            }
            best.1 as u8
        };
        let books = || {
            scratch
                .chunks_exact(self.ksub)
                .zip(self.norms.chunks_exact(self.ksub))
        };
        for (code, (products, norms)) in code.iter_mut().zip(books()) {
            *code = least(
                &mut products
                    .iter()
                    .zip(norms)
                    .map(|(product, norm)| norm - 2.0 * product),
            );
        }
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if loss == Loss::PLAIN || length == 0.0 {
            return;
        }
        // The error along the vector is a sum over the subspaces, ⟨v − v̂, v⟩ / ‖v‖.
        let square = |j: usize| {
            vector[self.starts[j]..self.starts[j + 1]]
                .iter()
                .map(|v| v * v)
                .sum::<f32>()
        };
        let squares: Vec<f32> = (0..self.m()).map(square).collect();
        let along = |j: usize, product: f32| (squares[j] - product) / length;
        let mut total: f32 = (0..self.m())
            .map(|j| along(j, scratch[j * self.ksub + usize::from(code[j])]))
            .sum();
        for _ in 0..PASSES {
            let mut changed = false;
            for (j, (products, norms)) in books().enumerate() {
                let others = total - along(j, products[usize::from(code[j])]);
                let best = least(&mut products.iter().zip(norms).map(|(&product, norm)| {
                    norm - 2.0 * product
                        + (loss.parallel - 1.0) * (others + along(j, product)).powi(2)
                }));
                total = others + along(j, products[usize::from(best)]);
                changed |= best != code[j];
                code[j] = best;
            }
            if !changed {
                break;
            }
        }
    }

    /// The vector that a code stands for.
    pub fn decode(&self, code: &[u8]) -> Vec<f32> {
        let mut vector = Vec::with_capacity(self.values.len() / self.ksub);
        for (span, &c) in self.starts.windows(2).zip(code) {
            vector.extend((span[0]..span[1]).map(|i| self.values[i * self.ksub + usize::from(c)]));
        }
        vector
    }

    /// The codes of all `vectors`: n × m.
    pub fn encode_all(&self, vectors: &Vectors, loss: Loss) -> Vec<u8> {
        let values = vectors.floats().expect("coordinates are floats");
        let mut codes = vec![0; vectors.len() * self.m()];
        codes
            .par_chunks_exact_mut(self.m())
            .zip(values.par_chunks_exact(vectors.dim()))
            .for_each_init(Vec::new, |scratch, (code, vector)| {
                self.encode(vector, loss, code, scratch)
            });
        codes
    }

    /// A round of the score-aware Lloyd: encodes `rows`, then moves each centroid to where the loss of its rows is least, the
    /// others' errors being as they are. That is a linear equation of the subspace's dimension: with u = v / ‖v‖ and P the error along v of
    /// the other subspaces, Σ(I + (η − 1)·uuᵀ)·c = Σ v + (η − 1)·(P + ⟨v, u⟩)·u, over the rows' parts in the subspace.
    fn improve(&mut self, rows: &[&[f32]], loss: Loss) {
        let (m, more) = (self.m(), f64::from(loss.parallel) - 1.0);
        let mut codes = vec![0u8; rows.len() * m];
        codes
            .par_chunks_exact_mut(m)
            .zip(rows)
            .for_each_init(Vec::new, |scratch, (code, row)| {
                self.encode(row, loss, code, scratch);
            });
        let units: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let length = row
                    .iter()
                    .map(|&v| f64::from(v).powi(2))
                    .sum::<f64>()
                    .sqrt();
                row.iter()
                    .map(|&v| {
                        if length > 0.0 {
                            f64::from(v) / length
                        } else {
                            0.0
                        }
                    })
                    .collect()
            })
            .collect();
        // The error along each row, in all and in a subspace.
        let along = |values: &[f32], row: usize, i: usize, c: usize| {
            (f64::from(rows[row][i]) - f64::from(values[i * self.ksub + c])) * units[row][i]
        };
        let mut totals: Vec<f64> = (0..rows.len())
            .map(|row| {
                let code = &codes[row * m..][..m];
                self.starts
                    .windows(2)
                    .zip(code)
                    .flat_map(|(span, &c)| (span[0]..span[1]).map(move |i| (i, usize::from(c))))
                    .map(|(i, c)| along(&self.values, row, i, c))
                    .sum()
            })
            .collect();
        let mut values = self.values.clone();
        for j in 0..m {
            let span = self.starts[j]..self.starts[j + 1];
            let labels: Vec<u32> = codes.iter().skip(j).step_by(m).map(|&c| c.into()).collect();
            let (starts, members) = crate::math::kmeans::group(&labels, self.ksub);
            for c in 0..self.ksub {
                let members = &members[starts[c]..starts[c + 1]];
                let mut matrix =
                    DMatrix::<f64>::identity(span.len(), span.len()) * members.len() as f64;
                let mut right = DVector::<f64>::zeros(span.len());
                for &row in members {
                    let row = row as usize;
                    let unit = DVector::from_column_slice(&units[row][span.clone()]);
                    let part = DVector::from_iterator(
                        span.len(),
                        rows[row][span.clone()].iter().map(|&v| f64::from(v)),
                    );
                    let here: f64 = span.clone().map(|i| along(&values, row, i, c)).sum();
                    totals[row] -= here;
                    matrix.ger(more, &unit, &unit, 1.0);
                    right += &part + &unit * (more * (totals[row] + part.dot(&unit)));
                }
                if let Some(factors) = matrix.cholesky() {
                    let centroid = factors.solve(&right);
                    span.clone()
                        .zip(&centroid)
                        .for_each(|(i, &value)| values[i * self.ksub + c] = value as f32);
                }
                for &row in members {
                    let row = row as usize;
                    totals[row] += span.clone().map(|i| along(&values, row, i, c)).sum::<f64>();
                }
            }
        }
        self.values = values;
        self.update_norms();
    }

    /// Bytes of memory that the codebooks take.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.values) + size_of_val(&*self.norms) + size_of_val(&*self.starts)
    }
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
