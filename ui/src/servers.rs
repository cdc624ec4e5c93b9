//! Addresses of servers as users write them, and their resolution.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use recado_doctor::bounded;

use crate::exit::Failure;

/// Default port of a server: the first one of a local `./run.sh`.
const PORT: u16 = 10097;

/// The servers of a local `./run.sh`.
pub(crate) const LOCAL: [&str; 3] = ["127.0.0.1:10097", "127.0.0.1:10098", "127.0.0.1:10099"];

/// A list of servers, resolved.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Addresses of one IP family: IPv4 if any host has an IPv4 address. Not empty.
    pub(crate) addrs: Vec<SocketAddr>,
    /// The entries that gave no address.
    pub(crate) unusable: Vec<Unusable>,
}

/// The reason why an entry of a list of servers gives no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0:?} is not a server address (HOST[:PORT]){cure}", cure = separated(.0))]
    Malformed(String),
    #[error("cannot resolve {0:?}: {1}")]
    Unresolved(String, io::Error),
}

/// The cure for several addresses in one entry.
fn separated(entry: &str) -> &'static str {
    if entry.contains([' ', ';', '\t', '\n']) { "; separate addresses with commas" } else { "" }
}

/// Resolves each `HOST[:PORT]` with the system's resolver.
///
/// # Errors
/// See [`resolve_by`].
pub(crate) fn resolve(servers: &[String]) -> Result<Resolved, Failure> {
    resolve_by(servers, |host, port| (host, port).to_socket_addrs().map(Iterator::collect))
}

