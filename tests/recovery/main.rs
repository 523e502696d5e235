//! Memory that is refused costs a retry or a rung, never the experiment; no other failure is taken
//! for it.

mod errors;
mod evaluation;
mod failures;
mod files;
mod injections;
mod ladder;
mod launch;
mod limits;
#[path = "../process/mod.rs"]
mod process;
mod resume;
mod runs;
mod sampling;
mod sites;
mod steps;
mod toy;
