//! `recado doctor`: examines the way to the servers, the servers as they are seen from here, and this
//! machine. Needs no profile, changes nothing, and trusts and remembers nobody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use recado_client::{Installation, KnownCluster, survey};
use recado_doctor::cluster::{self, Expected};
use recado_doctor::{Finding, Report, Severity, bounded, observe};

use super::Context;
use crate::exit::Failure;
use crate::servers::{self, Unusable};
use crate::trust;

/// How long names are looked up.
const LOOK_UP: Duration = Duration::from_millis(1500);
/// How long the servers are asked, unless the user gives a time-out.
const ASK: Duration = Duration::from_secs(3);
/// How long what is observed at once may take beyond that.
const GRACE: Duration = Duration::from_millis(500);
/// Where a package keeps the configuration of a server.
const SERVER_FILE: &str = "/etc/recado/recado.toml";

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = &context.config;
    let (mut all, given) = names(&look_up(config.written()), config.names_servers(), &config.path);
    let (known, found) = known(context);
    all.extend(found);
    all.extend(observed(context, given, known));
    all.extend(Installation::all(&config.state).iter().flat_map(kept));
    all.extend(hint(Path::new(SERVER_FILE)));
    let report = Report(all);
    context.out.put(report.to_json(), || report.to_text(context.out.has_colours()))?;
    if !report.has_failed() {
        return Ok(());
    }
    // The report says it all.
    Err(Failure::Told(Box::new(Failure::Other("the doctor has found something".to_owned()))))
}

/// A server as it is written, and its addresses; none if the resolver has not answered in time.
type Name = (String, Option<Result<Vec<SocketAddr>, Unusable>>);

fn look_up(written: &[String]) -> Vec<Name> {
    type LookUp = Box<dyn FnOnce() -> Result<Vec<SocketAddr>, Unusable> + Send>;
    let written: Vec<String> =
        written.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let look_ups =
        written.iter().cloned().map(|name| -> LookUp { Box::new(move || servers::look_up(&name)) });
    let found = bounded::all(LOOK_UP, look_ups.collect());
    written.into_iter().zip(found).collect()
}

/// What the names of the servers give: the findings, and the addresses, of one family as commands use them.
/// `file` is the configuration file, which may not exist.
fn names(found: &[Name], are_configured: bool, file: &Path) -> (Vec<Finding>, Vec<SocketAddr>) {
    let check = "name";
    let mut given: Vec<SocketAddr> =
        found.iter().filter_map(|(_, found)| found.as_ref()?.as_ref().ok()).flatten().copied().collect();
    if given.iter().any(SocketAddr::is_ipv4) {
        given.retain(SocketAddr::is_ipv4);
    }
    given.sort_unstable();
    given.dedup();
    // Commands use the names that resolve, and one is enough.
    let severity = if given.is_empty() { Severity::Fault } else { Severity::Warning };
    let mut all: Vec<Finding> = found
        .iter()
        .map(|(name, found)| match found {
            Some(Ok(addrs)) => {
                let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
                let finding = Finding::ok(check, name, addrs.join(", "));
                finding.with("addresses", addrs)
            }
            Some(Err(error @ Unusable::Malformed(_))) => {
                let why = (error.to_string(), "correct --server, RECADO_SERVERS or config.toml");
                Finding::other(severity, check, name, "is no address", why)
            }
            Some(Err(Unusable::Unresolved(_, error))) => {
                let cure = "correct the name, or its entry in DNS or /etc/hosts (getent hosts NAME), or give an address";
                Finding::other(severity, check, name, "does not resolve", (error.to_string(), cure))
            }
            None => {
                let why = ("the resolver does not answer", "check /etc/resolv.conf and the name server, or give addresses");
                Finding::other(severity, check, name, "does not resolve in time", why)
            }
        })
        .collect();
    if found.is_empty() {
        let why = (
            "the list of servers is empty",
            "name one of your servers: --server, RECADO_SERVERS or config.toml (is a variable unset?)",
        );
        all.push(Finding::other(Severity::Fault, check, "servers", "none is named", why));
    } else if !are_configured {
        let why = (
            "neither --server nor RECADO_SERVERS nor config.toml names a server",
            match file.exists() {
                true => {
                    format!("name one of your servers in {}: servers = [\"ADDRESS:10097\"]", file.display())
                }
                false => {
                    format!("recado config init writes {}; name one of your servers there", file.display())
                }
            },
        );
        let seen = "none is configured; those of a local ./run.sh are asked";
        all.push(Finding::other(Severity::Note, check, "servers", seen, why));
    }
    (all, given)
}

