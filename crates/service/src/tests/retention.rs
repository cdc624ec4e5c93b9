//! Retention of notifications, which the primary decides.

use super::*;
use crate::TRIM_MOST;

#[test]
fn what_was_stamped_before_the_clock_was_set_ages_from_then() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let ops = || channel("ops");
    let send = |log: &mut Log| log.send(session, ops()).unwrap();
    let unset = send(&mut log);
    let (set_ms, day_ms) = (EARLIEST_DATE_MS, 24 * 3600 * 1000);
    let tidy = |log: &Log, unix_ms: u64| {
        log.service.housekeeping(unix_ms, &Retention { age_ms: day_ms, ..Retention::default() }, 10)
    };
    let trim = |upto| vec![Command::Trim { topic: ops(), upto }];
    assert_eq!(tidy(&log, log.unix_ms + day_ms), [], "a day by the clock that was not set");
    assert_eq!(tidy(&log, log.unix_ms + day_ms + 1), trim(unset));
    assert_eq!(tidy(&log, set_ms), [], "when it is set, before the log says so");

    // The earliest stamp that is a date is the first one.
    log.unix_ms = set_ms - 1;
    let set = send(&mut log);
    let dated_ms = log.unix_ms;
    assert_eq!(dated_ms, set_ms);
    log.unix_ms += day_ms;
    assert_eq!(tidy(&log, dated_ms + day_ms), []);
    let young = send(&mut log);
    assert_eq!(tidy(&log, dated_ms + day_ms + 1), trim(set), "both are a day old");
    assert!(unset < set && set < young);
    // A restart from a snapshot.
    let state = log.service.state();
    let again = Service::new(state, Limits::default(), PlantedBug::default());
    let kept =
        again.housekeeping(dated_ms + day_ms, &Retention { age_ms: day_ms, ..Retention::default() }, 10);
    assert_eq!(kept, []);
}

#[test]
fn housekeeping_trims_by_each_limit_and_closes_what_is_idle() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..4).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let now_ms = log.unix_ms;
    let all = Retention { count: 100, bytes: 1 << 20, age_ms: 1 << 30, all_bytes: u64::MAX };
    let trim = |upto| vec![Command::Trim { topic: feed("alice"), upto }];
    let tidy = |retention| log.service.housekeeping(now_ms, &retention, 10);
    assert_eq!(tidy(all), []);
    assert_eq!(tidy(Retention { count: 3, ..all }), trim(sent[0]));
    assert_eq!(tidy(Retention { bytes: 150, ..all }), trim(sent[1]));
    assert_eq!(tidy(Retention { age_ms: 1, ..all }), trim(sent[1]));
    let one = log.service.state.topics.get(&feed("alice")).unwrap().bytes / 4;
    assert_eq!(tidy(Retention { bytes: 4 * one, ..all }), []);
    assert_eq!(tidy(Retention { bytes: 4 * one - 1, ..all }), trim(sent[0]));
    assert_eq!(tidy(Retention { count: 3, bytes: 3 * one, ..all }), trim(sent[0]), "three are within both");
    let week_ms = 8 * 24 * 3600 * 1000;
    let closes = log.service.housekeeping(now_ms + week_ms, &Retention { age_ms: u64::MAX, ..all }, 10);
    assert_eq!(closes, [Command::SessionClose { session: alice }]);
}

#[test]
fn a_topic_that_is_far_over_its_limit_is_trimmed_in_steps() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..2 * TRIM_MOST + 501).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let trim = |count: usize| Command::Trim { topic: feed("alice"), upto: sent[count - 1] };
    let retention = Retention { count: 1, ..Retention::default() };
    let tidy = |log: &Log, most| log.service.housekeeping(log.unix_ms, &retention, most);
    assert_eq!(tidy(&log, 10), [trim(TRIM_MOST), trim(2 * TRIM_MOST), trim(2 * TRIM_MOST + 500)]);
    for command in tidy(&log, 2) {
        log.apply(command);
    }
    assert_eq!(tidy(&log, 10), [trim(2 * TRIM_MOST + 500)]);
}

#[test]
fn one_byte_beyond_the_room_of_all_topics_costs_the_largest_its_oldest_and_no_other_any() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    let sent: Vec<Op> = (0..3).map(|_| log.send(bobby, feed("bobby")).unwrap()).collect();
    for _ in 0..2 {
        log.send(alice, feed("alice")).unwrap();
    }
    let retention = Retention { all_bytes: log.service.index.counted.retained - 1, ..Retention::default() };
    let trims = log.service.housekeeping(log.unix_ms, &retention, 10);
    assert_eq!(trims, [Command::Trim { topic: feed("bobby"), upto: sent[0] }]);
}

#[test]
fn beyond_the_room_of_all_topics_the_primary_trims_the_largest() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    for _ in 0..10 {
        log.send(bobby, feed("bobby")).unwrap();
    }
    log.send(alice, feed("alice")).unwrap();
    let held = log.service.index.counted.retained;
    let retention = |all_bytes| Retention { all_bytes, ..Retention::default() };
    assert_eq!(log.service.housekeeping(log.unix_ms, &retention(held), 10), []);
    for _ in 0..10 {
        for command in log.service.housekeeping(log.unix_ms, &retention(held / 2), 10) {
            assert!(
                matches!(&command, Command::Trim { topic, .. } if *topic == feed("bobby")),
                "{command:?}"
            );
            log.apply(command);
        }
    }
    let left = log.service.index.counted.retained;
    assert!(left <= held / 2 && left > held / 4, "{left} of {held}");
}

#[test]
fn far_beyond_the_room_of_all_topics_those_at_least_half_as_large_as_the_largest_lose_half() {
    let mut log = Log::new();
    let [alice, bobby, _] = [("alice", 1, 10), ("bobby", 2, 5), ("carol", 3, 4)].map(|(who, key, count)| {
        let session = log.open(who, key);
        (0..count).map(|_| log.send(session, feed(who)).unwrap()).collect::<Vec<Op>>()
    });
    let trim = |who: &str, upto| Command::Trim { topic: feed(who), upto };
    let retention = Retention { all_bytes: 0, ..Retention::default() };
    let trims = log.service.housekeeping(log.unix_ms, &retention, 10);
    assert_eq!(trims, [trim("alice", alice[4]), trim("bobby", bobby[2])]);
}
