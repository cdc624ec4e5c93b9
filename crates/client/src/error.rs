//! Errors of the client, each with its cause and its cure.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::envelope::VERSION;
use recado_proto::id::{ClusterId, ClusterKey, DeviceKey, Name, NodeId, Op};
use recado_proto::packet::{Code, SelectionTooLong};
use recado_sys::net::NetError;

use super::known::KnownCluster;
use super::trust::ClusterIdentity;

/// An operation of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address of a server was given. The caller's fault; nothing happened.
    #[error("the list of servers is empty; give the address of at least one")]
    NoServers,
    /// No server answered in time. Nothing was sent in the profile's name.
    #[error(
        "no server answered within {}: tried {}; is a server running there?",
        seconds(waited),
        listed(servers)
    )]
    Unreachable {
        /// The servers that were asked.
        servers: Vec<SocketAddr>,
        /// The time waited for an answer.
        waited: Duration,
    },
    /// A server speaks another version of the protocol, and no other server answered in time. A client that
    /// was not connected has sent nothing in the profile's name; the requests that one left unanswered are in
    /// the device's files.
    #[error(
        "the server at {server} speaks version {version} of the protocol and this program version {VERSION}: update {}",
        if *version > VERSION { "recado here" } else { "recadod on the servers" }
    )]
    OtherVersion {
        /// The server.
        server: SocketAddr,
        /// The version that it speaks. It is not authenticated: an attacker in the network can claim it, as
        /// it can stop the answers of the servers.
        version: u8,
    },
    /// The key of the cluster at this address is not the one it had. Either the cluster was created anew, or
    /// an attacker answers in its place; a person must find out which. Nothing was sent in the profile's
    /// name. [`KnownClusters::forget`](super::KnownClusters::forget) makes the cluster a new one.
    #[error("{}", key_changed(.addr, .known, .offered))]
    ClusterKeyChanged {
        /// The address at which another cluster is known.
        addr: SocketAddr,
        /// The cluster that is known there.
        known: Box<KnownCluster>,
        /// The cluster that answers, and its address.
        offered: ClusterIdentity,
    },
    /// The cluster was never met, and the policy for new clusters ([`Trust`](super::Trust)) did not accept
    /// it. Nothing was sent in the profile's name, and nothing is remembered.
    #[error(
        "{} is a server of a cluster that is not known here:\n    cluster      {}\n    fingerprint  {}\n\
         Compare the fingerprint with the one that `recadod fingerprint --config FILE` prints on a server of the cluster. If \
         they are the same, trust the cluster from now on with --accept-new, or pin its key with --cluster-key.",
        .0.addr, .0.cluster, .0.key.fingerprint()
    )]
    UnknownCluster(ClusterIdentity),
    /// The cluster's key is not the pinned one. Nothing was sent in the profile's name.
    #[error(
        "the cluster at {} does not have the pinned key (--cluster-key, RECADO_CLUSTER_KEY or cluster_key):\n    \
         pinned   {}\n    offered  {}\n\
         Either the pinned key is that of another cluster, or somebody impersonates the cluster. `recadod fingerprint --config \
         FILE` prints the true key on a server of the cluster.",
        .offered.addr, .pinned, .offered.key
    )]
    NotThePinnedKey {
        /// The pinned key.
        pinned: ClusterKey,
        /// The cluster that answers.
        offered: ClusterIdentity,
    },
    /// A server claimed to belong to a cluster and did not prove it in time: it stopped meanwhile, its
    /// answers were lost, the path to it carries no datagram of [`DATAGRAM_BASE`] bytes, or the claim is
    /// false. Nothing was sent in the profile's name; try again.
    ///
    /// [`DATAGRAM_BASE`]: recado_proto::DATAGRAM_BASE
    #[error(
        "the server at {server} answers short datagrams, and within {} no server has answered one of {} bytes, as the \
         handshake needs. Most often the path (a VPN, a tunnel) does not carry them: raise its MTU. Otherwise the server \
         has just stopped, or is not what it claims to be",
        seconds(.waited), recado_proto::DATAGRAM_BASE
    )]
    Unproved {
        /// The server.
        server: SocketAddr,
        /// The time waited for the proof.
        waited: Duration,
    },
    /// Servers answer, but none admitted the device within this time: they have no primary, or the primary
    /// reaches no majority. Transient; connect again.
    #[error(
        "servers answer, but none of them became primary and opened a session within {}; is a majority of them running?",
        seconds(.0)
    )]
    NoPrimary(Duration),
    /// The other servers name a primary that did not answer this client in time. Nothing was done.
    #[error(
        "the other servers name {node} ({addr}) as primary, and it has not answered this machine within {}: if it has not \
         just died, something between it and this machine drops UDP datagrams (a firewall, an address that is not reached \
         from here)",
        seconds(.waited)
    )]
    PrimaryUnheard {
        /// The primary.
        node: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// The time waited for it.
        waited: Duration,
    },
    /// Each session that the servers opened within this time was over before it was served, because another
    /// client has connected as the same device. Nothing was done.
    #[error(
        "the servers opened a session, and a copy of this device's files took it over each time within {}: another machine \
         uses a copy of {}. Give that machine a device of its own: run `recado device add` here, and there, once its state \
         directory is deleted, `recado device enrol CODE`",
        seconds(.waited), .dir.display()
    )]
    Contested {
        /// The directory of the device's files.
        dir: PathBuf,
        /// The time waited.
        waited: Duration,
    },
    /// The name belongs to another installation: the servers know the profile by other keys than this
    /// installation's. Nothing was done in its name.
    #[error(
        "@{profile} belongs to other machines than this one, whose key is {}. If @{profile} is you, this machine was not \
         added yet, or it was removed: run `recado device add` on a machine of the profile, and here `recado device enrol \
         CODE` (another HOME or XDG_STATE_HOME counts as another machine); if that machine is lost, an administrator can \
         release the name with `recadod admin release @{profile}`. If @{profile} is not you, take another name",
        key.display()
    )]
    NotYours {
        /// The name.
        profile: Name,
        /// The file of this installation's key.
        key: PathBuf,
    },
    /// A search for more than a query can name. The caller's fault; nothing was asked.
    #[error(transparent)]
    Selection(#[from] SelectionTooLong),
    /// Nobody has the name: it was never claimed, or an administrator released it. Nothing was done.
    #[error(
        "nobody has @{profile} now: it was never claimed, it expired, or an administrator released it. To claim it, run: \
         recado --as {profile} claim"
    )]
    NobodyHas {
        /// The name.
        profile: Name,
    },
    /// The client may not claim a name ([`Options::no_claim`](super::Options::no_claim)), and this
    /// installation has never acted as the profile in this cluster. Nothing was done.
    #[error(
        "@{profile} is no profile of this machine in cluster {cluster}, and this command claims no name. If nobody has the name \
         yet, `recado claim`, `recado send` and `recado follow` claim it; if it is yours on another machine, run \
         `recado device add` there and `recado device enrol CODE` here"
    )]
    NotClaimed {
        /// The name.
        profile: Name,
        /// The cluster that was asked.
        cluster: ClusterId,
    },
    /// Servers answered within this time, and none of them has applied all that this installation has seen
    /// already. They are behind the one that died, or were restored from an older copy. Nothing was changed.
    #[error(
        "no server that answers has applied op {seen}, which this machine has seen; the latest has applied op {applied}. If a \
         server is to return, ask again later; --consistency any shows what there is, and so does deleting {} if the servers \
         were restored from an older copy",
        token.display()
    )]
    Behind {
        /// The token: the highest op seen.
        seen: Op,
        /// The highest op that a server told to have applied.
        applied: Op,
        /// The file of the token.
        token: PathBuf,
    },
    /// An enrolment code was given for a name that nobody has in this cluster. Nothing was done.
    #[error(
        "cluster {cluster} at {addr} has no @{profile}; if the code is from another cluster, name one of its servers with \
         --server"
    )]
    NoSuchProfile {
        /// The name.
        profile: Name,
        /// The cluster that was asked.
        cluster: ClusterId,
        /// The server of the cluster that answered first.
        addr: SocketAddr,
    },
    /// New names are for keys that an administrator has allowed, and this device's key is not one of them.
    /// Nothing was done in its name.
    #[error(
        "nobody has @{profile} yet, and only allowed keys may claim new names here: ask an administrator to run \
         `recadod admin allow {} --config FILE` (FILE: the recado.toml of any server)",
        key.in_full()
    )]
    KeyNotAllowed {
        /// The name.
        profile: Name,
        /// This device's key.
        key: DeviceKey,
    },
    /// The servers have no place for this device, now. Nothing was done.
    #[error(
        "the servers have no place for this device: every device that @{profile} may have is connected, or the profile \
         has as many keys as it may, or the cluster as many profiles (limits `devices`, `keys`, `profiles`). End a \
         program that runs as @{profile}, or remove a machine: `recado devices` and `recado device list` show them"
    )]
    NoPlace {
        /// The profile.
        profile: Name,
    },
    /// The servers did not admit the device, for another reason. Nothing was done.
    #[error("the servers opened no session: {}", explain(*.0))]
    Rejected(Code),
    /// The session ended for good.
    #[error("the session has ended: {}", explain(*.0))]
    Ended(Code),
    /// The servers do not know the device any more: its key was revoked, its profile's name was released, it
    /// was the oldest idle one beyond a profile's 16 devices, or the servers were restored from an older
    /// copy. Its numbers and its cursor are gone, and it is never restarted silently.
    #[error(
        "the servers no longer know this device. If it was removed, run `recado device add` elsewhere, `recado device \
         enrol CODE` here. Otherwise (name released, 16 others used, servers restored), reset it: `recado device reset` \
         forgets what is in {}; a name that was released is then yours again with `recado claim`, unless somebody was \
         quicker",
        .0.display()
    )]
    Forgotten(PathBuf),
    /// The session was ended by [`Client::disconnect`](super::Client::disconnect).
    #[error("the client is disconnected")]
    Disconnected,
    /// A query was refused. Nothing changed.
    #[error("{}", explain(*.0))]
    Refused(Code),
    /// A query got no answer in time. It changes nothing, so it can be asked again.
    #[error("no answer within {}; the servers may be electing a primary: try again", seconds(.0))]
    Timeout(Duration),
    /// Nothing of the notification can be seen ([`Content::is_blank`](super::Content::is_blank)). The
    /// caller's fault; nothing was sent.
    #[error("nothing of the notification can be seen: its text and its title have only blank characters")]
    Blank,
    /// A part of the notification exceeds its limit. The caller's fault; nothing was sent.
    #[error("{}", explain(Code::TooLarge))]
    TooLarge,
    /// 256 requests were unanswered and as many were queued, for the whole time-out. This one was not sent.
    #[error("no room for another request within {}; wait for receipts before sending more", seconds(.0))]
    Full(Duration),
    /// The device's files cannot be used.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The system cannot provide a socket. The machine's fault.
    #[error(transparent)]
    Socket(#[from] NetError),
    /// The system cannot provide a thread, or random numbers. The machine's fault.
    #[error("the system cannot provide a thread or random numbers: {0}")]
    System(#[from] io::Error),
}

impl ClientError {
    /// No server has answered in this version of the protocol, but perhaps one in another.
    pub(super) fn unanswered(
        servers: &[SocketAddr],
        waited: Duration,
        other_version: Option<(SocketAddr, u8)>,
    ) -> ClientError {
        match other_version {
            Some((server, version)) => ClientError::OtherVersion { server, version },
            None => ClientError::Unreachable { servers: servers.to_vec(), waited },
        }
    }

    pub(super) fn changed(addr: SocketAddr, known: KnownCluster, offered: ClusterIdentity) -> ClientError {
        ClientError::ClusterKeyChanged { addr, known: Box::new(known), offered }
    }
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> ClientError {
        ClientError::Store(Arc::new(error))
    }
}

/// The files of a device cannot be used. The machine's fault or its administrator's, who can cure it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory cannot be made, read or written.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        op: StoreOp,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The directory for the files cannot be made.
    #[error("cannot create {}: {source}; set XDG_STATE_HOME to a directory that you may write", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file does not hold what recado wrote there.
    #[error("{} is damaged; {cure}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cure.
        cure: &'static str,
    },
    /// A file is in another version of its format, and its checksum, where it has one, is good. It is neither
    /// changed nor removed.
    #[error(
        "{} has version {found} of the format, and this recado reads version {reads}: use the recado that wrote it; \
         nothing was changed",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        reads: u32,
    },
    /// Another kind of file stands in the place of a regular one. It is neither read, written, nor waited
    /// for.
    #[error("{} is a link, a directory, a pipe or a device, and must be a regular file; {cure}", path.display())]
    NotRegular {
        /// Its path.
        path: PathBuf,
        /// The cure.
        cure: &'static str,
    },
    /// There are devices, but the key that the servers know them by is missing. A new key would make other
    /// devices of them.
    #[error(
        "{} is missing, and the servers know the devices beside it by this key: restore it from a copy, or delete {} to \
         begin as a new device, without the unanswered requests; the name then needs `recado device add` on another \
         machine that has it, or `recadod admin release` on a server",
        key.display(),
        devices.display()
    )]
    KeyMissing {
        /// The path of the key.
        key: PathBuf,
        /// The directory of the devices.
        devices: PathBuf,
    },
    /// Other users may read the key or the known clusters; or they can reach a device's files, and the
    /// permissions could not be changed.
    #[error("{} may be read by others (mode {mode:03o}); run: chmod go= {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no key to export.
    #[error("this machine has no key of @{profile} for cluster {cluster}")]
    NoKey {
        /// The cluster.
        cluster: ClusterId,
        /// The profile.
        profile: Name,
    },
    /// The installation has another key.
    #[error(
        "{} is another key; --force overwrites it and drops the unanswered requests of its devices",
        .0.display()
    )]
    OtherKey(PathBuf),
    /// A process runs with the key that is to be overwritten.
    #[error("{} is in use; end the programs that run as this profile", .0.display())]
    InUse(PathBuf),
    /// Every slot is in use by a process.
    #[error(
        "this machine has no place for another device: all {} under {} are in use, and none became free in time; end a \
         program that runs as this profile, or try again",
        super::store::SLOTS,
        .0.display()
    )]
    NoSlot(PathBuf),
}

