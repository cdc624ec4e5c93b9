//! Surveys made by hand, and what is found in them.

use recado_client::{LENGTHS, Op, Status, View};
use recado_proto::id::{BootId, Incarnation};

use super::*;

const KEY: ClusterKey = ClusterKey([7; 32]);

fn addr(id: u16) -> SocketAddr {
    ([192, 0, 2, id as u8], 10_097).into()
}

fn members() -> Vec<(NodeId, SocketAddr)> {
    (1..=3).map(|id| (NodeId(id), addr(id))).collect()
}

/// A server of three with which all is well; server 3 leads.
fn well(id: u16) -> Surveyed {
    let status = Status {
        node: NodeId(id),
        role: if id == 3 { RoleName::Primary } else { RoleName::Backup },
        view: View::new(5, NodeId(3)),
        applied: Op(100),
        durable: Op(101),
        lag: 1,
        pid: 1,
        incarnation: Incarnation(1),
        uptime_ms: 60_000,
        members: members(),
        refused: vec![],
    };
    let claim = Claim { node: NodeId(id), boot_id: BootId([id as u8; 16]), cluster: ClusterId(7), key: KEY };
    Surveyed {
        addr: addr(id),
        sent: 10,
        round_trips: vec![Duration::from_millis(1); 10],
        is_closed: false,
        carried: LENGTHS.map(|length| (length, length <= 1452)).to_vec(),
        version: Some(VERSION),
        claim: Some(claim),
        told: Some(Told {
            status,
            round_trip: Duration::from_millis(1),
            clock_ms: Some(3),
            log_ms: (id == 3).then_some(1),
            ignored: vec![],
            agreed: Some(77),
            release: Some("0.1.0".into()),
        }),
    }
}

fn silent(id: u16) -> Surveyed {
    Surveyed { round_trips: vec![], carried: vec![], version: None, claim: None, told: None, ..well(id) }
}

fn expected() -> Expected {
    Expected { given: vec![addr(1)], pinned: Some(KEY), ..Expected::default() }
}

/// The three servers after a change of what is told by one of them.
fn with(id: u16, change: impl FnOnce(&mut Told)) -> Vec<Surveyed> {
    let mut found: Vec<_> = (1..=3).map(well).collect();
    let one = found.iter_mut().find(|one| one.addr == addr(id)).unwrap();
    change(one.told.as_mut().unwrap());
    found
}

fn bad(found: &[Surveyed]) -> Vec<Finding> {
    bad_for(found, &expected())
}

fn bad_for(found: &[Surveyed], expected: &Expected) -> Vec<Finding> {
    let all = findings(found, expected);
    for finding in &all {
        let (cause, cure) = (!finding.cause.is_empty(), !finding.cure.is_empty());
        let is_bad = finding.severity != Severity::Ok;
        assert_eq!((cause, cure), (is_bad, is_bad), "{finding:?}");
        assert!(!finding.subject.is_empty() && !finding.seen.is_empty(), "{finding:?}");
        let lines = [&finding.subject, &finding.seen, &finding.cause, &finding.cure];
        assert!(lines.iter().all(|line| !line.contains('\n')), "a line each: {finding:?}");
    }
    all.into_iter().filter(|finding| finding.severity != Severity::Ok).collect()
}

/// The one finding that is not well.
fn only(found: &[Surveyed]) -> Finding {
    let bad = bad(found);
    assert_eq!(bad.len(), 1, "{bad:#?}");
    bad.into_iter().next().unwrap()
}

#[test]
fn three_servers_with_which_all_is_well_give_a_line_for_each_check() {
    let found: Vec<_> = (1..=3).map(well).collect();
    assert_eq!(bad(&found), []);
    let all = findings(&found, &expected());
    for check in ["udp", "path", "version", "cluster", "members", "view", "log", "clock"] {
        assert!(all.iter().any(|finding| finding.check == check), "{check}: {all:#?}");
    }
    let view = all.iter().find(|finding| finding.check == "view").unwrap();
    assert!(view.seen.contains("server-3 192.0.2.3:10097") && view.seen.contains("5.3"), "{view:?}");
}

