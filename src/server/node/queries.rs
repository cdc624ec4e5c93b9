//! Queries, and the pages of pending notifications that the delivery wants.
//!
//! Every server answers queries from its applied state, on a session and without one. A state never goes
//! back, and a query names the position that its client has seen (its token), so reads never go back either,
//! whichever servers a client asks (P4). A server whose state is not as late lets the query wait a little
//! ([`Waiting`]), and then sends its client to another. A server that does not serve as primary says how old
//! its answer may be. Nothing here changes the log.
//!
//! A client asks again until it has the whole answer, while the delivery sends that again piece by piece. If
//! the query ran again each time, it would cost as much again, and give another answer, whose pieces do not
//! complete those that the client has. So a query of a session is ignored while its answer is outstanding.
//! That is decided here and not by the delivery: a query comes from its handler straight to the node, in the
//! place that its network has in the queue of requests, and a look-up tells. The delivery holds the answers;
//! the node knows only the ids of their queries, of which the delivery reports the end
//! ([`Input::AnswerDone`](super::Input::AnswerDone)).

use std::collections::BTreeMap;
use std::time::Duration;

use recado_log::ordered::OrderedLog;
use recado_proto::codec;
use recado_proto::id::{Clock, DeviceKey, Name, Op, SessionId, Topic};
use recado_proto::packet::{
    Answer, AnswerKind, Answers, Code, History, ListPage, OptionalFields, Position, Query, QueryId,
    QueryKind, Refused, Selection, Status, ToClient,
};

use super::clients::RETRY_MS;
use super::waiting::{Asker, BEHIND_MAX, Needs, WaitingQuery};
use super::{Effect, Node};
use crate::config::Planted;
use crate::delivery::{self, ReplyTo};
use crate::server::cost;

/// Maximum size of one page for the delivery, in bytes.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The time without an active primary after which this server answers queries of nobody: it would not learn
/// that a key was revoked.
const ALONE_MAX: Duration = Duration::from_secs(600);

/// The most bytes of a page that is sent once, to an asker without a session: of the contents of a history,
/// or of the items of a list. Nothing of it is sent again by itself, so its datagrams have to arrive all
/// together.
const ONCE_BYTES_MAX: usize = 8 * 1024;

/// When a client that was refused for that may ask again, in ms.
const ALONE_RETRY_MS: u32 = 1_000;

/// The reason why a query has no answer.
enum Unanswered {
    /// The session is not in the committed state.
    NoSession,
    /// It is refused; with `retry_ms` 0 for good.
    Refused { code: Code, retry_ms: u32 },
}

impl Unanswered {
    /// This server's state is not as late as the query asks for, or nobody has confirmed that it leads.
    fn behind() -> Unanswered {
        Unanswered::Refused { code: Code::TryOtherServerOrLater, retry_ms: RETRY_MS }
    }
}

/// The answer to a query, and the optional fields that go with it.
struct Answered {
    kind: AnswerKind,
    options: OptionalFields,
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
            QueryKind::Get { key } => key.owner().map_or(Texts::Nothing, Texts::Of),
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

/// The fields with one more, if there is one.
fn with(fields: OptionalFields, more: Option<(u16, Vec<u8>)>) -> OptionalFields {
    match more {
        Some((tag, bytes)) => fields.with(tag, bytes),
        None => fields,
    }
}

/// Leaves as many items as may be sent once, and at least one.
fn shorten(page: &mut ListPage) {
    let mut bytes = 0;
    let fitting = page.items.iter().take_while(|item| {
        bytes += codec::encode(*item).len();
        bytes <= ONCE_BYTES_MAX
    });
    let fitting = fitting.count().max(1);
    page.more |= page.items.len() > fitting;
    page.items.truncate(fitting);
}

impl<L: OrderedLog> Node<L> {
    /// Answers a query of a session, unless its answer is on its way. A query that is ignored costs a
    /// look-up, so it is not charged.
    pub(super) fn on_query(&mut self, clock: Clock, session: SessionId, query: Query) {
        if !self.outstanding.contains(session, query.id) && !self.waiting.contains(session, query.id) {
            self.ask(clock, Asker::Session(session), query);
        }
    }

