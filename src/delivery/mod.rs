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

use self::session::{AWAY_AFTER, Session};
use self::stream::Stream;
use crate::config::Config;
use crate::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, View};
use crate::wire::envelope::Ack;
use crate::wire::packet::{ClientAck, Coordinator, Notification, Packet, RefusedDatagram};
use crate::wire::{Class, Envelope, Link};

/// Most sessions known at a time, served or not. For one more, the one goes that is not served and
/// silent for the longest; if all are served, one that is away, whose client resumes when it is back.
/// If all of those are here, the newcomer's datagrams are refused and counted, and its client asks
/// again: a session that is served and here would not learn that it is not served any more.
pub const SESSIONS_MAX: usize = 65_536;
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
        /// From where: the session's address from now on, if the number is the highest so far.
        from: SocketAddr,
        /// Its packet number.
        number: u64,
        /// What it acknowledges.
        ack: Option<Ack>,
    },
    /// From a handler: CLIENT_ACK of a session.
    ClientAck(SessionId, ClientAck),
    /// From the replica thread: this server, primary, serves the session from `cursor` on: start
    /// (or restart) its stream there, after the packets (ACCEPT_CONN or RESUME_OK).
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
    /// An answer to an address without a session.
    AnswerTo {
        /// Where to.
        to: SocketAddr,
        /// What.
        packet: Packet,
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
    /// An active view is known: announce it to every address heard, and put it into every header.
    Announce(Coordinator),
    /// Some [`Input::Applied`] before this were dropped, a channel being full: every live stream
    /// asks for pages again. It must come through the same channel, after what was dropped.
    Missed,
    /// This server is no longer (or not yet) an active primary: streams stop, links stay.
    Silence,
    /// A deadline may have passed.
    Deadline,
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
    /// What was announced last.
    coordinator: Option<Coordinator>,
    sessions: BTreeMap<SessionId, Session>,
    /// All sessions by when they were last heard.
    silent: BTreeSet<(Moment, SessionId)>,
    /// Those of them without a stream: they make room first.
    unserved: BTreeSet<(Moment, SessionId)>,
    /// Those that wait for a time.
    deadlines: BTreeSet<(Moment, SessionId)>,
    next_sweep: Option<Moment>,
    /// Numbers what goes to addresses without a session.
    handshake: Link,
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
    pub fn new(config: &Config, incarnation: Incarnation) -> Delivery {
        let next_number = (incarnation.0 << 32) | 1;
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: config.cluster.id,
            session: SessionId::default(),
            node: Some(config.cluster.me),
            incarnation,
            number: 0,
        };
        Delivery {
            cluster: config.cluster.id,
            me: config.cluster.me,
            incarnation,
            window: config.limits.window,
            coordinator: None,
            sessions: BTreeMap::new(),
            silent: BTreeSet::new(),
            unserved: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            next_sweep: None,
            handshake: Link::starting_at(envelope, next_number),
            next_number,
            next_token: 1,
        }
    }

    /// Takes one input at `now`, pushing what is to be done.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Heard { session, .. } | Input::Serve { session, .. }
                if !self.make_room_for(now, session) =>
            {
                out.push(Effect::Refused(RefusedDatagram::QueueFull));
            }
            Input::Heard { session, from, number, ack } => {
                self.with(now, session, out, |entry, _, out| {
                    if !entry.on_heard(now, from, number, ack) {
                        out.push(Effect::Refused(RefusedDatagram::Repeated));
                    }
                });
            }
            Input::ClientAck(session, ack) if self.sessions.contains_key(&session) => {
                self.with(now, session, out, |entry, _, out| {
                    if let Some(upto) = entry.on_client_ack(now, &ack) {
                        out.push(Effect::Cursor { session, upto });
                    }
                });
            }
            Input::ClientAck(..) => {}
            Input::Serve { session, cursor, credit } => {
                let window = self.window;
                self.with(now, session, out, |entry, _, _| {
                    entry.stream = credit.map(|credit| Stream::new(cursor, credit, window));
                });
            }
            Input::Over { session, packets } => {
                let view = self.view();
                if let Some(mut entry) = self.remove(session) {
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
            Input::AnswerTo { to, packet } => {
                let mut datagrams = Vec::new();
                self.handshake.transmit(now, self.view(), &[packet], None, &mut datagrams);
                out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
            }
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
            Input::Page { session, after, page } if self.sessions.contains_key(&session) => {
                self.with(now, session, out, |entry, _, _| {
                    if let Some(stream) = &mut entry.stream {
                        stream.page(after, page);
                    }
                });
            }
            Input::Page { .. } => {}
            Input::Announce(coordinator) => self.announce(now, coordinator, out),
            Input::Missed => self.each_stream(now, out, |entry| {
                if let Some(stream) = &mut entry.stream {
                    stream.missed();
                }
            }),
            Input::Silence => self.each_stream(now, out, |entry| entry.stream = None),
            Input::Deadline => self.on_deadline(now, out),
        }
    }

    /// When a [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.first().map(|(at, _)| *at), self.next_sweep].into_iter().flatten().min()
    }

    fn view(&self) -> View {
        self.coordinator.as_ref().map_or(View::ZERO, |coordinator| coordinator.view)
    }

    /// Does something to a session (a new one if it is unknown), lets it send what it then can, and
    /// puts it in its new place in the indexes.
    fn with(
        &mut self,
        now: Moment,
        id: SessionId,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Session, View, &mut Vec<Effect>),
    ) {
        let view = self.view();
        let mut entry = self.remove(id).unwrap_or_else(|| {
            let envelope = Envelope {
                class: Class::Client,
                cluster: self.cluster,
                session: id,
                node: Some(self.me),
                incarnation: self.incarnation,
                number: 0,
            };
            Session::new(now, id, Link::starting_at(envelope, self.next_number))
        });
        act(&mut entry, view, out);
        entry.pump(now, view, &mut self.next_token, out);
        entry.deadline = entry.next_deadline(now);
        self.silent.insert((entry.heard, id));
        if entry.stream.is_none() {
            self.unserved.insert((entry.heard, id));
        }
        if let Some(at) = entry.deadline {
            self.deadlines.insert((at, id));
        }
        self.sessions.insert(id, entry);
        self.next_sweep.get_or_insert(now + SWEEP_EVERY);
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let entry = self.sessions.remove(&id)?;
        self.silent.remove(&(entry.heard, id));
        self.unserved.remove(&(entry.heard, id));
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
        Some(entry)
    }

    /// A link is dropped: a later one must not use its numbers again.
    fn retire(&mut self, entry: &Session) {
        self.next_number = self.next_number.max(entry.link.next_number());
    }

    /// Whether there is room for a session, if need be in place of another: see [`SESSIONS_MAX`].
    fn make_room_for(&mut self, now: Moment, id: SessionId) -> bool {
        if self.sessions.len() < SESSIONS_MAX || self.sessions.contains_key(&id) {
            return true;
        }
        let away = self.silent.first().filter(|(heard, _)| now >= *heard + AWAY_AFTER);
        let Some((_, least)) = self.unserved.first().or(away).copied() else { return false };
        if let Some(entry) = self.remove(least) {
            self.retire(&entry);
        }
        true
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
                && let Some(entry) = self.remove(id)
            {
                self.retire(&entry);
            }
        }
    }
}
