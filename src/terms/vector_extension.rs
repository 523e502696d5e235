//! Instruction sets of CPUs.

use std::fmt::{self, Display};

use serde::Serialize;

/// A vector extension that matters to GEMMs, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum VectorExtension {
    /// With FMA.
    Avx2,
    Avx512,
    Neon,
    Avx512Bf16,
    AmxBf16,
}

impl VectorExtension {
    /// Names of `extensions`, separated by spaces.
    pub fn names(extensions: &[Self]) -> String {
        let names: Vec<String> = extensions.iter().map(Self::to_string).collect();
        names.join(" ")
    }
}

impl Display for VectorExtension {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            VectorExtension::Avx2 => "AVX2",
            VectorExtension::Avx512 => "AVX-512",
            VectorExtension::Neon => "NEON",
            VectorExtension::Avx512Bf16 => "AVX512-BF16",
            VectorExtension::AmxBf16 => "AMX-BF16",
        })
    }
}

impl From<VectorExtension> for String {
    fn from(extension: VectorExtension) -> String {
        extension.to_string()
    }
}
