//! What a client is made with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::enrolment::EnrolmentCode;
use super::known::KnownClusters;
use super::trust::Trust;
use crate::id::{ClusterId, Name, Op};

/// When the cursor of a receiving device moves, and so what a crash of this process does to the
/// notification in its hands.
///
/// The servers deliver each notification once, in order, whatever happens to them (promise P2).
/// Across a crash of the *client's* process nobody can promise that alone: between taking a
/// notification and noting that it was taken there is always a moment. So choose, or store the
/// cursor with your own effect, in one transaction, and give it back with [`Options::cursor`]: then
/// it is exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The cursor moves when the application calls [`Client::taken`](super::Client::taken). After a
    /// crash, what was received and not taken comes again: never lost, perhaps twice.
    #[default]
    AtLeastOnce,
    /// The cursor moves when a notification is handed out, before the application sees it. After a
    /// crash nothing comes again: never twice, and what was in hand is perhaps lost. (It is in the
    /// page cache then, not fsynced: a machine that loses power may repeat the last ones.)
    AtMostOnce,
}

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) profile: Name,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) state: PathBuf,
    pub(super) receives: bool,
    pub(super) mode: DeliveryMode,
    pub(super) cursor: Option<Op>,
    pub(super) code: Option<EnrolmentCode>,
    pub(super) invite: Option<EnrolmentCode>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) timeout: Duration,
    pub(super) trust: Trust,
}

impl Options {
    /// As `profile`, which is claimed if nobody has it; any one of the servers' addresses is enough
    /// (all of one IP family); the device's files go under `state`.
    pub fn new(profile: Name, servers: Vec<SocketAddr>, state: impl Into<PathBuf>) -> Options {
        let state = state.into();
        Options {
            profile,
            servers,
            trust: Trust::known(KnownClusters::under(&state)),
            state,
            receives: true,
            mode: DeliveryMode::default(),
            cursor: None,
            code: None,
            invite: None,
            cluster: None,
            timeout: Duration::from_secs(30),
        }
    }

    /// Only sends and asks. Nothing is received and the cursor stays.
    #[must_use]
    pub fn send_only(mut self) -> Options {
        self.receives = false;
        self
    }

    /// When the cursor moves; at least once unless told.
    #[must_use]
    pub fn mode(mut self, mode: DeliveryMode) -> Options {
        self.mode = mode;
        self
    }

    /// Where the application stands, if it stores that itself; it wins over what the device's files
    /// and the servers remember.
    #[must_use]
    pub fn cursor(mut self, cursor: Op) -> Options {
        self.cursor = Some(cursor);
        self
    }

    /// Adds this installation's key to the profile's, with a code that [`Client::enrol`] gave on one
    /// of its devices. An unclaimed name is not claimed then.
    ///
    /// [`Client::enrol`]: super::Client::enrol
    #[must_use]
    pub fn enrol(mut self, code: EnrolmentCode) -> Options {
        self.code = Some(code);
        self
    }

    /// Claims the name with the code of an invitation (`recadod admin invite`), if nobody has it and the
    /// servers want one.
    #[must_use]
    pub fn invited(mut self, code: EnrolmentCode) -> Options {
        self.invite = Some(code);
        self
    }

    /// Which clusters to talk to. Unless told, those that are known under the state directory, and new
    /// ones only at loopback addresses; see [`Trust`].
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Options {
        self.trust = trust;
        self
    }

    /// The cluster, as an earlier client told ([`Client::cluster`](super::Client::cluster)). With it
    /// [`Client::open`](super::Client::open) needs no server; whichever trusted cluster answers wins over it.
    #[must_use]
    pub fn remembered(mut self, cluster: ClusterId) -> Options {
        self.cluster = Some(cluster);
        self
    }

    /// How long connecting, a question, and room for one more request are waited for; 30 s unless told.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Options {
        self.timeout = timeout;
        self
    }
}
