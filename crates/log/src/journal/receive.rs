//! A snapshot on its way from a peer: its bytes are appended to a file as they come, and read back before the
//! log is replaced by it. Nobody holds all of them in memory.
//!
//! ```text
//! receive, piece by piece
//!   -> ReceivedSnapshot: durable, under a temporary name; another thread reads it back and decodes it
//!   -> add_received -> install
//! ```
//! One is received at a time. Until it is installed nothing of it counts, and a restart removes its file.

use std::io;

use recado_proto::id::{Op, View};
use recado_proto::planted::Planted;

use super::error::{IoOp, JournalError, Trying, is_full};
use super::snapshot::{self, Body, Header, SnapshotPiece, SnapshotWritten, Unfinished};
use super::{Disk, Journal, Removal};

/// The bytes after which what was written is synced: a sync of the log waits for no more than these.
const SYNC_EVERY: u64 = 1024 * 1024;

/// How many names the file of a transfer may have to choose from.
const NAMES: u64 = 8;

/// How far the snapshot of a peer has come.
pub(super) enum Reception<D: Disk> {
    /// None is received.
    Idle,
    /// This file takes the bytes of the transfer. The second number is the length up to which it was synced.
    Arriving(u64, Unfinished<D>, u64),
    /// The transfer is complete, and another thread reads the file back.
    Away(u64),
    /// It was read back.
    Ready(ReceivedSnapshot<D>),
}

/// What has become of a piece.
pub enum Receipt<D: Disk> {
    /// It is not the next one of the transfer under way. It is left out, so this transfer will not be whole.
    LeftOut,
    /// The file has the bytes up to here. They are not durable yet.
    Upto(u64),
    /// The file has all of them, durably. It is to be read back and given to [`Journal::add_received`].
    Whole(ReceivedSnapshot<D>),
}

/// A whole snapshot of a peer, durable under a temporary name. Dropping it removes it.
pub struct ReceivedSnapshot<D: Disk> {
    transfer: u64,
    header: Header,
    file: Unfinished<D>,
}

impl<D: Disk> ReceivedSnapshot<D> {
    /// The number of its transfer.
    pub fn transfer(&self) -> u64 {
        self.transfer
    }

    /// The last op in it, as the peer says.
    pub fn op(&self) -> Op {
        self.header.op
    }

    /// That op's view, as the peer says.
    pub fn view(&self) -> View {
        self.header.view
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.header.len
    }

    /// Returns true if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads it from its start.
    pub fn read(&self) -> ReceivedReading<'_, D> {
        let (file, body) = self.file.read_as(self.header);
        ReceivedReading { file, body }
    }
}

/// A received snapshot that is being read back.
pub struct ReceivedReading<'a, D: Disk> {
    file: &'a D::File,
    body: Body,
}

impl<D: Disk> ReceivedReading<'_, D> {
    /// Reads the next piece, of [`super::SNAPSHOT_PIECE`] bytes at most, in the place of what `piece` holds;
    /// an empty one after the last.
    ///
    /// # Errors
    /// The error of the disk, or, with the last piece, the snapshot does not read as it was written.
    pub fn read_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.body.read(self.file, piece)
    }
}

impl<D: Disk> Journal<D> {
    /// Takes a piece of a snapshot that a peer sends. The first piece of a transfer, at offset zero, ends the
    /// transfer before; the others are taken in their order, and each once.
    ///
    /// # Errors
    /// [`JournalError::Full`] if it finds no room: nothing of the snapshot stays. Any other error poisons the
    /// journal, also that the bytes are not those of the checksum.
    pub fn receive(&mut self, transfer: u64, piece: &SnapshotPiece) -> Result<Receipt<D>, JournalError> {
        self.check()?;
        match self.try_receive(transfer, piece) {
            Err(error) if is_full(&error) => {
                self.reception = Reception::Idle;
                self.full().map(|()| Receipt::LeftOut)
            }
            received => self.guard(received.during(IoOp::Write)),
        }
    }

