//! The inner loops of the exact searches. Each has a portable form and, where the machine has AVX2 and FMA (found at
//! run time), a form in its instructions; the tests hold every one against the plain definition.
//!
//! Only this module contains `unsafe` code.

pub(crate) mod code;
pub(crate) mod pair;
pub(crate) mod tile;

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
