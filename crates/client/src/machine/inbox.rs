//! Inbox: the stream of notifications, each handed out once, in op order, without a hole.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use recado_proto::id::{Moment, Op};
use recado_proto::packet::{ClientAck, Delivered, Item, Position};
use recado_proto::planted::{Planted, PlantedBug};

use super::{Effect, Event};

/// The longest delay of an acknowledgement, so that one covers several steps of the stream, or pieces of an
/// answer ...
const ACK_DELAY: Duration = Duration::from_millis(10);

/// ... the bytes of datagrams with such, after which it is sent at once: half of the congestion window of a
/// new link, so that the sender goes on meanwhile ...
const ACK_EVERY_BYTES: usize = 9_600;

/// ... and the number of steps, a quarter of the credit, for the same reason.
const ACK_EVERY_STEPS: u32 = 64;

/// An item of the stream that arrived before its predecessor.
#[derive(Debug)]
struct Buffered {
    prev: Op,
    item: Item,
}

/// The incoming stream.
#[derive(Debug)]
pub(super) struct Inbox {
    receives: bool,
    planted: PlantedBug,
    /// Everything up to here was handed out.
    received: Op,
    /// Everything up to here was taken by the application.
    taken: Op,
    /// Ops that were handed out and not taken.
    untaken: VecDeque<Op>,
    buffered: BTreeMap<Op, Buffered>,
    /// Steps since the last ack.
    steps: u32,
    /// Bytes of the datagrams since the last ack that want one.
    bytes: usize,
    /// The datagram that is being taken wants an ack.
    wants_ack: bool,
    ack_at: Option<Moment>,
}

impl Inbox {
    /// The credit: notifications that servers may send beyond those that the application has taken.
    pub(super) const WINDOW: u32 = 256;

    pub(super) fn new(receives: bool, planted: PlantedBug) -> Inbox {
        Inbox {
            receives,
            planted,
            received: Op::ZERO,
            taken: Op::ZERO,
            untaken: VecDeque::new(),
            buffered: BTreeMap::new(),
            steps: 0,
            bytes: 0,
            wants_ack: false,
            ack_at: None,
        }
    }

    /// Starts the stream after `cursor`.
    pub(super) fn begin(&mut self, cursor: Op) {
        (self.received, self.taken) = (cursor, cursor);
    }

    /// The op after which a primary continues the stream.
    pub(super) fn received(&self) -> Op {
        self.received
    }

    /// The number of notifications that the client accepts beyond [`Inbox::received`].
    pub(super) fn credit(&self) -> u32 {
        Self::WINDOW.saturating_sub(self.untaken.len() as u32)
    }

    /// Returns true if the device receives; otherwise there are no steps of the stream to acknowledge.
    pub(super) fn receives(&self) -> bool {
        self.receives
    }

    /// A primary has begun to serve the session; it must learn what was taken.
    pub(super) fn resume(&mut self, now: Moment) {
        if self.receives {
            self.ack_at = Some(now);
        }
    }

    /// Takes an item of the session's stream.
    pub(super) fn on_delivered(&mut self, now: Moment, delivered: Delivered, out: &mut Vec<Effect>) {
        let Delivered { prev, item } = delivered;
        let (op, buffered) = (item.op(), Buffered { prev, item });
        if !self.receives || self.untaken.len() + self.buffered.len() >= 2 * Self::WINDOW as usize {
            return;
        }
        if op <= self.received {
            // A retransmission: an acknowledgement was lost.
            return self.ack_soon(now);
        }
        let joins = buffered.prev <= self.received || self.planted.is(Planted::CursorJumps);
        if !joins {
            self.buffered.insert(op, buffered);
            return self.ack_by(now);
        }
        self.hand_out(op, buffered, out);
        while let Some(first) = self.buffered.first_entry() {
            if first.get().prev > self.received {
                break;
            }
            let (op, buffered) = first.remove_entry();
            if op > self.received {
                self.hand_out(op, buffered, out);
            }
        }
        self.ack_soon(now);
    }

    /// The primary has sent a packet that it sends again until its datagram is acknowledged, although it is
    /// no item of the stream: an answer to a query, or a piece of a large packet.
    pub(super) fn on_tracked(&mut self, now: Moment) {
        self.ack_soon(now);
    }