    fn try_receive(&mut self, transfer: u64, piece: &SnapshotPiece) -> io::Result<Receipt<D>> {
        let known = matches!(self.reception, Reception::Arriving(known, ..) if known == transfer);
        if piece.offset == 0 && !known {
            // What room the one before takes up is free first.
            self.reception = Reception::Idle;
            let name = self.usable_name(transfer);
            let file = Unfinished::create(self.disk.clone(), name, self.options.planted)?;
            self.reception = Reception::Arriving(transfer, file, 0);
        }
        let Reception::Arriving(known, file, synced) = &mut self.reception else {
            return Ok(Receipt::LeftOut);
        };
        if (*known, file.len()) != (transfer, piece.offset) {
            return Ok(Receipt::LeftOut);
        }
        file.write(&piece.bytes)?;
        if file.len() < piece.total {
            if file.len() - *synced >= SYNC_EVERY {
                file.sync()?;
                *synced = file.len();
            }
            return Ok(Receipt::Upto(file.len()));
        }
        let header = file.write_header(piece.op.0, piece.op, piece.view)?;
        if (header.len, header.crc) != (piece.total, piece.crc) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a received snapshot is not what was sent",
            ));
        }
        if !self.options.planted.is(Planted::ReceivedNotSynced) {
            file.sync()?;
        }
        match std::mem::replace(&mut self.reception, Reception::Away(transfer)) {
            Reception::Arriving(transfer, file, _) => {
                Ok(Receipt::Whole(ReceivedSnapshot { transfer, header, file }))
            }
            _ => Ok(Receipt::LeftOut),
        }
    }

    /// A name that no other transfer has, and no file that the disk cannot open.
    fn usable_name(&self, transfer: u64) -> String {
        let name = |number: u64| format!("tmp.{RECEIVED}{number:020}");
        let first = transfer.saturating_mul(NAMES);
        let usable = |number: &u64| !snapshot::is_stuck(&self.disk, &name(*number));
        name((first..first.saturating_add(NAMES)).find(usable).unwrap_or(first))
    }

    /// Takes a received snapshot back that another thread has read, and holds it until it is installed or
    /// dropped. Returns it if its transfer was dropped meanwhile.
    ///
    /// # Errors
    /// The disk could not read it as it was written. The journal is poisoned: what such a disk stores cannot
    /// be relied on.
    pub fn add_received(
        &mut self,
        read: io::Result<ReceivedSnapshot<D>>,
    ) -> Result<Option<ReceivedSnapshot<D>>, JournalError> {
        self.check()?;
        let received = self.guard(read.during(IoOp::Read))?;
        if matches!(self.reception, Reception::Away(transfer) if transfer == received.transfer) {
            self.reception = Reception::Ready(received);
            return Ok(None);
        }
        Ok(Some(received))
    }

    /// Ends a transfer. Returns its file, which is removed when it is dropped.
    pub fn drop_received(&mut self, transfer: u64) -> Option<Unfinished<D>> {
        let of_it = match &self.reception {
            Reception::Idle => false,
            Reception::Arriving(known, ..) | Reception::Away(known) => *known == transfer,
            Reception::Ready(received) => received.transfer == transfer,
        };
        if !of_it {
            return None;
        }
        match std::mem::replace(&mut self.reception, Reception::Idle) {
            Reception::Arriving(_, file, _) | Reception::Ready(ReceivedSnapshot { file, .. }) => Some(file),
            Reception::Idle | Reception::Away(_) => None,
        }
    }

    /// Gives the received snapshot of this transfer its name durably, and then restarts the log after it.
    /// Returns the removal of the files that are not needed any more, as [`Journal::add_snapshot`] does.
    ///
    /// # Errors
    /// [`JournalError::Misplaced`] if it is older than the newest one here, or was not read back: nothing has
    /// changed. Any other error poisons the journal, [`JournalError::Full`] too: the snapshot may have its
    /// name, and be what a restart goes on from, although the log does not follow it yet.
    pub fn install(&mut self, transfer: u64, op: Op) -> Result<Option<Removal<D>>, JournalError> {
        self.sync_log()?;
        let misplaced = JournalError::Misplaced { op, last: self.last.0 };
        if self.snapshots.last().is_some_and(|newest| newest.op > op) {
            return Err(misplaced);
        }
        let received = match std::mem::replace(&mut self.reception, Reception::Idle) {
            Reception::Ready(received) if (received.transfer, received.header.op) == (transfer, op) => {
                received
            }
            other => {
                self.reception = other;
                return Err(misplaced);
            }
        };
        let number = self.job(op).number();
        let header = Header { number, ..received.header };
        let view = header.view;
        // From here on only a restart can repair what fails.
        let named = match received.file.rename(header) {
            Err(error) if is_full(&error) => self.full(),
            named => named.map(drop).during(IoOp::Directory),
        };
        self.guard(named)?;
        self.lost = self.lost.and_then(|lost| lost.beyond(op, view));
        self.commit = self.commit.max(op);
        let marks = !self.options.planted.is(Planted::MarkNotMoved);
        let follows = self.next_segment((op, view), marks);
        self.guard(follows)?;
        self.add_snapshot(Ok(SnapshotWritten(header)))
    }
}

/// The prefix of the files that take snapshots of peers, after that of temporary files.
pub(super) const RECEIVED: &str = "received.";
