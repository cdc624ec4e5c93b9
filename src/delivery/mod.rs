//! Delivery of pending notifications: one stream per session, in op order, with window, retransmission and
//! congestion control; and of the answers to queries, which are retransmitted alike. Everything sent to
//! clients except RETRY goes through here, so that one machine numbers the packets of a session.
//!
//! Reading order: [`Input`], [`Effect`], `stream` (the pending notifications of a session), `session` (its
//! link, address and answers), [`Delivery`] (the table of sessions).
//!
//! A notification arrives when it is applied, or in a page, and waits in its session's stream. It is sent
//! under a token of the session's link as far as credit and windows allow, and the link reports the token
//! acknowledged or lost. CLIENT_ACK removes it from the stream and moves the cursor. It is sent again if its
//! datagrams are lost, if the client holds later ones but not this one, and periodically while it is the
//! oldest one of a client that acknowledges nothing.
//!
//! Each datagram of an answer to a query (HISTORY_OK, LIST_OK, INFO) travels under a token of its own. What
//! the link reports lost is sent again until all of the answer is acknowledged, another answer to the query
//! supersedes it, its session ends, may read less or is not heard for a minute, or this server is primary no
//! more. [`Effect::AnswerDone`] reports the end, because until then the query does not run again. Other
//! answers are sent once: their clients ask again.
//!
//! The table has at most `Limits::sessions_served` sessions, served or not. To admit one more, the network
//! with the most sessions gives one up: of those not served, or not heard for a minute, the one silent
//! longest. If the newcomer's network has fewer by two or more, a session that is served and present may be
//! given up too. Its client is sent Busy at once, and again if it goes on sending, and resumes. If no session
//! can be given up, the newcomer's datagrams are refused and counted, and its client retransmits. A session
//! counts for a network once its client has proved that it receives there.
//!
//! Invariants: everything sent on a session is numbered here, and numbers never repeat under
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

use recado_proto::entropy::Entropy;
use recado_proto::envelope::Ack;
use recado_proto::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, View};
use recado_proto::noise::Reply;
use recado_proto::packet::{ClientAck, Coordinator, Notification, Packet, QueryId, RefusedDatagram};
use recado_proto::seal::Key;
use recado_proto::{Class, Envelope, Header, Link, codec, handshake};

use self::session::{AWAY_AFTER, Liveness, Session};
use self::stream::Stream;
use crate::config::{Config, Planted, PlantedBug};
use crate::fair::{Network, Shares};

pub use self::session::ANSWERS_MAX;

/// A session without a stream is forgotten after not being heard for this long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The interval between two searches for silent sessions.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// An input of the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From a handler: an authentic datagram of a session arrived. Precedes the inputs made from its packets.
    DatagramReceived {
        /// The session.
        session: SessionId,
        /// The address it came from. If that is new and the number is the highest so far, the address is
        /// challenged; until it has answered, the session is served at its old address.
        from: SocketAddr,
        /// Its packet number.
        number: u64,
        /// The acknowledgement in its header.
        ack: Option<Ack>,
        /// The datagram's length in bytes.
        length: usize,
        /// The key that datagrams to this session's client are sealed with.
        key: Key,
    },
    /// From a handler: CLIENT_ACK of a session.
    ClientAck(SessionId, ClientAck),
    /// From a handler: PATH_RESPONSE of a session.
    PathResponse {
        /// The session.
        session: SessionId,
        /// The address it came from.
        from: SocketAddr,
        /// The token of the PATH_CHALLENGE it answers.
        token: u64,
    },
    /// From the replica thread: this server, as primary, serves the session from `cursor` on. Its stream
    /// starts (or restarts) there; RESUME_OK has been sent before. Ignored for a session that is not in the
    /// table; its client sends RESUME again.
    Serve {
        /// The session.
        session: SessionId,
        /// The client's cursor.
        cursor: Op,
        /// The number of notifications it accepts after the cursor; none: the session only sends.
        credit: Option<u32>,
    },
    /// A session ended: forget it after sending `packets`.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// The last packets sent to it.
        packets: Vec<Packet>,
    },
    /// A packet for a session. The answer to a query (HISTORY_OK, LIST_OK, INFO) is sent until its client has
    /// acknowledged it, and [`Effect::AnswerDone`] follows. Any other packet is sent once.
    Answer {
        /// The session.
        session: SessionId,
        /// The packet.
        packet: Packet,
    },
    /// The answer to an INITIATION.
    AnswerTo {
        /// The sender of the INITIATION.
        reply_to: ReplyTo,
        /// The packets, sent in one datagram.
        packets: Vec<Packet>,
    },
    /// A notification was applied.
    Applied {
        /// The notification.
        notification: Arc<Notification>,
        /// The live receiving sessions it is addressed to.
        sessions: Vec<SessionId>,
    },
    /// The page that [`Effect::WantPage`] asked for.
    Page {
        /// The session.
        session: SessionId,
        /// The op that the page was asked after.
        after: Op,
        /// The page.
        page: recado_service::Page,
    },
    /// The page that [`Effect::WantPage`] asked for costs more than its session's budget allows at the
    /// moment.
    PageLater {
        /// The session.
        session: SessionId,
        /// The op that the page was asked after.
        after: Op,
        /// The time until the budget allows it.
        wait: Duration,
    },
    /// A view became active: announce it to every address heard lately, and put it into every header.
    Announce(Coordinator),
    /// These sessions may read less than before: drop their queues and ask for pages again, and give up the
    /// answers to their queries, so that nothing is sent that they may no longer read.
    Withdrawn(Vec<SessionId>),
    /// Some earlier [`Input::Applied`] were dropped because a channel was full: every live stream asks for
    /// pages again. It comes through the same channel as [`Input::Applied`], after the dropped ones.
    AppliedDropped,
    /// This server is not an active primary: streams and answers stop, links stay. The ends of the answers
    /// are not reported.
    Silence,
    /// A deadline may have passed.
    Deadline,
}

