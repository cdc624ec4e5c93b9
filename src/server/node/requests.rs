//! What clients ask: sessions, numbered requests, and questions.
//!
//! A session opened by CONNECT is pending until its client speaks on it: the first RESUME confirms it
//! in the log, and only then is it served and the device's older one fenced. So a CONNECT that
//! somebody replays opens nothing of use and ends nothing (DESIGN.md section 7).
//!
//! Numbered requests are taken in their order and each number once: applied already, it is answered
//! as it was answered, unless another request had the number (a copy of the device's files is in use) or
//! its result is no longer held, which is told as such; in the log but not committed, silence (the answer comes with the commit);
//! the next one is logged; a higher one waits a while in a small window. Whatever cannot be taken
//! for a passing reason (Busy, NoQuorum, NotPrimary) takes no number (DESIGN.md section 3).
//!
//! Questions are answered by the primary only, from what is applied: so reads never go back (P4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Clock, Effect, Node};
use crate::config::{Limits, Planted};
use crate::delivery;
use crate::delivery::Caller;
use crate::fair::{Network, Table};
use crate::id::{DeviceId, DeviceKey, Name, Op, Seq, SessionId, Topic};
use crate::server::cost;
use crate::service::{Applied, SessionView, Standing};
use crate::wire::codec;
use crate::wire::command::{Command, Request, SessionOpen, Stamped};
use crate::wire::packet::{
    AcceptConn, Admin, AdminChange, AdminOk, Answers, Code, Connect, Packet, QueryId, Refused, RejectConn,
    Resume, ResumeOk, StatusOk,
};

/// CONNECTs, and as many confirmations, in the log whose commit is awaited. For one more, one of the network
/// (or [`Holder`]) that has the most is not answered, and asks again; one that has as many as any other is told
/// Busy.
const CONNECTS_MAX: usize = 1_024;

/// Entries taken and not committed; beyond it clients are told Busy.
const UNCOMMITTED_MAX: u64 = 4_096;

/// Requests of one session held for the numbers before them; more are dropped, and sent again by
/// the client.
const HELD_MAX: usize = 64;

/// The same of all sessions together: at most so many large notifications in memory. For one more, one of the
/// [`Holder`] that has the most is dropped; of one that has as many as any other, the one more is.
const HELD_ALL_MAX: usize = 4_096;

/// What administrators asked whose commit is awaited; for one more, Busy.
const ADMIN_MAX: usize = 64;

/// When a client may try again what was refused for a passing reason, in ms.
const RETRY_MS: u32 = 50;

/// What this server, as primary, remembers of what is under way. Gone with the role.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// Who asked last, of each: the answer is for that one.
    connects: Table<Network, (DeviceId, u64), Caller, CONNECTS_MAX>,
    /// Pending sessions whose confirmation is logged and not yet committed, and how their clients
    /// want to go on.
    confirming: Table<Holder, SessionId, Resume, CONNECTS_MAX>,
    /// The highest number in the log; of live sessions only.
    logged: BTreeMap<SessionId, Seq>,
    /// Requests that wait for those before them; of the same sessions.
    held: Table<Holder, (SessionId, Seq), Numbered, HELD_ALL_MAX>,
    /// Whose end is logged and not yet committed.
    closing: BTreeSet<SessionId>,
    /// Who asked last what is logged for an administrator and not yet committed; at most [`ADMIN_MAX`].
    admin: BTreeMap<QueryId, Caller>,
}

impl UnderWay {
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn confirming(&self) -> usize {
        self.confirming.len()
    }

    /// The numbers of a session's requests that are held.
    fn held_of(&self, session: SessionId) -> impl Iterator<Item = Seq> {
        let range = (session, Seq(0))..=(session, Seq(u64::MAX));
        self.held.keys(range).map(|(_, seq)| *seq)
    }

    /// The request that follows the last one in the log, if it is held; those before it are held no more.
    fn take_next(&mut self, session: SessionId) -> Option<(Seq, Numbered)> {
        let next = self.logged.get(&session)?.next();
        loop {
            let seq = self.held_of(session).next().filter(|seq| *seq <= next)?;
            let numbered = self.held.remove(&(session, seq))?;
            if seq == next {
                return Some((seq, numbered));
            }
        }
    }

    /// A session is over.
    fn forget(&mut self, session: SessionId) {
        self.closing.remove(&session);
        self.confirming.remove(&session);
        self.logged.remove(&session);
        for seq in self.held_of(session).collect::<Vec<_>>() {
            self.held.remove(&(session, seq));
        }
    }
}

