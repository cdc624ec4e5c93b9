//! What an administrator may do, who has the cluster's secret: come in with the key that is derived
//! from it, and change what nobody else may.

use std::net::SocketAddr;
use std::time::Duration;

use super::asker::{self, Asker, Doors};
use super::error::ClientError;
use super::machine::door::{FromDoor, Identity};
use crate::config::secret::ClusterSecret;
use crate::entropy::Entropy;
use crate::id::{ClusterId, Moment, Op};
use crate::random;
use crate::wire::noise;
use crate::wire::packet::{Admin, AdminChange, Answers, Code, Packet, QueryId};
use crate::wire::seal::ClusterKeys;

/// Asks for what only an administrator may change. Returns where it stands in the log. It is asked of all
/// servers until one answers that it is done; if the primary dies over it, the next knows whether it was, and does
/// it once. Asked by another call it is another question.
///
/// # Errors
/// [`ClientError`]: refused (there is no such profile), nobody answered at all, or no primary answered in
/// time; then it may still happen.
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
    let doors = Doors::new(servers, identity, entropy);
    let mut asking = Asking { doors, query, change, heard: false, told: None };
    asker::run(&mut asking, servers, timeout)?;
    match asking.told {
        Some(Ok(op)) => Ok(op),
        Some(Err(code)) => Err(ClientError::Refused(code)),
        None if asking.heard => Err(ClientError::Timeout(timeout)),
        None => Err(ClientError::Unreachable { servers: servers.to_vec(), waited: timeout }),
    }
}

/// What is asked of all servers: the primary answers it.
struct Asking {
    doors: Doors,
    query: QueryId,
    change: AdminChange,
    /// Whether any of them has said anything.
    heard: bool,
    told: Option<Result<Op, Code>>,
}

impl Asker for Asking {
    fn questions(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        let question = Packet::Admin(Admin { query: self.query, change: self.change.clone() });
        self.doors.addrs().into_iter().map(|to| self.doors.ask(now, to, &question)).collect()
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(told) = self.doors.take(now, from, datagram) else { return false };
        self.heard = true;
        let answer = match told {
            FromDoor::Greeting(_) => return true,
            FromDoor::Answer(answer) => answer,
        };
        for packet in answer.packets {
            match packet {
                Packet::AdminOk(ok) if ok.query == self.query => self.told = Some(Ok(ok.op)),
                Packet::Error(error)
                    if error.answers == Answers::Query(self.query) && error.retry_ms == 0 =>
                {
                    self.told = Some(Err(error.code));
                }
                // Not the primary, or not now.
                _ => {}
            }
        }
        false
    }

    fn is_over(&self, _now: Moment) -> bool {
        self.told.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::asker::PATIENCE;
    use super::*;
    use crate::sync::BoundSocket;

    #[test]
    fn where_no_server_runs_its_address_is_told_and_no_election_is_guessed() {
        let silent = BoundSocket::bind(([127, 0, 0, 1], 0).into(), PATIENCE).unwrap();
        let change = AdminChange::Release { name: "alice".parse().unwrap() };
        let secret = ClusterSecret::new([7; 32]);
        let wait = Duration::from_millis(50);
        let told = administer(&[silent.addr()], ClusterId(7), &secret, change, wait).unwrap_err().to_string();
        assert!(told.contains(&silent.addr().to_string()) && !told.contains("electing"), "{told}");
    }
}
