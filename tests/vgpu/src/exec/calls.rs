//! Functions: entered with registers and local memory of their own, left with results copied back.

use super::code::Special;
use super::flow::Call;
use super::lanes::Lanes;
use super::warp::{Frame, Machine, Path, Trouble, Warp};
use crate::fault::What;
use crate::ptx::cfg::NOWHERE;

/// Calls within calls, before we take them to be endless.
const DEEPEST: usize = 64;

impl Warp {
    pub fn enter(&mut self, function: usize, mask: u32, machine: &Machine) {
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
        // Zeros, so that what a kernel does with registers it never set is repeatable.
        self.registers.truncate(registers);
        self.registers
            .resize(registers + code.register_count as usize, Lanes::ZERO);
        self.predicates.truncate(predicates);
        self.predicates
            .resize(predicates + code.predicate_count as usize, 0);
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

    pub fn call(&mut self, call: &Call, mask: u32, machine: &Machine) -> Result<(), Trouble> {
        let callee = &machine.running.functions[call.function];
        let caller = self.frames.last().map_or(0, |frame| frame.local);
        let lane = mask.trailing_zeros() as usize;
        if !callee.defined {
            let what = self.external(&callee.name, call, lane, caller, machine);
            return Err(Trouble::of(lane, what));
        }
        if self.frames.len() > DEEPEST {
            return Err(Trouble::of(
                lane,
                What::Undefined(format!("calls nested more than {DEEPEST} deep")),
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
    pub fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            for (to, from, size) in frame.returned {
                self.local.copy(frame.mask & self.live, to, from, size);
            }
            self.local.resize(frame.local);
        }
    }
}
