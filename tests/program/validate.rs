//! Checks of a program, without a device: its operations are followed with symbols for values.
//!
//! The symbol of a result is a hash of its operation and of the symbols of the operands. Two programs of one model
//! whose gradients have the same symbols compute the same, however they share buffers and whatever they recompute.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::flow::{Dataflow, Operand};
use taper::model::{Node, Program};
use taper::ops::backend::{Op, OpKind, Owner};
use taper::terms::Gelu;

/// A mistake in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An operation reads a buffer that has no value: nothing wrote it, or it was used as scratch since.
    ReadBeforeWrite(Place),
    /// An operation overwrites a value that nothing read.
    LostWrite(Place),
    /// An operation reads a value of another block that its own sees nothing of: blocks share a buffer, and it was not
    /// computed again.
    Stale(Place),
    /// An operation writes a buffer that is another of its operands, too.
    Aliased(Place),
    /// A parameter of a training program that receives no gradient.
    NoGradient { param: String },
}

/// An operation and one of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub op: OpKind,
    pub layer: Option<usize>,
    pub buffer: String,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { op, layer, buffer } = self;
        match layer {
            Some(layer) => write!(f, "`{buffer}`, by {op} in block {layer}"),
            None => write!(f, "`{buffer}`, by {op}"),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Fault::ReadBeforeWrite(place) => write!(f, "read without a value: {place}"),
            Fault::LostWrite(place) => write!(f, "overwritten unread: {place}"),
            Fault::Stale(place) => write!(f, "another block's value: {place}"),
            Fault::Aliased(place) => write!(f, "written, and another operand: {place}"),
            Fault::NoGradient { param } => write!(f, "no gradient for `{param}`"),
        }
    }
}

/// The mistakes of a program, in the order of its operations.
pub fn validate(program: &Program) -> Vec<Fault> {
    let mut run = Run::new(program);
    run.micro_step();
    let trained = run.gradients();
    if program.state.training.is_some() {
        let params = program.params.params.iter();
        let untrained = params.filter(|param| !trained.contains_key(&param.name));
        run.faults.extend(untrained.map(|param| Fault::NoGradient {
            param: param.name.clone(),
        }));
    }
    run.faults
}

/// The symbol of every parameter's gradient after a micro-step, by name.
pub fn gradient_symbols(program: &Program) -> BTreeMap<String, u64> {
    let mut run = Run::new(program);
    run.micro_step();
    run.gradients()
}

/// The symbol of the loss after a micro-step. Training and an evaluation of one model have the same.
pub fn loss_symbol(program: &Program) -> Option<u64> {
    let mut run = Run::new(program);
    run.micro_step();
    run.values.get(&Operand::Loss).map(|value| value.symbol)
}

fn symbol(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The value of an operand.
#[derive(Clone, Copy)]
struct Value {
    symbol: u64,
    is_read: bool,
    writer: Writer,
}

/// The place of an operation among the blocks.
#[derive(Clone, Copy, Default)]
struct Writer {
    layer: Option<usize>,
    in_backward: bool,
    /// It is the last of its block: what it writes is the input of the next.
    is_last: bool,
}

impl Writer {
    /// Whether block `reader` sees what was written: by itself, or as the last operation of the block before it.
    fn is_seen_by(self, reader: Option<usize>) -> bool {
        let (Some(writer), Some(reader)) = (self.layer, reader) else {
            return true;
        };
        let next = if self.in_backward {
            writer.checked_sub(1)
        } else {
            Some(writer + 1)
        };
        reader == writer || (self.is_last && next == Some(reader))
    }
}

/// A micro-step under way.
struct Run<'a> {
    program: &'a Program,
    values: HashMap<Operand, Value>,
    at: Writer,
    faults: Vec<Fault>,
}

