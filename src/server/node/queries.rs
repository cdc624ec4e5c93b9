//! Queries, and the pages of pending notifications that the delivery wants.
//!
//! Only the primary answers a session's queries, from applied state, so reads never go back (P4). Any server
//! tells its status. Nothing here changes the log.
//!
//! A client asks again until it has the whole answer, while the delivery sends that again piece by piece. If
//! the query ran again each time, it would cost as much again, and give another answer, whose pieces do not
//! complete those that the client has. So a query is ignored while its answer is outstanding. That is
//! decided here and not by the delivery: a query comes from its handler straight to the node, in the place
//! that its network has in the queue of requests, and a look-up tells. The delivery holds the answers; the
//! node knows only the ids of their queries, of which the delivery reports the end
//! ([`Input::AnswerDone`](super::Input::AnswerDone)).

use std::collections::BTreeMap;
use std::time::Duration;

use recado_log::ordered::OrderedLog;
use recado_proto::id::{Clock, Op, SessionId, Topic};
use recado_proto::packet::{
    Answer, AnswerKind, Answers, Code, OptionalFields, Position, Query, QueryId, QueryKind, Refused, Status,
    ToClient,
};

use super::clients::RETRY_MS;
use super::{Effect, Node};
use crate::delivery::{self, ReplyTo};
use crate::server::cost;

/// Maximum size of one page for the delivery, in bytes.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The reason why a query has no answer.
enum Unanswered {
    /// The session is not in the committed state.
    NoSession,
    /// It is refused; with `retry_ms` 0 for good.
    Refused { code: Code, retry_ms: u32 },
}

impl From<Code> for Unanswered {
    fn from(code: Code) -> Unanswered {
        Unanswered::Refused { code, retry_ms: 0 }
    }
}

/// The queries whose answers the delivery sends until they are acknowledged, by session.
#[derive(Debug, Default)]
pub(super) struct OutstandingAnswers {
    /// At most [`delivery::ANSWERS_MAX`] of each session; no empty maps.
    queries: BTreeMap<SessionId, BTreeMap<QueryId, Texts>>,
}

/// The topics whose texts the answer to a query may hold.
#[derive(Debug)]
enum Texts {
    Nothing,
    Of(Topic),
    /// What the profile follows, as far as it is known here any topic.
    Any,
}

impl Texts {
    fn of(kind: &QueryKind) -> Texts {
        match kind {
            QueryKind::History(history) => history.topic.clone().map_or(Texts::Any, Texts::Of),
            QueryKind::Status | QueryKind::List(_) | QueryKind::Info { .. } | QueryKind::WhoAmI => {
                Texts::Nothing
            }
        }
    }

    fn may_be_of(&self, topic: &Topic) -> bool {
        match self {
            Texts::Nothing => false,
            Texts::Any => true,
            // What its owner has sent to other inboxes stands there too.
            Texts::Of(Topic::Inbox(_)) => matches!(topic, Topic::Inbox(_)),
            Texts::Of(of) => of == topic,
        }
    }
}

impl OutstandingAnswers {
    pub(super) fn contains(&self, session: SessionId, query: QueryId) -> bool {
        self.queries.get(&session).is_some_and(|queries| queries.contains_key(&query))
    }

