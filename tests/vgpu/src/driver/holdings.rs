//! Who holds the card's memory: other processes, this one, and pools that keep what was freed.
//!
//! A pool takes memory from the card in blocks. A block in which nothing is in use any more is still the pool's until
//! a synchronisation finds the pool above its release threshold, somebody trims it, or the card has nothing else for an
//! allocation. Until then it is free to nobody else, and `cuMemGetInfo` counts it as used.

use std::collections::HashMap;

use super::blocks::Blocks;
use super::counts::{Asked, Wait};
use super::guard::Outcome;
use super::result::CuResult;
use super::state::{Driver, lock, new_handle};
use crate::fault::What;
use crate::memory::Stamp;

/// Bytes of one unit of allocation.
const GRANULARITY: u64 = 512;

/// Every allocation of this process and every pool.
pub struct Holdings {
    /// What other processes hold by now.
    others: u64,
    /// How many allocations were asked for.
    asked: u64,
    live: HashMap<u64, Live>,
    pools: HashMap<usize, Pool>,
    /// The pool that the device comes with.
    pub default_pool: usize,
    /// The pool that `cuMemAllocAsync` uses.
    pub current_pool: usize,
}

struct Live {
    bytes: u64,
    /// The pool that it came from, and where it lies there.
    place: Option<(usize, u64)>,
    /// Its free is queued.
    freeing: bool,
}

/// A memory pool. Sizes in bytes.
#[derive(Default)]
pub struct Pool {
    pub release_threshold: u64,
    pub used: u64,
    pub most_used: u64,
    pub most_reserved: u64,
    blocks: Blocks,
}

impl Pool {
    /// What it took from the card and did not give back.
    pub fn reserved(&self) -> u64 {
        self.blocks.bytes()
    }

    /// Takes room; where it lies.
    fn take(&mut self, bytes: u64) -> u64 {
        let start = self.blocks.take(bytes);
        self.used += bytes;
        self.most_used = self.most_used.max(self.used);
        self.most_reserved = self.most_reserved.max(self.reserved());
        start
    }

    fn give_back(&mut self, start: u64, bytes: u64) {
        self.used -= bytes;
        self.blocks.give_back(start);
    }

    /// Gives back what is not in use, but keeps at least so many bytes.
    pub fn shrink(&mut self, keep: u64) {
        self.blocks.shrink(keep);
    }
}

impl Holdings {
    pub fn new(others: u64) -> Holdings {
        let pool = new_handle();
        Holdings {
            others,
            asked: 0,
            live: HashMap::new(),
            pools: HashMap::from([(pool, Pool::default())]),
            default_pool: pool,
            current_pool: pool,
        }
    }

    /// Forgets whatever this process holds; the addresses of what was live.
    pub fn forget(&mut self) -> Vec<u64> {
        let fresh = Holdings::new(self.others);
        let old = std::mem::replace(
            self,
            Holdings {
                asked: self.asked,
                ..fresh
            },
        );
        old.live.into_keys().collect()
    }

    pub fn pool(&mut self, handle: usize) -> Outcome<&mut Pool> {
        let pool = self.pools.get_mut(&handle);
        pool.ok_or(CuResult::ERROR_INVALID_HANDLE)
    }

    pub fn add_pool(&mut self) -> usize {
        let handle = new_handle();
        self.pools.insert(handle, Pool::default());
        handle
    }

    /// What the pool kept is free again; what it gave out stays live and goes back to the card when freed.
    pub fn remove_pool(&mut self, handle: usize) -> Outcome {
        if handle == self.default_pool {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let removed = self.pools.remove(&handle);
        if self.current_pool == handle {
            self.current_pool = self.default_pool;
        }
        removed.map(|_| ()).ok_or(CuResult::ERROR_INVALID_HANDLE)
    }

    /// What nobody can have: what others hold and what pools keep.
    fn set_aside(&self) -> u64 {
        let kept = self.pools.values().map(|pool| pool.reserved() - pool.used);
        self.others + kept.sum::<u64>()
    }
}

impl Driver {
    /// Takes memory for this process, from a pool or from the card itself, for what comes after `born`.
    pub(super) fn take(&self, bytes: u64, pool: Option<usize>, born: Stamp) -> Outcome<u64> {
        self.others_grow();
        if self.planned_to_fail("alloc") {
            return Err(CuResult::ERROR_OUT_OF_MEMORY);
        }
        if let Some(pool) = pool {
            lock(&self.holdings).pool(pool)?;
        }
        let rounded = bytes.next_multiple_of(GRANULARITY);
        while !self.has_room(rounded, pool)? {
            self.make_room()?;
        }
        let mut holdings = lock(&self.holdings);
        let mut place = None;
        if let Some(handle) = pool {
            place = Some((handle, holdings.pool(handle)?.take(rounded)));
        }
        self.memory.set_used_by_others(holdings.set_aside());
        let taken = self.memory.alloc_by(born, bytes);
        let address = taken.map_err(|_| CuResult::ERROR_OUT_OF_MEMORY)?;
        let live = Live {
            bytes: rounded,
            place,
            freeing: false,
        };
        holdings.live.insert(address, live);
        self.counts.add(Asked::Allocation { bytes });
        Ok(address)
    }

