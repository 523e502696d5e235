//! What names mean in the body of a function.

use std::collections::HashMap;

use super::ir::{Constant, Space};
use super::types::Type;
use crate::exec::code::{Address, PredicateUse, Reg, Source, Special};

/// An operand as it is written, names looked up.
#[derive(Clone, Debug)]
pub enum Operand<'a> {
    Register(Reg),
    Predicate(PredicateUse),
    Integer(u64),
    Single(u32),
    Double(u64),
    Special(Special),
    /// In brackets, or the bare name of a variable; with the space of that variable.
    Address(Address, Option<Space>),
    Vector(Vec<Operand<'a>>),
    /// `p|q`
    Pair(Box<(Operand<'a>, Operand<'a>)>),
    /// `_`
    Sink,
    /// Any other name: labels and functions.
    Name(&'a str),
}

#[derive(Clone, Copy)]
enum Meaning {
    Register(Reg),
    Predicate(u32),
    /// `%r<100>`: registers `%r0` and on.
    Registers {
        first: u32,
        count: u32,
        bits: u32,
    },
    Predicates {
        first: u32,
        count: u32,
    },
    /// An offset in the kernel's parameters.
    Param(u32),
    /// An offset in the function's local memory.
    Local(u32),
}

/// The names of one function, and the numbers given to them.
#[derive(Default)]
pub struct Names<'a> {
    scopes: Vec<HashMap<&'a str, Meaning>>,
    /// Variables of the module, with their spaces.
    variables: HashMap<&'a str, (usize, Space)>,
    pub registers: u32,
    pub register_bits: u32,
    pub predicates: u32,
    pub local_bytes: u32,
    pub constants: Vec<Constant>,
    numbers: HashMap<Constant, u32>,
    pub specials: Vec<(u32, Special)>,
    /// In a kernel, addresses in `.param` are offsets in its parameters.
    pub entry: bool,
    /// Functions by name.
    pub functions: HashMap<&'a str, usize>,
    /// `.target`, and whether it is for one architecture only.
    pub target: (u32, bool),
    /// Functions called.
    pub calls: Vec<usize>,
    /// By name and scope: what is inside braces hides what is outside.
    labels: HashMap<(&'a str, usize), u32>,
    /// Where each label stands.
    pub label_places: Vec<Option<u32>>,
    /// The scopes that are open, by number, and around which scope each was opened.
    open: Vec<usize>,
    parents: Vec<usize>,
    /// `.branchtargets` lists, by the label before them.
    pub tables: HashMap<&'a str, Vec<u32>>,
}

impl<'a> Names<'a> {
    /// Names of the module, before any of a function.
    pub fn add_variable(&mut self, name: &'a str, number: usize, space: Space) {
        self.variables.insert(name, (number, space));
    }

    /// Forgets the last function.
    pub fn start_function(&mut self, entry: bool) {
        let variables = std::mem::take(&mut self.variables);
        let functions = std::mem::take(&mut self.functions);
        let target = self.target;
        *self = Names {
            variables,
            functions,
            target,
            entry,
            scopes: vec![HashMap::new()],
            open: vec![0],
            parents: vec![0],
            ..Names::default()
        };
    }

    /// Refuses what the module's target has not; `only`: it needs `sm_90a`, not `sm_90`.
    pub fn needs_target(&self, target: u32, only: bool) -> Result<(), String> {
        let (has, of_one) = self.target;
        if has >= target && (of_one || !only) {
            Ok(())
        } else {
            Err(format!(
                "needs `.target sm_{target}{}`",
                if only { "a" } else { "" }
            ))
        }
    }

    pub fn open_scope(&mut self) {
        self.scopes.push(HashMap::new());
        self.parents.push(self.scope());
        self.open.push(self.parents.len() - 1);
    }

    pub fn close_scope(&mut self) {
        self.scopes.pop();
        self.open.pop();
    }

    fn scope(&self) -> usize {
        self.open.last().copied().unwrap_or(0)
    }

    fn declare(&mut self, name: &'a str, meaning: Meaning) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, meaning);
        }
    }

    /// `.reg`; `count` for `name<count>`.
    pub fn declare_registers(&mut self, name: &'a str, ty: Type, count: Option<u32>) {
        let (file, many) = match ty {
            Type::Pred => (&mut self.predicates, count.unwrap_or(1)),
            _ => (&mut self.registers, count.unwrap_or(1)),
        };
        let first = *file;
        *file += many;
        let bits = ty.bits();
        let meaning = match (ty, count) {
            (Type::Pred, None) => Meaning::Predicate(first),
            (Type::Pred, Some(count)) => Meaning::Predicates { first, count },
            (_, None) => Meaning::Register(Reg { index: first, bits }),
            (_, Some(count)) => Meaning::Registers { first, count, bits },
        };
        if ty != Type::Pred {
            self.register_bits += many * bits.max(32);
        }
        self.declare(name, meaning);
    }

    /// A parameter of a kernel.
    pub fn declare_param(&mut self, name: &'a str, offset: u32) {
        self.declare(name, Meaning::Param(offset));
    }

    /// A variable of each thread; its offset.
    pub fn declare_local(&mut self, name: &'a str, size: u32, align: u32) -> u32 {
        let offset = self.local_bytes.next_multiple_of(align.max(4));
        self.local_bytes = offset + size;
        self.declare(name, Meaning::Local(offset));
        offset
    }

    /// Where the local variable `name` lies.
    pub fn local(&self, name: &str) -> Option<u32> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| match scope.get(name) {
                Some(Meaning::Local(offset)) => Some(*offset),
                _ => None,
            })
    }

    pub fn constant(&mut self, constant: Constant) -> Source {
        let constants = &mut self.constants;
        let number = *self.numbers.entry(constant).or_insert_with(|| {
            constants.push(constant);
            constants.len() as u32 - 1
        });
        Source::constant(number)
    }

    /// The address itself, as a value.
    pub fn address(&mut self, Address { base, offset }: Address) -> Result<Source, String> {
        let known = match base.index() {
            _ if offset == 0 => return Ok(base),
            Err(constant) => match self.constants[constant] {
                Constant::Bits(bits) => Constant::Bits(bits.wrapping_add(offset)),
                Constant::Variable(number, plus) => {
                    Constant::Variable(number, plus.wrapping_add(offset))
                }
            },
            Ok(register) => {
                let special = self.specials.iter().find(|(r, _)| *r as usize == register);
                let Some(&(_, Special::Local(start))) = special else {
                    return Err("a register plus an offset is no value".into());
                };
                return Ok(self.special(Special::Local(start + offset as u32)));
            }
        };
        Ok(self.constant(known))
    }

    /// The register that holds a special value from the start.
    pub fn special(&mut self, special: Special) -> Source {
        if let Some((register, _)) = self.specials.iter().find(|(_, s)| *s == special) {
            return Source::register(*register);
        }
        let register = self.registers;
        self.registers += 1;
        self.specials.push((register, special));
        Source::register(register)
    }

    pub fn label(&mut self, name: &'a str) -> u32 {
        let scope = self.scope();
        let places = &mut self.label_places;
        *self.labels.entry((name, scope)).or_insert_with(|| {
            places.push(None);
            places.len() as u32 - 1
        })
    }

    /// Gives labels that do not stand in the scope that names them the places they have around it.
    ///
    /// # Errors
    /// The name of one that stands nowhere.
    pub fn resolve_labels(&mut self) -> Result<(), &'a str> {
        for (&(name, scope), &number) in &self.labels {
            let mut at = scope;
            while self.label_places[number as usize].is_none() && at != 0 {
                at = self.parents[at];
                let outer = self.labels.get(&(name, at));
                self.label_places[number as usize] =
                    outer.and_then(|&outer| self.label_places[outer as usize]);
            }
            if self.label_places[number as usize].is_none() {
                return Err(name);
            }
        }
        Ok(())
    }

    /// What a bare name stands for.
    pub fn operand(&mut self, name: &'a str) -> Operand<'a> {
        if name == "_" {
            return Operand::Sink;
        }
        if let Some(meaning) = self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.get(name))
            .copied()
        {
            return self.known(meaning);
        }
        if let Some(operand) = self.numbered(name) {
            return operand;
        }
        if let Some(special) = special(name) {
            return Operand::Special(special);
        }
        if let Some(value) = of_cluster(name) {
            return Operand::Integer(value);
        }
        if let Some(&(number, space)) = self.variables.get(name) {
            let base = self.constant(Constant::Variable(number, 0));
            return Operand::Address(Address { base, offset: 0 }, Some(space));
        }
        match name {
            "WARP_SZ" => Operand::Integer(32),
            _ => Operand::Name(name),
        }
    }

    fn known(&mut self, meaning: Meaning) -> Operand<'a> {
        let (base, space) = match meaning {
            Meaning::Register(reg) => return Operand::Register(reg),
            Meaning::Predicate(index) => {
                return Operand::Predicate(PredicateUse {
                    index,
                    negated: false,
                });
            }
            Meaning::Param(offset) => (
                self.constant(Constant::Bits(u64::from(offset))),
                Space::Param,
            ),
            Meaning::Local(offset) => (self.special(Special::Local(offset)), Space::Local),
            Meaning::Registers { .. } | Meaning::Predicates { .. } => return Operand::Sink,
        };
        Operand::Address(Address { base, offset: 0 }, Some(space))
    }

    /// `%r12` where `%r<100>` was declared.
    fn numbered(&self, name: &str) -> Option<Operand<'a>> {
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = (&name[..digits], name[digits..].parse::<u32>().ok()?);
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| match scope.get(prefix)? {
                Meaning::Registers { first, count, bits } if number < *count => {
                    Some(Operand::Register(Reg {
                        index: first + number,
                        bits: *bits,
                    }))
                }
                Meaning::Predicates { first, count } if number < *count => {
                    Some(Operand::Predicate(PredicateUse {
                        index: first + number,
                        negated: false,
                    }))
                }
                _ => None,
            })
    }
}

