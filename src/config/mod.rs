//! Configuration: every setting with its unit, default, limits and reason.
//!
//! A [`Config`] is the configuration of one server. [`Timing`] has the protocol's timers (DESIGN.md section
//! 6), and [`Limits`] the bounds of every table and queue of the pure modules. [`mod@file`] reads and writes
//! them as `recado.toml`, [`secret`] the file beside it.

pub mod file;
pub mod secret;

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{Admission, ClusterId, NodeId};

const MIB: u64 = 1024 * 1024;

/// A server, as all servers and clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its id and rank.
    pub id: NodeId,
    /// Its address for clients.
    pub client: SocketAddr,
    /// Its address for peers; by convention at the client port + 1000.
    pub peer: SocketAddr,
}

/// The cluster as one server sees it: fixed by `init`, and the same on every server but for `me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id.
    pub id: ClusterId,
    /// The id of this server.
    pub me: NodeId,
    /// All members, this server included, ascending by id.
    pub members: Vec<Member>,
}

impl Cluster {
    /// The number of servers in a quorum. The only place that defines it.
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The other members, ascending by id.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id).filter(|id| *id != self.me)
    }
}

/// The protocol's timers (DESIGN.md section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// H: the interval between two heartbeats.
    pub heartbeat: Duration,
    /// The least value of T_s, the time after which a silent primary is suspected.
    pub suspect_min: Duration,
    /// The largest value of T_s; at least three heartbeats.
    pub suspect_max: Duration,
    /// T_bully: how long a candidate waits for a silent server with a higher id.
    pub bully: Duration,
    /// T_coord: how long another candidate may go without progress.
    pub coordinator: Duration,
    /// The time that a returning server with a higher id is observed before the primary hands over to it.
    pub preempt_after: Duration,
}

impl Timing {
    /// For one machine or a quiet local network.
    pub const DEFAULT: Timing = Timing::ms(40, 200, 600, 40, 150);
    /// For a wired local network.
    pub const LAN: Timing = Timing::ms(25, 120, 400, 30, 100);
    /// For busy or shared machines.
    pub const NOISY: Timing = Timing::ms(60, 400, 1200, 80, 300);
    /// For a network between cities.
    pub const WAN: Timing = Timing::ms(200, 1000, 3000, 300, 1000);

    const fn ms(heartbeat: u64, suspect_min: u64, suspect_max: u64, bully: u64, coordinator: u64) -> Timing {
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            suspect_min: Duration::from_millis(suspect_min),
            suspect_max: Duration::from_millis(suspect_max),
            bully: Duration::from_millis(bully),
            coordinator: Duration::from_millis(coordinator),
            preempt_after: Duration::from_secs(10),
        }
    }

    /// Checks the relations between the timers. The presets are checked at compile time.
    ///
    /// # Errors
    /// [`TimingError`]: the relation that does not hold. The caller's fault; nothing changed.
    pub const fn validate(&self) -> Result<(), TimingError> {
        let heartbeat = self.heartbeat.as_micros();
        if heartbeat < 1_000 {
            return Err(TimingError::Heartbeat);
        }
        if self.suspect_max.as_micros() < 3 * heartbeat {
            return Err(TimingError::SuspectMax);
        }
        if self.suspect_min.as_micros() < 2 * heartbeat
            || self.suspect_min.as_micros() > self.suspect_max.as_micros()
        {
            return Err(TimingError::SuspectMin);
        }
        if self.coordinator.as_micros() <= self.bully.as_micros() {
            return Err(TimingError::Coordinator);
        }
        Ok(())
    }
}

const _: () = assert!(
    Timing::DEFAULT.validate().is_ok()
        && Timing::LAN.validate().is_ok()
        && Timing::NOISY.validate().is_ok()
        && Timing::WAN.validate().is_ok()
);

/// A relation between the protocol's timers that does not hold. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// `heartbeat` is below a millisecond.
    #[error("the heartbeat must be at least 1 ms")]
    Heartbeat,
    /// `suspect_max` is below three heartbeats: one lost heartbeat must not cause a suspicion.
    #[error("suspect_max must be at least 3 heartbeats")]
    SuspectMax,
    /// `suspect_min` is below two heartbeats, for the same reason, or above `suspect_max`.
    #[error("suspect_min must be at least 2 heartbeats and at most suspect_max")]
    SuspectMin,
    /// `coordinator` is not longer than `bully`: a candidate must have time to be heard before it is given
    /// up.
    #[error("coordinator must be longer than bully")]
    Coordinator,
}

