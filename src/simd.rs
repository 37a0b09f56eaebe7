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
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
        sums.iter().sum::<f32>() + rest
    }
}