    /// Answers a query without a session, asked by the holder of this key.
    pub(super) fn on_query_without_session(
        &mut self,
        clock: Clock,
        reply_to: ReplyTo,
        key: DeviceKey,
        query: Query,
    ) {
        self.ask(clock, Asker::Key { key, reply_to }, query);
    }

    /// Answers a query, or lets it wait for what it needs.
    fn ask(&mut self, clock: Clock, asker: Asker, query: Query) {
        let needs = match self.needs(clock, &asker, &query) {
            Ok(needs) if self.meets(needs, &query) => {
                let answer = self.answer_query(clock, &asker, &query);
                return self.reply(clock, asker, &query, answer);
            }
            Ok(needs) => needs,
            Err(code) => return self.reply(clock, asker, &query, Err(code.into())),
        };
        // It is charged once more when it is answered.
        let profile = self.profile_of(&asker, &query);
        if let Err(refused) = self.spend_query(clock, &asker, profile.as_ref(), cost::LEAST) {
            return self.reply(clock, asker, &query, Err(refused));
        }
        let until = clock.now + if needs.led.is_some() { self.config.timing.suspect_max } else { BEHIND_MAX };
        if let Some(waits) = self.waiting.push(WaitingQuery { needs, until, asker, query }) {
            self.reply(clock, waits.asker, &waits.query, Err(Unanswered::behind()));
        }
    }

    /// Answers the queries that have what they wait for, and refuses those that have waited for too long.
    /// Follows all that a turn applies.
    pub(super) fn answer_waiting(&mut self, clock: Clock) {
        for WaitingQuery { needs, asker, query, .. } in
            self.waiting.take(clock.now, self.service.applied(), self.log.status().led)
        {
            let answer = match self.meets(needs, &query) {
                true => self.answer_query(clock, &asker, &query),
                false => Err(Unanswered::behind()),
            };
            self.reply(clock, asker, &query, answer);
        }
    }

    /// What a query needs before it can be answered here.
    ///
    /// # Errors
    /// It asks for something that this server does not do, or has a token of another log.
    fn needs(&self, clock: Clock, asker: &Asker, query: &Query) -> Result<Needs, Code> {
        if !query.options.are_honoured_by(&[OptionalFields::CONSISTENCY, OptionalFields::SELECTION]) {
            return Err(Code::Unsupported);
        }
        if query.kind == QueryKind::Status {
            return Ok(Needs::default());
        }
        let token = match query.at_least {
            Some(position) => position.op().ok_or(Code::OtherEpoch)?,
            None => Op::ZERO,
        };
        // A session is the op that opened it: a server that has not applied it knows nothing of it.
        let opened = match asker {
            Asker::Session(session) => session.0,
            Asker::Key { .. } => Op::ZERO,
        };
        match query.options.get(OptionalFields::CONSISTENCY) {
            None => Ok(Needs { applied: token.max(opened), led: None }),
            Some([0]) => Ok(Needs { applied: opened, led: None }),
            // All that is committed when a majority confirms the lead: what is held now.
            Some([1]) => {
                let held = self.log.status().last;
                Ok(Needs { applied: token.max(held), led: Some(clock.now) })
            }
            Some(_) => Err(Code::Unsupported),
        }
    }

    fn meets(&self, needs: Needs, query: &Query) -> bool {
        let null =
            |query: &Query| matches!(&query.kind, QueryKind::Get { key } if !self.service.has_value(key));
        let behind = needs.led.is_none()
            && (self.config.planted.is(Planted::AnswersBehindToken)
                || (self.config.planted.is(Planted::NullBehindToken) && null(query)));
        let unconfirmed = self.config.planted.is(Planted::AnswersUnconfirmed) && needs.led.is_some();
        if behind || (unconfirmed && self.serves()) {
            return true;
        }
        needs.led.is_none_or(|_| self.serves())
            && needs.are_met(self.service.applied(), self.log.status().led)
    }