/// Resolves each `HOST[:PORT]`. One usable entry is enough, as one server is.
///
/// # Errors
/// [`Failure::Usage`] if the list is empty or nothing in it is an address, [`Failure::Unresolved`] if the
/// resolver gives none.
fn resolve_by(
    servers: &[String],
    lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> Result<Resolved, Failure> {
    let (mut addrs, mut unusable) = (Vec::new(), Vec::new());
    // A comma at the end of the list leaves an empty entry, which is ignored.
    for server in servers.iter().map(|server| server.trim()).filter(|server| !server.is_empty()) {
        match resolve_one(server, &lookup) {
            Ok(found) => addrs.extend(found),
            Err(error) => unusable.push(error),
        }
    }
    keep_one_family(&mut addrs);
    let why = || unusable.iter().map(Unusable::to_string).collect::<Vec<_>>().join("; ");
    match &unusable[..] {
        _ if !addrs.is_empty() => Ok(Resolved { addrs, unusable }),
        [] => Err(Failure::Usage(
            "the list of servers is empty; give at least one address, HOST[:PORT]".to_owned(),
        )),
        all if all.iter().all(|one| matches!(one, Unusable::Malformed(_))) => Err(Failure::Usage(why())),
        _ => Err(Failure::Unresolved(why())),
    }
}

/// Keeps the IPv4 addresses, if there are any.
fn keep_one_family(addrs: &mut Vec<SocketAddr>) {
    if addrs.iter().any(SocketAddr::is_ipv4) {
        addrs.retain(SocketAddr::is_ipv4);
    }
}

/// Addresses of one family, of those servers whose names the resolver finds within `patience`. The others
/// are left out.
pub(crate) fn resolve_within(
    patience: Duration,
    servers: &[String],
    look_up: fn(&str) -> Result<Vec<SocketAddr>, Unusable>,
) -> Vec<SocketAddr> {
    type LookUp = Box<dyn FnOnce() -> Result<Vec<SocketAddr>, Unusable> + Send>;
    let names = servers.iter().map(|server| server.trim().to_owned()).filter(|server| !server.is_empty());
    let look_ups = names.map(|name| -> LookUp { Box::new(move || look_up(&name)) });
    let found = bounded::all(patience, look_ups.collect());
    let mut addrs: Vec<SocketAddr> = found.into_iter().flatten().flatten().flatten().collect();
    keep_one_family(&mut addrs);
    addrs
}

/// Resolves one `HOST[:PORT]` with the system's resolver, which may take long.
pub(crate) fn look_up(server: &str) -> Result<Vec<SocketAddr>, Unusable> {
    resolve_one(server, |host, port| (host, port).to_socket_addrs().map(Iterator::collect))
}

fn resolve_one(
    server: &str,
    lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, Unusable> {
    let bare = server.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, PORT)]);
    }
    if let Ok(addr) = server.parse() {
        return Ok(vec![addr]);
    }
    let malformed = || Unusable::Malformed(server.to_owned());
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| malformed())?),
        None => (server, PORT),
    };
    if host.is_empty()
        || host.contains(|c: char| c.is_whitespace() || matches!(c, ':' | ';' | '/' | '[' | ']' | '@'))
    {
        return Err(malformed());
    }
    match lookup(host, port) {
        Ok(found) if found.is_empty() => {
            Err(Unusable::Unresolved(server.to_owned(), io::Error::other("the name has no address")))
        }
        found => found.map_err(|error| Unusable::Unresolved(server.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A resolver that knows one host.
    fn resolved(servers: &[&str]) -> Result<Resolved, Failure> {
        let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
        resolve_by(&servers, |host, port| match host {
            "known.example" => Ok(vec![([192, 0, 2, 1], port).into()]),
            _ => Err(io::Error::other("no such host")),
        })
    }

    #[test]
    fn servers_have_a_default_port_and_one_family() {
        let addrs = |servers: &[&str]| resolved(servers).unwrap().addrs;
        let both = ["127.0.0.1:10097".parse().unwrap(), "127.0.0.2:7".parse().unwrap()];
        assert_eq!(addrs(&["127.0.0.1", "127.0.0.2:7", "[::1]:9"]), both);
        assert_eq!(addrs(&["[::1]"]), ["[::1]:10097".parse().unwrap()]);
        assert_eq!(addrs(&["known.example", "known.example:7"])[1].to_string(), "192.0.2.1:7");
        assert_eq!(addrs(&["127.0.0.1:7", " ", ""]).len(), 1);
        for nobody in [&[""][..], &[" ", ""]] {
            assert!(resolved(nobody).unwrap_err().to_string().contains("empty"), "{nobody:?}");
        }
    }

    #[test]
    fn one_usable_name_is_enough_and_each_other_one_is_named() {
        let found = resolved(&["known.example", "nowhere.example", "127.0.0.1:x", "http://a"]).unwrap();
        assert_eq!(found.addrs, ["192.0.2.1:10097".parse().unwrap()]);
        let told: Vec<String> = found.unusable.iter().map(ToString::to_string).collect();
        assert!(told[0].contains("nowhere.example") && told[0].contains("no such host"), "{told:?}");
        assert!(told[1].contains("127.0.0.1:x") && told[2].contains("http://a"), "{told:?}");
    }

    #[test]
    fn addresses_without_a_comma_between_them_are_told_to_have_one() {
        for wrong in ["127.0.0.1:7 127.0.0.1:8", "a;b"] {
            assert!(resolved(&[wrong]).unwrap_err().to_string().contains("with commas"), "{wrong}");
        }
        assert!(!resolved(&["127.0.0.1:x"]).unwrap_err().to_string().contains("commas"));
    }

    #[test]
    fn a_resolver_that_hangs_leaves_the_addresses_that_need_none() {
        let hanging = |server: &str| {
            resolve_one(server, |_, _| {
                loop {
                    thread::park();
                }
            })
        };
        let servers = ["slow.example", "[::1]:9", " 127.0.0.1:7", ""].map(str::to_owned);
        let found = resolve_within(Duration::from_millis(300), &servers, hanging);
        assert_eq!(found, ["127.0.0.1:7".parse().unwrap()]);
    }

    #[test]
    fn what_is_no_address_is_usage_and_a_name_that_does_not_resolve_is_not() {
        for wrong in ["127.0.0.1:x", "http://a", ":7", "a b", "a:99999"] {
            assert!(matches!(resolved(&[wrong]), Err(Failure::Usage(_))), "{wrong}");
        }
        for lost in [&["nowhere.example"][..], &["nowhere.example:7", "a:x"]] {
            assert!(matches!(resolved(lost), Err(Failure::Unresolved(_))), "{lost:?}");
        }
    }
}
