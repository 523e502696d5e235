//! Where a run reads from and writes to.

use super::{Finding, GIB};
use crate::doctor::folders::{Contents, Data, Place};
use crate::units::{bytes, count};

pub(super) fn data(data: &Data) -> Finding {
    let folder = data.folder.display();
    let free = match data.free_bytes {
        Some(free) => format!(" ({} free)", bytes(free)),
        None => String::new(),
    };
    let text = match &data.contents {
        Contents::Embedded => "`quickstart` is in the binary".into(),
        Contents::Listed { datasets } if datasets.is_empty() => {
            format!("no dataset in `{folder}`{free}; `quickstart` is in the binary")
        }
        Contents::Listed { datasets } => {
            let names: Vec<String> = datasets.iter().map(|name| format!("`{name}`")).collect();
            format!("{} in `{folder}`{free}", names.join(", "))
        }
        Contents::Ready {
            dataset,
            train_tokens,
            val_tokens,
        } => format!(
            "`{dataset}` in `{folder}`{free}: {} train tokens, {} val tokens",
            count(*train_tokens),
            count(*val_tokens)
        ),
        Contents::Unusable {
            reason, suggestion, ..
        } => return Finding::problem("data", reason.clone(), suggestion),
    };
    Finding::ok("data", text)
}

pub(super) fn checkpoints(place: &Place) -> Finding {
    let folder = place.folder.display();
    if let Some(obstacle) = &place.obstacle {
        return Finding::problem(
            "checkpoints",
            format!("nothing can be written to `{folder}`: {obstacle}"),
            "choose another folder with `--set checkpoint.out_dir=FOLDER`",
        );
    }
    let Some(free) = place.free_bytes else {
        return Finding::ok("checkpoints", format!("`{folder}` can be written"));
    };
    let mut text = format!("`{folder}`, {} free", bytes(free));
    let needed = place.checkpoint_bytes.map(|one| {
        let all = one.saturating_mul(place.at_most);
        text += &format!(
            "; a checkpoint takes {}, up to {} of them {}",
            bytes(one),
            count(place.at_most),
            bytes(all)
        );
        all
    });
    let larger = "choose a larger disk with `--set checkpoint.out_dir=FOLDER`";
    match needed {
        Some(needed) if free.saturating_add(place.held_bytes) < needed => {
            Finding::problem("checkpoints", text, larger)
        }
        None if free < GIB => Finding::note("checkpoints", text, larger),
        _ => Finding::ok("checkpoints", text),
    }
}
