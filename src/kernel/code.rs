//! Codes of the quantised graph: coordinates of seven bits in whole cache lines, and in the last two bytes, the *tail*, a number of
//! their own. What these kernels give guides a search; it is never returned.

/// A cache line of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Line(pub [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Bytes of the tail.
pub(crate) const TAIL: usize = 2;

/// The number in a code's tail.
#[inline(always)]
pub(crate) fn tail(code: &[Line]) -> u32 {
    let bytes = &code[code.len() - 1].0[64 - TAIL..];
    u32::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Appends, for each code of `run`, its squared distance to `code` plus its tail.
pub(crate) fn scan<const LINES: usize>(code: &[Line; LINES], run: &[[Line; LINES]], distances: &mut Vec<u32>) {
    let start = distances.len();
    distances.resize(start + run.len(), 0);
    let distances = &mut distances[start..];
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: AVX2 has just been found.
        return unsafe { avx2::scan(code, run, distances) };
    }
    portable::scan(code, run, distances);
}

/// The same for the codes numbered `ids`, in place of what `distances` held.
///
/// # Panics
/// If there is no such code.
pub(crate) fn score<const LINES: usize>(
    code: &[Line; LINES],
    codes: &[[Line; LINES]],
    ids: &[u32],
    distances: &mut Vec<u32>,
) {
    distances.resize(ids.len(), 0);
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: AVX2 has just been found.
        return unsafe { avx2::score(code, codes, ids, distances) };
    }
    portable::score(code, codes, ids, distances);
}

/// Adds to `sums` the values 2i and 2i + 1 times their coefficients in row i of `pairs`, where the two's coefficients alternate.
/// `sums` are a multiple of 64; rows of two zeros are not read.
pub(crate) fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
    assert!(
        sums.len().is_multiple_of(64) && pairs.len() == values.len() * sums.len(),
        "a row of pairs for each two values"
    );
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: AVX2 has just been found.
        return unsafe { avx2::add_weighted_pairs(sums, pairs, values) };
    }
    portable::add_weighted_pairs(sums, pairs, values);
}

/// Largest size of a number that [`to_whole`] writes.
pub(crate) const MOST_WHOLE: f32 = 2_047.0;

/// Writes `values` as whole multiples of a unit and returns it: one, if they are whole numbers of no more than
/// [`MOST_WHOLE`] (so that pixels stay exact), otherwise what the largest calls for.
pub(crate) fn to_whole(values: &[f32], whole: &mut Vec<i16>) -> f32 {
    whole.resize(values.len(), 0);
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: AVX2 has just been found.
        return unsafe { avx2::to_whole(values, whole) };
    }
    portable::to_whole(values, whole)
}

/// The unit of [`to_whole`], and its inverse: zero for numbers so small that it overflows.
fn unit(largest: f32, exact: bool) -> (f32, f32) {
    let unit = if exact && largest <= MOST_WHOLE { 1.0 } else { largest / MOST_WHOLE };
    (unit, if unit.recip().is_finite() { unit.recip() } else { 0.0 })
}

mod portable {
    use super::{Line, TAIL, tail, unit};

    fn squared_distance<const LINES: usize>(a: &[Line; LINES], b: &[Line; LINES]) -> u32 {
        let mut sum = 0;
        for line in 0..LINES {
            let count = if line + 1 == LINES { 64 - TAIL } else { 64 };
            sum +=
                a[line].0[..count].iter().zip(&b[line].0).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum::<u32>();
        }
        sum
    }

    pub fn scan<const LINES: usize>(code: &[Line; LINES], run: &[[Line; LINES]], distances: &mut [u32]) {
        for (distance, other) in distances.iter_mut().zip(run) {
            *distance = squared_distance(code, other) + tail(other);
        }
    }

