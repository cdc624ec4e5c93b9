//! Random logs against a naive model that walks everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{Log, channel, content, device, feed, inbox, name, ops};
use super::*;
use crate::config::Retention;
use crate::id::Topic;
use crate::wire::codec;
use crate::wire::command::{Command, Request};
use crate::wire::packet::FollowChange;

const PROFILES: u8 = 4;
const SLOTS: u8 = 3;

/// What happens next; sessions and ops are chosen among those there are when it does.
#[derive(Clone, Debug)]
enum Step {
    Open { profile: u8, slot: u8, receives: bool, nonce: u64, fresh: bool },
    Close { which: usize },
    Follow { which: usize, topic: u8, change: FollowChange },
    Send { which: usize, topic: u8, repeat: bool },
    Cursor { which: usize, upto: u64 },
    Trim { topic: u8, upto: u64 },
    Tidy,
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    let change = prop_oneof![3 => Just(FollowChange::Add), 1 => Just(FollowChange::Remove)];
    prop_oneof![
        4 => (0..PROFILES, 0..SLOTS, any::<bool>(), 0..3u64, prop::bool::weighted(0.8)).prop_map(
            |(profile, slot, receives, nonce, fresh)| Step::Open { profile, slot, receives, nonce, fresh }
        ),
        1 => which.prop_map(|which| Step::Close { which }),
        5 => (which, 0..12u8, change).prop_map(|(which, topic, change)| Step::Follow { which, topic, change }),
        9 => (which, 0..12u8, prop::bool::weighted(0.1))
            .prop_map(|(which, topic, repeat)| Step::Send { which, topic, repeat }),
        1 => (which, 0..200u64).prop_map(|(which, upto)| Step::Cursor { which, upto }),
        2 => (0..12u8, 0..200u64).prop_map(|(topic, upto)| Step::Trim { topic, upto }),
        1 => Just(Step::Tidy),
    ]
}

fn profile(which: u8) -> String {
    format!("p{which}")
}

fn topic(which: u8) -> Topic {
    match which / PROFILES {
        0 => feed(&profile(which % PROFILES)),
        1 => channel(&profile(which % PROFILES)),
        _ => inbox(&profile(which % PROFILES)),
    }
}

/// What the answers and the log say, kept flat.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<(Op, Topic)>,
    dropped: BTreeSet<Op>,
    follows: BTreeMap<(Name, Topic), Op>,
    live: BTreeMap<SessionId, (Name, bool)>,
}

impl Model {
    fn note(&mut self, command: &Command, out: &[Applied]) {
        for applied in out {
            match (applied, command) {
                (Applied::SessionOpened { session, .. }, Command::SessionOpen { profile, receives, .. }) => {
                    self.live.entry(*session).or_insert((profile.clone(), *receives));
                    let inbox = (profile.clone(), Topic::Inbox(profile.clone()));
                    self.follows.entry(inbox).or_insert(session.0);
                }
                (Applied::SessionClosed { session }, _) => {
                    self.live.remove(session);
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
                (Applied::Notified { notification, sessions }, _) => {
                    let follows =
                        |who: &Name| self.follows.contains_key(&(who.clone(), notification.topic.clone()));
                    let addressed = self.live.iter().filter(|(_, (who, receives))| *receives && follows(who));
                    let addressed: Vec<SessionId> = addressed.map(|(session, _)| *session).collect();
                    assert_eq!(*sessions, addressed, "to exactly those it is for, ascending");
                    self.sent.push((notification.op, notification.topic.clone()));
                }
                _ => {}
            }
        }
        if let Command::Trim { topic, upto } = command {
            let trimmed = self.sent.iter().filter(|(op, of)| of == topic && op <= upto);
            self.dropped.extend(trimmed.map(|(op, _)| *op));
        }
    }

    /// What was addressed to `who` beyond `after`: held, and lost.
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
            Command::Request { session, seq, answered_below: Seq(seq.0.saturating_sub(2)), request }
        })
    };
    let one = match step.clone() {
        Step::Open { profile: who, slot, receives, nonce, fresh } => {
            let (device, profile) = (device(who, slot), name(&profile(who)));
            Some(Command::SessionOpen { device, profile, receives, nonce, fresh })
        }
        Step::Close { which } => pick(which).map(|session| Command::SessionClose { session }),
        Step::Follow { which, topic: of, change } => {
            request(which, false, Request::Follow { topic: topic(of), change })
        }
        Step::Send { which, topic: to, repeat } => {
            request(which, repeat, Request::Send { topic: topic(to), content: content("text") })
        }
        Step::Cursor { which, upto } => {
            pick(which).map(|session| Command::Cursors(vec![(session, Op(upto))]))
        }
        Step::Trim { topic: of, upto } => Some(Command::Trim { topic: topic(of), upto: Op(upto) }),
        Step::Tidy => {
            let retention = Retention { count: 3, bytes: 300, age_ms: 60 };
            return log.service.housekeeping(log.unix_ms, &retention, 4);
        }
    };
    one.into_iter().collect()
}

fn run(steps: &[Step]) -> (Log, Log, Model) {
    let limits = Limits { devices: 2, follows: 4, channels: 3, outstanding: 4, ..Limits::default() };
    let (mut log, mut twin, mut model) = (Log::with(limits), Log::with(limits), Model::default());
    for (at, step) in steps.iter().enumerate() {
        if at == steps.len() / 2 {
            let bytes = codec::encode(&twin.service.state());
            let state: State = codec::decode(&bytes).unwrap();
            twin.service = Service::new(state, limits, PlantedBug::default());
        }
        for command in command(&log, &model, step) {
            let out = log.apply(command.clone());
            model.note(&command, &out);
            assert_eq!(out, twin.apply(command), "the same from the same log");
        }
    }
    (log, twin, model)
}

proptest! {
    #[test]
    fn the_same_log_gives_the_same_state_also_from_a_snapshot(steps in prop::collection::vec(step(), 0..120)) {
        let (log, twin, _) = run(&steps);
        prop_assert_eq!(log.service.state(), twin.service.state());
        prop_assert_eq!(&log.service.index, &Index::of(&log.service.state));
        for device in log.service.state.devices.values() {
            prop_assert!(device.results.len() <= 4);
        }
        for (who, profile) in &log.service.state.profiles {
            prop_assert!(log.service.state.devices_of(who, profile).count() <= 2);
            prop_assert!(profile.follows.len() <= 4);
            for sent in &profile.sent {
                prop_assert!(log.service.state.topics.sent(sent).is_some());
            }
        }
    }

    #[test]
    fn pages_of_any_size_give_all_that_is_held_in_order_and_tell_every_loss(
        steps in prop::collection::vec(step(), 0..120),
        start in 0..100u64,
        count in 1..5usize,
        bytes in 0..400usize,
    ) {
        let (log, _, model) = run(&steps);
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
