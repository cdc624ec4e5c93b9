//! A sender that neither blocks nor loses: what does not fit the channel waits here, in order.
//!
//! For what must arrive but must not make its sender wait (tasks for the journal, inputs of the
//! delivery). What bounds it is its owner's duty: while [`Held::is_clear`] is false, the owner takes
//! no more of the work that fills it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::channel::{Sender, TrySendError};
use crate::sync::{Mistake, planted};

/// How long [`Held::finish`] waits for room for one message.
const FINISH_PATIENCE: Duration = Duration::from_millis(100);

/// A bounded channel's sender, with what is held back.
#[derive(Debug)]
pub(super) struct Held<T> {
    sender: Sender<T>,
    waiting: VecDeque<T>,
    gone: bool,
}

impl<T> Held<T> {
    pub(super) fn new(sender: Sender<T>) -> Held<T> {
        Held { sender, waiting: VecDeque::new(), gone: false }
    }

    /// Sends, or holds back behind what is held back already.
    pub(super) fn push(&mut self, message: T) {
        if planted(Mistake::WaitsForTheJournal) {
            let _ = self.sender.send(message);
            return;
        }
        self.waiting.push_back(message);
        self.flush();
    }

    /// Sends what there is room for now.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => {}
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

    /// Whether nothing is held back.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the receiver has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The end: gives what is held back a little time to go, then closes the channel.
    pub(super) fn finish(self) {
        for message in self.waiting {
            if self.sender.send_timeout(message, FINISH_PATIENCE).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::channel::bounded;

    #[test]
    fn what_does_not_fit_waits_in_order() {
        let (sender, receiver) = bounded(2);
        let mut held = Held::new(sender);
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
