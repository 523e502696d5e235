//! A writer of SVG: shapes and text as elements, coordinates rounded to a tenth of a pixel.

use super::text::escaped;

/// Font families, best first. A PNG has the first, a browser whichever it has.
pub(super) const FAMILY: &str =
    "Inter, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/// Horizontal place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Look of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    pub size: f64,
    pub colour: &'static str,
    pub is_bold: bool,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// The elements of a picture so far.
#[derive(Default)]
pub(super) struct Svg {
    pub elements: String,
}

impl Svg {
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, font: Font, text: &str) {
        self.text_with(x, y, anchor, font, "", text);
    }

    /// Text with an outline in the colour of the background, so that it can be read on lines.
    pub fn text_on_lines(
        &mut self,
        at: (f64, f64),
        anchor: Anchor,
        font: Font,
        background: &str,
        text: &str,
    ) {
        let outline = format!(
            r#" paint-order="stroke" stroke="{background}" stroke-width="4" stroke-linejoin="round""#
        );
        self.text_with(at.0, at.1, anchor, font, &outline, text);
    }

    fn text_with(&mut self, x: f64, y: f64, anchor: Anchor, font: Font, more: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let weight = if font.is_bold {
            r#" font-weight="600""#
        } else {
            ""
        };
        self.elements += &format!(
            "<text x=\"{}\" y=\"{}\"{anchor} font-size=\"{}\"{weight} fill=\"{}\"{more}>{}</text>\n",
            px(x),
            px(y),
            px(font.size),
            font.colour,
            escaped(text)
        );
    }

    /// A path without fill. `more` has attributes, each with a space before it.
    pub fn path(&mut self, data: &str, colour: &str, width: f64, more: &str) {
        if !data.is_empty() {
            self.elements += &format!(
                "<path d=\"{data}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\"{more}/>\n",
                px(width)
            );
        }
    }

    /// A closed shape.
    pub fn shape(&mut self, data: &str, fill: &str, more: &str) {
        self.elements += &format!("<path d=\"{data}\" fill=\"{fill}\"{more}/>\n");
    }

    pub fn circle(&mut self, at: (f64, f64), radius: f64, fill: &str, stroke: &str) {
        self.elements += &format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"1.5\"/>\n",
            px(at.0),
            px(at.1),
            px(radius)
        );
    }

    /// Begins a group that is only seen inside `area`. Ids are unique within a document where `id` is.
    pub fn open_clipped(&mut self, id: &str, area: Area) {
        self.elements += &format!(
            "<clipPath id=\"{id}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n<g clip-path=\"url(#{id})\">\n",
            px(area.left),
            px(area.top),
            px(area.width),
            px(area.height)
        );
    }

    pub fn close(&mut self) {
        self.elements += "</g>\n";
    }
}

/// A straight line as path data.
pub(super) fn segment(from: (f64, f64), to: (f64, f64)) -> String {
    format!("M{} {}L{} {}", px(from.0), px(from.1), px(to.0), px(to.1))
}

/// Lines through points as path data, relative after the first point, which takes fewer bytes. A single point becomes a
/// dot where the line has round caps.
pub(super) fn polyline(points: &[(f64, f64)]) -> String {
    let tenths = |value: f64| (value.clamp(-1e6, 1e6) * 10.0).round() as i64;
    let mut data = String::new();
    let mut last = (0, 0);
    for (index, &(x, y)) in points.iter().enumerate() {
        let here = (tenths(x), tenths(y));
        if index == 0 {
            data += &format!("M{} {}", of_tenths(here.0), of_tenths(here.1));
        } else if here != last || points.len() == 2 {
            let dy = of_tenths(here.1 - last.1);
            let between = if dy.starts_with('-') { "" } else { " " };
            data += &format!("l{}{between}{dy}", of_tenths(here.0 - last.0));
        }
        last = here;
    }
    if points.len() == 1 {
        data += "h0";
    }
    data
}

/// A coordinate in tenths of a pixel, without idle zeros: `12`, `12.5`, `-.5`.
fn of_tenths(tenths: i64) -> String {
    let sign = if tenths < 0 { "-" } else { "" };
    let (whole, rest) = (tenths.abs() / 10, tenths.abs() % 10);
    match (whole, rest) {
        (whole, 0) => format!("{sign}{whole}"),
        (0, rest) => format!("{sign}.{rest}"),
        (whole, rest) => format!("{sign}{whole}.{rest}"),
    }
}

/// A coordinate or length. Never NaN or infinite, which SVG does not know.
pub(super) fn px(value: f64) -> String {
    if value.is_nan() {
        return "0".into();
    }
    of_tenths((value.clamp(-1e6, 1e6) * 10.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_have_at_most_one_decimal_and_are_always_numbers() {
        for (value, text) in [
            (12.0, "12"),
            (12.34, "12.3"),
            (-0.5, "-.5"),
            (-0.04, "0"),
            (f64::NAN, "0"),
            (f64::INFINITY, "1000000"),
        ] {
            assert_eq!(px(value), text);
        }
    }

    #[test]
    fn a_polyline_is_relative_and_leaves_out_what_does_not_move() {
        assert_eq!(
            polyline(&[(1.0, 2.0), (1.01, 2.01), (2.5, 1.0), (3.5, 1.25)]),
            "M1 2l1.5-1l1 .3"
        );
        assert_eq!(polyline(&[(1.0, 2.0)]), "M1 2h0");
        assert_eq!(polyline(&[]), "");
    }
}
