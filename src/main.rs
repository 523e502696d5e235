//! The program: reads the command line, runs a verb, explains an error.

use std::env;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use taper::cli::{Cli, Command, hint, understood};
use taper::commands::{
    bench, compare, completions, config, convert, doctor, eval, man, on_every_core, plan, plot,
    prepare, report, sample, train, welcome,
};
use taper::error::Result;
use taper::interrupt::survive_file_size_limit;
use taper::report::{OutputError, say};

fn main() -> ExitCode {
    #[cfg(feature = "cuda")]
    // SAFETY: the first thing that the program does, in its only thread.
    unsafe {
        taper::device::load_code_lazily()
    };
    if env::args_os().len() <= 1 {
        return ended(welcome::run());
    }
    let typed = understood(env::args_os());
    let cli = match Cli::try_parse_from(typed.words) {
        Ok(cli) => cli,
        Err(message) => return answer(&message),
    };
    for note in typed.notes {
        say(format_args!("note: {note}"));
    }
    // Where the system refuses the handler, a file beyond the limit ends the program as it ever did.
    let _ = survive_file_size_limit();
    ended(on_every_core(|| match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Prepare(args) => prepare::run(args),
        Command::Runs(args) => compare::runs(args),
        Command::Compare(args) => compare::compare(args),
        Command::Convert(args) => convert::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Report(args) => report::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man(args) => man::run(args, Cli::command()),
    }))
}

/// Prints clap's answer: help and version, which were asked for, or a mistake the user can fix.
fn answer(message: &clap::Error) -> ExitCode {
    if message.use_stderr() {
        // Nobody may be there to read it; the exit code says so all the same.
        let _ = message.print();
        let typed: Vec<String> = env::args_os()
            .map(|word| word.to_string_lossy().into())
            .collect();
        if let Some(hint) = hint(message, &typed) {
            say(format_args!("hint: {hint}"));
        }
        return ExitCode::FAILURE;
    }
    match message.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            ended(Err(OutputError::from(error).into()))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error.account());
            ExitCode::from(error.exit_code())
        }
    }
}
