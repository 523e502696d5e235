//! Values of expressions that are made of literals, names of the same file, and arithmetic.

use std::collections::HashMap;
use std::ops::Range;

use super::lexer::{Kind, Token};
use super::{Defect, Value};

/// Brackets and signs within one another; more is no config, and would take the stack.
const DEEPEST: usize = 64;

/// Length of a text that is computed. Doubling one again and again would take all memory.
const LONGEST_TEXT: usize = 4096;

/// The names of a file so far. `None`: assigned, with a value that is not known.
pub(super) type Names = HashMap<String, Option<Value>>;

/// The value of an expression.
///
/// # Errors
/// The part of it that has no value without running the file.
pub(super) fn evaluate(source: &str, tokens: &[Token], names: &Names) -> Result<Value, Defect> {
    let mut parser = Parser {
        source,
        all: tokens,
        tokens,
        names,
        depth: 0,
    };
    let value = parser.sum()?;
    match parser.tokens.first() {
        None => Ok(value),
        Some(next) => Err(parser.unknown(next.span.clone())),
    }
}

struct Parser<'a> {
    source: &'a str,
    all: &'a [Token],
    /// The tokens that are not read yet.
    tokens: &'a [Token],
    names: &'a Names,
    depth: usize,
}

impl Parser<'_> {
    /// `+` and `-`, the weakest operators that are read.
    fn sum(&mut self) -> Result<Value, Defect> {
        let start = self.start();
        let mut value = self.product()?;
        while let Some(operator) = self.take(&["+", "-"]) {
            let right = self.product()?;
            value = self.apply(operator, value, right, start)?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Value, Defect> {
        let start = self.start();
        let mut value = self.signed()?;
        while let Some(operator) = self.take(&["*", "//", "/", "%"]) {
            let right = self.signed()?;
            value = self.apply(operator, value, right, start)?;
        }
        Ok(value)
    }

    fn signed(&mut self) -> Result<Value, Defect> {
        let start = self.start();
        let Some(sign) = self.take(&["+", "-"]) else {
            return self.power();
        };
        let value = self.deeper(start, Self::signed)?;
        self.apply(sign, Value::Int(0), value, start)
    }

    /// `**` binds more than the sign before it, and less than the one behind it.
    fn power(&mut self) -> Result<Value, Defect> {
        let start = self.start();
        let base = self.atom()?;
        if self.take(&["**"]).is_none() {
            return Ok(base);
        }
        let exponent = self.deeper(start, Self::signed)?;
        self.apply("**", base, exponent, start)
    }

    fn atom(&mut self) -> Result<Value, Defect> {
        let Some((token, rest)) = self.tokens.split_first() else {
            let end = self.end();
            return Err(Defect::new("a value is missing", end..end));
        };
        let span = token.span.clone();
        // A call, an index or an attribute.
        let next = rest.first().map(|next| next.span.clone());
        if token.kind == Kind::Name
            && let Some(next) = next
            && ["(", "[", "."].contains(&&self.source[next.clone()])
        {
            return Err(self.unknown(span.start..next.end));
        }
        let value = match &token.kind {
            Kind::Int(number) => Value::Int(*number),
            Kind::Float(number) => Value::Float(*number),
            Kind::Text(text) => return self.texts(text),
            Kind::Other(what) => {
                return Err(Defect::new(format!("{what} has no plain value"), span));
            }
            Kind::Name => self.name(&self.source[span.clone()], span.clone())?,
            Kind::Op if &self.source[span.clone()] == "(" => {
                self.tokens = rest;
                let value = self.deeper(span.start, Self::sum)?;
                return match self.take(&[")"]) {
                    Some(_) => Ok(value),
                    None => Err(self.unknown(span.start..self.end())),
                };
            }
            Kind::Op => return Err(self.unknown(span)),
        };
        self.tokens = rest;
        Ok(value)
    }

    /// Strings that follow one another are one.
    fn texts(&mut self, first: &str) -> Result<Value, Defect> {
        let start = self.start();
        let mut text = first.to_owned();
        self.tokens = &self.tokens[1..];
        while let Some(Kind::Text(more)) = self.tokens.first().map(|token| &token.kind) {
            text += more;
            self.tokens = &self.tokens[1..];
        }
        match self.tokens.first().map(|token| token.span.clone()) {
            Some(next) if ["(", "[", ".", "%"].contains(&&self.source[next.clone()]) => {
                Err(self.unknown(start..next.end))
            }
            _ => Ok(Value::Text(text)),
        }
    }

    fn name(&self, name: &str, span: Range<usize>) -> Result<Value, Defect> {
        match name {
            "True" => Ok(Value::Bool(true)),
            "False" => Ok(Value::Bool(false)),
            "None" => Ok(Value::None),
            _ => match self.names.get(name) {
                Some(Some(value)) => Ok(value.clone()),
                _ => Err(Defect::new(
                    format!("`{name}` has no value without running the file"),
                    span,
                )),
            },
        }
    }

    fn apply(
        &self,
        operator: &str,
        left: Value,
        right: Value,
        start: usize,
    ) -> Result<Value, Defect> {
        let span = start..self.end();
        computed(operator, left, right)
            .ok_or_else(|| Defect::new("this has no value that taper computes", span))
    }

    fn deeper(
        &mut self,
        start: usize,
        part: fn(&mut Self) -> Result<Value, Defect>,
    ) -> Result<Value, Defect> {
        if self.depth == DEEPEST {
            return Err(Defect::new("too many brackets and signs", start..start + 1));
        }
        self.depth += 1;
        let value = part(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// The next operator, if it is one of those.
    fn take<'o>(&mut self, operators: &[&'o str]) -> Option<&'o str> {
        let next = self.tokens.first()?;
        let text = &self.source[next.span.clone()];
        let found = operators.iter().find(|operator| **operator == text)?;
        if next.kind != Kind::Op {
            return None;
        }
        self.tokens = &self.tokens[1..];
        Some(found)
    }

    fn start(&self) -> usize {
        let next = self.tokens.first();
        next.map_or(self.source.len(), |token| token.span.start)
    }

    /// The end of what was read.
    fn end(&self) -> usize {
        let read = self.all.len() - self.tokens.len();
        self.all[..read].last().map_or(0, |token| token.span.end)
    }

    fn unknown(&self, span: Range<usize>) -> Defect {
        Defect::new("this has no value without running the file", span)
    }
}

