//! The journal on a disk that crashes and rots, against a model of what it was told.

use recado::config::PlantedBug;
use recado::entry::{Entry, EntryKind};
use recado::id::{ClusterId, Incarnation, NodeId, Op, View};
use recado::journal::{Disk, Expected, Journal, JournalError, Meta, Options, Recovered, inspect_disk};

use crate::disk::MemDisk;
use crate::rng::Rng;

const STEP: u64 = 16 * 1024;

fn expected() -> Expected {
    Expected { cluster: ClusterId(7), node: NodeId(1), members: vec![NodeId(1), NodeId(2), NodeId(3)] }
}

fn options() -> Options {
    Options { step: STEP, ..Options::default() }
}

fn new_disk() -> MemDisk {
    let disk = MemDisk::new();
    let Expected { cluster, node, members } = expected();
    let meta =
        Meta { cluster, node, members, voter: true, incarnation: Incarnation(0), promised: View::ZERO };
    Journal::init(&disk, &meta).unwrap();
    disk
}

fn open(disk: &MemDisk) -> (Journal<MemDisk>, Recovered) {
    Journal::open(disk.clone(), &expected(), options()).unwrap()
}

fn entry(op: u64, view: View, rng: &mut Rng) -> Entry {
    let len = if rng.chance(0.1) { rng.below(3000) } else { rng.below(100) };
    let payload: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
    Entry { op: Op(op), view, kind: EntryKind::Command, payload: payload.into() }
}

/// What the journal was told, and what it may therefore know.
struct Model {
    /// From op 1.
    log: Vec<Entry>,
    /// Logs the journal may show after a crash: the one last synced, and what came after, write by write.
    possible: Vec<Vec<Entry>>,
    commit: u64,
    promised: View,
    view: View,
}

impl Model {
    fn synced(&mut self) {
        self.possible = vec![self.log.clone()];
    }
}

fn whole(model: &Model, recovered: &Recovered) -> Vec<Entry> {
    let covered = recovered.snapshot.as_ref().map_or(0, |stored| stored.op.0 as usize);
    let mut log = model.log_below(covered);
    log.extend(recovered.entries.iter().cloned());
    log
}

impl Model {
    /// What a snapshot at `covered` holds: committed, so the same in every possible log.
    fn log_below(&self, covered: usize) -> Vec<Entry> {
        self.log[..covered].to_vec()
    }
}

fn start() -> Model {
    Model {
        log: Vec::new(),
        possible: vec![Vec::new()],
        commit: 0,
        promised: View::ZERO,
        view: View::new(1, NodeId(1)),
    }
}

fn act(journal: &mut Journal<MemDisk>, model: &mut Model, rng: &mut Rng) {
    match rng.below(12) {
        0..=4 => {
            if model.promised < model.view {
                journal.promise(model.view).unwrap();
                model.promised = model.view;
            }
            let count = 1 + rng.below(4);
            for _ in 0..count {
                let op = model.log.len() as u64 + 1;
                let new = entry(op, model.view, rng);
                journal.append(std::slice::from_ref(&new), Op(model.commit)).unwrap();
                model.log.push(new);
                model.possible.push(model.log.clone());
            }
        }
        5 => {
            // A new view supersedes some of what is not committed.
            model.view = View::new(model.view.round() + 1, NodeId(1 + rng.below(3) as u16));
            journal.promise(model.view).unwrap();
            model.promised = model.view;
            let keep = model.commit + rng.below(model.log.len() as u64 - model.commit + 1);
            let new = entry(keep + 1, model.view, rng);
            journal.append(std::slice::from_ref(&new), Op(model.commit)).unwrap();
            model.log.truncate(keep as usize);
            model.log.push(new);
            model.possible.push(model.log.clone());
        }
        6..=8 => {
            journal.sync().unwrap();
            model.synced();
            assert_eq!(journal.durable(), Op(model.log.len() as u64));
            model.commit += rng.below(model.log.len() as u64 - model.commit + 1);
        }
        9 => journal.mark().unwrap(),
        10 if model.commit > 0 && rng.chance(0.5) => {
            let op = Op(model.commit);
            let job = journal.begin_snapshot(op).unwrap();
            model.synced();
            let view = model.log[model.commit as usize - 1].view;
            let result = job.write(view, &op.0.to_le_bytes());
            journal.finish_snapshot(result).unwrap();
        }
        _ => {
            let round = model.view.round() + 1;
            model.promised = View::new(round, NodeId(3));
            model.view = model.promised;
            journal.promise(model.promised).unwrap();
        }
    }
}

