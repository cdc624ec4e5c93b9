//! `recado.toml`: the configuration file of one server, as people write and read it.
//!
//! [`ServerFile::read`] parses a file and refuses unknown keys: a misspelt key would otherwise silently be a
//! default. [`render`] writes the file that `recadod init` makes, every setting with its unit, default and
//! limits, how to choose it, and what goes wrong at either end. The reasons stand at the field that a key
//! sets, in [`Config`] and the types in it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use recado_proto::id::{Admission, ClusterId, MEMBERS_MAX, NodeId};

use super::{Cluster, Config, Limits, Member, Preempt, Rate, Retention, Timing};

const MIB: u64 = 1024 * 1024;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The format of log lines. Each server has its own; `--log` of `recadod serve` overrides the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people. The default.
    Text,
    /// One JSON object a line, for programs that collect logs.
    Json,
}

/// A configuration file that has been parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFile {
    /// The server's configuration.
    pub config: Config,
    /// The data directory, which `recadod init` makes and one process locks. Relative paths in the file start
    /// in the directory of the file. It belongs to one server and must survive its machine's restart: an
    /// empty one makes the server a learner, an old copy takes promises back. Choose the disk with the
    /// fastest fsync, because each write waits for those of a majority. No default.
    pub data: PathBuf,
    /// The file of the cluster's secret, the same on every server and mode 0600 (checked by
    /// [`secret`](super::secret) when it is read). With another secret a server opens no datagram of the
    /// others. No default.
    pub secret: PathBuf,
    /// The format of log lines, unless the command line sets another.
    pub log: LogFormat,
}

/// The file cannot be used. Its author's fault; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path} (`recadod init` writes such files)")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not TOML, or it has an unknown key, a missing key, or a value of the wrong type. The parser's
    /// message names the line.
    #[error("{path} cannot be parsed")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message, with the line.
        source: Box<toml::de::Error>,
    },
    /// A value breaks a rule.
    #[error("{key} = {value}: {rule}")]
    Value {
        /// The key.
        key: String,
        /// The value, as the file has it: text in quotes.
        value: String,
        /// The rule that it breaks, with the cure.
        rule: Rule,
    },
}

/// The rules for values; each message names the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A number outside its limits.
    #[error("must be {least} to {most}")]
    Range {
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// A number below another one that it must cover.
    #[error("must be no less than {of}, which is {least}")]
    Below {
        /// The key of the other.
        of: &'static str,
        /// Its value.
        least: u64,
    },
    /// A word that is not one of those allowed.
    #[error("must be one of {0}")]
    OneOf(&'static str),
    /// A value that is not an address with a port.
    #[error(
        "must be an IP address and a port, as \"192.0.2.1:10097\" or \"[2001:db8::1]:10097\": servers know each other by \
         address, so a name is looked up once (getent hosts NAME), and its address written here"
    )]
    NotAnAddress,
    /// A value that is not a cluster id.
    #[error("must be 16 hexadecimal digits, not all zero, as `recadod init` drew them for the cluster")]
    ClusterId,
    /// A server's own id that is not among the servers.
    #[error("no [[server]] has this id; every server lists all of them, itself too")]
    NotAMember,
    /// Two servers with the same id.
    #[error("two [[server]] have this id; give each its own, the highest to the one that should lead")]
    RepeatedId,
    /// Two sockets with the same address.
    #[error("used twice; each server needs its own client and its own peer address")]
    RepeatedAddress,
    /// An address that does not belong to a single machine.
    #[error(
        "clients and peers send to this address, so it must be one machine's own, with a port above 0: not \
         unspecified (0.0.0.0, ::), not broadcast, not multicast"
    )]
    NoMachine,
    /// Addresses of both families: a server sends to all others from one socket, which has one family.
    #[error(
        "IPv4 and IPv6 are mixed, and one socket, which has one family, sends to all the others: give every \
         server addresses of the same"
    )]
    MixedFamilies,
}

/// Refuses a text.
fn refuse(key: impl Into<String>, value: impl ToString, rule: Rule) -> ConfigError {
    ConfigError::Value { key: key.into(), value: format!("{:?}", value.to_string()), rule }
}

/// Refuses a number.
fn refuse_number(key: impl Into<String>, value: impl Into<u64>, rule: Rule) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.into().to_string(), rule }
}

