//! The faults of a run, drawn from its seed before it starts.
//!
//! A seed belongs to a [`Theme`]: a kind of fault, in the order in which it does most harm. Independent
//! random faults would rarely isolate one backup, damage the other and then kill the primary.

use recado::config::{Planted, PlantedBug};
use recado_proto::id::{Admission, NodeId};

use crate::disk::{Damage, Extent};
use crate::network::{FaultMix, Micros};
use crate::rng::Rng;
use crate::server::{Death, Trigger};
use crate::storage::Room;
use crate::swarm::Swarm;

/// One millisecond.
pub const MS: Micros = 1_000;

/// A kind of fault mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// A few faults of every kind.
    Mixed,
    /// Loss, duplication, reordering and delay spikes, with few crashes.
    NetworkFaults,
    /// Primaries die one after another, at chosen effects.
    PrimaryDeaths,
    /// A lagging server with the highest id, and the death of the primary.
    LaggingHighestId,
    /// Primaries append entries to their own log only, and die; the others go on (Raft's figure 8).
    Figure8,
    /// A backup is cut off, the other is wiped, the primary dies.
    Wipe,
    /// A backup is cut off, the other's disk rots, the primary dies.
    Damage,
    /// Servers die just after a promise, and candidates compete.
    Promises,
    /// Old casts arrive again, late, while primaries die.
    LateCasts,
    /// An isolated primary keeps working, takes a snapshot, and dies.
    Snapshots,
    /// Slow and failing fsyncs, power cuts.
    Disks,
    /// Partitions in all shapes.
    Splits,
    /// Clients crash, move and return.
    Clients,
    /// SIGTERM, SIGSTOP and jumping clocks.
    Signals,
    /// A primary with a slow disk loses power and restarts at once.
    QuickRestart,
    /// Clients' files are copied, used by two processes at a time, and restored.
    Copies,
}

impl Theme {
    pub const ALL: [Theme; 16] = [
        Theme::Mixed,
        Theme::NetworkFaults,
        Theme::PrimaryDeaths,
        Theme::LaggingHighestId,
        Theme::Figure8,
        Theme::Wipe,
        Theme::Damage,
        Theme::Promises,
        Theme::LateCasts,
        Theme::Snapshots,
        Theme::Disks,
        Theme::Splits,
        Theme::Clients,
        Theme::Signals,
        Theme::QuickRestart,
        Theme::Copies,
    ];
}

