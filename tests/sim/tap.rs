//! Opens any datagram of a run, for the trace and the checks. Every secret of a run is derived from its
//! owner.

use std::collections::BTreeMap;

use recado_proto::envelope::{self, Class, Envelope, Opened};
use recado_proto::id::{BootId, DeviceKey, Incarnation, NodeId, SessionId};
use recado_proto::noise;
use recado_proto::packet::{Packet, ToPeer};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::{Aead, Ciphers, ClusterKeys, Direction, Key};

/// The maximum of a server's boots in a run.
const LIVES_MAX: u64 = 64;

/// The ciphers of a program. A key is for 16 numbers here, so that every run sees many phases.
pub fn ciphers(aes: bool, planted: PlantedBug) -> Ciphers {
    Ciphers { aes, phase_bits: 4, planted }
}

/// True if this server has instructions for AES: all but one of three.
pub fn has_aes(server: NodeId) -> bool {
    server.0 % 3 != 2
}

/// The keys derived from the cluster's secret.
pub fn cluster_keys() -> ClusterKeys {
    ClusterKeys::new(&[0x5e; 32]).with(ciphers(true, PlantedBug::default()))
}

/// The key by which clients know the cluster.
pub fn cluster_key() -> [u8; 32] {
    noise::public(&cluster_keys().cluster_private())
}

/// The key of an installation.
pub fn private(installation: u8) -> Key {
    Key::new([installation; 32])
}

/// The public key of an installation.
pub fn public(installation: u8) -> DeviceKey {
    DeviceKey(noise::public(&private(installation)))
}

/// The boot id of a server that runs in this incarnation on an older copy of its directory. Another boot may
/// have had the incarnation before, and no two boots have one boot id.
pub fn boot_id_of_copy(server: NodeId, incarnation: Incarnation) -> BootId {
    boot_id(server, Incarnation(LIVES_MAX + incarnation.0))
}

/// The boot id of a server with this incarnation.
pub fn boot_id(server: NodeId, incarnation: Incarnation) -> BootId {
    let mut boot = [0xb0; 16];
    boot[..2].copy_from_slice(&server.0.to_be_bytes());
    boot[8..].copy_from_slice(&incarnation.0.to_be_bytes());
    BootId(boot)
}

/// Opens datagrams between servers. It remembers the boot in which each receiver was last addressed, because
/// trying every boot each time would dominate the cost of a run.
#[derive(Debug, Default)]
pub struct Tap {
    boots: BTreeMap<NodeId, u64>,
}

impl Tap {
    /// Opens a datagram to another server, for whichever boot of the receiver it was sealed.
    pub fn open(&mut self, datagram: &[u8], to: NodeId) -> Option<Opened<ToPeer>> {
        let envelope = Envelope::peek(datagram).ok().filter(|envelope| envelope.class == Class::Peer)?;
        let from = envelope.node?;
        let senders = [boot_id(from, envelope.incarnation), boot_id_of_copy(from, envelope.incarnation)];
        let keys = cluster_keys();
        let open = |incarnation: u64| {
            let receiver = boot_id(to, Incarnation(incarnation));
            let aes = has_aes(from) && has_aes(to);
            let offered = ciphers(aes, PlantedBug::default()).offered();
            let keys = |sender| keys.peer((from, sender), (to, receiver), offered);
            senders.into_iter().find_map(|sender| envelope::open(&mut keys(sender), datagram).ok())
        };
        let last = *self.boots.entry(to).or_insert(1);
        if let Some(opened) = open(last) {
            return Some(opened);
        }
        let others = (last + 1..=2 * LIVES_MAX).chain(1..last);
        let (boot, opened) = others.into_iter().find_map(|boot| Some((boot, open(boot)?)))?;
        self.boots.insert(to, boot);
        Some(opened)
    }
}

/// Opens a datagram between a client and a server, in a session of this device.
pub fn open_client<P: Packet>(datagram: &[u8], server: NodeId, in_session: &Session) -> Option<Opened<P>> {
    let envelope = Envelope::peek(datagram).ok().filter(|envelope| envelope.class == Class::Client)?;
    let Session { id, device, nonce, aead } = *in_session;
    let secret = cluster_keys().session_secret(id, device, nonce, aead);
    let direction = if envelope.node.is_some() { Direction::ToClient } else { Direction::ToServer };
    (1..=2 * LIVES_MAX).find_map(|incarnation| {
        let boot_id = boot_id(server, Incarnation(incarnation));
        envelope::open(&mut secret.of_session(direction, server, boot_id), datagram).ok()
    })
}

/// Opens a datagram of a server's boot to a client, in a session of this device.
pub fn open_from<P: Packet>(
    datagram: &[u8],
    server: NodeId,
    boot_id: BootId,
    in_session: &Session,
) -> Option<Opened<P>> {
    let Session { id, device, nonce, aead } = *in_session;
    let secret = cluster_keys().session_secret(id, device, nonce, aead);
    envelope::open(&mut secret.of_session(Direction::ToClient, server, boot_id), datagram).ok()
}

/// A session in some server's log: its device, the nonce, and the AEAD.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub id: SessionId,
    pub device: DeviceKey,
    pub nonce: u64,
    pub aead: Aead,
}
