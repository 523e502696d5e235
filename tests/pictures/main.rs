//! `taper plot` and `taper report`, from outside.

mod browser;
mod fixture;
mod page;
mod plot;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../process/mod.rs"]
mod process;
