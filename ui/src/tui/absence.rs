//! Whether the servers may have closed a session for its silence.
//!
//! They say only that it is over. If they had not been heard, because the machine slept or the network was
//! away, it has lapsed, and the next one goes on where it stood. If it ends in the middle of being served,
//! somebody ended it: a copy of the device connected, or the device was removed. To connect again then
//! would take the session back, and the copy would take it back again, for ever.

use std::time::Duration;

use recado::client::ConnectionEvent;

use super::event::Now;

/// Who has not looked up for so long was asleep.
const ASLEEP: Duration = Duration::from_secs(5);

/// After sleep the first word of the servers comes within this.
const AWAKE: Duration = Duration::from_secs(10);

/// When the servers could not be heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    looked: Now,
    /// When sleep ended, in ms since 1970.
    awoke: Option<u64>,
    searching: bool,
}

impl Absence {
    pub(crate) fn new(now: Now) -> Absence {
        Absence { looked: now, awoke: None, searching: false }
    }

    /// To be told at least once a second. The clock on the wall goes on in sleep; the other one may not.
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

    /// Whether it is why a session is over now.
    pub(crate) fn explains_an_end(&self, now: Now) -> bool {
        self.searching || self.awoke.is_some_and(|awoke| passed(awoke, now) < AWAKE)
    }
}

fn passed(since_ms: u64, now: Now) -> Duration {
    Duration::from_millis(now.unix_ms.saturating_sub(since_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::at;
    use recado::client::Code;

    const ENDED: ConnectionEvent = ConnectionEvent::Ended(Code::SessionOver);

    #[test]
    fn an_end_after_sleep_or_in_the_middle_of_a_search_is_a_lapse_and_any_other_is_not() {
        let mut absence = Absence::new(at(0));
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
