//! The full-screen client.
//!
//! ```text
//!   terminal, signals                         client threads
//!        |  keys, mouse, size, focus               |  stream, receipts, answers, STATUS
//!        v                                         v
//!   [input] ----> Event ----> runtime <---- Link <---- [bridge]
//!                               |   ^                    ^
//!                        update v   | effects            | requests
//!                              app -'--------------------'
//!                               |
//!                          draw v  at most 30 times a second
//!                              view -> terminal
//! ```
//!
//! `app` is the state, pure: events in, effects out. `view` draws it, pure. What they are made of is a
//! file each: `place` (where one can be, and what is unread), `log` (notifications held), `scroll`,
//! `wrap`, `outbox` (what is on its way), `connection` (and its words), `cluster` (the servers),
//! `palette`, `input` (text being typed), `links`, `osc`; and the two tables, `keys` and `command`, that
//! dispatch, complete and are the help. `theme`, `symbols` and `settings` say how it looks and behaves.
//!
//! The world: `terminal` (set up, and put back whatever happens), `bridge` (the only file that talks to
//! the client), `absence` (whether the next one is opened unasked), `kept` (files that remember), `clock`, `runtime` (joins them all).
//!
//! What nobody has acknowledged outlives this program because the *library* keeps it on the disk, with
//! its number; the screen only shows it.

mod absence;
mod app;
mod bridge;
mod clock;
mod cluster;
mod command;
mod connection;
mod event;
mod input;
mod kept;
mod keys;
mod links;
mod log;
mod osc;
mod outbox;
mod palette;
#[cfg(test)]
mod performance;
mod place;
mod runtime;
#[cfg(test)]
mod samples;
mod scroll;
pub(crate) mod settings;
mod symbols;
mod terminal;
mod theme;
mod view;
mod wrap;

use std::io::{self, IsTerminal};

use crate::cli::{Common, ScreenArgs};
use crate::config::Config;
use crate::exit::Failure;

/// Runs the screen until its end.
pub(crate) fn run(common: &Common, args: &ScreenArgs) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "the screen needs a terminal; for programs there are `recado listen --json`, `recado send -` and \
             `recado history --json` (`recado --help` lists all)"
                .to_owned(),
        ));
    }
    let config = Config::load(common)?;
    let mut file = config.screen.clone();
    if let Some(theme) = &args.theme {
        file.theme.clone_from(theme);
    }
    if let Some(color) = args.color {
        file.color = color;
    }
    file.ascii |= args.ascii;
    file.mouse &= !args.no_mouse;
    let depth = settings::depth(file.color, |name| std::env::var(name).ok());
    let settings = settings::Settings::new(&file, depth, &config.themes).map_err(Failure::Usage)?;
    runtime::run(&config, settings, common.accept_new)
}
