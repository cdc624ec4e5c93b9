//! One session's stream: what is pending for it, in op order, and how much of it is where.
//!
//! A stream is **behind** (what comes next must be asked for in pages) or **live** (what is applied
//! is appended as it comes). A page that says that nothing more is pending makes it live: pages and
//! applied notifications come through one channel in the order in which the replica thread made
//! them, so nothing falls between the two. A stream whose queue is full is behind again.
//!
//! Knows no link and no address: it says what to send next and is told what became of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Moment, Op};
use crate::service::Page;
use crate::wire::packet::{ClientAck, Delivered, Gap, Notification, Packet};

/// Most notifications queued for a session; what comes then is asked for again later.
pub(super) const QUEUE_MAX: usize = 512;
/// Most bytes queued for a session, by [`weight`]; a single notification may exceed it.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// A page is asked for only when so many places are free, so that a slow reader costs few pages.
const PAGE_MIN: usize = QUEUE_MAX / 4;
/// Most notifications asked for at once.
const PAGE_MAX: usize = 256;
/// A page that did not come within this time is asked for again: the way to the replica thread is
/// a bounded channel that may drop.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is sent under one token, by [`weight`]: about one datagram.
const BATCH_BYTES: usize = 1100;
/// Notifications larger than a datagram in flight at once. Fewer than a receiver puts together at
/// a time, so that none of them pushes out the pieces of another.
const LARGE_IN_FLIGHT: usize = 4;
/// With the client silent, the oldest notification that it has and does not acknowledge is sent again
/// after this time: the ack that said so may be lost, and nothing else would ever ask for another ...
const PROBE_MIN: Duration = Duration::from_millis(500);
/// ... which doubles up to this one: a slow application is no reason to send much.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// About how many bytes a notification takes in memory and on the wire.
fn weight(notification: &Notification) -> usize {
    let content = &notification.content;
    64 + notification.author.as_str().len()
        + notification.topic.name().as_str().len()
        + content.title.as_ref().map_or(0, String::len)
        + content.tags.iter().map(|tag| tag.len() + 2).sum::<usize>()
        + content.body.len()
}

/// One step of the stream.
#[derive(Debug)]
struct Item {
    /// The notification's op; of a gap, its end.
    op: Op,
    /// The op before it in the stream.
    prev: Op,
    /// None: a gap.
    notification: Option<Arc<Notification>>,
    weight: usize,
    flight: Flight,
}

impl Item {
    fn packet(&self) -> Packet {
        match &self.notification {
            Some(notification) => {
                Packet::Notification(Delivered { prev: self.prev, notification: notification.clone() })
            }
            None => Packet::Gap(Gap { prev: self.prev, upto: self.op }),
        }
    }

    fn large(&self) -> bool {
        self.weight > BATCH_BYTES
    }
}

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// To be sent.
    Waiting,
    /// Sent under this token.
    Sent(u64),
    /// Its datagrams arrived at this time: the client has it, unless it had no room for it.
    Arrived(Moment),
    /// The client said at this time, first, that it holds it.
    Held(Moment),
}

/// How the queue is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    /// By pages; when the one that was asked for is asked for again.
    Behind(Option<Moment>),
    /// By what is applied.
    Live,
}

/// One session's stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// The client has acknowledged everything up to here.
    cursor: Op,
    /// The highest cursor the client itself has named.
    reported: Op,
    /// How many items beyond the cursor the client takes.
    credit: usize,
    /// Most items in flight, whatever the credit.
    window: usize,
    /// Ascending by op, all above the cursor.
    queue: VecDeque<Item>,
    queue_bytes: usize,
    /// The end of the queue: the next page begins after it.
    tail: Op,
    filling: Filling,
    /// What was sent under the tokens not yet settled.
    tokens: BTreeMap<u64, Vec<Op>>,
    /// The time until the oldest item that the client has is sent again.
    probe: Duration,
    /// When the client last acknowledged.
    acked_at: Moment,
}

