//! `taper plan`: the plan of a run, on this machine or on a card that is not here.

use crate::commands::weights::{of_weights, weights};
use crate::commands::{print_now, until_reader_leaves};
use crate::config::{Config, DeviceRequest};
use crate::data::{DataError, Dataset, DatasetInfo};
use crate::device::{DeviceProfile, find};
use crate::error::{Error, Result};
use crate::plan::{GPT2_VOCAB, Origin, Plan, Request};
use crate::report::{PlanReport, plan_json, plan_text, say};
use crate::terms::{Choice, Job};
use crate::trial::{self, Trial};
use crate::units::{bytes, parse_bytes};

/// Print what `train` would do: the launch, its memory, every choice
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// A TOML file, or a preset's name such as `quickstart.toml`
    #[arg(long, value_name = "FILE")]
    pub config: String,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A card that is not here, such as `rtx3060`, or a device of this machine, `cpu`, `cuda` or `cuda:1`
    /// [default: what the config asks for]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// What is free on that card, such as `2.68GiB` [default: all of it]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "device")]
    pub free: Option<u64>,
    /// The most memory to hold, such as `11.69GiB` [default: what is available]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// Take the memory of that launch for a moment, as a run would, and say what was refused
    #[arg(long)]
    pub allocate: bool,
    /// One row for every buffer
    #[arg(long)]
    pub buffers: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "buffers")]
    pub json: bool,
}

pub fn run(args: PlanArgs) -> Result<()> {
    let limit = args.memory_limit.iter();
    let limit = limit.map(|limit| format!("system.memory_limit={limit}"));
    let overrides: Vec<String> = args.overrides.iter().cloned().chain(limit).collect();
    let (mut config, given) = Config::load_with_given(&args.config, &overrides)?;
    let weights = weights(&config.train.init_from)?;
    if let Some(weights) = &weights {
        config = of_weights(&config, &given, weights)?;
    }
    let dataset = dataset(&config)?;
    let found = device(&args, &config)?;
    let device = &found.profile;
    let request = Request {
        config: &config,
        device,
        dataset: &dataset,
        origin: Origin {
            weights: weights.as_ref(),
            ..Origin::default()
        },
        job: if config.eval.eval_only {
            Job::Evaluate
        } else {
            Job::Train
        },
        because: &found.because,
    };
    let plan = request.plan()?;
    for doubt in config.doubts() {
        say(format_args!("warning: {doubt}"));
    }
    let report = PlanReport {
        source: &args.config,
        device,
        plan: &plan,
        trial: &if args.allocate {
            Some(allocate(&plan, &found)?)
        } else {
            None
        },
    };
    let text = if args.json {
        plan_json(&report)
    } else {
        plan_text(&report, args.buffers)
    };
    until_reader_leaves(print_now(&(text + "\n")))
}

/// The device that a plan is asked for.
struct Wanted {
    profile: DeviceProfile,
    /// Whether it is a device of this machine.
    here: bool,
    /// CUDA's number of a GPU that is here.
    ordinal: Option<usize>,
    because: String,
}

/// The device that `--device` names, else the one that `train` would run on.
fn device(args: &PlanArgs, config: &Config) -> Result<Wanted> {
    let because = "`--device` says so".to_owned();
    let named = args.device.as_deref();
    let asked = named.and_then(|name| name.parse::<DeviceRequest>().ok());
    let mut wanted = match (named, asked) {
        (Some(name), None) => Wanted {
            profile: DeviceProfile::named(name)?,
            here: false,
            ordinal: None,
            because,
        },
        (_, asked) => {
            let found = find(asked.unwrap_or(config.system.device))?;
            Wanted {
                profile: found.profile,
                here: true,
                ordinal: found.ordinal,
                because: asked.map_or(found.because, |_| because),
            }
        }
    };
    let device = &mut wanted.profile;
    if let (Some(free), Some(total)) = (args.free, device.total_bytes) {
        if free > total {
            return Err(Error::Usage {
                what: format!(
                    "`--free` is above the {} that {} has",
                    bytes(total),
                    device.name
                ),
                hint: "give what is free on the card, or leave it out for all of it".into(),
            });
        }
        device.available_bytes = Some(free);
    }
    Ok(wanted)
}

/// Takes the plan's memory for a moment on its device, which must be here.
fn allocate(plan: &Plan, wanted: &Wanted) -> Result<Trial> {
    match (wanted.here, wanted.ordinal) {
        (true, None) => Ok(trial::on_cpu(plan)?),
        #[cfg(feature = "cuda")]
        (true, Some(ordinal)) => Ok(trial::on_gpu(plan, ordinal)?),
        _ => Err(Error::Usage {
            what: format!(
                "`--allocate` needs a device of this machine, and `{}` is none",
                wanted.profile.name
            ),
            hint: "use `--device cpu`, or `--device cuda` for a GPU".into(),
        }),
    }
}

/// Vocabularies of nanoGPT's datasets by the end of their name, for a dataset that is not here.
const ASSUMED_VOCAB: [(&str, usize); 2] = [("_char", 65), ("", GPT2_VOCAB)];

/// Facts about the dataset. A plan does not need it to be here: then its vocabulary is assumed.
pub(super) fn dataset(config: &Config) -> Result<DatasetInfo> {
    match Dataset::open(&config.data) {
        Ok(dataset) => {
            for warning in &dataset.warnings {
                say(format_args!("warning: {warning}"));
            }
            return Ok(dataset.info);
        }
        Err(DataError::Missing { .. }) => {}
        Err(damaged) => return Err(damaged.into()),
    }
    let name = &config.data.dataset;
    let assumed = ASSUMED_VOCAB.iter().find(|(end, _)| name.ends_with(end));
    let value = assumed.map_or(0, |(_, size)| *size);
    Ok(DatasetInfo {
        name: name.clone(),
        train_tokens: 0,
        val_tokens: 0,
        vocab_size: Choice {
            value,
            because: format!("assumed: the dataset `{name}` is not here"),
        },
    })
}
