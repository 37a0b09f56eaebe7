//! The VA+-file's passes: squared distances between small integers, in three layouts.
//!
//! The naive form of each pass:
//!
//! ```text
//! boxes      Σ (distance of qᵢ to lowᵢ..=highᵢ)²         a bound for all points of a box
//! heads      Σ (xᵢ − qᵢ)² + (‖rest of x‖ − ‖rest of q‖)²   over the first
//! segments   partial + Σ (codeᵢ·stepᵢ − qᵢ)² + (the rests)²   over more
//! ```
//!
//! Each is a lower bound of the squared distance, as the norms of two vectors differ by no more
//! than the vectors do. A pass keeps the points whose bound is within the limit, the *survivors*.
//!
//! Boxes and heads are read in order. So 32 of them, a *block*, stand side by side, two components
//! in each lane of 32 bits ([`Pairs`]); one instruction squares both and adds them:
//!
//! ```text
//!            point 0    point 1   ...  point 31
//! pair 0     x0 x1      x0 x1          x0 x1
//! pair 1     x2 x3      x2 x3          x2 x3
//! ...
//! last       ‖rest‖ 0   ‖rest‖ 0       ‖rest‖ 0       (heads only)
//! ```
//!
//! Segments are read for single survivors. So each is a cache line of its own ([`Segment`]).
//!
//! What can go wrong is overflow. Codes have 16 bits; those of segments have 8, and their products
//! with the steps have 16. A difference beyond 16 bits saturates, that is, it becomes the nearest
//! 16-bit number. This can only make a sum smaller, so that a lower bound stays one. Sums fit in 31
//! bits because the index scales its codes so: points are within 16,000 of the centre, queries
//! within 30,000, and (16,000 + 30,000)² < 2³¹.

/// Points of a block, boxes of a group.
pub(crate) const BLOCK: usize = 32;
/// Components of a [`Segment`]: a cache line of 64 bytes less the two of the rest's norm.
pub(crate) const WIDTH: usize = 62;

/// Two codes of each point of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Pairs(pub [[i16; 2]; BLOCK]);

/// Some further components of a point, in a cache line: a code of 8 bits stands for its product
/// with a step of the component's own.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Segment {
    /// The components.
    pub codes: [i8; WIDTH],
    /// The norm of what all components so far leave out.
    pub rest: i16,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            codes: [0; WIDTH],
            rest: 0,
        }
    }
}

/// The same components of a query, and the steps of the points' codes; what is beyond [`WIDTH`] is
/// zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Sought {
    /// What the points' codes are multiplied by. The last two are zero: in a segment the norm of
    /// the rest stands there, and the AVX2 form multiplies it along with the codes.
    pub steps: [i16; WIDTH + 2],
    /// The query's components.
    pub values: [i16; WIDTH + 2],
    /// The norm of what all components so far leave out.
    pub rest: i16,
}

impl Default for Sought {
    fn default() -> Self {
        Self {
            steps: [0; WIDTH + 2],
            values: [0; WIDTH + 2],
            rest: 0,
        }
    }
}

/// A point that is still among the possible neighbours, on its way through the passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survivor {
    /// The lower bound so far.
    pub bound: i32,
    /// The part of it that is components alone, without the norms of the rest.
    pub partial: i32,
    /// Where the point is stored.
    pub position: u32,
}

/// Squared distance of a query to boxes, into `out`: `low` and `high` hold, pair by pair, the
/// limits of a group of [`BLOCK`] boxes.
pub(crate) fn boxes(low: &[Pairs], high: &[Pairs], query: &[[i16; 2]], out: &mut Vec<i32>) {
    out.clear();
    add_boxes(low, high, query, out);
}

dispatch! {
    /// Appends what [`boxes`] writes.
    fn add_boxes(low: &[Pairs], high: &[Pairs], query: &[[i16; 2]], out: &mut Vec<i32>);
    /// Appends the positions of the values that are not above `limit`.
    pub(crate) fn within(values: &[i32], limit: i32, out: &mut Vec<u32>);
    /// Scores the points of the named blocks by their heads and appends those whose bound is not
    /// above `limit`. A head's last pair is the norm of the rest and a zero. `fetch` is called with
    /// the position of each, to ask the memory for what will be read of it next.
    pub(crate) fn heads(
        heads: &[Pairs],
        query: &[[i16; 2]],
        blocks: &[u32],
        limit: i32,
        out: &mut Vec<Survivor>,
        fetch: impl Fn(u32),
    );
    /// Adds a segment to the bounds of the survivors and keeps those that are not above `limit`.
    /// `at` tells where the segment of a position is; `fetch` as in [`heads`].
    pub(crate) fn segments(
        segments: &[Segment],
        sought: &Sought,
        limit: i32,
        survivors: &mut Vec<Survivor>,
        at: impl Fn(u32) -> usize,
        fetch: impl Fn(u32),
    );
}

