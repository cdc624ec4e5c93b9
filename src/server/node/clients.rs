//! Packets of clients: which part of the node handles each, and the answers that more than one of them gives.
//!
//! A packet comes on a session, or without one in an INITIATION. What it asks for is not decided here.

use std::collections::BTreeSet;

use recado_log::ordered::OrderedLog;
use recado_proto::command::Request;
use recado_proto::id::{Clock, DeviceKey, Op, Seq, SessionId, Topic};
use recado_proto::packet::{
    Answers, Code, Extension, Home, Keepalive, OptionalFields, Query, QueryKind, Refused, RoleName, SendAck,
    ToClient, ToServer,
};
use recado_service::{Applied, Tells};

use super::admission::{Numbered, keepalive_ms};
use super::{Effect, Node};
use crate::delivery::{self, ReplyTo};
use crate::server::cost;

/// Time in ms after which a client may retry a request that was refused for a temporary reason, or that met a
/// full queue: a full queue is taken in about that time. A client that is refused again waits twice as long
/// each time.
pub const RETRY_MS: u32 = 10;

impl<L: OrderedLog> Node<L> {
    /// Handles a packet of a client without a session.
    pub(super) fn on_initiation(
        &mut self,
        clock: Clock,
        reply_to: ReplyTo,
        key: DeviceKey,
        packet: ToServer,
    ) {
        match packet {
            ToServer::Query(query) => self.on_query_without_session(clock, reply_to, key, query),
            // A CONNECT for a device whose key was not authenticated counts as forged and is ignored.
            ToServer::Connect(connect) if connect.device.key == key => {
                self.on_connect(clock, reply_to, connect);
            }
            ToServer::Admin(admin) if self.administration.is_by(key) => self.on_admin(clock, reply_to, admin),
            ToServer::Extension(extension) => match (extension.query(), extension.answers) {
                (Some(query), _) => self.on_query_without_session(clock, reply_to, key, query),
                (None, Some(answers @ Answers::Query(_))) => {
                    let packets = vec![ToClient::Error(Refused::new(Code::Unsupported, answers, 0))];
                    self.deliver(delivery::Input::AnswerTo { reply_to, packets });
                }
                (None, _) => {}
            },
            // Everything else needs a session.
            _ => {}
        }
    }

    pub(super) fn on_client(&mut self, clock: Clock, session: SessionId, packet: ToServer) {
        match packet {
            // Clients do not wait long for an answer to these, so beyond the budget there is none.
            ToServer::Query(Query { kind: QueryKind::Status, .. })
            | ToServer::Keepalive(_)
            | ToServer::Resume(_)
                if self.spend(clock, session, cost::LEAST).is_err() => {}
            ToServer::Query(query) if query.kind == QueryKind::Status => self.on_query(clock, session, query),
            ToServer::Keepalive(Keepalive { home, options }) if !is_supported(home, &options) => {
                self.refuse_packet(session, Code::Unsupported);
            }
            ToServer::Keepalive(_) => self.on_keepalive(clock, session),
            ToServer::Resume(resume) if !is_supported(resume.home, &resume.options) => {
                self.refuse_packet(session, Code::Unsupported);
            }
            ToServer::Resume(resume) => self.on_resume(clock, session, resume),
            // A pending session gets no answer: no client sends anything else before RESUME_OK, and a
            // refusal would end the session.
            _ if self.service.is_pending(session) => {}
            ToServer::Disconnect(last) => self.on_disconnect(clock, session, last.upto),
            ToServer::Follow(follow) => {
                let request = Request::Follow { topic: follow.topic, change: follow.change };
                let numbered = Numbered::new(follow.answered_below, request, follow.nonce, &follow.options);
                self.on_numbered(clock, session, follow.seq, numbered, cost::LEAST);
            }
            ToServer::Send(send) => {
                let Some(view) = self.service.session(session) else {
                    return self.refuse_session(session);
                };
                let topic = send.topic.unwrap_or(Topic::Feed(view.profile));
                let cost = cost::send(&send.content, self.service.fan_out(&topic));
                let request = Request::Send { topic, content: send.content };
                let numbered = Numbered::new(send.answered_below, request, send.nonce, &send.options);
                self.on_numbered(clock, session, send.seq, numbered, cost);
            }
            ToServer::Channel(packet) => {
                let request = Request::Channel { channel: packet.channel, change: packet.change };
                let numbered = Numbered::new(packet.answered_below, request, packet.nonce, &packet.options);
                self.on_numbered(clock, session, packet.seq, numbered, cost::LEAST);
            }
            ToServer::Keys(packet) => {
                let request = Request::Keys { change: packet.change };
                let numbered = Numbered::new(packet.answered_below, request, packet.nonce, &packet.options);
                self.on_numbered(clock, session, packet.seq, numbered, cost::LEAST);
            }
            ToServer::Query(query) => self.on_query(clock, session, query),
            ToServer::Extension(extension) => self.on_extension(clock, session, &extension),
            // These travel in an INITIATION alone, or handlers and delivery have taken them.
            ToServer::Connect(_)
            | ToServer::Admin(_)
            | ToServer::ClientAck(_)
            | ToServer::PathResponse(_)
            | ToServer::Fragment(_)
            | ToServer::Padding
            | ToServer::Ping => {}
        }
    }

