//! How a journal starts: `init`, and `open` with its recovery.

use super::error::{IoOp, JournalError, Trying, is_rot};
use super::log::{ASIDE, Closed, Journal, let_go, reserve};
use super::meta::{Good, MetaFile, Read};
use super::record::{Body, Record};
use super::recovery::{Known, Recovery};
use super::scan::Records;
use super::segment::Segment;
use super::snapshot::{self, Header};
use super::{
    Disk, DiskFile, Expected, Mark, Meta, Options, Recovered, StoredSnapshot, is_ours, log_name, numbered,
    snapshot_name,
};
use crate::entry::Unknown;
use crate::id::{Incarnation, MEMBERS_MAX, Op, View};

/// What takes the room of the next snapshot for a moment.
const ROOM: &str = "tmp.room";

impl<D: Disk> Journal<D> {
    /// Makes an empty directory one of this server, for `recadod init`: the only way to a voter
    /// that has never promised anything.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`], [`JournalError::NotRegular`], [`JournalError::TooManyMembers`]: nothing changed.
    /// Else the disk's.
    pub fn init(disk: &D, meta: &Meta) -> Result<(), JournalError> {
        check_members(meta.members.len())?;
        check_regular(disk)?;
        let names = disk.list().trying(IoOp::List)?;
        // What an interrupted init left behind is nothing.
        if let Some(name) = names.into_iter().find(|name| !name.starts_with("tmp.")) {
            return Err(JournalError::NotEmpty(name));
        }
        MetaFile::create(disk, meta).map(drop).trying(IoOp::Write)
    }

    /// Opens the directory and recovers what it holds. On return the incarnation is counted up, and
    /// a fresh segment that says what was recovered is durable.
    ///
    /// A directory without readable meta counts as empty: its files are set aside and the server is a
    /// learner. Whatever else is missing or unreadable is unknown ([`Recovered::lost`]).
    ///
    /// # Errors
    /// A directory of another version, cluster, server or members, one in which something else stands for a file, or
    /// one that the cluster's only server cannot go on from: nothing changed. [`JournalError::Full`] if there is no
    /// room for the reserve, a segment and the next snapshot: nothing is used up, however often it is tried. Else the
    /// disk's.
    pub fn open(
        disk: D,
        expected: &Expected,
        options: Options,
    ) -> Result<(Journal<D>, Recovered), JournalError> {
        check_members(expected.members.len())?;
        check_regular(&disk)?;
        check_versions(&disk)?;
        let (mut meta, mark, mut meta_file) = open_meta(&disk, expected, options.incarnation_floor)?;
        remove_unfinished(&disk)?;
        settle(&disk)?;
        let Found { known, snapshot, snapshots, rotten, closed } =
            read_directory(&disk, &meta, mark, options)?;
        if expected.is_alone() {
            refuse_to_wait(&meta, known.lost)?;
        }

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
        reserve(&disk, options.step).trying(IoOp::Write)?;
        // And a snapshot, which is due soon.
        let next_snapshot = snapshots.last().map_or(0, |newest| newest.len);
        let create = || Segment::create(&disk, &start, options.step);
        let segment = beside_room(&disk, next_snapshot, create).trying(IoOp::Write)?;
        set_aside(&disk, |name| rotten.iter().any(|op| snapshot_name(*op) == name))?;
        meta.incarnation = Incarnation(meta.incarnation.0.saturating_add(1));
        let op_max = known.last.0.max(known.lost.map_or(Op::ZERO, |lost| lost.last));
        let mark = Mark { serial, op: op_max, view: known.last.1, segment: serial };
        // If it fails, the segment stays: a slot may name it already.
        meta_file.write(&meta, mark).trying(IoOp::Write)?;

        let recovered = Recovered {
            meta: meta.clone(),
            snapshot,
            entries: known.entries,
            commit: known.commit,
            lost: known.lost,
        };
        let journal = Journal {
            disk,
            options,
            meta,
            meta_file,
            mark,
            unsaved: false,
            closed,
            segment,
            op_max,
            snapshots,
            unreadable: Vec::new(),
            last: known.last,
            commit: known.commit,
            lost: known.lost,
            durable: known.last.0,
            written: serial,
            synced: (serial, known.last),
            poisoned: false,
        };
        Ok((journal, recovered))
    }
}

/// What a server would need others for, it cannot have without any.
fn refuse_to_wait(meta: &Meta, lost: Option<Unknown>) -> Result<(), JournalError> {
    match lost {
        Some(lost) => Err(JournalError::Irreparable(lost)),
        None if meta.voter => Ok(()),
        None => Err(JournalError::Forgotten),
    }
}

fn check_members(count: usize) -> Result<(), JournalError> {
    if count > MEMBERS_MAX { Err(JournalError::TooManyMembers(count)) } else { Ok(()) }
}

/// Refuses a directory in which something else stands where the journal keeps a file, before anything is touched.
pub(super) fn check_regular<D: Disk>(disk: &D) -> Result<(), JournalError> {
    let others = disk.list_others().trying(IoOp::List)?;
    others.into_iter().find(|name| is_ours(name)).map_or(Ok(()), |name| Err(JournalError::NotRegular(name)))
}

