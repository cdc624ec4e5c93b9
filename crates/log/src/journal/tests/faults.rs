//! The journal on a disk that fails or has no room: a real directory, for which a test answers some calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::*;
use crate::journal::log::{RESERVE, reserve};

const STEP: u64 = 16 * 1024;
const PAGE: usize = 4096;

/// A call that a test may refuse.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Open,
    Remove,
    /// Makes the names of files durable: syncs the directory.
    SyncNames,
    Write,
    /// Makes the content of a file durable.
    Sync,
    /// Reads this many bytes.
    Read(usize),
    /// Grows a file to this length.
    Allocate(u64),
}

/// The answer to a call for the file of this name; after an `Ok` the directory answers.
type Answer = dyn FnMut(Call, &str) -> io::Result<()> + Send;

/// A directory whose calls can be refused. Clones are handles on the same directory.
#[derive(Clone)]
struct FaultyDisk {
    directory: Directory,
    answer: Arc<Mutex<Box<Answer>>>,
}

/// A file of a [`FaultyDisk`], with the name under which it was opened.
struct FaultyFile {
    disk: FaultyDisk,
    name: String,
    file: DirectoryFile,
}

impl FaultyDisk {
    /// The directory at `path`; no call is refused yet.
    fn new(path: &Path) -> FaultyDisk {
        let answer: Box<Answer> = Box::new(|_, _| Ok(()));
        FaultyDisk { directory: Directory::lock(path).unwrap(), answer: Arc::new(Mutex::new(answer)) }
    }

    /// The same, with the directory of a server that has never started.
    fn initialized(path: &Path) -> FaultyDisk {
        let disk = FaultyDisk::new(path);
        Journal::init(&disk, &meta()).unwrap();
        disk
    }

