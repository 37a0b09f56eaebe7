//! One vector against many of which half a byte a value is kept: what single queries scan, as fast
//! as memory delivers it.
//!
//! The naive form:
//!
//! ```text
//! for each row { out.push(Σ codeᵢ·valueᵢ) }        values 0..=15, codes −128..=127
//! ```
//!
//! A sum along one row would have to be folded across a register for every row. So sixteen rows, a
//! *group*, stand side by side in [`Line`]s, four bytes of each. The bytes hold eight values, of
//! which the first four are the low halves and the other four the high ones:
//!
//! ```text
//!                  row 0          row 1       ...      row 15
//! line 0      v4v0 v5v1 v6v2 v7v3   ·             ·                  values 0..8
//! line 1      v12v8 ...             ·             ·                  values 8..16
//! ...
//! ```
//!
//! A line takes two products by the query's codes, one for the low halves and one for the high
//! ones. Sums stay in the lane of their row.
//!
//! What can go wrong is overflow: the AVX2 form adds in 16 bits for a few lines (its `SHORT`), then
//! in 32, the others in 32 at once. A product is at most 15 · 128 in size and there are at most
//! 2¹⁴ values, so that the sums fit: 15 · 128 · 2¹⁴ < 2²⁵.

use std::ops::Range;

use rayon::prelude::*;

use super::{LINE_WORDS, Line};

/// Rows side by side, a group.
pub(crate) const ROWS: usize = LINE_WORDS;
/// Values of a row in a line.
const VALUES: usize = 8;
/// How many lines ahead of the one that it multiplies a scan asks the memory: 128 lines are 8 KiB.
/// The processor's own prefetching stops at every page, that is, every 4 KiB.
const PREFETCH_LINES: usize = 128;

/// Rows of values 0..=15.
#[derive(Debug)]
pub(crate) struct Nibbles {
    /// Lines of a group of rows.
    words: usize,
    lines: Vec<Line<[u8; 4]>>,
}

/// A query's codes, laid out for [`Nibbles::products`]: what the low and the high halves of a line
/// are multiplied by.
#[derive(Debug)]
pub(crate) struct Codes(Vec<[[u8; 4]; 2]>);

impl Codes {
    /// Two's complement codes; no more than 2¹⁴, so that sums fit in 31 bits.
    pub(crate) fn new(codes: &[u8]) -> Self {
        let mut words = vec![[[0; 4]; 2]; codes.len().div_ceil(VALUES)];
        // Eight codes in order are the four for the low halves and the four for the high halves.
        // The last ones are filled up with zeros, so that what a row has beyond its end adds
        // nothing.
        words.as_flattened_mut().as_flattened_mut()[..codes.len()].copy_from_slice(codes);
        Self(words)
    }
}

impl Nibbles {
    /// `rows` rows of `dim` zeros.
    pub(crate) fn zeros(rows: usize, dim: usize) -> Self {
        let words = dim.div_ceil(VALUES);
        let lines = vec![Line::default(); rows.div_ceil(ROWS) * words];
        super::in_huge_pages(&lines);
        Self { words, lines }
    }

    /// Of lines that [`Self::lines`] has given; `None` if they are not those of `rows` rows of
    /// `dim` values.
    pub(crate) fn of_lines(rows: usize, dim: usize, lines: Vec<Line<[u8; 4]>>) -> Option<Self> {
        let words = dim.div_ceil(VALUES);
        (lines.len() == rows.div_ceil(ROWS) * words).then_some(Self { words, lines })
    }

    /// All lines, group after group.
    pub(crate) fn lines(&self) -> &Vec<Line<[u8; 4]>> {
        &self.lines
    }