    /// Whether a pool, or the card, has so much.
    fn has_room(&self, bytes: u64, pool: Option<usize>) -> Outcome<bool> {
        let free = self.memory.free_bytes();
        let Some(pool) = pool else {
            return Ok(bytes <= free);
        };
        let mut holdings = lock(&self.holdings);
        let pool = holdings.pool(pool)?;
        Ok(pool.blocks.missing(bytes) <= free)
    }

    /// Gets memory that nobody needs any more: what queued frees give back, then, as the programming guide's
    /// "Resource Usage Policies" say, what pools keep.
    pub(super) fn make_room(&self) -> Outcome {
        let frees = lock(&self.queue).frees();
        if let Some(free) = frees.first() {
            return self.run_until(*free);
        }
        let mut holdings = lock(&self.holdings);
        let before = holdings.set_aside();
        holdings.pools.values_mut().for_each(|pool| pool.shrink(0));
        let after = holdings.set_aside();
        self.memory.set_used_by_others(after);
        if after < before {
            Ok(())
        } else {
            Err(CuResult::ERROR_OUT_OF_MEMORY)
        }
    }

    /// Notes that memory will be freed in the order of a stream, which it can be once.
    pub(super) fn begin_free(&self, address: u64) -> Outcome {
        let mut holdings = lock(&self.holdings);
        match holdings.live.get_mut(&address) {
            Some(live) if !live.freeing => {
                live.freeing = true;
                Ok(())
            }
            _ => {
                drop(holdings);
                self.remember(&What::NotAnAllocation.by_host(address).to_string());
                Err(CuResult::ERROR_INVALID_VALUE)
            }
        }
    }

    /// Frees memory at once. What a pool gave out is freed without waiting for anything; for everything else
    /// the whole card is waited for.
    pub(super) fn free_at_once(&self, address: u64) -> Outcome {
        let holdings = lock(&self.holdings);
        let live = holdings.live.get(&address);
        let from_pool = live.is_some_and(|live| live.place.is_some());
        drop(holdings);
        if !from_pool {
            self.wait_for_all(Wait::Free)?;
        }
        self.begin_free(address)?;
        let stamp = lock(&self.queue).begin_by_host(&self.memory, "cuMemFree");
        let freed = self.memory.by(stamp).free(address);
        freed.map_err(|fault| self.lose(&fault))?;
        self.returned(address);
        Ok(())
    }

    /// Memory was freed: it is the pool's that it came from, or the card's.
    pub(super) fn returned(&self, address: u64) {
        let mut holdings = lock(&self.holdings);
        if let Some(live) = holdings.live.remove(&address)
            && let Some((pool, start)) = live.place
            && let Some(pool) = holdings.pools.get_mut(&pool)
        {
            pool.give_back(start, live.bytes);
        }
        self.memory.set_used_by_others(holdings.set_aside());
    }

    /// Gives back what is still live of these allocations.
    pub(super) fn give_back_leftovers(&self, addresses: &[u64]) -> Outcome {
        for address in addresses {
            let holdings = lock(&self.holdings);
            let live = holdings.live.get(address);
            let left = live.is_some_and(|live| !live.freeing);
            drop(holdings);
            if left {
                self.free_at_once(*address)?;
            }
        }
        Ok(())
    }

    /// A synchronisation: pools give back what they keep above their thresholds.
    pub(super) fn settle(&self) {
        let mut holdings = lock(&self.holdings);
        for pool in holdings.pools.values_mut() {
            pool.shrink(pool.release_threshold);
        }
        self.memory.set_used_by_others(holdings.set_aside());
    }

    /// Tells the memory after something changed here.
    pub(super) fn set_aside(&self) {
        let holdings = lock(&self.holdings);
        self.memory.set_used_by_others(holdings.set_aside());
    }

    /// Counts an allocation; other processes may take memory first, as much as is free.
    fn others_grow(&self) {
        let mut holdings = lock(&self.holdings);
        let before = holdings.asked;
        holdings.asked += 1;
        let growth = self.card.growth.iter();
        let growth = growth.filter(|growth| growth.after_allocations == before);
        let wanted: u64 = growth.map(|growth| growth.bytes).sum();
        if wanted > 0 {
            holdings.others += wanted.min(self.memory.free_bytes());
            self.memory.set_used_by_others(holdings.set_aside());
        }
    }

    /// What other processes hold by now.
    pub fn used_by_others(&self) -> u64 {
        lock(&self.holdings).others
    }
}
