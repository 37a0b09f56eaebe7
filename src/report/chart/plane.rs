//! [`Plane`]: a small picture in two dimensions. With it a notebook shows how an index divides the
//! space.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, CHARACTER, ChartError, INK, PALE_INK, PALETTE, PAPER};
use super::{drawn, extent, longest, text_style, titled, write_text};
use crate::report::figure::Figure;
use crate::report::numbers::integer;

/// A point (x, y) of the plane.
pub type Point = (f64, f64);

/// Points in groups, and the hulls, circles and segments that an index draws around and between
/// them.
///
/// # Examples
/// ```
/// use fashion_knn::report::chart::Plane;
///
/// let leaf = [(0.0, 0.0), (2.0, 0.0), (1.0, 1.5)];
/// let picture = Plane::new("A leaf and a query")
///     .group(leaf)
///     .hull(leaf)
///     .query((1.0, 0.5));
/// assert!(picture.figure()?.svg().contains("A leaf and a query"));
/// # Ok::<(), fashion_knn::report::chart::ChartError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    title: String,
    groups: Vec<Group>,
    hulls: Vec<Vec<Point>>,
    circles: Vec<Ring>,
    segments: Vec<[Point; 2]>,
    query: Option<Point>,
    size: (u32, u32),
}

/// Points of one colour, with the name of their class if they are one.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    name: Option<String>,
    points: Vec<Point>,
}

/// A circle of the picture.
#[derive(Debug, Clone, PartialEq)]
struct Ring {
    centre: Point,
    radius: f64,
}