/// The file as TOML. The keys above the tables and `[[server]]` have no default; every table may be left out,
/// and so may each key of a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    cluster: String,
    node: u16,
    data: PathBuf,
    secret: PathBuf,
    server: Vec<RawServer>,
    #[serde(default)]
    admission: RawAdmission,
    #[serde(default)]
    timing: RawTiming,
    #[serde(default)]
    retention: RawRetention,
    #[serde(default)]
    snapshot: RawSnapshot,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    log: RawLog,
}

/// `[[server]]`: a [`Member`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    id: u16,
    client: String,
    peer: String,
}

/// `[admission]`: [`Config::admission`], [`Limits::network_names`] and [`Limits::network_channels`]. Rates
/// and bursts count names, of which each costs [`Limits::NAME_COST`] tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAdmission {
    new_names: String,
    names_per_h: u64,
    names_burst: u64,
    channels_per_h: u64,
    channels_burst: u64,
}

impl Default for RawAdmission {
    fn default() -> Self {
        let Limits { network_names: names, network_channels: channels, .. } = Limits::default();
        RawAdmission {
            new_names: "open".into(),
            names_per_h: names.per_s.into(),
            names_burst: (names.burst / Limits::NAME_COST).into(),
            channels_per_h: channels.per_s.into(),
            channels_burst: (channels.burst / Limits::NAME_COST).into(),
        }
    }
}

/// `[timing]`: [`Config::timing`], by the name of a preset, and [`Config::preempt`]. No key sets a single
/// timer, and the presets are checked at compile time ([`Timing::validate`]): a file has no timers to check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTiming {
    preset: String,
    preempt: String,
}

impl Default for RawTiming {
    fn default() -> Self {
        RawTiming { preset: "default".into(), preempt: "graceful".into() }
    }
}

/// `[retention]`: a [`Retention`], in MiB and days.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRetention {
    count: u64,
    mib: u64,
    days: u64,
    all_mib: u64,
}

impl Default for RawRetention {
    fn default() -> Self {
        let Retention { count, bytes, age_ms, all_bytes } = Retention::default();
        RawRetention { count, mib: bytes / MIB, days: age_ms / DAY_MS, all_mib: all_bytes / MIB }
    }
}

/// `[snapshot]`: [`Config::snapshot_every`] in seconds and [`Config::snapshot_bytes`] in MiB.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSnapshot {
    every_s: u64,
    log_mib: u64,
}

impl Default for RawSnapshot {
    fn default() -> Self {
        RawSnapshot { every_s: 60, log_mib: 64 }
    }
}

/// `[limits]`: the rates of requests and handshakes in [`Limits`]. The others are compiled in: apply depends
/// on most of them, and it must do the same on every server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    session_per_s: u64,
    session_burst: u64,
    profile_per_s: u64,
    profile_burst: u64,
    network_per_s: u64,
    network_burst: u64,
    handshakes_per_s: u64,
    handshakes_burst: u64,
    network_handshakes_per_s: u64,
    network_handshakes_burst: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        let limits = Limits::default();
        let (session, profile, network) =
            (limits.session_requests, limits.profile_requests, limits.network_requests);
        RawLimits {
            session_per_s: session.per_s.into(),
            session_burst: session.burst.into(),
            profile_per_s: profile.per_s.into(),
            profile_burst: profile.burst.into(),
            network_per_s: network.per_s.into(),
            network_burst: network.burst.into(),
            handshakes_per_s: limits.handshakes.per_s.into(),
            handshakes_burst: limits.handshakes.burst.into(),
            network_handshakes_per_s: limits.network_handshakes.per_s.into(),
            network_handshakes_burst: limits.network_handshakes.burst.into(),
        }
    }
}

/// `[log]`: a [`LogFormat`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    format: String,
}

impl Default for RawLog {
    fn default() -> Self {
        RawLog { format: "text".into() }
    }
}