/// An operation on a file.
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

/// A refusal as a sentence for people.
pub fn explain(code: Code) -> &'static str {
    match code {
        Code::Busy => "the servers are busy; try again",
        Code::NoQuorum => "the primary reaches no majority of the servers; try again when more of them run",
        Code::NotPrimary => "this server is not the primary; try again",
        Code::UnknownProfile => "there is no such profile",
        Code::UnknownChannel => "there is no such channel; the first notification sent to it creates it",
        Code::ChannelDeleted => "the channel was deleted; its name is free again 30 days later",
        Code::InviteNeeded => {
            "a new name needs an invitation code here: ask an administrator for one (`recadod admin invite --config FILE`, \
             the recado.toml of any server) and give it with --invite CODE"
        }
        Code::WrongInvite => {
            "no invitation has this code: it is wrong, used up, expired, or for another name; ask an administrator for \
             another"
        }
        Code::KeyNotAllowed => {
            "only allowed keys may claim new names here: an administrator allows this one with \
             `recadod admin allow KEY --config FILE` (FILE: the recado.toml of any server)"
        }
        Code::TooManyNames => {
            "this network claimed too many new names, or this network or profile created too many channels; try again \
             later: the administrator has set how many an hour"
        }
        Code::Unsupported => "these servers do not do what was asked; a later version may",
        Code::TryOtherServerOrLater => "this server is behind what was already seen; try again",
        Code::OtherEpoch => "the servers were restored, and what was kept belongs to the log before that",
        Code::HomeGone => "the server that served this session is gone; try again",
        Code::NotAMember => "this server is no member of the cluster any more; try another",
        Code::UnknownDevice => "the servers do not know this device, or no longer",
        Code::SessionOver => {
            "it was idle for a week, the device was removed, its name was released, or a copy of the device is in use elsewhere"
        }
        Code::Fenced => {
            "a copy of this device's files is in use elsewhere, and the servers serve one copy at a time; give that machine \
             a device of its own: run `recado device add` here, and there, once its state directory is deleted, \
             `recado device enrol CODE`"
        }
        Code::NumberTaken => {
            "a copy of this device has used the request's number for another request; it gets a new number"
        }
        Code::NumberForgotten => {
            "a copy of this device's files has used the request's number or has seen its result since, and the servers no \
             longer have the result; look into the history before you send it again"
        }
        Code::NotYours => {
            "the name belongs to another key; take another name, or, if it is yours, run `recado device add` on a machine \
             that has it and `recado device enrol CODE` here"
        }
        Code::NotAllowed => "you do not have the right to do this: ask an owner",
        Code::AlreadyFollowing => "you follow it already",
        Code::NotFollowing => "you do not follow it",
        Code::Yourself => "you cannot follow or unfollow yourself",
        Code::TooLarge => {
            "a part of the notification is over its limit: a title has at most 1,024 bytes, a body 16 KiB, and there are \
             at most 16 tags of 64 bytes and 32 extra entries, ascending by key, of 4 KiB together"
        }
        Code::LimitReached => {
            "a limit is reached: of profiles, of one profile's devices, follows, channels or stored values, of one channel's \
             members, or of all stored values"
        }
        Code::NameTaken => "a channel of this name exists already; take another name",
        Code::UnknownNotification => {
            "no notification of this op is held that you may read: it was never sent or was dropped, its topic was \
             removed, or it has no text of its own"
        }
        Code::KeyExists => "the key has a value already",
        Code::UnknownKey => "the key has no value",
        Code::StaleTimestamp => "the value was changed since: it has another timestamp",
        Code::NotMember => "the profile is not a member of the channel",
        Code::LastOne => "the last owner or key cannot be removed: add another first",
        Code::WrongCode => {
            "no open enrolment has this code: it is mistyped, used, older than 10 minutes, or was tried too often; \
             `recado device add` on a machine of the profile prints a new one"
        }
        Code::BeyondEnd => {
            "this device has read further than the servers' log goes, as after they were restored from an older copy; \
             start again: the device continues at the cursor that the servers have"
        }
        Code::Unknown(_) => {
            "the servers refuse it for a reason that this version does not know; a later one names it"
        }
        Code::TooFarAhead => "too many requests are unanswered; try again",
    }
}

