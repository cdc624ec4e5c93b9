//! Tests of the journal on a disk that crashes and rots, against a model of the calls that were made to it.

use recado::config::{Planted, PlantedBug};
use recado_log::journal::{
    Disk, DiskFile, Expected, Journal, JournalError, Meta, MetaState, Options, Recovered, inspect_disk,
};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{BootId, ClusterId, Incarnation, KnownBoot, NodeId, Op, View};

use crate::disk::{Damage, Extent, MemDisk};
use crate::rng::Rng;
use crate::runs::from_environment;
use crate::storage::{install_in_pieces, write_in_pieces};

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
    Journal::init(&disk, &Meta::new(cluster, node, members)).unwrap();
    disk
}

/// The bytes of the newest snapshot.
fn bytes_of_newest(journal: &mut Journal<MemDisk>) -> Vec<u8> {
    journal.read_snapshot(Op::ZERO, 0, 1 << 20).unwrap().unwrap().bytes
}

fn open(disk: &MemDisk) -> (Journal<MemDisk>, Recovered) {
    Journal::open(disk.clone(), &expected(), options()).unwrap()
}

/// A boot of a server that another server has named.
fn heard(node: u16, incarnation: u64) -> (NodeId, KnownBoot) {
    (NodeId(node), KnownBoot { incarnation: Incarnation(incarnation), boot_id: None })
}

/// The highest known incarnation of a server.
fn known_of(meta: &Meta, node: u16) -> u64 {
    meta.members
        .iter()
        .find(|member| member.id == NodeId(node))
        .map_or(0, |member| member.known.incarnation.0)
}

fn entry(op: u64, view: View, rng: &mut Rng) -> Entry {
    let len = if rng.chance(0.1) { rng.below(3000) } else { rng.below(100) };
    let payload: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
    Entry { op: Op(op), view, kind: EntryKind::Command, payload: payload.into() }
}

/// The journal's expected content: the calls that were made, and the results that each may have.
struct Model {
    planted: PlantedBug,
    /// The entries from op 1 on.
    log: Vec<Entry>,
    /// The logs that the journal may show after a crash: the last synced one, and one for each later write.
    possible: Vec<Vec<Entry>>,
    commit: u64,
    /// The lower bound of the promise, and the view asked for last.
    promised: View,
    asked: View,
    view: View,
    /// The newest snapshot that is certainly stored.
    snapshot: u64,
    /// The incarnation of the other server: the lower bound, and the one given to the journal last.
    known: u64,
    told: u64,
    incarnation: Incarnation,
}

impl Model {
    fn new(planted: Option<Planted>) -> Model {
        Model {
            planted: PlantedBug(planted),
            log: Vec::new(),
            possible: vec![Vec::new()],
            commit: 0,
            promised: View::ZERO,
            asked: View::ZERO,
            view: View::new(1, NodeId(1)),
            snapshot: 0,
            known: 0,
            told: 0,
            incarnation: Incarnation(0),
        }
    }

    fn open(&self, disk: &MemDisk) -> Result<(Journal<MemDisk>, Recovered), JournalError> {
        Journal::open(disk.clone(), &expected(), Options { planted: self.planted, ..options() })
    }

    fn synced(&mut self) {
        self.possible = vec![self.log.clone()];
        self.known = self.told;
    }

    /// Returns the recovered log, with the entries below its snapshot. Those are committed, so they are the
    /// same in every possible log.
    fn whole(&self, recovered: &Recovered) -> Vec<Entry> {
        let covered = recovered.snapshot.as_ref().map_or(0, |stored| stored.op.0 as usize);
        let mut log = self.log[..covered].to_vec();
        log.extend(recovered.entries.iter().cloned());
        log
    }

    /// Checks a recovery after a crash without damage: nothing is lost, nothing is invented, and no damage is
    /// reported.
    fn accept(&mut self, recovered: &Recovered) -> Result<(), String> {
        let held =
            |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {recovered:?}")) };
        held(recovered.meta.voter, "a crash cost the vote")?;
        held(recovered.lost.is_none(), "a crash is no damage")?;
        let promised = recovered.meta.promised;
        held(promised >= self.promised && promised <= self.asked, "a promise")?;
        held(recovered.meta.incarnation > self.incarnation, "an incarnation came twice")?;
        let covered = recovered.snapshot.as_ref().map_or(0, |stored| stored.op.0);
        held(covered >= self.snapshot, "a snapshot that was reported is gone")?;
        let known = known_of(&recovered.meta, 2);
        held(known >= self.known && known <= self.told, "an incarnation heard of")?;
        let found = self.whole(recovered);
        held(self.possible.contains(&found), "the log is none that was written")?;
        let commit = recovered.commit.0 as usize;
        held(commit <= found.len() && recovered.commit.0 <= self.commit, "what is committed")?;
        self.log = found;
        self.commit = self.commit.min(self.log.len() as u64);
        self.snapshot = covered;
        (self.promised, self.asked) = (promised, promised);
        (self.known, self.told) = (known, known);
        self.incarnation = recovered.meta.incarnation;
        self.possible = vec![self.log.clone()];
        Ok(())
    }

    /// Checks that the mark names the newest segment before anything is appended to it.
    fn marked(&self, disk: &MemDisk) -> Result<(), String> {
        let newest = disk.list().unwrap().into_iter().rfind(|name| name.starts_with("log."));
        match inspect_disk(disk).unwrap().meta {
            MetaState::Good { mark, .. } if newest == Some(format!("log.{:020}", mark.segment)) => Ok(()),
            other => Err(format!("{newest:?} is not named by {other:?}")),
        }
    }

    fn act(
        &mut self,
        journal: &mut Journal<MemDisk>,
        installs: bool,
        rng: &mut Rng,
    ) -> Result<(), JournalError> {
        match rng.below(15) {
            12 if installs && rng.chance(0.5) => self.install(journal, rng),
            kind => self.perform(kind, journal, rng),
        }
    }

