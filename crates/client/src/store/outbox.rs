//! The file of a device's outbox: what is [`Kept`], as a log of changes.
//!
//! ```text
//! head    magic, 8 bytes | version u32 | length of head and first frame u64 | CRC-32C of these
//! frame   CRC-32C of the next 16 bytes | length of the body u32 | CRC-32C of the body | durable u64 | body
//! body    changes: length u32 | the change (`change`)
//! ```
//!
//! Integers are little-endian. **A frame has the changes of one turn**, so a turn is kept whole or not at
//! all: without that, a device that was admitted anew could be left with the requests of the removed one. A
//! frame is appended in one write. It says how much of the file before it was durable.
//!
//! **When a turn is synced.** A request must be durable before it is sent, and so must whatever gives it its
//! number. An answer need not be: the servers keep the result of a request until the client tells them, in a
//! later request, that everything below some number is answered. If a power cut takes an answer that was not
//! synced, the request is sent again, under its number and with its nonce, and answered as it was. So answers
//! are synced with the next request, at the latest before the servers are told of them.
//!
//! **The file is written whole** (tmp, fsync, rename, fsync of the directory) by the first turn that keeps
//! anything, after a torn end, and once it has grown by 64 KiB and by as much as it was long: compaction. So
//! its length is bounded by the unanswered requests, and each byte that is kept is written about twice.
//!
//! **Torn or damaged?** What cannot be read is damage if the head, or a frame after it, says that it was
//! durable. Else it is an end that was never synced, of a turn that has sent nothing, and it is cut. An
//! orderly end writes an empty frame, which says so of the last turn. After a crash nothing says it of the
//! last synced turn, nor of answers after it, so bit rot in these alone passes for a torn end. The device
//! then continues from the number that the servers have, and the requests of that turn are missing from those
//! that are recovered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use recado_proto::id::{Op, Seq};
use recado_sys::sync;

use super::change::{Change, Kept, decode, encode};
use super::files::{at, open, read, replace, unreadable};
use crate::error::{StoreError, StoreOp};
use crate::format::{Unreadable, VERSION};
use crate::machine::Numbered;

const MAGIC: &[u8; 8] = b"recadoOB";
/// The length of the head.
const HEAD: usize = 24;
/// The length of a frame before its body.
const FRAME: usize = 20;
/// A file that has grown by less than this is not compacted.
const GROWTH_MIN: u64 = 64 * 1024;

const CURE: &str =
    "run `recado device reset` to start the device anew, without the requests it left unanswered";

/// The outbox of a device, and its file.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// None if the client keeps no files.
    path: Option<PathBuf>,
    /// None if the next turn writes the file whole.
    file: Option<File>,
    kept: Kept,
    /// The changes of this turn, encoded.
    turn: Vec<u8>,
    /// True if this turn must be durable before anything is sent.
    must_sync: bool,
    ends: Ends,
    /// All requests below this number are durably answered.
    answered_below: Seq,
}

/// Lengths of the file.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// The end of its last frame, ...
    written: u64,
    /// ... of its last frame with changes, ...
    changed: u64,
    /// ... of what is durable, ...
    synced: u64,
    /// ... of what the file says to be durable, ...
    attested: u64,
    /// ... and of what was written when the file was written whole.
    whole: u64,
}

/// A turn could not be kept.
#[derive(Debug)]
pub(crate) struct NotKept {
    pub(crate) error: StoreError,
    /// True if the file is as it was before the turn. Otherwise a later client may find the turn in it.
    pub(crate) undone: bool,
}

/// What a file says.
#[derive(Debug, Default)]
struct Scanned {
    kept: Kept,
    ends: Ends,
    /// True if something follows that is not whole.
    torn: bool,
}

/// What is kept in the outbox at `path`; the default if there is none.
pub(crate) fn read_outbox(path: &Path) -> Result<Kept, StoreError> {
    Ok(scan_file(path)?.unwrap_or_default().kept)
}

/// Replaces the outbox at `path` by that of a device that was never admitted, has no requests, and has given
/// the numbers up to this one. On return it is durable.
pub(super) fn put_given(path: &Path, given: Seq) -> Result<(), StoreError> {
    replace(path, &whole(&Kept { given, ..Kept::default() }))
}

impl Outbox {
    /// Reads the outbox at `path`, which need not exist. Nothing is written.
    pub(super) fn open(path: PathBuf) -> Result<Outbox, StoreError> {
        let scanned = scan_file(&path)?;
        let is_whole = scanned.as_ref().is_some_and(|scanned| !scanned.torn);
        let file = if is_whole { Some(open(&path, CURE)?) } else { None };
        let Scanned { kept, ends, .. } = scanned.unwrap_or_default();
        Ok(Outbox { path: Some(path), file, kept, ends, ..Outbox::in_memory() })
    }

