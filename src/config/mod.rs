//! Configuration: every setting with its unit, how to choose it, its relation to others, what goes wrong at
//! either end, and its default.
//!
//! A [`Config`] is the configuration of one server. [`Cluster`] says which servers there are, [`Timing`] has
//! the protocol's timers (DESIGN.md section 6), [`Limits`] the bounds of tables and rates, and [`Retention`]
//! says how long notifications are kept. [`mod@file`] reads and writes them as `recado.toml`, [`secret`] the
//! file beside it. Values are checked where a file is read; a program or a test that fills in a [`Config`]
//! itself keeps the relations that the fields name.

pub mod file;

use std::time::Duration;

pub use recado_log::config::{Cluster, Member, Preempt, Timing, TimingError};
pub use recado_proto::planted::{Planted, PlantedBug};
pub use recado_service::limits::{Limits, Rate, Retention};
pub use recado_sys::secret;

use recado_proto::fnv::fnv1a;
use recado_proto::id::Admission;

/// The configuration of one server.
///
/// The servers must agree on `cluster` (except for [`Cluster::me`]), on `timing`, on `retention`, and on the
/// `limits` that apply reads. Of `preempt`, `admission`, `retention` and the rates of names and channels the
/// primary's count: if the servers differ, a failover changes them, and one that retains less drops for all.
/// `snapshot_every`, `snapshot_bytes` and the other limits are each server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it, from `cluster`, `node` and `[[server]]`. The journal
    /// compares its ids with the data directory at each start.
    pub cluster: Cluster,
    /// The protocol's timers: a preset, `[timing] preset`. Choose by the round trip between the servers and
    /// the pauses of their machines. Default [`Timing::DEFAULT`].
    pub timing: Timing,
    /// The policy when a server with a higher id is back, `[timing] preempt`. Default [`Preempt::Graceful`].
    pub preempt: Preempt,
    /// Bounds of tables, windows and rates. `[limits]` and `[admission]` set the rates of requests, names and
    /// channels; the others are compiled in.
    pub limits: Limits,
    /// The retention of topics, `[retention]`. Choose by memory, and by how long readers are away.
    pub retention: Retention,
    /// The rule for claiming a name that nobody has, `[admission] new_names`. The primary logs its own with
    /// each CONNECT, so apply decides alike everywhere. [`Admission::Open`] gives names to whoever comes
    /// first; choose it where everybody who reaches a server may have one. With another rule each newcomer
    /// needs a code or a key from an administrator. Default [`Admission::Open`].
    pub admission: Admission,
    /// The time from one snapshot to the next, if anything is new; 1 s to a day in the file. Each server
    /// begins its own in its n-th of that time, by the wall clock; the same value on all keeps them apart.
    /// Too small: the disk writes the whole state again and again, and a failover waits for up to four more
    /// fsyncs where a snapshot has just begun (PERFORMANCE.md). Too large: nothing, `snapshot_bytes` applies
    /// first. Default 60 s (DESIGN.md section 5).
    pub snapshot_every: Duration,
    /// The bytes of payload in the log since the last snapshot at which another one is due, and twice as many
    /// outside the server's turn; 1 MiB to 1 GiB in the file. Choose about the size of the state: with less,
    /// snapshots write more than the log does. Too small: that, and a backup that was away longer than two of
    /// them fetches a snapshot. Too large: a start reads and holds a longer log, a running server holds the
    /// log of up to two snapshots in memory, and its disk that of three, each of up to twice as many bytes.
    /// While a peer fetches a snapshot, the next one waits for up to four times as many. Default 64 MiB
    /// (DESIGN.md section 5).
    pub snapshot_bytes: u64,
    /// The mistake that a test plants, none by default; only tests can build with one (the feature
    /// `planted-bugs`).
    pub planted: PlantedBug,
}

impl Config {
    /// The configuration that `recadod init` writes for this cluster: every setting at its default.
    pub fn default_for(cluster: Cluster) -> Config {
        Config {
            cluster,
            timing: Timing::DEFAULT,
            preempt: Preempt::Graceful,
            limits: Limits::default(),
            retention: Retention::default(),
            admission: Admission::default(),
            snapshot_every: Duration::from_secs(60),
            snapshot_bytes: 64 * 1024 * 1024,
            planted: PlantedBug::default(),
        }
    }

