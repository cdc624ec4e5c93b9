//! `recadod inspect`: what a data directory holds, changing nothing in it.

use std::path::Path;

use anyhow::{Context, Result};
use recado::journal;

pub(super) fn run(dir: &Path, json: bool) -> Result<String> {
    let found = journal::inspect(dir).with_context(|| format!("cannot inspect {}", dir.display()))?;
    if json {
        return Ok(serde_json::to_string(&found)? + "\n");
    }
    Ok(found.to_string())
}
