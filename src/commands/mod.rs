//! One file per verb.

pub mod prepare;
