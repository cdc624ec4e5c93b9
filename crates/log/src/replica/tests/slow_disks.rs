//! Time-outs that wait for a disk, and those that do not: one replica on the default timers, driven by
//! hand.

use super::*;

/// The longest wait for a disk.
const MOST: Duration = Duration::from_secs(40);

impl One {
    fn writing(&mut self, from: u16, disk_ms: u32) {
        let view = self.replica.promised();
        self.packet(from, ToPeer::Reply(Reply::Writing { view, disk_ms }));
    }

    /// Candidate 3 sends its PREPARE again, without progress.
    fn hear_3(&mut self, waits_for: WaitsFor, disk_ms: u32) -> Vec<Effect> {
        let view = View::new(1, NodeId(3));
        self.packet(
            3,
            ToPeer::Election(Election::Prepare {
                view,
                progress: 0,
                waits_for,
                disk_ms,
                members_op: Op::ZERO,
            }),
        )
    }

    fn waits(&self) -> bool {
        matches!(self.replica.role, Role::Backup(_))
    }
}

// ---- a candidate's own patience

#[test]
fn a_candidate_goes_on_while_its_own_disk_is_at_work_but_not_for_ever() {
    let mut one = One::new(boot());
    one.prepare();
    one.idle(MOST - MS * 100);
    assert!(one.replica.tries_to_lead());
    one.idle(MS * 200);
    assert!(!one.replica.tries_to_lead(), "a disk that hangs is given up");
}

#[test]
fn a_candidate_waits_for_promises_as_long_as_the_disks_may_take_that_write_them() {
    let mut one = One::new(boot());
    one.prepare();
    one.sync();
    one.pass(MS * 500, |one| one.writing(2, 500));
    assert!(one.replica.tries_to_lead());
    one.idle(MS * 1_600);
    assert!(!one.replica.tries_to_lead(), "four turns without progress");
}

#[test]
fn with_quick_disks_a_candidate_gives_up_after_twice_t_coord() {
    let mut one = One::new(boot());
    one.prepare();
    one.sync();
    one.idle(T_COORD * 2 - MS * 20);
    assert!(one.replica.tries_to_lead());
    one.idle(MS * 60);
    assert!(!one.replica.tries_to_lead());
}

#[test]
fn a_view_that_is_overtaken_or_timed_out_makes_the_next_one_more_patient() {
    let mut one = One::new(boot());
    one.prepare();
    one.packet(
        3,
        ToPeer::Election(Election::Prepare {
            view: View::new(9, NodeId(3)),
            progress: 0,
            waits_for: WaitsFor::Disk,
            disk_ms: 0,
            members_op: Op::ZERO,
        }),
    );
    assert_eq!(one.replica.failed_views, 1, "overtaken before its promise was durable");
    let mut one = One::new(boot());
    one.prepare();
    one.sync();
    one.idle(T_COORD * 3);
    assert_eq!(one.replica.failed_views, 1, "timed out");
}

// ---- patience with another candidate

#[test]
fn a_candidate_that_is_heard_is_waited_for_as_long_as_a_disk_may_take() {
    for waits_for in [WaitsFor::Disk, WaitsFor::Promises] {
        let mut one = One::new(boot());
        one.hear_3(waits_for, 500);
        one.sync();
        one.pass(MS * 1_900, |one| one.hear_3(waits_for, 500));
        assert!(one.waits(), "{waits_for:?}");
        one.pass(MS * 200, |one| one.hear_3(waits_for, 500));
        assert!(!one.waits(), "{waits_for:?}: four turns without progress");
    }
}

#[test]
fn a_candidate_that_is_silent_is_waited_for_as_ever() {
    let mut one = One::new(boot());
    one.hear_3(WaitsFor::Disk, 2_000);
    one.sync();
    one.idle(T_COORD - MS * 20);
    assert!(one.waits());
    one.idle(MS * 60);
    assert!(!one.waits());
}

#[test]
fn a_candidate_that_is_heard_again_in_time_is_waited_for_again() {
    let mut one = One::new(boot());
    one.hear_3(WaitsFor::Disk, 2_000);
    one.sync();
    one.idle(MS * 400);
    assert!(!one.waits());
    one.hear_3(WaitsFor::Disk, 2_000);
    assert!(one.waits());
}

#[test]
fn a_candidate_that_fetches_waits_for_no_disk() {
    let mut one = One::new(boot());
    one.hear_3(WaitsFor::Fetch(Op(3)), 2_000);
    one.sync();
    one.pass(MS * 250, |one| one.hear_3(WaitsFor::Fetch(Op(3)), 2_000));
    assert!(!one.waits());
}

