//! Colours, in a light and a dark theme.

/// Background that a picture is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Theme {
    #[default]
    Light,
    Dark,
}

/// Colours of a theme, as SVG writes them.
pub(super) struct Colours {
    pub background: &'static str,
    /// Titles, and values that are pointed out.
    pub strong: &'static str,
    /// Labels of ticks and other secondary text. At least 4.5:1 on the background.
    pub muted: &'static str,
    pub grid: &'static str,
    pub axis: &'static str,
    /// Okabe and Ito's palette (<https://jfly.uni-koeln.de/color/>). Its light hues are darkened on white, so that every
    /// line has at least 3:1.
    curves: [&'static str; 8],
}

const LIGHT: Colours = Colours {
    background: "#ffffff",
    strong: "#1a1d21",
    muted: "#5b626b",
    grid: "#e8eaed",
    axis: "#aeb4bb",
    curves: [
        "#0072b2", "#d55e00", "#00855f", "#b14c8c", "#a87900", "#2b95cf", "#6b6b6b", "#7a1f4d",
    ],
};

const DARK: Colours = Colours {
    background: "#15181c",
    strong: "#eceff2",
    muted: "#a0a8b1",
    grid: "#262b31",
    axis: "#535b64",
    curves: [
        "#56b4e9", "#f0883e", "#2ec495", "#e695c4", "#e8c547", "#8f9dff", "#b8bec5", "#ff7f7f",
    ],
};

impl Theme {
    /// The name that `--theme` and the page use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(super) fn colours(self) -> &'static Colours {
        match self {
            Self::Light => &LIGHT,
            Self::Dark => &DARK,
        }
    }

    /// Colour of curve number `index`. After eight they begin again.
    pub fn curve(self, index: usize) -> &'static str {
        let curves = &self.colours().curves;
        curves[index % curves.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, WCAG 2.2.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(one: &str, other: &str) -> f64 {
        let (a, b) = (luminance(one) + 0.05, luminance(other) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn text_and_lines_stand_out_from_the_background() {
        for theme in [Theme::Light, Theme::Dark] {
            let colours = theme.colours();
            for text in [colours.strong, colours.muted] {
                assert!(contrast(text, colours.background) >= 4.5, "{text}");
            }
            for line in colours.curves {
                assert!(contrast(line, colours.background) >= 3.0, "{line}");
            }
        }
    }

    #[test]
    fn colours_begin_again_after_the_last() {
        assert_eq!(Theme::Light.curve(8), Theme::Light.curve(0));
    }
}
