//! The world: servers, clients and network on one virtual clock, driven by one queue of events in the order
//! of (time, sequence). It uses no real clock, no threads and no unordered map.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::time::Duration;

use recado::config::Timing;
use recado::server::engine::Input;
use recado_client::machine;
use recado_log::bully;
use recado_proto::envelope::{Class, Envelope, Opened};
use recado_proto::id::{ChannelName, Name, NodeId, Op, SessionId, Topic};
use recado_proto::packet::{self, Admin, HistoryRange, Packet, RoleName, ToClient, ToServer};
use recado_proto::{DATAGRAM_BASE, codec};

use crate::client::{Client, Outcome};
use crate::coverage::{Coverage, Situation};
use crate::fault_execution::{DueFault, Undo, send_as_administrator};
use crate::faults::{MS, Plan};
use crate::history::{ClientEvent, ClientId, History};
use crate::invariants::Invariants;
use crate::network::{FaultMix, Host, Micros, Network, client_port, host_of, server_of};
use crate::nonces::Nonces;
use crate::reader::{self, Came, Reader};
use crate::replay::Replay;
use crate::retry_forger::RetryForger;
use crate::rng::Rng;
use crate::runs::from_environment;
use crate::schedule::Schedule;
use crate::server::{Alarm, Death, EPOCH_MS, Output, Server, Stale, Step};
use crate::storage::Room;
use crate::tap::{Session, Tap, open_client, open_from};
use crate::{checkers, population, tap, values};

/// The limit for the convergence after the faults have ended.
const PEACE_WITHIN: Micros = 12_000 * MS;
/// The limit in which a server on an older copy of its directory must be noticed after the faults have ended.
const NOTICED_WITHIN: Micros = 1_500 * MS;
/// The limit of Busy answers after the faults have ended, for each answered request ...
const BUSY_PER_ANSWER: u64 = 6;
/// ... and in addition, in total, because each new session begins by sending all its open requests at once.
const BUSY_MAX: u64 = 600;
/// The time within which each thread of a server that has applied it knows of a text that was taken away,
/// where what they are told waits in queues.
const KNOWN_WITHIN: Micros = 1_000 * MS;
/// The number of trace lines kept for a failure, unless `SIM_TRACE` gives another.
const TRACE_LINES: u64 = 400;

/// An event of the queue.
#[derive(Clone, Debug)]
pub enum Event {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// The host's datagram reached a closed port of the server.
    Refused {
        host: Host,
        by: NodeId,
        port: SocketAddr,
    },
    Wake(NodeId, u32),
    Alarm(NodeId, u32, Alarm),
    Start(NodeId),
    ClientWake(u8, u32),
    ClientAct(u8),
    ClientStart(u8),
    Fault(DueFault),
    Undo(Undo),
    /// A reader asks.
    ReaderAct(u8),
    /// A reader's query goes on.
    ReaderTick(u8),
    /// An administrator's request arrives once more.
    Administer(Admin),
}

/// The figures of a successful run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub events: u64,
    pub virtual_ms: u64,
    pub ops: u64,
    pub acked: usize,
    pub delivered: usize,
    /// The time from the death of the primary to the next one in the final phase, if there was one.
    pub pause: Micros,
    pub met: Coverage,
}

/// The failure of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A safety violation: something happened that must never happen.
    Safety(String),
    /// A liveness violation: something did not happen in time after all faults had ended.
    Liveness(String),
}

impl From<String> for Violation {
    fn from(why: String) -> Violation {
        Violation::Safety(why)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Violation::Safety(why) | Violation::Liveness(why)) = self;
        f.write_str(why)
    }
}

/// The state of a run.
pub struct World {
    pub plan: Plan,
    pub now: Micros,
    pub rng: Rng,
    pub network: Network,
    pub servers: BTreeMap<NodeId, Server>,
    pub clients: BTreeMap<u8, Client>,
    /// By the number of their host.
    readers: BTreeMap<u8, Reader>,
    pub history: History,
    pub invariants: Invariants,
    nonces: Nonces,
    replay: Option<Replay>,
    /// The sessions in the logs, to open their datagrams for the trace.
    sessions: BTreeMap<SessionId, Session>,
    /// The client that sent in each session, by which the log tells copies of a device's files apart.
    clients_of: BTreeMap<SessionId, ClientId>,
    tap: Tap,
    /// The lines of a transcript.
    pub lines: Vec<String>,
    pub events: u64,
    met: Coverage,
    schedule: Schedule,
    people: Vec<Name>,
    channels: Vec<ChannelName>,
    /// True once the faults have ended.
    pub healed: bool,
    healed_at: Option<Micros>,
    /// The datagrams of clients that arrived at servers, and those that servers sent them, if a test watches.
    pub watched: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// The attacker that forges RETRY, if there is one.
    pub forger: Option<RetryForger>,
    /// Texts that were taken away, each with the op and the time of the acknowledgement.
    gone: Vec<(Op, Micros, String)>,
    tracing: bool,
    trace: VecDeque<String>,
    trace_lines: u64,
}

/// Runs a seed to its end.
///
/// # Errors
/// The violation, with the last lines of the trace if `tracing`.
pub fn run(plan: Plan, tracing: bool) -> Result<Report, (Violation, Vec<String>)> {
    let mut world = World::new(plan, tracing);
    world.populate();
    match world.live() {
        Ok(report) => Ok(report),
        Err(broken) => {
            let head = |why| format!("at {} us, event {}: {why}", world.now, world.events);
            let breach = match broken {
                Violation::Safety(why) => Violation::Safety(head(why)),
                Violation::Liveness(why) => Violation::Liveness(head(why)),
            };
            Err((breach, world.trace.into()))
        }
    }
}

