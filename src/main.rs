//! `recadod`: one recado server.

mod recadod;

use std::process::ExitCode;

fn main() -> ExitCode {
    recadod::main()
}
