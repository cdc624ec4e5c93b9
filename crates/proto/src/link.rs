//! A link: the numbering, acknowledgement and congestion control of the datagrams between two endpoints. It
//! tracks what arrived, measures the round trip (RFC 6298), detects losses (as RFC 9002: lost content is sent
//! again in new packets) and keeps an AIMD window (RFC 8085). Cast, delivery and client use the same code.
//!
//! A link belongs to one run of its sender and one of its receiver. When the other end restarts, with a
//! higher incarnation or a new session, numbers and acks start again, and so does the link.
//!
//! The caller's duties:
//! 1. Give a `now` that never goes back.
//! 2. Call [`Link::receive`] once for every opened datagram, before handling its packets, and drop the
//!    datagram if it returns false.
//! 3. After [`Link::transmit`], [`Link::receive`] and [`Link::on_deadline`], take all events with
//!    [`Link::poll_event`] and re-arm on [`Link::next_deadline`].
//! 4. Send a datagram, if only an empty one, soon after a datagram that wants an ack, and at the latest when
//!    [`Link::ack_due`], also while a batch of datagrams is handled: an ack has a bounded number of ranges,
//!    and a number that no ack covers is taken for lost.

mod congestion;
mod discovery;
mod flight;
pub mod received;
mod rtt;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use self::congestion::Congestion;
use self::discovery::Discovery;
pub use self::discovery::ProbeCounts;
use self::flight::{Flight, Sent};
use self::received::Received;
use self::rtt::RoundTrip;
use super::envelope::{self, Ack, Envelope, HEADER_MAX, Header, OUTER_LEN};
use super::fragment;
use super::packet::{Outgoing, Packet};
use super::seal::{PacketKeys, TAG_LEN};
use super::{DATAGRAM_BASE, codec};
use crate::id::{Moment, View};
use crate::planted::{Planted, PlantedBug};

/// The number of datagrams received after which an ack is due: see [`Link::ack_due`].
pub const ACK_EVERY: u32 = 32;

/// The bytes after the tag of PADDING. They make any datagram at least as long as a PATH_CHALLENGE. Packets
/// that may be the first from a new address are sent with it, because nothing longer is sent to an address
/// that is not validated.
pub const PADDING_LEN: usize = 48;

/// The most tracked datagrams in flight. The window holds fewer; if a caller ignores [`Link::room`], the
/// oldest are taken for lost.
const FLIGHT_MAX: usize = 2048;

/// A datagram is lost when one with a number this much higher has arrived (RFC 9002 section 6.1.1).
const REORDER_MAX: u64 = 3;

/// The outcome of a transmission under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Every datagram of the token has arrived.
    Acked(u64),
    /// A datagram of the token is believed lost; all of the token's content should be sent again, under a new
    /// token.
    Lost(u64),
}

/// Buffers of datagrams that were sent, which the next ones are written to. Whoever hands back what was sent
/// allocates nothing for a datagram.
#[derive(Debug, Default)]
pub struct Buffers {
    most: usize,
    spare: Vec<Vec<u8>>,
    /// The inner header of the datagrams that are being made.
    header: Vec<u8>,
}

impl Buffers {
    /// Keeps so many buffers at most; by default none.
    pub fn keeping(most: usize) -> Buffers {
        Buffers { most, ..Buffers::default() }
    }

    /// Takes back the bytes of a datagram that was sent.
    pub fn hand_back(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < self.most {
            self.spare.push(bytes);
        }
    }
}

/// Fills a datagram that is not sealed yet with PADDING, so that it has `size` bytes once it is sealed.
fn fill<P: Packet>(datagram: &mut Vec<u8>, size: usize) {
    let full = size - TAG_LEN;
    if datagram.len() < full {
        codec::encode_onto(&P::padding(), datagram);
        datagram.resize(full, 0);
    }
}

/// The bytes left for packets in a datagram of `size` bytes, whatever its headers hold.
fn room_in(size: usize) -> usize {
    size - OUTER_LEN - HEADER_MAX - TAG_LEN
}

/// A link between two endpoints.
#[derive(Debug)]
pub struct Link {
    /// The outer header, with the number of the last datagram sent.
    envelope: Envelope,
    /// The keys that datagrams are sealed with.
    keys: PacketKeys,
    received: Received,
    round_trip: RoundTrip,
    congestion: Congestion,
    discovery: Discovery,
    flight: Flight,
    events: VecDeque<LinkEvent>,
    /// The highest number that the other end has acknowledged.
    largest_acked: u64,
    /// The start of the retransmission timer; none unless something tracked is in flight.
    timer: Option<Moment>,
    /// The time at which the oldest overtaken datagram counts as lost (RFC 9002 section 6.1.2).
    late_at: Option<Moment>,
    planted: PlantedBug,
}

