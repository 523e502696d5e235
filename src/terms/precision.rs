//! Number formats.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// The precision of weights and activations; all else is fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    Float32,
    Bfloat16,
    /// Trained with a loss scaler.
    Float16,
}

impl Precision {
    pub fn element_bytes(self) -> u64 {
        match self {
            Precision::Float32 => 4,
            Precision::Bfloat16 | Precision::Float16 => 2,
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f32 {
        match self {
            Precision::Float32 => f32::MAX,
            // Eight significant bits, and the exponent of f32.
            Precision::Bfloat16 => f32::from_bits(0x7f7f_0000),
            Precision::Float16 => 65_504.0,
        }
    }

    /// Whether fp32 master weights stand behind the weights.
    pub fn is_mixed(self) -> bool {
        self != Precision::Float32
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Precision::Float32 => "float32",
            Precision::Bfloat16 => "bfloat16",
            Precision::Float16 => "float16",
        })
    }
}

/// The type of a GEMM's A and B. Sums are fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    Float32,
    /// fp32 in memory, multiplied in TF32.
    Tf32,
    /// fp32 in memory, multiplied in bf16; only CPUs with bf16 instructions.
    Float32AsBfloat16,
    /// fp32 in memory, multiplied as three bf16 pieces each, at fp32's accuracy; only CPUs with AMX.
    Float32InPieces,
    Bfloat16,
    Float16,
}

/// The [`Inputs`] that GPUs multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuInputs {
    Float32,
    Tf32,
    Bfloat16,
    Float16,
}

impl From<Precision> for Inputs {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Float32 => Inputs::Float32,
            Precision::Bfloat16 => Inputs::Bfloat16,
            Precision::Float16 => Inputs::Float16,
        }
    }
}

impl Inputs {
    /// Precision of an element in memory.
    pub fn storage(self) -> Precision {
        match self {
            Inputs::Float32
            | Inputs::Tf32
            | Inputs::Float32AsBfloat16
            | Inputs::Float32InPieces => Precision::Float32,
            Inputs::Bfloat16 => Precision::Bfloat16,
            Inputs::Float16 => Precision::Float16,
        }
    }

    /// Bytes of an element in memory.
    pub fn element_bytes(self) -> u64 {
        self.storage().element_bytes()
    }

    /// The same on a GPU; `None` for those of CPUs alone.
    pub fn on_gpu(self) -> Option<GpuInputs> {
        match self {
            Inputs::Float32 => Some(GpuInputs::Float32),
            Inputs::Tf32 => Some(GpuInputs::Tf32),
            Inputs::Bfloat16 => Some(GpuInputs::Bfloat16),
            Inputs::Float16 => Some(GpuInputs::Float16),
            Inputs::Float32AsBfloat16 | Inputs::Float32InPieces => None,
        }
    }
}

impl Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Inputs::Float32 => "float32",
            Inputs::Tf32 => "tf32",
            Inputs::Float32AsBfloat16 => "float32 as bfloat16",
            Inputs::Float32InPieces => "float32 in bfloat16 pieces",
            Inputs::Bfloat16 => "bfloat16",
            Inputs::Float16 => "float16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_keep_their_spellings_in_files_and_messages() {
        for (inputs, stored, shown) in [
            (Inputs::Float32, "float32", "float32"),
            (Inputs::Tf32, "tf32", "tf32"),
            (
                Inputs::Float32AsBfloat16,
                "float32asbfloat16",
                "float32 as bfloat16",
            ),
            (
                Inputs::Float32InPieces,
                "float32inpieces",
                "float32 in bfloat16 pieces",
            ),
            (Inputs::Bfloat16, "bfloat16", "bfloat16"),
            (Inputs::Float16, "float16", "float16"),
        ] {
            let json = format!("\"{stored}\"");
            assert_eq!(serde_json::to_string(&inputs).unwrap(), json);
            assert_eq!(serde_json::from_str::<Inputs>(&json).unwrap(), inputs);
            assert_eq!(inputs.to_string(), shown);
        }
    }

    #[test]
    fn every_precision_is_the_storage_of_inputs_that_gpus_multiply() {
        for precision in [Precision::Float32, Precision::Bfloat16, Precision::Float16] {
            let inputs = Inputs::from(precision);
            assert_eq!(inputs.storage(), precision);
            assert!(inputs.on_gpu().is_some());
        }
    }
}
