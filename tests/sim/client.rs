//! One simulated client: the machine of the library, and an application that asks at random,
//! stores the cursor together with what it got, and sometimes dies.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use recado::client::machine::door::Identity;
use recado::client::machine::{Ask, Effect, Event, Input, Machine, Start};
use recado::config::PlantedBug;
use recado::entropy::Entropy;
use recado::id::{DeviceId, Moment, Name, Op, Priority, Seq, Topic};
use recado::wire::packet::{Code, Content, FollowChange};

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
}

/// What the world has to do after a client took a step.
#[derive(Debug, Default)]
pub struct Outcome {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Requests acknowledged in this step, to be checked against the servers.
    pub acked: Vec<(AskId, Op)>,
    /// Lines for a transcript.
    pub lines: Vec<String>,
    /// The machine is done: start it again after a while.
    pub ended: bool,
    /// The library broke its word.
    pub broken: Option<String>,
}

/// A client through all its lives.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub character: Character,
    pub life: u32,
    pub moves: u16,
    pub wake_at: Option<Micros>,
    machine: Option<Machine>,
    began: Micros,
    connected: bool,
    rng: Rng,
    fresh: bool,
    cursor: Option<Op>,
    taken: Option<Op>,
    outbox: BTreeMap<Seq, (AskId, Ask)>,
    asking: Option<(AskId, Ask)>,
    asks: u32,
}

impl Client {
    pub fn new(id: ClientId, character: Character, rng: Rng) -> Client {
        Client {
            id,
            character,
            life: 0,
            moves: 0,
            wake_at: None,
            machine: None,
            began: 0,
            connected: false,
            rng,
            fresh: true,
            cursor: None,
            taken: None,
            outbox: BTreeMap::new(),
            asking: None,
            asks: 0,
        }
    }

    pub fn facts(&self) -> Facts {
        Facts { profile: self.character.profile.clone(), receives: self.character.receives }
    }

    pub fn address(&self) -> SocketAddr {
        client_address(self.id.0, self.moves)
    }

    pub fn alive(&self) -> bool {
        self.machine.is_some()
    }

    /// Connected, and every request answered.
    pub fn content(&self) -> bool {
        self.connected && self.outbox.is_empty()
    }

    pub fn outstanding(&self) -> usize {
        self.outbox.len()
    }

    fn device(&self) -> DeviceId {
        DeviceId { key: tap::public(self.character.key), slot: self.character.slot }
    }

    /// The process starts, with what the application stored.
    pub fn start(&mut self, now: Micros, servers: Vec<SocketAddr>, history: &mut History) -> Outcome {
        self.life += 1;
        self.began = now;
        self.connected = false;
        self.wake_at = None;
        self.taken = None;
        let start = Start {
            servers,
            identity: Identity {
                cluster: population::CLUSTER,
                cluster_key: tap::cluster_key(),
                private: tap::private(self.character.key),
            },
            device: self.device(),
            fresh: self.fresh,
            profile: self.character.profile.clone(),
            code: None,
            invite: None,
            receives: self.character.receives,
            cursor: self.cursor,
            outbox: self.outbox.iter().map(|(seq, (_, ask))| (*seq, ask.clone())).collect(),
            entropy: Entropy::new(self.rng.bytes()),
            planted: self.character.planted,
        };
        let mut effects = Vec::new();
        self.machine = Some(Machine::new(Moment(0), start, &mut effects));
        self.perform(now, effects, history)
    }

    /// The process dies.
    pub fn crash(&mut self, history: &mut History) {
        if self.machine.take().is_none() {
            return;
        }
        self.connected = false;
        if self.character.forgets && !self.outbox.is_empty() {
            let asks = self.outbox.values().map(|(ask, _)| *ask).collect();
            self.outbox.clear();
            history.note(self.id, Happened::Forgot { asks });
        }
    }

