//! Checkers: the promises P1, P2 and P4 as pure functions over a [`History`].
//!
//! Each returns the first violation that it finds, as a text. The checkers do not depend on the origin of the
//! history, so the simulation and the tests with real processes share them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use recado_proto::id::{ChannelName, Name, Op, Topic};
use recado_proto::packet::{ChannelChange, QueryId};

use crate::history::{AskId, ClientEvent, ClientId, History, LogAction, LoggedAction};

#[path = "copies.rs"]
mod copies;
#[path = "rights.rs"]
mod rights;

use copies::{Asked, Copies};
use rights::Rights;

/// Runs all checks that hold at the end of a run.
///
/// # Errors
/// The first violation.
pub fn check(history: &History) -> Result<(), String> {
    let book = IndexedHistory::read(history)?;
    nothing_wrong_in(history, &book)?;
    history.clients.keys().try_for_each(|client| {
        gaps_are_true(history, &book, *client)?;
        complete(history, &book, *client)
    })
}

/// Runs the checks that hold at any time of a run.
///
/// # Errors
/// The first violation.
pub fn nothing_wrong(history: &History) -> Result<(), String> {
    nothing_wrong_in(history, &IndexedHistory::read(history)?)
}

fn nothing_wrong_in(history: &History, book: &IndexedHistory) -> Result<(), String> {
    fifo_acknowledgements(book)?;
    answered_as_before(history, book)?;
    history.clients.keys().try_for_each(|client| {
        ascending_and_genuine(history, book, *client)?;
        reads_never_go_back(history, book, *client)
    })
}

