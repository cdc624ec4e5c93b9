//! What the operator is told while this server cannot work: that it has had no primary with a majority for a
//! while, with the peers that it hears, those that it does not, and those whose datagrams it refuses. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_log::ordered::Status;
use recado_proto::envelope::Class;
use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{RefusedDatagram, RoleName};

/// The time without a primary after which that is told. Elections take less, also between cities.
const FIRST: Duration = Duration::from_secs(5);
/// The longest interval between two such warnings. Each is twice the one before.
const LONGEST: Duration = Duration::from_secs(600);
/// A peer counts as heard, or as refused, for so long after its last datagram; and so does a primary.
const HEARD_FOR: Duration = Duration::from_secs(3);

/// Why the datagrams of a peer are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its hellos do not open.
    OtherSecret,
    /// A later start of it is known.
    OldData,
    /// Its log is of another epoch.
    OtherEpoch,
    /// No program has its port.
    NoProgram,
}

impl Refusal {
    const fn as_str(self) -> &'static str {
        match self {
            Refusal::OtherSecret => "another cluster.secret",
            Refusal::OldData => "an old data directory",
            Refusal::OtherEpoch => "another epoch",
            Refusal::NoProgram => "no program has its port",
        }
    }
}

/// What is to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing can be acknowledged, as far as this server knows.
    Lasts {
        /// For how many seconds.
        seconds: u64,
        /// The peers that are heard.
        heard: String,
        /// Those that are not.
        not_heard: String,
        /// Those whose datagrams are refused, with the reasons.
        refused: String,
    },
    /// There is a primary again, after so many seconds.
    Over(u64),
}

/// The last moments of a peer.
#[derive(Debug, Default)]
struct Peer {
    opened: Option<Moment>,
    refused: Option<(Moment, Refusal)>,
}

/// What is known of the outage and of the peers.
#[derive(Debug, Default)]
pub(super) struct Outage {
    peers: BTreeMap<NodeId, Peer>,
    /// Since when there is no primary; none while there is one.
    since: Option<Moment>,
    /// The next warning is due, and the interval before it.
    due: Option<(Moment, Duration)>,
    /// The last commit, and when it was first seen.
    commit: Option<(Op, Moment)>,
}

impl Outage {
    /// A datagram that names this peer, and why it was refused, if it was. Returns true if the peer has
    /// another secret: a hello opens whatever either server has forgotten.
    pub(super) fn on_datagram(
        &mut self,
        now: Moment,
        from: NodeId,
        class: Class,
        refused: Option<RefusedDatagram>,
    ) -> bool {
        let other_secret = class == Class::PeerHello && refused == Some(RefusedDatagram::Seal);
        if other_secret {
            self.on_refused(now, from, Refusal::OtherSecret);
        } else if refused.is_none() {
            self.peers.entry(from).or_default().opened = Some(now);
        }
        other_secret
    }

    /// The datagrams of this peer are not taken, or not to it.
    pub(super) fn on_refused(&mut self, now: Moment, peer: NodeId, refusal: Refusal) {
        self.peers.entry(peer).or_default().refused = Some((now, refusal));
    }

    /// Looks at the state of the log. Call it about once a second.
    pub(super) fn look(
        &mut self,
        now: Moment,
        status: &Status,
        peers: impl Iterator<Item = NodeId>,
    ) -> Option<News> {
        if self.works(now, status) {
            let was_told = self.due.take().is_some_and(|(_, interval)| interval > FIRST);
            let since = self.since.take();
            return since.filter(|_| was_told).map(|since| News::Over(now.since(since).as_secs()));
        }
        let since = *self.since.get_or_insert(now);
        let (due, interval) = *self.due.get_or_insert((since + FIRST, FIRST));
        if now < due {
            return None;
        }
        let next = (interval * 2).min(LONGEST);
        self.due = Some((now + next, next));
        let is_new = |at: Moment| now.since(at) < HEARD_FOR;
        let (mut heard, mut not_heard, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for node in peers {
            let peer = self.peers.entry(node).or_default();
            match (peer.refused.filter(|(at, _)| is_new(*at)), peer.opened.is_some_and(is_new)) {
                (Some((_, refusal)), _) => refused.push(format!("{node} ({})", refusal.as_str())),
                (None, true) => heard.push(node.to_string()),
                (None, false) => not_heard.push(node.to_string()),
            }
        }
        let [heard, not_heard, refused] = [heard, not_heard, refused].map(|names| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        });
        Some(News::Lasts { seconds: now.since(since).as_secs(), heard, not_heard, refused })
    }

