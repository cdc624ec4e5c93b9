//! One simulated client: the library's machine, and an application that makes random requests, stores the
//! cursor together with the notifications, and sometimes crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use recado::config::{Planted, PlantedBug};
use recado_client::machine::handshake::Identity;
use recado_client::machine::{Answer, Effect, Event, Input, Machine, Numbered, Query, Request, Start};
use recado_proto::entropy::Entropy;
use recado_proto::id::{ChannelName, DeviceId, Moment, Name, Op, Seq, StoreKey, Topic};
use recado_proto::packet::{
    ChannelChange, Code, CodeHash, Condition, Content, FollowChange, HistoryRange, KeyChange, Listing,
    Notice, QueryId, Role, Selection,
};

use crate::coverage::Situation;
use crate::faults::MS;
use crate::history::{AskId, ClientEvent, ClientId, Facts, History};
use crate::network::{Micros, client_address};
use crate::rng::Rng;
use crate::{population, tap};

/// The identity and behaviour of a client.
#[derive(Clone, Debug)]
pub struct ClientProfile {
    /// The planted bug of its machine.
    pub planted: PlantedBug,
    pub profile: Name,
    /// The installation; clients of one profile share it and differ by slot.
    pub key: u8,
    pub slot: u8,
    pub receives: bool,
    /// True if it loses its unanswered requests when it crashes.
    pub forgets: bool,
    /// True if it reports taken notifications to the machine only now and then.
    pub takes_late: bool,
    /// True if many of its texts are longer than a datagram.
    pub long_texts: bool,
    /// Its actions beside sending and following.
    pub habits: ClientActions,
}

impl ClientProfile {
    /// A client of this name that receives, takes at once what it gets, and does nothing by itself.
    pub fn plain(name: &str, key: u8) -> ClientProfile {
        ClientProfile {
            planted: PlantedBug::default(),
            profile: population::name(name),
            key,
            slot: 0,
            receives: true,
            forgets: false,
            takes_late: false,
            long_texts: false,
            habits: ClientActions::default(),
        }
    }
}

/// Actions of a client beside sending and following; the rates are per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientActions {
    /// Rate of history and other queries.
    pub queries: u64,
    /// Rate of changes to owned channels: create, add or remove a member, delete.
    pub rights: u64,
    /// Rate of retractions, of its own notifications and of any that it has read, and of deletions of open
    /// channels and changes of its display name.
    pub retractions: u64,
    /// Rate of reads and writes of the store.
    pub values: u64,
    /// The rate at which its device is reset when its process has crashed.
    pub resets: u64,
    /// Rate of opening and revoking enrolments.
    pub keys: u64,
    /// The code of the profile's enrolments.
    pub code: Option<CodeHash>,
    /// True if it is admitted by that code.
    pub enrols: bool,
    /// True if its device may be forgotten by the service, or refused.
    pub may_be_disowned: bool,
    /// True if a profile has few places for devices, so that one may be evicted, and then find no place.
    pub few_devices: bool,
    /// The invitation by which it claims its name.
    pub invite: Option<CodeHash>,
    /// The time for which it stays away; it does nothing with its name but claim it.
    pub away: Option<Micros>,
    /// The limit for the span of numbers from the lowest unanswered one.
    pub outstanding: Option<u64>,
    /// The longest time for which its process collects inputs before it sends what they have left to send.
    pub turn: Micros,
}

/// The result of a client's step, which the world has to act upon.
#[derive(Debug, Default)]
pub struct Outcome {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Requests acknowledged in this step, to be checked against the servers.
    pub acked: Vec<(AskId, Op)>,
    /// What acknowledged requests have taken away for good.
    pub taken_away: Vec<Taken>,
    /// Lines for a transcript.
    pub lines: Vec<String>,
    pub met: Vec<Situation>,
    /// True if the machine has ended and is to be started again after a while.
    pub ended: bool,
    /// A violation of the library's contract.
    pub broken: Option<String>,
}

/// Texts that are taken away.
#[derive(Clone, Debug)]
pub enum Taken {
    /// That of this op.
    Text(Op),
    /// Those of a channel that was deleted by this op.
    Channel(ChannelName, Op),
}

/// A device's files, which can be copied and restored.
#[derive(Clone, Debug, Default)]
struct Files {
    /// The op that admitted the device.
    created_op: Option<Op>,
    given: Seq,
    cursor: Option<Op>,
    outbox: BTreeMap<Seq, StoredRequest>,
    /// The requests whose answers are written but not synced, in the order of the answers.
    unsynced: Vec<(Seq, StoredRequest)>,
}

/// An unanswered request in the files.
#[derive(Clone, Debug)]
struct StoredRequest {
    /// The client that made the request: another one if the files are a copy of another's.
    owner: ClientId,
    ask: AskId,
    nonce: u64,
    what: Request,
    /// True if it was made before a server was reached.
    ahead: bool,
    /// True if its answer was lost with the power of the machine.
    answer_lost: bool,
}

