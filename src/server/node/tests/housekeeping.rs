//! When the primary logs the cursors that moved, and which of them; and what it drops when it begins to lead.

use recado_proto::id::Seq;

use super::*;

over_each_log!(a_primary_that_retains_less_than_the_one_before_says_what_it_drops,);

const NOW: Moment = Moment(1_000_000);
const EVERY: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn session(n: u64) -> SessionId {
    SessionId(Op(n))
}

#[test]
fn a_batch_of_cursors_is_due_an_interval_after_one_that_was_empty_or_could_not_be_logged() {
    for accepts in [true, false] {
        let mut housekeeping = Housekeeping::new(NOW);
        let due = NOW + EVERY;
        if !accepts {
            housekeeping.on_cursor(session(1), Op(4));
        }
        assert_eq!(housekeeping.take_batches(due, accepts), []);
        housekeeping.on_cursor(session(1), Op(5));
        assert_eq!(housekeeping.take_batches(due + EVERY - MS, true), [], "accepted before: {accepts}");
        let batch = [Command::Cursors(vec![(session(1), Op(5))])];
        assert_eq!(housekeeping.take_batches(due + EVERY, true), batch, "accepted before: {accepts}");
    }
}

#[test]
fn a_batch_has_a_thousand_sessions_ascending_each_with_its_highest_op_and_the_rest_waits() {
    let mut housekeeping = Housekeeping::new(NOW);
    for n in (1..=1_001).rev() {
        housekeeping.on_cursor(session(n), Op(n + 1));
        housekeeping.on_cursor(session(n), Op(n));
    }
    let cursors = |sessions: std::ops::RangeInclusive<u64>| {
        [Command::Cursors(sessions.map(|n| (session(n), Op(n + 1))).collect())]
    };
    assert_eq!(housekeeping.take_batches(NOW + EVERY, true), cursors(1..=1_000));
    assert_eq!(housekeeping.take_batches(NOW + EVERY * 2, true), cursors(1_001..=1_001));
    assert_eq!(housekeeping.take_batches(NOW + EVERY * 3, true), []);
}

#[test]
fn sessions_that_their_clients_left_end_together_and_leave_no_cursor() {
    let (mut housekeeping, idle) = (Housekeeping::new(NOW), Duration::from_secs(60));
    for n in [3, 1, 2] {
        housekeeping.on_cursor(session(n), Op(9));
        housekeeping.on_left(session(n));
        housekeeping.on_alive(session(n), 1_000, idle);
    }
    housekeeping.on_left(session(1));
    housekeeping.forget(session(2));
    let closes = Command::SessionsClose(vec![session(1), session(3)]);
    assert_eq!(housekeeping.take_batches(NOW + EVERY, true), [closes]);
    assert_eq!(housekeeping.take_batches(NOW + EVERY * 2, true), []);
}

#[test]
fn a_session_that_was_just_logged_is_not_logged_as_alive() {
    let (mut housekeeping, idle) = (Housekeeping::new(NOW), Duration::from_secs(60));
    housekeeping.on_logged(session(1), 1_000);
    housekeeping.on_alive(session(1), 1_000 + 14_999, idle);
    assert_eq!(housekeeping.take_batches(NOW + EVERY, true), []);
    housekeeping.on_alive(session(1), 1_000 + 15_000, idle);
    let alive = Command::Cursors(vec![(session(1), Op(0))]);
    assert_eq!(housekeeping.take_batches(NOW + EVERY * 2, true), [alive]);
}

fn a_primary_that_retains_less_than_the_one_before_says_what_it_drops<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let send = |rig: &mut Rig<S>, seq: u64| {
        let (content, options) = (Content::of("text"), OptionalFields::NONE);
        let (seq, answered_below) = (Seq(seq), Seq(seq));
        let send = Send { seq, answered_below, topic: None, content, nonce: 0, options };
        rig.client(session.0.0, ToServer::Send(send));
        rig.live(100);
    };
    (1..=20).for_each(|seq| send(&mut rig, seq));
    // As a server that takes over while one more comes in than all of them retain.
    rig.node.config.retention.count = 19;
    rig.node.housekeeping.on_primary();
    rig.live(3_000);
    assert_eq!(rig.dropping, [], "as many as come in are dropped by every primary");
    rig.node.config.retention.count = 2;
    rig.node.housekeeping.on_primary();
    rig.live(3_000);
    assert_eq!(rig.dropping, [Dropping { notifications: 17, topics: 1, more: false }]);
    (21..=30).for_each(|seq| send(&mut rig, seq));
    rig.live(3_000);
    assert_eq!(rig.dropping.len(), 1, "once, when it begins to lead");
}
