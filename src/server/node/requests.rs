//! Packets of clients: sessions, numbered requests, and queries.
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
//! Only the primary answers queries, from applied state, so reads never go back (P4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_proto::codec;
use recado_proto::command::{Command, Request, SessionOpen, Stamped};
use recado_proto::id::{DeviceId, DeviceKey, Name, Op, Seq, SessionId, Topic};
use recado_proto::packet::{
    AcceptConn, Admin, AdminChange, AdminOk, Answers, Code, Connect, Packet, QueryId, Refused, RejectConn,
    Resume, ResumeOk, StatusOk,
};
use recado_service::{Applied, SessionView, Standing};

use super::{Clock, Effect, Node};
use crate::config::{Limits, Planted};
use crate::delivery;
use crate::delivery::ReplyTo;
use crate::fair::{Network, Table};
use crate::server::cost;

/// Maximum number of CONNECTs, and of confirmations, that are logged and not committed. When the table is
/// full, a further one displaces one of the network (or [`Holder`]) that has the most, which gets no answer
/// and asks again. If the rule of [`Table`] frees no place, the client is answered Busy.
const CONNECTS_MAX: usize = 1_024;

/// Maximum number of entries taken and not committed; beyond it clients are answered Busy.
const UNCOMMITTED_MAX: u64 = 4_096;

/// Maximum number of requests of one session that are buffered until the numbers before them arrive; more are
/// dropped, and the client retransmits them.
const HELD_MAX: usize = 64;

/// Maximum number of buffered requests of all sessions together; it bounds the large notifications in
/// memory. When the table is full, a further request displaces one of the [`Holder`] that has the most. If
/// the rule of [`Table`] frees no place, the further request is dropped.
const HELD_ALL_MAX: usize = 4_096;

/// Maximum number of administrators' changes that are logged and not committed; beyond it the answer is Busy.
const ADMIN_MAX: usize = 64;

