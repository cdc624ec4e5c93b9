//! `recadod-counted`: `recadod` under an allocator that counts, for `recado-bench --recadod`. It is made of
//! the daemon's own source, so the daemon that ships counts nothing.
//!
//! Every [`EVERY`] it writes the count so far to the file that [`FILE`] names, if it names one.

#[path = "../../src/allocations.rs"]
mod allocations;
#[path = "../../../src/recadod/mod.rs"]
mod recadod;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use recado_sys::threads::spawn_named;

/// The environment variable with the name of the file.
const FILE: &str = "RECADO_ALLOCATIONS";
/// A measurement begins and ends with the count of so long before, at most.
const EVERY: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    if let Some(path) = std::env::var_os(FILE) {
        // Dropped when the daemon ends, which ends the thread.
        let (running, ended) = channel::<()>();
        let written = File::create(path).and_then(|file| {
            spawn_named("allocations", move || {
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) && write(&file).is_ok() {}
            })
        });
        let code = recadod::main();
        drop(running);
        return if written.is_ok() { code } else { ExitCode::FAILURE };
    }
    recadod::main()
}

/// Writes the count over the last one: 20 digits.
fn write(file: &File) -> io::Result<()> {
    file.write_all_at(format!("{:020}", allocations::count()).as_bytes(), 0)
}
