//! Codes of the quantised graph: coordinates of seven bits in whole cache lines, and in the last
//! four bytes, the *tail*, a number of their own. What these kernels give guides a search; it is
//! never returned.
//!
//! The naive form:
//!
//! ```text
//! distance(q, c) = Σ (qᵢ − cᵢ)² + rest of q + rest of c
//! ```
//!
//! where a *rest* is the squared length of what a code leaves out of its vector. A square of a
//! difference takes three instructions for 16 coordinates; a product takes one for 32, if the
//! bytes of one side have no sign and those of the other have one. So the square is multiplied out,
//! and what belongs to one side alone is computed once:
//!
//! ```text
//! ‖q − c‖² = ‖q‖² + (‖c‖² − 128·Σcᵢ) − 2·Σ(qᵢ − 64)·cᵢ
//!            query   tail of the code      the product
//!
//! code of LINES = 2:     | 64 coordinates | 60 coordinates, tail |       each a cache line
//! query, shifted by 64:  | 64 coordinates | 60 coordinates, 0000 |
//! ```
//!
//! What can go wrong is overflow. Coordinates are 0..=127 and shifted ones −64..=63, so that four
//! products fit in 16 bits: 4 · 127 · 64 < 2¹⁵. A line adds at most 64 · 127² ≈ 2²⁰ to
//! a distance, and a rest at most 10⁹: sums fit in 31 bits for as many lines as a vector could
//! want.

/// A cache line of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct CodeLine(pub [u8; 64]);

impl Default for CodeLine {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Bytes of the tail.
pub(crate) const TAIL: usize = 4;

/// Largest value of a coordinate.
pub(crate) const LARGEST: u8 = 127;

/// Half the range of a coordinate: what a [`Query`] is shifted by, so that it has a sign and
/// products of bytes can be taken.
const SHIFT: i32 = 64;

/// The number in a code's tail.
#[inline(always)]
fn tail(code: &[CodeLine]) -> i32 {
    let last = &code[code.len() - 1].0;
    i32::from_le_bytes(*last.last_chunk().expect("a line is longer"))
}

/// The coordinates of a code: all but the tail.
fn coordinates(code: &[CodeLine]) -> impl Iterator<Item = i32> {
    code.iter()
        .flat_map(|line| line.0)
        .take(64 * code.len() - TAIL)
        .map(i32::from)
}

/// Writes the tail of a code c whose coordinates are there: ‖c‖² − 128·Σc + `rest`, the
/// squared length of what the code leaves out.
pub(crate) fn finish(code: &mut [CodeLine], rest: u32) {
    // ‖c‖² − 128·Σc, term by term: c² − 128·c = c·(c − 128).
    let own: i32 = coordinates(code)
        .map(|value| value * (value - 2 * SHIFT))
        .sum();
    let last = &mut code[code.len() - 1].0;
    *last.last_chunk_mut().expect("a line is longer") = (own + rest as i32).to_le_bytes();
}

/// A code in the form in which others are compared with it, by one product a coordinate:
/// ‖q − c‖² = ‖q‖² + (‖c‖² − 128·Σc) − 2·(q − 64)·c.
#[derive(Debug)]
pub(crate) struct Query<const LINES: usize> {
    /// q − 64 in two's complement; the tail is zero.
    shifted: [CodeLine; LINES],
    /// ‖q‖² and the squared length of what q leaves out.
    squares: i32,
}

impl<const LINES: usize> Query<LINES> {
    /// Of a code with its tail.
    pub(crate) fn new(code: &[CodeLine; LINES]) -> Self {
        // 0..=127 becomes −64..=63 in two's complement: a negative result wraps.
        let mut shifted =
            code.map(|line| CodeLine(line.0.map(|value| value.wrapping_sub(SHIFT as u8))));
        // The tail has to be zero. The product runs over whole lines, and so multiplies the tail of
        // the other code too.
        shifted[LINES - 1].0[64 - TAIL..].fill(0);
        Self {
            shifted,
            // The tail is ‖c‖² − 128·Σc + rest. Adding 128·Σc leaves ‖c‖² + rest.
            squares: tail(code) + 2 * SHIFT * coordinates(code).sum::<i32>(),
        }
    }

