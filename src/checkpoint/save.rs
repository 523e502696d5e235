//! Writing a checkpoint, whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::folders::{self, Folders};
use super::manifest::{FileDigest, HashedFile, Manifest, is_plain};
use super::weights::encode::WeightsDtype;
use super::weights::huggingface;
use super::weights::safetensors::{self, Failure, TensorOut, TensorSource};
use super::{
    CheckpointError, FETCH, MANIFEST, MODEL, MODEL_CONFIG, OPTIMIZER, REQUIRED, RUN_CONFIG, STATE,
    TrainState,
};
use crate::model::ParamLayout;
use crate::ops::backend::Values;
use crate::terms::ModelDims;

/// A run at one instant, borrowed from whoever owns the buffers.
pub struct Snapshot<'a> {
    pub dims: &'a ModelDims,
    /// `weights`, `m` and `v` are flat, in the order of [`ParamLayout`].
    pub weights: &'a dyn Values,
    pub m: &'a dyn Values,
    pub v: &'a dyn Values,
    pub state: &'a TrainState,
    /// The resolved run config, as TOML.
    pub config_toml: &'a str,
    /// Tokenizer files and the like: (plain file name, contents).
    pub extra_files: &'a [(String, Vec<u8>)],
}

/// Writes `<out_dir>/ckpt-<step>` and returns its path; a checkpoint of the same step is replaced.
///
/// Everything goes into a temporary folder, each file is synced, the manifest comes last, and one rename makes the
/// checkpoint appear. Remains of an earlier, killed save are cleaned up. Nothing the size of the model is allocated.
/// With weights outside of the host's memory, one matrix of the model is allocated at a time.
///
/// # Errors
/// `Save` names the file that could not be written, or whose values could not be fetched; the earlier
/// checkpoints are untouched and the temporary folder is gone. `ExtraFile` refuses a name that is a path or that taper
/// uses itself.
///
/// # Panics
/// When a buffer is not as long as the layout of `dims`: a defect of the caller.
pub fn save(out_dir: &Path, snapshot: &Snapshot) -> Result<PathBuf, CheckpointError> {
    save_counted(out_dir, snapshot, &AtomicU64::new(0))
}

/// Does [`save`], and keeps `written` at the bytes that are written.
///
/// # Errors
/// Those of [`save`].
///
/// # Panics
/// As [`save`] does.
pub fn save_counted(
    out_dir: &Path,
    snapshot: &Snapshot,
    written: &AtomicU64,
) -> Result<PathBuf, CheckpointError> {
    // A save that lacked memory is tried again from the beginning.
    written.store(0, Ordering::Relaxed);
    let folders = Folders::new(out_dir, snapshot.state.step);
    let failed = |action, path: &Path| {
        let (checkpoint, path) = (folders.complete.clone(), path.to_owned());
        move |source| CheckpointError::Save {
            checkpoint,
            action,
            path,
            source,
        }
    };
    if let Some((name, _)) = snapshot.extra_files.iter().find(|(n, _)| !is_free(n)) {
        return Err(CheckpointError::ExtraFile { name: name.clone() });
    }
    fs::create_dir_all(out_dir).map_err(failed("create", out_dir))?;
    // A folder that cannot be removed is no reason not to save; `prune` names it.
    folders::sweep(out_dir)?;
    let saved = write_folder(&folders.temporary, snapshot, written, &failed)
        .and_then(|()| publish(out_dir, &folders).map_err(failed("rename", &folders.temporary)));
    if let Err(error) = saved {
        // The error at hand matters more than one of the clean-up, which the next save repeats.
        let _ = folders::sweep(out_dir);
        return Err(error);
    }
    // The checkpoint is there; of a replaced one that cannot be removed, `prune` tells.
    let complete = folders.complete.clone();
    let _ = folders.settle_aside();
    Ok(complete)
}

fn is_free(name: &str) -> bool {
    is_plain(name) && name != MANIFEST && !REQUIRED.contains(&name)
}

