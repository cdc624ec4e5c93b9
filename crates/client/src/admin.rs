//! Changes that only an administrator may make: authenticated with a key that is derived from the cluster's
//! secret.

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::id::{ClusterId, Moment, Op};
use recado_proto::noise;
use recado_proto::packet::{Admin, AdminChange, Answers, Code, QueryId, ToClient, ToServer};
use recado_proto::seal::ClusterKeys;
use recado_sys::random;
use recado_sys::secret::ClusterSecret;

use super::error::ClientError;
use super::handshake_query::{self, HandshakeQuery};
use super::machine::handshake::{FromServer, Identity};
use super::machine::handshakes::HandshakeClients;

/// Makes a change that only an administrator may make, and returns its op. Asks all servers until one of them
/// answers. The query id is logged, so the change is made once even if the primary fails meanwhile: its
/// successor finds the id. Each call draws a new id, so a second call is another change.
///
/// # Errors
/// [`ClientError`]: the change was refused (there is no such profile), no server answered at all, or no
/// primary answered in time. In the last case the change may still be made.
pub fn administer(
    servers: &[SocketAddr],
    cluster: ClusterId,
    secret: &ClusterSecret,
    change: AdminChange,
    timeout: Duration,
) -> Result<Op, ClientError> {
    let keys = ClusterKeys::new(secret.as_bytes());
    let identity = Identity {
        cluster,
        cluster_key: noise::public(&keys.cluster_private()),
        private: keys.admin_private(),
    };
    let mut entropy = Entropy::new(random::bytes()?);
    let query = QueryId(entropy.number());
    let initiators = HandshakeClients::new(servers, identity, entropy);
    let mut asking = AdminQuery { initiators, query, change, heard: false, result: None };
    handshake_query::run(&mut asking, servers, timeout)?;
    match asking.result {
        Some(Ok(op)) => Ok(op),
        Some(Err(code)) => Err(ClientError::Refused(code)),
        None if asking.heard => Err(ClientError::Timeout(timeout)),
        None => Err(ClientError::unanswered(servers, timeout, asking.initiators.other_version())),
    }
}

/// A query that goes to all servers; the primary answers it.
struct AdminQuery {
    initiators: HandshakeClients,
    query: QueryId,
    change: AdminChange,
    /// True once any server has answered.
    heard: bool,
    result: Option<Result<Op, Code>>,
}

impl HandshakeQuery for AdminQuery {
    fn datagrams(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let packet = ToServer::Admin(Admin { query: self.query, change: self.change.clone() });
        self.initiators.addrs().into_iter().map(|to| self.initiators.datagram_to(now, to, &packet)).collect()
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(received) = self.initiators.take(now, from, datagram) else { return false };
        self.heard = true;
        let answer = match received {
            FromServer::Greeting(_) => return true,
            FromServer::Answer(answer) => answer,
        };
        for packet in answer.packets {
            match packet {
                ToClient::AdminOk(ok) if ok.query == self.query => self.result = Some(Ok(ok.op)),
                ToClient::Error(error)
                    if error.answers == Answers::Query(self.query) && error.retry_ms == 0 =>
                {
                    self.result = Some(Err(error.code));
                }
                // The server is not the primary, or refuses for a passing reason.
                _ => {}
            }
        }
        false
    }

    fn is_over(&self, _now: Moment) -> bool {
        self.result.is_some()
    }
}

#[cfg(test)]
mod tests {
    use recado_sys::sync::BoundSocket;

    use super::super::handshake_query::PATIENCE;
    use super::*;

    #[test]
    fn the_error_without_a_running_server_names_the_address_and_no_election() {
        let silent = BoundSocket::bind(([127, 0, 0, 1], 0).into(), PATIENCE).unwrap();
        let change = AdminChange::Release { name: "alice".parse().unwrap() };
        let secret = ClusterSecret::new([7; 32]);
        let wait = Duration::from_millis(50);
        let message =
            administer(&[silent.addr()], ClusterId(7), &secret, change, wait).unwrap_err().to_string();
        assert!(message.contains(&silent.addr().to_string()) && !message.contains("electing"), "{message}");
    }
}
