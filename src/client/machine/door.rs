//! A server's door as seen from outside: what it takes to ask something without a session. HELLO,
//! until a RETRY tells how to knock; then a KNOCK with the question, and its answer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::entropy::Entropy;
use crate::id::{BootId, ClusterId, Incarnation, Moment, NodeId, SessionId};
use crate::wire::envelope::{Class, Envelope, Opened};
use crate::wire::handshake::{self, Cookie, Handshake};
use crate::wire::noise::{Knock, Prologue};
use crate::wire::packet::Packet;
use crate::wire::seal::Key;

/// A cookie is good for at least 10 s.
const COOKIE_GOOD: Duration = Duration::from_secs(8);

/// Greetings kept: the older and the newer. Whoever sees a HELLO can answer it with anything, before the
/// server does or after it, and only the answer to a KNOCK tells whose greeting was true.
const GREETINGS_MAX: usize = 2;

/// Answers to one HELLO that are taken, each of which is knocked by: more than that is a flood.
const RETRIES_MAX: usize = 4;

/// Knocks whose answers may still come.
const KNOCKS_MAX: usize = 4;

/// A greeting by which was knocked for so long without an answer is dropped: it is forged, of a life that is
/// over, or old. Another one is tried, or HELLO is said again.
const UNANSWERED: Duration = Duration::from_millis(100);

/// What it takes to be let in: which cluster, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its key, which is trusted.
    pub cluster_key: [u8; 32],
    /// The private half of the device's own key.
    pub private: Key,
}

impl Identity {
    /// Whether a server says that it is of this cluster. One that is not can be said nothing but HELLO,
    /// and its greeting is no reason to say that again.
    pub fn trusts(&self, greeting: &Greeting) -> bool {
        greeting.cluster == self.cluster && greeting.cluster_key == self.cluster_key
    }
}

/// What a server says of itself, not to be believed: only a handshake proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Which server.
    pub server: NodeId,
    /// Its life.
    pub life: BootId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// What that cluster's key is.
    pub cluster_key: [u8; 32],
}

/// What came from a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromDoor {
    /// RETRY: now it can be knocked at.
    Greeting(Greeting),
    /// The answer to a KNOCK, from a server of the cluster.
    Answer(Opened),
}

/// One server's door.
#[derive(Debug, Default)]
pub struct Door {
    /// What the last HELLO is to be answered with, and how many answers were taken.
    echo: Option<(u64, usize)>,
    /// The older first.
    greetings: VecDeque<Greeted>,
    /// Each with the greeting that it was knocked by.
    knocks: VecDeque<(Knock, Greeted)>,
}

/// A greeting, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Greeted {
    at: Moment,
    /// Of the HELLO that it answers.
    echo: u64,
    cookie: Cookie,
    greeting: Greeting,
    /// Whether the answer to a KNOCK has shown that it is true.
    proved: bool,
    /// Since when it was knocked by without an answer.
    knocked: Option<Moment>,
}

impl Greeted {
    fn is_good(&self, now: Moment, identity: &Identity) -> bool {
        identity.trusts(&self.greeting)
            && now.since(self.at) < COOKIE_GOOD
            && self.knocked.is_none_or(|since| now.since(since) < UNANSWERED)
    }
}

impl Door {
    /// A HELLO.
    pub fn hello(&mut self, cluster: ClusterId, entropy: &mut Entropy) -> Vec<u8> {
        let (echo, _) = match self.echo {
            Some((echo, 0)) => (echo, 0),
            _ => *self.echo.insert((entropy.number(), 0)),
        };
        handshake::hello(&envelope(cluster), echo)
    }

    /// What the server said of itself: what is proved if anything is, else the newest.
    pub fn greeting(&self) -> Option<Greeting> {
        let proved = self.greetings.iter().find(|greeted| greeted.proved);
        proved.or(self.greetings.back()).map(|greeted| greeted.greeting)
    }

    /// A KNOCK with a question, for a server that has said HELLO back lately as one of this cluster.
    pub fn knock(
        &mut self,
        now: Moment,
        identity: &Identity,
        question: &Packet,
        entropy: &mut Entropy,
    ) -> Option<Vec<u8>> {
        self.greetings.retain(|greeted| greeted.is_good(now, identity));
        // One that was not tried yet first, the newest of them.
        let greeted =
            self.greetings.iter_mut().max_by_key(|greeted| (greeted.knocked.is_none(), greeted.at))?;
        greeted.knocked.get_or_insert(now);
        let Greeted { cookie, greeting: Greeting { server, life, cluster, cluster_key }, .. } = *greeted;
        let prologue = Prologue { cluster, server, life };
        let load = handshake::load(std::slice::from_ref(question));
        let (knock, message) = Knock::new(prologue, &cluster_key, &identity.private, &load, entropy).ok()?;
        if self.knocks.len() >= KNOCKS_MAX {
            self.knocks.pop_front();
        }
        self.knocks.push_back((knock, *greeted));
        Some(handshake::knock(&envelope(cluster), &cookie, &message))
    }

