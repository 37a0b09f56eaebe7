//! Where the names of curves stand at their lines.
//!
//! Each name may stand at any point of its curve, above it or below, to the right or to the left.
//! One after the other takes the place that covers the least: names that stand already weigh more
//! than curves.

use std::ops::Range;

/// The name of a curve.
pub(super) struct Label {
    /// The width of the name in pixels.
    pub(super) width: i32,
    /// The curve, in pixels.
    pub(super) line: Vec<(i32, i32)>,
}

/// The height of a name in pixels.
const HEIGHT: i32 = 15;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rectangle {
    left: i32,
    top: i32,
    width: i32,
}

impl Rectangle {
    fn contains(self, (x, y): (i32, i32)) -> bool {
        (self.left..=self.left + self.width).contains(&x)
            && (self.top..=self.top + HEIGHT).contains(&y)
    }

    fn meets(self, other: Self) -> bool {
        let apart =
            |a: i32, a_length: i32, b: i32, b_length: i32| a + a_length <= b || b + b_length <= a;
        !apart(self.left, self.width, other.left, other.width)
            && !apart(self.top, HEIGHT, other.top, HEIGHT)
    }
}

/// The upper left corner of each name, within `x` and `y`.
pub(super) fn place_labels(labels: &[Label], x: Range<i32>, y: Range<i32>) -> Vec<(i32, i32)> {
    let dots: Vec<(i32, i32)> = labels
        .iter()
        .flat_map(|label| dotted(&label.line))
        .collect();
    // Curves of few points come first, since they have the fewest places to choose from.
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&at| labels[at].line.len());
    let mut corners = vec![(x.start, y.start); labels.len()];
    let mut taken: Vec<Rectangle> = Vec::new();
    for at in order {
        let cost = |place: &Rectangle| {
            let names = taken.iter().filter(|taken| taken.meets(*place)).count();
            let covered = dots.iter().filter(|&&dot| place.contains(dot)).count();
            1_000 * names + covered
        };
        let inside = candidates(&labels[at]).into_iter().filter(|place| {
            x.contains(&place.left)
                && x.contains(&(place.left + place.width))
                && y.contains(&place.top)
                && y.contains(&(place.top + HEIGHT))
        });
        // Of places alike the last: it is the farthest along the curve. A name that fits nowhere
        // stays in the corner.
        if let Some(best) = inside.rev().min_by_key(cost) {
            corners[at] = (best.left, best.top);
            taken.push(best);
        }
    }
    corners
}

/// Where a name may stand: at each point of its curve, on four sides, 8 pixels away.
fn candidates(label: &Label) -> Vec<Rectangle> {
    let mut places = Vec::new();
    for &(x, y) in &label.line {
        let corners = [
            (x + 8, y - 8 - HEIGHT),
            (x - 8 - label.width, y + 8),
            (x + 8, y + 8),
            (x - 8 - label.width, y - 8 - HEIGHT),
            (x - label.width / 2, y - 8 - HEIGHT),
            (x - label.width / 2, y + 8),
        ];
        places.extend(corners.map(|(left, top)| Rectangle {
            left,
            top,
            width: label.width,
        }));
    }
    places
}

/// Points along a line, about 4 pixels apart.
fn dotted(line: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut dots: Vec<(i32, i32)> = line.to_vec();
    for pair in line.windows(2) {
        let ((x, y), (dx, dy)) = (pair[0], (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
        let steps = dx.abs().max(dy.abs()) / 4;
        dots.extend((1..steps).map(|step| (x + dx * step / steps, y + dy * step / steps)));
    }
    dots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_apart_inside_and_off_the_lines() {
        // Two falling lines, and a single point at the right edge.
        let lines = [
            vec![(10, 20), (100, 30), (190, 70)],
            vec![(10, 100), (100, 110), (190, 150)],
            vec![(198, 110)],
        ];
        let labels: Vec<Label> = lines.map(|line| Label { width: 50, line }).into();
        let corners = place_labels(&labels, 0..200, 0..200);
        let places: Vec<Rectangle> = corners
            .iter()
            .map(|&(left, top)| Rectangle {
                left,
                top,
                width: 50,
            })
            .collect();
        for (at, place) in places.iter().enumerate() {
            assert!(place.left >= 0 && place.left + 50 < 200, "{places:?}");
            assert!(place.top >= 0 && place.top + HEIGHT < 200, "{places:?}");
            assert!(
                !places[..at].iter().any(|other| other.meets(*place)),
                "{places:?}"
            );
            for label in &labels {
                assert!(!dotted(&label.line).iter().any(|&dot| place.contains(dot)));
            }
        }
    }

    #[test]
    fn a_curve_without_points_has_a_place() {
        let label = Label {
            width: 300,
            line: Vec::new(),
        };
        assert_eq!(place_labels(&[label], 5..200, 7..200), [(5, 7)]);
    }
}
