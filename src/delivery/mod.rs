//! Pending notifications: one stream a session, in op order, with window, retransmission and
//! congestion control. Everything that goes to clients goes through here, so that one machine
//! numbers the packets of a session.
//!
//! Reading order: [`Input`], [`Effect`], `stream` (what is pending), `session` (how it gets there),
//! [`Delivery`] (the table of sessions).
//!
//! A notification is applied, or comes in a page; it waits in its session's stream; it goes out
//! under a token of the session's link as far as credit and windows allow; the link reports the
//! token arrived or lost; CLIENT_ACK takes it out of the stream and moves the cursor. It is sent
//! again when its datagrams are lost, when the client holds later ones but not this one, and now
//! and then while it is the oldest of a client that says nothing.
//!
//! Sessions known at a time are at most `Limits::sessions_served`, served or not. For one more, a session of
//! the network that has the most goes: one that is not served or is away, the longest silent first, and for
//! a network that has fewer also one that is served and here. Such a one is told so when it speaks again,
//! and resumes. Where none goes, the newcomer's datagrams are refused and counted, and its client asks
//! again. A session is of a network once its client has shown to receive there.
//!
//! Invariants: everything sent to a client is numbered here, and numbers never repeat under
//! (session, server, incarnation), nor under (session, server): see [`Delivery::new`]. Pure:
//! `handle(now, input, &mut effects)` and `next_deadline()`.

mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::session::{AWAY_AFTER, Heard, Session};
use self::stream::Stream;
use crate::config::{Config, Planted, PlantedBug};
use crate::entropy::Entropy;
use crate::fair::{Network, Shares};
use crate::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, View};
use crate::wire::envelope::Ack;
use crate::wire::noise::Reply;
use crate::wire::packet::{ClientAck, Coordinator, Notification, Packet, RefusedDatagram};
use crate::wire::seal::Key;
use crate::wire::{Class, Envelope, Header, Link, codec, handshake};

/// A session without a stream that was not heard for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// How often silent sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// What happens to the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From the listener: a datagram of a session was opened well. Always before what it carried.
    Heard {
        /// Which session.
        session: SessionId,
        /// From where. If that is new and the number is the highest so far, it is asked whether it
        /// receives there, and goes on to be served at the old one until it has said so.
        from: SocketAddr,
        /// Its packet number.
        number: u64,
        /// What it acknowledges.
        ack: Option<Ack>,
        /// How long it was, in bytes.
        length: usize,
        /// What is sealed with for this session.
        key: Key,
    },
    /// From a handler: CLIENT_ACK of a session.
    ClientAck(SessionId, ClientAck),
    /// From a handler: PATH_RESPONSE of a session.
    PathResponse {
        /// Which session.
        session: SessionId,
        /// From where.
        from: SocketAddr,
        /// Of the PATH_CHALLENGE.
        token: u64,
    },
    /// From the replica thread: this server, primary, serves the session from `cursor` on: start
    /// (or restart) its stream there, after the packets (RESUME_OK). A session that was not heard here,
    /// or is forgotten, asks again.
    Serve {
        /// Which session.
        session: SessionId,
        /// Where the client stands.
        cursor: Op,
        /// How many notifications it takes beyond; none: a session that only sends.
        credit: Option<u32>,
    },
    /// The session is over: forget it once `packets` are sent.
    Over {
        /// Which session.
        session: SessionId,
        /// The last words.
        packets: Vec<Packet>,
    },
    /// An answer on a session.
    Answer {
        /// Which session.
        session: SessionId,
        /// What.
        packet: Packet,
    },
    /// An answer to whoever knocked.
    AnswerTo {
        /// Whom.
        caller: Caller,
        /// What; in one datagram.
        packets: Vec<Packet>,
    },
    /// A notification was applied; addressed to these live receiving sessions.
    Applied {
        /// It.
        notification: Arc<Notification>,
        /// To whom.
        sessions: Vec<SessionId>,
    },
    /// The page asked for by [`Effect::WantPage`].
    Page {
        /// Which session.
        session: SessionId,
        /// After which op it was asked.
        after: Op,
        /// The page.
        page: crate::service::Page,
    },
    /// The page asked for by [`Effect::WantPage`] costs more than its session may spend now.
    PageLater {
        /// Which session.
        session: SessionId,
        /// After which op it was asked.
        after: Op,
        /// How long it takes until it can be had.
        wait: Duration,
    },
    /// An active view is known: announce it to every address heard, and put it into every header.
    Announce(Coordinator),
    /// What these sessions may read has become less: what is queued for them is asked for again, so
    /// that nothing of it is sent that they may no longer read.
    Withdrawn(Vec<SessionId>),
    /// Some [`Input::Applied`] before this were dropped, a channel being full: every live stream
    /// asks for pages again. It must come through the same channel, after what was dropped.
    Missed,
    /// This server is no longer (or not yet) an active primary: streams stop, links stay.
    Silence,
    /// A deadline may have passed.
    Deadline,
}

