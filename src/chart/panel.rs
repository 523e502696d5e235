//! One panel: its title, axes, curves and marks.

use super::axis;
use super::decimate::pixels;
use super::figure::{Curve, Figure, Key, Panel, Stroke};
use super::header::{draw_key, key_width};
use super::layout::Place;
use super::marks;
use super::number::{unit, value_label};
use super::range::Range;
use super::scale::Scale;
use super::svg::{Anchor, Area, Font, Svg, polyline};
use super::text::width;
use super::theme::Theme;

/// More circles than this hide the line that they are on.
const CIRCLES: usize = 48;
const FAINT: f64 = 0.35;

/// Draws panel number `index` of a figure at its place. `id` names the panel in the document.
pub(super) fn draw(
    svg: &mut Svg,
    figure: &Figure,
    index: usize,
    place: &Place,
    x: Range,
    theme: Theme,
    id: &str,
) {
    let colours = theme.colours();
    let (panel, plot) = (&figure.panels[index], place.plot);
    let x = Scale {
        low: x.low,
        high: x.high,
        from: plot.left,
        to: plot.right(),
        is_log: figure.x.is_log,
    };
    let y = Scale {
        low: place.y.low,
        high: place.y.high,
        from: plot.bottom(),
        to: plot.top,
        is_log: panel.is_log,
    };
    title(svg, panel, place, theme);
    axis::draw_y(svg, place, &y, colours);
    marks::draw_lines(svg, &figure.marks, place, &x, theme);
    // Circles and round ends reach a little beyond the points.
    let reach = Area {
        left: plot.left - 5.0,
        width: plot.width + 10.0,
        height: plot.height + 1.0,
        ..plot
    };
    svg.open_clipped(id, reach);
    for faint in [true, false] {
        for curve in &panel.curves {
            draw_curve(svg, curve, (&x, &y), theme, faint);
        }
    }
    svg.close();
    axis::draw_x(svg, place, &figure.x, &x, colours);
    notes(svg, panel, place, (&x, &y), theme);
    if let Some(lane_y) = place.lane_y {
        marks::draw_lane(svg, &figure.marks, place, lane_y, &x, theme);
    }
}

/// The panel's title, with the unit of its numbers, and the names of its strokes at the right.
fn title(svg: &mut Svg, panel: &Panel, place: &Place, theme: Theme) {
    let colours = theme.colours();
    let font = Font {
        size: 13.0,
        colour: colours.strong,
        is_bold: true,
    };
    svg.text(place.left, place.title_y, Anchor::Start, font, &panel.title);
    let mut taken = place.left + width(&panel.title, 13.5) + 6.0;
    let unit = unit(panel.quantity, place.y.high).name;
    if !unit.is_empty() {
        let font = Font {
            size: 12.0,
            colour: colours.muted,
            is_bold: false,
        };
        svg.text(taken, place.title_y, Anchor::Start, font, unit);
        taken += width(unit, 12.0) + 6.0;
    }
    let total: f64 = panel.keys.iter().map(key_width).sum::<f64>()
        + 16.0 * panel.keys.len().saturating_sub(1) as f64;
    let mut left = place.plot.right() - total;
    if left < taken + 10.0 {
        return;
    }
    for key in &panel.keys {
        draw_key(svg, key, left, place.title_y, theme);
        left += key_width(key) + 16.0;
    }
}