/// Whose a session is where room is shared: of the network where its client has shown that it receives. Of its
/// profile while none is known, as when most first RESUMEs come, and on this machine itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Network(Network),
    Profile(Name),
}

#[derive(Debug)]
struct Numbered {
    answered_below: Seq,
    request: Request,
    digest: u64,
}

impl Numbered {
    fn new(answered_below: Seq, request: Request, nonce: u64) -> Numbered {
        let digest = request.digest(nonce);
        Numbered { answered_below, request, digest }
    }
}

/// Whether it is this machine's own network, which has no limit: nobody is kept from a machine by its own
/// addresses.
fn is_own(network: Option<Network>) -> bool {
    network.is_some_and(|network| network.is_loopback())
}

impl Node {
    /// Somebody without a session asks.
    pub(super) fn on_knock(&mut self, clock: Clock, caller: Caller, key: DeviceKey, packet: Packet) {
        match packet {
            Packet::Status(query) => {
                let answer = self.status(clock, query);
                self.tell(delivery::Input::AnswerTo { caller, packets: vec![Packet::StatusOk(answer)] });
            }
            // As another device than the one whose key was proved: as good as forged.
            Packet::Connect(connect) if connect.device.key == key => {
                self.on_connect(clock, caller, connect);
            }
            Packet::Admin(admin) if key == self.admin => self.on_admin(clock, caller, admin),
            // Everything else wants a session, or is not for a server.
            _ => {}
        }
    }

    pub(super) fn on_client(&mut self, clock: Clock, session: SessionId, packet: Packet) {
        match packet {
            // Nobody waits for an answer to these for long: beyond the budget there is none.
            Packet::Status(_) | Packet::Keepalive | Packet::Resume(_)
                if self.spend(clock, session, cost::LEAST).is_err() => {}
            Packet::Status(query) => {
                let answer = Packet::StatusOk(self.status(clock, query));
                self.tell(delivery::Input::Answer { session, packet: answer });
            }
            Packet::Keepalive => self.on_keepalive(clock, session),
            Packet::Resume(resume) => self.on_resume(clock, session, resume),
            // Silence: no client says anything else before RESUME_OK, and a refusal would end it.
            _ if self.service.is_pending(session) => {}
            Packet::Disconnect(last) => self.on_disconnect(clock, session, last.upto),
            Packet::Follow(follow) => {
                let request = Request::Follow { topic: follow.topic, change: follow.change };
                let numbered = Numbered::new(follow.answered_below, request, follow.nonce);
                self.on_numbered(clock, session, follow.seq, numbered, cost::LEAST);
            }
            Packet::Send(send) => {
                let Some(view) = self.service.session(session) else {
                    return self.refuse_session(session);
                };
                let topic = send.topic.unwrap_or(Topic::Feed(view.profile));
                let cost = cost::send(&send.content, self.service.fan_out(&topic));
                let request = Request::Send { topic, content: send.content };
                let numbered = Numbered::new(send.answered_below, request, send.nonce);
                self.on_numbered(clock, session, send.seq, numbered, cost);
            }
            Packet::Channel(ask) => {
                let request = Request::Channel { channel: ask.channel, change: ask.change };
                let numbered = Numbered::new(ask.answered_below, request, ask.nonce);
                self.on_numbered(clock, session, ask.seq, numbered, cost::LEAST);
            }
            Packet::Keys(ask) => {
                let request = Request::Keys { change: ask.change };
                let numbered = Numbered::new(ask.answered_below, request, ask.nonce);
                self.on_numbered(clock, session, ask.seq, numbered, cost::LEAST);
            }
            Packet::History(history) => {
                let cost = cost::history(&history, self.topics(session));
                self.on_question(clock, session, history.query, cost, |node, asker| {
                    node.service.history(&asker.profile, &history).map(Packet::HistoryOk)
                })
            }
            Packet::List(list) => {
                let cost = cost::list(&list.what, self.topics(session));
                self.on_question(clock, session, list.query, cost, |node, asker| {
                    let (answer, passed_over) = node.service.list(&asker.profile, &list)?;
                    node.owe(clock, session, cost::passed_over(passed_over));
                    Ok(Packet::ListOk(answer))
                })
            }
            Packet::RequestUserInfo(ask) => {
                let cost = cost::info(self.topics(session));
                self.on_question(clock, session, ask.query, cost, |node, asker| {
                    node.service.info(&asker.profile, &ask).map(Packet::Info)
                })
            }
            // Everything else is not for a server, or not from a client.
            _ => {}
        }
    }

