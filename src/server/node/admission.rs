//! The admission of sessions and of numbered requests, and what of both is under way: logged here and not
//! committed.
//!
//! A session opened by CONNECT is pending until its client sends on it: the first RESUME confirms it in the
//! log, and only then is it served and the device's older session fenced. So a replayed CONNECT opens
//! nothing of use and ends nothing (DESIGN.md section 7).
//!
//! Numbered requests are taken in order, and each number once (DESIGN.md section 3):
//!
//! - A number that was applied is answered with its recorded result. The answer is NumberTaken if another
//!   request had the number (a copy of the device's files is in use), and NumberForgotten if the result is
//!   not held any more.
//! - A number that is in the log but not committed is not answered: the answer comes with the commit.
//! - The next number is logged.
//! - A higher number is buffered in a small window.
//!
//! A request refused for a temporary reason (Busy, NoQuorum, NotPrimary) uses up no number.
//!
//! What a request does is not known here, only its number and its digest.

use std::collections::{BTreeMap, BTreeSet};

use recado_log::ordered::OrderedLog;
use recado_proto::command::{Command, Request, SessionOpen};
use recado_proto::id::{Clock, DeviceId, Name, Seq, SessionId};
use recado_proto::packet::{
    AcceptConn, Answers, Code, Connect, Extension, ExtensionRequest, OptionalFields, Position, Refused,
    RejectConn, Resume, ResumeOk, ToClient,
};
use recado_proto::seal::Aead;
use recado_service::{Standing, Tells};

use super::clients::RETRY_MS;
use super::{Effect, Node};
use crate::config::Planted;
use crate::delivery::{self, ReplyTo};
use crate::fair::{Network, Table};
use crate::server::cost;

/// Maximum number of CONNECTs, and of confirmations, that are logged and not committed. When the table is
/// full, a further one displaces one of the network (or [`Holder`]) that has the most, which gets no answer
/// and asks again. If the rule of [`Table`] frees no place, the client is answered Busy.
const CONNECTS_MAX: usize = 1_024;

/// Maximum number of entries taken and not committed; beyond it clients are answered Busy.
const UNCOMMITTED_MAX: u64 = 4_096;

/// Maximum number of buffered requests of all sessions together; it bounds the large notifications in
/// memory. When the table is full, a further request displaces one of the [`Holder`] that has the most. If
/// the rule of [`Table`] frees no place, the further request is dropped.
const BUFFERED_ALL_MAX: usize = 4_096;

/// The shortest interval at which clients are to send KEEPALIVE to the primary, in ms, while there are few
/// sessions: a client notices soon if it is not heard any more.
const KEEPALIVE_MS: u32 = 2_000;

/// The longest, in ms: a mapping in a NAT lasts for it (RFC 4787 section 4.3), and a server counts a client
/// as present for two of them.
const KEEPALIVE_LONGEST_MS: u32 = 25_000;

/// The most keepalives a second that all sessions together are to send to the primary, while the longest
/// interval allows that.
const KEEPALIVES_PER_S: usize = 4_000;

/// The interval at which each of so many clients is to send KEEPALIVE, in ms.
pub(super) fn keepalive_ms(sessions: usize) -> u32 {
    let ms = sessions.saturating_mul(1_000) / KEEPALIVES_PER_S;
    u32::try_from(ms).unwrap_or(u32::MAX).clamp(KEEPALIVE_MS, KEEPALIVE_LONGEST_MS)
}

/// Work in progress on the primary. It is discarded when this server loses the role.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// The sender of the latest INITIATION with each CONNECT (device and nonce); the answer goes to it.
    connects: Table<Network, (DeviceId, u64), ReplyTo, CONNECTS_MAX>,
    /// Pending sessions whose confirmation is logged and not committed, each with its client's latest RESUME.
    confirming: Table<Holder, SessionId, Resume, CONNECTS_MAX>,
    /// The highest number in the log; for live sessions only.
    logged: BTreeMap<SessionId, Seq>,
    /// Requests that wait for lower numbers; for live sessions only.
    buffered: Table<Holder, (SessionId, Seq), Numbered, BUFFERED_ALL_MAX>,
    /// Sessions whose close is logged and not committed.
    closing: BTreeSet<SessionId>,
}

