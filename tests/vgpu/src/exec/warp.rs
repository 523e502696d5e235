//! A warp: 32 threads, one instruction at a time.
//!
//! Where the lanes of a branch part, one side waits on a stack until the other has come to the branch's immediate post-dominator.

use super::async_copy::Copies;
use super::code::{Code, Instruction, PredicateSource, PredicateUse, Reg, Source, Special};
use super::flow::{Barrier, Call};
use super::lanes::{Lanes, WARP};
use super::local::Local;
use super::memory_ops::lanes;
use super::running::Running;
use super::shared::Shared;
use super::warp_ops::members;
use crate::fault::{Fault, What};
use crate::memory::Actor;
use crate::ptx::cfg::NOWHERE;

/// Instructions before another warp of the block has its turn.
const TURN: u64 = 1 << 16;

/// What the warps of a block share.
pub struct Machine<'r> {
    pub running: &'r Running<'r>,
    pub block: [u32; 3],
    pub shared: Shared,
    pub actor: Actor,
}

/// What is wrong with one lane.
pub struct Trouble {
    pub lane: usize,
    pub address: Option<u64>,
    pub what: What,
}

impl Trouble {
    #[cold]
    pub fn at(lane: usize, address: u64, what: What) -> Self {
        Self {
            lane,
            address: Some(address),
            what,
        }
    }
    #[cold]
    pub fn of(lane: usize, what: What) -> Self {
        Self {
            lane,
            address: None,
            what,
        }
    }
}

/// Where the registers and constants of the running function are.
#[derive(Clone, Copy)]
pub struct View<'r> {
    pub registers: usize,
    pub predicates: usize,
    pub constants: &'r [Lanes],
    /// Of the instruction.
    pub line: u32,
}

/// A call under way.
struct Frame {
    function: usize,
    registers: usize,
    predicates: usize,
    /// Start of its local memory.
    local: u32,
    paths: Vec<Path>,
    /// What to do with its results.
    returned: Vec<(u32, u32, u32)>,
    mask: u32,
}

/// Lanes that go together.
#[derive(Clone, Copy)]
struct Path {
    at: u32,
    /// Where they wait for the others.
    reconverge: u32,
    mask: u32,
}

/// Why a warp stops.
pub enum Pause<'r> {
    Ended,
    Turn,
    /// At a barrier, with these lanes.
    Barrier(&'r Barrier, u32),
}

#[derive(Default)]
pub struct Warp {
    pub registers: Vec<Lanes>,
    pub predicates: Vec<u32>,
    pub local: Local,
    pub copies: Copies,
    /// In the block.
    pub first_thread: u32,
    /// Lanes that have not ended.
    pub live: u32,
    carries: u32,
    frames: Vec<Frame>,
    executed: u64,
}

impl Warp {
    /// At the first instruction of the kernel, in a fresh block.
    pub fn start(&mut self, number: u32, machine: &Machine) {
        let running = machine.running;
        self.first_thread = number * WARP as u32;
        let count = (running.threads - self.first_thread).min(WARP as u32);
        self.live = u32::MAX >> (32 - count);
        self.frames.clear();
        self.local.resize(0);
        self.copies = Copies::default();
        self.executed = 0;
        self.enter(running.kernel, self.live, machine);
    }

    fn enter(&mut self, function: usize, mask: u32, machine: &Machine) {
        let code = &machine.running.functions[function];
        let (registers, predicates) = match self.frames.last() {
            None => (0, 0),
            Some(frame) => {
                let caller = &machine.running.functions[frame.function];
                (
                    frame.registers + caller.register_count as usize,
                    frame.predicates + caller.predicate_count as usize,
                )
            }
        };
        let fits = |have: usize, count: u32, base: usize| have.max(base + count as usize);
        self.registers.resize(
            fits(self.registers.len(), code.register_count, registers),
            Lanes::ZERO,
        );
        self.predicates.resize(
            fits(self.predicates.len(), code.predicate_count, predicates),
            0,
        );
        let local = self.local.size().next_multiple_of(16);
        self.local.resize(local + code.local_bytes);
        for &(register, special) in &code.specials {
            self.registers[registers + register as usize] = self.special(special, local, machine);
        }
        let paths = vec![Path {
            at: 0,
            reconverge: NOWHERE,
            mask,
        }];
        self.frames.push(Frame {
            function,
            registers,
            predicates,
            local,
            paths,
            returned: Vec::new(),
            mask,
        });
    }

