//! Mutants that no test need find, each with a reason: `survivors.txt`.
//!
//! ```text
//! crates/log/src/replica/log.rs | newest_views | n > 0 => n >= 0
//!     n counts what is there, and is never 0 here: the same program
//! ```
//! A line names a mutant by its file, function and change, not by its line number, so it stays valid when the
//! file changes. The indented line after it gives the reason. One line applies to all mutants with the same
//! text.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::plant::Mutant;

/// The parsed file.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<String, String>);

impl Known {
    /// Returns the reason why this mutant need not be found, if the file has one.
    pub(crate) fn reason(&self, mutant: &Mutant) -> Option<&str> {
        self.0.get(&key(mutant)).map(String::as_str)
    }
}

fn key(mutant: &Mutant) -> String {
    let Mutant { path, function, original, instead, .. } = mutant;
    format!("{path} | {function} | {original} => {instead}")
}

pub(crate) fn read(path: &Path) -> Result<Known> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut known = Known::default();
    let mut named: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(reason) => known.0.extend(named.drain(..).map(|name| (name, reason.to_owned()))),
            None => named.push(line.to_owned()),
        }
    }
    Ok(known)
}
