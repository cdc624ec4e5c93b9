//! The execution of a planned fault in a world, and its end.

use std::net::SocketAddr;

use recado::delivery::ReplyTo;
use recado::server::engine::Input;
use recado_client::machine;
use recado_proto::id::{DeviceKey, NodeId, View};
use recado_proto::noise;
use recado_proto::packet::{Admin, AdminChange, QueryId, RoleName, ToServer};
use recado_proto::seal::Key;

use crate::client::{ClientProfile, Outcome};
use crate::coverage::Situation;
use crate::faults::{Fault, MS, Target};
use crate::network::{Host, Micros};
use crate::retry_forger::RetryForger;
use crate::server::{Death, Server, Stale, Suppression};
use crate::storage::Room;
use crate::world::{Event, World};
use crate::{population, tap};

/// A fault that is due.
#[derive(Clone, Copy, Debug)]
pub struct DueFault(pub Fault);

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Undo {
    Mend(Vec<(Host, Host)>),
    Unslow(Host, Host),
    DiskSpeed(NodeId),
    DiskRoom(NodeId),
    PutBack(NodeId),
}

impl Undo {
    /// Restores the state before the fault.
    ///
    /// # Errors
    /// The reaction that was required meanwhile and did not happen.
    pub fn apply(self, world: &mut World) -> Result<(), String> {
        match self {
            Undo::Mend(links) => links.into_iter().for_each(|(from, to)| world.network.mend(from, to)),
            Undo::Unslow(from, to) => world.network.slow(from, to, 0),
            Undo::DiskRoom(node) => {
                if let Some(server) = world.servers.get_mut(&node) {
                    server.storage.make_room(Room::Ample);
                }
            }
            Undo::PutBack(node) => match world.servers.get(&node).and_then(|server| server.stale) {
                None => {}
                Some(Stale::Noticed) => {
                    let death = Death { power: false, down: MS };
                    return kill(world, Target::Server(node), death);
                }
                Some(Stale::PutBack | Stale::Unnoticed) if !world.servers[&node].must_be_noticed() => {}
                Some(Stale::PutBack | Stale::Unnoticed) => {
                    return Err(format!("{node} runs on an older copy of its directory, and nobody says so"));
                }
            },
            Undo::DiskSpeed(node) => {
                if let Some(server) = world.servers.get_mut(&node).filter(|_| !world.healed) {
                    server.speed.sync = world.plan.sync;
                }
            }
        }
        Ok(())
    }
}

