//! Many vectors against many: scalar products, the way matrix products are made fast.
//!
//! The naive form:
//!
//! ```text
//! for each point { for each query { out.push(Σ pointᵢ·queryᵢ) } }
//! ```
//!
//! It loads two values for each multiplication. A tile of 6 points × 16 queries loads 22 for 96:
//!
//! ```text
//!                    panel: 16 queries, one line a dimension
//!                    q0 q1 q2 ... q15
//! tile:        p0     ·  ·  ·      ·      each · is a sum that stays in a register
//! 6 points     p1     ·  ·  ·      ·      until all dimensions have passed:
//!              ...                        6 × 2 of the 16 AVX registers
//!              p5     ·  ·  ·      ·
//! ```
//!
//! With AVX-512 a line is one register. There a tile meets two panels at once: 6 × 2 of the 32
//! registers, for 8 loads.
//!
//! The queries are packed into panels of 16, dimension by dimension, so that one register holds one
//! dimension of eight queries. The points are packed by sixes likewise and are broadcast value by
//! value. A panel's chunk stays in the first-level cache while all points of a block pass by; the
//! block stays in the second level while all panels pass by (Goto and van de Geijn, *Anatomy of
//! High-Performance Matrix Multiplication*, ACM TOMS 34(3), 2008, with the selection of neighbours
//! in place of the stored product).
//!
//! What can go wrong is overflow, of bytes: see the implementation of [`Word`] for `[u8; 4]`.

use super::LINE_WORDS;
pub(crate) use super::Line;

/// Queries of a panel.
pub(crate) const QUERIES: usize = LINE_WORDS;
/// Points of a tile.
pub(crate) const POINTS: usize = 6;
/// Panels that a tile meets at once.
pub(crate) const TOGETHER: usize = 2;
/// Lines of a panel that are multiplied at once: 800 lines of 64 bytes, 50 KiB.
///
/// After each chunk the sums of a tile are written to memory, and the next chunk reads them again.
/// So a chunk should be long. It may be longer than the first-level cache: a panel is read in
/// order, and the second-level cache delivers it faster than it is used.
const CHUNK: usize = 800;

/// Four bytes of a vector: one dimension as `f32`, or four as `[u8; 4]`.
pub(crate) trait Word: Copy + Default + Send + Sync {
    /// What products are added in.
    type Sum: Copy + Default;

    /// Adds to `sums[n][p].0[q]` the product of point p and query q of panel n. Points and panels
    /// have equally many words.
    fn accumulate<const PANELS: usize>(
        points: &[[Self; POINTS]],
        panels: [&[Line<Self>]; PANELS],
        sums: [&mut [Line<Self::Sum>; POINTS]; PANELS],
    );

    /// The first row from `from` on with a query for which `norm − 2·sum > limit` does **not**
    /// hold, and these queries as a bit mask. With a NaN the comparison does not hold, so that the
    /// row is near and will be compared exactly.
    fn next_near(
        sums: &[Line<Self::Sum>],
        norms: &[Self::Sum],
        limits: &Line<Self::Sum>,
        from: usize,
    ) -> Option<(usize, u32)>;
}

impl Word for f32 {
    type Sum = f32;

    fn accumulate<const PANELS: usize>(
        points: &[[f32; POINTS]],
        panels: [&[Line<f32>]; PANELS],
        sums: [&mut [Line<f32>; POINTS]; PANELS],
    ) {
        accumulate_floats(points, panels, sums);
    }

    fn next_near(
        sums: &[Line<f32>],
        norms: &[f32],
        limits: &Line<f32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        next_near_float(sums, norms, limits, from)
    }
}

/// The values of points have no sign, those of queries are two's complement, and both are in the
/// range that [`ranges`] tells. There are at most 2¹⁴ dimensions, so that the sums fit in 31
/// bits: 255 · 128 · 2¹⁴ < 2³⁰.
///
/// The form for AVX2 adds eight products in 16 bits before it goes over to 32, so that its products
/// are at most 2¹² in size.
impl Word for [u8; 4] {
    type Sum = i32;

    fn accumulate<const PANELS: usize>(
        points: &[[Self; POINTS]],
        panels: [&[Line<Self>]; PANELS],
        sums: [&mut [Line<i32>; POINTS]; PANELS],
    ) {
        accumulate_bytes(points, panels, sums);
    }

    fn next_near(
        sums: &[Line<i32>],
        norms: &[i32],
        limits: &Line<i32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        next_near_integer(sums, norms, limits, from)
    }
}

/// What the bytes of tiles may be: the greatest value of a point, and the size of the least value
/// of a query, whose greatest is one less.
///
/// Where it can be, bytes are multiplied as they are: 255 and 128. A query's bytes are then moved
/// by 128.
pub(crate) fn ranges() -> (u8, u8) {
    match super::level() {
        super::Level::Avx2 => (64, 64),
        super::Level::Portable | super::Level::Avx512 => (255, 128),
    }
}

