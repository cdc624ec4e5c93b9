//! Random logs, checked against a naive model that walks everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use recado_proto::codec;
use recado_proto::command::{Claim, Command, Request, SessionOpen};
use recado_proto::id::{Admission, ChannelName, DeviceKey, StoreKey, Topic};
use recado_proto::packet::{
    Admin, AdminChange, ChannelChange, CodeHash, Condition, FollowChange, KeyChange, Notice, OptionalFields,
    Role,
};

use super::tests::{Log, channel, channel_name, content, device, feed, inbox, name, ops};
use super::*;
use crate::limits::Retention;

const PROFILES: u8 = 4;
const SLOTS: u8 = 3;
const CODE: CodeHash = CodeHash([1; 32]);
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// No notification of these runs weighs more.
const NOTIFICATION: u64 = capacity::HEADER + 100;

/// One step of a run. Sessions and ops are chosen among those that exist when the step is taken.
#[derive(Clone, Debug)]
enum Step {
    Open {
        profile: u8,
        slot: u8,
        receives: bool,
        nonce: u64,
        fresh: bool,
        stranger: bool,
        invited: bool,
    },
    Keys {
        which: usize,
        change: KeyChange,
    },
    Administer {
        query: u64,
        change: AdminChange,
    },
    /// The clock advances by `days`, and the primary does its housekeeping.
    Days {
        days: u64,
    },
    Confirm {
        which: usize,
    },
    Close {
        which: usize,
    },
    Follow {
        which: usize,
        topic: u8,
        change: FollowChange,
    },
    Send {
        which: usize,
        topic: u8,
        repeat: bool,
    },
    /// Retracts one of the notifications sent so far.
    Retract {
        which: usize,
        sent: usize,
    },
    Channel {
        which: usize,
        channel: u8,
        change: ChannelChange,
    },
    /// Writes or deletes a key. The timestamp of a condition is that of the key now, or one that is not.
    Put {
        which: usize,
        key: u8,
        length: usize,
        condition: Condition,
    },
    Delete {
        which: usize,
        key: u8,
        at: Option<Op>,
    },
    Cursor {
        which: usize,
        upto: u64,
    },
    Trim {
        topic: u8,
        upto: u64,
    },
    Tidy,
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    let change = prop_oneof![3 => Just(FollowChange::Add), 1 => Just(FollowChange::Remove)];
    prop_oneof![
        4 => opening(),
        2 => (which, change_of_keys()).prop_map(|(which, change)| Step::Keys { which, change }),
        // Sometimes the same ADMIN again, or another change under the same id.
        2 => (0..12u64, change_of_admin()).prop_map(|(query, change)| Step::Administer { query, change }),
        1 => (1..9u64).prop_map(|days| Step::Days { days }),
        4 => which.prop_map(|which| Step::Confirm { which }),
        1 => which.prop_map(|which| Step::Close { which }),
        5 => (which, 0..12u8, change).prop_map(|(which, topic, change)| Step::Follow { which, topic, change }),
        9 => (which, 0..12u8, prop::bool::weighted(0.1))
            .prop_map(|(which, topic, repeat)| Step::Send { which, topic, repeat }),
        4 => (which, any::<usize>()).prop_map(|(which, sent)| Step::Retract { which, sent }),
        5 => (which, 0..PROFILES, change_of_channel())
            .prop_map(|(which, channel, change)| Step::Channel { which, channel, change }),
        6 => (which, 0..8u8, 0..120usize, condition()).prop_map(|(which, key, length, condition)| {
            Step::Put { which, key, length, condition }
        }),
        2 => (which, 0..8u8, prop::option::of(Just(NOW)))
            .prop_map(|(which, key, at)| Step::Delete { which, key, at }),
        1 => (which, 0..200u64).prop_map(|(which, upto)| Step::Cursor { which, upto }),
        2 => (0..12u8, 0..200u64).prop_map(|(topic, upto)| Step::Trim { topic, upto }),
        1 => Just(Step::Tidy),
    ]
}

/// Stands for the timestamp that a key has when the step is taken.
const NOW: Op = Op(u64::MAX);

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        3 => Just(Condition::Always),
        2 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        2 => Just(Condition::At(NOW)),
        1 => (1..60u64).prop_map(|op| Condition::At(Op(op))),
    ]
}

