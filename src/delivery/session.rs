//! One session of the delivery: its link, its client's address, its stream, and the outstanding answers to
//! its queries.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::envelope::{Ack, HEADER_MAX, OUTER_LEN, PACKETS_MAX};
use recado_proto::fragment::{self, PIECE_MAX};
use recado_proto::id::{Moment, Op, SessionId, View};
use recado_proto::link::{LinkEvent, PADDING_LEN};
use recado_proto::packet::{
    Answers, ClientAck, Code, Delivered, Fragment, Outgoing, QueryId, Refused, ToClient,
};
use recado_proto::seal::TAG_LEN;
use recado_proto::{Link, codec};

use super::stream::{Encoding, Stream};
use super::{Effect, Sending, Turn};
use crate::fair::Network;

/// A client that was not heard for this long is away: nothing is announced to it and its queue is dropped.
/// Clients send keepalives at intervals of 25 s at most.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(60);

/// The time for which a client may send on a session that is not served before it is sent Busy, and the
/// interval between two such answers. A client that resumes, as after a failover, is served within a round
/// trip of its first datagram.
const REMIND_EVERY: Duration = Duration::from_secs(1);

/// The time after which a client whose place was given to another may ask again. With zero the two could
/// displace each other in turn.
const TURNED_AWAY_RETRY: Duration = Duration::from_secs(1);

/// The most answers outstanding to one session. If another comes, the oldest is forgotten: its client asks
/// again, and the query runs again. A client has at most as many queries under way, so it has given up the
/// oldest.
pub const ANSWERS_MAX: usize = 64;

/// The most bytes of them, encoded: 40 full pages of history. Beyond it the oldest is forgotten too.
pub(super) const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// The most answers larger than a datagram in flight at once. Together with the large notifications in flight
/// (`stream`) they are fewer than a receiver reassembles at a time, so that none of them displaces the
/// fragments of another.
pub(super) const LARGE_ANSWERS: usize = 3;

/// The longest PATH_CHALLENGE: both headers, the packet's tag, its number of full width, and the AEAD tag.
pub(super) const CHALLENGE_MAX: usize = OUTER_LEN + HEADER_MAX + 1 + 9 + TAG_LEN;

/// The shortest header has two bytes, and the shortest packet one.
const _: () = assert!(OUTER_LEN + 2 + 1 + 1 + PADDING_LEN + TAG_LEN >= CHALLENGE_MAX);

/// An authentic datagram of a session.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) from: SocketAddr,
    pub(super) number: u64,
    pub(super) ack: Option<Ack>,
    pub(super) length: usize,
}

/// A new address that was challenged and has not answered yet.
#[derive(Clone, Copy, Debug)]
struct PendingPath {
    address: SocketAddr,
    token: u64,
}

/// The state of service of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Yes,
    /// Not served. `spoke` is the time since which its client has sent to this primary, or when it was last
    /// sent Busy.
    No {
        spoke: Option<Moment>,
    },
}

/// The delivery state of one datagram of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// It is to be sent.
    Waiting,
    /// It was sent under this token.
    Sent(u64),
    /// It was acknowledged.
    Arrived,
}

/// A packet to a client that is encoded, but for the op before an item.
#[derive(Debug)]
pub(super) enum Encoded {
    /// A packet.
    Packet(Vec<u8>),
    /// DELIVERED.
    Item {
        /// The op before it in the stream.
        prev: Op,
        /// The item.
        item: Encoding,
    },
}

impl Encoded {
    pub(super) fn piece(piece: Fragment) -> Encoded {
        Encoded::Packet(codec::encode(&ToClient::Fragment(piece)))
    }

    /// The bytes of the packet.
    fn len(&self) -> usize {
        match self {
            Encoded::Packet(packet) => packet.len(),
            Encoded::Item { prev, item } => Delivered::prefix_len(*prev) + item.bytes().len(),
        }
    }
}

impl Outgoing for Encoded {
    type Direction = ToClient;

    fn encode_onto(&self, bytes: &mut Vec<u8>) {
        match self {
            Encoded::Packet(packet) => bytes.extend_from_slice(packet),
            Encoded::Item { prev, item } => Delivered::encode_onto(*prev, item.bytes(), bytes),
        }
    }

    fn is_padding(&self) -> bool {
        false
    }
}

/// An answer to a query, which the client has not acknowledged completely.
#[derive(Debug)]
struct Answer {
    query: QueryId,
    encoded: Vec<u8>,
    /// The datagrams that carry it: one, or one for each fragment.
    pieces: Vec<Piece>,
    /// The number of the datagram that first carried its first fragment. It identifies the fragments of all
    /// transmissions, so that they complete each other.
    first: Option<u64>,
}