/// The faint or the strong part of a curve.
fn draw_curve(svg: &mut Svg, curve: &Curve, (x, y): (&Scale, &Scale), theme: Theme, faint: bool) {
    let colour = theme.curve(curve.colour);
    let line = |points: &[(f64, f64)]| -> String {
        pixels(points, x, y)
            .iter()
            .map(|piece| polyline(piece))
            .collect()
    };
    const ROUND: &str = r#" stroke-linejoin="round" stroke-linecap="round""#;
    match (&curve.stroke, faint) {
        (Stroke::Smoothed(_), true) => {
            let more = format!("{ROUND} stroke-opacity=\"{FAINT}\"");
            svg.path(&line(&curve.points), colour, 1.0, &more);
        }
        (_, true) => {}
        (Stroke::Smoothed(smoothed), false) => svg.path(&line(smoothed), colour, 2.0, ROUND),
        (Stroke::Plain, false) => svg.path(&line(&curve.points), colour, 2.0, ROUND),
        (Stroke::Dashed, false) => {
            let more = r#" stroke-linejoin="round" stroke-dasharray="5 4""#;
            svg.path(&line(&curve.points), colour, 1.6, more);
        }
        (Stroke::Circles, false) => {
            svg.path(&line(&curve.points), colour, 1.6, ROUND);
            let shown = curve.points.len() <= CIRCLES;
            for &(at, value) in curve.points.iter().filter(|_| shown) {
                if let Some(point) = x.pixel(at).zip(y.pixel(value)) {
                    svg.circle(point, 3.0, theme.colours().background, colour);
                }
            }
        }
    }
}

/// Texts inside the plot: points that are pointed out, values beyond the axis, and a plot without anything.
fn notes(svg: &mut Svg, panel: &Panel, place: &Place, (x, y): (&Scale, &Scale), theme: Theme) {
    let (colours, plot) = (theme.colours(), place.plot);
    let muted = Font {
        size: 11.0,
        colour: colours.muted,
        is_bold: false,
    };
    let is_drawn = |curve: &Curve| {
        curve
            .points
            .iter()
            .any(|&(at, value)| x.pixel(at).is_some() && y.pixel(value).is_some())
    };
    if !panel.curves.iter().any(is_drawn) {
        let middle = (plot.left + plot.width / 2.0, plot.top + plot.height / 2.0);
        svg.text(middle.0, middle.1, Anchor::Middle, muted, "no values");
    }
    if let Some(beyond) = place.y.beyond {
        let text = format!("↑ up to {}", value_label(beyond, panel.quantity));
        svg.text_on_lines(
            (plot.right() - 4.0, plot.top + 12.0),
            Anchor::End,
            muted,
            colours.background,
            &text,
        );
    }
    for curve in &panel.curves {
        let Some(((at, value), text)) = &curve.note else {
            continue;
        };
        let Some((left, top)) = x.pixel(*at).zip(y.pixel(*value)) else {
            continue;
        };
        let colour = theme.curve(curve.colour);
        svg.circle((left, top), 4.0, colour, colours.background);
        let font = Font {
            size: 12.0,
            colour,
            is_bold: true,
        };
        let half = width(text, 12.5) / 2.0;
        let middle = left.clamp(
            plot.left + half + 4.0,
            (plot.right() - half - 4.0).max(plot.left + half + 4.0),
        );
        let free = highest(panel, (middle - half, middle + half), (x, y))
            .min(top)
            .max(top - 70.0);
        let baseline = if free - 10.0 > plot.top + 12.0 {
            free - 10.0
        } else {
            top + 24.0
        };
        svg.text_on_lines(
            (middle, baseline),
            Anchor::Middle,
            font,
            colours.background,
            text,
        );
    }
}

/// The highest pixel of a panel's curves between two pixels of x.
fn highest(panel: &Panel, (left, right): (f64, f64), (x, y): (&Scale, &Scale)) -> f64 {
    let points = panel.curves.iter().flat_map(|curve| &curve.points);
    let is_between = |at: &f64| (left..=right).contains(at);
    let tops = points.filter_map(|&(at, value)| {
        x.pixel(at).filter(is_between)?;
        y.pixel(value)
    });
    tops.fold(f64::INFINITY, f64::min)
}

/// Colour of a key.
pub(super) fn key_colour(key: &Key, theme: Theme) -> &'static str {
    key.colour
        .map_or(theme.colours().muted, |colour| theme.curve(colour))
}
