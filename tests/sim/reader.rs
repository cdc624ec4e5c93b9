//! One simulated reader: queries without a session, as the key of a client's installation, to any of the
//! servers. It keeps the token that it shares with its client, and checks that no answer is older than was
//! asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use recado::config::PlantedBug;
use recado_client::Consistency;
use recado_client::machine::handshake::Identity;
use recado_client::machine::handshakes::HandshakeClients;
use recado_client::machine::reading::{self, HEDGE_LEAST, Outcome, Reading};
use recado_proto::entropy::Entropy;
use recado_proto::id::{Moment, Name, Op, StoreKey, Topic};
use recado_proto::packet::{AnswerKind, History, HistoryRange, List, Listing, Query, QueryId, QueryKind};

use crate::faults::MS;
use crate::history::{self, ClientEvent, ClientId};
use crate::network::{Micros, client_address};
use crate::rng::Rng;
use crate::{population, tap};

/// The hosts of readers have these numbers.
pub const FIRST: u8 = 200;
/// The interval at which a query goes on.
pub const TICK: Micros = HEDGE_LEAST.as_micros() as Micros;
/// The longest time that the application waits for an answer.
const PATIENCE: Micros = 2_000 * MS;

/// What was known when a query was asked.
#[derive(Clone, Debug)]
struct Asked {
    at: Micros,
    consistency: Consistency,
    /// The token of the query.
    token: Op,
    /// The highest op of which any client had been told.
    told: Op,
    /// True if it must be answered: every fault had ended long before.
    must: bool,
    /// The key, if a value was asked for.
    key: Option<StoreKey>,
}

/// A reader.
#[derive(Debug)]
pub struct Reader {
    /// The client whose installation it is of.
    client: ClientId,
    profile: Name,
    clients: HandshakeClients,
    /// The highest op that the installation has seen.
    token: Op,
    /// The events of the history that the token has followed.
    looked_at: usize,
    queries: u64,
    under_way: Option<(Reading, Asked)>,
    /// True if it reads the store.
    values: bool,
    planted: PlantedBug,
    rng: Rng,
}

/// What came of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Nothing yet.
    Nothing,
    /// An answer, or none.
    End { answered: bool, behind: bool },
}

impl Reader {
    pub fn new(
        client: ClientId,
        profile: Name,
        key: u8,
        values: bool,
        planted: PlantedBug,
        mut rng: Rng,
        servers: &[SocketAddr],
    ) -> Reader {
        let identity = Identity {
            cluster: population::CLUSTER,
            cluster_key: tap::cluster_key(),
            private: tap::private(key),
        };
        let clients = HandshakeClients::new(servers, identity, Entropy::from_number(rng.next()));
        Reader {
            client,
            profile,
            clients,
            token: Op::ZERO,
            looked_at: 0,
            queries: 0,
            under_way: None,
            values,
            planted,
            rng,
        }
    }

    pub fn address(&self) -> SocketAddr {
        client_address(FIRST + self.client.0, 0)
    }

    /// Follows what its client was told.
    fn follow(&mut self, history: &history::History) {
        for (who, what) in &history.events[self.looked_at..] {
            let seen = match what {
                _ if *who != self.client => continue,
                ClientEvent::Acked { op, .. } | ClientEvent::Delivered { op, .. } => *op,
                ClientEvent::Read { applied, .. } | ClientEvent::Got { applied, .. } => *applied,
                _ => continue,
            };
            self.token = self.token.max(seen);
        }
        self.looked_at = history.events.len();
    }

