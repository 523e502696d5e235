//! A module, ready to run.

use crate::exec::code::{Instruction, Special};
use crate::exec::products::Mention;

/// What one PTX text holds.
#[derive(Default)]
pub struct Module {
    /// `.version`: major, minor.
    pub version: (u32, u32),
    /// `.target`: 80 for `sm_80`.
    pub target: u32,
    /// `sm_90a`, not `sm_90`: for this architecture only.
    pub target_only: bool,
    pub functions: Vec<Function>,
    /// Variables of the module and of its functions, but not their locals.
    pub variables: Vec<Variable>,
}

impl Module {
    /// The kernel of this (mangled) name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name && f.entry)
    }
}

/// A kernel (`.entry`) or what it calls (`.func`).
#[derive(Default)]
pub struct Function {
    pub name: String,
    pub entry: bool,
    /// It has a body.
    pub defined: bool,
    pub params: Vec<Param>,
    /// Bytes of the whole parameter buffer.
    pub param_bytes: u32,
    /// Bytes of `.shared` variables of known size, with those of the functions it calls.
    pub static_shared: u32,
    /// Bytes of `.local` variables of one thread, and of what it passes to functions.
    pub local_bytes: u32,
    /// Declared 32-bit registers of one thread: an upper bound, no register allocation is done.
    pub registers: u32,
    /// `.maxntid`, multiplied out.
    pub max_threads: Option<u32>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// Of a `.func`: what it returns, as offsets in its local memory. `params` are such offsets, too.
    pub returns: Vec<Param>,

    pub(crate) code: Vec<Instruction>,
    /// Registers that each instruction names; empty where the function has no `wgmma`.
    pub(crate) mentions: Vec<Mention>,
    /// Registers in a warp's file: declared ones, then one for each of `specials`.
    pub(crate) register_count: u32,
    pub(crate) predicate_count: u32,
    pub(crate) constants: Vec<Constant>,
    /// Registers to fill when the function starts.
    pub(crate) specials: Vec<(u32, Special)>,
    /// Functions it calls.
    pub(crate) calls: Vec<usize>,
}

/// One parameter in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub size: u32,
    pub align: u32,
}

/// A value known before the kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Bits(u64),
    /// The address of a variable of the module, plus so many bytes.
    Variable(usize, u64),
}

/// Where a variable lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Decided by the address.
    Generic,
    Global,
    Const,
    Shared,
    Local,
    /// The kernel's parameters.
    Param,
}

impl Space {
    pub fn name(self) -> &'static str {
        match self {
            Space::Generic => "generic",
            Space::Global => "global",
            Space::Const => "const",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Param => "param",
        }
    }
}

/// A `.global`, `.const` or `.shared` variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u32,
    /// Zero for `.extern .shared` arrays: what the launch gives.
    pub size: u32,
    /// First bytes; the rest is zero.
    pub initial: Vec<u8>,
    /// Offsets in `initial` that hold the address of another variable, plus so many bytes.
    pub addresses: Vec<(u32, String, u64)>,
    /// `.extern`: the size is not known here.
    pub external: bool,
}
