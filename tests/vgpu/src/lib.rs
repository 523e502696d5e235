//! A virtual GPU: executes PTX on any machine, strictly. It proves results, never speed.
//!
//! In reading order: what went wrong, the card's memory, the text of a kernel, its execution; what the
//! card is; the driver and the libraries that programs call.

pub mod fault;
pub mod memory;
pub mod ptx;
pub mod tensor_map;

pub mod exec;

pub mod order;

pub mod card;

pub mod driver;
pub mod libraries;
