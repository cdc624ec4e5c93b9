//! The life of a session: CONNECT opens it, RESUME has it served, and DISCONNECT or a refusal ends it.

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::id::{Moment, Op, Seq};
use recado_proto::packet::{
    AcceptConn, Code, Connect, Disconnect, Home, OptionalFields, Position, RejectConn, Resume, ResumeOk,
    ToServer,
};
use recado_proto::seal::SessionSecret;

use super::again::{ASK_AGAIN_MIN, Again, retry_wait};
use super::backoff::Backoff;
use super::primary::{KEEPALIVE_OTHERS, Keepalives};
use super::{CopySign, Effect, Event, Machine, State, outbox};

/// Servers that send RETRY but nothing on the session are asked whether the session still exists: after a
/// silence that is longer than any election ...
pub(super) const SESSION_QUERY_AFTER: Duration = Duration::from_secs(3);

/// ... and not more often than this, because each time costs every server a handshake, and the primary a log
/// entry.
pub(super) const DOUBT_EVERY: Duration = Duration::from_secs(5);

/// Servers are believed to speak another version of the protocol once one has said so for this long, and none
/// has given another answer meanwhile. A client that searches sends HELLO about once a second or more often,
/// and any server of this version answers it, with or without a primary. So a forged VERSION ends no client
/// that can connect.
pub(super) const OTHER_VERSION_AFTER: Duration = Duration::from_secs(10);

/// Most DISCONNECTs sent before the session is left to time out.
const DISCONNECTS_MAX: u32 = 3;

