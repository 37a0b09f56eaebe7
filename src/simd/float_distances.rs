//! Distances in `f64` where a float takes part: the definition that every exact answer is verified
//! with.
//!
//! ```text
//! squared Euclidean = Σ (aᵢ − bᵢ)²          Manhattan = Σ |aᵢ − bᵢ|
//! inner product     = Σ aᵢ·bᵢ
//! ```
//!
//! Summed from left to right, each addition would wait for the one before. So value `i` goes to
//! partial sum `i mod 8`, and the eight sums are folded at the end:
//!
//! ```text
//! values  0 1 2 3 4 5 6 7 | 8 9 10 11 12 13 14 15 | 16 17 ...
//! sum     0 1 2 3 4 5 6 7 | 0 1  2  3  4  5  6  7 |  0  1 ...
//! ```
//!
//! Floats added in another order give another last bit. Here the order is written into the source,
//! so that the portable code and the same source compiled for AVX2 agree to the last bit. A
//! difference of two `f32` is rounded once in `f64`, a product of two not at all, and nothing
//! overflows: squares of `f32` are below 2²⁵⁶.

/// The definitions, in the shape that compilers turn into SIMD.
mod portable {
    use crate::simd::sum_in_lanes;

    /// Partial sums: two AVX registers of `f64`.
    const SUMS: usize = 8;

    #[inline(always)]
    pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum, a: f32, b: f32| {
            let difference = f64::from(a) - f64::from(b);
            sum + difference * difference
        })
    }

    #[inline(always)]
    pub fn manhattan(a: &[f32], b: &[f32]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum: f64, a: f32, b: f32| {
            sum + (f64::from(a) - f64::from(b)).abs()
        })
    }

    #[inline(always)]
    pub fn squared_euclidean_mixed(a: &[f32], b: &[u8]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum, a: f32, b: u8| {
            let difference = f64::from(a) - f64::from(b);
            sum + difference * difference
        })
    }

    #[inline(always)]
    pub fn manhattan_mixed(a: &[f32], b: &[u8]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum: f64, a: f32, b: u8| {
            sum + (f64::from(a) - f64::from(b)).abs()
        })
    }

    #[inline(always)]
    pub fn product(a: &[f32], b: &[f32]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum, a: f32, b: f32| {
            sum + f64::from(a) * f64::from(b)
        })
    }

    #[inline(always)]
    pub fn product_mixed(a: &[f32], b: &[u8]) -> f64 {
        sum_in_lanes::<SUMS, _, _, _>(a, b, |sum, a: f32, b: u8| sum + f64::from(a) * f64::from(b))
    }
}

// For AVX-512 the compiler made code that was slower by 10 % (784 values on Zen 4).
dispatch! {
    /// Σ(aᵢ − bᵢ)².
    #[inline]
    pub(crate) fn squared_euclidean(a: &[f32], b: &[f32]) -> f64
        = portable::squared_euclidean, at most avx2;
    /// Σ|aᵢ − bᵢ|.
    #[inline]
    pub(crate) fn manhattan(a: &[f32], b: &[f32]) -> f64 = portable::manhattan, at most avx2;
    /// Σ(aᵢ − bᵢ)² of floats and bytes.
    #[inline]
    pub(crate) fn squared_euclidean_mixed(a: &[f32], b: &[u8]) -> f64
        = portable::squared_euclidean_mixed, at most avx2;
    /// Σ|aᵢ − bᵢ| of floats and bytes.
    #[inline]
    pub(crate) fn manhattan_mixed(a: &[f32], b: &[u8]) -> f64
        = portable::manhattan_mixed, at most avx2;
    /// Σ aᵢ·bᵢ.
    #[inline]
    pub(crate) fn product(a: &[f32], b: &[f32]) -> f64 = portable::product, at most avx2;
    /// Σ aᵢ·bᵢ of floats and bytes.
    #[inline]
    pub(crate) fn product_mixed(a: &[f32], b: &[u8]) -> f64 = portable::product_mixed, at most avx2;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every form, to the bit, and near the sum from left to right.
        #[test]
        fn every_form_agrees_with_the_definition(
            triples in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3, any::<u8>()), 0..100)
        ) {
            let a: Vec<f32> = triples.iter().map(|triple| triple.0).collect();
            let b: Vec<f32> = triples.iter().map(|triple| triple.1).collect();
            let bytes: Vec<u8> = triples.iter().map(|triple| triple.2).collect();
            let floats: Vec<f32> = bytes.iter().map(|&byte| byte.into()).collect();

            let squared = squared_euclidean(&a, &b);
            prop_assert_eq!(squared, portable::squared_euclidean(&a, &b));
            let absolute = manhattan(&a, &b);
            prop_assert_eq!(absolute, portable::manhattan(&a, &b));
            let dot = product(&a, &b);
            prop_assert_eq!(dot, portable::product(&a, &b));
            let (mut squares, mut sizes, mut products, mut most) = (0.0, 0.0, 0.0, 0.0);
            for (&a, &b) in a.iter().zip(&b) {
                let difference = f64::from(a) - f64::from(b);
                squares += difference * difference;
                sizes += difference.abs();
                let product = f64::from(a) * f64::from(b);
                products += product;
                most += product.abs();
            }
            prop_assert!((dot - products).abs() <= 1e-13 * most);
            prop_assert!((squared - squares).abs() <= 1e-13 * squares);
            prop_assert!((absolute - sizes).abs() <= 1e-13 * sizes);

            let squared = squared_euclidean(&a, &floats);
            prop_assert_eq!(squared_euclidean_mixed(&a, &bytes), squared);
            prop_assert_eq!(portable::squared_euclidean_mixed(&a, &bytes), squared);
            let absolute = manhattan(&a, &floats);
            prop_assert_eq!(manhattan_mixed(&a, &bytes), absolute);
            prop_assert_eq!(portable::manhattan_mixed(&a, &bytes), absolute);
            let dot = product(&a, &floats);
            prop_assert_eq!(product_mixed(&a, &bytes), dot);
            prop_assert_eq!(portable::product_mixed(&a, &bytes), dot);
        }
    }
}
