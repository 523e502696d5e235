//! PNG pictures: an SVG of ours, rendered with the font in `font/`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use flate2::Crc;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{self, Options, Tree};

use super::MARKER;

/// Most pixels on a side of a PNG.
const LARGEST: u32 = 16_384;

/// Inter in two weights, cut down to Latin letters; `font/README.md` says how.
static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(include_bytes!("font/Inter-Regular.ttf").to_vec());
    fonts.load_font_data(include_bytes!("font/Inter-SemiBold.ttf").to_vec());
    Arc::new(fonts)
});

/// A picture that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The SVG is not one that the renderer reads.
    #[error("the picture cannot be rendered")]
    Svg(#[from] usvg::Error),
    #[error("a picture of {width} x {height} pixels cannot be rendered: a side has 1 to {LARGEST}")]
    Size { width: u32, height: u32 },
    #[error("the picture cannot be encoded as PNG: {0}")]
    Encoding(String),
}

/// Renders an SVG with a number of pixels for each of its own.
///
/// # Errors
/// [`PngError`] where the picture would be larger than 16,384 pixels on a side, or is no SVG.
pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>, PngError> {
    let options = Options {
        font_family: "Inter".into(),
        fontdb: FONTS.clone(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options)?;
    let pixels = |length: f32| (length * scale).round() as u32;
    let (width, height) = (pixels(tree.size().width()), pixels(tree.size().height()));
    let size = || PngError::Size { width, height };
    if width > LARGEST || height > LARGEST {
        return Err(size());
    }
    let mut pixmap = Pixmap::new(width, height).ok_or_else(size)?;
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut pixmap.as_mut(),
    );
    let encoded = pixmap.encode_png();
    encoded
        .map(marked)
        .map_err(|error| PngError::Encoding(error.to_string()))
}

/// Adds a `tEXt` chunk with [`MARKER`] behind the header of a PNG, which takes 8 bytes of signature and 25 of `IHDR`
/// (<https://www.w3.org/TR/png-3/#11tEXt>).
fn marked(mut bytes: Vec<u8>) -> Vec<u8> {
    const HEADER_BYTES: usize = 33;
    let text = format!("Software\0{MARKER}");
    let chunk = [b"tEXt", text.as_bytes()].concat();
    let mut checksum = Crc::new();
    checksum.update(&chunk);
    let length = (text.len() as u32).to_be_bytes();
    let whole = [&length[..], &chunk, &checksum.sum().to_be_bytes()].concat();
    let at = HEADER_BYTES.min(bytes.len());
    bytes.splice(at..at, whole);
    bytes
}

/// Characters of a text that a PNG cannot have, for its font has no glyph for them.
pub fn undrawable(text: &str) -> BTreeSet<char> {
    let is_drawn = |c: char| matches!(c, '\t' | '\n' | ' '..='~' | '\u{a0}'..='\u{ff}' | '–' | '—' | '‘' | '’' | '“' | '”' | '•' | '…' | '↑' | '↓' | '−');
    text.chars().filter(|&c| !is_drawn(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="#fff"/><text x="2" y="15" font-size="14" font-family="Inter">lr</text></svg>"##;

    #[test]
    fn a_picture_has_the_size_asked_for_and_its_text_is_drawn() {
        let bytes = png(SQUARE, 2.0).unwrap();
        let picture = Pixmap::decode_png(&bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), (80, 40));
        let dark = picture
            .pixels()
            .iter()
            .filter(|pixel| pixel.red() < 100)
            .count();
        assert!((20..800).contains(&dark), "{dark} dark pixels");
    }

    #[test]
    fn a_size_that_no_picture_has_is_refused() {
        assert!(matches!(png(SQUARE, 1e6), Err(PngError::Size { .. })));
        assert!(matches!(png(SQUARE, 0.001), Err(PngError::Size { .. })));
        assert!(matches!(png("<svg", 1.0), Err(PngError::Svg(_))));
    }

    #[test]
    fn characters_without_a_glyph_are_named() {
        let found = undrawable("Größe 6e-4… 学習");
        assert_eq!(found.into_iter().collect::<String>(), "学習");
    }
}