impl ServerFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file or the key, the value and the cure.
    pub fn read(path: &Path) -> Result<ServerFile, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        ServerFile::parse(path, &text)
    }

    /// Checks the text of the file at `path`, which is not touched.
    ///
    /// # Errors
    /// As [`ServerFile::read`].
    pub fn parse(path: &Path, text: &str) -> Result<ServerFile, ConfigError> {
        let raw: Raw = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let home = path.parent().unwrap_or(Path::new("."));
        let (data, secret) = (home.join(&raw.data), home.join(&raw.secret));
        let cluster = cluster(&raw)?;
        let log = match raw.log.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(refuse("log.format", other, Rule::OneOf("\"text\", \"json\""))),
        };
        let config = Config {
            timing: timing(&raw.timing.preset)?,
            preempt: preempt(&raw.timing.preempt)?,
            retention: retention(&raw.retention)?,
            limits: limits(&raw.limits, &raw.admission)?,
            admission: admission(&raw.admission.new_names)?,
            snapshot_every: Duration::from_secs(within(
                "snapshot.every_s",
                raw.snapshot.every_s,
                1,
                24 * 3600,
            )?),
            snapshot_bytes: within("snapshot.log_mib", raw.snapshot.log_mib, 1, 1024)? * MIB,
            ..Config::default_for(cluster)
        };
        Ok(ServerFile { config, data, secret, log })
    }
}

fn cluster(raw: &Raw) -> Result<Cluster, ConfigError> {
    let id: ClusterId = raw.cluster.parse().map_err(|_| refuse("cluster", &raw.cluster, Rule::ClusterId))?;
    let servers = u64::try_from(raw.server.len()).unwrap_or(u64::MAX);
    within("number of [[server]]", servers, 1, MEMBERS_MAX as u64)?;

    let mut members: Vec<Member> = Vec::with_capacity(raw.server.len());
    for server in &raw.server {
        within("server.id", server.id.into(), 1, u16::MAX.into())?;
        if members.iter().any(|member| member.id.0 == server.id) {
            return Err(refuse_number("server.id", server.id, Rule::RepeatedId));
        }
        let address = |key: &str, text: &str| text.parse().map_err(|_| refuse(key, text, Rule::NotAnAddress));
        let (client, peer) =
            (address("server.client", &server.client)?, address("server.peer", &server.peer)?);
        members.push(Member { id: NodeId(server.id), client, peer });
    }
    check_addresses(&members)?;
    members.sort();
    let me = NodeId(raw.node);
    if !members.iter().any(|member| member.id == me) {
        return Err(refuse_number("node", raw.node, Rule::NotAMember));
    }
    Ok(Cluster { id, me, members })
}

/// Checks that servers and clients can reach each other at these addresses, as far as the addresses alone
/// tell.
///
/// # Errors
/// [`ConfigError::Value`] with the address that cannot be used. The author's fault.
pub fn check_addresses(members: &[Member]) -> Result<(), ConfigError> {
    let mut used: Vec<SocketAddr> = Vec::new();
    for member in members {
        for (key, addr) in [("server.client", member.client), ("server.peer", member.peer)] {
            let broadcast = matches!(addr.ip(), IpAddr::V4(ip) if ip.is_broadcast());
            if addr.ip().is_unspecified() || addr.ip().is_multicast() || broadcast || addr.port() == 0 {
                return Err(refuse(key, addr, Rule::NoMachine));
            }
            if used.iter().any(|other| other.is_ipv6() != addr.is_ipv6()) {
                return Err(refuse(key, addr, Rule::MixedFamilies));
            }
            if used.contains(&addr) {
                return Err(refuse(key, addr, Rule::RepeatedAddress));
            }
            used.push(addr);
        }
    }
    Ok(())
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(refuse_number(key, value, Rule::Range { least, most }))
    }
}

fn timing(preset: &str) -> Result<Timing, ConfigError> {
    match preset {
        "default" => Ok(Timing::DEFAULT),
        "lan" => Ok(Timing::LAN),
        "noisy" => Ok(Timing::NOISY),
        "wan" => Ok(Timing::WAN),
        other => Err(refuse("timing.preset", other, Rule::OneOf("\"default\", \"lan\", \"noisy\", \"wan\""))),
    }
}

fn preempt(word: &str) -> Result<Preempt, ConfigError> {
    match word {
        "graceful" => Ok(Preempt::Graceful),
        "off" => Ok(Preempt::Off),
        other => Err(refuse("timing.preempt", other, Rule::OneOf("\"graceful\", \"off\""))),
    }
}

fn admission(word: &str) -> Result<Admission, ConfigError> {
    match word {
        "open" => Ok(Admission::Open),
        "invite" => Ok(Admission::Invite),
        "keys" => Ok(Admission::Keys),
        other => Err(refuse("admission.new_names", other, Rule::OneOf("\"open\", \"invite\", \"keys\""))),
    }
}

