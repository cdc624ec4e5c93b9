//! Findings about the servers, from a [survey](recado_client::survey).
//!
//! What one server does not tell, the others may: a server that is silent here and is followed by the others
//! runs, so the fault lies between it and this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{
    Claim, ClusterId, ClusterKey, KnownCluster, NodeId, RefusedDatagram, RoleName, Surveyed, Told,
};
use recado_proto::envelope::VERSION;
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX};
use serde_json::Value;

use crate::finding::{Finding, Severity};
use crate::machine::time;

/// Two clocks that differ by more are noted, in ms: people see it.
const CLOCK_NOTED: u64 = 2_000;
/// And warned of: the time of notifications follows a primary that is so far ahead or behind slowly, and a
/// failover changes it (`src/server/node/log_clock.rs`).
const CLOCK_WARNED: u64 = 60_000;
/// A round trip from which the screen and a command feel slow.
const SLOW: Duration = Duration::from_millis(400);
/// What the digests of a server's configuration are of, the highest 16 bits first
/// (`OptionalFields::AGREED`).
const AGREED: [&str; 4] =
    ["cluster or the addresses of [[server]]", "timing.preset", "admission.new_names", "[retention]"];
/// Ops by which a backup may be behind while all is well: those under way.
const BEHIND: u64 = 1_000;

/// What is expected of the servers.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The addresses that were given; the servers name the others.
    pub given: Vec<SocketAddr>,
    /// The only key that is trusted, if one is pinned.
    pub pinned: Option<ClusterKey>,
    /// The clusters that this machine has met, and trusts.
    pub known: Vec<KnownCluster>,
    /// On a server's machine: its own configuration.
    pub own: Option<Own>,
}

/// A server's own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The digests of what must be the same on all servers.
    pub agreed: u64,
}

/// Judges what was seen of the servers.
pub fn findings(found: &[Surveyed], expected: &Expected) -> Vec<Finding> {
    let seen = Seen::of(found);
    let mut all = Vec::new();
    all.extend(found.iter().map(|one| seen.udp(one, expected)));
    all.extend(found.iter().filter_map(|one| seen.path(one)));
    all.extend(found.iter().filter_map(|one| seen.version(one)));
    all.extend(seen.releases());
    all.extend(seen.identity(expected));
    all.extend(seen.members(expected));
    all.extend(seen.ignored());
    all.extend(seen.view());
    all.extend(seen.logs());
    all.extend(seen.clocks());
    all.extend(seen.log_clock());
    all.extend(seen.refused());
    all
}

/// What was seen, and what follows from several servers together.
struct Seen<'a> {
    found: &'a [Surveyed],
    /// The servers that told their status, ascending by address.
    told: Vec<(&'a Surveyed, &'a Claim, &'a Told)>,
    /// The servers that are named by those, with their addresses.
    members: BTreeMap<SocketAddr, NodeId>,
}