/// Somebody without a session who knocked, and how to answer: once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where to.
    pub to: SocketAddr,
    /// What the answer is sealed with.
    pub reply: Reply,
}

/// What the delivery wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a client.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Ask the replica thread for a page of a session that is behind.
    WantPage {
        /// Which session.
        session: SessionId,
        /// What is pending beyond this op.
        after: Op,
        /// At most so many.
        limit: u32,
    },
    /// A session's client has shown that it receives here, and not where it was known to before.
    Path {
        /// Which session.
        session: SessionId,
        /// Where.
        address: SocketAddr,
    },
    /// A session's application has delivered up to here.
    Cursor {
        /// Which session.
        session: SessionId,
        /// The new cursor.
        upto: Op,
    },
    /// A datagram of a session was not taken, its number having come before or there being no room
    /// for another session: count it.
    Refused(RefusedDatagram),
}

/// The machine of the PendingNotificationWorker.
#[derive(Debug)]
pub struct Delivery {
    cluster: ClusterId,
    me: NodeId,
    incarnation: Incarnation,
    /// Most notifications in flight to one session.
    window: u32,
    planted: PlantedBug,
    /// Most sessions known at a time.
    most: usize,
    /// What was announced last.
    coordinator: Option<Coordinator>,
    sessions: BTreeMap<SessionId, Session>,
    /// All sessions by when they were last heard.
    silent: BTreeSet<(Moment, SessionId)>,
    /// All sessions by the network where their client has shown that it receives; of use if served.
    shares: Shares<Option<Network>, SessionId>,
    /// Those that wait for a time.
    deadlines: BTreeSet<(Moment, SessionId)>,
    next_sweep: Option<Moment>,
    /// The number of the last answer to a caller.
    answers: u64,
    /// For path challenges.
    entropy: Entropy,
    /// The first number of the next link: above every number of every link dropped before.
    next_number: u64,
    next_token: u64,
}

impl Delivery {
    /// Nothing pending yet.
    ///
    /// Packet numbers begin at `incarnation << 32` and a session's new link begins above whatever
    /// a dropped one used. So a number names one datagram of this server for good, and an ack that
    /// was meant for an earlier life of it cannot be taken for one of this life.
    pub fn new(config: &Config, incarnation: Incarnation, seed: [u8; 32]) -> Delivery {
        let next_number = (incarnation.0 << 32) | 1;
        Delivery {
            cluster: config.cluster.id,
            me: config.cluster.me,
            incarnation,
            window: config.limits.window,
            planted: config.planted,
            most: config.limits.sessions_served,
            coordinator: None,
            sessions: BTreeMap::new(),
            silent: BTreeSet::new(),
            shares: Shares::default(),
            deadlines: BTreeSet::new(),
            next_sweep: None,
            answers: 0,
            entropy: Entropy::new(seed),
            next_number,
            next_token: 1,
        }
    }

