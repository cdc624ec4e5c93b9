//! One query without a session, to any of the servers: whom it goes to and when, and which answer counts.
//!
//! Servers are ranked by a hash of what is asked and their address (rendezvous hashing, Thaler and
//! Ravishankar 1998), so that queries spread over them and the same query goes to the same server. The first
//! one is asked alone. If it has not answered soon, or refuses for now, the next one is asked too (a hedged
//! request, Dean and Barroso, "The tail at scale", 2013). One answer counts: the first that is as late as the
//! token.
//!
//! What only the primary knows for certain is that something is not there, or not allowed. So a refusal by
//! another server counts only when no server has anything better in a short time.
//!
//! Pure: the caller sends the datagrams and gives the time.

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::codec;
use recado_proto::fnv::fnv1a;
use recado_proto::id::{Moment, Name, Op};
use recado_proto::packet::{
    Answer, AnswerKind, Answers, Code, OptionalFields, Position, Query, QueryId, Refused, ToClient, ToServer,
};
use recado_proto::planted::{Planted, PlantedBug};

use super::handshake::FromServer;
use super::handshakes::HandshakeClients;

/// The least time after which the next server is asked too.
pub const HEDGE_LEAST: Duration = Duration::from_millis(20);

/// The interval at which a server is asked again that has not answered.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long a refusal of a server that is not the primary waits for something better.
const REFUSAL_WAITS: Duration = Duration::from_millis(500);

/// How late an answer has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As late as a server happens to be: an answer may be older than an earlier one.
    Any,
    /// As late as everything that this installation has seen: it reads its own writes, and reads never go
    /// back.
    #[default]
    Session,
    /// As late as everything that anybody was told before the query (linearizable). Only a primary that a
    /// majority confirms gives it.
    Linearizable,
}

/// The query at this consistency, asked as `profile`, for an installation that has seen everything up to
/// `token`.
pub fn asked(query: Query, profile: &Name, token: Op, consistency: Consistency) -> Query {
    let byte = match consistency {
        Consistency::Any => Some(0),
        Consistency::Session => None,
        Consistency::Linearizable => Some(1),
    };
    let options = query.options.with(OptionalFields::PROFILE, profile.as_str().as_bytes().to_vec());
    let options = match byte {
        Some(byte) => options.with(OptionalFields::CONSISTENCY, vec![byte]),
        None => options,
    };
    Query { at_least: Some(Position::of(token)), options, ..query }
}

/// What came of a query.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered.
    Answer {
        /// The answer.
        answer: Box<Answer>,
        /// How long its server has heard no primary; see [`OptionalFields::AGE`].
        age: Option<Age>,
        /// The server.
        from: SocketAddr,
    },
    /// It was refused for good.
    Refused(Code),
    /// All servers that answered are behind the token; the latest has applied this op.
    Behind(Op),
    /// No server has answered.
    Silence,
}

/// The time since the server of an answer last heard an active primary. What was acknowledged since then may
/// be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Heard so long ago.
    Heard(Duration),
    /// It has heard none since it started.
    Unknown,
}

impl Age {
    fn of(fields: &OptionalFields) -> Option<Age> {
        let bytes = fields.get(OptionalFields::AGE)?;
        Some(match bytes.try_into() {
            Ok(ms) => Age::Heard(Duration::from_millis(u64::from_be_bytes(ms))),
            Err(_) => Age::Unknown,
        })
    }
}

/// One server, and what it has said to the query.
#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    /// When it is asked, for the first time or again; none while it is not its turn.
    at: Option<Moment>,
    said: Option<Said>,
}

/// What a server has said that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// The refusal counts if nothing better comes.
    Refused(Code),
    /// It is behind the token, and has applied this op.
    Behind(Op),
    /// Busy, or it reaches nobody.
    NotNow(Code),
}

