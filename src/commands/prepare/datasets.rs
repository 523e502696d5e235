//! Datasets of the Hugging Face hub: named, chosen by subset and split, downloaded.

use std::path::{Path, PathBuf};

use super::{PrepareArgs, usage};
use crate::data::prepare::{Origin, RequestedFile};
use crate::data::{KNOWN, KnownDataset, KnownOrigin};
use crate::error::Result;
use crate::hub::{
    CONVERSION, CachedFile, Hub, HubError, Listing, Repository, RepositoryKind, SplitFiles, Watch,
};
use crate::report::say;
use crate::terms::free_bytes;
use crate::units::{bytes, count};

/// nanoGPT's part of the documents for val (`data/openwebtext/prepare.py`).
pub(super) const VAL_FRACTION: f64 = 0.0005;

const SPLIT: &str = "train";

/// Bytes of English text that GPT-2's BPE makes a token of, on the average.
const BYTES_PER_TOKEN: u64 = 4;

/// A dataset that is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    known: Option<&'static KnownDataset>,
    id: String,
    subset: Option<String>,
    split: String,
}

/// Files of a dataset in the cache, and their place on the hub.
pub(super) struct Downloaded {
    pub files: Vec<RequestedFile>,
    pub origin: Origin,
}

impl Wanted {
    /// The dataset that `input` names: a known one, or `owner/name`. A path that exists is none, which is said where the
    /// name stands for both.
    pub fn of(input: &Path, args: &PrepareArgs) -> Option<Self> {
        let name = input.to_str()?;
        let known = KnownDataset::named(name);
        let (id, subset) = match known.map(|known| known.origin) {
            Some(KnownOrigin::Hub {
                repository, subset, ..
            }) => (repository, subset),
            Some(KnownOrigin::Text) => return None,
            None => (name, None),
        };
        if !Repository::is_name(id) || known.is_none() && is_file_name(name) {
            return None;
        }
        if input.exists() {
            say(format_args!(
                "note: reading the path `{name}`, which exists here, and not the dataset `{id}` of the hub"
            ));
            return None;
        }
        Some(Self {
            // Its figures are those of its own subset and split.
            known: known.filter(|_| args.subset.is_none() && args.split.is_none()),
            id: id.to_owned(),
            subset: args.subset.clone().or(subset.map(str::to_owned)),
            split: args.split.clone().unwrap_or(SPLIT.into()),
        })
    }

    /// The folder to write to by default: `data/openwebtext`, `data/name`, `data/name-subset`.
    pub fn default_folder(&self) -> PathBuf {
        if let Some(known) = self.known {
            return known.default_folder();
        }
        let name = self.id.rsplit('/').next().unwrap_or_default();
        let name = match &self.subset {
            Some(subset) => format!("{name}-{}", subset.replace('/', "-")),
            None => name.to_owned(),
        };
        Path::new("data").join(name)
    }

