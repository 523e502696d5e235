//! A loss that is no number any more: the step, and the way back.

use std::path::PathBuf;

use super::{Session, SessionError};
use crate::checkpoint;
use crate::terms::shell_word;

/// A loss or a gradient norm that is NaN or infinite. Nothing was saved since.
#[derive(Debug, thiserror::Error)]
#[error("training diverged at step {step}: {found}; {}", self.way_back())]
pub struct Divergence {
    /// The step that was not taken, or the step after which the weights were evaluated.
    pub step: u64,
    /// The numbers, with their names.
    pub found: String,
    /// The newest checkpoint that a finite step followed, and its step.
    pub good: Option<(u64, PathBuf)>,
    /// A newer checkpoint, whose weights give the numbers above.
    pub bad: Option<PathBuf>,
    /// The learning rate that was asked for.
    pub learning_rate: f64,
    /// Whether no outlier was left out.
    pub is_unguarded: bool,
}

impl Divergence {
    fn way_back(&self) -> String {
        let bad = self.bad.as_ref().map_or(String::new(), |path| {
            format!(" (the weights in `{}` give these numbers)", path.display())
        });
        match (&self.good, &self.bad) {
            (Some((step, path)), _) => format!(
                "the last good checkpoint is `{}`, of step {step}{bad}",
                path.display()
            ),
            (None, Some(_)) => format!("there is no good checkpoint{bad}"),
            (None, None) => "no checkpoint was saved before".into(),
        }
    }

    /// The edits to go on with. A run that goes on as it is comes to the same step with the same numbers.
    pub fn hint(&self) -> String {
        let rate = format!(
            "`--set optimizer.learning_rate={:?}",
            self.learning_rate / 2.0
        );
        let Some((_, path)) = &self.good else {
            let elsewhere = match self.bad {
                Some(_) => " --set checkpoint.out_dir=NEW_FOLDER",
                None => "",
            };
            return format!(
                "start again with a lower learning rate, such as {rate}{elsewhere}`, or a longer `optimizer.warmup_iters`"
            );
        };
        let path = shell_word(path);
        let guarded = if self.is_unguarded {
            format!(
                "; or go on from it without the updates of outliers: `--resume {path} --set optimizer.skip_loss_zscore=7 \
                 --set optimizer.skip_grad_zscore=7`"
            )
        } else {
            String::new()
        };
        format!(
            "`--resume` alone would come to the same numbers; start a new run with its weights and a lower learning rate: {rate} \
             --set train.init_from={path} --set checkpoint.out_dir=NEW_FOLDER`{guarded}"
        )
    }
}

impl Session<'_> {
    /// Reports that the weights as they are give numbers that are not finite, and returns the error that names the way back.
    pub(super) fn diverged(&mut self, step: u64, found: String) -> SessionError {
        let is_bad = |at: u64| at == self.state.step;
        let saved = self.saved.clone().filter(|(_, path)| path.exists());
        let (bad, good) = match saved {
            Some((at, path)) if is_bad(at) => {
                let good = checkpoint::find_before(&self.plan.out_dir, at);
                (Some(path), good)
            }
            saved => (None, saved),
        };
        let divergence = Divergence {
            step,
            found,
            good,
            bad,
            learning_rate: self.plan.step.schedule.learning_rate,
            is_unguarded: !self.plan.step.skip.is_on(),
        };
        self.reporter.diverged(step, &divergence.found);
        Box::new(divergence).into()
    }
}