/// The key of each number: two of anyone's, and two of profiles and channels each.
fn key(which: u8) -> StoreKey {
    let text = match which {
        0 | 1 => format!("k{which}"),
        2 | 3 => format!("@{}/k", profile(which - 2)),
        4 | 5 => format!("#{}/k", shared(0)),
        _ => format!("#{}/{which}", shared(which - 4)),
    };
    text.parse().unwrap()
}

fn opening() -> impl Strategy<Value = Step> {
    let (fresh, stranger, invited) =
        (prop::bool::weighted(0.8), prop::bool::weighted(0.15), prop::bool::weighted(0.3));
    (0..PROFILES, 0..SLOTS, any::<bool>(), 0..3u64, fresh, stranger, invited).prop_map(
        |(profile, slot, receives, nonce, fresh, stranger, invited)| Step::Open {
            profile,
            slot,
            receives,
            nonce,
            fresh,
            stranger,
            invited,
        },
    )
}

fn change_of_keys() -> impl Strategy<Value = KeyChange> {
    prop_oneof![
        Just(KeyChange::Enrol { code: CODE }),
        (0..=PROFILES).prop_map(|key| KeyChange::Revoke { key: DeviceKey([key; 32]) }),
    ]
}

fn change_of_channel() -> impl Strategy<Value = ChannelChange> {
    let role = prop_oneof![Just(Role::Reader), Just(Role::Writer), Just(Role::Owner)];
    let member = || (0..PROFILES).prop_map(|which| name(&profile(which)));
    prop_oneof![
        3 => any::<bool>().prop_map(|private| ChannelChange::Create { private }),
        4 => (member(), role).prop_map(|(member, role)| ChannelChange::Add { member, role }),
        2 => member().prop_map(|member| ChannelChange::Remove { member }),
        1 => Just(ChannelChange::Delete),
    ]
}

fn change_of_admin() -> impl Strategy<Value = AdminChange> {
    let who = || (0..PROFILES).prop_map(|which| name(&profile(which)));
    prop_oneof![
        1 => who().prop_map(|name| AdminChange::Release { name }),
        1 => who().prop_map(|name| AdminChange::RemoveProfile { name }),
        1 => (0..PROFILES).prop_map(|which| {
            AdminChange::RemoveChannel { channel: channel_name(&shared(which)) }
        }),
        3 => (1..3u32, prop::option::weighted(0.3, who())).prop_map(|(uses, name)| {
            AdminChange::Invite { code: CODE, uses, lasts_ms: DAY_MS, name }
        }),
        1 => (0..PROFILES).prop_map(|key| AdminChange::Allow { key: DeviceKey([key; 32]) }),
        1 => (0..PROFILES).prop_map(|key| AdminChange::Disallow { key: DeviceKey([key; 32]) }),
    ]
}

fn profile(which: u8) -> String {
    format!("p{which}")
}

/// The name of a channel: two that differ by case, a profile's, and the longest.
fn shared(which: u8) -> String {
    match which {
        0 => "_Ops".to_owned(),
        1 => "_oPS".to_owned(),
        2 => profile(which),
        _ => format!("{which:Z>128}"),
    }
}

fn topic(which: u8) -> Topic {
    match which / PROFILES {
        0 => feed(&profile(which % PROFILES)),
        1 => channel(&shared(which % PROFILES)),
        _ => inbox(&profile(which % PROFILES)),
    }
}

/// The model: what the answers and the log say, in flat collections.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<(Op, Topic)>,
    /// The author and the text of each notification; none: it is a notice of something else.
    texts: BTreeMap<Op, (Name, Option<String>)>,
    retracted: BTreeSet<Op>,
    dropped: BTreeSet<Op>,
    follows: BTreeMap<(Name, Topic), Op>,
    pending: BTreeMap<SessionId, (DeviceId, Name, bool)>,
    live: BTreeMap<SessionId, (Name, bool)>,
    devices: BTreeMap<DeviceId, SessionId>,
    /// For each request number, the digest of the request that had it and its result.
    answered: BTreeMap<(DeviceId, Seq), (u64, Result<Op, Code>)>,
    /// The open invitation: its remaining uses, the only name it is valid for, and its expiry.
    invite: Option<(u32, Option<Name>, u64)>,
    /// The value, the timestamp and the author of each key.
    values: BTreeMap<StoreKey, (String, Op, Name)>,
    /// The channels that were created: true if private, and the members.
    owned: BTreeMap<ChannelName, (bool, BTreeSet<Name>)>,
}