impl World {
    /// A world of this plan, without servers and clients.
    pub fn new(plan: Plan, tracing: bool) -> World {
        let rng = Rng::seeded(plan.seed);
        World {
            network: Network::new(plan.fault_mix),
            plan,
            now: 0,
            rng,
            servers: BTreeMap::new(),
            clients: BTreeMap::new(),
            readers: BTreeMap::new(),
            history: History::default(),
            invariants: Invariants::default(),
            nonces: Nonces::default(),
            replay: None,
            sessions: BTreeMap::new(),
            clients_of: BTreeMap::new(),
            tap: Tap::default(),
            lines: Vec::new(),
            events: 0,
            met: Coverage::default(),
            schedule: Schedule::default(),
            people: Vec::new(),
            channels: Vec::new(),
            healed: false,
            healed_at: None,
            watched: None,
            gone: Vec::new(),
            forger: None,
            tracing,
            trace: VecDeque::new(),
            trace_lines: from_environment("SIM_TRACE").unwrap_or(TRACE_LINES),
        }
    }

    fn populate(&mut self) {
        for id in (1..=self.plan.servers).map(NodeId) {
            self.add_server(population::server(&self.plan, id));
        }
        let mut rng = self.rng.fork();
        for id in 1..=self.plan.clients {
            let character = population::character(&mut rng, id, &self.plan);
            // A client that others send to or follow counts as used.
            if character.habits.away.is_none() {
                self.people.push(character.profile.clone());
            }
            // Most clients start when there is a primary, because their handshakes with another server cost
            // much.
            let early = rng.permille(300);
            let begins = if early { rng.below(700) } else { rng.range(600, 1_200) } * MS;
            self.add_client(Client::new(ClientId(id), character, rng.fork()), begins);
            self.after(begins + self.plan.pace, Event::ClientAct(id));
        }
        self.channels = population::channels();
        // Every second seed has readers, so that the others keep their pace.
        if self.plan.seed.is_multiple_of(2) {
            let servers: Vec<SocketAddr> = self.servers.keys().map(|id| client_port(*id)).collect();
            let of = |client: &Client| (client.id, client.character.profile.clone(), client.character.key);
            let of: Vec<(ClientId, Name, u8)> = self.clients.values().map(of).collect();
            let of = of.iter().take(2).map(|(id, profile, key)| (*id, profile, *key));
            self.readers =
                reader::readers(of, self.plan.swarm.values > 0, self.plan.planted, &mut rng, &servers);
            for id in self.readers.keys().copied().collect::<Vec<_>>() {
                self.after(1_000 * MS + self.plan.pace, Event::ReaderAct(id));
            }
        }
        for (at, fault) in self.plan.faults.clone() {
            self.after(at, Event::Fault(DueFault(fault)));
        }
    }

    /// Adds a server, which starts at once.
    pub fn add_server(&mut self, server: Server) {
        let id = server.id;
        self.servers.insert(id, server);
        self.after(0, Event::Start(id));
    }

    pub fn add_client(&mut self, client: Client, wait: Micros) {
        let id = client.id.0;
        self.history.clients.insert(client.id, client.facts());
        self.clients.insert(id, client);
        self.after(wait, Event::ClientStart(id));
    }

    /// Starts a second process on a copy of this client's files, if there is none yet.
    pub fn twin(&mut self, id: u8) {
        if self.clients.values().any(|client| client.visits) {
            return;
        }
        let (twin, rng) = (self.clients.len() as u8 + 1, self.rng.fork());
        let of = self.clients.get_mut(&id).and_then(|client| client.twin(ClientId(twin), rng));
        if let Some(client) = of {
            self.add_client(client, 0);
            self.after(self.plan.pace, Event::ClientAct(twin));
        }
    }

    pub fn after(&mut self, wait: Micros, event: Event) {
        self.schedule.add(self.now + wait, event);
    }

    fn live(&mut self) -> Result<Report, Violation> {
        while self.now < self.plan.fault_phase && self.events < self.plan.safety_events_max() {
            self.step()?;
        }
        self.heal();
        self.converge()?;
        let mut pause = 0;
        if let Some(sync) = self.plan.swarm.final_phase_fsync {
            pause = self.final_phase(sync)?;
            self.converge()?;
        }
        Ok(self.report(pause))
    }

