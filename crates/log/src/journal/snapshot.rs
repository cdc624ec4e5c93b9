//! Snapshot files: written by another thread, read back before anything relies on them.
//!
//! ```text
//!  0 magic 7   7 version u8   8 op u64   16 view u64   24 len u64   32 crc u32 of the bytes   36 group u16
//! 40 epoch u64                                                                     60 crc u32 of 0..60
//! 64 bytes
//! ```
//! Magic, version and the CRC at 60 are at the same place in every version. Group and epoch are zero: a start
//! refuses others, because their state is that of another history. The bytes between the fields are zero; a
//! reader ignores them.

use std::io;

use recado_proto::id::{Epoch, Op, View};
use recado_proto::planted::{Planted, PlantedBug};

use super::error::{IoOp, JournalError, Trying, is_rot};
use super::format::{self, Stamp};
use super::record::{u32_at, u64_at};
use super::{Disk, DiskFile, snapshot_name};

const HEADER: usize = 64;
const GROUP: usize = 36;
const EPOCH: usize = 40;
const CRC: usize = HEADER - 4;

/// The bytes of a piece of a snapshot while it is written or read back: large enough for a write to be
/// efficient, and small enough for the thread that encodes it to leave its core within a millisecond.
pub const SNAPSHOT_PIECE: usize = 256 * 1024;

/// How many file names a snapshot may have to choose from: its op, and the numbers after it.
const NAMES: u64 = 8;

/// Some bytes of a snapshot: of a stored one for a peer that fetches it, or of a peer's that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The last op in the snapshot.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The length of the snapshot in bytes.
    pub total: u64,
    /// CRC-32C of the whole snapshot.
    pub crc: u32,
    /// The offset of `bytes`.
    pub offset: u64,
    /// The bytes; at the end fewer than asked for.
    pub bytes: Vec<u8>,
}

/// The content of a snapshot file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The number in the file's name: the op, or a higher number if damaged files hold the names before it.
    pub(super) number: u64,
    pub(super) op: Op,
    pub(super) view: View,
    pub(super) len: u64,
    pub(super) crc: u32,
}

/// A snapshot to write. The journal's owner begins it; another thread may write it.
#[derive(Debug)]
pub struct SnapshotJob<D> {
    disk: D,
    op: Op,
    /// Numbers whose names are taken, because their files are being removed.
    removing: Vec<u64>,
    planted: PlantedBug,
}

/// A snapshot that is durable and was read back correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotWritten(pub(super) Header);

impl SnapshotWritten {
    /// The last op in it.
    pub fn op(&self) -> Op {
        self.0.op
    }
}

impl<D: Disk> SnapshotJob<D> {
    pub(super) fn new(disk: D, op: Op, removing: Vec<u64>, planted: PlantedBug) -> SnapshotJob<D> {
        SnapshotJob { disk, op, removing, planted }
    }

    /// The last op that belongs in it.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Creates the temporary file of the snapshot.
    ///
    /// # Errors
    /// The error of the disk. Give the result of the job to [`super::Journal::finish_snapshot`] in every
    /// case.
    pub fn create(self) -> io::Result<SnapshotFile<D>> {
        let number = self.number();
        let file = Unfinished::create(self.disk, temporary_name(number), self.planted)?;
        Ok(SnapshotFile { op: self.op, number, file })
    }

    /// Writes the whole snapshot.
    ///
    /// # Errors
    /// Those of [`SnapshotJob::create`] and of its file.
    pub fn write(self, view: View, bytes: &[u8]) -> io::Result<SnapshotWritten> {
        let mut file = self.create()?;
        bytes.chunks(SNAPSHOT_PIECE).try_for_each(|piece| file.write(piece))?;
        let mut reading = file.finish(view)?;
        loop {
            if let Some(written) = reading.read_piece()? {
                return Ok(written);
            }
        }
    }

    /// The first number whose names are usable.
    pub(super) fn number(&self) -> u64 {
        let usable = |number: &u64| {
            let removing = self.removing.contains(number);
            !removing
                && !is_stuck(&self.disk, &snapshot_name(*number))
                && !is_stuck(&self.disk, &temporary_name(*number))
        };
        (self.op.0..self.op.0.saturating_add(NAMES)).find(usable).unwrap_or(self.op.0)
    }
}

/// Returns true if the disk cannot open the file of this name, which then keeps its name: ext4 and xfs read
/// its inode before they rename, remove or replace it.
pub(super) fn is_stuck<D: Disk>(disk: &D, name: &str) -> bool {
    disk.open(name).is_err_and(|error| is_rot(&error))
}