/// The sender of an INITIATION, which has no session, and the means to answer it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The address to answer to.
    pub to: SocketAddr,
    /// The second handshake message and the key for the answer.
    pub reply: Reply,
}

/// An effect that the delivery asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a client.
    Datagram {
        /// The address to send to.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Ask the replica thread for a page of a session whose stream is behind.
    WantPage {
        /// The session.
        session: SessionId,
        /// The op after which the page begins.
        after: Op,
        /// The most notifications wanted.
        limit: u32,
    },
    /// A session's client has proved that it receives at another address than before.
    Path {
        /// The session.
        session: SessionId,
        /// The new address.
        address: SocketAddr,
    },
    /// A session's application has taken everything up to this op.
    Cursor {
        /// The session.
        session: SessionId,
        /// The new cursor.
        upto: Op,
    },
    /// The answer to a query is not outstanding any more: the client has acknowledged all of it, or it was
    /// given up. If the client asks again, the query has to run again.
    AnswerDone {
        /// The session.
        session: SessionId,
        /// The query.
        query: QueryId,
    },
    /// A datagram of a session was refused, because its number came before or the table is full: count it.
    Refused(RefusedDatagram),
}

/// The state machine of the pending worker: the table of sessions.
#[derive(Debug)]
pub struct Delivery {
    cluster: ClusterId,
    me: NodeId,
    incarnation: Incarnation,
    /// The most notifications in flight to one session.
    window: u32,
    planted: PlantedBug,
    /// The most sessions in the table.
    most: usize,
    /// The COORDINATOR announced last.
    coordinator: Option<Coordinator>,
    sessions: BTreeMap<SessionId, Session>,
    /// All sessions, by the time when they were last heard.
    silent: BTreeSet<(Moment, SessionId)>,
    /// All sessions, by the network where their client has proved that it receives; a place is of use if the
    /// session is served.
    shares: Shares<Option<Network>, SessionId>,
    /// The sessions that have a deadline.
    deadlines: BTreeSet<(Moment, SessionId)>,
    next_sweep: Option<Moment>,
    /// The packet number of the last answer to an INITIATION.
    answers: u64,
    /// The source of the tokens of PATH_CHALLENGEs.
    entropy: Entropy,
    /// The first packet number of the next link. It is above every number of every link dropped before.
    next_number: u64,
    next_token: u64,
}

impl Delivery {
    /// Creates a delivery without sessions.
    ///
    /// Packet numbers begin at `incarnation << 32`, and a session's new link begins above the numbers of
    /// every dropped one. So this server never uses a number twice, and an ack of a datagram from before a
    /// restart cannot be taken for an ack of a later datagram.
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

    /// Handles one input at `now` and pushes its effects.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::DatagramReceived { session, from, number, ack, length, key } => {
                self.on_heard(now, session, key, Liveness { from, number, ack, length }, out);
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
            Input::SessionEnded { session, packets } => {
                let view = self.view();
                if let Some(mut entry) = self.forget(session) {
                    entry.say(now, view, &packets, out);
                    self.retire(entry, out);
                }
            }
            Input::Answer { session, packet } => self.on_answer(now, session, packet, out),
            Input::AnswerTo { reply_to, packets } => self.answer(&reply_to, &packets, out),
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
                    self.with(now, session, out, |entry, _, out| {
                        entry.give_up_answers(out);
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
            Input::AppliedDropped if self.planted.is(Planted::MissedUnheeded) => {}
            Input::AppliedDropped => self.each_stream(now, out, |entry| {
                if let Some(stream) = &mut entry.stream {
                    stream.missed();
                }
            }),
            Input::Silence => self.silence(now, out),
            Input::Deadline => self.on_deadline(now, out),
        }
    }

