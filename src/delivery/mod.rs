//! Delivery of pending notifications: one stream per session, in op order, with window, retransmission and
//! congestion control; and of the answers to queries, which are retransmitted alike. Everything sent to
//! clients except RETRY and VERSION goes through here, so that one machine numbers the packets of a session.
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
//! Each datagram of an answer to a query (QUERY_OK, but of a status) travels under a token of its own. What
//! the link reports lost is sent again until all of the answer is acknowledged, another answer to the query
//! supersedes it, its session ends, may read less or is not heard for a minute, there are too many answers,
//! or this server is primary no more. [`Effect::AnswerDone`] reports the end, because until then the query
//! does not run again; but of an answer that was superseded, and of the role, the node knows. Other answers
//! are sent once: their clients ask again.
//!
//! The table has at most `Limits::sessions_served` sessions, served or not, of which a shard has its share.
//! To admit one more, the network with the most sessions gives one up: of those not served, or not heard for
//! a minute, the one silent longest. If the newcomer's network has fewer by two or more, a session that is
//! served and present may be given up too. Its client is sent Busy at once, and again if it goes on sending,
//! and resumes. If no session can be given up, the newcomer's datagrams are refused and counted, and its
//! client retransmits. A session counts for a network once its client has proved that it receives there.
//!
//! Invariants: everything sent on a session is numbered here, and numbers never repeat under
//! (session, server, incarnation), nor under (session, server): see [`Delivery::new`]. Pure:
//! `handle(now, input, &mut effects)`, `flush(now, &mut effects)` and `next_deadline()`. Handling an input
//! sends nothing but the answers to INITIATIONs, PATH_CHALLENGEs, acks that are due, the last packets of
//! sessions that leave the table, and what was said in a view that ends; all that the inputs of a turn have
//! left to send goes out in its flush, so that it shares datagrams.

mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::Ack;
use recado_proto::id::{ClusterId, Incarnation, Moment, NodeId, Op, SessionId, View};
use recado_proto::link::Buffers;
use recado_proto::noise::Reply;
use recado_proto::packet::{ClientAck, Coordinator, QueryId, RefusedDatagram, ToClient};
use recado_proto::seal::PacketKeys;
use recado_proto::{Class, Envelope, Header, Link, codec, handshake};
use recado_service::Stored;

use self::session::{AWAY_AFTER, Encoded, Indexed, Received, Session};
use self::stream::Stream;
use crate::config::{Config, Planted, PlantedBug};
use crate::fair::{Network, Shares};

pub use self::session::ANSWERS_MAX;

