//! How a journal starts: `init`, and `open` with its recovery.

use super::error::{IoOp, JournalError, Trying, error_of, is_full};
use super::log::{ASIDE, Closed, Journal, Serials, reserve};
use super::meta::{MetaFile, Read};
use super::record::{Body, Record};
use super::recovery::{Known, Scanned, recover};
use super::segment::Segment;
use super::snapshot::{self, Header};
use super::{
    Disk, DiskFile, Expected, Meta, Options, Recovered, StoredSnapshot, log_name, numbered, snapshot_name,
};
use crate::id::{Incarnation, MEMBERS_MAX, Op, View};

impl<D: Disk> Journal<D> {
    /// Makes an empty directory one of this server, for `recadod init`: the only way to a voter
    /// that has never promised anything.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`], [`JournalError::TooManyMembers`]: nothing changed. Else the disk's.
    pub fn init(disk: &D, meta: &Meta) -> Result<(), JournalError> {
        check_members(meta.members.len())?;
        let names = disk.list().trying(IoOp::List)?;
        // What an interrupted init left behind is nothing.
        if let Some(name) = names.into_iter().find(|name| !name.starts_with("tmp.")) {
            return Err(JournalError::NotEmpty(name));
        }
        MetaFile::create(disk, meta).map(drop).map_err(full_or(IoOp::Write))
    }

    /// Opens the directory and recovers what it holds. On return the incarnation is counted up, and
    /// a fresh segment that says what was recovered is durable.
    ///
    /// A directory without trustworthy meta, or whose log does not reach back to anything that can be
    /// read, counts as empty: its files are set aside and the server is a learner.
    ///
    /// # Errors
    /// A directory of another cluster, server or members, or one that the cluster's only server cannot go on
    /// from: nothing changed. [`JournalError::Full`] if there is no room for the reserve and a segment:
    /// nothing is used up, however often it is tried. Else the disk's.
    pub fn open(
        disk: D,
        expected: &Expected,
        options: Options,
    ) -> Result<(Journal<D>, Recovered), JournalError> {
        check_members(expected.members.len())?;
        let (mut meta, mut meta_file) = open_meta(&disk, expected, options.incarnation_floor)?;
        remove_unfinished(&disk)?;
        settle(&disk)?;
        let found = read_directory(&disk, &meta, options)?;
        if expected.is_alone() {
            refuse_to_wait(&meta, found.as_ref())?;
        }
        if found.is_none() {
            // Without a vote first: a crash in between must not leave a voter with an empty log.
            meta.voter = false;
            meta_file.write(&meta).trying(IoOp::Write)?;
            set_aside(&disk, |name| numbered(name, "log.").is_some() || numbered(name, "snap.").is_some())?;
        }
        let Found { known, snapshot, snapshots, rotten, closed } = found.unwrap_or_default();

        let serial = closed.last().map_or(0, |closed| closed.first).max(known.highest) + 1;
        let start = Record {
            serial,
            durable: known.serial,
            commit: known.commit,
            op: known.last.0,
            view: known.last.1,
            body: Body::Start { prev: known.serial, lost: known.lost },
        };
        // The reserve first: a server that starts without room would lead, and stop at once for want of it.
        reserve(&disk, options.step).map_err(full_or(IoOp::Write))?;
        let segment = Segment::create(&disk, &start, options.step).map_err(full_or(IoOp::Write))?;
        set_aside(&disk, |name| rotten.iter().any(|op| snapshot_name(*op) == name))?;
        meta.incarnation = Incarnation(meta.incarnation.0.saturating_add(1));
        meta_file.write(&meta).trying(IoOp::Write)?;

        let recovered = Recovered { meta: meta.clone(), snapshot, entries: known.entries, lost: known.lost };
        let journal = Journal {
            disk,
            options,
            meta,
            meta_file,
            closed,
            segment,
            op_max: known.last.0.max(known.lost.map_or(Op::ZERO, |lost| lost.last)),
            snapshots,
            last: known.last,
            commit: known.commit,
            lost: known.lost,
            durable: known.last.0,
            serials: Serials {
                written: serial,
                content: serial,
                durable: serial,
                named: known.serial,
                covered: known.serial,
            },
            poisoned: false,
        };
        Ok((journal, recovered))
    }
}

