//! Simulation: the real code on virtual time, disks and networks, from one seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod disk;
mod journal;
mod rng;