dispatch! {
    /// [`Word::accumulate`] of floats.
    #[inline]
    fn accumulate_floats<const PANELS: usize>(
        points: &[[f32; POINTS]],
        panels: [&[Line<f32>]; PANELS],
        sums: [&mut [Line<f32>; POINTS]; PANELS],
    );
    /// [`Word::accumulate`] of bytes.
    #[inline]
    fn accumulate_bytes<const PANELS: usize>(
        points: &[[[u8; 4]; POINTS]],
        panels: [&[Line<[u8; 4]>]; PANELS],
        sums: [&mut [Line<i32>; POINTS]; PANELS],
    );
    /// [`Word::next_near`] of floats.
    #[inline]
    fn next_near_float(
        sums: &[Line<f32>],
        norms: &[f32],
        limits: &Line<f32>,
        from: usize,
    ) -> Option<(usize, u32)>;
    /// [`Word::next_near`] of integers.
    #[inline]
    fn next_near_integer(
        sums: &[Line<i32>],
        norms: &[i32],
        limits: &Line<i32>,
        from: usize,
    ) -> Option<(usize, u32)>;
}

/// What [`round`] or [`round_floats`] made of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rounded<L> {
    /// Sum of the codes.
    pub sum: i32,
    /// Sum of their squares.
    pub squares: i32,
    /// Squared distance of the row from what its codes stand for: of floats, as f32 has it.
    pub lost: L,
}

/// The partial sums in which [`round_floats`] adds: one AVX register.
pub(crate) const LANES: usize = 8;

dispatch! {
    /// Writes codes that stand for `low + step · code`, each about the nearest to the value that
    /// is at most `most`. Sums fit in 31 bits for up to 2¹⁴ values, as squares are below 2¹⁶.
    pub(crate) fn round(
        row: &[u8],
        low: u8,
        step: u8,
        most: u8,
        codes: &mut [u8],
    ) -> Rounded<i32> = portable::round;
    /// The same of floats, in `f32` arithmetic.
    pub(crate) fn round_floats(
        row: &[f32],
        low: f32,
        step: f32,
        most: u8,
        codes: &mut [u8],
    ) -> Rounded<f32> = portable::round_floats;
}

/// Queries packed for [`Word::accumulate`]: panels of 16, the last one filled up with zeros.
#[derive(Debug)]
pub(crate) struct Panels<W> {
    words: usize,
    lines: Vec<Line<W>>,
}

impl<W: Word> Panels<W> {
    /// Packs rows of `words` words each.
    pub(crate) fn pack(rows: &[W], words: usize) -> Self {
        let mut lines = vec![Line::default(); (rows.len() / words).div_ceil(QUERIES) * words];
        for (row, values) in rows.chunks_exact(words).enumerate() {
            // The first line of the row's panel; the row is one of the 16 columns of that panel.
            let panel = row / QUERIES * words;
            for (line, &value) in lines[panel..panel + words].iter_mut().zip(values) {
                line.0[row % QUERIES] = value;
            }
        }
        Self { words, lines }
    }

    /// The number of panels.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() / self.words
    }

    /// Writes the products of the points and of the panels from `first` on, one or [`TOGETHER`] of
    /// them: `sums[n · points + p].0[q]` is that of point p and query q of panel `first` + n.
    pub(crate) fn products(&self, first: usize, points: &Tiles<W>, sums: &mut [Line<W::Sum>]) {
        // `accumulate` adds to the sums, chunk after chunk, so they start at zero.
        sums.fill(Line::default());
        let rows = points.values.len() / self.words * POINTS;
        if sums.len() == rows {
            self.add_products([first], points, [sums]);
        } else {
            let (left, right) = sums.split_at_mut(rows);
            self.add_products([first, first + 1], points, [left, right]);
        }
    }

    /// Adds the products of some panels to the sums of each.
    fn add_products<const PANELS: usize>(
        &self,
        panels: [usize; PANELS],
        points: &Tiles<W>,
        sums: [&mut [Line<W::Sum>]; PANELS],
    ) {
        let lines = panels.map(|panel| &self.lines[panel * self.words..(panel + 1) * self.words]);
        let mut sums = sums.map(|sums| sums.as_chunks_mut::<POINTS>().0);
        // The chunk is the outer loop: its lines stay in the cache while all tiles of the block
        // pass by.
        for start in (0..self.words).step_by(CHUNK) {
            let end = (start + CHUNK).min(self.words);
            let chunks = lines.map(|lines| &lines[start..end]);
            for (at, tile) in points.values.chunks_exact(self.words).enumerate() {
                let sums = sums.each_mut().map(|sums| &mut sums[at]);
                W::accumulate(&tile[start..end], chunks, sums);
            }
        }
    }
}

/// Points packed for [`Word::accumulate`]: tiles of 6, word by word.
#[derive(Debug)]
pub(crate) struct Tiles<W> {
    words: usize,
    values: Vec<[W; POINTS]>,
}