    fn perform(
        &mut self,
        kind: u64,
        journal: &mut Journal<MemDisk>,
        rng: &mut Rng,
    ) -> Result<(), JournalError> {
        match kind {
            0..=4 => {
                if self.asked < self.view {
                    self.promise(journal, self.view)?;
                }
                for _ in 0..1 + rng.below(4) {
                    let op = self.log.len() as u64 + 1;
                    self.append(journal, entry(op, self.view, rng))?;
                }
            }
            5 => {
                // A new view supersedes some uncommitted entries.
                self.view = View::new(self.view.round() + 1, NodeId(1 + rng.below(3) as u16));
                self.promise(journal, self.view)?;
                let keep = self.commit + rng.below(self.log.len() as u64 - self.commit + 1);
                self.append(journal, entry(keep + 1, self.view, rng))?;
            }
            6..=8 => {
                journal.sync()?;
                self.synced();
                assert_eq!(journal.durable(), Op(self.log.len() as u64));
                self.commit += rng.below(self.log.len() as u64 - self.commit + 1);
            }
            // The others may have synced entries that this server has not.
            9 => self.commit += rng.below(self.log.len() as u64 - self.commit + 1),
            10 => journal.mark()?,
            11 if self.commit > self.snapshot => {
                let op = Op(self.commit);
                let view = self.log[self.commit as usize - 1].view;
                let job = journal.begin_snapshot(op)?;
                self.possible = vec![self.log.clone()];
                let removal = journal.add_snapshot(write_in_pieces(job, view, &op.0.to_le_bytes(), 3))?;
                self.snapshot = op.0;
                if rng.chance(0.5) {
                    // Another thread removes the files, so that anything may be written meanwhile.
                    self.perform(0, journal, rng)?;
                }
                removal.map_or(Ok(()), |removal| journal.finish_removal(removal.run()))?;
            }
            13 => {
                self.told += 1;
                journal.know(&[heard(2, self.told)])?;
            }
            _ => {
                self.view = View::new(self.view.round() + 1, NodeId(3));
                self.promise(journal, self.view)?;
            }
        }
        Ok(())
    }

    fn promise(&mut self, journal: &mut Journal<MemDisk>, view: View) -> Result<(), JournalError> {
        self.asked = view;
        journal.promise(view)?;
        (self.promised, self.known) = (view, self.told);
        Ok(())
    }

    fn append(&mut self, journal: &mut Journal<MemDisk>, new: Entry) -> Result<(), JournalError> {
        let before = self.log.clone();
        self.log.truncate(new.op.0 as usize - 1);
        self.log.push(new.clone());
        self.possible.push(self.log.clone());
        let appended = journal.append(std::slice::from_ref(&new), Op(self.commit));
        if matches!(appended, Err(JournalError::Full)) {
            // A full disk means that nothing was written.
            self.log = before;
            self.possible.pop();
        }
        appended
    }

    /// Installs a peer's snapshot. The peer's log differs from this one above the commit, and may be shorter.
    fn install(&mut self, journal: &mut Journal<MemDisk>, rng: &mut Rng) -> Result<(), JournalError> {
        self.view = View::new(self.view.round() + 1, NodeId(2));
        self.promise(journal, self.view)?;
        let op = self.commit + 1 + rng.below(5);
        let mut log = self.log[..self.commit as usize].to_vec();
        log.extend((self.commit + 1..=op).map(|op| entry(op, self.view, rng)));
        self.log = log;
        self.possible.push(self.log.clone());
        // The snapshot is committed, even if this copy of it is lost.
        self.commit = op;
        install_in_pieces(journal, (Op(op), self.view), b"of others", 4)?;
        self.snapshot = op;
        self.possible = vec![self.log.clone()];
        Ok(())
    }
}

/// Runs the journal several times, each run ended by a crash, some in the middle of a disk operation.
fn crashes(seed: u64, deaths: bool, planted: Option<Planted>) -> Result<(), String> {
    let mut rng = Rng::seeded(seed);
    let (disk, mut model) = (new_disk(), Model::new(planted));
    for run in 0..6 {
        if deaths && rng.chance(0.7) {
            disk.die_after(Some(rng.below(90)));
        }
        one_run(&disk, &mut model, true, &mut rng).map_err(|why| format!("seed {seed}, run {run}: {why}"))?;
        // A killed process loses nothing that it wrote. A power cut may lose unsynced data.
        disk.die_after(None);
        if rng.chance(0.7) {
            disk.crash(&mut rng);
        }
    }
    Ok(())
}

fn one_run(disk: &MemDisk, model: &mut Model, installs: bool, rng: &mut Rng) -> Result<(), String> {
    let died = |result: Result<(), JournalError>| match result {
        Ok(()) => Ok(false),
        Err(_) if disk.has_died() => Ok(true),
        Err(error) => Err(format!("{error:?}")),
    };
    let mut journal = match model.open(disk) {
        Err(_) if disk.has_died() => return Ok(()),
        Err(error) => return Err(format!("{error:?}")),
        Ok((journal, recovered)) => {
            model.accept(&recovered)?;
            journal
        }
    };
    for _ in 0..rng.below(40) {
        if died(model.act(&mut journal, installs, rng))? {
            return Ok(());
        }
        if rng.chance(0.2) {
            model.marked(disk)?;
        }
    }
    Ok(())
}

/// 1,500, or the number in `SIM_SEEDS`, but at least 200, because fewer would prove little.
fn crash_seeds() -> u64 {
    from_environment("SIM_SEEDS").unwrap_or(1_500).clamp(40, 1_500)
}

#[test]
fn after_a_crash_what_was_synced_is_there_and_nothing_else_is() {
    (0..crash_seeds()).try_for_each(|seed| crashes(seed, false, None)).unwrap();
}

#[test]
fn a_death_in_the_middle_of_anything_is_no_more_than_a_crash() {
    (0..crash_seeds()).try_for_each(|seed| crashes(seed, true, None)).unwrap();
}

