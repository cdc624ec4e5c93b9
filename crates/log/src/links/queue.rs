//! What a turn leaves for a peer, and how its packets share datagrams.
//!
//! Small packets are of elections, heartbeats, acknowledgements and requests. They share datagrams with each
//! other, before everything else, and these have the base size at most. So what decides who leads waits for
//! no entries, and is not lost with a longer datagram that the path has ceased to carry, nor with entries
//! that a peer drops because its journal is behind. Bulk is ENTRIES and SNAPSHOT_CHUNK. It follows in
//! datagrams as long as the path carries, each with as many packets as fit, in their order, and under a token
//! of its own.

use std::collections::VecDeque;

use recado_proto::codec;
use recado_proto::id::Op;
use recado_proto::packet::{Outgoing, ToPeer};

/// Maximum number of packets queued for a peer between two flushes; more are dropped as if the network lost
/// them. The bound limits amplification: a datagram full of requests must not produce thousands of times its
/// size in answers at once. Casts are never dropped: the window of the link bounds them, and nothing would
/// report their ops as lost.
const WAITING_MAX: usize = 1_024;

/// A packet of bulk, encoded.
#[derive(Debug)]
pub(super) struct Encoded(Vec<u8>);

impl Outgoing for Encoded {
    type Direction = ToPeer;

    fn encode_onto(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0);
    }

    fn is_padding(&self) -> bool {
        false
    }
}

/// A packet of bulk, with its first and last op if their loss is to be reported.
#[derive(Debug)]
struct Bulk {
    packet: Encoded,
    ops: Option<(Op, Op)>,
}

/// The packets of one datagram, or one packet that needs several, and the ops in them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) packets: Vec<Encoded>,
    pub(super) ops: Vec<(Op, Op)>,
}

/// The packets that wait for the next flush.
#[derive(Debug, Default)]
pub(super) struct Queue {
    small: Vec<ToPeer>,
    bulk: VecDeque<Bulk>,
}

impl Queue {
    /// Queues a packet. Without `ops` it is dropped if too many wait.
    pub(super) fn push(&mut self, packet: ToPeer, ops: Option<(Op, Op)>) {
        if ops.is_none() && self.small.len() + self.bulk.len() >= WAITING_MAX {
            return;
        }
        if ops.is_some() || is_bulk(&packet) {
            self.bulk.push_back(Bulk { packet: Encoded(codec::encode(&packet)), ops });
        } else {
            self.small.push(packet);
        }
    }

    /// Takes the small packets.
    pub(super) fn take_small(&mut self) -> Vec<ToPeer> {
        std::mem::take(&mut self.small)
    }

    /// Takes the bulk of the next datagram, which has `room` bytes for packets; none if no more waits.
    pub(super) fn next_batch(&mut self, room: usize) -> Option<Batch> {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        while let Some(Bulk { packet, ops }) = self.bulk.pop_front_if(|next| {
            bytes += next.packet.0.len();
            batch.packets.is_empty() || bytes <= room
        }) {
            batch.ops.extend(ops);
            batch.packets.push(packet);
        }
        (!batch.packets.is_empty()).then_some(batch)
    }

    /// Returns true if bulk waits.
    pub(super) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Drops everything, as if the network lost it.
    pub(super) fn clear(&mut self) {
        self.small.clear();
        self.bulk.clear();
    }
}

fn is_bulk(packet: &ToPeer) -> bool {
    matches!(packet, ToPeer::Entries(_) | ToPeer::SnapshotChunk(_))
}
