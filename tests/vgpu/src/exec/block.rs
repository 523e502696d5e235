//! A block: its warps take turns; barriers hold them.

use super::code::PredicateSource;
use super::flow::{Barrier, BarrierKind};
use super::lanes::{Lanes, WARP};
use super::phases::MBarriers;
use super::running::Running;
use super::shared::Shared;
use super::warp::{Machine, Pause, Trouble, View, Wait, Warp};
use crate::fault::{Fault, What};
use crate::memory::Actor;

/// What a worker keeps from block to block.
#[derive(Default)]
pub struct Block {
    warps: Vec<Warp>,
    shared: Shared,
}

#[derive(Clone, Copy)]
enum State<'r> {
    Ready,
    /// At a barrier of this number, written at this line.
    Waiting(&'r Barrier, usize, u32),
    /// For what is written at this line, since so many events.
    Parked(Wait, u32, u64),
    Ended,
}

/// One of the 16 barriers of a block.
#[derive(Clone, Default)]
struct Arrivals {
    threads: u32,
    wanted: u32,
    warps: Vec<usize>,
    /// Threads whose predicate was true.
    yes: u32,
}

impl Block {
    /// Runs block `number` of the grid to its end.
    pub fn run(&mut self, running: &Running, number: u64) -> Result<(), Box<Fault>> {
        let warps = running.threads.div_ceil(32) as usize;
        let mut machine = Machine {
            running,
            block: running.block_at(number),
            shared: std::mem::take(&mut self.shared),
            actor: Actor {
                block: number as u32,
                ..Actor::default()
            },
            mbarriers: MBarriers::default(),
            registers_free: 0,
            events: 0,
        };
        machine.shared.reset(running.shared_bytes, warps);
        self.warps
            .resize_with(self.warps.len().max(warps), Warp::default);
        for (i, warp) in self.warps.iter_mut().enumerate().take(warps) {
            warp.start(i as u32, &machine);
        }
        let result = turns(&mut self.warps[..warps], &mut machine);
        self.shared = machine.shared;
        result
    }
}

/// Rounds in which every wait gives up before nothing is expected to happen any more.
const PATIENCE: u32 = 16;

fn turns<'r>(warps: &mut [Warp], machine: &mut Machine<'r>) -> Result<(), Box<Fault>> {
    let mut states = vec![State::Ready; warps.len()];
    let mut barriers = vec![Arrivals::default(); 16];
    // Times that everyone was made to look again, and the events then.
    let (mut tries, mut events) = (0, 0);
    loop {
        let mut ran = false;
        for i in 0..warps.len() {
            if let State::Parked(.., since) = states[i]
                && since != machine.events
            {
                states[i] = State::Ready;
            }
            while matches!(states[i], State::Ready) {
                ran = true;
                match warps[i].run(machine)? {
                    Pause::Ended => {
                        states[i] = State::Ended;
                        nothing_left(&warps[i], machine)?;
                    }
                    Pause::Wait(wait, line) => {
                        states[i] = State::Parked(wait, line, machine.events)
                    }
                    Pause::Turn => break,
                    Pause::Barrier(barrier, line) => {
                        arrive(warps, i, barrier, line, &mut states, &mut barriers, machine)?
                    }
                }
            }
        }
        if ran {
            continue;
        }
        if let Some((i, wait, line)) = parked(&states) {
            tries = if events == machine.events {
                tries + 1
            } else {
                0
            };
            events = machine.events;
            if tries == PATIENCE {
                return Err(deadlock(&warps[i], wait, line, machine));
            }
            for (warp, state) in warps.iter_mut().zip(&mut states) {
                if matches!(state, State::Parked(..)) {
                    (warp.impatient, *state) = (true, State::Ready);
                }
            }
            continue;
        }
        let stuck = states
            .iter()
            .enumerate()
            .find_map(|(i, state)| match state {
                State::Waiting(_, id, line) => Some((i, *id, *line)),
                _ => None,
            });
        return match stuck {
            None => all_over(warps, machine),
            Some((i, id, line)) => Err(divergence(warps, i, line, &barriers[id], &states, machine)),
        };
    }
}

/// The first warp that waits for registers, or else for an mbarrier.
fn parked(states: &[State]) -> Option<(usize, Wait, u32)> {
    let states = states.iter().enumerate();
    let parked = states.filter_map(|(i, state)| match state {
        State::Parked(wait, line, _) => Some((i, *wait, *line)),
        _ => None,
    });
    parked.min_by_key(|(_, wait, _)| wait.barrier.is_some())
}

fn deadlock(warp: &Warp, wait: Wait, line: u32, machine: &Machine) -> Box<Fault> {
    let trouble = match wait.barrier {
        Some((address, phase)) => {
            let what = What::Deadlock(machine.mbarriers.describe(address, phase));
            Trouble::at(wait.lane, address, what)
        }
        None => {
            let free = machine.registers_free;
            let what = format!("`setmaxnreg` waits for registers, {free} are free");
            Trouble::of(wait.lane, What::Deadlock(what))
        }
    };
    warp.fault(trouble, machine, line)
}