/// What a server would need others for, it cannot have without any.
fn refuse_to_wait(meta: &Meta, found: Option<&Found>) -> Result<(), JournalError> {
    match found {
        Some(Found { known: Position { lost: Some(lost), .. }, .. }) => Err(JournalError::Irreparable(*lost)),
        Some(_) if meta.voter => Ok(()),
        Some(_) | None => Err(JournalError::Forgotten),
    }
}

fn check_members(count: usize) -> Result<(), JournalError> {
    if count > MEMBERS_MAX { Err(JournalError::TooManyMembers(count)) } else { Ok(()) }
}

/// Reads meta and holds it against the config; makes that of a learner if there is none to trust.
fn open_meta<D: Disk>(
    disk: &D,
    expected: &Expected,
    floor: Incarnation,
) -> Result<(Meta, MetaFile<D::File>), JournalError> {
    let incarnation = match MetaFile::read(disk).trying(IoOp::Read)? {
        Read::Good(mut meta, file) => {
            check_meta(&meta, expected)?;
            // Made under a clock that was behind, it is shut out until this is above its latest life. One
            // that votes may have forgotten what it promised in that life, and stays shut out.
            if !meta.voter {
                meta.incarnation = meta.incarnation.max(floor);
            }
            return Ok((meta, file));
        }
        Read::Bad(_) | Read::Absent if expected.is_alone() => return Err(JournalError::Forgotten),
        Read::Bad(incarnation) => incarnation.max(floor),
        Read::Absent => floor,
    };
    // The log goes first: until meta is new, every start comes here again.
    set_aside(disk, |name| numbered(name, "log.").is_some() || numbered(name, "snap.").is_some())?;
    let meta = Meta {
        cluster: expected.cluster,
        node: expected.node,
        members: expected.members.clone(),
        voter: false,
        incarnation,
        promised: View::ZERO,
    };
    let file = MetaFile::create(disk, &meta).map_err(full_or(IoOp::Write))?;
    Ok((meta, file))
}

/// Whether a directory with this meta is the one that the configuration means.
pub(super) fn check_meta(meta: &Meta, expected: &Expected) -> Result<(), JournalError> {
    if meta.cluster != expected.cluster {
        return Err(JournalError::OtherCluster { found: meta.cluster, expected: expected.cluster });
    }
    if meta.node != expected.node {
        return Err(JournalError::OtherNode { found: meta.node, expected: expected.node });
    }
    if meta.members != expected.members {
        let ids = |members: &[crate::id::NodeId]| members.iter().map(|id| id.0).collect();
        return Err(JournalError::OtherMembers {
            found: ids(&meta.members),
            expected: ids(&expected.members),
        });
    }
    Ok(())
}

/// What a directory holds, read and judged.
#[derive(Default)]
pub(super) struct Found {
    pub(super) known: Position,
    pub(super) snapshot: Option<StoredSnapshot>,
    /// The good ones, ascending.
    pub(super) snapshots: Vec<Header>,
    /// Snapshots that are no good.
    pub(super) rotten: Vec<Op>,
    pub(super) closed: Vec<Closed>,
}

/// [`Known`], and the highest serial of any record.
#[derive(Default)]
pub(super) struct Position {
    pub(super) serial: u64,
    pub(super) highest: u64,
    pub(super) last: (Op, View),
    pub(super) commit: Op,
    pub(super) entries: Vec<crate::entry::Entry>,
    pub(super) lost: Option<crate::entry::Unknown>,
    pub(super) damaged: bool,
}

