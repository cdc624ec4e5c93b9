//! Inspection: reports the content of a directory to a person or a program. It only reads, also while a
//! server runs on the directory; then the end of the log may be in the middle of a write.

use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

use recado_proto::entry::Unknown;
use recado_proto::id::{ClusterId, NodeId, Op, View};

use super::error::{IoOp, JournalError, Trying};
use super::log::ASIDE;
use super::meta::{self, Good, MetaFile, Read};
use super::open::{
    check_meta, check_ours, check_regular, check_self_sufficient, check_versions, numbers, read_directory,
};
use super::scan::Records;
use super::{Directory, Disk, Expected, Mark, Meta, Options, is_ours, log_name, snapshot, snapshot_name};

/// The content of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The state of meta.
    pub meta: MetaState,
    /// The snapshots, ascending.
    pub snapshots: Vec<SnapshotRange>,
    /// The log files, ascending.
    pub log: Vec<LogRange>,
    /// The names of the files that a start has set aside, ascending. No start reads them, and they are
    /// removed once there are three good snapshots.
    pub aside: Vec<String>,
    /// The last op known, of snapshot and log together.
    pub last: Op,
    /// The view of that op.
    #[serde(serialize_with = "as_shown")]
    pub view: View,
    /// The highest op that was certainly committed.
    pub commit: Op,
    /// The ops that damage destroyed and no peer has brought back.
    #[serde(serialize_with = "unknown_as_shown")]
    pub lost: Option<Unknown>,
    /// True if the next start will find damage in data that was once durable, meta included.
    pub damaged: bool,
}

/// The state of meta.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MetaState {
    /// No meta: the directory counts as empty, and a server started here is a learner.
    Absent,
    /// Both slots are unreadable: the directory counts as empty, and a server started here is a learner.
    Rotten,
    /// At least one slot is good.
    Good {
        /// True if both slots are good; if not, the next start writes both again.
        whole: bool,
        /// The cluster that the directory belongs to.
        #[serde(serialize_with = "as_shown")]
        cluster: ClusterId,
        /// The server that the directory belongs to.
        node: NodeId,
        /// The ids of all members.
        members: Vec<NodeId>,
        /// True if the server votes.
        voter: bool,
        /// One more than at the start before: see [`Meta::incarnation`].
        incarnation: u64,
        /// The promised view: the server accepts nothing below it.
        #[serde(serialize_with = "as_shown")]
        promised: View,
        /// The mark in meta.
        #[serde(serialize_with = "mark_as_shown")]
        mark: Mark,
    },
}

impl MetaState {
    fn good(meta: Meta, mark: Mark, whole: bool) -> MetaState {
        MetaState::Good {
            whole,
            mark,
            cluster: meta.cluster,
            node: meta.node,
            members: meta.member_ids().collect(),
            voter: meta.voter,
            incarnation: meta.incarnation.0,
            promised: meta.promised,
        }
    }
}

/// One snapshot file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotRange {
    /// The name of the file.
    pub name: String,
    /// The last op in it.
    pub op: Op,
    /// The view of that op; zero if the file is bad.
    #[serde(serialize_with = "as_shown")]
    pub view: View,
    /// The length without the header; zero if the file is bad.
    pub bytes: u64,
    /// True if the checksums are right.
    pub good: bool,
}

/// One log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogRange {
    /// The name of the file.
    pub name: String,
    /// The length of the file.
    pub bytes: u64,
    /// The bytes in use: the end of the last valid record.
    pub used: u64,
    /// The number of valid records.
    pub records: u64,
    /// The lowest op of an entry in it.
    pub first: Option<Op>,
    /// The highest one.
    pub last: Option<Op>,
    /// Bytes that belong to no valid record: a torn tail, or damage.
    pub bad_bytes: u64,
    /// True if the disk can open the file; if not, all numbers are zero.
    pub readable: bool,
}

/// Serializes the text that is shown everywhere: a cluster is 16 hexadecimal digits, a view `round.node`.
fn as_shown<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn mark_as_shown<S: Serializer>(mark: &Mark, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        serial: u64,
        op: Op,
        #[serde(serialize_with = "as_shown")]
        view: View,
        segment: u64,
    }
    let Mark { serial, op, view, segment } = *mark;
    Shown { serial, op, view, segment }.serialize(serializer)
}

fn unknown_as_shown<S: Serializer>(unknown: &Option<Unknown>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        first: Op,
        last: Op,
        #[serde(serialize_with = "as_shown")]
        view_max: View,
    }
    let shown = unknown.map(|Unknown { first, last, view_max }| Shown { first, last, view_max });
    shown.serialize(serializer)
}

/// Inspects the directory `dir`.
///
/// # Errors
/// The error of the system; a name of the journal that is not a regular file, or a file of another version.
pub fn inspect(dir: &Path) -> Result<Inspection, JournalError> {
    inspect_disk(&Directory::read_only(dir)?)
}

