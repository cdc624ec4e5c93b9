//! What each seed draws beside its theme: how large the cluster is, how tight its bounds are, what people
//! ask for, and which kinds of trouble come on top, how often.
//!
//! Not everything at once: what is switched off in one seed leaves room for the rest to go deep.

use std::time::Duration;

use recado::config::{Config, Limits, Rate};
use recado::id::Admission;

use crate::network::Micros;
use crate::rng::Rng;

/// How many kinds of trouble there are to choose from: see `Plan::any`.
pub const KINDS: u64 = 18;

/// One seed's mix.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Notifications in flight to one session; none: as shipped.
    pub window: Option<u32>,
    /// Requests of one device without an answer.
    pub outstanding: Option<u64>,
    /// What a session may ask.
    pub requests: Option<Rate>,
    /// Devices of one profile. Then three come as one profile.
    pub devices: Option<usize>,
    /// Notifications of a topic, where little is kept.
    pub kept: u64,
    /// The log grows in steps of so many bytes.
    pub segment: Option<u64>,
    /// Places in the delivery's queue, and how long what stands in it waits; none: it is never full.
    pub told: Option<(usize, Micros)>,
    /// Places in the queue of what clients ask, and how long what stands in it waits; none: it is never full.
    pub asked: Option<(usize, Micros)>,
    /// Groups of writes that may wait before the journal counts as behind.
    pub journal: usize,
    /// Datagrams that a paused server's sockets hold.
    pub backlog: usize,
    /// How far the servers' wall clocks are from the right time, in ms, in turn.
    pub skews: [i64; 3],
    /// Of a thousand things that a client asks: questions, changes to owned channels, to keys.
    pub questions: u64,
    pub rights: u64,
    pub keys: u64,
    /// Who may claim a name, and whether only half of the servers are set so.
    pub admission: Admission,
    pub half_set: bool,
    /// A name that nobody uses for so long is free again.
    pub unused: Option<Micros>,
    /// So is that of a channel that was deleted.
    pub deleted: Option<Micros>,
    /// Administrators remove profiles and channels.
    pub removes: bool,
    /// Most texts are long, so that the state is large.
    pub bulky: bool,
    /// The kinds of trouble that come, ...
    pub kinds: Vec<u64>,
    /// ... and how long there is between two of them, beside the theme's own.
    pub every: Option<Micros>,
    /// At the end the primary of the calm cluster is killed, with fsyncs of so long.
    pub coda: Option<Micros>,
}

impl Swarm {
    /// As shipped, and nothing on top.
    pub fn calm() -> Swarm {
        Swarm {
            window: None,
            outstanding: None,
            requests: None,
            devices: None,
            kept: 12,
            segment: None,
            told: None,
            asked: None,
            journal: usize::MAX,
            backlog: usize::MAX,
            skews: [0; 3],
            questions: 0,
            rights: 0,
            keys: 0,
            admission: Admission::Open,
            half_set: false,
            unused: None,
            deleted: None,
            removes: false,
            bulky: false,
            kinds: (0..KINDS).collect(),
            every: None,
            coda: None,
        }
    }

    /// A seed's own.
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
            told: rng.permille(300).then(|| (rng.range(1, 4) as usize, rng.range(100, 20_000))),
            asked: None,
            journal: if rng.permille(300) { rng.range(0, 3) as usize } else { calm.journal },
            backlog: if rng.permille(500) { rng.range(4, 64) as usize } else { calm.backlog },
            skews: if rng.permille(300) { [skew(rng), skew(rng), skew(rng)] } else { calm.skews },
            questions: if rng.permille(300) { rng.range(50, 400) } else { 0 },
            rights: if rng.permille(250) { rng.range(50, 300) } else { 0 },
            keys: if rng.permille(150) { rng.range(50, 200) } else { 0 },
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
            coda: rng.permille(120).then(|| [2_000, 10_000, 40_000][rng.below(3) as usize]),
        }
    }

    /// What came later than the rest, from numbers of its own: a seed that draws none of it is what it was
    /// before there was any.
    pub fn draw_more(&mut self, rng: &mut Rng) {
        self.asked = rng.permille(150).then(|| (rng.range(1, 6) as usize, rng.range(100, 20_000)));
        if rng.permille(60) {
            self.admission = if rng.permille(600) { Admission::Invite } else { Admission::Keys };
            self.half_set = rng.permille(200);
        }
        self.unused = rng.permille(50).then(|| rng.range(200, 800) * 1_000);
        self.removes = rng.permille(60);
        self.deleted = rng.permille(300).then(|| rng.range(200, 800) * 1_000);
    }

    /// How many servers: mostly the usual three, rarely many.
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
        limits.outstanding = self.outstanding.unwrap_or(limits.outstanding);
        limits.session_requests = self.requests.unwrap_or(limits.session_requests);
        limits.devices = self.devices.unwrap_or(limits.devices);
        limits.unused = self.unused.map_or(limits.unused, Duration::from_micros);
        limits.deleted = self.deleted.map_or(limits.deleted, Duration::from_micros);
        if self.tends_names() {
            // Who is refused asks again, much more often than a person would.
            limits.network_names.burst = 10_000 * Limits::NAME_COST;
        }
    }

    /// How long so many requests of one session take that has spent its burst: each costs one or two units,
    /// and so do keepalives meanwhile.
    pub fn time_for(&self, requests: usize) -> Micros {
        self.requests.map_or(0, |rate| 2 * requests as u64 * 1_000_000 / u64::from(rate.per_s))
    }

    /// Whether a client's device may be forgotten, or not be let in.
    pub fn disowns(&self) -> bool {
        self.devices.is_some() || self.keys > 0 || self.tends_names()
    }

    /// Whether names are given out, or taken away.
    fn tends_names(&self) -> bool {
        self.admission != Admission::Open || self.unused.is_some() || self.removes
    }
}
