//! `recado`: the terminal client.
//!
//! Without a command it is a full screen: `tui`, which has a map of its own. With one it does one thing
//! and ends. `cli` says what can be typed, `environment` and `config` what holds unless typed, `commands` has one file for
//! each command or family of them, `print` and `text` what people and programs get to see, `trust` who is
//! believed, `private` makes its files, `exit` how it ends.

// They panic where nobody reads: `print` has what does not.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod cli;
mod commands;
mod config;
mod environment;
mod exit;
mod print;
mod private;
mod text;
mod trust;
mod tui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    exit::end(environment::fill(cli.common, |name| std::env::var_os(name)).and_then(
        |common| match cli.command {
            Some(command) => commands::run(&common, command),
            None => tui::run(&common, &cli.screen),
        },
    ))
}
