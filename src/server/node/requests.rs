//! What clients ask: sessions, numbered requests, and questions.
//!
//! Numbered requests are taken in their order and each number once: applied already, it is answered
//! as it was answered; in the log but not committed, silence (the answer comes with the commit);
//! the next one is logged; a higher one waits a while in a small window. Whatever cannot be taken
//! for a passing reason (Busy, NoQuorum, NotPrimary) takes no number (DESIGN.md section 3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Clock, Effect, Node};
use crate::config::Planted;
use crate::delivery;
use crate::id::{DeviceId, Op, Seq, SessionId, Topic};
use crate::service::{Applied, SessionView, Standing};
use crate::wire::codec;
use crate::wire::command::{Command, Request, Stamped};
use crate::wire::packet::{
    AcceptConn, Answers, Code, Connect, Packet, QueryId, Refused, RejectConn, Resume, ResumeOk, StatusOk,
};

/// CONNECTs in the log whose commit is awaited; more are told Busy.
const CONNECTS_MAX: usize = 1_024;

/// Entries taken and not committed; beyond it clients are told Busy.
const UNCOMMITTED_MAX: u64 = 4_096;

/// Requests of one session held for the numbers before them; more are dropped, and sent again by
/// the client.
const HELD_MAX: usize = 64;

/// The same of all sessions together: at most so many large notifications in memory.
const HELD_ALL_MAX: usize = 4_096;

/// When a client may try again what was refused for a passing reason, in ms.
const RETRY_MS: u32 = 50;

/// What this server, as primary, remembers of what is under way. Gone with the role.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    connects: BTreeMap<(DeviceId, u64), Connecting>,
    /// Live sessions only.
    sessions: BTreeMap<SessionId, Numbers>,
    /// How many requests `sessions` hold together.
    held: usize,
    /// Whose end is logged and not yet committed.
    closing: BTreeSet<SessionId>,
}

impl UnderWay {
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        assert_eq!(self.held, self.sessions.values().map(|numbers| numbers.held.len()).sum::<usize>());
        self.held
    }

    /// A session is over.
    fn forget(&mut self, session: SessionId) {
        self.closing.remove(&session);
        if let Some(numbers) = self.sessions.remove(&session) {
            self.held -= numbers.held.len();
        }
    }
}

#[derive(Debug)]
struct Connecting {
    from: SocketAddr,
    connect: Connect,
}

#[derive(Debug, Default)]
struct Numbers {
    /// The highest number in the log.
    logged: Seq,
    held: BTreeMap<Seq, Numbered>,
}

#[derive(Debug)]
struct Numbered {
    answered_below: Seq,
    request: Request,
}

impl Node {
    pub(super) fn on_client(&mut self, clock: Clock, session: SessionId, from: SocketAddr, packet: Packet) {
        match packet {
            Packet::Status(query) => {
                let answer = self.status(clock, query);
                self.tell(delivery::Input::AnswerTo { to: from, packet: Packet::StatusOk(answer) });
            }
            Packet::Connect(connect) => self.on_connect(clock, from, connect),
            _ if session == SessionId::default() => {}
            Packet::Keepalive => self.on_keepalive(clock, session),
            Packet::Resume(resume) => self.on_resume(session, resume),
            Packet::Disconnect(last) => self.on_disconnect(clock, session, last.upto),
            Packet::Follow(follow) => {
                let request = Request::Follow { topic: follow.topic, change: follow.change };
                let numbered = Numbered { answered_below: follow.answered_below, request };
                self.on_numbered(clock, session, follow.seq, numbered);
            }
            Packet::Send(send) => {
                let Some(view) = self.service.session(session) else {
                    return self.refuse_session(session);
                };
                let topic = send.topic.unwrap_or(Topic::Feed(view.profile));
                let request = Request::Send { topic, content: send.content };
                let numbered = Numbered { answered_below: send.answered_below, request };
                self.on_numbered(clock, session, send.seq, numbered);
            }
            Packet::History(history) => self.on_question(session, history.query, |node, asker| {
                node.service.history(&asker.profile, &history).map(Packet::HistoryOk)
            }),
            Packet::List(list) => self.on_question(session, list.query, |node, asker| {
                node.service.list(&asker.profile, &list).map(Packet::ListOk)
            }),
            Packet::RequestUserInfo(ask) => self.on_question(session, ask.query, |node, asker| {
                node.service.info(&asker.profile, &ask).map(Packet::Info)
            }),
            // Everything else is not for a server, or not from a client.
            _ => {}
        }
    }

