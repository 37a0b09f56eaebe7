//! [`hover_maps`]: layouts of the same images in the plane, each image a point in the colour of its
//! class.
//!
//! Ten thousand points are written as briefly as their form allows: a class is one SVG path in the
//! still form, all coordinates are one table in the interactive one, and all images one picture, of
//! which the one that is asked for is cut out.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::vega::{Interactive, filled, number_format};
use super::{ChartError, Point, extent};
use crate::fashion::{CLASSES, Labelled, SIDE};
use crate::report::figure::{Figure, escape};
use crate::report::numbers::integer;
use crate::report::pictures::points_of;
use crate::vectors::Vectors;

const HOVER_MAP: &str = include_str!("hover_map.vl.json");

/// The colours of the classes: those of the series, and three more by which ten classes differ.
const COLORS: [&str; 10] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080", "#882255",
    "#999933", "#6A3D9A",
];

/// The greatest coordinate of the interactive form: whole numbers are short, and a thousand steps
/// are finer than a screen's pixels.
const STEPS: f64 = 999.0;

/// The side in pixels of an image of the interactive form: half of the original, which has a
/// quarter of the bytes.
const SMALL: usize = SIDE / 2;

/// How many images stand in a row of the picture that holds them all.
const COLUMNS: usize = 100;

/// Where a layout puts each image.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMap {
    name: String,
    points: Vec<Point>,
}

impl ClassMap {
    /// The map `name`, with a point an image.
    #[must_use]
    pub fn new(name: &str, points: Vec<Point>) -> Self {
        let name = name.to_owned();
        Self { name, points }
    }

    /// The map `name` of a layout: rows of two coordinates (n × 2), one an image.
    ///
    /// # Errors
    /// If the rows have other than two dimensions.
    pub fn of(name: &str, layout: &Vectors) -> Result<Self, ChartError> {
        if layout.dim() != 2 {
            return Err(ChartError::Value {
                title: name.to_owned(),
                value: format!("{} coordinates a point", layout.dim()),
            });
        }
        let ids: Vec<u32> = (0..layout.len() as u32).collect();
        Ok(Self::new(name, points_of(layout, &ids)))
    }

    /// The points in the square from 0 to 1, with one scale on both axes, as large as it allows.
    fn fitted(&self) -> Vec<Point> {
        let (left, right) = extent(self.points.iter().map(|point| point.0));
        let (bottom, top) = extent(self.points.iter().map(|point| point.1));
        // One point has no extent: it stands in the middle, whatever the scale.
        let scale = 1.0 / (right - left).max(top - bottom).max(f64::MIN_POSITIVE);
        let place =
            |value: f64, range: Range<f64>| 0.5 + (value - (range.start + range.end) / 2.0) * scale;
        let point = |&(x, y): &Point| (place(x, left..right), place(y, bottom..top));
        self.points.iter().map(point).collect()
    }
}

/// Maps of the same images. `class_label` heads the legend.
///
/// The still form has them side by side. The interactive one shows a map, with a choice among them;
/// pointing at a point shows its image, and a click on the legend singles a class out. An image
/// takes about 110 bytes of the notebook for three maps.
///
/// ```
/// use fashion_knn::fashion::Labelled;
/// use fashion_knn::report::chart::{ClassMap, hover_maps};
/// use fashion_knn::vectors::Vectors;
///
/// let images = Vectors::from_bytes(784, vec![9; 2 * 784])?.into();
/// let images = Labelled { images, labels: [1, 8].into() };
/// let map = ClassMap::new("pixels", vec![(0.0, 1.0), (2.0, 0.5)]);
/// let maps = hover_maps("Two images", &[map], &images, "class")?;
/// assert!(maps.spec().to_string().contains("Trouser"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there is no map or no image, the images are not 28 × 28 bytes, or a map has another number
/// of points than there are images or one that is not finite.
pub fn hover_maps(
    title: &str,
    maps: &[ClassMap],
    images: &Labelled,
    class_label: &str,
) -> Result<Interactive, ChartError> {
    check(title, maps, images)?;
    let view = View {
        title,
        maps,
        labels: &images.labels,
        fitted: maps.iter().map(ClassMap::fitted).collect(),
    };
    let pixels = images.images.bytes().unwrap_or_default();
    let names: Vec<&str> = maps.iter().map(|map| map.name.as_str()).collect();
    let spec = filled(
        HOVER_MAP,
        &json!({
            "title": title,
            "number_format": number_format(),
            "points": view.table(),
            "layouts": (0..names.len()).collect::<Vec<_>>(),
            "layout_names": names,
            "class_label": class_label,
            "class_names": CLASSES,
            "colors": COLORS,
            "pictures": format!("data:image/png;base64,{}", STANDARD.encode(png_of_all(pixels))),
            "picture": picture_expression(),
        }),
    );
    Ok(Interactive::new(view.still(), spec))
}

