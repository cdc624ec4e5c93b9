//! Decides whether to trust an unknown cluster. The commands ask the user nowhere else but by
//! [`is_yes_to`].

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{ClientError, ClusterIdentity, KnownClusters, Trust, status};

use crate::config::Config;
use crate::print;
use crate::waiting::asking;

/// Clusters that commands talk to: the pinned one, or the known ones and new ones as [`answer`] decides.
pub(crate) fn trust(config: &Config, accept_new: bool) -> Trust {
    match config.cluster_key {
        Some(key) => Trust::Pinned(key),
        // The note is printed once the cluster is stored: one that cannot be stored is not trusted from now
        // on.
        None => Trust::asking(
            known(config),
            move |cluster_identity| decide(cluster_identity, accept_new),
            |cluster_identity| print::note(note(cluster_identity)),
        ),
    }
}

/// Clusters that commands have met and trusted.
pub(crate) fn known(config: &Config) -> KnownClusters {
    KnownClusters::under(&config.state)
}

/// The error about the servers at these addresses, if they belong to another cluster than the one that is
/// known there: it was made anew, say. A client that is open never hears of it from the servers of its own.
pub(crate) fn another_cluster(servers: &[SocketAddr], trust: &Trust) -> Option<ClientError> {
    match status(servers, ANOTHER_PATIENCE, trust) {
        Err(error @ (ClientError::ClusterKeyChanged { .. } | ClientError::NotThePinnedKey { .. })) => {
            Some(error)
        }
        Ok(_) | Err(_) => None,
    }
}

/// Time to wait for servers of another cluster.
const ANOTHER_PATIENCE: Duration = Duration::from_millis(600);

/// Decision about an unknown cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Trust it.
    Take,
    /// Ask the user at the terminal.
    Ask,
    /// Do not trust it, because nobody can be asked.
    Refuse,
}

fn answer(cluster_identity: &ClusterIdentity, accept_new: bool, somebody_there: bool) -> Answer {
    match () {
        // Loopback traffic does not leave the machine, so nobody can intercept it.
        () if accept_new || cluster_identity.addr.ip().is_loopback() => Answer::Take,
        () if somebody_there => Answer::Ask,
        () => Answer::Refuse,
    }
}

fn decide(cluster_identity: &ClusterIdentity, accept_new: bool) -> bool {
    match answer(cluster_identity, accept_new, is_somebody_there()) {
        Answer::Take => true,
        Answer::Ask => is_yes_to(&prompt(cluster_identity)),
        Answer::Refuse => false,
    }
}

fn note(cluster_identity: &ClusterIdentity) -> String {
    format!(
        "cluster {} at {} was not known here; it is trusted from now on, with the fingerprint {}",
        cluster_identity.cluster,
        cluster_identity.addr,
        cluster_identity.key.fingerprint()
    )
}

fn prompt(cluster_identity: &ClusterIdentity) -> String {
    format!(
        "The cluster at {} is not known here.\n    cluster      {}\n    fingerprint  {}\n\
         Compare the fingerprint with the one that `recadod fingerprint --config FILE` prints on a server of the cluster.\n\
         Are they the same, and should the cluster be trusted from now on? [y/N] ",
        cluster_identity.addr,
        cluster_identity.cluster,
        cluster_identity.key.fingerprint()
    )
}

/// Returns true if a person can be asked.
pub(crate) fn is_somebody_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks the person at the terminal. The answer is no if the prompt cannot be written or the answer cannot be
/// read.
pub(crate) fn is_yes_to(prompt: &str) -> bool {
    asking(|| {
        let mut line = String::new();
        write!(io::stderr(), "{prompt}").is_ok()
            && io::stdin().lock().read_line(&mut line).is_ok()
            && is_yes(&line)
    })
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use recado_client::{ClusterId, ClusterKey};

    use super::*;

    fn cluster_identity(addr: &str) -> ClusterIdentity {
        ClusterIdentity { addr: addr.parse().unwrap(), cluster: ClusterId(7), key: ClusterKey([7; 32]) }
    }

    #[test]
    fn a_new_cluster_is_trusted_on_loopback_or_with_the_flag_and_otherwise_prompted_or_refused() {
        let table = [
            ("127.0.0.1:1", false, false, Answer::Take),
            ("127.0.0.1:1", false, true, Answer::Take),
            ("[::1]:1", false, false, Answer::Take),
            ("192.0.2.1:1", false, true, Answer::Ask),
            ("192.0.2.1:1", false, false, Answer::Refuse),
            ("192.0.2.1:1", true, true, Answer::Take),
            ("192.0.2.1:1", true, false, Answer::Take),
            ("[2001:db8::1]:1", false, false, Answer::Refuse),
        ];
        for (addr, accept_new, somebody_there, expected) in table {
            let found = answer(&cluster_identity(addr), accept_new, somebody_there);
            assert_eq!(found, expected, "{addr}, accept {accept_new}, somebody there {somebody_there}");
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (line, yes) in [("y\n", true), ("Yes\n", true), ("\n", false), ("", false), ("no\n", false)] {
            assert_eq!(is_yes(line), yes, "{line:?}");
        }
    }

    #[test]
    fn the_prompt_shows_address_cluster_and_fingerprint_and_a_refusal_names_the_flag() {
        let cluster_identity = cluster_identity("192.0.2.1:10097");
        let refusal = ClientError::UnknownCluster(cluster_identity).to_string();
        assert!(refusal.contains("--accept-new") && refusal.contains("--cluster-key"), "{refusal}");
        for text in [note(&cluster_identity), prompt(&cluster_identity), refusal] {
            for part in
                ["192.0.2.1:10097", "0000000000000007", &cluster_identity.key.fingerprint().to_string()]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
