//! State of the servers: their answers to STATUS, the changes of their roles, and the rate of deliveries.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{NodeId, Op, RoleName, ServerStatus, View};

use super::event::Now;

/// Number of role changes that are kept.
const CHANGES_MAX: usize = 100;

/// Number of seconds that the sparkline covers.
pub(crate) const SECONDS: usize = 240;

/// The last known state of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) addr: SocketAddr,
    /// Its last known role. `None` if it never answered.
    pub(crate) role: Option<RoleName>,
    pub(crate) view: View,
    pub(crate) applied: Op,
    pub(crate) lag: u64,
    pub(crate) round_trip: Option<Duration>,
    /// Time of its last answer, since the program started.
    pub(crate) heard: Option<Duration>,
    /// True if it answered the last query.
    pub(crate) answers: bool,
}

/// A change of a server's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) unix_ms: u64,
    pub(crate) node: NodeId,
    /// The new role. `None` if the server stopped answering.
    pub(crate) role: Option<RoleName>,
    pub(crate) view: View,
}

/// Everything known of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) servers: BTreeMap<NodeId, Seen>,
    /// Changes in the order of time, the newest last.
    pub(crate) changes: VecDeque<Change>,
    /// Number of notifications in each second, the current second last.
    rates: VecDeque<u32>,
    second: u64,
}

impl Cluster {
    /// Number of servers that answered the last query.
    pub(crate) fn answering(&self) -> usize {
        self.servers.values().filter(|seen| seen.answers).count()
    }

    /// Takes the answers of a round in which every server was queried.
    pub(crate) fn pulse(&mut self, now: Now, servers: Vec<ServerStatus>) {
        for server in servers {
            let before = self.servers.get(&server.node);
            let was = before.and_then(|seen| seen.role.filter(|_| seen.answers));
            let seen = match (&server.answer, before) {
                (Some(status), _) => Seen {
                    addr: server.addr,
                    role: Some(status.role),
                    view: status.view,
                    applied: status.applied,
                    lag: status.lag,
                    round_trip: server.round_trip,
                    heard: Some(now.since_start),
                    answers: true,
                },
                (None, Some(seen)) => Seen { answers: false, round_trip: None, ..seen.clone() },
                (None, None) => Seen {
                    addr: server.addr,
                    role: None,
                    view: View::ZERO,
                    applied: Op::ZERO,
                    lag: 0,
                    round_trip: None,
                    heard: None,
                    answers: false,
                },
            };
            let is = seen.role.filter(|_| seen.answers);
            if is != was {
                self.changes.push_back(Change {
                    unix_ms: now.unix_ms,
                    node: server.node,
                    role: is,
                    view: seen.view,
                });
                if self.changes.len() > CHANGES_MAX {
                    self.changes.pop_front();
                }
            }
            self.servers.insert(server.node, seen);
        }
    }

    /// Records that no server answered.
    pub(crate) fn silence(&mut self, now: Now) {
        let all = self.servers.iter();
        let silent = all.map(|(node, seen)| ServerStatus {
            node: *node,
            addr: seen.addr,
            answer: None,
            round_trip: None,
        });
        let silent = silent.collect();
        self.pulse(now, silent);
    }

    /// Number of ops that a server is behind the most advanced one.
    pub(crate) fn behind(&self, seen: &Seen) -> u64 {
        let most = self.servers.values().map(|seen| seen.applied.0).max().unwrap_or(0);
        most.saturating_sub(seen.applied.0)
    }

    /// Round trip to this server in the last round of queries. `None` if it did not answer.
    pub(crate) fn round_trip(&self, addr: SocketAddr) -> Option<Duration> {
        self.servers.values().find(|seen| seen.addr == addr)?.round_trip
    }

    /// Counts a delivered notification.
    pub(crate) fn delivered(&mut self, now: Now) {
        self.on_time(now);
        if let Some(last) = self.rates.back_mut() {
            *last += 1;
        }
    }

    /// Begins a new count for each whole second that has passed. Returns true if there was one.
    pub(crate) fn on_time(&mut self, now: Now) -> bool {
        let second = now.since_start.as_secs();
        let passed = if self.rates.is_empty() { 1 } else { second.saturating_sub(self.second) };
        for _ in 0..passed.min(SECONDS as u64) {
            self.rates.push_back(0);
        }
        self.rates.drain(..self.rates.len().saturating_sub(SECONDS));
        self.second = second;
        passed > 0
    }

    /// Deliveries in each of the last seconds, oldest first, without the current one, which is not over.
    pub(crate) fn rates(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator {
        self.rates.iter().copied().take(self.rates.len().saturating_sub(1)).collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::{at, status};

    #[test]
    fn changes_of_role_and_silence_are_remembered_once() {
        let mut cluster = Cluster::default();
        let all = |role| vec![status(1, Some(RoleName::Backup), 40), status(2, role, 41)];
        cluster.pulse(at(1), all(Some(RoleName::Primary)));
        cluster.pulse(at(2), all(Some(RoleName::Primary)));
        cluster.pulse(at(3), all(None));
        cluster.pulse(at(4), all(None));
        cluster.pulse(at(5), all(Some(RoleName::Backup)));
        let told: Vec<_> = cluster.changes.iter().map(|change| (change.node.0, change.role)).collect();
        assert_eq!(
            told,
            [
                (1, Some(RoleName::Backup)),
                (2, Some(RoleName::Primary)),
                (2, None),
                (2, Some(RoleName::Backup))
            ]
        );
        assert_eq!(cluster.behind(&cluster.servers[&NodeId(1)]), 1);
        cluster.silence(at(6));
        assert!(cluster.servers.values().all(|seen| !seen.answers));
    }

    #[test]
    fn deliveries_are_counted_by_the_second() {
        let mut cluster = Cluster::default();
        for second in [0, 0, 0, 2] {
            cluster.delivered(at(second));
        }
        assert!(cluster.on_time(at(3)));
        assert!(!cluster.on_time(at(3)));
        assert_eq!(cluster.rates().collect::<Vec<_>>(), [3, 0, 1]);
        cluster.on_time(at(100_000));
        assert_eq!(cluster.rates().len(), SECONDS - 1);
    }
}
