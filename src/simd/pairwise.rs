//! One vector against one vector: what single queries scan with, and what candidates are verified
//! with.
//!
//! The naive form:
//!
//! ```text
//! Σ (aᵢ − bᵢ)²        Σ |aᵢ − bᵢ|
//! ```
//!
//! Of bytes the sums are exact integers; of floats they are rounded, and [`relative_error`] bounds
//! by how much. The AVX2 form takes 32 bytes at a time:
//!
//! ```text
//! a           32 bytes
//! b           32 bytes
//! |a − b|     32 bytes       max(a − b, 0) or max(b − a, 0): one of the two is zero
//! widened     16 + 16 words of 16 bits
//! squared     8 + 8 sums of two squares, 32 bits each       (one instruction: multiply, add pairs)
//! ```
//!
//! What can go wrong is that 32 bits are not enough: a square is at most 255² = 65,025, of which
//! 66,051 fit. So long vectors go in pieces of [`PIECE`] values, whose sums are added in 64 bits.
//! Manhattan distances are added in 64 bits from the start, by an instruction made for it.

dispatch! {
    /// Σ(aᵢ − bᵢ)², exact.
    #[inline]
    pub(crate) fn squared_euclidean_bytes(a: &[u8], b: &[u8]) -> u64;
    /// Σ|aᵢ − bᵢ|, exact.
    #[inline]
    pub(crate) fn manhattan_bytes(a: &[u8], b: &[u8]) -> u64;
    /// Writes the values as bytes; returns whether every one is an integer 0..=255 (otherwise the
    /// bytes mean nothing).
    #[inline]
    pub(crate) fn to_bytes(values: &[f32], bytes: &mut [u8]) -> bool;
    /// Σ(aᵢ − bᵢ)² in `f32` arithmetic: off by at most the share [`relative_error`] of the
    /// true value, and [`UNDERFLOW`] for each value. Infinite where `f32` overflows.
    #[inline]
    pub(crate) fn squared_euclidean_f32(a: &[f32], b: &[f32]) -> f32;
    /// Σ|aᵢ − bᵢ| in `f32` arithmetic: as [`squared_euclidean_f32`].
    #[inline]
    pub(crate) fn manhattan_f32(a: &[f32], b: &[f32]) -> f32;
    /// For each of `rows`, as long as `a`, the value of [`squared_euclidean_f32`], in `out`.
    pub(crate) fn squared_euclidean_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]);
    /// For each of `rows`, as long as `a`, the value of [`manhattan_f32`], in `out`.
    pub(crate) fn manhattan_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]);
}

dispatch! {
    /// Σ aᵢ·bᵢ, exact.
    #[inline]
    pub(crate) fn product_bytes(a: &[u8], b: &[u8]) -> u64 = portable::product_bytes;
}

/// Writes the distance of `a` and each row: what is common to both metrics and all levels.
#[inline(always)]
fn each_row(a: &[f32], rows: &[f32], out: &mut [f32], distance: impl Fn(&[f32], &[f32]) -> f32) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(a.len())) {
        *out = distance(a, row);
    }
}

/// The partial sums in which the `f32` kernels add. They are four AVX registers: an addition takes
/// four cycles, and one to another register can start in the meantime.
const LANES: usize = 32;

/// What an underflowing product can lose: a little more than the smallest positive `f32`, which is
/// 2⁻¹⁴⁹.
pub(crate) const UNDERFLOW: f64 = 1.5e-45;

/// Bound of the relative error of a sum of `dim` terms by the `f32` kernels of this module.
///
/// A term takes a subtraction and a square, the latter perhaps unrounded (FMA). It then goes
/// through ⌈dim/LANES⌉ additions of its lane and 5 that join the lanes: with u = 2⁻²⁴
/// each, at most n·u/(1 − n·u) in all (Higham, *Accuracy and Stability of Numerical
/// Algorithms*, 2nd ed., §3.1), all terms being of one sign.
pub(crate) fn relative_error(dim: usize) -> f64 {
    // A term counts three times: its difference is rounded once and squared, which doubles that
    // error, and the square is rounded. With the five that join the lanes this makes eight; ten is
    // safe.
    gamma(dim.div_ceil(LANES) + 10)
}

