//! The population of a run: the configuration of the servers and the behaviour of the clients.

use std::time::Duration;

use recado::config::{Cluster, Config, Limits, Member, PlantedBug, Preempt, Retention, Timing};
use recado_proto::id::{Admission, ChannelName, ClusterId, Name, NodeId, StoreKey};
use recado_proto::packet::CodeHash;

use crate::client::{ClientActions, ClientProfile};
use crate::faults::Plan;
use crate::network::{Micros, client_port, peer_port};
use crate::rng::Rng;
use crate::server::{Bounds, DiskSpeed, Server};
use crate::storage::Storage;

/// The id of the cluster.
pub const CLUSTER: ClusterId = ClusterId(0x7eca_d000);

/// The timing of all servers.
pub const TIMING: Timing = Timing { preempt_after: Duration::from_secs(2), ..Timing::DEFAULT };

const NAMES: [&str; 5] = ["ann", "bob", "cleo", "dora", "emil"];

/// Parses a name that is known to be valid.
pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

pub fn channel(text: &str) -> ChannelName {
    text.parse().unwrap()
}

/// The open channels that clients send to; their names differ by case.
pub fn key(text: &str) -> StoreKey {
    text.parse().unwrap()
}

pub fn channels() -> Vec<ChannelName> {
    vec![channel("ops"), channel("Ops")]
}

/// The channels that clients create, own and delete, for tests of rights; one name is the longest.
pub fn owned_channels() -> Vec<ChannelName> {
    vec![channel("staff"), channel(&"Vault~".repeat(22)[..ChannelName::LEN_MAX])]
}

/// The configuration of server `id` in a cluster of `servers`.
pub fn config(servers: u16, id: NodeId, planted: PlantedBug) -> Config {
    let member = |id| Member { id, client: client_port(id), peer: peer_port(id) };
    Config {
        cluster: Cluster {
            id: CLUSTER,
            me: id,
            members: (1..=servers).map(|id| member(NodeId(id))).collect(),
        },
        timing: TIMING,
        preempt: Preempt::Off,
        limits: Limits::default(),
        retention: Retention::default(),
        admission: Default::default(),
        snapshot_every: Duration::from_secs(60),
        snapshot_bytes: 64 * 1024 * 1024,
        planted,
    }
}

/// A server of this plan, initialised as a voter.
pub fn server(plan: &Plan, id: NodeId) -> Server {
    let mut config = config(plan.servers, id, plan.planted);
    config.snapshot_every = Duration::from_micros(plan.snapshot_every);
    if plan.seed.is_multiple_of(3) {
        config.snapshot_bytes = 2_000;
    }
    if plan.preempt {
        config.preempt = Preempt::Graceful;
    }
    if plan.short_retention {
        config.retention.count = plan.swarm.kept;
        // Little more than the profiles' own records, so that topics also compete with each other for room.
        config.limits.state_bytes = 36_000;
    }
    plan.swarm.bound(&mut config);
    let set = !plan.swarm.half_set || !id.0.is_multiple_of(2);
    config.admission = if set { plan.swarm.admission } else { Admission::Open };
    let mut storage = Storage::initialised(&config);
    storage.step = plan.swarm.segment.unwrap_or(storage.step);
    let mut server = Server::new(config, storage, DiskSpeed { sync: plan.sync });
    server.turn = plan.swarm.turn;
    server.opens.1 = plan.swarm.opens.unwrap_or(server.opens.1);
    server.skew_ms = plan.swarm.skews[usize::from(id.0) % plan.swarm.skews.len()];
    server.bounds = Bounds {
        delivery_queue: plan.swarm.delivery_queue,
        delivery_turn: plan.swarm.delivery_turn,
        request_queue: plan.swarm.request_queue,
        journal: plan.swarm.journal,
    };
    server
}

/// The number of invitations.
pub const INVITATIONS: u8 = 2;

/// The code of an invitation.
pub fn invitation(number: u8) -> CodeHash {
    CodeHash([0xc0 | (number % INVITATIONS); 32])
}

/// The time for which a client that has claimed a name stays away, so that the name expires.
fn away(unused: Micros) -> Micros {
    unused + 1_500_000
}

/// The code that enrols a profile's second key.
fn code(profile: &Name) -> CodeHash {
    let mut code = [0; 32];
    code[..profile.as_str().len()].copy_from_slice(profile.as_str().as_bytes());
    CodeHash(code)
}

/// The behaviour of the `id`-th client, from 1. The second, and the third where the limit of devices is low,
/// is sometimes another device of the first one's profile. Where keys change, the second has its own key.
pub fn character(rng: &mut Rng, id: u8, plan: &Plan) -> ClientProfile {
    let swarm = &plan.swarm;
    let enrols = id == 2 && swarm.keys > 0;
    let shares = enrols || id == 2 && rng.permille(300) || id <= 3 && swarm.devices.is_some();
    let person = if shares { 1 } else { id };
    let profile = name(NAMES[usize::from(person - 1) % NAMES.len()]);
    let habits = ClientActions {
        queries: swarm.queries,
        rights: swarm.rights,
        retractions: swarm.retractions,
        values: swarm.values,
        resets: swarm.resets,
        keys: if id == 1 { swarm.keys } else { 0 },
        code: Some(code(&profile)).filter(|_| swarm.keys > 0),
        enrols,
        may_be_disowned: swarm.disowns(),
        few_devices: swarm.devices.is_some(),
        outstanding: swarm.outstanding,
        turn: if rng.permille(500) { 0 } else { rng.range(0, 2_000) },
        invite: (swarm.admission == Admission::Invite).then(|| invitation(id)),
        away: swarm.unused.filter(|_| id == plan.clients && !shares).map(away),
    };
    ClientProfile {
        planted: plan.planted,
        profile,
        key: if enrols { id } else { person },
        slot: if shares && !enrols { id - 1 } else { 0 },
        receives: id == 1 || rng.permille(850),
        forgets: rng.permille(150),
        takes_late: rng.permille(300),
        long_texts: plan.long_texts,
        habits,
    }
}
