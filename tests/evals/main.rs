//! `taper eval`, and tasks that are scored during a run, as a user runs them.

#[path = "../gpt2_folder/mod.rs"]
mod gpt2_folder;
#[path = "../process/mod.rs"]
mod process;
mod refusals;
mod training;
mod verb;
