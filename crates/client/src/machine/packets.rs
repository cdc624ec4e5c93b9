//! What arrives from servers.

use std::net::SocketAddr;

use recado_proto::envelope::{Class, Opened};
use recado_proto::id::{Moment, Op, Seq};
use recado_proto::packet::{self, AnswerKind, Answers, Code, OptionalFields, Refused, ToClient, ToServer};

use super::again::{ASK_AGAIN_MIN, Again, retry_wait};
use super::handshake::Greeting;
use super::server::Received;
use super::{Answer, Effect, Event, Machine, Query, State, outbox};

impl Machine {
    pub(super) fn on_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8], out: &mut Vec<Effect>) {
        // A datagram that is damaged, or not from a server of this cluster, counts as lost.
        let Opened { envelope, header, packets } = match self.servers.receive(now, from, bytes) {
            None => return,
            Some(Received::OtherVersion(version)) => return self.on_other_version(now, from, version, out),
            Some(Received::Greeting { greeting, on_trial }) => {
                self.other_version_since = None;
                self.on_greeting(now, from, &greeting, on_trial, out);
                return self.doubt(now, out);
            }
            Some(Received::Opened(opened)) => opened,
        };
        self.other_version_since = None;
        let fresh = header.view >= self.view;
        if header.view > self.view {
            self.on_view(now, header.view);
        }
        if fresh && self.primary() == Some(from) && envelope.class == Class::Client {
            self.heard = now;
            if self.last_heard_before.is_none() {
                self.kept_alive = None;
            }
            // The primary is back after a silence: it may have dropped the stream meanwhile.
            if self.searching && matches!(self.state, State::Served) {
                self.state = State::Resuming { again: Again::now(now) };
            }
        }
        let is_primary = fresh && self.primary() == Some(from);
        for packet in packets {
            if is_primary {
                self.on_tracked(now, &packet);
            }
            if let Some(whole) = self.servers.whole(now, from, packet) {
                self.on_packet(now, from, fresh, whole, out);
            }
        }
        if is_primary {
            self.inbox.end_datagram(now, bytes.len());
        }
    }

    /// The primary sends an answer, or a piece of a large packet, again until its datagram is acknowledged,
    /// so it is acknowledged soon. The steps of the stream are acknowledged by the inbox.
    fn on_tracked(&mut self, now: Moment, packet: &ToClient) {
        match packet {
            ToClient::Answer(answer) if answer.is_tracked() => self.inbox.on_tracked(now),
            ToClient::Fragment(_) => {
                self.inbox.on_tracked(now);
                let until = now + ASK_AGAIN_MIN;
                self.queries.values_mut().for_each(|asked| asked.put_off(until));
            }
            _ => {}
        }
    }

    /// Takes one packet. Packets of a server that knows only a lower view are ignored, except a status,
    /// COORDINATOR and PATH_CHALLENGE.
    fn on_packet(
        &mut self,
        now: Moment,
        from: SocketAddr,
        fresh: bool,
        packet: ToClient,
        out: &mut Vec<Effect>,
    ) {
        match packet {
            ToClient::Answer(packet::Answer { id, kind: AnswerKind::Status(status), .. }) => {
                self.servers.learn_all(&status.members);
                self.answer(now, id, Answer::Status(status), out);
            }
            ToClient::Coordinator(coordinator) => {
                self.on_coordinator(now, &coordinator);
                if fresh && self.primary() == Some(from) {
                    coordinator.keepalive_ms().into_iter().for_each(|ms| self.on_keepalive_told(now, ms));
                    if coordinator.tells_restart() {
                        self.on_restart_told(now);
                    }
                }
            }
            ToClient::PathChallenge(token) => self.on_path_challenge(now, from, token, out),
            _ if !fresh => {}
            ToClient::AcceptConn(accept) => self.on_accept(now, accept, out),
            ToClient::RejectConn(reject) => self.on_reject(now, reject, out),
            ToClient::ResumeOk(resumed) => self.on_resumed(now, from, &resumed, out),
            _ if self.primary() != Some(from) => {}
            ToClient::SendAck(ack) => {
                let made_channel = ack.data.get(OptionalFields::MADE_CHANNEL).is_some();
                if made_channel && self.outbox.rank(ack.seq).is_some() {
                    out.push(Effect::Event(Event::MadeChannel { seq: ack.seq }));
                }
                self.saw(ack.op);
                self.on_result(now, ack.seq, Ok(ack.op), out);
            }
            ToClient::Error(refused) => self.on_error(now, refused, out),
            // The stream may overtake RESUME_OK: each step names its predecessor.
            ToClient::Delivered(delivered) if self.has_stream() => {
                self.saw(delivered.item.op());
                self.inbox.on_delivered(now, delivered, out);
            }
            ToClient::Answer(answer) => self.on_answer(now, answer, out),
            // An item of a stream that is not open, or a packet of the link and of administrators.
            _ => {}
        }
    }

    /// A server sent a RETRY, so packets can be sent to it, if its claim is true. Sends what the state calls
    /// for: CONNECT, RESUME or KEEPALIVE. Never sends another HELLO: its RETRY would lead here again, in a
    /// loop.
    fn on_greeting(
        &mut self,
        now: Moment,
        from: SocketAddr,
        greeting: &Greeting,
        on_trial: bool,
        out: &mut Vec<Effect>,
    ) {
        for pending in self.queries.values_mut() {
            if matches!(pending.query, Query::Status { server } if server == from) {
                pending.again.at = now;
            }
        }
        let packet = match self.state {
            State::Connecting { nonce, .. } => {
                let connect = self.connect_packet(nonce);
                return self.servers.initiation(now, from, &connect, &mut self.start.entropy, out);
            }
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            State::Resuming { .. } | State::Served => ToServer::keepalive(),
            State::Leaving { .. } | State::Over => return,
        };
        if on_trial {
            let packets = [packet, ToServer::Padding];
            self.servers.probe(now, from, greeting, self.view, &packets, out);
        }
    }

    /// A numbered request has its result, or another request has its number.
    fn on_result(&mut self, now: Moment, seq: Seq, result: Result<Op, Code>, out: &mut Vec<Effect>) {
        if self.outbox.rank(seq).is_some() {
            self.backoff.answered(now);
        }
        if result == Err(Code::NumberTaken) {
            self.outbox.on_number_taken(now, seq, out);
        } else {
            self.outbox.answered(now, seq, result, out);
        }
    }

    /// A refusal may tell what its key has, which counts as read.
    fn on_condition(&mut self, seq: Seq, refused: &Refused, out: &mut Vec<Effect>) {
        let op = |tag| Some(Op(u64::from_be_bytes(refused.data.get(tag)?.try_into().ok()?)));
        let Some(applied) = op(OptionalFields::APPLIED) else { return };
        self.saw(applied);
        if self.outbox.rank(seq).is_some() {
            let timestamp = op(OptionalFields::TIMESTAMP);
            out.push(Effect::Event(Event::Timestamp { seq, timestamp }));
        }
    }

    fn on_error(&mut self, now: Moment, refused: Refused, out: &mut Vec<Effect>) {
        let wait = retry_wait(refused.retry_ms);
        match refused.answers {
            Answers::Request(seq) if outbox::passes(refused.code, refused.retry_ms) => {
                let (noise, place) = (self.draw(), self.outbox.rank(seq));
                if place.is_some() {
                    out.push(Effect::Event(Event::Deferred { seq, code: refused.code }));
                }
                match (place, refused.code) {
                    (None, _) => {}
                    (Some(place), Code::TooFarAhead) => {
                        self.backoff.too_far(place);
                        self.outbox.refused(seq, now + wait);
                    }
                    (Some(place), _) => {
                        self.backoff.refused(now, place, wait, noise);
                        self.outbox.refused(seq, now);
                    }
                }
            }
            Answers::Request(seq) => {
                self.on_condition(seq, &refused, out);
                self.on_result(now, seq, Err(refused.code), out);
            }
            Answers::Query(id) if outbox::passes(refused.code, refused.retry_ms) => {
                let (noise, place) = (self.draw(), self.place(id));
                if let (Some(pending), Some(place)) = (self.queries.get_mut(&id), place) {
                    self.backoff.refused(now, place, wait, noise);
                    (pending.again, pending.put_off_upto) = (Again::now(now), now);
                }
            }
            Answers::Query(id) => self.answer(now, id, Answer::Refused(refused.code), out),
            // The primary does not serve the session for now, because its place went to another session or
            // none is free. RESUME is sent again after the wait.
            Answers::Session if outbox::passes(refused.code, refused.retry_ms) => {
                if matches!(self.state, State::Served) {
                    self.state = State::Resuming { again: Again { at: now + wait, wait: ASK_AGAIN_MIN } };
                }
            }
            // Before anything was handed out, the stream may begin at another op. Later, its notifications
            // would be taken for those of another history.
            Answers::Session
                if matches!(refused.code, Code::BeyondEnd | Code::OtherEpoch) && !self.connected =>
            {
                // A refusal that comes again finds no cursor, and is no reason to ask before the wait is
                // over.
                if matches!(self.state, State::Resuming { .. })
                    && let Some(cursor) = self.start.cursor.take()
                {
                    self.refused_cursor = Some(cursor);
                    self.state = State::Resuming { again: Again::now(now) };
                }
            }
            Answers::Session if matches!(self.state, State::Leaving { .. }) => {
                self.state = State::Over;
                out.push(Effect::Event(Event::Disconnected));
            }
            Answers::Session => self.on_over(now, refused.code, wait, out),
        }
    }
}
