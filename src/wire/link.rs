//! One path between two endpoints: numbers packets, tracks what arrived, measures the round trip
//! (RFC 6298), finds losses (RFC 9002's idea: lost pieces go again in new packets) and keeps an
//! AIMD window (RFC 8085). Cast, delivery and client use the same one.
//!
//! A link is for one sender's life and one receiver's: when the other end starts again, with a higher
//! incarnation or a new session, both numbers and acks start again, and so does the link.
//!
//! The caller's duties:
//! 1. Feed a `now` that never goes back.
//! 2. Call [`Link::receive`] once for every opened datagram, before what it carries is looked at, and
//!    drop the datagram if it says so.
//! 3. After [`Link::transmit`], [`Link::receive`] and [`Link::on_deadline`], take all events with
//!    [`Link::poll_event`] and re-arm on [`Link::next_deadline`].
//! 4. Send something, if only an empty transmission, soon after a datagram that wants an ack, and at
//!    the latest when [`Link::owes_ack`]: an ack tells of [`ACK_REACH`] numbers, what it does not reach
//!    is taken for lost.

mod congestion;
pub mod received;
mod rtt;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::congestion::Congestion;
use self::received::Received;
use self::rtt::RoundTrip;
use super::codec;
use super::envelope::{self, Ack, Envelope, Header, PACKETS_MAX};
use super::fragment;
use super::packet::Packet;
use super::seal::Key;
use crate::id::{Moment, View};

/// How many datagrams one ack can tell of: the largest and one a bit.
pub const ACK_REACH: u32 = 1 + u64::BITS;

/// Most tracked datagrams in flight. The window holds fewer; a caller that does not ask for
/// [`Link::room`] has its oldest taken for lost.
pub const FLIGHT_MAX: usize = 2048;

/// A datagram is lost when one sent so many later has arrived (RFC 9002 section 6.1.1).
const REORDER_MAX: u64 = 3;

/// What became of what was sent under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Every datagram of it has arrived.
    Acked(u64),
    /// One of them is believed lost; all of it should be sent again, under a new token.
    Lost(u64),
}

/// A tracked datagram that is neither acknowledged nor believed lost.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Moment,
    bytes: usize,
    token: u64,
}

/// The datagrams of a token: consecutive numbers, and how many of them are still in flight.
#[derive(Clone, Copy, Debug)]
struct Tracked {
    first: u64,
    last: u64,
    left: usize,
}

/// One path between two endpoints.
#[derive(Debug)]
pub struct Link {
    /// With the number of the last datagram sent.
    envelope: Envelope,
    /// What datagrams are sealed with.
    key: Key,
    received: Received,
    round_trip: RoundTrip,
    congestion: Congestion,
    flight: BTreeMap<u64, Sent>,
    flight_bytes: usize,
    tokens: BTreeMap<u64, Tracked>,
    events: VecDeque<LinkEvent>,
    /// The highest number the other end said it received.
    largest_acked: u64,
    /// Since when the retransmission timer runs; only while something tracked is in flight.
    timer: Option<Moment>,
    /// When the oldest datagram that others overtook is too late (RFC 9002 section 6.1.2).
    late_at: Option<Moment>,
}

impl Link {
    /// A fresh link whose datagrams carry `envelope` with their own numbers, from 1, sealed with `key`.
    pub fn new(envelope: Envelope, key: Key) -> Link {
        Link::starting_at(envelope, key, 1)
    }

    /// A fresh link that goes on with the numbers of an earlier one, so that none is used twice.
    pub fn starting_at(envelope: Envelope, key: Key, first: u64) -> Link {
        Link {
            key,
            envelope: Envelope { number: first.saturating_sub(1), ..envelope },
            received: Received::default(),
            round_trip: RoundTrip::default(),
            congestion: Congestion::default(),
            flight: BTreeMap::new(),
            flight_bytes: 0,
            tokens: BTreeMap::new(),
            events: VecDeque::new(),
            largest_acked: 0,
            timer: None,
            late_at: None,
        }
    }

