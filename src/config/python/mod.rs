//! Literal assignments of a Python file, none of which is executed.
//!
//! nanoGPT's configs are Python that assigns names. Values are literals, names that the file assigned before, and
//! arithmetic on both. Any other statement is left out, unless it may set a key that matters: then it is a [`Defect`].

mod expression;
mod lexer;
mod text;

use std::collections::HashSet;
use std::ops::Range;

use expression::{Names, evaluate};
use lexer::{Kind, Line, Token};

/// A value that a Python literal can have.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
}

impl Value {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }
}

/// A part of the source that cannot be read, or not without executing it.
#[derive(Debug, PartialEq)]
pub(super) struct Defect {
    pub what: String,
    pub span: Range<usize>,
    /// The key whose value it decides.
    pub key: Option<String>,
}

impl Defect {
    fn new(what: impl Into<String>, span: Range<usize>) -> Self {
        let what = what.into();
        Self {
            what,
            span,
            key: None,
        }
    }
}

/// A name and what is assigned to it.
#[derive(Debug)]
pub(super) struct Assignment {
    pub name: String,
    pub name_span: Range<usize>,
    /// `None` where it has no value without running the file.
    pub value: Option<Value>,
    /// The place of the value.
    pub span: Range<usize>,
}

/// The assignments of a file.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// In the order of the file; the last of one name counts.
    pub assignments: Vec<Assignment>,
    /// Statements that were left out, the first line of each.
    pub left_out: Vec<Range<usize>>,
    /// Names that other values are computed from.
    pub used: HashSet<String>,
}

/// Statements with others inside.
const COMPOUND: [&str; 13] = [
    "if", "elif", "else", "for", "while", "with", "try", "except", "finally", "def", "class",
    "async", "@",
];
/// Headers of statements that give values to names without a `=`.
const BINDING: [&str; 9] = [
    "for", "with", "def", "class", "except", "import", "from", "del", "async",
];
/// Names by which a statement can set any key.
const EXECUTING: [&str; 6] = ["exec", "eval", "globals", "locals", "vars", "setattr"];

/// Defects after which the rest of a file is not looked at.
pub(super) const MOST_DEFECTS: usize = 20;

/// The assignments in a Python file. `matters` tells the names whose values have to be known.
///
/// # Errors
/// Text that is no Python; values and statements that matter and would have to be executed.
pub(super) fn read(source: &str, matters: fn(&str) -> bool) -> Result<Script, Vec<Defect>> {
    let lines = lexer::lines(source).map_err(|defect| vec![defect])?;
    let mut reader = Reader {
        source,
        matters,
        names: Names::new(),
        script: Script::default(),
        defects: Vec::new(),
    };
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        if COMPOUND.contains(&reader.word(line.tokens.first())) {
            let mut block = vec![line];
            while let Some(inner) = lines.next_if(|line| line.is_inner) {
                block.push(inner);
            }
            reader.leave_out(&block);
        } else {
            reader.statement(line);
        }
        if reader.defects.len() >= MOST_DEFECTS {
            break;
        }
    }
    if reader.defects.is_empty() {
        Ok(reader.script)
    } else {
        Err(reader.defects)
    }
}

struct Reader<'a> {
    source: &'a str,
    matters: fn(&str) -> bool,
    names: Names,
    script: Script,
    defects: Vec<Defect>,
}

