//! nanoGPT's `meta.pkl`: numbers and text out of a pickle, of which nothing is executed.
//!
//! The reader is a stack machine, as Python's `pickle.py`, with an opcode per arm. It keeps what a vocabulary is made of,
//! whole numbers, text and dictionaries of them, and replaces everything else by [`Value::Other`]. Its values are two
//! dictionaries deep at most and nothing is copied but references, so that no file makes it recurse or grow beyond a
//! small multiple of the file's length.

use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;

/// An object of the pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Int(i64),
    Text(Rc<str>),
    /// Its values may be dictionaries, but theirs are none.
    Dict(Vec<(Value, Value)>),
    /// Lists, classes, floats, nested so deep: nothing that a vocabulary needs.
    Other(u32),
}

impl Value {
    /// The last value of a key of a dictionary.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(items) = self else {
            return None;
        };
        let mut items = items.iter().rev();
        let found = items.find(|(k, _)| matches!(k, Value::Text(text) if &**text == key));
        found.map(|(_, value)| value)
    }

    /// Objects in one another; 0 for one without parts.
    fn depth(&self) -> u32 {
        match self {
            Value::Int(_) | Value::Text(_) => 0,
            Value::Other(depth) => *depth,
            Value::Dict(items) => 1 + deepest(items.iter().map(|(_, value)| value)),
        }
    }

    /// Itself for another place; not for a dictionary, so that none is copied.
    fn reference(&self) -> Value {
        match self {
            Value::Dict(_) => Value::Other(0),
            scalar => scalar.clone(),
        }
    }

    /// Itself, without dictionaries.
    fn scalar(&self) -> Value {
        match self {
            Value::Dict(_) => Value::Other(self.depth()),
            scalar => scalar.clone(),
        }
    }

    /// Itself as a value of a dictionary.
    fn inner(self) -> Value {
        let Value::Dict(items) = self else {
            return self;
        };
        let flat = items.into_iter().map(|(key, value)| (key, value.scalar()));
        Value::Dict(flat.collect())
    }
}

fn deepest<'a>(values: impl IntoIterator<Item = &'a Value>) -> u32 {
    values.into_iter().map(Value::depth).max().unwrap_or(0)
}