/// The primary's policy when a server with a higher id is back and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// Hands over without a pause, as the bully rule demands.
    Graceful,
    /// Stays primary.
    Off,
}

/// The retention of a topic's notifications. The first limit reached applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The largest number of notifications of a topic.
    pub count: u64,
    /// The largest size of a topic's notifications, in bytes.
    pub bytes: u64,
    /// The greatest age of a notification, in ms.
    pub age_ms: u64,
    /// The largest size of all topics' notifications together, in bytes. Beyond it the largest topics lose
    /// their oldest notifications.
    pub all_bytes: u64,
}

/// The rate of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second in the long run; at least 1.
    pub per_s: u32,
    /// Tokens available at once after a pause; at least 1.
    pub burst: u32,
}

/// Bounds of the tables of service and delivery, and of rates. Together with the sizes that are part of the
/// protocol they are listed in `docs/OPERATING.md`, which a test compares with these. The bounds that apply
/// depends on must be the same on every server, so only the rates can be set in a server's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most profiles.
    pub profiles: usize,
    /// Most channels. Deleted ones count while their names are taken.
    pub channels: usize,
    /// Most of them that one profile has made: a hundredth of all.
    pub channels_made: usize,
    /// Most members of an owned channel.
    pub members: usize,
    /// Most channels that one profile owns.
    pub channels_owned: usize,
    /// Most devices of one profile; for one more the device idle the longest is forgotten.
    pub devices: usize,
    /// Most keys of one profile, and so the number of installations that may act as it.
    pub keys: usize,
    /// The time for which an enrolment code is valid, by the log's time.
    pub enrolment: Duration,
    /// Most topics that one profile follows.
    pub follows: usize,
    /// The time after which a profile or a channel that was claimed and never used is removed, so that its
    /// name is free again. By the log's time.
    pub unused: Duration,
    /// The time for which the name of a deleted channel stays taken, so that a notification on its way to the
    /// members does not create an open channel of this name. By the log's time.
    pub deleted: Duration,
    /// Channels that one profile may open or create at once; after that one more each
    /// [`Limits::channel_every`].
    pub channels_at_once: u32,
    /// See [`Limits::channels_at_once`].
    pub channel_every: Duration,
    /// Most open invitations; a further one is refused.
    pub invites: usize,
    /// Most keys that administrators have allowed; a further one is refused.
    pub allowed: usize,
    /// Most changes by administrators that are remembered, so that a repeated one is not made again. For one
    /// more the oldest is forgotten, but not before [`Limits::administered_for`]: until then the new one is
    /// refused as Busy.
    pub administered: usize,
    /// The least time for which such a change is remembered, by the log's time. It is longer than an
    /// initiation (INITIATION) can repeat the change: a server accepts an initiation for at most 20 s, twice
    /// `COOKIE_EPOCH_MICROS` (`server/handshake`), and the log's time runs at most twice as fast
    /// (`server/node/log_clock`). The log's time may also step, by hours, so older changes are kept as long
    /// as there is room.
    pub administered_for: Duration,
    /// Most unanswered requests of one device, and the number of results kept.
    pub outstanding: u64,
    /// The time after which the primary closes a session without any datagram.
    pub session_idle: Duration,
    /// The time after which a session ends that its client has not used since it was opened.
    pub session_pending: Duration,
    /// Most sessions, live and pending; a further one is refused.
    pub sessions: usize,
    /// Most sessions that a server hears and delivers to at a time. For one more, the network with the most
    /// of them loses one, an idle one first ([`crate::delivery`]).
    pub sessions_served: usize,
    /// The largest size of the whole state in bytes, each part counted as the most that its encoding can be.
    /// Beyond it the largest topics lose their oldest notifications. The limit of a snapshot bounds it.
    pub state_bytes: u64,
    /// The largest part of it that is not notifications; beyond it nothing new is created.
    pub record_bytes: u64,
    /// Most notifications in flight to one session.
    pub window: u32,
    /// The rate of requests and questions of one session at the primary; beyond it they are refused as Busy.
    /// It is higher than a `recado send -` fed by a file reaches.
    pub session_requests: Rate,
    /// The same for all sessions of one profile together.
    pub profile_requests: Rate,
    /// The same for all sessions of one network (an IPv4 /24, an IPv6 /56) together: 200,000 units of 1.7 us
    /// are a third of the writer's time. This machine's own addresses have no limit.
    pub network_requests: Rate,
    /// The rate of handshakes that each handler computes for all clients together. Beyond it initiations are
    /// dropped, and clients send them again. A handshake costs about a quarter of a millisecond of one core
    /// (`benches/seal.rs`).
    pub handshakes: Rate,
    /// The same for one network (an IPv4 /24, an IPv6 /56), which may be one office. A command needs one
    /// handshake with each server.
    pub network_handshakes: Rate,
    /// The rate of new names of one network, counted by the primary in seconds: a name costs
    /// [`Limits::NAME_COST`], so that a rate of 10 is 10 names an hour. This machine's own addresses have no
    /// limit.
    pub network_names: Rate,
    /// The rate of new channels of one network, counted in the same way.
    pub network_channels: Rate,
}

