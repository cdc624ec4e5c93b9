//! A primary dies soon after its backups have started again. They do not know where clients are, and a client
//! that only listens has nothing outstanding by which it would notice the death: its pause must be short all
//! the same.

use recado::config::{PlantedBug, Timing};
use recado_client::machine::Request;
use recado_proto::id::{NodeId, Topic};
use recado_proto::packet::{FollowChange, RoleName};

use crate::client::{Client, ClientProfile};
use crate::fault_execution::DueFault;
use crate::faults::{Fault, MS, Plan, Target};
use crate::history::{ClientEvent, ClientId};
use crate::network::{FaultMix, Micros};
use crate::population;
use crate::server::{Death, DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::World;

const SECOND: Micros = 1_000 * MS;
/// The down time of a server that does not return.
const FOREVER: Micros = 36_000 * SECOND;
/// The longest pause: the time until the primary is suspected, the election, and what is lost on the way.
const PAUSE: Micros = 1_500 * MS;

/// Ann sends, and Ben listens.
fn world(seed: u64) -> World {
    let weather = FaultMix { loss: 20, ..FaultMix::CLEAR };
    let mut world = World::new(Plan { seed, fault_mix: weather, ..Plan::quiet() }, false);
    for id in (1..=3).map(NodeId) {
        let mut config = population::config(3, id, PlantedBug::default());
        config.timing = Timing::DEFAULT;
        let storage = Storage::initialised(&config);
        world.add_server(Server::new(config, storage, DiskSpeed { sync: (MS, MS) }));
    }
    for (n, name) in [(1, "ann"), (2, "ben")] {
        let character = ClientProfile::plain(name, n);
        let rng = world.rng.fork();
        world.add_client(Client::new(ClientId(n), character, rng), 0);
    }
    world
}

/// Runs for this time, while Ann sends every 20 ms. Returns the longest time between two notifications to
/// Ben.
fn run(world: &mut World, time: Micros) -> Result<Micros, String> {
    let (end, mut looked_at) = (world.now + time, world.history.events.len());
    let (mut last, mut longest, mut next) = (world.now, 0, world.now);
    while world.now < end {
        world.step()?;
        if world.now >= next {
            next = world.now + 20 * MS;
            if world.clients.get(&1).is_some_and(|ann| ann.outstanding() < 16) {
                world.with_client(1, |ann, now, history| {
                    let ask = ann.send_text(None, format!("at {now}"));
                    ann.ask(now, ask, history)
                })?;
            }
        }
        let got = |(who, what): &(ClientId, ClientEvent)| {
            *who == ClientId(2) && matches!(what, ClientEvent::Delivered { .. })
        };
        if world.history.events[looked_at..].iter().any(got) {
            (longest, last) = (longest.max(world.now - last), world.now);
        }
        looked_at = world.history.events.len();
    }
    Ok(longest.max(world.now - last))
}

fn primary(world: &World) -> Result<NodeId, String> {
    let leads = |server: &&Server| server.role() == Some(RoleName::Primary);
    world.servers.values().find(leads).map(|server| server.id).ok_or("there is no primary".into())
}

fn pause(seed: u64) -> Result<Micros, String> {
    let mut world = world(seed);
    while !world.clients.values().all(Client::is_connected) {
        if world.now > 20 * SECOND {
            return Err("the clients are not served".into());
        }
        world.run_for(100 * MS)?;
    }
    world.with_client(2, |ben, now, history| {
        let feed = Topic::Feed(population::name("ann"));
        ben.ask(now, Request::Follow { topic: feed, change: FollowChange::Add }, history)
    })?;
    run(&mut world, 30 * SECOND)?;
    let first = primary(&world)?;
    for backup in (1..=3).map(NodeId).filter(|id| *id != first) {
        let death = Death { power: false, down: 200 * MS };
        DueFault(Fault::Crash(Target::Server(backup), death)).strike(&mut world)?;
        run(&mut world, 2 * SECOND)?;
    }
    // The second restart may be told ten seconds after the first.
    run(&mut world, 11 * SECOND)?;
    let death = Death { power: false, down: FOREVER };
    DueFault(Fault::Crash(Target::Server(first), death)).strike(&mut world)?;
    run(&mut world, 10 * SECOND)
}

#[test]
fn a_listener_goes_on_at_once_though_its_new_primary_has_started_again_since_it_was_last_told() {
    for seed in 0..8 {
        match pause(seed) {
            Ok(pause) => assert!(pause <= PAUSE, "{} ms with seed {seed}", pause / MS),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}