/// The clusters that this machine has met.
fn known(context: &Context) -> (Vec<KnownCluster>, Option<Finding>) {
    match trust::known(&context.config).list() {
        Ok(known) => (known, None),
        Err(error) => {
            let why = (error.to_string(), "no command trusts any cluster before that is mended");
            let subject = context.config.state.display().to_string();
            let found =
                Finding::other(Severity::Fault, "cluster", &subject, "what is trusted cannot be read", why);
            (Vec::new(), Some(found))
        }
    }
}

/// The servers and this machine, at once.
fn observed(context: &Context, given: Vec<SocketAddr>, known: Vec<KnownCluster>) -> Vec<Finding> {
    let ask = context.timeout.unwrap_or(ASK);
    let (pinned, state) = (context.config.cluster_key, context.config.state.clone());
    let family = given.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr| unspecified(*addr));
    let servers: Box<dyn FnOnce() -> Vec<Finding> + Send> = Box::new(move || {
        if given.is_empty() {
            return Vec::new();
        }
        // As other commands do, the doctor asks where a known cluster has its other servers.
        let places = places(&given, &known);
        let expected = Expected { given, pinned, known, own: None };
        match survey(&places, ask) {
            Ok(found) => cluster::findings(&found, &expected),
            Err(error) => {
                let why = (
                    error.to_string(),
                    "look at the limit of open files (ulimit -n), and at the network's set-up",
                );
                vec![Finding::other(Severity::Fault, "udp", "servers", "nobody can be asked", why)]
            }
        }
    });
    let machine: Box<dyn FnOnce() -> Vec<Finding> + Send> = Box::new(move || observe::client(&state, family));
    let patience = ask.max(ASK) + GRACE;
    let found = bounded::all(patience, vec![servers, machine]);
    let hangs = |what: &str| {
        let why = ("the system does not answer", "look at dmesg, and repeat");
        vec![Finding::other(Severity::Fault, "doctor", what, "no end in time", why)]
    };
    let found = found.into_iter().zip(["servers", "this machine"]);
    found.flat_map(|(found, what)| found.unwrap_or_else(|| hangs(what))).collect()
}

