//! The other servers: when each was last heard, whether its port refuses, and its latest known boot.

use std::time::Duration;

use recado_proto::id::{Incarnation, KnownBoot, Moment, NodeId};

use super::journaling::Written;
use super::{Effect, ReplicaManager, Role, Task};

/// What is known of another server.
#[derive(Debug)]
struct Peer {
    id: NodeId,
    /// When it was last heard.
    heard: Moment,
    /// True if its port has refused a datagram since.
    refused: bool,
    /// The latest boot heard of, the one last given to the journal, and the durable one.
    latest: KnownBoot,
    journaled: KnownBoot,
    durable: KnownBoot,
}

/// The other servers of the cluster.
#[derive(Debug)]
pub(super) struct Peers(Vec<Peer>);

impl Peers {
    /// The members but `me`, none heard yet, with the boots that are `known` durably.
    pub(super) fn new(me: NodeId, members: &[NodeId], known: &[(NodeId, KnownBoot)]) -> Peers {
        let peer = |id: NodeId| {
            let known = known.iter().find(|(peer, _)| *peer == id);
            let latest = known.map_or_else(KnownBoot::default, |(_, boot)| *boot);
            Peer { id, heard: Moment(0), refused: false, latest, journaled: latest, durable: latest }
        };
        Peers(members.iter().filter(|id| **id != me).map(|id| peer(*id)).collect())
    }

    fn get_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.0.iter_mut().find(|peer| peer.id == id)
    }

    /// A packet of this incarnation came. Returns false if the incarnation is over.
    fn heard(&mut self, now: Moment, id: NodeId, incarnation: Incarnation) -> bool {
        let Some(peer) = self.get_mut(id).filter(|peer| incarnation >= peer.latest.incarnation) else {
            return false;
        };
        (peer.heard, peer.refused) = (now, false);
        true
    }

    /// A boot of `id` was heard of. Returns true if its incarnation is higher than any before.
    fn learn(&mut self, id: NodeId, boot: KnownBoot) -> bool {
        let Some(peer) = self.get_mut(id) else { return false };
        let before = peer.latest.incarnation;
        peer.latest.learn(boot) && peer.latest.incarnation > before
    }

    fn note_refused(&mut self, id: NodeId) {
        if let Some(peer) = self.get_mut(id) {
            peer.refused = true;
        }
    }

    /// What was learnt of boots since the last call, for the journal.
    fn take_unjournaled(&mut self) -> Vec<(NodeId, KnownBoot)> {
        let learnt = self.0.iter_mut().filter(|peer| peer.latest != peer.journaled);
        let learnt = learnt.map(|peer| {
            peer.journaled = peer.latest;
            (peer.id, peer.latest)
        });
        learnt.collect()
    }

    /// All boots that the journal was given are durable.
    pub(super) fn mark_durable(&mut self) {
        self.0.iter_mut().for_each(|peer| peer.durable = peer.journaled);
    }

    /// Returns true if the latest boot of a server is durable here, with its boot id if that is known, and
    /// has this incarnation or a higher one.
    pub(super) fn knows_durably(&self, id: NodeId, incarnation: Incarnation) -> bool {
        let known = |peer: &Peer| peer.durable == peer.latest && peer.durable.incarnation >= incarnation;
        self.0.iter().any(|peer| peer.id == id && known(peer))
    }

    /// The highest durable incarnation of each server that was heard of.
    pub(super) fn incarnations(&self) -> Vec<(NodeId, Incarnation)> {
        let known = self.0.iter().filter(|peer| peer.durable.incarnation > Incarnation(0));
        known.map(|peer| (peer.id, peer.durable.incarnation)).collect()
    }

    /// The number of servers that were heard less than `within` ago.
    pub(super) fn heard_within(&self, now: Moment, within: Duration) -> usize {
        self.0.iter().filter(|peer| now.since(peer.heard) < within).count()
    }

    /// Returns true if the port of `id` has refused a datagram since it was last heard.
    pub(super) fn refuses(&self, id: NodeId) -> bool {
        self.0.iter().any(|peer| peer.id == id && peer.refused)
    }
}

impl ReplicaManager {
    /// A packet came from `peer`. Returns false if it is of an older incarnation.
    pub(super) fn heard_from(
        &mut self,
        now: Moment,
        peer: NodeId,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.heard_of(now, peer, incarnation.into(), out);
        self.peers.heard(now, peer, incarnation)
    }

    /// Another server, or the peer itself, named this boot of `peer`.
    pub(super) fn heard_of(&mut self, now: Moment, peer: NodeId, boot: KnownBoot, out: &mut Vec<Effect>) {
        if self.peers.learn(peer, boot) {
            out.push(Effect::PeerStarted);
            self.drop_older_incarnation(now, peer, out);
        }
    }

    /// Gives the journal what was learnt of boots since the last call.
    pub(super) fn journal_known(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let known = self.peers.take_unjournaled();
        if !known.is_empty() {
            self.journal(now, Task::Know(known), Written::Known, out);
        }
    }

    /// Drops the acknowledgements or the promise of an older incarnation. That server may have lost its
    /// disk since, and repeats those that still hold.
    fn drop_older_incarnation(&mut self, now: Moment, peer: NodeId, out: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Primary(primary) => primary.forget_acks_of(peer),
            Role::Candidate(_) => self.forget_promise_of(now, peer, out),
            Role::Learner(_) | Role::Backup(_) => {}
        }
    }

    pub(super) fn on_port_refused(&mut self, now: Moment, peer: NodeId) {
        self.peers.note_refused(peer);
        if self.known_primary() == Some(peer) {
            self.detector.refused();
            if let Role::Backup(backup) = &mut self.role {
                backup.ping_now(now);
            }
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.mark_absent(peer);
        }
    }
}
