//! Many vectors against many: scalar products of tiles of 6 points × 16 queries, the way matrix products are made fast.
//!
//! The queries are packed into panels of 16, dimension by dimension, so that one register holds one dimension of eight
//! queries; the points are packed by sixes likewise and are broadcast value by value. A tile's sums fill 12 of the 16 registers and are
//! touched by nothing else, a panel's chunk stays in the first-level cache while all points of a block pass by, and the
//! block stays in the second level while all panels pass by (Goto and van de Geijn, *Anatomy of High-Performance Matrix
//! Multiplication*, ACM TOMS 34(3), 2008, with the selection of neighbours in place of the stored product).

/// Queries of a panel.
pub(crate) const QUERIES: usize = 16;
/// Points of a tile.
pub(crate) const POINTS: usize = 6;
/// Lines of a panel that are multiplied at once: 12.5 KiB, to share a first-level cache of 32 KiB with the points.
const CHUNK: usize = 200;

/// One word of each query of a panel: a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub [T; QUERIES]);

/// Four bytes of a vector: one dimension as `f32`, or two as `[i16; 2]`.
pub(crate) trait Word: Copy + Default + Send + Sync {
    /// What products are added in.
    type Sum: Copy + Default;

    /// Adds to `sums[p].0[q]` the product of point p and query q of the panel, over the words that both slices have.
    fn accumulate(points: &[[Self; POINTS]], panel: &[Line<Self>], sums: &mut [Line<Self::Sum>; POINTS]);

    /// The first row from `from` on with a query for which `norm − 2·sum > limit` does **not** hold (which a NaN makes
    /// so as well), and these queries as a bit mask.
    fn next_near(
        sums: &[Line<Self::Sum>],
        norms: &[Self::Sum],
        limits: &Line<Self::Sum>,
        from: usize,
    ) -> Option<(usize, u32)>;
}

impl Word for f32 {
    type Sum = f32;

    fn accumulate(points: &[[f32; POINTS]], panel: &[Line<f32>], sums: &mut [Line<f32>; POINTS]) {
        #[cfg(target_arch = "x86_64")]
        if super::has_avx2() {
            // SAFETY: AVX2 and FMA have just been found.
            return unsafe { avx2::accumulate_f32(points, panel, sums) };
        }
        portable::accumulate(points, panel, sums, |sum, a, b| sum + a * b);
    }

    fn next_near(sums: &[Line<f32>], norms: &[f32], limits: &Line<f32>, from: usize) -> Option<(usize, u32)> {
        #[cfg(target_arch = "x86_64")]
        if super::has_avx2() {
            // SAFETY: AVX2 and FMA have just been found.
            return unsafe { avx2::next_near_f32(sums, norms, limits, from) };
        }
        // Not the same as `<=`: a NaN is near.
        #[expect(clippy::neg_cmp_op_on_partial_ord)]
        portable::next_near(sums, norms, limits, from, |sum, norm, limit| !(norm - 2.0 * sum > limit))
    }
}

impl Word for [i16; 2] {
    type Sum = i32;

    fn accumulate(points: &[[Self; POINTS]], panel: &[Line<Self>], sums: &mut [Line<i32>; POINTS]) {
        #[cfg(target_arch = "x86_64")]
        if super::has_avx2() {
            // SAFETY: AVX2 has just been found.
            return unsafe { avx2::accumulate_i16(points, panel, sums) };
        }
        portable::accumulate(points, panel, sums, |sum, [a, b]: Self, [c, d]: Self| {
            sum + i32::from(a) * i32::from(c) + i32::from(b) * i32::from(d)
        });
    }

