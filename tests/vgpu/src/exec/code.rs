//! Instructions as they are executed: registers are numbers, arithmetic is a function over 32 lanes.

use super::async_copy::CopyAsync;
use super::atomics::Atomic;
use super::bulk::BulkCopy;
use super::bulk_tensor::TensorCopy;
use super::compare::SetPredicate;
use super::flow::{Barrier, Call};
use super::integer::Carry;
use super::lanes::LaneFn;
use super::mbarrier::MBarrierOp;
use super::memory_ops::{Load, Store};
use super::proxy::Elect;
use super::tensor::{LoadMatrix, Mma};
use super::warp_ops::{Match, Reduce, Shuffle, Vote};
use super::wgmma::Wgmma;

/// One instruction and where it was written.
pub struct Instruction {
    pub line: u32,
    pub guard: Option<PredicateUse>,
    pub code: Code,
}

/// A predicate register, or its negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredicateUse {
    pub index: u32,
    pub negated: bool,
}

/// What a predicate operand may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateSource {
    Register(PredicateUse),
    Constant(bool),
}

/// A register of the function and its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg {
    pub index: u32,
    pub bits: u32,
}

/// A register of the function, or one of its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(u32);

const CONSTANT: u32 = 1 << 31;

impl Source {
    pub fn register(index: u32) -> Self {
        Self(index)
    }
    pub fn constant(index: u32) -> Self {
        Self(index | CONSTANT)
    }
    /// The number of a register, or of a constant.
    #[inline(always)]
    pub fn index(self) -> Result<usize, usize> {
        if self.0 & CONSTANT == 0 {
            Ok(self.0 as usize)
        } else {
            Err((self.0 & !CONSTANT) as usize)
        }
    }
}

/// Values that the launch, the block or the thread decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    DynamicShared,
    TotalShared,
    /// Changes while the thread runs.
    Clock,
    /// An offset in the function's part of local memory.
    Local(u32),
}

/// A place in memory: base plus offset.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Source,
    pub offset: u64,
}

/// What an instruction does.
pub enum Code {
    Nothing,
    Lanes {
        run: LaneFn,
        to: Reg,
        from: [Source; 4],
    },
    Pack {
        to: Reg,
        from: Vec<Source>,
        bits: u32,
    },
    Unpack {
        to: Vec<Option<Reg>>,
        from: Source,
        bits: u32,
    },
    SetPredicate(Box<SetPredicate>),
    Predicate {
        to: u32,
        run: fn(u32, u32) -> u32,
        from: [PredicateSource; 2],
    },
    Select {
        to: Reg,
        from: [Source; 2],
        by: PredicateSource,
    },
    Carry(Box<Carry>),
    Clock {
        to: Reg,
    },
    Load(Box<Load>),
    Store(Box<Store>),
    Atomic(Box<Atomic>),
    Fence {
        card: bool,
    },
    Branch {
        to: u32,
        reconverge: u32,
    },
    BranchTable {
        index: Source,
        to: Vec<u32>,
        reconverge: u32,
    },
    Call(Box<Call>),
    Return,
    Exit,
    Trap,
    Barrier(Box<Barrier>),
    WarpBarrier {
        mask: Source,
    },
    Shuffle(Box<Shuffle>),
    Vote(Box<Vote>),
    Match(Box<Match>),
    Reduce(Box<Reduce>),
    ActiveMask {
        to: Reg,
    },
    CopyAsync(Box<CopyAsync>),
    CommitCopies,
    /// Until at most so many groups are under way; `commit` what is not yet in one before.
    WaitCopies {
        groups: usize,
        commit: bool,
    },
    LoadMatrix(Box<LoadMatrix>),
    Mma(Box<Mma>),
    MBarrier(Box<MBarrierOp>),
    /// Of shared memory's `data`, or only of mbarriers.
    ProxyFence {
        data: bool,
    },
    Elect(Box<Elect>),
    /// Registers of each thread, more or fewer than before.
    SetRegisters {
        count: u32,
        more: bool,
    },
    CopyBulk(Box<BulkCopy>),
    CopyTensor(Box<TensorCopy>),
    CommitBulk,
    WaitBulk {
        groups: usize,
    },
    Wgmma(Box<Wgmma>),
    FenceProducts,
    CommitProducts,
    WaitProducts {
        groups: u32,
    },
}
