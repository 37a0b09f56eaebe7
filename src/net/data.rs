//! Images and labels on their way into a model: checked, scaled, augmented, gathered into batches.
//!
//! A batch of m images is an m × 784 tensor of (pixel / 255 − mean) / deviation. There are only
//! 256 pixel values, so the inputs come out of a table with one entry for each.

use candle_core::{Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::architecture::{CLASSES, PIXELS, SIDE};
use super::config::Augmentation;
use super::model::Scaling;
use super::{NetError, check};
use crate::vectors::Vectors;

/// Images (n × 784 bytes) and their classes (n labels, 0 to 9), borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    images: &'a [u8],
    labels: &'a [u8],
}

impl<'a> Labelled<'a> {
    /// Images with their labels.
    ///
    /// # Errors
    /// If the images are not 784 bytes each, there are none, their number is not that of the
    /// labels, or a label is not 0 to 9.
    pub fn new(images: &'a Vectors, labels: &'a [u8]) -> Result<Self, NetError> {
        // All is checked here, once. The methods below take rows and labels as they are: a wrong
        // length would be a panic there, and a wrong label an error in the loss.
        let pixels = pixels(images)?;
        let count = images.len();
        check("number of images", count > 0, "at least one", count)?;
        let expected = count.to_string();
        let one_each = labels.len() == count;
        check("number of labels", one_each, &expected, labels.len())?;
        for &label in labels {
            let known = usize::from(label) < CLASSES;
            check("label", known, "0 to 9", label)?;
        }
        Ok(Self {
            images: pixels,
            labels,
        })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Always false: [`Labelled::new`] refuses an empty set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The first `count` images, or all if there are fewer: for a quick look.
    #[must_use]
    pub fn head(&self, count: usize) -> Self {
        let count = count.min(self.len());
        Self {
            images: &self.images[..count * PIXELS],
            labels: &self.labels[..count],
        }
    }

    /// The pixels of image `row`.
    fn image(&self, row: usize) -> &'a [u8] {
        &self.images[row * PIXELS..][..PIXELS]
    }

    /// The class of image `row`.
    pub(super) fn label(&self, row: usize) -> u8 {
        self.labels[row]
    }

    /// SHA-256 over images and labels, in hexadecimal. It ties a checkpoint to its data.
    pub(super) fn fingerprint(&self) -> String {
        // No mark between the two is needed: n images and labels are 785 · n bytes, so the same
        // bytes are the same images and labels.
        let hash = Sha256::new()
            .chain_update(self.images)
            .chain_update(self.labels);
        format!("{:x}", hash.finalize())
    }

    /// Mean and standard deviation of the pixels of the given images.
    pub(super) fn scaling(&self, rows: &[usize]) -> Scaling {
        // Whole numbers: 60,000 · 784 · 255² is below 2⁴², so that the sums are exact. Each
        // is below 2⁵³, so it is exact as f64 too.
        let (mut sum, mut squares) = (0u64, 0u64);
        for &row in rows {
            for &pixel in self.image(row) {
                sum += u64::from(pixel);
                squares += u64::from(pixel) * u64::from(pixel);
            }
        }
        let count = (rows.len() * PIXELS) as f64;
        let mean = sum as f64 / count;
        // The variance is the mean square less the square of the mean. Rounding can make it a
        // little less than zero, whose root would be NaN.
        let deviation = (squares as f64 / count - mean * mean).max(0.0).sqrt();
        // Images of one colour have deviation zero. Dividing by it must not give NaN; any other
        // number will do.
        let deviation = if deviation > 0.0 { deviation } else { 255.0 };
        Scaling {
            mean: (mean / 255.0) as f32,
            deviation: (deviation / 255.0) as f32,
        }
    }

