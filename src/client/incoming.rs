//! What reaches the application: the stream of notifications, and what happens to the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::channel::{Receiver, RecvTimeoutError, Sender};

use super::driver::Command;
use super::ending::Ending;
use super::error::ClientError;
use super::machine::CopySign;
use super::options::DeliveryMode;
use super::store::Slot;
use crate::id::{Op, Seq, SessionId, View};
use crate::wire::packet::{Code, Notification};

/// What the stream of a receiving device carries, in the order of ops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The next notification: each once.
    Notification(Arc<Notification>),
    /// Notifications in `after < op <= upto` were dropped by retention before this device read them.
    Gap {
        /// The cursor before.
        after: Op,
        /// The cursor behind it.
        upto: Op,
    },
}

impl Incoming {
    /// Where the cursor stands once this is taken: what to hand to
    /// [`Client::taken`](super::Client::taken), or to store.
    pub fn upto(&self) -> Op {
        match self {
            Incoming::Notification(notification) => notification.op,
            Incoming::Gap { upto, .. } => *upto,
        }
    }
}

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The session is open.
    Connected {
        /// Its id.
        session: SessionId,
        /// Which view serves it.
        view: View,
        /// The primary's address.
        addr: SocketAddr,
    },
    /// The device stood behind the end of the servers' log, which is told before the session is open: they
    /// were restored from an older copy, or [`Options::cursor`](super::Options::cursor) said so wrongly. It
    /// goes on where they remember it. What was read since may come again, under other numbers or not at all.
    SetBack {
        /// Where the device stood.
        from: Op,
        /// Where it stands now.
        to: Op,
    },
    /// There is, or was, a copy of this device's files, and these or those are out of date: a key was moved or
    /// imported, a machine cloned, a home synchronised or put back. If both are in use, give the other
    /// machine a device of its own (`recado device add`). What each copy is promised: `docs/DESIGN.md`,
    /// section 3.
    Copied(CopySign),
    /// The servers have lost requests that they had answered: they were restored from an older copy.
    ServersSetBack {
        /// The highest number of this device that was answered.
        answered: Seq,
        /// The last one that they have.
        last: Seq,
    },
    /// So many unanswered requests have other numbers now, and are sent under them, because a copy of the
    /// device, or a restored server, has used their numbers otherwise. None of them was applied before.
    Renumbered {
        /// How many.
        requests: usize,
    },
    /// Nothing has been heard of the primary for a while; it is being looked for.
    Searching,
    /// Another server serves the session now.
    PrimaryChanged {
        /// In which view.
        view: View,
        /// Where.
        addr: SocketAddr,
        /// From the last word of the old primary to the first of the new.
        pause: Duration,
    },
    /// After [`ConnectionEvent::Searching`] the session is served again as before.
    PrimaryFound {
        /// Where.
        addr: SocketAddr,
        /// From its last word before the silence to its first after it.
        pause: Duration,
    },
    /// The session ended, for good; the last event.
    Ended(Code),
}

/// Why no notification was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// None came in time.
    #[error("no notification came in time")]
    Timeout,
    /// None will come any more.
    #[error(transparent)]
    Over(#[from] ClientError),
}

/// The receiving end of a device's stream. Clones share it: each notification goes to one of them.
#[derive(Clone, Debug)]
pub struct Notifications {
    pub(super) incoming: Receiver<Incoming>,
    pub(super) mode: DeliveryMode,
    pub(super) slot: Arc<Slot>,
    pub(super) commands: Sender<Command>,
    pub(super) ending: Arc<Ending>,
}

impl Notifications {
    /// Waits for the next one.
    ///
    /// # Errors
    /// The client has ended, or the device's cursor could not be written (at most once).
    pub fn recv(&self) -> Result<Incoming, ClientError> {
        match self.incoming.recv() {
            Ok(incoming) => self.hand_out(incoming),
            Err(_) => Err(self.ending.error()),
        }
    }

    /// Waits for the next one, so long.
    ///
    /// # Errors
    /// [`ReceiveError`]; after a time-out it may be called again.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Incoming, ReceiveError> {
        match self.incoming.recv_timeout(timeout) {
            Ok(incoming) => Ok(self.hand_out(incoming)?),
            Err(RecvTimeoutError::Timeout) => Err(ReceiveError::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(self.ending.error().into()),
        }
    }

    fn hand_out(&self, incoming: Incoming) -> Result<Incoming, ClientError> {
        match self.mode {
            DeliveryMode::AtLeastOnce => {}
            // First the cursor, then the application.
            DeliveryMode::AtMostOnce => take(&self.slot, &self.commands, incoming.upto())?,
        }
        Ok(incoming)
    }
}

/// Notes on this machine that everything up to `op` is taken, then lets the servers know.
pub(super) fn take(slot: &Slot, commands: &Sender<Command>, op: Op) -> Result<(), ClientError> {
    slot.save_cursor(op)?;
    // A driver that has ended needs not know: the next one starts from the file.
    let _ = commands.send(Command::Taken(op));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::sync::channel::bounded;

    use super::*;
    use crate::id::ClusterId;

    struct Stream {
        notifications: Notifications,
        incoming: Sender<Incoming>,
        commands: Receiver<Command>,
        _state: tempfile::TempDir,
    }

    fn stream(mode: DeliveryMode) -> Stream {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = Slot::take(state.path(), ClusterId(7), &"alice".parse().unwrap()).unwrap();
        let (incoming_in, incoming) = bounded(4);
        let (commands, commands_out) = bounded(4);
        let notifications =
            Notifications { incoming, mode, slot: Arc::new(slot), commands, ending: Arc::default() };
        Stream { notifications, incoming: incoming_in, commands: commands_out, _state: state }
    }

    const GAP: Incoming = Incoming::Gap { after: Op(1), upto: Op(5) };

    #[test]
    fn at_most_once_the_cursor_has_moved_when_the_application_sees_it() {
        let stream = stream(DeliveryMode::AtMostOnce);
        stream.incoming.send(GAP).unwrap();
        assert_eq!(stream.notifications.recv().unwrap(), GAP);
        assert_eq!(stream.notifications.slot.cursor(), Some(Op(5)));
        assert!(matches!(stream.commands.try_recv(), Ok(Command::Taken(Op(5)))));
    }

    #[test]
    fn at_least_once_the_cursor_waits_for_the_application() {
        let stream = stream(DeliveryMode::AtLeastOnce);
        stream.incoming.send(GAP).unwrap();
        assert_eq!(stream.notifications.recv().unwrap(), GAP);
        assert_eq!(stream.notifications.slot.cursor(), None);
        take(&stream.notifications.slot, &stream.notifications.commands, GAP.upto()).unwrap();
        assert_eq!(stream.notifications.slot.cursor(), Some(Op(5)));
        assert!(matches!(stream.commands.try_recv(), Ok(Command::Taken(Op(5)))));
    }

    #[test]
    fn what_came_before_the_end_is_still_handed_out() {
        let Stream { notifications, incoming, .. } = stream(DeliveryMode::AtLeastOnce);
        incoming.send(GAP).unwrap();
        drop(incoming);
        assert_eq!(notifications.recv().unwrap(), GAP);
        assert!(matches!(notifications.recv(), Err(ClientError::Disconnected)));
        assert!(matches!(notifications.recv_timeout(Duration::ZERO), Err(ReceiveError::Over(_))));
    }
}