/// Reads snapshots and log without changing anything. `None`: nothing of it can be relied on.
pub(super) fn read_directory<D: Disk>(
    disk: &D,
    meta: &Meta,
    options: Options,
) -> Result<Option<Found>, JournalError> {
    let (snapshot, snapshots, rotten) = read_snapshots(disk)?;
    let at = snapshot.as_ref().map_or((Op::ZERO, View::ZERO), |stored| (stored.op, stored.view));
    let segments = scan(disk, at.0)?;
    let unreadable = segments.iter().all(|segment| segment.records.is_empty());
    if unreadable && (meta.incarnation.0 > 0 || snapshot.is_some()) {
        // Every start makes a segment, with a record, before it counts the incarnation up: it was removed,
        // or has rotted as a whole, and nobody knows how far it went.
        return Ok(None);
    }
    if snapshot.is_none() && !rotten.is_empty() && segments.first().is_some_and(|first| first.first != 1) {
        return Ok(None);
    }
    let closed =
        segments.iter().map(|scanned| Closed { first: scanned.first, op_max: scanned.op_max() }).collect();
    let serials = segments.iter().flat_map(|scanned| scanned.records.iter().map(|record| record.serial));
    let highest = serials.max().unwrap_or(0);
    let Some(known) = recover(segments, at, meta.promised, options.planted) else { return Ok(None) };
    let Known { serial, last, commit, entries, lost, damaged } = known;
    let known = Position { serial, highest, last, commit, entries, lost, damaged };
    Ok(Some(Found { known, snapshot, snapshots, rotten, closed }))
}

/// All log files, ascending, scanned.
pub(super) fn scan<D: Disk>(disk: &D, skip: Op) -> Result<Vec<Scanned>, JournalError> {
    let mut segments = Vec::new();
    for first in numbers(disk, "log.")? {
        let file = disk.open(&log_name(first)).trying(IoOp::Read)?;
        let len = usize::try_from(file.len().trying(IoOp::Read)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes).trying(IoOp::Read)?;
        segments.push(Scanned::new(first, &bytes, skip));
    }
    Ok(segments)
}

type Snapshots = (Option<StoredSnapshot>, Vec<Header>, Vec<Op>);

/// The newest good snapshot, the headers of all that seem good, and the ops of those that are not.
fn read_snapshots<D: Disk>(disk: &D) -> Result<Snapshots, JournalError> {
    let (mut newest, mut good, mut rotten) = (None, Vec::new(), Vec::new());
    for op in numbers(disk, "snap.")?.into_iter().rev().map(Op) {
        let header = snapshot::read_header(disk, op).trying(IoOp::Read)?;
        if newest.is_none() && header.is_some() {
            newest = snapshot::read(disk, op).trying(IoOp::Read)?;
            if newest.is_none() {
                rotten.push(op);
                continue;
            }
        }
        match header {
            Some(header) => good.push(header),
            None => rotten.push(op),
        }
    }
    good.reverse();
    Ok((newest, good, rotten))
}

/// The numbers of the files named so, ascending.
pub(super) fn numbers<D: Disk>(disk: &D, prefix: &str) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().trying(IoOp::List)?;
    Ok(names.iter().filter_map(|name| numbered(name, prefix)).collect())
}

fn full_or(op: IoOp) -> impl Fn(std::io::Error) -> JournalError {
    move |source| if is_full(&source) { JournalError::Full } else { error_of(op, source) }
}

/// Makes durable what is about to be read: after a killed process the system may still hold writes
/// that no sync has covered, and what recovery has once relied on must not vanish later.
fn settle<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for first in numbers(disk, "log.")? {
        disk.open(&log_name(first)).and_then(|mut file| file.sync()).trying(IoOp::Sync)?;
    }
    disk.sync().trying(IoOp::Directory)
}

fn remove_unfinished<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for name in disk.list().trying(IoOp::List)?.iter().filter(|name| name.starts_with("tmp.")) {
        disk.remove(name).trying(IoOp::Directory)?;
    }
    Ok(())
}

fn set_aside<D: Disk>(disk: &D, which: impl Fn(&str) -> bool) -> Result<(), JournalError> {
    let names = disk.list().trying(IoOp::List)?;
    let mut changed = false;
    for name in names.iter().filter(|name| which(name)) {
        disk.rename(name, &format!("{ASIDE}{name}")).trying(IoOp::Directory)?;
        changed = true;
    }
    if changed { disk.sync().trying(IoOp::Directory) } else { Ok(()) }
}