    /// The rows by blocks of `rows`, a multiple of [`ROWS`], to be written.
    pub(crate) fn blocks(&mut self, rows: usize) -> impl IndexedParallelIterator<Item = Block<'_>> {
        debug_assert!(rows.is_multiple_of(ROWS));
        let words = self.words;
        self.lines
            .par_chunks_mut(rows / ROWS * words)
            .map(move |lines| Block { words, lines })
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Writes the products of the query and some rows, from a multiple of [`ROWS`] on. `out` may
    /// end within a group.
    pub(crate) fn products(&self, rows: Range<usize>, query: &Codes, out: &mut [i32]) {
        debug_assert!(
            rows.start.is_multiple_of(ROWS)
                && out.len() == rows.len()
                && query.0.len() == self.words
        );
        for (group, out) in (rows.start / ROWS..).zip(out.chunks_mut(ROWS)) {
            // The lines of a group, and as many from `PREFETCH_LINES` further on: while a group is
            // multiplied, that many are asked for. At the end of the table there are fewer.
            let from = group * self.words;
            let lines = &self.lines[from..from + self.words];
            let next = (from + PREFETCH_LINES).min(self.lines.len());
            let end = (from + PREFETCH_LINES + self.words).min(self.lines.len());
            let sums = products(lines, &self.lines[next..end], query);
            // A group is computed in full, even if the rows end within it.
            out.copy_from_slice(&sums.0[..out.len()]);
        }
    }
}

/// Some rows of [`Nibbles`].
pub(crate) struct Block<'a> {
    words: usize,
    lines: &'a mut [Line<[u8; 4]>],
}

impl Block<'_> {
    /// Overwrites a row of the block.
    pub(crate) fn set(&mut self, row: usize, values: &[u8]) {
        let group = row / ROWS * self.words;
        for (line, values) in self.lines[group..group + self.words]
            .iter_mut()
            .zip(values.chunks(VALUES))
        {
            // The last values of a row may be fewer than eight; zeros fill them up.
            let mut eight = [0; VALUES];
            eight[..values.len()].copy_from_slice(values);
            line.0[row % ROWS] = std::array::from_fn(|at| eight[at] | eight[at + 4] << 4);
        }
    }
}

dispatch! {
    /// The products of the query and a group of rows; `ahead` is what will be read before long.
    fn products(lines: &[Line<[u8; 4]>], ahead: &[Line<[u8; 4]>], query: &Codes) -> Line<i32>;
}

mod portable {
    use super::{Codes, Line};
    use crate::simd::prefetch;

