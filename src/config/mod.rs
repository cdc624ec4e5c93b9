//! Every knob: unit, default, limits, and why.
//!
//! A [`Config`] is what one server runs with. [`Timing`] holds what the protocol's timers follow
//! (DESIGN.md section 6) and [`Limits`] what bounds every table and queue of the pure modules.
//! [`mod@file`] reads and writes them as `recado.toml`, [`secret`] the file beside it.

pub mod file;
pub mod secret;

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{Admission, ClusterId, NodeId};

const MIB: u64 = 1024 * 1024;

/// One server as all servers and clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its id and rank.
    pub id: NodeId,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where its peers reach it; by convention the client port + 1000.
    pub peer: SocketAddr,
}

/// The cluster as one server sees it: fixed by `init`, the same everywhere but for `me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Which cluster.
    pub id: ClusterId,
    /// Which member this server is.
    pub me: NodeId,
    /// All of them, this one too, ascending by id.
    pub members: Vec<Member>,
}

impl Cluster {
    /// How many servers make a majority. The one place that knows what a quorum is.
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
    /// H: between two heartbeats.
    pub heartbeat: Duration,
    /// T_s is at least this.
    pub suspect_min: Duration,
    /// T_s is at most this; at least three heartbeats.
    pub suspect_max: Duration,
    /// How long a silent higher server is waited for.
    pub bully: Duration,
    /// How long another candidate may go without progress.
    pub coordinator: Duration,
    /// How long a returning higher id is watched before the primary hands over to it.
    pub preempt_after: Duration,
}

impl Timing {
    /// For one machine or a quiet local network.
    pub const DEFAULT: Timing = Timing::ms(40, 200, 600, 40, 150);
    /// For a wired local network.
    pub const LAN: Timing = Timing::ms(25, 120, 400, 30, 100);
    /// For busy or shared machines.
    pub const NOISY: Timing = Timing::ms(60, 400, 1200, 80, 300);
    /// Between cities.
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

    /// Checks how the timers stand to each other; the presets pass at compile time.
    ///
    /// # Errors
    /// [`TimingError`]: which relation does not hold. The caller's fault; nothing changed.
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

/// Which relation between the protocol's timers does not hold. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A heartbeat needs at least a millisecond.
    #[error("the heartbeat must be at least 1 ms")]
    Heartbeat,
    /// One lost heartbeat must not be enough for a suspicion.
    #[error("suspect_max must be at least 3 heartbeats")]
    SuspectMax,
    /// The same, and the range must be one.
    #[error("suspect_min must be at least 2 heartbeats and at most suspect_max")]
    SuspectMin,
    /// A candidate must have time to be heard before it is given up.
    #[error("coordinator must be longer than bully")]
    Coordinator,
}

/// What the primary does when a server with a higher id is back and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// Hands over without a pause, as the bully rule wants.
    Graceful,
    /// Stays.
    Off,
}

/// How long a topic keeps its notifications: the first limit reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Most notifications of a topic.
    pub count: u64,
    /// Most bytes of a topic's notifications.
    pub bytes: u64,
    /// Oldest notification, in ms.
    pub age_ms: u64,
    /// Most bytes of all topics' notifications together; beyond it the largest topics lose their oldest.
    pub all_bytes: u64,
}

/// How much may be asked for: a token bucket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many a second in the long run; at least 1.
    pub per_s: u32,
    /// So many at once after a pause; at least 1.
    pub burst: u32,
}