impl Answer {
    fn new(query: QueryId, packet: &ToClient) -> Answer {
        let encoded = codec::encode(packet);
        let length = encoded.len();
        let count = if length <= PACKETS_MAX { 1 } else { length.div_ceil(PIECE_MAX) };
        Answer { query, encoded, pieces: vec![Piece::Waiting; count], first: None }
    }

    fn large(&self) -> bool {
        self.pieces.len() > 1
    }

    fn waits(&self) -> bool {
        self.pieces.contains(&Piece::Waiting)
    }

    fn arrived(&self) -> bool {
        self.pieces.iter().all(|piece| *piece == Piece::Arrived)
    }

    /// The packet of a datagram that carries it, or one piece of it. `next` is the number of that datagram.
    fn piece(&mut self, index: usize, next: u64) -> Encoded {
        if !self.large() {
            return Encoded::Packet(self.encoded.clone());
        }
        let first = *self.first.get_or_insert(next);
        Encoded::piece(fragment::piece(first, &self.encoded, index))
    }
}

/// One session of the delivery.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    pub(super) link: Link,
    /// The address where the client has proved that it receives.
    address: Option<SocketAddr>,
    trial: Option<PendingPath>,
    highest: u64,
    /// The time when it was last heard, or created.
    pub(super) heard: Moment,
    pub(super) stream: Option<Stream>,
    /// The outstanding answers, the oldest first: at most [`ANSWERS_MAX`].
    answers: VecDeque<Answer>,
    serving: Serving,
    /// The packets that are sent once, at the next [`Session::pump`]. As many as a turn has inputs for this
    /// session: their number is bounded by the channels that feed a turn.
    once: Vec<Encoded>,
    /// It waits for [`Session::pump`].
    pub(super) dirty: bool,
    /// Its place in the delivery's indexes; none before it is in them.
    pub(super) indexed: Option<Indexed>,
    /// The deadline under which it is indexed, no later than its own. When it has come, the session is
    /// pumped, and indexed under its own; so an acknowledgement, which moves its own, moves nothing in the
    /// index.
    pub(super) deadline: Option<Moment>,
}

/// The values under which the delivery's indexes hold a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// When its client was last heard, rounded down.
    pub(super) heard: Moment,
    /// The network where its client has proved that it receives.
    pub(super) network: Option<Network>,
    /// True if it is served.
    pub(super) served: bool,
}

impl Session {
    pub(super) fn new(now: Moment, id: SessionId, link: Link) -> Session {
        Session {
            id,
            link,
            address: None,
            trial: None,
            highest: 0,
            heard: now,
            stream: None,
            answers: VecDeque::new(),
            serving: Serving::No { spoke: None },
            once: Vec::new(),
            dirty: false,
            indexed: None,
            deadline: None,
        }
    }

    /// Makes this the client's address: its client has just proved that it receives there.
    pub(super) fn proved_at(&mut self, address: SocketAddr) {
        self.address = Some(address);
    }

