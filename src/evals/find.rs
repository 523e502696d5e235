//! The file of a task: named, in a folder, or downloaded.

use std::path::{Path, PathBuf};

use super::download::{HELLASWAG, fetch};
use super::{Benchmark, EvalsError, TaskRequest};
use crate::hub::{Hub, Repository, RepositoryKind, Watch};
use crate::ops::gemm::cache_folder;
use crate::units::bytes;

/// LAMBADA's test split as OpenAI prepared it, on the hub: 5,153 texts.
const LAMBADA_REPOSITORY: &str = "EleutherAI/lambada_openai";
const LAMBADA_FILE: &str = "data/lambada_test_en.jsonl";

/// Names of a benchmark's file, the published one first.
fn file_names(benchmark: Benchmark) -> &'static [&'static str] {
    match benchmark {
        Benchmark::HellaSwag => &[HELLASWAG.name],
        Benchmark::Lambada => &["lambada_test_en.jsonl", "lambada_test.jsonl"],
    }
}

/// The file of `request`: the one that it names, else the benchmark's in the folder `data`, else the published one,
/// which is downloaded unless an earlier call did so.
///
/// # Errors
/// `Missing`, and those of a download.
pub fn find(
    request: &TaskRequest,
    data: Option<&Path>,
    watch: &dyn Watch,
) -> Result<PathBuf, EvalsError> {
    let missing = |path: &Path| EvalsError::Missing {
        task: request.name.clone(),
        path: path.to_owned(),
        is_published: request.benchmark.is_some(),
    };
    if let Some(path) = &request.path {
        return match path.exists() {
            true => Ok(path.clone()),
            false => Err(missing(path)),
        };
    }
    let Some(benchmark) = request.benchmark else {
        return Err(EvalsError::NoTask);
    };
    let Some(folder) = data else {
        return download(benchmark, watch);
    };
    let names = file_names(benchmark).iter();
    let mut there = names
        .map(|name| folder.join(name))
        .filter(|path| path.exists());
    let published = folder.join(file_names(benchmark)[0]);
    there.next().ok_or_else(|| missing(&published))
}

fn download(benchmark: Benchmark, watch: &dyn Watch) -> Result<PathBuf, EvalsError> {
    let hub = Hub::from_environment()?;
    match benchmark {
        Benchmark::HellaSwag => {
            let folder = cache_folder().ok_or(EvalsError::NoCache)?.join("evals");
            let there = folder.join(HELLASWAG.name);
            if hub.is_offline() && !there.exists() {
                return Err(EvalsError::Offline {
                    task: benchmark.name().into(),
                    path: there,
                });
            }
            fetch(&HELLASWAG, &folder, watch)
        }
        Benchmark::Lambada => lambada(&hub, watch),
    }
}

fn lambada(hub: &Hub, watch: &dyn Watch) -> Result<PathBuf, EvalsError> {
    let repository = Repository::new(RepositoryKind::Dataset, LAMBADA_REPOSITORY)?;
    let listing = hub.revision(&repository, "main", watch)?;
    let file = [LAMBADA_FILE.to_owned()];
    let selection = hub.select(&repository, &listing.commit, &file, watch)?;
    if selection.missing().count() > 0 {
        watch.note(&format!(
            "downloading LAMBADA, {} of the {repository}, to `{}`",
            bytes(hub.missing_bytes(&selection)),
            hub.cache().display()
        ));
    }
    let files = hub.download(&selection, watch)?;
    let file = files.into_iter().next().map(|file| file.path);
    Ok(file.ok_or_else(|| crate::hub::HubError::NoFile {
        repository,
        file: LAMBADA_FILE.into(),
    })?)
}
