//! Time of a command: what is left of its time-out. Elapsed time is monotonic; no step of the wall clock
//! changes it.

use std::time::{Duration, Instant};

/// The time since a command began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer(Instant);

impl Timer {
    #[expect(clippy::disallowed_methods, reason = "a command's time starts here, and here only")]
    pub(crate) fn start() -> Timer {
        Timer(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The rest of a time-out that began with the command.
    pub(crate) fn left(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.elapsed())
    }
}
