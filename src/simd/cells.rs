//! The VA-file's cells: which points are too far, by half a byte for each component.
//!
//! The naive form:
//!
//! ```text
//! sum = 0
//! for component in components { sum += table[component][cell[component]] }
//! a point is near if sum < 255
//! ```
//!
//! A table has a number of one byte for each of 16 cells, so that it fits in a register: one
//! instruction looks up 16 points or more, and the sums stay in bytes. They saturate, that is, what
//! is more than 255 becomes 255. A sum of 255 can thus be any larger one, and means "too far".
//!
//! ```text
//!              32 bytes                        32 bytes
//! line 0   [ point 0 | point 1 | ... ]     [ point 0 | point 1 | ... ]
//!            1  0      1  0                  3  2      3  2              components
//! line 1     5  4      5  4                  7  6      7  6
//! ...
//! ```
//!
//! A byte has the cells of two components, the first in its low half. A line has four components
//! of the 32 points of a *block*.

use super::va_codes::BLOCK;

/// Cells of a component.
pub(crate) const CELLS: usize = 16;
/// Components in a [`CellLine`].
pub(crate) const LINE_COMPONENTS: usize = 4;
/// The least sum that means "too far".
pub(crate) const FULL: u8 = u8::MAX;
/// After so many lines it is looked whether any point is left. A look costs about half a line.
const LINES_A_LOOK: usize = 4;

/// The cells of a block of points in four components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct CellLine(pub [u8; 2 * BLOCK]);

impl Default for CellLine {
    fn default() -> Self {
        Self([0; 2 * BLOCK])
    }
}

impl CellLine {
    /// Sets the cell, below [`CELLS`], of a point in one of the four components. It was zero.
    pub fn set(&mut self, point: usize, component: usize, cell: u8) {
        self.0[component / 2 * BLOCK + point] |= cell << (4 * (component % 2));
    }

    fn get(&self, point: usize, component: usize) -> u8 {
        self.0[component / 2 * BLOCK + point] >> (4 * (component % 2)) & 15
    }
}

/// The numbers of the cells in the four components of a line, as registers need them: the table of
/// component 2·h + s stands in the half h of side s, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Tables([[u8; 64]; 2]);

impl Default for Tables {
    fn default() -> Self {
        Self([[0; 64]; 2])
    }
}

impl Tables {
    /// Sets the table of one of the four components.
    pub fn set(&mut self, component: usize, table: &[u8; CELLS]) {
        let half = &mut self.0[component % 2][component / 2 * BLOCK..][..BLOCK];
        for copy in half.chunks_exact_mut(CELLS) {
            copy.copy_from_slice(table);
        }
    }

    /// The number of a cell in one of the four components.
    pub fn number(&self, component: usize, cell: u8) -> u8 {
        self.0[component % 2][component / 2 * BLOCK + usize::from(cell)]
    }
}

/// A block with points that are not too far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub block: u32,
    /// A bit for each point: set if it is near.
    pub points: u32,
    /// The sums of all points.
    pub sums: [u8; BLOCK],
}

dispatch! {
    /// Appends those of the named blocks that have a point whose sum is below [`FULL`], in their
    /// order. A block has as many lines as there are tables.
    pub(crate) fn near(lines: &[CellLine], tables: &[Tables], blocks: &[u32], out: &mut Vec<Kept>);
}

mod portable {
    use super::{BLOCK, CellLine, FULL, Kept, LINE_COMPONENTS, Tables};

