//! Operand types of instructions.

/// A type modifier, `.u32` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    U16x2,
    S16x2,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    E4m3x2,
    E5m2x2,
}

const NAMES: [(&str, Type, u32); 25] = [
    ("pred", Type::Pred, 1),
    ("b8", Type::B8, 8),
    ("b16", Type::B16, 16),
    ("b32", Type::B32, 32),
    ("b64", Type::B64, 64),
    ("b128", Type::B128, 128),
    ("u8", Type::U8, 8),
    ("u16", Type::U16, 16),
    ("u32", Type::U32, 32),
    ("u64", Type::U64, 64),
    ("s8", Type::S8, 8),
    ("s16", Type::S16, 16),
    ("s32", Type::S32, 32),
    ("s64", Type::S64, 64),
    ("u16x2", Type::U16x2, 32),
    ("s16x2", Type::S16x2, 32),
    ("f16", Type::F16, 16),
    ("f16x2", Type::F16x2, 32),
    ("bf16", Type::Bf16, 16),
    ("bf16x2", Type::Bf16x2, 32),
    ("tf32", Type::Tf32, 32),
    ("f32", Type::F32, 32),
    ("f64", Type::F64, 64),
    ("e4m3x2", Type::E4m3x2, 16),
    ("e5m2x2", Type::E5m2x2, 16),
];

impl Type {
    /// From the name without its dot.
    pub fn named(name: &str) -> Option<Type> {
        NAMES
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|&(_, ty, _)| ty)
    }

    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, ty, _)| *ty == self)
            .map_or("", |(name, ..)| name)
    }

    pub fn bits(self) -> u32 {
        NAMES
            .iter()
            .find(|(_, ty, _)| *ty == self)
            .map_or(0, |&(.., bits)| bits)
    }

    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    pub fn signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    pub fn float(self) -> bool {
        matches!(
            self,
            Type::F16 | Type::Bf16 | Type::Tf32 | Type::F32 | Type::F64
        )
    }
}