    /// Begins a query, unless one is under way.
    pub fn act(&mut self, now: Micros, told: Op, must: bool, history: &history::History) {
        if self.under_way.is_some() {
            return;
        }
        self.follow(history);
        self.queries += 1;
        let key = (self.values && self.rng.permille(600)).then(|| match self.rng.below(5) {
            0 => population::key(&format!("@{}/k", self.profile)),
            n => population::key(&format!("k{}", n + 1)),
        });
        let kind = match (self.rng.below(3), key.clone()) {
            (_, Some(key)) => QueryKind::Get { key },
            (0, None) => QueryKind::Info { profile: None },
            (1, None) => QueryKind::List(List { what: Listing::People, after: None }),
            (_, None) => QueryKind::History(History {
                topic: Some(Topic::Feed(self.profile.clone())),
                range: HistoryRange::Before(Op(u64::MAX)),
                limit: 8,
            }),
        };
        let consistency = match self.rng.below(10) {
            0 => Consistency::Any,
            1..=3 => Consistency::Linearizable,
            _ => Consistency::Session,
        };
        let query = Query::new(QueryId(self.queries), kind);
        let query = reading::asked(query, &self.profile, self.token, consistency);
        let reading =
            Reading::new(&self.clients, query, Duration::ZERO, Moment(now)).with_planted(self.planted);
        self.under_way = Some((reading, Asked { at: now, consistency, token: self.token, told, must, key }));
    }

    /// The datagrams of the query under way.
    pub fn datagrams(&mut self, now: Micros) -> Vec<(SocketAddr, Vec<u8>)> {
        match &mut self.under_way {
            Some((reading, _)) => reading.datagrams(Moment(now), &mut self.clients),
            None => Vec::new(),
        }
    }

    /// Takes a datagram. Returns true if more is to be sent at once.
    pub fn take(&mut self, now: Micros, from: SocketAddr, datagram: &[u8]) -> bool {
        match &mut self.under_way {
            Some((reading, _)) => reading.take(Moment(now), from, datagram, &mut self.clients),
            None => false,
        }
    }

    /// Ends the query if it is over, and checks its answer.
    ///
    /// # Errors
    /// The answer is older than was asked for, or there is none where there has to be one.
    pub fn end(&mut self, now: Micros, history: &mut history::History) -> Result<Came, String> {
        let over =
            |(reading, asked): &(Reading, Asked)| reading.is_over(Moment(now)) || now >= asked.at + PATIENCE;
        let Some((reading, asked)) = self.under_way.take_if(|one| over(one)) else {
            return Ok(Came::Nothing);
        };
        let why = |what: String| Err(format!("the reader of {}: {what}; {asked:?}", self.profile));
        match reading.outcome() {
            Outcome::Answer { answer, age, .. } => {
                let applied = answer.applied.op().unwrap_or_default();
                match asked.consistency {
                    Consistency::Any => {}
                    Consistency::Session if applied < asked.token => {
                        return why(format!("an answer of op {applied}, which is older than its token"));
                    }
                    Consistency::Linearizable if applied < asked.told => {
                        return why(format!("a linearizable answer of op {applied}"));
                    }
                    Consistency::Linearizable if age.is_some() => {
                        return why("a linearizable answer of a server that does not lead".into());
                    }
                    Consistency::Session | Consistency::Linearizable => {}
                }
                self.token = self.token.max(applied);
                if let (Some(key), AnswerKind::Value(value)) = (asked.key, answer.kind) {
                    let value = value.map(|value| (value.value.to_string(), value.timestamp));
                    history.note(self.client, ClientEvent::Got { query: None, key, value, applied });
                }
                Ok(Came::End { answered: true, behind: false })
            }
            Outcome::Refused(_) => Ok(Came::End { answered: false, behind: false }),
            outcome @ (Outcome::Behind(_) | Outcome::Silence) if asked.must => {
                why(format!("no answer within {} ms: {outcome:?}", PATIENCE / MS))
            }
            Outcome::Behind(_) => Ok(Came::End { answered: false, behind: true }),
            Outcome::Silence => Ok(Came::End { answered: false, behind: false }),
        }
    }
}

/// The readers of these clients, one for each profile.
pub fn readers<'a>(
    clients: impl Iterator<Item = (ClientId, &'a Name, u8)>,
    values: bool,
    planted: PlantedBug,
    rng: &mut Rng,
    servers: &[SocketAddr],
) -> BTreeMap<u8, Reader> {
    let mut readers = BTreeMap::new();
    for (client, profile, key) in clients {
        let reader = Reader::new(client, profile.clone(), key, values, planted, rng.fork(), servers);
        readers.insert(FIRST + client.0, reader);
    }
    readers
}
