//! Links to the other servers, one per peer: hellos, keys, packet numbers, acks and fragments.
//!
//! Keys between two servers are bound to the current boot ids of both, so each must learn the other's
//! first. Each server sends hellos with its own boot id until a hello echoes it, which proves that the peer
//! runs now. Datagrams of an earlier boot of either server do not open.
//!
//! The links know the members, and nothing of roles or of the log: they put the view that the caller names
//! into headers, and report a lost packet by the ops that the caller named. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use recado_proto::DecodeError;
use recado_proto::envelope::{self, Class, Envelope, PACKETS_MAX, PeerHello};
use recado_proto::fragment::Reassembler;
use recado_proto::id::{BootId, Epoch, Incarnation, KnownBoot, Moment, NodeId, Op, SessionId, View};
use recado_proto::link::{Buffers, Link, LinkEvent, ProbeCounts};
use recado_proto::packet::{Packet, RefusedDatagram, ToPeer};
use recado_proto::seal::{ClusterKeys, PacketKeys};

use crate::config::{Cluster, Timing};

use queue::{Batch, Queue};

mod queue;
#[cfg(test)]
mod tests;

/// The longest time for which the ack of a tracked datagram waits for a packet to travel with. An ENTRIES_ACK
/// follows the fsync, which may take longer than the sender's retransmission time-out.
const ACK_DELAY: Duration = Duration::from_millis(5);

/// Maximum number of a peer's earlier boots whose boot ids are remembered; the oldest is forgotten. A
/// replayed hello of a forgotten one is reported as [`Effect::StaleIncarnation`], and changes nothing else.
const EARLIER_MAX: usize = 64;

/// The identity under which a server's peers know its present boot.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The boot id: random, and never used before.
    pub(crate) boot_id: BootId,
    /// The incarnation of this boot.
    pub(crate) incarnation: Incarnation,
    /// The keys of the cluster.
    pub(crate) keys: ClusterKeys,
}

/// An effect that the caller performs; effects are performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send these bytes to a peer.
    Send {
        /// The peer.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A peer runs in this boot, which has echoed this server's: datagrams of it open from now on. Once the
    /// boot is stored, no other one of its incarnation is adopted, whatever restarts.
    BootAdopted {
        /// The peer.
        peer: NodeId,
        /// Its boot, with the boot id.
        boot: KnownBoot,
    },
    /// A running peer has an incarnation that is not later than one seen of it before, or is another boot of
    /// the latest one, and is ignored. A hello of an earlier boot that was current here is a replay, and is
    /// not reported.
    StaleIncarnation {
        /// The peer.
        server: NodeId,
        /// The incarnation that it reports.
        incarnation: Incarnation,
        /// The latest incarnation seen of it.
        latest: Incarnation,
    },
    /// A search for the longest datagram that the path to a peer carries has ended, or such datagrams do not
    /// arrive any more.
    Path {
        /// The peer.
        peer: NodeId,
        /// What is known of the path.
        path: PathState,
    },
    /// A running peer has a log of another epoch, which is another history, and is ignored.
    OtherEpoch {
        /// The peer.
        server: NodeId,
        /// The epoch of its log.
        epoch: Epoch,
    },
}

#[derive(Debug)]
struct Peer {
    /// The peer's current boot, once it has echoed ours.
    current: Option<CurrentBoot>,
    /// The boot ids that were current before, oldest first.
    earlier: VecDeque<BootId>,
    /// The latest boot of the peer known before this start.
    known: KnownBoot,
    /// First packet number of the next link to the peer. Numbers continue when the peer restarts.
    next_number: u64,
    /// Earliest time of the next hello to the peer.
    next_hello_at: Moment,
    hellos: u64,
    reassembler: Reassembler,
    /// Ops in flight, by token; the link bounds how many it tracks.
    tracked: BTreeMap<u64, Vec<(Op, Op)>>,
    /// Packets queued for the next flush.
    queue: Queue,
}

impl Peer {
    /// The latest known boot.
    fn latest(&self) -> KnownBoot {
        let current = self.current.as_ref();
        current.map_or(self.known, |CurrentBoot { incarnation, boot_id, .. }| KnownBoot {
            incarnation: *incarnation,
            boot_id: Some(*boot_id),
        })
    }
}

/// A peer's current boot, proven because it echoed ours.
#[derive(Debug)]
struct CurrentBoot {
    boot_id: BootId,
    incarnation: Incarnation,
    /// The keys that the peer seals with for us.
    receive: PacketKeys,
    link: Link,
    /// The time at which an ack of what arrived goes by itself.
    ack_by: Option<Moment>,
    /// What was last told of the path.
    path: PathState,
}

