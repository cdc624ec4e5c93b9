//! Reads the one log with a service that has no other input, and records each action with its author.

use std::collections::{BTreeMap, BTreeSet};

use recado::config::{Limits, PlantedBug};
use recado_proto::codec;
use recado_proto::command::{Claim, Command, Request, Stamped};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{Name, Op, SessionId, StoreKey, Topic};
use recado_proto::packet::{Admin, AdminChange, ChannelChange, Condition, FollowChange, QueryId};
use recado_service::{Applied, Service, State};

use crate::client::Taken;
use crate::coverage::Situation;
use crate::history::{self, ClientId, LogAction, LoggedAction, StoreDeed};
use crate::name_ownership::NameOwnership;

/// The state of reading.
pub struct Replay {
    service: Service,
    claims: NameOwnership,
    /// The queries of administrators whose changes were applied.
    administered: BTreeSet<QueryId>,
    /// The profiles that ever acted.
    people: Vec<Name>,
    /// The texts, with their topics.
    texts: BTreeMap<Op, (Topic, String)>,
    /// The first violation found.
    broken: Option<String>,
    /// The situations met since the caller last drained them.
    pub met: Vec<Situation>,
}

impl Replay {
    /// A replay that has read nothing.
    pub fn new(limits: Limits, planted: PlantedBug) -> Replay {
        let service = Service::new(State::default(), limits, planted);
        Replay {
            service,
            claims: NameOwnership::new(limits.unused),
            administered: BTreeSet::new(),
            people: Vec::new(),
            texts: BTreeMap::new(),
            broken: None,
            met: Vec::new(),
        }
    }

