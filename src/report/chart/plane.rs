//! [`Plane`]: a small picture in two dimensions, with which a notebook shows how an index parts the space.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, ChartError, INK, PALE_INK, PALETTE, PAPER, text_style, titled, write_text};

/// A point of the plane.
pub type Point = (f64, f64);

/// Points in groups, and the hulls, circles and segments that an index draws around and between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    title: String,
    groups: Vec<Vec<Point>>,
    classes: Vec<String>,
    hulls: Vec<Vec<Point>>,
    circles: Vec<(Point, f64)>,
    segments: Vec<(Point, Point)>,
    query: Option<Point>,
}

impl Plane {
    /// An empty picture.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            groups: Vec::new(),
            classes: Vec::new(),
            hulls: Vec::new(),
            circles: Vec::new(),
            segments: Vec::new(),
            query: None,
        }
    }

    /// Adds points of one colour; each call takes the next.
    #[must_use]
    pub fn group(mut self, points: impl IntoIterator<Item = Point>) -> Self {
        self.groups.push(points.into_iter().collect());
        self
    }

    /// Adds points as a group with a name: its number stands amid the points and, with the name, in a legend on the
    /// right.
    #[must_use]
    pub fn class(
        mut self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = Point>,
    ) -> Self {
        self.classes.resize(self.groups.len(), String::new());
        self.classes.push(name.into());
        self.group(points)
    }

    /// Outlines the convex hull of some points: the cell that an index holds them in.
    #[must_use]
    pub fn hull(mut self, points: impl IntoIterator<Item = Point>) -> Self {
        self.hulls.push(convex_hull(points.into_iter().collect()));
        self
    }

    /// Adds a circle.
    #[must_use]
    pub fn circle(mut self, centre: Point, radius: f64) -> Self {
        self.circles.push((centre, radius));
        self
    }

    /// Joins two points.
    #[must_use]
    pub fn segment(mut self, from: Point, to: Point) -> Self {
        self.segments.push((from, to));
        self
    }

    /// Marks the query with a cross.
    #[must_use]
    pub fn query(mut self, at: Point) -> Self {
        self.query = Some(at);
        self
    }

    /// Draws the picture over the area, one unit as long on both axes; circles may reach beyond the points.
    ///
    /// # Errors
    /// If there is no point, one is not finite, or the backend fails.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        let points = || self.groups.iter().flatten().chain(&self.query);
        if let Some(bad) = points().find(|point| !point.0.is_finite() || !point.1.is_finite()) {
            return Err(ChartError::Value {
                title: self.title.clone(),
                value: format!("{bad:?}"),
            });
        }
        if points().next().is_none() {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        let mut body = titled(area, &self.title)?;
        if let Some(longest) = self.classes.iter().map(|name| name.chars().count()).max() {
            let legend;
            (body, legend) =
                body.split_horizontally(body.dim_in_pixel().0 as i32 - 44 - 7 * longest as i32);
            for (at, name) in self
                .classes
                .iter()
                .enumerate()
                .filter(|(_, name)| !name.is_empty())
            {
                let y = 12 + 20 * at as i32;
                legend.draw(&dot(at, (10, y), 4))?;
                write_text(
                    &legend,
                    &format!("{at} {name}"),
                    (20, y),
                    &text_style(13, INK, HPos::Left, VPos::Center),
                )?;
            }
        }
        let (width, height) = body.dim_in_pixel();
        let span = |of: fn(&Point) -> f64| {
            points()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                    (low.min(v), high.max(v))
                })
        };
        let ((left, right), (bottom, top)) = (span(|point| point.0), span(|point| point.1));
        let room =
            |pixels: u32, length: f64| (f64::from(pixels) - 24.0) / length.max(f64::MIN_POSITIVE);
        let scale = room(width, right - left)
            .min(room(height, top - bottom))
            .min(1e6);
        let middle = ((left + right) / 2.0, (bottom + top) / 2.0);
        let place = |point: &Point| {
            (
                (f64::from(width) / 2.0 + (point.0 - middle.0) * scale).round() as i32,
                (f64::from(height) / 2.0 - (point.1 - middle.1) * scale).round() as i32,
            )
        };
        for (from, to) in &self.segments {
            body.draw(&PathElement::new(
                vec![place(from), place(to)],
                PALE_INK.stroke_width(1),
            ))?;
        }
        for (at, group) in self.groups.iter().enumerate() {
            for point in group {
                body.draw(&dot(at, place(point), 2))?;
            }
        }
        for (at, group) in self.groups.iter().enumerate() {
            if !group.is_empty() && self.classes.get(at).is_some_and(|name| !name.is_empty()) {
                let amid = place(&(
                    median(group, |point| point.0),
                    median(group, |point| point.1),
                ));
                body.draw(&Circle::new(amid, 9, PAPER.filled()))?;
                write_text(
                    &body,
                    &at.to_string(),
                    amid,
                    &text_style(14, INK, HPos::Center, VPos::Center),
                )?;
            }
        }
        for hull in &self.hulls {
            let outline: Vec<_> = hull.iter().chain(hull.first()).map(place).collect();
            body.draw(&PathElement::new(outline, PALE_INK.stroke_width(1)))?;
        }
        for (centre, radius) in &self.circles {
            body.draw(&Circle::new(
                place(centre),
                (radius * scale).round() as i32,
                PALE_INK.stroke_width(1),
            ))?;
        }
        if let Some(query) = &self.query {
            body.draw(&Cross::new(place(query), 6, INK.stroke_width(3)))?;
        }
        Ok(())
    }
}