/// What is known of the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathState {
    /// The bytes of UDP payload in the longest datagram that it carries.
    pub carries: usize,
    /// The probes of it since the link began.
    pub probes: ProbeCounts,
}

impl PathState {
    fn of(link: &Link) -> PathState {
        PathState { carries: link.datagram_max(), probes: link.probes() }
    }
}

impl CurrentBoot {
    /// Sends packets at once, without a token; without packets only an ack.
    fn say(&mut self, now: Moment, view: View, to: NodeId, packets: &[ToPeer], out: &mut Vec<Effect>) {
        self.ack_by = None;
        let mut datagrams = Vec::new();
        self.link.transmit(now, view, packets, None, &mut datagrams);
        out.extend(datagrams.into_iter().map(|bytes| Effect::Send { to, bytes }));
    }
}

/// The links to all peers.
#[derive(Debug)]
pub(crate) struct PeerLinks {
    peers: BTreeMap<NodeId, Peer>,
    keys: ClusterKeys,
    me: NodeId,
    boot_id: BootId,
    envelope: Envelope,
    hello_every: Duration,
    tokens: u64,
}

impl PeerLinks {
    /// Creates the links of a server that starts now. `known` has the latest known boots of its peers; a peer
    /// that is not in it has none.
    pub(crate) fn new(
        cluster: &Cluster,
        timing: &Timing,
        identity: Identity,
        known: &[(NodeId, KnownBoot)],
        now: Moment,
    ) -> PeerLinks {
        let Identity { boot_id, incarnation, keys } = identity;
        let envelope = Envelope {
            class: Class::Peer,
            cluster: cluster.id,
            session: SessionId::default(),
            node: Some(cluster.me),
            incarnation,
            number: 0,
        };
        let known_of = |id: NodeId| {
            let known = known.iter().find(|(peer, _)| *peer == id);
            known.map_or_else(KnownBoot::default, |(_, boot)| *boot)
        };
        let peer = |id: NodeId| {
            let peer = Peer {
                current: None,
                earlier: VecDeque::new(),
                known: known_of(id),
                next_number: 1,
                next_hello_at: now,
                hellos: 0,
                reassembler: Reassembler::default(),
                queue: Queue::default(),
                tracked: BTreeMap::new(),
            };
            (id, peer)
        };
        PeerLinks {
            peers: cluster.peers().map(peer).collect(),
            keys,
            me: cluster.me,
            boot_id,
            envelope,
            hello_every: timing.heartbeat,
            tokens: 0,
        }
    }

    /// Opens a datagram and returns its sender, the sender's incarnation and its complete packets; `None`
    /// for a hello. An acknowledgement that is due goes at once, under `view`: a turn may take more datagrams
    /// than one may cover.
    ///
    /// # Errors
    /// The reason why it was refused. Nothing changed, except that a hello may answer a datagram whose seal
    /// fails.
    pub(crate) fn open(
        &mut self,
        now: Moment,
        view: View,
        datagram: &[u8],
        behind: bool,
        out: &mut Vec<Effect>,
    ) -> Result<Option<(NodeId, Incarnation, Vec<ToPeer>)>, RefusedDatagram> {
        let envelope = Envelope::peek(datagram).map_err(DecodeError::refused)?;
        let from = envelope.node.filter(|_| envelope.cluster == self.envelope.cluster);
        let from = from.ok_or(RefusedDatagram::Cluster)?;
        match envelope.class {
            Class::PeerHello => self.on_hello(now, from, envelope.incarnation, datagram, out).map(|()| None),
            Class::Peer => match self.open_current(now, from, envelope, datagram, behind) {
                Ok(packets) => {
                    self.acknowledge(now, view, from, out);
                    Ok(Some((from, envelope.incarnation, packets)))
                }
                // It is sealed for another boot of the sender or of this server: one of the two does not
                // know the other's current boot id yet.
                Err(RefusedDatagram::Seal) => {
                    let peer = self.peers.get(&from).filter(|peer| now >= peer.next_hello_at);
                    if let Some(yours) = peer.map(|peer| peer.current.as_ref().map(|current| current.boot_id))
                    {
                        self.say_hello(now, from, yours, out);
                    }
                    Err(RefusedDatagram::Seal)
                }
                Err(reason) => Err(reason),
            },
            Class::Handshake | Class::Client => Err(RefusedDatagram::Malformed),
        }
    }

