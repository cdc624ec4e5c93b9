//! The stream of one session: its pending notifications in op order, and the state of each on its way to the
//! client.
//!
//! A stream is **behind** (the next notifications must be asked for in pages) or **live** (applied
//! notifications are appended as they arrive). A page that says that nothing more is pending makes it live.
//! Pages and applied notifications come through one channel in the order in which the replica thread made
//! them, so none is missed between the two. A stream whose queue is full is behind again.
//!
//! The stream knows no link and no address: it says what to send next, and is told what was acknowledged or
//! lost.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use recado_proto::envelope::PACKETS_MAX;
use recado_proto::id::{Moment, Op};
use recado_proto::packet::{ClientAck, Delivered, Item};
use recado_proto::{codec, fragment};
use recado_service::{Page, Stored};

use super::session::Encoded;

/// The most notifications queued for a session; later ones are asked for in pages.
pub(super) const QUEUE_MAX: usize = 512;
/// The most bytes queued for a session; a single notification may exceed it.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// A page is asked for only when this many places are free, so that a slow reader costs few pages.
const PAGE_MIN: usize = QUEUE_MAX / 4;
/// The most notifications asked for at once.
const PAGE_MAX: usize = 256;
/// A page that has not arrived after this time is asked for again: a node that is no primary gives none.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// The most notifications larger than a datagram in flight at once. Fewer than a receiver reassembles at a
/// time, so that none of them displaces the fragments of another.
const LARGE_IN_FLIGHT: usize = 4;
/// The first probe interval. The oldest notification that a silent client has and has not acknowledged is
/// sent again after this time: the CLIENT_ACK may have been lost, and nothing else would cause another.
const PROBE_MIN: Duration = Duration::from_millis(500);
/// The largest probe interval; it doubles up to this one. A slow application is no reason to send much.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// The bytes that a queued notification takes in memory beside its encoding.
const REST: usize = 128;

/// One item of the stream: a notification or a gap.
#[derive(Debug)]
struct Queued {
    /// The notification's op; of a gap, its end.
    op: Op,
    /// The op before it in the stream.
    prev: Op,
    /// The notification; none for a gap.
    notification: Option<Stored>,
    weight: usize,
    /// Its packet is larger than a datagram. Known once it was about to be sent.
    large: bool,
    flight: Flight,
    /// The number of the datagram that first carried its first fragment; none for a small item, and before
    /// it is sent.
    first: Option<u64>,
}

impl Queued {
    /// What follows the op before it in its packet.
    fn item(&self) -> Encoding {
        match &self.notification {
            Some(notification) => Encoding::Stored(notification.clone()),
            None => Encoding::Gap(codec::encode(&Item::Gap { upto: self.op })),
        }
    }
}

/// The encoding of an item.
#[derive(Debug)]
pub(super) enum Encoding {
    /// A notification's, which all sessions share.
    Stored(Stored),
    /// A gap's.
    Gap(Vec<u8>),
}

impl Encoding {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Encoding::Stored(stored) => stored.item(),
            Encoding::Gap(bytes) => bytes,
        }
    }
}

/// The items that were sent under a token: those between these ops that are in flight under it.
#[derive(Clone, Copy, Debug)]
struct Batch {
    token: u64,
    first: Op,
    last: Op,
}

/// The delivery state of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// It is to be sent.
    Waiting,
    /// It was sent under this token.
    Sent(u64),
    /// Its datagrams were acknowledged at this time. The client has it, unless it had no room for it.
    Arrived(Moment),
    /// The client named it in a CLIENT_ACK as held; the time of the first one.
    Held(Moment),
}

/// The source that fills the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    /// Pages. The time is that at which the page under way is asked for again.
    Behind(Option<Moment>),
    /// Applied notifications, as they arrive.
    Live,
}

/// The stream of one session.
#[derive(Debug)]
pub(super) struct Stream {
    /// The client has acknowledged everything up to this op, or the stream started there.
    cursor: Op,
    /// The highest cursor that the client itself has acknowledged.
    reported: Op,
    /// The number of items after the cursor that the client accepts.
    credit: usize,
    /// The most items in flight, whatever the credit.
    window: usize,
    /// The queued items, ascending by op, all above the cursor.
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// The last op queued, or the cursor; the next page begins after it.
    tail: Op,
    filling: Filling,
    /// The batches that are neither acknowledged nor lost, by token, which rises from one to the next. A ring
    /// buffer, as the queue is: neither allocates once it has its length.
    batches: VecDeque<Batch>,
    /// The current probe interval.
    probe: Duration,
    /// The time of the last CLIENT_ACK.
    acked_at: Moment,
}

impl Stream {
    /// Creates a stream from `cursor` on; it is behind.
    pub(super) fn new(cursor: Op, credit: u32, window: u32) -> Stream {
        Stream {
            cursor,
            reported: Op::ZERO,
            credit: credit as usize,
            window: window as usize,
            queue: VecDeque::new(),
            queue_bytes: 0,
            tail: cursor,
            filling: Filling::Behind(None),
            batches: VecDeque::new(),
            probe: PROBE_MIN,
            acked_at: Moment::default(),
        }
    }