/// A query under way.
#[derive(Debug)]
pub struct Reading {
    query: Query,
    /// The time after which the next server is asked too.
    hedge: Duration,
    /// By rank; those to which a handshake has begun come first.
    servers: Vec<Server>,
    /// When the next server by rank is asked too.
    next_at: Moment,
    /// When the first refusal came.
    refused_at: Option<Moment>,
    answer: Option<(Answer, SocketAddr)>,
    refused: Option<Code>,
    planted: PlantedBug,
}

impl Reading {
    /// A query of the servers in `clients`, which is given again with each call.
    pub fn new(clients: &HandshakeClients, query: Query, hedge: Duration, now: Moment) -> Reading {
        let key = codec::encode(&ToServer::query(Query::new(QueryId(0), query.kind.clone())));
        let rank = |addr: &SocketAddr| fnv1a(key.iter().copied().chain(addr.to_string().into_bytes()));
        let mut addrs = clients.addrs();
        addrs.sort_by_key(|addr| (!clients.has_begun(*addr), rank(addr)));
        let servers = addrs.into_iter().map(|addr| Server { addr, at: None, said: None }).collect();
        Reading {
            query,
            hedge: hedge.max(HEDGE_LEAST),
            servers,
            next_at: now,
            refused_at: None,
            answer: None,
            refused: None,
            planted: PlantedBug::default(),
        }
    }

    /// For the simulator only.
    pub fn with_planted(self, planted: PlantedBug) -> Reading {
        Reading { planted, ..self }
    }

    /// What came of it. Follows the end of the query, or of the time for it.
    pub fn outcome(self) -> Outcome {
        if let Some((answer, from)) = self.answer {
            let age = Age::of(&answer.options);
            return Outcome::Answer { answer: Box::new(answer), age, from };
        }
        let (mut refused, mut behind, mut not_now) = (self.refused, None, None);
        for said in self.servers.iter().filter_map(|server| server.said) {
            match said {
                Said::Refused(code) => refused = refused.or(Some(code)),
                Said::Behind(applied) => behind = behind.max(Some(applied)),
                Said::NotNow(code) => not_now = not_now.or(Some(code)),
            }
        }
        match (refused, behind, not_now) {
            (Some(code), ..) | (None, None, Some(code)) => Outcome::Refused(code),
            (None, Some(applied), _) => Outcome::Behind(applied),
            (None, None, None) => Outcome::Silence,
        }
    }

    fn on_refused(&mut self, now: Moment, from: SocketAddr, refused: &Refused) {
        let of_primary = refused.data.get(OptionalFields::AGE).is_none();
        let applied = || {
            let bytes = refused.data.get(OptionalFields::APPLIED).and_then(|bytes| bytes.try_into().ok());
            Op(bytes.map_or(0, u64::from_be_bytes))
        };
        let said = match refused.code {
            Code::TryOtherServerOrLater => Said::Behind(applied()),
            code if refused.retry_ms > 0 => Said::NotNow(code),
            code if of_primary => return self.refused = Some(code),
            code => Said::Refused(code),
        };
        if matches!(said, Said::Refused(_)) {
            self.refused_at.get_or_insert(now);
        }
        if let Some(server) = self.servers.iter_mut().find(|server| server.addr == from) {
            server.said = Some(said);
            let wait = Duration::from_millis(refused.retry_ms.max(1).into()).max(HEDGE_LEAST);
            server.at = Some(now + if matches!(said, Said::Refused(_)) { ASK_AGAIN } else { wait });
        }
        self.next_at = now;
    }

    /// The datagrams to send at `now`, with their destinations. Wanted every [`HEDGE_LEAST`].
    pub fn datagrams(&mut self, now: Moment, clients: &mut HandshakeClients) -> Vec<(SocketAddr, Vec<u8>)> {
        if now >= self.next_at
            && let Some(next) = self.servers.iter_mut().find(|server| server.at.is_none())
        {
            next.at = Some(now);
            self.next_at = now + self.hedge;
        }
        let query = ToServer::query(self.query.clone());
        let mut datagrams = Vec::new();
        for server in &mut self.servers {
            if server.at.is_some_and(|at| at <= now) {
                server.at = Some(now + ASK_AGAIN);
                datagrams.push(clients.datagram_to(now, server.addr, &query));
            }
        }
        datagrams
    }