/// A client, over all runs of its process.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub character: ClientProfile,
    pub run: u32,
    pub moves: u16,
    pub wake_at: Option<Micros>,
    device: DeviceId,
    machine: Option<Machine>,
    began: Micros,
    /// The end of the turn that its inputs have begun.
    turn_ends: Option<Micros>,
    connected: bool,
    rng: Rng,
    files: Files,
    /// An older copy of the files.
    copy: Option<Files>,
    /// True if another copy of its files exists or existed.
    pub copied: bool,
    /// The number of its sessions that others ended.
    pub ended: u32,
    /// True if it was removed and admitted again with its files.
    admitted_again: bool,
    has_twin: bool,
    /// True if it began as a copy of another client. It leaves when the faults end.
    pub visits: bool,
    /// True if it is to leave for good once all its requests are answered ...
    pub leaves: bool,
    /// ... and true once it has left.
    pub left: bool,
    taken: Option<Op>,
    /// Its own requests with a known outcome, or with one that will never be known.
    settled: BTreeSet<AskId>,
    asking: Option<(AskId, Request)>,
    /// The latest notifications that it has sent or read.
    met: Vec<Op>,
    /// The timestamp of each key, as it was told last.
    timestamps: BTreeMap<StoreKey, Op>,
    /// The keys that are queried.
    gets: BTreeMap<QueryId, StoreKey>,
    asks: u32,
    queries: u64,
    /// True if what this turn changes in the files must be durable before anything is sent.
    must_sync: bool,
    /// True while its device is refused.
    outside: bool,
    /// The highest op up to which the application has ever reported everything as taken.
    acknowledged: Op,
}

impl Files {
    /// Returns a copy, of which all is durable.
    fn copied(&self) -> Files {
        Files { unsynced: Vec::new(), ..self.clone() }
    }
}

impl Client {
    pub fn new(id: ClientId, character: ClientProfile, rng: Rng) -> Client {
        let device = DeviceId { key: tap::public(character.key), slot: character.slot };
        Client {
            id,
            character,
            run: 0,
            moves: 0,
            wake_at: None,
            device,
            machine: None,
            turn_ends: None,
            began: 0,
            connected: false,
            rng,
            files: Files::default(),
            copy: None,
            copied: false,
            ended: 0,
            admitted_again: false,
            has_twin: false,
            visits: false,
            leaves: false,
            left: false,
            taken: None,
            settled: BTreeSet::new(),
            asking: None,
            met: Vec::new(),
            timestamps: BTreeMap::new(),
            gets: BTreeMap::new(),
            asks: 0,
            queries: 0,
            must_sync: false,
            outside: false,
            acknowledged: Op::ZERO,
        }
    }

    /// Makes another process on a copy of this one's files; `None` if there are no files yet. The twin is not
    /// a device of its own, so it is not required to see every notification before it leaves.
    pub fn twin(&mut self, id: ClientId, rng: Rng) -> Option<Client> {
        if !self.has_files_to_copy() {
            return None;
        }
        (self.copied, self.has_twin) = (true, true);
        let mut twin = Client::new(id, self.character.clone(), rng);
        (twin.files, twin.copied, twin.visits) = (self.files.copied(), true, true);
        Some(twin)
    }

    /// Copies the files.
    pub fn keep_copy(&mut self) {
        if self.has_files_to_copy() {
            self.copy = Some(self.files.copied());
        }
    }

    /// Returns true if there are files that may be copied. If the service may forget the device, requests in
    /// an old copy may be applied twice, which is allowed; so no copy is made then.
    fn has_files_to_copy(&self) -> bool {
        self.files.created_op.is_some() && !self.character.habits.may_be_disowned
    }

    /// Crashes, and restores the copied files. Returns false if there is no copy.
    pub fn restore_copy(&mut self, history: &mut History) -> bool {
        // With two copies that hold different unanswered requests, one may repeat a request that the other
        // has completed, once the servers do not hold its result any more. DESIGN.md section 3 allows that.
        let of_use = |copy: &Files| !self.has_twin || copy.outbox.is_empty();
        let Some(copy) = self.copy.clone().filter(of_use) else { return false };
        self.crash(history);
        let asked = std::mem::replace(&mut self.files, copy).outbox;
        let still = |kept: &StoredRequest| {
            self.files.outbox.values().any(|of| (of.owner, of.ask) == (kept.owner, kept.ask))
        };
        let lost: Vec<StoredRequest> = asked.into_values().filter(|kept| !still(kept)).collect();
        self.give_up(&lost, history);
        history.note(self.id, ClientEvent::PutBack { cursor: self.files.cursor });
        self.copied = true;
        true
    }

