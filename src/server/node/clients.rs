//! Packets of clients: which part of the node handles each, and the answers that more than one of them gives.
//!
//! A packet comes on a session, or without one in an INITIATION. What it asks for is not decided here.

use recado_log::ordered::OrderedLog;
use recado_proto::command::Request;
use recado_proto::id::{Clock, DeviceKey, Op, Seq, SessionId, Topic};
use recado_proto::packet::{Answers, Code, Packet, Refused, RoleName, SendAck};
use recado_service::Applied;

use super::admission::Numbered;
use super::{Effect, Node};
use crate::delivery::{self, ReplyTo};
use crate::server::cost;

/// Time in ms after which a client may retry a request that was refused for a temporary reason, or that met a
/// full queue.
pub const RETRY_MS: u32 = 50;

impl<L: OrderedLog> Node<L> {
    /// Handles a packet of a client without a session.
    pub(super) fn on_initiation(&mut self, clock: Clock, reply_to: ReplyTo, key: DeviceKey, packet: Packet) {
        match packet {
            Packet::Status(query) => {
                let answer = self.status(clock, query);
                self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![Packet::StatusOk(answer)] });
            }
            // A CONNECT for a device whose key was not authenticated counts as forged and is ignored.
            Packet::Connect(connect) if connect.device.key == key => {
                self.on_connect(clock, reply_to, connect);
            }
            Packet::Admin(admin) if self.administration.is_by(key) => self.on_admin(clock, reply_to, admin),
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
                self.deliver(delivery::Input::Answer { session, packet: answer });
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
            Packet::Channel(packet) => {
                let request = Request::Channel { channel: packet.channel, change: packet.change };
                let numbered = Numbered::new(packet.answered_below, request, packet.nonce);
                self.on_numbered(clock, session, packet.seq, numbered, cost::LEAST);
            }
            Packet::Keys(packet) => {
                let request = Request::Keys { change: packet.change };
                let numbered = Numbered::new(packet.answered_below, request, packet.nonce);
                self.on_numbered(clock, session, packet.seq, numbered, cost::LEAST);
            }
            Packet::History(history) => self.on_history(clock, session, history),
            Packet::List(list) => self.on_list(clock, session, list),
            Packet::RequestUserInfo(request) => self.on_info(clock, session, request),
            // Everything else is not for a server, or not from a client.
            _ => {}
        }
    }

    fn on_keepalive(&mut self, clock: Clock, session: SessionId) {
        let coordinator = Packet::Coordinator(self.coordinator());
        self.deliver(delivery::Input::Answer { session, packet: coordinator });
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
            Applied::Answered { session, seq, result } => {
                if self.is_primary {
                    self.answer(session, seq, result);
                }
            }
            Applied::Administered { query, change, result } => self.on_administered(query, change, result),
            Applied::Withdrawn { sessions } => {
                if self.is_primary && !sessions.is_empty() {
                    self.deliver(delivery::Input::Withdrawn(sessions));
                }
            }
            Applied::Notified { notification, sessions } => {
                if self.is_primary && !sessions.is_empty() {
                    self.deliver(delivery::Input::Applied { notification, sessions });
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

    pub(super) fn answer(&mut self, session: SessionId, seq: Seq, result: Result<Op, Code>) {
        let packet = match result {
            Ok(op) => Packet::SendAck(SendAck { seq, op }),
            Err(code) => Packet::Error(Refused { code, answers: Answers::Request(seq), retry_ms: 0 }),
        };
        self.deliver(delivery::Input::Answer { session, packet });
    }

    /// Refuses a session for good, if this is a primary that serves: the session is not in its committed
    /// state.
    pub(super) fn refuse_session(&mut self, session: SessionId) {
        if self.serves() {
            let over = Refused { code: Code::SessionOver, answers: Answers::Session, retry_ms: 0 };
            self.deliver(delivery::Input::SessionEnded { session, packets: vec![Packet::Error(over)] });
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