impl<W: Word> Tiles<W> {
    /// `count` tiles of points of `words` words each, all zero.
    pub(crate) fn zeros(count: usize, words: usize) -> Self {
        Self {
            words,
            values: vec![[W::default(); POINTS]; count * words],
        }
    }

    /// Overwrites point `point`.
    pub(crate) fn set(&mut self, point: usize, values: &[W]) {
        // The first word of the point's tile; the point is one of the 6 columns of that tile.
        let tile = point / POINTS * self.words;
        for (out, &value) in self.values[tile..tile + self.words].iter_mut().zip(values) {
            out[point % POINTS] = value;
        }
    }
}

mod portable {
    use super::{LANES, Line, POINTS, QUERIES, Rounded};

    #[inline(always)]
    pub fn round(row: &[u8], low: u8, step: u8, most: u8, codes: &mut [u8]) -> Rounded<i32> {
        // SIMD has no division of integers. So the value is multiplied by 256 / step and shifted by
        // eight bits; adding 128 first rounds to the nearest. The product fits in 16 bits:
        // 255 · 256 + 128 < 2¹⁶. As 256 / step is rounded down, the code may be one too small.
        // That is no error in the result: `lost` is measured with the code that was chosen.
        let inverse = 256 / u16::from(step);
        let mut all = Rounded::default();
        for (out, &value) in codes.iter_mut().zip(row) {
            let steps = (u16::from(value.saturating_sub(low)) * inverse + 128) >> 8;
            let code = steps.min(u16::from(most));
            // Values below `low` or beyond the last code are cut off, and may lose more than a
            // step.
            let lost = i32::from(value) - i32::from(low) - i32::from(step) * i32::from(code);
            *out = code as u8;
            all.sum += i32::from(code);
            all.squares += i32::from(code) * i32::from(code);
            all.lost += lost * lost;
        }
        all
    }

    #[inline(always)]
    pub fn round_floats(
        row: &[f32],
        low: f32,
        step: f32,
        most: u8,
        codes: &mut [u8],
    ) -> Rounded<f32> {
        /// From 2²³ to 2²⁴ the floats are exactly the integers. So adding 2²³ rounds a small
        /// number to the nearest integer, and that integer stands in the last bits of the sum.
        const WHOLE: f32 = (1 << 23) as f32;
        let (inverse, most) = (1.0 / step, f32::from(most));
        // The sums are kept lane by lane. The compiler may not reorder additions of floats, so a
        // single sum would keep this loop out of SIMD.
        let (mut sum, mut squares, mut lost) = ([0u32; LANES], [0u32; LANES], [0.0; LANES]);
        let mut add = |codes: &mut [u8], values: &[f32]| {
            for (lane, (out, &value)) in codes.iter_mut().zip(values).enumerate() {
                let value = value - low;
                let whole = (value * inverse).clamp(0.0, most) + WHOLE;
                // The code is at most 255: the last eight bits.
                let code = whole.to_bits() & 0xff;
                // Taking 2²³ away again is exact and leaves the code as a float.
                let rest = value - (whole - WHOLE) * step;
                *out = code as u8;
                sum[lane] += code;
                squares[lane] += code * code;
                lost[lane] += rest * rest;
            }
        };
        let (wide_codes, last_codes) = codes.as_chunks_mut::<LANES>();
        let (wide, last) = row.as_chunks::<LANES>();
        for (codes, values) in wide_codes.iter_mut().zip(wide) {
            add(codes, values);
        }
        // Fewer than eight values are left; they go to the first lanes.
        add(last_codes, last);
        Rounded {
            sum: sum.iter().sum::<u32>() as i32,
            squares: squares.iter().sum::<u32>() as i32,
            lost: lost.iter().sum(),
        }
    }

    pub fn accumulate_floats<const PANELS: usize>(
        points: &[[f32; POINTS]],
        panels: [&[Line<f32>]; PANELS],
        sums: [&mut [Line<f32>; POINTS]; PANELS],
    ) {
        for (panel, sums) in panels.into_iter().zip(sums) {
            accumulate(points, panel, sums, |sum, point, query| sum + point * query);
        }
    }

    pub fn accumulate_bytes<const PANELS: usize>(
        points: &[[[u8; 4]; POINTS]],
        panels: [&[Line<[u8; 4]>]; PANELS],
        sums: [&mut [Line<i32>; POINTS]; PANELS],
    ) {
        for (panel, sums) in panels.into_iter().zip(sums) {
            accumulate(points, panel, sums, |mut sum, point, query| {
                for i in 0..4 {
                    sum += i32::from(point[i]) * i32::from(query[i].cast_signed());
                }
                sum
            });
        }
    }

    /// Adds by `add` the products of all points of the tile and all queries of the panel.
    #[inline(always)]
    fn accumulate<W: Copy, S: Copy>(
        points: &[[W; POINTS]],
        panel: &[Line<W>],
        sums: &mut [Line<S>; POINTS],
        add: impl Fn(S, W, W) -> S,
    ) {
        for (values, line) in points.iter().zip(panel) {
            for (&value, sums) in values.iter().zip(&mut *sums) {
                for query in 0..QUERIES {
                    sums.0[query] = add(sums.0[query], value, line.0[query]);
                }
            }
        }
    }

