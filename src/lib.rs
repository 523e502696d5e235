//! taper trains GPT-2 on whatever machine you have.
//!
//! The modules stand on floors: each imports only modules of the groups above its own in this list. A reader who wants
//! the whole idea first begins at the end, with `commands/train.rs`: the request (`config`) and the machine (`device`,
//! `data`) meet in a `plan`; a `session` runs it, by the `step` over the `model` over `ops`; a `checkpoint` is what it
//! leaves behind, and `report` is what it says. `tests/structure` holds the order.

pub mod terms;

pub mod faults;
pub mod outliers;
pub mod rng;
pub mod schedule;
pub mod units;

pub mod chart;

pub mod hub;

pub mod config;
pub mod memory;
pub mod tokenizer;

pub mod data;
pub mod device;

pub mod ops;

pub mod model;

pub mod step;

pub mod plan;

pub mod checkpoint;
pub mod evals;
pub mod interrupt;
pub mod metrics;
pub mod record;
pub mod trial;

pub mod report;
pub mod runs;
pub mod sampling;

pub mod curves;
pub mod page;

pub mod doctor;
pub mod session;

pub mod error;

pub mod commands;

pub mod cli;