/// The message for a changed cluster key. It is conspicuous, because the case is rare and can be an attack.
fn key_changed(addr: &SocketAddr, known: &KnownCluster, offered: &ClusterIdentity) -> String {
    let by = if offered.addr == *addr { String::new() } else { format!(", says {}", offered.addr) };
    format!(
        "THE CLUSTER AT {addr} IS NOT THE ONE IT WAS. Nothing was sent to it.\n    \
         known   cluster {}, fingerprint {}\n    \
         now     cluster {}, fingerprint {}{by}\n\
         Either the cluster was created anew (its data was deleted, as by `rm -r data`, or the address now belongs to \
         another cluster), or somebody impersonates it. Its administrator can tell: `recadod fingerprint --config FILE` \
         prints the true fingerprint on each of its servers.\n\
         If the fingerprint above is the true one, forget the old cluster, and the next command accepts the new one:\n    \
         recado cluster forget {addr}",
        known.cluster,
        known.key.fingerprint(),
        offered.cluster,
        offered.key.fingerprint(),
    )
}

/// Formats a time-out to the tenth of a second, below 100 ms in ms. The remainder of a time-out has digits
/// that mean nothing to people.
fn seconds(wait: &Duration) -> String {
    match wait.as_millis() {
        ms @ 0..100 => format!("{ms} ms"),
        _ => format!("{} s", (wait.as_secs_f64() * 10.0).round() / 10.0),
    }
}

fn listed(servers: &[SocketAddr]) -> String {
    let all: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_gives_the_wait_to_the_tenth_of_a_second() {
        let text = |micros| seconds(&Duration::from_micros(micros));
        let table =
            [(498_540, "0.5 s"), (29_987_000, "30 s"), (1_500_000, "1.5 s"), (50_000, "50 ms"), (0, "0 ms")];
        for (micros, expected) in table {
            assert_eq!(text(micros), expected);
        }
    }

    #[test]
    fn an_error_about_another_version_says_which_side_to_update() {
        let server = ([192, 0, 2, 7], 10097).into();
        let text = |version| ClientError::OtherVersion { server, version }.to_string();
        assert!(text(VERSION + 1).ends_with("update recado here"));
        assert!(text(VERSION - 1).ends_with("update recadod on the servers"));
    }

    #[test]
    fn an_error_names_the_administrators_command_with_all_its_options() {
        let refused = ClientError::KeyNotAllowed { profile: "bob".parse().unwrap(), key: DeviceKey([7; 32]) };
        let messages =
            [refused.to_string(), explain(Code::InviteNeeded).into(), explain(Code::KeyNotAllowed).into()];
        for message in messages {
            assert!(message.contains("--config FILE"), "{message}");
        }
    }
}
