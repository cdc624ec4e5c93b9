//! Servers that start with a very long log, over the bully engine, on virtual time that is charged for work:
//! applying it delays no heartbeat, deposes nobody and holds up no election.
//!
//! Each server has its node, a thread that feeds it turn by turn as the replica thread does, and a journal
//! that reports after an fsync. A turn takes the time of the entries that it applies; what comes meanwhile
//! waits for the next one, and what a turn sends leaves once the work before it is done.

use recado_log::bully::{self, Cause, Report};
use recado_log::journal::{Meta, Recovered, StoredSnapshot};
use recado_proto::envelope::{self, Class, Envelope};
use recado_service::State;

use super::*;
use crate::config::{Planted, PlantedBug};
use crate::server::engine::{self, BootIdentity};

/// The entries of the long log.
const LONG: u64 = 1_000_000;
/// What a turn takes without applying anything.
const TURN: Duration = Duration::from_micros(20);
/// The delay of a datagram, and of the journal's report.
const DELAY: Duration = Duration::from_micros(200);
const FSYNC: Duration = Duration::from_millis(1);
/// The interval of what clients ask a server, which it logs if it serves.
const PACE: Duration = Duration::from_millis(5);

/// Something that happens at a server.
enum Happening {
    /// Its thread gets an input.
    Input(Box<engine::Input>),
    /// Its thread has come to these effects.
    Effects(Vec<engine::Effect>),
    /// A client asks it something.
    Asked,
}

struct Server {
    node: engine::Node,
    waiting: Vec<engine::Input>,
    asked: u64,
    /// The end of the turn that was begun last.
    free_at: Moment,
}

impl Server {
    /// The time at which its next turn begins.
    fn next_turn(&self, now: Moment) -> Moment {
        let idle = self.waiting.is_empty() && self.asked == 0;
        let due = if idle { self.node.next_deadline().unwrap() } else { now };
        due.max(self.free_at)
    }
}

struct Group {
    now: Moment,
    /// The time that one applied entry takes, in ns.
    entry_ns: u64,
    servers: BTreeMap<NodeId, Server>,
    queue: BTreeMap<(Moment, u64), (NodeId, Happening)>,
    queued: u64,
    /// When each heartbeat of a primary left, by sender and receiver.
    beats: BTreeMap<(NodeId, NodeId), Vec<Moment>>,
    /// The reasons for which roles changed.
    causes: Vec<(Moment, NodeId, RoleName, Cause)>,
    /// The entries that the primary logged.
    logged: u64,
    /// The longest time that a turn has applied entries.
    longest: Duration,
}

/// The state before the log of a server.
struct Holds {
    snapshot: Option<(StoredSnapshot, Service)>,
    entries: Vec<Entry>,
    commit: Op,
}

/// The view of the long log, whose primary was server 2.
fn old_view() -> View {
    View::new(1, NodeId(2))
}

/// The payload of every entry: the smallest command.
fn command() -> std::sync::Arc<[u8]> {
    codec::encode(&Stamped { unix_ms: 1, command: Command::Cursors(Vec::new()) }).into()
}

/// A log of this many entries, of which this much is known to be committed.
fn log_of(entries: u64, commit: Op) -> Holds {
    let (view, payload) = (old_view(), command());
    let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: payload.clone() };
    Holds { snapshot: None, entries: (1..=entries).map(entry).collect(), commit }
}

/// The state that follows from the long log.
fn long_state() -> Holds {
    let mut service = Service::new(State::default(), config().limits, Default::default());
    let stamped = Stamped::decode(&command()).unwrap();
    let mut applied = Vec::new();
    (1..=LONG).for_each(|op| service.apply(Op(op), Some(&stamped), &mut applied));
    let (op, view) = (Op(LONG), old_view());
    let snapshot = Some((StoredSnapshot { op, view }, service));
    Holds { snapshot, entries: Vec::new(), commit: op }
}

impl Group {
    fn new(entry_ns: u64) -> Group {
        let (servers, queue, beats, causes) = Default::default();
        let (now, queued, logged, longest) = (Moment(1_000_000), 0, 0, Duration::ZERO);
        Group { now, entry_ns, servers, queue, queued, beats, causes, logged, longest }
    }