/// A run with every operation of a journal: views that supersede, snapshots until older ones and their logs
/// are removed, a peer's snapshot, and operations after it. Returns true if it came to its end.
fn scripted_run(disk: &MemDisk, model: &mut Model, rng: &mut Rng) -> Result<bool, String> {
    const APPEND: u64 = 0;
    const SUPERSEDE: u64 = 5;
    const SYNC: u64 = 6;
    const MARK: u64 = 10;
    const SNAPSHOT: u64 = 11;
    const KNOW: u64 = 13;
    const PROMISE: u64 = 14;
    let ended = |result: Result<(), JournalError>| match result {
        Ok(()) => Ok(false),
        Err(_) if disk.has_died() => Ok(true),
        Err(error) => Err(format!("{error:?}")),
    };
    let (mut journal, recovered) = match model.open(disk) {
        Err(_) if disk.has_died() => return Ok(false),
        other => other.map_err(|error| format!("{error:?}"))?,
    };
    model.accept(&recovered)?;
    for install in [false, true] {
        if install && ended(model.install(&mut journal, rng))? {
            return Ok(false);
        }
        for _ in 0..5 {
            for kind in [APPEND, KNOW, SYNC, MARK, SUPERSEDE, APPEND, PROMISE, SYNC, SNAPSHOT, APPEND] {
                if ended(model.perform(kind, &mut journal, rng))? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

#[test]
fn a_kill_at_every_single_operation_of_a_process_is_no_more_than_a_crash() {
    let mut operations = 0;
    for seed in 0..8 {
        for last in 0.. {
            let mut rng = Rng::seeded(seed);
            let (disk, mut model) = (new_disk(), Model::new(None));
            one_run(&disk, &mut model, true, &mut rng).unwrap();
            disk.die_after(Some(last));
            let lived = match seed {
                0 => scripted_run(&disk, &mut model, &mut rng).map(drop),
                _ => one_run(&disk, &mut model, true, &mut rng),
            };
            lived.unwrap_or_else(|why| panic!("{seed}, {last}: {why}"));
            if !disk.has_died() {
                let names = disk.list().unwrap();
                let snapshots = names.iter().filter(|name| name.starts_with("snap.")).count();
                assert!(seed > 0 || snapshots == 3, "older ones were removed: {names:?}");
                break;
            }
            operations += 1;
            // No unsynced data survives, or all of it, or any part.
            for (crash, survives) in (0..).zip([0.0, 1.0, 0.5, 0.5, 0.5, 0.5]) {
                let (disk, mut rng) = (disk.copy(), Rng::seeded(crash));
                disk.lose_power(survives, &mut rng);
                let mut model = Model { possible: model.possible.clone(), log: model.log.clone(), ..model };
                let recovered = model.open(&disk).unwrap().1;
                model.accept(&recovered).unwrap_or_else(|why| panic!("{seed}, {last}, {crash}: {why}"));
            }
        }
    }
    println!("{operations} deaths");
    assert!(operations > 200, "{operations}");
}

/// A run that ends in order, and then damage to its files before the next run.
struct Damaged {
    model: Model,
    recovered: Recovered,
    place: String,
}

fn damaged(seed: u64, planted: Option<Planted>) -> Damaged {
    let mut rng = Rng::seeded(seed);
    let (disk, mut model) = (new_disk(), Model::new(planted));
    let (mut journal, recovered) = model.open(&disk).unwrap();
    model.accept(&recovered).unwrap();
    for _ in 0..10 + rng.below(60) {
        model.act(&mut journal, false, &mut rng).unwrap();
    }
    journal.sync().unwrap();
    journal.mark().unwrap();
    model.synced();
    drop(journal);
    if rng.chance(0.5) {
        disk.crash(&mut rng);
    }
    let (extent, rot) = (*rng.pick(&Extent::ALL).unwrap(), *rng.pick(&Damage::ALL).unwrap());
    let snapshots: Vec<String> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("snap.")).collect();
    let newest = disk.list().unwrap().into_iter().rfind(|name| name.starts_with("log.")).unwrap();
    let place = match rng.below(10) {
        // All snapshots but the oldest one, for which the log is kept.
        0 | 1 if snapshots.len() > 1 => {
            let hit = snapshots[1..]
                .iter()
                .map(|name| disk.damage(&mut rng, |file| file == name, Extent::Whole, rot));
            format!("snap. {:?}", hit.collect::<Vec<_>>())
        }
        2 => format!("{:?}", disk.damage(&mut rng, |file| file == "meta", extent, rot)),
        3..=6 => format!("{:?}", disk.damage(&mut rng, |file| file == newest, extent, rot)),
        _ => format!("{:?}", disk.damage(&mut rng, |file| file.starts_with("log."), extent, rot)),
    };
    let (_, recovered) = model.open(&disk).unwrap();
    Damaged { model, recovered, place: format!("{place} {extent:?} {rot:?}") }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Lost,
    Learner,
}

fn judge(seed: u64, damaged: &Damaged) -> Result<Outcome, String> {
    let Damaged { model, recovered, place } = damaged;
    let told = |what: &str| Err(format!("seed {seed}, {place}: {what}, {recovered:?}"));
    if !recovered.meta.voter {
        return if place.contains("meta") { Ok(Outcome::Learner) } else { told("it forgot its vote") };
    }
    if recovered.meta.promised != model.promised {
        return told("it forgot its promise");
    }
    let found = model.whole(recovered);
    if found != model.log[..found.len()] {
        return told("what is known is not true");
    }
    if found.len() == model.log.len() {
        return Ok(Outcome::Nothing);
    }
    if !place.contains("log.") {
        return told("the log was not touched");
    }
    let (first, last) = (found.len() as u64 + 1, model.log.len() as u64);
    let view = model.log.last().unwrap().view;
    match recovered.lost {
        Some(lost) if lost.first.0 <= first && lost.last.0 >= last && lost.view_max >= view => {
            Ok(Outcome::Lost)
        }
        _ => told("silently absent"),
    }
}

#[test]
fn damage_is_reported_as_lost_and_never_silently_absent() {
    let mut outcomes = Vec::new();
    for seed in 0..3000 {
        let damaged = damaged(seed, None);
        outcomes.push(judge(seed, &damaged).unwrap());
    }
    let count = |wanted: Outcome| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let counts = [Outcome::Nothing, Outcome::Lost, Outcome::Learner].map(count);
    println!("nothing lost {}, lost {}, learners {}", counts[0], counts[1], counts[2]);
    assert!(counts.iter().all(|count| *count > 20), "every kind is met: {counts:?}");
}

#[test]
fn damage_stays_reported_until_it_is_repaired() {
    let mut rng = Rng::seeded(11);
    let disk = new_disk();
    let view = View::new(1, NodeId(1));
    let (mut journal, _) = open(&disk);
    journal.promise(view).unwrap();
    let own: Vec<Entry> = (1..=40).map(|op| entry(op, view, &mut rng)).collect();
    journal.append(&own, Op(0)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    drop(journal);
    disk.damage(&mut rng, |name| name.starts_with("log."), Extent::Whole, Damage::Gone);
    for _ in 0..3 {
        let (_, recovered) = open(&disk);
        assert!(recovered.meta.voter);
        assert_eq!((recovered.entries, recovered.lost.unwrap().last), (Vec::new(), Op(40)));
    }
    let (mut journal, _) = open(&disk);
    journal.append(&own, Op(40)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.entries, recovered.lost), (own, None));
}

/// Checks that each planted bug breaks the properties that the tests above verify.
#[test]
fn the_mistakes_planted_in_the_journal_are_found() {
    let found = |bug: Planted| -> Option<String> {
        let crash = |deaths| (0..400).find_map(|seed| crashes(seed, deaths, Some(bug)).err());
        let rot = || (0..1500).find_map(|seed| judge(seed, &damaged(seed, Some(bug))).err());
        crash(false).or_else(|| crash(true)).or_else(rot)
    };
    let bugs = [
        Planted::CorruptionIsTornTail,
        Planted::MarkBeforeSync,
        Planted::CommitForMark,
        Planted::MarkNotMoved,
        Planted::SnapshotNameNotSynced,
        Planted::ReceivedNotSynced,
        Planted::LogNotMatched,
        Planted::PruneTooFar,
    ];
    let mut missed = Vec::new();
    for bug in bugs {
        match found(bug) {
            Some(why) => println!("{bug:?}: {}", why.chars().take(160).collect::<String>()),
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, [], "not found");
}

#[test]
fn one_rotten_meta_slot_costs_nothing_and_both_cost_the_vote() {
    let mut rng = Rng::seeded(2);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    journal.promise(view).unwrap();
    let own = vec![entry(1, view, &mut rng)];
    journal.append(&own, Op(0)).unwrap();
    journal.know(&[heard(3, 8)]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let spoil = |offset: u64| disk.open("meta").unwrap().write_at(offset, &[0xa5; 64]).unwrap();
    for (start, slot) in [(2, 0), (3, 4096), (4, 4096)] {
        spoil(slot);
        let seen = inspect_disk(&disk).unwrap();
        assert!(seen.damaged && matches!(seen.meta, MetaState::Good { whole: false, .. }));
        assert!(seen.to_string().contains("ONE OF TWO SLOTS"), "{seen}");
        let (_, recovered) = open(&disk);
        let meta = &recovered.meta;
        assert!(meta.voter);
        assert_eq!((meta.promised, meta.incarnation, known_of(meta, 3)), (view, Incarnation(start), 8));
        assert_eq!((recovered.entries, recovered.lost), (own.clone(), None));
        assert!(!inspect_disk(&disk).unwrap().damaged, "it is mended");
    }
    spoil(0);
    spoil(4096);
    let (mut journal, recovered) = open(&disk);
    assert!(!recovered.meta.voter);
    assert_eq!((recovered.meta.promised, recovered.entries), (View::ZERO, Vec::new()));
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
fn a_disk_that_a_sync_finds_full_is_full_and_not_broken() {
    let mut rng = Rng::seeded(3);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    journal.append(&[entry(1, View::new(1, NodeId(1)), &mut rng)], Op(0)).unwrap();
    disk.fail_sync_for_room();
    assert!(matches!(journal.promise(View::new(2, NodeId(1))), Err(JournalError::Full)));
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)), "what is durable is not known");
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
    assert!(!disk.list().unwrap().contains(&"reserve".to_owned()), "the reserve is given back");
    journal.promise(View::new(2, NodeId(2))).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.durable(), Op(op));
    drop(journal);
    disk.set_capacity(None);
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.entries.len() as u64, op);
}

/// A run on a disk that is full at times. Returns the number of refused starts, and of later errors from the
/// full disk.
fn run_on_a_full_disk(disk: &MemDisk, model: &mut Model, rng: &mut Rng) -> Result<[u64; 2], String> {
    let full = |rng: &mut Rng| match rng.below(3) {
        0 => disk.set_no_space(true),
        _ => disk.set_capacity(Some(disk.bytes() + rng.below(2 * STEP))),
    };
    let ample = || {
        disk.set_no_space(false);
        disk.set_capacity(None);
    };
    let (mut refused, mut met) = (0, 0);
    if rng.chance(0.3) {
        full(rng);
    }
    let mut journal = loop {
        match model.open(disk) {
            Ok((journal, recovered)) => {
                model.accept(&recovered)?;
                break journal;
            }
            Err(JournalError::Full) => {
                refused += 1;
                if rng.chance(0.5) {
                    ample();
                }
            }
            Err(error) => return Err(format!("{error:?}")),
        }
    };
    for _ in 0..rng.below(40) {
        if rng.chance(0.15) {
            full(rng);
        }
        match model.act(&mut journal, true, rng) {
            Ok(()) => {}
            Err(JournalError::Full) => {
                met += 1;
                // A caller may go on after an error that changed nothing, although a server does not.
                let same = journal.last().0 == Op(model.log.len() as u64);
                if !same || rng.chance(0.5) {
                    break;
                }
                ample();
            }
            Err(JournalError::Poisoned) if met > 0 => break,
            Err(error) => return Err(format!("{error:?}")),
        }
    }
    // A server that met the error stops in order, as far as there is room.
    for end in [journal.sync(), journal.mark()] {
        match end {
            Ok(()) => {}
            Err(JournalError::Full) => met += 1,
            Err(JournalError::Poisoned) if met > 0 => {}
            Err(error) => return Err(format!("{error:?}")),
        }
    }
    ample();
    Ok([refused, met])
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing_that_was_synced() {
    let (mut refused, mut met) = (0, 0);
    let seeds = crash_seeds();
    for seed in 0..seeds {
        let mut rng = Rng::seeded(seed);
        let (disk, mut model) = (new_disk(), Model::new(None));
        for run in 0..6 {
            let lived = run_on_a_full_disk(&disk, &mut model, &mut rng);
            let [starts, others] = lived.unwrap_or_else(|why| panic!("seed {seed}, run {run}: {why}"));
            (refused, met) = (refused + starts, met + others);
            if rng.chance(0.5) {
                disk.crash(&mut rng);
            }
        }
    }
    println!("{refused} starts refused, {met} times full at work");
    assert!(refused * 5 > seeds && met * 3 > 2 * seeds, "{refused}, {met}");
}

#[test]
fn a_start_on_a_full_disk_uses_nothing_up_however_often_it_is_tried() {
    let mut rng = Rng::seeded(5);
    // The state after an orderly stop, and after a stop on a full disk, for which the reserve was given back.
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
        // Room for at most one of the two.
        disk.set_capacity(Some(disk.bytes() + if reserve { STEP - 1 } else { 2 * STEP - 1 }));
        for _ in 0..3 {
            let refused = Journal::open(disk.clone(), &expected(), options()).err();
            assert!(matches!(refused, Some(JournalError::Full)), "{refused:?}");
            let now = disk.list().unwrap().into_iter().filter(|name| name != "reserve");
            assert!(now.eq(names.iter().filter(|name| *name != "reserve").cloned()), "no file is left");
            assert!(!reserve || disk.list().unwrap() == names, "nor is the reserve gone");
        }
        assert!(disk.list().unwrap().contains(&"reserve".to_owned()));
        // The reserve is there by now, so a segment is all that needs room.
        disk.set_capacity(Some(disk.bytes() + STEP));
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
        install_in_pieces(&mut journal, (Op(20), new), b"state at 20", 4).unwrap();
        assert_eq!(journal.last(), (Op(20), new));
        let after: Vec<Entry> = (21..=25).map(|op| entry(op, new, &mut rng)).collect();
        journal.append(&after, Op(20)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.crash(&mut rng);
        let (mut journal, recovered) = open(&disk);
        assert_eq!(bytes_of_newest(&mut journal), b"state at 20", "seed {seed}");
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
    let (mut journal, recovered) = open(&disk);
    assert!(recovered.meta.voter);
    assert_eq!(bytes_of_newest(&mut journal), 10u64.to_le_bytes());
    assert_eq!((recovered.entries, recovered.lost), (own[10..].to_vec(), None));
    assert!(disk.list().unwrap().contains(&format!("old.{newest}")), "set aside for whoever looks after it");
}

/// The power fails after each operation of the disk in turn: between two pieces, before the header, before
/// and after the new name.
#[test]
fn a_power_cut_at_any_piece_of_a_snapshot_leaves_the_older_one_or_the_whole_new_one() {
    let mut rng = Rng::seeded(8);
    let (older, newer) = (vec![1; 3_000], (0..5_000).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    let view = View::new(1, NodeId(1));
    let own: Vec<Entry> = (1..=20).map(|op| entry(op, view, &mut rng)).collect();
    let (mut cuts, mut kept) = (0, [0, 0]);
    loop {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        journal.promise(view).unwrap();
        journal.append(&own[..10], Op(10)).unwrap();
        let job = journal.begin_snapshot(Op(10)).unwrap();
        journal.finish_snapshot(job.write(view, &older)).unwrap();
        journal.append(&own[10..], Op(20)).unwrap();
        let job = journal.begin_snapshot(Op(20)).unwrap();
        disk.die_after(Some(cuts));
        let written = write_in_pieces(job, view, &newer, 1_000);
        drop(journal);
        for survives in [0.0, 0.5, 0.5, 0.5, 1.0] {
            let disk = disk.copy();
            disk.lose_power(survives, &mut rng);
            let (mut journal, recovered) = open(&disk);
            let stored = recovered.snapshot.unwrap();
            let is_new = stored.op == Op(20);
            assert!(
                bytes_of_newest(&mut journal) == if is_new { &newer[..] } else { &older },
                "{cuts}: {}",
                stored.op
            );
            assert!(is_new || written.is_err(), "{cuts}: what was reported is gone");
            assert_eq!(recovered.entries, if is_new { &[] } else { &own[10..] }, "{cuts}");
            kept[usize::from(is_new)] += 1;
        }
        if written.is_ok() {
            break;
        }
        cuts += 1;
    }
    println!("{cuts} cuts, older and newer: {kept:?}");
    assert!(cuts > 15 && kept.iter().all(|times| *times > 0), "{cuts}, {kept:?}");
}

/// The power fails after each operation of the disk in turn, from the first piece of a peer's snapshot on to
/// the new segment behind it.
#[test]
fn a_power_cut_at_any_step_of_a_received_snapshot_leaves_the_older_log_or_the_whole_new_state() {
    let mut rng = Rng::seeded(9);
    let theirs: Vec<u8> = (0..5_000).map(|at| (at % 251) as u8).collect();
    let (view, later) = (View::new(1, NodeId(1)), View::new(2, NodeId(2)));
    let own: Vec<Entry> = (1..=10).map(|op| entry(op, view, &mut rng)).collect();
    let (mut cuts, mut kept) = (0, [0, 0]);
    loop {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        journal.promise(later).unwrap();
        journal.append(&own, Op(10)).unwrap();
        journal.sync().unwrap();
        disk.die_after(Some(cuts));
        let installed = install_in_pieces(&mut journal, (Op(20), later), &theirs, 1_000);
        drop(journal);
        for survives in [0.0, 0.5, 0.5, 0.5, 1.0] {
            let disk = disk.copy();
            disk.lose_power(survives, &mut rng);
            let (mut journal, recovered) = open(&disk);
            assert_eq!(recovered.lost, None, "{cuts}");
            let is_new = recovered.snapshot.is_some();
            assert!(is_new || installed.is_err(), "{cuts}: what was reported is gone");
            match recovered.snapshot {
                Some(stored) => {
                    assert_eq!((stored.op, stored.view), (Op(20), later), "{cuts}");
                    assert!(
                        bytes_of_newest(&mut journal) == theirs && recovered.entries.is_empty(),
                        "{cuts}"
                    );
                }
                None => assert_eq!(recovered.entries, own, "{cuts}"),
            }
            let names = disk.list().unwrap();
            assert!(!names.iter().any(|name| name.starts_with("tmp.")), "{cuts}: {names:?}");
            kept[usize::from(is_new)] += 1;
        }
        if installed.is_ok() {
            break;
        }
        cuts += 1;
    }
    println!("{cuts} cuts, the older log and the new state: {kept:?}");
    assert!(cuts > 20 && kept.iter().all(|times| *times > 0), "{cuts}, {kept:?}");
}

/// A snapshot is read back before anything depends on it and before the entries that it covers are removed.
#[test]
fn a_snapshot_that_does_not_read_as_it_was_written_is_not_relied_on() {
    let mut rng = Rng::seeded(7);
    for installed in [false, true] {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        let view = View::new(1, NodeId(1));
        journal.promise(view).unwrap();
        let own: Vec<Entry> = (1..=10).map(|op| entry(op, view, &mut rng)).collect();
        journal.append(&own, Op(0)).unwrap();
        disk.corrupt_writes(Some(if installed { "tmp.received." } else { "tmp.snap." }));
        let refused = if installed {
            install_in_pieces(&mut journal, (Op(20), view), b"state at 20", 4)
        } else {
            let job = journal.begin_snapshot(Op(10)).unwrap();
            journal.finish_snapshot(job.write(view, b"state at 10"))
        };
        let file = if installed { "tmp.received." } else { "snap." };
        let told = |error: &std::io::Error| {
            let told = error.to_string();
            told.starts_with(file) && told.contains("does not read as it was written: check this disk")
        };
        assert!(matches!(&refused, Err(JournalError::Io { source, .. }) if told(source)), "{refused:?}");
        assert!(
            matches!(journal.sync(), Err(JournalError::Poisoned)),
            "such a disk is not written any further"
        );
        disk.corrupt_writes(None);
        drop(journal);
        let (_, recovered) = open(&disk);
        assert_eq!((recovered.snapshot, recovered.entries, recovered.lost), (None, own, None));
    }
}

/// Without that room the server would be elected, and stop again when the first snapshot is due.
#[test]
fn a_start_needs_room_for_the_next_snapshot_too_and_uses_none_of_it() {
    let mut rng = Rng::seeded(8);
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let view = View::new(1, NodeId(1));
    journal.append(&[entry(1, view, &mut rng)], Op(0)).unwrap();
    let job = journal.begin_snapshot(Op(1)).unwrap();
    let large = vec![7; 3 * STEP as usize];
    journal.finish_snapshot(job.write(view, &large)).unwrap();
    drop(journal);
    let names = disk.list().unwrap();
    disk.set_capacity(Some(disk.bytes() + STEP + large.len() as u64 - 1));
    for _ in 0..3 {
        let refused = Journal::open(disk.clone(), &expected(), options()).err();
        assert!(matches!(refused, Some(JournalError::Full)), "{refused:?}");
        assert_eq!(disk.list().unwrap(), names, "no file is left");
    }
    disk.set_capacity(Some(disk.bytes() + STEP + large.len() as u64));
    let (mut journal, _) = open(&disk);
    journal.append(&[entry(2, view, &mut rng)], Op(0)).unwrap();
    let job =
        journal.begin_snapshot(Op(2)).and_then(|job| journal.finish_snapshot(job.write(view, b"small")));
    assert!(job.is_ok(), "{job:?}");
}

/// A server starts, as often as it is asked to, whichever of its own files the disk cannot open, and goes on
/// although it cannot remove such a file.
#[test]
fn a_file_that_the_disk_cannot_open_is_damage_and_ends_no_start() {
    let view = View::new(1, NodeId(1));
    for kind in ["log.", "snap.", "reserve", "tmp."] {
        let mut rng = Rng::seeded(7);
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        journal.promise(view).unwrap();
        let own: Vec<Entry> = (1..=60).map(|op| entry(op, view, &mut rng)).collect();
        let snapshot = |journal: &mut Journal<MemDisk>, op: Op| {
            let job = journal.begin_snapshot(op).unwrap();
            journal.finish_snapshot(job.write(view, &op.0.to_le_bytes())).unwrap();
        };
        journal.append(&own[..10], Op(0)).unwrap();
        snapshot(&mut journal, Op(10));
        journal.append(&own[10..20], Op(10)).unwrap();
        journal.sync().unwrap();
        journal.mark().unwrap();
        drop(journal);
        drop(disk.create("tmp.snap").unwrap());
        let hit = disk.list().unwrap().into_iter().rfind(|name| name.starts_with(kind)).unwrap();
        disk.make_unopenable(&hit);
        let seen = inspect_disk(&disk).unwrap();
        assert_eq!(seen.damaged, ["log.", "snap."].contains(&kind), "{hit}: {seen}");
        assert_eq!(seen.log.iter().all(|range| range.readable), kind != "log.", "{hit}: {seen}");
        for _ in 0..3 {
            let (_, recovered) = open(&disk);
            assert!(recovered.meta.voter, "{hit}");
            assert_eq!(recovered.meta.promised, view, "{hit}");
            let lost = recovered.lost.map(|lost| (lost.first, lost.last));
            assert_eq!(lost, (kind == "log.").then_some((Op(11), Op(20))), "{hit}");
        }
        // A peer supplies the lost entries, and the journal goes on until all old files are removed.
        let (mut journal, _) = open(&disk);
        journal.append(&own[10..20], Op(20)).unwrap();
        for tens in own[20..].chunks(10) {
            journal.append(tens, tens[0].op.prev()).unwrap();
            snapshot(&mut journal, tens[9].op);
        }
        drop(journal);
        let (_, recovered) = open(&disk);
        assert_eq!((recovered.snapshot.unwrap().op, recovered.lost), (Op(60), None), "{hit}");
        let left = disk.list().unwrap();
        assert_eq!(
            left.iter().filter(|name| name.starts_with("snap.")).count(),
            3 + usize::from(kind == "snap.")
        );
        assert!(left.contains(&hit), "the disk does not let go of it");
    }
}

/// The state at an op is stored again after a restart, or comes from a peer, while a damaged file holds its
/// name.
#[test]
fn a_snapshot_takes_another_name_where_a_damaged_file_holds_its_own() {
    let view = View::new(1, NodeId(1));
    for installed in [false, true] {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        let mut rng = Rng::seeded(3);
        let own: Vec<Entry> = (1..=10).map(|op| entry(op, view, &mut rng)).collect();
        journal.append(&own, Op(0)).unwrap();
        for round in 0..4_u8 {
            let bytes = [round; 9];
            if installed {
                install_in_pieces(&mut journal, (Op(10), view), &bytes, 4).unwrap();
            } else {
                let job = journal.begin_snapshot(Op(10)).unwrap();
                journal.finish_snapshot(job.write(view, &bytes)).unwrap();
            }
            let piece = journal.read_snapshot(Op(10), 0, 100).unwrap().unwrap();
            assert_eq!(piece.bytes, bytes, "installed {installed}, round {round}");
            drop(journal);
            let (mut again, recovered) = open(&disk);
            assert_eq!(recovered.snapshot.unwrap().op, Op(10));
            assert_eq!(bytes_of_newest(&mut again), bytes);
            drop(again);
            let newest = disk.list().unwrap().into_iter().rfind(|name| name.starts_with("snap.")).unwrap();
            disk.make_unopenable(&newest);
            journal = open(&disk).0;
        }
    }
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

/// An entry with a payload of this length.
fn sized(op: u64, view: View, len: usize) -> Entry {
    Entry { op: Op(op), view, kind: EntryKind::Command, payload: vec![7; len].into() }
}

/// A server that took such a file for a damaged one would forget what it holds, or its vote.
#[test]
fn a_file_that_cannot_be_opened_for_another_reason_ends_the_start_and_nothing_is_touched() {
    let view = View::new(1, NodeId(1));
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let own: Vec<Entry> = (1..=20).map(|op| sized(op, view, 40)).collect();
    journal.append(&own[..10], Op(0)).unwrap();
    let job = journal.begin_snapshot(Op(10)).unwrap();
    journal.finish_snapshot(job.write(view, b"state at 10")).unwrap();
    journal.append(&own[10..], Op(10)).unwrap();
    journal.sync().unwrap();
    let job = journal.begin_snapshot(Op(20)).unwrap();
    disk.refuse(Some(&format!("snap.{:020}", 20)));
    let told = job.write(view, b"state at 20").unwrap_err();
    assert_eq!(
        told.raw_os_error(),
        Some(rustix::io::Errno::MFILE.raw_os_error()),
        "the disk's own error: {told}"
    );
    drop(journal);
    disk.remove(&format!("snap.{:020}", 20)).unwrap();
    drop(disk.create("tmp.snap").unwrap());
    let names = disk.list().unwrap();
    for kind in ["meta", "log.", "snap.", "reserve"] {
        let name = names.iter().rfind(|name| name.starts_with(kind)).unwrap();
        disk.refuse(Some(name));
        let refused = Journal::open(disk.clone(), &expected(), options()).err();
        assert!(matches!(refused, Some(JournalError::Io { .. })), "{name}: {refused:?}");
        // The reserve is looked at last, when what an earlier start left unfinished is gone.
        assert!(kind == "reserve" || disk.list().unwrap() == names, "{name}: {:?}", disk.list());
    }
    disk.refuse(None);
    let (_, recovered) = open(&disk);
    assert!(recovered.meta.voter);
    assert_eq!(recovered.snapshot.unwrap().op, Op(10));
    assert_eq!((recovered.entries, recovered.lost), (own[10..].to_vec(), None));
}

#[test]
fn a_slot_of_meta_that_cannot_be_read_costs_nothing_and_a_file_that_cannot_be_opened_is_rotten() {
    let view = View::new(1, NodeId(1));
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    journal.promise(view).unwrap();
    drop(journal);
    disk.damage_file(&mut Rng::seeded(1), "meta", false, Extent::Sector, Damage::Unreadable);
    let seen = inspect_disk(&disk).unwrap();
    assert!(matches!(seen.meta, MetaState::Good { whole: false, .. }), "{seen}");
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.meta.voter, recovered.meta.promised), (true, view));
    assert!(!inspect_disk(&disk).unwrap().damaged, "the start writes it again");
    let (mut journal, _) = open(&disk);
    let own: Vec<Entry> = (1..=5).map(|op| sized(op, view, 40)).collect();
    journal.append(&own, Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let names = disk.list().unwrap();
    disk.make_unopenable("meta");
    assert_eq!(inspect_disk(&disk).unwrap().meta, MetaState::Rotten);
    assert!(Journal::open(disk.clone(), &expected(), options()).is_err(), "only a repair helps");
    assert_eq!(disk.list().unwrap(), names, "the log stays where the repaired meta finds it");
    disk.repair("meta");
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.entries, recovered.lost), (own, None));
}

#[test]
fn a_disk_that_fails_is_not_taken_for_a_full_one() {
    let view = View::new(1, NodeId(1));
    for appends in [true, false] {
        let disk = new_disk();
        let (mut journal, _) = open(&disk);
        disk.die_after(Some(0));
        let failed = match appends {
            // More than the segment has room for.
            true => journal.append(&[1, 2, 3].map(|op| sized(op, view, 8000)), Op(0)),
            false => journal.begin_snapshot(Op(0)).map(drop),
        };
        assert!(matches!(failed, Err(JournalError::Io { .. })), "appends {appends}: {failed:?}");
        assert!(matches!(journal.sync(), Err(JournalError::Poisoned)), "appends {appends}");
    }
}

#[test]
fn a_snapshot_for_which_the_disk_has_no_room_changes_nothing_and_the_reserve_is_given_back() {
    let view = View::new(1, NodeId(1));
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    journal.append(&[sized(1, view, 40)], Op(0)).unwrap();
    let job = journal.begin_snapshot(Op(1)).unwrap();
    disk.set_capacity(Some(disk.bytes()));
    let full = journal.finish_snapshot(job.write(view, &[7; 100]));
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    let names = disk.list().unwrap();
    assert!(!names.iter().any(|name| name == "reserve" || name.contains("snap.")), "{names:?}");
    assert_eq!(journal.read_snapshot(Op::ZERO, 0, 100).unwrap(), None);
    journal.append(&[sized(2, view, 40)], Op(1)).unwrap();
    journal.sync().unwrap();
}

#[test]
fn what_a_refused_append_named_committed_is_not_committed_in_this_log() {
    let view = View::new(1, NodeId(1));
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let own: Vec<Entry> = (1..=10).map(|op| sized(op, view, 40)).collect();
    journal.append(&own, Op(4)).unwrap();
    disk.set_capacity(Some(disk.bytes()));
    let full = journal.append(&[11, 12, 13].map(|op| sized(op, view, 8000)), Op(13));
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    disk.set_capacity(None);
    journal.append(&[sized(11, View::new(2, NodeId(2)), 40)], Op(5)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.entries.len(), recovered.commit), (11, Op(5)));
}

#[test]
fn a_promise_that_is_not_higher_writes_nothing() {
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let promised = View::new(2, NodeId(1));
    journal.promise(promised).unwrap();
    let before = (disk.written(), disk.syncs());
    for view in [promised, View::new(1, NodeId(1))] {
        journal.promise(view).unwrap();
        assert_eq!((journal.meta().promised, disk.written(), disk.syncs()), (promised, before.0, before.1));
    }
}

#[test]
fn an_incarnation_is_taken_in_if_it_is_a_members_and_higher_and_is_then_known_by_every_start() {
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    journal.know(&[heard(3, 8), heard(2, 5), heard(9, 4)]).unwrap();
    let known = [heard(2, 5), heard(3, 8)];
    assert_eq!(journal.meta().known(), known, "by member; server-9 is none");
    journal.sync().unwrap();
    let before = (disk.written(), disk.syncs());
    journal.know(&[heard(3, 8), heard(2, 4)]).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.meta().known(), known);
    assert_eq!((disk.written(), disk.syncs()), before, "there is nothing new to store");
    drop(journal);
    assert_eq!(open(&disk).1.meta.known(), known);
}