    /// Resets the device of a process that has crashed, as `DeviceReset` of the library does: the key and the
    /// highest number stay. Returns false if other copies of its files would still be in use, or the service
    /// may have forgotten the device, which is another beginning anew.
    pub fn reset(&mut self, history: &mut History) -> bool {
        let resets = self.character.habits.resets;
        if resets == 0 || self.copied || !self.has_files_to_copy() || !self.rng.permille(resets) {
            return false;
        }
        self.crash(history);
        let before = std::mem::take(&mut self.files);
        self.files.given = before.given;
        self.copy = None;
        let lost: Vec<StoredRequest> = before.outbox.into_values().collect();
        self.give_up(&lost, history);
        history.note(self.id, ClientEvent::PutBack { cursor: None });
        true
    }

    pub fn facts(&self) -> Facts {
        let receives = self.character.receives && !self.visits;
        Facts { profile: self.character.profile.clone(), receives }
    }

    pub fn address(&self) -> SocketAddr {
        client_address(self.id.0, self.moves)
    }

    pub fn alive(&self) -> bool {
        self.machine.is_some()
    }

    /// Returns true if it is connected, has left or may be refused for the limit of devices, and has no
    /// unanswered request.
    pub fn content(&self) -> bool {
        let waits = self.files.created_op.is_none() && self.character.habits.may_be_disowned;
        (self.connected || self.left || waits) && self.files.outbox.is_empty()
    }

    /// Returns the time before its next try.
    pub fn patience(&self) -> Micros {
        if self.outside { 400 * MS } else { self.character.habits.away.unwrap_or(50 * MS) }
    }

    /// Returns true if the server has admitted it, as far as it knows.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Returns the device, and the op up to which it has reported everything as taken.
    pub fn has_taken(&self) -> (DeviceId, Op) {
        (self.device, self.acknowledged)
    }

    pub fn outstanding(&self) -> usize {
        self.files.outbox.len()
    }

    /// Starts the process with the files that the application stored.
    pub fn start(&mut self, now: Micros, servers: Vec<SocketAddr>, history: &mut History) -> Outcome {
        self.run += 1;
        self.began = now;
        self.connected = false;
        self.wake_at = None;
        self.turn_ends = None;
        self.taken = None;
        self.acknowledged = self.acknowledged.max(self.files.cursor.unwrap_or_default());
        let start = Start {
            handshakes: BTreeMap::new(),
            servers,
            identity: Identity {
                cluster: population::CLUSTER,
                cluster_key: tap::cluster_key(),
                private: tap::private(self.character.key),
            },
            device: self.device,
            created_op: self.files.created_op,
            profile: self.character.profile.clone(),
            code: self.character.habits.code.filter(|_| self.character.habits.enrols),
            invite: self.character.habits.invite,
            receives: self.character.receives,
            cursor: self.files.cursor,
            outbox: self.kept().collect(),
            highest_seq: Some(self.files.given),
            entropy: Entropy::new(self.rng.bytes()),
            ciphers: tap::ciphers(self.character.key.is_multiple_of(2), self.character.planted),
            planted: self.character.planted,
        };
        let mut effects = Vec::new();
        self.machine = Some(Machine::new(Moment(0), start, &mut effects));
        self.perform(now, effects, history)
    }

    /// Returns the unanswered requests in the files.
    fn kept(&mut self) -> impl Iterator<Item = Numbered> {
        let drawn_anew = self.character.planted.is(Planted::NonceNotKept);
        for kept in self.files.outbox.values_mut().filter(|kept| kept.ahead && drawn_anew) {
            kept.nonce = self.rng.next();
        }
        self.files.outbox.iter().map(|(seq, kept)| Numbered {
            seq: *seq,
            nonce: kept.nonce,
            request: kept.what.clone(),
        })
    }

    /// Crashes the process.
    pub fn crash(&mut self, history: &mut History) {
        if self.machine.take().is_none() {
            return;
        }
        self.connected = false;
        if self.character.forgets && !self.files.outbox.is_empty() {
            let lost: Vec<StoredRequest> = std::mem::take(&mut self.files.outbox).into_values().collect();
            // The file with the numbers is lost with them.
            self.files.given = Seq(0);
            self.give_up(&lost, history);
        }
        if self.character.forgets {
            self.files.unsynced.clear();
        }
    }

    /// The machine of a running process loses power: a prefix of the answers that were not synced survives,
    /// and the requests of the others are unanswered again. Returns the number of these.
    pub fn lose_power(&mut self, history: &mut History) -> usize {
        if self.machine.is_none() {
            return 0;
        }
        self.crash(history);
        let unsynced = self.files.unsynced.len() as u64;
        let survive = if self.rng.permille(500) { 0 } else { self.rng.below(unsynced + 1) as usize };
        let lost = self.files.unsynced.split_off(survive);
        self.files.unsynced.clear();
        let number = lost.len();
        let unanswered = |kept| StoredRequest { answer_lost: true, ..kept };
        self.files.outbox.extend(lost.into_iter().map(|(seq, kept)| (seq, unanswered(kept))));
        number
    }