/// A snapshot under its temporary name, to which pieces are appended. A restart removes what is not
/// finished, and so does dropping it, because on a full disk it would take up room.
pub struct SnapshotFile<D: Disk> {
    op: Op,
    number: u64,
    file: Unfinished<D>,
}

impl<D: Disk> SnapshotFile<D> {
    /// Appends a piece. Not durable before [`SnapshotFile::sync`].
    ///
    /// # Errors
    /// The error of the disk.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write(piece)
    }

    /// Makes what was written durable, so that [`SnapshotFile::finish`] finds little to sync.
    ///
    /// # Errors
    /// The error of the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Writes the header, fsyncs and renames the file, and fsyncs the directory. The snapshot is to be read
    /// back then.
    ///
    /// # Errors
    /// The error of the disk.
    pub fn finish(mut self, view: View) -> io::Result<SnapshotReading<D>> {
        let header = self.file.write_header(self.number, self.op, view)?;
        self.file.sync()?;
        self.file.rename(header)
    }
}

/// A file that is to become a snapshot. Dropping it removes the file until that has its final name, which may
/// take a millisecond for each MiB.
pub struct Unfinished<D: Disk> {
    disk: D,
    name: String,
    file: D::File,
    /// The length of what was written, without the header.
    len: u64,
    /// CRC-32C of what was written.
    crc: u32,
    planted: PlantedBug,
    /// True once the file has its final name.
    stays: bool,
}

impl<D: Disk> Unfinished<D> {
    pub(super) fn create(disk: D, name: String, planted: PlantedBug) -> io::Result<Unfinished<D>> {
        let file = disk.create(&name)?;
        Ok(Unfinished { disk, name, file, len: 0, crc: 0, planted, stays: false })
    }

