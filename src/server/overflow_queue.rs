//! Sender that neither blocks nor loses: it queues, in order, the messages that do not fit the channel.
//!
//! It is for messages that must arrive but must not make their sender wait (tasks for the journal, what the
//! handlers are told). The owner bounds the queue: while [`OverflowQueue::is_clear`] is false, it takes no
//! more of the work that fills the queue. It calls [`OverflowQueue::flush`] at the end of each turn: only
//! then is the receiver woken, for all that the turn has sent.

use std::collections::VecDeque;
use std::time::Duration;

use recado_sys::sync::channel::TrySendError;
use recado_sys::sync::signal::Sender;
use recado_sys::sync::{Mistake, planted};

/// Time for which [`OverflowQueue::finish`] waits for room for one message.
const FINISH_PATIENCE: Duration = Duration::from_millis(100);

/// Sender of a bounded channel, with a queue.
#[derive(Debug)]
pub(super) struct OverflowQueue<T> {
    sender: Sender<T>,
    waiting: VecDeque<T>,
    /// True if the receiver is not woken yet for something sent.
    wake_due: bool,
    gone: bool,
}

impl<T> OverflowQueue<T> {
    pub(super) fn new(sender: Sender<T>) -> OverflowQueue<T> {
        OverflowQueue { sender, waiting: VecDeque::new(), wake_due: false, gone: false }
    }

    /// Sends a message, or queues it behind those already queued. The receiver is woken by the next flush.
    pub(super) fn push(&mut self, message: T) {
        if planted(Mistake::WaitsForTheJournal) {
            let _ = self.sender.send(message);
            return;
        }
        self.waiting.push_back(message);
        self.send();
    }

    /// Sends as many queued messages as the channel has room for, and wakes the receiver if anything was sent
    /// since the last flush.
    pub(super) fn flush(&mut self) {
        self.send();
        if std::mem::take(&mut self.wake_due) && !planted(Mistake::QueuesSilently) {
            self.sender.wake();
        }
    }

    fn send(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            match self.sender.try_queue(message) {
                Ok(()) => self.wake_due = true,
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.gone = true;
                    self.waiting.clear();
                }
            }
        }
    }

    /// Returns true if nothing is queued.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if the receiver has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Sends the queue, waiting a short time for each message, then closes the channel, which wakes the
    /// receiver.
    pub(super) fn finish(mut self) {
        // A receiver that is not woken makes no room.
        self.flush();
        for message in self.waiting {
            if self.sender.send_timeout(message, FINISH_PATIENCE).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use recado_sys::sync::signal::Signal;

    use super::*;

    #[test]
    fn what_does_not_fit_waits_in_order() {
        let (sender, receiver) = Signal::default().bounded(2);
        let mut held = OverflowQueue::new(sender);
        (1..=5).for_each(|n| held.push(n));
        assert!(!held.is_clear());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        held.push(6);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3, 4]);
        held.flush();
        assert!(held.is_clear());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [5, 6]);
        drop(receiver);
        held.push(7);
        assert!(held.is_gone() && held.is_clear());
    }
}
