//! The file `meta`: two slots of one sector each, written in turn.
//!
//! ```text
//!  0 magic 7    7 version u8   8 seq u64    16 cluster u64  24 incarnation u64   32 promised u64
//! 40 node u16  42 voter u8    43 count u8
//! 44 mark: serial u64, op u64, view u64, segment u64
//! 76 epoch u64  84 members op u64   92 tie holder u16       508 crc u32 (CRC-32C of 0..508)
//! 112 members, 40 bytes each:
//!     0 id u16  8 joined, incarnation u64   16 known, incarnation u64   24 known, boot id (zeros: unknown)
//! ```
//! Magic, version and CRC are at the same place in every version. The bytes between the fields are zero; a
//! reader ignores them.
//!
//! Everything that a reply may depend on (promise, incarnation, vote, known boots) is durable in
//! both slots before the reply, so either slot alone has it. The mark is only in the newer slot; if that
//! slot is lost, the previous mark remains.

use recado_proto::id::{BootId, ClusterId, Epoch, Incarnation, KnownBoot, MEMBERS_MAX, NodeId, Op, View};

use super::error::{IoOp, JournalError, Trying, error_of, is_rot};
use super::format::{self, Stamp};
use super::record::{u32_at, u64_at};
use super::{Disk, DiskFile, Mark, Member, Meta};

pub(super) const NAME: &str = "meta";
const TMP: &str = "tmp.meta";
/// A disk writes a sector completely or not at all. A slot that is torn all the same is bad, and the other
/// one is used.
const SLOT: usize = 512;
/// The offsets of the slots. They are so far apart that not even a 4 KiB physical sector holds both.
const OFFSETS: [u64; 2] = [0, 4096];
const CRC: usize = SLOT - 4;
const MARK: usize = 44;
const EPOCH: usize = 76;
const MEMBERS_OP: usize = 84;
const TIE_HOLDER: usize = 92;
const MEMBERS: usize = 112;
const MEMBER: usize = 40;
const _: () = assert!(MEMBERS + MEMBER * MEMBERS_MAX <= CRC, "a slot is one sector");
const _: () = assert!(MEMBERS_MAX <= u8::MAX as usize, "the count of members is one byte");

/// The result of reading the file.
pub(super) enum Read<F> {
    /// The file does not exist.
    Absent,
    /// Neither slot can be read.
    Bad,
    /// At least one slot is good.
    Good(Good<F>),
}

/// The content of a readable file.
pub(super) struct Good<F> {
    pub(super) meta: Meta,
    pub(super) mark: Mark,
    pub(super) file: MetaFile<F>,
    /// True if both slots are good.
    pub(super) whole: bool,
}

/// The open file.
pub(super) struct MetaFile<F> {
    file: F,
    /// The number of the newest slot, which is at `OFFSETS[seq % 2]`. The other slot is written next.
    seq: u64,
    /// True once a write has failed: its slot is bad as far as this server knows, so the other one is the
    /// only good slot, and it is not written again before a start has read both.
    failed: bool,
}

struct Slot {
    seq: u64,
    meta: Meta,
    mark: Mark,
}

impl<F: DiskFile> MetaFile<F> {
    /// Reads both slots.
    ///
    /// # Errors
    /// [`JournalError::OtherVersion`]; otherwise the error of the disk. A slot that the disk cannot read is
    /// bad, which is no error.
    pub(super) fn read<D: Disk<File = F>>(disk: &D) -> Result<Read<F>, JournalError> {
        if !disk.list().during(IoOp::List)?.iter().any(|name| name == NAME) {
            return Ok(Read::Absent);
        }
        let file = match disk.open(NAME) {
            Err(error) if is_rot(&error) => return Ok(Read::Bad),
            file => file.during(IoOp::Read)?,
        };
        let mut slots = Vec::new();
        for offset in OFFSETS {
            let mut bytes = [0; SLOT];
            match file.read_at(offset, &mut bytes) {
                Ok(()) => slots.extend(decode(&bytes)?),
                Err(error) if is_rot(&error) => {
                    tracing::error!(offset, %error, "a slot of meta cannot be read: check the disk");
                }
                Err(error) => return Err(error_of(IoOp::Read, error)),
            }
        }
        let whole = slots.len() == OFFSETS.len();
        Ok(match slots.into_iter().max_by_key(|slot| slot.seq) {
            None => Read::Bad,
            Some(Slot { seq, meta, mark }) => {
                Read::Good(Good { meta, mark, file: MetaFile { file, seq, failed: false }, whole })
            }
        })
    }

