//! The loops of a convolutional layer (convolution, ReLU, and 2 × 2 max-pooling where wanted), one
//! image at a time, on plain slices.
//!
//! The naive form of the forward pass, before pooling:
//!
//! ```text
//! for each pixel (y, x), for each output channel o:
//!     out[y, x, o] = bias[o] + Σ image[y + ky, x + kx, c] · weight[o, ky, kx, c]
//! ```
//!
//! summed over ky, kx and the input channels c. Images are height × width × channels. So the
//! patch under a kernel is `kernel` *runs* of `kernel · c_in` values, each contiguous in the image
//! with a border of zeros:
//!
//! ```text
//! padded image, kernel 3, c_in 2          patch of pixel (y, x): three runs of six values
//!
//!   row y        · · [a a b b c c] · ·
//!   row y + 1    · · [d d e e f f] · ·
//!   row y + 2    · · [g g h h i i] · ·
//! ```
//!
//! No matrix of patches (im2col) is ever written. The two passes are then
//!
//! - forward: a register tile of a few neighbouring pixels × 16 channels, as in a matrix product,
//!   whose left side is read straight out of the image. Where the kernel is 3 and the channels are
//!   many, [`Geometry::by_transform`], less is multiplied: see below;
//! - backward: after 2 × 2 max-pooling at most one pixel in four has a gradient, a *hit*, and
//!   after the ReLU fewer still; without pooling, each that the ReLU let pass. Both gradients are
//!   sums of contiguous runs over the hits only: for the weights of a channel, the runs of the
//!   image under its hits; for the image under a pixel, the runs of the weights of the channels
//!   that hit it.
//!
//! # Forward by transform
//!
//! Four outputs of a 3 × 3 kernel, 2 × 2 neighbours, take 4 · 9 = 36 products for each pair of
//! channels. They depend on 4 × 4 inputs, and 16 products are enough: Winograd's F(2 × 2, 3 × 3)
//! (A. Lavin and S. Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016).
//!
//! ```text
//! V = Bᵀ · inputs · B        4 × 4, for each channel that comes in: differences and sums
//! U = G · kernel · Gᵀ        4 × 4, once for each pair of channels
//! M = Σ V · U                product by product, summed over the channels that come in
//! outputs = Aᵀ · M · A       2 × 2, for each channel that comes out
//! ```
//!
//! Each of the 16 sums is a matrix product of its own, in the same register tiles. The 2 × 2
//! outputs are a pooling window where there is pooling. Values are rounded at other places than in
//! the plain sum, so that the last bits differ.
//!
//! The code is written once, in a shape that compilers turn into SIMD, and compiled for what the
//! machine turns out to have. Sums are taken in an order that depends on the data's shape alone, so
//! AVX2 and AVX-512 give the same bits. Portable code gives others: a fused multiplication and
//! addition rounds once instead of twice.

use std::ops::{Deref, DerefMut, Range};

/// Output channels a register tile: two AVX registers.
pub const TILE: usize = 16;
/// Values that the backward sums take at a time: one AVX register.
const LANES: usize = 8;
/// The same with AVX-512.
const WIDE_LANES: usize = 16;
/// Inputs of a square of 2 × 2 outputs under a kernel of 3, and products for each of its channels.
const SQUARE: usize = 16;
/// Winner of a pooling window whose output the ReLU cut off: nothing flows back.
const DEAD: u8 = 4;
/// What a window's gradient can go to: one of its four pixels, or nowhere.
const WINNERS: usize = DEAD as usize + 1;

/// The shape of one convolution with stride 1 and zero padding that keeps the size, and of the
/// max-pooling after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Rows of the image.
    pub height: usize,
    /// Columns of the image.
    pub width: usize,
    /// Channels of the image.
    pub c_in: usize,
    /// Channels that come out.
    pub c_out: usize,
    /// Side of the kernel, odd.
    pub kernel: usize,
    /// Side of a pooling window: 2, or 1 for no pooling. Then every pixel is a window of its own.
    pub pool: usize,
}

