//! The files of a dataset's split: by the card's `configs`, else by their names, as the hub's own tools find them.
//!
//! Rules: <https://huggingface.co/docs/hub/datasets-manual-configuration> and `datasets-file-names-and-splits`.

use std::collections::BTreeSet;

use glob::{MatchOptions, Pattern};
use serde_json::Value;

use super::{HubError, Listing, Repository};

/// Endings of the files that hold documents, the preferred first: a dataset that comes in two formats is not read twice.
const FORMATS: [&[&str]; 4] = [
    &[".parquet"],
    &[".jsonl", ".jsonl.gz", ".jsonl.zst"],
    &[".json", ".json.gz", ".json.zst"],
    &[".txt", ".txt.gz", ".txt.zst"],
];

/// Files of those formats that hold no documents.
const NO_DOCUMENTS: [&str; 7] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "license.txt",
    "readme.txt",
    "requirements.txt",
];

/// The names of splits, each with the words for it in the names of files.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The branch where the hub keeps its own conversion: `<subset>/<split>/0000.parquet`.
pub const CONVERSION: &str = "refs/convert/parquet";

/// The files of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFiles {
    /// In the order of their names.
    pub paths: Vec<String>,
    /// The subset that was asked for, or that the dataset has.
    pub subset: Option<String>,
    /// Names of the splits that it has besides.
    pub other_splits: Vec<String>,
}

/// A subset or a split that is asked for.
struct Asked<'a> {
    repository: &'a Repository,
    subset: Option<&'a str>,
    split: &'a str,
}

impl Listing {
    /// The files of a split, by the card or by their names. `None` where neither tells: [`Listing::converted_files`] of
    /// the branch [`CONVERSION`] may.
    ///
    /// # Errors
    /// `NoSubset`, `NoSplit` with those that there are.
    pub fn split_files(
        &self,
        repository: &Repository,
        subset: Option<&str>,
        split: &str,
    ) -> Result<Option<SplitFiles>, HubError> {
        let asked = Asked {
            repository,
            subset,
            split,
        };
        let configs = self.card.get("configs").and_then(Value::as_array);
        let configs: Vec<&Value> = configs.into_iter().flatten().collect();
        if configs
            .iter()
            .any(|config| config.get("data_files").is_some())
        {
            return asked.by_card(&configs, &self.files);
        }
        asked.by_names(&self.files)
    }

    /// The files of a split in the branch [`CONVERSION`].
    ///
    /// # Errors
    /// `NoSubset`, `NoSplit` with those that there are; `Partial` where the hub converted only the beginning.
    pub fn converted_files(
        &self,
        repository: &Repository,
        subset: Option<&str>,
        split: &str,
    ) -> Result<SplitFiles, HubError> {
        let asked = Asked {
            repository,
            subset,
            split,
        };
        let parts = |path: &str| {
            let (subset, rest) = path.split_once('/')?;
            let (split, _) = rest.split_once('/')?;
            Some((subset.to_owned(), split.to_owned()))
        };
        let folders: Vec<(String, String)> =
            self.files.iter().filter_map(|path| parts(path)).collect();
        let subsets: BTreeSet<&str> = folders.iter().map(|(subset, _)| subset.as_str()).collect();
        let subset = asked.subset_of(&Vec::from_iter(subsets), None)?;
        let splits = folders.iter().filter(|(of, _)| of == subset);
        let splits: BTreeSet<&str> = splits.map(|(_, split)| split.as_str()).collect();
        if splits.contains(format!("partial-{split}").as_str()) {
            return Err(HubError::Partial {
                repository: repository.clone(),
                split: split.to_owned(),
            });
        }
        let other_splits = asked.others(&Vec::from_iter(splits))?;
        let folder = format!("{subset}/{split}/");
        let inside = self.files.iter().filter(|path| path.starts_with(&folder));
        let paths = preferred(inside.map(String::as_str));
        asked.some(paths, Some(subset.to_owned()), other_splits)
    }
}