/// The target of a fault. Its role is resolved when the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Server(NodeId),
    /// The active primary, if there is one.
    Primary,
    /// The next running server after the primary, in a ring of ids.
    Backup,
    /// The one after that.
    OtherBackup,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies at once.
    Crash(Target, Death),
    /// The process dies at a chosen effect.
    Arm(Target, Trigger, Death),
    /// The primary is cut off from the servers for this time, while clients still reach it. The server
    /// elected meanwhile sends no casts, and dies. The old primary returns; its casts of its next view are
    /// lost, while the entries that it appended alone arrive; then it dies, too (Raft's figure 8).
    SuppressedElection {
        lasts: Micros,
        first: Death,
        second: Death,
    },
    /// The process dies and its disk is lost; it restarts after this time.
    Wipe(Target, Micros),
    /// Stored bytes are damaged, and the process restarts on them. Everything is synced and marked first,
    /// because data synced since the last mark is the residual risk that the fault model states.
    Damage {
        who: Target,
        extent: Extent,
        rot: Damage,
        down: Micros,
    },
    /// Its directory is copied, and the copy is kept.
    CopyDirectory(Target),
    /// The process dies and restarts after this time on that copy, provided that all other servers know of a
    /// higher incarnation than the one it will have, or of the boot that had the same one. They cannot detect
    /// a copy made since the last start, as the fault model states.
    RestoreDirectory(Target, Micros),
    /// The process dies after this number of disk operations.
    DieInDisk(Target, u64),
    /// Its next write fails (EIO).
    FailWrite(Target),
    /// A range of its durable data becomes unreadable (EIO) while it runs.
    MakeUnreadable(Target, Extent),
    /// Its disk has only this room, for this time.
    FullDisk {
        who: Target,
        room: Room,
        lasts: Micros,
    },
    /// The process is paused for this time.
    Pause(Target, Micros),
    /// The server is cut off from all other servers, and from the clients if `clients_too`, for this time.
    Isolate {
        who: Target,
        clients_too: bool,
        lasts: Micros,
    },
    /// Datagrams from one server to the other are lost for this time; the other direction works.
    OneWay {
        from: Target,
        to: Target,
        lasts: Micros,
    },
    /// Servers and clients are partitioned into two halves; bit `i` is the side of the i-th host.
    Partition {
        sides: u32,
        lasts: Micros,
    },
    /// A link is slower by `extra`.
    Slow {
        from: Target,
        to: Target,
        extra: Micros,
        lasts: Micros,
    },
    /// Its fsyncs take this long.
    SlowDisk {
        who: Target,
        sync: Micros,
        lasts: Micros,
    },
    /// Its next fsync fails.
    FailDisk(Target),
    /// Its wall clock jumps by this many ms.
    Clock(Target, i64),
    /// SIGTERM.
    Stop(Target),
    /// A client crashes, or its machine loses power, and it restarts.
    ClientCrash(u8, Death),
    /// A client's address changes.
    ClientMove(u8),
    /// A client disconnects in order, and returns.
    ClientLeave(u8),
    /// An administrator releases a client's name from its keys.
    Release(u8),
    /// An administrator removes a client's profile, and one of the channels.
    RemoveProfile(u8),
    RemoveChannel(u8),
    /// An administrator makes the invitation of this number, with a number of uses, a lifetime, and possibly
    /// for one client only.
    Invite {
        number: u8,
        uses: u32,
        lasts_ms: u64,
        only: Option<u8>,
    },
    /// An administrator allows a client's key, or withdraws that.
    Allow(u8),
    Disallow(u8),
    /// A client's files are copied, and the copy is kept.
    ClientCopy(u8),
    /// A client crashes, and restarts after this time with the files of the last copy.
    ClientRestore(u8, Micros),
    /// A second process starts on a copy of a client's files: at most one in a run.
    ClientTwin(u8),
    /// For this time an attacker answers each HELLO with forged RETRYs: `before` of them before the server's
    /// answer, and one after it.
    ForgeRetry {
        before: u64,
        lasts: Micros,
    },
}

/// The parameters of a run, except the random choices on the way.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub theme: Theme,
    pub planted: PlantedBug,
    pub servers: u16,
    pub clients: u8,
    pub fault_mix: FaultMix,
    /// The range of an fsync's duration.
    pub sync: (Micros, Micros),
    /// True if the port of a dead process is refused (ECONNREFUSED).
    pub ports_refuse: bool,
    pub snapshot_every: Micros,
    /// The longest time between two requests of one client.
    pub pace: Micros,
    /// True if most clients' texts are long.
    pub long_texts: bool,
    /// True if few notifications are kept, so that slow readers have gaps.
    pub short_retention: bool,
    pub preempt: bool,
    /// The seed's parameters beside its theme.
    pub swarm: Swarm,
    /// The duration of the phase with faults.
    pub fault_phase: Micros,
    pub faults: Vec<(Micros, Fault)>,
    /// The servers whose disks may be damaged or lost in this run: a minority.
    pub damageable: Vec<NodeId>,
}

impl Plan {
    /// Three servers, no client and no faults, for tests that add their own.
    pub fn quiet() -> Plan {
        Plan {
            seed: 1,
            theme: Theme::Mixed,
            planted: PlantedBug::default(),
            servers: 3,
            clients: 0,
            fault_mix: FaultMix::CLEAR,
            sync: (MS, MS),
            ports_refuse: false,
            snapshot_every: 60_000 * MS,
            pace: 100 * MS,
            long_texts: false,
            short_retention: false,
            preempt: false,
            swarm: Swarm::calm(),
            fault_phase: 0,
            faults: Vec::new(),
            damageable: Vec::new(),
        }
    }

