//! The real binary on a virtual GPU: what a user of a card sees, on cards that no machine has.
#![cfg(feature = "cuda")]

mod cards;
mod founding;
mod libraries;
mod orders;
#[path = "../process/mod.rs"]
#[allow(dead_code, reason = "every run here is on a card that was chosen")]
mod process;
mod refused;
mod resume;
mod runs;
mod sampling;
mod starting;
mod startup;