#[test]
fn after_a_crash_what_was_synced_is_there_and_nothing_else_is() {
    for seed in 0..1500 {
        let mut rng = Rng::seeded(seed);
        let (disk, mut model) = (new_disk(), start());
        for life in 0..6 {
            let (mut journal, recovered) = open(&disk);
            let found = whole(&model, &recovered);
            assert!(recovered.meta.voter, "seed {seed}, life {life}: a crash cost the vote");
            assert_eq!(recovered.lost, None, "seed {seed}, life {life}: a crash is no damage");
            assert_eq!(recovered.meta.promised, model.promised, "seed {seed}, life {life}");
            assert_eq!(recovered.meta.incarnation, Incarnation(life + 1), "seed {seed}");
            assert!(model.possible.contains(&found), "seed {seed}, life {life}: {} entries", found.len());
            model.log = found;
            model.synced();
            for _ in 0..rng.below(40) {
                act(&mut journal, &mut model, &mut rng);
            }
            drop(journal);
            // A killed process loses nothing that it wrote; a power cut may.
            if rng.chance(0.7) {
                disk.crash(&mut rng);
            }
        }
    }
}

#[test]
fn damage_is_reported_as_lost_and_never_silently_absent() {
    let (mut lost, mut harmless, mut learners) = (0, 0, 0);
    for seed in 0..1500 {
        let mut rng = Rng::seeded(seed);
        let (disk, mut model) = (new_disk(), start());
        let (mut journal, _) = open(&disk);
        for _ in 0..10 + rng.below(60) {
            act(&mut journal, &mut model, &mut rng);
        }
        journal.sync().unwrap();
        journal.mark().unwrap();
        model.synced();
        drop(journal);
        if rng.chance(0.5) {
            disk.crash(&mut rng);
        }
        let place = disk.flip_bit(&mut rng);
        for start in 0..2 {
            let (_, recovered) = open(&disk);
            if !recovered.meta.voter {
                learners += 1;
                break;
            }
            let found = whole(&model, &recovered);
            assert_eq!(found, model.log[..found.len()], "seed {seed}, {place:?}: what is known is true");
            assert!(found.len() as u64 >= recovered.snapshot.map_or(0, |stored| stored.op.0));
            if found.len() < model.log.len() {
                let gone = recovered
                    .lost
                    .unwrap_or_else(|| panic!("seed {seed}, start {start}, {place:?}: silently absent"));
                assert!(gone.first.0 <= found.len() as u64 + 1, "seed {seed}, {place:?}");
                assert!(gone.last.0 >= model.log.len() as u64, "seed {seed}, {place:?}");
                assert!(gone.view_max >= model.log.last().unwrap().view, "seed {seed}, {place:?}");
                lost += 1;
            } else {
                harmless += 1;
            }
        }
    }
    println!("lost {lost}, harmless {harmless}, learners {learners}");
    assert!(lost > 100 && harmless > 100, "both kinds are met: {lost}, {harmless}");
}

#[test]
fn the_planted_bug_forgets_what_damage_took() {
    let planted = PlantedBug(Some(recado::config::Planted::CorruptionIsTornTail));
    let mut rng = Rng::seeded(1);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    journal.promise(view).unwrap();
    let entries: Vec<Entry> = (1..=100).map(|op| entry(op, view, &mut rng)).collect();
    journal.append(&entries, Op(0)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    drop(journal);
    disk.flip_bit(&mut rng);
    let bad = Options { planted, ..options() };
    let (_, recovered) = Journal::open(disk, &expected(), bad).unwrap();
    assert!(recovered.entries.len() < 100);
    assert_eq!(recovered.lost, None);
}

#[test]
fn a_rotten_meta_slot_makes_a_learner_with_an_empty_log() {
    let mut rng = Rng::seeded(2);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    journal.promise(view).unwrap();
    journal.append(&[entry(1, view, &mut rng)], Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    // Until it hits a slot, and not the gap between them.
    while (512..4096).contains(&disk.flip_bit_of(&mut rng, |name| name == "meta").unwrap().1) {}
    let (mut journal, recovered) = open(&disk);
    assert!(!recovered.meta.voter);
    assert_eq!((recovered.meta.promised, recovered.entries), (View::ZERO, Vec::new()));
    assert!(recovered.meta.incarnation > Incarnation(1), "its incarnations go on");
    journal.vote(view).unwrap();
    drop(journal);
    let (_, recovered) = open(&disk);
    assert!(recovered.meta.voter);
    assert_eq!(recovered.meta.promised, view);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let mut rng = Rng::seeded(3);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    journal.append(&[entry(1, View::new(1, NodeId(1)), &mut rng)], Op(0)).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.promise(View::new(2, NodeId(1))), Err(JournalError::Poisoned)));
    assert_eq!(journal.durable(), Op(0));
}

