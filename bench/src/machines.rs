//! Many client machines of recado in one thread, with a socket each. Nothing is written to a disk: a machine
//! is the protocol alone, as `recado-client` drives it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use recado_client::machine::handshake::Identity;
use recado_client::machine::{Effect, Event, Input, Machine, Request, Start};
use recado_client::{ClusterIdentity, Content, DeviceId, DeviceKey, Name, Op, Seq, Topic};
use recado_proto::entropy::Entropy;
use recado_proto::id::Moment;
use recado_proto::noise;
use recado_proto::packet::FollowChange;
use recado_proto::planted::PlantedBug;
use recado_proto::seal::{Ciphers, Key};
use recado_sys::clock::MachineClock;
use recado_sys::cpu;
use recado_sys::net::{BoundSocket, Inbox};
use recado_sys::random;

use crate::broker::{Broker, Number, Observed, Poll};
use crate::failure::Failure;
use crate::interrupt;
use crate::progress;

/// Slots of the one inbox.
const BATCH: usize = 8;
/// Machines that connect at the same time, unless that is what is measured.
pub(crate) const CONNECTING_MAX: usize = 64;
/// The machines of one loopback network (a /24). A server limits what one network may ask of it.
const NETWORK: usize = 100;
/// Follows under way at a time.
const FOLLOWING_MAX: usize = 256;
/// The longest wait for a further machine to connect, and for all to disconnect.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest wait for one socket or deadline.
const IDLE: Duration = Duration::from_millis(100);

/// A participant of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends to the topic.
    Sender(u16),
    /// Follows the topic from here on.
    Follower(usize),
    /// Followed the topic before, and reads what has come since.
    Returning(usize),
    /// Follows the topic, and reads nothing from then on.
    Stuck,
    /// Connects and does nothing else.
    Guest,
    /// Connects to receive, and follows what it is told to.
    Listener,
}

impl Role {
    fn follower(self) -> Option<usize> {
        match self {
            Role::Follower(follower) | Role::Returning(follower) => Some(follower),
            Role::Sender(_) | Role::Stuck | Role::Guest | Role::Listener => None,
        }
    }

    fn receives(self) -> bool {
        self.follower().is_some() || matches!(self, Role::Stuck | Role::Listener)
    }

    /// What a machine asks as soon as it is connected. A channel exists from its first message on.
    fn first_request(self, topic: &Topic) -> Option<Request> {
        let topic = topic.clone();
        match self {
            Role::Sender(_) => {
                Some(Request::Send { topic: Some(topic), content: Content::of("opens the channel") })
            }
            Role::Follower(_) | Role::Stuck => Some(Request::Follow { topic, change: FollowChange::Add }),
            Role::Returning(_) | Role::Guest | Role::Listener => None,
        }
    }
}

/// A request that the servers have not answered.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// What makes the machine ready: to follow, or the first message to the topic, which opens it.
    First,
    Follow,
    Send(Number),
}

/// One machine, its socket and what it is about.
#[derive(Debug)]
struct Link {
    role: Role,
    device: Device,
    socket: BoundSocket,
    machine: Machine,
    due: Option<Moment>,
    began: Moment,
    connected: Option<Moment>,
    /// When a server last began to serve the session.
    served: Option<Moment>,
    ready: bool,
    over: bool,
    /// The request that the machine is being asked; it numbers it at once.
    asking: Option<Asked>,
    unanswered: BTreeMap<Seq, Asked>,
    /// What was handed out and is not yet reported as taken.
    taken: Option<Op>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// Client machines of one cluster, of which all senders and followers use one topic.
pub(crate) struct Machines {
    clock: MachineClock,
    servers: Vec<SocketAddr>,
    cluster: ClusterIdentity,
    topic: Topic,
    poll: Poll,
    links: Vec<Link>,
    /// The links of the senders.
    senders: BTreeMap<u16, usize>,
    /// The number of links that are ready.
    ready: usize,
    /// The number of follows that are asked and not answered.
    follows: usize,
    due: BTreeSet<(Moment, usize)>,
    /// The links that were asked for something since the last turn.
    waiting: BTreeSet<usize>,
    inbox: Inbox,
    effects: Vec<Effect>,
    /// What was observed before all machines were ready.
    pub(crate) early: Vec<(Moment, Observed)>,
}

/// The identity of a device, which outlives its machine.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    profile: Name,
    private: Key,
    created_op: Option<Op>,
    cursor: Option<Op>,
    highest_seq: Seq,
}

