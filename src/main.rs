//! The program: reads the command line, runs a verb, explains an error.

use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser;
use taper::cli::{Cli, Command};
use taper::commands::{bench, doctor, plan, prepare, sample, train};
use taper::error::Error;
use taper::interrupt::survive_file_size_limit;

fn main() -> ExitCode {
    #[cfg(feature = "cuda")]
    // SAFETY: the first thing that the program does, in its only thread.
    unsafe {
        taper::device::load_code_lazily()
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are asked for; everything else is a mistake the user can fix.
            let code = u8::from(message.use_stderr());
            let _ = message.print();
            return ExitCode::from(code);
        }
    };
    // Where the system refuses the handler, a file beyond the limit ends the program as it ever did.
    let _ = survive_file_size_limit();
    let result = match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Prepare(args) => prepare::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints an error, its causes and its hint.
fn explain(error: &Error) {
    // The end that was asked for is no error.
    let what = if error.is_interrupt() {
        "stopped"
    } else {
        "error"
    };
    eprintln!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  caused by: {inner}");
        cause = inner.source();
    }
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}
