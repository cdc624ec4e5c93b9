//! The start of a journal: `init`, and `open` with its recovery.

use recado_proto::entry::Unknown;
use recado_proto::id::{Epoch, Incarnation, MEMBERS_MAX, Op, View};
use recado_proto::members::default_tie_holder;

use super::error::{IoOp, JournalError, Trying, is_rot};
use super::log::{ASIDE, Closed, Journal, judge_removal, reserve};
use super::meta::{self, Good, MetaFile, Read};
use super::receive::Reception;
use super::record::{Body, Owner, Record};
use super::recovery::{Known, Recovery};
use super::scan::Records;
use super::segment::Segment;
use super::snapshot::{self, Header};
use super::{
    Disk, DiskFile, Expected, Mark, Meta, Options, Recovered, StoredSnapshot, is_ours, log_name, numbered,
    snapshot_name,
};

/// A file that occupies the room of the next snapshot for a moment.
const ROOM_FILE: &str = "tmp.room";

impl<D: Disk> Journal<D> {
    /// Makes an empty directory the directory of this server, for `recadod init`. This is the only way to a
    /// voter that has never promised anything.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`], [`JournalError::NotRegular`], [`JournalError::TooManyMembers`]: nothing
    /// changed. Otherwise the error of the disk.
    pub fn init(disk: &D, meta: &Meta) -> Result<(), JournalError> {
        check_members(meta.members.len())?;
        check_regular(disk)?;
        let names = disk.list().during(IoOp::List)?;
        // Files of an interrupted init do not count.
        if let Some(name) = names.into_iter().find(|name| !name.starts_with("tmp.")) {
            return Err(JournalError::NotEmpty(name));
        }
        MetaFile::create(disk, meta).map(drop).during(IoOp::Write)
    }

