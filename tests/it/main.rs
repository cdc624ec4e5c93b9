//! One binary for everything that is tested from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod allocation;
mod golden;
mod malformed;
mod roundtrip;
mod samples;
mod tidy;