    /// Starts a server. Reading its log is no part of this.
    fn start(&mut self, id: u16, holds: Holds, planted: PlantedBug) {
        let mut config = Config { planted, ..config() };
        config.cluster.me = NodeId(id);
        // No snapshot, whose time is not charged.
        config.snapshot_every = Duration::from_secs(3_600);
        let members = config.cluster.members.iter().map(|member| member.id);
        let meta = Meta {
            incarnation: Incarnation(1),
            promised: if holds.commit > Op::ZERO { old_view() } else { View::ZERO },
            ..Meta::new(ClusterId(7), NodeId(id), members)
        };
        let Holds { snapshot, entries, commit } = holds;
        let (snapshot, service) = snapshot.map_or_else(|| (None, empty(&config)), |(at, of)| (Some(at), of));
        let recovered = Recovered { meta, snapshot, entries, commit, lost: None };
        let (boot_id, keys) = (handshake_config(id, 1).boot_id, handshake_config(id, 1).keys);
        let identity = BootIdentity { id: boot_id, keys, seed: id.into() };
        let mut effects = Vec::new();
        let clock = self.clock(self.now);
        let node = engine::start(config, recovered, service, identity, clock, &mut effects).unwrap();
        let server = Server { node, waiting: Vec::new(), asked: 0, free_at: self.now };
        self.servers.insert(NodeId(id), server);
        self.happen(self.now, NodeId(id), Happening::Effects(effects));
        self.happen(self.now + PACE, NodeId(id), Happening::Asked);
    }

    fn clock(&self, now: Moment) -> Clock {
        Clock { now, unix_ms: 1_800_000_000_000 + now.0 / 1_000 }
    }

