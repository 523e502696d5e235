//! Who holds the card's memory: other processes, this one, and pools that keep what was freed.
//!
//! Memory that a pool gave out and got back is still the pool's until a synchronisation finds it above
//! the pool's release threshold, or somebody trims it. Until then it is free to nobody else, and
//! `cuMemGetInfo` counts it as used.

use std::collections::HashMap;

use super::guard::Outcome;
use super::result::CuResult;
use super::state::{Driver, lock, new_handle};

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
    pool: Option<usize>,
}

/// A memory pool. Sizes in bytes.
#[derive(Clone, Copy, Default)]
pub struct Pool {
    pub release_threshold: u64,
    pub used: u64,
    pub most_used: u64,
    /// Freed memory that the pool did not give back.
    pub kept: u64,
    pub most_reserved: u64,
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
        let kept = self.pools.values().map(|pool| pool.kept);
        self.others + kept.sum::<u64>()
    }
}

impl Driver {
    /// Takes memory for this process, from a pool or from the card itself.
    pub(super) fn take(&self, bytes: u64, pool: Option<usize>) -> Outcome<u64> {
        self.others_grow();
        if self.planned_to_fail("alloc") {
            return Err(CuResult::ERROR_OUT_OF_MEMORY);
        }
        let rounded = bytes.next_multiple_of(GRANULARITY);
        let mut holdings = lock(&self.holdings);
        let kept = match pool {
            Some(pool) => {
                let pool = holdings.pool(pool)?;
                let kept = pool.kept;
                pool.kept = kept.saturating_sub(rounded);
                kept
            }
            None => 0,
        };
        self.memory.set_used_by_others(holdings.set_aside());
        let taken = self.memory.alloc(bytes);
        if let Some(pool) = pool {
            let pool = holdings.pool(pool)?;
            match taken {
                Ok(_) => {
                    pool.used += rounded;
                    pool.most_used = pool.most_used.max(pool.used);
                    pool.most_reserved = pool.most_reserved.max(pool.used + pool.kept);
                }
                Err(_) => pool.kept = kept,
            }
        }
        self.memory.set_used_by_others(holdings.set_aside());
        let address = taken.map_err(|_| CuResult::ERROR_OUT_OF_MEMORY)?;
        let live = Live {
            bytes: rounded,
            pool,
        };
        holdings.live.insert(address, live);
        Ok(address)
    }

    /// Gives memory back to the pool that it came from, or to the card.
    pub(super) fn give_back(&self, address: u64) -> Outcome {
        self.attempt(|memory| memory.free(address))?;
        let mut holdings = lock(&self.holdings);
        if let Some(live) = holdings.live.remove(&address)
            && let Some(pool) = live.pool.and_then(|pool| holdings.pools.get_mut(&pool))
        {
            pool.used -= live.bytes;
            pool.kept += live.bytes;
        }
        self.memory.set_used_by_others(holdings.set_aside());
        Ok(())
    }

    /// Gives back what is still live of these allocations.
    pub(super) fn give_back_leftovers(&self, addresses: &[u64]) -> Outcome {
        for address in addresses {
            let live = lock(&self.holdings).live.contains_key(address);
            if live {
                self.give_back(*address)?;
            }
        }
        Ok(())
    }

    /// A synchronisation: pools give back what they keep above their thresholds.
    pub(super) fn settle(&self) {
        let mut holdings = lock(&self.holdings);
        for pool in holdings.pools.values_mut() {
            let room = pool.release_threshold.saturating_sub(pool.used);
            pool.kept = pool.kept.min(room);
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
