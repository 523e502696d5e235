//! Memory sizes as people type them.

use bytesize::ByteSize;

/// The least number of bytes that may be given without a unit.
const FEWEST_BARE: f64 = 1_048_576.0;

/// A size such as `2.68GiB`, `500MB` or `1073741824`, in bytes. Binary units (`GiB`) count in 1024s,
/// decimal ones (`GB`, `G`) in 1000s. A bare number below 1 MiB is refused: the unit was forgotten. For clap's
/// `value_parser`.
///
/// # Errors
/// A message when it is no size, or one that is not above 0 bytes or does not fit in 64 bits, or lacks its unit.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a size cannot be negative".into());
    }
    let is_bare = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number = text.parse::<f64>().ok().filter(|_| is_bare);
    if number.is_some_and(|number| number > 0.0 && number < FEWEST_BARE) {
        return Err(format!(
            "`{text}` without a unit is {text} bytes; say `{text}GiB`, or `{text}B` if that is meant"
        ));
    }
    let parsed: Result<ByteSize, _> = text.parse();
    match parsed {
        Ok(ByteSize(0)) => Err("expected more than 0 bytes".into()),
        // The parser saturates.
        Ok(ByteSize(u64::MAX)) => Err("more than 64 bits can count".into()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => {
            Err("expected a number and a unit, such as `2.68GiB`, `500MB` or `1048576`".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_usual_spelling() {
        let gib = 1_073_741_824.0;
        let cases = [
            ("2.68GiB", (2.68 * gib) as u64),
            ("11.69 GiB", (11.69 * gib) as u64),
            ("500MB", 500_000_000),
            ("1.5gib", 1_610_612_736),
            ("512 KiB", 524_288),
            ("1073741824", 1 << 30),
            (" 64 MiB ", 64 << 20),
            ("1B", 1),
            ("12B", 12),
            ("1048576", 1 << 20),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_answered_with_what_is_wrong() {
        let cases = [
            ("-2GiB", "negative"),
            ("0", "more than 0"),
            ("0.2B", "more than 0"),
            ("12", "say `12GiB`"),
            ("11.69", "say `11.69GiB`"),
            ("1048575", "1048575B"),
            ("99999999EiB", "64 bits"),
            ("99999999999999999999999B", "64 bits"),
            ("1e30", "such as"),
            ("lots", "such as"),
            ("", "such as"),
            ("NaN", "such as"),
            ("inf", "such as"),
            ("2 GiB free", "such as"),
            ("1.2.3GiB", "such as"),
            ("١GiB", "such as"),
        ];
        for (text, part) in cases {
            let message = parse_bytes(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