#[test]
fn a_full_disk_refuses_appends_and_still_promises() {
    let mut rng = Rng::seeded(4);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    disk.set_capacity(Some(disk.bytes()));
    let mut op = 0;
    let full = loop {
        match journal.append(&[entry(op + 1, view, &mut rng)], Op(0)) {
            Ok(()) => op += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, JournalError::Full));
    journal.promise(View::new(2, NodeId(2))).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.durable(), Op(op));
    drop(journal);
    disk.set_capacity(None);
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.entries.len() as u64, op);
}

#[test]
fn a_start_on_a_full_disk_uses_nothing_up_however_often_it_is_tried() {
    let mut rng = Rng::seeded(5);
    // As an orderly stop leaves it, and as one leaves it that met the full disk and gave the reserve back.
    for reserve in [true, false] {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        let own: Vec<Entry> = (1..=9).map(|op| entry(op, View::new(1, NodeId(1)), &mut rng)).collect();
        journal.append(&own, Op(0)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        if !reserve {
            disk.remove("reserve").unwrap();
        }
        let names = disk.list().unwrap();
        // Room for one of the two at most.
        disk.set_capacity(Some(disk.bytes() + if reserve { STEP - 1 } else { 2 * STEP - 1 }));
        for _ in 0..3 {
            let refused = Journal::open(disk.clone(), &expected(), options()).err();
            assert!(matches!(refused, Some(JournalError::Full)), "{refused:?}");
            let now = disk.list().unwrap().into_iter().filter(|name| name != "reserve");
            assert!(now.eq(names.iter().filter(|name| *name != "reserve").cloned()), "no file is left");
            assert!(!reserve || disk.list().unwrap() == names, "nor is the reserve gone");
        }
        disk.set_capacity(Some(disk.bytes() + 2 * STEP));
        let (_, recovered) = open(&disk);
        assert_eq!((recovered.entries, recovered.meta.incarnation), (own, Incarnation(2)));
        assert!(disk.list().unwrap().contains(&"reserve".to_owned()));
    }
}

#[test]
fn an_installed_snapshot_restarts_the_log_behind_it_whenever_the_crash_comes() {
    for seed in 0..300 {
        let mut rng = Rng::seeded(seed);
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        let (old, new) = (View::new(1, NodeId(1)), View::new(2, NodeId(2)));
        journal.promise(new).unwrap();
        let own: Vec<Entry> = (1..=1 + rng.below(30)).map(|op| entry(op, old, &mut rng)).collect();
        journal.append(&own, Op(0)).unwrap();
        journal.install(Op(20), new, b"state at 20").unwrap();
        assert_eq!(journal.last(), (Op(20), new));
        let after: Vec<Entry> = (21..=25).map(|op| entry(op, new, &mut rng)).collect();
        journal.append(&after, Op(20)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.crash(&mut rng);
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.snapshot.unwrap().bytes, b"state at 20", "seed {seed}");
        assert_eq!(recovered.entries, after, "seed {seed}");
        assert_eq!(recovered.lost, None, "seed {seed}");
    }
}

#[test]
fn a_snapshot_that_the_disk_cannot_read_is_as_good_as_rotten() {
    let mut rng = Rng::seeded(6);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    journal.promise(view).unwrap();
    let own: Vec<Entry> = (1..=30).map(|op| entry(op, view, &mut rng)).collect();
    for tens in own.chunks(10) {
        journal.append(tens, Op(0)).unwrap();
        let op = tens[9].op;
        if op < Op(30) {
            let job = journal.begin_snapshot(op).unwrap();
            journal.finish_snapshot(job.write(view, &op.0.to_le_bytes())).unwrap();
        }
    }
    journal.sync().unwrap();
    drop(journal);
    let newest = format!("snap.{:020}", 20);
    disk.fail_reads_of(&newest);
    let seen = inspect_disk(&disk).unwrap();
    assert_eq!(seen.snapshots.iter().map(|snapshot| snapshot.good).collect::<Vec<_>>(), [true, false]);
    assert_eq!((seen.last, seen.lost), (Op(30), None));
    let (_, recovered) = open(&disk);
    assert!(recovered.meta.voter);
    assert_eq!(recovered.snapshot.unwrap().bytes, 10u64.to_le_bytes());
    assert_eq!((recovered.entries, recovered.lost), (own[10..].to_vec(), None));
    assert!(disk.list().unwrap().contains(&format!("old.{newest}")), "set aside for whoever looks after it");
}

#[test]
fn a_replaced_disk_makes_a_learner() {
    let disk = new_disk();
    drop(open(&disk));
    disk.wipe();
    let (journal, recovered) = open(&disk);
    assert!(!journal.meta().voter && !recovered.meta.voter);
    assert!(disk.syncs() > 0 && disk.written() > 0, "and what it is now is durable");
}
