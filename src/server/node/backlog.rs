//! The events of the log that the node has not acted on yet, in their order.
//!
//! A turn applies a bounded number of entries, fewer of those that take long, at its end, so that no
//! heartbeat waits while a long log is applied, as after a start or a partition. Whatever else the log
//! reports keeps its place among the entries: a server serves a view only once it has applied what was
//! committed before it.

use std::collections::VecDeque;

use recado_log::ordered::Ticket;
use recado_proto::id::{Op, View};

/// An event of the log that has its place among the committed entries.
#[derive(Debug)]
pub(super) enum Due {
    /// Apply the entries up to this op, one at a time.
    Committed(Op),
    /// This ticket and all after it are void.
    Lost { from: Ticket },
    /// This view is active.
    Active(View),
    /// This server leads no more.
    Deposed,
    /// The log has stopped.
    Stopped,
}

/// The events that wait. Entries up to one op are one event, so they are few, however much is committed.
#[derive(Debug)]
pub(super) struct Backlog {
    due: VecDeque<Due>,
    /// How many of them are no entries.
    others: usize,
    /// The most entries of a turn, if each takes as long as most do.
    most: u32,
    /// How many more of those this turn applies.
    left: u32,
}

impl Backlog {
    pub(super) fn new(most: u32) -> Backlog {
        Backlog { due: VecDeque::new(), others: 0, most, left: most }
    }

    pub(super) fn push(&mut self, due: Due) {
        match (self.due.back_mut(), &due) {
            (Some(Due::Committed(upto)), Due::Committed(further)) => *upto = *further,
            _ => {
                self.others += usize::from(!matches!(due, Due::Committed(_)));
                self.due.push_back(due);
            }
        }
    }

    /// The next event to act on in this turn, if everything up to `applied` is applied. For entries it is
    /// returned once for each.
    pub(super) fn pop(&mut self, applied: Op) -> Option<Due> {
        // All of it is applied, or covered by a snapshot that was installed.
        while self.due.pop_front_if(|due| matches!(due, Due::Committed(upto) if *upto <= applied)).is_some() {
        }
        if let Due::Committed(upto) = self.due.front()? {
            self.left = self.left.checked_sub(1)?;
            return Some(Due::Committed(*upto));
        }
        self.others -= 1;
        self.due.pop_front()
    }

    /// The entry that was applied last has taken as long as this many more.
    pub(super) fn charge(&mut self, more: u32) {
        self.left = self.left.saturating_sub(more);
    }

    /// Another turn may apply as many entries again.
    pub(super) fn begin_turn(&mut self) {
        self.left = self.most;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Returns true if the node's role is behind that of the log.
    pub(super) fn is_turning(&self) -> bool {
        self.others > 0
    }
}
