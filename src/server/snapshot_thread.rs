//! Snapshot thread: encodes and writes snapshots, one at a time, reads each back, and removes the files that
//! it makes needless. The journal thread begins and finishes them. What else takes as long as the state is
//! large is done here too, between two pieces if a snapshot is being written: to read back and decode the
//! snapshot of a peer, and to drop what that replaces.
//!
//! A snapshot is as large as the state, and nobody waits for it, whereas every send waits for an fsync and
//! for a core. So it is encoded, written and read back in pieces, with the memory for one piece. What was
//! written is synced every few pieces, because a sync of the log waits for what the disk has taken before it.
//! After each piece the thread rests for [`RESTS`] times as long as the piece took: it uses a quarter of a
//! core and of the disk at most, whatever either can do. A rate in bytes would be too much for one disk and
//! too little for another. [`REST_MOST`] bounds the rests of one snapshot.

use std::io;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, RecvTimeoutError};
use recado_sys::sync::signal::Sender;
use recado_sys::sync::{Mistake, planted, thread};

use recado_log::journal::{
    Disk, ReceivedSnapshot, Removal, Removed, SNAPSHOT_PIECE, SnapshotJob, SnapshotWritten,
};
use recado_proto::codec::{self, Unencoded};
use recado_proto::id::{Moment, Op};
use recado_service::Service;
use recado_sys::clock::MachineClock;

use super::engine;
use super::node::{Image, SnapshotError};
use crate::config::Config;

/// How many times as long as a piece took the thread rests after it.
const RESTS: u32 = 3;
/// The longest time that the thread rests for one snapshot: a third of the time between two snapshots by
/// default. After that it goes on without rests and with few syncs, so that a large state on a slow disk is
/// stored before the next snapshot is due, and the log does not grow meanwhile.
const REST_MOST: Duration = Duration::from_secs(20);
/// The bytes after which what was written is synced.
const SYNC_EVERY: usize = 1024 * 1024;
/// The same after the last rest: a sync of the log waits for so much at most.
const SYNC_EVERY_AFTER: usize = 8 * 1024 * 1024;

/// Work for the snapshot thread, done in order; but all else is done while a snapshot is written, in place of
/// a rest.
pub(super) enum SnapshotWork<D: Disk> {
    /// Write a snapshot, then report [`Finished::Tried`].
    Write { job: SnapshotJob<D>, image: Box<Image> },
    /// Remove what the last snapshot, or an install, has made needless, then report [`Finished::Removed`].
    Remove(Removal<D>),
    /// Read the snapshot of a peer back and decode it, report [`Finished::Opening`] meanwhile, then
    /// [`Finished::Opened`].
    Open(ReceivedSnapshot<D>),
    /// Drop this, which takes long: a state, entries, a file.
    Discard(Box<dyn Send>),
}

/// Outcome of work of the snapshot thread.
pub(super) enum Finished<D: Disk> {
    /// The result of writing a snapshot.
    Tried(io::Result<SnapshotWritten>),
    /// The snapshot is larger than any server could read back. It is not stored, and the disk is intact.
    TooLarge(Op),
    /// The result of a removal.
    Removed(Removed),
    /// The snapshot of this transfer is being read, and that goes on.
    Opening(u64),
    /// A peer's snapshot that was read back, or the error of the disk.
    Opened(io::Result<OpenedSnapshot<D>>),
}

/// A peer's snapshot that was read back.
pub(super) struct OpenedSnapshot<D: Disk> {
    pub(super) received: ReceivedSnapshot<D>,
    /// Its state, or the reason why it has none.
    pub(super) opened: Result<Box<Service>, SnapshotError>,
}

/// The snapshot thread.
pub(super) struct SnapshotThread<D: Disk> {
    /// Closed when the journal thread has ended.
    pub(super) works: Receiver<SnapshotWork<D>>,
    pub(super) finished: Sender<Finished<D>>,
    pub(super) config: Config,
    pub(super) clock: MachineClock,
}

