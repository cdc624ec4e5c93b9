//! Clients that send far more than the servers can take: some of them with the library, which slows down
//! when it is told Busy, and some that heed nothing. The time of the servers' work is charged, and their
//! queues have the places that ship: no election happens, nothing acknowledged is lost, what is taken is
//! answered soon, and what is refused is told so soon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use recado::config::PlantedBug;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::id::{Incarnation, Moment, NodeId, Seq, SessionId, Topic, View};
use recado_proto::link::Link;
use recado_proto::packet::{
    Answers, Code, Content, OptionalFields, Refused, RoleName, Send, ToClient, ToServer,
};
use recado_proto::seal::Direction;

use crate::client::{Client, ClientActions, ClientProfile};
use crate::faults::{MS, Plan};
use crate::history::{ClientEvent, ClientId};
use crate::network::{Micros, client_port, server_of};
use crate::server::threads::Costs;
use crate::server::{DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::{Event, Violation, World};
use crate::{population, tap};

/// Work of the servers: about 30,000 requests a second.
const COSTS: Costs =
    Costs { opened: 20_000, sealed: 10_000, told: 2_000, peer: 10_000, request: 15_000, applied: 14_400 };
/// The number of clients with the library, and of the requests that each has unanswered.
const CLIENTS: u8 = 48;
const OUTSTANDING: usize = 64;
/// The number of those that heed nothing. Each sends a datagram of this many requests at this interval, and
/// goes through so many numbers from the first one on that has no answer, again and again.
const FLOODERS: u8 = 12;
const BATCH: u64 = 16;
const FLOOD_EVERY: Micros = MS;
const NUMBERS: u64 = 64;
/// The interval at which each client asks as much as it may.
const PACE: Micros = MS;
/// The time of the flood.
const FLOOD: Micros = 1_000 * MS;
/// The limit within which a refused request is told so, from its arrival.
const BUSY_WITHIN: Micros = 50 * MS;
/// The limit within which a request that is taken is answered.
const ANSWERED_WITHIN: Micros = 150 * MS;

/// The limit within which all is answered after the flood.
const DONE_WITHIN: Micros = 5_000 * MS;

/// What was seen of the requests.
#[derive(Debug, Default)]
struct Seen {
    /// The last arrival of each request that has no answer yet.
    arrived: BTreeMap<(SessionId, Seq), Micros>,
    /// The latest of the arrivals of the requests of each session that were answered. Requests are answered
    /// in their order, so one waits for those before it that were refused.
    ready: BTreeMap<SessionId, Micros>,
    /// The times from arrival to answer, and from arrival to Busy.
    answered: Vec<Micros>,
    refused: Vec<Micros>,
}

impl Seen {
    fn look(&mut self, world: &mut World, flooders: &mut [Flooder]) {
        let now = world.now;
        let watched = world.watched.as_mut().map(std::mem::take).unwrap_or_default();
        for (from, to, bytes) in watched {
            if let Some(server) = server_of(to) {
                let Some((session, packets)) = world.open::<ToServer>(server, &bytes) else { continue };
                for seq in packets.iter().filter_map(ToServer::seq) {
                    self.arrived.insert((session, seq), now);
                }
                continue;
            }
            let Some(server) = server_of(from) else { continue };
            let Some((session, packets)) = world.open::<ToClient>(server, &bytes) else { continue };
            let mut flooder = flooders.iter_mut().find(|flooder| flooder.session == session);
            for packet in packets {
                let (seq, busy) = match packet {
                    ToClient::SendAck(ack) => (ack.seq, false),
                    ToClient::Error(Refused { code, answers: Answers::Request(seq), .. }) => {
                        (seq, code == Code::Busy)
                    }
                    _ => continue,
                };
                let Some(at) = self.arrived.remove(&(session, seq)) else { continue };
                if busy {
                    self.refused.push(now - at);
                } else if let Some(flooder) = &mut flooder {
                    // It is told of numbers that are too far ahead, too.
                    flooder.first = if seq.0 == flooder.first { seq.0 + 1 } else { flooder.first };
                } else {
                    let ready = self.ready.entry(session).or_default();
                    *ready = at.max(*ready);
                    self.answered.push(now - *ready);
                }
            }
        }
    }
}

/// A client that heeds nothing, in the session of one that has left.
struct Flooder {
    session: SessionId,
    from: SocketAddr,
    link: Link,
    /// The first number without an answer, and how many numbers were sent since.
    first: u64,
    sent: u64,
}

impl Flooder {
    /// Takes the session of a client over.
    fn new(world: &mut World, client: u8, primary: NodeId) -> Option<Flooder> {
        let session = world.session_of(ClientId(client))?;
        let from = world.clients.remove(&client)?.address();
        let secret =
            tap::cluster_keys().session_secret(session.id, session.device, session.nonce, session.aead);
        let boot_id = tap::boot_id(primary, world.servers.get(&primary)?.incarnation());
        let keys = secret.of_session(Direction::ToServer, primary, boot_id);
        let envelope = Envelope {
            class: Class::Client,
            cluster: population::CLUSTER,
            session: session.id,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        // Above every number that the client has used.
        let link = Link::starting_at(envelope, keys, 100_000);
        Some(Flooder { session: session.id, from, link, first: 1, sent: 0 })
    }

    /// Sends the next requests: each to somebody who does not exist, so that it takes its number and is
    /// refused by apply.
    fn send(&mut self, world: &mut World, primary: NodeId) {
        let topic = || Some(Topic::Inbox(population::name("nobody")));
        let request = |number: u64| {
            let seq = Seq(self.first + number % NUMBERS);
            ToServer::Send(Send {
                seq,
                answered_below: Seq(self.first),
                topic: topic(),
                content: Content::of("x"),
                nonce: seq.0,
                options: OptionalFields::NONE,
            })
        };
        let requests: Vec<ToServer> = (self.sent..self.sent + BATCH).map(request).collect();
        self.sent += BATCH;
        let mut datagrams = Vec::new();
        self.link.transmit(Moment(world.now), View::ZERO, &requests, None, &mut datagrams);
        for bytes in datagrams {
            world.after(300, Event::Datagram { from: self.from, to: client_port(primary), bytes });
        }
    }
}

fn character(id: u8) -> ClientProfile {
    ClientProfile {
        receives: id == 1,
        habits: ClientActions { turn: 200, ..ClientActions::default() },
        ..ClientProfile::plain(&format!("client{id}"), id)
    }
}

fn promised(world: &World) -> BTreeSet<View> {
    let processes = world.servers.values().filter_map(|server| server.process.as_ref());
    processes.map(|process| process.node.promised()).collect()
}

fn acked(world: &World) -> usize {
    world.history.events.iter().filter(|(_, what)| matches!(what, ClientEvent::Acked { .. })).count()
}

/// Three servers whose work takes time, and clients that are served.
fn begun(seed: u64) -> Result<World, String> {
    let mut world = World::new(Plan { seed, ..Plan::quiet() }, false);
    for id in (1..=3).map(NodeId) {
        let mut config = population::config(3, id, PlantedBug::default());
        config.limits.network_names.burst = u32::MAX;
        // Each look at a state costs as much as it holds.
        config.retention.count = 20;
        let storage = Storage::initialised(&config);
        let mut server = Server::new(config, storage, DiskSpeed { sync: (MS, 2 * MS) });
        server.costs = Some(COSTS);
        world.add_server(server);
    }
    for id in 1..=CLIENTS + FLOODERS {
        let rng = world.rng.fork();
        let wait = 1_000 * MS + u64::from(id) * 5 * MS;
        world.add_client(Client::new(ClientId(id), character(id), rng), wait);
    }
    while !world.clients.values().all(Client::is_connected) {
        if world.now > 10_000 * MS {
            return Err("not all are served".into());
        }
        world.run_for(20 * MS)?;
    }
    Ok(world)
}

/// Every client asks until it has as many requests unanswered as it may.
fn ask(world: &mut World, asked: &mut u64) -> Result<(), String> {
    for id in 1..=CLIENTS {
        while world.clients.get(&id).is_some_and(|client| client.outstanding() < OUTSTANDING) {
            *asked += 1;
            let text = format!("c{id}-{asked} {}", "x".repeat(60));
            world.with_client(id, |client, now, history| {
                let send = client.send_text(None, text);
                client.ask(now, send, history)
            })?;
        }
    }
    Ok(())
}

fn flood(seed: u64) -> Result<(), String> {
    let mut world = begun(seed)?;
    let views = promised(&world);
    let primary = world.servers.values().find(|server| server.role() == Some(RoleName::Primary));
    let primary = primary.ok_or("no primary")?.id;
    let of = |id| Flooder::new(&mut world, id, primary);
    let mut flooders: Vec<Flooder> = (CLIENTS + 1..=CLIENTS + FLOODERS).filter_map(of).collect();
    let mut seen = Seen::default();
    world.watched = Some(Vec::new());
    let (began, mut next, mut next_flood, mut asked) = (world.now, world.now, world.now, 0);
    while world.now < began + FLOOD {
        if world.now >= next {
            next = world.now + PACE;
            ask(&mut world, &mut asked)?;
        }
        if world.now >= next_flood {
            next_flood = world.now + FLOOD_EVERY;
            flooders.iter_mut().for_each(|flooder| flooder.send(&mut world, primary));
        }
        world.step()?;
        seen.look(&mut world, &mut flooders);
        if promised(&world) != views {
            return Err(format!("an election, {} ms after the flood began", (world.now - began) / MS));
        }
    }
    let rate = acked(&world) as u64 * 1_000 * MS / FLOOD;
    let [busy, answer] = [&mut seen.refused, &mut seen.answered].map(|times| {
        times.sort_unstable();
        (times.len(), times.get(times.len() / 2).copied().unwrap_or(0), times.last().copied().unwrap_or(0))
    });
    let flooded: u64 = flooders.iter().map(|flooder| flooder.sent).sum();
    let done: u64 = flooders.iter().map(|flooder| flooder.first).sum();
    println!(
        "seed {seed}: {asked} asked and {flooded} flooded; {rate} answered a second and {done} of the flood; us to \
         an answer {answer:?}, to Busy {busy:?} (number, median, longest)"
    );
    let (busy, answer) = (busy.2, answer.2);
    if seen.refused.len() < 50_000 || seen.answered.len() < 100 || done < 1_000 {
        return Err("it is no flood".into());
    }
    if busy > BUSY_WITHIN || answer > ANSWERED_WITHIN {
        return Err(format!("Busy took {} ms, an answer {} ms", busy / MS, answer / MS));
    }
    let primaries = world.servers.values().filter(|server| server.role() == Some(RoleName::Primary));
    if primaries.count() != 1 {
        return Err("the primary is gone".into());
    }
    world.watched = None;
    let ended = world.now;
    while let Some(client) = world.clients.values().find(|client| client.outstanding() > 0) {
        if world.now > ended + DONE_WITHIN {
            let (id, left) = (client.id.0, client.outstanding());
            return Err(format!("{left} requests of client {id} are not answered after the flood"));
        }
        world.step()?;
    }
    println!("seed {seed}: all is answered {} ms after the flood", (world.now - ended) / MS);
    match world.converge() {
        Err(Violation::Safety(why) | Violation::Liveness(why)) => Err(why),
        Ok(()) if promised(&world) != views => Err("an election after the flood".into()),
        Ok(()) => Ok(()),
    }
}

#[test]
fn a_flood_of_requests_elects_nobody_loses_nothing_and_is_answered_busy_soon() {
    recado_proto::noise::simulate_x25519();
    for seed in 0..2 {
        if let Err(why) = flood(seed) {
            panic!("seed {seed}: {why}");
        }
    }
}