impl DueFault {
    /// Executes the fault. Does nothing if there is no target.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn strike(self, world: &mut World) -> Result<(), String> {
        match self.0 {
            Fault::Crash(target, death) => kill(world, target, death),
            Fault::Arm(target, trigger, death) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.armed_death = Some((trigger, death));
                }
                Ok(())
            }
            Fault::SuppressedElection { lasts, first, second } => {
                suppress_election(world, lasts, first, second)
            }
            Fault::Wipe(target, down) => {
                let Some(node) = find(world, target) else { return Ok(()) };
                kill(world, Target::Server(node), Death { power: false, down })?;
                if let Some(server) = world.servers.get_mut(&node) {
                    server.wipe();
                }
                Ok(())
            }
            Fault::Damage { who, extent, rot, down } => {
                let Some(node) = find(world, who) else { return Ok(()) };
                world.with_server(node, Server::settle)?;
                // The fault model excludes damage to what no mark speaks of.
                if !world.servers[&node].is_settled() {
                    return Ok(());
                }
                kill(world, Target::Server(node), Death { power: false, down })?;
                world.servers.get_mut(&node).map_or(Ok(()), Server::check_durable_vote)?;
                let hit = world
                    .servers
                    .get_mut(&node)
                    .and_then(|server| server.storage.damage(&mut world.rng, extent, rot));
                world.note(|| format!("{extent:?} {rot:?}: {hit:?}"));
                Ok(())
            }
            Fault::CopyDirectory(target) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.keep_copy();
                }
                Ok(())
            }
            Fault::RestoreDirectory(target, down) => restore_directory(world, target, down),
            Fault::DieInDisk(target, operations) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.storage.die_after(Some(operations));
                }
                Ok(())
            }
            Fault::FailWrite(target) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.storage.fail_writes(1);
                }
                Ok(())
            }
            Fault::MakeUnreadable(target, extent) => {
                let Some(node) = find(world, target) else { return Ok(()) };
                world.with_server(node, Server::settle)?;
                let server = world.servers.get_mut(&node).filter(|server| server.is_settled());
                let hit = server.and_then(|server| server.storage.make_unreadable(&mut world.rng, extent));
                world.note(|| format!("{extent:?} unreadable: {hit:?}"));
                Ok(())
            }
            Fault::FullDisk { who, room, lasts } => {
                let Some(node) = find(world, who) else { return Ok(()) };
                if let Some(server) = world.servers.get_mut(&node) {
                    server.storage.make_room(room);
                }
                world.after(lasts, Event::Undo(Undo::DiskRoom(node)));
                Ok(())
            }
            Fault::Pause(target, lasts) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.paused_until = world.now + lasts;
                    server.backlog = 0;
                }
                Ok(())
            }
            Fault::Isolate { who, clients_too, lasts } => {
                let Some(node) = find(world, who) else { return Ok(()) };
                let me = Host::Server(node);
                let others = hosts(world, clients_too).into_iter().filter(|host| *host != me);
                let links = others.flat_map(|other| [(me, other), (other, me)]).collect();
                cut(world, links, lasts);
                Ok(())
            }
            Fault::OneWay { from, to, lasts } => {
                if let (Some(from), Some(to)) = (find(world, from), find(world, to)) {
                    cut(world, vec![(Host::Server(from), Host::Server(to))], lasts);
                }
                Ok(())
            }
            Fault::Partition { sides, lasts } => {
                let all: Vec<(usize, Host)> = hosts(world, true).into_iter().enumerate().collect();
                let side = |i: usize| (sides >> (i % 32)) & 1;
                let mut links = Vec::new();
                for (i, from) in &all {
                    links
                        .extend(all.iter().filter(|(j, _)| side(*i) != side(*j)).map(|(_, to)| (*from, *to)));
                }
                cut(world, links, lasts);
                Ok(())
            }
            Fault::Slow { from, to, extra, lasts } => {
                if let (Some(from), Some(to)) = (find(world, from), find(world, to)) {
                    let (from, to) = (Host::Server(from), Host::Server(to));
                    world.network.slow(from, to, extra);
                    world.after(lasts, Event::Undo(Undo::Unslow(from, to)));
                }
                Ok(())
            }
            Fault::SlowDisk { who, sync, lasts } => {
                let Some(node) = find(world, who) else { return Ok(()) };
                if let Some(server) = world.servers.get_mut(&node) {
                    server.speed.sync = (sync / 2, sync);
                }
                world.after(lasts, Event::Undo(Undo::DiskSpeed(node)));
                Ok(())
            }
            Fault::FailDisk(target) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.storage.fail_syncs(1);
                }
                Ok(())
            }
            Fault::Clock(target, jump) => {
                if let Some(server) = find(world, target).and_then(|node| world.servers.get_mut(&node)) {
                    server.skew_ms += jump;
                }
                Ok(())
            }
            Fault::Stop(target) => match find(world, target) {
                Some(node) => world.with_server(node, |server, step| server.on_input(step, Input::Stop)),
                None => Ok(()),
            },
            Fault::ClientCrash(id, Death { power, down }) => {
                world.with_client(id, |client, _, history| {
                    let lost = if power { client.lose_power(history) } else { 0 };
                    client.crash(history);
                    let mut met = vec![Situation::AnswerLost; lost];
                    met.extend(client.reset(history).then_some(Situation::DeviceReset));
                    Outcome { met, ..Outcome::default() }
                })?;
                world.after(down, Event::ClientStart(id));
                Ok(())
            }
            Fault::ClientCopy(id) => {
                if let Some(client) = world.clients.get_mut(&id) {
                    client.keep_copy();
                }
                Ok(())
            }
            Fault::ClientRestore(id, down) => {
                let mut done = false;
                world.with_client(id, |client, _, history| {
                    done = client.restore_copy(history);
                    Outcome::default()
                })?;
                if done {
                    world.after(down, Event::ClientStart(id));
                }
                Ok(())
            }
            Fault::ClientTwin(id) => {
                world.twin(id);
                Ok(())
            }
            Fault::ClientMove(id) => {
                if let Some(client) = world.clients.get_mut(&id) {
                    client.moves += 1;
                }
                Ok(())
            }
            Fault::Release(id) => {
                administer_client(world, id, |of| AdminChange::Release { name: of.profile.clone() })
            }
            Fault::RemoveProfile(id) => {
                administer_client(world, id, |of| AdminChange::RemoveProfile { name: of.profile.clone() })
            }
            Fault::Allow(id) => {
                administer_client(world, id, |of| AdminChange::Allow { key: tap::public(of.key) })
            }
            Fault::Disallow(id) => {
                administer_client(world, id, |of| AdminChange::Disallow { key: tap::public(of.key) })
            }
            Fault::Invite { number, uses, lasts_ms, only } => {
                let of = only.and_then(|id| world.clients.get(&id));
                let name = of.map(|client| client.character.profile.clone());
                let code = population::invitation(number);
                administer(world, AdminChange::Invite { code, uses, lasts_ms, name })
            }
            Fault::RemoveChannel(which) => {
                let all: Vec<_> = [population::channels(), population::owned_channels()].concat();
                match all.get(usize::from(which)).cloned() {
                    Some(channel) => administer(world, AdminChange::RemoveChannel { channel }),
                    None => Ok(()),
                }
            }
            Fault::ForgeRetry { before, lasts } => {
                world.forger = Some(RetryForger { until: world.now + lasts, before });
                Ok(())
            }
            Fault::ClientLeave(id) => world.with_client(id, |client, now, history| {
                client.handle(now, machine::Input::Disconnect, history)
            }),
        }
    }
}

