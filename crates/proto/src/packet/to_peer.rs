//! The packets between servers.

use serde::{Deserialize, Serialize};

use super::{
    Coordinator, Election, Entries, EntriesAck, Extension, Fetch, Fragment, Heartbeat, Learn, LearnOk,
    OptionalFields, Reply, SnapshotChunk, SnapshotGet, Transfer, direction,
};

/// A packet of a server to another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPeer {
    /// HEARTBEAT: the state of the primary; backups answer it with an echo.
    Heartbeat(Heartbeat),
    /// ELECTION: Probe or Prepare.
    Election(Election),
    /// REPLY: the answer to ELECTION.
    Reply(Reply),
    /// COORDINATOR: the announced primary.
    Coordinator(Coordinator),
    /// TRANSFER: permission for a backup to skip the probe, no more.
    Transfer(Transfer),
    /// LEARN: a server without a vote asks which view a peer has promised.
    Learn(Learn),
    /// LEARN_OK: the answer to LEARN.
    LearnOk(LearnOk),
    /// ENTRIES: entries of the log, for cast, answers to FETCH and catch-up alike.
    Entries(Entries),
    /// ENTRIES_ACK: the prefix that a backup has matched with this view's primary, and its fsynced part.
    EntriesAck(EntriesAck),
    /// FETCH: asks a peer for entries.
    Fetch(Fetch),
    /// SNAPSHOT_GET: asks a peer for chunks of a snapshot.
    SnapshotGet(SnapshotGet),
    /// SNAPSHOT_CHUNK: one chunk of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// FRAGMENT: a piece of a packet too large for one datagram.
    Fragment(Fragment),
    /// EXTENSION: a packet of a kind that this version does not have.
    Extension(Extension),
    /// PADDING: ends the packets of a datagram, whose rest has no content and is not read.
    Padding,
    /// PING: no content and no answer but the acknowledgement of its datagram. With PADDING it probes whether
    /// longer datagrams arrive.
    Ping,
}

impl ToPeer {
    fn is_bounded(&self) -> bool {
        match self {
            ToPeer::Heartbeat(heartbeat) => heartbeat.options.is_bounded(),
            ToPeer::Reply(reply) => reply.is_bounded(),
            ToPeer::Coordinator(coordinator) => coordinator.is_bounded_with(&OptionalFields::NONE),
            ToPeer::Entries(entries) => entries.is_bounded(),
            ToPeer::SnapshotChunk(chunk) => chunk.is_bounded(),
            ToPeer::Fragment(piece) => piece.is_bounded(),
            // These have a fixed size, or parts whose types are their own limit.
            ToPeer::Election(_)
            | ToPeer::Transfer(_)
            | ToPeer::Learn(_)
            | ToPeer::LearnOk(_)
            | ToPeer::EntriesAck(_)
            | ToPeer::Fetch(_)
            | ToPeer::SnapshotGet(_)
            | ToPeer::Extension(_)
            | ToPeer::Padding
            | ToPeer::Ping => true,
        }
    }
}

direction!(ToPeer);