    /// The number of the next datagram.
    pub fn next_number(&self) -> u64 {
        self.envelope.number + 1
    }

    /// The next datagram has at least this number: for links that share one counter. A number that is left out
    /// is as one that is still on its way; QUIC may leave out some, too (RFC 9000 section 21.4).
    pub fn skip_to(&mut self, number: u64) {
        self.envelope.number = self.envelope.number.max(number.saturating_sub(1));
    }

    /// Packs `packets`, in order, into as few datagrams as possible (a large one as fragments) and
    /// pushes their bytes to `out`. With a token they count against the window and their fate is
    /// reported by [`Link::poll_event`]; without one they are sent and forgotten. No packets at all
    /// make one datagram that only acknowledges.
    ///
    /// The window is advice: what is transmitted beyond [`Link::room`] is sent all the same. A token
    /// used again while it is in flight stands for the newer transmission alone.
    pub fn transmit(
        &mut self,
        now: Moment,
        view: View,
        packets: &[Packet],
        token: Option<u64>,
        out: &mut Vec<Vec<u8>>,
    ) {
        let header = Header { ack: self.ack(), view };
        self.received.acknowledged();
        if let Some(token) = token {
            self.forget(token);
        }
        let first = self.envelope.number + 1;
        for load in pack(packets) {
            self.envelope.number += 1;
            let datagram = envelope::seal(&self.key, &self.envelope, &header, &load);
            if let Some(token) = token {
                let bytes = datagram.len();
                self.flight.insert(self.envelope.number, Sent { at: now, bytes, token });
                self.flight_bytes += bytes;
            }
            out.push(datagram);
        }
        if let Some(token) = token {
            let last = self.envelope.number;
            self.tokens.insert(token, Tracked { first, last, left: (last + 1 - first) as usize });
            self.timer.get_or_insert(now);
            while self.flight.len() > FLIGHT_MAX
                && let Some((_, sent)) = self.flight.first_key_value()
            {
                self.lose(sent.token);
            }
        }
    }

    /// Takes note of a received datagram: its number, and what it acknowledges. False if that
    /// number came before (or is too old to tell): the datagram must be dropped.
    pub fn receive(&mut self, now: Moment, number: u64, ack: Option<Ack>) -> bool {
        if !self.received.accept(number) {
            return false;
        }
        // An ack of what was never sent is for an earlier life of this end.
        if let Some(ack) = ack.filter(|ack| ack.largest <= self.envelope.number) {
            self.on_ack(now, ack);
        }
        true
    }

    /// What the next datagram will acknowledge; none before the first was received.
    pub fn ack(&self) -> Option<Ack> {
        self.received.ack()
    }

    /// Whether so many datagrams came since the last one was sent that one should go now, even an
    /// empty one: half of what an ack can tell of, so that a lost ack does no harm.
    pub fn owes_ack(&self) -> bool {
        self.received.unacknowledged() >= ACK_REACH / 2
    }

    /// What has become known of tokens: each is reported exactly once, acked or lost.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Bytes the congestion window still has room for; zero: wait for acks or the deadline.
    pub fn room(&self) -> usize {
        self.congestion.window().saturating_sub(self.flight_bytes)
    }

    /// The congestion window, in bytes of whole datagrams; never less than two of them.
    pub fn window(&self) -> usize {
        self.congestion.window()
    }

    /// When [`Link::on_deadline`] wants to be called; only while something tracked is in flight.
    pub fn next_deadline(&self) -> Option<Moment> {
        let silent_at = self.timer.map(|since| since + self.rto());
        silent_at.into_iter().chain(self.late_at).min()
    }

    /// The timers: what was overtaken for too long is believed lost; and if nothing was acknowledged
    /// for a retransmission time-out, everything in flight is, with back-off (RFC 6298 section 5).
    pub fn on_deadline(&mut self, now: Moment) {
        if self.late_at.is_some_and(|at| at <= now) {
            self.find_losses(now);
        }
        if self.timer.is_some_and(|since| since + self.rto() <= now) {
            while let Some((_, sent)) = self.flight.first_key_value() {
                self.lose(sent.token);
            }
            self.round_trip.back_off();
            self.congestion.collapse(self.envelope.number);
        }
    }

