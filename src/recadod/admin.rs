//! `recadod admin`: what only whoever has the cluster's secret may do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use recado::client;
use recado::id::{Name, NameError};

use super::check;

/// Longer than any election.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A name, with or without its @.
pub(super) fn name(text: &str) -> Result<Name, NameError> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// Releases a name and says so.
pub(super) fn release(file: &Path, name: Name) -> Result<String> {
    let (checked, secret) = check::load(file)?;
    let cluster = checked.config.cluster;
    let servers: Vec<_> = cluster.members.iter().map(|member| member.client).collect();
    let op = client::release(&servers, cluster.id, &secret, name.clone(), TIMEOUT)
        .with_context(|| format!("cannot release @{name}"))?;
    Ok(format!("@{name} is released (op {op}): whoever connects with the name next has it\n"))
}