/// What a start would find in a directory that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The state of meta.
    pub meta: MetaState,
    /// The ops that damage destroyed, and that the other servers have to send. Not looked for beside a server
    /// that runs.
    pub lost: Option<Unknown>,
    /// True if there are log files or snapshots and no readable meta: the next start sets them aside.
    pub orphaned: bool,
}

impl Checked {
    /// Returns true if data that was once durable is damaged or missing here.
    pub fn is_damaged(&self) -> bool {
        let of_meta = match self.meta {
            MetaState::Absent => self.orphaned,
            MetaState::Rotten => true,
            MetaState::Good { whole, .. } => !whole,
        };
        of_meta || self.lost.is_some()
    }
}

/// Examines the directory `dir` as a start with this configuration does, and refuses what that refuses, but
/// changes nothing. Beside a server that runs on it, only meta is read: the end of the log may be in the
/// middle of a write, and files are removed.
///
/// # Errors
/// The directory is of another version, cluster, server or members, or a name of the journal is not a
/// regular file, or the cluster's only server cannot continue from it; otherwise the error of the system.
pub fn check(dir: &Path, expected: &Expected) -> Result<Checked, JournalError> {
    let disk = Directory::read_only(dir)?;
    check_regular(&disk)?;
    check_ours(&disk)?;
    let runs = Directory::is_locked(dir)?;
    if !runs {
        check_versions(&disk)?;
    }
    let orphaned = || -> Result<bool, JournalError> {
        Ok(!numbers(&disk, "log.")?.is_empty() || !numbers(&disk, "snap.")?.is_empty())
    };
    match MetaFile::read(&disk)? {
        Read::Absent | Read::Bad if expected.is_alone() => Err(JournalError::Forgotten),
        Read::Absent => Ok(Checked { meta: MetaState::Absent, lost: None, orphaned: orphaned()? }),
        Read::Bad => Ok(Checked { meta: MetaState::Rotten, lost: None, orphaned: orphaned()? }),
        Read::Good(Good { meta, mark, whole, .. }) => {
            check_meta(&meta, expected)?;
            let lost = match runs {
                true => None,
                false => read_directory(&disk, &meta, mark, Options::default())?.known.lost,
            };
            if expected.is_alone() {
                check_self_sufficient(&meta, lost)?;
            }
            Ok(Checked { meta: MetaState::good(meta, mark, whole), lost, orphaned: false })
        }
    }
}

/// Inspects a directory on any disk.
///
/// # Errors
/// The error of the disk; a name of the journal that is not a regular file, or a file of another version.
pub fn inspect_disk<D: Disk>(disk: &D) -> Result<Inspection, JournalError> {
    check_regular(disk)?;
    check_versions(disk)?;
    let read = MetaFile::read(disk)?;
    let mut inspection = Inspection {
        meta: MetaState::Absent,
        snapshots: snapshots(disk)?,
        log: log(disk)?,
        aside: aside(disk)?,
        last: Op::ZERO,
        view: View::ZERO,
        commit: Op::ZERO,
        lost: None,
        damaged: false,
    };
    match read {
        // Without meta nothing else counts.
        Read::Absent => inspection.damaged = !inspection.log.is_empty() || !inspection.snapshots.is_empty(),
        Read::Bad => (inspection.meta, inspection.damaged) = (MetaState::Rotten, true),
        Read::Good(Good { meta, mark, whole, .. }) => {
            let found = read_directory(disk, &meta, mark, Options::default())?;
            (inspection.last, inspection.view) = found.known.last;
            inspection.commit = found.known.commit;
            inspection.lost = found.known.lost;
            let unreadable = inspection.log.iter().any(|range| !range.readable);
            inspection.damaged = found.known.damaged || !found.rotten.is_empty() || !whole || unreadable;
            inspection.meta = MetaState::good(meta, mark, whole);
        }
    }
    Ok(inspection)
}

fn snapshots<D: Disk>(disk: &D) -> Result<Vec<SnapshotRange>, JournalError> {
    let mut ranges = Vec::new();
    for number in numbers(disk, "snap.")? {
        let stored = snapshot::check(disk, number).during(IoOp::Read)?;
        ranges.push(SnapshotRange {
            name: snapshot_name(number),
            op: stored.as_ref().map_or(Op(number), |stored| stored.op),
            view: stored.as_ref().map_or(View::ZERO, |stored| stored.view),
            bytes: stored.as_ref().map_or(0, |stored| stored.len),
            good: stored.is_some(),
        });
    }
    Ok(ranges)
}

fn log<D: Disk>(disk: &D) -> Result<Vec<LogRange>, JournalError> {
    let mut ranges = Vec::new();
    for first in numbers(disk, "log.")? {
        let mut records = Records::open(disk, first, Op(u64::MAX))?;
        let (mut count, mut ops) = (0, None::<(Op, Op)>);
        while let Some(record) = records.next()? {
            count += 1;
            if record.is_entry() {
                let (low, high) = ops.unwrap_or((record.op, record.op));
                ops = Some((low.min(record.op), high.max(record.op)));
            }
        }
        ranges.push(LogRange {
            name: log_name(first),
            bytes: records.len(),
            used: records.used,
            records: count,
            first: ops.map(|(low, _)| low),
            last: ops.map(|(_, high)| high),
            bad_bytes: records.bad,
            readable: records.is_open(),
        });
    }
    Ok(ranges)
}