/// Puts the temporary folder in its final place. At every instant one complete folder has a name
/// that [`folders::list`] finds.
fn publish(out_dir: &Path, folders: &Folders) -> io::Result<()> {
    if folders.complete.exists() {
        fs::rename(&folders.complete, &folders.aside)?;
    }
    fs::rename(&folders.temporary, &folders.complete)?;
    folders::sync(out_dir)
}

fn write_folder<F, E>(
    folder: &Path,
    snapshot: &Snapshot,
    written: &AtomicU64,
    failed: &F,
) -> Result<(), CheckpointError>
where
    F: Fn(&'static str, &Path) -> E + Sync,
    E: FnOnce(io::Error) -> CheckpointError,
{
    fs::create_dir(folder).map_err(failed("create", folder))?;
    let layout = ParamLayout::new(snapshot.dims);
    let write = |name: &str, body: Body| {
        let path = folder.join(name);
        match write_file(&path, written, body) {
            Ok(digest) => Ok((name.to_owned(), digest)),
            Err(Failure::File(error)) => Err(failed("write", &path)(error)),
            Err(Failure::Values(error)) => Err(failed(FETCH, &path)(error)),
        }
    };
    // Hashing keeps a core busy and the disk keeps none: both big files at once.
    let (model, optimizer) = rayon::join(
        || {
            let tensors = huggingface::tensors(&layout, snapshot.weights);
            write(MODEL, &mut |file| {
                safetensors::write(file, &tensors, WeightsDtype::Float32)
            })
        },
        || {
            let tensors = moments(&layout, snapshot.m, snapshot.v);
            write(OPTIMIZER, &mut |file| {
                safetensors::write(file, &tensors, WeightsDtype::Float32)
            })
        },
    );
    let mut files = BTreeMap::from([model?, optimizer?]);
    let json = |name: &str, text: serde_json::Result<String>| {
        text.map_err(io::Error::from)
            .map_err(failed("write", &folder.join(name)))
    };
    let model_config = json(
        MODEL_CONFIG,
        huggingface::config_json(snapshot.dims, &[], WeightsDtype::Float32),
    )?;
    let state = json(STATE, serde_json::to_string_pretty(snapshot.state))?;
    let own = [
        (MODEL_CONFIG, model_config.as_bytes()),
        (RUN_CONFIG, snapshot.config_toml.as_bytes()),
        (STATE, state.as_bytes()),
    ];
    let extra = snapshot.extra_files.iter();
    for (name, bytes) in own
        .into_iter()
        .chain(extra.map(|(n, b)| (n.as_str(), &b[..])))
    {
        files.extend([write(name, &mut |file| Ok(file.write_all(bytes)?))?]);
    }
    let manifest = json(MANIFEST, Manifest::new(files).to_json())?;
    write(MANIFEST, &mut |file| {
        Ok(file.write_all(manifest.as_bytes())?)
    })?;
    folders::sync(folder).map_err(failed("sync", folder))
}

type Body<'a> = &'a mut dyn FnMut(&mut HashedFile) -> Result<(), Failure>;

fn write_file(path: &Path, written: &AtomicU64, body: Body) -> Result<FileDigest, Failure> {
    let mut file = HashedFile::create(path, written)?;
    body(&mut file)?;
    Ok(file.finish()?)
}

/// The tensors `m.<parameter>` and `v.<parameter>`, in taper's own layout.
fn moments<'a>(layout: &ParamLayout, m: &'a dyn Values, v: &'a dyn Values) -> Vec<TensorOut<'a>> {
    let named = [("m", m), ("v", v)];
    let tensors = named.iter().flat_map(|&(moment, values)| {
        assert_eq!(values.len(), layout.len, "`{moment}` has another layout");
        layout.params.iter().map(move |param| TensorOut {
            name: format!("{moment}.{}", param.name),
            shape: param.shape.clone(),
            source: TensorSource::Same(values, param.range()),
        })
    });
    tensors.collect()
}