    /// The outbox of a client that keeps no files.
    pub(super) fn in_memory() -> Outbox {
        Outbox {
            path: None,
            file: None,
            kept: Kept::default(),
            turn: Vec::new(),
            must_sync: false,
            ends: Ends::default(),
            answered_below: Seq(0),
        }
    }

    /// Returns true if it outlives the process.
    pub(crate) fn has_file(&self) -> bool {
        self.path.is_some()
    }

    /// What is kept, with the changes of this turn.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The servers have told by which op the device was admitted, and its highest number.
    pub(crate) fn known(&mut self, created_op: Op, given: Seq) {
        self.change(Change::Known { created_op: Some(created_op), given });
    }

    /// A request has got its number.
    pub(crate) fn asked(&mut self, numbered: Numbered) {
        self.change(Change::Asked(numbered));
    }

    /// Requests have other numbers: pairs (before, after), ascending.
    pub(crate) fn renumbered(&mut self, moved: Vec<(Seq, Seq)>) {
        self.change(Change::Renumbered(moved));
    }

    /// A request has its answer.
    pub(crate) fn answered(&mut self, seq: Seq) {
        self.change(Change::Answered(seq));
    }

    fn change(&mut self, change: Change) {
        self.must_sync |= !matches!(change, Change::Answered(_));
        if self.has_file() {
            put(&mut self.turn, &change);
        }
        self.kept.apply(change);
    }

    /// Keeps the changes of this turn. On return they are durable if they are more than answers, or if the
    /// turn is going to tell the servers that all requests below `told_below` are answered.
    ///
    /// # Errors
    /// [`NotKept`]: nothing of the turn may be sent, and the outbox is of no more use.
    pub(crate) fn end_turn(&mut self, told_below: Seq) -> Result<(), NotKept> {
        sync::step();
        self.kept.end_turn();
        let Some(path) = self.path.clone() else { return Ok(()) };
        let body = std::mem::take(&mut self.turn);
        let must_sync = std::mem::take(&mut self.must_sync) || told_below > self.answered_below;
        let Ends { written, whole, .. } = self.ends;
        let grown = written + (FRAME + body.len()) as u64 - whole;
        match self.file.take() {
            Some(file) if body.is_empty() || grown <= whole.max(GROWTH_MIN) => {
                if let Err(error) = self.append(&file, &body, must_sync) {
                    let undone = file.set_len(written).and_then(|()| file.sync_data()).is_ok();
                    return Err(NotKept { error: at(StoreOp::Write, &path)(error), undone });
                }
                self.file = Some(file);
            }
            None if body.is_empty() && !must_sync => {}
            _ => {
                self.write_whole(&path).map_err(|error| {
                    // Of the steps only the last can fail after the file was replaced.
                    let undone = read_outbox(&path).is_ok_and(|kept| kept != self.kept);
                    NotKept { error, undone }
                })?;
            }
        }
        if self.ends.synced >= self.ends.changed {
            let lowest = self.kept.unanswered.first_key_value();
            self.answered_below = lowest.map_or(Seq(u64::MAX), |(seq, _)| *seq);
        }
        Ok(())
    }

    fn append(&mut self, file: &File, body: &[u8], must_sync: bool) -> io::Result<()> {
        let ends = &mut self.ends;
        if !body.is_empty() {
            file.write_all_at(&frame(body, ends.synced), ends.written)?;
            ends.attested = ends.synced;
            ends.written += (FRAME + body.len()) as u64;
            ends.changed = ends.written;
        }
        if must_sync && ends.synced < ends.changed {
            file.sync_data()?;
            ends.synced = ends.written;
        }
        Ok(())
    }

    fn write_whole(&mut self, path: &Path) -> Result<(), StoreError> {
        let bytes = whole(&self.kept);
        replace(path, &bytes)?;
        self.file = Some(open(path, CURE)?);
        let length = bytes.len() as u64;
        self.ends =
            Ends { written: length, changed: length, synced: length, attested: length, whole: length };
        Ok(())
    }

    /// Syncs what is not synced, and writes that it is durable. A failure loses nothing that is kept.
    pub(crate) fn close(self) {
        let Ends { written, changed, synced, attested, .. } = self.ends;
        let Some(file) = self.file.filter(|_| attested < changed) else { return };
        let done = if synced < changed { file.sync_data() } else { Ok(()) };
        if let Err(error) = done.and_then(|()| file.write_all_at(&frame(&[], written), written)) {
            tracing::warn!(path = ?self.path, %error, "the end of the outbox is not written");
        }
    }
}

