//! `taper plan`: the plan of a run, on this machine or on a card that is not here.

use std::path::Path;
use std::slice;

use crate::commands::request::load;
use crate::commands::weights::{of_weights, weights};
use crate::commands::{print_now, until_reader_leaves};
use crate::config::{Config, DeviceRequest, Sweep};
use crate::data::{DataError, Dataset, DatasetInfo};
use crate::device::{DeviceError, DeviceProfile, find};
use crate::error::{Error, Result};
use crate::plan::{GPT2_VOCAB, Origin, Plan, PlanError, Request};
use crate::report::{
    PlanReport, PlanRow, Warning, plan_json, plan_text, plans_json, plans_text, say,
};
use crate::terms::{Choice, Job, ModelDims, shell_word};
use crate::trial::{self, Trial};
use crate::units::{bytes, parse_bytes};

/// Print what `train` would do: the launch, its memory, every choice
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// A TOML file, a preset's name such as `quickstart.toml`, or a config of nanoGPT's, such as `my_config.py`
    /// May be repeated, to compare
    #[arg(long, value_name = "FILE", required = true)]
    pub config: Vec<String>,
    /// Change one key of the config; may be repeated. Several values, `model.n_layer=6,12`, are compared
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A card that is not here, such as `rtx3060`, or a device of this machine, `cpu`, `cuda` or `cuda:1`
    /// [default: what the config asks for]. Several are compared: `rtx3060,rtx4090,t4`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub device: Vec<String>,
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
    /// Print one JSON object, or an array of them where several plans are compared
    #[arg(long, conflicts_with = "buffers")]
    pub json: bool,
}

pub fn run(args: PlanArgs) -> Result<()> {
    let sweep = Sweep::of(&args.overrides)?;
    match (args.config.as_slice(), args.device.as_slice(), sweep) {
        ([source], [], None) => one(&args, source, None),
        ([source], [device], None) => one(&args, source, Some(device)),
        (_, _, None) => several(&args, slice::from_ref(&args.overrides)),
        (_, _, Some(sweep)) => several(&args, &sweep.runs),
    }
}

/// A config as `overrides` and `--memory-limit` change it, and the sizes of the weights that it starts from.
fn config(
    args: &PlanArgs,
    source: &str,
    overrides: &[String],
) -> Result<(Config, Option<ModelDims>)> {
    let limit = args.memory_limit.iter();
    let limit = limit.map(|limit| format!("system.memory_limit={limit}"));
    let overrides: Vec<String> = overrides.iter().cloned().chain(limit).collect();
    let (config, given) = load(source, &overrides, |told| say(format_args!("note: {told}")))?;
    Ok(match weights(&config.train.init_from)? {
        Some(weights) => (of_weights(&config, &given, &weights)?, Some(weights)),
        None => (config, None),
    })
}

fn request<'a>(
    config: &'a Config,
    wanted: &'a Wanted,
    dataset: &'a DatasetInfo,
    weights: Option<&'a ModelDims>,
) -> Request<'a> {
    Request {
        config,
        device: &wanted.profile,
        dataset,
        origin: Origin {
            weights,
            ..Origin::default()
        },
        job: if config.eval.eval_only {
            Job::Evaluate
        } else {
            Job::Train
        },
        because: &wanted.because,
    }
}

