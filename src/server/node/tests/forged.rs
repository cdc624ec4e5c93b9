//! Forged datagrams and packets: every packet is well formed, every value extreme. Nothing panics and nothing
//! spins.

use recado_proto::entry::Unknown;
use recado_proto::envelope::Opened;
use recado_proto::id::{Seq, Topic};

use super::members::prepare;
use super::*;

/// Pseudo-random numbers, most of them at the edges of their range.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn edge(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - self.below(3),
            3 => 1 << self.below(64),
            4 => self.next(),
            _ => self.below(12),
        }
    }

    fn op(&mut self) -> Op {
        Op(self.edge())
    }

    /// `near`, a view of another server near it, or any view.
    fn view(&mut self, near: View) -> View {
        match self.below(10) {
            0 => View(self.edge()),
            1 => View::ZERO,
            2 => View::new(near.round() + 1, NodeId(1 + self.below(3) as u16)),
            3 => View::new(near.round(), NodeId(1 + self.below(3) as u16)),
            4 => View::new(View::ROUND_MAX - self.below(2), NodeId(1 + self.below(4) as u16)),
            _ => near,
        }
    }

    fn entries(&mut self, near: View) -> Entries {
        let (prev_op, prev_view) = (self.op(), self.view(near));
        let view = self.view(near);
        let mut at = prev_view;
        let entries = (0..self.below(4)).map(|n| {
            at = at.max(self.view(near));
            // Few that a server refuses, or ends at, so that most runs go on.
            let (kind, payload) = match self.below(40) {
                0 => (EntryKind::from(2 + n as u16), vec![n as u8; self.below(40) as usize].into()),
                1 => (EntryKind::Command, vec![n as u8; self.below(40) as usize].into()),
                2..20 => (EntryKind::ViewStart, Default::default()),
                _ => (EntryKind::Command, command_of(300 + self.below(40) as usize)),
            };
            Entry { op: Op(prev_op.0.wrapping_add(1 + n)), view: at, kind, payload }
        });
        let entries = entries.collect();
        let fetch = self.flip().then(|| QueryId(self.edge()));
        Entries { view, fetch, prev_op, prev_view, commit: self.op(), entries, members_op: Op::ZERO }
    }

    fn reply(&mut self, near: View) -> Reply {
        let view = self.view(near);
        let disk_ms = self.edge() as u32;
        match self.below(6) {
            0 => Reply::Agree { view, disk_ms },
            1 => Reply::Alive { view, disk_ms },
            2 => Reply::Bully { view, disk_ms },
            3 => Reply::Refuse { promised: view },
            4 => Reply::Writing { view, disk_ms },
            _ => Reply::Promise(Promise {
                view,
                last_view: self.view(near),
                last_op: self.op(),
                commit: self.op(),
                index: (0..self.below(4)).map(|_| (self.view(near), self.op())).collect(),
                unknown: self.flip().then(|| Unknown {
                    first: self.op(),
                    last: self.op(),
                    view_max: self.view(near),
                }),
                incarnations: (0..self.below(3))
                    .map(|n| (NodeId(1 + n as u16), Incarnation(self.below(3))))
                    .collect(),
                disk_ms,
                members_op: Op::ZERO,
            }),
        }
    }

    fn peer_packet(&mut self, near: View, members: u64) -> ToPeer {
        let view = self.view(near);
        match self.below(13) {
            0 | 1 => ToPeer::Heartbeat(Heartbeat {
                view,
                state: [
                    HeartbeatState::Backup,
                    HeartbeatState::Opening,
                    HeartbeatState::Active,
                    HeartbeatState::Isolated,
                ][self.below(4) as usize],
                commit: self.op(),
                last: self.op(),
                beat: self.edge(),
                leaving: self.flip(),
                members,
                disk_ms: self.edge() as u32,
                members_op: Op::ZERO,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            2 => ToPeer::Election(Election::Probe {
                view,
                last: (self.view(near), self.op()),
                disk_ms: self.edge() as u32,
            }),
            3 => prepare(view, self.edge()),
            4 => ToPeer::Reply(self.reply(near)),
            5 => ToPeer::Coordinator(Coordinator::new(view, Vec::new())),
            6 => ToPeer::Entries(self.entries(near)),
            7 => ToPeer::EntriesAck(EntriesAck {
                view,
                durable: self.op(),
                matched: self.op(),
                commit: self.op(),
                rejected: self.flip(),
            }),
            8 => {
                ToPeer::Fetch(Fetch { query: QueryId(self.edge()), view, after: self.op(), upto: self.op() })
            }
            9 => ToPeer::SnapshotGet(SnapshotGet {
                op: self.op(),
                offset: self.edge(),
                blocks: self.next() as u16,
            }),
            10 => {
                let total = [1, 9, 1 << 30, u64::MAX][self.below(4) as usize];
                let bytes = vec![7; 1 + self.below(20) as usize];
                let (op, crc) = (self.op(), if self.flip() { 1 } else { crc32c::crc32c(&bytes) });
                ToPeer::SnapshotChunk(SnapshotChunk { op, view, offset: self.edge(), total, crc, bytes })
            }
            11 => ToPeer::Transfer(Transfer { view, last: self.op() }),
            _ if self.flip() => ToPeer::Learn(Learn { nonce: self.edge() }),
            _ => ToPeer::LearnOk(LearnOk {
                nonce: self.edge(),
                promised: view,
                active: self.flip().then(|| self.op()),
            }),
        }
    }

    fn client_packet(&mut self) -> ToServer {
        let content = Content::of("x".repeat(self.below(50) as usize));
        let names = ["alice", "bob", "nobody"];
        let name = || -> recado_proto::id::Name { names[0].parse().unwrap() };
        let topics = [
            None,
            Some(Topic::Feed(name())),
            Some(Topic::Channel(names[0].parse().unwrap())),
            Some(Topic::Inbox(names[self.below(3) as usize].parse().unwrap())),
        ];
        let topic = topics[self.below(4) as usize].clone();
        let id = QueryId(self.edge());
        let query = |kind| ToServer::Query(Query::new(id, kind));
        match self.below(12) {
            0 => ToServer::Connect(Connect {
                device: DeviceId { key: DeviceKey([self.below(3) as u8; 32]), slot: self.next() as u8 },
                profile: names[self.below(3) as usize].parse().unwrap(),
                receives: self.flip(),
                nonce: self.edge(),
                fresh: self.flip(),
                code: self.flip().then(|| CodeHash([self.below(2) as u8; 32])),
                invite: self.flip().then(|| CodeHash([self.below(2) as u8; 32])),
                aeads: self.below(256) as u8,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            1 => ToServer::Disconnect(Disconnect { upto: Position::of(self.op()) }),
            2 | 3 => ToServer::Send(Send {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                topic,
                content,
                nonce: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            4 => ToServer::Follow(Follow {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                topic: topic.unwrap_or(Topic::Feed(name())),
                change: if self.flip() { FollowChange::Add } else { FollowChange::Remove },
                nonce: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            5 => query(QueryKind::History(History {
                topic,
                range: match self.below(3) {
                    0 => HistoryRange::Before(self.op()),
                    1 => HistoryRange::After(self.op()),
                    _ => HistoryRange::SinceMs(self.edge()),
                },
                limit: self.edge() as u32,
            })),
            6 => {
                let all = [
                    Listing::Following,
                    Listing::Followers,
                    Listing::Devices,
                    Listing::Channels,
                    Listing::People,
                    Listing::Members("ops".parse().unwrap()),
                ];
                let after = [None, Some("\u{0}".to_owned()), Some("zz".to_owned()), Some("É".repeat(60))];
                let (what, after) =
                    (all[self.below(6) as usize].clone(), after[self.below(4) as usize].clone());
                query(QueryKind::List(List { what, after }))
            }
            7 => query(QueryKind::Info { profile: self.flip().then(name) }),
            8 => ToServer::Resume(Resume {
                cursor: self.flip().then(|| Position::of(self.op())),
                credit: self.edge() as u32,
                home: Home::PRIMARY,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            9 => ToServer::Channel(Channel {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                channel: names[self.below(3) as usize].parse().unwrap(),
                change: match self.below(4) {
                    0 => ChannelChange::Create { private: self.flip() },
                    1 => ChannelChange::Add { member: name(), role: Role::Owner },
                    2 => ChannelChange::Remove { member: name() },
                    _ => ChannelChange::Delete,
                },
                nonce: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            10 => ToServer::Keys(Keys {
                seq: Seq(self.edge()),
                answered_below: Seq(self.edge()),
                change: if self.flip() {
                    KeyChange::Enrol { code: CodeHash([self.below(2) as u8; 32]) }
                } else {
                    KeyChange::Revoke { key: DeviceKey([self.below(3) as u8; 32]) }
                },
                nonce: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            }),
            _ if self.flip() => query(QueryKind::Status),
            _ => ToServer::keepalive(),
        }
    }
}

fn digest_of(rig: &mut Rig<Peers>) -> u64 {
    rig.pass(Duration::from_secs(1));
    let beat = |(_, opened): &(NodeId, Opened<ToPeer>)| {
        opened.packets.iter().find_map(|packet| match packet {
            ToPeer::Heartbeat(beat) => Some(beat.members),
            _ => None,
        })
    };
    rig.around.sent.iter().find_map(beat).unwrap_or_default()
}

/// Prints the seed if the test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn whatever_peers_and_clients_forge_a_server_neither_panics_nor_spins() {
    let members = {
        let mut rig = Rig::new(true);
        rig.lead();
        digest_of(&mut rig)
    };
    for seed in 0..240 {
        let told = Seed(seed);
        let mut chance = Chance(seed);
        let mut rig = Rig::new(seed % 8 != 7);
        if seed % 2 == 0 {
            rig.lead();
        }
        for n in 0..400 {
            let near = rig.node.promised();
            match chance.below(8) {
                0 => rig.pass(Duration::from_millis(chance.below(300))),
                1 => rig.input(Input::WantPage {
                    session: SessionId(chance.op()),
                    after: chance.op(),
                    limit: chance.edge() as u32,
                }),
                2 => rig.input(Input::Cursor(SessionId(chance.op()), chance.op())),
                3 | 4 => {
                    let session = chance.below(8);
                    let packet = chance.client_packet();
                    rig.client(session, packet);
                }
                5 if n % 3 == 0 => rig.answer_as_a_backup(),
                _ => {
                    let from = chance.below(5) as u16;
                    let packet = chance.peer_packet(near, members);
                    rig.peer(from, vec![packet]);
                }
            }
            if chance.flip() {
                rig.flush();
            }
            rig.around.sent.drain(..rig.around.sent.len().saturating_sub(64));
            rig.delivered.clear();
        }
        rig.pass(Duration::from_secs(3));
        drop(told);
    }
}