/// A session without a stream is forgotten after not being heard for this long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The indexes hold the times when sessions were last heard, rounded down to this, so that few datagrams move
/// a session in them.
const GRAIN: Duration = Duration::from_secs(1);
/// The most sessions whose client was admitted here and has not sent on its session yet. For one more, the
/// oldest is forgotten: its client is challenged.
const ADMITTED_MAX: usize = 1_024;
/// The time for which the address to which an ACCEPT_CONN went counts as proved: as long as a cookie.
const ADMITTED_FOR: Duration = Duration::from_secs(20);
/// The deadlines that no session has any more and that are kept all the same, beside as many as there are
/// sessions.
const STALE_MAX: usize = 64;
/// The most buffers of sent datagrams that are kept for the next ones: more are seldom sent in one turn. Each
/// holds a datagram, of 1,200 bytes or of what the path carries.
const BUFFERS_MAX: usize = 1_024;
/// The interval between two searches for silent sessions.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// An input of the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An authentic datagram of a session arrived. Precedes the inputs made from its packets.
    DatagramReceived {
        /// The session.
        session: SessionId,
        /// The address it came from. If that is new and the number is the highest so far, the address is
        /// challenged; until it has answered, the session is served at its old address. The address to which
        /// the session's ACCEPT_CONN went is not challenged: the cookie has proved it.
        from: SocketAddr,
        /// Its packet number.
        number: u64,
        /// The acknowledgement in its header.
        ack: Option<Ack>,
        /// The datagram's length in bytes.
        length: usize,
        /// The keys that datagrams to this session's client are sealed with.
        keys: PacketKeys,
    },
    /// CLIENT_ACK of a session.
    ClientAck(SessionId, ClientAck),
    /// PATH_RESPONSE of a session.
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
        packets: Vec<ToClient>,
    },
    /// A packet for a session. The answer to a query (but a status) is sent until its client has
    /// acknowledged it, and [`Effect::AnswerDone`] follows. Any other packet is sent once.
    Answer {
        /// The session.
        session: SessionId,
        /// The packet.
        packet: ToClient,
    },
    /// The answer to an INITIATION.
    AnswerTo {
        /// The sender of the INITIATION.
        reply_to: ReplyTo,
        /// The packets, sent in one datagram.
        packets: Vec<ToClient>,
    },
    /// A notification was applied.
    Applied {
        /// The notification.
        notification: Stored,
        /// The live receiving sessions it is addressed to.
        sessions: Arc<[SessionId]>,
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
    /// A text was retracted. These sessions may be sent it, or have an answer that may hold it outstanding:
    /// streams whose queue has it are restarted at their cursors, and the answers are given up.
    Retracted {
        /// The op of the notification.
        op: Op,
        /// The sessions.
        sessions: Vec<SessionId>,
    },
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

/// The state that the sessions share to send.
#[derive(Debug)]
struct Sending {
    next_token: u64,
    /// The packets of one transmission; empty between two.
    packets: Vec<Encoded>,
    /// Its datagrams; empty between two transmissions.
    datagrams: Vec<Vec<u8>>,
    /// Of datagrams that were sent.
    buffers: Buffers,
}

/// The circumstances in which a session sends.
struct Turn<'a> {
    now: Moment,
    /// The view of the headers.
    view: View,
    sending: &'a mut Sending,
    out: &'a mut Vec<Effect>,
}

