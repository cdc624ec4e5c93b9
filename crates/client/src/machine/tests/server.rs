//! The servers that the tests of the machine and of its handshake play.

use recado::config::Limits;
use recado::server::handshake::HandshakeConfig;
use recado_proto::id::{BootId, ClusterId, Incarnation, NodeId};
use recado_proto::seal::ClusterKeys;

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
        limits: Limits::default(),
    }
}