impl UnderWay {
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffered.len()
    }

    #[cfg(test)]
    pub(super) fn confirming(&self) -> usize {
        self.confirming.len()
    }

    /// The numbers of a session's buffered requests, ascending.
    fn buffered_of(&self, session: SessionId) -> impl Iterator<Item = Seq> {
        let range = (session, Seq(0))..=(session, Seq(u64::MAX));
        self.buffered.keys(range).map(|(_, seq)| *seq)
    }

    /// Removes and returns the buffered request that follows the last one in the log. Buffered requests
    /// below it are dropped.
    fn take_next(&mut self, session: SessionId) -> Option<(Seq, Numbered)> {
        let next = self.logged.get(&session)?.next();
        loop {
            let seq = self.buffered_of(session).next().filter(|seq| *seq <= next)?;
            let numbered = self.buffered.remove(&(session, seq))?;
            if seq == next {
                return Some((seq, numbered));
            }
        }
    }

    /// Drops all state of a session that has ended.
    fn forget(&mut self, session: SessionId) {
        self.closing.remove(&session);
        self.confirming.remove(&session);
        self.logged.remove(&session);
        for seq in self.buffered_of(session).collect::<Vec<_>>() {
            self.buffered.remove(&(session, seq));
        }
    }
}

/// Holder of a session's places in shared tables: the network where its client has proved to receive. It is
/// the session's profile while no network is proved, as when most first RESUMEs arrive, and for clients on
/// this machine itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Network(Network),
    Profile(Name),
}

/// A numbered request, without its number.
#[derive(Debug)]
pub(super) struct Numbered {
    answered_below: Seq,
    request: Request,
    digest: u64,
}

impl Numbered {
    /// A request with a critical field that this version does not honour takes its number and is refused.
    pub(super) fn new(
        answered_below: Seq,
        request: Request,
        nonce: u64,
        options: &OptionalFields,
    ) -> Numbered {
        let digest = request.digest(nonce, options);
        let request = if options.may_be_ignored() { request } else { Request::Unsupported };
        Numbered { answered_below, request, digest }
    }

    /// A request that came as an EXTENSION; none: one of a later version, which takes its number and is
    /// refused. It acknowledges no other.
    pub(super) fn extension(extension: &Extension) -> Numbered {
        let request = match extension.request() {
            // The topic is looked for when the request is logged.
            Some(ExtensionRequest::Retract { op }) => Request::Retract { op, topic: None },
            Some(ExtensionRequest::Display { name }) => Request::Display { name },
            Some(ExtensionRequest::Put { key, value, condition }) => Request::Put { key, value, condition },
            Some(ExtensionRequest::Delete { key, at }) => Request::Delete { key, at },
            None => Request::Unsupported,
        };
        Numbered { answered_below: Seq::default(), request, digest: extension.digest() }
    }
}

