//! Channel of clients' requests, whose places are shared by network.
//!
//! One queue for everybody would be filled by the network that asks the most. So a network takes a place only
//! while more places are free than it holds (dynamic thresholds: Choudhury and Hahne 1998). One network alone
//! gets at most half of the places. Several that flood at once may fill the channel at first, but converge to
//! about equal shares as requests are taken, with some places left for a newcomer. Requests are taken in the
//! order in which they came.
//!
//! The network is that of a datagram's source address: a client that has a session and forges its source
//! address can take the places of another network, but not its budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use recado_sys::sync::channel::Receiver;
use recado_sys::sync::signal::{Sender, Signal};
use recado_sys::sync::{Mistake, Mutex, planted};

use super::engine::Input;
use crate::fair::Network;

/// Number of places taken, in all and by network.
#[derive(Debug)]
struct Places {
    capacity: usize,
    taken: usize,
    /// Places held by each network; no zeros.
    of: BTreeMap<Network, usize>,
}

impl Places {
    fn take(&mut self, network: Network) -> bool {
        let own = self.of.get(&network).copied().unwrap_or(0);
        let room = self.capacity - self.taken > own;
        if room {
            self.taken += 1;
            self.of.insert(network, own + 1);
        }
        room
    }

    fn free(&mut self, network: Network) {
        if let Some(own) = self.of.get_mut(&network) {
            *own -= 1;
            self.taken -= 1;
            if *own == 0 {
                self.of.remove(&network);
            }
        }
    }
}

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
    let places = Arc::new(Mutex::new(Places { capacity, taken: 0, of: BTreeMap::new() }));
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
            let room = self.places.lock().capacity > self.sender.len();
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
        assert_eq!(asking.places.lock().taken, 0);
    }
}
