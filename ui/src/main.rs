//! `recado`: the terminal client.
//!
//! `cli` says what can be typed, `config` what holds unless typed, `commands` has one file for each
//! command or family of them, `print` and `text` what people and programs get to see, `trust` who is
//! believed, `exit` how it ends.

mod cli;
mod commands;
mod config;
mod exit;
mod print;
mod text;
mod trust;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let Some(command) = cli.command else {
        // Nothing asked: show what can be.
        return match cli::Cli::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit::end(Err(error.into())),
        };
    };
    exit::end(commands::run(&cli.common, command))
}
