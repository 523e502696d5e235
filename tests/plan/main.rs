//! The planner: the ladder, the reasons, the refusals, and `taper plan`.

use taper::config::Config;
use taper::data::DatasetInfo;
use taper::device::{Cpu, DeviceProfile, Hardware, has_kernels, named};
use taper::error::{Error, Result};
use taper::plan::{Origin, Plan, PlanError, Refusal, Request};
use taper::terms::{Choice, Job, ModelDims, VectorExtension};

#[path = "../process/mod.rs"]
#[allow(dead_code, reason = "nothing is trained")]
mod process;

mod choices;
mod command;
mod ladder;
mod micro_batch;
mod refusals;
mod snapshots;

const GIB: u64 = 1 << 30;

/// A preset or file with every `section.key=value` of `sets`, separated by spaces.
fn config(source: &str, sets: &str) -> Config {
    let sets: Vec<String> = sets.split_whitespace().map(Into::into).collect();
    Config::load(source, &sets).unwrap_or_else(|error| panic!("{}", shown(&error.into())))
}

fn dataset(vocab_size: usize) -> DatasetInfo {
    DatasetInfo {
        name: "made-up".into(),
        vocab_size: Choice {
            value: vocab_size,
            because: "made up".into(),
        },
        train_tokens: 1_000_000,
        val_tokens: 100_000,
    }
}

fn card(name: &str) -> DeviceProfile {
    DeviceProfile::named(name).unwrap()
}

fn with_free(mut device: DeviceProfile, bytes: u64) -> DeviceProfile {
    device.available_bytes = Some(bytes);
    device
}

/// A CPU that does not tell how much memory there is.
fn cpu(cores: usize, vector_extensions: &[VectorExtension]) -> DeviceProfile {
    DeviceProfile {
        name: "a made-up CPU".into(),
        total_bytes: None,
        available_bytes: None,
        hardware: Hardware::Cpu(Cpu {
            cores: Some(cores),
            vector_extensions: vector_extensions.to_vec(),
            process_bytes: Some(100 << 20),
            mappable_bytes: None,
        }),
    }
}

/// Every card that there are kernels for.
fn cards() -> Vec<DeviceProfile> {
    let new_enough = |card: &&named::Card| has_kernels(card.compute_capability);
    let cards = named::all().iter().filter(new_enough);
    cards.map(|card| card.profile()).collect()
}

/// What [`Request`] borrows.
#[derive(Clone, Debug)]
struct Asked {
    config: Config,
    device: DeviceProfile,
    dataset: DatasetInfo,
    weights: Option<ModelDims>,
}

impl Asked {
    fn new(config: Config, device: DeviceProfile, vocab_size: usize) -> Self {
        Self {
            config,
            device,
            dataset: dataset(vocab_size),
            weights: None,
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            config: &self.config,
            device: &self.device,
            dataset: &self.dataset,
            origin: Origin {
                weights: self.weights.as_ref(),
                rung: None,
                ..Origin::default()
            },
            job: if self.config.eval.eval_only {
                Job::Evaluate
            } else {
                Job::Train
            },
            because: "the test says so",
        }
    }

    fn try_plan(&self) -> Result<Plan> {
        Ok(self.request().plan()?)
    }

    #[track_caller]
    fn plan(&self) -> Plan {
        self.try_plan()
            .unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    #[track_caller]
    fn refusal(&self) -> Refusal {
        match self.try_plan() {
            Err(Error::Plan(PlanError::DoesNotFit(refusal))) => *refusal,
            Err(other) => panic!("{}", shown(&other)),
            Ok(plan) => panic!("{:?} fits", plan.launch()),
        }
    }
}

/// `config` for GPT-2's vocabulary on a named card.
fn on_card(config: Config, name: &str) -> Asked {
    Asked::new(config, card(name), 50_257)
}

/// The value and the reason of a choice.
#[track_caller]
fn choice<'a>(plan: &'a Plan, name: &str) -> (&'a str, &'a str) {
    let found = plan.choices.iter().find(|choice| choice.name == name);
    let found = found.unwrap_or_else(|| panic!("no choice of {name}"));
    (&found.value, &found.because)
}

/// An error as `main` prints it.
fn shown(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("error: {error}\nhint: {hint}"),
        None => format!("error: {error}"),
    }
}
