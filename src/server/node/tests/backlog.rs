//! A long log is applied over several turns, and nothing waits for all of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;

use recado_log::journal::{Meta, Recovered};
use recado_log::ordered::{Committed, Status};
use recado_proto::command::SessionOpen;
use recado_proto::seal::Aead;
use recado_service::State;

use super::*;
use crate::server::engine::{self, BootIdentity};

const ENTRIES: u64 = 1_000;

#[test]
fn a_start_with_a_long_log_applies_a_part_of_it_each_turn() {
    let config = config();
    let most = u64::from(config.limits.applied_per_turn);
    let members = config.cluster.members.iter().map(|member| member.id);
    let meta = Meta { incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, members) };
    let view = View::new(1, NodeId(1));
    let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: command_of(300) };
    let entries = (1..=ENTRIES).map(entry).collect();
    let recovered = Recovered { meta, snapshot: None, entries, commit: Op(ENTRIES), lost: None };
    let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
    let mut out = Vec::new();
    let mut clock = Clock { now: Moment(0), unix_ms: 1 };
    let (identity, service) = (BootIdentity { id, keys, seed: 1 }, empty(&config));
    let mut node = engine::start(config, recovered, service, identity, clock, &mut out).unwrap();

    let mut applied = node.applied();
    assert!(applied.0 <= most, "{applied} at the start");
    while applied < Op(ENTRIES) {
        assert!(
            node.next_deadline().is_some_and(|due| due <= clock.now),
            "it goes on at once after {applied}"
        );
        clock.now = clock.now + Duration::from_millis(5);
        node.handle(clock, Input::Deadline, &mut out);
        node.flush(clock, &mut out);
        node.apply(clock, &mut out);
        let before = std::mem::replace(&mut applied, node.applied());
        assert!((1..=most).contains(&(applied.0 - before.0)), "{before} to {applied} in a turn");
    }
    assert!(node.backlog.is_empty());
}

/// An entry with the cursors of a thousand sessions takes a millisecond.
#[test]
fn a_turn_applies_fewer_entries_if_each_takes_long() {
    let config = config();
    let members = config.cluster.members.iter().map(|member| member.id);
    let meta = Meta { incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, members) };
    let view = View::new(1, NodeId(1));
    let cursors = Command::Cursors((1..=1_000).map(|session| (SessionId(Op(session)), Op(1))).collect());
    let payload: Arc<[u8]> = codec::encode(&Stamped { unix_ms: 1, command: cursors }).into();
    let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: payload.clone() };
    let entries = (1..=100).map(entry).collect();
    let recovered = Recovered { meta, snapshot: None, entries, commit: Op(100), lost: None };
    let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
    let (mut out, clock) = (Vec::new(), Clock { now: Moment(0), unix_ms: 1 });
    let (identity, service) = (BootIdentity { id, keys, seed: 1 }, empty(&config));
    let mut node = engine::start(config, recovered, service, identity, clock, &mut out).unwrap();
    let mut applied = node.applied();
    while applied < Op(100) {
        node.handle(clock, Input::Deadline, &mut out);
        node.flush(clock, &mut out);
        node.apply(clock, &mut out);
        let before = std::mem::replace(&mut applied, node.applied());
        assert!((1..=3).contains(&(applied.0 - before.0)), "{before} to {applied} in a turn");
    }
}

/// A log that reports what a test has put into it, and leads.
#[derive(Default)]
struct Scripted {
    events: VecDeque<Event<Infallible>>,
    proposed: u64,
    /// True if a snapshot of a peer is of use.
    installs: bool,
    /// The entries that are to be dropped from memory.
    to_drop: usize,
}

impl OrderedLog for Scripted {
    type Input = Infallible;
    type Effect = Infallible;

    fn advance(&mut self, _: Moment) {}

    fn handle(&mut self, _: Moment, input: Infallible) {
        match input {}
    }

    fn settle(&mut self, _: Moment) {}

    fn propose(&mut self, _: Arc<[u8]>) -> Option<Ticket> {
        self.proposed += 1;
        Some(Ticket(self.proposed))
    }

    fn flush(&mut self, _: Moment) {}

    fn confirm_lead(&mut self, _: Moment) {}

    fn install(&mut self, _: Moment, _: u64) -> bool {
        self.installs
    }

    fn refuse_snapshot(&mut self, _: u64) -> bool {
        false
    }

    fn take(&mut self, applied: Op) -> Option<Committed> {
        Some(Committed { op: applied.next(), payload: command_of(300), ticket: None })
    }

    fn trim(&mut self, _: Op, most: usize) -> bool {
        self.to_drop = self.to_drop.saturating_sub(most);
        self.to_drop == 0
    }

    fn stop(&mut self) {}

    fn poll(&mut self, _: Moment) -> Option<Event<Infallible>> {
        self.events.pop_front()
    }

    fn next_deadline(&self) -> Moment {
        Moment(u64::MAX)
    }

    fn status(&self) -> Status {
        let (view, op) = (View::new(2, ME), Op(ENTRIES));
        Status {
            role: RoleName::Primary,
            view,
            active: view,
            accepts: true,
            commit: op,
            last: op,
            durable: op,
            appended_bytes: 0,
            led: None,
            fetched: None,
        }
    }

    fn catches_up(&self) -> bool {
        false
    }

    fn entry(&self, _: Op) -> Option<&Entry> {
        None
    }
}

