//! `recado cluster`: lists and forgets trusted clusters, and shows which cluster answers.

use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{ClientError, ClusterId, ClusterIdentity, KnownCluster, identify};
use serde_json::{Value, json};

use super::Context;
use crate::cli::Cluster;
use crate::exit::Failure;
use crate::print::{aside, note, rfc3339, when};
use crate::servers;
use crate::trust::known;

/// Default time to wait for each server. A running server answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn run(context: &Context, command: Cluster) -> Result<(), Failure> {
    match command {
        Cluster::List => list(context),
        Cluster::Forget { which } => forget(context, &which),
        Cluster::Show => show(context),
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let known = known(&context.config).list().map_err(ClientError::from)?;
    if known.is_empty() {
        aside("no cluster is trusted yet");
    }
    for one in known {
        context.out.item(object(&one), || {
            format!(
                "cluster {}, trusted since {}\n  fingerprint  {}\n  addresses    {}\n  members      {}",
                one.cluster,
                when(one.since_unix_ms),
                one.key.fingerprint(),
                addresses(&one.addresses),
                if one.members.is_empty() { "not known yet".to_owned() } else { addresses(&one.members) }
            )
        })?;
    }
    Ok(())
}

fn forget(context: &Context, which: &str) -> Result<(), Failure> {
    let (id, addrs) = match which.parse::<ClusterId>() {
        Ok(id) => (Some(id), Vec::new()),
        Err(_) => (None, servers::resolve(&[which.to_owned()])?.addrs),
    };
    let meant =
        |one: &KnownCluster| id == Some(one.cluster) || one.addresses.iter().any(|addr| addrs.contains(addr));
    let forgotten = known(&context.config).forget(meant).map_err(ClientError::from)?;
    if forgotten.is_empty() {
        let message = format!(
            "no known cluster has the address or id {which}; `recado cluster list` shows the known ones"
        );
        return Err(Failure::Other(message));
    }
    for one in forgotten {
        context.out.item(object(&one), || {
            format!("forgot cluster {} at {}", one.cluster, addresses(&one.addresses))
        })?;
    }
    Ok(())
}

/// Queries each server separately, so that a server of another cluster is visible among them.
fn show(context: &Context) -> Result<(), Failure> {
    let config = &context.config;
    let clusters = known(config).list().map_err(ClientError::from)?;
    let (servers, mut silent) = (config.servers()?, Vec::new());
    for server in servers {
        let cluster_identity = match identify(&[*server], context.timeout.unwrap_or(TIMEOUT)) {
            Ok(cluster_identity) => cluster_identity,
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Unproved { .. })) => {
                silent.push(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let standing = match config.cluster_key {
            Some(pinned) if pinned == cluster_identity.key => Standing::Pinned,
            Some(_) => Standing::NotPinned,
            None => Standing::of(&clusters, &cluster_identity),
        };
        let value = json!({
            "address": cluster_identity.addr.to_string(),
            "cluster": cluster_identity.cluster.to_string(),
            "fingerprint": cluster_identity.key.fingerprint().to_string(),
            "key": cluster_identity.key.to_string(),
            "trusted": standing.is_trusted(),
        });
        context.out.put(value, || {
            format!(
                "{}: cluster {}, {}\n  fingerprint  {}\n  key          {}",
                cluster_identity.addr,
                cluster_identity.cluster,
                standing.text(),
                cluster_identity.key.fingerprint(),
                cluster_identity.key
            )
        })?;
    }
    for error in &silent {
        note(error);
    }
    // The errors are printed already. If no server answered, the exit code reports it.
    match silent.pop() {
        Some(error) if silent.len() + 1 == servers.len() => {
            Err(Failure::Told(Box::new(Failure::Client(error))))
        }
        _ => Ok(()),
    }
}

/// Relation of a cluster that answers to the pinned key and the trusted clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Pinned,
    NotPinned,
    Trusted { since_unix_ms: u64 },
    Another,
    Unknown,
}

impl Standing {
    fn of(clusters: &[KnownCluster], cluster_identity: &ClusterIdentity) -> Standing {
        let here = clusters.iter().find(|one| one.addresses.contains(&cluster_identity.addr));
        match here.or_else(|| clusters.iter().find(|one| one.is(cluster_identity))) {
            None => Standing::Unknown,
            Some(one) if one.is(cluster_identity) => Standing::Trusted { since_unix_ms: one.since_unix_ms },
            Some(_) => Standing::Another,
        }
    }

    fn is_trusted(self) -> bool {
        matches!(self, Standing::Pinned | Standing::Trusted { .. })
    }

    fn text(self) -> String {
        match self {
            Standing::Pinned => "with the pinned key".to_owned(),
            Standing::NotPinned => "NOT WITH THE PINNED KEY".to_owned(),
            Standing::Trusted { since_unix_ms } => format!("trusted since {}", when(since_unix_ms)),
            Standing::Another => "NOT THE ONE KNOWN AT THIS ADDRESS".to_owned(),
            Standing::Unknown => "not known here".to_owned(),
        }
    }
}

fn object(one: &KnownCluster) -> Value {
    json!({
        "cluster": one.cluster.to_string(),
        "fingerprint": one.key.fingerprint().to_string(),
        "key": one.key.to_string(),
        "since": rfc3339(one.since_unix_ms),
        "since_ms": one.since_unix_ms,
        "addresses": one.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        "members": one.members.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
    })
}

fn addresses(all: &[SocketAddr]) -> String {
    all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