impl<'a> Seen<'a> {
    fn of(found: &'a [Surveyed]) -> Seen<'a> {
        let told: Vec<_> =
            found.iter().filter_map(|one| Some((one, one.claim.as_ref()?, one.told.as_ref()?))).collect();
        let named = told.iter().flat_map(|(.., told)| told.status.members.iter());
        let members = named.map(|(node, addr)| (*addr, *node)).collect();
        Seen { found, told, members }
    }

    /// The name of a server: its id, if it is known, and its address.
    fn name(&self, one: &Surveyed) -> String {
        let told = one.claim.map(|claim| claim.node);
        match told.or_else(|| self.members.get(&one.addr).copied()) {
            Some(node) => format!("{node} {}", one.addr),
            None => one.addr.to_string(),
        }
    }

    /// The primary that the others follow, by the highest view of those that do.
    fn followed(&self) -> Option<NodeId> {
        let following = self.told.iter().map(|(.., told)| &told.status);
        let following = following.filter(|status| status.role == RoleName::Backup);
        following.max_by_key(|status| status.view)?.view.primary()
    }

    /// The number of servers of the cluster, as far as is known.
    fn size(&self) -> usize {
        self.told.first().map_or(0, |(.., told)| told.status.members.len().max(self.told.len()))
    }

    /// The number of votes that an election and an acknowledgement need.
    fn majority(&self) -> usize {
        self.size() / 2 + 1
    }

    /// The names of the servers that tell this role.
    fn named(&self, role: RoleName) -> Vec<String> {
        let of = self.told.iter().filter(|(.., told)| told.status.role == role);
        of.map(|(one, ..)| self.name(one)).collect()
    }

    /// The servers whose votes do not count: those that have lost their promises, and, if `ignored`, those
    /// whose packets another one ignores.
    fn voteless(&self, ignored: bool) -> BTreeSet<NodeId> {
        let learns = |told: &Told| told.status.role == RoleName::Learner;
        let learners = self.told.iter().filter(|(.., told)| learns(told)).map(|(_, claim, _)| claim.node);
        let of_others = self.told.iter().flat_map(|(.., told)| told.ignored.iter().copied());
        learners.chain(of_others.filter(|_| ignored)).collect()
    }

    /// Returns true if, without these servers, too few are left for a majority.
    fn is_majority_gone(&self, without: &BTreeSet<NodeId>) -> bool {
        self.size().saturating_sub(without.len()) < self.majority()
    }

    fn udp(&self, one: &Surveyed, expected: &Expected) -> Finding {
        let (check, subject) = ("udp", self.name(one));
        let answered = one.round_trips.len();
        let lost = one.sent.saturating_sub(answered);
        let finding = match one.round_trips.get(answered / 2) {
            None => self.silent(one, &subject, expected),
            Some(median) => {
                let seen = format!("{answered} of {} answered, {} in the median", one.sent, time(*median));
                if lost >= 2 {
                    let why = (
                        "the path loses datagrams, there or back; recado sends them again, so all is slower",
                        "look for a full link, a bad cable or radio; on the server: recadod doctor (buffers)",
                    );
                    Finding::other(Severity::Warning, check, &subject, seen, why)
                } else if lost == 1 {
                    let why = (
                        "a datagram was lost or late, which may happen",
                        "repeat; several of ten are a fault of the path",
                    );
                    Finding::other(Severity::Note, check, &subject, seen, why)
                } else if *median >= SLOW {
                    let why = (
                        "the server is far away, or the path is busy",
                        "timing.preset = \"wan\" is for servers that are so far apart",
                    );
                    Finding::other(Severity::Note, check, &subject, seen, why)
                } else if !self.members.is_empty()
                    && one.claim.is_some()
                    && !self.members.contains_key(&one.addr)
                {
                    let why = (
                        "the servers name other addresses (address translation): clients use those as well",
                        "give each server one address that all clients reach (recadod init --host)",
                    );
                    Finding::other(
                        Severity::Note,
                        check,
                        &subject,
                        format!("{seen}, at an address that no server names"),
                        why,
                    )
                } else {
                    Finding::ok(check, &subject, seen)
                }
            }
        };
        finding
            .with("address", one.addr.to_string())
            .with("sent", one.sent)
            .with("answered", answered)
            .with("round_trip_us", one.round_trips.get(answered / 2).map(|median| median.as_micros() as u64))
    }

    fn silent(&self, one: &Surveyed, subject: &str, expected: &Expected) -> Finding {
        let node = self.members.get(&one.addr).copied();
        let elsewhere = node.and_then(|node| self.told.iter().find(|(_, claim, _)| claim.node == node));
        let port = one.addr.port();
        let seen = if one.is_closed { "no program has the port" } else { "no answer" };
        let why = if !self.members.is_empty() && node.is_none() && expected.given.contains(&one.addr) {
            let members: Vec<String> = self.members.keys().map(ToString::to_string).collect();
            (
                "no server of the cluster has this address".to_owned(),
                format!("use the servers' addresses: {}", members.join(", ")),
            )
        } else if let Some((other, ..)) = elsewhere {
            (
                format!(
                    "the servers name this address to clients, and the server is reached at {}",
                    other.addr
                ),
                "give each server an address that clients reach (recadod init --host)".to_owned(),
            )
        } else if one.is_closed {
            (
                "recadod does not run there, or has another port".to_owned(),
                "start it there: systemctl start recadod; journalctl -u recadod says why it ended".to_owned(),
            )
        } else if node.is_some() && node == self.followed() {
            (
                "the other servers follow it, so it runs: something drops UDP between it and this machine"
                    .to_owned(),
                format!("let UDP port {port} through in every firewall between, in and out"),
            )
        } else {
            (
                format!("its machine or recadod is down, or a firewall drops UDP port {port}, there or back"),
                "on that machine: recadod doctor. Let the port through, in and out".to_owned(),
            )
        };
        Finding::other(Severity::Fault, "udp", subject, seen, why)
    }

    fn path(&self, one: &Surveyed) -> Option<Finding> {
        // What did not answer at all is told already.
        if one.round_trips.is_empty() || one.carried.is_empty() {
            return None;
        }
        let (check, subject) = ("path", self.name(one));
        let carried = one.carried.iter().filter(|(_, arrived)| *arrived).map(|(length, _)| *length).max();
        let finding = match carried {
            None => {
                let why = (
                    format!("the path drops datagrams of {DATAGRAM_BASE} bytes, which a handshake needs"),
                    "raise the MTU of the tunnel or link to 1280 at least, or let fragments through",
                );
                Finding::other(
                    Severity::Fault,
                    check,
                    &subject,
                    format!("not even {DATAGRAM_BASE} bytes arrive"),
                    why,
                )
            }
            Some(DATAGRAM_BASE) => {
                let why = (
                    "a tunnel or a small MTU on the way; recado finds that by itself and sends shorter datagrams",
                    "nothing; a larger MTU makes large transfers a little faster",
                );
                Finding::other(
                    Severity::Note,
                    check,
                    &subject,
                    format!("{DATAGRAM_BASE} bytes arrive, and no more"),
                    why,
                )
            }
            Some(DATAGRAM_MAX) => {
                Finding::ok(check, &subject, format!("{DATAGRAM_MAX} bytes arrive, the most that is sent"))
            }
            Some(length) => Finding::ok(check, &subject, format!("{length} bytes arrive")),
        };
        Some(finding.with("address", one.addr.to_string()).with("carried_bytes", carried))
    }

    fn version(&self, one: &Surveyed) -> Option<Finding> {
        let (check, subject) = ("version", self.name(one));
        let spoken = one.version.or(one.claim.map(|_| VERSION))?;
        let release = one.told.as_ref().and_then(|told| told.release.as_deref());
        let finding = if spoken != VERSION {
            let cure = match spoken > VERSION {
                true => "update recado here",
                false => "update recadod there (docs/OPERATING.md, upgrades)",
            };
            let why = (format!("this program speaks version {VERSION} of the protocol"), cure);
            Finding::other(Severity::Fault, check, &subject, format!("protocol {spoken}"), why)
        } else if one.claim.is_some() && one.told.is_none() {
            let why = (
                "the server is overloaded or only just begins, has not the key that it claims, or the path drops long datagrams",
                "repeat; if it remains: recadod doctor there, and recadod fingerprint, to compare the keys",
            );
            Finding::other(
                Severity::Fault,
                check,
                &subject,
                format!("protocol {VERSION}, and it tells no status"),
                why,
            )
        } else {
            let program = release.map_or(String::new(), |release| format!(", recadod {release}"));
            Finding::ok(check, &subject, format!("protocol {VERSION}{program}"))
        };
        let boot = one.claim.map(|claim| hex(&claim.boot_id.0));
        Some(finding.with("protocol", spoken).with("release", release).with("boot_id", boot))
    }

    fn releases(&self) -> Option<Finding> {
        let mut releases: Vec<&str> =
            self.told.iter().filter_map(|(.., told)| told.release.as_deref()).collect();
        releases.sort_unstable();
        releases.dedup();
        (releases.len() > 1).then(|| {
            let why = (
                "an upgrade is under way, or one server was left out",
                "upgrade the rest, one server at a time",
            );
            let seen = format!("recadod {} together", releases.join(", "));
            Finding::other(Severity::Note, "version", "all servers", seen, why)
        })
    }

    fn identity(&self, expected: &Expected) -> Vec<Finding> {
        let check = "cluster";
        let mut groups: BTreeMap<(ClusterId, [u8; 32]), Vec<&Surveyed>> = BTreeMap::new();
        for (one, claim, _) in &self.told {
            groups.entry((claim.cluster, claim.key.0)).or_default().push(one);
        }
        let mut all = Vec::new();
        for ((cluster, key), servers) in &groups {
            // The key that most servers of this cluster have; of two that as many have the trusted one.
            let trusted = |key: [u8; 32]| {
                let known = |known: &KnownCluster| known.cluster == *cluster && known.key.0 == key;
                expected.pinned.map_or(expected.known.iter().any(known), |pinned| pinned.0 == key)
            };
            let of_it = groups.iter().filter(|((of, _), _)| of == cluster);
            let most = of_it.max_by_key(|((_, key), servers)| (servers.len(), trusted(*key)));
            let key = ClusterKey(*key);
            if let Some(((_, right), others)) = most.filter(|((_, right), _)| *right != key.0) {
                all.extend(servers.iter().map(|one| self.other_secret(one, key, ClusterKey(*right), others)));
                continue;
            }
            let subject = cluster.to_string();
            let here = |known: &&KnownCluster| servers.iter().any(|one| known.addresses.contains(&one.addr));
            let is_it = |known: &KnownCluster| known.cluster == *cluster && known.key == key;
            let known = expected.known.iter().find(|known| is_it(known));
            let other = expected.known.iter().find(here).filter(|known| !is_it(known));
            let fingerprint = key.fingerprint().to_string();
            let seen = format!("fingerprint {fingerprint}");
            let is_own_wrong = |pinned: &ClusterKey| {
                *pinned != key && expected.own.is_some_and(|own| own.cluster == *cluster)
            };
            let finding = match (expected.pinned, known, other) {
                // Its server is told above, if it runs.
                (Some(pinned), ..) if groups.contains_key(&(*cluster, pinned.0)) && pinned != key => {
                    Finding::ok(check, &subject, format!("{seen}, which most servers have"))
                }
                (Some(pinned), ..) if is_own_wrong(&pinned) => {
                    let names: Vec<String> = servers.iter().map(|one| self.name(one)).collect();
                    let why = (
                        format!(
                            "this machine's cluster.secret is another than that of {}: it gives the fingerprint {}",
                            names.join(" and "),
                            pinned.fingerprint()
                        ),
                        "copy cluster.secret from one of them (chmod 600), and restart the server here",
                    );
                    Finding::other(Severity::Fault, check, &subject, seen, why)
                }
                (Some(pinned), ..) if pinned != key => {
                    let why = (
                        format!("the key that is pinned has the fingerprint {}", pinned.fingerprint()),
                        "these are another cluster's servers, or --cluster-key (cluster_key) is another cluster's: recadod fingerprint",
                    );
                    Finding::other(Severity::Fault, check, &subject, seen, why)
                }
                (Some(_), ..) => Finding::ok(check, &subject, format!("{seen}, as pinned")),
                (None, _, Some(other)) => {
                    let why = (
                        format!(
                            "cluster {} with the fingerprint {} was known there: it was made anew, or somebody answers in its place",
                            other.cluster,
                            other.key.fingerprint()
                        ),
                        "compare with recadod fingerprint on a server; if it is the new one: recado cluster forget ADDR",
                    );
                    Finding::other(Severity::Fault, check, &subject, seen, why)
                }
                (None, Some(_), None) => Finding::ok(check, &subject, format!("{seen}, known")),
                (None, None, None) => {
                    let why = (
                        "this machine has not met the cluster yet",
                        "compare the fingerprint with recadod fingerprint on a server; the next command asks whether to trust it",
                    );
                    Finding::other(Severity::Note, check, &subject, format!("{seen}, not known here"), why)
                }
            };
            all.push(finding.with("cluster", cluster.to_string()).with("fingerprint", fingerprint));
        }
        let mut clusters: BTreeMap<ClusterId, Vec<&Surveyed>> = BTreeMap::new();
        for ((cluster, _), servers) in &groups {
            clusters.entry(*cluster).or_default().extend(servers);
        }
        if clusters.len() > 1 {
            let of: Vec<String> = clusters
                .iter()
                .map(|(cluster, servers)| {
                    let addrs: Vec<String> = servers.iter().map(|one| one.addr.to_string()).collect();
                    format!("{cluster} at {}", addrs.join(", "))
                })
                .collect();
            let why = (
                "the addresses that were given are of several clusters",
                "give the addresses of one cluster",
            );
            all.push(Finding::other(Severity::Fault, check, "all servers", of.join("; "), why));
        }
        all
    }

    /// A server of a cluster with another key than most servers of it have.
    fn other_secret(
        &self,
        one: &Surveyed,
        key: ClusterKey,
        right: ClusterKey,
        others: &[&Surveyed],
    ) -> Finding {
        let names: Vec<String> = others.iter().map(|other| self.name(other)).collect();
        let why = (
            format!(
                "it has another cluster.secret than {} (fingerprint {}): neither opens what the other sends",
                names.join(" and "),
                right.fingerprint()
            ),
            format!(
                "copy cluster.secret from {} to it (chmod 600), and restart it; clients trust the key of the right one",
                names.first().map_or("another server", String::as_str)
            ),
        );
        let seen = format!("fingerprint {}", key.fingerprint());
        let finding = Finding::other(Severity::Fault, "cluster", &self.name(one), seen, why);
        finding.with("fingerprint", key.fingerprint().to_string())
    }

    fn members(&self, expected: &Expected) -> Vec<Finding> {
        let (check, subject) = ("members", "all servers");
        let mut all = Vec::new();
        let Some((_, _, first)) = self.told.first() else { return all };
        let list = &first.status.members;
        let other = self.told.iter().find(|(.., told)| told.status.members != *list);
        let names: Vec<String> = list.iter().map(|(node, addr)| format!("{node} {addr}")).collect();
        let digests: Vec<(&Surveyed, u64)> =
            self.told.iter().filter_map(|(one, _, told)| Some((*one, told.agreed?))).collect();
        let differ =
            digests.iter().find(|(_, agreed)| digests.first().is_some_and(|(_, first)| first != agreed));
        let of_all = format!("{} of {} answer", self.told.len(), list.len());
        let finding = if let Some((one, ..)) = other {
            let why = (
                format!("{} names other servers than {}", self.name(one), self.name(self.told[0].0)),
                "give all servers the same [[server]] sections; recado.toml differs in `node` alone",
            );
            Finding::other(Severity::Fault, check, subject, "they name different servers", why)
        } else if let Some((one, agreed)) = differ {
            let why = (
                format!(
                    "{} has another value of {} than {}; {COSTS}",
                    self.name(one),
                    settings(*agreed, digests[0].1),
                    self.name(digests[0].0)
                ),
                "give all servers the same recado.toml but for `node`, and restart those that had another",
            );
            Finding::other(Severity::Warning, check, subject, "their configurations differ", why)
        } else {
            let digest =
                digests.first().map_or(String::new(), |(_, agreed)| format!(", configuration {agreed:016x}"));
            Finding::ok(check, subject, format!("{of_all}, and name the same servers{digest}"))
        };
        all.push(finding.with("members", names).with("answered", self.told.len()));
        all.extend(self.twins());
        all.extend(expected.own.and_then(|own| self.own_file(own)));
        all
    }

    /// The file of the server of this machine against what that server runs with, or what the others do.
    fn own_file(&self, own: Own) -> Option<Finding> {
        let itself = self.told.iter().find(|(_, claim, _)| claim.node == own.node);
        let (one, .., told) = itself.or(self.told.first())?;
        let agreed = told.agreed.filter(|agreed| *agreed != own.agreed)?;
        let settings = settings(own.agreed, agreed);
        let (subject, seen, cause, cure) = match itself {
            Some(_) => (
                self.name(one),
                "it runs with another configuration than its file's".to_owned(),
                format!("recado.toml was changed since the server has started: {settings}; {COSTS}"),
                "restart the server, after the same change on all others: systemctl restart recadod",
            ),
            None => (
                own.node.to_string(),
                format!("its file differs from what {} runs with", self.name(one)),
                format!("its recado.toml has another value of {settings}; {COSTS}"),
                "give it the recado.toml of another server, with its own `node`, before it is started",
            ),
        };
        Some(Finding::other(Severity::Warning, "members", &subject, seen, (cause, cure)))
    }

    /// Two processes with one id.
    fn twins(&self) -> Option<Finding> {
        let mut pairs = self
            .told
            .iter()
            .enumerate()
            .flat_map(|(at, one)| self.told.iter().skip(at + 1).map(move |two| (one, two)));
        let ((one, claim, _), (two, ..)) = pairs.find(|((_, one, _), (_, two, _))| {
            (one.cluster, one.node) == (two.cluster, two.node) && one.boot_id != two.boot_id
        })?;
        let why = (
            "two machines run as one server, which breaks promises: a data directory or a node was copied",
            "stop the later one at once, keep its data directory elsewhere, and give it its own `node` with an empty one",
        );
        let seen = format!("it runs at {} and at {}", one.addr, two.addr);
        Some(Finding::other(Severity::Fault, "members", &claim.node.to_string(), seen, why))
    }

    /// Servers that run on an older copy of their data.
    fn ignored(&self) -> Vec<Finding> {
        let mut by: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for (one, _, told) in &self.told {
            for node in &told.ignored {
                by.entry(*node).or_default().push(self.name(one));
            }
        }
        // Each of them alone may begin again. All of them together must not, if too few votes are left then.
        let stuck = self.is_majority_gone(&self.voteless(true));
        let (ignored, size) = (by.len(), self.size());
        let of = |(node, by): (NodeId, Vec<String>)| {
            let known = "an old data directory was put back there, or it was made under a clock that is behind: the others \
                         know of a later start of it, and take no packets of this one, because it may have forgotten promises";
            let again = "do not restart it on this data: each start counts it up, until the others take it for the later one";
            let why = match stuck {
                false => (
                    known.to_owned(),
                    format!(
                        "{again}. Stop it, set its clock, move its data directory elsewhere and keep it, give it an empty one \
                         (mkdir -m 700), and start it while the others run: it learns everything from them"
                    ),
                ),
                true => (
                    format!(
                        "{known}. {ignored} of {size} servers are ignored: with empty data directories instead too few would \
                         be left that vote, and what was acknowledged could be lost"
                    ),
                    format!(
                        "TOUCH NOTHING before every data directory is copied elsewhere, and empty none; {again}. Then stop \
                         all, and put back what these servers had before, or all directories from copies of one stop \
                         (docs/OPERATING.md, backup: what came after is lost)"
                    ),
                ),
            };
            let subject = self.members.iter().find(|(_, id)| **id == node);
            let subject = subject.map_or(node.to_string(), |(addr, _)| format!("{node} {addr}"));
            let seen = format!("{} ignore{} it", by.join(" and "), if by.len() == 1 { "s" } else { "" });
            Finding::other(Severity::Fault, "members", &subject, seen, why).with("ignored_by", by)
        };
        by.into_iter().map(of).collect()
    }

    fn view(&self) -> Option<Finding> {
        let (check, subject) = ("view", "all servers");
        let size = self.size();
        let primaries: Vec<_> =
            self.told.iter().filter(|(.., told)| told.status.role == RoleName::Primary).collect();
        let highest = self.told.iter().map(|(.., told)| told.status.view).max()?;
        let few = self.told.len() <= size / 2;
        let finding = match primaries[..] {
            [] | [_] if self.is_majority_gone(&self.voteless(false)) => self.too_few_voters(),
            [(one, _, told)] => {
                let view = told.status.view;
                // That a server is ignored is told with its cause.
                let is_ignored = |node| self.told.iter().any(|(.., told)| told.ignored.contains(&node));
                let ignores = |told: &Told| view.primary().is_some_and(|leads| told.ignored.contains(&leads));
                let apart: Vec<String> = self
                    .told
                    .iter()
                    .filter(|(.., told)| !ignores(told))
                    .filter(|(.., told)| told.status.view != view || told.status.role == RoleName::Candidate)
                    .filter(|(_, claim, _)| !is_ignored(claim.node))
                    .map(|(one, ..)| self.name(one))
                    .collect();
                let seen = format!("{} is primary, in view {view}", self.name(one));
                let learners = self.named(RoleName::Learner);
                if !apart.is_empty() {
                    let why = (
                        format!("{} is in another view or in an election: it does not hear the primary", apart.join(", ")),
                        "repeat in 10 s; if it remains, let UDP through between the servers' peer ports, both ways",
                    );
                    Finding::other(Severity::Warning, check, subject, seen, why)
                } else if few {
                    let why = (
                        format!("only {} of {size} servers answer here, though the primary has a majority", self.told.len()),
                        "see the servers that do not answer, above",
                    );
                    Finding::other(Severity::Warning, check, subject, seen, why)
                } else if !learners.is_empty() {
                    let why = (
                        format!("{} learns what it could have promised before, and has no vote meanwhile", learners.join(", ")),
                        "keep all servers running, with their data, until it is a backup; its disk was lost or emptied",
                    );
                    Finding::other(Severity::Warning, check, subject, seen, why)
                } else {
                    Finding::ok(check, subject, seen)
                }
            }
            [] if few => {
                let why = (
                    format!("only {} of {size} servers answer, and an election needs {}", self.told.len(), size / 2 + 1),
                    "start servers until a majority runs",
                );
                Finding::other(Severity::Fault, check, subject, "there is no primary", why)
            }
            [] if self.is_majority_gone(&self.voteless(true)) => {
                let why = (
                    "the others ignore so many servers, or have lost so many promises, that no majority is left",
                    "see the servers that are ignored, above; stop, empty and restart nothing before",
                );
                Finding::other(Severity::Fault, check, subject, "there is no primary", why)
            }
            [] if !self.named(RoleName::Isolated).is_empty() => {
                let why = (
                    format!("{} leads, and does not hear a majority", self.named(RoleName::Isolated).join(", ")),
                    "let UDP through between the servers' peer ports, both ways",
                );
                Finding::other(Severity::Fault, check, subject, "the primary is isolated", why)
            }
            [] => self.followed_and_unheard().unwrap_or_else(|| {
                let why = (
                    "an election is under way, or the servers do not reach each other",
                    "repeat in 10 s; if it remains, let UDP through between the servers' peer ports, both ways",
                );
                Finding::other(Severity::Fault, check, subject, "there is no primary", why)
            }),
            ref several => {
                let names: Vec<String> = several.iter().map(|(one, ..)| self.name(one)).collect();
                let same = several.windows(2).any(|pair| pair[0].2.status.view == pair[1].2.status.view);
                let why = match same {
                    true => (
                        "two servers lead one view, which must not be: two machines run as one server",
                        "stop both, keep their data directories, and report it",
                    ),
                    false => (
                        "one has just been replaced, and does not know it yet; it acknowledges nothing",
                        "repeat in 10 s; if it remains, the older one does not hear the others: peer ports",
                    ),
                };
                let severity = if same { Severity::Fault } else { Severity::Warning };
                Finding::other(severity, check, subject, format!("{} are primary", names.join(" and ")), why)
            }
        };
        Some(finding.with("view", highest.to_string()).with("primaries", primaries.len()))
    }

    /// So many servers have lost their promises that none of them gets its vote back: only servers that vote
    /// give it, a majority of them.
    fn too_few_voters(&self) -> Finding {
        let (learners, size, majority) = (self.named(RoleName::Learner), self.size(), self.majority());
        let (have, are) = if learners.len() == 1 { ("has", "it is") } else { ("have", "they are") };
        let why = (
            format!(
                "{} of {size} servers {have} lost their promises and cannot vote ({}): {are} on an empty data directory, or \
                 one without meta; {majority} that vote are needed, also to give a vote back, so neither waiting nor a \
                 restart mends it",
                learners.len(),
                learners.join(", ")
            ),
            "copy every data directory elsewhere first. Then put their own data directories back (is `data` right, and its \
             disk mounted?), or restore all servers from copies of one stop (docs/OPERATING.md, backup). For a cluster \
             that holds nothing: recadod init anew, and give each server its own directory, with its data",
        );
        let seen = "too few servers can vote: nothing is acknowledged";
        Finding::other(Severity::Fault, "view", "all servers", seen, why).with("learners", learners)
    }

    /// All that answer follow a primary that does not answer here.
    fn followed_and_unheard(&self) -> Option<Finding> {
        let followed = self.followed()?;
        let unheard = self
            .found
            .iter()
            .find(|one| one.told.is_none() && self.members.get(&one.addr) == Some(&followed))?;
        let why = (
            format!("the others follow {}, which does not answer this machine", self.name(unheard)),
            "if it has not just died, let its UDP port through between it and this machine",
        );
        let seen = "the primary is not heard, so nothing can be sent or queried from here";
        Some(Finding::other(Severity::Fault, "view", "all servers", seen, why))
    }

    fn logs(&self) -> Vec<Finding> {
        let primary = self.told.iter().find(|(.., told)| told.status.role == RoleName::Primary);
        let newest = self.told.iter().map(|(.., told)| told.status.applied).max().unwrap_or_default();
        let of = |(one, _, told): &(&Surveyed, &Claim, &Told)| {
            let (check, subject, status) = ("log", self.name(one), &told.status);
            let behind = newest.0.saturating_sub(status.applied.0);
            let seen = format!(
                "{}, applied {}, durable {}, lag {}",
                status.role.as_str(),
                status.applied,
                status.durable,
                status.lag
            );
            let finding = if behind > BEHIND {
                let why = (
                    format!(
                        "it is {behind} ops behind: it has just come back, or its disk or path is too slow"
                    ),
                    "repeat; if it does not catch up: recadod doctor there (fsync), and the path between the servers",
                );
                Finding::other(Severity::Warning, check, &subject, seen, why)
            } else if status.lag > BEHIND && primary.is_some() {
                let why = (
                    "so many ops wait to be committed or applied: load, or a majority of slow disks",
                    "recadod doctor on each server (fsync); if it is load, clients are told Busy",
                );
                Finding::other(Severity::Note, check, &subject, seen, why)
            } else {
                Finding::ok(check, &subject, seen)
            };
            finding
                .with("role", status.role.as_str())
                .with("applied", status.applied.0)
                .with("durable", status.durable.0)
                .with("lag", status.lag)
                .with("behind", behind)
                .with("uptime_ms", status.uptime_ms)
        };
        self.told.iter().map(of).collect()
    }

    fn clocks(&self) -> Vec<Finding> {
        let check = "clock";
        let clocks: Vec<(&Surveyed, &Told, i64)> =
            self.told.iter().filter_map(|(one, _, told)| Some((*one, *told, told.clock_ms?))).collect();
        // If most of the servers agree with each other, and not with this machine, it is this machine's.
        let mut sorted: Vec<i64> = clocks.iter().map(|(.., clock_ms)| *clock_ms).collect();
        sorted.sort_unstable();
        let Some(middle) = sorted.get(sorted.len() / 2).copied() else { return Vec::new() };
        let mut all = Vec::new();
        for (one, told, clock_ms) in &clocks {
            let subject = self.name(one);
            let (from_here, from_most) = (clock_ms.unsigned_abs(), clock_ms.abs_diff(middle));
            let exact = told.round_trip / 2;
            let seen = format!(
                "{} this machine, to {}",
                ahead(*clock_ms),
                time(exact.max(Duration::from_millis(1)))
            );
            let is_alone = clocks.len() > 2 && from_most > CLOCK_NOTED;
            let why = match (is_alone, from_most > CLOCK_NOTED) {
                (true, _) => {
                    format!("its clock is {} the other servers'", ahead(clock_ms.saturating_sub(middle)))
                }
                (false, true) => "the servers' clocks differ".to_owned(),
                (false, false) if clocks.len() > 1 => {
                    "the servers agree: it is this machine's clock".to_owned()
                }
                (false, false) => "its clock or this machine's is set wrong".to_owned(),
            };
            let severity = match from_here.max(from_most) {
                off if off > CLOCK_WARNED => Severity::Warning,
                off if off > CLOCK_NOTED => Severity::Note,
                _ => Severity::Ok,
            };
            let finding = if severity == Severity::Ok {
                Finding::ok(check, &subject, seen)
            } else {
                let cure = match from_most > CLOCK_NOTED {
                    true => "set the clock of that machine, and keep it set (chrony, systemd-timesyncd)",
                    false => "set the clock of this machine, and keep it set (chrony, systemd-timesyncd)",
                };
                let cure = if why.starts_with("its clock or") {
                    "compare both with another clock, and set the wrong one (chrony)"
                } else {
                    cure
                };
                Finding::other(severity, check, &subject, seen, (why, cure))
            };
            all.push(finding.with("ahead_ms", *clock_ms).with("exact_to_us", exact.as_micros() as u64));
        }
        all
    }

    /// The log's time against the clock of the primary, which it follows.
    fn log_clock(&self) -> Option<Finding> {
        let primary = self.told.iter().filter(|(.., told)| told.status.role == RoleName::Primary);
        let (one, _, told) = primary.max_by_key(|(.., told)| told.status.view)?;
        let away_ms = told.log_ms?.checked_sub(told.clock_ms?)?;
        let (check, subject) = ("clock", "the log");
        let seen = format!("its time is {} the clock of {}, which leads", ahead(away_ms), self.name(one));
        let finding = if away_ms.unsigned_abs() <= CLOCK_WARNED {
            Finding::ok(check, subject, seen)
        } else {
            let why = match away_ms > 0 {
                true => (
                    "a server led with a clock that was ahead, or this one's is behind: notifications carry the log's \
                     time, and expire by it; it never goes back, and runs at half speed meanwhile",
                    "compare that machine's clock with another one, and set it if it is wrong; if it is right, wait \
                     about as long as twice the difference",
                ),
                false => (
                    "all servers were off for long, or that machine's clock is ahead: the log's time follows by a day \
                     an hour at most",
                    "compare that machine's clock with another one, and set it if it is wrong; if it is right, wait",
                ),
            };
            Finding::other(Severity::Warning, check, subject, seen, why)
        };
        Some(finding.with("ahead_ms", away_ms))
    }

    fn refused(&self) -> Vec<Finding> {
        let full = self.told.iter().filter_map(|(one, _, told)| {
            let count = |of| {
                told.status.refused.iter().find(|(reason, _)| *reason == of).map_or(0, |(_, count)| *count)
            };
            let (full, versions) = (count(RefusedDatagram::QueueFull), count(RefusedDatagram::Version));
            let (check, subject) = ("refused", self.name(one));
            let finding = if full > 0 {
                let why = (
                    "clients or peers send more than the server takes; what is lost is sent again",
                    "if it grows: fewer requests at once, or [limits] in recado.toml; a faster machine",
                );
                Finding::other(
                    Severity::Note,
                    check,
                    &subject,
                    format!("{full} datagrams found a queue full since its start"),
                    why,
                )
            } else if versions > 0 {
                let why = (
                    "a client or server of another version asks",
                    "upgrade it (docs/OPERATING.md, upgrades)",
                );
                Finding::other(
                    Severity::Note,
                    check,
                    &subject,
                    format!("{versions} datagrams were of another version"),
                    why,
                )
            } else {
                return None;
            };
            Some(finding.with("QueueFull", full).with("Version", versions))
        });
        full.collect()
    }
}

/// What a difference of the settings costs.
const COSTS: &str = "the primary's count, so a failover changes them: with less retention it drops what the others keep, \
                     for good";

/// The settings by which two configurations differ, in words.
fn settings(one: u64, other: u64) -> String {
    let differs = (one ^ other).to_be_bytes();
    let parts = differs.chunks(2).zip(AGREED).filter(|(bits, _)| **bits != [0, 0]);
    parts.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// A difference of clocks in words.
fn ahead(ms: i64) -> String {
    let (off, word) = (ms.unsigned_abs(), if ms < 0 { "behind" } else { "ahead of" });
    match off {
        off if off < 10_000 => format!("{off} ms {word}"),
        off if off < 7_200_000 => format!("{} s {word}", off / 1000),
        off => format!("{} h {word}", off / 3_600_000),
    }
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests;