/// γₙ = n·u/(1 − n·u) for the unit roundoff u = 2⁻²⁴ of `f32`; infinite where it stops
/// making sense.
pub(crate) fn gamma(roundings: usize) -> f64 {
    // `f32::EPSILON` is 2⁻²³, the distance of 1 to the next float; half of it is u.
    let nu = roundings as f64 * f64::from(f32::EPSILON) / 2.0;
    if nu < 0.5 {
        nu / (1.0 - nu)
    } else {
        f64::INFINITY
    }
}

/// Bytes of a piece whose sum of squares fits in 32 bits without a sign: 255² · 2¹⁵ < 2³².
const PIECE: usize = 1 << 15;

mod portable {
    use super::{LANES, PIECE, each_row};
    use crate::simd::sum_in_lanes;

    pub fn squared_euclidean_bytes(a: &[u8], b: &[u8]) -> u64 {
        sum_in_pieces(a, b, |a, b| u32::from(a.abs_diff(b)).pow(2))
    }

    pub fn manhattan_bytes(a: &[u8], b: &[u8]) -> u64 {
        sum_in_pieces(a, b, |a, b| u32::from(a.abs_diff(b)))
    }

    #[inline(always)]
    pub fn product_bytes(a: &[u8], b: &[u8]) -> u64 {
        sum_in_pieces(a, b, |a, b| u32::from(a) * u32::from(b))
    }

    /// Adds up what `term`, at most 255², makes of each pair: in 32 bits within a piece, the
    /// pieces in 64.
    #[inline(always)]
    fn sum_in_pieces(a: &[u8], b: &[u8], term: impl Fn(u8, u8) -> u32) -> u64 {
        let mut total = 0;
        for (a, b) in a.chunks(PIECE).zip(b.chunks(PIECE)) {
            let terms = a.iter().zip(b).map(|(&a, &b)| term(a, b));
            total += u64::from(terms.sum::<u32>());
        }
        total
    }

    pub fn to_bytes(values: &[f32], bytes: &mut [u8]) -> bool {
        values.iter().zip(bytes).fold(true, |all, (&value, byte)| {
            // The cast saturates and sends NaN to 0: comparing back finds all that is not a byte.
            *byte = value as u8;
            all & (value == f32::from(*byte))
        })
    }

    pub fn squared_euclidean_f32(a: &[f32], b: &[f32]) -> f32 {
        sum_in_lanes::<LANES, _, _, _>(a, b, |sum, a: f32, b: f32| sum + (a - b) * (a - b))
    }

    pub fn manhattan_f32(a: &[f32], b: &[f32]) -> f32 {
        sum_in_lanes::<LANES, _, _, _>(a, b, |sum: f32, a: f32, b: f32| sum + (a - b).abs())
    }