    /// Reads to the end of the entries that any server has applied. Records the actions, each with the client
    /// of its session, and, for topics that are removed, the op up to which retention had dropped their
    /// notifications.
    ///
    /// # Errors
    /// The log has a hole, or gives a name to a profile that may not own it.
    pub fn read(
        &mut self,
        ledger: &BTreeMap<Op, Entry>,
        sessions: &BTreeMap<SessionId, ClientId>,
        history: &mut history::History,
    ) -> Result<(), String> {
        for (op, entry) in ledger.range(self.service.applied().next()..) {
            if *op != self.service.applied().next() {
                return Err(format!("nobody was seen to apply what is before op {op}"));
            }
            let stamped = match entry.kind {
                EntryKind::Command => codec::decode::<Stamped>(&entry.payload).ok(),
                EntryKind::ViewStart | EntryKind::Members | EntryKind::Unknown(_) => None,
            };
            self.apply(*op, stamped.as_ref(), sessions, history);
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn apply(
        &mut self,
        op: Op,
        stamped: Option<&Stamped>,
        sessions: &BTreeMap<SessionId, ClientId>,
        history: &mut history::History,
    ) {
        let command = stamped.map(|stamped| &stamped.command);
        let (by, client) = match command {
            Some(Command::Request { session, .. }) => {
                (self.service.session(*session).map(|view| view.profile), sessions.get(session).copied())
            }
            _ => (None, None),
        };
        command.map(ends).into_iter().flatten().for_each(|topic| self.note_trimmed(topic, history));
        let mut out = Vec::new();
        self.service.apply(op, stamped, &mut out);
        if let Some(stamped) = stamped
            && let Err(why) = self.hold_claims(stamped, by.as_ref(), &out)
        {
            self.broken.get_or_insert(format!("op {op}: {why}"));
        }
        for applied in out {
            if let (Applied::Answered { result, .. }, Some(Command::Request { request, .. })) =
                (&applied, command)
                && let Some((key, condition, value)) = written(request)
            {
                let result = result.map(|_| ());
                history.values.push((op, StoreDeed::Wrote { key, condition, value, result }));
            }
            let (by, deed) = match (applied, command) {
                (Applied::Notified { notification, .. }, _) => {
                    let Some(notification) = notification.notification() else { continue };
                    if notification.notice().is_some() {
                        continue;
                    }
                    let text = notification.content.body.to_string();
                    self.texts.insert(op, (notification.topic.clone(), text.clone()));
                    let deed = LoggedAction::Sent { topic: notification.topic.clone(), text };
                    (Some(notification.author.clone()), deed)
                }
                (Applied::Retracted { topic, op: of }, _) => {
                    self.met.push(Situation::Retracted);
                    self.hold_gone(op, |at, _| at == of);
                    (by.clone(), LoggedAction::Retracted { topic, of })
                }
                (Applied::Answered { result: Ok(_), .. }, Some(Command::Request { request, .. })) => {
                    let Some(deed) = deed_of(request) else { continue };
                    if let LoggedAction::Changed(channel, ChannelChange::Delete) = &deed {
                        let topic = Topic::Channel(channel.clone());
                        self.hold_gone(op, |_, in_topic| *in_topic == topic);
                    }
                    (by.clone(), deed)
                }
                (Applied::Administered { change, result: Ok(_), .. }, _) => {
                    let Some(removed) = removed(change) else { continue };
                    removed
                }
                // Only an expiry that took effect emits `Withdrawn`.
                (Applied::Withdrawn { .. }, Some(Command::Expire(claim))) => match claim {
                    Claim::Profile { name, .. } => (Some(name.clone()), LoggedAction::ProfileGone),
                    Claim::Channel { name } => (None, LoggedAction::ChannelGone(name.clone())),
                    Claim::Deleted { name } => {
                        self.met.push(Situation::DeletedNameFree);
                        (None, LoggedAction::ChannelGone(name.clone()))
                    }
                },
                _ => continue,
            };
            if let Some(by) = &by
                && !self.people.contains(by)
            {
                self.people.push(by.clone());
            }
            history.values.extend(gone(by.as_ref(), &deed).map(|topic| (op, StoreDeed::Gone(topic))));
            history.log.get_or_insert_default().push(LogAction { op, by, client, deed });
        }
    }

    /// Checks that the state, and so any later page and snapshot, has none of these texts.
    fn hold_gone(&mut self, op: Op, gone: impl Fn(Op, &Topic) -> bool) {
        let bytes = codec::encode(&self.service.state());
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let left = self.texts.iter().find(|(at, (topic, text))| gone(**at, topic) && has(text));
        if let Some((at, (topic, _))) = left {
            let why = format!("op {op} took the text of {at} in {topic} away, and the state has it");
            self.broken.get_or_insert(why);
        }
    }

    /// The texts that an acknowledged action has taken away from the state.
    pub fn gone(&self, taken: &Taken) -> Vec<String> {
        let taken = |(at, (topic, _)): &(&Op, &(Topic, String))| match taken {
            Taken::Text(of) => *at == of,
            Taken::Channel(channel, by) => *topic == Topic::Channel(channel.clone()) && *at < by,
        };
        self.texts.iter().filter(taken).map(|(_, (_, text))| text.clone()).collect()
    }

    /// Checks the changes of names against the model of their ownership.
    fn hold_claims(&mut self, stamped: &Stamped, by: Option<&Name>, out: &[Applied]) -> Result<(), String> {
        let claims = &mut self.claims;
        claims.at(stamped.unix_ms);
        for applied in out {
            match (applied, &stamped.command) {
                (Applied::SessionOpened { .. }, Command::SessionOpen(asked)) => {
                    self.met.extend(claims.asked(asked, None)?);
                }
                (Applied::SessionRefused { code, .. }, Command::SessionOpen(asked)) => {
                    self.met.extend(claims.asked(asked, Some(*code))?);
                }
                (Applied::SessionConfirmed { session }, _) => {
                    if let Some(view) = self.service.session(*session) {
                        claims.entered(&view.profile);
                    }
                }
                (Applied::Answered { result, .. }, Command::Request { request, .. }) => {
                    by.into_iter().for_each(|name| claims.seen(name));
                    if result.is_ok() {
                        by.into_iter().chain(is_of_use(request)).for_each(|name| claims.used(name));
                    }
                }
                (Applied::Administered { query, change, result: Ok(_) }, _) => {
                    if !self.administered.insert(*query) {
                        return Err(format!(
                            "an administrator asked once, and it was done twice: {change:?}"
                        ));
                    }
                    self.met.extend(claims.administered(change));
                }
                (Applied::Withdrawn { .. }, Command::Expire(Claim::Profile { name, .. })) => {
                    self.met.push(claims.expired(name)?);
                }
                _ => {}
            }
        }
        if let Command::Cursors(cursors) = &stamped.command {
            let views = cursors.iter().filter_map(|(session, _)| self.service.session(*session));
            views.for_each(|view| claims.seen(&view.profile));
        }
        let name = match &stamped.command {
            Command::SessionOpen(asked) => &asked.profile,
            Command::Administer(Admin {
                change: AdminChange::Release { name } | AdminChange::RemoveProfile { name },
                ..
            })
            | Command::Expire(Claim::Profile { name, .. }) => name,
            _ => return Ok(()),
        };
        if self.service.is_unclaimed(name) == claims.is_free(name) {
            return Ok(());
        }
        Err(format!("{name} is somebody's, or is not, against what was done: {:?}", stamped.command))
    }

    /// Records the op up to which retention dropped a topic's notifications, before the topic is removed.
    fn note_trimmed(&self, topic: Topic, history: &mut history::History) {
        let trimmed_upto = self.service.trimmed_upto(&topic);
        let known = history.trimmed.entry(topic).or_default();
        *known = trimmed_upto.max(*known);
    }
}

/// Returns the topics that a command may remove.
fn ends(command: &Command) -> Vec<Topic> {
    let profile = |name: &Name| vec![Topic::Feed(name.clone()), Topic::Inbox(name.clone())];
    match command {
        Command::Request { request: Request::Channel { channel, change: ChannelChange::Delete }, .. }
        | Command::Administer(Admin { change: AdminChange::RemoveChannel { channel }, .. })
        | Command::Expire(Claim::Channel { name: channel } | Claim::Deleted { name: channel }) => {
            vec![Topic::Channel(channel.clone())]
        }
        Command::Administer(Admin { change: AdminChange::RemoveProfile { name }, .. })
        | Command::Expire(Claim::Profile { name, .. }) => profile(name),
        _ => Vec::new(),
    }
}

/// Returns the profile that a request makes count as used, beside the one that asks.
fn is_of_use(request: &Request) -> Option<&Name> {
    match request {
        Request::Follow { topic: Topic::Feed(name), change: FollowChange::Add }
        | Request::Send { topic: Topic::Inbox(name), .. }
        | Request::Channel { change: ChannelChange::Add { member: name, .. }, .. } => Some(name),
        _ => None,
    }
}

/// Returns the action of a request. A send is recorded from the applied notification instead.
fn deed_of(request: &Request) -> Option<LoggedAction> {
    match request {
        Request::Follow { topic, change: FollowChange::Add } => Some(LoggedAction::Followed(topic.clone())),
        Request::Follow { topic, change: FollowChange::Remove } => {
            Some(LoggedAction::Unfollowed(topic.clone()))
        }
        Request::Channel { channel, change } => Some(LoggedAction::Changed(channel.clone(), change.clone())),
        Request::Send { .. }
        | Request::Keys { .. }
        | Request::Unsupported
        | Request::Retract { .. }
        | Request::Display { .. }
        | Request::Put { .. }
        | Request::Delete { .. } => None,
    }
}

/// Returns what a request writes: the key, the condition, and the value, which a deletion has not.
fn written(request: &Request) -> Option<(StoreKey, Condition, Option<String>)> {
    match request {
        Request::Put { key, value, condition } => Some((key.clone(), *condition, Some(value.to_string()))),
        Request::Delete { key, at } => {
            Some((key.clone(), at.map_or(Condition::Present, Condition::At), None))
        }
        _ => None,
    }
}

/// Returns the topic whose keys go with an action.
fn gone(by: Option<&Name>, deed: &LoggedAction) -> Option<Topic> {
    match deed {
        LoggedAction::ChannelGone(channel) | LoggedAction::Changed(channel, ChannelChange::Delete) => {
            Some(Topic::Channel(channel.clone()))
        }
        LoggedAction::ProfileGone => by.cloned().map(Topic::Feed),
        _ => None,
    }
}

fn removed(change: AdminChange) -> Option<(Option<Name>, LoggedAction)> {
    match change {
        AdminChange::RemoveProfile { name } => Some((Some(name), LoggedAction::ProfileGone)),
        AdminChange::RemoveChannel { channel } => Some((None, LoggedAction::ChannelGone(channel))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::View;

    use super::*;

    #[test]
    fn a_hole_in_the_log_that_was_seen_is_found() {
        let entry = |op| Entry {
            op: Op(op),
            view: View(1 << 16 | 1),
            kind: EntryKind::ViewStart,
            payload: [].into(),
        };
        let mut replay = Replay::new(Limits::default(), PlantedBug::default());
        let mut read = |ops: &[u64]| {
            let ledger = ops.iter().map(|op| (Op(*op), entry(*op))).collect();
            replay.read(&ledger, &BTreeMap::new(), &mut history::History::default())
        };
        assert_eq!(read(&[1]), Ok(()));
        assert_eq!(read(&[1, 2]), Ok(()), "it reads on");
        assert!(read(&[1, 2, 4]).unwrap_err().contains("before op 4"));
    }
}
