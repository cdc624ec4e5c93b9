//! `recado`: the terminal client.
//!
//! Without a command it is a full screen: `tui`, which has a map of its own. With one it does one thing
//! and ends. `cli` says what can be typed, `config` what holds unless typed, `commands` has one file for
//! each command or family of them, `print` and `text` what people and programs get to see, `trust` who is
//! believed, `exit` how it ends.

mod cli;
mod commands;
mod config;
mod exit;
mod print;
mod text;
mod trust;
mod tui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    exit::end(match cli.command {
        Some(command) => commands::run(&cli.common, command),
        None => tui::run(&cli.common, &cli.screen),
    })
}
