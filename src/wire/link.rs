//! One path between two endpoints: numbers packets, tracks what arrived, measures the round trip
//! (RFC 6298), finds losses (RFC 9002's idea: lost pieces go again in new packets) and keeps an
//! AIMD window (RFC 8085). Cast, delivery and client use the same one.

use std::time::Duration;

use super::envelope::{Ack, Envelope};
use super::packet::Packet;
use crate::id::{Moment, View};

/// What became of what was sent under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Every datagram of it has arrived.
    Acked(u64),
    /// One of them is believed lost; all of it should be sent again, under a new token.
    Lost(u64),
}

/// One path between two endpoints.
#[derive(Debug)]
pub struct Link {
    envelope: Envelope,
}

impl Link {
    /// A fresh link whose datagrams carry `envelope` with their own numbers, from 1.
    pub fn new(envelope: Envelope) -> Link {
        Link { envelope }
    }

    /// A fresh link whose numbers begin at `first`.
    pub fn starting_at(envelope: Envelope, _first: u64) -> Link {
        Link { envelope }
    }

    /// The number of the next datagram.
    pub fn next_number(&self) -> u64 {
        todo!()
    }

    /// Packs `packets`, in order, into as few datagrams as possible (a large one as fragments) and
    /// pushes their bytes to `out`. With a token they count against the window and their fate is
    /// reported by [`Link::poll_event`]; without one they are sent and forgotten.
    pub fn transmit(
        &mut self,
        _now: Moment,
        _view: View,
        _packets: &[Packet],
        _token: Option<u64>,
        _out: &mut Vec<Vec<u8>>,
    ) {
        todo!()
    }

    /// Takes note of a received datagram: its number, and what it acknowledges. False if that
    /// number came before (or is too old to tell): the datagram must be dropped.
    pub fn receive(&mut self, _now: Moment, _number: u64, _ack: Option<Ack>) -> bool {
        todo!()
    }

    /// What has become known of tokens.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        todo!()
    }

    /// Bytes the congestion window still has room for; zero: wait for acks or the deadline.
    pub fn room(&self) -> usize {
        todo!()
    }

    /// When [`Link::on_deadline`] wants to be called; only while something tracked is in flight.
    pub fn next_deadline(&self) -> Option<Moment> {
        todo!()
    }

    /// The retransmission timer: if due, what is in flight is believed lost, with back-off.
    pub fn on_deadline(&mut self, _now: Moment) {
        todo!()
    }

    /// The smoothed round trip; none before the first sample.
    pub fn rtt(&self) -> Option<Duration> {
        todo!()
    }

    /// The retransmission time-out now.
    pub fn rto(&self) -> Duration {
        let _ = self.envelope;
        todo!()
    }
}
