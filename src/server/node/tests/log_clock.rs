//! The log's time in a node whose wall clock is wrong: nothing is dropped and nobody is closed.

use recado_proto::id::{Seq, Topic};

use super::*;

over_each_log!(
    a_cluster_born_without_a_clock_drops_nothing_and_closes_nobody_when_the_clock_is_set,
    a_wall_clock_that_jumps_a_year_drops_nothing_closes_no_session_and_is_logged,
);

fn a_cluster_born_without_a_clock_drops_nothing_and_closes_nobody_when_the_clock_is_set<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    assert!(rig.clock.unix_ms < 100_000, "1970");
    let session = rig.connect(1, "alice");
    let topic = Some(Topic::Inbox("alice".parse().unwrap()));
    let content = Content::of("text");
    let send = Send {
        seq: Seq(1),
        answered_below: Seq(1),
        topic,
        content,
        nonce: 0,
        options: recado_proto::packet::OptionalFields::NONE,
    };
    rig.client(session.0.0, ToServer::Send(send));
    rig.live(200);
    rig.clock.unix_ms = 1_800_000_000_000;
    let pending = rig.initiation(2, 7, "bobby");
    rig.live(5_000);
    let service = rig.node.service();
    assert!(service.clock_ms() >= 1_800_000_000_000, "{}", service.clock_ms());
    let page = service.page(session, Op::ZERO, 10, 1 << 20);
    assert_eq!((page.gap, page.notifications.len()), (None, 1), "nothing dropped");
    assert!(service.session(session).is_some(), "not idle");
    assert!(service.has_session(pending), "who was about to come in has the time for it");
}

fn a_wall_clock_that_jumps_a_year_drops_nothing_closes_no_session_and_is_logged<S: Surroundings>() {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    let mut rig = Rig::<S>::leading();
    rig.clock.unix_ms = 1_800_000_000_000;
    let session = rig.connect(1, "alice");
    let topic = Some(Topic::Inbox("alice".parse().unwrap()));
    let send = |seq: u64| {
        let content = Content::of("text");
        ToServer::Send(Send {
            seq: Seq(seq),
            answered_below: Seq(seq),
            topic: topic.clone(),
            content,
            nonce: 0,
            options: recado_proto::packet::OptionalFields::NONE,
        })
    };
    rig.client(session.0.0, send(1));
    rig.live(200);
    let before_ms = rig.node.service().clock_ms();
    rig.clock.unix_ms += YEAR_MS;
    rig.live(3_000);
    rig.client(session.0.0, send(2));
    rig.live(200);
    let service = rig.node.service();
    assert!(service.session(session).is_some(), "not idle");
    let page = service.page(session, Op::ZERO, 10, 1 << 20);
    assert_eq!((page.gap, page.notifications.len()), (None, 2), "nothing dropped");
    let passed_ms = service.clock_ms() - before_ms;
    assert!((3_000..10_000).contains(&passed_ms), "{passed_ms} ms in 3.4 s: twice as fast at most");
    assert!(
        matches!(rig.away[..], [ms] if ms > YEAR_MS as i64 - 10_000),
        "one warning a minute: {:?}",
        rig.away
    );

    rig.clock.unix_ms -= YEAR_MS;
    let (before_ms, pending) = (rig.node.service().clock_ms(), rig.initiation(2, 7, "bobby"));
    // The wall clock of this test hardly moves, so the log's time runs at half speed.
    for _ in 0..130 {
        rig.live(1_000);
    }
    assert!(!rig.node.service().has_session(pending), "what is pending lapses, the clock being right again");
    assert!(rig.node.service().clock_ms() > before_ms + 60_000);
}
