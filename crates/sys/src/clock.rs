//! Machine clock: the one place that reads the machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use recado_proto::id::{Clock, Moment, millis};

/// The clocks of one process. Copies have the same origin, so threads may compare their moments.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock {
    started: Instant,
    /// The origin in a test's virtual time.
    #[cfg(feature = "model")]
    started_us: u64,
}

impl MachineClock {
    /// Starts the clock; moments count from this call.
    #[expect(clippy::disallowed_methods, reason = "the one monotonic clock of the process starts here")]
    pub fn start() -> MachineClock {
        MachineClock {
            started: Instant::now(),
            #[cfg(feature = "model")]
            started_us: crate::sync::model::now_us().unwrap_or_default(),
        }
    }

    /// The monotonic clock.
    pub fn now(&self) -> Moment {
        #[cfg(feature = "model")]
        if let Some(us) = crate::sync::model::now_us() {
            return Moment(us - self.started_us);
        }
        Moment(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Both clocks, read once.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn read(&self) -> Clock {
        #[cfg(feature = "model")]
        if let Some(us) = crate::sync::model::now_us() {
            return Clock { now: self.now(), unix_ms: 1_800_000_000_000 + us / 1000 };
        }
        // A wall clock before 1970 is broken and reads as 1970. The log's time never goes back with it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { now: self.now(), unix_ms: millis(since) }
    }
}