impl Plane {
    /// An empty picture, of 640 × 430 pixels.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            groups: Vec::new(),
            hulls: Vec::new(),
            circles: Vec::new(),
            segments: Vec::new(),
            query: None,
            size: (640, 430),
        }
    }

    /// Adds points of one colour; each call takes the next colour.
    #[must_use]
    pub fn group(mut self, points: impl IntoIterator<Item = Point>) -> Self {
        self.groups.push(Group {
            name: None,
            points: points.into_iter().collect(),
        });
        self
    }

    /// Adds points as a group with a name. The group's number stands amid its points and, with the
    /// name, in a legend on the right.
    #[must_use]
    pub fn class(
        mut self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = Point>,
    ) -> Self {
        self.groups.push(Group {
            name: Some(name.into()),
            points: points.into_iter().collect(),
        });
        self
    }

    /// Outlines the convex hull of some points: the cell in which an index holds them.
    #[must_use]
    pub fn hull(mut self, points: impl IntoIterator<Item = Point>) -> Self {
        self.hulls.push(convex_hull(points.into_iter().collect()));
        self
    }

    /// Adds a circle.
    #[must_use]
    pub fn circle(mut self, centre: Point, radius: f64) -> Self {
        self.circles.push(Ring { centre, radius });
        self
    }

    /// Joins two points.
    #[must_use]
    pub fn segment(mut self, from: Point, to: Point) -> Self {
        self.segments.push([from, to]);
        self
    }

    /// Marks the query with a cross.
    #[must_use]
    pub fn query(mut self, at: Point) -> Self {
        self.query = Some(at);
        self
    }

    /// Sets the width and the height in pixels.
    #[must_use]
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// The picture as a figure. A unit has one length on both axes. The points fill the figure;
    /// circles may reach beyond it.
    ///
    /// # Errors
    /// If there is no point, one is not finite, or the backend fails.
    pub fn figure(&self) -> Result<Figure, ChartError> {
        let figure = drawn(self.size, |area| self.draw(area))?;
        // Of each group its number, its name and how many points it has.
        let mut lines = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            let points = integer(group.points.len() as u64);
            lines.push(format!(
                "{at} {}: {points}",
                group.name().unwrap_or_default()
            ));
        }
        Ok(figure.described(&self.title, lines.join("\n")))
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Result<(), ChartError> {
        // Only the points and the query are checked: they alone decide the scale. What is drawn
        // around them may lie anywhere, and the border of the figure cuts it off.
        self.check()?;
        let mut body = titled(area, &self.title)?;
        if self.groups.iter().any(|group| group.name.is_some()) {
            // The text begins at pixel 20 (`draw_legend`); the other 24 hold the class's number and
            // a blank before the name.
            let legend_width = 44 + CHARACTER * longest(self.groups.iter().filter_map(Group::name));
            let width = body.dim_in_pixel().0 as i32;
            let legend;
            (body, legend) = body.split_horizontally(width - legend_width);
            self.draw_legend(&legend)?;
        }
        let view = self.view(body.dim_in_pixel());
        // From back to front, since SVG paints in this order: the query is above all else, and the
        // segments are below the points that they join.
        for segment in &self.segments {
            let ends = segment.map(|point| view.place(point));
            body.draw(&PathElement::new(ends, PALE_INK.stroke_width(1)))?;
        }
        for (at, group) in self.groups.iter().enumerate() {
            for &point in &group.points {
                body.draw(&dot(at, view.place(point), 2))?;
            }
        }
        self.draw_numbers(&body, view)?;
        for hull in &self.hulls {
            // The outline comes back to its first corner.
            let closed = hull.iter().chain(hull.first());
            let outline: Vec<_> = closed.map(|&corner| view.place(corner)).collect();
            body.draw(&PathElement::new(outline, PALE_INK.stroke_width(1)))?;
        }
        for ring in &self.circles {
            // The scale is the same on both axes, so a circle stays a circle.
            let radius = (ring.radius * view.scale).round() as i32;
            let centre = view.place(ring.centre);
            body.draw(&Circle::new(centre, radius, PALE_INK.stroke_width(1)))?;
        }
        if let Some(query) = self.query {
            body.draw(&Cross::new(view.place(query), 6, INK.stroke_width(3)))?;
        }
        Ok(())
    }

    /// All points, the query among them.
    fn points(&self) -> impl Iterator<Item = Point> {
        // Only these set the view. A hull is, as a rule, of points among them; circles may reach
        // out of it.
        let of_groups = self.groups.iter().flat_map(|group| &group.points);
        of_groups.chain(&self.query).copied()
    }

    /// Refuses what cannot be drawn.
    fn check(&self) -> Result<(), ChartError> {
        for point in self.points() {
            if !point.0.is_finite() || !point.1.is_finite() {
                return Err(ChartError::Value {
                    title: self.title.clone(),
                    value: format!("{point:?}"),
                });
            }
        }
        if self.points().next().is_none() {
            return Err(ChartError::Empty {
                title: self.title.clone(),
            });
        }
        Ok(())
    }

    /// The colour, the number and the name of each class.
    fn draw_legend<DB: DrawingBackend>(&self, legend: &Area<DB>) -> Result<(), ChartError> {
        let style = text_style(13, INK, HPos::Left, VPos::Center);
        for (at, group) in self.groups.iter().enumerate() {
            if let Some(name) = group.name() {
                // A line has 20 pixels. The colour and the number are those that stand in the
                // picture.
                let y = 12 + 20 * at as i32;
                legend.draw(&dot(at, (10, y), 4))?;
                write_text(legend, &format!("{at} {name}"), (20, y), &style)?;
            }
        }
        Ok(())
    }

    /// The number of each class at the median of its points, which a few stray points do not move.
    fn draw_numbers<DB: DrawingBackend>(
        &self,
        body: &Area<DB>,
        view: View,
    ) -> Result<(), ChartError> {
        let style = text_style(14, INK, HPos::Center, VPos::Center);
        for (at, group) in self.groups.iter().enumerate() {
            if group.name().is_none() || group.points.is_empty() {
                continue;
            }
            // The median of each coordinate by itself: the place need not be a point of the class.
            let x = median(&group.points, |point| point.0);
            let y = median(&group.points, |point| point.1);
            let amid = view.place((x, y));
            // A disc of paper, 9 pixels around, below the number: it could not be read among the
            // points.
            body.draw(&Circle::new(amid, 9, PAPER.filled()))?;
            write_text(body, &at.to_string(), amid, &style)?;
        }
        Ok(())
    }

    /// The view that shows all points in an area of `size` (width, height) pixels, with a margin
    /// of 12 on each side.
    fn view(&self, size: (u32, u32)) -> View {
        let (left, right) = extent(self.points().map(|point| point.0));
        let (bottom, top) = extent(self.points().map(|point| point.1));
        let (width, height) = (f64::from(size.0), f64::from(size.1));
        // Pixels a unit, as the width and as the height allow. The smaller one serves for both
        // axes, or distances in the picture would not be those of the plane. The 24 are both
        // margins. A single point has no extent: the division by the least positive number gives
        // infinity, and the bound of 10⁶ makes a scale of it.
        let scale_of = |pixels: f64, units: f64| (pixels - 24.0) / units.max(f64::MIN_POSITIVE);
        let by_width = scale_of(width, right - left);
        let by_height = scale_of(height, top - bottom);
        View {
            scale: by_width.min(by_height).min(1e6),
            amid: ((left + right) / 2.0, (bottom + top) / 2.0),
            middle: (width / 2.0, height / 2.0),
        }
    }
}

