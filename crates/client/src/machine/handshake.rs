//! Client side of the handshake with one server: asks something without a session. HELLO is sent until a
//! RETRY brings a cookie; then an INITIATION carries a packet, and ANSWER its answer.

use std::collections::VecDeque;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope, Opened};
use recado_proto::fragment::Reassembler;
use recado_proto::handshake::{self, Cookie, Handshake};
use recado_proto::id::{BootId, ClusterId, Incarnation, Moment, NodeId, SessionId};
use recado_proto::noise::{Initiation, OPENING_LEN, Prologue};
use recado_proto::packet::{Packet, ToClient, ToServer};
use recado_proto::seal::Key;
use recado_proto::version;

/// The age up to which a cookie is used. Servers accept it for at least 10 s.
const COOKIE_GOOD: Duration = Duration::from_secs(8);

/// Most RETRYs kept: the oldest and the newest. An attacker who sees a HELLO can answer it with any content,
/// before or after the server does, and only the answer to an initiation shows which RETRY was genuine.
const GREETINGS_MAX: usize = 2;

/// Most RETRYs taken for one HELLO. An initiation is sent for each; more than this is a flood.
const RETRIES_MAX: usize = 4;

/// Most initiations whose answers are still awaited.
const INITIATIONS_MAX: usize = 4;

/// Most answers that are put together at a time: the newest are kept.
const ANSWERS_MAX: usize = 2;

/// A RETRY is dropped once its initiation has had no answer for this long: it is forged, from an earlier boot
/// of the server, or old. Another RETRY is tried, or HELLO is sent again.
const UNANSWERED: Duration = Duration::from_millis(100);

/// The client's identity in a handshake: its own key, and the cluster that it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's key, which is trusted.
    pub cluster_key: [u8; 32],
    /// The private half of the device's own key.
    pub private: Key,
}

impl Identity {
    /// Returns true if the server claims to belong to this cluster. Nothing but HELLO may be sent to one that
    /// does not, and its RETRY is no reason to send another HELLO.
    pub(crate) fn trusts(&self, greeting: &Greeting) -> bool {
        greeting.cluster == self.cluster && greeting.cluster_key == self.cluster_key
    }
}

/// The identity that a server claims in its RETRY. Only a handshake proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The server's id.
    pub server: NodeId,
    /// Its boot id.
    pub boot_id: BootId,
    /// The cluster that it claims.
    pub cluster: ClusterId,
    /// The key that it claims for that cluster.
    pub cluster_key: [u8; 32],
}

/// A datagram of the handshake from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// A RETRY: an initiation can be sent.
    Greeting(Greeting),
    /// The answer to an initiation, from a server that has proved the cluster's key.
    Answer(Opened<ToClient>),
}

/// The handshake with one server.
#[derive(Debug, Default)]
pub struct HandshakeClient {
    /// The echo of the last HELLO, and the number of RETRYs taken for it.
    echo: Option<(u64, usize)>,
    /// The RETRYs held, the oldest first.
    greetings: VecDeque<ReceivedRetry>,
    /// Initiations under way, each with the RETRY that it used.
    initiations: VecDeque<(Initiation, ReceivedRetry)>,
    /// The answers of which pieces have come, the oldest first.
    in_pieces: VecDeque<InPieces>,
    /// The version in the last VERSION.
    other_version: Option<u8>,
}

/// An answer that comes in pieces, each in a datagram of its own under one key.
#[derive(Debug)]
struct InPieces {
    opening: [u8; OPENING_LEN],
    key: Key,
    reassembler: Reassembler,
}

impl InPieces {
    /// Puts together what a datagram has of the answer, of which nothing but pieces is taken. Returns the
    /// whole packet when the last piece has come.
    fn take(&mut self, now: Moment, mut opened: Opened<ToClient>) -> Option<Opened<ToClient>> {
        let pieces = opened.packets.drain(..).filter_map(|packet| packet.into_fragment().ok());
        let whole = pieces.filter_map(|piece| self.reassembler.accept(now, piece).ok().flatten());
        let packets: Vec<ToClient> = whole.collect();
        (!packets.is_empty()).then_some(Opened { packets, ..opened })
    }
}

/// A RETRY, and the state of its initiation.
#[derive(Clone, Copy, Debug)]
struct ReceivedRetry {
    at: Moment,
    /// The echo of the HELLO that it answers.
    echo: u64,
    cookie: Cookie,
    greeting: Greeting,
    /// True once the answer to an initiation has shown that it is genuine.
    proved: bool,
    /// The time of the first initiation that used it and has had no answer.
    initiated: Option<Moment>,
}

