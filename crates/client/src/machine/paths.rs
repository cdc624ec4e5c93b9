//! Paths of a session: one for each boot id of a server, with the addresses where that server is.
//!
//! RETRY is not authenticated: an attacker who sees a HELLO can answer it with any content, before or after
//! the server does. So a RETRY replaces nothing. Its boot id is put on trial at the address it came from,
//! beside the path that is proved there (in QUIC's term, validated), and a packet is sent to it. The trial
//! succeeds with a datagram from that address that opens under the keys of this boot id and acknowledges a
//! packet sent during the trial. A recorded datagram acknowledges none: packet numbers come from one counter
//! for all paths, so those of a trial were not used before. Only then does the path replace the one that was
//! proved at the address, or for the server, before.
//!
//! Invariant: no two paths have the same boot id of a server, or two links would use the same keys. A boot id
//! on trial at several addresses has one link.

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::envelope::{self, Class, Envelope, Opened, PACKETS_MAX};
use recado_proto::fragment::Reassembler;
use recado_proto::id::{BootId, ClusterId, Incarnation, Moment, NodeId, SessionId, View};
use recado_proto::link::{Buffers, Link, LinkEvent};
use recado_proto::packet::{Packet, ToClient, ToServer};
use recado_proto::seal::{Direction, PacketKeys, SessionSecret};

use super::Effect;
use super::handshake::Greeting;

/// Most boot ids on trial at one address; for one more, the one whose RETRY is the oldest is dropped. This is
/// the number of RETRYs taken for one HELLO. A genuine one that is dropped returns with the next RETRY.
const TRIALS_MAX: usize = 4;

/// The session with one boot of a server.
#[derive(Debug)]
struct Path {
    node: NodeId,
    boot_id: BootId,
    receive: PacketKeys,
    link: Link,
    reassembler: Reassembler,
    /// The address where it is proved.
    at: Option<SocketAddr>,
    /// Addresses where it is on trial; not empty if it is proved nowhere.
    trials: Vec<Trial>,
}

/// An address where a boot of a server is on trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    at: SocketAddr,
    /// The first packet number of the trial: only an acknowledgement of this one or a later one proves the
    /// address.
    first: u64,
    /// The time of its last RETRY from there.
    greeted: Moment,
}

impl Path {
    fn trial(&self, at: SocketAddr) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.at == at)
    }

    fn is_of(&self, greeting: &Greeting) -> bool {
        (self.node, self.boot_id) == (greeting.server, greeting.boot_id)
    }
}

/// All paths of one session.
#[derive(Debug)]
pub(super) struct Paths {
    cluster: ClusterId,
    session: SessionId,
    secret: SessionSecret,
    /// The number of the next datagram, on any path.
    next_number: u64,
    paths: Vec<Path>,
}

impl Paths {
    pub(super) fn new(cluster: ClusterId, session: SessionId, secret: SessionSecret) -> Paths {
        Paths { cluster, session, secret, next_number: 1, paths: Vec::new() }
    }

    /// The bytes left for packets in a datagram to this address.
    pub(super) fn packets_max(&self, to: SocketAddr) -> usize {
        let path = self.at(to).and_then(|place| self.paths.get(place));
        path.map_or(PACKETS_MAX, |path| path.link.packets_max())
    }

    /// The number of the next datagram, on any path.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// A server at this address sent a RETRY. Returns true if its boot id is on trial there and a packet is
    /// to be sent to it ([`Paths::probe`]). Returns false if it is proved there already, or proved elsewhere
    /// and not silent there: then it stays there.
    pub(super) fn greeted(
        &mut self,
        now: Moment,
        at: SocketAddr,
        greeting: &Greeting,
        is_silent: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        let first = self.next_number;
        if !self.paths.iter().any(|path| path.is_of(greeting)) {
            let path = self.begin(greeting);
            self.paths.push(path);
        }
        let Some(path) = self.paths.iter_mut().find(|path| path.is_of(greeting)) else { return false };
        if path.at.is_some_and(|home| home == at || !is_silent(home)) {
            return false;
        }
        match path.trials.iter_mut().find(|trial| trial.at == at) {
            Some(trial) => trial.greeted = now,
            None => path.trials.push(Trial { at, first, greeted: now }),
        }
        let here = || self.paths.iter().filter_map(|path| path.trial(at));
        if here().count() > TRIALS_MAX
            && let Some(oldest) = here().map(|trial| (trial.greeted, trial.first)).min()
        {
            self.drop_trials(|_, trial| trial.at == at && (trial.greeted, trial.first) == oldest);
        }
        true
    }