    /// Takes a datagram of a server. Returns true if [`Reading::datagrams`] is wanted at once.
    pub fn take(
        &mut self,
        now: Moment,
        from: SocketAddr,
        datagram: &[u8],
        clients: &mut HandshakeClients,
    ) -> bool {
        let opened = match clients.take(now, from, datagram) {
            None => return false,
            Some(FromServer::Greeting(_)) => {
                // The query follows the HELLO, if it is this server's turn.
                let asked = self.servers.iter_mut().find(|server| server.addr == from && server.at.is_some());
                asked.into_iter().for_each(|server| server.at = Some(now));
                return true;
            }
            Some(FromServer::Answer(opened)) => opened,
        };
        for packet in opened.packets {
            match packet {
                ToClient::Answer(answer) if answer.id == self.query.id && self.is_late_enough(&answer) => {
                    self.answer.get_or_insert((answer, from));
                }
                ToClient::Error(refused) if refused.answers == Answers::Query(self.query.id) => {
                    self.on_refused(now, from, &refused);
                }
                _ => {}
            }
        }
        true
    }

    /// Returns true once nothing more is wanted.
    pub fn is_over(&self, now: Moment) -> bool {
        let all_refuse = || self.servers.iter().all(|server| matches!(server.said, Some(Said::Refused(_))));
        self.answer.is_some()
            || self.refused.is_some()
            || self.refused_at.is_some_and(|at| now.since(at) >= REFUSAL_WAITS || all_refuse())
    }

