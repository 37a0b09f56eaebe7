//! The line and the marker of each series, in the plot and in the legend.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Area, ChartError, PALETTE};

/// The line of series `at` through pixels.
pub(super) fn draw_line<DB: DrawingBackend>(
    area: &Area<DB>,
    pixels: &[(i32, i32)],
    at: usize,
    dashed: bool,
) -> Result<(), ChartError> {
    let style = PALETTE[at % PALETTE.len()].stroke_width(2);
    if dashed {
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

/// The marker of series `at`, centred on a pixel: a shape of [`MARKERS`], hollow when all have been
/// used once.
pub(super) fn draw_marker<DB: DrawingBackend>(
    area: &Area<DB>,
    at: usize,
    (x, y): (i32, i32),
) -> Result<(), ChartError> {
    let color = PALETTE[at % PALETTE.len()];
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