impl Geometry {
    /// Values of an image.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.c_in
    }

    /// Rows and columns after pooling (what is left of a whole window is dropped).
    pub fn pooled(&self) -> (usize, usize) {
        (self.height / self.pool, self.width / self.pool)
    }

    /// Values that come out of an image.
    pub fn output_len(&self) -> usize {
        let (rows, columns) = self.pooled();
        rows * columns * self.c_out
    }

    /// Values of a weight tensor, `c_out × kernel × kernel × c_in`.
    pub fn weight_len(&self) -> usize {
        self.c_out * self.kernel * self.run()
    }

    /// Whether the forward pass goes by the transform. It is for kernels of 3, and its outputs come
    /// in squares of four. Transforming takes a time for each channel, and multiplying one for each
    /// pair, so that the channels have to be some.
    fn by_transform(&self) -> bool {
        let even = self.height.is_multiple_of(2) && self.width.is_multiple_of(2);
        let many = self.c_in >= 2 * LANES && self.c_in.is_multiple_of(LANES);
        self.kernel == 3 && many && (self.pool == 2 || even)
    }

    /// Squares of 2 × 2 outputs in an image, in a column and in a row of it.
    fn squares(&self) -> (usize, usize) {
        (self.height / 2, self.width / 2)
    }

    /// Contiguous values under one row of the kernel.
    fn run(&self) -> usize {
        self.kernel * self.c_in
    }

    /// [`Geometry::run`] in whole registers.
    fn wide_run(&self) -> usize {
        self.run().next_multiple_of(LANES)
    }

    /// Values of a row of the padded image.
    fn padded_row(&self) -> usize {
        (self.width + self.kernel - 1) * self.c_in
    }

    /// Values of the padded image, and room for the last run to be read in whole registers: that
    /// reads up to `LANES − 1` values beyond its end.
    fn padded_len(&self) -> usize {
        (self.height + self.kernel - 1) * self.padded_row() + LANES
    }

    /// Where row `y` of the image begins in the padded image.
    fn padded_start(&self, y: usize) -> usize {
        let margin = self.kernel / 2;
        (y + margin) * self.padded_row() + margin * self.c_in
    }

    /// Copies an image into the middle of `padded`, whose border is zero.
    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        // Only the middle is ever written. So the border keeps the zeros of its allocation, for all
        // images.
        let row = self.width * self.c_in;
        for (y, values) in image.chunks_exact(row).enumerate() {
            padded[self.padded_start(y)..][..row].copy_from_slice(values);
        }
    }

    /// The reverse of [`Geometry::pad`]: the image in the middle of `padded`.
    fn unpad(&self, padded: &[f32], image: &mut [f32]) {
        let row = self.width * self.c_in;
        for (y, values) in image.chunks_exact_mut(row).enumerate() {
            values.copy_from_slice(&padded[self.padded_start(y)..][..row]);
        }
    }

    /// Where the four pixels of a pooling window have their patches in the padded image (without
    /// pooling only the first is a pixel of the window). The fifth place is for windows without a
    /// gradient ([`DEAD`]): any valid place, as it is never used.
    #[inline(always)]
    fn window_places(&self, window: usize) -> [usize; WINNERS] {
        let (_, columns) = self.pooled();
        // The window covers two rows and two columns of pixels. The patch of pixel (y, x) begins at
        // row y and column x of the padded image: the margin is as wide as the patch reaches to the
        // left and above.
        let (y, x) = (window / columns * self.pool, window % columns * self.pool);
        let corner = y * self.padded_row() + x * self.c_in;
        if self.pool == 1 {
            return [corner, 0, 0, 0, 0];
        }
        let below = corner + self.padded_row();
        [corner, corner + self.c_in, below, below + self.c_in, 0]
    }

    /// The weights as the forward pass reads them: tiles of [`TILE`] channels (zeros beyond
    /// `c_out`), in each one row of channels for every value under the kernel. By the transform
    /// these are the 16 values of U, each for all channels that come in.
    pub fn pack(&self, weight: &[f32]) -> Vec<[f32; TILE]> {
        let patch = self.kernel * self.run();
        let len = if self.by_transform() {
            SQUARE * self.c_in
        } else {
            patch
        };
        let mut packed = vec![[0.0; TILE]; self.c_out.div_ceil(TILE) * len];
        for (channel, filter) in weight.chunks_exact(patch).enumerate() {
            // A channel is one column of its tile. The last tile keeps zeros in the columns that no
            // channel has.
            let tile = &mut packed[channel / TILE * len..][..len];
            let column = channel % TILE;
            if self.by_transform() {
                self.pack_transformed(filter, column, tile);
            } else {
                for (row, &value) in tile.iter_mut().zip(filter) {
                    row[column] = value;
                }
            }
        }
        packed
    }

    /// U = G · kernel · Gᵀ of a filter of 3 × 3 × `c_in`, into a column of its tile.
    fn pack_transformed(&self, filter: &[f32], column: usize, tile: &mut [[f32; TILE]]) {
        // G · (a, b, c).
        let extend = |[a, b, c]: [f32; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
        for channel in 0..self.c_in {
            let value = |y: usize, x: usize| filter[(y * 3 + x) * self.c_in + channel];
            let columns = [0, 1, 2].map(|x| extend([0, 1, 2].map(|y| value(y, x))));
            for y in 0..4 {
                let row = extend(columns.map(|column| column[y]));
                for (x, value) in row.into_iter().enumerate() {
                    tile[(y * 4 + x) * self.c_in + channel][column] = value;
                }
            }
        }
    }

    /// The weights as the backward pass reads them: every run in whole registers, zeros beyond its
    /// end.
    pub fn widen(&self, weight: &[f32]) -> Aligned {
        let mut wide = Aligned::zeros(self.c_out * self.kernel * self.wide_run());
        let runs = weight.chunks_exact(self.run());
        for (wide, run) in wide.chunks_exact_mut(self.wide_run()).zip(runs) {
            wide[..run.len()].copy_from_slice(run);
        }
        wide
    }

    /// The reverse of [`Geometry::widen`].
    pub fn narrow(&self, wide: &[f32]) -> Vec<f32> {
        wide.chunks_exact(self.wide_run())
            .flat_map(|wide| &wide[..self.run()])
            .copied()
            .collect()
    }
}

/// Values whose first lies at the beginning of a cache line. A register of a run then lies in one
/// line and not in two, which is an eighth of the time of an image's gradient.
#[derive(Debug)]
pub struct Aligned {
    /// Some values before the first, and some after the last.
    values: Vec<f32>,
    /// Place of the first, below [`Aligned::LINE`].
    start: usize,
}

impl Aligned {
    /// Values of a cache line.
    const LINE: usize = 64 / size_of::<f32>();

    fn zeros(len: usize) -> Self {
        let values = vec![0.0; len + Self::LINE];
        // The offset counts values. It may be out of reach in theory: then nothing is aligned.
        let start = values.as_ptr().align_offset(64).min(Self::LINE);
        Self { values, start }
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.values.len() - Self::LINE
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.range()]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        let range = self.range();
        &mut self.values[range]
    }
}

/// What the forward pass of an image needs beside it; one for each thread.
#[derive(Debug)]
pub struct Forward {
    padded: Aligned,
    /// V, 16 × squares × `c_in`; empty where nothing is transformed.
    transformed: Aligned,
    /// A row of the padded image while it is transformed.
    line: Vec<f32>,
    /// Sums of [`TILE`] channels: of the rows of pixels that make a row of windows or, by the
    /// transform, M of all squares.
    sums: Vec<[f32; TILE]>,
}

impl Forward {
    /// Room for images of this shape.
    pub fn new(geometry: &Geometry) -> Self {
        let (_, columns) = geometry.pooled();
        let (squares, sums) = if geometry.by_transform() {
            let (rows, columns) = geometry.squares();
            (rows * columns, SQUARE * rows * columns)
        } else {
            (0, geometry.pool * geometry.pool * columns)
        };
        Self {
            padded: Aligned::zeros(geometry.padded_len()),
            transformed: Aligned::zeros(SQUARE * squares * geometry.c_in),
            line: vec![0.0; geometry.padded_row()],
            sums: vec![[0.0; TILE]; sums],
        }
    }
}

/// Where the gradient of one window of one channel goes: the place of a run, and the gradient.
type Hit = (u32, f32);

