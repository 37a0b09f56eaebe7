//! Codes of the quantised graph: rounded coordinates in whole cache lines, and in the last four
//! bytes, the *tail*, a number of their own. What these kernels give guides a search; it is never
//! returned.
//!
//! The naive form:
//!
//! ```text
//! distance(q, c) = Σ (qᵢ − cᵢ)² + own of q + own of c
//! ```
//!
//! where *own* is what a vector adds to all of its distances: the squared length of what its code
//! leaves out. A square of a difference takes three instructions for 16 coordinates; a product
//! takes one for 32, if the bytes of one side have no sign and those of the other have one. So the
//! square is multiplied out, and what belongs to one side alone is computed once:
//!
//! ```text
//! distance(q, c) = (own of q + ‖q‖²) + (own of c + ‖c‖²) − 2·Σ qᵢ·cᵢ
//!                        query             tail of c        the product
//! ```
//!
//! A line is *wide* or *narrow*. The wide ones come first; the format says how many they are.
//!
//! ```text
//! wide line     | 64 bytes: coordinates of seven bits                              |
//! narrow line   | 64 bytes: two coordinates of four bits each, the low half first  |
//! last line     | 60 bytes of either kind                                   | tail |
//! ```
//!
//! A wide byte w stands for w − 64 steps, and the query has whole steps, −64..=63. A narrow
//! half byte v stands for v − 8 steps. There the query is finer: it has eighths of a step, so
//! that only the code's rounding counts. Both kinds have a step of their own, and the format has
//! the weight that makes their products alike.
//!
//! What can go wrong is overflow. In a wide line four products are added in 16 bits:
//! 4 · 127 · 64 < 2¹⁵. In a narrow line eight are: 8 · 15 · 127 < 2¹⁵.
//! Weights are at most [`MOST_WEIGHT`], so that twice the product of [`MOST_LINES`] lines is
//! below 2³⁰.

/// A cache line of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct CodeLine(pub [u8; 64]);

impl Default for CodeLine {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Bytes of the tail.
pub(crate) const TAIL: usize = 4;
/// The longest code, in lines.
pub(crate) const MOST_LINES: usize = 4;
/// Largest weight of a kind of lines.
pub(crate) const MOST_WEIGHT: i16 = 128;

/// The step of a wide coordinate that means zero.
const WIDE_ZERO: f32 = 64.0;
/// The same of a narrow one.
const NARROW_ZERO: f32 = 8.0;
/// A query has so many values in a step of a narrow coordinate.
const FINER: f32 = 8.0;

/// What the lines of a code hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// Lines of a code in all.
    pub lines: usize,
    /// Lines of seven-bit coordinates, which come first. The others have four-bit ones.
    pub wide: usize,
    /// The square of a wide step, in units of the distance.
    pub wide_weight: i16,
    /// An eighth of the square of a narrow step.
    pub narrow_weight: i16,
}

impl Format {
    /// Coordinates in the wide lines.
    pub fn wide_coordinates(&self) -> usize {
        let tail = if self.wide == self.lines { TAIL } else { 0 };
        64 * self.wide - tail
    }

    /// Coordinates in the narrow lines.
    pub fn narrow_coordinates(&self) -> usize {
        let narrow = self.lines - self.wide;
        let tail = if narrow > 0 { TAIL } else { 0 };
        2 * (64 * narrow - tail)
    }

    /// The length of a wide step; a distance of one is the length 1.
    pub fn wide_step(&self) -> f32 {
        f32::from(self.wide_weight).sqrt()
    }

    /// The largest coordinate of a query in a wide line.
    pub fn widest_query(&self) -> f32 {
        63.0 * self.wide_step()
    }

    /// The largest coordinate of a query in a narrow line.
    pub fn widest_narrow_query(&self) -> f32 {
        127.0 / FINER * self.narrow_step()
    }

    /// The least size that a coordinate of a query may have and be cut off.
    pub fn range(&self) -> f32 {
        match self.wide {
            0 => self.widest_narrow_query(),
            wide if wide == self.lines => self.widest_query(),
            _ => self.widest_query().min(self.widest_narrow_query()),
        }
    }

    /// The length of a narrow step.
    pub fn narrow_step(&self) -> f32 {
        (f32::from(self.narrow_weight) * FINER).sqrt()
    }

    /// The parts of a code in the order of coordinates: a wide line is one, a narrow one two.
    #[inline(always)]
    fn parts(self) -> impl Iterator<Item = Part> {
        let mut start = 0;
        // Two halves a line; a wide line has only the first.
        let halves = (0..2 * self.lines).filter(move |half| half % 2 == 0 || half / 2 >= self.wide);
        halves.map(move |half| {
            let line = half / 2;
            let len = if line + 1 == self.lines {
                64 - TAIL
            } else {
                64
            };
            start += len;
            Part {
                line,
                wide: line < self.wide,
                high: half % 2 == 1,
                start: start - len,
                len,
            }
        })
    }