    pub fn near(lines: &[CellLine], tables: &[Tables], blocks: &[u32], out: &mut Vec<Kept>) {
        for &block in blocks {
            let lines = &lines[block as usize * tables.len()..][..tables.len()];
            let mut sums = [0u8; BLOCK];
            let mut points = 0;
            for (point, sum) in sums.iter_mut().enumerate() {
                for (line, tables) in lines.iter().zip(tables) {
                    for component in 0..LINE_COMPONENTS {
                        let cell = line.get(point, component);
                        *sum = sum.saturating_add(tables.number(component, cell));
                    }
                }
                points |= u32::from(*sum < FULL) << point;
            }
            if points != 0 {
                out.push(Kept {
                    block,
                    points,
                    sums,
                });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, CellLine, Kept, LINES_A_LOOK, Tables};
    use crate::simd::prefetch;

    #[target_feature(enable = "avx2")]
    pub fn near(lines: &[CellLine], tables: &[Tables], blocks: &[u32], out: &mut Vec<Kept>) {
        let lines_of = |block: u32| &lines[block as usize * tables.len()..][..tables.len()];
        for (at, &block) in blocks.iter().enumerate() {
            // The named blocks may be far apart, so the processor cannot guess which one is next.
            if let Some(&next) = blocks.get(at + 2) {
                prefetch(lines_of(next));
            }
            let mut sums = _mm256_setzero_si256();
            let mut points = 0;
            let looks = lines_of(block).chunks(LINES_A_LOOK);
            for (lines, tables) in looks.zip(tables.chunks(LINES_A_LOOK)) {
                sums = add_lines(sums, lines, tables);
                let far = _mm256_cmpeq_epi8(sums, _mm256_set1_epi8(-1));
                points = !(_mm256_movemask_epi8(far) as u32);
                if points == 0 {
                    break;
                }
            }
            if points != 0 {
                // SAFETY: a register is thirty-two bytes; any bits are valid.
                let sums = unsafe { std::mem::transmute::<__m256i, [u8; BLOCK]>(sums) };
                out.push(Kept {
                    block,
                    points,
                    sums,
                });
            }
        }
    }

    /// Adds the numbers of some lines to the sums of the 32 points.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_lines(mut sums: __m256i, lines: &[CellLine], tables: &[Tables]) -> __m256i {
        let low_bits = _mm256_set1_epi8(15);
        for (line, Tables([low, high])) in lines.iter().zip(tables) {
            for half in [0, BLOCK] {
                let cells = load(&line.0, half);
                let first = _mm256_and_si256(cells, low_bits);
                // There is no shift of bytes. Bits that come over from the next are masked.
                let second = _mm256_and_si256(_mm256_srli_epi16::<4>(cells), low_bits);
                sums = _mm256_adds_epu8(sums, _mm256_shuffle_epi8(load(low, half), first));
                sums = _mm256_adds_epu8(sums, _mm256_shuffle_epi8(load(high, half), second));
            }
        }
        sums
    }

    /// The 32 bytes from `at` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; 64], at: usize) -> __m256i {
        let half: &[u8; BLOCK] = bytes[at..].first_chunk().expect("half of the bytes");
        // SAFETY: an unaligned load of exactly the bytes that the reference covers.
        unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BLOCK, CellLine, Kept, LINES_A_LOOK, Tables};
    use crate::simd::prefetch;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub fn near(lines: &[CellLine], tables: &[Tables], blocks: &[u32], out: &mut Vec<Kept>) {
        let lines_of = |block: u32| &lines[block as usize * tables.len()..][..tables.len()];
        for (at, &block) in blocks.iter().enumerate() {
            // As in the AVX2 form.
            if let Some(&next) = blocks.get(at + 2) {
                prefetch(lines_of(next));
            }
            let mut sums = _mm512_setzero_si512();
            let mut both = _mm256_setzero_si256();
            let mut points = 0;
            let looks = lines_of(block).chunks(LINES_A_LOOK);
            for (lines, tables) in looks.zip(tables.chunks(LINES_A_LOOK)) {
                sums = add_lines(sums, lines, tables);
                // The halves are the same points in other components.
                let (low, high) = (
                    _mm512_castsi512_si256(sums),
                    _mm512_extracti64x4_epi64::<1>(sums),
                );
                both = _mm256_adds_epu8(low, high);
                points = _mm256_cmpneq_epi8_mask(both, _mm256_set1_epi8(-1));
                if points == 0 {
                    break;
                }
            }
            if points != 0 {
                // SAFETY: a register is thirty-two bytes; any bits are valid.
                let sums = unsafe { std::mem::transmute::<__m256i, [u8; BLOCK]>(both) };
                out.push(Kept {
                    block,
                    points,
                    sums,
                });
            }
        }
    }

    /// Adds the numbers of some lines to the two sums of each of the 32 points.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn add_lines(mut sums: __m512i, lines: &[CellLine], tables: &[Tables]) -> __m512i {
        let low_bits = _mm512_set1_epi8(15);
        for (line, Tables([low, high])) in lines.iter().zip(tables) {
            let cells = load(&line.0);
            let first = _mm512_and_si512(cells, low_bits);
            let second = _mm512_and_si512(_mm512_srli_epi16::<4>(cells), low_bits);
            sums = _mm512_adds_epu8(sums, _mm512_shuffle_epi8(load(low), first));
            sums = _mm512_adds_epu8(sums, _mm512_shuffle_epi8(load(high), second));
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: an unaligned load of exactly the bytes that the reference covers.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_form_agrees_with_the_definition() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        const BLOCKS: usize = 5;
        // With small numbers all points are near, with large ones none; and one to eleven lines, so
        // that the last look is at fewer lines, too.
        for (lines, largest) in [(1, 120), (4, 30), (5, 30), (11, 10), (11, 2), (11, 255)] {
            let components = lines * LINE_COMPONENTS;
            let numbers: Vec<[u8; CELLS]> = (0..components)
                .map(|_| std::array::from_fn(|_| rng.random_range(0..=largest)))
                .collect();
            let mut tables = vec![Tables::default(); lines];
            for (component, numbers) in numbers.iter().enumerate() {
                tables[component / LINE_COMPONENTS].set(component % LINE_COMPONENTS, numbers);
            }
            let mut stored = vec![CellLine::default(); BLOCKS * lines];
            let mut sums: Vec<u32> = vec![0; BLOCKS * BLOCK];
            for (point, sum) in sums.iter_mut().enumerate() {
                for (component, numbers) in numbers.iter().enumerate() {
                    let cell = rng.random_range(0..CELLS);
                    let line = point / BLOCK * lines + component / LINE_COMPONENTS;
                    stored[line].set(point % BLOCK, component % LINE_COMPONENTS, cell as u8);
                    *sum += u32::from(numbers[cell]);
                }
            }

            let blocks = [3, 0, 4];
            let sum_of = |block: u32, point: usize| sums[block as usize * BLOCK + point].min(255);
            let all = blocks.map(|block| Kept {
                block,
                points: (0..BLOCK)
                    .map(|i| u32::from(sum_of(block, i) < 255) << i)
                    .sum(),
                sums: std::array::from_fn(|i| sum_of(block, i) as u8),
            });
            let expected: Vec<Kept> = all.into_iter().filter(|kept| kept.points != 0).collect();
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            near(&stored, &tables, &blocks, &mut fast);
            portable::near(&stored, &tables, &blocks, &mut slow);
            assert_eq!(fast, expected, "{lines} lines, at most {largest}");
            assert_eq!(slow, expected, "{lines} lines, at most {largest}");
        }
    }
}
