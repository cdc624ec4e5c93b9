//! The surroundings of the bully engine: a journal, and the other members of the cluster.

use recado_log::bully::{self, Bully, Report, Task};
use recado_log::journal::{Meta, Recovered};
use recado_proto::Link;
use recado_proto::envelope::{self, Class, Envelope, Opened, PeerHello};
use recado_proto::seal::PacketKeys;

use super::*;
use crate::server::engine::{self, BootIdentity};

/// A peer of the server, simulated by the test.
pub(super) struct Other {
    link: Link,
    /// The keys that the server seals with for the peer.
    receive: PacketKeys,
}

impl Other {
    fn new(from: NodeId) -> Other {
        let (keys, boot_id) = (handshake_config(ME.0, 1).keys, handshake_config(from.0, 1).boot_id);
        let me = (ME, handshake_config(ME.0, 1).boot_id);
        let envelope = Envelope { class: Class::Peer, number: 0, ..envelope_of(from) };
        Other {
            link: Link::new(envelope, keys.peer((from, boot_id), me, 0)),
            receive: keys.peer(me, (from, boot_id), 0),
        }
    }
}

pub(super) fn envelope_of(from: NodeId) -> Envelope {
    Envelope {
        class: Class::PeerHello,
        cluster: ClusterId(7),
        session: SessionId::default(),
        node: Some(from),
        incarnation: Incarnation(1),
        number: 1,
    }
}

/// A journal that reports at once, unless `owes` is set, and two peers, of which the test plays one at most.
#[derive(Default)]
pub(super) struct Peers {
    others: BTreeMap<NodeId, Other>,
    pub(super) refused: Vec<RefusedDatagram>,
    pub(super) owes: bool,
    /// The number of the last task of the journal.
    pub(super) written: u64,
    pub(super) sent: Vec<(NodeId, Opened<ToPeer>)>,
    pub(super) reads: usize,
    /// Peers that came with an earlier incarnation: the server, its incarnation, and the latest seen.
    pub(super) earlier: Vec<(u16, u64, u64)>,
    pub(super) promises: usize,
    /// What has arrived of a snapshot.
    file: Vec<u8>,
    /// The entries whose kind was refused: the leader's view, the op and the kind.
    pub(super) entries_refused: Vec<(View, Op, EntryKind)>,
    /// Snapshots with a wrong checksum: their senders and their ops.
    pub(super) damaged: Vec<(NodeId, Op)>,
}

impl Surroundings for Peers {
    type Log = Bully;

    fn rig() -> Rig<Peers> {
        Rig::new(true)
    }

    fn perform(&mut self, clock: Clock, effect: bully::Effect) -> Option<bully::Input> {
        match effect {
            bully::Effect::Peer { to, bytes } => {
                if Envelope::peek(&bytes).unwrap().class == Class::Peer {
                    let other = self.others.entry(to).or_insert_with(|| Other::new(to));
                    let opened = envelope::open(&mut other.receive, &bytes).unwrap();
                    other.link.receive(clock.now, opened.envelope.number, opened.header.ack.as_ref());
                    self.sent.push((to, opened));
                }
                None
            }
            bully::Effect::Refused(reason) => {
                self.refused.push(reason);
                None
            }
            bully::Effect::Journal { number, task } => {
                self.promises += usize::from(matches!(task, Task::Promise(_)));
                self.written = number;
                (!self.owes).then_some(bully::Input::Journaled(number))
            }
            bully::Effect::ReadSnapshot { to, .. } => {
                self.reads += 1;
                (!self.owes).then_some(bully::Input::SnapshotRead { to, piece: None })
            }
            bully::Effect::StoreSnapshot { transfer, piece } => {
                let upto = piece.offset + piece.bytes.len() as u64;
                Some(bully::Input::SnapshotStored { transfer, upto })
            }
            bully::Effect::DropSnapshot(_) => None,
            bully::Effect::StaleIncarnation { server, incarnation, latest } => {
                self.earlier.push((server.0, incarnation.0, latest.0));
                None
            }
            bully::Effect::OtherEpoch { .. } | bully::Effect::Path { .. } => None,
            bully::Effect::Report(Report::EntryRefused { view, op, kind }) => {
                self.entries_refused.push((view, op, kind));
                None
            }
            bully::Effect::Report(Report::SnapshotDamaged { donor, op }) => {
                self.damaged.push((donor, op));
                None
            }
            bully::Effect::Report(_) => None,
        }
    }

    fn whole(&mut self, effect: &bully::Effect) -> Option<(u64, Op, View, Vec<u8>)> {
        let bully::Effect::StoreSnapshot { transfer, piece } = effect else { return None };
        if piece.offset == 0 {
            self.file.clear();
        }
        self.file.extend_from_slice(&piece.bytes);
        (self.file.len() as u64 == piece.total)
            .then(|| (*transfer, piece.op, piece.view, std::mem::take(&mut self.file)))
    }

    /// Peer 1 agrees to all requests of the server.
    fn lead(rig: &mut Rig<Peers>) {
        rig.lead();
    }

