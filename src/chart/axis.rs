//! Axes of a panel: grid lines, ticks and their labels.

use super::figure::{Panel, XAxis};
use super::layout::{Place, TICK_SIZE, room_for_ticks};
use super::number::unit;
use super::range::Range;
use super::scale::Scale;
use super::svg::{Anchor, Font, Svg, segment};
use super::theme::Colours;
use super::ticks::{Tick, ticks};

/// Ticks of a panel's y axis of `height` pixels.
pub(super) fn y_ticks(panel: &Panel, range: Range, height: f64) -> Vec<Tick> {
    let room = room_for_ticks(height, panel.quantity, false);
    ticks(range.low, range.high, room, panel.quantity, panel.is_log)
}

/// Grid lines with their numbers, left of the plot.
pub(super) fn draw_y(svg: &mut Svg, place: &Place, y: &Scale, colours: &Colours) {
    let plot = place.plot;
    let font = Font {
        size: TICK_SIZE,
        colour: colours.muted,
        is_bold: false,
    };
    for tick in &place.y_ticks {
        let Some(top) = y.pixel(tick.value) else {
            continue;
        };
        let line = segment((plot.left, top), (plot.right(), top));
        svg.path(&line, colours.grid, 1.0, "");
        svg.text(plot.left - 8.0, top + 4.0, Anchor::End, font, &tick.label);
    }
}

/// The line at the bottom with its ticks and, where the place has them, numbers and the axis's title.
pub(super) fn draw_x(svg: &mut Svg, place: &Place, axis: &XAxis, x: &Scale, colours: &Colours) {
    let plot = place.plot;
    let bottom = plot.bottom();
    let mut lines = segment((plot.left, bottom), (plot.right(), bottom));
    let font = Font {
        size: TICK_SIZE,
        colour: colours.muted,
        is_bold: false,
    };
    let room = room_for_ticks(plot.width, axis.quantity, true);
    let found = ticks(x.low, x.high, room, axis.quantity, axis.is_log);
    for tick in found {
        let Some(left) = x.pixel(tick.value) else {
            continue;
        };
        lines += &segment((left, bottom), (left, bottom + 4.0));
        if place.has_x_labels {
            svg.text(left, bottom + 17.0, Anchor::Middle, font, &tick.label);
        }
    }
    svg.path(&lines, colours.axis, 1.0, "");
    if place.has_x_labels {
        let middle = plot.left + plot.width / 2.0;
        svg.text(middle, bottom + 33.0, Anchor::Middle, font, &title(axis, x));
    }
}

/// The axis's title with the unit of its numbers: `step`, `time, minutes`.
fn title(axis: &XAxis, x: &Scale) -> String {
    match unit(axis.quantity, x.high).name {
        "" => axis.title.clone(),
        name => format!("{}, {name}", axis.title),
    }
}