/// What `then` gives while so many bytes more are taken, which are given back whatever comes of it.
fn beside_room<D: Disk, T>(
    disk: &D,
    bytes: u64,
    then: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    if bytes == 0 {
        return then();
    }
    let taken = disk.create(ROOM).and_then(|mut file| file.allocate(bytes));
    let done = taken.and_then(|()| then());
    // Where it cannot be removed now, the next start does it.
    let _ = disk.remove(ROOM);
    done
}

/// Refuses what another version of this program wrote, before anything is touched.
pub(super) fn check_versions<D: Disk>(disk: &D) -> Result<(), JournalError> {
    MetaFile::read(disk)?;
    for first in numbers(disk, "log.")? {
        Records::open(disk, first, Op::ZERO)?.check_version()?;
    }
    numbers(disk, "snap.")?.into_iter().try_for_each(|op| snapshot::check_version(disk, Op(op)))
}

/// Reads meta and holds it against the config; makes that of a learner if there is none to trust.
fn open_meta<D: Disk>(
    disk: &D,
    expected: &Expected,
    floor: Incarnation,
) -> Result<(Meta, Mark, MetaFile<D::File>), JournalError> {
    match MetaFile::read(disk)? {
        Read::Good(Good { mut meta, mark, file, whole }) => {
            check_meta(&meta, expected)?;
            if !whole {
                tracing::error!(
                    "one of the two slots of meta is damaged, the other serves: look after the disk"
                );
            }
            // Made under a clock that was behind, it is shut out until this is above its latest life. One
            // that votes may have forgotten what it promised in that life, and stays shut out.
            if !meta.voter {
                meta.incarnation = meta.incarnation.max(floor);
            }
            return Ok((meta, mark, file));
        }
        Read::Bad | Read::Absent if expected.is_alone() => return Err(JournalError::Forgotten),
        Read::Bad | Read::Absent => {}
    }
    // The log goes first: until meta is new, every start comes here again.
    set_aside(disk, |name| numbered(name, "log.").is_some() || numbered(name, "snap.").is_some())?;
    let meta = Meta {
        cluster: expected.cluster,
        node: expected.node,
        members: expected.members.clone(),
        voter: false,
        incarnation: floor,
        promised: View::ZERO,
        known: Vec::new(),
    };
    let file = MetaFile::create(disk, &meta).trying(IoOp::Write)?;
    Ok((meta, Mark::default(), file))
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
pub(super) struct Found {
    pub(super) known: Known,
    pub(super) snapshot: Option<StoredSnapshot>,
    /// The good ones, ascending.
    pub(super) snapshots: Vec<Header>,
    /// Snapshots that are no good.
    pub(super) rotten: Vec<Op>,
    pub(super) closed: Vec<Closed>,
}

/// Reads snapshots and log without changing anything. Held of the log is what comes after the newest good
/// snapshot.
pub(super) fn read_directory<D: Disk>(
    disk: &D,
    meta: &Meta,
    mark: Mark,
    options: Options,
) -> Result<Found, JournalError> {
    let (snapshot, snapshots, rotten) = read_snapshots(disk)?;
    let at = snapshot.as_ref().map_or((Op::ZERO, View::ZERO), |stored| (stored.op, stored.view));
    let mut heads = Vec::new();
    for first in numbers(disk, "log.")? {
        heads.push((first, Records::open(disk, first, at.0)?.head()?));
    }
    let mut recovery = Recovery::new(&heads, at);
    let mut closed = Vec::new();
    for (index, (first, _)) in heads.into_iter().enumerate() {
        let mut records = Records::open(disk, first, at.0)?;
        let mut op_max = Op::ZERO;
        while let Some(record) = records.next()? {
            op_max = op_max.max(recovery.take(index, record));
        }
        closed.push(Closed { first, op_max });
    }
    let known = recovery.finish(mark, meta.promised, options.planted);
    Ok(Found { known, snapshot, snapshots, rotten, closed })
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

/// Makes durable what is about to be read: after a killed process the system may still hold writes
/// that no sync has covered, and what recovery has once relied on must not vanish later. On a file that the
/// disk cannot open nothing relies.
fn settle<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for name in numbers(disk, "log.")?.into_iter().map(log_name) {
        match disk.open(&name) {
            Err(error) if is_rot(&error) => {
                tracing::error!(name, %error, "the disk cannot open the log file any more: look after the disk");
            }
            file => file.and_then(|mut file| file.sync()).trying(IoOp::Sync)?,
        }
    }
    disk.sync().trying(IoOp::Directory)
}

fn remove_unfinished<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for name in disk.list().trying(IoOp::List)?.iter().filter(|name| name.starts_with("tmp.")) {
        let_go(disk, name, disk.remove(name))?;
    }
    Ok(())
}

fn set_aside<D: Disk>(disk: &D, which: impl Fn(&str) -> bool) -> Result<(), JournalError> {
    let names = disk.list().trying(IoOp::List)?;
    let mut changed = false;
    for name in names.iter().filter(|name| which(name)) {
        let_go(disk, name, disk.rename(name, &format!("{ASIDE}{name}")))?;
        changed = true;
    }
    if changed { disk.sync().trying(IoOp::Directory) } else { Ok(()) }
}