    /// Takes one input at `now`, pushing what is to be done.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Heard { session, from, number, ack, length, key } => {
                self.on_heard(now, session, key, Heard { from, number, ack, length }, out);
            }
            Input::PathResponse { session, from, token } => {
                self.with(now, session, out, |entry, _, out| {
                    let moved = entry.on_path_response(from, token);
                    out.extend(moved.map(|address| Effect::Path { session, address }));
                });
            }
            Input::ClientAck(session, ack) => {
                let beyond = self.planted.is(Planted::CursorBeyondAcknowledged);
                self.with(now, session, out, |entry, _, out| {
                    if let Some(mut upto) = entry.on_client_ack(now, &ack) {
                        if let Some(stream) = entry.stream.as_ref().filter(|_| beyond) {
                            upto = stream.tail();
                        }
                        out.push(Effect::Cursor { session, upto });
                    }
                });
            }
            Input::Serve { session, cursor, credit } => {
                let window = self.window;
                self.with(now, session, out, |entry, _, _| {
                    entry.serve(credit.map(|credit| Stream::new(cursor, credit, window)));
                });
            }
            Input::Over { session, packets } => {
                let view = self.view();
                if let Some(mut entry) = self.forget(session) {
                    entry.say(now, view, &packets, out);
                    self.retire(&entry);
                }
            }
            Input::Answer { session, packet } => {
                let view = self.view();
                if let Some(entry) = self.sessions.get_mut(&session) {
                    entry.say(now, view, &[packet], out);
                }
            }
            Input::AnswerTo { caller, packets } => self.answer(&caller, &packets, out),
            Input::Applied { notification, sessions } => {
                for session in sessions {
                    if self.sessions.get(&session).is_some_and(|entry| entry.stream.is_some()) {
                        self.with(now, session, out, |entry, _, _| {
                            if let Some(stream) = &mut entry.stream {
                                stream.applied(&notification);
                            }
                        });
                    }
                }
            }
            Input::Withdrawn(sessions) => {
                for session in sessions {
                    self.with(now, session, out, |entry, _, _| {
                        if let Some(stream) = &mut entry.stream {
                            stream.withdraw();
                        }
                    });
                }
            }
            Input::Page { session, after, page } => {
                self.with(now, session, out, |entry, _, _| {
                    if let Some(stream) = &mut entry.stream {
                        stream.page(after, page);
                    }
                });
            }
            Input::PageLater { session, after, wait } => {
                self.with(now, session, out, |entry, _, _| {
                    if let Some(stream) = &mut entry.stream {
                        stream.page_later(now, after, wait);
                    }
                });
            }
            Input::Announce(coordinator) => self.announce(now, coordinator, out),
            Input::Missed if self.planted.is(Planted::MissedUnheeded) => {}
            Input::Missed => self.each_stream(now, out, |entry| {
                if let Some(stream) = &mut entry.stream {
                    stream.missed();
                }
            }),
            Input::Silence => self.silence(now, out),
            Input::Deadline => self.on_deadline(now, out),
        }
    }

    /// When a [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.first().map(|(at, _)| *at), self.next_sweep].into_iter().flatten().min()
    }

    /// Whether this server is the primary of the view announced last.
    fn leads(&self) -> bool {
        self.view().primary() == Some(self.me)
    }

    fn view(&self) -> View {
        self.coordinator.as_ref().map_or(View::ZERO, |coordinator| coordinator.view)
    }

    /// A datagram of a session came: of one not heard before if it is unknown.
    fn on_heard(&mut self, now: Moment, id: SessionId, key: Key, heard: Heard, out: &mut Vec<Effect>) {
        if !self.make_room_for(now, id, heard.from, out) {
            return out.push(Effect::Refused(RefusedDatagram::QueueFull));
        }
        if !self.sessions.contains_key(&id) {
            let envelope = Envelope {
                class: Class::Client,
                cluster: self.cluster,
                session: id,
                node: Some(self.me),
                incarnation: self.incarnation,
                number: 0,
            };
            let entry = Session::new(now, id, Link::starting_at(envelope, key, self.next_number));
            self.sessions.insert(id, entry);
        }
        let token = self.entropy.number();
        let leads = self.leads();
        self.with(now, id, out, |entry, view, out| {
            if !entry.on_heard(now, &heard, token, out) {
                out.push(Effect::Refused(RefusedDatagram::Repeated));
            } else if leads {
                entry.remind(now, view, out);
            }
        });
    }

    /// Answers whoever knocked, in one datagram.
    fn answer(&mut self, caller: &Caller, packets: &[Packet], out: &mut Vec<Effect>) {
        self.answers += 1;
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: self.cluster,
            session: SessionId::default(),
            node: Some(self.me),
            incarnation: self.incarnation,
            number: self.answers,
        };
        let header = Header { ack: None, view: self.view() };
        let packets: Vec<Vec<u8>> = packets.iter().map(codec::encode).collect();
        // What does not fit is ours to bound: no answer has so many parts.
        if packets.iter().map(Vec::len).sum::<usize>() <= handshake::ANSWER_MAX {
            let bytes = handshake::answer(&envelope, &caller.reply, &header, &packets);
            out.push(Effect::Datagram { to: caller.to, bytes });
        }
    }

    /// Does something to a session, lets it send what it then can, and puts it in its new place in
    /// the indexes. Nothing, if it is unknown.
    fn with(
        &mut self,
        now: Moment,
        id: SessionId,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Session, View, &mut Vec<Effect>),
    ) {
        let view = self.view();
        let Some(mut entry) = self.remove(id) else { return };
        act(&mut entry, view, out);
        entry.pump(now, view, &mut self.next_token, out);
        entry.deadline = entry.next_deadline(now);
        self.silent.insert((entry.heard, id));
        self.shares.put(id, entry.network(), entry.is_served(), entry.heard);
        if let Some(at) = entry.deadline {
            self.deadlines.insert((at, id));
        }
        self.sessions.insert(id, entry);
        self.next_sweep.get_or_insert(now + SWEEP_EVERY);
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let entry = self.sessions.remove(&id)?;
        self.silent.remove(&(entry.heard, id));
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
        Some(entry)
    }

    /// Removes a session for good.
    fn forget(&mut self, id: SessionId) -> Option<Session> {
        self.shares.remove(&id);
        self.remove(id)
    }

    /// A link is dropped: a later one must not use its numbers again.
    fn retire(&mut self, entry: &Session) {
        self.next_number = self.next_number.max(entry.link.next_number());
    }

    /// Whether there is room for a session, if need be in place of another: see the module.
    fn make_room_for(&mut self, now: Moment, id: SessionId, from: SocketAddr, out: &mut Vec<Effect>) -> bool {
        if self.sessions.len() < self.most || self.sessions.contains_key(&id) {
            return true;
        }
        // Whether it is there is asked only once it has a place. Until then the place is nobody's, and with all
        // such places counts as one network's: whoever lies about his address has no more than that.
        let network = Some(Network::of(from.ip()));
        let Some(least) = self.shares.gives_way(&network, now - AWAY_AFTER) else { return false };
        let view = self.view();
        if let Some(mut entry) = self.forget(least) {
            entry.turn_away(now, view, out);
            self.retire(&entry);
        }
        true
    }

    fn silence(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let served = self.sessions.iter().filter(|(_, entry)| entry.is_served());
        for id in served.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.with(now, id, out, |entry, _, _| entry.silence());
        }
    }

    fn each_stream(&mut self, now: Moment, out: &mut Vec<Effect>, act: impl Fn(&mut Session)) {
        let served = self.sessions.iter().filter(|(_, entry)| entry.stream.is_some());
        for id in served.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.with(now, id, out, |entry, _, _| act(entry));
        }
    }

    fn announce(&mut self, now: Moment, coordinator: Coordinator, out: &mut Vec<Effect>) {
        if coordinator.view < self.view() {
            return;
        }
        let view = coordinator.view;
        let packets = [Packet::Coordinator(coordinator.clone())];
        self.coordinator = Some(coordinator);
        let lately = now - AWAY_AFTER;
        let present = self.silent.range((lately, SessionId::default())..).map(|(_, id)| *id);
        for id in present.collect::<Vec<_>>() {
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.say(now, view, &packets, out);
            }
        }
    }

    fn on_deadline(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let due = self.deadlines.range(..=(now, SessionId(Op(u64::MAX)))).map(|(_, id)| *id);
        for id in due.collect::<Vec<_>>() {
            self.with(now, id, out, |_, _, _| {});
        }
        if self.next_sweep.is_some_and(|at| now >= at) {
            self.sweep(now, out);
            self.next_sweep = (!self.sessions.is_empty()).then_some(now + SWEEP_EVERY);
        }
    }

    /// Forgets sessions that are neither heard nor served, and puts streams of silent clients to sleep.
    fn sweep(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let away = self.silent.iter().take_while(|(heard, _)| now >= *heard + AWAY_AFTER);
        for (heard, id) in away.copied().collect::<Vec<_>>() {
            let served = self.sessions.get(&id).is_some_and(|entry| entry.stream.is_some());
            if served {
                self.with(now, id, out, |_, _, _| {});
            } else if now >= heard + FORGET_AFTER
                && let Some(entry) = self.forget(id)
            {
                self.retire(&entry);
            }
        }
    }
}
