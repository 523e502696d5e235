//! Marks at moments of a run: a symbol above the first panel, and a thin line through all of them.

use super::layout::{MARGIN, Place};
use super::scale::Scale;
use super::svg::{Anchor, Font, Svg, px, segment};
use super::text::width;
use super::theme::Theme;

/// Marks of one kind that are nearer than this, in pixels, become one.
const NEAR: f64 = 14.0;
const RADIUS: f64 = 4.5;
const SIZE: f64 = 11.0;

/// Something that happened at a moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub x: f64,
    pub symbol: Symbol,
    /// Kind of event, the same for every mark of a symbol: `memory refused`.
    pub kind: String,
    /// Event at this mark: `8 x 2 from here on`.
    pub text: String,
    /// Number of the colour in the theme.
    pub colour: usize,
}

/// Shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbol {
    Down,
    Up,
    Diamond,
    Cross,
    Square,
    Right,
}

/// Marks of one kind at about one place.
struct Cluster<'a> {
    first: &'a Mark,
    left: f64,
    right: f64,
    count: usize,
}

impl Cluster<'_> {
    fn text(&self) -> String {
        match self.count {
            1 => self.first.text.clone(),
            count => format!("{count} × {}", self.first.kind),
        }
    }
}

/// Thin lines at every mark.
pub(super) fn draw_lines(svg: &mut Svg, marks: &[Mark], place: &Place, x: &Scale, theme: Theme) {
    let plot = place.plot;
    let mut drawn: Vec<(usize, i64)> = Vec::new();
    for mark in marks {
        let Some(left) = x.pixel(mark.x) else {
            continue;
        };
        let column = (mark.colour, left.round() as i64);
        if !drawn.contains(&column) && drawn.len() < 400 {
            drawn.push(column);
            let line = segment((left, plot.top), (left, plot.bottom()));
            svg.path(
                &line,
                theme.curve(mark.colour),
                1.0,
                r#" stroke-dasharray="2 3" stroke-opacity="0.8""#,
            );
        }
    }
}

/// Symbols above a plot, each with its text where there is room for it.
pub(super) fn draw_lane(
    svg: &mut Svg,
    marks: &[Mark],
    place: &Place,
    y: f64,
    x: &Scale,
    theme: Theme,
) {
    let clusters = clusters(marks, x);
    let font = Font {
        size: SIZE,
        colour: theme.colours().muted,
        is_bold: false,
    };
    let mut taken = place.plot.left - RADIUS;
    for (index, cluster) in clusters.iter().enumerate() {
        let middle = (cluster.left + cluster.right) / 2.0;
        draw_symbol(
            svg,
            cluster.first.symbol,
            (middle, y),
            theme.curve(cluster.first.colour),
        );
        let text = cluster.text();
        let room = width(&text, SIZE) * 1.04;
        let next = clusters
            .get(index + 1)
            .map_or(place.plot.right() + RADIUS, |next| {
                (next.left + next.right) / 2.0 - RADIUS - 4.0
            });
        let (right, left) = (middle + RADIUS + 4.0, middle - RADIUS - 4.0);
        if right + room <= next {
            svg.text(right, y + 4.0, Anchor::Start, font, &text);
            taken = right + room;
        } else if left - room > taken + 6.0 {
            svg.text(left, y + 4.0, Anchor::End, font, &text);
            taken = right;
        } else {
            taken = right;
        }
    }
}

/// Draws the meaning of every symbol and its count. Returns the baseline.
pub(super) fn legend(svg: &mut Svg, marks: &[Mark], top: f64, room: f64, theme: Theme) -> f64 {
    let mut kinds: Vec<(Symbol, &str, Option<usize>, usize)> = Vec::new();
    for mark in marks {
        match kinds
            .iter_mut()
            .find(|kind| kind.0 == mark.symbol && kind.1 == mark.kind)
        {
            Some(kind) => {
                kind.3 += 1;
                kind.2 = kind.2.filter(|&colour| colour == mark.colour);
            }
            None => kinds.push((mark.symbol, &mark.kind, Some(mark.colour), 1)),
        }
    }
    let colours = theme.colours();
    let font = Font {
        size: 12.0,
        colour: colours.muted,
        is_bold: false,
    };
    let (mut left, mut y) = (MARGIN, top);
    for (symbol, kind, colour, count) in kinds {
        let text = if count == 1 {
            kind.to_owned()
        } else {
            format!("{kind} ({count})")
        };
        let needed = 28.0 + width(&text, 12.0);
        if left > MARGIN && left + needed > MARGIN + room {
            (left, y) = (MARGIN, y + 20.0);
        }
        let colour = colour.map_or(colours.muted, |colour| theme.curve(colour));
        draw_symbol(svg, symbol, (left + 10.0, y - 4.0), colour);
        svg.text(left + 28.0, y, Anchor::Start, font, &text);
        left += needed + 20.0;
    }
    y
}

