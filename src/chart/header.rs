//! The top of a picture: title, subtitle, the legend of the runs and that of the marks.

use super::figure::{Figure, Key, Stroke};
use super::layout::MARGIN;
use super::marks;
use super::panel::key_colour;
use super::svg::{Anchor, Font, Svg, segment};
use super::text::{fitted, width};
use super::theme::Theme;

const KEY_SIZE: f64 = 12.0;
/// Length of a legend's line, with the space after it.
const SAMPLE: f64 = 28.0;
const ROW: f64 = 20.0;

/// Draws the header of a picture of `full` pixels' width and returns where it ends.
pub(super) fn header(svg: &mut Svg, figure: &Figure, full: f64, theme: Theme) -> f64 {
    let colours = theme.colours();
    let room = full - 2.0 * MARGIN;
    let has_title = !figure.title.is_empty();
    let mut y = if has_title { MARGIN + 18.0 } else { 0.0 };
    let title = Font {
        size: 20.0,
        colour: colours.strong,
        is_bold: true,
    };
    svg.text(
        MARGIN,
        y,
        Anchor::Start,
        title,
        &fitted(&figure.title, 20.8, room),
    );
    if !figure.subtitle.is_empty() {
        y += 22.0;
        let font = Font {
            size: 13.0,
            colour: colours.muted,
            is_bold: false,
        };
        svg.text(
            MARGIN,
            y,
            Anchor::Start,
            font,
            &fitted(&figure.subtitle, 13.0, room),
        );
    }
    y += if has_title { 8.0 } else { 0.0 };
    if !figure.legend.is_empty() {
        y = legend(svg, &figure.legend, y + 18.0, room, theme);
    }
    if !figure.marks.is_empty() {
        y = marks::legend(svg, &figure.marks, y + 18.0, room, theme);
    }
    y + 18.0
}

/// Entries in columns of equal width. Returns the last baseline.
fn legend(svg: &mut Svg, keys: &[Key], top: f64, room: f64, theme: Theme) -> f64 {
    let widest = keys.iter().map(key_width).fold(0.0, f64::max).min(room);
    let columns = (((room + 28.0) / (widest + 28.0)) as usize).clamp(1, keys.len());
    let mut y = top;
    for (index, key) in keys.iter().enumerate() {
        let column = index % columns;
        if index > 0 && column == 0 {
            y += ROW;
        }
        let key = Key {
            label: fitted(&key.label, KEY_SIZE, room - SAMPLE),
            ..key.clone()
        };
        draw_key(
            svg,
            &key,
            MARGIN + column as f64 * (widest + 28.0),
            y,
            theme,
        );
    }
    y
}

/// Width of a key in pixels.
pub(super) fn key_width(key: &Key) -> f64 {
    let note = if key.note.is_empty() {
        0.0
    } else {
        8.0 + width(&key.note, KEY_SIZE)
    };
    SAMPLE + width(&key.label, KEY_SIZE) + note
}

/// A sample of the stroke, the label and the note.
pub(super) fn draw_key(svg: &mut Svg, key: &Key, left: f64, y: f64, theme: Theme) {
    let colours = theme.colours();
    let colour = key_colour(key, theme);
    let middle = y - 4.0;
    let line = segment((left, middle), (left + 20.0, middle));
    match &key.stroke {
        Stroke::Plain => svg.path(&line, colour, 2.5, r#" stroke-linecap="round""#),
        Stroke::Dashed => svg.path(&line, colour, 1.6, r#" stroke-dasharray="5 4""#),
        Stroke::Circles => {
            svg.path(&line, colour, 1.6, "");
            svg.circle((left + 10.0, middle), 3.0, colours.background, colour);
        }
        Stroke::Smoothed(_) => {
            svg.path(&line, colour, 6.0, r#" stroke-opacity="0.3""#);
            svg.path(&line, colour, 2.0, "");
        }
    }
    let font = Font {
        size: KEY_SIZE,
        colour: colours.strong,
        is_bold: false,
    };
    svg.text(left + SAMPLE, y, Anchor::Start, font, &key.label);
    if !key.note.is_empty() {
        let font = Font {
            colour: colours.muted,
            ..font
        };
        svg.text(
            left + SAMPLE + width(&key.label, KEY_SIZE) + 8.0,
            y,
            Anchor::Start,
            font,
            &key.note,
        );
    }
}