    /// Handles an authentic datagram; false if its number came before. Such a datagram changes nothing, not
    /// even the address, or replaying it would divert the stream. A datagram from a new address does not
    /// change the address either until somebody there has answered a challenge: an attacker that holds back a
    /// datagram could send it on from a victim's address (RFC 9000 section 9.3). The challenge is never
    /// longer than the datagram that causes it.
    pub(super) fn on_heard(
        &mut self,
        now: Moment,
        heard: Received,
        token: u64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Received { from, number, ack, length } = heard;
        if !self.link.receive(now, number, ack.as_ref()) {
            return false;
        }
        self.heard = now;
        let newest = number > self.highest;
        self.highest = self.highest.max(number);
        if self.address == Some(from) || !newest {
            return true;
        }
        let trial =
            self.trial.filter(|trial| trial.address == from).unwrap_or(PendingPath { address: from, token });
        self.trial = Some(trial);
        if length >= CHALLENGE_MAX {
            let mut datagrams = Vec::new();
            let challenge = [ToClient::PathChallenge(trial.token)];
            self.link.transmit(now, View::ZERO, &challenge, None, &mut datagrams);
            out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to: from, bytes }));
        }
        true
    }

    /// Handles a PATH_RESPONSE. If it answers the challenge of that address, the address becomes the client's
    /// and is returned.
    pub(super) fn on_path_response(&mut self, from: SocketAddr, token: u64) -> Option<SocketAddr> {
        let trial = self.trial.take_if(|trial| trial.address == from && trial.token == token)?;
        if self.address.is_some_and(|before| before != trial.address) {
            self.link.on_new_path();
        }
        self.address = Some(trial.address);
        self.address
    }

    /// Handles a CLIENT_ACK. Returns the new cursor, if it moved.
    pub(super) fn on_client_ack(&mut self, now: Moment, ack: &ClientAck) -> Option<Op> {
        let patience = self.link.rto();
        self.stream.as_mut()?.client_ack(now, ack, patience)
    }

    /// Starts serving the session; one that only sends has no stream. A client that resumes goes on with the
    /// queries that it has asked here, so their answers stay.
    pub(super) fn serve(&mut self, stream: Option<Stream>) {
        self.stream = stream;
        self.serving = Serving::Yes;
    }

    /// Stops serving the session, and forgets the answers without reporting that: the node that made them has
    /// lost its role, and has forgotten them before.
    pub(super) fn stop_serving(&mut self) {
        self.stream = None;
        self.answers.clear();
        self.serving = Serving::No { spoke: None };
    }

    /// Takes the answer to a query, which is sent until all of it is acknowledged. It supersedes an
    /// outstanding answer to the same query. If there is no room, the oldest is forgotten.
    pub(super) fn answer(&mut self, query: QueryId, packet: &ToClient, out: &mut Vec<Effect>) {
        let answer = Answer::new(query, packet);
        self.answers.retain(|held| held.query != query);
        let bytes = |held: &VecDeque<Answer>| held.iter().map(|answer| answer.encoded.len()).sum::<usize>();
        while self.answers.len() >= ANSWERS_MAX
            || bytes(&self.answers) + answer.encoded.len() > ANSWERS_BYTES_MAX
        {
            let Some(oldest) = self.answers.pop_front() else { break };
            out.push(Effect::AnswerDone { session: self.id, query: oldest.query });
        }
        self.answers.push_back(answer);
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Forgets all answers; clients ask again.
    pub(super) fn give_up_answers(&mut self, out: &mut Vec<Effect>) {
        self.end_answers(|_| true, out);
    }

    /// Forgets the answers for which `ends` returns true, and reports that.
    fn end_answers(&mut self, ends: impl Fn(&Answer) -> bool, out: &mut Vec<Effect>) {
        let session = self.id;
        self.answers.retain(|answer| {
            let ended = ends(answer);
            if ended {
                out.push(Effect::AnswerDone { session, query: answer.query });
            }
            !ended
        });
    }

    pub(super) fn is_served(&self) -> bool {
        self.serving == Serving::Yes
    }

    /// The network where its client has proved that it receives.
    pub(super) fn network(&self) -> Option<Network> {
        self.address.map(|address| Network::of(address.ip()))
    }

    /// Handles a client's datagram while this server is primary. A client whose place was given to another
    /// may believe that it is served; if it goes on sending without resuming, it is sent Busy.
    pub(super) fn remind(&mut self, now: Moment) {
        let Serving::No { spoke } = self.serving else { return };
        let since = spoke.unwrap_or(now);
        self.serving = Serving::No { spoke: Some(since) };
        if now.since(since) >= REMIND_EVERY {
            self.serving = Serving::No { spoke: Some(now) };
            self.say_busy(Duration::ZERO);
        }
    }

    /// Tells the client that its place was given to another.
    pub(super) fn say_displaced(&mut self) {
        self.say_busy(TURNED_AWAY_RETRY);
    }

    /// Tells the client that it is not served, so that it resumes.
    fn say_busy(&mut self, retry: Duration) {
        let retry_ms = retry.as_millis() as u32;
        let busy = Refused::new(Code::Busy, Answers::Session, retry_ms);
        self.say(&ToClient::Error(busy));
    }

    /// Returns true if its client was heard lately.
    pub(super) fn present(&self, now: Moment) -> bool {
        now < self.heard + AWAY_AFTER
    }

    /// Takes a packet that is sent once, without being tracked, at the next [`Session::pump`]: the client
    /// asks again for what was lost. It is dropped while the client's address is not known. Answers to
    /// queries go by [`Session::answer`].
    pub(super) fn say(&mut self, packet: &ToClient) {
        if self.address.is_some() {
            self.once.push(Encoded::Packet(codec::encode(packet)));
        }
    }

    /// Sends what was said and not sent yet.
    pub(super) fn send_said(&mut self, turn: &mut Turn) {
        if !self.once.is_empty() {
            let said = mem::take(&mut self.once);
            self.transmit(turn, &said, None);
        }
    }

    fn transmit(&mut self, turn: &mut Turn, packets: &[Encoded], token: Option<u64>) {
        self.transmit_batch(turn, packets, token, false);
    }

    /// Sends packets; if `more` follow at once, their last datagram is filled.
    fn transmit_batch(&mut self, turn: &mut Turn, packets: &[Encoded], token: Option<u64>, more: bool) {
        let Some(to) = self.address else { return };
        let Sending { datagrams, buffers, .. } = &mut *turn.sending;
        self.link.transmit_before(turn.now, turn.view, packets, token, more, buffers, datagrams);
        turn.out.extend(datagrams.drain(..).map(|bytes| Effect::Datagram { to, bytes }));
    }

    /// The link reports the outcome of a token: of an answer's datagram, or of a batch of the stream.
    fn on_event(&mut self, now: Moment, event: LinkEvent) {
        let (LinkEvent::Acked(token) | LinkEvent::Lost(token)) = event;
        let arrived = event == LinkEvent::Acked(token);
        let mut pieces = self.answers.iter_mut().flat_map(|answer| answer.pieces.iter_mut());
        if let Some(piece) = pieces.find(|piece| **piece == Piece::Sent(token)) {
            *piece = if arrived { Piece::Arrived } else { Piece::Waiting };
        } else if let Some(stream) = &mut self.stream {
            if arrived {
                stream.arrived(now, token);
            } else {
                stream.lost(token);
            }
        }
    }

    /// Sends what waits of the answers, the oldest first, as far as the link's window allows. Each datagram
    /// has a token of its own, so only what was lost is sent again.
    fn send_answers(&mut self, turn: &mut Turn) {
        let mut answers = mem::take(&mut self.answers);
        let mut large = 0;
        for answer in &mut answers {
            large += usize::from(answer.large());
            if !answer.waits() || (answer.large() && large > LARGE_ANSWERS) {
                continue;
            }
            if self.link.room() == 0 {
                break;
            }
            for index in 0..answer.pieces.len() {
                if answer.pieces[index] == Piece::Waiting && self.link.room() > 0 {
                    let token = turn.sending.next_token;
                    turn.sending.next_token += 1;
                    let packet = answer.piece(index, self.link.next_number());
                    answer.pieces[index] = Piece::Sent(token);
                    self.transmit(turn, &[packet], Some(token));
                }
            }
        }
        self.answers = answers;
    }

    /// Runs the timers that are due, handles the link's reports, asks for a page if one is wanted, and sends:
    /// first what was said, then what credit and windows allow, answers before the stream. What was said
    /// shares a datagram with the stream.
    pub(super) fn pump(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let present = self.present(now) && self.address.is_some();
        if self.link.next_deadline().is_some_and(|at| now >= at) {
            self.link.on_deadline(now);
        }
        while let Some(event) = self.link.poll_event() {
            self.on_event(now, event);
        }
        self.end_answers(Answer::arrived, turn.out);
        if present {
            if self.answers.iter().any(Answer::waits) {
                self.send_said(turn);
            }
            self.send_answers(turn);
            self.send_stream(turn);
        } else {
            self.give_up_answers(turn.out);
            if let Some(stream) = &mut self.stream {
                stream.withdraw();
            }
        }
        self.send_said(turn);
        self.send_ack_due(turn);
    }

    /// Sends an empty datagram if an ack is due.
    pub(super) fn send_ack_due(&mut self, turn: &mut Turn) {
        if self.link.ack_due() && self.present(turn.now) {
            self.transmit(turn, &[], None);
        }
    }

    /// Asks for a page if one is wanted, and sends what credit and windows allow of the stream.
    fn send_stream(&mut self, turn: &mut Turn) {
        let Some(stream) = &mut self.stream else { return };
        stream.on_deadline(turn.now);
        if let Some((after, limit)) = stream.want_page(turn.now) {
            turn.out.push(Effect::WantPage { session: self.id, after, limit });
        }
        while self.link.room() > 0 {
            let Some(stream) = &mut self.stream else { return };
            let mut packets = mem::take(&mut turn.sending.packets);
            packets.extend(mem::take(&mut self.once));
            let (said, length) = (packets.len(), packets.iter().map(Encoded::len).sum());
            let left = self.link.packets_max().saturating_sub(length);
            let token = turn.sending.next_token;
            let more = stream.next_batch(token, self.link.next_number(), left, &mut packets);
            if packets.len() > said {
                turn.sending.next_token += 1;
                let more = more && self.link.room() > self.link.datagram_max();
                self.transmit_batch(turn, &packets, Some(token), more);
            } else if said > 0 {
                // Once that is sent, a whole datagram is free.
                self.transmit(turn, &packets, None);
            }
            let is_done = packets.is_empty();
            packets.clear();
            turn.sending.packets = packets;
            if is_done {
                return;
            }
        }
    }

    /// The time at which [`Session::pump`] wants to be called.
    pub(super) fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let stream =
            if self.present(now) { self.stream.as_ref().and_then(Stream::next_deadline) } else { None };
        [self.link.next_deadline(), stream].into_iter().flatten().min()
    }
}
