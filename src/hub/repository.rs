//! Names of repositories.

use std::fmt::{self, Display};

use super::HubError;

/// The longest name that the hub has.
const LONGEST: usize = 96;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    Model,
    Dataset,
}

impl RepositoryKind {
    /// The word in the paths of the API and of the cache.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository of the hub, `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub kind: RepositoryKind,
    id: String,
}

impl Repository {
    /// # Errors
    /// `Name` when the hub has no such names.
    pub fn new(kind: RepositoryKind, id: &str) -> Result<Self, HubError> {
        if !Self::is_name(id) {
            return Err(HubError::Name { id: id.to_owned() });
        }
        let id = id.to_owned();
        Ok(Self { kind, id })
    }

    /// Whether `id` is a name of the form `owner/name`, by the hub's own rules (huggingface_hub, `validate_repo_id`).
    pub fn is_name(id: &str) -> bool {
        let Some((owner, name)) = id.split_once('/') else {
            return false;
        };
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        is_part(owner)
            && is_part(name)
            && id.len() <= LONGEST
            && !id.contains("--")
            && !id.contains("..")
            && !id.ends_with(".git")
    }

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name of its folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }

    /// Path of its pages and files below the endpoint.
    pub(super) fn place(&self) -> String {
        match self.kind {
            RepositoryKind::Model => self.id.clone(),
            RepositoryKind::Dataset => format!("datasets/{}", self.id),
        }
    }
}

impl Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.kind {
            RepositoryKind::Model => write!(f, "model `{}`", self.id),
            RepositoryKind::Dataset => write!(f, "dataset `{}`", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_hub() {
        for name in [
            "openai-community/gpt2",
            "roneneldan/TinyStories",
            "a/b.c_d-1.3B",
        ] {
            assert!(Repository::is_name(name), "{name}");
        }
        let long = format!("a/{}", "b".repeat(95));
        for other in [
            "gpt2", "a/b/c", "/a", "a/", "./a", "../a", "a/..", "a/b..c", "a--b/c", "a/b.git",
            "a/b c", "a/b%2f", "-a/b", "a/b-", &long,
        ] {
            assert!(!Repository::is_name(other), "{other}");
        }
    }
}
