//! Pictures of curves: numbers in, SVG text or PNG bytes out. Nothing here reads a file or a clock.
//!
//! A [`Figure`] is data: panels of curves over one x axis, with marks at moments of a run. [`Figure::svg`] lays it out and
//! draws it. [`png()`] renders the SVG with the font in `font/`, which is the only font that a PNG can have.

mod axis;
mod decimate;
mod figure;
mod header;
mod layout;
mod marks;
mod number;
mod panel;
mod png;
mod range;
mod scale;
mod smooth;
mod svg;
mod text;
mod theme;
mod ticks;

pub use decimate::{Point, kept_indices};
pub use figure::{Curve, Figure, Key, Panel, Stroke, XAxis};
pub use layout::Size;
pub use marks::{Mark, Symbol};
pub use number::Quantity;
pub use png::{PngError, png, undrawable};
pub use smooth::smoothed;
pub use text::escaped;
pub use theme::Theme;

/// Text in the first bytes of every file that is made here, by which it is known.
pub const MARKER: &str = "made by taper";
