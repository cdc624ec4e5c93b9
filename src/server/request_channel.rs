//! Channel of clients' requests, whose [places](super::places) are shared by network.

use std::sync::Arc;

use recado_sys::sync::channel::Receiver;
use recado_sys::sync::signal::{Sender, Signal};
use recado_sys::sync::{Mistake, Mutex, planted};

use super::engine::Input;
use super::places::{Network, Places};

/// Sending end, for the handlers.
#[derive(Clone, Debug)]
pub(super) struct RequestSender {
    places: Arc<Mutex<Places>>,
    sender: Sender<(Network, Input)>,
}

/// Receiving end, for the replica thread.
#[derive(Clone, Debug)]
pub(super) struct RequestReceiver {
    places: Arc<Mutex<Places>>,
    receiver: Receiver<(Network, Input)>,
}

/// Creates a channel with `capacity` places that is bound to the signal of its receiver.
pub(super) fn bounded_by_network(signal: &Signal, capacity: usize) -> (RequestSender, RequestReceiver) {
    let places = Arc::new(Mutex::new(Places::new(capacity)));
    let (sender, receiver) = signal.bounded(capacity);
    (RequestSender { places: Arc::clone(&places), sender }, RequestReceiver { places, receiver })
}

impl RequestSender {
    /// Wakes the receiver for what was queued.
    pub(super) fn wake(&self) {
        self.sender.wake();
    }

    /// Queues a request of this network; [`RequestSender::wake`] follows. Returns false if the network gets
    /// no more places, or if the receiver has ended.
    pub(super) fn try_queue(&self, network: Network, input: Input) -> bool {
        if planted(Mistake::LooksThenAsks) {
            let room = self.places.lock().capacity() > self.sender.len();
            if room {
                // The planted bug: another handler may have taken the last place since, and the failed send
                // is ignored.
                drop(self.sender.try_queue((network, input)));
            }
            return room;
        }
        if !self.places.lock().take(network) {
            return false;
        }
        // The channel has room for a message per place, so only a receiver that has ended fails this send.
        let sent = self.sender.try_queue((network, input)).is_ok();
        if !sent {
            self.places.lock().free(network);
        }
        sent
    }
}

impl RequestReceiver {
    /// Takes the oldest request.
    pub(super) fn take(&self) -> Option<Input> {
        let (network, input) = self.receiver.try_recv().ok()?;
        self.places.lock().free(network);
        Some(input)
    }

    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> Network {
        Network::of([10, 0, n, 1].into())
    }

    /// Sends as many requests as this network can, and returns their number.
    fn flood(asking: &RequestSender, n: u8) -> usize {
        (0..2_000).take_while(|_| asking.try_queue(network(n), Input::Deadline)).count()
    }

    #[test]
    fn a_flood_of_one_network_leaves_half_of_the_places() {
        let (asking, asked) = bounded_by_network(&Signal::default(), 1_024);
        assert_eq!(flood(&asking, 0), 512);
        assert_eq!(flood(&asking, 1), 256, "half of what is left");
        assert_eq!(std::iter::from_fn(|| asked.take()).count(), 768);
        assert_eq!(flood(&asking, 1), 512, "what was taken is free again");
    }

    #[test]
    fn floods_of_many_networks_leave_room_for_a_network_that_has_none() {
        let (asking, asked) = bounded_by_network(&Signal::default(), 1_024);
        for round in 0..100 {
            for n in 0..20 {
                flood(&asking, n);
            }
            assert!(round < 20 || asking.try_queue(network(100 + round), Input::Stop), "round {round}");
            (0..128).for_each(|_| drop(asked.take()));
        }
    }

    #[test]
    fn what_nobody_takes_any_more_is_refused_and_holds_no_place() {
        let (asking, asked) = bounded_by_network(&Signal::default(), 4);
        drop(asked);
        assert_eq!(flood(&asking, 0), 0);
        assert_eq!(asking.places.lock().taken(), 0);
    }
}
