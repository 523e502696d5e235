//! Refusals, for when not even the smallest rung fits: the memory needed, the memory there is, and edits that would
//! fit.

use std::cmp::Reverse;
use std::fmt::{self, Display};

use super::budget::budget;
use super::draft::Draft;
use super::standing::Standing;
use super::{Origin, PlanError, Request};
use crate::config::{BatchSize, Config, RecomputeRequest};
use crate::device::DeviceProfile;
use crate::memory::{Group, OutOfMemory, Row, total_bytes};
use crate::terms::Choice;
use crate::units::bytes;

/// Largest consumers that a refusal lists, and edits that it proposes.
const LISTED: usize = 3;

/// Tokens of the shortest context that is proposed.
const SHORTEST: usize = 16;

/// A change that would make the run fit, and the memory it would take then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub edit: String,
    pub bytes: u64,
}

/// The smallest launch does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub needed: u64,
    pub available: u64,
    /// Reason why no more is available.
    pub because: String,
    /// The groups that take most.
    pub largest: Vec<(Group, u64)>,
    /// Present if not even the state of training fits, at launch.
    pub standing: Option<Standing>,
    pub edits: Vec<Edit>,
    pub stage: Stage,
}

/// Progress of a run when memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was allocated.
    Launch,
    /// Buffers were allocated; `saved` if a checkpoint can be resumed.
    UnderWay { saved: bool },
}

impl std::error::Error for Refusal {}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let needed = bytes(self.needed);
        match self.stage {
            Stage::Launch => write!(
                f,
                "the smallest launch needs {needed}, {} may be used ({}); largest:",
                bytes(self.available),
                self.because
            )?,
            Stage::UnderWay { .. } => write!(
                f,
                "the smallest launch needs {needed}, and memory was refused ({}); largest:",
                self.because
            )?,
        }
        for (i, (group, held)) in self.largest.iter().enumerate() {
            write!(
                f,
                "{} {group} {}",
                if i > 0 { "," } else { "" },
                bytes(*held)
            )?;
        }
        Ok(())
    }
}

impl Refusal {
    /// The obstacle, and the edits, one per line, or what to do where none would help.
    pub fn hint(&self) -> String {
        let lines: Vec<String> = self
            .edits
            .iter()
            .map(|edit| format!("`{}` needs {}", edit.edit, bytes(edit.bytes)))
            .collect();
        let mut hint = match lines.as_slice() {
            [] => format!(
                "free at least {} more; `taper doctor` says who holds what",
                bytes(self.needed.saturating_sub(self.available))
            ),
            [one] => format!("{one} and fits"),
            _ => format!("each of these fits:\n  {}", lines.join("\n  ")),
        };
        if let Some(standing) = &self.standing {
            let standing = standing.lines().join("\n");
            hint = match lines.as_slice() {
                [] => format!("{hint}\n{standing}"),
                _ => format!("{standing}\n{hint}"),
            };
        }
        if self.stage == (Stage::UnderWay { saved: true }) {
            hint += "\nas a run of its own; or make room and run the same command with `--resume`: \
                     everything trained is saved";
        }
        hint
    }
}

impl Request<'_> {
    /// Explains that nothing fits into `available`, with edits that would.
    pub(super) fn refuse(&self, draft: &Draft, available: &Choice<u64>) -> Refusal {
        let smallest: Vec<Row> = draft.measure.table(draft.smallest().rung);
        let needed = total_bytes(&smallest);
        let of_group = |group: Group| {
            let rows = smallest.iter().filter(|row| row.group == group);
            (group, total_bytes(rows))
        };
        let mut largest: Vec<(Group, u64)> = Group::ALL.map(of_group).into();
        largest.sort_by_key(|(_, bytes)| Reverse(*bytes));
        largest.truncate(LISTED);
        let case = Case {
            request: *self,
            available: available.value,
        };
        let limit = case.limit();
        // A higher limit is all that it takes.
        let standing = match limit {
            None => Standing::new(&case, &draft.measure.model, &smallest),
            Some(_) => None,
        };
        let mut edits: Vec<Edit> = [limit, case.recompute()].into_iter().flatten().collect();
        edits.extend(case.smaller_models());
        edits.truncate(LISTED);
        Refusal {
            needed,
            available: available.value,
            because: available.because.clone(),
            largest,
            standing,
            edits,
            stage: Stage::Launch,
        }
    }

    /// Explains a lack of memory at the smallest rung of a run under way, with launches that take less. `saved`
    /// says whether there is a checkpoint to go on from.
    ///
    /// # Errors
    /// When the request has no plan any more.
    pub fn explain(&self, lack: &OutOfMemory, saved: bool) -> Result<Refusal, PlanError> {
        let draft = Draft::new(self)?;
        let available = Choice {
            value: lack.held.min(draft.smallest().bytes.saturating_sub(1)),
            because: lack.to_string(),
        };
        Ok(Refusal {
            stage: Stage::UnderWay { saved },
            standing: None,
            ..self.refuse(&draft, &available)
        })
    }
}