/// Every block is a cluster of its own.
fn of_cluster(name: &str) -> Option<u64> {
    match name {
        "%cluster_ctarank" | "%is_explicit_cluster" => Some(0),
        "%cluster_nctarank" => Some(1),
        _ => match name.split_once('.') {
            Some(("%cluster_ctaid", "x" | "y" | "z")) => Some(0),
            Some(("%cluster_nctaid", "x" | "y" | "z")) => Some(1),
            _ => None,
        },
    }
}

fn special(name: &str) -> Option<Special> {
    let (register, axis) = match name.split_once('.') {
        Some((register, "x")) => (register, 0),
        Some((register, "y")) => (register, 1),
        Some((register, "z")) => (register, 2),
        Some(_) => return None,
        None => (name, 3),
    };
    Some(match (register, axis) {
        ("%tid", 0..3) => Special::Tid(axis),
        ("%ntid", 0..3) => Special::Ntid(axis),
        ("%ctaid", 0..3) => Special::Ctaid(axis),
        ("%nctaid", 0..3) => Special::Nctaid(axis),
        ("%laneid", 3) => Special::LaneId,
        ("%warpid", 3) => Special::WarpId,
        ("%nwarpid", 3) => Special::NWarpId,
        ("%smid", 3) => Special::SmId,
        ("%nsmid", 3) => Special::NSmId,
        ("%gridid", 3) => Special::GridId,
        ("%lanemask_eq", 3) => Special::MaskEq,
        ("%lanemask_lt", 3) => Special::MaskLt,
        ("%lanemask_le", 3) => Special::MaskLe,
        ("%lanemask_gt", 3) => Special::MaskGt,
        ("%lanemask_ge", 3) => Special::MaskGe,
        ("%dynamic_smem_size", 3) => Special::DynamicShared,
        ("%total_smem_size", 3) => Special::TotalShared,
        (
            "%clock" | "%clock_hi" | "%clock64" | "%globaltimer" | "%globaltimer_lo"
            | "%globaltimer_hi",
            3,
        ) => Special::Clock,
        _ => return None,
    })
}