    fn next_near(sums: &[Line<i32>], norms: &[i32], limits: &Line<i32>, from: usize) -> Option<(usize, u32)> {
        #[cfg(target_arch = "x86_64")]
        if super::has_avx2() {
            // SAFETY: AVX2 has just been found.
            return unsafe { avx2::next_near_i32(sums, norms, limits, from) };
        }
        portable::next_near(sums, norms, limits, from, |sum, norm, limit| norm - 2 * sum <= limit)
    }
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
            let panel = row / QUERIES * words;
            for (line, &value) in lines[panel..panel + words].iter_mut().zip(values) {
                line.0[row % QUERIES] = value;
            }
        }
        Self { words, lines }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len() / self.words
    }

    /// `sums[p].0[q]` = the product of point p and query q of panel `panel`; `points` and `sums` have equal numbers of
    /// tiles.
    pub(crate) fn products(&self, panel: usize, points: &Tiles<W>, sums: &mut [Line<W::Sum>]) {
        let lines = &self.lines[panel * self.words..(panel + 1) * self.words];
        sums.fill(Line::default());
        let sums = sums.as_chunks_mut::<POINTS>().0;
        for (chunk, lines) in lines.chunks(CHUNK).enumerate() {
            for (tile, sums) in points.values.chunks_exact(self.words).zip(&mut *sums) {
                W::accumulate(&tile[chunk * CHUNK..], lines, sums);
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
        Self { words, values: vec![[W::default(); POINTS]; count * words] }
    }

    /// Overwrites point `point`.
    pub(crate) fn set(&mut self, point: usize, values: &[W]) {
        let tile = point / POINTS * self.words;
        for (out, &value) in self.values[tile..tile + self.words].iter_mut().zip(values) {
            out[point % POINTS] = value;
        }
    }
}

mod portable {
    use super::{Line, POINTS, QUERIES};

    pub fn accumulate<W: Copy, S: Copy>(
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

    pub fn next_near<S: Copy>(
        sums: &[Line<S>],
        norms: &[S],
        limits: &Line<S>,
        from: usize,
        near: impl Fn(S, S, S) -> bool,
    ) -> Option<(usize, u32)> {
        sums.iter().zip(norms).enumerate().skip(from).find_map(|(row, (sums, &norm))| {
            let mask = (0..QUERIES)
                .fold(0, |mask, query| mask | u32::from(near(sums.0[query], norm, limits.0[query])) << query);
            (mask != 0).then_some((row, mask))
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Line, POINTS};

    #[target_feature(enable = "avx2,fma")]
    pub fn accumulate_f32(points: &[[f32; POINTS]], panel: &[Line<f32>], sums: &mut [Line<f32>; POINTS]) {
        let mut tile = [[_mm256_setzero_ps(); 2]; POINTS];
        for (values, line) in points.iter().zip(panel) {
            let line = line.0.as_ptr();
            // SAFETY: a line is sixteen aligned floats.
            let (left, right) = unsafe { (_mm256_load_ps(line), _mm256_load_ps(line.add(8))) };
            for (&value, tile) in values.iter().zip(&mut tile) {
                let value = _mm256_set1_ps(value);
                tile[0] = _mm256_fmadd_ps(value, left, tile[0]);
                tile[1] = _mm256_fmadd_ps(value, right, tile[1]);
            }
        }
        for (sums, tile) in sums.iter_mut().zip(&tile) {
            let sums = sums.0.as_mut_ptr();
            // SAFETY: a line is sixteen aligned floats.
            unsafe {
                _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), tile[0]));
                _mm256_store_ps(sums.add(8), _mm256_add_ps(_mm256_load_ps(sums.add(8)), tile[1]));
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn accumulate_i16(points: &[[[i16; 2]; POINTS]], panel: &[Line<[i16; 2]>], sums: &mut [Line<i32>; POINTS]) {
        let mut tile = [[_mm256_setzero_si256(); 2]; POINTS];
        for (values, line) in points.iter().zip(panel) {
            let line = line.0.as_ptr().cast::<__m256i>();
            // SAFETY: a line is sixteen aligned words of four bytes.
            let (left, right) = unsafe { (_mm256_load_si256(line), _mm256_load_si256(line.add(1))) };
            for (&[a, b], tile) in values.iter().zip(&mut tile) {
                let pair = _mm256_set1_epi32(i32::from(a) & 0xffff | i32::from(b) << 16);
                tile[0] = _mm256_add_epi32(tile[0], _mm256_madd_epi16(pair, left));
                tile[1] = _mm256_add_epi32(tile[1], _mm256_madd_epi16(pair, right));
            }
        }
        for (sums, tile) in sums.iter_mut().zip(&tile) {
            let sums = sums.0.as_mut_ptr().cast::<__m256i>();
            // SAFETY: a line is sixteen aligned words of four bytes.
            unsafe {
                _mm256_store_si256(sums, _mm256_add_epi32(_mm256_load_si256(sums), tile[0]));
                _mm256_store_si256(sums.add(1), _mm256_add_epi32(_mm256_load_si256(sums.add(1)), tile[1]));
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn next_near_f32(sums: &[Line<f32>], norms: &[f32], limits: &Line<f32>, from: usize) -> Option<(usize, u32)> {
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
                let key = _mm256_fnmadd_ps(two, sum, norm);
                let near = _mm256_cmp_ps::<_CMP_NGT_UQ>(key, limit);
                mask |= (_mm256_movemask_ps(near) as u32) << (8 * half);
            }
            if mask != 0 {
                return Some((row, mask));
            }
        }
        None
    }

    #[target_feature(enable = "avx2")]
    pub fn next_near_i32(sums: &[Line<i32>], norms: &[i32], limits: &Line<i32>, from: usize) -> Option<(usize, u32)> {
        let limit = limits.0.as_ptr().cast::<__m256i>();
        // SAFETY: a line is sixteen aligned words of four bytes.
        let limit = unsafe { [_mm256_load_si256(limit), _mm256_load_si256(limit.add(1))] };
        for (row, (sums, &norm)) in sums.iter().zip(norms).enumerate().skip(from) {
            let norm = _mm256_set1_epi32(norm);
            let mut mask = 0;
            for (half, &limit) in limit.iter().enumerate() {
                // SAFETY: as above.
                let sum = unsafe { _mm256_load_si256(sums.0.as_ptr().cast::<__m256i>().add(half)) };
                let key = _mm256_sub_epi32(norm, _mm256_slli_epi32::<1>(sum));
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Row-major products by the definition, in f64.
    fn naive<W: Copy>(rows: &[W], queries: &[W], words: usize, product: impl Fn(W, W) -> f64) -> Vec<Vec<f64>> {
        let dot = |a: &[W], b: &[W]| a.iter().zip(b).map(|(&a, &b)| product(a, b)).sum();
        rows.chunks(words).map(|row| queries.chunks(words).map(|query| dot(row, query)).collect()).collect()
    }

    fn products<W: Word>(rows: &[W], queries: &[W], words: usize) -> Vec<Vec<W::Sum>> {
        let panels = Panels::pack(queries, words);
        assert_eq!(panels.len(), (queries.len() / words).div_ceil(QUERIES));
        let mut out = vec![Vec::new(); rows.len() / words];
        for panel in 0..panels.len() {
            let mut sums = vec![Line::default(); rows.len() / words];
            let mut points = Tiles::zeros(rows.len() / words / POINTS, words);
            rows.chunks_exact(words).enumerate().for_each(|(point, row)| points.set(point, row));
            panels.products(panel, &points, &mut sums);
            out.iter_mut().zip(&sums).for_each(|(out, sums)| out.extend(sums.0));
        }
        out.iter_mut().for_each(|row| row.truncate(queries.len() / words));
        out
    }

    #[test]
    fn integer_products_are_exact() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for words in [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3] {
            let mut table =
                |rows: usize| (0..rows * words).map(|_| [0; 2].map(|_: i16| rng.random_range(0..=255))).collect();
            let (rows, queries): (Vec<[i16; 2]>, Vec<[i16; 2]>) = (table(2 * POINTS), table(QUERIES + 3));
            let product =
                |a: [i16; 2], b: [i16; 2]| f64::from(a[0]) * f64::from(b[0]) + f64::from(a[1]) * f64::from(b[1]);
            let expected = naive(&rows, &queries, words, product);
            for (got, expected) in products(&rows, &queries, words).iter().zip(&expected) {
                assert_eq!(got.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), *expected, "{words} words");
            }
        }
    }

    #[test]
    fn float_products_are_within_the_bound_of_sequential_summation() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for words in [1, 3, CHUNK + 1, 3 * CHUNK] {
            let mut table = |rows: usize| (0..rows * words).map(|_| rng.random_range(-1.0f32..1.0)).collect();
            let (rows, queries): (Vec<f32>, Vec<f32>) = (table(POINTS), table(QUERIES + 1));
            let expected = naive(&rows, &queries, words, |a, b| f64::from(a) * f64::from(b));
            let sizes = naive(&rows, &queries, words, |a, b| (f64::from(a) * f64::from(b)).abs());
            for (row, got) in products(&rows, &queries, words).iter().enumerate() {
                for (query, &got) in got.iter().enumerate() {
                    let bound = crate::kernel::pair::gamma(words + 1) * sizes[row][query];
                    assert!((f64::from(got) - expected[row][query]).abs() <= bound, "{words} words");
                }
            }
        }
    }

    #[test]
    fn the_portable_form_agrees() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let words = 50;
        let rows: Vec<[[i16; 2]; POINTS]> =
            (0..words).map(|_| [(); POINTS].map(|()| [rng.random_range(0..256), rng.random_range(0..256)])).collect();
        let panel: Vec<Line<[i16; 2]>> = (0..words).map(|_| Line([[rng.random_range(0..256), 7]; QUERIES])).collect();
        let (mut fast, mut slow) = ([Line([5; QUERIES]); POINTS], [Line([5; QUERIES]); POINTS]);
        Word::accumulate(&rows, &panel, &mut fast);
        portable::accumulate(&rows, &panel, &mut slow, |sum, a: [i16; 2], b: [i16; 2]| {
            sum + i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1])
        });
        assert_eq!(fast, slow);
    }

    #[test]
    fn finds_the_near_ones_and_takes_a_nan_for_near() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let sums: Vec<Line<i32>> = (0..50).map(|_| Line([(); QUERIES].map(|()| rng.random_range(-100..100)))).collect();
        let norms: Vec<i32> = (0..50).map(|_| rng.random_range(-100..100)).collect();
        let limits = Line([(); QUERIES].map(|()| rng.random_range(-250..-150)));
        let mut expected = Vec::new();
        for row in 0..50 {
            let near = (0..QUERIES).filter(|&q| norms[row] - 2 * sums[row].0[q] <= limits.0[q]);
            let mask = near.fold(0, |mask, q| mask | 1 << q);
            expected.extend((mask != 0).then_some((row, mask)));
        }
        assert!((10..45).contains(&expected.len()), "both kinds of row");
        let floats: Vec<Line<f32>> = sums.iter().map(|line| Line(line.0.map(|v| v as f32))).collect();
        let float_norms: Vec<f32> = norms.iter().map(|&v| v as f32).collect();
        let float_limits = Line(limits.0.map(|v| v as f32));
        let (mut integers, mut reals, mut from) = (Vec::new(), Vec::new(), 0);
        while let Some((row, mask)) = <[i16; 2]>::next_near(&sums, &norms, &limits, from) {
            integers.push((row, mask));
            from = row + 1;
        }
        from = 0;
        while let Some((row, mask)) = f32::next_near(&floats, &float_norms, &float_limits, from) {
            reals.push((row, mask));
            from = row + 1;
        }
        assert_eq!(integers, expected);
        assert_eq!(reals, expected);

        let nan = Line([f32::NAN; QUERIES]);
        assert_eq!(f32::next_near(&[nan], &[0.0], &Line([0.0; QUERIES]), 0), Some((0, 0xffff)));
    }
}
