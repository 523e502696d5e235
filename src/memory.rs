//! Every large buffer of a run, by name.
//!
//! Buffers are made by constructors that are generic over an [`Allocator`]. [`Planned`] only notes
//! what it is asked for, in the precision of any device; [`Host`] allocates. So what is planned and
//! what is allocated are equal by construction.

use std::convert::Infallible;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::faults::{Fault, Faults, Site};
use crate::ops::Element;
use crate::units;

/// What a buffer is for; the table is summed by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The parameters that the model computes with.
    Weights,
    /// The fp32 parameters behind weights of lower precision.
    Master,
    /// AdamW's two moments, fp32.
    Moments,
    /// Accumulators of the parameters' gradients, fp32.
    Gradients,
    /// What the forward keeps for the backward.
    Activations,
    /// The chunk of logits.
    Classifier,
    /// What is overwritten all the time.
    Workspaces,
    /// What taper does not allocate itself: the process, libraries.
    Reserve,
}

impl Group {
    pub const ALL: [Group; 8] = [
        Group::Weights,
        Group::Master,
        Group::Moments,
        Group::Gradients,
        Group::Activations,
        Group::Classifier,
        Group::Workspaces,
        Group::Reserve,
    ];
}

impl Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Group::Weights => "weights",
            Group::Master => "master weights",
            Group::Moments => "moments",
            Group::Gradients => "gradients",
            Group::Activations => "activations",
            Group::Classifier => "classifier chunk",
            Group::Workspaces => "workspaces",
            Group::Reserve => "reserve",
        })
    }
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub group: Group,
    pub name: String,
    pub bytes: u64,
}

/// The bytes of `rows` together; more than 64 bits can count is as much as they can.
pub fn total_bytes<'a>(rows: impl IntoIterator<Item = &'a Row>) -> u64 {
    let bytes = rows.into_iter().map(|row| row.bytes);
    bytes.fold(0, u64::saturating_add)
}

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

/// The device, or the limit set for it, refused memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of memory at {site}{}, with {} held{}",
    need_text(name, *bytes), units::bytes(*held), limit_text(*limit)
)]
pub struct OutOfMemory {
    pub site: Site,
    pub name: String,
    /// What was asked for; 0 where the device does not tell.
    pub bytes: u64,
    pub held: u64,
    /// What taper may hold, where that is what refused.
    pub limit: Option<u64>,
}

fn need_text(name: &str, bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(": `{name}` needs {}", units::bytes(bytes)),
    }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or(String::new(), |limit| {
        format!(", of {} allowed", units::bytes(limit))
    })
}

/// Why a request for memory was not met.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// Something other than a lack of memory.
    #[error("the device failed at {site}: {reason}")]
    Device { site: Site, reason: String },
}

/// Makes buffers, or only notes them.
pub trait Allocator {
    /// In the precision that the model computes in.
    type Compute;
    /// In fp32: statistics, losses, gradients of parameters, moments.
    type Full;
    /// Token ids, u32.
    type Ids;
    type Error;

