//! One file per verb.

pub mod prepare;
pub mod sample;
pub mod train;
