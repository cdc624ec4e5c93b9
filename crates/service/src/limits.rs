//! Bounds of the service's tables, of the delivery's, and of rates.
//!
//! The documentation of a field says how to choose it, its relation to other fields, and what goes wrong if
//! it is too small or too large. `docs/OPERATING.md` ("Limits") lists them with what a client is told beyond
//! each. `config::file`, `delivery` and `server` are modules of the package `recado` (`src`).

use std::time::Duration;

use recado_proto::id::OUTSTANDING_MAX;

const MIB: u64 = 1024 * 1024;

/// The retention of a topic's notifications. The first limit reached applies.
///
/// Once a second the primary looks for topics beyond a limit and logs up to which op each loses its
/// notifications, so all servers hold the same. The servers need not agree: the values of the primary count,
/// and what it dropped does not come back under another one. A reader who had not read what was dropped is
/// told (a gap). `[retention]` of `recado.toml` sets each field, and `config::file` checks its range; how the
/// fields relate is not checked, because a limit that another one precedes has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Most notifications of a topic, 1 to 10,000,000. Choose the rate of the busiest topic times the longest
    /// absence after which a reader should still find everything. Too small: readers who were away have gaps.
    /// Too large: no harm, `bytes` or `all_bytes` applies first. Default 10,000, which notifications of up to
    /// 6 KiB reach before `bytes`.
    pub count: u64,
    /// Most bytes of a topic, each notification counted as its texts and 64 bytes; 1 MiB to 64 GiB. Choose
    /// `count` times the usual length. Too small: as with `count`. Too large: a few topics reach `all_bytes`,
    /// and then the largest lose up to half of theirs. Default 64 MiB, an eighth of `all_bytes`.
    pub bytes: u64,
    /// The greatest age of a notification in ms, by the log's time (`server/node/log_clock`); 1 to 3,650
    /// days. Choose how long a notification is of use, or may be kept. Too small: readers who were away for
    /// longer have gaps. Too large: quiet topics keep theirs for as long, the others are bounded by the other
    /// limits. Default 30 days, the time for which [`Limits::deleted`] keeps a name (DESIGN.md section 7).
    pub age_ms: u64,
    /// Most bytes of all topics' notifications together, each counted at the most that its encoding takes; 1
    /// MiB to [`Limits::STATE_BYTES`]. Beyond it the largest topics lose their oldest, up to half of each a
    /// second. Choose it by the memory of the smallest server, which holds them all, and twice while
    /// it installs a peer's snapshot. Too small: large topics lose notifications long before
    /// `age_ms`. Too large: memory runs out. Default 512 MiB; with more than 256 MiB of records
    /// [`Limits::state_bytes`] applies before it.
    pub all_bytes: u64,
}

/// The rate of a token bucket.
///
/// Each server counts for itself, in memory: the servers need not agree, and a new primary counts anew. An
/// empty bucket fills in `burst / per_s` seconds; a new network waits at most as long while the table of
/// buckets is full (`server/budget`). `config::file` refuses 0 in either field of the rates that
/// `recado.toml` has; the type does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second in the long run; at least 1, because with 0 nothing is granted once the burst is
    /// used up.
    pub per_s: u32,
    /// Tokens available at once after a pause; at least 1, because with 0 everything is granted. A cost above
    /// the burst is charged as the burst, so a burst below the cost of the dearest request makes that one
    /// cheaper.
    pub burst: u32,
}

