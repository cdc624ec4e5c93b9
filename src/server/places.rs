//! The channel of what clients ask, whose places are shared by network.
//!
//! One queue for everybody is filled by whoever asks the most. So a network takes a place only while more places
//! are free than it has. One alone has half of them. Several that flood at once may fill it first, and come to
//! about equal shares as what waits is taken, with some left for whoever comes next (dynamic thresholds:
//! Choudhury and Hahne 1998). What waits is taken in the order it came.
//!
//! The network is the one that a datagram came from: whoever has a session and forges where it comes from can
//! take the places of another network, though not what that one is charged for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::Input;
use crate::fair::Network;
use crate::sync::channel::{Receiver, Sender, bounded};
use crate::sync::{Mistake, Mutex, planted};

/// Who has how many places.
#[derive(Debug)]
struct Places {
    capacity: usize,
    taken: usize,
    /// No zeros.
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

/// Where handlers put what clients ask.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    places: Arc<Mutex<Places>>,
    sender: Sender<(Network, Input)>,
}

/// Where the replica thread finds it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    places: Arc<Mutex<Places>>,
    receiver: Receiver<(Network, Input)>,
}

/// A channel with so many places.
pub(super) fn shared(capacity: usize) -> (Asking, Asked) {
    let places = Arc::new(Mutex::new(Places { capacity, taken: 0, of: BTreeMap::new() }));
    let (sender, receiver) = bounded(capacity);
    (Asking { places: Arc::clone(&places), sender }, Asked { places, receiver })
}

impl Asking {
    /// Passes on what this network asks; false: it has no more places.
    pub(super) fn try_send(&self, network: Network, input: Input) -> bool {
        if planted(Mistake::LooksThenAsks) {
            let room = self.places.lock().capacity > self.sender.len();
            if room {
                // The mistake: another may have taken the last place since, and that is not looked at.
                drop(self.sender.try_send((network, input)));
            }
            return room;
        }
        if !self.places.lock().take(network) {
            return false;
        }
        // As many places as messages: it is full only for one who has none. The other end may be gone.
        let sent = self.sender.try_send((network, input)).is_ok();
        if !sent {
            self.places.lock().free(network);
        }
        sent
    }
}

impl Asked {
    /// What waits longest.
    pub(super) fn take(&self) -> Option<Input> {
        let (network, input) = self.receiver.try_recv().ok()?;
        self.places.lock().free(network);
        Some(input)
    }

    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    /// To wait on.
    pub(super) fn channel(&self) -> &Receiver<(Network, Input)> {
        &self.receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> Network {
        Network::of([10, 0, n, 1].into())
    }

    /// As many as this network can ask.
    fn flood(asking: &Asking, n: u8) -> usize {
        (0..2_000).take_while(|_| asking.try_send(network(n), Input::Deadline)).count()
    }

    #[test]
    fn a_flood_of_one_network_leaves_half_of_the_places() {
        let (asking, asked) = shared(1_024);
        assert_eq!(flood(&asking, 0), 512);
        assert_eq!(flood(&asking, 1), 256, "half of what is left");
        assert_eq!(std::iter::from_fn(|| asked.take()).count(), 768);
        assert_eq!(flood(&asking, 1), 512, "what was taken is free again");
    }

    #[test]
    fn floods_of_many_networks_come_to_leave_room_for_whoever_has_none() {
        let (asking, asked) = shared(1_024);
        for round in 0..100 {
            for n in 0..20 {
                flood(&asking, n);
            }
            assert!(round < 20 || asking.try_send(network(100 + round), Input::Stop), "round {round}");
            (0..128).for_each(|_| drop(asked.take()));
        }
    }

    #[test]
    fn what_nobody_takes_any_more_is_refused_and_holds_no_place() {
        let (asking, asked) = shared(4);
        drop(asked);
        assert_eq!(flood(&asking, 0), 0);
        assert_eq!(asking.places.lock().taken, 0);
    }
}