    /// These requests have left the files without a result.
    fn give_up(&mut self, lost: &[StoredRequest], history: &mut History) {
        let requests: Vec<(ClientId, AskId)> = lost.iter().map(|kept| (kept.owner, kept.ask)).collect();
        let own = requests.iter().filter(|(owner, _)| *owner == self.id).map(|(_, ask)| *ask);
        let asks = own.filter(|ask| self.settled.insert(*ask)).collect();
        history.note(self.id, ClientEvent::Forgot { asks });
        history.note(self.id, ClientEvent::GaveUp { requests });
    }

    /// The service has forgotten the device, so its files are void.
    fn disown(&mut self, history: &mut History) {
        let asked = std::mem::take(&mut self.files).outbox.into_values().map(|kept| kept.ask);
        let asks = asked.filter(|ask| self.settled.insert(*ask)).collect();
        history.note(self.id, ClientEvent::Disowned { asks });
    }

    /// Passes one input to the machine, whose turn ends now or later.
    pub fn handle(&mut self, now: Micros, input: Input, history: &mut History) -> Outcome {
        if let Input::Taken(upto) = input {
            self.acknowledged = self.acknowledged.max(upto);
        }
        let mut effects = Vec::new();
        if let Some(machine) = &mut self.machine {
            machine.handle(Moment(now - self.began), input, &mut effects);
        }
        let mut outcome = self.perform(now, effects, history);
        let turn = self.character.habits.turn;
        if turn == 0 {
            outcome.merge(self.end_turn(now, history));
        } else if self.turn_ends.is_none() {
            self.turn_ends = Some(now + self.rng.range(0, turn));
        }
        outcome
    }

    /// Ends the machine's turn: at a deadline of it, or after its inputs.
    pub fn end_turn(&mut self, now: Micros, history: &mut History) -> Outcome {
        self.turn_ends = None;
        let mut effects = Vec::new();
        if let Some(machine) = &mut self.machine {
            machine.flush(Moment(now - self.began), &mut effects);
        }
        let outcome = self.perform(now, effects, history);
        self.sync();
        outcome
    }

    /// The time at which its turn is to end: that of a turn begun, or else the machine's deadline.
    pub fn next_deadline(&self) -> Option<Micros> {
        let machine = self.machine.as_ref()?;
        self.turn_ends.or_else(|| Some(self.began.saturating_add(machine.next_deadline()?.0)))
    }

    /// The application makes a request, with or without a connection to a server.
    pub fn ask(&mut self, now: Micros, ask: Request, history: &mut History) -> Outcome {
        if !(self.connected || self.may_ask_ahead()) || !self.has_room() {
            return Outcome::default();
        }
        self.asks += 1;
        self.asking = Some((AskId(self.asks), ask.clone()));
        let outcome = self.handle(now, Input::Request(ask), history);
        self.asking = None;
        if !self.connected && self.rng.permille(500) {
            self.keep_copy();
        }
        outcome
    }

    /// Returns true if its files hold the last number given, which a request without a server needs.
    fn may_ask_ahead(&self) -> bool {
        self.alive() && self.has_files_to_copy() && !self.character.forgets
    }

    /// Returns true if another number is within the span whose results the service keeps.
    fn has_room(&self) -> bool {
        let span =
            self.files.outbox.first_key_value().map_or(0, |(first, _)| self.files.given.0 - first.0 + 1);
        span < self.character.habits.outstanding.unwrap_or(u64::MAX)
    }

    /// The application does something at random.
    pub fn act(
        &mut self,
        now: Micros,
        people: &[Name],
        channels: &[ChannelName],
        history: &mut History,
    ) -> Outcome {
        if self.character.habits.away.is_some() {
            return if self.connected {
                self.handle(now, Input::Disconnect, history)
            } else {
                Outcome::default()
            };
        }
        if let (true, Some(taken)) = (self.connected, self.taken.take()) {
            let mut outcome = self.handle(now, Input::Taken(taken), history);
            let more = self.act_now(now, people, channels, history);
            outcome.merge(more);
            return outcome;
        }
        self.act_now(now, people, channels, history)
    }