    fn begin(&self, greeting: &Greeting) -> Path {
        let (node, boot_id) = (greeting.server, greeting.boot_id);
        let envelope = Envelope {
            class: Class::Client,
            cluster: self.cluster,
            session: self.session,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let send = self.secret.of_session(Direction::ToServer, node, boot_id);
        Path {
            node,
            boot_id,
            receive: self.secret.of_session(Direction::ToClient, node, boot_id),
            link: Link::starting_at(envelope, send, self.next_number),
            reassembler: Reassembler::default(),
            at: None,
            trials: Vec::new(),
        }
    }

    /// Drops the trials for which `which` returns true, and the paths without any address left.
    fn drop_trials(&mut self, which: impl Fn(&Path, &Trial) -> bool) {
        for path in &mut self.paths {
            let trials = std::mem::take(&mut path.trials);
            path.trials = trials.into_iter().filter(|trial| !which(path, trial)).collect();
        }
        self.paths.retain(|path| path.at.is_some() || !path.trials.is_empty());
    }

    /// Opens a datagram of the class Client; none if no path opens it, if it is a replay, or if it comes from
    /// an address where its sender is on trial and does not prove it.
    pub(super) fn receive(
        &mut self,
        now: Moment,
        from: SocketAddr,
        envelope: &Envelope,
        datagram: &[u8],
    ) -> Option<Opened<ToClient>> {
        let may_be = |path: &&mut Path| {
            let here = path.at == Some(from) || path.trial(from).is_some();
            here && Some(path.node) == envelope.node && envelope.session == self.session
        };
        let (opened, path) = self
            .paths
            .iter_mut()
            .filter(may_be)
            .find_map(|path| Some((envelope::open(&mut path.receive, datagram).ok()?, path)))?;
        let trial = path.trial(from).copied().filter(|_| path.at != Some(from));
        if let Some(trial) = &trial {
            let said = trial.first..path.link.next_number();
            opened.header.ack.as_ref().filter(|ack| said.contains(&ack.largest))?;
        }
        path.link.receive(now, envelope.number, opened.header.ack.as_ref()).then_some(())?;
        path.trials.clear();
        if path.at.is_some_and(|before| before != from) {
            path.link.on_new_path();
        }
        path.at = Some(from);
        let (node, boot_id) = (path.node, path.boot_id);
        if let Some(trial) = trial {
            self.proved(node, boot_id, &trial);
        }
        Some(opened)
    }

    /// The server at this address is proved to run with this boot id. Other paths to this server, and to any
    /// server that was believed to be at this address, end. Trials that began after this one stay: they may
    /// be of a later boot.
    fn proved(&mut self, node: NodeId, boot_id: BootId, by: &Trial) {
        for path in self.paths.iter_mut().filter(|path| (path.node, path.boot_id) != (node, boot_id)) {
            path.at = path.at.filter(|at| path.node != node && *at != by.at);
        }
        self.drop_trials(|path, trial| (path.node == node || trial.at == by.at) && trial.first < by.first);
    }

    /// The packet itself, or the one that a fragment completes; none if the sender is proved nowhere.
    pub(super) fn whole(&mut self, now: Moment, from: SocketAddr, packet: ToClient) -> Option<ToClient> {
        match packet.into_fragment() {
            // A fragment that fits nothing counts as lost.
            Ok(piece) => {
                let path = self.paths.iter_mut().find(|path| path.at == Some(from))?;
                path.reassembler.accept(now, piece).ok().flatten()
            }
            Err(whole) => Some(whole),
        }
    }

    /// Sends packets to the server that is proved at this address. If none is, sends them to all that are on
    /// trial there; then only the newest carries the token. If `more` is to follow at once, the path is worth
    /// a search for longer datagrams.
    #[expect(clippy::too_many_arguments, reason = "what is said, where and how")]
    pub(super) fn send(
        &mut self,
        now: Moment,
        to: SocketAddr,
        view: View,
        packets: &[ToServer],
        token: Option<u64>,
        more: bool,
        out: &mut Vec<Effect>,
    ) {
        let best = self.at(to);
        let proved = best.is_some_and(|best| self.paths.get(best).is_some_and(|path| path.at == Some(to)));
        for place in 0..self.paths.len() {
            let on_trial = self.paths.get(place).is_some_and(|path| path.trial(to).is_some());
            if best == Some(place) {
                self.transmit(now, place, to, view, packets, token, more, out);
            } else if !proved && on_trial {
                self.transmit(now, place, to, view, packets, None, false, out);
            }
        }
    }

    /// Sends packets to the boot id that `greeting` names.
    pub(super) fn probe(
        &mut self,
        now: Moment,
        to: SocketAddr,
        greeting: &Greeting,
        view: View,
        packets: &[ToServer],
        out: &mut Vec<Effect>,
    ) {
        if let Some(place) = self.paths.iter().position(|path| path.is_of(greeting)) {
            self.transmit(now, place, to, view, packets, None, false, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what is said, where and how")]
    fn transmit(
        &mut self,
        now: Moment,
        place: usize,
        to: SocketAddr,
        view: View,
        packets: &[ToServer],
        token: Option<u64>,
        more: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(path) = self.paths.get_mut(place) else { return };
        let mut datagrams = Vec::new();
        path.link.skip_to(self.next_number);
        path.link.transmit_before(now, view, packets, token, more, &mut Buffers::default(), &mut datagrams);
        self.next_number = path.link.next_number();
        out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
    }

    /// The path to this address: the proved one, else the one with the newest trial.
    fn at(&self, address: SocketAddr) -> Option<usize> {
        let proved = self.paths.iter().position(|path| path.at == Some(address));
        let tried = || {
            let here =
                self.paths.iter().enumerate().filter_map(|(at, path)| Some((path.trial(address)?, at)));
            here.max_by_key(|(trial, _)| (trial.greeted, trial.first)).map(|(_, at)| at)
        };
        proved.or_else(tried)
    }

    fn link_at(&self, address: SocketAddr) -> Option<&Link> {
        Some(&self.paths.get(self.at(address)?)?.link)
    }

    /// Returns true if a packet can be sent to this address.
    pub(super) fn lead_to(&self, address: SocketAddr) -> bool {
        self.at(address).is_some()
    }

    /// Returns true if this server is proved to be at this address.
    pub(super) fn prove(&self, node: NodeId, address: SocketAddr) -> bool {
        self.paths.iter().any(|path| path.node == node && path.at == Some(address))
    }

    /// The longest datagram that the path to this address carries, as far as it is known.
    pub(super) fn datagram_max(&self, to: SocketAddr) -> usize {
        self.link_at(to).map_or(0, Link::datagram_max)
    }

    /// Bytes that the link to this address accepts at present.
    pub(super) fn room(&self, to: SocketAddr) -> usize {
        self.link_at(to).map_or(0, Link::room)
    }

    pub(super) fn rto(&self, to: SocketAddr) -> Duration {
        self.link_at(to).map_or(Duration::ZERO, Link::rto)
    }

    pub(super) fn owes_ack(&self, to: SocketAddr) -> bool {
        self.link_at(to).is_some_and(Link::ack_due)
    }

    pub(super) fn on_deadline(&mut self, now: Moment) {
        for path in &mut self.paths {
            if path.link.next_deadline().is_some_and(|at| at <= now) {
                path.link.on_deadline(now);
            }
        }
    }

    /// Tokens declared lost since the last call.
    pub(super) fn lost(&mut self) -> Vec<u64> {
        let mut lost = Vec::new();
        for path in &mut self.paths {
            while let Some(event) = path.link.poll_event() {
                if let LinkEvent::Lost(token) = event {
                    lost.push(token);
                }
            }
        }
        lost
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.paths.iter().filter_map(|path| path.link.next_deadline()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use recado_proto::envelope::{Ack, Header};
    use recado_proto::id::{Op, Topic};
    use recado_proto::packet::{Content, Delivered, Fragment, Item, Notification, OptionalFields};
    use recado_proto::{codec, fragment};

    use super::*;

    const HOME: u16 = 1;
    const ELSEWHERE: u16 = 2;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn secret() -> SessionSecret {
        SessionSecret::new(recado_proto::seal::Key::new([2; 32]), Default::default(), Default::default())
    }

    fn paths() -> Paths {
        Paths::new(ClusterId(7), SessionId(Op(9)), secret())
    }

    /// The n-th boot id of all servers: those from 10 on are of server 1, those from 20 on of server 2.
    fn greeting(boot_id: u8) -> Greeting {
        let server = NodeId(u16::from(boot_id / 10));
        Greeting { server, boot_id: BootId([boot_id; 16]), cluster: ClusterId(7), cluster_key: [5; 32] }
    }

    /// Somebody at `port` says so many microseconds after the beginning that it is this boot id.
    fn greet(paths: &mut Paths, micros: u64, port: u16, boot_id: u8) -> bool {
        paths.greeted(Moment(micros), address(port), &greeting(boot_id), |_| true)
    }

    /// Which boot ids understand what is said there, with the numbers of that.
    fn sent(paths: &mut Paths, port: u16) -> Vec<(u8, u64)> {
        let mut out = Vec::new();
        paths.send(Moment(100), address(port), View::ZERO, &[ToServer::keepalive()], None, false, &mut out);
        let who = |effect| {
            let Effect::Datagram { bytes, .. } = effect else { panic!("{effect:?}") };
            let opens = |boot_id: &u8| {
                let Greeting { server, boot_id, .. } = greeting(*boot_id);
                let mut keys = secret().of_session(Direction::ToServer, server, boot_id);
                envelope::open::<ToServer>(&mut keys, &bytes).is_ok()
            };
            let envelope = Envelope::peek(&bytes).unwrap();
            assert_eq!((envelope.node, envelope.incarnation.0), (None, 0), "it comes from a client");
            ((10..30).find(opens).expect("some boot_id understands it"), envelope.number)
        };
        out.into_iter().map(who).collect()
    }

    fn boot_ids(paths: &mut Paths, port: u16) -> Vec<u8> {
        sent(paths, port).into_iter().map(|(boot_id, _)| boot_id).collect()
    }

    /// Whether a datagram from there counts that this boot id has sealed, and that acknowledges this number.
    fn receives(paths: &mut Paths, port: u16, boot_id: u8, number: u64, largest: u64) -> bool {
        let Greeting { server, boot_id, cluster, .. } = greeting(boot_id);
        let (session, incarnation) = (SessionId(Op(9)), Incarnation(1));
        let envelope =
            Envelope { class: Class::Client, cluster, session, node: Some(server), incarnation, number };
        let header = Header { ack: Some(Ack { largest, first: 0, further: Vec::new() }), view: View::ZERO };
        let mut keys = secret().of_session(Direction::ToClient, server, boot_id);
        let bytes = envelope::seal(&mut keys, &envelope, &header, &[]);
        paths.receive(Moment(100), address(port), &envelope, &bytes).is_some()
    }

    #[test]
    fn the_fifth_boot_id_at_one_address_evicts_the_one_greeted_longest_ago() {
        let mut paths = paths();
        for (at, boot_id) in [(1, 10), (2, 20), (3, 12), (4, 13)] {
            assert!(greet(&mut paths, at, HOME, boot_id));
        }
        greet(&mut paths, 2, ELSEWHERE, 14);
        assert_eq!(boot_ids(&mut paths, HOME), [10, 20, 12, 13]);
        greet(&mut paths, 5, HOME, 10);
        greet(&mut paths, 6, HOME, 15);
        assert_eq!(boot_ids(&mut paths, HOME), [10, 12, 13, 15]);
        assert_eq!(boot_ids(&mut paths, ELSEWHERE), [14], "on trial at another address");
        for boot_id in 15..20 {
            greet(&mut paths, 10 + u64::from(boot_id), HOME, boot_id);
        }
        assert_eq!(paths.paths.len(), TRIALS_MAX + 1, "of the others nothing is left");
    }

    #[test]
    fn a_server_counts_only_where_it_has_greeted() {
        let mut paths = paths();
        greet(&mut paths, 1, HOME, 10);
        let [(10, number)] = sent(&mut paths, HOME)[..] else { panic!("one on trial") };
        assert!(paths.lead_to(address(HOME)) && !paths.lead_to(address(ELSEWHERE)));
        assert!(!receives(&mut paths, ELSEWHERE, 10, 1, number));
        assert!(!receives(&mut paths, HOME, 20, 2, number), "somebody else");
        assert!(receives(&mut paths, HOME, 10, 3, number));
        assert!(!receives(&mut paths, ELSEWHERE, 10, 4, number));
        assert!(paths.prove(NodeId(1), address(HOME)) && !paths.prove(NodeId(1), address(ELSEWHERE)));
        assert!(!paths.prove(NodeId(2), address(HOME)));
        assert!(paths.room(address(HOME)) > 0 && paths.room(address(ELSEWHERE)) == 0);
    }

    #[test]
    fn the_pieces_of_a_large_packet_are_put_together_for_whom_is_proved() {
        let mut paths = paths();
        greet(&mut paths, 1, HOME, 10);
        let content = Content::of("7".repeat(3_000));
        let large = Notification {
            op: Op(1),
            topic: Topic::Channel("ops".parse().unwrap()),
            author: "bob".parse().unwrap(),
            unix_ms: 0,
            content,
            options: OptionalFields::NONE,
        };
        let item = Item::Notification(Arc::new(large));
        let large = ToClient::Delivered(Delivered { prev: Op(0), item });
        let pieces = fragment::split(1, &codec::encode(&large));
        let whole = |paths: &mut Paths| -> Vec<bool> {
            let piece = |piece: &Fragment| ToClient::Fragment(piece.clone());
            let put = |piece| paths.whole(Moment(100), address(HOME), piece).is_some();
            pieces.iter().map(piece).map(put).collect()
        };
        assert_eq!(whole(&mut paths), [false, false, false], "on trial");
        let number = sent(&mut paths, HOME)[0].1;
        assert!(receives(&mut paths, HOME, 10, 1, number));
        assert_eq!(whole(&mut paths), [false, false, true]);
    }

    #[test]
    fn a_proved_boot_id_ends_the_proved_paths_of_its_server_and_at_its_address() {
        // Another boot id of the same server, elsewhere; and another server at the same address.
        for (boot_id, port, left) in [(11, ELSEWHERE, vec![]), (20, HOME, vec![20])] {
            let mut paths = paths();
            greet(&mut paths, 1, HOME, 10);
            let number = sent(&mut paths, HOME)[0].1;
            assert!(receives(&mut paths, HOME, 10, 1, number));
            greet(&mut paths, 2, port, boot_id);
            let mut out = Vec::new();
            let packets = [ToServer::keepalive()];
            paths.probe(Moment(100), address(port), &greeting(boot_id), View::ZERO, &packets, &mut out);
            assert!(receives(&mut paths, port, boot_id, 1, number + 1));
            assert_eq!((boot_ids(&mut paths, HOME), boot_ids(&mut paths, port)), (left, vec![boot_id]));
        }
    }

    #[test]
    fn a_proved_boot_id_ends_older_trials_of_its_server_and_at_its_address_and_no_later_one() {
        let mut paths = paths();
        greet(&mut paths, 1, HOME, 20);
        greet(&mut paths, 1, ELSEWHERE, 10);
        greet(&mut paths, 1, ELSEWHERE, 21);
        assert_eq!(sent(&mut paths, HOME), [(20, 1)]);
        assert_eq!(sent(&mut paths, ELSEWHERE), [(10, 2), (21, 3)]);
        greet(&mut paths, 2, HOME, 11);
        greet(&mut paths, 2, HOME, 22);
        assert_eq!(sent(&mut paths, HOME), [(20, 4), (11, 5), (22, 6)]);
        greet(&mut paths, 3, ELSEWHERE, 12);
        assert_eq!(sent(&mut paths, ELSEWHERE), [(10, 7), (21, 8), (12, 9)]);
        assert!(receives(&mut paths, HOME, 11, 1, 5));
        let others =
            [(HOME, 20, 4), (ELSEWHERE, 10, 7), (ELSEWHERE, 21, 8), (HOME, 22, 6), (ELSEWHERE, 12, 9)];
        let count = others.map(|(port, boot_id, number)| receives(&mut paths, port, boot_id, 1, number));
        // Another server elsewhere, one that greeted beside it, and one that greeted later are on trial.
        assert_eq!(count, [false, false, true, true, true]);
    }
}
