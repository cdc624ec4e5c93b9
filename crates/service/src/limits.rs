//! Bounds of the service's tables, of the delivery's, and of rates.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

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
    /// of them loses one, an idle one first (`delivery`).
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