#[test]
fn a_view_is_served_once_everything_before_it_is_applied() {
    let (keys, clock) = (handshake_config(ME.0, 1).keys, Clock { now: Moment(0), unix_ms: 1 });
    let events = VecDeque::from([Event::Committed(Op(ENTRIES)), Event::Active(View::new(2, ME))]);
    let service = Service::new(State::default(), config().limits, Default::default());
    let boot = Boot { incarnation: Incarnation(1), keys, service };
    let mut out = Vec::new();
    let mut node = Node::new(config(), boot, Scripted { events, ..Scripted::default() }, clock, &mut out);
    while node.applied() < Op(ENTRIES) {
        assert!(!node.serves() && !node.accepts(), "at {}", node.applied());
        assert!(node.propose(clock, Command::Cursors(Vec::new())).is_none());
        assert!(!out.iter().any(|effect| matches!(effect, Effect::Delivery(delivery::Input::Announce(_)))));
        node.handle(clock, Input::Deadline, &mut out);
        node.flush(clock, &mut out);
        node.apply(clock, &mut out);
    }
    assert!(out.iter().any(|effect| matches!(effect, Effect::Delivery(delivery::Input::Announce(_)))));
    assert!(node.serves() && node.accepts());
    assert_eq!(node.log.proposed, 0);
    assert!(node.propose(clock, Command::Cursors(Vec::new())).is_some());
}

/// The state after `last` ops, of which those in `sessions` have opened one each.
fn with_sessions(last: u64, sessions: RangeInclusive<u64>) -> Service {
    let mut service = Service::new(State::default(), config().limits, Default::default());
    for op in 1..=last {
        let stamped = sessions.contains(&op).then(|| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&op.to_le_bytes());
            let open = SessionOpen {
                device: DeviceId { key: DeviceKey(key), slot: 0 },
                profile: format!("p{op}").parse().unwrap(),
                receives: false,
                nonce: op,
                fresh: true,
                code: None,
                invite: None,
                admission: Default::default(),
                aead: Aead::ChaCha20Poly1305,
                options: OptionalFields::NONE,
            };
            Stamped { unix_ms: 1, command: Command::SessionOpen(open) }
        });
        service.apply(Op(op), stamped.as_ref(), &mut Vec::new());
    }
    service
}

/// A server that has this state and this log.
fn over(service: Service, log: Scripted, out: &mut Vec<Effect<Infallible>>) -> Node<Scripted> {
    let (keys, clock) = (handshake_config(ME.0, 1).keys, Clock { now: Moment(0), unix_ms: 1 });
    let boot = Boot { incarnation: Incarnation(1), keys, service };
    Node::new(config(), boot, log, clock, out)
}

#[test]
fn the_sessions_of_an_installed_state_are_told_some_in_each_turn_and_all_before_anything_is_applied() {
    const MOST: usize = SESSIONS_PER_TURN;
    let clock = Clock { now: Moment(0), unix_ms: 1 };
    let (before, installed) = (with_sessions(9_000, 1..=9_000), with_sessions(15_000, 3_001..=15_000));
    let mut out = Vec::new();
    let mut node = over(before, Scripted { installs: true, ..Scripted::default() }, &mut out);
    let known = |out: &[Effect<Infallible>]| {
        let known = out.iter().filter_map(|effect| match effect {
            Effect::SessionKnown { session, .. } => Some(session.0.0),
            _ => None,
        });
        known.collect::<Vec<_>>()
    };
    let gone = |out: &[Effect<Infallible>]| {
        let gone = out.iter().filter_map(|effect| match effect {
            Effect::SessionGone(session) => Some(session.0.0),
            _ => None,
        });
        gone.collect::<Vec<_>>()
    };
    assert_eq!(known(&out), Vec::from_iter(1..=9_000));

    out.clear();
    node.handle(clock, Input::SnapshotOpened { transfer: 1, opened: Ok(Box::new(installed)) }, &mut out);
    node.log.events.push_back(Event::Committed(Op(15_001)));
    let mut turns = 0;
    let mut all = Vec::new();
    while node.applied() < Op(15_001) {
        assert!(node.next_deadline().is_some_and(|due| due <= clock.now), "it goes on at once");
        let told = known(&out).len() + gone(&out).len();
        assert!(told <= MOST, "{told} in one part of a turn");
        all.append(&mut out);
        turns += 1;
        node.handle(clock, Input::Deadline, &mut out);
        node.flush(clock, &mut out);
        assert!(known(&out).is_empty(), "what a turn has to send waits for none of it");
        node.apply(clock, &mut out);
    }
    all.append(&mut out);
    assert_eq!((known(&all), gone(&all)), (Vec::from_iter(9_001..=15_000), Vec::from_iter(1..=3_000)));
    assert!(turns >= (9_000 + 12_000) / MOST, "{turns} turns");
    assert!(matches!(all.last(), Some(Effect::Discard(_))), "the state before is given away after that");
}

#[test]
fn a_log_in_memory_that_a_snapshot_covers_is_dropped_some_in_each_turn() {
    let clock = Clock { now: Moment(0), unix_ms: 1 };
    let (mut out, to_drop) = (Vec::new(), 3 * TRIMMED_PER_TURN + 1);
    let state = Service::new(State::default(), config().limits, Default::default());
    let mut node = over(state, Scripted { to_drop, ..Scripted::default() }, &mut out);
    node.handle(clock, Input::SnapshotDone(Op(9)), &mut out);
    for left in [2 * TRIMMED_PER_TURN + 1, TRIMMED_PER_TURN + 1, 1] {
        assert_eq!(node.log.to_drop, left);
        assert!(node.next_deadline().is_some_and(|due| due <= clock.now), "it goes on at once");
        node.handle(clock, Input::Deadline, &mut out);
        assert_eq!(node.log.to_drop, left, "what the turn has to send does not wait for it");
        node.apply(clock, &mut out);
    }
    assert_eq!(node.log.to_drop, 0);
    assert!(node.next_deadline().is_some_and(|due| due > clock.now));
}
