//! PTX text as tokens.

use super::ParseError;

/// What a token is; words and numbers keep their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Mnemonics with their dots (`ld.global.L1::no_allocate.u32`), directives (`.reg`), names (`%r1`, `$L__BB0_1`).
    Word,
    Number,
    Text,
    Mark(u8),
    End,
}

#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub line: u32,
    pub column: u32,
}

impl Token<'_> {
    pub fn is(&self, mark: u8) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub fn error(&self, what: impl Into<String>) -> ParseError {
        ParseError {
            line: self.line,
            column: self.column,
            what: what.into(),
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
}

/// The tokens of `text`, closed by one of kind `End`.
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut tokens = Vec::with_capacity(text.len() / 5);
    loop {
        let token = lexer.next()?;
        tokens.push(token);
        if token.kind == Kind::End {
            return Ok(tokens);
        }
    }
}

impl<'a> Lexer<'a> {
    fn byte(&self, ahead: usize) -> u8 {
        *self.text.as_bytes().get(self.at + ahead).unwrap_or(&0)
    }

    fn advance(&mut self) {
        if self.byte(0) == b'\n' {
            self.line += 1;
            self.line_start = self.at + 1;
        }
        self.at += 1;
    }

    fn skip_blanks(&mut self) {
        while self.at < self.text.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'/') => {
                    while self.at < self.text.len() && self.byte(0) != b'\n' {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => {
                    while self.at < self.text.len() && (self.byte(0), self.byte(1)) != (b'*', b'/')
                    {
                        self.advance();
                    }
                    self.at += 2;
                }
                // Texts reach the driver with a NUL at their end.
                (b' ' | b'\t' | b'\r' | b'\n' | 0, _) => self.advance(),
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        self.skip_blanks();
        let (start, line) = (self.at, self.line);
        let column = (start - self.line_start.min(start)) as u32 + 1;
        let kind = match self.byte(0) {
            _ if start >= self.text.len() => Kind::End,
            b'0'..=b'9' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
                Kind::Number
            }
            b'"' => {
                self.at += 1;
                self.take_while(|byte| byte != b'"' && byte != b'\n');
                self.at += 1;
                Kind::Text
            }
            byte if is_word(byte) => {
                self.take_word();
                Kind::Word
            }
            byte if b"{}()[]<>,;:=+-!@|".contains(&byte) => {
                self.at += 1;
                Kind::Mark(byte)
            }
            byte => {
                let what = format!(
                    "unexpected character `{}`",
                    char::from(byte).escape_default()
                );
                return Err(ParseError { line, column, what });
            }
        };
        let end = self.at.min(self.text.len());
        Ok(Token {
            kind,
            text: &self.text[start.min(end)..end],
            line,
            column,
        })
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && wanted(self.byte(0)) {
            self.at += 1;
        }
    }

    /// `::` belongs to a word, `:` ends a label; `.reg.b32` is two words.
    fn take_word(&mut self) {
        if self.byte(0) == b'.' {
            self.at += 1;
            return self.take_while(|byte| byte != b'.' && is_word(byte));
        }
        loop {
            self.take_while(is_word);
            if (self.byte(0), self.byte(1)) != (b':', b':') {
                return;
            }
            self.at += 2;
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// The value of a number: integers in any base, `0f` and `0d` bit patterns, decimal floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Integer(u64),
    Single(u32),
    Double(u64),
}

impl Number {
    pub fn of(text: &str) -> Option<Number> {
        let digits =
            |from: usize, base| u64::from_str_radix(text[from..].trim_end_matches('U'), base).ok();
        match text.as_bytes() {
            [b'0', b'f' | b'F', ..] => digits(2, 16).map(|bits| Number::Single(bits as u32)),
            [b'0', b'd' | b'D', ..] => digits(2, 16).map(Number::Double),
            [b'0', b'x' | b'X', ..] => digits(2, 16).map(Number::Integer),
            [b'0', b'b' | b'B', ..] => digits(2, 2).map(Number::Integer),
            _ if text.contains('.') => text.parse().ok().map(|x: f64| Number::Double(x.to_bits())),
            [b'0', _, ..] => digits(1, 8).map(Number::Integer),
            _ => digits(0, 10).map(Number::Integer),
        }
    }
}