    /// The machine takes one input.
    pub fn handle(&mut self, now: Micros, input: Input, history: &mut History) -> Outcome {
        let mut effects = Vec::new();
        if let Some(machine) = &mut self.machine {
            machine.handle(Moment(now - self.began), input, &mut effects);
        }
        self.perform(now, effects, history)
    }

    pub fn next_deadline(&self) -> Option<Micros> {
        self.machine.as_ref()?.next_deadline().map(|deadline| self.began.saturating_add(deadline.0))
    }

    /// The application asks for something; nothing while it is not let in.
    pub fn ask(&mut self, now: Micros, ask: Ask, history: &mut History) -> Outcome {
        if !self.connected {
            return Outcome::default();
        }
        self.asks += 1;
        self.asking = Some((AskId(self.asks), ask.clone()));
        let outcome = self.handle(now, Input::Ask(ask), history);
        self.asking = None;
        outcome
    }

    /// The application does something at random.
    pub fn act(&mut self, now: Micros, people: &[Name], channels: &[Name], history: &mut History) -> Outcome {
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
        let ask = match self.rng.below(100) {
            0..35 => self.send(None),
            35..60 => self.send(Some(Topic::Channel(channel))),
            60..75 => self.send(Some(Topic::Inbox(person))),
            75..93 => Ask::Follow { topic, change: FollowChange::Add },
            _ => Ask::Follow { topic, change: FollowChange::Remove },
        };
        self.ask(now, ask, history)
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
        outcome
    }

    fn on_event(&mut self, event: Event, history: &mut History, outcome: &mut Outcome) {
        let id = self.id;
        let who = self.character.profile.clone();
        match event {
            Event::Connected { cursor, .. } => {
                self.connected = true;
                self.fresh = false;
                self.cursor = self.cursor.or(Some(cursor));
                outcome.lines.push(format!("{who} connected"));
                history.note(id, Happened::Connected { cursor });
            }
            Event::PrimaryChanged { view, .. } => {
                outcome.lines.push(format!("{who} is served in view {view}"))
            }
            Event::PrimaryFound { .. } => outcome.lines.push(format!("{who} is served again")),
            Event::Searching => outcome.lines.push(format!("{who} searches")),
            Event::Ended(Code::SessionOver) => {
                outcome.lines.push(format!("{who} is fenced"));
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
            Event::Numbered(seq) => {
                let Some((ask_id, ask)) = self.asking.take() else {
                    outcome.broken = Some(format!("client {} got number {} unasked", id.0, seq.0));
                    return;
                };
                history.note(id, self.happened(ask_id, &ask));
                self.outbox.insert(seq, (ask_id, ask));
            }
            Event::NotTaken => self.asking = None,
            Event::Answered { seq, result } => {
                let Some((ask, _)) = self.outbox.remove(&seq) else {
                    outcome.broken = Some(format!("client {}: number {} answered twice", id.0, seq.0));
                    return;
                };
                match result {
                    Ok(op) => {
                        outcome.lines.push(format!("{who}: request {} acknowledged", ask.0));
                        outcome.acked.push((ask, op));
                        history.note(id, Happened::Acked { ask, op });
                    }
                    Err(code) => {
                        outcome.lines.push(format!("{who}: request {} refused, {code:?}", ask.0));
                        history.note(id, Happened::Refused { ask, code });
                    }
                }
            }
            Event::Answer(..) => {}
            Event::Notification(notification) => {
                let text = notification.content.body.clone();
                let short: String = text.chars().take(24).collect();
                outcome
                    .lines
                    .push(format!("{who} got {} {short:?} by {}", notification.topic, notification.author));
                self.cursor = Some(notification.op);
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
                self.cursor = Some(upto);
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
            Ask::Channel { .. } | Ask::Keys { .. } => unreachable!("no client of the simulation asks for it"),
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
        self.ended |= more.ended;
        self.broken = self.broken.take().or(more.broken);
    }
}
