//! Page-locked memory of the host.

use std::ffi::c_void;

use vgpu::driver::copy::*;
use vgpu::driver::host::{cuMemFreeHost, cuMemHostAlloc};
use vgpu::driver::result::CuResult;

use crate::BYTES;
use crate::on_card::check;

/// Page-locked memory of the host.
pub struct Pinned(pub *mut u8);

impl Pinned {
    pub fn new(value: u8) -> Self {
        let mut memory: *mut c_void = std::ptr::null_mut();
        check(unsafe { cuMemHostAlloc(&mut memory, BYTES, 0) });
        let pinned = Self(memory.cast());
        pinned.set(value);
        pinned
    }

    pub fn set(&self, value: u8) {
        unsafe { std::ptr::write_bytes(self.0, value, BYTES) };
    }

    pub fn get(&self) -> u8 {
        unsafe { self.0.read_volatile() }
    }

    pub fn copy_in(&self, to: u64, stream: usize) -> CuResult {
        unsafe { cuMemcpyHtoDAsync_v2(to, self.0 as usize, BYTES, stream) }
    }

    pub fn copy_out(&self, from: u64, stream: usize) -> CuResult {
        unsafe { cuMemcpyDtoHAsync_v2(self.0 as usize, from, BYTES, stream) }
    }

    pub fn free(&self) -> CuResult {
        unsafe { cuMemFreeHost(self.0.cast()) }
    }
}
