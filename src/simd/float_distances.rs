//! Distances in f64 where a float takes part: the definition that every exact answer is verified with.
//!
//! The eight interleaved sums (value `i` goes to sum `i mod 8`) have the order of SIMD registers, so that the portable source, compiled
//! once more for AVX2, gives the same result to the last bit.

/// The definitions, in the shape that compilers turn into SIMD.
pub mod portable {
    /// Sums `term(a[i], b[i])` in eight interleaved partial sums.
    #[inline(always)]
    fn sum<A: Copy, B: Copy>(a: &[A], b: &[B], term: impl Fn(A, B) -> f64) -> f64 {
        let mut sums = [0.0f64; 8];
        let (mut chunks_a, mut chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
        for (a, b) in (&mut chunks_a).zip(&mut chunks_b) {
            for lane in 0..8 {
                sums[lane] += term(a[lane], b[lane]);
            }
        }
        for (sum, (&a, &b)) in sums
            .iter_mut()
            .zip(chunks_a.remainder().iter().zip(chunks_b.remainder()))
        {
            *sum += term(a, b);
        }
        ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
    }

    #[inline(always)]
    pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f64 {
        sum(a, b, |a, b| {
            (f64::from(a) - f64::from(b)) * (f64::from(a) - f64::from(b))
        })
    }

    #[inline(always)]
    pub fn manhattan(a: &[f32], b: &[f32]) -> f64 {
        sum(a, b, |a, b| (f64::from(a) - f64::from(b)).abs())
    }

    #[inline(always)]
    pub fn squared_euclidean_mixed(a: &[f32], b: &[u8]) -> f64 {
        sum(a, b, |a, b| {
            (f64::from(a) - f64::from(b)) * (f64::from(a) - f64::from(b))
        })
    }

    #[inline(always)]
    pub fn manhattan_mixed(a: &[f32], b: &[u8]) -> f64 {
        sum(a, b, |a, b| (f64::from(a) - f64::from(b)).abs())
    }
}

macro_rules! twice {
    ($($name:ident($a:ty, $b:ty) -> $out:ty;)*) => {$(
        #[inline]
        pub fn $name(a: &$a, b: &$b) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2(a: &$a, b: &$b) -> $out {
                    portable::$name(a, b)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the function needs AVX2, which has just been found.
                    return unsafe { avx2(a, b) };
                }
            }
            portable::$name(a, b)
        }
    )*};
}

twice! {
    squared_euclidean([f32], [f32]) -> f64;
    manhattan([f32], [f32]) -> f64;
    squared_euclidean_mixed([f32], [u8]) -> f64;
    manhattan_mixed([f32], [u8]) -> f64;
}
