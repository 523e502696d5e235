//! Checkpoints: folders that are written whole or not at all, and that Hugging Face can read.
//!
//! `<out_dir>/ckpt-00002000/` holds
//!
//! | file | contents |
//! |---|---|
//! | `model.safetensors`, `config.json` | a Hugging Face GPT-2, loadable with `from_pretrained` |
//! | tokenizer files | whatever the caller hands over in [`Snapshot::extra_files`] |
//! | `optimizer.safetensors` | both AdamW moments, `m.*` and `v.*`, fp32, taper's layout |
//! | `config.toml` | the resolved run config, valid for `--config` |
//! | `state.json` | [`TrainState`]: the position of the run |
//! | `lineage.json` | [`Lineage`], if the run went back to an earlier checkpoint on its way here |
//! | `MANIFEST.json` | size and SHA-256 of every file above; written last |
//!
//! [`save()`] writes into a temporary folder, syncs every file, and renames it into place, so that a
//! process killed at any instant leaves the earlier checkpoints as they were. [`open`] and
//! [`find_latest`] take no checkpoint that its manifest does not confirm. [`OutDir`] keeps a second run away,
//! [`prune`] deletes old checkpoints, and both it and [`find_latest`] follow the branch of the run ([`Lineage`]). Weights and moments may lie in
//! any memory: [`Values`](crate::ops::backend::Values), [`ValuesMut`](crate::ops::backend::ValuesMut).

mod counted;
mod error;
mod export;
mod folders;
mod lineage;
mod load;
mod locate;
mod manifest;
mod of_nanogpt;
mod out_dir;
mod resume;
mod save;
mod state;
mod to_nanogpt;
mod weights;

pub use error::{CheckpointError, Damage, Difference, Flaw, Skipped, Stuck};
pub use export::{Export, ExportError, ExportTarget, export};
pub use folders::{prune, saved, sweep};
pub use lineage::{Ancestor, Branch, Lineage};
pub use load::{Checkpoint, FoundCheckpoint, TrainedRun, find_before, find_latest, open};
pub use locate::{FoundWeights, find_weights};
pub use of_nanogpt::{find_latest_to_resume, open_to_resume};
pub use out_dir::OutDir;
pub use resume::{
    asks_for_the_same_gemm, asks_for_the_same_launch, check_resumable, check_resumable_data_aside,
    check_stored_keys, stored_config,
};
pub use save::{Snapshot, save, save_counted};
pub use state::TrainState;
pub use weights::download::find_or_download;
pub use weights::encode::WeightsDtype;
pub use weights::foreign::{ForeignError, ForeignFormat};
pub use weights::hub::resolve_pretrained;
pub use weights::nanogpt::{AdamWState, NanoGptState, write_nanogpt};
pub use weights::pretrained::{Pretrained, open_pretrained};
pub use weights::torch::{TorchError, TorchFlaw};

const MODEL: &str = "model.safetensors";
const MODEL_CONFIG: &str = "config.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const RUN_CONFIG: &str = "config.toml";
const STATE: &str = "state.json";
const LINEAGE: &str = "lineage.json";
const MANIFEST: &str = "MANIFEST.json";

/// Action of a save on values that are not in the host's memory, as its error says it.
const FETCH: &str = "fetch the values of";

/// The files without which a folder is no checkpoint, whatever its manifest lists.
const REQUIRED: [&str; 5] = [MODEL, MODEL_CONFIG, OPTIMIZER, RUN_CONFIG, STATE];
