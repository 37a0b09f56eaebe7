//! How a [`LineChart`] is drawn: title, plot, legend, note, from top to bottom.

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::labels::{Label, place_labels};
use super::{LineChart, Range, Series};
use crate::report::chart::axis::Axis;
use crate::report::chart::marks::{Look, draw_line, draw_marker};
use crate::report::chart::{Area, CHARACTER, ChartError, GRID, INK, PALE_INK, PALETTE};
use crate::report::chart::{longest, text_style, titled, write_text};

/// A curve of more points than this has no markers: they would cover it.
const MARKED: usize = 60;

/// The height in pixels of a line of the legend.
const LEGEND_LINE: i32 = 20;

/// The height in pixels of the note.
const NOTE: i32 = 22;

/// Both axes of a chart.
pub(super) struct Axes {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

/// Where the axes lie in an area, in pixels.
struct Plot {
    axes: Axes,
    left: f64,
    width: f64,
    top: f64,
    height: f64,
}

impl Plot {
    /// The pixel of a point. Pixels count downwards, the y axis upwards.
    fn pixel(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let right = self.left + self.axes.x.share(x) * self.width;
        let down = self.top + (1.0 - self.axes.y.share(y)) * self.height;
        (right.round() as i32, down.round() as i32)
    }

    /// The pixels of the points of a curve.
    fn pixels(&self, series: &Series) -> Vec<(i32, i32)> {
        series
            .points
            .iter()
            .map(|&point| self.pixel(point))
            .collect()
    }
}

/// A part of the legend: the numbers of its curves, below a heading if it has one.
struct Group<'a> {
    heading: &'a str,
    curves: Vec<usize>,
}

/// How the legend is laid out.
struct Layout<'a> {
    groups: Vec<Group<'a>>,
    columns: usize,
    column_width: i32,
}

impl Layout<'_> {
    /// Its height in pixels.
    fn height(&self) -> i32 {
        let lines = |group: &Group<'_>| {
            let heading = usize::from(!group.heading.is_empty());
            heading + group.curves.len().div_ceil(self.columns)
        };
        LEGEND_LINE * self.groups.iter().map(lines).sum::<usize>() as i32
    }
}

impl LineChart {
    /// The height in pixels of the whole: that of the chart, of its legend and its note.
    pub(super) fn whole_height(&self) -> u32 {
        let note = if self.note.is_empty() { 0 } else { NOTE };
        self.size.1 + (self.layout().height() + note) as u32
    }