/// Bounds of the tables of service and delivery, and of rates. Together with the sizes that are part of the
/// protocol they are listed in `docs/OPERATING.md`, which a test compares with these (`tests/it/limits.rs`).
///
/// **Agreement.** Apply reads the fields from `profiles` to `outstanding`, `sessions`, and from
/// `state_bytes` to `store_bytes_of_one`. They must be the same on every server, or equal logs give different
/// states. Nothing compares them, so they are compiled in, and a program with another value does not belong
/// beside one with the old value. The primary alone reads `session_idle`, `session_pending` and the rates of
/// names and channels; each server reads `sessions_served`, `window` and the rates of requests and handshakes
/// for itself. Those may differ, but only the rates of requests, names and channels have keys in
/// `recado.toml`.
///
/// **Both ends.** A count that is too small refuses (LimitReached, unless the field says otherwise) what
/// there is room for. One that is too large lets one profile take what all share, and costs memory on every
/// server and time in every snapshot. [`Limits::record_bytes`] bounds what all records take together; a field
/// names the weight of one, the most that it takes in a snapshot (`capacity`), and beside that only what
/// differs.
///
/// **Times** are by the log's time, which runs at most twice as fast as the real one, but may also step by up
/// to a day (`server/node/log_clock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most profiles. Choose more than the people and programs of the cluster; those that were claimed and
    /// never used count until [`Limits::unused`]. One with a key and a device weighs 5.5 KB, so a larger
    /// number needs more `record_bytes`, or fewer `outstanding`. It also bounds the buckets of
    /// `profile_requests`. Default 100,000, with half a million follows what `record_bytes` has room for.
    pub profiles: usize,
    /// Most channels. A deleted one counts while its name is taken. One weighs 0.5 KB. Too large: a list of
    /// channels passes over those that the asker may not see, which occupies the primary for as long as 860
    /// short SENDs at 9,000 of them (`server/cost`). Default 10,000.
    pub channels: usize,
    /// Most of them that one profile has made, by CHANNEL or by the first SEND. Default 100, a hundredth of
    /// `channels` (not checked), so that it takes a hundred profiles to fill the table (SECURITY.md).
    pub channels_made: usize,
    /// Most members of an owned channel; followers of an open one are not bounded. One weighs 34 bytes.
    /// Choose more than the largest team. Default 1,000.
    pub members: usize,
    /// Most channels that one profile owns, made by itself or by another owner who shares them. Default 100,
    /// as many as `channels_made`; with fewer (not checked) a profile could not own all that it may make.
    pub channels_owned: usize,
    /// Most devices of one profile, and so its sessions: one live and one pending each. For one more, the
    /// device without a live session that was seen longest ago is forgotten, with its cursor and results, of
    /// the installation that has the most, and never the last one of another installation than the one that
    /// asks, if that has one.
    /// Choose more than the programs that run as one profile, each of which is a device. Too small: those
    /// that do not run at the moment are forgotten (UnknownDevice), and one more that runs is refused. One
    /// weighs 5.2 KB. Default 16.
    pub devices: usize,
    /// Most keys of one profile, and so the number of installations that may act as it; a further code for
    /// one is refused. One weighs 32 bytes. More than `devices` (not checked) are installations that displace
    /// each other's devices. Default 16.
    pub keys: usize,
    /// The time for which an enrolment code is valid. Choose as long as a person needs to type it on the
    /// other machine. Too small: WrongCode. Too large: more time for others who saw the code; five wrong
    /// codes end it before (`keys`). Default 10 min.
    pub enrolment: Duration,
    /// Most topics that one profile follows. One weighs 53 bytes
    /// and its topic's name. Too large: a page of pending notifications,
    /// a history or the information about a profile merges them all, about 0.3 ms for 1,000, and a turn of
    /// the replica thread has 2 ms for requests and pages (`server/cost`). Default 1,000.
    pub follows: usize,
    /// The time after which a profile or a channel that was claimed and never used is removed, so that its
    /// name is free again: for a profile since one of its devices was last seen, for a channel since it was
    /// made. A profile with a session stays, so one whose client vanished stays for `session_idle` if that is
    /// longer. Too small: whoever claims a name and comes back later has lost it. Too large: names that
    /// nobody uses stay taken. Default 7 days.
    pub unused: Duration,
    /// The time for which the name of a deleted channel, and of a private one that was removed, stays taken
    /// (ChannelDeleted), so that a notification on its way to the members does not create an open channel of
    /// this name. Choose longer than a member's client may keep a notification unsent; the client itself sets
    /// no limit. Too small: such a notification becomes public. Too large: the names take places of
    /// `channels` and `channels_made`. Default 30 days.
    pub deleted: Duration,
    /// Channels that one profile may open or create at once; after that one more each
    /// [`Limits::channel_every`]. Zero lets nobody make any. Too small: who sets up many is told
    /// TooManyNames. Too large: a profile takes its `channels_made` at once. [`Limits::network_channels`]
    /// applies as well. Default 50.
    pub channels_at_once: u32,
    /// See [`Limits::channels_at_once`]. Zero is no limit. Default 6 min, so 10 an hour, as for a network.
    pub channel_every: Duration,
    /// Most open invitations; a further one is refused, after expired ones were dropped. One weighs 80 bytes.
    /// Only administrators make them. Choose more than the people invited within the time that an invitation
    /// lasts. Default 1,000.
    pub invites: usize,
    /// Most keys that administrators have allowed; a further one is refused. One weighs 32 bytes and stays
    /// allowed after it has claimed its name, until it is disallowed. So where
    /// [`Admission::Keys`](recado_proto::id::Admission) holds, choose as many as profiles are expected.
    /// Default 10,000.
    pub allowed: usize,
    /// Most changes by administrators that are remembered, so that a repeated one is not made again. For one
    /// more the oldest is forgotten, but not before [`Limits::administered_for`]: until then the new one is
    /// refused as Busy. One weighs 28 bytes, beside `record_bytes`. `administered / administered_for` is the
    /// rate at which changes are taken; too small: a script of an administrator waits. Default 4,096: 68 a
    /// second.
    pub administered: usize,
    /// The least time for which such a change is remembered. It is longer than an initiation (INITIATION) can
    /// repeat the change: a server accepts one for at most 20 s, twice `COOKIE_EPOCH_MICROS`, and the log's
    /// time runs at most twice as fast (a test of `server/handshake` compares them). As the log's time may
    /// also step, older changes are kept while there is room. Too small: a change that a network repeats late
    /// is made twice. Too large: Busy sooner. Default 60 s.
    pub administered_for: Duration,
    /// Most unanswered requests of one device, and the number of results kept: as many are done at most in a
    /// round trip and a commit. Not less than the client's bound, [`OUTSTANDING_MAX`] (not checked of another
    /// value than the default), or results are dropped for which a client waits, and it is told
    /// NumberForgotten. Too large: each result weighs 19 bytes in every device, also in an idle one. Default
    /// [`OUTSTANDING_MAX`], 256.
    pub outstanding: u64,
    /// The time after which the primary closes a session that its client has not used. A client that only
    /// keeps alive is noted in the log each quarter of it, so a silent one is closed after three quarters at
    /// the least. Too small: an absent client must open a session anew, and the log has more entries. Too
    /// large: sessions of clients that vanished hold places of `sessions`, and their devices hold those of
    /// `devices`. Default 7 days.
    pub session_idle: Duration,
    /// The time after which a session ends that its client has not used since it was opened. Choose longer
    /// than a client needs from ACCEPT_CONN to its first RESUME, a round trip, with retransmissions and a
    /// failover in between. Too small: SessionOver, and the client connects again. Too large: repeated or
    /// abandoned CONNECTs hold places of `sessions`. Default 60 s, 30 s when the log's time runs fast.
    pub session_pending: Duration,
    /// Most sessions, live and pending; their weight is part of their device's. Choose twice the devices
    /// that are there at a time. It also bounds the keys that the handlers hold and the buckets of
    /// `session_requests`. Too large: to find all live sessions for a notification, after one of them has
    /// changed, occupies the replica thread for 1.6 ms for each 10,000 (`server/cost`), which must stay
    /// below the heartbeat of the log's timers (not checked). Default 200,000, two for each of `profiles`.
    pub sessions: usize,
    /// Most sessions that a server hears and delivers to at a time; on a backup, those that keep alive. Each
    /// handler has its share. For one more, the network with the most of a handler's loses one, an idle one
    /// first (`delivery`). More than `sessions` has no effect. Too small: clients displace each other
    /// (Busy), and resume in turns. Too large: memory, a link, up to 1 MiB of queue and 1 MiB of answers for
    /// each. Default 131,072.
    pub sessions_served: usize,
    /// The largest size of the whole state in bytes, each part counted as the most that its encoding can be.
    /// Beyond it the largest topics lose their oldest notifications. At most what a snapshot may have:
    /// `capacity` checks that of [`Limits::STATE_BYTES`], the default, at compile time, and of no other
    /// value. Too small: notifications are dropped that the memory has room for. Too large: a server's memory
    /// does not hold the state twice; beyond a snapshot's limit there are no more snapshots.
    pub state_bytes: u64,
    /// The largest part of it that is neither notifications nor values; beyond it nothing new is created, and
    /// what exists goes on. It leaves room in `state_bytes` for 64 of the largest notifications at least:
    /// `capacity` checks that of `Limits::RECORD_BYTES`, the default, at compile time. Too small: new
    /// profiles, devices, follows and channels are refused. Too large: a state full of records keeps few
    /// notifications.
    pub record_bytes: u64,
    /// The part of it that the values of the store may take, each counted as its key, its bytes and 49 more;
    /// beyond it a PUT is refused. Together with `record_bytes` it leaves room in `state_bytes` for 64 of the
    /// largest notifications at least, which `capacity` checks of the defaults at compile time. Too small:
    /// programs that keep their state here are refused. Too large: a full store leaves few notifications.
    /// Default 64 MiB, 4,000 of the largest values.
    pub store_bytes: u64,
    /// The part of that which one profile may have written. Choose more than a program keeps. Too large: few
    /// profiles fill the store for all. Default 8 MiB, an eighth of `store_bytes` (not checked).
    pub store_bytes_of_one: u64,
    /// Most notifications in flight to one session: sent, and not yet taken by its application. The client's
    /// credit, 256, and the congestion window of the link (RFC 8085) bound it too, so more has no effect with
    /// this client. Too small: a session gets at most this many in each round trip. Default 256.
    pub window: u32,
    /// Most entries that a turn of the replica thread applies. Between two turns heartbeats go out and
    /// arrive. One takes 2 to 15 us, and one that takes longer counts for as many (`server/cost`), so that a
    /// turn is shorter than 5 ms, and a heartbeat has 40 ms (DESIGN.md section 6). A turn takes fewer
    /// requests than this (`server::replica_thread`), so that a primary proposes no faster than it applies.
    /// Too small: a start with a long log spends its time between turns. Too large: a server that applies a
    /// long log is believed dead. Default 256.
    pub applied_per_turn: u32,
    /// The rate of requests, queries, and pages of what is pending, of one session. Beyond it a request or a
    /// query is refused as Busy with the time to wait, a page comes later, and a keepalive gets no answer.
    /// The unit is what a short SEND takes the service, 1.7 us; what walks more costs more, a SEND to 100,000
    /// profiles 10,000, which the burst should cover (`server/cost`). Too small: a program that sends a file
    /// waits. Too large: one session takes what its profile and network may. Default 50,000 a second, which
    /// is more than a `recado send -` fed by a file reaches. A whole SEND takes the replica thread several
    /// times as long as the service alone: a server is busy with some 67,000 a second (PERFORMANCE.md).
    pub session_requests: Rate,
    /// The same for all sessions of one profile together. Choose it between the other two (not checked; the
    /// least of the three applies). Default 100,000 a second: a bound of what walks much, such as histories
    /// and fan-outs, while short SENDs are bounded by what a server can do.
    pub profile_requests: Rate,
    /// The same for all sessions of one network (an IPv4 /24, an IPv6 /56) together. Sessions whose client
    /// has not shown yet where it receives count as one network; this machine's own addresses have no limit.
    /// Too small: an office behind one address waits. Too large: one network takes the time of all, but for
    /// half of the places of what waits (`server::places`). Default 200,000 a second: a third of a second of
    /// walking in each.
    pub network_requests: Rate,
    /// The rate of handshakes that each handler of a server computes for all clients together. Beyond it
    /// initiations are dropped, and clients send them again. A handshake takes 0.34 ms of a core
    /// (PERFORMANCE.md), so this is the part of the handler's time that a flood can take from sessions. Too
    /// small: newcomers wait, many of them after an outage. Too large: a flood delays those who have
    /// sessions. Default 500 a second, 17 % of a core.
    pub handshakes: Rate,
    /// The same for one network (an IPv4 /24, an IPv6 /56), which may be one office. Less than `handshakes`
    /// (not checked), or one network takes the handshakes of all. A command needs one handshake with each
    /// server. Default 200 a second, so that a flood needs three networks to take all.
    pub network_handshakes: Rate,
    /// The rate of new names of one network, counted by the primary in seconds: a name costs
    /// [`Limits::NAME_COST`], so a rate of 10 is 10 names an hour, and a burst below that cost makes names
    /// cheaper. Beyond it TooManyNames. Choose more than an office claims at once. Too small: its people
    /// wait. Too large: one network takes the names that others want. This machine's own addresses have no
    /// limit. Default 10 an hour, 30 at once.
    pub network_names: Rate,
    /// The rate of new channels of one network, counted in the same way, with the same ends. Default 10 an
    /// hour, 100 at once: one network needs 41 days to fill `channels` (SECURITY.md).
    pub network_channels: Rate,
}

impl Limits {
    /// Three quarters of a snapshot's limit. A server that installs a peer's snapshot holds its own state and
    /// the new one for a while.
    pub const STATE_BYTES: u64 = 768 * MIB;
    /// The cost of a new name in [`Limits::network_names`], and of a new channel in its rate: the seconds of
    /// an hour.
    pub const NAME_COST: u32 = 3_600;
    /// Room for the largest number of profiles with a key and a device each (553 MB), half a million follows
    /// of profiles (43 MB), and the largest number of channels (5 MB).
    pub(crate) const RECORD_BYTES: u64 = 576 * MIB;
    /// A third of what records leave.
    pub(crate) const STORE_BYTES: u64 = 64 * MIB;
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
            outstanding: OUTSTANDING_MAX as u64,
            session_idle: Duration::from_secs(7 * 24 * 3600),
            session_pending: Duration::from_secs(60),
            sessions: 200_000,
            sessions_served: 131_072,
            state_bytes: Limits::STATE_BYTES,
            record_bytes: Limits::RECORD_BYTES,
            store_bytes: Limits::STORE_BYTES,
            store_bytes_of_one: Limits::STORE_BYTES / 8,
            window: 256,
            applied_per_turn: 256,
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