    /// All packets of a datagram of this length have been taken.
    pub(super) fn end_datagram(&mut self, now: Moment, length: usize) {
        if std::mem::take(&mut self.wants_ack) {
            self.bytes += length;
            if self.bytes >= ACK_EVERY_BYTES {
                self.ack_by(now);
            }
        }
    }

    fn ack_soon(&mut self, now: Moment) {
        self.wants_ack = true;
        let delay = if self.steps >= ACK_EVERY_STEPS { Duration::ZERO } else { ACK_DELAY };
        self.ack_by(now + delay);
    }

    fn hand_out(&mut self, op: Op, buffered: Buffered, out: &mut Vec<Effect>) {
        let after = std::mem::replace(&mut self.received, op);
        self.steps += 1;
        match buffered.item {
            Item::Notification(notification) => {
                self.untaken.push_back(op);
                out.push(Effect::Event(Event::Notification(notification)));
            }
            Item::Gap { upto } => {
                // In a gap there is nothing to take.
                if self.untaken.is_empty() {
                    self.taken = op;
                }
                out.push(Effect::Event(Event::Gap { after, upto }));
            }
        }
    }

    /// The application has taken everything up to `op`.
    pub(super) fn taken(&mut self, now: Moment, op: Op) {
        let before = self.taken;
        while self.untaken.front().is_some_and(|first| *first <= op) {
            self.taken = self.untaken.pop_front().unwrap_or(self.taken);
        }
        if self.untaken.is_empty() {
            self.taken = self.received;
        }
        if self.taken > before {
            self.ack_by(now + ACK_DELAY);
        }
    }

