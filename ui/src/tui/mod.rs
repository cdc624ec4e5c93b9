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
//! `app` is the state and is pure: events in, effects out. `view` draws it and is pure too. Each of their
//! parts has a file: `conversation` (topics that can be shown, and their unread counts), `log` (the
//! notifications of a topic), `scroll`, `wrap`, `outbox` (unacknowledged requests), `connection` (state of
//! the session, in words), `cluster` (state of the servers), `palette`, `input` (text being typed), `doubt`
//! (texts that are probably none), `options` (title, priority and tags), `links`, `osc`. The tables in `keys`
//! and `command` dispatch, complete, and are the help. `theme`, `symbols` and `settings` say how the screen
//! looks and behaves.
//!
//! These have side effects: `terminal` (sets the terminal up and restores it in every case), `bridge` (the
//! only file that talks to the client), `suspend_detector` (decides whether the next session is opened
//! without asking), `saved_state` (state files), `clock`, `runtime` (connects all of them).
//!
//! Unacknowledged requests outlive this program because the *library* stores them on disk, with their
//! numbers. The screen only shows them.

mod app;
mod bridge;
mod clock;
mod cluster;
mod command;
mod connection;
mod conversation;
mod doubt;
mod event;
mod input;
mod keys;
mod links;
mod log;
mod options;
mod osc;
mod outbox;
mod palette;
#[cfg(test)]
mod performance;
mod runtime;
#[cfg(test)]
mod samples;
mod saved_state;
mod scroll;
pub(crate) mod settings;
mod suspend_detector;
mod symbols;
mod terminal;
mod theme;
mod view;
mod wrap;

use std::io::{self, IsTerminal};

use crate::cli::{Common, ScreenArgs};
use crate::config::Config;
use crate::exit::Failure;

/// Returns false for the terminals that show control sequences as text.
fn is_capable(term: &str) -> bool {
    !matches!(term, "dumb" | "cons25" | "emacs")
}

/// Runs the screen until the user leaves or a signal ends it.
pub(crate) fn run(common: &Common, args: &ScreenArgs) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "the screen needs a terminal; for programs there are `recado listen --json`, `recado send -` and \
             `recado history --json` (`recado --help` lists all)"
                .to_owned(),
        ));
    }
    if common.json {
        return Err(Failure::Usage(
            "the screen has no JSON; for programs there is `recado listen --json`".to_owned(),
        ));
    }
    let term = std::env::var("TERM").unwrap_or_default();
    if !is_capable(&term) {
        return Err(Failure::Usage(format!(
            "this terminal (TERM={term}) has no cursor to move, which the screen needs; `recado listen` and `recado \
             send` work in it"
        )));
    }
    let config = Config::load(common)?;
    let mut file = config.screen.clone();
    if let Some(theme) = &args.theme {
        file.theme.clone_from(theme);
    }
    if let Some(color) = common.color {
        file.color = color;
    }
    file.ascii |= args.ascii;
    file.mouse &= !args.no_mouse;
    let depth = settings::depth(file.color, |name| std::env::var(name).ok());
    let settings = settings::Settings::new(&file, depth, &config.themes).map_err(Failure::Usage)?;
    runtime::run(&config, settings, common.accept_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_shows_control_sequences_as_text_gets_none() {
        assert!(!is_capable("dumb") && !is_capable("emacs"));
        assert!(["xterm-256color", "linux", "tmux", "screen", ""].into_iter().all(is_capable));
    }
}