/// What the backward pass of an image needs beside it, and the sums over a chunk of images; one for
/// each chunk.
#[derive(Debug)]
pub struct Backward {
    padded: Aligned,
    /// The gradient of the padded image.
    d_padded: Aligned,
    /// For each channel: its hits, by place in the padded image. Room for all windows.
    by_channel: Vec<Hit>,
    /// How many these are.
    channel_hits: Vec<u32>,
    /// The channels that hit one pixel, by place in the wide weights, and room for one more.
    channels: Vec<Hit>,
    /// The gradients, added up.
    pub sums: Sums,
}

/// Gradients of the parameters, summed over images.
#[derive(Debug)]
pub struct Sums {
    /// Of the weights, wide.
    pub d_weight: Aligned,
    /// Of the bias.
    pub d_bias: Vec<f32>,
}

impl Backward {
    /// Room for images of this shape, and sums at zero.
    pub fn new(geometry: &Geometry) -> Self {
        let (rows, columns) = geometry.pooled();
        Self {
            padded: Aligned::zeros(geometry.padded_len()),
            d_padded: Aligned::zeros(geometry.padded_len()),
            by_channel: vec![(0, 0.0); geometry.c_out * rows * columns],
            channel_hits: vec![0; geometry.c_out],
            channels: vec![(0, 0.0); geometry.c_out + 1],
            sums: Sums {
                d_weight: Aligned::zeros(geometry.c_out * geometry.kernel * geometry.wide_run()),
                d_bias: vec![0.0; geometry.c_out],
            },
        }
    }
}

dispatch! {
    /// max-pool(ReLU(conv(image) + bias)) into `output`, and into `winners` which of its pixels
    /// each window took.
    pub fn forward(
        geometry: &Geometry,
        scratch: &mut Forward,
        packed: &[[f32; TILE]],
        bias: &[f32],
        image: &[f32],
        output: &mut [f32],
        winners: Option<&mut [u8]>,
    );
    /// Adds the gradients of weights and bias to the sums in `scratch`; writes that of the image if
    /// it is wanted.
    pub fn backward(
        geometry: &Geometry,
        scratch: &mut Backward,
        wide: &[f32],
        image: &[f32],
        winners: &[u8],
        gradient: &[f32],
        d_image: Option<&mut [f32]>,
    );
}

/// The source of both passes. `FMA` tells whether the machine multiplies and adds in one
/// instruction, `WIDE` whether it has the 32 registers of 16 values of AVX-512. Both give the same
/// bits with `WIDE` and without.
mod source {
    use std::array::from_fn;
    use std::ops::Range;

    use super::{Backward, DEAD, Forward, Geometry, Hit, LANES, Sums, TILE, WIDE_LANES, WINNERS};

    /// a · b + c, fused where the machine has it: elsewhere `mul_add` would be a call into libm.
    #[inline(always)]
    fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `multiply` is [`multiply`], compiled apart: beside the rest the compiler makes no SIMD of
    /// it.
    #[inline(always)]
    pub fn forward(
        multiply: impl Fn(&Geometry, usize, &[f32], &[[f32; TILE]], &mut [[f32; TILE]]),
        geometry: &Geometry,
        scratch: &mut Forward,
        (packed, bias): (&[[f32; TILE]], &[f32]),
        image: &[f32],
        output: &mut [f32],
        mut winners: Option<&mut [u8]>,
    ) {
        let g = *geometry;
        g.pad(image, &mut scratch.padded);
        let by_transform = g.by_transform();
        if by_transform {
            transform(&g, scratch);
        }
        let filter = packed.len() / g.c_out.div_ceil(TILE);
        for (tile, weights) in packed.chunks_exact(filter).enumerate() {
            let channels = tile * TILE..g.c_out.min((tile + 1) * TILE);
            // The last tile may have fewer channels than columns. It is computed in full, and what
            // belongs to no channel is not copied out.
            let mut tile_bias = [0.0; TILE];
            tile_bias[..channels.len()].copy_from_slice(&bias[channels.clone()]);
            let mut tile = Tile {
                channels,
                bias: tile_bias,
                output: &mut *output,
                winners: winners.as_deref_mut(),
            };
            // Row of windows by row, or all squares at once.
            let steps = if by_transform { 1 } else { g.pooled().0 };
            for step in 0..steps {
                sum_up(&multiply, &g, scratch, weights, step);
                if by_transform {
                    write_squares(&g, &mut scratch.sums, &mut tile);
                } else {
                    write_row(&g, &scratch.sums, &mut tile, step);
                }
            }
        }
    }

