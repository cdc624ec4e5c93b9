//! What a supervisor is told that has started the process and asks for it, as systemd does with `Type=notify`
//! (sd_notify(3)): that the server is ready, that it is alive, that it stops. Without one nothing happens.
//!
//! A thread tells it, because a supervisor that does not read its socket would stop the thread that tells:
//! nothing else of the server waits for it. What it cannot take is dropped.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use recado::server::Pulse;
use recado_sys::sync::channel::{self, Receiver, RecvTimeoutError, Sender};
use recado_sys::threads::spawn_named;
use sd_notify::NotifyState;

/// What may wait to be told. More comes only if the supervisor takes nothing.
const TOLD_MAX: usize = 8;

/// The longest wait for it at the end.
const END_MAX: Duration = Duration::from_millis(500);

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// The server receives datagrams.
    Ready(String),
    /// It is alive.
    Alive,
    /// It stops.
    Stopping,
    /// Nothing more comes.
    End,
}

/// The supervisor.
#[derive(Clone)]
pub(super) struct Supervisor {
    told: Sender<Told>,
    /// Closed when the thread has ended.
    ended: Receiver<Infallible>,
}

impl Supervisor {
    /// Starts the thread that tells. It is never joined: it may be waiting for the supervisor when the
    /// process ends.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start() -> io::Result<Supervisor> {
        let (told, tells) = channel::bounded(TOLD_MAX);
        let (ends, ended) = channel::bounded(0);
        spawn_named("supervisor", move || {
            let _ends = ends;
            while let Ok(told) = tells.recv() {
                match told {
                    Told::Ready(status) => notify(&[NotifyState::Ready, NotifyState::Status(&status)]),
                    Told::Alive => notify(&[NotifyState::Watchdog]),
                    Told::Stopping => notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]),
                    Told::End => return,
                }
            }
        })?;
        Ok(Supervisor { told, ended })
    }

    /// Tells that the server receives datagrams. It may take a while until there is a primary.
    pub(super) fn ready(&self, status: String) {
        self.tell(Told::Ready(status));
    }

    /// Tells that the server stops.
    pub(super) fn stopping(&self) {
        self.tell(Told::Stopping);
    }

    /// Waits until the supervisor has taken everything, but not for long: it may take nothing.
    pub(super) fn end(&self) {
        self.tell(Told::End);
        let _ = self.ended.recv_timeout(END_MAX);
    }

    fn tell(&self, told: Told) {
        // The supervisor takes nothing: see the module.
        let _ = self.told.try_send(told);
    }

    /// Starts to tell that the server is alive, if the supervisor has a watchdog: as long as the replica
    /// thread takes turns. A server that hangs is then ended and started again by the supervisor. It is told
    /// until what this returns is dropped.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn watch(&self, pulse: Pulse) -> io::Result<Option<Watch>> {
        let Some(within) = sd_notify::watchdog_enabled() else { return Ok(None) };
        let (ends, ended) = channel::bounded::<()>(0);
        let supervisor = self.clone();
        spawn_named("watchdog", move || {
            let mut alive = Alive::default();
            loop {
                if alive.at(pulse.turns()) {
                    supervisor.tell(Told::Alive);
                }
                if ended.recv_timeout(interval(within)) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        })?;
        Ok(Some(Watch(ends)))
    }
}

/// Ends the watchdog's thread when it is dropped.
pub(super) struct Watch(#[expect(dead_code, reason = "dropped, not used")] channel::Sender<()>);

/// Eight looks within the time that the supervisor waits: one that comes just before a turn ends costs an
/// eighth of it. sd_watchdog_enabled(3) advises two at least.
fn interval(within: Duration) -> Duration {
    (within / 8).max(Duration::from_millis(1))
}

/// A supervisor that cannot be told has ended, or is none; the server goes on.
fn notify(states: &[NotifyState<'_>]) {
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