    fn open_current(
        &mut self,
        now: Moment,
        from: NodeId,
        envelope: Envelope,
        datagram: &[u8],
        behind: bool,
    ) -> Result<Vec<ToPeer>, RefusedDatagram> {
        let peer = self.peers.get_mut(&from).ok_or(RefusedDatagram::Cluster)?;
        let current = peer.current.as_mut().filter(|current| current.incarnation == envelope.incarnation);
        let current = current.ok_or(RefusedDatagram::Seal)?;
        let opened = envelope::open(&mut current.receive, datagram).map_err(DecodeError::refused)?;
        // Dropped before the link sees its number, so that it counts as lost.
        if behind && carries_entries(&opened.packets) {
            return Err(RefusedDatagram::QueueFull);
        }
        if !current.link.receive(now, envelope.number, opened.header.ack.as_ref()) {
            return Err(RefusedDatagram::Repeated);
        }
        if opened.packets.iter().any(is_tracked) {
            current.ack_by.get_or_insert(now + ACK_DELAY);
        }
        let mut packets = Vec::with_capacity(opened.packets.len());
        for packet in opened.packets {
            match packet.into_fragment() {
                // A fragment that does not fit affects only its own packet, which the peer sends again.
                Ok(piece) => packets.extend(peer.reassembler.accept(now, piece).ok().flatten()),
                Err(whole) => packets.push(whole),
            }
        }
        Ok(packets)
    }

    /// Sends an empty datagram if an acknowledgement is due.
    fn acknowledge(&mut self, now: Moment, view: View, to: NodeId, out: &mut Vec<Effect>) {
        let current = self.peers.get_mut(&to).and_then(|peer| peer.current.as_mut());
        if let Some(current) = current.filter(|current| current.link.ack_due()) {
            current.say(now, view, to, &[], out);
        }
    }

    /// Handles a hello, which has the peer's boot id and the boot id of this server that the peer knows. A
    /// hello that echoes our current boot id comes from a peer that runs now; its boot is adopted if the
    /// latest known one allows it ([`KnownBoot::allows`]). A replayed hello names an earlier boot of this
    /// server or of the peer, and changes nothing. A boot that was never current here, and that the latest
    /// known one does not allow, runs on an old copy of the peer's directory. A peer that does not know our
    /// boot id is sent a hello.
    fn on_hello(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        datagram: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), RefusedDatagram> {
        let peer = self.peers.get_mut(&from).ok_or(RefusedDatagram::Cluster)?;
        let boot_id = PeerHello::peek(datagram).map_err(DecodeError::refused)?;
        let key = self.keys.peer_hello((from, boot_id), self.me);
        let hello = PeerHello::open(&key, datagram).map_err(DecodeError::refused)?;
        let knows_us = hello.yours == Some(self.boot_id);
        if hello.epoch != Epoch::FIRST {
            // Only a hello that echoes our boot id is known not to be a replay, so the peer is told that id.
            if knows_us {
                out.push(Effect::OtherEpoch { server: from, epoch: hello.epoch });
            } else {
                self.say_hello(now, from, Some(boot_id), out);
            }
            return Err(RefusedDatagram::Cluster);
        }
        let latest = peer.latest();
        let allowed = latest.allows(incarnation, boot_id);
        let adopts = allowed && peer.current.as_ref().is_none_or(|current| current.boot_id != boot_id);
        let replayed = peer.earlier.contains(&boot_id);
        if knows_us && !allowed && !replayed {
            out.push(Effect::StaleIncarnation { server: from, incarnation, latest: latest.incarnation });
        }
        if knows_us && adopts {
            let boot = KnownBoot { incarnation, boot_id: Some(boot_id) };
            out.push(Effect::BootAdopted { peer: from, boot });
            if let Some(current) = &peer.current {
                peer.next_number = current.link.next_number();
                peer.earlier.push_back(current.boot_id);
                if peer.earlier.len() > EARLIER_MAX {
                    peer.earlier.pop_front();
                }
            }
            // This is another process of the peer: acks and fragments of the old one do not apply to it.
            let (here, there) = ((self.me, self.boot_id), (from, boot_id));
            let send = self.keys.peer(here, there, hello.aeads);
            let receive = self.keys.peer(there, here, hello.aeads);
            let link = Link::starting_at(self.envelope, send, peer.next_number);
            let path = PathState::of(&link);
            peer.current = Some(CurrentBoot { boot_id, incarnation, receive, link, ack_by: None, path });
            peer.reassembler = Reassembler::default();
            peer.tracked.clear();
        }
        if adopts || !knows_us {
            self.say_hello(now, from, Some(boot_id), out);
        }
        Ok(())
    }

    fn say_hello(&mut self, now: Moment, to: NodeId, yours: Option<BootId>, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.next_hello_at = now + self.hello_every;
        peer.hellos += 1;
        let envelope = Envelope { class: Class::PeerHello, number: peer.hellos, ..self.envelope };
        let key = self.keys.peer_hello((self.me, self.boot_id), to);
        let aeads = self.keys.ciphers().offered();
        let bytes = PeerHello { aeads, ..PeerHello::new(self.boot_id, yours) }.seal(&key, &envelope);
        out.push(Effect::Send { to, bytes });
    }

