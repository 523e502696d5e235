//! The mbarriers of a block: kept here, not in the words of shared memory that they occupy.

use super::bulk::Landing;
use super::lanes::WARP;
use super::order::{Released, Touch, Who};
use super::warp::Machine;
use crate::fault::What;

/// The most bytes that a phase may wait for, and arrivals too: 2^20 - 1.
const MOST: i64 = (1 << 20) - 1;

/// One barrier.
struct Object {
    address: u64,
    /// Arrivals that a phase needs, and those it still needs.
    expected: u32,
    pending: u32,
    /// Bytes expected that have not come.
    bytes: i64,
    /// Phases complete.
    phase: u32,
    /// Whose clock it is.
    agent: usize,
    /// What arrivals have released, and what waiting for the last phase tells.
    released: Released,
    completed: Released,
    /// Copies whose bytes it counts in this phase.
    landing: Vec<Landing>,
    /// The initialisation, and whether the async proxy sees it.
    by: Who,
    fenced: bool,
}

/// Those of a block.
#[derive(Default)]
pub struct MBarriers {
    list: Vec<Object>,
}

impl Machine<'_> {
    fn object(&mut self, address: u64, who: Who) -> Result<&mut Object, Box<What>> {
        self.shared.touch_barrier(address, who)?;
        let found = self.mbarriers.list.iter_mut();
        let mut found = found.filter(|object| object.address == address);
        found.next().ok_or_else(|| {
            Box::new(What::Undefined(
                "no mbarrier was initialised at this address".into(),
            ))
        })
    }

    pub fn init(&mut self, address: u64, count: u32, who: Who) -> Result<(), Box<What>> {
        if count == 0 || i64::from(count) > MOST {
            let what = format!("an mbarrier for {count} arrivals: 1 to {MOST} are possible");
            return Err(Box::new(What::Undefined(what)));
        }
        let plain = Who {
            strong: false,
            ..who
        };
        self.shared.set_barrier(address, plain, true)?;
        let agent = self.shared.clocks.add_agent();
        let agent = agent.ok_or_else(|| {
            Box::new(What::Undefined(
                "more mbarriers in one block than the virtual GPU follows".into(),
            ))
        })?;
        self.mbarriers.list.push(Object {
            address,
            expected: count,
            pending: count,
            bytes: 0,
            phase: 0,
            agent,
            released: Released::default(),
            completed: Released::default(),
            landing: Vec::new(),
            by: who,
            fenced: false,
        });
        Ok(())
    }

    pub fn invalidate(&mut self, address: u64, who: Who) -> Result<(), Box<What>> {
        self.object(address, who)?;
        self.shared.set_barrier(address, who, false)?;
        self.mbarriers.list.retain(|o| o.address != address);
        Ok(())
    }

    /// So many bytes more, or fewer, are to come in this phase.
    pub fn expect(&mut self, address: u64, bytes: i64, who: Who) -> Result<(), Box<What>> {
        let object = self.object(address, who)?;
        object.bytes += bytes;
        if object.bytes.abs() > MOST {
            let what = format!(
                "{} bytes outstanding at an mbarrier: {MOST} at most",
                object.bytes
            );
            return Err(Box::new(What::Undefined(what)));
        }
        self.complete_phase(address);
        Ok(())
    }

    /// The phase it arrived in.
    pub fn arrive(
        &mut self,
        address: u64,
        count: u32,
        bytes: i64,
        release: bool,
        who: Who,
    ) -> Result<u32, Box<What>> {
        if bytes != 0 {
            // Together with the arrival: the phase cannot complete between the two.
            self.object(address, who)?.bytes += bytes;
        }
        let object = self.object(address, who)?;
        let phase = object.phase;
        if count == 0 || count > object.pending {
            let what = format!(
                "{count} arrivals at an mbarrier of which {} of {} are missing in this phase",
                object.pending, object.expected
            );
            return Err(Box::new(What::Undefined(what)));
        }
        object.pending -= count;
        if release {
            let mut released = std::mem::take(&mut object.released);
            self.shared
                .clocks
                .release(who.thread as usize / WARP, &mut released);
            if let Ok(object) = self.object(address, who) {
                object.released = released;
            }
        }
        self.expect(address, 0, who)?;
        Ok(phase)
    }

    /// Phases complete so far.
    pub fn phase(&mut self, address: u64, who: Who) -> Result<u32, Box<What>> {
        Ok(self.object(address, who)?.phase)
    }

    pub fn acquire(&mut self, address: u64, who: Who) {
        let object = self.mbarriers.list.iter().find(|o| o.address == address);
        if let Some(object) = object {
            let warp = who.thread as usize / WARP;
            self.shared.clocks.acquire(warp, &object.completed);
        }
    }

    /// If everyone and everything has come.
    fn complete_phase(&mut self, address: u64) {
        let mut objects = self.mbarriers.list.iter_mut();
        let Some(object) = objects.find(|o| o.address == address) else {
            return;
        };
        if object.pending != 0 || object.bytes != 0 {
            return;
        }
        object.pending = object.expected;
        object.phase += 1;
        self.events += 1;
        object.released.complete(object.agent, object.phase);
        object.completed = object.released.clone();
        for landing in object.landing.drain(..) {
            let write = Touch::by_agent(object.agent, object.phase, landing.line);
            self.shared.end_copy_as(landing.to, &landing.bytes, write);
        }
    }

    /// The async proxy may signal this barrier.
    pub fn check_signal(&mut self, address: u64, who: Who) -> Result<(), Box<What>> {
        let object = self.object(address, who)?;
        if object.fenced {
            Ok(())
        } else {
            Err(Box::new(What::NoProxyFence {
                thread: object.by.thread,
                line: object.by.line,
            }))
        }
    }

    /// A bulk copy is on its way: its bytes count for the barrier.
    pub fn land(&mut self, address: u64, landing: Landing, who: Who) -> Result<(), Box<What>> {
        let bytes = landing.bytes.len() as i64;
        self.object(address, who)?.landing.push(landing);
        self.expect(address, -bytes, who)
    }
}

impl MBarriers {
    /// These threads have passed a fence: the async proxy sees what they initialised.
    pub fn fence(&mut self, first_thread: u32, mask: u32) {
        for object in &mut self.list {
            let lane = object.by.thread.wrapping_sub(first_thread);
            object.fenced |= lane < 32 && mask >> lane & 1 == 1;
        }
    }

    /// The line of a copy whose phase never completed, and its thread.
    pub fn left_over(&self) -> Option<(u32, u32)> {
        let landings = self.list.iter().flat_map(|object| &object.landing);
        landings.map(|l| (l.thread, l.line)).next()
    }

    /// What a warp waits for that waits for phase `phase` of a barrier.
    pub fn describe(&self, address: u64, phase: u32) -> String {
        let Some(object) = self.list.iter().find(|o| o.address == address) else {
            return "an mbarrier that is no more".into();
        };
        format!(
            "phase {phase} of the mbarrier at {address:#x} has {} of {} arrivals and {} bytes outstanding",
            object.expected - object.pending,
            object.expected,
            object.bytes
        )
    }
}