impl Model {
    fn note(&mut self, service: &Service, command: &Command, out: &[Applied]) {
        for applied in out {
            match (applied, command) {
                (Applied::SessionOpened { session, device, .. }, Command::SessionOpen(open)) => {
                    let who = &open.profile;
                    if !self.live.contains_key(session) {
                        let opened = (*device, who.clone(), open.receives);
                        self.pending.entry(*session).or_insert(opened);
                    }
                    let inbox = (who.clone(), Topic::Inbox(who.clone()));
                    self.follows.entry(inbox).or_insert(session.0);
                }
                (Applied::SessionConfirmed { session }, Command::SessionConfirm { .. }) => {
                    let (device, who, receives) = self.pending.remove(session).unwrap();
                    self.live.insert(*session, (who, receives));
                    let older = self.devices.insert(device, *session);
                    assert!(older.is_none(), "no two live sessions a device");
                }
                (Applied::SessionClosed { session, why }, command) => {
                    let confirming = matches!(command, Command::SessionConfirm { .. });
                    assert_eq!(*why == Code::Fenced, confirming, "only a newer session of the device fences");
                    let opening = matches!(command, Command::SessionOpen(_));
                    let live = self.live.remove(session).is_some();
                    assert!(live ^ self.pending.remove(session).is_some(), "it was open, and only once");
                    assert!(!(live && opening), "a pending session fences nothing");
                    self.devices.retain(|_, of| of != session);
                }
                (
                    Applied::Answered { session, result: Ok(op), .. },
                    Command::Request { request: Request::Follow { topic, change }, .. },
                ) => {
                    let follow = (self.live[session].0.clone(), topic.clone());
                    match change {
                        FollowChange::Add => self.follows.insert(follow, *op),
                        FollowChange::Remove => self.follows.remove(&follow),
                    };
                }
                (
                    Applied::Answered { session, result: Ok(_), .. },
                    Command::Request { request: Request::Channel { channel, change }, .. },
                ) => {
                    let asker = self.live[session].0.clone();
                    self.change(service.applied(), asker, channel, change);
                }
                (
                    Applied::Answered { session, result, .. },
                    Command::Request { request: Request::Retract { op, .. }, .. },
                ) => self.retract(service, &self.live[session].0.clone(), *op, *result),
                (
                    Applied::Answered { session, result, tells, .. },
                    Command::Request {
                        request: request @ (Request::Put { .. } | Request::Delete { .. }),
                        ..
                    },
                ) => {
                    let author = self.live[session].0.clone();
                    self.write(service, author, request, *result, *tells);
                }
                (Applied::Notified { topic, notification }, _) => {
                    let sessions = service.addressed(topic);
                    let whole = notification.notification().unwrap();
                    assert_eq!(whole.topic, *topic);
                    let text = whole.notice().is_none().then(|| whole.content.body.to_string());
                    self.texts.insert(whole.op, (whole.author.clone(), text));
                    let follows = |who: &Name| self.follows.contains_key(&(who.clone(), topic.clone()));
                    let addressed = self.live.iter().filter(|(_, (who, receives))| *receives && follows(who));
                    let addressed: Vec<SessionId> = addressed.map(|(session, _)| *session).collect();
                    assert_eq!(sessions[..], addressed, "to exactly those it is for, ascending");
                    if let Topic::Channel(channel) = topic
                        && let Some((true, members)) = self.owned.get(channel)
                    {
                        let inside = sessions.iter().all(|session| members.contains(&self.live[session].0));
                        assert!(inside, "what is private reaches members alone");
                    }
                    self.sent.push((notification.op(), topic.clone()));
                }
                _ => {}
            }
        }
        match command {
            Command::Administer(Admin { change: AdminChange::RemoveProfile { name }, .. })
            | Command::Expire(Claim::Profile { name, .. }) => self.remove_profile(name, out),
            Command::Administer(Admin { change: AdminChange::RemoveChannel { channel }, .. })
            | Command::Expire(Claim::Channel { name: channel } | Claim::Deleted { name: channel }) => {
                self.remove_channel(channel, out)
            }
            _ => {}
        }
        if let Command::Trim { topic, upto } = command {
            let trimmed = self.sent.iter().filter(|(op, of)| of == topic && op <= upto);
            self.dropped.extend(trimmed.map(|(op, _)| *op));
        }
    }

