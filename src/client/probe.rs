//! STATUS without a session: asks servers how they are, finding all of them from any one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::ClientError;
use crate::id::{ClusterId, Incarnation, Moment, NodeId, SessionId};
use crate::net::{BoundSocket, Inbox};
use crate::server::MachineClock;
use crate::wire::envelope::{self, Envelope, Header};
use crate::wire::packet::{Packet, QueryId, StatusOk};
use crate::wire::{Class, codec};

/// Between two STATUS to a server that has not answered.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for one datagram, so that deadlines are seen in time.
const PATIENCE: Duration = Duration::from_millis(20);

/// How one server of a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which.
    pub node: NodeId,
    /// Where clients reach it.
    pub addr: SocketAddr,
    /// Its answer; none: it gave none in time.
    pub answer: Option<StatusOk>,
    /// From the question that was answered to its answer.
    pub round_trip: Option<Duration>,
}

/// Which cluster answered, and who answered what.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cluster: ClusterId,
    pub(super) servers: Vec<ServerStatus>,
}

/// Asks every server of the cluster how it is, without a session. Any one server's address is
/// enough: the others are learnt from its answer. Ends when all have answered, or after `timeout`.
/// Ascending by id; of several clusters, the one that answers first.
///
/// # Errors
/// [`ClientError::Unreachable`] if nobody answers at all.
pub fn status(servers: &[SocketAddr], timeout: Duration) -> Result<Vec<ServerStatus>, ClientError> {
    Ok(ask(servers, timeout, false)?.servers)
}

/// The cluster and the servers it names, from whoever answers first.
pub(super) fn find(servers: &[SocketAddr], timeout: Duration) -> Result<Found, ClientError> {
    ask(servers, timeout, true)
}