    /// The length of what was written.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The body of the file, as it is to be read back.
    pub(super) fn read_as(&self, header: Header) -> (&D::File, Body) {
        (&self.file, Body::new(header, self.name.clone()))
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let end = self.len + piece.len() as u64;
        self.file.allocate(HEADER as u64 + end)?;
        self.file.write_at(HEADER as u64 + self.len, piece)?;
        (self.len, self.crc) = (end, crc32c::crc32c_append(self.crc, piece));
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Writes the header, after all else. Not durable before [`Unfinished::sync`].
    pub(super) fn write_header(&mut self, number: u64, op: Op, view: View) -> io::Result<Header> {
        let header = Header { number, op, view, len: self.len, crc: self.crc };
        self.file.allocate(HEADER as u64)?;
        self.file.write_at(0, &encode(&header))?;
        Ok(header)
    }

    /// Gives the file its final name, durably, and begins to read it back under that.
    pub(super) fn rename(mut self, header: Header) -> io::Result<SnapshotReading<D>> {
        self.disk.rename(&self.name, &snapshot_name(header.number))?;
        self.stays = true;
        if !self.planted.is(Planted::SnapshotNameNotSynced) {
            self.disk.sync()?;
        }
        SnapshotReading::of(&self.disk, header)
    }
}

impl<D: Disk> Drop for Unfinished<D> {
    fn drop(&mut self) {
        if !self.stays {
            // If it cannot be removed, a restart does it.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// A durable snapshot that is being read back.
#[derive(Debug)]
pub struct SnapshotReading<D: Disk> {
    file: D::File,
    body: Body,
    piece: Vec<u8>,
}

impl<D: Disk> SnapshotReading<D> {
    fn of(disk: &D, header: Header) -> io::Result<SnapshotReading<D>> {
        let opened = disk.open(&snapshot_name(header.number));
        let found = opened.and_then(|file| Ok(header_of(&file, header.number)?.map(|found| (file, found))));
        match unless_rotten(&snapshot_name(header.number), found)? {
            Some((file, found)) if found == header => {
                let body = Body::new(header, snapshot_name(header.number));
                Ok(SnapshotReading { file, body, piece: Vec::new() })
            }
            _ => Err(not_as_written(&snapshot_name(header.number))),
        }
    }

    /// Reads the next piece, of [`SNAPSHOT_PIECE`] bytes at most. Returns the snapshot after the last piece.
    ///
    /// # Errors
    /// The error of the disk, or the snapshot does not read as it was written.
    pub fn read_piece(&mut self) -> io::Result<Option<SnapshotWritten>> {
        self.body.read(&self.file, &mut self.piece)?;
        Ok(self.body.is_read().then_some(SnapshotWritten(self.body.header)))
    }
}

/// The bytes after the header of a snapshot file, as they are read in pieces and checked.
#[derive(Debug)]
pub(super) struct Body {
    /// The header as it was written.
    header: Header,
    /// The name of the file, for errors.
    name: String,
    /// How many bytes were read.
    read: u64,
    /// Their CRC-32C.
    crc: u32,
}

impl Body {
    pub(super) fn new(header: Header, name: String) -> Body {
        Body { header, name, read: 0, crc: 0 }
    }

    /// Returns true if all of it was read, as it was written.
    pub(super) fn is_read(&self) -> bool {
        self.read == self.header.len
    }

    /// Reads the next piece in the place of `piece`; an empty one at the end.
    pub(super) fn read(&mut self, file: &impl DiskFile, piece: &mut Vec<u8>) -> io::Result<()> {
        let read = self.take(file, piece).map(Some);
        if unless_rotten(&self.name, read)? == Some(true) { Ok(()) } else { Err(not_as_written(&self.name)) }
    }

    /// The same. Returns false if that was the last piece, and all together are not what was written.
    fn take(&mut self, file: &impl DiskFile, piece: &mut Vec<u8>) -> io::Result<bool> {
        let left = usize::try_from(self.header.len - self.read).unwrap_or(usize::MAX);
        piece.resize(left.min(SNAPSHOT_PIECE), 0);
        file.read_at(HEADER as u64 + self.read, piece)?;
        self.read += piece.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, piece);
        Ok(!self.is_read() || self.crc == self.header.crc)
    }
}

/// The newest snapshot of a journal, which is being read in pieces.
#[derive(Debug)]
pub struct NewestReading<D: Disk> {
    file: D::File,
    body: Body,
}

impl<D: Disk> NewestReading<D> {
    pub(super) fn of(disk: &D, header: Header) -> io::Result<NewestReading<D>> {
        let name = snapshot_name(header.number);
        Ok(NewestReading { file: disk.open(&name)?, body: Body::new(header, name) })
    }

    /// The last op in it.
    pub fn op(&self) -> Op {
        self.body.header.op
    }

    /// That op's view.
    pub fn view(&self) -> View {
        self.body.header.view
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.body.header.len
    }

    /// Returns true if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the next piece, of [`SNAPSHOT_PIECE`] bytes at most, in the place of what `piece` holds; an
    /// empty one after the last.
    ///
    /// # Errors
    /// The error of the disk, or, with the last piece, the snapshot does not read as it was written.
    pub fn read_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.body.read(&self.file, piece)
    }
}

fn not_as_written(name: &str) -> io::Error {
    let error = format!("{name} does not read as it was written: check this disk");
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn temporary_name(number: u64) -> String {
    format!("tmp.{}", snapshot_name(number))
}

/// The header in the snapshot file of this number; `None` if it is bad, or the disk cannot read it.
pub(super) fn read_header<D: Disk>(disk: &D, number: u64) -> io::Result<Option<Header>> {
    let name = snapshot_name(number);
    let header = disk.open(&name).and_then(|file| header_of(&file, number));
    unless_rotten(&name, header)
}

/// The header of the snapshot in the file of this number, all of which is read and checked, in pieces; `None`
/// if it is bad, or the disk cannot read it.
pub(super) fn check<D: Disk>(disk: &D, number: u64) -> io::Result<Option<Header>> {
    unless_rotten(&snapshot_name(number), try_check(disk, number))
}

/// Turns a file that the disk cannot read into a bad one, because an older snapshot may be good. Any other
/// error (no permission, too many open files) does not show that the file is bad.
fn unless_rotten<T>(name: &str, read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_rot(&error) => {
            tracing::error!(name, %error, "the disk can no longer read a snapshot: check the disk");
            Ok(None)
        }
        other => other,
    }
}

/// Refuses a snapshot of another version, or of a group or an epoch that this program does not follow.
///
/// # Errors
/// [`JournalError::OtherVersion`], [`JournalError::Unsupported`]; otherwise the error of the disk, but not
/// that it cannot read the file.
pub(super) fn check_version<D: Disk>(disk: &D, number: u64) -> Result<(), JournalError> {
    let name = snapshot_name(number);
    let mut bytes = [0; HEADER];
    match disk.open(&name).and_then(|file| file.read_at(0, &mut bytes)) {
        Err(error) if is_rot(&error) => return Ok(()),
        read => read.during(IoOp::Read)?,
    }
    match format::read(format::SNAPSHOT, &bytes[..8]) {
        Stamp::Other(found) if is_checked(&bytes) => Err(format::other_version(&name, found)),
        Stamp::Ours if is_checked(&bytes) && !is_followed(&bytes) => Err(JournalError::Unsupported),
        Stamp::Ours | Stamp::Other(_) | Stamp::None => Ok(()),
    }
}

/// Returns true if the snapshot is of the only group and epoch that this program knows.
fn is_followed(header: &[u8; HEADER]) -> bool {
    header[GROUP..GROUP + 2] == [0; 2] && u64_at(header, EPOCH) == Epoch::FIRST.0
}

fn is_checked(header: &[u8; HEADER]) -> bool {
    u32_at(header, CRC) == crc32c::crc32c(&header[..CRC])
}

fn try_check<D: Disk>(disk: &D, number: u64) -> io::Result<Option<Header>> {
    let name = snapshot_name(number);
    let file = disk.open(&name)?;
    let Some(header) = header_of(&file, number)? else { return Ok(None) };
    let (mut body, mut piece) = (Body::new(header, name), Vec::new());
    loop {
        let good = body.take(&file, &mut piece)?;
        if body.is_read() {
            return Ok(good.then_some(header));
        }
    }
}

/// At most `len` bytes of a snapshot from `offset` on. They are not checked: the receiver checks the whole
/// snapshot.
pub(super) fn read_piece<D: Disk>(
    disk: &D,
    header: Header,
    offset: u64,
    len: usize,
) -> io::Result<SnapshotPiece> {
    let offset = offset.min(header.len);
    let left = usize::try_from(header.len - offset).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(len)];
    disk.open(&snapshot_name(header.number))?.read_at(HEADER as u64 + offset, &mut bytes)?;
    let Header { op, view, len: total, crc, .. } = header;
    Ok(SnapshotPiece { op, view, total, crc, offset, bytes })
}

fn encode(header: &Header) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..7].copy_from_slice(format::SNAPSHOT);
    bytes[7] = format::DIGIT;
    bytes[8..16].copy_from_slice(&header.op.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.view.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.len.to_le_bytes());
    bytes[32..36].copy_from_slice(&header.crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..CRC]);
    bytes[CRC..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the header. It is good only if the file is long enough for the bytes that it names, and has one of
/// the names that a snapshot at its op may have.
fn header_of(file: &impl DiskFile, number: u64) -> io::Result<Option<Header>> {
    let len = file.len()?;
    if len < HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER];
    file.read_at(0, &mut bytes)?;
    let header = Header {
        number,
        op: Op(u64_at(&bytes, 8)),
        view: View(u64_at(&bytes, 16)),
        len: u64_at(&bytes, 24),
        crc: u32_at(&bytes, 32),
    };
    let good = format::read(format::SNAPSHOT, &bytes[..8]) == Stamp::Ours
        && is_checked(&bytes)
        && header.len <= len - HEADER as u64
        && number.checked_sub(header.op.0).is_some_and(|beyond| beyond < NAMES);
    Ok(good.then_some(header))
}