    /// Records what the service dropped to make room: only when it was full, and from a largest topic.
    fn note_dropped(&mut self, log: &Log, command: &Command) {
        let (service, limits) = (&log.service, &log.service.limits);
        assert!(service.weight() <= limits.state_bytes, "never beyond what a snapshot may have");
        assert!(service.records() <= limits.record_bytes);
        assert!(service.index.counted.values <= limits.store_bytes);
        assert!(service.index.stored.values().all(|of| *of <= limits.store_bytes_of_one));
        self.hold_values(&service.state);
        let state = service.state();
        let encoded = codec::encode(&state).len() as u64;
        assert!(encoded <= service.weight() + 1_024, "{encoded} bytes weigh {}", service.weight());
        let is_held = |(op, topic): &(Op, Topic)| {
            let retained = state.topics.get(topic).map(|topic_state| &topic_state.retained);
            retained.is_some_and(|retained| retained.iter().any(|one| one.op() == *op))
        };
        let gone: Vec<(Op, Topic)> = self
            .sent
            .iter()
            .filter(|sent| !self.dropped.contains(&sent.0) && !is_held(sent))
            .cloned()
            .collect();
        let most =
            |topic: &Topic| state.topics.get(topic).map_or(0, |topic_state| topic_state.retained.len());
        for (op, topic) in &gone {
            // The room that was asked for, if it was not used, and the last notification dropped for it.
            let made = NOTIFICATION
                + match command {
                    // The invitation that it uses up is gone after the room was made.
                    Command::SessionOpen(_) => {
                        capacity::PROFILE + capacity::KEY + service.device_weight() + capacity::INVITE
                    }
                    Command::Request { request: Request::Put { key, value, .. }, .. } => {
                        capacity::value_bound(key, value)
                    }
                    _ => capacity::CHANNEL + NOTIFICATION,
                };
            assert!(service.weight() + made > limits.state_bytes, "{op} was dropped for nothing");
            let largest =
                state.topics.iter().map(|(_, topic_state)| topic_state.retained.len()).max().unwrap_or(0);
            assert!(most(topic) + 2 >= largest, "{op} of {topic} was dropped, and another holds {largest}");
            self.dropped.insert(*op);
        }
    }

    /// Updates the model only if the service removed the profile.
    fn remove_profile(&mut self, name: &Name, out: &[Applied]) {
        if !out.iter().any(|applied| matches!(applied, Applied::Withdrawn { .. })) {
            return;
        }
        assert!(self.live.values().all(|(who, _)| who != name), "its sessions are over");
        let own = [Topic::Feed(name.clone()), Topic::Inbox(name.clone())];
        self.follows.retain(|(who, of), _| who != name && !own.contains(of));
        self.sent.retain(|(_, of)| !own.contains(of));
        self.no_values_of(&own[0]);
        for (_, members) in self.owned.values_mut() {
            members.remove(name);
        }
    }

    fn remove_channel(&mut self, channel: &ChannelName, out: &[Applied]) {
        if out.iter().any(|applied| matches!(applied, Applied::Withdrawn { .. })) {
            self.owned.remove(channel);
            let topic = Topic::Channel(channel.clone());
            self.no_values_of(&topic);
            self.follows.retain(|(_, of), _| *of != topic);
            self.sent.retain(|(_, of)| *of != topic);
        }
    }

    /// Checks that a claim by invitation had a valid one, and takes one of its uses.
    fn invited(&mut self, log: &Log, command: &Command, out: &[Applied], was_unclaimed: bool) {
        match command {
            Command::Administer(Admin {
                change: AdminChange::Invite { uses, lasts_ms, name, .. }, ..
            }) if out
                .iter()
                .any(|applied| matches!(applied, Applied::Administered { result: Ok(_), .. })) =>
            {
                let until_ms = log.service.clock_ms() + lasts_ms;
                self.invite.get_or_insert((*uses, name.clone(), until_ms));
            }
            Command::SessionOpen(open) if open.admission == Admission::Invite && was_unclaimed => {
                let claimed = !log.service.is_unclaimed(&open.profile);
                if claimed {
                    let (uses, only, until_ms) = self.invite.take().expect("claimed by an invitation");
                    assert!(only.as_ref().is_none_or(|only| *only == open.profile), "for another name");
                    assert!(log.service.clock_ms() <= until_ms, "it was too old");
                    self.invite = (uses > 1).then_some((uses - 1, only, until_ms));
                }
            }
            _ => {}
        }
    }

