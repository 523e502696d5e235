//! Text of a picture: how wide it is, and how XML writes it.

/// Advance widths of ASCII from the space on, in thousandths of the font size, as in `font/Inter-Regular.ttf`.
const ADVANCES: [u16; 95] = [
    281, 288, 466, 633, 642, 982, 644, 300, 365, 365, 501, 662, 288, 460, 288, 360, 648, 648, 648,
    648, 648, 648, 648, 648, 648, 648, 288, 302, 662, 662, 662, 511, 966, 690, 654, 730, 722, 601,
    590, 746, 743, 269, 571, 672, 565, 903, 753, 765, 639, 765, 644, 642, 646, 744, 690, 985, 682,
    679, 629, 365, 360, 365, 471, 456, 323, 562, 612, 571, 612, 583, 370, 613, 591, 242, 242, 549,
    242, 876, 591, 600, 612, 612, 376, 528, 327, 591, 562, 818, 546, 562, 552, 426, 333, 426, 662,
];

/// Width of a line of text at a font size, both in pixels. Characters outside ASCII count as wide ones.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let advance = |c: char| match (c as usize).checked_sub(0x20) {
        Some(at) if at < ADVANCES.len() => f64::from(ADVANCES[at]),
        _ if (c as u32) < 0x300 => 650.0,
        _ => 1000.0,
    };
    text.chars().map(advance).sum::<f64>() * size / 1000.0
}

/// The longest start of `text` that fits into `room` pixels, with an ellipsis where something is left out.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept, size) + width("…", size) > room {
            kept.pop();
            break;
        }
    }
    kept.truncate(kept.trim_end().len());
    kept + "…"
}

/// Text as XML and HTML take it, in an element or in a quoted attribute. Characters that XML 1.0 does not know, such as
/// control characters, become U+FFFD.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' | '\r' => safe.push(c),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                safe.push('\u{fffd}')
            }
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_control_characters_are_replaced() {
        assert_eq!(
            escaped("<script a=\"b\">'&'\u{0}\u{1b}é\n"),
            "&lt;script a=&quot;b&quot;&gt;&#39;&amp;&#39;\u{fffd}\u{fffd}é\n"
        );
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis_within_its_room() {
        assert_eq!(fitted("loss", 12.0, 100.0), "loss");
        let long = "learning_rate=6e-4, n_layer=12";
        let short = fitted(long, 12.0, 100.0);
        assert!(short.ends_with('…') && short.len() > 5, "{short}");
        assert!(width(&short, 12.0) <= 100.0);
    }
}