impl Limits {
    /// Three quarters of a snapshot's limit. A server that writes a snapshot holds the state, its encoding,
    /// and the copy that it reads back.
    pub const STATE_BYTES: u64 = 768 * MIB;
    /// The cost of a new name in [`Limits::network_names`], and of a new channel in its rate: the seconds of
    /// an hour.
    pub const NAME_COST: u32 = 3_600;
    /// Room for the largest number of profiles with a device each, and half a million follows.
    pub const RECORD_BYTES: u64 = 576 * MIB;
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            profiles: 100_000,
            channels: 10_000,
            channels_made: 100,
            members: 1_000,
            channels_owned: 100,
            devices: 16,
            keys: 16,
            enrolment: Duration::from_secs(600),
            follows: 1_000,
            unused: Duration::from_secs(7 * 24 * 3600),
            deleted: Duration::from_secs(30 * 24 * 3600),
            channels_at_once: 50,
            channel_every: Duration::from_secs(360),
            invites: 1_000,
            allowed: 10_000,
            administered: 4_096,
            administered_for: Duration::from_secs(60),
            outstanding: 256,
            session_idle: Duration::from_secs(7 * 24 * 3600),
            session_pending: Duration::from_secs(60),
            sessions: 200_000,
            sessions_served: 65_536,
            state_bytes: Limits::STATE_BYTES,
            record_bytes: Limits::RECORD_BYTES,
            window: 256,
            session_requests: Rate { per_s: 50_000, burst: 100_000 },
            profile_requests: Rate { per_s: 100_000, burst: 200_000 },
            network_requests: Rate { per_s: 200_000, burst: 400_000 },
            handshakes: Rate { per_s: 500, burst: 1_000 },
            network_handshakes: Rate { per_s: 200, burst: 400 },
            network_names: Rate { per_s: 10, burst: 30 * Limits::NAME_COST },
            network_channels: Rate { per_s: 10, burst: 100 * Limits::NAME_COST },
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention { count: 10_000, bytes: 64 * MIB, age_ms: 30 * 24 * 3600 * 1000, all_bytes: 512 * MIB }
    }
}