    /// Four digests of 16 bits, the first one highest, of what all servers must be configured with alike: the
    /// cluster's id and members with their addresses; the timers; who may claim a name; and the retention. Of
    /// the last two the primary's count, so that with others a failover changes them, and what a server with
    /// less retention drops while it leads is lost everywhere. Not of `me`, of what only the primary or each
    /// server itself decides, nor of what is compiled in. It finds mistakes, not attackers: whoever has the
    /// secret can claim any digest.
    pub fn agreed(&self) -> u64 {
        let Cluster { id, members, .. } = &self.cluster;
        let Timing { heartbeat, suspect_min, suspect_max, bully, coordinator, preempt_after } = self.timing;
        let Retention { count, bytes, age_ms, all_bytes } = self.retention;
        let mut servers = id.to_string();
        for Member { id, client, peer } in members {
            servers.push_str(&format!("; {} {client} {peer}", id.0));
        }
        let times = [heartbeat, suspect_min, suspect_max, bully, coordinator, preempt_after];
        let times = times.map(|time| time.as_micros().to_string()).join(" ");
        let names = match self.admission {
            Admission::Open => "open",
            Admission::Invite => "invite",
            Admission::Keys => "keys",
        };
        let retained = format!("{count} {bytes} {age_ms} {all_bytes}");
        let parts = [servers, times, names.to_owned(), retained];
        parts.into_iter().fold(0, |all, part| all << 16 | u64::from(digest(&part)))
    }

    /// The part of the configuration that the log needs.
    pub fn log(&self) -> recado_log::config::Config {
        let Config { cluster, timing, preempt, planted, .. } = self;
        let cluster = cluster.clone();
        recado_log::config::Config { cluster, timing: *timing, preempt: *preempt, planted: *planted }
    }
}

fn digest(part: &str) -> u16 {
    let [a, b, c, d, e, f, g, h] = fnv1a(part.bytes()).to_be_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes).into_iter().fold(0, |all, bits| all ^ bits)
}

#[cfg(test)]
mod tests {
    use recado_proto::id::{ClusterId, NodeId};

    use super::*;

    fn config(me: u16) -> Config {
        let member = |id: u16| Member {
            id: NodeId(id),
            client: ([192, 0, 2, id as u8], 10_097).into(),
            peer: ([192, 0, 2, id as u8], 11_097).into(),
        };
        let members = [1, 2, 3].map(member).to_vec();
        Config::default_for(Cluster { id: ClusterId(7), me: NodeId(me), members })
    }

    #[test]
    fn servers_that_agree_have_one_digest_and_each_disagreement_another() {
        let agreed = config(1).agreed();
        assert_eq!(config(2).agreed(), agreed, "each server is itself");
        let own = Config { preempt: Preempt::Off, snapshot_bytes: 1, ..config(1) };
        assert_eq!(own.agreed(), agreed, "a server's own settings need not agree");
        let mut others = vec![agreed];
        let mut other = |part: u32, change: &dyn Fn(&mut Config)| {
            let mut config = config(1);
            change(&mut config);
            let differs = config.agreed() ^ agreed;
            assert_eq!(differs & !(0xffff << (48 - 16 * part)), 0, "it shows which setting it is: {part}");
            others.push(config.agreed());
        };
        other(0, &|config| config.cluster.id = ClusterId(8));
        other(0, &|config| config.cluster.members[2].client.set_port(1));
        other(0, &|config| config.cluster.members[2].peer.set_port(1));
        other(0, &|config| config.cluster.members[2].id = NodeId(4));
        other(0, &|config| config.cluster.members.truncate(2));
        other(1, &|config| config.timing = Timing::LAN);
        other(2, &|config| config.admission = Admission::Keys);
        other(3, &|config| config.retention.count = 2);
        other(3, &|config| config.retention.bytes = 2);
        other(3, &|config| config.retention.age_ms = 2);
        other(3, &|config| config.retention.all_bytes = 2);
        let count = others.len();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), count);
    }
}
