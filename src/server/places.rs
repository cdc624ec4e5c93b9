//! Places in the channels between a server's threads, and how much of them a turn takes: the bounds that hold
//! under a flood. Pure, so that the simulator has the same bounds as the threads.
//!
//! **Requests.** One queue of clients' requests for everybody would be filled by the network that asks the
//! most. So a network takes a place only while more places are free than it holds (dynamic thresholds:
//! Choudhury and Hahne 1998). One network alone gets at most half of the places. Several that flood at once
//! may fill the channel at first, but converge to about equal shares as requests are taken, with some places
//! left for a newcomer. Requests are taken in the order in which they came.
//!
//! The network is that of a datagram's source address: a client that has a session and forges its source
//! address can take the places of another network, but not its budget.

use std::collections::BTreeMap;
use std::time::Duration;

pub use super::cost::TURN_MAX;
pub use crate::fair::Network;

/// Requests of clients that wait for the replica thread.
pub const REQUESTS: usize = 1024;
/// Datagrams of peers that wait for it, in a simulation. A server has them in a socket's buffer: this many of
/// 1,200 bytes, 2,304 with what the system adds, fit into the 416 KiB that Linux grants if no setting allows
/// more.
pub const PEER_DATAGRAMS: usize = 180;
/// Pages, cursors and addresses that wait for it.
pub const FROM_DELIVERY: usize = 4096;
/// Datagrams of clients that wait for a handler.
pub const DATAGRAMS: usize = 1024;
/// What the replica thread has told a handler and it has not taken.
pub const TOLD: usize = 4096;

/// Maximum number of peers' datagrams in a turn of the replica thread. They come before everything that is
/// bounded by time, so a flood of them must not go on as long as the system has more. So many take a few
/// milliseconds.
pub const PEER_DATAGRAMS_PER_TURN: usize = 1024;
/// Maximum number of pages, and of client requests, in a turn of the replica thread; both together also stop
/// after [`TURN_MAX`]. This keeps a flood, or a thousand streams that are behind, from delaying peers or the
/// deadline for long.
pub const PER_TURN: usize = 128;
/// Maximum number of datagrams in a turn of a handler: what they leave to send, acks above all, does not wait
/// for long.
pub const DATAGRAMS_PER_TURN: usize = 256;
/// Time after which a turn of a handler takes nothing further of what it is told, and then as long again
/// after which it takes no further datagram. A handshake alone takes 0.34 ms.
pub const HANDLER_TURN_MAX: Duration = Duration::from_millis(2);

/// Number of places taken, in all and by network.
#[derive(Debug)]
pub struct Places {
    capacity: usize,
    taken: usize,
    /// Places held by each network; no zeros.
    of: BTreeMap<Network, usize>,
}

impl Places {
    /// This many places, all free.
    pub fn new(capacity: usize) -> Places {
        Places { capacity, taken: 0, of: BTreeMap::new() }
    }

    /// Takes a place. Returns false if the network gets no more.
    pub fn take(&mut self, network: Network) -> bool {
        let own = self.of.get(&network).copied().unwrap_or(0);
        let room = self.capacity - self.taken > own;
        if room {
            self.taken += 1;
            self.of.insert(network, own + 1);
        }
        room
    }

    /// Frees a place of the network.
    pub fn free(&mut self, network: Network) {
        if let Some(own) = self.of.get_mut(&network) {
            *own -= 1;
            self.taken -= 1;
            if *own == 0 {
                self.of.remove(&network);
            }
        }
    }

    /// The number of places.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of places taken.
    pub fn taken(&self) -> usize {
        self.taken
    }
}