impl Machine {
    pub(super) fn connect(&mut self, now: Moment, nonce: u64, mut again: Again, out: &mut Vec<Effect>) {
        let connect = self.connect_packet(nonce);
        for server in self.servers.addresses() {
            self.servers.initiation(now, server, &connect, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Connecting { nonce, again };
    }

    /// `fresh` lets the service create a device that it does not know. A CONNECT that asks again for an
    /// existing session is not fresh: its answer must not open another session. A CONNECT with an enrolment
    /// code is fresh even if the device was admitted before: it may have been removed, and is to be admitted
    /// again.
    pub(super) fn connect_packet(&self, nonce: u64) -> ToServer {
        let newcomer = self.session.is_none();
        ToServer::Connect(Connect {
            device: self.start.device,
            profile: self.start.profile.clone(),
            receives: self.start.receives,
            nonce,
            fresh: newcomer && (self.start.created_op.is_none() || self.start.code.is_some()),
            code: self.start.code.filter(|_| newcomer),
            invite: self.start.invite.filter(|_| newcomer),
            aeads: self.start.ciphers.offered(),
            options: OptionalFields::NONE,
        })
    }

    pub(super) fn resume(&mut self, now: Moment, mut again: Again, out: &mut Vec<Effect>) {
        if let Some(primary) = self.primary() {
            let packets = [self.resume_packet(), ToServer::Padding];
            self.servers.send(now, primary, self.view, &packets, None, out);
            // The primary may have restarted since it was last heard, and then cannot open the RESUME.
            self.servers.hello(primary, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Resuming { again };
    }

    pub(super) fn resume_packet(&self) -> ToServer {
        let cursor = if self.connected { Some(self.inbox.received()) } else { self.start.cursor };
        ToServer::Resume(Resume {
            cursor: cursor.map(Position::of),
            credit: self.inbox.credit(),
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        })
    }

    pub(super) fn leave(&mut self, now: Moment, mut again: Again, sent: u32, out: &mut Vec<Effect>) {
        if sent >= DISCONNECTS_MAX {
            self.state = State::Over;
            return out.push(Effect::Event(Event::Disconnected));
        }
        match self.primary() {
            Some(primary) => {
                let last = ToServer::Disconnect(Disconnect { upto: self.inbox.ack().upto });
                self.servers.send(now, primary, self.view, &[last], None, out);
                // A session that only sends has no cursor to keep. If this is lost, the device's next session
                // fences it, or it ends when it is idle for too long.
                if !self.inbox.receives() && self.outbox.is_empty() {
                    self.state = State::Over;
                    return out.push(Effect::Event(Event::Disconnected));
                }
            }
            None => self.ask_all(now, out),
        }
        again.sent(now, self.draw());
        self.state = State::Leaving { again, sent: sent + 1 };
    }

    /// Asks whether the session still exists, when servers send RETRY but the primary has not been heard on
    /// the session for [`SESSION_QUERY_AFTER`]. The session may be over, and a server reports that only once,
    /// in a datagram that may be lost. The session's own CONNECT, sent again, is answered with the same
    /// session or with the reason why there is none.
    pub(super) fn doubt(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some((_, nonce)) = self.session else { return };
        let serves = matches!(self.state, State::Served | State::Resuming { .. });
        if serves && now.since(self.heard) >= SESSION_QUERY_AFTER && now.since(self.queried_at) >= DOUBT_EVERY
        {
            self.queried_at = now;
            let connect = self.connect_packet(nonce);
            for server in self.servers.addresses() {
                self.servers.initiation(now, server, &connect, &mut self.start.entropy, out);
            }
        }
    }

    /// Returns true if the CONNECT with this nonce opened the current session.
    fn opened_by(&self, nonce: u64) -> bool {
        let serves = matches!(self.state, State::Served | State::Resuming { .. });
        serves && self.session.is_some_and(|(_, of)| of == nonce)
    }

    /// A server is said to speak another version. That matters only while no primary serves the session.
    pub(super) fn on_other_version(
        &mut self,
        now: Moment,
        server: SocketAddr,
        version: u8,
        out: &mut Vec<Effect>,
    ) {
        let searches = match self.state {
            State::Connecting { .. } | State::Resuming { .. } => true,
            State::Served => self.searching,
            State::Leaving { .. } | State::Over => false,
        };
        if searches && now.since(*self.other_version_since.get_or_insert(now)) >= OTHER_VERSION_AFTER {
            self.state = State::Over;
            out.push(Effect::Event(Event::OtherVersion { server, version }));
        }
    }

    pub(super) fn on_accept(&mut self, now: Moment, accept: AcceptConn, out: &mut Vec<Effect>) {
        if self.opened_by(accept.nonce) {
            // The device was removed, and a CONNECT of before, which came late, has admitted it anew.
            if self.session.is_some_and(|(session, _)| session != accept.session) {
                return self.on_over(now, Code::SessionOver, Duration::ZERO, out);
            }
            // The session is already open; the primary may be new.
            return self.on_coordinator(now, &accept.coordinator);
        }
        let State::Connecting { nonce, .. } = self.state else { return };
        if accept.nonce != nonce || accept.coordinator.view < self.view {
            return;
        }
        self.servers.learn_all(&accept.coordinator.members);
        let secret = SessionSecret::new(accept.secret, accept.aead, self.start.ciphers);
        self.servers.open_session(now, accept.session, secret);
        self.session = Some((accept.session, nonce));
        self.view = accept.coordinator.view;
        self.heard = now;
        self.to_primary = Keepalives::begin(now, self.to_primary.most);
        self.to_others = Keepalives::begin(now, KEEPALIVE_OTHERS);
        // The primary learns the client's address from the first datagram of the session.
        self.state = State::Resuming { again: Again::now(now) };
    }

    pub(super) fn on_reject(&mut self, now: Moment, reject: RejectConn, out: &mut Vec<Effect>) {
        if self.opened_by(reject.nonce) {
            // Any other refusal of this CONNECT was sent before the session was admitted and arrives late,
            // for example the refusal of a name that could not be claimed yet.
            let over = [Code::SessionOver, Code::Fenced, Code::UnknownDevice, Code::NotYours];
            if over.contains(&reject.code) {
                self.on_over(now, reject.code, Duration::ZERO, out);
            }
            return;
        }
        let State::Connecting { nonce, mut again } = self.state else { return };
        if reject.nonce != nonce {
            return;
        }
        if outbox::passes(reject.code, 0) {
            let retry = now + retry_wait(reject.retry_ms);
            // After Busy the client keeps its own growing wait. After another refusal it asks again as soon
            // as the refusal says.
            again.at = if reject.code == Code::Busy { again.at.max(retry) } else { again.at.min(retry) };
            self.state = State::Connecting { nonce, again };
        } else {
            self.end(reject.code, out);
        }
    }

    pub(super) fn on_resumed(
        &mut self,
        now: Moment,
        from: SocketAddr,
        resumed: &ResumeOk,
        out: &mut Vec<Effect>,
    ) {
        let view = resumed.coordinator.view;
        if !matches!(self.state, State::Resuming { .. }) || view != self.view || self.primary() != Some(from)
        {
            return;
        }
        let Some((session, _)) = self.session else { return };
        // The ops of another log mean nothing to this client, and its own would mean nothing there.
        let Some(remembered) = resumed.cursor.op() else { return self.end(Code::OtherEpoch, out) };
        let pause = self.missed(now);
        if !self.connected {
            let (born, last_seq) = (resumed.created_op, resumed.last_seq);
            // The device was removed and admitted again. To the service it is another device, and the results
            // of the former one were dropped. Requests that the former one left unanswered may have been
            // applied.
            let anew = self.start.created_op.is_some_and(|before| before != born);
            let set_back = self.answered_before().filter(|answered| *answered > last_seq && !anew);
            if set_back.is_some() && self.start.cursor.is_some_and(|cursor| cursor > remembered) {
                // The cursor belongs to the log before the servers were restored. Their log has other
                // notifications at these ops.
                self.refused_cursor = self.start.cursor.take();
                self.state = State::Resuming { again: Again::now(now) };
                return;
            }
            self.connected = true;
            self.saw(session.0);
            let cursor = self.start.cursor.unwrap_or(remembered);
            self.inbox.begin(cursor);
            let lost = self.refused_cursor;
            let members = resumed.coordinator.members.iter().map(|(_, address)| *address).collect();
            let connected = Event::Connected {
                session,
                view,
                primary: from,
                created_op: born,
                last_seq,
                cursor,
                lost,
                members,
            };
            out.push(Effect::Event(connected));
            if set_back.is_some() || lost.is_some() {
                self.token = Op::ZERO;
            }
            if let Some(answered) = set_back {
                out.push(Effect::Event(Event::ServersSetBack { answered, last: last_seq }));
            }
            if anew {
                self.outbox.forget(self.start.outbox.iter().map(|of| of.seq), out);
            } else {
                self.tell_of_copies(resumed, remembered, out);
            }
            self.outbox.begin(now, last_seq, out);
        } else if view != self.served_by {
            out.push(Effect::Event(Event::PrimaryChanged { view, primary: from, pause }));
        } else if self.searching {
            out.push(Effect::Event(Event::PrimaryFound { primary: from, pause }));
        }
        self.on_keepalive_told(now, resumed.keepalive_ms);
        self.served_by = view;
        self.state = State::Served;
        self.searching = false;
        self.heard = now;
        (self.last_heard_before, self.kept_alive) = (None, None);
        self.backoff = Backoff::none();
        self.outbox.send_all(now);
        self.inbox.resume(now);
    }

    /// The highest number that an earlier run of the device had an answer to. The service has applied it,
    /// unless it has lost it.
    fn answered_before(&self) -> Option<Seq> {
        let unanswered = |seq: &u64| self.start.outbox.iter().any(|of| of.seq.0 == *seq);
        let answered = (1..=self.start.highest_seq?.0).rev().find(|seq| !unanswered(seq));
        answered.map(Seq).filter(|_| self.start.created_op.is_some())
    }

    fn tell_of_copies(&self, resumed: &ResumeOk, remembered: Op, out: &mut Vec<Effect>) {
        let last = resumed.last_seq;
        if let Some(given) = self.start.highest_seq.filter(|given| last > *given) {
            out.push(Effect::Event(Event::Copied(CopySign::Numbers { given, last })));
        }
        // A device's cursor begins at the op that admitted it, before anything is read.
        let read = |here: &Op| remembered > *here && remembered > resumed.created_op;
        let behind = |here: &Op| self.start.receives && read(here);
        if let Some(here) = self.start.cursor.filter(behind) {
            out.push(Effect::Event(Event::Copied(CopySign::Cursor { here, read: remembered })));
        }
    }

    /// The session is over. If it was never confirmed, it was confirmed too late, or another CONNECT of this
    /// device came after it; then another session is asked for. The waits grow, because two copies of a
    /// device that start at the same time would otherwise end each other's sessions for ever. Of servers that
    /// do not support what this client asks of a session, or refuse it for a reason that this client does not
    /// know, another session would be refused as well.
    pub(super) fn on_over(&mut self, now: Moment, code: Code, wait: Duration, out: &mut Vec<Effect>) {
        if self.connected || self.session.is_some() && matches!(code, Code::Unsupported | Code::Unknown(_)) {
            self.end(code, out);
        } else if self.session.take().is_some() {
            let more = ASK_AGAIN_MIN * (1 << self.unserved.min(4));
            let drawn = Duration::from_micros(self.draw() % more.as_micros().max(1) as u64);
            let wait = if self.unserved == 0 { wait } else { wait + drawn };
            self.unserved += 1;
            let again = Again { at: now + wait, wait: ASK_AGAIN_MIN };
            self.state = State::Connecting { nonce: self.draw(), again };
        }
    }

    pub(super) fn on_disconnect(&mut self, now: Moment, out: &mut Vec<Effect>) {
        match self.state {
            State::Served | State::Resuming { .. } if self.connected => {
                // What was asked before the end is sent before it.
                if matches!(self.state, State::Served) {
                    self.send_requests(now, out);
                }
                self.state = State::Leaving { again: Again::now(now), sent: 0 };
            }
            // A session that was never served needs no DISCONNECT: it lapses by itself.
            State::Connecting { .. } | State::Served | State::Resuming { .. } => {
                self.state = State::Over;
                out.push(Effect::Event(Event::Disconnected));
            }
            State::Leaving { .. } | State::Over => {}
        }
    }

    fn end(&mut self, code: Code, out: &mut Vec<Effect>) {
        self.state = State::Over;
        out.push(Effect::Event(Event::Ended(code)));
    }
}