impl Group {
    /// The name, if it is one to be shown.
    fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }
}

/// From points to pixels.
#[derive(Debug, Clone, Copy)]
struct View {
    /// Pixels a unit.
    scale: f64,
    /// The point that is shown in the middle.
    amid: Point,
    /// The middle of the area, in pixels.
    middle: (f64, f64),
}

impl View {
    /// The pixel of a point. Pixels count downwards, the plane's y upwards.
    fn place(self, point: Point) -> (i32, i32) {
        let x = self.middle.0 + (point.0 - self.amid.0) * self.scale;
        let y = self.middle.1 - (point.1 - self.amid.1) * self.scale;
        (x.round() as i32, y.round() as i32)
    }
}

/// A point of group `at`; hollow when the colours are used up.
fn dot(at: usize, place: (i32, i32), radius: i32) -> Circle<(i32, i32), i32> {
    let color = PALETTE[at % PALETTE.len()];
    // Seven colours filled, then the same seven hollow. After 14 groups the hollow ones begin
    // again.
    let style = if at < PALETTE.len() {
        color.filled()
    } else {
        color.stroke_width(1)
    };
    Circle::new(place, radius, style)
}

/// The (upper) median of a coordinate of points, of which there is at least one.
fn median(points: &[Point], coordinate: fn(&Point) -> f64) -> f64 {
    let mut values: Vec<f64> = points.iter().map(coordinate).collect();
    // Selection, not a sort: linear in the number of points.
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The corners of the convex hull, anticlockwise (Andrew's monotone chain, 1979): the lower chain
/// from left to right, then the upper one from right to left.
fn convex_hull(mut points: Vec<Point>) -> Vec<Point> {
    // From left to right, and upwards where x is the same. Equal points stand side by side and
    // become one; the turn at a point that stands twice would be 0.
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    // Each chain begins at the end of the other and leaves its own end out, so no corner stands
    // twice.
    let mut hull = chain(points.iter().copied());
    hull.extend(chain(points.iter().rev().copied()));
    hull
}

/// One chain of the hull, without its last corner: that is the other chain's first.
fn chain(points: impl Iterator<Item = Point>) -> Vec<Point> {
    let mut chain: Vec<Point> = Vec::new();
    for point in points {
        // A corner stays only if the way to the new point turns left there. Otherwise it lies
        // inside the hull, or on the line between its neighbours, and is taken back. Each point is
        // pushed once and popped once at most, so a chain is linear in the points.
        while let [.., before, corner] = chain[..]
            && !turns_left(before, corner, point)
        {
            chain.pop();
        }
        chain.push(point);
    }
    chain.pop();
    chain
}

/// Whether the way from `a` over `b` to `c` turns left at `b`: whether the cross product of b − a
/// and c − a, twice the signed area of the triangle, is positive. A straight way does not turn.
fn turns_left(a: Point, b: Point, c: Point) -> bool {
    (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0) > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let svg = picture.size(224, 134).figure().unwrap().svg();
        // 200 pixels for 10 units: a radius of 5 units is 100 pixels.
        assert!(svg.contains("r=\"100\""), "{svg}");
        let empty = Plane::new("t").figure();
        assert!(matches!(empty, Err(ChartError::Empty { .. })));
    }

    #[test]
    fn classes_are_named_in_a_legend_and_numbered_amid_their_points() {
        let picture = Plane::new("t")
            .class("a", [(0.0, 0.0), (1.0, 1.0), (9.0, 2.0)])
            .class("b", [(5.0, 5.0)]);
        let svg = picture.size(300, 200).figure().unwrap().svg();
        for text in ["0", "1", "0 a", "1 b"] {
            let lines = svg.lines().filter(|line| line.trim() == text);
            assert_eq!(lines.count(), 1, "{text}");
        }
    }

    #[test]
    fn one_point_is_a_picture_too() {
        let picture = Plane::new("t")
            .group([(3.0, 3.0)])
            .hull([(3.0, 3.0)])
            .query((3.0, 3.0));
        assert!(picture.figure().is_ok());
    }
}