    fn happen(&mut self, at: Moment, to: NodeId, what: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), (to, what));
    }

    /// The time of this many applied entries.
    fn time_of(&self, entries: u64) -> Duration {
        Duration::from_nanos(entries * self.entry_ns)
    }

    /// The longest time for which a turn may keep anything waiting.
    fn turn_max(&self) -> Duration {
        TURN + self.time_of(u64::from(Limits::default().applied_per_turn))
    }

    /// The next turn of a server, as the replica thread takes it.
    fn turn(&mut self, id: NodeId) {
        let began = self.now;
        let clock = self.clock(began);
        let server = self.servers.get_mut(&id).unwrap();
        let before = server.node.applied();
        let mut sent = Vec::new();
        for input in std::mem::take(&mut server.waiting) {
            server.node.handle(clock, input, &mut sent);
        }
        for _ in 0..std::mem::take(&mut server.asked) {
            let logs = server.node.serves();
            let ticket = logs.then(|| server.node.propose(clock, Command::Cursors(Vec::new()))).flatten();
            self.logged += u64::from(ticket.is_some());
        }
        if server.node.next_deadline().is_some_and(|due| due <= began) {
            server.node.handle(clock, Input::Deadline, &mut sent);
        }
        server.node.flush(clock, &mut sent);
        let during = server.node.applied();
        let mut told = Vec::new();
        server.node.apply(clock, &mut told);
        let after = server.node.applied();
        // What is applied before the inputs' effects are performed keeps them waiting.
        let sent_at = began + TURN + self.time_of(during.0 - before.0);
        let told_at = sent_at + self.time_of(after.0 - during.0);
        self.longest = self.longest.max(told_at.since(began));
        self.servers.get_mut(&id).unwrap().free_at = told_at;
        self.happen(sent_at, id, Happening::Effects(sent));
        self.happen(told_at, id, Happening::Effects(told));
    }

    fn perform(&mut self, id: NodeId, effects: Vec<engine::Effect>) {
        for effect in effects {
            match effect {
                Effect::Log(bully::Effect::Peer { to, bytes }) => {
                    if self.is_beat(id, to, &bytes) {
                        self.beats.entry((id, to)).or_default().push(self.now);
                    }
                    let input = Input::Log(bully::Input::Peer { datagram: bytes, behind: false });
                    self.happen(self.now + DELAY, to, Happening::Input(input.into()));
                }
                Effect::Log(bully::Effect::Journal { number, .. }) => {
                    let done = Input::Log(bully::Input::Journaled(number));
                    self.happen(self.now + FSYNC, id, Happening::Input(done.into()));
                }
                Effect::Log(bully::Effect::Report(Report::Role(change))) => {
                    self.causes.push((self.now, id, change.role, change.cause));
                }
                Effect::Log(_) | Effect::Delivery(_) | Effect::ClockAway(_) => {}
                other => panic!("{id}: {other:?}"),
            }
        }
    }

    /// Returns true if the datagram has the heartbeat of a primary.
    fn is_beat(&self, from: NodeId, to: NodeId, bytes: &[u8]) -> bool {
        if Envelope::peek(bytes).unwrap().class != Class::Peer {
            return false;
        }
        let boot_id = |id: NodeId| handshake_config(id.0, 1).boot_id;
        let mut keys = handshake_config(1, 1).keys.peer((from, boot_id(from)), (to, boot_id(to)), 0);
        let packets = envelope::open::<ToPeer>(&mut keys, bytes).unwrap().packets;
        let leads = |state| matches!(state, HeartbeatState::Opening | HeartbeatState::Active);
        packets.iter().any(|packet| matches!(packet, ToPeer::Heartbeat(beat) if leads(beat.state)))
    }

    fn step(&mut self) {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let turns = self.servers.iter().map(|(id, server)| (server.next_turn(self.now), *id));
        let (turn_at, id) = turns.min().unwrap();
        match queued.filter(|at| *at <= turn_at) {
            Some(at) => {
                self.now = at.max(self.now);
                let Some((_, (id, what))) = self.queue.pop_first() else { return };
                match what {
                    Happening::Effects(effects) => self.perform(id, effects),
                    Happening::Asked => {
                        self.servers.get_mut(&id).unwrap().asked += 1;
                        self.happen(self.now + PACE, id, Happening::Asked);
                    }
                    Happening::Input(input) => {
                        // A server that is down receives nothing.
                        if let Some(server) = self.servers.get_mut(&id) {
                            server.waiting.push(*input);
                        }
                    }
                }
            }
            None => {
                self.now = turn_at.max(self.now);
                self.turn(id);
            }
        }
    }

    fn primary(&self) -> Option<NodeId> {
        let leads = |(_, server): &(&NodeId, &Server)| server.node.role() == RoleName::Primary;
        self.servers.iter().find(leads).map(|(id, _)| *id)
    }

    /// Runs until `done`, and returns the time that it took.
    fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&Group) -> bool) -> Duration {
        let began = self.now;
        while !done(self) {
            let causes = self.causes.iter().rev().take(8).collect::<Vec<_>>();
            assert!(self.now < began + limit, "no {what} within {limit:?}; {causes:?}");
            self.step();
        }
        self.now.since(began)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn applied(&self, id: u16) -> Op {
        self.servers[&NodeId(id)].node.applied()
    }

    /// Checks that heartbeats left in time from `since` on: each within its interval and one turn.
    fn check_beats(&self, primary: NodeId, since: Moment) {
        let most = config().timing.heartbeat + self.turn_max();
        for ((_, to), beats) in self.beats.iter().filter(|((from, _), _)| *from == primary) {
            let beats = beats.iter().filter(|at| **at >= since).collect::<Vec<_>>();
            let gaps = beats.windows(2).map(|two| two[1].since(*two[0]));
            let longest = gaps.max().unwrap_or_default();
            assert!(longest <= most, "{longest:?} between two heartbeats to {to}, of {}", beats.len());
            assert!(beats.len() > 20, "{} heartbeats to {to}", beats.len());
        }
    }

    /// Checks that no role has changed since.
    fn check_calm(&self, since: Moment) {
        let changes = self.causes.iter().filter(|(at, ..)| *at > since).collect::<Vec<_>>();
        assert!(changes.is_empty(), "{changes:?}");
    }
}

/// All three restart with a log. Returns the group with its primary, and the time that
/// the election took.
fn elected(entry_ns: u64, holds: impl Fn() -> Holds, planted: PlantedBug) -> (Group, Duration) {
    let mut group = Group::new(entry_ns);
    (1..=3).for_each(|id| group.start(id, holds(), planted));
    let limit = Duration::from_secs(5) + group.time_of(LONG) * 3;
    let took = group.until("primary", limit, |group| group.primary().is_some());
    // What the last turns have come to is performed.
    group.pass(group.turn_max() * 2);
    (group, took)
}