    /// The time at which [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.first().map(|(at, _)| *at), self.next_sweep].into_iter().flatten().min()
    }

    /// Returns true if this server is the primary of the view announced last.
    fn leads(&self) -> bool {
        self.view().primary() == Some(self.me)
    }

    fn view(&self) -> View {
        self.coordinator.as_ref().map_or(View::ZERO, |coordinator| coordinator.view)
    }

    /// Handles a datagram of a session; a session that is not in the table is added to it.
    fn on_heard(&mut self, now: Moment, id: SessionId, key: Key, heard: Liveness, out: &mut Vec<Effect>) {
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
            if !entry.on_heard(now, heard, token, out) {
                out.push(Effect::Refused(RefusedDatagram::Repeated));
            } else if leads {
                entry.remind(now, view, out);
            }
        });
    }

    /// Sends a packet to a session: the answer to a query until it is acknowledged, any other once.
    fn on_answer(&mut self, now: Moment, session: SessionId, packet: Packet, out: &mut Vec<Effect>) {
        let view = self.view();
        match query_of(&packet) {
            Some(query) if self.sessions.contains_key(&session) => {
                self.with(now, session, out, |entry, _, out| entry.answer(query, packet, out));
            }
            Some(query) => out.push(Effect::AnswerDone { session, query }),
            None => {
                if let Some(entry) = self.sessions.get_mut(&session) {
                    entry.say(now, view, &[packet], out);
                }
            }
        }
    }

    /// Answers an INITIATION in one datagram.
    fn answer(&mut self, reply_to: &ReplyTo, packets: &[Packet], out: &mut Vec<Effect>) {
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
        // No caller makes answers that are longer. One that were would be dropped.
        if packets.iter().map(Vec::len).sum::<usize>() <= handshake::ANSWER_MAX {
            let bytes = handshake::answer(&envelope, &reply_to.reply, &header, &packets);
            out.push(Effect::Datagram { to: reply_to.to, bytes });
        }
    }

    /// Runs `act` on a session, sends what the session can send after it, and updates the indexes. Does
    /// nothing if the session is not in the table.
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

    /// Removes a session, also from the shares.
    fn forget(&mut self, id: SessionId) -> Option<Session> {
        self.shares.remove(&id);
        self.remove(id)
    }

    /// Gives up the answers of a dropped session, and records the numbers of its link, because a later link
    /// must not use them again.
    fn retire(&mut self, mut entry: Session, out: &mut Vec<Effect>) {
        entry.give_up_answers(out);
        self.next_number = self.next_number.max(entry.link.next_number());
    }

    /// Returns true if there is a place for the session, giving up another one if necessary (see the module).
    fn make_room_for(&mut self, now: Moment, id: SessionId, from: SocketAddr, out: &mut Vec<Effect>) -> bool {
        if self.sessions.len() < self.most || self.sessions.contains_key(&id) {
            return true;
        }
        // The client's address is challenged only once its session has a place. Until then the place counts
        // for no network, together with all such places: forged addresses get no more than the share of one
        // network.
        let network = Some(Network::of(from.ip()));
        let Some(least) = self.shares.gives_way(&network, now - AWAY_AFTER) else { return false };
        let view = self.view();
        if let Some(mut entry) = self.forget(least) {
            entry.send_displaced(now, view, out);
            self.retire(entry, out);
        }
        true
    }

    fn silence(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let active = self.sessions.iter().filter(|(_, entry)| entry.is_served() || entry.has_answers());
        for id in active.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.with(now, id, out, |entry, _, _| entry.stop_serving());
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

    /// Forgets sessions without a stream that were not heard for long, and drops the queues of silent
    /// clients.
    fn sweep(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let away = self.silent.iter().take_while(|(heard, _)| now >= *heard + AWAY_AFTER);
        for (heard, id) in away.copied().collect::<Vec<_>>() {
            let served = self.sessions.get(&id).is_some_and(|entry| entry.stream.is_some());
            if served {
                self.with(now, id, out, |_, _, _| {});
            } else if now >= heard + FORGET_AFTER
                && let Some(entry) = self.forget(id)
            {
                self.retire(entry, out);
            }
        }
    }
}

/// The query that a packet answers, if it is an answer that is sent until it is acknowledged.
fn query_of(packet: &Packet) -> Option<QueryId> {
    match packet {
        Packet::HistoryOk(page) => Some(page.query),
        Packet::ListOk(page) => Some(page.query),
        Packet::Info(info) => Some(info.query),
        // Their clients ask again: SEND_ACK, ERROR, RESUME_OK, COORDINATOR, STATUS_OK.
        _ => None,
    }
}