    /// Writes the coordinates, rounded to steps, into a code whose tail is not written yet. Those
    /// that are missing are zero.
    pub fn write(&self, coordinates: &[f32], code: &mut [CodeLine]) -> Written {
        let mut written = Written::default();
        for part in self.parts() {
            let (zero, most, step) = if part.wide {
                (WIDE_ZERO, 127.0, self.wide_step())
            } else {
                (NARROW_ZERO, 15.0, self.narrow_step())
            };
            let per_step = step.recip();
            let values = part.of(coordinates);
            for (i, byte) in code[part.line].0[..part.len].iter_mut().enumerate() {
                let value = values.get(i).copied().unwrap_or(0.0);
                // A further half makes the truncation of `as u8` a rounding to the nearest.
                let place = (value * per_step + (zero + 0.5)).clamp(0.0, most) as u8;
                *byte = if part.high { *byte | place << 4 } else { place };
                let rounded = (f32::from(place) - zero) * step;
                written.squares += rounded * rounded;
                written.rounded_off += (value - rounded) * (value - rounded);
            }
        }
        written
    }
}

/// A run of coordinates in a code: a wide line, or the low or the high halves of a narrow one.
#[derive(Debug, Clone, Copy)]
struct Part {
    line: usize,
    wide: bool,
    /// The high halves of a narrow line.
    high: bool,
    /// The first of its coordinates.
    start: usize,
    /// The number of its coordinates, in the first so many bytes of the line.
    len: usize,
}

impl Part {
    /// Its coordinates. They may be fewer than there is room for, or none.
    #[inline(always)]
    fn of(self, coordinates: &[f32]) -> &[f32] {
        let end = (self.start + self.len).min(coordinates.len());
        &coordinates[self.start.min(end)..end]
    }
}

/// What [`Format::write`] made of coordinates.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Written {
    /// The squared length of what the code stands for.
    pub squares: f32,
    /// The squared length of what was rounded off.
    pub rounded_off: f32,
}

/// The number in a code's tail.
#[inline(always)]
fn tail(code: &[CodeLine]) -> i32 {
    let last = &code[code.len() - 1].0;
    i32::from_le_bytes(*last.last_chunk().expect("a line is longer"))
}

/// Writes the tail of a code: `own` is its squared length and what it adds to all distances.
pub(crate) fn set_tail(code: &mut [CodeLine], own: i32) {
    let last = &mut code[code.len() - 1].0;
    *last.last_chunk_mut().expect("a line is longer") = own.to_le_bytes();
}

/// A code or a query in the form in which codes are compared with it: with a sign, in whole steps
/// or in eighths.
#[derive(Debug)]
pub(crate) struct Query<const LINES: usize> {
    /// For each line 64 steps; for a narrow line those of the low halves, then of the high ones.
    /// In two's complement. Zero where the code has its tail.
    steps: [[CodeLine; 2]; LINES],
    /// What is the same in all distances.
    constant: i32,
    /// The squared length of the steps, and of what the query adds to all distances.
    squares: i32,
    format: Format,
}

impl<const LINES: usize> Query<LINES> {
    /// Of coordinates as [`Format::write`] takes them. `own` is what the query adds to all
    /// distances.
    pub(crate) fn new(format: Format, coordinates: &[f32], own: f32) -> Self {
        let mut steps = [[CodeLine::default(); 2]; LINES];
        let squares = round_steps(format, coordinates, own, &mut steps);
        Self::of_steps(format, steps, squares as i32)
    }

    /// Of a code with its tail.
    pub(crate) fn of_code(format: Format, code: &[CodeLine; LINES]) -> Self {
        let mut steps = [[CodeLine::default(); 2]; LINES];
        for (i, (steps, line)) in steps.iter_mut().zip(code).enumerate() {
            if i < format.wide {
                steps[0].0 = line.0.map(|byte| byte.wrapping_sub(WIDE_ZERO as u8));
            } else {
                // (v − 8) steps are 8·v − 64 eighths.
                steps[0].0 = line.0.map(|byte| (8 * (byte & 15)).wrapping_sub(64));
                steps[1].0 = line.0.map(|byte| (8 * (byte >> 4)).wrapping_sub(64));
            }
        }
        // The product runs over whole lines, and so multiplies the tail of the other code too.
        for half in &mut steps[LINES - 1] {
            half.0[64 - TAIL..].fill(0);
        }
        Self::of_steps(format, steps, tail(code))
    }

    /// `squares` are the query's squared length and its own.
    fn of_steps(format: Format, steps: [[CodeLine; 2]; LINES], squares: i32) -> Self {
        let twice = twice_around_zero(format, &steps);
        Self {
            steps,
            constant: squares + twice,
            squares,
            format,
        }
    }

    /// The squared length of what the query was rounded to, and what it adds to all distances.
    pub(crate) fn length(&self) -> f32 {
        self.squares as f32
    }

    /// The squared distance to `code`, with what both add. An estimate: never below zero.
    #[inline(always)]
    fn distance(&self, code: &[CodeLine; LINES], product: i32) -> u32 {
        (self.constant + tail(code) - 2 * product).max(0) as u32
    }
}

/// Appends the squared distance of each code of `run` to `query`, with what both leave out.
pub(crate) fn scan<const LINES: usize>(
    query: &Query<LINES>,
    run: &[[CodeLine; LINES]],
    distances: &mut Vec<u32>,
) {
    let start = distances.len();
    distances.resize(start + run.len(), 0);
    scan_into(query, run, &mut distances[start..]);
}