impl<D: Disk> SnapshotThread<D> {
    /// Runs until the journal thread has ended. A snapshot that is being written or read then is given up.
    pub(super) fn run(self) {
        for work in &self.works {
            let done = match work {
                SnapshotWork::Write { job, image } => {
                    let pace = Pace { thread: &self, since: self.clock.now(), left: REST_MOST };
                    self.report(write(job, &image, pace))
                }
                other => self.do_beside(other),
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Does work for which no snapshot that is being written waits longer than for a rest.
    ///
    /// # Errors
    /// The journal thread has ended.
    fn do_beside(&self, work: SnapshotWork<D>) -> io::Result<()> {
        match work {
            // This does not happen with a node that keeps to one snapshot at a time.
            SnapshotWork::Write { .. } => {
                tracing::error!(
                    "BUG: a snapshot was begun while one was written; it is left out, and none is written before \
                     a restart"
                );
                Ok(())
            }
            SnapshotWork::Remove(removal) => self.report(Finished::Removed(removal.run())),
            SnapshotWork::Open(received) => {
                let goes_on = || self.report(Finished::Opening(received.transfer()));
                let opened = engine::open_received(&self.config, &received, goes_on);
                self.report(Finished::Opened(opened.map(|opened| OpenedSnapshot { received, opened })))
            }
            SnapshotWork::Discard(needless) => {
                drop(needless);
                Ok(())
            }
        }
    }

    fn report(&self, finished: Finished<D>) -> io::Result<()> {
        self.finished.send(finished).map_err(|_| io::ErrorKind::Interrupted.into())
    }
}

fn write<D: Disk>(job: SnapshotJob<D>, image: &Image, mut pace: Pace<'_, D>) -> Finished<D> {
    let op = job.op();
    match try_write(job, image, &mut pace) {
        Ok(written) => Finished::Tried(Ok(written)),
        Err(Unencoded::NotTaken(error)) => Finished::Tried(Err(error)),
        Err(Unencoded::Oversized) => Finished::TooLarge(op),
    }
}

fn try_write<D: Disk>(
    job: SnapshotJob<D>,
    image: &Image,
    pace: &mut Pace<'_, D>,
) -> Result<SnapshotWritten, Unencoded<io::Error>> {
    let mut file = job.create().map_err(Unencoded::NotTaken)?;
    let mut unsynced = 0;
    codec::encode_snapshot(image, SNAPSHOT_PIECE, |piece| {
        file.write(piece)?;
        unsynced += piece.len();
        let most = if pace.is_kept() { SYNC_EVERY } else { SYNC_EVERY_AFTER };
        if unsynced >= most {
            unsynced = 0;
            file.sync()?;
        }
        pace.rest()
    })?;
    let mut reading = file.finish(image.view).map_err(Unencoded::NotTaken)?;
    loop {
        if let Some(written) = reading.read_piece().map_err(Unencoded::NotTaken)? {
            return Ok(written);
        }
        pace.rest().map_err(Unencoded::NotTaken)?;
    }
}

/// The pace of one snapshot.
struct Pace<'a, D: Disk> {
    thread: &'a SnapshotThread<D>,
    /// The end of the last rest.
    since: Moment,
    /// The time for which this snapshot may still rest.
    left: Duration,
}

impl<D: Disk> Pace<'_, D> {
    /// Returns true while there are rests left.
    fn is_kept(&self) -> bool {
        !self.left.is_zero()
    }

    /// Rests after a piece, or does other work that has come.
    ///
    /// # Errors
    /// The journal thread has ended.
    fn rest(&mut self) -> io::Result<()> {
        let SnapshotThread { works, clock, .. } = self.thread;
        let worked = clock.now().since(self.since);
        let rest = worked.saturating_mul(RESTS).min(self.left);
        self.left -= rest;
        if planted(Mistake::RestsAtTheEnd) {
            thread::park_timeout(rest);
        }
        match works.recv_timeout(rest) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::Interrupted.into()),
            Ok(work) => self.thread.do_beside(work)?,
        }
        self.since = clock.now();
        Ok(())
    }
}
