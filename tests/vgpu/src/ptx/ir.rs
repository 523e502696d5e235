//! A module, ready to run.

/// What one PTX text holds.
#[derive(Default)]
pub struct Module {
    /// `.version`: major, minor.
    pub version: (u32, u32),
    /// `.target`: 80 for `sm_80`.
    pub target: u32,
    pub functions: Vec<Function>,
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
    pub params: Vec<Param>,
    /// Bytes of the whole parameter buffer.
    pub param_bytes: u32,
    /// Bytes of `.shared` variables of known size.
    pub static_shared: u32,
    /// Bytes of `.local` variables of one thread.
    pub local_bytes: u32,
    /// Declared 32-bit registers of one thread: an upper bound, no register allocation is done.
    pub registers: u32,
    /// `.maxntid`, multiplied out.
    pub max_threads: Option<u32>,
}

/// One parameter in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub size: u32,
    pub align: u32,
}