#[cfg(test)]
mod tests {
    use super::super::{Directory, DirectoryFile};
    use super::*;

    const VIEW: View = View(1 << 16 | 1);

    fn job<D: Disk>(disk: &D, op: u64) -> SnapshotJob<D> {
        SnapshotJob::new(disk.clone(), Op(op), Vec::new(), PlantedBug::default())
    }

    /// A disk that renames no file, and reports that it did.
    #[derive(Clone)]
    struct KeepsNames(Directory);

    impl Disk for KeepsNames {
        type File = DirectoryFile;

        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn open(&self, name: &str) -> io::Result<DirectoryFile> {
            self.0.open(name)
        }

        fn create(&self, name: &str) -> io::Result<DirectoryFile> {
            self.0.create(name)
        }

        fn rename(&self, _: &str, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    #[test]
    fn a_snapshot_is_stored_only_if_it_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        job(&disk, 5).write(VIEW, b"first").unwrap();
        for (view, bytes) in [(VIEW, b"other"), (View(VIEW.0 + 1), b"first")] {
            let refused = job(&KeepsNames(disk.clone()), 5).write(view, bytes).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
        }
    }

    /// A state of three pieces, no two alike, and some more.
    fn large() -> Vec<u8> {
        (0..3 * SNAPSHOT_PIECE + 1_000).map(|at| (at / SNAPSHOT_PIECE * 31 + at % 251) as u8).collect()
    }

    /// Reads the whole snapshot back.
    fn read_back(disk: &Directory, header: Header) -> io::Result<SnapshotWritten> {
        let mut reading = SnapshotReading::of(disk, header)?;
        loop {
            assert!(reading.piece.capacity() <= SNAPSHOT_PIECE);
            if let Some(written) = reading.read_piece()? {
                return Ok(written);
            }
        }
    }