    /// Queues a packet for the next [`PeerLinks::flush`]. If its `ops` are given, and it is lost,
    /// [`PeerLinks::losses`] reports them. Without keys it is dropped and not reported: the peer fetches the
    /// entries once keys are established.
    pub(crate) fn send(&mut self, to: NodeId, packet: ToPeer, ops: Option<(Op, Op)>) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.queue.push(packet, ops);
        }
    }

    /// Sends the queued packets, the small ones to every peer before the bulk to any; a hello to each peer
    /// without keys whose time has come; and acks that have waited long enough.
    pub(crate) fn flush(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        let mut unknown = Vec::new();
        for (to, peer) in &mut self.peers {
            let Some(current) = &mut peer.current else {
                peer.queue.clear();
                if now >= peer.next_hello_at {
                    unknown.push(*to);
                }
                continue;
            };
            let small = peer.queue.take_small();
            let ack = current.ack_by.is_some_and(|at| at <= now) && !peer.queue.has_bulk();
            if ack || !small.is_empty() {
                current.say(now, view, *to, &small, out);
            }
        }
        for to in unknown {
            self.say_hello(now, to, None, out);
        }
        for (to, peer) in &mut self.peers {
            let Some(current) = &mut peer.current else { continue };
            while let Some(Batch { packets, ops }) = peer.queue.next_batch(current.link.packets_max()) {
                self.tokens += 1;
                current.ack_by = None;
                peer.tracked.insert(self.tokens, ops);
                let (token, more) = (Some(self.tokens), peer.queue.has_bulk());
                let mut datagrams = Vec::new();
                current.link.transmit_before(
                    now,
                    view,
                    &packets,
                    token,
                    more,
                    &mut Buffers::default(),
                    &mut datagrams,
                );
                out.extend(datagrams.into_iter().map(|bytes| Effect::Send { to: *to, bytes }));
            }
            let path = PathState::of(&current.link);
            if current.link.path_rests(now) && path != current.path {
                current.path = path;
                out.push(Effect::Path { peer: *to, path });
            }
        }
    }

    /// Returns the ops that were given to [`PeerLinks::send`] and are considered lost.
    pub(crate) fn losses(&mut self, now: Moment) -> Vec<(NodeId, (Op, Op))> {
        let mut lost = Vec::new();
        for (id, peer) in &mut self.peers {
            let Some(current) = &mut peer.current else { continue };
            if current.link.next_deadline().is_some_and(|at| at <= now) {
                current.link.on_deadline(now);
            }
            while let Some(event) = current.link.poll_event() {
                match event {
                    LinkEvent::Acked(token) => drop(peer.tracked.remove(&token)),
                    LinkEvent::Lost(token) => {
                        lost.extend(peer.tracked.remove(&token).into_iter().flatten().map(|ops| (*id, ops)));
                    }
                }
            }
        }
        lost
    }

    /// Bytes that the link to `peer` accepts now; zero before keys are established.
    pub(crate) fn room(&self, peer: NodeId) -> usize {
        self.link(peer).map_or(0, Link::room)
    }

    /// Bytes for packets in a datagram to `peer`, as long as the path carries as far as is known.
    pub(crate) fn packets_max(&self, peer: NodeId) -> usize {
        self.link(peer).map_or(PACKETS_MAX, Link::packets_max)
    }

    fn link(&self, peer: NodeId) -> Option<&Link> {
        Some(&self.peers.get(&peer)?.current.as_ref()?.link)
    }

    /// The latest time at which [`PeerLinks::losses`] and [`PeerLinks::flush`] are wanted; none without
    /// peers.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let deadline = |peer: &Peer| match &peer.current {
            Some(current) => current.link.next_deadline().into_iter().chain(current.ack_by).min(),
            None => Some(peer.next_hello_at),
        };
        self.peers.values().filter_map(deadline).min()
    }
}

/// Returns true if the packet came in a datagram that its sender tracks, and wants acknowledged.
fn is_tracked(packet: &ToPeer) -> bool {
    use ToPeer::{Entries, Fragment, Ping, SnapshotChunk};
    matches!(packet, Entries(_) | SnapshotChunk(_) | Fragment(_) | Ping)
}

/// Returns true if the packets would give the journal more to do.
fn carries_entries(packets: &[ToPeer]) -> bool {
    packets.iter().any(|packet| matches!(packet, ToPeer::Entries(_) | ToPeer::Fragment(_)))
}