#[test]
fn the_boot_id_of_a_known_incarnation_is_stored_once_and_goes_with_a_later_incarnation() {
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let boot = |incarnation, id: Option<u8>| {
        let boot_id = id.map(|id| BootId([id; 16]));
        (NodeId(2), KnownBoot { incarnation: Incarnation(incarnation), boot_id })
    };
    for (told, known) in [
        (boot(5, None), boot(5, None)),
        (boot(5, Some(1)), boot(5, Some(1))),
        (boot(5, Some(2)), boot(5, Some(1))),
        (boot(5, None), boot(5, Some(1))),
        (boot(4, Some(3)), boot(5, Some(1))),
        (boot(6, None), boot(6, None)),
        (boot(7, Some(4)), boot(7, Some(4))),
    ] {
        journal.know(&[told]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let recovered;
        (journal, recovered) = open(&disk);
        assert_eq!(recovered.meta.known(), [known], "told {told:?}");
    }
}

/// A learner that found the log of the forgotten voter again would rely on it.
#[test]
fn a_log_whose_meta_is_lost_is_never_read_again_whenever_the_crash_comes() {
    let view = View::new(1, NodeId(1));
    let rotten = new_disk();
    let (mut journal, _) = open(&rotten);
    journal.append(&[1, 2, 3].map(|op| sized(op, view, 40)), Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let mut meta = rotten.open("meta").unwrap();
    for slot in [0, 4096] {
        meta.write_at(slot, &[0xa5; 64]).unwrap();
    }
    meta.sync().unwrap();
    for last in 0.. {
        let dying = rotten.copy();
        dying.die_after(Some(last));
        drop(Journal::open(dying.clone(), &expected(), options()));
        for seed in 0..20 {
            let disk = dying.copy();
            disk.lose_power(0.5, &mut Rng::seeded(seed));
            let (_, recovered) = open(&disk);
            assert!(!recovered.meta.voter, "{last}, {seed}");
            assert_eq!((recovered.entries, recovered.lost), (Vec::new(), None), "{last}, {seed}");
        }
        if !dying.has_died() {
            assert!(last > 5, "it died at every operation of a start: {last}");
            break;
        }
    }
}

#[test]
fn a_page_that_cannot_be_read_costs_the_records_on_it_and_no_others() {
    const RECORD: u64 = 120;
    const RECORDS: u64 = 8001;
    let view = View::new(1, NodeId(1));
    let disk = new_disk();
    let (mut journal, _) = open(&disk);
    let own: Vec<Entry> = (1..RECORDS).map(|op| sized(op, view, 64)).collect();
    journal.append(&own, Op(0)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    drop(journal);
    let log = disk.list().unwrap().into_iter().find(|name| name.starts_with("log.")).unwrap();
    disk.damage_file(&mut Rng::seeded(1), &log, true, Extent::Block, Damage::Unreadable);
    let page = (RECORDS * RECORD - 1) / 2 / 4096 * 4096;
    let hit = (0..RECORDS).filter(|at| at * RECORD < page + 4096 && (at + 1) * RECORD > page).count() as u64;
    let seen = inspect_disk(&disk).unwrap();
    assert_eq!(seen.log[0].records, RECORDS - hit, "{seen}");
    assert!(seen.damaged && seen.log[0].bad_bytes >= 4096, "{seen}");

    disk.fail_reads_of(&log);
    let seen = inspect_disk(&disk).unwrap();
    let [log] = &seen.log[..] else { panic!("{seen}") };
    assert_eq!((log.records, log.used, log.bad_bytes), (0, 0, log.bytes), "nothing of it can be read");
    assert!(log.readable && (log.first, log.last) == (None, None), "{seen}");
}