/// Prints the plan of one config on one device.
fn one(args: &PlanArgs, source: &str, named: Option<&str>) -> Result<()> {
    let (config, weights) = config(args, source, &args.overrides)?;
    let dataset = open_dataset(&config)?;
    // While the dataset is held, as `train` holds it: what that takes counts as the process's.
    let found = device(named, args.free, &config)?;
    let dataset = info(&config, dataset);
    let device = &found.profile;
    let request = request(&config, &found, &dataset, weights.as_ref());
    let plan = request.plan().map_err(for_plan)?;
    for doubt in config.doubts() {
        say(format_args!("warning: {doubt}"));
    }
    let report = PlanReport {
        source,
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
    until_reader_leaves(print_now(&(text + "\n")))?;
    let time = plan.predicted_time(0);
    if time.is_long() {
        let warning = Warning::LongRun {
            time: time.run(),
            is_predicted: true,
        };
        say(format_args!("warning: {warning}"));
    }
    Ok(())
}

/// Prints one row for each config with each of `runs`, the values for `--set`, on each device.
fn several(args: &PlanArgs, runs: &[Vec<String>]) -> Result<()> {
    if args.free.is_some() || args.allocate || args.buffers {
        return Err(Error::Usage {
            what:
                "`--free`, `--allocate` and `--buffers` are for one plan, and several are asked for"
                    .into(),
            hint: "name one `--config` and one `--device`, or leave these flags out".into(),
        });
    }
    let mut rows = Vec::new();
    let subjects = args
        .config
        .iter()
        .flat_map(|source| runs.iter().map(move |run| (source, run)));
    for (source, overrides) in subjects {
        let (config, weights) = config(args, source, overrides)?;
        let dataset = dataset(&config)?;
        let names: Vec<Option<&str>> = match args.device.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        for name in names {
            let found = device(name, None, &config)?;
            let request = request(&config, &found, &dataset, weights.as_ref());
            rows.push(PlanRow {
                source: label(args, source, overrides),
                plan: request.plan(),
                device: found.profile,
            });
        }
    }
    let text = if args.json {
        plans_json(&rows)
    } else {
        plans_text(&rows)
    };
    until_reader_leaves(print_now(&(text + "\n")))
}

/// The config of a row, with the values of `--set` that not all rows have.
fn label(args: &PlanArgs, source: &str, overrides: &[String]) -> String {
    let own = overrides.iter().filter(|set| !args.overrides.contains(set));
    let own = own.map(|set| format!(" --set {}", shell_word(Path::new(set))));
    source.to_owned() + &own.collect::<String>()
}

/// `--device cpu` is the flag of this verb.
fn for_plan(error: PlanError) -> Error {
    match error {
        PlanError::Device(DeviceError::OldGpu { .. }) => Error::Usage {
            what: error.to_string(),
            hint: "name a newer card, or `--device cpu`".into(),
        },
        other => other.into(),
    }
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
fn device(named: Option<&str>, free: Option<u64>, config: &Config) -> Result<Wanted> {
    let because = "`--device` says so".to_owned();
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
    if let (Some(free), Some(total)) = (free, device.total_bytes) {
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

/// The dataset of a config; `None` if it is not here.
fn open_dataset(config: &Config) -> Result<Option<Dataset>> {
    match Dataset::open(&config.data) {
        Ok(dataset) => {
            for warning in &dataset.warnings {
                say(format_args!("warning: {warning}"));
            }
            Ok(Some(dataset))
        }
        Err(DataError::Missing { .. }) => Ok(None),
        Err(damaged) => Err(damaged.into()),
    }
}

/// Facts of a dataset. Those of one that is not here are assumed.
fn info(config: &Config, dataset: Option<Dataset>) -> DatasetInfo {
    if let Some(dataset) = dataset {
        return dataset.info;
    }
    let name = &config.data.dataset;
    let assumed = ASSUMED_VOCAB.iter().find(|(end, _)| name.ends_with(end));
    let value = assumed.map_or(0, |(_, size)| *size);
    DatasetInfo {
        name: name.clone(),
        train_tokens: 0,
        val_tokens: 0,
        vocab_size: Choice {
            value,
            because: format!("assumed: the dataset `{name}` is not here"),
        },
    }
}

/// Facts of the dataset of a config, which need not be here.
///
/// # Errors
/// When it is here, and damaged.
pub(super) fn dataset(config: &Config) -> Result<DatasetInfo> {
    Ok(info(config, open_dataset(config)?))
}