#[test]
fn the_cause_of_a_silence_depends_on_what_the_others_say() {
    // A backup: down, or a firewall.
    let found = [silent(1), well(2), well(3)];
    let silence = only(&found);
    assert_eq!((silence.check, silence.severity), ("udp", Severity::Fault));
    assert!(silence.subject.contains("server-1") && silence.cause.contains("firewall"), "{silence:?}");
    // Its machine says that nothing is there.
    let closed = Surveyed { is_closed: true, ..silent(1) };
    let silence = only(&[closed, well(2), well(3)]);
    assert!(
        silence.cause.contains("does not run") && silence.cure.contains("systemctl start"),
        "{silence:?}"
    );
    // The others follow it, so it runs.
    let unheard = bad(&[well(1), well(2), silent(3)]);
    assert_eq!(unheard.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["udp", "view"]);
    assert!(unheard[0].cause.contains("it runs") && unheard[0].cure.contains("10097"), "{unheard:?}");
    assert!(unheard[1].cause.contains("server-3") && unheard[1].severity == Severity::Fault);
    // An address that was given, and that no server has.
    let stale = Surveyed { addr: addr(9), ..silent(9) };
    let expected = Expected { given: vec![addr(9), addr(1)], ..expected() };
    let bad = bad_for(&[well(1), well(2), well(3), stale], &expected);
    assert!(bad.len() == 1 && bad[0].cause.contains("no server of the cluster"), "{bad:?}");
    assert!(bad[0].cure.contains("192.0.2.1:10097"), "{bad:?}");
}

#[test]
fn a_server_behind_address_translation_is_found_from_both_of_its_addresses() {
    let outside = Surveyed { addr: addr(51), ..well(1) };
    let bad = bad(&[silent(1), well(2), well(3), outside]);
    assert_eq!(bad.len(), 2, "{bad:#?}");
    assert!(bad[0].cause.contains("192.0.2.51"), "{bad:?}");
    assert_eq!((bad[1].severity, bad[1].check), (Severity::Note, "udp"));
}

#[test]
fn nobody_there_is_a_fault_for_each_address_and_nothing_else_is_claimed() {
    let bad = bad(&[silent(1), silent(2)]);
    assert_eq!(bad.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["udp", "udp"]);
}

#[test]
fn losses_are_a_warning_from_two_on() {
    for (answered, severity) in [(9, Severity::Note), (8, Severity::Warning), (1, Severity::Warning)] {
        let lossy = Surveyed { round_trips: vec![Duration::from_millis(1); answered], ..well(1) };
        let finding = only(&[lossy, well(2), well(3)]);
        assert_eq!((finding.check, finding.severity), ("udp", severity), "{answered}");
        assert_eq!(finding.values["answered"], answered);
    }
    let far = Surveyed { round_trips: vec![Duration::from_millis(500); 10], ..well(1) };
    assert_eq!(only(&[far, well(2), well(3)]).severity, Severity::Note);
}

#[test]
fn a_path_that_carries_no_handshake_is_a_fault_and_a_short_one_is_a_note() {
    let of = |most: usize| {
        let carried = LENGTHS.map(|length| (length, length <= most)).to_vec();
        bad(&[Surveyed { carried, ..well(1) }, well(2), well(3)])
    };
    assert_eq!(of(1452), []);
    assert_eq!(of(8952), []);
    let short = of(1200);
    assert_eq!((short.len(), short[0].check, short[0].severity), (1, "path", Severity::Note));
    let none = of(100);
    assert!(none[0].severity == Severity::Fault && none[0].cause.contains("1200"), "{none:?}");
}