/// The same for the codes numbered `ids`, in place of what `distances` held.
///
/// # Panics
/// If there is no such code.
pub(crate) fn score<const LINES: usize>(
    query: &Query<LINES>,
    codes: &[[CodeLine; LINES]],
    ids: &[u32],
    distances: &mut Vec<u32>,
) {
    distances.resize(ids.len(), 0);
    score_into(query, codes, ids, distances);
}

/// A vector times a matrix, in whole numbers: adds to `sums` the values 2i and 2i + 1 times their
/// coefficients in row i of `pairs`. In a row the coefficients of the two values alternate. The
/// number of sums is a multiple of 64. Where both values are zero, as black pixels are, the AVX2
/// form does not read their row.
///
/// ```text
/// sums[j] += values[2i] · pairs[i][2j] + values[2i + 1] · pairs[i][2j + 1]
/// ```
///
/// Sums fit in 31 bits for up to 4,000 values of at most [`MOST_WHOLE`], if a column of
/// coefficients is a unit vector times 2¹⁴, rounded: by Cauchy and Schwarz they are at most
/// √4,000 · 2,047 · 2¹⁴, and 4,000 · 2,047 / 2 more for the rounding, which is below 2³¹.
///
/// # Panics
/// If `sums` are no multiple of 64, or `pairs` have not a row for each two values.
pub(crate) fn add_weighted_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
    assert!(
        sums.len().is_multiple_of(64) && pairs.len() == values.len() * sums.len(),
        "a row of pairs for each two values"
    );
    add_checked_pairs(sums, pairs, values);
}

/// Writes `values` as whole multiples of a unit and returns it: one, if they are whole numbers of
/// no more than [`MOST_WHOLE`] (so that pixels stay exact), otherwise what the largest calls for.
pub(crate) fn to_whole(values: &[f32], whole: &mut Vec<i16>) -> f32 {
    whole.resize(values.len(), 0);
    to_whole_into(values, whole)
}

dispatch! {
    /// [`scan`] into as many distances as there are codes.
    fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    );
    /// [`score`] into as many distances as there are ids.
    fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    );
    /// [`add_weighted_pairs`] of what has been checked.
    fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]);
    /// [`to_whole`] into as many numbers as there are values.
    fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32;
}

dispatch! {
    /// Writes the coordinates of a query as steps into lines of zeros; returns the squared length
    /// of these and `own`.
    fn round_steps(
        format: Format,
        coordinates: &[f32],
        own: f32,
        steps: &mut [[CodeLine; 2]],
    ) -> f32 = portable::round_steps;
    /// Codes count from zero and stand for numbers around zero. So each product is too large by the
    /// query's steps times the place of zero: 64·Σq wide, and 8·Σq narrow. This is twice that.
    fn twice_around_zero(format: Format, steps: &[[CodeLine; 2]]) -> i32
        = portable::twice_around_zero;
}

/// Largest size of a number that [`to_whole`] writes: 11 bits and a sign.
pub(crate) const MOST_WHOLE: f32 = 2_047.0;

/// The unit of [`to_whole`], and its inverse. Numbers may be so small that the inverse overflows;
/// then it is zero, and so is what is made of them.
fn unit(largest: f32, exact: bool) -> (f32, f32) {
    let unit = if exact && largest <= MOST_WHOLE {
        1.0
    } else {
        largest / MOST_WHOLE
    };
    let per_unit = unit.recip();
    (unit, if per_unit.is_finite() { per_unit } else { 0.0 })
}

mod portable {
    use super::{CodeLine, FINER, Format, Query, unit};

    #[inline(always)]
    pub fn round_steps(
        format: Format,
        coordinates: &[f32],
        own: f32,
        steps: &mut [[CodeLine; 2]],
    ) -> f32 {
        let mut squares = own;
        for part in format.parts() {
            let (least, most, step) = if part.wide {
                (-64.0, 63.0, format.wide_step())
            } else {
                (-127.0, 127.0, format.narrow_step() / FINER)
            };
            let per_step = step.recip();
            let line = &mut steps[part.line][usize::from(part.high)].0;
            let mut places = 0;
            for (byte, value) in line.iter_mut().zip(part.of(coordinates)) {
                // Above zero, truncation is a rounding down, which the processor does in registers.
                let place = ((value * per_step).clamp(least, most) + 128.5) as i32 - 128;
                *byte = (place as i8).cast_unsigned();
                places += place * place;
            }
            squares += places as f32 * step * step;
        }
        squares
    }

    #[inline(always)]
    pub fn twice_around_zero(format: Format, steps: &[[CodeLine; 2]]) -> i32 {
        let mut twice = 0;
        for (i, halves) in steps.iter().enumerate() {
            let mut sum = 0;
            for half in halves {
                for &step in &half.0 {
                    sum += i32::from(step.cast_signed());
                }
            }
            twice += sum
                * if i < format.wide {
                    128 * i32::from(format.wide_weight)
                } else {
                    16 * i32::from(format.narrow_weight)
                };
        }
        twice
    }

