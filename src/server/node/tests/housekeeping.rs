//! When the primary logs the cursors that moved, and which of them.

use super::*;

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
        assert_eq!(housekeeping.take_batch(due, accepts), None);
        housekeeping.on_cursor(session(1), Op(5));
        assert_eq!(housekeeping.take_batch(due + EVERY - MS, true), None, "accepted before: {accepts}");
        let batch = Some(Command::Cursors(vec![(session(1), Op(5))]));
        assert_eq!(housekeeping.take_batch(due + EVERY, true), batch, "accepted before: {accepts}");
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
        Some(Command::Cursors(sessions.map(|n| (session(n), Op(n + 1))).collect()))
    };
    assert_eq!(housekeeping.take_batch(NOW + EVERY, true), cursors(1..=1_000));
    assert_eq!(housekeeping.take_batch(NOW + EVERY * 2, true), cursors(1_001..=1_001));
    assert_eq!(housekeeping.take_batch(NOW + EVERY * 3, true), None);
}