    /// The given images as inputs (m × 784 of f32) and their classes (m of u32).
    ///
    /// With `augment`, each image is changed at random.
    pub(super) fn batch(
        &self,
        rows: &[usize],
        scaling: Scaling,
        augment: Option<(Augmentation, &mut ChaCha8Rng)>,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let table = scaling.table();
        // Black images: table[0] is the input for a black pixel, which after scaling is not zero. A
        // shifted image does not cover the whole of its input, and what it leaves uncovered stays
        // black.
        let mut inputs = vec![table[0]; rows.len() * PIXELS];
        let images = rows.iter().map(|&row| self.image(row));
        let pairs = inputs.chunks_exact_mut(PIXELS).zip(images);
        match augment {
            Some((augmentation, rng)) => {
                for (input, image) in pairs {
                    augmentation.draw(rng).apply(image, input, &table);
                }
            }
            None => {
                for (input, image) in pairs {
                    scale(image, input, &table);
                }
            }
        }
        // candle's `gather` and `scatter`, with which the losses pick the right class, take u32 as
        // indexes.
        let labels: Vec<u32> = rows.iter().map(|&row| self.label(row).into()).collect();
        let inputs = Tensor::from_vec(inputs, (rows.len(), PIXELS), &Device::Cpu)?;
        let labels = Tensor::from_vec(labels, rows.len(), &Device::Cpu)?;
        Ok((inputs, labels))
    }
}

/// The pixels of all images one after the other, if they are images of 784 bytes each.
pub(super) fn pixels(images: &Vectors) -> Result<&[u8], NetError> {
    let dim = images.dim();
    check("pixels of an image", dim == PIXELS, "784", dim)?;
    images.bytes().ok_or_else(|| NetError::Invalid {
        what: "images",
        expected: "bytes".to_owned(),
        received: "floats".to_owned(),
    })
}

/// Writes the input for each pixel.
fn scale(image: &[u8], input: &mut [f32], table: &[f32; 256]) {
    for (input, &pixel) in input.iter_mut().zip(image) {
        *input = table[usize::from(pixel)];
    }
}

impl Scaling {
    /// The input for each value of a pixel.
    fn table(self) -> [f32; 256] {
        // Both numbers of the scaling are shares of 255, as is the pixel here.
        std::array::from_fn(|byte| (byte as f32 / 255.0 - self.mean) / self.deviation)
    }

    /// Whole images, one after the other, as inputs: n × 784.
    pub(super) fn inputs(self, images: &[u8]) -> candle_core::Result<Tensor> {
        // Here the images are whole and in order, so that they are scaled in one go.
        let mut inputs = vec![0.0; images.len()];
        scale(images, &mut inputs, &self.table());
        Tensor::from_vec(inputs, (images.len() / PIXELS, PIXELS), &Device::Cpu)
    }
}

impl Augmentation {
    /// Draws the change of one image.
    fn draw(self, rng: &mut ChaCha8Rng) -> Change {
        // `Config::validate` keeps the shift below 28, so that a part of the image remains. The
        // three numbers are drawn in this order; another order would be another training.
        let range = self.shift as i32;
        Change {
            down: rng.random_range(-range..=range) as isize,
            right: rng.random_range(-range..=range) as isize,
            flip: self.flip && rng.random(),
        }
    }
}

/// The change of one image: mirrored if `flip`, then moved.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    /// Pixels by which the image moves down; negative is up.
    down: isize,
    /// Pixels by which it moves right; negative is left.
    right: isize,
    /// Whether it is mirrored left to right.
    flip: bool,
}

