//! A launch under way, as all its blocks see it.

use super::lanes::Lanes;
use crate::fault::Place;
use crate::memory;
use crate::ptx::Function;

pub struct Running<'a> {
    pub functions: &'a [Function],
    /// Constants of each function that the kernel reaches.
    pub constants: std::sync::Arc<Vec<Vec<Lanes>>>,
    /// The kernel, among the functions.
    pub kernel: usize,
    pub params: &'a [u8],
    pub memory: memory::Launch<'a>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Of a block.
    pub threads: u32,
    pub shared_bytes: u32,
    pub dynamic_shared: u32,
    pub sm_count: u32,
    pub instructions_per_warp: u64,
}

impl Running<'_> {
    /// Block `number` of the grid.
    pub fn block_at(&self, number: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [number % x, number / x % y, number / x / y].map(|i| i as u32)
    }

    /// Thread `number` of a block.
    pub fn place(&self, line: u32, block: [u32; 3], number: u32) -> Place {
        let [x, y, _] = self.block;
        let thread = [number % x, number / x % y, number / x / y];
        Place {
            kernel: self.functions[self.kernel].name.clone(),
            line,
            block,
            thread,
        }
    }
}
