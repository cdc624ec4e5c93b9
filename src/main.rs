//! `recadod`: one recado server.

#![forbid(unsafe_code)]
// They panic where nobody reads, and a server outlives the reader of its log.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod recadod;

use std::process::ExitCode;

fn main() -> ExitCode {
    recadod::main()
}