/// A point of group `at`; hollow when the colours are used up.
fn dot(at: usize, place: (i32, i32), radius: i32) -> Circle<(i32, i32), i32> {
    let color = PALETTE[at % PALETTE.len()];
    Circle::new(
        place,
        radius,
        if at < PALETTE.len() {
            color.filled()
        } else {
            color.stroke_width(1)
        },
    )
}

fn median(points: &[Point], of: fn(&Point) -> f64) -> f64 {
    let mut values: Vec<f64> = points.iter().map(of).collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The corners of the convex hull, anticlockwise (Andrew's monotone chain, 1979).
fn convex_hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let turns_left =
        |a: Point, b: Point, c: Point| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0) > 0.0;
    let chain = |points: &mut dyn Iterator<Item = Point>| {
        let mut chain: Vec<Point> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && !turns_left(a, b, point)
            {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut hull = chain(&mut points.iter().copied());
    hull.extend(chain(&mut points.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::svg;

    #[test]
    fn a_hull_keeps_the_corners_alone() {
        let square = vec![
            (0.0, 0.0),
            (2.0, 0.0),
            (2.0, 2.0),
            (0.0, 2.0),
            (1.0, 1.0),
            (1.0, 0.0),
        ];
        assert_eq!(
            convex_hull(square),
            [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
        );
        assert_eq!(convex_hull(vec![(1.0, 1.0), (1.0, 1.0)]), [(1.0, 1.0)]);
    }

    #[test]
    fn both_axes_have_one_scale() {
        let picture = Plane::new("t")
            .group([(0.0, 0.0), (10.0, 1.0)])
            .circle((5.0, 0.5), 5.0);
        let figure = svg((224, 134), |area| picture.draw(area)).unwrap();
        // 200 pixels for 10 units: a radius of 5 units is 100 pixels.
        assert!(figure.svg().contains("r=\"100\""), "{}", figure.svg());
        assert!(matches!(
            svg((200, 200), |area| Plane::new("t").draw(area)),
            Err(ChartError::Empty { .. })
        ));
    }

    #[test]
    fn classes_are_named_in_a_legend_and_numbered_amid_their_points() {
        let picture = Plane::new("t")
            .class("a", [(0.0, 0.0), (1.0, 1.0), (9.0, 2.0)])
            .class("b", [(5.0, 5.0)]);
        let figure = svg((300, 200), |area| picture.draw(area)).unwrap();
        for text in ["0", "1", "0 a", "1 b"] {
            assert_eq!(
                figure
                    .svg()
                    .lines()
                    .filter(|line| line.trim() == text)
                    .count(),
                1,
                "{text}"
            );
        }
    }

    #[test]
    fn one_point_is_a_picture_too() {
        let picture = Plane::new("t")
            .group([(3.0, 3.0)])
            .hull([(3.0, 3.0)])
            .query((3.0, 3.0));
        assert!(svg((200, 200), |area| picture.draw(area)).is_ok());
    }
}