    /// The smoothed round trip; none before the first sample.
    pub fn rtt(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// The retransmission time-out now.
    pub fn rto(&self) -> Duration {
        self.round_trip.timeout()
    }

    fn on_ack(&mut self, now: Moment, ack: Ack) {
        let reach = ack.largest.saturating_sub(u64::from(u64::BITS))..=ack.largest;
        let arrived: Vec<(u64, Sent)> = self
            .flight
            .range(reach)
            .filter(|(number, _)| ack.holds(**number))
            .map(|(number, sent)| (*number, *sent))
            .collect();
        self.largest_acked = self.largest_acked.max(ack.largest);
        if let Some((number, sent)) = arrived.last()
            && *number == ack.largest
        {
            self.round_trip.sample(now.since(sent.at));
        }
        if !arrived.is_empty() {
            self.round_trip.progress();
            self.timer = Some(now);
        }
        let flight_bytes = self.flight_bytes;
        for (number, sent) in arrived {
            self.congestion.on_acked(number, sent.bytes, flight_bytes);
            self.take(number);
            if let Some(tracked) = self.tokens.get_mut(&sent.token) {
                tracked.left -= 1;
                if tracked.left == 0 {
                    self.tokens.remove(&sent.token);
                    self.events.push_back(LinkEvent::Acked(sent.token));
                }
            }
        }
        self.find_losses(now);
    }

    /// Believes lost what was overtaken by [`REORDER_MAX`] numbers, or by one a while ago.
    fn find_losses(&mut self, now: Moment) {
        let patience = self.round_trip.patience();
        let mut lost = Vec::new();
        self.late_at = None;
        for (number, sent) in self.flight.range(..self.largest_acked) {
            let late_at = sent.at + patience;
            if number + REORDER_MAX <= self.largest_acked || late_at <= now {
                lost.push((*number, sent.token));
            } else {
                self.late_at = Some(self.late_at.map_or(late_at, |at| at.min(late_at)));
            }
        }
        for (number, token) in lost {
            // Gone already if an earlier loss took its whole token.
            if self.flight.contains_key(&number) {
                self.congestion.on_lost(number, self.envelope.number);
                self.lose(token);
            }
        }
        if self.flight.range(..self.largest_acked).next().is_none() {
            self.late_at = None;
        }
    }

    /// Reports a token lost and forgets whatever of it is still in flight.
    fn lose(&mut self, token: u64) {
        if self.forget(token) {
            self.events.push_back(LinkEvent::Lost(token));
        }
    }

    /// Forgets a token and its datagrams; false if it is not in flight.
    fn forget(&mut self, token: u64) -> bool {
        let Some(tracked) = self.tokens.remove(&token) else { return false };
        for number in tracked.first..=tracked.last {
            self.take(number);
        }
        true
    }

    /// Takes a datagram out of flight; the timers stop with the last.
    fn take(&mut self, number: u64) {
        if let Some(sent) = self.flight.remove(&number) {
            self.flight_bytes -= sent.bytes;
        }
        if self.flight.is_empty() {
            self.timer = None;
            self.late_at = None;
        }
    }
}

/// The loads of as few datagrams as hold `packets` in their order; one empty load for none.
fn pack(packets: &[Packet]) -> Vec<Vec<Vec<u8>>> {
    let mut loads = vec![Vec::new()];
    let mut length = 0;
    let pieces = packets.iter().flat_map(|packet| {
        let encoded = codec::encode(packet);
        if encoded.len() <= PACKETS_MAX {
            return vec![encoded];
        }
        let fragments = fragment::split(&encoded).into_iter();
        fragments.map(|piece| codec::encode(&Packet::Fragment(piece))).collect()
    });
    for piece in pieces {
        if length + piece.len() > PACKETS_MAX {
            loads.push(Vec::new());
            length = 0;
        }
        length += piece.len();
        if let Some(load) = loads.last_mut() {
            load.push(piece);
        }
    }
    loads
}