    /// A retraction is done if the notification is there, has or had a text, and is the asker's or in a
    /// channel that it owns.
    fn retract(&mut self, service: &Service, asker: &Name, op: Op, result: Result<Op, Code>) {
        let held = self.sent.iter().find(|(at, _)| *at == op && !self.dropped.contains(at));
        let may = held.is_some_and(|(_, topic)| {
            let (author, text) = &self.texts[&op];
            let claimed = service.state.profiles[asker].claimed_op;
            let owned = match topic {
                Topic::Channel(channel) => service.state.topics.owned.get(channel),
                Topic::Feed(_) | Topic::Inbox(_) => None,
            };
            let owns = owned.is_some_and(|owned| owned.members.get(asker) == Some(&Role::Owner));
            text.is_some() && (owns || (author == asker && claimed < op))
        });
        assert_eq!(result.is_ok(), may, "{asker} retracts {op}: {result:?}");
        if may {
            self.retracted.insert(op);
        }
    }

    /// Everything that is held has its text, unless that was retracted.
    fn hold_texts(&self, state: &State) {
        for (_, topic_state) in state.topics.iter() {
            for held in &topic_state.retained {
                let whole = held.notification().unwrap();
                let (author, text) = &self.texts[&whole.op];
                let retracted = self.retracted.contains(&whole.op);
                assert_eq!(whole.notice() == Some(Notice::Retracted), retracted, "{}", whole.op);
                let text = text.as_deref().filter(|_| !retracted).unwrap_or_default();
                assert_eq!((&whole.author, &*whole.content.body.as_text()), (author, text), "{}", whole.op);
            }
        }
    }

    /// A write is done if its condition holds, the author has the right to it, and there is room.
    fn write(
        &mut self,
        service: &Service,
        author: Name,
        request: &Request,
        result: Result<Op, Code>,
        tells: Tells,
    ) {
        let (key, condition, value) = match request {
            Request::Put { key, value, condition } => (key, *condition, Some(value.to_string())),
            Request::Delete { key, at } => (key, at.map_or(Condition::Present, Condition::At), None),
            other => panic!("{other:?}"),
        };
        let now = self.values.get(key).map(|(_, timestamp, _)| *timestamp);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => now.is_none(),
            Condition::Present => now.is_some(),
            Condition::At(at) => now == Some(at),
        };
        match result {
            Ok(op) => {
                assert!(holds, "{request:?} is done, and the key has {now:?}");
                match value {
                    Some(value) => self.values.insert(key.clone(), (value, op, author)),
                    None => self.values.remove(key),
                };
            }
            Err(Code::KeyExists | Code::UnknownKey | Code::StaleTimestamp) => {
                assert!(!holds, "{request:?} is refused, and the key has {now:?}");
                assert_eq!(tells, Tells::Timestamp(now));
            }
            Err(Code::LimitReached) => {
                assert!(holds && value.is_some());
                let of = |(key, (value, _, by)): (&StoreKey, &(String, Op, Name))| {
                    (by == &author, (key.as_str().len() + value.len() + 49) as u64)
                };
                let before: Vec<(bool, u64)> =
                    self.values.iter().filter(|(other, _)| *other != key).map(of).collect();
                let more = (key.as_str().len() + value.map_or(0, |value| value.len()) + 49) as u64;
                let all: u64 = before.iter().map(|(_, bytes)| bytes).sum();
                let own: u64 = before.iter().filter(|(own, _)| *own).map(|(_, bytes)| bytes).sum();
                assert!(
                    all + more > STORE.0 || own + more > STORE.1,
                    "{all} and {own} leave room for {more}"
                );
            }
            Err(code) => {
                let topic = key.owner().expect("anyone may write what is nobody's");
                let may = service.may_read(&author, &topic).and(service.may_send(&author, &topic));
                assert_eq!(may, Err(code));
            }
        }
    }

    /// The values are those of the model.
    fn hold_values(&self, state: &State) {
        let held = state
            .values
            .iter()
            .map(|(key, of)| (key.clone(), (of.value.to_string(), of.timestamp, of.author.clone())));
        assert_eq!(held.collect::<BTreeMap<_, _>>(), self.values);
    }

    /// What belongs to a profile or a channel goes with it.
    fn no_values_of(&mut self, topic: &Topic) {
        self.values.retain(|key, _| key.owner().as_ref() != Some(topic));
    }

    fn change(&mut self, op: Op, asker: Name, channel: &ChannelName, change: &ChannelChange) {
        let topic = Topic::Channel(channel.clone());
        match change {
            ChannelChange::Create { private } => {
                self.owned.insert(channel.clone(), (*private, BTreeSet::from([asker])));
            }
            ChannelChange::Add { member, .. } => {
                self.owned.get_mut(channel).unwrap().1.insert(member.clone());
            }
            ChannelChange::Remove { member } => {
                let (private, members) = self.owned.get_mut(channel).unwrap();
                members.remove(member);
                if *private {
                    self.follows.remove(&(member.clone(), topic));
                }
            }
            ChannelChange::Delete => {
                self.owned.remove(channel);
                self.no_values_of(&topic);
                // The notice of the deletion stays, and who follows gets it.
                self.sent.retain(|(at, of)| *of != topic || *at == op);
            }
        }
    }

    /// The ops addressed to `who` after `after`: those held, and those lost.
    fn stream(&self, who: &Name, after: Op) -> (Vec<Op>, Vec<Op>) {
        let addressed = self.sent.iter().filter(|(op, topic)| {
            let since = self.follows.get(&(who.clone(), topic.clone()));
            since.is_some_and(|since| *op > after.max(*since))
        });
        addressed.map(|(op, _)| *op).partition(|op| !self.dropped.contains(op))
    }
}