#[test]
fn nobody_waits_for_a_candidate_whose_disk_lags() {
    let mut one = One::new(boot());
    one.hear_3(WaitsFor::Disk, 2_000);
    one.sync();
    one.pass(MS * 250, |one| {
        one.writing(2, 1);
        one.hear_3(WaitsFor::Disk, 2_000)
    });
    assert!(!one.waits());
}

// ---- replies during the wait

#[test]
fn a_server_whose_disk_still_writes_a_promise_replies_writing() {
    let mut one = One::new(boot());
    one.hear_3(WaitsFor::Disk, 0);
    one.idle(MS * 90);
    let effects = one.hear_3(WaitsFor::Disk, 0);
    assert!(sent(
        &effects,
        |packet| matches!(packet, ToPeer::Reply(Reply::Writing { disk_ms, .. }) if *disk_ms >= 80)
    ));
    one.sync();
    let effects = one.hear_3(WaitsFor::Promises, 0);
    assert!(sent(&effects, |packet| matches!(packet, ToPeer::Reply(Reply::Promise(_)))));
}

#[test]
fn a_prepare_states_what_the_candidate_waits_for_and_how_slow_its_disk_is() {
    let mut one = One::new(boot());
    one.prepare();
    let effects = one.idle(MS * 200);
    let waits = |packet: &ToPeer| match packet {
        ToPeer::Election(Election::Prepare { waits_for, disk_ms, .. }) => {
            *waits_for == WaitsFor::Disk && *disk_ms >= 90
        }
        _ => false,
    };
    assert!(sent(&effects, waits));
}

#[test]
fn a_server_that_probes_a_candidate_gets_its_prepare() {
    let mut one = One::new(boot());
    let view = one.prepare();
    for prober in [2, 3] {
        let (last, disk_ms) = ((View::ZERO, Op::ZERO), 0);
        let effects =
            one.packet(prober, ToPeer::Election(Election::Probe { view: View::ZERO, last, disk_ms }));
        assert!(sent(&effects, |packet| {
            matches!(packet, ToPeer::Election(Election::Prepare { view: asked, .. }) if *asked == view)
        }));
        assert!(!sent(&effects, |packet| {
            matches!(packet, ToPeer::Reply(Reply::Agree { .. } | Reply::Bully { .. }))
        }));
    }
}

// ---- a primary and its disk

#[test]
fn a_slow_disk_isolates_a_primary_only_if_a_quorum_of_others_is_clearly_faster() {
    for (second, third, isolated) in [(1, 1, true), (100, 100, true), (1, 400, false), (900, 900, false)] {
        let mut one = One::leading();
        one.replica.propose([].into());
        one.pass(MS * 900, |one| {
            one.echo(2, second);
            one.echo(3, third);
        });
        let role = one.replica.role();
        assert_eq!(role == RoleName::Isolated, isolated, "{second} and {third} ms: {role:?}");
        one.sync();
        assert!(one.replica.accepts(), "{second} and {third} ms: its disk has written");
    }
}

#[test]
fn a_higher_server_with_a_disk_that_lags_is_handed_nothing() {
    for (disk_ms, heir) in [(0, 3), (2_000, 2)] {
        let mut one = One::leading();
        let effects = one.pass(Duration::from_secs(11), |one| {
            one.echo(3, disk_ms);
            one.echo(2, 0);
        });
        let handed = effects.iter().find_map(|effect| match effect {
            Effect::Send { to, packet: ToPeer::Transfer(_), .. } => Some(*to),
            _ => None,
        });
        assert_eq!(handed, Some(NodeId(heir)), "{disk_ms} ms");
    }
}

#[test]
fn a_stopping_primary_waits_as_long_as_the_disks_may_take() {
    let mut one = One::leading();
    let stopped = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Stopped));
    one.echo(2, 500);
    one.echo(3, 500);
    assert!(!stopped(&one.input(Input::Stop)));
    let mut ended = false;
    let began = one.now;
    while !ended {
        one.now = one.now + MS * 9;
        one.echo(2, 500);
        ended = stopped(&one.input(Input::Deadline));
        assert!(one.now.since(began) < MS * 4_100, "a hand-over and an election of four turns each");
    }
    assert!(one.now.since(began) > MS * 3_900);
}

#[test]
fn a_stopping_primary_does_not_wait_for_its_own_disk_which_may_be_full() {
    let mut one = One::leading();
    one.echo(2, 0);
    one.input(Input::Stop);
    // Server 2 follows it, and its promise is never written.
    let view = View::new(one.replica.promised().round() + 1, NodeId(2));
    let waits_for = WaitsFor::Promises;
    one.packet(
        2,
        ToPeer::Election(Election::Prepare {
            view,
            progress: 0,
            waits_for,
            disk_ms: 0,
            members_op: Op::ZERO,
        }),
    );
    let effects = one.idle(MS * 1_300);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Stopped)));
}
