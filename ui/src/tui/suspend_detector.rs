//! Decides whether a session ended because this client was silent for too long.
//!
//! The servers only say that the session is over. If the servers could not be heard, because the machine
//! slept or the network was away, the session has lapsed, and the next one continues from its state. If the
//! session ends while it is served, somebody ended it: a copy of the device connected, or the device was
//! removed. Connecting again unasked would take the session back from the copy, and the copy would take it
//! back again, without end.

use std::time::Duration;

use recado_client::ConnectionEvent;

use super::event::Now;

/// Time without a call of [`SuspendDetector::looked`] after which the machine counts as having slept.
const ASLEEP: Duration = Duration::from_secs(5);

/// Time after the end of sleep within which the servers' first message arrives.
const AWAKE: Duration = Duration::from_secs(10);

/// Record of the times at which the servers could not be heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SuspendDetector {
    looked: Now,
    /// End of the last sleep, in ms since 1970.
    awoke: Option<u64>,
    searching: bool,
}

impl SuspendDetector {
    pub(crate) fn new(now: Now) -> SuspendDetector {
        SuspendDetector { looked: now, awoke: None, searching: false }
    }

    /// Must be called at least once a second. It compares the wall clock, which runs on during sleep; the
    /// monotonic clock may not.
    pub(crate) fn looked(&mut self, now: Now) {
        if passed(self.looked.unix_ms, now) >= ASLEEP {
            self.awoke = Some(now.unix_ms);
        }
        self.looked = now;
    }

    pub(crate) fn event(&mut self, event: &ConnectionEvent) {
        match event {
            ConnectionEvent::Searching => self.searching = true,
            ConnectionEvent::Connected { .. }
            | ConnectionEvent::PrimaryFound { .. }
            | ConnectionEvent::PrimaryChanged { .. } => self.searching = false,
            ConnectionEvent::SetBack { .. }
            | ConnectionEvent::Copied(_)
            | ConnectionEvent::ServersSetBack { .. }
            | ConnectionEvent::Renumbered { .. }
            | ConnectionEvent::Ended(_) => {}
        }
    }

    /// Returns true if sleep or a search for the primary explains that the session is over at `now`.
    pub(crate) fn explains_an_end(&self, now: Now) -> bool {
        self.searching || self.awoke.is_some_and(|awoke| passed(awoke, now) < AWAKE)
    }
}

fn passed(since_ms: u64, now: Now) -> Duration {
    Duration::from_millis(now.unix_ms.saturating_sub(since_ms))
}

#[cfg(test)]
mod tests {
    use recado_client::Code;

    use super::*;
    use crate::tui::samples::at;

    const ENDED: ConnectionEvent = ConnectionEvent::Ended(Code::SessionOver);

    #[test]
    fn an_end_after_sleep_or_in_the_middle_of_a_search_is_a_lapse_and_any_other_is_not() {
        let mut absence = SuspendDetector::new(at(0));
        for second in 1..20 {
            absence.looked(at(second));
        }
        absence.event(&ENDED);
        assert!(!absence.explains_an_end(at(20)));
        absence.looked(at(600));
        assert!(absence.explains_an_end(at(602)));
        for second in 601..620 {
            absence.looked(at(second));
        }
        assert!(!absence.explains_an_end(at(620)), "what happens long after it is no matter of sleep");
        absence.event(&ConnectionEvent::Searching);
        absence.event(&ENDED);
        assert!(absence.explains_an_end(at(621)));
        let addr = "127.0.0.1:10099".parse().unwrap();
        absence.event(&ConnectionEvent::PrimaryFound { addr, pause: Duration::ZERO });
        assert!(!absence.explains_an_end(at(622)));
    }
}
