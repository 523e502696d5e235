//! Findings about the folders that a run reads from and writes to.

use super::{Finding, GIB};
use crate::doctor::folders::{CheckpointFolder, DataContents, DataFolder};
use crate::units::{bytes, count};

pub(super) fn data(data: &DataFolder) -> Finding {
    let folder = data.folder.display();
    let free = match data.free_bytes {
        Some(free) => format!(" ({} free)", bytes(free)),
        None => String::new(),
    };
    let text = match &data.contents {
        DataContents::Embedded => "`quickstart` is in the binary".into(),
        DataContents::Listed { datasets } if datasets.is_empty() => {
            format!("no dataset in `{folder}`{free}; `quickstart` is in the binary")
        }
        DataContents::Listed { datasets } => {
            let names: Vec<String> = datasets.iter().map(|name| format!("`{name}`")).collect();
            format!("{} in `{folder}`{free}", names.join(", "))
        }
        DataContents::Ready {
            dataset,
            train_tokens,
            val_tokens,
        } => format!(
            "`{dataset}` in `{folder}`{free}: {} train tokens, {} val tokens",
            count(*train_tokens),
            count(*val_tokens)
        ),
        DataContents::Unusable {
            reason, suggestion, ..
        } => return Finding::problem("data", reason.clone(), suggestion),
    };
    Finding::ok("data", text)
}

pub(super) fn checkpoints(checkpoints: &CheckpointFolder) -> Finding {
    let folder = checkpoints.folder.display();
    if let Some(obstacle) = &checkpoints.obstacle {
        return Finding::problem(
            "checkpoints",
            format!("nothing can be written to `{folder}`: {obstacle}"),
            "choose another folder with `--set checkpoint.out_dir=FOLDER`",
        );
    }
    let Some(free) = checkpoints.free_bytes else {
        return Finding::ok("checkpoints", format!("`{folder}` can be written"));
    };
    let mut text = format!("`{folder}`, {} free", bytes(free));
    let needed = checkpoints.checkpoint_bytes.map(|one| {
        let all = one.saturating_mul(checkpoints.at_most);
        text += &format!(
            "; a checkpoint takes {}, up to {} of them {}",
            bytes(one),
            count(checkpoints.at_most),
            bytes(all)
        );
        all
    });
    let larger = "choose a larger disk with `--set checkpoint.out_dir=FOLDER`";
    match needed {
        Some(needed) if free.saturating_add(checkpoints.held_bytes) < needed => {
            Finding::problem("checkpoints", text, larger)
        }
        None if free < GIB => Finding::note("checkpoints", text, larger),
        _ => Finding::ok("checkpoints", text),
    }
}
