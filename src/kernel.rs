//! The inner loops of the exact searches. Each has a portable form and, where the machine has AVX2 and FMA (found at
//! run time), a form in its instructions; the tests hold every one against the plain definition.
//!
//! Only this module contains `unsafe` code.

pub(crate) mod pair;
pub(crate) mod rotate;
pub(crate) mod tile;
pub(crate) mod va;

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

/// Asks the memory for what a slice holds, to have it in the caches when it is read.
#[inline]
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