    /// The squared distance to `code`, both rests included.
    #[inline(always)]
    fn distance(
        &self,
        code: &[CodeLine; LINES],
        product: impl FnOnce(&[CodeLine; LINES], &[CodeLine; LINES]) -> i32,
    ) -> u32 {
        // A sum of squares and of rests: never negative, so the cast changes nothing.
        (self.squares + tail(code) - 2 * product(code, &self.shifted)) as u32
    }
}

/// Appends the squared distance of each code of `run` to `query`, with what both leave out.
pub(crate) fn scan<const LINES: usize>(
    query: &Query<LINES>,
    run: &[[CodeLine; LINES]],
    distances: &mut Vec<u32>,
) {
    let start = distances.len();
    distances.resize(start + run.len(), 0);
    scan_into(query, run, &mut distances[start..]);
}

/// The same for the codes numbered `ids`, in place of what `distances` held.
///
/// # Panics
/// If there is no such code.
pub(crate) fn score<const LINES: usize>(
    query: &Query<LINES>,
    codes: &[[CodeLine; LINES]],
    ids: &[u32],
    distances: &mut Vec<u32>,
) {
    distances.resize(ids.len(), 0);
    score_into(query, codes, ids, distances);
}

/// A vector times a matrix, in whole numbers: adds to `sums` the values 2i and 2i + 1 times their
/// coefficients in row i of `pairs`. In a row the coefficients of the two values alternate. The
/// number of sums is a multiple of 64. Where both values are zero, as black pixels are, the AVX2
/// form does not read their row.
///
/// ```text
/// sums[j] += values[2i] · pairs[i][2j] + values[2i + 1] · pairs[i][2j + 1]
/// ```
///
/// Sums fit in 31 bits for up to 4,096 values of at most [`MOST_WHOLE`], if a column of
/// coefficients is a unit vector times 2¹⁴: by Cauchy and Schwarz they are at most
/// √4,096 · 2,047 · 2¹⁴ < 2³¹.
///
/// # Panics
/// If `sums` are no multiple of 64, or `pairs` have not a row for each two values.
pub(crate) fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
    assert!(
        sums.len().is_multiple_of(64) && pairs.len() == values.len() * sums.len(),
        "a row of pairs for each two values"
    );
    add_checked_pairs(sums, pairs, values);
}

/// Writes `values` as whole multiples of a unit and returns it: one, if they are whole numbers of
/// no more than [`MOST_WHOLE`] (so that pixels stay exact), otherwise what the largest calls for.
pub(crate) fn to_whole(values: &[f32], whole: &mut Vec<i16>) -> f32 {
    whole.resize(values.len(), 0);
    to_whole_into(values, whole)
}

dispatch! {
    /// [`scan`] into as many distances as there are codes.
    fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    );
    /// [`score`] into as many distances as there are ids.
    fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    );
    /// [`add_weighted_pairs`] of what has been checked.
    fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]);
    /// [`to_whole`] into as many numbers as there are values.
    fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32;
}

/// Largest size of a number that [`to_whole`] writes: 11 bits and a sign.
pub(crate) const MOST_WHOLE: f32 = 2_047.0;

/// The unit of [`to_whole`], and its inverse. Numbers may be so small that the inverse overflows;
/// then it is zero, and so is what is made of them.
fn unit(largest: f32, exact: bool) -> (f32, f32) {
    let unit = if exact && largest <= MOST_WHOLE {
        1.0
    } else {
        largest / MOST_WHOLE
    };
    let per_unit = unit.recip();
    (unit, if per_unit.is_finite() { per_unit } else { 0.0 })
}

mod portable {
    use super::{CodeLine, Query, unit};