impl Link {
    /// Creates a link whose datagrams carry `envelope` with their own numbers, from 1, sealed with `keys`.
    pub fn new(envelope: Envelope, keys: PacketKeys) -> Link {
        Link::starting_at(envelope, keys, 1)
    }

    /// Creates a link that continues the numbers of an earlier one, so that none is used twice.
    pub fn starting_at(envelope: Envelope, keys: PacketKeys, first: u64) -> Link {
        Link {
            keys,
            envelope: Envelope { number: first.saturating_sub(1), ..envelope },
            received: Received::default(),
            round_trip: RoundTrip::default(),
            congestion: Congestion::default(),
            discovery: Discovery::default(),
            flight: Flight::default(),
            events: VecDeque::new(),
            largest_acked: 0,
            timer: None,
            late_at: None,
            planted: PlantedBug::default(),
        }
    }

    /// The same link with a planted bug, for tests.
    pub fn with_planted(self, planted: PlantedBug) -> Link {
        Link { planted, ..self }
    }

    /// The number of the next datagram.
    pub fn next_number(&self) -> u64 {
        self.envelope.number + 1
    }

    /// Makes the next number at least `number`, for links that share one counter. To the receiver a skipped
    /// number looks like a datagram in flight; QUIC permits skipping too (RFC 9000 section 21.4).
    pub fn skip_to(&mut self, number: u64) {
        self.envelope.number = self.envelope.number.max(number.saturating_sub(1));
    }

    /// Packs `packets`, in order, into few datagrams (a large one as fragments, in datagrams of its own) and
    /// pushes their bytes to `out`. With a token they count against the window, and their outcome is reported
    /// by [`Link::poll_event`]; without one they are not tracked. Without packets one datagram is made, which
    /// only acknowledges.
    ///
    /// Datagrams without a token have the base size at most: it would show nowhere that the path does not
    /// carry them any more. Each datagram but the last is filled with PADDING: those of one size cross the
    /// kernel as one (segmentation offload, udp(7)).
    ///
    /// The fragments of a packet begin a datagram, whose number identifies them. A caller that sends a large
    /// packet again cuts it itself ([`fragment::cut`]).
    ///
    /// The window does not bind: packets beyond [`Link::room`] are sent all the same. If a token is used
    /// again while it is in flight, it stands for the newer transmission alone.
    pub fn transmit<O: Outgoing>(
        &mut self,
        now: Moment,
        view: View,
        packets: &[O],
        token: Option<u64>,
        out: &mut Vec<Vec<u8>>,
    ) {
        self.transmit_before(now, view, packets, token, false, &mut Buffers::default(), out);
    }

    /// As [`Link::transmit`], in these buffers; if `more` is to follow at once, the last datagram is filled
    /// too.
    #[expect(clippy::too_many_arguments, reason = "what is sent, how, and in which buffers")]
    pub fn transmit_before<O: Outgoing>(
        &mut self,
        now: Moment,
        view: View,
        packets: &[O],
        token: Option<u64>,
        more: bool,
        buffers: &mut Buffers,
        out: &mut Vec<Vec<u8>>,
    ) {
        let Buffers { spare, header, .. } = buffers;
        header.clear();
        Header { ack: self.ack(), view }.encode_onto(header);
        self.received.acknowledged();
        if let Some(token) = token {
            self.forget(token);
        }
        let first = self.envelope.number + 1;
        let size = if token.is_some() { self.discovery.size() } else { DATAGRAM_BASE };
        let room = room_in(size);
        let mut datagram = self.begin(header, spare);
        let empty = datagram.len();
        // True if nothing more may follow in the datagram: what is behind PADDING is not read.
        let mut closed = false;
        for packet in packets {
            let at = datagram.len();
            packet.encode_onto(&mut datagram);
            let is_padding = packet.is_padding();
            if is_padding {
                datagram.resize(datagram.len() + PADDING_LEN, 0);
            }
            if closed || datagram.len() > empty + room {
                let encoded = datagram.split_off(at);
                if at > empty {
                    self.discovery.want();
                    fill::<O::Direction>(&mut datagram, size);
                    self.finish(now, token, datagram, out);
                    datagram = self.begin(header, spare);
                }
                if encoded.len() <= room {
                    datagram.extend_from_slice(&encoded);
                } else {
                    for piece in fragment::split_for(room, self.envelope.number, &encoded) {
                        let piece = codec::encode(&O::Direction::from_fragment(piece));
                        if datagram.len() + piece.len() > empty + room {
                            self.discovery.want();
                            fill::<O::Direction>(&mut datagram, size);
                            self.finish(now, token, datagram, out);
                            datagram = self.begin(header, spare);
                        }
                        datagram.extend_from_slice(&piece);
                    }
                }
            }
            closed = is_padding;
        }
        if more {
            self.discovery.want();
            fill::<O::Direction>(&mut datagram, size);
        }
        self.finish(now, token, datagram, out);
        if let Some(token) = token {
            self.flight.track(token, first..=self.envelope.number);
            self.timer.get_or_insert(now);
            while self.flight.places() > FLIGHT_MAX
                && let Some((_, sent)) = self.flight.oldest()
            {
                self.lose(sent.token);
            }
            self.probe::<O::Direction>(now, header, spare, out);
        }
    }

