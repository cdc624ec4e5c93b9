//! Pending worker: owns the [`Delivery`], and is the only thread that sends to clients, except
//! for RETRY and VERSION, which the handlers send.
//!
//! The handlers report what they received (`from_clients`), the replica thread what to send (`from_replica`).
//! An answer finds its session's address only if the datagram it answers was handled before. So each turn
//! first counts what is queued in `from_replica`, then takes everything queued in `from_clients`, then as
//! much of `from_replica` as it counted: the datagrams behind the counted answers were in `from_clients` by
//! then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::BoundSocket;
use recado_sys::sync::channel::{Receiver, Select};
use recado_sys::sync::signal::Signal;

use recado_proto::packet::RefusedDatagram;
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::engine;
use super::log_throttle::LogThrottle;
use super::overflow_queue::OverflowQueue;
use crate::delivery::{Delivery, Effect, Input};

/// Maximum wait without a deadline.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct PendingWorker {
    pub(super) delivery: Delivery,
    /// Set by the senders of both channels.
    pub(super) signal: Signal,
    /// From the handlers.
    pub(super) from_clients: Receiver<Input>,
    /// From the replica thread.
    pub(super) from_replica: Receiver<Input>,
    /// To the replica thread: the pages that streams want, the cursors and the addresses of sessions. While
    /// messages are queued here, nothing is taken from `from_clients`, so that channel fills and the handlers
    /// drop: clients retransmit.
    pub(super) from_delivery: OverflowQueue<engine::Input>,
    pub(super) socket: Arc<BoundSocket>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
}

impl PendingWorker {
    /// Runs until the replica thread has ended and everything it reported is sent.
    pub(super) fn run(mut self) {
        let mut effects = Vec::new();
        let mut datagrams = Vec::new();
        let (mut trouble, mut full) = (LogThrottle::default(), LogThrottle::default());
        loop {
            self.wait();
            self.from_delivery.flush();
            let told = self.from_replica.len();
            let heard = if self.from_delivery.is_clear() { self.from_clients.len() } else { 0 };
            let now = self.clock.now();
            for input in
                self.from_clients.try_iter().take(heard).chain(self.from_replica.try_iter().take(told))
            {
                self.delivery.handle(now, input, &mut effects);
            }
            if self.delivery.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.delivery.handle(now, Input::Deadline, &mut effects);
            }
            self.delivery.flush(now, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Datagram { to, bytes } => datagrams.push((to, bytes)),
                    Effect::WantPage { session, after, limit } => {
                        self.from_delivery.push(engine::Input::WantPage { session, after, limit });
                    }
                    Effect::Path { session, address } => {
                        self.from_delivery.push(engine::Input::Path { session, address });
                    }
                    Effect::Cursor { session, upto } => {
                        self.from_delivery.push(engine::Input::Cursor(session, upto))
                    }
                    Effect::AnswerDone { session, query } => {
                        self.from_delivery.push(engine::Input::AnswerDone { session, query });
                    }
                    Effect::Refused(reason) => {
                        self.counters.refuse(reason);
                        if reason == RefusedDatagram::QueueFull
                            && let Some(suppressed) = full.allow(now)
                        {
                            tracing::warn!(
                                suppressed,
                                "no more sessions fit; a session of the network that has the most waits until another ends or its client is away"
                            );
                        }
                    }
                }
            }
            self.send(&mut datagrams, &mut trouble);
            // The channel reports the end of the replica thread only once it is empty.
            if self.from_replica.is_empty() && (self.from_delivery.is_gone() || ended(&self.from_replica)) {
                return;
            }
        }
    }

    /// Blocks until there is something to do.
    fn wait(&self) {
        let now = self.clock.now();
        let until = self.delivery.next_deadline().map_or(IDLE, |deadline| deadline.since(now));
        let clear = self.from_delivery.is_clear();
        // Queued messages are retried soon; the replica thread makes room within a turn.
        let until = if clear { until } else { until.min(Duration::from_millis(5)) };
        // A time-out means that the deadline has come.
        self.signal.wait(until, || !self.from_replica.is_empty() || (clear && !self.from_clients.is_empty()));
    }

    fn send(&self, datagrams: &mut Vec<(SocketAddr, Vec<u8>)>, trouble: &mut LogThrottle) {
        if datagrams.is_empty() {
            return;
        }
        let report = self.socket.send(datagrams);
        datagrams.clear();
        if report.failed == 0 {
            return;
        }
        self.counters.unsent(report.failed);
        if let (Some(error), Some(suppressed)) = (report.last_error, trouble.allow(self.clock.now())) {
            let so_far = self.counters.unsent_so_far();
            tracing::warn!(%error, so_far, suppressed, "datagrams to clients were not sent");
        }
    }
}

/// Returns true if a channel is empty and its senders are gone. It takes nothing. The only receiver calls
/// it right after finding the channel empty; a message that came since is found by the next turn.
fn ended<T>(channel: &Receiver<T>) -> bool {
    let mut select = Select::new();
    select.recv(channel);
    // A channel that is ready and still empty is disconnected.
    select.try_ready().is_ok() && channel.is_empty()
}