    /// Finds the split's files and downloads them; says before how many there are, how large, and where they go.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn download(&self, out: &Path, quiet: bool, watch: &dyn Watch) -> Result<Downloaded> {
        let hub = Hub::from_environment()?;
        let repository = Repository::new(RepositoryKind::Dataset, &self.id)?;
        let (listing, found) = self.find(&hub, &repository, watch)?;
        let selection = hub.select(&repository, &listing.commit, &found.paths, watch)?;
        let missing = hub.missing_bytes(&selection);
        let room = self.result_bytes(&listing);
        if !quiet {
            say(format_args!(
                "{}, commit {}: {} of {}, {} to download to `{}`; the tokens take {} in `{}`",
                self.shown(&found),
                selection.commit(),
                super::counted(selection.count() as u64, "file"),
                bytes(selection.bytes()),
                bytes(missing),
                hub.cache().display(),
                room.map_or("2 bytes each".into(), |room| format!(
                    "about {}",
                    bytes(room)
                )),
                out.display()
            ));
        }
        if let (Some(room), Some(free)) = (room, free_bytes(out))
            && free < room
        {
            watch.note(&format!(
                "`{}` has room for {}, which may be too little for the tokens",
                out.display(),
                bytes(free)
            ));
        }
        if !found.other_splits.is_empty() {
            watch.note(&format!(
                "val is drawn from `{}`; of the dataset's own splits this leaves out `{}`",
                self.split,
                found.other_splits.join("`, `")
            ));
        }
        let files = hub.download(&selection, watch)?.into_iter();
        Ok(Downloaded {
            files: files
                .map(|CachedFile { path, sha256, .. }| RequestedFile { path, sha256 })
                .collect(),
            origin: Origin {
                repository: self.id.clone(),
                revision: listing.commit,
                subset: found.subset,
                split: self.split.clone(),
            },
        })
    }

    fn find(
        &self,
        hub: &Hub,
        repository: &Repository,
        watch: &dyn Watch,
    ) -> Result<(Listing, SplitFiles), HubError> {
        let subset = self.subset.as_deref();
        let listing = hub.revision(repository, "main", watch)?;
        if let Some(found) = listing.split_files(repository, subset, &self.split)? {
            return Ok((listing, found));
        }
        let converted = match hub.revision(repository, CONVERSION, watch) {
            Err(HubError::NoRevision { repository, .. }) => {
                return Err(HubError::NoDocuments { repository });
            }
            converted => converted?,
        };
        watch.note(&format!(
            "the {repository} comes in a format that is not read; using the hub's conversion to Parquet"
        ));
        let found = converted.converted_files(repository, subset, &self.split)?;
        Ok((converted, found))
    }

    fn shown(&self, found: &SplitFiles) -> String {
        let subset = found
            .subset
            .iter()
            .map(|subset| format!(", subset `{subset}`"));
        format!(
            "`{}`{}, split `{}`",
            self.id,
            subset.collect::<String>(),
            self.split
        )
    }

    /// About the bytes of the tokens: as known, or by the bytes of text that the card tells (`dataset_info`).
    fn result_bytes(&self, listing: &Listing) -> Option<u64> {
        if let Some(known) = self.known {
            return Some(known.result_bytes());
        }
        let info = listing.card.get("dataset_info")?;
        let infos = info
            .as_array()
            .map_or(std::slice::from_ref(info), Vec::as_slice);
        let subset = self.subset.as_deref();
        let info = infos.iter().find(|info| {
            let name = info.get("config_name").and_then(|name| name.as_str());
            infos.len() == 1 || name == subset.or(Some("default"))
        })?;
        let mut splits = info.get("splits")?.as_array()?.iter();
        let split =
            splits.find(|split| split.get("name").is_some_and(|name| *name == *self.split))?;
        Some(split.get("num_bytes")?.as_u64()? / BYTES_PER_TOKEN * 2)
    }
}

/// Whether a name has the ending of a file that `prepare` reads.
fn is_file_name(name: &str) -> bool {
    let endings = [
        ".txt", ".json", ".jsonl", ".parquet", ".gz", ".zst", ".md", ".bin", ".csv",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Refuses flags that choose files of the hub where none are downloaded.
pub(super) fn refuse_hub_flags(args: &PrepareArgs) -> Result<()> {
    for (flag, value) in [("--subset", &args.subset), ("--split", &args.split)] {
        if let Some(value) = value {
            return Err(usage(
                format!("`{flag} {value}` chooses files of the hub, and none are downloaded"),
                format!(
                    "leave it out, or name a dataset of the hub: `taper prepare OWNER/NAME {flag} {value}`"
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses a word that is no file here and no known dataset: perhaps a misspelt one.
pub(super) fn refuse_unknown_names(inputs: &[PathBuf]) -> Result<()> {
    let is_word = |name: &&str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        name.starts_with(char::is_alphanumeric)
            && name.chars().all(is_letter)
            && !Path::new(name).exists()
    };
    let mut words = inputs.iter().filter_map(|input| input.to_str());
    let Some(word) = words.find(is_word) else {
        return Ok(());
    };
    let names = KNOWN.map(|known| known.name);
    let near = names
        .iter()
        .min_by_key(|name| strsim::damerau_levenshtein(word, name));
    let near = near.filter(|name| strsim::damerau_levenshtein(word, name) <= MISSPELT);
    let meant = near.map_or(String::new(), |name| format!("did you mean `{name}`? "));
    Err(usage(
        format!("`{word}` is no file here, and no dataset of that name is known"),
        format!(
            "{meant}known are `{}`; any other of the hub is `OWNER/NAME`",
            names.join("`, `")
        ),
    ))
}

/// Letters by which a name that was meant may differ.
const MISSPELT: usize = 2;

/// Refuses a dataset among other inputs.
pub(super) fn refuse_company(args: &PrepareArgs, wanted: &Wanted) -> Result<()> {
    if args.inputs.len() == 1 {
        return Ok(());
    }
    Err(usage(
        format!(
            "the dataset `{}` is named among {} inputs",
            wanted.id,
            count(args.inputs.len() as u64)
        ),
        "prepare it alone; a path of that form begins with `./`",
    ))
}
