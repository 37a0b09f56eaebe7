//! Scans of product-quantised codes: sums of table entries, one a sub-quantiser.
//!
//! The naive form:
//!
//! ```text
//! for each vector { estimate(Σⱼ tableⱼ[codeⱼ]) }        j over the sub-quantisers
//! ```
//!
//! It reads memory for each entry. Codes of four bits need tables of 16 entries only; with entries
//! of eight bits such a table fits in half a register, and one shuffle looks up 32 codes (FastScan:
//! André, Kermarrec & Le Scouarnec, *Cache locality is not enough*, VLDB 2015, and *Quicker ADC*,
//! 2019). So 32 vectors, a block, are scored at a time, and two sub-quantisers share a register, a
//! [`Pair`]:
//!
//! ```text
//!            bytes 0..16, sub-quantiser 2j       bytes 16..32, sub-quantiser 2j + 1
//! codes      v16v0 v17v1 ... v31v15              v16v0 v17v1 ... v31v15
//! tables     entry 0, 1, ... 15                  entry 0, 1, ... 15
//! ```
//!
//! What can go wrong is overflow: an entry is at most 255, so that 257 of them fit in 16 bits. That
//! is [`MOST_SUBQUANTIZERS`]. What these kernels give chooses candidates; it is an estimate, not a
//! distance.

use std::ops::Range;

use rayon::prelude::*;

/// Vectors of a block.
pub(crate) const BLOCK: usize = 32;

/// Two sub-quantisers of a block of codes, or of the tables: the first 16 bytes belong to one, the
/// last 16 to the other. Byte i of a half has the code of vector i in its low four bits and that of
/// vector i + 16 in the high ones; of a table, the entry of centroid i.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(align(32))]
pub(crate) struct Pair(pub [u8; 32]);

/// A vector that a scan found, and what it was scored with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    /// Its estimated squared distance.
    pub estimate: f32,
    /// Its position.
    pub position: u32,
}

/// Takes a vector's sum of table entries and its bias to its estimate:
/// sum · `per_entry` + (bias · `per_bias` + `offset`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    /// What a unit of the tables stands for.
    pub per_entry: f32,
    /// What a unit of the biases stands for.
    pub per_bias: f32,
    /// What is the same for all vectors of a list.
    pub offset: f32,
}

impl Linear {
    #[inline(always)]
    fn estimate(&self, sum: f32, bias: u16) -> f32 {
        sum * self.per_entry + (f32::from(bias) * self.per_bias + self.offset)
    }
}

/// What a scan reads beside codes and tables.
#[derive(Debug, Clone)]
pub(crate) struct Scan<'a> {
    /// One for each vector that there is.
    pub biases: &'a [u16],
    /// The vectors to score.
    pub positions: Range<usize>,
    /// How their estimates follow from sums and biases.
    pub linear: Linear,
    /// The largest estimate that is wanted.
    pub limit: f32,
}

// What the forms that take a block at a time have in common.
#[cfg(target_arch = "x86_64")]
impl Scan<'_> {
    /// The blocks that have positions.
    #[inline(always)]
    fn blocks(&self) -> Range<usize> {
        if self.positions.is_empty() {
            return 0..0;
        }
        self.positions.start / BLOCK..self.positions.end.div_ceil(BLOCK)
    }

    /// The biases of a block. The last of all may have fewer than lanes: it gets zeros for the
    /// others, which [`Scan::add`] leaves out.
    #[inline(always)]
    fn biases_of(&self, block: usize) -> [u16; BLOCK] {
        let biases = &self.biases[block * BLOCK..];
        biases.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; BLOCK];
            padded[..biases.len()].copy_from_slice(biases);
            padded
        })
    }

    /// Appends the vectors of a block that are `within` the limit.
    #[inline(always)]
    fn add(
        &self,
        block: usize,
        estimates: &[f32; BLOCK],
        mut within: u32,
        found: &mut Vec<Scored>,
    ) {
        let start = block * BLOCK;
        // The first block may begin before the positions and the last may end after them: the
        // lanes outside are cleared. Every block has a position, so no shift is by 32.
        within &= u32::MAX << self.positions.start.saturating_sub(start);
        within &= u32::MAX >> (start + BLOCK).saturating_sub(self.positions.end);
        // Each turn takes the lowest set bit, then clears it. So vectors come in order.
        while within != 0 {
            let lane = within.trailing_zeros() as usize;
            found.push(Scored {
                estimate: estimates[lane],
                position: (start + lane) as u32,
            });
            within &= within - 1;
        }
    }
}