    pub fn score<const LINES: usize>(
        code: &[Line; LINES],
        codes: &[[Line; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            let other = &codes[id as usize];
            *distance = squared_distance(code, other) + tail(other);
        }
    }

    pub fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        for (row, values) in pairs.chunks_exact(2 * sums.len()).zip(values.as_chunks::<2>().0) {
            for (sum, pair) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
                *sum += i32::from(pair[0]) * i32::from(values[0]) + i32::from(pair[1]) * i32::from(values[1]);
            }
        }
    }

    #[inline(always)]
    pub fn to_whole(values: &[f32], whole: &mut [i16]) -> f32 {
        // Sizes are ordered as their bits are; and the maximum of integers is SIMD, where that of floats is not.
        let (mut largest, mut exact) = (0, true);
        for &value in values {
            largest = value.abs().to_bits().max(largest);
            exact &= (value as i32) as f32 == value;
        }
        let (unit, per_unit) = unit(f32::from_bits(largest), exact);
        round(values, per_unit, whole);
        unit
    }

    #[inline(always)]
    pub fn round(values: &[f32], per_unit: f32, whole: &mut [i16]) {
        for (whole, &value) in whole.iter_mut().zip(values) {
            *whole = (value * per_unit).round_ties_even() as i32 as i16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Line, portable, tail, unit};

    #[inline]
    #[target_feature(enable = "avx2")]
    fn squared_distance<const LINES: usize>(a: &[Line; LINES], b: &[Line; LINES]) -> u32 {
        let (a, b) = (a.as_ptr().cast::<__m256i>(), b.as_ptr().cast::<__m256i>());
        let mut sums = _mm256_setzero_si256();
        for half in 0..2 * LINES {
            // SAFETY: a line is two registers, and aligned to them.
            let (a, b) = unsafe { (_mm256_load_si256(a.add(half)), _mm256_load_si256(b.add(half))) };
            let mut difference = _mm256_or_si256(_mm256_subs_epu8(a, b), _mm256_subs_epu8(b, a));
            if half + 1 == 2 * LINES {
                difference = _mm256_and_si256(difference, _mm256_set_epi64x(0x0000_ffff_ffff_ffff, -1, -1, -1));
            }
            // Two squares of at most 127² fit in 16 bits, sign and all.
            let squares = _mm256_maddubs_epi16(difference, difference);
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(squares, _mm256_set1_epi16(1)));
        }
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums))) as u32
    }

    #[target_feature(enable = "avx2")]
    pub fn scan<const LINES: usize>(code: &[Line; LINES], run: &[[Line; LINES]], distances: &mut [u32]) {
        for (distance, other) in distances.iter_mut().zip(run) {
            *distance = squared_distance(code, other) + tail(other);
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn score<const LINES: usize>(
        code: &[Line; LINES],
        codes: &[[Line; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            let other = &codes[id as usize];
            *distance = squared_distance(code, other) + tail(other);
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        let stride = 2 * sums.len();
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let mut local = [_mm256_setzero_si256(); 8];
            for (row, values) in pairs.chunks_exact(stride).zip(values.as_chunks::<2>().0) {
                let both = (values[0] as u16 as u32 | (values[1] as u16 as u32) << 16) as i32;
                if both != 0 {
                    let both = _mm256_set1_epi32(both);
                    let row = &row[128 * block..][..128];
                    for (part, local) in local.iter_mut().enumerate() {
                        // SAFETY: the row's 128 coefficients are eight registers.
                        let coefficients = unsafe { _mm256_loadu_si256(row.as_ptr().cast::<__m256i>().add(part)) };
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

    /// Whole numbers as they are, or, where there are others or larger ones, in a second pass.
    #[target_feature(enable = "avx2")]
    pub fn to_whole(values: &[f32], whole: &mut [i16]) -> f32 {
        let (wide, rest) = values.as_chunks::<16>();
        let (wide_whole, rest_whole) = whole.as_chunks_mut::<16>();
        let size = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
        let (mut largest, mut exact) = (_mm256_setzero_ps(), _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
        for (values, whole) in wide.iter().zip(&mut *wide_whole) {
            // SAFETY: sixteen floats are two registers.
            let halves = unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] };
            let rounded = halves.map(|half| _mm256_cvtps_epi32(half));
            for i in 0..2 {
                largest = _mm256_max_ps(largest, _mm256_and_ps(halves[i], size));
                exact = _mm256_and_ps(exact, _mm256_cmp_ps::<_CMP_EQ_OQ>(_mm256_cvtepi32_ps(rounded[i]), halves[i]));
            }
            // Packing goes by halves of the registers.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(rounded[0], rounded[1]));
            // SAFETY: sixteen 16-bit numbers are a register.
            unsafe { _mm256_storeu_si256(whole.as_mut_ptr().cast(), packed) };
        }
        let (sizes, exact) = (lanes(largest), _mm256_movemask_ps(exact) == 0xff);
        let largest = sizes.into_iter().chain(rest.iter().map(|value| value.abs())).fold(0.0, f32::max);
        let (unit, per_unit) = unit(largest, exact && rest.iter().all(|&value| (value as i32) as f32 == value));
        if unit != 1.0 {
            let per_unit = _mm256_set1_ps(per_unit);
            for (values, whole) in wide.iter().zip(wide_whole) {
                // SAFETY: as above.
                let halves = unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] };
                let rounded = halves.map(|half| _mm256_cvtps_epi32(_mm256_mul_ps(half, per_unit)));
                let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(rounded[0], rounded[1]));
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(whole.as_mut_ptr().cast(), packed) };
            }
        }
        portable::round(rest, per_unit, rest_whole);
        unit
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

    fn codes(count: usize) -> impl Strategy<Value = Vec<[Line; 2]>> {
        let line = |last| {
            (prop::collection::vec(0..=127u8, 64), any::<[u8; TAIL]>()).prop_map(move |(values, tail)| {
                let mut line = Line(values.try_into().expect("64 values"));
                if last {
                    line.0[64 - TAIL..].copy_from_slice(&tail);
                }
                line
            })
        };
        prop::collection::vec((line(false), line(true)).prop_map(|(a, b)| [a, b]), count)
    }

    /// The definition.
    fn distance(a: &[Line; 2], b: &[Line; 2]) -> u32 {
        let values = |code: &[Line; 2]| code.map(|line| line.0.map(i32::from)).concat();
        let squares: i32 = values(a).iter().zip(values(b)).take(128 - TAIL).map(|(a, b)| (a - b).pow(2)).sum();
        squares as u32 + u32::from(u16::from_le_bytes([b[1].0[62], b[1].0[63]]))
    }

    proptest! {
        #[test]
        fn distances_are_those_of_the_definition(codes in codes(9)) {
            let expected: Vec<u32> = codes.iter().map(|other| distance(&codes[0], other)).collect();
            let (mut scanned, mut scored) = (vec![5], vec![7; 20]);
            scan(&codes[0], &codes, &mut scanned);
            prop_assert_eq!(&scanned[1..], &expected[..]);
            score(&codes[0], &codes, &[8, 0, 3], &mut scored);
            prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
            portable::scan(&codes[0], &codes, &mut scanned[1..]);
            prop_assert_eq!(&scanned[1..], &expected[..]);
            portable::score(&codes[0], &codes, &[8, 0, 3], &mut scored);
            prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
        }

        #[test]
        fn weighted_pairs_are_a_matrix_product(
            values in prop::collection::vec(prop_oneof![Just(0i16), -2_047..2_047i16], 6),
            pairs in prop::collection::vec(any::<i16>(), 6 * 128),
        ) {
            let expected: Vec<i32> = (0..128)
                .map(|column| {
                    let term = |i: usize| i32::from(values[i]) * i32::from(pairs[(i / 2 * 128 + column) * 2 + i % 2]);
                    1 + (0..6).map(term).sum::<i32>()
                })
                .collect();
            let (mut sums, mut portable) = (vec![1; 128], vec![1; 128]);
            add_weighted_pairs(&mut sums, &pairs, &values);
            portable::add_weighted_pairs(&mut portable, &pairs, &values);
            prop_assert_eq!(&sums, &expected);
            prop_assert_eq!(&portable, &expected);
        }

        #[test]
        fn whole_numbers_are_near_and_pixels_are_exact(values in prop::collection::vec(-1e9f32..1e9, 1..50), pixels: Vec<u8>) {
            let mut whole = Vec::new();
            let unit = to_whole(&values, &mut whole);
            for (&whole, value) in whole.iter().zip(&values) {
                prop_assert!((f32::from(whole) * unit - value).abs() <= 0.501 * unit);
            }
            let pixels: Vec<f32> = pixels.iter().map(|&value| value.into()).collect();
            prop_assert_eq!(to_whole(&pixels, &mut whole), 1.0);
            prop_assert!(whole.iter().zip(&pixels).all(|(&whole, &value)| f32::from(whole) == value));
        }
    }

    #[test]
    fn numbers_too_small_to_divide_by_become_zero() {
        let mut whole = Vec::new();
        to_whole(&[1e-44, 0.0], &mut whole);
        assert_eq!(whole, [0, 0]);
    }
}
