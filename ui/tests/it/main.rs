//! Tests of the commands as a user types them, with a cluster of real servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../../../tests/it/cluster.rs"]
#[allow(dead_code, reason = "shared with the tests of the servers")]
mod cluster;
mod commands;
#[path = "../../../tests/it/relay.rs"]
#[allow(dead_code, reason = "shared with the tests of the servers")]
mod relay;
mod screen;
#[path = "../../../tests/it/status_client.rs"]
mod status_client;
mod terminal;
mod tmux;
mod trust;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the daemon, beside the command under test. `cargo test --workspace` has built it before any test
/// runs. A test of this package alone may not find it, and then builds it once.
pub(crate) fn recadod() -> &'static Path {
    static DAEMON: OnceLock<PathBuf> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let daemon = Path::new(env!("CARGO_BIN_EXE_recado")).with_file_name("recadod");
        if !daemon.exists() {
            let profile = daemon.parent().expect("in a directory");
            let target = profile.parent().expect("in a directory");
            let profile = match profile.file_name().and_then(|name| name.to_str()) {
                Some("debug") | None => "dev",
                Some(other) => other,
            };
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let build = Command::new(cargo)
                .args([
                    "build",
                    "--package",
                    "recado",
                    "--bin",
                    "recadod",
                    "--profile",
                    profile,
                    "--target-dir",
                ])
                .arg(target)
                .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
                .output();
            cluster::succeeded(&build.unwrap());
        }
        daemon
    })
}
