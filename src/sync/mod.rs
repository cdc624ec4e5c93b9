//! Threads, and what they talk by and wait on: channels, locks, conditions, sockets.
//!
//! They are std's, crossbeam's, parking_lot's and net's. In the unit tests they are those too, until a test
//! runs [`model::explore`]: then every step of every thread is one that `shuttle` chose, time is virtual, and
//! a time-out may come at any moment. So the threads are tested as they ship, in orders that no machine would
//! show in a year.

#[cfg(test)]
pub(crate) mod model;

#[cfg(not(test))]
pub(crate) use crate::net::{BoundSocket, PeerSocket};
#[cfg(not(test))]
pub(crate) use crossbeam::channel;
#[cfg(not(test))]
pub(crate) use parking_lot::{Condvar, Mutex};
#[cfg(not(test))]
pub(crate) use std::thread;

/// Takes a file's lock, waiting for whoever has it.
#[cfg(not(test))]
pub(crate) fn flock(file: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive)?)
}

/// Takes a lock, then reads what it guards.
#[cfg(not(test))]
pub(crate) fn locked<L, T, E>(
    lock: impl FnOnce() -> Result<L, E>,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<(L, T), E> {
    let held = lock()?;
    Ok((held, read()?))
}

/// Where another process may come between: here any thread may go on in the model.
#[cfg(not(test))]
pub(crate) const fn step() {}

#[cfg(test)]
pub(crate) use self::model::{flock, locked, step};

#[cfg(test)]
pub(crate) use self::model::{BoundSocket, Condvar, Mutex, PeerSocket, channel, thread};

/// Mistakes that the tests of interleavings plant, to show that they would find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The journal thread says that something is durable before its sync.
    ToldBeforeSync,
    /// It reports what was asked after the disk was full.
    ToldOfAHole,
    /// Whoever asks looks whether there is room, and then takes it for granted.
    LooksThenAsks,
    /// The delivery is not told that notifications were left out.
    MissedIsNotSaid,
    /// The replica thread waits for room in the journal's channel.
    WaitsForTheJournal,
    /// The client's driver ends without what was asked before it was told to.
    AskedIsLost,
    /// The replica thread, at its end, neither hears the journal thread nor says that it does not.
    EndsDeaf,
    /// A server whose disk has failed does not tell the replica thread to end.
    FailureIsNotTold,
    /// The listeners do not look at the stop flag.
    ListensForEver,
    /// Who waits for a request's outcome is not woken when its client ends.
    EndIsNotTold,
    /// Log lines are written under the lock that whoever logs takes.
    WritesUnderLock,
    /// Log lines that find no room are not counted.
    LossIsForgotten,
    /// What a lock guards is read before the lock is held.
    #[cfg(test)]
    ReadBeforeLock,
}

/// Whether this mistake is made: never outside its test.
#[cfg(not(test))]
pub(crate) const fn planted(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub(crate) use self::model::planted;
