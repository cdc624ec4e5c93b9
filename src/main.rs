//! `recadod`: one recado server.

#![forbid(unsafe_code)]
// `println!` and `eprintln!` panic if the output is closed, and a server must outlive the reader of its log.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod recadod;

use std::process::ExitCode;

fn main() -> ExitCode {
    recadod::main()
}