fn square(difference: i16) -> i32 {
    i32::from(difference) * i32::from(difference)
}

mod portable {
    use super::{BLOCK, Pairs, Segment, Sought, Survivor, square};

    pub fn add_boxes(low: &[Pairs], high: &[Pairs], query: &[[i16; 2]], out: &mut Vec<i32>) {
        let groups = low
            .chunks_exact(query.len())
            .zip(high.chunks_exact(query.len()));
        for (low, high) in groups {
            // One sum for each box of the group, over all pairs of components.
            let mut sums = [0; BLOCK];
            for ((low, high), query) in low.iter().zip(high).zip(query) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    for (side, &query) in query.iter().enumerate() {
                        // At most one of the two is positive: the query is below the box, above it,
                        // or inside, where its distance is zero.
                        let below = low.0[lane][side].saturating_sub(query);
                        let above = query.saturating_sub(high.0[lane][side]);
                        *sum += square(below.max(above).max(0));
                    }
                }
            }
            out.extend(sums);
        }
    }

    pub fn within(values: &[i32], limit: i32, out: &mut Vec<u32>) {
        within_from(0, values, limit, out);
    }

    /// [`within`] for values of which the first has the position `first`.
    pub fn within_from(first: u32, values: &[i32], limit: i32, out: &mut Vec<u32>) {
        for (position, &value) in (first..).zip(values) {
            if value <= limit {
                out.push(position);
            }
        }
    }

    pub fn heads(
        heads: &[Pairs],
        query: &[[i16; 2]],
        blocks: &[u32],
        limit: i32,
        out: &mut Vec<Survivor>,
        fetch: impl Fn(u32),
    ) {
        let Some((rest, components)) = query.split_last() else {
            return;
        };
        for &block in blocks {
            // A block has as many `Pairs` as the query: the components and the norm of the rest.
            let head = &heads[block as usize * query.len()..][..query.len()];
            for lane in 0..BLOCK {
                let squares = |pairs: &Pairs, query: &[i16; 2]| {
                    let [a, b] = pairs.0[lane];
                    square(a.saturating_sub(query[0])) + square(b.saturating_sub(query[1]))
                };
                let terms = head.iter().zip(components);
                let partial: i32 = terms.map(|(pairs, query)| squares(pairs, query)).sum();
                // The partial sum is kept apart: a segment adds components to it and has a new norm
                // of the rest, which takes the place of this one.
                let bound = partial + squares(&head[components.len()], rest);
                if bound <= limit {
                    let position = block * BLOCK as u32 + lane as u32;
                    fetch(position);
                    out.push(Survivor {
                        bound,
                        partial,
                        position,
                    });
                }
            }
        }
    }

    pub fn segments(
        segments: &[Segment],
        sought: &Sought,
        limit: i32,
        survivors: &mut Vec<Survivor>,
        at: impl Fn(u32) -> usize,
        fetch: impl Fn(u32),
    ) {
        survivors.retain_mut(|survivor| {
            let segment = &segments[at(survivor.position)];
            let components = segment.codes.iter().zip(&sought.steps).zip(&sought.values);
            let squares = components.map(|((&code, &step), &value)| {
                square((i16::from(code) * step).saturating_sub(value))
            });
            survivor.partial += squares.sum::<i32>();
            // The norm of the rest is that after this segment. It replaces the one in the bound so
            // far.
            survivor.bound = survivor.partial + square(segment.rest.saturating_sub(sought.rest));
            let near = survivor.bound <= limit;
            if near {
                fetch(survivor.position);
            }
            near
        });
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Pairs, Segment, Sought, Survivor, WIDTH, portable, square};
    use crate::simd::prefetch;

    /// Registers of a [`Pairs`]: a register has eight lanes of 32 bits, a pair in each.
    const WIDE: usize = BLOCK / 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(pairs: &Pairs) -> [__m256i; WIDE] {
        let start = pairs.0.as_ptr().cast::<__m256i>();
        // SAFETY: aligned loads of exactly the codes that the reference covers.
        std::array::from_fn(|i| unsafe { _mm256_load_si256(start.add(i)) })
    }

    /// The pair in every lane.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn broadcast([a, b]: [i16; 2]) -> __m256i {
        // `a` is the low half of the lane, as in memory. The mask takes off the copies of its sign,
        // which would overwrite `b`.
        _mm256_set1_epi32(i32::from(a) & 0xffff | i32::from(b) << 16)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(sums: [__m256i; WIDE]) -> [i32; BLOCK] {
        // SAFETY: four registers of eight sums are thirty-two sums; any bits are valid.
        unsafe { std::mem::transmute(sums) }
    }

    #[target_feature(enable = "avx2")]
    pub fn add_boxes(low: &[Pairs], high: &[Pairs], query: &[[i16; 2]], out: &mut Vec<i32>) {
        let zero = _mm256_setzero_si256();
        let groups = low
            .chunks_exact(query.len())
            .zip(high.chunks_exact(query.len()));
        for (low, high) in groups {
            let mut sums = [zero; WIDE];
            for ((low, high), &query) in low.iter().zip(high).zip(query) {
                let (low, high, query) = (load(low), load(high), broadcast(query));
                for i in 0..WIDE {
                    // How far the query is outside of the box, in each component; zero where it is
                    // inside. Subtractions saturate, as in the portable form.
                    let below = _mm256_subs_epi16(low[i], query);
                    let above = _mm256_subs_epi16(query, high[i]);
                    let outside = _mm256_max_epi16(_mm256_max_epi16(below, above), zero);
                    // One instruction squares both components of a lane and adds the squares in 32
                    // bits.
                    sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(outside, outside));
                }
            }
            out.extend(store(sums));
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn within(values: &[i32], limit: i32, out: &mut Vec<u32>) {
        let limits = _mm256_set1_epi32(limit);
        let (eights, rest) = values.as_chunks::<8>();
        for (eight, first) in eights.iter().zip((0..).step_by(8)) {
            // SAFETY: an unaligned load of exactly the eight values that the reference covers.
            let values = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
            // AVX2 compares integers by "greater" only. The lanes that are not greater are near:
            // the eight mask bits are inverted.
            let far = _mm256_castsi256_ps(_mm256_cmpgt_epi32(values, limits));
            let mut near = !_mm256_movemask_ps(far) as u32 & 0xff;
            // Each turn takes the lowest set bit, then clears it. So positions come in order.
            while near != 0 {
                out.push(first + near.trailing_zeros());
                near &= near - 1;
            }
        }
        // Up to seven values remain; their positions go on from there.
        portable::within_from((values.len() - rest.len()) as u32, rest, limit, out);
    }

    #[target_feature(enable = "avx2")]
    pub fn heads(
        heads: &[Pairs],
        query: &[[i16; 2]],
        blocks: &[u32],
        limit: i32,
        out: &mut Vec<Survivor>,
        fetch: impl Fn(u32),
    ) {
        let head_of = |block: u32| &heads[block as usize * query.len()..][..query.len()];
        let Some((&rest, components)) = query.split_last() else {
            return;
        };
        for (at, &block) in blocks.iter().enumerate() {
            // The named blocks may be far apart, so the processor cannot guess which one is next.
            // The memory is asked two blocks ahead, to have the time of two blocks to deliver.
            if let Some(&next) = blocks.get(at + 2) {
                prefetch(head_of(next));
            }
            let head = head_of(block);
            let mut partials = [_mm256_setzero_si256(); WIDE];
            for (pairs, &query) in head.iter().zip(components) {
                partials = add_squares(partials, pairs, query);
            }
            // As a head ends with the norm of the rest and a zero, that norm is one more pair.
            let bounds = add_squares(partials, &head[components.len()], rest);
            let mut near = not_above(&bounds, limit);
            // Without a survivor the sums need not be written to memory.
            if near == 0 {
                continue;
            }
            let (bounds, partials) = (store(bounds), store(partials));
            while near != 0 {
                let lane = near.trailing_zeros() as usize;
                near &= near - 1;
                let position = block * BLOCK as u32 + lane as u32;
                fetch(position);
                out.push(Survivor {
                    // A lane is below `BLOCK` anyway; the remainder tells the compiler, which then
                    // leaves out the test of the index.
                    bound: bounds[lane % BLOCK],
                    partial: partials[lane % BLOCK],
                    position,
                });
            }
        }
    }

    /// Adds the squared differences of the pairs of a block and a pair of the query.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_squares(mut sums: [__m256i; WIDE], pairs: &Pairs, query: [i16; 2]) -> [__m256i; WIDE] {
        let (pairs, query) = (load(pairs), broadcast(query));
        for i in 0..WIDE {
            // Two differences of −2¹⁵ in a lane would overflow. The codes' lengths exclude
            // them: the difference would be longer than 16,000 + 30,000.
            let difference = _mm256_subs_epi16(pairs[i], query);
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(difference, difference));
        }
        sums
    }

    /// The lanes that are not above `limit`, as a bit mask.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn not_above(values: &[__m256i; WIDE], limit: i32) -> u32 {
        let limits = _mm256_set1_epi32(limit);
        let mut near = 0;
        for (i, &values) in values.iter().enumerate() {
            let far = _mm256_castsi256_ps(_mm256_cmpgt_epi32(values, limits));
            // Eight lanes a register: register i has the bits from 8·i on.
            near |= (!_mm256_movemask_ps(far) as u32 & 0xff) << (8 * i);
        }
        near
    }

    /// The numbers in registers, sixteen in each.
    #[target_feature(enable = "avx2")]
    fn sixteens(values: &[i16; WIDTH + 2]) -> [__m256i; 4] {
        // SAFETY: sixty-four numbers are four registers of sixteen; any bits are valid.
        unsafe { std::mem::transmute(*values) }
    }

    #[target_feature(enable = "avx2")]
    pub fn segments(
        segments: &[Segment],
        sought: &Sought,
        limit: i32,
        survivors: &mut Vec<Survivor>,
        at: impl Fn(u32) -> usize,
        fetch: impl Fn(u32),
    ) {
        let (steps, values) = (sixteens(&sought.steps), sixteens(&sought.values));
        // Survivors are moved up in place: the first `kept` have passed. As `kept` is never beyond
        // `read`, none is overwritten before it was read.
        let mut kept = 0;
        for read in 0..survivors.len() {
            let mut survivor = survivors[read];
            let segment = &segments[at(survivor.position)];
            let line = std::ptr::from_ref(segment).cast::<__m128i>();
            let mut sums = _mm256_setzero_si256();
            for i in 0..4 {
                // The last two bytes are the norm of the rest. They are taken for two more codes;
                // their steps and the query's values are zero, so they add nothing.
                // SAFETY: an aligned load of a quarter of the sixty-four bytes of the segment,
                // which has no padding.
                let codes = _mm256_cvtepi8_epi16(unsafe { _mm_load_si128(line.add(i)) });
                // The instruction keeps the low 16 bits of a product, which are all of it: the
                // index chooses its steps so.
                let difference = _mm256_subs_epi16(_mm256_mullo_epi16(codes, steps[i]), values[i]);
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(difference, difference));
            }
            // The eight sums are folded, half onto half, until one is left.
            let four = _mm_add_epi32(
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            );
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
            survivor.partial +=
                _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)));
            survivor.bound = survivor.partial + square(segment.rest.saturating_sub(sought.rest));
            // Written in any case. If the survivor is out, the next one takes its place.
            survivors[kept] = survivor;
            if survivor.bound <= limit {
                kept += 1;
                fetch(survivor.position);
            }
        }
        survivors.truncate(kept);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Pairs, Segment, Sought, Survivor, WIDTH, portable, square};
    use crate::simd::prefetch;

    /// Registers of a [`Pairs`]: a register has sixteen lanes of 32 bits, a pair in each.
    const WIDE: usize = BLOCK / 16;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(pairs: &Pairs) -> [__m512i; WIDE] {
        let start = pairs.0.as_ptr().cast::<__m512i>();
        // SAFETY: aligned loads of exactly the codes that the reference covers.
        std::array::from_fn(|i| unsafe { _mm512_load_si512(start.add(i)) })
    }

    /// The pair in every lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn broadcast(pair: [i16; 2]) -> __m512i {
        // The first is the low half of the lane, as in memory.
        _mm512_set1_epi32(bytemuck::cast(pair))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(sums: [__m512i; WIDE]) -> [i32; BLOCK] {
        // SAFETY: two registers of sixteen sums are thirty-two sums; any bits are valid.
        unsafe { std::mem::transmute(sums) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn add_boxes(low: &[Pairs], high: &[Pairs], query: &[[i16; 2]], out: &mut Vec<i32>) {
        let zero = _mm512_setzero_si512();
        let groups = low
            .chunks_exact(query.len())
            .zip(high.chunks_exact(query.len()));
        for (low, high) in groups {
            let mut sums = [zero; WIDE];
            for ((low, high), &query) in low.iter().zip(high).zip(query) {
                let (low, high, query) = (load(low), load(high), broadcast(query));
                for i in 0..WIDE {
                    // How far the query is outside of the box, in each component; zero where it is
                    // inside. Subtractions saturate, as in the portable form.
                    let below = _mm512_subs_epi16(low[i], query);
                    let above = _mm512_subs_epi16(query, high[i]);
                    let outside = _mm512_max_epi16(_mm512_max_epi16(below, above), zero);
                    // One instruction squares both components of a lane and adds the squares to the
                    // sum of the lane.
                    sums[i] = _mm512_dpwssd_epi32(sums[i], outside, outside);
                }
            }
            out.extend(store(sums));
        }
    }

    #[target_feature(enable = "avx512f")]
    pub fn within(values: &[i32], limit: i32, out: &mut Vec<u32>) {
        let limits = _mm512_set1_epi32(limit);
        let (sixteens, rest) = values.as_chunks::<16>();
        for (sixteen, first) in sixteens.iter().zip((0..).step_by(16)) {
            // SAFETY: an unaligned load of exactly the sixteen values that the reference covers.
            let values = unsafe { _mm512_loadu_si512(sixteen.as_ptr().cast()) };
            let mut near = _mm512_cmple_epi32_mask(values, limits);
            // Each turn takes the lowest set bit, then clears it. So positions come in order.
            while near != 0 {
                out.push(first + near.trailing_zeros());
                near &= near - 1;
            }
        }
        // Up to fifteen values remain; their positions go on from there.
        portable::within_from((values.len() - rest.len()) as u32, rest, limit, out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn heads(
        heads: &[Pairs],
        query: &[[i16; 2]],
        blocks: &[u32],
        limit: i32,
        out: &mut Vec<Survivor>,
        fetch: impl Fn(u32),
    ) {
        let head_of = |block: u32| &heads[block as usize * query.len()..][..query.len()];
        let Some((&rest, components)) = query.split_last() else {
            return;
        };
        for (at, &block) in blocks.iter().enumerate() {
            // The named blocks may be far apart, so the processor cannot guess which one is next.
            // The memory is asked two blocks ahead, to have the time of two blocks to deliver.
            if let Some(&next) = blocks.get(at + 2) {
                prefetch(head_of(next));
            }
            let head = head_of(block);
            let mut partials = [_mm512_setzero_si512(); WIDE];
            for (pairs, &query) in head.iter().zip(components) {
                partials = add_squares(partials, pairs, query);
            }
            // As a head ends with the norm of the rest and a zero, that norm is one more pair.
            let bounds = add_squares(partials, &head[components.len()], rest);
            let mut near = not_above(&bounds, limit);
            // Without a survivor the sums need not be written to memory.
            if near == 0 {
                continue;
            }
            let (bounds, partials) = (store(bounds), store(partials));
            while near != 0 {
                let lane = near.trailing_zeros() as usize;
                near &= near - 1;
                let position = block * BLOCK as u32 + lane as u32;
                fetch(position);
                out.push(Survivor {
                    // A lane is below `BLOCK` anyway; the remainder tells the compiler, which then
                    // leaves out the test of the index.
                    bound: bounds[lane % BLOCK],
                    partial: partials[lane % BLOCK],
                    position,
                });
            }
        }
    }

    /// Adds the squared differences of the pairs of a block and a pair of the query.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add_squares(mut sums: [__m512i; WIDE], pairs: &Pairs, query: [i16; 2]) -> [__m512i; WIDE] {
        let (pairs, query) = (load(pairs), broadcast(query));
        for i in 0..WIDE {
            // Two differences of −2¹⁵ in a lane would overflow. The codes' lengths exclude
            // them: the difference would be longer than 16,000 + 30,000.
            let difference = _mm512_subs_epi16(pairs[i], query);
            sums[i] = _mm512_dpwssd_epi32(sums[i], difference, difference);
        }
        sums
    }

    /// The lanes that are not above `limit`, as a bit mask.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn not_above(values: &[__m512i; WIDE], limit: i32) -> u32 {
        let limits = _mm512_set1_epi32(limit);
        let [low, high] = values.map(|values| u32::from(_mm512_cmple_epi32_mask(values, limits)));
        low | high << 16
    }

    /// The numbers in registers, thirty-two in each.
    #[target_feature(enable = "avx512f")]
    fn halves(values: &[i16; WIDTH + 2]) -> [__m512i; 2] {
        // SAFETY: sixty-four numbers are two registers of thirty-two; any bits are valid.
        unsafe { std::mem::transmute(*values) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn segments(
        segments: &[Segment],
        sought: &Sought,
        limit: i32,
        survivors: &mut Vec<Survivor>,
        at: impl Fn(u32) -> usize,
        fetch: impl Fn(u32),
    ) {
        let (steps, values) = (halves(&sought.steps), halves(&sought.values));
        // Survivors are moved up in place: the first `kept` have passed. As `kept` is never beyond
        // `read`, none is overwritten before it was read.
        let mut kept = 0;
        for read in 0..survivors.len() {
            let mut survivor = survivors[read];
            let segment = &segments[at(survivor.position)];
            let line = std::ptr::from_ref(segment).cast::<__m256i>();
            let mut sums = _mm512_setzero_si512();
            for i in 0..2 {
                // The last two bytes are the norm of the rest. They are taken for two more codes;
                // their steps and the query's values are zero, so they add nothing.
                // SAFETY: an aligned load of a half of the sixty-four bytes of the segment, which
                // has no padding.
                let codes = _mm512_cvtepi8_epi16(unsafe { _mm256_load_si256(line.add(i)) });
                // The instruction keeps the low 16 bits of a product, which are all of it: the
                // index chooses its steps so.
                let difference = _mm512_subs_epi16(_mm512_mullo_epi16(codes, steps[i]), values[i]);
                sums = _mm512_dpwssd_epi32(sums, difference, difference);
            }
            survivor.partial += _mm512_reduce_add_epi32(sums);
            survivor.bound = survivor.partial + square(segment.rest.saturating_sub(sought.rest));
            // Written in any case. If the survivor is out, the next one takes its place.
            survivors[kept] = survivor;
            if survivor.bound <= limit {
                kept += 1;
                fetch(survivor.position);
            }
        }
        survivors.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Codes whose sums stay in 31 bits; one in a hundred is large.
    fn code(rng: &mut ChaCha8Rng) -> i16 {
        if rng.random_bool(0.01) {
            rng.random_range(-8_000..8_000)
        } else {
            rng.random_range(-2_000..2_000)
        }
    }

    fn pairs(rng: &mut ChaCha8Rng, count: usize) -> Vec<Pairs> {
        (0..count)
            .map(|_| Pairs([(); BLOCK].map(|()| [code(rng), code(rng)])))
            .collect()
    }

    #[test]
    fn every_form_agrees_with_the_definition() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for width in [1, 4, 9] {
            let (a, b) = (pairs(&mut rng, 3 * width), pairs(&mut rng, 3 * width));
            let query: Vec<[i16; 2]> = (0..width)
                .map(|_| [code(&mut rng), code(&mut rng)])
                .collect();

            let sorted = |pick: fn(i16, i16) -> i16| -> Vec<Pairs> {
                let lines = a.iter().zip(&b);
                lines
                    .map(|(a, b)| {
                        Pairs(std::array::from_fn(|i| {
                            std::array::from_fn(|j| pick(a.0[i][j], b.0[i][j]))
                        }))
                    })
                    .collect()
            };
            let (low, high) = (sorted(i16::min), sorted(i16::max));
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            boxes(&low, &high, &query, &mut fast);
            portable::add_boxes(&low, &high, &query, &mut slow);
            assert_eq!(fast, slow);
            // A point of the box at the nearest place: the definition.
            for (at, &bound) in fast.iter().enumerate() {
                let (group, lane) = (at / BLOCK, at % BLOCK);
                let nearest = (0..width)
                    .flat_map(|pair| (0..2).map(move |side| (pair, side)))
                    .map(|(pair, side)| {
                        let at = group * width + pair;
                        let inside =
                            query[pair][side].clamp(low[at].0[lane][side], high[at].0[lane][side]);
                        (i64::from(inside) - i64::from(query[pair][side])).pow(2)
                    });
                assert_eq!(i64::from(bound), nearest.sum::<i64>());
            }

            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            let limit = i32::MAX / 400 * width as i32;
            heads(&a, &query, &[2, 0], limit, &mut fast, |_| ());
            portable::heads(&a, &query, &[2, 0], limit, &mut slow, |_| ());
            assert_eq!(fast, slow);
            for block in [2, 0] {
                for lane in 0..BLOCK {
                    let square = |pair: usize, side: usize| {
                        (i64::from(a[block * width + pair].0[lane][side])
                            - i64::from(query[pair][side]))
                        .pow(2)
                    };
                    let bound: i64 = (0..width)
                        .map(|pair| square(pair, 0) + square(pair, 1))
                        .sum();
                    let partial = bound - square(width - 1, 0) - square(width - 1, 1);
                    let found = fast
                        .iter()
                        .find(|survivor| survivor.position as usize == block * BLOCK + lane);
                    let expected = (bound <= i64::from(limit)).then_some((bound, partial));
                    assert_eq!(
                        found.map(|c| (i64::from(c.bound), i64::from(c.partial))),
                        expected
                    );
                }
            }

            let segment = |rng: &mut ChaCha8Rng| Segment {
                codes: [(); WIDTH].map(|()| rng.random_range(-127..=127)),
                rest: rng.random_range(0..4_000),
            };
            let lines: Vec<Segment> = (0..2 * 3 * BLOCK).map(|_| segment(&mut rng)).collect();
            let mut sought = Sought {
                rest: rng.random_range(0..4_000),
                ..Sought::default()
            };
            sought.steps[..WIDTH]
                .iter_mut()
                .for_each(|step| *step = rng.random_range(1..20));
            sought.values[..WIDTH]
                .iter_mut()
                .for_each(|value| *value = rng.random_range(-2_000..2_000));
            let at = |position: u32| 2 * position as usize + 1;
            let (before, mut survivors, limit) = (fast.clone(), fast, 120_000_000);
            let fetched = std::cell::RefCell::new(Vec::new());
            segments(&lines, &sought, limit, &mut survivors, at, |position| {
                fetched.borrow_mut().push(position);
            });
            let kept: Vec<u32> = survivors.iter().map(|survivor| survivor.position).collect();
            assert_eq!(fetched.into_inner(), kept);
            portable::segments(&lines, &sought, limit, &mut slow, at, |_| ());
            assert_eq!(survivors, slow);
            for old in before {
                let line = &lines[at(old.position)];
                let squares = (0..WIDTH).map(|i| {
                    (i64::from(line.codes[i]) * i64::from(sought.steps[i])
                        - i64::from(sought.values[i]))
                    .pow(2)
                });
                let partial = i64::from(old.partial) + squares.sum::<i64>();
                let bound = partial + (i64::from(line.rest) - i64::from(sought.rest)).pow(2);
                let found = survivors
                    .iter()
                    .find(|survivor| survivor.position == old.position);
                let expected = (bound <= i64::from(limit)).then_some((bound, partial));
                assert_eq!(
                    found.map(|c| (i64::from(c.bound), i64::from(c.partial))),
                    expected
                );
            }
        }

        let values: Vec<i32> = (0..100).map(|_| rng.random_range(-50..50)).collect();
        for len in [0, 7, 8, 99] {
            let expected: Vec<u32> = (0..len as u32)
                .filter(|&at| values[at as usize] <= 3)
                .collect();
            for form in [within, portable::within] {
                let mut found = Vec::new();
                form(&values[..len], 3, &mut found);
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_saturates_stays_below() {
        let (far, query) = (Pairs([[-16_000, 0]; BLOCK]), [[30_000, 0]]);
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        heads(&[far], &query, &[0], i32::MAX, &mut fast, |_| ());
        portable::heads(&[far], &query, &[0], i32::MAX, &mut slow, |_| ());
        assert_eq!(fast, slow);
        assert_eq!(fast.len(), BLOCK);
        for survivor in fast {
            assert_eq!(survivor.bound, 32_768 * 32_768);
        }
        // The box is below the query: 30,000 + 16,000 saturates at 32,767.
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        boxes(&[far], &[far], &query, &mut fast);
        portable::add_boxes(&[far], &[far], &query, &mut slow);
        assert_eq!(fast, [32_767 * 32_767; BLOCK]);
        assert_eq!(fast, slow);
    }
}