    fn on_connect(&mut self, clock: Clock, caller: Caller, connect: Connect) {
        let nonce = connect.nonce;
        let reject = |code| Packet::RejectConn(RejectConn { nonce, code, retry_ms: RETRY_MS });
        if !self.replica.accepts() {
            // A hand-over or an election: who asks again soon finds the one that follows.
            let mut packets = vec![Packet::Coordinator(self.coordinator())];
            if self.replica.is_active_primary() {
                packets.push(reject(self.passing_refusal()));
            }
            return self.tell(delivery::Input::AnswerTo { caller, packets });
        }
        let key = (connect.device, nonce);
        if let Some(before) = self.under_way.connects.get_mut(&key) {
            *before = caller;
            return;
        }
        let network = Network::of(caller.to.ip());
        if self.is_busy() || !self.under_way.connects.make_room(&network) {
            return self.tell(delivery::Input::AnswerTo { caller, packets: vec![reject(Code::Busy)] });
        }
        if let Err(wait) = self.claim(clock, network, &connect.profile) {
            let retry_ms = wait.as_millis().min(u128::from(u32::MAX)) as u32;
            let packet = Packet::RejectConn(RejectConn { nonce, code: Code::TooManyNames, retry_ms });
            return self.tell(delivery::Input::AnswerTo { caller, packets: vec![packet] });
        }
        let Connect { device, profile, receives, nonce, fresh, code, invite } = connect;
        let admission = self.config.admission;
        let open = SessionOpen { device, profile, receives, nonce, fresh, code, invite, admission };
        let command = Command::SessionOpen(open);
        if self.propose(clock, command).is_some() {
            self.under_way.connects.insert(clock.now, network, key, caller);
        }
    }

    /// A CONNECT from this network for this name. For one that nobody has, the network pays; if it has had too
    /// many lately: how long it is until the next. None of this machine's own ([`is_own`]).
    fn claim(&mut self, clock: Clock, network: Network, name: &Name) -> Result<(), Duration> {
        if is_own(Some(network)) || !self.service.is_unclaimed(name) {
            return Ok(());
        }
        self.names.take(clock.now, &network, Limits::NAME_COST)
    }

    /// Does what an administrator asks, and answers to where it came from: ADMIN_OK, or ERROR. What was done is
    /// told by whoever has it, also by another primary; what is logged twice all the same, apply does once.
    fn on_admin(&mut self, clock: Clock, caller: Caller, admin: Admin) {
        let query = admin.query;
        if let Some(result) = self.service.administered(query) {
            return self.answer_admin(caller, query, result);
        }
        if !self.replica.accepts() {
            return self.answer_admin(caller, query, Err(self.passing_refusal()));
        }
        if let Some(before) = self.under_way.admin.get_mut(&query) {
            *before = caller;
            return;
        }
        if self.under_way.admin.len() >= ADMIN_MAX {
            return self.answer_admin(caller, query, Err(Code::Busy));
        }
        if self.propose(clock, Command::Administer(admin)).is_some() {
            self.under_way.admin.insert(query, caller);
        }
    }

    fn on_administered(&mut self, query: QueryId, change: AdminChange, result: Result<Op, Code>) {
        if let (Ok(op), true) = (result, self.is_primary) {
            self.out.push(Effect::Administered { change, op });
        }
        if let Some(caller) = self.under_way.admin.remove(&query) {
            self.answer_admin(caller, query, result);
        }
    }

    fn answer_admin(&mut self, caller: Caller, query: QueryId, result: Result<Op, Code>) {
        let packet = match result {
            Ok(op) => Packet::AdminOk(AdminOk { query, op }),
            Err(code) => {
                let passes = matches!(code, Code::Busy | Code::NoQuorum | Code::NotPrimary);
                let retry_ms = if passes { RETRY_MS } else { 0 };
                Packet::Error(Refused { code, answers: Answers::Query(query), retry_ms })
            }
        };
        self.tell(delivery::Input::AnswerTo { caller, packets: vec![packet] });
    }

    fn on_keepalive(&mut self, clock: Clock, session: SessionId) {
        let coordinator = Packet::Coordinator(self.coordinator());
        self.tell(delivery::Input::Answer { session, packet: coordinator });
        self.note_alive(clock, session);
    }