/// The delivery of one shard: the table of its sessions.
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
    /// This server is the primary of the view announced last, and was not silenced since: after
    /// [`Input::Silence`] the view stays, for the headers.
    leads: bool,
    sessions: BTreeMap<SessionId, Session>,
    /// The sessions that [`Delivery::flush`] pumps: at most one for each input since the last flush, and all
    /// after an input about all. One that left the table and came back may be here twice.
    dirty: Vec<SessionId>,
    /// The address to which the ACCEPT_CONN of each new session went, and when, until its client sends on it.
    admitted: BTreeMap<SessionId, (Moment, SocketAddr)>,
    /// All sessions, by the second in which they were last heard.
    silent: BTreeSet<(Moment, SessionId)>,
    /// All sessions, by the network where their client has proved that it receives; a place is of use if the
    /// session is served.
    shares: Shares<Option<Network>, SessionId>,
    /// The deadlines under which sessions are indexed, the next one first, and some that no session has any
    /// more. A heap, because it allocates nothing once it has its size.
    deadlines: BinaryHeap<Reverse<(Moment, SessionId)>>,
    next_sweep: Option<Moment>,
    /// The packet number of the last answer to an INITIATION.
    answers: u64,
    /// The source of the tokens of PATH_CHALLENGEs.
    entropy: Entropy,
    /// The first packet number of the next link. It is above every number of every link dropped before.
    next_number: u64,
    sending: Sending,
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
            leads: false,
            sessions: BTreeMap::new(),
            admitted: BTreeMap::new(),
            dirty: Vec::new(),
            silent: BTreeSet::new(),
            shares: Shares::default(),
            deadlines: BinaryHeap::new(),
            next_sweep: None,
            answers: 0,
            entropy: Entropy::new(seed),
            next_number,
            sending: Sending {
                next_token: 1,
                packets: Vec::new(),
                datagrams: Vec::new(),
                buffers: Buffers::keeping(BUFFERS_MAX),
            },
        }
    }

    /// Handles one input at `now` and pushes its effects. What it leaves to send goes out in the next
    /// [`Delivery::flush`].
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::DatagramReceived { session, from, number, ack, length, keys } => {
                self.on_heard(now, session, keys, Received { from, number, ack, length }, out);
            }
            Input::PathResponse { session, from, token } => {
                let moved = self.touch(session).and_then(|entry| entry.on_path_response(from, token));
                out.extend(moved.map(|address| Effect::Path { session, address }));
                self.index(session);
            }
            Input::ClientAck(session, ack) => {
                let beyond = self.planted.is(Planted::CursorBeyondAcknowledged);
                if let Some(entry) = self.touch(session)
                    && let Some(mut upto) = entry.on_client_ack(now, &ack)
                {
                    if let Some(stream) = entry.stream.as_ref().filter(|_| beyond) {
                        upto = stream.tail();
                    }
                    out.push(Effect::Cursor { session, upto });
                }
            }
            Input::Serve { session, cursor, credit } => {
                let window = self.window;
                if let Some(entry) = self.touch(session) {
                    entry.serve(credit.map(|credit| Stream::new(cursor, credit, window)));
                }
                self.index(session);
            }
            Input::SessionEnded { session, packets } => {
                self.admitted.remove(&session);
                if let Some(mut entry) = self.forget(session) {
                    packets.iter().for_each(|packet| entry.say(packet));
                    self.retire(now, entry, out);
                }
            }
            Input::Answer { session, packet } => self.on_answer(session, packet, out),
            Input::AnswerTo { reply_to, packets } => self.answer(now, &reply_to, &packets, out),
            Input::Applied { notification, sessions } => {
                let drops = self.planted.is(Planted::CoalescedDropped);
                for session in sessions.iter() {
                    self.with_stream(*session, |stream| {
                        if !drops || !stream.last_waits() {
                            stream.applied(&notification);
                        }
                    });
                }
            }
            Input::Withdrawn(sessions) => {
                for session in sessions {
                    if let Some(entry) = self.touch(session) {
                        entry.give_up_answers(out);
                    }
                    self.with_stream(session, Stream::withdraw);
                }
            }
            Input::Retracted { .. } if self.planted.is(Planted::RetractedTextSent) => {}
            Input::Retracted { op, sessions } => {
                for session in sessions {
                    if let Some(entry) = self.touch(session) {
                        entry.give_up_answers(out);
                    }
                    self.with_stream(session, |stream| stream.retracted(op));
                }
            }
            Input::Page { session, after, page } => {
                self.with_stream(session, |stream| stream.page(after, page));
            }
            Input::PageLater { session, after, wait } => {
                self.with_stream(session, |stream| stream.page_later(now, after, wait));
            }
            Input::Announce(coordinator) => self.announce(now, coordinator, out),
            Input::AppliedDropped if self.planted.is(Planted::MissedUnheeded) => {}
            Input::AppliedDropped => {
                let served = self.sessions.iter().filter(|(_, entry)| entry.stream.is_some());
                for id in served.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.with_stream(id, Stream::missed);
                }
            }
            Input::Silence => self.silence(now, out),
            Input::Deadline => self.on_deadline(now, out),
        }
    }

    /// Sends what the inputs since the last flush have left to send, as far as credit and windows allow, and
    /// pushes the effects.
    pub fn flush(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mut turn = Turn { now, view: self.view(), sending: &mut self.sending, out };
        if self.planted.is(Planted::SessionUnflushed) && self.dirty.len() > 1 {
            self.dirty.pop();
        }
        for id in self.dirty.drain(..) {
            let Some(entry) = self.sessions.get_mut(&id) else { continue };
            entry.dirty = false;
            entry.pump(&mut turn);
            // One that is indexed under an earlier deadline is pumped then, and indexed under its own.
            if let Some(own) = entry.next_deadline(now)
                && entry.deadline.is_none_or(|indexed| own < indexed)
            {
                entry.deadline = Some(own);
                self.deadlines.push(Reverse((own, id)));
            }
        }
        if self.deadlines.len() > 2 * self.sessions.len() + STALE_MAX {
            let indexed =
                self.sessions.iter().filter_map(|(id, entry)| Some(Reverse((entry.deadline?, *id))));
            self.deadlines.clear();
            self.deadlines.extend(indexed);
        }
    }

    /// Takes back the buffer of an [`Effect::Datagram`] that was sent, for another.
    pub fn hand_back(&mut self, bytes: Vec<u8>) {
        self.sending.buffers.hand_back(bytes);
    }

    /// Gives a session the places in the indexes that its state asks for. Follows each change of when it was
    /// heard, of its network, and of whether it is served, because other inputs of the turn look there.
    fn index(&mut self, id: SessionId) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let heard = Moment(entry.heard.0 - entry.heard.0 % GRAIN.as_micros() as u64);
        let indexed = Indexed { heard, network: entry.network(), served: entry.is_served() };
        let before = entry.indexed.replace(indexed);
        if before == Some(indexed) {
            return;
        }
        before.map(|before| self.silent.remove(&(before.heard, id)));
        self.silent.insert((heard, id));
        self.shares.put(id, indexed.network, indexed.served, heard);
    }

    /// The time at which [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.peek().map(|Reverse((at, _))| *at), self.next_sweep].into_iter().flatten().min()
    }

    fn view(&self) -> View {
        self.coordinator.as_ref().map_or(View::ZERO, |coordinator| coordinator.view)
    }

    /// Handles a datagram of a session; a session that is not in the table is added to it.
    fn on_heard(
        &mut self,
        now: Moment,
        id: SessionId,
        keys: PacketKeys,
        heard: Received,
        out: &mut Vec<Effect>,
    ) {
        if !self.make_room_for(now, id, heard.from, out) {
            return out.push(Effect::Refused(RefusedDatagram::QueueFull));
        }
        if !self.sessions.contains_key(&id) {
            let admitted = self
                .admitted
                .remove(&id)
                .filter(|(at, address)| *address == heard.from && now < *at + ADMITTED_FOR);
            let envelope = Envelope {
                class: Class::Client,
                cluster: self.cluster,
                session: id,
                node: Some(self.me),
                incarnation: self.incarnation,
                number: 0,
            };
            let link = Link::starting_at(envelope, keys, self.next_number).with_planted(self.planted);
            let mut entry = Session::new(now, id, link);
            if let Some((_, address)) = admitted {
                entry.proved_at(address);
                out.push(Effect::Path { session: id, address });
            }
            self.sessions.insert(id, entry);
            self.index(id);
            self.next_sweep.get_or_insert(now + SWEEP_EVERY);
        }
        let token = self.entropy.number();
        let (leads, view) = (self.leads, self.view());
        let Some(entry) = self.touch(id) else { return };
        if !entry.on_heard(now, heard, token, out) {
            return out.push(Effect::Refused(RefusedDatagram::Repeated));
        }
        if leads {
            entry.remind(now);
        }
        self.index(id);
        // An ack has a bounded number of ranges, so it does not wait for the end of a long turn.
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.send_ack_due(&mut Turn { now, view, sending: &mut self.sending, out });
        }
    }

    /// Sends a packet to a session: the answer to a query until it is acknowledged, any other once.
    fn on_answer(&mut self, session: SessionId, packet: ToClient, out: &mut Vec<Effect>) {
        match (query_of(&packet), self.touch(session)) {
            (Some(query), Some(entry)) => entry.answer(query, &packet, out),
            (Some(query), None) => out.push(Effect::AnswerDone { session, query }),
            (None, Some(entry)) => entry.say(&packet),
            (None, None) => {}
        }
    }

    /// Answers an INITIATION: in one datagram, or a packet that is larger than one in pieces. Its sender has
    /// proved that it receives at its address, so more may go there than came.
    fn answer(&mut self, now: Moment, reply_to: &ReplyTo, packets: &[ToClient], out: &mut Vec<Effect>) {
        for packet in packets {
            // Of a session in the table the address is known or under trial.
            if let ToClient::AcceptConn(accept) = packet
                && !self.sessions.contains_key(&accept.session)
            {
                self.admitted.insert(accept.session, (now, reply_to.to));
            }
        }
        while self.admitted.len() > ADMITTED_MAX {
            self.admitted.pop_first();
        }
        let header = Header { ack: None, view: self.view() };
        let packets: Vec<Vec<u8>> = packets.iter().map(codec::encode).collect();
        let datagrams = match packets.iter().map(Vec::len).sum::<usize>() <= handshake::ANSWER_MAX {
            true => vec![packets],
            // Only the answer to a query is so long, and no other packet goes with it.
            false => {
                let pieces = packets.iter().flat_map(|packet| handshake::pieces(self.answers + 1, packet));
                pieces.map(|piece| vec![piece]).collect()
            }
        };
        for packets in datagrams {
            self.answers += 1;
            let envelope = Envelope {
                class: Class::Handshake,
                cluster: self.cluster,
                session: SessionId::default(),
                node: Some(self.me),
                incarnation: self.incarnation,
                number: self.answers,
            };
            let bytes = handshake::answer(&envelope, &reply_to.reply, &header, &packets);
            out.push(Effect::Datagram { to: reply_to.to, bytes });
        }
    }

    /// A session that an input concerns, which the next flush pumps.
    fn touch(&mut self, id: SessionId) -> Option<&mut Session> {
        let entry = self.sessions.get_mut(&id)?;
        if !mem::replace(&mut entry.dirty, true) {
            self.dirty.push(id);
        }
        Some(entry)
    }

    /// Runs `act` on the stream of a session, if it has one.
    fn with_stream(&mut self, id: SessionId, act: impl FnOnce(&mut Stream)) {
        if self.sessions.get(&id).is_some_and(|entry| entry.stream.is_some())
            && let Some(entry) = self.touch(id)
        {
            entry.stream.as_mut().map(act);
        }
    }

    /// Removes a session from the table and its indexes.
    fn forget(&mut self, id: SessionId) -> Option<Session> {
        self.shares.remove(&id);
        let entry = self.sessions.remove(&id)?;
        entry.indexed.map(|indexed| self.silent.remove(&(indexed.heard, id)));
        Some(entry)
    }

    /// Sends what was said to a dropped session, gives up its answers, and records the numbers of its link,
    /// because a later link must not use them again.
    fn retire(&mut self, now: Moment, mut entry: Session, out: &mut Vec<Effect>) {
        entry.send_said(&mut Turn { now, view: self.view(), sending: &mut self.sending, out });
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
        let Some(least) = self.shares.gives_way(&network, now - AWAY_AFTER - GRAIN) else { return false };
        if let Some(mut entry) = self.forget(least) {
            entry.say_displaced();
            self.retire(now, entry, out);
        }
        true
    }

    /// Sends what was said and not sent yet, in the view in which it was said: a client that has heard of
    /// another view ignores it.
    fn send_said(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let mut turn = Turn { now, view: self.view(), sending: &mut self.sending, out };
        for id in &self.dirty {
            if let Some(entry) = self.sessions.get_mut(id) {
                entry.send_said(&mut turn);
            }
        }
    }

    fn silence(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.send_said(now, out);
        self.leads = false;
        self.admitted.clear();
        let active = self.sessions.iter().filter(|(_, entry)| entry.is_served() || entry.has_answers());
        for id in active.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(entry) = self.touch(id) {
                entry.stop_serving();
            }
            self.index(id);
        }
    }

    fn announce(&mut self, now: Moment, coordinator: Coordinator, out: &mut Vec<Effect>) {
        if coordinator.view < self.view() {
            return;
        }
        self.send_said(now, out);
        self.leads = coordinator.view.primary() == Some(self.me);
        let packet = ToClient::Coordinator(coordinator.clone());
        self.coordinator = Some(coordinator);
        let lately = now - AWAY_AFTER - GRAIN;
        let present = self.silent.range((lately, SessionId::default())..).map(|(_, id)| *id);
        for id in present.collect::<Vec<_>>() {
            if let Some(entry) = self.touch(id).filter(|entry| entry.present(now)) {
                entry.say(&packet);
            }
        }
    }

    fn on_deadline(&mut self, now: Moment, out: &mut Vec<Effect>) {
        while let Some(Reverse((at, id))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            if self
                .sessions
                .get_mut(&id)
                .is_some_and(|entry| entry.deadline.take_if(|own| *own == at).is_some())
            {
                self.touch(id);
            }
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
                self.touch(id);
            } else if now >= heard + FORGET_AFTER
                && let Some(entry) = self.forget(id)
            {
                self.retire(now, entry, out);
            }
        }
    }
}

/// The query that a packet answers, if it is an answer that is sent until it is acknowledged. The clients of
/// other packets ask again.
fn query_of(packet: &ToClient) -> Option<QueryId> {
    match packet {
        ToClient::Answer(answer) if answer.is_tracked() => Some(answer.id),
        _ => None,
    }
}