    /// Takes a datagram of the class Handshake; none if it answers nothing.
    pub fn take(&mut self, now: Moment, datagram: &[u8]) -> Option<FromDoor> {
        let (envelope, handshake) = Handshake::read(datagram).ok()?;
        match handshake {
            Handshake::Retry(retry) => {
                let (echo, answers) = self.echo.as_mut()?;
                let greeting = Greeting {
                    server: envelope.node?,
                    life: retry.life,
                    cluster: envelope.cluster,
                    cluster_key: retry.cluster_key,
                };
                let same = |of: &Greeted| (of.cookie, of.greeting) == (retry.cookie, greeting);
                let again = self.greetings.iter().any(|of| of.echo == retry.echo && same(of));
                if retry.echo != *echo || *answers >= RETRIES_MAX || again {
                    return None;
                }
                *answers += 1;
                self.greetings.retain(|of| !same(of));
                self.greetings.truncate(GREETINGS_MAX - 1);
                let (cookie, proved, knocked) = (retry.cookie, false, None);
                self.greetings.push_back(Greeted { at: now, echo: *echo, cookie, greeting, proved, knocked });
                Some(FromDoor::Greeting(greeting))
            }
            Handshake::Answer(opening) => {
                let found = self
                    .knocks
                    .iter_mut()
                    .enumerate()
                    .find_map(|(at, (knock, _))| knock.opened(opening).ok().map(|key| (at, key)));
                let (at, key) = found?;
                // It answers this one and no other, and no knock twice; and it shows which greeting was true.
                if let Some((_, greeted)) = self.knocks.remove(at) {
                    if let Some((_, answers)) = self.echo.as_mut().filter(|(echo, _)| *echo == greeted.echo) {
                        *answers = RETRIES_MAX;
                    }
                    self.greetings = VecDeque::from([Greeted { proved: true, knocked: None, ..greeted }]);
                }
                handshake::open_answer(&key, datagram).ok().map(FromDoor::Answer)
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
    use super::*;
    use crate::id::View;
    use crate::server::door::tests::keeper;
    use crate::server::door::{self as server, Visit};
    use crate::wire::envelope::Header;
    use crate::wire::{codec, noise};

    const NOW: Moment = Moment(1_000_000);

    /// A client's door that has said HELLO, and the server's with its answer.
    fn greeted() -> (Door, server::Door, Identity, Vec<u8>) {
        let ours = keeper(1, 1);
        let identity = Identity {
            cluster: ours.cluster,
            cluster_key: noise::public(&ours.keys.cluster_private()),
            private: Key::new([1; 32]),
        };
        let (mut door, mut server) = (Door::default(), server::Door::new(ours, [4; 32]));
        let hello = door.hello(identity.cluster, &mut Entropy::new([2; 32]));
        let Ok(Visit::Retry(retry)) = server.visit(NOW, client(), &hello) else { panic!("no RETRY") };
        (door, server, identity, retry)
    }

    fn client() -> std::net::SocketAddr {
        ([127, 0, 0, 9], 4_000).into()
    }

    fn forged(retry: &[u8], lie: u8) -> Vec<u8> {
        let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(retry) else { panic!("no RETRY") };
        handshake::retry(&envelope, &handshake::Retry { cookie: [lie; 16], life: BootId([lie; 16]), ..retry })
    }

    #[test]
    fn a_true_answer_stays_beside_the_newest_forged_one_and_only_four_are_tried() {
        let (mut door, _, _, retry) = greeted();
        let truth = door.take(NOW, &retry);
        assert!(matches!(truth, Some(FromDoor::Greeting(_))));
        assert!(door.take(NOW, &retry).is_none(), "it came before");
        let taken: Vec<bool> = (1..=5).map(|lie| door.take(NOW, &forged(&retry, lie)).is_some()).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert_eq!(door.greetings.len(), GREETINGS_MAX);
        assert_eq!(Some(FromDoor::Greeting(door.greetings[0].greeting)), truth);
    }

    #[test]
    fn once_a_server_has_proved_itself_no_other_answer_to_that_hello_is_taken() {
        let (mut door, mut server, identity, retry) = greeted();
        door.take(NOW, &retry);
        let knock = door.knock(NOW, &identity, &Packet::Keepalive, &mut Entropy::new([3; 32])).unwrap();
        let Ok(Visit::Knock { caller, .. }) = server.visit(NOW, client(), &knock) else { panic!("no KNOCK") };
        let header = Header { ack: None, view: View::ZERO };
        let load = [codec::encode(&Packet::Keepalive)];
        let answer = handshake::answer(&envelope(identity.cluster), &caller.reply, &header, &load);
        assert!(matches!(door.take(NOW, &answer), Some(FromDoor::Answer(_))));
        assert!(door.take(NOW, &forged(&retry, 1)).is_none());
        assert!(door.greeting().is_some_and(|greeting| greeting.life == keeper(1, 1).life));
    }
    /// Whether it can be knocked there now.
    fn knocks(door: &mut Door, now: Moment, identity: &Identity) -> Option<Cookie> {
        let knock = door.knock(now, identity, &Packet::Keepalive, &mut Entropy::new([3; 32]))?;
        let Ok((_, Handshake::Knock { cookie, .. })) = Handshake::read(&knock) else { panic!("no KNOCK") };
        Some(cookie)
    }

    #[test]
    fn a_cookie_is_good_for_eight_seconds_and_no_longer() {
        for (age, good) in [(COOKIE_GOOD - Duration::from_micros(1), true), (COOKIE_GOOD, false)] {
            let (mut door, _, identity, retry) = greeted();
            door.take(NOW, &retry);
            assert_eq!(knocks(&mut door, NOW + age, &identity).is_some(), good, "after {age:?}");
        }
    }

    #[test]
    fn a_greeting_is_given_up_a_tenth_of_a_second_after_its_first_knock_that_nobody_answers() {
        let (mut door, _, identity, retry) = greeted();
        door.take(NOW, &retry);
        let times = [0, 50_000, 99_999, 100_000].map(Duration::from_micros);
        let knocked = times.map(|after| knocks(&mut door, NOW + after, &identity).is_some());
        assert_eq!(knocked, [true, true, true, false]);
    }

    #[test]
    fn a_server_that_greets_anew_in_the_same_words_is_as_new() {
        let (mut door, mut server, identity, retry) = greeted();
        door.take(NOW, &retry);
        let truth = knocks(&mut door, NOW, &identity);
        let later = NOW + Duration::from_millis(90);
        let hello = door.hello(identity.cluster, &mut Entropy::new([5; 32]));
        let Ok(Visit::Retry(retry)) = server.visit(later, client(), &hello) else { panic!("no RETRY") };
        assert!(door.take(later, &retry).is_some());
        assert!(door.take(later, &forged(&retry, 1)).is_some());
        // The forged one is the newest; once it was tried it is the turn of the true one, whose first knock
        // was lost long ago.
        let end = NOW + Duration::from_millis(110);
        assert_eq!([(); 2].map(|()| knocks(&mut door, end, &identity)), [Some([1; 16]), truth]);
    }

    #[test]
    fn the_answers_to_the_last_four_knocks_are_taken() {
        let (mut door, mut server, identity, retry) = greeted();
        door.take(NOW, &retry);
        let mut entropy = Entropy::new([3; 32]);
        let mut knocked = || {
            let knock = door.knock(NOW, &identity, &Packet::Keepalive, &mut entropy).unwrap();
            let Ok(Visit::Knock { caller, .. }) = server.visit(NOW, client(), &knock) else {
                panic!("no KNOCK")
            };
            let header = Header { ack: None, view: View::ZERO };
            let load = [codec::encode(&Packet::Keepalive)];
            handshake::answer(&envelope(identity.cluster), &caller.reply, &header, &load)
        };
        let answers: Vec<Vec<u8>> = (0..=KNOCKS_MAX).map(|_| knocked()).collect();
        let taken: Vec<bool> = answers.iter().map(|answer| door.take(NOW, answer).is_some()).collect();
        assert_eq!(taken, [false, true, true, true, true]);
        assert!(door.take(NOW, &answers[4]).is_none(), "each once");
    }

    #[test]
    fn what_is_said_at_a_door_tells_nothing_of_who_says_it() {
        let (mut door, _, identity, retry) = greeted();
        door.take(NOW, &retry);
        let knock = door.knock(NOW, &identity, &Packet::Keepalive, &mut Entropy::new([3; 32])).unwrap();
        for said in [door.hello(identity.cluster, &mut Entropy::new([2; 32])), knock] {
            let envelope = Envelope::peek(&said).unwrap();
            let Envelope { session, node, incarnation, number, .. } = envelope;
            assert_eq!((session, node, incarnation.0, number), (SessionId::default(), None, 0, 0));
        }
    }
}