    pub(super) fn draw<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        axes: Axes,
    ) -> Result<(), ChartError> {
        let (chart, below) = area.split_vertically(self.size.1);
        let body = titled(&chart, &self.title)?;
        self.draw_plot(&body, axes)?;
        let layout = self.layout();
        self.draw_legend(&below, &layout)?;
        let style = text_style(15, PALE_INK, HPos::Left, VPos::Top);
        write_text(&below, &self.note, (12, layout.height() + 4), &style)?;
        Ok(())
    }

    /// Which curves the legend names where. Curves without a name are not in it.
    fn layout(&self) -> Layout<'_> {
        let named = (0..self.series.len()).filter(|&at| !self.series[at].name.is_empty());
        let groups = match &self.groups {
            None => vec![Group {
                heading: "",
                curves: named.collect(),
            }],
            Some([full, dashed]) => {
                let (of_dashed, of_full) = named.partition(|&at| self.series[at].dashed);
                let group = |heading, curves| Group { heading, curves };
                vec![group(full, of_full), group(dashed, of_dashed)]
            }
        };
        // A line of the legend has its name from pixel 34 on (`draw_legend`): 46 leave 12 behind
        // it. There is a column at least, however narrow the chart is.
        let names = self.series.iter().map(|series| series.name.as_str());
        let column_width = 46 + CHARACTER * longest(names);
        let columns = ((self.size.0 as i32 - 12) / column_width).max(1) as usize;
        Layout {
            groups: groups
                .into_iter()
                .filter(|group| !group.curves.is_empty())
                .collect(),
            columns,
            column_width,
        }
    }

    /// A line with its marker and its name for each curve, along the lines of each group.
    fn draw_legend<DB: DrawingBackend>(
        &self,
        legend: &Area<DB>,
        layout: &Layout<'_>,
    ) -> Result<(), ChartError> {
        let mut y = LEGEND_LINE / 2;
        for group in &layout.groups {
            if !group.heading.is_empty() {
                let style = text_style(16, PALE_INK, HPos::Left, VPos::Center);
                write_text(legend, group.heading, (12, y), &style)?;
                y += LEGEND_LINE;
            }
            for (place, &at) in group.curves.iter().enumerate() {
                // The line goes from 4 to 28 with the marker in its middle; the name follows.
                let x = 8 + layout.column_width * (place % layout.columns) as i32;
                let line = y + LEGEND_LINE * (place / layout.columns) as i32;
                let look = self.look(at);
                draw_line(legend, &[(x + 4, line), (x + 28, line)], look)?;
                draw_marker(legend, (x + 16, line), look)?;
                let ink = if look.pale { PALE_INK } else { INK };
                let style = text_style(16, ink, HPos::Left, VPos::Center);
                write_text(legend, &self.series[at].name, (x + 34, line), &style)?;
            }
            y += LEGEND_LINE * group.curves.len().div_ceil(layout.columns) as i32;
        }
        Ok(())
    }

    /// What the line and the markers of curve `at` look like.
    fn look(&self, at: usize) -> Look {
        Look {
            at,
            dashed: self.series[at].dashed,
            pale: !self.leads(at),
        }
    }

    /// Whether curve `at` is one of those that lead; all do where none was said to.
    fn leads(&self, at: usize) -> bool {
        let name = &self.series[at].name;
        self.leading.is_empty() || self.leading.contains(name)
    }

    /// The axes with their grid, and all that stands between them.
    fn draw_plot<DB: DrawingBackend>(&self, area: &Area<DB>, axes: Axes) -> Result<(), ChartError> {
        // Pixels: 50 below hold the ticks' labels and the axis' name, 76 on the left hold the
        // longer labels of the y axis and its name. 18 on the right leave room for the last label
        // of the x axis, which is centred on its tick.
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(50)
            .y_label_area_size(76)
            .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
        // Grid lines stand at the labelled ticks (bold) alone; the light ones between are not
        // drawn.
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(PALE_INK)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|value| axes.x.label(*value))
            .y_label_formatter(&|value| axes.y.label(*value))
            .label_style(text_style(16, INK, HPos::Left, VPos::Top))
            .axis_desc_style(text_style(16, INK, HPos::Left, VPos::Top))
            .x_labels(7)
            .y_labels(8)
            .draw()?;
        // The curves are drawn in pixels, not by plotters' series: the markers have one size at any
        // scale, and the legend draws them by the same functions. The plot knows its pixels in the
        // whole figure, but the area draws in pixels of its own, which begin at its corner.
        let (x, y) = chart.plotting_area().get_pixel_range();
        let origin = area.get_base_pixel();
        let plot = Plot {
            axes,
            left: f64::from(x.start - origin.0),
            width: f64::from(x.end - x.start),
            top: f64::from(y.start - origin.1),
            height: f64::from(y.end - y.start),
        };
        self.draw_guides(area, &plot)?;
        for range in &self.bands {
            draw_band(area, &plot, range, self.place_of(&range.name))?;
        }
        for range in &self.errors {
            draw_errors(area, &plot, range, self.place_of(&range.name))?;
        }
        self.draw_curves(area, &plot)?;
        self.draw_labels(area, &plot)
    }

    /// The line before the exact recalls, and the diagonal.
    fn draw_guides<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        plot: &Plot,
    ) -> Result<(), ChartError> {
        let style = PALE_INK.stroke_width(1);
        if let Some(gap) = plot.axes.x.gap() {
            let x = (plot.left + gap * plot.width).round() as i32;
            let ends = [plot.top, plot.top + plot.height].map(|y| (x, y as i32));
            area.draw(&DashedPathElement::new(ends, 2, 4, style))?;
        }
        if self.diagonal {
            let ends = [(0.0, 0.0), (1.0, 1.0)].map(|point| plot.pixel(point));
            area.draw(&DashedPathElement::new(ends, 6, 4, style))?;
        }
        Ok(())
    }

    /// The curves with their markers: the pale ones first, so that they cover none that leads.
    fn draw_curves<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        plot: &Plot,
    ) -> Result<(), ChartError> {
        let (leading, pale): (Vec<usize>, Vec<usize>) =
            (0..self.series.len()).partition(|&at| self.leads(at));
        for at in pale.into_iter().chain(leading) {
            let pixels = plot.pixels(&self.series[at]);
            let look = self.look(at);
            draw_line(area, &pixels, look)?;
            if pixels.len() <= MARKED {
                for &pixel in &pixels {
                    draw_marker(area, pixel, look)?;
                }
            }
        }
        Ok(())
    }

    /// The names of the curves that were said to lead, at their lines.
    fn draw_labels<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        plot: &Plot,
    ) -> Result<(), ChartError> {
        let named =
            (0..self.series.len()).filter(|&at| self.leading.contains(&self.series[at].name));
        let curves: Vec<usize> = named.collect();
        let labels: Vec<Label> = curves
            .iter()
            .map(|&at| Label {
                width: CHARACTER * longest([self.series[at].name.as_str()]),
                line: plot.pixels(&self.series[at]),
            })
            .collect();
        let left = plot.left as i32..(plot.left + plot.width) as i32;
        let top = plot.top as i32..(plot.top + plot.height) as i32;
        for (corner, &at) in place_labels(&labels, left, top).iter().zip(&curves) {
            let color = PALETTE[at % PALETTE.len()];
            let style = text_style(16, color, HPos::Left, VPos::Top);
            write_text(area, &self.series[at].name, *corner, &style)?;
        }
        Ok(())
    }

    /// The number of the curve with this name, on which its colour depends; that of the next curve
    /// if there is none.
    fn place_of(&self, name: &str) -> usize {
        let place = self.series.iter().position(|series| series.name == name);
        place.unwrap_or(self.series.len())
    }
}

/// A band in the colour of curve `at`: along the low ends to the right, back along the high ones.
fn draw_band<DB: DrawingBackend>(
    area: &Area<DB>,
    plot: &Plot,
    range: &Range,
    at: usize,
) -> Result<(), ChartError> {
    let spans = range.spans.iter();
    let low = spans.clone().map(|span| plot.pixel((span.x, span.low)));
    let high = spans.rev().map(|span| plot.pixel((span.x, span.high)));
    let outline: Vec<(i32, i32)> = low.chain(high).collect();
    area.draw(&Polygon::new(outline, PALETTE[at % PALETTE.len()].mix(0.2)))?;
    Ok(())
}

/// Upright bars with an end of 8 pixels above and below, in the colour of curve `at`.
fn draw_errors<DB: DrawingBackend>(
    area: &Area<DB>,
    plot: &Plot,
    range: &Range,
    at: usize,
) -> Result<(), ChartError> {
    let style = PALETTE[at % PALETTE.len()].stroke_width(1);
    for span in &range.spans {
        let (x, low) = plot.pixel((span.x, span.low));
        let (_, high) = plot.pixel((span.x, span.high));
        area.draw(&PathElement::new([(x, low), (x, high)], style))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(x - 4, end), (x + 4, end)], style))?;
        }
    }
    Ok(())
}