/// The result of an operator as Python has it; `None` where it has none, or one that no config needs.
fn computed(operator: &str, left: Value, right: Value) -> Option<Value> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => {
            let fits = operator == "+" && left.len() + right.len() <= LONGEST_TEXT;
            fits.then(|| Value::Text(left + &right))
        }
        (Value::Int(left), Value::Int(right)) => whole(operator, left, right),
        (left, right) => {
            let (left, right) = (left.number()?, right.number()?);
            let value = match operator {
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                "**" => left.powf(right),
                _ if right == 0.0 => return None,
                "/" => left / right,
                "//" => (left / right).floor(),
                "%" => left - right * (left / right).floor(),
                _ => return None,
            };
            value.is_finite().then_some(Value::Float(value))
        }
    }
}

fn whole(operator: &str, left: i128, right: i128) -> Option<Value> {
    let floor = |left: i128, right: i128| {
        let quotient = left.checked_div(right)?;
        let is_short = left % right != 0 && (left < 0) != (right < 0);
        Some(quotient - i128::from(is_short))
    };
    let value = match operator {
        "+" => left.checked_add(right)?,
        "-" => left.checked_sub(right)?,
        "*" => left.checked_mul(right)?,
        "//" => floor(left, right)?,
        "%" => left.checked_sub(right.checked_mul(floor(left, right)?)?)?,
        "**" if right >= 0 => left.checked_pow(right.try_into().ok()?)?,
        // A quotient, and a power of a negative number, are floats.
        _ => return computed(operator, Value::Float(left as f64), Value::Int(right)),
    };
    Some(Value::Int(value))
}