    fn special(&self, special: Special, local: u32, machine: &Machine) -> Lanes {
        let running = machine.running;
        let [width, height, _] = running.block;
        let mut out = Lanes::ZERO;
        for (lane, x) in out.0.iter_mut().enumerate() {
            let thread = self.first_thread + lane as u32;
            let lane = lane as u32;
            *x = u64::from(match special {
                Special::Tid(0) => thread % width,
                Special::Tid(1) => thread / width % height,
                Special::Tid(_) => thread / width / height,
                Special::Ntid(axis) => running.block[usize::from(axis)],
                Special::Ctaid(axis) => machine.block[usize::from(axis)],
                Special::Nctaid(axis) => running.grid[usize::from(axis)],
                Special::LaneId => lane,
                Special::WarpId => self.first_thread / 32,
                Special::NWarpId => running.threads.div_ceil(32),
                Special::SmId => machine.actor.block % running.sm_count.max(1),
                Special::NSmId => running.sm_count,
                Special::GridId | Special::Clock => 0,
                Special::MaskEq => 1 << lane,
                Special::MaskLt => (1 << lane) - 1,
                Special::MaskLe => u32::MAX >> (31 - lane),
                Special::MaskGt => !(u32::MAX >> (31 - lane)),
                Special::MaskGe => u32::MAX << lane,
                Special::DynamicShared => running.dynamic_shared,
                Special::TotalShared => running.shared_bytes,
                Special::Local(offset) => local + offset,
            });
        }
        out
    }

    #[inline(always)]
    pub fn value<'a>(&'a self, view: &View<'a>, source: Source) -> &'a Lanes {
        match source.index() {
            Ok(register) => &self.registers[view.registers + register],
            Err(constant) => &view.constants[constant],
        }
    }

    #[inline(always)]
    pub fn set(&mut self, view: &View, to: Reg, mask: u32, value: &Lanes) {
        let register = &mut self.registers[view.registers + to.index as usize];
        if mask == u32::MAX {
            *register = *value;
        } else {
            for lane in lanes(mask) {
                register.0[lane] = value.0[lane];
            }
        }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, view: &View, to: u32, mask: u32, value: u32) {
        let predicate = &mut self.predicates[view.predicates + to as usize];
        *predicate = (*predicate & !mask) | (value & mask);
    }

    #[inline(always)]
    pub fn predicate(&self, view: &View, source: PredicateSource) -> u32 {
        match source {
            PredicateSource::Register(used) => self.used(view, used),
            PredicateSource::Constant(value) => u32::from(value).wrapping_neg(),
        }
    }

    #[inline(always)]
    fn used(&self, view: &View, used: PredicateUse) -> u32 {
        let bits = self.predicates[view.predicates + used.index as usize];
        if used.negated { !bits } else { bits }
    }

