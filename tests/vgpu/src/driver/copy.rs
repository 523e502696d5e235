//! Copies and fills: in the order of a stream, or of the legacy stream and waited for.

use std::ffi::{c_uchar, c_uint, c_ushort};

use super::giving::Call;
use super::guard::{Outcome, with_context};
use super::operation::{HostAddress, Operation};
use super::result::CuResult;
use super::state::Driver;

/// The form of a copy or a fill: in the legacy stream, or in any.
#[derive(Clone, Copy)]
enum Form {
    Blocking,
    In(usize),
}

fn give(driver: &Driver, form: Form, operation: Operation) -> Outcome {
    match form {
        Form::Blocking => {
            driver.objects().captures.refuse_outside_work()?;
            driver.submit_as(Call::Blocking, 0, operation)
        }
        Form::In(stream) => driver.submit(stream, operation),
    }
}

fn fill(form: Form, address: u64, pattern: &[u8], count: usize) -> CuResult {
    with_context(|driver| {
        if count == 0 {
            return Ok(());
        }
        if !address.is_multiple_of(pattern.len() as u64) {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let fill = Operation::Set {
            address,
            pattern: pattern.to_vec(),
            count: count as u64,
        };
        give(driver, form, fill)
    })
}

fn copy_in(form: Form, address: u64, from: usize, bytes: usize) -> CuResult {
    with_context(|driver| {
        if bytes == 0 {
            return Ok(());
        }
        let from = host(from)?;
        let copy = Operation::CopyIn {
            address,
            from,
            bytes,
        };
        give(driver, form, copy)
    })
}

fn copy_out(form: Form, to: usize, address: u64, bytes: usize) -> CuResult {
    with_context(|driver| {
        if bytes == 0 {
            return Ok(());
        }
        let to = host(to)?;
        give(driver, form, Operation::CopyOut { to, address, bytes })
    })
}

fn copy_on_card(form: Form, to: u64, from: u64, bytes: usize) -> CuResult {
    with_context(|driver| {
        if bytes == 0 {
            return Ok(());
        }
        let bytes = bytes as u64;
        give(driver, form, Operation::Copy { to, from, bytes })
    })
}

fn host(address: usize) -> Outcome<HostAddress> {
    match address {
        0 => Err(CuResult::ERROR_INVALID_VALUE),
        _ => Ok(HostAddress(address)),
    }
}

/// Defines a function of the API twice: at once, and in the order of a stream.
macro_rules! both {
    ($(#[$safety:meta])* $now:ident $later:ident ($($name:ident: $kind:ty),*) $body:expr) => {
        $(#[$safety])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $now($($name: $kind),*) -> CuResult {
            ($body)(Form::Blocking)
        }

        $(#[$safety])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $later($($name: $kind,)* stream: usize) -> CuResult {
            ($body)(Form::In(stream))
        }
    };
}

both! {
    /// # Safety
    /// `bytes` of `from` may be read until the copy is done.
    cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 (to: u64, from: usize, bytes: usize)
    |form| copy_in(form, to, from, bytes)
}
both! {
    /// # Safety
    /// `bytes` of `to` may be written until the copy is done.
    cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 (to: usize, from: u64, bytes: usize)
    |form| copy_out(form, to, from, bytes)
}
both! {
    /// # Safety
    /// None is needed.
    cuMemcpyDtoD_v2 cuMemcpyDtoDAsync_v2 (to: u64, from: u64, bytes: usize)
    |form| copy_on_card(form, to, from, bytes)
}
both! {
    /// Both contexts are the only one.
    ///
    /// # Safety
    /// None is needed.
    cuMemcpyPeer cuMemcpyPeerAsync
    (to: u64, _to_context: usize, from: u64, _from_context: usize, bytes: usize)
    |form| copy_on_card(form, to, from, bytes)
}
both! {
    /// # Safety
    /// None is needed.
    cuMemsetD8_v2 cuMemsetD8Async (address: u64, value: c_uchar, count: usize)
    |form| fill(form, address, &[value], count)
}
both! {
    /// # Safety
    /// None is needed.
    cuMemsetD16_v2 cuMemsetD16Async (address: u64, value: c_ushort, count: usize)
    |form| fill(form, address, &value.to_le_bytes(), count)
}
both! {
    /// # Safety
    /// None is needed.
    cuMemsetD32_v2 cuMemsetD32Async (address: u64, value: c_uint, count: usize)
    |form| fill(form, address, &value.to_le_bytes(), count)
}