impl<'a> Reader<'a> {
    fn word(&self, token: Option<&Token>) -> &'a str {
        token.map_or("", |token| &self.source[token.span.clone()])
    }

    /// Reads a statement that has no others inside.
    fn statement(&mut self, line: &Line) {
        let tokens = &line.tokens[..];
        let is_text = |token: &Token| matches!(token.kind, Kind::Text(_));
        if tokens.iter().all(is_text) || self.word(tokens.first()) == "pass" {
            return;
        }
        let is_equals = |token: &Token| token.depth == 0 && self.word(Some(token)) == "=";
        let mut parts: Vec<&[Token]> = tokens.split(is_equals).collect();
        let value = parts.pop().unwrap_or_default();
        let names: Option<Vec<&Token>> = parts.iter().map(|part| self.target(part)).collect();
        match names {
            Some(names) if !names.is_empty() => self.assign(&names, value, tokens),
            _ => self.leave_out(&[line]),
        }
    }

    /// The name that `tokens` before a `=` are: alone, or with an annotation.
    fn target<'t>(&self, tokens: &'t [Token]) -> Option<&'t Token> {
        let (name, rest) = tokens.split_first()?;
        let is_annotated = rest.is_empty() || self.word(rest.first()) == ":";
        (name.kind == Kind::Name && is_annotated).then_some(name)
    }

    fn assign(&mut self, names: &[&Token], value: &[Token], statement: &[Token]) {
        let is_name = |token: &&Token| token.kind == Kind::Name;
        let used = value.iter().filter(is_name);
        let used: Vec<String> = used.map(|name| self.word(Some(name)).to_owned()).collect();
        self.script.used.extend(used);
        let end = statement.last().map_or(0, |token| token.span.end);
        let span = value.first().map_or(end, |token| token.span.start)..end;
        let found = evaluate(self.source, value, &self.names);
        let (known, defect) = match found {
            Ok(value) => (Some(value), None),
            Err(defect) => (None, Some(defect)),
        };
        let mut defect = defect;
        for token in names {
            let name = self.word(Some(token));
            if (self.matters)(name)
                && let Some(defect) = defect.take()
            {
                let key = Some(name.to_owned());
                self.defects.push(Defect { key, ..defect });
            }
            self.names.insert(name.to_owned(), known.clone());
            self.script.assignments.push(Assignment {
                name: name.to_owned(),
                name_span: token.span.clone(),
                value: known.clone(),
                span: span.clone(),
            });
        }
    }

    /// Leaves out a statement with all that is inside it, or refuses it where it may set a key that matters.
    fn leave_out(&mut self, lines: &[&Line]) {
        for line in lines {
            for name in self.bound(&line.tokens) {
                let word = self.word(Some(name));
                if (self.matters)(word) {
                    self.defects.push(Defect {
                        what: format!(
                            "`{word}` may be set here, and nothing of the file is executed"
                        ),
                        span: name.span.clone(),
                        key: Some(word.to_owned()),
                    });
                }
                self.names.insert(word.to_owned(), None);
            }
            let executing = |token: &&Token| EXECUTING.contains(&self.word(Some(token)));
            if let Some(token) = line.tokens.iter().find(executing) {
                let word = self.word(Some(token));
                self.defects.push(Defect::new(
                    format!("`{word}` may set any key, and nothing of the file is executed"),
                    token.span.clone(),
                ));
            }
        }
        let first = lines
            .first()
            .and_then(|line| Some(line.tokens.first()?.span.start..line.tokens.last()?.span.end));
        self.script.left_out.extend(first);
    }

    /// The names that a line may give a value to.
    fn bound<'t>(&self, tokens: &'t [Token]) -> Vec<&'t Token> {
        let is_assignment = |token: &Token| {
            let word = self.word(Some(token));
            let compares = ["==", "!=", "<=", ">="].contains(&word);
            token.kind == Kind::Op && word.ends_with('=') && !compares
        };
        let outer = |token: &&Token| token.kind == Kind::Name && token.depth == 0;
        if BINDING.contains(&self.word(tokens.first())) {
            return tokens
                .iter()
                .filter(|token| token.kind == Kind::Name)
                .collect();
        }
        let last = tokens
            .iter()
            .rposition(|token| token.depth == 0 && is_assignment(token));
        let mut bound: Vec<&Token> = tokens[..last.unwrap_or(0)].iter().filter(outer).collect();
        let pairs = tokens.iter().zip(tokens.iter().skip(1));
        let walrus = pairs.filter(|(_, next)| self.word(Some(next)) == ":=");
        bound.extend(walrus.map(|(name, _)| name));
        bound
    }
}
