//! The inner loops over sketches, in the shape that compilers turn into SIMD, compiled once more for AVX2.

use super::prefetch;
use super::tiles::Line;
use crate::distance::Metric;
use crate::vectors::Row;

/// Rows whose bounds are computed at once: two registers of eight f32.
pub const LANES: usize = 16;

/// [`prefetch`] for a row, in the type in which it is stored.
#[inline]
pub fn prefetch_row(row: Row<'_>) {
    match row {
        Row::Bytes(row) => prefetch(row),
        Row::Floats(row) => prefetch(row),
    }
}

macro_rules! dispatched {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? = $portable:path;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    $portable($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the function needs AVX2, which has just been found.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $portable($($arg),*)
        }
    )*};
}

dispatched! {
    /// Rank values between a sketch and each of the rows of `groups`, into `out` (a whole number of groups); where a
    /// whole group is beyond `limit`, any values above it.
    ranks(metric: Metric, query: &[f32], groups: &[f32], limit: f32, out: &mut Vec<f32>) = portable::ranks;
    /// Squared Euclidean distance of a sketch to each of those numbered `rows`, into `out`; sketches are as many lines as `query`.
    bounds(query: &[Line<f32>], sketches: &[Line<f32>], rows: &[u32], out: &mut Vec<f32>) = portable::bounds;
    /// Rank value of two sketches.
    rank(metric: Metric, a: &[f32], b: &[f32]) -> f32 = portable::rank;
    /// Σ aᵢ·bᵢ.
    dot(a: &[f64], b: &[f64]) -> f64 = portable::dot;
    /// Σ aᵢ·bᵢ in f32.
    dot_f32(a: &[f32], b: &[f32]) -> f32 = portable::dot_f32;
    /// The row less the mean.
    centre(row: Row<'_>, mean: &[f64]) -> Vec<f64> = portable::centre;
    /// The distance to the origin.
    norm(metric: Metric, a: &[f64]) -> f64 = portable::norm;
}

mod portable {
    use super::{LANES, Line, Metric, Row};

    #[inline(always)]
    pub fn ranks(metric: Metric, query: &[f32], groups: &[f32], limit: f32, out: &mut Vec<f32>) {
        match metric {
            Metric::Euclidean => ranks_by(query, groups, limit, out, |difference| {
                difference * difference
            }),
            Metric::Manhattan => ranks_by(query, groups, limit, out, f32::abs),
        }
    }

    /// Coordinates after which a group is looked at for whether it is beyond the limit as a whole.
    const STEP: usize = 8;

    #[inline(always)]
    fn ranks_by(
        query: &[f32],
        groups: &[f32],
        limit: f32,
        out: &mut Vec<f32>,
        term: impl Fn(f32) -> f32,
    ) {
        out.clear();
        for group in groups.chunks_exact(LANES * query.len()) {
            let mut sums = [0.0f32; LANES];
            for (query, values) in query.chunks(STEP).zip(group.chunks(STEP * LANES)) {
                for (&query, values) in query.iter().zip(values.chunks_exact(LANES)) {
                    for lane in 0..LANES {
                        sums[lane] += term(query - values[lane]);
                    }
                }
                let inside = sums
                    .iter()
                    .fold(0u32, |inside, &sum| inside | u32::from(sum <= limit));
                if inside == 0 {
                    break;
                }
            }
            out.extend_from_slice(&sums);
        }
    }

    #[inline(always)]
    pub fn bounds(query: &[Line<f32>], sketches: &[Line<f32>], rows: &[u32], out: &mut Vec<f32>) {
        let width = query.len();
        out.clear();
        out.extend(rows.iter().map(|&row| {
            let mut sums = Line([0.0f32; 16]);
            for (a, b) in query.iter().zip(&sketches[row as usize * width..][..width]) {
                for (sum, (a, b)) in sums.0.iter_mut().zip(a.0.iter().zip(&b.0)) {
                    *sum += (a - b) * (a - b);
                }
            }
            fold(sums.0)
        }));
    }

    #[inline(always)]
    pub fn rank(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
        match metric {
            Metric::Euclidean => sum::<f32, 16>(a, b, |a, b| (a - b) * (a - b)),
            Metric::Manhattan => sum::<f32, 16>(a, b, |a, b| (a - b).abs()),
        }
    }

    #[inline(always)]
    pub fn dot(a: &[f64], b: &[f64]) -> f64 {
        sum::<f64, 16>(a, b, |a, b| a * b)
    }

    #[inline(always)]
    pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
        sum::<f32, 16>(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn sum<T, const N: usize>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> T
    where
        T: Copy + Default + std::ops::AddAssign,
    {
        let mut sums = [T::default(); N];
        let (mut chunks_a, mut chunks_b) = (a.chunks_exact(N), b.chunks_exact(N));
        for (a, b) in (&mut chunks_a).zip(&mut chunks_b) {
            for lane in 0..N {
                sums[lane] += term(a[lane], b[lane]);
            }
        }
        for (sum, (&a, &b)) in sums
            .iter_mut()
            .zip(chunks_a.remainder().iter().zip(chunks_b.remainder()))
        {
            *sum += term(a, b);
        }
        fold(sums)
    }

    /// Half onto half, down to one: in registers, unlike one after the other.
    #[inline(always)]
    fn fold<T: Copy + std::ops::AddAssign, const N: usize>(mut sums: [T; N]) -> T {
        let mut half = N / 2;
        while half > 0 {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
            half /= 2;
        }
        sums[0]
    }

    #[inline(always)]
    pub fn centre(row: Row<'_>, mean: &[f64]) -> Vec<f64> {
        match row {
            Row::Bytes(row) => row
                .iter()
                .zip(mean)
                .map(|(&value, mean)| f64::from(value) - mean)
                .collect(),
            Row::Floats(row) => row
                .iter()
                .zip(mean)
                .map(|(&value, mean)| f64::from(value) - mean)
                .collect(),
        }
    }

    #[inline(always)]
    pub fn norm(metric: Metric, a: &[f64]) -> f64 {
        match metric {
            Metric::Euclidean => dot(a, a).sqrt(),
            Metric::Manhattan => sum::<f64, 16>(a, a, |a, _| a.abs()),
        }
    }
}
