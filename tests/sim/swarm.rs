//! Swarm: the parameters that each seed draws beside its theme. These are the size of the cluster, the
//! bounds, the clients' requests, and the kinds and frequency of additional faults.
//!
//! A seed never enables everything, so that those features that it enables are exercised in depth (swarm
//! testing).

use std::time::Duration;

use recado::config::{Config, Limits, Rate};
use recado_proto::id::Admission;

use crate::network::Micros;
use crate::rng::Rng;

/// The number of kinds of additional faults: see `Plan::any`.
pub const KINDS: u64 = 18;

/// The parameters of one seed.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The limit of notifications in flight to one session; `None`: the default.
    pub window: Option<u32>,
    /// The limit of unanswered requests of one device.
    pub outstanding: Option<u64>,
    /// The rate of requests of a session.
    pub requests: Option<Rate>,
    /// The limit of devices of one profile. If it is set, three clients share a profile.
    pub devices: Option<usize>,
    /// The limit of notifications of a topic, if retention is short.
    pub kept: u64,
    /// The growth of a log segment, in bytes.
    pub segment: Option<u64>,
    /// The places in the delivery's queue, and the time that an item waits there; `None`: the queue is never
    /// full.
    pub delivery_queue: Option<(usize, Micros)>,
    /// The longest turn of the delivery; `None`: each input is a turn.
    pub delivery_turn: Option<Micros>,
    /// The places in the queue of client requests, and the time that an item waits there; `None`: the queue
    /// is never full.
    pub request_queue: Option<(usize, Micros)>,
    /// The number of groups of writes that may wait before the journal counts as behind.
    pub journal: usize,
    /// The most entries that a server applies in a turn, and the time from one turn to the next while there
    /// are more.
    pub applied_per_turn: u32,
    pub turn: Micros,
    /// The most time that a server takes to read and decode a peer's snapshot, if that is long.
    pub opens: Option<Micros>,
    /// The number of datagrams that a paused server's sockets hold.
    pub backlog: usize,
    /// The errors of the servers' wall clocks in ms, assigned in turn.
    pub skews: [i64; 3],
    /// The rates of a client's queries, changes to owned channels, and changes to keys, per thousand.
    pub queries: u64,
    pub rights: u64,
    pub keys: u64,
    /// The rates of a client's retractions, and of resets of its device after a crash, per thousand.
    pub retractions: u64,
    pub resets: u64,
    /// The rate of a client's reads and writes of the store, per thousand. Its readers read the store too.
    pub values: u64,
    /// The admission policy, and true if only half of the servers have it set.
    pub admission: Admission,
    pub half_set: bool,
    /// The time after which an unused name expires.
    pub unused: Option<Micros>,
    /// The time after which the name of a deleted channel is free.
    pub deleted: Option<Micros>,
    /// True if administrators remove profiles and channels.
    pub removes: bool,
    /// True if most texts are long, so that the state is large.
    pub bulky: bool,
    /// The kinds of additional faults, ...
    pub kinds: Vec<u64>,
    /// ... and the time between two of them.
    pub every: Option<Micros>,
    /// The fsync duration of the final phase, in which the primary is killed in a cluster without faults;
    /// `None`: no such phase.
    pub final_phase_fsync: Option<Micros>,
}

impl Swarm {
    /// The defaults, without additional faults.
    pub fn calm() -> Swarm {
        Swarm {
            window: None,
            outstanding: None,
            requests: None,
            devices: None,
            kept: 12,
            segment: None,
            delivery_queue: None,
            delivery_turn: None,
            request_queue: None,
            journal: usize::MAX,
            applied_per_turn: Limits::default().applied_per_turn,
            turn: 0,
            opens: None,
            backlog: usize::MAX,
            skews: [0; 3],
            queries: 0,
            rights: 0,
            keys: 0,
            retractions: 0,
            values: 0,
            resets: 0,
            admission: Admission::Open,
            half_set: false,
            unused: None,
            deleted: None,
            removes: false,
            bulky: false,
            kinds: (0..KINDS).collect(),
            every: None,
            final_phase_fsync: None,
        }
    }

