//! Events for the application: the stream of notifications, and changes of the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, RecvTimeoutError};
use recado_sys::sync::signal::Sender;

use recado_proto::id::{Op, Seq, SessionId, View};
use recado_proto::packet::{Code, Notification};

use super::driver::Command;
use super::ending::Ending;
use super::error::ClientError;
use super::machine::CopySign;
use super::options::DeliveryMode;
use super::store::Slot;

/// An item of a receiving device's stream, which is ordered by op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The next notification. Each is delivered once.
    Notification(Arc<Notification>),
    /// Notifications in `after < op <= upto` were dropped by retention before this device read them.
    Gap {
        /// The cursor before the gap.
        after: Op,
        /// The cursor after the gap.
        upto: Op,
    },
}

impl Incoming {
    /// The cursor once this item is taken: hand it to [`Client::ack`](super::Client::ack), or store it.
    pub fn upto(&self) -> Op {
        match self {
            Incoming::Notification(notification) => notification.op,
            Incoming::Gap { upto, .. } => *upto,
        }
    }
}

/// A change of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The session is open.
    Connected {
        /// The session's id.
        session: SessionId,
        /// The view that serves it.
        view: View,
        /// The primary's address.
        addr: SocketAddr,
    },
    /// The device's cursor was beyond the end of the servers' log: they were restored from an older copy, or
    /// [`Options::cursor`](super::Options::cursor) was wrong. Sent before [`ConnectionEvent::Connected`]. The
    /// stream goes on from the cursor that the servers remember. Notifications read since may come again,
    /// under other ops or not at all.
    SetBack {
        /// The device's cursor before.
        from: Op,
        /// The cursor that the servers remember.
        to: Op,
    },
    /// There is, or was, a copy of this device's files, and one of the two is out of date: a key was moved or
    /// imported, a machine was cloned, a home directory was synchronised or restored. If both copies are in
    /// use, give the other machine a device of its own (`recado device add`). The guarantees for each copy
    /// are in `docs/DESIGN.md`, section 3.
    Copied(CopySign),
    /// The servers have lost requests that they had answered: they were restored from an older copy.
    ServersSetBack {
        /// The highest number of this device that was answered.
        answered: Seq,
        /// The highest number that they have applied.
        last: Seq,
    },
    /// Unanswered requests have other numbers and are sent under them, because a copy of the device has used
    /// their numbers for other requests, or the servers were restored from an older copy. None of them was
    /// applied before.
    Renumbered {
        /// The number of requests.
        requests: usize,
    },
    /// The primary has been silent for a while; the client asks all servers for it.
    Searching,
    /// Another server serves the session, or the same one in a new view.
    PrimaryChanged {
        /// The new view.
        view: View,
        /// The new primary's address.
        addr: SocketAddr,
        /// How long the client missed answers: until the RESUME_OK of the new primary, from the first
        /// request, query or keepalive that the old one left unanswered. It is short if nothing was asked.
        pause: Duration,
    },
    /// After [`ConnectionEvent::Searching`], the session is served again in the same view.
    PrimaryFound {
        /// The primary's address.
        addr: SocketAddr,
        /// How long the client missed answers: until its RESUME_OK, from the first request, query or
        /// keepalive that it left unanswered.
        pause: Duration,
    },
    /// The session has ended for good; the last event.
    Ended(Code),
}

/// The reason why no notification was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// No notification came in time.
    #[error("no notification came in time")]
    Timeout,
    /// No notification will come any more.
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
    /// Waits for the next item.
    ///
    /// # Errors
    /// The client has ended, or the device's cursor could not be written (at most once).
    pub fn recv(&self) -> Result<Incoming, ClientError> {
        match self.incoming.recv() {
            Ok(incoming) => self.hand_out(incoming),
            Err(_) => Err(self.ending.error()),
        }
    }

    /// Waits for the next item, at most for `timeout`.
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
            // The cursor moves before the application sees the notification.
            DeliveryMode::AtMostOnce => take(&self.slot, &self.commands, incoming.upto())?,
        }
        Ok(incoming)
    }
}

/// Stores on this machine that everything up to `op` is taken, then tells the driver, which tells the
/// servers.
pub(super) fn take(slot: &Slot, commands: &Sender<Command>, op: Op) -> Result<(), ClientError> {
    slot.save_cursor(op)?;
    // A driver that has ended does not need the cursor: the next one starts from the file.
    let _ = commands.send(Command::Taken(op));
    Ok(())
}

#[cfg(test)]
mod tests {
    use recado_sys::sync::channel::{self, bounded};
    use recado_sys::sync::signal::Signal;

    use recado_proto::id::ClusterId;

    use super::*;

    struct Stream {
        notifications: Notifications,
        incoming: channel::Sender<Incoming>,
        commands: Receiver<Command>,
        _state: tempfile::TempDir,
    }

    fn stream(mode: DeliveryMode) -> Stream {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = Slot::take(state.path(), ClusterId(7), &"alice".parse().unwrap()).unwrap();
        let (incoming_in, incoming) = bounded(4);
        let (commands, commands_out) = Signal::default().bounded(4);
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
