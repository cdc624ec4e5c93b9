//! Options of a client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use recado_proto::id::{ClusterId, Name, Op};

use super::enrolment::EnrolmentCode;
use super::known::KnownClusters;
use super::trust::Trust;

/// Delivery mode: the time at which the cursor of a receiving device moves, which decides whether a
/// notification is repeated or lost when this process crashes while handling it.
///
/// The servers deliver each notification once and in order, through any of their failures (promise P2). A
/// crash of the *client's* process is different: there is always a moment between taking a notification and
/// recording that it was taken. So choose a mode; or store the cursor and the effect of the notification in
/// one transaction, and pass the cursor to [`Options::cursor`]: then processing is exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The cursor moves when the application calls [`Client::ack`](super::Client::ack). After a crash,
    /// notifications that were received and not taken are delivered again: none is lost, some may be
    /// repeated.
    #[default]
    AtLeastOnce,
    /// The cursor moves when a notification is handed out, before the application sees it. After a crash
    /// nothing is delivered again: none is repeated, and the one being handled may be lost. (The cursor is
    /// written to the page cache and not fsynced: a machine that loses power may repeat the last ones.)
    AtMostOnce,
}

/// Options of a client.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) profile: Name,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) state: PathBuf,
    pub(super) receives: bool,
    pub(super) claims: bool,
    pub(super) memory_only: bool,
    pub(super) mode: DeliveryMode,
    pub(super) cursor: Option<Op>,
    pub(super) code: Option<EnrolmentCode>,
    pub(super) invite: Option<EnrolmentCode>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) timeout: Duration,
    pub(super) trust: Trust,
}

impl Options {
    /// Options for `profile`, whose name is claimed if nobody has it. Any one of the servers' addresses is
    /// enough; all must be of one IP family. The device's files are kept under `state`.
    pub fn new(profile: Name, servers: Vec<SocketAddr>, state: impl Into<PathBuf>) -> Options {
        let state = state.into();
        Options {
            profile,
            servers,
            trust: Trust::known(KnownClusters::under(&state)),
            state,
            receives: true,
            claims: true,
            memory_only: false,
            mode: DeliveryMode::default(),
            cursor: None,
            code: None,
            invite: None,
            cluster: None,
            timeout: Duration::from_secs(30),
        }
    }

    /// Makes a client that only sends and asks. It receives nothing, and its cursor stays.
    #[must_use]
    pub fn send_only(mut self) -> Options {
        self.receives = false;
        self
    }

    /// Makes a client that never claims the name: connecting fails with [`ClientError::NotClaimed`] or
    /// [`ClientError::NotYours`] if the profile is not this installation's.
    ///
    /// [`ClientError::NotClaimed`]: super::ClientError::NotClaimed
    /// [`ClientError::NotYours`]: super::ClientError::NotYours
    #[must_use]
    pub fn no_claim(mut self) -> Options {
        self.claims = false;
        self
    }

    /// Makes a client that keeps its requests and its cursor in memory alone. Under the state directory it
    /// has the installation's key, which makes the profile its own, and the lock of a device; it writes and
    /// syncs nothing when it sends or receives. It takes a device that no client with files has used.
    ///
    /// - **A request without an answer when the process ends has an unknown outcome.** It was applied, will
    ///   be, or never will be, and no later client settles it ([`Client::recovered`] is empty). The history
    ///   tells what became of a notification.
    /// - The next client of the device opens a session of its own, which fences the one before; session keys
    ///   are never stored. Its numbers continue from the last one that the servers had applied when they
    ///   fenced that session. So from its first request on nothing of the former process is applied any more,
    ///   and no request is taken for another one.
    /// - Numbers are known once the session is open. Until then a request waits in the client and has no
    ///   effect; if the client ends first, its receipt says [`ReceiptError::NotSent`].
    /// - The stream goes on from the replicated cursor, which follows once a second, unless
    ///   [`Options::cursor`] is given. So in either [`DeliveryMode`] what was read last may come again after
    ///   a crash.
    ///
    /// [`Client::recovered`]: super::Client::recovered
    /// [`ReceiptError::NotSent`]: super::ReceiptError::NotSent
    #[must_use]
    pub fn memory_only(mut self) -> Options {
        self.memory_only = true;
        self
    }

    /// Sets the delivery mode; [`DeliveryMode::AtLeastOnce`] by default.
    #[must_use]
    pub fn mode(mut self, mode: DeliveryMode) -> Options {
        self.mode = mode;
        self
    }

    /// Sets the cursor, for an application that stores it itself. It takes precedence over the device's files
    /// and over the servers.
    #[must_use]
    pub fn cursor(mut self, cursor: Op) -> Options {
        self.cursor = Some(cursor);
        self
    }

    /// Adds this installation's key to the profile's, with a code from [`Client::enrol`] on one of its
    /// devices. A name that nobody has is not claimed then.
    ///
    /// [`Client::enrol`]: super::Client::enrol
    #[must_use]
    pub fn enrol(mut self, code: EnrolmentCode) -> Options {
        self.code = Some(code);
        self
    }

    /// Claims the name with the code of an invitation (`recadod admin invite`), if nobody has the name and
    /// the servers require an invitation.
    #[must_use]
    pub fn invited(mut self, code: EnrolmentCode) -> Options {
        self.invite = Some(code);
        self
    }

    /// Sets which clusters are trusted. By default those known under the state directory, and new ones only
    /// at loopback addresses; see [`Trust`].
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Options {
        self.trust = trust;
        self
    }

    /// Sets the cluster, as an earlier client gave it ([`Client::cluster`](super::Client::cluster)). With it,
    /// [`Client::open`](super::Client::open) needs no server; a trusted cluster that answers takes precedence
    /// over it.
    #[must_use]
    pub fn remembered(mut self, cluster: ClusterId) -> Options {
        self.cluster = Some(cluster);
        self
    }

    /// Sets how long to wait for the connection, for an answer, and for room for one more request; 30 s by
    /// default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Options {
        self.timeout = timeout;
        self
    }
}
