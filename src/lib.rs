//! taper trains GPT-2 on whatever machine you have.
//!
//! The modules in reading order: the request (`config`), the machine and the data (`device`, `data`),
//! the decisions (`plan`), the run (`session` over `step`, `model` and `ops`), the files it
//! leaves behind (`checkpoint`) and its output (`report`).

pub mod terms;

pub mod error;
pub mod faults;
pub mod rng;
pub mod units;

pub mod config;
pub mod data;
pub mod device;
pub mod plan;
pub mod tokenizer;

pub mod memory;
pub mod model;
pub mod ops;
pub mod sampling;
pub mod schedule;
pub mod session;
pub mod step;
pub mod trial;

pub mod checkpoint;
pub mod interrupt;
pub mod metrics;
pub mod report;

pub mod doctor;

pub mod cli;
pub mod commands;
