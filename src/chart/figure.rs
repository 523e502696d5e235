//! The data of a picture, and the SVG that it becomes.

use super::MARKER;
use super::decimate::Point;
use super::header::header;
use super::layout::{Layout, Size};
use super::marks::Mark;
use super::number::Quantity;
use super::panel;
use super::range::{x_range, y_range};
use super::svg::{FAMILY, Svg, px};
use super::text::escaped;
use super::theme::Theme;

/// Panels of curves over one x axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub title: String,
    /// One line below the title; may be empty.
    pub subtitle: String,
    pub x: XAxis,
    /// The first is wide and high, the others are small and in a grid.
    pub panels: Vec<Panel>,
    /// Legend of the colours; none where there is one run.
    pub legend: Vec<Key>,
    pub marks: Vec<Mark>,
}

/// The axis that every panel shares.
#[derive(Clone, Debug, PartialEq)]
pub struct XAxis {
    pub title: String,
    pub quantity: Quantity,
    pub is_log: bool,
}

/// Curves of one quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    pub title: String,
    pub quantity: Quantity,
    pub is_log: bool,
    /// Whether a linear axis begins at 0.
    pub is_from_zero: bool,
    pub curves: Vec<Curve>,
    /// Names of the strokes, at the panel's upper right.
    pub keys: Vec<Key>,
}

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Ascending in x.
    pub points: Vec<Point>,
    /// Number of its colour in the theme.
    pub colour: usize,
    pub stroke: Stroke,
    /// A point that is pointed out, with its text.
    pub note: Option<(Point, String)>,
}

/// Look of a curve.
#[derive(Clone, Debug, PartialEq)]
pub enum Stroke {
    Plain,
    Dashed,
    /// A line with a circle at every point, where they are not too many.
    Circles,
    /// The points faint, and these on top of them.
    Smoothed(Vec<Point>),
}

/// An entry of a legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub label: String,
    /// Text in a quieter colour after the label; may be empty.
    pub note: String,
    /// `None` is the colour of text, where curves of several colours are meant.
    pub colour: Option<usize>,
    pub stroke: Stroke,
}

impl Panel {
    /// End of a linear axis below its largest value, and that value; `None` on an axis that shows everything.
    pub fn cut(&self) -> Option<(f64, f64)> {
        let range = y_range(self);
        range.beyond.map(|beyond| (range.high, beyond))
    }
}

impl Figure {
    /// The picture as an SVG document. Equal figures give equal bytes.
    pub fn svg(&self, size: Size, theme: Theme) -> String {
        let colours = theme.colours();
        let mut svg = Svg::default();
        let header = header(&mut svg, self, size.width, theme);
        let x = x_range(self);
        let layout = Layout::new(self, size, header);
        for (index, place) in layout.places.iter().enumerate() {
            let id = format!("taper-{}-{index}", theme.name());
            panel::draw(&mut svg, self, index, place, x, theme, &id);
        }
        let (width, height) = (px(size.width), px(layout.height));
        format!(
            "<!-- {MARKER} -->\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" font-family=\"{FAMILY}\">\n<title>{}</title>\n<desc>{}</desc>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n{}</svg>\n",
            escaped(&self.title),
            escaped(&self.description()),
            colours.background,
            svg.elements
        )
    }

    /// A sentence for readers who do not see the picture.
    fn description(&self) -> String {
        let panels: Vec<&str> = self
            .panels
            .iter()
            .map(|panel| panel.title.as_str())
            .collect();
        let runs: Vec<&str> = self.legend.iter().map(|key| key.label.as_str()).collect();
        let mut text = format!("{} over {}", panels.join(", "), self.x.title);
        if !runs.is_empty() {
            text += &format!("; {}", runs.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::Symbol;
    use super::*;

    fn figure(values: &[f64]) -> Figure {
        let points: Vec<Point> = values
            .iter()
            .enumerate()
            .map(|(step, &value)| (step as f64, value))
            .collect();
        let curve = Curve {
            points: points.clone(),
            colour: 0,
            stroke: Stroke::Smoothed(points.clone()),
            note: Some((points[0], "best".into())),
        };
        let panel = Panel {
            title: "Loss".into(),
            quantity: Quantity::Plain,
            is_log: false,
            is_from_zero: false,
            curves: vec![curve],
            keys: vec![],
        };
        let mark = |x: f64| Mark {
            x,
            symbol: Symbol::Down,
            kind: "memory refused".into(),
            text: "8 x 2".into(),
            colour: 1,
        };
        Figure {
            title: "<script>alert(\"&\")</script>".into(),
            subtitle: String::new(),
            x: XAxis {
                title: "step".into(),
                quantity: Quantity::Steps,
                is_log: false,
            },
            panels: vec![panel; 3],
            legend: vec![Key {
                label: "a<b".into(),
                note: "best val 1.2".into(),
                colour: Some(0),
                stroke: Stroke::Plain,
            }],
            marks: vec![mark(1.0), mark(f64::NAN)],
        }
    }

    const SIZE: Size = Size {
        width: 600.0,
        height: None,
    };

    #[test]
    fn names_cannot_become_markup() {
        let svg = figure(&[3.0, 2.0, 1.0]).svg(SIZE, Theme::Light);
        assert!(!svg.contains("<script"));
        assert!(svg.contains("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;"));
        assert!(svg.contains("a&lt;b"));
    }

    #[test]
    fn values_that_are_no_numbers_leave_no_trace_in_the_picture() {
        for values in [
            [3.0, f64::NAN, 1.0],
            [f64::INFINITY, 2.0, f64::NEG_INFINITY],
            [f64::NAN; 3],
            [1e300, -1e300, 0.0],
        ] {
            for is_log in [false, true] {
                let mut figure = figure(&values);
                figure.x.is_log = is_log;
                figure.panels[0].is_log = is_log;
                let svg = figure.svg(SIZE, Theme::Dark);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(super::super::png(&svg, 1.0).is_ok());
            }
        }
        assert!(
            figure(&[f64::NAN; 3])
                .svg(SIZE, Theme::Light)
                .contains(">no values<")
        );
    }

    #[test]
    fn a_long_run_makes_a_small_file() {
        let noise = |i: i64| (i * 7919 % 1_000) as f64 / 1e4;
        let values: Vec<f64> = (0..200_000).map(|i| 3.0 + noise(i)).collect();
        let mut figure = figure(&values);
        figure.panels.truncate(1);
        let size = Size {
            width: 1_200.0,
            height: None,
        };
        let svg = figure.svg(size, Theme::Light);
        assert!(svg.len() < 120_000, "{} bytes", svg.len());
    }

    #[test]
    fn a_picture_fits_the_size_asked_for() {
        for (width, height) in [(320.0, 240.0), (1_200.0, 800.0), (3_000.0, 500.0)] {
            let svg = figure(&[3.0, 2.0, 1.0]).svg(
                Size {
                    width,
                    height: Some(height),
                },
                Theme::Light,
            );
            assert!(svg.contains(&format!(r#"viewBox="0 0 {width} {height}""#)));
        }
        let small = Size {
            width: 320.0,
            height: Some(240.0),
        };
        let svg = figure(&[3.0, 2.0, 1.0]).svg(small, Theme::Light);
        assert!(super::super::png(&svg, 1.0).is_ok());
    }
}