    /// Runs until the cluster has converged, and checks everything that clients saw.
    ///
    /// # Errors
    /// The violation.
    pub fn converge(&mut self) -> Result<(), Violation> {
        // The drawn budget limits the rate of unanswered requests. It limits unread notifications too,
        // because each page, which may hold only one, is charged to it.
        let waiting = self.clients.values().map(Client::outstanding).max().unwrap_or(0);
        let unread =
            self.history.events.iter().filter(|(_, it)| matches!(it, ClientEvent::Acked { .. })).count();
        let more = self.plan.swarm.time_for(waiting + unread);
        let deadline = self.now + PEACE_WITHIN + more;
        let events = self.plan.events_max();
        let events_max = self.events + events + events * more / PEACE_WITHIN;
        let before = self.refused_and_answered();
        let mut look = self.now;
        let mut missing = String::from("nothing looked at");
        while self.now < deadline && self.events < events_max {
            self.step()?;
            if self.now >= look {
                look = self.now + 40 * MS;
                match self.check_converged() {
                    Ok(()) => {
                        // Datagrams in flight must not disturb the convergence.
                        self.run_for(300 * MS)?;
                        // A device may have been admitted meanwhile that was not counted before.
                        if let Err(why) = self.check_converged() {
                            missing = why;
                            continue;
                        }
                        checkers::in_the_log(&self.history)?;
                        self.read_log()?;
                        values::check(&self.history)?;
                        return self.no_storm(before);
                    }
                    Err(why) => missing = why,
                }
            }
        }
        self.read_log()?;
        checkers::nothing_wrong(&self.history)?;
        checkers::in_the_log(&self.history)?;
        values::check(&self.history)?;
        self.no_storm(before)?;
        Err(Violation::Liveness(format!("no peace: {missing}")))
    }

    /// Returns the number of Busy answers, and of requests with a result.
    fn refused_and_answered(&self) -> (u64, u64) {
        let answered = |(_, happened): &&(_, ClientEvent)| {
            matches!(happened, ClientEvent::Acked { .. } | ClientEvent::Refused { .. })
        };
        (self.met.count(Situation::Busy), self.history.events.iter().filter(answered).count() as u64)
    }

    /// Checks that clients whose budget is used up continue at its rate, and do not have each request refused
    /// each time.
    fn no_storm(&self, before: (u64, u64)) -> Result<(), Violation> {
        let (refused, answered) = self.refused_and_answered();
        let (refused, answered) = (refused - before.0, answered - before.1);
        if refused > BUSY_PER_ANSWER * answered + BUSY_MAX {
            let why = format!("clients were told Busy {refused} times, and {answered} requests answered");
            return Err(Violation::Liveness(why));
        }
        Ok(())
    }

    /// Final phase: kills the primary of a cluster without faults, and restarts it when another server leads.
    /// Returns the pause, which the timers, the disks and the network bound (P5).
    fn final_phase(&mut self, sync: Micros) -> Result<Micros, Violation> {
        let primary = |world: &World| {
            world.servers.values().find(|server| server.role() == Some(RoleName::Primary)).map(|one| one.id)
        };
        let Some(old) = primary(self).filter(|_| self.servers.len() > 2) else { return Ok(0) };
        for server in self.servers.values_mut() {
            server.speed.sync = (sync / 2, sync);
        }
        // An fsync that a slow disk has begun goes on at that disk's speed.
        let under_way = self.servers.values().map(|server| server.disk_until.saturating_sub(self.now)).max();
        let bound = pause_max(&population::TIMING, sync) + under_way.unwrap_or(0);
        let died = self.now;
        self.note(|| format!("CODA: {old} dies"));
        self.with_server(old, |server, step| server.die(step, Death { power: false, down: 2 * bound }))?;
        while primary(self).is_none() {
            if self.now > died + bound {
                let why = format!("{old} died, and after {bound} us there is no other primary");
                return Err(Violation::Liveness(why));
            }
            self.step()?;
        }
        self.met.note(Situation::PauseMeasured);
        let pause = self.now - died;
        let back = died + 2 * bound;
        while self.now <= back {
            self.step()?;
        }
        Ok(pause)
    }

    /// Reads the log up to the end of the entries that any server has applied.
    fn read_log(&mut self) -> Result<(), String> {
        let Some(server) = self.servers.values().next() else { return Ok(()) };
        let replay = self.replay.get_or_insert_with(|| Replay::new(server.config.limits, self.plan.planted));
        let read = replay.read(self.invariants.ledger(), &self.clients_of, &mut self.history);
        replay.met.drain(..).for_each(|met| self.met.note(met));
        read
    }

    fn report(&self, pause: Micros) -> Report {
        let count = |wanted: fn(&ClientEvent) -> bool| {
            self.history.events.iter().filter(|(_, happened)| wanted(happened)).count()
        };
        Report {
            events: self.events,
            virtual_ms: self.now / MS,
            ops: self.invariants.last().0,
            acked: count(|happened| matches!(happened, ClientEvent::Acked { .. })),
            delivered: count(|happened| matches!(happened, ClientEvent::Delivered { .. })),
            pause,
            met: self.met,
        }
    }

