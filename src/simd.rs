//! The inner loops ("kernels") of the crate, on plain slices, in the instructions that the machine
//! has.
//!
//! A kernel is a loop so hot that it is worth writing for a processor's wide registers. Each has
//!
//! - a *portable* form in plain Rust, which runs everywhere and says what the kernel computes;
//! - a form for AVX2 (with FMA), which computes the same eight or more values at a time;
//! - where measurements showed that it pays, a form for AVX-512.
//!
//! [`level`] is the form that this process uses. It is decided once: the best that the processor
//! has, or what the environment variable `FASHION_KNN_SIMD` asks for (`portable`, `avx2` or
//! `avx512`). On processors other than x86-64 (ARM, say) it is the portable form, of which the
//! compiler makes what vector instructions it can.
//!
//! This is the ground floor: a kernel knows slices and numbers, never an index, a metric or a
//! table of vectors. It is also the only place in the crate where `unsafe` is allowed.
//!
//! | kernels | what they compare |
//! |---|---|
//! | `pairwise` | one vector with one vector, of bytes or `f32` |
//! | `float_distances` | the same in `f64`: the definition |
//! | `tiles` | many vectors with many, as a matrix product |
//! | `half_bytes` | one vector with many, four bits a value |
//! | `lower_bound` | short float vectors whose distance bounds that of the long ones |
//! | `matvec` | a matrix with a vector |
//! | `va_codes` | the VA+-file's integer codes |
//! | `graph_codes` | the quantised graph's seven-bit codes |
//! | `pq_scan` | sums of table entries over product-quantised codes |
//! | `convolution` | images with the kernels of a convolutional layer (feature `net`) |
//!
//! # To add a kernel
//!
//! Write `mod portable` with the plain loop and, under `#[cfg(target_arch = "x86_64")]`, `mod avx2`
//! with a function of the same name and signature, marked `#[target_feature(enable = "avx2,fma")]`.
//! `mod avx512` begins with `pub use super::avx2::*;`, which functions of its own shadow; a kernel
//! that gains nothing by AVX-512 says `use avx2 as avx512;` instead. Then declare the kernel, and
//! the function that chooses among the forms is written for you:
//!
//! ```text
//! dispatch! {
//!     /// Σ(aᵢ − bᵢ)².
//!     #[inline]
//!     pub(crate) fn squared_euclidean(a: &[u8], b: &[u8]) -> u64;
//! }
//! ```
//!
//! If the compiler makes good AVX2 code of the portable loop by itself, no `mod avx2` is needed.
//! Mark the loop `#[inline(always)]` and name it; it is compiled once more for each level:
//!
//! ```text
//! dispatch! {
//!     /// Σ aᵢ·bᵢ.
//!     pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 = portable::dot;
//! }
//! ```
//!
//! Measure it at both levels: of short sums the compiler made slower code for AVX-512 than for
//! AVX2. Such a loop says `= portable::dot, at most avx2;`.
//!
//! All forms must agree with the plain definition in a test: to the bit where they compute in
//! integers, within a stated bound where they compute in floats.
//!
//! # To add a level
//!
//! 1. A variant of [`Level`], its name in [`Level::name`], its place in [`Level::ALL`], its test of
//!    the processor in [`Level::is_available`], and its number in [`level`].
//! 2. In the rules of `dispatch!`, one more arm beside `Avx2`.
//! 3. In each kernel with forms of its own, a module for it, as `avx512` is one.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use thiserror::Error;