#[test]
fn another_version_names_the_side_to_update() {
    let other = |version| {
        let one = Surveyed { version: Some(version), claim: None, told: None, carried: vec![], ..well(1) };
        only(&[one, well(2), well(3)])
    };
    assert!(other(VERSION + 1).cure.contains("recado here"));
    assert!(other(0).cure.contains("recadod there"));
    let mute = Surveyed { told: None, ..well(1) };
    let finding = only(&[mute, well(2), well(3)]);
    assert!(finding.check == "version" && finding.cause.contains("overloaded"), "{finding:?}");
    let finding = only(&with(2, |told| told.release = Some("0.2.0".into())));
    assert!(finding.severity == Severity::Note && finding.seen.contains("0.1.0, 0.2.0"), "{finding:?}");
    // A build that tells neither clock nor digest is no fault.
    assert_eq!(bad(&with(2, |told| (told.release, told.agreed, told.clock_ms) = (None, None, None))), []);
}

#[test]
fn a_cluster_is_pinned_known_new_or_changed() {
    let found: Vec<_> = (1..=3).map(well).collect();
    let known = |key, addresses: &[u16]| KnownCluster {
        cluster: ClusterId(7),
        key,
        since_unix_ms: 1,
        addresses: addresses.iter().map(|id| addr(*id)).collect(),
        members: vec![],
    };
    let of = |pinned, known| bad_for(&found, &Expected { pinned, known, ..expected() });
    assert_eq!(of(Some(KEY), vec![]), []);
    assert_eq!(of(None, vec![known(KEY, &[1])]), []);
    let new = of(None, vec![]);
    assert!(new.len() == 1 && new[0].severity == Severity::Note, "{new:?}");
    assert!(new[0].seen.contains(&KEY.fingerprint().to_string()), "{new:?}");
    let other = ClusterKey([8; 32]);
    for changed in [of(Some(other), vec![]), of(None, vec![known(other, &[2])])] {
        assert!(changed.len() == 1 && changed[0].severity == Severity::Fault, "{changed:?}");
        assert!(changed[0].cause.contains(&other.fingerprint().to_string()), "{changed:?}");
    }
    let mut two = found.clone();
    two[0].claim.as_mut().unwrap().cluster = ClusterId(8);
    let bad = bad(&two);
    assert!(bad.iter().any(|finding| finding.cause.contains("several clusters")), "{bad:#?}");
}

#[test]
fn a_server_with_another_secret_is_named_and_not_taken_for_another_cluster() {
    let other = ClusterKey([8; 32]);
    let mut found: Vec<_> = (1..=3).map(well).collect();
    found[0].claim.as_mut().unwrap().key = other;
    let own = |node| Some(Own { node: NodeId(node), cluster: ClusterId(7), agreed: 77 });
    // From a client that has pinned the key, from a server with the right secret, and from that one itself.
    for (pinned, own) in [(Some(KEY), None), (Some(KEY), own(2)), (Some(other), own(1)), (None, None)] {
        let bad = bad_for(&found, &Expected { pinned, own, ..expected() });
        let told: Vec<_> = bad.iter().filter(|finding| finding.severity == Severity::Fault).collect();
        assert_eq!(told.len(), 1, "{bad:#?}");
        assert_eq!((told[0].check, told[0].subject.as_str()), ("cluster", "server-1 192.0.2.1:10097"));
        assert!(told[0].cause.contains("another cluster.secret"), "{told:?}");
        assert!(told[0].cure.contains("copy cluster.secret from server-2 192.0.2.2:10097"), "{told:?}");
    }
    // While it does not run, by its file.
    let rest = [silent(1), well(2), well(3)];
    let bad = bad_for(&rest, &Expected { pinned: Some(other), own: own(1), ..expected() });
    let told = bad.iter().find(|finding| finding.check == "cluster").unwrap();
    assert!(
        told.cause.contains("this machine's cluster.secret") && told.cause.contains("server-2"),
        "{told:?}"
    );
    assert!(told.cure.contains("copy cluster.secret"), "{told:?}");
}