/// A warp has ended: what it started must be over.
fn nothing_left(warp: &Warp, machine: &Machine) -> Result<(), Box<Fault>> {
    let what = "the thread ends while a bulk store of its still reads shared memory";
    if let Some((lane, line)) = warp.bulk.left_over() {
        let trouble = Trouble::of(lane, What::Undefined(what.into()));
        return Err(warp.fault(trouble, machine, line));
    }
    if let Some(line) = warp.products.left_over() {
        let what = "the warp ends before it has waited for this product";
        let trouble = Trouble::of(0, What::Wgmma(what.into()));
        return Err(warp.fault(trouble, machine, line));
    }
    Ok(())
}

/// The block ends: no copy may be on its way, and the warps of each warpgroup must have issued the same products.
fn all_over(warps: &[Warp], machine: &Machine) -> Result<(), Box<Fault>> {
    if let Some((thread, line)) = machine.mbarriers.left_over() {
        let what = "the block ends before the phase of this bulk copy is complete";
        let (warp, lane) = (thread as usize / WARP, thread as usize % WARP);
        let trouble = Trouble::of(lane, What::Undefined(what.into()));
        return Err(warps[warp].fault(trouble, machine, line));
    }
    for group in warps.chunks(4) {
        let first = group[0].products.fingerprint;
        if let Some(other) = group.iter().find(|w| w.products.fingerprint != first) {
            let what = "the warps of the warpgroup did not execute the same `wgmma` instructions";
            let trouble = Trouble::of(0, What::Wgmma(what.into()));
            return Err(other.fault(trouble, machine, 0));
        }
    }
    Ok(())
}

/// Warp `i` has come to a barrier.
fn arrive<'r>(
    warps: &mut [Warp],
    i: usize,
    barrier: &'r Barrier,
    line: u32,
    states: &mut [State<'r>],
    barriers: &mut [Arrivals],
    machine: &mut Machine<'r>,
) -> Result<(), Box<Fault>> {
    let view = warps[i].view(machine);
    let lane = warps[i].live.trailing_zeros() as usize;
    let id = warps[i].value(&view, barrier.id).0[lane] as usize;
    let wanted = match barrier.threads {
        Some(threads) => warps[i].value(&view, threads).0[lane] as u32,
        None => machine.running.threads,
    };
    if id >= barriers.len() || (barrier.threads.is_some() && !wanted.is_multiple_of(32)) {
        let what = What::Undefined(format!(
            "barrier {id} of {wanted} threads: 16 barriers, whole warps"
        ));
        return Err(warps[i].fault(Trouble::of(lane, what), machine, line));
    }
    let whole = WARP as u32;
    let here = if barrier.threads.is_some() {
        whole
    } else {
        warps[i].live.count_ones()
    };
    let arrivals = &mut barriers[id];
    arrivals.threads += here;
    arrivals.wanted = wanted;
    arrivals.warps.push(i);
    if let BarrierKind::Count { by, .. } | BarrierKind::Poll { by, .. } = barrier.kind {
        arrivals.yes += votes(&warps[i], &view, by);
    }
    if !matches!(barrier.kind, BarrierKind::Arrive) {
        states[i] = State::Waiting(barrier, id, line);
    }
    if arrivals.threads >= arrivals.wanted {
        let done = std::mem::take(arrivals);
        machine.shared.sync_warps(done.warps.iter().copied());
        for warp in done.warps {
            match states[warp] {
                State::Waiting(barrier, at, _) if at == id => {
                    states[warp] = State::Ready;
                    let (yes, threads) = (done.yes, done.threads);
                    answer(&mut warps[warp], barrier.kind, yes, threads, machine);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn votes(warp: &Warp, view: &View, by: PredicateSource) -> u32 {
    (warp.predicate(view, by) & warp.live).count_ones()
}

/// What `bar.red` gives.
fn answer(warp: &mut Warp, kind: BarrierKind, yes: u32, threads: u32, machine: &Machine) {
    let view = warp.view(machine);
    match kind {
        BarrierKind::Count { to, .. } => warp.set(&view, to, warp.live, &Lanes::all(yes.into())),
        BarrierKind::Poll { to, all, .. } => {
            let holds = if all { yes == threads } else { yes > 0 };
            warp.set_predicate(&view, to, warp.live, u32::from(holds).wrapping_neg());
        }
        BarrierKind::Wait | BarrierKind::Arrive => {}
    }
}

/// Nobody can go on: warp `i` waits for threads that will not come.
fn divergence(
    warps: &[Warp],
    i: usize,
    line: u32,
    arrivals: &Arrivals,
    states: &[State],
    machine: &Machine,
) -> Box<Fault> {
    let elsewhere = states
        .iter()
        .enumerate()
        .find_map(|(other, state)| match state {
            State::Waiting(_, _, at) if *at != line => {
                Some(format!("thread {} waits at PTX line {at}", other * WARP))
            }
            _ => None,
        });
    let ended = || {
        let others = (0..machine.running.threads).find(|&thread| {
            let warp = thread as usize / WARP;
            warps[warp].live >> (thread % 32) & 1 == 0
        });
        others.map_or(String::new(), |thread| format!("thread {thread} has ended"))
    };
    let what = format!(
        "{} of {} threads wait here, {}",
        arrivals.threads,
        arrivals.wanted,
        elsewhere.unwrap_or_else(ended)
    );
    let lane = warps[i].live.trailing_zeros() as usize;
    warps[i].fault(
        Trouble::of(lane, What::BarrierDivergence(what)),
        machine,
        line,
    )
}