fn unspecified(addr: SocketAddr) -> IpAddr {
    match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The given addresses, and those of each known cluster that has a server at one of them.
fn places(given: &[SocketAddr], known: &[KnownCluster]) -> Vec<SocketAddr> {
    let mut places = given.to_vec();
    for cluster in known {
        let all = || cluster.addresses.iter().chain(&cluster.members);
        if all().any(|addr| given.contains(addr)) {
            places.extend(all().filter(|addr| !given.contains(addr)));
        }
    }
    places
}

/// What this machine keeps of a profile: what a command would fail with, and what no server has answered.
fn kept(installation: &Installation) -> Vec<Finding> {
    let Installation { cluster, profile, dir, unanswered, unreadable } = installation;
    let (check, subject) = ("profile", format!("@{profile} in cluster {cluster}"));
    let mut all: Vec<Finding> = unreadable
        .iter()
        .map(|error| {
            let cure = format!(
                "do what its message says; recado --as {profile} device reset drops the outboxes and cursors in {}, and \
                 keeps the key",
                dir.display()
            );
            let why = (error.to_string(), cure);
            Finding::other(Severity::Fault, check, &subject, "its commands fail", why)
        })
        .collect();
    if *unanswered > 0 {
        let why = (
            "a command ended before they were answered, or one waits for them now",
            format!("recado --as {profile} claim settles them, without sending anything twice"),
        );
        let seen = format!("requests without an answer: {unanswered}");
        all.push(Finding::other(Severity::Warning, check, &subject, &seen, why));
    }
    if all.is_empty() {
        all.push(Finding::ok(check, &subject, "key, outboxes and cursors can be read"));
    }
    all
}

/// On a server's machine more can be seen.
fn hint(file: &Path) -> Option<Finding> {
    file.exists().then(|| {
        let why = ("this machine has a server's configuration", "run: recadod doctor");
        let seen = "its own doctor sees more of this machine";
        Finding::other(Severity::Note, "server", &file.display().to_string(), seen, why)
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use recado_client::{ClusterId, ClusterKey};

    use super::*;

    fn addr(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 10_097).into()
    }

    fn lost(name: &str) -> Name {
        (name.to_owned(), Some(Err(Unusable::Unresolved(name.to_owned(), io::Error::other("no such host")))))
    }

    fn good(name: &str, addrs: &[SocketAddr]) -> Name {
        (name.to_owned(), Some(Ok(addrs.to_vec())))
    }

    #[test]
    fn each_name_says_where_it_resolves() {
        let six: SocketAddr = "[2001:db8::1]:10097".parse().unwrap();
        let (found, given) =
            names(&[good("a.example", &[addr(1), six]), good("b.example", &[addr(1)])], true, Path::new(""));
        assert_eq!(found[0].seen, "192.0.2.1:10097, [2001:db8::1]:10097");
        assert_eq!((found.len(), given), (2, vec![addr(1)]), "one family, as commands use it");
    }

    #[test]
    fn a_bad_name_is_a_warning_beside_a_good_one_and_a_fault_alone() {
        let malformed = ("http://a".to_owned(), Some(Err(Unusable::Malformed("http://a".to_owned()))));
        let late = ("late.example".to_owned(), None);
        let (found, given) =
            names(&[good("a.example", &[addr(1)]), lost("b.example"), malformed, late], true, Path::new(""));
        assert_eq!(given, [addr(1)]);
        let bad: Vec<_> = found[1..].iter().map(|one| (one.severity, one.subject.as_str())).collect();
        let warning = |name| (Severity::Warning, name);
        assert_eq!(bad, [warning("b.example"), warning("http://a"), warning("late.example")]);
        assert!(found.iter().all(|one| one.severity == Severity::Ok || !one.cure.is_empty()), "{found:?}");
        let (found, given) = names(&[lost("b.example")], true, Path::new(""));
        assert_eq!((found[0].severity, given.len()), (Severity::Fault, 0));
        assert!(found[0].cause.contains("no such host"), "{found:?}");
    }

    #[test]
    fn an_empty_list_of_servers_is_a_fault() {
        let empty = look_up(&[String::new(), " ".to_owned()]);
        let (found, given) = names(&empty, true, Path::new(""));
        assert_eq!((found.len(), given.len()), (1, 0));
        assert_eq!((found[0].severity, found[0].check), (Severity::Fault, "name"));
    }

    #[test]
    fn servers_that_nobody_configured_are_noted_with_the_file_to_write_or_to_edit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let noted = || {
            let (found, _) = names(&[good("127.0.0.1:10097", &[addr(1)])], false, &file);
            assert!(found[1].severity == Severity::Note, "{found:?}");
            assert!(found[1].cure.contains(&file.display().to_string()), "{found:?}");
            found[1].cure.clone()
        };
        assert!(noted().contains("config init"));
        std::fs::write(&file, "profile = \"alice\"\n").unwrap();
        let cure = noted();
        assert!(!cure.contains("config init") && cure.contains("servers = ["), "{cure}");
    }

    #[test]
    fn the_other_servers_of_a_known_cluster_are_asked_too() {
        let known = |addresses: &[u8], members: &[u8]| KnownCluster {
            cluster: ClusterId(1),
            key: ClusterKey([1; 32]),
            since_unix_ms: 1,
            addresses: addresses.iter().map(|last| addr(*last)).collect(),
            members: members.iter().map(|last| addr(*last)).collect(),
        };
        assert_eq!(places(&[addr(1)], &[known(&[1], &[1, 2]), known(&[5], &[6])]), [addr(1), addr(2)]);
        assert_eq!(places(&[addr(6)], &[known(&[5], &[6])]), [addr(6), addr(5)]);
    }

    #[test]
    fn a_servers_machine_has_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recado.toml");
        assert_eq!(hint(&file), None);
        std::fs::write(&file, "").unwrap();
        assert!(
            hint(&file)
                .is_some_and(|hint| hint.severity == Severity::Note && hint.cure.contains("recadod doctor"))
        );
    }
}