#[test]
fn servers_that_name_other_members_or_have_other_settings_are_told_apart() {
    let finding = only(&with(2, |told| told.status.members.truncate(2)));
    assert_eq!((finding.check, finding.severity), ("members", Severity::Fault));
    assert!(finding.cause.contains("server-2"), "{finding:?}");
    for (part, setting) in AGREED.into_iter().enumerate() {
        let finding = only(&with(2, |told| told.agreed = Some(77 ^ (1 << (48 - 16 * part)))));
        assert_eq!((finding.check, finding.severity), ("members", Severity::Warning));
        assert!(finding.cause.contains(setting) && finding.cause.contains("server-2"), "{finding:?}");
        let others = AGREED.into_iter().filter(|other| *other != setting);
        assert!(others.into_iter().all(|other| !finding.cause.contains(other)), "{finding:?}");
    }
}

#[test]
fn a_file_that_was_changed_since_the_start_is_found_on_its_machine() {
    let found: Vec<_> = (1..=3).map(well).collect();
    let of =
        |agreed| Expected { own: Some(Own { node: NodeId(1), cluster: ClusterId(7), agreed }), ..expected() };
    assert_eq!(bad_for(&found, &of(77)), []);
    let bad = bad_for(&found, &of(78));
    assert!(bad.len() == 1 && bad[0].cause.contains("since the server has started"), "{bad:?}");
    assert!(bad[0].cause.contains("[retention]"), "{bad:?}");
    // Before its start, by what the others run with.
    let stopped = bad_for(&[silent(1), well(2), well(3)], &of(78));
    let file = stopped.iter().find(|finding| finding.check == "members").unwrap();
    assert!(file.subject.contains("server-1") && file.cause.contains("[retention]"), "{stopped:?}");
    assert!(file.seen.contains("server-2") && file.severity == Severity::Warning, "{stopped:?}");
}

#[test]
fn two_processes_with_one_id_are_a_fault() {
    let mut twin = Surveyed { addr: addr(2), ..well(1) };
    twin.claim.as_mut().unwrap().boot_id = BootId([9; 16]);
    let bad = bad(&[well(1), twin, well(3)]);
    assert!(bad.iter().any(|finding| finding.cause.contains("two machines run as one server")), "{bad:#?}");
}

#[test]
fn without_a_primary_the_reason_is_told() {
    let role = |role| {
        let mut found: Vec<_> = (1..=3).map(well).collect();
        found.iter_mut().for_each(|one| one.told.as_mut().unwrap().status.role = role);
        only(&found)
    };
    assert!(role(RoleName::Candidate).cause.contains("election"));
    let isolated = with(3, |told| told.status.role = RoleName::Isolated);
    let finding = only(&isolated);
    assert!(finding.severity == Severity::Fault && finding.cause.contains("server-3"), "{finding:?}");
    let few = bad(&[well(1), silent(2), silent(3)]);
    assert!(few.iter().any(|finding| finding.cause.contains("only 1 of 3")), "{few:#?}");
}

#[test]
fn two_primaries_are_a_warning_in_two_views_and_a_fault_in_one() {
    let older =
        with(1, |told| (told.status.role, told.status.view) = (RoleName::Primary, View::new(4, NodeId(1))));
    let finding = only(&older);
    assert!(
        finding.severity == Severity::Warning && finding.cause.contains("just been replaced"),
        "{finding:?}"
    );
    let same = only(&with(1, |told| told.status.role = RoleName::Primary));
    assert!(same.severity == Severity::Fault && same.values["primaries"] == 2, "{same:?}");
}

#[test]
fn a_backup_in_another_view_or_that_learns_is_a_warning() {
    let apart = only(&with(1, |told| told.status.view = View::new(4, NodeId(2))));
    assert!(apart.severity == Severity::Warning && apart.cause.contains("server-1"), "{apart:?}");
    let learner = only(&with(1, |told| told.status.role = RoleName::Learner));
    assert!(learner.severity == Severity::Warning && learner.cause.contains("no vote"), "{learner:?}");
}

#[test]
fn a_log_that_is_far_behind_is_a_warning_and_one_that_waits_is_a_note() {
    let mut found = with(1, |_| {});
    for one in &mut found[1..] {
        one.told.as_mut().unwrap().status.applied = Op(2_000);
    }
    let finding = only(&found);
    assert_eq!((finding.check, finding.severity), ("log", Severity::Warning));
    assert_eq!(finding.values["behind"], 1_900);
    assert_eq!(only(&with(3, |told| told.status.lag = 5_000)).severity, Severity::Note);
}

