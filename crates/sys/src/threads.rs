//! Named threads: a server and a client start all of theirs here, and join them when they wait for their end.
//!
//! Decision: a thread that panics ends the process. A server without its journal thread, or with one handler
//! fewer, would seem to run and do half its work; the other servers replace a dead one within a second, and
//! its log says why.

use std::io;

use crate::sync::thread::{self, JoinHandle};

/// A running thread.
#[derive(Debug)]
pub struct Thread {
    name: &'static str,
    handle: JoinHandle<()>,
}

impl Thread {
    /// The thread's name, as the system's tools show it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for the thread to end.
    pub fn join(self) {
        // An error would mean a panic, which has already ended the process.
        let _ = self.handle.join();
    }
}

/// Ends the process when it is dropped by a panic.
struct Fuse(&'static str);

impl Drop for Fuse {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                thread = self.0,
                "a thread panicked (see stderr): the process ends, the other servers continue"
            );
            std::process::abort();
        }
    }
}

/// Starts a thread. Linux shows the first 15 bytes of a name.
///
/// # Errors
/// The system has no thread left.
pub fn spawn_named(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _fuse = Fuse(name);
        work();
        tracing::debug!(thread = name, "ends");
    })?;
    Ok(Thread { name, handle })
}