    fn product<const LINES: usize>(code: &[CodeLine; LINES], query: &Query<LINES>) -> i32 {
        let (mut wide, mut narrow) = (0, 0);
        for (i, (code, steps)) in code.iter().zip(&query.steps).enumerate() {
            for at in 0..64 {
                let [low, high] = steps.map(|line| i32::from(line.0[at].cast_signed()));
                if i < query.format.wide {
                    wide += i32::from(code.0[at]) * low;
                } else {
                    narrow += i32::from(code.0[at] & 15) * low;
                    narrow += i32::from(code.0[at] >> 4) * high;
                }
            }
        }
        i32::from(query.format.wide_weight) * wide + i32::from(query.format.narrow_weight) * narrow
    }

    pub fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    ) {
        for (distance, code) in distances.iter_mut().zip(run) {
            *distance = query.distance(code, product(code, query));
        }
    }

    pub fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            *distance = query.distance(&codes[id as usize], product(&codes[id as usize], query));
        }
    }

    pub fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        for (row, values) in pairs
            .chunks_exact(2 * sums.len())
            .zip(values.as_chunks::<2>().0)
        {
            for (sum, pair) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
                *sum += i32::from(pair[0]) * i32::from(values[0])
                    + i32::from(pair[1]) * i32::from(values[1]);
            }
        }
    }

    #[inline(always)]
    pub fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32 {
        // Floats without a sign are in the same order as their bits. So the largest is found among
        // integers, which the compiler does in SIMD. It does not so with `f32::max`, which takes
        // care of NaN.
        let (mut largest, mut exact) = (0, true);
        for &value in values {
            largest = value.abs().to_bits().max(largest);
            // The cast cuts off fractions. Numbers too large for i32 are too large for the unit 1
            // anyway.
            exact &= (value as i32) as f32 == value;
        }
        let (unit, per_unit) = unit(f32::from_bits(largest), exact);
        round(values, per_unit, whole);
        unit
    }

    #[inline(always)]
    pub fn round(values: &[f32], per_unit: f32, whole: &mut [i16]) {
        for (whole, &value) in whole.iter_mut().zip(values) {
            // To the nearest, of two equally near to the even one: as the AVX2 instruction does.
            *whole = (value * per_unit).round_ties_even() as i32 as i16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{CodeLine, Query, portable, unit};

    /// Half a line.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(line: &CodeLine, half: usize) -> __m256i {
        let bytes = &line.0.as_chunks::<32>().0[half];
        // SAFETY: exactly the bytes that the reference covers; half a line is aligned to 32.
        unsafe { _mm256_load_si256(bytes.as_ptr().cast()) }
    }

    /// The weighted sum of the products of all lines.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn product<const LINES: usize>(code: &[CodeLine; LINES], query: &Query<LINES>) -> i32 {
        let wide_weight = _mm256_set1_epi16(query.format.wide_weight);
        let narrow_weight = _mm256_set1_epi16(query.format.narrow_weight);
        let mut sums = _mm256_setzero_si256();
        for (i, (code, steps)) in code.iter().zip(&query.steps).enumerate() {
            // Multiplying by the weight adds pairs of lanes in 32 bits. The branch goes the same
            // way for all codes of a format.
            let line = if i < query.format.wide {
                _mm256_madd_epi16(wide_products(code, &steps[0]), wide_weight)
            } else {
                _mm256_madd_epi16(narrow_products(code, steps), narrow_weight)
            };
            sums = _mm256_add_epi32(sums, line);
        }
        // The eight sums are folded, half onto half, until one is left.
        let sums = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32::<1>(sums)))
    }

    /// Products of a wide line, four in each lane of 16 bits: 4 · 127 · 64 < 2¹⁵. The
    /// instruction takes its first operand without a sign, so the code comes first.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn wide_products(code: &CodeLine, steps: &CodeLine) -> __m256i {
        let half = |half| _mm256_maddubs_epi16(load(code, half), load(steps, half));
        _mm256_add_epi16(half(0), half(1))
    }

    /// Products of a narrow line, eight in each lane: 8 · 15 · 127 < 2¹⁵.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_products(code: &CodeLine, steps: &[CodeLine; 2]) -> __m256i {
        let low_bits = _mm256_set1_epi8(15);
        let half = |half| {
            let both = load(code, half);
            // There is no shift of bytes. Bits that come over from the next byte are masked.
            let low = _mm256_and_si256(both, low_bits);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low_bits);
            _mm256_add_epi16(
                _mm256_maddubs_epi16(low, load(&steps[0], half)),
                _mm256_maddubs_epi16(high, load(&steps[1], half)),
            )
        };
        _mm256_add_epi16(half(0), half(1))
    }

    #[target_feature(enable = "avx2")]
    pub fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    ) {
        for (distance, code) in distances.iter_mut().zip(run) {
            *distance = query.distance(code, product(code, query));
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        for (distance, &id) in distances.iter_mut().zip(ids) {
            *distance = query.distance(&codes[id as usize], product(&codes[id as usize], query));
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        // Rows are `stride` coefficients, two for each sum. 64 sums are eight registers. They stay
        // there while their columns of all rows pass by, and are written once.
        let stride = 2 * sums.len();
        for (block, sums) in sums.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let mut local = [_mm256_setzero_si256(); 8];
            for (row, values) in pairs.chunks_exact(stride).zip(values.as_chunks::<2>().0) {
                // Both values as one number of 32 bits, the first in the low half, as the
                // coefficients lie in memory.
                let both = (values[0] as u16 as u32 | (values[1] as u16 as u32) << 16) as i32;
                if both != 0 {
                    let both = _mm256_set1_epi32(both);
                    let row = &row[128 * block..][..128];
                    for (part, local) in local.iter_mut().enumerate() {
                        // SAFETY: the row's 128 coefficients are eight registers.
                        let coefficients =
                            unsafe { _mm256_loadu_si256(row.as_ptr().cast::<__m256i>().add(part)) };
                        // Eight sums get two products each.
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

    /// Whole numbers as they are; where there are others or larger ones, a second pass in the unit
    /// that the first one found.
    #[target_feature(enable = "avx2")]
    pub fn to_whole_into(values: &[f32], whole: &mut [i16]) -> f32 {
        let (wide, rest) = values.as_chunks::<16>();
        let (wide_whole, rest_whole) = whole.as_chunks_mut::<16>();
        let all_ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
        let without_sign = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
        // `exact` keeps its bits as long as every number of its lane was whole.
        let (mut largest, mut exact) = (_mm256_setzero_ps(), all_ones);
        for (values, whole) in wide.iter().zip(&mut *wide_whole) {
            let halves = load_floats(values);
            let rounded = halves.map(|half| _mm256_cvtps_epi32(half));
            for i in 0..2 {
                largest = _mm256_max_ps(largest, _mm256_and_ps(halves[i], without_sign));
                let back = _mm256_cvtepi32_ps(rounded[i]);
                exact = _mm256_and_ps(exact, _mm256_cmp_ps::<_CMP_EQ_OQ>(back, halves[i]));
            }
            // If the unit turns out to be one, this is the result already.
            store_words(rounded, whole);
        }
        // The lanes are joined, and up to fifteen values that fill no register are looked at.
        let mut largest = lanes(largest).into_iter().fold(0.0, f32::max);
        let mut exact = _mm256_movemask_ps(exact) == 0xff;
        for &value in rest {
            largest = largest.max(value.abs());
            exact &= (value as i32) as f32 == value;
        }
        let (unit, per_unit) = unit(largest, exact);
        if unit != 1.0 {
            let per_unit = _mm256_set1_ps(per_unit);
            for (values, whole) in wide.iter().zip(wide_whole) {
                let scaled = load_floats(values).map(|half| _mm256_mul_ps(half, per_unit));
                store_words(scaled.map(|half| _mm256_cvtps_epi32(half)), whole);
            }
        }
        // The values that fill no register were only looked at so far.
        portable::round(rest, per_unit, rest_whole);
        unit
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_floats(values: &[f32; 16]) -> [__m256; 2] {
        let start = values.as_ptr();
        // SAFETY: sixteen floats are two registers, unaligned.
        unsafe { [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))] }
    }

    /// Writes integers of 32 bits as 16, those that do not fit as the nearest that do.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_words(integers: [__m256i; 2], words: &mut [i16; 16]) {
        // Packing works within halves of a register: quarters of the first and of the second
        // register come by turns. The permutation 0, 2, 1, 3 puts those of the first together.
        let packed = _mm256_packs_epi32(integers[0], integers[1]);
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        // SAFETY: sixteen 16-bit numbers are a register, unaligned.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), packed) };
    }

    #[target_feature(enable = "avx2")]
    fn lanes(values: __m256) -> [f32; 8] {
        // SAFETY: eight floats, any bits of which are valid.
        unsafe { std::mem::transmute(values) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    pub use super::avx2::*;

    use super::{CodeLine, MOST_LINES, Query, tail};

    /// Codes that are compared together: their sums fill a register of 128 bits.
    const TOGETHER: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(line: &CodeLine) -> __m512i {
        // SAFETY: exactly the bytes that the reference covers, which are aligned to 64.
        unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
    }

    /// A query in registers, whose codes have `WIDE` wide lines. As the number is known to the
    /// compiler, no code is asked for it, and what does not change stays in registers.
    struct Loaded<const LINES: usize, const WIDE: usize> {
        steps: [[__m512i; 2]; LINES],
        /// Minus twice the weights, as the product counts in a distance. They meet the low half of
        /// each lane; the high half meets zero.
        wide_weight: __m512i,
        narrow_weight: __m512i,
        constant: __m128i,
    }

    impl<const LINES: usize, const WIDE: usize> Loaded<LINES, WIDE> {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn new(query: &Query<LINES>) -> Self {
            // By loops: what `map` calls would be compiled without the instructions of this level.
            let mut steps = [[_mm512_setzero_si512(); 2]; LINES];
            for (steps, [low, high]) in steps.iter_mut().zip(&query.steps) {
                *steps = [load(low), load(high)];
            }
            let [wide, narrow] = [query.format.wide_weight, query.format.narrow_weight];
            Self {
                steps,
                wide_weight: _mm512_set1_epi32((-2 * i32::from(wide)) & 0xffff),
                narrow_weight: _mm512_set1_epi32((-2 * i32::from(narrow)) & 0xffff),
                constant: _mm_set1_epi32(query.constant),
            }
        }

        /// The tail of a code less twice the weighted products, as a sum over all lanes.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn terms(&self, code: &[CodeLine; LINES]) -> __m512i {
            let low_bits = _mm512_set1_epi8(15);
            let zero = _mm512_setzero_si512();
            // A load of one lane, which makes zeros of the others. The query has zeros where the
            // tail stands in the last line.
            let mut terms = _mm512_zextsi128_si512(_mm_cvtsi32_si128(tail(code)));
            for (i, (line, steps)) in code.iter().zip(&self.steps).enumerate() {
                let line = load(line);
                // A lane has four products of a wide line, or eight of a narrow one. As above, they
                // are below 2¹⁵ together: the low half of the lane, which is multiplied by the
                // weight and added in one instruction.
                if i < WIDE {
                    let products = _mm512_dpbusd_epi32(zero, line, steps[0]);
                    terms = _mm512_dpwssd_epi32(terms, products, self.wide_weight);
                } else {
                    // There is no shift of bytes. Bits that come over from the next are masked.
                    let low = _mm512_and_si512(line, low_bits);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), low_bits);
                    let products = _mm512_dpbusd_epi32(zero, low, steps[0]);
                    let products = _mm512_dpbusd_epi32(products, high, steps[1]);
                    terms = _mm512_dpwssd_epi32(terms, products, self.narrow_weight);
                }
            }
            terms
        }

        /// The distances of four codes.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn distances(&self, codes: [&[CodeLine; LINES]; TOGETHER]) -> [u32; TOGETHER] {
            let (a, b) = (self.terms(codes[0]), self.terms(codes[1]));
            let (c, d) = (self.terms(codes[2]), self.terms(codes[3]));
            // Lanes 0, 1, 2 and 3 of each quarter become the sums of a, b, c and d in it: two
            // steps for four codes, where the lanes of each would be folded in four.
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let all =
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let half = _mm256_add_epi32(
                _mm512_castsi512_si256(all),
                _mm512_extracti64x4_epi64::<1>(all),
            );
            let sums = _mm_add_epi32(
                _mm256_castsi256_si128(half),
                _mm256_extracti128_si256::<1>(half),
            );
            let distances = _mm_add_epi32(sums, self.constant);
            let mut out = [0; TOGETHER];
            let positive = _mm_max_epi32(distances, _mm_setzero_si128());
            // SAFETY: four words of four bytes, unaligned.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), positive) };
            out
        }

        /// Writes the distances of the codes that `code` gives for the first places of
        /// `distances`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn write<'a>(
            query: &Query<LINES>,
            distances: &mut [u32],
            code: impl Fn(usize) -> &'a [CodeLine; LINES],
        ) {
            let query = Self::new(query);
            let (fours, rest) = distances.as_chunks_mut::<TOGETHER>();
            let mut at = 0;
            for four in fours {
                *four = query.distances([code(at), code(at + 1), code(at + 2), code(at + 3)]);
                at += TOGETHER;
            }
            if !rest.is_empty() {
                // The last code stands for those that are missing.
                let last = rest.len() - 1;
                let four = [0, 1, 2, 3].map(|i: usize| code(at + i.min(last)));
                let four = query.distances(four);
                rest.copy_from_slice(&four[..rest.len()]);
            }
        }
    }

    /// [`Loaded::write`] for the number of wide lines that the query's format has.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn write<'a, const LINES: usize>(
        query: &Query<LINES>,
        distances: &mut [u32],
        code: impl Fn(usize) -> &'a [CodeLine; LINES],
    ) {
        const { assert!(LINES <= MOST_LINES && MOST_LINES == 4) };
        match query.format.wide {
            0 => Loaded::<LINES, 0>::write(query, distances, code),
            1 => Loaded::<LINES, 1>::write(query, distances, code),
            2 => Loaded::<LINES, 2>::write(query, distances, code),
            3 => Loaded::<LINES, 3>::write(query, distances, code),
            _ => Loaded::<LINES, 4>::write(query, distances, code),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn scan_into<const LINES: usize>(
        query: &Query<LINES>,
        run: &[[CodeLine; LINES]],
        distances: &mut [u32],
    ) {
        let len = run.len().min(distances.len());
        write(query, &mut distances[..len], |at| &run[at]);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn score_into<const LINES: usize>(
        query: &Query<LINES>,
        codes: &[[CodeLine; LINES]],
        ids: &[u32],
        distances: &mut [u32],
    ) {
        let len = ids.len().min(distances.len());
        write(query, &mut distances[..len], |at| &codes[ids[at] as usize]);
    }

    /// Sums that stay in registers while their columns of all rows pass by.
    const BLOCK: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn add_checked_pairs(sums: &mut [i32], pairs: &[i16], values: &[i16]) {
        let width = sums.len();
        // Three blocks are twelve registers, and all sums of the usual codes: the coefficients are
        // then read in the order of memory.
        let (wide, rest) = sums.as_chunks_mut::<{ 3 * BLOCK }>();
        let mut first = 0;
        for sums in wide {
            add_columns::<12>(sums, &pairs[2 * first..], 2 * width, values);
            first += 3 * BLOCK;
        }
        for sums in rest.as_chunks_mut::<BLOCK>().0 {
            add_columns::<4>(sums, &pairs[2 * first..], 2 * width, values);
            first += BLOCK;
        }
    }

    /// Adds to `sums`, `REGISTERS` times 16, their columns of all rows. `pairs` begin with the
    /// first column in the first row, and rows begin `stride` coefficients apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add_columns<const REGISTERS: usize>(
        sums: &mut [i32],
        pairs: &[i16],
        stride: usize,
        values: &[i16],
    ) {
        let mut local = [_mm512_setzero_si512(); REGISTERS];
        for (row, values) in pairs.chunks(stride).zip(values.as_chunks::<2>().0) {
            // Both values as one number of 32 bits, the first in the low half, as the
            // coefficients lie in memory.
            let both = (values[0] as u16 as u32 | (values[1] as u16 as u32) << 16) as i32;
            if both != 0 {
                let both = _mm512_set1_epi32(both);
                let row = &row[..32 * REGISTERS];
                for (part, local) in local.iter_mut().enumerate() {
                    // SAFETY: the row's coefficients fill so many registers.
                    let coefficients =
                        unsafe { _mm512_loadu_si512(row.as_ptr().cast::<__m512i>().add(part)) };
                    // Sixteen sums get two products each.
                    *local = _mm512_dpwssd_epi32(*local, coefficients, both);
                }
            }
        }
        for (sums, local) in sums.as_chunks_mut::<16>().0.iter_mut().zip(local) {
            let at = sums.as_mut_ptr().cast::<__m512i>();
            // SAFETY: sixteen sums are a register, unaligned.
            unsafe { _mm512_storeu_si512(at, _mm512_add_epi32(_mm512_loadu_si512(at), local)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A format of two lines, none, one or both of them wide.
    fn formats() -> impl Strategy<Value = Format> {
        (0..=2usize, 1..=MOST_WEIGHT, 1..=MOST_WEIGHT).prop_map(|(wide, wide_weight, narrow)| {
            Format {
                lines: 2,
                wide,
                wide_weight,
                narrow_weight: narrow,
            }
        })
    }

    /// Coordinates, some of them outside of any range, fewer or more than there is room for.
    fn coordinates() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![-100f32..100.0, -1e4f32..1e4, Just(0.0)];
        prop::collection::vec(value, 0..280)
    }

    /// The places that a code holds, less that of zero: wide ones, then narrow ones by line.
    fn places(format: Format, code: &[CodeLine; 2]) -> (Vec<i64>, Vec<i64>) {
        let (mut wide, mut narrow) = (Vec::new(), Vec::new());
        for (i, line) in code.iter().enumerate() {
            let bytes = &line.0[..if i == 1 { 60 } else { 64 }];
            if i < format.wide {
                wide.extend(bytes.iter().map(|&byte| i64::from(byte) - 64));
            } else {
                narrow.extend(bytes.iter().map(|&byte| i64::from(byte & 15) - 8));
                narrow.extend(bytes.iter().map(|&byte| i64::from(byte >> 4) - 8));
            }
        }
        (wide, narrow)
    }

    /// A code of these coordinates, and what it adds to all distances.
    fn encode(format: Format, coordinates: &[f32], own: i32) -> [CodeLine; 2] {
        let mut code = [CodeLine::default(); 2];
        format.write(coordinates, &mut code);
        let (wide, narrow) = places(format, &code);
        let squares = |places: &[i64]| places.iter().map(|place| place * place).sum::<i64>();
        let length = i64::from(format.wide_weight) * squares(&wide)
            + 8 * i64::from(format.narrow_weight) * squares(&narrow);
        set_tail(&mut code, own + length as i32);
        code
    }

    proptest! {
        #[test]
        fn coordinates_are_rounded_to_the_nearest_place(
            format in formats(), coordinates in coordinates(),
        ) {
            let mut code = [CodeLine::default(); 2];
            let written = format.write(&coordinates, &mut code);
            let (wide, narrow) = places(format, &code);
            prop_assert_eq!(wide.len(), format.wide_coordinates());
            prop_assert_eq!(narrow.len(), format.narrow_coordinates());
            let (mut squares, mut rounded_off) = (0.0, 0.0);
            let kinds = [(wide, format.wide_step(), 64.0), (narrow, format.narrow_step(), 8.0)];
            let mut values = coordinates.iter().copied();
            for (places, step, zero) in kinds {
                for place in places {
                    let value = values.next().unwrap_or(0.0);
                    let nearest = (value / step).clamp(-zero, zero - 1.0);
                    prop_assert!((place as f32 - nearest).abs() <= 0.501, "{value} {step} {place}");
                    squares += (place as f32 * step).powi(2);
                    rounded_off += (value - place as f32 * step).powi(2);
                }
            }
            prop_assert!((written.squares - squares).abs() <= 1e-3 * squares);
            prop_assert!((written.rounded_off - rounded_off).abs() <= 1e-3 * rounded_off + 0.1);
        }

        #[test]
        fn distances_of_codes_are_those_of_the_definition(
            format in formats(),
            rows in prop::collection::vec((coordinates(), -1_000_000..1_000_000i32), 9),
        ) {
            let codes: Vec<_> = rows.iter().map(|(row, own)| encode(format, row, *own)).collect();
            let first = places(format, &codes[0]);
            let expected: Vec<u32> = codes.iter().zip(&rows).map(|(code, (_, own))| {
                let other = places(format, code);
                let squares = |a: &[i64], b: &[i64]| -> i64 {
                    a.iter().zip(b).map(|(a, b)| (a - b).pow(2)).sum()
                };
                let distance = i64::from(format.wide_weight) * squares(&first.0, &other.0)
                    + 8 * i64::from(format.narrow_weight) * squares(&first.1, &other.1);
                (distance + i64::from(*own) + i64::from(rows[0].1)).max(0) as u32
            }).collect();
            check_kernels(&Query::of_code(format, &codes[0]), &codes, &expected)?;
        }

        #[test]
        fn a_query_is_rounded_finer_than_the_codes(
            format in formats(),
            rows in prop::collection::vec(coordinates(), 9),
        ) {
            let codes: Vec<_> = rows.iter().map(|row| encode(format, row, 0)).collect();
            let query = Query::<2>::new(format, &rows[0], 0.0);
            let mut distances = Vec::new();
            scan(&query, &codes, &mut distances);
            check_kernels(&query, &codes, &distances)?;
            // The definition, of the query in its steps: whole ones, and eighths.
            let eighth = format.narrow_step() / 8.0;
            let limits = [(format.wide_step(), 64.0, 63.0), (eighth, 127.0, 127.0)];
            let mut values = rows[0].iter().copied();
            let mut rounded = Vec::new();
            for (count, (step, below, above)) in
                [format.wide_coordinates(), format.narrow_coordinates()].into_iter().zip(limits)
            {
                for _ in 0..count {
                    let place = (values.next().unwrap_or(0.0) / step).clamp(-below, above).round();
                    rounded.push(f64::from(place * step));
                }
            }
            for (code, &distance) in codes.iter().zip(&distances) {
                let (wide, narrow) = places(format, code);
                let wide = wide.iter().map(|&place| place as f64 * f64::from(format.wide_step()));
                let step = f64::from(format.narrow_step());
                let all = wide.chain(narrow.iter().map(|&place| place as f64 * step));
                let expected: f64 = all.zip(&rounded).map(|(a, b)| (a - b).powi(2)).sum();
                let length: f64 = rounded.iter().map(|value| value * value).sum();
                // A place half-way may be rounded either way; lengths are added up in f32.
                let limit = 1e-3 * (expected + length) + 100.0;
                prop_assert!((f64::from(distance) - expected).abs() <= limit);
            }
        }

        #[test]
        fn weighted_pairs_are_a_matrix_product(
            values in prop::collection::vec(prop_oneof![Just(0i16), -2_047..2_047i16], 6),
            pairs in prop::collection::vec(any::<i16>(), 6 * COLUMNS),
        ) {
            let expected: Vec<i32> = (0..COLUMNS)
                .map(|column| {
                    let pair = |i: usize| pairs[(i / 2 * COLUMNS + column) * 2 + i % 2];
                    1 + (0..6).map(|i| i32::from(values[i]) * i32::from(pair(i))).sum::<i32>()
                })
                .collect();
            let (mut sums, mut portable) = (vec![1; COLUMNS], vec![1; COLUMNS]);
            add_weighted_pairs(&mut sums, &pairs, &values);
            portable::add_checked_pairs(&mut portable, &pairs, &values);
            prop_assert_eq!(&sums, &expected);
            prop_assert_eq!(&portable, &expected);
        }

        #[test]
        fn whole_numbers_are_near_and_pixels_are_exact(
            values in prop::collection::vec(-1e9f32..1e9, 1..50),
            pixels: Vec<u8>,
        ) {
            let portable = |values: &[f32], whole: &mut Vec<i16>| {
                whole.resize(values.len(), 0);
                portable::to_whole_into(values, whole)
            };
            for form in [to_whole, portable] {
                let mut whole = Vec::new();
                let unit = form(&values, &mut whole);
                for (&whole, value) in whole.iter().zip(&values) {
                    prop_assert!((f32::from(whole) * unit - value).abs() <= 0.501 * unit);
                }
                let pixels: Vec<f32> = pixels.iter().map(|&value| value.into()).collect();
                prop_assert_eq!(form(&pixels, &mut whole), 1.0);
                let back: Vec<f32> = whole.iter().map(|&whole| whole.into()).collect();
                prop_assert_eq!(back, pixels);
            }
        }
    }

    /// Sums of a matrix product: three blocks of 64, which the AVX-512 form takes together, and
    /// two.
    const COLUMNS: usize = 5 * 64;

    /// All forms of the kernels give these distances.
    fn check_kernels(
        query: &Query<2>,
        codes: &[[CodeLine; 2]],
        expected: &[u32],
    ) -> Result<(), TestCaseError> {
        let (mut scanned, mut scored) = (vec![5], vec![7; 20]);
        scan(query, codes, &mut scanned);
        prop_assert_eq!(&scanned[1..], expected);
        score(query, codes, &[8, 0, 3], &mut scored);
        prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
        portable::scan_into(query, codes, &mut scanned[1..]);
        prop_assert_eq!(&scanned[1..], expected);
        portable::score_into(query, codes, &[8, 0, 3], &mut scored);
        prop_assert_eq!(&scored, &[expected[8], expected[0], expected[3]]);
        Ok(())
    }

    #[test]
    fn numbers_too_small_to_divide_by_become_zero() {
        let mut whole = Vec::new();
        to_whole(&[1e-44, 0.0], &mut whole);
        assert_eq!(whole, [0, 0]);
    }
}