    /// `len` zeros.
    fn compute(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Self::Compute, Self::Error>;
    fn full(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Self::Full, Self::Error>;
    fn ids(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Self::Ids, Self::Error>;
}

/// Notes what would be allocated.
#[derive(Debug)]
pub struct Planned {
    precision: Precision,
    bytes: u64,
    /// Absent where only the sum is wanted.
    rows: Option<Vec<Row>>,
}

impl Planned {
    /// Sums; a planner asks for hundreds of these.
    pub fn sum(precision: Precision) -> Self {
        Self {
            precision,
            bytes: 0,
            rows: None,
        }
    }

    /// Keeps every row.
    pub fn table(precision: Precision) -> Self {
        Self {
            precision,
            bytes: 0,
            rows: Some(Vec::new()),
        }
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    pub fn into_rows(self) -> Vec<Row> {
        self.rows.unwrap_or_default()
    }

    fn note(&mut self, group: Group, name: fmt::Arguments, len: usize, element_bytes: u64) {
        let bytes = (len as u64).saturating_mul(element_bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(rows) = &mut self.rows {
            rows.push(Row {
                group,
                name: name.to_string(),
                bytes,
            });
        }
    }
}

impl Allocator for Planned {
    type Compute = ();
    type Full = ();
    type Ids = ();
    type Error = Infallible;

    fn compute(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<(), Infallible> {
        self.note(group, name, len, self.precision.element_bytes());
        Ok(())
    }

    fn full(&mut self, group: Group, name: fmt::Arguments, len: usize) -> Result<(), Infallible> {
        self.note(group, name, len, size_of::<f32>() as u64);
        Ok(())
    }

    fn ids(&mut self, group: Group, name: fmt::Arguments, len: usize) -> Result<(), Infallible> {
        self.note(group, name, len, size_of::<u32>() as u64);
        Ok(())
    }
}

/// What a run holds on the host, and what it may hold.
#[derive(Debug, Default)]
pub struct Memory {
    rows: Vec<Row>,
    /// Held beside the rows: the process itself and its libraries.
    reserve_bytes: u64,
    limit_bytes: Option<u64>,
    faults: Faults,
}

impl Memory {
    /// Refuses what would bring the rows and the reserve above the limit.
    pub fn limited(limit_bytes: Option<u64>, reserve_bytes: u64, faults: Faults) -> Self {
        Self {
            rows: Vec::new(),
            reserve_bytes,
            limit_bytes,
            faults,
        }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn held_bytes(&self) -> u64 {
        self.reserve_bytes.saturating_add(total_bytes(&self.rows))
    }

    /// What may still be taken, where that is known.
    pub fn room_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes?.saturating_sub(self.held_bytes()))
    }

    /// Passed before work that takes memory of its own from a device; on the CPU none does, and only
    /// an injected fault refuses.
    pub fn enter(&mut self, site: Site) -> Result<(), AllocationError> {
        self.check(site, format_args!("{site}"), 0)
    }

    /// Forgets the rows after the first `count`, whose buffers were dropped.
    pub(crate) fn release_to(&mut self, count: usize) {
        self.rows.truncate(count);
    }

    fn check(
        &mut self,
        site: Site,
        name: fmt::Arguments,
        bytes: u64,
    ) -> Result<(), AllocationError> {
        let refused = |held, limit| OutOfMemory {
            site,
            name: name.to_string(),
            bytes,
            held,
            limit,
        };
        match self.faults.at(site) {
            Some(Fault::OutOfMemory) => return Err(refused(self.held_bytes(), None).into()),
            Some(Fault::Device) => {
                let reason = "a fault was injected".into();
                return Err(AllocationError::Device { site, reason });
            }
            None => {}
        }
        // Summed only where it can matter: a step passes here several times and must not be slowed.
        match self.limit_bytes {
            Some(limit) if bytes > 0 && self.held_bytes().saturating_add(bytes) > limit => {
                Err(refused(self.held_bytes(), Some(limit)).into())
            }
            _ => Ok(()),
        }
    }

    fn buffer<T: Copy>(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
        zero: T,
    ) -> Result<Vec<T>, AllocationError> {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        self.check(Site::Launch, name, bytes)?;
        let mut buffer = Vec::new();
        if buffer.try_reserve_exact(len).is_err() {
            return Err(OutOfMemory {
                site: Site::Launch,
                name: name.to_string(),
                bytes,
                held: self.held_bytes(),
                limit: None,
            }
            .into());
        }
        // Writing the zeros touches every page now, not in the first step.
        buffer.resize(len, zero);
        self.rows.push(Row {
            group,
            name: name.to_string(),
            bytes,
        });
        Ok(buffer)
    }
}

/// Larger allocations always go back to the system when they are freed. glibc keeps smaller ones once one
/// of their size was freed (mallopt(3), M_MMAP_THRESHOLD; DEFAULT_MMAP_THRESHOLD_MAX).
const KEPT_BYTES: usize = 32 << 20;

/// An empty buffer with room for `len` elements that are needed for a short time at launch: nothing of it
/// stays with the process, where it would come on top of the plan. What is not written takes no memory.
///
/// # Errors
/// When the system refuses.
pub(crate) fn passing_buffer<T>(len: usize) -> Result<Vec<T>, std::collections::TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len.max(1 + 2 * KEPT_BYTES / size_of::<T>()))?;
    Ok(buffer)
}

/// Allocates in the memory of the host. `T` stands for every precision: f32, or f64 in tests.
#[derive(Debug)]
pub struct Host<'a, T> {
    memory: &'a mut Memory,
    element: std::marker::PhantomData<T>,
}

impl<'a, T> Host<'a, T> {
    pub fn new(memory: &'a mut Memory) -> Self {
        Self {
            memory,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> Allocator for Host<'_, T> {
    type Compute = Vec<T>;
    type Full = Vec<T>;
    type Ids = Vec<u32>;
    type Error = AllocationError;

    fn compute(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<T>, AllocationError> {
        self.memory.buffer(group, name, len, T::ZERO)
    }

    fn full(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<T>, AllocationError> {
        self.memory.buffer(group, name, len, T::ZERO)
    }

    fn ids(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<u32>, AllocationError> {
        self.memory.buffer(group, name, len, 0)
    }
}