    fn on_resume(&mut self, clock: Clock, session: SessionId, resume: Resume) {
        if !self.serves() {
            let coordinator = Packet::Coordinator(self.coordinator());
            return self.tell(delivery::Input::Answer { session, packet: coordinator });
        }
        if self.service.is_pending(session) {
            return self.confirm(clock, session, resume);
        }
        let Some(view) = self.service.session(session) else {
            return self.refuse_session(session);
        };
        // Everything a client can have seen was applied here before this view began. To serve it behind the
        // end would pass over what is still to come, until the log gets there.
        let applied = self.service.applied();
        if let Some(cursor) = resume.cursor.filter(|cursor| *cursor > applied) {
            self.out.push(Effect::BeyondEnd { session, cursor, applied });
            let beyond = Refused { code: Code::BeyondEnd, answers: Answers::Session, retry_ms: 0 };
            return self.tell(delivery::Input::Answer { session, packet: Packet::Error(beyond) });
        }
        let (last_seq, coordinator) = (view.last_seq, self.coordinator());
        let answer = ResumeOk { born: view.born, last_seq, coordinator, cursor: view.cursor };
        self.tell(delivery::Input::Answer { session, packet: Packet::ResumeOk(answer) });
        let cursor = resume.cursor.unwrap_or(view.cursor);
        let credit = view.receives.then_some(resume.credit);
        self.tell(delivery::Input::Serve { session, cursor, credit });
    }

    /// Once in the log; the answer comes with the commit, and until then there is silence.
    fn confirm(&mut self, clock: Clock, session: SessionId, resume: Resume) {
        if let Some(before) = self.under_way.confirming.get_mut(&session) {
            *before = resume;
            return;
        }
        let Some(holder) = self.holder(session) else { return self.refuse_session(session) };
        if self.is_busy() || !self.under_way.confirming.make_room(&holder) {
            let busy = Refused { code: Code::Busy, answers: Answers::Session, retry_ms: RETRY_MS };
            return self.tell(delivery::Input::Answer { session, packet: Packet::Error(busy) });
        }
        if self.propose(clock, Command::SessionConfirm { session }).is_some() {
            self.under_way.confirming.insert(clock.now, holder, session, resume);
        }
    }

    fn holder(&self, session: SessionId) -> Option<Holder> {
        let network = self.networks.get(&session).copied().filter(|network| !network.is_loopback());
        let profile = || self.service.owner(session).cloned().map(Holder::Profile);
        network.map(Holder::Network).or_else(profile)
    }

    fn on_disconnect(&mut self, clock: Clock, session: SessionId, upto: Op) {
        if !self.replica.accepts() {
            return;
        }
        if self.service.session(session).is_none() {
            return self.refuse_session(session);
        }
        // The client says it again, and leaves after a while without an answer: once in the log is enough.
        if self.is_busy() || !self.under_way.closing.insert(session) {
            return;
        }
        // A closed session moves no cursor any more: what it read last is logged before.
        self.cursors.remove(&session);
        self.propose(clock, Command::Cursors(vec![(session, upto)]));
        self.propose(clock, Command::SessionClose { session });
    }

    fn on_numbered(&mut self, clock: Clock, session: SessionId, seq: Seq, numbered: Numbered, cost: u32) {
        let refused = |code, retry_ms| {
            let packet = Packet::Error(Refused { code, answers: Answers::Request(seq), retry_ms });
            delivery::Input::Answer { session, packet }
        };
        if !self.replica.accepts() {
            return self.tell(refused(self.passing_refusal(), RETRY_MS));
        }
        if let Err(wait) = self.spend(clock, session, cost) {
            return self.tell(refused(Code::Busy, wait));
        }
        let last_applied = match self.service.standing(session, seq, numbered.digest) {
            Standing::Answered(result) => return self.answer(session, seq, result),
            Standing::Taken => return self.tell(refused(Code::NumberTaken, 0)),
            Standing::Forgotten if self.config.planted.is(Planted::ForgottenIsSilence) => return,
            Standing::Forgotten => return self.tell(refused(Code::NumberForgotten, 0)),
            Standing::Refused(_) => return self.refuse_session(session),
            Standing::Ahead(by) => Seq(seq.0.saturating_sub(by)),
        };
        if self.is_busy() {
            return self.tell(refused(Code::Busy, RETRY_MS));
        }
        let twice = self.config.planted.is(Planted::DuplicatesOnlyCommitted);
        let logged = self.under_way.logged.entry(session).or_default();
        *logged = last_applied.max(*logged);
        if seq <= *logged && !twice {
            return;
        }
        if seq > logged.next() {
            if seq.0 - last_applied.0 > self.config.limits.outstanding {
                self.tell(refused(Code::TooFarAhead, RETRY_MS));
            } else if self.under_way.held_of(session).count() < HELD_MAX
                && let Some(holder) = self.holder(session)
            {
                self.under_way.held.insert(clock.now, holder, (session, seq), numbered);
            }
            return;
        }
        self.log_numbered(clock, session, seq, numbered);
        self.log_held(clock, session);
    }

