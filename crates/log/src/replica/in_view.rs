//! What a server knows within the view that it has promised. A higher promise replaces all of it at once.

use std::collections::BTreeMap;

use recado_proto::id::{Incarnation, Moment, NodeId, Op};
use recado_proto::packet::Entries;

use super::promise::Awaited;

/// The state of one promised view.
#[derive(Debug)]
pub(super) struct InView {
    /// The end of the prefix that matches the log of the view's primary. It starts at the commit.
    pub(super) matched: Op,
    /// The commit when the view was promised. Every later leader must have all ops up to it.
    pub(super) floor: Op,
    /// The matched op, and since when it has not grown although the primary holds more.
    pub(super) last_progress: (Op, Moment),
    /// True if entries of the view's primary have joined this log.
    pub(super) compared: bool,
    /// Casts that arrived before their predecessors, by the op before their first.
    pub(super) early: BTreeMap<Op, Entries>,
    /// The incarnation of the view's primary, once it was heard. A higher incarnation of that server no
    /// longer holds the view.
    pub(super) primary: Option<Incarnation>,
    /// The last op that a heartbeat of it has named.
    pub(super) told_last: Op,
    /// The number of the newest heartbeat heard of it.
    pub(super) beat_heard: u64,
    /// The candidate that this server has promised to, or that a peer refused this server for.
    pub(super) waiting_for: Option<Awaited>,
    /// The candidate to send the promise to, once the promise is durable.
    pub(super) promise_reply_to: Option<NodeId>,
}

impl InView {
    /// A view that is promised now, with `commit` as the last op known to be committed.
    pub(super) fn new(commit: Op, now: Moment) -> InView {
        InView {
            matched: commit,
            floor: commit,
            last_progress: (commit, now),
            compared: false,
            early: BTreeMap::new(),
            primary: None,
            told_last: Op::ZERO,
            beat_heard: 0,
            waiting_for: None,
            promise_reply_to: None,
        }
    }
}