/// Planted bugs: the mistakes that ruin such systems, each of which the tests must find (DESIGN.md section
/// 8). Without the feature `planted-bugs` none can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// 1. A backup acknowledges on receipt, before its fsync.
    AckOnReceipt,
    /// 2. Entries of an older view are committed by counting copies.
    CommitOlderView,
    /// 3. The winner of an election keeps its own log though a promise showed a better one.
    KeepOwnLog,
    /// 4. The promise is not durable before REPLY.
    PromiseNotDurable,
    /// 5. A restarted primary continues in its own view.
    RestartAsPrimary,
    /// 6. Repeated requests are checked only against the committed state.
    DuplicatesOnlyCommitted,
    /// 7. The cursor skips a hole in the stream.
    CursorJumps,
    /// 8. Apply depends on something other than the log.
    ApplyNotDeterministic,
    /// 9. A server with an empty disk votes.
    EmptyDiskVotes,
    /// 10. A damaged record in the middle of the log passes for a torn write at its end.
    CorruptionIsTornTail,
    /// 11. A retransmitted cast cuts good entries.
    RecastCuts,
    /// 12. A snapshot holds uncommitted ops.
    SnapshotUncommitted,
    /// The mark covers records that are written and not yet fsynced.
    MarkBeforeSync,
    /// The mark is taken from the commit.
    CommitForMark,
    /// The mark does not move when a snapshot is installed.
    MarkNotMoved,
    /// LEARN_OK is sent before the incarnation that it acknowledges is durable.
    KnownNotDurable,
    /// A snapshot's name is not fsynced.
    SnapshotNameNotSynced,
    /// A log is not matched with the snapshot that it follows.
    LogNotMatched,
    /// The log is pruned one op too far.
    PruneTooFar,
    /// Time-outs ignore how slow the disks are.
    PatienceIgnoresDisk,
    /// A candidate that is heard, and that waits for a disk, is overtaken.
    OvertakesHeard,
    /// The primary stamps entries with its wall clock, so that the log's time goes back.
    LogTimeGoesBack,
    /// The handlers do not learn the sessions of a snapshot that was installed from a peer.
    SessionsUnknownAfterInstall,
    /// A snapshot holds no results of requests.
    ResultsNotInSnapshot,
    /// Retention drops notifications without recording up to which op.
    TrimForgotten,
    /// A profile that unfollows a topic still gets its notifications.
    UnfollowKeepsFollower,
    /// A follow counts from the op that created the follower's profile.
    FollowFromBirth,
    /// A device's cursor moves to the last notification queued for it, not to the last one acknowledged.
    CursorBeyondAcknowledged,
    /// The delivery ignores that it missed notifications.
    MissedUnheeded,
    /// A learner votes as soon as it knows the op that it has to reach.
    LearnerVotesEarly,
    /// A learner's copy counts for the commit.
    LearnerCounts,
    /// A primary serves before its first entry is committed.
    ServesBeforeViewStart,
    /// A backup takes the primary's commit for its own log, whether matched or not.
    CommitBeyondMatched,
    /// A backup acknowledges its durable op, whether matched or not.
    AckUnmatched,
    /// A primary counts its own copy before its fsync.
    OwnWriteCounts,
    /// An fsync that ends after an entry was replaced counts for the replacement.
    StaleCompletionCounts,
    /// The match with one primary's log counts as a match with the next one's.
    MatchedSurvivesView,
    /// A candidate opens its view after the first part of the entries that it lacks.
    FetchStopsShort,
    /// The service keeps one result too few of a device.
    ForgetsOneResultTooMany,
    /// A deposed primary that leads again still has the request numbers that it had logged before.
    NumbersOutliveView,
    /// A result is returned to any request with its number, whatever the digest.
    DigestUnchecked,
    /// The digests of requests are missing from snapshots.
    DigestsNotInSnapshot,
    /// A request whose result is no longer held gets no answer.
    ForgottenIsSilence,
    /// A request that was asked before any server was heard gets another nonce in each run of its client.
    NonceNotKept,
    /// An invitation that was used up is valid once more.
    InviteTwice,
    /// A repeated change by an administrator is made again.
    AdministersTwice,
}

/// The runtime value that says which bug is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlantedBug(#[cfg(feature = "planted-bugs")] pub Option<Planted>);

impl PlantedBug {
    /// Returns true if this bug is switched on. Always false without the feature.
    #[inline]
    pub fn is(self, bug: Planted) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.0 == Some(bug);
        #[cfg(not(feature = "planted-bugs"))]
        {
            let _ = bug;
            false
        }
    }
}

/// The configuration of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it.
    pub cluster: Cluster,
    /// The protocol's timers.
    pub timing: Timing,
    /// The policy when a server with a higher id is back.
    pub preempt: Preempt,
    /// Bounds of tables and windows.
    pub limits: Limits,
    /// The retention of topics.
    pub retention: Retention,
    /// The rule for claiming a name that nobody has.
    pub admission: Admission,
    /// The longest time between two snapshots, if anything is new.
    pub snapshot_every: Duration,
    /// The size of the log since the last snapshot, in bytes, at which another one is written.
    pub snapshot_bytes: u64,
    /// For the simulator only.
    pub planted: PlantedBug,
}

impl Config {
    /// The configuration that `recadod init` writes for this cluster: every setting at its default.
    pub fn default_for(cluster: Cluster) -> Config {
        Config {
            cluster,
            timing: Timing::DEFAULT,
            preempt: Preempt::Graceful,
            limits: Limits::default(),
            retention: Retention::default(),
            admission: Admission::default(),
            snapshot_every: Duration::from_secs(60),
            snapshot_bytes: 64 * 1024 * 1024,
            planted: PlantedBug::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_that_would_suspect_at_one_lost_heartbeat_are_refused() {
        let ms = Duration::from_millis;
        let timing = Timing { suspect_max: ms(119), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMax));
        let timing = Timing { suspect_min: ms(79), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMin));
        let timing = Timing { suspect_min: ms(601), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMin));
        let timing = Timing { heartbeat: ms(0), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::Heartbeat));
        let timing = Timing { coordinator: ms(40), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::Coordinator));
    }
}