    fn act_now(
        &mut self,
        now: Micros,
        people: &[Name],
        channels: &[ChannelName],
        history: &mut History,
    ) -> Outcome {
        let own = self.character.profile.clone();
        let person = self.rng.pick(people).cloned().unwrap_or(own.clone());
        let channel = self.rng.pick(channels).cloned().unwrap_or_else(|| population::channel(own.as_str()));
        let topic = if self.rng.permille(500) {
            Topic::Feed(person.clone())
        } else {
            Topic::Channel(channel.clone())
        };
        let habits = self.character.habits;
        if self.rng.permille(habits.queries) {
            return self.query(now, channel, history);
        }
        if self.rng.permille(habits.keys) {
            let code = habits.code.unwrap_or(CodeHash([0; 32]));
            let revoke = self.rng.permille(150);
            let key = tap::public(2);
            let change = if revoke { KeyChange::Revoke { key } } else { KeyChange::Enrol { code } };
            return self.ask(now, Request::Keys { change }, history);
        }
        if habits.retractions > 0 && self.rng.permille(habits.retractions) {
            let ask = self.take_away(channel);
            return self.ask(now, ask, history);
        }
        if habits.values > 0 && self.rng.permille(habits.values) {
            return self.use_store(now, &person, &channel, history);
        }
        let owned = population::owned_channels();
        if self.rng.permille(habits.rights)
            && let Some(channel) = self.rng.pick(&owned).cloned()
        {
            let ask = self.change(channel, person);
            return self.ask(now, ask, history);
        }
        let channel = match self.rng.pick(&owned) {
            Some(owned) if habits.rights > 0 && self.rng.permille(500) => owned.clone(),
            _ => channel,
        };
        let topic = match topic {
            Topic::Channel(_) => Topic::Channel(channel.clone()),
            other => other,
        };
        let ask = match self.rng.below(100) {
            0..35 => self.send(None),
            35..60 => self.send(Some(Topic::Channel(channel))),
            60..75 => self.send(Some(Topic::Inbox(person))),
            75..93 => Request::Follow { topic, change: FollowChange::Add },
            _ => Request::Follow { topic, change: FollowChange::Remove },
        };
        self.ask(now, ask, history)
    }

    /// Makes a random query.
    fn query(&mut self, now: Micros, channel: ChannelName, history: &mut History) -> Outcome {
        if !self.connected {
            return Outcome::default();
        }
        self.queries += 1;
        let query = QueryId(self.queries);
        let topic = match self.rng.below(2) {
            0 => Topic::Feed(self.character.profile.clone()),
            _ => Topic::Channel(channel),
        };
        let owned = population::owned_channels();
        let topic = match owned.get(usize::from(self.queries.is_multiple_of(2))) {
            Some(owned) if self.character.habits.rights > 0 && self.rng.permille(500) => {
                Topic::Channel(owned.clone())
            }
            _ => topic,
        };
        let asked = match self.rng.below(10) {
            0 => Query::Info { profile: None },
            1 => Query::List { what: Listing::Following, after: None },
            2 => Query::List { what: Listing::Devices, after: None },
            _ => {
                history.note(self.id, ClientEvent::Asked { query, topic: topic.clone() });
                let range = HistoryRange::Before(Op(u64::MAX));
                Query::History { topic: Some(topic), range, limit: 3, selection: Selection::default() }
            }
        };
        self.handle(now, Input::Query(query, asked), history)
    }

    /// Reads or writes a key of the store.
    fn use_store(
        &mut self,
        now: Micros,
        person: &Name,
        channel: &ChannelName,
        history: &mut History,
    ) -> Outcome {
        let key = match self.rng.below(6) {
            0 => population::key(&format!("@{person}/k")),
            1 => population::key(&format!("#{channel}/k")),
            n => population::key(&format!("k{n}")),
        };
        if self.rng.permille(350) {
            if !self.connected {
                return Outcome::default();
            }
            self.queries += 1;
            let query = QueryId(self.queries);
            self.gets.insert(query, key.clone());
            history.note(self.id, ClientEvent::AskedValue { query });
            return self.handle(now, Input::Query(query, Query::Get { key }), history);
        }
        let known = self.timestamps.get(&key).copied();
        let at = known.filter(|_| self.rng.permille(500));
        if self.rng.permille(200) {
            return self.ask(now, Request::Delete { key, at }, history);
        }
        let condition = match (self.rng.below(4), at) {
            (_, Some(at)) => Condition::At(at),
            (0, None) => Condition::Absent,
            (1, None) => Condition::Present,
            (_, None) => Condition::Always,
        };
        let length = if self.rng.permille(100) { self.rng.range(1_000, 4_000) } else { 4 };
        let value = format!("c{}-{} {}", self.id.0, self.asks + 1, "v".repeat(length as usize));
        self.ask(now, Request::Put { key, value: value.into(), condition }, history)
    }

    /// Takes something away, most often a text.
    fn take_away(&mut self, channel: ChannelName) -> Request {
        match self.rng.below(20) {
            0 => Request::Channel { channel, change: ChannelChange::Delete },
            1 => Request::Display { name: self.rng.permille(700).then(|| "A Client".parse().unwrap()) },
            _ => Request::Retract { op: self.rng.pick(&self.met).copied().unwrap_or(Op(1)) },
        }
    }

    /// Makes a random change to an owned channel.
    fn change(&mut self, channel: ChannelName, member: Name) -> Request {
        let role = [Role::Reader, Role::Writer, Role::Owner][self.rng.below(3) as usize];
        let change = match self.rng.below(10) {
            0..3 => ChannelChange::Create { private: self.rng.permille(600) },
            3..6 => ChannelChange::Add { member, role },
            6..9 => ChannelChange::Remove { member },
            _ => ChannelChange::Delete,
        };
        Request::Channel { channel, change }
    }

