//! The object of a pickle: a stack machine that builds what a checkpoint needs and executes nothing.
//!
//! Protocols 2 to 5, of which `torch.save` writes 2; opcodes as in Python's `pickletools`. An object of a class that is
//! not known here keeps the name of its class alone.

use std::collections::HashMap;

use safetensors::Dtype;

use super::object::{Id, Object, Pickle, Storage, Tensor};

/// Most objects of a pickle. A checkpoint of GPT-2 XL with its optimizer has 50,000.
const MOST_OBJECTS: usize = 1 << 20;

/// Most dimensions of a tensor, those of PyTorch.
const MOST_DIMENSIONS: usize = 64;

/// Longest name of a class or a function.
const LONGEST_NAME: usize = 256;

/// Reads the object that a pickle holds.
///
/// # Errors
/// The defect, when the bytes are no pickle, end early, or hold more than a checkpoint does.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, &'static str> {
    let mut machine = Machine {
        rest: bytes,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    loop {
        let opcode = machine.take(1)?[0];
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle {
                objects: machine.objects,
                root,
            });
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Lengths of the stack.
    marks: Vec<u32>,
    memo: HashMap<u32, Id>,
    /// Items that were copied from one object to another.
    copied: usize,
}

const CUT_SHORT: &str = "it ends early";
const NO_PICKLE: &str = "it is no pickle of protocol 2 to 5";
const TOO_MANY: &str = "it holds more objects than a checkpoint has";
const NO_TENSOR: &str = "a tensor in it is not as PyTorch writes it";

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), &'static str> {
        match opcode {
            // PROTO, FRAME.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // MARK; POP and BUILD, whose state no object here keeps; POP_MARK; DUP.
            b'(' => self.marks.push(self.stack.len() as u32),
            b'0' if self.marks.last() == Some(&(self.stack.len() as u32)) => drop(self.marks.pop()),
            b'0' | b'b' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            // BINPUT, LONG_BINPUT, MEMOIZE; BINGET, LONG_BINGET.
            b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    b'q' => self.number(1)? as u32,
                    b'r' => self.number(4)? as u32,
                    _ => self.memo.len() as u32,
                };
                let top = self.top()?;
                self.memo.insert(key, top);
                within(self.memo.len())?;
            }
            b'h' | b'j' => {
                let key = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
                let known = *self.memo.get(&key).ok_or(NO_PICKLE)?;
                self.stack.push(known);
            }
            // APPEND; APPENDS and ADDITEMS; SETITEM; SETITEMS.
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            _ => {
                let id = self.made(opcode)?;
                self.stack.push(id);
            }
        }
        Ok(())
    }

    /// The object that an opcode makes.
    fn made(&mut self, opcode: u8) -> Result<Id, &'static str> {
        let object = match opcode {
            // EMPTY_DICT, DICT; EMPTY_LIST, LIST; EMPTY_SET, FROZENSET.
            b'}' => Object::Dict(Vec::new()),
            b'd' => {
                let items = self.pop_mark()?;
                Object::Dict(pairs(&items))
            }
            b']' => Object::List(Vec::new()),
            b'l' => Object::List(self.pop_mark()?),
            0x8f => Object::Other("set".into()),
            0x91 => {
                self.pop_mark()?;
                Object::Other("frozenset".into())
            }
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3.
            b')' => Object::Tuple(Vec::new()),
            b't' => Object::Tuple(self.pop_mark()?),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or(NO_PICKLE)?;
                Object::Tuple(self.stack.split_off(start))
            }
            // GLOBAL, STACK_GLOBAL.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Object::Name(format!("{module}.{name}").into())
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.at(module), self.at(name)) {
                    (Object::Text(module), Object::Text(name))
                        if module.len() + name.len() <= LONGEST_NAME =>
                    {
                        Object::Name(format!("{module}.{name}").into())
                    }
                    _ => return Err(NO_PICKLE),
                }
            }
            // REDUCE, NEWOBJ; NEWOBJ_EX; BINPERSID.
            b'R' | 0x81 => {
                let (arguments, called) = (self.pop()?, self.pop()?);
                return self.call(called, arguments);
            }
            0x92 => {
                let (_, arguments, called) = (self.pop()?, self.pop()?, self.pop()?);
                return self.call(called, arguments);
            }
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)
            }
            _ => self.literal(opcode)?,
        };
        self.push_object(object)
    }

    /// A value that is written out after its opcode.
    fn literal(&mut self, opcode: u8) -> Result<Object, &'static str> {
        Ok(match opcode {
            // NONE, NEWTRUE, NEWFALSE.
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            // BININT1, BININT2, BININT; LONG1, LONG4; BINFLOAT.
            b'K' => Object::Int(self.number(1)?),
            b'M' => Object::Int(self.number(2)?),
            b'J' => Object::Int(i64::from(self.number(4)? as u32 as i32)),
            0x8a => whole(self.prefixed(1)?),
            0x8b => whole(self.prefixed(4)?),
            b'G' => {
                let bytes = self.take(8)?;
                Object::Float(f64::from_be_bytes(bytes.try_into().map_err(|_| CUT_SHORT)?))
            }
            // SHORT_BINSTRING, SHORT_BINUNICODE; BINSTRING, BINUNICODE; BINUNICODE8.
            b'U' | 0x8c => text(self.prefixed(1)?)?,
            b'T' | b'X' => text(self.prefixed(4)?)?,
            0x8d => text(self.prefixed(8)?)?,
            // SHORT_BINBYTES; BINBYTES; BINBYTES8, BYTEARRAY8.
            b'C' => bytes(self.prefixed(1)?),
            b'B' => bytes(self.prefixed(4)?),
            0x8e | 0x96 => bytes(self.prefixed(8)?),
            _ => return Err(NO_PICKLE),
        })
    }

    /// The object that a class or function would make.
    fn call(&mut self, called: Id, arguments: Id) -> Result<Id, &'static str> {
        let Object::Name(name) = self.at(called) else {
            return self.push_object(Object::Other("call".into()));
        };
        let name = name.clone();
        let arguments: &[Id] = match self.at(arguments) {
            Object::Tuple(arguments) => arguments,
            _ => return Err(NO_PICKLE),
        };
        let object = match (&*name, arguments) {
            ("collections.OrderedDict", &[items, ..]) => self.dict_of(items)?,
            ("collections.OrderedDict" | "collections.defaultdict", _) => Object::Dict(Vec::new()),
            ("torch._utils._rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
                self.tensor([storage, offset, shape, strides])?
            }
            ("torch._utils._rebuild_tensor_v2", _) => return Err(NO_TENSOR),
            // A parameter is its data, a size is its numbers.
            (
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state"
                | "torch.Size",
                &[data, ..],
            ) => return Ok(data),
            _ => Object::Other(name),
        };
        self.push_object(object)
    }

    /// A dictionary of a list of pairs.
    fn dict_of(&mut self, items: Id) -> Result<Object, &'static str> {
        let Object::List(items) = self.at(items) else {
            return Ok(Object::Dict(Vec::new()));
        };
        within(self.copied + items.len())?;
        let pair = |&item: &Id| match self.at(item) {
            Object::List(pair) | Object::Tuple(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        let pairs: Option<Vec<(Id, Id)>> = items.iter().map(pair).collect();
        let pairs = pairs.ok_or(NO_PICKLE)?;
        self.copied += pairs.len();
        Ok(Object::Dict(pairs))
    }

    /// The storage of a persistent id: `("storage", class, key, device, number of elements)`.
    fn storage(&self, id: Id) -> Object {
        let other = || Object::Other("storage".into());
        let Object::Tuple(parts) = self.at(id) else {
            return other();
        };
        let &[kind, class, key, _, elements] = &parts[..] else {
            return other();
        };
        let parts = [kind, class, key, elements].map(|part| self.at(part));
        match parts {
            [
                Object::Text(kind),
                Object::Name(class),
                Object::Text(key),
                &Object::Int(elements),
            ] if **kind == *"storage" && elements >= 0 => Object::Storage(Box::new(Storage {
                key: key.clone(),
                dtype: dtype(class),
                elements: elements as u64,
            })),
            _ => other(),
        }
    }

    /// The tensor of `_rebuild_tensor_v2(storage, storage_offset, size, stride, ...)`.
    fn tensor(
        &mut self,
        [storage, offset, shape, strides]: [Id; 4],
    ) -> Result<Object, &'static str> {
        let (Object::Storage(_), &Object::Int(offset)) = (self.at(storage), self.at(offset)) else {
            return Err(NO_TENSOR);
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(NO_TENSOR);
        }
        self.copied += 2 * shape.len();
        within(self.copied)?;
        Ok(Object::Tensor(Box::new(Tensor {
            storage,
            offset: u64::try_from(offset).map_err(|_| NO_TENSOR)?,
            shape,
            strides,
        })))
    }

    /// A tuple of numbers of at least 0.
    fn sizes(&self, tuple: Id) -> Result<Vec<u64>, &'static str> {
        let Object::Tuple(parts) = self.at(tuple) else {
            return Err(NO_TENSOR);
        };
        if parts.len() > MOST_DIMENSIONS {
            return Err(NO_TENSOR);
        }
        let size = |&part: &Id| match self.at(part) {
            &Object::Int(size) => u64::try_from(size).map_err(|_| NO_TENSOR),
            _ => Err(NO_TENSOR),
        };
        parts.iter().map(size).collect()
    }

    fn append(&mut self, items: &[Id]) -> Result<(), &'static str> {
        let top = self.top()?;
        // An object of another class keeps nothing.
        if let Object::List(list) = &mut self.objects[top.0 as usize] {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    /// Sets keys and values, in turn, in the dictionary on top.
    fn set(&mut self, items: &[Id]) -> Result<(), &'static str> {
        let top = self.top()?;
        if let Object::Dict(dict) = &mut self.objects[top.0 as usize] {
            dict.extend(pairs(items));
        }
        Ok(())
    }

    fn push_object(&mut self, object: Object) -> Result<Id, &'static str> {
        within(self.objects.len() + 1)?;
        self.objects.push(object);
        Ok(Id(self.objects.len() as u32 - 1))
    }

    fn at(&self, id: Id) -> &Object {
        &self.objects[id.0 as usize]
    }

    fn top(&self) -> Result<Id, &'static str> {
        self.stack.last().copied().ok_or(NO_PICKLE)
    }

    fn pop(&mut self) -> Result<Id, &'static str> {
        self.stack.pop().ok_or(NO_PICKLE)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, &'static str> {
        let mark = self.marks.pop().ok_or(NO_PICKLE)? as usize;
        if mark > self.stack.len() {
            return Err(NO_PICKLE);
        }
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned little-endian number of at most four bytes.
    fn number(&mut self, width: usize) -> Result<i64, &'static str> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | i64::from(byte)))
    }

    /// Bytes after their number, which takes `width` bytes.
    fn prefixed(&mut self, width: usize) -> Result<&'a [u8], &'static str> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| CUT_SHORT)?;
        self.take(length)
    }

    fn line(&mut self) -> Result<&'a str, &'static str> {
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or(CUT_SHORT)? + 1)?;
        std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| NO_PICKLE)
    }
}

fn within(objects: usize) -> Result<(), &'static str> {
    if objects > MOST_OBJECTS {
        return Err(TOO_MANY);
    }
    Ok(())
}

/// Keys and values that follow one another.
fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().map(|&[key, value]| (key, value)).collect()
}

/// A whole number in two's complement, little-endian.
fn whole(bytes: &[u8]) -> Object {
    let Some(last) = bytes.last() else {
        return Object::Int(0);
    };
    if bytes.len() > 8 {
        return Object::Other("int".into());
    }
    let mut number = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(number))
}

fn text(bytes: &[u8]) -> Result<Object, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its text is not UTF-8")?;
    Ok(Object::Text(text.into()))
}

fn bytes(_: &[u8]) -> Object {
    Object::Other("bytes".into())
}

/// The type of the elements of a storage class of `torch`.
fn dtype(class: &str) -> Option<Dtype> {
    Some(match class.strip_prefix("torch.")? {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}
