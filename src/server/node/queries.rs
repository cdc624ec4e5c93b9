//! Questions, which have no request number: HISTORY, LIST, REQUEST_USER_INFO and STATUS, and the pages of
//! pending notifications that the delivery wants.
//!
//! Only the primary answers a session's questions, from applied state, so reads never go back (P4). Any
//! server answers STATUS. Nothing here changes the log.
//!
//! A client asks again until it has the whole answer, while the delivery sends that again piece by piece. If
//! the query ran again each time, it would cost as much again, and give another answer, whose pieces do not
//! complete those that the client has. So a question is ignored while its answer is outstanding. That is
//! decided here and not by the delivery: a question comes from its handler straight to the node, in the place
//! that its network has in the queue of requests, and a look-up tells. The delivery holds the answers; the
//! node knows only the ids of their queries, of which the delivery reports the end
//! ([`Input::AnswerDone`](super::Input::AnswerDone)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_log::ordered::OrderedLog;
use recado_proto::id::{Clock, Op, SessionId};
use recado_proto::packet::{
    Answers, Code, History, List, Packet, QueryId, Refused, RequestUserInfo, StatusOk,
};
use recado_service::SessionView;

use super::clients::RETRY_MS;
use super::{Effect, Node};
use crate::delivery;
use crate::server::cost;

/// Maximum size of one page for the delivery, in bytes.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The queries whose answers the delivery sends until they are acknowledged, by session.
#[derive(Debug, Default)]
pub(super) struct OutstandingAnswers {
    /// At most [`delivery::ANSWERS_MAX`] of each session; no empty sets.
    queries: BTreeMap<SessionId, BTreeSet<QueryId>>,
}

impl OutstandingAnswers {
    pub(super) fn contains(&self, session: SessionId, query: QueryId) -> bool {
        self.queries.get(&session).is_some_and(|queries| queries.contains(&query))
    }

    /// Records that the delivery has an answer. If it has as many of the session as it holds, this one is not
    /// recorded, and the query runs again if it is asked again.
    fn insert(&mut self, session: SessionId, query: QueryId) {
        let queries = self.queries.entry(session).or_default();
        if queries.len() < delivery::ANSWERS_MAX {
            queries.insert(query);
        }
    }

    /// The answer to this query is not outstanding any more.
    pub(super) fn remove(&mut self, session: SessionId, query: QueryId) {
        if let Some(queries) = self.queries.get_mut(&session) {
            queries.remove(&query);
            if queries.is_empty() {
                self.queries.remove(&session);
            }
        }
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.queries.remove(&session);
    }
}

impl<L: OrderedLog> Node<L> {
    pub(super) fn on_history(&mut self, clock: Clock, session: SessionId, history: History) {
        let cost = cost::history(&history, self.topics(session));
        self.on_question(clock, session, history.query, cost, |node, asker| {
            node.service.history(&asker.profile, &history).map(Packet::HistoryOk)
        });
    }

    pub(super) fn on_list(&mut self, clock: Clock, session: SessionId, list: List) {
        let cost = cost::list(&list.what, self.topics(session));
        self.on_question(clock, session, list.query, cost, |node, asker| {
            let (answer, passed_over) = node.service.list(&asker.profile, &list)?;
            let owner = node.service.owner(session);
            node.charges.owe(clock.now, session, owner, cost::passed_over(passed_over));
            Ok(Packet::ListOk(answer))
        });
    }

    pub(super) fn on_info(&mut self, clock: Clock, session: SessionId, request: RequestUserInfo) {
        let cost = cost::info(self.topics(session));
        self.on_question(clock, session, request.query, cost, |node, asker| {
            node.service.info(&asker.profile, &request).map(Packet::Info)
        });
    }

    /// Answers a question, unless its answer is on its way. A question that is ignored costs a look-up, so it
    /// is not charged.
    fn on_question(
        &mut self,
        clock: Clock,
        session: SessionId,
        query: QueryId,
        cost: u32,
        answer: impl FnOnce(&mut Node<L>, &SessionView) -> Result<Packet, Code>,
    ) {
        if self.outstanding.contains(session, query) {
            return;
        }
        let refused =
            |code, retry_ms| Packet::Error(Refused { code, answers: Answers::Query(query), retry_ms });
        let packet = if !self.serves() {
            refused(self.passing_refusal(), RETRY_MS)
        } else if let Err(wait) = self.spend(clock, session, cost) {
            refused(Code::Busy, wait)
        } else if let Some(asker) = self.service.session(session) {
            let answered = answer(self, &asker);
            if answered.is_ok() {
                self.outstanding.insert(session, query);
            }
            answered.unwrap_or_else(|code| refused(code, 0))
        } else {
            return self.refuse_session(session);
        };
        self.deliver(delivery::Input::Answer { session, packet });
    }

    /// Number of topics that the session's profile follows.
    fn topics(&self, session: SessionId) -> usize {
        self.service.owner(session).map_or(0, |profile| self.service.follows(profile))
    }

    /// Emits the page, or the time until the session has the budget for it.
    pub(super) fn on_want_page(&mut self, clock: Clock, session: SessionId, after: Op, limit: u32) {
        if !self.is_primary {
            return;
        }
        let answer = match self.pay_for_page(clock, session, limit) {
            Ok(()) => {
                let page = self.service.page(session, after, limit as usize, PAGE_BYTES_MAX);
                delivery::Input::Page { session, after, page }
            }
            Err(wait) => delivery::Input::PageLater { session, after, wait },
        };
        self.out.push(Effect::Delivery(answer));
    }

    /// Charges a page of pending notifications to its session.
    ///
    /// # Errors
    /// A budget is exceeded: the time until the page can be had.
    fn pay_for_page(&mut self, clock: Clock, session: SessionId, limit: u32) -> Result<(), Duration> {
        let Some(asker) = self.service.session(session) else { return Ok(()) };
        let cost = cost::page(self.service.follows(&asker.profile), limit);
        self.spend(clock, session, cost).map_err(|wait_ms| Duration::from_millis(wait_ms.into()))
    }

    /// STATUS_OK with the state of this server.
    pub(super) fn status(&self, clock: Clock, query: QueryId) -> StatusOk {
        let status = self.log.status();
        StatusOk {
            query,
            node: self.config.cluster.me,
            role: status.role,
            view: status.view,
            applied: self.service.applied(),
            durable: status.durable,
            lag: status.last.0.saturating_sub(self.service.applied().0),
            pid: self.pid,
            incarnation: self.incarnation,
            uptime_ms: clock.now.since(self.started).as_millis() as u64,
            members: self.coordinator().members,
            refused: self.refused.clone(),
        }
    }
}