fn aside<D: Disk>(disk: &D) -> Result<Vec<String>, JournalError> {
    let names = disk.list().during(IoOp::List)?;
    Ok(names.into_iter().filter(|name| name.starts_with(ASIDE) && is_ours(name)).collect())
}

/// The reason why a start has set a file aside, as far as its name tells.
fn reason(name: &str) -> &'static str {
    match name.strip_prefix(ASIDE) {
        Some(meta::NAME) => "neither slot of it could be read: the server began again as a learner",
        Some(name) if name.starts_with("log.") => "its meta was missing or could not be read",
        _ => "it was damaged, or its meta was missing or could not be read",
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.meta {
            MetaState::Absent => writeln!(f, "meta       absent: a server started here is a learner")?,
            MetaState::Rotten => writeln!(f, "meta       DAMAGED: a server started here is a learner")?,
            MetaState::Good { cluster, node, members, voter, incarnation, promised, mark, whole } => {
                let members: Vec<String> = members.iter().map(|member| member.0.to_string()).collect();
                let role = if *voter { "votes" } else { "is a learner" };
                writeln!(f, "meta       {node} of [{}], cluster {cluster}, {role}", members.join(" "))?;
                writeln!(f, "starts     {incarnation}")?;
                writeln!(f, "promised   view {promised}")?;
                writeln!(
                    f,
                    "marked     durable up to op {} of view {}, record {}",
                    mark.op, mark.view, mark.serial
                )?;
                if !whole {
                    writeln!(
                        f,
                        "meta       ONE OF TWO SLOTS IS DAMAGED: the other is used, the next start repairs it"
                    )?;
                }
                let newest = log_name(mark.segment);
                if mark.segment > 0 && self.log.iter().all(|range| range.name != newest) {
                    writeln!(f, "log        {newest}  MISSING")?;
                }
            }
        }
        for SnapshotRange { name, view, bytes, good, .. } in &self.snapshots {
            match good {
                true => writeln!(f, "snapshot   {name}  view {view}, {bytes} bytes")?,
                false => writeln!(f, "snapshot   {name}  DAMAGED")?,
            }
        }
        for LogRange { name, bytes, used, records, first, last, bad_bytes, readable } in &self.log {
            if !readable {
                writeln!(f, "log        {name}  DAMAGED: the disk cannot open it")?;
                continue;
            }
            write!(f, "log        {name}  {records} records, ")?;
            match (first, last) {
                (Some(first), Some(last)) => write!(f, "ops {first} to {last}, ")?,
                _ => write!(f, "no ops, ")?,
            }
            write!(f, "{used} of {bytes} bytes")?;
            match bad_bytes {
                0 => writeln!(f)?,
                bad => writeln!(f, ", {bad} of no valid record")?,
            }
        }
        if self.log.iter().any(|range| range.bad_bytes > 0) && !self.damaged && self.lost.is_none() {
            let why = match self.snapshots.iter().any(|snapshot| snapshot.good) {
                true => "a write that was never completed, or damage that a snapshot covers",
                false => "a write that was never completed, so nothing of it was acknowledged",
            };
            writeln!(f, "           bytes of no valid record are no loss here: {why}")?;
        }
        for name in &self.aside {
            writeln!(f, "set aside  {name}  {}", reason(name))?;
        }
        if !self.aside.is_empty() {
            writeln!(
                f,
                "           no start reads what is set aside, and it is removed once there are three good \
                 snapshots; copy it elsewhere now if no other server has what is in it"
            )?;
        }
        writeln!(f, "last op    {} of view {}, certainly committed {}", self.last, self.view, self.commit)?;
        let is_empty = self.log.is_empty() && self.snapshots.is_empty();
        if self.meta == MetaState::Rotten || (self.meta == MetaState::Absent && !is_empty) {
            return writeln!(
                f,
                "damage     without meta nothing else here counts: the next start sets it aside, and the \
                 other servers will send what it held; the only server of a cluster refuses to start"
            );
        }
        let alone = matches!(&self.meta, MetaState::Good { members, .. } if members.len() == 1);
        let cure = if alone { "no other server can send them" } else { "the other servers will send them" };
        match (&self.lost, self.damaged) {
            (Some(lost), _) => writeln!(
                f,
                "damage     ops {} to {} are unknown (views up to {}); {cure}",
                lost.first, lost.last, lost.view_max
            ),
            (None, true) => writeln!(f, "damage     found, without a loss above the last op"),
            (None, false) => writeln!(f, "damage     none"),
        }
    }
}