    /// Returns true if this server leads and what is logged is committed, or if it hears a primary.
    fn works(&mut self, now: Moment, status: &Status) -> bool {
        if self.commit.is_none_or(|(commit, _)| commit != status.commit) {
            self.commit = Some((status.commit, now));
        }
        match status.role {
            RoleName::Primary => {
                let stands = self.commit.is_some_and(|(_, at)| now.since(at) >= HEARD_FOR);
                status.last <= status.commit || !stands
            }
            _ => status.led.is_some_and(|led| now.since(led) < HEARD_FOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::View;

    use super::*;

    const PEERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

    fn at(second: u64) -> Moment {
        Moment((100 + second) * 1_000_000)
    }

    fn status(role: RoleName, led: Option<Moment>) -> Status {
        Status {
            role,
            view: View::new(1, NodeId(1)),
            active: View::new(1, NodeId(1)),
            accepts: false,
            commit: Op(4),
            last: Op(4),
            durable: Op(4),
            appended_bytes: 0,
            led,
            fetched: None,
        }
    }

    /// The seconds of 300 at which something is told, with the state that `of` gives for each.
    fn told(outage: &mut Outage, of: impl Fn(u64) -> Status) -> Vec<(u64, News)> {
        let looks = (0..300).filter_map(|second| {
            let news = outage.look(at(second), &of(second), PEERS.into_iter())?;
            Some((second, news))
        });
        looks.collect()
    }

    #[test]
    fn a_server_without_a_primary_says_so_soon_and_again_at_growing_intervals() {
        for role in [RoleName::Candidate, RoleName::Learner, RoleName::Backup, RoleName::Isolated] {
            let seconds: Vec<_> = told(&mut Outage::default(), |_| status(role, Some(at(0))))
                .into_iter()
                .map(|(second, _)| second)
                .collect();
            assert_eq!(seconds, [8, 18, 38, 78, 158], "{role:?}");
        }
    }

    #[test]
    fn while_there_is_a_primary_nothing_is_told_and_its_return_is() {
        let led = |second: u64| status(RoleName::Backup, Some(at(second)));
        assert_eq!(told(&mut Outage::default(), led), []);
        assert_eq!(told(&mut Outage::default(), |_| status(RoleName::Primary, None)), []);
        // An election.
        let short = |second: u64| {
            if (10..14).contains(&second) { status(RoleName::Candidate, None) } else { led(second) }
        };
        assert_eq!(told(&mut Outage::default(), short), []);
        let long = |second: u64| {
            if (10..30).contains(&second) { status(RoleName::Candidate, None) } else { led(second) }
        };
        let told = told(&mut Outage::default(), long);
        assert_eq!(told.last(), Some(&(30, News::Over(20))), "{told:?}");
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn a_primary_whose_log_is_not_committed_does_not_work() {
        let waits = |_: u64| Status { last: Op(5), ..status(RoleName::Primary, None) };
        assert!(!told(&mut Outage::default(), waits).is_empty());
        let moves = |second| Status { commit: Op(second), last: Op(second + 9), ..waits(0) };
        assert_eq!(told(&mut Outage::default(), moves), []);
    }

    #[test]
    fn peers_are_told_as_heard_not_heard_or_refused() {
        let mut outage = Outage::default();
        assert_eq!(outage.look(at(0), &status(RoleName::Candidate, None), PEERS.into_iter()), None);
        let now = at(6);
        assert!(!outage.on_datagram(now, NodeId(2), Class::Peer, None));
        // It is sealed for an earlier boot of one of the two.
        assert!(!outage.on_datagram(now, NodeId(3), Class::Peer, Some(RefusedDatagram::Seal)));
        let look = |outage: &mut Outage, now| {
            let news = outage.look(now, &status(RoleName::Candidate, None), PEERS.into_iter());
            let Some(News::Lasts { seconds, heard, not_heard, refused }) = news else {
                panic!("nothing is told")
            };
            (seconds, heard, not_heard, refused)
        };
        let words = |seconds, words: [&str; 3]| {
            let [heard, not_heard, refused] = words.map(str::to_owned);
            (seconds, heard, not_heard, refused)
        };
        assert_eq!(look(&mut outage, now), words(6, ["server-2", "server-3", "none"]));
        let now = at(20);
        assert!(outage.on_datagram(now, NodeId(3), Class::PeerHello, Some(RefusedDatagram::Seal)));
        outage.on_datagram(now, NodeId(2), Class::PeerHello, None);
        outage.on_refused(now, NodeId(2), Refusal::OldData);
        let refused = "server-2 (an old data directory), server-3 (another cluster.secret)";
        assert_eq!(look(&mut outage, now), words(20, ["none", "none", refused]));
    }
}