/// Most sub-quantisers whose entries can be added in 16 bits: 65,535 / 255 = 257.
pub(crate) const MOST_SUBQUANTIZERS: usize = u16::MAX as usize / u8::MAX as usize;

/// The codes of n vectors (n × `m`, row by row, below 16) in blocks of [`BLOCK`], `m.div_ceil(2)`
/// pairs each.
pub(crate) fn pack(codes: &[u8], m: usize) -> Vec<Pair> {
    let pairs = m.div_ceil(2);
    let rows = codes.len() / m;
    let mut packed = vec![Pair::default(); rows.div_ceil(BLOCK) * pairs];
    let pack_block = |(packed, codes): (&mut [Pair], &[u8])| {
        for (lane, code) in codes.chunks_exact(m).enumerate() {
            for (j, &value) in code.iter().enumerate() {
                // Sub-quantiser j has half `j % 2` of its pair. The first 16 vectors of a block
                // have the low four bits of the bytes, the other 16 the high ones.
                packed[j / 2].0[j % 2 * 16 + lane % 16] |= value << (lane / 16 * 4);
            }
        }
    };
    packed
        .par_chunks_mut(pairs)
        .zip(codes.par_chunks(BLOCK * m))
        .for_each(pack_block);
    packed
}

/// Writes a query's tables (16 products a sub-quantiser) in eight bits: entry = (largest of the
/// table − product) / step. The step is that with which the steepest table just fits. Returns it,
/// and the sum of the largest, from which entries · step are to be taken.
pub(crate) fn quantize(products: &[[f32; 16]], tables: &mut Vec<Pair>) -> (f32, f32) {
    // With an odd number of sub-quantisers the last half is left over. Its entries stay zero and
    // add nothing, whatever its codes are.
    tables.clear();
    tables.resize(products.len().div_ceil(2), Pair::default());
    quantize_into(products, tables)
}

dispatch! {
    /// [`quantize`] into tables of the right number.
    fn quantize_into(products: &[[f32; 16]], tables: &mut [Pair]) -> (f32, f32)
        = portable::quantize_into;
}

/// Appends the vectors whose estimate is at most the limit, in order. `codes` are as [`pack`] makes
/// them, with as many pairs a block as there are `tables`; these have at most
/// [`MOST_SUBQUANTIZERS`] sub-quantisers, or sums would overflow.
///
/// # Panics
/// If there is no such position.
pub(crate) fn scan(codes: &[Pair], tables: &[Pair], scan: &Scan<'_>, found: &mut Vec<Scored>) {
    let end = scan.positions.end;
    assert!(end.div_ceil(BLOCK) * tables.len() <= codes.len() && end <= scan.biases.len());
    scan_blocks(codes, tables, scan, found);
}