#[test]
fn the_clock_that_is_wrong_is_the_one_that_differs_from_most() {
    let finding = only(&with(2, |told| told.clock_ms = Some(-90_000)));
    assert_eq!((finding.check, finding.severity), ("clock", Severity::Warning));
    assert!(finding.subject.contains("server-2") && finding.cause.contains("90 s behind"), "{finding:?}");
    assert!(finding.cure.contains("of that machine") && finding.values["ahead_ms"] == -90_000, "{finding:?}");
    let mut all = with(1, |_| {});
    all.iter_mut().for_each(|one| one.told.as_mut().unwrap().clock_ms = Some(5_000));
    let bad = bad(&all);
    assert_eq!(bad.len(), 3);
    assert!(
        bad.iter().all(|one| one.severity == Severity::Note && one.cure.contains("this machine")),
        "{bad:?}"
    );
    let alone = bad_of_one(-3 * 3_600_000);
    assert!(alone.cause.contains("or this machine's") && alone.seen.contains("3 h behind"), "{alone:?}");
}

#[test]
fn a_log_whose_time_is_far_from_the_primarys_clock_is_a_warning_that_says_what_to_wait_for() {
    const DAY: i64 = 24 * 3_600_000;
    for (away_ms, seen, cause) in [
        (3 * DAY, "72 h ahead of the clock of server-3", "half speed"),
        (-DAY, "24 h behind", "a day an hour"),
    ] {
        let finding = only(&with(3, |told| told.log_ms = told.clock_ms.map(|ms| ms + away_ms)));
        assert_eq!((finding.check, finding.severity), ("clock", Severity::Warning));
        assert!(finding.seen.contains(seen) && finding.cause.contains(cause), "{finding:?}");
        assert!(finding.cure.contains("wait") && finding.values["ahead_ms"] == away_ms, "{finding:?}");
    }
    // A backup's time is not the log's, and a primary of an earlier build tells none.
    assert_eq!(bad(&with(3, |told| told.log_ms = None)), []);
    // What counts is the difference from the clock that the log follows, not from this machine's.
    let mut all = with(1, |_| {});
    for told in all.iter_mut().filter_map(|one| one.told.as_mut()) {
        (told.clock_ms, told.log_ms) = (Some(5 * DAY), told.log_ms.map(|_| 5 * DAY));
    }
    assert!(bad(&all).iter().all(|one| one.subject != "the log"), "{:?}", bad(&all));
}

#[test]
fn a_server_that_runs_on_an_old_copy_of_its_data_is_a_fault_and_not_taken_for_a_firewall() {
    let mut found = with(1, |told| (told.status.role, told.status.view) = (RoleName::Candidate, View::ZERO));
    for other in &mut found[1..3] {
        other.told.as_mut().unwrap().ignored = vec![NodeId(1)];
    }
    let finding = only(&found);
    assert_eq!((finding.check, finding.severity), ("members", Severity::Fault));
    assert!(finding.subject.contains("server-1 192.0.2.1:10097"), "{finding:?}");
    assert!(finding.seen.contains("server-2") && finding.seen.contains("server-3"), "{finding:?}");
    assert!(finding.cause.contains("old data directory") && finding.cure.contains("mkdir"), "{finding:?}");
    assert!(!finding.cure.contains("UDP"), "{finding:?}");
    assert!(finding.cure.contains("elsewhere") && finding.cure.contains("do not restart it"), "{finding:?}");
}