    /// Opens the directory and recovers its content. On return the incarnation is counted up, and a new
    /// segment that records the result of the recovery is durable.
    ///
    /// A directory without readable meta counts as empty: its files are set aside and the server is a
    /// learner. Ops that are missing or unreadable for another reason are unknown ([`Recovered::lost`]).
    ///
    /// # Errors
    /// The directory is of another version, cluster, server or members, or of a later program, or a name of
    /// the journal is not a regular file, or the cluster's only server cannot continue from it: nothing
    /// changed. [`JournalError::Full`] if there is no room for the reserve, a segment and the next snapshot:
    /// repeated attempts use no space up. Otherwise the error of the disk.
    pub fn open(
        disk: D,
        expected: &Expected,
        options: Options,
    ) -> Result<(Journal<D>, Recovered), JournalError> {
        check_members(expected.members.len())?;
        check_regular(&disk)?;
        check_versions(&disk)?;
        let (mut meta, mark, mut meta_file) = open_meta(&disk, expected, options.incarnation_floor)?;
        sync_before_read(&disk)?;
        let Found { known, snapshot, snapshots, rotten, closed } =
            read_directory(&disk, &meta, mark, options)?;
        if expected.is_alone() {
            check_self_sufficient(&meta, known.lost)?;
        }
        remove_unfinished(&disk)?;

        let serial = closed.last().map_or(0, |closed| closed.first).max(known.highest) + 1;
        let start = Record {
            serial,
            durable: known.serial,
            commit: known.commit,
            op: known.last.0,
            view: known.last.1,
            body: Body::Start { prev: known.serial, lost: known.lost, owner: Some(owner_of(&meta)) },
        };
        // The reserve first: a server that starts without room would lead, and stop at once because the
        // disk is full.
        reserve(&disk, options.step).during(IoOp::Write)?;
        // Then room for a snapshot, which is due soon.
        let next_snapshot = snapshots.last().map_or(0, |newest| newest.len);
        let create = || Segment::create(&disk, &start, options.step);
        let segment = with_room_for(&disk, next_snapshot, create).during(IoOp::Write)?;
        set_aside(&disk, |name| rotten.iter().any(|number| snapshot_name(*number) == name))?;
        meta.incarnation = Incarnation(meta.incarnation.0.saturating_add(1));
        let op_max = known.last.0.max(known.lost.map_or(Op::ZERO, |lost| lost.last));
        let mark = Mark { serial, op: op_max, view: known.last.1, segment: serial };
        // If this fails, the segment stays, because a slot may name it already.
        meta_file.write(&meta, mark).during(IoOp::Write)?;

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
            known_unsaved: false,
            closed,
            segment,
            op_max,
            snapshots,
            removing: Vec::new(),
            reception: Reception::Idle,
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

/// Refuses a state in which this server would need others, because the cluster has no other server.
pub(super) fn check_self_sufficient(meta: &Meta, lost: Option<Unknown>) -> Result<(), JournalError> {
    match lost {
        Some(lost) => Err(JournalError::Irreparable(lost)),
        None if meta.voter => Ok(()),
        None => Err(JournalError::Forgotten),
    }
}

fn check_members(count: usize) -> Result<(), JournalError> {
    if count > MEMBERS_MAX { Err(JournalError::TooManyMembers(count)) } else { Ok(()) }
}

/// Refuses a directory in which a name of the journal is not a regular file, before anything is touched.
pub(super) fn check_regular<D: Disk>(disk: &D) -> Result<(), JournalError> {
    let others = disk.list_others().during(IoOp::List)?;
    others.into_iter().find(|name| is_ours(name)).map_or(Ok(()), |name| Err(JournalError::NotRegular(name)))
}

/// What may be in a data directory beside the journal's files: the directory that `mkfs` makes at the root of
/// a disk, and the socket that a server leaves when it is killed.
const NO_DATA: [&str; 2] = ["lost+found", "status.sock"];

/// Refuses a directory that was never a server's: it has something that is not the journal's, and no meta.
/// Call it before anything in the directory is touched.
///
/// # Errors
/// [`JournalError::Foreign`]; otherwise the error of the disk. Nothing changed.
pub fn check_ours<D: Disk>(disk: &D) -> Result<(), JournalError> {
    let files = disk.list().during(IoOp::List)?;
    if files.iter().any(|name| name == meta::NAME) {
        return Ok(());
    }
    let others = disk.list_others().during(IoOp::List)?;
    let is_foreign = |name: &String| !is_ours(name) && !NO_DATA.contains(&name.as_str());
    let foreign = files.into_iter().chain(others).find(is_foreign);
    foreign.map_or(Ok(()), |name| Err(JournalError::Foreign(name)))
}

/// Runs `then` while a file occupies `bytes` more bytes, and removes the file whatever the result.
fn with_room_for<D: Disk, T>(
    disk: &D,
    bytes: u64,
    then: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    if bytes == 0 {
        return then();
    }
    let taken = disk.create(ROOM_FILE).and_then(|mut file| file.allocate(bytes));
    let done = taken.and_then(|()| then());
    // If it cannot be removed, the next start removes it.
    let _ = disk.remove(ROOM_FILE);
    done
}

/// Refuses files of another version, or of a history that this program does not follow, before anything is
/// touched.
pub(super) fn check_versions<D: Disk>(disk: &D) -> Result<(), JournalError> {
    MetaFile::read(disk)?;
    for first in numbers(disk, "log.")? {
        Records::open(disk, first, Op::ZERO)?.check_version()?;
    }
    numbers(disk, "snap.")?.into_iter().try_for_each(|number| snapshot::check_version(disk, number))
}

/// Reads meta and compares it with the config. Without usable meta it makes the meta of a learner.
fn open_meta<D: Disk>(
    disk: &D,
    expected: &Expected,
    floor: Incarnation,
) -> Result<(Meta, Mark, MetaFile<D::File>), JournalError> {
    match MetaFile::read(disk)? {
        Read::Good(Good { mut meta, mark, file, whole }) => {
            check_meta(&meta, expected)?;
            if !whole {
                tracing::error!("one of the two slots of meta is damaged, the other is used: check the disk");
            }
            // Meta of a learner may have been made under a clock that was behind. Peers then drop its
            // packets until its incarnation is above the highest they know. The incarnation of a voter is
            // not raised: it may have forgotten the promises of a higher one, so peers must keep dropping
            // its packets.
            if !meta.voter {
                meta.incarnation = meta.incarnation.max(floor);
            }
            return Ok((meta, mark, file));
        }
        Read::Bad | Read::Absent if expected.is_alone() => return Err(JournalError::Forgotten),
        // A meta that the disk cannot rename cannot be replaced either. The start then fails before the log
        // is touched, and the log is used again once the disk is repaired.
        Read::Bad => {
            disk.rename(meta::NAME, &format!("{ASIDE}{}", meta::NAME)).during(IoOp::Directory)?;
            disk.sync().during(IoOp::Directory)?;
        }
        Read::Absent => {}
    }
    // The log is set aside first: until the new meta is in place, every start comes here again.
    set_aside(disk, |name| numbered(name, "log.").is_some() || numbered(name, "snap.").is_some())?;
    let Expected { cluster, node, members } = expected.clone();
    let meta = Meta { voter: false, incarnation: floor, ..Meta::new(cluster, node, members) };
    let file = MetaFile::create(disk, &meta).during(IoOp::Write)?;
    Ok((meta, Mark::default(), file))
}

/// Refuses meta of another cluster, server or members than the configuration names, or that this program
/// cannot follow.
pub(super) fn check_meta(meta: &Meta, expected: &Expected) -> Result<(), JournalError> {
    if meta.cluster != expected.cluster {
        return Err(JournalError::OtherCluster { found: meta.cluster, expected: expected.cluster });
    }
    if meta.node != expected.node {
        return Err(JournalError::OtherNode { found: meta.node, expected: expected.node });
    }
    let fixed = meta.members_op == Op::ZERO
        && meta.tie_holder == default_tie_holder(meta.member_ids())
        && meta.members.iter().all(|member| member.joined == Incarnation(0));
    if meta.epoch != Epoch::FIRST || !fixed {
        return Err(JournalError::Unsupported);
    }
    if !meta.member_ids().eq(expected.members.iter().copied()) {
        return Err(JournalError::OtherMembers {
            found: meta.member_ids().map(|id| id.0).collect(),
            expected: expected.members.iter().map(|id| id.0).collect(),
        });
    }
    Ok(())
}

/// The server that the directory belongs to, as its segments name it.
pub(super) fn owner_of(meta: &Meta) -> Owner {
    Owner { cluster: meta.cluster, node: meta.node }
}

/// The content of a directory, after recovery.
pub(super) struct Found {
    pub(super) known: Known,
    pub(super) snapshot: Option<StoredSnapshot>,
    /// The headers of the good snapshots, ascending.
    pub(super) snapshots: Vec<Header>,
    /// The numbers of the bad snapshots.
    pub(super) rotten: Vec<u64>,
    pub(super) closed: Vec<Closed>,
}

/// Reads snapshots and log without changing anything. Only the entries after the newest good snapshot are
/// held.
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
        let head = Records::open(disk, first, at.0)?.head()?;
        if let Some(Record { body: Body::Start { owner: Some(owner), .. }, .. }) = &head
            && *owner != owner_of(meta)
        {
            let (found, expected) = ((owner.cluster, owner.node), (meta.cluster, meta.node));
            return Err(JournalError::OtherLog { file: log_name(first), found, expected });
        }
        heads.push((first, head));
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

type Snapshots = (Option<StoredSnapshot>, Vec<Header>, Vec<u64>);

/// The newest good snapshot, the headers of all that seem good, by op, and the numbers of the bad ones.
fn read_snapshots<D: Disk>(disk: &D) -> Result<Snapshots, JournalError> {
    let (mut newest, mut good, mut rotten) = (None, Vec::new(), Vec::new());
    for number in numbers(disk, "snap.")? {
        match snapshot::read_header(disk, number).during(IoOp::Read)? {
            Some(header) => good.push(header),
            None => rotten.push(number),
        }
    }
    good.sort_by_key(|header: &Header| header.op);
    while newest.is_none()
        && let Some(header) = good.last()
    {
        let good_as_a_whole = snapshot::check(disk, header.number).during(IoOp::Read)?;
        newest = good_as_a_whole.map(|Header { op, view, .. }| StoredSnapshot { op, view });
        if newest.is_none() {
            rotten.extend(good.pop().map(|header| header.number));
        }
    }
    Ok((newest, good, rotten))
}

/// The numbers in the names of the files with this prefix, ascending.
pub(super) fn numbers<D: Disk>(disk: &D, prefix: &str) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().during(IoOp::List)?;
    Ok(names.iter().filter_map(|name| numbered(name, prefix)).collect())
}

/// Makes the log files durable before they are read. After a killed process the system may still hold
/// writes that no sync has covered, and data that a recovery relied on must not vanish later. Nothing
/// relies on a file that the disk cannot open.
fn sync_before_read<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for name in numbers(disk, "log.")?.into_iter().map(log_name) {
        match disk.open(&name) {
            Err(error) if is_rot(&error) => {
                tracing::error!(name, %error, "the disk can no longer open the log file: check the disk");
            }
            file => file.and_then(|mut file| file.sync()).during(IoOp::Sync)?,
        }
    }
    disk.sync().during(IoOp::Directory)
}

fn remove_unfinished<D: Disk>(disk: &D) -> Result<(), JournalError> {
    for name in disk.list().during(IoOp::List)?.iter().filter(|name| name.starts_with("tmp.")) {
        judge_removal(disk, name, disk.remove(name))?;
    }
    Ok(())
}

fn set_aside<D: Disk>(disk: &D, which: impl Fn(&str) -> bool) -> Result<(), JournalError> {
    let names = disk.list().during(IoOp::List)?;
    let mut changed = false;
    for name in names.iter().filter(|name| which(name)) {
        judge_removal(disk, name, disk.rename(name, &format!("{ASIDE}{name}")))?;
        changed = true;
    }
    if changed { disk.sync().during(IoOp::Directory) } else { Ok(()) }
}
