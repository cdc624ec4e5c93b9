//! Bounds of packets that their types do not express. They are checked once, when a packet is decoded, so
//! that no other code has to.

use super::codec::{DecodeError, PACKET_MAX};
use super::fragment::PIECE_MIN;
use super::packet::{
    ClientAck, Coordinator, Entries, Fragment, History, HistoryOk, List, ListOk, Packet, RefusedDatagram,
    Reply, SnapshotChunk, StatusOk,
};
use crate::entry::Entry;
use crate::id::MEMBERS_MAX;

/// The longest key of a list's item, in bytes: a device in hexadecimal with its slot.
const LIST_KEY_MAX: usize = 128;

impl Packet {
    /// Checks that every part is within the bounds that its documentation gives.
    ///
    /// # Errors
    /// [`DecodeError::Bounds`]; the sender's fault, nothing changed.
    pub fn check(&self) -> Result<(), DecodeError> {
        let well = match self {
            Packet::Send(send) => send.content.within_limits(),
            Packet::Notification(delivered) => delivered.notification.content.within_limits(),
            Packet::AcceptConn(accept) => members(&accept.coordinator),
            Packet::ResumeOk(resumed) => members(&resumed.coordinator),
            Packet::Coordinator(coordinator) => members(coordinator),
            Packet::ClientAck(ack) => ack.held.len() <= ClientAck::HELD_MAX,
            Packet::Entries(cast) => entries(cast),
            Packet::SnapshotChunk(chunk) => snapshot_chunk(chunk),
            Packet::StatusOk(status) => status_ok(status),
            Packet::List(list) => list.after.as_ref().is_none_or(|key| key.len() <= LIST_KEY_MAX),
            Packet::Fragment(piece) => fragment(piece),
            Packet::HistoryOk(page) => history_ok(page),
            Packet::ListOk(page) => list_ok(page),
            // These have a fixed size, or parts whose types are their own limit.
            Packet::Connect(_)
            | Packet::Disconnect(_)
            | Packet::RejectConn(_)
            | Packet::Follow(_)
            | Packet::Channel(_)
            | Packet::Keys(_)
            | Packet::Admin(_)
            | Packet::AdminOk(_)
            | Packet::Error(_)
            | Packet::Info(_)
            | Packet::RequestUserInfo(_)
            | Packet::Heartbeat(_)
            | Packet::Election(_)
            | Packet::SendAck(_)
            | Packet::EntriesAck(_)
            | Packet::Fetch(_)
            | Packet::SnapshotGet(_)
            | Packet::Resume(_)
            | Packet::Transfer(_)
            | Packet::Status(_)
            | Packet::History(_)
            | Packet::Keepalive
            | Packet::Gap(_)
            | Packet::Learn(_)
            | Packet::LearnOk(_)
            | Packet::PathChallenge(_)
            | Packet::PathResponse(_)
            | Packet::Padding
            | Packet::Ping => true,
            // A promise's index of views is bounded by the length of a packet alone: it grows with the number
            // of elections, and refusing it could keep a cluster from ever electing a primary.
            Packet::Reply(Reply::Promise(promise)) => promise.incarnations.len() <= MEMBERS_MAX,
            Packet::Reply(_) => true,
        };
        if well { Ok(()) } else { Err(DecodeError::Bounds) }
    }
}

fn members(coordinator: &Coordinator) -> bool {
    coordinator.members.len() <= MEMBERS_MAX
}

/// Checks that ops are consecutive, views never fall (see [`Entry::view`]), and payloads are within their
/// limit.
fn entries(cast: &Entries) -> bool {
    let mut before = (cast.prev_op, cast.prev_view);
    cast.entries.iter().all(|entry| {
        let (op, view) = std::mem::replace(&mut before, (entry.op, entry.view));
        Some(entry.op.0) == op.0.checked_add(1)
            && entry.view >= view
            && entry.payload.len() <= Entry::PAYLOAD_MAX
    })
}

fn snapshot_chunk(chunk: &SnapshotChunk) -> bool {
    chunk.bytes.len() <= SnapshotChunk::BYTES_MAX
        && chunk.offset.checked_add(chunk.bytes.len() as u64).is_some_and(|end| end <= chunk.total)
}

fn status_ok(status: &StatusOk) -> bool {
    // Each reason occurs at most once.
    status.members.len() <= MEMBERS_MAX && status.refused.len() <= RefusedDatagram::ALL.len()
}

fn history_ok(page: &HistoryOk) -> bool {
    page.notifications.len() <= History::LIMIT_MAX as usize
        && page.notifications.iter().all(|notification| notification.content.within_limits())
        && page.notifications.is_sorted_by(|one, next| one.op < next.op)
}

fn list_ok(page: &ListOk) -> bool {
    page.items.len() <= List::ITEMS_MAX
}

/// Returns true if the fragment is a part of a packet of possible length, and long enough unless it is its end.
pub(super) fn fragment(piece: &Fragment) -> bool {
    let (offset, total, length) = (piece.offset as usize, piece.total as usize, piece.bytes.len());
    let end = offset.saturating_add(length);
    let least = if end == total { 1 } else { PIECE_MIN };
    total <= PACKET_MAX && end <= total && (least..total).contains(&length)
}
