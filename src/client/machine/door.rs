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

/// Knocks whose answers may still come: the last, and the one before it.
const KNOCKS_MAX: usize = 2;

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
    /// What the last HELLO is to be answered with.
    echo: Option<u64>,
    greeting: Option<(Moment, Cookie, Greeting)>,
    knocks: VecDeque<Knock>,
}

impl Door {
    /// A HELLO.
    pub fn hello(&mut self, cluster: ClusterId, entropy: &mut Entropy) -> Vec<u8> {
        let echo = *self.echo.get_or_insert_with(|| entropy.number());
        handshake::hello(&envelope(cluster), echo)
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> Option<Greeting> {
        self.greeting.map(|(_, _, greeting)| greeting)
    }

    /// A KNOCK with a question, for a server that has said HELLO back lately as one of this cluster.
    pub fn knock(
        &mut self,
        now: Moment,
        identity: &Identity,
        question: &Packet,
        entropy: &mut Entropy,
    ) -> Option<Vec<u8>> {
        let (at, cookie, greeting) = self.greeting.as_ref()?;
        let Greeting { server, life, cluster, cluster_key } = *greeting;
        if !identity.trusts(greeting) || now.since(*at) >= COOKIE_GOOD {
            return None;
        }
        let prologue = Prologue { cluster, server, life };
        let load = handshake::load(std::slice::from_ref(question));
        let (knock, message) = Knock::new(prologue, &cluster_key, &identity.private, &load, entropy).ok()?;
        if self.knocks.len() >= KNOCKS_MAX {
            self.knocks.pop_front();
        }
        self.knocks.push_back(knock);
        Some(handshake::knock(&envelope(cluster), cookie, &message))
    }

    /// Takes a datagram of the class Handshake; none if it answers nothing.
    pub fn take(&mut self, now: Moment, datagram: &[u8]) -> Option<FromDoor> {
        let (envelope, handshake) = Handshake::read(datagram).ok()?;
        match handshake {
            Handshake::Retry(retry) if Some(retry.echo) == self.echo => {
                self.echo = None;
                let greeting = Greeting {
                    server: envelope.node?,
                    life: retry.life,
                    cluster: envelope.cluster,
                    cluster_key: retry.cluster_key,
                };
                self.greeting = Some((now, retry.cookie, greeting));
                Some(FromDoor::Greeting(greeting))
            }
            Handshake::Answer(opening) => {
                let found = self
                    .knocks
                    .iter_mut()
                    .enumerate()
                    .find_map(|(at, knock)| knock.opened(opening).ok().map(|key| (at, key)));
                let (at, key) = found?;
                // It answers this one and no other, and no knock twice.
                self.knocks.remove(at);
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