impl Device {
    /// A device with a new key.
    pub(crate) fn new(profile: Name) -> Result<Device, Failure> {
        let private = Key::new(random::bytes().map_err(Failure::io("randomness"))?);
        Ok(Device { profile, private, created_op: None, cursor: None, highest_seq: Seq(0) })
    }
}

impl Machines {
    pub(crate) fn new(
        clock: MachineClock,
        servers: Vec<SocketAddr>,
        cluster: ClusterIdentity,
        topic: Topic,
    ) -> Result<Machines, Failure> {
        Ok(Machines {
            clock,
            servers,
            cluster,
            topic,
            poll: Poll::new()?,
            links: Vec::new(),
            senders: BTreeMap::new(),
            ready: 0,
            follows: 0,
            due: BTreeSet::new(),
            waiting: BTreeSet::new(),
            inbox: Inbox::new(BATCH),
            effects: Vec::new(),
            early: Vec::new(),
        })
    }

    /// Starts a machine for the device, which begins to connect.
    pub(crate) fn start(&mut self, device: &Device, role: Role) -> Result<(), Failure> {
        let index = self.links.len();
        let socket = BoundSocket::bind(SocketAddr::new(self.source(index), 0), IDLE)
            .map_err(|error| Failure::Other(error.to_string()))?;
        self.poll.add(&socket, index)?;
        let start = Start {
            servers: self.servers.clone(),
            handshakes: BTreeMap::new(),
            identity: Identity {
                cluster: self.cluster.cluster,
                cluster_key: self.cluster.key.0,
                private: device.private.clone(),
            },
            device: DeviceId { key: DeviceKey(noise::public(&device.private)), slot: 0 },
            created_op: device.created_op,
            profile: device.profile.clone(),
            code: None,
            invite: None,
            receives: role.receives(),
            cursor: device.cursor,
            outbox: Vec::new(),
            highest_seq: Some(device.highest_seq),
            entropy: Entropy::new(random::bytes().map_err(Failure::io("randomness"))?),
            ciphers: Ciphers { aes: cpu::has_aes(), ..Ciphers::default() },
            planted: PlantedBug::default(),
        };
        let now = self.clock.now();
        let machine = Machine::new(now, start, &mut self.effects);
        self.links.push(Link {
            role,
            device: device.clone(),
            socket,
            machine,
            due: None,
            began: now,
            connected: None,
            served: None,
            ready: false,
            over: false,
            asking: None,
            unanswered: BTreeMap::new(),
            taken: None,
            datagrams: Vec::new(),
        });
        if let Role::Sender(sender) = role {
            self.senders.insert(sender, index);
        }
        self.perform(index, &mut Vec::new())?;
        self.flush(index, &mut Vec::new())
    }

    /// Starts a machine for each device, so many at a time, and waits until all are ready: connected, and
    /// following if they follow.
    pub(crate) fn start_all(&mut self, devices: &[(Device, Role)], at_once: usize) -> Result<(), Failure> {
        progress::say(format_args!("connecting {} clients", devices.len()));
        let mut deadline = self.clock.now() + PATIENCE;
        let (first, ready_before) = (self.links.len(), self.ready);
        let mut waiting = devices.iter();
        let mut observed = Vec::new();
        let mut ready = 0;
        loop {
            if self.ready - ready_before > ready {
                deadline = self.clock.now() + PATIENCE;
            }
            ready = self.ready - ready_before;
            if ready == devices.len() {
                return Ok(());
            }
            let begun = self.links.len() - first;
            for (device, role) in waiting.by_ref().take(at_once.saturating_sub(begun - ready)) {
                self.start(device, *role)?;
            }
            self.turn(IDLE, &mut observed)?;
            self.early.append(&mut observed);
            if self.clock.now() >= deadline {
                return Err(Failure::Late(format!("{ready} of {} clients connected", devices.len())));
            }
        }
    }