/// Replaces a server's directory by an older copy.
fn restore_directory(world: &mut World, target: Target, down: Micros) -> Result<(), String> {
    let Some(node) = find(world, target) else { return Ok(()) };
    let Some(boot) = world.servers.get(&node).and_then(Server::incarnation_of_copy) else { return Ok(()) };
    let refuses = |server: &Server| {
        let known = server.knows.get(&node).copied().unwrap_or_default();
        server.id == node || !known.allows(boot, tap::boot_id_of_copy(node, boot))
    };
    if !world.servers.values().all(refuses) {
        return Ok(());
    }
    kill(world, Target::Server(node), Death { power: false, down })?;
    if let Some(server) = world.servers.get_mut(&node) {
        server.restore_copy();
    }
    world.set_back(node);
    Ok(())
}

fn suppress_election(world: &mut World, lasts: Micros, first: Death, second: Death) -> Result<(), String> {
    // Without a primary nothing is done; repeated episodes would leave no time to serve.
    let Some((old, above)) = primary(world) else { return Ok(()) };
    let back = world.now + lasts;
    for server in world.servers.values_mut() {
        server.suppression = Some(Suppression { above, back, first, second, commit: None, lit: false });
    }
    DueFault(Fault::Isolate { who: Target::Server(old), clients_too: false, lasts }).strike(world)
}

/// An administrator asks the primary for this change. The request arrives once more later, at the primary of
/// that time, as a duplicate or a replay.
fn administer(world: &mut World, change: AdminChange) -> Result<(), String> {
    if primary(world).is_none() {
        return Ok(());
    }
    let admin = Admin { query: QueryId(world.rng.next()), change };
    let again = world.rng.below(3_000) * MS;
    world.after(again, Event::Administer(admin.clone()));
    send_as_administrator(world, admin)
}

/// Passes an administrator's request to the primary, if there is one.
///
/// # Errors
/// The violated invariant.
pub fn send_as_administrator(world: &mut World, admin: Admin) -> Result<(), String> {
    let Some((node, _)) = primary(world) else { return Ok(()) };
    // The second message of a handshake tells its key.
    let (key, mut opening) = (world.rng.bytes(), [0; noise::OPENING_LEN]);
    opening[..32].copy_from_slice(&key);
    let to = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let reply_to = ReplyTo { to, reply: noise::Reply { opening, key: Key::new(key) } };
    let key = DeviceKey(noise::public(&tap::cluster_keys().admin_private()));
    let packet = ToServer::Admin(admin);
    world.with_server(node, |server, step| server.on_input(step, Input::Initiation { reply_to, key, packet }))
}

/// The same, for a change that depends on a client.
fn administer_client(
    world: &mut World,
    client: u8,
    change: impl FnOnce(&ClientProfile) -> AdminChange,
) -> Result<(), String> {
    match world.clients.get(&client).map(|client| change(&client.character)) {
        Some(change) => administer(world, change),
        None => Ok(()),
    }
}

fn kill(world: &mut World, target: Target, death: Death) -> Result<(), String> {
    match find(world, target) {
        Some(node) => world.with_server(node, |server, step| server.die(step, death)),
        None => Ok(()),
    }
}

fn cut(world: &mut World, links: Vec<(Host, Host)>, lasts: Micros) {
    for (from, to) in &links {
        world.network.cut_one_way(*from, *to);
    }
    world.after(lasts.max(MS), Event::Undo(Undo::Mend(links)));
}

fn hosts(world: &World, clients_too: bool) -> Vec<Host> {
    let servers = world.servers.keys().copied().map(Host::Server);
    let clients = world.clients.keys().copied().map(Host::Client).filter(|_| clients_too);
    servers.chain(clients).collect()
}

/// Returns the primary of the highest view, and that view.
fn primary(world: &World) -> Option<(NodeId, View)> {
    let servers = world.servers.values().filter(|server| server.role() == Some(RoleName::Primary));
    servers
        .filter_map(|server| Some((server.id, server.process.as_ref()?.node.promised())))
        .max_by_key(|(_, view)| *view)
}

/// Returns the server that the target means at this time.
fn find(world: &mut World, target: Target) -> Option<NodeId> {
    let alive: Vec<NodeId> =
        world.servers.values().filter(|server| server.alive()).map(|server| server.id).collect();
    let primary = primary(world).map(|(id, _)| id);
    let beside = |n: usize| {
        let ring: Vec<NodeId> = alive.iter().copied().filter(|id| Some(*id) != primary).collect();
        ring.get(n % ring.len().max(1)).copied()
    };
    match target {
        Target::Server(node) => alive.contains(&node).then_some(node),
        Target::Primary => primary.or_else(|| world.rng.pick(&alive).copied()),
        Target::Backup => beside(0),
        Target::OtherBackup => beside(1),
    }
}