/// Checks that every request is answered or known to be forgotten. It applies to runs that end with a final
/// phase without faults.
///
/// # Errors
/// The first request without an answer.
pub fn all_answered(history: &History) -> Result<(), String> {
    let book = IndexedHistory::read(history)?;
    for ((client, ask), request) in &book.requests {
        if matches!(request.outcome, Outcome::None) {
            return Err(format!("client {} never got an answer to its request {}", client.0, ask.0));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    None,
    Acked(Op),
    Refused,
    /// The client lost the request: it may have been applied or not.
    Unknown,
}

#[derive(Clone, Debug)]
enum RequestKind {
    Send(String),
    Follow,
    Unfollow,
    Change(ChannelName, ChannelChange),
    Other,
}

#[derive(Clone, Debug)]
struct Request {
    what: RequestKind,
    topic: Topic,
    outcome: Outcome,
}

/// The history, indexed for the checks.
#[derive(Debug, Default)]
struct IndexedHistory {
    requests: BTreeMap<Asked, Request>,
    /// The request that sent each text.
    texts: BTreeMap<String, Asked>,
    /// The request that each op acknowledges, to whichever copy of the device's files.
    acked: BTreeMap<Op, Asked>,
    copies: Copies,
    /// The follows and rights of each profile, by op.
    rights: Rights,
    /// Without the log: the follows with an unknown outcome, and the channels that may have been changed, for
    /// which the checks can require nothing.
    unsure: BTreeSet<(Name, Topic)>,
    unsure_channels: BTreeSet<Topic>,
}

impl IndexedHistory {
    fn read(history: &History) -> Result<IndexedHistory, String> {
        let mut book = IndexedHistory::default();
        for (at, (client, happened)) in history.events.iter().enumerate() {
            match happened {
                ClientEvent::Sent { ask, topic, text } => {
                    book.texts.insert(text.clone(), (*client, *ask));
                    book.request(*client, *ask, RequestKind::Send(text.clone()), topic);
                }
                ClientEvent::Followed { ask, topic } => {
                    book.request(*client, *ask, RequestKind::Follow, topic)
                }
                ClientEvent::Unfollowed { ask, topic } => {
                    book.request(*client, *ask, RequestKind::Unfollow, topic)
                }
                ClientEvent::Acked { ask, op } => {
                    book.acknowledge(*op, (*client, *ask))?;
                    book.answer(*client, *ask, Outcome::Acked(*op))?;
                    book.copies.settle(*client, (*client, *ask), at, false);
                }
                ClientEvent::Refused { ask, .. } => {
                    book.answer(*client, *ask, Outcome::Refused)?;
                    book.copies.settle(*client, (*client, *ask), at, false);
                }
                ClientEvent::AnsweredAgain { of, ask, result } => {
                    if let Ok(op) = result {
                        book.acknowledge(*op, (*of, *ask))?;
                    }
                    book.copies.settle(*client, (*of, *ask), at, false);
                }
                ClientEvent::GaveUp { requests } => {
                    requests.iter().for_each(|request| book.copies.settle(*client, *request, at, true));
                }
                ClientEvent::ChangedChannel { ask, channel, change } => {
                    let what = RequestKind::Change(channel.clone(), change.clone());
                    book.request(*client, *ask, what, &Topic::Channel(channel.clone()));
                }
                ClientEvent::ChangedProfile { ask }
                | ClientEvent::Retracted { ask, .. }
                | ClientEvent::Wrote { ask, .. } => {
                    let facts = history.clients.get(client).ok_or("a request of nobody")?;
                    book.request(*client, *ask, RequestKind::Other, &Topic::Inbox(facts.profile.clone()));
                }
                ClientEvent::Forgot { asks } | ClientEvent::Disowned { asks } => {
                    for ask in asks {
                        book.answer(*client, *ask, Outcome::Unknown)?;
                    }
                }
                ClientEvent::Connected { .. }
                | ClientEvent::Delivered { .. }
                | ClientEvent::Told { .. }
                | ClientEvent::Gap { .. }
                | ClientEvent::Asked { .. }
                | ClientEvent::Read { .. }
                | ClientEvent::AskedValue { .. }
                | ClientEvent::Got { .. }
                | ClientEvent::PutBack { .. } => {}
            }
        }
        match &history.log {
            Some(log) => log.iter().try_for_each(|done| book.take(done))?,
            None => book.draw_rights(history)?,
        }
        Ok(book)
    }

    fn request(&mut self, client: ClientId, ask: AskId, what: RequestKind, topic: &Topic) {
        self.requests.insert((client, ask), Request { what, topic: topic.clone(), outcome: Outcome::None });
    }

    fn take(&mut self, done: &LogAction) -> Result<(), String> {
        if let Some(client) = done.client {
            self.copies.did(client, done.op);
        }
        if let LoggedAction::Sent { text, .. } = &done.deed
            && let Some(request) = self.texts.get(text)
        {
            self.copies.sent(*request, done.op);
        }
        self.rights.take(done)
    }

    fn acknowledge(&mut self, op: Op, request: Asked) -> Result<(), String> {
        match self.acked.insert(op, request) {
            Some(other) if other != request => {
                Err(format!("op {op} acknowledges two requests: {other:?} and {request:?}"))
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, client: ClientId, ask: AskId, outcome: Outcome) -> Result<(), String> {
        let Some(request) = self.requests.get_mut(&(client, ask)) else {
            return Err(format!("client {} got an answer to a request it never made: {}", client.0, ask.0));
        };
        if request.outcome != Outcome::None {
            return Err(format!(
                "client {} got two answers to request {}: {:?} and {outcome:?}",
                client.0, ask.0, request.outcome
            ));
        }
        request.outcome = outcome;
        Ok(())
    }

    /// Replays the acknowledged requests in op order, as the clients know them.
    fn draw_rights(&mut self, history: &History) -> Result<(), String> {
        let mut log: BTreeMap<Op, LogAction> = BTreeMap::new();
        for ((client, _), request) in &self.requests {
            let Some(facts) = history.clients.get(client) else { continue };
            let (by, topic) = (facts.profile.clone(), request.topic.clone());
            match (request.outcome, deed_of(request)) {
                (Outcome::Acked(op), Some(deed)) => {
                    log.insert(op, LogAction { op, by: Some(by), client: Some(*client), deed });
                }
                (
                    Outcome::None | Outcome::Unknown,
                    Some(LoggedAction::Followed(_) | LoggedAction::Unfollowed(_)),
                ) => {
                    self.unsure.insert((by, topic));
                }
                (Outcome::None | Outcome::Unknown, Some(LoggedAction::Changed(..))) => {
                    self.unsure_channels.insert(topic);
                }
                _ => {}
            }
        }
        let unsure = |done: &&LogAction| match &done.deed {
            LoggedAction::Sent { topic, .. }
            | LoggedAction::Followed(topic)
            | LoggedAction::Unfollowed(topic) => self.unsure_channels.contains(topic),
            LoggedAction::Changed(channel, _) => {
                self.unsure_channels.contains(&Topic::Channel(channel.clone()))
            }
            LoggedAction::ChannelGone(_) | LoggedAction::ProfileGone | LoggedAction::Retracted { .. } => {
                false
            }
        };
        log.values().filter(|done| !unsure(done)).try_for_each(|done| self.rights.take(done))
    }

    fn is_unsure(&self, profile: &Name, topic: &Topic) -> bool {
        self.unsure_channels.contains(topic) || self.unsure.contains(&(profile.clone(), topic.clone()))
    }

    /// Returns true if retention, which dropped a topic's notifications up to `trimmed`, can have caused this
    /// gap in a profile's stream.
    fn leaves_gap(&self, profile: &Name, topic: &Topic, trimmed: Op, (after, upto): (Op, Op)) -> bool {
        let lost = |(from, until): &(Op, Option<Op>)| {
            after.max(*from) < trimmed && until.is_none_or(|until| upto < until)
        };
        let followed = match topic {
            Topic::Inbox(name) => name == profile && after < trimmed,
            _ => self.is_unsure(profile, topic) || self.rights.follows(profile, topic).iter().any(lost),
        };
        followed && upto <= trimmed
    }

    fn followed_at(&self, profile: &Name, topic: &Topic, op: Op) -> Following {
        if let Topic::Inbox(name) = topic {
            return match name == profile {
                false => Following::Never,
                true if self.rights.is_removed_after(topic, op) => Following::Perhaps,
                true => Following::Still,
            };
        }
        if self.is_unsure(profile, topic) {
            return Following::Perhaps;
        }
        let times = self.rights.follows(profile, topic);
        match times.iter().find(|(from, until)| *from < op && until.is_none_or(|until| op < until)) {
            None => Following::Never,
            // The follows of a deleted channel last, and its notifications do not.
            Some(_) if self.rights.is_removed_after(topic, op) => Following::Perhaps,
            Some((_, None)) => Following::Still,
            Some((_, Some(_))) => Following::Perhaps,
        }
    }
}

/// Returns the effect of a request that is applied.
fn deed_of(request: &Request) -> Option<LoggedAction> {
    let topic = request.topic.clone();
    match &request.what {
        RequestKind::Send(text) => Some(LoggedAction::Sent { topic, text: text.clone() }),
        RequestKind::Follow => Some(LoggedAction::Followed(topic)),
        RequestKind::Unfollow => Some(LoggedAction::Unfollowed(topic)),
        RequestKind::Change(channel, change) => Some(LoggedAction::Changed(channel.clone(), change.clone())),
        RequestKind::Other => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Following {
    /// A notification of that op must not be delivered to this profile.
    Never,
    /// It may be delivered or not: the profile unfollowed the topic later, the topic was removed with it, or
    /// the outcome is unknown.
    Perhaps,
    /// It must be delivered.
    Still,
}

/// Checks that a repeated request gets the same answer, unless two copies did it where that is not covered.
fn answered_as_before(history: &History, book: &IndexedHistory) -> Result<(), String> {
    for (client, happened) in &history.events {
        let ClientEvent::AnsweredAgain { of, ask, result } = happened else { continue };
        let of_both = |op| book.copies.may_hear((*of, *ask), (*of, op), (*client, result.ok()));
        let fits = match book.requests.get(&(*of, *ask)).map(|request| request.outcome) {
            Some(Outcome::Acked(op)) => *result == Ok(op) || of_both(Some(op)),
            Some(Outcome::Refused) => result.is_err() || of_both(None),
            Some(Outcome::None | Outcome::Unknown) => true,
            None => false,
        };
        if !fits {
            return Err(format!(
                "client {} hears {result:?} of {of:?} {ask:?}, which was answered otherwise",
                client.0
            ));
        }
    }
    Ok(())
}

/// Checks that the log holds every sent text once, and every acknowledged request at its op. It needs a
/// history whose log was read to its end.
///
/// # Errors
/// The first violation.
pub fn in_the_log(history: &History) -> Result<(), String> {
    let log = history.log.as_deref().unwrap_or_default();
    let book = IndexedHistory::read(history)?;
    let mut places: BTreeMap<&str, Vec<Op>> = BTreeMap::new();
    for done in log {
        let LoggedAction::Sent { text, .. } = &done.deed else { continue };
        let before = places.entry(text).or_default();
        let request = book.texts.get(text);
        let may_both = |first| request.is_some_and(|of| book.copies.may_have_both(*of, first, done.op));
        if let Some(first) = before.iter().find(|first| !may_both(**first)) {
            return Err(format!("{text:?} is in the log twice: at op {first} and at op {}", done.op));
        }
        before.push(done.op);
    }
    let by_op: BTreeMap<Op, &LogAction> = log.iter().map(|done| (done.op, done)).collect();
    for (op, (client, ask)) in &book.acked {
        let Some(deed) = book.requests.get(&(*client, *ask)).and_then(deed_of) else { continue };
        let by = history.clients.get(client).map(|facts| &facts.profile);
        if by_op.get(op).is_none_or(|done| done.deed != deed || done.by.as_ref() != by) {
            return Err(format!(
                "request {} of client {}, {deed:?}, was acknowledged at op {op}, where the log has {:?}",
                ask.0,
                client.0,
                by_op.get(op)
            ));
        }
    }
    Ok(())
}

/// Checks that of two requests of one client, the earlier has the lower op, unless two copies of its files
/// did them in another order.
fn fifo_acknowledgements(book: &IndexedHistory) -> Result<(), String> {
    let mut highest: BTreeMap<ClientId, (AskId, Op)> = BTreeMap::new();
    for ((client, ask), request) in &book.requests {
        let Outcome::Acked(op) = request.outcome else { continue };
        let (before, before_op) = *highest.entry(*client).or_insert((*ask, op));
        if before_op < op {
            highest.insert(*client, (*ask, op));
        } else if before != *ask
            && !book.copies.are_unordered(((*client, before), before_op), ((*client, *ask), op))
        {
            return Err(format!(
                "client {}: request {} has op {op}, the earlier {} has {before_op}",
                client.0, ask.0, before.0
            ));
        }
    }
    Ok(())
}

/// Checks that the notifications at one device come in op order, each once, with the text that was sent,
/// those of one copy of an author's files in its order of asking, and only those that it may read.
fn ascending_and_genuine(history: &History, book: &IndexedHistory, client: ClientId) -> Result<(), String> {
    let Some(facts) = history.clients.get(&client) else { return Ok(()) };
    let mut cursor: Option<Op> = None;
    let mut anew = false;
    let mut seen: BTreeMap<&str, Op> = BTreeMap::new();
    let mut came: BTreeMap<Asked, Op> = BTreeMap::new();
    for happened in history.of(client) {
        let ClientEvent::Delivered { op, author, topic, text } = happened else {
            match happened {
                ClientEvent::Told { op, topic, notice, .. } => {
                    let here = format!("client {} was told {notice:?} at op {op}", client.0);
                    if cursor.is_some_and(|cursor| *op <= cursor) {
                        return Err(format!("{here} after its cursor stood at {cursor:?}"));
                    }
                    cursor = Some(*op);
                    if history.log.is_some() && book.rights.notice(*op) != Some(*notice) {
                        return Err(format!("{here}, where the log has {:?}", book.rights.notice(*op)));
                    }
                    if book.followed_at(&facts.profile, topic, *op) == Following::Never {
                        return Err(format!("{here} of {topic}, which it did not follow then"));
                    }
                }
                // A device that is admitted again begins at that op, and nothing before it is delivered.
                ClientEvent::Connected { cursor: at } if std::mem::take(&mut anew) => {
                    cursor = cursor.max(Some(*at));
                }
                ClientEvent::Connected { cursor: at } => cursor = cursor.or(Some(*at)),
                ClientEvent::Disowned { .. } => anew = true,
                ClientEvent::Gap { upto, .. } => cursor = cursor.max(Some(*upto)),
                ClientEvent::PutBack { cursor: at } => {
                    // Everything after the restored cursor is delivered again.
                    cursor = *at;
                    seen.retain(|_, op| Some(*op) <= cursor);
                    came.clear();
                }
                _ => {}
            }
            continue;
        };
        let here = format!("client {} got op {op} {text:?}", client.0);
        if cursor.is_some_and(|cursor| *op <= cursor) {
            return Err(format!("{here} after its cursor stood at {cursor:?}"));
        }
        cursor = Some(*op);
        let Some(asked) = book.texts.get(text) else {
            return Err(format!("{here}, which nobody sent"));
        };
        let (sender, _) = asked;
        if seen.insert(text, *op).is_some_and(|before| !book.copies.may_have_both(*asked, before, *op)) {
            return Err(format!("{here} twice"));
        }
        let request = &book.requests[asked];
        if *topic != request.topic || history.clients.get(sender).is_none_or(|facts| facts.profile != *author)
        {
            return Err(format!(
                "{here} as of {author} to {topic}, sent by client {} to {}",
                sender.0, request.topic
            ));
        }
        match request.outcome {
            Outcome::Acked(acked)
                if acked != *op && !book.copies.may_have_both(*asked, acked.min(*op), acked.max(*op)) =>
            {
                return Err(format!("{here}, acknowledged as op {acked}"));
            }
            Outcome::Refused if !book.copies.may_have_refused(*asked, *sender, *op) => {
                return Err(format!("{here}, which was refused"));
            }
            Outcome::Refused | Outcome::Acked(_) | Outcome::None | Outcome::Unknown => {}
        }
        let mut later = came.range((Bound::Excluded(*asked), Bound::Included((*sender, AskId(u32::MAX)))));
        if !later.all(|(later, its_op)| book.copies.are_unordered((*asked, *op), (*later, *its_op))) {
            return Err(format!("{here} after a later one of the same author"));
        }
        // What was in the files when they were copied comes before what is asked on the copy.
        let own = |copy| (copy, AskId(0))..=(copy, AskId(u32::MAX));
        let copy = book.copies.doer(*op).filter(|copy| copy != sender);
        if copy.is_some_and(|copy| came.range(own(copy)).next().is_some()) {
            return Err(format!("{here} after a later one of the same copy"));
        }
        came.insert(*asked, *op);
        if book.followed_at(&facts.profile, topic, *op) == Following::Never {
            return Err(format!("{here} of {topic}, which it did not follow then"));
        }
    }
    Ok(())
}

/// Checks each answer to a query of a topic's history: it includes what the client itself sent there, and is
/// not older than its earlier answers. With the log, the answer must also equal the topic's content in the
/// state that was read, and the client must have had the right to read it.
fn reads_never_go_back(history: &History, book: &IndexedHistory, client: ClientId) -> Result<(), String> {
    let Some(facts) = history.clients.get(&client) else { return Ok(()) };
    let mut known: BTreeMap<&Topic, Op> = BTreeMap::new();
    let mut states = Op::ZERO;
    let mut asked: BTreeMap<QueryId, (&Topic, Op, Op)> = BTreeMap::new();
    for happened in history.of(client) {
        match happened {
            ClientEvent::Acked { ask, op } => {
                states = states.max(*op);
                if let Some(Request { what: RequestKind::Send(_), topic, .. }) =
                    book.requests.get(&(client, *ask))
                {
                    let known = known.entry(topic).or_default();
                    *known = (*known).max(*op);
                }
            }
            ClientEvent::Asked { query, topic } => {
                let floor = known.get(topic).copied().unwrap_or_default();
                asked.insert(*query, (topic, floor, states));
            }
            ClientEvent::Read { query, newest, trimmed_upto, applied } => {
                let Some((topic, floor, state)) = asked.remove(query) else {
                    return Err(format!("client {} got an answer to a query it never sent", client.0));
                };
                let here = format!("client {} read {topic} at op {applied} up to {newest:?}", client.0);
                if *applied < state {
                    return Err(format!("{here}, and knew of {state}"));
                }
                states = states.max(*applied);
                if history.log.is_some() {
                    if !book.rights.may_read(&facts.profile, topic, *applied) {
                        return Err(format!("{here}, which it might not"));
                    }
                    let held = book.rights.newest(topic, *applied).filter(|held| held > trimmed_upto);
                    if *newest != held {
                        return Err(format!("{here}, where it held {held:?}"));
                    }
                    continue;
                }
                let read = newest.unwrap_or_default();
                let unsure = book.unsure_channels.contains(topic);
                if read < floor && floor > *trimmed_upto && !unsure {
                    return Err(format!("{here}, and knew of {floor}"));
                }
                let known = known.entry(topic).or_default();
                *known = (*known).max(read);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks that a gap is reported only where retention dropped a notification that this device had not read.
fn gaps_are_true(history: &History, book: &IndexedHistory, client: ClientId) -> Result<(), String> {
    let Some(facts) = history.clients.get(&client) else { return Ok(()) };
    for happened in history.of(client) {
        let ClientEvent::Gap { after, upto } = happened else { continue };
        let lost = |(topic, trimmed): (&Topic, &Op)| {
            book.leaves_gap(&facts.profile, topic, *trimmed, (*after, *upto))
        };
        if !history.trimmed.iter().any(lost) {
            let trimmed = &history.trimmed;
            return Err(format!(
                "client {} was told of a gap from {after} to {upto}; retention says {trimmed:?}",
                client.0
            ));
        }
    }
    Ok(())
}

/// Checks that no acknowledged notification for this device is missing, except those that retention dropped
/// and a gap reported.
fn complete(history: &History, book: &IndexedHistory, client: ClientId) -> Result<(), String> {
    let Some(facts) = history.clients.get(&client).filter(|facts| facts.receives) else { return Ok(()) };
    let mut start: Option<Op> = None;
    let mut got: BTreeSet<Op> = BTreeSet::new();
    let mut gaps: Vec<(Op, Op)> = Vec::new();
    for happened in history.of(client) {
        match happened {
            ClientEvent::Connected { cursor } => start = start.or(Some(*cursor)),
            ClientEvent::Delivered { op, .. } | ClientEvent::Told { op, .. } => {
                got.insert(*op);
            }
            ClientEvent::Gap { after, upto } => gaps.push((*after, *upto)),
            // A device that is admitted again begins at that op.
            ClientEvent::Disowned { .. } => start = None,
            _ => {}
        }
    }
    let Some(start) = start else { return Ok(()) };
    let dropped = |topic: &Topic, op: Op| history.trimmed.get(topic).is_some_and(|upto| op <= *upto);
    let is_required = |topic: &Topic, op: Op| {
        op > start
            && book.followed_at(&facts.profile, topic, op) == Following::Still
            && !(dropped(topic, op) && gaps.iter().any(|(after, upto)| *after < op && op <= *upto))
    };
    for done in history.log.iter().flatten() {
        let (topic, what) = match &done.deed {
            LoggedAction::Retracted { topic, of } => (topic.clone(), format!("the retraction of {of}")),
            LoggedAction::Changed(channel, ChannelChange::Delete) => {
                (Topic::Channel(channel.clone()), "the deletion".to_owned())
            }
            _ => continue,
        };
        if is_required(&topic, done.op) && !got.contains(&done.op) {
            return Err(format!("client {} was never told of {what} in {topic} by op {}", client.0, done.op));
        }
    }
    for (op, (sender, ask)) in &book.acked {
        let Some(request) = book.requests.get(&(*sender, *ask)) else { continue };
        let RequestKind::Send(text) = &request.what else { continue };
        if is_required(&request.topic, *op) && !got.contains(op) {
            return Err(format!(
                "client {} never got op {op} {text:?} to {} (request {} of client {})",
                client.0, request.topic, ask.0, sender.0
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use recado_proto::packet::{Code, Notice, Role};

    use super::*;
    use crate::history::Facts;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn history(events: Vec<(u8, ClientEvent)>) -> History {
        let facts = |profile: &str| Facts { profile: name(profile), receives: true };
        History {
            clients: [(ClientId(1), facts("ann")), (ClientId(2), facts("bob"))].into(),
            events: events.into_iter().map(|(client, happened)| (ClientId(client), happened)).collect(),
            trimmed: BTreeMap::new(),
            log: None,
            values: Vec::new(),
        }
    }

    fn ops() -> ChannelName {
        "ops".parse().unwrap()
    }

    fn channel() -> Topic {
        Topic::Channel(ops())
    }

    fn sent(ask: u32, text: &str) -> ClientEvent {
        ClientEvent::Sent { ask: AskId(ask), topic: channel(), text: text.to_owned() }
    }

    fn acked(ask: u32, op: u64) -> ClientEvent {
        ClientEvent::Acked { ask: AskId(ask), op: Op(op) }
    }

    fn delivered(op: u64, text: &str) -> ClientEvent {
        ClientEvent::Delivered { op: Op(op), author: name("ann"), topic: channel(), text: text.to_owned() }
    }

    fn follower() -> Vec<(u8, ClientEvent)> {
        vec![
            (2, ClientEvent::Connected { cursor: Op(1) }),
            (2, ClientEvent::Followed { ask: AskId(1), topic: channel() }),
            (2, acked(1, 3)),
            (1, sent(1, "one")),
            (1, acked(1, 4)),
            (1, sent(2, "two")),
            (1, acked(2, 5)),
        ]
    }

    fn verdict(more: Vec<(u8, ClientEvent)>) -> Result<(), String> {
        let mut events = follower();
        events.extend(more);
        check(&history(events))
    }

    #[test]
    fn a_clean_history_passes() {
        assert_eq!(verdict(vec![(2, delivered(4, "one")), (2, delivered(5, "two"))]), Ok(()));
    }

    #[test]
    fn a_loss_is_found() {
        assert!(verdict(vec![(2, delivered(5, "two"))]).unwrap_err().contains("never got op 4"));
    }

    #[test]
    fn a_repetition_is_found() {
        assert!(verdict(vec![(2, delivered(4, "one")), (2, delivered(4, "one"))]).is_err());
    }

    #[test]
    fn a_wrong_order_is_found() {
        assert!(verdict(vec![(2, delivered(5, "two")), (2, delivered(4, "one"))]).is_err());
    }

    #[test]
    fn a_moved_op_is_found() {
        assert!(verdict(vec![(2, delivered(4, "two"))]).unwrap_err().contains("acknowledged as op 5"));
    }

    #[test]
    fn what_comes_again_after_the_files_were_put_back_is_no_repetition_and_must_come() {
        let back = || ClientEvent::PutBack { cursor: Some(Op(4)) };
        let all =
            vec![(2, delivered(4, "one")), (2, delivered(5, "two")), (2, back()), (2, delivered(5, "two"))];
        assert_eq!(verdict(all), Ok(()));
        let twice =
            vec![(2, delivered(4, "one")), (2, delivered(5, "two")), (2, back()), (2, delivered(4, "one"))];
        assert!(verdict(twice).unwrap_err().contains("after its cursor"));
    }

    #[test]
    fn a_different_answer_to_a_copy_is_found() {
        let again = |result| ClientEvent::AnsweredAgain { of: ClientId(1), ask: AskId(1), result };
        let seen = || vec![(2, delivered(4, "one")), (2, delivered(5, "two"))];
        let with = |result| verdict(seen().into_iter().chain([(2, again(result))]).collect());
        assert_eq!(with(Ok(Op(4))), Ok(()));
        assert!(with(Ok(Op(6))).unwrap_err().contains("otherwise"));
        assert!(with(Ok(Op(5))).unwrap_err().contains("acknowledges two requests"));
        assert!(with(Err(Code::NotAllowed)).is_err());
    }

    /// The log of the actions of `follower`, and `more`.
    fn logged(more: &[(u64, &str, LoggedAction)]) -> Vec<LogAction> {
        let follow = (3, "bob", LoggedAction::Followed(channel()));
        let all = [follow].into_iter().chain(more.iter().cloned());
        all.map(|(op, by, deed)| LogAction { op: Op(op), by: Some(name(by)), client: None, deed }).collect()
    }

    fn says(text: &str) -> LoggedAction {
        LoggedAction::Sent { topic: channel(), text: text.to_owned() }
    }

    #[test]
    fn what_the_log_has_twice_elsewhere_otherwise_or_not_at_all_is_found() {
        let check = |texts: &[(u64, &str)]| {
            let more: Vec<_> = texts.iter().map(|(op, text)| (*op, "ann", says(text))).collect();
            in_the_log(&History { log: Some(logged(&more)), ..history(follower()) })
        };
        assert_eq!(check(&[(4, "one"), (5, "two")]), Ok(()));
        assert!(check(&[(4, "one"), (5, "two"), (6, "one")]).unwrap_err().contains("twice"));
        assert!(check(&[(4, "one"), (6, "two")]).unwrap_err().contains("acknowledged at op 5"));
        assert!(check(&[(4, "one")]).unwrap_err().contains("None"));
        let as_of = |by| [(4, by, says("one")), (5, "ann", says("two"))];
        let check = |by| in_the_log(&History { log: Some(logged(&as_of(by))), ..history(follower()) });
        assert_eq!(check("ann"), Ok(()));
        assert!(check("bob").unwrap_err().contains("acknowledged at op 4"));
    }

    /// Ann creates a private channel and adds bob, who follows it; then come the actions `more`. Ann sends
    /// "one" as op 6.
    fn private(more: &[(u64, &str, LoggedAction)], seen: Vec<ClientEvent>) -> Result<(), String> {
        let changed = |change| LoggedAction::Changed(ops(), change);
        let mut log: Vec<LogAction> = [
            (2, "ann", changed(ChannelChange::Create { private: true })),
            (3, "ann", changed(ChannelChange::Add { member: name("bob"), role: Role::Reader })),
            (4, "bob", LoggedAction::Followed(channel())),
            (6, "ann", says("one")),
        ]
        .iter()
        .chain(more)
        .map(|(op, by, deed)| LogAction { op: Op(*op), by: Some(name(by)), client: None, deed: deed.clone() })
        .collect();
        log.sort_by_key(|done| done.op);
        let mut events =
            vec![(2, ClientEvent::Connected { cursor: Op(1) }), (1, sent(1, "one")), (1, acked(1, 6))];
        events.extend(seen.into_iter().map(|happened| (2, happened)));
        check(&History { log: Some(log), ..history(events) })
    }

    fn removes_bob() -> LoggedAction {
        LoggedAction::Changed(ops(), ChannelChange::Remove { member: name("bob") })
    }

    #[test]
    fn a_member_that_misses_a_notification_of_its_channel_is_found() {
        assert_eq!(private(&[], vec![delivered(6, "one")]), Ok(()));
        assert!(private(&[], vec![]).unwrap_err().contains("never got op 6"));
        // Op 6 must be delivered, because bob's right to read was certain then.
        assert!(private(&[(7, "ann", says("two"))], vec![]).unwrap_err().contains("never got op 6"));
    }

    #[test]
    fn a_removed_member_may_get_what_was_sent_before_and_gets_nothing_later() {
        assert_eq!(private(&[(7, "ann", removes_bob())], vec![]), Ok(()));
        assert_eq!(private(&[(7, "ann", removes_bob())], vec![delivered(6, "one")]), Ok(()));
        let early = private(&[(5, "ann", removes_bob())], vec![delivered(6, "one")]);
        assert!(early.unwrap_err().contains("did not follow then"));
        let deleted = LoggedAction::Changed(ops(), ChannelChange::Delete);
        let (_, told) = told(7, Notice::ChannelDeleted);
        assert_eq!(private(&[(7, "ann", deleted)], vec![told]), Ok(()), "its text is gone, and it says so");
    }

    #[test]
    fn an_action_without_the_right_to_it_is_found() {
        let with =
            |deed: LoggedAction| private(&[(5, "ann", removes_bob()), (7, "bob", deed)], vec![]).unwrap_err();
        assert!(with(LoggedAction::Followed(channel())).contains("was let follow"));
        assert!(with(says("two")).contains("was let send"));
        let adds = ChannelChange::Add { member: name("bob"), role: Role::Owner };
        assert!(with(LoggedAction::Changed(ops(), adds)).contains("no owner"));
        let creates = ChannelChange::Create { private: false };
        assert!(with(LoggedAction::Changed(ops(), creates)).contains("which there is or was"));
        assert!(
            private(&[(7, "bob", says("two"))], vec![]).unwrap_err().contains("was let send"),
            "a reader"
        );
    }

    #[test]
    fn a_read_of_another_state_or_by_nobody_s_right_is_found() {
        let asked = ClientEvent::Asked { query: QueryId(1), topic: channel() };
        let with = |newest: Option<u64>, applied| {
            let (query, trimmed_upto, applied) = (QueryId(1), Op::ZERO, Op(applied));
            let read = ClientEvent::Read { query, newest: newest.map(Op), trimmed_upto, applied };
            private(&[(8, "ann", removes_bob())], vec![asked.clone(), read])
        };
        assert_eq!(with(Some(6), 7), Ok(()));
        assert_eq!(with(None, 5), Ok(()));
        assert!(with(None, 6).unwrap_err().contains("held Some"));
        assert!(with(Some(6), 5).unwrap_err().contains("held None"));
        assert!(with(Some(6), 8).unwrap_err().contains("might not"));
    }

    #[test]
    fn what_is_gone_with_its_topic_or_its_profile_is_over() {
        let gone = |deed: LoggedAction, of| private(&[(7, of, deed), (8, "ann", says("two"))], vec![]);
        assert_eq!(gone(LoggedAction::ProfileGone, "bob"), Ok(()));
        assert_eq!(private(&[(7, "ann", LoggedAction::ChannelGone(ops()))], vec![]), Ok(()));
        let later = private(&[(5, "bob", LoggedAction::ProfileGone)], vec![delivered(6, "one")]);
        assert!(later.unwrap_err().contains("did not follow then"));
    }

    /// Bob follows the feed of ann; then come the actions `more`. As op 6 ann sends "one" to `topic`. Bob
    /// gets nothing.
    fn nothing_of(topic: &Topic, more: &[(u64, &str, LoggedAction)]) -> Result<(), String> {
        let follow = (3, "bob", LoggedAction::Followed(Topic::Feed(name("ann"))));
        let sent_one = LoggedAction::Sent { topic: topic.clone(), text: "one".to_owned() };
        let mut log = logged(&[&[follow, (6, "ann", sent_one)], more].concat());
        log.sort_by_key(|done| done.op);
        let sent = ClientEvent::Sent { ask: AskId(1), topic: topic.clone(), text: "one".to_owned() };
        let events = vec![(2, ClientEvent::Connected { cursor: Op(1) }), (1, sent), (1, acked(1, 6))];
        check(&History { log: Some(log), ..history(events) })
    }

    fn told(op: u64, notice: Notice) -> (u8, ClientEvent) {
        (2, ClientEvent::Told { op: Op(op), author: name("ann"), topic: channel(), notice })
    }

    #[test]
    fn a_retraction_that_does_not_come_or_comes_as_another_is_found() {
        let with = |of, more: Vec<(u8, ClientEvent)>| {
            let retracts = LoggedAction::Retracted { topic: channel(), of: Op(of) };
            let log = [(4, "ann", says("one")), (5, "ann", says("two")), (6, "ann", retracts)];
            let events = [follower(), more].concat();
            check(&History { log: Some(logged(&log)), ..history(events) })
        };
        let (one, two) = ((2, delivered(4, "one")), (2, delivered(5, "two")));
        let (gone, report) = (told(4, Notice::Retracted), told(6, Notice::Retracts(Op(4))));
        assert_eq!(with(4, vec![one.clone(), two.clone(), report.clone()]), Ok(()));
        assert_eq!(with(4, vec![gone.clone(), two.clone(), report.clone()]), Ok(()));
        let found = |of, more, why: &str| with(of, more).is_err_and(|found| found.contains(why));
        assert!(found(4, vec![one.clone(), two.clone()], "never told of the retraction of 4"));
        assert!(found(4, vec![gone, report.clone()], "never got op 5"));
        assert!(found(5, vec![one.clone(), two.clone(), report.clone()], "where the log has"));
        assert!(found(4, vec![one, report.clone(), two, report], "after its cursor"));
        assert!(found(3, vec![], "was let retract"), "that is no text");
    }

    #[test]
    fn a_deletion_that_a_follower_is_not_told_of_is_found_and_what_it_took_away_may_be_missing() {
        let deletes = LoggedAction::Changed(ops(), ChannelChange::Delete);
        let log = [(4, "ann", says("one")), (5, "ann", says("two")), (6, "ann", deletes)];
        let with = |more: Vec<(u8, ClientEvent)>| {
            let events = [follower(), more].concat();
            check(&History { log: Some(logged(&log)), ..history(events) })
        };
        assert_eq!(with(vec![told(6, Notice::ChannelDeleted)]), Ok(()));
        assert_eq!(with(vec![(2, delivered(4, "one")), told(6, Notice::ChannelDeleted)]), Ok(()));
        assert!(with(vec![]).unwrap_err().contains("never told of the deletion"));
    }

    #[test]
    fn only_what_was_removed_with_its_topic_after_it_was_sent_may_be_missing() {
        let (profile, channel_gone) = (LoggedAction::ProfileGone, LoggedAction::ChannelGone(ops()));
        for (topic, of, gone) in [
            (Topic::Inbox(name("bob")), "bob", profile.clone()),
            (Topic::Feed(name("ann")), "ann", profile.clone()),
            (channel(), "ops", channel_gone),
        ] {
            let lost = |more: &[(u64, &str, LoggedAction)]| {
                nothing_of(&topic, more).is_err_and(|why| why.contains("never got op 6"))
            };
            assert!(lost(&[]), "{topic}");
            assert_eq!(nothing_of(&topic, &[(7, of, gone.clone())]), Ok(()), "{topic}");
            // A removal before it, or of another topic, takes nothing of it away.
            let followed_again = |topic: &Topic| (5, "bob", LoggedAction::Followed(topic.clone()));
            assert!(lost(&[(4, of, gone), followed_again(&topic)]), "{topic}");
            assert!(lost(&[(7, "cleo", profile.clone())]), "{topic}");
        }
        assert!(nothing_of(&Topic::Inbox(name("bob")), &[(7, "ann", profile)]).is_err());
    }

    /// Client 3 works on a copy of the files of client 1, ann's. Bob follows ops and gets what the log has
    /// there: (op, the client that did it, text). The events of 1 and 3 come first.
    fn of_copies(log: &[(u64, u8, &str)], events: Vec<(u8, ClientEvent)>) -> Result<(), String> {
        let follows = LoggedAction::Followed(channel());
        let mut actions = vec![LogAction { op: Op(3), by: Some(name("bob")), client: None, deed: follows }];
        actions.extend(log.iter().map(|(op, client, text)| LogAction {
            op: Op(*op),
            by: Some(name("ann")),
            client: Some(ClientId(*client)),
            deed: says(text),
        }));
        let got = log.iter().map(|(op, _, text)| (2, delivered(*op, text)));
        let begin = [(2, ClientEvent::Connected { cursor: Op(1) })];
        let mut history = history(begin.into_iter().chain(events).chain(got).collect());
        history.clients.insert(ClientId(3), Facts { profile: name("ann"), receives: false });
        history.log = Some(actions);
        check(&history)?;
        in_the_log(&history)
    }

    fn gave_up(client: u8, ask: u32) -> (u8, ClientEvent) {
        (client, ClientEvent::GaveUp { requests: vec![(ClientId(1), AskId(ask))] })
    }

    /// Client 3 hears of a request of client 1.
    fn copy_hears(ask: u32, result: Result<u64, Code>) -> (u8, ClientEvent) {
        (3, ClientEvent::AnsweredAgain { of: ClientId(1), ask: AskId(ask), result: result.map(Op) })
    }

    #[test]
    fn what_a_copy_does_after_the_other_gave_it_up_and_did_a_later_one_may_come_late() {
        let (one, two) = ((1, sent(1, "one")), (1, sent(2, "two")));
        let ends = [(1, acked(2, 4)), copy_hears(1, Ok(5))];
        let put_back = || [[one.clone(), gave_up(1, 1), two.clone()].as_slice(), &ends].concat();
        assert_eq!(of_copies(&[(4, 1, "two"), (5, 3, "one")], put_back()), Ok(()));
        let forgotten = [[one.clone(), two.clone(), gave_up(1, 1)].as_slice(), &ends].concat();
        assert_eq!(of_copies(&[(4, 1, "two"), (5, 3, "one")], forgotten), Ok(()));

        let late = |log: &[(u64, u8, &str)], events| {
            of_copies(log, events).is_err_and(|why| why.contains("after a later one of the same author"))
        };
        assert!(late(&[(4, 1, "two"), (5, 1, "one")], put_back()), "one copy did both");
        assert!(late(&[(4, 3, "two"), (5, 3, "one")], put_back()), "the other copy did both");
        assert!(late(&[(4, 3, "two"), (5, 1, "one")], put_back()), "the other copy gave up nothing");
        let kept = [[one.clone(), two.clone()].as_slice(), &ends].concat();
        assert!(late(&[(4, 1, "two"), (5, 3, "one")], kept), "nobody gave up anything");
        let too_late = [[one, two].as_slice(), &ends, &[gave_up(1, 1)]].concat();
        assert!(
            late(&[(4, 1, "two"), (5, 3, "one")], too_late),
            "it was given up after the later one was done"
        );
    }

    #[test]
    fn acknowledgements_of_two_copies_out_of_the_order_of_asking_are_found_unless_one_gave_the_earlier_up() {
        let asked = [(1, sent(1, "one")), (1, sent(2, "two"))];
        let heard = [copy_hears(2, Ok(4)), (1, acked(2, 4)), (1, acked(1, 5))];
        let log = [(4, 3, "two"), (5, 1, "one")];
        assert_eq!(of_copies(&log, [&asked[..], &[gave_up(3, 1)], &heard].concat()), Ok(()));
        let found = of_copies(&log, [&asked[..], &heard].concat());
        assert!(found.unwrap_err().contains("the earlier 1 has 5"));
    }

    #[test]
    fn what_was_asked_on_a_copy_and_comes_before_what_was_in_the_files_is_found() {
        let told = |kept, own| {
            let asked = [(1, sent(1, "kept")), gave_up(1, 1), (3, sent(1, "own"))];
            [&asked[..], &[copy_hears(1, Ok(kept)), (3, acked(1, own))]].concat()
        };
        assert_eq!(of_copies(&[(4, 3, "kept"), (5, 3, "own")], told(4, 5)), Ok(()));
        let found = of_copies(&[(4, 3, "own"), (5, 3, "kept")], told(5, 4));
        assert!(found.unwrap_err().contains("after a later one of the same copy"));
    }

    #[test]
    fn what_is_told_to_a_copy_must_be_in_the_log_and_come() {
        let told = |op| vec![(1, sent(1, "one")), gave_up(1, 1), copy_hears(1, Ok(op))];
        assert_eq!(of_copies(&[(4, 3, "one")], told(4)), Ok(()));
        assert!(of_copies(&[], told(4)).unwrap_err().contains("never got op 4"));
        assert!(of_copies(&[(5, 3, "one")], told(4)).is_err());
    }

    #[test]
    fn a_request_that_two_copies_did_is_found_unless_the_first_gave_up_one_before_it_that_the_other_kept() {
        let refused = |ask| (1, ClientEvent::Refused { ask: AskId(ask), code: Code::NotAllowed });
        let asked = [(1, sent(1, "zero")), (1, sent(2, "one")), (1, sent(3, "two"))];
        let first = [gave_up(3, 1), copy_hears(2, Ok(4))];
        let then = [refused(1), (1, acked(2, 6)), (1, acked(3, 7))];
        let told = [&asked[..], &first, &then].concat();
        let by = |one, other| [(4, one, "one"), (6, other, "one"), (7, 1, "two")];
        assert_eq!(of_copies(&by(3, 1), told.clone()), Ok(()));
        let refused_to_one = [&asked[..], &first, &[refused(1), refused(2), (1, acked(3, 7))]].concat();
        assert_eq!(of_copies(&[(4, 3, "one"), (7, 1, "two")], refused_to_one.clone()), Ok(()));

        let found = |log: &[(u64, u8, &str)], events: &[(u8, ClientEvent)], why: &str| {
            of_copies(log, events.to_vec()).is_err_and(|found| found.contains(why))
        };
        let two_twice = |one, two| {
            let first = [gave_up(3, 1), copy_hears(2, Ok(one)), copy_hears(3, Ok(two))];
            [&asked[..], &first, &then].concat()
        };
        let (mut log, end) = (vec![(4, 3, "one"), (5, 3, "two")], [(6, 1, "one"), (7, 1, "two")]);
        assert_eq!(of_copies(&[&log[..], &end].concat(), two_twice(4, 5)), Ok(()));
        (log[0].2, log[1].2) = ("two", "one");
        let crossed = [&log[..], &end].concat();
        assert!(found(&crossed, &two_twice(5, 4), "later one of the same author"), "not in the copy's order");

        let otherwise = |first: &[(u8, ClientEvent)], then: &[(u8, ClientEvent)]| {
            found(&by(3, 1), &[&asked[..], first, then].concat(), "answered otherwise")
        };
        let hears = first[1].clone();
        assert!(otherwise(&first[1..], &then), "nothing was given up");
        assert!(otherwise(&[gave_up(3, 3), hears.clone()], &then), "one behind it was given up");
        assert!(otherwise(&[hears.clone(), gave_up(3, 1)], &then), "the other was given up later");
        assert!(otherwise(&[refused(1), gave_up(3, 1), hears.clone()], &then[1..]), "both had it no longer");
        assert!(otherwise(&[gave_up(1, 1), hears], &then[1..]), "the second copy gave it up");
        assert!(found(&by(1, 1), &told, "answered otherwise"), "one copy did it twice");
        assert!(found(&by(1, 3), &told, "answered otherwise"), "each hears what the other did");
        assert!(found(&[(4, 1, "one"), (7, 1, "two")], &refused_to_one, "answered otherwise"));
        assert!(found(&[&by(3, 1)[..], &[(8, 3, "one")]].concat(), &told, "twice"), "one did it again");
    }

    #[test]
    fn a_device_that_came_in_anew_and_gets_what_was_before_is_found() {
        let anew = vec![
            (2, delivered(4, "one")),
            (2, ClientEvent::Disowned { asks: vec![] }),
            (2, ClientEvent::Connected { cursor: Op(5) }),
            (2, delivered(5, "two")),
        ];
        assert!(verdict(anew).unwrap_err().contains("after its cursor"));
    }

    #[test]
    fn what_a_gap_covers_may_be_missing() {
        let gap = ClientEvent::Gap { after: Op(1), upto: Op(4) };
        let mut events = follower();
        events.extend([(2, gap), (2, delivered(5, "two"))]);
        let mut history = history(events);
        assert!(check(&history).unwrap_err().contains("told of a gap"), "retention dropped nothing");
        history.trimmed.insert(channel(), Op(4));
        assert_eq!(check(&history), Ok(()));
        // Notifications dropped before the follow cause no gap.
        history.trimmed.insert(channel(), Op(3));
        assert!(check(&history).unwrap_err().contains("told of a gap"));
    }

    #[test]
    fn a_gap_over_what_retention_kept_is_a_loss() {
        let mut events = follower();
        events.push((2, ClientEvent::Gap { after: Op(1), upto: Op(5) }));
        let mut history = history(events);
        history.trimmed.insert(channel(), Op(4));
        assert!(check(&history).unwrap_err().contains("gap from 1 to 5"));
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        let asked = |query| ClientEvent::Asked { query: QueryId(query), topic: channel() };
        let read = |query, newest| {
            let newest = Some(Op(newest));
            ClientEvent::Read { query: QueryId(query), newest, trimmed_upto: Op::ZERO, applied: Op(9) }
        };
        let seen = vec![(2, delivered(4, "one")), (2, delivered(5, "two"))];
        let with = |more: Vec<(u8, ClientEvent)>| verdict([seen.clone(), more].concat());
        assert_eq!(with(vec![(1, asked(1)), (1, read(1, 5)), (1, asked(2)), (1, read(2, 5))]), Ok(()));
        assert!(
            with(vec![(1, asked(1)), (1, read(1, 4))]).unwrap_err().contains("knew of 5"),
            "its own write"
        );
        let back = vec![(2, asked(1)), (2, read(1, 5)), (2, asked(2)), (2, read(2, 4))];
        assert!(with(back).unwrap_err().contains("knew of 5"), "what it read before");
        // The answers to two concurrent queries are not ordered.
        let crossed = vec![(2, asked(1)), (2, asked(2)), (2, read(1, 5)), (2, read(2, 4))];
        assert_eq!(with(crossed), Ok(()));
    }

    #[test]
    fn two_answers_to_one_request_one_to_none_and_none_at_all_are_found() {
        let seen = || vec![(2, delivered(4, "one")), (2, delivered(5, "two"))];
        let with = |more: Vec<(u8, ClientEvent)>| verdict([seen(), more].concat());
        let refused = |ask| ClientEvent::Refused { ask: AskId(ask), code: Code::NotAllowed };
        assert!(with(vec![(1, acked(1, 4))]).unwrap_err().contains("two answers"));
        assert!(with(vec![(1, sent(3, "three")), (1, acked(3, 5))]).unwrap_err().contains("two requests"));
        assert!(with(vec![(1, acked(1, 6))]).unwrap_err().contains("two answers"));
        assert!(with(vec![(1, refused(1))]).unwrap_err().contains("two answers"));
        assert!(with(vec![(1, acked(9, 9))]).unwrap_err().contains("never made"));
        let open = [follower(), vec![(1, sent(3, "three"))]].concat();
        assert!(all_answered(&history(open)).unwrap_err().contains("request 3"));
        assert_eq!(all_answered(&history(follower())), Ok(()));
    }

    #[test]
    fn acknowledgements_out_of_the_order_of_asking_are_found() {
        let late = vec![(1, sent(3, "three")), (1, sent(4, "four")), (1, acked(3, 8)), (1, acked(4, 7))];
        assert!(verdict(late).unwrap_err().contains("the earlier 3 has 8"));
    }

    #[test]
    fn what_nobody_sent_or_otherwise_or_what_was_refused_is_found() {
        assert!(verdict(vec![(2, delivered(4, "none"))]).unwrap_err().contains("nobody sent"));
        let other = |author: &str, topic| ClientEvent::Delivered {
            op: Op(4),
            author: name(author),
            topic,
            text: "one".to_owned(),
        };
        assert!(verdict(vec![(2, other("bob", channel()))]).unwrap_err().contains("as of bob"));
        let inbox = Topic::Inbox(name("bob"));
        assert!(verdict(vec![(2, other("ann", inbox))]).unwrap_err().contains("sent by client 1"));
        let refused = ClientEvent::Refused { ask: AskId(3), code: Code::NotAllowed };
        let events = vec![(1, sent(3, "three")), (1, refused), (2, delivered(6, "three"))];
        assert!(verdict(events).unwrap_err().contains("which was refused"));
    }

    #[test]
    fn what_an_author_sent_later_and_comes_first_is_found() {
        let crossed = vec![
            (1, sent(3, "three")),
            (1, sent(4, "four")),
            (2, delivered(4, "one")),
            (2, delivered(5, "two")),
            (2, delivered(6, "four")),
            (2, delivered(7, "three")),
        ];
        assert!(verdict(crossed).unwrap_err().contains("after a later one of the same author"));
    }

    #[test]
    fn an_answer_to_a_query_that_was_never_sent_is_found() {
        let read =
            ClientEvent::Read { query: QueryId(1), newest: None, trimmed_upto: Op::ZERO, applied: Op(9) };
        assert!(verdict(vec![(2, read)]).unwrap_err().contains("never sent"));
    }

    #[test]
    fn a_device_that_was_forgotten_begins_anew() {
        let disowned = ClientEvent::Disowned { asks: vec![] };
        let again = ClientEvent::Connected { cursor: Op(5) };
        assert_eq!(verdict(vec![(2, disowned), (2, again)]), Ok(()));
    }

    #[test]
    fn what_was_unfollowed_later_may_come_or_not_but_nothing_after_it() {
        let unfollow =
            |op| vec![(2, ClientEvent::Unfollowed { ask: AskId(2), topic: channel() }), (2, acked(2, op))];
        assert_eq!(verdict(unfollow(6)), Ok(()));
        let mut early =
            vec![(2, ClientEvent::Unfollowed { ask: AskId(2), topic: channel() }), (2, acked(2, 6))];
        early.extend([(1, sent(3, "three")), (1, acked(3, 7)), (2, delivered(7, "three"))]);
        assert!(verdict(early).unwrap_err().contains("did not follow"));
    }
}