    fn on_connect(&mut self, clock: Clock, from: SocketAddr, connect: Connect) {
        let nonce = connect.nonce;
        let reject = |code| {
            let packet = Packet::RejectConn(RejectConn { nonce, code, retry_ms: RETRY_MS });
            delivery::Input::AnswerTo { to: from, packet }
        };
        if !self.replica.accepts() {
            // A hand-over or an election: who asks again soon finds the one that follows.
            let redirect = Packet::Coordinator(self.coordinator());
            self.tell(delivery::Input::AnswerTo { to: from, packet: redirect });
            if self.replica.is_active_primary() {
                self.tell(reject(self.passing_refusal()));
            }
            return;
        }
        let key = (connect.device, nonce);
        if let Some(connecting) = self.under_way.connects.get_mut(&key) {
            connecting.from = from;
            return;
        }
        if self.under_way.connects.len() >= CONNECTS_MAX || self.is_busy() {
            return self.tell(reject(Code::Busy));
        }
        let command = Command::SessionOpen {
            device: connect.device,
            profile: connect.profile.clone(),
            receives: connect.receives,
            nonce,
            fresh: connect.fresh,
        };
        if self.propose(clock, command).is_some() {
            self.under_way.connects.insert(key, Connecting { from, connect });
        }
    }

    fn on_keepalive(&mut self, clock: Clock, session: SessionId) {
        let coordinator = Packet::Coordinator(self.coordinator());
        self.tell(delivery::Input::Answer { session, packet: coordinator });
        self.note_alive(clock, session);
    }