    /// Returns true unless the answer is older than was asked for, which is its server's fault.
    fn is_late_enough(&self, answer: &Answer) -> bool {
        let any = self.query.options.get(OptionalFields::CONSISTENCY) == Some(&[0]);
        let wanted = self.query.at_least.and_then(Position::op).unwrap_or(Op::ZERO);
        let null = matches!(answer.kind, AnswerKind::Value(None));
        any || self.planted.is(Planted::AnswersBehindToken)
            || (null && self.planted.is(Planted::NullBehindToken))
            || answer.applied.op().is_some_and(|applied| applied >= wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use recado_proto::entropy::Entropy;
    use recado_proto::envelope::{Class, Envelope, Header};
    use recado_proto::handshake;
    use recado_proto::id::{Incarnation, NodeId, SessionId, View};
    use recado_proto::noise;
    use recado_proto::packet::{List, ListItem, ListPage, Listing, QueryKind};
    use recado_proto::seal::Key;

    use super::*;
    use crate::machine::handshake::Identity;
    use crate::machine::tests::server::{HandshakeEvent, HandshakeServer, handshake_config};

    const TOKEN: Op = Op(50);

    fn addr(server: u16) -> SocketAddr {
        ([127, 0, 0, server as u8], 10_000).into()
    }

    /// What a server says to a query: an answer of this op with so many names, or a refusal.
    #[derive(Clone)]
    enum Says {
        Names { applied: u64, names: usize, age: Option<u64> },
        Refuses { code: Code, retry_ms: u32, fields: OptionalFields },
    }

    fn names(applied: u64, age: Option<u64>) -> Says {
        Says::Names { applied, names: 1, age }
    }

    fn aged(age: Option<u64>) -> OptionalFields {
        let fields = OptionalFields::NONE;
        age.map_or(fields.clone(), |ms| fields.with(OptionalFields::AGE, ms.to_be_bytes().to_vec()))
    }

    fn refuses(code: Code, retry_ms: u32, age: Option<u64>) -> Says {
        Says::Refuses { code, retry_ms, fields: aged(age) }
    }

    fn behind(applied: u64) -> Says {
        let fields = OptionalFields::NONE.with(OptionalFields::APPLIED, applied.to_be_bytes().to_vec());
        Says::Refuses { code: Code::TryOtherServerOrLater, retry_ms: 10, fields }
    }

    fn packet(id: QueryId, says: Says) -> ToClient {
        match says {
            Says::Names { applied, names, age } => {
                let profile =
                    |n| ListItem::Profile { name: format!("name-{n:05}").parse().unwrap(), since: Op(1) };
                let page = ListPage { items: (0..names).map(profile).collect(), more: false };
                ToClient::Answer(Answer {
                    id,
                    applied: Position::of(Op(applied)),
                    kind: AnswerKind::List(page),
                    options: aged(age),
                })
            }
            Says::Refuses { code, retry_ms, fields } => {
                ToClient::Error(Refused { data: fields, ..Refused::new(code, Answers::Query(id), retry_ms) })
            }
        }
    }

    /// Plays a query until it is over, or for two seconds. Each server answers at once, or not at all.
    /// Returns the outcome, when it was over, and the queries that reached each server.
    fn play(servers: &BTreeMap<u16, Says>, all: u16) -> (Outcome, Duration, BTreeMap<u16, usize>) {
        let identity = Identity {
            cluster: handshake_config(1, 1).cluster,
            cluster_key: noise::public(&handshake_config(1, 1).keys.cluster_private()),
            private: Key::new([1; 32]),
        };
        let addrs: Vec<SocketAddr> = (1..=all).map(addr).collect();
        let mut clients = HandshakeClients::new(&addrs, identity, Entropy::new([2; 32]));
        let kind = QueryKind::List(List { what: Listing::People, after: None });
        let query =
            asked(Query::new(QueryId(7), kind), &"alice".parse().unwrap(), TOKEN, Consistency::Session);
        let mut playing: BTreeMap<u16, HandshakeServer> =
            servers.keys().map(|id| (*id, HandshakeServer::new(handshake_config(*id, 1)))).collect();
        let mut asked = BTreeMap::new();
        let (mut now, mut number) = (Moment(0), 0);
        let mut reading = Reading::new(&clients, query, Duration::ZERO, now);
        let client: SocketAddr = ([127, 0, 0, 200], 4_000).into();
        while !reading.is_over(now) && now.0 < 2_000_000 {
            let mut again = true;
            while std::mem::take(&mut again) {
                for (to, bytes) in reading.datagrams(now, &mut clients) {
                    let id = (1..=all).find(|id| addr(*id) == to).unwrap();
                    let Some(server) = playing.get_mut(&id) else { continue };
                    match server.receive(client, &bytes) {
                        Some(HandshakeEvent::Retry(retry)) => {
                            again |= reading.take(now, to, &retry, &mut clients)
                        }
                        Some(HandshakeEvent::Initiation { reply, .. }) => {
                            *asked.entry(id).or_insert(0) += 1;
                            let encoded = codec::encode(&packet(QueryId(7), servers[&id].clone()));
                            let pieces: Vec<Vec<u8>> = match encoded.len() <= handshake::ANSWER_MAX {
                                true => vec![encoded],
                                false => handshake::pieces(number + 1, &encoded).collect(),
                            };
                            for piece in pieces {
                                number += 1;
                                let envelope = Envelope {
                                    class: Class::Handshake,
                                    cluster: handshake_config(1, 1).cluster,
                                    session: SessionId::default(),
                                    node: Some(NodeId(id)),
                                    incarnation: Incarnation(1),
                                    number,
                                };
                                let header = Header { ack: None, view: View::ZERO };
                                let answer = handshake::answer(&envelope, &reply, &header, &[piece]);
                                again |= reading.take(now, to, &answer, &mut clients);
                            }
                        }
                        None => {}
                    }
                }
                again &= !reading.is_over(now);
            }
            now = now + HEDGE_LEAST;
        }
        (reading.outcome(), now.since(Moment(0)), asked)
    }

    fn of(servers: &[(u16, Says)]) -> BTreeMap<u16, Says> {
        servers.iter().cloned().collect()
    }

    #[test]
    fn one_server_that_answers_soon_is_the_only_one_asked() {
        let all = of(&[(1, names(60, None)), (2, names(60, None)), (3, names(60, None))]);
        let (outcome, took, asked) = play(&all, 3);
        assert!(matches!(outcome, Outcome::Answer { age: None, .. }), "{outcome:?}");
        assert_eq!((asked.len(), asked.values().sum::<usize>()), (1, 1), "{asked:?}");
        assert_eq!(took, HEDGE_LEAST);
    }

    #[test]
    fn while_one_server_lives_it_answers_whichever_it_is() {
        for lives in 1..=5 {
            let (outcome, took, _) = play(&of(&[(lives, names(60, Some(3_000)))]), 5);
            let Outcome::Answer { age, from, .. } = outcome else { panic!("server {lives}: {outcome:?}") };
            assert_eq!(from, addr(lives));
            assert_eq!(age, Some(Age::Heard(Duration::from_secs(3))));
            assert!(took <= 6 * HEDGE_LEAST, "server {lives} after {took:?}");
        }
    }

    #[test]
    fn an_answer_older_than_the_token_does_not_count_whoever_gives_it() {
        let (outcome, _, _) =
            play(&of(&[(1, names(49, None)), (2, names(49, None)), (3, names(50, None))]), 3);
        let Outcome::Answer { answer, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(answer.applied.op(), Some(TOKEN));
        let (outcome, ..) = play(&of(&[(1, names(49, None)), (2, behind(49))]), 2);
        assert!(matches!(outcome, Outcome::Behind(Op(49))), "{outcome:?}");
    }

    #[test]
    fn a_refusal_of_the_primary_is_final_and_one_of_another_server_waits_for_something_better() {
        let refusal = |age| refuses(Code::UnknownChannel, 0, age);
        let (outcome, took, _) = play(&of(&[(1, refusal(None))]), 1);
        assert!(matches!(outcome, Outcome::Refused(Code::UnknownChannel)), "{outcome:?}");
        assert_eq!(took, HEDGE_LEAST);
        let two = of(&[(1, refusal(Some(5))), (2, refusal(Some(5))), (3, names(60, None))]);
        assert!(matches!(play(&two, 3).0, Outcome::Answer { .. }));
        let (outcome, took, _) = play(&of(&[(1, refusal(Some(5)))]), 3);
        assert!(matches!(outcome, Outcome::Refused(Code::UnknownChannel)), "{outcome:?}");
        assert!(took >= REFUSAL_WAITS, "{took:?}");
        let (outcome, took, _) = play(&of(&[(1, refusal(Some(5))), (2, refusal(None))]), 2);
        assert!(matches!(outcome, Outcome::Refused(_)) && took < REFUSAL_WAITS, "{outcome:?} {took:?}");
    }

    #[test]
    fn what_passes_is_asked_again_and_nothing_at_all_is_silence() {
        let busy = refuses(Code::Busy, 200, None);
        let (outcome, _, asked) = play(&of(&[(1, busy)]), 1);
        assert!(matches!(outcome, Outcome::Refused(Code::Busy)), "{outcome:?}");
        assert!((9..=11).contains(&asked[&1]), "every 200 ms: {asked:?}");
        assert!(matches!(play(&of(&[]), 3).0, Outcome::Silence));
    }

    #[test]
    fn an_answer_longer_than_a_datagram_comes_in_pieces() {
        let (outcome, ..) = play(&of(&[(1, Says::Names { applied: 60, names: 200, age: None })]), 1);
        let Outcome::Answer { answer, .. } = outcome else { panic!("{outcome:?}") };
        let AnswerKind::List(page) = answer.kind else { panic!("{answer:?}") };
        assert_eq!(page.items.len(), 200);
    }
}
