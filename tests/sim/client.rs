//! One simulated client: the machine of the library, and an application that asks at random,
//! stores the cursor together with what it got, and sometimes dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use recado::client::machine::door::Identity;
use recado::client::machine::{Answer, Ask, Effect, Event, Input, Machine, Numbered, Question, Start};
use recado::config::{Planted, PlantedBug};
use recado::entropy::Entropy;
use recado::id::{DeviceId, Moment, Name, Op, Priority, Seq, Topic};
use recado::wire::packet::{
    ChannelChange, Code, CodeHash, Content, FollowChange, HistoryRange, KeyChange, Listing, QueryId, Role,
};

use crate::coverage::Met;
use crate::faults::MS;
use crate::history::{AskId, ClientId, Facts, Happened, History};
use crate::network::{Micros, client_address};
use crate::rng::Rng;
use crate::{population, tap};

/// Who a client is and how it behaves.
#[derive(Clone, Debug)]
pub struct Character {
    /// The mistake its machine makes.
    pub planted: PlantedBug,
    pub profile: Name,
    /// The installation; clients of one profile share it and differ by slot.
    pub key: u8,
    pub slot: u8,
    pub receives: bool,
    /// Loses its unanswered requests when it dies.
    pub forgets: bool,
    /// Tells the machine what it took only now and then.
    pub takes_late: bool,
    /// Many of its texts are longer than a datagram.
    pub long_texts: bool,
    /// What it does beside sending and following.
    pub habits: Habits,
}

/// What a client does beside sending and following: so many of a thousand times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Asks what a topic holds, and other questions.
    pub questions: u64,
    /// Makes owned channels, changes their members, deletes them.
    pub rights: u64,
    /// Opens and revokes enrolments.
    pub keys: u64,
    /// Of the profile's enrolments.
    pub code: Option<CodeHash>,
    /// Comes in by that code.
    pub enrols: bool,
    /// Its device may be forgotten, or not be let in.
    pub may_be_disowned: bool,
    /// Claims its name by this invitation.
    pub invite: Option<CodeHash>,
    /// Does nothing with its name but claim it, and stays away for so long.
    pub away: Option<Micros>,
    /// From the lowest number without an answer it asks so many.
    pub outstanding: Option<u64>,
}

/// What the world has to do after a client took a step.
#[derive(Debug, Default)]
pub struct Outcome {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Requests acknowledged in this step, to be checked against the servers.
    pub acked: Vec<(AskId, Op)>,
    /// Lines for a transcript.
    pub lines: Vec<String>,
    pub met: Vec<Met>,
    /// The machine is done: start it again after a while.
    pub ended: bool,
    /// The library broke its word.
    pub broken: Option<String>,
}

/// What a device's files hold, which can be copied and put back.
#[derive(Clone, Debug, Default)]
struct Files {
    /// The op that let it in.
    born: Option<Op>,
    given: Seq,
    cursor: Option<Op>,
    outbox: BTreeMap<Seq, Kept>,
}

/// An unanswered request in the files.
#[derive(Clone, Debug)]
struct Kept {
    /// Who asked it: not this client if its files are a copy of another's.
    owner: ClientId,
    ask: AskId,
    nonce: u64,
    what: Ask,
    /// Asked before a server was heard.
    ahead: bool,
}

/// A client through all its lives.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub character: Character,
    pub life: u32,
    pub moves: u16,
    pub wake_at: Option<Micros>,
    device: DeviceId,
    machine: Option<Machine>,
    began: Micros,
    connected: bool,
    rng: Rng,
    files: Files,
    /// An older copy of them.
    copy: Option<Files>,
    /// Whether there is, or was, another copy of its files.
    pub copied: bool,
    /// Whether it was removed and let in again with its files.
    let_in_anew: bool,
    has_twin: bool,
    /// Began as a copy of another, and stays no longer than there is trouble.
    pub visits: bool,
    /// Leaves for good once nothing of it is unanswered ...
    pub leaves: bool,
    /// ... and has.
    pub left: bool,
    taken: Option<Op>,
    /// Own requests whose end is known, or will never be.
    settled: BTreeSet<AskId>,
    asking: Option<(AskId, Ask)>,
    asks: u32,
    queries: u64,
    /// Its device is not let in for now.
    outside: bool,
    /// Everything up to here the application has said that it has taken, in any life.
    acknowledged: Op,
}