impl Change {
    /// Writes the changed image over `input`, which is black.
    fn apply(self, image: &[u8], input: &mut [f32], table: &[f32; 256]) {
        let side = SIDE as isize;
        // Only the part of the input that the moved image covers: rows `down..28` if it moved down,
        // `0..28 + down` if up, and the columns likewise. Both ranges are empty for a shift of 28
        // or more. Within them `y - down` and `x - right` are 0 to 27.
        for y in 0.max(self.down)..side.min(side + self.down) {
            let from = &image[(y - self.down) as usize * SIDE..][..SIDE];
            let to = &mut input[y as usize * SIDE..][..SIDE];
            for x in 0.max(self.right)..side.min(side + self.right) {
                let unmoved = x - self.right;
                // The image is mirrored first, then moved. So the column is mirrored within the
                // unmoved image: 27 becomes 0.
                let source = if self.flip {
                    side - 1 - unmoved
                } else {
                    unmoved
                };
                to[x as usize] = table[usize::from(from[source as usize])];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    /// Inputs are pixels.
    fn plain() -> [f32; 256] {
        std::array::from_fn(|byte| byte as f32)
    }

    #[test]
    fn a_change_moves_every_pixel_and_lets_black_in() {
        let image: Vec<u8> = (0..PIXELS).map(|i| (1 + i % 251) as u8).collect();
        for (down, right, flip) in [
            (0, 0, false),
            (2, -3, false),
            (-28, 1, false),
            (0, 0, true),
            (-1, 2, true),
        ] {
            let mut changed = vec![0.0; PIXELS];
            Change { down, right, flip }.apply(&image, &mut changed, &plain());
            for y in 0..SIDE as isize {
                for x in 0..SIDE as isize {
                    let (from_y, from_x) = (y - down, x - right);
                    let inside = (0..28).contains(&from_y) && (0..28).contains(&from_x);
                    let from_x = if flip { 27 - from_x } else { from_x };
                    let expected = if inside {
                        f32::from(image[(from_y * 28 + from_x) as usize])
                    } else {
                        0.0
                    };
                    assert_eq!(
                        changed[(y * 28 + x) as usize],
                        expected,
                        "{down} {right} {flip}: {y}, {x}"
                    );
                }
            }
        }
    }

    #[test]
    fn draws_cover_what_was_allowed_and_no_more() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let draws: Vec<Change> = (0..500)
            .map(|_| {
                Augmentation {
                    shift: 2,
                    flip: true,
                }
                .draw(&mut rng)
            })
            .collect();
        for shift in -2..=2 {
            assert!(
                draws.iter().any(|draw| draw.down == shift)
                    && draws.iter().any(|draw| draw.right == shift)
            );
        }
        assert!(
            draws
                .iter()
                .all(|draw| draw.down.abs() <= 2 && draw.right.abs() <= 2)
        );
        let flips = draws.iter().filter(|draw| draw.flip).count();
        assert!((200..300).contains(&flips), "{flips} of 500");
        assert_eq!(
            Augmentation::NONE.draw(&mut rng),
            Change {
                down: 0,
                right: 0,
                flip: false
            }
        );
    }

    #[test]
    fn scaled_pixels_have_mean_zero_and_deviation_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let images = Vectors::from_bytes(
            PIXELS,
            (0..4 * PIXELS).map(|_| rng.random()).collect::<Vec<u8>>(),
        )
        .unwrap();
        let data = Labelled::new(&images, &[0, 1, 2, 3]).unwrap();
        let (inputs, labels) = data.batch(&[3, 1], data.scaling(&[1, 3]), None).unwrap();
        let inputs = inputs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mean = inputs.iter().sum::<f32>() / inputs.len() as f32;
        let variance = inputs.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / inputs.len() as f32;
        assert!(
            mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-4,
            "{mean} {variance}"
        );
        assert_eq!(labels.to_vec1::<u32>().unwrap(), [3, 1]);
    }

    #[test]
    fn what_is_no_set_of_labelled_images_is_refused() {
        let images = Vectors::from_bytes(PIXELS, vec![0; 2 * PIXELS]).unwrap();
        assert!(
            Labelled::new(&images, &[0])
                .unwrap_err()
                .to_string()
                .contains("number of labels")
        );
        assert!(
            Labelled::new(&images, &[0, 10])
                .unwrap_err()
                .to_string()
                .contains("label is 10")
        );
        let narrow = Vectors::from_bytes(3, vec![0; 6]).unwrap();
        assert!(
            Labelled::new(&narrow, &[0, 1])
                .unwrap_err()
                .to_string()
                .contains("784")
        );
        let floats = Vectors::from_floats(PIXELS, vec![0.0; PIXELS]).unwrap();
        assert!(
            Labelled::new(&floats, &[0])
                .unwrap_err()
                .to_string()
                .contains("bytes")
        );
        assert!(Labelled::new(&images.head(0), &[]).is_err());
    }
}
