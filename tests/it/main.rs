//! One binary for everything that is tested from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod allocation;
mod bad_input;
#[path = "../sim/checkers.rs"]
#[allow(dead_code, unreachable_pub, clippy::type_complexity, reason = "shared with the simulator")]
mod checkers;
mod cluster;
mod elections;
mod failover;
mod golden;
#[path = "../sim/history.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod history;
mod load;
mod malformed;
mod offline;
#[path = "../sim/rng.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod rng;
mod roundtrip;
mod samples;
mod three_machines;
mod tidy;

/// The daemon under test.
fn recadod() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_recadod"))
}
