//! [`hover_maps`]: layouts of the same images in a plane, each image a point in the colour of its
//! class; the reader points at one and sees the image.
//!
//! Ten thousand points as SVG elements weigh a megabyte. Here a map is one raster picture of all
//! points, 50 kB, and only some of them are elements, which answer the reader.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ChartError;
use super::plane::Point;
use super::vega::{Interactive, filled};
use crate::fashion::{CLASSES, Labelled};
use crate::report::figure::{Figure, escape};
use crate::report::pictures::points_of;
use crate::vectors::Vectors;

const MAPS: &str = include_str!("hover_maps.vl.json");
const MAP: &str = include_str!("hover_map.vl.json");

/// The side of a map in pixels: three of them fill a page's width.
const SIDE: usize = 290;
/// The side of its picture, twice that, for screens with dense pixels.
const DOTS: usize = 2 * SIDE;
/// A point of the picture is a square of so many dots.
const DOT: usize = 3;
/// So many images can be pointed at. Each weighs half a kilobyte in the page.
const SHOWN: usize = 1_200;
/// Between two maps, and around them.
const GAP: usize = 10;

/// The colours of the classes: Tableau's ten, which are told apart on white and on black.
const COLORS: [u32; 10] = [
    0x4E_79_A7, 0xF2_8E_2B, 0xE1_57_59, 0x76_B7_B2, 0x59_A1_4F, 0xED_C9_48, 0xB0_7A_A1, 0xFF_9D_A7,
    0x9C_75_5F, 0xBA_B0_AC,
];

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
    /// # Panics
    /// If the rows have other than two dimensions.
    #[must_use]
    pub fn of(name: &str, layout: &Vectors) -> Self {
        let ids: Vec<u32> = (0..layout.len() as u32).collect();
        Self::new(name, points_of(layout, &ids))
    }

    /// The points moved and scaled alike in both directions into the square from −1 to 1.
    fn squared(&self) -> Vec<Point> {
        let xs = super::extent(self.points.iter().map(|point| point.0));
        let ys = super::extent(self.points.iter().map(|point| point.1));
        let middle = |(low, high): (f64, f64)| (low + high) / 2.0;
        let half = (xs.1 - xs.0).max(ys.1 - ys.0) / 2.0 * 1.02;
        // All points in one place have no extent.
        let half = if half > 0.0 { half } else { 1.0 };
        let place = |point: &Point| ((point.0 - middle(xs)) / half, (point.1 - middle(ys)) / half);
        self.points.iter().map(place).collect()
    }
}

/// Maps side by side of the same images. `class_label` names the class in the tooltip.
///
/// The still form shows all points. In the interactive one the first 1,200 can be pointed at, and
/// show the image and its class.
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
/// If there is no map, or one has another number of points than there are images or one that is not
/// finite.
pub fn hover_maps(
    title: &str,
    maps: &[ClassMap],
    images: &Labelled,
    class_label: &str,
) -> Result<Interactive, ChartError> {
    let mut places = Vec::with_capacity(maps.len());
    for map in maps {
        check(map, images)?;
        places.push(map.squared());
    }
    if maps.is_empty() {
        return Err(ChartError::Empty {
            title: title.to_owned(),
        });
    }
    let pictures: Vec<String> = places
        .iter()
        .map(|points| data_uri(&picture(points, &images.labels)))
        .collect();
    let colors: Vec<String> = COLORS.iter().map(|color| format!("#{color:06X}")).collect();
    let each = maps.iter().zip(&pictures).enumerate();
    let specs: Vec<Value> = each
        .map(|(at, (map, picture))| {
            let parts = json!({
                "name": map.name, "side": SIDE, "middle": SIDE / 2, "picture": picture,
                "x": format!("x{at}"), "y": format!("y{at}"), "class_label": class_label,
                "classes": CLASSES, "colors": colors,
            });
            filled(MAP, &parts)
        })
        .collect();
    let parts = json!({"title": title, "rows": rows(&places, images), "maps": specs});
    let still = still(title, maps, &pictures, &colors);
    Ok(Interactive::new(still, filled(MAPS, &parts)))
}

/// Refuses a map that is not of these images.
fn check(map: &ClassMap, images: &Labelled) -> Result<(), ChartError> {
    let bad = |value: String| ChartError::Value {
        title: map.name.clone(),
        value,
    };
    if map.points.len() != images.labels.len() {
        return Err(bad(format!("{} points", map.points.len())));
    }
    let mut points = map.points.iter();
    match points.find(|point| !(point.0.is_finite() && point.1.is_finite())) {
        Some(point) => Err(bad(format!("{point:?}"))),
        None => Ok(()),
    }
}

/// The images that can be pointed at: class, picture, and place on each map.
fn rows(places: &[Vec<Point>], images: &Labelled) -> Value {
    let mut rows = Vec::new();
    for image in 0..images.labels.len().min(SHOWN) {
        let pixels = images.images.row_bytes(image).unwrap_or_default();
        let mut row = json!({
            "class": images.class_name(image),
            "image": data_uri(&thumbnail(pixels)),
        });
        for (at, points) in places.iter().enumerate() {
            // Three decimals are a sixth of a pixel.
            let rounded = |value: f64| (value * 1e3).round() / 1e3;
            row[format!("x{at}")] = json!(rounded(points[image].0));
            row[format!("y{at}")] = json!(rounded(points[image].1));
        }
        rows.push(row);
    }
    Value::Array(rows)
}

fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// A grey image of 28 × 28 pixels in 16 shades: half the bytes of 256.
fn thumbnail(pixels: &[u8]) -> Vec<u8> {
    let side = crate::fashion::SIDE;
    let mut shades: Vec<u8> = pixels.iter().map(|pixel| pixel >> 4).collect();
    shades.resize(side * side, 0);
    let packed: Vec<u8> = shades
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    encoded(side, png::ColorType::Grayscale, &packed)
}

/// All points of a map on a transparent ground.
fn picture(points: &[Point], labels: &[u8]) -> Vec<u8> {
    // Each dot is the number of its class from 1, or 0.
    let mut dots = vec![0u8; DOTS * DOTS];
    let scale = (DOTS - DOT) as f64 / 2.0;
    for (point, &label) in points.iter().zip(labels) {
        let left = ((point.0 + 1.0) * scale).round() as usize;
        // The y axis of a map goes up, that of a picture down.
        let top = ((1.0 - point.1) * scale).round() as usize;
        for y in top..top + DOT {
            let row = &mut dots[y * DOTS..][..DOTS];
            row[left..left + DOT].fill(label % COLORS.len() as u8 + 1);
        }
    }
    let packed: Vec<u8> = dots
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    encoded(DOTS, png::ColorType::Indexed, &packed)
}

/// A square PNG of four bits a pixel; an indexed one has the classes' colours from 1 on.
fn encoded(side: usize, color: png::ColorType, packed: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side as u32, side as u32);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Four);
    if color == png::ColorType::Indexed {
        let mut palette = vec![0; 3];
        for color in COLORS {
            palette.extend(&color.to_be_bytes()[1..]);
        }
        encoder.set_palette(palette);
        encoder.set_trns(vec![0]);
    }
    // Writing to a vector cannot fail, and the pixels are as many as the header says.
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(packed));
    written.expect("a whole image goes into memory");
    file
}

/// The maps side by side, and below them a legend in two rows.
fn still(title: &str, maps: &[ClassMap], pictures: &[String], colors: &[String]) -> Figure {
    let width = maps.len() * (SIDE + GAP) + GAP;
    let height = SIDE + 100;
    let mut content = format!(
        "<g font-family=\"sans-serif\"><rect width=\"{width}\" height=\"{height}\" \
         fill=\"#FFFFFF\"/>\
         <text x=\"{GAP}\" y=\"20\" font-size=\"15\" fill=\"#111111\">{}</text>\n",
        escape(title)
    );
    for (at, (map, picture)) in maps.iter().zip(pictures).enumerate() {
        let left = GAP + at * (SIDE + GAP);
        content += &format!(
            "<text x=\"{left}\" y=\"40\" font-size=\"13\" fill=\"#555555\">{}</text>\
             <image x=\"{left}\" y=\"46\" width=\"{SIDE}\" height=\"{SIDE}\" href=\"{picture}\"/>\n",
            escape(&map.name)
        );
    }
    let column = (width - GAP) / 5;
    for (class, (name, color)) in CLASSES.iter().zip(colors).enumerate() {
        let left = GAP + 6 + class % 5 * column;
        let middle = SIDE + 62 + class / 5 * 20;
        content += &format!(
            "<circle cx=\"{left}\" cy=\"{middle}\" r=\"5\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"{}\" font-size=\"12\" fill=\"#111111\">{name}</text>\n",
            left + 10,
            middle + 4
        );
    }
    content += "</g>";
    let names: Vec<&str> = maps.iter().map(|map| map.name.as_str()).collect();
    Figure::new((width as u32, height as u32), content).described(title, names.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Labelled {
        let pixels = vec![255; 3 * 784];
        Labelled {
            images: Vectors::from_bytes(784, pixels).unwrap().into(),
            labels: [0, 1, 9].into(),
        }
    }

    #[test]
    fn every_point_is_a_dot_of_its_class() {
        let map = ClassMap::new("m", vec![(10.0, 0.0), (20.0, 0.0), (15.0, 5.0)]);
        let places = map.squared();
        let mut reader = png::Decoder::new(std::io::Cursor::new(picture(&places, &[0, 1, 9])));
        reader.set_transformations(png::Transformations::IDENTITY);
        let mut reader = reader.read_info().unwrap();
        let mut packed = vec![0; DOTS * DOTS / 2];
        reader.next_frame(&mut packed).unwrap();
        let of = |class: u8| {
            let halves = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            halves.filter(|&half| half == class + 1).count()
        };
        assert_eq!([of(0), of(1), of(9), of(5)], [9, 9, 9, 0]);
    }

    #[test]
    fn a_map_of_other_images_is_refused() {
        let maps = |points| hover_maps("t", &[ClassMap::new("m", points)], &images(), "class");
        assert!(maps(vec![(0.0, 0.0); 3]).is_ok());
        assert!(maps(vec![(0.0, 0.0); 2]).is_err());
        assert!(maps(vec![(0.0, f64::NAN); 3]).is_err());
        assert!(hover_maps("t", &[], &images(), "class").is_err());
    }
}