fn command(log: &Log, model: &Model, step: &Step) -> Vec<Command> {
    let live: Vec<SessionId> = model.live.keys().copied().collect();
    let pick = |which: usize| (!live.is_empty()).then(|| live[which % live.len()]);
    let request = |which, repeat, request| {
        pick(which).map(|session| {
            let last = log.service.session(session).unwrap().last_seq;
            let seq = if repeat { last } else { last.next() };
            let answered_below = Seq(seq.0.saturating_sub(2));
            // The digest differs at every step and is even, so no two requests are the same.
            Command::Request {
                session,
                seq,
                answered_below,
                request,
                digest: 2 * log.unix_ms,
                may_make: true,
                options: OptionalFields::NONE,
            }
        })
    };
    let one = match step.clone() {
        Step::Open { profile: who, slot, receives, nonce, fresh, stranger, invited } => {
            // Sometimes the key is another profile's, with a code that may be right.
            let (key, code) = if stranger { (PROFILES, Some(CODE)) } else { (who, None) };
            let (device, profile) = (device(key, slot), name(&profile(who)));
            let (invite, admission) =
                (invited.then_some(CODE), if invited { Admission::Invite } else { Admission::Open });
            let open = SessionOpen {
                device,
                profile,
                receives,
                nonce,
                fresh,
                code,
                invite,
                admission,
                aead: Default::default(),
                options: OptionalFields::NONE,
            };
            Some(Command::SessionOpen(open))
        }
        Step::Confirm { which } => {
            let pending: Vec<SessionId> = model.pending.keys().copied().collect();
            let session = (!pending.is_empty()).then(|| pending[which % pending.len()]);
            session.map(|session| Command::SessionConfirm { session })
        }
        Step::Close { which } => pick(which).map(|session| Command::SessionClose { session }),
        Step::Follow { which, topic: of, change } => {
            request(which, false, Request::Follow { topic: topic(of), change })
        }
        Step::Send { which, topic: to, repeat } => {
            let text = format!("text {}", log.unix_ms);
            request(which, repeat, Request::Send { topic: topic(to), content: content(&text) })
        }
        Step::Retract { which, sent } => pick(which).and_then(|session| {
            let op = model.sent.get(sent % model.sent.len().max(1))?.0;
            let (topic, _) = log.service.topic_of(&model.live[&session].0, op);
            request(which, false, Request::Retract { op, topic })
        }),
        Step::Put { which, key: at, length, condition } => {
            let now = model.values.get(&key(at)).map_or(Op(1), |(_, timestamp, _)| *timestamp);
            let condition = if condition == Condition::At(NOW) { Condition::At(now) } else { condition };
            let value = format!("{} {}", log.unix_ms, "v".repeat(length)).into();
            request(which, false, Request::Put { key: key(at), value, condition })
        }
        Step::Delete { which, key: of, at } => {
            let now = model.values.get(&key(of)).map_or(Op(1), |(_, timestamp, _)| *timestamp);
            request(which, false, Request::Delete { key: key(of), at: at.map(|_| now) })
        }
        Step::Keys { which, change } => request(which, false, Request::Keys { change }),
        Step::Administer { query, change } => {
            Some(Command::Administer(Admin { query: QueryId(query), change }))
        }
        Step::Channel { which, channel, change } => {
            request(which, false, Request::Channel { channel: channel_name(&shared(channel)), change })
        }
        Step::Cursor { which, upto } => {
            pick(which).map(|session| Command::Cursors(vec![(session, Op(upto))]))
        }
        Step::Trim { topic: of, upto } => Some(Command::Trim { topic: topic(of), upto: Op(upto) }),
        Step::Tidy | Step::Days { .. } => {
            let retention = Retention { count: 3, bytes: 300, age_ms: 60, all_bytes: 1_000 };
            return log.service.housekeeping(log.unix_ms, &retention, 4);
        }
    };
    one.into_iter().collect()
}