/// Writes the functions that choose among the forms of a kernel by [`level`]; see the module's
/// documentation. The first rule takes kernels with a form of their own for each level, the second
/// those whose one source is compiled once for each level, the third those of which the compiler
/// makes nothing better for AVX-512.
macro_rules! dispatch {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $(<const $generic:ident: usize>)? (
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $out:ty)?;
    )+) => {$(
        $(#[$attribute])*
        $visibility fn $name $(<const $generic: usize>)? (
            $($argument: $type),*
        ) $(-> $out)? {
            // The level is tested at every call: one load and a branch that always goes the same
            // way. On processors other than x86-64 only the last arm remains.
            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                crate::simd::Level::Avx512 => {
                    // SAFETY: `Level::is_available` has asked the processor for all of its
                    // features, and those of AVX2.
                    unsafe { avx512::$name($($argument),*) }
                }
                #[cfg(target_arch = "x86_64")]
                crate::simd::Level::Avx2 => {
                    // SAFETY: the level is AVX2 only where the processor has AVX2 and FMA.
                    unsafe { avx2::$name($($argument),*) }
                }
                _ => portable::$name($($argument),*),
            }
        }
    )+};
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident (
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $out:ty)? = $source:path;
    )+) => {$(
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) $(-> $out)? {
            // The source is `#[inline(always)]`. So it becomes part of this function and is
            // compiled with its instructions; a call would reach code compiled without them.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $out)? {
                $source($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $out)? {
                $source($($argument),*)
            }
            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                crate::simd::Level::Avx512 => {
                    // SAFETY: the level is AVX-512 only where the processor has these.
                    unsafe { avx512($($argument),*) }
                }
                #[cfg(target_arch = "x86_64")]
                crate::simd::Level::Avx2 => {
                    // SAFETY: the level is AVX2 only where the processor has AVX2 and FMA.
                    unsafe { avx2($($argument),*) }
                }
                _ => $source($($argument),*),
            }
        }
    )+};
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident (
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $out:ty)? = $source:path, at most avx2;
    )+) => {$(
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $out)? {
                $source($($argument),*)
            }
            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                crate::simd::Level::Avx512 | crate::simd::Level::Avx2 => {
                    // SAFETY: both levels are chosen only where the processor has AVX2 and FMA.
                    unsafe { avx2($($argument),*) }
                }
                _ => $source($($argument),*),
            }
        }
    )+};
}

pub(crate) mod cells;
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

/// The instructions that the kernels use, from the plainest to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust, for whatever the compiler was told to compile for.
    Portable,
    /// AVX2 and FMA, on x86-64.
    Avx2,
    /// AVX2, FMA and AVX-512 with its extensions F, BW, DQ, VL and VNNI: Intel's since Cascade
    /// Lake (2019), AMD's since Zen 4 (2022).
    Avx512,
}

impl Level {
    /// All levels, the best one last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The name by which `FASHION_KNN_SIMD` asks for it: `portable`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The best level that this machine has.
    fn best() -> Self {
        let mut best = Self::Portable;
        // The levels are ordered, so the last one that is there is the best.
        for level in Self::ALL {
            if level.is_available() {
                best = level;
            }
        }
        best
    }

    /// The level that a value of `FASHION_KNN_SIMD` asks for, or what is wrong with it. No value,
    /// or an empty one, asks for the best.
    fn asked_for(value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Ok(Self::best());
        }
        let level: Self = value
            .parse()
            .map_err(|error: UnknownLevel| error.to_string())?;
        if level.is_available() {
            Ok(level)
        } else {
            Err(format!("this machine does not have {level}"))
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or_else(|| UnknownLevel {
            received: name.to_owned(),
        })
    }
}

/// A level's name that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no SIMD level {received:?}; there are: portable, avx2, avx512")]
pub struct UnknownLevel {
    /// The name.
    pub received: String,
}

/// [`level`] as a number, or [`UNDECIDED`] before the first call. Kernels ask for the level at
/// every call, so it has to cost no more than one plain load.
static LEVEL: AtomicU8 = AtomicU8::new(UNDECIDED);
/// Stands for no [`Level`]; those are numbered from zero.
const UNDECIDED: u8 = u8::MAX;

