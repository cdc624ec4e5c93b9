//! Fuzz targets for untrusted bytes: from the network, and from the disk.
//!
//! Each target interprets a byte string as instructions: which valid sample to begin with, and how to corrupt
//! it. As tests they run for a few seconds each on random strings, after every file of their folder in
//! `__fuzz__`, which keeps the inputs of past failures. A failure prints `BOLERO_RANDOM_SEED=...`, which
//! repeats it; `BOLERO_RANDOM_TEST_TIME_MS=600000` makes each run for ten minutes, and `cargo bolero test`
//! runs a coverage-guided fuzzer on the same targets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../sim/disk.rs"]
#[allow(dead_code, reason = "shared with the simulator")]
mod disk;
mod files;
mod journal;
mod packets;
#[path = "../sim/rng.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod rng;
#[path = "../it/samples.rs"]
#[allow(dead_code, reason = "shared with the tests of real processes")]
mod samples;
mod script;
mod sealed;