impl ReceivedRetry {
    fn is_good(&self, now: Moment, identity: &Identity) -> bool {
        identity.trusts(&self.greeting)
            && now.since(self.at) < COOKIE_GOOD
            && self.initiated.is_none_or(|since| now.since(since) < UNANSWERED)
    }
}

impl HandshakeClient {
    /// Encodes a HELLO. Its echo is that of the last HELLO until a RETRY has answered it.
    pub fn hello(&mut self, cluster: ClusterId, entropy: &mut Entropy) -> Vec<u8> {
        let echo = match self.echo {
            Some((echo, 0)) => echo,
            _ => self.echo.insert((entropy.number(), 0)).0,
        };
        handshake::hello(&envelope(cluster), echo)
    }

    /// The identity that the server claimed: the proved one if there is one, else the newest.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        let proved = self.greetings.iter().find(|greeted| greeted.proved);
        proved.or(self.greetings.back()).map(|greeted| greeted.greeting)
    }

    /// Encodes an initiation that carries `packet`; none if there is no recent RETRY that names this
    /// cluster.
    pub fn initiation(
        &mut self,
        now: Moment,
        identity: &Identity,
        packet: &ToServer,
        entropy: &mut Entropy,
    ) -> Option<Vec<u8>> {
        self.greetings.retain(|greeted| greeted.is_good(now, identity));
        // A RETRY that was not tried yet comes first, the newest of them.
        let greeted =
            self.greetings.iter_mut().max_by_key(|greeted| (greeted.initiated.is_none(), greeted.at))?;
        greeted.initiated.get_or_insert(now);
        let ReceivedRetry { cookie, greeting: Greeting { server, boot_id, cluster, cluster_key }, .. } =
            *greeted;
        let prologue = Prologue { cluster, server, boot_id };
        let load = handshake::load(std::slice::from_ref(packet));
        let (initiation, message) =
            Initiation::new(prologue, &cluster_key, &identity.private, &load, entropy).ok()?;
        if self.initiations.len() >= INITIATIONS_MAX {
            self.initiations.pop_front();
        }
        self.initiations.push_back((initiation, *greeted));
        Some(handshake::initiation(&envelope(cluster), &cookie, &message))
    }

    /// The version of the protocol that the server said to speak instead of this one. Anybody who sees the
    /// HELLO can say so: it is to be believed only if no server has given another answer in time.
    pub(crate) fn other_version(&self) -> Option<u8> {
        self.other_version
    }

    /// The version that a VERSION names, if the datagram is one that answers the last HELLO. It is believed
    /// as little as [`HandshakeClient::other_version`].
    pub(super) fn version(&self, datagram: &[u8]) -> Option<u8> {
        let (echo, version) = version::read(datagram)?;
        self.echo.is_some_and(|(asked, _)| asked == echo).then_some(version)
    }

    /// Takes a datagram of the class Handshake; none if it answers nothing that was sent.
    pub fn take(&mut self, now: Moment, datagram: &[u8]) -> Option<FromServer> {
        if let Some(version) = self.version(datagram) {
            self.other_version = Some(version);
            return None;
        }
        let (envelope, handshake) = Handshake::read(datagram).ok()?;
        match handshake {
            Handshake::Retry(retry) => {
                let (echo, answers) = self.echo.as_mut()?;
                let greeting = Greeting {
                    server: envelope.node?,
                    boot_id: retry.boot_id,
                    cluster: envelope.cluster,
                    cluster_key: retry.cluster_key,
                };
                let same = |of: &ReceivedRetry| (of.cookie, of.greeting) == (retry.cookie, greeting);
                let again = self.greetings.iter().any(|of| of.echo == retry.echo && same(of));
                if retry.echo != *echo || *answers >= RETRIES_MAX || again {
                    return None;
                }
                *answers += 1;
                self.greetings.retain(|of| !same(of));
                self.greetings.truncate(GREETINGS_MAX - 1);
                let (cookie, proved, initiated) = (retry.cookie, false, None);
                self.greetings.push_back(ReceivedRetry {
                    at: now,
                    echo: *echo,
                    cookie,
                    greeting,
                    proved,
                    initiated,
                });
                Some(FromServer::Greeting(greeting))
            }
            Handshake::Answer(opening) => {
                if let Some(answer) = self.in_pieces.iter_mut().find(|answer| answer.opening == *opening) {
                    let opened = handshake::open_answer(&answer.key, datagram).ok()?;
                    return answer.take(now, opened).map(FromServer::Answer);
                }
                let found = self.initiations.iter_mut().enumerate().find_map(|(at, (initiation, _))| {
                    initiation.read_response(opening).ok().map(|key| (at, key))
                });
                let (at, key) = found?;
                // The answer belongs to this initiation and is accepted once. It shows that the initiation's
                // RETRY was genuine.
                if let Some((_, greeted)) = self.initiations.remove(at) {
                    if let Some((_, answers)) = self.echo.as_mut().filter(|(echo, _)| *echo == greeted.echo) {
                        *answers = RETRIES_MAX;
                    }
                    self.greetings =
                        VecDeque::from([ReceivedRetry { proved: true, initiated: None, ..greeted }]);
                }
                let opened = handshake::open_answer(&key, datagram).ok()?;
                if !opened.packets.iter().any(|packet| matches!(packet, ToClient::Fragment(_))) {
                    return Some(FromServer::Answer(opened));
                }
                if self.in_pieces.len() >= ANSWERS_MAX {
                    self.in_pieces.pop_front();
                }
                let mut answer = InPieces { opening: *opening, key, reassembler: Reassembler::default() };
                let whole = answer.take(now, opened).map(FromServer::Answer);
                self.in_pieces.push_back(answer);
                whole
            }
            _ => None,
        }
    }
}

