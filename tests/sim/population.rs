//! Who lives in a world: how servers are configured, and what clients are like.

use std::time::Duration;

use recado::config::{Cluster, Config, Limits, Member, PlantedBug, Preempt, Retention, Timing};
use recado::id::{ClusterId, Name, NodeId};

use crate::client::Character;
use crate::faults::Plan;
use crate::network::{client_port, peer_port};
use crate::rng::Rng;
use crate::server::{DiskSpeed, Server};
use crate::storage::Storage;

/// Which cluster it is.
pub const CLUSTER: ClusterId = ClusterId(0x7eca_d000);

const NAMES: [&str; 5] = ["ann", "bob", "cleo", "dora", "emil"];

/// A name known to be good.
pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

/// The channels people talk on.
pub fn channels() -> Vec<Name> {
    vec![name("ops"), name("news")]
}

/// Server `id` of a cluster of `servers`.
pub fn config(servers: u16, id: NodeId, planted: PlantedBug) -> Config {
    let member = |id| Member { id, client: client_port(id), peer: peer_port(id) };
    Config {
        cluster: Cluster {
            id: CLUSTER,
            me: id,
            members: (1..=servers).map(|id| member(NodeId(id))).collect(),
        },
        timing: Timing { preempt_after: Duration::from_secs(2), ..Timing::DEFAULT },
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
        config.retention.count = 12;
        // So little beside the people's own records that topics give way to each other too.
        config.limits.state_bytes = 36_000;
    }
    let storage = Storage::initialised(&config);
    Server::new(config, storage, DiskSpeed { sync: plan.sync })
}

/// The `id`-th client, from 1: the second is another device of the first one's profile at times.
pub fn character(rng: &mut Rng, id: u8, plan: &Plan) -> Character {
    let shares = id == 2 && rng.permille(300);
    let person = if shares { 1 } else { id };
    Character {
        planted: plan.planted,
        profile: name(NAMES[usize::from(person - 1) % NAMES.len()]),
        key: person,
        slot: u8::from(shares),
        receives: id == 1 || rng.permille(850),
        forgets: rng.permille(150),
        takes_late: rng.permille(300),
        long_texts: plan.long_texts,
    }
}