/// The object that a pickle holds.
///
/// # Errors
/// The defect, when the bytes are no pickle or end early.
pub(super) fn read(bytes: &[u8]) -> Result<Value, &'static str> {
    let mut machine = Machine {
        rest: bytes,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let opcode = machine.take(1)?[0];
        if opcode == b'.' {
            return machine.pop();
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    /// References; [`Value::Other`] stands for dictionaries.
    memo: HashMap<u64, Value>,
}

const CUT_SHORT: &str = "it ends early";
const NO_PICKLE: &str = "it is no pickle";
const TOO_DEEP: &str = "its objects are nested more than 100 deep";

fn within_bounds(depth: u32) -> Result<u32, &'static str> {
    if depth > 100 {
        return Err(TOO_DEEP);
    }
    Ok(depth)
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), &'static str> {
        match opcode {
            // PROTO, FRAME.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // MARK, POP and BUILD, POP_MARK; APPEND; APPENDS, ADDITEMS; DUP.
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' | b'b' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'a' => {
                let item = self.pop()?;
                self.put_in(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.put_in(items)?;
            }
            b'2' => {
                let top = self.top()?.reference();
                self.stack.push(top);
            }
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE.
            b'p' | b'q' | b'r' | 0x94 => {
                let id = match opcode {
                    0x94 => self.memo.len() as u64,
                    _ => self.memo_id(opcode)?,
                };
                let top = self.top()?.reference();
                self.memo.insert(id, top);
            }
            // GET, BINGET, LONG_BINGET.
            b'g' | b'h' | b'j' => {
                let id = self.memo_id(opcode)?;
                let known = self.memo.get(&id).cloned().ok_or(NO_PICKLE)?;
                self.stack.push(known);
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS.
            b'}' => self.stack.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.stack.push(Value::Dict(Vec::new()));
                self.set(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items)?;
            }
            // TUPLE, LIST, OBJ, FROZENSET; INST.
            b't' | b'l' | b'o' | 0x91 => {
                let items = self.pop_mark()?;
                self.join(&items)?;
            }
            b'i' => {
                self.line()?;
                self.line()?;
                let items = self.pop_mark()?;
                self.join(&items)?;
            }
            // REDUCE, NEWOBJ, TUPLE2, STACK_GLOBAL; TUPLE1; TUPLE3, NEWOBJ_EX.
            b'R' | 0x81 | 0x86 | 0x93 => self.replace(2)?,
            0x85 => self.replace(1)?,
            0x87 | 0x92 => self.replace(3)?,
            _ => {
                let value = self.literal(opcode)?;
                self.stack.push(value);
            }
        }
        Ok(())
    }

    /// A value that is written out after its opcode.
    fn literal(&mut self, opcode: u8) -> Result<Value, &'static str> {
        Ok(match opcode {
            // NONE, NEWTRUE, NEWFALSE, EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET.
            b'N' | 0x88 | 0x89 | b']' | b')' | 0x8f => Value::Other(0),
            // INT, LONG; BININT1, BININT2; BININT, LONG1, LONG4.
            b'I' | b'L' => whole(self.line()?),
            b'K' | b'M' => Value::Int(little_endian(self.take(if opcode == b'K' {
                1
            } else {
                2
            })?)),
            b'J' | 0x8a | 0x8b => {
                let bytes = match opcode {
                    b'J' => self.take(4)?,
                    0x8a => self.prefixed(1)?,
                    _ => self.prefixed(4)?,
                };
                let shift = 64 - 8 * bytes.len().min(8) as u32;
                match bytes.len() {
                    0 => Value::Int(0),
                    // Shifted up and down, for the sign.
                    1..=8 => Value::Int(little_endian(bytes) << shift >> shift),
                    _ => Value::Other(0),
                }
            }
            // SHORT_BINSTRING, SHORT_BINUNICODE; BINSTRING, BINUNICODE; BINUNICODE8; UNICODE.
            b'U' | 0x8c => text(self.prefixed(1)?)?,
            b'T' | b'X' => text(self.prefixed(4)?)?,
            0x8d => text(self.prefixed(8)?)?,
            b'V' => escaped(self.line()?)?,
            _ => {
                self.skip(opcode)?;
                Value::Other(0)
            }
        })
    }

    /// Passes over a value of a kind that is not kept.
    fn skip(&mut self, opcode: u8) -> Result<(), &'static str> {
        match opcode {
            // FLOAT, STRING; BINFLOAT; GLOBAL; SHORT_BINBYTES; BINBYTES; BINBYTES8, BYTEARRAY8.
            b'F' | b'S' => drop(self.line()?),
            b'G' => drop(self.take(8)?),
            b'c' => drop((self.line()?, self.line()?)),
            b'C' => drop(self.prefixed(1)?),
            b'B' => drop(self.prefixed(4)?),
            0x8e | 0x96 => drop(self.prefixed(8)?),
            _ => return Err(NO_PICKLE),
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes after their number, which takes `width` bytes.
    fn prefixed(&mut self, width: usize) -> Result<&'a [u8], &'static str> {
        let length = little_endian(self.take(width)?);
        self.take(usize::try_from(length).map_err(|_| CUT_SHORT)?)
    }

    fn line(&mut self) -> Result<&'a [u8], &'static str> {
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(CUT_SHORT)?;
        Ok(&self.take(end + 1)?[..end])
    }

    fn memo_id(&mut self, opcode: u8) -> Result<u64, &'static str> {
        match opcode {
            b'p' | b'g' => number(self.line()?).ok_or(NO_PICKLE),
            b'q' | b'h' => Ok(little_endian(self.take(1)?) as u64),
            _ => Ok(little_endian(self.take(4)?) as u64),
        }
    }

    fn top(&self) -> Result<&Value, &'static str> {
        self.stack.last().ok_or(NO_PICKLE)
    }

    fn pop(&mut self) -> Result<Value, &'static str> {
        self.stack.pop().ok_or(NO_PICKLE)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, &'static str> {
        let mark = self.marks.pop().ok_or(NO_PICKLE)?;
        if mark > self.stack.len() {
            return Err(NO_PICKLE);
        }
        Ok(self.stack.split_off(mark))
    }

    /// Puts one object in the place of `count` values.
    fn replace(&mut self, count: usize) -> Result<(), &'static str> {
        let start = self.stack.len().checked_sub(count).ok_or(NO_PICKLE)?;
        let parts = self.stack.split_off(start);
        self.join(&parts)
    }

    /// Pushes an object that is made of `parts`.
    fn join(&mut self, parts: &[Value]) -> Result<(), &'static str> {
        let depth = within_bounds(1 + deepest(parts))?;
        self.stack.push(Value::Other(depth));
        Ok(())
    }

    /// Puts items in the list or set on top.
    fn put_in(&mut self, items: Vec<Value>) -> Result<(), &'static str> {
        let depth = within_bounds(1 + deepest(&items))?;
        let top = self.stack.last_mut().ok_or(NO_PICKLE)?;
        *top = Value::Other(depth.max(top.depth()));
        Ok(())
    }

    /// Sets keys and values, in turn, in the dictionary on top. Another object keeps nothing of them.
    fn set(&mut self, items: Vec<Value>) -> Result<(), &'static str> {
        let top = self.stack.last_mut().ok_or(NO_PICKLE)?;
        if let Value::Dict(dict) = top {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                within_bounds(1 + value.depth())?;
                dict.push((key.scalar(), value.inner()));
            }
        }
        Ok(())
    }
}

