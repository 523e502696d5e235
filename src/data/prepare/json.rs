//! JSON as Python's `json` module reads it, one value at a time.
//!
//! Beyond the standard it knows NaN, Infinity and -Infinity, numbers of any size, and half of a surrogate pair. Values
//! are checked and passed over without being built, so that depth and size cost nothing.

use std::borrow::Cow;

/// A fault in JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct JsonError {
    /// In characters, from 1.
    pub column: usize,
    pub expected: &'static str,
}

/// The kinds of values, named as JSON does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// With its article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::Boolean => "a boolean",
            Kind::Null => "null",
        }
    }
}

/// A value that was checked, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub kind: Kind,
    written: &'a str,
}

/// The text of a JSON string.
#[derive(Debug)]
pub(super) struct Text<'a> {
    pub text: Cow<'a, str>,
    /// Whether U+FFFD stands for half of a surrogate pair.
    pub repaired: bool,
}

impl<'a> Value<'a> {
    /// The characters of a string; `None` for another kind.
    pub(super) fn text(self) -> Option<Text<'a>> {
        let quoted = self.written.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(quoted))
    }
}

/// Checks `json`, which holds one value, and hands each member of an object to `member`, in order.
pub(super) fn read<'a>(
    json: &'a str,
    member: impl FnMut(Cow<'a, str>, Value<'a>),
) -> Result<Kind, JsonError> {
    let mut scanner = Scanner { json, at: 0 };
    scanner.skip_spaces();
    let kind = if scanner.peek() == Some(b'{') {
        scanner.object(member)?;
        Kind::Object
    } else {
        scanner.value()?.kind
    };
    scanner.skip_spaces();
    match scanner.peek() {
        None => Ok(kind),
        Some(_) => Err(scanner.expected("the end of the line")),
    }
}

struct Scanner<'a> {
    json: &'a str,
    /// Position in bytes; between characters.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn skip_spaces(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Passes over `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        let before = self.json.get(..self.at).unwrap_or(self.json);
        JsonError {
            column: before.chars().count() + 1,
            expected,
        }
    }

    /// An object at the position, whose members are handed out.
    fn object(&mut self, mut member: impl FnMut(Cow<'a, str>, Value<'a>)) -> Result<(), JsonError> {
        self.at += 1;
        self.skip_spaces();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            let value = self.value()?;
            member(unescape(key).text, value);
            self.skip_spaces();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    /// The key of a member and the colon after it.
    fn key(&mut self) -> Result<&'a str, JsonError> {
        self.skip_spaces();
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_spaces();
        if !self.take(b':') {
            return Err(self.expected("`:`"));
        }
        Ok(key)
    }

    /// Any value, without recursion: `open` holds the brackets that are still to close.
    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.skip_spaces();
        let (start, kind) = (self.at, self.kind()?);
        let mut open = Vec::new();
        loop {
            match self.kind()? {
                Kind::Object => {
                    self.at += 1;
                    self.skip_spaces();
                    if !self.take(b'}') {
                        open.push(b'}');
                        self.key()?;
                        self.skip_spaces();
                        continue;
                    }
                }
                Kind::Array => {
                    self.at += 1;
                    self.skip_spaces();
                    if !self.take(b']') {
                        open.push(b']');
                        continue;
                    }
                }
                Kind::String => drop(self.string()?),
                Kind::Number => self.number()?,
                Kind::Boolean | Kind::Null => self.word(&["true", "false", "null"])?,
            }
            if !self.next_value(&mut open)? {
                let written = &self.json[start..self.at];
                return Ok(Value { kind, written });
            }
        }
    }

    /// The kind of the value that begins here, by its first character.
    fn kind(&self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.expected("a value")),
        }
    }

    /// After a value, moves to the next one inside of the `open` brackets; false once all of them have closed.
    fn next_value(&mut self, open: &mut Vec<u8>) -> Result<bool, JsonError> {
        while let Some(&close) = open.last() {
            self.skip_spaces();
            if self.take(b',') {
                if close == b'}' {
                    self.key()?;
                }
                self.skip_spaces();
                return Ok(true);
            }
            if !self.take(close) {
                return Err(self.expected(match close {
                    b'}' => "`,` or `}`",
                    _ => "`,` or `]`",
                }));
            }
            open.pop();
        }
        Ok(false)
    }

    fn word(&mut self, words: &[&str]) -> Result<(), JsonError> {
        let rest = &self.json[self.at..];
        match words.iter().find(|word| rest.starts_with(**word)) {
            Some(word) => {
                self.at += word.len();
                Ok(())
            }
            None => Err(self.expected("a value")),
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.word(&["NaN", "Infinity", "-Infinity"]).is_ok() {
            return Ok(());
        }
        self.take(b'-');
        if !self.take(b'0') && !self.digits() {
            return Err(self.expected("a number"));
        }
        let whole = self.at;
        if !(self.take(b'.') && self.digits()) {
            self.at = whole;
        }
        let mantissa = self.at;
        let exponent = self.take(b'e') || self.take(b'E');
        let _sign = exponent && (self.take(b'+') || self.take(b'-'));
        if !(exponent && self.digits()) {
            self.at = mantissa;
        }
        Ok(())
    }

    /// Passes over digits; false if there is none.
    fn digits(&mut self) -> bool {
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_digit());
        self.at > start
    }

    /// A string; what is between its quotes, as it is written.
    fn string(&mut self) -> Result<&'a str, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            self.skip_while(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.json[start..self.at - 1]);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => {
                    return Err(self.expected("control characters as escapes, such as `\\t`"));
                }
                None => return Err(self.expected("`\"` at the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.expected("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("an escape, such as `\\n`")),
        }
        Ok(())
    }
}

/// The characters of a string that was checked. Half of a surrogate pair is no character: U+FFFD takes its place, as in
/// tiktoken.
fn unescape(written: &str) -> Text<'_> {
    let Some(first) = written.find('\\') else {
        return Text {
            text: Cow::Borrowed(written),
            repaired: false,
        };
    };
    let mut text = String::with_capacity(written.len());
    let mut repaired = false;
    let (mut plain, mut rest) = written.split_at(first);
    loop {
        text.push_str(plain);
        let mut units = Vec::new();
        while let Some((digits, after)) =
            rest.strip_prefix("\\u").and_then(|r| r.split_at_checked(4))
        {
            units.extend(u16::from_str_radix(digits, 16));
            rest = after;
        }
        for character in char::decode_utf16(units) {
            repaired |= character.is_err();
            text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let mut escaped = rest.chars();
        if escaped.next() == Some('\\') {
            text.extend(escaped.next().map(plain_escape));
            rest = escaped.as_str();
        }
        if rest.is_empty() {
            break;
        }
        (plain, rest) = rest.split_at(rest.find('\\').unwrap_or(rest.len()));
    }
    Text {
        text: Cow::Owned(text),
        repaired,
    }
}

/// The character that `\` and `letter` stand for.
fn plain_escape(letter: char) -> char {
    match letter {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

#[cfg(test)]
mod tests;