fn retention(raw: &RawRetention) -> Result<Retention, ConfigError> {
    Ok(Retention {
        count: within("retention.count", raw.count, 1, 10_000_000)?,
        bytes: within("retention.mib", raw.mib, 1, 64 * 1024)? * MIB,
        age_ms: within("retention.days", raw.days, 1, 3650)? * DAY_MS,
        // The state has a bound: a larger value would promise notifications that are not kept.
        all_bytes: within("retention.all_mib", raw.all_mib, 1, Limits::STATE_BYTES / MIB)? * MIB,
    })
}

/// Checks that one session, profile or network may not do more than what it is a part of.
fn check_parts(raw: &RawLimits) -> Result<(), ConfigError> {
    for (part, least, whole, value) in [
        ("limits.session_per_s", raw.session_per_s, "limits.profile_per_s", raw.profile_per_s),
        ("limits.session_burst", raw.session_burst, "limits.profile_burst", raw.profile_burst),
        ("limits.profile_per_s", raw.profile_per_s, "limits.network_per_s", raw.network_per_s),
        ("limits.profile_burst", raw.profile_burst, "limits.network_burst", raw.network_burst),
        (
            "limits.network_handshakes_per_s",
            raw.network_handshakes_per_s,
            "limits.handshakes_per_s",
            raw.handshakes_per_s,
        ),
        (
            "limits.network_handshakes_burst",
            raw.network_handshakes_burst,
            "limits.handshakes_burst",
            raw.handshakes_burst,
        ),
    ] {
        if value < least {
            return Err(refuse_number(whole, value, Rule::Below { of: part, least }));
        }
    }
    Ok(())
}

fn limits(raw: &RawLimits, admission: &RawAdmission) -> Result<Limits, ConfigError> {
    const MOST: u64 = 1_000_000;
    const MOST_NAMES: u64 = 100_000;
    let names = |key: &str, value| within(key, value, 1, MOST_NAMES).map(|value| value as u32);
    let number = |key: &str, value| within(key, value, 1, MOST).map(|value| value as u32);
    let limits = Limits {
        session_requests: Rate {
            per_s: number("limits.session_per_s", raw.session_per_s)?,
            burst: number("limits.session_burst", raw.session_burst)?,
        },
        profile_requests: Rate {
            per_s: number("limits.profile_per_s", raw.profile_per_s)?,
            burst: number("limits.profile_burst", raw.profile_burst)?,
        },
        network_requests: Rate {
            per_s: number("limits.network_per_s", raw.network_per_s)?,
            burst: number("limits.network_burst", raw.network_burst)?,
        },
        handshakes: Rate {
            per_s: number("limits.handshakes_per_s", raw.handshakes_per_s)?,
            burst: number("limits.handshakes_burst", raw.handshakes_burst)?,
        },
        network_handshakes: Rate {
            per_s: number("limits.network_handshakes_per_s", raw.network_handshakes_per_s)?,
            burst: number("limits.network_handshakes_burst", raw.network_handshakes_burst)?,
        },
        network_names: Rate {
            per_s: names("admission.names_per_h", admission.names_per_h)?,
            burst: names("admission.names_burst", admission.names_burst)? * Limits::NAME_COST,
        },
        network_channels: Rate {
            per_s: names("admission.channels_per_h", admission.channels_per_h)?,
            burst: names("admission.channels_burst", admission.channels_burst)? * Limits::NAME_COST,
        },
        ..Limits::default()
    };
    check_parts(raw)?;
    Ok(limits)
}

