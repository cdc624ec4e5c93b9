//! Asks servers for their status, as `recado status` does: HELLO, then an INITIATION with STATUS.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use parking_lot::Mutex;
use recado_client::machine::handshake::{FromServer, HandshakeClient, Identity};
use recado_proto::DATAGRAM_BASE;
use recado_proto::entropy::Entropy;
use recado_proto::id::{ClusterId, Moment};
use recado_proto::noise;
use recado_proto::packet::{Answer, AnswerKind, Query, QueryId, QueryKind, Status, ToClient, ToServer};
use recado_proto::seal::{ClusterKeys, Key};
use recado_sys::clock::MachineClock;

/// The time in which one server must answer a STATUS. After it the server counts as silent.
const ANSWER_PATIENCE: Duration = Duration::from_millis(150);

/// One socket, and the handshake state for each server that it has asked.
#[derive(Debug)]
pub(crate) struct StatusClient {
    clock: MachineClock,
    socket: UdpSocket,
    identity: Identity,
    known: Mutex<(Entropy, BTreeMap<SocketAddr, HandshakeClient>)>,
}

impl StatusClient {
    pub(crate) fn new(cluster: ClusterId, secret: &[u8; 32]) -> StatusClient {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let cluster_key = noise::public(&ClusterKeys::new(secret).cluster_private());
        let mut entropy = Entropy::new(seed);
        let identity = Identity { cluster, cluster_key, private: Key::new(entropy.bytes()) };
        StatusClient {
            clock: MachineClock::start(),
            socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap(),
            identity,
            known: Mutex::new((entropy, BTreeMap::new())),
        }
    }

    /// Returns the status of the server at this address, or `None` if the server does not answer in time.
    pub(crate) fn status(&self, server: SocketAddr) -> Option<Status> {
        let deadline: Moment = self.clock.now() + ANSWER_PATIENCE;
        let (entropy, initiators) = &mut *self.known.lock();
        let initiator = initiators.entry(server).or_default();
        // Unique in this process, so that a late answer to an earlier query does not match.
        let query = QueryId(self.clock.now().0);
        let status = ToServer::Query(Query::new(query, QueryKind::Status));
        let initiation = initiator.initiation(self.clock.now(), &self.identity, &status, entropy);
        let first = initiation.unwrap_or_else(|| initiator.hello(self.identity.cluster, entropy));
        self.socket.send_to(&first, server).ok()?;
        let mut bytes = [0; DATAGRAM_BASE];
        loop {
            let now = self.clock.now();
            let left = deadline.since(now);
            if left.is_zero() {
                // The server may have restarted, so its old cookie would fail. The next query begins with a
                // HELLO.
                *initiator = HandshakeClient::default();
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok((length, from)) = self.socket.recv_from(&mut bytes) else { continue };
            if from != server {
                continue;
            }
            match initiator.take(now, &bytes[..length]) {
                None => {}
                Some(FromServer::Greeting(_)) => {
                    let initiation = initiator.initiation(now, &self.identity, &status, entropy)?;
                    self.socket.send_to(&initiation, server).ok()?;
                }
                Some(FromServer::Answer(opened)) => {
                    for packet in opened.packets {
                        if let ToClient::Answer(Answer { id, kind: AnswerKind::Status(status), .. }) = packet
                            && id == query
                        {
                            return Some(status);
                        }
                    }
                }
            }
        }
    }
}