impl Client {
    pub fn new(id: ClientId, character: Character, rng: Rng) -> Client {
        let device = DeviceId { key: tap::public(character.key), slot: character.slot };
        Client {
            id,
            character,
            life: 0,
            moves: 0,
            wake_at: None,
            device,
            machine: None,
            began: 0,
            connected: false,
            rng,
            files: Files::default(),
            copy: None,
            copied: false,
            let_in_anew: false,
            has_twin: false,
            visits: false,
            leaves: false,
            left: false,
            taken: None,
            settled: BTreeSet::new(),
            asking: None,
            asks: 0,
            queries: 0,
            outside: false,
            acknowledged: Op::ZERO,
        }
    }

    /// Another process on a copy of this one's files; none before there are any. It is no device of its own,
    /// so nobody promises that it sees everything before it leaves.
    pub fn twin(&mut self, id: ClientId, rng: Rng) -> Option<Client> {
        if !self.has_files_to_copy() {
            return None;
        }
        (self.copied, self.has_twin) = (true, true);
        let mut twin = Client::new(id, self.character.clone(), rng);
        (twin.files, twin.copied, twin.visits) = (self.files.clone(), true, true);
        Some(twin)
    }

    /// Keeps a copy of the files as they are.
    pub fn keep_copy(&mut self) {
        if self.has_files_to_copy() {
            self.copy = Some(self.files.clone());
        }
    }

    /// The requests in a copy of what the service has forgotten since may be done once more, and nobody is
    /// promised otherwise: none is made where that may happen.
    fn has_files_to_copy(&self) -> bool {
        self.files.born.is_some() && !self.character.habits.may_be_disowned
    }