    /// Records that the delivery has an answer. If it has as many of the session as it holds, this one is not
    /// recorded, and the query runs again if it is asked again.
    fn insert(&mut self, session: SessionId, query: QueryId, texts: Texts) {
        let queries = self.queries.entry(session).or_default();
        if queries.len() < delivery::ANSWERS_MAX {
            queries.insert(query, texts);
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

    /// The sessions with an answer that may hold texts of this topic.
    pub(super) fn with_texts_of(&self, topic: &Topic) -> impl Iterator<Item = SessionId> {
        let holds = |queries: &BTreeMap<_, Texts>| queries.values().any(|texts| texts.may_be_of(topic));
        self.queries.iter().filter(move |(_, queries)| holds(queries)).map(|(session, _)| *session)
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.queries.remove(&session);
    }
}

impl<L: OrderedLog> Node<L> {
    /// Answers a query of a session, unless its answer is on its way. A query that is ignored costs a
    /// look-up, so it is not charged.
    pub(super) fn on_query(&mut self, clock: Clock, session: SessionId, query: Query) {
        let id = query.id;
        if self.outstanding.contains(session, id) {
            return;
        }
        let texts = Texts::of(&query.kind);
        let packet = match self.answer_query(clock, session, query) {
            Err(Unanswered::NoSession) => return self.refuse_session(session),
            Err(Unanswered::Refused { code, retry_ms }) => {
                ToClient::Error(Refused::new(code, Answers::Query(id), retry_ms))
            }
            Ok(kind) => {
                let mut answer = self.answer_of(clock, id, kind);
                if let AnswerKind::Info(info) = &answer.kind
                    && let Some(display) = self.service.display(&info.profile)
                {
                    let display = display.as_str().as_bytes().to_vec();
                    answer.options = answer.options.with(OptionalFields::DISPLAY, display);
                }
                if answer.is_tracked() {
                    self.outstanding.insert(session, id, texts);
                }
                ToClient::Answer(answer)
            }
        };
        self.deliver(delivery::Input::Answer { session, packet });
    }

    fn answer_query(
        &mut self,
        clock: Clock,
        session: SessionId,
        query: Query,
    ) -> Result<AnswerKind, Unanswered> {
        if let Err(refused) = self.may_answer(&query) {
            // A status was charged before.
            if query.kind != QueryKind::Status {
                self.spend(clock, session, cost::LEAST)
                    .map_err(|wait| Unanswered::Refused { code: Code::Busy, retry_ms: wait })?;
            }
            return Err(refused);
        }
        if let QueryKind::Status = query.kind {
            return Ok(AnswerKind::Status(self.status(clock)));
        }
        if !self.serves() {
            return Err(Unanswered::Refused { code: self.passing_refusal(), retry_ms: RETRY_MS });
        }
        let asker = self.service.session(session).map(|session| session.profile);
        let topics = asker.as_ref().map_or(0, |profile| self.service.follows(profile));
        let cost = match &query.kind {
            QueryKind::History(history) => cost::history(history, topics),
            QueryKind::List(list) => cost::list(&list.what, topics),
            QueryKind::Info { .. } => cost::info(topics),
            QueryKind::Status | QueryKind::WhoAmI => cost::LEAST,
        };
        self.charges
            .spend(clock.now, session, asker.as_ref(), cost)
            .map_err(|wait| Unanswered::Refused { code: Code::Busy, retry_ms: wait })?;
        let asker = asker.ok_or(Unanswered::NoSession)?;
        match query.kind {
            QueryKind::History(history) => Ok(AnswerKind::History(self.service.history(&asker, &history)?)),
            QueryKind::List(list) => {
                let displays = query.options.get(OptionalFields::DISPLAY).is_some();
                let (page, passed_over) = self.service.list(&asker, &list, displays)?;
                self.charges.owe(clock.now, session, Some(&asker), cost::passed_over(passed_over));
                Ok(AnswerKind::List(page))
            }
            QueryKind::Info { profile } => {
                Ok(AnswerKind::Info(self.service.info(profile.as_ref().unwrap_or(&asker))?))
            }
            QueryKind::Status | QueryKind::WhoAmI => Err(Code::Unsupported.into()),
        }
    }

    /// Answers a query without a session. Only the status needs none.
    pub(super) fn on_query_without_session(&mut self, clock: Clock, reply_to: ReplyTo, query: Query) {
        let id = query.id;
        let answered = self.may_answer(&query).map(|()| query.kind);
        let packet = match answered {
            Ok(QueryKind::Status) => {
                ToClient::Answer(self.answer_of(clock, id, AnswerKind::Status(self.status(clock))))
            }
            Err(Unanswered::Refused { code, retry_ms }) => {
                ToClient::Error(Refused::new(code, Answers::Query(id), retry_ms))
            }
            Ok(_) | Err(Unanswered::NoSession) => {
                let code = Code::Unsupported;
                ToClient::Error(Refused::new(code, Answers::Query(id), 0))
            }
        };
        self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
    }

    /// Checks that the query asks nothing that this version does not do, and that this server's state is as
    /// late as the query's token.
    fn may_answer(&self, query: &Query) -> Result<(), Unanswered> {
        if !query.options.may_be_ignored() {
            return Err(Code::Unsupported.into());
        }
        match query.at_least.map(Position::op) {
            Some(None) => Err(Code::OtherEpoch.into()),
            Some(Some(op)) if op > self.service.applied() => {
                Err(Unanswered::Refused { code: Code::TryOtherServerOrLater, retry_ms: RETRY_MS })
            }
            Some(Some(_)) | None => Ok(()),
        }
    }

    fn answer_of(&self, clock: Clock, id: QueryId, kind: AnswerKind) -> Answer {
        let options = match kind {
            AnswerKind::Status(_) => self.about_the_server(clock),
            _ => OptionalFields::NONE,
        };
        Answer { id, applied: Position::of(self.service.applied()), kind, options }
    }

    /// What a status tells beyond its fields.
    fn about_the_server(&self, clock: Clock) -> OptionalFields {
        OptionalFields::NONE
            .with(OptionalFields::WALL_CLOCK, clock.unix_ms.to_be_bytes().to_vec())
            .with(OptionalFields::AGREED, self.config.agreed().to_be_bytes().to_vec())
            .with(OptionalFields::RELEASE, env!("CARGO_PKG_VERSION").as_bytes().to_vec())
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
        self.charges
            .spend(clock.now, session, Some(&asker.profile), cost)
            .map_err(|wait_ms| Duration::from_millis(wait_ms.into()))
    }

    /// The status of this server.
    fn status(&self, clock: Clock) -> Status {
        let status = self.log.status();
        Status {
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
