//! What can go wrong for a program that uses the client, with cause and cure.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::id::Name;
use crate::net::NetError;
use crate::wire::packet::Code;

/// Why the client could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address of a server was given. The caller's fault; nothing happened.
    #[error("no server to talk to; give the address of at least one")]
    NoServers,
    /// No server answered in time. Nothing was sent in the profile's name.
    #[error(
        "no server answered within {}: tried {}; is one running there?",
        seconds(waited),
        listed(servers)
    )]
    Unreachable {
        /// Who was asked.
        servers: Vec<SocketAddr>,
        /// For how long.
        waited: Duration,
    },
    /// Servers answer, but none let the device in within this time: they have no primary, or it has
    /// no majority. Transient; connect again.
    #[error(
        "servers answer, but none of them became primary and let us in within {}; is a majority of them running?",
        seconds(.0)
    )]
    NoPrimary(Duration),
    /// The name belongs to another installation: the servers know the profile by a key that is not
    /// this installation's. Nothing was done in its name.
    #[error(
        "@{profile} belongs to another installation than this one, whose key is {}; use the installation that \
         claimed the name (another HOME or XDG_STATE_HOME is another installation), or take another name",
        key.display()
    )]
    NotYours {
        /// Whose name.
        profile: Name,
        /// This installation's key.
        key: PathBuf,
    },
    /// The servers did not let the device in, for another reason. Nothing was done.
    #[error("not let in: {}", explain(*.0))]
    Rejected(Code),
    /// The session ended for good.
    #[error("the session is over: {}", explain(*.0))]
    Ended(Code),
    /// A device the servers have forgotten: beyond a profile's 16 devices the oldest idle one goes.
    /// Its numbers and its place in the stream are gone, and it is never restarted silently.
    #[error(
        "the servers have forgotten this device, and with it what it had read; to start it anew, delete {}",
        .0.display()
    )]
    Forgotten(PathBuf),
    /// The session was ended by [`Client::disconnect`](super::Client::disconnect).
    #[error("the client is disconnected")]
    Disconnected,
    /// A question was refused. Nothing changed.
    #[error("{}", explain(*.0))]
    Refused(Code),
    /// A question got no answer in time. It changes nothing, so ask again.
    #[error("no answer within {}; the servers may be electing a primary: try again", seconds(.0))]
    Timeout(Duration),
    /// A part of the notification is over its limit. The caller's fault; nothing was sent.
    #[error("{}", explain(Code::TooLarge))]
    TooLarge,
    /// 256 requests are unanswered and as many wait, for the whole time-out. This one was not sent.
    #[error("no room for another request within {}; wait for receipts before sending more", seconds(.0))]
    Full(Duration),
    /// The device's files are of no use.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// No socket. The machine's fault.
    #[error(transparent)]
    Socket(#[from] NetError),
    /// No thread, or no randomness. The machine's fault.
    #[error("the system has no more to give: {0}")]
    System(#[from] io::Error),
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> ClientError {
        ClientError::Store(Arc::new(error))
    }
}

/// What is wrong with the files of a device. The machine's or its administrator's to cure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory cannot be made, read or written.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was being done.
        op: StoreOp,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what recado wrote there.
    #[error("{} is damaged; {cure}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What can be done.
        cure: &'static str,
    },
    /// Others may read the key.
    #[error("{} may be read by others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Every slot is in use by a process.
    #[error("all {} devices under {} are in use; end one of the programs that run as this profile", super::store::SLOTS, .0.display())]
    NoSlot(PathBuf),
}

/// What was being done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Making it, with the directories above it.
    Create,
    /// Locking it.
    Lock,
    /// Reading it.
    Read,
    /// Writing it, durably.
    Write,
}

impl std::fmt::Display for StoreOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StoreOp::Create => "create",
            StoreOp::Lock => "lock",
            StoreOp::Read => "read",
            StoreOp::Write => "write",
        })
    }
}

/// A refusal in words.
pub fn explain(code: Code) -> &'static str {
    match code {
        Code::Busy => "the servers are busy; try again",
        Code::NoQuorum => "the primary reaches no majority of the servers; try again when more of them run",
        Code::NotPrimary => "this server is not the primary; try again",
        Code::UnknownProfile => "there is no such profile",
        Code::UnknownChannel => "there is no such channel; the first notification sent to it makes it",
        Code::UnknownDevice => "the servers do not know this device (any more)",
        Code::SessionOver => "it was closed, or the same device connected again elsewhere",
        Code::NotYours => {
            "the profile belongs to another device key; take another name, or use the installation that claimed it"
        }
        Code::NotAllowed => "only its owner may do that",
        Code::AlreadyFollowing => "it is followed already",
        Code::NotFollowing => "it is not followed",
        Code::Yourself => "one cannot follow or unfollow oneself",
        Code::TooLarge => {
            "a part of it is too large: a title has at most 256 bytes, a body 16 KiB, and there are at most 8 tags of 32 bytes"
        }
        Code::LimitReached => "the limit of profiles, devices, follows or channels is reached",
        Code::TooFarAhead => "too many requests are unanswered; try again",
    }
}

fn seconds(wait: &Duration) -> String {
    format!("{} s", wait.as_secs_f64())
}

fn listed(servers: &[SocketAddr]) -> String {
    let all: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    all.join(", ")
}
