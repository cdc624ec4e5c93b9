//! `recadod check-config`: whether `serve` would take this file.

use std::path::Path;

use anyhow::Result;
use recado::config::file::{ServerFile, require_loopback};
use recado::config::secret::ClusterSecret;

/// Reads the file and the secret it names; says what it found.
pub(super) fn run(file: &Path) -> Result<String> {
    let checked = load(file)?;
    let cluster = &checked.config.cluster;
    Ok(format!(
        "{}: good. {} of {} servers of cluster {}, data in {}\n",
        file.display(),
        cluster.me,
        cluster.members.len(),
        cluster.id,
        checked.data.display()
    ))
}

/// What `serve` runs with, checked as far as it can be without starting.
pub(super) fn load(file: &Path) -> Result<ServerFile> {
    let checked = ServerFile::read(file)?;
    require_loopback(&checked.config.cluster)?;
    ClusterSecret::read(&checked.secret)?;
    Ok(checked)
}