/// Bounds of the service's and the delivery's tables, and of rates. Together with the sizes that are
/// part of the protocol they stand in `docs/OPERATING.md`, which a test holds to these. What apply decides
/// by must be the same on every server, so only the rates can be set in a server's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Profiles in all.
    pub profiles: usize,
    /// Channels in all, deleted ones too while their names are taken.
    pub channels: usize,
    /// Those of them that one profile has made: a hundredth.
    pub channels_made: usize,
    /// Members of one owned channel.
    pub members: usize,
    /// Channels one profile owns.
    pub channels_owned: usize,
    /// Devices of one profile; beyond it the oldest idle one is forgotten.
    pub devices: usize,
    /// Keys of one profile: installations that may come in as it.
    pub keys: usize,
    /// How long the code of an enrolment is good, by the log's clock.
    pub enrolment: Duration,
    /// Topics one profile follows.
    pub follows: usize,
    /// A profile or a channel that nobody has used for so long since it was claimed is removed, and its name
    /// free again. By the log's clock.
    pub unused: Duration,
    /// The name of a channel that was deleted stays taken for so long, so that a text on its way to the members
    /// opens it to nobody. By the log's clock.
    pub deleted: Duration,
    /// Channels that one profile opens or creates at once; then one more each [`Limits::channel_every`].
    pub channels_at_once: u32,
    /// See there.
    pub channel_every: Duration,
    /// Invitations that are open; a further one is refused.
    pub invites: usize,
    /// Keys that an administrator has allowed; a further one is refused.
    pub allowed: usize,
    /// What administrators asked that is remembered, so that the same said again is not done again. For one more
    /// the oldest is forgotten, but not before [`Limits::administered_for`]: else the one more is told Busy.
    pub administered: usize,
    /// Longer than a KNOCK that says it again can come, by the log's clock. One is taken for at most 20 s, twice
    /// `COOKIE_EPOCH_MICROS` (`server/door`), and that clock runs at most twice as fast (`server/node/log_clock`).
    /// It may also step, by hours: so what is older is kept as long as there is room.
    pub administered_for: Duration,
    /// Requests of one device without an answer: the window, and the results kept.
    pub outstanding: u64,
    /// A session without a datagram for so long is closed by the primary.
    pub session_idle: Duration,
    /// A session that its client has not spoken on for so long after it was opened ends.
    pub session_pending: Duration,
    /// Sessions in all, live and pending; a further one is refused.
    pub sessions: usize,
    /// Sessions that a server hears and delivers to at a time. For one more, the network that has the most
    /// of them gives one up, an idle one first ([`crate::delivery`]).
    pub sessions_served: usize,
    /// Weight of the whole state in bytes, each part as the most its encoding can be; beyond it the
    /// largest topics lose their oldest notifications. What a snapshot may have bounds it.
    pub state_bytes: u64,
    /// The part of it that is no notification; beyond it nothing new is made.
    pub record_bytes: u64,
    /// Notifications in flight to one session.
    pub window: u32,
    /// Requests and questions of one session at the primary; beyond them it is told Busy. More than a
    /// `recado send -` fed by a file reaches.
    pub session_requests: Rate,
    /// The same of all sessions of one profile together.
    pub profile_requests: Rate,
    /// The same of all sessions of one network (an IPv4 /24, an IPv6 /56) together: 200,000 units of 1.7 us are a
    /// third of the writer's time. This machine's own addresses have no limit.
    pub network_requests: Rate,
    /// Handshakes that each handler computes for everybody together; beyond them silence, and clients
    /// knock again. One costs about a quarter of a millisecond of one core (`benches/seal.rs`).
    pub handshakes: Rate,
    /// The same of one network (an IPv4 /24, an IPv6 /56), which may be one office. A command takes one
    /// from each server.
    pub network_handshakes: Rate,
    /// New names of one network, counted by the primary in seconds: a name costs [`Limits::NAME_COST`], so
    /// that a rate of 10 is 10 names an hour. This machine's own addresses have no limit.
    pub network_names: Rate,
    /// New channels of one network, counted alike.
    pub network_channels: Rate,
}

