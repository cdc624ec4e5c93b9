//! Handlers: the threads that clients' sessions belong to. Each owns a [`Shard`], opens the datagrams that
//! the listener dispatches to it, and delivers to its sessions; these threads alone send to clients.
//!
//! One turn: wait for a datagram, for something told by the replica thread, or for the shard's deadline;
//! take what was told, then a limited number of datagrams; send what all of it leaves to send. While the
//! replica thread takes nothing from the delivery, no datagram is taken either: their channel fills, the
//! listener drops, and clients retransmit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::BoundSocket;
use recado_sys::sync::channel::{Receiver, TryRecvError};
use recado_sys::sync::signal::Signal;

use recado_proto::packet::RefusedDatagram;
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::engine;
use super::listener::Received;
use super::log_throttle::LogThrottle;
use super::overflow_queue::OverflowQueue;
use super::places::{DATAGRAMS_PER_TURN, HANDLER_TURN_MAX};
use super::request_channel::RequestSender;
use super::shard::{Effect, Shard, Told};
use crate::fair::Network;

/// The names of the handlers of a server, as many as it can have.
pub(super) const NAMES: [&str; 8] =
    ["handler-1", "handler-2", "handler-3", "handler-4", "handler-5", "handler-6", "handler-7", "handler-8"];

/// Requests after which the replica thread is woken within a turn, so that it takes some while the rest come.
const WAKE_EVERY: usize = 64;

/// Maximum wait without a deadline.
const IDLE: Duration = Duration::from_secs(1);
/// Maximum wait while messages for the replica thread are queued here, which makes room within a turn.
const HELD_RETRY: Duration = Duration::from_millis(5);

/// The number of handlers of a server: one for two cores. Opening, sealing and sending is half of its work or
/// more; the other threads have the rest.
pub(super) fn handlers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, NAMES.len())
}

pub(super) struct Handler {
    pub(super) shard: Shard,
    /// Set by the senders of both channels.
    pub(super) signal: Signal,
    /// From the listener.
    pub(super) datagrams: Receiver<Received>,
    /// From the replica thread.
    pub(super) told: Receiver<Told>,
    /// To the replica thread: the requests of clients.
    pub(super) requests: RequestSender,
    /// To the replica thread: the pages that streams want, the cursors and the addresses of sessions.
    pub(super) from_delivery: OverflowQueue<engine::Input>,
    pub(super) socket: Arc<BoundSocket>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
}

/// State kept from turn to turn.
#[derive(Default)]
struct Turns {
    effects: Vec<Effect>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// True if the replica thread is not woken yet for a request of this turn.
    asked: bool,
    trouble: LogThrottle,
    full: LogThrottle,
}

impl Handler {
    /// Runs until the replica thread has ended and everything it told is sent.
    pub(super) fn run(mut self) {
        let mut turns = Turns::default();
        let mut open = true;
        while open {
            self.wait();
            open = self.take(&mut turns);
            self.perform(&mut turns);
        }
    }

    /// Blocks until there is something to do. A time-out means that the deadline has come.
    fn wait(&self) {
        let now = self.clock.now();
        let until = self.shard.next_deadline().map_or(IDLE, |deadline| deadline.since(now));
        let clear = self.from_delivery.is_clear();
        let until = if clear { until } else { until.min(HELD_RETRY) };
        self.signal.wait(until, || !self.told.is_empty() || (clear && !self.datagrams.is_empty()));
    }

    /// Gives the shard its inputs, and ends its turn. Returns false if the replica thread has ended and
    /// nothing that it told is left.
    fn take(&mut self, turns: &mut Turns) -> bool {
        let now = self.clock.now();
        let mut open = true;
        // One look more than there are messages finds the end of the replica thread. What is told may be for
        // thousands of sessions; what is left is taken in the next turn, at once.
        for _ in 0..=self.told.len() {
            match self.told.try_recv() {
                Ok(told) => self.shard.tell(now, told, &mut turns.effects),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => open = false,
            }
            if self.clock.now().since(now) >= HANDLER_TURN_MAX {
                break;
            }
        }
        // The datagrams have time of their own: the acks among them keep what is sent below from being sent
        // again.
        let now = self.clock.now();
        let heard = self.datagrams.len().min(DATAGRAMS_PER_TURN);
        let heard = if self.from_delivery.is_clear() { heard } else { 0 };
        let requests = &self.requests;
        let mut asked = 0;
        let mut ask = |from: SocketAddr, input| {
            let taken = requests.try_queue(Network::of(from.ip()), input);
            asked += usize::from(taken);
            // If there is no room, the replica thread may not know that it has something to do.
            if !taken || asked.is_multiple_of(WAKE_EVERY) {
                requests.wake();
            }
            taken
        };
        for Received { from, bytes } in self.datagrams.try_iter().take(heard) {
            if let Err(reason) = self.shard.receive(now, from, &bytes, &mut ask, &mut turns.effects) {
                tracing::debug!(%from, ?reason, "datagram refused");
                self.counters.refuse(reason);
            }
            if self.clock.now().since(now) >= HANDLER_TURN_MAX {
                break;
            }
        }
        turns.asked = asked > 0;
        // The inputs took time, which must not count as delay of the answers to what is sent.
        self.shard.flush(self.clock.now(), &mut turns.effects);
        open
    }

    fn perform(&mut self, turns: &mut Turns) {
        for effect in turns.effects.drain(..) {
            match effect {
                Effect::Datagram { to, bytes } => turns.datagrams.push((to, bytes)),
                Effect::WantPage { session, after, limit } => {
                    self.from_delivery.push(engine::Input::WantPage { session, after, limit });
                }
                Effect::Path { session, address } => {
                    self.from_delivery.push(engine::Input::Path { session, address });
                }
                Effect::Cursor { session, upto } => {
                    self.from_delivery.push(engine::Input::Cursor(session, upto));
                }
                Effect::AnswerDone { session, query } => {
                    self.from_delivery.push(engine::Input::AnswerDone { session, query });
                }
                Effect::Refused(reason) => {
                    self.counters.refuse(reason);
                    if reason == RefusedDatagram::QueueFull
                        && let Some(suppressed) = turns.full.allow(self.clock.now())
                    {
                        tracing::warn!(
                            suppressed,
                            "no more sessions fit; a session of the network that has the most waits until another ends \
                             or its client is away"
                        );
                    }
                }
            }
        }
        // An address goes before the requests from there, which are charged to its network; and both before
        // the system's sending, which takes longer.
        self.from_delivery.flush();
        if std::mem::take(&mut turns.asked) {
            self.requests.wake();
        }
        if !turns.datagrams.is_empty() {
            let report = self.socket.send(&turns.datagrams);
            turns.datagrams.drain(..).for_each(|(_, bytes)| self.shard.hand_back(bytes));
            self.counters.unsent(report.failed);
            if let Some(error) = report.last_error
                && let Some(suppressed) = turns.trouble.allow(self.clock.now())
            {
                let so_far = self.counters.unsent_so_far();
                tracing::warn!(%error, so_far, suppressed, "datagrams to clients were not sent");
            }
        }
    }
}
