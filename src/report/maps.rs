//! Vectors drawn as points of a plane, each class in its colour.

use crate::fashion::{CLASSES, Labelled};
use crate::math::pca::PcaError;
use crate::report::chart::{Plane, Point};
use crate::report::pictures::{in_the_plane, points_of};

/// The rows in the plane of their first two principal components, a colour a class; of half a
/// page's width.
///
/// ```
/// use fashion_knn::fashion::Labelled;
/// use fashion_knn::report::maps::class_plane;
/// use fashion_knn::vectors::Vectors;
///
/// let corners = vec![0.0, 0.0, 9.0, 0.0, 0.0, 9.0, 9.0, 9.0];
/// let images = Vectors::from_floats(2, corners)?.into();
/// let plane = class_plane("Four", &Labelled { images, labels: [1, 1, 8, 8].into() })?;
/// assert!(plane.figure()?.svg().contains("Trouser"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there are too few rows for principal components.
pub fn class_plane(title: &str, rows: &Labelled) -> Result<Plane, PcaError> {
    let plane = in_the_plane(&rows.images)?;
    let ids: Vec<u32> = (0..rows.images.len() as u32).collect();
    let points = points_of(&plane, &ids);
    Ok(plane_of(title, &points, &rows.labels).size(580, 470))
}

/// Points with the classes of Fashion-MNIST, a colour a class.
///
/// # Panics
/// If there is not one label a point.
#[must_use]
pub fn plane_of(title: &str, points: &[Point], labels: &[u8]) -> Plane {
    assert_eq!(points.len(), labels.len(), "one label a point");
    let mut plane = Plane::new(title);
    for (class, name) in CLASSES.iter().enumerate() {
        let pairs = points.iter().zip(labels);
        let of_class = pairs.filter(|(_, label)| usize::from(**label) == class);
        plane = plane.class(*name, of_class.map(|(point, _)| *point));
    }
    plane
}