dispatch! {
    /// [`scan`] of positions that are there.
    fn scan_blocks(codes: &[Pair], tables: &[Pair], scan: &Scan<'_>, found: &mut Vec<Scored>);
}

/// The same for codes of eight bits, which lie row by row: `tables` has the entries of one
/// sub-quantiser after the other. (256 entries are no register: this is the naive form.)
pub(crate) fn scan_bytes(
    codes: &[u8],
    tables: &[[f32; 256]],
    scan: &Scan<'_>,
    found: &mut Vec<Scored>,
) {
    let Range { start, end } = scan.positions;
    let rows = codes[start * tables.len()..end * tables.len()].chunks_exact(tables.len());
    let biases = &scan.biases[start..end];
    for ((position, code), &bias) in (start as u32..).zip(rows).zip(biases) {
        // Four sums, so that an addition need not wait for the one before. Each takes every fourth
        // sub-quantiser.
        let mut sums = [0.0f32; 4];
        for (code, tables) in code.chunks(4).zip(tables.chunks(4)) {
            for ((sum, &code), table) in sums.iter_mut().zip(code).zip(tables) {
                *sum += table[usize::from(code)];
            }
        }
        let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        let estimate = scan.linear.estimate(sum, bias);
        if estimate <= scan.limit {
            found.push(Scored { estimate, position });
        }
    }
}

mod portable {
    use super::{BLOCK, Pair, Scan, Scored};
    use crate::simd::fold_lanes;

    // By comparison, not by `f32::max`, which has to take care of NaN: a comparison is one SIMD
    // instruction.
    #[inline(always)]
    fn largest(table: &[f32; 16]) -> f32 {
        fold_lanes(*table, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn smallest(table: &[f32; 16]) -> f32 {
        fold_lanes(*table, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    pub fn quantize_into(products: &[[f32; 16]], tables: &mut [Pair]) -> (f32, f32) {
        let (mut steepest, mut sum) = (0.0f32, 0.0);
        for table in products {
            let most = largest(table);
            steepest = steepest.max(most - smallest(table));
            sum += most;
        }
        // A single step for all tables: entries of different tables are added, so a unit has to
        // mean the same in all of them.
        let step = steepest / 255.0;
        // Where all products of each table are equal, the step is zero, and so are all entries.
        // Where the step is so small that its inverse overflows, the largest float takes the place
        // of infinity: infinity times zero would be NaN.
        let per_product = if step > 0.0 {
            step.recip().min(f32::MAX)
        } else {
            0.0
        };
        // A pair's two halves are the tables of two sub-quantisers, one after the other.
        let halves = tables
            .iter_mut()
            .flat_map(|pair| pair.0.as_chunks_mut::<16>().0);
        for (half, table) in halves.zip(products) {
            let most = largest(table);
            for (entry, product) in half.iter_mut().zip(table) {
                // The largest product has the entry 0, the least of the steepest table 255. Adding
                // a half makes the cast round to the nearest. It goes by i32, for which SIMD has an
                // instruction.
                *entry = ((most - product) * per_product + 0.5).min(255.0) as i32 as u8;
            }
        }
        (step, sum)
    }

    pub fn scan_blocks(codes: &[Pair], tables: &[Pair], scan: &Scan<'_>, found: &mut Vec<Scored>) {
        for position in scan.positions.clone() {
            let (block, lane) = (position / BLOCK, position % BLOCK);
            // At most 257 entries of 255: 16 bits are enough.
            let mut sum = 0u16;
            for (codes, table) in codes[block * tables.len()..].iter().zip(tables) {
                for half in [0, 16] {
                    // The code of four bits: the low half of the byte for the first 16 vectors,
                    // otherwise the high half.
                    let code = codes.0[half + lane % 16] >> (lane / 16 * 4) & 15;
                    sum += u16::from(table.0[half + usize::from(code)]);
                }
            }
            let estimate = scan.linear.estimate(sum.into(), scan.biases[position]);
            if estimate <= scan.limit {
                found.push(Scored {
                    estimate,
                    position: position as u32,
                });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Linear, Pair, Scan, Scored};

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(pair: &Pair) -> __m256i {
        // SAFETY: a pair is a register, and aligned to it.
        unsafe { _mm256_load_si256(pair.0.as_ptr().cast()) }
    }

    /// The sums of a block's 32 vectors, eight a register.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sums(block: &[Pair], tables: &[Pair]) -> [__m128i; 4] {
        let low = _mm256_set1_epi8(15);
        // A shuffle gives 32 entries of 8 bits, but their sums need 16. Widening the entries takes
        // two instructions before the two additions; this way takes one. Two neighbouring bytes are
        // added as one number of 16 bits, in `both`, and the upper byte alone in `upper`. In the
        // end, both − 256 · upper is the sum of the lower bytes. `both` may overflow on the way:
        // all is modulo 2¹⁶, and the result is below it.
        let mut both = [_mm256_setzero_si256(); 2];
        let mut upper = both;
        for (codes, table) in block.iter().zip(tables) {
            let (codes, table) = (load(codes), load(table));
            // Codes of the first 16 vectors, then of the other 16. There is no shift of bytes; what
            // the shift of 16 bits brings in from the next byte is masked off.
            let lanes = [
                _mm256_and_si256(codes, low),
                _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low),
            ];
            for half in 0..2 {
                // The lookup: byte i becomes the entry that code i names. Each half of the register
                // looks up in its own half of the table, so two sub-quantisers are looked up at
                // once.
                let entries = _mm256_shuffle_epi8(table, lanes[half]);
                both[half] = _mm256_add_epi16(both[half], entries);
                upper[half] = _mm256_add_epi16(upper[half], _mm256_srli_epi16::<8>(entries));
            }
        }
        // The two halves of a register belong to two sub-quantisers, for the same vectors. Adding
        // them makes the sum over all sub-quantisers.
        let join = |sums| {
            _mm_add_epi16(
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            )
        };
        // `even` has the vectors 0, 2, 4, ... of sixteen, which were in the lower bytes, and `odd`
        // has 1, 3, 5, ... Unpacking takes them by turns, so that they are in order again.
        let [first, last] = [0, 1].map(|half| {
            let even = join(_mm256_sub_epi16(
                both[half],
                _mm256_slli_epi16::<8>(upper[half]),
            ));
            let odd = join(upper[half]);
            [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)]
        });
        [first[0], first[1], last[0], last[1]]
    }

    /// The estimates of a block's 32 vectors, and as a bit mask which are at most `limit`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn estimate(
        sums: [__m128i; 4],
        biases: &[u16; BLOCK],
        linear: Linear,
        limit: f32,
    ) -> ([f32; BLOCK], u32) {
        let per_entry = _mm256_set1_ps(linear.per_entry);
        let per_bias = _mm256_set1_ps(linear.per_bias);
        let offset = _mm256_set1_ps(linear.offset);
        let most = _mm256_set1_ps(limit);
        let float = |values| _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(values));
        let (mut estimates, mut within) = ([0.0f32; BLOCK], 0u32);
        for (eight, &sums) in sums.iter().enumerate() {
            // SAFETY: eight of the block's 32 biases, unaligned.
            let bias = unsafe { _mm_loadu_si128(biases.as_ptr().add(8 * eight).cast()) };
            // The operations of `Linear::estimate` in the same order. A fused multiply-add would
            // round once less, and the forms would differ in the last bit.
            let bias = _mm256_add_ps(_mm256_mul_ps(float(bias), per_bias), offset);
            let estimate = _mm256_add_ps(_mm256_mul_ps(float(sums), per_entry), bias);
            // SAFETY: eight of the block's 32 estimates, unaligned.
            unsafe { _mm256_storeu_ps(estimates.as_mut_ptr().add(8 * eight), estimate) };
            // At most the limit; a NaN is not.
            let near = _mm256_cmp_ps::<_CMP_LE_OQ>(estimate, most);
            within |= (_mm256_movemask_ps(near) as u32) << (8 * eight);
        }
        (estimates, within)
    }

    #[target_feature(enable = "avx2")]
    pub fn scan_blocks(codes: &[Pair], tables: &[Pair], scan: &Scan<'_>, found: &mut Vec<Scored>) {
        for block in scan.blocks() {
            let sums = sums(&codes[block * tables.len()..][..tables.len()], tables);
            let biases = scan.biases_of(block);
            let (estimates, within) = estimate(sums, &biases, scan.linear, scan.limit);
            scan.add(block, &estimates, within, found);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Linear, Pair, Scan, Scored};

    /// Two pairs: a cache line, where the first is at one's beginning.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(pairs: &[Pair; 2]) -> __m512i {
        // SAFETY: two pairs are 64 bytes, which need not be aligned to that.
        unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
    }

    /// A pair, and zeros in place of another.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_one(pair: &Pair) -> __m512i {
        // SAFETY: a pair is half a register, and aligned to that.
        _mm512_zextsi256_si512(unsafe { _mm256_load_si256(pair.0.as_ptr().cast()) })
    }

    /// What the AVX2 form keeps, of two pairs at a time.
    struct Sums {
        both: [__m512i; 2],
        upper: [__m512i; 2],
    }

    impl Sums {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn add(&mut self, codes: __m512i, table: __m512i) {
            let low = _mm512_set1_epi8(15);
            let lanes = [
                _mm512_and_si512(codes, low),
                _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low),
            ];
            for (half, lanes) in lanes.into_iter().enumerate() {
                // Each quarter of the register looks up in its own quarter of the tables.
                let entries = _mm512_shuffle_epi8(table, lanes);
                self.both[half] = _mm512_add_epi16(self.both[half], entries);
                let upper = _mm512_srli_epi16::<8>(entries);
                self.upper[half] = _mm512_add_epi16(self.upper[half], upper);
            }
        }
    }

    /// The four quarters of a register added up.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn join(sums: __m512i) -> __m128i {
        let half = _mm256_add_epi16(
            _mm512_castsi512_si256(sums),
            _mm512_extracti64x4_epi64::<1>(sums),
        );
        _mm_add_epi16(
            _mm256_castsi256_si128(half),
            _mm256_extracti128_si256::<1>(half),
        )
    }

    /// The sums of a block's 32 vectors, sixteen a register.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn sums(block: &[Pair], tables: &[Pair]) -> [__m256i; 2] {
        let zero = [_mm512_setzero_si512(); 2];
        let mut sums = Sums {
            both: zero,
            upper: zero,
        };
        let (block, last) = block.as_chunks::<2>();
        let (tables, last_table) = tables.as_chunks::<2>();
        for (codes, table) in block.iter().zip(tables) {
            sums.add(load(codes), load(table));
        }
        // The pair that is missing has entries of zero.
        if let ([codes], [table]) = (last, last_table) {
            sums.add(load_one(codes), load_one(table));
        }
        let mut joined = [_mm256_setzero_si256(); 2];
        for (half, joined) in joined.iter_mut().enumerate() {
            // As in the AVX2 form: vectors 0, 2, 4, ... and 1, 3, 5, ... of sixteen.
            let (both, upper) = (sums.both[half], sums.upper[half]);
            let even = join(_mm512_sub_epi16(both, _mm512_slli_epi16::<8>(upper)));
            let odd = join(upper);
            *joined = _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_unpacklo_epi16(even, odd)),
                _mm_unpackhi_epi16(even, odd),
            );
        }
        joined
    }

    /// The estimates of a block's 32 vectors, and as a bit mask which are at most `limit`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn estimate(
        sums: [__m256i; 2],
        biases: &[u16; BLOCK],
        linear: Linear,
        limit: f32,
    ) -> ([f32; BLOCK], u32) {
        let per_entry = _mm512_set1_ps(linear.per_entry);
        let per_bias = _mm512_set1_ps(linear.per_bias);
        let offset = _mm512_set1_ps(linear.offset);
        let most = _mm512_set1_ps(limit);
        let (mut estimates, mut within) = ([0.0f32; BLOCK], 0u32);
        for (half, sums) in sums.into_iter().enumerate() {
            // SAFETY: sixteen of the block's 32 biases, unaligned.
            let bias = unsafe { _mm256_loadu_si256(biases.as_ptr().add(16 * half).cast()) };
            let bias = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(bias));
            let sums = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums));
            // The operations of `Linear::estimate` in the same order, not fused.
            let bias = _mm512_add_ps(_mm512_mul_ps(bias, per_bias), offset);
            let estimate = _mm512_add_ps(_mm512_mul_ps(sums, per_entry), bias);
            // SAFETY: sixteen of the block's 32 estimates, unaligned.
            unsafe { _mm512_storeu_ps(estimates.as_mut_ptr().add(16 * half), estimate) };
            // At most the limit; a NaN is not.
            let near = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(estimate, most);
            within |= u32::from(near) << (16 * half);
        }
        (estimates, within)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn scan_blocks(codes: &[Pair], tables: &[Pair], scan: &Scan<'_>, found: &mut Vec<Scored>) {
        for block in scan.blocks() {
            let sums = sums(&codes[block * tables.len()..][..tables.len()], tables);
            let biases = scan.biases_of(block);
            let (estimates, within) = estimate(sums, &biases, scan.linear, scan.limit);
            scan.add(block, &estimates, within, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Codes, tables and biases of a few blocks, and a range of positions.
    fn tasks() -> impl Strategy<Value = (usize, Vec<u8>, Vec<u8>, Vec<u16>, Range<usize>)> {
        (1usize..20, 1usize..100).prop_flat_map(|(m, rows)| {
            (
                Just(m),
                prop::collection::vec(0..16u8, m * rows),
                prop::collection::vec(any::<u8>(), m * 16),
                prop::collection::vec(any::<u16>(), rows),
                (0..=rows, 0..=rows).prop_map(|(a, b)| a.min(b)..a.max(b)),
            )
        })
    }

    proptest! {
        #[test]
        fn every_form_agrees_with_the_definition(
            (m, codes, tables, biases, positions) in tasks(),
            limit in 0f32..1e4,
        ) {
            let linear = Linear { per_entry: 0.7, per_bias: 0.1, offset: -300.0 };
            let expected: Vec<Scored> = positions
                .clone()
                .map(|position| {
                    let code = |j: usize| usize::from(codes[position * m + j]);
                    let sum: u32 = (0..m).map(|j| u32::from(tables[j * 16 + code(j)])).sum();
                    let estimate = linear.estimate(sum as f32, biases[position]);
                    Scored { estimate, position: position as u32 }
                })
                .filter(|scored| scored.estimate <= limit)
                .collect();
            let packed = pack(&codes, m);
            let mut pairs = vec![Pair::default(); m.div_ceil(2)];
            for (j, table) in tables.chunks(16).enumerate() {
                pairs[j / 2].0[j % 2 * 16..][..16].copy_from_slice(table);
            }
            let task = Scan { biases: &biases, positions, linear, limit };
            let (mut fast, mut slow, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
            scan(&packed, &pairs, &task, &mut fast);
            portable::scan_blocks(&packed, &pairs, &task, &mut slow);
            prop_assert_eq!(&fast, &expected);
            prop_assert_eq!(&slow, &expected);

            let wide = |table: &[u8]| std::array::from_fn(|i| f32::from(table[i % 16]));
            let wide: Vec<[f32; 256]> = tables.chunks(16).map(wide).collect();
            scan_bytes(&codes, &wide, &task, &mut bytes);
            prop_assert_eq!(&bytes, &expected);
        }
    }

    proptest! {
        #[test]
        fn quantized_tables_are_within_half_a_step(
            products in prop::collection::vec(-1e3f32..1e3, 1..200)
        ) {
            let products = products.as_chunks::<16>().0;
            let mut portable = vec![Pair::default(); products.len().div_ceil(2)];
            let mut tables = Vec::new();
            let (step, sum) = quantize(products, &mut tables);
            prop_assert_eq!(portable::quantize_into(products, &mut portable), (step, sum));
            prop_assert_eq!(&portable, &tables);
            let largest = |table: &[f32; 16]| {
                table.iter().copied().fold(f32::NEG_INFINITY, f32::max)
            };
            prop_assert!((products.iter().map(largest).sum::<f32>() - sum).abs() < 0.01);
            for (j, table) in products.iter().enumerate() {
                for (i, product) in table.iter().enumerate() {
                    let entry = tables[j / 2].0[j % 2 * 16 + i];
                    let estimate = largest(table) - f32::from(entry) * step;
                    prop_assert!((estimate - product).abs() <= 0.51 * step);
                }
            }
        }
    }

    #[test]
    fn equal_products_are_entries_of_zero() {
        let mut tables = Vec::new();
        assert_eq!(quantize(&[[2.5; 16]; 3], &mut tables), (0.0, 7.5));
        assert_eq!(tables, [Pair::default(); 2]);
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let m = MOST_SUBQUANTIZERS;
        let codes = pack(&vec![3; m * 40], m);
        let mut tables = vec![Pair([255; 32]); m.div_ceil(2)];
        // An odd number of sub-quantisers leaves half a pair unused, and its table empty.
        tables.last_mut().unwrap().0[16..].fill(0);
        let task = Scan {
            biases: &[0; 40],
            positions: 0..40,
            linear: Linear {
                per_entry: 1.0,
                per_bias: 0.0,
                offset: 0.0,
            },
            limit: f32::INFINITY,
        };
        for form in [scan, portable::scan_blocks] {
            let mut found = Vec::new();
            form(&codes, &tables, &task, &mut found);
            assert_eq!(found.len(), 40);
            assert!(found.iter().all(|scored| scored.estimate == 65_535.0));
        }
    }
}
