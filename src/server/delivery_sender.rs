//! Queues of what the replica thread tells the shards: each ordered, and none blocking.
//!
//! While a shard's channel is full, applied notifications for it are dropped: they are in the service, and
//! streams ask for pages of it. Everything else is queued. One [`Input::AppliedDropped`] reports what was
//! dropped, before the next applied notification, because a stream that is up to date takes the next
//! notification it receives for the next one there is.

use recado_sys::sync::signal::Sender;
use recado_sys::sync::{Mistake, planted};

use super::overflow_queue::OverflowQueue;
use super::shard::{Told, distribute};
use crate::delivery::Input;

/// Sending ends of the channels of all shards, with their queues.
#[derive(Debug)]
pub(super) struct DeliverySender {
    shards: Vec<ShardSender>,
}

impl DeliverySender {
    pub(super) fn new(senders: impl IntoIterator<Item = Sender<Told>>) -> DeliverySender {
        DeliverySender { shards: senders.into_iter().map(ShardSender::new).collect() }
    }

    /// Tells the shards that it concerns, each as [`ShardSender::push`].
    pub(super) fn push(&mut self, told: Told) {
        let shards = &mut self.shards;
        distribute(told, shards.len(), |shard, told| shards[shard].push(told));
    }

    /// Sends as much of the queues as the channels have room for, and wakes the handlers that were told
    /// something since the last flush.
    pub(super) fn flush(&mut self) {
        self.shards.iter_mut().for_each(ShardSender::flush);
    }

    /// Returns true if nothing is queued and nothing is left to report.
    pub(super) fn is_clear(&self) -> bool {
        self.shards.iter().all(ShardSender::is_clear)
    }

    /// Sends the queues and closes the channels: see [`OverflowQueue::finish`].
    pub(super) fn finish(self) {
        self.shards.into_iter().for_each(|shard| shard.queue.finish());
    }
}

/// Sending end of one shard's channel, with its queue.
#[derive(Debug)]
struct ShardSender {
    queue: OverflowQueue<Told>,
    /// True if applied notifications were dropped and that is not reported yet.
    missed: bool,
}

impl ShardSender {
    fn new(sender: Sender<Told>) -> ShardSender {
        ShardSender { queue: OverflowQueue::new(sender), missed: false }
    }

    /// Sends it, or queues it behind what is queued already, or drops it.
    fn push(&mut self, told: Told) {
        if !self.is_clear() {
            self.flush();
        }
        if matches!(told, Told::Delivery(Input::Applied { .. })) && !self.is_clear() {
            self.missed = true;
        } else {
            self.queue.push(told);
        }
    }

    fn flush(&mut self) {
        self.queue.flush();
        if self.missed && self.queue.is_clear() {
            self.missed = false;
            if !planted(Mistake::MissedIsNotSaid) {
                self.queue.push(Told::Delivery(Input::AppliedDropped));
            }
        }
    }

    fn is_clear(&self) -> bool {
        self.queue.is_clear() && !self.missed
    }
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;
    use recado_sys::sync::channel::Receiver;
    use recado_sys::sync::signal::Signal;

    use recado_proto::id::{Op, Topic};
    use recado_proto::packet::{Content, Notification, OptionalFields};
    use recado_service::Stored;

    use super::*;

    fn applied(op: u64) -> Told {
        let content = Content::of(String::new());
        let notification = Notification {
            op: Op(op),
            topic: Topic::Feed("alice".parse().unwrap()),
            author: "alice".parse().unwrap(),
            unix_ms: 0,
            content,
            options: OptionalFields::NONE,
        };
        Told::Delivery(Input::Applied { notification: Stored::new(&notification), sessions: [].into() })
    }

    /// The ops that the delivery receives, and `None` for each [`Input::AppliedDropped`].
    fn heard(receiver: &Receiver<Told>, most: usize) -> Vec<Option<u64>> {
        let told = receiver.try_iter().take(most).filter_map(|input| match input {
            Told::Delivery(Input::Applied { notification, .. }) => Some(Some(notification.op().0)),
            Told::Delivery(Input::AppliedDropped) => Some(None),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_dropped_range_is_sent_before_the_next_notification() {
        let (sender, receiver) = Signal::default().bounded(2);
        let mut sender = ShardSender::new(sender);
        sender.push(applied(1));
        sender.push(Told::Delivery(Input::Deadline));
        sender.push(Told::Delivery(Input::Deadline));
        sender.push(applied(2));
        assert!(!sender.is_clear());
        assert_eq!(heard(&receiver, 2), [Some(1)]);
        // Room in the channel alone must not let the next notification through.
        sender.flush();
        sender.push(applied(3));
        assert_eq!(heard(&receiver, 2), [None]);
        sender.flush();
        assert_eq!(heard(&receiver, 2), [Some(3)]);
        assert!(sender.is_clear());
    }

    proptest! {
        /// For every order of sends and receives: between two ops that the delivery receives and that are not
        /// neighbours, it receives [`Input::AppliedDropped`].
        #[test]
        fn no_gap_is_silent(steps in prop::collection::vec((0u8..4, 0usize..4), 1..200)) {
            let (sender, receiver) = Signal::default().bounded(2);
            let mut sender = ShardSender::new(sender);
            let (mut op, mut told) = (0, vec![]);
            for (what, taken) in steps {
                match what {
                    0 => sender.push(Told::Delivery(Input::Deadline)),
                    1 => sender.flush(),
                    _ => {
                        op += 1;
                        sender.push(applied(op));
                    }
                }
                told.extend(heard(&receiver, taken));
            }
            while !sender.is_clear() {
                told.extend(heard(&receiver, 4));
                sender.flush();
            }
            told.extend(heard(&receiver, 4));
            let (mut last, mut missed) = (0, false);
            for word in told {
                match word {
                    None => missed = true,
                    Some(op) => {
                        prop_assert!(op == last + 1 || (op > last && missed), "{op} after {last}");
                        (last, missed) = (op, false);
                    }
                }
            }
            prop_assert!(last == op || missed, "the last {op} is missing, and nobody was told");
        }
    }
}