    /// How many topics are followed by whose session it is.
    fn topics(&self, session: SessionId) -> usize {
        self.service.owner(session).map_or(0, |profile| self.service.follows(profile))
    }

    /// A request or question of a session. Beyond its budget, its profile's or its network's: after how many ms
    /// it may try again. In this order, so that what is refused to one takes nothing from others.
    fn spend(&mut self, clock: Clock, session: SessionId, cost: u32) -> Result<(), u32> {
        let mut spent = Ok(());
        // One that is not live has its network's only.
        if let Some(asker) = self.service.session(session) {
            spent = self.session_budgets.take(clock.now, &session, cost);
            spent = spent.and_then(|()| self.profile_budgets.take(clock.now, &asker.profile, cost));
        }
        let network = self.networks.get(&session).copied();
        if !is_own(network) {
            spent = spent.and_then(|()| self.network_budgets.take(clock.now, &network, cost));
        }
        spent.map_err(|wait| wait.as_millis().clamp(1, 60_000) as u32)
    }

    /// What a question turned out to cost beyond what was spent for it, of the same budgets: less is left to ask
    /// for, or none for a while.
    fn owe(&mut self, clock: Clock, session: SessionId, cost: u32) {
        if let Some(profile) = self.service.owner(session) {
            self.session_budgets.owe(clock.now, &session, cost);
            self.profile_budgets.owe(clock.now, profile, cost);
        }
        // One that has no limit has no bucket.
        let network = self.networks.get(&session).copied();
        self.network_budgets.owe(clock.now, &network, cost);
    }

    /// Charges a page of what is pending to its session.
    ///
    /// # Errors
    /// How long it takes until it can be had.
    pub(super) fn pay_for_page(
        &mut self,
        clock: Clock,
        session: SessionId,
        limit: u32,
    ) -> Result<(), Duration> {
        let Some(asker) = self.service.session(session) else { return Ok(()) };
        let cost = cost::page(self.service.follows(&asker.profile), limit);
        self.spend(clock, session, cost).map_err(|wait_ms| Duration::from_millis(wait_ms.into()))
    }

    /// Whether a request makes no channel, or its network may make one more, and pays for it.
    fn may_make(&mut self, clock: Clock, session: SessionId, request: &Request) -> bool {
        let network = self.networks.get(&session).copied();
        is_own(network)
            || !self.service.makes_channel(request)
            || self.channels.take(clock.now, &network, Limits::NAME_COST).is_ok()
    }

    fn log_numbered(&mut self, clock: Clock, session: SessionId, seq: Seq, numbered: Numbered) {
        let Numbered { answered_below, request, digest } = numbered;
        let may_make = self.may_make(clock, session, &request);
        let command = Command::Request { session, seq, answered_below, request, digest, may_make };
        if self.propose(clock, command).is_some()
            && let Some(logged) = self.under_way.logged.get_mut(&session)
        {
            *logged = seq.max(*logged);
        }
    }

    /// What waited for the number just logged follows it.
    fn log_held(&mut self, clock: Clock, session: SessionId) {
        while let Some((seq, numbered)) = self.under_way.take_next(session) {
            self.log_numbered(clock, session, seq, numbered);
        }
    }

    fn on_question(
        &mut self,
        clock: Clock,
        session: SessionId,
        query: QueryId,
        cost: u32,
        answer: impl FnOnce(&mut Node, &SessionView) -> Result<Packet, Code>,
    ) {
        let refused =
            |code, retry_ms| Packet::Error(Refused { code, answers: Answers::Query(query), retry_ms });
        let packet = if !self.serves() {
            refused(self.passing_refusal(), RETRY_MS)
        } else if let Err(wait) = self.spend(clock, session, cost) {
            refused(Code::Busy, wait)
        } else if let Some(asker) = self.service.session(session) {
            answer(self, &asker).unwrap_or_else(|code| refused(code, 0))
        } else {
            return self.refuse_session(session);
        };
        self.tell(delivery::Input::Answer { session, packet });
    }

