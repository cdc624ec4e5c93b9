//! Queries under way, and their answers.

use recado_proto::id::{Moment, Op};
use recado_proto::packet::{
    self, AnswerKind, Code, History, List, OptionalFields, Position, QueryId, QueryKind, ToServer,
};

use super::again::{ASK_AGAIN_MAX, Again};
use super::{Answer, Effect, Event, Machine, Query, State};

/// Most queries under way at once; a further one gets [`Code::Busy`].
pub(super) const QUERIES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct PendingQuery {
    pub(super) query: Query,
    pub(super) again: Again,
    /// The latest time until which pieces that come put off the next transmission. They may be of an answer
    /// to another query, or of a notification.
    pub(super) put_off_upto: Moment,
}

impl PendingQuery {
    fn new(now: Moment, query: Query) -> PendingQuery {
        PendingQuery { query, again: Again::now(now), put_off_upto: now }
    }

    /// A piece has come that may be of its answer.
    pub(super) fn put_off(&mut self, until: Moment) {
        self.again.at = self.again.at.max(until.min(self.put_off_upto));
    }

    /// True for the query of a status, which any server answers, with or without a session.
    pub(super) fn is_status(&self) -> bool {
        matches!(self.query, Query::Status { .. })
    }
}

impl Machine {
    pub(super) fn on_query(&mut self, now: Moment, id: QueryId, query: Query, out: &mut Vec<Effect>) {
        if self.queries.len() >= QUERIES_MAX || matches!(self.state, State::Over) {
            return out.push(Effect::Event(Event::Answer(id, Answer::Refused(Code::Busy))));
        }
        if let Query::Status { server } = query {
            self.servers.learn(server);
        }
        self.queries.insert(id, PendingQuery::new(now, query));
    }

    /// The query of a status goes to its server at any time. Other queries need a primary that serves the
    /// session, and wait while the client backs off.
    pub(super) fn send_queries(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let serves = matches!(self.state, State::Served) && !self.backoff.waits(now);
        let primary = self.primary().filter(|_| serves);
        let mut window = self.backoff.window();
        let mut noise = self.draw();
        for (id, pending) in &mut self.queries {
            if !pending.is_status() {
                if window == 0 {
                    continue;
                }
                window -= 1;
            }
            if !pending.again.due(now) {
                continue;
            }
            let at_least = (!pending.is_status()).then(|| Position::of(self.token));
            let query = ToServer::query(packet::Query { at_least, ..pending.query.packet(*id) });
            if let Query::Status { server } = pending.query {
                if self.servers.has_path(server) {
                    self.servers.send(now, server, self.view, &[query], None, out);
                } else {
                    self.servers.initiation(now, server, &query, &mut self.start.entropy, out);
                }
                pending.again.sent(now, noise);
            } else if let Some(primary) = primary {
                noise = noise.rotate_left(7);
                self.servers.send(now, primary, self.view, &[query], None, out);
                pending.again.sent(now, noise);
                pending.put_off_upto = now + ASK_AGAIN_MAX;
            }
        }
    }

    pub(super) fn answer(&mut self, now: Moment, id: QueryId, answer: Answer, out: &mut Vec<Effect>) {
        if let Some(pending) = self.queries.remove(&id) {
            if !pending.is_status() {
                self.backoff.answered(now);
            }
            out.push(Effect::Event(Event::Answer(id, answer)));
        }
    }

    pub(super) fn on_answer(&mut self, now: Moment, answer: packet::Answer, out: &mut Vec<Effect>) {
        let id = answer.id;
        self.saw(answer.applied.op().unwrap_or_default());
        // The caller takes a status itself, and this client never asks who it is.
        match Answer::of(answer) {
            None | Some(Answer::Status(_)) => {}
            Some(answer) => self.answer(now, id, answer, out),
        }
    }

    /// The number of older queries that wait for an answer of the primary; none if this query does not
    /// exist.
    pub(super) fn place(&self, id: QueryId) -> Option<usize> {
        let older = self.queries.range(..id).filter(|(_, pending)| !pending.is_status());
        self.queries.contains_key(&id).then(|| older.count())
    }
}

impl Query {
    /// Its packet.
    pub(crate) fn packet(&self, id: QueryId) -> packet::Query {
        let kind = match self.clone() {
            Query::Status { .. } => QueryKind::Status,
            Query::History { topic, range, limit, .. } => QueryKind::History(History { topic, range, limit }),
            Query::List { what, after } => QueryKind::List(List { what, after }),
            Query::Info { profile } => QueryKind::Info { profile },
            Query::Get { key } => QueryKind::Get { key },
        };
        let mut query = packet::Query::new(id, kind);
        match self {
            Query::List { .. } => query.options = query.options.with(OptionalFields::DISPLAY, Vec::new()),
            Query::History { selection, .. } => query.options = selection.onto(query.options),
            Query::Info { .. } | Query::Get { .. } | Query::Status { .. } => {}
        }
        query
    }
}

impl Answer {
    /// What a QUERY_OK answers; none for a query that no client of this version asks here.
    pub(crate) fn of(answer: packet::Answer) -> Option<Answer> {
        let Some(applied) = answer.applied.op() else { return Some(Answer::Refused(Code::OtherEpoch)) };
        Some(match answer.kind {
            AnswerKind::History(page) => {
                let reached = answer.options.get(OptionalFields::REACHED);
                let reached = reached.and_then(|bytes| Some(Op(u64::from_be_bytes(bytes.try_into().ok()?))));
                Answer::History { page, reached, applied }
            }
            AnswerKind::List(page) => Answer::List(page),
            AnswerKind::Info(info) => {
                let display = answer.options.get(OptionalFields::DISPLAY);
                let display = display.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
                Answer::Info { info, display, applied }
            }
            AnswerKind::Value(value) => Answer::Value { value, applied },
            AnswerKind::Status(status) => Answer::Status(status),
            AnswerKind::WhoAmI(_) => return None,
        })
    }
}