    /// Draws the parameters of a seed.
    pub fn draw(rng: &mut Rng) -> Swarm {
        let calm = Swarm::calm();
        let skew = |rng: &mut Rng| rng.range(0, 6_000) as i64 - 3_000;
        Swarm {
            window: rng.permille(250).then(|| rng.range(1, 4) as u32),
            outstanding: rng.permille(250).then(|| rng.range(2, 16)),
            requests: rng
                .permille(150)
                .then(|| Rate { per_s: rng.range(15, 40) as u32, burst: rng.range(1, 10) as u32 }),
            devices: rng.permille(120).then_some(2),
            kept: rng.range(2, 12),
            segment: rng.permille(300).then_some(4_096),
            delivery_queue: rng.permille(300).then(|| (rng.range(1, 4) as usize, rng.range(100, 20_000))),
            delivery_turn: None,
            request_queue: None,
            journal: if rng.permille(300) { rng.range(0, 3) as usize } else { calm.journal },
            applied_per_turn: calm.applied_per_turn,
            turn: calm.turn,
            opens: None,
            backlog: if rng.permille(500) { rng.range(4, 64) as usize } else { calm.backlog },
            skews: if rng.permille(300) { [skew(rng), skew(rng), skew(rng)] } else { calm.skews },
            queries: if rng.permille(300) { rng.range(50, 400) } else { 0 },
            rights: if rng.permille(250) { rng.range(50, 300) } else { 0 },
            keys: if rng.permille(150) { rng.range(50, 200) } else { 0 },
            retractions: calm.retractions,
            values: calm.values,
            resets: calm.resets,
            admission: calm.admission,
            half_set: false,
            unused: None,
            deleted: None,
            removes: false,
            bulky: rng.permille(40),
            kinds: {
                let mask = rng.next() | 1 << rng.below(KINDS);
                (0..KINDS).filter(|kind| mask >> kind & 1 == 1).collect()
            },
            every: rng.permille(250).then(|| rng.range(200, 1_500) * 1_000),
            final_phase_fsync: rng.permille(120).then(|| [2_000, 10_000, 40_000][rng.below(3) as usize]),
        }
    }

    /// Draws further parameters from a generator of their own, so that a seed without them keeps its other
    /// draws.
    pub fn draw_more(&mut self, rng: &mut Rng) {
        self.request_queue = rng.permille(150).then(|| (rng.range(1, 6) as usize, rng.range(100, 20_000)));
        if rng.permille(60) {
            self.admission = if rng.permille(600) { Admission::Invite } else { Admission::Keys };
            self.half_set = rng.permille(200);
        }
        self.unused = rng.permille(50).then(|| rng.range(200, 800) * 1_000);
        self.removes = rng.permille(60);
        self.deleted = rng.permille(300).then(|| rng.range(200, 800) * 1_000);
        if rng.permille(300) {
            (self.applied_per_turn, self.turn) = (rng.range(1, 8) as u32, rng.range(0, 2_000));
        }
        self.delivery_turn = rng.permille(300).then(|| rng.range(50, 10_000));
        self.opens = rng.permille(200).then(|| rng.range(100, 3_000) * 1_000);
        self.retractions = if rng.permille(400) { rng.range(30, 200) } else { 0 };
        self.resets = if rng.permille(200) { rng.range(100, 500) } else { 0 };
        self.values = if rng.permille(250) { rng.range(100, 500) } else { 0 };
    }

    /// Draws the number of servers: mostly three, rarely many.
    pub fn size(rng: &mut Rng) -> u16 {
        match rng.below(100) {
            0..72 => 3,
            72..84 => 5,
            84..88 => 2,
            88..92 => 4,
            92..96 => 1,
            96 => 6,
            97 => 7,
            98 => 8,
            _ => 9,
        }
    }

    /// Sets a server's bounds.
    pub fn bound(&self, config: &mut Config) {
        let limits = &mut config.limits;
        limits.window = self.window.unwrap_or(limits.window);
        limits.applied_per_turn = self.applied_per_turn;
        limits.outstanding = self.outstanding.unwrap_or(limits.outstanding);
        limits.session_requests = self.requests.unwrap_or(limits.session_requests);
        limits.devices = self.devices.unwrap_or(limits.devices);
        limits.unused = self.unused.map_or(limits.unused, Duration::from_micros);
        limits.deleted = self.deleted.map_or(limits.deleted, Duration::from_micros);
        if self.tends_names() {
            // A refused client asks again, much more often than a person would.
            limits.network_names.burst = 10_000 * Limits::NAME_COST;
        }
    }

    /// Returns the time that this number of requests takes in a session whose burst is used up: each request
    /// costs one or two units, and the keepalives meanwhile cost some too.
    pub fn time_for(&self, requests: usize) -> Micros {
        self.requests.map_or(0, |rate| 2 * requests as u64 * 1_000_000 / u64::from(rate.per_s))
    }

    /// Returns true if a client's device may be forgotten, or refused.
    pub fn disowns(&self) -> bool {
        self.devices.is_some() || self.keys > 0 || self.tends_names()
    }

    /// Returns true if names are granted, or removed.
    fn tends_names(&self) -> bool {
        self.admission != Admission::Open || self.unused.is_some() || self.removes
    }
}
