//! The file `meta`: two slots of one sector each, written in turn.
//!
//! ```text
//!  0 magic 8   8 seq u64   16 cluster u64   24 incarnation u64   32 promised u64
//! 40 node u16  42 voter u8   43 count u8    44 members u16 ...   508 crc u32 (CRC-32C of 0..508)
//! ```

use std::io;

use super::record::{u32_at, u64_at};
use super::{Disk, DiskFile, Meta};
use crate::id::{ClusterId, Incarnation, MEMBERS_MAX, NodeId, View};

const MAGIC: &[u8; 8] = b"recmeta1";
const NAME: &str = "meta";
const TMP: &str = "tmp.meta";
/// What a disk writes whole or not at all.
const SLOT: usize = 512;
/// The slots stand so far apart that not even a 4 KiB physical sector holds both.
const OFFSETS: [u64; 2] = [0, 4096];
const CRC: usize = SLOT - 4;
const MEMBERS: usize = 44;
const _: () = assert!(MEMBERS + 2 * MEMBERS_MAX <= CRC, "a slot is one sector");
const _: () = assert!(MEMBERS_MAX <= u8::MAX as usize, "the count of members is one byte");

/// What the file says.
pub(super) enum Read<F> {
    /// There is none.
    Absent,
    /// A slot has rotted. Incarnations up to this one may have been used, if the other slot knows.
    Bad(Incarnation),
    /// Both slots are well.
    Good(Meta, MetaFile<F>),
}

/// The open file.
pub(super) struct MetaFile<F> {
    file: F,
    seq: u64,
}

impl<F: DiskFile> MetaFile<F> {
    /// Reads both slots.
    pub(super) fn read<D: Disk<File = F>>(disk: &D) -> io::Result<Read<F>> {
        if !disk.list()?.iter().any(|name| name == NAME) {
            return Ok(Read::Absent);
        }
        let file = disk.open(NAME)?;
        let len = file.len()?;
        let mut slots = [None, None];
        for (slot, offset) in slots.iter_mut().zip(OFFSETS) {
            if len >= offset + SLOT as u64 {
                let mut bytes = [0; SLOT];
                file.read_at(offset, &mut bytes)?;
                *slot = decode(&bytes);
            }
        }
        Ok(match slots {
            [Some(a), Some(b)] => {
                let (seq, meta) = if a.0 > b.0 { a } else { b };
                Read::Good(meta, MetaFile { file, seq })
            }
            // The lost slot may have been one start ahead of the other.
            [Some((_, meta)), None] | [None, Some((_, meta))] => {
                Read::Bad(Incarnation(meta.incarnation.0.saturating_add(1)))
            }
            [None, None] => Read::Bad(Incarnation(0)),
        })
    }

    /// Makes the file, durable with its name on return.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, meta: &Meta) -> io::Result<MetaFile<F>> {
        let file = disk.create(TMP)?;
        let mut created = MetaFile { file, seq: 0 };
        created.file.allocate(OFFSETS[1] + SLOT as u64)?;
        created.write(meta)?;
        disk.rename(TMP, NAME)?;
        disk.sync()?;
        Ok(created)
    }

    /// Writes both slots, one after the other, each durable before the next: on return the older
    /// content is in neither.
    pub(super) fn write(&mut self, meta: &Meta) -> io::Result<()> {
        for _ in OFFSETS {
            self.seq += 1;
            let offset = OFFSETS[(self.seq % 2) as usize];
            self.file.write_at(offset, &encode(self.seq, meta))?;
            self.file.sync()?;
        }
        Ok(())
    }
}

fn encode(seq: u64, meta: &Meta) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(MAGIC);
    let numbers = [seq, meta.cluster.0, meta.incarnation.0, meta.promised.0];
    for (index, number) in numbers.into_iter().enumerate() {
        slot[8 + 8 * index..16 + 8 * index].copy_from_slice(&number.to_le_bytes());
    }
    slot[40..42].copy_from_slice(&meta.node.0.to_le_bytes());
    slot[42] = u8::from(meta.voter);
    slot[43] = meta.members.len() as u8;
    for (index, member) in meta.members.iter().enumerate() {
        let at = MEMBERS + 2 * index;
        slot[at..at + 2].copy_from_slice(&member.0.to_le_bytes());
    }
    let crc = crc32c::crc32c(&slot[..CRC]);
    slot[CRC..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT]) -> Option<(u64, Meta)> {
    let members = usize::from(slot[43]);
    let good =
        &slot[..8] == MAGIC && u32_at(slot, CRC) == crc32c::crc32c(&slot[..CRC]) && members <= MEMBERS_MAX;
    if !good {
        return None;
    }
    let u16_at = |at: usize| u16::from_le_bytes([slot[at], slot[at + 1]]);
    let meta = Meta {
        cluster: ClusterId(u64_at(slot, 16)),
        incarnation: Incarnation(u64_at(slot, 24)),
        promised: View(u64_at(slot, 32)),
        node: NodeId(u16_at(40)),
        voter: slot[42] == 1,
        members: (0..members).map(|index| NodeId(u16_at(MEMBERS + 2 * index))).collect(),
    };
    Some((u64_at(slot, 8), meta))
}
