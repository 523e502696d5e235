//! Automatic decisions.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// An automatic decision and why it was made. Printed once at launch, stored in the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice<T> {
    pub value: T,
    pub because: String,
}

/// A [`Choice`] with its name, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedChoice {
    pub name: String,
    pub value: String,
    pub because: String,
}

impl NamedChoice {
    pub fn new<T: Display>(name: impl Into<String>, choice: &Choice<T>) -> Self {
        Self {
            name: name.into(),
            value: choice.value.to_string(),
            because: choice.because.clone(),
        }
    }
}