    /// What a tile of channels writes.
    struct Tile<'a> {
        channels: Range<usize>,
        bias: [f32; TILE],
        /// Those of all channels.
        output: &'a mut [f32],
        winners: Option<&'a mut [u8]>,
    }

    impl Tile<'_> {
        /// Writes the largest of a window of these pixels, without their bias.
        #[inline(always)]
        fn write<const PIXELS: usize>(
            &mut self,
            g: &Geometry,
            window: usize,
            pixels: [&[f32; TILE]; PIXELS],
        ) {
            let (best, winner) = pool(pixels, &self.bias);
            // The output has all channels of a window together; this tile writes its share of
            // them.
            let (at, count) = (window * g.c_out + self.channels.start, self.channels.len());
            write_tile(&mut self.output[at..], &best, count);
            if let Some(winners) = &mut self.winners {
                write_tile(&mut winners[at..], &winner, count);
            }
        }
    }

    /// The sums of a tile of channels for a row of windows or, by the transform, for all squares.
    #[inline(always)]
    fn sum_up(
        multiply: &impl Fn(&Geometry, usize, &[f32], &[[f32; TILE]], &mut [[f32; TILE]]),
        g: &Geometry,
        scratch: &mut Forward,
        weights: &[[f32; TILE]],
        row: usize,
    ) {
        let Forward {
            padded,
            transformed,
            sums,
            ..
        } = scratch;
        let (by_transform, (rows, columns)) = (g.by_transform(), g.squares());
        // A part is a row of pixels, or one of the 16 products of all squares.
        let (len, run) = if by_transform {
            (rows * columns, g.c_in)
        } else {
            (g.pool * g.pooled().1, g.run())
        };
        for (part, sums) in sums.chunks_exact_mut(len).enumerate() {
            let (values, weights) = if by_transform {
                let values = &transformed[part * len * g.c_in..];
                (values, &weights[part * run..][..run])
            } else {
                // The patches of image row y begin at row y of the padded image.
                let values = &padded[(g.pool * row + part) * g.padded_row()..];
                (values, weights)
            };
            multiply(g, run, values, weights, sums);
        }
    }

    /// Writes a row of windows.
    #[inline(always)]
    fn write_row(g: &Geometry, sums: &[[f32; TILE]], tile: &mut Tile<'_>, row: usize) {
        let (_, columns) = g.pooled();
        for column in 0..columns {
            let window = row * columns + column;
            if g.pool == 1 {
                tile.write(g, window, [&sums[column]]);
            } else {
                // The second row of pixels follows the first.
                let (upper, lower) = (2 * column, 2 * (columns + column));
                let places = [upper, upper + 1, lower, lower + 1];
                tile.write(g, window, places.map(|place| &sums[place]));
            }
        }
    }

    /// Writes the outputs of all squares, Aᵀ · M · A. `sums` holds M, and is overwritten.
    #[inline(always)]
    fn write_squares(g: &Geometry, sums: &mut [[f32; TILE]], tile: &mut Tile<'_>) {
        let (rows, columns) = g.squares();
        let squares = rows * columns;
        // Down the columns, then along the two rows that are left. The outputs are then in places
        // 0, 1, 4 and 5.
        for first in 0..4 {
            fold(sums, squares, first, 4);
        }
        for first in [0, 4] {
            fold(sums, squares, first, 1);
        }
        for square in 0..squares {
            let [a, b, c, d] = [0, 1, 4, 5].map(|place| &sums[place * squares + square]);
            if g.pool == 2 {
                tile.write(g, square, [a, b, c, d]);
                continue;
            }
            let corner = 2 * (square / columns * g.width + square % columns);
            tile.write(g, corner, [a]);
            tile.write(g, corner + 1, [b]);
            tile.write(g, corner + g.width, [c]);
            tile.write(g, corner + g.width + 1, [d]);
        }
    }

    /// Aᵀ · (a, b, c, d) of all squares, in place of a and b. Their places are `first` and every
    /// `step` from there on.
    #[inline(always)]
    fn fold(sums: &mut [[f32; TILE]], squares: usize, first: usize, step: usize) {
        for square in 0..squares {
            let at = |i: usize| (first + i * step) * squares + square;
            let [a, b, c, d] = [sums[at(0)], sums[at(1)], sums[at(2)], sums[at(3)]];
            // A loop for each of the two: the compiler makes SIMD of it.
            for lane in 0..TILE {
                sums[at(0)][lane] = a[lane] + b[lane] + c[lane];
            }
            for lane in 0..TILE {
                sums[at(1)][lane] = b[lane] - c[lane] - d[lane];
            }
        }
    }

    /// V = Bᵀ · inputs · B of all squares.
    #[inline(always)]
    fn transform(g: &Geometry, scratch: &mut Forward) {
        let Forward {
            padded,
            transformed,
            line,
            ..
        } = scratch;
        let (rows, columns) = g.squares();
        let plane = rows * columns * g.c_in;
        // Value y of Bᵀ · (a, b, c, d): a − c, b + c, c − b or b − d.
        let pairs = [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)];
        for ((first, second, sign), planes) in pairs
            .into_iter()
            .zip(transformed.chunks_exact_mut(4 * plane))
        {
            for row in 0..rows {
                // Down the columns: four rows of inputs make one.
                let of_row = |y: usize| &padded[(2 * row + y) * g.padded_row()..];
                let (first, second) = (of_row(first), of_row(second));
                for ((to, first), second) in line.iter_mut().zip(first).zip(second) {
                    *to = first + sign * second;
                }
                // Along the row: four values of it make four.
                for column in 0..columns {
                    let from = &line[2 * column * g.c_in..];
                    let to = &mut planes[(row * columns + column) * g.c_in..];
                    transform_row(g.c_in, plane, from, to);
                }
            }
        }
    }

    /// Bᵀ · (a, b, c, d) of all channels: these are `c_in` values apart in `from`, and what they
    /// make is `plane` values apart in `to`.
    #[inline(always)]
    fn transform_row(c_in: usize, plane: usize, from: &[f32], to: &mut [f32]) {
        for channel in (0..c_in).step_by(LANES) {
            let mut inputs = [[0.0; LANES]; 4];
            for x in 0..4 {
                inputs[x].copy_from_slice(&from[x * c_in + channel..][..LANES]);
            }
            let [a, b, c, d] = inputs;
            let mut all = [[0.0; LANES]; 4];
            for lane in 0..LANES {
                all[0][lane] = a[lane] - c[lane];
            }
            for lane in 0..LANES {
                all[1][lane] = b[lane] + c[lane];
            }
            for lane in 0..LANES {
                all[2][lane] = c[lane] - b[lane];
            }
            for lane in 0..LANES {
                all[3][lane] = b[lane] - d[lane];
            }
            for x in 0..4 {
                to[x * plane + channel..][..LANES].copy_from_slice(&all[x]);
            }
        }
    }

    /// Writes the first `count` of a tile's values.
    #[inline(always)]
    fn write_tile<T: Copy>(to: &mut [T], values: &[T; TILE], count: usize) {
        match to.first_chunk_mut() {
            // A whole tile is a store or two. A length that is known only at run time is a call of
            // `memcpy`, which took a twentieth of a training.
            Some(to) if count == TILE => *to = *values,
            _ => to[..count].copy_from_slice(&values[..count]),
        }
    }

    /// Some sums side by side × [`TILE`] channels: a row of pixels, or all squares. `run` values
    /// lie side by side, for which the weights are side by side too.
    #[inline(always)]
    pub fn multiply<const FMA: bool, const WIDE: bool>(
        g: &Geometry,
        run: usize,
        values: &[f32],
        weights: &[[f32; TILE]],
        row: &mut [[f32; TILE]],
    ) {
        // Tiles have at most six pixels: 6 × 16 sums are 12 of the 16 AVX registers. With AVX-512
        // 14 pixels take 14 of the 32, and the rows of Fashion-MNIST's images, 28 pixels, 14 and 7,
        // have tiles as large as can be. Tiles are made as equal as can be, as a small tile loads
        // the same weights for fewer pixels. A row of 28 pixels has tiles of 6, 6, 6, 5 and 5, not
        // four of six and one of four.
        let most = if WIDE { 14 } else { 6 };
        let (count, tiles) = (row.len(), row.len().div_ceil(most));
        let mut rest = row;
        for tile in 0..tiles {
            // The column of the first pixel that is left.
            let x = count - rest.len();
            let (sums, others) = rest.split_at_mut((count - x).div_ceil(tiles - tile));
            let values = &values[x * g.c_in..];
            // The number of pixels is a constant in `tile_of`, so that its sums stay in registers.
            match sums.len() {
                14 if WIDE => tile_of::<FMA, 14>(g, run, values, weights, sums),
                13 if WIDE => tile_of::<FMA, 13>(g, run, values, weights, sums),
                12 if WIDE => tile_of::<FMA, 12>(g, run, values, weights, sums),
                11 if WIDE => tile_of::<FMA, 11>(g, run, values, weights, sums),
                10 if WIDE => tile_of::<FMA, 10>(g, run, values, weights, sums),
                9 if WIDE => tile_of::<FMA, 9>(g, run, values, weights, sums),
                8 if WIDE => tile_of::<FMA, 8>(g, run, values, weights, sums),
                7 if WIDE => tile_of::<FMA, 7>(g, run, values, weights, sums),
                6 => tile_of::<FMA, 6>(g, run, values, weights, sums),
                5 => tile_of::<FMA, 5>(g, run, values, weights, sums),
                4 => tile_of::<FMA, 4>(g, run, values, weights, sums),
                3 => tile_of::<FMA, 3>(g, run, values, weights, sums),
                2 => tile_of::<FMA, 2>(g, run, values, weights, sums),
                _ => tile_of::<FMA, 1>(g, run, values, weights, sums),
            }
            rest = others;
        }
    }

    /// `P` neighbouring pixels × [`TILE`] channels, in registers.
    #[inline(always)]
    fn tile_of<const FMA: bool, const P: usize>(
        g: &Geometry,
        run: usize,
        values: &[f32],
        weights: &[[f32; TILE]],
        out: &mut [[f32; TILE]],
    ) {
        let mut sums = [[0.0f32; TILE]; P];
        for (y, weights) in weights.chunks_exact(run).enumerate() {
            // Each sum begins `c_in` values after the one before. The patches of neighbouring
            // pixels overlap.
            let runs: [&[f32]; P] = from_fn(|p| &values[y * g.padded_row() + p * g.c_in..][..run]);
            for (i, weights) in weights.iter().enumerate() {
                // The 16 weights are loaded once and meet one value of each of the P pixels.
                for p in 0..P {
                    let value = runs[p][i];
                    for lane in 0..TILE {
                        sums[p][lane] = mul_add::<FMA>(value, weights[lane], sums[p][lane]);
                    }
                }
            }
        }
        out.copy_from_slice(&sums);
    }

    /// The largest of a window, the bias added, cut at zero; and which it was. A NaN stays one: a
    /// diverged training must not look like a dead unit.
    #[inline(always)]
    fn pool<const PIXELS: usize>(
        window: [&[f32; TILE]; PIXELS],
        bias: &[f32; TILE],
    ) -> ([f32; TILE], [u8; TILE]) {
        let mut best = *window[0];
        // 32 bits, as wide as the floats: one comparison then chooses in both arrays.
        let mut winner = [0u32; TILE];
        #[expect(
            clippy::needless_range_loop,
            reason = "iterators are compiled apart here, without SIMD"
        )]
        for place in 1..PIXELS {
            let values = window[place];
            for lane in 0..TILE {
                let better = (values[lane] > best[lane]) | values[lane].is_nan();
                best[lane] = if better { values[lane] } else { best[lane] };
                winner[lane] = if better { place as u32 } else { winner[lane] };
            }
        }
        for lane in 0..TILE {
            // The bias is the same for all pixels, so it can be added after the largest is
            // found.
            best[lane] += bias[lane];
            // This is false for a NaN, so that a NaN passes the ReLU.
            let dead = best[lane] <= 0.0;
            best[lane] = if dead { 0.0 } else { best[lane] };
            winner[lane] = if dead { u32::from(DEAD) } else { winner[lane] };
        }
        let mut places = [0; TILE];
        for lane in 0..TILE {
            places[lane] = winner[lane] as u8;
        }
        (best, places)
    }

    #[inline(always)]
    pub fn backward<const FMA: bool, const WIDE: bool>(
        geometry: &Geometry,
        scratch: &mut Backward,
        wide: &[f32],
        image: &[f32],
        winners: &[u8],
        gradient: &[f32],
        d_image: Option<&mut [f32]>,
    ) {
        let g = geometry;
        g.pad(image, &mut scratch.padded);
        scratch.channel_hits.fill(0);
        let gradients = gradient.chunks_exact(g.c_out);
        let windows = gradients.zip(winners.chunks_exact(g.c_out)).enumerate();
        // Nobody needs the gradient of the network's input: its layer takes the shorter loop. Both
        // loops go over the windows once and collect the hits, from which the gradient of the
        // weights is computed at the end.
        match d_image {
            None => {
                for (window, (gradient, winners)) in windows {
                    let places = g.window_places(window);
                    collect_hits(g, scratch, places, gradient, winners);
                }
            }
            Some(d_image) => {
                scratch.d_padded.fill(0.0);
                for (window, (gradient, winners)) in windows {
                    let places = g.window_places(window);
                    collect_hits(g, scratch, places, gradient, winners);
                    add_image_runs::<FMA, WIDE>(g, scratch, wide, places, gradient, winners);
                }
                g.unpad(&scratch.d_padded, d_image);
            }
        }
        add_weight_runs::<FMA, WIDE>(g, scratch);
    }

    /// First half of the weights' gradient: notes for each channel where in the padded image one
    /// window's gradient goes. The gradient of the bias is its sum.
    #[inline(always)]
    fn collect_hits(
        g: &Geometry,
        scratch: &mut Backward,
        places: [usize; WINNERS],
        gradient: &[f32],
        winners: &[u8],
    ) {
        let Backward {
            by_channel,
            channel_hits,
            sums,
            ..
        } = scratch;
        let (pooled_rows, pooled_columns) = g.pooled();
        let windows = pooled_rows * pooled_columns;
        // A branch on whether a window is dead could not be predicted. So every window is written,
        // and the length of the list grows for hits only: the next hit overwrites a dead one. Each
        // channel has room for all windows, so the write stays inside.
        for (channel, (&gradient, &winner)) in gradient.iter().zip(winners).enumerate() {
            let hits = &mut channel_hits[channel];
            let place = places[usize::from(winner.min(DEAD))];
            by_channel[channel * windows + *hits as usize] = (place as u32, gradient);
            *hits += u32::from(winner < DEAD);
        }
        let d_bias = sums.d_bias.iter_mut();
        for ((sum, &gradient), &winner) in d_bias.zip(gradient).zip(winners) {
            *sum += if winner < DEAD { gradient } else { 0.0 };
        }
    }

    /// Second half of the weights' gradient: adds, for each channel, the runs of the image under
    /// its hits.
    #[inline(always)]
    fn add_weight_runs<const FMA: bool, const WIDE: bool>(g: &Geometry, scratch: &mut Backward) {
        let Backward {
            padded,
            by_channel,
            channel_hits,
            sums: Sums { d_weight, .. },
            ..
        } = scratch;
        let (pooled_rows, pooled_columns) = g.pooled();
        let windows = pooled_rows * pooled_columns;
        let (run, filter) = (g.wide_run(), g.kernel * g.wide_run());
        for channel in 0..g.c_out {
            let hits = &by_channel[channel * windows..][..channel_hits[channel] as usize];
            // Row ky of the filter met row ky of each patch, which is `ky` rows below its place.
            for ky in 0..g.kernel {
                // A run is added in whole registers. What lies beyond its end in the image goes to
                // lanes that `narrow` leaves out.
                let to = &mut d_weight[channel * filter + ky * run..][..run];
                add_runs::<FMA, WIDE>(to, hits, padded, ky * g.padded_row());
            }
        }
    }

    /// The image's gradient under one window: adds to each of its pixels the runs of the weights of
    /// the channels that hit it.
    #[inline(always)]
    fn add_image_runs<const FMA: bool, const WIDE: bool>(
        g: &Geometry,
        scratch: &mut Backward,
        wide: &[f32],
        places: [usize; WINNERS],
        gradient: &[f32],
        winners: &[u8],
    ) {
        let Backward {
            channels, d_padded, ..
        } = scratch;
        let run = g.wide_run();
        for pixel in 0..g.pool * g.pool {
            let hits = pixel_hits(g, pixel, gradient, winners, channels);
            // The reverse of the forward pass: row ky of the weights goes to row ky of the patch.
            // Beyond the end of a run the wide weights are zero: the values that follow it in the
            // image get zeros added.
            for ky in 0..g.kernel {
                let to = &mut d_padded[places[pixel] + ky * g.padded_row()..][..run];
                add_runs::<FMA, WIDE>(to, hits, wide, ky * run);
            }
        }
    }

    /// The channels that hit a pixel of a window, by place in the wide weights, written into
    /// `hits`.
    ///
    /// One pass for each pixel is as fast as one pass that sorts the channels by pixel: there the
    /// length of a list is read from memory right after it was written. It is no part of
    /// [`backward`], where the compiler has no registers left for it.
    #[inline(never)]
    fn pixel_hits<'a>(
        g: &Geometry,
        pixel: usize,
        gradient: &[f32],
        winners: &[u8],
        hits: &'a mut [Hit],
    ) -> &'a [Hit] {
        let filter = g.kernel * g.wide_run();
        let mut count = 0;
        // Without a branch, as in `collect_hits`.
        for (channel, (&gradient, &winner)) in gradient.iter().zip(winners).enumerate() {
            hits[count] = ((channel * filter) as u32, gradient);
            count += usize::from(usize::from(winner) == pixel);
        }
        &hits[..count]
    }

    /// `to += Σ gradient · from[place + offset..]` over the hits.
    #[inline(always)]
    fn add_runs<const FMA: bool, const WIDE: bool>(
        mut to: &mut [f32],
        hits: &[Hit],
        from: &[f32],
        mut offset: usize,
    ) {
        loop {
            // The sums of up to twelve registers are kept, of the 16 that there are. An FMA takes
            // four cycles and two can start in each, so eight have to be in flight. Where a run has
            // fewer registers than that, several hits are added at once, each to sums of its own.
            // The registers of AVX-512 are twice as wide, and take the same sums two by two.
            let (now, rest) = match to.len() / LANES {
                0 => return,
                1 => add_block::<FMA, LANES, 1, 8>(to, hits, from, offset),
                2 | 3 if WIDE => add_block::<FMA, WIDE_LANES, 1, 4>(to, hits, from, offset),
                2 | 3 => add_block::<FMA, LANES, 2, 4>(to, hits, from, offset),
                4..8 if WIDE => add_block::<FMA, WIDE_LANES, 2, 2>(to, hits, from, offset),
                4..8 => add_block::<FMA, LANES, 4, 2>(to, hits, from, offset),
                8..12 if WIDE => add_block::<FMA, WIDE_LANES, 4, 1>(to, hits, from, offset),
                8..12 => add_block::<FMA, LANES, 8, 1>(to, hits, from, offset),
                24.. if WIDE => add_block::<FMA, WIDE_LANES, 12, 1>(to, hits, from, offset),
                12.. if WIDE => add_block::<FMA, WIDE_LANES, 6, 1>(to, hits, from, offset),
                12.. => add_block::<FMA, LANES, 12, 1>(to, hits, from, offset),
            };
            (to, offset) = (rest, offset + now);
        }
    }

    /// [`add_runs`] for the first `N` registers of `WIDTH` lanes, `U` hits at a time. How many
    /// values that was, and the rest.
    #[inline(always)]
    fn add_block<'a, const FMA: bool, const WIDTH: usize, const N: usize, const U: usize>(
        to: &'a mut [f32],
        hits: &[Hit],
        from: &[f32],
        offset: usize,
    ) -> (usize, &'a mut [f32]) {
        let (to, rest) = to.split_at_mut(N * WIDTH);
        // The first of the U groups of sums begins with what `to` holds, the others with zero.
        let mut sums = [[[0.0f32; WIDTH]; N]; U];
        for (sum, to) in sums[0].iter_mut().zip(to.chunks_exact(WIDTH)) {
            sum.copy_from_slice(to);
        }
        let mut groups = hits.chunks_exact(U);
        let add = |sums: &mut [[f32; WIDTH]; N], &(place, gradient): &Hit| {
            let values = &from[place as usize + offset..][..N * WIDTH];
            for n in 0..N {
                for lane in 0..WIDTH {
                    sums[n][lane] =
                        mul_add::<FMA>(gradient, values[n * WIDTH + lane], sums[n][lane]);
                }
            }
        };
        // The hits go to the U groups by turns; those of a group that is not full go to the first.
        for group in &mut groups {
            for u in 0..U {
                add(&mut sums[u], &group[u]);
            }
        }
        for hit in groups.remainder() {
            add(&mut sums[0], hit);
        }
        // The groups are joined, and the sums leave the registers only here.
        let (first, others) = sums.split_first_mut().expect("U is at least one");
        for other in others {
            for n in 0..N {
                for lane in 0..WIDTH {
                    first[n][lane] += other[n][lane];
                }
            }
        }
        for (to, sum) in to.chunks_exact_mut(WIDTH).zip(first) {
            to.copy_from_slice(sum);
        }
        (N * WIDTH, rest)
    }
}