fn envelope(cluster: ClusterId) -> Envelope {
    Envelope {
        class: Class::Handshake,
        cluster,
        session: SessionId::default(),
        node: None,
        incarnation: Incarnation(0),
        number: 0,
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::envelope::Header;
    use recado_proto::id::View;
    use recado_proto::{codec, noise};

    use super::*;
    use crate::machine::tests::server::{HandshakeEvent, HandshakeServer, handshake_config};

    const NOW: Moment = Moment(1_000_000);

    /// A client's handshake that has sent HELLO, the server's side, and the server's RETRY.
    fn greeted() -> (HandshakeClient, HandshakeServer, Identity, Vec<u8>) {
        let ours = handshake_config(1, 1);
        let identity = Identity {
            cluster: ours.cluster,
            cluster_key: noise::public(&ours.keys.cluster_private()),
            private: Key::new([1; 32]),
        };
        let (mut initiator, mut server) = (HandshakeClient::default(), HandshakeServer::new(ours));
        let hello = initiator.hello(identity.cluster, &mut Entropy::new([2; 32]));
        let Some(HandshakeEvent::Retry(retry)) = server.receive(client(), &hello) else { panic!("no RETRY") };
        (initiator, server, identity, retry)
    }

    fn client() -> std::net::SocketAddr {
        ([127, 0, 0, 9], 4_000).into()
    }

    fn forged(retry: &[u8], lie: u8) -> Vec<u8> {
        let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(retry) else { panic!("no RETRY") };
        handshake::retry(
            &envelope,
            &handshake::Retry { cookie: [lie; 16], boot_id: BootId([lie; 16]), ..retry },
        )
    }

    #[test]
    fn a_true_answer_stays_beside_the_newest_forged_one_and_only_four_are_tried() {
        let (mut initiator, _, _, retry) = greeted();
        let truth = initiator.take(NOW, &retry);
        assert!(matches!(truth, Some(FromServer::Greeting(_))));
        assert!(initiator.take(NOW, &retry).is_none(), "it came before");
        let taken: Vec<bool> =
            (1..=5).map(|lie| initiator.take(NOW, &forged(&retry, lie)).is_some()).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert_eq!(initiator.greetings.len(), GREETINGS_MAX);
        assert_eq!(Some(FromServer::Greeting(initiator.greetings[0].greeting)), truth);
    }

    #[test]
    fn once_a_server_has_proved_itself_no_other_answer_to_that_hello_is_taken() {
        let (mut initiator, mut server, identity, retry) = greeted();
        initiator.take(NOW, &retry);
        let initiation =
            initiator.initiation(NOW, &identity, &ToServer::keepalive(), &mut Entropy::new([3; 32])).unwrap();
        let Some(HandshakeEvent::Initiation { reply, .. }) = server.receive(client(), &initiation) else {
            panic!("no INITIATION")
        };
        let header = Header { ack: None, view: View::ZERO };
        let load = [codec::encode(&ToClient::PathChallenge(1))];
        let answer = handshake::answer(&envelope(identity.cluster), &reply, &header, &load);
        assert!(matches!(initiator.take(NOW, &answer), Some(FromServer::Answer(_))));
        assert!(initiator.take(NOW, &forged(&retry, 1)).is_none());
        assert!(
            initiator.greeting().is_some_and(|greeting| greeting.boot_id == handshake_config(1, 1).boot_id)
        );
    }
    /// True if an INITIATION can be sent there now.
    fn initiations(initiator: &mut HandshakeClient, now: Moment, identity: &Identity) -> Option<Cookie> {
        let initiation =
            initiator.initiation(now, identity, &ToServer::keepalive(), &mut Entropy::new([3; 32]))?;
        let Ok((_, Handshake::Initiation { cookie, .. })) = Handshake::read(&initiation) else {
            panic!("no INITIATION")
        };
        Some(cookie)
    }

    #[test]
    fn another_version_is_noted_if_it_answers_the_hello_and_changes_nothing_else() {
        let (mut initiator, _, _, retry) = greeted();
        let mut initiator_before = HandshakeClient::default();
        let said = |echo: [u8; 8]| [&[0x72, 0x65, 0, 0][..], &echo, &[2]].concat();
        assert_eq!(initiator_before.take(NOW, &said([0; 8])), None);
        assert_eq!(initiator_before.other_version(), None, "it has asked nothing");
        let Ok((_, Handshake::Retry(handshake::Retry { echo, .. }))) = Handshake::read(&retry) else {
            panic!("no RETRY")
        };
        assert_eq!(initiator.take(NOW, &said((echo ^ 1).to_be_bytes())), None);
        assert_eq!(initiator.other_version(), None);
        assert_eq!(initiator.take(NOW, &said(echo.to_be_bytes())), None);
        assert_eq!(initiator.other_version(), Some(2));
        assert!(matches!(initiator.take(NOW, &retry), Some(FromServer::Greeting(_))));
    }

    #[test]
    fn a_cookie_is_good_for_eight_seconds_and_no_longer() {
        for (age, good) in [(COOKIE_GOOD - Duration::from_micros(1), true), (COOKIE_GOOD, false)] {
            let (mut initiator, _, identity, retry) = greeted();
            initiator.take(NOW, &retry);
            assert_eq!(initiations(&mut initiator, NOW + age, &identity).is_some(), good, "after {age:?}");
        }
    }

    #[test]
    fn a_greeting_is_given_up_a_tenth_of_a_second_after_its_first_initiation_that_nobody_answers() {
        let (mut initiator, _, identity, retry) = greeted();
        initiator.take(NOW, &retry);
        let times = [0, 50_000, 99_999, 100_000].map(Duration::from_micros);
        let initiated = times.map(|after| initiations(&mut initiator, NOW + after, &identity).is_some());
        assert_eq!(initiated, [true, true, true, false]);
    }

    #[test]
    fn a_server_that_greets_anew_in_the_same_words_is_as_new() {
        let (mut initiator, mut server, identity, retry) = greeted();
        initiator.take(NOW, &retry);
        let truth = initiations(&mut initiator, NOW, &identity);
        let later = NOW + Duration::from_millis(90);
        let hello = initiator.hello(identity.cluster, &mut Entropy::new([5; 32]));
        let Some(HandshakeEvent::Retry(retry)) = server.receive(client(), &hello) else { panic!("no RETRY") };
        assert!(initiator.take(later, &retry).is_some());
        assert!(initiator.take(later, &forged(&retry, 1)).is_some());
        // The forged one is the newest; once it was tried it is the turn of the true one, whose first
        // initiation was lost long ago.
        let end = NOW + Duration::from_millis(110);
        assert_eq!([(); 2].map(|()| initiations(&mut initiator, end, &identity)), [Some([1; 16]), truth]);
    }

    #[test]
    fn the_answers_to_the_last_four_initiations_are_taken() {
        let (mut initiator, mut server, identity, retry) = greeted();
        initiator.take(NOW, &retry);
        let mut entropy = Entropy::new([3; 32]);
        let mut initiated = || {
            let initiation =
                initiator.initiation(NOW, &identity, &ToServer::keepalive(), &mut entropy).unwrap();
            let Some(HandshakeEvent::Initiation { reply, .. }) = server.receive(client(), &initiation) else {
                panic!("no INITIATION")
            };
            let header = Header { ack: None, view: View::ZERO };
            let load = [codec::encode(&ToClient::PathChallenge(1))];
            handshake::answer(&envelope(identity.cluster), &reply, &header, &load)
        };
        let answers: Vec<Vec<u8>> = (0..=INITIATIONS_MAX).map(|_| initiated()).collect();
        let taken: Vec<bool> = answers.iter().map(|answer| initiator.take(NOW, answer).is_some()).collect();
        assert_eq!(taken, [false, true, true, true, true]);
        assert!(initiator.take(NOW, &answers[4]).is_none(), "each once");
    }

    #[test]
    fn a_handshake_packet_reveals_nothing_of_its_sender() {
        let (mut initiator, _, identity, retry) = greeted();
        initiator.take(NOW, &retry);
        let initiation =
            initiator.initiation(NOW, &identity, &ToServer::keepalive(), &mut Entropy::new([3; 32])).unwrap();
        for said in [initiator.hello(identity.cluster, &mut Entropy::new([2; 32])), initiation] {
            let envelope = Envelope::peek(&said).unwrap();
            let Envelope { session, node, incarnation, number, .. } = envelope;
            assert_eq!((session, node, incarnation.0, number), (SessionId::default(), None, 0, 0));
        }
    }
}
