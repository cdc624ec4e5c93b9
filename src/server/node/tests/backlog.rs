//! A long log is applied over several turns, and nothing waits for all of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use recado_log::journal::{Meta, Recovered};
use recado_log::ordered::{Committed, Status};
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
    let mut node =
        engine::start(config, recovered, BootIdentity { id, keys, seed: 1 }, clock, &mut out).unwrap();

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

/// A log that reports what a test has put into it, and leads.
#[derive(Default)]
struct Scripted {
    events: VecDeque<Event<Infallible>>,
    proposed: u64,
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

    fn install(&mut self, _: Moment, _: u64) -> bool {
        false
    }

    fn refuse_snapshot(&mut self, _: u64) -> bool {
        false
    }

    fn take(&mut self, applied: Op) -> Option<Committed> {
        Some(Committed { op: applied.next(), payload: command_of(300), ticket: None })
    }

    fn trim(&mut self, _: Op) {}

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
            fetched: None,
        }
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
    let mut node = Node::new(config(), boot, Scripted { events, proposed: 0 }, clock, &mut out);
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
