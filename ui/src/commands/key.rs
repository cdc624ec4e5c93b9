//! `recado key`: exports and imports an installation's key as a file. It contacts no server.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use recado_client::{ClusterId, KeyFile, Name, StoreError};
use serde_json::json;

use super::Context;
use crate::cli::Key;
use crate::exit::Failure;
use crate::print::{note, raw};

/// Most bytes that are read as a key file, which has some hundred.
const KEY_FILE_MAX: u64 = 64 * 1024;

pub(super) fn run(context: &Context, command: Key) -> Result<(), Failure> {
    match command {
        Key::Export { file, cluster } => export(context, file.as_deref(), cluster.as_deref()),
        Key::Import { file, force } => import(context, &file, force),
    }
}

fn export(context: &Context, file: Option<&Path>, cluster: Option<&str>) -> Result<(), Failure> {
    let (profile, state) = (context.config.profile()?, &context.config.state);
    let file = file.filter(|file| !is_standard(file));
    let id = cluster_of(context, &profile, cluster)?;
    if file.is_none() && !context.out.is_for_people() {
        return Err(Failure::Usage("the key itself is no JSON; give a FILE to write it to".to_owned()));
    }
    let key = KeyFile::export(state, id, &profile).map_err(other)?;
    match file {
        None => raw(key.text().as_bytes())?,
        Some(file) => {
            key.write(file).map_err(|error| match &error {
                StoreError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                    Failure::Other(format!(
                        "{} exists already; give another name, or delete it first",
                        file.display()
                    ))
                }
                _ => other(error),
            })?;
            let value = json!({"file": file.display().to_string(), "profile": profile.as_str()});
            context.out.put(value, || format!("the key of @{profile} is in {}", file.display()))?;
        }
    }
    note(format_args!(
        "anyone who has this key can act as @{profile}; keep it secret, and use it on one machine at a time"
    ));
    Ok(())
}

/// True if `file` stands for standard input or output.
fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// The text of a key file, and its permission bits; none of standard input.
fn read(context: &Context, file: &Path) -> Result<(String, u32), Failure> {
    let cannot = |error: io::Error| Failure::Other(format!("cannot read {}: {error}", named(file)));
    if !is_standard(file) {
        let text = fs::read_to_string(file).map_err(cannot)?;
        return Ok((text, fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode())));
    }
    let mut text = String::new();
    context.of_user(|| io::stdin().lock().take(KEY_FILE_MAX).read_to_string(&mut text))?.map_err(cannot)?;
    Ok((text, 0))
}

/// What messages call a key file.
fn named(file: &Path) -> String {
    if is_standard(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// The cluster in which this machine has a key of the profile: the only one, or the one that is given.
pub(super) fn cluster_of(
    context: &Context,
    profile: &Name,
    cluster: Option<&str>,
) -> Result<ClusterId, Failure> {
    let known = KeyFile::clusters(&context.config.state, profile).map_err(other)?;
    let wanted = |id: &ClusterId| cluster.is_none_or(|cluster| id.to_string() == cluster);
    let found: Vec<ClusterId> = known.iter().copied().filter(wanted).collect();
    if let [id] = found[..] {
        return Ok(id);
    }
    let all: Vec<String> = known.iter().map(ToString::to_string).collect();
    Err(Failure::Usage(match all.len() {
        0 => format!("this machine has no key of @{profile}"),
        _ => {
            format!("this machine has keys of @{profile} for clusters {}; give --cluster ID", all.join(", "))
        }
    }))
}

fn import(context: &Context, file: &Path, force: bool) -> Result<(), Failure> {
    let (text, mode) = read(context, file)?;
    let key = KeyFile::parse(file, &text).map_err(|error| match error {
        StoreError::Damaged { .. } => {
            Failure::Usage(format!("{} is not what `recado key export` wrote", named(file)))
        }
        error => other(error),
    })?;
    let profile = key.profile();
    if let Some(typed) = context.typed_profile.as_ref().filter(|typed| *typed != profile) {
        return Err(Failure::Usage(format!(
            "{} is the key of @{profile}, not of @{typed}; nothing was imported: use --as {profile}, or omit it",
            named(file)
        )));
    }
    key.import(&context.config.state, force).map_err(other)?;
    if mode & 0o077 != 0 {
        let file = file.display();
        note(format_args!(
            "other users could read {file}, which contains the key; run: chmod go= {file}, or delete it"
        ));
    }
    let value = json!({"profile": profile.as_str(), "cluster": key.cluster().to_string()});
    context
        .out
        .put(value, || format!("this machine now has the key of @{profile} in cluster {}", key.cluster()))?;
    if let Some(other) = context.config.profile.as_ref().filter(|other| *other != profile) {
        note(format_args!("commands here act as @{other} unless --as {profile} is given"));
    }
    note(
        "two machines that use one key end each other's sessions; for a second machine use `recado device add`",
    );
    Ok(())
}

pub(super) fn other(error: StoreError) -> Failure {
    Failure::Client(error.into())
}