fn clusters<'a>(marks: &'a [Mark], x: &Scale) -> Vec<Cluster<'a>> {
    let mut placed: Vec<(f64, &Mark)> = marks
        .iter()
        .filter_map(|mark| Some((x.pixel(mark.x)?, mark)))
        .collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut clusters: Vec<Cluster> = Vec::new();
    for (at, mark) in placed {
        let is_same = |cluster: &&mut Cluster| {
            let first = cluster.first;
            first.symbol == mark.symbol
                && first.colour == mark.colour
                && first.kind == mark.kind
                && at - cluster.right < NEAR
        };
        match clusters.iter_mut().rev().find(is_same) {
            Some(cluster) => {
                cluster.right = at;
                cluster.count += 1;
            }
            None => clusters.push(Cluster {
                first: mark,
                left: at,
                right: at,
                count: 1,
            }),
        }
    }
    clusters.sort_by(|a, b| (a.left + a.right).total_cmp(&(b.left + b.right)));
    clusters
}

fn draw_symbol(svg: &mut Svg, symbol: Symbol, (x, y): (f64, f64), colour: &str) {
    let r = RADIUS;
    let polygon = |points: [(f64, f64); 4]| {
        let corners: Vec<String> = points
            .iter()
            .map(|(dx, dy)| format!("{} {}", px(x + dx * r), px(y + dy * r)))
            .collect();
        format!("M{}Z", corners.join("L"))
    };
    match symbol {
        Symbol::Down => svg.shape(
            &polygon([(-1.0, -0.8), (1.0, -0.8), (0.0, 0.9), (0.0, 0.9)]),
            colour,
            "",
        ),
        Symbol::Up => svg.shape(
            &polygon([(-1.0, 0.8), (1.0, 0.8), (0.0, -0.9), (0.0, -0.9)]),
            colour,
            "",
        ),
        Symbol::Right => svg.shape(
            &polygon([(-0.7, -1.0), (-0.7, 1.0), (1.0, 0.0), (1.0, 0.0)]),
            colour,
            "",
        ),
        Symbol::Diamond => svg.shape(
            &polygon([(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]),
            colour,
            "",
        ),
        Symbol::Square => svg.shape(
            &polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
            colour,
            "",
        ),
        Symbol::Cross => {
            let s = 0.75 * r;
            let lines =
                segment((x - s, y - s), (x + s, y + s)) + &segment((x - s, y + s), (x + s, y - s));
            svg.path(&lines, colour, 2.0, r#" stroke-linecap="round""#);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(x: f64, symbol: Symbol) -> Mark {
        Mark {
            x,
            symbol,
            kind: "update skipped".into(),
            text: format!("skipped at {x}"),
            colour: 0,
        }
    }

    #[test]
    fn marks_that_are_near_become_one_with_their_number() {
        let scale = Scale {
            low: 0.0,
            high: 100.0,
            from: 0.0,
            to: 100.0,
            is_log: false,
        };
        let marks = [
            mark(80.0, Symbol::Cross),
            mark(10.0, Symbol::Cross),
            mark(12.0, Symbol::Down),
            mark(20.0, Symbol::Cross),
            mark(f64::NAN, Symbol::Cross),
        ];
        let texts: Vec<String> = clusters(&marks, &scale).iter().map(Cluster::text).collect();
        assert_eq!(
            texts,
            ["skipped at 12", "2 × update skipped", "skipped at 80"]
        );
    }
}