    /// The running function's view.
    pub fn view<'r>(&self, machine: &Machine<'r>) -> View<'r> {
        let (function, registers, predicates) = self
            .frames
            .last()
            .map_or((machine.running.kernel, 0, 0), |f| {
                (f.function, f.registers, f.predicates)
            });
        View {
            registers,
            predicates,
            constants: &machine.running.constants[function],
            line: 0,
        }
    }

    /// Runs until something stops it.
    pub fn run<'r>(&mut self, machine: &mut Machine<'r>) -> Result<Pause<'r>, Box<Fault>> {
        let until = self.executed + TURN;
        while let Some(frame) = self.frames.last() {
            let running = machine.running;
            let code: &'r [Instruction] = &running.functions[frame.function].code;
            let view = self.view(machine);
            if let Some(pause) = self.run_function(machine, code, view, until)? {
                return Ok(pause);
            }
            if self
                .frames
                .last()
                .is_some_and(|frame| frame.paths.is_empty())
            {
                self.leave();
            }
        }
        Ok(Pause::Ended)
    }

    /// Until the function ends, calls another, or is stopped.
    fn run_function<'r>(
        &mut self,
        machine: &mut Machine<'r>,
        code: &'r [Instruction],
        mut view: View<'r>,
        until: u64,
    ) -> Result<Option<Pause<'r>>, Box<Fault>> {
        loop {
            let Some(path) = self
                .frames
                .last_mut()
                .and_then(|frame| frame.paths.last_mut())
            else {
                return Ok(None);
            };
            if path.at == path.reconverge || path.mask == 0 {
                self.pop_path();
                continue;
            }
            let instruction = &code[path.at as usize];
            path.at += 1;
            let active = path.mask;
            self.executed += 1;
            let taken = match instruction.guard {
                None => active,
                Some(guard) => active & self.used(&view, guard),
            };
            if taken == 0 {
                continue;
            }
            view.line = instruction.line;
            match &instruction.code {
                Code::Lanes { run, to, from } => {
                    let mut out = Lanes::ZERO;
                    run(&from.map(|source| self.value(&view, source)), &mut out);
                    self.set(&view, *to, taken, &out);
                }
                Code::Branch { to, reconverge } => self.branch(*to, *reconverge, taken, active),
                Code::Call(call) => {
                    return match self.call(call, taken, machine) {
                        Ok(()) => Ok(None),
                        Err(trouble) => Err(self.fault(trouble, machine, instruction.line)),
                    };
                }
                Code::Barrier(barrier) => {
                    if taken != self.live {
                        let trouble = self.divergent(taken);
                        return Err(self.fault(trouble, machine, instruction.line));
                    }
                    return Ok(Some(Pause::Barrier(barrier, instruction.line)));
                }
                other => {
                    if let Err(trouble) = self.execute(other, machine, &view, taken) {
                        return Err(self.fault(trouble, machine, instruction.line));
                    }
                }
            }
            if self.executed >= until {
                let limit = machine.running.instructions_per_warp;
                if self.executed > limit {
                    let lane = taken.trailing_zeros() as usize;
                    let trouble = Trouble::of(lane, What::Endless(limit));
                    return Err(self.fault(trouble, machine, instruction.line));
                }
                return Ok(Some(Pause::Turn));
            }
        }
    }

    fn execute(
        &mut self,
        code: &Code,
        machine: &mut Machine,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        match code {
            Code::SetPredicate(set) => {
                let [a, b] = set.from.map(|source| self.value(view, source));
                let c = set.combine.map_or(0, |(_, by)| self.predicate(view, by));
                let results = set.run(a, b, c);
                for (to, result) in set.to.iter().zip(results) {
                    if let Some(to) = to {
                        self.set_predicate(view, *to, mask, result);
                    }
                }
            }
            Code::Predicate { to, run, from } => {
                let [a, b] = from.map(|source| self.predicate(view, source));
                self.set_predicate(view, *to, mask, run(a, b));
            }
            Code::Select { to, from, by } => {
                let by = self.predicate(view, *by);
                let [a, b] = from.map(|source| self.value(view, source));
                let keep = u64::MAX >> (64 - to.bits);
                let mut out = Lanes::ZERO;
                for (i, x) in out.0.iter_mut().enumerate() {
                    *x = if by >> i & 1 == 1 { a.0[i] } else { b.0[i] } & keep;
                }
                self.set(view, *to, mask, &out);
            }
            Code::Load(load) => load.run(machine, self, view, mask)?,
            Code::Store(store) => store.run(machine, self, view, mask)?,
            Code::Atomic(atomic) => atomic.run(machine, self, view, mask)?,
            Code::Shuffle(shuffle) => shuffle.run(self, view, mask)?,
            Code::Vote(vote) => vote.run(self, view, mask)?,
            Code::Match(matched) => matched.run(self, view, mask)?,
            Code::Reduce(reduce) => reduce.run(self, view, mask)?,
            Code::CopyAsync(copy) => copy.run(machine, self, view, mask)?,
            Code::LoadMatrix(load) => load.run(machine, self, view, mask)?,
            Code::Mma(mma) => mma.run(self, view, mask)?,
            Code::WarpBarrier { mask: members_of } => {
                let named = *self.value(view, *members_of);
                members(self, &named, mask, "bar.warp.sync")?;
                machine.shared.sync_lanes(self.first_thread as usize / WARP);
            }
            other => self.execute_more(other, machine, view, mask),
        }
        Ok(())
    }

    /// What cannot fail, and is rare or cheap.
    fn execute_more(&mut self, code: &Code, machine: &mut Machine, view: &View, mask: u32) {
        match code {
            Code::Pack { to, from, bits } => {
                let mut out = Lanes::ZERO;
                for (i, source) in from.iter().enumerate() {
                    let values = self.value(view, *source);
                    for (x, part) in out.0.iter_mut().zip(&values.0) {
                        *x |= (part & (u64::MAX >> (64 - bits))) << (i as u32 * bits);
                    }
                }
                self.set(view, *to, mask, &out);
            }
            Code::Unpack { to, from, bits } => {
                let values = *self.value(view, *from);
                for (i, to) in to.iter().enumerate() {
                    let Some(to) = to else { continue };
                    let part = values
                        .0
                        .map(|x| x >> (i as u32 * bits) & (u64::MAX >> (64 - bits)));
                    self.set(view, *to, mask, &Lanes(part));
                }
            }
            Code::Carry(carry) => {
                let (out, to, after) = carry.run(
                    carry.from.map(|source| self.value(view, source)),
                    self.carries,
                );
                self.set(view, to, mask, &out);
                self.carries = (self.carries & !mask) | (after & mask);
            }
            Code::Clock { to } => {
                let keep = u64::MAX >> (64 - to.bits);
                self.set(view, *to, mask, &Lanes::all(self.executed & keep));
            }
            Code::ActiveMask { to } => self.set(view, *to, mask, &Lanes::all(mask.into())),
            Code::Fence { card } => {
                if *card {
                    machine.running.memory.fence(&mut machine.actor);
                }
            }
            Code::BranchTable {
                index,
                to,
                reconverge,
            } => {
                let index = *self.value(view, *index);
                self.branch_table(&index, to, *reconverge, mask);
            }
            Code::Return => self.end_lanes(mask, false),
            Code::Exit => self.end_lanes(mask, true),
            Code::CommitCopies => self.copies.commit(mask),
            Code::WaitCopies { groups, commit } => {
                if *commit {
                    self.copies.commit(mask);
                }
                self.copies.wait(mask, *groups, machine, self.first_thread);
            }
            _ => {}
        }
    }

    fn pop_path(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.paths.pop();
        }
    }

    /// Of `active` lanes, those `taken` go to `to`, the others on.
    fn branch(&mut self, to: u32, reconverge: u32, taken: u32, active: u32) {
        let Some(path) = self
            .frames
            .last_mut()
            .and_then(|frame| frame.paths.last_mut())
        else {
            return;
        };
        let next = path.at;
        if taken == active {
            path.at = to;
            return;
        }
        self.part(
            reconverge,
            [(next, active & !taken), (to, taken)].into_iter(),
        );
    }

    /// Splits the lanes of the running path; the last one given runs first.
    fn part(&mut self, reconverge: u32, sides: impl Iterator<Item = (u32, u32)>) {
        let Some(paths) = self.frames.last_mut().map(|frame| &mut frame.paths) else {
            return;
        };
        let Some(path) = paths.last_mut() else { return };
        // Where the lanes already wait for that place, those below do so for them.
        if path.reconverge == reconverge {
            paths.pop();
        } else {
            path.at = reconverge;
        }
        paths.extend(
            sides
                .filter(|&(at, mask)| mask != 0 && at != reconverge)
                .map(|(at, mask)| Path {
                    at,
                    reconverge,
                    mask,
                }),
        );
    }

    fn branch_table(&mut self, index: &Lanes, to: &[u32], reconverge: u32, mask: u32) {
        // Lanes with an index beyond the list are undefined: they take its last target.
        let last = to.len().saturating_sub(1);
        let mut sides: Vec<(u32, u32)> = to.iter().map(|&at| (at, 0)).collect();
        for lane in lanes(mask) {
            if let Some(side) = sides.get_mut((index.0[lane] as u32 as usize).min(last)) {
                side.1 |= 1 << lane;
            }
        }
        let active = self
            .frames
            .last()
            .and_then(|frame| frame.paths.last())
            .map_or(mask, |path| path.mask);
        let next = self
            .frames
            .last()
            .and_then(|frame| frame.paths.last())
            .map_or(0, |path| path.at);
        sides.push((next, active & !mask));
        self.part(reconverge, sides.into_iter());
    }

    /// These lanes leave the function, or end for good.
    fn end_lanes(&mut self, mask: u32, for_good: bool) {
        let outermost = self.frames.len() == 1;
        if for_good || outermost {
            self.live &= !mask;
        }
        let first = if for_good { 0 } else { self.frames.len() - 1 };
        for frame in &mut self.frames[first..] {
            frame.paths.iter_mut().for_each(|path| path.mask &= !mask);
            frame.paths.retain(|path| path.mask != 0);
        }
    }

    fn call(&mut self, call: &Call, mask: u32, machine: &Machine) -> Result<(), Trouble> {
        let callee = &machine.running.functions[call.function];
        let caller = self.frames.last().map_or(0, |frame| frame.local);
        let lane = mask.trailing_zeros() as usize;
        if !callee.defined {
            let what = self.external(&callee.name, call, lane, caller, machine);
            return Err(Trouble::of(lane, what));
        }
        if self.frames.len() > 64 {
            return Err(Trouble::of(
                lane,
                What::Undefined("calls nested more than 64 deep".into()),
            ));
        }
        self.enter(call.function, mask, machine);
        if let Some(frame) = self.frames.last_mut() {
            let local = frame.local;
            let results = call.returned.iter().zip(&callee.returns);
            frame.returned = results
                .map(|(to, from)| (caller + to, local + from.offset, from.size))
                .collect();
            for (from, to) in call.arguments.iter().zip(&callee.params) {
                self.local
                    .copy(mask, local + to.offset, caller + from, to.size);
            }
        }
        Ok(())
    }

    /// Functions that the driver would provide.
    fn external(
        &self,
        name: &str,
        call: &Call,
        lane: usize,
        caller: u32,
        machine: &Machine,
    ) -> What {
        if name != "__assertfail" {
            return What::DeviceFunction(name.into());
        }
        let argument = |i: usize, size: usize| {
            let offset = call.arguments.get(i).copied().unwrap_or(0);
            self.local
                .load(lane, u64::from(caller + offset), size)
                .unwrap_or(0)
        };
        let text = |i: usize| machine.running.memory.text(argument(i, 8));
        What::Assert(format!(
            "`{}` in {} at {}:{}",
            text(0),
            text(3),
            text(1),
            argument(2, 4)
        ))
    }

    /// Back to the caller.
    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            for (to, from, size) in frame.returned {
                self.local.copy(frame.mask & self.live, to, from, size);
            }
            self.local.resize(frame.local);
        }
    }

    fn divergent(&self, here: u32) -> Trouble {
        let missing = self.live & !here;
        let what = format!(
            "{} of the {} threads of the warp get here, thread {} does not",
            here.count_ones(),
            self.live.count_ones(),
            self.first_thread + missing.trailing_zeros()
        );
        Trouble::of(
            here.trailing_zeros() as usize,
            What::BarrierDivergence(what),
        )
    }

    #[cold]
    pub fn fault(&self, trouble: Trouble, machine: &Machine, line: u32) -> Box<Fault> {
        let thread = self.first_thread + trouble.lane as u32;
        Box::new(Fault {
            place: Some(machine.running.place(line, machine.block, thread)),
            address: trouble.address,
            what: trouble.what,
        })
    }
}