    fn on_resume(&mut self, session: SessionId, resume: Resume) {
        if !self.serves() {
            let coordinator = Packet::Coordinator(self.coordinator());
            return self.tell(delivery::Input::Answer { session, packet: coordinator });
        }
        let Some(view) = self.service.session(session) else {
            return self.refuse_session(session);
        };
        let answer = ResumeOk { last_seq: view.last_seq, coordinator: self.coordinator() };
        self.tell(delivery::Input::Answer { session, packet: Packet::ResumeOk(answer) });
        let credit = view.receives.then_some(resume.credit);
        self.tell(delivery::Input::Serve { session, cursor: resume.cursor, credit });
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

    fn on_numbered(&mut self, clock: Clock, session: SessionId, seq: Seq, numbered: Numbered) {
        let refused = |code, retry_ms| {
            let packet = Packet::Error(Refused { code, answers: Answers::Request(seq), retry_ms });
            delivery::Input::Answer { session, packet }
        };
        if !self.replica.accepts() {
            return self.tell(refused(self.passing_refusal(), RETRY_MS));
        }
        let last_applied = match self.service.standing(session, seq) {
            Standing::Answered(result) => return self.answer(session, seq, result),
            Standing::Forgotten => return,
            Standing::Refused(_) => return self.refuse_session(session),
            Standing::Ahead(by) => Seq(seq.0.saturating_sub(by)),
        };
        if self.is_busy() {
            return self.tell(refused(Code::Busy, RETRY_MS));
        }
        let twice = self.config.planted.is(Planted::DuplicatesOnlyCommitted);
        let numbers = self.under_way.sessions.entry(session).or_default();
        numbers.logged = numbers.logged.max(last_applied);
        if seq <= numbers.logged && !twice {
            return;
        }
        if seq > numbers.logged.next() {
            if seq.0 - last_applied.0 > self.config.limits.outstanding {
                self.tell(refused(Code::TooFarAhead, RETRY_MS));
            } else if numbers.held.len() < HELD_MAX && self.under_way.held < HELD_ALL_MAX {
                self.under_way.held += usize::from(numbers.held.insert(seq, numbered).is_none());
            }
            return;
        }
        self.log_numbered(clock, session, seq, numbered);
        self.log_held(clock, session);
    }

    fn log_numbered(&mut self, clock: Clock, session: SessionId, seq: Seq, numbered: Numbered) {
        let Numbered { answered_below, request } = numbered;
        if self.propose(clock, Command::Request { session, seq, answered_below, request }).is_some()
            && let Some(numbers) = self.under_way.sessions.get_mut(&session)
        {
            numbers.logged = numbers.logged.max(seq);
        }
    }

    /// What waited for the number just logged follows it.
    fn log_held(&mut self, clock: Clock, session: SessionId) {
        while let Some(numbers) = self.under_way.sessions.get_mut(&session) {
            let next = numbers.logged.next();
            let before = numbers.held.len();
            numbers.held.retain(|seq, _| *seq >= next);
            let found = numbers.held.remove(&next);
            self.under_way.held -= before - numbers.held.len();
            let Some(numbered) = found else { return };
            self.log_numbered(clock, session, next, numbered);
        }
    }

    fn on_question(
        &mut self,
        session: SessionId,
        query: QueryId,
        answer: impl FnOnce(&Node, &SessionView) -> Result<Packet, Code>,
    ) {
        let refused =
            |code, retry_ms| Packet::Error(Refused { code, answers: Answers::Query(query), retry_ms });
        let packet = if !self.serves() {
            refused(self.passing_refusal(), RETRY_MS)
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
    pub(super) fn on_applied(&mut self, applied: Applied) {
        match applied {
            Applied::SessionOpened { session, device, nonce } => {
                self.on_session_opened(session, device, nonce)
            }
            Applied::SessionRefused { device, nonce, code } => {
                if let Some(connecting) = self.under_way.connects.remove(&(device, nonce)) {
                    let packet = Packet::RejectConn(RejectConn { nonce, code, retry_ms: 0 });
                    self.tell(delivery::Input::AnswerTo { to: connecting.from, packet });
                }
            }
            Applied::SessionClosed { session } => {
                self.under_way.forget(session);
                self.cursors.remove(&session);
                self.alive.remove(&session);
                if self.is_primary {
                    let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
                    self.tell(delivery::Input::Over { session, packets: vec![Packet::Error(over)] });
                }
            }
            Applied::Answered { session, seq, result } => {
                if self.is_primary {
                    self.answer(session, seq, result);
                }
            }
            Applied::Notified { notification, sessions } => {
                if self.is_primary && !sessions.is_empty() {
                    self.tell(delivery::Input::Applied { notification, sessions });
                }
            }
        }
    }

    fn on_session_opened(&mut self, session: SessionId, device: DeviceId, nonce: u64) {
        let Some(Connecting { from, connect }) = self.under_way.connects.remove(&(device, nonce)) else {
            return;
        };
        let Some(view) = self.service.session(session).filter(|_| self.is_primary) else { return };
        let accept = AcceptConn {
            nonce,
            session,
            last_seq: view.last_seq,
            cursor: view.cursor,
            coordinator: self.coordinator(),
        };
        let cursor = connect.cursor.unwrap_or(view.cursor);
        let credit = view.receives.then_some(self.config.limits.window);
        self.tell(delivery::Input::Serve { session, cursor, credit });
        self.tell(delivery::Input::AnswerTo { to: from, packet: Packet::AcceptConn(accept) });
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
        let stamped = Stamped { unix_ms: clock.unix_ms, command };
        self.replica.propose(codec::encode(&stamped).into())
    }

    fn tell(&mut self, input: delivery::Input) {
        self.out.push(Effect::Delivery(input));
    }
}
