//! Every large buffer of a run, by name.
//!
//! Buffers are made by constructors that ask a [`Memory`] for them. The same constructor walked with
//! a planning `Memory` allocates nothing and yields the table of what it would; so what is planned
//! and what is allocated are equal by construction.

use crate::ops::Element;

/// What a buffer is for; the table is summed by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Weights,
    Gradients,
    Optimizer,
    Activations,
    Workspace,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub group: Group,
    pub name: String,
    pub bytes: u64,
}

/// The allocator refused a buffer.
#[derive(Debug, thiserror::Error)]
#[error("out of memory: `{name}` needs {bytes} bytes on top of the {held} bytes already held")]
pub struct OutOfMemory {
    pub name: String,
    pub bytes: u64,
    pub held: u64,
}

/// Hands out buffers and remembers them; or, when planning, only remembers.
#[derive(Debug)]
pub struct Memory {
    rows: Vec<Row>,
    planning: bool,
}

impl Memory {
    /// Buffers are made empty, and only their sizes are noted.
    pub fn planning() -> Self {
        Self {
            rows: Vec::new(),
            planning: true,
        }
    }

    /// Buffers are allocated.
    pub fn allocating() -> Self {
        Self {
            rows: Vec::new(),
            planning: false,
        }
    }

    /// A buffer of `len` zeros.
    pub fn buffer<T: Element>(
        &mut self,
        group: Group,
        name: impl Into<String>,
        len: usize,
    ) -> Result<Vec<T>, OutOfMemory> {
        let row = Row {
            group,
            name: name.into(),
            bytes: (len * size_of::<T>()) as u64,
        };
        let mut buffer = Vec::new();
        if !self.planning {
            if buffer.try_reserve_exact(len).is_err() {
                return Err(OutOfMemory {
                    name: row.name,
                    bytes: row.bytes,
                    held: self.total_bytes(),
                });
            }
            // Writing the zeros touches every page now, not in the first step.
            buffer.resize(len, T::ZERO);
        }
        self.rows.push(row);
        Ok(buffer)
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn total_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }
}