/// The instructions that the kernels of this process use.
///
/// The first call decides: the level that the environment variable `FASHION_KNN_SIMD` names
/// (`portable`, `avx2` or `avx512`), or without it the best that the machine has. An unknown name,
/// or a level that the machine does not have, is told in one line on standard error, and the best
/// is used.
///
/// ```
/// use fashion_knn::simd::{self, Level};
/// assert!(simd::level().is_available());
/// assert_eq!("portable".parse(), Ok(Level::Portable));
/// ```
#[inline]
#[must_use]
pub fn level() -> Level {
    const PORTABLE: u8 = Level::Portable as u8;
    const AVX2: u8 = Level::Avx2 as u8;
    const AVX512: u8 = Level::Avx512 as u8;
    // Relaxed is enough: the number is all that one thread tells another, and a thread that still
    // reads `UNDECIDED` finds the decision in `decide`.
    match LEVEL.load(Ordering::Relaxed) {
        AVX512 => Level::Avx512,
        AVX2 => Level::Avx2,
        PORTABLE => Level::Portable,
        _ => decide(),
    }
}

/// What [`level`] does on its first call.
#[cold]
#[inline(never)]
fn decide() -> Level {
    /// Threads may arrive here together; one decides, so that the line is written once.
    static DECIDED: OnceLock<Level> = OnceLock::new();
    // No variable and an empty one are the same. A name that is not UTF-8 becomes an unknown name.
    let level = *DECIDED.get_or_init(|| {
        let value = std::env::var_os("FASHION_KNN_SIMD").unwrap_or_default();
        Level::asked_for(&value.to_string_lossy()).unwrap_or_else(|wrong| {
            let best = Level::best();
            eprintln!("FASHION_KNN_SIMD: {wrong}; using {best}");
            best
        })
    });
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// Words of four bytes in a [`Line`].
pub(crate) const LINE_WORDS: usize = 16;

/// Sixteen words of four bytes: a cache line, and two AVX registers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub [T; LINE_WORDS]);

/// Folds the lanes by `join`, the upper half onto the lower, until one is left.
///
/// ```text
/// 0 1 2 3 4 5 6 7
/// 04  15  26  37       lane 4 joins lane 0, lane 5 joins lane 1, ...
/// 0426    1537
/// 04261537
/// ```
///
/// A step joins whole registers, so that there are log₂ N steps. From left to right there would
/// be N − 1, each waiting for the one before. `N` is a power of two; otherwise lanes would be
/// left out.
#[inline(always)]
fn fold_lanes<T: Copy, const N: usize>(mut lanes: [T; N], join: impl Fn(T, T) -> T) -> T {
    let mut half = N / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Adds up by `add` what pairs of values contribute, in `N` partial sums: pair i goes to sum
/// i mod N, and the sums are joined by [`fold_lanes`]. This is the order of SIMD registers, which
/// compilers may not choose for floats by themselves.
#[inline(always)]
fn sum_in_lanes<const N: usize, A, B, S>(a: &[A], b: &[B], add: impl Fn(S, A, B) -> S) -> S
where
    A: Copy,
    B: Copy,
    S: Copy + Default + Add<Output = S>,
{
    let mut sums = [S::default(); N];
    let (mut chunks_a, mut chunks_b) = (a.chunks_exact(N), b.chunks_exact(N));
    // The inner loop counts to a constant and its sums are independent: the compiler makes
    // registers of them.
    for (a, b) in (&mut chunks_a).zip(&mut chunks_b) {
        for lane in 0..N {
            sums[lane] = add(sums[lane], a[lane], b[lane]);
        }
    }
    // Fewer than N values are left; they go to the first sums.
    let rest = chunks_a.remainder().iter().zip(chunks_b.remainder());
    for (sum, (&a, &b)) in sums.iter_mut().zip(rest) {
        *sum = add(*sum, a, b);
    }
    fold_lanes(sums, |a, b| a + b)
}

/// Asks the system to keep `values` in huge pages, where it can (Linux): memory that is read here
/// and there then misses the address translation cache less often. Changes nothing that the program
/// can see.
pub(crate) fn in_huge_pages<T>(values: &[T]) {
    // Miri, which looks for errors in unsafe code, knows no madvise.
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        const PAGE: usize = 4_096;
        let start = values.as_ptr().addr();
        let end = start + size_of_val(values);
        // Advice is given for whole pages. The first and the last bytes may share their pages with
        // other values, so only the pages that lie wholly inside are named.
        let (first_page, end_page) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if first_page < end_page {
            let bytes = values.as_ptr().cast_mut().cast::<u8>();
            let at = bytes.wrapping_add(first_page - start);
            // The first advice marks the range, for pages that are touched later. The second asks
            // for huge pages at once, where pages are there already (Linux 6.1 and later).
            for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
                // SAFETY: whole pages inside the slice. The advice leaves their content and
                // addresses as they are. Where the system does not know it or refuses, the error is
                // of no consequence.
                unsafe { libc::madvise(at.cast(), end_page - first_page, advice) };
            }
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = values;
}

/// Asks the memory for what a slice holds, to have it in the caches when it is read.
///
/// In the second-level cache, that is. The first has few buffers for what is on its way: a burst of
/// requests would wait for them, and the program with it. From the second level a read takes some
/// ten cycles more, a small part of what it takes from memory.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    /// Bytes of a cache line.
    #[cfg(target_arch = "x86_64")]
    const CACHE_LINE: usize = 64;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        // A slice that begins within a line reaches into one line more than its length tells.
        let before = match align_of::<T>() {
            CACHE_LINE.. => 0,
            _ => start.addr() % CACHE_LINE,
        };
        for line in (0..before + size_of_val(values)).step_by(CACHE_LINE) {
            // SAFETY: a prefetch reads nothing, and the address is inside the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(line.saturating_sub(before))) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_their_names() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
            assert_eq!(level.to_string(), level.name());
        }
        assert!(Level::ALL.is_sorted() && Level::Portable.is_available());
        let unknown = "avx3".parse::<Level>().unwrap_err().to_string();
        for level in Level::ALL {
            assert!(unknown.contains(level.name()), "{unknown}");
        }
    }

    #[test]
    fn the_environment_forces_a_level_that_the_machine_has() {
        assert_eq!(Level::asked_for(""), Ok(Level::best()));
        for level in Level::ALL {
            let asked = Level::asked_for(level.name());
            assert_eq!(asked.is_ok(), level.is_available());
            assert!(asked.is_err() || asked == Ok(level));
        }
        assert!(Level::asked_for("AVX2").unwrap_err().contains("AVX2"));
    }

    #[test]
    fn this_process_keeps_to_what_it_was_told() {
        let told = std::env::var("FASHION_KNN_SIMD").unwrap_or_default();
        let expected = Level::asked_for(&told).unwrap_or(Level::best());
        assert_eq!([level(), level()], [expected; 2]);
    }

    /// Some pages, neither from their beginning nor to their end.
    #[test]
    fn advice_to_system_and_memory_changes_no_value() {
        let values: Vec<u32> = (1..=5_000).collect();
        let some = &values[7..4_990];
        in_huge_pages(some);
        prefetch(some);
        assert!(values.iter().copied().eq(1..=5_000));
    }

    #[test]
    fn lanes_fold_half_onto_half() {
        // As decimal digits: the first and third join, the second and fourth, then both pairs.
        let digits =
            |(a, width): (u32, u32), (b, more): (u32, u32)| (a * 10u32.pow(more) + b, width + more);
        assert_eq!(
            fold_lanes([(1, 1), (2, 1), (3, 1), (4, 1)], digits),
            (1324, 4)
        );
        assert_eq!(fold_lanes([3, 9, 2, 4], i32::max), 9);
        let (a, b) = ([1.0f64, 2.0, 3.0, 4.0, 5.0], [2.0f64; 5]);
        assert_eq!(
            sum_in_lanes::<2, _, _, _>(&a, &b, |sum: f64, a, b| sum + a * b),
            30.0
        );
    }
}