    /// Answers every call from now on.
    fn answers(&self, answer: impl FnMut(Call, &str) -> io::Result<()> + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// Refuses the calls that `which` selects, and no others, with this error.
    fn refuses(&self, error: Errno, which: impl Fn(Call, &str) -> bool + Send + 'static) {
        self.answers(move |call, name| if which(call, name) { Err(error.into()) } else { Ok(()) });
    }

    /// Refuses no call from now on.
    fn refuses_nothing(&self) {
        self.answers(|_, _| Ok(()));
    }

    fn ask(&self, call: Call, name: &str) -> io::Result<()> {
        let mut answer = self.answer.lock().unwrap();
        (*answer)(call, name)
    }

    fn file(&self, name: &str, file: DirectoryFile) -> FaultyFile {
        FaultyFile { disk: self.clone(), name: name.to_owned(), file }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn list_others(&self) -> io::Result<Vec<String>> {
        self.directory.list_others()
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        self.ask(Call::Open, name)?;
        Ok(self.file(name, self.directory.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        Ok(self.file(name, self.directory.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(Call::Remove, name)?;
        self.directory.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.ask(Call::SyncNames, "")?;
        self.directory.sync()
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.ask(Call::Read(buffer.len()), &self.name)?;
        self.file.read_at(offset, buffer)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.data_from(offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.ask(Call::Write, &self.name)?;
        self.file.write_at(offset, bytes)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.disk.ask(Call::Allocate(len), &self.name)?;
        self.file.allocate(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.ask(Call::Sync, &self.name)?;
        self.file.sync()
    }
}

fn start(disk: &FaultyDisk) -> Result<(Journal<FaultyDisk>, Recovered), JournalError> {
    Journal::open(disk.clone(), &expected(), Options { step: STEP, ..Options::default() })
}

/// Returns true if the call grows a log file.
fn grows_a_log(call: Call, name: &str) -> bool {
    matches!(call, Call::Allocate(_)) && name.starts_with("log.")
}

#[test]
fn a_snapshot_is_offered_no_more_once_another_one_has_its_op_or_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    store_snapshot(&mut journal, 10, b"first");
    // The file of the first one cannot be opened, so the second one takes the next name.
    disk.refuses(Errno::IO, |call, name| matches!(call, Call::Open) && name == snapshot_name(10));
    store_snapshot(&mut journal, 10, b"again");
    let piece = journal.read_snapshot(Op(10), 0, 99).unwrap().unwrap();
    assert_eq!((piece.op, piece.bytes.as_slice()), (Op(10), b"again".as_slice()));
    // The next op's snapshot has that name for its own.
    journal.append(&entries(11..=11, VIEW), Op(10)).unwrap();
    store_snapshot(&mut journal, 11, b"next");
    assert_eq!(journal.read_snapshot(Op(10), 0, 99).unwrap(), None);
    let piece = journal.read_snapshot(Op::ZERO, 0, 99).unwrap().unwrap();
    assert_eq!((piece.op, piece.bytes.as_slice()), (Op(11), b"next".as_slice()));
}

#[test]
fn a_received_snapshot_after_which_no_segment_finds_room_ends_the_journal_and_a_restart_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    disk.refuses(Errno::NOSPC, grows_a_log);
    let full = install(&mut journal, 20, VIEW, b"state at 20");
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    disk.refuses_nothing();
    let after = journal.append(&entries(11..=11, VIEW), Op(0));
    assert!(matches!(after, Err(JournalError::Poisoned)), "the log does not follow the snapshot: {after:?}");
    drop(journal);
    let (mut journal, recovered) = start(&disk).unwrap();
    assert_eq!(newest(&mut journal), b"state at 20");
    assert_eq!((journal.last(), recovered.lost), ((Op(20), VIEW), None));
}

#[test]
fn a_received_snapshot_whose_name_finds_no_room_ends_the_journal_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    // A file system that copies on write finds out when the directory is synced. The file has its name.
    disk.refuses(Errno::NOSPC, |call, _| call == Call::SyncNames);
    let full = install(&mut journal, 20, VIEW, b"state at 20");
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    disk.refuses_nothing();
    let after = journal.append(&entries(11..=11, VIEW), Op(0));
    assert!(matches!(after, Err(JournalError::Poisoned)), "the log does not follow the snapshot: {after:?}");
    drop(journal);
    let (journal, _) = start(&disk).unwrap();
    assert_eq!(journal.last(), (Op(20), VIEW));
}

#[test]
fn a_snapshot_before_which_no_segment_finds_room_is_refused_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    disk.refuses(Errno::NOSPC, grows_a_log);
    let full = journal.begin_snapshot(Op(10)).map(drop);
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    assert_eq!(disk.list().unwrap(), [log_name(1), "meta".to_owned()], "the reserve is given back");
    disk.refuses_nothing();
    journal.append(&entries(11..=12, VIEW), Op(10)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, recovered) = start(&disk).unwrap();
    assert_eq!((recovered.entries, recovered.lost), (entries(1..=12, VIEW), None));
}

/// The file that stays would prevent the next use of its serial.
#[test]
fn a_segment_that_finds_no_room_and_cannot_be_removed_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    disk.answers(|call, name| match call {
        Call::Allocate(_) if name == log_name(12) => Err(Errno::NOSPC.into()),
        Call::Remove if name == log_name(12) => Err(Errno::IO.into()),
        _ => Ok(()),
    });
    let failed = journal.begin_snapshot(Op(10)).map(drop);
    assert!(matches!(failed, Err(JournalError::Io { op: IoOp::Write, .. })), "{failed:?}");
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
    drop(journal);
    disk.refuses_nothing();
    let (_, recovered) = start(&disk).unwrap();
    assert_eq!((recovered.entries, recovered.lost), (entries(1..=10, VIEW), None));
}

#[test]
fn a_segment_asks_for_more_room_only_when_its_room_is_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let lengths = asked.clone();
    disk.answers(move |call, name| {
        if let Call::Allocate(len) = call
            && name.starts_with("log.")
        {
            lengths.lock().unwrap().push(len);
        }
        Ok(())
    });
    let (mut journal, _) = start(&disk).unwrap();
    // A start record of 120 bytes, and entries with a header of 56: together one step.
    for (op, len) in [(1, 8032), (2, 8064), (3, 0)] {
        journal.append(&[with_payload(op, len)], Op(0)).unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), [STEP]);
    journal.append(&[with_payload(4, 0)], Op(0)).unwrap();
    assert_eq!(*asked.lock().unwrap(), [STEP, 2 * STEP]);
}

#[test]
fn the_reserve_is_as_long_as_a_step_however_short_that_is() {
    for step in [1, STEP] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(dir.path());
        reserve(&disk, step).unwrap();
        assert_eq!(disk.open(RESERVE).unwrap().len().unwrap(), step);
    }
}

#[test]
fn a_reserve_that_finds_no_room_is_removed_unless_it_was_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(dir.path());
    let no_room = || disk.refuses(Errno::NOSPC, |call, _| matches!(call, Call::Allocate(_)));
    no_room();
    assert_eq!(reserve(&disk, STEP).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.list().unwrap(), [] as [String; 0]);
    disk.refuses_nothing();
    reserve(&disk, STEP / 2).unwrap();
    no_room();
    assert_eq!(reserve(&disk, STEP).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.list().unwrap(), [RESERVE]);
}

/// A server that took such a meta for a damaged one would forget its vote.
#[test]
fn a_meta_that_cannot_be_read_for_another_reason_than_damage_ends_the_start_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    drop(start(&disk).unwrap());
    let before = content(dir.path());
    disk.refuses(Errno::NOMEM, |call, name| matches!(call, Call::Read(_)) && name == "meta");
    let refused = start(&disk).err();
    assert!(matches!(refused, Some(JournalError::Io { op: IoOp::Read, .. })), "{refused:?}");
    assert!(content(dir.path()) == before);
    disk.refuses_nothing();
    assert!(start(&disk).unwrap().1.meta.voter);
}