impl<'a> Run<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            values: HashMap::new(),
            at: Writer::default(),
            faults: Vec::new(),
        }
    }

    fn micro_step(&mut self) {
        let program = self.program;
        let is_training = program.state.training.is_some();
        let nodes = program.micro_step(is_training);
        let forward = nodes.len() - program.backward.len();
        for (index, &(node, rows, _)) in nodes.iter().enumerate() {
            let next = nodes.get(index + 1).map(|(next, ..)| next.layer);
            self.at = Writer {
                layer: node.layer,
                in_backward: index >= forward,
                is_last: next != Some(node.layer),
            };
            self.step(node, rows < program.rows());
        }
        self.at = Writer::default();
        for node in &program.tally {
            self.step(node, false);
        }
    }

    fn gradients(&self) -> BTreeMap<String, u64> {
        let params = self.program.params.params.iter();
        let found = params.filter_map(|param| {
            let value = self.values.get(&Operand::Gradient(param.offset))?;
            Some((param.name.clone(), value.symbol))
        });
        found.collect()
    }

    /// Follows one operation. One of part of the rows changes what it writes.
    fn step(&mut self, node: &Node, is_partial: bool) {
        let flow = node.op.flow();
        let (scratch, reads) = (
            flow.scratch.map(Operand::Buffer),
            flow.reads.iter().chain(&flow.changes),
        );
        let results = flow.writes.iter().chain(&flow.changes);
        let mut others: Vec<Operand> = flow.reads.clone();
        for &operand in results.clone().chain(&scratch) {
            if others.contains(&operand) {
                let place = self.place(node, operand);
                self.faults.extend(place.map(Fault::Aliased));
            }
            others.push(operand);
        }
        let read: Vec<u64> = reads.map(|&operand| self.read(node, operand)).collect();
        let symbols = symbols_of(&node.op, &read);
        for (index, &operand) in results.enumerate() {
            self.write(node, operand, symbols(index), is_partial);
        }
        if let Some(scratch) = scratch {
            self.values.remove(&scratch);
        }
    }

    fn read(&mut self, node: &Node, operand: Operand) -> u64 {
        if let Some(value) = self.values.get_mut(&operand) {
            value.is_read = true;
            let Value { symbol, writer, .. } = *value;
            if !writer.is_seen_by(node.layer) {
                let place = self.place(node, operand);
                self.faults.extend(place.map(Fault::Stale));
            }
            return symbol;
        }
        let place = self.place(node, operand);
        self.faults.extend(place.map(Fault::ReadBeforeWrite));
        // Parameters and zeros, which are there before.
        symbol(operand)
    }

    fn write(&mut self, node: &Node, operand: Operand, result: u64, is_partial: bool) {
        let old = self.values.get(&operand).copied();
        let symbol = match old {
            Some(old) if is_partial => symbol((old.symbol, result)),
            _ => result,
        };
        // The same value once more is no loss: a recomputation writes the statistics again that are kept.
        if let Some(old) = old
            && !(old.is_read || is_partial || old.symbol == symbol)
        {
            let place = self.place(node, operand);
            let lost = place.filter(|_| !self.is_shared(operand));
            self.faults.extend(lost.map(Fault::LostWrite));
        }
        let value = Value {
            symbol,
            is_read: false,
            writer: self.at,
        };
        self.values.insert(operand, value);
    }

    /// Whether all blocks use the buffer in turn, so that values of a forward are lost on purpose.
    fn is_shared(&self, operand: Operand) -> bool {
        match operand {
            Operand::Buffer(id) => self.program.buffers[id.0].name.owner == Owner::AllBlocks,
            _ => false,
        }
    }

    /// The place of a buffer; `None` of other operands.
    fn place(&self, node: &Node, operand: Operand) -> Option<Place> {
        let Operand::Buffer(id) = operand else {
            return None;
        };
        Some(Place {
            op: node.op.kind(),
            layer: node.layer,
            buffer: self.program.buffers[id.0].name.to_string(),
        })
    }
}

/// The symbols of an operation's results, by their number. Work that is fused has the symbols of its parts, as a
/// recomputation has them.
fn symbols_of(op: &Op, read: &[u64]) -> impl Fn(usize) -> u64 {
    let norm = |affine: &[u64], x: u64| {
        let parts = (0..3).map(|part| symbol(("norm", affine, x, part)));
        parts.collect::<Vec<_>>()
    };
    let gelu = |form: Gelu, x: u64| symbol(("gelu", form, x));
    let known = match (op, read) {
        (Op::Norm { .. }, [affine @ .., x]) => norm(affine, *x),
        (Op::ResidualNorm { site, .. }, [affine @ .., x, branch]) => {
            let sum = symbol(("sum", site, x, branch));
            [vec![sum], norm(affine, sum)].concat()
        }
        (Op::Linear { .. }, read) => vec![symbol(("linear", read))],
        (Op::LinearGelu { form, .. }, read) => {
            let y = symbol(("linear", read));
            vec![y, gelu(*form, y)]
        }
        (Op::Gelu { form, .. }, [x]) => vec![gelu(*form, *x)],
        _ => Vec::new(),
    };
    let (form, heads) = match op {
        Op::GeluInputGradients { form, .. } => (Some(*form), None),
        Op::Attention { heads, .. } | Op::AttentionGradients { heads, .. } => (None, Some(*heads)),
        _ => (None, None),
    };
    let other = symbol((op.kind(), op.site(), form, heads, read));
    move |index| match known.get(index) {
        Some(result) => *result,
        None => symbol((other, index)),
    }
}
