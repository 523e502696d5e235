//! From a mnemonic and its operands to what is executed. Every modifier must be understood: one that is left over
//! refuses the instruction, for executing it would be guessing.

use super::code::{Address, Code, PredicateSource, PredicateUse, Reg, Source};
use super::lanes::LaneFn;
use super::{
    async_copy, atomics, bits, bulk, compare, convert, float, flow, half_float, integer, mbarrier,
    memory_ops, moves, proxy, tensor, warp_ops, wgmma,
};
use crate::ptx::ir::{Constant, Space};
use crate::ptx::names::{Names, Operand};
use crate::ptx::types::Type;

/// Why an instruction is refused.
pub type Refusal = String;
pub type Decoded = Result<Option<Code>, Refusal>;

/// An instruction while it is decoded.
pub struct Decoding<'a, 'n> {
    pub name: &'a str,
    /// Type modifiers, in order.
    pub types: Vec<Type>,
    /// All others that no one has asked for yet.
    modifiers: Vec<&'a str>,
    pub operands: Vec<Operand<'a>>,
    pub names: &'n mut Names<'a>,
}

const FAMILIES: [fn(&mut Decoding) -> Decoded; 17] = [
    proxy::decode,
    memory_ops::decode,
    integer::decode,
    bits::decode,
    float::decode,
    moves::decode,
    compare::decode,
    convert::decode,
    half_float::decode,
    flow::decode,
    atomics::decode,
    warp_ops::decode,
    async_copy::decode,
    bulk::decode,
    tensor::decode,
    mbarrier::decode,
    wgmma::decode,
];

/// What `mnemonic` with these operands does.
///
/// # Errors
/// The instruction, one of its modifiers, or an operand is not executed here.
pub fn decode<'a>(
    mnemonic: &'a str,
    operands: Vec<Operand<'a>>,
    names: &mut Names<'a>,
) -> Result<Code, Refusal> {
    let mut parts = mnemonic.split('.');
    let name = parts.next().unwrap_or_default();
    let (mut types, mut modifiers) = (Vec::new(), Vec::new());
    for part in parts {
        match Type::named(part) {
            Some(ty) => types.push(ty),
            None => modifiers.push(part),
        }
    }
    let mut decoding = Decoding {
        name,
        types,
        modifiers,
        operands,
        names,
    };
    for family in FAMILIES {
        if let Some(code) = family(&mut decoding).map_err(|why| format!("`{mnemonic}`: {why}"))? {
            return match decoding.modifiers.first() {
                None => Ok(code),
                Some(left) => Err(format!(
                    "`{mnemonic}`: `.{left}` is not executed by the virtual GPU"
                )),
            };
        }
    }
    Err(format!("`{mnemonic}` is not executed by the virtual GPU"))
}