    /// Sends the answer to a query, or its refusal, the way that it came.
    fn reply(&mut self, clock: Clock, asker: Asker, query: &Query, answer: Result<Answered, Unanswered>) {
        let id = query.id;
        let packet = match answer {
            Err(Unanswered::NoSession) => {
                if let Asker::Session(session) = asker {
                    self.refuse_session(session);
                }
                return;
            }
            Err(Unanswered::Refused { code, retry_ms }) => {
                let mut data = self.age(clock);
                if code == Code::TryOtherServerOrLater {
                    data =
                        data.with(OptionalFields::APPLIED, self.service.applied().0.to_be_bytes().to_vec());
                }
                ToClient::Error(Refused { data, ..Refused::new(code, Answers::Query(id), retry_ms) })
            }
            Ok(Answered { kind, options }) => {
                let applied = Position::of(self.service.applied());
                ToClient::Answer(Answer { id, applied, kind, options })
            }
        };
        match asker {
            Asker::Session(session) => {
                if matches!(&packet, ToClient::Answer(answer) if answer.is_tracked()) {
                    self.outstanding.insert(session, id, Texts::of(&query.kind));
                }
                self.deliver(delivery::Input::Answer { session, packet });
            }
            Asker::Key { reply_to, .. } => {
                self.deliver(delivery::Input::AnswerTo { reply_to, packets: vec![packet] });
            }
        }
    }

    fn answer_query(&mut self, clock: Clock, asker: &Asker, query: &Query) -> Result<Answered, Unanswered> {
        if query.kind == QueryKind::Status {
            let (kind, options) = (AnswerKind::Status(self.status(clock)), self.about_the_server(clock));
            return Ok(Answered { kind, options });
        }
        let profile = self.profile_of(asker, query);
        let topics = profile.as_ref().map_or(0, |profile| self.service.follows(profile));
        let cost = match &query.kind {
            QueryKind::History(history) => cost::history(history, topics),
            QueryKind::List(list) => cost::list(&list.what, topics),
            QueryKind::Info { .. } => cost::info(topics),
            QueryKind::Status | QueryKind::WhoAmI | QueryKind::Get { .. } => cost::LEAST,
        };
        self.spend_query(clock, asker, profile.as_ref(), cost)?;
        // A key that was revoked since must not read here for long, and a server that is cut off does not
        // learn of that.
        if self.alone_for(clock).is_some_and(|alone| alone >= ALONE_MAX) {
            return Err(Unanswered::Refused { code: Code::NoQuorum, retry_ms: ALONE_RETRY_MS });
        }
        let options = self.age(clock);
        let profile = match (profile, asker) {
            (None, Asker::Key { .. }) if query.kind == QueryKind::WhoAmI => {
                return Ok(Answered { kind: AnswerKind::WhoAmI(None), options });
            }
            (None, Asker::Key { .. }) => return Err(self.unknown_asker(query).into()),
            (None, Asker::Session(_)) => return Err(Unanswered::NoSession),
            (Some(profile), _) => profile,
        };
        Ok(match &query.kind {
            QueryKind::History(history) => {
                let bytes = match asker {
                    Asker::Session(_) => History::BYTES_MAX,
                    Asker::Key { .. } => ONCE_BYTES_MAX,
                };
                let selection = Selection::of(&query.options).ok_or(Code::Unsupported)?;
                let selected = self.service.select(&profile, history, &selection, bytes)?;
                self.owe_query(clock, asker, &profile, cost::left_out(selected.passed_over));
                let reached = selected.reached.filter(|_| selected.page.more && !selection.is_all());
                let reached = reached.map(|op| (OptionalFields::REACHED, op.0.to_be_bytes().to_vec()));
                Answered { kind: AnswerKind::History(selected.page), options: with(options, reached) }
            }
            QueryKind::List(list) => {
                let displays = query.options.get(OptionalFields::DISPLAY).is_some();
                let (mut page, passed_over) = self.service.list(&profile, list, displays)?;
                if let Asker::Key { .. } = asker {
                    shorten(&mut page);
                }
                self.owe_query(clock, asker, &profile, cost::passed_over(passed_over));
                Answered { kind: AnswerKind::List(page), options }
            }
            QueryKind::Info { profile: of } => {
                let info = self.service.info(of.as_ref().unwrap_or(&profile))?;
                let display = self.service.display(&info.profile);
                let display =
                    display.map(|display| (OptionalFields::DISPLAY, display.as_str().as_bytes().to_vec()));
                Answered { kind: AnswerKind::Info(info), options: with(options, display) }
            }
            QueryKind::Get { key } => {
                let value = self.service.value(&profile, key)?;
                let bytes = value.as_ref().map_or(0, |value| value.value.len());
                self.owe_query(clock, asker, &profile, cost::value(bytes));
                Answered { kind: AnswerKind::Value(value), options }
            }
            QueryKind::WhoAmI => Answered { kind: AnswerKind::WhoAmI(Some(profile)), options },
            QueryKind::Status => Answered {
                kind: AnswerKind::Status(self.status(clock)),
                options: self.about_the_server(clock),
            },
        })
    }

