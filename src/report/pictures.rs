//! Pictures that several lessons draw alike: images beside their neighbours, and points of a plane.

use crate::classify::Weights;
use crate::fashion::{CLASSES, Labelled};
use crate::math::pca::{Pca, PcaError};
use crate::neighbor::Neighbors;
use crate::report::chart::{Plane, Point};
use crate::report::gallery::{Gallery, Tile};
use crate::vectors::Vectors;

/// Image `row` of `images` with a caption; a black one if there is no such row, or the rows are not
/// of bytes.
#[must_use]
pub fn tile(images: &Vectors, row: usize, caption: impl Into<String>) -> Tile {
    Tile::new(images.row_bytes(row).unwrap_or_default(), caption)
}

/// So many neighbours stand in a row of a gallery: with the image itself they fill a page's width.
const SHOWN: usize = 7;

/// Images with their neighbours, a row for each of `rows`: first image `row` of `asked`, captioned
/// `caption`, then its neighbours in `base`, the nearest first, each captioned with its class and
/// framed as right (of the class of the image) or wrong.
///
/// The heading of a row is the image's class, and below it, after an arrow, the class that all its
/// neighbours vote for (uniform votes), also those that have no room in the picture.
///
/// ```
/// use fashion_knn::fashion::Labelled;
/// use fashion_knn::neighbor::{Neighbor, Neighbors};
/// use fashion_knn::report::pictures::neighbour_gallery;
/// use fashion_knn::vectors::Vectors;
///
/// let images = Vectors::from_bytes(784, vec![9; 2 * 784])?.into();
/// let base = Labelled { images, labels: [1, 8].into() };
/// let found: Neighbors = [vec![Neighbor { id: 1, distance: 0.0 }]].into_iter().collect();
/// // Image 0 is a trouser, and its neighbour a bag.
/// let figure = neighbour_gallery("A trouser", &base, &base, &found, &[0], "query").figure();
/// let svg = figure.svg();
/// assert!(svg.contains("→ Bag") && svg.contains("✗ Bag"));
/// # Ok::<(), fashion_knn::vectors::VectorsError>(())
/// ```
///
/// # Panics
/// If one of `rows` is no row of `asked` and of `neighbors`, or a neighbour's id none of `base`.
#[must_use]
pub fn neighbour_gallery(
    title: &str,
    asked: &Labelled,
    base: &Labelled,
    neighbors: &Neighbors,
    rows: &[usize],
    caption: &str,
) -> Gallery {
    let mut gallery = Gallery::new(title);
    for &row in rows {
        let found = neighbors.row(row);
        let mut tiles = vec![tile(&asked.images, row, caption)];
        for neighbor in found.iter().take(SHOWN) {
            let id = neighbor.id as usize;
            let is_right = base.labels[id] == asked.labels[row];
            tiles.push(tile(&base.images, id, base.class_name(id)).marked(is_right));
        }
        let vote = Weights::Uniform.vote(found, &base.labels);
        let vote = vote.map_or("–", |class| CLASSES[usize::from(class)]);
        gallery = gallery.row(format!("{}\n→ {vote}", asked.class_name(row)), tiles);
    }
    gallery
}

/// The vectors in two dimensions: projected on their first two principal components (n × 2).
///
/// # Errors
/// If there are too few vectors for principal components.
pub fn in_the_plane(vectors: &Vectors) -> Result<Vectors, PcaError> {
    Ok(Pca::fit(vectors, &Default::default())?.reduce(vectors, 2))
}

/// A picture of the cells into which an index parts a plane (n × 2): the points of each cell,
/// given by their rows, in one colour and within their convex hull.
///
/// # Panics
/// As [`point_of`].
#[must_use]
pub fn cells(title: &str, plane: &Vectors, cells: Vec<Vec<u32>>) -> Plane {
    let mut picture = Plane::new(title);
    for cell in cells {
        let points = points_of(plane, &cell);
        picture = picture.group(points.clone()).hull(points);
    }
    picture
}

/// Two coordinates, such as the centre of a ball of the plane, as a point of a picture.
///
/// # Panics
/// If there are not two.
#[must_use]
pub fn as_point(coordinates: &[f64]) -> Point {
    let &[x, y] = coordinates else {
        panic!("{} coordinates; a point has two", coordinates.len());
    };
    (x, y)
}

/// A row of a plane (n × 2) as a point of a picture.
///
/// # Panics
/// If the vectors have other than two dimensions, or the id is no row.
#[must_use]
pub fn point_of(plane: &Vectors, id: u32) -> Point {
    assert_eq!(plane.dim(), 2, "a plane has two dimensions");
    let row = plane.row_to_floats(id as usize);
    (f64::from(row[0]), f64::from(row[1]))
}

/// Rows of a plane (n × 2) as points of a picture.
///
/// # Panics
/// As [`point_of`].
#[must_use]
pub fn points_of(plane: &Vectors, ids: &[u32]) -> Vec<Point> {
    ids.iter().map(|&id| point_of(plane, id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plane_keeps_the_distances_of_a_plane() {
        // Points of a plane in three dimensions: the two components hold all of it.
        let corners = vec![0.0, 0.0, 5.0, 3.0, 0.0, 5.0, 0.0, 4.0, 5.0, 3.0, 4.0, 5.0];
        let plane = in_the_plane(&Vectors::from_floats(3, corners).unwrap()).unwrap();
        let points = points_of(&plane, &[0, 1, 2, 3]);
        let distance = |a: Point, b: Point| (a.0 - b.0).hypot(a.1 - b.1);
        for (from, to, expected) in [(0, 1, 3.0), (0, 2, 4.0), (0, 3, 5.0), (1, 2, 5.0)] {
            let found = distance(points[from], points[to]);
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