    /// Sends a probe of the path, if one is due.
    fn probe<P: Packet>(
        &mut self,
        now: Moment,
        header: &[u8],
        spare: &mut Vec<Vec<u8>>,
        out: &mut Vec<Vec<u8>>,
    ) {
        let Some(size) = self.discovery.next_probe(now) else { return };
        let mut datagram = self.begin(header, spare);
        codec::encode_onto(&P::ping(), &mut datagram);
        fill::<P>(&mut datagram, size);
        let number = self.envelope.number;
        self.keys.seal(number, OUTER_LEN, &mut datagram);
        self.discovery.on_probe_sent(number, size, now);
        out.push(datagram);
    }

    /// The longest datagram that the path carries, as far as it is known.
    pub fn datagram_max(&self) -> usize {
        self.discovery.size()
    }

    /// Returns true if no search for a longer one is under way.
    pub fn path_rests(&self, now: Moment) -> bool {
        self.discovery.rests(now)
    }

    /// The probes that were sent to find that out.
    pub fn probes(&self) -> ProbeCounts {
        self.discovery.counts()
    }

    /// The bytes left for packets in a datagram that the path carries:
    /// [`PACKETS_MAX`](envelope::PACKETS_MAX), and more once longer
    /// datagrams have been found to arrive.
    pub fn packets_max(&self) -> usize {
        room_in(self.discovery.size())
    }

    /// The link goes on over another path, because an address has changed: nothing is known of what that one
    /// carries.
    pub fn on_new_path(&mut self) {
        self.discovery.on_new_path();
    }

    /// Begins the next datagram, in a spare buffer if there is one.
    fn begin(&mut self, header: &[u8], spare: &mut Vec<Vec<u8>>) -> Vec<u8> {
        self.envelope.number += 1;
        let mut datagram = spare.pop().unwrap_or_default();
        datagram.clear();
        envelope::begin_in(&mut datagram, &self.envelope, header);
        datagram
    }

    /// Seals the datagram begun last and pushes it to `out`.
    fn finish(&mut self, now: Moment, token: Option<u64>, mut datagram: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        let number = self.envelope.number;
        self.keys.seal(number, OUTER_LEN, &mut datagram);
        if let Some(token) = token {
            self.flight.push(number, Sent { at: now, bytes: datagram.len(), token });
        }
        if self.planted.is(Planted::SegmentMisnumbered) && datagram.len() == self.discovery.size() {
            self.envelope.number -= 1;
        }
        out.push(datagram);
    }

    /// Records a received datagram: its number and its ack. Returns false if the number came before or is
    /// below the replay window; the datagram must be dropped then.
    pub fn receive(&mut self, now: Moment, number: u64, ack: Option<&Ack>) -> bool {
        if !self.received.accept(number) {
            return false;
        }
        // An ack beyond the last number sent is meant for an earlier run of this end.
        if let Some(ack) = ack.filter(|ack| ack.largest <= self.envelope.number) {
            self.on_ack(now, ack);
        }
        true
    }

    /// The ack for the next datagram; none before the first was received.
    pub fn ack(&self) -> Option<Ack> {
        self.received.ack()
    }

    /// Returns true if a datagram should be sent now, even an empty one, because [`ACK_EVERY`] datagrams have
    /// arrived since the last one was sent. The sender then learns of losses in time, and its window goes on
    /// growing while the receiver is busy with a large batch.
    pub fn ack_due(&self) -> bool {
        self.received.unacknowledged() >= ACK_EVERY
    }