/// The file of one server with every setting at its default, and comments that explain each.
pub fn render(cluster: &Cluster) -> String {
    let mut text = format!(
        r#"# One recado server. The files of one cluster differ only in `node`.
# Relative paths start in this file's folder. An unknown key is refused.

# Which cluster: 16 hexadecimal digits, drawn by `recadod init`, the same on every server.
cluster = "{cluster}"

# Which of the servers below this one is: 1 to 65535. Of those that could lead, the highest id does: give
# it to the machine with the fastest disk and the shortest round trip to the clients.
node = {node}

# Log, snapshots and promises. Only one server may use it; it must survive the server. Each write waits for
# an fsync on a majority of these, so choose a fast disk.
# Never copy it to another server, nor an old copy of it back: that takes back promises.
data = "data"

# 32 random bytes in hexadecimal, the same on every server, readable by its owner only (0600). What the
# servers say to each other is sealed with it, and the key that clients know the cluster by follows from
# it: whoever has it is a server of the cluster. `recadod fingerprint` prints that key's fingerprint.
secret = "cluster.secret"
"#,
        cluster = cluster.id,
        node = cluster.me.0,
    );
    text.push_str(
        "
# Every server of the cluster, this one too: 1 to 9, best 3 or 5 (a majority must live). The same on every
# server; the ids cannot change later. Addresses are not compared: a wrong one is a server that is not there.
# client: where clients reach it; peer: where the other servers do. UDP both, addresses of its own machine.
",
    );
    for member in &cluster.members {
        text.push_str(&format!(
            "\n[[server]]\nid = {}\nclient = \"{}\"\npeer = \"{}\"\n",
            member.id.0, member.client, member.peer
        ));
    }
    text.push_str(
        r#"
[timing]
# How soon a silent primary is suspected. The same on every server: the servers do not compare it, and
# `recado doctor` does. Choose by two measures: round trips between the servers, and pauses of a machine
# that must not cause an election.
# Too short: a primary that lives is replaced, each time with a pause. Too long: a dead one is noticed late.
#            for                        round trips  pauses  suspected after
# "default"  one machine, quiet network   < 40 ms    160 ms  200 to 600 ms
# "lan"      wired local network          < 30 ms     95 ms  120 to 400 ms
# "noisy"    busy or shared machines      < 80 ms    340 ms  400 to 1200 ms
# "wan"      between cities              < 300 ms    800 ms  1000 to 3000 ms
preset = "default"
# When a server with a higher id is back and stable for 10 s: "graceful" hands over to it
# without a failed request, which is a short pause; "off" stays. The primary's counts.
preempt = "graceful"

[retention]
# How long a topic keeps its notifications; the first limit reached counts. A reader who was
# away for longer is told what is missing. The same on every server: the primary's count, and what one
# with smaller values drops while it leads is gone everywhere. `recado doctor` compares them.
# Notifications of a topic: 1 to 10000000, default 10000. Choose what the busiest topic gets while its
# readers are away.
count = 10000
# MiB of a topic: 1 to 65536, default 64. Above all_mib it has no effect.
mib = 64
# Days: 1 to 3650, default 30.
days = 30
# MiB of all topics together, in the memory of every server: 1 to 768, default 512. Beyond it the
# largest topics lose their oldest. Choose what the smallest machine has to spare: a server that copies
# the state from another holds its encoding too.
all_mib = 512

[snapshot]
# Each server's own. Too small: the disk writes the whole state often, and a failover at that time waits
# for more fsyncs. Too large: memory and disk hold a longer log, and a start reads it.
# Seconds between snapshots if anything is new: 1 to 86400, default 60. Each server begins its own in its
# part of them, so that all do not write at once: the same on every server.
every_s = 60
# MiB of log after which one is written sooner, and at twice as many at the latest: 1 to 1024, default 64.
# Choose about the size of the state.
log_mib = 64

[admission]
# Who may claim a name that nobody has: "open" (anybody), "invite" (whoever has a code of `recadod admin
# invite`) or "keys" (keys given to `recadod admin allow`, at most 10000). Who has a name keeps it. The same
# on every server: the primary's counts.
new_names = "open"
# New names of one network (an IPv4 /24, an IPv6 /56) an hour, and how many at once: 1 to 100000 each,
# default 10 and 30. This machine's own addresses have no limit. Too small: an office that begins waits.
# Too large: one network takes the names that others want.
names_per_h = 10
names_burst = 30
# The same of new channels: default 10 and 100.
channels_per_h = 10
channels_burst = 100

[limits]
# Requests and queries a second that the primary takes, and how many at once after a pause: 1 to
# 1000000 each. One that makes the servers walk much counts as many: a history of 1,000 topics as 200, a
# notification for 100,000 profiles as 10,000 (a burst below that makes it cheaper). The primary has time
# for about 588,000 a second. Beyond the limits a client is told to try again in a moment, and does.
# Too small: programs that send much wait. Too large: one of them takes the time of all.
# Of one session: default 50000 and 100000.
session_per_s = 50000
session_burst = 100000
# Of all sessions of one profile together: default 100000 and 200000. No less than of one session.
profile_per_s = 100000
profile_burst = 200000
# Of all sessions of one network together, by default a third of a second of walking in each: default
# 200000 and 400000. No less than of one profile. This machine's own addresses have no limit.
network_per_s = 200000
network_burst = 400000
# Handshakes a second that each handler computes, and how many at once after a pause, 1 to 1000000 each;
# there is one handler for two cores, eight at most. A handshake takes 0.34 ms of a core. Beyond them
# newcomers wait; too many delay those who have sessions. Default 500 and 1000.
handshakes_per_s = 500
handshakes_burst = 1000
# The same of one network, no more than of all; with as many, one network keeps out the others. Default
# 200 and 400.
network_handshakes_per_s = 200
network_handshakes_burst = 400

[log]
# "text" or "json" (one object a line); `--log` overrides it. What is logged: RUST_LOG, default info.
format = "text"
"#,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Cluster {
        let member = |n: u16| Member {
            id: NodeId(n),
            client: ([127, 0, 0, 1], 10096 + n).into(),
            peer: ([127, 0, 0, 1], 11096 + n).into(),
        };
        Cluster { id: ClusterId(0xfeed), me: NodeId(2), members: (1..=3).map(member).collect() }
    }

    fn parse(text: &str) -> Result<ServerFile, ConfigError> {
        ServerFile::parse(Path::new("/etc/recado/recado.toml"), text)
    }

    fn with(from: &str, to: &str) -> Result<ServerFile, ConfigError> {
        let text = render(&three());
        assert!(text.contains(from), "{from} is not in the file");
        parse(&text.replacen(from, to, 1))
    }

    fn broken(from: &str, to: &str) -> (String, Rule) {
        match with(from, to) {
            Err(ConfigError::Value { key, rule, .. }) => (key, rule),
            other => panic!("{from} -> {to} gave {other:?}"),
        }
    }

    #[test]
    fn the_file_init_writes_is_the_default_configuration() {
        let file = parse(&render(&three())).unwrap();
        assert_eq!(file.config, Config::default_for(three()));
        assert_eq!(file.data, Path::new("/etc/recado/data"));
        assert_eq!(file.secret, Path::new("/etc/recado/cluster.secret"));
        assert_eq!(file.log, LogFormat::Text);
    }

    #[test]
    fn everything_but_the_cluster_may_be_left_out() {
        let text = render(&three());
        let short = text.split("[timing]").next().unwrap();
        assert_eq!(parse(short).unwrap().config, Config::default_for(three()));
    }

    #[test]
    fn unknown_and_missing_keys_are_refused_with_their_line() {
        for text in [
            render(&three()).replacen("preset", "presett", 1),
            render(&three()).replacen("node = 2", "", 1),
            render(&three()) + "\n[tming]\n",
        ] {
            let error = parse(&text).unwrap_err();
            assert!(matches!(error, ConfigError::Syntax { .. }), "{error}");
            assert!(error.to_string().contains("/etc/recado/recado.toml"), "{error}");
        }
    }

    #[test]
    fn values_out_of_their_limits_are_refused_by_key() {
        assert_eq!(
            broken("count = 10000", "count = 0"),
            ("retention.count".into(), Rule::Range { least: 1, most: 10_000_000 })
        );
        assert_eq!(
            broken("all_mib = 512", "all_mib = 769"),
            ("retention.all_mib".into(), Rule::Range { least: 1, most: 768 })
        );
        assert_eq!(broken("every_s = 60", "every_s = 0").0, "snapshot.every_s");
        assert_eq!(broken("session_per_s = 50000", "session_per_s = 0").0, "limits.session_per_s");
        assert_eq!(broken("profile_burst = 200000", "profile_burst = 9000000").0, "limits.profile_burst");
        assert_eq!(broken("log_mib = 64", "log_mib = 2000").0, "snapshot.log_mib");
        assert_eq!(broken("preset = \"default\"", "preset = \"fast\"").0, "timing.preset");
        assert_eq!(broken("preempt = \"graceful\"", "preempt = \"on\"").0, "timing.preempt");
        assert_eq!(broken("format = \"text\"", "format = \"xml\"").0, "log.format");
        assert_eq!(broken("000000000000feed", "0000000000000000").1, Rule::ClusterId);
        assert_eq!(broken("000000000000feed", "feed").1, Rule::ClusterId);
        assert_eq!(broken("000000000000feed", "+00000000000feed").1, Rule::ClusterId);
    }

    #[test]
    fn what_covers_a_part_is_no_less_than_it() {
        for (text, whole, part, least) in [
            ("profile_per_s = 100000", "limits.profile_per_s", "limits.session_per_s", 50_000),
            ("profile_burst = 200000", "limits.profile_burst", "limits.session_burst", 100_000),
            ("network_per_s = 200000", "limits.network_per_s", "limits.profile_per_s", 100_000),
            ("network_burst = 400000", "limits.network_burst", "limits.profile_burst", 200_000),
            ("\nhandshakes_per_s = 500", "limits.handshakes_per_s", "limits.network_handshakes_per_s", 200),
            ("\nhandshakes_burst = 1000", "limits.handshakes_burst", "limits.network_handshakes_burst", 400),
        ] {
            let of = |value: u64| format!("{} = {value}", text.split(" = ").next().unwrap());
            assert!(with(text, &of(least)).is_ok(), "{whole}");
            assert_eq!(broken(text, &of(least - 1)), (whole.into(), Rule::Below { of: part, least }));
        }
    }

    #[test]
    fn a_value_is_shown_as_the_file_has_it() {
        let told = |from: &str, to: &str| with(from, to).unwrap_err().to_string();
        assert!(told("node = 2", "node = 7").starts_with("node = 7: "), "{}", told("node = 2", "node = 7"));
        assert!(told("count = 10000", "count = 0").starts_with("retention.count = 0: "));
        let name = told("127.0.0.1:10099", "localhost:7001");
        assert!(
            name.starts_with("server.client = \"localhost:7001\": ") && name.contains("getent"),
            "{name}"
        );
        assert_eq!(broken("127.0.0.1:11099", "127.0.0.1").1, Rule::NotAnAddress);
    }

    #[test]
    fn a_members_list_that_cannot_work_is_refused() {
        assert_eq!(broken("node = 2", "node = 7").1, Rule::NotAMember);
        assert_eq!(broken("id = 3", "id = 1").1, Rule::RepeatedId);
        assert_eq!(broken("127.0.0.1:10099", "127.0.0.1:11097").1, Rule::RepeatedAddress);
        for nobody in ["0.0.0.0:10099", "127.0.0.1:0", "255.255.255.255:10099", "224.0.0.1:10099"] {
            assert_eq!(broken("127.0.0.1:10099", nobody).1, Rule::NoMachine, "{nobody}");
        }
        let three_of_six = |text: &str| parse(&render(&three()).replace("127.0.0.1:", text));
        assert!(three_of_six("[::1]:").is_ok(), "one family, whichever");
        assert!(three_of_six("[ff02::1]:").unwrap_err().to_string().contains("multicast"));
        assert_eq!(broken("127.0.0.1:10099", "[::1]:10099").1, Rule::MixedFamilies);
        assert_eq!(broken("id = 3", "id = 0").0, "server.id");
    }

    #[test]
    fn servers_may_be_anywhere() {
        let away = with("127.0.0.1:10099", "192.0.2.7:10099").unwrap();
        assert_eq!(away.config.cluster.members[2].client, "192.0.2.7:10099".parse().unwrap());
    }

    #[test]
    fn the_file_has_no_key_for_a_single_timer() {
        for key in ["heartbeat_ms", "suspect_min_ms", "suspect_max_ms", "bully_ms", "coordinator_ms"] {
            let error = with("preset = \"default\"", &format!("{key} = 1")).unwrap_err();
            assert!(matches!(error, ConfigError::Syntax { .. }), "{key}: {error}");
        }
    }

    #[test]
    fn presets_and_words_choose_what_they_say() {
        let file = with("preset = \"default\"", "preset = \"wan\"").unwrap();
        assert_eq!(file.config.timing, Timing::WAN);
        let file = with("preempt = \"graceful\"", "preempt = \"off\"").unwrap();
        assert_eq!(file.config.preempt, Preempt::Off);
        let file = with("format = \"text\"", "format = \"json\"").unwrap();
        assert_eq!(file.log, LogFormat::Json);
    }
}