/// The keys and the enrolment of the profile that a CONNECT names, and the open invitations.
fn admission(log: &Log, command: &Command) -> Option<impl PartialEq + std::fmt::Debug + use<>> {
    let Command::SessionOpen(open) = command else { return None };
    let state = &log.service.state;
    let profile = state.profiles.get(&open.profile);
    Some((profile.map(|of| (of.keys.clone(), of.enrolment.clone())), state.admitted.invites.clone()))
}

/// Limits so small that the steps reach them: three profiles, and three notifications beside them and the
/// values.
const TIGHT: (u64, u64) = (3_060 + STORE.0, 2_460);
/// Room for a few values, and for half of them by one profile.
const STORE: (u64, u64) = (600, 300);
const ROOMY: (u64, u64) = (Limits::STATE_BYTES, Limits::RECORD_BYTES);

fn run(steps: &[Step], room: (u64, u64)) -> (Log, Log, Model) {
    let limits = Limits {
        state_bytes: room.0,
        record_bytes: room.1,
        store_bytes: STORE.0,
        store_bytes_of_one: STORE.1,
        devices: 2,
        follows: 4,
        channels: 3,
        members: 3,
        channels_owned: 2,
        keys: 2,
        outstanding: 4,
        administered: 3,
        administered_for: std::time::Duration::from_millis(4),
        ..Limits::default()
    };
    let (mut log, mut twin, mut model) = (Log::with(limits), Log::with(limits), Model::default());
    for (at, step) in steps.iter().enumerate() {
        if at == steps.len() / 2 {
            let bytes = codec::encode(&twin.service.state());
            let state: State = codec::decode(&bytes).unwrap();
            twin.service = Service::new(state, limits, PlantedBug::default());
        }
        if let Step::Days { days } = step {
            log.unix_ms += days * DAY_MS;
            twin.unix_ms = log.unix_ms;
        }
        for command in command(&log, &model, step) {
            let asker = match &command {
                Command::Request { session, .. } => log.service.session(*session).map(|of| of.device),
                _ => None,
            };
            let unclaimed = match &command {
                Command::SessionOpen(open) => log.service.is_unclaimed(&open.profile),
                _ => false,
            };
            let asked_before = match &command {
                Command::Administer(asked) => log.service.administered(asked.query).is_some(),
                _ => false,
            };
            let admission_before = admission(&log, &command);
            let out = log.apply(command.clone());
            if let Some(Applied::SessionRefused { code, .. }) = out.last()
                && *code != Code::WrongCode
            {
                assert_eq!(admission(&log, &command), admission_before, "{code:?} lets no key in");
            }
            assert!(out.is_empty() || !asked_before, "done once");
            if let (Some(device), Command::Request { digest, .. }) = (asker, &command) {
                let result = |one: &Applied| match one {
                    Applied::Answered { seq, result, .. } => Some(((device, *seq), (*digest, *result))),
                    _ => None,
                };
                model.answered.extend(out.iter().find_map(result));
            }
            model.note(&log.service, &command, &out);
            model.invited(&log, &command, &out, unclaimed);
            model.note_dropped(&log, &command);
            assert_eq!(out, twin.apply(command), "the same from the same log");
        }
    }
    (log, twin, model)
}

