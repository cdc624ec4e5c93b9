//! Starts: whose directory it is, and what becomes of one that is empty or has lost its meta.

use super::*;

#[test]
fn the_floor_raises_the_incarnation_of_a_server_without_a_vote_and_of_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = |floor| {
        let options =
            Options { step: 16 * 1024, incarnation_floor: Incarnation(floor), ..Options::default() };
        Journal::open(Directory::lock(dir.path()).unwrap(), &expected(), options).unwrap()
    };
    assert_eq!(open(10).1.meta.incarnation, Incarnation(11));
    let (mut journal, recovered) = open(100);
    assert_eq!(recovered.meta.incarnation, Incarnation(101));
    journal.vote(VIEW).unwrap();
    drop(journal);
    assert_eq!(open(1_000).1.meta.incarnation, Incarnation(102));
}

#[test]
fn a_directory_is_opened_by_one_process_of_its_own_server_only() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let held = Directory::lock(dir.path()).unwrap();
    assert!(matches!(Directory::lock(dir.path()), Err(JournalError::Locked)));
    assert!(matches!(Journal::init(&held, &meta()), Err(JournalError::NotEmpty(_))));
    let with = |expected: &Expected| Journal::open(held.clone(), expected, Options::default()).err();
    let other = Expected { cluster: ClusterId(1), ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherCluster { .. })));
    let other = Expected { node: NodeId(2), ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherNode { .. })));
    let other = Expected { members: vec![NodeId(1)], ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherMembers { .. })));
    assert!(inspect(dir.path()).unwrap().to_string().contains("server-1 of [1 2 3]"));
}

#[test]
fn a_log_of_another_server_or_cluster_is_refused_whatever_its_records_say() {
    for (cluster, node) in [(meta().cluster, NodeId(2)), (ClusterId(999), meta().node)] {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(own.path());
        let (mut journal, _) = open(own.path());
        journal.append(&entries(1..=5, VIEW), Op(5)).unwrap();
        drop(journal);
        let of_other = Expected { cluster, node, ..expected() };
        let locked = Directory::lock(other.path()).unwrap();
        Journal::init(&locked, &Meta { cluster, node, ..meta() }).unwrap();
        let (mut journal, _) = Journal::open(locked, &of_other, Options::default()).unwrap();
        journal.append(&entries(1..=5, VIEW), Op(5)).unwrap();
        drop(journal);
        for name in logs(own.path()) {
            std::fs::remove_file(own.path().join(name)).unwrap();
        }
        for name in logs(other.path()) {
            std::fs::copy(other.path().join(&name), own.path().join(&name)).unwrap();
        }
        let before = logs(own.path());
        let locked = Directory::lock(own.path()).unwrap();
        let refused = Journal::open(locked, &expected(), Options::default()).err();
        let Some(JournalError::OtherLog { found, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(found, (cluster, node));
        assert_eq!(logs(own.path()), before, "nothing changed");
    }
}

#[test]
fn an_empty_directory_makes_a_learner() {
    let dir = tempfile::tempdir().unwrap();
    let (_, recovered) = open(dir.path());
    assert!(!recovered.meta.voter);
    assert_eq!(recovered.meta.incarnation, Incarnation(1));
}

#[test]
fn inspection_says_what_a_start_without_meta_will_set_aside_and_what_one_has_set_aside_and_why() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=5, VIEW), Op(5)).unwrap();
    store_snapshot(&mut journal, 5, b"a state");
    drop(journal);
    let seen = inspect(dir.path()).unwrap();
    assert!(seen.aside.is_empty() && seen.to_string().contains("damage     none"), "{seen}");
    let log = logs(dir.path()).into_iter().map(|name| format!("old.{name}"));
    let aside: Vec<String> = log.chain(["old.meta".into(), format!("old.{}", snapshot_name(5))]).collect();
    std::fs::write(dir.path().join("meta"), [0xa5_u8; 4608]).unwrap();
    let seen = inspect(dir.path()).unwrap();
    assert!(seen.damaged && seen.aside.is_empty(), "{seen}");
    assert!(seen.to_string().contains("the next start sets it aside"), "{seen}");

    drop(open(dir.path()));
    let seen = inspect(dir.path()).unwrap();
    assert_eq!((&seen.aside, seen.damaged), (&aside, false));
    let text = seen.to_string();
    for line in
        ["old.meta  neither slot of it could be read", "its meta was missing", "copy it elsewhere now"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert!(aside.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn an_empty_directory_is_refused_only_where_there_is_no_other_server_to_learn_from() {
    for (count, learns) in [(1, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let expected = Expected { members: (1..=count).map(NodeId).collect(), ..expected() };
        match Journal::open(Directory::lock(dir.path()).unwrap(), &expected, Options::default()) {
            Ok((_, recovered)) => assert!(learns && !recovered.meta.voter, "{count}"),
            Err(error) => assert!(!learns && matches!(error, JournalError::Forgotten), "{count}: {error}"),
        }
    }
}

#[test]
fn a_server_without_a_vote_is_refused_where_there_is_no_other_server_to_learn_from() {
    let dir = tempfile::tempdir().unwrap();
    let members = vec![NodeId(1)];
    let disk = Directory::lock(dir.path()).unwrap();
    Journal::init(&disk, &Meta { voter: false, ..meta_of(&members) }).unwrap();
    let before = content(dir.path());
    let refused = Journal::open(disk, &Expected { members, ..expected() }, Options::default()).err();
    assert!(matches!(refused, Some(JournalError::Forgotten)), "{refused:?}");
    assert!(content(dir.path()) == before, "nothing is touched");
}

#[test]
fn a_directory_that_has_lost_its_meta_is_left_alone_where_there_is_no_other_server_to_learn_from() {
    for rotten in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let members = vec![NodeId(1)];
        let disk = Directory::lock(dir.path()).unwrap();
        Journal::init(&disk, &meta_of(&members)).unwrap();
        let expected = Expected { members, ..expected() };
        let open = || Journal::open(disk.clone(), &expected, Options::default());
        let (mut journal, _) = open().unwrap();
        journal.append(&entries(1..=5, VIEW), Op(0)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let path = dir.path().join("meta");
        if rotten {
            let len = std::fs::read(&path).unwrap().len();
            std::fs::write(&path, vec![0xa5; len]).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let before = content(dir.path());
        let refused = open().err();
        assert!(matches!(refused, Some(JournalError::Forgotten)), "rotten {rotten}: {refused:?}");
        assert!(content(dir.path()) == before, "rotten {rotten}: nothing is touched");
    }
}