    /// Runs for this time.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn run_for(&mut self, time: Micros) -> Result<(), String> {
        let end = self.now + time;
        while self.schedule.next_at().is_some_and(|at| at <= end) {
            self.step()?;
        }
        self.now = end;
        Ok(())
    }

    /// Processes the next event.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn step(&mut self) -> Result<(), String> {
        let Some((at, event)) = self.schedule.pop() else {
            return Err("nothing is ever to happen again".into());
        };
        self.now = at;
        if let Some(until) = self.held_back(&event) {
            if !self.has_place(&event) {
                self.met.note(Situation::BacklogFull);
                return Ok(());
            }
            self.after(until - at, event);
            return Ok(());
        }
        self.events += 1;
        self.on_event(event)
    }

    /// Returns the time until which a paused server's event has to wait.
    fn held_back(&self, event: &Event) -> Option<Micros> {
        let node = match event {
            Event::Datagram { to, .. } => match host_of(*to) {
                Some(Host::Server(node)) => node,
                _ => return None,
            },
            Event::Wake(node, _) | Event::Alarm(node, ..) => *node,
            Event::Refused { host: Host::Server(node), .. } => *node,
            _ => return None,
        };
        let until = self.servers.get(&node)?.paused_until;
        (until > self.now).then_some(until)
    }

    /// Returns true if a paused server's socket buffer has room for the datagram.
    fn has_place(&mut self, event: &Event) -> bool {
        let Event::Datagram { to, .. } = event else { return true };
        let Some(server) = server_of(*to).and_then(|node| self.servers.get_mut(&node)) else { return true };
        server.backlog += 1;
        server.backlog <= self.plan.swarm.backlog
    }

    fn on_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Datagram { from, to, bytes } => self.on_datagram(from, to, bytes),
            Event::Refused { host: Host::Server(node), by, .. } => self.with_server(node, |server, step| {
                server.on_input(step, Input::Log(bully::Input::PortRefused(by)))
            }),
            Event::Refused { host: Host::Client(client), port, .. } => self
                .with_client(client, |client, now, history| {
                    client.handle(now, machine::Input::PortRefused(port), history)
                }),
            Event::Wake(node, boot) => {
                // A wake that an earlier one has replaced is ignored.
                let due =
                    |server: &Server| server.boots == boot && server.wake_at.is_some_and(|at| at <= self.now);
                if !self.servers.get(&node).is_some_and(due) {
                    return Ok(());
                }
                if let Some(server) = self.servers.get_mut(&node) {
                    server.wake_at = None;
                }
                self.with_server(node, Server::on_wake)
            }
            Event::Alarm(node, boot, alarm) => {
                if self.servers.get(&node).is_none_or(|server| server.boots != boot) {
                    return Ok(());
                }
                self.with_server(node, |server, step| server.on_alarm(step, alarm))
            }
            Event::Start(node) => self.on_start(node),
            Event::ClientWake(id, boot) => self.on_client_wake(id, boot),
            Event::ClientAct(id) => self.on_client_act(id),
            Event::ReaderAct(id) => self.on_reader_act(id),
            Event::ReaderTick(id) => self.on_reader_tick(id),
            Event::ClientStart(id) => {
                let servers = self.some_servers();
                self.with_client(id, |client, now, history| {
                    let stays = client.alive() || client.left;
                    if stays { Outcome::default() } else { client.start(now, servers, history) }
                })
            }
            Event::Fault(trouble) => {
                if self.healed {
                    return Ok(());
                }
                self.note(|| format!("TROUBLE {:?}", trouble.0));
                trouble.strike(self)
            }
            Event::Undo(undo) => undo.apply(self),
            Event::Administer(admin) => send_as_administrator(self, admin),
        }
    }

    fn on_start(&mut self, node: NodeId) -> Result<(), String> {
        if self.servers.get(&node).is_none_or(Server::alive) {
            return Ok(());
        }
        if let Some(server) = self.servers.get_mut(&node) {
            server.replace_stale();
        }
        self.with_server(node, Server::start)?;
        let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
        // It has lost the promises that it made after the copy, so the check does not apply.
        if server.stale.is_some() {
            return Ok(());
        }
        if server.role() == Some(RoleName::Learner) {
            server.must_hold_before_vote = Some(self.invariants.acked());
        }
        self.invariants.after_start(server)
    }

    fn on_client_wake(&mut self, id: u8, boot: u32) -> Result<(), String> {
        let now = self.now;
        let due = |client: &&mut Client| client.run == boot && client.wake_at.is_some_and(|at| at <= now);
        let Some(client) = self.clients.get_mut(&id).filter(due) else { return Ok(()) };
        client.wake_at = None;
        if client.next_deadline().is_none_or(|deadline| deadline > now) {
            return self.with_client(id, |_, _, _| Outcome::default());
        }
        self.with_client(id, |client, now, history| client.end_turn(now, history))
    }

    fn on_client_act(&mut self, id: u8) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        let next = self.rng.range(MS, self.plan.pace);
        self.after(next, Event::ClientAct(id));
        let (people, channels) = (self.people.clone(), self.channels.clone());
        self.with_client(id, |client, now, history| client.act(now, &people, &channels, history))
    }

    fn on_reader_act(&mut self, id: u8) -> Result<(), String> {
        let next = self.rng.range(20 * MS, 400 * MS);
        self.after(next, Event::ReaderAct(id));
        let (now, told) = (self.now, self.invariants.acked());
        // A server that was down recovers first.
        let must = self.healed_at.is_some_and(|at| now >= at + 4_000 * MS);
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.act(now, told, must, &self.history);
        }
        self.on_reader_tick(id)
    }

    fn on_reader_tick(&mut self, id: u8) -> Result<(), String> {
        let now = self.now;
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
        match reader.end(now, &mut self.history)? {
            Came::Nothing => {}
            Came::End { answered: true, .. } => self.met.note(Situation::ReadAnywhere),
            Came::End { behind: true, .. } => self.met.note(Situation::ReadBehind),
            Came::End { .. } => {}
        }
        let (from, datagrams) = (reader.address(), reader.datagrams(now));
        if !datagrams.is_empty() {
            self.after(reader::TICK, Event::ReaderTick(id));
        }
        for (to, bytes) in datagrams {
            self.nonces.sent(server_of(to), &bytes)?;
            self.dispatch(from, to, bytes);
        }
        Ok(())
    }

    fn on_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) -> Result<(), String> {
        if self.tracing {
            let line = describe(from, to, &bytes, &self.sessions, &mut self.tap);
            self.note(|| line);
        }
        match host_of(to) {
            Some(Host::Server(node)) => {
                if self.servers.get(&node).is_none_or(|server| !server.alive()) {
                    return self.refuse(from, to, node);
                }
                if to != client_port(node) {
                    return self.on_peer_datagram(node, bytes);
                }
                self.watch(from, to, &bytes);
                self.with_server(node, |server, step| server.on_client_datagram(step, from, &bytes))
            }
            Some(Host::Client(id)) if id >= reader::FIRST => {
                let now = self.now;
                let again = self.readers.get_mut(&id).is_some_and(|reader| reader.take(now, from, &bytes));
                if again { self.on_reader_tick(id) } else { Ok(()) }
            }
            Some(Host::Client(id)) => {
                if self.clients.get(&id).is_none_or(|client| client.address() != to) {
                    return Ok(());
                }
                let input = machine::Input::Datagram { from, bytes };
                self.with_client(id, |client, now, history| client.handle(now, input, history))
            }
            None => Err(format!("a datagram to nowhere: {to}")),
        }
    }

    fn on_peer_datagram(&mut self, to: NodeId, bytes: Vec<u8>) -> Result<(), String> {
        let from = Envelope::peek(&bytes).ok().and_then(|envelope| envelope.node);
        let elects = |node: &NodeId| {
            self.servers.get(node).is_some_and(|server| server.role() == Some(RoleName::Candidate))
        };
        let telling =
            from.filter(|from| self.invariants.may_reveal_promise(*from) || elects(from) || elects(&to));
        let heard = telling.and_then(|_| self.tap.open(&bytes, to));
        let behind = self.servers.get(&to).is_some_and(Server::journal_is_behind);
        if behind {
            self.met.note(Situation::JournalBehind);
        }
        let input = Input::Log(bully::Input::Peer { datagram: bytes, behind });
        self.with_server(to, |server, step| {
            if let Some(opened) = &heard {
                server.note_heard(opened, step);
            }
            server.on_input(step, input);
        })?;
        if let Some(opened) = heard {
            self.invariants.on_delivered(&opened);
        }
        Ok(())
    }

    /// A closed port reports itself, if the datagram is not lost on the way back.
    fn refuse(&mut self, from: SocketAddr, port: SocketAddr, by: NodeId) -> Result<(), String> {
        let Some(host) = host_of(from).filter(|_| self.plan.ports_refuse) else { return Ok(()) };
        if let [Some(delay), _] = self.network.carry(&mut self.rng, Host::Server(by), host) {
            self.after(delay, Event::Refused { host, by, port });
        }
        Ok(())
    }

    /// Lets a server take a step, and processes its outputs.
    pub fn with_server(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Server, &mut Step),
    ) -> Result<(), String> {
        let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
        let mut step = Step { now: self.now, rng: &mut self.rng, out: Vec::new() };
        act(server, &mut step);
        let out = step.out;
        let boot = server.boots;
        for output in out {
            match output {
                Output::Datagram { from, to, bytes } => {
                    self.nonces.sent(server_of(to), &bytes)?;
                    self.sends_nothing_gone(node, &bytes)?;
                    self.dispatch(from, to, bytes);
                }
                Output::Met(met) => self.met.note(met),
                Output::StaleIncarnation(whose) => {
                    let whose = self.servers.get_mut(&whose).and_then(|server| server.stale.as_mut());
                    if let Some(stale) = whose.filter(|stale| **stale == Stale::Unnoticed) {
                        *stale = Stale::Noticed;
                        self.met.note(Situation::PutBackNoticed);
                    }
                }
                Output::Session(session) => drop(self.sessions.insert(session.id, session)),
                Output::Later(wait, alarm) => self.after(wait, Event::Alarm(node, boot, alarm)),
                Output::Line(line) => {
                    self.note(|| line.clone());
                    self.lines.push(line);
                }
                Output::Died(down) => self.after(down, Event::Start(node)),
                Output::Violation(why) => return Err(why),
            }
        }
        let Some(server) = self.servers.get_mut(&node) else { return Ok(()) };
        if let Some(deadline) = server.next_deadline() {
            // A deadline in the past is handled after 20 us, because no server reacts faster.
            let at = deadline.max(self.now + 20);
            if server.wake_at.is_none_or(|wake_at| at < wake_at) {
                server.wake_at = Some(at);
                self.after(at - self.now, Event::Wake(node, boot));
            }
        }
        let quorum = self.servers.len() / 2 + 1;
        if let Some(process) = self.servers.get(&node).and_then(|server| server.process.as_ref()) {
            let commit = process.node.commit();
            if let Some(entry) = process.log.get(&commit) {
                self.invariants.committed((commit, entry.view), quorum, self.servers.values())?;
            }
        }
        match self.servers.get_mut(&node) {
            Some(server) => {
                let held = self.invariants.after_step(server, right_ms(self.now));
                server.dead = None;
                if server.repaired().is_some() {
                    self.met.note(Situation::Repaired);
                }
                held
            }
            None => Ok(()),
        }
    }

    /// Lets a client take a step, and processes its outputs.
    pub fn with_client(
        &mut self,
        id: u8,
        act: impl FnOnce(&mut Client, Micros, &mut History) -> Outcome,
    ) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        let outcome = act(client, self.now, &mut self.history);
        let from = client.address();
        let (device, taken) = client.has_taken();
        self.invariants.cursors.taken(device, taken);
        if outcome.ended {
            client.crash(&mut self.history);
            client.ended += 1;
            // Two processes on the same files end each other's sessions. The wait gives each time to make
            // progress, for example to ask the servers about each number that may be the other's. It grows,
            // because a session that is ended while it asks begins to ask anew.
            let (copied, left, patience) = (client.copied, client.left, client.patience());
            let grown = 1 + u64::from(client.ended / 4);
            let others = self.clients.values().filter(|client| client.copied).map(Client::outstanding);
            let time = self.plan.swarm.time_for(others.max().unwrap_or(0));
            let wait = if copied { grown * self.rng.range(50, 500) * MS + time } else { patience };
            if !left {
                self.after(wait, Event::ClientStart(id));
            }
        }
        outcome.met.into_iter().for_each(|met| self.met.note(met));
        for line in outcome.lines {
            self.note(|| line.clone());
            self.lines.push(line);
        }
        for (to, bytes) in outcome.datagrams {
            self.nonces.sent(server_of(to), &bytes)?;
            if let Ok(Envelope { class: Class::Client, session, .. }) = Envelope::peek(&bytes) {
                self.clients_of.insert(session, ClientId(id));
            }
            self.dispatch(from, to, bytes);
        }
        for taken in outcome.taken_away {
            self.read_log()?;
            let now = self.now;
            let by = self.invariants.last();
            if let Some(replay) = &self.replay {
                self.gone.extend(replay.gone(&taken).into_iter().map(|text| (by, now, text)));
            }
        }
        for (ask, op) in outcome.acked {
            let quorum = self.servers.len() / 2 + 1;
            self.invariants
                .acknowledged(op, quorum, self.servers.values())
                .map_err(|why| format!("client {id}, request {}: {why}", ask.0))?;
        }
        if let Some(client) = self.clients.get_mut(&id)
            && let Some(deadline) = client.next_deadline()
        {
            let at = deadline.max(self.now + 20);
            if client.wake_at.is_none_or(|wake_at| at < wake_at) {
                client.wake_at = Some(at);
                let boot = client.run;
                self.after(at - self.now, Event::ClientWake(id, boot));
            }
        }
        outcome.broken.map_or(Ok(()), Err)
    }

    /// Checks that a server that has applied it sends no text that was taken away long enough ago for each of
    /// its threads to know.
    fn sends_nothing_gone(&self, node: NodeId, bytes: &[u8]) -> Result<(), String> {
        let Some(server) = self.servers.get(&node) else { return Ok(()) };
        let applied = server.process.as_ref().map_or(Op::ZERO, |process| process.node.applied());
        let within = if server.bounds.delivery_queue.is_some() { KNOWN_WITHIN } else { 0 };
        let known = |(by, at, _): &&(Op, Micros, String)| *by <= applied && *at + within < self.now;
        let mut gone = self.gone.iter().filter(known).peekable();
        if gone.peek().is_none() {
            return Ok(());
        }
        let Ok(envelope) = Envelope::peek(bytes) else { return Ok(()) };
        let session = self.sessions.get(&envelope.session).filter(|_| envelope.class == Class::Client);
        let Some(session) = session else { return Ok(()) };
        let boot_id = tap::boot_id(node, envelope.incarnation);
        let Some(opened) = open_from::<ToClient>(bytes, node, boot_id, session) else { return Ok(()) };
        let sent = codec::encode(&opened.packets);
        let has = |text: &str| sent.windows(text.len()).any(|part| part == text.as_bytes());
        // Of a long text the first piece says enough.
        let start = |text: &str| text.len().min(24);
        match gone.find(|(.., text)| has(&text[..start(text)])) {
            Some((by, _, text)) => {
                let text = &text[..start(text)];
                Err(format!("{node} sends {text:?}, which was taken away by op {by} at the latest"))
            }
            None => Ok(()),
        }
    }

    fn watch(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(watched) = &mut self.watched {
            watched.push((from, to, bytes.to_vec()));
        }
    }

    /// The session in which a client has sent last.
    pub fn session_of(&self, client: ClientId) -> Option<Session> {
        let of = |(session, of): (&SessionId, &ClientId)| (*of == client).then_some(*session);
        self.sessions.get(&self.clients_of.iter().filter_map(of).max()?).copied()
    }

    /// Opens a datagram between a client and a server.
    pub fn open<P: Packet>(&self, server: NodeId, bytes: &[u8]) -> Option<(SessionId, Vec<P>)> {
        let session = self.sessions.get(&Envelope::peek(bytes).ok()?.session)?;
        let opened = open_client(bytes, server, session)?;
        Some((session.id, opened.packets))
    }

    fn dispatch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let (Some(source), Some(goal)) = (host_of(from), host_of(to)) else { return };
        if let Host::Client(_) = goal {
            self.watch(from, to, &bytes);
        }
        if let (Host::Client(_), Host::Server(node), Some(forger)) = (source, goal, self.forger) {
            for (delay, lie) in forger.answers(self.now, &mut self.rng, node, &bytes) {
                self.met.note(Situation::Forged);
                self.after(delay, Event::Datagram { from: to, to: from, bytes: lie });
            }
        }
        let between_servers = matches!((source, goal), (Host::Server(_), Host::Server(_)));
        if bytes.len() > self.network.carries(self.now, source, goal) {
            let met = if between_servers { Situation::PeerTooLong } else { Situation::TooLong };
            return self.met.note(met);
        }
        if bytes.len() > DATAGRAM_BASE {
            let met = if between_servers { Situation::PeerLonger } else { Situation::Longer };
            self.met.note(met);
        }
        let [first, second] = self.network.carry(&mut self.rng, source, goal);
        if let Some(delay) = second {
            self.after(delay, Event::Datagram { from, to, bytes: bytes.clone() });
        }
        if let Some(delay) = first {
            self.after(delay, Event::Datagram { from, to, bytes });
        }
    }

    fn some_servers(&mut self) -> Vec<SocketAddr> {
        let all: Vec<SocketAddr> = self.servers.keys().map(|id| client_port(*id)).collect();
        if self.rng.permille(500) { all } else { self.rng.pick(&all).copied().into_iter().collect() }
    }

    /// Ends the faults: the network is clean, disks are fast, and every server and client that is down
    /// starts.
    pub fn heal(&mut self) {
        self.note(|| "HEALED".into());
        self.healed = true;
        self.healed_at.get_or_insert(self.now);
        self.network.heal(self.now);
        self.network.fault_mix = FaultMix::CLEAR;
        self.forger = None;
        let mut wait = 0;
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            if let Some(server) = self.servers.get_mut(&id) {
                server.armed_death = None;
                server.suppression = None;
                server.paused_until = 0;
                server.bounds.request_queue = server.bounds.request_queue.map(|(places, _)| (places, MS));
                server.speed.sync = (200, 2 * MS);
                server.opens.1 = server.opens.1.min(30 * MS);
                server.storage.fail_syncs(0);
                server.storage.fail_writes(0);
                server.storage.die_after(None);
                server.storage.make_room(Room::Ample);
                if server.stale.is_some() {
                    let undo = Event::Undo(Undo::PutBack(id));
                    self.schedule.add(self.now + NOTICED_WITHIN, undo);
                }
                if server.alive() {
                    continue;
                }
            }
            wait += 10 * MS;
            self.after(wait, Event::Start(id));
        }
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            if let Some(client) = self.clients.get_mut(&id) {
                client.character.takes_late = false;
                client.leaves |= client.visits;
            }
            self.after(20 * MS, Event::ClientStart(id));
        }
    }

    /// Records the ops up to which retention dropped notifications, as the servers report them.
    fn read_retention(&mut self) {
        let gaps =
            self.history.events.iter().any(|(_, happened)| matches!(happened, ClientEvent::Gap { .. }));
        let topics: BTreeSet<Topic> = self
            .history
            .events
            .iter()
            .filter(|_| gaps)
            .filter_map(|(_, happened)| match happened {
                ClientEvent::Sent { topic, .. } => Some(topic.clone()),
                _ => None,
            })
            .collect();
        for topic in topics {
            // Only its owner may read an inbox, and only members a private channel.
            let askers = match &topic {
                Topic::Inbox(owner) | Topic::Feed(owner) => vec![owner.clone()],
                Topic::Channel(_) => self.people.clone(),
            };
            let range = HistoryRange::Before(Op(u64::MAX));
            let query = recado_proto::packet::History { topic: Some(topic.clone()), range, limit: 1 };
            let services = self.servers.values().filter_map(|server| server.process.as_ref());
            let answers = services.filter_map(|process| {
                let service = process.node.service();
                askers
                    .iter()
                    .find_map(|asker| service.history(asker, &query, packet::History::BYTES_MAX).ok())
            });
            let upto = answers.map(|answer| answer.trimmed_upto).max().unwrap_or_default();
            let known = self.history.trimmed.entry(topic).or_default();
            *known = upto.max(*known);
        }
    }

    /// Checks for convergence: one primary, every server up to date with it, every client connected with no
    /// request open.
    fn check_converged(&mut self) -> Result<(), String> {
        let primaries =
            self.servers.values().filter(|server| server.role() == Some(RoleName::Primary)).count();
        let roles: Vec<_> = self.servers.values().map(|server| (server.id.0, server.role())).collect();
        let odd = |role: &Option<RoleName>| !matches!(role, Some(RoleName::Primary | RoleName::Backup));
        if primaries != 1 || roles.iter().any(|(_, role)| odd(role)) {
            return Err(format!("roles are {roles:?}"));
        }
        let last = self.invariants.last();
        let applied =
            |server: &Server| server.process.as_ref().map_or(Op::ZERO, |process| process.node.applied());
        if let Some(behind) = self.servers.values().find(|server| applied(server).0 + 2 < last.0) {
            return Err(format!("{} has applied {} of {last}", behind.id, applied(behind)));
        }
        if let Some(client) = self.clients.values().find(|client| !client.content()) {
            return Err(format!(
                "client {} is {}, {} requests unanswered",
                client.id.0,
                if client.alive() { "up" } else { "down" },
                client.outstanding()
            ));
        }
        let state = self.servers.values().find(|server| server.role() == Some(RoleName::Primary));
        let state = state.and_then(|server| server.process.as_ref()).map(|process| process.node.service());
        let knows = |client: &Client| {
            state.is_none_or(|state| state.sessions().any(|(_, device, ..)| device == client.has_taken().0))
        };
        if let Some(client) = self.clients.values().find(|one| one.is_connected() && !knows(one)) {
            return Err(format!("client {} is let in, and the servers know no session of it", client.id.0));
        }
        self.read_log()?;
        checkers::all_answered(&self.history)?;
        self.read_retention();
        checkers::check(&self.history)
    }

    /// The directory of a server was restored from a copy. Its next boot has an incarnation that it had
    /// before, by which the check of nonces tells boots apart.
    pub fn set_back(&mut self, server: NodeId) {
        self.nonces = Nonces::default();
        self.invariants.set_back(server);
    }

    /// Adds a line to the trace, if one is kept.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if !self.tracing {
            return;
        }
        if self.trace.len() as u64 >= self.trace_lines {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>10} {}", self.now, line()));
    }
}

