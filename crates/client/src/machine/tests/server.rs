//! The servers that the tests of the machine and of its handshake play. The fuzz targets and the simulator
//! run the machine against the responder of real servers.

use std::net::SocketAddr;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::handshake::{self, COOKIE_LEN, Cookie, Handshake, Retry};
use recado_proto::id::{BootId, ClusterId, DeviceKey, Incarnation, NodeId, SessionId};
use recado_proto::noise::{self, Prologue, Reply};
use recado_proto::packet::ToServer;
use recado_proto::seal::ClusterKeys;
use recado_proto::version;

/// Identity and keys with which a server answers handshakes.
#[derive(Clone)]
pub(in crate::machine) struct HandshakeConfig {
    pub(in crate::machine) cluster: ClusterId,
    pub(in crate::machine) me: NodeId,
    pub(in crate::machine) incarnation: Incarnation,
    pub(in crate::machine) boot_id: BootId,
    pub(in crate::machine) keys: ClusterKeys,
}

/// Identity of server `me` in its boot with this incarnation, in the cluster that tests agree on.
pub(in crate::machine) fn handshake_config(me: u16, incarnation: u64) -> HandshakeConfig {
    let mut boot_id = [me as u8; 16];
    boot_id[8..].copy_from_slice(&incarnation.to_be_bytes());
    HandshakeConfig {
        cluster: ClusterId(7),
        me: NodeId(me),
        incarnation: Incarnation(incarnation),
        boot_id: BootId(boot_id),
        keys: ClusterKeys::new(&[0x5e; 32]),
    }
}

/// Outcome of a handshake datagram.
#[derive(Debug)]
pub(in crate::machine) enum HandshakeEvent {
    /// A RETRY.
    Retry(Vec<u8>),
    /// A valid INITIATION: the keys for its answer, the device's key, and the packet in it.
    Initiation { reply: Reply, key: DeviceKey, packet: Box<ToServer> },
}

/// One boot of a server, which answers handshakes without limits.
pub(in crate::machine) struct HandshakeServer {
    config: HandshakeConfig,
    entropy: Entropy,
}

impl HandshakeServer {
    pub(in crate::machine) fn new(config: HandshakeConfig) -> HandshakeServer {
        HandshakeServer { config, entropy: Entropy::new([7; 32]) }
    }

    /// Handles a datagram of the class Handshake; none if it gets no answer.
    pub(in crate::machine) fn receive(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<HandshakeEvent> {
        let HandshakeConfig { cluster, me, incarnation, boot_id, ref keys } = self.config;
        match Handshake::read(datagram).ok()? {
            (envelope, Handshake::Hello(echo)) if [cluster, ClusterId(0)].contains(&envelope.cluster) => {
                let envelope = Envelope {
                    class: Class::Handshake,
                    cluster,
                    session: SessionId::default(),
                    node: Some(me),
                    incarnation,
                    number: 0,
                };
                let cluster_key = noise::public(&keys.cluster_private());
                let retry = Retry { echo, cookie: self.cookie(from), boot_id, cluster_key };
                Some(HandshakeEvent::Retry(handshake::retry(&envelope, &retry)))
            }
            (envelope, Handshake::Initiation { cookie, message }) if envelope.cluster == cluster => {
                if cookie != self.cookie(from) {
                    return None;
                }
                let (prologue, private) = (Prologue { cluster, server: me, boot_id }, keys.cluster_private());
                let (key, load, reply) =
                    noise::answer(prologue, &private, message, &mut self.entropy).ok()?;
                let mut packets = handshake::unload(&load).ok()?;
                assert_eq!(packets.len(), 1, "there is one answer");
                Some(HandshakeEvent::Initiation { reply, key, packet: Box::new(packets.swap_remove(0)) })
            }
            _ => None,
        }
    }

    /// The cookie of an address.
    fn cookie(&self, from: SocketAddr) -> Cookie {
        let mut cookie = [self.config.me.0 as u8; COOKIE_LEN];
        cookie[..2].copy_from_slice(&from.port().to_be_bytes());
        cookie
    }
}

/// One boot of a server, and its side of the handshake.
pub(super) struct TestServer {
    pub(super) handshake_config: HandshakeConfig,
    pub(super) server: HandshakeServer,
    /// The keys for the answer to the last initiation, while it has none.
    pub(super) reply: Option<Reply>,
    /// True if it drops every datagram.
    pub(super) deaf: bool,
    /// True if it speaks version 2 of the protocol.
    pub(super) upgraded: bool,
    /// The number of RETRYs that an attacker, who sees each HELLO, sends before the server's own; one more
    /// follows it.
    pub(super) forged: u8,
    /// The packet numbers of the session's datagrams that it could open.
    pub(super) heard: Vec<u64>,
}

impl TestServer {
    pub(super) fn new(handshake_config: HandshakeConfig) -> TestServer {
        TestServer {
            server: HandshakeServer::new(handshake_config.clone()),
            handshake_config,
            reply: None,
            deaf: false,
            upgraded: false,
            forged: 0,
            heard: Vec::new(),
        }
    }
}

/// The answer of a server of version 2 to a datagram.
pub(super) fn answer_of_version_2(datagram: &[u8]) -> Option<Vec<u8>> {
    // This version answers one of version 2 so.
    let mut asked = datagram.to_vec();
    asked[2] = 2;
    let mut answer = version::answer(&asked)?;
    *answer.last_mut().unwrap() = 2;
    Some(answer)
}

/// A RETRY to the same HELLO, with a boot id that no server has.
pub(super) fn forged_retry(retry: &[u8], lie: u8) -> Vec<u8> {
    let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(retry) else { panic!("no RETRY") };
    let lie = handshake::Retry { cookie: [lie; 16], boot_id: BootId([lie; 16]), ..retry };
    handshake::retry(&envelope, &lie)
}
