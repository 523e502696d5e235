//! From PTX text to a module that can run.

mod body;
pub(crate) mod cfg;
pub mod ir;
pub(crate) mod layout;
mod lexer;
pub(crate) mod names;
mod parse;
pub(crate) mod types;

pub use ir::{Function, Module, Param};

/// Text that is not PTX, or PTX that is not executed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}, column {column}: {what}")]
pub struct ParseError {
    pub line: u32,
    pub column: u32,
    pub what: String,
}

/// Reads a module. Instructions that the virtual GPU does not execute are refused here, by name.
///
/// # Errors
/// Syntax, unknown instructions, and names that are not declared.
pub fn parse(text: &str) -> Result<Module, ParseError> {
    parse::module(text)
}
