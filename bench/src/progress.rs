//! What is going on, for people who wait: on stderr, and only if that is a terminal.

use std::fmt::Display;
use std::io::{IsTerminal as _, stderr};

/// Says what begins now.
pub(crate) fn say(what: impl Display) {
    if stderr().is_terminal() {
        eprintln!("recado-bench: {what}");
    }
}
