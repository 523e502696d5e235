//! A run as one page of HTML that needs nothing else: no network, no file beside it.
//!
//! With scripts, uPlot draws curves that can be hovered and zoomed. Without, and on paper, the page shows the pictures of
//! `taper plot`. Its policy forbids every request, and every script but its own two, which it names by their hashes.

mod config;
mod course;
mod data;
mod essentials;
mod html;
mod launch;
mod policy;
mod samples;

use std::sync::LazyLock;

use crate::chart::{Figure, MARKER, Size, Theme};
use crate::curves::{Drawing, figure};
use crate::runs::Run;
use html::escaped;

pub use course::CheckpointRow;
pub use samples::Samples;

const UPLOT: &str = include_str!("assets/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("assets/uPlot.min.css");
const SCRIPT: &str = include_str!("assets/page.js");
const STYLE: &str = include_str!("assets/page.css");

/// Width of the pictures for readers without scripts, in pixels.
const PICTURE_WIDTH: f64 = 1_112.0;

static POLICY: LazyLock<String> = LazyLock::new(|| policy::of_scripts(&[UPLOT, SCRIPT]));

/// A run, with everything about it that its metrics do not hold.
pub struct Page<'a> {
    pub run: &'a Run,
    pub checkpoints: Vec<CheckpointRow>,
    pub samples: Samples,
}

impl Page<'_> {
    /// The page. Equal runs give equal bytes.
    pub fn html(&self) -> String {
        let run = self.run;
        let figure = figure(std::slice::from_ref(run), &Drawing::default());
        let sections = [
            essentials::tiles(run),
            curves(run, &figure),
            samples::section(&self.samples),
            config::differences(run),
            launch::memory(run),
            launch::choices(run),
            course::events(run),
            course::checkpoints(run, &self.checkpoints),
            config::all(run),
        ];
        format!(
            "<!doctype html>\n<!-- {MARKER} -->\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"generator\" content=\"taper {}\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n\
             <style>\n{UPLOT_STYLE}\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#curves\">Skip to the curves</a>\n{}<main>\n{}</main>\n{}\
             <script type=\"application/json\" id=\"data\">{}</script>\n\
             <script>{UPLOT}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            *POLICY,
            env!("CARGO_PKG_VERSION"),
            escaped(&run.name),
            essentials::header(run),
            sections.concat(),
            essentials::footer(),
            data::json(run, &figure),
        )
    }
}

/// The place that the script fills, its controls, pictures in case it does not run, and the evaluations as a table.
fn curves(run: &Run, figure: &Figure) -> String {
    let size = Size {
        width: PICTURE_WIDTH,
        height: None,
    };
    let untitled = Figure {
        title: String::new(),
        subtitle: String::new(),
        ..figure.clone()
    };
    let pictures = [Theme::Light, Theme::Dark].map(|theme| {
        let svg = untitled.svg(size, theme);
        format!("<div class=\"static {}\">\n{svg}</div>\n", theme.name())
    });
    let axes = data::axes(run)
        .into_iter()
        .enumerate()
        .map(|(index, axis)| {
            let checked = if index == 0 { " checked" } else { "" };
            format!(
                "<label><input type=\"radio\" name=\"x\" value=\"{0}\"{checked}>{1}</label>",
                axis.id, axis.label
            )
        });
    let axes: String = axes.collect();
    let smooth = if data::is_smoothed(figure) {
        "<label class=\"check\"><input type=\"checkbox\" id=\"smooth\" checked>Smoothed</label>\n\
         <label class=\"check\"><input type=\"checkbox\" id=\"raw\" checked>As recorded</label>\n"
    } else {
        ""
    };
    let legend = marks_legend(figure);
    format!(
        "<section id=\"curves\" aria-labelledby=\"curves-title\">\n<h2 id=\"curves-title\">Curves</h2>\n\
         <div class=\"controls\" id=\"controls\" hidden>\n\
         <fieldset><legend>Horizontal axis</legend>{axes}</fieldset>\n{smooth}\
         <label class=\"check\"><input type=\"checkbox\" id=\"log\">Logarithmic loss</label>\n\
         <button type=\"button\" id=\"reset\" disabled>Reset zoom</button>\n\
         <p class=\"hint\">Drag to zoom, double-click to reset.</p>\n</div>\n{legend}\
         <div id=\"plots\" class=\"plots\"></div>\n{}{}</section>\n",
        pictures.concat(),
        course::evaluations(run)
    )
}

/// The meaning of the marks, and of the smoothed line.
fn marks_legend(figure: &Figure) -> String {
    let notes = figure.panels.iter().flat_map(|panel| &panel.keys);
    let mut notes = notes
        .map(|key| key.note.as_str())
        .filter(|note| !note.is_empty());
    let smoothed = notes.next().map(|note| format!("Smoothed: {note}. "));
    let marks = if figure.marks.is_empty() {
        ""
    } else {
        "Dotted lines are events; point at one to read it, or see the list below."
    };
    let text = smoothed.unwrap_or_default() + marks;
    if text.is_empty() {
        return text;
    }
    format!("<p class=\"note\">{}</p>\n", escaped(text.trim_end()))
}
