//! One file per verb.

pub mod doctor;
pub mod prepare;
pub mod sample;
pub mod train;