    fn answer(rig: &mut Rig<Peers>) {
        rig.answer_as_a_backup();
    }
}

impl Rig<Peers> {
    pub(super) fn new(voter: bool) -> Rig<Peers> {
        let config = config();
        let members = config.cluster.members.iter().map(|member| member.id);
        let meta = Meta { voter, incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, members) };
        let recovered = Recovered { meta, snapshot: None, entries: Vec::new(), commit: Op::ZERO, lost: None };
        let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
        let identity = BootIdentity { id, keys, seed: 1 };
        let mut out = Vec::new();
        let service = empty(&config);
        let node = engine::start(config, recovered, service, identity, Self::START, &mut out).unwrap();
        let mut rig = Rig::around(node, Peers::default(), out);
        [1, 3].into_iter().for_each(|from| rig.meet(NodeId(from)));
        rig
    }

    pub(super) fn datagram(&mut self, datagram: Vec<u8>) {
        self.input(Input::Log(bully::Input::Peer { datagram, behind: false }));
    }

    /// A peer that knows the server's boot id sends a hello.
    fn meet(&mut self, from: NodeId) {
        let hello =
            PeerHello::new(handshake_config(from.0, 1).boot_id, Some(handshake_config(ME.0, 1).boot_id));
        let key = handshake_config(from.0, 1).keys.peer_hello((from, hello.mine), ME);
        self.datagram(hello.seal(&key, &envelope_of(from)));
    }

    /// A peer sends these packets, without the invalid ones, which a server's encoder refuses.
    pub(super) fn peer(&mut self, from: u16, packets: Vec<ToPeer>) {
        let packets: Vec<ToPeer> = packets.into_iter().filter(|packet| packet.check().is_ok()).collect();
        for datagram in self.sealed(from, &packets) {
            self.datagram(datagram);
        }
    }

    /// The datagrams in which a peer sends these packets.
    pub(super) fn sealed(&mut self, from: u16, packets: &[ToPeer]) -> Vec<Vec<u8>> {
        let from = NodeId(from);
        let other = self.around.others.entry(from).or_insert_with(|| Other::new(from));
        let mut datagrams = Vec::new();
        other.link.transmit(self.clock.now, View::ZERO, packets, None, &mut datagrams);
        datagrams
    }

    /// Makes the server primary: peer 1 agrees to all its requests.
    pub(super) fn lead(&mut self) {
        for _ in 0..4_000 {
            if self.node.role() == RoleName::Primary {
                return;
            }
            self.pass(Duration::from_millis(5));
            self.answer_as_a_backup();
        }
        panic!("it does not lead");
    }

    /// Peer 1 agrees, promises, echoes and acknowledges.
    pub(super) fn answer_as_a_backup(&mut self) {
        let sent = std::mem::take(&mut self.around.sent);
        for packet in
            sent.into_iter().filter(|(to, _)| *to == NodeId(1)).flat_map(|(_, opened)| opened.packets)
        {
            let view = self.node.promised();
            let answer = match packet {
                ToPeer::Election(Election::Probe { view, .. }) => {
                    ToPeer::Reply(Reply::Agree { view, disk_ms: 0 })
                }
                ToPeer::Election(Election::Prepare { view, .. }) => {
                    let (last_view, last_op, commit) = (View::ZERO, Op::ZERO, Op::ZERO);
                    let index = vec![(View::ZERO, Op::ZERO)];
                    ToPeer::Reply(Reply::Promise(Promise {
                        view,
                        last_view,
                        last_op,
                        commit,
                        index,
                        unknown: None,
                        incarnations: Vec::new(),
                        disk_ms: 0,
                        members_op: Op::ZERO,
                    }))
                }
                ToPeer::Heartbeat(beat) => {
                    ToPeer::Heartbeat(Heartbeat { view, state: HeartbeatState::Backup, ..beat })
                }
                ToPeer::Entries(entries) => {
                    let matched = entries.entries.last().map_or(entries.prev_op, |entry| entry.op);
                    let (durable, applied) = (matched, Op::ZERO);
                    ToPeer::EntriesAck(EntriesAck {
                        view,
                        durable,
                        matched,
                        commit: applied,
                        rejected: false,
                    })
                }
                _ => continue,
            };
            self.peer(1, vec![answer]);
        }
        self.flush();
    }
}

pub(super) fn prepare(view: View, progress: u64) -> ToPeer {
    ToPeer::Election(Election::Prepare {
        view,
        progress,
        waits_for: WaitsFor::Disk,
        disk_ms: 0,
        members_op: Op::ZERO,
    })
}

/// A cast of the primary of `view`, of the entries that follow op and view `prev`.
pub(super) fn cast(view: View, prev: (u64, View), commit: u64, entries: Vec<Entry>) -> ToPeer {
    let (prev_op, prev_view, commit) = (Op(prev.0), prev.1, Op(commit));
    ToPeer::Entries(Entries { view, fetch: None, prev_op, prev_view, commit, entries, members_op: Op::ZERO })
}
