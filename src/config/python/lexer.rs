//! Python's words, as far as a file of assignments has them, in logical lines.
//!
//! Source: "Lexical analysis" of the Python language reference.

use std::ops::Range;

use super::Defect;
use super::text;

/// A word of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub span: Range<usize>,
    /// Brackets that are open around it.
    pub depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name,
    Int(i128),
    Float(f64),
    Text(String),
    /// A literal that holds no plain value: an f-string, bytes, an imaginary number.
    Other(&'static str),
    /// An operator or a bracket.
    Op,
}

/// A logical line: a statement, or the header of a compound one.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub tokens: Vec<Token>,
    /// Whether it belongs to the statement above: it is indented, or behind a `;`.
    pub is_inner: bool,
}

/// Operators of more than one character, the longest first.
const OPERATORS: [&str; 22] = [
    "**=", "//=", ">>=", "<<=", "...", "**", "//", "==", "!=", "<=", ">=", "->", ":=", "+=", "-=",
    "*=", "/=", "%=", "|=", "&=", "^=", "@=",
];
const SINGLE: &str = "+-*/%()[]{}<>=.,:;@&|^~";

/// The logical lines of a source.
///
/// # Errors
/// The first place that is no Python.
pub(super) fn lines(source: &str) -> Result<Vec<Line>, Defect> {
    let mut lexer = Lexer {
        source,
        at: 0,
        open: Vec::new(),
        line: Line::default(),
        lines: Vec::new(),
    };
    while lexer.at < source.len() {
        lexer.step()?;
    }
    if let Some(&opened) = lexer.open.last() {
        return Err(Defect::new(
            "a bracket that is never closed",
            opened..opened + 1,
        ));
    }
    lexer.end_line();
    Ok(lexer.lines)
}

struct Lexer<'a> {
    source: &'a str,
    /// Offset of what is not read yet.
    at: usize,
    /// Offsets of the brackets that are open.
    open: Vec<usize>,
    line: Line,
    lines: Vec<Line>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    /// Reads one word, or what is between two.
    fn step(&mut self) -> Result<(), Defect> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(());
        };
        if let Some(prefix) = text::prefix(rest) {
            let (token, end) = text::literal(self.source, self.at, prefix)?;
            self.push(token, end);
            return Ok(());
        }
        match first {
            '\n' => {
                if self.open.is_empty() {
                    self.end_line();
                }
                self.at += 1;
            }
            ' ' | '\t' | '\r' | '\u{c}' => self.at += 1,
            '#' => self.at += rest.find('\n').unwrap_or(rest.len()),
            '\\' => {
                let skipped = ["\\\n", "\\\r\n"].into_iter();
                let joined = skipped.clone().find(|joint| rest.starts_with(joint));
                let Some(joined) = joined else {
                    return Err(self.stray(1));
                };
                self.at += joined.len();
            }
            '0'..='9' => self.number()?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            '_' => self.name(),
            _ if first.is_alphabetic() => self.name(),
            _ => self.operator(first)?,
        }
        Ok(())
    }

    fn push(&mut self, kind: Kind, end: usize) {
        if self.line.tokens.is_empty() && !self.line.is_inner {
            let before = &self.source[..self.at];
            self.line.is_inner = before.ends_with([' ', '\t', '\u{c}']);
        }
        self.line.tokens.push(Token {
            kind,
            span: self.at..end,
            depth: self.open.len(),
        });
        self.at = end;
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.tokens.is_empty() {
            self.lines.push(line);
        }
    }

    fn name(&mut self) {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.push(Kind::Name, self.at + end);
    }

    fn operator(&mut self, first: char) -> Result<(), Defect> {
        let rest = self.rest();
        let long = OPERATORS.into_iter().find(|op| rest.starts_with(op));
        if long.is_none() && !SINGLE.contains(first) {
            return Err(self.stray(first.len_utf8()));
        }
        let end = self.at + long.map_or(1, str::len);
        match first {
            ';' if self.open.is_empty() => {
                self.end_line();
                self.line.is_inner = true;
                self.at = end;
                return Ok(());
            }
            '(' | '[' | '{' => self.open.push(self.at),
            ')' | ']' | '}' if self.open.pop().is_none() => {
                return Err(self.stray(1));
            }
            _ => {}
        }
        self.push(Kind::Op, end);
        Ok(())
    }

    /// A number: 12, 1_000, 0xff, 1e-3, .5, 5. and the like.
    fn number(&mut self) -> Result<(), Defect> {
        let rest = self.rest();
        let is_hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
        let mut end = 0;
        for (at, c) in rest.char_indices() {
            let after_exponent = rest[..at].ends_with(['e', 'E']) && !is_hexadecimal;
            let is_part = c.is_ascii_alphanumeric() || "_.".contains(c);
            let is_sign = "+-".contains(c) && after_exponent;
            if !(is_part || is_sign) {
                break;
            }
            end = at + 1;
        }
        let raw = &rest[..end];
        let kind = value(raw).ok_or_else(|| {
            Defect::new(
                format!("`{raw}` is no number that Python has, or too large a one"),
                self.at..self.at + end,
            )
        })?;
        self.push(kind, self.at + end);
        Ok(())
    }

    fn stray(&self, bytes: usize) -> Defect {
        let span = self.at..self.at + bytes;
        let found = &self.source[span.clone()];
        Defect::new(format!("`{found}` is not expected here"), span)
    }
}

/// The number that Python reads in `raw`.
fn value(raw: &str) -> Option<Kind> {
    let is_joint = |at: usize| {
        let around = [raw[..at].chars().last(), raw[at + 1..].chars().next()];
        around
            .iter()
            .all(|c| c.is_some_and(|c| c.is_ascii_hexdigit()))
    };
    let joints = raw.match_indices('_').map(|(at, _)| at);
    // `0x_1` is Python's, too.
    if !joints.clone().all(is_joint) && !raw.starts_with('0') {
        return None;
    }
    let digits = raw.replace('_', "");
    if let Some(imaginary) = digits.strip_suffix(['j', 'J']) {
        return imaginary
            .parse::<f64>()
            .ok()
            .map(|_| Kind::Other("an imaginary number"));
    }
    let lower = digits.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return i128::from_str_radix(digits, radix).ok().map(Kind::Int);
        }
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // Python refuses 007, which would once have been octal.
        let is_octal = digits.starts_with('0') && digits.bytes().any(|byte| byte != b'0');
        return (!is_octal).then_some(Kind::Int(digits.parse().ok()?));
    }
    let is_float = lower
        .bytes()
        .all(|b| b.is_ascii_digit() || b".e+-".contains(&b));
    is_float.then(|| lower.parse().ok().map(Kind::Float))?
}
