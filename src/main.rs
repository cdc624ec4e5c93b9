//! `recadod`: one recado server.

#![forbid(unsafe_code)]

mod recadod;

use std::process::ExitCode;

fn main() -> ExitCode {
    recadod::main()
}
