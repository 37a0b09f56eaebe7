//! [`Gallery`]: rows of small grey images with captions, as one SVG figure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::figure::{Figure, escape};
use crate::fashion::SIDE;

/// One image and the caption below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    pixels: Vec<u8>,
    caption: String,
    /// Whether the image is framed as right or as wrong, if at all.
    verdict: Option<bool>,
}

impl Tile {
    /// A tile of 28 × 28 grey pixels, row by row. Missing pixels are black, excess ones are cut.
    #[must_use]
    pub fn new(pixels: &[u8], caption: impl Into<String>) -> Self {
        let mut pixels = pixels.to_vec();
        // A PNG of another length would not be whole: `png_of` relies on this one.
        pixels.resize(SIDE * SIDE, 0);
        Self {
            pixels,
            caption: caption.into(),
            verdict: None,
        }
    }

    /// Frames the image as right (a full line) or wrong (a dashed line, and a cross before the
    /// caption).
    #[must_use]
    pub fn marked(mut self, right: bool) -> Self {
        self.verdict = Some(right);
        self
    }
}

/// Rows of tiles, each row with a heading on its left.
///
/// # Examples
/// ```
/// use fashion_knn::report::gallery::{Gallery, Tile};
///
/// let black = [0u8; 28 * 28];
/// let figure = Gallery::new("Neighbours")
///     .row("nearest", vec![Tile::new(&black, "query"), Tile::new(&black, "bag").marked(true)])
///     .figure();
/// assert_eq!(figure.svg().matches("<image").count(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gallery {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    heading: String,
    tiles: Vec<Tile>,
}

// The layout, in pixels of the figure. A row, with HEADING on the left and STEP for each tile:
//
//   heading   [image] [image] [image]    TILE high
//             caption caption caption    LINE - TILE high

/// The side of an image: 28 pixels, enlarged about 2.6 times.
const TILE: usize = 72;
/// From one tile to the next: 14 pixels between images, into which a long caption reaches.
const STEP: usize = TILE + 14;
/// From one row to the next: 30 pixels below an image hold its caption and a gap.
const LINE: usize = TILE + 30;
/// The width of the headings: about 16 characters of 13-pixel bold text. A longer line runs into
/// the first image.
const HEADING: usize = 118;

impl Gallery {
    /// A gallery without rows. The title is not drawn: it names the figure for those who do not see
    /// it.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. The first line of its heading is bold.
    #[must_use]
    pub fn row(mut self, heading: impl Into<String>, tiles: Vec<Tile>) -> Self {
        self.rows.push(Row {
            heading: heading.into(),
            tiles,
        });
        self
    }

    /// The rows as a figure.
    #[must_use]
    pub fn figure(&self) -> Figure {
        // Without rows the figure is as wide as the headings and has no images.
        let longest_row = self.rows.iter().map(|row| row.tiles.len()).max();
        let width = HEADING + longest_row.unwrap_or(0) * STEP + 6;
        let height = self.rows.len() * LINE + 8;
        // The colours are spelled as `figure::STYLE` looks for them (#FFFFFF, #111111): only then
        // do they follow a dark theme. The rectangle is the paper.
        let mut svg = format!(
            "<g font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#FFFFFF\"/>\n"
        );
        for (at, row) in self.rows.iter().enumerate() {
            let top = 8 + at * LINE;
            svg += &row.heading_svg(top);
            for (column, tile) in row.tiles.iter().enumerate() {
                svg += &tile.svg(HEADING + column * STEP, top);
            }
        }
        svg += "</g>\n";
        let rows: Vec<String> = self.rows.iter().map(Row::description).collect();
        let size = (width as u32, height as u32);
        Figure::new(size, svg).described(self.title.clone(), rows.join("\n"))
    }
}

impl Row {
    /// The heading and the captions as text, "✗" before those of images that are marked as wrong.
    fn description(&self) -> String {
        let captions: Vec<String> = self.tiles.iter().map(Tile::written_caption).collect();
        format!(
            "{}: {}",
            self.heading.replace('\n', " "),
            captions.join(", ")
        )
    }

    /// The lines of the heading, for a row whose upper edge is at `top`.
    fn heading_svg(&self, top: usize) -> String {
        let mut svg = String::new();
        for (line, text) in self.heading.lines().enumerate() {
            // A text's y is its baseline: the first is 26 pixels below the upper edge, the others
            // follow by 17.
            let y = top + 26 + 17 * line;
            let weight = if line == 0 { "bold" } else { "normal" };
            svg += &format!(
                "<text x=\"6\" y=\"{y}\" font-size=\"13\" font-weight=\"{weight}\" \
                 fill=\"#111111\">{}</text>\n",
                escape(text)
            );
        }
        svg
    }
}

impl Tile {
    /// The image, its frame and its caption, with the image's upper left corner at (x, y).
    fn svg(&self, x: usize, y: usize) -> String {
        // The image is inside the figure, as base64: a figure is one piece of text that needs no
        // other file. `pixelated` keeps the browser from smoothing the 28 × 28 pixels.
        let image = STANDARD.encode(png_of(&self.pixels));
        let frame = self.frame_svg(x, y);
        let centre = x + TILE / 2;
        let below = y + TILE + 15;
        format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{TILE}\" height=\"{TILE}\" \
             style=\"image-rendering:pixelated\" \
             href=\"data:image/png;base64,{image}\"/>{frame}\
             <text x=\"{centre}\" y=\"{below}\" font-size=\"11\" text-anchor=\"middle\" \
             fill=\"#111111\">{}</text>\n",
            escape(&self.written_caption())
        )
    }

    /// The caption, with a cross before it if the tile is marked as wrong.
    fn written_caption(&self) -> String {
        let cross = if self.verdict == Some(false) {
            "✗ "
        } else {
            ""
        };
        format!("{cross}{}", self.caption)
    }

    /// The frame of a marked tile. Right and wrong differ in dash too, not only in colour.
    fn frame_svg(&self, x: usize, y: usize) -> String {
        let (color, dash) = match self.verdict {
            None => return String::new(),
            Some(true) => ("#009E73", ""),
            Some(false) => ("#D55E00", " stroke-dasharray=\"6 4\""),
        };
        format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{TILE}\" height=\"{TILE}\" fill=\"none\" \
             stroke-width=\"3\" stroke=\"{color}\"{dash}/>"
        )
    }
}

/// The image as a grey PNG file.
fn png_of(pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    // Writing to a vector cannot fail, and `Tile::new` made the pixels as many as the header says.
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
        let gallery = Gallery::new("t")
            .row("first", vec![tile.clone(), tile.clone().marked(false)])
            .row("", vec![tile]);
        let svg = gallery.figure().svg();
        assert_eq!(svg.matches("<image").count(), 3);
        // Below the image and in the description.
        assert_eq!(svg.matches("a&lt;b").count(), 6);
        assert_eq!(svg.matches("✗").count(), 2);
        assert!(svg.contains("<title>t</title><desc>first: a&lt;b, ✗ a&lt;b\n: a&lt;b</desc>"));
    }
}