    /// Makes a SEND with a text that is unique in the world.
    pub fn send(&mut self, topic: Option<Topic>) -> Request {
        let length = match self.rng.below(if self.character.long_texts { 8 } else { 40 }) {
            0 => self.rng.range(2_000, 9_000),
            1..5 => self.rng.range(300, 1_100),
            _ => self.rng.range(1, 40),
        };
        let body = format!("c{}-{} {}", self.id.0, self.asks + 1, "x".repeat(length as usize));
        self.send_text(topic, body)
    }

    pub fn send_text(&self, topic: Option<Topic>, body: String) -> Request {
        Request::Send { topic, content: Content::of(body) }
    }

    fn perform(&mut self, now: Micros, effects: Vec<Effect>, history: &mut History) -> Outcome {
        let mut outcome = Outcome::default();
        for effect in effects {
            match effect {
                Effect::Datagram { to, bytes } => outcome.datagrams.push((to, bytes)),
                Effect::Event(event) => self.on_event(event, history, &mut outcome),
            }
        }
        if !self.character.takes_late
            && let Some(taken) = self.taken.take()
            && self.machine.is_some()
        {
            outcome.merge(self.handle(now, Input::Taken(taken), history));
        }
        if self.leaves && !self.left && self.connected && self.files.outbox.is_empty() {
            self.left = true;
            outcome.merge(self.handle(now, Input::Disconnect, history));
        }
        outcome
    }

    /// Syncs the answers of this turn and of earlier ones, if this turn has changed more than that, or if the
    /// servers are going to be told of one of them.
    fn sync(&mut self) {
        let told_below = self.machine.as_ref().map_or(Seq(0), Machine::told_below);
        let tells = self.files.unsynced.iter().any(|(seq, _)| *seq < told_below);
        if std::mem::take(&mut self.must_sync) || tells {
            self.files.unsynced.clear();
        }
    }