/// The first opening of it and every later one count: a log that was read without a sync may lose its end.
#[test]
fn a_log_that_cannot_be_opened_for_another_reason_than_damage_ends_the_start_whenever_that_happens() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    for fails in 0.. {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        disk.answers(move |call, name| {
            let of_log = matches!(call, Call::Open) && name.starts_with("log.");
            let refused = of_log && count.fetch_add(1, Ordering::Relaxed) == fails;
            if refused { Err(Errno::NOMEM.into()) } else { Ok(()) }
        });
        let started = start(&disk);
        if opened.load(Ordering::Relaxed) <= fails {
            let (_, recovered) = started.unwrap();
            assert_eq!((recovered.entries, recovered.lost), (entries(1..=10, VIEW), None));
            assert!(fails >= 3, "its version is checked, it is synced and it is read: {fails}");
            break;
        }
        let refused = started.err();
        assert!(matches!(refused, Some(JournalError::Io { .. })), "opening {fails}: {refused:?}");
    }
}

/// A server that took such a page for a damaged one would forget the records on it.
#[test]
fn a_page_that_cannot_be_read_for_another_reason_than_damage_ends_the_start_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let before = content(dir.path());
    disk.answers(|call, name| match call {
        Call::Read(len) if name.starts_with("log.") && len > PAGE => Err(Errno::IO.into()),
        Call::Read(_) if name.starts_with("log.") => Err(Errno::NOMEM.into()),
        _ => Ok(()),
    });
    let refused = start(&disk).err();
    assert!(matches!(refused, Some(JournalError::Io { op: IoOp::Read, .. })), "{refused:?}");
    assert!(content(dir.path()) == before);
    disk.refuses_nothing();
    let (_, recovered) = start(&disk).unwrap();
    assert_eq!((recovered.entries, recovered.lost), (entries(1..=10, VIEW), None));
}

/// The disk may have dropped what it was to write, although it answers the next sync with success.
#[test]
fn a_write_or_a_sync_that_fails_once_ends_the_journal_and_the_mark_covers_only_what_was_durable_before() {
    for failing in [Call::Write, Call::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::initialized(dir.path());
        let (mut journal, _) = start(&disk).unwrap();
        journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
        journal.sync().unwrap();
        disk.refuses(Errno::IO, move |call, name| call == failing && name.starts_with("log."));
        let failed = journal.append(&entries(11..=20, VIEW), Op(10)).and_then(|()| journal.sync());
        assert!(matches!(failed, Err(JournalError::Io { .. })), "{failing:?}: {failed:?}");
        disk.refuses_nothing();
        for turn in ["before the mark", "after the mark"] {
            let refused = [
                journal.append(&entries(11..=11, VIEW), Op(10)),
                journal.sync(),
                journal.promise(VIEW),
                journal.vote(VIEW),
                journal.know(&[(NodeId(2), Incarnation(1).into())]),
                journal.begin_snapshot(Op(10)).map(drop),
                install(&mut journal, 30, VIEW, b"state at 30"),
            ];
            let poisoned = |result: &Result<(), _>| matches!(result, Err(JournalError::Poisoned));
            assert!(refused.iter().all(poisoned), "{failing:?}, {turn}: {refused:?}");
            assert_eq!(
                (journal.durable(), journal.meta().promised),
                (Op(10), View::ZERO),
                "{failing:?}, {turn}"
            );
            journal.mark().unwrap();
            assert_eq!(mark_in(dir.path()).op, Op(10), "{failing:?}, {turn}");
        }
    }
}

#[test]
fn a_mark_that_cannot_be_made_durable_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    disk.refuses(Errno::IO, |call, name| call == Call::Sync && name == "meta");
    let failed = journal.mark();
    assert!(matches!(failed, Err(JournalError::Io { op: IoOp::Sync, .. })), "{failed:?}");
    disk.refuses_nothing();
    assert!(matches!(journal.append(&entries(11..=11, VIEW), Op(10)), Err(JournalError::Poisoned)));
    assert!(matches!(journal.promise(VIEW), Err(JournalError::Poisoned)));
}

/// After the failed write one slot is as good as none, and a crash in another write would leave neither.
#[test]
fn after_a_failed_write_of_meta_the_other_slot_is_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    disk.refuses(Errno::NOSPC, |call, name| call == Call::Write && name == "meta");
    assert!(matches!(journal.promise(VIEW), Err(JournalError::Full)));
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    disk.answers(move |call, name| {
        let writes_meta = call == Call::Write && name == "meta";
        counted.fetch_add(usize::from(writes_meta), Ordering::Relaxed);
        Ok(())
    });
    assert!(!journal.needs_mark());
    journal.mark().unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 0);
}

/// A file system that copies on write finds no room for a block that was allocated before.
#[test]
fn a_write_into_allocated_space_that_finds_no_room_gives_the_reserve_back_and_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::initialized(dir.path());
    let (mut journal, _) = start(&disk).unwrap();
    disk.refuses(Errno::NOSPC, |call, name| call == Call::Write && name.starts_with("log."));
    let full = journal.append(&entries(1..=10, VIEW), Op(0));
    assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
    assert!(!disk.list().unwrap().contains(&RESERVE.to_owned()));
    disk.refuses_nothing();
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
}
