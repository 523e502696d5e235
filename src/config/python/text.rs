//! Python's strings: their quotes, prefixes and escapes.

use super::Defect;
use super::lexer::Kind;

/// The letters before the quotes of the string that `rest` begins with; `None` if it begins with none.
pub(super) fn prefix(rest: &str) -> Option<&str> {
    let mut start = rest.bytes().take(3);
    let end = start.position(|byte| b"\"'".contains(&byte))?;
    let prefix = rest.get(..end)?;
    let known = [
        "", "r", "u", "b", "br", "rb", "f", "fr", "rf", "t", "tr", "rt",
    ];
    known
        .contains(&prefix.to_ascii_lowercase().as_str())
        .then_some(prefix)
}

/// The string that begins at `start`, and its end.
///
/// # Errors
/// A string without an end, and an escape that Python does not have.
pub(super) fn literal(source: &str, start: usize, prefix: &str) -> Result<(Kind, usize), Defect> {
    let opening = start + prefix.len();
    let rest = &source[opening..];
    let triple = ["\"\"\"", "'''"].into_iter().find(|q| rest.starts_with(q));
    let quotes = triple.unwrap_or(&rest[..1]);
    let body = opening + quotes.len();
    let Some(length) = closing(&source[body..], quotes) else {
        return Err(Defect::new(
            "a string that is never closed",
            opening..opening + quotes.len(),
        ));
    };
    let end = body + length + quotes.len();
    let letters = prefix.to_ascii_lowercase();
    let raw = &source[body..body + length];
    let kind = if letters.contains(['f', 't']) {
        Kind::Other("an f-string")
    } else if letters.contains('b') {
        Kind::Other("bytes")
    } else if letters.contains('r') {
        Kind::Text(raw.into())
    } else {
        Kind::Text(unescaped(raw).ok_or_else(|| {
            Defect::new("a string with an escape that is not read here", start..end)
        })?)
    };
    Ok((kind, end))
}

/// The offset of the quotes that close a string.
fn closing(body: &str, quotes: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &body[at..];
        if rest.starts_with(quotes) {
            return Some(at);
        }
        let mut next = rest.chars();
        at += match next.next()? {
            '\n' if quotes.len() == 1 => return None,
            '\\' => 1 + next.next()?.len_utf8(),
            other => other.len_utf8(),
        };
    }
}

/// The text of a string's body; `None` for `\N{...}` and for a number that is no character.
fn unescaped(body: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => {
                let more = rest
                    .bytes()
                    .take(2)
                    .take_while(|b| (b'0'..=b'7').contains(b));
                let (octal, later) = rest.split_at(more.count());
                let code = u32::from_str_radix(&format!("{escape}{octal}"), 8).ok()?;
                text.push(char::from_u32(code)?);
                rest = later;
                continue;
            }
            'N' => return None,
            _ => {
                match simple(escape) {
                    Some(meant) => text.push_str(meant),
                    // Python keeps an escape that it does not know.
                    None => text.extend(['\\', escape]),
                }
                continue;
            }
        };
        let code = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
        text.push(char::from_u32(code)?);
        rest = &rest[digits..];
    }
    Some(text + rest)
}

fn simple(escape: char) -> Option<&'static str> {
    Some(match escape {
        '\n' => "",
        '\\' => "\\",
        '\'' => "'",
        '"' => "\"",
        'a' => "\u{7}",
        'b' => "\u{8}",
        'f' => "\u{c}",
        'n' => "\n",
        'r' => "\r",
        't' => "\t",
        'v' => "\u{b}",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_those_that_python_reads() {
        for (source, expected) in [
            (r#""a b""#, "a b"),
            (r"'it\'s'", "it's"),
            (r"'\x41\u0042\U00000043\104'", "ABCD"),
            (r"'\d\n'", "\\d\n"),
            (r"r'\d\''", r"\d\'"),
            ("'''two\nlines'''", "two\nlines"),
            ("u'ü'", "ü"),
            ("'joined \\\nline'", "joined line"),
        ] {
            let read = literal(source, 0, prefix(source).unwrap()).unwrap();
            assert_eq!(
                read,
                (Kind::Text(expected.into()), source.len()),
                "{source}"
            );
        }
        for source in [
            "'open",
            "'two\nlines'",
            "'''open'",
            r"'\N{DASH}'",
            r"'\xg0'",
            r"'\ud800'",
            "'\\",
        ] {
            assert!(literal(source, 0, "").is_err(), "{source}");
        }
        for source in ["name", "x['a']", "bf''"] {
            assert_eq!(prefix(source), None);
        }
    }
}