/// Time in ms after which a client may retry a request that was refused for a temporary reason.
const RETRY_MS: u32 = 50;

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
    held: Table<Holder, (SessionId, Seq), Numbered, HELD_ALL_MAX>,
    /// Sessions whose close is logged and not committed.
    closing: BTreeSet<SessionId>,
    /// The sender of the latest INITIATION with each administrator's change that is logged and not committed;
    /// at most [`ADMIN_MAX`].
    admin: BTreeMap<QueryId, ReplyTo>,
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

    /// The numbers of a session's buffered requests, ascending.
    fn held_of(&self, session: SessionId) -> impl Iterator<Item = Seq> {
        let range = (session, Seq(0))..=(session, Seq(u64::MAX));
        self.held.keys(range).map(|(_, seq)| *seq)
    }

    /// Removes and returns the buffered request that follows the last one in the log. Buffered requests
    /// below it are dropped.
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

    /// Drops all state of a session that has ended.
    fn forget(&mut self, session: SessionId) {
        self.closing.remove(&session);
        self.confirming.remove(&session);
        self.logged.remove(&session);
        for seq in self.held_of(session).collect::<Vec<_>>() {
            self.held.remove(&(session, seq));
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

/// Returns true for the loopback network, which has no limit: a machine's own addresses must not lock anybody
/// out of it.
fn is_own(network: Option<Network>) -> bool {
    network.is_some_and(|network| network.is_loopback())
}

impl Node {
    /// Handles a packet of a client without a session.
    pub(super) fn on_initiation(&mut self, clock: Clock, reply_to: ReplyTo, key: DeviceKey, packet: Packet) {
        match packet {
            Packet::Status(query) => {
                let answer = self.status(clock, query);
                self.tell(delivery::Input::AnswerTo { reply_to, packets: vec![Packet::StatusOk(answer)] });
            }
            // A CONNECT for a device whose key was not authenticated counts as forged and is ignored.
            Packet::Connect(connect) if connect.device.key == key => {
                self.on_connect(clock, reply_to, connect);
            }
            Packet::Admin(admin) if key == self.admin => self.on_admin(clock, reply_to, admin),
            // Everything else needs a session, or is not for a server.
            _ => {}
        }
    }

    pub(super) fn on_client(&mut self, clock: Clock, session: SessionId, packet: Packet) {
        match packet {
            // Clients do not wait long for an answer to these, so beyond the budget there is none.
            Packet::Status(_) | Packet::Keepalive | Packet::Resume(_)
                if self.spend(clock, session, cost::LEAST).is_err() => {}
            Packet::Status(query) => {
                let answer = Packet::StatusOk(self.status(clock, query));
                self.tell(delivery::Input::Answer { session, packet: answer });
            }
            Packet::Keepalive => self.on_keepalive(clock, session),
            Packet::Resume(resume) => self.on_resume(clock, session, resume),
            // A pending session gets no answer: no client sends anything else before RESUME_OK, and a
            // refusal would end the session.
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

    fn on_connect(&mut self, clock: Clock, reply_to: ReplyTo, connect: Connect) {
        let nonce = connect.nonce;
        let reject = |code| Packet::RejectConn(RejectConn { nonce, code, retry_ms: RETRY_MS });
        if !self.replica.accepts() {
            // A handover or an election is in progress; a client that soon asks again finds the next primary.
            let mut packets = vec![Packet::Coordinator(self.coordinator())];
            if self.replica.is_active_primary() {
                packets.push(reject(self.passing_refusal()));
            }
            return self.tell(delivery::Input::AnswerTo { reply_to, packets });
        }
        let key = (connect.device, nonce);
        if let Some(before) = self.under_way.connects.get_mut(&key) {
            *before = reply_to;
            return;
        }
        let network = Network::of(reply_to.to.ip());
        if self.is_busy() || !self.under_way.connects.make_room(&network) {
            return self.tell(delivery::Input::AnswerTo { reply_to, packets: vec![reject(Code::Busy)] });
        }
        if let Err(wait) = self.claim(clock, network, &connect.profile) {
            let retry_ms = wait.as_millis().min(u128::from(u32::MAX)) as u32;
            let packet = Packet::RejectConn(RejectConn { nonce, code: Code::TooManyNames, retry_ms });
            return self.tell(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
        }
        let Connect { device, profile, receives, nonce, fresh, code, invite } = connect;
        let admission = self.config.admission;
        let open = SessionOpen { device, profile, receives, nonce, fresh, code, invite, admission };
        let command = Command::SessionOpen(open);
        if self.propose(clock, command).is_some() {
            self.under_way.connects.insert(clock.now, network, key, reply_to);
        }
    }

    /// Charges a CONNECT for an unclaimed name to its network, except on loopback ([`is_own`]).
    ///
    /// # Errors
    /// The network has claimed too many names lately: the time until it may claim the next.
    fn claim(&mut self, clock: Clock, network: Network, name: &Name) -> Result<(), Duration> {
        if is_own(Some(network)) || !self.service.is_unclaimed(name) {
            return Ok(());
        }
        self.names.take(clock.now, &network, Limits::NAME_COST)
    }

    /// Performs an administrator's change and answers the address that it came from: ADMIN_OK, or ERROR. Any
    /// server that has the result of a change answers with it. A change that is logged twice is applied once.
    fn on_admin(&mut self, clock: Clock, reply_to: ReplyTo, admin: Admin) {
        let query = admin.query;
        if let Some(result) = self.service.administered(query) {
            return self.answer_admin(reply_to, query, result);
        }
        if !self.replica.accepts() {
            return self.answer_admin(reply_to, query, Err(self.passing_refusal()));
        }
        if let Some(before) = self.under_way.admin.get_mut(&query) {
            *before = reply_to;
            return;
        }
        if self.under_way.admin.len() >= ADMIN_MAX {
            return self.answer_admin(reply_to, query, Err(Code::Busy));
        }
        if self.propose(clock, Command::Administer(admin)).is_some() {
            self.under_way.admin.insert(query, reply_to);
        }
    }

    fn on_administered(&mut self, query: QueryId, change: AdminChange, result: Result<Op, Code>) {
        if let (Ok(op), true) = (result, self.is_primary) {
            self.out.push(Effect::Administered { change, op });
        }
        if let Some(reply_to) = self.under_way.admin.remove(&query) {
            self.answer_admin(reply_to, query, result);
        }
    }

    fn answer_admin(&mut self, reply_to: ReplyTo, query: QueryId, result: Result<Op, Code>) {
        let packet = match result {
            Ok(op) => Packet::AdminOk(AdminOk { query, op }),
            Err(code) => {
                let passes = matches!(code, Code::Busy | Code::NoQuorum | Code::NotPrimary);
                let retry_ms = if passes { RETRY_MS } else { 0 };
                Packet::Error(Refused { code, answers: Answers::Query(query), retry_ms })
            }
        };
        self.tell(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
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
        // Everything that a client can have seen was applied here before this view began, so a cursor beyond
        // `applied` is not of this log. Serving from it would skip every op up to it.
        let applied = self.service.applied();
        if let Some(cursor) = resume.cursor.filter(|cursor| *cursor > applied) {
            self.out.push(Effect::BeyondEnd { session, cursor, applied });
            let beyond = Refused { code: Code::BeyondEnd, answers: Answers::Session, retry_ms: 0 };
            return self.tell(delivery::Input::Answer { session, packet: Packet::Error(beyond) });
        }
        let (last_seq, coordinator) = (view.last_seq, self.coordinator());
        let answer = ResumeOk { created_op: view.created_op, last_seq, coordinator, cursor: view.cursor };
        self.tell(delivery::Input::Answer { session, packet: Packet::ResumeOk(answer) });
        let cursor = resume.cursor.unwrap_or(view.cursor);
        let credit = view.receives.then_some(resume.credit);
        self.tell(delivery::Input::Serve { session, cursor, credit });
    }

    /// Logs the confirmation once. The answer comes with the commit; until then there is none.
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
        // The client repeats DISCONNECT, and leaves after a while without an answer, so one close in the
        // log is enough.
        if self.is_busy() || !self.under_way.closing.insert(session) {
            return;
        }
        // A closed session cannot move its cursor, so its last cursor is logged before the close.
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

    /// Number of topics that the session's profile follows.
    fn topics(&self, session: SessionId) -> usize {
        self.service.owner(session).map_or(0, |profile| self.service.follows(profile))
    }

    /// Charges a request or query to the budgets of the session, its profile and its network, in this
    /// order, so that a refusal by one takes nothing from the budgets after it.
    ///
    /// # Errors
    /// A budget is exceeded: the time in ms after which the client may retry.
    fn spend(&mut self, clock: Clock, session: SessionId, cost: u32) -> Result<(), u32> {
        let mut spent = Ok(());
        // A session that is not live is charged to its network only.
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

    /// Charges the same budgets for what a query cost beyond the amount that was charged before it ran.
    /// Less is left for later requests, or none for a while.
    fn owe(&mut self, clock: Clock, session: SessionId, cost: u32) {
        if let Some(profile) = self.service.owner(session) {
            self.session_budgets.owe(clock.now, &session, cost);
            self.profile_budgets.owe(clock.now, profile, cost);
        }
        // The loopback network has no limit and no bucket, so this does not charge it.
        let network = self.networks.get(&session).copied();
        self.network_budgets.owe(clock.now, &network, cost);
    }

    /// Charges a page of pending notifications to its session.
    ///
    /// # Errors
    /// A budget is exceeded: the time until the page can be had.
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

    /// Returns true if a request makes no channel, or if its network may make one more, which this charges.
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

    /// Logs the buffered requests that follow the number just logged.
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

    /// STATUS_OK with the state of this server.
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

    /// Handles a result of an applied command, and answers the clients that wait for it here.
    pub(super) fn on_applied(&mut self, clock: Clock, applied: Applied) {
        match applied {
            Applied::SessionOpened { session, device, nonce } => {
                self.out.push(Effect::SessionKnown { session, device, nonce });
                if let Some(reply_to) = self.under_way.connects.remove(&(device, nonce))
                    && self.is_primary
                {
                    let secret = self.keys.session_secret(session, device.key, nonce);
                    let accept = AcceptConn { nonce, session, coordinator: self.coordinator(), secret };
                    let packets = vec![Packet::AcceptConn(accept)];
                    self.tell(delivery::Input::AnswerTo { reply_to, packets });
                }
            }
            Applied::SessionRefused { device, nonce, code } => {
                if let Some(reply_to) = self.under_way.connects.remove(&(device, nonce)) {
                    let packet = Packet::RejectConn(RejectConn { nonce, code, retry_ms: 0 });
                    self.tell(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
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
                    self.tell(delivery::Input::SessionEnded { session, packets: vec![Packet::Error(over)] });
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
            Ok(op) => Packet::SendAck(recado_proto::packet::SendAck { seq, op }),
            Err(code) => Packet::Error(Refused { code, answers: Answers::Request(seq), retry_ms: 0 }),
        };
        self.tell(delivery::Input::Answer { session, packet });
    }

    /// Refuses a session for good, if this is a primary that serves: the session is not in its committed
    /// state.
    fn refuse_session(&mut self, session: SessionId) {
        if self.serves() {
            let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
            self.tell(delivery::Input::SessionEnded { session, packets: vec![Packet::Error(over)] });
        }
    }

    /// The code for a temporary refusal.
    fn passing_refusal(&self) -> Code {
        if self.replica.role() == recado_proto::packet::RoleName::Isolated {
            Code::NoQuorum
        } else {
            Code::NotPrimary
        }
    }

    /// Returns true if too many entries are uncommitted; clients are then answered Busy instead of queued.
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