    pub fn next_near_float(
        sums: &[Line<f32>],
        norms: &[f32],
        limits: &Line<f32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        // Not the same as `<=`: a NaN is near.
        #[expect(clippy::neg_cmp_op_on_partial_ord)]
        let near = |sum: f32, norm: f32, limit: f32| !(norm - 2.0 * sum > limit);
        next_near(sums, norms, limits, from, near)
    }

    pub fn next_near_integer(
        sums: &[Line<i32>],
        norms: &[i32],
        limits: &Line<i32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        let near = |sum: i32, norm: i32, limit: i32| norm - 2 * sum <= limit;
        next_near(sums, norms, limits, from, near)
    }

    /// The first row with a query that is `near`, and these queries as a mask.
    #[inline(always)]
    fn next_near<S: Copy>(
        sums: &[Line<S>],
        norms: &[S],
        limits: &Line<S>,
        from: usize,
        near: impl Fn(S, S, S) -> bool,
    ) -> Option<(usize, u32)> {
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            let mut mask = 0;
            for query in 0..QUERIES {
                mask |= u32::from(near(sums.0[query], norm, limits.0[query])) << query;
            }
            if mask != 0 {
                return Some((row, mask));
            }
        }
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Line, POINTS};

    /// Words whose products are added in 16 bits. Each adds two products to a lane, so that a
    /// lane gets eight in all. The least sum is 8 · 64 · −64 = −2¹⁵, which just fits. The
    /// largest is 8 · 64 · 63, which is below 2¹⁵.
    const SHORT: usize = 4;

    #[target_feature(enable = "avx2,fma")]
    pub fn accumulate_floats<const PANELS: usize>(
        points: &[[f32; POINTS]],
        panels: [&[Line<f32>]; PANELS],
        sums: [&mut [Line<f32>; POINTS]; PANELS],
    ) {
        for (panel, sums) in panels.into_iter().zip(sums) {
            floats_of_a_panel(points, panel, sums);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn floats_of_a_panel(
        points: &[[f32; POINTS]],
        panel: &[Line<f32>],
        sums: &mut [Line<f32>; POINTS],
    ) {
        // Twelve registers of sums. With the two halves of a line and one broadcast value, 15 of
        // the 16 registers are in use.
        let mut tile = [[_mm256_setzero_ps(); 2]; POINTS];
        for (values, line) in points.iter().zip(panel) {
            let line = line.0.as_ptr();
            // SAFETY: a line is sixteen aligned floats.
            let (left, right) = unsafe { (_mm256_load_ps(line), _mm256_load_ps(line.add(8))) };
            for (&value, tile) in values.iter().zip(&mut tile) {
                // Each value of a point meets both halves of the line: two fused multiply-adds.
                let value = _mm256_set1_ps(value);
                tile[0] = _mm256_fmadd_ps(value, left, tile[0]);
                tile[1] = _mm256_fmadd_ps(value, right, tile[1]);
            }
        }
        // Only here do the sums of this chunk meet those of the chunks before.
        for (sums, tile) in sums.iter_mut().zip(&tile) {
            let sums = sums.0.as_mut_ptr();
            // SAFETY: a line is sixteen aligned floats.
            unsafe {
                _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), tile[0]));
                _mm256_store_ps(
                    sums.add(8),
                    _mm256_add_ps(_mm256_load_ps(sums.add(8)), tile[1]),
                );
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn accumulate_bytes<const PANELS: usize>(
        points: &[[[u8; 4]; POINTS]],
        panels: [&[Line<[u8; 4]>]; PANELS],
        sums: [&mut [Line<i32>; POINTS]; PANELS],
    ) {
        for (panel, sums) in panels.into_iter().zip(sums) {
            two_points::<0>(points, panel, sums);
            two_points::<2>(points, panel, sums);
            two_points::<4>(points, panel, sums);
        }
    }

    /// The points `FIRST..FIRST + 2` of the tile. A point needs two registers of 32-bit sums and
    /// two of 16-bit sums, so that two points take 8 of the 16 registers. Three would take 12, and
    /// the compiler kept some of what it needs besides on the stack. There a register may lie
    /// across two cache lines, which made the whole search take twice as long, or not, by where the
    /// stack of its thread began.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn two_points<const FIRST: usize>(
        points: &[[[u8; 4]; POINTS]],
        panel: &[Line<[u8; 4]>],
        sums: &mut [Line<i32>; POINTS],
    ) {
        let zero = [[_mm256_setzero_si256(); 2]; 2];
        let ones = _mm256_set1_epi16(1);
        let mut tile = zero;
        let len = points.len().min(panel.len());
        // Groups of four words are added in 16 bits; up to three words remain.
        let (points, rest_points) = points[..len].as_chunks::<SHORT>();
        let (panel, rest_panel) = panel[..len].as_chunks::<SHORT>();
        for (points, panel) in points.iter().zip(panel) {
            let mut short = zero;
            for i in 0..SHORT {
                add_products::<FIRST>(&points[i], &panel[i], &mut short);
            }
            // Multiplying by one adds the two 16-bit sums of each query in 32 bits. The loops count
            // to constants, so that they are unrolled and the sums stay in registers.
            for point in 0..2 {
                for half in 0..2 {
                    let sums = _mm256_madd_epi16(short[point][half], ones);
                    tile[point][half] = _mm256_add_epi32(tile[point][half], sums);
                }
            }
        }
        // The words that remain are fewer than `SHORT`, so their sums fit in 16 bits as well.
        let mut short = zero;
        for (points, line) in rest_points.iter().zip(rest_panel) {
            add_products::<FIRST>(points, line, &mut short);
        }
        for ((sums, tile), short) in sums[FIRST..].iter_mut().zip(&tile).zip(&short) {
            let sums = sums.0.as_mut_ptr().cast::<__m256i>();
            for half in 0..2 {
                // The 32-bit sums, the short sums that remain, and those of the chunks before.
                let more = _mm256_add_epi32(tile[half], _mm256_madd_epi16(short[half], ones));
                // SAFETY: a line is sixteen aligned words of four bytes.
                unsafe {
                    _mm256_store_si256(
                        sums.add(half),
                        _mm256_add_epi32(_mm256_load_si256(sums.add(half)), more),
                    )
                };
            }
        }
    }

    /// Adds one word's products to sums of 16 bits, two a query.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_products<const FIRST: usize>(
        points: &[[u8; 4]; POINTS],
        line: &Line<[u8; 4]>,
        short: &mut [[__m256i; 2]; 2],
    ) {
        let line = line.0.as_ptr().cast::<__m256i>();
        // SAFETY: a line is sixteen aligned words of four bytes.
        let (left, right) = unsafe { (_mm256_load_si256(line), _mm256_load_si256(line.add(1))) };
        // A lane of 32 bits is one query: it meets the same four bytes of the point. The
        // instruction takes its first operand without a sign and its second with one. So the point,
        // 0..=64, comes first. It adds the products in pairs.
        for (&point, short) in points[FIRST..].iter().zip(short) {
            let point = _mm256_set1_epi32(i32::from_le_bytes(point));
            short[0] = _mm256_add_epi16(short[0], _mm256_maddubs_epi16(point, left));
            short[1] = _mm256_add_epi16(short[1], _mm256_maddubs_epi16(point, right));
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn next_near_float(
        sums: &[Line<f32>],
        norms: &[f32],
        limits: &Line<f32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        let limit = limits.0.as_ptr();
        // SAFETY: a line is sixteen aligned floats.
        let limit = unsafe { [_mm256_load_ps(limit), _mm256_load_ps(limit.add(8))] };
        let two = _mm256_set1_ps(2.0);
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            let norm = _mm256_set1_ps(norm);
            let mut mask = 0;
            for (half, &limit) in limit.iter().enumerate() {
                // SAFETY: as above.
                let sum = unsafe { _mm256_load_ps(sums.0.as_ptr().add(8 * half)) };
                // norm − 2·sum. Doubling is exact, so this rounds once, as the portable form
                // does.
                let key = _mm256_fnmadd_ps(two, sum, norm);
                // "Not greater, or unordered": true for a NaN too.
                let near = _mm256_cmp_ps::<_CMP_NGT_UQ>(key, limit);
                // One bit a query: the left half in bits 0..8, the right half in bits 8..16.
                mask |= (_mm256_movemask_ps(near) as u32) << (8 * half);
            }
            if mask != 0 {
                return Some((row, mask));
            }
        }
        None
    }

    #[target_feature(enable = "avx2")]
    pub fn next_near_integer(
        sums: &[Line<i32>],
        norms: &[i32],
        limits: &Line<i32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        let limit = limits.0.as_ptr().cast::<__m256i>();
        // SAFETY: a line is sixteen aligned words of four bytes.
        let limit = unsafe { [_mm256_load_si256(limit), _mm256_load_si256(limit.add(1))] };
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            let norm = _mm256_set1_epi32(norm);
            let mut mask = 0;
            for (half, &limit) in limit.iter().enumerate() {
                // SAFETY: as above.
                let sum = unsafe { _mm256_load_si256(sums.0.as_ptr().cast::<__m256i>().add(half)) };
                // Doubling is a shift; sums are at most 2²⁶ in size.
                let key = _mm256_sub_epi32(norm, _mm256_slli_epi32::<1>(sum));
                // AVX2 compares integers by "greater" only, so the mask of the far ones is
                // inverted. The cast changes no bit: the mask instruction for 32-bit lanes wants
                // floats.
                let far = _mm256_castsi256_ps(_mm256_cmpgt_epi32(key, limit));
                mask |= (!_mm256_movemask_ps(far) as u32 & 0xff) << (8 * half);
            }
            if mask != 0 {
                return Some((row, mask));
            }
        }
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Line, POINTS};

    #[target_feature(enable = "avx512f")]
    pub fn accumulate_floats<const PANELS: usize>(
        points: &[[f32; POINTS]],
        panels: [&[Line<f32>]; PANELS],
        sums: [&mut [Line<f32>; POINTS]; PANELS],
    ) {
        // As many lines as there are words, so that none is tested again in the loop.
        let panels = panels.map(|panel| &panel[..points.len()]);
        let mut tile = [[_mm512_setzero_ps(); POINTS]; PANELS];
        for (word, values) in points.iter().enumerate() {
            let lines = panels.map(|panel| load_floats(&panel[word]));
            for (point, &value) in values.iter().enumerate() {
                let value = _mm512_set1_ps(value);
                for (tile, &line) in tile.iter_mut().zip(&lines) {
                    tile[point] = _mm512_fmadd_ps(value, line, tile[point]);
                }
            }
        }
        // Only here do the sums of this chunk meet those of the chunks before.
        for (sums, tile) in sums.into_iter().zip(&tile) {
            for (sums, &tile) in sums.iter_mut().zip(tile) {
                let all = _mm512_add_ps(load_floats(sums), tile);
                // SAFETY: a line is sixteen aligned floats.
                unsafe { _mm512_store_ps(sums.0.as_mut_ptr(), all) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn accumulate_bytes<const PANELS: usize>(
        points: &[[[u8; 4]; POINTS]],
        panels: [&[Line<[u8; 4]>]; PANELS],
        sums: [&mut [Line<i32>; POINTS]; PANELS],
    ) {
        let panels = panels.map(|panel| &panel[..points.len()]);
        let mut tile = [[_mm512_setzero_si512(); POINTS]; PANELS];
        for (word, values) in points.iter().enumerate() {
            let lines = panels.map(|panel| load_words(&panel[word]));
            for (point, &value) in values.iter().enumerate() {
                // A lane of 32 bits is one query: it meets the same four bytes of the point. The
                // instruction adds four products of a byte without a sign and one with a sign to
                // the sum of the lane, in 32 bits.
                let value = _mm512_set1_epi32(i32::from_le_bytes(value));
                for (tile, &line) in tile.iter_mut().zip(&lines) {
                    tile[point] = _mm512_dpbusd_epi32(tile[point], value, line);
                }
            }
        }
        for (sums, tile) in sums.into_iter().zip(&tile) {
            for (sums, &tile) in sums.iter_mut().zip(tile) {
                let all = _mm512_add_epi32(load_words(sums), tile);
                // SAFETY: a line is sixteen aligned words of four bytes.
                unsafe { _mm512_store_si512(sums.0.as_mut_ptr().cast(), all) };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_floats(line: &Line<f32>) -> __m512 {
        // SAFETY: a line is sixteen aligned floats.
        unsafe { _mm512_load_ps(line.0.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_words<W: bytemuck::Pod>(line: &Line<W>) -> __m512i {
        const { assert!(size_of::<Line<W>>() == size_of::<__m512i>()) };
        // SAFETY: a line is as long as a register, aligned to its own length, and its words are
        // plain bits.
        unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    pub fn next_near_float(
        sums: &[Line<f32>],
        norms: &[f32],
        limits: &Line<f32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        let (limits, two) = (load_floats(limits), _mm512_set1_ps(2.0));
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            // norm − 2·sum. Doubling is exact, so this rounds once, as the portable form does.
            let key = _mm512_fnmadd_ps(two, load_floats(sums), _mm512_set1_ps(norm));
            // "Not greater, or unordered": true for a NaN too.
            let near = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(key, limits);
            if near != 0 {
                return Some((row, near.into()));
            }
        }
        None
    }

    #[target_feature(enable = "avx512f")]
    pub fn next_near_integer(
        sums: &[Line<i32>],
        norms: &[i32],
        limits: &Line<i32>,
        from: usize,
    ) -> Option<(usize, u32)> {
        let limits = load_words(limits);
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            // Doubling is a shift; sums are below 2³⁰ in size.
            let twice = _mm512_slli_epi32::<1>(load_words(sums));
            let key = _mm512_sub_epi32(_mm512_set1_epi32(norm), twice);
            let near = _mm512_cmple_epi32_mask(key, limits);
            if near != 0 {
                return Some((row, near.into()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Row-major products by the definition, in f64.
    fn naive<W: Copy>(
        rows: &[W],
        queries: &[W],
        words: usize,
        product: impl Fn(W, W) -> f64,
    ) -> Vec<Vec<f64>> {
        let dot = |a: &[W], b: &[W]| a.iter().zip(b).map(|(&a, &b)| product(a, b)).sum();
        rows.chunks(words)
            .map(|row| queries.chunks(words).map(|query| dot(row, query)).collect())
            .collect()
    }

    fn products<W: Word>(rows: &[W], queries: &[W], words: usize) -> Vec<Vec<W::Sum>> {
        let panels = Panels::pack(queries, words);
        assert_eq!(panels.len(), (queries.len() / words).div_ceil(QUERIES));
        let mut out = vec![Vec::new(); rows.len() / words];
        let mut points = Tiles::zeros(rows.len() / words / POINTS, words);
        for (point, row) in rows.chunks_exact(words).enumerate() {
            points.set(point, row);
        }
        for first in (0..panels.len()).step_by(TOGETHER) {
            let together = TOGETHER.min(panels.len() - first);
            let mut sums = vec![Line::default(); together * out.len()];
            panels.products(first, &points, &mut sums);
            for sums in sums.chunks(out.len()) {
                for (out, sums) in out.iter_mut().zip(sums) {
                    out.extend(sums.0);
                }
            }
        }
        out.iter_mut()
            .for_each(|row| row.truncate(queries.len() / words));
        out
    }

    fn product([a, b, c, d]: [u8; 4], [e, f, g, h]: [u8; 4]) -> f64 {
        [(a, e), (b, f), (c, g), (d, h)]
            .iter()
            .map(|&(a, b)| f64::from(a) * f64::from(b.cast_signed()))
            .sum()
    }

    #[test]
    fn integer_products_are_exact() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (most, middle) = ranges();
        let (most, middle) = (i16::from(most), i16::from(middle));
        for words in [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3] {
            let mut table = |rows: usize, low: i16, high: i16, extreme: bool| -> Vec<[u8; 4]> {
                // As a byte, a value below zero becomes its two's complement.
                let mut value = |_| {
                    if extreme {
                        low as u8
                    } else {
                        rng.random_range(low..=high) as u8
                    }
                };
                (0..rows * words)
                    .map(|_| [0u8; 4].map(&mut value))
                    .collect()
            };
            // The largest values that are allowed, of either sign, and anything below.
            let [rows, full] = [false, true]
                .map(|extreme| table(2 * POINTS, if extreme { most } else { 0 }, most, extreme));
            // Two panels and a part of a third.
            let [queries, lowest] =
                [false, true].map(|extreme| table(2 * QUERIES + 3, -middle, middle - 1, extreme));
            for (rows, queries) in [
                (&rows, &queries),
                (&full, &lowest),
                (&full, &queries),
                (&rows, &lowest),
            ] {
                let expected = naive(rows, queries, words, product);
                for (got, expected) in products(rows, queries, words).iter().zip(&expected) {
                    assert_eq!(
                        got.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
                        *expected,
                        "{words} words"
                    );
                }
            }
        }
    }

    #[test]
    fn rounding_loses_what_it_says() {
        let row: Vec<u8> = (0..=255).collect();
        for (low, step, most) in [
            (0, 4, 64),
            (0, 2, 127),
            (100, 1, 64),
            (17, 3, 64),
            (255, 1, 0),
            (0, 255, 1),
        ] {
            let (mut codes, mut twin) = (vec![0; 256], vec![0; 256]);
            let rounded = round(&row, low, step, most, &mut codes);
            assert_eq!(rounded, portable::round(&row, low, step, most, &mut twin));
            assert_eq!(codes, twin);
            let mut expected = Rounded::<i32>::default();
            for (&value, &code) in row.iter().zip(&codes) {
                assert!(code <= most);
                let lost = i32::from(value) - i32::from(low) - i32::from(step) * i32::from(code);
                let inside = value >= low
                    && i32::from(value) <= i32::from(low) + i32::from(step) * i32::from(most);
                assert!(
                    !inside || lost.abs() <= i32::from(step).div_euclid(2) + 1,
                    "{value} as {code}, step {step}"
                );
                expected.sum += i32::from(code);
                expected.squares += i32::from(code).pow(2);
                expected.lost += lost * lost;
            }
            assert_eq!(rounded, expected);
        }
    }

    #[test]
    fn rounding_of_floats_loses_what_it_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for (low, step, most) in [
            (-1.0f32, 0.03, 64),
            (0.0, 2.0, 127),
            (1e6, 1e4, 15),
            (-5.0, 1e-3, 255),
        ] {
            let row: Vec<f32> = (0..203)
                .map(|_| low + step * rng.random_range(-3.0..f32::from(most) + 3.0))
                .collect();
            let (mut codes, mut twin) = (vec![0; 203], vec![0; 203]);
            let rounded = round_floats(&row, low, step, most, &mut codes);
            assert_eq!(
                rounded,
                portable::round_floats(&row, low, step, most, &mut twin)
            );
            assert_eq!(codes, twin);
            let mut lost = 0.0;
            for (&value, &code) in row.iter().zip(&codes) {
                let exact = (f64::from(value) - f64::from(low)) / f64::from(step);
                let nearest = exact.clamp(0.0, f64::from(most));
                assert!(
                    code <= most && (f64::from(code) - nearest).abs() < 0.5001,
                    "{value} as {code}"
                );
                lost += ((exact - f64::from(code)) * f64::from(step)).powi(2);
            }
            assert!((f64::from(rounded.lost) - lost).abs() < 1e-4 * lost);
            assert_eq!(
                rounded.sum,
                codes.iter().map(|&code| i32::from(code)).sum::<i32>()
            );
            assert_eq!(
                rounded.squares,
                codes
                    .iter()
                    .map(|&code| i32::from(code).pow(2))
                    .sum::<i32>()
            );
        }
    }

    #[test]
    fn float_products_are_within_the_bound_of_sequential_summation() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for words in [1, 3, CHUNK + 1, 3 * CHUNK] {
            let mut table = |rows: usize| {
                (0..rows * words)
                    .map(|_| rng.random_range(-1.0f32..1.0))
                    .collect()
            };
            let (rows, queries): (Vec<f32>, Vec<f32>) = (table(POINTS), table(QUERIES + 1));
            let expected = naive(&rows, &queries, words, |a, b| f64::from(a) * f64::from(b));
            let sizes = naive(&rows, &queries, words, |a, b| {
                (f64::from(a) * f64::from(b)).abs()
            });
            for (row, got) in products(&rows, &queries, words).iter().enumerate() {
                for (query, &got) in got.iter().enumerate() {
                    let bound = crate::simd::pairwise::gamma(words + 1) * sizes[row][query];
                    assert!(
                        (f64::from(got) - expected[row][query]).abs() <= bound,
                        "{words} words"
                    );
                }
            }
        }
    }

    #[test]
    fn the_portable_form_agrees() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let words = 50;
        let rows: Vec<[[u8; 4]; POINTS]> = (0..words)
            .map(|_| [(); POINTS].map(|()| [(); 4].map(|()| rng.random_range(0..=64))))
            .collect();
        let panel: Vec<Line<[u8; 4]>> = (0..words)
            .map(|_| Line([[rng.random_range(0..64), 7, 200, 255]; QUERIES]))
            .collect();
        let (mut fast, mut slow) = ([Line([5; QUERIES]); POINTS], [Line([5; QUERIES]); POINTS]);
        Word::accumulate(&rows, [&panel], [&mut fast]);
        portable::accumulate_bytes(&rows, [&panel], [&mut slow]);
        assert_eq!(fast, slow);

        let floats: Vec<[f32; POINTS]> = rows.iter().map(|row| row.map(|w| w[0].into())).collect();
        let float_panel: Vec<Line<f32>> = panel
            .iter()
            .map(|line| Line(line.0.map(|word| word[0].into())))
            .collect();
        let (mut fast, mut slow) = (
            [Line([5.0; QUERIES]); POINTS],
            [Line([5.0; QUERIES]); POINTS],
        );
        Word::accumulate(&floats, [&float_panel], [&mut fast]);
        portable::accumulate_floats(&floats, [&float_panel], [&mut slow]);
        // Whole numbers below 2²⁴: nothing is rounded in whatever order.
        assert_eq!(fast, slow);
    }

    #[test]
    fn finds_the_near_ones_and_takes_a_nan_for_near() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let sums: Vec<Line<i32>> = (0..50)
            .map(|_| Line([(); QUERIES].map(|()| rng.random_range(-100..100))))
            .collect();
        let norms: Vec<i32> = (0..50).map(|_| rng.random_range(-100..100)).collect();
        let limits = Line([(); QUERIES].map(|()| rng.random_range(-250..-150)));
        let mut expected = Vec::new();
        for row in 0..50 {
            let near = (0..QUERIES).filter(|&q| norms[row] - 2 * sums[row].0[q] <= limits.0[q]);
            let mask = near.fold(0, |mask, q| mask | 1 << q);
            expected.extend((mask != 0).then_some((row, mask)));
        }
        assert!((10..45).contains(&expected.len()), "both kinds of row");
        let floats: Vec<Line<f32>> = sums
            .iter()
            .map(|line| Line(line.0.map(|v| v as f32)))
            .collect();
        let float_norms: Vec<f32> = norms.iter().map(|&v| v as f32).collect();
        let float_limits = Line(limits.0.map(|v| v as f32));
        let all = |next: &dyn Fn(usize) -> Option<(usize, u32)>| {
            let (mut found, mut from) = (Vec::new(), 0);
            while let Some((row, mask)) = next(from) {
                found.push((row, mask));
                from = row + 1;
            }
            found
        };
        for form in [<[u8; 4]>::next_near, portable::next_near_integer] {
            let found = all(&|from| form(&sums, &norms, &limits, from));
            assert_eq!(found, expected);
        }
        for form in [f32::next_near, portable::next_near_float] {
            let found = all(&|from| form(&floats, &float_norms, &float_limits, from));
            assert_eq!(found, expected);
            let (nan, zero) = (Line([f32::NAN; QUERIES]), Line([0.0; QUERIES]));
            assert_eq!(form(&[nan], &[0.0], &zero, 0), Some((0, 0xffff)));
        }
    }
}