/// Refuses what cannot be drawn.
fn check(title: &str, maps: &[ClassMap], images: &Labelled) -> Result<(), ChartError> {
    if maps.is_empty() || images.labels.is_empty() {
        return Err(ChartError::Empty {
            title: title.to_owned(),
        });
    }
    let wrong = |value: String| {
        Err(ChartError::Value {
            title: title.to_owned(),
            value,
        })
    };
    if images.images.bytes().is_none() || images.images.dim() != SIDE * SIDE {
        return wrong(format!("{} values an image", images.images.dim()));
    }
    for map in maps {
        if map.points.len() != images.labels.len() {
            return wrong(format!("{}: {} points", map.name, map.points.len()));
        }
        let finite = |point: &&Point| point.0.is_finite() && point.1.is_finite();
        if let Some(point) = map.points.iter().find(|point| !finite(point)) {
            return wrong(format!("{point:?}"));
        }
    }
    Ok(())
}

/// What is drawn in both forms.
struct View<'a> {
    title: &'a str,
    maps: &'a [ClassMap],
    labels: &'a [u8],
    /// The points of each map, in the square from 0 to 1.
    fitted: Vec<Vec<Point>>,
}

impl View<'_> {
    /// The points as a CSV table: the coordinates in each map, and the class. As CSV they take a
    /// third of the bytes that they take as JSON.
    fn table(&self) -> String {
        let heads = (0..self.fitted.len()).map(|at| format!("x{at},y{at},"));
        let mut csv = heads.collect::<String>() + "class\n";
        for (row, label) in self.labels.iter().enumerate() {
            for points in &self.fitted {
                let (x, y) = points[row];
                csv += &format!("{},{},", (x * STEPS).round(), (y * STEPS).round());
            }
            csv += &format!("{label}\n");
        }
        csv
    }

    /// The maps side by side, the legend below.
    fn still(&self) -> Figure {
        // A map has its name above and 8 pixels around it.
        let width = (PANEL + 16) * self.maps.len();
        let columns = (width / 150).max(1);
        let legend = CLASSES.len().div_ceil(columns) * 20;
        let height = 34 + 24 + PANEL + 16 + legend;
        let mut svg = format!(
            "<g font-family=\"sans-serif\" fill=\"#111111\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#FFFFFF\"/>\n\
             <text x=\"12\" y=\"24\" font-size=\"17\">{}</text>\n",
            escape(self.title)
        );
        for (at, (map, points)) in self.maps.iter().zip(&self.fitted).enumerate() {
            let left = 8 + at * (PANEL + 16);
            svg += &format!(
                "<g transform=\"translate({left} 58)\">\n\
                 <text x=\"4\" y=\"-8\" font-size=\"14\">{}</text>\n{}</g>\n",
                escape(&map.name),
                self.panel(points)
            );
        }
        for (at, class) in CLASSES.iter().enumerate() {
            let (x, y) = (12 + at % columns * 150, 58 + PANEL + 24 + at / columns * 20);
            svg += &format!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"5\" fill=\"{}\"/>\
                 <text x=\"{}\" y=\"{y}\" font-size=\"14\">{at} {}</text>\n",
                x + 5,
                y - 5,
                COLORS[at % COLORS.len()],
                x + 16,
                escape(class)
            );
        }
        svg += "</g>\n";
        let size = (width as u32, height as u32);
        Figure::new(size, svg).described(self.title, self.description())
    }

    /// The points of a map, a path a class, and the number of each class amid its points.
    fn panel(&self, points: &[Point]) -> String {
        let mut svg = String::new();
        for class in self.present() {
            let mut path = String::new();
            for (x, y) in self.of_class(points, class) {
                // A line of no length with round ends is a dot, and no other dot is so short.
                path += &format!("M{x} {y}h0");
            }
            svg += &format!(
                "<path d=\"{path}\" stroke=\"{}\" stroke-width=\"3\" stroke-linecap=\"round\"/>\n",
                COLORS[class % COLORS.len()]
            );
        }
        for class in self.present() {
            let (x, y) = middle(self.of_class(points, class));
            // A disc of paper below the number: it could not be read among the points.
            svg += &format!(
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"9\" fill=\"#FFFFFF\"/>\
                 <text x=\"{x}\" y=\"{}\" font-size=\"14\" text-anchor=\"middle\">{class}</text>\n",
                y + 5
            );
        }
        svg
    }

    /// The classes that have an image.
    fn present(&self) -> Vec<usize> {
        let has_image = |class: &usize| {
            self.labels
                .iter()
                .any(|&label| usize::from(label) == *class)
        };
        (0..CLASSES.len()).filter(has_image).collect()
    }

    /// The pixels of the points of a class.
    fn of_class(&self, points: &[Point], class: usize) -> Vec<(i32, i32)> {
        let pairs = points.iter().zip(self.labels);
        let of_class = pairs.filter(|(_, label)| usize::from(**label) == class);
        let pixel = |share: f64| (share * PANEL as f64).round() as i32;
        // Pixels count downwards, the plane's y upwards.
        of_class
            .map(|(&(x, y), _)| (pixel(x), pixel(1.0 - y)))
            .collect()
    }

    /// The names of the maps, and how many images each class has.
    fn description(&self) -> String {
        let names: Vec<&str> = self.maps.iter().map(|map| map.name.as_str()).collect();
        let mut lines = vec![names.join("; ")];
        for (at, class) in CLASSES.iter().enumerate() {
            let images = self
                .labels
                .iter()
                .filter(|&&label| usize::from(label) == at)
                .count();
            lines.push(format!("{at} {class}: {}", integer(images as u64)));
        }
        lines.join("\n")
    }
}

