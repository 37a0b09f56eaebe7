//! The inner loops of the exact searches. Each has a portable form and, where the machine has AVX2 and FMA (found at
//! run time), a form in its instructions; the tests hold every one against the plain definition.
//!
//! Only this module contains `unsafe` code.

#[cfg(feature = "net")]
pub(crate) mod convolution;
pub(crate) mod float_distances;
pub(crate) mod graph_codes;
pub(crate) mod half_bytes;
pub(crate) mod lower_bound;
pub(crate) mod matvec;
pub(crate) mod pairwise;
pub(crate) mod pq_scan;
pub(crate) mod tiles;
pub(crate) mod va_codes;

/// Whether the AVX2 and FMA forms can run here.
#[inline]
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A level of SIMD instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Portable,
    Avx2,
}

impl Level {
    /// "portable", "avx2".
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
        }
    }
}

/// The level that the kernels use here.
pub(crate) fn level() -> Level {
    if has_avx2() {
        Level::Avx2
    } else {
        Level::Portable
    }
}

/// Asks the system to keep `values` in huge pages, where it can (Linux): memory that is read here and there then misses the
/// address translation cache less often. Changes nothing that the program can see.
pub(crate) fn in_huge_pages<T>(values: &[T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4_096;
        let (start, end) = (
            values.as_ptr().addr(),
            values.as_ptr().addr() + size_of_val(values),
        );
        let (first, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if first < end {
            let at = values
                .as_ptr()
                .cast_mut()
                .cast::<u8>()
                .wrapping_add(first - start);
            for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
                // SAFETY: whole pages inside the slice; the advice leaves their content and addresses as they are, and where the system does
                // not know it or refuses, an error that is of no consequence.
                unsafe { libc::madvise(at.cast(), end - first, advice) };
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}

/// Asks the memory for what a slice holds, to have it in the caches when it is read.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, and the address is inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
