//! [`Gallery`]: rows of small grey images with captions, as one SVG figure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::notebook::{Figure, escape};
use crate::fashion::SIDE;
use crate::report::chart::themed;

/// One image and what stands below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    pixels: Vec<u8>,
    caption: String,
    verdict: Option<bool>,
}

impl Tile {
    /// A tile of 28 × 28 grey pixels, row-major; missing ones are black, excess ones are left out.
    #[must_use]
    pub fn new(pixels: &[u8], caption: impl Into<String>) -> Self {
        let mut pixels = pixels.to_vec();
        pixels.resize(SIDE * SIDE, 0);
        Self {
            pixels,
            caption: caption.into(),
            verdict: None,
        }
    }

    /// Frames the image as right (a full line) or wrong (a dashed one, with a cross before the caption).
    #[must_use]
    pub fn marked(mut self, right: bool) -> Self {
        self.verdict = Some(right);
        self
    }
}

/// Rows of tiles, each row with a heading on its left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gallery {
    rows: Vec<(String, Vec<Tile>)>,
}

const TILE: usize = 72;
const STEP: usize = TILE + 14;
const LINE: usize = TILE + 30;
const HEADING: usize = 118;

impl Gallery {
    /// Adds a row.
    #[must_use]
    pub fn row(mut self, heading: impl Into<String>, tiles: Vec<Tile>) -> Self {
        self.rows.push((heading.into(), tiles));
        self
    }

    /// The rows as a figure.
    #[must_use]
    pub fn figure(&self) -> Figure {
        let columns = self
            .rows
            .iter()
            .map(|(_, tiles)| tiles.len())
            .max()
            .unwrap_or(0);
        let (width, height) = (HEADING + columns * STEP + 6, self.rows.len() * LINE + 8);
        let mut svg = format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#FFFFFF\"/>\n"
        );
        for (row, (heading, tiles)) in self.rows.iter().enumerate() {
            let y = 8 + row * LINE;
            for (line, text) in heading.lines().enumerate() {
                let (y, weight) = (
                    y + 26 + 17 * line,
                    if line == 0 { "bold" } else { "normal" },
                );
                svg += &format!(
                    "<text x=\"6\" y=\"{y}\" font-size=\"13\" font-weight=\"{weight}\" fill=\"#111111\">{}</text>\n",
                    escape(text)
                );
            }
            for (column, tile) in tiles.iter().enumerate() {
                svg += &tile.svg(HEADING + column * STEP, y);
            }
        }
        Figure::from_svg(themed(&(svg + "</svg>")))
    }
}

impl Tile {
    fn svg(&self, x: usize, y: usize) -> String {
        let image = STANDARD.encode(png_of(&self.pixels));
        let (center, below) = (x + TILE / 2, y + TILE + 15);
        let frame = match self.verdict {
            None => String::new(),
            Some(right) => format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{TILE}\" height=\"{TILE}\" fill=\"none\" stroke-width=\"3\" stroke=\"{}\"{}/>",
                if right { "#009E73" } else { "#D55E00" },
                if right {
                    ""
                } else {
                    " stroke-dasharray=\"6 4\""
                },
            ),
        };
        let cross = if self.verdict == Some(false) {
            "✗ "
        } else {
            ""
        };
        format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{TILE}\" height=\"{TILE}\" style=\"image-rendering:pixelated\" \
             href=\"data:image/png;base64,{image}\"/>{frame}\
             <text x=\"{center}\" y=\"{below}\" font-size=\"11\" text-anchor=\"middle\" fill=\"#111111\">{cross}{}</text>\n",
            escape(&self.caption)
        )
    }
}

/// The image as a grey PNG file.
fn png_of(pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels));
    written.expect("a whole image goes into memory");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_its_encoding() {
        let pixels: Vec<u8> = (0..SIDE * SIDE).map(|pixel| (pixel % 251) as u8).collect();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png_of(&pixels)))
            .read_info()
            .unwrap();
        let mut decoded = vec![0; SIDE * SIDE];
        reader.next_frame(&mut decoded).unwrap();
        assert_eq!(decoded, pixels);
    }

    #[test]
    fn a_gallery_holds_every_tile_and_escapes_its_captions() {
        let tile = Tile::new(&[9; 784], "a<b");
        let gallery = Gallery::default()
            .row("primera", vec![tile.clone(), tile.clone().marked(false)])
            .row("", vec![tile]);
        let svg = gallery.figure().svg().to_owned();
        assert_eq!(svg.matches("<image").count(), 3);
        assert_eq!(svg.matches("a&lt;b").count(), 3);
        assert_eq!(svg.matches("✗").count(), 1);
    }
}
