//! The line and the marker of each series, in the plot and in the legend.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Area, ChartError, PALETTE};

/// What the line and the markers of a series look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// The number of the series, which decides the colour and the marker.
    pub(super) at: usize,
    /// Whether the line is dashed.
    pub(super) dashed: bool,
    /// Whether the series stands back behind others.
    pub(super) pale: bool,
}

impl Look {
    fn color(self) -> RGBAColor {
        let color = PALETTE[self.at % PALETTE.len()];
        color.mix(if self.pale { 0.25 } else { 1.0 })
    }
}

/// The line of a series through pixels.
pub(super) fn draw_line<DB: DrawingBackend>(
    area: &Area<DB>,
    pixels: &[(i32, i32)],
    look: Look,
) -> Result<(), ChartError> {
    let style = look.color().stroke_width(if look.pale { 1 } else { 2 });
    if look.dashed {
        // 6 pixels of dash and 4 of gap, as in the interactive charts.
        area.draw(&DashedPathElement::new(pixels.iter().copied(), 6, 4, style))?;
    } else {
        area.draw(&PathElement::new(pixels, style))?;
    }
    Ok(())
}

/// The outlines of the markers, corners within about 5 pixels of the centre: circle, square,
/// triangle up, diamond, triangle down, cross, hourglass, bow tie. The circle has no corners, and
/// `draw_marker` draws it. The interactive charts have the same in the same order (`SHAPES`).
const MARKERS: [&[(i32, i32)]; 8] = [
    &[],
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, -5), (5, 4), (-5, 4)],
    &[(0, -6), (5, 0), (0, 6), (-5, 0)],
    &[(0, 5), (5, -4), (-5, -4)],
    &[
        (-2, -5),
        (2, -5),
        (2, -2),
        (5, -2),
        (5, 2),
        (2, 2),
        (2, 5),
        (-2, 5),
        (-2, 2),
        (-5, 2),
        (-5, -2),
        (-2, -2),
    ],
    &[(-5, -5), (5, -5), (-5, 5), (5, 5)],
    &[(-5, -5), (-5, 5), (5, -5), (5, 5)],
];

/// The marker of a series, centred on a pixel: a shape of [`MARKERS`], hollow when all have been
/// used once.
pub(super) fn draw_marker<DB: DrawingBackend>(
    area: &Area<DB>,
    (x, y): (i32, i32),
    look: Look,
) -> Result<(), ChartError> {
    let (at, color) = (look.at, look.color());
    // 8 markers and 7 colours have no common divisor, so a pair of both comes back only after 56
    // series; hollow markers help those who do not see the colours.
    let hollow = at / MARKERS.len() % 2 == 1;
    let corners = MARKERS[at % MARKERS.len()];
    let Some(first) = corners.first() else {
        let style = if hollow {
            color.stroke_width(2)
        } else {
            color.filled()
        };
        area.draw(&Circle::new((x, y), 4, style))?;
        return Ok(());
    };
    // The outline comes back to its first corner: a path, which draws the hollow ones, is not
    // closed by itself.
    let closed = corners.iter().chain([first]);
    let outline: Vec<_> = closed.map(|corner| (x + corner.0, y + corner.1)).collect();
    if hollow {
        area.draw(&PathElement::new(outline, color.stroke_width(2)))?;
    } else {
        area.draw(&Polygon::new(outline, color.filled()))?;
    }
    Ok(())
}