    pub fn products(
        lines: &[Line<[u8; 4]>],
        ahead: &[Line<[u8; 4]>],
        Codes(query): &Codes,
    ) -> Line<i32> {
        prefetch(ahead);
        let mut sums = Line::default();
        for (line, [low, high]) in lines.iter().zip(query) {
            for (sum, word) in sums.0.iter_mut().zip(line.0) {
                for at in 0..4 {
                    // Values have no sign; the query's codes have one.
                    let [low, high] = [low[at], high[at]].map(|code| i32::from(code.cast_signed()));
                    *sum += i32::from(word[at] & 15) * low + i32::from(word[at] >> 4) * high;
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Codes, Line};

    /// Lines whose products are added in 16 bits. A line adds four products to a lane, two of low
    /// halves and two of high ones. So four lines add 16 products to it, and
    /// 16 · 15 · 128 = 30,720 < 2¹⁵.
    const SHORT: usize = 4;

    #[target_feature(enable = "avx2")]
    pub fn products(
        lines: &[Line<[u8; 4]>],
        ahead: &[Line<[u8; 4]>],
        Codes(query): &Codes,
    ) -> Line<i32> {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); 2];
        let mut at = 0;
        for (lines, query) in lines.chunks(SHORT).zip(query.chunks(SHORT)) {
            let mut short = [_mm256_setzero_si256(); 2];
            for (line, query) in lines.iter().zip(query) {
                // One line is asked for with each that is multiplied, so that requests are spread
                // evenly.
                if let Some(line) = ahead.get(at) {
                    _mm_prefetch::<_MM_HINT_T0>((&raw const *line).cast());
                }
                at += 1;
                add_products(line, query, &mut short);
            }
            for half in 0..2 {
                // Multiplying by one adds the two 16-bit sums of each row in 32 bits.
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(short[half], ones));
            }
        }
        let mut out: Line<i32> = Line::default();
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: a line is sixteen aligned words of four bytes.
            unsafe { _mm256_store_si256(out.0.as_mut_ptr().cast::<__m256i>().add(half), sum) };
        }
        out
    }

    /// Adds the products of one line to sums of 16 bits, two a row.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_products(line: &Line<[u8; 4]>, query: &[[u8; 4]; 2], short: &mut [__m256i; 2]) {
        let mask = _mm256_set1_epi8(15);
        let [low, high] = query.map(|codes| _mm256_set1_epi32(i32::from_le_bytes(codes)));
        for (half, short) in short.iter_mut().enumerate() {
            // SAFETY: a line is sixteen aligned words of four bytes.
            let bytes = unsafe { _mm256_load_si256(line.0.as_ptr().cast::<__m256i>().add(half)) };
            // A lane of 32 bits is one row: four bytes, eight values. The values have no sign, so
            // they are the first operand. There is no shift of bytes; what the shift of 16 bits
            // brings in from the next byte is masked off.
            let lows = _mm256_maddubs_epi16(_mm256_and_si256(bytes, mask), low);
            let highs =
                _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), high);
            *short = _mm256_add_epi16(*short, _mm256_add_epi16(lows, highs));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Codes, Line};

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn products(
        lines: &[Line<[u8; 4]>],
        ahead: &[Line<[u8; 4]>],
        Codes(query): &Codes,
    ) -> Line<i32> {
        let mask = _mm512_set1_epi8(15);
        // Two sums, so that no product waits for the one before.
        let mut sums = [_mm512_setzero_si512(); 2];
        for (at, (line, query)) in lines.iter().zip(query).enumerate() {
            // One line is asked for with each that is multiplied, so that requests are spread
            // evenly.
            if let Some(line) = ahead.get(at) {
                _mm_prefetch::<_MM_HINT_T0>((&raw const *line).cast());
            }
            // SAFETY: a line is sixteen aligned words of four bytes.
            let bytes = unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
            // A lane of 32 bits is one row: four bytes, eight values. There is no shift of bytes;
            // what the shift of 16 bits brings in from the next byte is masked off.
            let values = [
                _mm512_and_si512(bytes, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask),
            ];
            for half in 0..2 {
                // The values have no sign, so they are the first factor. Four products are added to
                // the sum of their lane, in 32 bits.
                let codes = _mm512_set1_epi32(i32::from_le_bytes(query[half]));
                sums[half] = _mm512_dpbusd_epi32(sums[half], values[half], codes);
            }
        }
        let mut out: Line<i32> = Line::default();
        // SAFETY: a line is sixteen aligned words of four bytes.
        unsafe {
            _mm512_store_si512(
                out.0.as_mut_ptr().cast(),
                _mm512_add_epi32(sums[0], sums[1]),
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_are_exact(
            (values, codes, rows) in (1usize..70, 1usize..40).prop_flat_map(|(dim, rows)| {
                let value = prop_oneof![Just(15u8), 0u8..16];
                let code = prop_oneof![Just(-128i8), Just(127), any::<i8>()];
                let values = prop::collection::vec(value, dim * rows);
                (values, prop::collection::vec(code, dim), Just(rows))
            })
        ) {
            let dim = codes.len();
            let mut nibbles = Nibbles::zeros(rows, dim);
            nibbles.blocks(ROWS).zip(values.par_chunks(dim * ROWS)).for_each(|(mut block, rows)| {
                rows.chunks(dim).enumerate().for_each(|(row, values)| block.set(row, values));
            });
            let unsigned: Vec<u8> = codes.iter().map(|code| code.cast_unsigned()).collect();
            let query = Codes::new(&unsigned);
            let product = |row: &[u8]| -> i32 {
                row.iter().zip(&codes).map(|(&v, &c)| i32::from(v) * i32::from(c)).sum()
            };
            let expected: Vec<i32> = values.chunks(dim).map(product).collect();
            let mut found = vec![7; rows];
            nibbles.products(0..rows, &query, &mut found);
            prop_assert_eq!(&found, &expected);
            if rows > ROWS {
                nibbles.products(ROWS..rows, &query, &mut found[ROWS..]);
                prop_assert_eq!(&found[ROWS..], &expected[ROWS..]);
            }
            let groups = nibbles.lines.chunks(nibbles.words);
            for (lines, expected) in groups.zip(expected.chunks(ROWS)) {
                let found = portable::products(lines, &[], &query);
                prop_assert_eq!(&found.0[..expected.len()], expected);
            }
        }
    }
}
