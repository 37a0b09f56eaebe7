//! The inner loops of the exact searches. Each has a portable form and, where the machine has AVX2 and FMA (found at
//! run time), a form in its instructions; the tests hold every one against the plain definition.
//!
//! Only this module contains `unsafe` code.

use crate::dataset::{Row, Vectors};

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

/// Asks for a row to be fetched into the caches.
#[inline]
pub(crate) fn prefetch(base: &Vectors, row: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (start, bytes) = match base.row(row) {
            Row::Bytes(row) => (row.as_ptr().cast::<i8>(), row.len()),
            Row::Floats(row) => (row.as_ptr().cast::<i8>(), size_of_val(row)),
        };
        for at in (0..bytes).step_by(64) {
            // SAFETY: a prefetch reads nothing, and the address is inside the row.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, row);
}