impl<'a> Decoding<'a, '_> {
    /// Whether a modifier is there; it counts as understood.
    pub fn take(&mut self, modifier: &str) -> bool {
        let found = self.modifiers.iter().position(|m| *m == modifier);
        found.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// The one modifier of a list that is there.
    pub fn take_one_of<T: Copy>(&mut self, list: &[(&str, T)]) -> Option<T> {
        list.iter()
            .find(|(name, _)| self.take(name))
            .map(|&(_, value)| value)
    }

    /// Forgets modifiers that say how fast, not what.
    pub fn ignore(&mut self, wanted: impl Fn(&str) -> bool) {
        self.modifiers.retain(|m| !wanted(m));
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// The type of an instruction that has one.
    pub fn ty(&self) -> Result<Type, Refusal> {
        match self.types[..] {
            [ty] => Ok(ty),
            _ => Err(format!("one type was expected, {} found", self.types.len())),
        }
    }

    pub fn operand(&self, at: usize) -> Result<&Operand<'a>, Refusal> {
        self.operands
            .get(at)
            .ok_or_else(|| format!("operand {} is missing", at + 1))
    }

    pub fn expect_operands(&self, count: usize) -> Result<(), Refusal> {
        match self.operands.len() {
            n if n == count => Ok(()),
            n => Err(format!("{count} operands were expected, {n} found")),
        }
    }

    /// The register that operand `at` names.
    pub fn to(&self, at: usize) -> Result<Reg, Refusal> {
        register(self.operand(at)?)
    }

    /// The predicate register that operand `at` names.
    pub fn to_predicate(&self, at: usize) -> Result<u32, Refusal> {
        match self.operand(at)? {
            Operand::Predicate(PredicateUse {
                index,
                negated: false,
            }) => Ok(*index),
            other => Err(format!(
                "operand {} must be a predicate register, not {other:?}",
                at + 1
            )),
        }
    }

    pub fn predicate(&self, at: usize) -> Result<PredicateSource, Refusal> {
        match self.operand(at)? {
            Operand::Predicate(used) => Ok(PredicateSource::Register(*used)),
            Operand::Integer(value) => Ok(PredicateSource::Constant(*value != 0)),
            other => Err(format!(
                "operand {} must be a predicate, not {other:?}",
                at + 1
            )),
        }
    }

    /// The value of operand `at`, of type `ty` where it is written out.
    pub fn from(&mut self, at: usize, ty: Type) -> Result<Source, Refusal> {
        let operand = self.operand(at)?.clone();
        self.source(&operand, ty)
    }

    pub fn source(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Source, Refusal> {
        let bits = match *operand {
            Operand::Register(reg) => return Ok(Source::register(reg.index)),
            Operand::Special(special) => return Ok(self.names.special(special)),
            Operand::Address(address, _) => return self.names.address(address),
            Operand::Integer(value) if ty.float() => match ty {
                Type::F64 => (value as i64 as f64).to_bits(),
                _ => u64::from((value as i64 as f32).to_bits()),
            },
            Operand::Integer(value) => value,
            Operand::Single(bits) if ty == Type::F64 => f64::from(f32::from_bits(bits)).to_bits(),
            Operand::Single(bits) => u64::from(bits),
            Operand::Double(bits) if ty == Type::F32 => {
                u64::from((f64::from_bits(bits) as f32).to_bits())
            }
            Operand::Double(bits) => bits,
            ref other => return Err(format!("a value was expected, not {other:?}")),
        };
        Ok(self.names.constant(Constant::Bits(bits)))
    }

    pub fn constant(&mut self, bits: u64) -> Source {
        self.names.constant(Constant::Bits(bits))
    }

    /// The address that operand `at` gives, and the space of the variable it is built on.
    pub fn address(&self, at: usize) -> Result<(Address, Option<Space>), Refusal> {
        match *self.operand(at)? {
            Operand::Address(address, space) => Ok((address, space)),
            ref other => Err(format!(
                "operand {} must be an address, not {other:?}",
                at + 1
            )),
        }
    }

    /// A number that must be known when the text is read.
    pub fn integer(&self, at: usize) -> Result<u64, Refusal> {
        match *self.operand(at)? {
            Operand::Integer(value) => Ok(value),
            ref other => Err(format!(
                "operand {} must be a number, not {other:?}",
                at + 1
            )),
        }
    }

    /// Registers of a vector operand, or of a single one.
    pub fn vector(&self, at: usize) -> Result<Vec<Operand<'a>>, Refusal> {
        Ok(match self.operand(at)? {
            Operand::Vector(list) => list.clone(),
            other => vec![other.clone()],
        })
    }

    pub fn vector_to(&self, at: usize) -> Result<Vec<Option<Reg>>, Refusal> {
        let sink = |operand: &Operand| match operand {
            Operand::Sink => Ok(None),
            other => register(other).map(Some),
        };
        self.vector(at)?.iter().map(sink).collect()
    }

    pub fn vector_from(&mut self, at: usize, ty: Type) -> Result<Vec<Source>, Refusal> {
        let list = self.vector(at)?;
        list.iter()
            .map(|operand| self.source(operand, ty))
            .collect()
    }

    /// An instruction whose first operand is made of the others, which have these types.
    pub fn lanes(&mut self, types: &[Type], run: LaneFn) -> Decoded {
        self.expect_operands(types.len() + 1)?;
        let to = self.to(0)?;
        let mut from = [self.constant(0); 4];
        for (i, ty) in types.iter().enumerate() {
            from[i] = self.from(i + 1, *ty)?;
        }
        Ok(Some(Code::Lanes { run, to, from }))
    }
}

fn register(operand: &Operand) -> Result<Reg, Refusal> {
    match operand {
        Operand::Register(reg) => Ok(*reg),
        other => Err(format!("a register was expected, not {other:?}")),
    }
}
