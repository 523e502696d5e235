//! A warp: 32 threads, one instruction at a time.
//!
//! If the lanes of a branch part, one side waits on a stack until the other has come to the branch's immediate post-dominator.

use super::async_copy::Copies;
use super::bulk::BulkGroups;
use super::code::{Code, Instruction, PredicateSource, PredicateUse, Reg, Source};
use super::flow::Barrier;
use super::lanes::{Lanes, WARP};
use super::local::Local;
use super::memory_ops::lanes;
use super::phases::MBarriers;
use super::products::Products;
use super::proxy::change_registers;
use super::running::Running;
use super::shared::Shared;
use crate::fault::{Fault, What};
use crate::memory::Actor;
use crate::ptx::Function;

/// Instructions before another warp of the block has its turn.
const TURN: u64 = 1 << 16;

/// State that the warps of a block share.
pub struct Machine<'r> {
    pub running: &'r Running<'r>,
    pub block: [u32; 3],
    pub shared: Shared,
    pub actor: Actor,
    pub mbarriers: MBarriers,
    /// Registers that `setmaxnreg` may hand out.
    pub registers_free: u32,
    /// Counts what may end a wait.
    pub events: u64,
}

/// Fault of one lane.
pub struct Trouble {
    pub lane: usize,
    pub address: Option<u64>,
    pub what: What,
}

impl Trouble {
    #[cold]
    pub fn at(lane: usize, address: u64, what: impl Into<Box<What>>) -> Self {
        Self {
            lane,
            address: Some(address),
            what: *what.into(),
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

/// Registers and constants of the running function.
#[derive(Clone, Copy)]
pub struct View<'r> {
    pub registers: usize,
    pub predicates: usize,
    pub constants: &'r [Lanes],
    /// Line of the instruction.
    pub line: u32,
}

/// A call under way.
pub(super) struct Frame {
    pub function: usize,
    pub registers: usize,
    pub predicates: usize,
    /// Start of its local memory.
    pub local: u32,
    pub paths: Vec<Path>,
    /// Results to copy within local memory when it returns: to, from, bytes.
    pub returned: Vec<(u32, u32, u32)>,
    pub mask: u32,
}

/// Lanes that go together.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub at: u32,
    /// Instruction at which they wait for the others.
    pub reconverge: u32,
    pub mask: u32,
}

/// Reason why a warp stops.
pub enum Pause<'r> {
    Ended,
    Turn,
    /// At a barrier, with these lanes.
    Barrier(&'r Barrier, u32),
    /// Waits for something to happen in the block, then executes the instruction of this line again.
    Wait(Wait, u32),
}

/// Outcome of an instruction.
enum Step<'r> {
    Next,
    /// Another function runs now.
    Called,
    Paused(Pause<'r>),
}

/// Condition that a warp waits for.
#[derive(Clone, Copy)]
pub struct Wait {
    pub lane: usize,
    /// An mbarrier and its phase; registers where it is none.
    pub barrier: Option<(u64, u32)>,
}

#[derive(Default)]
pub struct Warp {
    pub registers: Vec<Lanes>,
    pub predicates: Vec<u32>,
    pub local: Local,
    pub copies: Copies,
    pub bulk: BulkGroups,
    pub products: Products,
    /// Nobody in the block could go on: the next wait gives up.
    pub impatient: bool,
    /// The barrier and phase that were not complete when last asked, and where.
    pub attempt: Option<((u64, u32), u32)>,
    /// Registers set by `setmaxnreg`.
    pub registers_held: Option<u32>,
    /// Number of its first thread in the block.
    pub first_thread: u32,
    /// Lanes that have not ended.
    pub live: u32,
    pub(super) carries: u32,
    pub(super) frames: Vec<Frame>,
    /// Instructions so far.
    pub(super) executed: u64,
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
        self.bulk = BulkGroups::default();
        self.products = Products::default();
        self.impatient = false;
        self.registers_held = None;
        self.attempt = None;
        self.executed = 0;
        self.enter(running.kernel, self.live, machine);
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
            let function = &running.functions[frame.function];
            let view = self.view(machine);
            if let Some(pause) = self.run_function(machine, function, view, until)? {
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

    /// Executes instructions until the function ends, calls another, or is stopped.
    fn run_function<'r>(
        &mut self,
        machine: &mut Machine<'r>,
        function: &'r Function,
        mut view: View<'r>,
        until: u64,
    ) -> Result<Option<Pause<'r>>, Box<Fault>> {
        let code: &'r [Instruction] = &function.code;
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
            let at = path.at as usize;
            let instruction = &code[at];
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
            if let Some(mention) = function.mentions.get(at) {
                let used = self.products.note_use(mention, view.registers);
                let lane = taken.trailing_zeros() as usize;
                used.map_err(|w| self.fault(Trouble::of(lane, w), machine, view.line))?;
            }
            match self.step(machine, &instruction.code, &view, taken, active) {
                Ok(Step::Next) => {}
                Ok(Step::Called) => return Ok(None),
                Ok(Step::Paused(pause)) => return Ok(Some(pause)),
                Err(trouble) => return Err(self.fault(trouble, machine, view.line)),
            }
            if self.executed >= until {
                let limit = machine.running.instructions_per_warp;
                if self.executed > limit {
                    let lane = taken.trailing_zeros() as usize;
                    let trouble = Trouble::of(lane, What::Endless(limit));
                    return Err(self.fault(trouble, machine, view.line));
                }
                return Ok(Some(Pause::Turn));
            }
        }
    }

    /// Executes one instruction for the lanes `taken`, of those `active` on this path.
    #[inline(always)]
    fn step<'r>(
        &mut self,
        machine: &mut Machine<'r>,
        code: &'r Code,
        view: &View<'r>,
        taken: u32,
        active: u32,
    ) -> Result<Step<'r>, Trouble> {
        match code {
            Code::Lanes { run, to, from } => {
                let mut out = Lanes::ZERO;
                run(&from.map(|source| self.value(view, source)), &mut out);
                self.set(view, *to, taken, &out);
            }
            Code::Branch { to, reconverge } => self.branch(*to, *reconverge, taken, active),
            Code::Call(call) => {
                self.call(call, taken, machine)?;
                return Ok(Step::Called);
            }
            Code::Barrier(barrier) => {
                if taken != self.live {
                    return Err(self.divergent(taken));
                }
                return Ok(Step::Paused(Pause::Barrier(barrier, view.line)));
            }
            Code::MBarrier(op) => {
                let wait = op.run(machine, self, view, taken)?;
                return Ok(self.again_after(wait, view.line));
            }
            Code::SetRegisters { count, more } => {
                let wait = change_registers(machine, self, taken, *count, *more)?;
                return Ok(self.again_after(wait, view.line));
            }
            other => self.execute(other, machine, view, taken)?,
        }
        Ok(Step::Next)
    }

    /// Goes back to the instruction that was just executed, if it has to wait.
    fn again_after<'r>(&mut self, wait: Option<Wait>, line: u32) -> Step<'r> {
        let Some(wait) = wait else {
            return Step::Next;
        };
        let frame = self.frames.last_mut();
        if let Some(path) = frame.and_then(|frame| frame.paths.last_mut()) {
            path.at -= 1;
        }
        Step::Paused(Pause::Wait(wait, line))
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
