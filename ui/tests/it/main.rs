//! Tests of the commands as a user types them, with a cluster of real servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod claims;
#[path = "../../../tests/it/cluster.rs"]
#[allow(dead_code, reason = "shared with the tests of the servers")]
mod cluster;
mod commands;
#[path = "../../../tests/it/daemon.rs"]
mod daemon;
mod doctor;
mod one_shot;
mod output;
#[path = "../../../tests/it/relay.rs"]
#[allow(dead_code, reason = "shared with the tests of the servers")]
mod relay;
mod retraction;
mod screen;
mod servers;
#[path = "../../../tests/it/status_client.rs"]
mod status_client;
mod store;
mod terminal;
mod tmux;
mod trust;

use std::path::Path;

/// The daemon, for the clusters of the tests.
pub(crate) fn recadod() -> &'static Path {
    daemon::beside(env!("CARGO_BIN_EXE_recado"))
}
