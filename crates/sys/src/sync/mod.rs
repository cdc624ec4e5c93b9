//! Threads, and the primitives by which they communicate: channels, locks, condition variables, sockets.
//!
//! They are those of std, crossbeam, parking_lot and `net`. With the feature `model`, which only tests
//! enable, they are the same until a test runs `model::explore`: then `shuttle` chooses every step of every
//! thread, time is virtual, and a time-out may come at any moment, or in its order, or never
//! (`model::TimeOuts`). So the tests run the threads as they ship, in orders that no machine would show in a
//! year.

#[cfg(feature = "model")]
#[expect(
    missing_docs,
    clippy::len_without_is_empty,
    clippy::new_without_default,
    clippy::panic,
    reason = "its items stand for the real ones of the same names, in tests alone"
)]
pub mod model;
pub mod signal;

#[cfg(not(feature = "model"))]
pub use crate::net::{BoundSocket, PeerSocket, Waker};
#[cfg(not(feature = "model"))]
pub use crossbeam::channel;
#[cfg(not(feature = "model"))]
pub use parking_lot::{Condvar, Mutex};
#[cfg(not(feature = "model"))]
pub use std::thread;

/// A receiver as programs see it, whatever the threads behind it use.
pub type ProgramReceiver<T> = crossbeam::channel::Receiver<T>;

/// Returns the receiver as programs see it.
#[cfg(not(feature = "model"))]
pub fn to_program<T>(receiver: channel::Receiver<T>) -> ProgramReceiver<T> {
    receiver
}

/// Takes a file's lock, and waits while another process has it.
#[cfg(not(feature = "model"))]
pub fn flock(file: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive)?)
}

/// Takes a lock, then reads the data that it guards.
#[cfg(not(feature = "model"))]
pub fn locked<L, T, E>(
    lock: impl FnOnce() -> Result<L, E>,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<(L, T), E> {
    let held = lock()?;
    Ok((held, read()?))
}

/// Marks a point at which another process could interfere; in the model any thread may run on here.
#[cfg(not(feature = "model"))]
pub const fn step() {}

#[cfg(feature = "model")]
pub use self::model::{flock, locked, step, to_program};

#[cfg(feature = "model")]
pub use self::model::{BoundSocket, Condvar, Mutex, PeerSocket, Waker, channel, thread};

/// Bugs that the interleaving tests plant, to show that they would find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The journal thread reports a task as durable before its sync.
    ToldBeforeSync,
    /// The journal thread reports tasks that came after the disk was full.
    ToldOfAHole,
    /// A sender of requests checks for room and then assumes that its send succeeds.
    LooksThenAsks,
    /// The delivery is not told that notifications were dropped.
    MissedIsNotSaid,
    /// The replica thread waits for room in the journal's channel.
    WaitsForTheJournal,
    /// The client's driver ends without the requests that came before it was told to end.
    AskedIsLost,
    /// The replica thread, at its end, neither receives from the journal thread nor drops the receiver.
    EndsDeaf,
    /// A server whose disk has failed does not tell the replica thread to end.
    FailureIsNotTold,
    /// The listener does not look at the stop flag.
    ListensForEver,
    /// Threads that wait for a request's outcome are not woken when its client ends.
    EndIsNotTold,
    /// The snapshot thread rests although the journal thread has ended.
    RestsAtTheEnd,
    /// Log lines are written under the lock that logging threads take.
    WritesUnderLock,
    /// Log lines that find no room are not counted.
    LossIsForgotten,
    /// A sender that has queued messages does not wake their receiver.
    QueuesSilently,
    /// A thread that waits forgets what was signalled since it looked into its channels.
    ForgetsTheSignal,
    /// A thread that waits for a socket says so after it has let go of the signal that it looked at.
    WaitsUnannounced,
    /// The data that a lock guards is read before the lock is held.
    #[cfg(feature = "model")]
    ReadBeforeLock,
}

/// Returns true if this bug is planted: never outside its test.
#[cfg(not(feature = "model"))]
pub const fn planted(_: Mistake) -> bool {
    false
}

/// Returns true while a failed execution of the model is unwound.
#[cfg(not(feature = "model"))]
const fn unwinds() -> bool {
    false
}

#[cfg(feature = "model")]
use self::model::unwinds;

#[cfg(feature = "model")]
pub use self::model::planted;