/// At most eight bytes as a number.
fn little_endian(bytes: &[u8]) -> i64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | i64::from(byte))
}

fn whole(line: &[u8]) -> Value {
    let number = number(line.strip_suffix(b"L").unwrap_or(line));
    number.map_or(Value::Other(0), Value::Int)
}

fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits.trim_ascii()).ok()?.parse().ok()
}

fn text(bytes: &[u8]) -> Result<Value, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its text is not UTF-8")?;
    Ok(Value::Text(text.into()))
}

/// Text of protocol 0, in Python's `raw-unicode-escape`: Latin-1, and `\uXXXX` or `\UXXXXXXXX` for the rest.
fn escaped(line: &[u8]) -> Result<Value, &'static str> {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(*byte));
                rest = tail;
                continue;
            }
        };
        let escape = tail
            .get(1..=digits)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let code = escape.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        text.push(
            code.and_then(char::from_u32)
                .ok_or("its text is not Unicode")?,
        );
        rest = &tail[digits + 1..];
    }
    Ok(Value::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{'vocab_size': 2, 'itos': {0: 'a', 1: '\u00e9'}}`, as Python writes it with protocols 0, 2 and 4.
    const PROTOCOLS: [&[u8]; 3] = [
        b"(dp0\nVvocab_size\np1\nI2\nsVitos\np2\n(dp3\nI0\nVa\np4\nsI1\nV\xe9\np5\nss.",
        b"\x80\x02}q\x00(X\x0a\x00\x00\x00vocab_sizeq\x01K\x02X\x04\x00\x00\x00itosq\x02}q\x03(K\x00X\x01\x00\x00\x00aq\x04K\x01X\x02\x00\x00\x00\xc3\xa9q\x05uu.",
        b"\x80\x04\x95)\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x0avocab_size\x94K\x02\x8c\x04itos\x94}\x94(K\x00\x8c\x01a\x94K\x01\x8c\x02\xc3\xa9\x94uu.",
    ];

    #[test]
    fn every_protocol_gives_numbers_text_and_dictionaries() {
        let text = |text: &str| Value::Text(text.into());
        for pickle in PROTOCOLS {
            let read = read(pickle).unwrap();
            assert_eq!(read.get("vocab_size"), Some(&Value::Int(2)));
            let itos = vec![(Value::Int(0), text("a")), (Value::Int(1), text("\u{e9}"))];
            assert_eq!(read.get("itos"), Some(&Value::Dict(itos)));
        }
    }

    #[test]
    fn a_pickle_that_ends_early_is_an_error() {
        for pickle in PROTOCOLS {
            for end in 0..pickle.len() {
                assert!(read(&pickle[..end]).is_err(), "{end}");
            }
        }
    }

    /// Lists, tuples and dictionaries in one another, and a list that holds itself.
    #[test]
    fn objects_in_one_another_take_no_stack() {
        let cases: [(&[u8], &[u8]); 4] = [
            (b"]", b"a"),
            (b"(", b"t"),
            (b"]", b"\x85"),
            (b"}K\x00", b"s"),
        ];
        for (open, close) in cases {
            let pickle = [
                &open.repeat(200_000)[..],
                b"}",
                &close.repeat(200_000),
                b".",
            ]
            .concat();
            assert_eq!(read(&pickle), Err(TOO_DEEP));
        }
        let nested = [&b"]".repeat(90)[..], &b"a".repeat(89), b"."].concat();
        assert_eq!(read(&nested), Ok(Value::Other(89)));
        assert_eq!(read(b"]q\x00h\x00a."), Ok(Value::Other(1)));
    }

    /// `os.system("true")`, and lengths that no file has.
    #[test]
    fn nothing_is_called_and_nothing_is_allocated_on_a_promise() {
        assert_eq!(read(b"cos\nsystem\n(S'true'\ntR."), Ok(Value::Other(2)));
        let lengths: [&[u8]; 3] = [
            b"X\xff\xff\xff\xff.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x8b\xff\xff\xff\x7f.",
        ];
        for pickle in lengths {
            assert_eq!(read(pickle), Err(CUT_SHORT));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), codes in "[\\]}()N.aestu012bdlq\\x00\\x01h\\x0aRK\\u{85}]{0,60}") {
            let _ = (read(&bytes), read(codes.as_bytes()));
            let latin: Vec<u8> = codes.chars().map(|c| c as u8).collect();
            let _ = read(&latin);
        }
    }
}
