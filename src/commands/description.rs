//! The description of a run: for people at its start, and for the readers of its curves.

use std::path::Path;

use serde_json::Value;

use super::train::PlannedRun;
use crate::config::{Config, Preset};
use crate::metrics::flops_per_token;
use crate::model::ParamLayout;
use crate::record::{RunRecord, differences};
use crate::report::{DataSummary, Startup, device_text, memory_records};

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl PlannedRun<'_> {
    pub(super) fn startup(&self) -> Startup {
        let plan = self.plan;
        Startup {
            version: VERSION,
            device: self.device.clone(),
            model: plan.model.clone(),
            data: self.data(),
            micro_batch: plan.launch().rung.micro_batch,
            gradient_accumulation_steps: plan.gradient_accumulation_steps(),
            max_iters: plan.max_iters,
            schedule: plan.step.schedule,
            start_step: self.start.step(),
            log_interval: plan.log_interval,
            eval_interval: plan.eval_interval,
            planned_bytes: plan.launch().bytes,
            budget_bytes: plan.budget.value,
            checkpoint_dir: plan.out_dir.clone(),
            choices: plan.choices.clone(),
        }
    }

    pub(super) fn record(&self) -> RunRecord {
        let plan = self.plan;
        let (preset, base) = base(self.source);
        let config = values(self.config);
        let resumed_from = self.start.resumed_from();
        RunRecord {
            name: name(&plan.out_dir),
            version: VERSION.into(),
            step: self.start.step(),
            resumed_from: resumed_from.map(|path| path.display().to_string()),
            source: self.source.into(),
            preset,
            differs: differences(&values(&base), &config),
            config,
            device: device_text(self.device),
            parameters: ParamLayout::new(&plan.model).len as u64,
            flops_per_token: flops_per_token(&plan.model),
            model: plan.model.clone(),
            data: self.data(),
            tokens_per_step: plan.tokens_per_step(),
            max_iters: plan.max_iters,
            rung: plan.launch().rung,
            gradient_accumulation_steps: plan.gradient_accumulation_steps(),
            planned_bytes: plan.launch().bytes,
            budget_bytes: plan.budget.value,
            memory: memory_records(&plan.memory),
            choices: plan.choices.clone(),
        }
    }

    fn data(&self) -> DataSummary {
        let info = &self.dataset.info;
        DataSummary {
            name: info.name.clone(),
            train_tokens: info.train_tokens,
            val_tokens: info.val_tokens,
            vocab_size: info.vocab_size.value,
        }
    }
}

/// The preset that `source` names or is a copy of, and its values; else the defaults.
fn base(source: &str) -> (Option<String>, Config) {
    let preset = Preset::named(source);
    let base = preset.and_then(|preset| Some((preset.name.into(), preset.config().ok()?)));
    base.map_or_else(Default::default, |(name, base)| (Some(name), base))
}

/// The keys of a config in its sections.
fn values(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// The last part of a folder's path, links and `..` resolved.
fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into()
}
