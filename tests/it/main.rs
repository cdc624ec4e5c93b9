//! The integration tests: one binary for everything that is tested from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod admin;
mod allocation;
mod attacks;
mod bad_input;
#[path = "../sim/checkers.rs"]
#[allow(dead_code, unreachable_pub, clippy::type_complexity, reason = "shared with the simulator")]
mod checkers;
#[allow(dead_code, reason = "shared with tests/torture")]
mod cluster;
mod damage;
mod device_files;
mod doctor;
mod elections;
mod environment;
mod examples;
mod failover;
mod floods;
mod golden;
#[path = "../sim/history.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod history;
mod limits;
#[allow(dead_code, reason = "shared with tests/torture")]
mod load;
mod malformed;
mod monitor;
#[path = "../sim/nonces.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod nonces;
mod offline;
mod packet_numbers;
mod pauses;
mod protocol_doc;
mod relay;
#[path = "../sim/rng.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod rng;
mod roundtrip;
mod samples;
mod status_client;
mod steady_state;
mod three_machines;
mod tidy;

/// The daemon under test.
fn recadod() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_recadod"))
}

/// Returns the random generator of a test. Its seed is printed, and IT_SEED sets it.
fn rng(what: &str) -> rng::Rng {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let seed = std::env::var("IT_SEED").map_or(u64::from_le_bytes(random), |seed| seed.parse().unwrap());
    eprintln!("{what}: IT_SEED={seed} draws the same again");
    rng::Rng::seeded(seed)
}