    /// The limit of a run in events; a large cluster sends more datagrams.
    pub fn events_max(&self) -> u64 {
        let size = u64::from(self.servers).max(3);
        10_000 * size * size / 9
    }

    /// The limit of the phase with faults in events, so that the rest is left for the liveness phase.
    pub fn safety_events_max(&self) -> u64 {
        3_800 * u64::from(self.servers).max(3) / 3
    }

    /// The plan of a seed.
    pub fn draw(seed: u64, planted: Option<Planted>) -> Plan {
        let mut rng = Rng::seeded(seed ^ 0x5eed_0000_0000_0000);
        let theme = Theme::ALL[(seed % Theme::ALL.len() as u64) as usize];
        let servers = match (theme, rng.below(10)) {
            (Theme::Figure8, 0..2) => 5,
            (Theme::Figure8, _) => 3,
            _ => Swarm::size(&mut rng),
        };
        let rough = FaultMix {
            loss: rng.below(60),
            duplication: rng.below(60),
            delay: (200, rng.range(600, 6_000)),
            spikes: (rng.below(20), 60 * MS),
        };
        let mut plan = Plan {
            seed,
            theme,
            planted: PlantedBug(planted),
            servers,
            clients: rng.range(2, 5) as u8,
            fault_mix: rough,
            sync: (200, rng.range(1, 8) * MS),
            ports_refuse: rng.permille(500),
            snapshot_every: rng.range(300, 3_000) * MS,
            pace: rng.range(80, 300) * MS,
            long_texts: false,
            short_retention: rng.permille(200),
            preempt: rng.permille(700),
            swarm: Swarm::draw(&mut rng),
            fault_phase: rng.range(4_000, 7_000) * MS,
            faults: Vec::new(),
            damageable: Vec::new(),
        };
        for _ in 0..(servers - 1) / 2 {
            let node = NodeId(rng.range(1, u64::from(servers)) as u16);
            if !plan.damageable.contains(&node) {
                plan.damageable.push(node);
            }
        }
        plan.swarm.draw_more(&mut Rng::seeded(seed ^ 0x5a4a_0000_0000_0000));
        plan.fill(&mut rng);
        // These draw from generators of their own, so that a seed without such faults keeps its other draws.
        plan.fill_disks(&mut Rng::seeded(seed ^ 0xd15c_0000_0000_0000));
        plan.fill_copies(&mut Rng::seeded(seed ^ 0xc0b1_0000_0000_0000));
        plan.fill_names(&mut Rng::seeded(seed ^ 0x4a3e_0000_0000_0000));
        plan.cut_power(&mut Rng::seeded(seed ^ 0x90e7_0000_0000_0000));
        // The attacker draws from its own generator, so that a seed's other faults do not depend on it.
        let mut rng = Rng::seeded(seed ^ 0xf026_e000_0000_0000);
        if rng.permille(200) {
            let fault = Fault::ForgeRetry { before: rng.range(1, 3), lasts: rng.range(1_000, 7_000) * MS };
            plan.faults.push((rng.below(plan.fault_phase), fault));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn fill(&mut self, rng: &mut Rng) {
        let mut at = rng.range(600, 1_200) * MS;
        while at < self.fault_phase {
            let (low, high) = self.episode(at, rng);
            at += rng.range(low, high) * MS;
        }
        if let Some(every) = self.swarm.every {
            let mut at = rng.range(0, every);
            while at < self.fault_phase {
                let fault = self.any(rng);
                self.faults.push((at, fault));
                at += rng.range(every / 4, every);
            }
        }
        self.long_texts |= self.swarm.bulky;
        if self.theme == Theme::Figure8 {
            // The entries that a cut-off primary appends are more than one cast carries.
            self.pace = rng.range(60, 150) * MS;
            self.long_texts = true;
        }
        if self.theme == Theme::NetworkFaults || self.theme == Theme::LateCasts {
            self.fault_mix.loss = rng.range(20, 150);
            self.fault_mix.duplication = rng.range(50, 300);
            self.fault_mix.spikes = (rng.range(20, 100), rng.range(50, 400) * MS);
        }
    }

    /// Adds full disks and failing reads and writes, in some seeds.
    fn fill_disks(&mut self, rng: &mut Rng) {
        let at = |plan: &Plan, rng: &mut Rng| rng.range(600 * MS, plan.fault_phase);
        if rng.permille(150) {
            for _ in 0..rng.range(1, 3) {
                let lasts = rng.range(100, 2_500) * MS;
                let room = if rng.permille(300) { Room::Nothing } else { Room::Bytes(rng.below(80_000)) };
                let who = self.target(rng);
                self.faults.push((at(self, rng), Fault::FullDisk { who, room, lasts }));
            }
        }
        if rng.permille(60) {
            let who = self.target(rng);
            self.faults.push((at(self, rng), Fault::FailWrite(who)));
        }
        if rng.permille(100)
            && let Some(fragile) = rng.pick(&self.damageable).copied()
        {
            let extent = rng.pick(&Extent::ALL).copied().unwrap_or(Extent::Block);
            self.faults.push((at(self, rng), Fault::MakeUnreadable(Target::Server(fragile), extent)));
        }
    }

    /// Restores an older copy of a directory, in some seeds, once the others have seen one or two more
    /// incarnations. After one, the copy counts up to the incarnation that they know.
    fn fill_copies(&mut self, rng: &mut Rng) {
        let Some(fragile) = self.damageable.first().copied().filter(|_| rng.permille(80)) else { return };
        let who = Target::Server(fragile);
        let mut at = rng.range(700, 1_500) * MS;
        self.faults.push((at, Fault::CopyDirectory(who)));
        for _ in 0..rng.range(1, 2) {
            at += rng.range(150, 500) * MS;
            let death = Death { power: rng.permille(500), down: rng.range(10, 80) * MS };
            self.faults.push((at, Fault::Crash(who, death)));
        }
        // The others store the incarnations that they know with a promise.
        at += rng.range(200, 400) * MS;
        let death = Death { power: false, down: rng.range(20, 300) * MS };
        self.faults.push((at, Fault::Crash(Target::Primary, death)));
        at += rng.range(400, 1_200) * MS;
        self.faults.push((at, Fault::RestoreDirectory(who, rng.range(10, 200) * MS)));
    }

    /// Adds changes of names by administrators, in some seeds.
    fn fill_names(&mut self, rng: &mut Rng) {
        let clients = u64::from(self.clients);
        let client = |rng: &mut Rng| rng.range(1, clients) as u8;
        let mut at = rng.range(300, 900) * MS;
        while self.swarm.admission != Admission::Open && at < self.fault_phase {
            let who = client(rng);
            let fault = match self.swarm.admission {
                Admission::Keys if rng.permille(250) => Fault::Disallow(who),
                Admission::Keys => Fault::Allow(who),
                _ => Fault::Invite {
                    number: who,
                    uses: rng.range(1, 2) as u32,
                    lasts_ms: if rng.permille(250) { rng.range(20, 500) } else { 60_000 },
                    only: rng.permille(300).then_some(who),
                },
            };
            self.faults.push((at, fault));
            at += rng.range(100, 1_200) * MS;
        }
        let removals = if self.swarm.removes { rng.range(1, 5) } else { 0 };
        for _ in 0..removals {
            let fault = match rng.below(10) {
                0..6 => Fault::RemoveProfile(client(rng)),
                _ => Fault::RemoveChannel(rng.below(4) as u8),
            };
            self.faults.push((rng.range(1_000 * MS, self.fault_phase), fault));
        }
    }

    /// Adds one episode of the theme at `at`. Returns the range of the time to the next, in ms.
    fn episode(&mut self, at: Micros, rng: &mut Rng) -> (u64, u64) {
        let death = Death { power: rng.permille(600), down: rng.range(20, 900) * MS };
        let quick = Death { power: true, down: rng.range(5, 60) * MS };
        let lasts = rng.range(100, 1_500) * MS;
        let soon = |rng: &mut Rng, high: u64| at + rng.below(high) * MS;
        let trigger = draw_trigger(rng);
        match self.theme {
            Theme::Mixed => {
                let fault = self.any(rng);
                self.faults.push((at, fault));
                (50, 700)
            }
            Theme::NetworkFaults => {
                if rng.permille(300) {
                    self.faults.push((at, Fault::Crash(Target::Primary, death)));
                }
                (500, 2_000)
            }
            Theme::PrimaryDeaths => {
                self.faults.push((at, Fault::Arm(Target::Primary, trigger, death)));
                if rng.permille(300) {
                    self.faults.push((soon(rng, 100), Fault::Arm(Target::Backup, draw_trigger(rng), death)));
                }
                (250, 1_000)
            }
            Theme::LaggingHighestId => {
                let bully = Target::Server(NodeId(self.servers));
                self.faults.push((at, Fault::Isolate { who: bully, clients_too: true, lasts }));
                let end = at + lasts;
                self.faults.push((end - 5 * MS + rng.below(15) * MS, Fault::Crash(Target::Primary, death)));
                (lasts / MS + 800, lasts / MS + 1_600)
            }
            Theme::Figure8 if self.faults.is_empty() || rng.permille(700) => {
                // Long enough for an election. The second primary is back when the old one has died again.
                let lasts = rng.range(400, 600) * MS;
                let first = Death { power: false, down: rng.range(400, 600) * MS };
                let second = Death { power: rng.permille(300), down: rng.range(700, 1_200) * MS };
                self.faults.push((at, Fault::SuppressedElection { lasts, first, second }));
                (1_500, 2_000)
            }
            Theme::Figure8 => {
                // The primary is cut off while clients still reach it, so its log grows alone; then it dies.
                let lasts = rng.range(30, 400) * MS;
                self.faults.push((at, Fault::Isolate { who: Target::Primary, clients_too: false, lasts }));
                let death = Death { power: false, down: rng.range(50, 600) * MS };
                self.faults.push((at + lasts - rng.below(25) * MS, Fault::Crash(Target::Primary, death)));
                let next = if rng.permille(500) { Trigger::Primary(rng.below(20) as u32) } else { trigger };
                self.faults.push((at + lasts, Fault::Arm(Target::Backup, next, death)));
                (300, 900)
            }
            Theme::Wipe | Theme::Damage => {
                let Some(fragile) = self.damageable.first().copied() else { return (1_000, 2_000) };
                let others: Vec<NodeId> =
                    (1..=self.servers).map(NodeId).filter(|id| *id != fragile).collect();
                let lag = rng.pick(&others).copied().unwrap_or(fragile);
                let lasts = rng.range(300, 1_800) * MS;
                let end = at + lasts;
                let who = Target::Server(lag);
                self.faults.push((at, Fault::Isolate { who, clients_too: true, lasts }));
                let down = rng.range(5, 80) * MS;
                let hurt = Target::Server(fragile);
                let harm = end.saturating_sub(rng.below(150) * MS);
                let fault =
                    if self.theme == Theme::Wipe { Fault::Wipe(hurt, down) } else { damage(hurt, down, rng) };
                self.faults.push((harm, fault));
                for other in others.iter().filter(|other| **other != lag) {
                    let death = Death { power: false, down: rng.range(400, 1_500) * MS };
                    let when = harm + rng.below(30) * MS;
                    self.faults.push((when, Fault::Crash(Target::Server(*other), death)));
                }
                (lasts / MS + 1_200, lasts / MS + 2_500)
            }
            Theme::Promises => {
                let death = Death { power: true, down: rng.range(2, 40) * MS };
                self.faults.push((at, Fault::Arm(Target::Backup, Trigger::PromiseSent, death)));
                if rng.permille(500) {
                    self.faults.push((at, Fault::Arm(Target::OtherBackup, Trigger::PromiseSent, death)));
                }
                let lasts = rng.range(200, 700) * MS;
                let fault = match rng.below(3) {
                    0 => Fault::Isolate { who: Target::Primary, clients_too: false, lasts },
                    1 => Fault::Pause(Target::Primary, lasts),
                    _ => Fault::Crash(Target::Primary, quick),
                };
                self.faults.push((at + MS, fault));
                (400, 1_200)
            }
            Theme::LateCasts if self.faults.is_empty() || rng.permille(500) => {
                // One backup is alone with the primary, which hears its acknowledgements so late that it
                // casts again what has arrived, and dies. Then that backup's log has to serve for both.
                let (extra, lasts) = (rng.range(30, 150) * MS, rng.range(200, 700) * MS);
                self.faults.push((at, Fault::Isolate { who: Target::OtherBackup, clients_too: true, lasts }));
                self.faults
                    .push((at, Fault::Slow { from: Target::Backup, to: Target::Primary, extra, lasts }));
                let death = Death { power: false, down: rng.range(500, 1_000) * MS };
                self.faults.push((at + lasts - rng.below(10) * MS, Fault::Crash(Target::Primary, death)));
                (lasts / MS + 800, lasts / MS + 1_200)
            }
            Theme::LateCasts => {
                let (extra, lasts) = (rng.range(20, 200) * MS, rng.range(100, 600) * MS);
                self.faults
                    .push((at, Fault::Slow { from: Target::Primary, to: Target::Backup, extra, lasts }));
                if rng.permille(600) {
                    self.faults.push((at + rng.below(800) * MS, Fault::Arm(Target::Primary, trigger, death)));
                }
                (200, 900)
            }
            Theme::Snapshots => {
                self.snapshot_every = rng.range(60, 300) * MS;
                let lasts = rng.range(100, 900) * MS;
                self.faults.push((at, Fault::Isolate { who: Target::Primary, clients_too: false, lasts }));
                self.faults.push((at + lasts - 10 * MS, Fault::Crash(Target::Primary, death)));
                (lasts / MS + 300, lasts / MS + 1_300)
            }
            Theme::Disks => {
                let who = self.target(rng);
                let fault = match rng.below(9) {
                    0 | 1 => Fault::SlowDisk { who, sync: rng.range(20, 900) * MS, lasts },
                    2 => Fault::FailDisk(who),
                    6 | 7 => Fault::DieInDisk(who, rng.below(40)),
                    8 => Fault::FailWrite(who),
                    3 => Fault::Arm(who, Trigger::BeforeSync, quick),
                    _ => Fault::Crash(who, Death { power: true, ..death }),
                };
                self.faults.push((at, fault));
                (100, 600)
            }
            Theme::Splits => {
                let fault = match rng.below(4) {
                    0 => Fault::Partition { sides: rng.next() as u32, lasts },
                    1 => Fault::Isolate { who: self.target(rng), clients_too: rng.permille(500), lasts },
                    2 => Fault::OneWay { from: self.target(rng), to: self.target(rng), lasts },
                    _ => Fault::OneWay { from: Target::Primary, to: Target::Backup, lasts },
                };
                self.faults.push((at, fault));
                (200, 1_200)
            }
            Theme::Clients => {
                let fault = self.client_fault(rng);
                self.faults.push((at, fault));
                if rng.permille(200) {
                    self.faults.push((at, Fault::Crash(Target::Primary, death)));
                }
                (40, 400)
            }
            Theme::Signals => {
                let fault = match rng.below(4) {
                    0 => Fault::Stop(Target::Primary),
                    1 => Fault::Stop(self.target(rng)),
                    2 => Fault::Pause(Target::Primary, lasts),
                    _ => Fault::Clock(self.target(rng), rng.range(0, 7_200_000) as i64 - 3_600_000),
                };
                self.faults.push((at, fault));
                (200, 1_500)
            }
            Theme::Copies => {
                let client = rng.range(1, u64::from(self.clients)) as u8;
                let fault = match rng.below(10) {
                    0..3 => Fault::ClientCopy(client),
                    3..5 => Fault::ClientRestore(client, rng.range(1, 300) * MS),
                    5..7 => Fault::ClientTwin(client),
                    7 => Fault::Crash(Target::Primary, death),
                    _ => self.client_fault(rng),
                };
                self.faults.push((at, fault));
                (40, 500)
            }
            Theme::QuickRestart => {
                let slow = rng.range(10, 120) * MS;
                let lasts = rng.range(100, 600) * MS;
                self.faults.push((at, Fault::SlowDisk { who: Target::Primary, sync: slow, lasts }));
                self.faults.push((at + lasts / 2, Fault::Arm(Target::Primary, trigger, quick)));
                (300, 900)
            }
        }
    }

    fn any(&self, rng: &mut Rng) -> Fault {
        let who = self.target(rng);
        let death = Death { power: rng.permille(500), down: rng.range(10, 1_000) * MS };
        let lasts = rng.range(50, 1_000) * MS;
        let fragile = rng.pick(&self.damageable).copied().map_or(who, Target::Server);
        match rng.pick(&self.swarm.kinds).copied().unwrap_or_default() {
            0 => Fault::Crash(who, death),
            1 | 2 => Fault::Arm(who, draw_trigger(rng), death),
            3 if !self.damageable.is_empty() => Fault::Wipe(fragile, death.down),
            4 if !self.damageable.is_empty() => damage(fragile, death.down, rng),
            3..=5 => Fault::Pause(who, lasts),
            6 => Fault::Isolate { who, clients_too: rng.permille(500), lasts },
            7 => Fault::OneWay { from: who, to: self.target(rng), lasts },
            8 => Fault::Partition { sides: rng.next() as u32, lasts },
            9 => Fault::Slow { from: who, to: self.target(rng), extra: rng.range(10, 200) * MS, lasts },
            10 => Fault::SlowDisk { who, sync: rng.range(10, 400) * MS, lasts },
            11 => Fault::FailDisk(who),
            12 => Fault::Clock(who, rng.range(0, 200_000) as i64 - 100_000),
            13 => Fault::Stop(who),
            14 if self.swarm.disowns() => Fault::Release(rng.range(1, u64::from(self.clients)) as u8),
            _ => self.client_fault(rng),
        }
    }

    /// Makes some crashes of clients power cuts of their machines.
    fn cut_power(&mut self, rng: &mut Rng) {
        for (_, fault) in &mut self.faults {
            if let Fault::ClientCrash(_, death) = fault {
                death.power = rng.permille(700);
            }
        }
    }

    fn client_fault(&self, rng: &mut Rng) -> Fault {
        let client = rng.range(1, u64::from(self.clients)) as u8;
        match rng.below(4) {
            0 | 1 => {
                // Sometimes so long that retention drops unread notifications.
                let long = rng.permille(200);
                let down = if long { rng.range(1_000, 3_000) } else { rng.range(1, 400) } * MS;
                Fault::ClientCrash(client, Death { power: false, down })
            }
            2 => Fault::ClientMove(client),
            _ => Fault::ClientLeave(client),
        }
    }

    fn target(&self, rng: &mut Rng) -> Target {
        match rng.below(6) {
            0 | 1 => Target::Primary,
            2 => Target::Backup,
            3 => Target::OtherBackup,
            _ => Target::Server(NodeId(rng.range(1, u64::from(self.servers)) as u16)),
        }
    }
}

fn damage(who: Target, down: Micros, rng: &mut Rng) -> Fault {
    let extent = rng.pick(&Extent::ALL).copied().unwrap_or(Extent::Bit);
    let rot = rng.pick(&Damage::ALL).copied().unwrap_or(Damage::Garbled);
    Fault::Damage { who, extent, rot, down }
}

fn draw_trigger(rng: &mut Rng) -> Trigger {
    match rng.below(5) {
        0 => Trigger::BeforeSync,
        1 => Trigger::PromiseSent,
        2 => Trigger::EntriesSent(rng.below(6) as u32),
        3 => Trigger::Primary(rng.below(40) as u32),
        _ => Trigger::Effects(rng.below(60) as u32),
    }
}