    /// Makes the file. The file and its name are durable on return.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, meta: &Meta) -> std::io::Result<MetaFile<F>> {
        let file = disk.create(TMP)?;
        let mut created = MetaFile { file, seq: 0, failed: false };
        created.file.allocate(OFFSETS[1] + SLOT as u64)?;
        created.write(meta, Mark::default())?;
        disk.rename(TMP, NAME)?;
        disk.sync()?;
        Ok(created)
    }

    /// Writes both slots, the older (or bad) one first, each durable before the next. At every moment one
    /// of them is good, and on return neither has the older content.
    pub(super) fn write(&mut self, meta: &Meta, mark: Mark) -> std::io::Result<()> {
        OFFSETS.iter().try_for_each(|_| self.write_one(meta, mark))
    }

    /// Writes one slot durably, which is enough for a mark.
    pub(super) fn write_one(&mut self, meta: &Meta, mark: Mark) -> std::io::Result<()> {
        self.seq += 1;
        let offset = OFFSETS[(self.seq % 2) as usize];
        let written =
            self.file.write_at(offset, &encode(self.seq, meta, mark)).and_then(|()| self.file.sync());
        self.failed |= written.is_err();
        written
    }

    /// Returns true if a write has failed. Another write could destroy the only good slot.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }
}

fn encode(seq: u64, meta: &Meta, mark: Mark) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..7].copy_from_slice(format::META);
    slot[7] = format::DIGIT;
    slot[42] = u8::from(meta.voter);
    slot[43] = meta.members.len() as u8;
    let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
    let numbers = [seq, meta.cluster.0, meta.incarnation.0, meta.promised.0];
    let marked = [mark.serial, mark.op.0, mark.view.0, mark.segment];
    put(8, numbers.map(u64::to_le_bytes).as_flattened());
    put(40, &meta.node.0.to_le_bytes());
    put(MARK, marked.map(u64::to_le_bytes).as_flattened());
    put(EPOCH, &meta.epoch.0.to_le_bytes());
    put(MEMBERS_OP, &meta.members_op.0.to_le_bytes());
    put(TIE_HOLDER, &meta.tie_holder.0.to_le_bytes());
    for (index, member) in meta.members.iter().enumerate() {
        let at = MEMBERS + MEMBER * index;
        put(at, &member.id.0.to_le_bytes());
        put(at + 8, &member.joined.0.to_le_bytes());
        put(at + 16, &member.known.incarnation.0.to_le_bytes());
        put(at + 24, &member.known.boot_id.map_or([0; 16], |id| id.0));
    }
    let crc = crc32c::crc32c(&slot[..CRC]);
    slot[CRC..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Returns `None` for a bad slot.
fn decode(slot: &[u8; SLOT]) -> Result<Option<Slot>, JournalError> {
    let checked = u32_at(slot, CRC) == crc32c::crc32c(&slot[..CRC]);
    match format::read(format::META, &slot[..8]) {
        Stamp::Ours if checked => {}
        Stamp::Other(found) if checked => return Err(format::other_version(NAME, found)),
        Stamp::Ours | Stamp::Other(_) | Stamp::None => return Ok(None),
    }
    let members = usize::from(slot[43]);
    if members > MEMBERS_MAX {
        return Ok(None);
    }
    let node_at = |at: usize| NodeId(u16::from_le_bytes([slot[at], slot[at + 1]]));
    let meta = Meta {
        cluster: ClusterId(u64_at(slot, 16)),
        incarnation: Incarnation(u64_at(slot, 24)),
        promised: View(u64_at(slot, 32)),
        node: node_at(40),
        voter: slot[42] == 1,
        epoch: Epoch(u64_at(slot, EPOCH)),
        members_op: Op(u64_at(slot, MEMBERS_OP)),
        tie_holder: node_at(TIE_HOLDER),
        members: (0..members)
            .map(|index| MEMBERS + MEMBER * index)
            .map(|at| Member {
                id: node_at(at),
                joined: Incarnation(u64_at(slot, at + 8)),
                known: KnownBoot {
                    incarnation: Incarnation(u64_at(slot, at + 16)),
                    boot_id: boot_id_at(slot, at + 24),
                },
            })
            .collect(),
    };
    let mark = Mark {
        serial: u64_at(slot, MARK),
        op: Op(u64_at(slot, MARK + 8)),
        view: View(u64_at(slot, MARK + 16)),
        segment: u64_at(slot, MARK + 24),
    };
    Ok(Some(Slot { seq: u64_at(slot, 8), meta, mark }))
}

/// The boot id at `at`; `None` if it is unknown.
fn boot_id_at(slot: &[u8; SLOT], at: usize) -> Option<BootId> {
    let mut id = [0; 16];
    id.copy_from_slice(&slot[at..at + 16]);
    (id != [0; 16]).then_some(BootId(id))
}