impl<L: OrderedLog> Node<L> {
    pub(super) fn on_connect(&mut self, clock: Clock, reply_to: ReplyTo, connect: Connect) {
        let nonce = connect.nonce;
        let reject = |code| ToClient::RejectConn(RejectConn::new(nonce, code, RETRY_MS));
        if !self.accepts() {
            // A handover or an election is in progress; a client that soon asks again finds the next primary.
            let mut packets = vec![ToClient::Coordinator(self.coordinator())];
            if self.is_primary {
                packets.push(reject(self.passing_refusal()));
            }
            return self.deliver(delivery::Input::AnswerTo { reply_to, packets });
        }
        if !connect.options.may_be_ignored() {
            let packet = ToClient::RejectConn(RejectConn::new(nonce, Code::Unsupported, 0));
            return self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
        }
        let key = (connect.device, nonce);
        if let Some(before) = self.under_way.connects.get_mut(&key) {
            *before = reply_to;
            return;
        }
        let network = Network::of(reply_to.to.ip());
        if self.is_busy() || !self.under_way.connects.make_room(&network) {
            return self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![reject(Code::Busy)] });
        }
        if self.service.is_unclaimed(&connect.profile)
            && let Err(wait) = self.charges.claim_name(clock.now, network)
        {
            let retry_ms = wait.as_millis().min(u128::from(u32::MAX)) as u32;
            let packet = ToClient::RejectConn(RejectConn::new(nonce, Code::TooManyNames, retry_ms));
            return self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
        }
        let Connect { device, profile, receives, nonce, fresh, code, invite, aeads, options: _ } = connect;
        let aead = self.keys.ciphers().choose(aeads);
        let admission = self.config.admission;
        // A field that is stepped over here stays out of the log, where every server would have to step over
        // it.
        let options = OptionalFields::NONE;
        let open =
            SessionOpen { device, profile, receives, nonce, fresh, code, invite, admission, aead, options };
        let command = Command::SessionOpen(open);
        if self.propose(clock, command).is_some() {
            self.under_way.connects.insert(clock.now, network, key, reply_to);
        }
    }

    /// The session of a CONNECT is open: answers the client that waits for it here.
    pub(super) fn on_opened(&mut self, session: SessionId, device: DeviceId, nonce: u64, aead: Aead) {
        self.out.push(Effect::SessionKnown { session, device, nonce, aead });
        if let Some(reply_to) = self.under_way.connects.remove(&(device, nonce))
            && self.is_primary
        {
            let secret = self.keys.session_secret(session, device.key, nonce, aead).key().clone();
            let (coordinator, options) = (self.coordinator(), OptionalFields::NONE);
            let accept = AcceptConn { nonce, session, coordinator, secret, aead, options };
            let packets = vec![ToClient::AcceptConn(accept)];
            self.deliver(delivery::Input::AnswerTo { reply_to, packets });
        }
    }

    /// The CONNECT was refused when it was applied.
    pub(super) fn on_not_opened(&mut self, device: DeviceId, nonce: u64, code: Code) {
        if let Some(reply_to) = self.under_way.connects.remove(&(device, nonce)) {
            let packet = ToClient::RejectConn(RejectConn::new(nonce, code, 0));
            self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
        }
    }

    pub(super) fn on_resume(&mut self, clock: Clock, session: SessionId, resume: Resume) {
        if !self.serves() {
            let coordinator = ToClient::Coordinator(self.coordinator());
            return self.deliver(delivery::Input::Answer { session, packet: coordinator });
        }
        if self.service.is_pending(session) {
            return self.confirm(clock, session, resume);
        }
        let Some(view) = self.service.session(session) else {
            return self.refuse_session(session);
        };
        let named = match resume.cursor.map(Position::op) {
            Some(None) => return self.refuse_packet(session, Code::OtherEpoch),
            named => named.flatten(),
        };
        // Everything that a client can have seen was applied here before this view began, so a cursor beyond
        // `applied` is not of this log. Serving from it would skip every op up to it.
        let applied = self.service.applied();
        if let Some(cursor) = named.filter(|cursor| *cursor > applied) {
            self.out.push(Effect::BeyondEnd { session, cursor, applied });
            return self.refuse_packet(session, Code::BeyondEnd);
        }
        let (last_seq, coordinator) = (view.last_seq, self.coordinator());
        let answer = ResumeOk {
            created_op: view.created_op,
            last_seq,
            coordinator,
            cursor: Position::of(view.cursor),
            keepalive_ms: keepalive_ms(self.service.session_count()),
            options: OptionalFields::NONE,
        };
        self.deliver(delivery::Input::Answer { session, packet: ToClient::ResumeOk(answer) });
        let cursor = named.unwrap_or(view.cursor);
        let credit = view.receives.then_some(resume.credit);
        self.deliver(delivery::Input::Serve { session, cursor, credit });
    }

    /// Logs the confirmation once. The answer comes with the commit; until then there is none.
    fn confirm(&mut self, clock: Clock, session: SessionId, resume: Resume) {
        if let Some(before) = self.under_way.confirming.get_mut(&session) {
            *before = resume;
            return;
        }
        let Some(holder) = self.holder(session) else { return self.refuse_session(session) };
        if self.is_busy() || !self.under_way.confirming.make_room(&holder) {
            let busy = Refused::new(Code::Busy, Answers::Session, RETRY_MS);
            return self.deliver(delivery::Input::Answer { session, packet: ToClient::Error(busy) });
        }
        if self.propose(clock, Command::SessionConfirm { session }).is_some() {
            self.under_way.confirming.insert(clock.now, holder, session, resume);
        }
    }

    pub(super) fn on_confirmed(&mut self, clock: Clock, session: SessionId) {
        if self.is_primary {
            self.housekeeping.on_logged(session, self.service.clock_ms());
        }
        if let Some(resume) = self.under_way.confirming.remove(&session) {
            self.on_resume(clock, session, resume);
        }
    }

    fn holder(&self, session: SessionId) -> Option<Holder> {
        let network = self.charges.network(session).filter(|network| !network.is_loopback());
        let profile = || self.service.owner(session).cloned().map(Holder::Profile);
        network.map(Holder::Network).or_else(profile)
    }

    pub(super) fn on_disconnect(&mut self, clock: Clock, session: SessionId, upto: Position) {
        if !self.accepts() {
            return;
        }
        let Some(view) = self.service.session(session) else { return self.refuse_session(session) };
        // It has no cursor to keep, and its client waits for no answer.
        if !view.receives {
            return self.housekeeping.on_left(session);
        }
        // The client repeats DISCONNECT, and leaves after a while without an answer, so one close in the
        // log is enough.
        if self.is_busy() || !self.under_way.closing.insert(session) {
            return;
        }
        // A closed session cannot move its cursor, so a last cursor that moves is logged before the close.
        self.housekeeping.drop_cursor(session);
        if let Some(upto) = upto.op().filter(|upto| *upto > view.cursor) {
            self.propose(clock, Command::Cursors(vec![(session, upto)]));
        }
        self.propose(clock, Command::SessionClose { session });
    }

    pub(super) fn on_closed(&mut self, session: SessionId, why: Code) {
        self.out.push(Effect::SessionGone(session));
        self.under_way.forget(session);
        self.outstanding.forget(session);
        self.housekeeping.forget(session);
        self.charges.forget(session);
        if self.is_primary {
            let over = Refused::new(why, Answers::Session, 0);
            self.deliver(delivery::Input::SessionEnded { session, packets: vec![ToClient::Error(over)] });
        }
    }

    pub(super) fn on_numbered(
        &mut self,
        clock: Clock,
        session: SessionId,
        seq: Seq,
        numbered: Numbered,
        cost: u32,
    ) {
        let refused = |code, retry_ms| {
            let packet = ToClient::Error(Refused::new(code, Answers::Request(seq), retry_ms));
            delivery::Input::Answer { session, packet }
        };
        if !self.accepts() {
            return self.deliver(refused(self.passing_refusal(), RETRY_MS));
        }
        if let Err(wait) = self.spend(clock, session, cost) {
            return self.deliver(refused(Code::Busy, wait));
        }
        let last_applied = match self.service.standing(session, seq, numbered.digest) {
            Standing::Answered(result) => {
                let author = self.service.owner(session);
                let tells = author.map(|author| self.service.tells(author, &numbered.request, result));
                return self.answer(session, seq, result, tells.unwrap_or(Tells::Nothing));
            }
            Standing::Taken => return self.deliver(refused(Code::NumberTaken, 0)),
            Standing::Forgotten if self.config.planted.is(Planted::ForgottenIsSilence) => return,
            Standing::Forgotten => return self.deliver(refused(Code::NumberForgotten, 0)),
            Standing::Refused(_) => return self.refuse_session(session),
            Standing::Ahead(by) => Seq(seq.0.saturating_sub(by)),
        };
        if self.is_busy() {
            return self.deliver(refused(Code::Busy, RETRY_MS));
        }
        let twice = self.config.planted.is(Planted::DuplicatesOnlyCommitted);
        let logged = self.under_way.logged.entry(session).or_default();
        *logged = last_applied.max(*logged);
        if seq <= *logged && !twice {
            return;
        }
        if seq > logged.next() {
            if seq.0 - last_applied.0 > self.config.limits.outstanding {
                self.deliver(refused(Code::TooFarAhead, RETRY_MS));
            } else if let Some(holder) = self.holder(session) {
                self.under_way.buffered.insert(clock.now, holder, (session, seq), numbered);
            }
            return;
        }
        self.log_numbered(clock, session, seq, numbered);
        self.log_buffered(clock, session);
    }

    fn log_numbered(&mut self, clock: Clock, session: SessionId, seq: Seq, numbered: Numbered) {
        let Numbered { answered_below, mut request, digest } = numbered;
        if let (Request::Retract { op, topic }, Some(asker)) = (&mut request, self.service.owner(session)) {
            let (found, searched) = self.service.topic_of(asker, *op);
            *topic = found;
            self.charges.owe(clock.now, session, Some(asker), cost::searched(searched));
        }
        // As in a SessionOpen.
        let options = OptionalFields::NONE;
        let makes = self.service.makes_channel(&request);
        let may_make = !makes || self.charges.may_make_channel(clock.now, session);
        let command = Command::Request { session, seq, answered_below, request, digest, may_make, options };
        if self.propose(clock, command).is_some()
            && let Some(logged) = self.under_way.logged.get_mut(&session)
        {
            *logged = seq.max(*logged);
        }
    }

    /// Logs the buffered requests that follow the number just logged.
    fn log_buffered(&mut self, clock: Clock, session: SessionId) {
        while let Some((seq, numbered)) = self.under_way.take_next(session) {
            self.log_numbered(clock, session, seq, numbered);
        }
    }

    /// Returns true if too many entries are uncommitted; clients are then answered Busy instead of queued.
    fn is_busy(&self) -> bool {
        let status = self.log.status();
        status.last.0 - status.commit.0 >= UNCOMMITTED_MAX
    }
}