    /// STATUS_OK: how this server is.
    fn status(&self, clock: Clock, query: QueryId) -> StatusOk {
        StatusOk {
            query,
            node: self.config.cluster.me,
            role: self.replica.role(),
            view: self.replica.promised(),
            applied: self.service.applied(),
            durable: self.replica.durable(),
            lag: self.replica.last().0.saturating_sub(self.service.applied().0),
            pid: self.pid,
            incarnation: self.incarnation,
            uptime_ms: clock.now.since(self.started).as_millis() as u64,
            members: self.coordinator().members,
            refused: self.refused.clone(),
        }
    }

    /// What applying brought about, for those who wait for it here.
    pub(super) fn on_applied(&mut self, clock: Clock, applied: Applied) {
        match applied {
            Applied::SessionOpened { session, device, nonce } => {
                self.out.push(Effect::SessionKnown { session, device, nonce });
                if let Some(caller) = self.under_way.connects.remove(&(device, nonce))
                    && self.is_primary
                {
                    let secret = self.keys.session_secret(session, device.key, nonce);
                    let accept = AcceptConn { nonce, session, coordinator: self.coordinator(), secret };
                    let packets = vec![Packet::AcceptConn(accept)];
                    self.tell(delivery::Input::AnswerTo { caller, packets });
                }
            }
            Applied::SessionRefused { device, nonce, code } => {
                if let Some(caller) = self.under_way.connects.remove(&(device, nonce)) {
                    let packet = Packet::RejectConn(RejectConn { nonce, code, retry_ms: 0 });
                    self.tell(delivery::Input::AnswerTo { caller, packets: vec![packet] });
                }
            }
            Applied::SessionConfirmed { session } => {
                if let Some(resume) = self.under_way.confirming.remove(&session) {
                    self.on_resume(clock, session, resume);
                }
            }
            Applied::SessionClosed { session, why } => {
                self.out.push(Effect::SessionGone(session));
                self.under_way.forget(session);
                self.cursors.remove(&session);
                self.alive.remove(&session);
                self.session_budgets.remove(&session);
                self.networks.remove(&session);
                if self.is_primary {
                    let over = Refused { code: why, answers: Answers::Session, retry_ms: 0 };
                    self.tell(delivery::Input::Over { session, packets: vec![Packet::Error(over)] });
                }
            }
            Applied::Answered { session, seq, result } => {
                if self.is_primary {
                    self.answer(session, seq, result);
                }
            }
            Applied::Administered { query, change, result } => self.on_administered(query, change, result),
            Applied::Withdrawn { sessions } => {
                if self.is_primary && !sessions.is_empty() {
                    self.tell(delivery::Input::Withdrawn(sessions));
                }
            }
            Applied::Notified { notification, sessions } => {
                if self.is_primary && !sessions.is_empty() {
                    self.tell(delivery::Input::Applied { notification, sessions });
                }
            }
        }
    }

    fn answer(&mut self, session: SessionId, seq: Seq, result: Result<Op, Code>) {
        let packet = match result {
            Ok(op) => Packet::SendAck(crate::wire::packet::SendAck { seq, op }),
            Err(code) => Packet::Error(Refused { code, answers: Answers::Request(seq), retry_ms: 0 }),
        };
        self.tell(delivery::Input::Answer { session, packet });
    }

    /// The session is not (or no longer) in the committed state of a primary that serves: for good.
    fn refuse_session(&mut self, session: SessionId) {
        if self.serves() {
            let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
            self.tell(delivery::Input::Over { session, packets: vec![Packet::Error(over)] });
        }
    }

    /// Why nothing is taken now, though it may be soon.
    fn passing_refusal(&self) -> Code {
        if self.replica.role() == crate::wire::packet::RoleName::Isolated {
            Code::NoQuorum
        } else {
            Code::NotPrimary
        }
    }

    /// More is under way than should be: told to clients instead of queued.
    fn is_busy(&self) -> bool {
        self.replica.last().0 - self.replica.commit().0 >= UNCOMMITTED_MAX
    }

    pub(super) fn propose(&mut self, clock: Clock, command: Command) -> Option<Op> {
        let mut unix_ms = self.log_clock.read(clock);
        if self.config.planted.is(Planted::LogTimeGoesBack) {
            unix_ms = clock.unix_ms;
        }
        let stamped = Stamped { unix_ms, command };
        self.replica.propose(codec::encode(&stamped).into())
    }

    fn tell(&mut self, input: delivery::Input) {
        self.out.push(Effect::Delivery(input));
    }
}