impl Limits {
    /// Three quarters of what a snapshot may have. A server that writes one holds the state, its encoding
    /// and the copy it reads back.
    pub const STATE_BYTES: u64 = 768 * MIB;
    /// What a new name takes of [`Limits::network_names`], and a new channel of its rate: an hour's seconds.
    pub const NAME_COST: u32 = 3_600;
    /// As many profiles as there may be, with a device each, and half a million follows.
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

/// The mistakes that ruin such systems, each there to be found by the simulator (DESIGN.md
/// section 8). Without the feature `planted-bugs` none can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// 1. A backup acknowledges on receipt, before its fsync.
    AckOnReceipt,
    /// 2. Entries of an older view are committed by counting.
    CommitOlderView,
    /// 3. The winner keeps its own log though a promise showed a better one.
    KeepOwnLog,
    /// 4. The promise is not durable before REPLY.
    PromiseNotDurable,
    /// 5. A restarted primary goes on in its own view.
    RestartAsPrimary,
    /// 6. Repeated requests are checked only against committed state.
    DuplicatesOnlyCommitted,
    /// 7. The cursor jumps over a hole in the stream.
    CursorJumps,
    /// 8. Apply depends on something other than the log.
    ApplyNotDeterministic,
    /// 9. A server with an empty disk votes.
    EmptyDiskVotes,
    /// 10. Corruption is read as a torn tail.
    CorruptionIsTornTail,
    /// 11. A re-sent cast cuts good entries.
    RecastCuts,
    /// 12. A snapshot holds uncommitted ops.
    SnapshotUncommitted,
    /// The mark speaks of what is written and not yet synced.
    MarkBeforeSync,
    /// The mark speaks of what is committed.
    CommitForMark,
    /// The mark stays where it was when a snapshot is installed.
    MarkNotMoved,
    /// LEARN_OK leaves before the incarnation it answers is durable.
    KnownNotDurable,
    /// A snapshot's name is not synced.
    SnapshotNameNotSynced,
    /// A log is not matched with the snapshot it follows.
    LogNotMatched,
    /// The log is pruned one op too far.
    PruneTooFar,
    /// Patience ignores how slow the disks are.
    PatienceIgnoresDisk,
    /// A candidate that is heard, and waits for a disk, is overtaken.
    OvertakesHeard,
    /// The primary stamps what it logs with its wall clock.
    LogTimeGoesBack,
    /// Sessions are not known to the door after a peer's snapshot was installed.
    SessionsUnknownAfterInstall,
    /// A snapshot holds no results of requests.
    ResultsNotInSnapshot,
    /// Retention drops notifications and does not note up to where.
    TrimForgotten,
    /// Who unfollows is still addressed.
    UnfollowKeepsFollower,
    /// A follow counts from the profile's first day.
    FollowFromBirth,
    /// A device's cursor moves to what was queued for it, not to what it acknowledged.
    CursorBeyondAcknowledged,
    /// The delivery does not heed that it missed some notifications.
    MissedUnheeded,
    /// A learner votes as soon as it knows what it has to reach.
    LearnerVotesEarly,
    /// A learner's copy counts for the commit.
    LearnerCounts,
    /// A primary serves before its first entry is committed.
    ServesBeforeViewStart,
    /// A backup takes the primary's commit for its own log, matched or not.
    CommitBeyondMatched,
    /// A backup acknowledges what is durable, matched or not.
    AckUnmatched,
    /// A primary counts its own copy before its fsync.
    OwnWriteCounts,
    /// An fsync that ends after an entry was replaced counts for what replaced it.
    StaleCompletionCounts,
    /// What was matched with one primary counts as matched with the next.
    MatchedSurvivesView,
    /// A candidate opens when the first part of what it lacks has come.
    FetchStopsShort,
    /// The results kept of a device are one too few.
    ForgetsOneResultTooMany,
    /// A primary that was deposed remembers the numbers it had logged when it leads again.
    NumbersOutliveView,
    /// A result is told for whichever request has its number.
    DigestUnchecked,
    /// What tells requests of one number apart is missing from snapshots.
    DigestsNotInSnapshot,
    /// A number whose result is not held any more is answered by silence.
    ForgottenIsSilence,
    /// What was asked before a server was heard is another request in each life of its client.
    NonceNotKept,
    /// An invitation that was used is good once more.
    InviteTwice,
    /// What an administrator asked is done again when it is said again.
    AdministersTwice,
}

/// The one runtime value that says which mistake is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlantedBug(#[cfg(feature = "planted-bugs")] pub Option<Planted>);

impl PlantedBug {
    /// Whether this mistake is to be made. Always false without the feature.
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

/// What one server runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it.
    pub cluster: Cluster,
    /// The protocol's timers.
    pub timing: Timing,
    /// Whether to hand over to a returning higher id.
    pub preempt: Preempt,
    /// Bounds of tables and windows.
    pub limits: Limits,
    /// How long topics keep notifications.
    pub retention: Retention,
    /// Who may claim a name that nobody has.
    pub admission: Admission,
    /// A snapshot at least so often, if anything is new.
    pub snapshot_every: Duration,
    /// A snapshot at the latest when the log since the last one has so many bytes.
    pub snapshot_bytes: u64,
    /// For the simulator only.
    pub planted: PlantedBug,
}

impl Config {
    /// What `recadod init` would write for this cluster: every knob at its default.
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
