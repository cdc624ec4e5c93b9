//! The cost of a one-shot command: an enrolled device connects, sends a notification and disconnects.
//!
//! One server, and a client that is far from it, so that the virtual time of each step counts the round trips
//! that it takes. (Of several servers a device that has connected before knows all, and asks all at once.)
//! The HELLO that finds the cluster begins the session, so these are the round trips of the whole command;
//! DISCONNECT is one datagram after them.

use recado::config::PlantedBug;
use recado_client::machine::Input;
use recado_proto::codec;
use recado_proto::command::Stamped;
use recado_proto::id::{NodeId, Topic};

use crate::client::{Client, ClientActions, ClientProfile};
use crate::faults::{MS, Plan};
use crate::history::{ClientEvent, ClientId};
use crate::network::{Host, Micros};
use crate::population;
use crate::server::{DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::World;

/// The round trip between the client and a server, without the usual delay.
const ROUND_TRIP: Micros = 40 * MS;
/// The limit for a round trip's share of the usual delays, commits and fsyncs.
const MORE: Micros = 8 * MS;
/// The time that the client stays away between two runs: longer than everything that the first one leaves to
/// be logged.
const AWAY: Micros = 3_000 * MS;
/// Round trips from the start of the client to the acknowledgement.
const ROUND_TRIPS: u64 = 4;
/// Entries in the log. The last one ends all sessions that clients have left in the same second.
const ENTRIES: u64 = 4;

fn acked(world: &World) -> usize {
    let acked = |what: &ClientEvent| matches!(what, ClientEvent::Acked { .. });
    world.history.of(ClientId(1)).filter(|what| acked(what)).count()
}

fn client(world: &World) -> Result<&Client, String> {
    world.clients.get(&1).ok_or("no client".into())
}

fn until(world: &mut World, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), String> {
    let deadline = world.now + 10_000 * MS;
    while !holds(world) {
        if world.now > deadline {
            return Err(format!("{what}: not within ten seconds"));
        }
        world.step()?;
    }
    Ok(())
}

/// Sends one notification as soon as the client is connected. Returns the times of connecting and of the
/// acknowledgement, from now on.
fn send(world: &mut World) -> Result<[Micros; 2], String> {
    let (began, before) = (world.now, acked(world));
    until(world, "connected", |world| client(world).is_ok_and(Client::is_connected))?;
    let connected = world.now - began;
    let channel = Topic::Channel(population::channel("ops"));
    world.with_client(1, |client, now, history| {
        let send = client.send_text(Some(channel), format!("text {before}"));
        client.ask(now, send, history)
    })?;
    until(world, "acknowledged", |world| acked(world) > before)?;
    Ok([connected, world.now - began])
}

fn run() -> Result<([u64; 2], Vec<String>), String> {
    let mut world = World::new(Plan::quiet(), false);
    let config = population::config(1, NodeId(1), PlantedBug::default());
    let storage = Storage::initialised(&config);
    world.add_server(Server::new(config, storage, DiskSpeed { sync: (MS, MS) }));
    world.network.slow(Host::Client(1), Host::Server(NodeId(1)), ROUND_TRIP / 2);
    world.network.slow(Host::Server(NodeId(1)), Host::Client(1), ROUND_TRIP / 2);
    let character = ClientProfile {
        receives: false,
        habits: ClientActions { away: Some(AWAY), ..ClientActions::default() },
        ..ClientProfile::plain("ann", 1)
    };
    let rng = world.rng.fork();
    world.add_client(Client::new(ClientId(1), character, rng), 1_000 * MS);
    until(&mut world, "started", |world| client(world).is_ok_and(|client| client.run == 1))?;
    send(&mut world)?;
    world.with_client(1, |client, now, history| client.handle(now, Input::Disconnect, history))?;

    until(&mut world, "started again", |world| client(world).is_ok_and(|client| client.run == 2))?;
    let before = world.invariants.last();
    let times = send(&mut world)?;
    world.with_client(1, |client, now, history| {
        client.left = true;
        client.handle(now, Input::Disconnect, history)
    })?;
    world.run_for(AWAY)?;
    let written = world.invariants.ledger().range(before.next()..).map(|(_, entry)| {
        let stamped = codec::decode::<Stamped>(&entry.payload);
        stamped.map_or_else(|_| "a view's start".to_owned(), |stamped| format!("{:?}", stamped.command))
    });
    let entries = written.collect();
    let rounds = times.map(|time| (time / ROUND_TRIP, time % ROUND_TRIP));
    if let Some((_, more)) = rounds.iter().find(|(rounds, more)| *more > (rounds + 1) * MORE) {
        return Err(format!("{more} us are no part of a round trip: {times:?}"));
    }
    Ok((rounds.map(|(rounds, _)| rounds), entries))
}

#[test]
fn a_one_shot_sender_takes_few_round_trips_and_log_entries() {
    let ([connected, acknowledged], entries) = run().unwrap();
    let count = entries.len() as u64;
    println!("connected after {connected} round trips, acknowledged after {acknowledged}, {count} entries");
    assert!(acknowledged <= ROUND_TRIPS, "{acknowledged} round trips");
    assert!(count <= ENTRIES, "{entries:#?}");
}
