//! `recadod inspect`: shows the content of a data directory without changing anything in it.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use recado_log::journal::{self, Inspection, MetaState};

/// The cure for a wrong directory.
const CURE: &str = "give the directory that `data` in the server's recado.toml names";

/// Whether a data directory holds all that it once held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    Damaged,
}

/// Returns what the directory holds, and whether that is damaged.
pub(super) fn run(dir: &Path, json: bool) -> Result<(String, Verdict)> {
    let mut files = fs::read_dir(dir).map_err(|error| unreadable(dir, error))?;
    let found = journal::inspect(dir).with_context(|| format!("cannot inspect {}", dir.display()))?;
    // An empty directory is not an error: a server whose disk was lost starts on one.
    if is_nothing(&found) && files.next().is_some() {
        let near =
            ["data", "server-1/data"].map(|name| dir.join(name)).into_iter().find(|near| near.is_dir());
        let cure = near.map_or(CURE.to_owned(), |near| format!("did you mean {}?", near.display()));
        bail!("{} is not a data directory: it has neither meta nor log nor snapshots; {cure}", dir.display());
    }
    let verdict = if found.damaged { Verdict::Damaged } else { Verdict::Whole };
    let text = if json { serde_json::to_string(&found)? + "\n" } else { found.to_string() };
    Ok((text, verdict))
}

/// The error for a directory that cannot be read, with the cure.
fn unreadable(dir: &Path, error: io::Error) -> Error {
    let dir = dir.display();
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!("there is no directory {dir}; {CURE}"),
        io::ErrorKind::NotADirectory => anyhow!("{dir} is a file, not a directory; {CURE}"),
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not read {dir}; run the command as the server's user")
        }
        _ => Error::new(error).context(format!("cannot read {dir}")),
    }
}

fn is_nothing(found: &Inspection) -> bool {
    found.meta == MetaState::Absent
        && found.log.is_empty()
        && found.snapshots.is_empty()
        && found.aside.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recadod::init;

    #[test]
    fn inspect_distinguishes_a_wrong_directory_from_a_missing_one_and_names_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let message = |name: &str| run(&dir.path().join(name), false).unwrap_err().to_string();
        init::run(&dir.path().join("cluster"), &init::plan((Some(1), &[]), 10097).unwrap(), None).unwrap();
        assert!(
            message("nowhere").contains("there is no directory")
                && message("nowhere").contains("recado.toml")
        );
        assert!(message("cluster/server-1/recado.toml").contains("a file, not a directory"));
        for wrong in ["cluster", "cluster/server-1"] {
            let message = message(wrong);
            assert!(
                message.contains("not a data directory") && message.contains("server-1/data?"),
                "{message}"
            );
        }
    }

    #[test]
    fn inspect_does_not_report_an_unreadable_directory_as_missing() {
        let message = unreadable("data".as_ref(), io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(message.contains("as the server's user") && !message.contains("no directory"), "{message}");
    }

    #[test]
    fn inspect_shows_an_empty_directory_as_a_learners() {
        let dir = tempfile::tempdir().unwrap();
        let (text, verdict) = run(dir.path(), false).unwrap();
        assert!(text.contains("learner") && verdict == Verdict::Whole, "{text}");
    }

    #[test]
    fn a_directory_with_nothing_but_what_was_set_aside_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old.meta"), "").unwrap();
        assert!(run(dir.path(), false).unwrap().0.contains("set aside  old.meta"));
    }

    #[test]
    fn json_has_cluster_and_view_as_they_are_shown_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let output = init::run(dir.path(), &init::plan((Some(1), &[]), 10097).unwrap(), None).unwrap();
        let (found, _) = run(&dir.path().join("server-1/data"), true).unwrap();
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let cluster = found["meta"]["cluster"].as_str().unwrap();
        assert!(cluster.len() == 16 && output.contains(cluster), "{cluster}, {output}");
        assert_eq!((&found["meta"]["promised"], &found["view"]), (&"0.0".into(), &"0.0".into()));
    }
}
