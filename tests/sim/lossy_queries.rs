//! Tests of queries over a lossy network: a lost piece of an answer is sent again, and the query is not.
//!
//! Three servers, and one client that asks for a page of history as large as a page may be while a fifth of
//! all datagrams is lost. Where an answer was sent as a whole each time that its query was sent, one in
//! 170 would arrive. The assertions are on virtual time, which is the same on every machine.

use recado::config::PlantedBug;
use recado_client::machine::{Input, Query, Request};
use recado_proto::id::{NodeId, Op, Topic};
use recado_proto::packet::{FollowChange, History, HistoryPage, HistoryRange, QueryId, Selection};
use recado_proto::{codec, fragment};

use crate::client::{Client, ClientProfile};
use crate::faults::{MS, Plan};
use crate::history::{ClientEvent, ClientId};
use crate::network::Micros;
use crate::population;
use crate::server::{DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::World;

/// The result of a test step, or the failure.
type Told<T> = Result<T, String>;

/// Lost datagrams, per thousand.
const LOSS: u64 = 200;
/// The time within which the page arrives.
const WITHIN: Micros = 2_000 * MS;
const SEEDS: u64 = 16;
/// The notifications in the channel, and the bytes of each: three of them weigh as much as a page may.
const TEXTS: usize = 8;
const TEXT_LEN: usize = History::BYTES_MAX / 3 - 64;

fn channel() -> Topic {
    Topic::Channel(population::channel("ops"))
}

/// The newest page of the channel, and as much of it as there may be.
fn asked() -> History {
    History { topic: Some(channel()), range: HistoryRange::Before(Op(u64::MAX)), limit: History::LIMIT_MAX }
}

/// A cluster with a channel that holds more than a page, and a client that follows it.
fn begun(seed: u64) -> Told<World> {
    let mut world = World::new(Plan { seed, ..Plan::quiet() }, false);
    for id in (1..=3).map(NodeId) {
        let config = population::config(3, id, PlantedBug::default());
        let storage = Storage::initialised(&config);
        world.add_server(Server::new(config, storage, DiskSpeed { sync: (MS, MS) }));
    }
    let character = ClientProfile::plain("ann", 1);
    let rng = world.rng.fork();
    world.add_client(Client::new(ClientId(1), character, rng), 0);
    while !world.clients.get(&1).is_some_and(Client::is_connected) {
        if world.now > 10_000 * MS {
            return Err("the client is not served".into());
        }
        world.run_for(100 * MS)?;
    }
    for text in 0..TEXTS {
        world.with_client(1, |client, now, history| {
            let send = client.send_text(Some(channel()), format!("{text}").repeat(TEXT_LEN));
            client.ask(now, send, history)
        })?;
        world.run_for(100 * MS)?;
        if text == 0 {
            // The first text makes the channel.
            let follow = Request::Follow { topic: channel(), change: FollowChange::Add };
            world.with_client(1, |client, now, history| client.ask(now, follow, history))?;
            world.run_for(100 * MS)?;
        }
    }
    Ok(world)
}

/// The answer of a server that has applied everything.
fn page(world: &World) -> Option<HistoryPage> {
    let services = world.servers.values().filter_map(|server| server.process.as_ref());
    let newest = services.max_by_key(|process| process.node.applied())?;
    newest.node.service().history(&population::name("ann"), &asked(), History::BYTES_MAX).ok()
}

fn answers(world: &World) -> usize {
    let read = |what: &ClientEvent| matches!(what, ClientEvent::Read { .. });
    world.history.events.iter().filter(|(_, what)| read(what)).count()
}

fn runs(world: &World) -> usize {
    world.servers.values().map(|server| server.histories_run).sum()
}

/// Asks for the page. Returns the time until it arrives.
fn ask(world: &mut World) -> Told<Micros> {
    let began = world.now;
    let query = QueryId(1);
    let History { topic, range, limit } = asked();
    let asked = Query::History { topic, range, limit, selection: Selection::default() };
    world.with_client(1, |client, now, history| {
        history.note(ClientId(1), ClientEvent::Asked { query, topic: channel() });
        client.handle(now, Input::Query(query, asked), history)
    })?;
    while answers(world) == 0 {
        if world.now > began + WITHIN {
            return Err(format!("no page within {} ms, and {} runs", WITHIN / MS, runs(world)));
        }
        world.step()?;
    }
    Ok(world.now - began)
}

#[test]
fn a_full_page_arrives_within_two_seconds_where_a_fifth_is_lost_and_its_query_runs_once() {
    let mut times = Vec::new();
    for seed in 0..SEEDS {
        let told = begun(seed).and_then(|mut world| {
            let page = page(&world).ok_or("there is no page")?;
            let length = codec::encode(&page).len();
            if !page.more || page.notifications.len() != 3 || length <= 22 * fragment::PIECE_MAX {
                let count = page.notifications.len();
                return Err(format!("{length} bytes of {count} notifications are no full page"));
            }
            world.network.fault_mix.loss = LOSS;
            let time = ask(&mut world)?;
            // What was asked again, and what goes again because its ack was lost, changes nothing.
            world.run_for(1_000 * MS)?;
            match (answers(&world), runs(&world)) {
                (1, 1) => Ok(time),
                (answers, runs) => Err(format!("{answers} answers, and {runs} runs of the query")),
            }
        });
        match told {
            Ok(time) => times.push(time),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    times.sort_unstable();
    let of = |at: usize| times.get(at).map_or(0, |time| time / MS);
    println!("{SEEDS} pages: {} ms in the middle, {} ms at most", of(times.len() / 2), of(times.len() - 1));
}