/// The side in pixels of a layout of the still form.
const PANEL: usize = 300;

/// The (upper) median of both coordinates of points, which a few stray points do not move. There is
/// at least one.
fn middle(points: Vec<(i32, i32)>) -> (i32, i32) {
    let median = |mut values: Vec<i32>| {
        let at = values.len() / 2;
        *values.select_nth_unstable(at).1
    };
    let (x, y) = points.into_iter().unzip();
    (median(x), median(y))
}

/// The image of the point `datum`, cut out of the picture of all: an expression of Vega, whose
/// value is the address of an SVG picture that shows a part of the large one.
fn picture_expression() -> String {
    let row = format!("floor(datum.id / {COLUMNS})");
    format!(
        "'data:image/svg+xml;utf8,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%2284%22 \
         height=%2284%22 viewBox=%22' + {SMALL} * (datum.id % {COLUMNS}) + ' ' + {SMALL} * {row} + \
         ' {SMALL} {SMALL}%22><image style=%22image-rendering:pixelated%22 width=%22{}%22 \
         href=%22' + pictures + '%22/></svg>'",
        SMALL * COLUMNS
    )
}

/// All images in one picture, [`COLUMNS`] in a row, each of half its width and height and 16 shades
/// of grey: a PNG file.
fn png_of_all(pixels: &[u8]) -> Vec<u8> {
    let images: Vec<&[u8]> = pixels.chunks_exact(SIDE * SIDE).collect();
    let width = COLUMNS * SMALL;
    let height = images.len().div_ceil(COLUMNS) * SMALL;
    // Two pixels a byte, the left one in the upper half.
    let mut packed = vec![0u8; width / 2 * height];
    for (at, image) in images.iter().enumerate() {
        let (left, top) = (at % COLUMNS * SMALL, at / COLUMNS * SMALL);
        for y in 0..SMALL {
            for x in 0..SMALL {
                let shade = mean_of_four(image, x, y) >> 4;
                let (column, row) = (left + x, top + y);
                packed[row * width / 2 + column / 2] |= if column.is_multiple_of(2) {
                    shade << 4
                } else {
                    shade
                };
            }
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_compression(png::Compression::High);
    // Writing to a vector cannot fail, and the pixels are as many as the header says.
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&packed));
    written.expect("a whole picture goes into memory");
    file
}