    /// The next outcome of a token. Each token is reported exactly once, acked or lost.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// The bytes that the congestion window has room for; if zero, wait for acks or the deadline.
    pub fn room(&self) -> usize {
        self.congestion.window().saturating_sub(self.flight.bytes())
    }

    /// The time at which [`Link::on_deadline`] wants to be called; none unless something tracked is in
    /// flight.
    pub fn next_deadline(&self) -> Option<Moment> {
        let silent_at = self.timer.map(|since| since + self.rto());
        silent_at.into_iter().chain(self.late_at).min()
    }

    /// Runs the timers. A datagram that was overtaken for too long is believed lost. If nothing was
    /// acknowledged for a retransmission time-out, everything in flight is, and the time-out backs off (RFC
    /// 6298 section 5).
    pub fn on_deadline(&mut self, now: Moment) {
        if self.late_at.is_some_and(|at| at <= now) {
            self.find_losses(now);
        }
        if self.timer.is_some_and(|since| since + self.rto() <= now) {
            let longest = self.flight.iter().map(|(_, sent)| sent.bytes).max();
            self.discovery.on_lost(now, longest.unwrap_or_default());
            while let Some((_, sent)) = self.flight.oldest() {
                self.lose(sent.token);
            }
            self.round_trip.back_off();
            self.congestion.collapse(self.envelope.number);
        }
    }

    /// The current retransmission time-out.
    pub fn rto(&self) -> Duration {
        self.round_trip.timeout()
    }

    fn on_ack(&mut self, now: Moment, ack: &Ack) {
        self.largest_acked = self.largest_acked.max(ack.largest);
        let mut ranges = [const { None }; Ack::RANGES_MAX];
        ranges.iter_mut().zip(ack.ranges()).for_each(|(place, range)| *place = Some(range));
        if ranges[0].is_some()
            && let Some(sent) = self.flight.get(ack.largest)
        {
            self.round_trip.sample(now.since(sent.at));
        }
        self.discovery.on_ack(now, ack);
        let flight_bytes = self.flight.bytes();
        // In the order in which they were sent.
        for range in ranges.into_iter().rev().flatten() {
            self.flight.acknowledge(range, |number, sent, is_last| {
                self.congestion.on_acked(number, sent.bytes, flight_bytes);
                self.discovery.on_arrived(sent.bytes);
                if is_last {
                    self.events.push_back(LinkEvent::Acked(sent.token));
                }
            });
        }
        if self.flight.bytes() < flight_bytes {
            self.round_trip.progress();
            self.timer = Some(now);
        }
        self.stop_timers_if_idle();
        self.find_losses(now);
    }

    /// Finds the datagrams believed lost: overtaken by [`REORDER_MAX`] numbers, or by one for too long.
    fn find_losses(&mut self, now: Moment) {
        let patience = self.round_trip.patience();
        let mut lost = Vec::new();
        self.late_at = None;
        for (number, sent) in self.flight.iter().take_while(|(number, _)| *number < self.largest_acked) {
            let late_at = sent.at + patience;
            if number + REORDER_MAX <= self.largest_acked || late_at <= now {
                lost.push((number, sent));
            } else {
                self.late_at = Some(self.late_at.map_or(late_at, |at| at.min(late_at)));
            }
        }
        let longest = lost.iter().map(|(_, sent)| sent.bytes).max();
        self.discovery.on_lost(now, longest.unwrap_or_default());
        for (number, Sent { token, .. }) in lost {
            // An earlier loss may have removed the whole token.
            if self.flight.get(number).is_some() {
                self.congestion.on_lost(number, self.envelope.number);
                self.lose(token);
            }
        }
        if self.flight.oldest().is_none_or(|(number, _)| number >= self.largest_acked) {
            self.late_at = None;
        }
    }

    /// Reports a token lost and stops tracking its datagrams in flight.
    fn lose(&mut self, token: u64) {
        if self.forget(token) {
            self.events.push_back(LinkEvent::Lost(token));
        }
    }

    /// Stops tracking a token and its datagrams; false if it is not in flight.
    fn forget(&mut self, token: u64) -> bool {
        let was_in_flight = self.flight.forget(token);
        self.stop_timers_if_idle();
        was_in_flight
    }

    /// Stops the timers if nothing is in flight.
    fn stop_timers_if_idle(&mut self) {
        if self.flight.is_empty() {
            self.timer = None;
            self.late_at = None;
        }
    }
}