impl Asked<'_> {
    /// The subset to take of those that there are: the one asked for, the only one, or the default.
    fn subset_of<'s>(
        &self,
        there: &[&'s str],
        default: Option<&'s str>,
    ) -> Result<&'s str, HubError> {
        let found = match (self.subset, there) {
            (Some(asked), _) => there.iter().find(|name| **name == asked).copied(),
            (None, [only]) => Some(*only),
            (None, _) => default.or_else(|| there.iter().find(|name| **name == "default").copied()),
        };
        found.ok_or_else(|| HubError::NoSubset {
            repository: self.repository.clone(),
            asked: self.subset.map(str::to_owned),
            there: there.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// The splits besides the one that is asked for, which must be there.
    fn others(&self, there: &[&str]) -> Result<Vec<String>, HubError> {
        let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect();
        if !there.contains(&self.split) {
            return Err(HubError::NoSplit {
                repository: self.repository.clone(),
                asked: self.split.to_owned(),
                there: owned(there.iter().collect()),
            });
        }
        Ok(owned(
            there.iter().filter(|name| **name != self.split).collect(),
        ))
    }

    fn some(
        &self,
        paths: Vec<String>,
        subset: Option<String>,
        other_splits: Vec<String>,
    ) -> Result<SplitFiles, HubError> {
        if paths.is_empty() {
            return Err(HubError::NoDocuments {
                repository: self.repository.clone(),
            });
        }
        Ok(SplitFiles {
            paths,
            subset,
            other_splits,
        })
    }

    fn by_card(
        &self,
        configs: &[&Value],
        files: &[String],
    ) -> Result<Option<SplitFiles>, HubError> {
        let name = |config: &&Value| Some(config.get("config_name")?.as_str()?.to_owned());
        let names: Vec<String> = configs
            .iter()
            .map(|config| name(config).unwrap_or("default".into()))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let is_default = |config: &&Value| config.get("default") == Some(&Value::Bool(true));
        let default = configs.iter().position(is_default).map(|at| names[at]);
        let subset = self.subset_of(&names, default)?;
        let config = names
            .iter()
            .position(|name| *name == subset)
            .map(|at| configs[at]);
        let Some(data_files) = config.and_then(|config| config.get("data_files")) else {
            return self.by_names(files);
        };
        let folder = config.and_then(|config| config.get("data_dir")?.as_str());
        let splits = splits_of(data_files);
        let there: Vec<&str> = splits.iter().map(|(split, _)| split.as_str()).collect();
        let other_splits = self.others(&there)?;
        let patterns = splits.into_iter().filter(|(split, _)| split == self.split);
        let patterns: Vec<Pattern> = patterns
            .flat_map(|(_, patterns)| patterns)
            .filter_map(|pattern| {
                let pattern = pattern.trim_start_matches("./");
                match folder.map(|folder| folder.trim_matches('/')) {
                    Some(folder) if !folder.is_empty() => {
                        Pattern::new(&format!("{folder}/{pattern}")).ok()
                    }
                    _ => Pattern::new(pattern).ok(),
                }
            })
            .collect();
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let matches = |path: &&str| {
            patterns
                .iter()
                .any(|pattern| pattern.matches_with(path, options))
        };
        let paths = preferred(files.iter().map(String::as_str).filter(matches));
        // In a format that is not read, or by a pattern of another kind: the conversion may have it.
        if paths.is_empty() {
            return Ok(None);
        }
        let subset = (configs.len() > 1 || self.subset.is_some()).then(|| subset.to_owned());
        self.some(paths, subset, other_splits).map(Some)
    }

    fn by_names(&self, files: &[String]) -> Result<Option<SplitFiles>, HubError> {
        let folder = self.subset.map(|subset| format!("{subset}/"));
        let inside = |path: &&str| {
            folder
                .as_ref()
                .is_none_or(|folder| path.starts_with(folder.as_str()))
        };
        let documents: Vec<&str> = files.iter().map(String::as_str).filter(inside).collect();
        let named =
            |split: &str| preferred(documents.iter().copied().filter(|path| is_of(path, split)));
        let mut there: Vec<&str> = SPLITS.iter().map(|(split, _)| *split).collect();
        there.retain(|split| !named(split).is_empty());
        let mut paths = named(self.split);
        if paths.is_empty() && there.is_empty() && self.split == "train" {
            paths = preferred(documents.iter().copied());
        }
        if paths.is_empty() && there.is_empty() {
            return Ok(None);
        }
        if !paths.is_empty() && !there.contains(&self.split) {
            there.push(self.split);
        }
        let other_splits = self.others(&there)?;
        self.some(paths, self.subset.map(str::to_owned), other_splits)
            .map(Some)
    }
}

/// The splits of a card's `data_files`, with the patterns of each: a path or several, for train; or a list or a map of
/// splits.
fn splits_of(data_files: &Value) -> Vec<(String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        let values = match value {
            Value::Array(values) => values.iter().collect(),
            one => vec![one],
        };
        values
            .into_iter()
            .filter_map(|value| Some(value.as_str()?.to_owned()))
            .collect()
    };
    let train = |value: &Value| vec![("train".to_owned(), texts(value))];
    match data_files {
        Value::Object(splits) => splits
            .iter()
            .map(|(split, paths)| (split.clone(), texts(paths)))
            .collect(),
        Value::Array(entries) if entries.iter().any(Value::is_object) => entries
            .iter()
            .filter_map(|entry| {
                let split = entry
                    .get("split")
                    .and_then(Value::as_str)
                    .unwrap_or("train");
                Some((split.to_owned(), texts(entry.get("path")?)))
            })
            .collect(),
        paths => train(paths),
    }
}

/// Whether the name of a file, or of a folder above it, begins or ends with a word for the split.
fn is_of(path: &str, split: &str) -> bool {
    let words = SPLITS.iter().find(|(name, _)| *name == split);
    let words = words.map_or(std::slice::from_ref(&split), |(_, words)| *words);
    path.to_ascii_lowercase().split('/').any(|part| {
        let mut parts = part.split(['-', '_', '.', ' ']);
        parts.any(|part| words.contains(&part.trim_end_matches(|c: char| c.is_ascii_digit())))
    })
}

/// The files of the first format that there is, sorted.
fn preferred<'p>(paths: impl Iterator<Item = &'p str> + Clone) -> Vec<String> {
    let of = |endings: &[&str]| {
        let is_document = |path: &&str| {
            let name = path
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            endings.iter().any(|ending| name.ends_with(ending))
                && !NO_DOCUMENTS.contains(&name.as_str())
        };
        let mut found: Vec<String> = paths
            .clone()
            .filter(is_document)
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    let mut formats = FORMATS.iter().map(|endings| of(endings));
    formats.find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