    /// The time that each machine took from its first datagram to its open session.
    pub(crate) fn connect_times(&self) -> impl Iterator<Item = Duration> + '_ {
        self.links.iter().filter_map(|link| Some(link.connected?.since(link.began)))
    }

    /// Has each machine follow the feeds of the next `follows` ones, and waits until all are answered.
    pub(crate) fn follow_each_other(&mut self, follows: usize) -> Result<(), Failure> {
        let count = self.links.len();
        for index in 0..count {
            for next in 1..=follows {
                let Some(other) = self.links.get((index + next) % count) else { continue };
                let topic = Topic::Feed(other.device.profile.clone());
                let Some(link) = self.links.get_mut(index) else { continue };
                link.asking = Some(Asked::Follow);
                let request = Request::Follow { topic, change: FollowChange::Add };
                self.follows += 1;
                self.input(index, Input::Request(request), &mut Vec::new())?;
            }
            self.flush(index, &mut Vec::new())?;
            while self.follows > FOLLOWING_MAX {
                self.turn(IDLE, &mut Vec::new())?;
            }
        }
        let mut deadline = self.clock.now() + PATIENCE;
        while self.follows > 0 {
            let before = self.follows;
            self.turn(IDLE, &mut Vec::new())?;
            if self.follows < before {
                deadline = self.clock.now() + PATIENCE;
            } else if self.clock.now() >= deadline {
                return Err(Failure::Late(format!("{before} follows")));
            }
        }
        Ok(())
    }

    /// The times at which servers began to serve sessions, the last time of each.
    pub(crate) fn served_times(&self) -> impl Iterator<Item = Moment> + '_ {
        self.links.iter().filter_map(|link| link.served)
    }

    /// The devices of all machines, as they stand.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> + '_ {
        self.links.iter().map(|link| &link.device)
    }

    /// Ends every session, so that the servers deliver to none of them any more.
    pub(crate) fn disconnect(&mut self) -> Result<(), Failure> {
        for index in 0..self.links.len() {
            self.input(index, Input::Disconnect, &mut Vec::new())?;
            self.flush(index, &mut Vec::new())?;
        }
        let deadline = self.clock.now() + PATIENCE;
        while self.links.iter().any(|link| !link.over) {
            self.turn(IDLE, &mut Vec::new())?;
            if self.clock.now() >= deadline {
                return Err(Failure::Late("the clients disconnect".into()));
            }
        }
        Ok(())
    }

    /// The address that a machine sends from. On the loopback interface machines are spread over many
    /// networks, as they would be elsewhere.
    fn source(&self, index: usize) -> IpAddr {
        match self.servers.first() {
            Some(server) if server.ip().is_loopback() && server.is_ipv4() => {
                let network = index / NETWORK % (200 * 200);
                let [high, low] = [network / 200, network % 200].map(|part| u8::try_from(part).unwrap_or(0));
                Ipv4Addr::new(127, high, low + 1, 1).into()
            }
            Some(server) if server.is_ipv6() => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// Gives an input to a machine.
    fn input(
        &mut self,
        index: usize,
        input: Input,
        observed: &mut Vec<(Moment, Observed)>,
    ) -> Result<(), Failure> {
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        link.machine.handle(self.clock.now(), input, &mut self.effects);
        self.perform(index, observed)
    }

    /// Performs what a machine has asked for. Datagrams are collected until [`Machines::flush`].
    fn perform(&mut self, index: usize, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        let now = self.clock.now();
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        let was_ready = link.ready;
        let mut first = None;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Datagram { to, bytes } => link.datagrams.push((to, bytes)),
                Effect::Event(Event::Connected { created_op, .. }) if link.connected.is_none() => {
                    (link.connected, link.served) = (Some(now), Some(now));
                    link.device.created_op = Some(created_op);
                    first = link.role.first_request(&self.topic);
                    link.ready = first.is_none();
                }
                Effect::Event(event) => {
                    self.follows -= usize::from(link.on_event(now, event, observed)?);
                }
            }
        }
        self.ready += usize::from(link.ready && !was_ready);
        if let Some(request) = first {
            link.asking = Some(Asked::First);
            link.machine.handle(now, Input::Request(request), &mut self.effects);
            return self.perform(index, observed);
        }
        Ok(())
    }

    /// Takes the datagrams that have arrived for a machine.
    fn receive(&mut self, index: usize, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        // A refused port of a server that was killed shows here; the machine finds the next primary.
        let _ = link.socket.take(&mut self.inbox);
        for (from, bytes) in self.inbox.datagrams() {
            let bytes = bytes.to_vec();
            link.machine.handle(self.clock.now(), Input::Datagram { from, bytes }, &mut self.effects);
        }
        self.perform(index, observed)
    }

    /// Ends a turn of a machine: tells it what was taken, sends its datagrams, and notes when it is due
    /// again.
    fn flush(&mut self, index: usize, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        let now = self.clock.now();
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        if let Some(op) = link.taken.take() {
            link.machine.handle(now, Input::Taken(op), &mut self.effects);
        }
        link.machine.flush(now, &mut self.effects);
        self.perform(index, observed)?;
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        if !link.datagrams.is_empty() {
            // A datagram that cannot be sent is lost; the machine retransmits.
            let _ = link.socket.send(&link.datagrams);
            link.datagrams.clear();
        }
        let is_stuck = link.ready && link.role == Role::Stuck;
        if is_stuck {
            self.poll.remove(&link.socket)?;
        }
        let due = if link.over || is_stuck { None } else { link.machine.next_deadline() };
        if due != link.due {
            link.due.map(|before| self.due.remove(&(before, index)));
            due.map(|due| self.due.insert((due, index)));
            link.due = due;
        }
        Ok(())
    }
}