    #[test]
    fn a_snapshot_whose_pieces_are_not_those_that_were_written_is_refused() {
        const P: usize = SNAPSHOT_PIECE;
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let written = job(&disk, 5).write(VIEW, &large()).unwrap();
        assert_eq!(read_back(&disk, written.0).unwrap(), written);
        let path = dir.path().join(snapshot_name(5));
        let good = std::fs::read(&path).unwrap();
        let (header, state) = good.split_at(HEADER);
        let rest = &state[3 * P..];
        let piece = |at: usize| &state[at * P..(at + 1) * P];
        let others = [
            ("the first is missing", [piece(1), piece(2), rest].concat()),
            ("the second is missing", [piece(0), piece(2), rest].concat()),
            ("the last is missing", state[..3 * P].to_vec()),
            ("the second was not written", [piece(0), &vec![0; P][..], piece(2), rest].concat()),
            ("the second is doubled", [piece(0), piece(1), piece(1), piece(2), rest].concat()),
            ("the second stands for the third", [piece(0), piece(1), piece(1), rest].concat()),
            ("two are exchanged", [piece(1), piece(0), piece(2), rest].concat()),
        ];
        for (which, other) in others {
            std::fs::write(&path, [header, &other].concat()).unwrap();
            assert_eq!(check(&disk, 5).unwrap(), None, "{which}");
            let refused = read_back(&disk, written.0).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{which}");
        }
    }

    /// The bytes of a snapshot, as a start reads them.
    fn newest(disk: &Directory, header: Header) -> Vec<u8> {
        let mut reading = NewestReading::of(disk, header).unwrap();
        assert_eq!((reading.op(), reading.view(), reading.is_empty()), (Op(5), VIEW, header.len == 0));
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        loop {
            reading.read_piece(&mut piece).unwrap();
            assert!(piece.capacity() <= SNAPSHOT_PIECE);
            if piece.is_empty() {
                return all;
            }
            all.append(&mut piece);
        }
    }

    #[test]
    fn a_snapshot_is_the_same_whatever_the_pieces_in_which_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let large = large();
        for piece in [1_000, SNAPSHOT_PIECE, usize::MAX] {
            let mut file = job(&disk, 5).create().unwrap();
            for piece in large.chunks(piece) {
                file.write(piece).unwrap();
                file.sync().unwrap();
            }
            let header = file.finish(VIEW).unwrap().body.header;
            assert_eq!(check(&disk, 5).unwrap(), Some(header));
            assert!(newest(&disk, header) == large);
            assert!(read_back(&disk, header).is_ok());
        }
    }

    #[test]
    fn an_unfinished_snapshot_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let mut file = job(&disk, 5).create().unwrap();
        file.write(b"a piece").unwrap();
        assert_eq!(disk.list().unwrap(), [temporary_name(5)]);
        drop(file);
        assert_eq!(disk.list().unwrap(), [""; 0]);
    }

    #[test]
    fn any_rotten_byte_of_a_header_makes_the_snapshot_bad_and_not_of_another_version() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let SnapshotWritten(written) = job(&disk, 5).write(VIEW, b"state").unwrap();
        assert_eq!(read_header(&disk, 5).unwrap(), Some(written));
        let path = dir.path().join(snapshot_name(5));
        let good = std::fs::read(&path).unwrap();
        for at in 0..HEADER {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read_header(&disk, 5).unwrap(), None, "byte {at}");
            assert!(check_version(&disk, 5).is_ok(), "byte {at}");
        }
    }

    #[test]
    fn an_empty_state_is_stored_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        let SnapshotWritten(header) = job(&disk, 5).write(VIEW, b"").unwrap();
        assert_eq!(check(&disk, 5).unwrap(), Some(header));
        assert!(newest(&disk, header).is_empty());
    }

    #[test]
    fn a_snapshot_is_good_under_the_names_that_its_op_may_have_and_under_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::lock(dir.path()).unwrap();
        job(&disk, 5).write(VIEW, b"state").unwrap();
        let bytes = std::fs::read(dir.path().join(snapshot_name(5))).unwrap();
        for (number, good) in [(4, false), (5, true), (4 + NAMES, true), (5 + NAMES, false)] {
            std::fs::write(dir.path().join(snapshot_name(number)), &bytes).unwrap();
            assert_eq!(read_header(&disk, number).unwrap().is_some(), good, "{number}");
        }
    }
}