    pub fn squared_euclidean_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]) {
        each_row(a, rows, out, squared_euclidean_f32);
    }

    pub fn manhattan_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]) {
        each_row(a, rows, out, manhattan_f32);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, PIECE, each_row, portable};

    /// Sum of the eight lanes, as unsigned numbers.
    #[target_feature(enable = "avx2")]
    fn sum_u32(v: __m256i) -> u64 {
        // The lanes of even number, widened to 64 bits, plus those of odd number.
        let low = _mm256_and_si256(v, _mm256_set1_epi64x(0xffff_ffff));
        sum_u64(_mm256_add_epi64(low, _mm256_srli_epi64::<32>(v)))
    }

    /// Sum of the four lanes.
    #[target_feature(enable = "avx2")]
    fn sum_u64(v: __m256i) -> u64 {
        let half = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        (_mm_cvtsi128_si64(half) + _mm_extract_epi64::<1>(half)) as u64
    }

    #[target_feature(enable = "avx2")]
    fn load32(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: an unaligned load of exactly the bytes that the reference covers.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn load16(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: an unaligned load of exactly the bytes that the reference covers.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// Pieces of whole registers of 32 bytes; then, in each, one of 16, and the last few bytes.
    #[target_feature(enable = "avx2")]
    pub fn squared_euclidean_bytes(a: &[u8], b: &[u8]) -> u64 {
        let zero = _mm256_setzero_si256();
        let mut total = 0;
        for (a, b) in a.chunks(PIECE).zip(b.chunks(PIECE)) {
            // Each line splits off what is whole, and leaves the rest under the same name: blocks
            // of 32 bytes, then at most one of 16, then up to 15 bytes.
            let ((wide_a, a), (wide_b, b)) = (a.as_chunks(), b.as_chunks());
            let ((half_a, a), (half_b, b)) = (a.as_chunks(), b.as_chunks());
            let (mut low, mut high) = (zero, zero);
            for (a, b) in wide_a.iter().zip(wide_b) {
                let (a, b) = (load32(a), load32(b));
                // |a − b| in bytes: subtractions saturate at zero, so one of the two is zero and
                // the other is the result. Unpacking with zeros widens to 16 bits. It takes the
                // bytes out of order, which does not matter to a sum.
                let difference = _mm256_or_si256(_mm256_subs_epu8(a, b), _mm256_subs_epu8(b, a));
                let low_words = _mm256_unpacklo_epi8(difference, zero);
                let high_words = _mm256_unpackhi_epi8(difference, zero);
                // Squares are added in pairs to 32 bits.
                low = _mm256_add_epi32(low, _mm256_madd_epi16(low_words, low_words));
                high = _mm256_add_epi32(high, _mm256_madd_epi16(high_words, high_words));
            }
            for (a, b) in half_a.iter().zip(half_b) {
                // Sixteen bytes fill a register once they are widened; differences may have a sign
                // here.
                let difference = _mm256_sub_epi16(
                    _mm256_cvtepu8_epi16(load16(a)),
                    _mm256_cvtepu8_epi16(load16(b)),
                );
                low = _mm256_add_epi32(low, _mm256_madd_epi16(difference, difference));
            }
            // The sum of all lanes fits in 32 bits for a piece, so no lane overflows either.
            total += sum_u32(_mm256_add_epi32(low, high)) + portable::squared_euclidean_bytes(a, b);
        }
        total
    }

    #[target_feature(enable = "avx2")]
    pub fn manhattan_bytes(a: &[u8], b: &[u8]) -> u64 {
        let ((wide_a, a), (wide_b, b)) = (a.as_chunks(), b.as_chunks());
        let ((half_a, a), (half_b, b)) = (a.as_chunks(), b.as_chunks());
        let mut sums = _mm256_setzero_si256();
        for (a, b) in wide_a.iter().zip(wide_b) {
            // One instruction: the absolute differences of eight bytes, added up in a lane of 64
            // bits.
            sums = _mm256_add_epi64(sums, _mm256_sad_epu8(load32(a), load32(b)));
        }
        for (a, b) in half_a.iter().zip(half_b) {
            sums = _mm256_add_epi64(
                sums,
                _mm256_zextsi128_si256(_mm_sad_epu8(load16(a), load16(b))),
            );
        }
        sum_u64(sums) + portable::manhattan_bytes(a, b)
    }

    /// Rounds to integers, packs them to bytes with saturation, and compares the bytes with the
    /// values: only those that are bytes come back equal.
    #[target_feature(enable = "avx2")]
    pub fn to_bytes(values: &[f32], bytes: &mut [u8]) -> bool {
        let ((wide, values), (wide_bytes, bytes)) =
            (values.as_chunks::<8>(), bytes.as_chunks_mut::<8>());
        let mut same = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
        for (values, bytes) in wide.iter().zip(wide_bytes) {
            let values = load8(values);
            // What has no integer of 32 bits, a NaN too, becomes the least one. Packing makes a
            // zero of it, which is not equal to the value.
            let whole = _mm256_cvtps_epi32(values);
            // Packing saturates twice, first to 0..=65,535. The second takes words as numbers with
            // a sign: from 32,768 on they become 0, not 255. Both are wrong, and so are found.
            let words = _mm_packus_epi32(
                _mm256_castsi256_si128(whole),
                _mm256_extracti128_si256::<1>(whole),
            );
            let eight = _mm_packus_epi16(words, words);
            *bytes = _mm_cvtsi128_si64(eight).to_le_bytes();
            let back = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
            same = _mm256_and_ps(same, _mm256_cmp_ps::<_CMP_EQ_OQ>(back, values));
        }
        // All lanes of all rounds were equal; and so are the last values, fewer than eight.
        _mm256_movemask_ps(same) == 0xff && portable::to_bytes(values, bytes)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn squared_euclidean_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]) {
        each_row(a, rows, out, |a, b| squared_euclidean_f32(a, b));
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn manhattan_f32_rows(a: &[f32], rows: &[f32], out: &mut [f32]) {
        each_row(a, rows, out, |a, b| manhattan_f32(a, b));
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn squared_euclidean_f32(a: &[f32], b: &[f32]) -> f32 {
        sum_f32(a, b, |sum, difference| {
            _mm256_fmadd_ps(difference, difference, sum)
        })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn manhattan_f32(a: &[f32], b: &[f32]) -> f32 {
        // −0.0 has the bit of the sign and no other. Clearing it gives the absolute value.
        let sign = _mm256_set1_ps(-0.0);
        sum_f32(a, b, |sum, difference| {
            _mm256_add_ps(sum, _mm256_andnot_ps(sign, difference))
        })
    }

    /// Adds what `add` makes of the differences, eight at a time in four sums by turns.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sum_f32(a: &[f32], b: &[f32], add: impl Fn(__m256, __m256) -> __m256) -> f32 {
        let (wide_a, a) = a.as_chunks::<LANES>();
        let (wide_b, b) = b.as_chunks::<LANES>();
        let mut sums = [_mm256_setzero_ps(); 4];
        // Each sum gets a register of every 32 values. The four do not wait for each other.
        for (a, b) in wide_a.iter().zip(wide_b) {
            let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
            for i in 0..4 {
                sums[i] = add(sums[i], _mm256_sub_ps(load8(&a[i]), load8(&b[i])));
            }
        }
        // Up to three registers remain and go to the first sums. Less than a register then goes to
        // the fourth, so that no lane gets more than ⌈dim/32⌉ additions, as `relative_error`
        // assumes.
        let ((eights_a, a), (eights_b, b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        for ((a, b), sum) in eights_a.iter().zip(eights_b).zip(&mut sums) {
            *sum = add(*sum, _mm256_sub_ps(load8(a), load8(b)));
        }
        let last = a.len().min(b.len());
        if last > 0 {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            // The first `last` lanes are set. Elsewhere both values are zero, and so is what they
            // add.
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(last as i32), lanes);
            // SAFETY: reads the first `last` values alone, which both slices have; the other lanes
            // become zero.
            let (a, b) = unsafe {
                (
                    _mm256_maskload_ps(a.as_ptr(), mask),
                    _mm256_maskload_ps(b.as_ptr(), mask),
                )
            };
            sums[3] = add(sums[3], _mm256_sub_ps(a, b));
        }
        // Five additions join 32 sums: two here, to eight, and three to fold those, half onto half.
        let sum = _mm256_add_ps(
            _mm256_add_ps(sums[0], sums[1]),
            _mm256_add_ps(sums[2], sums[3]),
        );
        let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }

    #[target_feature(enable = "avx2")]
    fn load8(values: &[f32; 8]) -> __m256 {
        // SAFETY: an unaligned load of exactly the values that the reference covers.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    pub use super::avx2::*;

    use super::PIECE;

    /// 64 bytes of both vectors.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(a: &[u8; 64], b: &[u8; 64]) -> [__m512i; 2] {
        // SAFETY: unaligned loads of exactly the bytes that the references cover.
        unsafe {
            [
                _mm512_loadu_si512(a.as_ptr().cast()),
                _mm512_loadu_si512(b.as_ptr().cast()),
            ]
        }
    }

    /// Fewer than 64 bytes of both, as many as the shorter has; zeros after them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load_rest(a: &[u8], b: &[u8]) -> [__m512i; 2] {
        let mask = (1 << a.len().min(b.len())) - 1;
        // SAFETY: reads the first bytes alone, as many as both slices have.
        unsafe {
            [
                _mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()),
                _mm512_maskz_loadu_epi8(mask, b.as_ptr().cast()),
            ]
        }
    }

    /// Σ d·(d − 128) and Σ d of |a − b|, in 16 lanes each.
    struct Sums {
        products: __m512i,
        differences: __m512i,
    }

    impl Sums {
        /// A difference d = |a − b| has eight bits and no sign. The instruction multiplies such a
        /// byte by one with a sign, which d is not, but d − 128 is: its bits are those of d with
        /// the first one turned. Then d² = d·(d − 128) + 128·d.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn add(&mut self, [a, b]: [__m512i; 2]) {
            let difference = _mm512_sub_epi8(_mm512_max_epu8(a, b), _mm512_min_epu8(a, b));
            let less = _mm512_xor_si512(difference, _mm512_set1_epi8(-128));
            let ones = _mm512_set1_epi8(1);
            self.products = _mm512_dpbusd_epi32(self.products, difference, less);
            self.differences = _mm512_dpbusd_epi32(self.differences, difference, ones);
        }
    }

    /// Pieces of whole registers of 64 bytes; then, in each, what is left.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn squared_euclidean_bytes(a: &[u8], b: &[u8]) -> u64 {
        let mut total = 0;
        for (a, b) in a.chunks(PIECE).zip(b.chunks(PIECE)) {
            let ((wide_a, a), (wide_b, b)) = (a.as_chunks(), b.as_chunks());
            let mut sums = Sums {
                products: _mm512_setzero_si512(),
                differences: _mm512_setzero_si512(),
            };
            for (a, b) in wide_a.iter().zip(wide_b) {
                sums.add(load(a, b));
            }
            if !a.is_empty() {
                sums.add(load_rest(a, b));
            }
            let squares = _mm512_add_epi32(sums.products, _mm512_slli_epi32::<7>(sums.differences));
            // The sum of all lanes fits in 32 bits without a sign for a piece.
            total += u64::from(_mm512_reduce_add_epi32(squares).cast_unsigned());
        }
        total
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn manhattan_bytes(a: &[u8], b: &[u8]) -> u64 {
        let ((wide_a, a), (wide_b, b)) = (a.as_chunks(), b.as_chunks());
        let mut sums = _mm512_setzero_si512();
        let mut add = |[a, b]: [__m512i; 2]| {
            // The absolute differences of eight bytes, added up in a lane of 64 bits.
            sums = _mm512_add_epi64(sums, _mm512_sad_epu8(a, b));
        };
        for (a, b) in wide_a.iter().zip(wide_b) {
            add(load(a, b));
        }
        if !a.is_empty() {
            add(load_rest(a, b));
        }
        _mm512_reduce_add_epi64(sums).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Finite floats of every magnitude, denormals and the largest included.
    fn any_float() -> impl Strategy<Value = f32> {
        prop_oneof![
            -1e3f32..1e3,
            any::<f32>().prop_filter("finite", |v| v.is_finite()),
            Just(f32::MAX),
            Just(f32::MIN_POSITIVE),
            Just(1e-45)
        ]
    }

    fn float_pairs(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(f32, f32)>> {
        prop::collection::vec((any_float(), any_float()), len)
    }

    /// Mostly what is no byte.
    fn no_byte() -> impl Strategy<Value = f32> {
        let special = [
            0.5,
            256.0,
            -1.0,
            65_536.0,
            1e30,
            -1e30,
            f32::NAN,
            f32::INFINITY,
        ];
        prop_oneof![
            any::<f32>(),
            -300.0f32..300.0,
            prop::sample::select(special.to_vec()),
        ]
    }

    /// That `approximate` is within the promised bound of the f64 sum.
    fn check(approximate: f32, exact: f64, dim: usize) -> Result<(), TestCaseError> {
        let slack = exact * relative_error(dim) + dim as f64 * UNDERFLOW;
        if approximate.is_infinite() {
            prop_assert!(exact + slack >= f64::from(f32::MAX), "{exact} overflowed");
        } else {
            prop_assert!(
                (f64::from(approximate) - exact).abs() <= slack,
                "{approximate} {exact} {slack}"
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn bytes_are_exact(pairs in prop::collection::vec(any::<(u8, u8)>(), 0..300)) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.iter().copied().unzip();
            let (mut squared, mut absolute, mut product) = (0, 0, 0);
            for &(a, b) in &pairs {
                let difference = (i64::from(a) - i64::from(b)).unsigned_abs();
                squared += difference * difference;
                absolute += difference;
                product += u64::from(a) * u64::from(b);
            }
            prop_assert_eq!(product_bytes(&a, &b), product);
            prop_assert_eq!(portable::product_bytes(&a, &b), product);
            prop_assert_eq!(squared_euclidean_bytes(&a, &b), squared);
            prop_assert_eq!(portable::squared_euclidean_bytes(&a, &b), squared);
            prop_assert_eq!(manhattan_bytes(&a, &b), absolute);
            prop_assert_eq!(portable::manhattan_bytes(&a, &b), absolute);
        }

        #[test]
        fn only_bytes_become_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            others in prop::collection::vec((0usize..60, no_byte()), 0..2),
        ) {
            let mut values: Vec<f32> = bytes.iter().map(|&byte| byte.into()).collect();
            for &(at, other) in others.iter().filter(|(at, _)| *at < bytes.len()) {
                values[at] = other;
            }
            let is_byte = |value: &f32| (0.0..=255.0).contains(value) && value.fract() == 0.0;
            let expected = values.iter().all(is_byte);
            for to_bytes in [to_bytes, portable::to_bytes] {
                let mut found = vec![7; values.len()];
                prop_assert_eq!(to_bytes(&values, &mut found), expected);
                if expected {
                    let back: Vec<f32> = found.iter().map(|&byte| byte.into()).collect();
                    prop_assert_eq!(&back, &values);
                }
            }
        }

        #[test]
        fn floats_are_within_their_bound(pairs in float_pairs(0..300)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let (mut squared, mut absolute) = (0.0, 0.0);
            for &(a, b) in &pairs {
                let difference = f64::from(a) - f64::from(b);
                squared += difference * difference;
                absolute += difference.abs();
            }
            check(squared_euclidean_f32(&a, &b), squared, pairs.len())?;
            check(portable::squared_euclidean_f32(&a, &b), squared, pairs.len())?;
            check(manhattan_f32(&a, &b), absolute, pairs.len())?;
            check(portable::manhattan_f32(&a, &b), absolute, pairs.len())?;
        }

        #[test]
        fn many_rows_are_as_one_and_one(pairs in float_pairs(1..80)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let rows = [&*b, &*a, &*b].concat();
            let mut out = [7.0; 3];
            squared_euclidean_f32_rows(&a, &rows, &mut out);
            prop_assert_eq!(out, [&b, &a, &b].map(|row| squared_euclidean_f32(&a, row)));
            manhattan_f32_rows(&a, &rows, &mut out);
            prop_assert_eq!(out, [&b, &a, &b].map(|row| manhattan_f32(&a, row)));
            portable::squared_euclidean_f32_rows(&a, &rows, &mut out);
            prop_assert_eq!(out, [&b, &a, &b].map(|row| portable::squared_euclidean_f32(&a, row)));
            portable::manhattan_f32_rows(&a, &rows, &mut out);
            prop_assert_eq!(out, [&b, &a, &b].map(|row| portable::manhattan_f32(&a, row)));
        }
    }

    #[test]
    fn long_rows_do_not_overflow() {
        let (black, white) = (vec![0u8; 100_001], vec![255u8; 100_001]);
        for sum in [
            squared_euclidean_bytes(&black, &white),
            portable::squared_euclidean_bytes(&black, &white),
        ] {
            assert_eq!(sum, 65_025 * 100_001);
        }
        for sum in [
            manhattan_bytes(&black, &white),
            portable::manhattan_bytes(&black, &white),
        ] {
            assert_eq!(sum, 255 * 100_001);
        }
    }
}
