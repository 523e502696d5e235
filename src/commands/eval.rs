//! `taper eval`: the scores of a model in benchmarks, and its perplexity of files.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::Pretrained;
use crate::commands::backends::{self, Computing};
use crate::commands::sample::{threads, tokenizer, weights};
use crate::commands::{in_thread_pool, path_argument, print_now, until_reader_leaves};
use crate::config::DeviceRequest;
use crate::device::{FoundDevice, Hardware, find};
use crate::error::{Error, Result};
use crate::evals::{self, EvalsError, Loader, Score, Task, TaskRequest};
use crate::faults::{Faults, Injection};
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::model::Program;
use crate::ops::gemm::{Table, cpu};
use crate::plan::{check_kernels, memory_of};
use crate::report::{DownloadProgress, OutputError, Progress, ReportOptions, ScoreTable, say};
use crate::step::evaluation::{Evaluator, scoring_ladder};
use crate::terms::{Effort, Engine, GemmBackend, Inputs, Job, NamedChoice, Precision};
use crate::units::parse_bytes;

/// Score a model in benchmarks, and its perplexity of any file
///
/// The scores go to stdout, a table or, with `--json`, one object per task; the rest to stderr.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = TASKS)]
pub struct EvalArgs {
    /// A model as `taper sample --checkpoint` takes it: a checkpoint, a run's folder (its newest checkpoint), nanoGPT's
    /// `ckpt.pt`, a Hugging Face GPT-2, a .bin of llm.c, or a model of the hub (`gpt2`, `owner/model`)
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: String,
    /// The tasks, with commas between them: `hellaswag,lambada,FILE`; see below
    #[arg(long, value_name = "TASK,...")]
    pub tasks: String,
    /// The folder with the examples of benchmarks, `hellaswag_val.jsonl` and `lambada_test_en.jsonl` [default: they are
    /// downloaded into a cache]
    #[arg(long, value_name = "FOLDER", value_parser = path_argument())]
    pub data: Option<PathBuf>,
    /// Score only the first examples of a benchmark, and the first windows of a file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Print one JSON object per task on stdout
    #[arg(long)]
    pub json: bool,
    /// `auto` (the first GPU, else the CPU), `cpu`, `cuda`, or a GPU by its number, such as `cuda:1`
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// CPU threads [default: every core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// The most memory to hold, such as `2GiB` [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory_limit: Option<u64>,
    /// For tests: fail where a device may, `SITE:FIRST[-[LAST]][!]`
    #[arg(long, value_name = "FAULT", hide = true)]
    pub inject: Vec<Injection>,
}

const TASKS: &str = "Tasks:
  hellaswag   which of four endings continues a text, as llm.c scores it: acc by the sum of the
              losses of an ending, acc_norm by their mean; 10,042 examples, 12 MB from
              github.com/rowanz/hellaswag
  lambada     the last word of a text, as lm-evaluation-harness' lambada_openai: acc, where
              every token of it is the likeliest, and perplexity; 5,153 examples, 2 MB from
              the hub's EleutherAI/lambada_openai
  NAME:PATH   one of the two with the examples of a file: JSON lines, as they are published
  FILE        loss and perplexity of a text, with bits per byte, or of tokens in a .bin of
              nanoGPT or llm.c: windows of the model's context without overlap, in which all
              tokens of the file but the first are scored
";

pub fn run(args: EvalArgs) -> Result<()> {
    if args.threads == Some(0) {
        return Err(Error::Usage {
            what: "`--threads 0` leaves nobody to do the work".into(),
            hint: "give 1 or more, or leave it out to use every core".into(),
        });
    }
    let requests = TaskRequest::list(&args.tasks)?;
    let weights = weights(&args.checkpoint)?;
    let interrupt = Interrupt::install()?;
    let mut tasks = tasks(&args, &requests, &weights, &interrupt)?;
    let threads = threads(args.threads);
    let progress = Progress::new(ReportOptions::detect(false, args.json));
    let done = in_thread_pool(threads, || {
        let model = Model {
            args: &args,
            weights: &weights,
            threads,
            progress: &progress,
            interrupt: &interrupt,
        };
        let mut evaluator = model.evaluator()?;
        let mut table = ScoreTable::new(requests.iter().map(|request| request.name.as_str()));
        for task in &mut tasks {
            let score = score(task, &mut evaluator, &progress, &interrupt);
            tell(&mut evaluator);
            let score = score?;
            print_now(&if args.json {
                json_line(&score)?
            } else {
                table.rows(&score)
            })?;
        }
        Ok(())
    });
    until_reader_leaves(done)
}