    fn ack_by(&mut self, at: Moment) {
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn ack_due(&self, now: Moment) -> bool {
        self.ack_at.is_some_and(|at| now >= at)
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.ack_at
    }

    /// The CLIENT_ACK to send. A notification that was handed out counts as held until it is taken, so that
    /// it is not sent again.
    pub(super) fn ack(&mut self) -> ClientAck {
        self.ack_at = None;
        (self.steps, self.bytes) = (0, 0);
        let held =
            self.untaken.iter().chain(self.buffered.keys()).take(ClientAck::HELD_MAX).copied().collect();
        ClientAck { upto: Position::of(self.taken), held, credit: Self::WINDOW }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use recado_proto::packet::{Notification, OptionalFields};

    use super::*;

    fn gap(inbox: &mut Inbox, now: Moment, prev: u64, upto: u64) {
        let (prev, item) = (Op(prev), Item::Gap { upto: Op(upto) });
        inbox.on_delivered(now, Delivered { prev, item }, &mut Vec::new());
    }

    #[test]
    fn an_ack_waits_for_company_and_no_longer_after_a_quarter_of_the_credit() {
        let (mut inbox, mut upto) = (Inbox::new(true, PlantedBug::default()), 0);
        for round in 1..=3 {
            let now = Moment(round * 1_000_000);
            for buffered in 1..=ACK_EVERY_STEPS {
                let due = if buffered < ACK_EVERY_STEPS { now + ACK_DELAY } else { now };
                gap(&mut inbox, now, upto, upto + 1);
                upto += 1;
                assert_eq!(inbox.next_deadline(), Some(due), "buffered {buffered} of round {round}");
            }
            assert_eq!(inbox.ack().upto, Position::of(Op(upto)), "there is nothing to take in a gap");
            assert_eq!(inbox.next_deadline(), None, "and the next count begins anew");
        }
    }

    #[test]
    fn an_ack_waits_no_longer_after_half_of_a_new_window_however_long_the_datagrams_are() {
        for (length, steps) in [(1_200, 1), (1_200, 7), (4_800, 20)] {
            let (mut inbox, mut upto) = (Inbox::new(true, PlantedBug::default()), 0);
            let now = Moment(1_000_000);
            let most = ACK_EVERY_BYTES / length;
            for datagram in 1..=most {
                for _ in 0..steps {
                    gap(&mut inbox, now, upto, upto + 1);
                    upto += 1;
                }
                inbox.end_datagram(now, length);
                // One that wants no ack does not count.
                inbox.end_datagram(now, length);
                let due = if datagram < most { now + ACK_DELAY } else { now };
                assert_eq!(inbox.next_deadline(), Some(due), "{datagram} datagrams of {length} bytes");
            }
            inbox.ack();
            inbox.end_datagram(now, length);
            assert_eq!(inbox.next_deadline(), None);
        }
    }

    #[test]
    fn an_acknowledged_cursor_requires_no_second_ack() {
        let mut inbox = Inbox::new(true, PlantedBug::default());
        gap(&mut inbox, Moment(0), 0, 5);
        inbox.ack();
        inbox.taken(Moment(0), Op(5));
        assert_eq!(inbox.next_deadline(), None);
    }
    fn notify(inbox: &mut Inbox, prev: u64, op: u64) -> usize {
        let notification = Arc::new(Notification {
            op: Op(op),
            topic: recado_proto::id::Topic::Feed("bob".parse().unwrap()),
            author: "bob".parse().unwrap(),
            unix_ms: 0,
            content: recado_proto::packet::Content::of(String::new()),
            options: OptionalFields::NONE,
        });
        let mut out = Vec::new();
        let (prev, item) = (Op(prev), Item::Notification(notification));
        inbox.on_delivered(Moment(0), Delivered { prev, item }, &mut out);
        out.len()
    }

    #[test]
    fn the_credit_is_the_window_without_what_the_application_has_not_taken() {
        let mut inbox = Inbox::new(true, PlantedBug::default());
        assert_eq!(inbox.credit(), Inbox::WINDOW);
        notify(&mut inbox, 0, 5);
        notify(&mut inbox, 5, 9);
        assert_eq!(inbox.credit(), Inbox::WINDOW - 2);
        inbox.taken(Moment(0), Op(9));
        assert_eq!(inbox.credit(), Inbox::WINDOW);
    }

    #[test]
    fn a_device_that_does_not_receive_gets_nothing_and_owes_no_ack() {
        let mut inbox = Inbox::new(false, PlantedBug::default());
        assert_eq!(notify(&mut inbox, 0, 5), 0);
        inbox.resume(Moment(0));
        assert_eq!((inbox.received(), inbox.next_deadline()), (Op(0), None));
    }

    #[test]
    fn a_server_that_heeds_no_credit_is_listened_to_for_twice_the_window() {
        let most = u64::from(2 * Inbox::WINDOW);
        let mut inbox = Inbox::new(true, PlantedBug::default());
        // Half of them are handed out, the others wait behind a hole.
        let handed_out: usize = (1..=most / 2).map(|op| notify(&mut inbox, op - 1, op)).sum();
        (most / 2 + 2..most + 2).for_each(|op| assert_eq!(notify(&mut inbox, op - 1, op), 0));
        assert_eq!(
            (handed_out as u64, inbox.untaken.len() + inbox.buffered.len()),
            (most / 2, most as usize)
        );
        assert_eq!(notify(&mut inbox, most + 1, most + 2), 0);
        assert_eq!(inbox.untaken.len() + inbox.buffered.len(), most as usize, "one more is not taken in");
        inbox.taken(Moment(0), Op(1));
        assert_eq!(notify(&mut inbox, most / 2, most / 2 + 1) as u64, most / 2 + 1, "the hole is filled");
    }

    #[test]
    fn what_comes_again_is_acknowledged_again_in_company() {
        let mut inbox = Inbox::new(true, PlantedBug::default());
        notify(&mut inbox, 0, 5);
        inbox.ack();
        let later = Moment(1_000_000);
        gap(&mut inbox, later, 0, 5);
        assert_eq!(inbox.next_deadline(), Some(later + ACK_DELAY));
    }

    #[test]
    fn a_notification_that_comes_by_a_shorter_way_than_one_that_waits_comes_out_once() {
        let mut inbox = Inbox::new(true, PlantedBug::default());
        assert_eq!(notify(&mut inbox, 15, 19), 0, "it waits for what lies between");
        assert_eq!(notify(&mut inbox, 0, 19), 1, "nothing does, says a server that has dropped it");
        assert_eq!((inbox.buffered.len(), notify(&mut inbox, 19, 20)), (0, 1));
    }

    #[test]
    fn a_gap_behind_what_was_handed_out_is_taken_with_it() {
        let mut inbox = Inbox::new(true, PlantedBug::default());
        notify(&mut inbox, 0, 5);
        gap(&mut inbox, Moment(0), 5, 9);
        assert_eq!(inbox.ack().upto, Position::of(Op(0)));
        inbox.taken(Moment(0), Op(5));
        assert_eq!(inbox.ack().upto, Position::of(Op(9)));
    }
}