/// All three restart with the long log, of which `commit` is known to be committed.
fn all_restart(entry_ns: u64, commit: Op, planted: PlantedBug) {
    let (_, usual) = elected(entry_ns, || log_of(1, commit.min(Op(1))), PlantedBug::default());
    let (mut group, took) = elected(entry_ns, || log_of(LONG, commit), planted);
    // A round trip of each step of an election meets a turn at either end.
    let most = usual + group.turn_max() * 16;
    assert!(took <= most, "an election took {took:?}, and {usual:?} with a short log: {:?}", group.causes);
    let (primary, began) = (group.primary().unwrap(), group.now);
    assert!(group.applied(primary.0) < Op(LONG / 4), "it leads long before it has applied all");

    let serves = |group: &Group| group.servers[&primary].node.serves();
    let all = group.time_of(LONG);
    while group.applied(primary.0) < Op(LONG) {
        assert!(!serves(&group), "it serves nobody from a state that is behind");
        let applied = group.applied(primary.0);
        assert!(group.now < began + all * 2, "{applied} applied in {:?}", group.now.since(began));
        group.step();
    }
    group.until("service", group.turn_max() * 3, serves);
    group.pass(Duration::from_secs(2));
    group.check_calm(began);
    group.check_beats(primary, began);
    assert!(group.logged > 300, "{} logged", group.logged);
    let last = group.servers[&primary].node.commit();
    assert!(last >= Op(LONG + group.logged), "{last} committed of {} logged", group.logged);
    group
        .until("the same state", Duration::from_secs(2), |group| (1..=3).all(|id| group.applied(id) >= last));
    assert!(group.longest <= group.turn_max() && group.turn_max() <= Duration::from_millis(5));
}

/// One returns with the long log, behind a primary and a backup that have applied it.
fn one_returns(entry_ns: u64, commit: Op, planted: PlantedBug) {
    let mut group = Group::new(entry_ns);
    [2, 3].into_iter().for_each(|id| group.start(id, long_state(), planted));
    group.until("primary", Duration::from_secs(5), |group| group.primary().is_some());
    let primary = group.primary().unwrap();
    group.pass(Duration::from_secs(1));
    let (began, logged) = (group.now, group.logged);
    group.start(1, log_of(LONG, commit), planted);
    group.causes.clear();
    let all = group.time_of(LONG);
    let took = group.until("state", all * 2 + Duration::from_secs(2), |group| {
        group.applied(1) >= group.servers[&primary].node.applied()
    });
    assert!(took >= all, "its time is charged");
    let served = u128::from(group.logged - logged) * PACE.as_micros();
    assert!(served >= took.as_micros() * 9 / 10, "{} logged in {took:?}", group.logged - logged);
    group.pass(Duration::from_secs(1));
    let strange = |(at, id, _, cause): &&(Moment, NodeId, RoleName, Cause)| {
        *at >= began && (*id != NodeId(1) || *cause != Cause::Started)
    };
    let changes = group.causes.iter().filter(strange).collect::<Vec<_>>();
    assert!(changes.is_empty(), "{changes:?}");
    group.check_beats(primary, began);
    assert_eq!(group.primary(), Some(primary));
}

#[test]
fn three_servers_that_restart_with_a_million_entries_elect_a_primary_while_they_apply_them() {
    for entry_ns in [5_000, 14_400] {
        all_restart(entry_ns, Op(LONG), PlantedBug::default());
    }
}

/// As after an end of all servers, before the last commits were told: the first entry of the view commits all
/// of the log at once.
#[test]
fn a_million_entries_that_are_committed_at_once_hold_up_nothing() {
    all_restart(14_400, Op::ZERO, PlantedBug::default());
}

#[test]
fn a_server_that_returns_with_a_million_entries_to_apply_disturbs_nobody() {
    for commit in [Op(LONG), Op::ZERO] {
        one_returns(14_400, commit, PlantedBug::default());
    }
}

#[test]
#[should_panic(expected = "an election took")]
fn a_server_that_applies_all_of_it_at_once_is_found_when_all_restart() {
    all_restart(5_000, Op(LONG), PlantedBug(Some(Planted::AppliesAllAtOnce)));
}

#[test]
#[should_panic(expected = "between two heartbeats")]
fn a_primary_that_applies_all_of_it_at_once_sends_no_heartbeat_meanwhile_and_is_found() {
    let planted = PlantedBug(Some(Planted::AppliesAllAtOnce));
    let (mut group, _) = elected(5_000, || log_of(LONG, Op::ZERO), planted);
    let (primary, began) = (group.primary().unwrap(), Moment(0));
    group.pass(group.time_of(LONG) + Duration::from_secs(2));
    group.check_beats(primary, began);
}
