//! Changes that an administrator asks for: each is logged once and answered at the address that it came from.
//!
//! The administrator's key is derived from the cluster's secret, and the handshake has proved it. What a
//! change does is not known here: the service decides that.

use std::collections::BTreeMap;

use recado_log::ordered::OrderedLog;
use recado_proto::command::Command;
use recado_proto::id::{Clock, DeviceKey, Op};
use recado_proto::noise;
use recado_proto::packet::{Admin, AdminChange, AdminOk, Answers, Code, QueryId, Refused, ToClient};
use recado_proto::seal::ClusterKeys;

use super::clients::RETRY_MS;
use super::{Effect, Node};
use crate::delivery::{self, ReplyTo};

/// Maximum number of administrators' changes that are logged and not committed; beyond it the answer is Busy.
const ADMIN_MAX: usize = 64;

/// The administrator's key, and the changes under way.
#[derive(Debug)]
pub(super) struct Administration {
    /// The administrator's public key, derived from the cluster's secret.
    key: DeviceKey,
    /// The sender of the latest INITIATION with each change that is logged and not committed; at most
    /// [`ADMIN_MAX`].
    under_way: BTreeMap<QueryId, ReplyTo>,
}

impl Administration {
    pub(super) fn new(keys: &ClusterKeys) -> Administration {
        Administration { key: DeviceKey(noise::public(&keys.admin_private())), under_way: BTreeMap::new() }
    }

    /// Returns true if this is the administrator's key.
    pub(super) fn is_by(&self, key: DeviceKey) -> bool {
        key == self.key
    }

    /// Forgets the changes under way, because this server has lost its role.
    pub(super) fn discard(&mut self) {
        self.under_way.clear();
    }
}

impl<L: OrderedLog> Node<L> {
    /// Performs an administrator's change and answers the address that it came from: ADMIN_OK, or ERROR. Any
    /// server that has the result of a change answers with it. A change that is logged twice is applied once.
    pub(super) fn on_admin(&mut self, clock: Clock, reply_to: ReplyTo, admin: Admin) {
        let query = admin.query;
        if let Some(result) = self.service.administered(query) {
            return self.answer_admin(reply_to, query, result);
        }
        if !self.accepts() {
            return self.answer_admin(reply_to, query, Err(self.passing_refusal()));
        }
        if let Some(before) = self.administration.under_way.get_mut(&query) {
            *before = reply_to;
            return;
        }
        if self.administration.under_way.len() >= ADMIN_MAX {
            return self.answer_admin(reply_to, query, Err(Code::Busy));
        }
        if self.propose(clock, Command::Administer(admin)).is_some() {
            self.administration.under_way.insert(query, reply_to);
        }
    }

    pub(super) fn on_administered(&mut self, query: QueryId, change: AdminChange, result: Result<Op, Code>) {
        if let (Ok(op), true) = (result, self.is_primary) {
            self.out.push(Effect::Administered { change, op });
        }
        if let Some(reply_to) = self.administration.under_way.remove(&query) {
            self.answer_admin(reply_to, query, result);
        }
    }

    fn answer_admin(&mut self, reply_to: ReplyTo, query: QueryId, result: Result<Op, Code>) {
        let packet = match result {
            Ok(op) => ToClient::AdminOk(AdminOk::new(query, op)),
            Err(code) => {
                let passes = matches!(code, Code::Busy | Code::NoQuorum | Code::NotPrimary);
                let retry_ms = if passes { RETRY_MS } else { 0 };
                ToClient::Error(Refused::new(code, Answers::Query(query), retry_ms))
            }
        };
        self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
    }
}