    /// Handles a request or a query that came as an EXTENSION, and refuses one of a later version.
    fn on_extension(&mut self, clock: Clock, session: SessionId, extension: &Extension) {
        match extension.answers {
            Some(Answers::Request(seq)) => {
                let cost = cost::extension(extension);
                self.on_numbered(clock, session, seq, Numbered::extension(extension), cost);
            }
            Some(answers @ Answers::Query(_)) => {
                if let Some(query) = extension.query() {
                    return self.on_query(clock, session, query);
                }
                let refused = match self.spend(clock, session, cost::LEAST) {
                    Ok(()) => Refused::new(Code::Unsupported, answers, 0),
                    Err(wait) => Refused::new(Code::Busy, answers, wait),
                };
                self.deliver(delivery::Input::Answer { session, packet: ToClient::Error(refused) });
            }
            Some(Answers::Session) | None => {}
        }
    }

    /// Refuses a packet of a session, which goes on here; clients of this version end it.
    pub(super) fn refuse_packet(&mut self, session: SessionId, code: Code) {
        let refused = Refused::new(code, Answers::Session, 0);
        self.deliver(delivery::Input::Answer { session, packet: ToClient::Error(refused) });
    }

    fn on_keepalive(&mut self, clock: Clock, session: SessionId) {
        let mut coordinator = self.coordinator();
        if self.serves() {
            coordinator = coordinator.with_keepalive(keepalive_ms(self.service.session_count()));
        }
        self.deliver(delivery::Input::Answer { session, packet: ToClient::Coordinator(coordinator) });
        if self.serves() && self.service.session(session).is_some() {
            let log_ms = self.log_clock.read(clock);
            self.housekeeping.on_alive(session, log_ms, self.config.limits.session_idle);
        }
    }

    /// Handles a result of an applied command, and answers the clients that wait for it here.
    pub(super) fn on_applied(&mut self, clock: Clock, applied: Applied) {
        match applied {
            Applied::SessionOpened { session, device, nonce, aead } => {
                self.on_opened(session, device, nonce, aead);
            }
            Applied::SessionRefused { device, nonce, code } => self.on_not_opened(device, nonce, code),
            Applied::SessionConfirmed { session } => self.on_confirmed(clock, session),
            Applied::SessionClosed { session, why } => self.on_closed(session, why),
            Applied::Answered { session, seq, result, tells } => {
                if self.is_primary {
                    self.answer(session, seq, result, tells);
                }
            }
            Applied::Administered { query, change, result } => self.on_administered(query, change, result),
            Applied::Withdrawn { sessions } => {
                if !sessions.is_empty() {
                    self.deliver(delivery::Input::Withdrawn(sessions));
                }
            }
            Applied::Emptied { topic } => {
                let asked: Vec<SessionId> = self.outstanding.with_texts_of(&topic).collect();
                if !asked.is_empty() {
                    self.deliver(delivery::Input::Withdrawn(asked));
                }
            }
            Applied::Retracted { topic, op } => {
                // An answer to a query may hold the text too, whoever asked, and any server answers queries.
                let mut sessions: BTreeSet<SessionId> = self.outstanding.with_texts_of(&topic).collect();
                if self.is_primary {
                    sessions.extend(self.service.addressed(&topic).iter());
                }
                if !sessions.is_empty() {
                    let sessions = sessions.into_iter().collect();
                    self.deliver(delivery::Input::Retracted { op, sessions });
                }
            }
            Applied::Notified { topic, notification } => {
                if self.is_primary {
                    let sessions = self.service.addressed(&topic);
                    if !sessions.is_empty() {
                        self.deliver(delivery::Input::Applied { notification, sessions });
                    }
                }
            }
        }
    }

    /// Charges a request or query to its session's budgets. One on a session that is not live is charged to
    /// its network only.
    ///
    /// # Errors
    /// A budget is exceeded: the time in ms after which the client may retry.
    pub(super) fn spend(&mut self, clock: Clock, session: SessionId, cost: u32) -> Result<(), u32> {
        let profile = self.service.session(session).map(|asker| asker.profile);
        self.charges.spend(clock.now, session, profile.as_ref(), cost)
    }

    pub(super) fn answer(&mut self, session: SessionId, seq: Seq, result: Result<Op, Code>, tells: Tells) {
        let op = |op: Op| op.0.to_be_bytes().to_vec();
        let data = match tells {
            Tells::Nothing => OptionalFields::NONE,
            Tells::MadeChannel => OptionalFields::NONE.with(OptionalFields::MADE_CHANNEL, Vec::new()),
            Tells::Timestamp(timestamp) => {
                let data = OptionalFields::NONE.with(OptionalFields::APPLIED, op(self.service.applied()));
                match timestamp {
                    Some(timestamp) => data.with(OptionalFields::TIMESTAMP, op(timestamp)),
                    None => data,
                }
            }
        };
        let packet = match result {
            Ok(op) => ToClient::SendAck(SendAck { seq, op, data }),
            Err(code) => {
                let refused = Refused::new(code, Answers::Request(seq), 0);
                ToClient::Error(Refused { data, ..refused })
            }
        };
        self.deliver(delivery::Input::Answer { session, packet });
    }

    /// Refuses a session for good, if this is a primary that serves: the session is not in its committed
    /// state.
    pub(super) fn refuse_session(&mut self, session: SessionId) {
        if self.serves() {
            let over = Refused::new(Code::SessionOver, Answers::Session, 0);
            self.deliver(delivery::Input::SessionEnded { session, packets: vec![ToClient::Error(over)] });
        }
    }

    /// The code for a temporary refusal.
    pub(super) fn passing_refusal(&self) -> Code {
        if self.role() == RoleName::Isolated { Code::NoQuorum } else { Code::NotPrimary }
    }

    pub(super) fn deliver(&mut self, input: delivery::Input) {
        self.out.push(Effect::Delivery(input));
    }
}

/// Returns true if this version does what the packet asks: the primary is the home of every session.
fn is_supported(home: Home, options: &OptionalFields) -> bool {
    home == Home::PRIMARY && options.may_be_ignored()
}
