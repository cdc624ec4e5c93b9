//! `recado`: the terminal client.
//!
//! Without a command it runs the full screen: `tui`, which has its own overview. With a command it does one
//! thing and ends. `cli` defines the command line; `environment` and `config` supply the values that it
//! leaves out; `completion` completes it for a shell; `servers` resolves addresses; `commands` has one file
//! for each command or family of commands; `print` and `text` format the output, and `wording` has the
//! words that commands and screen share; `trust` decides which clusters to trust; `private` creates the
//! program's files; `interrupt` takes signals, and `waiting` looks for them and tells what is waited for;
//! `timer` measures what is left of a time-out; `exit` defines the exit codes and error messages.

// `println!` and `eprintln!` panic if nobody reads the output; the functions of `print` do not.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod cli;
mod commands;
mod completion;
mod config;
mod environment;
mod exit;
mod interrupt;
mod print;
mod private;
mod servers;
mod text;
mod timer;
mod trust;
mod tui;
mod waiting;
mod wording;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match completion::complete() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return exit::end_instead(&error),
    }
    // Without a handler the limit ends the process, as it does every other program.
    let _ = interrupt::outlive_size_limit();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // Also the help and the version, which are no failure if they can be printed.
        Err(instead) => {
            let words: Vec<String> =
                std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            return exit::end_instead(&cli::with_hint(instead, &words));
        }
    };
    exit::end(environment::fill(cli.common, |name| std::env::var_os(name)).and_then(
        |common| match cli.command {
            Some(command) => commands::run(&common, command),
            None => tui::run(&common, &cli.screen),
        },
    ))
}