/// A request that does not fit into what is available.
pub(super) struct Case<'a> {
    pub request: Request<'a>,
    pub available: u64,
}

impl Case<'_> {
    /// The memory of the smallest launch of `config`.
    fn smallest(&self, config: &Config) -> Option<u64> {
        let mut config = config.clone();
        config.train.sequences_per_step = Some(self.request.config.sequences_per_step());
        config.train.tokens_per_step = None;
        self.smallest_of(&config, self.request.device)
    }

    /// The memory of the smallest launch of `config` on `device`.
    pub fn smallest_of(&self, config: &Config, device: &DeviceProfile) -> Option<u64> {
        let mut config = config.clone();
        let sequences = config.sequences_per_step();
        // With one sequence at a time the ladder is short, and its last rung is the same.
        config.train.batch_size = BatchSize::Sequences(1);
        config.train.sequences_per_step = Some(sequences);
        (
            config.train.gradient_accumulation_steps,
            config.train.tokens_per_step,
        ) = (None, None);
        let origin = Origin {
            rung: None,
            ..self.request.origin
        };
        let draft = Draft::new(&Request {
            config: &config,
            device,
            origin,
            ..self.request
        })
        .ok()?;
        Some(draft.smallest().bytes)
    }

    /// `edit`, if the smallest launch of `config` fits.
    fn fitting(&self, config: &Config, edit: String) -> Option<Edit> {
        let bytes = self.smallest(config)?;
        (bytes <= self.available).then_some(Edit { edit, bytes })
    }

    /// A higher limit, where the limit is what is in the way.
    fn limit(&self) -> Option<Edit> {
        let limit = self.request.config.system.memory_limit?;
        let bytes = self.smallest(self.request.config)?;
        let there = budget(self.request.device, None).value;
        // Rounded up to a whole MiB, and one more: the process itself takes a little more or less from run to run.
        let mib = bytes.div_ceil(1 << 20) + 1;
        let fits = limit.0 < bytes && there.is_none_or(|there| mib << 20 <= there);
        fits.then(|| Edit {
            edit: format!("--memory-limit {mib}MiB"),
            bytes,
        })
    }

    /// Recompute, where the config forbids it.
    fn recompute(&self) -> Option<Edit> {
        if self.request.config.system.recompute == RecomputeRequest::Auto {
            return None;
        }
        let mut config = self.request.config.clone();
        config.system.recompute = RecomputeRequest::Auto;
        self.fitting(&config, "--set system.recompute=auto".into())
    }

    /// The largest model that fits of each kind: shorter, shallower, narrower, and both shallower and narrower. A run
    /// that starts from weights can only be shorter, and a resumed one cannot change.
    fn smaller_models(&self) -> Vec<Edit> {
        if self.request.origin.resumed {
            return Vec::new();
        }
        let train = &self.request.config.train;
        let model = &self.request.config.model;
        let halves = std::iter::successors(Some(model.block_size / 2), |length| Some(length / 2));
        let mut lengths = halves
            .take_while(|length| *length >= SHORTEST)
            .filter(|length| {
                train
                    .tokens_per_step
                    .is_none_or(|n| n.is_multiple_of(*length))
            });
        let shorter = lengths.find_map(|length| self.resized(&[("block_size", length)]));
        if self.request.origin.weights.is_some() {
            return shorter.into_iter().collect();
        }
        let mut depths = (1..model.n_layer).rev();
        let shallower = depths.find_map(|layers| self.resized(&[("n_layer", layers)]));
        // Multiples of the heads, in steps of an eighth: few plans, and round numbers.
        let step = (model.n_embd / 8)
            .max(1)
            .next_multiple_of(model.n_head.max(1));
        let widths = || (1..model.n_embd.div_ceil(step)).rev();
        let narrower = widths().find_map(|steps| self.resized(&[("n_embd", steps * step)]));
        let smaller = widths().find_map(|steps| {
            let layers = (model.n_layer * steps * step / model.n_embd).max(1);
            self.resized(&[("n_layer", layers), ("n_embd", steps * step)])
        });
        [shorter, shallower, narrower, smaller]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The model with other sizes, if its smallest launch fits.
    fn resized(&self, sizes: &[(&str, usize)]) -> Option<Edit> {
        let mut config = self.request.config.clone();
        let mut edits = Vec::new();
        for &(key, value) in sizes {
            edits.push(format!("--set model.{key}={value}"));
            *match key {
                "block_size" => &mut config.model.block_size,
                "n_layer" => &mut config.model.n_layer,
                _ => &mut config.model.n_embd,
            } = value;
        }
        self.fitting(&config, edits.join(" "))
    }
}