#[test]
fn no_directory_is_emptied_where_too_few_servers_would_be_left_that_vote() {
    // Two of three run on old copies, and the third, with the newest data, ignores them.
    let mut found: Vec<_> = (1..=3).map(well).collect();
    for one in &mut found[..2] {
        one.told.as_mut().unwrap().status.role = RoleName::Candidate;
    }
    let newest = found[2].told.as_mut().unwrap();
    (newest.status.role, newest.ignored) = (RoleName::Candidate, vec![NodeId(1), NodeId(2)]);
    let elect = bad(&found);
    // They have elected one of themselves without it.
    for (one, role) in found.iter_mut().zip([RoleName::Backup, RoleName::Primary]) {
        one.told.as_mut().unwrap().status.role = role;
        one.told.as_mut().unwrap().status.view = View::new(6, NodeId(2));
    }
    let led = bad(&found);
    // One is ignored, and another has lost its disk.
    let learner = with(1, |told| told.status.role = RoleName::Learner).into_iter().map(|mut one| {
        let told = one.told.as_mut().unwrap();
        told.ignored = if told.status.node == NodeId(3) { vec![NodeId(2)] } else { vec![] };
        one
    });
    let lost = bad(&learner.collect::<Vec<_>>());
    for (bad, ignored) in [(elect, 2), (led, 2), (lost, 1)] {
        let of_them: Vec<_> =
            bad.iter().filter(|finding| finding.values.contains_key("ignored_by")).collect();
        assert_eq!(of_them.len(), ignored, "{bad:#?}");
        for finding in of_them {
            assert!(
                finding.cure.starts_with("TOUCH NOTHING") && !finding.cure.contains("mkdir"),
                "{finding:?}"
            );
            assert!(finding.cure.contains("copied elsewhere"), "{finding:?}");
            assert!(finding.cause.contains(&format!("{ignored} of 3 servers are ignored")), "{finding:?}");
        }
        assert!(bad.iter().all(|finding| !finding.cure.contains("UDP")), "{bad:#?}");
    }
}

#[test]
fn too_few_servers_that_vote_are_told_as_such_and_not_taken_for_a_firewall() {
    let of = |roles: [RoleName; 3]| {
        let mut found: Vec<_> = (1..=3).map(well).collect();
        for (one, role) in found.iter_mut().zip(roles) {
            one.told.as_mut().unwrap().status.role = role;
        }
        found
    };
    use RoleName::{Candidate, Isolated, Learner, Primary};
    for roles in [
        [Learner, Learner, Candidate],
        [Learner, Learner, Isolated],
        [Learner, Learner, Learner],
        // Who leads hears them, and yet they acknowledge nothing.
        [Learner, Learner, Primary],
    ] {
        let finding = only(&of(roles));
        assert_eq!((finding.check, finding.severity), ("view", Severity::Fault), "{roles:?}");
        let lost = roles.iter().filter(|role| **role == Learner).count();
        assert!(finding.cause.contains(&format!("{lost} of 3 servers have lost")), "{finding:?}");
        assert!(finding.cure.contains("put their own data directories back"), "{finding:?}");
        assert!(finding.cure.contains("recadod init anew") && !finding.cure.contains("UDP"), "{finding:?}");
    }
    let finding = only(&of([Learner, Candidate, Candidate]));
    assert!(finding.cause.contains("election"), "two that vote are enough: {finding:?}");
    // Of two servers both votes are needed, and the third, unheard, may have its own.
    let bad = bad(&[of([Learner, Candidate, Candidate]).swap_remove(0), silent(2), silent(3)]);
    assert!(bad.iter().any(|finding| finding.cause.contains("only 1 of 3")), "{bad:#?}");
}

/// A cluster of one whose clock differs.
fn bad_of_one(clock_ms: i64) -> Finding {
    let mut one = well(3);
    let told = one.told.as_mut().unwrap();
    (told.clock_ms, told.log_ms) = (Some(clock_ms), Some(clock_ms));
    told.status.members = vec![(NodeId(3), addr(3))];
    only(&[one])
}

#[test]
fn a_queue_that_was_full_and_other_versions_are_noted() {
    for (reason, word) in
        [(RefusedDatagram::QueueFull, "queue"), (RefusedDatagram::Version, "another version")]
    {
        let finding =
            only(&with(1, |told| told.status.refused = vec![(reason, 4), (RefusedDatagram::Seal, 9)]));
        assert!(finding.severity == Severity::Note && finding.seen.contains(word), "{finding:?}");
    }
}