/// Returns the correct wall-clock time, in ms since 1970.
fn right_ms(now: Micros) -> u64 {
    EPOCH_MS + now / 1000
}

/// Returns the bound of the pause after the primary's death in a cluster without faults: the silence is
/// detected, and the candidates collide once. The promise and the first entry of the view are written, after
/// the jobs that wait in the journal. That is at most eight fsyncs, and four more if the journal has begun a
/// snapshot (DESIGN.md section 6).
fn pause_max(timing: &Timing, sync: Micros) -> Micros {
    let micros = |time: Duration| time.as_micros() as Micros;
    let election = micros(timing.bully) + 3 * micros(timing.heartbeat) + micros(timing.coordinator);
    micros(timing.suspect_max) + 2 * election + (8 + 4) * sync
}

/// Describes an opened datagram.
fn shown<P: Debug>(opened: &Opened<P>) -> String {
    let packets = opened.packets.iter().map(|packet| format!("{packet:?}").chars().take(160).collect());
    format!("#{} {}", opened.envelope.number, packets.collect::<Vec<String>>().join(" + "))
}

/// Describes a datagram for the trace.
fn describe(
    from: SocketAddr,
    to: SocketAddr,
    bytes: &[u8],
    sessions: &BTreeMap<SessionId, Session>,
    tap: &mut Tap,
) -> String {
    let server = [from, to].into_iter().find_map(|end| match host_of(end) {
        Some(Host::Server(node)) => Some(node),
        _ => None,
    });
    let opened = match (host_of(to), Envelope::peek(bytes)) {
        (Some(Host::Server(node)), Ok(envelope)) if envelope.node.is_some() => {
            tap.open(bytes, node).map(|opened| shown(&opened))
        }
        (_, Ok(envelope)) => sessions.get(&envelope.session).and_then(|session| {
            let server = server.unwrap_or(NodeId(0));
            match envelope.node {
                Some(_) => open_client::<ToClient>(bytes, server, session).map(|opened| shown(&opened)),
                None => open_client::<ToServer>(bytes, server, session).map(|opened| shown(&opened)),
            }
        }),
        (_, Err(_)) => None,
    };
    let what = match (opened, Envelope::peek(bytes)) {
        (Some(opened), _) => opened,
        (None, Ok(envelope)) => format!("#{} {:?}, {} bytes", envelope.number, envelope.class, bytes.len()),
        (None, Err(error)) => error.to_string(),
    };
    let name = |address| match host_of(address) {
        Some(Host::Server(node)) => format!("s{}", node.0),
        Some(Host::Client(client)) => format!("c{client}"),
        None => String::from("?"),
    };
    format!("{}->{} {what}", name(from), name(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::history::{LogAction, LoggedAction};

    /// A world with three servers and no faults, after two seconds.
    fn calm() -> World {
        let mut world = World::new(Plan::quiet(), false);
        world.populate();
        world.run_for(2_000 * MS).unwrap();
        world
    }

    #[test]
    fn a_pause_beyond_its_bound_is_found() {
        let sync = 10 * MS;
        let pause = calm().final_phase(sync).unwrap();
        assert!(pause > 0 && pause <= pause_max(&population::TIMING, sync), "{pause}");

        let mut world = calm();
        let servers: Vec<Host> = world.servers.keys().copied().map(Host::Server).collect();
        for one in &servers {
            servers.iter().filter(|other| *other != one).for_each(|other| world.network.cut(*one, *other));
        }
        // The links are cut, so that no server is elected.
        let found = world.final_phase(sync);
        assert!(
            matches!(&found, Err(Violation::Liveness(why)) if why.contains("no other primary")),
            "{found:?}"
        );
    }

    #[test]
    fn the_log_names_the_client_of_each_request() {
        let mut world = World::new(Plan { clients: 3, ..Plan::quiet() }, false);
        world.populate();
        world.run_for(4_000 * MS).unwrap();
        world.read_log().unwrap();
        // A text begins with the client that asked for it, and no files are copied.
        let told = |done: &LogAction| match (&done.deed, done.client) {
            (LoggedAction::Sent { text, .. }, Some(client)) => text.starts_with(&format!("c{}-", client.0)),
            (_, client) => client.is_some(),
        };
        let log = world.history.log.unwrap();
        assert!(log.len() > 10 && log.iter().all(told), "{log:?}");
    }

    #[test]
    fn the_bound_grows_by_the_disks_and_not_beyond() {
        let bound = |sync| pause_max(&population::TIMING, sync);
        assert_eq!(bound(2_000 * MS) - bound(0), 12 * 2_000 * MS, "a snapshot in the way");
        assert!(bound(0) < 2_000 * MS, "{}", bound(0));
    }

    #[test]
    fn a_cluster_that_is_not_at_peace_is_found() {
        let mut world = calm();
        assert_eq!(world.check_converged(), Ok(()));
        world
            .with_server(NodeId(1), |server, step| server.die(step, Death { power: false, down: 1 }))
            .unwrap();
        assert!(world.check_converged().unwrap_err().contains("roles are"));
    }
}