    /// The profile that asks; none if the session is not live, or the key is not one of the profile's.
    fn profile_of(&self, asker: &Asker, query: &Query) -> Option<Name> {
        match asker {
            Asker::Session(session) => self.service.session(*session).map(|session| session.profile),
            Asker::Key { key, .. } => match query.options.get(OptionalFields::PROFILE) {
                None => self.service.profile_of(*key).cloned(),
                Some(named) => {
                    let named: Name = str::from_utf8(named).ok()?.parse().ok()?;
                    self.service.is_key_of(*key, &named).then_some(named)
                }
            },
        }
    }

    /// The refusal of a key that is not one of the profile's that it names.
    fn unknown_asker(&self, query: &Query) -> Code {
        let named = query.options.get(OptionalFields::PROFILE).and_then(|named| str::from_utf8(named).ok());
        match named.and_then(|named| named.parse().ok()) {
            Some(name) if !self.service.is_unclaimed(&name) => Code::NotYours,
            _ => Code::UnknownDevice,
        }
    }

    fn spend_query(
        &mut self,
        clock: Clock,
        asker: &Asker,
        profile: Option<&Name>,
        cost: u32,
    ) -> Result<(), Unanswered> {
        let spent = match asker {
            Asker::Session(session) => self.charges.spend(clock.now, *session, profile, cost),
            Asker::Key { reply_to, .. } => {
                self.charges.spend_without_session(clock.now, reply_to.to.ip(), profile, cost)
            }
        };
        spent.map_err(|wait| Unanswered::Refused { code: Code::Busy, retry_ms: wait })
    }

    fn owe_query(&mut self, clock: Clock, asker: &Asker, profile: &Name, cost: u32) {
        match asker {
            Asker::Session(session) => self.charges.owe(clock.now, *session, Some(profile), cost),
            Asker::Key { reply_to, .. } => {
                self.charges.owe_without_session(clock.now, reply_to.to.ip(), profile, cost);
            }
        }
    }

    /// How long this server has not known of an active primary, itself included; none while it serves as one.
    fn alone_for(&self, clock: Clock) -> Option<Duration> {
        (!self.serves()).then(|| clock.now.since(self.log.status().led.unwrap_or(self.started)))
    }

    /// What an answer says of its age: nothing if this server serves as primary.
    fn age(&self, clock: Clock) -> OptionalFields {
        if self.serves() {
            return OptionalFields::NONE;
        }
        let since = |led| clock.now.since(led).as_millis() as u64;
        let age = self.log.status().led.map(|led| since(led).to_be_bytes().to_vec());
        OptionalFields::NONE.with(OptionalFields::AGE, age.unwrap_or_default())
    }

    /// What a status tells beyond its fields.
    fn about_the_server(&self, clock: Clock) -> OptionalFields {
        let mut about = OptionalFields::NONE
            .with(OptionalFields::WALL_CLOCK, clock.unix_ms.to_be_bytes().to_vec())
            .with(OptionalFields::AGREED, self.config.agreed().to_be_bytes().to_vec())
            .with(OptionalFields::RELEASE, env!("CARGO_PKG_VERSION").as_bytes().to_vec());
        if self.is_primary {
            let log_ms = self.log_clock.now_ms(clock.now);
            about = about.with(OptionalFields::LOG_CLOCK, log_ms.to_be_bytes().to_vec());
        }
        if !self.ignored.is_empty() {
            let ids: Vec<u8> = self.ignored.iter().flat_map(|node| node.0.to_be_bytes()).collect();
            about = about.with(OptionalFields::IGNORED, ids);
        }
        about
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
