//! The ordered log as a server's node sees it: what is proposed comes back committed, in one order on all
//! servers.
//!
//! A node is generic over [`OrderedLog`], and an engine implements it. The trait and the types here are all
//! that the two have in common: the engine gives ops and tickets, and a node never learns how the servers
//! agree. What only an engine and its driver speak of, such as datagrams and tasks of a disk, passes the node
//! unread, as [`OrderedLog::Input`] and [`OrderedLog::Effect`].

use std::sync::Arc;

use recado_proto::entry::Entry;
use recado_proto::id::{Moment, Op, View};
use recado_proto::packet::RoleName;

/// A log that all servers share, as one of them takes part in it.
///
/// An implementation is pure: no socket, file, thread, clock or randomness of its own. Its caller has these
/// duties:
///
/// 1. give a `now` that never goes back;
/// 2. call [`OrderedLog::advance`] before each of its own inputs and [`OrderedLog::settle`] after it, and
///    [`OrderedLog::flush`] after a batch of them;
/// 3. after each call that takes a `now`, and after [`OrderedLog::stop`], take events from
///    [`OrderedLog::poll`] until there is none, act on an effect or a snapshot before it takes the next, and
///    on the others in their order;
/// 4. let the driver perform the effects in order;
/// 5. have an input at [`OrderedLog::next_deadline`] at the latest.
///
/// A proposal is taken where the engine can log it, which the bully engine does on its primary alone. A
/// change of the members is not here, since nothing asks for one yet.
pub trait OrderedLog {
    /// An input from the driver of the engine.
    type Input;
    /// An effect for the driver of the engine.
    type Effect;

    /// Does what was due before `now`, so that no input of the node meets an outdated role after the process
    /// was suspended.
    fn advance(&mut self, now: Moment);

    /// Takes an input of the driver.
    fn handle(&mut self, now: Moment, input: Self::Input);

    /// Ends an input of the node: acts on what the input, or the time, has shown of earlier sends.
    fn settle(&mut self, now: Moment);

    /// Takes a proposal, of at most [`Entry::PAYLOAD_MAX`] bytes and not empty. Returns `None` if none is
    /// taken now, as [`Status::accepts`] says.
    fn propose(&mut self, payload: Arc<[u8]>) -> Option<Ticket>;

    /// Makes the proposals since the last call durable and sends them to the other servers.
    fn flush(&mut self, now: Moment);

    /// Makes [`Status::led`] reach `now` soon, if this server still leads then: a majority is asked to
    /// confirm that. What was acknowledged anywhere before `now` is committed here once it does (the read
    /// index of Raft's dissertation, section 6.4).
    fn confirm_lead(&mut self, now: Moment);

    /// Replaces the log with the snapshot of this transfer, which has arrived whole. The driver has given the
    /// caller its decoded state, which the caller loads if this returns true. Returns false if the snapshot
    /// is of no use any more; nothing has changed then.
    fn install(&mut self, now: Moment, transfer: u64) -> bool;

    /// Ends this transfer, whose snapshot the caller cannot read. It is not fetched again. Returns false if
    /// the transfer has ended before.
    fn refuse_snapshot(&mut self, transfer: u64) -> bool;

    /// Takes the committed entry that follows `applied`, the last op taken or installed. Returns `None` if
    /// that is the last one committed. The caller takes each op once, and so paces its own work: however many
    /// entries are committed at once, [`Event::Committed`] is one event.
    fn take(&mut self, applied: Op) -> Option<Committed>;

    /// Lets the log in memory begin at `op`, because a durable snapshot covers everything up to it. All of it
    /// has been taken. Drops at most `most` entries, and returns true if the log begins there now.
    fn trim(&mut self, op: Op, most: usize) -> bool;

    /// Begins to stop: a server that leads hands over first. [`Event::Stopped`] follows.
    fn stop(&mut self);

    /// Does what is to be done up to the next event, and returns that.
    fn poll(&mut self, now: Moment) -> Option<Event<Self::Effect>>;

    /// The latest time at which the next input is wanted, if only to say that the time has come. It is never
    /// more than a second away, because the node does its own periodic work with its next input.
    fn next_deadline(&self) -> Moment;

    /// The state of the log.
    fn status(&self) -> Status;

    /// Returns true if this server has no vote yet, or fetches much that others have and it lacks.
    fn catches_up(&self) -> bool;

    /// The entry at `op`, if it is still held in memory. A snapshot names the view of its last one.
    fn entry(&self, op: Op) -> Option<&Entry>;
}

/// The name of a proposal on the server that made it. Tickets rise from one proposal to the next, and none is
/// given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The op, one higher than the last one taken or installed.
    pub op: Op,
    /// The payload, as it was proposed on some server; empty for an entry of the engine's own.
    pub payload: Arc<[u8]>,
    /// The ticket, if it was proposed here and has not been reported lost before the entry was reported
    /// committed. Tickets come back in the order in which they were given.
    pub ticket: Option<Ticket>,
}

/// A report of the log to its node, in the order in which the node has to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<E> {
    /// Everything up to this op is committed: take it with [`OrderedLog::take`], and apply it.
    Committed(Op),
    /// This ticket and all after it are void: none of them comes back. What was proposed under them may be
    /// committed all the same, without a ticket, so admission starts again from what is applied.
    Lost {
        /// The first void ticket.
        from: Ticket,
    },
    /// The transfer of another server's snapshot has begun. If its start shows that it is none to install,
    /// have it refused. When all of it has arrived, the driver decodes it and gives the node its state, or
    /// the reason why it is none.
    SnapshotBegun {
        /// The number of the transfer.
        transfer: u64,
        /// Its op.
        op: Op,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// This view is active: announce it to clients. Its primary serves them.
    Active(View),
    /// This server has stopped being the primary of an active view: serve nobody. A primary that is only
    /// isolated is not deposed.
    Deposed,
    /// Another server has started again, so it has forgotten where clients are.
    PeerStarted,
    /// The log has stopped: the server may end.
    Stopped,
    /// Something for the engine's driver, to be performed in its place among the events.
    Effect(E),
}

/// The state of a log, as its node needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The role of this server.
    pub role: RoleName,
    /// The view that this server is in, below which it accepts nothing.
    pub view: View,
    /// The highest active view known, which clients are told.
    pub active: View,
    /// True if a proposal is taken now.
    pub accepts: bool,
    /// The last op known to be committed.
    pub commit: Op,
    /// The last op held, or proposed here.
    pub last: Op,
    /// The end of what is durable here.
    pub durable: Op,
    /// Bytes of payload taken into the log since the start or the last snapshot installed, for the snapshot
    /// policy.
    pub appended_bytes: u64,
    /// The latest time at which an active primary is known to have led: on that primary when it sent the
    /// latest heartbeat that a majority has echoed (itself included), elsewhere when a heartbeat of one was
    /// heard. None: none since the start.
    pub led: Option<Moment>,
    /// When a peer was last sent a part of a stored snapshot that it had requested. While it reads, another
    /// snapshot could remove what it needs next.
    pub fetched: Option<Moment>,
}
