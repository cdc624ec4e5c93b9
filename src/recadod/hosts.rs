//! The hosts of `recadod init`: addresses as they are given, names resolved once. Servers know each other by
//! address, so the files name what a name stands for now.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};

/// The addresses of the hosts, in their order, all of one family if that is possible; and a line for each
/// name, which says what it stands for.
pub(super) fn resolve(hosts: &[String]) -> Result<(Vec<IpAddr>, String)> {
    resolve_by(hosts, |name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

fn resolve_by(
    hosts: &[String],
    lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> Result<(Vec<IpAddr>, String)> {
    let mut candidates = Vec::new();
    for host in hosts {
        candidates.push(match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                if let Some((name, port)) = with_port(host) {
                    bail!("--host {host} has a port, which is given apart: --host {name} --port {port}");
                }
                of_name(host, &lookup)?
            }
        });
    }
    let all_have = |is: fn(&IpAddr) -> bool| candidates.iter().all(|of| of.iter().any(is));
    let preferred: fn(&IpAddr) -> bool = if all_have(IpAddr::is_ipv4) || !all_have(IpAddr::is_ipv6) {
        IpAddr::is_ipv4
    } else {
        IpAddr::is_ipv6
    };
    let choose = |of: &Vec<IpAddr>| of.iter().find(|address| preferred(address)).or(of.first()).copied();
    let addresses: Vec<IpAddr> = candidates.iter().filter_map(choose).collect();
    let mut told = String::new();
    for (host, address) in hosts.iter().zip(&addresses).filter(|(host, _)| host.parse::<IpAddr>().is_err()) {
        // Writing to a String cannot fail.
        let _ = writeln!(told, "{host} is {address} now; the files name the address");
    }
    Ok((addresses, told))
}

/// The host and the port of what was given as a host.
fn with_port(host: &str) -> Option<(&str, u16)> {
    let (name, port) = host.rsplit_once(':')?;
    Some((name.trim_matches(['[', ']']), port.parse().ok()?))
}

/// The addresses by which other machines may reach this host; never none.
fn of_name(name: &str, lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>>) -> Result<Vec<IpAddr>> {
    let found =
        lookup(name).with_context(|| format!("--host {name} has no address; give the address itself"))?;
    let Some(first) = found.first() else { bail!("--host {name} has no address; give the address itself") };
    // Debian gives a machine's own name an address of 127.0.0.0/8 in /etc/hosts.
    let reachable: Vec<IpAddr> = found.iter().copied().filter(|address| !address.is_loopback()).collect();
    match reachable.is_empty() {
        true if name == "localhost" => Ok(found),
        true => bail!(
            "--host {name} is {first} on this machine, where other machines do not reach it (see /etc/hosts); give \
             its address"
        ),
        false => Ok(reachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
        let found = match name {
            "alpha" => vec!["2001:db8::1", "192.0.2.1"],
            "beta" => vec!["192.0.2.2"],
            "gamma" => vec!["2001:db8::3"],
            "own" => vec!["127.0.1.1"],
            "localhost" => vec!["127.0.0.1"],
            _ => return Err(io::Error::other("name not known")),
        };
        Ok(found.into_iter().map(|address| address.parse().unwrap()).collect())
    }

    fn resolved(hosts: &[&str]) -> Result<(Vec<IpAddr>, String)> {
        resolve_by(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(), lookup)
    }

    #[test]
    fn names_become_addresses_of_one_family_and_that_is_told() {
        let (addresses, told) = resolved(&["alpha", "beta", "192.0.2.3"]).unwrap();
        assert_eq!(
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        );
        assert!(told.contains("alpha is 192.0.2.1 now") && !told.contains("192.0.2.3"), "{told}");
        let (addresses, _) = resolved(&["alpha", "gamma"]).unwrap();
        assert!(addresses.iter().all(IpAddr::is_ipv6), "{addresses:?}");
        assert_eq!(resolved(&["localhost"]).unwrap().0, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_host_with_a_port_is_refused_with_the_option_for_the_port() {
        for (host, cure) in [
            ("127.0.0.1:7001", "--host 127.0.0.1 --port 7001"),
            ("beta:7001", "--host beta --port 7001"),
            ("[2001:db8::1]:7001", "--host 2001:db8::1 --port 7001"),
        ] {
            let message = format!("{:#}", resolved(&["beta", host]).unwrap_err());
            assert!(message.contains(cure) && !message.contains("no address"), "{message}");
        }
        assert!(resolved(&["2001:db8::1"]).is_ok());
    }

    #[test]
    fn a_name_that_others_cannot_reach_or_nobody_knows_is_refused_with_the_cure() {
        for (name, why) in [("own", "127.0.1.1"), ("nobody", "name not known")] {
            let message = format!("{:#}", resolved(&["beta", name]).unwrap_err());
            assert!(message.contains(name) && message.contains(why) && message.contains("give"), "{message}");
        }
    }
}