/// The mean of the four pixels of an image that become pixel (x, y) of the small one.
fn mean_of_four(image: &[u8], x: usize, y: usize) -> u8 {
    let pixel = |right: usize, down: usize| u32::from(image[(2 * y + down) * SIDE + 2 * x + right]);
    let sum = pixel(0, 0) + pixel(1, 0) + pixel(0, 1) + pixel(1, 1);
    (sum / 4) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Labelled {
        let pixels = vec![255; 3 * 784];
        Labelled {
            images: Vectors::from_bytes(784, pixels).unwrap().into(),
            labels: [0, 1, 1].into(),
        }
    }

    #[test]
    fn a_layout_has_two_coordinates() {
        let places = Vectors::from_floats(2, vec![0.0, 1.0, 2.0, 0.5]).unwrap();
        let points = vec![(0.0, 1.0), (2.0, 0.5)];
        assert_eq!(ClassMap::of("m", &places), Ok(ClassMap::new("m", points)));
        let rows = Vectors::from_floats(3, vec![0.0; 6]).unwrap();
        let error = ClassMap::of("m", &rows).unwrap_err();
        assert!(error.to_string().contains("3 coordinates"), "{error}");
    }

    fn maps() -> [ClassMap; 2] {
        [
            ClassMap::new("one", vec![(0.0, 0.0), (4.0, 1.0), (4.0, 3.0)]),
            ClassMap::new("two", vec![(-1.0, 5.0); 3]),
        ]
    }

    #[test]
    fn maps_keep_their_shape_and_fill_a_square() {
        // 4 wide and 3 high: the width fills the square, an eighth stays free above and below.
        let [one, two] = maps();
        assert_eq!(one.fitted(), [(0.0, 0.125), (1.0, 0.375), (1.0, 0.875)]);
        assert_eq!(two.fitted(), [(0.5, 0.5); 3]);
    }

    #[test]
    fn both_forms_hold_every_point() {
        let map = hover_maps("t", &maps(), &images(), "class").unwrap();
        let table = "x0,y0,x1,y1,class\n0,125,500,500,0\n999,375,500,500,1\n999,874,500,500,1\n";
        assert_eq!(map.spec()["data"]["values"], json!(table));
        assert!(!map.spec().to_string().contains("{{"));
        let svg = map.still().svg();
        // Two classes in two maps; the other classes have no point.
        assert_eq!(svg.matches("<path").count(), 4, "{svg}");
        assert!(svg.contains("d=\"M0 263h0\""), "{svg}");
        assert!(svg.contains("d=\"M300 188h0M300 38h0\""), "{svg}");
        assert!(
            svg.contains("<desc>one; two\n0 T-shirt/top: 1\n1 Trouser: 2\n"),
            "{svg}"
        );
    }

    #[test]
    fn small_images_stand_side_by_side_in_one_picture() {
        // Image 0 is black but for its last four pixels; image 100 begins the second row.
        let mut pixels = vec![0u8; 101 * SIDE * SIDE];
        for place in [26 * 28 + 26, 26 * 28 + 27, 27 * 28 + 26, 27 * 28 + 27] {
            pixels[place] = 160;
        }
        pixels[100 * SIDE * SIDE..].fill(255);
        let file = png_of_all(&pixels);
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        assert_eq!(reader.info().size(), (1_400, 28));
        let mut decoded = vec![0; 700 * 28];
        reader.next_frame(&mut decoded).unwrap();
        let shade = |x: usize, y: usize| {
            let both = decoded[y * 700 + x / 2];
            if x.is_multiple_of(2) {
                both >> 4
            } else {
                both & 15
            }
        };
        assert_eq!((shade(13, 13), shade(12, 13), shade(14, 13)), (10, 0, 0));
        assert_eq!((shade(0, 14), shade(13, 27), shade(14, 14)), (15, 15, 0));
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let refused = |points: Vec<Point>| {
            let map = ClassMap::new("m", points);
            hover_maps("t", &[map], &images(), "class")
                .unwrap_err()
                .to_string()
        };
        assert!(refused(vec![(0.0, 0.0)]).contains("m: 1 points"));
        assert!(refused(vec![(0.0, f64::NAN); 3]).contains("NaN"));
        let empty = hover_maps("t", &[], &images(), "class");
        assert!(matches!(empty, Err(ChartError::Empty { .. })));
        let floats = Labelled {
            images: Vectors::from_floats(1, vec![0.5; 3]).unwrap().into(),
            ..images()
        };
        assert!(hover_maps("t", &maps(), &floats, "class").is_err());
    }
}
