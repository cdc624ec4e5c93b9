//! Clock of the screen. Only this file of the screen reads the machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::event::Now;

/// The monotonic clock, counted from a start, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the screen's clock starts here, and here only")]
    pub(crate) fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place of the screen that reads the wall clock")]
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            since_start: self.started.elapsed(),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