    fn on_event(&mut self, event: Event, history: &mut History, outcome: &mut Outcome) {
        let id = self.id;
        let who = self.character.profile.clone();
        // A client that ends closes its files in order.
        self.must_sync |= matches!(
            event,
            Event::Connected { .. }
                | Event::Numbered { .. }
                | Event::Renumbered(_)
                | Event::Ended(_)
                | Event::Disconnected
        );
        match event {
            Event::Connected { created_op: born, cursor, last_seq, lost, .. } => {
                if lost.is_some() {
                    outcome.broken = Some(format!("client {}: the cursor {lost:?} was refused", id.0));
                }
                if self.files.created_op.is_none() && self.character.habits.enrols {
                    outcome.met.push(Situation::Enrolled);
                }
                self.connected = true;
                self.outside = false;
                // The unanswered requests of a removed device are reported as forgotten next; their numbers
                // do not count for this one.
                let another = self.files.created_op.is_some_and(|before| before != born);
                self.admitted_again |= another;
                let highest = self.files.outbox.last_key_value().filter(|_| !another).map(|(seq, _)| *seq);
                (self.files.created_op, self.files.given) =
                    (Some(born), last_seq.max(highest.unwrap_or(Seq(0))));
                self.files.cursor = self.files.cursor.or(Some(cursor));
                outcome.lines.push(format!("{who} connected"));
                history.note(id, ClientEvent::Connected { cursor });
            }
            Event::PrimaryChanged { view, .. } => {
                outcome.lines.push(format!("{who} is served in view {view}"))
            }
            Event::PrimaryFound { .. } => outcome.lines.push(format!("{who} is served again")),
            Event::Searching => outcome.lines.push(format!("{who} searches")),
            Event::Copied(sign) => {
                outcome.lines.push(format!("{who} is copied: {sign:?}"));
                outcome.met.push(Situation::Copied);
                if !self.copied && !self.character.forgets {
                    outcome.broken =
                        Some(format!("client {} has no copy, and is told of one: {sign:?}", id.0));
                }
            }
            Event::ServersSetBack { answered, last } => {
                outcome.broken =
                    Some(format!("client {}: answered up to {}, applied up to {}", id.0, answered.0, last.0));
            }
            Event::Ended(Code::SessionOver | Code::Fenced) => {
                outcome.lines.push(format!("{who} is fenced"));
                outcome.met.push(Situation::SessionOver);
                outcome.ended = true;
            }
            // The device was forgotten; or its key was revoked and the code that it sends again is not valid
            // any more; or its profile was removed.
            Event::Ended(Code::UnknownDevice | Code::NotYours | Code::WrongCode | Code::UnknownProfile)
                if self.character.habits.may_be_disowned && self.files.created_op.is_some() =>
            {
                outcome.lines.push(format!("{who} is not known any more"));
                outcome.met.push(Situation::Disowned);
                self.disown(history);
                outcome.ended = true;
            }
            Event::Ended(
                Code::NotYours
                | Code::WrongCode
                | Code::UnknownProfile
                | Code::LimitReached
                | Code::InviteNeeded
                | Code::WrongInvite
                | Code::KeyNotAllowed,
            ) if self.character.habits.may_be_disowned && self.files.created_op.is_none() => {
                outcome.lines.push(format!("{who} is not let in"));
                outcome.met.push(Situation::Outside);
                self.outside = true;
                outcome.ended = true;
            }
            // A device that comes with its code is let in anew where it was forgotten, if there is a place.
            Event::Ended(Code::LimitReached)
                if self.character.habits.few_devices && self.character.habits.code.is_some() =>
            {
                outcome.lines.push(format!("{who} is not known any more"));
                outcome.met.push(Situation::Disowned);
                self.disown(history);
                outcome.ended = true;
            }
            Event::Ended(code) => {
                outcome.broken = Some(format!("client {} was turned away: {code:?}", id.0));
                outcome.ended = true;
            }
            Event::OtherVersion { server, version } => {
                outcome.broken = Some(format!("client {}: {server} speaks version {version}", id.0));
                outcome.ended = true;
            }
            Event::Disconnected => {
                outcome.lines.push(format!("{who} disconnected"));
                outcome.ended = true;
            }
            Event::Numbered { seq, nonce } => {
                let Some((ask_id, ask)) = self.asking.take() else {
                    outcome.broken = Some(format!("client {} got number {} unasked", id.0, seq.0));
                    return;
                };
                history.note(id, self.happened(ask_id, &ask));
                self.files.outbox.insert(
                    seq,
                    StoredRequest {
                        owner: id,
                        ask: ask_id,
                        nonce,
                        what: ask,
                        ahead: !self.connected,
                        answer_lost: false,
                    },
                );
                self.files.given = self.files.given.max(seq);
            }
            Event::Renumbered(moved) => {
                outcome.lines.push(format!("{who}: {} requests renumbered", moved.len()));
                outcome.met.push(Situation::Renumbered);
                if !self.copied {
                    outcome.broken = Some(format!("client {} has no copy, and renumbers {moved:?}", id.0));
                }
                let kept: Vec<_> = moved.iter().map(|(from, _)| self.files.outbox.remove(from)).collect();
                for ((_, to), kept) in moved.iter().zip(kept) {
                    self.files.outbox.extend(kept.map(|kept| (*to, kept)));
                    self.files.given = self.files.given.max(*to);
                }
            }
            Event::NotTaken => self.asking = None,
            Event::MadeChannel { .. } | Event::Deferred { .. } => {}
            Event::Timestamp { seq, timestamp } => {
                let key = self.files.outbox.get(&seq).and_then(|kept| match &kept.what {
                    Request::Put { key, .. } | Request::Delete { key, .. } => Some(key.clone()),
                    _ => None,
                });
                outcome.met.push(Situation::ConditionFailed);
                match (key, timestamp) {
                    (Some(key), Some(timestamp)) => drop(self.timestamps.insert(key, timestamp)),
                    (Some(key), None) => drop(self.timestamps.remove(&key)),
                    (None, _) => {
                        outcome.broken = Some(format!("client {}: number {} has no key", id.0, seq.0));
                    }
                }
            }
            Event::Answered { seq, result } => {
                let Some(kept) = self.files.outbox.remove(&seq) else {
                    outcome.broken = Some(format!("client {}: number {} answered twice", id.0, seq.0));
                    return;
                };
                self.files.unsynced.push((seq, kept.clone()));
                let StoredRequest { owner, ask, ahead, answer_lost, .. } = kept;
                outcome.met.extend(answer_lost.then_some(Situation::AnsweredAgain));
                let done_by_copy = owner != id || self.settled.contains(&ask);
                outcome.met.extend((ahead && done_by_copy).then_some(Situation::DoneByCopy));
                if result == Err(Code::NumberForgotten) {
                    outcome.lines.push(format!("{who}: request {} is forgotten", ask.0));
                    outcome.met.push(Situation::NumberForgotten);
                    if !self.copied && !self.admitted_again {
                        outcome.broken = Some(format!(
                            "client {} has no copy and was not removed, and {} is forgotten",
                            id.0, seq.0
                        ));
                    }
                    return self.give_up(&[kept], history);
                }
                if owner != id || !self.settled.insert(ask) {
                    history.note(id, ClientEvent::AnsweredAgain { of: owner, ask, result });
                    return;
                }
                let deletes = matches!(kept.what, Request::Channel { change: ChannelChange::Delete, .. });
                if let Ok(op) = result {
                    outcome.taken_away.extend(match &kept.what {
                        Request::Retract { op } => Some(Taken::Text(*op)),
                        Request::Channel { channel, change: ChannelChange::Delete } => {
                            Some(Taken::Channel(channel.clone(), op))
                        }
                        _ => None,
                    });
                    if let Request::Put { key, .. } = &kept.what {
                        self.timestamps.insert(key.clone(), op);
                    }
                    if let Request::Send { .. } = kept.what {
                        self.remember(op);
                    }
                }
                match result {
                    Ok(op) => {
                        outcome.lines.push(format!("{who}: request {} acknowledged", ask.0));
                        outcome.met.extend(deletes.then_some(Situation::ChannelDeleted));
                        outcome.acked.push((ask, op));
                        history.note(id, ClientEvent::Acked { ask, op });
                    }
                    Err(code) => {
                        outcome.lines.push(format!("{who}: request {} refused, {code:?}", ask.0));
                        outcome.met.extend((code == Code::NotAllowed).then_some(Situation::NotAllowed));
                        history.note(id, ClientEvent::Refused { ask, code });
                    }
                }
            }
            Event::Answer(query, Answer::History { page, applied, .. }) => {
                outcome.met.push(Situation::Read);
                let newest = page.notifications.last().map(|notification| notification.op);
                let trimmed_upto = page.trimmed_upto;
                history.note(id, ClientEvent::Read { query, newest, trimmed_upto, applied });
            }
            Event::Answer(query, Answer::Value { value, applied }) => {
                let Some(key) = self.gets.remove(&query) else { return };
                outcome.met.push(if value.is_some() { Situation::ValueRead } else { Situation::NullRead });
                let value = value.map(|value| (value.value.to_string(), value.timestamp));
                self.timestamps.extend(value.as_ref().map(|(_, timestamp)| (key.clone(), *timestamp)));
                history.note(id, ClientEvent::Got { query: Some(query), key, value, applied });
            }
            Event::Answer(..) => {}
            Event::Notification(notification) if notification.notice().is_some() => {
                let (op, author) = (notification.op, notification.author.clone());
                let (topic, notice) = (notification.topic.clone(), notification.notice());
                let Some(notice) = notice else { return };
                outcome.lines.push(format!("{who} is told {notice:?} in {topic} by {author}"));
                outcome.met.extend(match notice {
                    Notice::Retracts(of) if self.met.contains(&of) => Some(Situation::ToldOfRetraction),
                    Notice::ChannelDeleted => Some(Situation::ToldOfDeletion),
                    Notice::Retracts(_) | Notice::Retracted => None,
                });
                self.files.cursor = Some(op);
                self.taken = Some(op);
                history.note(id, ClientEvent::Told { op, author, topic, notice });
            }
            Event::Notification(notification) => {
                self.remember(notification.op);
                let text = notification.content.body.to_string();
                let short: String = text.chars().take(24).collect();
                outcome
                    .lines
                    .push(format!("{who} got {} {short:?} by {}", notification.topic, notification.author));
                self.files.cursor = Some(notification.op);
                self.taken = Some(notification.op);
                history.note(
                    id,
                    ClientEvent::Delivered {
                        op: notification.op,
                        author: notification.author.clone(),
                        topic: notification.topic.clone(),
                        text,
                    },
                );
            }
            Event::Gap { after, upto } => {
                outcome.lines.push(format!("{who} has a gap"));
                outcome.met.push(Situation::Gap);
                self.files.cursor = Some(upto);
                if self.taken.is_none() {
                    // A gap has no notifications to take.
                    self.acknowledged = self.acknowledged.max(upto);
                }
                self.taken = Some(upto);
                history.note(id, ClientEvent::Gap { after, upto });
            }
        }
    }