impl Stream {
    /// A stream from `cursor` on, behind.
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
            tokens: BTreeMap::new(),
            probe: PROBE_MIN,
            acked_at: Moment::default(),
        }
    }

    /// Drops the queue; from `cursor` on everything is asked for again.
    pub(super) fn rewind(&mut self, cursor: Op) {
        self.cursor = cursor;
        self.tail = cursor;
        self.queue.clear();
        self.queue_bytes = 0;
        self.tokens.clear();
        self.filling = Filling::Behind(None);
        self.probe = PROBE_MIN;
    }

    /// Drops the queue of a client that is silent; it begins at its cursor once it is heard again.
    pub(super) fn sleep(&mut self) {
        self.rewind(self.cursor);
    }

    /// What is queued may hold what the client may no longer read; what it may is asked for again.
    pub(super) fn withdraw(&mut self) {
        self.rewind(self.cursor);
    }

    /// Some applied notifications never came: what follows the queue must be asked for.
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

    fn push(&mut self, op: Op, notification: Option<Arc<Notification>>) {
        let weight = notification.as_deref().map_or(32, weight);
        self.queue_bytes += weight;
        self.queue.push_back(Item { op, prev: self.tail, notification, weight, flight: Flight::Waiting });
        self.tail = op;
    }

    /// A notification for this session was applied.
    pub(super) fn applied(&mut self, notification: &Arc<Notification>) {
        if self.filling != Filling::Live || notification.op <= self.tail {
            return;
        }
        if self.has_room() {
            self.push(notification.op, Some(notification.clone()));
        } else {
            self.filling = Filling::Behind(None);
        }
    }

    /// The page that is wanted now: after which op, and at most how many.
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

    /// The page that was asked for, after this op, is to be asked for again after `wait`.
    pub(super) fn page_later(&mut self, now: Moment, after: Op, wait: Duration) {
        if matches!(self.filling, Filling::Behind(Some(_))) && after == self.tail {
            self.filling = Filling::Behind(Some(now + wait));
        }
    }

    /// A page came. One that was not asked for is ignored.
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
            if notification.op > self.tail {
                self.push(notification.op, Some(notification));
            }
        }
    }

    /// The client acknowledges. The new cursor, if it moved. An ack from before the last one is
    /// ignored; one from beyond the queue means that the stream restarted at an old cursor, and it
    /// goes on from there.
    pub(super) fn client_ack(&mut self, now: Moment, ack: &ClientAck, patience: Duration) -> Option<Op> {
        if ack.upto < self.reported {
            return None;
        }
        let moved = ack.upto > self.reported;
        self.reported = ack.upto;
        self.acked_at = now;
        // The credit of an ack from before the stream's start counts what came before it too.
        if ack.upto >= self.cursor {
            self.credit = ack.credit as usize;
        }
        if ack.upto > self.tail {
            self.rewind(ack.upto);
        } else if ack.upto > self.cursor {
            self.cursor = ack.upto;
            self.probe = PROBE_MIN;
            while let Some(item) = self.queue.pop_front_if(|item| item.op <= ack.upto) {
                self.queue_bytes -= item.weight;
            }
        }
        self.mark_held(now, ack, patience);
        moved.then_some(ack.upto)
    }

    /// What the client holds need not be sent again; what it lacks is, once it has had time to be
    /// acknowledged. A full list of what it holds says nothing about what lies beyond.
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

    /// What to send next under `token`: as many as share a datagram, or a large one alone. Empty:
    /// nothing, as far as credit and window go.
    pub(super) fn next_batch(&mut self, token: u64) -> Vec<Packet> {
        let allowed = self.credit.min(self.window);
        let mut large = 0;
        let mut bytes = 0;
        let mut ops = Vec::new();
        let mut packets = Vec::new();
        for item in self.queue.iter_mut().take(allowed) {
            if item.flight != Flight::Waiting {
                large += usize::from(item.large() && matches!(item.flight, Flight::Sent(_)));
                continue;
            }
            let full = bytes + item.weight > BATCH_BYTES && !packets.is_empty();
            if full || (item.large() && large >= LARGE_IN_FLIGHT) {
                break;
            }
            bytes += item.weight;
            item.flight = Flight::Sent(token);
            ops.push(item.op);
            packets.push(item.packet());
        }
        if !ops.is_empty() {
            self.tokens.insert(token, ops);
        }
        packets
    }

    /// Everything under `token` arrived.
    pub(super) fn arrived(&mut self, now: Moment, token: u64) {
        self.settle(token, Flight::Arrived(now));
    }

    /// Something under `token` is believed lost.
    pub(super) fn lost(&mut self, token: u64) {
        self.settle(token, Flight::Waiting);
    }

    fn settle(&mut self, token: u64, flight: Flight) {
        for op in self.tokens.remove(&token).unwrap_or_default() {
            if let Ok(index) = self.queue.binary_search_by_key(&op, |item| item.op)
                && self.queue[index].flight == Flight::Sent(token)
            {
                self.queue[index].flight = flight;
            }
        }
    }

    /// When [`Stream::on_deadline`] and [`Stream::want_page`] want to be called.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let page = match self.filling {
            Filling::Behind(again) => again,
            Filling::Live => None,
        };
        [page, self.probe_at()].into_iter().flatten().min()
    }

    /// When the oldest item goes again: the client has it, and has been silent since.
    fn probe_at(&self) -> Option<Moment> {
        match self.queue.front()?.flight {
            Flight::Arrived(at) | Flight::Held(at) => Some(at.max(self.acked_at) + self.probe),
            Flight::Waiting | Flight::Sent(_) => None,
        }
    }

    /// Sends the oldest item again if it is time: the CLIENT_ACK that answers it says where the client
    /// stands.
    pub(super) fn on_deadline(&mut self, now: Moment) {
        if self.probe_at().is_some_and(|at| now >= at)
            && let Some(front) = self.queue.front_mut()
        {
            front.flight = Flight::Waiting;
            self.probe = (self.probe * 2).min(PROBE_MAX);
        }
    }
}