impl Link {
    fn take(&mut self, upto: Op) {
        self.taken = Some(upto);
        self.device.cursor = Some(upto);
    }

    /// Takes an event of the machine. Returns true if it answers a follow.
    fn on_event(
        &mut self,
        now: Moment,
        event: Event,
        observed: &mut Vec<(Moment, Observed)>,
    ) -> Result<bool, Failure> {
        match event {
            Event::Numbered { seq, .. } => {
                self.device.highest_seq = self.device.highest_seq.max(seq);
                if let Some(asked) = self.asking.take() {
                    self.unanswered.insert(seq, asked);
                }
            }
            Event::Renumbered(moved) => {
                let moving = moved.iter().map(|(from, to)| (*to, self.unanswered.remove(from)));
                for (seq, asked) in moving.collect::<Vec<_>>() {
                    asked.map(|asked| self.unanswered.insert(seq, asked));
                }
            }
            Event::Answered { seq, result } => {
                let asked = self.unanswered.remove(&seq);
                result.map_err(Failure::Refused)?;
                match asked {
                    Some(Asked::Send(number)) => observed.push((now, Observed::Acked(number))),
                    Some(Asked::First) => self.ready = true,
                    Some(Asked::Follow) => return Ok(true),
                    None => {}
                }
            }
            Event::Notification(notification) => {
                self.take(notification.op);
                if let (Some(follower), Some(number)) =
                    (self.role.follower(), Number::of(notification.content.body.as_bytes()))
                {
                    observed.push((now, Observed::Delivered { follower, number }));
                }
            }
            // The numbers of the next notifications show what is missing.
            Event::Gap { upto, .. } => self.take(upto),
            Event::Ended(code) => return Err(Failure::Refused(code)),
            Event::OtherVersion { server, version } => {
                return Err(Failure::Other(format!("{server} speaks version {version} of the protocol")));
            }
            Event::Deferred { seq, .. } => {
                if let Some(Asked::Send(number)) = self.unanswered.get(&seq) {
                    observed.push((now, Observed::Deferred(*number)));
                }
            }
            Event::Disconnected => self.over = true,
            Event::PrimaryChanged { .. } | Event::PrimaryFound { .. } => self.served = Some(now),
            Event::Connected { .. }
            | Event::Searching
            | Event::Copied(_)
            | Event::ServersSetBack { .. }
            | Event::NotTaken
            | Event::MadeChannel { .. }
            | Event::Timestamp { .. }
            | Event::Answer(..) => {}
        }
        Ok(false)
    }
}

impl Broker for Machines {
    fn send(&mut self, number: Number, size: usize) -> Result<bool, Failure> {
        let sender = self.senders.get(&number.sender).copied();
        let link = sender.and_then(|index| Some((index, self.links.get_mut(index)?)));
        let Some((index, link)) = link.filter(|(_, link)| link.machine.has_room()) else { return Ok(false) };
        link.asking = Some(Asked::Send(number));
        let content = Content::of(number.body(size));
        let request = Request::Send { topic: Some(self.topic.clone()), content };
        self.input(index, Input::Request(request), &mut Vec::new())?;
        self.waiting.insert(index);
        Ok(true)
    }

    fn turn(&mut self, wait: Duration, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        interrupt::check()?;
        for index in std::mem::take(&mut self.waiting) {
            self.flush(index, observed)?;
        }
        let due = self.due.first().map_or(IDLE, |(due, _)| due.since(self.clock.now()));
        for index in self.poll.wait(wait.min(due).min(IDLE))? {
            self.receive(index, observed)?;
            self.flush(index, observed)?;
        }
        let now = self.clock.now();
        while let Some((_, index)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            // What has arrived comes before what is due, as in a client that has a thread to itself. Else a
            // machine whose turn comes late would repeat what has been answered.
            self.receive(index, observed)?;
            self.flush(index, observed)?;
            // A machine that is due at once again must not keep the others waiting.
            if self.due.first().is_some_and(|(due, again)| *again == index && *due <= now) {
                break;
            }
        }
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        true
    }
}