    fn remember(&mut self, op: Op) {
        if self.met.len() >= 8 {
            self.met.remove(0);
        }
        self.met.push(op);
    }

    fn happened(&self, ask_id: AskId, ask: &Request) -> ClientEvent {
        match ask {
            Request::Follow { topic, change: FollowChange::Add } => {
                ClientEvent::Followed { ask: ask_id, topic: topic.clone() }
            }
            Request::Follow { topic, change: FollowChange::Remove } => {
                ClientEvent::Unfollowed { ask: ask_id, topic: topic.clone() }
            }
            Request::Channel { channel, change } => {
                ClientEvent::ChangedChannel { ask: ask_id, channel: channel.clone(), change: change.clone() }
            }
            Request::Keys { .. } | Request::Display { .. } => ClientEvent::ChangedProfile { ask: ask_id },
            Request::Retract { op } => ClientEvent::Retracted { ask: ask_id, of: *op },
            Request::Put { key, value, .. } => {
                ClientEvent::Wrote { ask: ask_id, key: key.clone(), value: Some(value.to_string()) }
            }
            Request::Delete { key, .. } => ClientEvent::Wrote { ask: ask_id, key: key.clone(), value: None },
            Request::Send { topic, content } => ClientEvent::Sent {
                ask: ask_id,
                topic: topic.clone().unwrap_or_else(|| Topic::Feed(self.character.profile.clone())),
                text: content.body.to_string(),
            },
        }
    }
}

impl Outcome {
    /// Adds the results of a further step.
    pub fn merge(&mut self, more: Outcome) {
        self.datagrams.extend(more.datagrams);
        self.acked.extend(more.acked);
        self.taken_away.extend(more.taken_away);
        self.lines.extend(more.lines);
        self.met.extend(more.met);
        self.ended |= more.ended;
        self.broken = self.broken.take().or(more.broken);
    }
}