/// Appends a change to the body of a frame.
fn put(body: &mut Vec<u8>, change: &Change) {
    let encoded = encode(change);
    body.extend((encoded.len() as u32).to_le_bytes());
    body.extend(encoded);
}

/// A frame, before which so much of the file is durable.
fn frame(body: &[u8], durable: u64) -> Vec<u8> {
    let mut checked = Vec::with_capacity(FRAME + body.len());
    checked.extend((body.len() as u32).to_le_bytes());
    checked.extend(crc32c::crc32c(body).to_le_bytes());
    checked.extend(durable.to_le_bytes());
    let mut frame = crc32c::crc32c(&checked).to_le_bytes().to_vec();
    frame.extend(checked);
    frame.extend(body);
    frame
}

/// A file that holds this and nothing else.
fn whole(kept: &Kept) -> Vec<u8> {
    let mut body = Vec::new();
    kept.as_changes().for_each(|change| put(&mut body, &change));
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend(((HEAD + FRAME + body.len()) as u64).to_le_bytes());
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file.extend(frame(&body, 0));
    file
}

fn scan_file(path: &Path) -> Result<Option<Scanned>, StoreError> {
    let bytes = read(path, CURE)?;
    bytes.map(|bytes| scan(&bytes).map_err(unreadable(path, CURE))).transpose()
}

fn scan(bytes: &[u8]) -> Result<Scanned, Unreadable> {
    let whole = head(bytes)?;
    let mut scanned =
        Scanned { ends: Ends { attested: whole, whole, ..Ends::default() }, ..Scanned::default() };
    let ends = &mut scanned.ends;
    let mut at = HEAD;
    while let Some((durable, body)) = frame_at(bytes, at) {
        at += FRAME + body.len();
        ends.written = at as u64;
        ends.attested = ends.attested.max(durable);
        if !body.is_empty() {
            ends.changed = ends.written;
            changes(body, &mut scanned.kept).ok_or(Unreadable::OtherVersion(VERSION + 1))?;
            scanned.kept.end_turn();
        }
    }
    scanned.torn = at < bytes.len();
    let mut later = (at + 1..bytes.len()).filter_map(|at| Some(header_at(bytes, at)?.durable));
    if ends.attested > at as u64 || later.any(|durable| durable > at as u64) {
        return Err(Unreadable::Damaged);
    }
    // The process that wrote the rest may have ended before it was synced.
    ends.synced = ends.attested;
    Ok(scanned)
}

/// Reads the head: the length of the file when it was written whole.
fn head(bytes: &[u8]) -> Result<u64, Unreadable> {
    let (checked, crc) = bytes.get(..HEAD).and_then(<[u8]>::split_last_chunk).ok_or(Unreadable::Damaged)?;
    let version = u32_at(checked, MAGIC.len()).ok_or(Unreadable::Damaged)?;
    if !checked.starts_with(MAGIC) || crc32c::crc32c(checked) != u32::from_le_bytes(*crc) {
        return Err(Unreadable::Damaged);
    }
    if version != VERSION {
        return Err(Unreadable::OtherVersion(version));
    }
    u64_at(checked, MAGIC.len() + size_of::<u32>()).ok_or(Unreadable::Damaged)
}

struct Header {
    length: u32,
    crc: u32,
    durable: u64,
}

/// The header of a frame, if there is one here.
fn header_at(bytes: &[u8], at: usize) -> Option<Header> {
    let (crc, checked) = bytes.get(at..at.checked_add(FRAME)?)?.split_first_chunk()?;
    let header =
        Header { length: u32_at(checked, 0)?, crc: u32_at(checked, 4)?, durable: u64_at(checked, 8)? };
    let good = crc32c::crc32c(checked) == u32::from_le_bytes(*crc) && header.durable <= at as u64;
    good.then_some(header)
}

/// A whole frame, if there is one here: how much before it is durable, and its body.
fn frame_at(bytes: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let Header { length, crc, durable } = header_at(bytes, at)?;
    let body = bytes.get(at + FRAME..)?.get(..usize::try_from(length).ok()?)?;
    (crc32c::crc32c(body) == crc).then_some((durable, body))
}

/// Applies the changes in the body of a frame; none if this program does not know one of them.
fn changes(mut body: &[u8], kept: &mut Kept) -> Option<()> {
    while let Some((length, rest)) = body.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (change, rest) = rest.split_at_checked(length)?;
        kept.apply(decode(change)?);
        body = rest;
    }
    body.is_empty().then_some(())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