    /// Dies, and has the files of the copy kept before; false without one.
    pub fn put_back(&mut self, history: &mut History) -> bool {
        // Of copies that differ in what they have given up one may ask for something that another has done, once
        // the servers hold its result no longer: DESIGN.md section 3 says so.
        let of_use = |copy: &Files| !self.has_twin || copy.outbox.is_empty();
        let Some(copy) = self.copy.clone().filter(of_use) else { return false };
        self.crash(history);
        let asked = std::mem::replace(&mut self.files, copy).outbox;
        let still =
            |kept: &Kept| self.files.outbox.values().any(|of| (of.owner, of.ask) == (kept.owner, kept.ask));
        let lost = asked.into_values().filter(|kept| kept.owner == self.id && !still(kept));
        let lost: Vec<AskId> = lost.map(|kept| kept.ask).filter(|ask| self.settled.insert(*ask)).collect();
        history.note(self.id, Happened::Forgot { asks: lost });
        history.note(self.id, Happened::PutBack { cursor: self.files.cursor });
        self.copied = true;
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

    /// Connected, or one device more than there may be, and every request answered.
    pub fn content(&self) -> bool {
        let waits = self.files.born.is_none() && self.character.habits.may_be_disowned;
        (self.connected || self.left || waits) && self.files.outbox.is_empty()
    }

    /// How long it waits before it tries again.
    pub fn patience(&self) -> Micros {
        if self.outside { 400 * MS } else { self.character.habits.away.unwrap_or(50 * MS) }
    }

    /// Whether it is let in, as far as it knows.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Which device has said that it has taken everything up to where.
    pub fn has_taken(&self) -> (DeviceId, Op) {
        (self.device, self.acknowledged)
    }

    pub fn outstanding(&self) -> usize {
        self.files.outbox.len()
    }

    /// The process starts, with what the application stored.
    pub fn start(&mut self, now: Micros, servers: Vec<SocketAddr>, history: &mut History) -> Outcome {
        self.life += 1;
        self.began = now;
        self.connected = false;
        self.wake_at = None;
        self.taken = None;
        self.acknowledged = self.acknowledged.max(self.files.cursor.unwrap_or_default());
        let start = Start {
            servers,
            identity: Identity {
                cluster: population::CLUSTER,
                cluster_key: tap::cluster_key(),
                private: tap::private(self.character.key),
            },
            device: self.device,
            born: self.files.born,
            profile: self.character.profile.clone(),
            code: self.character.habits.code.filter(|_| self.character.habits.enrols),
            invite: self.character.habits.invite,
            receives: self.character.receives,
            cursor: self.files.cursor,
            outbox: self.kept().collect(),
            given: self.files.given,
            entropy: Entropy::new(self.rng.bytes()),
            planted: self.character.planted,
        };
        let mut effects = Vec::new();
        self.machine = Some(Machine::new(Moment(0), start, &mut effects));
        self.perform(now, effects, history)
    }

    /// What the files say is unanswered.
    fn kept(&mut self) -> impl Iterator<Item = Numbered> {
        let drawn_anew = self.character.planted.is(Planted::NonceNotKept);
        for kept in self.files.outbox.values_mut().filter(|kept| kept.ahead && drawn_anew) {
            kept.nonce = self.rng.next();
        }
        self.files.outbox.iter().map(|(seq, kept)| Numbered {
            seq: *seq,
            nonce: kept.nonce,
            ask: kept.what.clone(),
        })
    }

    /// The process dies.
    pub fn crash(&mut self, history: &mut History) {
        if self.machine.take().is_none() {
            return;
        }
        self.connected = false;
        if self.character.forgets && !self.files.outbox.is_empty() {
            let asked = std::mem::take(&mut self.files.outbox).into_values();
            let lost = asked.filter(|kept| kept.owner == self.id).map(|kept| kept.ask);
            let asks = lost.filter(|ask| self.settled.insert(*ask)).collect();
            // With the file that they stood in.
            self.files.given = Seq(0);
            history.note(self.id, Happened::Forgot { asks });
        }
    }

    /// The service has forgotten the device: nothing that it remembers means anything any more.
    fn disown(&mut self, history: &mut History) {
        let asked = std::mem::take(&mut self.files).outbox.into_values().map(|kept| kept.ask);
        let asks = asked.filter(|ask| self.settled.insert(*ask)).collect();
        history.note(self.id, Happened::Disowned { asks });
    }

    /// The machine takes one input.
    pub fn handle(&mut self, now: Micros, input: Input, history: &mut History) -> Outcome {
        if let Input::Taken(upto) = input {
            self.acknowledged = self.acknowledged.max(upto);
        }
        let mut effects = Vec::new();
        if let Some(machine) = &mut self.machine {
            machine.handle(Moment(now - self.began), input, &mut effects);
        }
        self.perform(now, effects, history)
    }

    pub fn next_deadline(&self) -> Option<Micros> {
        self.machine.as_ref()?.next_deadline().map(|deadline| self.began.saturating_add(deadline.0))
    }

    /// The application asks for something, with a server heard or without.
    pub fn ask(&mut self, now: Micros, ask: Ask, history: &mut History) -> Outcome {
        if !(self.connected || self.may_ask_ahead()) || !self.has_room() {
            return Outcome::default();
        }
        self.asks += 1;
        self.asking = Some((AskId(self.asks), ask.clone()));
        let outcome = self.handle(now, Input::Ask(ask), history);
        self.asking = None;
        if !self.connected && self.rng.permille(500) {
            self.keep_copy();
        }
        outcome
    }

    /// Whether its files know where its numbers go on.
    fn may_ask_ahead(&self) -> bool {
        self.alive() && self.has_files_to_copy() && !self.character.forgets
    }

    /// Whether another number is within those whose results the service keeps.
    fn has_room(&self) -> bool {
        let span =
            self.files.outbox.first_key_value().map_or(0, |(first, _)| self.files.given.0 - first.0 + 1);
        span < self.character.habits.outstanding.unwrap_or(u64::MAX)
    }

    /// The application does something at random.
    pub fn act(&mut self, now: Micros, people: &[Name], channels: &[Name], history: &mut History) -> Outcome {
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

    fn act_now(&mut self, now: Micros, people: &[Name], channels: &[Name], history: &mut History) -> Outcome {
        let own = self.character.profile.clone();
        let person = self.rng.pick(people).cloned().unwrap_or(own.clone());
        let channel = self.rng.pick(channels).cloned().unwrap_or(own);
        let topic = if self.rng.permille(500) {
            Topic::Feed(person.clone())
        } else {
            Topic::Channel(channel.clone())
        };
        let habits = self.character.habits;
        if self.rng.permille(habits.questions) {
            return self.question(now, channel, history);
        }
        if self.rng.permille(habits.keys) {
            let code = habits.code.unwrap_or(CodeHash([0; 32]));
            let revoke = self.rng.permille(150);
            let key = tap::public(2);
            let change = if revoke { KeyChange::Revoke { key } } else { KeyChange::Enrol { code } };
            return self.ask(now, Ask::Keys { change }, history);
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
            75..93 => Ask::Follow { topic, change: FollowChange::Add },
            _ => Ask::Follow { topic, change: FollowChange::Remove },
        };
        self.ask(now, ask, history)
    }

    /// A question at random.
    fn question(&mut self, now: Micros, channel: Name, history: &mut History) -> Outcome {
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
        let question = match self.rng.below(10) {
            0 => Question::Info { profile: None },
            1 => Question::List { what: Listing::Following, after: None },
            2 => Question::List { what: Listing::Devices, after: None },
            _ => {
                history.note(self.id, Happened::Asked { query, topic: topic.clone() });
                let range = HistoryRange::Before(Op(u64::MAX));
                Question::History { topic: Some(topic), range, limit: 3 }
            }
        };
        self.handle(now, Input::Question(query, question), history)
    }

    /// A change to an owned channel at random.
    fn change(&mut self, channel: Name, member: Name) -> Ask {
        let role = [Role::Reader, Role::Writer, Role::Owner][self.rng.below(3) as usize];
        let change = match self.rng.below(10) {
            0..3 => ChannelChange::Create { private: self.rng.permille(600) },
            3..6 => ChannelChange::Add { member, role },
            6..9 => ChannelChange::Remove { member },
            _ => ChannelChange::Delete,
        };
        Ask::Channel { channel, change }
    }

    /// A SEND whose text is unique in the world.
    pub fn send(&mut self, topic: Option<Topic>) -> Ask {
        let length = match self.rng.below(if self.character.long_texts { 8 } else { 40 }) {
            0 => self.rng.range(2_000, 9_000),
            1..5 => self.rng.range(300, 1_100),
            _ => self.rng.range(1, 40),
        };
        let body = format!("c{}-{} {}", self.id.0, self.asks + 1, "x".repeat(length as usize));
        self.send_text(topic, body)
    }

    /// A SEND of this text.
    pub fn send_text(&self, topic: Option<Topic>, body: String) -> Ask {
        Ask::Send {
            topic,
            content: Content { title: None, priority: Priority::default(), tags: Vec::new(), body },
        }
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

    fn on_event(&mut self, event: Event, history: &mut History, outcome: &mut Outcome) {
        let id = self.id;
        let who = self.character.profile.clone();
        match event {
            Event::Connected { born, cursor, last_seq, lost, .. } => {
                if lost.is_some() {
                    outcome.broken = Some(format!("client {}: the cursor {lost:?} was refused", id.0));
                }
                if self.files.born.is_none() && self.character.habits.enrols {
                    outcome.met.push(Met::Enrolled);
                }
                self.connected = true;
                self.outside = false;
                // What a removed device left is about to be told as forgotten: its numbers are not of this one.
                let another = self.files.born.is_some_and(|before| before != born);
                self.let_in_anew |= another;
                let highest = self.files.outbox.last_key_value().filter(|_| !another).map(|(seq, _)| *seq);
                (self.files.born, self.files.given) = (Some(born), last_seq.max(highest.unwrap_or(Seq(0))));
                self.files.cursor = self.files.cursor.or(Some(cursor));
                outcome.lines.push(format!("{who} connected"));
                history.note(id, Happened::Connected { cursor });
            }
            Event::PrimaryChanged { view, .. } => {
                outcome.lines.push(format!("{who} is served in view {view}"))
            }
            Event::PrimaryFound { .. } => outcome.lines.push(format!("{who} is served again")),
            Event::Searching => outcome.lines.push(format!("{who} searches")),
            Event::Copied(sign) => {
                outcome.lines.push(format!("{who} is copied: {sign:?}"));
                outcome.met.push(Met::Copied);
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
                outcome.met.push(Met::SessionOver);
                outcome.ended = true;
            }
            // Forgotten, or its key was revoked and the code it shows again is no good any more, or is of a profile
            // that was removed.
            Event::Ended(Code::UnknownDevice | Code::NotYours | Code::WrongCode | Code::UnknownProfile)
                if self.character.habits.may_be_disowned && self.files.born.is_some() =>
            {
                outcome.lines.push(format!("{who} is not known any more"));
                outcome.met.push(Met::Disowned);
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
            ) if self.character.habits.may_be_disowned && self.files.born.is_none() => {
                outcome.lines.push(format!("{who} is not let in"));
                outcome.met.push(Met::Outside);
                self.outside = true;
                outcome.ended = true;
            }
            Event::Ended(code) => {
                outcome.broken = Some(format!("client {} was turned away: {code:?}", id.0));
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
                self.files
                    .outbox
                    .insert(seq, Kept { owner: id, ask: ask_id, nonce, what: ask, ahead: !self.connected });
                self.files.given = self.files.given.max(seq);
            }
            Event::Renumbered(moved) => {
                outcome.lines.push(format!("{who}: {} requests renumbered", moved.len()));
                outcome.met.push(Met::Renumbered);
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
            Event::Answered { seq, result } => {
                let Some(Kept { owner, ask, what, ahead, .. }) = self.files.outbox.remove(&seq) else {
                    outcome.broken = Some(format!("client {}: number {} answered twice", id.0, seq.0));
                    return;
                };
                let done_by_copy = owner != id || self.settled.contains(&ask);
                outcome.met.extend((ahead && done_by_copy).then_some(Met::DoneByCopy));
                if result == Err(Code::NumberForgotten) {
                    outcome.lines.push(format!("{who}: request {} is forgotten", ask.0));
                    outcome.met.push(Met::NumberForgotten);
                    if !self.copied && !self.let_in_anew {
                        outcome.broken = Some(format!(
                            "client {} has no copy and was not removed, and {} is forgotten",
                            id.0, seq.0
                        ));
                    }
                    if owner == id && self.settled.insert(ask) {
                        history.note(id, Happened::Forgot { asks: vec![ask] });
                    }
                    return;
                }
                if owner != id || !self.settled.insert(ask) {
                    history.note(id, Happened::AnsweredAgain { of: owner, ask, result });
                    return;
                }
                let deletes = matches!(what, Ask::Channel { change: ChannelChange::Delete, .. });
                match result {
                    Ok(op) => {
                        outcome.lines.push(format!("{who}: request {} acknowledged", ask.0));
                        outcome.met.extend(deletes.then_some(Met::ChannelDeleted));
                        outcome.acked.push((ask, op));
                        history.note(id, Happened::Acked { ask, op });
                    }
                    Err(code) => {
                        outcome.lines.push(format!("{who}: request {} refused, {code:?}", ask.0));
                        outcome.met.extend((code == Code::NotAllowed).then_some(Met::NotAllowed));
                        history.note(id, Happened::Refused { ask, code });
                    }
                }
            }
            Event::Answer(query, Answer::History(answer)) => {
                outcome.met.push(Met::Read);
                let newest = answer.notifications.last().map(|notification| notification.op);
                let (trimmed_upto, applied) = (answer.trimmed_upto, answer.applied);
                history.note(id, Happened::Read { query, newest, trimmed_upto, applied });
            }
            Event::Answer(..) => {}
            Event::Notification(notification) => {
                let text = notification.content.body.clone();
                let short: String = text.chars().take(24).collect();
                outcome
                    .lines
                    .push(format!("{who} got {} {short:?} by {}", notification.topic, notification.author));
                self.files.cursor = Some(notification.op);
                self.taken = Some(notification.op);
                history.note(
                    id,
                    Happened::Delivered {
                        op: notification.op,
                        author: notification.author.clone(),
                        topic: notification.topic.clone(),
                        text,
                    },
                );
            }
            Event::Gap { after, upto } => {
                outcome.lines.push(format!("{who} has a gap"));
                outcome.met.push(Met::Gap);
                self.files.cursor = Some(upto);
                if self.taken.is_none() {
                    // There is nothing to take in a gap.
                    self.acknowledged = self.acknowledged.max(upto);
                }
                self.taken = Some(upto);
                history.note(id, Happened::Gap { after, upto });
            }
        }
    }

    fn happened(&self, ask_id: AskId, ask: &Ask) -> Happened {
        match ask {
            Ask::Follow { topic, change: FollowChange::Add } => {
                Happened::Followed { ask: ask_id, topic: topic.clone() }
            }
            Ask::Follow { topic, change: FollowChange::Remove } => {
                Happened::Unfollowed { ask: ask_id, topic: topic.clone() }
            }
            Ask::Channel { channel, change } => {
                Happened::ChangedChannel { ask: ask_id, channel: channel.clone(), change: change.clone() }
            }
            Ask::Keys { .. } => Happened::ChangedKeys { ask: ask_id },
            Ask::Send { topic, content } => Happened::Sent {
                ask: ask_id,
                topic: topic.clone().unwrap_or_else(|| Topic::Feed(self.character.profile.clone())),
                text: content.body.clone(),
            },
        }
    }
}

impl Outcome {
    /// Adds what a further step brought about.
    pub fn merge(&mut self, more: Outcome) {
        self.datagrams.extend(more.datagrams);
        self.acked.extend(more.acked);
        self.lines.extend(more.lines);
        self.met.extend(more.met);
        self.ended |= more.ended;
        self.broken = self.broken.take().or(more.broken);
    }
}