    fn product<const LINES: usize>(code: &[CodeLine; LINES], query: &[CodeLine; LINES]) -> i32 {
        let mut sum = 0;
        for (code, query) in code.iter().zip(query) {
            for (&code, &query) in code.0.iter().zip(&query.0) {
                sum += i32::from(code) * i32::from(query.cast_signed());
            }
        }
        sum
    }

    pub fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    ) {
        for (distance, code) in distances.iter_mut().zip(run) {
            *distance = query.distance(code, product);
        }
    }

    pub fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            *distance = query.distance(&codes[id as usize], product);
        }
    }

    pub fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        for (row, values) in pairs
            .chunks_exact(2 * sums.len())
            .zip(values.as_chunks::<2>().0)
        {
            for (sum, pair) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
                *sum += i32::from(pair[0]) * i32::from(values[0])
                    + i32::from(pair[1]) * i32::from(values[1]);
            }
        }
    }

    #[inline(always)]
    pub fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32 {
        // Floats without a sign are in the same order as their bits. So the largest is found among
        // integers, which the compiler does in SIMD. It does not so with `f32::max`, which takes
        // care of NaN.
        let (mut largest, mut exact) = (0, true);
        for &value in values {
            largest = value.abs().to_bits().max(largest);
            // The cast cuts off fractions. Numbers too large for i32 are too large for the unit 1
            // anyway.
            exact &= (value as i32) as f32 == value;
        }
        let (unit, per_unit) = unit(f32::from_bits(largest), exact);
        round(values, per_unit, whole);
        unit
    }

    #[inline(always)]
    pub fn round(values: &[f32], per_unit: f32, whole: &mut [i16]) {
        for (whole, &value) in whole.iter_mut().zip(values) {
            // To the nearest, of two equally near to the even one: as the AVX2 instruction does.
            *whole = (value * per_unit).round_ties_even() as i32 as i16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{CodeLine, Query, portable, unit};

    /// Half a line.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(line: &CodeLine, half: usize) -> __m256i {
        let bytes = &line.0.as_chunks::<32>().0[half];
        // SAFETY: exactly the bytes that the reference covers; half a line is aligned to 32.
        unsafe { _mm256_load_si256(bytes.as_ptr().cast()) }
    }

    /// Σ codeᵢ·queryᵢ, of coordinates 0..=127 and −64..=63. The query's tail is zero.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn product<const LINES: usize>(code: &[CodeLine; LINES], query: &[CodeLine; LINES]) -> i32 {
        let mut sums = _mm256_setzero_si256();
        for (code, query) in code.iter().zip(query) {
            // Each lane of 16 bits gets two products from either half of the line. Four fit: they
            // are at most 4 · 127 · 64 < 2¹⁵ in size. The instruction takes its first operand
            // without a sign, so the code comes first.
            let half = |half| _mm256_maddubs_epi16(load(code, half), load(query, half));
            let products = _mm256_add_epi16(half(0), half(1));
            // Multiplying by one adds pairs of lanes in 32 bits.
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
        }
        // The eight sums are folded, half onto half, until one is left.
        let sums = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums)))
    }

    #[target_feature(enable = "avx2")]
    pub fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    ) {
        for (distance, code) in distances.iter_mut().zip(run) {
            *distance = query.distance(code, |code, query| product(code, query));
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            *distance = query.distance(&codes[id as usize], |code, query| product(code, query));
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        // Rows are `stride` coefficients, two for each sum. 64 sums are eight registers. They stay
        // there while their columns of all rows pass by, and are written once.
        let stride = 2 * sums.len();
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let mut local = [_mm256_setzero_si256(); 8];
            for (row, values) in pairs.chunks_exact(stride).zip(values.as_chunks::<2>().0) {
                // Both values as one number of 32 bits, the first in the low half, as the
                // coefficients lie in memory.
                let both = (values[0] as u16 as u32 | (values[1] as u16 as u32) << 16) as i32;
                if both != 0 {
                    let both = _mm256_set1_epi32(both);
                    let row = &row[128 * block..][..128];
                    for (part, local) in local.iter_mut().enumerate() {
                        // SAFETY: the row's 128 coefficients are eight registers.
                        let coefficients =
                            unsafe { _mm256_loadu_si256(row.as_ptr().cast::<__m256i>().add(part)) };
                        // Eight sums get two products each.
                        *local = _mm256_add_epi32(*local, _mm256_madd_epi16(coefficients, both));
                    }
                }
            }
            for (part, local) in local.into_iter().enumerate() {
                // SAFETY: 64 sums are eight registers.
                unsafe {
                    let at = sums.as_mut_ptr().cast::<__m256i>().add(part);
                    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), local));
                }
            }
        }
    }

    /// Whole numbers as they are; where there are others or larger ones, a second pass in the unit
    /// that the first one found.
    #[target_feature(enable = "avx2")]
    pub fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32 {
        let (wide, rest) = values.as_chunks::<16>();
        let (wide_whole, rest_whole) = whole.as_chunks_mut::<16>();
        let all_ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
        let without_sign = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
        // `exact` keeps its bits as long as every number of its lane was whole.
        let (mut largest, mut exact) = (_mm256_setzero_ps(), all_ones);
        for (values, whole) in wide.iter().zip(&mut *wide_whole) {
            let halves = load_floats(values);
            let rounded = halves.map(|half| _mm256_cvtps_epi32(half));
            for i in 0..2 {
                largest = _mm256_max_ps(largest, _mm256_and_ps(halves[i], without_sign));
                let back = _mm256_cvtepi32_ps(rounded[i]);
                exact = _mm256_and_ps(exact, _mm256_cmp_ps::<_CMP_EQ_OQ>(back, halves[i]));
            }
            // If the unit turns out to be one, this is the result already.
            store_words(rounded, whole);
        }
        // The lanes are joined, and up to fifteen values that fill no register are looked at.
        let mut largest = lanes(largest).into_iter().fold(0.0, f32::max);
        let mut exact = _mm256_movemask_ps(exact) == 0xff;
        for &value in rest {
            largest = largest.max(value.abs());
            exact &= (value as i32) as f32 == value;
        }
        let (unit, per_unit) = unit(largest, exact);
        if unit != 1.0 {
            let per_unit = _mm256_set1_ps(per_unit);
            for (values, whole) in wide.iter().zip(wide_whole) {
                let scaled = load_floats(values).map(|half| _mm256_mul_ps(half, per_unit));
                store_words(scaled.map(|half| _mm256_cvtps_epi32(half)), whole);
            }
        }
        // The values that fill no register were only looked at so far.
        portable::round(rest, per_unit, rest_whole);
        unit
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_floats(values: &[f32; 16]) -> [__m256; 2] {
        let start = values.as_ptr();
        // SAFETY: sixteen floats are two registers, unaligned.
        unsafe { [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))] }
    }

    /// Writes integers of 32 bits as 16, those that do not fit as the nearest that do.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_words(integers: [__m256i; 2], words: &mut [i16; 16]) {
        // Packing works within halves of a register: quarters of the first and of the second
        // register come by turns. The permutation 0, 2, 1, 3 puts those of the first together.
        let packed = _mm256_packs_epi32(integers[0], integers[1]);
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        // SAFETY: sixteen 16-bit numbers are a register, unaligned.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), packed) };
    }

    #[target_feature(enable = "avx2")]
    fn lanes(values: __m256) -> [f32; 8] {
        // SAFETY: eight floats, any bits of which are valid.
        unsafe { std::mem::transmute(values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Codes of any coordinates, the extreme ones among them, and the squared lengths of what they
    /// leave out.
    fn codes(count: usize) -> impl Strategy<Value = Vec<([CodeLine; 2], u32)>> {
        let values = prop_oneof![
            prop::collection::vec(0..=LARGEST, 128 - TAIL),
            prop::collection::vec(prop_oneof![Just(0), Just(LARGEST)], 128 - TAIL),
        ];
        let code = (values, 0..1_000_000_000u32).prop_map(|(values, rest)| {
            let mut code = [CodeLine::default(); 2];
            code.iter_mut()
                .zip(values.chunks(64))
                .for_each(|(line, values)| line.0[..values.len()].copy_from_slice(values));
            finish(&mut code, rest);
            (code, rest)
        });
        prop::collection::vec(code, count)
    }

    /// The definition.
    fn distance(a: &([CodeLine; 2], u32), b: &([CodeLine; 2], u32)) -> u32 {
        let values = |code: &[CodeLine; 2]| code.map(|line| line.0.map(i32::from)).concat();
        let squares: i32 = values(&a.0)
            .iter()
            .zip(values(&b.0))
            .take(128 - TAIL)
            .map(|(a, b)| (a - b).pow(2))
            .sum();
        squares as u32 + a.1 + b.1
    }

    proptest! {
        #[test]
        fn distances_are_those_of_the_definition(all in codes(9)) {
            let expected: Vec<u32> = all.iter().map(|other| distance(&all[0], other)).collect();
            let codes: Vec<_> = all.iter().map(|code| code.0).collect();
            let query = Query::new(&codes[0]);
            let (mut scanned, mut scored) = (vec![5], vec![7; 20]);
            scan(&query, &codes, &mut scanned);
            prop_assert_eq!(&scanned[1..], &expected[..]);
            score(&query, &codes, &[8, 0, 3], &mut scored);
            prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
            portable::scan_into(&query, &codes, &mut scanned[1..]);
            prop_assert_eq!(&scanned[1..], &expected[..]);
            portable::score_into(&query, &codes, &[8, 0, 3], &mut scored);
            prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
        }

        #[test]
        fn weighted_pairs_are_a_matrix_product(
            values in prop::collection::vec(prop_oneof![Just(0i16), -2_047..2_047i16], 6),
            pairs in prop::collection::vec(any::<i16>(), 6 * 128),
        ) {
            let expected: Vec<i32> = (0..128)
                .map(|column| {
                    let pair = |i: usize| pairs[(i / 2 * 128 + column) * 2 + i % 2];
                    1 + (0..6).map(|i| i32::from(values[i]) * i32::from(pair(i))).sum::<i32>()
                })
                .collect();
            let (mut sums, mut portable) = (vec![1; 128], vec![1; 128]);
            add_weighted_pairs(&mut sums, &pairs, &values);
            portable::add_checked_pairs(&mut portable, &pairs, &values);
            prop_assert_eq!(&sums, &expected);
            prop_assert_eq!(&portable, &expected);
        }

        #[test]
        fn whole_numbers_are_near_and_pixels_are_exact(
            values in prop::collection::vec(-1e9f32..1e9, 1..50),
            pixels: Vec<u8>,
        ) {
            let portable = |values: &[f32], whole: &mut Vec<i16>| {
                whole.resize(values.len(), 0);
                portable::to_whole_into(values, whole)
            };
            for form in [to_whole, portable] {
                let mut whole = Vec::new();
                let unit = form(&values, &mut whole);
                for (&whole, value) in whole.iter().zip(&values) {
                    prop_assert!((f32::from(whole) * unit - value).abs() <= 0.501 * unit);
                }
                let pixels: Vec<f32> = pixels.iter().map(|&value| value.into()).collect();
                prop_assert_eq!(form(&pixels, &mut whole), 1.0);
                let back: Vec<f32> = whole.iter().map(|&whole| whole.into()).collect();
                prop_assert_eq!(back, pixels);
            }
        }
    }

    #[test]
    fn numbers_too_small_to_divide_by_become_zero() {
        let mut whole = Vec::new();
        to_whole(&[1e-44, 0.0], &mut whole);
        assert_eq!(whole, [0, 0]);
    }
}
