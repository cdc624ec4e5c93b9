//! What a supervisor is told that has started the process and asks for it, as systemd does with `Type=notify`
//! (sd_notify(3)): that the server is ready, that it is alive, that it stops. Without one nothing happens.

use std::io;
use std::time::Duration;

use recado::server::Pulse;
use recado_sys::sync::channel::{self, RecvTimeoutError};
use recado_sys::threads::spawn_named;
use sd_notify::NotifyState;

/// Tells that the server receives datagrams. It may take a while until there is a primary.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that the server stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Starts to tell that the server is alive, if the supervisor has a watchdog: as long as the replica thread
/// takes turns. A server that hangs is then ended and started again by the supervisor. It is told until what
/// this returns is dropped.
///
/// # Errors
/// The system has no thread left.
pub(super) fn watch(pulse: Pulse) -> io::Result<Option<Watch>> {
    let Some(within) = sd_notify::watchdog_enabled() else { return Ok(None) };
    let (ends, ended) = channel::bounded::<()>(0);
    spawn_named("watchdog", move || {
        let mut alive = Alive::default();
        loop {
            if alive.at(pulse.turns()) {
                tell(&[NotifyState::Watchdog]);
            }
            if ended.recv_timeout(interval(within)) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    })?;
    Ok(Some(Watch(ends)))
}

/// Ends the watchdog's thread when it is dropped.
pub(super) struct Watch(#[expect(dead_code, reason = "dropped, not used")] channel::Sender<()>);

/// Eight looks within the time that the supervisor waits: one that comes just before a turn ends costs an
/// eighth of it. sd_watchdog_enabled(3) advises two at least.
fn interval(within: Duration) -> Duration {
    (within / 8).max(Duration::from_millis(1))
}

/// A supervisor that cannot be told has ended, or is none; the server goes on.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the supervisor");
    }
}

/// Whether a count of turns has grown since it was last looked at.
#[derive(Default)]
struct Alive {
    seen: Option<u64>,
}

impl Alive {
    fn at(&mut self, turns: u64) -> bool {
        self.seen.replace(turns) != Some(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_turns_stand_still_is_not_said_to_be_alive() {
        let mut alive = Alive::default();
        assert_eq!([5, 6, 6, 6, 7].map(|turns| alive.at(turns)), [true, true, false, false, true]);
    }

    #[test]
    fn the_supervisor_is_told_several_times_within_its_time() {
        assert_eq!(interval(Duration::from_secs(10)), Duration::from_millis(1_250));
        assert!(!interval(Duration::ZERO).is_zero());
    }
}