    /// Drops the queue; everything after `cursor` is asked for again.
    pub(super) fn rewind(&mut self, cursor: Op) {
        self.cursor = cursor;
        self.tail = cursor;
        self.queue.clear();
        self.queue_bytes = 0;
        self.batches.clear();
        self.filling = Filling::Behind(None);
        self.probe = PROBE_MIN;
    }

    /// Drops the queue: the client is silent, or may no longer read what the queue may hold. The stream
    /// restarts at its cursor, and asks for the rest again.
    pub(super) fn withdraw(&mut self) {
        self.rewind(self.cursor);
    }

    /// The text of this notification was retracted. If it is queued, the queue is dropped, as in
    /// [`Stream::withdraw`].
    pub(super) fn retracted(&mut self, op: Op) {
        if self.queue.binary_search_by_key(&op, |item| item.op).is_ok() {
            self.withdraw();
        }
    }

    /// Some applied notifications were dropped on the way: everything after the queue must be asked for.
    pub(super) fn missed(&mut self) {
        if self.filling == Filling::Live {
            self.filling = Filling::Behind(None);
        }
    }

    /// The last op queued.
    pub(super) fn tail(&self) -> Op {
        self.tail
    }

    fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_MAX && self.queue_bytes < QUEUE_BYTES_MAX
    }

    fn push(&mut self, op: Op, notification: Option<Stored>) {
        let weight = REST + notification.as_ref().map_or(0, |stored| stored.item().len());
        self.queue_bytes += weight;
        let (prev, flight) = (self.tail, Flight::Waiting);
        self.queue.push_back(Queued { op, prev, notification, weight, large: false, flight, first: None });
        self.tail = op;
    }

    /// Returns true if the item queued last is still to be sent, so that the next one follows it at once.
    pub(super) fn last_waits(&self) -> bool {
        self.queue.back().is_some_and(|item| item.flight == Flight::Waiting)
    }

    /// Appends an applied notification if the stream is live and has room.
    pub(super) fn applied(&mut self, notification: &Stored) {
        if self.filling != Filling::Live || notification.op() <= self.tail {
            return;
        }
        if self.has_room() {
            self.push(notification.op(), Some(notification.clone()));
        } else {
            self.filling = Filling::Behind(None);
        }
    }

    /// The page to ask for at `now`, if one is wanted: the op that it begins after and its most
    /// notifications.
    pub(super) fn want_page(&mut self, now: Moment) -> Option<(Op, u32)> {
        let due = match self.filling {
            Filling::Live => false,
            Filling::Behind(None) => true,
            Filling::Behind(Some(again)) => now >= again,
        };
        let free = QUEUE_MAX - self.queue.len().min(QUEUE_MAX);
        if !due || free < PAGE_MIN || self.queue_bytes > QUEUE_BYTES_MAX / 2 {
            return None;
        }
        self.filling = Filling::Behind(Some(now + PAGE_TIMEOUT));
        Some((self.tail, free.min(PAGE_MAX) as u32))
    }

    /// The page after `after` cannot be had yet; it is asked for again after `wait`.
    pub(super) fn page_later(&mut self, now: Moment, after: Op, wait: Duration) {
        if matches!(self.filling, Filling::Behind(Some(_))) && after == self.tail {
            self.filling = Filling::Behind(Some(now + wait));
        }
    }

    /// Appends a page. One that was not asked for is ignored.
    pub(super) fn page(&mut self, after: Op, page: Page) {
        if !matches!(self.filling, Filling::Behind(Some(_))) || after != self.tail {
            return;
        }
        self.filling = if page.more { Filling::Behind(None) } else { Filling::Live };
        if let Some(upto) = page.gap
            && upto > self.tail
        {
            self.push(upto, None);
        }
        for notification in page.notifications {
            if !self.has_room() {
                self.filling = Filling::Behind(None);
                return;
            }
            if notification.op() > self.tail {
                self.push(notification.op(), Some(notification));
            }
        }
    }

    /// Handles a CLIENT_ACK. Returns the new cursor, if it moved. An ack older than the last one, or of
    /// another log, is ignored. An ack beyond the queue means that the stream was restarted at an old cursor;
    /// it restarts at the acknowledged op.
    pub(super) fn client_ack(&mut self, now: Moment, ack: &ClientAck, patience: Duration) -> Option<Op> {
        let upto = ack.upto.op().filter(|upto| *upto >= self.reported)?;
        let moved = upto > self.reported;
        self.reported = upto;
        self.acked_at = now;
        // The credit of an ack from before the stream's start also counts items before its cursor.
        if upto >= self.cursor {
            self.credit = ack.credit as usize;
        }
        if upto > self.tail {
            self.rewind(upto);
        } else if upto > self.cursor {
            self.cursor = upto;
            self.probe = PROBE_MIN;
            while let Some(item) = self.queue.pop_front_if(|item| item.op <= upto) {
                self.queue_bytes -= item.weight;
            }
        }
        self.mark_held(now, ack, patience);
        moved.then_some(upto)
    }

    /// Marks the items that the client holds. An item that was acknowledged by the link and that the client
    /// does not name is sent again once `patience` has passed. A full list of held ops says nothing about the
    /// ops after its last one.
    fn mark_held(&mut self, now: Moment, ack: &ClientAck, patience: Duration) {
        let held: BTreeSet<Op> = ack.held.iter().take(ClientAck::HELD_MAX).copied().collect();
        let full = held.len() >= ClientAck::HELD_MAX;
        let beyond = held.last().copied().filter(|_| full).unwrap_or(Op(u64::MAX));
        for item in self.queue.iter_mut().take_while(|item| item.op <= beyond) {
            match item.flight {
                Flight::Held(_) => {}
                _ if held.contains(&item.op) => item.flight = Flight::Held(now),
                Flight::Arrived(at) if now >= at + patience => item.flight = Flight::Waiting,
                _ => {}
            }
        }
    }

    /// Appends the packets to send next under `token`, from the datagram with the number `next` on: as many
    /// as have `room` bytes together, or the fragments of a large one alone if the room is no less than a
    /// datagram's. None if credit, window or room allow nothing. Returns true if the next item would be among
    /// them if the datagram were longer.
    pub(super) fn next_batch(
        &mut self,
        token: u64,
        next: u64,
        room: usize,
        packets: &mut Vec<Encoded>,
    ) -> bool {
        let allowed = self.credit.min(self.window);
        let mut large = 0;
        let mut bytes = 0;
        let mut batch: Option<Batch> = None;
        let mut more = false;
        for item in self.queue.iter_mut().take(allowed) {
            if item.flight != Flight::Waiting {
                large += usize::from(item.large && matches!(item.flight, Flight::Sent(_)));
                continue;
            }
            let (prev, encoded) = (item.prev, item.item());
            let length = Delivered::prefix_len(prev) + encoded.bytes().len();
            item.large = length > PACKETS_MAX;
            if item.large {
                if batch.is_some() || room < PACKETS_MAX || large >= LARGE_IN_FLIGHT {
                    break;
                }
                let mut packet = Vec::with_capacity(length);
                Delivered::encode_onto(prev, encoded.bytes(), &mut packet);
                // The fragments of all transmissions complete each other.
                let pieces = fragment::split(*item.first.get_or_insert(next), &packet);
                packets.extend(pieces.into_iter().map(Encoded::piece));
            } else if bytes + length > room {
                more = true;
                break;
            } else {
                bytes += length;
                packets.push(Encoded::Item { prev, item: encoded });
            }
            item.flight = Flight::Sent(token);
            batch.get_or_insert(Batch { token, first: item.op, last: item.op }).last = item.op;
            if item.large {
                break;
            }
        }
        self.batches.extend(batch);
        more
    }

    /// Every datagram of `token` was acknowledged.
    pub(super) fn arrived(&mut self, now: Moment, token: u64) {
        self.settle(token, Flight::Arrived(now));
    }

    /// A datagram of `token` is believed lost.
    pub(super) fn lost(&mut self, token: u64) {
        self.settle(token, Flight::Waiting);
    }

    fn settle(&mut self, token: u64, flight: Flight) {
        let at = self.batches.binary_search_by_key(&token, |batch| batch.token);
        let Some(batch) = at.ok().and_then(|at| self.batches.remove(at)) else { return };
        let first = self.queue.partition_point(|item| item.op < batch.first);
        for item in self.queue.range_mut(first..).take_while(|item| item.op <= batch.last) {
            if item.flight == Flight::Sent(token) {
                item.flight = flight;
            }
        }
    }

    /// The time at which [`Stream::on_deadline`] and [`Stream::want_page`] want to be called.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let page = match self.filling {
            Filling::Behind(again) => again,
            Filling::Live => None,
        };
        [page, self.probe_at()].into_iter().flatten().min()
    }

    /// The time at which the oldest item is sent again as a probe: the client has it and has not acknowledged
    /// since.
    fn probe_at(&self) -> Option<Moment> {
        match self.queue.front()?.flight {
            Flight::Arrived(at) | Flight::Held(at) => Some(at.max(self.acked_at) + self.probe),
            Flight::Waiting | Flight::Sent(_) => None,
        }
    }

    /// Sends the oldest item again if its probe is due: the CLIENT_ACK that answers it says where the
    /// client's cursor is.
    pub(super) fn on_deadline(&mut self, now: Moment) {
        if self.probe_at().is_some_and(|at| now >= at)
            && let Some(front) = self.queue.front_mut()
        {
            front.flight = Flight::Waiting;
            self.probe = (self.probe * 2).min(PROBE_MAX);
        }
    }
}