/// Writes both passes for a level: the instructions that it may use, and the constants of
/// [`source`].
macro_rules! level {
    ($(#[$instructions:meta])? mod $level:ident: FMA = $fma:expr, WIDE = $wide:expr) => {
        mod $level {
            use super::{Backward, Forward, Geometry, TILE, source};

            $(#[$instructions])?
            pub fn forward(
                geometry: &Geometry,
                scratch: &mut Forward,
                packed: &[[f32; TILE]],
                bias: &[f32],
                image: &[f32],
                output: &mut [f32],
                winners: Option<&mut [u8]>,
            ) {
                // A closure may use the instructions of the function that it is in.
                let multiply = |g: &Geometry, run, values: &_, weights: &_, sums: &mut _| {
                    multiply(g, run, values, weights, sums);
                };
                source::forward(
                    multiply, geometry, scratch, (packed, bias), image, output, winners,
                );
            }

            $(#[$instructions])?
            #[inline(never)]
            fn multiply(
                geometry: &Geometry,
                run: usize,
                values: &[f32],
                weights: &[[f32; TILE]],
                sums: &mut [[f32; TILE]],
            ) {
                source::multiply::<{ $fma }, { $wide }>(geometry, run, values, weights, sums);
            }

            $(#[$instructions])?
            pub fn backward(
                geometry: &Geometry,
                scratch: &mut Backward,
                wide: &[f32],
                image: &[f32],
                winners: &[u8],
                gradient: &[f32],
                d_image: Option<&mut [f32]>,
            ) {
                let pass = source::backward::<{ $fma }, { $wide }>;
                pass(geometry, scratch, wide, image, winners, gradient, d_image);
            }
        }
    };
}

// Every aarch64 processor multiplies and adds in one instruction.
level!(mod portable: FMA = cfg!(target_arch = "aarch64"), WIDE = false);

#[cfg(target_arch = "x86_64")]
level!(#[target_feature(enable = "avx2,fma")] mod avx2: FMA = true, WIDE = false);

#[cfg(target_arch = "x86_64")]
level!(
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    mod avx512: FMA = true, WIDE = true
);

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const SHAPES: [Geometry; 7] = [
        Geometry {
            height: 6,
            width: 14,
            c_in: 1,
            c_out: 16,
            kernel: 3,
            pool: 2,
        },
        // An odd row and column, that pooling drops, and channels beyond a tile.
        Geometry {
            height: 7,
            width: 5,
            c_in: 3,
            c_out: 19,
            kernel: 5,
            pool: 2,
        },
        Geometry {
            height: 4,
            width: 4,
            c_in: 40,
            c_out: 2,
            kernel: 3,
            pool: 2,
        },
        // Without pooling.
        Geometry {
            height: 5,
            width: 7,
            c_in: 8,
            c_out: 18,
            kernel: 3,
            pool: 1,
        },
        Geometry {
            height: 3,
            width: 1,
            c_in: 1,
            c_out: 3,
            kernel: 5,
            pool: 1,
        },
        // By the transform: more squares than a tile takes, without pooling; and an odd row and
        // column.
        Geometry {
            height: 6,
            width: 12,
            c_in: 24,
            c_out: 18,
            kernel: 3,
            pool: 1,
        },
        Geometry {
            height: 7,
            width: 9,
            c_in: 32,
            c_out: 33,
            kernel: 3,
            pool: 2,
        },
    ];

    /// These, and rows of all widths that one or two register tiles take.
    fn shapes() -> impl Iterator<Item = Geometry> {
        let rows = (1..=28).map(|width| Geometry {
            height: 1,
            width,
            c_in: 2,
            c_out: 3,
            kernel: 3,
            pool: 1,
        });
        SHAPES.into_iter().chain(rows)
    }

    /// Weight, bias, image, and gradient of the output.
    fn arguments(rng: &mut ChaCha8Rng, g: &Geometry) -> [Vec<f32>; 4] {
        let lens = [g.weight_len(), g.c_out, g.image_len(), g.output_len()];
        lens.map(|len| numbers(rng, len))
    }

    /// Numbers in whole sixteenths, so that sums are exact in whatever order.
    fn numbers(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| f32::from(rng.random_range(-16i8..=16)) / 16.0)
            .collect()
    }

    /// For each value of output pixel (y, x): its place in a filter, and in the image.
    fn patch(g: &Geometry, y: usize, x: usize) -> Vec<(usize, usize)> {
        let (margin, mut places) = (g.kernel / 2, Vec::new());
        for ky in 0..g.kernel {
            for kx in 0..g.kernel {
                let (y, x) = (y + ky, x + kx);
                let rows = margin..g.height + margin;
                let columns = margin..g.width + margin;
                if rows.contains(&y) && columns.contains(&x) {
                    for c in 0..g.c_in {
                        let of_image = ((y - margin) * g.width + x - margin) * g.c_in + c;
                        places.push(((ky * g.kernel + kx) * g.c_in + c, of_image));
                    }
                }
            }
        }
        places
    }

    /// The definition of the forward pass, and for each output the pixel that won.
    fn naive_forward(
        g: &Geometry,
        weight: &[f32],
        bias: &[f32],
        image: &[f32],
    ) -> (Vec<f32>, Vec<u8>) {
        let (rows, columns) = g.pooled();
        let filter_len = weight.len() / g.c_out;
        let (mut output, mut winners) = (Vec::new(), Vec::new());
        for window in 0..rows * columns {
            for (filter, bias) in weight.chunks(filter_len).zip(bias) {
                let (mut best, mut winner) = (0.0, DEAD);
                for pixel in 0..g.pool * g.pool {
                    let (y, x) = (
                        window / columns * g.pool + pixel / 2,
                        window % columns * g.pool + pixel % 2,
                    );
                    let terms = patch(g, y, x)
                        .into_iter()
                        .map(|(w, i)| filter[w] * image[i]);
                    let value = terms.sum::<f32>() + bias;
                    if value > best {
                        (best, winner) = (value, pixel as u8);
                    }
                }
                output.push(best);
                winners.push(winner);
            }
        }
        (output, winners)
    }

    /// The definition of the backward pass: gradients of the weights, the bias and the image.
    fn naive_backward(
        g: &Geometry,
        weight: &[f32],
        image: &[f32],
        winners: &[u8],
        gradient: &[f32],
    ) -> [Vec<f32>; 3] {
        let (_, columns) = g.pooled();
        let filter_len = weight.len() / g.c_out;
        let mut d_weight = vec![0.0; weight.len()];
        let mut d_bias = vec![0.0; g.c_out];
        let mut d_image = vec![0.0; image.len()];
        for (at, (&winner, &gradient)) in winners.iter().zip(gradient).enumerate() {
            let (window, channel) = (at / g.c_out, at % g.c_out);
            if winner == DEAD {
                continue;
            }
            let pixel = usize::from(winner);
            let (y, x) = (
                window / columns * g.pool + pixel / 2,
                window % columns * g.pool + pixel % 2,
            );
            d_bias[channel] += gradient;
            for (w, i) in patch(g, y, x) {
                d_weight[channel * filter_len + w] += gradient * image[i];
                d_image[i] += gradient * weight[channel * filter_len + w];
            }
        }
        [d_weight, d_bias, d_image]
    }

    #[test]
    fn both_passes_agree_with_the_definition_in_every_form() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut all_winners = Vec::new();
        for g in shapes() {
            let [weight, bias, image, gradient] = arguments(&mut rng, &g);
            let (output, winners) = naive_forward(&g, &weight, &bias, &image);
            all_winners.extend_from_slice(&winners);
            let [d_weight, d_bias, d_image] =
                naive_backward(&g, &weight, &image, &winners, &gradient);

            for pass in [forward, portable::forward] {
                let (packed, mut scratch) = (g.pack(&weight), Forward::new(&g));
                let mut found = vec![7.0; g.output_len()];
                let mut won = vec![7; g.output_len()];
                let into = Some(&mut won[..]);
                pass(&g, &mut scratch, &packed, &bias, &image, &mut found, into);
                assert_eq!(found, output);
                assert_eq!(won, winners);
            }
            for pass in [backward, portable::backward] {
                let (wide, mut scratch) = (g.widen(&weight), Backward::new(&g));
                let mut found = vec![7.0; g.image_len()];
                let into = Some(&mut found[..]);
                pass(&g, &mut scratch, &wide, &image, &winners, &gradient, into);
                assert_eq!(found, d_image);
                assert_eq!(g.narrow(&scratch.sums.d_weight), d_weight);
                assert_eq!(scratch.sums.d_bias, d_bias);
                // Without the image's gradient the others are added as before.
                pass(&g, &mut scratch, &wide, &image, &winners, &gradient, None);
                let doubled: Vec<f32> = d_bias.iter().map(|value| 2.0 * value).collect();
                assert_eq!(scratch.sums.d_bias, doubled);
            }
        }
        assert!((0..=DEAD).all(|winner| all_winners.contains(&winner)));
    }

    #[test]
    fn wider_registers_change_no_bit() {
        // Runs of every length that `add_runs` takes apart, up to two of its largest blocks.
        let channels = (1..=66).step_by(5);
        let more = channels.map(|c_in| Geometry { c_in, ..SHAPES[0] });
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for g in shapes().chain(more) {
            // Thirds, whose sums are rounded.
            let [weight, bias, image, gradient] = arguments(&mut rng, &g)
                .map(|values| values.iter().map(|value| value / 3.0).collect::<Vec<_>>());
            let run = |wide: bool| {
                let (packed, mut scratch) = (g.pack(&weight), Forward::new(&g));
                let mut output = vec![0.0; g.output_len()];
                let mut winners = vec![0; g.output_len()];
                let into = Some(&mut winners[..]);
                let multiply = if wide {
                    source::multiply::<true, true>
                } else {
                    source::multiply::<true, false>
                };
                let scratch = &mut scratch;
                let filters = (&packed[..], &bias[..]);
                source::forward(multiply, &g, scratch, filters, &image, &mut output, into);
                let (wide_weight, mut scratch) = (g.widen(&weight), Backward::new(&g));
                let mut d_image = vec![0.0; g.image_len()];
                let into = Some(&mut d_image[..]);
                let pass = if wide {
                    source::backward::<true, true>
                } else {
                    source::backward::<true, false>
                };
                let weight = &wide_weight;
                pass(&g, &mut scratch, weight, &image, &winners, &gradient, into);
                (output, winners, d_image, scratch.sums.d_weight.to_vec())
            };
            assert_eq!(run(true), run(false), "{g:?}");
        }
    }
}
