//! Approximate kernels in f32: what guides a search and is never returned. Exact distances are [`distance`](crate::distance)'s.

/// Compiles a function for AVX2 with FMA beside the portable build, and picks at run time.
macro_rules! fused {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        #[inline]
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $out)? { body($($arg),*) }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: the function needs AVX2 and FMA, which have just been found.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
fused! {
    /// ‖a − b‖² in 32 interleaved partial sums.
    pub(crate) fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0f32; 32];
        let (a_chunks, a_rest) = a.as_chunks::<32>();
        let (b_chunks, b_rest) = b.as_chunks::<32>();
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for lane in 0..32 {
                let difference = a[lane] - b[lane];
                sums[lane] = difference.mul_add(difference, sums[lane]);
            }
        }
        for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
            let difference = a - b;
            *sum = difference.mul_add(difference, *sum);
        }
        // Halves are added to halves: sums of whole registers.
        let mut width = 16;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        sums[0]
    }
}

fused! {
    /// Writes `values` as whole numbers of at most 2,047 and returns the unit: one, if they are such numbers, so that pixels
    /// stay exact; otherwise what the largest calls for.
    pub(crate) fn to_whole(values: &[f32], whole: &mut Vec<i16>) -> f32 {
        const MOST: f32 = 2_047.0;
        let (mut largest, mut exact) = (0.0f32, true);
        for &value in values {
            largest = if value.abs() > largest { value.abs() } else { largest };
            exact &= (value as i32) as f32 == value;
        }
        let step = if exact && largest <= MOST { 1.0 } else { largest / MOST };
        let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
        whole.resize(values.len(), 0);
        for (whole, &value) in whole.iter_mut().zip(values) {
            *whole = (value * per_step) as i32 as i16;
        }
        step
    }
}

/// A cache line of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Line(pub [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Bytes at the end of a code's last line that hold a number of their own.
pub(crate) const TAIL: usize = 2;

fused! {
    /// Adds to `sums` values 2i and 2i + 1 times their coefficients in row i of `pairs` (which alternate, and are twice as many
    /// as `sums`, a multiple of 64). Rows of two zeros are not read.
    pub(crate) fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        let stride = sums.len() * 2;
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let mut local = *sums;
            for (row, values) in pairs.chunks_exact(stride).zip(values.as_chunks::<2>().0) {
                if *values != [0, 0] {
                    let row: &[i16; 128] = row[block * 128..][..128].try_into().expect("64 pairs");
                    for lane in 0..64 {
                        local[lane] += i32::from(row[2 * lane]) * i32::from(values[0])
                            + i32::from(row[2 * lane + 1]) * i32::from(values[1]);
                    }
                }
            }
            *sums = local;
        }
    }
}

/// Squared distance of two codes of values up to 127, their tails apart.
#[inline(always)]
pub(crate) fn code_distance<const LINES: usize>(a: &[Line; LINES], b: &[Line; LINES]) -> u32 {
    let mut sum = 0;
    for line in 0..LINES {
        let values = if line + 1 == LINES { 64 - TAIL } else { 64 };
        for (&a, &b) in a[line].0[..values].iter().zip(&b[line].0[..values]) {
            sum += u32::from(a.abs_diff(b)).pow(2);
        }
    }
    sum
}

/// The same for machines with AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn code_distance_avx2<const LINES: usize>(a: &[Line; LINES], b: &[Line; LINES]) -> u32 {
    use std::arch::x86_64::*;
    let (a, b) = (a.as_ptr().cast::<__m256i>(), b.as_ptr().cast::<__m256i>());
    let mut sums = _mm256_setzero_si256();
    for half in 0..2 * LINES {
        // SAFETY: a line is two whole registers, and aligned to them.
        let (a, b) = unsafe { (_mm256_load_si256(a.add(half)), _mm256_load_si256(b.add(half))) };
        let mut difference = _mm256_or_si256(_mm256_subs_epu8(a, b), _mm256_subs_epu8(b, a));
        if half + 1 == 2 * LINES {
            let keep = _mm256_set_epi64x(0x0000_ffff_ffff_ffff, -1, -1, -1);
            difference = _mm256_and_si256(difference, keep);
        }
        // Two squares of at most 127² fit in 16 bits with their sign.
        let squares = _mm256_maddubs_epi16(difference, difference);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(squares, _mm256_set1_epi16(1)));
    }
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
    let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums));
    _mm_cvtsi128_si32(sums) as u32
}

/// Asks for the memory of `values` to be brought near.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (start, bytes) = (values.as_ptr().cast::<i8>(), size_of_val(values));
        let mut at = 0;
        while at < bytes {
            // SAFETY: a prefetch reads nothing that the program can see, and the address lies in `values`.
            unsafe { _mm_prefetch(start.add(at), _MM_HINT_T0) };
            at += 64;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// The number in a code's tail.
#[inline(always)]
pub(crate) fn tail(code: &[Line]) -> u32 {
    let bytes = &code[code.len() - 1].0[64 - TAIL..];
    u32::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Appends the squared distance of `code` to each code of `run`, plus that one's tail.
pub(crate) fn scan_codes<const LINES: usize>(code: &[Line; LINES], run: &[Line], distances: &mut Vec<u32>) {
    let run = run.as_chunks::<LINES>().0;
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn avx2<const LINES: usize>(code: &[Line; LINES], run: &[[Line; LINES]], distances: &mut Vec<u32>) {
            let start = distances.len();
            distances.resize(start + run.len(), 0);
            for (distance, other) in distances[start..].iter_mut().zip(run) {
                *distance = code_distance_avx2(code, other) + tail(other);
            }
        }
        // SAFETY: the function needs AVX2, which has just been found.
        return unsafe { avx2(code, run, distances) };
    }
    distances.extend(run.iter().map(|other| code_distance(code, other) + tail(other)));
}
