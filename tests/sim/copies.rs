//! Copies of a device's files: which copy did each request, and what each copy had heard when it did. Two
//! copies in use at the same time are promised less than one (DESIGN.md section 3); this module says exactly
//! where.

use std::collections::{BTreeMap, BTreeSet};

use recado_proto::id::Op;

use crate::history::{AskId, ClientId};

/// A request, by the client that made it. A client whose files were copied from that client has it too.
pub type Asked = (ClientId, AskId);

/// The first time that a request left a client's files.
#[derive(Clone, Copy, Debug)]
struct Settled {
    /// The place in the history.
    at: usize,
    /// True if the client heard no result.
    given_up: bool,
}

/// The copies of the devices' files. Each client works on one copy, or on older and newer states of it in
/// turn.
#[derive(Debug, Default)]
pub struct Copies {
    /// The client that did each op, as far as the log is known.
    doers: BTreeMap<Op, ClientId>,
    /// The ops of the log with the text of each request.
    done: BTreeMap<Asked, BTreeSet<Op>>,
    settled: BTreeMap<(ClientId, Asked), Settled>,
}

impl Copies {
    /// A request leaves a client's files, at this place in the history.
    pub fn settle(&mut self, client: ClientId, request: Asked, at: usize, given_up: bool) {
        self.settled.entry((client, request)).or_insert(Settled { at, given_up });
    }

    /// The log has an op of this client.
    pub fn did(&mut self, client: ClientId, op: Op) {
        self.doers.insert(op, client);
    }

    /// The log has the text of this request at `op`.
    pub fn sent(&mut self, request: Asked, op: Op) {
        self.done.entry(request).or_default().insert(op);
    }

    /// Returns the client that did this op, if it is known.
    pub fn doer(&self, op: Op) -> Option<ClientId> {
        self.doers.get(&op).copied()
    }

    /// Returns true if a request may have a higher op than a later one of the same client. The order of
    /// asking holds in each copy, so it says nothing where one copy did the later request after it had given
    /// the earlier one up, or after it had done that itself, and the other copy did the earlier one.
    pub fn are_unordered(&self, (earlier, its_op): (Asked, Op), (later, later_op): (Asked, Op)) -> bool {
        let (Some(other), Some(copy)) = (self.doer(its_op), self.doer(later_op)) else { return false };
        let mut before = self.done.get(&earlier).into_iter().flatten().take_while(|op| **op < later_op);
        other != copy
            && (self.gave_up_before(copy, earlier, later) || before.any(|op| self.doer(*op) == Some(copy)))
    }

    /// Returns true if the log may have a request at both ops: two copies did it, in the one case that is not
    /// covered.
    pub fn may_have_both(&self, request: Asked, first: Op, then: Op) -> bool {
        let holds = |op| self.done.get(&request).is_some_and(|ops| ops.contains(&op));
        let (Some(one), Some(other)) = (self.doer(first), self.doer(then)) else { return false };
        holds(first) && holds(then) && self.may_both_do(request, one, other)
    }

    /// Returns true if the log may have a request at this op that was refused to `to`: another copy did it,
    /// in that case.
    pub fn may_have_refused(&self, request: Asked, to: ClientId, op: Op) -> bool {
        self.doer(op).is_some_and(|copy| self.may_hear(request, (to, None), (copy, Some(op))))
    }

    /// Returns true if two copies may hear different results of a request: each did it, in that case, and
    /// hears its own result, which is an op or a refusal.
    pub fn may_hear(
        &self,
        request: Asked,
        one: (ClientId, Option<Op>),
        other: (ClientId, Option<Op>),
    ) -> bool {
        let own = |(copy, op): (ClientId, Option<Op>)| op.is_none_or(|op| self.doer(op) == Some(copy));
        let at = |(copy, _)| self.settled.get(&(copy, request)).map(|settled| settled.at);
        let (first, then) = if at(one) < at(other) { (one, other) } else { (other, one) };
        own(one) && own(other) && self.may_both_do(request, first.0, then.0)
    }

    /// Returns true if `then` may do a request that `first` did: before, `first` gave up another request in
    /// front of it, which `then` still had. So `first` had it under the lower number, and its result could be
    /// dropped while the result of the number that `then` had for it was held.
    fn may_both_do(&self, request: Asked, first: ClientId, then: ClientId) -> bool {
        let had_since = |before: Asked, given_up: Settled| {
            self.settled.get(&(then, before)).is_some_and(|settled| settled.at > given_up.at)
        };
        let in_front = (first, (request.0, AskId(0)))..(first, request);
        first != then
            && self.settled.range(in_front).any(|((_, before), settled)| {
                self.gave_up_before(first, *before, request) && had_since(*before, *settled)
            })
    }

    /// Returns true if a copy gave up a request before it heard of the later one.
    fn gave_up_before(&self, copy: ClientId, request: Asked, later: Asked) -> bool {
        let settled = |request| self.settled.get(&(copy, request));
        settled(request).is_some_and(|earlier| {
            earlier.given_up && settled(later).is_none_or(|later| later.at > earlier.at)
        })
    }
}