/// Reads every task before any is scored.
fn tasks(
    args: &EvalArgs,
    requests: &[TaskRequest],
    weights: &Pretrained,
    interrupt: &Interrupt,
) -> Result<Vec<Task>> {
    let tokenizer = tokenizer(weights)?;
    let loader = Loader {
        tokenizer: &tokenizer,
        vocab_size: weights.dims.vocab_size,
        block_size: weights.dims.block_size,
        limit: args.limit.map(|limit| limit as usize),
    };
    let download = DownloadProgress::new(ReportOptions::detect(false, false), interrupt.flag());
    let mut tasks = Vec::new();
    for request in requests {
        let path = evals::find(request, args.data.as_deref(), &download)?;
        let task = loader.load(request, &path)?;
        for warning in &task.warnings {
            say(format_args!("warning: {warning}"));
        }
        for note in task.notes() {
            say(format_args!("note: {note}"));
        }
        tasks.push(task);
    }
    Ok(tasks)
}

fn score(
    task: &mut Task,
    evaluator: &mut Evaluator,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Score, EvalsError> {
    let work = progress.scoring(&task.name, task.sequences());
    let reach = |index: usize| {
        work.reach(index as u64);
        !interrupt.requested()
    };
    task.score(&reach, |running| evaluator.score(running))
}

/// Prints what there is to know about refusals of memory, and choices.
fn tell(evaluator: &mut Evaluator) {
    for recovery in evaluator.take_recoveries() {
        let follows = if recovery.is_descent() {
            format!("going on with {}: the same scores", recovery.to)
        } else {
            "released what can be made again, trying once more".into()
        };
        say(format_args!("warning: {}; {follows}", recovery.refusal));
    }
    for choice in evaluator.take_choices() {
        let NamedChoice {
            name,
            value,
            because,
        } = choice;
        say(format_args!("note: {name} = {value} ({because})"));
    }
}

fn json_line(score: &Score) -> Result<String, OutputError> {
    let line = serde_json::to_string(score).map_err(io::Error::from)?;
    Ok(line + "\n")
}

/// A model that is to be evaluated on a device.
struct Model<'a> {
    args: &'a EvalArgs,
    weights: &'a Pretrained,
    threads: usize,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

impl Model<'_> {
    /// The model on the device that was asked for. `auto` passes over a GPU that cannot do it now, and says so.
    fn evaluator(&self) -> Result<Evaluator> {
        let found = find(self.args.device);
        let is_cpu = found.as_ref().is_ok_and(|found| found.ordinal.is_none());
        let made = found
            .map_err(Error::from)
            .and_then(|found| self.evaluator_on(&found));
        match made {
            Err(error @ (Error::Device(_) | Error::Usage { .. } | Error::Allocation(_)))
                if self.args.device == DeviceRequest::Auto && !is_cpu =>
            {
                say(format_args!(
                    "note: on the CPU, for the GPU is of no use now: {error}"
                ));
                self.evaluator_on(&find(DeviceRequest::Cpu)?)
            }
            made => made,
        }
    }

    fn evaluator_on(&self, found: &FoundDevice) -> Result<Evaluator> {
        let (device, dims) = (&found.profile, &self.weights.dims);
        check_kernels(dims, device).map_err(|error| Error::Usage {
            what: error.to_string(),
            hint: "add `--device cpu`".into(),
        })?;
        let engine = match device.hardware {
            Hardware::Cpu(_) => Engine::Cpu {
                threads: self.threads,
            },
            Hardware::Cuda(_) => Engine::Cuda,
        };
        let computing = Computing {
            threads: self.threads,
            precision: Precision::Float32,
            inputs: Inputs::Float32,
            gemm: Effort::Off,
            gemm_backend: GemmBackend::Auto,
            cuda_graph: false,
        };
        let search = backends::Search {
            stored: Table::default(),
            watch: Box::new(backends::Spectator {
                progress: self.progress.clone(),
                interrupt: Some(self.interrupt.clone()),
            }),
        };
        let ladder = scoring_ladder(dims, engine);
        let packed = match engine {
            Engine::Cpu { threads } => {
                let program =
                    Program::of(Job::Evaluate, dims, ladder[0], engine, Precision::Float32);
                let problems = program.problems(Inputs::Float32);
                cpu::packed_bytes(&problems, threads, Effort::Off, device.vector_extensions())
            }
            Engine::Cuda => 0,
        };
        let faults = Faults::new(self.args.inject.clone());
        let limit = self.args.memory_limit;
        let memory: Memory = memory_of(device, limit, self.threads, packed, faults);
        let (backend, memory) = backends::open(found.ordinal, device, computing, search, memory)?;
        let mut evaluator = Evaluator::new(dims, backend, &ladder, memory)?;
        evaluator.load(|weights, _| {
            self.weights
                .load_usable_weights(dims, Precision::Float32, weights)
                .map_err(Error::from)
        })?;
        Ok(evaluator)
    }
}