/// An unbound port of the family of these servers.
pub(super) fn bind(servers: &[SocketAddr], patience: Duration) -> Result<BoundSocket, ClientError> {
    let ip = match servers.first() {
        None => return Err(ClientError::NoServers),
        Some(SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Ok(BoundSocket::bind(SocketAddr::new(ip, 0), patience)?)
}

fn ask(servers: &[SocketAddr], timeout: Duration, first_will_do: bool) -> Result<Found, ClientError> {
    let socket = bind(servers, PATIENCE)?;
    let clock = MachineClock::start();
    let mut round = Round::default();
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    loop {
        let now = clock.now();
        if round.is_complete()
            || (first_will_do && round.cluster.is_some())
            || now.since(Moment(0)) >= timeout
        {
            break;
        }
        if now >= ask_at {
            ask_at = now + ASK_EVERY;
            // What is lost is asked again.
            let _ = socket.send(&round.questions(now, servers));
        }
        socket.receive(&mut inbox)?;
        let known = round.members.len();
        for (_, bytes, _) in inbox.datagrams() {
            round.take(clock.now(), bytes);
        }
        if round.members.len() > known {
            // Servers just learnt of need not wait for the next round.
            ask_at = now;
        }
    }
    round.end().ok_or_else(|| ClientError::Unreachable { servers: servers.to_vec(), waited: timeout })
}

/// What is known so far.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    /// When each question was sent, by its number from 1 on.
    asked: Vec<Moment>,
    cluster: Option<ClusterId>,
    members: BTreeMap<NodeId, SocketAddr>,
    answers: BTreeMap<NodeId, (StatusOk, Duration)>,
}

impl Round {
    fn is_complete(&self) -> bool {
        !self.members.is_empty() && self.members.keys().all(|node| self.answers.contains_key(node))
    }

    /// One STATUS to each server that has not answered: first those we were told of, then the members.
    fn questions(&mut self, now: Moment, servers: &[SocketAddr]) -> Vec<(SocketAddr, Vec<u8>)> {
        let unanswered = self.members.iter().filter(|(node, _)| !self.answers.contains_key(node));
        let to: Vec<SocketAddr> = if self.members.is_empty() {
            servers.to_vec()
        } else {
            unanswered.map(|(_, addr)| *addr).collect()
        };
        to.into_iter()
            .map(|to| {
                self.number += 1;
                self.asked.push(now);
                let envelope = Envelope {
                    class: Class::Handshake,
                    cluster: self.cluster.unwrap_or(ClusterId(0)),
                    session: SessionId::default(),
                    node: None,
                    incarnation: Incarnation(0),
                    number: self.number,
                };
                let packet = codec::encode(&Packet::Status(QueryId(self.number)));
                (to, envelope::seal(&envelope, &Header::default(), &[packet]))
            })
            .collect()
    }

    /// Takes an answer; anything else is not for us.
    fn take(&mut self, now: Moment, bytes: &[u8]) {
        let Ok(opened) = envelope::open(bytes) else { return };
        if self.cluster.is_some_and(|known| known != opened.envelope.cluster) {
            return;
        }
        for packet in opened.packets {
            if let Packet::StatusOk(status) = packet
                && let Some(asked) =
                    status.query.0.checked_sub(1).and_then(|at| self.asked.get(usize::try_from(at).ok()?))
            {
                let round_trip = now.since(*asked);
                self.cluster = Some(opened.envelope.cluster);
                self.members.extend(status.members.iter().copied());
                self.answers.insert(status.node, (status, round_trip));
            }
        }
    }

    fn end(mut self) -> Option<Found> {
        let cluster = self.cluster?;
        let servers = self
            .members
            .into_iter()
            .map(|(node, addr)| {
                let (answer, round_trip) = self.answers.remove(&node).unzip();
                ServerStatus { node, addr, answer, round_trip }
            })
            .collect();
        Some(Found { cluster, servers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Op, View};
    use crate::wire::packet::RoleName;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    fn answer(cluster: u64, node: u16, query: u64) -> Vec<u8> {
        let status = StatusOk {
            query: QueryId(query),
            node: NodeId(node),
            role: RoleName::Backup,
            view: View::ZERO,
            applied: Op(1),
            durable: Op(1),
            lag: 0,
            pid: 1,
            incarnation: Incarnation(1),
            uptime_ms: 1,
            members: vec![(NodeId(1), addr(1)), (NodeId(2), addr(2))],
            refused: vec![],
        };
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: ClusterId(cluster),
            session: SessionId::default(),
            node: Some(NodeId(node)),
            incarnation: Incarnation(1),
            number: 1,
        };
        envelope::seal(&envelope, &Header::default(), &[codec::encode(&Packet::StatusOk(status))])
    }

    #[test]
    fn the_other_servers_are_learnt_from_the_first_answer() {
        let mut round = Round::default();
        assert_eq!(
            round.questions(Moment(200), &[addr(9)]).iter().map(|(to, _)| *to).collect::<Vec<_>>(),
            [addr(9)]
        );
        round.take(Moment(700), &answer(7, 1, 1));
        assert!(!round.is_complete());
        assert_eq!(
            round.questions(Moment(200), &[addr(9)]).iter().map(|(to, _)| *to).collect::<Vec<_>>(),
            [addr(2)]
        );
        let found = round.end().unwrap();
        assert_eq!(found.servers.iter().map(|s| s.answer.is_some()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(found.servers[0].round_trip, Some(Duration::from_micros(500)));
    }

    #[test]
    fn junk_unasked_answers_and_other_clusters_are_ignored() {
        let mut round = Round::default();
        round.take(Moment(700), &answer(7, 1, 1));
        assert!(round.cluster.is_none());
        round.questions(Moment(200), &[addr(9)]);
        round.take(Moment(700), b"junk");
        round.take(Moment(700), &answer(7, 1, 1));
        round.take(Moment(700), &answer(8, 2, 1));
        assert!(!round.is_complete());
        round.take(Moment(700), &answer(7, 2, 1));
        assert!(round.is_complete());
    }

    #[test]
    fn nobody_there_is_an_error_that_names_who_was_asked() {
        let silent = BoundSocket::bind(addr(0), PATIENCE).unwrap();
        let error = status(&[silent.addr()], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains(&silent.addr().to_string()));
        assert!(matches!(status(&[], Duration::ZERO), Err(ClientError::NoServers)));
    }
}