proptest! {
    #[test]
    fn the_same_log_gives_the_same_state_also_from_a_snapshot(
        steps in prop::collection::vec(step(), 0..120),
        room in prop_oneof![Just(TIGHT), Just(ROOMY)],
    ) {
        let (log, twin, model) = run(&steps, room);
        let open: BTreeSet<SessionId> = log.service.sessions().map(|(session, ..)| session).collect();
        prop_assert_eq!(open, model.live.keys().chain(model.pending.keys()).copied().collect());
        prop_assert_eq!(log.service.state(), twin.service.state());
        prop_assert!(log.service.state.administered.len() <= 3);
        prop_assert_eq!(&log.service.index, &Index::of(&log.service.state));
        model.hold_texts(&log.service.state);
        for (id, device) in &log.service.state.devices {
            prop_assert!(device.results.len() <= 4);
            let profile = &log.service.state.profiles[&device.profile];
            prop_assert!(profile.keys.contains(&id.key), "no device without its key");
            prop_assert!(device.session.is_none() || device.session != device.pending);
        }
        for (session, id, ..) in log.service.sessions() {
            let Some(of) = log.service.session(session) else { continue };
            for seq in (1..=of.last_seq.0).map(Seq) {
                let (digest, result) = model.answered[&(id, seq)];
                let standing = |digest| (log.service.standing(session, seq, digest), twin.service.standing(session, seq, digest));
                let told = [Standing::Answered(result), Standing::Forgotten].map(|standing| (standing, standing));
                prop_assert!(told.contains(&standing(digest)), "{:?}", standing(digest));
                let other = [Standing::Taken, Standing::Forgotten].map(|standing| (standing, standing));
                prop_assert!(other.contains(&standing(digest ^ 1)), "another request never has its result");
                let last = seq == of.last_seq;
                prop_assert!(!last || standing(digest).0 != Standing::Forgotten, "the last one is held");
            }
        }
        for (who, profile) in &log.service.state.profiles {
            prop_assert!(log.service.state.devices_of(who, profile).count() <= 2);
            prop_assert!(profile.follows.len() <= 4);
            prop_assert!(profile.keys.len() <= 2);
            let owned = log.service.state.topics.owned.values();
            let owns = owned.filter(|owned| owned.members.get(who) == Some(&Role::Owner)).count();
            prop_assert!(profile.owns == owns as u64 && owns <= 2);
            for topic in profile.follows.keys() {
                let may = log.service.may_read(who, topic);
                let may = may.is_ok() || may == Err(Code::ChannelDeleted);
                prop_assert!(may, "only what may be read is followed, or was until it was deleted");
            }
            for sent in &profile.sent {
                prop_assert!(log.service.state.topics.sent(sent).is_some());
            }
        }
    }

    #[test]
    fn pages_of_any_size_return_every_retained_notification_in_order_and_every_loss(
        steps in prop::collection::vec(step(), 0..120),
        start in 0..100u64,
        count in 1..5usize,
        bytes in 0..400usize,
        room in prop_oneof![Just(TIGHT), Just(ROOMY)],
    ) {
        let (log, _, model) = run(&steps, room);
        for (session, (who, receives)) in &model.live {
            let (held, lost) = model.stream(who, Op(start));
            let (mut got, mut gaps, mut at) = (Vec::new(), Vec::new(), Op(start));
            loop {
                let page = log.service.page(*session, at, count, bytes);
                prop_assert!(page.notifications.len() <= count);
                let before = at;
                if let Some(gap) = page.gap {
                    prop_assert!(gap > at);
                    gaps.push((at, gap));
                    at = gap;
                }
                for op in ops(&page.notifications) {
                    prop_assert!(op > at, "ascending, above the gap");
                    got.push(op);
                    at = op;
                }
                if !page.more {
                    break;
                }
                prop_assert!(at > before, "every page gets on");
            }
            if !receives {
                prop_assert!(got.is_empty() && gaps.is_empty());
                continue;
            }
            prop_assert_eq!(got, held);
            prop_assert_eq!(gaps.is_empty(), lost.is_empty(), "a gap iff something was lost");
            for op in lost {
                prop_assert!(gaps.iter().any(|(from, to)| *from < op && op <= *to), "{op} was lost untold");
            }
        }
    }
}
